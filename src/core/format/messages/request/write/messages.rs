//! Chat messages as system blocks and alternating turns.

use serde_json::{Map, Value};

use super::{
    Betas,
    content::{self, text_block},
    fault::{Fault, clip},
    take,
};
use crate::core::{
    codec::value::object,
    format::{
        messages::{ids::CallIds, is_signed, request::NOTHING_SAID},
        params::arguments_object,
    },
};

/// A conversation in Anthropic's order: system blocks apart, and no two turns of one role in a row.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Text of every system and developer message, wherever it stood.
    pub(super) system: Vec<Value>,
    /// Text of a last assistant message that the client wants to see at the start of the response.
    pub(super) prefix: Option<String>,
    /// A tool was called or answered somewhere in the history.
    pub(super) has_tool_blocks: bool,
    turns: Vec<Turn>,
    ids: CallIds,
    /// Ids made for `function_call`s that no `function` message has answered yet: (name, id).
    open_calls: Vec<(String, String)>,
}

#[derive(Debug)]
struct Turn {
    role: &'static str,
    blocks: Vec<Value>,
}

impl Turn {
    fn calls(&self) -> bool {
        self.has("tool_use")
    }

    fn answers(&self) -> bool {
        self.has("tool_result")
    }

    fn has(&self, wanted: &str) -> bool {
        self.blocks.iter().any(|block| block.get("type").is_some_and(|kind| kind == wanted))
    }
}

impl Turns {
    /// Reads `messages`; a top-level `system` in Anthropic's own form comes before the system messages.
    pub(super) fn read(
        messages: Option<Value>,
        system: Option<Value>,
        betas: &mut Betas,
    ) -> Result<Turns, Fault> {
        let messages = match messages {
            Some(Value::Array(messages)) if !messages.is_empty() => messages,
            None => return Err(Fault::at("messages", "missing; expected a list of chat messages")),
            Some(_) => return Err(Fault::at("messages", "expected a list of at least one chat message")),
        };
        let mut turns = Turns::default();
        if let Some(system) = system {
            turns.system = system_blocks(system).map_err(|fault| fault.inside("system"))?;
        }
        for (at, message) in messages.into_iter().enumerate() {
            let read = match message {
                Value::Object(message) => turns.add(message, at, betas),
                _ => Err(Fault::at("", "expected an object with `role` and `content`")),
            };
            read.map_err(|fault| fault.inside(format_args!("messages[{at}]")))?;
        }
        turns.system.iter().for_each(|block| betas.note_caching(block));
        turns.strip_prefill();
        Ok(turns)
    }

    pub(super) fn starts_with_user(&self) -> bool {
        self.turns.first().is_some_and(|turn| turn.role == "user")
    }

    pub(super) fn open_with_placeholder(&mut self) {
        self.turns.insert(0, Turn { role: "user", blocks: vec![text_block(".")] });
    }

    /// Whether the conversation goes on behind calls that no thinking led to: another model has made them, or the client has not kept
    /// it. Anthropic then refuses to think.
    pub(super) fn waits_without_thinking(&self) -> bool {
        let open = self.turns.iter().rev().take_while(|turn| turn.role == "assistant" || turn.answers());
        open.filter(|turn| turn.calls()).any(|turn| !turn.blocks.first().is_some_and(is_thinking))
    }

    pub(super) fn leave_out_thinking(&mut self) {
        for turn in &mut self.turns {
            turn.blocks.retain(|block| !is_thinking(block));
            if turn.blocks.is_empty() {
                turn.blocks.push(text_block(NOTHING_SAID));
            }
        }
    }

    pub(super) fn into_messages(self) -> Value {
        let message = |turn: Turn| object! {"role": turn.role, "content": turn.blocks};
        Value::Array(self.turns.into_iter().map(message).collect())
    }

    fn add(&mut self, mut message: Map<String, Value>, at: usize, betas: &mut Betas) -> Result<(), Fault> {
        self.prefix = None;
        let role = match message.get("role") {
            Some(Value::String(role)) => role.clone(),
            _ => return Err(Fault::at("role", "expected a string")),
        };
        let cache_control = take(&mut message, "cache_control");
        let content = take(&mut message, "content");
        let (role, mut blocks) = match role.as_str() {
            "system" | "developer" => {
                let content = content.ok_or_else(|| Fault::at("content", "missing; expected text"))?;
                let mut blocks = system_blocks(content).map_err(|fault| fault.inside("content"))?;
                mark(&mut blocks, cache_control);
                self.system.append(&mut blocks);
                return Ok(());
            }
            "user" => ("user", user_blocks(content, betas)?),
            "assistant" => ("assistant", self.assistant_blocks(message, content, at)?),
            "tool" | "function" => ("user", vec![self.tool_result(message, content, betas)?]),
            other => {
                let expected = format!(
                    "\"{}\" is not a role; expected system, developer, user, assistant, tool or function",
                    clip(other)
                );
                return Err(Fault::at("role", expected));
            }
        };
        mark(&mut blocks, cache_control);
        self.push(role, blocks, betas);
        Ok(())
    }

