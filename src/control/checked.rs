//! The way from a document to its meaning: the one place where the command asks `core::config`.

use std::env;

use super::{Failure, document::Document, sample};
use crate::core::config::{Config, seal};

/// A document that can serve.
#[derive(Debug)]
pub struct Checked {
    /// What it means.
    pub config: Config,
    /// A verdict for every setting, as a table.
    pub report: String,
}

impl Checked {
    /// What a person who starts the gateway should know about the settings, one line each.
    pub fn remarks(&self) -> Vec<String> {
        self.report.lines().map(str::to_owned).collect()
    }
}

/// Checks a document as its author wrote it. Problems name the file, and the line when the text is the file's own.
pub fn check_document(document: &Document) -> Result<Checked, Failure> {
    check(&document.readable()?, None).map_err(|failure| match (failure, document.origin()) {
        (Failure::Configuration(problems), (Some(file), _)) => Failure::Configuration(
            problems.iter().map(|problem| format!("{}: {problem}", file.display())).collect(),
        ),
        (failure, _) => failure,
    })
}

/// Checks `document` against the environment of this process. `key` opens sealed values.
pub fn check(document: &str, key: Option<&seal::Key>) -> Result<Checked, Failure> {
    check_with(document, key, &|name| env::var(name).ok())
}

/// Checks `document` against the environment `variable`.
pub fn check_with(
    document: &str,
    key: Option<&seal::Key>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Checked, Failure> {
    let unseal = |text: &str| seal::unseal(text, key?);
    load(document, variable, &unseal)
}

/// Until `core::config::load` is merged: groups and base URLs only.
fn load(
    document: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    unseal: &dyn Fn(&str) -> Option<String>,
) -> Result<Checked, Failure> {
    let value: serde_yaml::Value =
        serde_yaml::from_str(document).map_err(|error| Failure::configuration(error.to_string()))?;
    let models = value.get("model_list").and_then(|list| list.as_sequence()).cloned().unwrap_or_default();
    let models: Vec<(String, String)> = models
        .iter()
        .map(|model| {
            let base = model.get("litellm_params").and_then(|params| params.get("api_base")?.as_str());
            let base = base.and_then(|base| match base.strip_prefix("os.environ/") {
                Some(name) => variable(name),
                None => unseal(base).or_else(|| Some(base.to_owned())),
            });
            let verify = model.get("litellm_params").and_then(|params| params.get("ssl_verify")?.as_bool());
            let base = base.map(|base| if verify == Some(false) { format!("!{base}") } else { base });
            let name = model.get("model_name").and_then(|name| name.as_str()).unwrap_or_default();
            (name.to_owned(), base.unwrap_or_else(|| "https://api.openai.com".to_owned()))
        })
        .collect();
    if models.is_empty() {
        return Err(Failure::configuration("`model_list` is empty: expected at least one model"));
    }
    let models: Vec<(&str, &str)> =
        models.iter().map(|(name, base)| (name.as_str(), base.as_str())).collect();
    Ok(Checked { config: sample::config(&models), report: String::new() })
}
