//! A request body made ready for a provider of the same format, by splicing: members are taken out, put in or replaced, and
//! everything else keeps its bytes.
//!
//! [`strip_and_default`] is what every request goes through, also one that is translated afterwards: what is meant for the
//! gateway goes out, what the deployment sets by default comes in. [`prepare`] is the whole of it for a request that is
//! not translated.

use serde_json::{Map, Value};

use super::{Ref, params::Taking, splice};
use crate::core::{
    codec::{
        json::{Object, string},
        value,
    },
    error::Error,
    headers::Headers,
    model::{accepts::Accepts, deployment::Deployment},
};

/// What a body is prepared for.
#[derive(Clone, Copy, Debug)]
pub struct Prepare<'a> {
    /// The deployment that is called.
    pub deployment: &'a Deployment,
    /// The model to ask for; empty leaves what stands there.
    pub model: &'a str,
    /// The format the body is in.
    pub from: Ref,
    /// The format it will be sent in.
    pub to: Ref,
    /// Whether the client asked for a stream.
    pub streaming: bool,
    /// `drop_params` of the deployment or the configuration. The request can only turn it on.
    pub drop_params: bool,
    /// What the model takes of OpenAI's parameters.
    pub accepts: Accepts,
    /// The version of Azure's API that is called.
    pub api_version: &'a str,
}

impl<'a> Prepare<'a> {
    /// What is taken of the parameters of a body that said `facts`.
    pub(super) fn taking(&self, facts: &'a Facts) -> Taking<'a> {
        Taking {
            accepts: self.accepts,
            brand: self.deployment.brand.name,
            model: self.model,
            drop_params: facts.drop_params,
            allowed: &facts.allowed_params,
        }
    }
}

/// What the body said to the gateway, and what the rest of the way must know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The client asked for the usage chunk of its stream.
    pub include_usage: bool,
    /// `extra_headers` and `headers` of the request, names in lower case: to be sent to the provider last.
    pub headers: Headers,
    /// Unsupported parameters are dropped instead of refused.
    pub drop_params: bool,
    /// Parameters to send although the brand is not known to take them.
    pub allowed_params: Vec<String>,
    /// Members to put into the provider's body last: the deployment's `extra_body`, the request's over it. [`prepare`] has
    /// done so; after [`strip_and_default`] it is the translation's to do.
    pub extra_body: Map<String, Value>,
    /// The response's call of the tool `json_tool_call` is the content that the client asked for.
    pub json_tool: bool,
}

/// Makes a body ready that is sent in the format it came in.
pub fn prepare(body: &mut Object<'_>, p: &Prepare<'_>) -> Result<Facts, Error> {
    let mut facts = strip_and_default(body, p)?;
    if !p.model.is_empty() {
        body.set("model", string(p.model));
    }
    p.to.fit(body, p, &mut facts)?;
    for (name, value) in &facts.extra_body {
        body.set(name.clone(), value::to_text(value));
    }
    Ok(facts)
}

/// Takes out what is meant for the gateway, puts in the deployment's defaults where the client gave nothing, then takes out
/// what `additional_drop_params` names.
pub fn strip_and_default(body: &mut Object<'_>, p: &Prepare<'_>) -> Result<Facts, Error> {
    let facts = read_facts(body, p)?;
    let dropped: Vec<String> = body.read("additional_drop_params").unwrap_or_default();
    if dropped.len() > MOST_PATHS {
        let message = format!("`additional_drop_params` may name at most {MOST_PATHS} parameters.");
        return Err(Error::bad_request(message).with_param("additional_drop_params"));
    }
    body.retain(|name, _| !is_ours(name, p.from));
    for (name, value) in &p.deployment.defaults {
        if !is_given(body, name) && p.from.takes_default(name) {
            body.set(name.clone(), value.to_string());
        }
    }
    for path in p.deployment.additional_drop_params.iter().chain(&dropped) {
        splice::remove(body, path);
    }
    Ok(facts)
}

fn read_facts(body: &Object<'_>, p: &Prepare<'_>) -> Result<Facts, Error> {
    let mut facts = Facts {
        drop_params: p.drop_params || body.raw("drop_params") == Some("true"),
        allowed_params: p.deployment.allowed_openai_params.clone(),
        extra_body: p.deployment.extra_body.clone(),
        ..Facts::default()
    };
    facts.allowed_params.extend(body.read::<Vec<String>>("allowed_openai_params").unwrap_or_default());
    if p.streaming {
        let options = body.read::<Object<'_>>("stream_options").unwrap_or_default();
        facts.include_usage = options.raw("include_usage") == Some("true");
    }
    for (name, value) in read_map(body, "extra_body")? {
        // These are checked before; what the provider reads must be what was checked.
        if !["model", "stream", "stream_options"].contains(&name.as_str()) {
            facts.extra_body.insert(name, value);
        }
    }
    for member in ["headers", "extra_headers"] {
        for (name, value) in read_map(body, member)? {
            let (name, value) = header(member, &name, &value)?;
            facts.headers.push(&name, &value);
        }
    }
    Ok(facts)
}

