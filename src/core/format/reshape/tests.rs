//! Whole responses as streams and streams as whole responses, of every format that has both.

use serde_json::{Value, json};

use super::*;
use crate::core::format::{FORMATS, golden, named};

/// Where goldens have whole responses of a format.
const WHOLE: [(&str, &str); 6] = [
    ("messages", "messages/response/read"),
    ("completions", "completions/response/read"),
    ("ollama", "ollama/response/read"),
    ("generate", "generate/response/read"),
    ("chat", "messages/response/write"),
    ("chat", "completions/response/write"),
];

/// Where goldens have streams of a format.
const STREAMS: [(&str, &str); 5] = [
    ("messages", "messages/stream/read"),
    ("completions", "completions/stream/read"),
    ("ollama", "ollama/stream/read"),
    ("generate", "generate/stream/read"),
    ("chat", "messages/stream/write"),
];

fn format(name: &str) -> Ref {
    named(name).unwrap()
}

/// A stream as a provider sends it.
fn sent(format: Ref, events: &[Value]) -> Vec<u8> {
    let mut out = String::new();
    for event in events {
        match (format.framing(), event["type"].as_str()) {
            (Framing::JsonLines, _) => out.push_str(&format!("{event}\n")),
            (Framing::Sse, Some(name)) => out.push_str(&format!("event: {name}\ndata: {event}\n\n")),
            (Framing::Sse, None) => out.push_str(&format!("data: {event}\n\n")),
        }
    }
    out.into_bytes()
}

/// A response as far as both forms have it: what is only said of nothing is left out.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let told =
                members.iter().filter(|(_, value)| ![json!(null), json!([]), json!("")].contains(value));
            told.map(|(name, value)| (name.clone(), plain(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(entries) => entries.iter().map(plain).collect::<Vec<_>>().into(),
        value => value.clone(),
    }
}

#[test]
fn a_whole_response_told_as_a_stream_is_put_together_as_it_was() {
    let mut told = 0;
    for (name, folder) in WHOLE {
        golden::each(folder, |case| {
            let mut whole = case["answer"].clone();
            let Ok(stream) = as_stream(format(name), whole.to_string().as_bytes()) else { return };
            told += 1;
            assert!(is_stream(format(name), &stream, false) || name == "ollama", "{name} {whole}");
            let joined = as_whole(format(name), &stream).unwrap_or_else(|e| panic!("{name} {whole}: {e:?}"));
            let mut joined: Value = serde_json::from_slice(&joined).unwrap();
            match name {
                // These servers answer with a list of one, and the gateway reads both.
                "generate" => {
                    whole = whole.get(0).unwrap_or(&whole).clone();
                    whole
                        .as_object_mut()
                        .unwrap()
                        .retain(|name, _| name == "generated_text" || name == "details");
                }
                "ollama" => whole["done"] = json!(true),
                "chat" | "completions" => {
                    joined.as_object_mut().unwrap().remove("object");
                    whole.as_object_mut().unwrap().remove("object");
                    for (at, choice) in whole["choices"].as_array_mut().unwrap().iter_mut().enumerate() {
                        let choice = choice.as_object_mut().unwrap();
                        choice.entry("index").or_insert(json!(at));
                        let reason = choice.entry("finish_reason").or_insert(Value::Null);
                        if !reason.is_string() {
                            *reason = json!("stop");
                        }
                        if let Some(message) = choice.get_mut("message").and_then(Value::as_object_mut) {
                            message.entry("role").or_insert(json!("assistant"));
                            let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
                            for call in calls.into_iter().flatten() {
                                call.as_object_mut().unwrap().remove("index");
                            }
                        }
                    }
                }
                _ => {}
            }
            assert_eq!(plain(&joined), plain(&whole), "{name}");
        });
    }
    assert!(told >= 20, "{told}");
}

#[test]
fn a_stream_put_together_is_told_as_the_same_stream_again() {
    let (mut whole, mut not) = (0, 0);
    for (name, folder) in STREAMS {
        golden::each(folder, |case| {
            let events = case.get("chunks").or(case.get("events")).and_then(Value::as_array).unwrap();
            let once = match as_whole(format(name), &sent(format(name), events)) {
                Ok(once) => once,
                Err(_) => return not += 1,
            };
            whole += 1;
            let again = as_stream(format(name), &once).unwrap_or_else(|e| panic!("{name} {events:?}: {e:?}"));
            let again = as_whole(format(name), &again).unwrap();
            let read = |bytes: &[u8]| plain(&serde_json::from_slice(bytes).unwrap());
            assert_eq!(read(&again), read(&once), "{name}");
        });
    }
    assert!(whole >= 25 && not >= 5, "{whole} {not}");
}

#[test]
fn odd_values_are_put_together_or_refused() {
    let odd =
        [json!(null), json!(-1), json!(u64::MAX), json!("x"), json!([]), json!({}), json!(true), json!([[]])];
    for (name, folder) in STREAMS {
        golden::each(folder, |case| {
            let events = case.get("chunks").or(case.get("events")).unwrap();
            golden::mutants(events, &odd, &mut |mutant| {
                if let Some(events) = mutant.as_array() {
                    _ = as_whole(format(name), &sent(format(name), events));
                }
            });
        });
    }
    for (name, folder) in WHOLE {
        golden::each(folder, |case| {
            golden::mutants(&case["answer"], &odd, &mut |mutant| {
                _ = as_stream(format(name), mutant.to_string().as_bytes());
            });
        });
    }
}

/// What a stream says, event by event.
fn told(format: Ref, stream: &[u8]) -> Vec<Value> {
    let mut decoder = Decoder::new(format.framing(), MAX_EVENT_BYTES);
    decoder.push(stream);
    let mut events = Vec::new();
    while let Some(Ok(event)) = decoder.finish() {
        events.push(serde_json::from_slice(&event.data).unwrap_or_else(|_| json!("[DONE]")));
    }
    events
}

#[test]
fn a_chat_completion_becomes_chunks() {
    let whole = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "service_tier": "default",
        "choices": [{"index": 0, "finish_reason": "tool_calls", "logprobs": null,
            "message": {"role": "assistant", "content": null, "refusal": null, "reasoning_content": "t", "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{\"n\":1.10}"}}]}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}});
    let chunk = |choices: Value| {
        json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "service_tier": "default", "choices": choices})
    };
    let piece =
        |delta: Value, reason: Value| chunk(json!([{"index": 0, "delta": delta, "finish_reason": reason}]));
    let mut first =
        piece(json!({"role": "assistant", "content": null, "reasoning_content": "t"}), Value::Null);
    first["choices"][0]["logprobs"] = Value::Null;
    let call = |index: usize| {
        let mut call = whole["choices"][0]["message"]["tool_calls"][index].clone();
        call["index"] = json!(index);
        piece(json!({"tool_calls": [call]}), Value::Null)
    };
    let mut last = chunk(json!([]));
    last["usage"] = whole["usage"].clone();
    let stream = as_stream(format("chat"), whole.to_string().as_bytes()).unwrap();
    assert_eq!(
        told(format("chat"), &stream),
        [first, call(0), call(1), piece(json!({}), json!("tool_calls")), last, json!("[DONE]")]
    );
}

