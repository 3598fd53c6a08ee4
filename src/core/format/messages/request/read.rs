//! Message requests, read as chat requests.
//!
//! What only Anthropic has and no chat model could use is left out (`cache_control`, results of Anthropic's own tools in
//! the history). What the model would have to see but chat cannot say is refused with its path.

use serde_json::{Map, Value, json};

use crate::core::{
    codec::value::{self, object},
    error::Error,
    format::{
        Context,
        chat::thought,
        messages::names::{self, LongNames},
        params,
        path::Path,
    },
    model::params::Params,
};

/// Members of the request that mean nothing to a chat model.
const ANTHROPIC_ONLY: [&str; 10] = [
    "anthropic_beta",
    "anthropic_version",
    "betas",
    "cache_control",
    "container",
    "context_management",
    "inference_geo",
    "mcp_servers",
    "service_tier",
    "speed",
];

/// OpenAI refuses a longer `user`.
const USER_CHARS: usize = 64;

/// Makes the chat request, and remembers the names of tools that chat providers do not take. Of what is no parameter of chat only that
/// goes on which the configuration has put there or allows: a chat provider refuses what it does not know, and Anthropic's clients
/// send something new with every version.
pub fn read(
    mut body: Map<String, Value>,
    context: &Context<'_>,
) -> Result<(Map<String, Value>, LongNames), Error> {
    body.retain(|name, value| !value.is_null() && !ANTHROPIC_ONLY.contains(&name.as_str()));
    if body.contains_key("thread") {
        return Err(no_threads());
    }
    let mut chat = Map::new();
    chat.insert("model".into(), params::model(&mut body, context));
    chat.insert("messages".into(), Value::Array(messages(&mut body, context.quirks.signed_calls)?));
    settings(&mut body, &mut chat)?;
    let mut names = LongNames::default();
    tools(&mut body, &mut chat, &mut names, context)?;
    output(&mut body, &mut chat)?;
    let goes_on = |name: &str| {
        Params::named(name).has(Params::CHAT)
            || context.defaults.is_some_and(|defaults| defaults.contains_key(name))
            || context.allowed_params.iter().any(|allowed| allowed == name)
    };
    for (name, value) in body {
        if !chat.contains_key(&name) && goes_on(&name) {
            chat.insert(name, value);
        }
    }
    Ok((chat, names))
}

/// The refusal of a conversation that the provider is to keep: left out, the turns after this one would come alone. Anthropic's
/// clients know it, and send the whole conversation instead.
fn no_threads() -> Error {
    Error::bad_request(
        "thread: this model's provider keeps no conversations. Send the whole conversation without `thread`.",
    )
    .with_param("thread")
    .with_details(json!({"error_code": "thread_unsupported_request", "unsupported": null}))
}

fn messages(body: &mut Map<String, Value>, takes_thoughts: bool) -> Result<Vec<Value>, Error> {
    let mut out = Vec::new();
    if let Some(system) = body.shift_remove("system") {
        system_message(system, &Path::top("system"), &mut out)?;
    }
    let path = Path::top("messages");
    let list = path.list(body.shift_remove("messages").unwrap_or_default())?;
    if list.is_empty() {
        return Err(path.wrong("a list of at least one message"));
    }
    for (at, message) in list.into_iter().enumerate() {
        let path = path.item(at);
        let mut message = path.object(message)?;
        let content = message.shift_remove("content").unwrap_or_default();
        let at_content = path.member("content");
        match message.get("role").and_then(Value::as_str) {
            Some("user") => user_messages(content, &at_content, &mut out)?,
            Some("assistant") => out.push(assistant_message(content, &at_content, takes_thoughts)?),
            Some("system") => system_message(content, &at_content, &mut out)?,
            _ => return Err(path.member("role").wrong("`user` or `assistant`")),
        }
    }
    Ok(out)
}

fn system_message(content: Value, path: &Path, out: &mut Vec<Value>) -> Result<(), Error> {
    let mut parts = Vec::new();
    for (at, mut block) in blocks(content, path)?.into_iter().enumerate() {
        let path = path.item(at);
        if block.get("type").and_then(Value::as_str) != Some("text") {
            return Err(path.member("type").wrong("`text` in a system prompt"));
        }
        let text = path.take_text(&mut block, "text")?;
        if !text.is_empty() {
            parts.push(text_part(text));
        }
    }
    if !parts.is_empty() {
        out.push(object! {"role": "system", "content": content_of(parts)});
    }
    Ok(())
}

