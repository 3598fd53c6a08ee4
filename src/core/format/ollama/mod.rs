//! Ollama's own chat API: an object on each line of a stream, images beside the text, settings under `options`. Spoken by
//! providers only.

pub mod request;
mod reshape;
pub mod response;
pub mod stream;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::{Context, StreamedTexts, Written, response::Join};
use crate::core::{codec::framing::Framing, error::Error};

/// What a response is read by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// The model as the client is told it (`ollama_chat/llama3.2`), as LiteLLM does.
    pub model: String,
    /// Estimated length of the prompt, which is not counted where the server had all of it in its cache.
    pub prompt_tokens: u64,
}

/// What rows of brands call it.
pub const NAME: &str = "ollama";

/// The format.
pub struct Format;

impl super::Format for Format {
    fn name(&self) -> &'static str {
        NAME
    }

    fn path(&self) -> &'static str {
        "/api/chat"
    }

    fn framing(&self) -> Framing {
        Framing::JsonLines
    }

    fn write_request(&self, chat: Map<String, Value>, context: &Context<'_>) -> Result<Written, Error> {
        let (body, requested) = request::write(chat, context)?;
        let reader = Box::new(move |ids: &_| Box::new(stream::Reader::new(requested, ids)) as _);
        Ok(Written { body, betas: Vec::new(), reader })
    }

    fn answer(&self) -> (&'static str, fn(&Value) -> bool) {
        ("message", Value::is_object)
    }

    fn texts(&self) -> StreamedTexts {
        StreamedTexts::Events
    }

    fn write_stream(&self, whole: Value, out: &mut Vec<u8>) -> Result<(), Error> {
        reshape::write(whole, out)
    }

    fn joiner(&self) -> Option<Box<dyn Join>> {
        Some(Box::new(reshape::Joined::default()))
    }
}
