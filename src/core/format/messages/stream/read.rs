//! Message streams, read as chat chunks.

use serde_json::Value;

use super::{
    super::{
        Requested,
        request::JSON_TOOL,
        response::{self, finish_reason},
        text,
        usage::Usage,
    },
    note_terms, note_usage,
};
use crate::core::{
    codec::value::{self, object},
    error::Error,
    format::{
        chat::response as chat,
        pipeline::cut_short,
        response::{Observed, ReadResponse, ResponseIds},
    },
    model::usage::Usage as Used,
};

/// Text that is held back beside JSON. A model that writes more has not understood that JSON was asked for.
const MOST_HELD_BYTES: usize = 1 << 20;

/// Reads the response to one request: turns its events into `chat.completion.chunk` objects.
///
/// The first chunk with anything in it carries the role. After the content comes one chunk with the finish reason and an
/// empty delta, then exactly one with the usage. Nothing of what streams by is kept, only counts.
#[derive(Debug)]
pub struct Reader {
    ids: ResponseIds,
    /// What was requested; the prefix is taken when it has been given back to the client.
    requested: Requested,
    usage: Usage,
    open: Open,
    calls: usize,
    /// Blocks of thinking that have begun.
    thoughts: usize,
    has_json: bool,
    /// Text that is the response only if the tool whose input is to be it is not called.
    held: String,
    has_role: bool,
    /// The finish and usage chunks are out.
    closed: bool,
}

/// The content block whose deltas are coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    /// Text, thinking, or nothing: their deltas say themselves what they are.
    Plain,
    /// A tool call; whether any argument text came yet.
    Call { has_arguments: bool },
    /// The forced tool: its argument text is the response's content.
    Json { has_arguments: bool },
    /// A block whose deltas are not for the client.
    Hidden,
}

impl Reader {
    /// A reader of the response to what was asked.
    pub fn new(requested: Requested, ids: &ResponseIds) -> Reader {
        Reader {
            ids: ids.clone(),
            requested,
            usage: Usage::default(),
            open: Open::Plain,
            calls: 0,
            thoughts: 0,
            has_json: false,
            held: String::new(),
            has_role: false,
            closed: false,
        }
    }

    /// Takes the data of one event and appends the chunks it makes, often none. Unknown events are passed over, as Anthropic
    /// asks of its clients.
    pub fn push(&mut self, data: &Value, out: &mut Vec<Value>) {
        if self.closed {
            return;
        }
        match text(data, "type") {
            "message_start" => {
                let message = data.get("message").unwrap_or(&Value::Null);
                self.usage.update(message.get("usage"));
                if let Some(model) = message.get("model").and_then(Value::as_str) {
                    self.ids.model = model.to_owned();
                }
            }
            "content_block_start" => {
                self.block_start(data.get("content_block").unwrap_or(&Value::Null), out);
            }
            "content_block_delta" => self.block_delta(data.get("delta").unwrap_or(&Value::Null), out),
            "content_block_stop" => self.block_stop(out),
            "message_delta" => {
                self.usage.update(data.get("usage"));
                let delta = data.get("delta").unwrap_or(&Value::Null);
                if let Some(reason) = delta.get("stop_reason").and_then(Value::as_str) {
                    self.close(reason, out);
                }
            }
            "message_stop" => self.close("", out),
            _ => {}
        }
    }

    fn block_start(&mut self, block: &Value, out: &mut Vec<Value>) {
        self.open = Open::Plain;
        match text(block, "type") {
            "text" => self.text(text(block, "text"), out),
            kind @ ("thinking" | "redacted_thinking") => {
                self.thoughts += 1;
                let thought = text(block, "thinking");
                if kind == "redacted_thinking" || !thought.is_empty() {
                    self.thinking(thought, block.clone(), out);
                }
            }
            "tool_use" => {
                if self.requested.json_tool && text(block, "name") == JSON_TOOL {
                    // A second one would make the content two JSON values.
                    self.open =
                        if self.has_json { Open::Hidden } else { Open::Json { has_arguments: false } };
                    self.has_json = true;
                    self.held.clear();
                    // The tool's input stands alone: it continues nothing.
                    self.requested.prefix = None;
                } else {
                    self.open = Open::Call { has_arguments: false };
                    self.call_start(block, out);
                }
                // Anthropic sends the input in deltas; servers that imitate it send it whole.
                if let Some(input) = block.get("input")
                    && input.as_object().is_some_and(|input| !input.is_empty())
                {
                    self.arguments(&value::to_text(input), out);
                }
            }
            _ => self.open = Open::Hidden,
        }
    }

    fn block_delta(&mut self, delta: &Value, out: &mut Vec<Value>) {
        match text(delta, "type") {
            "text_delta" => self.text(text(delta, "text"), out),
            "input_json_delta" => self.arguments(text(delta, "partial_json"), out),
            "thinking_delta" => {
                let thought = text(delta, "thinking");
                self.thinking(thought, object! {"type": "thinking", "thinking": thought}, out);
            }
            "signature_delta" => {
                let block =
                    object! {"type": "thinking", "thinking": "", "signature": text(delta, "signature")};
                self.thinking("", block, out);
            }
            "citations_delta" => {
                let citation = delta.get("citation").cloned().unwrap_or_default();
                let fields = object! {"citation": citation};
                self.delta(object! {"content": "", "provider_specific_fields": fields}, out);
            }
            _ => {}
        }
    }

