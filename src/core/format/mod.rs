//! The API formats: how each writes its requests, responses, streams and errors, one folder each.
//!
//! The pivot is OpenAI chat ([`chat`]): what a client writes in its format is read as a chat request, and what a provider wants is
//! written from one; the responses go back the same way. So N client formats and M provider formats are N + M translations,
//! never pairs. Where client and provider speak the same format nothing is translated at all: the request is spliced
//! ([`prepare`]) and the response passes ([`pipeline`]).
//!
//! A new format is a folder with a [`Format`] in it, a row in [`FORMATS`], and a row that names it: of the brand whose models
//! speak it ([`crate::core::provider::BRANDS`]), or of the client API that does ([`of`]). Nothing else knows a format by name.

pub mod chat;
pub mod completions;
#[cfg(test)]
mod digits;
pub mod embeddings;
pub mod failure;
pub mod generate;
#[cfg(test)]
mod golden;
mod json_tool;
pub mod messages;
pub mod ollama;
mod params;
mod path;
pub mod pipeline;
pub mod prepare;
pub mod reshape;
pub mod response;
mod splice;
mod template;
pub mod translate;

use std::fmt;

use serde_json::{Map, Value};

use self::{
    prepare::{Facts, Prepare},
    response::{Join, Observed, Passing, ReadWith, WriteWith},
};
use crate::core::{
    codec::{framing::Framing, json::Object, value},
    error::{Error, ErrorFormat},
    model::{
        accepts::Accepts,
        brand::Quirks,
        deployment::Deployment,
        failure::{Native, Said},
        status::Status,
        terms::Terms,
        usage::Usage,
    },
    operation::{Api, Dialect, Operation},
    provider,
};

/// A format of the table.
pub type Ref = &'static dyn Format;

/// All formats.
pub static FORMATS: &[Ref] = &[
    &chat::Format,
    &completions::Format,
    &embeddings::Format,
    &generate::Format,
    &messages::Format,
    &messages::count::Format,
    &ollama::Format,
];

/// The format that a client API speaks.
pub fn of(api: &Api) -> Ref {
    match api.dialect {
        _ if api.operation == Operation::CountTokens => &messages::count::Format,
        Dialect::Chat => &chat::Format,
        Dialect::Completions => &completions::Format,
        Dialect::Embeddings => &embeddings::Format,
        Dialect::Messages => &messages::Format,
    }
}

/// The format that a row of a brand names.
pub fn named(name: &str) -> Option<Ref> {
    FORMATS.iter().copied().find(|format| format.name() == name)
}

/// The format that serves a client API at a deployment.
pub fn spoken(deployment: &Deployment, api: &Api) -> Result<Ref, Error> {
    let name = provider::speaks(deployment, api)?;
    named(name).ok_or_else(|| Error::internal(format!("no format is called `{name}`")))
}

/// One API's way of writing requests, responses, streams and errors.
///
/// A format may be spoken by clients, by providers, or by both, and implements what is asked of it there; the rest has
/// defaults, which are OpenAI's ways where most formats have them.
pub trait Format: Sync {
    /// What rows of brands call it.
    fn name(&self) -> &'static str;

    /// The last segments of its path at a provider.
    fn path(&self) -> &'static str;

    /// The shape of its errors.
    fn error_format(&self) -> ErrorFormat {
        ErrorFormat::OpenAi
    }

    /// How a streamed response is cut into events.
    fn framing(&self) -> Framing {
        Framing::Sse
    }

    /// Headers that each of its requests has.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// A client's request as a chat request, and what writes the response to it.
    fn read_request(
        &self,
        _body: Map<String, Value>,
        _context: &Context<'_>,
    ) -> Result<(Map<String, Value>, WriteWith), Error> {
        Err(Error::internal(format!("no client speaks the format `{}`", self.name())))
    }

    /// What writes a response for a client, which wants the usage of a stream or not.
    fn writer(&self, _include_usage: bool) -> Result<WriteWith, Error> {
        Err(Error::internal(format!("no client speaks the format `{}`", self.name())))
    }

    /// A chat request as a provider wants it, and what reads the response to it.
    fn write_request(&self, _chat: Map<String, Value>, _context: &Context<'_>) -> Result<Written, Error> {
        Err(Error::internal(format!("no provider is asked in the format `{}`", self.name())))
    }

    /// Fits a request that is sent in the format it came in to the brand and model.
    fn fit(&self, _body: &mut Object<'_>, _prepare: &Prepare<'_>, _facts: &mut Facts) -> Result<(), Error> {
        Ok(())
    }

