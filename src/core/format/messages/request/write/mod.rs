//! Message requests, written from chat requests.
//!
//! Only what differs is touched: members that neither API defines go through as they came, so a new parameter of the
//! provider's works on the day it appears. What OpenAI defines and Anthropic has no word for is out already.

mod content;
mod fault;
mod messages;
mod tools;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub(in crate::core::format) use self::tools::JSON_TOOL;
use self::{fault::Fault, messages::Turns, tools::Tools};
use crate::core::{
    codec::value::{self, object},
    error::Error,
    format::{
        Context,
        messages::Requested,
        params::{Taking, is_idle, refuse_large_arguments},
    },
    model::accepts::Series,
};

/// `max_tokens` when the client names none (Anthropic requires one), not counting a thinking budget.
const DEFAULT_MAX_TOKENS: u64 = 4096;

/// The smallest thinking budget that Anthropic takes.
const LEAST_BUDGET: u64 = 1024;

/// Parameters that Anthropic refuses beside thinking.
const SAMPLING: [&str; 3] = ["temperature", "top_p", "top_k"];

/// The request body, the `anthropic-beta` values it needs, and what the way back must know.
pub type MessagesRequest = (Map<String, Value>, Vec<String>, Requested);

/// Turns a chat request into a Messages request for `context.model`.
///
/// Settings that only the gateway reads (`metadata` apart) must be gone from `chat` already: what is left over reaches
/// the provider.
pub fn write(mut chat: Map<String, Value>, context: &Context<'_>) -> Result<MessagesRequest, Error> {
    chat.shift_remove("model");
    chat.shift_remove("stream_options");
    fit_values(&mut chat, context)?;
    refuse_large_arguments(chat.get("messages"))?;

    let mut betas = Betas::default();
    let mut turns = Turns::read(take(&mut chat, "messages"), take(&mut chat, "system"), &mut betas)?;
    start_with_user(&mut turns, context)?;
    let thinking = Thinking::read(&mut chat)?.filter(|thinking| thinking.fits(&chat));
    let thinking = keep_up(thinking, &mut turns);
    let is_thinking = thinking.as_ref().is_some_and(Thinking::is_on);
    let tools = Tools::read(&mut chat, is_thinking, &mut betas)?;
    // Anthropic refuses a history of tool calls without `tools`.
    let dummy = turns.has_tool_blocks && tools.is_empty();
    let requested = Requested { json_tool: tools.json_tool, prefix: turns.prefix.take() };

    let mut out = Map::new();
    out.insert("model".into(), context.model.into());
    out.insert("max_tokens".into(), max_tokens(&mut chat, thinking.as_ref()));
    if !turns.system.is_empty() {
        out.insert("system".into(), Value::Array(std::mem::take(&mut turns.system)));
    }
    out.insert("messages".into(), turns.into_messages());
    if let Some(thinking) = thinking {
        if let Thinking::Made { .. } = thinking {
            SAMPLING.iter().for_each(|name| _ = chat.shift_remove(*name));
        }
        out.insert("thinking".into(), thinking.into());
    }
    tools.write(&mut out, dummy);
    if let Some(stop) = stop_sequences(&mut chat, context.drop_params)? {
        out.insert("stop_sequences".into(), stop);
    }
    if let Some(user) = user_id(&mut chat)? {
        out.insert("metadata".into(), object! {"user_id": user});
    }
    for name in ["temperature", "top_p", "top_k", "stream"] {
        if let Some(value) = take(&mut chat, name) {
            out.insert(name.into(), value);
        }
    }
    for (name, value) in chat {
        out.entry(name).or_insert(value);
    }
    Ok((out, betas.0, requested))
}

/// `anthropic-beta` values, each once.
#[derive(Debug, Default)]
struct Betas(Vec<String>);

impl Betas {
    fn add(&mut self, name: impl Into<String>) {
        let name = name.into();
        if !self.0.contains(&name) {
            self.0.push(name);
        }
    }

    /// Prompt caching, when `block` (a content block, a tool) asks for it.
    fn note_caching(&mut self, block: &Value) {
        if block.get("cache_control").is_some() {
            self.add("prompt-caching-2024-07-31");
        }
    }
}

