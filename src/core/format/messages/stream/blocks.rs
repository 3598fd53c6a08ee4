//! The content blocks of a message stream, strictly one after the other.
//!
//! Chat names the tool call each fragment belongs to, so calls may be written in turn; Anthropic's blocks may not. The
//! first block that is not closed is the open one: what belongs to it goes out at once, what belongs to a later one waits.
//! A block is closed as soon as a later one exists and it is complete, which for a tool call means that its arguments
//! are a whole JSON value.

use std::collections::VecDeque;

use serde_json::Value;

use super::{
    super::{UNSIGNED, made_up_id, names},
    Event,
};
use crate::core::codec::value::{self, object};

/// Bytes that may wait for an earlier block to be completed. Beyond it the earlier block is closed as it is.
const HELD_MAX: usize = 1 << 20;

/// What a waiting block counts for besides its text.
const BLOCK_BYTES: usize = 128;

/// The blocks of one message: those that wait, and the one that is open.
#[derive(Debug, Default)]
pub struct Blocks {
    /// Blocks not closed yet; only the first may be open.
    queue: VecDeque<Block>,
    /// Anthropic's index of the first block in the queue.
    index: u64,
    calls: usize,
    torn_call: bool,
}

#[derive(Debug)]
struct Block {
    kind: Kind,
    open: bool,
    held: String,
}

#[derive(Debug)]
enum Kind {
    Text,
    /// `signature` waits like the thoughts do; with it the block is complete.
    Thinking {
        signature: String,
    },
    Redacted(Value),
    Call {
        at: u64,
        id: String,
        name: String,
        json: Json,
    },
}

impl Blocks {
    /// Whether a tool was called.
    pub fn had_tool(&self) -> bool {
        self.calls > 0
    }

    /// Whether a tool call was closed before its arguments were whole.
    pub fn has_torn_call(&self) -> bool {
        self.torn_call
    }

    /// Adds text.
    pub fn text(&mut self, text: &str, out: &mut Vec<Event>) {
        if text.is_empty() {
            return;
        }
        match self.queue.back_mut() {
            Some(Block { kind: Kind::Text, held, .. }) => held.push_str(text),
            _ => self.add(Kind::Text, text),
        }
        self.advance(out);
    }

    /// Adds thoughts.
    pub fn thinking(&mut self, thoughts: &str, out: &mut Vec<Event>) {
        if thoughts.is_empty() {
            return;
        }
        match self.queue.back_mut() {
            Some(Block { kind: Kind::Thinking { signature }, held, .. }) if signature.is_empty() => {
                held.push_str(thoughts);
            }
            _ => self.add(Kind::Thinking { signature: String::new() }, thoughts),
        }
        self.advance(out);
    }

    /// Adds a piece of a thinking block (thoughts, signature or both), or a whole redacted one.
    pub fn thinking_block(&mut self, block: &Value, out: &mut Vec<Event>) {
        let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("type") == "redacted_thinking" {
            let mut block = block.clone();
            // What tells the pieces of a stream apart is chat's alone.
            block.as_object_mut().into_iter().for_each(|block| _ = block.shift_remove("index"));
            self.add(Kind::Redacted(block), "");
            self.advance(out);
            return;
        }
        self.thinking(text("thinking"), out);
        if text("signature").is_empty() {
            return;
        }
        if !matches!(self.queue.back(), Some(Block { kind: Kind::Thinking { .. }, .. })) {
            self.add(Kind::Thinking { signature: String::new() }, "");
        }
        if let Some(Block { kind: Kind::Thinking { signature }, .. }) = self.queue.back_mut() {
            signature.push_str(text("signature"));
        }
        self.advance(out);
    }

    /// Adds a fragment of a tool call. `message` is the message's id, for a call that comes without one.
    pub fn call(&mut self, fragment: &Value, message: &str, out: &mut Vec<Event>) {
        let function = fragment.get("function");
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let id = text(fragment.get("id"));
        let name = text(function.and_then(|function| function.get("name")));
        let arguments = match function.and_then(|function| function.get("arguments")) {
            Some(Value::String(text)) => text.clone(),
            Some(object @ Value::Object(_)) => value::to_text(object),
            _ => String::new(),
        };
        let index = fragment.get("index").and_then(Value::as_u64);
        match self.queue.iter_mut().rev().find(|block| block.is_call(index, &id, &name)) {
            Some(block) => block.held.push_str(&arguments),
            // A name begins a call. What follows a closed one can only be blank.
            None if !name.is_empty() => {
                let id = if id.is_empty() { made_up_id(message, self.calls) } else { id };
                let id = names::with_thought(&id, fragment).unwrap_or(id);
                let at = index.unwrap_or(self.calls as u64);
                self.add(Kind::Call { at, id, name, json: Json::default() }, &arguments);
                self.calls += 1;
            }
            None => {}
        }
        self.advance(out);
    }

    /// Sends out what waits, complete or not, and closes everything.
    pub fn finish(&mut self, out: &mut Vec<Event>) {
        while !self.queue.is_empty() {
            self.advance(out);
            self.close(out);
        }
    }

    fn add(&mut self, kind: Kind, text: &str) {
        self.queue.push_back(Block { kind, open: false, held: text.to_owned() });
    }

