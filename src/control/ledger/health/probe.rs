//! One check: a call of one deployment through the gateway, and what its answer means.

use std::time::Duration;

use serde_json::{Value, json};

use super::targets::Target;
use crate::{
    control::client,
    core::model::{general::General, secret::Secret},
};

/// The tag by which spend shows what it was for.
pub const TAG: &str = "health_check";
/// The gateway ends a call in its time; when it does not, it is waited for so long in addition.
const GRACE: Duration = Duration::from_secs(10);
/// How long the gateway may take to say that it lives.
const LIVES: Duration = Duration::from_secs(5);
/// Of an answer no more is read than this.
const MAX_ANSWER: u64 = 8 << 20;
/// Characters of an error that are shown.
const MAX_ERROR: usize = 2_000;
/// How every message begins that says what a provider did.
const OF_PROVIDER: &str = "litellm.";

/// Where the gateway is.
#[derive(Clone, Debug)]
pub struct Gateway {
    url: String,
    is_verified: bool,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The deployment answers.
    Passed,
    /// It was called, and does not answer as it should.
    Failed {
        /// The status of the failure.
        status: u16,
        /// What the gateway says of it.
        error: String,
    },
    /// It could not be called, which says nothing about it: why.
    Unchecked(String),
}

impl Outcome {
    /// Whether requests are better sent elsewhere. What the provider thinks of the check's own body does not count.
    pub fn keeps_away(&self, ignore_transient: bool) -> bool {
        match self {
            Outcome::Failed { status: 408 | 429, .. } => !ignore_transient,
            Outcome::Failed { status, .. } => {
                !(400..500).contains(status) || matches!(status, 401 | 403 | 404)
            }
            Outcome::Passed | Outcome::Unchecked(_) => false,
        }
    }
}

impl Gateway {
    /// The gateway at a URL. The certificate of one on this machine is for its clients' name of it, so it is not verified
    /// here; `is_own` says so.
    pub fn at(url: &str, is_own: bool) -> Gateway {
        Gateway { url: url.trim_end_matches('/').to_owned(), is_verified: !is_own }
    }

    /// Whether it answers.
    pub fn lives(&self) -> bool {
        let call =
            client::agent(LIVES, self.is_verified).get(format!("{}/health/liveliness", self.url)).call();
        call.is_ok_and(|answer| answer.status() == 200)
    }
}

/// Calls one deployment. Blocks until it has answered or its time is over.
pub fn call(gateway: &Gateway, target: &Target, general: &General) -> Outcome {
    let ask = match &target.ask {
        Ok(ask) => ask,
        Err(why) => return Outcome::Unchecked(why.clone()),
    };
    let mut body = ask.body.clone();
    if let Some(body) = body.as_object_mut() {
        body.insert("timeout".to_owned(), json!(target.timeout_ms as f64 / 1_000.0));
    }
    let patience = Duration::from_millis(target.timeout_ms).saturating_add(GRACE);
    let mut request = client::agent(patience, gateway.is_verified)
        .post(format!("{}{}", gateway.url, ask.path))
        .header("content-type", "application/json")
        .header("x-litellm-tags", TAG);
    if let Some(key) = &general.master_key {
        let name = general.key_header.as_deref().unwrap_or("authorization");
        request = request.header(name, format!("Bearer {}", key.reveal()));
    }
    let mut answer = match request.send(body.to_string()) {
        Ok(answer) => answer,
        Err(ureq::Error::Timeout(_)) => return unreached(gateway, "did not answer in time"),
        Err(_) => return unreached(gateway, "cannot be reached"),
    };
    let status = answer.status().as_u16();
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let by = header("x-litellm-model-id").map(str::to_owned);
    // Read to its end, so that the call ends as every other and is charged.
    match answer.body_mut().with_config().limit(MAX_ANSWER).read_to_string() {
        Ok(body) => judge(target, general.master_key.as_ref(), status, by.as_deref(), &body),
        Err(_) => Outcome::Failed { status: 502, error: "the answer broke off".to_owned() },
    }
}

fn unreached(gateway: &Gateway, what: &str) -> Outcome {
    Outcome::Unchecked(format!("not checked: the gateway at {} {what}", gateway.url))
}

/// What an answer of the gateway means. `by` is the deployment that it says it is of.
fn judge(target: &Target, master: Option<&Secret>, status: u16, by: Option<&str>, body: &str) -> Outcome {
    let is_its = by == Some(target.id.as_str());
    if (200..300).contains(&status) {
        return match is_its {
            true => Outcome::Passed,
            false => Outcome::Unchecked(
                "not checked: the gateway called another deployment, as `completion_model` has it".to_owned(),
            ),
        };
    }
    let parsed = serde_json::from_str::<Value>(body).ok();
    let message = parsed.as_ref().and_then(|body| body.pointer("/error/message")).and_then(Value::as_str);
    let message = message.map_or_else(|| format!("status {status}"), |text| clean(text, target, master));
    match is_its && message.starts_with(OF_PROVIDER) {
        true => Outcome::Failed { status, error: message },
        false => Outcome::Unchecked(format!("not checked: the gateway refused the call: {message}")),
    }
}

