//! `GET /models`: the models of a caller, by LiteLLM's query parameters.

use serde_json::{Value, json};

use super::{Reply, local};
use crate::core::{
    access::{Caller, models},
    config::Config,
    operation::path::parameter,
};

/// What `include_metadata` may tell the fallbacks of.
const FALLBACK_TYPES: [&str; 3] = ["general", "context_window", "content_policy"];

/// Answers `query`, what stands behind the path's `?`.
pub fn answer(query: &str, caller: &Caller, config: &Config) -> Reply {
    match list(query, caller, config) {
        Ok(data) => local::body(&json!({"data": data, "object": "list"})),
        Err((status, detail)) => Reply { status, ..local::body(&json!({"detail": detail})) },
    }
}

fn list(query: &str, caller: &Caller, config: &Config) -> Result<Vec<Value>, (u16, Value)> {
    let flag = |name: &str| flag(query, name);
    let unexpanded = flag("return_wildcard_routes")?;
    let with_groups = flag("include_model_access_groups")?;
    let only_groups = flag("only_model_access_groups")?;
    let with_metadata = flag("include_metadata")?;
    let team = parameter(query, "team_id").filter(|team| !team.is_empty());
    let own = caller.grant().and_then(|grant| grant.team_id());
    if let Some(team) = team.filter(|team| own != Some(team.as_ref())) {
        let message = format!(
            "`team_id`: the models of the team {team} are listed for keys of that team only. Ask with one, or see /team/info."
        );
        return Err((400, json!({"error": message})));
    }
    let kind = parameter(query, "fallback_type").filter(|_| with_metadata);
    let kind = kind.as_deref().unwrap_or("general");
    if !FALLBACK_TYPES.contains(&kind) {
        let message =
            "Invalid fallback_type. Must be one of: ['general', 'context_window', 'content_policy']";
        return Err((400, json!(message)));
    }
    let mut names = if only_groups { Vec::new() } else { models::listed(caller, config, unexpanded) };
    if with_groups || only_groups {
        names.extend(models::access_groups(caller, config));
    }
    let shown = |name: &String| {
        let mut shown = local::model(name);
        if let Some(shown) = shown.as_object_mut().filter(|_| with_metadata) {
            shown.insert("metadata".to_owned(), json!({"fallbacks": fallbacks(name, kind, config)}));
        }
        shown
    };
    Ok(names.iter().map(shown).collect())
}

/// A flag, as LiteLLM's server reads it.
fn flag(query: &str, name: &str) -> Result<bool, (u16, Value)> {
    let Some(text) = parameter(query, name) else { return Ok(false) };
    let is_one_of = |words: [&str; 6]| words.iter().any(|word| word.eq_ignore_ascii_case(&text));
    if is_one_of(["true", "1", "yes", "on", "y", "t"]) {
        return Ok(true);
    }
    if is_one_of(["false", "0", "no", "off", "n", "f"]) {
        return Ok(false);
    }
    let message = "Input should be a valid boolean, unable to interpret input";
    Err((422, json!([{"type": "bool_parsing", "loc": ["query", name], "msg": message, "input": text}])))
}

/// The names of a model's fallbacks of one kind.
fn fallbacks<'c>(name: &str, kind: &str, config: &'c Config) -> Vec<&'c str> {
    let router = &config.router;
    let found = match kind {
        "context_window" => router.context_window_fallbacks.as_ref().and_then(|map| map.get(name)),
        "content_policy" => router.content_policy_fallbacks.as_ref().and_then(|map| map.get(name)),
        _ => router.fallbacks.get(name).or_else(|| router.fallbacks.get("*")),
    };
    found.into_iter().flatten().map(|fallback| fallback.model.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        config,
        model::key_record::{KeyRecord, Principal},
    };

    const MODELS: &str = "
