//! Message requests: read as chat, and written from it.

mod read;
mod write;

pub(super) use self::write::JSON_TOOL;
pub use self::{read::read, write::write};
