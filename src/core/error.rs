//! Every refusal and failure a client can see, by who is at fault, and the one place that makes status, headers and body from it.
//!
//! Layers below return an [`Error`] that names a [`Fault`]; none of them picks a status, and none knows what the client's API
//! wants to read. [`Error::shape`] derives LiteLLM's status, `type`, `param` and headers, [`Error::body`] writes them. Messages are
//! for the caller: they name the thing, what was expected and the fix, and carry neither a provider key nor a prompt. Bodies follow
//! LiteLLM (`{"error": {"message", "type", "param", "code"}}`, `code` a string) on OpenAI paths and Anthropic's own
//! (`{"type": "error", …}`) on Anthropic paths.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::core::model::{
    failure::{Class, Native, Words, native},
    status::ErrorStatus,
};

/// The shape a client expects errors in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorFormat {
    /// `{"error": {"message", "type", "param", "code"}}`.
    OpenAi,
    /// `{"type": "error", "error": {"type", "message"}, "request_id"}`.
    Anthropic,
}

/// The most characters of a failure's words in a log.
const LOGGED_CHARS: usize = 400;

/// A failure on its way to the client.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// The party at fault, and how.
    pub fault: Fault,
    /// What the caller reads. LiteLLM's exact text where LiteLLM has one.
    pub message: String,
    /// The member, parameter or header of the request that it is about.
    pub param: Option<Cow<'static, str>>,
    /// What only clients of Anthropic's API see.
    pub native: Option<Box<Native>>,
}

/// The party at fault.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The request: its client must change it.
    Request(RequestFault),
    /// The key, or that there is none.
    Key(KeyFault),
    /// A limit or a budget is used up, of the caller or of what it calls.
    Limit(LimitFault),
    /// The provider.
    Provider(ProviderFault),
    /// Ourselves. The message must not carry anything the client sent.
    Ours(OurFault),
}

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum RequestFault {
    /// Something in it is not what was expected.
    Invalid,
    /// Something in it is not what was expected, in the words of LiteLLM's proxy itself (`bad_request_error`).
    BadRequest,
    /// No model has this name.
    UnknownModel,
    /// The model does not take a parameter.
    UnsupportedParams,
    /// The provider would fail like this, so it is not asked.
    Foreseen(Class),
    /// Nothing is at this path, or no model in the list of them.
    NotFound,
    /// The path takes only these methods.
    Method(Cow<'static, str>),
    /// The configuration does not allow it.
    Forbidden,
    /// No deployment has a tag of the request.
    Tags,
    /// The body is larger than anything that is read.
    TooLarge,
    /// The body did not come in time.
    TooSlow,
    /// The host refused it with this status.
    Unreadable(ErrorStatus),
    /// The ledger is needed, and there is none.
    NoLedger,
    /// What LiteLLM raises as an HTTP exception on management paths, with whatever status.
    Raised(ErrorStatus),
    /// The ledger has no such row.
    NoSuchRow,
    /// The ledger has no such end user.
    NoSuchCustomer,
    /// The ledger has the end user already.
    CustomerExists,
    /// The user is a member of the team already.
    AlreadyInTeam,
    /// A service that is to be tested is not configured.
    NoSuchService,
}

/// What is wrong with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// The key is missing, malformed, blocked, or its owner may not call.
    Refused,
    /// The key is unknown.
    Unknown,
    /// The key's time is over.
    Expired,
    /// The key may not do this.
    Forbidden,
    /// One of its owners may not call the model.
    Model(ModelOwner),
    /// A member of its team may not do this.
    TeamMember,
}

/// Whose list of models does not have the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelOwner {
    /// The key's.
    Key,
    /// The team's of the key.
    Team,
    /// The user's of the key.
    User,
    /// The organization's of the key.
    Organization,
}

/// Which limit is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitFault {
    /// The caller's budget.
    Budget,
    /// A limit of the caller's on requests, tokens or requests in flight.
    Rate {
        /// What is limited (`requests`, `tokens`, `max_parallel_requests`).
        what: &'static str,
        /// When it is counted anew (`2026-01-01 00:00:10 UTC`).
        resets_at: String,
        /// Seconds until then.
        wait_s: u64,
    },
    /// A deployment's limit on requests or tokens.
    DeploymentRate {
        /// Seconds until it is counted anew.
        wait_s: u64,
    },
    /// The budgets of all deployments.
    DeploymentBudget,
    /// All deployments are cooling down.
    NoDeployment {
        /// Seconds until the first can be called.
        wait_s: u64,
    },
}

/// A provider's failure, as far as the client is to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderFault {
    /// What went wrong.
    pub class: Class,
    /// The provider's own status. Clients see it where the class has none of its own.
    pub status: Option<ErrorStatus>,
    /// Milliseconds that the provider wants to be left alone.
    pub retry_after_ms: Option<u64>,
    /// Whose words the message is made of.
    pub words: Words,
    /// Whether the message is complete.
    pub form: Form,
}

