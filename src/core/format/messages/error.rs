//! Anthropic's errors in LiteLLM's classes.

use serde_json::Value;

use super::text;
use crate::core::{error::Error, format::words::Said, model::failure::Class};

/// How much of a provider's message is kept, in bytes.
const LONGEST_MESSAGE: usize = 4096;

/// The class of a failed answer, and the provider's own message (the body's text when it is not Anthropic's JSON; empty
/// when there is none).
///
/// The text decides first: too long a prompt and a refused one have no status of their own. Then the status, then
/// Anthropic's error type.
pub fn error_class(status: u16, body: &[u8]) -> (Class, String) {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let error = parsed.as_ref().and_then(|body| body.get("error"));
    let message = match error.and_then(|error| error.get("message")).and_then(Value::as_str) {
        Some(message) => clip(message),
        // Cut before decoding: a body that is not Anthropic's may be large.
        None => clip(&String::from_utf8_lossy(body.get(..LONGEST_MESSAGE).unwrap_or(body))),
    };
    let error = error.unwrap_or(&Value::Null);
    (class(status, error, &message), message)
}

/// An error object that came where an answer should be, inside a stream or with a good status.
pub fn error(body: &Value) -> Error {
    let error = body.get("error").unwrap_or(&Value::Null);
    let message = clip(text(error, "message"));
    let class = class(200, error, &message);
    Error::quoted(class, format!("litellm.{}: AnthropicException - {message}", class.name())).whole()
}

fn class(status: u16, error: &Value, message: &str) -> Class {
    if let Some(class) = Said::by_error(error, message).class(status) {
        return class;
    }
    match status {
        400 | 413 | 422 => Class::BadRequest,
        401 => Class::Authentication,
        403 => Class::PermissionDenied,
        404 => Class::NotFound,
        408 | 504 => Class::Timeout,
        429 => Class::RateLimit,
        500 | 529 => Class::InternalServer,
        503 => Class::ServiceUnavailable,
        _ => match text(error, "type") {
            "invalid_request_error" => Class::BadRequest,
            "authentication_error" => Class::Authentication,
            "permission_error" => Class::PermissionDenied,
            "not_found_error" => Class::NotFound,
            "timeout_error" => Class::Timeout,
            "api_error" | "overloaded_error" => Class::InternalServer,
            // An error that names nothing we know is at least not the client's fault.
            _ if status < 400 => Class::InternalServer,
            _ => Class::Api,
        },
    }
}

fn clip(message: &str) -> String {
    let message = message.trim();
    let mut end = message.len().min(LONGEST_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.get(..end).unwrap_or_default().to_owned()
}
