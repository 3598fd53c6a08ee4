//! LiteLLM's durations (`30d`, `1mo`): when something given for so long expires, and when a budget starts again.
//!
//! No time zones here: the calendar step [`Period::next_reset`] works on what a clock shows, whichever clock that is.

const DAY_SECONDS: u64 = 86_400;
/// What calendars can show; nothing sensible is longer.
const LONGEST_SECONDS: u64 = 9_999 * 366 * DAY_SECONDS;

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

/// A moment as the clocks and calendars of one time zone show it.
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

/// Reads `30s`, `5m`, `12h`, `30d`, `2w`, `1mo`. As in LiteLLM, whatever follows is ignored (`30min` is 30 minutes). The
/// error says what was expected.
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
    let Some(unit) = unit.filter(|_| !digits.is_empty()) else {
        return Err(format!(
            "`{text}` is no duration: expected a number and one of `s`, `m`, `h`, `d`, `w`, `mo`, such as `30d`"
        ));
    };
    // Digits that no `u64` holds are too long as well.
    match digits.parse::<u64>() {
        Ok(count) if count.saturating_mul(unit.seconds()) <= LONGEST_SECONDS => Ok(Period { count, unit }),
        _ => Err(format!("`{text}` is too long a duration: expected at most 9,999 years, such as `30d`")),
    }
}

impl Period {
    /// When something expires that is given at `now_ms` for this long (Unix milliseconds, UTC). Months end on the same day
    /// of a later month, or on its last one.
    pub fn expires_ms(self, now_ms: u64) -> u64 {
        match self.unit {
            Unit::Month => {
                let now = Civil::from_ms(now_ms);
                let then = Civil { day: 1, ..now }.months_later(self.count);
                let then = Civil { day: now.day.min(then.last_day()), ..then };
                then.to_ms().saturating_add(now_ms % 1_000)
            }
            unit => now_ms.saturating_add(self.count.saturating_mul(unit.seconds()).saturating_mul(1_000)),
        }
    }

    /// When a budget of this period starts again after `now`, on the same clock. LiteLLM's standardized times: `1d` the
    /// next midnight, `7d` the next Monday, `30d` and `1mo` the first of the next month, other days midnights counted from
    /// today's; hours, minutes and seconds at the next multiple, at the latest tomorrow; a number of weeks, the next
    /// midnight. `None` for several months and for a count of zero, for which there are no such times.
    pub fn next_reset(self, now: Civil) -> Option<Civil> {
        let count = i64::try_from(self.count).ok().filter(|&count| count > 0)?;
        let multiple = |shown: u8| (i64::from(shown) / count + 1) * count;
        Some(match (self.unit, count) {
            (Unit::Second, _) => now.at(now.hour.into(), now.minute.into(), multiple(now.second)),
            (Unit::Minute, _) => now.at(now.hour.into(), multiple(now.minute), 0),
            (Unit::Hour, _) => now.at(multiple(now.hour), 0, 0),
            (Unit::Day, 7) => now.midnight(7 - now.weekday()),
            (Unit::Day, 30) | (Unit::Month, 1) => Civil { day: 1, ..now.midnight(0) }.months_later(1),
            (Unit::Day, days) => now.midnight(days),
            (Unit::Week, _) => now.midnight(1),
            (Unit::Month, _) => return None,
        })
    }

    /// [`Period::next_reset`] in UTC, in Unix milliseconds.
    pub fn next_reset_ms(self, now_ms: u64) -> Option<u64> {
        self.next_reset(Civil::from_ms(now_ms)).map(Civil::to_ms)
    }
}

impl Unit {
    /// A month as its longest.
    fn seconds(self) -> u64 {
        match self {
            Unit::Second => 1,
            Unit::Minute => 60,
            Unit::Hour => 3_600,
            Unit::Day => DAY_SECONDS,
            Unit::Week => 7 * DAY_SECONDS,
            Unit::Month => 31 * DAY_SECONDS,
        }
    }
}