/// Takes a member out; `null` counts as absent.
fn take(map: &mut Map<String, Value>, name: &str) -> Option<Value> {
    map.shift_remove(name).filter(|value| !value.is_null())
}

/// Takes out the values that Anthropic refuses of parameters that it takes: silently where nothing is lost or `drop_params` is set,
/// else they are refused. What `allowed_openai_params` lists stays.
fn fit_values(chat: &mut Map<String, Value>, context: &Context<'_>) -> Result<(), Error> {
    let taking = Taking::of(context);
    if let Some(tier) = chat.get("service_tier").filter(|_| !taking.is_allowed("service_tier"))
        && !matches!(tier.as_str(), Some("auto" | "standard_only"))
    {
        let idle = is_idle("service_tier", &value::to_text(tier));
        if !idle {
            taking.refuse_value(|| {
                format!(
                    "{} does not support service_tier={}. Anthropic accepts 'auto', 'standard_only', or OpenAI's 'default' (sent \
                     as 'standard_only'). To drop unsupported params, set `litellm.drop_params = True`.",
                    context.model,
                    tier.as_str().map_or_else(|| value::to_text(tier), |tier| format!("'{tier}'")),
                )
            })?;
        }
        chat.shift_remove("service_tier");
    }
    if context.accepts.series == Series::FixedClaude
        && let Some(temperature) = chat.get("temperature").filter(|_| !taking.is_allowed("temperature"))
        && !temperature.is_null()
        && value::as_f64(temperature) != Some(1.0)
    {
        taking.refuse_value(|| {
            format!(
                "{} does not support temperature={}. Only temperature=1 is supported. To drop unsupported params, set \
                 `litellm.drop_params = True`.",
                context.model,
                value::to_text(temperature),
            )
        })?;
        chat.shift_remove("temperature");
    }
    Ok(())
}

/// Anthropic takes only conversations that a user turn opens; `modify_params` lets us put one there.
fn start_with_user(turns: &mut Turns, context: &Context<'_>) -> Result<(), Error> {
    if turns.starts_with_user() {
        return Ok(());
    }
    if context.modify_params {
        turns.open_with_placeholder();
        return Ok(());
    }
    Err(Error::bad_request(
        "messages: the first message after system messages must have the role `user`. Set \
         `litellm_settings.modify_params: true` to have a placeholder user message put first.",
    )
    .with_param("messages"))
}

/// Goes on thinking if the turn that is on began with it: Anthropic takes no other, and few clients of OpenAI's API send the thinking
/// of a call back. The turn is then finished without, and the next one thinks again.
fn keep_up(thinking: Option<Thinking>, turns: &mut Turns) -> Option<Thinking> {
    let thinking = thinking?;
    if !thinking.must_lead() || !turns.waits_without_thinking() {
        return Some(thinking);
    }
    // Where nothing thinks, thinking may not stand in the turn.
    turns.leave_out_thinking();
    None
}

/// How a request is to think.
enum Thinking {
    /// As the client says, in Anthropic's own words.
    Own(Value),
    /// As an effort means, for which the gateway chooses the budget: the rest of the request has to allow it.
    Made { budget: u64 },
}

impl Thinking {
    /// The client's own `thinking`, else what `reasoning_effort` means.
    fn read(chat: &mut Map<String, Value>) -> Result<Option<Thinking>, Fault> {
        let effort = take(chat, "reasoning_effort");
        if let Some(thinking) = take(chat, "thinking") {
            return Ok(Some(Thinking::Own(thinking)));
        }
        let budget = match effort.as_ref().map(|effort| effort.as_str().unwrap_or_default()) {
            None | Some("none" | "disable") => return Ok(None),
            Some("minimal" | "low") => LEAST_BUDGET,
            Some("medium") => 2048,
            Some("high") => 4096,
            Some("xhigh") => 8192,
            Some("max") => 16_384,
            Some(_) => {
                return Err(Fault::at(
                    "reasoning_effort",
                    "expected one of none, disable, minimal, low, medium, high, xhigh, max",
                ));
            }
        };
        Ok(Some(Thinking::Made { budget }))
    }

