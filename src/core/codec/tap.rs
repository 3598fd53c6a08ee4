//! A few top-level members of a JSON object that streams by, without keeping the rest.
//!
//! A buffered response of any size passes through in chunks; its `usage` and `id` are all that is wanted of it.

use memchr::memchr2;

/// Watches one JSON object go by and keeps the raw text of chosen top-level members.
///
/// For a well-formed object what it keeps equals what [`Object`](super::json::Object) finds in the same bytes (when a name
/// comes twice, the last value). It is no validator: of other bytes it keeps something or nothing, and never more than the
/// cap for each name.
#[derive(Debug)]
pub struct Tap {
    names: &'static [&'static str],
    cap: usize,
    found: Vec<Option<Vec<u8>>>,
    /// The first byte of each member's value.
    first: Vec<Option<u8>>,
    state: State,
    /// Open brackets inside the member's value.
    depth: u64,
    /// The member's name as it stands in the text, without quotes.
    key: Vec<u8>,
    /// Index of the member in progress in `names`, if it is wanted and has not grown past the cap.
    wanted: Option<usize>,
    /// What there is of its value.
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    BeforeKey,
    Key {
        escaped: bool,
    },
    Colon,
    BeforeValue,
    /// A number, `true`, `false`, `null`.
    Scalar,
    /// In an array or object, outside strings.
    Nested,
    Text {
        escaped: bool,
    },
    AfterValue,
    Done,
    Broken,
}

