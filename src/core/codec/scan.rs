//! Finds the members of a JSON object without reading their values: what the gateway does to most of the bytes it carries.
//!
//! One pass over the bytes, sixteen in one step inside strings, no recursion. Whatever is not plainly valid here is left to
//! `serde_json`, which then says what is wrong with it (or that nothing is), so this has no errors of its own.

use std::borrow::Cow;

use super::needle::Needle;

/// A member: its name, its value as text, and what is in that.
pub type Member<'a> = (Cow<'a, str>, Cow<'a, str>, Contents);

/// What a member's value holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// How many values: what a tree of it would be made of.
    pub values: usize,
    /// Which words.
    pub words: Words,
}

/// Words that bodies are searched for: names of members, and values. The scan goes past each of them anyway, so finding them costs
/// no pass of its own. A word with escapes in it is not found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words(u16);

impl Words {
    /// `null`.
    pub const NULL: Words = Words(1);
    /// `"text"`.
    pub const TEXT: Words = Words(2);
    /// `"image_url"`.
    pub const IMAGE_URL: Words = Words(4);
    /// `"developer"`.
    pub const DEVELOPER: Words = Words(8);
    /// `"cache_control"`.
    pub const CACHE_CONTROL: Words = Words(16);
    /// What a response has and most providers take from nobody: `"reasoning_content"`, `"thinking_blocks"`,
    /// `"provider_specific_fields"`, `"extra_content"`, `"annotations"`.
    pub const EXTENSIONS: Words = Words(32);
    /// `"reasoning"`.
    pub const REASONING: Words = Words(64);
    /// `"tool_calls"`.
    pub const TOOL_CALLS: Words = Words(128);
    /// `"stop"`.
    pub const STOP: Words = Words(256);
    /// A string that begins with `<`.
    pub const TAG: Words = Words(512);
    /// An id with the signature of a thought in it.
    pub const THOUGHT: Words = Words(1024);
    /// `"index"`.
    pub const INDEX: Words = Words(2048);
    /// `"error"`.
    pub const ERROR: Words = Words(4096);
    /// Whatever there may be: nobody has looked.
    pub const ALL: Words = Words(u16::MAX);

    /// Whether one of `others` is among them.
    pub fn have(self, others: Words) -> bool {
        self.0 & others.0 != 0
    }

    fn add(&mut self, others: Words) {
        self.0 |= others.0;
    }

    /// The word that a string is.
    fn of(text: &[u8]) -> Words {
        match text {
            b"text" => Words::TEXT,
            b"image_url" => Words::IMAGE_URL,
            b"developer" => Words::DEVELOPER,
            b"error" => Words::ERROR,
            b"cache_control" => Words::CACHE_CONTROL,
            b"reasoning_content"
            | b"thinking_blocks"
            | b"provider_specific_fields"
            | b"extra_content"
            | b"annotations" => Words::EXTENSIONS,
            b"index" => Words::INDEX,
            b"reasoning" => Words::REASONING,
            b"tool_calls" => Words::TOOL_CALLS,
            b"stop" => Words::STOP,
            // Some servers escape it.
            [b'<', ..] | [b'\\', b'u', b'0', b'0', b'3', b'c' | b'C', ..] => Words::TAG,
            _ => Words::default(),
        }
    }
}

/// What stands in a call's id between the provider's own id and the signature of the thought behind the call. LiteLLM's word.
pub const THOUGHT: &str = "__thought__";

static THOUGHT_IN_ID: Needle = Needle::new(THOUGHT);

/// An object with more members than this is taken for none: no client means it.
pub const MOST_MEMBERS: usize = 100_000;

/// How many values are in a JSON text, its own included: never fewer than there are.
pub fn values(text: &str) -> usize {
    let mut rest = text.as_bytes();
    let mut values = 1_usize;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b',' | b'[' | b'{' => values = values.saturating_add(1),
            b'"' => rest = after_string(rest),
            _ => {}
        }
    }
    values
}

/// Where a string ends whose content begins at `start`: behind its last quote.
pub fn string_end(bytes: &[u8], start: usize) -> usize {
    bytes.len() - after_string(bytes.get(start..).unwrap_or_default()).len()
}

/// What follows a string whose first quote has been read.
fn after_string(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    loop {
        let special = rest.get(plain(rest)..).unwrap_or_default();
        match special.split_first() {
            Some((b'"', after)) => return after,
            Some((b'\\', after)) => rest = after.get(1..).unwrap_or_default(),
            Some((_, after)) => rest = after,
            None => return special,
        }
    }
}

