//! A chat answer as an OpenAI text completion.

use serde_json::Value;

use crate::core::{
    codec::{
        sse,
        value::{self, object},
    },
    error::Error,
    format::{
        chat::response as chat,
        response::{ResponseIds, WriteResponse},
    },
};

/// Makes the `text_completion` object of a `chat.completion`.
pub fn answer(body: &Value, stamp: &ResponseIds) -> Result<Value, Error> {
    let choices = chat::choices_of(body)?.iter().map(|choice| {
        let text = chat::text_of(choice.get("message").and_then(|message| message.get("content")));
        text_choice(chat::index_of(choice), &text, choice.get("finish_reason"))
    });
    let mut completion = completion(&chat::stamp_of(body, stamp), choices.collect());
    if let Some(completion) = completion.as_object_mut() {
        for name in ["system_fingerprint", "usage"] {
            if let Some(value) = body.get(name).filter(|value| !value.is_null()) {
                completion.insert(name.into(), value.clone());
            }
        }
    }
    Ok(completion)
}

/// Makes the objects of a text completion stream from chat chunks.
#[derive(Debug)]
pub struct Stream {
    stamp: ResponseIds,
    adopted: bool,
    include_usage: bool,
    /// Choices that were seen, and whether each has ended.
    choices: Vec<(u64, bool)>,
    usage: Option<Value>,
}

impl Stream {
    /// A stream of which nothing has come yet.
    pub fn new(include_usage: bool, stamp: &ResponseIds) -> Stream {
        Stream { stamp: stamp.clone(), adopted: false, include_usage, choices: Vec::new(), usage: None }
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
            self.stamp = chat::stamp_of(chunk, &self.stamp);
        }
        for choice in choices {
            let index = chat::index_of(choice);
            let text = chat::text_of(choice.get("delta").and_then(|delta| delta.get("content")));
            let reason = choice.get("finish_reason").filter(|reason| !reason.is_null());
            self.note(index, reason.is_some());
            if !text.is_empty() || reason.is_some() {
                out.push(completion(&self.stamp, vec![text_choice(index, &text, reason)]));
            }
        }
        Ok(())
    }

    /// Ends choices that the provider left open, then gives the usage to a client that asked for it.
    pub fn close(&mut self, out: &mut Vec<Value>) {
        for (index, ended) in std::mem::take(&mut self.choices) {
            if !ended {
                out.push(completion(&self.stamp, vec![text_choice(index, "", Some(&Value::from("stop")))]));
            }
        }
        if let Some(usage) = self.usage.take().filter(|_| self.include_usage) {
            let mut last = completion(&self.stamp, Vec::new());
            if let Some(last) = last.as_object_mut() {
                last.insert("usage".into(), usage);
            }
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

fn completion(stamp: &ResponseIds, choices: Vec<Value>) -> Value {
    object! {
        "id": stamp.id.as_str(),
        "object": "text_completion",
        "created": stamp.created,
        "model": stamp.model.as_str(),
        "choices": choices,
    }
}

fn text_choice(index: u64, text: &str, reason: Option<&Value>) -> Value {
    object! {"text": text, "index": index, "logprobs": Value::Null, "finish_reason": reason.cloned()}
}

impl WriteResponse for Stream {
    fn whole(&mut self, chat: Value) -> Result<Value, Error> {
        answer(&chat, &self.stamp)
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
        self.adopted.then_some(self.stamp.id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::format::golden::responses as cases;

    #[test]
    fn whole_answers() {
        cases::answers("completions/response/write", |body, _, ids| answer(body, ids));
    }

    #[test]
    fn whole_streams() {
        cases::streams("completions/stream/write", |chunks, _, include_usage| {
            let mut stream = Stream::new(include_usage, &cases::stamp());
            let mut out = Vec::new();
            let result = chunks.iter().try_for_each(|chunk| stream.push(chunk, &mut out));
            if result.is_ok() {
                stream.close(&mut out);
            }
            (out, result)
        });
    }
}
