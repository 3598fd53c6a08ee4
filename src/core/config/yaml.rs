//! YAML text as values, read the way LiteLLM's parser reads it, and the lines its settings stand on.
//!
//! Long, because values and lines are read by one grammar, and a third of it is the table of what LiteLLM's parser reads.

use std::fmt;

use hashbrown::HashMap;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A key that stands more than once in one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// `litellm_settings.num_retries`.
    pub path: String,
    /// Line of the one that does not count, from 1.
    pub first: usize,
    /// Line of the one that does.
    pub line: usize,
}

/// A YAML document that was read.
#[derive(Debug)]
pub struct ParsedYaml {
    /// What it says.
    pub value: Value,
    /// Keys that stand more than once.
    pub repeated: Vec<Repeated>,
}

/// Reads a YAML document as LiteLLM's parser does. The error is the line, if there is one, and what is wrong.
pub fn read(text: &str) -> Result<ParsedYaml, (Option<usize>, String)> {
    let (value, lines) = parse(text)?;
    Ok(ParsedYaml { value, repeated: lines.repeated })
}

/// Text that an emitter of YAML 1.2 made of values, with quotes around what YAML 1.1 would take for something else than a text.
pub fn quoted_texts(text: &str) -> String {
    let lines = Lines::of(text);
    let mut quoted: Vec<String> = text.lines().map(str::to_owned).collect();
    for Plain { line, word, .. } in lines.plain.values() {
        if let Some(line) = line.checked_sub(1).and_then(|at| quoted.get_mut(at))
            && let Some(before) = line.strip_suffix(word.as_str())
        {
            *line = format!("{before}'{word}'");
        }
    }
    quoted.join("\n") + "\n"
}

/// A YAML document: YAML 1.1's booleans and whole numbers, merge keys applied, the last of two equal keys counts, keys as text.
pub(super) fn parse(text: &str) -> Result<(Value, Lines), (Option<usize>, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(line) = too_deep(text) {
        return Err((Some(line), format!("lists and maps stand in one another more than {DEEPEST} deep")));
    }
    let node: Node = serde_yaml::from_str(text)
        .map_err(|e| (e.location().map(|at| at.line()), without_position(&e.to_string())))?;
    let lines = Lines::of(text);
    let mut value = node.0;
    if !lines.plain.is_empty() {
        set_plain(&mut value, String::new(), &lines.plain);
    }
    Ok((value, lines))
}

/// So many brackets may be open, and so many dashes begin a line. The parser refuses less than that, but takes time for each open
/// bracket with all that follow.
const DEEPEST: usize = 1_000;

/// The line (from 1) in which a text gets deeper than [`DEEPEST`]. Brackets in texts count as well: those few that are never closed
/// do not come to so many.
fn too_deep(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    text.lines()
        .position(|line| {
            let words = line.split_ascii_whitespace();
            let dashes = words.take_while(|word| matches!(*word, "-" | "?" | ":")).count();
            let mut deepest = open;
            for byte in line.bytes() {
                match byte {
                    b'[' | b'{' => open = open.saturating_add(1),
                    b']' | b'}' => open = open.saturating_sub(1),
                    _ => {}
                }
                deepest = deepest.max(open);
            }
            deepest > DEEPEST || dashes > DEEPEST
        })
        .map(|at| at + 1)
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
    /// Unquoted `yes`, `no`, `on`, `off`, `100_000`, `017`, `0o17`: something else to YAML 1.1 than to the parser.
    plain: HashMap<String, Plain>,
    repeated: Vec<Repeated>,
}

/// A value without quotes and what YAML 1.1 takes it for.
#[derive(Debug)]
struct Plain {
    line: usize,
    word: String,
    value: Value,
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