/// Whether the message of a provider's failure is what LiteLLM's clients read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The whole message: `litellm.RateLimitError: …`.
    Whole,
    /// Only the words: the name of the class and the brand are to be put before them.
    Bare,
}

/// What is wrong with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OurFault {
    /// Something that must not happen has happened.
    Internal,
    /// Something that is needed is not there now.
    Unavailable {
        /// Seconds after which to try again, when that can be said.
        retry_after_s: Option<u64>,
    },
}

macro_rules! fault_of {
    ($($variant:ident($fault:ty))*) => { $(
        impl From<$fault> for Fault {
            fn from(fault: $fault) -> Fault {
                Fault::$variant(fault)
            }
        }
    )* };
}

fault_of! { Request(RequestFault) Key(KeyFault) Limit(LimitFault) Provider(ProviderFault) Ours(OurFault) }

/// What clients see of an error besides its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape<'e> {
    /// HTTP status. LiteLLM's `code` is the same as a text.
    pub status: ErrorStatus,
    /// LiteLLM's `type` (`auth_error`, `invalid_request_error`, …), where it has one.
    pub kind: Option<&'static str>,
    /// LiteLLM's `param`.
    pub param: Param<'e>,
    /// Headers that go with it, lower-case names.
    pub headers: Vec<(&'static str, String)>,
}

/// LiteLLM's `param`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Param<'e> {
    /// What in the request it is about.
    Named(&'e str),
    /// The text `None`, as Python prints that there is nothing.
    Unnamed,
    /// `null`.
    Null,
}

impl Error {
    /// An error of this fault.
    pub fn of(fault: impl Into<Fault>, message: impl Into<String>) -> Error {
        Error { fault: fault.into(), message: message.into(), param: None, native: None }
    }

    /// A request the client must change.
    pub fn bad_request(message: impl Into<String>) -> Error {
        Error::of(RequestFault::Invalid, message)
    }

    /// A refused or missing key.
    pub fn auth(message: impl Into<String>) -> Error {
        Error::of(KeyFault::Refused, message)
    }

