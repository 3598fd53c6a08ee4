//! Whole requests on the rig of [`rig`]; what has a subject of its own stands in the files below.

mod accounts;
mod bodies;
mod callers;
mod chance;
mod charges;
mod counts;
mod estimates;
mod fuzz;
mod groups;
mod ledger;
mod native;
mod rig;
mod routing;
mod slots;
mod verdicts;

use serde_json::{Value, json};

use self::rig::*;
use super::{next::Then, *};
use crate::core::{
    access::models::Names,
    config,
    model::{call_record::CallRecord, money::Money},
    quota,
    random::Random,
    store::Memory,
};

fn completion(model: &str) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
           "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
           "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}})
}

fn message() -> Value {
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-3-opus-20240229",
           "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn", "stop_sequence": null,
           "usage": {"input_tokens": 9, "output_tokens": 2}})
}

fn error(message: &str, code: &str) -> Value {
    json!({"error": {"message": message, "type": "invalid_request_error", "code": code}})
}

fn hello(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}]})
}

const TWO_GROUPS: &str = r#"
model_list:
  - {model_name: small, litellm_params: {model: openai/small-1, api_base: "http://a.test/v1", api_key: k1}}
  - {model_name: small, litellm_params: {model: openai/small-2, api_base: "http://b.test/v1", api_key: k2}}
  - {model_name: large, litellm_params: {model: openai/large-1, api_base: "http://c.test/v1", api_key: k3}}
  - {model_name: claude, litellm_params: {model: anthropic/claude-3-opus-20240229, api_base: "http://d.test", api_key: k4}}
litellm_settings:
  num_retries: 1
  fallbacks: [{small: [large]}]
  context_window_fallbacks: [{small: [claude]}]
  content_policy_fallbacks: [{small: [large]}]
"#;

#[test]
fn a_good_answer_passes_with_its_headers() {
    let mut rig = Rig::new(TWO_GROUPS);
    let story = rig.chat(hello("large"), |_, _| Answer(200, completion("gpt-4o")));
    assert_eq!((story.status, story.models.as_slice()), (200, &["large-1".to_owned()][..]));
    assert_eq!(serde_json::from_str::<Value>(&story.body).unwrap(), completion("gpt-4o"));
    assert_eq!(story.header("x-litellm-model-group"), Some("large"));
    assert_eq!(story.header("x-litellm-attempted-retries"), Some("0"));
    assert_eq!(story.header("llm_provider-x-request-id"), Some("r1"));
    assert_eq!(story.header("x-ratelimit-remaining-requests"), Some("9"));
    // 1000 × 2.5e-6 + 500 × 1e-5 dollars, by the model that answered.
    assert_eq!(story.header("x-litellm-response-cost"), Some("0.0075"));
    let record = story.record.unwrap();
    assert_eq!((record.attempts, record.fallbacks, record.estimated), (1, 0, false));
}

#[test]
fn a_price_by_the_second_counts_the_time_of_the_attempt() {
    let mut rig = Rig::new(
        "model_list: [{model_name: m, litellm_params: {model: openai/own, api_base: 'http://a.test/v1', api_key: k, \
         input_cost_per_second: 0.00042}}]",
    );
    rig.answer_takes_ms = 2_500;
    let story = rig.chat(hello("m"), |_, _| Answer(200, completion("own")));
    assert_eq!(story.header("x-litellm-response-cost"), Some("0.00105"));
    assert_eq!(story.record.unwrap().cost.unwrap().to_string(), "0.00105");
}

#[test]
fn a_whole_answer_says_how_long_it_took_and_how_much_of_that_was_the_gateways() {
    let mut rig = Rig::new(TWO_GROUPS);
    rig.answer_takes_ms = 2_500;
    let story = rig.chat(hello("large"), |_, _| Answer(200, completion("gpt-4o")));
    let told = |story: &Story| {
        ["x-litellm-response-duration-ms", "x-litellm-overhead-duration-ms"]
            .map(|name| story.header(name).map(|text| text.parse::<u64>().unwrap()))
    };
    assert_eq!(told(&story), [Some(2_500), Some(0)]);
    // What a failed attempt took is not the gateway's either.
    let story = rig.chat(hello("small"), |attempt, _| match attempt {
        0 => Answer(500, json!({"error": {"message": "x"}})),
        _ => Answer(200, completion("gpt-4o")),
    });
    let [Some(whole), overhead] = told(&story) else { panic!("{:?}", told(&story)) };
    assert!(whole >= 5_000 && overhead == Some(0), "{whole} {overhead:?}");
    let mut streamed = hello("large");
    streamed["stream"] = json!(true);
    let events = || vec![format!("data: {}\n\n", completion("gpt-4o")), "data: [DONE]\n\n".to_owned()];
    let story = rig.chat(streamed, |_, _| Stream(events()));
    assert_eq!((story.status, told(&story)), (200, [None, None]));
}

