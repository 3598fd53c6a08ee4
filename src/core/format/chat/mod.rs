//! OpenAI chat completions, and the pivot: every other format is read as it and written from it.
//!
//! In between, a request or response may hold members that OpenAI's API does not have, because another format means something
//! by them. They are listed in [`EXTENSIONS`]; whoever writes a format keeps each of them, translates it or leaves it out.

mod mend;
pub(super) mod request;
mod reshape;
pub mod response;
pub(super) mod stream;
#[cfg(test)]
mod tests;
pub(super) mod thought;
mod values;

use serde_json::{Map, Value};

use super::{
    Context, StreamedTexts, Written,
    prepare::{self, Facts, Prepare},
    response::{Join, ReadWith, WriteWith},
};
use crate::core::{
    codec::{json::Object, needle::Needle},
    error::Error,
    model::terms::Terms,
};

static CONTENT_FILTER: Needle = Needle::new("content_filter");

/// A member of the pivot that is not OpenAI's.
#[derive(Debug)]
pub struct Extension {
    /// Where it stands.
    pub at: &'static str,
    /// What it is.
    pub means: &'static str,
}

/// What a request or response may hold besides what OpenAI defines.
pub const EXTENSIONS: &[Extension] = &[
    Extension { at: "top_k", means: "Anthropic's sampling parameter, which many servers know" },
    Extension { at: "messages[].thinking_blocks", means: "Anthropic's thinking with its signatures" },
    Extension { at: "messages[].reasoning_content", means: "the same as a text" },
    Extension {
        at: "messages[].tool_calls[].extra_content",
        means: "the signature of the thought behind a call, which Google's models want back",
    },
    Extension { at: "messages[].content[].cache_control", means: "a breakpoint of Anthropic's prompt cache" },
    Extension { at: "messages[].content[].file.file_id", means: "a file; a URL where it is one" },
    Extension { at: "choices[].message.thinking_blocks", means: "thinking in a response" },
    Extension { at: "choices[].message.reasoning_content", means: "the same as a text" },
    Extension { at: "choices[].message.tool_calls[].extra_content", means: "the same in a response" },
    Extension { at: "choices[].message.provider_specific_fields", means: "Anthropic's citations" },
    Extension {
        at: "usage.cache_creation_input_tokens",
        means: "prompt tokens written to Anthropic's cache",
    },
    Extension { at: "usage.cache_read_input_tokens", means: "prompt tokens read from it" },
];

/// What rows of brands call it.
pub const NAME: &str = "chat";

/// The format.
pub struct Format;

impl super::Format for Format {
    fn name(&self) -> &'static str {
        NAME
    }

    fn path(&self) -> &'static str {
        "/chat/completions"
    }

    fn read_request(
        &self,
        body: Map<String, Value>,
        context: &Context<'_>,
    ) -> Result<(Map<String, Value>, WriteWith), Error> {
        Ok((body, self.writer(context.include_usage)?))
    }

    fn writer(&self, include_usage: bool) -> Result<WriteWith, Error> {
        Ok(Box::new(move |_| Box::new(stream::Writer::new(include_usage))))
    }

    fn write_request(&self, mut chat: Map<String, Value>, context: &Context<'_>) -> Result<Written, Error> {
        request::leave_out_extensions(&mut chat, context);
        Ok(Written { body: chat, betas: Vec::new(), reader: reader() })
    }

    fn fit(&self, body: &mut Object<'_>, p: &Prepare<'_>, facts: &mut Facts) -> Result<(), Error> {
        request::adjust(body, p, facts)?;
        prepare::ask_for_usage(body, p);
        Ok(())
    }

    fn terms(&self, body: &Object<'_>) -> Terms {
        Terms::asked(body.raw("service_tier"), body.raw("web_search_options"))
    }

    fn texts(&self) -> StreamedTexts {
        StreamedTexts::Deltas
    }

    fn mend(&self, body: &mut Object<'_>) -> bool {
        mend::whole(body)
    }

    fn shows(&self, data: &[u8]) -> bool {
        stream::is_shown_in(data)
    }

    fn is_filtered(&self, body: &[u8]) -> bool {
        response::is_stopped_by(&CONTENT_FILTER, "/choices/0/finish_reason", body)
    }

    fn write_stream(&self, whole: Value, out: &mut Vec<u8>) -> Result<(), Error> {
        reshape::write(whole, out)
    }

    fn joiner(&self) -> Option<Box<dyn Join>> {
        Some(Box::new(reshape::Joined::default()))
    }
}

/// What reads a response that is chat already.
pub(super) fn reader() -> ReadWith {
    Box::new(|_| Box::new(stream::Reader))
}