    /// A fault of ours. The message must not carry anything the client sent.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::of(OurFault::Internal, message)
    }

    /// Something of ours that is not there now.
    pub fn unavailable(message: impl Into<String>) -> Error {
        Error::of(OurFault::Unavailable { retry_after_s: None }, message)
    }

    /// A provider failure of a class, in our own words.
    pub fn provider(class: Class, words: impl Into<String>) -> Error {
        Error::of(ProviderFault::new(class, Words::Ours, Form::Bare), words)
    }

    /// A provider failure of a class, in the provider's words.
    pub fn quoted(class: Class, words: impl Into<String>) -> Error {
        Error::of(ProviderFault::new(class, Words::Theirs { code: None }, Form::Bare), words)
    }

    /// Names the thing in the request that the error is about.
    pub fn with_param(mut self, param: impl Into<Cow<'static, str>>) -> Error {
        self.param = Some(param.into());
        self
    }

    /// Says the cause to clients of Anthropic's API in a form that they can act on.
    pub fn with_details(mut self, details: Value) -> Error {
        self.native.get_or_insert_default().details = Some(details);
        self
    }

    /// Says that the message of a provider failure is complete: it begins with `litellm.`.
    pub fn whole(mut self) -> Error {
        if let Fault::Provider(fault) = &mut self.fault {
            fault.form = Form::Whole;
        }
        self
    }

    /// The class of the provider failure behind it, or in the place of it.
    pub fn class(&self) -> Option<Class> {
        match &self.fault {
            Fault::Provider(fault) => Some(fault.class),
            Fault::Request(RequestFault::Foreseen(class)) => Some(*class),
            Fault::Request(RequestFault::UnsupportedParams) => Some(Class::UnsupportedParams),
            Fault::Limit(
                LimitFault::DeploymentRate { .. }
                | LimitFault::DeploymentBudget
                | LimitFault::NoDeployment { .. },
            ) => Some(Class::RateLimit),
            Fault::Request(_) | Fault::Key(_) | Fault::Limit(_) | Fault::Ours(_) => None,
        }
    }

    /// What clients see of it besides the message: the one place that says what a fault is over HTTP and in LiteLLM's words.
    pub fn shape(&self) -> Shape<'_> {
        use ErrorStatus as Is;
        let invalid = Some("invalid_request_error");
        let (status, kind) = match &self.fault {
            Fault::Request(fault) => match fault {
                RequestFault::Invalid | RequestFault::UnsupportedParams => (Is::BAD_REQUEST, invalid),
                RequestFault::BadRequest => (Is::BAD_REQUEST, Some("bad_request_error")),
                RequestFault::UnknownModel => (Is::BAD_REQUEST, None),
                RequestFault::Foreseen(class) => (class.status(), None),
                RequestFault::NotFound => (Is::NOT_FOUND, invalid),
                RequestFault::Method(_) => (Is::METHOD_NOT_ALLOWED, invalid),
                RequestFault::Forbidden => (Is::FORBIDDEN, invalid),
                RequestFault::Tags => (Is::UNAUTHORIZED, None),
                RequestFault::TooLarge => (Is::CONTENT_TOO_LARGE, invalid),
                RequestFault::TooSlow => (Is::REQUEST_TIMEOUT, invalid),
                RequestFault::Unreadable(status) => (*status, invalid),
                RequestFault::NoLedger => (Is::BAD_REQUEST, Some("no_db_connection")),
                RequestFault::Raised(status) => (*status, Some("internal_server_error")),
                RequestFault::NoSuchRow => (Is::NOT_FOUND, Some("not_found_error")),
                RequestFault::NoSuchCustomer => (Is::NOT_FOUND, Some("not_found")),
                RequestFault::CustomerExists => (Is::BAD_REQUEST, Some("bad_request")),
                RequestFault::AlreadyInTeam => (Is::BAD_REQUEST, Some("team_member_already_in_team")),
                RequestFault::NoSuchService => (Is::UNPROCESSABLE_CONTENT, Some("auth_error")),
            },
            Fault::Key(fault) => match fault {
                KeyFault::Refused => (Is::UNAUTHORIZED, Some("auth_error")),
                KeyFault::Unknown => (Is::UNAUTHORIZED, Some("token_not_found_in_db")),
                KeyFault::Expired => (Is::BAD_REQUEST, Some("expired_key")),
                KeyFault::Forbidden => (Is::FORBIDDEN, Some("auth_error")),
                KeyFault::Model(owner) => (Is::UNAUTHORIZED, Some(owner.denied())),
                KeyFault::TeamMember => (Is::UNAUTHORIZED, Some("team_member_permission_error")),
            },
            Fault::Limit(fault) => match fault {
                LimitFault::Budget => (Is::BAD_REQUEST, Some("budget_exceeded")),
                LimitFault::DeploymentRate { .. } => (Is::TOO_MANY_REQUESTS, Some("throttling_error")),
                LimitFault::Rate { .. } | LimitFault::DeploymentBudget | LimitFault::NoDeployment { .. } => {
                    (Is::TOO_MANY_REQUESTS, None)
                }
            },
            Fault::Provider(fault) => {
                let is_rate = fault.class == Class::RateLimit;
                let own = fault.status.filter(|_| fault.class == Class::Api);
                (own.unwrap_or(fault.class.status()), is_rate.then_some("throttling_error"))
            }
            Fault::Ours(OurFault::Internal) => (Is::INTERNAL_SERVER_ERROR, Some("internal_server_error")),
            Fault::Ours(OurFault::Unavailable { .. }) => {
                (Is::SERVICE_UNAVAILABLE, Some("service_unavailable"))
            }
        };
        let param = match (&self.fault, &self.param) {
            (Fault::Limit(LimitFault::Budget) | Fault::Request(RequestFault::NoLedger), _) => Param::Null,
            (_, Some(param)) => Param::Named(param),
            (_, None) => Param::Unnamed,
        };
        Shape { status, kind, param, headers: self.fault.headers() }
    }

    /// HTTP status for clients of this format: those of Anthropic's API see what Anthropic says, all others what LiteLLM says.
    pub fn status_in(&self, format: ErrorFormat) -> ErrorStatus {
        let native = self.native.as_ref().and_then(|native| native.status);
        native.filter(|_| format == ErrorFormat::Anthropic).unwrap_or_else(|| self.shape().status)
    }

    /// The id that clients of Anthropic's API find the request by: Anthropic's own, else `call_id`.
    pub fn request_id<'e>(&'e self, call_id: &'e str) -> &'e str {
        self.native.as_ref().and_then(|native| native.request_id.as_deref()).unwrap_or(call_id)
    }

    /// HTTP status.
    pub fn status(&self) -> u16 {
        self.shape().status.get()
    }

    /// What it is called in logs: LiteLLM's exception behind it, else the `type`, else what LiteLLM calls all others.
    pub fn name(&self) -> &'static str {
        self.class().map(Class::name).or(self.shape().kind).unwrap_or("ProxyException")
    }

    /// The exception that LiteLLM raises for it.
    pub fn exception(&self) -> &'static str {
        match (&self.fault, self.class()) {
            (_, Some(class)) => class.name(),
            (Fault::Limit(LimitFault::Budget), _) => "BudgetExceededError",
            (Fault::Limit(_), _) => "HTTPException",
            _ => "ProxyException",
        }
    }

    /// The words for a log, at most [`LOGGED_CHARS`] of them: never what a provider says in its own words.
    pub fn logged(&self) -> String {
        let Fault::Provider(ProviderFault { words: Words::Theirs { code }, .. }) = &self.fault else {
            return self.message.chars().take(LOGGED_CHARS).collect();
        };
        let code = code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
        format!("{} from the provider{code}", self.name())
    }

    /// The JSON body in the client's format, of the call with this id.
    pub fn body(&self, format: ErrorFormat, call_id: &str) -> Vec<u8> {
        // Of a failure of a provider's LiteLLM knows that it has no type.
        let without = if self.class().is_some() { None } else { Some("None") };
        self.written(format, without, call_id)
    }

    /// The body with this for a `type` that is not there.
    fn written(&self, format: ErrorFormat, without: Option<&str>, call_id: &str) -> Vec<u8> {
        let Shape { status, kind, param, .. } = self.shape();
        let value = match format {
            ErrorFormat::OpenAi => json!({"error": {
                "message": self.message,
                "type": kind.or(without),
                "param": param.written(),
                "code": status.to_string(),
            }}),
            ErrorFormat::Anthropic => self.in_anthropics_words(call_id),
        };
        value.to_string().into_bytes()
    }

    fn in_anthropics_words(&self, call_id: &str) -> Value {
        let native = self.native.as_deref();
        let kind = native.and_then(|native| native.kind.as_deref());
        let kind = kind.unwrap_or_else(|| native::kind_of(self.status_in(ErrorFormat::Anthropic)));
        let mut error = json!({"type": kind, "message": self.message});
        let details = native.and_then(|native| native.details.as_ref());
        if let (Some(details), Some(error)) = (details, error.as_object_mut()) {
            error.insert("details".to_owned(), details.clone());
        }
        json!({"type": "error", "error": error, "request_id": self.request_id(call_id)})
    }

    /// The error as one event inside a stream whose status has already gone out. No `[DONE]` follows it.
    pub fn event(&self, format: ErrorFormat, call_id: &str) -> Vec<u8> {
        let mut event = match format {
            ErrorFormat::OpenAi => b"data: ".to_vec(),
            ErrorFormat::Anthropic => b"event: error\ndata: ".to_vec(),
        };
        event.extend_from_slice(&self.written(format, Some("None"), call_id));
        event.extend_from_slice(b"\n\n");
        event
    }
}

