//! Message streams: those that pass, and those that are translated.

mod blocks;
mod read;
mod write;

pub use self::{read::Reader, write::Writer};

use serde_json::Value;

use super::super::response::{Observed, Passing, Told};
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
    }
    observed.finished |=
        MESSAGE_STOP.is_in(event.data) && event.name.is_none_or(|name| name == b"message_stop");
    out.extend_from_slice(event.raw);
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
