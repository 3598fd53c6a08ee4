//! Credentials: the last step of a request on its way to a provider, when everything that could be signed stands.
//!
//! A header that the deployment sets itself is never replaced.

use crate::core::{
    headers::Headers,
    model::{brand::AuthScheme, deployment::Deployment},
};

/// Puts a deployment's credentials on a request.
pub fn sign(d: &Deployment, headers: &mut Headers) {
    match d.brand.auth {
        AuthScheme::Bearer => bearer(d, headers),
        AuthScheme::OpenAi => openai(d, headers),
        AuthScheme::XApiKey => x_api_key(d, headers),
        AuthScheme::Azure => azure(d, headers),
        AuthScheme::AzureAi => azure_ai(d, headers),
    }
}

/// `Authorization: Bearer`.
fn bearer(d: &Deployment, headers: &mut Headers) {
    if let Some(key) = &d.api_key {
        set(d, headers, "authorization", &format!("Bearer {}", key.reveal()));
    }
}

/// `Authorization: Bearer`, and OpenAI's organization.
fn openai(d: &Deployment, headers: &mut Headers) {
    bearer(d, headers);
    if let Some(organization) = &d.organization {
        set(d, headers, "openai-organization", organization);
    }
}

/// Anthropic's `x-api-key`.
fn x_api_key(d: &Deployment, headers: &mut Headers) {
    if let Some(key) = &d.api_key {
        set(d, headers, "x-api-key", key.reveal());
    }
}

/// Azure's `api-key`, or a token of its directory.
fn azure(d: &Deployment, headers: &mut Headers) {
    match (&d.api_key, &d.azure_ad_token) {
        (Some(key), _) => set(d, headers, "api-key", key.reveal()),
        (None, Some(token)) => set(d, headers, "authorization", &format!("Bearer {}", token.reveal())),
        (None, None) => {}
    }
}

/// Azure AI Foundry: `api-key` at Microsoft's own hosts, a bearer everywhere else.
fn azure_ai(d: &Deployment, headers: &mut Headers) {
    let own_hosts = [".services.ai.azure.com", ".openai.azure.com"];
    match &d.api_key {
        Some(key) if own_hosts.iter().any(|host| d.endpoint.host.ends_with(host)) => {
            set(d, headers, "api-key", key.reveal());
        }
        _ => openai(d, headers),
    }
}

fn set(d: &Deployment, headers: &mut Headers, name: &str, value: &str) {
    if !d.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)) {
        headers.set(name, value.as_bytes());
    }
}
