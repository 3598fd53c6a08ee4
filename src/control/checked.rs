//! The way from a document to its meaning: the one place where the command asks `core::config`.

use std::{env, sync::Arc};

use super::{Failure, document::Document, ledger::rates::redis::Redis};
use crate::core::config::{
    self, Config, ENVIRONMENT, LEFT_OUT, Problem, Report, ReportRow, seal, settings::Verdict,
};

/// A document and what it means.
#[derive(Debug)]
pub struct Checked {
    /// What it means.
    pub config: Config,
    /// A verdict for every setting.
    pub report: Report,
}

/// Whether something is not done that the author of a setting wants.
pub fn is_problem(row: &ReportRow) -> bool {
    match row.verdict {
        Verdict::Unknown { .. } | Verdict::Missing(_) | Verdict::NotYet(_) => true,
        Verdict::Ignored(_) => row.note.ends_with(LEFT_OUT) || row.note.starts_with("expected "),
        Verdict::Used | Verdict::Approximated(_) => false,
    }
}

impl Checked {
    /// What a person who starts the gateway should know about the settings, one line each. Settings of which the same is to be
    /// said share one.
    pub fn remarks(&self) -> Vec<String> {
        let mut told: Vec<(&ReportRow, usize)> = Vec::new();
        // What is left out is told by entry, not by setting.
        let single = |row: &&ReportRow| {
            let waits = matches!(row.verdict, Verdict::NotYet(_)) && !row.path.starts_with(ENVIRONMENT);
            is_problem(row) && !row.note.ends_with("left out") && !waits
        };
        for row in self.report.rows.iter().filter(single) {
            let same = told.iter_mut().find(|(first, _)| {
                first.note == row.note
                    && !row.note.is_empty()
                    && !matches!(row.verdict, Verdict::Unknown { .. })
            });
            match same {
                Some((_, more)) => *more += 1,
                None => told.push((row, 0)),
            }
        }
        let mut remarks: Vec<String> = told.into_iter().map(|(row, more)| remark(row, more)).collect();
        let waiting = self.report.count(|verdict| matches!(verdict, Verdict::NotYet(_)));
        if waiting > 0 {
            remarks.push(format!("{waiting} settings have no effect yet: `tollgate check` lists them"));
        }
        remarks
    }

    /// The entries that are not served, a line each with the reason.
    pub fn left_out(&self) -> Vec<String> {
        self.report.served().into_iter().skip(1).collect()
    }

    /// Refuses what nobody could call. With `store_model_in_db` models may come later.
    pub fn serves(&self, document: &Document) -> Result<(), Failure> {
        if !self.config.deployments.is_empty() || self.config.ledger.store_model_in_db {
            return Ok(());
        }
        let list = Verdict::Unknown { did_you_mean: Some("model_list") };
        let misspelt = self.report.rows.iter().find(|row| row.verdict == list);
        let fix = match (misspelt, self.report.left_out.is_empty()) {
            (Some(row), _) => format!("there is `{}`: did you mean model_list?", row.path),
            (_, true) => "add an entry with `model_name` and `litellm_params.model`, or start with `--model`"
                .to_owned(),
            (_, false) => "correct one of these entries, or add another".to_owned(),
        };
        let mut problems = self.left_out();
        problems.push(format!("`model_list`: expected at least one model that can be called; {fix}"));
        Err(name_file(Failure::Configuration(problems), document))
    }
}

fn remark(row: &ReportRow, more: usize) -> String {
    let line = row.line.map(|line| format!(" (line {line})")).unwrap_or_default();
    let others = match more {
        0 => String::new(),
        1 => " and of 1 other setting".to_owned(),
        more => format!(" and of {more} other settings"),
    };
    match row.verdict {
        Verdict::Unknown { .. } => {
            format!("unknown setting `{}`{line} {}", row.path, row.note).trim_end().to_owned()
        }
        _ => format!("`{}`{line}{others}: {}", row.path, row.note),
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

/// Checks a document as its author wrote it, and that there is somebody who can call something. Problems name the file, and
/// the line when the text is the file's own.
pub fn check_document(document: &Document) -> Result<Checked, Failure> {
    let checked = examine(document)?;
    checked.serves(document)?;
    Ok(checked)
}

/// Checks a document as its author wrote it, whether or not it serves anybody.
pub fn examine(document: &Document) -> Result<Checked, Failure> {
    let (_, own_text) = document.origin();
    let mut checked = load(&document.readable()?, None, &from_process).map_err(|problems| {
        let told = problems.into_iter().map(|mut problem| {
            if !own_text {
                problem.line = None;
            }
            problem.to_string()
        });
        name_file(Failure::Configuration(told.collect()), document)
    })?;
    if !own_text {
        checked.report.rows.iter_mut().for_each(|row| row.line = None);
        checked.report.left_out.iter_mut().for_each(|entry| entry.line = None);
    }
    Ok(checked)
}

fn name_file(failure: Failure, document: &Document) -> Failure {
    match (failure, document.origin().0) {
        (Failure::Configuration(problems), Some(file)) => {
            let file = file.display();
            Failure::Configuration(problems.into_iter().map(|problem| format!("{file}: {problem}")).collect())
        }
        (failure, _) => failure,
    }
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
