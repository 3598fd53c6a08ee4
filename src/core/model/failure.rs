//! What went wrong at a provider.

pub mod native;
mod said;

pub use native::Native;
pub use said::Said;

use super::status::{ErrorStatus, Status};

/// What went wrong at a provider, in LiteLLM's words. Retries, fallbacks and cooldowns are decided by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The provider cannot take this request (400, 422).
    BadRequest,
    /// The prompt does not fit the model (400).
    ContextWindowExceeded,
    /// The prompt or the answer was refused by a content policy (400).
    ContentPolicyViolation,
    /// The chosen provider does not know a parameter (400, found by us).
    UnsupportedParams,
    /// The provider refused our credentials (401).
    Authentication,
    /// The provider's credentials may not do this (403).
    PermissionDenied,
    /// No such model or path at the provider (404).
    NotFound,
    /// No response in time (408, 504, our own timers).
    Timeout,
    /// The provider could not process the entity (422).
    UnprocessableEntity,
    /// Too many requests (429).
    RateLimit,
    /// The provider failed (500, Anthropic's 529).
    InternalServer,
    /// No connection, or one that broke (no status).
    ApiConnection,
    /// The provider is not there (503).
    ServiceUnavailable,
    /// Any other status.
    Api,
}

impl Class {
    /// LiteLLM's exception name, as it stands in messages.
    pub fn name(self) -> &'static str {
        match self {
            Class::BadRequest => "BadRequestError",
            Class::ContextWindowExceeded => "ContextWindowExceededError",
            Class::ContentPolicyViolation => "ContentPolicyViolationError",
            Class::UnsupportedParams => "UnsupportedParamsError",
            Class::Authentication => "AuthenticationError",
            Class::PermissionDenied => "PermissionDeniedError",
            Class::NotFound => "NotFoundError",
            Class::Timeout => "Timeout",
            Class::UnprocessableEntity => "UnprocessableEntityError",
            Class::RateLimit => "RateLimitError",
            Class::InternalServer => "InternalServerError",
            Class::ApiConnection => "APIConnectionError",
            Class::ServiceUnavailable => "ServiceUnavailableError",
            Class::Api => "APIError",
        }
    }

    /// The status LiteLLM gives this class ([`Class::Api`] keeps the provider's own).
    pub fn status(self) -> ErrorStatus {
        match self {
            Class::BadRequest
            | Class::ContextWindowExceeded
            | Class::ContentPolicyViolation
            | Class::UnsupportedParams => ErrorStatus::BAD_REQUEST,
            Class::Authentication => ErrorStatus::UNAUTHORIZED,
            Class::PermissionDenied => ErrorStatus::FORBIDDEN,
            Class::NotFound => ErrorStatus::NOT_FOUND,
            Class::Timeout => ErrorStatus::REQUEST_TIMEOUT,
            Class::UnprocessableEntity => ErrorStatus::UNPROCESSABLE_CONTENT,
            Class::RateLimit => ErrorStatus::TOO_MANY_REQUESTS,
            Class::InternalServer | Class::ApiConnection | Class::Api => ErrorStatus::INTERNAL_SERVER_ERROR,
            Class::ServiceUnavailable => ErrorStatus::SERVICE_UNAVAILABLE,
        }
    }

    /// The class whose [`Class::name`] occurs in `text` (`mock_response: "litellm.RateLimitError"`), if any.
    pub fn named_in(text: &str) -> Option<Class> {
        // Longer names first: "ContextWindowExceededError" must not be taken for a shorter one.
        const ALL: [Class; 14] = [
            Class::ContextWindowExceeded,
            Class::ContentPolicyViolation,
            Class::UnprocessableEntity,
            Class::ServiceUnavailable,
            Class::UnsupportedParams,
            Class::PermissionDenied,
            Class::Authentication,
            Class::InternalServer,
            Class::ApiConnection,
            Class::RateLimit,
            Class::BadRequest,
            Class::NotFound,
            Class::Timeout,
            Class::Api,
        ];
        ALL.into_iter().find(|class| text.contains(class.name()))
    }
}

/// A failed call.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What went wrong.
    pub class: Class,
    /// The provider's own status; none when no response came.
    pub status: Option<Status>,
    /// What is said of it.
    pub message: String,
    /// Whose words `message` has.
    pub words: Words,
    /// `retry-after` in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// What only clients of Anthropic's API see.
    pub native: Option<Box<Native>>,
}

/// Whose words tell of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Words {
    /// Ours.
    Ours,
    /// The provider's, and providers quote prompts: no log may hold them.
    Theirs {
        /// The provider's own code for the failure (`insufficient_quota`), when it has one. That may stand in a log.
        code: Option<String>,
    },
}

impl Failure {
    /// A failure without a response: `message` is in our words.
    pub fn without_answer(class: Class, message: &str) -> Failure {
        Failure {
            class,
            status: None,
            message: message.to_owned(),
            words: Words::Ours,
            retry_after_ms: None,
            native: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_by_their_litellm_name() {
        let rows = [
            ("litellm.RateLimitError", Some(Class::RateLimit)),
            ("litellm.ContextWindowExceededError: too long", Some(Class::ContextWindowExceeded)),
            ("Exception: mock InternalServerError", Some(Class::InternalServer)),
            ("hello", None),
        ];
        for (text, class) in rows {
            assert_eq!(Class::named_in(text), class, "{text}");
        }
    }
}
