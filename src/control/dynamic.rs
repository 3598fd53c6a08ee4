//! Models that were added through the API, as part of the configuration document.

use std::{collections::HashSet, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use serde_yaml::Value as Yaml;

use super::document::Document;
use crate::core::config::{self, Config};

/// A model that is kept in the database, as an entry of `model_list` has it.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoredModel {
    /// The group it belongs to.
    pub model_name: String,
    /// Its parameters. They hold keys.
    pub litellm_params: Map<String, Value>,
    /// `model_info`, with its `id`.
    pub model_info: Map<String, Value>,
}

/// All of them, as the ledger tells them (`GET /internal/models`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoredModels {
    /// Revision of the ledger at which one of them changed last; 0 when none ever did.
    pub revision: u64,
    /// In the order in which they were added.
    pub models: Vec<StoredModel>,
}

/// Without the parameters, which hold keys.
impl fmt::Debug for StoredModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredModel").field("model_name", &self.model_name).field("id", &self.id()).finish()
    }
}

impl StoredModel {
    /// `model_info.id`.
    pub fn id(&self) -> &str {
        self.model_info.get("id").and_then(Value::as_str).unwrap_or_default()
    }

    /// The entry for `model_list`.
    pub fn entry(&self) -> Value {
        let mut info = self.model_info.clone();
        info.insert("db_model".to_owned(), json!(true));
        json!({"model_name": self.model_name, "litellm_params": self.litellm_params, "model_info": info})
    }

    /// Whether the loader takes it, beside `settings`; else what has to change.
    pub fn check(&self, settings: &Yaml, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, String> {
        let config = load(settings, std::slice::from_ref(self), env)?;
        match config.unavailable.values().next() {
            // A gateway may have variables that its ledger does not have.
            Some(reason) if self.missing_variables(settings, env).is_empty() => {
                Err(format!("it cannot be called: {reason}"))
            }
            _ => Ok(config),
        }
    }

    /// Environment variables that its parameters refer to (`os.environ/NAME`) and that nobody knows: neither `settings` (in
    /// `environment_variables`) nor the environment. Each once.
    pub fn missing_variables(&self, settings: &Yaml, env: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
        let own = settings.get("environment_variables");
        let mut names = Vec::new();
        self.litellm_params.values().for_each(|value| references(value, &mut names));
        names.retain(|name| {
            own.and_then(|own| own.get(name)).is_none() && env(name).is_none_or(|value| value.is_empty())
        });
        names
    }
}

/// Variables that hold what is the gateway's own, by the beginning of their names, in capitals: its keys, its databases (`PG…` are
/// those of every Postgres client), where it sends alerts, and the accounts of people that LiteLLM has in its environment.
const OWN: [&str; 14] = [
    "TOLLGATE_",
    "LITELLM_",
    "DATABASE_",
    "DIRECT_URL",
    "REDIS_",
    "PGPASS",
    "PGUSER",
    "PGHOST",
    "PGSSL",
    "SMTP_",
    "UI_",
    "MICROSOFT_CLIENT",
    "GOOGLE_CLIENT",
    "GENERIC_CLIENT",
];
/// The same by the end of their names.
const OWN_ENDS: [&str; 3] = ["SALT_KEY", "MASTER_KEY", "WEBHOOK_URL"];

/// The first variable of the gateway's own that a model from outside names, in whatever spelling and however deep: what it holds
/// would be sent to an address of the model's choice. What `general_settings`, `router_settings` and the cache read is the gateway's own too.
pub fn own_variable(model: &StoredModel, settings: &Yaml) -> Option<String> {
    let mut own = Vec::new();
    let cache = settings.get("litellm_settings").and_then(|section| section.get("cache_params"));
    for section in [settings.get("general_settings"), settings.get("router_settings"), cache] {
        let section = section.and_then(|section| serde_json::to_value(section).ok());
        section.iter().for_each(|section| references(section, &mut own));
    }
    let is_own = |name: &str| {
        let plain = name.trim().to_ascii_uppercase();
        OWN.iter().any(|start| plain.starts_with(start))
            || OWN_ENDS.iter().any(|end| plain.ends_with(end))
            || own.iter().any(|own| own.eq_ignore_ascii_case(name.trim()))
    };
    let variables = settings.get("environment_variables").and_then(|all| serde_json::to_value(all).ok());
    // A variable of the file may stand for one of the gateway's own.
    let stands_for_own = |name: &str| {
        let mut meant = Vec::new();
        let value = variables.as_ref().and_then(|all| all.get(name.trim()));
        value.iter().for_each(|value| references(value, &mut meant));
        meant.iter().any(|name| is_own(name))
    };
    let mut named = Vec::new();
    for part in [&model.litellm_params, &model.model_info] {
        references(&Value::Object(part.clone()), &mut named);
    }
    references(&Value::from(model.model_name.as_str()), &mut named);
    named.into_iter().find(|name| is_own(name) || stands_for_own(name))
}

/// Why a model may not name a variable.
pub fn names_own(name: &str) -> String {
    format!(
        "it names `{name}`, which is the gateway's own secret: a model of the API may name variables of providers only \
         (os.environ/OPENAI_API_KEY and the like)"
    )
}

/// Names behind `os.environ/`, each once.
fn references(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            for rest in text.split("os.environ/").skip(1) {
                let rest = rest.trim_start();
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                let name = rest.get(..end).unwrap_or_default();
                if !name.is_empty() && !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, names)),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            references(&Value::from(name.as_str()), names);
            references(value, names);
        }),
        _ => {}
    }
}

