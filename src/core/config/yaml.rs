//! YAML text as values, read the way LiteLLM's parser reads it, and the lines its settings stand on.

use std::fmt;

use hashbrown::HashMap;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A YAML document: YAML 1.1's booleans, merge keys applied, the last of two equal keys counts, keys as text.
pub(super) fn parse(text: &str) -> Result<(Value, Lines), (Option<usize>, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let node: Node = serde_yaml::from_str(text)
        .map_err(|e| (e.location().map(|at| at.line()), without_position(&e.to_string())))?;
    let lines = Lines::of(text);
    let mut value = node.0;
    if !lines.booleans.is_empty() {
        set_booleans(&mut value, String::new(), &lines.booleans);
    }
    Ok((value, lines))
}

/// The path of a member: `general_settings` and `master_key` make `general_settings.master_key`.
pub(super) fn member(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The path of an item: `model_list[3]`.
pub(super) fn item(path: &str, at: usize) -> String {
    format!("{path}[{at}]")
}

/// Which line each setting stands on.
#[derive(Debug, Default)]
pub(super) struct Lines {
    at: HashMap<String, usize>,
    /// Unquoted `yes`, `no`, `on`, `off`: booleans to YAML 1.1, text to the parser.
    booleans: HashMap<String, bool>,
}

impl Lines {
    /// The line (from 1) of a path such as `model_list[3].litellm_params.timeout`; of what it stands in when it has none
    /// of its own (inside `{…}` or a merged map).
    pub(super) fn of_path(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.at.get(path) {
                return Some(*line);
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }

    /// Finds keys and items by their indentation. Good enough to point at a line; never used for meaning, booleans aside.
    fn of(text: &str) -> Lines {
        let mut scan = Scan::default();
        for (at, line) in text.lines().enumerate() {
            scan.line(line, at + 1);
        }
        scan.lines
    }
}

/// A mapping or a sequence that is open while scanning.
struct Frame {
    column: usize,
    /// For a sequence, the items seen so far.
    items: Option<usize>,
    base: String,
    /// The path of the newest key or item in it.
    last: String,
}

#[derive(Default)]
struct Scan {
    lines: Lines,
    frames: Vec<Frame>,
    /// Inside `|` or `>`: lines indented deeper than this are text.
    block: Option<usize>,
    flow: Flow,
}

impl Scan {
    fn line(&mut self, line: &str, number: usize) {
        let rest = line.trim_start_matches(' ');
        let column = line.len() - rest.len();
        if let Some(indent) = self.block {
            if rest.trim().is_empty() || column > indent {
                return;
            }
            self.block = None;
        }
        if self.flow.open() {
            self.flow.scan(rest);
            return;
        }
        let rest = rest.trim_end();
        if rest.is_empty() || rest.starts_with(['#', '%']) || rest == "---" || rest == "..." {
            return;
        }
        self.content(rest, column, number);
    }

    /// What stands at a column: any number of dashes, then a key, then a value.
    fn content(&mut self, rest: &str, column: usize, number: usize) {
        let (mut rest, mut column, mut dash) = (rest, column, None);
        while let Some(after) = dashed(rest) {
            self.item(column, number);
            dash = Some(column);
            let inner = after.trim_start();
            column += rest.len() - inner.len();
            rest = inner;
            if let Some(anchored) = rest.strip_prefix('&') {
                rest = anchored.split_once(' ').map_or("", |(_, rest)| rest.trim_start());
            }
        }
        match key_of(rest) {
            Some((key, value)) => {
                self.key(&key, column, number);
                self.value(value, column);
            }
            None => {
                if let Some(dash) = dash {
                    self.value(rest, dash);
                }
            }
        }
    }

    fn item(&mut self, column: usize, number: usize) {
        self.frames.retain(|frame| frame.column <= column);
        let fresh = !self.frames.last().is_some_and(|top| top.items.is_some() && top.column == column);
        if fresh {
            let base = self.frames.last().map(|top| top.last.clone()).unwrap_or_default();
            self.frames.push(Frame { column, items: Some(0), base, last: String::new() });
        }
        if let Some(Frame { items: Some(count), base, last, .. }) = self.frames.last_mut() {
            *last = item(base, *count);
            *count += 1;
            self.lines.at.insert(last.clone(), number);
        }
    }

    fn key(&mut self, key: &str, column: usize, number: usize) {
        self.frames.retain(|f| f.column < column || (f.column == column && f.items.is_none()));
        if self.frames.last().is_none_or(|top| top.column != column) {
            let base = self.frames.last().map(|top| top.last.clone()).unwrap_or_default();
            self.frames.push(Frame { column, items: None, base, last: String::new() });
        }
        if let Some(top) = self.frames.last_mut() {
            top.last = member(&top.base, key);
            self.lines.at.insert(top.last.clone(), number);
        }
    }

    /// The value after a key or dash at `column`: it may go on over the next lines.
    fn value(&mut self, value: &str, column: usize) {
        let value = value.trim_start();
        match value.bytes().next() {
            Some(b'|' | b'>') => self.block = Some(column),
            Some(b'&' | b'!') => {
                if let Some((_, rest)) = value.split_once(' ') {
                    self.value(rest, column);
                }
            }
            Some(b'{' | b'[' | b'"' | b'\'') => self.flow.scan(value),
            _ => {
                let word = value.split(" #").next().unwrap_or_default().trim();
                if let (Some(flag), Some(top)) = (yaml_1_1_boolean(word), self.frames.last()) {
                    self.lines.booleans.insert(top.last.clone(), flag);
                }
            }
        }
    }
}

/// Brackets and quotes that are open at the end of a line.
#[derive(Default)]
struct Flow {
    depth: usize,
    quote: Option<char>,
}

impl Flow {
    fn open(&self) -> bool {
        self.depth > 0 || self.quote.is_some()
    }

    fn scan(&mut self, text: &str) {
        let (mut chars, mut before) = (text.chars(), ' ');
        while let Some(c) = chars.next() {
            match (self.quote, c) {
                (Some('"'), '\\') => _ = chars.next(),
                (Some(quote), _) if c == quote => {
                    self.quote = None;
                    if self.depth == 0 {
                        return;
                    }
                }
                (Some(_), _) => {}
                (None, '#') if before == ' ' => return,
                (None, '"' | '\'') if " [{,:".contains(before) => self.quote = Some(c),
                (None, '[' | '{') => self.depth += 1,
                (None, ']' | '}') => self.depth = self.depth.saturating_sub(1),
                (None, _) => {}
            }
            before = c;
        }
    }
}

/// What follows a dash that begins an item.
fn dashed(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('-')?;
    (rest.is_empty() || rest.starts_with(' ')).then_some(rest)
}

/// A key and what follows its colon.
fn key_of(text: &str) -> Option<(String, &str)> {
    for quote in ['"', '\''] {
        if let Some(rest) = text.strip_prefix(quote) {
            let (key, rest) = rest.split_once(quote)?;
            return Some((key.to_owned(), rest.trim_start().strip_prefix(':')?));
        }
    }
    if text.starts_with(['{', '[', '#', '|', '>', '*', '?']) {
        return None;
    }
    let (key, rest) = match text.split_once(": ") {
        Some((key, rest)) => (key, rest),
        None => (text.strip_suffix(':')?, ""),
    };
    (!key.contains(" #")).then(|| (key.trim().to_owned(), rest))
}

fn yaml_1_1_boolean(word: &str) -> Option<bool> {
    match word {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

fn set_booleans(value: &mut Value, path: String, booleans: &HashMap<String, bool>) {
    match value {
        Value::String(text) => {
            if let Some(flag) = booleans.get(&path).filter(|flag| yaml_1_1_boolean(text) == Some(**flag)) {
                *value = Value::Bool(*flag);
            }
        }
        Value::Array(list) => {
            for (at, value) in list.iter_mut().enumerate() {
                set_booleans(value, item(&path, at), booleans);
            }
        }
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                set_booleans(value, member(&path, name), booleans);
            }
        }
        _ => {}
    }
}

/// The parser's message without its own ` at line …`, which the problem's `line` says.
fn without_position(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).to_owned()
}

/// A value of a document. (The parser's own value type refuses a repeated key, which LiteLLM's parser does not.)
struct Node(Value);

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(Nodes).map(Node)
    }
}

