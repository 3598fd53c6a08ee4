//! Counting tokens before a call: OpenAI's tokenizers, and the rule by which chat messages and tools become tokens.
//!
//! Models of other makers are counted with `cl100k_base`, which is near enough for estimates; what is charged is what their
//! providers tell.

use serde::Deserialize;
use serde_json::{Value, json};
use tiktoken_rs::{
    CoreBPE, bpe_for_tokenizer,
    tokenizer::{Tokenizer, get_tokenizer},
};
use tokio::sync::Semaphore;

use super::problem::{ErrorStatus, Problem};

/// Text that is counted in one call, in bytes. Longer text is refused: counting takes about a second for it.
pub const MAX_BYTES: usize = 4 << 20;

/// Counting is work for a processor: more at a time would only keep others waiting.
static COUNTING: Semaphore = Semaphore::const_new(2);

/// What is to be counted.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// Plain text. With it nothing else counts.
    pub text: Option<String>,
    /// Chat messages.
    pub messages: Vec<Value>,
    /// Tools of a chat request.
    pub tools: Vec<Value>,
    /// `tool_choice` of a chat request.
    pub tool_choice: Option<Value>,
}

/// Counts a prompt as the model's tokenizer does, aside from the threads that answer calls.
pub async fn count(model: &str, prompt: Prompt) -> Result<u64, Problem> {
    let too_long = || {
        let message = format!("the text is too long to be counted: expected at most {MAX_BYTES} bytes");
        Problem::too_large(message)
    };
    if size(&prompt) > MAX_BYTES {
        return Err(too_long());
    }
    let tokenizer = tokenizer_of(model);
    let failed = |_| Problem::refused(ErrorStatus::INTERNAL_SERVER_ERROR, "the text could not be counted");
    let _turn = COUNTING
        .acquire()
        .await
        .map_err(|_| Problem::refused(ErrorStatus::INTERNAL_SERVER_ERROR, "the text could not be counted"))?;
    // The tokenizer panics on text that its patterns give up on; the task's end tells.
    let counted = tokio::task::spawn_blocking(move || Some(Counter::of(tokenizer)?.prompt(&prompt)));
    let counted = counted.await.map_err(failed)?;
    counted
        .ok_or_else(|| {
            Problem::refused(ErrorStatus::INTERNAL_SERVER_ERROR, "this model's tokenizer is missing")
        })?
        .ok_or_else(too_long)
}

/// What an embedding is made of when it is told in tokens.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Input {
    One(Vec<u32>),
    Many(Vec<Vec<u32>>),
}

/// The `input` of an embedding in texts, which came in tokens: those of OpenAI's embedding models, as clients take them for any
/// other model too. A token that is a part of a character becomes the sign for an unreadable one.
pub async fn texts(input: &[u8]) -> Result<Value, Problem> {
    let input: Input = serde_json::from_slice(input)
        .map_err(|_| Problem::Detail(400, json!("expected a list of numbers, or a list of such lists.")))?;
    let failed =
        || Problem::refused(ErrorStatus::INTERNAL_SERVER_ERROR, "the tokens could not be made texts");
    let _turn = COUNTING.acquire().await.map_err(|_| failed())?;
    let made = tokio::task::spawn_blocking(move || {
        let tokenizer = bpe_for_tokenizer(Tokenizer::Cl100kBase).map_err(|_| None)?;
        let text = |tokens: &Vec<u32>| {
            let bytes = tokenizer.decode_bytes(tokens).map_err(|unknown| Some(unknown.token))?;
            Ok(Value::from(String::from_utf8_lossy(&bytes)))
        };
        match &input {
            Input::One(tokens) => text(tokens),
            Input::Many(lists) => {
                lists.iter().map(text).collect::<Result<Vec<Value>, Option<u32>>>().map(Value::from)
            }
        }
    });
    made.await.map_err(|_| failed())?.map_err(|unknown| match unknown {
        Some(token) => Problem::Detail(400, json!(format!("cl100k_base has no token {token}."))),
        None => failed(),
    })
}

/// The tokenizer of a model, by its name with or without a provider in front.
pub fn tokenizer_of(model: &str) -> Tokenizer {
    let mut name = model;
    loop {
        if let Some(tokenizer) = get_tokenizer(name) {
            return tokenizer;
        }
        match name.split_once('/') {
            Some((_, rest)) => name = rest,
            None => return Tokenizer::Cl100kBase,
        }
    }
}

