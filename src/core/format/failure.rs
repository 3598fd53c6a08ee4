//! What a provider's failed response means: its class, and the words for the client.

use serde_json::Value;

use super::{
    Ref,
    words::{self, Said},
};
use crate::core::{
    error::{Error, Form, ProviderFault},
    headers::Headers,
    model::{
        failure::{Class, Failure, Words},
        status::{ErrorStatus, Status},
    },
};

/// Reads a failed response that came at `now_ms` (Unix milliseconds).
pub fn read(format: Ref, status: Option<Status>, headers: &Headers, body: &[u8], now_ms: u64) -> Failure {
    let said = Said::by_body(body);
    let (class, message) = format.read_failure(status.map_or(0, Status::get), body, &said);
    let words = Words::Theirs { code: said.code().map(str::to_owned) };
    Failure { class, status, message, words, retry_after_ms: retry_after(headers, now_ms) }
}

/// The class of an OpenAI-like failure by its status and what it says.
pub fn class(status: u16, said: &Said) -> Class {
    if let Some(class) = said.class(status) {
        return class;
    }
    match status {
        400 | 413 | 422 => Class::BadRequest,
        401 => Class::Authentication,
        403 => Class::PermissionDenied,
        404 => Class::NotFound,
        408 | 504 => Class::Timeout,
        429 => Class::RateLimit,
        500 if said.has("rate limit") || said.has("service tier capacity exceeded") => Class::RateLimit,
        500 => Class::InternalServer,
        502 | 503 => Class::ServiceUnavailable,
        _ => Class::Api,
    }
}

/// The words in an error body of any common shape; bounded, and never the whole of an HTML page.
pub fn message(body: &[u8]) -> String {
    let found = serde_json::from_slice::<Value>(body).ok().and_then(|value| {
        let error = words::inside(&value);
        let text = error.get("message").or(error.get("detail")).or(value.get("message")).unwrap_or(error);
        text.as_str().map(str::to_owned).or_else(|| (!text.is_null()).then(|| text.to_string()))
    });
    let mut text = found.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    if let Some((end, _)) = text.char_indices().nth(2_000) {
        text.truncate(end);
    }
    text
}

/// The longest wait that is believed: a day.
const LONGEST_WAIT_MS: u64 = 86_400_000;

/// The wait that an answer asks for, in milliseconds: `retry-after-ms`, or `retry-after` in seconds or as a date.
fn retry_after(headers: &Headers, now_ms: u64) -> Option<u64> {
    if let Some(ms) = headers.text("retry-after-ms").and_then(|text| text.trim().parse::<f64>().ok()) {
        return (ms > 0.0 && ms < LONGEST_WAIT_MS as f64).then_some(ms as u64);
    }
    let text = headers.text("retry-after")?.trim();
    let Ok(seconds) = text.parse::<f64>() else {
        let wait = unix_seconds(text)?.checked_mul(1_000)?.checked_sub(now_ms)?;
        return (wait > 0 && wait < LONGEST_WAIT_MS).then_some(wait);
    };
    (seconds > 0.0 && seconds < LONGEST_WAIT_MS as f64 / 1_000.0).then_some((seconds * 1_000.0) as u64)
}

