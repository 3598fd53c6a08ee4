//! Whole text generation inference responses, read as chat.

use serde_json::Value;

use super::{Requested, strip_tokens::StripTokens};
use crate::core::{
    codec::value::object,
    error::Error,
    format::{chat::response as chat, response::ResponseIds},
};

/// Makes the `chat.completion` of `[{"generated_text", "details"}]`, or of such an object alone.
pub fn read(body: &Value, requested: &Requested, ids: &ResponseIds) -> Result<Value, Error> {
    let body = body.as_array().and_then(|list| list.first()).unwrap_or(body);
    if let Some(error) = chat::failure_in(body) {
        return Err(error);
    }
    let text = body.get("generated_text").and_then(Value::as_str);
    let text = text.ok_or_else(|| chat::unreadable("no `generated_text`"))?;
    let details = body.get("details");
    let reason = finish_reason(details);
    let mut strip = StripTokens::new(&requested.strip_tokens);
    let mut content = strip.push(text);
    content.push_str(&strip.finish(reason == "length"));
    let mut chat = object! {
        "id": ids.id.as_str(),
        "created": ids.created,
        "model": ids.model.as_str(),
        "object": "chat.completion",
        "system_fingerprint": Value::Null,
        "choices": [chat::text_choice(0, &content, reason)],
    };
    chat::set_usage(&mut chat, usage(details, requested.prompt_tokens));
    Ok(chat)
}

/// Why it ended, in chat's words.
pub(super) fn finish_reason(details: Option<&Value>) -> &'static str {
    match details.and_then(|details| details.get("finish_reason")).and_then(Value::as_str) {
        Some("length") => "length",
        _ => "stop",
    }
}

/// The usage as far as the server counts: the response in `generated_tokens`, the prompt in `input_length` or as the list
/// `prefill`; `prompt_tokens` stands in when the prompt was not counted.
pub(super) fn usage(details: Option<&Value>, prompt_tokens: u64) -> Option<Value> {
    let details = details?;
    let completion = details.get("generated_tokens").and_then(Value::as_u64)?;
    let prefill = details.get("prefill").and_then(Value::as_array).map_or(0, Vec::len) as u64;
    let counted = details.get("input_length").and_then(Value::as_u64).unwrap_or(prefill);
    let prompt = if counted > 0 { counted } else { prompt_tokens };
    Some(object! {
        "completion_tokens": completion,
        "prompt_tokens": prompt,
        "total_tokens": completion.saturating_add(prompt),
    })
}
