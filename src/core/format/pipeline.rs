//! Answers: a wire format's body or stream as a client API's.
//!
//! [`Pipeline`] does all of it for one attempt: framing, translation over the chat hub where the formats differ, usage out of
//! whatever comes by, and hiding what the client did not ask for. Where the formats are the same, bytes pass as they are.

use serde_json::Value;

use crate::core::{
    api::Api,
    codec::{
        glance::{Glance, Member},
        json::Object,
        sse,
        tap::Tap,
        texts::Texts,
        value,
        words::Word,
    },
    error::{Error, Quoted},
    format::{Memo, Stamp, completions, failure, generate, messages, words::Said},
    model::{failure::Class, terms::Terms, usage::Usage},
    provider::Wire,
};

static ERROR: Word = Word::new("\"error\"");
static MESSAGE_STOP: Word = Word::new("\"message_stop\"");

/// What an event says of its usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It does not name it.
    Nothing,
    /// It names it and says nothing.
    Null,
    /// It tells it.
    Usage,
}

/// How many events may come before the one that names the answer.
const EVENTS_WITH_ID: u64 = 4;

/// No event of a stream may be larger than this: a whole image fits, a runaway provider does not.
const MAX_EVENT_BYTES: usize = 32 * 1024 * 1024;

/// The answer of one attempt on its way to the client.
pub struct Pipeline {
    api: Api,
    wire: Wire,
    memo: Memo,
    stamp: Stamp,
    decoder: sse::Decoder,
    to_hub: ToHub,
    to_client: ToClient,
    usage: Option<Usage>,
    /// What the call is charged by: as asked, then as the provider says.
    terms: Terms,
    /// The model the provider says it used.
    model: Option<String>,
    /// The id that the client finds in the answer.
    id: Option<String>,
    /// What its tokens are estimated from when it does not say its usage.
    texts: Texts,
    glance: Glance,
    /// There is an answer, and not a failure in its place.
    answered: bool,
    /// Events with content.
    events: u64,
    /// Whether anything has gone out.
    emitted: bool,
    /// The answer in the stream has ended, by its own word: what may still come is usage and the end of the stream.
    ended: bool,
    /// The stream has said that it is over.
    finished: bool,
}

/// The wire format's stream as chat chunks.
enum ToHub {
    /// Already chat, or passed as it is.
    Same,
    Messages(messages::stream::read::Stream),
    Completions(completions::response::read::Stream),
    Generate(generate::response::Stream),
}

/// Chat chunks as the client API's stream.
enum ToClient {
    Chat,
    Completions(completions::response::write::Stream),
    Messages(messages::response::write::Stream),
}

/// Whether client and provider speak the same format, so that answers pass.
pub fn is_same(api: Api, wire: Wire) -> bool {
    matches!(
        (api, wire),
        (Api::Chat, Wire::Chat)
            | (Api::Completions, Wire::Completions)
            | (Api::Embeddings, Wire::Embeddings)
            | (Api::Messages, Wire::Messages)
    )
}

impl Pipeline {
    /// Starts the answer of one attempt.
    pub fn new(api: Api, wire: Wire, memo: Memo, stamp: Stamp) -> Pipeline {
        let same = is_same(api, wire);
        // Usage is always wanted in here; hiding it from a client that did not ask is the last step's business.
        let inner = Memo { include_usage: true, ..memo.clone() };
        let to_hub = match wire {
            _ if same => ToHub::Same,
            Wire::Messages => ToHub::Messages(messages::stream::read::Stream::new(&inner, &stamp)),
            Wire::Completions => ToHub::Completions(completions::response::read::Stream::new(&inner, &stamp)),
            Wire::Generate => ToHub::Generate(generate::response::Stream::new(&inner, &stamp)),
            Wire::Chat | Wire::Embeddings => ToHub::Same,
        };
        let to_client = match api {
            _ if same => ToClient::Chat,
            Api::Completions => {
                ToClient::Completions(completions::response::write::Stream::new(&inner, &stamp))
            }
            Api::Messages => ToClient::Messages(messages::response::write::Stream::new(&inner, &stamp)),
            Api::Chat | Api::Embeddings => ToClient::Chat,
        };
        Pipeline {
            api,
            wire,
            terms: memo.terms,
            memo,
            stamp,
            decoder: sse::Decoder::new(MAX_EVENT_BYTES),
            to_hub,
            to_client,
            usage: None,
            model: None,
            id: None,
            texts: Texts::default(),
            glance: Glance::default(),
            answered: false,
            events: 0,
            emitted: false,
            ended: false,
            finished: false,
        }
    }

