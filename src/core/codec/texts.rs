//! How much text is in an answer that goes by: what its tokens are estimated from when its provider does not count them.

use super::scan::plain;

/// Members whose texts an answer is made of, in the formats of all providers.
const NAMES: [&[u8]; 9] = [
    b"content",
    b"text",
    b"arguments",
    b"partial_json",
    b"reasoning_content",
    b"reasoning",
    b"thinking",
    b"refusal",
    b"generated_text",
];
/// A member whose object is a text where it is not streamed: what Anthropic calls a tool with.
const OBJECT: &[u8] = b"input";
/// No shorter than the longest name.
const NAME_BYTES: usize = 20;

/// Adds up the texts of JSON that comes in pieces, without keeping or checking it.
#[derive(Debug, Default)]
pub struct Texts {
    bytes: u64,
    state: State,
    /// The last string that is no text, as far as it may be a name.
    name: [u8; NAME_BYTES],
    length: usize,
    /// The value that begins next is a text.
    wanted: bool,
    /// The value that begins next is the object of [`OBJECT`].
    wanted_object: bool,
    /// Open brackets.
    depth: u32,
    /// How many of them were open where the object that counts as a whole began.
    whole: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Outside,
    /// In a string, which counts or not.
    Text(bool),
    /// Behind a backslash in it.
    Escape(bool),
    /// In the four digits of an escape: so many are left, and this is their value so far.
    Digits(bool, u8, u32),
}

impl Texts {
    /// Bytes of text so far, as UTF-8.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Looks at the next bytes.
    pub fn push(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while !rest.is_empty() {
            rest = self.step(rest);
        }
    }

    /// Looks at one value, which may have more behind it.
    pub fn push_value(&mut self, text: &[u8]) {
        if let Some(bytes) = only_text(text).filter(|_| self.state == State::Outside && self.whole.is_none())
        {
            return self.add(bytes);
        }
        let mut rest = text;
        let outside = self.depth;
        while !rest.is_empty() {
            rest = self.step(rest);
            if self.depth == outside && self.state == State::Outside {
                break;
            }
        }
    }

    fn step<'r>(&mut self, rest: &'r [u8]) -> &'r [u8] {
        let Some((&first, after)) = rest.split_first() else { return rest };
        let was_whole = self.whole.is_some();
        let left = match self.state {
            State::Outside => {
                self.outside(first);
                after
            }
            State::Text(counts) => match plain(rest) {
                0 => {
                    match first {
                        b'"' => self.state = State::Outside,
                        b'\\' => self.state = State::Escape(counts),
                        _ => {}
                    }
                    after
                }
                run => {
                    self.take(counts, rest.get(..run).unwrap_or_default());
                    rest.get(run..).unwrap_or_default()
                }
            },
            State::Escape(counts) => {
                self.state = if first == b'u' { State::Digits(counts, 4, 0) } else { State::Text(counts) };
                if first != b'u' {
                    self.take(counts, b"\\");
                }
                after
            }
            State::Digits(counts, left, value) => {
                let digit = char::from(first).to_digit(16).unwrap_or(0);
                self.digit(counts, left, value.wrapping_mul(16).wrapping_add(digit));
                after
            }
        };
        if was_whole {
            self.add(rest.len().saturating_sub(left.len()));
        }
        left
    }

    fn outside(&mut self, byte: u8) {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => return,
            b'"' => {
                // What is in an object that counts as a whole is not counted twice.
                let counts = self.wanted && self.whole.is_none();
                self.state = State::Text(counts);
                self.length = 0;
            }
            b':' => {
                let name = self.name.get(..self.length).unwrap_or_default();
                self.wanted = NAMES.contains(&name);
                self.wanted_object = name == OBJECT;
                return;
            }
            b'{' | b'[' => {
                if byte == b'{' && self.wanted_object && self.whole.is_none() {
                    self.whole = Some(self.depth);
                    self.add(1);
                }
                self.depth = self.depth.saturating_add(1);
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.whole == Some(self.depth) {
                    self.whole = None;
                }
            }
            _ => {}
        }
        (self.wanted, self.wanted_object) = (false, false);
    }

    /// A part of a string.
    fn take(&mut self, counts: bool, part: &[u8]) {
        if counts {
            return self.add(part.len());
        }
        for byte in part {
            if let Some(place) = self.name.get_mut(self.length) {
                *place = *byte;
            }
            self.length = self.length.saturating_add(1);
        }
    }

    fn digit(&mut self, counts: bool, left: u8, value: u32) {
        if left > 1 {
            self.state = State::Digits(counts, left - 1, value);
            return;
        }
        self.state = State::Text(counts);
        // Half of a pair is half of four bytes.
        let size = match value {
            0..0x80 => 1,
            0x80..0x800 | 0xd800..0xe000 => 2,
            _ => 3,
        };
        self.take(counts, b"\\u\\".get(..size).unwrap_or_default());
    }

    fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

