//! The way from a document to its meaning: the one place where the command asks `core::config`.

use std::env;

use super::{Failure, document::Document};
use crate::core::config::{self, Config, Report, seal, settings::Verdict};

/// A document that can serve.
#[derive(Debug)]
pub struct Checked {
    /// What it means.
    pub config: Config,
    /// A verdict for every setting.
    pub report: Report,
}

impl Checked {
    /// What a person who starts the gateway should know about the settings, one line each: what is unknown, and how many
    /// settings do nothing yet. The whole list is `tollgate check`'s.
    pub fn remarks(&self) -> Vec<String> {
        let unknown = self.report.rows.iter().filter(|row| matches!(row.verdict, Verdict::Unknown { .. }));
        let mut remarks: Vec<String> = unknown
            .map(|row| match row.line {
                Some(line) => format!("line {line}: unknown setting `{}`{}", row.path, told(&row.note)),
                None => format!("unknown setting `{}`{}", row.path, told(&row.note)),
            })
            .collect();
        match self.report.count(|verdict| matches!(verdict, Verdict::NotYet(_))) {
            0 => {}
            count => remarks.push(format!("{count} settings have no effect yet: `tollgate check --config FILE` lists them")),
        }
        remarks
    }
}

fn told(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!(": {note}") }
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

fn load(
    document: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    unseal: &dyn Fn(&str) -> Option<String>,
) -> Result<Checked, Failure> {
    match config::load(document, variable, unseal) {
        Ok(loaded) => Ok(Checked { config: loaded.config, report: loaded.report }),
        Err(problems) => Err(Failure::Configuration(problems.iter().map(ToString::to_string).collect())),
    }
}