model_list:
- {model_name: a, litellm_params: {model: openai/a, api_key: k}, model_info: {access_groups: [beta, inner]}}
- {model_name: b, litellm_params: {model: openai/b, api_key: k}, model_info: {access_groups: [beta]}}
- {model_name: c, litellm_params: {model: openai/c, api_key: k}}
router_settings:
  fallbacks: [{a: [b, c]}, {'*': [c]}]
  context_window_fallbacks: [{a: [c]}]
";

    fn asked(query: &str, caller: &Caller) -> (u16, Value) {
        let config = config::load(MODELS, &|_| None, &|_| None).unwrap().config;
        let reply = answer(query, caller, &config);
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }

    fn ids(query: &str, caller: &Caller) -> Vec<String> {
        let (status, body) = asked(query, caller);
        assert_eq!(status, 200, "{query}: {body}");
        body["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect()
    }

    fn key(models: &[&str]) -> Caller {
        let mut grant = KeyRecord::default();
        grant.key.models = models.iter().map(|model| (*model).to_owned()).collect();
        Caller::Key(grant.into())
    }

    #[test]
    fn access_groups_are_listed_when_asked_for() {
        let rows: &[(&str, Caller, &[&str])] = &[
            ("", Caller::Master, &["a", "b", "c"]),
            ("include_model_access_groups=false", Caller::Master, &["a", "b", "c"]),
            ("include_model_access_groups=true", Caller::Master, &["a", "b", "c", "beta", "inner"]),
            ("only_model_access_groups=True", Caller::Master, &["beta", "inner"]),
            ("only_model_access_groups=1", key(&["beta"]), &["beta"]),
            ("include_model_access_groups=1", key(&["beta"]), &["a", "b", "beta"]),
            ("include_model_access_groups=1", key(&["a"]), &["a"]),
            ("only_model_access_groups=1", key(&[]), &["beta", "inner"]),
        ];
        for (query, caller, expected) in rows {
            assert_eq!(ids(query, caller), *expected, "{query}");
        }
    }

    #[test]
    fn metadata_tells_fallbacks() {
        let fallbacks =
            |query: &str, at: usize| asked(query, &Caller::Master).1["data"][at]["metadata"].clone();
        for (query, at, expected) in [
            ("include_metadata=true", 0, json!({"fallbacks": ["b", "c"]})),
            ("include_metadata=true", 1, json!({"fallbacks": ["c"]})),
            ("include_metadata=true&fallback_type=context_window", 0, json!({"fallbacks": ["c"]})),
            ("include_metadata=true&fallback_type=content_policy", 0, json!({"fallbacks": []})),
            ("fallback_type=nonsense", 0, Value::Null),
        ] {
            assert_eq!(fallbacks(query, at), expected, "{query}");
        }
        let (status, body) = asked("include_metadata=true&fallback_type=nonsense", &Caller::Master);
        let message =
            "Invalid fallback_type. Must be one of: ['general', 'context_window', 'content_policy']";
        assert_eq!((status, body), (400, json!({"detail": message})));
    }

    #[test]
    fn what_cannot_be_answered_is_refused() {
        let (status, body) = asked("include_metadata=maybe", &Caller::Master);
        assert_eq!((status, &body["detail"][0]["loc"]), (422, &json!(["query", "include_metadata"])));
        let team = Principal { id: "t 1".to_owned(), ..Principal::default() };
        let grant = KeyRecord { team: Some(Box::new(team)), ..KeyRecord::default() };
        let of_team = Caller::Key(grant.into());
        assert_eq!(ids("team_id=t%201", &of_team), ["a", "b", "c"]);
        assert_eq!(ids("team_id=", &Caller::Master), ["a", "b", "c"]);
        for (caller, query) in [(&of_team, "team_id=other"), (&Caller::Master, "team_id=t%201")] {
            let (status, body) = asked(query, caller);
            assert_eq!(status, 400, "{query}");
            assert!(body["detail"]["error"].as_str().unwrap().starts_with("`team_id`: "), "{body}");
        }
    }
}
