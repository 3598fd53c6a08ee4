//! `.env` in the working directory: variables for this process, read as python-dotenv reads them for LiteLLM.

use std::{env, fs};

/// The file.
const FILE: &str = ".env";

/// Reads `.env` into the environment; what is set already stays. Says how many variables were set, and which lines cannot be
/// read. To be called before anything else: no other thread may look at the environment meanwhile.
#[expect(unsafe_code, reason = "the environment of a process belongs to all of its threads")]
pub fn load() -> Vec<String> {
    // LiteLLM reads it in this mode only.
    if env::var("LITELLM_MODE").is_ok_and(|mode| mode != "DEV") {
        return Vec::new();
    }
    let Ok(bytes) = fs::read(FILE) else { return Vec::new() };
    let (pairs, bad) = parse(&String::from_utf8_lossy(&bytes));
    for (name, value) in resolved(pairs, &|name| env::var(name).ok()) {
        if env::var_os(&name).is_none() && !value.contains('\0') {
            // SAFETY: this is the only thread of the process.
            unsafe { env::set_var(name, value) };
        }
    }
    bad.into_iter().map(|line| format!("{FILE}: line {line} cannot be read and is left out")).collect()
}

/// Names and values as written, and the lines that are none.
fn parse(text: &str) -> (Vec<(String, String)>, Vec<usize>) {
    let (mut pairs, mut bad) = (Vec::new(), Vec::new());
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1;
    while !rest.is_empty() {
        let before = rest;
        match statement(rest) {
            Some((pair, after)) => {
                pairs.extend(pair);
                rest = after;
            }
            None => {
                bad.push(line);
                rest = rest.split_once('\n').map_or("", |(_, after)| after);
            }
        }
        let read = before.get(..before.len() - rest.len()).unwrap_or_default();
        line += read.matches('\n').count();
    }
    (pairs, bad)
}

/// One statement with the line end behind it: `export NAME = value # remark`, a remark, or an empty line.
fn statement(text: &str) -> Option<(Option<(String, String)>, &str)> {
    let start = text.trim_start_matches([' ', '\t', '\r']);
    if let Some(after) = start.strip_prefix('\n') {
        return Some((None, after));
    }
    if start.is_empty() || start.starts_with('#') {
        return Some((None, start.split_once('\n').map_or("", |(_, after)| after)));
    }
    let start = match start.strip_prefix("export") {
        Some(after) if after.starts_with([' ', '\t']) => after.trim_start_matches([' ', '\t']),
        _ => start,
    };
    let (name, after) = name(start)?;
    let after = after.trim_start_matches([' ', '\t']);
    let Some(after) = after.strip_prefix('=') else {
        // A name alone sets nothing.
        return Some((None, line_end(after)?));
    };
    let after = after.trim_start_matches([' ', '\t']);
    let (value, after) = match after.chars().next() {
        Some(quote @ ('\'' | '"')) => {
            let (value, after) = quoted(after, quote)?;
            (value, line_end(after)?)
        }
        _ => plain(after),
    };
    Some((Some((name, value)), after))
}

fn name(text: &str) -> Option<(String, &str)> {
    if let Some(inner) = text.strip_prefix('\'') {
        let (name, after) = inner.split_once('\'')?;
        return Some((name.to_owned(), after));
    }
    let end = text.find(|c: char| c == '=' || c == '#' || c.is_whitespace()).unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    (!name.is_empty()).then(|| (name.to_owned(), after))
}

/// What follows the line: nothing but a remark may stand on the rest of it.
fn line_end(text: &str) -> Option<&str> {
    let (line, after) = text.split_once('\n').unwrap_or((text, ""));
    let line = line.trim();
    (line.is_empty() || line.starts_with('#')).then_some(after)
}

