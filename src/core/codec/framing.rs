//! How the events of a stream are told apart.

use super::{
    event::{Event, TooLong},
    lines, sse,
};

/// A way to put events into a stream of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// A JSON value on each line.
    JsonLines,
}

impl Framing {
    /// One of its events, in words.
    pub fn unit(self) -> &'static str {
        match self {
            Framing::Sse => "an event",
            Framing::JsonLines => "a line",
        }
    }

    /// The media type of such a stream.
    pub fn media_type(self) -> &'static str {
        match self {
            Framing::Sse => "text/event-stream",
            Framing::JsonLines => "application/x-ndjson",
        }
    }
}

/// Cuts a stream of bytes that arrive in any pieces into events.
#[derive(Debug)]
pub enum Decoder {
    /// Server-sent events.
    Sse(sse::Decoder),
    /// Lines.
    JsonLines(lines::Decoder),
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::JsonLines(lines::Decoder::new(0))
    }
}

impl Decoder {
    /// A decoder that holds at most `cap` bytes of one event.
    pub fn new(framing: Framing, cap: usize) -> Decoder {
        match framing {
            Framing::Sse => Decoder::Sse(sse::Decoder::new(cap)),
            Framing::JsonLines => Decoder::JsonLines(lines::Decoder::new(cap)),
        }
    }

    /// Takes the bytes that arrived.
    pub fn push(&mut self, chunk: &[u8]) {
        match self {
            Decoder::Sse(decoder) => decoder.push(chunk),
            Decoder::JsonLines(decoder) => decoder.push(chunk),
        }
    }

    /// The next whole event; `None` until more bytes arrive.
    #[expect(
        clippy::should_implement_trait,
        reason = "an event borrows the decoder, which Iterator cannot say"
    )]
    pub fn next(&mut self) -> Option<Result<Event<'_>, TooLong>> {
        match self {
            Decoder::Sse(decoder) => decoder.next(),
            Decoder::JsonLines(decoder) => decoder.next(),
        }
    }

    /// The last event, when no more bytes will come.
    pub fn finish(&mut self) -> Option<Result<Event<'_>, TooLong>> {
        match self {
            Decoder::Sse(decoder) => decoder.finish(),
            Decoder::JsonLines(decoder) => decoder.finish(),
        }
    }
}
