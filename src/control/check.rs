//! `tollgate check`: what would become of a configuration, for people and for pipelines.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{
    Failure,
    checked::{self, Checked, is_problem},
    cli::truth,
    document::{self, Document},
    start,
};

/// Flags of `tollgate check`.
#[derive(Clone, Debug, Default, Args)]
#[command(
    rename_all = "snake_case",
    after_help = "Example: tollgate check config.yaml --only problems --strict"
)]
pub struct Flags {
    /// LiteLLM configuration file
    #[arg(value_name = "FILE", required_unless_present = "config")]
    pub file: Option<PathBuf>,
    /// The same as FILE
    #[arg(long, short, value_name = "FILE", conflicts_with = "file")]
    pub config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print these settings alone
    #[arg(long)]
    pub only: Option<Only>,
    /// Exit 2 also when a setting is missing, unknown, not done yet, or an entry is left out
    #[arg(long)]
    pub strict: bool,
}

/// Which settings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Only {
    /// Those that are missing, unknown, not done yet or left out.
    Problems,
}

/// What to print, and why the exit code is not 0.
#[derive(Debug)]
pub struct Answer {
    /// For standard output.
    pub text: String,
    /// Why it cannot serve, or is not as strict as it was to be.
    pub failure: Option<Failure>,
}

/// Checks.
pub fn answer(flags: &Flags) -> Result<Answer, Failure> {
    let file = flags.file.clone().or_else(|| flags.config.clone()).unwrap_or_default();
    let found = document::read_file(file)
        .and_then(|document| checked::examine(&document).map(|checked| (document, checked)));
    match found {
        Ok((document, checked)) => Ok(of(flags, &document, &checked)),
        Err(failure) if flags.json => {
            let text = pretty(&json!({"serves": false, "problems": lines(&failure)}));
            Ok(Answer { text, failure: Some(failure) })
        }
        Err(failure) => Err(failure),
    }
}

fn of(flags: &Flags, document: &Document, checked: &Checked) -> Answer {
    let report = &checked.report;
    let only_problems = flags.only == Some(Only::Problems);
    let shown = |row: &_| !only_problems || is_problem(row);
    let warnings = start::warnings_of_settings(document, checked);
    let may_be_open = std::env::var("TOLLGATE_ALLOW_OPEN").is_ok_and(|value| truth(&value) == Ok(true));
    let refused = || start::refusals(document, checked, may_be_open).err();
    let not_served = checked.serves(document).err().or_else(refused);
    let problems = report.rows.iter().filter(|row| is_problem(row)).count() + document.remarks.len();
    let text = if flags.json {
        let settings = report.rows.iter().filter(|row| shown(row)).map(|row| {
            json!({"setting": row.path, "line": row.line, "verdict": row.verdict.name(), "note": row.note})
        });
        let left_out = report
            .left_out
            .iter()
            .map(|entry| json!({"model_name": entry.model_name, "line": entry.line, "reason": entry.reason}));
        pretty(&json!({
            "serves": not_served.is_none(),
            "models": {
                "entries": report.entries,
                "served": report.entries - report.left_out.len().min(report.entries),
                "left_out": left_out.collect::<Vec<_>>(),
            },
            "settings": settings.collect::<Vec<_>>(),
            "warnings": warnings,
            "problems": not_served.as_ref().map(lines).unwrap_or_default(),
        }))
    } else {
        let mut text = vec![report.table_of(&shown)];
        text.extend(report.served());
        text.extend(warnings.iter().map(|warning| format!("warning: {warning}")));
        text.join("\n")
    };
    let strict = (flags.strict && problems > 0).then(|| {
        Failure::configuration(format!("--strict: {problems} settings are not done as they are written"))
    });
    Answer { text, failure: not_served.or(strict) }
}

