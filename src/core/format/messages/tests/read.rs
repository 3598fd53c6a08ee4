//! Whole responses and streams that are read, against goldens; then what must hold for every stream and error body.

use serde_json::{Value, json};

use super::super::{Format, Requested, error, response, stream::Reader};
use crate::core::{
    format::{
        Format as _, golden,
        response::{ReadResponse, ResponseIds},
    },
    model::{failure::Class, status::Status},
};

fn requested(settings: &Value) -> Requested {
    Requested {
        json_tool: settings["json_tool"] == true,
        prefix: settings["prefix"].as_str().map(str::to_owned),
    }
}

fn ids() -> ResponseIds {
    ResponseIds { id: "chatcmpl-1".into(), created: 1_754_000_000, model: "asked-for".into() }
}

/// All chunks of a stream, how it ended, and its error.
fn play(events: &[Value], requested: Requested) -> Value {
    let mut reader = Reader::new(requested, &ids());
    let mut chunks = Vec::new();
    let mut error = Value::Null;
    for event in events {
        if let Some(failed) = Format.read_error(event) {
            error = json!({"status": failed.status(), "message": failed.message});
            break;
        }
        reader.push(event, &mut chunks);
    }
    json!({"chunks": chunks, "finished": reader.is_finished(), "error": error})
}

#[test]
fn whole_responses() {
    golden::walk("messages/response/read", |case| {
        match response::read(&case["body"], &requested(&case["memo"]), &ids()) {
            Ok(completion) => completion,
            Err(error) => json!({"status": error.status(), "message": error.message}),
        }
    });
}

#[test]
fn whole_streams() {
    golden::walk("messages/stream/read", |case| {
        play(case["events"].as_array().unwrap(), requested(&case["memo"]))
    });
}

/// The events that Anthropic would have sent for a buffered response.
fn as_events(body: &Value) -> Vec<Value> {
    let mut start = body.clone();
    start["content"] = json!([]);
    start["usage"]["output_tokens"] = json!(1);
    let mut events = vec![json!({"type": "message_start", "message": start})];
    for (at, block) in body["content"].as_array().unwrap().iter().enumerate() {
        let delta = match block["type"].as_str().unwrap() {
            "text" => json!({"type": "text_delta", "text": block["text"]}),
            "tool_use" => json!({"type": "input_json_delta", "partial_json": block["input"].to_string()}),
            "thinking" => json!({"type": "thinking_delta", "thinking": block["thinking"]}),
            _ => json!({"type": "none"}),
        };
        let mut block = block.clone();
        for (name, empty) in [("text", json!("")), ("thinking", json!("")), ("input", json!({}))] {
            if let Some(value) = block.get_mut(name) {
                *value = empty;
            }
        }
        events.push(json!({"type": "content_block_start", "index": at, "content_block": block}));
        events.push(json!({"type": "content_block_delta", "index": at, "delta": delta}));
        events.push(json!({"type": "content_block_stop", "index": at}));
    }
    let delta = json!({"stop_reason": body["stop_reason"]});
    let usage = json!({"output_tokens": body["usage"]["output_tokens"]});
    events.push(json!({"type": "message_delta", "delta": delta, "usage": usage}));
    events.push(json!({"type": "message_stop"}));
    events
}

