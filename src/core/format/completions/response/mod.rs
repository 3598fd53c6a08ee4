//! Text completion responses.

pub mod read;
pub mod write;