#[test]
fn refused_then_failing_then_fallback() {
    let mut rig = Rig::new(TWO_GROUPS);
    let story = rig.chat(hello("small"), |attempt, _| match attempt {
        0 => Refuse,
        1 => Answer(500, error("boom", "x")),
        _ => Answer(200, completion("large-1")),
    });
    assert_eq!(story.status, 200);
    assert_eq!(story.models[2], "large-1");
    assert_ne!(story.models[0], story.models[1], "a retry takes the other deployment");
    assert_eq!(story.header("x-litellm-attempted-fallbacks"), Some("1"));
    assert_eq!(story.record.unwrap().attempts, 3);
}

#[test]
fn when_all_fail_the_first_error_is_told() {
    let mut rig = Rig::new(TWO_GROUPS);
    let story = rig.chat(hello("small"), |attempt, _| Answer(500, error(&format!("failure {attempt}"), "x")));
    assert_eq!(story.status, 500);
    let message = story.message();
    assert!(message.contains("InternalServerError") && message.contains("failure 0"), "{message}");
    assert!(
        message.contains("Received Model Group=small\nAvailable Model Group Fallbacks=['large']"),
        "{message}"
    );
    assert_eq!(story.models.len(), 4, "two attempts in each group");
}

#[test]
fn every_class_goes_where_it_is_configured_to_go() {
    let too_long = error("This model's maximum context length is 4097 tokens", "context_length_exceeded");
    let refused = error("filtered", "content_filter");
    let rows: [(&str, u16, Value, &[&str]); 5] = [
        ("context window", 400, too_long, &["small", "claude-3-opus-20240229"]),
        ("content policy", 400, refused, &["small", "large-1"]),
        ("bad request", 400, error("bad", "x"), &["small", "large-1"]),
        ("unknown model", 404, error("no such model", "model_not_found"), &["small", "large-1"]),
        ("refused key", 401, error("bad key", "x"), &["small", "small", "large-1"]),
    ];
    for (name, status, body, expected) in rows {
        let mut rig = Rig::new(TWO_GROUPS);
        let story = rig.chat(hello("small"), |_, model| match model {
            "small-1" | "small-2" => Answer(status, body.clone()),
            "large-1" => Answer(200, completion("large-1")),
            _ => Answer(200, message()),
        });
        assert_eq!(story.status, 200, "{name}");
        let models: Vec<&str> =
            story.models.iter().map(|m| if m.starts_with("small") { "small" } else { m }).collect();
        assert_eq!(models, expected, "{name}");
    }
}

#[test]
fn a_context_window_error_of_a_group_without_an_entry_is_told() {
    let mut rig = Rig::new(TWO_GROUPS);
    let story = rig.chat(hello("large"), |_, _| {
        Answer(400, error("This model's maximum context length is 1", "context_length_exceeded"))
    });
    assert_eq!((story.status, story.models.len()), (400, 1));
    assert!(story.message().contains("ContextWindowExceededError"));
}

#[test]
fn a_rate_limited_deployment_rests_for_other_requests() {
    let mut rig = Rig::new(TWO_GROUPS);
    let limited = "small-1";
    for _ in 0..12 {
        rig.chat(hello("small"), |_, model| match model {
            m if m == limited => Answer(429, error("slow down", "rate_limit")),
            m => Answer(200, completion(m)),
        });
    }
    for _ in 0..20 {
        let story = rig.chat(hello("small"), |_, model| Answer(200, completion(model)));
        assert_eq!(story.models, ["small-2"]);
    }
    rig.now_ms += 6_000;
    let after: Vec<String> = (0..30)
        .map(|_| rig.chat(hello("small"), |_, m| Answer(200, completion(m))).models.remove(0))
        .collect();
    assert!(after.iter().any(|model| model == limited), "it is back after the cooldown");
}

#[test]
fn all_resting_is_a_rate_limit() {
    let mut rig = Rig::new(TWO_GROUPS);
    rig.chat(hello("large"), |_, _| Answer(401, error("bad key", "x")));
    let story = rig.chat(hello("large"), |_, _| panic!("nothing may be called"));
    assert_eq!(story.status, 429);
    assert!(story.message().starts_with("No deployments available for selected model, Try again in"));
    assert_eq!(story.header("retry-after"), Some("5"));
}

