//! Which deployments there are to check, and how each is called.

use std::{collections::HashSet, sync::Arc};

use serde_json::{Map, Value, json};

use crate::{
    control::ledger::{App, api::models, prices, problem::Problem},
    core::{
        access::{self, models::listed},
        config::Config,
        model::{deployment::Deployment, secret::Secret},
    },
};

/// How long a deployment may take, unless it says otherwise.
const TIMEOUT_MS: u64 = 60_000;
/// Most tokens of an answer: few, and enough for models that think first to say something.
const MAX_TOKENS: u64 = 16;

/// A deployment to check.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its id.
    pub id: String,
    /// Its group.
    pub group: String,
    /// `litellm_params.model`.
    pub model: String,
    /// Its parameters without what is secret.
    pub shown: Map<String, Value>,
    /// The call, or why it cannot be called.
    pub ask: Result<Ask, String>,
    /// How long it may take.
    pub timeout_ms: u64,
    /// Not left out by `disable_background_health_check`.
    pub in_background: bool,
    /// What no message may show.
    pub secrets: Vec<Secret>,
}

/// The call of a check.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Path at the gateway.
    pub path: &'static str,
    /// Body.
    pub body: Value,
}

/// Every deployment that a viewer may call (all without one): of the configuration, then the stored ones.
pub async fn all(app: &App, viewer: Option<&access::Caller>) -> Result<Vec<Target>, Problem> {
    let config = app.config();
    let mut all = of(&config, viewer);
    if config.ledger.store_model_in_db {
        // The configuration may have the stored ones in it already.
        let there: HashSet<String> = config.deployments.iter().map(|d| d.id.clone()).collect();
        let stored = Arc::new(models::stored_config(app).await?);
        all.extend(of(&stored, viewer).into_iter().filter(|target| !there.contains(&target.id)));
    }
    Ok(all)
}

fn of(config: &Config, viewer: Option<&access::Caller>) -> Vec<Target> {
    let names = viewer.map(|viewer| listed(viewer, config, true));
    let visible = |d: &&Deployment| names.as_ref().is_none_or(|names: &Vec<String>| names.contains(&d.group));
    // A bare `*` has a deployment for each brand: it is checked with the one that its model is for.
    let mut bare: HashSet<&str> = HashSet::new();
    let deployments = config.deployments.iter().filter(visible);
    deployments
        .filter(|d| !d.only_inferred || (is_for_its_brand(d) && bare.insert(&d.group)))
        .map(target)
        .collect()
}

/// Whether a variant of a bare `*` is of the brand that its `health_check_model` names; without one, all are.
fn is_for_its_brand(deployment: &Deployment) -> bool {
    let named = deployment.model_info.get("health_check_model").and_then(Value::as_str);
    named.is_none_or(|model| model.split('/').next() == Some(deployment.brand.name))
}

fn target(deployment: &Deployment) -> Target {
    let info = &deployment.model_info;
    let own_ms = info.get("health_check_timeout").and_then(seconds);
    let default_ms = deployment.timeout_ms.map_or(TIMEOUT_MS, |own| own.min(TIMEOUT_MS));
    let headers = deployment.headers.iter().map(|(_, value)| value);
    let secrets = [&deployment.api_key, &deployment.azure_ad_token].into_iter().flatten().chain(headers);
    Target {
        id: deployment.id.clone(),
        group: deployment.group.clone(),
        model: deployment.litellm_model.clone(),
        shown: deployment.shown_params.clone(),
        ask: ask(deployment),
        timeout_ms: own_ms.unwrap_or(default_ms),
        in_background: !info.get("disable_background_health_check").is_some_and(truth),
        secrets: secrets.cloned().collect(),
    }
}

/// The smallest call that makes sense for a deployment's mode.
fn ask(deployment: &Deployment) -> Result<Ask, String> {
    let is_wild = deployment.has_any_model();
    let asked_for = match (&deployment.health_check_model, is_wild) {
        (Some(model), true) => model,
        (None, true) => {
            return Err(format!(
                "not checked: `{}` stands for many models. Set `model_info.health_check_model` to one of them",
                deployment.litellm_model
            ));
        }
        _ => &deployment.model,
    };
    let info = &deployment.model_info;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let base = deployment.base_model.as_deref();
    let mode = text(info.get("mode"))
        .or_else(|| text(prices::facts(asked_for, deployment.brand.name, base).get("mode")));
    let tokens = info.get("health_check_max_tokens").and_then(Value::as_u64).unwrap_or(MAX_TOKENS);
    let (path, mut body) = match mode.as_deref() {
        None | Some("" | "chat") => (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": tokens}),
        ),
        Some("completion") => ("/v1/completions", json!({"prompt": "hi", "max_tokens": tokens})),
        Some("embedding") => ("/v1/embeddings", json!({"input": "hi"})),
        Some(other) => {
            return Err(format!(
                "not checked: the gateway does not serve models of mode `{other}` yet; `model_info.mode` may be chat, \
                 completion or embedding"
            ));
        }
    };
    if let Some(body) = body.as_object_mut() {
        body.insert("model".to_owned(), json!(deployment.id));
        body.insert("num_retries".to_owned(), json!(0));
        body.insert("disable_fallbacks".to_owned(), json!(true));
    }
    Ok(Ask { path, body })
}

/// Seconds above zero, as a number or its text, in milliseconds.
fn seconds(value: &Value) -> Option<u64> {
    let seconds = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    (seconds > 0.0 && seconds < 86_400.0).then(|| ((seconds * 1_000.0) as u64).max(1))
}

fn truth(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("true")))
}