struct Nodes;

impl<'de> Visitor<'de> for Nodes {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain YAML value (custom tags are not supported)")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or_else(|| Value::String(number.to_string()), Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Node(value)) = seq.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let (mut map, mut merged) = (Map::new(), Vec::new());
        while let Some((Node(key), Node(value))) = entries.next_entry()? {
            match (key, value) {
                (Value::String(key), Value::Object(other)) if key == "<<" => merged.push(other),
                (Value::String(key), Value::Array(others)) if key == "<<" => {
                    merged.extend(others.into_iter().filter_map(|other| match other {
                        Value::Object(other) => Some(other),
                        _ => None,
                    }));
                }
                (Value::String(key), value) => _ = map.insert(key, value),
                (key, value) => _ = map.insert(key.to_string(), value),
            }
        }
        for (key, value) in merged.into_iter().flatten() {
            map.entry(key).or_insert(value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(text: &str) -> Value {
        parse(text).unwrap().0
    }

    #[test]
    fn read_like_yaml_1_1() {
        let text = "a: yes\nb: \"yes\"\nc: Off # comment\nd: [on, 1]\ne:\n- no\n- x: ON\n";
        assert_eq!(
            value(text),
            json!({"a": true, "b": "yes", "c": false, "d": ["on", 1], "e": [false, {"x": true}]})
        );
        assert_eq!(value("a: 1\nb: 2\na: 3\n"), json!({"a": 3, "b": 2}));
        assert_eq!(value("{1: a, true: b}"), json!({"1": "a", "true": "b"}));
        assert_eq!(value(""), Value::Null);
    }

    #[test]
    fn byte_order_mark_and_windows_line_ends() {
        let (value, lines) = parse("\u{feff}a: on\r\nb:\r\n- c: x\r\n").unwrap();
        assert_eq!(value, json!({"a": true, "b": [{"c": "x"}]}));
        assert_eq!((lines.of_path("a"), lines.of_path("b[0].c")), (Some(1), Some(3)));
    }

    #[test]
    fn anchors_and_merges() {
        let text =
            "base: &b {x: 1, y: 2}\nmore: &m {z: 3, x: 9}\none: {<<: *b, y: 5}\ntwo:\n  <<: [*b, *m]\n";
        assert_eq!(value(text)["one"], json!({"y": 5, "x": 1}));
        assert_eq!(value(text)["two"], json!({"x": 1, "y": 2, "z": 3}));
    }

    #[test]
    fn broken_text_names_its_line() {
        let (line, message) = parse("a: 1\nb: [1\nc: 2\n").unwrap_err();
        assert!(line.is_some() && !message.contains(" at line "), "{message}");
        assert!(parse("a: !python/object x\n").is_err());
        let bomb = (0..40).fold("a0: &a0 [x,x]\n".to_owned(), |text, n| {
            format!("{text}a{}: &a{} [*a{n},*a{n}]\n", n + 1, n + 1)
        });
        assert!(parse(&bomb).is_err());
    }

    #[test]
    fn lines_of_settings() {
        let text = "\
# first
list:
- name: a # 3
  deep:
    x: 1
    text: |
      y: not a key

      more
    z: {a: 1,
        b: 2}
    after: 'it''s'
- name: b
  seq:
  -  - q: 1
     - r: 2
\"quoted key\": 1
other:
  - one
  - two: 2
    three: \"open
      still: text\"
  -
    four: 4
";
        let (_, lines) = parse(text).unwrap();
        let rows = [
            ("list", 2),
            ("list[0]", 3),
            ("list[0].name", 3),
            ("list[0].deep.x", 5),
            ("list[0].deep.text", 6),
            ("list[0].deep.z", 10),
            ("list[0].deep.z.b", 10),
            ("list[0].deep.after", 12),
            ("list[1].name", 13),
            ("list[1].seq[0][0].q", 15),
            ("list[1].seq[0][1].r", 16),
            ("quoted key", 17),
            ("other[0]", 19),
            ("other[1].three", 21),
            ("other[2].four", 24),
        ];
        for (path, line) in rows {
            assert_eq!(lines.of_path(path), Some(line), "{path}");
        }
        assert!(!lines.at.contains_key("list[0].deep.text.y") && !lines.at.contains_key("other[1].still"));
        assert_eq!(lines.of_path("nowhere"), None);
    }
}
