//! What answers cost, by every way an answer can take: both client APIs, buffered, passing and streamed.

use super::*;
use crate::core::model::money::Money;

/// One answer and what it costs.
struct Charge {
    model: &'static str,
    /// Members of the request.
    asked: Value,
    /// Members of the answer, `usage` among them.
    told: Value,
    dollars: &'static str,
}

fn charge(model: &'static str, asked: Value, told: Value, dollars: &'static str) -> Charge {
    Charge { model, asked, told, dollars }
}

fn usage(prompt: u64, completion: u64, total: u64) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total})
}

fn with(mut base: Value, more: Value) -> Value {
    let more = more.as_object().unwrap().clone();
    base.as_object_mut().unwrap().extend(more);
    base
}

/// A gateway for one model; answers longer than a few bytes pass when `passing`.
fn rig(model: &str, passing: bool) -> Rig {
    let held = if passing { 64 } else { 262_144 };
    Rig::new(&format!(
        "model_list:\n  - model_name: m\n    litellm_params: {{model: {model}, api_base: 'http://p.test/v1', api_key: k}}\n\
         tollgate_settings: {{max_held_answer_bytes: {held}}}\n"
    ))
}

fn sse(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| format!("data: {event}\n\n")).collect()
}

/// One answer as OpenAI's API gives it in one piece, and as a stream.
fn chat_answers(told: &Value) -> (Value, Vec<String>) {
    let whole = with(
        json!({"id": "c", "object": "chat.completion", "created": 1, "model": "",
               "choices": [{"index": 0, "finish_reason": "stop",
                            "message": {"role": "assistant", "content": "four words or so, and some more of them"}}]}),
        told.clone(),
    );
    let chunk = |choices: Value| json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "", "choices": choices});
    let choice = |delta: Value, end: Value| json!([{"index": 0, "delta": delta, "finish_reason": end}]);
    let mut events = sse(&[
        chunk(choice(json!({"role": "assistant", "content": "four words"}), Value::Null)),
        chunk(choice(json!({"content": " or so"}), json!("stop"))),
        with(chunk(json!([])), told.clone()),
    ]);
    events.push("data: [DONE]\n\n".to_owned());
    (whole, events)
}

/// One answer as Anthropic's API gives it.
fn message_answers(told: &Value) -> (Value, Vec<String>) {
    let whole = with(message(), with(json!({"model": ""}), told.clone()));
    let begun = with(told["usage"].clone(), json!({"output_tokens": 1}));
    let mut opening = whole.clone();
    opening["content"] = json!([]);
    opening["stop_reason"] = Value::Null;
    opening["usage"] = begun;
    let events = [
        json!({"type": "message_start", "message": opening}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
               "usage": {"output_tokens": told["usage"]["output_tokens"]}}),
        json!({"type": "message_stop"}),
    ];
    let event = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap());
    (whole, events.iter().map(event).collect())
}

/// Calls for the answer by every way, and compares what is charged.
fn costs_the_same_everywhere(row: &Charge, (whole, events): (Value, Vec<String>)) {
    let expected = Money::parse(row.dollars).unwrap();
    for path in ["/v1/chat/completions", "/v1/messages"] {
        let base = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
        // What only OpenAI's API can ask for.
        if path == "/v1/messages" && row.asked != json!({}) {
            continue;
        }
        for (way, streaming, passing) in
            [("buffered", false, false), ("passing", false, true), ("streamed", true, false)]
        {
            let body = with(base.clone(), with(row.asked.clone(), json!({"stream": streaming})));
            let story = rig(row.model, passing).call(path, body, |_, _| match streaming {
                false => Answer(200, whole.clone()),
                true => Stream(events.clone()),
            });
            let what = format!("{} {path} {way}: {} {}", row.model, row.asked, row.told);
            let record = story.record.as_ref().unwrap();
            assert_eq!((story.status, record.cost), (200, Some(expected)), "{what}");
            let used = record.usage.as_ref().unwrap();
            assert_eq!(used.total_tokens, used.prompt_tokens + used.completion_tokens, "{what}");
            if way == "buffered" {
                let header = story.header("x-litellm-response-cost").map(str::to_owned);
                assert_eq!(header, Some(expected.to_string()), "{what}");
            }
        }
    }
}

