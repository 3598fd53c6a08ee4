//! A provider's response on its way to the client, for one attempt: framing, translation over the pivot where the formats
//! differ, usage out of whatever comes by, and hiding what the client did not ask for. Where the formats are the same, bytes pass
//! as they are.

use serde_json::Value;

use super::{
    Ref, StreamedTexts, chat, failure,
    response::{Observed, Passing, ReadResponse, ResponseIds, Seen, Told, WriteResponse},
    translate::Back,
};
use crate::core::{
    codec::{
        event::Event,
        framing::{self, Framing},
        glance::{Glance, Member},
        json::Object,
        scan::Words,
        tap::Tap,
        value,
    },
    error::{Error, ErrorFormat},
    model::failure::Class,
    model::{terms::Terms, usage::Usage},
};

/// No event of a stream may be larger than this: a whole image fits, a runaway provider does not.
pub(super) const MAX_EVENT_BYTES: usize = 32 * 1024 * 1024;

/// The member, and the name of an event, that report a failure.
const ERROR: &str = "error";
const ERROR_EVENT: &[u8] = ERROR.as_bytes();

/// So many bytes of a stream are kept back that show nothing of the answer. No provider says as little for as long.
const MOST_HELD_BYTES: usize = 64 * 1024;

/// The response of one attempt on its way to the client.
pub struct Pipeline {
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
    /// Something of the answer has come: nothing else can be tried any more.
    has_begun: bool,
    /// Bytes of a stream that came before that.
    held: usize,
}

impl Pipeline {
    /// Starts the response of one attempt. `terms` are those it was asked on.
    pub fn new(back: Back, terms: Terms, ids: &ResponseIds) -> Pipeline {
        Pipeline {
            provider: back.provider,
            include_usage: back.include_usage,
            translation: back.translation.map(|(reader, writer)| (reader(ids), writer(ids))),
            decoder: framing::Decoder::new(back.provider.framing(), MAX_EVENT_BYTES),
            texts: back.provider.texts(),
            glance: Glance::default(),
            observed: Observed { terms, ..Observed::default() },
            has_response: false,
            has_begun: false,
            held: 0,
        }
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

    /// Whether a stream has shown anything of the answer, or has come to its end. Until then nothing of it needs to go to the client,
    /// and another attempt may take its place.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// What is wanted of a response that passes as it is.
    pub const NOTED: &'static [&'static str] = &["usage", "model", "service_tier", "id", ERROR];

    /// Whether the beginning of a large response says that it is none.
    pub fn begins_with_failure(tap: &Tap) -> bool {
        match tap.get(ERROR).map(std::str::from_utf8) {
            Some(whole) => !whole.is_ok_and(failure::says_nothing),
            // It is not here whole, or it is a large one.
            None => matches!(tap.first(ERROR), Some(b'{' | b'[' | b'"')),
        }
    }

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
        let made = reader.whole(value, &mut self.observed).and_then(|chat| {
            self.observed.model = chat.get("model").and_then(Value::as_str).map(str::to_owned);
            writer.whole(chat)
        });
        let written = made.map_err(|error| verdict(self.provider, body).unwrap_or(error))?;
        self.has_response = true;
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
        // What each response has is always the same kind of value, so nobody need read it.
        let (member, _) = self.provider.answer();
        let has_answer = object.raw(member).is_some_and(|answer| answer.starts_with('['));
        let may_fail = object.raw(ERROR).is_some_and(|error| !failure::says_nothing(error))
            || object.words(member).have(Words::ERROR);
        if (may_fail || !has_answer)
            && let Some(error) = verdict(self.provider, body)
        {
            return Err(error);
        }
        self.has_response = true;
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
    /// goes away as well, so nobody can know yet), what it says of its usage, what clients may know by another name, and whether it
    /// may report a failure.
    fn look(&mut self, event: &Event<'_>, data: &[u8]) -> Look {
        let mut look = Look { has_error: event.name == Some(ERROR_EVENT), ..Look::default() };
        let Pipeline { glance, observed, texts, .. } = self;
        let has_deltas = *texts == StreamedTexts::Deltas;
        glance.at(data, |member, value| {
            look.is_usual |= member != Member::Error;
            match member {
                Member::Delta if has_deltas => observed.texts.push_value(value),
                Member::Delta => {}
                Member::FinishReason => {
                    observed.ended |= value.starts_with(b"\"");
                    look.seen.stop |= value.starts_with(b"\"stop\"");
                }
                Member::Reasoning => look.seen.reasoning |= value.starts_with(b"\""),
                Member::ToolCalls => look.seen.calls |= value.starts_with(b"[") && !value.starts_with(b"[]"),
                Member::Usage if !value.starts_with(b"null") => look.told = Told::Usage,
                Member::Usage if look.told == Told::Nothing => look.told = Told::Null,
                Member::Usage => {}
                Member::Error => look.has_error |= !value.starts_with(b"null"),
            }
        });
        if *texts == StreamedTexts::Events {
            observed.texts.push(data);
        }
        look
    }