fn lines(failure: &Failure) -> Vec<String> {
    failure.to_string().lines().map(str::to_owned).collect()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(name: &str, text: &str, flags: Flags) -> Result<Answer, Failure> {
        let file = std::env::temp_dir().join(format!("tollgate-check-{name}-{}.yaml", std::process::id()));
        fs::write(&file, text).unwrap();
        let answer = answer(&Flags { file: Some(file.clone()), ..flags });
        fs::remove_file(file).unwrap();
        answer
    }

    const MIXED: &str = "
model_list:
- model_name: a
  litellm_params: {model: openai/a, api_key: k, max_retry: 3}
- model_name: b
  litellm_params: {model: bedrock/b}
general_settings: {master_key: sk-0123456789abcdef0123, master_key: sk-0123456789abcdef0123}
router_settings: {num_retires: 1}
";

    #[test]
    fn people_see_who_is_served() {
        let answer = check("people", MIXED, Flags::default()).unwrap();
        assert_eq!(answer.failure, None);
        for part in [
            "models: 1 of 2 served",
            "left out: `b` (line 5): provider `bedrock` cannot be called yet",
            "num_retires",
            "did you mean num_retries?",
            "did you mean max_retries?",
        ] {
            assert!(answer.text.contains(part), "{part} is not in\n{}", answer.text);
        }
        assert!(answer.text.contains("model_list[0].model_name"));
    }

    #[test]
    fn problems_alone_can_be_asked_for_and_end_with_2() {
        let flags = Flags { only: Some(Only::Problems), strict: true, ..Flags::default() };
        let answer = check("problems", MIXED, flags).unwrap();
        assert!(!answer.text.contains("model_list[0].model_name") && answer.text.contains("num_retires"));
        assert!(matches!(answer.failure, Some(Failure::Configuration(_))));
        let good = "model_list: [{model_name: a, litellm_params: {model: openai/a, api_key: k}}]";
        assert_eq!(check("good", good, Flags { strict: true, ..Flags::default() }).unwrap().failure, None);
    }

    #[test]
    fn a_file_that_serves_nobody_is_refused_and_shown() {
        let text = "model_list: [{model_name: b, litellm_params: {model: bedrock/b}}]";
        let answer = check("nobody", text, Flags::default()).unwrap();
        assert!(answer.text.contains("models: 0 of 1 served"), "{}", answer.text);
        let failure = answer.failure.unwrap();
        assert!(matches!(failure, Failure::Configuration(_)));
        let told = failure.to_string();
        assert!(
            told.contains("cannot be called yet") && told.lines().all(|line| line.contains(".yaml: ")),
            "{told}"
        );
    }

    #[test]
    fn what_a_start_refuses_is_refused() {
        let model = "model_list: [{model_name: a, litellm_params: {model: openai/a, api_key: k}}]\n";
        let rows = [
            ("tollgate_settings: {ledger_url: 'http://ledger:4100'}", "`tollgate_settings.ledger_url` needs"),
            ("general_settings: {database_url: 'postgresql://u:hidden@h:port/n'}", "port"),
        ];
        for (settings, part) in rows {
            let answer = check("refused", &format!("{model}{settings}"), Flags::default()).unwrap();
            let told = answer.failure.unwrap_or_else(|| panic!("{settings} is taken")).to_string();
            assert!(told.contains(part) && !told.contains("hidden"), "{settings}: {told}");
            let answer =
                check("refused", &format!("{model}{settings}"), Flags { json: true, ..Flags::default() });
            let told: Value = serde_json::from_str(&answer.unwrap().text).unwrap();
            assert_eq!(told["serves"], json!(false), "{settings}: {told}");
        }
    }

    #[test]
    fn pipelines_get_json() {
        let flags = || Flags { json: true, only: Some(Only::Problems), ..Flags::default() };
        let answer = check("json", MIXED, flags()).unwrap();
        let told: Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!((&told["serves"], &told["models"]["served"]), (&json!(true), &json!(1)));
        assert_eq!(told["models"]["left_out"][0]["model_name"], "b");
        assert!(told["settings"].as_array().unwrap().iter().any(|row| row["verdict"] == "unknown"), "{told}");
        let answer = check("broken", "model_list: x", flags()).unwrap();
        let told: Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!(told["serves"], json!(false));
        assert!(told["problems"][0].as_str().unwrap().contains("`model_list`") && answer.failure.is_some());
    }
}