impl Tap {
    /// Keeps the members called `names`, each up to `cap` bytes of value; a longer one counts as absent.
    pub fn new(names: &'static [&'static str], cap: usize) -> Tap {
        Tap {
            names,
            cap,
            found: vec![None; names.len()],
            first: vec![None; names.len()],
            state: State::Start,
            depth: 0,
            key: Vec::new(),
            wanted: None,
            held: Vec::new(),
        }
    }

    /// Looks at the next bytes.
    pub fn push(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while !rest.is_empty() && !self.is_done() {
            let used = self.step(rest);
            rest = rest.get(used..).unwrap_or_default();
        }
    }

    /// The raw text of a member, once it has gone by whole.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let at = self.names.iter().position(|n| *n == name)?;
        self.found.get(at)?.as_deref()
    }

    /// The first byte of a member's value, once it has gone by.
    pub fn first(&self, name: &str) -> Option<u8> {
        let at = self.names.iter().position(|n| *n == name)?;
        self.first.get(at).copied().flatten()
    }

    /// Whether nothing more can be found: the object has ended, or this is none.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done | State::Broken)
    }

    /// Goes on by some of `rest` (never empty) and returns how many bytes that was; none only when the state changes.
    fn step(&mut self, rest: &[u8]) -> usize {
        let first = rest.first().copied().unwrap_or(b' ');
        match self.state {
            State::Key { .. } | State::Text { .. } => return self.text(rest),
            State::Nested => return self.nested(rest),
            State::Scalar => return self.scalar(rest),
            _ if is_space(first) => return 1,
            _ => {}
        }
        self.state = match (self.state, first) {
            (State::Start, b'{') => State::BeforeKey,
            (State::BeforeKey, b'"') => {
                self.key.clear();
                State::Key { escaped: false }
            }
            (State::Colon, b':') => State::BeforeValue,
            (State::BeforeValue, _) => return self.value(first),
            (State::AfterValue, b',') => State::BeforeKey,
            // `{}`; a comma before the bracket is not told from it.
            (State::AfterValue | State::BeforeKey, b'}') => State::Done,
            _ => State::Broken,
        };
        1
    }

    /// The first byte of a value.
    fn value(&mut self, first: u8) -> usize {
        self.wanted = self.wanted_by_key();
        if let Some(found) = self.wanted.and_then(|at| self.found.get_mut(at)) {
            *found = None;
        }
        if let Some(seen) = self.wanted.and_then(|at| self.first.get_mut(at)) {
            *seen = Some(first);
        }
        self.held.clear();
        self.depth = 0;
        self.state = match first {
            b'"' => State::Text { escaped: false },
            b'{' | b'[' => {
                self.depth = 1;
                State::Nested
            }
            b',' | b':' | b'}' | b']' => State::Broken,
            _ => State::Scalar,
        };
        self.hold(&[first]);
        1
    }

    fn text(&mut self, rest: &[u8]) -> usize {
        let (key, escaped) = match self.state {
            State::Key { escaped } => (true, escaped),
            State::Text { escaped } => (false, escaped),
            _ => return 0,
        };
        let end = if escaped { None } else { memchr2(b'"', b'\\', rest) };
        let (used, closed, escaped) = match end.and_then(|at| Some((at, rest.get(at)?))) {
            _ if escaped => (1, false, false),
            Some((at, b'"')) => (at + 1, true, false),
            Some((at, _)) => (at + 1, false, true),
            None => (rest.len(), false, false),
        };
        let run = rest.get(..used).unwrap_or_default();
        if key {
            // Longer than any name could be, even with every character escaped: one byte more marks it as such.
            let room = (self.longest_key() + 1).saturating_sub(self.key.len());
            let name = run.get(..used - usize::from(closed)).unwrap_or_default();
            self.key.extend_from_slice(name.get(..room).unwrap_or(name));
            self.state = if closed { State::Colon } else { State::Key { escaped } };
        } else {
            self.hold(run);
            match (closed, self.depth) {
                (true, 0) => self.keep(),
                (true, _) => self.state = State::Nested,
                (false, _) => self.state = State::Text { escaped },
            }
        }
        used
    }

    fn nested(&mut self, rest: &[u8]) -> usize {
        for (at, byte) in rest.iter().enumerate() {
            match byte {
                b'"' => self.state = State::Text { escaped: false },
                b'{' | b'[' => {
                    self.depth += 1;
                    continue;
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth > 0 {
                        continue;
                    }
                }
                _ => continue,
            }
            self.hold(rest.get(..=at).unwrap_or_default());
            if self.depth == 0 {
                self.keep();
            }
            return at + 1;
        }
        self.hold(rest);
        rest.len()
    }

    fn scalar(&mut self, rest: &[u8]) -> usize {
        let end = rest.iter().position(|&b| is_space(b) || matches!(b, b',' | b'}' | b']'));
        let used = end.unwrap_or(rest.len());
        self.hold(rest.get(..used).unwrap_or_default());
        if end.is_some() {
            self.keep();
        }
        used
    }

    fn hold(&mut self, run: &[u8]) {
        if self.wanted.is_none() {
            return;
        }
        if self.held.len() + run.len() > self.cap {
            self.wanted = None;
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(run);
        }
    }

    /// The value in progress is whole.
    fn keep(&mut self) {
        self.state = State::AfterValue;
        if let Some(found) = self.wanted.take().and_then(|at| self.found.get_mut(at)) {
            *found = Some(std::mem::take(&mut self.held));
        }
    }

    fn wanted_by_key(&self) -> Option<usize> {
        if !self.key.contains(&b'\\') {
            return self.names.iter().position(|name| name.as_bytes() == self.key);
        }
        let quoted = [b"\"", self.key.as_slice(), b"\""].concat();
        let name: String = serde_json::from_slice(&quoted).ok()?;
        self.names.iter().position(|n| *n == name)
    }

    /// Bytes of the longest name with every character written as `\uXXXX`.
    fn longest_key(&self) -> usize {
        self.names.iter().map(|name| name.len() * 6).max().unwrap_or(0)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::codec::json::Object;

    const NAMES: &[&str] = &["usage", "id", "model", "error"];

    fn tapped<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, cap: usize) -> Vec<Option<String>> {
        let mut tap = Tap::new(NAMES, cap);
        for chunk in chunks {
            tap.push(chunk);
        }
        NAMES.iter().map(|n| tap.get(n).map(|raw| String::from_utf8_lossy(raw).into_owned())).collect()
    }

    /// Every split reads alike, and like the whole parser where that takes the bytes.
    fn fuzz(bytes: &[u8]) {
        let whole = tapped([bytes], 1 << 16);
        if let Ok(object) = Object::parse(bytes) {
            let expected: Vec<_> = NAMES.iter().map(|n| object.raw(n).map(str::to_owned)).collect();
            assert_eq!(whole, expected, "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(tapped(bytes.chunks(1), 1 << 16), whole);
        for at in 0..=bytes.len() {
            let (a, b) = bytes.split_at(at);
            assert_eq!(tapped([a, b], 1 << 16), whole, "split at {at}");
        }
    }

    #[test]
    fn members_as_the_whole_parser_finds_them() {
        let rows = [
            r#"{}"#,
            r#" { } "#,
            r#"{"usage":{"prompt_tokens":1,"x":[{"id":"no"}]},"id":"a"}"#,
            r#"{"choices":[{"message":{"content":"}\"]{ \\","usage":7}}], "usage" : { "a" : [1, 2] } , "id" : "x\"y\\" }"#,
            r#"{"usage":null,"id":1.50e+07,"model":true,"error":-0}"#,
            r#"{"id":"first","id":"second"}"#,
            r#"{"id":"first","id":null}"#,
            r#"{"u\u0073age":1,"\u006d\u006f\u0064\u0065\u006c":"e","\u0065\u0072\u0072\u006f\u0072x":2}"#,
            r#"{"usagexxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx":1,"ID":2,"":3,"id":""}"#,
            "{\n\t\"id\"\r\n:\n\"h\u{e9} \u{1f600}\"\n,\"model\":\n[\n]\n}\n",
            r#"{"data":[[0.1,-2e-3],[[],{}]],"model":"m","usage":{"total_tokens":12345678901234567890123}}"#,
            r#"{"error":{"message":"a","code":null}}"#,
        ];
        for row in rows {
            assert!(Object::parse(row.as_bytes()).is_ok(), "{row}");
            fuzz(row.as_bytes());
        }
    }

    #[test]
    fn garbage_finds_something_or_nothing_and_never_panics() {
        for row in [
            "",
            "[1]",
            "nope",
            "{",
            "{{",
            "{\"id\":}",
            "{\"id\" 1}",
            "{\"id\":1,,}",
            "{\"id\":]]]",
            "{\"id\":\"a",
        ] {
            fuzz(row.as_bytes());
        }
        const PARTS: [&[u8]; 16] = [
            b"{",
            b"}",
            b"[",
            b"]",
            b"\"",
            b"\\",
            b",",
            b":",
            b" ",
            b"\"id\":",
            b"\"usage\"",
            b"1",
            b"\xff",
            b"u0069",
            b"\"a\":{}",
            b"null",
        ];
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..3_000 {
            let mut bytes = b"{".to_vec();
            for _ in 0..12 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                bytes.extend_from_slice(PARTS[(seed % 16) as usize]);
            }
            fuzz(&bytes);
        }
    }

    #[test]
    fn a_value_past_the_cap_is_absent_and_not_kept() {
        let body = br#"{"usage":{"a":"0123456789"},"id":"12345678","model":"1234567","error":12345678901}"#;
        for size in 1..=body.len() {
            let found = tapped(body.chunks(size), 10);
            assert_eq!(found, [None, Some("\"12345678\"".into()), Some("\"1234567\"".into()), None]);
        }
        let mut tap = Tap::new(NAMES, 10);
        tap.push(b"{\"usage\":\"");
        for _ in 0..1_000 {
            tap.push(&[b'x'; 1_000]);
        }
        assert!(tap.held.capacity() < 64);
    }

    #[test]
    fn done_when_the_object_has_ended() {
        let mut tap = Tap::new(NAMES, 64);
        tap.push(br#"{"id":"a","x":{}"#);
        assert!(!tap.is_done());
        assert_eq!(tap.get("id"), Some(&b"\"a\""[..]));
        assert_eq!((tap.get("usage"), tap.get("unknown")), (None, None));
        tap.push(b"} trailing {\"id\":2}");
        assert!(tap.is_done());
        assert_eq!(tap.get("id"), Some(&b"\"a\""[..]));
    }
}
