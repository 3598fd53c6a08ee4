//! Text generation inference streams, read as chat chunks.

use serde_json::Value;

use super::{
    Requested,
    response::{self, finish_reason, usage},
    strip_tokens::StripTokens,
};
use crate::core::{
    codec::{texts::Texts, value},
    error::Error,
    format::{
        chat::response::Chunks,
        response::{Observed, ReadResponse, ResponseIds},
    },
};

/// Reads the response to one request.
#[derive(Debug)]
pub struct Reader {
    requested: Requested,
    chunks: Chunks,
    strip: StripTokens,
    /// Some text came token by token, so the whole text at the end repeats it.
    by_token: bool,
    ended: bool,
    usage: Option<Value>,
}

impl Reader {
    /// A reader of the response to what was asked.
    pub fn new(requested: Requested, ids: &ResponseIds) -> Reader {
        Reader {
            chunks: Chunks::new(ids),
            strip: StripTokens::new(&requested.strip_tokens),
            requested,
            by_token: false,
            ended: false,
            usage: None,
        }
    }

    /// Takes one event's object. Tokens that the server calls special are not text.
    pub fn push(&mut self, event: &Value, out: &mut Vec<Value>) {
        if self.ended {
            return;
        }
        let whole = event.get("generated_text").and_then(Value::as_str);
        match event.get("token") {
            Some(token) => {
                self.by_token = true;
                let special = token.get("special").and_then(Value::as_bool) == Some(true);
                if let Some(text) = token.get("text").and_then(Value::as_str).filter(|_| !special) {
                    let text = self.strip.push(text);
                    self.say(&text, out);
                }
            }
            None if !self.by_token => {
                let text = self.strip.push(whole.unwrap_or_default());
                self.say(&text, out);
            }
            None => {}
        }
        let details = event.get("details").filter(|details| !details.is_null());
        if whole.is_some() || details.is_some() {
            self.usage = usage(details, self.requested.prompt_tokens);
            self.end(finish_reason(details), out);
        }
    }

    /// Ends the response when the server did not, then gives the usage.
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
        let text = self.strip.finish(reason == "length");
        self.say(&text, out);
        out.push(self.chunks.finish(0, reason));
    }

    fn say(&mut self, text: &str, out: &mut Vec<Value>) {
        if !text.is_empty() {
            out.push(self.chunks.content(0, text));
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
        data: &[u8],
        observed: &mut Observed,
        chunks: &mut Vec<Value>,
    ) -> Result<(), Error> {
        self.push(&event, chunks);
        count(event, data, observed);
        Ok(())
    }

    /// The server's last event is the last: a stream of it that stops has ended.
    fn finish(&mut self, observed: &mut Observed, chunks: &mut Vec<Value>) -> Result<(), Error> {
        self.close(chunks);
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
