//! What a provider's failed response means: its class, and the words for the client.

use serde_json::Value;

use super::Ref;
use crate::core::{
    error::{Error, Form, ProviderFault},
    headers::Headers,
    model::{
        failure::{Class, Failure, Said, Words},
        status::{ErrorStatus, Status},
    },
};

/// Reads a failed response that came at `now_ms` (Unix milliseconds).
pub fn read(format: Ref, status: Option<Status>, headers: &Headers, body: &[u8], now_ms: u64) -> Failure {
    let (said, message) = format.read_failure(status, body);
    let words = Words::Theirs { code: said.code().map(str::to_owned) };
    Failure {
        class: Class::of(&said),
        status,
        message,
        words,
        retry_after_ms: retry_after(headers, now_ms),
        native: format.read_native(status, body).map(Box::new),
    }
}

/// What the body of a failed response says.
pub fn said(status: Option<Status>, body: &[u8]) -> Said {
    match serde_json::from_slice(body) {
        Ok(value) => said_in(status, &value),
        Err(_) => Said::new(status, std::iter::empty(), &String::from_utf8_lossy(body)),
    }
}

/// What an object says that reports a failure: the body of a failed response, or one that came with a good status, or an event of
/// a stream. These two may have the status inside.
pub fn said_in(status: Option<Status>, value: &Value) -> Said {
    let error = inside(value);
    let number = || {
        let code = error.get("code").or(value.get("http_status_code"))?;
        let number = code.as_u64().or_else(|| code.as_str()?.parse().ok())?;
        ErrorStatus::new(u16::try_from(number).ok()?).map(Status::from)
    };
    let status = status.filter(|status| !status.is_good()).or_else(number);
    let codes = ["code", "type", "status", "__type"].into_iter();
    Said::new(status, codes.filter_map(|name| error.get(name)?.as_str()), &value.to_string())
}

/// The failure that an object reports with `message`, which is `form`.
pub fn reported(value: &Value, form: Form, message: impl FnOnce(Class) -> String) -> Error {
    let said = said_in(None, value);
    let class = Class::of(&said);
    let fault = ProviderFault {
        status: said.status().and_then(|status| ErrorStatus::new(status.get())),
        ..ProviderFault::new(class, Words::Theirs { code: said.code().map(str::to_owned) }, form)
    };
    Error::of(fault, message(class))
}

/// The failure that an event of a stream reports, or a body that came with a good status: an object in `error`, or only its words.
pub fn reported_in(value: &Value) -> Option<Error> {
    let words = reported_words(value)?;
    Some(reported(value, Form::Bare, |_| words.to_owned()))
}

/// The words in `error`, if it reports a failure.
pub fn reported_words(value: &Value) -> Option<&str> {
    let error = value.get("error").filter(|error| !error.is_null())?;
    Some(error.get("message").unwrap_or(error).as_str().unwrap_or("the provider reported an error"))
}

/// The words in an error body of any common shape; bounded, and never the whole of an HTML page.
pub fn message(body: &[u8]) -> String {
    let found = serde_json::from_slice::<Value>(body).ok().and_then(|value| {
        let error = inside(&value);
        let text = error.get("message").or(error.get("detail")).or(value.get("message")).unwrap_or(error);
        text.as_str().map(str::to_owned).or_else(|| (!text.is_null()).then(|| text.to_string()))
    });
    let mut text = found.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    if let Some((end, _)) = text.char_indices().nth(2_000) {
        text.truncate(end);
    }
    text
}

/// The error in a body: `{"error": {…}}`, in a list with Google, or the body itself.
fn inside(body: &Value) -> &Value {
    let body = body.as_array().and_then(|list| list.first()).unwrap_or(body);
    body.get("error").filter(|error| !error.is_null()).unwrap_or(body)
}

/// The longest wait that is believed: a day.
const LONGEST_WAIT_MS: u64 = 86_400_000;

/// The wait that a response asks for, in milliseconds: `retry-after-ms`, or `retry-after` in seconds or as a date.
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
            status: own,
            retry_after_ms: self.retry_after_ms,
            words: self.words.clone(),
            form: Form::Whole,
        };
        Error { native: self.native.clone(), ..Error::of(fault, message) }
    }
}

#[cfg(test)]
mod tests;