#[test]
fn service_tiers_cost_what_they_cost_as_served() {
    let none = || json!({});
    let asked = |tier: &str| json!({ "service_tier": tier });
    let served = |tier: &str, usage: Value| json!({"service_tier": tier, "usage": usage});
    let small = || usage(1_000, 100, 1_100);
    let large = || usage(300_000, 100, 300_100);
    let cached = || with(small(), json!({"prompt_tokens_details": {"cached_tokens": 400}}));
    let rows = [
        charge("openai/gpt-5-nano", asked("flex"), served("flex", small()), "0.000045"),
        charge("openai/gpt-4o", asked("priority"), served("priority", small()), "0.00595"),
        charge("openai/gpt-4o", none(), served("priority", cached()), "0.0051"),
        // What served counts, not what was asked for.
        charge("openai/gpt-4o", asked("priority"), served("default", small()), "0.0035"),
        charge("openai/gpt-5-nano", asked("flex"), served("default", small()), "0.00009"),
        charge("openai/gpt-5-nano", none(), served("flex", small()), "0.000045"),
        charge("openai/gpt-5-nano", asked("auto"), served("flex", small()), "0.000045"),
        // Nobody says what served.
        charge("openai/gpt-5-nano", asked("flex"), json!({"usage": small()}), "0.000045"),
        charge("gemini/gemini-2.5-flash", asked("priority"), json!({"usage": small()}), "0.00099"),
        charge("openai/gpt-4o", asked("auto"), json!({"usage": small()}), "0.0035"),
        // A tier without prices of its own.
        charge("openai/gpt-5-nano", none(), served("priority", small()), "0.00009"),
        charge("groq/openai/gpt-oss-120b", asked("on_demand"), served("on_demand", small()), "0.00021"),
        // Long prompts.
        charge("azure/gpt-5.4", asked("flex"), served("flex", large()), "0.751125"),
        charge("azure/gpt-5.4", asked("priority"), served("priority", large()), "3.0045"),
        charge(
            "gemini/gemini-2.5-pro",
            none(),
            served("priority", usage(200_001, 100, 200_101)),
            "0.9027045",
        ),
        charge("gemini/gemini-2.5-pro", none(), served("priority", usage(200_000, 100, 200_100)), "0.4518"),
        // The list has no price of long prompts in this tier: the dearer of the two that it has.
        charge("openai/gpt-5.4", none(), served("priority", large()), "1.503"),
        charge("gemini/gemini-2.5-pro", none(), served("flex", usage(300_000, 100, 300_100)), "0.7515"),
    ];
    for row in rows {
        costs_the_same_everywhere(&row, chat_answers(&row.told));
    }
}

#[test]
fn a_tier_that_only_the_first_chunk_names_is_charged() {
    let (_, mut events) = chat_answers(&json!({"usage": usage(1_000, 100, 1_100)}));
    events[0] = events[0].replacen("\"id\"", "\"service_tier\":\"flex\",\"id\"", 1);
    for path in ["/v1/chat/completions", "/v1/messages"] {
        let body = json!({"model": "m", "max_tokens": 9, "stream": true, "messages": [{"role": "user", "content": "hi"}]});
        let story = rig("openai/gpt-5-nano", false).call(path, body, |_, _| Stream(events.clone()));
        assert_eq!(story.record.unwrap().cost, Money::parse("0.000045"), "{path}");
    }
}

#[test]
fn reasoning_is_paid_wherever_it_is_counted() {
    let reasoning = |count: u64| json!({"completion_tokens_details": {"reasoning_tokens": count}});
    let rows = [
        ("gemini/gemini-2.5-flash", usage(100, 20, 1_120), "0.00258"),
        ("xai/grok-4", with(usage(100, 20, 1_120), reasoning(1_000)), "0.0156"),
        // A total that says nothing of it.
        ("xai/grok-4", with(usage(100, 20, 120), reasoning(1_000)), "0.0156"),
        (
            "xai/grok-4",
            with(json!({"prompt_tokens": 100, "completion_tokens": 20}), reasoning(1_000)),
            "0.0156",
        ),
        // Part of the answer, as OpenAI counts.
        ("xai/grok-4", with(usage(100, 1_020, 1_120), reasoning(1_000)), "0.0156"),
        // Reasoning has a price of its own, and nobody counted the text.
        ("dashscope/qwen-turbo-latest", with(usage(100, 500, 600), reasoning(400)), "0.000225"),
        ("dashscope/qwen-turbo-latest", with(usage(100, 100, 600), reasoning(400)), "0.000225"),
        // Totals that cannot be.
        ("xai/grok-4", usage(100, 20, 3), "0.0006"),
    ];
    for (model, usage, dollars) in rows {
        let row = charge(model, json!({}), json!({ "usage": usage }), dollars);
        costs_the_same_everywhere(&row, chat_answers(&row.told));
    }
}

