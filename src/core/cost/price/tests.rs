//! Costs of usages at prices.

use serde_json::json;

use super::*;

fn price(fields: &[(&str, &str)]) -> Price {
    let mut price = Price::default();
    for (name, text) in fields {
        assert!(price.set(name, text), "{name} {text}");
    }
    price
}

fn dollars(text: &str) -> Money {
    Money::parse(text).unwrap()
}

/// The next pseudo-random number.
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

const FULL: &[(&str, &str)] = &[
    ("input_cost_per_token", "2e-06"),
    ("output_cost_per_token", "1e-05"),
    ("cache_read_input_token_cost", "5e-07"),
    ("cache_creation_input_token_cost", "2.5e-06"),
    ("cache_creation_input_token_cost_above_1hr", "4e-06"),
    ("input_cost_per_audio_token", "4e-05"),
    ("output_cost_per_audio_token", "8e-05"),
    ("output_cost_per_reasoning_token", "2e-05"),
];

#[test]
fn each_kind_of_token_pays_its_rate() {
    let full = price(FULL);
    let plain = price(&FULL[..2]);
    let base = Usage { prompt_tokens: 1_000, completion_tokens: 100, ..Usage::default() };
    let cached = Usage { cached_tokens: 400, ..base.clone() };
    let written = Usage { cache_creation_tokens: 300, cache_creation_1h_tokens: 100, ..cached.clone() };
    let audio = Usage { audio_input_tokens: 200, ..base.clone() };
    let reasoning = Usage { reasoning_tokens: Some(60), ..base.clone() };
    let apart = Usage { text_output_tokens: Some(30), audio_output_tokens: 10, ..reasoning.clone() };
    let all_text = Usage { text_output_tokens: Some(100), audio_output_tokens: 10, ..base.clone() };
    let spoken = Usage { audio_output_tokens: 40, ..base.clone() };
    let zero_text = Usage { text_output_tokens: Some(0), ..reasoning.clone() };
    let rows = [
        (&full, &base, "0.003"),
        (&full, &cached, "0.0024"),
        (&full, &written, "0.0027"),
        (&full, &audio, "0.0106"),
        (&full, &reasoning, "0.0036"),
        (&full, &spoken, "0.0058"),
        (&full, &apart, "0.0043"),
        (&full, &all_text, "0.003"),
        (&full, &zero_text, "0.0036"),
        // Missing rates are the input or output rate, never nothing.
        (&plain, &cached, "0.003"),
        (&plain, &written, "0.003"),
        (&plain, &audio, "0.003"),
        (&plain, &apart, "0.003"),
    ];
    for (price, usage, expected) in rows {
        assert_eq!(price.cost(usage, &Terms::default(), None), dollars(expected), "{usage:?}");
    }
    let broken = Usage { prompt_tokens: 1, cached_tokens: 10, ..Usage::default() };
    assert_eq!(full.cost(&broken, &Terms::default(), None), dollars("0.000005"));
}

#[test]
fn buffered_and_streamed_answers_cost_the_same() {
    let full = price(FULL);
    let openai = json!({"prompt_tokens": 1_234, "completion_tokens": 56, "total_tokens": 1_290,
                        "prompt_tokens_details": {"cached_tokens": 100}});
    let buffered = json!({"id": "a", "choices": [{"message": {"content": "x"}}], "usage": openai});
    let chunk = json!({"id": "a", "choices": [], "usage": openai});
    let of = |answer: &serde_json::Value| {
        full.cost(&Usage::from_openai(&answer["usage"]).unwrap(), &Terms::default(), None)
    };
    assert_eq!(of(&buffered), of(&chunk));

    let whole = json!({"input_tokens": 10, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 50,
                       "output_tokens": 77});
    let mut streamed = Usage::from_anthropic(
        &json!({"input_tokens": 10, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 50,
                "output_tokens": 2}),
    )
    .unwrap();
    streamed.merge_anthropic_delta(&json!({"output_tokens": 77}));
    let buffered = Usage::from_anthropic(&whole).unwrap();
    assert_eq!(full.cost(&streamed, &Terms::default(), None), full.cost(&buffered, &Terms::default(), None));
    // And the same again when it reaches the client in OpenAI's form.
    let seen = Usage::from_openai(&buffered.to_openai()).unwrap();
    assert_eq!(full.cost(&seen, &Terms::default(), None), full.cost(&buffered, &Terms::default(), None));
}

