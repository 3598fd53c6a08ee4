//! Text completion requests.

pub mod read;
pub mod write;
