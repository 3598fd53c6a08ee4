//! Counting the tokens of a message: Anthropic's own count, asked for in the words of its API, and an estimate where there is none.

use serde_json::{Map, Value};

use super::request;
use crate::core::{
    codec::json::Object,
    error::{Error, ErrorFormat},
    format::{
        self,
        prepare::{Facts, Prepare},
    },
    model::{
        failure::{Native, Said},
        status::Status,
    },
};

/// What rows of brands call it.
pub const NAME: &str = "count_tokens";

/// Members of a message request that say how to answer, which nobody counts and Anthropic refuses here.
const OF_ANSWERS: &[&str] = &[
    "container",
    "inference_geo",
    "max_tokens",
    "metadata",
    "service_tier",
    "stop_sequences",
    "stream",
    "temperature",
    "thread",
    "top_k",
    "top_p",
];

/// The format: a message request without what only says how to answer.
pub struct Format;

impl format::Format for Format {
    fn name(&self) -> &'static str {
        NAME
    }

    fn path(&self) -> &'static str {
        "/messages/count_tokens"
    }

    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        super::Format.headers()
    }

    fn answer(&self) -> (&'static str, fn(&Value) -> bool) {
        ("input_tokens", Value::is_number)
    }

    fn error_format(&self) -> ErrorFormat {
        ErrorFormat::Anthropic
    }

    fn fit(&self, body: &mut Object<'_>, _prepare: &Prepare<'_>, _facts: &mut Facts) -> Result<(), Error> {
        body.retain(|name, _| !OF_ANSWERS.contains(&name));
        request::clean(body);
        Ok(())
    }

    fn takes_default(&self, member: &str) -> bool {
        !OF_ANSWERS.contains(&member) && super::Format.takes_default(member)
    }

    fn has_texts(&self) -> bool {
        false
    }

    fn read_failure(&self, status: Option<Status>, body: &[u8]) -> (Said, String) {
        super::Format.read_failure(status, body)
    }

    fn read_native(&self, status: Option<Status>, body: &[u8]) -> Option<Native> {
        super::Format.read_native(status, body)
    }
}

/// Tokens of a text, as the estimate for a model's window has them.
type TextTokens = fn(&str) -> u64;

/// What a message costs besides its text, a tool besides its description and schema, and the beginning of the answer.
const MESSAGE: u64 = 4;
const TOOL: u64 = 12;
const PRIMING: u64 = 3;
/// A picture, and whatever stands at an address.
const PICTURE: u64 = 250;
/// Characters of a file's base64 that are about one token.
const CHARS_OF_FILE: u64 = 16;

/// The tokens of a message request, more or less: of its system prompt, messages, tools and schema, pictures and files.
///
/// # Errors
///
/// There are no messages.
pub fn estimate(body: &Object<'_>, text_tokens: TextTokens) -> Result<u64, Error> {
    let messages = body.read::<Vec<Value>>("messages").filter(|messages| !messages.is_empty());
    let Some(messages) = messages else {
        let message = "messages: expected a list of at least one message.";
        return Err(Error::bad_request(message).with_param("messages"));
    };
    let count = Count { text_tokens };
    let messages = messages.iter().map(|message| {
        let content = message.get("content").unwrap_or(&Value::Null);
        count.content(content).saturating_add(MESSAGE)
    });
    let sum = messages.fold(PRIMING, u64::saturating_add);
    let system = body.read::<Value>("system").map_or(0, |system| count.content(&system));
    let tools = body.read::<Vec<Map<String, Value>>>("tools").unwrap_or_default();
    let tools = tools.iter().map(|tool| count.object(tool).saturating_add(TOOL));
    let schema = body.read::<Value>("output_format").or_else(|| body.read("output_config"));
    let schema = schema.map_or(0, |schema| count.value(&schema));
    Ok(tools.fold(sum, u64::saturating_add).saturating_add(system).saturating_add(schema))
}

struct Count {
    text_tokens: TextTokens,
}

impl Count {
    /// A text or a list of blocks.
    fn content(&self, content: &Value) -> u64 {
        match content {
            Value::String(text) => (self.text_tokens)(text),
            Value::Array(blocks) => blocks.iter().map(|block| self.block(block)).fold(0, u64::saturating_add),
            _ => 0,
        }
    }

    fn block(&self, block: &Value) -> u64 {
        let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default();
        let content = || self.content(block.get("content").unwrap_or(&Value::Null));
        match text("type") {
            "text" => (self.text_tokens)(text("text")),
            "thinking" => (self.text_tokens)(text("thinking")),
            "redacted_thinking" => of_file(text("data")),
            "image" => PICTURE,
            "document" => self.document(block),
            "tool_result" => content().saturating_add(MESSAGE),
            "search_result" => (self.text_tokens)(text("title"))
                .saturating_add((self.text_tokens)(text("source")))
                .saturating_add(content()),
            "tool_use" | "server_tool_use" | "mcp_tool_use" => {
                let input = block.get("input").map_or(0, |input| self.value(input));
                (self.text_tokens)(text("name")).saturating_add(input).saturating_add(MESSAGE)
            }
            _ => self.value(block),
        }
    }

