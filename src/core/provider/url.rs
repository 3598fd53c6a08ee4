//! Paths of calls, in the ways of the brands.

use crate::core::{
    codec::percent::percent,
    model::{brand::UrlScheme, deployment::Deployment},
};

/// A call whose path is made.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The deployment that is called.
    pub deployment: &'a Deployment,
    /// What the format's paths end in.
    pub leaf: &'static str,
    /// Headers that the format's requests have.
    pub headers: &'static [(&'static str, &'static str)],
    /// The model asked for.
    pub model: &'a str,
    /// The `api-version` that the client asked for, which wins over the deployment's (Azure).
    pub api_version: Option<&'a str>,
}

/// The path of a call, and its query.
pub fn path(call: &Call<'_>) -> (String, Option<String>) {
    match call.deployment.brand.url {
        UrlScheme::Joined => joined(call),
        UrlScheme::Versioned => versioned(call),
        UrlScheme::Azure => azure(call),
        UrlScheme::AzureAi => azure_ai(call),
    }
}

/// `api-version` for an Azure deployment that names none.
pub const AZURE_API_VERSION: &str = "2025-02-01-preview";

/// The version of Azure's API that is called: the client's own, else the deployment's, else a default.
pub fn api_version<'v>(deployment: &'v Deployment, asked: Option<&'v str>) -> &'v str {
    asked.or(deployment.api_version.as_deref()).unwrap_or(AZURE_API_VERSION)
}

/// The format's path behind the base URL.
fn joined(call: &Call<'_>) -> (String, Option<String>) {
    let endpoint = &call.deployment.endpoint;
    (join(&endpoint.path, call.leaf), endpoint.query.clone())
}

/// The format's path under `/v1`, for a base URL that may stop before it. One under `/api` stands beside it.
fn versioned(call: &Call<'_>) -> (String, Option<String>) {
    let endpoint = &call.deployment.endpoint;
    if call.leaf.starts_with("/api/") {
        let root = endpoint.path.strip_suffix("/v1").unwrap_or(&endpoint.path);
        return (join(root, call.leaf), endpoint.query.clone());
    }
    (with_v1(&endpoint.path, call.leaf), endpoint.query.clone())
}

/// `base` + `leaf`, unless `base` is the whole path already.
fn join(base: &str, leaf: &str) -> String {
    if base.ends_with(leaf) { base.to_owned() } else { [base, leaf].concat() }
}

/// `base` + `leaf` for a base that may stop before `/v1`.
fn with_v1(base: &str, leaf: &str) -> String {
    // The whole path of another call of the same API.
    let base = match base.rsplit_once('/') {
        Some((before, last))
            if leaf
                .strip_prefix('/')
                .and_then(|leaf| leaf.split_once('/'))
                .is_some_and(|(first, _)| first == last) =>
        {
            before
        }
        _ => base,
    };
    match base.ends_with("/v1") || base.ends_with(leaf) {
        true => join(base, leaf),
        false => format!("{base}/v1{leaf}"),
    }
}

/// Azure AI Foundry: its own hosts have the API under `/models`, everything else is OpenAI's shape.
fn azure_ai(call: &Call<'_>) -> (String, Option<String>) {
    let (d, leaf) = (call.deployment, call.leaf);
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
    (path, Some(with_version(d.endpoint.query.as_deref(), version, false)))
}

/// Azure's URL forms: a base that names the deployment already, an AI gateway in front, the versionless `/openai/v1`, and
/// the usual `/openai/deployments/{model}`.
fn azure(call: &Call<'_>) -> (String, Option<String>) {
    let Call { deployment: d, model, api_version: asked, .. } = *call;
    let (base, leaf) = (d.endpoint.path.as_str(), call.leaf);
    let version = api_version(d, asked);
    let query = d.endpoint.query.as_deref();
    let dated = Some(with_version(query, version, asked.is_some()));
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
        "preview" | "latest" => {
            (format!("{root}/openai/v1{leaf}"), Some(with_version(query, "preview", true)))
        }
        _ => (format!("{root}/openai/deployments/{}{leaf}", path_segment(model)), dated),
    }
}

/// The base URL's query with an `api-version`; one that is there stays unless `replace`.
fn with_version(query: Option<&str>, version: &str, replace: bool) -> String {
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
