//! A text generation inference answer as a chat answer.

use serde_json::Value;

use super::{Asked, marks::Marks};
use crate::core::{
    codec::{
        texts::Texts,
        value::{self, object},
    },
    error::Error,
    format::{
        chat::response::{self as chat, Chunks},
        pipeline::error_in,
        response::{Observed, ReadResponse, ResponseIds},
    },
};

/// Makes the `chat.completion` of `[{"generated_text", "details"}]`, or of such an object alone.
pub fn answer(body: &Value, asked: &Asked, stamp: &ResponseIds) -> Result<Value, Error> {
    let body = body.as_array().and_then(|list| list.first()).unwrap_or(body);
    if let Some(error) = chat::failure_in(body) {
        return Err(error);
    }
    let text = body.get("generated_text").and_then(Value::as_str);
    let text = text.ok_or_else(|| chat::unreadable("no `generated_text`"))?;
    let details = body.get("details");
    let reason = finish_reason(details);
    let mut marks = Marks::new(&asked.marks);
    let mut content = marks.push(text);
    content.push_str(&marks.finish(reason == "length"));
    let mut answer = object! {
        "id": stamp.id.as_str(),
        "created": stamp.created,
        "model": stamp.model.as_str(),
        "object": "chat.completion",
        "system_fingerprint": Value::Null,
        "choices": [chat::text_choice(0, &content, reason)],
    };
    if let (Some(answer), Some(usage)) = (answer.as_object_mut(), usage(details, asked.prompt_tokens)) {
        answer.insert("usage".into(), usage);
    }
    Ok(answer)
}

/// Reads the response to one request.
pub struct Reader {
    asked: Asked,
    ids: ResponseIds,
    stream: Stream,
}

impl Reader {
    /// A reader of the response to what was asked.
    pub fn new(asked: Asked, ids: &ResponseIds) -> Reader {
        Reader { stream: Stream::new(&asked, ids), asked, ids: ids.clone() }
    }
}

impl ReadResponse for Reader {
    fn whole(&mut self, body: Value, observed: &mut Observed) -> Result<Value, Error> {
        let chat = answer(&body, &self.asked, &self.ids)?;
        observed.note_openai(&chat);
        Ok(chat)
    }

    fn event(
        &mut self,
        event: Value,
        data: &[u8],
        observed: &mut Observed,
        chunks: &mut Vec<Value>,
    ) -> Result<(), Error> {
        if let Some(error) = error_in(&event) {
            return Err(error);
        }
        self.stream.push(&event, chunks)?;
        count(event, data, observed);
        Ok(())
    }

    /// The server's last event is the last: a stream of it that stops has ended.
    fn finish(&mut self, observed: &mut Observed, chunks: &mut Vec<Value>) -> Result<(), Error> {
        self.stream.close(chunks);
        chunks.iter().for_each(|chunk| observed.note_openai(chunk));
        Ok(())
    }
}

/// Counts a token of a stream, or the whole text at its end.
fn count(event: Value, data: &[u8], observed: &mut Observed) {
    match event {
        Value::Object(mut event) if event.get("generated_text").is_some_and(Value::is_string) => {
            observed.texts = Texts::default();
            event.retain(|name, _| name == "generated_text");
            observed.texts.push(&value::to_bytes(&Value::Object(event)));
        }
        _ => observed.texts.push(data),
    }
}

/// Makes chat chunks from the tokens of a generation stream.
#[derive(Debug)]
pub struct Stream {
    chunks: Chunks,
    marks: Marks,
    prompt_tokens: u64,
    /// Some text came token by token, so the whole text at the end repeats it.
    by_token: bool,
    ended: bool,
    usage: Option<Value>,
}

impl Stream {
    /// A stream of which nothing has come yet.
    pub fn new(asked: &Asked, stamp: &ResponseIds) -> Stream {
        Stream {
            chunks: Chunks::new(stamp),
            marks: Marks::new(&asked.marks),
            prompt_tokens: asked.prompt_tokens,
            by_token: false,
            ended: false,
            usage: None,
        }
    }

    /// Takes one event's object. Tokens that the server calls special are not text.
    pub fn push(&mut self, event: &Value, out: &mut Vec<Value>) -> Result<(), Error> {
        if let Some(error) = chat::failure_in(event) {
            return Err(error);
        }
        if self.ended {
            return Ok(());
        }
        let whole = event.get("generated_text").and_then(Value::as_str);
        match event.get("token") {
            Some(token) => {
                self.by_token = true;
                let special = token.get("special").and_then(Value::as_bool) == Some(true);
                if let Some(text) = token.get("text").and_then(Value::as_str).filter(|_| !special) {
                    let text = self.marks.push(text);
                    self.say(&text, out);
                }
            }
            None if !self.by_token => {
                let text = self.marks.push(whole.unwrap_or_default());
                self.say(&text, out);
            }
            None => {}
        }
        let details = event.get("details").filter(|details| !details.is_null());
        if whole.is_some() || details.is_some() {
            self.usage = usage(details, self.prompt_tokens);
            self.end(finish_reason(details), out);
        }
        Ok(())
    }

    /// Ends the answer when the server did not, then gives the usage.
    pub fn close(&mut self, out: &mut Vec<Value>) {
        if !self.ended {
            self.end("stop", out);
        }
        if let Some(usage) = self.usage.take() {
            out.push(self.chunks.usage(&usage));
        }
    }

    fn end(&mut self, reason: &str, out: &mut Vec<Value>) {
        self.ended = true;
        let text = self.marks.finish(reason == "length");
        self.say(&text, out);
        out.push(self.chunks.finish(0, reason));
    }

    fn say(&mut self, text: &str, out: &mut Vec<Value>) {
        if !text.is_empty() {
            out.push(self.chunks.content(0, text));
        }
    }
}

fn finish_reason(details: Option<&Value>) -> &'static str {
    match details.and_then(|details| details.get("finish_reason")).and_then(Value::as_str) {
        Some("length") => "length",
        _ => "stop",
    }
}

/// Usage as far as the server counts: the answer in `generated_tokens`, the prompt in `input_length` or as the list
/// `prefill`; `prompt_tokens` stands in when the prompt was not counted.
fn usage(details: Option<&Value>, prompt_tokens: u64) -> Option<Value> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::format::golden::responses as cases;

    #[test]
    fn whole_answers() {
        cases::answers("generate/response/read", |body, asked, ids| answer(body, &asked, ids));
    }

    #[test]
    fn whole_streams() {
        cases::streams("generate/stream/read", |chunks, asked, include_usage| {
            let mut stream = Stream::new(&asked, &cases::stamp());
            let mut out = Vec::new();
            let result = chunks.iter().try_for_each(|chunk| stream.push(chunk, &mut out));
            if result.is_ok() {
                stream.close(&mut out);
            }
            (cases::seen(out, include_usage), result)
        });
    }
}
