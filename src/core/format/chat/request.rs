//! What is special about a chat request: parameters a brand or model does not take, or calls by another name.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::{Map, Value, value::RawValue};

use super::{thought, values};
use crate::core::{
    codec::{
        json::{Object, string},
        needle::Needle,
        scan::Words,
        value,
    },
    error::Error,
    format::{
        Context,
        params::{self, arguments_object},
        prepare::{Facts, Prepare},
        splice,
    },
    model::{accepts::Series, brand::Quirks, deployment::Deployment, params::Params},
};

static ARGUMENTS: Needle = Needle::new("\"arguments\"");

/// Members that a message has when it was a response before, which chat providers take from nobody.
const EXTENSIONS: [&str; 2] = ["thinking_blocks", "provider_specific_fields"];

/// What stands in for thoughts: the least that is taken for some.
const STAND_IN: &str = "\" \"";

/// Takes out of a translated request what OpenAI's API has no member for and refuses.
///
/// Brands whose models think beside their calls want back what they thought before a call: the others refuse it.
pub fn leave_out_extensions(chat: &mut Map<String, Value>, context: &Context<'_>) {
    if matches!(context.brand, "openai" | "azure") {
        chat.shift_remove("top_k");
    }
    let messages = chat.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten();
    for message in messages.filter_map(Value::as_object_mut) {
        message.shift_remove("thinking_blocks");
        if !(context.quirks.wants_reasoning && message.contains_key("tool_calls")) {
            message.shift_remove("reasoning_content");
        }
    }
}

