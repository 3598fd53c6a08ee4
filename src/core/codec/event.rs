//! What a stream is made of, however its bytes tell one piece from the next.

use std::borrow::Cow;

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The whole event with what ends it, byte for byte.
    pub raw: &'a [u8],
    /// The event's name, if it has one (the last, if there are several).
    pub name: Option<&'a [u8]>,
    /// The event's data; empty for comments and stray blank lines.
    pub data: Cow<'a, [u8]>,
}

impl Event<'_> {
    /// Whether this is the `[DONE]` that ends an OpenAI stream.
    pub fn is_done(&self) -> bool {
        self.data.trim_ascii() == b"[DONE]"
    }
}

/// An event was longer than the decoder's cap. The decoder is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// The cap in bytes.
    pub cap: usize,
}
