//! One API's request and answer as another's.
//!
//! The hub is OpenAI chat: every client API can be turned into a chat request, every wire format can be made from one, and
//! the same backwards for answers. So a new client API or a new wire format is one file per direction, never a pair of
//! everything with everything. Where client and provider speak the same format nothing is translated at all: the request is
//! spliced and the answer passes.
//!
//! Each format has a folder that holds its requests, responses, streams and errors, in both directions where it is spoken by
//! clients and by providers.

pub mod chat;
pub mod completions;
pub mod failure;
pub mod generate;
#[cfg(test)]
mod golden;
pub mod messages;
mod params;
mod path;
pub mod pipeline;
pub mod prepare;
mod splice;
mod template;
mod words;

use crate::core::model::terms::Terms;

/// What a request translation may look at besides the body.
#[derive(Clone, Debug, Default)]
pub struct Options<'a> {
    /// The model to ask the provider for.
    pub model: &'a str,
    /// The brand's name in messages (`anthropic`).
    pub brand: &'a str,
    /// Unsupported parameters are dropped instead of refused.
    pub drop_params: bool,
    /// The request may be amended so that the provider takes it (placeholder messages, dummy tools).
    pub modify_params: bool,
    /// `allowed_openai_params`: parameters to pass although the brand is not known to take them.
    pub allowed_params: &'a [String],
    /// Custom prompt template of the deployment.
    pub template: Option<&'a crate::core::model::template::PromptTemplate>,
}

/// What the way back must know of the way there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memo {
    /// The answer's call of the tool `json_tool_call` is the content the client asked for (JSON output by a forced tool).
    pub json_tool: bool,
    /// Prefill that the answer continues and the client wants back (`"prefix": true`).
    pub prefix: Option<String>,
    /// The client asked for the usage chunk of a stream (`stream_options.include_usage`).
    pub include_usage: bool,
    /// The prompt sent, when the answer may echo it.
    pub echoes_prompt: bool,
    /// Texts that may stand at either end of the answer without being meant (a template's tokens, stop texts), for formats
    /// that leave them in.
    pub marks: Vec<String>,
    /// Estimated length of the prompt, for formats whose answers do not count it.
    pub prompt_tokens: u64,
    /// What the call is charged by, as the provider was asked.
    pub terms: Terms,
}

/// What a made-up answer is stamped with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// `chatcmpl-…`, the same on every chunk of a stream.
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// The model to name when the provider names none.
    pub model: String,
}
