//! The client APIs the gateway speaks, and the table that finds one from a method and a path.

pub mod managed;
mod not_yet;
pub mod path;

use crate::core::error::ErrorFormat;

/// The API a client speaks in its request and wants to read in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// OpenAI chat completions.
    Chat,
    /// OpenAI text completions.
    Completions,
    /// OpenAI embeddings.
    Embeddings,
    /// Anthropic messages.
    Messages,
}

impl Api {
    /// The error shape of this API.
    pub fn error_format(self) -> ErrorFormat {
        match self {
            Api::Messages => ErrorFormat::Anthropic,
            _ => ErrorFormat::OpenAi,
        }
    }

    /// The path as LiteLLM names it in messages.
    pub fn path(self) -> &'static str {
        match self {
            Api::Chat => "/chat/completions",
            Api::Completions => "/completions",
            Api::Embeddings => "/embeddings",
            Api::Messages => "/v1/messages",
        }
    }

    /// LiteLLM's call type, used in records and metrics.
    pub fn call_type(self) -> &'static str {
        match self {
            Api::Chat => "acompletion",
            Api::Completions => "atext_completion",
            Api::Embeddings => "aembedding",
            Api::Messages => "anthropic_messages",
        }
    }
}
