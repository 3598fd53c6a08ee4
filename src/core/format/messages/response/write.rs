//! A chat answer as an Anthropic message, and chat chunks as Anthropic's events.

use serde_json::{Map, Value};

use super::super::stream::{Event, blocks::Blocks, made_up_id};
use crate::core::{
    codec::{
        sse,
        value::{self, object},
    },
    error::Error,
    format::{
        chat::response as chat,
        response::{ResponseIds, WriteResponse},
    },
};

/// Makes the Anthropic message of a `chat.completion`. A message has one answer: the first choice.
pub fn answer(body: &Value, stamp: &ResponseIds) -> Result<Value, Error> {
    let choices = chat::choices_of(body)?;
    let choice = choices.first().ok_or_else(|| chat::unreadable("no `choices`"))?;
    let empty = Map::new();
    let message = choice.get("message").and_then(Value::as_object).unwrap_or(&empty);
    let stamp = message_stamp(&chat::stamp_of(body, stamp));
    let content = content(message, &stamp);
    let has = |kind: &str| content.iter().any(|block| block.get("type").is_some_and(|it| it == kind));
    let reason = stop_reason(
        choice.get("finish_reason").and_then(Value::as_str),
        has("tool_use"),
        !refusal(message).is_empty(),
    );
    let usage = usage(body.get("usage")).unwrap_or_else(|| object! {"input_tokens": 0, "output_tokens": 0});
    Ok(object! {
        "id": stamp.id,
        "type": "message",
        "role": "assistant",
        "model": stamp.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": Value::Null,
        "usage": usage,
    })
}

/// Makes the events of a message stream from chat chunks.
///
/// Blocks come one after the other, as Anthropic's clients expect: a block is closed before the next one opens, even when
/// the provider writes to several tool calls in turn.
#[derive(Debug)]
pub struct Stream {
    stamp: ResponseIds,
    begun: bool,
    ended: bool,
    blocks: Blocks,
    reason: Option<String>,
    refused: bool,
    usage: Option<Value>,
}

impl Stream {
    /// A stream of which nothing has come yet.
    pub fn new(stamp: &ResponseIds) -> Stream {
        Stream {
            stamp: stamp.clone(),
            begun: false,
            ended: false,
            blocks: Blocks::default(),
            reason: None,
            refused: false,
            usage: None,
        }
    }

    /// Takes one chat chunk. Usage may come with any chunk, before or after the finish reason; the last one counts.
    pub fn push(&mut self, chunk: &Value, out: &mut Vec<Event>) -> Result<(), Error> {
        if let Some(error) = chat::failure_in(chunk) {
            return Err(error);
        }
        if let Some(usage) = usage(chunk.get("usage")) {
            self.usage = Some(usage);
        }
        let choices = chunk.get("choices").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let Some(choice) = choices.iter().find(|choice| chat::index_of(choice) == 0) else {
            return Ok(());
        };
        if !self.begun {
            self.begin(&chat::stamp_of(chunk, &self.stamp), out);
        }
        if let Some(delta) = choice.get("delta").and_then(Value::as_object) {
            self.delta(delta, out);
        }
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            self.reason = Some(reason.to_owned());
        }
        Ok(())
    }

    /// Closes what is open and ends the message, also when the provider gave no finish reason.
    pub fn close(&mut self, out: &mut Vec<Event>) {
        if self.ended {
            return;
        }
        self.ended = true;
        if !self.begun {
            self.begin(&self.stamp.clone(), out);
        }
        self.blocks.finish(out);
        let reason = match &self.reason {
            // Nobody should run a call of which half is missing.
            None if self.blocks.has_torn_call() => "max_tokens",
            reason => stop_reason(reason.as_deref(), self.blocks.had_tool(), self.refused),
        };
        let usage = self.usage.take().unwrap_or_else(|| object! {"input_tokens": 0, "output_tokens": 0});
        let delta = object! {"stop_reason": reason, "stop_sequence": Value::Null};
        out.push(("message_delta", object! {"type": "message_delta", "delta": delta, "usage": usage}));
        out.push(("message_stop", object! {"type": "message_stop"}));
    }

    fn begin(&mut self, stamp: &ResponseIds, out: &mut Vec<Event>) {
        self.begun = true;
        self.stamp = message_stamp(stamp);
        let message = object! {
            "id": self.stamp.id.as_str(),
            "type": "message",
            "role": "assistant",
            "content": Vec::<Value>::new(),
            "model": self.stamp.model.as_str(),
            "stop_reason": Value::Null,
            "stop_sequence": Value::Null,
            "usage": object! {"input_tokens": 0, "output_tokens": 0},
        };
        out.push(("message_start", object! {"type": "message_start", "message": message}));
    }

    fn delta(&mut self, delta: &Map<String, Value>, out: &mut Vec<Event>) {
        match delta.get("thinking_blocks").and_then(Value::as_array).filter(|blocks| !blocks.is_empty()) {
            Some(blocks) => blocks.iter().for_each(|block| self.blocks.thinking_block(block, out)),
            None => self.blocks.thinking(reasoning(delta), out),
        }
        self.blocks.text(&chat::text_of(delta.get("content")), out);
        let refusal = refusal(delta);
        self.refused |= !refusal.is_empty();
        self.blocks.text(refusal, out);
        for call in delta.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            self.blocks.call(call, &self.stamp.id, out);
        }
    }
}

