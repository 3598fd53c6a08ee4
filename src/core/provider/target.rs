//! Where a call goes: the wire format for a client API, and the URL and credentials of an attempt.

use super::{Wire, infer::is_completion_model};
use crate::core::{
    api::Api,
    codec::escape::percent,
    error::Error,
    headers::Headers,
    model::{
        brand::{Brand, Family},
        deployment::Deployment,
        endpoint::Endpoint,
        failure::Class,
    },
};

/// What an attempt sends besides its body. Header names are lower-case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `:path`, with the query.
    pub path: String,
    /// `:authority`.
    pub authority: String,
    /// Credentials and the deployment's own headers; each replaces any header of that name.
    pub headers: Headers,
}

/// `api-version` for an Azure deployment that names none.
pub const AZURE_API_VERSION: &str = "2025-02-01-preview";

/// Anthropic's only API version.
pub const ANTHROPIC_VERSION: &str = "2023-06-01";

/// The wire format that serves a client API at a deployment.
pub fn wire(d: &Deployment, api: Api) -> Result<Wire, Error> {
    match (d.brand.family, api) {
        (Family::NotYet, _) => Err(Error::provider(
            Class::BadRequest,
            format!("litellm.BadRequestError: Tollgate cannot call provider `{}` yet", d.brand.name),
        )),
        (Family::Anthropic, Api::Embeddings) => Err(Error::provider(
            Class::BadRequest,
            "litellm.BadRequestError: AnthropicException - Anthropic has no embeddings; name an embedding model",
        )),
        (_, Api::Embeddings) => Ok(Wire::Embeddings),
        (Family::Anthropic, _) => Ok(Wire::Messages),
        (Family::OpenAiText, _) => Ok(Wire::Completions),
        (Family::HuggingFace, _) if d.template.is_some() => Ok(Wire::Generate),
        (_, Api::Completions) if serves_completions(d) => Ok(Wire::Completions),
        (_, Api::Chat | Api::Completions | Api::Messages) => Ok(Wire::Chat),
    }
}

/// URL and credentials of a call to `model` (see [`Deployment::model_for`]).
pub fn target(d: &Deployment, wire: Wire, model: &str) -> Target {
    target_at(d, wire, model, None)
}

/// The same with the `api-version` the client asked for, which wins over the deployment's (Azure).
pub fn target_at(d: &Deployment, wire: Wire, model: &str, api_version: Option<&str>) -> Target {
    let (path, query) = match d.brand.family {
        Family::Azure => azure_path(d, wire, model, api_version),
        Family::Anthropic => (anthropic_path(&d.endpoint.path), d.endpoint.query.clone()),
        Family::HuggingFace if wire == Wire::Generate => (d.endpoint.path.clone(), d.endpoint.query.clone()),
        Family::HuggingFace => (with_v1(&d.endpoint.path, leaf(wire)), d.endpoint.query.clone()),
        _ if d.brand.name == "azure_ai" => azure_ai_path(d, leaf(wire)),
        _ => (join(&d.endpoint.path, leaf(wire)), d.endpoint.query.clone()),
    };
    let path = if path.is_empty() { "/".to_owned() } else { path };
    let path = match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    Target { path, authority: d.endpoint.authority(), headers: headers(d) }
}

/// The model as it stands in the body of a call: `model` itself, except at Hugging Face's router, where a leading provider
/// (`together/org/model`) becomes a suffix.
pub fn body_model(d: &Deployment, model: &str) -> String {
    if d.brand.family == Family::HuggingFace && d.endpoint.host == "router.huggingface.co" {
        let mut parts = model.splitn(3, '/');
        if let (Some(provider), Some(org), Some(name)) = (parts.next(), parts.next(), parts.next()) {
            return format!("{org}/{name}:{provider}");
        }
    }
    model.to_owned()
}

/// The base URL to call, made from text the way the brand's users write it.
pub fn endpoint(brand: &Brand, url: &str) -> Result<Endpoint, &'static str> {
    let mut endpoint = Endpoint::parse(url)?;
    if brand.append_v1 && !endpoint.path.ends_with("/v1") {
        endpoint.path.push_str("/v1");
    }
    Ok(endpoint)
}

/// Whether `/completions` exists for this deployment. Chat models have none at OpenAI and on Azure, and there only the
/// name tells.
fn serves_completions(d: &Deployment) -> bool {
    let named = |model: &str| is_completion_model(model) || model.contains("instruct");
    match d.brand.family {
        Family::Azure => named(&d.model) || d.base_model.as_deref().is_some_and(named),
        _ => d.brand.text_completions,
    }
}

/// The last segments of an OpenAI-compatible path.
fn leaf(wire: Wire) -> &'static str {
    match wire {
        Wire::Chat | Wire::Generate => "/chat/completions",
        Wire::Completions => "/completions",
        Wire::Embeddings => "/embeddings",
        Wire::Messages => "/messages",
    }
}

/// `base` + `leaf`, unless `base` is the whole path already.
fn join(base: &str, leaf: &str) -> String {
    if base.ends_with(leaf) { base.to_owned() } else { [base, leaf].concat() }
}