impl Civil {
    /// What a clock in UTC shows at this moment (Unix milliseconds; parts of a second are left out).
    pub fn from_ms(ms: u64) -> Civil {
        let seconds = ms / 1_000;
        let days = i64::try_from(seconds / DAY_SECONDS).unwrap_or(i64::MAX);
        let part = |unit: u64, size: u64| u8::try_from(seconds / unit % size).unwrap_or(0);
        Civil { hour: part(3_600, 24), minute: part(60, 60), second: part(1, 60), ..Civil::from_days(days) }
    }

    /// The moment when a clock in UTC shows this (Unix milliseconds); 0 for moments before 1970.
    pub fn to_ms(self) -> u64 {
        let seconds = i64::from(self.hour) * 3_600 + i64::from(self.minute) * 60 + i64::from(self.second);
        u64::try_from((self.days() * 86_400 + seconds) * 1_000).unwrap_or(0)
    }

    /// Monday is 0.
    fn weekday(self) -> i64 {
        // 1 January 1970 was a Thursday.
        (self.days() + 3).rem_euclid(7)
    }

    /// Days after 1 January 1970. Years begin in March here, so that the odd day is a year's last; 400 of them (an era)
    /// have 146,097 days.
    fn days(self) -> i64 {
        let month = (i64::from(self.month) + 9) % 12;
        let year = self.year - i64::from(self.month <= 2);
        let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
        let day = (153 * month + 2) / 5 + i64::from(self.day) - 1;
        era * 146_097 + year * 365 + year / 4 - year / 100 + day - 719_468
    }