#[test]
fn a_message_becomes_its_events() {
    let whole = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "tool_use",
        "stop_sequence": null, "usage": {"input_tokens": 5, "output_tokens": 7}, "content": [
            {"type": "thinking", "thinking": "t", "signature": "s"},
            {"type": "text", "text": "hi", "citations": null},
            {"type": "tool_use", "id": "u", "name": "f", "input": {"a": 1}},
            {"type": "redacted_thinking", "data": "x"}]});
    let stream = as_stream(format("messages"), whole.to_string().as_bytes()).unwrap();
    let mut head = whole.clone();
    head["content"] = json!([]);
    head["stop_reason"] = Value::Null;
    head["usage"]["output_tokens"] = json!(0);
    let start = |index: usize, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
    let delta =
        |index: usize, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let stop = |index: usize| json!({"type": "content_block_stop", "index": index});
    assert_eq!(
        told(format("messages"), &stream),
        [
            json!({"type": "message_start", "message": head}),
            start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(0, json!({"type": "thinking_delta", "thinking": "t"})),
            delta(0, json!({"type": "signature_delta", "signature": "s"})),
            stop(0),
            start(1, json!({"type": "text", "text": "", "citations": []})),
            delta(1, json!({"type": "text_delta", "text": "hi"})),
            stop(1),
            start(2, json!({"type": "tool_use", "id": "u", "name": "f", "input": {}})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "{\"a\":1}"})),
            stop(2),
            start(3, json!({"type": "redacted_thinking", "data": "x"})),
            stop(3),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null},
                   "usage": {"input_tokens": 5, "output_tokens": 7}}),
            json!({"type": "message_stop"}),
        ]
    );
}