/// The members of the object that `text` holds, in order; `None` when it is no valid object, or may be none.
pub fn members(text: &str) -> Option<Vec<Member<'_>>> {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0, contents: Contents::default() };
    let mut members = Vec::with_capacity(12);
    scan.skip_space();
    scan.expect(b'{')?;
    scan.skip_space();
    if scan.peek() == Some(b'}') {
        scan.at += 1;
    } else {
        loop {
            scan.skip_space();
            let start = scan.at;
            let escaped = scan.skip_string()?;
            let name = text.get(start..scan.at)?;
            let name = match escaped {
                false => Cow::Borrowed(name.get(1..name.len().checked_sub(1)?)?),
                true => Cow::Owned(serde_json::from_str(name).ok()?),
            };
            scan.skip_space();
            scan.expect(b':')?;
            scan.skip_space();
            let start = scan.at;
            scan.contents = Contents::default();
            scan.skip_value()?;
            if members.len() == MOST_MEMBERS {
                return None;
            }
            members.push((name, Cow::Borrowed(text.get(start..scan.at)?), scan.contents));
            scan.skip_space();
            match scan.next()? {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
    }
    scan.skip_space();
    (scan.at == text.len()).then_some(members)
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    /// What has been found inside arrays and objects since the member began.
    contents: Contents,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Goes past a value of any kind.
    fn skip_value(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.skip_string().map(|_| ()),
            b'{' | b'[' => self.skip_nested(),
            _ => self.skip_plain(),
        }
    }

    /// Goes past an object or an array.
    fn skip_nested(&mut self) -> Option<()> {
        // The brackets that are open.
        let mut open: Vec<u8> = Vec::with_capacity(16);
        loop {
            // A value begins here.
            self.contents.values += 1;
            match self.peek()? {
                b'"' => self.skip_word()?,
                bracket @ (b'{' | b'[') => {
                    self.at += 1;
                    self.skip_space();
                    let closing = if bracket == b'{' { b'}' } else { b']' };
                    if self.peek()? != closing {
                        open.push(bracket);
                        self.skip_name(bracket)?;
                        continue;
                    }
                    self.at += 1;
                }
                _ => self.skip_plain()?,
            }
            // A value has ended.
            loop {
                let Some(&bracket) = open.last() else { return Some(()) };
                self.skip_space();
                match (self.next()?, bracket) {
                    (b',', _) => {
                        self.skip_space();
                        self.skip_name(bracket)?;
                        break;
                    }
                    (b'}', b'{') | (b']', b'[') => _ = open.pop(),
                    _ => return None,
                }
            }
        }
    }

    /// In an object goes past a member's name, to its value.
    fn skip_name(&mut self, bracket: u8) -> Option<()> {
        if bracket == b'{' {
            self.skip_word()?;
            self.skip_space();
            self.expect(b':')?;
            self.skip_space();
        }
        Some(())
    }

    /// Goes past a number, `true`, `false` or `null`.
    fn skip_plain(&mut self) -> Option<()> {
        let rest = self.bytes.get(self.at..)?;
        let word: &[u8] = match rest.first()? {
            b't' => b"true",
            b'f' => b"false",
            b'n' => {
                self.contents.words.add(Words::NULL);
                b"null"
            }
            _ => return self.skip_number(),
        };
        self.at += word.len();
        rest.starts_with(word).then_some(())
    }

    fn skip_number(&mut self) -> Option<()> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Some(())
    }

    fn some_digits(&mut self) -> Option<()> {
        let start = self.at;
        self.skip_digits();
        (self.at > start).then_some(())
    }

    fn skip_digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    /// Goes past a string, and notes it when it is one of the [`Words`].
    fn skip_word(&mut self) -> Option<()> {
        let start = self.at + 1;
        self.skip_string()?;
        let word = self.bytes.get(start..self.at - 1)?;
        self.contents.words.add(Words::of(word));
        if word.len() > THOUGHT.len() && is_id(self.bytes.get(..start - 1)?) && THOUGHT_IN_ID.is_in(word) {
            self.contents.words.add(Words::THOUGHT);
        }
        Some(())
    }

    /// Goes past a string and tells whether it has escapes.
    fn skip_string(&mut self) -> Option<bool> {
        self.expect(b'"')?;
        let mut escaped = false;
        loop {
            self.at += plain(self.bytes.get(self.at..)?);
            match self.next()? {
                b'"' => return Some(escaped),
                b'\\' => {
                    escaped = true;
                    self.skip_escape()?;
                }
                _ => return None,
            }
        }
    }

    /// Goes past what follows a backslash.
    fn skip_escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.bytes.get(self.at..self.at.checked_add(4)?)?;
                self.at += digits.len();
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }
}