    /// What the provider said it used, so far.
    pub fn usage(&self) -> Option<&Usage> {
        self.usage.as_ref()
    }

    /// What the answer used so far: as the provider says, and estimated where it says nothing, or nothing that can be. `None`
    /// when there is no answer. `prompt_tokens` is asked only when the prompt has to be estimated.
    pub fn used(&self, prompt_tokens: impl FnOnce() -> u64) -> Option<Usage> {
        match &self.usage {
            Some(told) => Some(told.clone().filled(prompt_tokens, || self.texts.bytes())),
            None if self.answered || self.events > 0 => {
                Some(Usage::estimate(prompt_tokens(), self.texts.bytes()))
            }
            None => None,
        }
    }

    /// What it is charged by, so far.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// The model the provider said it used.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The id that the client finds in the answer, when it has one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Events with content so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// What is wanted of an answer that passes as it is.
    pub const NOTED: &'static [&'static str] = &["usage", "model", "service_tier", "id"];

    /// Looks at a part of a large answer that passes.
    pub fn pass_by(&mut self, part: &[u8]) {
        self.answered = true;
        if self.api != Api::Embeddings {
            self.texts.push(part);
        }
    }

    /// Takes that out of the members that a [`Tap`] caught of a large answer.
    pub fn note(&mut self, tap: &Tap) {
        if let Some(usage) = tap.get("usage").and_then(|raw| std::str::from_utf8(raw).ok()) {
            self.usage = self.read_usage(usage);
        }
        self.model = tap.get("model").and_then(|raw| serde_json::from_slice(raw).ok());
        self.note_id(tap.get("id").and_then(|raw| serde_json::from_slice(raw).ok()));
        self.note_tier(tap.get("service_tier").and_then(|raw| serde_json::from_slice(raw).ok()));
    }

    /// An id of the answer. An empty one names nothing: Azure's first event has it.
    fn note_id(&mut self, id: Option<String>) {
        self.id = self.id.take().or(id.filter(|id| !id.is_empty()));
    }

    /// The tier that the provider says it served, if it says one.
    fn note_tier(&mut self, tier: Option<String>) {
        tier.into_iter().for_each(|tier| self.terms.served(&tier));
    }

    /// A buffered answer. `None`: it goes to the client as it is.
    pub fn whole(&mut self, body: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if is_same(self.api, self.wire) {
            let object = Object::parse(body).map_err(|e| not_json(&e.to_string()))?;
            self.usage = object.raw("usage").and_then(|usage| self.read_usage(usage));
            self.model = object.read("model");
            self.note_id(object.read("id"));
            self.note_tier(object.read("service_tier"));
            self.answered = object.raw("error").is_none_or(|error| error == "null");
            self.count_whole(body);
            return Ok(None);
        }
        let value = value::read(body).map_err(|e| not_json(&e.to_string()))?;
        self.note_terms(&value);
        if self.wire == Wire::Messages {
            self.usage = value.get("usage").and_then(Usage::from_anthropic);
        }
        let chat = match self.wire {
            Wire::Messages => messages::response::read::answer(&value, &self.memo, &self.stamp)?,
            Wire::Completions => completions::response::read::answer(&value, &self.memo, &self.stamp)?,
            Wire::Generate => generate::response::answer(&value, &self.memo, &self.stamp)?,
            Wire::Chat | Wire::Embeddings => value,
        };
        if self.wire != Wire::Messages {
            self.usage = chat.get("usage").and_then(Usage::from_openai);
        }
        self.answered = true;
        self.count_whole(body);
        self.model = chat.get("model").and_then(Value::as_str).map(str::to_owned);
        let answer = match self.api {
            Api::Messages => messages::response::write::answer(&chat, &self.memo, &self.stamp)?,
            Api::Completions => completions::response::write::answer(&chat, &self.memo, &self.stamp)?,
            Api::Chat | Api::Embeddings => chat,
        };
        self.note_id(answer.get("id").and_then(Value::as_str).map(str::to_owned));
        Ok(Some(value::to_bytes(&answer)))
    }

    /// Counts the texts of a buffered answer, if its tokens have to be estimated.
    fn count_whole(&mut self, body: &[u8]) {
        if self.api != Api::Embeddings && self.usage.as_ref().is_none_or(|usage| usage.no_completion) {
            self.texts.push(body);
        }
    }

    /// Looks at an event without parsing it: whether it ends a choice, how much text it has (which is needed when the client
    /// goes away as well, so nobody can know yet), and what it says of its usage.
    fn look(&mut self, data: &[u8]) -> Told {
        let mut told = Told::Nothing;
        let Pipeline { glance, texts, ended, wire, .. } = self;
        let has_deltas = matches!(wire, Wire::Chat | Wire::Messages);
        glance.at(data, |member, value| match member {
            Member::Delta if has_deltas => texts.push_value(value),
            Member::Delta => {}
            Member::FinishReason => *ended |= value.starts_with(b"\""),
            Member::Usage if value.starts_with(b"null") && told == Told::Nothing => told = Told::Null,
            Member::Usage if value.starts_with(b"null") => {}
            Member::Usage => told = Told::Usage,
        });
        if *wire == Wire::Completions {
            texts.push(data);
        }
        told
    }

    /// One chunk of a streamed answer; what the client is to get of it is appended to `out`.
    ///
    /// An error is returned only while nothing has gone out, so that the attempt can still be retried; later ones become an
    /// event of the stream.
    pub fn chunk(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        if self.finished {
            return Ok(());
        }
        let mut decoder = std::mem::replace(&mut self.decoder, sse::Decoder::new(MAX_EVENT_BYTES));
        decoder.push(chunk);
        let mut result = Ok(());
        while let Some(frame) = decoder.next() {
            result = match frame {
                Ok(frame) => self.frame(&frame, out),
                Err(_) => Err(too_long()),
            };
            if result.is_err() || self.finished {
                break;
            }
        }
        self.decoder = decoder;
        self.settle(result, out)
    }

    /// The end of a streamed answer.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.finished {
            return Ok(());
        }
        let mut decoder = std::mem::replace(&mut self.decoder, sse::Decoder::new(MAX_EVENT_BYTES));
        let mut result = Ok(());
        if let Some(Ok(frame)) = decoder.finish() {
            result = self.frame(&frame, out);
        }
        if result.is_ok() && !self.finished {
            result = self.close(out);
        }
        self.settle(result, out)
    }

    /// Turns an error into an event once something has gone out.
    fn settle(&mut self, result: Result<(), Error>, out: &mut Vec<u8>) -> Result<(), Error> {
        match result {
            Err(error) if self.emitted || !out.is_empty() => {
                out.extend_from_slice(&error.event(self.api.error_format()));
                self.emitted = true;
                self.finished = true;
                Ok(())
            }
            other => {
                self.emitted |= !out.is_empty();
                other
            }
        }
    }

    /// One event of the provider's stream.
    fn frame(&mut self, frame: &sse::Frame<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let data = frame.data.as_ref();
        if data.is_empty() {
            // A comment or a bare event name keeps the connection alive; it means nothing in another format.
            if is_same(self.api, self.wire) {
                out.extend_from_slice(frame.raw);
            }
            return Ok(());
        }
        if data == b"[DONE]" {
            return self.done(frame, out);
        }
        self.events = self.events.saturating_add(1);
        let told = self.look(data);
        if is_same(self.api, self.wire) {
            return self.pass(frame, data, told, out);
        }
        let value = value::read(data).map_err(|e| not_json(&e.to_string()))?;
        if let Some(error) =
            value.get("error").filter(|error| !error.is_null() && self.wire != Wire::Messages)
        {
            return Err(stream_error(error));
        }
        self.note_terms(&value);
        match self.wire {
            Wire::Messages => self.note_anthropic_usage(&value),
            Wire::Generate => self.count_generated(&value, data),
            _ => {}
        }
        let mut chunks = Vec::new();
        match &mut self.to_hub {
            ToHub::Same => chunks.push(value),
            ToHub::Messages(stream) => stream.push(&value, &mut chunks)?,
            ToHub::Completions(stream) => stream.push(&value, &mut chunks)?,
            ToHub::Generate(stream) => stream.push(&value, &mut chunks)?,
        }
        for chunk in chunks {
            self.hub_chunk(&chunk, out)?;
        }
        if matches!(&self.to_hub, ToHub::Messages(stream) if stream.finished()) {
            self.finish_client(out)?;
        }
        Ok(())
    }

    /// An event that needs no translation: passed as it came, unless it holds usage that the client did not ask for.
    fn pass(
        &mut self,
        frame: &sse::Frame<'_>,
        data: &[u8],
        told: Told,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if !self.emitted
            && out.is_empty()
            && ERROR.is_in(data)
            && let Some(error) = leading_error(data)
        {
            return Err(error);
        }
        if self.id.is_none() && self.events <= EVENTS_WITH_ID && self.wire != Wire::Messages {
            self.note_first(data);
        }
        if self.wire == Wire::Messages {
            if told != Told::Nothing {
                self.note_anthropic(data);
            }
            self.finished |=
                MESSAGE_STOP.is_in(data) && frame.event.is_none_or(|name| name == b"message_stop");
            out.extend_from_slice(frame.raw);
            return Ok(());
        }
        // With the usage asked for, every event names it, and says nothing of it but in the last.
        let is_known = self.model.is_some() && self.memo.include_usage;
        if told == Told::Nothing || (is_known && told == Told::Null) {
            out.extend_from_slice(frame.raw);
            return Ok(());
        }
        let Ok(mut object) = Object::parse(data) else {
            out.extend_from_slice(frame.raw);
            return Ok(());
        };
        if let Some(usage) = object.raw("usage").and_then(Usage::read_openai) {
            self.note_usage(usage);
        }
        self.note_tier(object.read("service_tier"));
        if self.model.is_none() {
            self.model = object.read("model");
        }
        if self.memo.include_usage || object.raw("usage").is_none() {
            out.extend_from_slice(frame.raw);
            return Ok(());
        }
        let only_usage =
            object.read::<Vec<Value>>("choices").is_none_or(|choices| choices.iter().all(says_nothing));
        if only_usage && object.has("usage") {
            return Ok(());
        }
        object.remove("usage");
        sse::write(out, None, &object.to_bytes());
        Ok(())
    }

    /// The newest usage of a stream counts, unless it tells less than the one before.
    fn note_usage(&mut self, usage: Usage) {
        let tells_less = usage.no_prompt || usage.no_completion;
        if !tells_less || self.usage.as_ref().is_none_or(|known| known.no_prompt || known.no_completion) {
            self.usage = Some(usage);
        }
    }

    /// What every event of a stream names. Some tell the tier in their first event only, others with the usage.
    fn note_first(&mut self, data: &[u8]) {
        let Ok(event) = Object::parse(data) else { return };
        self.note_id(event.read("id"));
        self.model = self.model.take().or(event.read("model").filter(|model: &String| !model.is_empty()));
        self.note_tier(event.read("service_tier"));
    }

    /// Usage out of Anthropic's `message_start` and `message_delta`.
    fn note_anthropic(&mut self, data: &[u8]) {
        let Ok(value) = value::read(data) else { return };
        self.note_terms(&value);
        if let Some(message) = value.get("message") {
            self.model = message.get("model").and_then(Value::as_str).map(str::to_owned);
            self.note_id(message.get("id").and_then(Value::as_str).map(str::to_owned));
        }
        self.note_anthropic_usage(&value);
    }

    fn note_anthropic_usage(&mut self, event: &Value) {
        if let Some(message) = event.get("message") {
            self.usage = message.get("usage").and_then(Usage::begun_by_anthropic);
        } else if let Some(delta) = event.get("usage") {
            match &mut self.usage {
                Some(usage) => usage.merge_anthropic_delta(delta),
                None => self.usage = Usage::from_anthropic(delta),
            }
        }
    }

    /// A token of a generation stream, or the whole text at its end.
    fn count_generated(&mut self, event: &Value, data: &[u8]) {
        if event.get("generated_text").is_some_and(Value::is_string) {
            self.texts = Texts::default();
            let mut event = event.clone();
            event
                .as_object_mut()
                .into_iter()
                .for_each(|event| event.retain(|name, _| name == "generated_text"));
            self.texts.push(&value::to_bytes(&event));
        } else {
            self.texts.push(data);
        }
    }

    /// `data: [DONE]`.
    fn done(&mut self, frame: &sse::Frame<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        if is_same(self.api, self.wire) {
            out.extend_from_slice(frame.raw);
            self.finished = true;
            return Ok(());
        }
        self.ended = true;
        self.close(out)
    }

    /// The provider's stream is over: what the two translations still owe.
    fn close(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        // Some providers leave out the last line; a stream whose answer has not ended either was cut.
        let may_end = self.ended || self.wire == Wire::Generate;
        if !may_end {
            return Err(cut_short());
        }
        if is_same(self.api, self.wire) {
            self.finished = true;
            return Ok(());
        }
        let mut chunks = Vec::new();
        match &mut self.to_hub {
            ToHub::Same => {}
            ToHub::Messages(stream) if stream.finished() => {}
            ToHub::Messages(_) => return Err(cut_short()),
            ToHub::Completions(stream) => stream.finish(&mut chunks),
            ToHub::Generate(stream) => stream.finish(&mut chunks),
        }
        for chunk in chunks {
            self.hub_chunk(&chunk, out)?;
        }
        self.finish_client(out)
    }

    /// One chat chunk on its way to the client.
    fn hub_chunk(&mut self, chunk: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        let has_usage = chunk.get("usage").is_some_and(Value::is_object);
        // Anthropic's has been read before it was translated.
        if has_usage && self.wire != Wire::Messages {
            chunk
                .get("usage")
                .and_then(Usage::from_openai)
                .into_iter()
                .for_each(|usage| self.note_usage(usage));
        }
        if self.model.is_none() {
            self.model = chunk.get("model").and_then(Value::as_str).map(str::to_owned);
        }
        match &mut self.to_client {
            ToClient::Chat => {
                if has_usage && !self.memo.include_usage {
                    return Ok(());
                }
                sse::write(out, None, &value::to_bytes(chunk));
                self.note_id(chunk.get("id").and_then(Value::as_str).map(str::to_owned));
            }
            ToClient::Completions(stream) => {
                let mut texts = Vec::new();
                stream.push(chunk, &mut texts)?;
                for text in texts {
                    if text.get("usage").is_some_and(|usage| !usage.is_null()) && !self.memo.include_usage {
                        continue;
                    }
                    sse::write(out, None, &value::to_bytes(&text));
                }
                let id = stream.id().map(str::to_owned);
                self.note_id(id);
            }
            ToClient::Messages(stream) => {
                let mut events = Vec::new();
                stream.push(chunk, &mut events)?;
                write_events(&events, out);
                let id = stream.id().map(str::to_owned);
                self.note_id(id);
            }
        }
        Ok(())
    }

    /// The end of the client's stream.
    fn finish_client(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        match &mut self.to_client {
            ToClient::Messages(stream) => {
                let mut events = Vec::new();
                stream.finish(&mut events);
                write_events(&events, out);
            }
            ToClient::Chat | ToClient::Completions(_) => sse::write(out, None, b"[DONE]"),
        }
        self.finished = true;
        Ok(())
    }

    /// What an answer, or an event of one, says of its terms.
    fn note_terms(&mut self, answer: &Value) {
        if self.wire != Wire::Messages {
            return self.note_tier(answer.get("service_tier").and_then(Value::as_str).map(str::to_owned));
        }
        let message = answer.get("message").unwrap_or(answer);
        message.get("usage").into_iter().for_each(|usage| self.terms.served_by_anthropic(usage));
    }

    fn read_usage(&mut self, usage: &str) -> Option<Usage> {
        match self.wire {
            Wire::Messages => {
                let usage = serde_json::from_str(usage).ok()?;
                self.terms.served_by_anthropic(&usage);
                Usage::from_anthropic(&usage)
            }
            _ => Usage::read_openai(usage),
        }
    }
}

