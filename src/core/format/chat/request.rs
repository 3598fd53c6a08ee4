//! What is special about a chat request: parameters a brand or model does not take, or calls by another name.

use std::borrow::Cow;

use serde_json::{Map, Value, value::RawValue};

use crate::core::{
    codec::{
        json::{Object, string},
        needle::Needle,
    },
    error::Error,
    format::{
        params::unsupported,
        prepare::{Facts, Prepare},
        splice,
    },
    provider::{self, ModelQuirks, model_quirks},
};

static IMAGE_URL: Needle = Needle::new("image_url");
static TEXT: Needle = Needle::new("\"text\"");

/// Takes out of a translated request what OpenAI's API has no member for and refuses.
///
/// Brands whose models think beside their calls want back what they thought before a call: the others refuse it.
pub fn leave_out_extensions(chat: &mut Map<String, Value>, brand: &str) {
    if matches!(brand, "openai" | "azure") {
        chat.shift_remove("top_k");
    }
    let wants_reasoning = provider::brand(brand).is_some_and(|brand| brand.quirks.wants_reasoning);
    let messages = chat.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten();
    for message in messages.filter_map(Value::as_object_mut) {
        message.shift_remove("thinking_blocks");
        if !(wants_reasoning && message.contains_key("tool_calls")) {
            message.shift_remove("reasoning_content");
        }
    }
}

/// Fits the body to the brand and model.
pub fn adjust(body: &mut Object<'_>, p: &Prepare<'_>, facts: &Facts) -> Result<(), Error> {
    refuse_or_drop(body, p, facts)?;
    let quirks = p.deployment.brand.quirks;
    if quirks.max_tokens {
        rename(body, "max_completion_tokens", "max_tokens", true);
    } else if of_model(p).max_completion_tokens {
        rename(body, "max_tokens", "max_completion_tokens", false);
    }
    if quirks.random_seed {
        rename(body, "seed", "random_seed", false);
    }
    if quirks.tool_choice_any && body.raw("tool_choice") == Some("\"required\"") {
        body.set("tool_choice", "\"any\"");
    }
    if let Some(messages) = body.raw("messages").and_then(|raw| messages(raw, quirks.flatten_content)) {
        body.set("messages", messages);
    }
    Ok(())
}

/// Takes out parameters that the brand or model does not take: silently where leaving one out changes nothing or
/// `drop_params` is on, else with a refusal that names them all.
fn refuse_or_drop(body: &mut Object<'_>, p: &Prepare<'_>, facts: &Facts) -> Result<(), Error> {
    let of_model = of_model(p);
    let mut refused = Vec::new();
    let mut check = |body: &mut Object<'_>, name: &'static str| {
        let allowed = facts.allowed_params.iter().any(|allowed| allowed == name);
        if allowed {
            return;
        }
        if body.remove(name).is_some_and(|raw| !says_nothing(name, &raw)) {
            refused.push(name);
        }
    };
    for name in p.deployment.brand.unsupported.iter().chain(of_model.unsupported) {
        check(body, name);
    }
    if of_model.fixed_temperature && body.read::<f64>("temperature").is_some_and(|t| t != 1.0) {
        check(body, "temperature");
    }
    if refused.is_empty() || facts.drop_params {
        return Ok(());
    }
    Err(unsupported(&refused, p.deployment.brand.name, p.model))
}

/// Whether a parameter may go without a word: it has its default, or (`user`) is only a label.
fn says_nothing(name: &str, raw: &str) -> bool {
    match (name, raw) {
        (_, "null") | ("user" | "stream_options", _) => true,
        ("n" | "top_p", _) => raw.parse() == Ok(1.0),
        ("frequency_penalty" | "presence_penalty", _) => raw.parse() == Ok(0.0),
        ("logprobs", "false") | ("parallel_tool_calls", "true") => true,
        ("tool_choice" | "function_call", "\"auto\"" | "\"none\"") => true,
        (_, "[]" | "{}") => true,
        _ => false,
    }
}

/// What the model does differently from its brand. On Azure the name of a deployment says nothing, `base_model` does.
fn of_model(p: &Prepare<'_>) -> ModelQuirks {
    let brand = p.deployment.brand;
    let base = p.deployment.base_model.as_deref().filter(|_| brand.is_azure());
    model_quirks(brand, base.unwrap_or(p.model))
}

/// Calls a member by another name. When both are there, `wins` says whether the renamed one replaces the other.
fn rename(body: &mut Object<'_>, from: &'static str, to: &'static str, wins: bool) {
    let Some(raw) = body.remove(from) else {
        return;
    };
    if raw != "null" && (wins || !body.has(to)) {
        body.set(to, raw);
    }
}

/// The messages with what providers do not take put right; `None` when nothing needs it.
fn messages(raw: &str, flatten: bool) -> Option<String> {
    let images = IMAGE_URL.is_in(raw.as_bytes());
    // An escaped name would be missed; no client writes one, and the provider then says what it does not take.
    if !images && (!flatten || !TEXT.is_in(raw.as_bytes())) {
        return None;
    }
    splice::map_items(raw, |_, message| {
        splice::map_member(message, "content", |content| {
            if let Some(text) = flat(content).filter(|_| flatten) {
                return Some(text);
            }
            splice::map_items(content, |_, part| splice::map_member(part, "image_url", wrap_image))
        })
    })
}

/// `"https://…"` as `{"url": "https://…"}`, and the object without `format`, which is LiteLLM's own.
fn wrap_image(raw: &str) -> Option<String> {
    if raw.starts_with('"') {
        return Some(format!("{{\"url\":{raw}}}"));
    }
    let mut image = Object::parse(raw.as_bytes()).ok()?;
    image.remove("format")?;
    String::from_utf8(image.to_bytes()).ok()
}

/// A content list that holds only text as one JSON string.
fn flat(content: &str) -> Option<String> {
    let parts: Vec<&RawValue> = serde_json::from_str(content).ok()?;
    let mut text = String::new();
    for part in parts {
        let part = Object::parse(part.get().as_bytes()).ok()?;
        if part.read::<Cow<'_, str>>("type")? != "text" {
            return None;
        }
        text.push_str(part.read::<Value>("text")?.as_str()?);
    }
    Some(string(&text))
}