    /// Appends to the last turn when it has the same role.
    fn push(&mut self, role: &'static str, mut blocks: Vec<Value>, betas: &mut Betas) {
        for block in &blocks {
            betas.note_caching(block);
            let kind = block.get("type").and_then(Value::as_str);
            self.has_tool_blocks |= matches!(kind, Some("tool_use" | "tool_result"));
        }
        match self.turns.last_mut() {
            _ if blocks.is_empty() => {}
            Some(turn) if turn.role == role => turn.blocks.append(&mut blocks),
            _ => self.turns.push(Turn { role, blocks }),
        }
    }

    /// Thinking first (Anthropic verifies that it leads the turn), then text, then calls.
    fn assistant_blocks(
        &mut self,
        mut message: Map<String, Value>,
        content: Option<Value>,
        at: usize,
    ) -> Result<Vec<Value>, Fault> {
        let mut blocks = match take(&mut message, "thinking_blocks") {
            None => Vec::new(),
            Some(Value::Array(mut thinking)) if thinking.iter().all(Value::is_object) => {
                thinking.retain(is_signed);
                // What tells the pieces of a stream apart, for clients that put them together.
                thinking
                    .iter_mut()
                    .filter_map(Value::as_object_mut)
                    .for_each(|block| _ = block.shift_remove("index"));
                thinking
            }
            Some(_) => return Err(Fault::at("thinking_blocks", "expected a list of thinking blocks")),
        };
        let has_thinking = !blocks.is_empty();
        let said = content.or_else(|| take(&mut message, "refusal"));
        let said = content::assistant(said).map_err(|fault| fault.inside("content"))?;
        let keeps = |block: &Value| !is_thinking(block) || (!has_thinking && is_signed(block));
        blocks.extend(said.into_iter().filter(keeps));
        if message.get("prefix") == Some(&Value::Bool(true)) {
            self.prefix = Some(blocks.iter().filter_map(|block| block.get("text")?.as_str()).collect());
        }
        match take(&mut message, "tool_calls") {
            None => {}
            Some(Value::Array(calls)) => {
                for (call_at, call) in calls.into_iter().enumerate() {
                    let block = tool_use(call, &mut self.ids);
                    blocks.push(block.map_err(|fault| fault.inside(format_args!("tool_calls[{call_at}]")))?);
                }
            }
            Some(_) => return Err(Fault::at("tool_calls", "expected a list of tool calls")),
        }
        if let Some(call) = take(&mut message, "function_call") {
            let id = self.ids.call(format!("call_function_{at}"));
            let block = call_block(call, id.clone()).map_err(|fault| fault.inside("function_call"))?;
            let name = block.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            self.open_calls.push((name, id));
            blocks.push(block);
        }
        Ok(blocks)
    }

    /// A `tool` or `function` message as the block that answers a call.
    fn tool_result(
        &mut self,
        mut message: Map<String, Value>,
        content: Option<Value>,
        betas: &mut Betas,
    ) -> Result<Value, Fault> {
        let id = match take(&mut message, "tool_call_id") {
            Some(Value::String(id)) if !id.is_empty() => self.ids.result(&id),
            Some(_) => return Err(Fault::at("tool_call_id", "expected the id of a tool call")),
            None => {
                let name = message.get("name").and_then(Value::as_str);
                let open = self.open_calls.iter().position(|(called, _)| Some(called.as_str()) == name);
                let expected = "missing; expected the id of the tool call that this message answers";
                open.map(|open| self.open_calls.remove(open).1)
                    .ok_or_else(|| Fault::at("tool_call_id", expected))?
            }
        };
        let mut block = Map::new();
        block.insert("type".into(), "tool_result".into());
        block.insert("tool_use_id".into(), id.into());
        match content {
            None => {}
            Some(text @ Value::String(_)) => {
                block.insert("content".into(), text);
            }
            Some(parts) => {
                let blocks = content::user(parts, betas).map_err(|fault| fault.inside("content"))?;
                blocks.iter().for_each(|block| betas.note_caching(block));
                if !blocks.is_empty() {
                    block.insert("content".into(), Value::Array(blocks));
                }
            }
        }
        Ok(Value::Object(block))
    }