/// The time that an HTTP date means (`Wed, 21 Oct 2026 07:28:00 GMT`, RFC 9110's preferred form), in Unix seconds.
fn unix_seconds(date: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = date.split_once(", ")?;
    let mut parts = date.strip_suffix(" GMT")?.splitn(4, ' ');
    let mut part = || parts.next();
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    let day = number(part()?).filter(|day| (1..=31).contains(day))?;
    let name = part()?;
    let month = u64::try_from(MONTHS.iter().position(|month| *month == name)?).ok()?;
    let year = number(part()?).filter(|year| (1970..10_000).contains(year))?;
    let mut clock = part()?.splitn(3, ':').map(number);
    let mut unit = |limit: u64| clock.next()?.filter(|value| *value < limit);
    let (hour, minute, second) = (unit(24)?, unit(60)?, unit(61)?);

    // Years are counted from March, so that a leap day is a year's last.
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    // From the first of March of year 0 to the epoch.
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

impl Failure {
    /// The failure as the client reads it, in LiteLLM's words.
    pub fn to_error(&self, title: &str) -> Error {
        let name = self.class.name();
        let doubled = match self.class {
            Class::RateLimit | Class::Authentication | Class::InternalServer | Class::NotFound => {
                format!("{name}: ")
            }
            Class::ContextWindowExceeded => format!("litellm.BadRequestError: {name}: "),
            Class::Timeout => "APITimeoutError - Request timed out. ".to_owned(),
            _ => String::new(),
        };
        let message = format!("litellm.{name}: {doubled}{title}Exception - {}", self.message);
        let own = self.status.and_then(|status| ErrorStatus::new(status.get()));
        let fault = ProviderFault {
            class: self.class,
            status: own.filter(|_| self.class == Class::Api),
            retry_after_ms: self.retry_after_ms,
            words: self.words.clone(),
            form: Form::Whole,
        };
        Error::of(fault, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_by_status_and_words() {
        let rows = [
            (
                400,
                r#"{"error":{"code":"context_length_exceeded","message":"This model's maximum context length is 4097 tokens"}}"#,
                Class::ContextWindowExceeded,
            ),
            (
                400,
                r#"{"error":{"code":"content_filter","message":"filtered"}}"#,
                Class::ContentPolicyViolation,
            ),
            (
                400,
                r#"{"error":{"type":"invalid_request_error","code":"content_policy_violation"}}"#,
                Class::ContentPolicyViolation,
            ),
            (400, r#"{"error":{"message":"bad"}}"#, Class::BadRequest),
            (422, "{}", Class::BadRequest),
            (401, "", Class::Authentication),
            (403, "", Class::PermissionDenied),
            (404, "", Class::NotFound),
            (408, "", Class::Timeout),
            (504, "", Class::Timeout),
            (429, "", Class::RateLimit),
            (500, "Service tier capacity exceeded", Class::RateLimit),
            (500, "", Class::InternalServer),
            (503, "", Class::ServiceUnavailable),
            (418, "", Class::Api),
        ];
        for (status, body, expected) in rows {
            assert_eq!(class(status, &Said::by_body(body.as_bytes())), expected, "{status} {body}");
        }
    }

    #[test]
    fn words_are_found_in_every_common_shape() {
        for (body, words) in [
            (r#"{"error":{"message":"a"}}"#, "a"),
            (r#"{"error":"b"}"#, "b"),
            (r#"[{"error":{"message":"e"}}]"#, "e"),
            (r#"{"error":null,"message":"f"}"#, "f"),
            (r#"{"detail":"c"}"#, "c"),
            (r#"{"message":"d"}"#, "d"),
            ("plain", "plain"),
            ("\u{fffd}", "\u{fffd}"),
        ] {
            assert_eq!(message(body.as_bytes()), words, "{body}");
        }
        assert_eq!(message(&[b'x'; 9_000]).len(), 2_000);
    }

    #[test]
    fn waits_are_read_from_headers() {
        for (name, value, ms) in [
            ("retry-after", "2", Some(2_000)),
            ("retry-after-ms", "150", Some(150)),
            ("retry-after", "-1", None),
            ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT", Some(8_500)),
            ("retry-after", "Wed, 21 Oct 2026 07:27:51 GMT", None),
            ("retry-after", "Fri, 23 Oct 2026 07:28:00 GMT", None),
            ("retry-after", "tomorrow", None),
            ("retry-after", "1e300", None),
            ("retry-after", "NaN", None),
        ] {
            let headers = Headers::from_pairs(&[(name, value)]);
            assert_eq!(retry_after(&headers, 1_792_567_671_500), ms, "{name}: {value}");
        }
    }

    #[test]
    fn http_dates() {
        for (date, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Tue, 29 Feb 2000 23:59:59 GMT", Some(951_868_799)),
            ("Wed, 01 Mar 2000 00:00:00 GMT", Some(951_868_800)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun Nov  6 08:49:37 1994", None),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("Sun, 06 Nov 1994 24:00:00 GMT", None),
            ("Sun, +6 Nov 1994 08:49:37 GMT", None),
            ("Sun, 00 Nov 1994 08:49 GMT", None),
            ("Sun, 06 Nov 99999999999999999999 08:49:37 GMT", None),
            (", GMT", None),
            ("", None),
        ] {
            assert_eq!(unix_seconds(date), seconds, "{date}");
        }
    }
}
