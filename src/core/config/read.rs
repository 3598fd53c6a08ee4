//! Typed reading of settings: references resolved, LiteLLM's loose types accepted, everything else a [`Problem`].

use hashbrown::HashMap;
use serde_json::{Map, Value};

use super::{
    note::Note,
    problem::Problem,
    settings::Verdict,
    yaml::{Lines, item, member},
};
use crate::core::model::{money::Money, period, secret::Secret};

/// Where values come from besides the text, and what was wrong or remarkable with them.
pub(super) struct Source<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    unseal: &'a dyn Fn(&str) -> Option<String>,
    /// `environment_variables`.
    variables: HashMap<String, String>,
    pub(super) lines: Lines,
    pub(super) problems: Vec<Problem>,
    /// What loading found out about single settings; goes before the table's verdict in the report.
    pub(super) notes: Vec<Note>,
}

/// What a text refers to instead of being itself.
pub(super) enum Reference<'t> {
    /// `os.environ/NAME`.
    Environment(&'t str),
    /// `sealed/BASE64`.
    Sealed(&'t str),
    /// `oidc/PROVIDER/AUDIENCE`: a token to be fetched.
    Oidc,
}

/// The reference that a text is, if it is one.
pub(super) fn reference(text: &str) -> Option<Reference<'_>> {
    if let Some(name) = text.strip_prefix("os.environ/") {
        return Some(Reference::Environment(name.trim()));
    }
    if text.starts_with("oidc/") {
        return Some(Reference::Oidc);
    }
    text.strip_prefix("sealed/").map(Reference::Sealed)
}

/// Where names of parameters belong that stand in `drop_params`.
pub(super) const NAMES_TO_DROP: &str = "name parameters in litellm_params.additional_drop_params";

impl<'a> Source<'a> {
    pub(super) fn new(
        lines: Lines,
        env: &'a dyn Fn(&str) -> Option<String>,
        unseal: &'a dyn Fn(&str) -> Option<String>,
    ) -> Source<'a> {
        Source { env, unseal, variables: HashMap::new(), lines, problems: Vec::new(), notes: Vec::new() }
    }

    /// An environment variable; `environment_variables` of the file first. Empty counts as unset.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let value = self.variables.get(name).cloned().or_else(|| (self.env)(name));
        value.filter(|value| !value.is_empty())
    }

    /// Whether a variable is set outside of the text.
    pub(super) fn has_in_environment(&self, name: &str) -> bool {
        !self.variables.contains_key(name) && (self.env)(name).is_some_and(|value| !value.is_empty())
    }

    /// Whether a variable is there and holds nothing but spaces, if that.
    pub(super) fn is_blank(&self, name: &str) -> bool {
        let value = self.variables.get(name).cloned().or_else(|| (self.env)(name));
        value.is_some_and(|value| value.trim().is_empty())
    }

    /// The first variable of `names` that is set.
    pub(super) fn first_variable(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.variable(name))
    }

    /// The first variable of `names` that is set, fit for a header. `path` is the setting it stands in for.
    pub(super) fn secret_variable(&mut self, names: &[&str], path: &str) -> Option<Secret> {
        let text = self.first_variable(names)?;
        header_value(self, path, &text)
    }

    /// What a sealed text is, without a word when it cannot be opened.
    pub(super) fn opened(&self, text: &str) -> Option<String> {
        match reference(text) {
            Some(Reference::Sealed(sealed)) => (self.unseal)(sealed),
            _ => None,
        }
    }

    /// Takes `environment_variables` in: references resolved, numbers and flags as text, null skipped.
    pub(super) fn set_variables(&mut self, block: &Block) {
        for (name, value) in &block.map {
            if let Some(text) = self.resolve(value, &member(&block.path, name)).as_ref().and_then(scalar_text)
            {
                self.variables.insert(name.clone(), text);
            }
        }
    }

    /// A value with every reference in it replaced; `None` for null and for a reference to nothing. `true` and `false`
    /// from the environment become flags.
    pub(super) fn resolve(&mut self, value: &Value, path: &str) -> Option<Value> {
        match value {
            Value::Null => None,
            Value::String(text) => match reference(text) {
                None => Some(value.clone()),
                Some(Reference::Environment(name)) => {
                    self.variable(name).map(|text| flag_of(&text).map_or(Value::String(text), Value::Bool))
                }
                Some(Reference::Oidc) => {
                    self.note(path, Verdict::NotYet("tokens fetched from an OIDC provider".into()));
                    None
                }
                Some(Reference::Sealed(sealed)) => match (self.unseal)(sealed) {
                    Some(text) => Some(Value::String(text)),
                    None => {
                        self.problem(
                            path,
                            "expected a sealed value that this gateway can open",
                            "start the gateway with the state directory whose key sealed it",
                        );
                        None
                    }
                },
            },
            Value::Array(list) => {
                let resolved = list.iter().enumerate().filter_map(|(at, v)| self.resolve(v, &item(path, at)));
                Some(Value::Array(resolved.collect()))
            }
            Value::Object(map) => Some(Value::Object(self.resolve_map(map, path))),
            _ => Some(value.clone()),
        }
    }

    /// Resolves each member of a map.
    pub(super) fn resolve_map(&mut self, map: &Map<String, Value>, path: &str) -> Map<String, Value> {
        map.iter()
            .filter_map(|(name, value)| Some((name.clone(), self.resolve(value, &member(path, name))?)))
            .collect()
    }

    /// Records what is wrong with a setting.
    pub(super) fn problem(&mut self, path: &str, expected: impl Into<String>, fix: impl Into<String>) {
        let line = self.lines.of_path(path);
        self.problems.push(Problem {
            line,
            setting: path.to_owned(),
            expected: expected.into(),
            fix: fix.into(),
        });
    }

    /// Records a verdict that only loading can give.
    pub(super) fn note(&mut self, path: &str, verdict: Verdict) {
        self.notes.push(Note { path: path.to_owned(), verdict });
    }

    fn wrong_type(&mut self, path: &str, wanted: &str, found: &Value, fix: &str) {
        // Only the kind: a value in the wrong place may be a key.
        let found = match found {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number out of range",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "a map",
        };
        self.problem(path, format!("expected {wanted}, found {found}"), fix);
    }
}

