//! Responses with a good status that are none, and streams that say nothing before they fail: they count like failures with a status.

use super::*;
use crate::core::model::failure::Class;

const FILE: &str = r#"
model_list:
  - {model_name: s, litellm_params: {model: openai/s-1, api_base: "http://a.test/v1", api_key: k}}
  - {model_name: s2, litellm_params: {model: openai/s2-1, api_base: "http://b.test/v1", api_key: k}}
  - {model_name: m, litellm_params: {model: anthropic/m-1, api_base: "http://c.test", api_key: k}}
  - {model_name: m2, litellm_params: {model: anthropic/m2-1, api_base: "http://d.test", api_key: k}}
  - {model_name: o, litellm_params: {model: ollama_chat/o-1, api_base: "http://e.test", api_key: k}}
  - {model_name: g, litellm_params: {model: huggingface/g-1, api_base: "http://f.test", api_key: k, initial_prompt_value: ">", eos_token: "</s>"}}
  - {model_name: long, litellm_params: {model: openai/long-1, api_base: "http://g.test/v1", api_key: k}}
  - {model_name: safe, litellm_params: {model: openai/safe-1, api_base: "http://h.test/v1", api_key: k}}
  - {model_name: alone, litellm_params: {model: openai/alone-1, api_base: "http://i.test/v1", api_key: k}}
  - {model_name: alone-m, litellm_params: {model: anthropic/alone-m-1, api_base: "http://j.test", api_key: k}}
litellm_settings:
  num_retries: 1
  fallbacks: [{s: [s2]}, {m: [m2]}, {o: [s2]}, {g: [s2]}]
  context_window_fallbacks: [{s: [long]}, {m: [long]}]
  content_policy_fallbacks: [{s: [safe]}]
router_settings: {disable_cooldowns: true}
"#;

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

fn ask(path: &str, model: &str, streaming: bool) -> Value {
    match path {
        "/v1/completions" => json!({"model": model, "prompt": "hello", "stream": streaming}),
        "/v1/embeddings" => json!({"model": model, "input": "hello"}),
        _ => json!({"model": model, "max_tokens": 5, "stream": streaming,
                    "messages": [{"role": "user", "content": "hello"}]}),
    }
}

/// What a model that works answers.
fn good(path: &str, asked: &str, streaming: bool) -> Behaviour {
    let chunk = |choice: Value| json!({"id": "c", "model": "x", "choices": [choice]});
    match (asked, streaming) {
        ("/v1/messages", false) => Answer(200, message()),
        ("/v1/messages", true) => Stream(vec![claude("hi")]),
        (_, true) => Stream(vec![
            format!("data: {}\n\n", chunk(json!({"index": 0, "delta": {"content": "hi"}}))),
            format!(
                "data: {}\n\ndata: [DONE]\n\n",
                chunk(json!({"index": 0, "delta": {}, "finish_reason": "stop"}))
            ),
        ]),
        _ if path == "/v1/embeddings" => {
            Answer(200, json!({"object": "list", "model": "x", "data": [{"index": 0, "embedding": [0.1]}]}))
        }
        _ if path == "/v1/completions" => {
            Answer(200, json!({"id": "c", "choices": [{"index": 0, "text": "hi", "finish_reason": "stop"}]}))
        }
        _ => Answer(200, completion("x")),
    }
}

fn claude_start() -> String {
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
                         "usage": {"input_tokens": 321, "output_tokens": 1}});
    format!("event: message_start\ndata: {}\n\n", json!({"type": "message_start", "message": message}))
}

fn claude_delta(text: &str) -> String {
    let delta =
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}});
    format!("event: content_block_delta\ndata: {delta}\n\n")
}

fn claude(text: &str) -> String {
    let events = [
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}),
        json!({"type": "message_stop"}),
    ]
    .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()));
    let [start, stop, delta, end] = events;
    [claude_start(), start, claude_delta(text), stop, delta, end].concat()
}

fn models(story: &Story) -> Vec<&str> {
    story.models.iter().map(String::as_str).collect()
}

