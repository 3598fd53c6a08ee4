//! Message requests.

pub mod read;
pub mod write;
