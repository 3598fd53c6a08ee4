//! Names of tools and ids of calls where chat providers take less than Anthropic does, and what is hidden in them.

use std::borrow::Cow;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::core::{
    codec::hex::hex,
    error::Error,
    format::{chat::thought, response::WriteResponse},
};

/// OpenAI and Azure refuse a longer name of a function.
const MOST_NAME_BYTES: usize = 64;

/// Hex digits that tell two long names apart which begin alike.
const HASH_DIGITS: usize = 8;

/// A tool's name as a chat provider takes it: the same one always becomes the same.
pub(super) fn shortened(name: &str) -> Cow<'_, str> {
    if name.len() <= MOST_NAME_BYTES {
        return Cow::Borrowed(name);
    }
    let hash = hex(&Sha256::digest(name.as_bytes()));
    let most = MOST_NAME_BYTES - HASH_DIGITS - 1;
    let end = (0..=most).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    let (start, hash) = (name.get(..end).unwrap_or_default(), hash.get(..HASH_DIGITS).unwrap_or_default());
    Cow::Owned(format!("{start}_{hash}"))
}

/// The long names among a request's tools, each by what it was shortened to.
#[derive(Debug, Default)]
pub struct LongNames(Vec<(String, String)>);

impl LongNames {
    /// Shortens a tool's name, and remembers it for the way back.
    pub(super) fn shorten(&mut self, name: String) -> String {
        match shortened(&name) {
            Cow::Borrowed(_) => name,
            Cow::Owned(short) => {
                self.0.push((short.clone(), name));
                short
            }
        }
    }

    /// A writer of responses that gives the client its own names back.
    pub(super) fn give_back(self, writer: Box<dyn WriteResponse>) -> Box<dyn WriteResponse> {
        if self.0.is_empty() { writer } else { Box::new(Renaming { names: self, writer }) }
    }

    fn is_in(&self, choice: &Value) -> bool {
        calls_of(choice).any(|call| self.long(call).is_some())
    }

    fn long(&self, call: &Value) -> Option<&str> {
        let name = call.get("function")?.get("name")?.as_str()?;
        self.0.iter().find(|(short, _)| short == name).map(|(_, long)| long.as_str())
    }

    fn lengthen(&self, chat: &mut Value) {
        let choices = chat.get_mut("choices").and_then(Value::as_array_mut).into_iter().flatten();
        for choice in choices {
            for part in ["message", "delta"] {
                let calls = choice.get_mut(part).and_then(|part| part.get_mut("tool_calls"));
                for call in calls.and_then(Value::as_array_mut).into_iter().flatten() {
                    let long = self.long(call).map(Value::from);
                    let name = call.get_mut("function").and_then(|function| function.get_mut("name"));
                    if let (Some(long), Some(name)) = (long, name) {
                        *name = long;
                    }
                }
            }
        }
    }
}

fn calls_of(choice: &Value) -> impl Iterator<Item = &Value> {
    let parts =
        ["message", "delta"].into_iter().filter_map(|part| choice.get(part)?.get("tool_calls")?.as_array());
    parts.flatten()
}

/// Writes a response whose tools have other names at the provider.
struct Renaming {
    names: LongNames,
    writer: Box<dyn WriteResponse>,
}

impl WriteResponse for Renaming {
    fn whole(&mut self, mut chat: Value) -> Result<Value, Error> {
        self.names.lengthen(&mut chat);
        self.writer.whole(chat)
    }

    fn chunk(&mut self, chunk: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        let choices = chunk.get("choices").and_then(Value::as_array);
        if !choices.is_some_and(|choices| choices.iter().any(|choice| self.names.is_in(choice))) {
            return self.writer.chunk(chunk, out);
        }
        let mut chunk = chunk.clone();
        self.names.lengthen(&mut chunk);
        self.writer.chunk(&chunk, out)
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.writer.finish(out);
    }

    fn id(&self) -> Option<&str> {
        self.writer.id()
    }
}

/// The id of a call with the signature of the thought behind it: Gemini wants it back with the call, and Anthropic's blocks have no
/// other place that clients keep. In letters that Anthropic takes in an id.
pub(super) fn with_thought(id: &str, call: &Value) -> Option<String> {
    let signature = thought::signature(call)?;
    let letters = signature.trim_end_matches('=').replace('+', "-").replace('/', "_");
    Some(thought::with_signature(id, &letters))
}

/// A call's own id, and the signature that it carries, in base64 as its maker wrote it.
pub(super) fn without_thought(id: &str) -> (&str, Option<String>) {
    let (own, letters) = thought::without_signature(id);
    let signature = letters.map(|letters| {
        let mut signature = letters.replace('-', "+").replace('_', "/");
        while !signature.len().is_multiple_of(4) {
            signature.push('=');
        }
        signature
    });
    (own, signature)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_long_name_is_cut_and_told_apart_by_a_hash() {
        let exact = "a".repeat(64);
        assert_eq!(shortened(&exact), exact);
        let long = format!("mcp__plugin_{}__one", "x".repeat(60));
        let short = shortened(&long);
        assert_eq!(short.len(), 64);
        assert!(long.starts_with(&short[..55]) && short.as_bytes()[55] == b'_', "{short}");
        assert_ne!(short, shortened(&long.replace("one", "two")));
        assert!(shortened(&"é".repeat(60)).len() <= 64);
    }

    #[test]
    fn a_signature_comes_back_out_of_an_id() {
        for signature in ["Ab==", "a+b/c9==", "SIGN", ""] {
            let call = json!({"extra_content": {"google": {"thought_signature": signature}}});
            let id = with_thought("call_1", &call).unwrap();
            assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)), "{id}");
            assert_eq!(without_thought(&id), ("call_1", Some(signature.to_owned())), "{id}");
        }
        assert_eq!(with_thought("call_1", &json!({})), None);
        assert_eq!(without_thought("call_1"), ("call_1", None));
    }
}
