//! The way from a document to its meaning: the one place where the command asks `core::config`.

use std::env;

use super::Failure;
use crate::core::config::{self, Config, seal};

/// A document that can serve.
#[derive(Debug)]
pub struct Checked {
    /// What it means.
    pub config: Config,
    /// A verdict for every setting, as a table.
    pub report: String,
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

fn load(
    document: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    unseal: &dyn Fn(&str) -> Option<String>,
) -> Result<Checked, Failure> {
    match config::load(document, variable, unseal) {
        Ok(loaded) => Ok(Checked { config: loaded.config, report: loaded.report.table() }),
        Err(problems) => Err(Failure::Configuration(problems.iter().map(ToString::to_string).collect())),
    }
}