/// Bodies and events that report a failure, its class, and where it leads from `s`.
fn failures() -> Vec<(Value, Class, &'static [&'static str])> {
    let words = "This model's maximum context length is 4097 tokens";
    let general: &[&str] = &["s-1", "s-1", "s2-1"];
    let once: &[&str] = &["s-1", "s2-1"];
    vec![
        (json!({"error": {"message": "Provider returned error", "code": 429}}), Class::RateLimit, general),
        (json!({"error": {"message": "boom", "code": 500}}), Class::InternalServer, general),
        (json!({"error": "CUDA out of memory"}), Class::InternalServer, general),
        (json!({"object": "error", "message": "down", "code": 500}), Class::InternalServer, general),
        (json!({"error": {"message": words, "code": 400}}), Class::ContextWindowExceeded, &["s-1", "long-1"]),
        (
            json!({"error": {"message": words, "type": "invalid_request_error", "code": "context_length_exceeded"}}),
            Class::ContextWindowExceeded,
            &["s-1", "long-1"],
        ),
        (
            json!({"error": {"message": "no", "code": "content_policy_violation"}}),
            Class::ContentPolicyViolation,
            &["s-1", "safe-1"],
        ),
        (json!({"error": {"message": "no", "code": "invalid_request_error"}}), Class::BadRequest, once),
    ]
}

#[test]
fn a_good_status_with_a_failure_in_it_goes_where_the_failure_would_go() {
    let mut buffered = failures();
    let general: &[&str] = &["s-1", "s-1", "s2-1"];
    for body in [json!({}), json!({"choices": null, "data": null}), json!({"id": "c", "usage": {}})] {
        buffered.push((body, Class::InternalServer, general));
    }
    for path in [CHAT, MESSAGES, "/v1/completions", "/v1/embeddings"] {
        for (body, _, expected) in &buffered {
            let story = Rig::new(FILE).run_path(path, ask(path, "s", false), |asked, model| match model {
                "s-1" => Answer(200, body.clone()),
                _ => good(path, asked, false),
            });
            assert_eq!((story.status, models(&story).as_slice()), (200, *expected), "{path} {body}");
            assert_eq!(story.header("x-litellm-attempted-fallbacks"), Some("1"), "{path} {body}");
        }
    }
}

