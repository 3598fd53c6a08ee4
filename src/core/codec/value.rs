//! `serde_json`'s values: made without copies, read and written with long texts taken as a whole instead of letter by letter.

use serde_json::{Map, Number, Value};

use super::{
    json::{MOST_VALUES, Object, write_string},
    scan,
};

/// A JSON object out of values that are moved into it. `serde_json::json!` copies what it is given, lists and texts too.
macro_rules! object {
    ($($name:literal: $value:expr),* $(,)?) => {
        $crate::core::codec::value::object_of([$(($name, ::serde_json::Value::from($value))),*])
    };
}
pub(in crate::core) use object;

/// What `object!` makes of its members.
pub fn object_of<const COUNT: usize>(members: [(&'static str, Value); COUNT]) -> Value {
    let mut map = Map::with_capacity(COUNT);
    for (name, value) in members {
        map.insert(name.to_owned(), value);
    }
    Value::Object(map)
}

/// Reads a value.
pub fn read(bytes: &[u8]) -> serde_json::Result<Value> {
    match simdutf8::basic::from_utf8(bytes) {
        Ok(text) => whole(text),
        // It says where.
        Err(_) => serde_json::from_slice(bytes),
    }
}

/// Reads a text, also one with halves of characters in it: a provider may cut a stream between the two.
fn whole(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(text).or_else(|error| match without_halves(text) {
        Some(text) => serde_json::from_str(&text),
        None => Err(error),
    })
}

/// The JSON with the sign for an unreadable character in place of each half of a surrogate pair that stands alone; `None` when there
/// is none.
fn without_halves(text: &str) -> Option<String> {
    /// The code unit that an escape at this place stands for.
    fn unit(text: &str, at: usize) -> Option<u32> {
        let digits = text.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u32::from_str_radix(digits, 16).ok()
    }
    let mut out = String::new();
    let (mut at, mut written) = (0, 0);
    while let Some(found) = text.get(at..)?.find('\\') {
        at += found;
        let next = match unit(text, at) {
            Some(0xD800..=0xDBFF) if matches!(unit(text, at + 6), Some(0xDC00..=0xDFFF)) => at + 12,
            Some(0xD800..=0xDFFF) => {
                out.push_str(text.get(written..at)?);
                out.push_str("\\ufffd");
                written = at + 6;
                written
            }
            // Whatever is escaped: a backslash begins nothing then.
            _ => at + 1 + text.get(at + 1..)?.chars().next().map_or(0, char::len_utf8),
        };
        at = next;
    }
    if written == 0 {
        return None;
    }
    out.push_str(text.get(written..)?);
    Some(out)
}

/// Reads a value whose numbers keep their digits: one that `serde_json` would write differently (`1e2`, `0.10`, 21 digits) is kept as
/// a text behind [`DIGITS`], which [`to_bytes`] writes as the number it was. [`as_f64`] and its like read both.
pub fn read_exact(bytes: &[u8]) -> serde_json::Result<Value> {
    let Ok(text) = simdutf8::basic::from_utf8(bytes) else { return read(bytes) };
    match marked(text) {
        Some(marked) => whole(&marked),
        None => whole(text),
    }
}

impl Object<'_> {
    /// The object with its values read, numbers with their digits ([`read_exact`]); an error when there are more than
    /// [`MOST_VALUES`].
    pub fn to_map(&self) -> serde_json::Result<Map<String, Value>> {
        if self.all_values() > MOST_VALUES {
            return Err(serde::de::Error::custom(format_args!("it has more than {MOST_VALUES} values")));
        }
        self.iter().map(|(name, raw)| Ok((name.to_owned(), read_exact(raw.as_bytes())?))).collect()
    }
}

/// What a text begins with that stands for a number. Begins with a character that no text of a client has; if one does, and digits
/// follow, it becomes that number.
const DIGITS: &str = "\u{0}number:";

/// [`DIGITS`] as they stand in JSON.
const DIGITS_ESCAPED: &str = "\"\\u0000number:";

/// The JSON with the numbers that would not keep their digits as texts; `None` when there are none.
fn marked(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let (mut at, mut written) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = scan::string_end(bytes, at + 1),
            b'-' | b'0'..=b'9' => {
                let rest = bytes.get(at..).unwrap_or_default();
                let length = rest.iter().position(|byte| !is_numeric(*byte)).unwrap_or(rest.len());
                let number = text.get(at..at + length).unwrap_or_default();
                if !keeps_digits(number) && is_number_text(number) {
                    out.push_str(text.get(written..at).unwrap_or_default());
                    out.push_str(DIGITS_ESCAPED);
                    out.push_str(number);
                    out.push('"');
                    written = at + length;
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    if written == 0 {
        return None;
    }
    out.push_str(text.get(written..).unwrap_or_default());
    Some(out)
}

fn is_numeric(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Whether `serde_json` writes this number as it reads it.
fn keeps_digits(number: &str) -> bool {
    let is_integer = number.strip_prefix('-').unwrap_or(number).bytes().all(|byte| byte.is_ascii_digit());
    match is_integer {
        true if number.len() <= 18 => number != "-0",
        true => number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok(),
        false => serde_json::from_str::<Number>(number).is_ok_and(|read| read.to_string() == number),
    }
}

/// Whether it is a number as JSON has it, however large.
fn is_number_text(number: &str) -> bool {
    let unsigned = number.strip_prefix('-').unwrap_or(number);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (unsigned.get(..at).unwrap_or_default(), unsigned.get(at + 1..)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

/// The digits of a number that was read with [`read_exact`] and kept as a text.
pub fn digits(value: &Value) -> Option<&str> {
    value.as_str()?.strip_prefix(DIGITS).filter(|number| is_number_text(number))
}

/// Whether it is a number.
pub fn is_number(value: &Value) -> bool {
    value.is_number() || digits(value).is_some()
}

/// A number as a float.
pub fn as_f64(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| digits(value)?.parse().ok())
}

/// A count, however it is written: some servers say `5.0` or `"5"`.
pub fn as_count(value: &Value) -> Option<u64> {
    let written_oddly = || {
        let number = as_f64(value).or_else(|| value.as_str()?.trim().parse().ok())?;
        (0.0..=MOST_COUNT).contains(&number).then_some(number as u64)
    };
    value.as_u64().or_else(written_oddly)
}

/// Whole numbers up to this one are exact as floats. Nothing is counted that is more.
const MOST_COUNT: f64 = 9_007_199_254_740_992.0;

/// A value as JSON text.
pub fn to_text(value: &Value) -> String {
    String::from_utf8(to_bytes(value)).unwrap_or_default()
}

/// A value as JSON, the same bytes as `serde_json` writes, but for numbers that were kept as texts.
pub fn to_bytes(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write(&mut out, value);
    out
}

/// Appends a value. What was read is never nested so deep that this could use up the stack.
fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => match number.as_u64() {
            Some(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
            // Writing to a Vec cannot fail.
            None => _ = serde_json::to_writer(out, number),
        },
        Value::String(text) if text.starts_with(DIGITS) => match digits(value) {
            Some(number) => out.extend_from_slice(number.as_bytes()),
            None => write_string(out, text),
        },
        Value::String(text) => write_string(out, text),
        Value::Array(values) => {
            out.push(b'[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(out, value);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            for (at, (name, value)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_string(out, name);
                out.push(b':');
                write(out, value);
            }
            out.push(b'}');
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn halves_of_characters_become_the_sign_for_an_unreadable_one() {
        let rows = [
            (r#"{"a":"\ud83d"}"#, "\u{fffd}"),
            (r#"{"a":"\ude00x"}"#, "\u{fffd}x"),
            (r#"{"a":"\ud83d\ude00 \uD83D"}"#, "😀 \u{fffd}"),
            (r#"{"a":"\ud83d\ud83d\ude00"}"#, "\u{fffd}😀"),
            (r#"{"a":"\\\\ud83d \udbff\u0041"}"#, "\\\\ud83d \u{fffd}A"),
        ];
        for (text, read_as) in rows {
            assert_eq!(read(text.as_bytes()).unwrap()["a"], read_as, "{text}");
            assert_eq!(read_exact(text.as_bytes()).unwrap()["a"], read_as, "{text}");
        }
        for text in [r#"{"a":"\ud83"}"#, r#"{"a":"\"#, r#"{"a":"\ud83d\uzzzz"}"#, r#"{"a":"\é"}"#] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_are_counts_however_they_are_written() {
        let exact = |text: &str| as_count(&read_exact(text.as_bytes()).unwrap());
        for (text, count) in
            [("5", Some(5)), ("5.0", Some(5)), ("\"5\"", Some(5)), ("5.00", Some(5)), ("5e0", Some(5))]
        {
            assert_eq!(exact(text), count, "{text}");
        }
        for text in ["-1", "\"many\"", "null", "[]", "1e300", "\"NaN\""] {
            assert_eq!(exact(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_what_serde_json_writes() {
        let ascii: String = (0..128u8).map(char::from).collect();
        let value = json!({
            "": null, "\"\\\n": [true, false, {}, []], "n": [0, -1, u64::MAX, i64::MIN, 1.5, -0.0, 1e300, 1e-7],
            "every letter": ascii, "é": "plain 漢字 of more than sixteen bytes\u{2028}\u{7f}", "nested": {"a": [[{"b": "c"}]]},
        });
        assert_eq!(String::from_utf8(to_bytes(&value)).unwrap(), value.to_string());
        assert_eq!(read(&to_bytes(&value)).unwrap(), value);
    }

    #[test]
    fn what_is_no_json_is_told_as_by_serde_json() {
        for bytes in [&b""[..], b"{", b"[1,]", b"\"\xff\"", b"{\"a\":\"\xc3\x28\"}"] {
            let (ours, theirs) = (read(bytes), serde_json::from_slice::<Value>(bytes));
            assert_eq!(ours.unwrap_err().to_string(), theirs.unwrap_err().to_string());
        }
    }

    #[test]
    fn numbers_keep_their_digits() {
        let kept = [
            "0",
            "-1",
            "1.0",
            "1e2",
            "1E-7",
            "0.1000",
            "-0",
            "-0.0",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
            "123456789012345678901",
            "1e309",
            "1e-400",
            "0.30000000000000004",
            "3.14159265358979323846",
        ];
        for number in kept {
            let text = format!(r#"{{"a":[{number}, "{number}"],"{number}":{number}}}"#).replace(", ", ",");
            assert_eq!(to_text(&read_exact(text.as_bytes()).unwrap()), text);
            assert!(is_number(&read_exact(number.as_bytes()).unwrap()), "{number}");
        }
        assert_eq!(read_exact(b"1e2").ok().as_ref().and_then(as_f64), Some(100.0));
        for number in ["01", "1.", ".5", "1e", "--1", "1-2", "+1", "0x1", "1.2.3", "1e2e3"] {
            assert!(read_exact(number.as_bytes()).is_err(), "{number}");
        }
    }

    #[test]
    fn a_text_of_a_client_is_never_written_as_anything_but_a_text_or_a_number() {
        for text in [
            "\0number:1,\"x\":2",
            "\0number:",
            "\0number:01",
            "\0number:1e2 ",
            "\0number:true",
            "\0number:[1]",
        ] {
            let value = json!([text]);
            assert_eq!(serde_json::from_slice::<Value>(&to_bytes(&value)).unwrap(), value);
        }
    }

    #[test]
    fn objects() {
        let (list, text) = (vec![Value::Null], "b".to_owned());
        let made = object! {"a": list, "b": text, "c": 1, "d": [object! {}], "e": None::<Value>};
        assert_eq!(made, json!({"a": [null], "b": "b", "c": 1, "d": [{}], "e": null}));
    }
}
