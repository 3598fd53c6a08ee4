//! Whole responses and streams that are written, against goldens; and what holds for every stream.

use serde_json::{Value, json};

use super::super::{
    Format, response,
    stream::{Event, Writer},
};
use crate::core::{
    error::Error,
    format::{
        Context, Format as _,
        golden::{self, responses as cases},
    },
};

fn events(chunks: &[Value]) -> (Vec<Event>, Result<(), Error>) {
    let mut writer = Writer::new(&cases::ids());
    let mut out = Vec::new();
    let result = chunks.iter().try_for_each(|chunk| writer.push(chunk, &mut out));
    if result.is_ok() {
        writer.close(&mut out);
    }
    (out, result)
}

#[test]
fn whole_responses() {
    cases::whole("messages/response/write", |body, _, ids| response::write(body, ids));
}

#[test]
fn whole_streams() {
    cases::streams("messages/stream/write", |chunks, _, _| {
        let (out, result) = events(chunks);
        assert!(out.iter().all(|(name, data)| data["type"] == *name));
        (out.into_iter().map(|(_, data)| data).collect(), result)
    });
}

/// Anthropic's order, for whatever comes in: start, blocks numbered from 0 and never two open, delta, stop.
#[test]
fn events_keep_anthropics_order() {
    let odd = [json!(null), json!(7), json!("x"), json!([]), json!({})];
    golden::each("messages/stream/write", |case| {
        golden::mutants(&case["chunks"], &odd, &mut |mutant| {
            let Some(chunks) = mutant.as_array() else { return };
            if let (out, Ok(())) = events(chunks) {
                check_order(&out);
            }
        });
    });
}

fn check_order(events: &[Event]) {
    let names: Vec<&str> = events.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.first(), Some(&"message_start"));
    assert_eq!(names[names.len() - 2..], ["message_delta", "message_stop"]);
    let (mut open, mut next) = (None, 0);
    for (name, data) in &events[1..events.len() - 2] {
        let index = data["index"].as_u64();
        match *name {
            "content_block_start" => {
                assert_eq!((open, index), (None, Some(next)));
                open = index;
                next += 1;
            }
            "content_block_delta" => assert!(index.is_some() && index == open),
            "content_block_stop" => {
                assert!(index.is_some() && index == open);
                open = None;
            }
            other => panic!("{other} among the blocks"),
        }
    }
    assert_eq!(open, None);
}

#[test]
fn usage_is_told_once_and_zero_when_none_came() {
    let chunk = |usage: Value| json!({"choices": [{"index": 0, "delta": {"content": "Hi"}}], "usage": usage});
    for (usage, wanted) in [
        (json!(null), json!({"input_tokens": 0, "output_tokens": 0})),
        (json!({"prompt_tokens": 5, "completion_tokens": 1}), json!({"input_tokens": 5, "output_tokens": 1})),
    ] {
        let mut writer = Writer::new(&cases::ids());
        let mut out = Vec::new();
        writer.push(&chunk(usage), &mut out).unwrap();
        writer.close(&mut out);
        writer.close(&mut out);
        let deltas: Vec<_> = out.iter().filter(|(name, _)| *name == "message_delta").collect();
        assert_eq!((deltas.len(), &deltas[0].1["usage"]), (1, &wanted));
    }
}

/// A buffered response and the same one streamed in pieces say the same.
#[test]
fn buffered_and_streamed_agree() {
    golden::each("messages/response/write", |case| {
        let Ok(message) = response::write(&case["answer"], &cases::ids()) else { return };
        let mut chunk = case["answer"].clone();
        let mut delta = chunk["choices"][0]["message"].take();
        for (at, call) in delta["tool_calls"].as_array_mut().into_iter().flatten().enumerate() {
            call["index"] = json!(at);
        }
        chunk["choices"][0]["delta"] = delta;
        let (out, result) = events(&[chunk]);
        result.unwrap();
        check_order(&out);
        let (_, end) = &out[out.len() - 2];
        assert_eq!(end["delta"]["stop_reason"], message["stop_reason"]);
        assert_eq!(end["usage"], message["usage"]);
        let started: Vec<_> = out.iter().filter(|(name, _)| *name == "content_block_start").collect();
        let kinds: Vec<_> = started.iter().map(|(_, data)| &data["content_block"]["type"]).collect();
        let wanted: Vec<_> = message["content"].as_array().unwrap().iter().map(|b| &b["type"]).collect();
        assert_eq!(kinds, wanted);
    });
}

