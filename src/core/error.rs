//! Every refusal and failure a client can see: one type, and one place that makes status, headers and body from it.
//!
//! Layers below return an [`Error`] by who is at fault; none of them knows what the client's API wants to read. That is
//! [`Error::body`]'s business. Messages are for the caller: they name the thing, what was expected and the fix, and carry
//! neither a provider key nor a prompt. Shapes follow LiteLLM (`{"error": {"message", "type", "param", "code"}}`, `code` a
//! string) on OpenAI paths and Anthropic's own (`{"type": "error", …}`) on Anthropic paths.

use std::borrow::Cow;

use serde_json::json;

use crate::core::model::failure::Class;

/// The shape a client expects errors in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorFormat {
    /// `{"error": {"message", "type", "param", "code"}}`.
    OpenAi,
    /// `{"type": "error", "error": {"type", "message"}}`.
    Anthropic,
}

/// So many characters of a failure's words stand in a log.
const LOGGED_CHARS: usize = 400;

/// What a provider said that may stand in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quoted {
    /// Its own code for the failure (`insufficient_quota`), when it has one.
    pub code: Option<String>,
}

/// A failure on its way to the client.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// HTTP status.
    pub status: u16,
    /// What the caller reads. LiteLLM's exact text where LiteLLM has one.
    pub message: String,
    /// LiteLLM's `type` (`auth_error`, `invalid_request_error`, …); `None` prints as the text `None`, as LiteLLM does, and as
    /// `null` for a failure of a provider's.
    pub kind: Option<Cow<'static, str>>,
    /// LiteLLM's `param`; `None` prints as the text `None`.
    pub param: Option<Cow<'static, str>>,
    /// `param` prints as `null`.
    pub null_param: bool,
    /// The provider failure behind it, when there is one.
    pub class: Option<Class>,
    /// `message` quotes a provider, and providers quote prompts: no log may hold it.
    pub quotes: Option<Box<Quoted>>,
    /// Headers that go with it (`retry-after`, …), lower-case names.
    pub headers: Vec<(Cow<'static, str>, String)>,
}

impl Error {
    /// A request the client must change (400).
    pub fn bad_request(message: impl Into<String>) -> Error {
        Error::new(400, message).with_kind("invalid_request_error")
    }

    /// A refused or missing key (401).
    pub fn auth(message: impl Into<String>) -> Error {
        Error::new(401, message).with_kind("auth_error")
    }

    /// A fault of ours (500). The message must not carry anything the client sent.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(500, message).with_kind("internal_server_error")
    }

    /// A provider failure of a class, `message` being the whole text after `litellm.`, in our own words.
    pub fn provider(class: Class, message: impl Into<String>) -> Error {
        let mut error = Error::new(class.status(), message);
        error.class = Some(class);
        error.kind = match class {
            Class::RateLimit => Some(Cow::Borrowed("throttling_error")),
            _ => None,
        };
        error
    }

    /// The same in the provider's words.
    pub fn quoted(class: Class, message: impl Into<String>) -> Error {
        Error { quotes: Some(Box::default()), ..Error::provider(class, message) }
    }

    /// Any status with LiteLLM's `type` and `param` left at `None`.
    pub fn new(status: u16, message: impl Into<String>) -> Error {
        Error {
            status,
            message: message.into(),
            kind: None,
            param: None,
            null_param: false,
            class: None,
            quotes: None,
            headers: Vec::new(),
        }
    }

    /// The same with a `type`.
    pub fn with_kind(mut self, kind: impl Into<Cow<'static, str>>) -> Error {
        self.kind = Some(kind.into());
        self
    }

    /// The same with a `param`.
    pub fn with_param(mut self, param: impl Into<Cow<'static, str>>) -> Error {
        self.param = Some(param.into());
        self
    }

    /// The same with a `param` that is `null`.
    pub fn with_null_param(mut self) -> Error {
        self.null_param = true;
        self
    }

    /// The same with one more header.
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Error {
        self.headers.push((Cow::Borrowed(name), value.into()));
        self
    }

    /// What it is called in logs: LiteLLM's exception behind it, else the `type`, else what LiteLLM calls all others.
    pub fn name(&self) -> Cow<'static, str> {
        match self.class {
            Some(class) => Cow::Borrowed(class.name()),
            None => self.kind.clone().unwrap_or(Cow::Borrowed("ProxyException")),
        }
    }

    /// Its words for a log, at most [`LOGGED_CHARS`] of them: never what a provider says in its own words.
    pub fn logged(&self) -> String {
        let Some(quoted) = &self.quotes else {
            return self.message.chars().take(LOGGED_CHARS).collect();
        };
        let code = quoted.code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
        format!("{} from the provider{code}", self.name())
    }

    /// The JSON body in the client's format.
    pub fn body(&self, format: ErrorFormat) -> Vec<u8> {
        let without = if self.class.is_some() { None } else { Some("None") };
        self.written(format, without)
    }

    /// The body with this for a `type` that is not there.
    fn written(&self, format: ErrorFormat, without: Option<&str>) -> Vec<u8> {
        let value = match format {
            ErrorFormat::OpenAi => json!({"error": {
                "message": self.message,
                "type": self.kind.as_deref().or(without),
                "param": if self.null_param { None } else { Some(self.param.as_deref().unwrap_or("None")) },
                "code": self.status.to_string(),
            }}),
            ErrorFormat::Anthropic => json!({"type": "error", "error": {
                "type": anthropic_kind(self.status),
                "message": self.message,
            }}),
        };
        value.to_string().into_bytes()
    }

    /// The error as one event inside a stream whose status has already gone out. No `[DONE]` follows it.
    pub fn event(&self, format: ErrorFormat) -> Vec<u8> {
        let mut event = match format {
            ErrorFormat::OpenAi => b"data: ".to_vec(),
            ErrorFormat::Anthropic => b"event: error\ndata: ".to_vec(),
        };
        event.extend_from_slice(&self.written(format, Some("None")));
        event.extend_from_slice(b"\n\n");
        event
    }
}

/// Anthropic's error type for a status (their API reference, "Errors").
fn anthropic_kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests;
