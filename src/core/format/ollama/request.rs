//! A chat request as Ollama's.

use serde_json::{Map, Value};

use super::Requested;
use crate::core::{
    codec::value::object,
    error::Error,
    format::{Context, params, path::Path},
};

/// OpenAI members that are not about generating, and those that make the server hang (as LiteLLM found).
const IGNORED: [&str; 5] = ["metadata", "store", "stream_options", "tool_choice", "user"];

/// Members of the request itself; every other one is an option of the model.
const OWN: [&str; 4] = ["format", "keep_alive", "think", "tools"];

/// Options that have another name here.
const RENAMED: [(&str, &str); 1] = [("frequency_penalty", "repeat_penalty")];

/// Bytes of text counted as one token, where the server does not count the prompt.
const BYTES_PER_TOKEN: u64 = 4;

/// Makes the request. Parameters that are not OpenAI's (`num_ctx`, `mirostat`, …) go into `options`.
pub fn write(
    mut chat: Map<String, Value>,
    context: &Context<'_>,
) -> Result<(Map<String, Value>, Requested), Error> {
    params::refuse_large_arguments(chat.get("messages"))?;
    let model = params::model(&mut chat, context);
    let mut texts = 0;
    let messages = messages(chat.shift_remove("messages").unwrap_or_default(), &mut texts)?;
    let requested = Requested {
        model: format!("{}/{}", context.brand, model.as_str().unwrap_or_default()),
        prompt_tokens: texts.div_ceil(BYTES_PER_TOKEN),
    };
    let stream = chat.shift_remove("stream").and_then(|stream| stream.as_bool()).unwrap_or(false);
    let mut body = Map::new();
    body.insert("model".into(), model);
    body.insert("messages".into(), messages);
    // Without a word the server streams.
    body.insert("stream".into(), stream.into());
    functions(&mut chat)?;
    if let Some(format) = response_format(chat.shift_remove("response_format"))? {
        body.insert("format".into(), format);
    }
    if let Some(effort) = chat.shift_remove("reasoning_effort").filter(|effort| !effort.is_null()) {
        body.insert("think".into(), (effort != "none").into());
    }
    for name in OWN {
        if let Some(value) = chat.shift_remove(name).filter(|value| !value.is_null()) {
            body.entry(name).or_insert(value);
        }
    }
    let options = options(chat)?;
    if !options.is_empty() {
        body.insert("options".into(), options.into());
    }
    Ok((body, requested))
}

/// Everything about generating.
fn options(mut chat: Map<String, Value>) -> Result<Map<String, Value>, Error> {
    let mut options = match chat.shift_remove("options") {
        None | Some(Value::Null) => Map::new(),
        Some(options) => Path::top("options").object(options)?,
    };
    if let Some(limit) = params::take_max_tokens(&mut chat) {
        options.insert("num_predict".into(), limit);
    }
    match chat.shift_remove("stop") {
        None | Some(Value::Null) => {}
        Some(Value::Array(stops)) if stops.is_empty() => {}
        Some(Value::Array(stops)) => drop(options.insert("stop".into(), stops.into())),
        Some(stop) => drop(options.insert("stop".into(), Value::from([stop]))),
    }
    for (name, value) in chat {
        if value.is_null() || IGNORED.contains(&name.as_str()) {
            continue;
        }
        let renamed = RENAMED.iter().find(|(theirs, _)| *theirs == name).map(|(_, own)| (*own).to_owned());
        options.insert(renamed.unwrap_or(name), value);
    }
    Ok(options)
}

/// The older way to name tools.
fn functions(chat: &mut Map<String, Value>) -> Result<(), Error> {
    chat.shift_remove("function_call");
    let functions = match chat.shift_remove("functions") {
        None | Some(Value::Null) => return Ok(()),
        Some(functions) => Path::top("functions").list(functions)?,
    };
    let tools = functions.into_iter().map(|function| object! {"type": "function", "function": function});
    let tools: Vec<Value> = tools.collect();
    chat.entry("tools").or_insert(tools.into());
    Ok(())
}

/// JSON of any form, or of a schema.
fn response_format(format: Option<Value>) -> Result<Option<Value>, Error> {
    let path = Path::top("response_format");
    let mut format = match format {
        None | Some(Value::Null) => return Ok(None),
        Some(format) => path.object(format)?,
    };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some("json".into())),
        Some("json_schema") => {
            let schema = format.get_mut("json_schema").and_then(|wrapper| wrapper.get_mut("schema"));
            let schema = schema.map(Value::take).filter(Value::is_object);
            schema.map(Some).ok_or_else(|| path.member("json_schema").member("schema").wrong("a JSON schema"))
        }
        _ => Err(path.member("type").wrong("`text`, `json_object` or `json_schema`")),
    }
}

