//! The life of one request, from its headers to its record.

pub mod headers;
