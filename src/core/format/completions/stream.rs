//! Text completion streams: read as chat chunks, and written from them.

use serde_json::Value;

use super::response::{self, completion, text_choice};
use crate::core::{
    codec::{sse, value},
    error::Error,
    format::{
        chat::response::{self as chat, Chunks},
        pipeline::cut_short,
        response::{Observed, ReadResponse, ResponseIds, WriteResponse},
    },
};

/// Reads the response to one request.
#[derive(Debug)]
pub struct Reader {
    chunks: Chunks,
    ended: Vec<u64>,
    usage: Option<Value>,
}

impl Reader {
    /// A reader of a response of which nothing has come yet.
    pub fn new(ids: &ResponseIds) -> Reader {
        Reader { chunks: Chunks::new(ids), ended: Vec::new(), usage: None }
    }

    /// Takes one object of the stream.
    pub fn push(&mut self, part: &Value, out: &mut Vec<Value>) {
        self.chunks.adopt(part);
        if let Some(usage) = part.get("usage").filter(|usage| usage.is_object()) {
            self.usage = Some(usage.clone());
        }
        for choice in part.get("choices").and_then(Value::as_array).into_iter().flatten() {
            let index = chat::index_of(choice);
            let text = chat::text_of(choice.get("text"));
            if !text.is_empty() {
                out.push(self.chunks.content(index, &text));
            }
            if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str)
                && !self.ended.contains(&index)
            {
                out.push(self.chunks.finish(index, reason));
                self.ended.push(index);
            }
        }
    }

    /// Ends choices that the provider left open, then gives the usage.
    pub fn close(&mut self, out: &mut Vec<Value>) {
        for index in self.chunks.choices().to_vec() {
            if !self.ended.contains(&index) {
                out.push(self.chunks.finish(index, "stop"));
                self.ended.push(index);
            }
        }
        if let Some(usage) = self.usage.take() {
            out.push(self.chunks.usage(&usage));
        }
    }
}

impl ReadResponse for Reader {
    fn whole(&mut self, body: Value, observed: &mut Observed) -> Result<Value, Error> {
        observed.note_openai(&body);
        response::read(&body, self.chunks.ids())
    }

    fn event(
        &mut self,
        event: Value,
        _data: &[u8],
        observed: &mut Observed,
        chunks: &mut Vec<Value>,
    ) -> Result<(), Error> {
        observed.note_openai(&event);
        self.push(&event, chunks);
        Ok(())
    }

    fn finish(&mut self, observed: &mut Observed, chunks: &mut Vec<Value>) -> Result<(), Error> {
        if !observed.ended {
            return Err(cut_short());
        }
        self.close(chunks);
        Ok(())
    }
}

/// Writes the response for a client.
#[derive(Debug)]
pub struct Writer {
    ids: ResponseIds,
    adopted: bool,
    include_usage: bool,
    /// Choices that were seen, and whether each has ended.
    choices: Vec<(u64, bool)>,
    usage: Option<Value>,
}

impl Writer {
    /// A writer of a response of which nothing has come yet.
    pub fn new(include_usage: bool, ids: &ResponseIds) -> Writer {
        Writer { ids: ids.clone(), adopted: false, include_usage, choices: Vec::new(), usage: None }
    }

    /// Takes one chat chunk. Chunks that say nothing in text (the role) leave nothing.
    pub fn push(&mut self, chunk: &Value, out: &mut Vec<Value>) -> Result<(), Error> {
        if let Some(error) = chat::failure_in(chunk) {
            return Err(error);
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            self.usage = Some(usage.clone());
        }
        let Some(choices) = chunk.get("choices").and_then(Value::as_array).filter(|list| !list.is_empty())
        else {
            return Ok(());
        };
        if !self.adopted {
            self.adopted = true;
            self.ids = chat::ids_of(chunk, &self.ids);
        }
        for choice in choices {
            let index = chat::index_of(choice);
            let text = chat::text_of(choice.get("delta").and_then(|delta| delta.get("content")));
            let reason = choice.get("finish_reason").filter(|reason| !reason.is_null());
            self.note(index, reason.is_some());
            if !text.is_empty() || reason.is_some() {
                out.push(completion(&self.ids, vec![text_choice(index, &text, reason)]));
            }
        }
        Ok(())
    }

    /// Ends choices that the provider left open, then gives the usage to a client that asked for it.
    pub fn close(&mut self, out: &mut Vec<Value>) {
        for (index, ended) in std::mem::take(&mut self.choices) {
            if !ended {
                out.push(completion(&self.ids, vec![text_choice(index, "", Some(&Value::from("stop")))]));
            }
        }
        if let Some(usage) = self.usage.take().filter(|_| self.include_usage) {
            let mut last = completion(&self.ids, Vec::new());
            chat::set_usage(&mut last, Some(usage));
            out.push(last);
        }
    }

    fn note(&mut self, index: u64, ends: bool) {
        match self.choices.iter_mut().find(|(known, _)| *known == index) {
            Some((_, ended)) => *ended |= ends,
            None => self.choices.push((index, ends)),
        }
    }
}

impl WriteResponse for Writer {
    fn whole(&mut self, chat: Value) -> Result<Value, Error> {
        response::write(&chat, &self.ids)
    }

    fn chunk(&mut self, chunk: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut texts = Vec::new();
        self.push(chunk, &mut texts)?;
        texts.iter().for_each(|text| sse::write(out, None, &value::to_bytes(text)));
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let mut texts = Vec::new();
        self.close(&mut texts);
        texts.iter().for_each(|text| sse::write(out, None, &value::to_bytes(text)));
        sse::write(out, None, b"[DONE]");
    }

    fn id(&self) -> Option<&str> {
        self.adopted.then_some(self.ids.id.as_str())
    }
}