    /// Whether a member of a request belongs to the format, although LiteLLM has one of that name in other formats.
    fn owns(&self, _member: &str) -> bool {
        false
    }

    /// Whether a deployment's default may be put into a request: what is another format's own would be refused.
    fn takes_default(&self, _member: &str) -> bool {
        true
    }

    /// What a call is charged by, as far as its request says.
    fn terms(&self, _body: &Object<'_>) -> Terms {
        Terms::default()
    }

    /// Whether its responses hold text, whose tokens can be estimated.
    fn has_texts(&self) -> bool {
        true
    }

    /// Where the texts of a stream's events are.
    fn texts(&self) -> StreamedTexts {
        StreamedTexts::Read
    }

    /// The usage in a response.
    fn read_usage(&self, usage: &str, _terms: &mut Terms) -> Option<Usage> {
        Usage::read_openai(usage)
    }

    /// Whether a buffered response was stopped by a content filter.
    fn is_filtered(&self, _body: &[u8]) -> bool {
        false
    }

    /// Puts right in a buffered response that passes what clients know by another name or in another place. Whether anything
    /// was.
    fn mend(&self, _body: &mut Object<'_>) -> bool {
        false
    }

    /// The member that every response of it has, and what is a value of it.
    fn answer(&self) -> (&'static str, fn(&Value) -> bool) {
        ("choices", Value::is_array)
    }

    /// Whether an event of its own stream shows something of the answer. What comes before the first that does says only that there
    /// will be one.
    fn shows(&self, data: &[u8]) -> bool {
        value::read(data).is_ok_and(|event| chat::stream::shows(&event))
    }

    /// What ends its stream, also one whose provider leaves that out.
    fn end_of_stream(&self) -> &'static [u8] {
        b"data: [DONE]\n\n"
    }

    /// Passes an event of its own stream to the client, and notes what it tells.
    fn pass(&self, event: &Passing<'_>, observed: &mut Observed, out: &mut Vec<u8>) {
        chat::stream::pass(event, observed, out);
    }

    /// The failure that an event of its stream reports in place of a piece of the response, or a body in place of a response.
    fn read_error(&self, event: &Value) -> Option<Error> {
        failure::reported_in(event)
    }

    /// Writes a buffered response as the stream that a provider was asked for.
    fn write_stream(&self, _whole: Value, _out: &mut Vec<u8>) -> Result<(), Error> {
        Err(Error::internal(format!("the format `{}` has no streams", self.name())))
    }

    /// What puts the events of its stream together, if it has streams.
    fn joiner(&self) -> Option<Box<dyn Join>> {
        None
    }

    /// What a failed response says, and the words of it for the client.
    fn read_failure(&self, status: Option<Status>, body: &[u8]) -> (Said, String) {
        (failure::said(status, body), failure::message(body))
    }

    /// What a failed response says to clients of Anthropic's API alone.
    fn read_native(&self, _status: Option<Status>, _body: &[u8]) -> Option<Native> {
        None
    }
}

impl PartialEq for dyn Format {
    fn eq(&self, other: &dyn Format) -> bool {
        self.name() == other.name()
    }
}

impl fmt::Debug for dyn Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which bytes of a stream's events are the response's text: what tokens are estimated from when a client goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamedTexts {
    /// Texts in `delta`.
    Deltas,
    /// Texts of the whole event.
    Events,
    /// What reads the format counts them itself, or there are none.
    Read,
}

/// A request for a provider.
pub struct Written {
    /// The body.
    pub body: Map<String, Value>,
    /// `anthropic-beta` values that it needs.
    pub betas: Vec<String>,
    /// What reads the response.
    pub reader: ReadWith,
}

/// What a request translation may look at besides the body.
#[derive(Clone, Debug, Default)]
pub struct Context<'a> {
    /// The model to ask the provider for.
    pub model: &'a str,
    /// The brand's name in messages (`anthropic`).
    pub brand: &'a str,
    /// How the brand's bodies differ from OpenAI's.
    pub quirks: Quirks,
    /// What the model takes of OpenAI's parameters.
    pub accepts: Accepts,
    /// Unsupported parameters are dropped instead of refused.
    pub drop_params: bool,
    /// The request may be amended so that the provider takes it (placeholder messages, dummy tools).
    pub modify_params: bool,
    /// The client asked for the usage of its stream.
    pub include_usage: bool,
    /// `allowed_openai_params`: parameters to pass although the brand is not known to take them.
    pub allowed_params: &'a [String],
    /// What the deployment puts into every request.
    pub defaults: Option<&'a Map<String, Value>>,
    /// Custom prompt template of the deployment.
    pub template: Option<&'a crate::core::model::template::PromptTemplate>,
}
