//! Bytes as text: in hexadecimal, and as a part of a URL.

use std::borrow::Cow;

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Text with every byte percent-encoded that is not `plain`.
pub fn percent(text: &str, plain: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii() && plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.extend([digit(byte >> 4), digit(byte & 15)].map(|digit| digit.to_ascii_uppercase()));
        }
    }
    out
}

/// Percent escapes resolved; a broken escape or one that is not UTF-8 stays as it is.
pub fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => number(*high).zip(number(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The digit of a number below 16.
fn digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0')
}

/// The number that a digit of either case means.
fn number(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_as_text() {
        assert_eq!(hex(&[0, 10, 0xaf, 255]), "000aafff");
        assert_eq!(hex(&[]), "");
        let rows = [("", ""), ("a b", "a%20b"), ("a/ü", "a%2F%C3%BC"), ("100%", "100%25")];
        for (text, expected) in rows {
            assert_eq!(percent(text, |byte| byte.is_ascii_alphanumeric()), expected, "{text}");
        }
        assert_eq!(percent("ü/", |_| true), "%C3%BC/", "a byte beyond ASCII is never plain");
    }

    #[test]
    fn escapes_that_are_broken_stay() {
        for (text, plain) in
            [("a%2", "a%2"), ("%zz", "%zz"), ("%ff", "%ff"), ("%C3%A9", "é"), ("100%", "100%")]
        {
            assert_eq!(unescape(text), plain);
        }
    }
}
