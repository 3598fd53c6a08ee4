//! A whole chat completion as a stream of it, and the other way round.

use serde_json::{Map, Value};

use super::response::{failure_in, index_of, unreadable};
use crate::core::{
    codec::{
        sse,
        value::{self, object},
    },
    error::Error,
    format::{
        pipeline::cut_short,
        reshape::{self, MOST_OPEN},
        response::Join,
    },
};

/// Writes a `chat.completion` as a stream: of each choice who speaks and what, each of its calls, how it ends; then the usage.
pub fn write(mut body: Value, out: &mut Vec<u8>) -> Result<(), Error> {
    if let Some(error) = failure_in(&body) {
        return Err(error);
    }
    let choices = body.get_mut("choices").map(Value::take);
    let Some(Value::Array(choices)) = choices.filter(|choices| choices.get(0).is_some()) else {
        return Err(unreadable("no `choices`"));
    };
    let Value::Object(mut head) = body else { return Err(unreadable("no `choices`")) };
    let usage = head.shift_remove("usage").filter(Value::is_object);
    head.insert("object".into(), "chat.completion.chunk".into());
    let mut chunk = |choices: Vec<Value>, usage: Option<Value>| {
        head.insert("choices".into(), choices.into());
        usage.into_iter().for_each(|usage| _ = head.insert("usage".into(), usage));
        sse::write(out, None, &value::to_bytes(&Value::Object(head.clone())));
    };
    for (at, choice) in choices.into_iter().enumerate() {
        pieces(at, choice).into_iter().for_each(|piece| chunk(vec![piece], None));
    }
    if usage.is_some() {
        chunk(Vec::new(), usage);
    }
    sse::write(out, None, b"[DONE]");
    Ok(())
}

/// The choices of the chunks that one choice becomes.
fn pieces(at: usize, choice: Value) -> Vec<Value> {
    let Value::Object(mut choice) = choice else { return Vec::new() };
    let index = choice.shift_remove("index").unwrap_or_else(|| at.into());
    let reason = choice.shift_remove("finish_reason").filter(Value::is_string);
    let mut delta = match choice.shift_remove("message").or(choice.shift_remove("delta")) {
        Some(Value::Object(message)) => message,
        _ => Map::new(),
    };
    let calls = delta.shift_remove("tool_calls");
    delta.retain(|name, value| name == "content" || !value.is_null());
    delta.entry("role").or_insert_with(|| "assistant".into());
    if let Some(Value::Array(blocks)) = delta.get_mut("thinking_blocks") {
        number(blocks);
    }
    let piece = |delta: Value, reason: Value| {
        object! {"index": index.clone(), "delta": delta, "finish_reason": reason}
    };
    let mut first = piece(delta.into(), Value::Null);
    if let Some(first) = first.as_object_mut() {
        // What else is said of a choice (`logprobs`) is said once.
        first.extend(choice);
    }
    let mut all = vec![first];
    if let Some(Value::Array(mut calls)) = calls {
        number(&mut calls);
        all.extend(calls.into_iter().map(|call| piece(object! {"tool_calls": [call]}, Value::Null)));
    }
    all.push(piece(object! {}, reason.unwrap_or_else(|| "stop".into())));
    all
}

/// Gives the entries of a list the index by which clients put streams together.
fn number(entries: &mut [Value]) {
    for (at, entry) in entries.iter_mut().enumerate() {
        if let Value::Object(entry) = entry {
            entry.entry("index").or_insert_with(|| at.into());
        }
    }
}