/// The tool messages of a user turn, then what else it says: chat wants every tool result right after the calls.
fn user_messages(content: Value, path: &Path, out: &mut Vec<Value>) -> Result<(), Error> {
    let (mut attached, mut parts, mut results) = (Vec::new(), Vec::new(), 0);
    for (at, block) in blocks(content, path)?.into_iter().enumerate() {
        let path = path.item(at);
        if block.get("type").and_then(Value::as_str) == Some("tool_result") {
            out.push(tool_message(block, &path, &mut attached)?);
            results += 1;
        } else {
            push_parts(block, &path, &mut parts)?;
        }
    }
    attached.append(&mut parts);
    if !attached.is_empty() || results == 0 {
        out.push(object! {"role": "user", "content": content_of(attached)});
    }
    Ok(())
}

/// A tool message holds text only, so images and files of the result go into `attached`, under a line that says whose they
/// are.
fn tool_message(
    mut block: Map<String, Value>,
    path: &Path,
    attached: &mut Vec<Value>,
) -> Result<Value, Error> {
    let id = path.take_text(&mut block, "tool_use_id")?;
    let (id, _) = names::without_thought(&id);
    let failed = block.get("is_error").and_then(Value::as_bool) == Some(true);
    let at_content = path.member("content");
    let mut parts = Vec::new();
    match block.shift_remove("content") {
        None | Some(Value::Null) => {}
        Some(content) => {
            for (at, block) in blocks(content, &at_content)?.into_iter().enumerate() {
                push_parts(block, &at_content.item(at), &mut parts)?;
            }
        }
    }
    let (mut texts, others): (Vec<_>, Vec<_>) = parts.into_iter().partition(is_text_part);
    if !others.is_empty() {
        if texts.is_empty() {
            texts.push(text_part("The result follows in the next message.".into()));
        }
        attached.push(text_part(format!("Result of tool call {id}:")));
        attached.extend(others);
    }
    if failed {
        mark_failed(&mut texts);
    }
    Ok(object! {"role": "tool", "tool_call_id": id, "content": content_of(texts)})
}

/// Chat has no flag for a failed call, so the text says it.
fn mark_failed(texts: &mut Vec<Value>) {
    match texts.first_mut().and_then(|part| part.get_mut("text")) {
        Some(Value::String(text)) if text.starts_with("Error") => {}
        Some(Value::String(text)) => text.insert_str(0, "Error: "),
        _ => texts.push(text_part("Error".into())),
    }
}

/// Adds the chat parts that one block of user content or of a tool result becomes.
fn push_parts(mut block: Map<String, Value>, path: &Path, parts: &mut Vec<Value>) -> Result<(), Error> {
    match block.get("type").and_then(Value::as_str) {
        Some("text") => parts.push(text_part(path.take_text(&mut block, "text")?)),
        // A tool that a search has found. All tools are sent anyway.
        Some("tool_reference") => {
            let name = path.take_text(&mut block, "tool_name")?;
            parts.push(text_part(format!("Tool {} is available", names::shortened(&name))));
        }
        Some("image") => parts.push(image_part(block, path)?),
        Some("document") => push_document(block, path, parts)?,
        Some("search_result") => parts.push(search_result_part(block, path)?),
        _ => {
            let known = "`text`, `image`, `document`, `search_result` or `tool_result` for this model";
            return Err(path.member("type").wrong(known));
        }
    }
    Ok(())
}

fn image_part(mut block: Map<String, Value>, path: &Path) -> Result<Value, Error> {
    let path = path.member("source");
    let mut source = path.object(block.shift_remove("source").unwrap_or_default())?;
    let url = match source.get("type").and_then(Value::as_str) {
        Some("base64") => data_url(&mut source, &path)?,
        Some("url") => path.take_text(&mut source, "url")?,
        _ => return Err(path.member("type").wrong("`base64` or `url` for this model")),
    };
    Ok(object! {"type": "image_url", "image_url": object! {"url": url}})
}

