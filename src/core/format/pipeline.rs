//! A provider's response on its way to the client, for one attempt: framing, translation over the pivot where the formats
//! differ, usage out of whatever comes by, and hiding what the client did not ask for. Where the formats are the same, bytes pass
//! as they are.

use serde_json::Value;

use super::{
    Ref, StreamedTexts, failure,
    response::{Observed, Passing, ReadResponse, ResponseIds, Seen, Told, WriteResponse},
    translate::Back,
};
use crate::core::{
    codec::{
        event::Event,
        framing::{self, Framing},
        glance::{Glance, Member},
        json::Object,
        needle::Needle,
        tap::Tap,
        value,
    },
    error::Error,
    model::failure::Class,
    model::{terms::Terms, usage::Usage},
};

static ERROR: Needle = Needle::new("\"error\"");

/// No event of a stream may be larger than this: a whole image fits, a runaway provider does not.
pub(super) const MAX_EVENT_BYTES: usize = 32 * 1024 * 1024;

/// The response of one attempt on its way to the client.
pub struct Pipeline {
    client: Ref,
    provider: Ref,
    include_usage: bool,
    /// `None`: the response passes.
    translation: Option<(Box<dyn ReadResponse>, Box<dyn WriteResponse>)>,
    decoder: framing::Decoder,
    texts: StreamedTexts,
    glance: Glance,
    observed: Observed,
    /// There is a response, and not a failure in its place.
    has_response: bool,
    /// Whether anything has gone out.
    emitted: bool,
    /// What clients find the request by in an error event, if their format has that.
    request_id: String,
}

impl Pipeline {
    /// Starts the response of one attempt. `terms` are those it was asked on.
    pub fn new(back: Back, terms: Terms, ids: &ResponseIds) -> Pipeline {
        Pipeline {
            client: back.client,
            provider: back.provider,
            include_usage: back.include_usage,
            translation: back.translation.map(|(reader, writer)| (reader(ids), writer(ids))),
            decoder: framing::Decoder::new(back.provider.framing(), MAX_EVENT_BYTES),
            texts: back.provider.texts(),
            glance: Glance::default(),
            observed: Observed { terms, ..Observed::default() },
            has_response: false,
            emitted: false,
            request_id: String::new(),
        }
    }

    /// Says by which id its client finds the request.
    pub fn name_request(&mut self, id: &str) {
        id.clone_into(&mut self.request_id);
    }

    /// What the provider said it used, so far.
    pub fn usage(&self) -> Option<&Usage> {
        self.observed.usage.as_ref()
    }

    /// What the response used so far: as the provider says, and estimated where it says nothing, or nothing that can be. `None`
    /// when there is no response. `prompt_tokens` is asked only when the prompt has to be estimated.
    pub fn used(&self, prompt_tokens: impl FnOnce() -> u64) -> Option<Usage> {
        let bytes = || self.observed.texts.bytes();
        match &self.observed.usage {
            Some(told) => Some(told.clone().filled(prompt_tokens, bytes)),
            None if self.has_response || self.observed.events > 0 => {
                Some(Usage::estimate(prompt_tokens(), bytes()))
            }
            None => None,
        }
    }

    /// What it is charged by, so far.
    pub fn terms(&self) -> Terms {
        self.observed.terms
    }

    /// The model the provider said it used.
    pub fn model(&self) -> Option<&str> {
        self.observed.model.as_deref()
    }

    /// The id that the client finds in the response, when it has one.
    pub fn id(&self) -> Option<&str> {
        self.observed.id.as_deref()
    }

    /// Whether the stream has said that it is over.
    pub fn is_finished(&self) -> bool {
        self.observed.finished
    }

    /// Events with content so far.
    pub fn events(&self) -> u64 {
        self.observed.events
    }

