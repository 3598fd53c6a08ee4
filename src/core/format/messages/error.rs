//! Anthropic's errors: where their words stand, and the status that only Anthropic has.

use serde_json::Value;

use crate::core::{
    error::{Error, Form},
    format::failure,
    model::{
        failure::{Native, Said},
        status::Status,
    },
};

/// How much of a provider's message is kept, in bytes.
const LONGEST_MESSAGE: usize = 4096;

/// What the body of a failed response says, and the provider's own message (the body's text when it is not Anthropic's JSON;
/// empty when there is none).
pub fn read(status: Option<Status>, body: &[u8]) -> (Said, String) {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let message = parsed.as_ref().and_then(|body| body.get("error")?.get("message")?.as_str());
    let message = match message {
        Some(message) => clip(message),
        // Cut before decoding: a body that is not Anthropic's may be large.
        None => clip(&String::from_utf8_lossy(body.get(..LONGEST_MESSAGE).unwrap_or(body))),
    };
    let said = failure::said(status, body);
    let is_overloaded = status.is_some_and(|status| status.get() == 529);
    (if is_overloaded { said.with_code("overloaded_error") } else { said }, message)
}

/// An error object that came where a response should be, inside a stream or with a good status.
pub fn reported(body: &Value) -> Error {
    let message = clip(failure::reported_words(body).unwrap_or_default());
    let error = failure::reported(body, Form::Whole, |class| {
        format!("litellm.{}: AnthropicException - {message}", class.name())
    });
    Error { native: Some(Box::new(Native::read(None, body))), ..error }
}

fn clip(message: &str) -> String {
    let message = message.trim();
    let mut end = message.len().min(LONGEST_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.get(..end).unwrap_or_default().to_owned()
}