/// Puts chunks together.
#[derive(Debug, Default)]
pub struct Joined {
    /// What every chunk says, of the first; later ones add to it what it lacks.
    head: Map<String, Value>,
    choices: Vec<(u64, Choice)>,
    usage: Option<Value>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Choice {
    message: Map<String, Value>,
    calls: Vec<Map<String, Value>>,
    /// What else is said of it.
    rest: Map<String, Value>,
}

impl Join for Joined {
    fn event(&mut self, event: Value) -> Result<(), Error> {
        let Value::Object(mut event) = event else { return Ok(()) };
        let choices = event.shift_remove("choices");
        self.usage = event.shift_remove("usage").filter(Value::is_object).or(self.usage.take());
        for (name, value) in event {
            let known = self.head.entry(name).or_insert(Value::Null);
            if known.is_null() || known.as_str() == Some("") {
                *known = value;
            }
        }
        let Some(Value::Array(choices)) = choices else { return Ok(()) };
        for choice in choices {
            let index = index_of(&choice);
            let Value::Object(choice) = choice else { continue };
            self.ended |= choice.get("finish_reason").is_some_and(Value::is_string);
            let at = self.choices.iter().position(|(known, _)| *known == index);
            let at = at.unwrap_or_else(|| {
                self.choices.push((index, Choice::default()));
                self.choices.len().saturating_sub(1)
            });
            if let Some((_, known)) = self.choices.get_mut(at) {
                known.add(choice);
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, done: bool) -> Result<Value, Error> {
        if !self.ended && !done {
            return Err(cut_short());
        }
        if self.choices.is_empty() {
            return Err(unreadable("no `choices`"));
        }
        self.choices.sort_by_key(|(index, _)| *index);
        let choices: Vec<Value> =
            self.choices.into_iter().map(|(index, choice)| choice.into_whole(index)).collect();
        self.head.insert("object".into(), "chat.completion".into());
        self.head.insert("choices".into(), choices.into());
        self.usage.into_iter().for_each(|usage| _ = self.head.insert("usage".into(), usage));
        Ok(self.head.into())
    }
}

impl Choice {
    fn add(&mut self, mut piece: Map<String, Value>) {
        piece.shift_remove("index");
        if let Some(Value::Object(mut delta)) = piece.shift_remove("delta") {
            if let Some(Value::Array(calls)) = delta.shift_remove("tool_calls") {
                calls.into_iter().for_each(|call| self.add_call(call));
            }
            reshape::add(&mut self.message, delta);
        }
        // The last word counts.
        if let Some(reason) = piece.shift_remove("finish_reason").filter(Value::is_string) {
            self.rest.insert("finish_reason".into(), reason);
        }
        reshape::add(&mut self.rest, piece);
    }

    /// Servers differ: `index` may be missing, and the same for every call.
    fn add_call(&mut self, call: Value) {
        let Value::Object(piece) = call else { return };
        let text = |call: &Map<String, Value>, name: &str| {
            call.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let index = |call: &Map<String, Value>| call.get("index").and_then(Value::as_u64);
        let (at, id) = (index(&piece), text(&piece, "id"));
        let named = piece.get("function").and_then(|function| function.get("name")).and_then(Value::as_str);
        let begins_without_index =
            at.is_none() && id.is_empty() && named.is_some_and(|name| !name.is_empty());
        let is_continued = |known: &Map<String, Value>| {
            let known_id = text(known, "id");
            at.is_none_or(|at| index(known) == Some(at))
                && (id.is_empty() || known_id.is_empty() || known_id == id)
                && !begins_without_index
        };
        match self.calls.iter_mut().rev().take(MOST_OPEN).find(|known| is_continued(known)) {
            Some(known) => reshape::add(known, piece),
            None => self.calls.push(piece),
        }
    }

    fn into_whole(mut self, index: u64) -> Value {
        let message = &mut self.message;
        message.entry("role").or_insert_with(|| "assistant".into());
        let has_text = message.get("content").and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        let calls = self.calls.into_iter().map(without_index).collect::<Vec<Value>>();
        let is_blank = message.contains_key("content") && calls.is_empty();
        if !has_text && !is_blank {
            message.insert("content".into(), Value::Null);
        }
        if !calls.is_empty() {
            message.insert("tool_calls".into(), calls.into());
        }
        if let Some(Value::Array(blocks)) = message.get_mut("thinking_blocks") {
            for block in blocks.iter_mut().filter_map(Value::as_object_mut) {
                block.shift_remove("index");
            }
        }
        let mut choice = Map::new();
        choice.insert("index".into(), index.into());
        choice.insert("message".into(), self.message.into());
        choice.extend(self.rest);
        choice.entry("finish_reason").or_insert_with(|| "stop".into());
        choice.into()
    }
}

fn without_index(mut call: Map<String, Value>) -> Value {
    call.shift_remove("index");
    call.into()
}