/// A message without secrets, should a provider repeat them, and of bearable length.
fn clean(message: &str, target: &Target, master: Option<&Secret>) -> String {
    let mut clean = message.to_owned();
    // What is too short to be a secret would only spoil the text.
    let secrets = target.secrets.iter().chain(master).filter(|secret| secret.reveal().len() > 3);
    for secret in secrets {
        let bare = secret.reveal().strip_prefix("Bearer ").unwrap_or(secret.reveal());
        clean = clean.replace(bare, "…");
    }
    if clean.chars().count() > MAX_ERROR {
        clean = clean.chars().take(MAX_ERROR).chain(['…']).collect();
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ledger::health::targets::Ask;

    fn target() -> Target {
        Target {
            id: "d".to_owned(),
            group: "g".to_owned(),
            model: "openai/m".to_owned(),
            shown: serde_json::Map::new(),
            ask: Ok(Ask { path: "/v1/chat/completions", body: json!({}) }),
            timeout_ms: 1_000,
            in_background: true,
            secrets: vec![Secret::new("sk-of-the-provider"), Secret::new("Bearer abcdef"), Secret::new("k")],
        }
    }

    fn failed(status: u16, error: &str) -> Outcome {
        Outcome::Failed { status, error: error.to_owned() }
    }

    #[test]
    fn answers_are_judged_by_whose_they_are() {
        let error = |message: &str| json!({"error": {"message": message}}).to_string();
        let refused =
            |what: &str| Outcome::Unchecked(format!("not checked: the gateway refused the call: {what}"));
        let other = Outcome::Unchecked(
            "not checked: the gateway called another deployment, as `completion_model` has it".to_owned(),
        );
        let rows = [
            (200, Some("d"), "{}".to_owned(), Outcome::Passed),
            (200, Some("e"), "{}".to_owned(), other.clone()),
            (200, None, "{}".to_owned(), other),
            (
                401,
                Some("d"),
                error("litellm.AuthenticationError: no"),
                failed(401, "litellm.AuthenticationError: no"),
            ),
            (429, Some("d"), error("Crossed global_max_parallel"), refused("Crossed global_max_parallel")),
            (401, None, error("litellm.AuthenticationError: no"), refused("litellm.AuthenticationError: no")),
            (503, None, "gone".to_owned(), refused("status 503")),
        ];
        for (status, by, body, expected) in rows {
            assert_eq!(judge(&target(), None, status, by, &body), expected, "{status} {by:?} {body}");
        }
    }

    #[test]
    fn messages_show_no_secret_and_have_an_end() {
        let body = |message: &str| json!({"error": {"message": message}}).to_string();
        let master = Secret::new("sk-master");
        let told = "litellm.AuthenticationError: keys sk-of-the-provider, abcdef, sk-master";
        let Outcome::Failed { error, .. } = judge(&target(), Some(&master), 401, Some("d"), &body(told))
        else {
            panic!("it failed")
        };
        assert_eq!(error, "litellm.AuthenticationError: keys …, …, …");
        let long = format!("litellm.X: {}", "é".repeat(10_000));
        let Outcome::Failed { error, .. } = judge(&target(), None, 500, Some("d"), &body(&long)) else {
            panic!("it failed")
        };
        assert_eq!(error.chars().count(), MAX_ERROR + 1);
    }

    #[test]
    fn what_keeps_requests_away() {
        for (status, always, unless_ignored) in [
            (400, false, false),
            (422, false, false),
            (401, true, true),
            (403, true, true),
            (404, true, true),
            (408, false, true),
            (429, false, true),
            (500, true, true),
            (503, true, true),
        ] {
            let outcome = failed(status, "x");
            assert_eq!(outcome.keeps_away(true), always, "{status}");
            assert_eq!(outcome.keeps_away(false), unless_ignored, "{status}");
        }
        assert!(!Outcome::Passed.keeps_away(false));
        assert!(!Outcome::Unchecked(String::new()).keeps_away(false));
    }

    #[test]
    fn a_gateway_that_is_not_there_says_nothing_of_a_deployment() {
        let nobody = Gateway::at("http://127.0.0.1:9/", false);
        assert!(!nobody.lives());
        let expected = "not checked: the gateway at http://127.0.0.1:9 cannot be reached";
        assert_eq!(call(&nobody, &target(), &General::default()), Outcome::Unchecked(expected.to_owned()));
        let wild = Target { ask: Err("not checked: why".to_owned()), ..target() };
        let expected = Outcome::Unchecked("not checked: why".to_owned());
        assert_eq!(call(&nobody, &wild, &General::default()), expected);
    }
}