/// A map of settings whose references are resolved, and where it stands.
pub(super) struct Block {
    pub(super) path: String,
    pub(super) map: Map<String, Value>,
}

impl Block {
    /// A member that is a map; an empty block when there is none.
    pub(super) fn member(&self, src: &mut Source, name: &str) -> Block {
        let path = member(&self.path, name);
        let map = match self.map.get(name) {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(map)) => map.clone(),
            Some(other) => {
                src.wrong_type(&path, "a map", other, "indent its settings below it");
                Map::new()
            }
        };
        Block { path, map }
    }

    /// A member that is a list; empty when there is none.
    pub(super) fn list(&self, src: &mut Source, name: &str) -> Vec<Value> {
        match self.map.get(name) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => list.clone(),
            Some(other) => {
                src.wrong_type(&member(&self.path, name), "a list", other, "begin each entry with a dash");
                Vec::new()
            }
        }
    }

    /// A member with a value.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Text; numbers count as their digits.
    pub(super) fn text(&self, src: &mut Source, name: &str) -> Option<String> {
        let value = self.get(name)?;
        let text = scalar_text(value);
        if text.is_none() {
            src.wrong_type(&member(&self.path, name), "a text", value, "write one value");
        }
        text.filter(|text| !text.is_empty())
    }

    /// Text that goes into a header: spaces and line ends around it are cut, others inside it are a problem.
    pub(super) fn secret(&self, src: &mut Source, name: &str) -> Option<Secret> {
        let text = self.text(src, name)?;
        header_value(src, &member(&self.path, name), &text)
    }

    /// A flag; the texts `true`/`false`, `yes`/`no`, `on`/`off` and `1`/`0` count.
    pub(super) fn flag(&self, src: &mut Source, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        let flag = match value {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) if text.is_empty() => return None,
            Value::String(text) => flag_of(text).or_else(|| word_flag(text)),
            Value::Number(number) => match number.as_f64() {
                Some(0.0) => Some(false),
                Some(1.0) => Some(true),
                _ => None,
            },
            _ => None,
        };
        if flag.is_none() {
            src.wrong_type(&member(&self.path, name), "true or false", value, "write true or false");
        }
        flag
    }

    /// A flag as [`Block::flag`] reads it, where LiteLLM takes anything but `true` for off, without a word.
    pub(super) fn flag_or_off(&self, src: &mut Source, name: &str, instead: &str) -> Option<bool> {
        match self.get(name)? {
            Value::Array(_) | Value::Object(_) => {
                let path = member(&self.path, name);
                src.note(&path, Verdict::Ignored(format!("expected true or false; {instead}").into()));
                Some(false)
            }
            _ => self.flag(src, name),
        }
    }

    /// A number of any kind; numeric text counts.
    pub(super) fn number(&self, src: &mut Source, name: &str, what: &str) -> Option<f64> {
        let value = self.get(name)?;
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) if text.is_empty() => return None,
            Value::String(text) => python_number(text),
            _ => None,
        };
        let number = number.filter(|number: &f64| number.is_finite() && *number >= 0.0);
        if number.is_none() {
            src.wrong_type(&member(&self.path, name), what, value, "write a number that is not negative");
        }
        number
    }

    /// A whole number.
    pub(super) fn count(&self, src: &mut Source, name: &str) -> Option<u64> {
        // Exact below 2^53; no setting is larger.
        self.number(src, name, "a whole number").map(|number| number as u64)
    }

    /// A whole number that fits 32 bits.
    pub(super) fn small_count(&self, src: &mut Source, name: &str) -> Option<u32> {
        self.count(src, name).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// Seconds, as milliseconds.
    pub(super) fn millis(&self, src: &mut Source, name: &str) -> Option<u64> {
        let seconds = self.number(src, name, "a number of seconds")?;
        Some((seconds * 1000.0).round() as u64)
    }

    /// Seconds as milliseconds, where 0 means unset and something tiny stays something.
    pub(super) fn timeout(&self, src: &mut Source, name: &str) -> Option<u64> {
        let seconds = self.number(src, name, "a number of seconds")?;
        (seconds > 0.0).then(|| ((seconds * 1000.0).round() as u64).max(1))
    }

    /// Dollars, as 10⁻¹² dollars.
    pub(super) fn money(&self, src: &mut Source, name: &str) -> Option<i64> {
        let value = self.get(name)?;
        if matches!(value, Value::String(text) if text.is_empty()) {
            return None;
        }
        // More than there is room for is more than can be spent.
        let pico = scalar_text(value)
            .and_then(|text| Money::parse(&text))
            .filter(|money| *money >= Money::ZERO)
            .map(|money| i64::try_from(money.pico()).unwrap_or(i64::MAX));
        if pico.is_none() {
            let path = member(&self.path, name);
            src.wrong_type(&path, "an amount in dollars", value, "write a number of dollars, not below zero");
        }
        pico
    }

    /// A time such as `30d` as it is written, once it is known to be one.
    pub(super) fn duration(&self, src: &mut Source, name: &str) -> Option<String> {
        let text = self.text(src, name)?;
        if period::parse(&text).is_ok() {
            return Some(text);
        }
        src.problem(
            &member(&self.path, name),
            "expected a time with its unit",
            "write a number and one of s, m, h, d, w, mo: `30d`",
        );
        None
    }

    /// A list of texts; one text counts as a list of it.
    pub(super) fn texts(&self, src: &mut Source, name: &str) -> Vec<String> {
        match self.get(name) {
            Some(Value::String(text)) => vec![text.clone()],
            _ => self.list(src, name).iter().filter_map(scalar_text).collect(),
        }
    }
}