    /// Whether Anthropic lets the rest of the request think: a tool that must be called leaves no room for an effort.
    fn fits(&self, chat: &Map<String, Value>) -> bool {
        matches!(self, Thinking::Own(_))
            || !["tool_choice", "function_call"].iter().any(|name| tools::forces(chat.get(*name)))
    }

    fn is_on(&self) -> bool {
        match self {
            Thinking::Own(thinking) => thinking["type"] != "disabled",
            Thinking::Made { .. } => true,
        }
    }

    /// Whether a turn has to begin with thinking.
    fn must_lead(&self) -> bool {
        match self {
            Thinking::Own(thinking) => thinking["type"] == "enabled",
            Thinking::Made { .. } => true,
        }
    }

    /// Tokens that thinking may use; 0 when nothing says.
    fn budget(&self) -> u64 {
        match self {
            Thinking::Own(thinking) => thinking.get("budget_tokens").and_then(Value::as_u64).unwrap_or(0),
            Thinking::Made { budget } => *budget,
        }
    }
}

impl From<Thinking> for Value {
    fn from(thinking: Thinking) -> Value {
        match thinking {
            Thinking::Own(thinking) => thinking,
            Thinking::Made { budget } => object! {"type": "enabled", "budget_tokens": budget},
        }
    }
}

/// The client's limit, else the default on top of what thinking may use. A limit that the gateway's own budget would not fit
/// into is one for what comes after the thinking.
fn max_tokens(chat: &mut Map<String, Value>, thinking: Option<&Thinking>) -> Value {
    let (total, visible) = (take(chat, "max_completion_tokens"), take(chat, "max_tokens"));
    let budget = thinking.map_or(0, Thinking::budget);
    let Some(limit) = total.or(visible) else {
        return Value::from(budget.saturating_add(DEFAULT_MAX_TOKENS));
    };
    match (limit.as_u64(), thinking) {
        (Some(tokens), Some(Thinking::Made { budget })) if tokens <= *budget => {
            Value::from(tokens.saturating_add(*budget))
        }
        _ => limit,
    }
}

/// `stop` as a list. Anthropic refuses sequences of white space only; `drop_params` drops them.
fn stop_sequences(chat: &mut Map<String, Value>, drop_blank: bool) -> Result<Option<Value>, Fault> {
    let mut sequences = match take(chat, "stop") {
        None => return Ok(None),
        Some(Value::Array(sequences)) if sequences.iter().all(Value::is_string) => sequences,
        Some(stop @ Value::String(_)) => vec![stop],
        Some(_) => return Err(Fault::at("stop", "expected a string or a list of strings")),
    };
    if drop_blank {
        sequences.retain(|stop| stop.as_str().is_some_and(|stop| !stop.trim().is_empty()));
    }
    Ok((!sequences.is_empty()).then_some(Value::Array(sequences)))
}

/// The end user's id: `metadata.user_id`, else `user`. Anthropic forbids personal data here, so what looks like an
/// e-mail address or a phone number stays with us.
fn user_id(chat: &mut Map<String, Value>) -> Result<Option<String>, Fault> {
    let named =
        take(chat, "metadata").and_then(|mut metadata| match metadata.get_mut("user_id").map(Value::take) {
            Some(Value::String(id)) => Some(id),
            _ => None,
        });
    let user = match take(chat, "user") {
        None => None,
        Some(Value::String(user)) => Some(user),
        Some(_) => return Err(Fault::at("user", "expected a string")),
    };
    Ok([named, user].into_iter().flatten().find(|id| !id.is_empty() && !is_personal(id)))
}

/// Whether `id` looks like an e-mail address or a phone number.
fn is_personal(id: &str) -> bool {
    let mail = id.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.'));
    let digits = id.strip_prefix('+').unwrap_or(id);
    let phone = digits.len() >= 7
        && digits.chars().all(|c| c.is_ascii_digit() || c.is_whitespace() || matches!(c, '(' | ')' | '-'));
    mail || phone
}
