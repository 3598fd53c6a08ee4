//! What is charged when nobody says what was used: answers without a usage or with nonsense in it, calls whose clients go away.

use super::*;
use crate::core::{
    access,
    model::{
        limits::Limits,
        meter::{Meter, MeterKind},
        money::Money,
        rule::{Base, Rule},
    },
};

/// A millionth of a dollar a token of the prompt, two for one of the answer.
const PRICES: &str = "input_cost_per_token: 0.000001, output_cost_per_token: 0.000002";
const KEY: &str = "sk-one";

/// One deployment, and one key of a team with budgets; answers longer than a few bytes pass when `passing`.
fn rig(model: &str, passing: bool) -> Rig {
    let held = if passing { 64 } else { 262_144 };
    let template = if model.starts_with("huggingface/") {
        ", roles: {user: {pre_message: '<', post_message: '>'}}"
    } else {
        ""
    };
    rig_of(
        &format!(
            "  - {{model_name: m, litellm_params: {{model: {model}, api_base: 'http://p.test/v1', api_key: k, {PRICES}{template}}}}}\n"
        ),
        &format!("tollgate_settings: {{max_held_answer_bytes: {held}}}\n"),
    )
}

fn rig_of(models: &str, settings: &str) -> Rig {
    let hash = access::hash(KEY.as_bytes());
    let mut rig = Rig::new(&format!(
        "model_list:\n{models}general_settings: {{master_key: sk-master, keys: [{{token: {hash}, max_budget: 1, tpm_limit: 100000}}]}}\n{settings}"
    ));
    rig.key = Some(KEY);
    rig
}

fn spend_of(rig: &Rig) -> Money {
    let rule = Rule {
        owner: None,
        kind: MeterKind::Key,
        meter: Meter::new(MeterKind::Key, &access::hash(KEY.as_bytes())),
        limits: Limits { rpm: Some(100), ..Limits::default() },
        max_budget: Some(Money::parse("1000").unwrap()),
        base: Base::default(),
        resets: None,
    };
    quota::standing(&rig.shared, &rule, rig.now_ms).spend
}

fn dollars(prompt: u64, completion: u64) -> Money {
    Money::from_pico(1_000_000 * i128::from(prompt + 2 * completion))
}

/// The text of every answer here, in the pieces that a stream has.
const PIECES: [&str; 4] = ["Eins, ", "zwei\n", "drei: „vier“ ", "\u{1f600}"];

fn text() -> String {
    PIECES.concat()
}

/// The tokens that are estimated for it.
fn tokens(texts: usize) -> u64 {
    ((text().len() * texts) as u64).div_ceil(4)
}

fn sse(events: &[Value]) -> Vec<String> {
    let named = |event: &Value| {
        event.get("type").and_then(Value::as_str).map_or(String::new(), |name| format!("event: {name}\n"))
    };
    events.iter().map(|event| format!("{}data: {event}\n\n", named(event))).collect()
}

/// Members of an answer, as they are told.
type Told<'t> = Option<&'t Value>;

fn with_usage(mut answer: Value, usage: Told) -> Value {
    usage.into_iter().for_each(|usage| answer["usage"] = usage.clone());
    answer
}

/// One answer with the text twice (two choices, or thoughts beside it) in one piece and as a stream.
fn chat(usage: Told) -> (Value, Vec<String>) {
    let choice = |index: u64| json!({"index": index, "finish_reason": "stop", "message": {"role": "assistant", "content": text()}});
    let whole = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "x", "choices": [choice(0), choice(1)]});
    let chunk = |choices: Value| json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "x", "choices": choices});
    let mut events = vec![chunk(
        json!([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}]),
    )];
    for index in [0, 1] {
        events.extend(PIECES.map(|piece| {
            chunk(json!([{"index": index, "delta": {"content": piece}, "finish_reason": null}]))
        }));
        events.push(chunk(json!([{"index": index, "delta": {}, "finish_reason": "stop"}])));
    }
    if usage.is_some() {
        events.push(with_usage(chunk(json!([])), usage));
    }
    let mut events = sse(&events);
    events.push("data: [DONE]\n\n".to_owned());
    (with_usage(whole, usage), events)
}

