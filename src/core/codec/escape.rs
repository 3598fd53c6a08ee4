//! Bytes as text: in hexadecimal, and as a part of a URL.

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

/// The digit of a number below 16.
fn digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0')
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
}