    /// Finds keys and items by their indentation. Good enough to point at a line; never used for meaning, plain values aside.
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
                self.value(value, column, number);
            }
            None => {
                if let Some(dash) = dash {
                    self.value(rest, dash, number);
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
            if let Some(first) = self.lines.at.insert(top.last.clone(), number)
                && key != "<<"
            {
                self.lines.repeated.push(Repeated { path: top.last.clone(), first, line: number });
            }
        }
    }

    /// The value after a key or dash at `column`: it may go on over the next lines.
    fn value(&mut self, value: &str, column: usize, number: usize) {
        let value = value.trim_start();
        match value.bytes().next() {
            Some(b'|' | b'>') => self.block = Some(column),
            Some(b'&' | b'!') => {
                if let Some((_, rest)) = value.split_once(' ') {
                    self.value(rest, column, number);
                }
            }
            Some(b'{' | b'[' | b'"' | b'\'') => self.flow.scan(value),
            _ => {
                let word = value.split(" #").next().unwrap_or_default().trim();
                if let (Some(value), Some(top)) = (yaml_1_1(word), self.frames.last()) {
                    let plain = Plain { line: number, word: word.to_owned(), value };
                    self.lines.plain.insert(top.last.clone(), plain);
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

/// What YAML 1.1 takes a word for that YAML 1.2 takes for something else.
fn yaml_1_1(word: &str) -> Option<Value> {
    match word {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Some(Value::Bool(true)),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Some(Value::Bool(false)),
        _ => {}
    }
    let (negative, digits) = match word.strip_prefix(['+', '-']) {
        Some(digits) => (word.starts_with('-'), digits),
        None => (false, word),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    // Octal digits begin with a plain zero there.
    if digits.starts_with("0o") {
        return Some(Value::String(word.to_owned()));
    }
    let plain: String = digits.chars().filter(|c| *c != '_').collect();
    if let Some(whole) = whole_number(&plain, digits.contains('_')) {
        return Some(if negative { whole.checked_neg()?.into() } else { whole.into() });
    }
    // `1_000.5`; an exponent needs its sign.
    let (before, after) = plain.split_once('.').filter(|_| digits.contains('_'))?;
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let float: f64 = (all_digits(before) && all_digits(after)).then(|| plain.parse().ok())??;
    Number::from_f64(if negative { -float } else { float }).map(Value::Number)
}

/// A whole number that only YAML 1.1 knows: one with underscores, or octal with a zero in front.
fn whole_number(plain: &str, had_underscores: bool) -> Option<i64> {
    if let Some(binary) = plain.strip_prefix("0b") {
        return i64::from_str_radix(binary, 2).ok().filter(|_| had_underscores);
    }
    if let Some(hex) = plain.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().filter(|_| had_underscores);
    }
    if plain.len() > 1 && plain.starts_with('0') {
        return i64::from_str_radix(plain, 8).ok();
    }
    plain.parse().ok().filter(|_| had_underscores)
}

fn set_plain(value: &mut Value, path: String, plain: &HashMap<String, Plain>) {
    match value {
        Value::String(text) => {
            if let Some(found) = plain.get(&path).filter(|found| found.word == *text) {
                *value = found.value.clone();
            }
        }
        Value::Number(_) => {
            if let Some(found) = plain.get(&path).filter(|found| found.value.is_string()) {
                *value = found.value.clone();
            }
        }
        Value::Array(list) => {
            for (at, value) in list.iter_mut().enumerate() {
                set_plain(value, item(&path, at), plain);
            }
        }
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                set_plain(value, member(&path, name), plain);
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
    fn what_is_too_deep_is_refused_before_it_is_parsed() {
        let rows = [
            ("[".repeat(200_000), 1),
            (format!("a: 1\nb: {}", "[{".repeat(100_000)), 2),
            (format!("a: 1\n{}", "- ".repeat(200_000)), 2),
            (format!("# c\n\n{}", "[\n".repeat(2_000)), 1_003),
            ("? ".repeat(2_000), 1),
        ];
        for (text, line) in rows {
            let (found, why) = parse(&text).unwrap_err();
            assert_eq!(found, Some(line), "{why}");
            assert_eq!(why, "lists and maps stand in one another more than 1000 deep");
        }
        // What the parser refuses itself is not so deep that it takes time.
        let (_, why) = parse(&"[".repeat(500)).unwrap_err();
        assert!(why.contains("recursion limit"), "{why}");
        let flat = format!("a: [{}]\nb: '{}'", "[],".repeat(5_000), "]".repeat(5_000));
        assert!(parse(&flat).is_ok());
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
    fn numbers_are_those_of_yaml_1_1() {
        let text = "a: 100_000\nb: '100_000'\nc: 017\nd: 0o17\ne: 0x1F\nf: -1_0.5\ng: 2024-01-01\nh: 1_a\ni: 0b1_1\nj: 08\nk: _1\n";
        let read = json!({"a": 100_000, "b": "100_000", "c": 15, "d": "0o17", "e": 31, "f": -10.5, "g": "2024-01-01",
            "h": "1_a", "i": 3, "j": "08", "k": "_1"});
        assert_eq!(value(text), read);
    }

    #[test]
    fn what_is_emitted_is_read_back() {
        let there = json!({"a": ["yes", true, {"b": "100_000", "c": 100_000, "d": "No"}], "e": "x: yes\ny: off\n", "f": "0o17",
            "on": "on", "g": "it's on"});
        let emitted = serde_yaml::to_string(&there).unwrap();
        assert_eq!(value(&quoted_texts(&emitted)), there);
    }

    #[test]
    fn keys_that_stand_twice_are_told() {
        let text = "a: 1\nb:\n- x: 1\n  y: 2\n  x: 3\n- x: 1\na:\n  c: 1\nd: {x: 1}\n";
        let read = read(text).unwrap();
        assert_eq!(read.value["a"], json!({"c": 1}));
        let found: Vec<_> = read.repeated.iter().map(|r| (r.path.as_str(), r.first, r.line)).collect();
        assert_eq!(found, [("b[0].x", 3, 5), ("a", 1, 7)]);
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