/// Counts with one tokenizer.
pub struct Counter {
    tokenizer: &'static CoreBPE,
}

/// What a message costs besides its text.
const PER_MESSAGE: u64 = 3;
/// What a `name` costs besides its text.
const PER_NAME: u64 = 1;
/// The start of the answer.
const PRIMING: u64 = 3;
/// An image whose size is not known, and one of low detail.
const IMAGE: u64 = 250;
const LOW_IMAGE: u64 = 85;

impl Counter {
    /// Loads a tokenizer the first time, which takes a moment. `None` when its data is broken.
    pub fn of(tokenizer: Tokenizer) -> Option<Counter> {
        bpe_for_tokenizer(tokenizer).ok().map(|tokenizer| Counter { tokenizer })
    }

    /// Tokens of a text.
    pub fn text(&self, text: &str) -> u64 {
        self.tokenizer.count_ordinary(text) as u64
    }

    /// Tokens of a prompt; `None` when its tools become too long a declaration.
    pub fn prompt(&self, prompt: &Prompt) -> Option<u64> {
        if let Some(text) = &prompt.text {
            return Some(self.text(text));
        }
        let tools = self.tools(prompt)?;
        let messages: u64 = prompt.messages.iter().map(|message| self.message(message)).sum();
        Some((messages + PRIMING).saturating_add_signed(tools))
    }

    fn message(&self, message: &Value) -> u64 {
        let members =
            message.as_object().into_iter().flatten().map(|(name, value)| match (name.as_str(), value) {
                ("name", Value::String(text)) => self.text(text) + PER_NAME,
                (_, Value::String(text)) => self.text(text),
                ("content", Value::Array(parts)) => parts.iter().map(|part| self.part(part)).sum(),
                ("tool_calls", Value::Array(calls)) => {
                    let arguments = calls.iter().filter_map(|call| call.get("function")?.get("arguments"));
                    arguments.map(|arguments| self.written(arguments)).sum()
                }
                ("function_call", call) => {
                    call.get("arguments").map_or(0, |arguments| self.written(arguments))
                }
                _ => 0,
            });
        PER_MESSAGE + members.sum::<u64>()
    }

    /// One part of a message's content.
    fn part(&self, part: &Value) -> u64 {
        if let Some(text) = part.as_str() {
            return self.text(text);
        }
        match part.get("type").and_then(Value::as_str) {
            Some("image_url") => {
                let detail =
                    part.get("image_url").and_then(|image| image.get("detail")).and_then(Value::as_str);
                if detail == Some("low") { LOW_IMAGE } else { IMAGE }
            }
            Some("image") => IMAGE,
            Some("tool_use") => ["name", "input"]
                .iter()
                .filter_map(|name| part.get(name))
                .map(|value| self.written(value))
                .sum(),
            Some("tool_result") => match part.get("content") {
                Some(Value::Array(parts)) => parts.iter().map(|part| self.part(part)).sum(),
                Some(value) => self.written(value),
                None => 0,
            },
            _ => ["text", "thinking"]
                .iter()
                .filter_map(|name| part.get(name)?.as_str())
                .map(|t| self.text(t))
                .sum(),
        }
    }

    /// Text as it is, anything else as JSON.
    fn written(&self, value: &Value) -> u64 {
        match value {
            Value::String(text) => self.text(text),
            Value::Null => 0,
            other => self.text(&other.to_string()),
        }
    }

    /// What tools add: their declaration and what stands around it. A system message shares some of that.
    fn tools(&self, prompt: &Prompt) -> Option<i64> {
        if prompt.tools.is_empty() {
            return Some(0);
        }
        let declaration = Some(declaration(&prompt.tools)).filter(|text| text.len() <= MAX_BYTES)?;
        let declared = self.text(&declaration) + 9;
        let system = |message: &Value| message.get("role").and_then(Value::as_str) == Some("system");
        let shared = if prompt.messages.iter().any(system) { 4 } else { 0 };
        let choice = match &prompt.tool_choice {
            Some(Value::String(text)) if text == "none" => 1,
            Some(Value::Object(choice)) => {
                let name = choice.get("function").and_then(|function| function.get("name"));
                7 + name.map_or(0, |name| self.written(name))
            }
            _ => 0,
        };
        Some(i64::try_from(declared + choice).unwrap_or(i64::MAX).saturating_sub(shared))
    }
}