/// A value without quotes: to the end of the line, or to a remark that has a space before it.
fn plain(text: &str) -> (String, &str) {
    let (line, after) = text.split_once('\n').unwrap_or((text, ""));
    let mut before = ' ';
    let end = line.char_indices().find_map(|(at, c)| {
        let is_remark = c == '#' && before.is_whitespace();
        before = c;
        is_remark.then_some(at)
    });
    (line.get(..end.unwrap_or(line.len())).unwrap_or(line).trim_end().to_owned(), after)
}

/// A value in quotes, which may go on over lines.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Some((value, text.get(at + 1..)?)),
            '\\' => {
                let (_, next) = chars.next()?;
                match escaped(next, quote) {
                    Some(c) => value.push(c),
                    None => value.extend(['\\', next]),
                }
            }
            c => value.push(c),
        }
    }
    None
}

/// What stands behind a backslash. Between single quotes only the quote and the backslash itself can be meant.
fn escaped(c: char, quote: char) -> Option<char> {
    match (quote, c) {
        (_, '\\' | '\'') => Some(c),
        ('"', '"') => Some('"'),
        ('"', 'n') => Some('\n'),
        ('"', 'r') => Some('\r'),
        ('"', 't') => Some('\t'),
        ('"', 'a') => Some('\u{7}'),
        ('"', 'b') => Some('\u{8}'),
        ('"', 'f') => Some('\u{c}'),
        ('"', 'v') => Some('\u{b}'),
        _ => None,
    }
}

/// The values with `${NAME}` and `${NAME:-otherwise}` filled in: from the environment, else from the lines before.
fn resolved(pairs: Vec<(String, String)>, env: &dyn Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let mut done: Vec<(String, String)> = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        let known = |wanted: &str| {
            env(wanted).or_else(|| {
                done.iter().rev().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
            })
        };
        let value = filled(&value, &known);
        done.retain(|(other, _)| *other != name);
        done.push((name, value));
    }
    done
}

fn filled(value: &str, known: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((inside, behind)) = after.split_once('}') else {
            out.push_str("${");
            rest = after;
            continue;
        };
        let (name, otherwise) = inside.split_once(":-").unwrap_or((inside, ""));
        if name.contains(':') {
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(&known(name).unwrap_or_else(|| otherwise.to_owned()));
        rest = behind;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_python_dotenv_reads_them() {
        let rows: [(&str, &[(&str, &str)]); 14] = [
            ("\u{feff}A=1\r\nB=2\n", &[("A", "1"), ("B", "2")]),
            ("# remark\n\n  A = 1  # why\nB=a#b\nC= # nothing", &[("A", "1"), ("B", "a#b"), ("C", "")]),
            ("export A=1\nexported=2", &[("A", "1"), ("exported", "2")]),
            ("A='it''s'", &[]),
            (
                "A='a # b' # c\nB=\"x\\ny\\q\"\nC='x\\ny\\''",
                &[("A", "a # b"), ("B", "x\ny\\q"), ("C", "x\\ny'")],
            ),
            ("A=\"one\ntwo\"\nB=3", &[("A", "one\ntwo"), ("B", "3")]),
            ("A\nB=1", &[("B", "1")]),
            ("'A b'=1", &[("A b", "1")]),
            ("A=1\nA=2", &[("A", "2")]),
            ("A=1\nB=${A}/${SET}/${NOT}/${NOT:-x}/$A", &[("A", "1"), ("B", "1/from-outside//x/$A")]),
            ("SET=mine\nB='${SET}'", &[("SET", "mine"), ("B", "from-outside")]),
            ("A=${B", &[("A", "${B")]),
            ("=1\nB=2", &[("B", "2")]),
            ("A=sk-a=b==", &[("A", "sk-a=b==")]),
        ];
        for (text, expected) in rows {
            let env = |name: &str| (name == "SET").then(|| "from-outside".to_owned());
            let found = resolved(parse(text).0, &env);
            let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn lines_that_cannot_be_read_are_named() {
        assert_eq!(parse("A=1\n=2\nB='x\nC=3\n").1, [2, 3]);
        assert_eq!(parse("A=\"1\n2\"\nB=\"x\" y\nC=1").1, [3]);
    }
}