impl WriteResponse for Stream {
    fn whole(&mut self, chat: Value) -> Result<Value, Error> {
        answer(&chat, &self.stamp)
    }

    fn chunk(&mut self, chunk: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut events = Vec::new();
        self.push(chunk, &mut events)?;
        write_events(&events, out);
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let mut events = Vec::new();
        self.close(&mut events);
        write_events(&events, out);
    }

    fn id(&self) -> Option<&str> {
        self.begun.then_some(self.stamp.id.as_str())
    }
}

fn write_events(events: &[Event], out: &mut Vec<u8>) {
    for (name, event) in events {
        sse::write(out, Some(name), &value::to_bytes(event));
    }
}

fn content(message: &Map<String, Value>, stamp: &ResponseIds) -> Vec<Value> {
    let mut content = Vec::new();
    match message.get("thinking_blocks").and_then(Value::as_array).filter(|blocks| !blocks.is_empty()) {
        Some(blocks) => content.extend(blocks.iter().filter_map(thinking_block)),
        None if !reasoning(message).is_empty() => {
            content.push(object! {"type": "thinking", "thinking": reasoning(message), "signature": ""});
        }
        None => {}
    }
    for text in [chat::text_of(message.get("content")).as_str(), refusal(message)] {
        if !text.is_empty() {
            content.push(object! {"type": "text", "text": text});
        }
    }
    let calls = message.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
    content.extend(calls.enumerate().filter_map(|(at, call)| tool_use(call, at, stamp)));
    content
}

fn thinking_block(block: &Value) -> Option<Value> {
    match block.get("type").and_then(Value::as_str)? {
        "thinking" => {
            let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default();
            Some(object! {"type": "thinking", "thinking": text("thinking"), "signature": text("signature")})
        }
        "redacted_thinking" => Some(block.clone()),
        _ => None,
    }
}

fn tool_use(call: &Value, at: usize, stamp: &ResponseIds) -> Option<Value> {
    let function = call.get("function")?;
    let name = function.get("name").and_then(Value::as_str)?;
    let id = match call.get("id").and_then(Value::as_str) {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => made_up_id(&stamp.id, at),
    };
    Some(object! {"type": "tool_use", "id": id, "name": name, "input": input(function.get("arguments"))})
}

/// A tool's input must be an object. Text that is none (cut off by the length limit) is kept under one name, so that nothing
/// the model said is lost and the tool's own check can tell it.
fn input(arguments: Option<&Value>) -> Value {
    match arguments {
        Some(Value::Object(object)) => Value::Object(object.clone()),
        Some(Value::String(text)) if !text.trim().is_empty() => match value::read_exact(text.as_bytes()) {
            Ok(Value::Object(object)) => Value::Object(object),
            _ => object! {"arguments": text.as_str()},
        },
        _ => object! {},
    }
}

/// Anthropic's ids begin with `msg_`.
fn message_stamp(stamp: &ResponseIds) -> ResponseIds {
    let id = match stamp.id.strip_prefix("chatcmpl-") {
        _ if stamp.id.starts_with("msg_") => stamp.id.clone(),
        Some(rest) => format!("msg_{rest}"),
        None => format!("msg_{}", stamp.id),
    };
    ResponseIds { id, ..stamp.clone() }
}

fn reasoning(message: &Map<String, Value>) -> &str {
    let text = |name: &str| message.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    text("reasoning_content").or(text("reasoning")).unwrap_or_default()
}

fn refusal(message: &Map<String, Value>) -> &str {
    message.get("refusal").and_then(Value::as_str).unwrap_or_default()
}

fn stop_reason(finish: Option<&str>, has_tool: bool, refused: bool) -> &'static str {
    match finish {
        Some("length") => "max_tokens",
        Some("content_filter") => "refusal",
        _ if refused => "refusal",
        // Some servers end an answer that calls tools with `stop`.
        _ if has_tool => "tool_use",
        _ => "end_turn",
    }
}

/// Anthropic's counts: `input_tokens` are those not read from or written to the cache, OpenAI's `prompt_tokens` are all.
fn usage(usage: Option<&Value>) -> Option<Value> {
    let usage = usage?.as_object()?;
    let count = |value: Option<&Value>| value.and_then(Value::as_u64).filter(|count| *count > 0);
    let details = usage.get("prompt_tokens_details").and_then(|details| details.get("cached_tokens"));
    let read = count(details)
        .or(count(usage.get("cache_read_input_tokens")))
        .or(count(usage.get("prompt_cache_hit_tokens")))
        .unwrap_or(0);
    let written = count(usage.get("cache_creation_input_tokens")).unwrap_or(0);
    let prompt = count(usage.get("prompt_tokens")).unwrap_or(0);
    let mut counts = Map::new();
    counts.insert("input_tokens".into(), prompt.saturating_sub(read).saturating_sub(written).into());
    counts.insert("output_tokens".into(), count(usage.get("completion_tokens")).unwrap_or(0).into());
    if read > 0 {
        counts.insert("cache_read_input_tokens".into(), read.into());
    }
    if written > 0 {
        counts.insert("cache_creation_input_tokens".into(), written.into());
    }
    Some(Value::Object(counts))
}

#[cfg(test)]
mod tests;
