//! The way from a document to its meaning: the one place where the command asks `core::config`.

use std::{env, sync::Arc};

use super::{Failure, document::Document, ledger::rates::redis::Redis};
use crate::core::config::{self, Config, LEFT_OUT, Problem, Report, seal, settings::Verdict};

/// A document that can serve.
#[derive(Debug)]
pub struct Checked {
    /// What it means.
    pub config: Config,
    /// A verdict for every setting.
    pub report: Report,
}

impl Checked {
    /// What a person who starts the gateway should know about the settings, one line each.
    pub fn remarks(&self) -> Vec<String> {
        let unknown = self.report.rows.iter().filter(|row| matches!(row.verdict, Verdict::Unknown { .. }));
        let mut remarks: Vec<String> = unknown
            .map(|row| {
                let line = row.line.map(|line| format!(" (line {line})")).unwrap_or_default();
                format!("unknown setting `{}`{line} {}", row.path, row.note).trim_end().to_owned()
            })
            .collect();
        let left_out = self.report.rows.iter().filter(|row| row.note.ends_with(LEFT_OUT));
        remarks.extend(left_out.map(|row| {
            let line = row.line.map(|line| format!(" (line {line})")).unwrap_or_default();
            format!("`{}`{line}: {}", row.path, row.note)
        }));
        let waiting = self.report.count(|verdict| matches!(verdict, Verdict::NotYet(_)));
        if waiting > 0 {
            remarks.push(format!("{waiting} settings have no effect yet: `tollgate check` lists them"));
        }
        remarks
    }
}

/// Refuses a reload that takes the master key away: half a file, or one with an empty variable, must not open a gateway to
/// everybody while it runs.
pub fn stays_closed(was_open: bool, new: &Config) -> Result<(), Failure> {
    if was_open || new.general.master_key.is_some() {
        return Ok(());
    }
    Err(Failure::configuration(
        "`general_settings.master_key` is gone: without one everybody could call every model and manage every key. Put it \
         back, or restart to serve without a key",
    ))
}

/// Checks a document as its author wrote it. Problems name the file, and the line when the text is the file's own.
pub fn check_document(document: &Document) -> Result<Checked, Failure> {
    let (file, own_text) = document.origin();
    load(&document.readable()?, None, &from_process).map_err(|problems| {
        let told = problems.into_iter().map(|mut problem| {
            if !own_text {
                problem.line = None;
            }
            match file {
                Some(file) => format!("{}: {problem}", file.display()),
                None => problem.to_string(),
            }
        });
        Failure::Configuration(told.collect())
    })
}

/// Checks `document` against the environment of this process. `key` opens sealed values.
pub fn check(document: &str, key: Option<&seal::Key>) -> Result<Checked, Failure> {
    load(document, key, &from_process).map_err(|problems| told(&problems))
}

/// Checks `document` against the environment `variable`.
pub fn check_with(
    document: &str,
    key: Option<&seal::Key>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Checked, Failure> {
    load(document, key, variable).map_err(|problems| told(&problems))
}

fn load(
    document: &str,
    key: Option<&seal::Key>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Checked, Vec<Problem>> {
    let loaded = config::load(document, variable, &|text| seal::unseal(text, key?))?;
    let config = &loaded.config;
    if let Some(Err(why)) = config.ledger.redis.as_ref().map(|setting| Redis::at(setting, Arc::new(|_| {}))) {
        return Err(vec![Problem {
            line: None,
            setting: "router_settings.redis_url".to_owned(),
            expected: "expected the URL of a Redis (here or in REDIS_URL)".to_owned(),
            fix: why.to_owned(),
        }]);
    }
    // With `store_model_in_db` models may come later.
    if config.deployments.is_empty() && config.unavailable.is_empty() && !config.ledger.store_model_in_db {
        return Err(vec![Problem {
            line: None,
            setting: "model_list".to_owned(),
            expected: "expected at least one model".to_owned(),
            fix: "add an entry with `model_name` and `litellm_params.model`, or start with `--model`"
                .to_owned(),
        }]);
    }
    Ok(Checked { config: loaded.config, report: loaded.report })
}

fn from_process(name: &str) -> Option<String> {
    env::var(name).ok()
}

fn told(problems: &[Problem]) -> Failure {
    Failure::Configuration(problems.iter().map(Problem::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_does_not_open_what_was_closed() {
        let model = "model_list: [{model_name: a, litellm_params: {model: openai/a, api_key: k}}]";
        let config = |more: &str| check_with(&format!("{model}\n{more}"), None, &|_| None).unwrap().config;
        let (open, closed) = (config(""), config("general_settings: {master_key: sk-1}"));
        let unset = config("general_settings: {master_key: os.environ/NOBODY}");
        let refused = stays_closed(false, &open).unwrap_err();
        assert!(matches!(refused, Failure::Configuration(_)));
        assert!(refused.to_string().contains("restart to serve without a key"), "{refused}");
        for (was_open, new) in [(true, &open), (true, &closed), (false, &closed), (false, &unset)] {
            assert_eq!(stays_closed(was_open, new), Ok(()));
        }
    }

    #[test]
    fn an_address_of_a_redis_that_is_none_is_refused_without_showing_it() {
        let check = |url: &str| {
            let model = "model_list: [{model_name: a, litellm_params: {model: openai/a, api_key: k}}]";
            check_with(&format!("{model}\nrouter_settings: {{redis_url: '{url}'}}"), None, &|_| None)
        };
        for good in ["redis://:hidden@h", "valkeys://u:hidden@h:1/2", "unix:///run/redis.sock"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["redis://:hidden@h:port", "redis://:hidden@h/first", "http://:hidden@h"] {
            let told = check(bad).unwrap_err().to_string();
            assert!(told.contains("`router_settings.redis_url`"), "{told}");
            assert!(told.contains("write `redis://") && !told.contains("hidden"), "{told}");
        }
    }
}
