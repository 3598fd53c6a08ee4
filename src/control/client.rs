//! Calls to a running gateway: `--test`, `--health`, `healthcheck`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use serde_json::{Value, json};

use super::{Failure, checked, cli::Serve, document, state};

/// Flags of `tollgate healthcheck`.
#[derive(Clone, Debug, Default, Args)]
#[command(rename_all = "snake_case")]
pub struct HealthcheckFlags {
    /// Port the gateway listens on [default: that of the one that runs, else $PORT, else 4000]
    #[arg(long)]
    pub port: Option<u16>,
    /// State directory of the gateway, which says where it listens
    #[arg(long, value_name = "DIR", env = "TOLLGATE_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Accepted so that a container can give both commands the same flags: the port does not stand in it
    #[arg(long, short, value_name = "FILE", hide = true)]
    pub config: Option<PathBuf>,
}

/// Where the gateway on this machine listens: as its state says, unless a port is given; as the environment says when none was
/// started.
pub fn gateway_url(port: Option<u16>, state_dir: Option<&Path>) -> String {
    url_of(port, state::address(state_dir).map(|address| address.url), &|name| std::env::var(name).ok())
}

fn url_of(port: Option<u16>, started: Option<String>, env: &dyn Fn(&str) -> Option<String>) -> String {
    let is_it = |url: &String| port.is_none_or(|port| url.ends_with(&format!(":{port}")));
    if let Some(url) = started.filter(is_it) {
        return url;
    }
    let is_set = |name: &str| env(name).is_some_and(|value| !value.is_empty());
    let scheme = if is_set("SSL_CERTFILE_PATH") && is_set("SSL_KEYFILE_PATH") { "https" } else { "http" };
    let port = port.or_else(|| env("PORT")?.parse().ok()).unwrap_or(4000);
    format!("{scheme}://127.0.0.1:{port}")
}

/// Exit code 0 when the gateway on this machine answers.
pub fn healthcheck(flags: &HealthcheckFlags) -> Result<(), Failure> {
    let url = format!("{}/health/liveliness", gateway_url(flags.port, flags.state_dir.as_deref()));
    // A certificate is for the name that clients have for the gateway, not for this one.
    let (status, _) = get(&url, None, &agent(Duration::from_secs(5), false))?;
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
        status => Err(refused(&format!("{base}/health answered {status}"), status, &body)),
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
        return Err(refused(&format!("{url} answered {status} for model `{model}`"), status, &text));
    }
    Ok(format!("{url} answered for model `{model}`:\n{}", pretty(&text)))
}

/// The first model that is listed, as LiteLLM's test picks when it is given none.
fn first_model(base: &str, key: Option<&str>, agent: &ureq::Agent) -> Result<String, Failure> {
    let url = format!("{base}/v1/models");
    let (status, body) = get(&url, key, agent)?;
    if status != 200 {
        return Err(refused(&format!("{url} answered {status}"), status, &body));
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
    let checked = checked::examine(&document).ok()?;
    Some(checked.config.general.master_key?.reveal().to_owned())
}

/// What a gateway did not want to do. Who is not let in is told where the key for these calls comes from.
fn refused(what: &str, status: u16, body: &str) -> Failure {
    Failure::running(match status {
        401 | 403 => format!(
            "{what}: it asks for a key. Set LITELLM_MASTER_KEY, or name the configuration file that has it with --config"
        ),
        _ => format!("{what}: {body}"),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_check_asks_where_the_gateway_listens() {
        let tls = [("SSL_CERTFILE_PATH", "c"), ("SSL_KEYFILE_PATH", "k"), ("PORT", "7")];
        let started = || Some("https://127.0.0.1:8443".to_owned());
        for (port, started, env, url) in [
            (None, started(), &[][..], "https://127.0.0.1:8443"),
            (Some(8443), started(), &[], "https://127.0.0.1:8443"),
            (None, started(), &tls[2..], "https://127.0.0.1:8443"),
            (Some(1), started(), &[], "http://127.0.0.1:1"),
            (None, None, &[], "http://127.0.0.1:4000"),
            (None, None, &tls[2..], "http://127.0.0.1:7"),
            (Some(1), None, &tls, "https://127.0.0.1:1"),
        ] {
            let env = |name: &str| {
                env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(url_of(port, started, &env), url);
        }
    }

    #[test]
    fn who_is_not_let_in_is_told_where_the_key_comes_from() {
        let told = refused("http://h/health answered 401", 401, "{\"error\": \"…\"}").to_string();
        assert!(told.contains("Set LITELLM_MASTER_KEY") && !told.contains("error"), "{told}");
        assert_eq!(refused("x", 500, "body").to_string(), "x: body");
    }
}
