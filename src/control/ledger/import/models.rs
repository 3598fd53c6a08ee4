//! Models and credentials that were made in LiteLLM: read with its salt key, written sealed with ours.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use serde_yaml::Value as Yaml;

use super::{Line, Options, Report, insert, secrets::SaltKey, source::Source, text};
use crate::{
    control::{
        dynamic::{self, StoredModel},
        ledger::{
            api::models::CHANGED,
            db::{DbError, Tx},
            rows::Record,
            schema::MODELS,
            seal::Sealer,
        },
    },
    core::config::Config,
};

const MODEL_TABLE: &str = "LiteLLM_ProxyModelTable";
const CREDENTIAL_TABLE: &str = "LiteLLM_CredentialsTable";
const CONFIG_TABLE: &str = "LiteLLM_Config";
const CREDENTIAL_NAME: &str = "litellm_credential_name";

/// Rows that are sealed and written at a time.
const AT_ONCE: usize = 500;

/// With what is read, and with what is written.
pub struct Keys {
    salt: Option<SaltKey>,
    /// Or why there is none.
    sealer: Result<Sealer, String>,
    /// What the configuration says besides its models, when it is known.
    settings: Yaml,
    /// `store_model_in_db`, when the configuration is known.
    are_served: Option<bool>,
}

impl Keys {
    #[cfg(test)]
    pub fn with(theirs: &str, ours: &str) -> Keys {
        Keys {
            salt: Some(SaltKey::new(theirs)),
            sealer: Ok(Sealer::from_salt(ours)),
            settings: Yaml::Null,
            are_served: None,
        }
    }

    /// LiteLLM's key is the one that was given, else what this gateway has, which is to have the same.
    pub fn of(options: &Options, config: Option<&Config>, settings: Yaml) -> Keys {
        let variable = |name: &str| std::env::var(name).ok().filter(|key| !key.is_empty());
        let configured = config.and_then(|config| config.general.master_key.as_ref());
        let master = configured.map(|key| key.reveal().to_owned()).or_else(|| variable("LITELLM_MASTER_KEY"));
        let theirs = options.salt_key.clone().filter(|key| !key.is_empty()).or_else(|| master.clone());
        let ours = variable("LITELLM_SALT_KEY").or(master);
        Keys {
            salt: theirs.as_deref().map(SaltKey::new),
            sealer: ours.as_deref().map(Sealer::from_salt).ok_or_else(|| {
                "set LITELLM_SALT_KEY, or LITELLM_MASTER_KEY, as the gateway has it: models are kept encrypted".to_owned()
            }),
            settings,
            are_served: config.map(|config| config.ledger.store_model_in_db),
        }
    }
}

/// Takes over models, with the credentials that they name put in.
pub async fn import(
    source: &mut Source,
    tx: &mut Tx,
    keys: &Keys,
    report: &mut Report,
) -> Result<(), DbError> {
    let Some(mut pages) = source.table(MODEL_TABLE).await? else { return Ok(()) };
    let credentials = credentials(source, keys, report).await?;
    let mut line = Line { what: "models", found: 0, imported: 0, skipped: 0 };
    while let Some(found) = source.page(&mut pages, &["model_id"]).await? {
        line.found += found.len();
        for part in found.chunks(AT_ONCE) {
            let mut kept = Vec::new();
            for row in part {
                match model(row, keys, &credentials) {
                    Ok(row) => kept.push(row),
                    Err(why) => {
                        line.skipped += 1;
                        report.notes.push(format!(
                            "models: `{}` (id `{}`) is not taken over: {why}.",
                            text(row, "model_name"),
                            text(row, "model_id")
                        ));
                    }
                }
            }
            line.imported += insert(tx, &MODELS, &kept).await?.len();
        }
    }
    if line.imported > 0 {
        tx.record_changed(CHANGED);
        if keys.are_served != Some(true) {
            report.notes.push(
                "models: they are served where `general_settings.store_model_in_db` is true, with the salt key they were \
                 written with."
                    .to_owned(),
            );
        }
    }
    report.lines.push(line);
    Ok(())
}