/// Fits the body to the brand and model.
pub fn adjust(body: &mut Object<'_>, p: &Prepare<'_>, facts: &mut Facts) -> Result<(), Error> {
    let quirks = p.deployment.brand.quirks;
    let taking = p.taking(facts);
    let given = params::fit(body, &taking)?;
    values::fit(body, given, &taking, p.deployment.brand.is_azure())?;
    let brand = p.deployment.brand;
    if brand.is_azure()
        && p.accepts.series == Series::Plain
        && given.has(Params::TOOL_CHOICE | Params::RESPONSE_FORMAT)
    {
        let model = p.deployment.base_model.as_deref().unwrap_or(p.model);
        facts.json_tool = values::fit_azure(body, given, &p.taking(facts), p.api_version, model)?;
    }
    if given.has(Params::THINKING | Params::REASONING_EFFORT) {
        values::ask_for_thoughts(body, quirks);
    }
    if quirks.max_tokens {
        if given.has(Params::MAX_COMPLETION_TOKENS) {
            rename(body, "max_completion_tokens", "max_tokens", true);
        }
    } else if p.accepts.renames_max_tokens && given.has(Params::MAX_TOKENS) {
        rename(body, "max_tokens", "max_completion_tokens", false);
    }
    if quirks.random_seed && given.has(Params::SEED) {
        rename(body, "seed", "random_seed", false);
    }
    if quirks.tool_choice_any && body.raw("tool_choice") == Some("\"required\"") {
        body.set("tool_choice", "\"any\"");
    }
    let words = body.words("messages");
    let stands_in = quirks.needs_reasoning && words.have(Words::TOOL_CALLS) && thinks(body, p.model);
    let signs = quirks.signed_calls && words.have(Words::TOOL_CALLS) && thought::must_be_signed(p.model);
    let rules = Rules { stands_in, signs, ..Rules::of(p.deployment) };
    if let Some(messages) = body.raw("messages").and_then(|raw| rules.messages(raw, words)) {
        body.set("messages", messages);
    }
    if quirks.no_cache_control && body.words("tools").have(Words::CACHE_CONTROL) {
        let tools =
            body.raw("tools").and_then(|raw| splice::map_items(raw, |_, tool| without_cache_control(tool)));
        tools.into_iter().for_each(|tools| body.set("tools", tools));
    }
    Ok(())
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

/// Whether a model thinks unless it is told not to, or is told to. Those that cannot, or need to be told, are the older ones.
fn thinks(body: &Object<'_>, model: &str) -> bool {
    const SILENT: [&str; 3] = ["deepseek-chat", "deepseek-coder", "moonshot-v1"];
    let thinking =
        body.read::<Value>("thinking").and_then(|thinking| Some(thinking.get("type")? != "disabled"));
    let effort =
        || body.read::<Value>("reasoning_effort").map(|effort| effort != "none" && effort != "disable");
    thinking.or_else(effort).unwrap_or_else(|| !SILENT.iter().any(|silent| model.starts_with(silent)))
}

/// What a deployment takes in messages.
struct Rules {
    quirks: Quirks,
    /// What a model thought goes back as the client sends it.
    keeps_reasoning: bool,
    /// Where the client does not send it, something stands in.
    stands_in: bool,
    /// The first of a message's calls must be signed: those of other models are not.
    signs: bool,
}

impl Rules {
    fn of(deployment: &Deployment) -> Rules {
        let brand = deployment.brand;
        // What a server of one's own takes is not known.
        let is_own_server = matches!(brand.name, "openai" | "custom_openai" | "openai_like")
            && !brand.hosts.contains(&deployment.endpoint.host.as_str());
        Rules {
            quirks: brand.quirks,
            keeps_reasoning: brand.quirks.wants_reasoning || is_own_server,
            stands_in: false,
            signs: false,
        }
    }

    /// The messages with what the provider does not take put right; `None` when nothing needs it. What of it they may hold is known
    /// from the words that stand in them.
    fn messages(&self, raw: &str, words: Words) -> Option<String> {
        let may_change = self.stands_in
            || self.signs
            || words.have(Words::IMAGE_URL)
            || words.have(Words::NULL)
            || words.have(Words::EXTENSIONS)
            || words.have(Words::INDEX)
            || words.have(Words::THOUGHT)
            || (self.quirks.flatten_content && words.have(Words::TEXT))
            || (self.quirks.no_developer && words.have(Words::DEVELOPER))
            || (self.quirks.no_cache_control && words.have(Words::CACHE_CONTROL));
        let may_change = may_change || (self.quirks.reads_arguments && ARGUMENTS.is_in(raw.as_bytes()));
        let put_right =
            if may_change { splice::map_items(raw, |_, message| self.message(message, words)) } else { None };
        if !self.quirks.no_user_after_tool {
            return put_right;
        }
        with_model_after_tools(put_right.as_deref().unwrap_or(raw)).or(put_right)
    }

    fn message(&self, raw: &str, words: Words) -> Option<String> {
        let mut message = Object::parse(raw.as_bytes()).ok()?;
        let mut has_changed = false;
        message.retain(|name, value| {
            let stays = self.keeps(name, value);
            has_changed |= !stays;
            stays
        });
        if self.quirks.no_developer && message.raw("role") == Some("\"developer\"") {
            message.set("role", "\"system\"");
            has_changed = true;
        }
        if self.stands_in
            && message.raw("role") == Some("\"assistant\"")
            && matches!(message.raw("reasoning_content"), None | Some("\"\""))
        {
            message.set("reasoning_content", STAND_IN);
            has_changed = true;
        }
        let content = message.raw("content").and_then(|content| self.content(content, words));
        let calls = message.raw("tool_calls").and_then(|calls| self.calls(calls, words));
        let answered = message.raw("tool_call_id").filter(|_| words.have(Words::THOUGHT)).and_then(own_id);
        // A call without arguments is told with `null` by some, and refused with it by Azure.
        let function = message.raw("function_call").filter(|_| words.have(Words::NULL)).and_then(|call| {
            splice::map_member(call, "arguments", |raw| (raw == "null").then(|| "\"\"".to_owned()))
        });
        for (name, changed) in [
            ("content", content),
            ("tool_calls", calls),
            ("tool_call_id", answered),
            ("function_call", function),
        ] {
            if let Some(changed) = changed {
                message.set(name, changed);
                has_changed = true;
            }
        }
        has_changed.then(|| String::from_utf8(message.to_bytes()).ok()).flatten()
    }

    /// Whether a member of a message goes to the provider. Clients send whole responses back, `null`s and all.
    fn keeps(&self, name: &str, value: &str) -> bool {
        match name {
            // Beside calls a `null` says that there is none.
            "content" | "role" => true,
            "reasoning_content" => self.keeps_reasoning && value != "null",
            "cache_control" => !self.quirks.no_cache_control,
            // What OpenAI's own answers have, OpenAI takes back.
            "annotations" => !self.quirks.no_developer && value != "null",
            name => value != "null" && !EXTENSIONS.contains(&name),
        }
    }

    /// Calls as they were given, which have members that only responses have.
    fn calls(&self, calls: &str, words: Words) -> Option<String> {
        let may_change = words.have(Words::THOUGHT)
            || words.have(Words::EXTENSIONS)
            || self.signs
            || words.have(Words::INDEX)
            || self.quirks.reads_arguments;
        if may_change { splice::map_items(calls, |at, call| self.call(call, at == 0)) } else { None }
    }

    /// A call under its own id. The signature of its thought goes where it came from, and to nobody else.
    fn call(&self, raw: &str, is_first: bool) -> Option<String> {
        let mut call = Object::parse(raw.as_bytes()).ok()?;
        let mut has_changed = !self.quirks.signed_calls && call.remove("extra_content").is_some();
        // What tells the pieces of a stream apart.
        has_changed |= call.remove("index").is_some();
        let mut signature = None;
        // LiteLLM's place for it.
        if let Some(fields) = call.remove("provider_specific_fields") {
            let fields: Value = serde_json::from_str(&fields).unwrap_or_default();
            signature = fields.get("thought_signature").and_then(Value::as_str).map(str::to_owned);
            has_changed = true;
        }
        let id: Option<String> = call.read("id");
        if let Some((own, Some(carried))) = id.as_deref().map(thought::without_signature) {
            signature.get_or_insert_with(|| carried.to_owned());
            call.set("id", string(own));
            has_changed = true;
        }
        if self.signs && is_first {
            signature.get_or_insert_with(|| thought::NO_SIGNATURE.to_owned());
        }
        if let Some(signature) = signature.filter(|_| self.quirks.signed_calls && !call.has("extra_content"))
        {
            call.set("extra_content", thought::extra_content(&signature).to_string());
            has_changed = true;
        }
        if let Some(function) = call.raw("function").and_then(|function| self.function(function)) {
            call.set("function", function);
            has_changed = true;
        }
        has_changed.then(|| String::from_utf8(call.to_bytes()).ok()).flatten()
    }

    fn function(&self, raw: &str) -> Option<String> {
        let own = splice::without_member(raw, "provider_specific_fields");
        let function = own.as_deref().unwrap_or(raw);
        let whole = if self.quirks.reads_arguments { with_whole_arguments(function) } else { None };
        whole.or(own)
    }

    fn content(&self, content: &str, words: Words) -> Option<String> {
        if !content.starts_with('[') {
            return None;
        }
        if let Some(text) = flat(content, self.quirks.no_images).filter(|_| self.quirks.flatten_content) {
            return Some(text);
        }
        let has_marks = self.quirks.no_cache_control && words.have(Words::CACHE_CONTROL);
        if !has_marks && !words.have(Words::IMAGE_URL) {
            return None;
        }
        splice::map_items(content, |_, part| {
            let unmarked = if has_marks { splice::without_member(part, "cache_control") } else { None };
            let wrapped = splice::map_member(unmarked.as_deref().unwrap_or(part), "image_url", wrap_image);
            wrapped.or(unmarked)
        })
    }
}

/// The id of a call without the signature that it carries, if it carries one.
fn own_id(raw: &str) -> Option<String> {
    let id: String = serde_json::from_str(raw).ok()?;
    let (own, signature) = thought::without_signature(&id);
    signature.map(|_| string(own))
}

/// A function whose arguments are no object (a response that was cut off ends within them) with the text of them under a name; `None`
/// when they are one.
fn with_whole_arguments(function: &str) -> Option<String> {
    splice::map_member(function, "arguments", |arguments| {
        let text: String =
            serde_json::from_str(arguments).ok().filter(|text: &String| !text.trim().is_empty())?;
        let is_whole =
            text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(&text).is_ok();
        (!is_whole).then(|| string(&value::to_text(&arguments_object(Value::from(text)))))
    })
}

/// The messages with a word of the model's wherever somebody else speaks right after a tool's result; `None` when nobody does.
fn with_model_after_tools(raw: &str) -> Option<String> {
    let messages: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
    let mut made = Vec::with_capacity(messages.len());
    let mut is_after_tool = false;
    for message in &messages {
        let message = message.get();
        let members = Object::parse(message.as_bytes()).ok()?;
        let role = members.raw("role");
        if is_after_tool && !matches!(role, Some("\"tool\"" | "\"assistant\"")) {
            made.push(r#"{"role":"assistant","content":"Done."}"#);
        }
        is_after_tool = role == Some("\"tool\"");
        made.push(message);
    }
    (made.len() > messages.len()).then(|| format!("[{}]", made.join(",")))
}

/// A tool without `cache_control`, its own and its function's; `None` when it has none.
fn without_cache_control(tool: &str) -> Option<String> {
    let own = splice::without_member(tool, "cache_control");
    let inner = splice::map_member(own.as_deref().unwrap_or(tool), "function", |function| {
        splice::without_member(function, "cache_control")
    });
    inner.or(own)
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

/// A content list that holds only text as one JSON string. Where the model takes no images, a word stands for each: a conversation that
/// another model has seen them in goes on.
fn flat(content: &str, no_images: bool) -> Option<String> {
    let parts: Vec<&RawValue> = serde_json::from_str(content).ok()?;
    let mut text = String::new();
    for part in parts {
        let part = Object::parse(part.get().as_bytes()).ok()?;
        match part.read::<Cow<'_, str>>("type")?.as_ref() {
            "text" => text.push_str(value::read(part.raw("text")?.as_bytes()).ok()?.as_str()?),
            "image_url" if no_images => text.push_str("[image]"),
            _ => return None,
        }
    }
    Some(string(&text))
}
