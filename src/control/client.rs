//! Calls to a running gateway: `--test`, `--health`, `healthcheck`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Failure, checked, cli::Serve, document};

/// Exit code 0 when the gateway on this machine answers.
pub fn healthcheck(port: u16) -> Result<(), Failure> {
    let url = format!("http://127.0.0.1:{port}/health/liveliness");
    let (status, _) = get(&url, None, &agent(Duration::from_secs(5), true))?;
    match status {
        200 => Ok(()),
        status => Err(Failure::running(format!("{url} answered {status}: expected 200"))),
    }
}

/// What the gateway says about its health.
pub fn health(serve: &Serve) -> Result<String, Failure> {
    let key = key(serve);
    let base = serve.url();
    // Every deployment is called.
    let agent = agent(Duration::from_secs(600), is_verified(serve));
    let mut answer = get(&format!("{base}/health"), key.as_deref(), &agent)?;
    if answer.0 == 404 {
        answer = get(&format!("{base}/health/readiness"), key.as_deref(), &agent)?;
    }
    let (status, body) = answer;
    match status {
        200 => Ok(pretty(&body)),
        status => Err(Failure::running(format!("{base}/health answered {status}: {body}"))),
    }
}

/// Sends a chat completion to the gateway at `url` (empty: the one these flags would start) and says what came back.
pub fn test(serve: &Serve, url: &str) -> Result<String, Failure> {
    let base = if url.is_empty() { serve.url() } else { url.trim_end_matches('/').to_owned() };
    let agent = agent(Duration::from_secs(600), !url.is_empty() || is_verified(serve));
    let key = key(serve);
    let model = match serve.alias.clone().or_else(|| serve.model.clone()) {
        Some(model) => model,
        None => first_model(&base, key.as_deref(), &agent)?,
    };
    let url = format!("{base}/v1/chat/completions");
    let body = json!({
        "model": model,
        "messages": [{"role": "user", "content": "This is a test request. Write a short poem."}],
        "max_tokens": 256,
    });
    let mut request = agent.post(&url).header("content-type", "application/json");
    if let Some(key) = &key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let mut response = request.send(body.to_string()).map_err(|error| unreachable(&url, &error))?;
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().map_err(|error| unreachable(&url, &error))?;
    if status != 200 {
        return Err(Failure::running(format!("{url} answered {status} for model `{model}`: {text}")));
    }
    Ok(format!("{url} answered for model `{model}`:\n{}", pretty(&text)))
}

/// The first model that is listed, as LiteLLM's test picks when it is given none.
fn first_model(base: &str, key: Option<&str>, agent: &ureq::Agent) -> Result<String, Failure> {
    let url = format!("{base}/v1/models");
    let (status, body) = get(&url, key, agent)?;
    if status != 200 {
        return Err(Failure::running(format!("{url} answered {status}: {body}")));
    }
    let listed = serde_json::from_str::<Value>(&body).ok();
    let names = listed.as_ref().and_then(|body| body.get("data")?.as_array());
    let name = names
        .into_iter()
        .flatten()
        .filter_map(|model| model.get("id")?.as_str())
        .find(|id| !id.contains('*'));
    Ok(name.unwrap_or("gpt-3.5-turbo").to_owned())
}

/// The key for these calls: the master key of the environment, or of the configuration file.
fn key(serve: &Serve) -> Option<String> {
    if let Ok(key) = std::env::var("LITELLM_MASTER_KEY") {
        return Some(key);
    }
    serve.config.as_ref()?;
    let document = document::read(serve).ok()?;
    let checked = checked::check_document(&document).ok()?;
    Some(checked.config.general.master_key?.reveal().to_owned())
}

/// A GET with a key: status and body.
pub(super) fn get(url: &str, key: Option<&str>, agent: &ureq::Agent) -> Result<(u16, String), Failure> {
    let mut request = agent.get(url);
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let mut response = request.call().map_err(|error| unreachable(url, &error))?;
    let text = response.body_mut().read_to_string().map_err(|error| unreachable(url, &error))?;
    Ok((response.status().as_u16(), text))
}

/// The certificate of the gateway on this machine is for the name that its clients have for it, not for `127.0.0.1`.
fn is_verified(serve: &Serve) -> bool {
    serve.ssl_certfile_path.is_none()
}

/// Calls a gateway. Proxies of the environment are not for these calls.
pub fn agent(timeout: Duration, is_verified: bool) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .proxy(None)
        .tls_config(ureq::tls::TlsConfig::builder().disable_verification(!is_verified).build())
        .build()
        .into()
}

fn unreachable(url: &str, error: &ureq::Error) -> Failure {
    Failure::running(format!("{url} cannot be reached: {error}. Is the gateway running?"))
}

fn pretty(body: &str) -> String {
    let value = serde_json::from_str::<Value>(body).ok();
    value.and_then(|value| serde_json::to_string_pretty(&value).ok()).unwrap_or_else(|| body.to_owned())
}
