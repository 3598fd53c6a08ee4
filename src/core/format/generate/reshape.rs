//! A whole response of text generation inference as a stream of it, and the other way round.

use serde_json::Value;

use crate::core::{
    codec::{
        sse,
        value::{self, object},
    },
    error::Error,
    format::{chat::response::unreadable, pipeline::cut_short, response::Join},
};

/// Writes a response as a stream: one event that has all.
pub fn write(mut body: Value, out: &mut Vec<u8>) -> Result<(), Error> {
    let first = body.as_array_mut().and_then(|list| list.first_mut()).map(Value::take);
    let body = first.unwrap_or(body);
    if body.get("generated_text").is_none_or(|text| !text.is_string()) {
        return Err(unreadable("no `generated_text`"));
    }
    sse::write(out, None, &value::to_bytes(&body));
    Ok(())
}

/// Puts tokens together.
#[derive(Debug, Default)]
pub struct Joined {
    text: String,
    details: Option<Value>,
    ended: bool,
}

impl Join for Joined {
    fn event(&mut self, mut event: Value) -> Result<(), Error> {
        if let Some(details) = event.get_mut("details").filter(|details| !details.is_null()) {
            self.details = Some(details.take());
            self.ended = true;
        }
        // The last event has the whole text.
        if let Some(text) = event.get("generated_text").and_then(Value::as_str) {
            self.text = text.to_owned();
            self.ended = true;
            return Ok(());
        }
        if let Some(token) = event.get("token").filter(|token| token.get("special") != Some(&true.into())) {
            self.text.push_str(token.get("text").and_then(Value::as_str).unwrap_or_default());
        }
        Ok(())
    }

    fn finish(self: Box<Self>, _done: bool) -> Result<Value, Error> {
        if !self.ended {
            return Err(cut_short());
        }
        Ok(object! {"generated_text": self.text, "details": self.details})
    }
}
