//! Money: an exact integer amount of US dollars.

use std::fmt;

/// An amount in 10⁻¹² US dollars (picodollars).
///
/// Why this unit and width: the cheapest prices are a few 10⁻⁹ dollars a token, so 10⁻⁹ would round single tokens away,
/// while the yearly spend of a fleet in 10⁻¹² is more than a `u64` holds. An `i128` has room for 10²⁶ dollars. Amounts can
/// be negative: a settled reservation is a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i128);

impl Money {
    /// Nothing.
    pub const ZERO: Money = Money(0);

    /// An amount given in 10⁻¹² dollars.
    pub const fn from_pico(pico: i128) -> Money {
        Money(pico)
    }

    /// The amount in 10⁻¹² dollars.
    pub const fn pico(self) -> i128 {
        self.0
    }

    /// Reads decimal text in dollars (`12`, `-0.05`, `1.5e-07`), exactly; digits below 10⁻¹² are rounded half away from
    /// zero. `None` when it is no such number or too large.
    pub fn parse(text: &str) -> Option<Money> {
        scaled(text, 12).map(Money)
    }

    /// The sum, or `None` on overflow.
    pub fn checked_add(self, other: Money) -> Option<Money> {
        self.0.checked_add(other.0).map(Money)
    }

    /// The sum, at the limits of the type on overflow.
    pub fn saturating_add(self, other: Money) -> Money {
        Money(self.0.saturating_add(other.0))
    }

    /// The difference, at the limits of the type on overflow.
    pub fn saturating_sub(self, other: Money) -> Money {
        Money(self.0.saturating_sub(other.0))
    }

    /// What [`Display`](fmt::Display) shows, without the detour through a formatter: it is written for each call.
    pub fn to_text(self) -> String {
        self.digits(&mut [0; DIGITS]).to_owned()
    }

    /// Writes the text from its end, and gives what it filled of the room.
    fn digits(self, room: &mut [u8; DIGITS]) -> &str {
        let mut places = room.iter_mut().rev();
        let mut length = 0;
        let mut put = |byte| {
            if let Some(place) = places.next() {
                *place = byte;
                length += 1;
            }
        };
        let pico = self.0.unsigned_abs();
        let (mut whole, mut part) = (pico / UNIT, (pico % UNIT) as u64);
        let mut decimals = if part == 0 { 0 } else { 12 };
        while decimals > 0 && part.is_multiple_of(10) {
            part /= 10;
            decimals -= 1;
        }
        for _ in 0..decimals {
            put(b'0' + (part % 10) as u8);
            part /= 10;
        }
        if decimals > 0 {
            put(b'.');
        }
        loop {
            put(b'0' + (whole % 10) as u8);
            whole /= 10;
            if whole == 0 {
                break;
            }
        }
        if self.0 < 0 {
            put(b'-');
        }
        let start = room.len().saturating_sub(length);
        room.get(start..).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

/// Plain decimal dollars for headers and records: `0.0000325`, never an exponent.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digits(&mut [0; DIGITS]))
    }
}

/// Decimal text times 10^`places` as an integer, rounded half away from zero. `None` when it is no decimal number or does
/// not fit.
pub(crate) fn scaled(text: &str, places: i32) -> Option<i128> {
    let text = text.trim();
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(part.bytes());
    if digits().next().is_none() || !digits().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // How many of the digits stand before the point of the result; the rest only rounds.
    let keep = i64::try_from(whole.len()).ok()? + i64::from(exponent) + i64::from(places);
    let mut value = 0_i128;
    let mut used = 0_i64;
    for digit in digits() {
        if used == keep {
            value = value.checked_add(i128::from(digit >= b'5'))?;
        }
        if used >= keep {
            return Some(if negative { -value } else { value });
        }
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        used += 1;
    }
    while used < keep && value != 0 {
        value = value.checked_mul(10)?;
        used += 1;
    }
    Some(if negative { -value } else { value })
}

/// Bytes of the longest amount: 39 digits, a point and a sign.
const DIGITS: usize = 41;

/// 10⁻¹² dollars in a dollar.
const UNIT: u128 = 1_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_text_is_read_exactly() {
        let rows = [
            ("0", Some(0)),
            ("1", Some(1_000_000_000_000)),
            ("-0.05", Some(-50_000_000_000)),
            ("1.5e-07", Some(150_000)),
            ("1.5E-07", Some(150_000)),
            ("+2e1", Some(20_000_000_000_000)),
            ("2.5e-06", Some(2_500_000)),
            (".5", Some(500_000_000_000)),
            ("5.", Some(5_000_000_000_000)),
            ("0.0000000000004", Some(0)),
            ("0.0000000000005", Some(1)),
            ("-0.0000000000005", Some(-1)),
            ("4.9e-13", Some(0)),
            ("9.9e-14", Some(0)),
            ("1e-400", Some(0)),
            ("0e400", Some(0)),
            ("1e400", None),
            ("1e99999999999", None),
            ("", None),
            (".", None),
            ("-", None),
            ("abc", None),
            ("1.2.3", None),
            ("1e", None),
            ("--1", None),
            ("NaN", None),
            ("inf", None),
            ("\u{0661}", None),
            (" 3 ", Some(3_000_000_000_000)),
        ];
        for (text, pico) in rows {
            assert_eq!(Money::parse(text), pico.map(Money::from_pico), "{text:?}");
        }
    }

    #[test]
    fn prints_plain_decimals_that_read_back() {
        let rows = [
            (0, "0"),
            (1, "0.000000000001"),
            (32_500_000, "0.0000325"),
            (-150_000, "-0.00000015"),
            (1_000_000_000_000, "1"),
            (12_345_600_000_000_000, "12345.6"),
        ];
        for (pico, text) in rows {
            let money = Money::from_pico(pico);
            assert_eq!(money.to_string(), text);
            assert_eq!(Money::parse(text), Some(money));
        }
        assert_eq!(Money::from_pico(i128::MIN).to_string(), "-170141183460469231731687303.715884105728");
    }

    #[test]
    fn sums_stop_at_the_limits() {
        let (one, max) = (Money::from_pico(1), Money::from_pico(i128::MAX));
        assert_eq!(one.checked_add(one), Some(Money::from_pico(2)));
        assert_eq!(max.checked_add(one), None);
        assert_eq!(max.saturating_add(one), max);
        assert_eq!(Money::ZERO.saturating_sub(one), Money::from_pico(-1));
    }
}
