//! Chat content as Anthropic content blocks.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{
    Betas,
    fault::{Fault, clip},
    take,
};
use crate::core::{codec::value::object, format::messages::request::is_space};

/// Blocks of Anthropic's own that a client may put among the parts of a user or tool message.
const NATIVE_USER: [&str; 5] = ["image", "document", "search_result", "tool_result", "container_upload"];

/// A text block.
pub(super) fn text_block(text: impl Into<String>) -> Value {
    object! {"type": "text", "text": text.into()}
}

/// Whether a block is a text that says nothing: Anthropic refuses it, OpenAI's clients send it.
pub(super) fn is_blank(block: &Value) -> bool {
    block.get("text").and_then(Value::as_str).is_some_and(|text| text.chars().all(is_space))
}

/// Content of a user or tool message: a string or a list of parts. Blank texts are left out.
pub(super) fn user(content: Value, betas: &mut Betas) -> Result<Vec<Value>, Fault> {
    let mut blocks = match content {
        Value::String(text) => vec![text_block(text)],
        Value::Array(parts) => each(parts, |part| user_part(part, betas))?,
        _ => return Err(Fault::at("", "expected a string or a list of parts")),
    };
    blocks.retain(|block| !is_blank(block));
    Ok(blocks)
}

/// Content of an assistant message. Blank texts are left out.
pub(super) fn assistant(content: Option<Value>) -> Result<Vec<Value>, Fault> {
    let mut blocks = match content {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text_block(text)],
        Some(Value::Array(parts)) => each(parts, assistant_part)?,
        Some(_) => return Err(Fault::at("", "expected a string or a list of parts")),
    };
    blocks.retain(|block| !is_blank(block));
    Ok(blocks)
}

/// A text part as a block.
pub(super) fn text(part: Value) -> Result<Value, Fault> {
    let (part, kind) = open(part)?;
    match kind.as_str() {
        "text" => text_of(part, "text"),
        other => Err(Fault::at("type", format!("\"{}\" cannot stand here; expected text", clip(other)))),
    }
}

fn user_part(part: Value, betas: &mut Betas) -> Result<Value, Fault> {
    let (mut part, kind) = open(part)?;
    let cache_control = match kind.as_str() {
        "image_url" | "file" => take(&mut part, "cache_control"),
        _ => None,
    };
    let mut block = match kind.as_str() {
        "text" => text_of(part, "text")?,
        "image_url" => image(take(&mut part, "image_url")).map_err(|fault| fault.inside("image_url"))?,
        "file" => file(take(&mut part, "file"), betas).map_err(|fault| fault.inside("file"))?,
        native if NATIVE_USER.contains(&native) => Value::Object(part),
        other => {
            let expected =
                format!("\"{}\" is not supported here; expected text, image_url or file", clip(other));
            return Err(Fault::at("type", expected));
        }
    };
    if let (Value::Object(block), Some(cache_control)) = (&mut block, cache_control) {
        block.insert("cache_control".into(), cache_control);
    }
    Ok(block)
}

fn assistant_part(part: Value) -> Result<Value, Fault> {
    let (part, kind) = open(part)?;
    match kind.as_str() {
        "text" => text_of(part, "text"),
        "refusal" => text_of(part, "refusal"),
        "thinking" | "redacted_thinking" => Ok(Value::Object(part)),
        native if native.ends_with("tool_use") || native.ends_with("_tool_result") => Ok(Value::Object(part)),
        other => Err(Fault::at(
            "type",
            format!("\"{}\" cannot stand in an assistant message; expected text or refusal", clip(other)),
        )),
    }
}

/// Applies `read` to every part; a fault says which one it was in.
pub(super) fn each(
    parts: Vec<Value>,
    mut read: impl FnMut(Value) -> Result<Value, Fault>,
) -> Result<Vec<Value>, Fault> {
    let mut blocks = Vec::with_capacity(parts.len());
    for (at, part) in parts.into_iter().enumerate() {
        blocks.push(read(part).map_err(|fault| fault.inside(format_args!("[{at}]")))?);
    }
    Ok(blocks)
}

/// A part's members and its type.
fn open(part: Value) -> Result<(Map<String, Value>, String), Fault> {
    let Value::Object(part) = part else { return Err(Fault::at("", "expected an object with a `type`")) };
    match part.get("type") {
        Some(Value::String(kind)) => {
            let kind = kind.clone();
            Ok((part, kind))
        }
        _ => Err(Fault::at("type", "expected the part's type as a string")),
    }
}

/// A text block out of the member `name` of a part.
fn text_of(mut part: Map<String, Value>, name: &str) -> Result<Value, Fault> {
    let Some(Value::String(text)) = take(&mut part, name) else {
        return Err(Fault::at(name, "expected a string"));
    };
    let mut block = text_block(text);
    if let (Value::Object(block), Some(cache_control)) = (&mut block, take(&mut part, "cache_control")) {
        block.insert("cache_control".into(), cache_control);
    }
    Ok(block)
}