    /// A call or JSON content without any argument text means an empty object.
    fn block_stop(&mut self, out: &mut Vec<Value>) {
        if matches!(self.open, Open::Call { has_arguments: false } | Open::Json { has_arguments: false }) {
            self.arguments("{}", out);
        }
        self.open = Open::Plain;
    }

    /// Text beside the JSON that was asked for is no part of it. Where a model may still call the tool, it is held back.
    fn text(&mut self, text: &str, out: &mut Vec<Value>) {
        if !self.requested.json_tool {
            return self.content(text, out);
        }
        if !self.has_json {
            self.held.push_str(text);
        }
        if self.held.len() > MOST_HELD_BYTES {
            let held = std::mem::take(&mut self.held);
            self.content(&held, out);
        }
    }

    fn content(&mut self, text: &str, out: &mut Vec<Value>) {
        if text.is_empty() {
            return;
        }
        match self.requested.prefix.take() {
            Some(prefix) => self.delta(object! {"content": prefix + text}, out),
            None => self.delta(object! {"content": text}, out),
        }
    }

    /// Entries of a list in a delta have an index, by which OpenAI's clients put them together: the pieces of one block have the same.
    fn thinking(&mut self, thought: &str, mut block: Value, out: &mut Vec<Value>) {
        if let Value::Object(block) = &mut block {
            block.insert("index".into(), self.thoughts.saturating_sub(1).into());
        }
        self.delta(object! {"content": "", "reasoning_content": thought, "thinking_blocks": [block]}, out);
    }

    fn call_start(&mut self, block: &Value, out: &mut Vec<Value>) {
        let call = object! {
            "index": self.calls,
            "id": text(block, "id"),
            "type": "function",
            "function": object! {"name": text(block, "name"), "arguments": ""},
        };
        self.calls += 1;
        self.delta(object! {"tool_calls": [call]}, out);
    }

    fn arguments(&mut self, json: &str, out: &mut Vec<Value>) {
        if json.is_empty() {
            return;
        }
        match &mut self.open {
            Open::Call { has_arguments } => {
                *has_arguments = true;
                let index = self.calls.saturating_sub(1);
                let call =
                    object! {"index": index, "type": "function", "function": object! {"arguments": json}};
                self.delta(object! {"tool_calls": [call]}, out);
            }
            Open::Json { has_arguments } => {
                *has_arguments = true;
                self.content(json, out);
            }
            Open::Plain | Open::Hidden => {}
        }
    }

    /// The chunks that end every response.
    fn close(&mut self, stop_reason: &str, out: &mut Vec<Value>) {
        // A call left open by a server that sends no `content_block_stop`.
        self.block_stop(out);
        let held = std::mem::take(&mut self.held);
        self.content(&held, out);
        if let Some(prefix) = self.requested.prefix.take() {
            self.delta(object! {"content": prefix}, out);
        }
        if !self.has_role {
            self.delta(object! {"content": ""}, out);
        }
        let reason = finish_reason(stop_reason, self.calls, self.has_json);
        out.push(self.chunk(object! {"finish_reason": reason, "index": 0, "delta": object! {}}));
        let mut last = self.chunk(object! {"index": 0, "delta": object! {}});
        if let Value::Object(chunk) = &mut last {
            chunk.insert("usage".into(), self.usage.to_chat());
        }
        out.push(last);
        self.closed = true;
    }

    fn delta(&mut self, mut delta: Value, out: &mut Vec<Value>) {
        if let (false, Value::Object(delta)) = (self.has_role, &mut delta) {
            delta.insert("role".into(), "assistant".into());
            self.has_role = true;
        }
        out.push(self.chunk(object! {"index": 0, "delta": delta}));
    }

    fn chunk(&self, choice: Value) -> Value {
        chat::chunk(&self.ids, [choice])
    }
}

impl ReadResponse for Reader {
    fn whole(&mut self, body: Value, observed: &mut Observed) -> Result<Value, Error> {
        note_terms(&body, observed);
        observed.usage = body.get("usage").and_then(Used::from_anthropic);
        response::read(&body, &self.requested, &self.ids)
    }

    fn event(
        &mut self,
        event: Value,
        _data: &[u8],
        observed: &mut Observed,
        chunks: &mut Vec<Value>,
    ) -> Result<(), Error> {
        note_terms(&event, observed);
        note_usage(&event, observed);
        self.push(&event, chunks);
        Ok(())
    }

    fn finish(&mut self, _observed: &mut Observed, _chunks: &mut Vec<Value>) -> Result<(), Error> {
        if self.closed { Ok(()) } else { Err(cut_short()) }
    }

    fn is_finished(&self) -> bool {
        self.closed
    }
}
