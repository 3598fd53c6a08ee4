//! When budgets start again, and the task that starts them: spend that was counted for a period goes back to nothing when the
//! period is over.

use jiff::{
    Span, Timestamp, ToSpan, Zoned,
    civil::{Date, DateTime, Weekday},
    tz::TimeZone,
};

use crate::core::config::Config;

/// When something expires that is given at `now_ms` for `duration` (`30s`, `5m`, `12h`, `30d`, `2w`, `1mo`). A month ends on
/// the same day of the next one, or on its last day. The error says what a duration looks like.
pub fn expires(duration: &str, now_ms: i64) -> Result<i64, String> {
    let (count, unit) = parse(duration)?;
    let span = match unit {
        Unit::Second => Span::new().try_seconds(count),
        Unit::Minute => Span::new().try_minutes(count),
        Unit::Hour => Span::new().try_hours(count),
        Unit::Day => Span::new().try_days(count),
        Unit::Week => Span::new().try_weeks(count),
        Unit::Month => Span::new().try_months(count),
    };
    span.ok()
        .zip(zoned(now_ms, &TimeZone::UTC))
        .and_then(|(span, now)| now.checked_add(span).ok())
        .map(|end| end.timestamp().as_millisecond())
        .ok_or_else(|| too_long(duration))
}

/// When a budget of this duration starts again after `now_ms`, at a round time of the clocks and calendars of `zone`: always
/// later than `now_ms`. The error says what a duration looks like.
pub fn next_reset(duration: &str, now_ms: i64, zone: &TimeZone) -> Result<i64, String> {
    let (count, unit) = parse(duration)?;
    let now = zoned(now_ms, zone).ok_or_else(|| too_long(duration))?.datetime();
    let next = match unit {
        Unit::Second => round_time(now, count, 1),
        Unit::Minute => round_time(now, count, 60),
        Unit::Hour => round_time(now, count, 3_600),
        Unit::Day if count == 7 => now.date().nth_weekday(1, Weekday::Monday).ok().map(midnight),
        Unit::Day if count == 30 => first_of_next_month(now.date()),
        Unit::Day => days_on(now.date(), count),
        Unit::Week => days_on(now.date(), 1),
        Unit::Month if count == 1 => first_of_next_month(now.date()),
        Unit::Month => {
            return Err(format!(
                "`{duration}` cannot be the period of a budget: the only one in months is `1mo`"
            ));
        }
    };
    let mut at = next
        .and_then(|next| next.to_zoned(zone.clone()).ok())
        .ok_or_else(|| too_long(duration))?
        .timestamp()
        .as_millisecond();
    // An hour that clocks show twice: the first of the two can be over.
    while at <= now_ms {
        at = at.saturating_add(3_600_000);
    }
    Ok(at)
}

/// The time zone of `litellm_settings.timezone`; UTC when there is none, or none of this name.
pub fn zone(config: &Config) -> TimeZone {
    config.ledger.timezone.as_deref().and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
}

/// A number and its unit. As in LiteLLM, whatever follows is ignored (`30min` is 30 minutes).
fn parse(text: &str) -> Result<(i64, Unit), String> {
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
    digits.parse().ok().filter(|count| *count > 0).zip(unit).ok_or_else(|| {
        format!("`{text}` is no duration: expected a number and one of `s`, `m`, `h`, `d`, `w`, `mo`, such as `30d`")
    })
}

fn too_long(duration: &str) -> String {
    format!("`{duration}` is too long: it ends after the year 9999")
}

fn zoned(ms: i64, zone: &TimeZone) -> Option<Zoned> {
    Some(Timestamp::from_millisecond(ms).ok()?.to_zoned(zone.clone()))
}

fn midnight(date: Date) -> DateTime {
    date.at(0, 0, 0, 0)
}

fn days_on(date: Date, days: i64) -> Option<DateTime> {
    let span = Span::new().try_days(days).ok()?;
    date.checked_add(span).ok().map(midnight)
}

fn first_of_next_month(date: Date) -> Option<DateTime> {
    date.first_of_month().checked_add(1.month()).ok().map(midnight)
}