    fn document(&self, block: &Value) -> u64 {
        let source = block.get("source").unwrap_or(&Value::Null);
        let data = source.get("data").and_then(Value::as_str);
        let inside = match (source.get("type").and_then(Value::as_str), data) {
            (Some("text"), Some(text)) => (self.text_tokens)(text),
            (Some("base64"), Some(data)) => of_file(data).max(PICTURE),
            (Some("content"), _) => self.content(source.get("content").unwrap_or(&Value::Null)),
            _ => PICTURE,
        };
        let words = ["title", "context"].into_iter().filter_map(|name| block.get(name)?.as_str());
        words.map(|text| (self.text_tokens)(text)).fold(inside, u64::saturating_add)
    }

    /// JSON as a model is told it: its texts and names, and a sign around each.
    fn value(&self, value: &Value) -> u64 {
        match value {
            Value::String(text) => (self.text_tokens)(text).saturating_add(1),
            Value::Array(list) => list.iter().map(|item| self.value(item)).fold(1, u64::saturating_add),
            Value::Object(map) => self.object(map),
            _ => (self.text_tokens)(&value.to_string()),
        }
    }

    fn object(&self, map: &Map<String, Value>) -> u64 {
        let members = map.iter().filter(|(name, _)| *name != "cache_control");
        let tokens = members.map(|(name, value)| (self.text_tokens)(name).saturating_add(self.value(value)));
        tokens.fold(1, u64::saturating_add)
    }
}

fn of_file(base64: &str) -> u64 {
    u64::try_from(base64.len()).unwrap_or(u64::MAX) / CHARS_OF_FILE
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A word is a token.
    fn words(text: &str) -> u64 {
        text.split_whitespace().count() as u64
    }

    fn count(body: &Value) -> u64 {
        let bytes = body.to_string().into_bytes();
        estimate(&Object::parse(&bytes).unwrap(), words).unwrap()
    }

    #[test]
    fn everything_that_a_model_reads_is_counted() {
        let hello = json!([{"role": "user", "content": "one two"}]);
        let base = PRIMING + MESSAGE + 2;
        let with = |name: &str, value: Value| {
            let mut body = json!({"messages": hello});
            body[name] = value;
            count(&body) - base
        };
        assert_eq!(count(&json!({"messages": hello})), base);
        assert_eq!(with("system", json!("a b c")), 3);
        assert_eq!(
            with("system", json!([{"type": "text", "text": "a b", "cache_control": {"type": "ephemeral"}}])),
            2
        );
        assert_eq!(with("max_tokens", json!(5)), 0);
        let tool = json!({"name": "f", "description": "what it does", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}});
        assert!((TOOL + 10..TOOL + 30).contains(&with("tools", json!([tool]))));
        assert!(
            with("output_config", json!({"format": {"type": "json_schema", "schema": {"type": "object"}}}))
                > 4
        );

        let block = |block: Value| {
            count(&json!({"messages": [{"role": "user", "content": [block]}]})) - PRIMING - MESSAGE
        };
        let file = "A".repeat(160_000);
        let rows = [
            (json!({"type": "text", "text": "a b"}), 2),
            (json!({"type": "thinking", "thinking": "a b c", "signature": "x y"}), 3),
            (
                json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": file}}),
                PICTURE,
            ),
            (json!({"type": "image", "source": {"type": "url", "url": "http://a"}}), PICTURE),
            (
                json!({"type": "document", "title": "a", "source": {"type": "text", "media_type": "text/plain", "data": "a b c"}}),
                4,
            ),
            (
                json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": file}}),
                10_000,
            ),
            (
                json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="}}),
                PICTURE,
            ),
            (
                json!({"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a b"}]}}),
                2,
            ),
            (json!({"type": "document", "source": {"type": "file", "file_id": "f"}}), PICTURE),
            (json!({"type": "tool_result", "tool_use_id": "t", "content": "a b"}), 2 + MESSAGE),
            (
                json!({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "a"}, {"type": "image", "source": {}}]}),
                1 + PICTURE + MESSAGE,
            ),
            (json!({"type": "tool_use", "id": "t", "name": "f", "input": {"city": "Oslo"}}), 1 + 4 + MESSAGE),
        ];
        for (value, tokens) in rows {
            assert_eq!(block(value.clone()), tokens, "{}", value["type"]);
        }
    }

    #[test]
    fn no_messages_are_refused() {
        for body in [json!({}), json!({"messages": []}), json!({"messages": "x"}), json!({"messages": null})]
        {
            let bytes = body.to_string().into_bytes();
            let error = estimate(&Object::parse(&bytes).unwrap(), words).unwrap_err();
            assert_eq!((error.status(), error.param.as_deref()), (400, Some("messages")));
        }
    }
}
