//! What is known of a response while it goes by, and who reads and writes it where it is translated.

use serde_json::Value;

use crate::core::{
    codec::texts::Texts,
    error::Error,
    model::{terms::Terms, usage::Usage},
};

/// What a response is called that a provider has given no name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseIds {
    /// `chatcmpl-…`, the same on every chunk of a stream.
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// The model to name when the provider names none.
    pub model: String,
}

/// Begins to read a response: what a request translation returns beside the request.
pub type ReadWith = Box<dyn FnOnce(&ResponseIds) -> Box<dyn ReadResponse>>;

/// Begins to write a response for a client.
pub type WriteWith = Box<dyn FnOnce(&ResponseIds) -> Box<dyn WriteResponse>>;

/// Reads a provider's response, whole or as a stream, as chat, and notes what it tells of itself.
pub trait ReadResponse {
    /// A buffered response as a `chat.completion`.
    fn whole(&mut self, body: Value, observed: &mut Observed) -> Result<Value, Error>;

    /// One event of a stream; the chunks it makes are appended. `data` is what `event` was read from.
    fn event(
        &mut self,
        event: Value,
        data: &[u8],
        observed: &mut Observed,
        chunks: &mut Vec<Value>,
    ) -> Result<(), Error>;

    /// The stream is over: the chunks that are still owed. `observed.ended` says whether the response has come to its end.
    fn finish(&mut self, observed: &mut Observed, chunks: &mut Vec<Value>) -> Result<(), Error>;

    /// Whether the response has told by itself that nothing more follows.
    fn is_finished(&self) -> bool {
        false
    }
}

/// Writes a response for a client from chat.
pub trait WriteResponse {
    /// A buffered response, of a `chat.completion`.
    fn whole(&mut self, chat: Value) -> Result<Value, Error>;

    /// What a chunk becomes, appended as events.
    fn chunk(&mut self, chunk: &Value, out: &mut Vec<u8>) -> Result<(), Error>;

    /// The end of the stream.
    fn finish(&mut self, out: &mut Vec<u8>);

    /// The id that the client finds in the stream, once something has gone out.
    fn id(&self) -> Option<&str>;
}

/// Puts the events of a stream together.
pub trait Join {
    /// Takes one event.
    fn event(&mut self, event: Value) -> Result<(), Error>;

    /// The response. `done` says that the stream has ended with `[DONE]`; an error when the response has not come to its end.
    fn finish(self: Box<Self>, done: bool) -> Result<Value, Error>;
}

/// What a response tells of itself, as far as it has come.
#[derive(Debug, Default)]
pub struct Observed {
    /// What the provider said it used.
    pub usage: Option<Usage>,
    /// What the call is charged by: as asked, then as the provider says.
    pub terms: Terms,
    /// The model the provider says it used.
    pub model: Option<String>,
    /// The id that the client finds in the response.
    pub id: Option<String>,
    /// What its tokens are estimated from when it does not say its usage.
    pub texts: Texts,
    /// Events with content.
    pub events: u64,
    /// The choices of the stream that have called tools, a bit for each.
    pub called: u128,
    /// The response in the stream has ended, by its own word: what may still come is usage and the end of the stream.
    pub ended: bool,
    /// The stream has said that it is over.
    pub finished: bool,
}

impl Observed {
    /// An id of the response. An empty one names nothing: Azure's first event has it.
    pub fn note_id(&mut self, id: Option<String>) {
        self.id = self.id.take().or(id.filter(|id| !id.is_empty()));
    }

    /// The tier that the provider says it served, if it says one.
    pub fn note_tier(&mut self, tier: Option<&str>) {
        tier.into_iter().for_each(|tier| self.terms.served(tier));
    }

    /// The newest usage of a stream counts, unless it tells less than the one before.
    pub fn note_usage(&mut self, usage: Usage) {
        let tells_less = usage.no_prompt || usage.no_completion;
        if !tells_less || self.usage.as_ref().is_none_or(|known| known.no_prompt || known.no_completion) {
            self.usage = Some(usage);
        }
    }

    /// What an event of OpenAI's kind says of its tier and usage.
    pub fn note_openai(&mut self, event: &Value) {
        self.note_tier(event.get("service_tier").and_then(Value::as_str));
        let usage = event.get("usage").filter(|usage| usage.is_object());
        usage.and_then(Usage::from_openai).into_iter().for_each(|usage| self.note_usage(usage));
    }
}

/// An event of a stream that needs no translation.
#[derive(Clone, Copy, Debug)]
pub struct Passing<'a> {
    /// The event byte for byte.
    pub raw: &'a [u8],
    /// The event's name.
    pub name: Option<&'a [u8]>,
    /// The event's data.
    pub data: &'a [u8],
    /// What it says of its usage.
    pub told: Told,
    /// What of it LiteLLM's clients may know by another name.
    pub seen: Seen,
    /// The client asked for the usage of the stream.
    pub include_usage: bool,
}

/// What an event may hold that is not as LiteLLM's clients read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// A `reasoning`, which is a text.
    pub reasoning: bool,
    /// `tool_calls`, not empty.
    pub calls: bool,
    /// The `finish_reason` is `stop`.
    pub stop: bool,
}

/// What an event says of its usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// The event does not name its usage.
    #[default]
    Nothing,
    /// The event names its usage and says nothing of it.
    Null,
    /// The event tells its usage.
    Usage,
}
