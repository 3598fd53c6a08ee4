//! Whole messages: read as chat completions, and written from them.

use serde_json::{Map, Value};

use super::{Requested, UNSIGNED, error, made_up_id, names, request::JSON_TOOL, text, usage::Usage};
use crate::core::{
    codec::value::{self, object},
    error::Error,
    format::{chat::response as chat, params, response::ResponseIds},
    model::failure::Class,
};

/// Makes the `chat.completion` of a message.
///
/// The model is the one the provider names. Blocks that chat has no place for (the provider's own tools at work) are left
/// out; what they cost stays in `usage`.
pub fn read(body: &Value, requested: &Requested, ids: &ResponseIds) -> Result<Value, Error> {
    if body.get("type").and_then(Value::as_str) == Some("error") {
        return Err(error::reported(body));
    }
    let Some(blocks) = body.get("content").and_then(Value::as_array) else {
        return Err(Error::provider(
            Class::Api,
            "litellm.APIError: AnthropicException - the answer has no `content` list",
        )
        .whole());
    };
    let mut parts = Parts::default();
    for block in blocks {
        parts.add(block, requested);
    }
    let finish = finish_reason(text(body, "stop_reason"), parts.calls.len(), parts.json.is_some());
    let mut usage = Usage::default();
    usage.update(body.get("usage"));
    let mut usage = usage.to_chat();
    if let Some(Value::Object(details)) = usage.get_mut("prompt_tokens_details") {
        details.insert("audio_tokens".into(), Value::Null);
    }
    Ok(object! {
        "id": ids.id.as_str(),
        "created": ids.created,
        "model": body.get("model").and_then(Value::as_str).unwrap_or(&ids.model),
        "object": "chat.completion",
        "system_fingerprint": Value::Null,
        "choices": [object! {"finish_reason": finish, "index": 0, "message": parts.into_message(requested)}],
        "usage": usage,
    })
}

/// What the blocks of a message hold, by where chat keeps it.
#[derive(Debug, Default)]
struct Parts {
    text: String,
    /// Input of the forced tool: it is the content.
    json: Option<String>,
    calls: Vec<Value>,
    reasoning: Option<String>,
    thinking: Vec<Value>,
    citations: Vec<Value>,
}

impl Parts {
    fn add(&mut self, block: &Value, requested: &Requested) {
        match text(block, "type") {
            "text" => {
                self.text.push_str(text(block, "text"));
                if let Some(citations) = block.get("citations").filter(|citations| !citations.is_null()) {
                    self.citations.push(citations.clone());
                }
            }
            "tool_use" => {
                let input = match block.get("input") {
                    None | Some(Value::Null) => "{}".to_owned(),
                    Some(input) => value::to_text(input),
                };
                if requested.json_tool && text(block, "name") == JSON_TOOL {
                    self.json.get_or_insert(input);
                } else {
                    self.calls.push(object! {
                        "index": self.calls.len(),
                        "function": object! {"arguments": input, "name": text(block, "name")},
                        "id": text(block, "id"),
                        "type": "function",
                    });
                }
            }
            "thinking" => {
                self.reasoning.get_or_insert_default().push_str(text(block, "thinking"));
                self.thinking.push(block.clone());
            }
            "redacted_thinking" => self.thinking.push(block.clone()),
            _ => {}
        }
    }

    fn into_message(self, requested: &Requested) -> Value {
        let content = match (self.json, &requested.prefix) {
            (Some(json), _) => json,
            (None, Some(prefix)) => format!("{prefix}{}", self.text),
            (None, None) => self.text,
        };
        let mut message = Map::new();
        message.insert("content".into(), if content.is_empty() { Value::Null } else { content.into() });
        message.insert("role".into(), "assistant".into());
        let calls = if self.calls.is_empty() { Value::Null } else { Value::Array(self.calls) };
        message.insert("tool_calls".into(), calls);
        message.insert("function_call".into(), Value::Null);
        if let Some(reasoning) = self.reasoning {
            message.insert("reasoning_content".into(), reasoning.into());
        }
        if !self.thinking.is_empty() {
            message.insert("thinking_blocks".into(), Value::Array(self.thinking));
        }
        if !self.citations.is_empty() {
            message.insert("provider_specific_fields".into(), object! {"citations": self.citations});
        }
        Value::Object(message)
    }
}

/// Chat's `finish_reason`. What the model asked to be called decides over the provider's word where they differ: clients
/// wait for calls only when they read `tool_calls`, and JSON made by the forced tool is an ordinary end to them.
pub(super) fn finish_reason(stop_reason: &str, calls: usize, has_json: bool) -> &'static str {
    match stop_reason {
        "max_tokens" | "model_context_window_exceeded" => "length",
        "refusal" => "content_filter",
        _ if calls > 0 => "tool_calls",
        "tool_use" if !has_json => "tool_calls",
        _ => "stop",
    }
}

