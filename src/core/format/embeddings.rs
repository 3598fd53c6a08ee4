//! OpenAI embeddings: one format on both sides, never translated.

use super::prepare::CHAT_PARAMS;

/// What rows of brands call it.
pub const NAME: &str = "embeddings";

/// The format.
pub struct Format;

impl super::Format for Format {
    fn name(&self) -> &'static str {
        NAME
    }

    fn path(&self) -> &'static str {
        "/embeddings"
    }

    fn takes_default(&self, member: &str) -> bool {
        !CHAT_PARAMS.contains(&member) || member == "user"
    }

    fn has_texts(&self) -> bool {
        false
    }
}