/// What a document says besides its models: variables, credentials and defaults that models refer to.
pub fn settings(document: &Document) -> Yaml {
    let mut settings = document.value.clone();
    if let Yaml::Mapping(members) = &mut settings {
        members.remove("model_list");
    }
    settings
}

/// What models mean beside `settings`. The error is the loader's, all problems together.
pub fn load(
    settings: &Yaml,
    models: &[StoredModel],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, String> {
    if let Some(name) = models.iter().find_map(|model| own_variable(model, settings)) {
        return Err(names_own(&name));
    }
    let not_yaml = |error: serde_yaml::Error| format!("it cannot be written as YAML: {error}");
    // The loader leaves such an entry of a file out; who adds a model is there to hear of it.
    if models.iter().any(|model| model.litellm_params.get("model").is_none_or(Value::is_null)) {
        return Err("`litellm_params.model`: expected a text; every model needs one".to_owned());
    }
    let entries: Vec<Value> = models.iter().map(StoredModel::entry).collect();
    let mut whole = settings.as_mapping().cloned().unwrap_or_default();
    whole.insert("model_list".into(), serde_yaml::to_value(entries).map_err(not_yaml)?);
    let document = config::quoted_texts(&serde_yaml::to_string(&whole).map_err(not_yaml)?);
    let loaded = config::load(&document, env, &|_| None).map_err(|problems| {
        let told = problems.into_iter().map(|mut problem| {
            // Its author has seen neither the list nor its lines.
            problem.line = None;
            if let Some((_, rest)) = problem.setting.split_once("].") {
                problem.setting = rest.to_owned();
            }
            problem.to_string()
        });
        told.collect::<Vec<_>>().join("; ")
    })?;
    Ok(loaded.config)
}

/// The document with the models behind its own, and why some were left out: a model that the loader does not take, or whose
/// id is there already, must not keep the others from being served. Without models it is the document itself.
pub fn merged(
    document: &Document,
    models: &[StoredModel],
    env: &dyn Fn(&str) -> Option<String>,
) -> (Document, Vec<String>) {
    let mut merged = document.clone();
    let mut left_out = Vec::new();
    let mut ids = own_ids(document);
    let settings = settings(document);
    let mut entries = Vec::new();
    for model in models {
        let id = model.id().to_owned();
        let name = &model.model_name;
        if !ids.insert(id.clone()) {
            left_out.push(format!("model `{name}` of the database: its id `{id}` is used by another model"));
            continue;
        }
        // One that cannot be called here is the loader's to report, as it does for the file's own.
        match load(&settings, std::slice::from_ref(model), env)
            .and_then(|_| serde_yaml::to_value(model.entry()).map_err(|error| error.to_string()))
        {
            Ok(entry) => entries.push(entry),
            Err(why) => left_out.push(format!("model `{name}` of the database (id `{id}`): {why}")),
        }
    }
    if entries.is_empty() {
        return (merged, left_out);
    }
    if let Yaml::Mapping(settings) = &mut merged.value {
        match settings.get_mut("model_list") {
            Some(Yaml::Sequence(list)) => list.extend(entries),
            // A list that is no list is for the loader to refuse.
            Some(other) if !other.is_null() => {}
            _ => {
                settings.insert("model_list".into(), Yaml::Sequence(entries));
            }
        }
    }
    // Line numbers of the file mean nothing any more.
    merged.text = None;
    (merged, left_out)
}

/// Ids that the document's own entries have.
fn own_ids(document: &Document) -> HashSet<String> {
    let list = document.value.get("model_list").and_then(Yaml::as_sequence);
    let ids = list.into_iter().flatten().filter_map(|entry| entry.get("model_info")?.get("id"));
    ids.filter_map(|id| match id {
        Yaml::String(text) => Some(text.clone()),
        Yaml::Number(number) => Some(number.to_string()),
        _ => None,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config::seal;

    fn document(text: &str) -> Document {
        Document {
            value: serde_yaml::from_str(text).unwrap(),
            files: Vec::new(),
            text: Some(text.to_owned()),
            remarks: Vec::new(),
        }
    }

    fn model(name: &str, id: &str, params: Value) -> StoredModel {
        let map = |value: Value| value.as_object().unwrap().clone();
        StoredModel {
            model_name: name.to_owned(),
            litellm_params: map(params),
            model_info: map(json!({"id": id})),
        }
    }

    const OWN: &str =
        "model_list:\n- model_name: a\n  litellm_params: {model: openai/a}\n  model_info: {id: one}\n";

    #[test]
    fn models_come_behind_the_documents_own() {
        let params = json!({"model": "openai/b", "api_key": "sk-secret-of-b", "rpm": 5});
        let models = [model("b", "two", params.clone()), model("a", "three", params)];
        let (merged, left_out) = merged(&document(OWN), &models, &|_| None);
        assert_eq!(left_out, [""; 0]);
        let text = merged.sealed(&[1; 32]).unwrap();
        assert!(!text.contains("sk-secret-of-b"), "{text}");
        let config = config::load(&text, &|_| None, &|sealed| seal::unseal(sealed, &[1; 32])).unwrap().config;
        let ids: Vec<&str> = config.deployments.iter().map(|d| d.id.as_str()).collect();
        assert_eq!(ids, ["one", "two", "three"]);
        assert_eq!(config.groups["a"], [0, 2]);
        assert_eq!(config.deployments[1].model_info["db_model"], true);
        assert_eq!(config.deployments[1].api_key.as_ref().unwrap().reveal(), "sk-secret-of-b");
        assert_eq!(config.deployments[1].rpm, Some(5));
    }

    #[test]
    fn a_document_without_models_gets_a_list() {
        for own in ["{}", "model_list:\n", "model_list: []\n"] {
            let (merged, _) =
                merged(&document(own), &[model("b", "x", json!({"model": "openai/b"}))], &|_| None);
            assert_eq!(merged.value.get("model_list").unwrap().as_sequence().unwrap().len(), 1, "{own}");
            assert!(!merged.origin().1);
        }
        let (same, _) = merged(&document(OWN), &[], &|_| None);
        assert_eq!(same, document(OWN));
    }

    #[test]
    fn a_bad_model_keeps_nobody_from_being_served() {
        let models = [
            model("b", "one", json!({"model": "openai/b"})),
            model("c", "c", json!({"model": "openai/c", "input_cost_per_token": "cheap"})),
            model("d", "d", json!({"model": "openai/d"})),
            model("d", "d", json!({"model": "openai/d"})),
            model("e", "e", json!({})),
        ];
        let (merged, left_out) = merged(&document(OWN), &models, &|_| None);
        assert_eq!(merged.value.get("model_list").unwrap().as_sequence().unwrap().len(), 2);
        assert_eq!(left_out.len(), 4, "{left_out:?}");
        for (line, says) in
            left_out.iter().zip(["`one`", "input_cost_per_token", "`d`", "litellm_params.model"])
        {
            assert!(line.contains(says) && line.contains("model `"), "{line}");
        }
    }

    #[test]
    fn a_model_is_checked_as_the_loader_does() {
        assert!(model("a", "a", json!({"model": "openai/a"})).check(&Yaml::Null, &|_| None).is_ok());
        for (params, says) in [
            (json!({}), "`litellm_params.model`: expected a text"),
            (json!({"model": "openai/a", "timeout": "soon"}), "`litellm_params.timeout`"),
            (json!({"model": "no-such-model"}), "LLM Provider NOT provided"),
            (json!({"model": "openai/a", "api_base": "nonsense"}), "api_base"),
        ] {
            let problem = model("a", "a", params).check(&Yaml::Null, &|_| None).unwrap_err();
            assert!(problem.contains(says) && !problem.contains("model_list"), "{problem}");
        }
        let shown = format!("{:?}", model("a", "b", json!({"model": "x", "api_key": "sk-1"})));
        assert!(!shown.contains("sk-1") && shown.contains("\"b\""), "{shown}");
    }
    #[test]
    fn a_model_may_refer_to_what_the_document_says() {
        let own = "environment_variables: {BASE: 'http://10.0.0.7/v1'}\n\
                   credential_list: [{credential_name: c, credential_values: {api_key: sk-c}}]\n";
        let params =
            json!({"model": "openai/a", "api_base": "os.environ/BASE", "litellm_credential_name": "c"});
        let stored = model("a", "a", params);
        // A gateway may have the variable. Without it no prompt goes to the provider's own address.
        let alone = stored.check(&Yaml::Null, &|_| None).unwrap();
        assert!(alone.deployments.is_empty() && alone.unavailable["a"].contains("BASE is not set"));
        let config = stored.check(&settings(&document(own)), &|_| None).unwrap();
        assert_eq!(config.deployments[0].endpoint.host, "10.0.0.7");
        assert_eq!(config.deployments[0].api_key.as_ref().unwrap().reveal(), "sk-c");
        assert!(config.general.master_key.is_none());
        let text = format!("{own}model_list: [{{model_name: x, litellm_params: {{model: openai/x}}}}]\n");
        let (merged, left_out) = merged(&document(&text), &[stored], &|_| None);
        assert_eq!(left_out, [""; 0]);
        assert_eq!(merged.value.get("model_list").unwrap().as_sequence().unwrap().len(), 2);
    }

    #[test]
    fn a_model_from_outside_reads_nothing_of_the_gateways_own() {
        let own = "general_settings: {master_key: os.environ/OUR_GATE, database_url: os.environ/OUR_DB}\n\
                   router_settings: {redis_password: os.environ/CACHE_PASS}\n\
                   litellm_settings: {cache_params: {password: os.environ/ANSWERS_PASS}}\n\
                   environment_variables: {HARMLESS: x, ALIAS: os.environ/LITELLM_MASTER_KEY}\n";
        let settings = settings(&document(own));
        let env = |name: &str| (!name.starts_with("OPENAI_")).then(|| "value".to_owned());
        let refused = [
            json!({"api_key": "os.environ/TOLLGATE_LEDGER_KEY"}),
            json!({"api_key": "os.environ/ TOLLGATE_SEAL_KEY "}),
            json!({"api_key": "os.environ/tollgate_ledger_key"}),
            json!({"api_key": "os.environ/LITELLM_SALT_KEY"}),
            json!({"api_key": "os.environ/MY_SALT_KEY"}),
            json!({"api_key": "os.environ/PROXY_MASTER_KEY"}),
            json!({"api_base": "os.environ/DATABASE_URL"}),
            json!({"api_key": "os.environ/DATABASE_PASSWORD"}),
            json!({"headers": {"x": ["a", {"b": "os.environ/LITELLM_MASTER_KEY"}]}}),
            json!({"extra_body": {"os.environ/TOLLGATE_SEAL_KEY": 1}}),
            json!({"api_key": "os.environ/OUR_GATE"}),
            json!({"api_key": "os.environ/OUR_DB"}),
            json!({"api_key": "os.environ/CACHE_PASS"}),
            json!({"api_key": "os.environ/ANSWERS_PASS"}),
            json!({"api_key": "os.environ/PGPASSWORD"}),
            json!({"api_base": "os.environ/SLACK_WEBHOOK_URL"}),
            json!({"api_base": "os.environ/WEBHOOK_URL"}),
            json!({"api_key": "os.environ/SMTP_PASSWORD"}),
            json!({"api_key": "os.environ/UI_PASSWORD"}),
            json!({"api_key": "os.environ/GOOGLE_CLIENT_SECRET"}),
            json!({"api_key": "os.environ/ALIAS"}),
            json!({"api_version": "os.environ/x os.environ/TOLLGATE_STATE"}),
        ];
        for mut params in refused {
            params["model"] = json!("openai/a");
            let why = model("a", "a", params.clone()).check(&settings, &env).unwrap_err();
            assert!(why.contains("the gateway's own secret"), "{params}: {why}");
            // Those that are stored already are not served.
            let (_, left_out) = merged(&document(own), &[model("a", "a", params.clone())], &env);
            assert_eq!(left_out.len(), 1, "{params}");
        }
        let mut info = model("a", "a", json!({"model": "openai/a"}));
        info.model_info.insert("note".to_owned(), json!("os.environ/LITELLM_MASTER_KEY"));
        assert!(info.check(&settings, &env).is_err());
        for params in
            [json!({"api_key": "os.environ/OPENAI_API_KEY"}), json!({"api_key": "os.environ/HARMLESS"})]
        {
            let mut params = params;
            params["model"] = json!("openai/a");
            assert_eq!(own_variable(&model("a", "a", params), &settings), None);
        }
    }

    #[test]
    fn a_models_own_address_gets_no_key_that_nobody_named_for_it() {
        let env = |name: &str| match name {
            "OPENAI_API_KEY" => Some("sk-environment".to_owned()),
            "AZURE_API_KEY" => Some("sk-azure".to_owned()),
            "AZURE_AD_TOKEN" => Some("ad-token".to_owned()),
            "OPENAI_ORGANIZATION" => Some("org-own".to_owned()),
            "OPENAI_API_BASE" => Some("http://proxy.internal:8080/v1".to_owned()),
            _ => None,
        };
        let defaults = "router_settings: {default_litellm_params: {api_key: sk-default, headers: {x-own: secret}, timeout: 7}}\n";
        let credential = "credential_list: [{credential_name: c, credential_values: {api_key: sk-c}}]\n";
        let theirs = "http://elsewhere.example/v1";
        // (settings, parameters, the key that is sent)
        let rows = [
            ("", json!({"model": "openai/a"}), Some("sk-environment")),
            (
                "",
                json!({"model": "openai/a", "api_base": "https://api.openai.com/v1"}),
                Some("sk-environment"),
            ),
            (
                "",
                json!({"model": "openai/a", "api_base": "http://proxy.internal:8080/other"}),
                Some("sk-environment"),
            ),
            ("", json!({"model": "openai/a", "api_base": theirs}), None),
            ("", json!({"model": "openai/a", "base_url": theirs}), None),
            ("", json!({"model": "a", "custom_llm_provider": "openai", "api_base": theirs}), None),
            ("", json!({"model": "openai/a", "api_base": "http://api.openai.com/v1"}), None),
            ("", json!({"model": "openai/a", "api_base": "https://api.openai.com.example/v1"}), None),
            ("", json!({"model": "openai/a", "api_base": "https://elsewhere.example/api.openai.com"}), None),
            ("", json!({"model": "azure/a", "api_base": "https://a.example"}), None),
            ("", json!({"model": "hosted_vllm/a", "api_base": theirs}), Some("fake-api-key")),
            ("", json!({"model": "openai/a", "api_base": theirs, "api_key": ""}), None),
            // Who names a key means it.
            ("", json!({"model": "openai/a", "api_base": theirs, "api_key": "sk-own"}), Some("sk-own")),
            (
                "",
                json!({"model": "openai/a", "api_base": theirs, "api_key": "os.environ/OPENAI_API_KEY"}),
                Some("sk-environment"),
            ),
            (
                credential,
                json!({"model": "openai/a", "api_base": theirs, "litellm_credential_name": "c"}),
                Some("sk-c"),
            ),
            (defaults, json!({"model": "openai/a"}), Some("sk-default")),
            (defaults, json!({"model": "openai/a", "api_base": theirs}), None),
        ];
        for (text, params, expected) in rows {
            let stored = model("a", "a", params.clone());
            let config = stored.check(&settings(&document(text)), &env).unwrap();
            let deployment = &config.deployments[0];
            let key = deployment.api_key.as_ref().map(|key| key.reveal());
            assert_eq!(key, expected, "{params}");
            if key.is_none() {
                assert!(deployment.azure_ad_token.is_none() && deployment.organization.is_none(), "{params}");
                assert!(deployment.headers.is_empty(), "{params}");
            }
            let timeout = if text == defaults { Some(7_000) } else { None };
            assert_eq!(deployment.timeout_ms, timeout, "{params}");
        }
        // A model of the file is its author's: as in LiteLLM.
        let file = format!(
            "model_list: [{{model_name: a, litellm_params: {{model: openai/a, api_base: '{theirs}'}}}}]"
        );
        let config = crate::core::config::load(&file, &env, &|_| None).unwrap().config;
        assert_eq!(config.deployments[0].api_key.as_ref().unwrap().reveal(), "sk-environment");
    }

    #[test]
    fn variables_that_nobody_knows_are_named() {
        let params = json!({
            "model": "openai/a", "api_key": "os.environ/NOBODYS", "api_base": "os.environ/OURS",
            "headers": {"x": "bearer os.environ/EMPTY, os.environ/NOBODYS"}, "list": [{"deep": "os.environ/THEIRS"}],
        });
        let env = |name: &str| match name {
            "OURS" => Some("x".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let settings = settings(&document("environment_variables: {THEIRS: y}\n"));
        assert_eq!(model("a", "a", params).missing_variables(&settings, &env), ["NOBODYS", "EMPTY"]);
        assert_eq!(model("a", "a", json!({"model": "openai/a"})).missing_variables(&settings, &env), [""; 0]);
    }
}
