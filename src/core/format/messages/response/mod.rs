//! Message responses.

pub mod read;
pub mod write;