    /// A last assistant turn is a prefill, and Anthropic refuses one that ends in white space.
    fn strip_prefill(&mut self) {
        if let Some(prefix) = &mut self.prefix {
            prefix.truncate(prefix.trim_end().len());
        }
        self.prefix = self.prefix.take().filter(|prefix| !prefix.is_empty());
        let Some(turn) = self.turns.last_mut().filter(|turn| turn.role == "assistant") else { return };
        if let Some(Value::String(text)) = turn.blocks.last_mut().and_then(|block| block.get_mut("text")) {
            text.truncate(text.trim_end().len());
            if text.is_empty() {
                turn.blocks.pop();
            }
        }
        if turn.blocks.is_empty() {
            self.turns.pop();
        }
    }
}

/// Puts a message's own `cache_control` on its last block, unless that has one.
fn mark(blocks: &mut [Value], cache_control: Option<Value>) {
    if let (Some(Value::Object(block)), Some(cache_control)) = (blocks.last_mut(), cache_control) {
        block.entry("cache_control").or_insert(cache_control);
    }
}

fn user_blocks(content: Option<Value>, betas: &mut Betas) -> Result<Vec<Value>, Fault> {
    let content =
        content.ok_or_else(|| Fault::at("content", "missing; expected a string or a list of parts"))?;
    let mut blocks = content::user(content, betas).map_err(|fault| fault.inside("content"))?;
    if blocks.is_empty() {
        // A turn that says nothing is a turn all the same: without it two of the assistant's would stand in a row.
        blocks.push(text_block(NOTHING_SAID));
    }
    Ok(blocks)
}

/// Text blocks only: Anthropic's `system` knows no others. Blank ones are left out.
fn system_blocks(content: Value) -> Result<Vec<Value>, Fault> {
    let mut blocks = match content {
        Value::String(text) => vec![text_block(text)],
        Value::Array(parts) => content::each(parts, content::text)?,
        _ => return Err(Fault::at("", "expected a string or a list of text parts")),
    };
    blocks.retain(|block| !content::is_blank(block));
    Ok(blocks)
}

fn is_thinking(block: &Value) -> bool {
    matches!(block.get("type").and_then(Value::as_str), Some("thinking" | "redacted_thinking"))
}

/// An entry of `tool_calls` as a `tool_use` block.
fn tool_use(call: Value, ids: &mut CallIds) -> Result<Value, Fault> {
    let Value::Object(mut call) = call else { return Err(Fault::at("", "expected a tool call object")) };
    let id = match take(&mut call, "id") {
        Some(Value::String(id)) if !id.is_empty() => ids.call(id),
        _ => return Err(Fault::at("id", "expected the id of the tool call")),
    };
    let function = take(&mut call, "function")
        .ok_or_else(|| Fault::at("function", "missing; expected an object with `name` and `arguments`"))?;
    let mut block = call_block(function, id).map_err(|fault| fault.inside("function"))?;
    if let (Some(cache_control), Value::Object(block)) = (take(&mut call, "cache_control"), &mut block) {
        block.insert("cache_control".into(), cache_control);
    }
    Ok(block)
}

/// `{"name", "arguments"}` as a `tool_use` block. Arguments that are no object (an answer that was cut off may end within them)
/// stay what they are, a text, under the name that they have on the way to a client.
fn call_block(function: Value, id: String) -> Result<Value, Fault> {
    let Value::Object(mut function) = function else {
        return Err(Fault::at("", "expected an object with `name` and `arguments`"));
    };
    let name = match take(&mut function, "name") {
        Some(Value::String(name)) if !name.is_empty() => name,
        _ => return Err(Fault::at("name", "expected the name of the function")),
    };
    let arguments = match take(&mut function, "arguments") {
        None => Value::Object(Map::new()),
        Some(arguments @ (Value::String(_) | Value::Object(_))) => arguments_object(arguments),
        Some(_) => return Err(Fault::at("arguments", "expected a string that holds a JSON object")),
    };
    Ok(object! {"type": "tool_use", "id": id, "name": name, "input": arguments})
}
