//! Values that single models refuse of parameters that they take: dropped with `drop_params`, else refused in LiteLLM's words.

use serde_json::Value;

use crate::core::{
    codec::json::{Object, string},
    error::Error,
    format::{
        json_tool,
        params::{Taking, is_idle},
    },
    model::{abilities::Abilities, accepts::Series, brand::Quirks, params::Params},
};

const DROP: &str = "To drop unsupported params set `litellm.drop_params = True`";

/// Parameters of a model that picks its words freely.
const SAMPLING: [&str; 3] = ["logprobs", "top_logprobs", "top_p"];

/// Takes out of a body, which has the parameters `given`, the values that the model's series refuses.
pub fn fit(body: &mut Object<'_>, given: Params, taking: &Taking<'_>, is_azure: bool) -> Result<(), Error> {
    match taking.accepts.series {
        Series::Plain | Series::FixedClaude => Ok(()),
        Series::O => temperature(body, given, taking, |t, _| {
            format!(
                "O-series models don't support temperature={t}. Only temperature=1 is supported. To drop unsupported openai \
                 params from the call, set `litellm.drop_params = True`"
            )
        }),
        Series::Gpt5 => gpt5(body, given, taking, is_azure),
    }
}

/// Takes out of a body for a model of Azure's what the version of its API does not know. True where the content is to be the call of a
/// tool: JSON of a schema is known from 2024-08 on, and to gpt-3.5 not at all.
pub fn fit_azure(
    body: &mut Object<'_>,
    given: Params,
    taking: &Taking<'_>,
    version: &str,
    model: &str,
) -> Result<bool, Error> {
    // What is no date (`v1`, `preview`) is the newest.
    let dated = version
        .get(..7)
        .filter(|month| month.as_bytes().get(4) == Some(&b'-') && version.matches('-').count() >= 2);
    if given.has(Params::TOOL_CHOICE)
        && let Some(month) = dated
    {
        azure_tool_choice(body, taking, version, month)?;
    }
    if !given.has(Params::RESPONSE_FORMAT) {
        return Ok(false);
    }
    let is_old = dated.is_some_and(|month| month < "2024-08")
        || ["gpt-35", "gpt-3.5", "gpt-3-5"].iter().any(|name| model.contains(name));
    Ok(is_old && json_tool::ask(body))
}

fn azure_tool_choice(
    body: &mut Object<'_>,
    taking: &Taking<'_>,
    version: &str,
    month: &str,
) -> Result<(), Error> {
    let raw = body.raw("tool_choice").unwrap_or_default();
    let is_unknown = month < "2023-12" && raw != "null";
    let is_required = raw == "\"required\"" && month.starts_with("2024-") && month <= "2024-05";
    if (!is_unknown && !is_required) || taking.is_allowed("tool_choice") {
        return Ok(());
    }
    const REFERENCE: &str = "Azure API Reference: https://learn.microsoft.com/en-us/azure/ai-services/openai/reference#chat-completions";
    taking.refuse_value(|| match is_unknown {
        true => format!(
            "Azure does not support 'tool_choice', for api_version={version}. Bump your API version to '2023-12-01-preview' or \
             later. This parameter requires 'api_version=\"2023-12-01-preview\"' or later. {REFERENCE}"
        ),
        false => format!(
            "Azure does not support 'required' as a tool_choice param, for api_version={version}. To drop 'tool_choice=required' \
             for calls with this Azure API version, set `litellm.drop_params=True` or for proxy:\n\n`litellm_settings:\n \
             drop_params: true`\n{REFERENCE}"
        ),
    })?;
    body.remove("tool_choice");
    Ok(())
}

/// Asks for thoughts in the brand's words: by an effort for which the budget stands, with LiteLLM's thresholds, or by a switch.
pub fn ask_for_thoughts(body: &mut Object<'_>, quirks: Quirks) {
    let thinking: Option<Value> = body.read("thinking");
    let is =
        |kind| thinking.as_ref().is_some_and(|thinking| thinking.get("type") == Some(&Value::from(kind)));
    if quirks.effort_for_thinking && body.remove("thinking").is_some() && !body.has("reasoning_effort") {
        let budget = thinking.as_ref().and_then(|thinking| thinking.get("budget_tokens")?.as_u64());
        match budget {
            _ if !is("enabled") => {}
            Some(4096..) => body.set("reasoning_effort", "\"high\""),
            Some(2048..) => body.set("reasoning_effort", "\"medium\""),
            Some(1024..) => body.set("reasoning_effort", "\"low\""),
            _ => body.set("reasoning_effort", "\"minimal\""),
        }
    } else if quirks.thinking_switch {
        let is_off = body.raw("reasoning_effort") == Some("\"none\"");
        if is_off {
            body.remove("reasoning_effort");
        }
        let state = if is_off || is("disabled") { "disabled" } else { "enabled" };
        if is_off || body.has("reasoning_effort") || thinking.is_some_and(|thinking| thinking.is_object()) {
            body.set("thinking", format!("{{\"type\":\"{state}\"}}"));
        }
    }
}

