//! One verdict per setting of a configuration text: what happens to it, and where it stands.

use std::fmt;

use serde_json::Value;

use super::{
    read::{Reference, Source, reference},
    settings::{self, Verdict},
    yaml::{item, member},
};

/// Verdicts in file order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// One for each setting that the text contains.
    pub rows: Vec<ReportRow>,
    /// How many entries `model_list` has.
    pub entries: usize,
    /// The entries without a deployment that can be called.
    pub left_out: Vec<LeftOut>,
}

/// An entry of `model_list` without a deployment that can be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The entry's `model_name`.
    pub model_name: String,
    /// Line of the text, from 1.
    pub line: Option<usize>,
    /// Why.
    pub reason: String,
}

/// What happens to one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRow {
    /// `model_list[3].litellm_params.timeout`.
    pub path: String,
    /// Line of the text, from 1.
    pub line: Option<usize>,
    /// What happens to it.
    pub verdict: Verdict,
    /// How, what, why or the suggestion: the verdict's text. Empty when there is nothing to say.
    pub note: String,
}

/// What the path of a row begins with that is about an environment variable.
pub const ENVIRONMENT: &str = "environment: ";

impl Report {
    /// The report of a document. What loading noted goes before the table.
    pub(super) fn of(document: &Value, src: &Source, entries: usize, left_out: Vec<LeftOut>) -> Report {
        let mut walk = Walk { src, rows: Vec::new() };
        if let Value::Object(map) = document {
            for (name, value) in map {
                walk.setting(name, "", name, value);
            }
        }
        let mut rows = walk.rows;
        rows.sort_by_key(|row| row.line.unwrap_or(usize::MAX));
        rows.extend(environment(src));
        Report { rows, entries, left_out }
    }

    /// How many rows have a verdict of the kind that `is` accepts.
    pub fn count(&self, is: impl Fn(&Verdict) -> bool) -> usize {
        self.rows.iter().filter(|row| is(&row.verdict)).count()
    }

    /// How many entries of `model_list` are served, and which are not: `models: 5 of 7 served`, and a line for each other.
    pub fn served(&self) -> Vec<String> {
        let served = self.entries.saturating_sub(self.left_out.len());
        let mut lines = vec![format!("models: {served} of {} served", self.entries)];
        lines.extend(self.left_out.iter().map(|LeftOut { model_name, line, reason }| {
            let line = line.map(|line| format!(" (line {line})")).unwrap_or_default();
            format!("left out: `{model_name}`{line}: {reason}")
        }));
        lines
    }

    /// An aligned table with a summary line below it.
    pub fn table(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &|_| true)
    }
}

impl Report {
    /// The table with those rows alone that `is` accepts.
    pub fn table_of(&self, is: &dyn Fn(&ReportRow) -> bool) -> String {
        struct Some<'a>(&'a Report, &'a dyn Fn(&ReportRow) -> bool);
        impl fmt::Display for Some<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write(f, self.1)
            }
        }
        Some(self, is).to_string()
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, is: &dyn Fn(&ReportRow) -> bool) -> fmt::Result {
        let shown = || self.rows.iter().filter(|row| is(row));
        let widest = shown().map(|row| row.path.chars().count()).max().unwrap_or(0).clamp(7, 72);
        writeln!(f, "{:>4}  {:<widest$}  {:<12}  note", "line", "setting", "verdict")?;
        for ReportRow { path, line, verdict, note } in shown() {
            let line = line.map(|line| line.to_string()).unwrap_or_default();
            let text = format!("{line:>4}  {path:<widest$}  {:<12}  {note}", verdict.name());
            writeln!(f, "{}", text.trim_end())?;
        }
        let counted = |name: &str| self.count(|verdict| verdict.name() == name);
        let mut summary = format!("{} settings", self.rows.len());
        let kinds = ["used", "approximated", "not yet", "ignored", "missing", "unknown"];
        for (name, count) in
            kinds.map(|name| (name, counted(name))).into_iter().filter(|(_, count)| *count > 0)
        {
            summary.push_str(&format!(", {count} {name}"));
        }
        write!(f, "{}", summary.replacen(',', ":", 1))
    }
}