#[test]
fn cost_grows_with_tokens() {
    let mut tiered = price(FULL);
    for (name, text) in [
        ("input_cost_per_token_above_128k_tokens", "3e-06"),
        ("output_cost_per_token_above_128k_tokens", "2e-05"),
        ("input_cost_per_token_above_200k_tokens", "4e-06"),
    ] {
        assert!(tiered.set(name, text));
    }
    let mut seed = 0x1234_5678_9abc_def1;
    for _ in 0..20_000 {
        let usage = Usage {
            prompt_tokens: random(&mut seed) % 400_000,
            completion_tokens: random(&mut seed) % 10_000,
            ..Usage::default()
        };
        let more = Usage { prompt_tokens: usage.prompt_tokens + random(&mut seed) % 9_000, ..usage.clone() };
        let longer =
            Usage { completion_tokens: usage.completion_tokens + random(&mut seed) % 9_000, ..usage.clone() };
        for price in [&price(FULL), &tiered] {
            let cost = price.cost(&usage, &Terms::default(), None);
            assert!(
                cost <= price.cost(&more, &Terms::default(), None)
                    && cost <= price.cost(&longer, &Terms::default(), None),
                "{usage:?}"
            );
            assert!(cost >= Money::ZERO);
        }
    }
}

#[test]
fn absurd_counts_do_not_overflow() {
    let dear = price(&[("input_cost_per_token", "18"), ("output_cost_per_token", "18")]);
    let usage = Usage { prompt_tokens: u64::MAX, completion_tokens: u64::MAX, ..Usage::default() };
    // More than there is room for on the way: it stops at the limit instead of wrapping.
    assert!(dear.cost(&usage, &Terms::default(), None) > dollars("100000000000000000000"));
}

#[test]
fn tiers_are_compared_as_numbers() {
    let price = price(&[
        ("input_cost_per_token", "1"),
        ("input_cost_per_token_above_1000k_tokens", "4"),
        ("input_cost_per_token_above_32k_tokens", "2"),
        ("input_cost_per_token_above_200k_tokens", "3"),
    ]);
    for (tokens, expected) in [(32_000, 1), (32_001, 2), (200_000, 2), (200_001, 3), (1_000_001, 4)] {
        let usage = Usage { prompt_tokens: tokens, ..Usage::default() };
        assert_eq!(
            price.cost(&usage, &Terms::default(), None),
            dollars(&(tokens * expected).to_string()),
            "{tokens}"
        );
    }
}

#[test]
fn rounded_once_at_the_end() {
    // A third of 10⁻¹² dollars each: three of them are one, one of them is none.
    let price = price(&[("input_cost_per_token", "0.000000000000333334")]);
    let cost = |tokens| {
        price.cost(&Usage { prompt_tokens: tokens, ..Usage::default() }, &Terms::default(), None).pico()
    };
    assert_eq!((cost(1), cost(2), cost(3)), (0, 1, 1));
}

#[test]
fn by_the_second() {
    let usage = Usage { prompt_tokens: 5, completion_tokens: 5, ..Usage::default() };
    let input = price(&[("input_cost_per_second", "0.00042")]);
    assert_eq!(input.cost(&usage, &Terms::default(), Some(2_500)), dollars("0.00105"));
    assert_eq!(input.cost(&usage, &Terms::default(), None), Money::ZERO);
    let both = price(&[("input_cost_per_second", "0.1"), ("output_cost_per_second", "0.2")]);
    assert_eq!(both.cost(&usage, &Terms::default(), Some(1_000)), dollars("0.3"));
    let token = price(&[("input_cost_per_second", "0.1"), ("input_cost_per_token", "1")]);
    assert_eq!(token.cost(&usage, &Terms::default(), Some(1_000)), dollars("5"));
}