impl ProviderFault {
    /// A failure of a class, with nothing more known of it.
    pub fn new(class: Class, words: Words, form: Form) -> ProviderFault {
        ProviderFault { class, status: None, retry_after_ms: None, words, form }
    }
}

impl Fault {
    /// Headers that say when or how to try again.
    fn headers(&self) -> Vec<(&'static str, String)> {
        let retry_after = |seconds: u64| ("retry-after", seconds.to_string());
        match self {
            Fault::Request(RequestFault::Method(allowed)) => vec![("allow", format!("{allowed}, OPTIONS"))],
            Fault::Limit(LimitFault::Rate { what, resets_at, wait_s }) => vec![
                retry_after(*wait_s),
                ("rate_limit_type", (*what).to_owned()),
                ("reset_at", resets_at.clone()),
            ],
            Fault::Limit(LimitFault::DeploymentRate { wait_s } | LimitFault::NoDeployment { wait_s }) => {
                vec![retry_after(*wait_s)]
            }
            Fault::Provider(fault) => {
                fault.retry_after_ms.map(|ms| retry_after(ms.div_ceil(1_000))).into_iter().collect()
            }
            Fault::Ours(OurFault::Unavailable { retry_after_s }) => {
                retry_after_s.map(retry_after).into_iter().collect()
            }
            Fault::Request(_) | Fault::Key(_) | Fault::Limit(_) | Fault::Ours(_) => Vec::new(),
        }
    }
}

impl ModelOwner {
    /// What LiteLLM's messages call it.
    pub fn word(self) -> &'static str {
        match self {
            ModelOwner::Key => "key",
            ModelOwner::Team => "team",
            ModelOwner::User => "user",
            ModelOwner::Organization => "org",
        }
    }

    /// LiteLLM's `type` of the refusal.
    fn denied(self) -> &'static str {
        match self {
            ModelOwner::Key => "key_model_access_denied",
            ModelOwner::Team => "team_model_access_denied",
            ModelOwner::User => "user_model_access_denied",
            ModelOwner::Organization => "org_model_access_denied",
        }
    }
}

impl Param<'_> {
    fn written(self) -> Value {
        match self {
            Param::Named(name) => name.into(),
            Param::Unnamed => "None".into(),
            Param::Null => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests;