/// Bytes of text in a prompt, roughly: what is counted, not what stands for an image.
fn size(prompt: &Prompt) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len(),
            Value::Array(list) => list.iter().map(of).sum(),
            Value::Object(map) => map.iter().map(|(name, value)| name.len() + of(value)).sum(),
            _ => 4,
        }
    }
    fn part(value: &Value) -> usize {
        match (value.get("type").and_then(Value::as_str), value.get("content")) {
            (Some("image_url" | "image"), _) => 4,
            (Some("tool_result"), Some(Value::Array(parts))) => parts.iter().map(part).sum(),
            _ => of(value),
        }
    }
    let member = |(name, value): (&String, &Value)| match (name.as_str(), value) {
        ("content", Value::Array(parts)) => parts.iter().map(part).sum(),
        _ => of(value),
    };
    let messages = prompt.messages.iter().filter_map(Value::as_object).flatten().map(member);
    let others = prompt.tools.iter().chain(&prompt.tool_choice).map(of);
    prompt.text.as_ref().map_or(0, String::len) + messages.chain(others).sum::<usize>()
}

/// Tools as the type declarations that OpenAI's models are shown.
fn declaration(tools: &[Value]) -> String {
    let mut lines = vec!["namespace functions {".to_owned(), String::new()];
    for function in tools.iter().filter_map(|tool| tool.get("function")) {
        if let Some(about) = text(function, "description") {
            lines.push(format!("// {about}"));
        }
        let name = text(function, "name").unwrap_or_default();
        let parameters = function.get("parameters");
        match parameters.filter(|parameters| !properties(parameters).is_empty()) {
            Some(parameters) => {
                lines.push(format!("type {name} = (_: {{"));
                lines.push(members(parameters, 0));
                lines.push("}) => any;".to_owned());
            }
            None => lines.push(format!("type {name} = () => any;")),
        }
        lines.push(String::new());
    }
    lines.push("} // namespace functions".to_owned());
    lines.join("\n")
}

fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn properties(schema: &Value) -> Vec<(&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).map(|map| map.iter().collect()).unwrap_or_default()
}

/// Indent below which objects are not spelled out: every line of theirs would start with more spaces than it has text.
const DEEPEST: usize = 32;

fn members(schema: &Value, indent: usize) -> String {
    let required = schema.get("required").and_then(Value::as_array);
    let mut lines = Vec::new();
    for (name, property) in properties(schema) {
        // Deeper ones are not shown to the model.
        if let Some(about) = text(property, "description").filter(|_| indent < 2) {
            lines.push(format!("// {about}"));
        }
        let is_required = required.is_some_and(|list| list.iter().any(|item| item == name.as_str()));
        let mark = if is_required { "" } else { "?" };
        lines.push(format!("{name}{mark}: {},", type_of(property, indent)));
    }
    let space = " ".repeat(indent);
    lines.iter().map(|line| format!("{space}{line}")).collect::<Vec<_>>().join("\n")
}

fn type_of(schema: &Value, indent: usize) -> String {
    let choices = |quote: &str| {
        let list = schema.get("enum")?.as_array()?;
        let shown = list.iter().map(|item| {
            let text = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
            format!("{quote}{text}{quote}")
        });
        Some(shown.collect::<Vec<_>>().join(" | "))
    };
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => choices("\"").unwrap_or_else(|| "string".to_owned()),
        Some("number" | "integer") => choices("").unwrap_or_else(|| "number".to_owned()),
        Some("boolean") => "boolean".to_owned(),
        Some("null") => "null".to_owned(),
        Some("array") => match schema.get("items") {
            Some(items) => format!("{}[]", type_of(items, indent)),
            None => "any[]".to_owned(),
        },
        Some("object") if indent < DEEPEST => format!("{{\n{}\n}}", members(schema, indent + 2)),
        Some("object") => "object".to_owned(),
        _ => match schema.get("anyOf").and_then(Value::as_array) {
            Some(list) => list.iter().map(|item| type_of(item, indent)).collect::<Vec<_>>().join(" | "),
            None => "any".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests;
