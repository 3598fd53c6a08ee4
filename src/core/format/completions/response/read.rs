//! An OpenAI text completion as a chat answer.

use serde_json::Value;

use crate::core::{
    codec::value::object,
    error::Error,
    format::{
        chat::response::{self as chat, Chunks},
        pipeline::{cut_short, error_in},
        response::{Observed, ReadResponse, ResponseIds},
    },
};

/// Makes the `chat.completion` of a `text_completion`.
pub fn answer(body: &Value, stamp: &ResponseIds) -> Result<Value, Error> {
    let choices = chat::choices_of(body)?.iter().map(|choice| {
        let reason = choice.get("finish_reason").and_then(Value::as_str).unwrap_or("stop");
        chat::text_choice(chat::index_of(choice), &chat::text_of(choice.get("text")), reason)
    });
    let choices: Vec<Value> = choices.collect();
    let ResponseIds { id, created, model } = chat::stamp_of(body, stamp);
    let mut answer = object! {
        "id": id,
        "created": created,
        "model": model,
        "object": "chat.completion",
        "system_fingerprint": body.get("system_fingerprint").cloned(),
        "choices": choices,
    };
    if let (Some(answer), Some(usage)) = (answer.as_object_mut(), body.get("usage").filter(|u| u.is_object()))
    {
        answer.insert("usage".into(), usage.clone());
    }
    Ok(answer)
}

/// Makes chat chunks from the objects of a text completion stream.
#[derive(Debug)]
pub struct Stream {
    chunks: Chunks,
    ended: Vec<u64>,
    usage: Option<Value>,
}

impl Stream {
    /// A stream of which nothing has come yet.
    pub fn new(stamp: &ResponseIds) -> Stream {
        Stream { chunks: Chunks::new(stamp), ended: Vec::new(), usage: None }
    }

    /// Takes one object of the stream.
    pub fn push(&mut self, part: &Value, out: &mut Vec<Value>) -> Result<(), Error> {
        if let Some(error) = chat::failure_in(part) {
            return Err(error);
        }
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
        Ok(())
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

impl ReadResponse for Stream {
    fn whole(&mut self, body: Value, observed: &mut Observed) -> Result<Value, Error> {
        observed.note_openai(&body);
        answer(&body, self.chunks.ids())
    }

    fn event(
        &mut self,
        event: Value,
        _data: &[u8],
        observed: &mut Observed,
        chunks: &mut Vec<Value>,
    ) -> Result<(), Error> {
        if let Some(error) = error_in(&event) {
            return Err(error);
        }
        observed.note_openai(&event);
        self.push(&event, chunks)
    }

    fn finish(&mut self, observed: &mut Observed, chunks: &mut Vec<Value>) -> Result<(), Error> {
        if !observed.ended {
            return Err(cut_short());
        }
        self.close(chunks);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::format::golden::responses as cases;

    #[test]
    fn whole_answers() {
        cases::answers("completions/response/read", |body, _, ids| answer(body, ids));
    }

    #[test]
    fn whole_streams() {
        cases::streams("completions/stream/read", |chunks, _, include_usage| {
            let mut stream = Stream::new(&cases::stamp());
            let mut out = Vec::new();
            let result = chunks.iter().try_for_each(|chunk| stream.push(chunk, &mut out));
            if result.is_ok() {
                stream.close(&mut out);
            }
            (cases::seen(out, include_usage), result)
        });
    }
}