fn chunk(delta: &Value) -> Value {
    json!({"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "delta": delta}]})
}

/// The `tool_use` blocks of a message, whole and as a stream tells them.
fn calls(message: &Value) -> [Vec<Value>; 2] {
    let chat = json!({"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "message": message}]});
    let whole = response::write(&chat, &cases::ids()).unwrap();
    let mut delta = message.clone();
    for (at, call) in delta["tool_calls"].as_array_mut().into_iter().flatten().enumerate() {
        call["index"] = json!(at);
    }
    let (events, result) = events(&[chunk(&delta)]);
    result.unwrap();
    let starts = events.iter().filter(|(name, _)| *name == "content_block_start");
    let is_call = |block: &&Value| block["type"] == "tool_use";
    let input =
        events.iter().filter_map(|(_, data)| data["delta"]["partial_json"].as_str()).collect::<String>();
    let streamed =
        starts.map(|(_, data)| &data["content_block"]).filter(is_call).cloned().map(|mut block| {
            block["input"] = serde_json::from_str(&input).unwrap();
            block
        });
    let whole = whole["content"].as_array().unwrap().iter().filter(is_call).cloned();
    [whole.collect(), streamed.collect()]
}

#[test]
fn the_signature_of_a_thought_is_kept_in_the_id_of_its_call() {
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"},
        "extra_content": {"google": {"thought_signature": "Ab+c/d=="}}});
    for calls in calls(&json!({"tool_calls": [call]})) {
        let block =
            json!({"type": "tool_use", "id": "call_1__thought__Ab-c_d", "name": "f", "input": {"a": 1}});
        assert_eq!(calls, [block]);
    }
}

#[test]
fn a_call_in_the_form_of_before_is_a_call() {
    for calls in calls(&json!({"content": null, "function_call": {"name": "f", "arguments": "{\"a\":1}"}})) {
        assert_eq!(calls.len(), 1);
        assert_eq!((&calls[0]["name"], &calls[0]["input"]), (&json!("f"), &json!({"a": 1})));
        assert!(calls[0]["id"].as_str().is_some_and(|id| !id.is_empty()));
    }
}

#[test]
fn counts_are_read_however_they_are_written() {
    let chat = json!({"id": "chatcmpl-1", "model": "m", "choices": [{"message": {"content": "a"}}],
        "usage": {"prompt_tokens": 5.0, "completion_tokens": "7"}});
    let usage = response::write(&chat, &cases::ids()).unwrap()["usage"].clone();
    assert_eq!(usage, json!({"input_tokens": 5, "output_tokens": 7}));
}

#[test]
fn a_client_gets_its_own_long_names_back() {
    let long = format!("mcp__plugin_{}__run", "x".repeat(60));
    let body =
        json!({"max_tokens": 1, "tools": [{"name": long}], "messages": [{"role": "user", "content": "Hi"}]});
    let (chat, writer) = Format.read_request(body.as_object().unwrap().clone(), &Context::default()).unwrap();
    let short = &chat["tools"][0]["function"]["name"];
    let call = json!({"index": 0, "id": "c", "function": {"name": short, "arguments": "{}"}});
    let mut writer = writer(&cases::ids());
    let whole = json!({"choices": [{"message": {"tool_calls": [call]}}]});
    assert_eq!(writer.whole(whole).unwrap()["content"][0]["name"], json!(long));
    let mut out = Vec::new();
    writer.chunk(&chunk(&json!({"tool_calls": [call]})), &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(out.contains(&long) && !out.contains(short.as_str().unwrap()), "{out}");
}