/// Credentials by name, their values in the clear.
async fn credentials(
    source: &mut Source,
    keys: &Keys,
    report: &mut Report,
) -> Result<BTreeMap<String, Map<String, Value>>, DbError> {
    let mut found = BTreeMap::new();
    let Some(mut pages) = source.table(CREDENTIAL_TABLE).await? else { return Ok(found) };
    while let Some(rows) = source.page(&mut pages, &["credential_name"]).await? {
        for row in rows {
            let values = object(row.get("credential_values")).unwrap_or_default();
            match keys.salt.as_ref().and_then(|salt| salt.members(&values)) {
                Some(values) => {
                    found.insert(text(&row, "credential_name").to_owned(), values);
                }
                None => {
                    report.notes.push(format!(
                        "credentials: `{}` cannot be read: give the salt key that it was written with (--salt_key).",
                        text(&row, "credential_name")
                    ));
                }
            }
        }
    }
    if !found.is_empty() {
        report.notes.push(format!(
            "credentials: {} found; their values stand in the models that name them, for others write them into \
             `credential_list`.",
            found.len()
        ));
    }
    Ok(found)
}

/// A row as it is kept here.
fn model(
    row: &Record,
    keys: &Keys,
    credentials: &BTreeMap<String, Map<String, Value>>,
) -> Result<Record, String> {
    let sealer = keys.sealer.as_ref().map_err(Clone::clone)?;
    let stored = object(row.get("litellm_params")).ok_or("its parameters are no object")?;
    let salt = keys.salt.as_ref().ok_or("give LiteLLM's salt key (--salt_key)")?;
    let mut params =
        salt.members(&stored).ok_or("it was encrypted with another key: give that one (--salt_key)")?;
    if let Some(Value::String(name)) = params.get(CREDENTIAL_NAME).cloned() {
        // One that is unknown here may stand in the `credential_list` of the configuration.
        if let Some(values) = credentials.get(&name) {
            params.remove(CREDENTIAL_NAME);
            for (name, value) in values {
                params.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    let sealed = sealer.seal(&Value::Object(params.clone()).to_string())?;
    let mut info = object(row.get("model_info")).unwrap_or_default();
    let name = text(row, "model_name").to_owned();
    let model = StoredModel { model_name: name, litellm_params: params, model_info: info.clone() };
    if let Some(name) = dynamic::own_variable(&model, &keys.settings) {
        return Err(dynamic::names_own(&name));
    }
    let id = text(row, "model_id");
    if id.is_empty() || text(row, "model_name").is_empty() {
        return Err("it has no id or no name".to_owned());
    }
    info.insert("id".to_owned(), json!(id));
    let mut kept = row.clone();
    kept.insert("litellm_params".to_owned(), json!(sealed));
    kept.insert("model_info".to_owned(), Value::Object(info));
    Ok(kept)
}

/// An object, or the text of one: versions of LiteLLM differ.
fn object(value: Option<&Value>) -> Option<Map<String, Value>> {
    match value? {
        Value::Object(members) => Some(members.clone()),
        Value::String(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

/// Names what is there and has no place here.
pub async fn skipped(source: &mut Source, report: &mut Report) -> Result<(), DbError> {
    let Some(mut pages) = source.table(CONFIG_TABLE).await? else { return Ok(()) };
    let mut names = Vec::new();
    while let Some(rows) = source.page(&mut pages, &["param_name"]).await? {
        names.extend(rows.iter().map(|row| format!("`{}`", text(row, "param_name"))));
    }
    if !names.is_empty() {
        report.notes.push(format!(
            "settings saved in LiteLLM's user interface ({CONFIG_TABLE}: {}) are not taken over: write them into config.yaml.",
            names.join(", ")
        ));
    }
    Ok(())
}