#[test]
fn audio_and_images_are_paid_as_such_without_a_count_of_text() {
    let audio = json!({"prompt_tokens": 1_000, "completion_tokens": 500, "total_tokens": 1_500,
                       "prompt_tokens_details": {"audio_tokens": 800}, "completion_tokens_details": {"audio_tokens": 400}});
    let image = json!({"prompt_tokens": 10, "completion_tokens": 1_300, "total_tokens": 1_310,
                       "completion_tokens_details": {"image_tokens": 1_290}});
    let counted = json!({"prompt_tokens": 1_000, "completion_tokens": 500, "total_tokens": 1_500,
                         "prompt_tokens_details": {"audio_tokens": 800, "text_tokens": 200},
                         "completion_tokens_details": {"audio_tokens": 400, "text_tokens": 100}});
    let cached = json!({"prompt_tokens": 1_000, "completion_tokens": 0, "total_tokens": 1_000,
                        "prompt_tokens_details": {"cached_tokens": 500, "audio_tokens": 800,
                                                  "cached_tokens_details": {"audio_tokens": 300, "text_tokens": 200}}});
    let rows = [
        ("openai/gpt-audio", audio, "0.0527"),
        ("openai/gpt-audio", counted, "0.0527"),
        ("gemini/gemini-2.5-flash-image", image, "0.038728"),
        ("gemini/gemini-2.5-flash", cached, "0.000536"),
    ];
    for (model, usage, dollars) in rows {
        let row = charge(model, json!({}), json!({ "usage": usage }), dollars);
        costs_the_same_everywhere(&row, chat_answers(&row.told));
    }
}

#[test]
fn what_a_provider_says_it_charges_is_charged() {
    let cost = |more: Value| with(usage(1_000, 100, 1_100), more);
    let openrouter = "openrouter/somebody/new-model";
    let rows = [
        (openrouter, cost(json!({"cost": 0.0123})), "0.0123"),
        (openrouter, cost(json!({"cost": "0.0123"})), "0.0123"),
        (openrouter, cost(json!({"cost": 0})), "0"),
        // With an own key at the provider behind it, that has its price too.
        (
            openrouter,
            cost(json!({"cost": 0.001, "is_byok": true, "cost_details": {"upstream_inference_cost": 0.02}})),
            "0.021",
        ),
        (
            openrouter,
            cost(
                json!({"cost": 0.001, "is_byok": false, "cost_details": {"upstream_inference_cost": 0.001}}),
            ),
            "0.001",
        ),
        // Believed before the list, which may be old.
        ("openrouter/deepseek/deepseek-r1", cost(json!({"cost": 0.0123})), "0.0123"),
        (
            "perplexity/sonar",
            cost(
                json!({"search_context_size": "low", "cost": {"total_cost": 0.0061, "request_cost": 0.005}}),
            ),
            "0.0061",
        ),
        // Of others only where nobody knows better.
        ("openai/nobody-knows-it", cost(json!({"cost": 0.5})), "0.5"),
        ("deepinfra/nobody-knows-it", cost(json!({"estimated_cost": 0.25})), "0.25"),
        ("openai/gpt-4o", cost(json!({"cost": 0.5})), "0.0035"),
    ];
    for (model, usage, dollars) in rows {
        let row = charge(model, json!({}), json!({ "usage": usage }), dollars);
        costs_the_same_everywhere(&row, chat_answers(&row.told));
    }
}

#[test]
fn a_configured_price_goes_before_what_a_provider_says() {
    for (cost, expected) in [(json!(7), "0.0011"), (json!(-1), "0.0011"), (json!(null), "0.0011")] {
        let mut rig = Rig::new(
            "model_list:\n  - model_name: m\n    litellm_params: {model: openrouter/x/y, api_key: k, \
             input_cost_per_token: 0.000001, output_cost_per_token: 0.000001}\n",
        );
        let usage = with(usage(1_000, 100, 1_100), json!({ "cost": cost }));
        let story = rig.chat(hello("m"), |_, _| Answer(200, chat_answers(&json!({ "usage": usage })).0));
        assert_eq!(story.record.unwrap().cost, Money::parse(expected), "{cost}");
    }
    for absurd in [json!(-1), json!(1e300), json!("much"), json!([]), json!({"total_cost": -3})] {
        let usage = with(usage(1_000, 100, 1_100), json!({ "cost": absurd }));
        let story = self::rig("openrouter/x/y", false)
            .chat(hello("m"), |_, _| Answer(200, chat_answers(&json!({ "usage": usage })).0));
        assert_eq!(story.record.unwrap().cost, None, "{absurd}");
    }
}

