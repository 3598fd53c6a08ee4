//! A failure as Anthropic's API tells it: what clients of that API steer by.

use serde_json::Value;

use crate::core::model::status::{ErrorStatus, Status};

/// The most bytes of `details` that are handed on.
const DETAILS: usize = 16 << 10;
/// The most bytes of a type or an id.
const WORD: usize = 128;

/// What clients of Anthropic's API see of an error besides its words, as far as the rest of the error does not say it. Clients of
/// other APIs see nothing of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Native {
    /// The status that Anthropic gave it, where LiteLLM has another (`529`, `413`).
    pub status: Option<ErrorStatus>,
    /// The error's `type` (`overloaded_error`).
    pub kind: Option<String>,
    /// The error's `details`, which name the cause by a code.
    pub details: Option<Value>,
    /// The id by which Anthropic knows the request.
    pub request_id: Option<String>,
}

impl Native {
    /// What a failure of this status says in Anthropic's shape. A body that came with a good status, or an event of a stream, says its
    /// status by its type.
    pub fn read(status: Option<Status>, body: &Value) -> Native {
        let error = body.get("error").unwrap_or(&Value::Null);
        let kind = word(error, "type");
        let status = status.and_then(|status| ErrorStatus::new(status.get()));
        Native {
            status: status.or_else(|| kind.and_then(status_of)),
            kind: kind.map(str::to_owned),
            details: error
                .get("details")
                .filter(|details| details.is_object() && details.to_string().len() <= DETAILS)
                .cloned(),
            request_id: word(body, "request_id").map(str::to_owned),
        }
    }
}

fn word<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name)?.as_str().filter(|text| is_word(text))
}

/// Whether a text is a name or an id, and no sentence.
pub fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= WORD
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:".contains(&b))
}

/// Anthropic's error types and the status of each (their API reference, "Errors").
const KINDS: [(&str, u16); 11] = [
    ("invalid_request_error", 400),
    ("authentication_error", 401),
    ("billing_error", 402),
    ("permission_error", 403),
    ("not_found_error", 404),
    ("conflict_error", 409),
    ("request_too_large", 413),
    ("rate_limit_error", 429),
    ("api_error", 500),
    ("timeout_error", 504),
    ("overloaded_error", 529),
];

/// Anthropic's error type for a status.
pub fn kind_of(status: ErrorStatus) -> &'static str {
    match status.get() {
        408 => "timeout_error",
        503 => "overloaded_error",
        code => match KINDS.iter().find(|(_, known)| *known == code) {
            Some((kind, _)) => kind,
            None if code < 500 => "invalid_request_error",
            None => "api_error",
        },
    }
}

fn status_of(kind: &str) -> Option<ErrorStatus> {
    KINDS.iter().find(|(known, _)| *known == kind).and_then(|(_, code)| ErrorStatus::new(*code))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failure_keeps_what_anthropics_clients_steer_by() {
        let details = json!({"error_code": "thread_unsupported_request", "unsupported": null});
        let long = json!({"error_code": "x".repeat(DETAILS)});
        let row = |status, kind: Option<&str>, details: Option<&Value>, id: Option<&str>| Native {
            status: ErrorStatus::new(status),
            kind: kind.map(str::to_owned),
            details: details.cloned(),
            request_id: id.map(str::to_owned),
        };
        let of = |kind: Value| json!({"type": "error", "error": {"type": kind, "message": "m"}, "request_id": "req_1"});
        let overloaded = Some("overloaded_error");
        let rows = [
            (529, of(json!("overloaded_error")), row(529, overloaded, None, Some("req_1"))),
            (413, of(json!("request_too_large")), row(413, Some("request_too_large"), None, Some("req_1"))),
            (200, of(json!("overloaded_error")), row(529, overloaded, None, Some("req_1"))),
            (0, of(json!("rate_limit_error")), row(429, Some("rate_limit_error"), None, Some("req_1"))),
            (0, of(json!("newer_error")), row(0, Some("newer_error"), None, Some("req_1"))),
            (400, of(json!("a sentence\"")), row(400, None, None, Some("req_1"))),
            (529, json!("<html>"), row(529, None, None, None)),
            (400, json!({"error": {"details": details}}), row(400, None, Some(&details), None)),
            (400, json!({"error": {"details": "text"}, "request_id": 7}), row(400, None, None, None)),
            (400, json!({"error": {"details": long}}), row(400, None, None, None)),
        ];
        for (status, body, expected) in rows {
            assert_eq!(Native::read(Status::new(status), &body), expected, "{status} {body}");
        }
    }

    #[test]
    fn every_status_has_a_type() {
        for (status, kind) in [
            (400, "invalid_request_error"),
            (405, "invalid_request_error"),
            (408, "timeout_error"),
            (409, "conflict_error"),
            (431, "invalid_request_error"),
            (500, "api_error"),
            (502, "api_error"),
            (503, "overloaded_error"),
            (529, "overloaded_error"),
        ] {
            assert_eq!(kind_of(ErrorStatus::new(status).unwrap()), kind, "{status}");
        }
    }
}
