//! What clients may ask for: the table of client APIs, and the table that finds one of them, or another action, from a method and
//! a path.
//!
//! A client API is an [`Operation`] in a [`Dialect`]: what is to be done, and in whose words. A new one is a row of [`APIS`], which
//! also says what its body [carries](Carries).

pub mod body;
pub mod managed;
mod not_yet;
pub mod path;

use self::body::Carries;
use crate::core::error::ErrorFormat;

/// What a model is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Go on from a prompt.
    Generate,
    /// Turn texts into vectors.
    Embed,
    /// Count the tokens of a prompt.
    CountTokens,
}

impl Operation {
    /// Whether it uses tokens: what does not is free, and counts against nobody's limits, as in LiteLLM.
    pub fn is_metered(self) -> bool {
        self != Operation::CountTokens
    }
}

/// The words in which a client asks and wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's text completions.
    Completions,
    /// OpenAI's embeddings.
    Embeddings,
    /// Anthropic's messages.
    Messages,
}

/// A client API: where it is served, and what a call of it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Api {
    /// What is to be done.
    pub operation: Operation,
    /// In whose words.
    pub dialect: Dialect,
    /// The HTTP method.
    pub method: &'static str,
    /// The path, as LiteLLM names it in messages. `{model}` in it stands for the model, slashes included.
    pub path: &'static str,
    /// Whether it is served with `/v1` before its path too.
    pub with_version: bool,
    /// Whether a model may stand in its path: `/engines/{model}/…`, `/openai/deployments/{model}/…`.
    pub model_in_path: bool,
    /// What its body is.
    pub carries: Carries,
    /// The shape of its errors.
    pub error_format: ErrorFormat,
    /// LiteLLM's call type, used in records and metrics.
    pub call_type: &'static str,
}

/// An API of the table.
pub type ApiRef = &'static Api;

/// One of OpenAI's APIs: they differ in little.
const fn openai(operation: Operation, dialect: Dialect, path: &'static str, call_type: &'static str) -> Api {
    Api {
        operation,
        dialect,
        method: "POST",
        path,
        with_version: true,
        model_in_path: true,
        carries: Carries::Json,
        error_format: ErrorFormat::OpenAi,
        call_type,
    }
}

/// OpenAI's chat completions.
pub static CHAT: Api = openai(Operation::Generate, Dialect::Chat, "/chat/completions", "acompletion");
/// OpenAI's text completions.
pub static COMPLETIONS: Api =
    openai(Operation::Generate, Dialect::Completions, "/completions", "atext_completion");
/// OpenAI's embeddings.
pub static EMBEDDINGS: Api = openai(Operation::Embed, Dialect::Embeddings, "/embeddings", "aembedding");
/// Anthropic's messages, which exist with `/v1` only, as theirs do.
pub static MESSAGES: Api = Api {
    with_version: false,
    model_in_path: false,
    error_format: ErrorFormat::Anthropic,
    ..openai(Operation::Generate, Dialect::Messages, "/v1/messages", "anthropic_messages")
};

/// The count of a message's tokens.
pub static COUNT_TOKENS: Api = Api {
    operation: Operation::CountTokens,
    path: "/v1/messages/count_tokens",
    call_type: "acount_tokens",
    ..MESSAGES
};

/// All client APIs. `/completions` is also the end of `/chat/completions`: the longer one stands first.
pub static APIS: [ApiRef; 5] = [&CHAT, &COMPLETIONS, &EMBEDDINGS, &MESSAGES, &COUNT_TOKENS];