#[test]
fn searches_and_citations_are_paid() {
    let base = || usage(100, 1_000, 1_100);
    let asked = |options: Value| json!({ "web_search_options": options });
    let deep = json!({"citation_tokens": 2_000, "reasoning_tokens": 5_000, "num_search_queries": 10});
    let size = |size: &str| json!({"search_context_size": size});
    let rows = [
        charge("perplexity/sonar-deep-research", json!({}), with(base(), deep), "0.0772"),
        charge("perplexity/sonar-pro", json!({}), with(base(), size("low")), "0.0213"),
        charge("perplexity/sonar-pro", json!({}), with(base(), size("medium")), "0.0253"),
        charge("perplexity/sonar-pro", json!({}), with(base(), size("high")), "0.0293"),
        charge("perplexity/sonar-pro", asked(size("high")), base(), "0.0293"),
        charge(
            "perplexity/sonar-pro",
            asked(size("low")),
            with(base(), json!({"num_search_queries": 3})),
            "0.0333",
        ),
        charge("perplexity/sonar-pro", json!({}), with(base(), json!({"num_search_queries": 3})), "0.0333"),
        charge("openai/gpt-4o-search-preview", asked(json!({})), base(), "0.03525"),
        charge("openai/gpt-4o-search-preview", asked(size("low")), base(), "0.03525"),
        charge("openai/gpt-4o-search-preview", json!({}), base(), "0.01025"),
        // Has no price of searches.
        charge("openai/gpt-4o", asked(json!({})), base(), "0.01025"),
    ];
    for row in rows {
        let told = json!({"usage": row.told});
        costs_the_same_everywhere(&Charge { told: told.clone(), ..row }, chat_answers(&told));
    }
}

#[test]
fn anthropics_answers_say_what_they_are_charged_by() {
    let usage =
        |more: Value| json!({"usage": with(json!({"input_tokens": 1_000, "output_tokens": 100}), more)});
    let rows = [
        ("anthropic/claude-sonnet-4-5", json!({}), "0.0045"),
        ("anthropic/claude-sonnet-4-5", json!({"server_tool_use": {"web_search_requests": 3}}), "0.0345"),
        ("anthropic/claude-sonnet-4-5", json!({"service_tier": "priority"}), "0.0045"),
        ("anthropic/claude-opus-4-6", json!({"inference_geo": "us"}), "0.00825"),
        ("anthropic/claude-opus-4-6", json!({"inference_geo": "global"}), "0.0075"),
        ("anthropic/claude-opus-4-8", json!({"speed": "fast"}), "0.015"),
        ("anthropic/claude-opus-4-8", json!({"speed": "fast", "inference_geo": "us"}), "0.0165"),
        ("anthropic/claude-opus-4-8", json!({"speed": "standard"}), "0.0075"),
        (
            "anthropic/claude-sonnet-4-5",
            json!({"cache_read_input_tokens": 100, "cache_creation_input_tokens": 30,
                   "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}}),
            "0.0046875",
        ),
    ];
    for (model, more, dollars) in rows {
        let row = charge(model, json!({}), usage(more), dollars);
        costs_the_same_everywhere(&row, message_answers(&row.told));
    }
}

#[test]
fn a_configured_price_of_a_tier_is_charged() {
    let price = "input_cost_per_token: 0.000001, output_cost_per_token: 0.000001, \
                 input_cost_per_token_priority: 0.000002, output_cost_per_token_priority: 0.000003";
    for (model, whole) in [
        (
            "openai/gpt-4o",
            chat_answers(&json!({"service_tier": "priority", "usage": usage(1_000, 100, 1_100)})).0,
        ),
        (
            "anthropic/claude-sonnet-4-5",
            message_answers(
                &json!({"usage": {"input_tokens": 1_000, "output_tokens": 100, "service_tier": "priority"}}),
            )
            .0,
        ),
    ] {
        let mut rig = Rig::new(&format!(
            "model_list:\n  - model_name: m\n    litellm_params: {{model: {model}, api_key: k, {price}}}\n"
        ));
        let story = rig.chat(hello("m"), |_, _| Answer(200, whole.clone()));
        assert_eq!(story.record.unwrap().cost, Money::parse("0.0023"), "{model}");
    }
}
