//! How many tokens a prompt has, more or less: what `enable_pre_call_checks` compares with context windows.
//!
//! No tokenizer is at hand here. Words, numbers and signs are counted the way the common ones cut them, which is a tenth or two
//! off for prose and code; so the least it can be is told beside what it likely is.

use serde_json::Value;

use crate::core::{codec::json::Object, route::world::Tokens};

/// What every message costs besides its text, and every picture.
const MESSAGE: u64 = 4;
const PICTURE: u64 = 250;

/// The tokens of `messages`; none when there are none.
pub fn tokens(body: &Object<'_>) -> Option<Tokens> {
    let messages = body.read::<Vec<Value>>("messages")?;
    let likely = messages.iter().fold(0_u64, |sum, message| sum.saturating_add(message_tokens(message)));
    Some(Tokens { likely, least: likely / 2 })
}

fn message_tokens(message: &Value) -> u64 {
    let content = match message.get("content") {
        Some(Value::String(text)) => text_tokens(text),
        Some(Value::Array(parts)) => parts.iter().map(part_tokens).fold(0, u64::saturating_add),
        _ => 0,
    };
    let calls = message.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
    let arguments = calls.filter_map(|call| call.pointer("/function/arguments")?.as_str()).map(text_tokens);
    arguments.fold(content.saturating_add(MESSAGE), u64::saturating_add)
}

fn part_tokens(part: &Value) -> u64 {
    match (part.get("text"), part.get("content")) {
        (Some(Value::String(text)), _) | (None, Some(Value::String(text))) => text_tokens(text),
        (None, Some(Value::Array(parts))) => parts.iter().map(part_tokens).fold(0, u64::saturating_add),
        _ => PICTURE,
    }
}

/// Tokens of a text: a word of up to seven letters is one, so are three digits, two signs, one character of a script without
/// letters, three of another alphabet.
pub(super) fn text_tokens(text: &str) -> u64 {
    let (mut sum, mut kind, mut run) = (0_u64, Kind::Space, 0_u64);
    for c in text.chars() {
        let now = Kind::of(c);
        if now != kind {
            sum = sum.saturating_add(kind.tokens(run));
            (kind, run) = (now, 0);
        }
        run = run.saturating_add(1);
    }
    sum.saturating_add(kind.tokens(run))
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Space,
    Word,
    Digits,
    Signs,
    OtherWord,
    Ideographs,
}

impl Kind {
    fn of(c: char) -> Kind {
        match c {
            c if c.is_whitespace() => Kind::Space,
            'a'..='z' | 'A'..='Z' => Kind::Word,
            '0'..='9' => Kind::Digits,
            '\u{0}'..='\u{7f}' => Kind::Signs,
            '\u{80}'..='\u{2e7f}' => Kind::OtherWord,
            _ => Kind::Ideographs,
        }
    }

    /// Tokens of so many characters of a kind. One space belongs to the word behind it.
    fn tokens(self, run: u64) -> u64 {
        match self {
            Kind::Space => run.saturating_sub(1).div_ceil(16),
            Kind::Word => run.div_ceil(7),
            Kind::Digits | Kind::OtherWord => run.div_ceil(3),
            Kind::Signs => run.div_ceil(2),
            Kind::Ideographs => run,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_count_about_as_tokenizers_count_them() {
        // What cl100k makes of them.
        let rows = [
            ("What is the meaning of 42?", 8),
            ("The quick brown fox jumps over the lazy dog.", 10),
            ("fn main() {\n    println!(\"Hello, world!\");\n}\n", 14),
            ("internationalization", 2),
            ("1234567890", 4),
            ("", 0),
        ];
        for (text, tokens) in rows {
            let counted = text_tokens(text);
            assert!(counted.abs_diff(tokens) <= 1 + tokens / 4, "{text:?}: {counted}, not {tokens}");
        }
        let prose = "It was the best of times, it was the worst of times. ".repeat(1_000);
        assert!((12_000..=16_000).contains(&text_tokens(&prose)), "{}", text_tokens(&prose));
    }

    #[test]
    fn messages_are_counted_and_pictures_are_not_read() {
        let count = |body: &str| tokens(&Object::parse(body.as_bytes()).unwrap()).map(|tokens| tokens.likely);
        assert_eq!(count(r#"{"prompt":"x"}"#), None);
        assert_eq!(count(r#"{"messages":[{"role":"user","content":"one two"}]}"#), Some(6));
        let picture = "A".repeat(400_000);
        let body = format!(
            r#"{{"messages":[{{"content":[{{"type":"text","text":"one"}},{{"type":"image_url","image_url":{{"url":"{picture}"}}}}]}}]}}"#
        );
        assert_eq!(count(&body), Some(255));
        let calls = r#"{"messages":[{"content":null,"tool_calls":[{"function":{"arguments":"one two"}}]},{"content":[{"type":"tool_result","content":"one"}]}]}"#;
        assert_eq!(count(calls), Some(11));
    }
}
