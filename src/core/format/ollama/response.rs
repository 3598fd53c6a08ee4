//! Ollama's whole responses, read as chat, and what they have in common with its streams.

use serde_json::{Map, Value};

use super::Requested;
use crate::core::{
    codec::value::{self, object},
    error::Error,
    format::{
        chat::{response as chat, thought},
        failure::reported_in,
        response::ResponseIds,
    },
};

/// Makes the `chat.completion` of a response.
pub fn read(body: &Value, requested: &Requested, ids: &ResponseIds) -> Result<Value, Error> {
    if let Some(error) = reported_in(body) {
        return Err(error);
    }
    let message = body.get("message").and_then(Value::as_object);
    let message = message.ok_or_else(|| chat::unreadable("no `message`"))?;
    let calls = tool_calls(message, &ids.id, 0);
    let reason = finish_reason(body, !calls.is_empty());
    let content = text(message, "content");
    let mut made = Map::new();
    // What only calls has no words.
    made.insert(
        "content".into(),
        if content.is_empty() && !calls.is_empty() { Value::Null } else { content.into() },
    );
    made.insert("role".into(), "assistant".into());
    made.insert("tool_calls".into(), if calls.is_empty() { Value::Null } else { calls.into() });
    made.insert("function_call".into(), Value::Null);
    if !text(message, "thinking").is_empty() {
        made.insert("reasoning_content".into(), text(message, "thinking").into());
    }
    thought::split_in(&mut made);
    let mut chat = object! {
        "id": ids.id.as_str(),
        "created": ids.created,
        "model": requested.model.as_str(),
        "object": "chat.completion",
        "system_fingerprint": Value::Null,
        "choices": [object! {"finish_reason": reason, "index": 0, "message": made}],
    };
    chat::set_usage(&mut chat, usage(body, requested));
    Ok(chat)
}

/// The calls in a message; so many came before.
pub(super) fn tool_calls(message: &Map<String, Value>, id: &str, before: usize) -> Vec<Value> {
    let calls = message.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
    let functions = calls.filter_map(|call| Some((call, call.get("function")?.as_object()?)));
    let made = functions.enumerate().map(|(at, (call, function))| {
        let at = before + at;
        let id = match call.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            Some(id) => id.to_owned(),
            None => format!("call_{}_{at}", id.trim_start_matches("chatcmpl-")),
        };
        let arguments = match function.get("arguments") {
            None | Some(Value::Null) => "{}".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(arguments) => value::to_text(arguments),
        };
        let function = object! {"name": text(function, "name"), "arguments": arguments};
        object! {"index": at, "id": id, "type": "function", "function": function}
    });
    made.collect()
}

/// Why it ended, in chat's words.
pub(super) fn finish_reason(body: &Value, has_calls: bool) -> &'static str {
    match body.get("done_reason").and_then(Value::as_str) {
        Some("length") => "length",
        _ if has_calls => "tool_calls",
        _ => "stop",
    }
}

/// The counts of the last object.
pub(super) fn usage(body: &Value, requested: &Requested) -> Option<Value> {
    let count = |name: &str| body.get(name).and_then(Value::as_u64);
    let completion = count("eval_count")?;
    let prompt = count("prompt_eval_count").unwrap_or(requested.prompt_tokens);
    Some(object! {
        "completion_tokens": completion,
        "prompt_tokens": prompt,
        "total_tokens": completion.saturating_add(prompt),
    })
}

/// A string member, empty when it is absent or no string.
pub(super) fn text<'a>(message: &'a Map<String, Value>, name: &str) -> &'a str {
    message.get(name).and_then(Value::as_str).unwrap_or_default()
}
