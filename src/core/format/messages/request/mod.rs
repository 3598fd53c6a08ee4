//! Message requests: read as chat, and written from it.

mod clean;
mod read;
mod write;

pub(in crate::core::format) use self::write::JSON_TOOL;
pub use self::{clean::clean, read::read, write::write};

/// What stands for a message that says nothing, where leaving it out would put two turns of one role in a row. The words are LiteLLM's.
const NOTHING_SAID: &str = "[System: Empty message content sanitised to satisfy protocol]";

/// Whether a text of such letters alone is one that Anthropic refuses: white space, and what its server takes for that.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}