/// Rows for the variables that say how LiteLLM is run.
fn environment(src: &Source) -> Vec<ReportRow> {
    let all =
        settings::ENVIRONMENT.iter().flat_map(|group| group.names.iter().map(move |name| (group, *name)));
    all.filter(|(_, name)| src.has_in_environment(name))
        .map(|(group, name)| ReportRow {
            path: format!("{ENVIRONMENT}{name}"),
            line: None,
            verdict: group.verdict.clone(),
            note: group.verdict.text(),
        })
        .collect()
}

struct Walk<'a> {
    src: &'a Source<'a>,
    rows: Vec<ReportRow>,
}

impl Walk<'_> {
    /// A setting, or the settings in it. `section` is where it stands in the table's terms (`model_list[]`).
    fn setting(&mut self, path: &str, section: &str, name: &str, value: &Value) {
        let pattern = member(section, name);
        match value {
            Value::Object(map) if settings::is_section(&pattern) => {
                for (name, value) in map {
                    self.setting(&member(path, name), &pattern, name, value);
                }
            }
            Value::Array(list) if settings::is_section(&format!("{pattern}[]")) => {
                let pattern = format!("{pattern}[]");
                for (at, entry) in list.iter().enumerate() {
                    for (name, value) in entry.as_object().into_iter().flatten() {
                        self.setting(&member(&item(path, at), name), &pattern, name, value);
                    }
                }
            }
            _ => self.row(path, value, settings::verdict(section, name, value)),
        }
    }

    fn row(&mut self, path: &str, value: &Value, verdict: Verdict) {
        let note_on = |path: &str| {
            let note = self.src.notes.iter().find(|note| note.path == path);
            note.map(|note| note.verdict.clone())
        };
        // A note on a whole entry speaks for those of its settings that would have had an effect.
        let entry = || note_on(path.split_once('.').map_or(path, |(entry, _)| entry));
        let verdict = match (note_on(path), verdict) {
            (Some(noted), _) => noted,
            (None, Verdict::Used) => entry().unwrap_or_else(|| self.used(path, value)),
            (None, verdict) => verdict,
        };
        let note = verdict.text();
        self.rows.push(ReportRow {
            path: path.to_owned(),
            line: self.src.lines.of_path(path),
            verdict,
            note,
        });
    }

    /// A setting that would be used, was what it names there.
    fn used(&self, path: &str, value: &Value) -> Verdict {
        let Some(why) = self.missing(value) else { return Verdict::Used };
        let is_alone = value.is_string() && !path.starts_with("model_list") && why.ends_with("is not set");
        let means = if is_alone { ": it is as if the setting were not there" } else { "" };
        Verdict::Missing(format!("{why}{means}").into())
    }

    /// What a value, or one inside it, names and is not there.
    fn missing(&self, value: &Value) -> Option<String> {
        match value {
            Value::String(text) => match reference(text) {
                Some(Reference::Environment(name)) => {
                    let unset = self.src.variable(name).is_none();
                    unset.then(|| format!("environment variable {name} is not set"))
                }
                Some(_) => None,
                None => shell_variable(text).map(|name| {
                    format!("not filled in: neither LiteLLM nor this gateway reads ${{{name}}}; write os.environ/{name}")
                }),
            },
            Value::Array(list) => list.iter().find_map(|value| self.missing(value)),
            Value::Object(map) => map.values().find_map(|value| self.missing(value)),
            _ => None,
        }
    }
}

/// The name in a text that is `${NAME}` or `$NAME` and nothing else.
fn shell_variable(text: &str) -> Option<&str> {
    let name = text.trim().strip_prefix('$')?;
    let name = name.strip_prefix('{').map_or(Some(name), |name| name.strip_suffix('}'))?;
    let good = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    (!name.is_empty() && name.bytes().all(good) && !name.starts_with(|c: char| c.is_ascii_digit()))
        .then_some(name)
}