    fn advance(&mut self, out: &mut Vec<Event>) {
        loop {
            let waiting =
                self.queue.iter().skip(1).map(|block| BLOCK_BYTES + block.held.len()).sum::<usize>();
            let more = self.queue.len() > 1;
            let Some(first) = self.queue.front_mut() else { return };
            let complete = first.send(self.index, out);
            if !complete && (!more || waiting <= HELD_MAX) || !more && !first.is_whole() {
                return;
            }
            self.close(out);
        }
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        if let Some(block) = self.queue.pop_front() {
            if matches!(&block.kind, Kind::Thinking { signature } if signature.is_empty()) {
                let delta = object! {"type": "signature_delta", "signature": UNSIGNED};
                let data = object! {"type": "content_block_delta", "index": self.index, "delta": delta};
                out.push(("content_block_delta", data));
            }
            self.torn_call |= matches!(&block.kind, Kind::Call { json, .. } if json.is_torn());
            out.push(("content_block_stop", object! {"type": "content_block_stop", "index": self.index}));
            self.index += 1;
        }
    }
}

impl Block {
    /// Whether a fragment continues this call. Servers differ: `index` may be missing, and the same for every call.
    fn is_call(&self, index: Option<u64>, fragment_id: &str, fragment_name: &str) -> bool {
        match &self.kind {
            Kind::Call { at, id, .. } => {
                let begins_another = !fragment_id.is_empty() && fragment_id != id
                    || index.is_none() && fragment_id.is_empty() && !fragment_name.is_empty();
                index.is_none_or(|index| index == *at) && !begins_another
            }
            _ => false,
        }
    }

    /// Opens the block if need be and sends what waits for it. Returns whether it is complete.
    fn send(&mut self, index: u64, out: &mut Vec<Event>) -> bool {
        if !self.open {
            self.open = true;
            out.push((
                "content_block_start",
                object! {"type": "content_block_start", "index": index, "content_block": self.kind.head()},
            ));
        }
        let mut delta = |delta: Value| {
            let data = object! {"type": "content_block_delta", "index": index, "delta": delta};
            out.push(("content_block_delta", data));
        };
        let text = std::mem::take(&mut self.held);
        match &mut self.kind {
            Kind::Text if !text.is_empty() => delta(object! {"type": "text_delta", "text": text}),
            Kind::Thinking { signature } => {
                if !text.is_empty() {
                    delta(object! {"type": "thinking_delta", "thinking": text});
                }
                if !signature.is_empty() {
                    delta(object! {"type": "signature_delta", "signature": signature.as_str()});
                }
            }
            Kind::Call { json, .. } => {
                json.read(&text);
                if !text.is_empty() {
                    delta(object! {"type": "input_json_delta", "partial_json": text});
                }
                return json.is_whole();
            }
            Kind::Text | Kind::Redacted(_) => {}
        }
        true
    }

    /// Whether nothing can follow, so that it is closed without waiting for the next block.
    fn is_whole(&self) -> bool {
        match &self.kind {
            Kind::Thinking { signature } => !signature.is_empty(),
            Kind::Redacted(_) => true,
            Kind::Text | Kind::Call { .. } => false,
        }
    }
}

impl Kind {
    /// The block as it stands in `content_block_start`.
    fn head(&self) -> Value {
        match self {
            Kind::Text => object! {"type": "text", "text": ""},
            Kind::Thinking { .. } => object! {"type": "thinking", "thinking": "", "signature": ""},
            Kind::Redacted(block) => block.clone(),
            Kind::Call { id, name, .. } => {
                object! {"type": "tool_use", "id": id.as_str(), "name": name.as_str(), "input": object! {}}
            }
        }
    }
}

/// Tells when a JSON object that comes in pieces is whole, without keeping it.
#[derive(Debug, Default)]
struct Json {
    depth: u32,
    in_string: bool,
    escaped: bool,
    closed: bool,
}

impl Json {
    fn read(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.closed |= self.depth == 0;
                }
                _ => {}
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.closed
    }

    /// Begun and not whole. Nothing at all is no object, but what a call without arguments comes with.
    fn is_torn(&self) -> bool {
        !self.closed && self.depth > 0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_whole_at_its_last_brace() {
        for (text, whole) in [
            ("", false),
            ("{", false),
            ("{}", true),
            (r#"{"a":"}"}"#, true),
            (r#"{"a":"\"}"#, false),
            (r#"{"a":[{}]"#, false),
            (r#"{"a":[{}]}"#, true),
        ] {
            for at in 0..=text.len() {
                let mut json = Json::default();
                let (one, two) = text.split_at(at);
                json.read(one);
                json.read(two);
                assert_eq!(json.is_whole(), whole, "{one}|{two}");
            }
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut blocks = Blocks::default();
        let mut out = Vec::new();
        let call = |index: u64, arguments: &str| json!({"index": index, "id": format!("c{index}"), "function": {"name": "f", "arguments": arguments}});
        blocks.call(&call(0, "{"), "m", &mut out);
        blocks.call(&call(1, "{"), "m", &mut out);
        assert_eq!(blocks.queue.len(), 2);
        blocks.call(&call(1, &"x".repeat(HELD_MAX)), "m", &mut out);
        assert_eq!(blocks.queue.len(), 1, "the first call is closed as it is");
    }
}