/// Makes the Anthropic message of a `chat.completion`. A message has one response: the first choice.
pub fn write(chat: &Value, ids: &ResponseIds) -> Result<Value, Error> {
    let choices = chat::choices_of(chat)?;
    let choice = choices.first().ok_or_else(|| chat::unreadable("no `choices`"))?;
    let empty = Map::new();
    let message = choice.get("message").and_then(Value::as_object).unwrap_or(&empty);
    let ids = message_ids(&chat::ids_of(chat, ids));
    let content = content(message, &ids);
    let has = |kind: &str| content.iter().any(|block| block.get("type").is_some_and(|it| it == kind));
    let reason = stop_reason(
        choice.get("finish_reason").and_then(Value::as_str),
        has("tool_use"),
        !refusal(message).is_empty(),
    );
    let usage = usage(chat.get("usage")).unwrap_or_else(|| object! {"input_tokens": 0, "output_tokens": 0});
    Ok(object! {
        "id": ids.id,
        "type": "message",
        "role": "assistant",
        "model": ids.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": Value::Null,
        "usage": usage,
    })
}

fn content(message: &Map<String, Value>, ids: &ResponseIds) -> Vec<Value> {
    let mut content = Vec::new();
    match message.get("thinking_blocks").and_then(Value::as_array).filter(|blocks| !blocks.is_empty()) {
        Some(blocks) => content.extend(blocks.iter().filter_map(thinking_block)),
        None if !reasoning(message).is_empty() => {
            content.push(object! {"type": "thinking", "thinking": reasoning(message), "signature": UNSIGNED});
        }
        None => {}
    }
    for text in [chat::text_of(message.get("content")).as_str(), refusal(message)] {
        if !text.is_empty() {
            content.push(object! {"type": "text", "text": text});
        }
    }
    let calls = message.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
    content.extend(calls.enumerate().filter_map(|(at, call)| tool_use(call, at, ids)));
    // The form that OpenAI had before there were several calls.
    let call = message.get("function_call").filter(|call| call.is_object());
    content.extend(call.and_then(|call| tool_use(&object! {"function": call.clone()}, content.len(), ids)));
    content
}

fn thinking_block(block: &Value) -> Option<Value> {
    match block.get("type").and_then(Value::as_str)? {
        "thinking" => {
            let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default();
            let signature = Some(text("signature")).filter(|signature| !signature.is_empty());
            let signature = signature.unwrap_or(UNSIGNED);
            Some(object! {"type": "thinking", "thinking": text("thinking"), "signature": signature})
        }
        "redacted_thinking" => Some(block.clone()),
        _ => None,
    }
}

fn tool_use(call: &Value, at: usize, ids: &ResponseIds) -> Option<Value> {
    let function = call.get("function")?;
    let name = function.get("name").and_then(Value::as_str)?;
    let id = match call.get("id").and_then(Value::as_str) {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => made_up_id(&ids.id, at),
    };
    let id = names::with_thought(&id, call).unwrap_or(id);
    let input = params::arguments_object(function.get("arguments").cloned().unwrap_or_default());
    Some(object! {"type": "tool_use", "id": id, "name": name, "input": input})
}

/// The names of a message: Anthropic's ids begin with `msg_`.
pub(super) fn message_ids(ids: &ResponseIds) -> ResponseIds {
    let id = match ids.id.strip_prefix("chatcmpl-") {
        _ if ids.id.starts_with("msg_") => ids.id.clone(),
        Some(rest) => format!("msg_{rest}"),
        None => format!("msg_{}", ids.id),
    };
    ResponseIds { id, ..ids.clone() }
}

pub(super) fn reasoning(message: &Map<String, Value>) -> &str {
    let text = |name: &str| message.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    text("reasoning_content").or(text("reasoning")).unwrap_or_default()
}

pub(super) fn refusal(message: &Map<String, Value>) -> &str {
    message.get("refusal").and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn stop_reason(finish: Option<&str>, has_tool: bool, refused: bool) -> &'static str {
    match finish {
        Some("length") => "max_tokens",
        Some("content_filter") => "refusal",
        _ if refused => "refusal",
        // Some servers end a response that calls tools with `stop`.
        _ if has_tool => "tool_use",
        _ => "end_turn",
    }
}

/// Anthropic's counts: `input_tokens` are those not read from or written to the cache, OpenAI's `prompt_tokens` are all.
pub(super) fn usage(usage: Option<&Value>) -> Option<Value> {
    let usage = usage?.as_object()?;
    let count = |value: Option<&Value>| value.and_then(value::as_count).filter(|count| *count > 0);
    let details = usage.get("prompt_tokens_details").and_then(|details| details.get("cached_tokens"));
    let read = count(details)
        .or(count(usage.get("cache_read_input_tokens")))
        .or(count(usage.get("prompt_cache_hit_tokens")))
        .unwrap_or(0);
    let written = count(usage.get("cache_creation_input_tokens")).unwrap_or(0);
    let prompt = count(usage.get("prompt_tokens")).unwrap_or(0);
    let mut counts = Map::new();
    counts.insert("input_tokens".into(), prompt.saturating_sub(read).saturating_sub(written).into());
    counts.insert("output_tokens".into(), count(usage.get("completion_tokens")).unwrap_or(0).into());
    if read > 0 {
        counts.insert("cache_read_input_tokens".into(), read.into());
    }
    if written > 0 {
        counts.insert("cache_creation_input_tokens".into(), written.into());
    }
    Some(Value::Object(counts))
}
