//! Ollama's streams, read as chat chunks.

use serde_json::{Map, Value};

use super::{
    Requested,
    response::{self, finish_reason, text, tool_calls, usage},
};
use crate::core::{
    error::Error,
    format::{
        chat::response::Chunks,
        pipeline::cut_short,
        response::{Observed, ReadResponse, ResponseIds},
    },
};

/// Reads the response to one request.
#[derive(Debug)]
pub struct Reader {
    requested: Requested,
    chunks: Chunks,
    calls: usize,
    done: bool,
}

impl Reader {
    /// A reader of the response to what was asked.
    pub fn new(requested: Requested, ids: &ResponseIds) -> Reader {
        let named = ResponseIds { model: requested.model.clone(), ..ids.clone() };
        Reader { requested, chunks: Chunks::new(&named), calls: 0, done: false }
    }

    /// Takes the object of one line.
    pub fn push(&mut self, event: &Value, out: &mut Vec<Value>) {
        if self.done {
            return;
        }
        if let Some(message) = event.get("message").and_then(Value::as_object) {
            self.message(message, out);
        }
        if event.get("done").and_then(Value::as_bool) == Some(true) {
            self.done = true;
            out.push(self.chunks.finish(0, finish_reason(event, self.calls > 0)));
            if let Some(usage) = usage(event, &self.requested) {
                out.push(self.chunks.usage(&usage));
            }
        }
    }

    fn message(&mut self, message: &Map<String, Value>, out: &mut Vec<Value>) {
        let thinking = text(message, "thinking");
        if !thinking.is_empty() {
            let delta =
                [("content".to_owned(), "".into()), ("reasoning_content".to_owned(), thinking.into())];
            out.push(self.chunks.delta(0, delta.into_iter().collect()));
        }
        let content = text(message, "content");
        if !content.is_empty() {
            out.push(self.chunks.content(0, content));
        }
        let calls = tool_calls(message, &self.chunks.ids().id, self.calls);
        if !calls.is_empty() {
            self.calls += calls.len();
            let delta = [("tool_calls".to_owned(), calls.into())];
            out.push(self.chunks.delta(0, delta.into_iter().collect()));
        }
    }
}

impl ReadResponse for Reader {
    fn whole(&mut self, body: Value, observed: &mut Observed) -> Result<Value, Error> {
        let chat = response::read(&body, &self.requested, self.chunks.ids())?;
        observed.note_openai(&chat);
        Ok(chat)
    }

    fn event(
        &mut self,
        event: Value,
        _data: &[u8],
        observed: &mut Observed,
        chunks: &mut Vec<Value>,
    ) -> Result<(), Error> {
        self.push(&event, chunks);
        chunks.iter().for_each(|chunk| observed.note_openai(chunk));
        Ok(())
    }

    fn finish(&mut self, _observed: &mut Observed, _chunks: &mut Vec<Value>) -> Result<(), Error> {
        if self.done { Ok(()) } else { Err(cut_short()) }
    }

    fn is_finished(&self) -> bool {
        self.done
    }
}