    /// One chunk of a streamed response; what the client is to get of it is appended to `out`.
    ///
    /// An error ends the stream. Unless it [has begun](Self::has_begun) nothing of it has been seen yet, and the attempt can still be
    /// retried; after that the error is the client's last event.
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
        self.settle(result)
    }

    /// The end of a streamed response.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.observed.finished {
            return Ok(());
        }
        let mut decoder = std::mem::take(&mut self.decoder);
        let mut result = Ok(());
        if let Some(Ok(event)) = decoder.finish() {
            result = self.last_event(&event, out);
        }
        if result.is_ok() && !self.observed.finished {
            result = self.close(out);
        }
        self.settle(result)
    }

    /// Nothing follows an error, nor the end.
    fn settle(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        self.observed.finished |= result.is_err();
        self.has_begun |= self.observed.finished && result.is_ok();
        result
    }

    /// An event that the stream stopped in. It may lack no more than the blank line behind it.
    fn last_event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let data = event.data.as_ref();
        let is_whole = data.is_empty()
            || event.is_done()
            || serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok();
        if !is_whole {
            return Err(cut_short());
        }
        self.event(event, out)?;
        if !self.observed.finished && self.translation.is_none() && !out.is_empty() {
            // Whatever follows is an event of its own.
            out.extend_from_slice(b"\n\n");
        }
        Ok(())
    }

    /// One event of the provider's stream.
    fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let data = event.data.as_ref();
        if !self.has_begun {
            self.held = self.held.saturating_add(event.raw.len());
            self.has_begun = self.held > MOST_HELD_BYTES;
        }
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
        let look = self.look(event, data);
        if self.translation.is_none() {
            return self.pass(event, data, look, out);
        }
        let value = value::read_exact(data).map_err(|e| not_json(&e.to_string()))?;
        if look.may_fail()
            && let Some(error) = self.failure_in(event, data, &value)
        {
            return Err(error);
        }
        self.observed.events = self.observed.events.saturating_add(1);
        let Some((reader, _)) = &mut self.translation else { return Ok(()) };
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
    fn pass(&mut self, event: &Event<'_>, data: &[u8], look: Look, out: &mut Vec<u8>) -> Result<(), Error> {
        // Anthropic's errors have a name, and half of its events are not usual.
        let may_fail =
            look.has_error || (look.may_fail() && self.provider.error_format() == ErrorFormat::OpenAi);
        if may_fail {
            let value = value::read(data).unwrap_or_default();
            if let Some(error) = self.failure_in(event, data, &value) {
                return Err(error);
            }
        }
        self.observed.events = self.observed.events.saturating_add(1);
        self.has_begun = self.has_begun || self.observed.ended || self.provider.shows(data);
        let include_usage = self.include_usage;
        let Look { told, seen, .. } = look;
        let passing = Passing { raw: event.raw, name: event.name, data, told, seen, include_usage };
        self.provider.pass(&passing, &mut self.observed, out);
        Ok(())
    }

    /// The failure that an event reports, or is called.
    fn failure_in(&self, event: &Event<'_>, data: &[u8], value: &Value) -> Option<Error> {
        let is_named = event.name == Some(ERROR_EVENT);
        self.provider.read_error(value).or_else(|| is_named.then(|| failure::named(data, value)))
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

    /// The provider's stream is over: what is still owed to the client.
    fn close(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let Some((reader, _)) = &mut self.translation else {
            // Some providers leave out the last line; a stream whose response has not ended either was cut.
            if !self.observed.ended {
                return Err(cut_short());
            }
            out.extend_from_slice(self.provider.end_of_stream());
            self.observed.finished = true;
            return Ok(());
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
            self.has_begun = self.has_begun || chat::stream::shows(chunk);
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

/// The failure in a body that came with a good status.
fn verdict(provider: Ref, body: &[u8]) -> Option<Error> {
    failure::verdict(provider, &value::read(body).unwrap_or_default())
}

/// What a glance at an event tells.
#[derive(Clone, Copy, Default)]
struct Look {
    told: Told,
    seen: Seen,
    /// Whether the event is called an error, or has one in it.
    has_error: bool,
    /// Whether the event has something that events have which are a piece of the response.
    is_usual: bool,
}

impl Look {
    /// Whether it is worth reading for the failure in it.
    fn may_fail(self) -> bool {
        self.has_error || !self.is_usual
    }
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

#[cfg(test)]
mod tests;