#[test]
fn calls_are_put_together_however_they_are_numbered() {
    let call = |index: Value, id: &str, name: &str, arguments: &str| {
        let mut call = json!({"type": "function", "function": {"arguments": arguments}});
        if !index.is_null() {
            call["index"] = index;
        }
        if !id.is_empty() {
            call["id"] = json!(id);
        }
        if !name.is_empty() {
            call["function"]["name"] = json!(name);
        }
        call
    };
    let whole = json!([["a", "f", "{\"x\":1}"], ["b", "g", "{}"]]);
    for pieces in [
        // In turn, each with its index.
        vec![
            call(json!(0), "a", "f", ""),
            call(json!(1), "b", "g", "{"),
            call(json!(0), "", "", "{\"x\":1}"),
            call(json!(1), "", "", "}"),
        ],
        // The names again with every piece.
        vec![
            call(json!(0), "a", "f", "{\"x\""),
            call(json!(0), "a", "f", ":1}"),
            call(json!(1), "b", "g", "{}"),
        ],
        // All with the same index.
        vec![
            call(json!(0), "a", "f", "{\"x\""),
            call(json!(0), "a", "", ":1}"),
            call(json!(0), "b", "g", "{}"),
        ],
        // None with an index.
        vec![
            call(Value::Null, "a", "f", "{\"x\""),
            call(Value::Null, "", "", ":1}"),
            call(Value::Null, "b", "g", "{}"),
        ],
    ] {
        let mut events: Vec<Value> = pieces
            .iter()
            .map(|call| json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}))
            .collect();
        events.push(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}));
        let joined = as_whole(format("chat"), &sent(format("chat"), &events)).unwrap();
        let joined: Value = serde_json::from_slice(&joined).unwrap();
        let message = &joined["choices"][0]["message"];
        let calls: Vec<Value> = message["tool_calls"]
            .as_array()
            .unwrap()
            .iter()
            .map(|call| json!([call["id"], call["function"]["name"], call["function"]["arguments"]]))
            .collect();
        assert_eq!(json!(calls), whole, "{pieces:?}");
        assert_eq!(message["content"], Value::Null);
        assert_eq!(joined["choices"][0]["finish_reason"], "tool_calls");
    }
}

#[test]
fn what_is_cut_short_or_fails_is_no_response() {
    for (name, body, words) in [
        ("chat", "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n", "ended before"),
        ("chat", "", "ended before"),
        ("chat", ": waiting\n\ndata: [DONE]\n\n", "no `choices`"),
        (
            "chat",
            "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\ndata: {\"error\":{\"message\":\"boom\"}}\n\n",
            "boom",
        ),
        ("chat", "data: {\"choices\":\n\n", "not valid JSON"),
        ("completions", "data: {\"choices\":[{\"text\":\"hi\"}]}\n\n", "ended before"),
        ("completions", "data: {\"error\":\"boom\"}\n\n", "boom"),
        (
            "messages",
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{}}\n\n",
            "ended before",
        ),
        (
            "messages",
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n",
            "Overloaded",
        ),
        ("ollama", "{\"message\":{\"content\":\"hi\"},\"done\":false}\n", "ended before"),
        ("ollama", "{\"error\":\"boom\"}\n", "boom"),
        ("generate", "data: {\"token\":{\"text\":\"h\"}}\n\n", "ended before"),
        ("embeddings", "data: {}\n\n", "a stream where none was asked for"),
    ] {
        let error = as_whole(format(name), body.as_bytes()).unwrap_err();
        assert!(error.message.contains(words), "{name} {body}: {}", error.message);
        assert!(error.class().is_some(), "{name} {body}");
    }
    for (name, body, words) in [
        ("chat", "{\"error\":{\"message\":\"boom\"}}", "boom"),
        ("chat", "{\"choices\":[]}", "no `choices`"),
        ("chat", "{}", "no `choices`"),
        ("chat", "[]", "no `choices`"),
        ("completions", "{\"choices\":null}", "no `choices`"),
        ("messages", "{\"type\":\"error\",\"error\":{\"message\":\"boom\"}}", "boom"),
        ("messages", "{\"type\":\"message\"}", "no `content`"),
        ("ollama", "{\"error\":\"boom\"}", "boom"),
        ("ollama", "{}", "no `message`"),
        ("generate", "[{\"error\":\"boom\"}]", "boom"),
        ("generate", "[]", "no `generated_text`"),
        ("chat", "{", "not valid JSON"),
    ] {
        let error = as_stream(format(name), body.as_bytes()).unwrap_err();
        assert!(error.message.contains(words), "{name} {body}: {}", error.message);
        assert!(error.class().is_some(), "{name} {body}");
    }
}

#[test]
fn every_format_with_streams_has_both_ways() {
    let without: Vec<&str> =
        FORMATS.iter().filter(|format| format.joiner().is_none()).map(|format| format.name()).collect();
    assert_eq!(without, ["embeddings", "count_tokens"]);
}