#[test]
fn streams_hide_the_usage_nobody_asked_for() {
    let chunk = |delta: &str| {
        format!(
            "data: {{\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{delta}\"}}}}]}}\n\n"
        )
    };
    let usage = "data: {\"id\":\"1\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2,\"total_tokens\":7}}\n\n";
    let whole = format!("{}{}{usage}data: [DONE]\n\n", chunk("a"), chunk("b"));
    let without = format!("{}{}data: [DONE]\n\n", chunk("a"), chunk("b"));
    for asks in [false, true] {
        for cut in 1..whole.len() {
            let mut rig = Rig::new(TWO_GROUPS);
            let mut body = hello("large");
            body["stream"] = json!(true);
            if asks {
                body["stream_options"] = json!({"include_usage": true});
            }
            let pieces = vec![whole[..cut].to_owned(), whole[cut..].to_owned()];
            let mut pieces = Some(pieces);
            let story = rig.chat(body, |_, _| Stream(pieces.take().unwrap()));
            assert_eq!(story.body, if asks { whole.clone() } else { without.clone() }, "cut at {cut}");
            assert_eq!(story.bodies[0]["stream_options"]["include_usage"], true);
            let usage = story.record.unwrap().usage.unwrap();
            assert_eq!((usage.prompt_tokens, usage.completion_tokens), (5, 2));
        }
    }
}

#[test]
fn a_silent_provider_is_a_time_out() {
    let mut rig = Rig::new(TWO_GROUPS);
    let story = rig.chat(hello("large"), |_, _| Hang);
    assert_eq!((story.status, story.models.len()), (408, 2));
    assert!(story.message().starts_with("litellm.Timeout: APITimeoutError - Request timed out."));
    assert_eq!(story.header("x-litellm-timeout"), Some("6000.0"));
}

const TIMED: &str = "
model_list:
- {model_name: a, litellm_params: {model: openai/m1, api_base: 'http://p1/v1', api_key: k, timeout: 2, stream_timeout: 1, headers: {X-Tollgate-Cluster: envoy_admin}}}
- {model_name: b, litellm_params: {model: openai/m2, api_base: 'http://p2/v1', api_key: k, timeout: 30}}
- {model_name: c, litellm_params: {model: openai/m3, api_base: 'http://p3/v1', api_key: k}}
- {model_name: d, litellm_params: {model: openai/m4, api_base: 'http://p4/v1', api_key: k, timeout: 1.0e+30}}
- {model_name: e, litellm_params: {model: openai/m5, api_base: 'http://p5/v1', api_key: k, timeout: 0.00001}}
router_settings: {num_retries: 0, timeout: 10, fallbacks: [{a: [b, c]}, {d: [e]}]}
";

#[test]
fn every_attempt_has_its_own_time_out() {
    // Only what may take less than the longest goes through the listener inside.
    for (model, more, per_try_ms, ways) in [
        ("a", json!({}), 30_000, "m1 2000 0, m2, m3 10000 0"),
        ("a", json!({"stream": true}), 30_000, "m1 0 1000, m2, m3 0 10000"),
        ("a", json!({"timeout": 5}), 5_000, "m1, m2, m3"),
        ("a", json!({"timeout": 0.5, "stream": true}), 1_000, "m1, m2 0 500, m3 0 500"),
        ("a", json!({"stream_timeout": 7, "stream": true}), 7_000, "m1, m2, m3"),
        ("a", json!({"stream_timeout": 7}), 30_000, "m1 2000 0, m2, m3 10000 0"),
        ("b", json!({}), 30_000, "m2"),
        ("d", json!({}), config::MAX_TIMEOUT_MS, "m4, m5 1 0"),
    ] {
        let mut body = hello(model);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let story = Rig::new(TIMED).chat(body.clone(), |_, _| Refuse);
        assert_eq!((story.per_try_ms, story.ways.join(", ").as_str()), (per_try_ms, ways), "{body}");
    }
}

#[test]
fn no_answer_behind_a_time_out_is_no_providers_error() {
    for (status, told, message) in [(504, 408, "litellm.Timeout"), (503, 500, "Connection error.")] {
        let story = Rig::new(TIMED).chat(hello("a"), |attempt, _| match attempt {
            0 => NoAnswer(status),
            _ => Answer(500, error("broken", "x")),
        });
        assert_eq!(story.models, ["m1", "m2", "m3"]);
        assert_eq!(story.status, told);
        assert!(story.message().contains(message), "{}", story.message());
    }
    // Only an attempt that went that way is believed.
    let mut rig = Rig::new(TIMED);
    let story = rig.chat(hello("b"), |_, _| NoAnswer(503));
    assert!(story.message().contains("ServiceUnavailable"), "{}", story.message());
}