fn messages(messages: Value, texts: &mut u64) -> Result<Value, Error> {
    let path = Path::top("messages");
    let list = path.list(messages)?;
    if list.is_empty() {
        return Err(path.wrong("a list of at least one message"));
    }
    let mut made = Vec::with_capacity(list.len());
    // Who answers a call is named by its id in chat, and by the function's name here.
    let mut calls: Vec<(String, String)> = Vec::new();
    for (at, message) in list.into_iter().enumerate() {
        let path = path.item(at);
        let message = self::message(path.object(message)?, &path, &mut calls)?;
        let length = message.get("content").and_then(Value::as_str).map_or(0, str::len);
        *texts = texts.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        made.push(message);
    }
    Ok(Value::Array(made))
}

fn message(
    mut message: Map<String, Value>,
    path: &Path<'_>,
    calls: &mut Vec<(String, String)>,
) -> Result<Value, Error> {
    let role = match message.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some("tool" | "function") => "tool",
        _ => return Err(path.member("role").wrong("`system`, `user`, `assistant` or `tool`")),
    };
    let mut made = Map::from_iter([("role".to_owned(), Value::from(role))]);
    let (text, images) =
        content(message.shift_remove("content").unwrap_or_default(), &path.member("content"))?;
    made.insert("content".into(), text.into());
    if !images.is_empty() {
        made.insert("images".into(), images.into());
    }
    if let Some(thinking) = message.shift_remove("reasoning_content").filter(Value::is_string) {
        made.insert("thinking".into(), thinking);
    }
    if role == "tool" {
        let answered = message.get("tool_call_id").and_then(Value::as_str);
        let name =
            calls.iter().rev().find(|(id, _)| Some(id.as_str()) == answered).map(|(_, name)| name.as_str());
        if let Some(name) = name.or(message.get("name").and_then(Value::as_str)) {
            made.insert("tool_name".into(), name.into());
        }
    }
    let called = match (message.shift_remove("tool_calls"), message.shift_remove("function_call")) {
        (Some(Value::Array(list)), _) => list,
        (_, Some(function @ Value::Object(_))) => vec![object! {"function": function}],
        _ => Vec::new(),
    };
    let mut list = Vec::with_capacity(called.len());
    for (at, call) in called.into_iter().enumerate() {
        list.push(tool_call(call, &path.member("tool_calls").item(at), calls)?);
    }
    if !list.is_empty() {
        made.insert("tool_calls".into(), list.into());
    }
    Ok(Value::Object(made))
}

/// Arguments are a text in chat and an object here.
fn tool_call(call: Value, path: &Path<'_>, calls: &mut Vec<(String, String)>) -> Result<Value, Error> {
    let mut call = path.object(call)?;
    let at = path.member("function");
    let mut function = at.object(call.shift_remove("function").unwrap_or_default())?;
    let name = at.take_text(&mut function, "name")?;
    if let Some(id) = call.get("id").and_then(Value::as_str) {
        calls.push((id.to_owned(), name.clone()));
    }
    let arguments = match function.shift_remove("arguments") {
        None | Some(Value::Null) => object! {},
        Some(arguments @ Value::String(_)) => params::arguments_object(arguments),
        Some(_) => return Err(at.member("arguments").wrong("a JSON object as a string")),
    };
    Ok(object! {"function": object! {"name": name, "arguments": arguments}})
}

/// The text of a message and its images.
fn content(content: Value, path: &Path<'_>) -> Result<(String, Vec<Value>), Error> {
    let parts = match content {
        Value::Null => return Ok((String::new(), Vec::new())),
        Value::String(text) => return Ok((text, Vec::new())),
        Value::Array(parts) => parts,
        _ => return Err(path.wrong("a string or a list of parts")),
    };
    let (mut text, mut images) = (String::new(), Vec::new());
    for (at, part) in parts.into_iter().enumerate() {
        let path = path.item(at);
        let mut part = path.object(part)?;
        match part.get("type").and_then(Value::as_str) {
            Some("text") => text.push_str(&path.take_text(&mut part, "text")?),
            Some("image_url") => images.push(image(part, &path)?),
            _ => return Err(path.member("type").wrong("`text` or `image_url` for this model")),
        }
    }
    Ok((text, images))
}

/// An image as base64: the server fetches none.
fn image(mut part: Map<String, Value>, path: &Path<'_>) -> Result<Value, Error> {
    let path = path.member("image_url");
    let url = match part.shift_remove("image_url") {
        Some(Value::Object(mut image)) => path.take_text(&mut image, "url")?,
        Some(Value::String(url)) => url,
        _ => return Err(path.wrong("an object with a `url`")),
    };
    match url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")) {
        Some((_, data)) => Ok(data.into()),
        None if !url.contains(':') => Ok(url.into()),
        None => Err(path
            .member("url")
            .wrong("a `data:` URL with base64: this model's server takes no picture by its address")),
    }
}