fn write_events(events: &[(&'static str, Value)], out: &mut Vec<u8>) {
    for (name, event) in events {
        sse::write(out, Some(name), &value::to_bytes(event));
    }
}

/// A choice without news: LiteLLM and some servers put one into the chunk that is about usage.
fn says_nothing(choice: &Value) -> bool {
    let is_empty =
        |value: &Value| value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    choice.get("delta").is_some_and(is_empty) && choice.get("finish_reason").is_none_or(Value::is_null)
}

/// The error in a stream's first event (`{"error": …}`, Anthropic's `{"type": "error", …}` included).
fn leading_error(data: &[u8]) -> Option<Error> {
    let value = value::read(data).ok()?;
    let error = value.get("error").filter(|error| !error.is_null() && value.get("choices").is_none())?;
    Some(stream_error(error))
}

/// An error object inside a stream that began with status 200.
fn stream_error(error: &Value) -> Error {
    let text = error.get("message").and_then(Value::as_str).unwrap_or("the provider reported an error");
    let code = error.get("code").and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
    let class = match error.get("type").and_then(Value::as_str) {
        Some("overloaded_error" | "api_error") => Class::InternalServer,
        Some("rate_limit_error") => Class::RateLimit,
        _ => match code.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code)) {
            Some(status) => failure::class(status, &Said::by_error(error, text)),
            None => Said::by_error(error, text).class(200).unwrap_or(Class::InternalServer),
        },
    };
    let code = Said::by_error(error, text).code().map(str::to_owned);
    Error { quotes: Some(Box::new(Quoted { code })), ..Error::quoted(class, text) }
}

fn not_json(detail: &str) -> Error {
    Error::quoted(Class::Api, format!("the provider's answer is not valid JSON ({detail})"))
}

fn too_long() -> Error {
    Error::provider(Class::Api, "an event of the provider's stream is larger than 32 MiB")
}

fn cut_short() -> Error {
    Error::provider(Class::InternalServer, "the provider's stream ended before the answer was complete")
}

/// The content type of a stream or a body for the client.
pub fn content_type(streaming: bool) -> &'static str {
    if streaming { "text/event-stream; charset=utf-8" } else { "application/json" }
}
