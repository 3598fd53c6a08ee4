//! Anthropic messages.

pub mod count;
pub mod error;
mod ids;
mod names;
pub mod request;
mod reshape;
pub mod response;
pub mod stream;
#[cfg(test)]
mod tests;
mod usage;

use serde_json::{Map, Value};

use super::{
    Context, StreamedTexts, Written, chat, failure,
    prepare::{Facts, Prepare},
    response::{Join, Observed, Passing, WriteWith},
};
use crate::core::{
    codec::{json::Object, needle::Needle, value},
    error::{Error, ErrorFormat},
    model::{
        failure::{Native, Said},
        params::Params,
        status::Status,
        terms::Terms,
        usage::Usage,
    },
};

static REFUSAL: Needle = Needle::new("refusal");

/// Parameters of chat that a message request has too, with the same meaning.
const SHARED_WITH_CHAT: &[&str] =
    &["max_tokens", "service_tier", "stream", "temperature", "thinking", "top_p"];

/// What a response is read by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// The response's call of the tool `json_tool_call` is the content the client asked for (JSON output by a forced tool).
    pub json_tool: bool,
    /// Prefill that the response continues and the client wants back (`"prefix": true`).
    pub prefix: Option<String>,
}

/// What rows of brands call it.
pub const NAME: &str = "messages";

/// The format.
pub struct Format;

impl super::Format for Format {
    fn name(&self) -> &'static str {
        NAME
    }

    fn path(&self) -> &'static str {
        "/messages"
    }

    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("anthropic-version", "2023-06-01")]
    }

    fn error_format(&self) -> ErrorFormat {
        ErrorFormat::Anthropic
    }

    fn read_request(
        &self,
        body: Map<String, Value>,
        context: &Context<'_>,
    ) -> Result<(Map<String, Value>, WriteWith), Error> {
        let (chat, names) = request::read(body, context)?;
        Ok((chat, Box::new(|ids| names.give_back(Box::new(stream::Writer::new(ids))))))
    }

    fn writer(&self, _include_usage: bool) -> Result<WriteWith, Error> {
        Ok(Box::new(|ids| Box::new(stream::Writer::new(ids))))
    }

    fn write_request(&self, chat: Map<String, Value>, context: &Context<'_>) -> Result<Written, Error> {
        let (body, betas, requested) = request::write(chat, context)?;
        let reader = Box::new(move |ids: &_| Box::new(stream::Reader::new(requested, ids)) as _);
        Ok(Written { body, betas, reader })
    }

    fn fit(&self, body: &mut Object<'_>, _prepare: &Prepare<'_>, _facts: &mut Facts) -> Result<(), Error> {
        request::clean(body);
        Ok(())
    }

    fn owns(&self, member: &str) -> bool {
        member == "metadata"
    }

    fn takes_default(&self, member: &str) -> bool {
        !Params::named(member).has(Params::CHAT) || SHARED_WITH_CHAT.contains(&member)
    }

    fn texts(&self) -> StreamedTexts {
        StreamedTexts::Deltas
    }

    fn read_usage(&self, usage: &str, terms: &mut Terms) -> Option<Usage> {
        let usage = serde_json::from_str(usage).ok()?;
        terms.served_by_anthropic(&usage);
        Usage::from_anthropic(&usage)
    }

    fn is_filtered(&self, body: &[u8]) -> bool {
        chat::response::is_stopped_by(&REFUSAL, "/stop_reason", body)
    }

    fn answer(&self) -> (&'static str, fn(&Value) -> bool) {
        ("content", Value::is_array)
    }

    fn shows(&self, data: &[u8]) -> bool {
        value::read(data).is_ok_and(|event| stream::shows(&event))
    }

    fn end_of_stream(&self) -> &'static [u8] {
        b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
    }

    fn pass(&self, event: &Passing<'_>, observed: &mut Observed, out: &mut Vec<u8>) {
        stream::pass(event, observed, out);
    }

    fn read_error(&self, event: &Value) -> Option<Error> {
        let is_error = text(event, "type") == "error" || failure::reported_words(event).is_some();
        is_error.then(|| error::reported(event))
    }

    fn read_failure(&self, status: Option<Status>, body: &[u8]) -> (Said, String) {
        error::read(status, body)
    }

    fn read_native(&self, status: Option<Status>, body: &[u8]) -> Option<Native> {
        Some(Native::read(status, &serde_json::from_slice(body).unwrap_or_default()))
    }

    fn write_stream(&self, whole: Value, out: &mut Vec<u8>) -> Result<(), Error> {
        reshape::write(whole, out)
    }

    fn joiner(&self) -> Option<Box<dyn Join>> {
        Some(Box::new(reshape::Joined::default()))
    }
}

/// Stands for a signature under thoughts that have none, as those of most other models: Anthropic's clients send no thinking back
/// that is not signed.
const UNSIGNED: &str = "unsigned";

/// Whether Anthropic takes a content block back. What another model has thought, and the gateway has shown as thinking, has no
/// signature: Anthropic would refuse the conversation from then on.
fn is_signed(block: &Value) -> bool {
    text(block, "type") != "thinking" || !matches!(text(block, "signature"), "" | UNSIGNED)
}

/// A string member, empty when it is absent or no string.
fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// An id for a call that the provider gave none: unique within the response, and over responses because the response's id is.
fn made_up_id(message: &str, at: usize) -> String {
    format!("call_{}_{at}", message.trim_start_matches("msg_"))
}