fn push_document(mut block: Map<String, Value>, path: &Path, parts: &mut Vec<Value>) -> Result<(), Error> {
    if let Some(Value::String(context)) = block.shift_remove("context") {
        parts.push(text_part(context));
    }
    let title = match block.shift_remove("title") {
        Some(Value::String(title)) if !title.is_empty() => Some(title),
        _ => None,
    };
    let path = path.member("source");
    let mut source = path.object(block.shift_remove("source").unwrap_or_default())?;
    match source.get("type").and_then(Value::as_str) {
        Some("base64") => {
            let data = data_url(&mut source, &path)?;
            let name = title.unwrap_or_else(|| "document.pdf".into());
            parts.push(object! {"type": "file", "file": object! {"filename": name, "file_data": data}});
        }
        Some("url") => {
            // A file named by its URL is the hub's form; who sends the request on decides whether the provider takes it.
            let url = path.take_text(&mut source, "url")?;
            parts.push(object! {"type": "file", "file": object! {"file_id": url}});
        }
        Some("text") => {
            let text = path.take_text(&mut source, "data")?;
            parts.push(text_part(title.map_or(text.clone(), |title| format!("{title}\n\n{text}"))));
        }
        Some("content") => {
            parts.extend(title.map(text_part));
            let path = path.member("content");
            let content = source.shift_remove("content").unwrap_or_default();
            for (at, block) in blocks(content, &path)?.into_iter().enumerate() {
                let path = path.item(at);
                match block.get("type").and_then(Value::as_str) {
                    // Documents do not nest: what a document holds costs no stack.
                    Some("text" | "image") => push_parts(block, &path, parts)?,
                    _ => return Err(path.member("type").wrong("`text` or `image`")),
                }
            }
        }
        _ => return Err(path.member("type").wrong("`base64`, `url`, `text` or `content` for this model")),
    }
    Ok(())
}

fn search_result_part(mut block: Map<String, Value>, path: &Path) -> Result<Value, Error> {
    let mut text = [path.take_text(&mut block, "title")?, path.take_text(&mut block, "source")?].join("\n");
    let path = path.member("content");
    for (at, mut block) in
        blocks(block.shift_remove("content").unwrap_or_default(), &path)?.into_iter().enumerate()
    {
        text.push_str("\n\n");
        text.push_str(&path.item(at).take_text(&mut block, "text")?);
    }
    Ok(text_part(text))
}

fn assistant_message(content: Value, path: &Path, takes_thoughts: bool) -> Result<Value, Error> {
    let (mut text, mut reasoning) = (String::new(), String::new());
    let (mut calls, mut thinking) = (Vec::new(), Vec::new());
    for (at, mut block) in blocks(content, path)?.into_iter().enumerate() {
        let path = path.item(at);
        match block.get("type").and_then(Value::as_str) {
            Some("text") => text.push_str(&path.take_text(&mut block, "text")?),
            Some("tool_use") => calls.push(tool_call(block, &path, takes_thoughts)?),
            Some("thinking") => {
                if let Some(Value::String(thought)) = block.get("thinking") {
                    reasoning.push_str(thought);
                }
                thinking.push(Value::Object(block));
            }
            Some("redacted_thinking") => thinking.push(Value::Object(block)),
            // Anthropic ran these itself and the text after them already holds what came of it.
            Some("server_tool_use" | "mcp_tool_use" | "container_upload") => {}
            Some(kind) if kind.ends_with("_tool_result") => {}
            _ => {
                return Err(path
                    .member("type")
                    .wrong("`text`, `tool_use` or `thinking` in an assistant message"));
            }
        }
    }
    let mut message = Map::new();
    message.insert("role".into(), "assistant".into());
    let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { text.into() };
    message.insert("content".into(), content);
    if !calls.is_empty() {
        message.insert("tool_calls".into(), calls.into());
    }
    if !thinking.is_empty() {
        message.insert("thinking_blocks".into(), thinking.into());
        message.insert("reasoning_content".into(), reasoning.into());
    }
    Ok(Value::Object(message))
}

fn tool_call(mut block: Map<String, Value>, path: &Path, takes_thoughts: bool) -> Result<Value, Error> {
    let id = path.take_text(&mut block, "id")?;
    let (id, thought) = names::without_thought(&id);
    let name = path.take_text(&mut block, "name")?;
    let name = names::shortened(&name).into_owned();
    let input = match block.shift_remove("input") {
        None | Some(Value::Null) => Map::new(),
        Some(input) => path.member("input").object(input)?,
    };
    let arguments = value::to_text(&Value::Object(input));
    let function = object! {"name": name, "arguments": arguments};
    Ok(match thought.filter(|_| takes_thoughts) {
        Some(signature) => object! {
            "id": id,
            "type": "function",
            "function": function,
            "extra_content": thought::extra_content(&signature),
        },
        None => object! {"id": id, "type": "function", "function": function},
    })
}

