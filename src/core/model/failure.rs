//! What went wrong at a provider.

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
    /// No answer in time (408, 504, our own timers).
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
    pub fn status(self) -> u16 {
        match self {
            Class::BadRequest
            | Class::ContextWindowExceeded
            | Class::ContentPolicyViolation
            | Class::UnsupportedParams => 400,
            Class::Authentication => 401,
            Class::PermissionDenied => 403,
            Class::NotFound => 404,
            Class::Timeout => 408,
            Class::UnprocessableEntity => 422,
            Class::RateLimit => 429,
            Class::InternalServer | Class::ApiConnection | Class::Api => 500,
            Class::ServiceUnavailable => 503,
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
    /// The provider's own status; 0 when no answer came.
    pub status: u16,
    /// The provider's own message.
    pub message: String,
    /// `retry-after` in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The provider's own code for it.
    pub code: Option<String>,
}

impl Failure {
    /// A failure without an answer: `message` is in our words.
    pub fn without_answer(class: Class, message: &str) -> Failure {
        Failure { class, status: 0, message: message.to_owned(), retry_after_ms: None, code: None }
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
