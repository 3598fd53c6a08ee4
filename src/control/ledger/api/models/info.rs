//! `/model/info` and `/model_group/info`: what is served, to whom.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use serde_json::{Map, Value, json};

use super::{stored_config, stored_models};
use crate::{
    control::ledger::{
        App,
        api::{
            fields::{Page, bounded_query},
            utils::supported_params,
        },
        caller::Caller,
        grants, prices,
        problem::Problem,
        route::{Answer, Call},
    },
    core::{
        access::{self, models::listed},
        config::Config,
        model::deployment::Deployment,
    },
};

/// `GET /model/info`.
pub async fn deployments(call: Call) -> Result<Answer, Problem> {
    let mut data = entries(&call.app, &call.caller).await?;
    if let Some(wanted) = call.parameter("litellm_model_id") {
        data.retain(|entry| entry.id() == wanted);
        if data.is_empty() {
            let message = format!("Model id = {wanted} not found on litellm proxy");
            return Err(Problem::Detail(400, json!({"error": message})));
        }
    }
    let data: Vec<Value> = data.into_iter().map(|entry| entry.shown).collect();
    Ok(Answer::json(&json!({"data": data})))
}

/// `GET /v2/model/info`.
pub async fn pages(call: Call) -> Result<Answer, Problem> {
    bounded_query(&call)?;
    let page = Page::of(&call, "size", 50, 100)?;
    let mut found = entries(&call.app, &call.caller).await?;
    let search = call.parameter("search").map(str::to_lowercase);
    found.retain(|entry| {
        call.parameter("model").is_none_or(|wanted| wanted == entry.group)
            && call.parameter("modelId").is_none_or(|wanted| wanted == entry.id())
            && search.as_ref().is_none_or(|part| entry.group.to_lowercase().contains(part))
    });
    let total = i64::try_from(found.len()).unwrap_or(i64::MAX);
    let (skip, take) = (usize::try_from(page.offset()), usize::try_from(page.size));
    let data: Vec<Value> = found
        .into_iter()
        .skip(skip.unwrap_or(usize::MAX))
        .take(take.unwrap_or_default())
        .map(|entry| entry.shown)
        .collect();
    Ok(Answer::json(&json!({
        "data": data, "total_count": total, "current_page": page.number, "total_pages": page.pages(total),
        "size": page.size,
    })))
}

/// `GET /model_group/info`.
pub async fn groups(call: Call) -> Result<Answer, Problem> {
    let wanted = call.parameter("model_group");
    let mut groups: Vec<(String, Vec<Entry>)> = Vec::new();
    for entry in entries(&call.app, &call.caller).await? {
        if wanted.is_some_and(|wanted| wanted != entry.group) {
            continue;
        }
        match groups.iter_mut().find(|(name, _)| *name == entry.group) {
            Some((_, members)) => members.push(entry),
            None => groups.push((entry.group.clone(), vec![entry])),
        }
    }
    // What stands behind wildcards comes last, as in `/models`.
    let seen: HashSet<String> = groups.iter().map(|(name, _)| name.clone()).collect();
    for entry in expanded(&call.app, &call.caller).await? {
        if !seen.contains(&entry.group) && wanted.is_none_or(|wanted| wanted == entry.group) {
            groups.push((entry.group.clone(), vec![entry]));
        }
    }
    let data: Vec<Value> = groups.iter().map(|(name, members)| group(name, members)).collect();
    Ok(Answer::json(&json!({"data": data})))
}

/// A deployment to show.
struct Entry {
    group: String,
    shown: Value,
    brand: &'static str,
    params: Vec<&'static str>,
    tpm: Option<u64>,
    rpm: Option<u64>,
}

impl Entry {
    fn info(&self, name: &str) -> Option<&Value> {
        self.shown.get("model_info")?.get(name).filter(|value| !value.is_null())
    }

    fn id(&self) -> &str {
        self.info("id").and_then(Value::as_str).unwrap_or_default()
    }
}

/// Who looks, as far as it limits what there is to see; none when that is everything.
pub async fn viewer(app: &Arc<App>, caller: &Caller) -> Result<Option<access::Caller>, Problem> {
    let grant = match caller.token().filter(|_| !caller.may_see_all()) {
        Some(token) => grants::grant(app, token).await?,
        None => None,
    };
    Ok(grant.map(|grant| access::Caller::Key(grant.into())))
}

/// Every deployment that a caller may call: of the configuration, then the stored ones.
async fn entries(app: &Arc<App>, caller: &Caller) -> Result<Vec<Entry>, Problem> {
    let config = app.config();
    let stored = stored_models(app).await?;
    let of_database: HashSet<&str> = stored.models.iter().map(|model| model.id()).collect();
    let stored = if stored.models.is_empty() { None } else { Some(stored_config(app).await?) };
    let viewer = viewer(app, caller).await?;
    let mut all = Vec::new();
    for (config, is_stored) in [(Some(config.as_ref()), false), (stored.as_ref(), true)] {
        let Some(config) = config else { continue };
        let names = viewer.as_ref().map(|viewer| listed(viewer, config, true));
        for (deployment, shown) in config.deployments.iter().zip(shown(config)) {
            let is_visible = names.as_ref().is_none_or(|names| names.contains(&deployment.group));
            // The configuration may have the stored ones in it already.
            let is_twice = !is_stored && of_database.contains(deployment.id.as_str());
            if is_visible && !is_twice {
                all.push(entry(deployment, shown, is_stored));
            }
        }
    }
    Ok(all)
}