/// `image_url`: an object with `url` and perhaps `format`, or the URL itself.
fn image(image: Option<Value>) -> Result<Value, Fault> {
    match image {
        Some(Value::String(url)) => media(url, None),
        Some(Value::Object(mut image)) => {
            let format = string(&mut image, "format")?;
            match string(&mut image, "url")? {
                Some(url) => media(url, format).map_err(|fault| fault.inside("url")),
                None => Err(Fault::at("url", "missing; expected a data: or http(s) URL")),
            }
        }
        _ => Err(Fault::at("", "expected an object with a `url`")),
    }
}

/// `file`: its bytes, a URL in `file_id`, or the id of a file uploaded to the provider.
fn file(file: Option<Value>, betas: &mut Betas) -> Result<Value, Fault> {
    let Some(Value::Object(mut file)) = file else {
        return Err(Fault::at("", "expected an object with `file_data` or `file_id`"));
    };
    let name = string(&mut file, "filename")?;
    let format =
        string(&mut file, "format")?.or_else(|| name.as_deref().and_then(format_of).map(str::to_owned));
    if let Some(data) = string(&mut file, "file_data")? {
        let data = if data.starts_with("data:") { data } else { format!("data:;base64,{data}") };
        return media(data, format).map_err(|fault| fault.inside("file_data"));
    }
    let Some(id) = string(&mut file, "file_id")? else {
        return Err(Fault::at("", "expected `file_data` or `file_id`"));
    };
    if is_web(&id) {
        return Ok(object! {"type": "document", "source": object! {"type": "url", "url": id}});
    }
    betas.add("files-api-2025-04-14");
    betas.add("code-execution-2025-05-22");
    Ok(match format.as_deref() {
        None | Some("application/pdf" | "text/plain") => {
            object! {"type": "document", "source": object! {"type": "file", "file_id": id}}
        }
        Some(format) if format.starts_with("image/") => {
            object! {"type": "image", "source": object! {"type": "file", "file_id": id}}
        }
        Some(_) => object! {"type": "container_upload", "file_id": id},
    })
}

/// The image or document behind a URL. `format` wins over the media type in the URL.
fn media(mut url: String, format: Option<String>) -> Result<Value, Fault> {
    if is_web(&url) {
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let format = format.as_deref().or_else(|| format_of(path));
        let kind = if format == Some("application/pdf") { "document" } else { "image" };
        return Ok(object! {"type": kind, "source": object! {"type": "url", "url": url}});
    }
    let head = url.strip_prefix("data:").and_then(|rest| rest.split_once(',')?.0.strip_suffix(";base64"));
    let head =
        head.ok_or_else(|| Fault::at("", "expected `data:<media type>;base64,…` or an http(s) URL"))?;
    let named = head.split(';').next().unwrap_or_default();
    let media_type = format.unwrap_or_else(|| named.to_owned()).to_ascii_lowercase();
    // In place: the rest may be many megabytes.
    url.drain(..="data:".len() + head.len() + ";base64".len());
    let (kind, media_type) = match media_type.as_str() {
        "application/pdf" => ("document", "application/pdf"),
        // A common slip; Anthropic knows only the registered name.
        "image/jpg" => ("image", "image/jpeg"),
        image if image.starts_with("image/") => ("image", image),
        text if text.starts_with("text/") => return text_document(&url),
        "" => {
            return Err(Fault::at(
                "",
                "the media type is missing; put it into the data: URL or into `format`",
            ));
        }
        other => {
            let expected = format!(
                "the media type \"{}\" is not supported; expected an image, application/pdf or text",
                clip(other)
            );
            return Err(Fault::at("", expected));
        }
    };
    let source = object! {"type": "base64", "media_type": media_type, "data": url};
    Ok(object! {"type": kind, "source": source})
}

/// A document of plain text, which Anthropic takes only as text.
fn text_document(base64: &str) -> Result<Value, Fault> {
    let text = STANDARD.decode(base64).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(|| Fault::at("", "expected base64 of UTF-8 text"))?;
    let source = object! {"type": "text", "media_type": "text/plain", "data": text};
    Ok(object! {"type": "document", "source": source})
}

fn is_web(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
}

/// The media type that a file name's ending stands for.
fn format_of(name: &str) -> Option<&'static str> {
    let (_, ending) = name.rsplit_once('.')?;
    Some(match ending.to_ascii_lowercase().as_str() {
        "pdf" => "application/pdf",
        "txt" | "md" => "text/plain",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "csv" => "text/csv",
        "json" => "application/json",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        _ => return None,
    })
}

/// A member that must be a string when it is there.
fn string(map: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Fault> {
    match take(map, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Fault::at(name, "expected a string")),
    }
}
