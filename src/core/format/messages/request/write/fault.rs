//! What is wrong with a client's request, and where in it.

use std::{borrow::Cow, fmt::Display};

use crate::core::error::Error;

/// A place in the request and what was expected there. The path is put together on the way out, so that a request
/// without fault pays nothing for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    path: String,
    expected: Cow<'static, str>,
}

impl Fault {
    /// A fault at `path`, relative to the value being read; empty for that value itself.
    pub(super) fn at(path: &str, expected: impl Into<Cow<'static, str>>) -> Fault {
        Fault { path: path.to_owned(), expected: expected.into() }
    }

    /// The fault seen from the value around it.
    pub(super) fn inside(mut self, outer: impl Display) -> Fault {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{outer}{dot}{}", self.path);
        self
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        Error::bad_request(format!("{}: {}", fault.path, fault.expected)).with_param(fault.path)
    }
}

/// The start of a word a client sent, short enough to quote.
pub(super) fn clip(word: &str) -> String {
    word.chars().take(40).collect()
}