/// The number in a text as Python's `float` reads it: with underscores between digits.
fn python_number(text: &str) -> Option<f64> {
    let text = text.trim();
    let digit = |b: Option<&u8>| b.is_some_and(u8::is_ascii_digit);
    let bytes = text.as_bytes();
    let apart = |at: usize| digit(at.checked_sub(1).and_then(|at| bytes.get(at))) && digit(bytes.get(at + 1));
    if bytes.iter().enumerate().any(|(at, b)| *b == b'_' && !apart(at)) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// A value as it may stand in a header.
pub(super) fn header_value(src: &mut Source, path: &str, text: &str) -> Option<Secret> {
    let text = text.trim_matches(['\r', '\n', '\t', ' ']);
    if text.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) {
        src.problem(
            path,
            "expected one line without control characters",
            "remove line breaks from the value",
        );
        return None;
    }
    Some(Secret::new(text))
}

/// A single value as text, the way it was written.
pub(super) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(decimal(number)),
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        _ => None,
    }
}

/// A number as plain decimal text, never with an exponent.
pub(super) fn decimal(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => float.to_string(),
        _ => number.to_string(),
    }
}

pub(super) fn flag_of(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

pub(super) fn word_flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "on" | "1" => Some(true),
        "no" | "off" | "0" => Some(false),
        _ => None,
    }
}