/// Whether what follows is the value of an `id`, or of a member whose name ends like that.
fn is_id(before: &[u8]) -> bool {
    let name = before.trim_ascii_end().strip_suffix(b":").unwrap_or_default();
    name.trim_ascii_end().ends_with(b"id\"")
}

/// Whether a byte ends the plain part of a string.
fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// So many bytes are looked at together: as many as a vector holds.
const LANES: usize = 16;

/// How many bytes can stand in a JSON string as they are, before one that cannot or the end.
pub fn plain(bytes: &[u8]) -> usize {
    let (chunks, tail) = bytes.as_chunks();
    for (before, chunk) in chunks.iter().enumerate() {
        if let Some(special) = first_special(chunk) {
            return before * LANES + special;
        }
    }
    chunks.len() * LANES + plain_end(tail)
}

/// [`plain`] for what is shorter than a vector. Not in line: a body has many strings, and the loop before this one is all that
/// most of a long one's parts need.
#[inline(never)]
fn plain_end(bytes: &[u8]) -> usize {
    let (words, tail) = bytes.as_chunks();
    for (before, word) in words.iter().enumerate() {
        match specials(u64::from_le_bytes(*word)) {
            0 => {}
            found => return before * size_of::<u64>() + found.trailing_zeros() as usize / 8,
        }
    }
    let rest = tail.iter().position(|&byte| is_special(byte)).unwrap_or(tail.len());
    bytes.len() - tail.len() + rest
}

/// Where the first special byte of a chunk is.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
fn first_special(chunk: &[u8; LANES]) -> Option<usize> {
    use core::arch::wasm32::{i8x16_bitmask, i8x16_eq, i8x16_splat, u8x16_lt, u8x16_splat, u64x2, v128_or};

    let (low, high) = words(chunk);
    let bytes = u64x2(low, high);
    let quote = i8x16_eq(bytes, i8x16_splat(b'"' as i8));
    let backslash = i8x16_eq(bytes, i8x16_splat(b'\\' as i8));
    let found = i8x16_bitmask(v128_or(v128_or(quote, backslash), u8x16_lt(bytes, u8x16_splat(0x20))));
    (found != 0).then(|| found.trailing_zeros() as usize)
}

/// Where the first special byte of a chunk is.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
fn first_special(chunk: &[u8; LANES]) -> Option<usize> {
    let (low, high) = words(chunk);
    match (specials(low), specials(high)) {
        (0, 0) => None,
        (0, found) => Some(8 + found.trailing_zeros() as usize / 8),
        (found, _) => Some(found.trailing_zeros() as usize / 8),
    }
}

fn words(chunk: &[u8; LANES]) -> (u64, u64) {
    let both = u128::from_le_bytes(*chunk);
    (both as u64, (both >> 64) as u64)
}