/// Sampling, limits, user and streaming.
fn settings(body: &mut Map<String, Value>, chat: &mut Map<String, Value>) -> Result<(), Error> {
    for (name, expected, holds) in [
        ("max_tokens", "a positive integer", Value::is_u64 as fn(&Value) -> bool),
        ("temperature", "a number", value::is_number),
        ("top_p", "a number", value::is_number),
        ("top_k", "an integer", Value::is_i64),
        ("stream", "`true` or `false`", Value::is_boolean),
    ] {
        if let Some(value) = body.shift_remove(name) {
            if !holds(&value) {
                return Err(Path::top(name).wrong(expected));
            }
            chat.insert(name.into(), value);
        }
    }
    if chat.get("stream") == Some(&Value::Bool(true)) {
        chat.insert("stream_options".into(), object! {"include_usage": true});
    }
    if let Some(stops) = body.shift_remove("stop_sequences") {
        let path = Path::top("stop_sequences");
        let stops = path.list(stops)?;
        if let Some(at) = stops.iter().position(|stop| !stop.is_string()) {
            return Err(path.item(at).wrong("a string"));
        }
        if !stops.is_empty() {
            chat.insert("stop".into(), stops.into());
        }
    }
    if let Some(metadata) = body.shift_remove("metadata") {
        let mut metadata = Path::top("metadata").object(metadata)?;
        if let Some(Value::String(user)) = metadata.shift_remove("user_id") {
            chat.insert("user".into(), user.chars().take(USER_CHARS).collect::<String>().into());
        }
    }
    Ok(())
}

fn tools(
    body: &mut Map<String, Value>,
    chat: &mut Map<String, Value>,
    names: &mut LongNames,
    context: &Context<'_>,
) -> Result<(), Error> {
    let path = Path::top("tools");
    let choice = body.shift_remove("tool_choice");
    let mut functions = Vec::new();
    let tools = body.shift_remove("tools").unwrap_or_else(|| Value::Array(Vec::new()));
    for (at, tool) in path.list(tools)?.into_iter().enumerate() {
        let path = path.item(at);
        let tool = path.object(tool)?;
        match tool.get("type").and_then(Value::as_str) {
            None | Some("custom") => functions.push(function(tool, names, &path)?),
            Some(kind) if kind.starts_with("web_search_") => {
                chat.insert("web_search_options".into(), web_search_options(tool));
            }
            // The others run at Anthropic, or are known to its models only.
            Some(_) if context.drop_params => {}
            Some(_) => {
                return Err(path
                    .member("type")
                    .wrong("`custom` (a tool with an `input_schema`) for this model"));
            }
        }
    }
    // OpenAI refuses a choice without tools.
    if functions.is_empty() {
        return Ok(());
    }
    chat.insert("tools".into(), functions.into());
    if let Some(choice) = choice { tool_choice(choice, chat) } else { Ok(()) }
}

fn function(mut tool: Map<String, Value>, names: &mut LongNames, path: &Path) -> Result<Value, Error> {
    let mut function = Map::new();
    function.insert("name".into(), names.shorten(path.take_text(&mut tool, "name")?).into());
    if let Some(description) = tool.shift_remove("description").filter(Value::is_string) {
        function.insert("description".into(), description);
    }
    let schema = match tool.shift_remove("input_schema") {
        None | Some(Value::Null) => object! {"type": "object", "properties": object! {}},
        Some(schema) => Value::Object(path.member("input_schema").object(schema)?),
    };
    function.insert("parameters".into(), schema);
    if let Some(strict) = tool.shift_remove("strict").filter(Value::is_boolean) {
        function.insert("strict".into(), strict);
    }
    Ok(object! {"type": "function", "function": function})
}

fn web_search_options(mut tool: Map<String, Value>) -> Value {
    match tool.shift_remove("user_location") {
        Some(Value::Object(mut place)) => {
            place.shift_remove("type");
            object! {"user_location": object! {"type": "approximate", "approximate": place}}
        }
        _ => object! {},
    }
}

