//! Message streams: those that pass, and those that are translated.

mod blocks;
mod read;
mod write;

pub use self::{read::Reader, write::Writer};

use serde_json::Value;

use super::{
    super::response::{Observed, Passing, Told},
    text,
};
use crate::core::{
    codec::{needle::Needle, value},
    model::usage::Usage,
};

static MESSAGE_STOP: Needle = Needle::new("\"message_stop\"");

/// Passes an event as it came.
pub(super) fn pass(event: &Passing<'_>, observed: &mut Observed, out: &mut Vec<u8>) {
    if event.told != Told::Nothing
        && let Ok(value) = value::read(event.data)
    {
        note_terms(&value, observed);
        if let Some(message) = value.get("message") {
            observed.model = message.get("model").and_then(Value::as_str).map(str::to_owned);
            observed.note_id(message.get("id").and_then(Value::as_str).map(str::to_owned));
        }
        note_usage(&value, observed);
        // All that may be missing then is the last event, which says nothing.
        observed.ended |= value.get("delta").is_some_and(|delta| !text(delta, "stop_reason").is_empty());
    }
    observed.finished |=
        MESSAGE_STOP.is_in(event.data) && event.name.is_none_or(|name| name == b"message_stop");
    out.extend_from_slice(event.raw);
}

/// Whether an event shows something of the answer.
pub(super) fn shows(event: &Value) -> bool {
    let at = |name: &str| event.get(name).unwrap_or(&Value::Null);
    let says = |value: &Value, names: &[&str]| names.iter().any(|name| !text(value, name).is_empty());
    match text(event, "type") {
        "" | "ping" | "content_block_stop" => false,
        "message_start" => {
            at("message").get("content").and_then(Value::as_array).is_some_and(|blocks| !blocks.is_empty())
        }
        "content_block_start" => match text(at("content_block"), "type") {
            "text" | "thinking" => says(at("content_block"), &["text", "thinking", "signature"]),
            _ => true,
        },
        "content_block_delta" => match text(at("delta"), "type") {
            "text_delta" | "input_json_delta" | "thinking_delta" | "signature_delta" => {
                says(at("delta"), &["text", "partial_json", "thinking", "signature"])
            }
            _ => true,
        },
        "message_delta" => says(at("delta"), &["stop_reason"]),
        _ => true,
    }
}

/// What a response, or an event of one, says of its terms.
pub(super) fn note_terms(response: &Value, observed: &mut Observed) {
    let message = response.get("message").unwrap_or(response);
    message.get("usage").into_iter().for_each(|usage| observed.terms.served_by_anthropic(usage));
}

/// Usage out of `message_start` and `message_delta`.
pub(super) fn note_usage(event: &Value, observed: &mut Observed) {
    if let Some(message) = event.get("message") {
        observed.usage = message.get("usage").and_then(Usage::begun_by_anthropic);
    } else if let Some(delta) = event.get("usage") {
        match &mut observed.usage {
            Some(usage) => usage.merge_anthropic_delta(delta),
            None => observed.usage = Usage::from_anthropic(delta),
        }
    }
}

/// An event's name and its data; the name is also the data's `type`.
pub(super) type Event = (&'static str, Value);