fn messages(usage: Told) -> (Value, Vec<String>) {
    let mut whole = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "x", "stop_reason": "end_turn", "stop_sequence": null,
        "content": [{"type": "thinking", "thinking": text(), "signature": "s"}, {"type": "text", "text": text()}]});
    let mut opening = whole.clone();
    opening["content"] = json!([]);
    whole = with_usage(whole, usage);
    let mut events = vec![json!({"type": "message_start", "message": with_usage(opening, usage)})];
    for (index, kind, member, block) in [
        (0, "thinking_delta", "thinking", json!({"type": "thinking", "thinking": "", "signature": ""})),
        (1, "text_delta", "text", json!({"type": "text", "text": ""})),
    ] {
        events.push(json!({"type": "content_block_start", "index": index, "content_block": block}));
        events.extend(
            PIECES.map(|piece| json!({"type": "content_block_delta", "index": index, "delta": {"type": kind, member: piece}})),
        );
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    events.push(with_usage(
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}}),
        usage,
    ));
    events.push(json!({"type": "message_stop"}));
    (whole, sse(&events))
}

fn completions(usage: Told) -> (Value, Vec<String>) {
    let base = |choices: Value| json!({"id": "t", "object": "text_completion", "created": 1, "model": "x", "choices": choices});
    let whole = base(
        json!([{"index": 0, "text": text(), "finish_reason": "stop"}, {"index": 1, "text": text(), "finish_reason": "stop"}]),
    );
    let mut events = Vec::new();
    for index in [0, 1] {
        events.extend(
            PIECES.map(|piece| base(json!([{"index": index, "text": piece, "finish_reason": null}]))),
        );
        events.push(base(json!([{"index": index, "text": "", "finish_reason": "stop"}])));
    }
    if usage.is_some() {
        events.push(with_usage(base(json!([])), usage));
    }
    let mut events = sse(&events);
    events.push("data: [DONE]\n\n".to_owned());
    (with_usage(whole, usage), events)
}

fn generate(_: Told) -> (Value, Vec<String>) {
    let whole = json!([{"generated_text": text()}]);
    let mut events: Vec<Value> = PIECES
        .map(|piece| json!({"token": {"id": 1, "text": piece, "special": false}, "generated_text": null}))
        .to_vec();
    events.push(json!({"token": {"id": 2, "text": "</s>", "special": true}, "generated_text": text(), "details": null}));
    (whole, sse(&events))
}

