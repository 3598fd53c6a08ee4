//! Message streams, written from chat chunks.

use serde_json::{Map, Value};

use super::{
    super::response::{self, message_ids, reasoning, refusal, stop_reason, usage},
    Event,
    blocks::Blocks,
};
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

/// Writes the response for a client.
///
/// Blocks come one after the other, as Anthropic's clients expect: a block is closed before the next one opens, even when
/// the provider writes to several tool calls in turn.
#[derive(Debug)]
pub struct Writer {
    ids: ResponseIds,
    begun: bool,
    ended: bool,
    blocks: Blocks,
    reason: Option<String>,
    refused: bool,
    usage: Option<Value>,
}

impl Writer {
    /// A writer of a response of which nothing has come yet.
    pub fn new(ids: &ResponseIds) -> Writer {
        Writer {
            ids: ids.clone(),
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
            self.begin(&chat::ids_of(chunk, &self.ids), out);
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
            self.begin(&self.ids.clone(), out);
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

    fn begin(&mut self, ids: &ResponseIds, out: &mut Vec<Event>) {
        self.begun = true;
        self.ids = message_ids(ids);
        let message = object! {
            "id": self.ids.id.as_str(),
            "type": "message",
            "role": "assistant",
            "content": Vec::<Value>::new(),
            "model": self.ids.model.as_str(),
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
            self.blocks.call(call, &self.ids.id, out);
        }
        // The form that OpenAI had before there were several calls.
        if let Some(call) = delta.get("function_call").filter(|call| call.is_object()) {
            self.blocks.call(&object! {"index": 0, "function": call.clone()}, &self.ids.id, out);
        }
    }
}

impl WriteResponse for Writer {
    fn whole(&mut self, chat: Value) -> Result<Value, Error> {
        response::write(&chat, &self.ids)
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
        self.begun.then_some(self.ids.id.as_str())
    }
}

fn write_events(events: &[Event], out: &mut Vec<u8>) {
    for (name, event) in events {
        sse::write(out, Some(name), &value::to_bytes(event));
    }
}