#[test]
fn buffered_and_streamed_responses_agree() {
    let text = |value: &str| json!({"type": "text", "text": value});
    let tool = |name: &str| json!({"type": "tool_use", "id": "t", "name": name, "input": {"a": 1}});
    let usage = json!({"input_tokens": 3, "output_tokens": 7, "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 20, "server_tool_use": {"web_search_requests": 2},
        "cache_creation": {"ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 5}});
    let rows = [
        (json!([text("Hel"), text("lo")]), "end_turn", Requested::default()),
        (json!([text("Hi"), tool("f"), tool("g")]), "tool_use", Requested::default()),
        (json!([tool("f")]), "end_turn", Requested::default()),
        (json!([tool("json_tool_call")]), "tool_use", Requested { json_tool: true, ..Requested::default() }),
        (
            json!([tool("json_tool_call"), tool("json_tool_call")]),
            "tool_use",
            Requested { json_tool: true, ..Requested::default() },
        ),
        (
            json!([tool("json_tool_call"), tool("f")]),
            "tool_use",
            Requested { json_tool: true, ..Requested::default() },
        ),
        (
            json!([text(" two")]),
            "max_tokens",
            Requested { prefix: Some("one".into()), ..Requested::default() },
        ),
        (
            json!([tool("json_tool_call")]),
            "tool_use",
            Requested { json_tool: true, prefix: Some("one".into()) },
        ),
        (json!([]), "end_turn", Requested { prefix: Some("one".into()), ..Requested::default() }),
        (
            json!([{"type": "thinking", "thinking": "hm", "signature": ""}, text("Hi")]),
            "refusal",
            Requested::default(),
        ),
        (json!([]), "a reason of tomorrow", Requested::default()),
    ];
    for (content, stop_reason, requested) in rows {
        let body = json!({"type": "message", "model": "m", "content": content, "stop_reason": stop_reason, "usage": usage});
        let whole = response::read(&body, &requested, &ids()).unwrap();
        let played = play(&as_events(&body), requested);
        let chunks = played["chunks"].as_array().unwrap();
        let (last, finish) = (&chunks[chunks.len() - 1], &chunks[chunks.len() - 2]);

        let mut counted = whole["usage"].clone();
        counted["prompt_tokens_details"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
        assert_eq!(last["usage"], counted, "{content}");
        assert_eq!(finish["choices"][0]["finish_reason"], whole["choices"][0]["finish_reason"], "{content}");

        let pick = |path: &str| -> String {
            chunks.iter().filter_map(|chunk| chunk.pointer(path)?.as_str()).collect()
        };
        let message = &whole["choices"][0]["message"];
        assert_eq!(
            pick("/choices/0/delta/content"),
            message["content"].as_str().unwrap_or_default(),
            "{content}"
        );
        assert_eq!(
            pick("/choices/0/delta/reasoning_content"),
            message["reasoning_content"].as_str().unwrap_or_default()
        );
        let calls = message["tool_calls"].as_array().map_or(0, Vec::len);
        let names = chunks.iter().filter(|c| c.pointer("/choices/0/delta/tool_calls/0/id").is_some()).count();
        assert_eq!(names, calls, "{content}");
    }
}

#[test]
fn every_stream_has_one_role_one_finish_and_one_usage_at_its_end() {
    let body = json!({"content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "usage": {}});
    let mut events = as_events(&body);
    let tail = events.last().cloned().unwrap();
    events.push(tail);
    let played = play(&events, Requested::default());
    let chunks = played["chunks"].as_array().unwrap();
    let count = |path: &str| chunks.iter().filter(|chunk| chunk.pointer(path).is_some()).count();
    assert_eq!(
        (count("/choices/0/delta/role"), count("/choices/0/finish_reason"), count("/usage")),
        (1, 1, 1)
    );
    assert!(
        chunks[0].pointer("/choices/0/delta/role").is_some()
            && chunks[chunks.len() - 1].get("usage").is_some()
    );
}

#[test]
fn events_out_of_place_or_shape_do_no_harm() {
    let events = [
        json!(null),
        json!([]),
        json!({"type": 1}),
        json!({"type": "content_block_delta"}),
        json!({"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{}"}}),
        json!({"type": "content_block_start", "content_block": 7}),
        json!({"type": "content_block_stop"}),
        json!({"type": "message_start", "message": {"usage": {"input_tokens": -1, "output_tokens": "x"}}}),
        json!({"type": "message_delta", "delta": {"stop_reason": null}, "usage": {"output_tokens": u64::MAX}}),
        json!({"type": "message_delta", "usage": {"input_tokens": u64::MAX}}),
    ];
    let played = play(&events, Requested::default());
    assert_eq!(played, json!({"chunks": [], "finished": false, "error": null}));
}

#[test]
fn odd_values_anywhere_are_answered_not_trapped() {
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(""),
        json!("é🙂"),
        json!([]),
        json!({}),
        json!([{}]),
        json!({"type": "tool_use"}),
    ];
    golden::each("messages/response/read", |case| {
        golden::mutants(&case["body"], &odd, &mut |body| {
            if let Err(error) = response::read(body, &requested(&case["memo"]), &ids()) {
                assert_eq!(
                    (error.status() >= 400, error.class().is_some()),
                    (true, true),
                    "{}",
                    error.message
                );
            }
        });
    });
    golden::each("messages/stream/read", |case| {
        golden::mutants(&case["events"], &odd, &mut |events| {
            let played = play(events.as_array().map_or(&[], Vec::as_slice), requested(&case["memo"]));
            let usages =
                played["chunks"].as_array().unwrap().iter().filter(|c| c.get("usage").is_some()).count();
            assert_eq!(usages, usize::from(played["finished"] == true), "{played}");
        });
    });
}

#[test]
fn classes_of_failed_responses() {
    let body = |kind: &str, message: &str| {
        json!({"type": "error", "error": {"type": kind, "message": message}}).to_string().into_bytes()
    };
    let rows = [
        (
            400,
            body("invalid_request_error", "max_tokens: required"),
            Class::BadRequest,
            "max_tokens: required",
        ),
        (
            400,
            body("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
            Class::ContextWindowExceeded,
            "prompt is too long: 9 tokens > 8 maximum",
        ),
        (
            400,
            body("invalid_request_error", "prompt: length: 1..9"),
            Class::ContextWindowExceeded,
            "prompt: length: 1..9",
        ),
        (
            400,
            body("invalid_request_error", "Output blocked by content filtering policy"),
            Class::ContentPolicyViolation,
            "Output blocked by content filtering policy",
        ),
        (401, body("authentication_error", "invalid x-api-key"), Class::Authentication, "invalid x-api-key"),
        (402, body("billing_error", "pay"), Class::Api, "pay"),
        (403, body("permission_error", "no"), Class::PermissionDenied, "no"),
        (404, body("not_found_error", "model: claude-y"), Class::NotFound, "model: claude-y"),
        (408, body("timeout_error", "slow"), Class::Timeout, "slow"),
        (413, body("request_too_large", "big"), Class::ContextWindowExceeded, "big"),
        (429, body("rate_limit_error", "fast"), Class::RateLimit, "fast"),
        (500, body("api_error", "oops"), Class::InternalServer, "oops"),
        (503, b"<html>down</html>".to_vec(), Class::ServiceUnavailable, "<html>down</html>"),
        (504, Vec::new(), Class::Timeout, ""),
        (529, body("overloaded_error", "Overloaded"), Class::InternalServer, "Overloaded"),
        (200, body("overloaded_error", "Overloaded"), Class::InternalServer, "Overloaded"),
        (200, body("rate_limit_error", "fast"), Class::RateLimit, "fast"),
        (418, b"\xff{".to_vec(), Class::Api, "\u{fffd}{"),
        (500, b"{\"error\": \"text\"}".to_vec(), Class::InternalServer, "{\"error\": \"text\"}"),
        (500, b"[]".to_vec(), Class::InternalServer, "[]"),
    ];
    let read = |status: u16, body: &[u8]| {
        let (said, message) = error::read(Status::new(status), body);
        (Class::of(&said), message)
    };
    for (status, body, class, message) in rows {
        assert_eq!(read(status, &body), (class, message.to_owned()), "{status} {message}");
    }
    let long = "é".repeat(10_000);
    assert!(read(500, long.as_bytes()).1.len() <= 4096);
    assert!(read(500, &body("api_error", &long)).1.len() <= 4096);
}

/// The content of a streamed response to which JSON by a tool was asked for, and the deltas that had it.
fn json_content(events: &[Value]) -> String {
    let requested = Requested { json_tool: true, prefix: None };
    let played = play(events, requested);
    let chunks = played["chunks"].as_array().unwrap();
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
}

#[test]
fn text_beside_the_json_that_was_asked_for_is_no_part_of_it() {
    let text = |at: u64, text: &str| {
        [
            json!({"type": "content_block_start", "index": at, "content_block": {"type": "text", "text": ""}}),
            json!({"type": "content_block_delta", "index": at, "delta": {"type": "text_delta", "text": text}}),
            json!({"type": "content_block_stop", "index": at}),
        ]
    };
    let tool = [
        json!({"type": "content_block_start", "index": 1, "content_block":
            {"type": "tool_use", "id": "t", "name": "json_tool_call", "input": {}}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{\"a\":1}"}}),
        json!({"type": "content_block_stop", "index": 1}),
    ];
    let stop =
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 1}});
    let with = |parts: &[&[Value]]| [parts.concat(), vec![stop.clone()]].concat();
    assert_eq!(json_content(&with(&[&text(0, "Here it is:"), &tool, &text(2, "Done.")])), "{\"a\":1}");
    assert_eq!(json_content(&with(&[&text(0, "I cannot.")])), "I cannot.");
}

/// OpenAI's own SDKs put lists in deltas together by the entries' index, and refuse entries without one.
#[test]
fn pieces_of_thinking_say_which_block_they_belong_to() {
    let start =
        |at: u64, block: Value| json!({"type": "content_block_start", "index": at, "content_block": block});
    let delta = |at: u64, delta: Value| json!({"type": "content_block_delta", "index": at, "delta": delta});
    let played = play(
        &[
            start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(0, json!({"type": "thinking_delta", "thinking": "hm"})),
            delta(0, json!({"type": "signature_delta", "signature": "Ab="})),
            start(1, json!({"type": "redacted_thinking", "data": "Zz"})),
            start(2, json!({"type": "thinking", "thinking": "ah", "signature": ""})),
        ],
        Requested::default(),
    );
    let chunks = played["chunks"].as_array().unwrap();
    let blocks =
        chunks.iter().flat_map(|chunk| chunk["choices"][0]["delta"]["thinking_blocks"].as_array()).flatten();
    let indices: Vec<&Value> = blocks.map(|block| &block["index"]).collect();
    assert_eq!(indices, [0, 0, 1, 2]);
}