/// (deployment's model, its answers, how often they have the text)
type Wired = (&'static str, fn(Told) -> (Value, Vec<String>), usize);
const WIRES: [Wired; 4] = [
    ("openai/x", chat, 2),
    ("anthropic/x", messages, 2),
    ("text-completion-openai/x", completions, 2),
    ("huggingface/x", generate, 1),
];

/// What is charged by every client API and every way an answer can take: (prompt, answer) as told, estimated where not.
fn charges(wired: &Wired, usage: Told, told: (Option<u64>, Option<u64>)) {
    let (model, answers, texts) = wired;
    for path in ["/v1/chat/completions", "/v1/messages", "/v1/completions"] {
        for (way, streaming, passing) in
            [("buffered", false, false), ("passing", false, true), ("streamed", true, false)]
        {
            let what = format!("{model} {path} {way} {usage:?}");
            let mut body = json!({"model": "m", "max_tokens": 99, "stream": streaming});
            match path {
                "/v1/completions" => body["prompt"] = json!("hello"),
                _ => body["messages"] = json!([{"role": "user", "content": "hello"}]),
            }
            let prompt = told.0.unwrap_or((body.to_string().len() as u64).div_ceil(4));
            let completion = told.1.unwrap_or(tokens(*texts));
            let (whole, events) = answers(usage);
            let mut rig = rig(model, passing);
            let story = rig.call(path, body, |_, _| match streaming {
                false => Answer(200, whole.clone()),
                true => Stream(events.clone()),
            });
            assert_eq!(story.status, 200, "{what}: {}", story.body);
            let record = story.record.as_ref().unwrap();
            let used = record.usage.as_ref().unwrap();
            assert_eq!((used.prompt_tokens, used.completion_tokens), (prompt, completion), "{what}");
            assert_eq!(
                (used.total_tokens, record.estimated),
                (prompt + completion, told.0.is_none() || told.1.is_none()),
                "{what}"
            );
            let cost = dollars(prompt, completion);
            assert_eq!((record.cost, spend_of(&rig)), (Some(cost), cost), "{what}");
            if way == "buffered" {
                assert_eq!(
                    story.header("x-litellm-response-cost"),
                    Some(cost.to_string().as_str()),
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn an_answer_without_usage_costs_its_estimate_buffered_as_streamed() {
    for wired in &WIRES {
        charges(wired, None, (None, None));
    }
}

#[test]
fn nonsense_in_a_usage_counts_as_if_it_were_absent() {
    let numbers = [
        json!(-5),
        json!("x"),
        json!(1e300),
        json!(u64::MAX),
        json!(1e12),
        json!(null),
        json!([1]),
        json!({"a": 1}),
        json!(true),
    ];
    for wired in &WIRES[..3] {
        let [prompt, completion] = match wired.0 {
            "anthropic/x" => ["input_tokens", "output_tokens"],
            _ => ["prompt_tokens", "completion_tokens"],
        };
        for wrong in &numbers {
            charges(wired, Some(wrong), (None, None));
            let both = json!({prompt: wrong, completion: wrong, "total_tokens": wrong});
            charges(wired, Some(&both), (None, None));
            let half = json!({prompt: 7, completion: wrong});
            charges(wired, Some(&half), (Some(7), None));
            let half = json!({prompt: wrong, completion: 9});
            charges(wired, Some(&half), (None, Some(9)));
        }
        charges(wired, Some(&json!({prompt: 7, completion: 9})), (Some(7), Some(9)));
    }
}

#[test]
fn embeddings_without_usage_cost_their_input() {
    let usages = [None, Some(json!(null)), Some(json!({"prompt_tokens": -1, "total_tokens": "x"}))];
    for (usage, passing) in usages.iter().flat_map(|usage| [(usage, false), (usage, true)]) {
        let answer = json!({"object": "list", "model": "x", "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]});
        let body = json!({"model": "m", "input": "hello there"});
        let prompt = (body.to_string().len() as u64).div_ceil(4);
        let mut rig = rig("openai/x", passing);
        let story =
            rig.call("/v1/embeddings", body, |_, _| Answer(200, with_usage(answer.clone(), usage.as_ref())));
        assert_eq!((story.status, story.record.unwrap().cost), (200, Some(dollars(prompt, 0))), "{usage:?}");
    }
}

#[test]
fn an_error_that_comes_as_a_good_answer_costs_nothing() {
    let story = rig("openai/x", false).chat(hello("m"), |_, _| Answer(200, error("no", "x")));
    let record = story.record.unwrap();
    assert_eq!((record.usage, record.cost), (None, None));
}

/// Lets the client go away after so many steps: headers, body, attempt, the answer's headers, its parts.
fn leaves(
    rig: &mut Rig,
    patience: u32,
    body: Value,
    play: impl FnMut(usize, &str) -> Behaviour,
) -> CallRecord {
    rig.patience = Some(patience);
    let story = rig.run("/v1/chat/completions", body, play);
    assert_eq!((story.answers, story.status), (0, 0), "it has left: {story:?}");
    story.record.unwrap()
}

#[test]
fn who_leaves_while_a_provider_works_pays_for_the_prompt() {
    for (model, answers, _) in WIRES {
        for streaming in [false, true] {
            let mut body = hello("m");
            body["stream"] = json!(streaming);
            let prompt = (body.to_string().len() as u64).div_ceil(4);
            for (patience, expected) in [(0, 0), (1, 0), (2, prompt), (3, prompt)] {
                let mut rig = rig(model, false);
                rig.answer_takes_ms = 100;
                let record = leaves(&mut rig, patience, body.clone(), |_, _| match streaming {
                    false => Answer(200, answers(None).0),
                    true => Stream(answers(None).1),
                });
                let what = format!("{model} {streaming} {patience}");
                assert_eq!(spend_of(&rig), dollars(expected, 0), "{what}");
                assert_eq!(record.cost.unwrap_or_default(), dollars(expected, 0), "{what}");
                assert_eq!((record.estimated, record.incomplete), (expected > 0, expected > 0), "{what}");
                let hash = Meter::new(MeterKind::Key, &access::hash(KEY.as_bytes()));
                let counts = quota::counts(&rig.shared, std::iter::once(&hash), rig.now_ms)[0];
                assert_eq!(
                    (counts.requests, counts.tokens, counts.parallel),
                    (u64::from(patience > 0), expected, 0),
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn who_leaves_a_stream_pays_for_what_came() {
    let mut body = hello("m");
    body["stream"] = json!(true);
    let prompt = (body.to_string().len() as u64).div_ceil(4);
    let told = json!({"input_tokens": 7, "output_tokens": 1});
    for (model, events, usage, expected) in [
        // The role and two pieces; the message's beginning, the block's and two pieces.
        ("openai/x", chat(None).1, 3, (prompt, 3)),
        ("anthropic/x", messages(None).1, 4, (prompt, 3)),
        // Anthropic tells the prompt at once, and of the answer only that it has begun.
        ("anthropic/x", messages(Some(&told)).1, 4, (7, 3)),
    ] {
        let mut rig = rig(model, false);
        rig.patience = Some(3 + usage);
        let story = rig.run("/v1/chat/completions", body.clone(), |_, _| Stream(events.clone()));
        let record = story.record.unwrap();
        assert_eq!(record.cost, Some(dollars(expected.0, expected.1)), "{model}: {:?}", record.usage);
        assert!(record.estimated && record.incomplete);
    }
}

const CHAIN: &str = "  - {model_name: a, litellm_params: {model: openai/a1, api_base: 'http://a.test/v1', api_key: k, input_cost_per_token: 0.000003, output_cost_per_token: 0}}\n  \
    - {model_name: b, litellm_params: {model: openai/b1, api_base: 'http://b.test/v1', api_key: k, input_cost_per_token: 0.000005, output_cost_per_token: 0}}\n";

#[test]
fn the_deployment_that_worked_when_the_client_left_is_charged() {
    let rows: [(fn() -> Behaviour, u32); 4] = [
        (|| Refuse, 3),
        (|| Answer(500, error("no", "x")), 5),
        (|| Hang, 3),
        (
            || {
                Raw(Raw {
                    status: 200,
                    headers: vec![("content-type", "text/event-stream".to_owned())],
                    pieces: Vec::new(),
                    cut: true,
                })
            },
            4,
        ),
    ];
    for (at, (first, steps)) in rows.into_iter().enumerate() {
        let mut rig = rig_of(CHAIN, "router_settings: {num_retries: 0, fallbacks: [{a: [b]}]}\n");
        let prompt = (hello("a").to_string().len() as i128 + 3) / 4;
        let record = leaves(&mut rig, steps, hello("a"), |attempt, _| match attempt {
            0 => first(),
            _ => Answer(200, completion("b1")),
        });
        // The second attempt's request is made from the body that is read again: before that it has not been sent.
        assert_eq!(record.cost, None, "{at}");
        assert_eq!(spend_of(&rig), Money::ZERO, "{at}");
        let mut rig = rig_of(CHAIN, "router_settings: {num_retries: 0, fallbacks: [{a: [b]}]}\n");
        let record = leaves(&mut rig, steps + 1, hello("a"), |attempt, _| match attempt {
            0 => first(),
            _ => Answer(200, completion("b1")),
        });
        assert_eq!(record.group.as_deref(), Some("b"), "{at}");
        assert_eq!(spend_of(&rig), Money::from_pico(5_000_000 * prompt), "{at}");
    }
}

#[test]
fn an_attempt_that_came_to_no_provider_costs_nothing() {
    let mut rig = rig("openai/x", false);
    let (headers, config) = (rig.headers("/v1/chat/completions"), Rc::clone(&rig.config));
    quota::heartbeat(&rig.shared, Worker(1), rig.now_ms);
    let Opened { exchange: Some(mut exchange), next: Next::ReadBody } =
        open(&config, &headers, &mut rig.env())
    else {
        panic!("a call is ours")
    };
    let begin = exchange.on_body(hello("m").to_string().as_bytes(), &mut rig.env());
    assert!(matches!(begin, Next::Forward(_)) && !exchange.awaits_response());
    exchange.on_attempt(&mut rig.env());
    assert!(exchange.awaits_response());
    exchange.on_unreached();
    assert_eq!(exchange.on_done(&mut rig.env()).cost, None);
    assert_eq!(spend_of(&rig), Money::ZERO);
}

#[test]
fn a_failure_costs_nothing_and_a_clients_own_time_out_the_prompt() {
    let slow = |more: Value| {
        let mut body = hello("a");
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    type Play = fn() -> Behaviour;
    // (request, provider, status, attempts of `a` and of `b` that are charged)
    let rows: [(Value, Play, u16, [i128; 2]); 7] = [
        (json!({}), || Refuse, 500, [0, 0]),
        (json!({}), || Answer(500, error("no", "x")), 500, [0, 0]),
        // The deployment has been given less than it needs, by its configuration or by its client.
        (json!({}), || Hang, 408, [0, 0]),
        (json!({"timeout": 7000}), || Hang, 408, [0, 0]),
        (json!({"timeout": 2}), || Hang, 408, [1, 1]),
        (json!({"timeout": 2, "num_retries": 2}), || Hang, 408, [3, 3]),
        (json!({"timeout": 2}), || Refuse, 500, [0, 0]),
    ];
    for (more, play, status, [a, b]) in rows {
        let mut rig = rig_of(CHAIN, "router_settings: {num_retries: 0, fallbacks: [{a: [b]}]}\n");
        let body = slow(more.clone());
        let prompt = (body.to_string().len() as i128 + 3) / 4;
        let story = rig.chat(body, |_, _| play());
        assert_eq!(story.status, status, "{more}: {}", story.body);
        let expected = Money::from_pico((3_000_000 * a + 5_000_000 * b) * prompt);
        assert_eq!(spend_of(&rig), expected, "{more}: {:?}", story.models);
        assert_eq!(story.record.unwrap().estimated, a > 0, "{more}");
    }
}

#[test]
fn a_mock_is_charged_though_nobody_waits_for_it() {
    let mut rig = rig("openai/x", false);
    let (headers, config) = (rig.headers("/v1/chat/completions"), Rc::clone(&rig.config));
    let Opened { exchange: Some(mut exchange), next: Next::ReadBody } =
        open(&config, &headers, &mut rig.env())
    else {
        panic!("a call is ours")
    };
    quota::heartbeat(&rig.shared, Worker(1), rig.now_ms);
    let mut body = hello("m");
    body["mock_response"] = json!("hi");
    let begin = exchange.on_body(body.to_string().as_bytes(), &mut rig.env());
    assert!(matches!(begin, Next::Reply(_)));
    let record = exchange.on_done(&mut rig.env());
    assert_eq!((record.cost, record.estimated), (Some(dollars(10, 20)), false));
    assert_eq!(spend_of(&rig), dollars(10, 20));
}