/// How long the text is in a value that is just a text without escapes: most events of most streams are.
fn only_text(value: &[u8]) -> Option<usize> {
    let openings: [&[u8]; 2] = [b"{\"content\":\"", b"{\"type\":\"text_delta\",\"text\":\""];
    let text = openings.iter().find_map(|opening| value.strip_prefix(*opening))?;
    let length = plain(text);
    text.get(length..)?.starts_with(b"\"}").then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_counted_whatever_the_format_and_wherever_it_is_cut() {
        let rows: [(&str, u64); 12] = [
            (r#"{"choices":[{"message":{"role":"assistant","content":"four"}}]}"#, 4),
            (
                r#"{"choices":[{"message":{"content":null,"tool_calls":[{"function":{"name":"f","arguments":"{\"a\":1}"}}]}}]}"#,
                7,
            ),
            (
                r#"{"content":[{"type":"text","text":"one"},{"type":"thinking","thinking":"four","signature":"no"}]}"#,
                7,
            ),
            (r#"{"content":[{"type":"tool_use","name":"n","input":{"a":{"text":"}"}}}],"id":"no"}"#, 18),
            (r#"{"choices":[{"text":"ab","index":0},{"text":"c"}],"model":"text"}"#, 3),
            (r#"[{"generated_text":"abc","details":{"tokens":[{"text":"abc"}]}}]"#, 6),
            (r#"{"content":"\n\"\\/ü\u00fc\u20AC\ud83d\ude00"}"#, 15),
            (r#"{"content" : [ "no" , {"text":{"no":"no"}} ], "text": 7, "x": "content", "y": "no"}"#, 0),
            (r#"{"conte\u006et":"no","contents":"no","a_very_long_name_of_content":"no"}"#, 0),
            (r#"{"usage":{"text":null},"input":"no"}"#, 0),
            ("", 0),
            (r#"}]"text":"ab"#, 2),
        ];
        for (text, expected) in rows {
            for at in 0..=text.len() {
                let mut texts = Texts::default();
                let (one, two) = text.as_bytes().split_at(at);
                texts.push(one);
                texts.push(two);
                assert_eq!(texts.bytes(), expected, "{text} at {at}");
            }
        }
    }

    #[test]
    fn one_value_ends_where_it_ends() {
        let mut texts = Texts::default();
        texts.push_value(br#"{"content":"ab","x":[{}]},"text":"no"}"#);
        texts.push_value(br#"null,"text":"no"}"#);
        texts.push_value(br#""a string","text":"no"}"#);
        texts.push_value(br#"{"text":"c"#);
        assert_eq!(texts.bytes(), 3);
        let rows: [(&str, u64); 7] = [
            (r#"{"content":"four"},"text":"no"}"#, 4),
            (r#"{"content":"f\u006fur"},"text":"no"}"#, 4),
            (r#"{"content":"four","refusal":"no"},"text":"no"}"#, 6),
            (r#"{"content":""},"text":"no"}"#, 0),
            (r#"{"type":"text_delta","text":"ü"}}"#, 2),
            (r#"{"type":"text_delta","text":"cut"#, 3),
            (r#"{"content":null}"#, 0),
        ];
        for (value, expected) in rows {
            let mut texts = Texts::default();
            texts.push_value(value.as_bytes());
            assert_eq!(texts.bytes(), expected, "{value}");
        }
    }
}