    /// What is wanted of a response that passes as it is.
    pub const NOTED: &'static [&'static str] = &["usage", "model", "service_tier", "id"];

    /// Looks at a part of a large response that passes.
    pub fn pass_by(&mut self, part: &[u8]) {
        self.has_response = true;
        if self.provider.has_texts() {
            self.observed.texts.push(part);
        }
    }

    /// Takes that out of the members that a [`Tap`] caught of a large response.
    pub fn note(&mut self, tap: &Tap) {
        if let Some(usage) = tap.get("usage").and_then(|raw| std::str::from_utf8(raw).ok()) {
            self.observed.usage = self.provider.read_usage(usage, &mut self.observed.terms);
        }
        let text = |name: &str| tap.get(name).and_then(|raw| serde_json::from_slice::<String>(raw).ok());
        self.observed.model = text("model");
        self.observed.note_id(text("id"));
        self.observed.note_tier(text("service_tier").as_deref());
    }

    /// A buffered response. `None`: it goes to the client as it is.
    pub fn whole(&mut self, body: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let Some((reader, writer)) = &mut self.translation else {
            return self.pass_whole(body);
        };
        let value = value::read_exact(body).map_err(|e| not_json(&e.to_string()))?;
        let chat = reader.whole(value, &mut self.observed)?;
        self.has_response = true;
        self.observed.model = chat.get("model").and_then(Value::as_str).map(str::to_owned);
        let written = writer.whole(chat)?;
        self.observed.note_id(written.get("id").and_then(Value::as_str).map(str::to_owned));
        self.count_whole(body);
        Ok(Some(value::to_bytes(&written)))
    }

    /// Notes what a buffered response tells that passes, and puts right what its format has another form for.
    fn pass_whole(&mut self, body: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let mut object = Object::parse(body).map_err(|e| not_json(&e.to_string()))?;
        let usage = object.raw("usage");
        self.observed.usage =
            usage.and_then(|usage| self.provider.read_usage(usage, &mut self.observed.terms));
        self.observed.model = object.read("model");
        self.observed.note_id(object.read("id"));
        self.observed.note_tier(object.read::<String>("service_tier").as_deref());
        self.has_response = object.raw("error").is_none_or(|error| error == "null");
        self.count_whole(body);
        Ok(self.provider.mend(&mut object).then(|| object.to_bytes()))
    }

    /// Counts the texts of a buffered response, if its tokens have to be estimated.
    fn count_whole(&mut self, body: &[u8]) {
        let is_told = self.observed.usage.as_ref().is_some_and(|usage| !usage.no_completion);
        if self.provider.has_texts() && !is_told {
            self.observed.texts.push(body);
        }
    }

    /// Looks at an event without parsing it: whether it ends a choice, how much text it has (which is needed when the client
    /// goes away as well, so nobody can know yet), what it says of its usage, and what clients may know by another name.
    fn look(&mut self, data: &[u8]) -> (Told, Seen) {
        let (mut told, mut seen) = (Told::Nothing, Seen::default());
        let Pipeline { glance, observed, texts, .. } = self;
        let has_deltas = *texts == StreamedTexts::Deltas;
        glance.at(data, |member, value| match member {
            Member::Delta if has_deltas => observed.texts.push_value(value),
            Member::Delta => {}
            Member::FinishReason => {
                observed.ended |= value.starts_with(b"\"");
                seen.stop |= value.starts_with(b"\"stop\"");
            }
            Member::Reasoning => seen.reasoning |= value.starts_with(b"\""),
            Member::ToolCalls => seen.calls |= value.starts_with(b"[") && !value.starts_with(b"[]"),
            Member::Usage if value.starts_with(b"null") && told == Told::Nothing => told = Told::Null,
            Member::Usage if value.starts_with(b"null") => {}
            Member::Usage => told = Told::Usage,
        });
        if *texts == StreamedTexts::Events {
            observed.texts.push(data);
        }
        (told, seen)
    }

    /// One chunk of a streamed response; what the client is to get of it is appended to `out`.
    ///
    /// An error is returned only while nothing has gone out, so that the attempt can still be retried; later ones become an
    /// event of the stream.
    pub fn chunk(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        if self.observed.finished {
            return Ok(());
        }
        let mut decoder = std::mem::take(&mut self.decoder);
        decoder.push(chunk);
        let mut result = Ok(());
        while let Some(event) = decoder.next() {
            result = match event {
                Ok(event) => self.event(&event, out),
                Err(_) => Err(too_long(self.provider.framing())),
            };
            if result.is_err() || self.observed.finished {
                break;
            }
        }
        self.decoder = decoder;
        self.settle(result, out)
    }

    /// The end of a streamed response.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.observed.finished {
            return Ok(());
        }
        let mut decoder = std::mem::take(&mut self.decoder);
        let mut result = Ok(());
        if let Some(Ok(event)) = decoder.finish() {
            result = self.event(&event, out);
        }
        if result.is_ok() && !self.observed.finished {
            result = self.close(out);
        }
        self.settle(result, out)
    }

    /// Turns an error into an event once something has gone out.
    fn settle(&mut self, result: Result<(), Error>, out: &mut Vec<u8>) -> Result<(), Error> {
        match result {
            Err(error) if self.emitted || !out.is_empty() => {
                out.extend_from_slice(&error.event(self.client.error_format(), &self.request_id));
                self.emitted = true;
                self.observed.finished = true;
                Ok(())
            }
            other => {
                self.emitted |= !out.is_empty();
                other
            }
        }
    }

    /// One event of the provider's stream.
    fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let data = event.data.as_ref();
        if data.is_empty() {
            // A comment or a bare event name keeps the connection alive; it means nothing in another format.
            if self.translation.is_none() {
                out.extend_from_slice(event.raw);
            }
            return Ok(());
        }
        if event.is_done() {
            return self.done(event, out);
        }
        self.observed.events = self.observed.events.saturating_add(1);
        let (told, seen) = self.look(data);
        let Some((reader, _)) = &mut self.translation else {
            return self.pass(event, data, told, seen, out);
        };
        let value = value::read_exact(data).map_err(|e| not_json(&e.to_string()))?;
        if let Some(error) = self.provider.read_error(&value) {
            return Err(error);
        }
        let mut chunks = Vec::new();
        reader.event(value, data, &mut self.observed, &mut chunks)?;
        let is_finished = reader.is_finished();
        self.write(&chunks, out)?;
        if is_finished {
            self.finish(out);
        }
        Ok(())
    }

    /// An event that needs no translation: passed as it came, unless it holds usage that the client did not ask for.
    fn pass(
        &mut self,
        event: &Event<'_>,
        data: &[u8],
        told: Told,
        seen: Seen,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if !self.emitted
            && out.is_empty()
            && ERROR.is_in(data)
            && let Some(error) = leading_error(data)
        {
            return Err(error);
        }
        let include_usage = self.include_usage;
        let passing = Passing { raw: event.raw, name: event.name, data, told, seen, include_usage };
        self.provider.pass(&passing, &mut self.observed, out);
        Ok(())
    }

    /// `data: [DONE]`.
    fn done(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.translation.is_none() {
            out.extend_from_slice(event.raw);
            self.observed.finished = true;
            return Ok(());
        }
        self.observed.ended = true;
        self.close(out)
    }

    /// The provider's stream is over: what the two translations still owe.
    fn close(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let Some((reader, _)) = &mut self.translation else {
            // Some providers leave out the last line; a stream whose response has not ended either was cut.
            self.observed.finished = self.observed.ended;
            return if self.observed.ended { Ok(()) } else { Err(cut_short()) };
        };
        let mut chunks = Vec::new();
        reader.finish(&mut self.observed, &mut chunks)?;
        self.write(&chunks, out)?;
        self.finish(out);
        Ok(())
    }

    /// Chat chunks on their way to the client.
    fn write(&mut self, chunks: &[Value], out: &mut Vec<u8>) -> Result<(), Error> {
        let Some((_, writer)) = &mut self.translation else { return Ok(()) };
        for chunk in chunks {
            if self.observed.model.is_none() {
                self.observed.model = chunk.get("model").and_then(Value::as_str).map(str::to_owned);
            }
            writer.chunk(chunk, out)?;
            if self.observed.id.is_none() {
                self.observed.note_id(writer.id().map(str::to_owned));
            }
        }
        Ok(())
    }

    /// The end of the client's stream.
    fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some((_, writer)) = &mut self.translation {
            writer.finish(out);
        }
        self.observed.finished = true;
    }
}

/// The error in a stream's first event (`{"error": …}`, Anthropic's `{"type": "error", …}` included).
fn leading_error(data: &[u8]) -> Option<Error> {
    let value = value::read(data).ok()?;
    if value.get("choices").is_some() { None } else { failure::reported_in(&value) }
}

pub(super) fn not_json(detail: &str) -> Error {
    Error::quoted(Class::Api, format!("the provider's answer is not valid JSON ({detail})"))
}

pub(super) fn too_long(framing: Framing) -> Error {
    let message =
        format!("{} of the provider's stream is larger than {} MiB", framing.unit(), MAX_EVENT_BYTES >> 20);
    Error::provider(Class::Api, message)
}

/// A stream that has stopped before the response came to its end.
pub(super) fn cut_short() -> Error {
    Error::provider(Class::InternalServer, "the provider's stream ended before the answer was complete")
}

/// The content type of a stream or a body for the client.
pub fn content_type(streaming: bool) -> &'static str {
    if streaming { "text/event-stream; charset=utf-8" } else { "application/json" }
}
