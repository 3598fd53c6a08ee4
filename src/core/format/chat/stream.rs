//! Chat streams: those that pass, those that are read for another format, and those that are written from one.

use serde_json::Value;

use super::{
    super::{
        failure::is_empty,
        pipeline::cut_short,
        response::{Observed, Passing, ReadResponse, Told, WriteResponse},
    },
    mend, thought,
};
use crate::core::{
    codec::{json::Object, needle::Needle, scan, sse, value},
    error::Error,
    model::usage::Usage,
};

static DELTA: Needle = Needle::new("\"delta\"");

/// How many events may come before the one that names the response.
const EVENTS_WITH_ID: u64 = 4;

/// Passes an event, put right where clients know something by another name, and without the usage that the client did not ask for.
pub fn pass(event: &Passing<'_>, observed: &mut Observed, out: &mut Vec<u8>) {
    let Some(data) = mend::event(event.data, event.seen, &mut observed.called) else {
        return pass_on(event, observed, out);
    };
    let mut raw = Vec::with_capacity(data.len() + 16);
    sse::write(&mut raw, event.name.and_then(|name| std::str::from_utf8(name).ok()), &data);
    pass_on(&Passing { raw: &raw, data: &data, ..*event }, observed, out);
}

fn pass_on(event: &Passing<'_>, observed: &mut Observed, out: &mut Vec<u8>) {
    if observed.id.is_none() && observed.events <= EVENTS_WITH_ID {
        note_first(event.data, observed);
    }
    // With the usage asked for, every event names it, and says nothing of it but in the last.
    let is_known = observed.model.is_some() && event.include_usage;
    if event.told == Told::Nothing || (is_known && event.told == Told::Null) {
        return out.extend_from_slice(event.raw);
    }
    let Ok(mut object) = Object::parse(event.data) else {
        return out.extend_from_slice(event.raw);
    };
    if let Some(usage) = object.raw("usage").and_then(Usage::read_openai) {
        observed.note_usage(usage);
    }
    observed.note_tier(object.read::<String>("service_tier").as_deref());
    if observed.model.is_none() {
        observed.model = object.read("model");
    }
    if event.include_usage || object.raw("usage").is_none() {
        return out.extend_from_slice(event.raw);
    }
    let only_usage =
        object.read::<Vec<Value>>("choices").is_none_or(|choices| choices.iter().all(says_nothing));
    if only_usage && object.has("usage") {
        return;
    }
    object.remove("usage");
    sse::write(out, None, &object.to_bytes());
}

/// What every event of a stream names. Some tell the tier in their first event only, others with the usage.
fn note_first(data: &[u8], observed: &mut Observed) {
    let Ok(event) = Object::parse(data) else { return };
    observed.note_id(event.read("id"));
    observed.model = observed.model.take().or(event.read("model").filter(|model: &String| !model.is_empty()));
    observed.note_tier(event.read::<String>("service_tier").as_deref());
}

/// Whether an event shows something of the answer: read from its text, because every stream begins with one that does not.
pub fn is_shown_in(data: &[u8]) -> bool {
    let mut deltas = DELTA.values(data).peekable();
    match deltas.peek() {
        Some(_) => deltas.any(says_something),
        // What has no delta may have a whole message.
        None => value::read(data).is_ok_and(|event| shows(&event)),
    }
}

/// Whether the delta that `text` begins with has anything in it besides a role.
fn says_something(text: &[u8]) -> bool {
    let Some(mut rest) = text.strip_prefix(b"{") else { return !text.starts_with(b"null") };
    loop {
        rest = rest.trim_ascii_start();
        rest = rest.strip_prefix(b",").unwrap_or(rest).trim_ascii_start();
        if rest.starts_with(b"}") {
            return false;
        }
        let Some(name) = rest.strip_prefix(b"\"") else { return true };
        let (name, after) = name.split_at_checked(scan::string_end(name, 0)).unwrap_or_default();
        let Some(value) = after.trim_ascii_start().strip_prefix(b":") else { return true };
        let value = value.trim_ascii_start();
        let empty = EMPTY.iter().find_map(|empty| value.strip_prefix(*empty));
        let role = || value.strip_prefix(b"\"").filter(|_| name == b"role\"");
        match empty.or_else(|| role().and_then(|role| role.get(scan::string_end(role, 0)..))) {
            Some(after) => rest = after,
            None => return true,
        }
    }
}

/// Values that say nothing.
const EMPTY: [&[u8]; 4] = [b"null", b"\"\"", b"[]", b"{}"];

/// Whether a chunk, of chat or of text, shows something of the answer: a piece of it, a whole message, or that it has ended.
pub fn shows(chunk: &Value) -> bool {
    let choices = chunk.get("choices").and_then(Value::as_array).into_iter().flatten();
    choices.into_iter().any(|choice| {
        let says = |name: &str| choice.get(name).is_some_and(|value| !is_empty(value));
        let delta = choice.get("delta").and_then(Value::as_object);
        says("finish_reason")
            || says("message")
            || says("text")
            || delta.into_iter().flatten().any(|(name, value)| name != "role" && !is_empty(value))
    })
}

/// A choice without news: LiteLLM and some servers put one into the chunk that is about usage.
fn says_nothing(choice: &Value) -> bool {
    let is_empty =
        |value: &Value| value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    choice.get("delta").is_some_and(is_empty) && choice.get("finish_reason").is_none_or(Value::is_null)
}

/// Reads a response that is chat already.
pub struct Reader;

impl ReadResponse for Reader {
    fn whole(&mut self, mut body: Value, observed: &mut Observed) -> Result<Value, Error> {
        observed.note_openai(&body);
        let choices = body.get_mut("choices").and_then(Value::as_array_mut).into_iter().flatten();
        let messages = choices.filter_map(|choice| choice.get_mut("message")?.as_object_mut());
        messages.for_each(thought::split_in);
        Ok(body)
    }

    fn event(
        &mut self,
        event: Value,
        _data: &[u8],
        observed: &mut Observed,
        chunks: &mut Vec<Value>,
    ) -> Result<(), Error> {
        observed.note_openai(&event);
        chunks.push(event);
        Ok(())
    }

    fn finish(&mut self, observed: &mut Observed, _chunks: &mut Vec<Value>) -> Result<(), Error> {
        // Some providers leave out the last line; a stream whose response has not ended either was cut.
        if observed.ended { Ok(()) } else { Err(cut_short()) }
    }
}

/// Writes chat for a client.
pub struct Writer {
    include_usage: bool,
    id: Option<String>,
}

impl Writer {
    /// A writer for a client that asked for the usage of its stream or did not.
    pub fn new(include_usage: bool) -> Writer {
        Writer { include_usage, id: None }
    }
}

impl WriteResponse for Writer {
    fn whole(&mut self, chat: Value) -> Result<Value, Error> {
        Ok(chat)
    }

    fn chunk(&mut self, chunk: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        if chunk.get("usage").is_some_and(Value::is_object) && !self.include_usage {
            return Ok(());
        }
        sse::write(out, None, &value::to_bytes(chunk));
        if self.id.is_none() {
            self.id = chunk.get("id").and_then(Value::as_str).map(str::to_owned);
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        sse::write(out, None, b"[DONE]");
    }

    fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}