/// gpt-5 and newer. Those that can do without reasoning take what other models take while they do.
fn gpt5(body: &mut Object<'_>, given: Params, taking: &Taking<'_>, is_azure: bool) -> Result<(), Error> {
    let abilities = taking.accepts.abilities;
    let mut effort = None;
    if given.has(Params::REASONING_EFFORT) {
        effort = effort_of(body);
        if let Some(level) = effort.as_deref().filter(|level| refuses(abilities, level, is_azure))
            && !taking.is_allowed("reasoning_effort")
        {
            taking.refuse_value(|| {
                format!("reasoning_effort={level} is not supported for {}. {DROP}", taking.model)
            })?;
            body.remove("reasoning_effort");
            effort = None;
        }
    }
    let can_rest = abilities.has(Abilities::EFFORT_NONE);
    let rests =
        can_rest && effort.as_deref().map_or(abilities.has(Abilities::RESTS), |level| level == "none");
    if !rests && given.has(Params::LOGPROBS | Params::TOP_LOGPROBS | Params::TOP_P) {
        sampling(body, taking, effort.as_deref())?;
    }
    if rests {
        return Ok(());
    }
    temperature(body, given, taking, |t, model| {
        format!(
            "{model} doesn't support temperature={t} while reasoning is active. Only temperature=1 is supported unless \
             reasoning_effort resolves to 'none', either set explicitly on the request or declared as the model's \
             default_reasoning_effort. {DROP}"
        )
    })
}

/// The effort that is asked for. That of the Responses API, an object, becomes its word.
fn effort_of(body: &mut Object<'_>) -> Option<String> {
    match body.read::<Value>("reasoning_effort")? {
        Value::String(level) => Some(level),
        Value::Object(effort) => {
            let level = effort.get("effort")?.as_str()?.to_owned();
            body.set("reasoning_effort", string(&level));
            Some(level)
        }
        _ => None,
    }
}

/// Whether a model refuses an effort. The newest level is one that a model must be known to take; the others are taken unless it
/// is known not to, and on Azure it must be known that one can do without.
fn refuses(abilities: Abilities, level: &str, is_azure: bool) -> bool {
    match level {
        "xhigh" => !abilities.has(Abilities::EFFORT_XHIGH),
        "none" if is_azure => !abilities.has(Abilities::EFFORT_NONE),
        "none" => abilities.has(Abilities::NO_EFFORT_NONE),
        "minimal" => abilities.has(Abilities::NO_EFFORT_MINIMAL),
        "low" => abilities.has(Abilities::NO_EFFORT_LOW),
        _ => false,
    }
}

fn sampling(body: &mut Object<'_>, taking: &Taking<'_>, effort: Option<&str>) -> Result<(), Error> {
    let mut says_something = false;
    for name in SAMPLING.into_iter().filter(|name| !taking.is_allowed(name)) {
        says_something |= body.remove(name).is_some_and(|raw| !is_idle(name, &raw));
    }
    if !says_something {
        return Ok(());
    }
    taking.refuse_value(|| {
        let effort = effort.map_or_else(|| "None".to_owned(), |level| format!("'{level}'"));
        format!(
            "{} only supports logprobs, top_p, top_logprobs when reasoning_effort resolves to 'none', either set explicitly on \
             the request or declared as the model's default_reasoning_effort. Current reasoning_effort={effort}. {DROP}",
            taking.model
        )
    })
}

/// Any temperature but 1 goes.
fn temperature(
    body: &mut Object<'_>,
    given: Params,
    taking: &Taking<'_>,
    why: impl FnOnce(&str, &str) -> String,
) -> Result<(), Error> {
    if !given.has(Params::TEMPERATURE) || taking.is_allowed("temperature") {
        return Ok(());
    }
    let raw = body.raw("temperature").filter(|raw| *raw != "null" && raw.parse() != Ok(1.0));
    let Some(raw) = raw.map(str::to_owned) else { return Ok(()) };
    taking.refuse_value(|| why(&raw, taking.model))?;
    body.remove("temperature");
    Ok(())
}