fn tool_choice(choice: Value, chat: &mut Map<String, Value>) -> Result<(), Error> {
    let path = Path::top("tool_choice");
    let mut choice = path.object(choice)?;
    let mapped = match choice.get("type").and_then(Value::as_str) {
        Some("auto") => Value::from("auto"),
        Some("any") => Value::from("required"),
        Some("none") => Value::from("none"),
        Some("tool") => {
            let name = path.take_text(&mut choice, "name")?;
            object! {"type": "function", "function": object! {"name": names::shortened(&name).into_owned()}}
        }
        _ => return Err(path.member("type").wrong("`auto`, `any`, `tool` or `none`")),
    };
    chat.insert("tool_choice".into(), mapped);
    if let Some(Value::Bool(disable)) = choice.get("disable_parallel_tool_use") {
        chat.insert("parallel_tool_calls".into(), Value::Bool(!disable));
    }
    Ok(())
}

/// How much to think and in which form to answer.
fn output(body: &mut Map<String, Value>, chat: &mut Map<String, Value>) -> Result<(), Error> {
    let mut config = match body.shift_remove("output_config") {
        None => Map::new(),
        Some(config) => Path::top("output_config").object(config)?,
    };
    let format = body.shift_remove("output_format").or(config.shift_remove("format"));
    if let Some(schema) = format.as_ref().and_then(|format| format.get("schema")) {
        let schema = object! {"name": "output", "schema": schema.clone(), "strict": true};
        chat.insert("response_format".into(), object! {"type": "json_schema", "json_schema": schema});
    }
    let effort = match config.get("effort").and_then(Value::as_str) {
        Some(effort @ ("low" | "medium" | "high")) => Some(effort),
        Some(_) => Some("high"),
        None => None,
    };
    let effort = match body.shift_remove("thinking") {
        None => effort,
        Some(thinking) => effort_of(thinking, effort)?,
    };
    if let Some(effort) = effort {
        chat.insert("reasoning_effort".into(), effort.into());
    }
    Ok(())
}

/// Thresholds are LiteLLM's.
fn effort_of(thinking: Value, effort: Option<&str>) -> Result<Option<&str>, Error> {
    let path = Path::top("thinking");
    let thinking = path.object(thinking)?;
    match thinking.get("type").and_then(Value::as_str) {
        Some("disabled") => Ok(None),
        Some("adaptive") => Ok(effort),
        Some("enabled") => match thinking.get("budget_tokens").and_then(Value::as_u64) {
            Some(10_000..) => Ok(Some("high")),
            Some(5_000..) => Ok(Some("medium")),
            Some(2_000..) => Ok(Some("low")),
            Some(_) => Ok(Some("minimal")),
            None => Err(path.member("budget_tokens").wrong("a positive integer")),
        },
        _ => Err(path.member("type").wrong("`enabled`, `adaptive` or `disabled`")),
    }
}

/// Content as blocks; a string is one text block.
fn blocks(content: Value, path: &Path) -> Result<Vec<Map<String, Value>>, Error> {
    match content {
        Value::String(text) => Ok(vec![Map::from_iter([
            ("type".to_owned(), Value::from("text")),
            ("text".to_owned(), Value::from(text)),
        ])]),
        Value::Array(list) => {
            list.into_iter().enumerate().map(|(at, block)| path.item(at).object(block)).collect()
        }
        _ => Err(path.wrong("a string or a list of content blocks")),
    }
}

fn data_url(source: &mut Map<String, Value>, path: &Path) -> Result<String, Error> {
    let kind = path.take_text(source, "media_type")?;
    let data = path.take_text(source, "data")?;
    Ok(format!("data:{kind};base64,{data}"))
}

fn text_part(text: String) -> Value {
    object! {"type": "text", "text": text}
}

fn is_text_part(part: &Value) -> bool {
    part.get("type").and_then(Value::as_str) == Some("text")
}

/// Parts as message content: no part or one text is a string, the form that every server takes.
fn content_of(mut parts: Vec<Value>) -> Value {
    match parts.as_mut_slice() {
        [] => Value::from(""),
        [Value::Object(part)] if part.get("type").is_some_and(|kind| kind == "text") => {
            part.shift_remove("text").unwrap_or_default()
        }
        _ => Value::Array(parts),
    }
}

#[cfg(test)]
mod tests;
