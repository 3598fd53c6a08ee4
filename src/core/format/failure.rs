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

/// Reads a failed response that came at `now_ms` (Unix milliseconds), also one whose status is good.
pub fn read(format: Ref, status: Option<Status>, headers: &Headers, body: &[u8], now_ms: u64) -> Failure {
    let (said, message) = format.read_failure(status, body);
    let words = Words::Theirs { code: said.code().map(str::to_owned) };
    Failure {
        class: Class::of(&said),
        status: said.status(),
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
        Err(_) => {
            let status = status.filter(|status| !status.is_good());
            Said::new(status, std::iter::empty(), &String::from_utf8_lossy(body))
        }
    }
}

/// What an object says that reports a failure: the body of a failed response, or one that came with a good status, or an event of
/// a stream. These two may have the status inside.
pub fn said_in(status: Option<Status>, value: &Value) -> Said {
    let error = inside(value);
    let number = |value: &Value| {
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
        ErrorStatus::new(u16::try_from(number).ok()?).map(Status::from)
    };
    let inside =
        || STATUSES.iter().find_map(|name| [error, value].iter().find_map(|at| number(at.get(name)?)));
    let status = status.filter(|status| !status.is_good()).or_else(inside);
    let codes = CODES.iter().filter_map(|name| error.get(name)?.as_str());
    let kind = value.get("error_type").and_then(Value::as_str);
    Said::new(status, codes.chain(kind), &value.to_string())
}

/// Where a failure without a status of its own names one.
const STATUSES: [&str; 5] = ["code", "status", "status_code", "statusCode", "http_status_code"];

/// Where a failure has its codes, the one that tells most first.
const CODES: [&str; 4] = ["code", "type", "status", "__type"];

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
    let (at, words) = reporting(value)?;
    Some(reported(at, Form::Bare, |_| words.to_owned()))
}

/// What reports a failure in an event or a body, with its words: itself, or one of its choices with OpenRouter.
pub fn reporting(value: &Value) -> Option<(&Value, &str)> {
    let choices = value.get("choices").and_then(Value::as_array).into_iter().flatten();
    let choices = choices.filter(|choice| choice.get("error").is_some());
    std::iter::once(value).chain(choices).find_map(|at| Some((at, reported_words(at)?)))
}

/// The words in `error`, if it reports a failure.
pub fn reported_words(value: &Value) -> Option<&str> {
    let error = error_in(value)?;
    let words = error.get("message").unwrap_or(error).as_str().filter(|words| !words.is_empty());
    Some(words.unwrap_or(UNSAID))
}

/// The failure in a body that came with a good status: it reports one, or it has no answer in it.
pub fn verdict(format: Ref, body: &Value) -> Option<Error> {
    let response = body.as_array().and_then(|list| list.first()).unwrap_or(body);
    let (member, is_answer) = format.answer();
    let has_answer = response.get(member).is_some_and(is_answer);
    format.read_error(response).or_else(|| (!has_answer).then(|| lacking(member, response)))
}

/// The failure of a body that came with a good status, and that has not got what every response has.
fn lacking(member: &str, value: &Value) -> Error {
    let words = words_in(value).unwrap_or_else(|| format!("the provider's answer has no `{member}`"));
    reported(value, Form::Bare, |_| words)
}

/// The failure of an event that is called one, whatever it says: `value`, or `null` where `data` is none.
pub fn named(data: &[u8], value: &Value) -> Error {
    let words = Some(message(data)).filter(|words| !words.is_empty());
    let words = words.unwrap_or_else(|| UNSAID.to_owned());
    let text = Value::from(words.as_str());
    reported(if value.is_null() { &text } else { value }, Form::Bare, |_| words)
}

/// The words of a failure that has none.
const UNSAID: &str = "the provider reported an error";

/// What an object has in `error`, or the object itself where it says that it is one (older vLLM). Some servers name an error that
/// is none in every response.
fn error_in(value: &Value) -> Option<&Value> {
    let error = value.get("error").filter(|error| !is_empty(error));
    error.or_else(|| value.get("object").is_some_and(|object| object == "error").then_some(value))
}

/// Whether a value says nothing.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(says) => !says,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// [`is_empty`] of a value that has not been read.
pub fn says_nothing(raw: &str) -> bool {
    matches!(raw, "null" | "false" | "0" | "\"\"" | "[]" | "{}")
}

/// The words in an error body of any common shape; bounded, and never the whole of an HTML page.
pub fn message(body: &[u8]) -> String {
    let found = serde_json::from_slice::<Value>(body).ok().and_then(|value| {
        let error = inside(&value);
        words_in(&value).or_else(|| (!error.is_null()).then(|| error.to_string()))
    });
    cut(found.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned()))
}

/// The words in an object that may report a failure.
fn words_in(value: &Value) -> Option<String> {
    let error = inside(value);
    let text = error.get("message").or(error.get("detail")).or(value.get("message"));
    let text = text.or(Some(error).filter(|error| error.is_string()))?;
    Some(cut(text.as_str().map_or_else(|| text.to_string(), str::to_owned))).filter(|_| !text.is_null())
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(2_000) {
        text.truncate(end);
    }
    text
}

/// The error in a body: `{"error": {…}}`, in a list with Google, or the body itself.
fn inside(body: &Value) -> &Value {
    let body = body.as_array().and_then(|list| list.first()).unwrap_or(body);
    error_in(body).unwrap_or(body)
}

/// The longest wait that is believed: a day.
const LONGEST_WAIT_MS: u64 = 86_400_000;

/// The wait that a response that came at `now_ms` asks for, in milliseconds: `retry-after-ms`, or `retry-after` in seconds or as a date.
pub fn retry_after(headers: &Headers, now_ms: u64) -> Option<u64> {
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
