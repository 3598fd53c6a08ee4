//! Bytes in hexadecimal.

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// As many bytes as wanted, out of two digits of either case each; `None` when the text is anything else.
pub fn unhex<const COUNT: usize>(text: &str) -> Option<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    let (digits, rest) = text.as_bytes().as_chunks::<2>();
    if digits.len() != COUNT || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(digits) {
        *byte = number(*high)? << 4 | number(*low)?;
    }
    Some(bytes)
}

/// The digit of a number below 16.
pub(super) fn digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0')
}

/// The number that a digit of either case means.
pub(super) fn number(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_and_read() {
        assert_eq!(hex(&[0, 10, 0xaf, 255]), "000aafff");
        assert_eq!(hex(&[]), "");
        assert_eq!(unhex("000AafFF"), Some([0, 10, 0xaf, 255]));
        assert_eq!(unhex::<0>(""), Some([]));
        for bad in ["", "00", "000aaff", "000aafff0", "000aafff00", "000aaf+f", "000aafgg", "000aaf ü"] {
            assert_eq!(unhex::<4>(bad), None, "{bad}");
        }
    }
}
