//! Hugging Face text generation inference: `{"inputs", "parameters"}` in, `generated_text` out. Spoken by providers only.

pub mod request;
mod reshape;
pub mod response;
pub mod stream;
mod strip_tokens;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::{Context, Written, response::Join};
use crate::core::error::Error;

/// What a response is read by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// Texts to strip off either end of the response, where they are not meant: the template's tokens, the stop texts.
    pub strip_tokens: Vec<String>,
    /// Estimated length of the prompt, which the server does not always count.
    pub prompt_tokens: u64,
}

/// What rows of brands call it.
pub const NAME: &str = "generate";

/// The format.
pub struct Format;

impl super::Format for Format {
    fn name(&self) -> &'static str {
        NAME
    }

    /// The base URL is the whole path.
    fn path(&self) -> &'static str {
        ""
    }

    fn write_request(&self, chat: Map<String, Value>, context: &Context<'_>) -> Result<Written, Error> {
        let (body, requested) = request::write(chat, context)?;
        let reader = Box::new(move |ids: &_| Box::new(stream::Reader::new(requested, ids)) as _);
        Ok(Written { body, betas: Vec::new(), reader })
    }

    fn write_stream(&self, whole: Value, out: &mut Vec<u8>) -> Result<(), Error> {
        reshape::write(whole, out)
    }

    fn joiner(&self) -> Option<Box<dyn Join>> {
        Some(Box::new(reshape::Joined::default()))
    }

    fn answer(&self) -> (&'static str, fn(&Value) -> bool) {
        ("generated_text", Value::is_string)
    }
}