/// Marks the special bytes among the eight of a word: the lowest bit that is set is the highest of the first special byte. (Bits
/// above it may be set for bytes that are none: what is subtracted may borrow from the byte after a special one.)
fn specials(word: u64) -> u64 {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    let below = word.wrapping_sub(EACH * 0x20);
    let quote = (word ^ (EACH * b'"' as u64)).wrapping_sub(EACH);
    let backslash = (word ^ (EACH * b'\\' as u64)).wrapping_sub(EACH);
    (below | quote | backslash) & !word & (EACH * 0x80)
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::core::random::Random;

    #[test]
    fn words_are_found_where_they_are_names_or_values() {
        let words = |value: &str| {
            let text = format!(r#"{{"a":{value},"null":[]}}"#);
            members(&text).unwrap()[0].2.words
        };
        let rows = [
            (r#"[{"role":"developer"}]"#, Words::DEVELOPER),
            (r#"[{"image_url":{}}]"#, Words::IMAGE_URL),
            (r#"[{"type":"text"}]"#, Words::TEXT),
            (r#"[{"x":[null]}]"#, Words::NULL),
            (r#"{"cache_control":1}"#, Words::CACHE_CONTROL),
            (r#"[{"thinking_blocks":1}]"#, Words::EXTENSIONS),
            (r#"[{"reasoning":1}]"#, Words::REASONING),
            (r#"[{"tool_calls":[]}]"#, Words::TOOL_CALLS),
            (r#"["stop"]"#, Words::STOP),
            (r#"["<think>"]"#, Words::TAG),
            (r#"["\u003Cthink\u003e"]"#, Words::TAG),
            (r#"[{"id":"call_1__thought__A"}]"#, Words::THOUGHT),
            (r#"[{"tool_call_id" : "call_1__thought__A"}]"#, Words::THOUGHT),
            (
                r#"[{"content":"call_1__thought__A","id":"call_123456789","x":["a__thought__b"]}]"#,
                Words::default(),
            ),
            (r#"[{"error":{"code":1}}]"#, Words::ERROR),
            (r#"[" developer","\"text\"","null",1,true,{}]"#, Words::default()),
        ];
        for (value, expected) in rows {
            assert_eq!(words(value), expected, "{value}");
        }
        // What stands beside it is another member's.
        let members = members(r#"{"a":["text"],"b":["developer"]}"#).unwrap();
        assert_eq!((members[0].2.words, members[1].2.words), (Words::TEXT, Words::DEVELOPER));
    }

    /// What `serde_json` makes of the same text.
    fn expected(text: &str) -> Option<Vec<(String, String)>> {
        let read: indexed::Members<'_> = serde_json::from_str(text).ok()?;
        Some(read.0.into_iter().map(|(name, raw)| (name, raw.get().to_owned())).collect())
    }

    mod indexed {
        use super::*;

        /// Members in order, repeated ones too.
        pub struct Members<'a>(pub Vec<(String, &'a RawValue)>);

        impl<'de> serde::Deserialize<'de> for Members<'de> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = Members<'de>;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<Members<'de>, A::Error> {
                        let mut members = Vec::new();
                        while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
                            members.push(member);
                        }
                        Ok(Members(members))
                    }
                }
                deserializer.deserialize_map(Visitor)
            }
        }
    }

    fn found(text: &str) -> Option<Vec<(String, String)>> {
        Some(members(text)?.into_iter().map(|(name, raw, _)| (name.into_owned(), raw.into_owned())).collect())
    }

    const TEXTS: [&str; 14] = [
        "{}",
        " { } ",
        r#"{"a":1}"#,
        "\n{ \"a\" :\t[ ] , \"b\" : { } }\r",
        r#"{"a":-0.5e+10,"b":0,"c":10E-2,"d":[true,false,null,{"e":[[[]]],"f":{}}]}"#,
        r#"{"a":"a longer text than one vector, \"quoted\", \\ \/ \b\f\n\r\t \u00e9\uD83D é ü 漢字","a":"again"}"#,
        r#"{"n\u006fte":"","\"":"","":{"":""}}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"The quick brown fox"}]},{"role":"assistant","content":null}],"temperature":0.7}"#,
        r#"{"a":1,}"#,
        r#"{"a":01}"#,
        r#"{"a":[1,]}"#,
        r#"[1,2]"#,
        r#"{"a":"\x"}"#,
        "{\"a\":\"line\nbreak\"}",
    ];

    #[test]
    fn what_serde_json_takes_is_taken_and_cut_alike() {
        for text in TEXTS {
            assert_eq!(found(text), expected(text), "{text}");
        }
    }

    #[test]
    fn whatever_happens_to_a_text_both_say_the_same() {
        let mut random = Random::new(7);
        let letters = b"{}[]\",:\\ \n0123456789.eE+-truefalsnu/bx\x01\x1fu00e9 ";
        let (mut valid, mut invalid) = (0, 0);
        for round in 0..60_000 {
            let mut bytes = TEXTS[round % TEXTS.len()].as_bytes().to_vec();
            for _ in 0..=random.bits() % 3 {
                let at = (random.bits() as usize) % (bytes.len() + 1);
                let letter = letters[(random.bits() as usize) % letters.len()];
                match random.bits() % 3 {
                    0 => bytes.insert(at, letter),
                    1 if at < bytes.len() => bytes[at] = letter,
                    _ => bytes.truncate(at.max(1)),
                }
            }
            let Ok(text) = std::str::from_utf8(&bytes) else { continue };
            let (ours, theirs) = (found(text), expected(text));
            *(if theirs.is_some() { &mut valid } else { &mut invalid }) += 1;
            assert_eq!(ours, theirs, "{text:?}");
        }
        assert!(valid > 1_000 && invalid > 10_000, "{valid} {invalid}");
    }

    #[test]
    fn nesting_costs_no_stack() {
        let depth = 1_000_000;
        let text = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(found(&text).map(|members| members[0].1.len()), Some(2 * depth));
        assert_eq!(found(&text[..text.len() - 2]), None);
    }

    #[test]
    fn plain_texts() {
        let long = "abc é 漢字 and more than sixteen bytes";
        for end in ["", "\"", "\\", "\n", "\x1f"] {
            for length in 0..40 {
                let text: String = long.chars().cycle().take(length).collect();
                assert_eq!(
                    plain(format!("{text}{end}{}", if end.is_empty() { "" } else { long }).as_bytes()),
                    text.len()
                );
            }
        }
    }
}
