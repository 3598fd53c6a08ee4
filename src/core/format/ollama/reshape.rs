//! A whole response of Ollama's as a stream of it, and the other way round.

use serde_json::{Map, Value};

use crate::core::{
    codec::value,
    error::Error,
    format::{chat::response::unreadable, pipeline::cut_short, reshape, response::Join},
};

/// Writes a response as a stream: a line that is the last.
pub fn write(mut body: Value, out: &mut Vec<u8>) -> Result<(), Error> {
    let Some(members) = body.as_object_mut().filter(|body| body.contains_key("message")) else {
        return Err(unreadable("no `message`"));
    };
    members.entry("done").or_insert(true.into());
    out.extend(value::to_bytes(&body));
    out.push(b'\n');
    Ok(())
}

/// Puts lines together.
#[derive(Debug, Default)]
pub struct Joined {
    head: Map<String, Value>,
    message: Map<String, Value>,
    ended: bool,
}

impl Join for Joined {
    fn event(&mut self, event: Value) -> Result<(), Error> {
        let Value::Object(mut event) = event else { return Ok(()) };
        if let Some(Value::Object(message)) = event.shift_remove("message") {
            reshape::add(&mut self.message, message);
        }
        self.ended |= event.get("done").and_then(Value::as_bool) == Some(true);
        self.head.extend(event);
        Ok(())
    }

    fn finish(mut self: Box<Self>, _done: bool) -> Result<Value, Error> {
        if !self.ended {
            return Err(cut_short());
        }
        self.head.insert("message".into(), self.message.into());
        Ok(self.head.into())
    }
}