/// What the price data knows behind the wildcards that a caller may call, each model as a group of its own.
async fn expanded(app: &Arc<App>, caller: &Caller) -> Result<Vec<Entry>, Problem> {
    let mut configs = vec![app.config()];
    if !stored_models(app).await?.models.is_empty() {
        configs.push(Arc::new(stored_config(app).await?));
    }
    let viewer = viewer(app, caller).await?.unwrap_or(access::Caller::Master);
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for config in &configs {
        let names: HashSet<String> = listed(&viewer, config, false).into_iter().collect();
        for wildcard in &config.wildcards {
            let first = wildcard.deployments.first().and_then(|&at| config.deployments.get(at));
            let Some(deployment) = first else { continue };
            for name in config.known_models(wildcard).into_iter().filter(|name| names.contains(name)) {
                if let Some(entry) = known(config, deployment, &name).filter(|_| seen.insert(name)) {
                    all.push(entry);
                }
            }
        }
    }
    Ok(all)
}

/// A model behind a wildcard, as the price data knows it.
fn known(config: &Config, deployment: &Deployment, name: &str) -> Option<Entry> {
    let resolved = config.resolve(name)?;
    let captures: Vec<&str> = resolved.captures.iter().map(String::as_str).collect();
    let model = deployment.model_for(&resolved.requested, &captures);
    let info: Map<String, Value> = prices::facts(&model, deployment.brand.name, None).into_iter().collect();
    Some(Entry {
        group: name.to_owned(),
        shown: json!({"model_info": info}),
        brand: deployment.brand.name,
        params: supported_params(deployment.accepts_of(&model)),
        tpm: None,
        rpm: None,
    })
}

fn shown(config: &Config) -> Vec<Value> {
    match config.model_info() {
        Value::Object(mut map) => match map.remove("data") {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// A deployment as the core shows it, with what else the price data knows of its model.
fn entry(deployment: &Deployment, mut shown: Value, is_stored: bool) -> Entry {
    if let Some(info) = shown.get_mut("model_info").and_then(Value::as_object_mut) {
        info.insert("db_model".to_owned(), json!(is_stored));
        // With prices of its own, those of the list are not its prices.
        let is_price = |name: &str| name.contains("cost_per_") || name.ends_with("_cost");
        let base = deployment.base_model.as_deref();
        for (name, value) in prices::facts(&deployment.litellm_model, deployment.brand.name, base) {
            if deployment.prices.is_empty() || !is_price(&name) {
                info.entry(name).or_insert(value);
            }
        }
    }
    Entry {
        group: deployment.group.clone(),
        shown,
        brand: deployment.brand.name,
        params: supported_params(deployment.accepts_of(&deployment.model)),
        tpm: deployment.tpm,
        rpm: deployment.rpm,
    }
}

/// A group: the most that one of its deployments can do, the sum of what they let through.
fn group(name: &str, members: &[Entry]) -> Value {
    let providers: BTreeSet<&str> = members.iter().map(|entry| entry.brand).collect();
    let mut group =
        Map::from_iter([("model_group".to_owned(), json!(name)), ("providers".to_owned(), json!(providers))]);
    for field in ["max_input_tokens", "max_output_tokens", "input_cost_per_token", "output_cost_per_token"] {
        let largest = members
            .iter()
            .filter_map(|entry| entry.info(field))
            .max_by(|a, b| a.as_f64().unwrap_or_default().total_cmp(&b.as_f64().unwrap_or_default()));
        group.insert(field.to_owned(), json!(largest));
    }
    let mode = members.iter().find_map(|entry| entry.info("mode")).cloned();
    group.insert("mode".to_owned(), mode.unwrap_or_else(|| json!("chat")));
    let sum = |of: fn(&Entry) -> Option<u64>| members.iter().filter_map(of).reduce(u64::saturating_add);
    group.insert("tpm".to_owned(), json!(sum(|entry| entry.tpm)));
    group.insert("rpm".to_owned(), json!(sum(|entry| entry.rpm)));
    for field in [
        "supports_parallel_function_calling",
        "supports_vision",
        "supports_web_search",
        "supports_reasoning",
        "supports_function_calling",
    ] {
        let any = members.iter().any(|entry| entry.info(field) == Some(&Value::Bool(true)));
        group.insert(field.to_owned(), json!(any));
    }
    let mut params: Vec<&str> = Vec::new();
    for param in members.iter().flat_map(|entry| &entry.params) {
        if !params.contains(param) {
            params.push(param);
        }
    }
    group.insert("supported_openai_params".to_owned(), json!(params));
    group.insert("configurable_clientside_auth_params".to_owned(), Value::Null);
    Value::Object(group)
}