#[test]
fn a_stream_that_fails_before_its_answer_goes_where_the_failure_would_go() {
    let role = json!({"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]});
    let filter = json!({"id": "", "choices": [], "prompt_filter_results": []});
    let preludes = [
        Vec::new(),
        vec![": OPENROUTER PROCESSING\n\n".to_owned(), ": OPENROUTER PROCESSING\n\n".to_owned()],
        vec!["retry: 1000\n\n".to_owned(), "id: 1\n\n".to_owned()],
        vec![format!("data: {filter}\n\n"), format!("data: {role}\n\n")],
    ];
    for path in [CHAT, MESSAGES] {
        for prelude in &preludes {
            let mut ends: Vec<_> = failures()
                .into_iter()
                .map(|(event, _, expected)| (format!("data: {event}\n\n"), expected))
                .collect();
            // It ends, or the event is torn.
            let general: &[&str] = &["s-1", "s-1", "s2-1"];
            ends.extend([("".to_owned(), general), ("data: {\"id\":".to_owned(), general)]);
            for (end, expected) in ends {
                let story = Rig::new(FILE).run_path(path, ask(path, "s", true), |asked, model| match model {
                    "s-1" => Stream([prelude.as_slice(), std::slice::from_ref(&end)].concat()),
                    _ => good(path, asked, true),
                });
                assert_eq!(
                    (story.status, models(&story).as_slice()),
                    (200, expected),
                    "{path} {prelude:?} {end}"
                );
                assert!(
                    !story.body.contains("error") && !story.body.contains("PROCESSING"),
                    "{}",
                    story.body
                );
            }
        }
    }
}

#[test]
fn a_connection_that_breaks_before_the_answer_is_retried() {
    for (path, model, first) in [
        (CHAT, "s", ": OPENROUTER PROCESSING\n\n".to_owned()),
        (MESSAGES, "s", ": OPENROUTER PROCESSING\n\n".to_owned()),
        (MESSAGES, "m", claude_start()),
        (CHAT, "m", claude_start()),
    ] {
        let story = Rig::new(FILE).run_path(path, ask(path, model, true), |asked, called| {
            if called.starts_with(&format!("{model}-")) {
                return Raw(Raw {
                    status: 200,
                    headers: vec![("content-type", "text/event-stream".to_owned())],
                    pieces: vec![first.clone().into_bytes()],
                    cut: true,
                });
            }
            good(path, asked, true)
        });
        assert_eq!((story.status, story.models.len()), (200, 3), "{path} {model}: {}", story.body);
    }
}

#[test]
fn anthropics_failures_are_known_with_a_good_status_too() {
    let overloaded = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    for path in [CHAT, MESSAGES] {
        let event = format!("event: error\ndata: {overloaded}\n\n");
        let plays: [(bool, Behaviour); 4] = [
            (false, Answer(200, overloaded.clone())),
            (false, Answer(200, json!({"id": "msg_1", "type": "message", "content": null}))),
            (true, Stream(vec![event.clone()])),
            (
                true,
                Stream(vec![
                    claude_start(),
                    "event: ping\ndata: {\"type\": \"ping\"}\n\n".to_owned(),
                    event.clone(),
                ]),
            ),
        ];
        for (streaming, play) in plays {
            let mut play = Some(play);
            let story =
                Rig::new(FILE).run_path(path, ask(path, "m", streaming), |asked, model| match model {
                    "m-1" => play.take().unwrap_or(Refuse),
                    _ => good(path, asked, streaming),
                });
            assert_eq!(
                (story.status, models(&story)),
                (200, vec!["m-1", "m-1", "m2-1"]),
                "{path} {streaming}"
            );
        }
    }
}

#[test]
fn servers_of_other_formats_fail_with_a_good_status_too() {
    let event = |body: &Value| format!("data: {body}\n\n");
    for path in [CHAT, MESSAGES, "/v1/completions"] {
        let text = json!({"error": "CUDA out of memory", "error_type": "generation"});
        let rows = [
            ("o", false, Answer(200, json!({"error": "model requires more system memory"}))),
            ("o", false, Answer(200, json!({"model": "o", "done": true}))),
            ("o", true, lines(&[json!({"error": "model requires more system memory"})])),
            (
                "o",
                true,
                lines(&[
                    json!({"message": {"role": "assistant", "content": ""}, "done": false}),
                    json!({"error": "x"}),
                ]),
            ),
            ("g", false, Answer(200, json!([text]))),
            ("g", false, Answer(200, json!([{"details": {}}]))),
            ("g", true, Stream(vec![event(&text)])),
            ("g", true, Stream(vec![": hm\n\n".to_owned(), event(&text)])),
        ];
        for (model, streaming, play) in rows {
            let mut play = Some(play);
            let mut attempts = 0;
            let story = Rig::new(FILE).run_path(path, ask(path, model, streaming), |asked, _| {
                attempts += 1;
                match attempts {
                    1 => play.take().unwrap(),
                    2 => Refuse,
                    _ => good(path, asked, streaming),
                }
            });
            assert_eq!((story.status, attempts), (200, 3), "{path} {model} {streaming}: {}", story.body);
        }
    }
}

fn lines(events: &[Value]) -> Behaviour {
    Raw(Raw {
        status: 200,
        headers: vec![("content-type", "application/x-ndjson".to_owned())],
        pieces: events.iter().map(|event| format!("{event}\n").into_bytes()).collect(),
        cut: false,
    })
}

/// The client reads the same words and status, and the same headers, whether the provider fails with a status or inside a response
/// with a good one.
#[test]
fn the_client_is_told_as_if_the_status_had_said_it() {
    for (body, class, _) in failures() {
        let status = class.status().get();
        let tell = |behaviour: &dyn Fn() -> Behaviour, path: &str, streaming: bool| {
            let story = Rig::new(FILE).run_path(path, ask(path, "alone", streaming), |_, _| behaviour());
            let headers: Vec<_> = ["retry-after", "llm_provider-x-mine", "x-litellm-attempted-retries"]
                .map(|name| story.header(name).map(str::to_owned))
                .to_vec();
            let body: Value = serde_json::from_str(&story.body).unwrap();
            (story.status, body, headers, story.models.len(), story.record.unwrap().failure)
        };
        let raw = |status: u16, kind: &str, body: &str| {
            Raw(Raw {
                status,
                headers: vec![
                    ("content-type", kind.to_owned()),
                    ("retry-after", "7".to_owned()),
                    ("x-mine", "1".to_owned()),
                ],
                pieces: vec![body.as_bytes().to_vec()],
                cut: false,
            })
        };
        for path in [CHAT, MESSAGES] {
            let head = tell(&|| raw(status, "application/json", &body.to_string()), path, false);
            assert_eq!(head.0, status, "{body}");
            let buffered = tell(&|| raw(200, "application/json", &body.to_string()), path, false);
            assert_eq!(buffered, head, "{path} {body}");
            let event = format!(": hm\n\ndata: {body}\n\n");
            let streamed = tell(&|| raw(200, "text/event-stream", &event), path, true);
            assert_eq!(streamed, head, "{path} {body}");
        }
    }
}

#[test]
fn a_rate_limit_with_a_good_status_lets_the_deployment_rest() {
    for streaming in [false, true] {
        let mut rig = Rig::new(TWO_GROUPS);
        let limited = json!({"error": {"message": "Provider returned error", "code": 429}});
        let mut body = hello("small");
        body["stream"] = json!(streaming);
        for _ in 0..12 {
            rig.chat(body.clone(), |_, model| match (model, streaming) {
                ("small-1", false) => Answer(200, limited.clone()),
                ("small-1", true) => Stream(vec![": hm\n\n".to_owned(), format!("data: {limited}\n\n")]),
                _ => good(CHAT, CHAT, streaming),
            });
        }
        for _ in 0..20 {
            let story = rig.chat(body.clone(), |_, _| good(CHAT, CHAT, streaming));
            assert_eq!(story.models, ["small-2"]);
        }
    }
}

#[test]
fn a_large_body_that_begins_with_a_failure_is_none_either() {
    let long = "x".repeat(300_000);
    for body in [
        json!({"error": {"message": "slow", "code": 429}, "more": long}),
        json!({"error": {"message": long, "code": 429}}),
    ] {
        let bytes = body.to_string().into_bytes();
        let pieces: Vec<Vec<u8>> = bytes.chunks(40_000).map(<[u8]>::to_vec).collect();
        let story = Rig::new(FILE).run_path(CHAT, ask(CHAT, "s", false), |asked, model| match model {
            "s-1" => Raw(Raw {
                status: 200,
                headers: vec![("content-type", "application/json".to_owned())],
                pieces: pieces.clone(),
                cut: false,
            }),
            _ => good(CHAT, asked, false),
        });
        assert_eq!((story.status, models(&story)), (200, vec!["s-1", "s-1", "s2-1"]));
    }
    // Small enough to be held, and held no longer than it may be.
    let config = format!("{FILE}general_settings: {{}}\ntollgate_settings: {{max_held_answer_bytes: 100}}\n");
    let body = json!({"error": {"message": "y".repeat(500), "code": 429}}).to_string().into_bytes();
    let story = Rig::new(&config).run_path(CHAT, ask(CHAT, "alone", false), |_, _| {
        Raw(Raw {
            status: 200,
            headers: vec![("content-type", "application/json".to_owned())],
            pieces: body.chunks(150).map(<[u8]>::to_vec).collect(),
            cut: false,
        })
    });
    assert_eq!(story.status, 429);
    assert!(story.message().contains(&"y".repeat(500)), "{}", story.message());
}

#[test]
fn an_error_after_the_beginning_is_told_once_in_the_clients_format() {
    let chat = |content: &str| {
        format!("data: {}\n\n", json!({"id": "c", "choices": [{"index": 0, "delta": {"content": content}}]}))
    };
    let boom = format!("data: {}\n\n", json!({"error": {"message": "boom", "code": 500}}));
    let overloaded = json!({"type": "error", "error": {"type": "overloaded_error", "message": "boom"}});
    let named = format!("event: error\ndata: {overloaded}\n\n");
    let unnamed = format!("data: {overloaded}\n\n");
    let rows = [
        (
            CHAT,
            "alone",
            chat("hi"),
            &boom,
            "litellm.InternalServerError: InternalServerError: OpenAIException - boom",
        ),
        (
            MESSAGES,
            "alone",
            chat("hi"),
            &boom,
            "litellm.InternalServerError: InternalServerError: OpenAIException - boom",
        ),
        (
            CHAT,
            "alone-m",
            [claude_start(), claude_delta("hi")].concat(),
            &named,
            "litellm.InternalServerError: AnthropicException - boom",
        ),
        (
            MESSAGES,
            "alone-m",
            [claude_start(), claude_delta("hi")].concat(),
            &named,
            "litellm.InternalServerError: AnthropicException - boom",
        ),
        (
            MESSAGES,
            "alone-m",
            [claude_start(), claude_delta("hi")].concat(),
            &unnamed,
            "litellm.InternalServerError: AnthropicException - boom",
        ),
        (
            MESSAGES,
            "alone-m",
            [claude_start(), claude_delta("hi")].concat(),
            &boom,
            "litellm.InternalServerError: AnthropicException - boom",
        ),
    ];
    for (path, model, content, error, words) in rows {
        for parts in [vec![content.clone(), error.clone()], vec![format!("{content}{error}")]] {
            let story = Rig::new(FILE).run_path(path, ask(path, model, true), |_, _| Stream(parts.clone()));
            let case = format!("{path} {model}: {}", story.body);
            assert_eq!((story.status, story.models.len()), (200, 1), "{case}");
            assert_eq!(story.body.matches("\"error\":").count(), 1, "{case}");
            assert!(story.body.contains("hi") && !story.body.contains("[DONE]"), "{case}");
            let last = story.body.trim_end().rsplit("\n\n").next().unwrap();
            let data = last.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
            let told: Value = serde_json::from_str(data).unwrap();
            assert_eq!(told["error"]["message"], words, "{case}");
            assert_eq!(
                last.starts_with("event: error\n") && told["type"] == "error",
                path == MESSAGES,
                "{case}"
            );
            assert_eq!(told["error"]["code"] == "500", path == CHAT, "{case}");
            let is_native = path == MESSAGES && error.contains("overloaded_error");
            assert_eq!(told["error"]["type"] == "overloaded_error", is_native, "{case}");
        }
    }
}

#[test]
fn a_chat_stream_without_its_last_line_gets_one() {
    let chunk = |choice: Value| format!("data: {}\n\n", json!({"id": "c", "choices": [choice]}));
    let stream = [
        chunk(json!({"index": 0, "delta": {"content": "hi"}})),
        chunk(json!({"index": 0, "delta": {}, "finish_reason": "stop"})),
    ];
    let story = Rig::new(FILE).run_path(CHAT, ask(CHAT, "alone", true), |_, _| Stream(stream.to_vec()));
    assert_eq!(story.body, format!("{}data: [DONE]\n\n", stream.concat()));
    assert!(!story.record.unwrap().incomplete);
}

#[test]
fn comments_do_not_make_an_attempt_longer() {
    let file = FILE.replace("openai/s-1,", "openai/s-1, stream_timeout: 1,");
    let comment = || Stream(vec![": OPENROUTER PROCESSING\n\n".to_owned(); 3]);
    for (took_ms, expected) in [(2_000, vec!["s-1", "s-1", "s2-1"]), (500, vec!["s-1", "s-1", "s2-1"])] {
        let mut rig = Rig::new(&file);
        rig.answer_takes_ms = took_ms;
        let story = rig.run_path(CHAT, ask(CHAT, "s", true), |asked, model| match model {
            "s-1" => comment(),
            _ => good(CHAT, asked, true),
        });
        assert_eq!((story.status, models(&story)), (200, expected));
    }
    // Where nobody else is left the client hears which it was.
    let file = FILE.replace("openai/alone-1,", "openai/alone-1, stream_timeout: 1,");
    for (took_ms, status) in [(2_000, 408), (500, 500)] {
        let mut rig = Rig::new(&file);
        rig.answer_takes_ms = took_ms;
        let story = rig.run_path(CHAT, ask(CHAT, "alone", true), |_, _| comment());
        assert_eq!(story.status, status, "{}", story.body);
    }
    // What comes in the end, however late, is not thrown away.
    let mut rig = Rig::new(&file);
    rig.answer_takes_ms = 2_000;
    assert_eq!(rig.run_path(CHAT, ask(CHAT, "alone", true), |asked, _| good(CHAT, asked, true)).status, 200);
}

#[test]
fn a_client_that_leaves_before_the_answer_pays_for_what_the_provider_has_counted() {
    let file = FILE.replace(
        "anthropic/alone-m-1,",
        "anthropic/alone-m-1, input_cost_per_token: 0.001, output_cost_per_token: 0.002,",
    );
    for path in [CHAT, MESSAGES] {
        let mut seen = 0;
        for patience in 0..8 {
            let mut rig = Rig::new(&file);
            rig.patience = Some(patience);
            let story = rig.run(path, ask(path, "alone-m", true), |_, _| {
                Stream(vec![claude_start(), claude_delta("hi"), claude_delta("hi")])
            });
            let record = story.record.unwrap();
            // Once its beginning has come, the prompt is what it says.
            if record.usage.as_ref().is_some_and(|usage| usage.prompt_tokens == 321) {
                assert!(record.cost.unwrap() > Money::ZERO, "{path} {patience}");
                seen += u32::from(record.status.is_none());
            }
        }
        assert!(seen > 0, "{path}: it has left while nothing was shown");
    }
}