#[test]
fn what_a_configuration_sets_holds_in_every_tier() {
    let own = |fields: &[(&str, &str)]| {
        fields.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect::<Vec<_>>()
    };
    let base = price(&[
        ("input_cost_per_token", "1"),
        ("output_cost_per_token", "1"),
        ("input_cost_per_token_priority", "2"),
        ("input_cost_per_token_above_200k_tokens_priority", "3"),
    ]);
    let terms = Terms::asked(Some(r#""priority""#), None);
    let rows = [
        (own(&[]), 1, "2"),
        (own(&[]), 200_001, "600003"),
        (own(&[("input_cost_per_token", "4")]), 1, "4"),
        (own(&[("input_cost_per_token", "4")]), 200_001, "800004"),
        (own(&[("input_cost_per_token", "4"), ("input_cost_per_token_priority", "5")]), 1, "5"),
        (own(&[("input_cost_per_token_priority", "5")]), 1, "5"),
    ];
    for (overrides, prompt_tokens, expected) in rows {
        let price = Price::with_overrides(Some(&base), &overrides);
        let usage = Usage { prompt_tokens, ..Usage::default() };
        assert_eq!(price.cost(&usage, &terms, None), dollars(expected), "{overrides:?} {prompt_tokens}");
    }
}

#[test]
fn a_call_may_have_a_price_of_its_own() {
    let price = price(&[("input_cost_per_request", "0.005"), ("output_cost_per_token", "0.001")]);
    let usage = Usage { completion_tokens: 3, ..Usage::default() };
    assert_eq!(price.cost(&usage, &Terms::default(), None), dollars("0.008"));
}

#[test]
fn searches_are_added() {
    let price = price(&[("search_context_size_medium", "0.01"), ("input_cost_per_token", "0.001")]);
    let usage = Usage { prompt_tokens: 1, web_search_requests: Some(3), ..Usage::default() };
    assert_eq!(price.cost(&usage, &Terms::default(), None), dollars("0.031"));
}

#[test]
fn custom_prices_go_over_the_table() {
    let own = |fields: &[(&str, &str)]| {
        fields.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect::<Vec<_>>()
    };
    let mut base = price(FULL);
    base.set("input_cost_per_token_above_200k_tokens", "9e-06");
    let usage = Usage {
        prompt_tokens: 1_000,
        cached_tokens: 400,
        completion_tokens: 100,
        total_tokens: 1_100,
        ..Usage::default()
    };
    let large = Usage { prompt_tokens: 300_000, ..Usage::default() };
    let rows = [
        (own(&[]), &usage, "0.0024"),
        (own(&[("input_cost_per_token", "1e-05")]), &usage, "0.0072"),
        (own(&[("input_cost_per_token", "1e-05")]), &large, "3"),
        (
            own(&[("input_cost_per_token", "1e-05"), ("input_cost_per_token_above_200k_tokens", "2e-05")]),
            &large,
            "6",
        ),
        (own(&[("output_cost_per_token", "1e-05")]), &large, "2.7"),
        (own(&[("input_cost_per_token", "0"), ("output_cost_per_token", "0.0")]), &usage, "0"),
        (own(&[("input_cost_per_second", "0.5")]), &usage, "1"),
        (own(&[("input_cost_per_token", "cheap"), ("colour", "1"), ("mode", "chat")]), &usage, "0.0024"),
        (own(&[("input_cost_per_token", "-1")]), &usage, "0.0024"),
    ];
    for (overrides, usage, expected) in rows {
        let price = Price::with_overrides(Some(&base), &overrides);
        assert_eq!(price.cost(usage, &Terms::default(), Some(2_000)), dollars(expected), "{overrides:?}");
    }
    assert!(!Price::with_overrides(None, &[]).is_known());
    assert!(Price::with_overrides(None, &own(&[("input_cost_per_token", "0")])).is_known());
}

#[test]
fn rates_are_read_from_any_decimal_text() {
    let rows = [
        ("2.5e-06", Some("0.0000025")),
        ("5.0000000000000004e-08", Some("0.00000005")),
        ("0", Some("0")),
        ("1", Some("1")),
        ("18.5", None),
        ("-1", None),
        ("x", None),
        ("", None),
    ];
    for (text, expected) in rows {
        assert_eq!(Rate::parse(text).map(|rate| rate.to_string()).as_deref(), expected, "{text}");
    }
    for name in ["colour", "input_cost_per_token_above_xk_tokens", "input_cost_per_token_turbo", "_flex"] {
        assert!(!Price::is_price(name, "1"), "{name}");
    }
    for name in [
        "input_cost_per_token_cache_hit",
        "output_cost_per_token_flex",
        "input_cost_per_token_above_200k_tokens_priority",
        "cache_creation_input_token_cost_above_1hr_above_200k_tokens",
        "search_context_cost_per_query.search_context_size_low",
        "citation_cost_per_token",
    ] {
        assert!(Price::is_price(name, "1e-7"), "{name}");
    }
}

#[test]
fn rows_are_read_back_and_garbage_is_refused() {
    let mut full = price(FULL);
    full.set("input_cost_per_token_above_200k_tokens", "3.2857142857142855e-08");
    full.set("output_cost_per_token_above_200k_tokens", "0");
    full.set("cache_creation_input_token_cost_above_1hr_above_100k_tokens", "1e-3");
    full.set("input_cost_per_token_flex", "1e-6");
    full.set("output_cost_per_token_above_200k_tokens_priority", "3e-5");
    full.set("output_cost_per_token_priority", "2e-5");
    for price in [full, Price::default()] {
        let mut row = Vec::new();
        price.encode(&mut row);
        assert_eq!(Price::decode(&row), Some(price));
        for end in 0..row.len() {
            assert_eq!(Price::decode(&row[..end]), None);
        }
    }
    for row in [&[0, 1, 200][..], &[200, 1, 1, END], &[ABOVE, 0xff, 0xff], &[IN_TIER, 9, END], &[0; 64]] {
        assert_eq!(Price::decode(row), None);
    }
}
