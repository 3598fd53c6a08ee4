//! Texts as parts of a URL: percent-encoded.

use std::borrow::Cow;

use super::hex::{digit, number};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_escaped() {
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
