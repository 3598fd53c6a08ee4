//! OpenAI text completions.

pub mod request;
mod reshape;
pub mod response;
pub mod stream;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::{
    Context, StreamedTexts, Written, params,
    prepare::{self, Facts, Prepare},
    response::{Join, WriteWith},
};
use crate::core::{codec::json::Object, error::Error};

/// What rows of brands call it.
pub const NAME: &str = "completions";

/// The format.
pub struct Format;

impl super::Format for Format {
    fn name(&self) -> &'static str {
        NAME
    }

    fn path(&self) -> &'static str {
        "/completions"
    }

    fn read_request(
        &self,
        body: Map<String, Value>,
        context: &Context<'_>,
    ) -> Result<(Map<String, Value>, WriteWith), Error> {
        Ok((request::read(body, context)?, self.writer(context.include_usage)?))
    }

    fn writer(&self, include_usage: bool) -> Result<WriteWith, Error> {
        Ok(Box::new(move |ids| Box::new(stream::Writer::new(include_usage, ids))))
    }

    fn write_request(&self, chat: Map<String, Value>, context: &Context<'_>) -> Result<Written, Error> {
        let body = request::write(chat, context)?;
        let reader = Box::new(|ids: &_| Box::new(stream::Reader::new(ids)) as _);
        Ok(Written { body, betas: Vec::new(), reader })
    }

    fn fit(&self, body: &mut Object<'_>, p: &Prepare<'_>, facts: &mut Facts) -> Result<(), Error> {
        params::fit(body, &p.taking(facts))?;
        prepare::ask_for_usage(body, p);
        Ok(())
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
