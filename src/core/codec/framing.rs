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

/// What a body is, as far as its beginning tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Events of a stream.
    Stream,
    /// One JSON value.
    Whole,
    /// Bytes that are packed.
    Packed,
    /// Something else.
    Other,
}

/// What packed bytes begin with.
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// A line that is longer is one value.
const MOST_LINE_BYTES: usize = 64 * 1024;

impl Framing {
    /// What a body is that begins with `bytes`; `None` while they do not tell. `end` says that no more follow.
    pub fn shape(self, bytes: &[u8], end: bool) -> Option<Shape> {
        let begun = bytes.strip_prefix(sse::BOM).unwrap_or(bytes).trim_ascii_start();
        Some(match begun.first()? {
            b'[' => Shape::Whole,
            b'{' if self == Framing::Sse => Shape::Whole,
            b'{' => return lines_shape(begun, end),
            // A comment, or the name of a field that events have.
            b':' | b'd' | b'e' | b'i' | b'r' if self == Framing::Sse => Shape::Stream,
            _ if !end && [sse::BOM, GZIP, ZSTD].iter().any(|magic| is_begun(magic, begun)) => return None,
            _ if begun.starts_with(GZIP) || begun.starts_with(ZSTD) => Shape::Packed,
            _ => Shape::Other,
        })
    }
}

/// Whether `bytes` are a part of what they may become.
fn is_begun(magic: &[u8], bytes: &[u8]) -> bool {
    bytes.len() < magic.len() && magic.starts_with(bytes)
}

/// A JSON value on each line, or one on many lines. Which, shows where the first ends.
fn lines_shape(begun: &[u8], end: bool) -> Option<Shape> {
    match memchr::memchr(b'\n', begun) {
        Some(at) => {
            let line = begun.get(..at).unwrap_or_default().trim_ascii_end();
            Some(if line.ends_with(b"}") { Shape::Stream } else { Shape::Whole })
        }
        None if end => Some(Shape::Stream),
        None => (begun.len() > MOST_LINE_BYTES).then_some(Shape::Whole),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a body is in each framing, and how much of it has to be there to tell.
    const SHAPES: [(&[u8], [Shape; 2]); 19] = [
        (b"data: {}\n\n", [Shape::Stream, Shape::Other]),
        (b"data:{}", [Shape::Stream, Shape::Other]),
        (b"event: message_start\ndata: {}\n\n", [Shape::Stream, Shape::Other]),
        (b"id: 1\n", [Shape::Stream, Shape::Other]),
        (b"retry: 1\n", [Shape::Stream, Shape::Other]),
        (b": ping\n\n", [Shape::Stream, Shape::Other]),
        (b"\xef\xbb\xbf\r\n \ndata: 1", [Shape::Stream, Shape::Other]),
        (b"{\"a\":1}", [Shape::Whole, Shape::Stream]),
        (b"\xef\xbb\xbf{\"a\":1}", [Shape::Whole, Shape::Stream]),
        (b" \t\r\n{\"a\":1}", [Shape::Whole, Shape::Stream]),
        (b"{\"a\":1}\n{\"a\":1}\n", [Shape::Whole, Shape::Stream]),
        (b"{\"a\":1} \r\n{\"a\"", [Shape::Whole, Shape::Stream]),
        (b"{\n  \"a\": {}\n}", [Shape::Whole, Shape::Whole]),
        (b"[{}]", [Shape::Whole, Shape::Whole]),
        (b"\x1f\x8b\x08\x00", [Shape::Packed, Shape::Packed]),
        (b"\x28\xb5\x2f\xfd", [Shape::Packed, Shape::Packed]),
        (b"<html>", [Shape::Other, Shape::Other]),
        (b"(none)", [Shape::Other, Shape::Other]),
        (b"\xef\xbb", [Shape::Other, Shape::Other]),
    ];

    #[test]
    fn the_first_bytes_tell_what_a_body_is() {
        for (body, shapes) in SHAPES {
            for (framing, shape) in [Framing::Sse, Framing::JsonLines].into_iter().zip(shapes) {
                assert_eq!(framing.shape(body, true), Some(shape), "{framing:?} {}", body.escape_ascii());
                // What is told once is never taken back.
                for at in 0..body.len() {
                    let told = framing.shape(&body[..at], false);
                    assert!(
                        told.is_none() || told == Some(shape),
                        "{framing:?} {} at {at}: {told:?}",
                        body.escape_ascii()
                    );
                }
            }
        }
        for blank in [&b""[..], b" \r\n", b"\xef\xbb\xbf"] {
            assert_eq!(Framing::Sse.shape(blank, true), None);
        }
    }

    #[test]
    fn a_long_line_is_not_waited_for() {
        let line = format!("{{\"a\":\"{}", "x".repeat(MOST_LINE_BYTES));
        assert_eq!(Framing::JsonLines.shape(line.as_bytes(), false), Some(Shape::Whole));
    }
}
