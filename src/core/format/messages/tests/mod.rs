//! Whole responses and streams, in both directions.

mod read;
mod write;
