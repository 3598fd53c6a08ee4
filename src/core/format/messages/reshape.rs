//! A whole message as a stream of it, and the other way round.

use serde_json::{Map, Value};

use super::text;
use crate::core::{
    codec::{
        sse,
        value::{self, object},
    },
    error::Error,
    format::{chat::response::unreadable, params, pipeline::cut_short, reshape::MOST_OPEN, response::Join},
};

/// Writes a message as a stream of it.
pub fn write(body: Value, out: &mut Vec<u8>) -> Result<(), Error> {
    let Value::Object(mut message) = body else { return Err(unreadable("no `content` list")) };
    let Some(Value::Array(blocks)) = message.insert("content".into(), Vec::<Value>::new().into()) else {
        return Err(unreadable("no `content` list"));
    };
    let mut send = |name: &'static str, mut event: Value| {
        if let Some(event) = event.as_object_mut() {
            event.insert("type".into(), name.into());
        }
        sse::write(out, Some(name), &value::to_bytes(&event));
    };
    let mut take = |name: &str| message.insert(name.into(), Value::Null).unwrap_or_default();
    let end = object! {"stop_reason": take("stop_reason"), "stop_sequence": take("stop_sequence")};
    let usage = message.get("usage").cloned().unwrap_or_else(|| object! {});
    if let Some(usage) = message.get_mut("usage").and_then(Value::as_object_mut) {
        usage.insert("output_tokens".into(), 0.into());
    }
    send("message_start", object! {"message": message});
    for (at, block) in blocks.into_iter().enumerate() {
        let (head, deltas) = pieces(block);
        send("content_block_start", object! {"index": at, "content_block": head});
        for delta in deltas {
            send("content_block_delta", object! {"index": at, "delta": delta});
        }
        send("content_block_stop", object! {"index": at});
    }
    send("message_delta", object! {"delta": end, "usage": usage});
    send("message_stop", object! {});
    Ok(())
}

/// What a block begins with, and what comes after that. A block that is not known comes at once.
fn pieces(mut block: Value) -> (Value, Vec<Value>) {
    let kind = text(&block, "type").to_owned();
    let Some(members) = block.as_object_mut() else { return (block, Vec::new()) };
    let mut deltas = Vec::new();
    let mut take = |name: &str, empty: Value| {
        members.contains_key(name).then(|| members.insert(name.into(), empty)).flatten()
    };
    match kind.as_str() {
        "text" => {
            let text = take("text", "".into());
            deltas.extend(text.map(|text| object! {"type": "text_delta", "text": text}));
            if let Some(Value::Array(citations)) = take("citations", Vec::<Value>::new().into()) {
                let cited = |citation| object! {"type": "citations_delta", "citation": citation};
                deltas.extend(citations.into_iter().map(cited));
            }
        }
        "thinking" => {
            let thoughts = take("thinking", "".into());
            deltas.extend(thoughts.map(|text| object! {"type": "thinking_delta", "thinking": text}));
            let signature = take("signature", "".into());
            deltas.extend(signature.map(|text| object! {"type": "signature_delta", "signature": text}));
        }
        "tool_use" | "server_tool_use" | "mcp_tool_use" => {
            let input = take("input", object! {}).unwrap_or_else(|| object! {});
            let input = if input.is_null() {
                object! {}
            } else {
                input
            };
            deltas.push(object! {"type": "input_json_delta", "partial_json": value::to_text(&input)});
        }
        _ => {}
    }
    (block, deltas)
}

/// Puts the events of a message together.
#[derive(Debug, Default)]
pub struct Joined {
    message: Map<String, Value>,
    blocks: Vec<Block>,
    ended: bool,
}

#[derive(Debug)]
struct Block {
    index: u64,
    block: Map<String, Value>,
    /// What came of its input as a text.
    input: String,
}

impl Join for Joined {
    fn event(&mut self, mut event: Value) -> Result<(), Error> {
        let index = event.get("index").and_then(Value::as_u64).unwrap_or(0);
        let kind = text(&event, "type").to_owned();
        let mut take = |name: &str| match event.get_mut(name).map(Value::take) {
            Some(Value::Object(members)) => members,
            _ => Map::new(),
        };
        match kind.as_str() {
            "message_start" => self.message = take("message"),
            "content_block_start" => {
                let block = take("content_block");
                self.blocks.push(Block { index, block, input: String::new() });
            }
            "content_block_delta" => {
                let known = self.blocks.iter_mut().rev().take(MOST_OPEN).find(|known| known.index == index);
                known.into_iter().for_each(|known| known.add(&take("delta").into()));
            }
            "message_delta" => {
                let delta = take("delta");
                self.ended |= delta.get("stop_reason").is_some_and(Value::is_string);
                replace(&mut self.message, delta);
                let usage = self.message.entry("usage").or_insert_with(|| object! {});
                usage.as_object_mut().into_iter().for_each(|usage| replace(usage, take("usage")));
            }
            "message_stop" => self.ended = true,
            _ => {}
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, _done: bool) -> Result<Value, Error> {
        if !self.ended {
            return Err(cut_short());
        }
        let content: Vec<Value> = self.blocks.into_iter().map(Block::into_whole).collect();
        self.message.insert("content".into(), content.into());
        Ok(self.message.into())
    }
}

/// Puts what is newly said in the place of what was said before.
fn replace(known: &mut Map<String, Value>, new: Map<String, Value>) {
    known.extend(new.into_iter().filter(|(_, value)| !value.is_null()));
}

impl Block {
    fn add(&mut self, delta: &Value) {
        let mut append = |name: &str| {
            if let Value::String(known) = self.block.entry(name).or_insert_with(|| "".into()) {
                known.push_str(text(delta, name));
            }
        };
        match text(delta, "type") {
            "text_delta" => append("text"),
            "thinking_delta" => append("thinking"),
            "signature_delta" => append("signature"),
            "input_json_delta" => self.input.push_str(text(delta, "partial_json")),
            "citations_delta" => {
                let list = self.block.entry("citations").or_insert(Value::Null);
                if list.is_null() {
                    *list = Vec::<Value>::new().into();
                }
                if let (Value::Array(list), Some(citation)) = (list, delta.get("citation")) {
                    list.push(citation.clone());
                }
            }
            _ => {}
        }
    }

    fn into_whole(mut self) -> Value {
        if !self.input.is_empty() {
            self.block.insert("input".into(), params::arguments_object(self.input.into()));
        }
        self.block.into()
    }
}
