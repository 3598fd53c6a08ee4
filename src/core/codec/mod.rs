//! Framing of bytes that come from the network: bounded, incremental, indifferent to where a chunk ends; and bytes as text.

pub mod event;
pub mod framing;
pub mod glance;
pub mod hex;
pub mod json;
pub mod lines;
pub mod multipart;
pub mod needle;
pub mod packed;
pub mod percent;
pub mod scan;
pub mod sse;
pub mod tap;
pub mod texts;
pub mod value;
