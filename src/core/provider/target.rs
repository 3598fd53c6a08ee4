//! Where a call goes: the format for a client API, and the URL and headers of an attempt.

use super::{
    infer::is_completion_model,
    url::{self, Call},
};
use crate::core::{
    error::{Error, RequestFault},
    headers::Headers,
    model::{brand::Brand, deployment::Deployment, endpoint::Endpoint, failure::Class},
    operation::{Api, Dialect, Operation},
};

/// What an attempt sends besides its body. Header names are lower-case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `:path`, with the query.
    pub path: String,
    /// `:authority`.
    pub authority: String,
    /// Headers of the format, and the deployment's own over them; each replaces any header of that name.
    pub headers: Headers,
}

/// The name of the format that serves a client API at a deployment.
pub fn speaks(d: &Deployment, api: &Api) -> Result<&'static str, Error> {
    let refuse = |why: String| {
        Err(Error::of(RequestFault::Foreseen(Class::BadRequest), format!("litellm.BadRequestError: {why}")))
    };
    let Some(speaks) = d.brand.speaks else {
        return refuse(format!("Tollgate cannot call provider `{}` yet", d.brand.name));
    };
    match (api.operation, d.brand.with_template) {
        (Operation::CountTokens, _) => match d.brand.counts {
            Some(name) => Ok(name),
            None => refuse(format!("{0}Exception - {0} counts no tokens", d.brand.title)),
        },
        (Operation::Embed, _) => match d.brand.embeds {
            Some(name) => Ok(name),
            None => {
                let title = d.brand.title;
                refuse(format!("{title}Exception - {title} has no embeddings; name an embedding model"))
            }
        },
        (_, Some(name)) if d.template.is_some() => Ok(name),
        _ if api.dialect == Dialect::Completions && serves_completions(d) => Ok("completions"),
        _ => Ok(speaks),
    }
}

/// Where a call goes.
pub fn target(call: &Call<'_>) -> Target {
    let (path, query) = url::path(call);
    let path = if path.is_empty() { "/".to_owned() } else { path };
    let path = match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    Target { path, authority: call.deployment.endpoint.authority(), headers: headers(call) }
}

/// The model as it stands in the body of a call: `model` itself, except at Hugging Face's router, where a leading provider
/// (`together/org/model`) becomes a suffix.
pub fn body_model(d: &Deployment, model: &str) -> String {
    if d.brand.name == "huggingface" && d.endpoint.host == "router.huggingface.co" {
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
    match d.brand.is_azure() {
        true => named(&d.model) || d.base_model.as_deref().is_some_and(named),
        false => d.brand.text_completions,
    }
}

/// The format's headers, then the deployment's own over them.
fn headers(call: &Call<'_>) -> Headers {
    let own = &call.deployment.headers;
    let mut headers = Headers::with_capacity(3 + own.len());
    for (name, value) in call.headers {
        headers.set(name, value.as_bytes());
    }
    for (name, value) in own {
        headers.set(&name.to_ascii_lowercase(), value.reveal().as_bytes());
    }
    headers
}

#[cfg(test)]
mod tests;
