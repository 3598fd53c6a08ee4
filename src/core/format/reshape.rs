//! A provider that streams where nobody asked for a stream, or answers whole where one was asked for: the one is made of the other,
//! in the provider's own format, and then read like what was asked for.

use serde_json::{Map, Value};

use super::{
    Ref, failure,
    pipeline::{MAX_EVENT_BYTES, not_json, too_long},
};
use crate::core::{
    codec::{
        framing::{Decoder, Framing, Shape},
        sse, value,
    },
    error::Error,
    model::failure::Class,
};

/// Whether a body that should be whole is a stream; `said` is what its media type says.
pub fn is_stream(format: Ref, body: &[u8], said: bool) -> bool {
    match format.framing().shape(body, true) {
        // One line is a value too.
        Some(Shape::Stream) if format.framing() == Framing::JsonLines => {
            said || memchr::memchr_iter(b'\n', body.trim_ascii()).next().is_some()
        }
        Some(Shape::Stream) => true,
        Some(Shape::Other) | None => said,
        Some(Shape::Whole | Shape::Packed) => false,
    }
}

/// A buffered response as the stream that was asked for.
pub fn as_stream(format: Ref, body: &[u8]) -> Result<Vec<u8>, Error> {
    let body = match value::read_exact(body.strip_prefix(sse::BOM).unwrap_or(body)) {
        Ok(body) => body,
        // Many lines, of which the first was too long to be waited for.
        Err(_) if format.framing() == Framing::JsonLines => return Ok(body.to_vec()),
        Err(error) => return Err(not_json(&error.to_string())),
    };
    if let Some(error) = failure::verdict(format, &body) {
        return Err(error);
    }
    let mut out = Vec::new();
    format.write_stream(body, &mut out)?;
    Ok(out)
}

/// A stream as the buffered response that was asked for.
pub fn as_whole(format: Ref, body: &[u8]) -> Result<Vec<u8>, Error> {
    let mut joined = format
        .joiner()
        .ok_or_else(|| Error::provider(Class::Api, "the provider sent a stream where none was asked for"))?;
    let mut decoder = Decoder::new(format.framing(), MAX_EVENT_BYTES);
    decoder.push(body);
    while let Some(event) = decoder.finish() {
        let event = event.map_err(|_| too_long(format.framing()))?;
        if event.data.is_empty() {
            continue;
        }
        if event.is_done() {
            return joined.finish(true).map(|whole| value::to_bytes(&whole));
        }
        let event = value::read_exact(&event.data).map_err(|e| not_json(&e.to_string()))?;
        match format.read_error(&event) {
            Some(error) => return Err(error),
            None => joined.event(event)?,
        }
    }
    joined.finish(false).map(|whole| value::to_bytes(&whole))
}

/// Members that every piece may repeat: the first that says something counts.
const SAID_ONCE: [&str; 6] = ["id", "index", "name", "object", "role", "type"];

/// Adds a piece to what has come of something: texts are continued, entries of lists are told apart by their `index`.
pub fn add(whole: &mut Map<String, Value>, piece: Map<String, Value>) {
    for (name, piece) in piece {
        match whole.get_mut(&name) {
            None => _ = whole.insert(name, piece),
            Some(known) if SAID_ONCE.contains(&name.as_str()) => {
                if known.is_null() || known.as_str() == Some("") {
                    *known = piece;
                }
            }
            Some(known) => add_value(known, piece),
        }
    }
}

fn add_value(whole: &mut Value, piece: Value) {
    match (whole, piece) {
        (_, Value::Null) => {}
        (Value::String(text), Value::String(piece)) if value::digits(&Value::from(&*piece)).is_none() => {
            text.push_str(&piece);
        }
        (Value::Object(whole), Value::Object(piece)) => add(whole, piece),
        (Value::Array(entries), Value::Array(pieces)) => {
            pieces.into_iter().for_each(|piece| add_entry(entries, piece));
        }
        (whole, piece) => *whole = piece,
    }
}

/// Entries without an index follow each other. What is continued is among the last.
fn add_entry(entries: &mut Vec<Value>, piece: Value) {
    let index = |entry: &Value| entry.get("index").and_then(Value::as_u64);
    let at = index(&piece);
    let known = entries.iter_mut().rev().take(MOST_OPEN).find(|entry| at.is_some() && index(entry) == at);
    match (known, piece) {
        (Some(Value::Object(whole)), Value::Object(piece)) => add(whole, piece),
        (_, piece) => entries.push(piece),
    }
}

/// How many parts of one response may come in turn.
pub const MOST_OPEN: usize = 256;

#[cfg(test)]
mod tests;