/// The next time whose hour (minute, second) is a multiple of `count`, counted from the start of the day (hour, minute).
fn round_time(now: DateTime, count: i64, unit_seconds: i64) -> Option<DateTime> {
    let (day, hour) = (midnight(now.date()), i64::from(now.hour()) * 3_600);
    let minute = i64::from(now.minute()) * 60;
    let (start, passed) = match unit_seconds {
        3_600 => (0, i64::from(now.hour())),
        60 => (hour, i64::from(now.minute())),
        _ => (hour + minute, i64::from(now.second())),
    };
    let units = (passed / count).checked_add(1)?.checked_mul(count)?;
    let seconds = units.checked_mul(unit_seconds)?.checked_add(start)?;
    day.checked_add(Span::new().try_seconds(seconds).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn shown(ms: i64) -> String {
        Timestamp::from_millisecond(ms).unwrap().to_string()
    }

    #[test]
    fn things_expire() {
        for (duration, now, expected) in [
            ("30s", "2026-01-15T12:00:00Z", "2026-01-15T12:00:30Z"),
            ("30min", "2026-01-15T12:00:00Z", "2026-01-15T12:30:00Z"),
            ("12h", "2026-01-15T12:00:00Z", "2026-01-16T00:00:00Z"),
            ("30d", "2026-01-15T12:00:00.25Z", "2026-02-14T12:00:00.25Z"),
            ("2w", "2026-01-15T12:00:00Z", "2026-01-29T12:00:00Z"),
            ("1mo", "2026-01-15T12:00:00Z", "2026-02-15T12:00:00Z"),
            ("1month", "2026-01-31T12:00:00Z", "2026-02-28T12:00:00Z"),
            ("1mo", "2028-01-31T12:00:00Z", "2028-02-29T12:00:00Z"),
            ("1mo", "2026-12-15T12:00:00Z", "2027-01-15T12:00:00Z"),
            ("14mo", "2026-11-30T12:00:00Z", "2028-01-30T12:00:00Z"),
        ] {
            assert_eq!(expires(duration, ms(now)).map(shown).as_deref(), Ok(expected), "{duration} {now}");
        }
    }

    #[test]
    fn budgets_start_again_at_round_times() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let kolkata = TimeZone::get("Asia/Kolkata").unwrap();
        let utc = TimeZone::UTC;
        for (duration, now, zone, expected) in [
            ("1d", "2026-01-15T12:00:00Z", &utc, "2026-01-16T00:00:00Z"),
            ("1d", "2026-01-15T00:00:00Z", &utc, "2026-01-16T00:00:00Z"),
            ("7d", "2026-01-15T12:00:00Z", &utc, "2026-01-19T00:00:00Z"),
            // A Monday: the next week's.
            ("7d", "2026-01-19T00:00:00Z", &utc, "2026-01-26T00:00:00Z"),
            ("30d", "2026-01-15T12:00:00Z", &utc, "2026-02-01T00:00:00Z"),
            ("30d", "2026-12-31T23:59:59Z", &utc, "2027-01-01T00:00:00Z"),
            ("3d", "2026-02-27T12:00:00Z", &utc, "2026-03-02T00:00:00Z"),
            ("1mo", "2026-01-31T12:00:00Z", &utc, "2026-02-01T00:00:00Z"),
            ("1w", "2026-01-15T12:00:00Z", &utc, "2026-01-16T00:00:00Z"),
            ("1h", "2026-01-15T12:20:30Z", &utc, "2026-01-15T13:00:00Z"),
            ("6h", "2026-01-15T12:00:00Z", &utc, "2026-01-15T18:00:00Z"),
            ("5h", "2026-01-15T23:10:00Z", &utc, "2026-01-16T01:00:00Z"),
            ("24h", "2026-01-15T23:10:00Z", &utc, "2026-01-16T00:00:00Z"),
            ("48h", "2026-01-15T23:10:00Z", &utc, "2026-01-17T00:00:00Z"),
            ("15m", "2026-01-15T12:07:00Z", &utc, "2026-01-15T12:15:00Z"),
            ("15m", "2026-01-15T23:45:00Z", &utc, "2026-01-16T00:00:00Z"),
            ("30s", "2026-01-15T23:59:45.5Z", &utc, "2026-01-16T00:00:00Z"),
            ("10s", "2026-01-15T12:00:00Z", &utc, "2026-01-15T12:00:10Z"),
            // Midnight in Berlin is 23:00 UTC in winter, 22:00 in summer.
            ("1d", "2026-01-15T22:59:59Z", &berlin, "2026-01-15T23:00:00Z"),
            ("1d", "2026-01-15T23:00:00Z", &berlin, "2026-01-16T23:00:00Z"),
            ("30d", "2026-03-15T12:00:00Z", &berlin, "2026-03-31T22:00:00Z"),
            ("7d", "2026-03-29T12:00:00Z", &berlin, "2026-03-29T22:00:00Z"),
            ("1h", "2026-01-15T12:20:00Z", &kolkata, "2026-01-15T12:30:00Z"),
            // 02:30 does not exist on this night, and 02:45 of the other one comes twice.
            ("30m", "2026-03-29T00:59:00Z", &berlin, "2026-03-29T01:00:00Z"),
            ("15m", "2026-10-25T01:40:00Z", &berlin, "2026-10-25T01:45:00Z"),
        ] {
            let got = next_reset(duration, ms(now), zone).map(shown);
            assert_eq!(got.as_deref(), Ok(expected), "{duration} {now}");
        }
    }

    #[test]
    fn wrong_durations_are_refused() {
        for wrong in ["", "d", "0d", "-1d", "10", "3y", "١d", "99999999999999999999d", "9000000000000000000s"]
        {
            assert!(expires(wrong, 0).is_err() && next_reset(wrong, 0, &TimeZone::UTC).is_err(), "{wrong}");
        }
        assert!(next_reset("2mo", 0, &TimeZone::UTC).is_err());
    }
}