#[test]
fn a_body_that_is_no_json_is_refused_in_plain_words() {
    let mut rig = Rig::new(TWO_GROUPS);
    let rows: [(&[u8], &str); 4] = [
        (b"", "the request has no body; a JSON object was expected."),
        (b"not json", "the request body is not valid JSON: line 1, column 2: expected a value"),
        (
            b"{\"model\": \"a\",}",
            "the request body is not valid JSON: line 1, column 15: a comma with nothing after it.",
        ),
        (b"[]", "the request body is not a JSON object: line 1, column 0: expected a JSON object."),
    ];
    for path in ["/v1/chat/completions", "/v1/messages"] {
        for (body, words) in rows {
            let (config, headers) = (Rc::clone(&rig.config), rig.headers(path));
            let Opened { exchange: Some(mut exchange), next: Next::ReadBody } =
                open(&config, &headers, &mut rig.env())
            else {
                panic!("a call")
            };
            let Next::Reply(reply) = exchange.on_body(body, &mut rig.env()) else { panic!("refused") };
            let told: Value = serde_json::from_slice(&reply.body).unwrap();
            let message = told["error"]["message"].as_str().unwrap();
            assert!(reply.status == 400 && message.contains(words), "{message}");
            exchange.on_done(&mut rig.env());
        }
    }
}

#[test]
fn a_stream_that_begins_with_an_error_is_retried() {
    let mut rig = Rig::new(TWO_GROUPS);
    let mut body = hello("small");
    body["stream"] = json!(true);
    let story = rig.chat(body, |attempt, _| match attempt {
        0 => Stream(vec!["data: {\"error\":{\"message\":\"overloaded\",\"code\":500}}\n\n".to_owned()]),
        _ => Stream(vec![
            "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n".to_owned(),
        ]),
    });
    assert_eq!((story.status, story.models.len()), (200, 2));
    assert!(story.body.contains("\"x\""));
}

#[test]
fn anthropic_clients_read_any_provider() {
    let mut rig = Rig::new(TWO_GROUPS);
    let ask = json!({"model": "large", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]});
    let story = rig.call("/v1/messages", ask.clone(), |_, _| Answer(200, completion("gpt-4o")));
    let body: Value = serde_json::from_str(&story.body).unwrap();
    assert_eq!((body["type"].as_str(), body["content"][0]["text"].as_str()), (Some("message"), Some("hi")));
    assert_eq!(story.paths, ["/v1/chat/completions"]);

    let story = rig.call("/v1/messages", ask, |_, _| Answer(404, error("nope", "x")));
    let body: Value = serde_json::from_str(&story.body).unwrap();
    assert_eq!((story.status, body["type"].as_str()), (404, Some("error")));
    assert_eq!(body["error"]["type"], "not_found_error");
}

#[test]
fn a_clients_fallbacks_serve_every_kind_of_error() {
    let mut rig = Rig::new(TWO_GROUPS);
    let mut body = hello("large");
    body["fallbacks"] = json!(["claude"]);
    body["num_retries"] = json!(0);
    let story = rig.chat(body, |attempt, _| match attempt {
        0 => Answer(400, error("This model's maximum context length is 1", "context_length_exceeded")),
        _ => Answer(200, message()),
    });
    assert_eq!(story.status, 200);
    assert_eq!(story.paths, ["/v1/chat/completions", "/v1/messages"]);
    assert!(
        story.bodies.iter().all(|body| body.get("fallbacks").is_none() && body.get("num_retries").is_none())
    );
}

#[test]
fn mocks_answer_without_a_provider() {
    let mut rig = Rig::new(TWO_GROUPS);
    let mut body = hello("large");
    body["mock_response"] = json!("hello there");
    let story = rig.chat(body.clone(), |_, _| panic!("no call"));
    let answer: Value = serde_json::from_str(&story.body).unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "hello there");
    assert_eq!(answer["usage"]["total_tokens"], 30);

    body["mock_response"] = json!("litellm.RateLimitError");
    let story = rig.chat(body.clone(), |_, _| panic!("no call"));
    assert_eq!(story.status, 429);

    let mut body = hello("small");
    body["mock_testing_fallbacks"] = json!(true);
    let story = rig.chat(body, |_, model| Answer(200, completion(model)));
    assert_eq!((story.status, story.header("x-litellm-model-group")), (200, Some("large")));
}

#[test]
fn what_cannot_be_read_is_refused_in_the_clients_format() {
    let mut rig = Rig::new(TWO_GROUPS);
    let story = rig.chat(json!({"messages": []}), |_, model| Answer(200, completion(model)));
    assert_eq!(story.status, 200, "the first group of the file is the default");
    let story = rig.chat(hello("nonesuch"), |_, _| panic!("no call"));
    assert_eq!(story.status, 400);
    assert!(story.message().contains("Invalid model name passed in model=nonesuch"));
}