    /// The midnight with which a day begins.
    fn from_days(days: i64) -> Civil {
        let days = days.saturating_add(719_468);
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        // A year of the era ends with a leap day every 4, but not every 100; the era's own last day is one again.
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (year * 365 + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        Civil {
            year: era * 400 + year + i64::from(month <= 2),
            month: u8::try_from(month).unwrap_or(1),
            day: u8::try_from(day).unwrap_or(1),
            hour: 0,
            minute: 0,
            second: 0,
        }
    }

    /// The midnight with which the day so many days after this one begins.
    fn midnight(self, days: i64) -> Civil {
        Civil::from_days(self.days() + days)
    }

    /// A time of this day; what is too many seconds or minutes carries. Past midnight it is tomorrow, whatever the hour.
    fn at(self, hour: i64, minute: i64, second: i64) -> Civil {
        let minute = minute + second / 60;
        let hour = hour + minute / 60;
        let shown = |value: i64, size: i64| u8::try_from(value % size).unwrap_or(0);
        Civil {
            hour: shown(hour, 24),
            minute: shown(minute, 60),
            second: shown(second, 60),
            ..self.midnight(i64::from(hour >= 24))
        }
    }

    /// Day and time so many months later, whether that month has such a day or not.
    fn months_later(self, months: u64) -> Civil {
        let months = i64::from(self.month) - 1 + i64::try_from(months).unwrap_or(0);
        let month = u8::try_from(months.rem_euclid(12) + 1).unwrap_or(1);
        Civil { year: self.year + months.div_euclid(12), month, ..self }
    }

    /// How many days its month has.
    fn last_day(self) -> u8 {
        let first = Civil { day: 1, ..self };
        u8::try_from(first.months_later(1).days() - first.days()).unwrap_or(28)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `2026-01-31 10:20:30`
    fn civil(text: &str) -> Civil {
        let parts: Vec<i64> = text.split(['-', ' ', ':']).map(|part| part.parse().unwrap()).collect();
        let part = |n: usize| u8::try_from(parts[n]).unwrap();
        Civil {
            year: parts[0],
            month: part(1),
            day: part(2),
            hour: part(3),
            minute: part(4),
            second: part(5),
        }
    }

    fn shown(c: Civil) -> String {
        format!("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", c.year, c.month, c.day, c.hour, c.minute, c.second)
    }

    #[test]
    fn durations_are_read_as_litellm_does() {
        let rows = [
            ("30s", 30, Unit::Second),
            ("5m", 5, Unit::Minute),
            ("12h", 12, Unit::Hour),
            ("30d", 30, Unit::Day),
            ("2w", 2, Unit::Week),
            ("1mo", 1, Unit::Month),
            ("30min", 30, Unit::Minute),
            ("1month", 1, Unit::Month),
            ("30days", 30, Unit::Day),
            ("007d", 7, Unit::Day),
            ("0s", 0, Unit::Second),
        ];
        for (text, count, unit) in rows {
            assert_eq!(parse(text), Ok(Period { count, unit }), "{text}");
        }
        for text in ["", "d", "30", "30x", " 30d", "-1d", "+1d", "1.5h", "30D", "٣d"] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("`{text}` is no duration: expected")), "{error}");
        }
        for text in ["99999999999999999999d", "18446744073709551615s", "9999999d", "200000mo"] {
            assert!(parse(text).unwrap_err().contains("too long"), "{text}");
        }
    }

    #[test]
    fn the_calendar_goes_there_and_back() {
        let rows = [
            ("1970-01-01 00:00:00", 0, 3),
            ("1999-12-31 23:59:59", 946_684_799, 4),
            ("2000-02-29 12:00:00", 951_825_600, 1),
            ("2024-02-29 00:00:00", 1_709_164_800, 3),
            ("2026-01-01 00:00:00", 1_767_225_600, 3),
            ("2026-11-21 12:36:16", 1_795_264_576, 5),
            ("2100-03-01 00:00:00", 4_107_542_400, 0),
        ];
        for (text, seconds, weekday) in rows {
            let moment = civil(text);
            assert_eq!(moment.to_ms(), seconds * 1_000, "{text}");
            assert_eq!(shown(Civil::from_ms(seconds * 1_000 + 999)), text);
            assert_eq!(moment.weekday(), weekday, "{text}");
        }
        // Every day of 800 years follows the one before.
        let mut last = Civil::from_days(-1);
        for day in 0..292_194 {
            let next = Civil::from_days(day);
            assert_eq!(next.days(), day);
            let turned = if last.day < last.last_day() {
                Civil { day: last.day + 1, ..last }
            } else {
                Civil { day: 1, ..last }.months_later(1)
            };
            assert_eq!(next, turned);
            last = next;
        }
        assert_eq!(civil("1969-12-31 00:00:00").to_ms(), 0);
        Civil::from_ms(u64::MAX);
    }

    #[test]
    fn expiry_adds_time_and_months_keep_their_day() {
        let rows = [
            ("30s", "2026-12-31 23:59:40", "2027-01-01 00:00:10"),
            ("90m", "2026-01-31 10:20:30", "2026-01-31 11:50:30"),
            ("2h", "2026-01-31 10:20:30", "2026-01-31 12:20:30"),
            ("30d", "2026-01-31 10:20:30", "2026-03-02 10:20:30"),
            ("2w", "2024-02-20 10:20:30", "2024-03-05 10:20:30"),
            ("1mo", "2026-01-15 10:20:30", "2026-02-15 10:20:30"),
            ("1mo", "2026-01-31 10:20:30", "2026-02-28 10:20:30"),
            ("1mo", "2024-01-31 10:20:30", "2024-02-29 10:20:30"),
            ("1mo", "2026-12-31 10:20:30", "2027-01-31 10:20:30"),
            ("3mo", "2026-11-30 10:20:30", "2027-02-28 10:20:30"),
            ("12mo", "2024-02-29 10:20:30", "2025-02-28 10:20:30"),
            ("26mo", "2026-11-10 00:00:00", "2029-01-10 00:00:00"),
            ("0mo", "2026-11-10 00:00:00", "2026-11-10 00:00:00"),
        ];
        for (text, now, then) in rows {
            let expires = parse(text).unwrap().expires_ms(civil(now).to_ms() + 7);
            assert_eq!((shown(Civil::from_ms(expires)), expires % 1_000), (then.into(), 7), "{text} {now}");
        }
    }

    #[test]
    fn budgets_start_again_at_standardized_times() {
        let rows = [
            ("1d", "2026-01-31 10:20:30", Some("2026-02-01 00:00:00")),
            ("1d", "2026-12-31 00:00:00", Some("2027-01-01 00:00:00")),
            ("1d", "2024-02-28 23:59:59", Some("2024-02-29 00:00:00")),
            // 2026-11-21 is a Saturday, 2026-11-23 a Monday.
            ("7d", "2026-11-21 12:00:00", Some("2026-11-23 00:00:00")),
            ("7d", "2026-11-22 23:59:59", Some("2026-11-23 00:00:00")),
            ("7d", "2026-11-23 00:00:00", Some("2026-11-30 00:00:00")),
            ("7d", "2026-12-29 10:00:00", Some("2027-01-04 00:00:00")),
            ("30d", "2026-01-31 10:20:30", Some("2026-02-01 00:00:00")),
            ("30d", "2026-02-01 00:00:00", Some("2026-03-01 00:00:00")),
            ("30d", "2026-12-01 00:00:00", Some("2027-01-01 00:00:00")),
            ("2d", "2026-01-31 10:20:30", Some("2026-02-02 00:00:00")),
            ("14d", "2024-02-20 10:20:30", Some("2024-03-05 00:00:00")),
            ("365d", "2026-01-31 10:20:30", Some("2027-01-31 00:00:00")),
            ("1h", "2026-01-31 10:20:30", Some("2026-01-31 11:00:00")),
            ("1h", "2026-12-31 23:20:30", Some("2027-01-01 00:00:00")),
            ("2h", "2026-01-31 10:00:00", Some("2026-01-31 12:00:00")),
            ("5h", "2026-01-31 11:20:30", Some("2026-01-31 15:00:00")),
            ("5h", "2026-01-31 20:20:30", Some("2026-02-01 01:00:00")),
            ("24h", "2026-01-31 00:00:00", Some("2026-02-01 00:00:00")),
            ("24h", "2026-01-31 10:20:30", Some("2026-02-01 00:00:00")),
            ("36h", "2026-01-31 10:20:30", Some("2026-02-01 12:00:00")),
            ("1m", "2026-01-31 10:20:30", Some("2026-01-31 10:21:00")),
            ("30m", "2026-01-31 10:20:30", Some("2026-01-31 10:30:00")),
            ("30m", "2026-01-31 10:30:00", Some("2026-01-31 11:00:00")),
            ("30m", "2026-12-31 23:40:00", Some("2027-01-01 00:00:00")),
            ("90m", "2026-01-31 10:20:30", Some("2026-01-31 11:30:00")),
            ("1s", "2026-01-31 10:20:30", Some("2026-01-31 10:20:31")),
            ("30s", "2026-01-31 10:20:30", Some("2026-01-31 10:21:00")),
            ("45s", "2026-01-31 10:20:30", Some("2026-01-31 10:20:45")),
            ("90s", "2026-01-31 10:59:30", Some("2026-01-31 11:00:30")),
            ("30s", "2026-12-31 23:59:59", Some("2027-01-01 00:00:00")),
            ("1mo", "2026-01-31 10:20:30", Some("2026-02-01 00:00:00")),
            ("1mo", "2026-12-31 10:20:30", Some("2027-01-01 00:00:00")),
            ("2mo", "2026-01-31 10:20:30", None),
            ("1w", "2026-01-31 10:20:30", Some("2026-02-01 00:00:00")),
            ("0d", "2026-01-31 10:20:30", None),
            ("0h", "2026-01-31 10:20:30", None),
        ];
        for (text, now, next) in rows {
            let (period, now) = (parse(text).unwrap(), civil(now));
            assert_eq!(period.next_reset(now).map(shown).as_deref(), next, "{text} {now:?}");
            assert_eq!(period.next_reset_ms(now.to_ms() + 999), next.map(|next| civil(next).to_ms()));
        }
    }

    #[test]
    fn a_reset_always_lies_ahead() {
        for unit in ["s", "m", "h", "d", "w", "mo"] {
            for count in (1..200).chain([1_000, 100_000]) {
                let period = parse(&format!("{count}{unit}")).unwrap();
                for minute in 0..3_000 {
                    let now_ms = 1_709_100_000_000 + minute * 61_003;
                    let next_ms = period.next_reset_ms(now_ms);
                    assert!(next_ms.is_none_or(|next_ms| next_ms > now_ms), "{count}{unit} {now_ms}");
                }
            }
        }
    }
}
