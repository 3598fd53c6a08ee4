//! Message streams.

pub mod blocks;
pub mod read;
