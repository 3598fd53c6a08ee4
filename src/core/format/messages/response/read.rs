//! An Anthropic Messages answer as a chat completion: buffered ([`answer`]).

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::super::{Asked, error, request::write::JSON_TOOL, text, usage::Usage};
use crate::core::{
    codec::value::{self, object},
    error::Error,
    format::response::ResponseIds,
    model::failure::Class,
};

/// Turns a whole answer into a `chat.completion`.
///
/// The model is the one the provider names. Blocks that chat has no place for (the provider's own tools at work) are left
/// out; what they cost stays in `usage`.
pub fn answer(body: &Value, asked: &Asked, stamp: &ResponseIds) -> Result<Value, Error> {
    if body.get("type").and_then(Value::as_str) == Some("error") {
        return Err(error::error(body));
    }
    let Some(blocks) = body.get("content").and_then(Value::as_array) else {
        return Err(Error::provider(
            Class::Api,
            "litellm.APIError: AnthropicException - the answer has no `content` list",
        ));
    };
    let mut parts = Parts::default();
    for block in blocks {
        parts.add(block, asked);
    }
    let finish = finish_reason(text(body, "stop_reason"), parts.calls.len(), parts.json.is_some());
    let mut usage = Usage::default();
    usage.update(body.get("usage"));
    let mut usage = usage.to_chat();
    if let Some(Value::Object(details)) = usage.get_mut("prompt_tokens_details") {
        details.insert("audio_tokens".into(), Value::Null);
    }
    Ok(object! {
        "id": stamp.id.as_str(),
        "created": stamp.created,
        "model": body.get("model").and_then(Value::as_str).unwrap_or(&stamp.model),
        "object": "chat.completion",
        "system_fingerprint": Value::Null,
        "choices": [object! {"finish_reason": finish, "index": 0, "message": parts.into_message(asked)}],
        "usage": usage,
    })
}

/// What the blocks of an answer hold, by where chat keeps it.
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
    fn add(&mut self, block: &Value, asked: &Asked) {
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
                if asked.json_tool && text(block, "name") == JSON_TOOL {
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

    fn into_message(self, asked: &Asked) -> Value {
        let content = match (self.json, &asked.prefix) {
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
pub(in crate::core::format::messages) fn finish_reason(
    stop_reason: &str,
    calls: usize,
    has_json: bool,
) -> &'static str {
    match stop_reason {
        "max_tokens" | "model_context_window_exceeded" => "length",
        "refusal" => "content_filter",
        _ if calls > 0 => "tool_calls",
        "tool_use" if !has_json => "tool_calls",
        _ => "stop",
    }
}