fn read_map(body: &Object<'_>, name: &'static str) -> Result<Map<String, Value>, Error> {
    if !body.has(name) {
        return Ok(Map::new());
    }
    let whole = body.read::<Object<'_>>(name).and_then(|object| object.to_map().ok());
    whole.ok_or_else(|| {
        Error::bad_request(format!("`{name}` must be an object from names to values.")).with_param(name)
    })
}

/// One header that the client wants sent. It may not frame the message, address it or carry credentials: those are ours.
fn header(member: &'static str, name: &str, value: &Value) -> Result<(String, Vec<u8>), Error> {
    let refuse = |why: &str| {
        let shown: String = name.chars().take(64).collect();
        let message = format!("`{member}` has a header that cannot be sent: {shown:?} {why}.");
        Err(Error::bad_request(message).with_param(member))
    };
    let lower = name.to_ascii_lowercase();
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if lower.is_empty() || lower.len() > 256 || !lower.bytes().all(token) {
        return refuse("is no header name");
    }
    let ours = OWN_HEADERS.contains(&lower.as_str())
        || ["x-envoy-", "x-tollgate-", "proxy-"].iter().any(|prefix| lower.starts_with(prefix));
    if ours {
        return refuse("is set by the gateway");
    }
    let text = match value {
        _ if value::digits(value).is_some() => value::to_text(value),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(on) => on.to_string(),
        _ => return refuse("must have a text as its value"),
    };
    if text.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
        return refuse("has a control character in its value");
    }
    Ok((lower, text.into_bytes()))
}

/// Whether a member is LiteLLM's and never a provider's. Prices are among them: a client does not set what it is charged, so
/// they go no further.
fn is_ours(name: &str, format: Ref) -> bool {
    OURS.contains(&name)
        || name.starts_with("mock_testing_")
        || name.contains("_cost_per_")
        || name.starts_with("cache_read_input_token_cost")
        || name.starts_with("cache_creation_input_token_cost")
        || (name == "metadata" && !format.owns(name))
}

/// Whether the client gave a parameter, by this or its other name.
fn is_given(body: &Object<'_>, name: &str) -> bool {
    let other = match name {
        "max_tokens" => "max_completion_tokens",
        "max_completion_tokens" => "max_tokens",
        _ => name,
    };
    body.raw(name).is_some() || body.raw(other).is_some()
}

/// Makes the provider tell the usage at the end of a stream, or takes the wish out where it is not understood.
pub fn ask_for_usage(body: &mut Object<'_>, p: &Prepare<'_>) {
    if p.deployment.brand.quirks.no_stream_options {
        body.remove("stream_options");
    } else if p.streaming {
        let bytes = {
            let mut options = body.read::<Object<'_>>("stream_options").unwrap_or_default();
            options.set("include_usage", "true");
            options.to_bytes()
        };
        body.set("stream_options", String::from_utf8(bytes).unwrap_or_default());
    }
}

/// How many parameters a request may have dropped by name: each may cost a pass over the body.
const MOST_PATHS: usize = 64;

/// Members of a request that are said to the gateway.
pub(in crate::core) const OURS: &[&str] = &[
    "additional_drop_params",
    "allowed_openai_params",
    "api_base",
    "api_key",
    "api_version",
    "base_url",
    "cache",
    "caching",
    "content_policy_fallbacks",
    "context_window_fallbacks",
    "custom_llm_provider",
    "disable_fallbacks",
    "drop_params",
    "extra_body",
    "extra_headers",
    "fallbacks",
    "fastest_response",
    "guardrails",
    "headers",
    "litellm_call_id",
    "litellm_metadata",
    "litellm_session_id",
    "litellm_trace_id",
    "logger_fn",
    "max_retries",
    "mock_response",
    "mock_timeout",
    "mock_tool_calls",
    "model_info",
    "modify_params",
    "no-log",
    "num_retries",
    "priority",
    "prompt_id",
    "prompt_variables",
    "proxy_server_request",
    "request_timeout",
    "ssl_verify",
    "stream_timeout",
    "tags",
    "timeout",
    "ttl",
    "user_config",
];

/// Headers that a request body may not set.
const OWN_HEADERS: &[&str] = &[
    "accept-encoding",
    "api-key",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-api-key",
];

#[cfg(test)]
mod tests;