/// The same for a base that may stop before `/v1`.
fn with_v1(base: &str, leaf: &str) -> String {
    match base.ends_with("/v1") || base.ends_with(leaf) {
        true => join(base, leaf),
        false => format!("{base}/v1{leaf}"),
    }
}

fn anthropic_path(base: &str) -> String {
    with_v1(base, "/messages")
}

/// Azure AI Foundry: its own hosts have the API under `/models`, everything else is OpenAI's shape.
fn azure_ai_path(d: &Deployment, leaf: &str) -> (String, Option<String>) {
    let base = &d.endpoint.path;
    if !d.endpoint.host.ends_with(".services.ai.azure.com") {
        return (join(base, leaf), d.endpoint.query.clone());
    }
    let path = if base.ends_with("/models") || base.ends_with(leaf) {
        join(base, leaf)
    } else {
        format!("{base}/models{leaf}")
    };
    let version = d.api_version.as_deref().unwrap_or("2024-05-01-preview");
    (path, Some(versioned(d.endpoint.query.as_deref(), version, false)))
}

/// Azure's URL forms: a base that names the deployment already, an AI gateway in front, the versionless `/openai/v1`, and
/// the usual `/openai/deployments/{model}`.
fn azure_path(d: &Deployment, wire: Wire, model: &str, asked: Option<&str>) -> (String, Option<String>) {
    let (base, leaf) = (d.endpoint.path.as_str(), leaf(wire));
    let version = asked.or(d.api_version.as_deref()).unwrap_or(AZURE_API_VERSION);
    let query = d.endpoint.query.as_deref();
    let dated = Some(versioned(query, version, asked.is_some()));
    if base.contains("/openai/deployments/") {
        return (join(base, leaf), dated);
    }
    if d.endpoint.host == "gateway.ai.cloudflare.com" {
        return (format!("{base}/{}{leaf}", path_segment(model)), dated);
    }
    let root = base.strip_suffix("/v1").unwrap_or(base);
    let root = root.strip_suffix("/openai").unwrap_or(root);
    match version {
        "v1" => (format!("{root}/openai/v1{leaf}"), query.map(str::to_owned)),
        "preview" | "latest" => (format!("{root}/openai/v1{leaf}"), Some(versioned(query, "preview", true))),
        _ => (format!("{root}/openai/deployments/{}{leaf}", path_segment(model)), dated),
    }
}

/// The base URL's query with an `api-version`; one that is there stays unless `replace`.
fn versioned(query: Option<&str>, version: &str, replace: bool) -> String {
    let is_version = |pair: &&str| pair.starts_with("api-version=");
    let mut pairs: Vec<&str> = query.into_iter().flat_map(|query| query.split('&')).collect();
    if replace {
        pairs.retain(|pair| !is_version(pair));
    }
    let named = format!("api-version={}", path_segment(version));
    if !pairs.iter().any(is_version) {
        pairs.push(&named);
    }
    pairs.join("&")
}

/// A name as one path segment: whatever could end the segment, the path or the header is percent-encoded. This is the only
/// way a model gets into a URL.
///
/// A name of dots only is escaped twice: `%2E%2E` still means "one up" to many servers, `%252E%252E` to none.
pub fn path_segment(name: &str) -> String {
    if name.bytes().all(|byte| byte == b'.') {
        return name.replace('.', "%252E");
    }
    percent(name, |byte| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte))
}

/// Credentials in the brand's way, then the deployment's own headers over them.
fn headers(d: &Deployment) -> Headers {
    let mut headers = Headers::with_capacity(3 + d.headers.len());
    let mut set = |name: &str, value: String| {
        headers.retain(|other, _| other != name);
        headers.push(name, value.as_bytes());
    };
    let bearer = |token: &str| format!("Bearer {token}");
    let key = d.api_key.as_ref().map(|key| key.reveal());
    let token = d.azure_ad_token.as_ref().map(|token| token.reveal());
    match d.brand.family {
        Family::Azure => match (key, token) {
            (Some(key), _) => set("api-key", key.to_owned()),
            (None, Some(token)) => set("authorization", bearer(token)),
            (None, None) => {}
        },
        Family::Anthropic => {
            set("anthropic-version", ANTHROPIC_VERSION.to_owned());
            if let Some(key) = key {
                set("x-api-key", key.to_owned());
            }
        }
        _ => {
            let azure_host = [".services.ai.azure.com", ".openai.azure.com"];
            let by_host = azure_host.iter().any(|suffix| d.endpoint.host.ends_with(suffix));
            match key {
                Some(key) if d.brand.name == "azure_ai" && by_host => set("api-key", key.to_owned()),
                Some(key) => set("authorization", bearer(key)),
                None => {}
            }
        }
    }
    if let Some(organization) = &d.organization
        && matches!(d.brand.family, Family::OpenAi | Family::OpenAiText)
    {
        set("openai-organization", organization.clone());
    }
    for (name, value) in &d.headers {
        set(&name.to_ascii_lowercase(), value.reveal().to_owned());
    }
    headers
}

#[cfg(test)]
mod tests;
