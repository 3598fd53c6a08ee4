//! Server-sent events: out of bytes that arrive in any pieces, and into bytes.
//!
//! [`Decoder`] works on bytes, not text: a chunk may end inside a character, a line ending or a field name. Each event
//! carries the exact bytes it came in, so a stream that needs no change passes on unchanged.

use std::borrow::Cow;

use memchr::memchr2;

use super::event::{Event, TooLong};

/// Cuts a byte stream into events.
///
/// Give it what arrived with [`push`](Self::push), then take events with [`next`](Self::next) until it returns `None`; at
/// the end of the stream do the same with [`finish`](Self::finish). The raw bytes of all events in a row are exactly the
/// bytes pushed. Time is linear in the bytes pushed, however they are cut; memory is one unfinished event (at most the
/// cap) and the last chunk.
#[derive(Debug)]
pub struct Decoder {
    buf: Vec<u8>,
    // start <= line <= scan <= buf.len()
    /// First byte of the event in progress; what is before it has been handed out.
    start: usize,
    /// First byte of the line in progress.
    line: usize,
    /// Where the search for the end of that line goes on.
    scan: usize,
    cap: usize,
    begun: bool,
    ended: bool,
    failed: bool,
}

impl Decoder {
    /// A decoder that holds at most `cap` bytes of one event.
    pub fn new(cap: usize) -> Decoder {
        Decoder {
            buf: Vec::new(),
            start: 0,
            line: 0,
            scan: 0,
            cap,
            begun: false,
            ended: false,
            failed: false,
        }
    }

    /// Takes the bytes that arrived. After a [`TooLong`] they are ignored.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.failed {
            return;
        }
        // Moving the tail only when it is no longer than what it replaces keeps the total cost linear.
        if self.start >= self.buf.len() - self.start {
            self.buf.drain(..self.start);
            self.line -= self.start;
            self.scan -= self.start;
            self.start = 0;
        }
        self.buf.extend_from_slice(chunk);
    }

    /// The next whole event; `None` until more bytes arrive.
    ///
    /// An event whose blank line ends in a carriage return is handed out when the byte after it is there: only then is it
    /// known whether a line feed belongs to it.
    #[expect(
        clippy::should_implement_trait,
        reason = "an event borrows the decoder, which Iterator cannot say"
    )]
    pub fn next(&mut self) -> Option<Result<Event<'_>, TooLong>> {
        let (from, mark) = (self.start, self.mark());
        self.line = self.line.max(from + mark);
        self.scan = self.scan.max(from + mark);
        let end = if self.failed { None } else { self.find_end() };
        if self.failed || end.unwrap_or(self.buf.len()) - from > self.cap {
            self.failed = true;
            return Some(Err(TooLong { cap: self.cap }));
        }
        let end = end?;
        (self.start, self.line, self.scan) = (end, end, end);
        self.begun = true;
        let raw = self.buf.get(from..end)?;
        Some(Ok(read(raw, raw.get(mark..)?)))
    }

    /// Like [`next`](Self::next) when no more bytes will come: the last event is handed out even if its blank line is
    /// missing. To be called until it returns `None`.
    pub fn finish(&mut self) -> Option<Result<Event<'_>, TooLong>> {
        self.ended = true;
        self.next()
    }

    /// The bytes pushed and not handed out yet.
    pub fn remainder(&self) -> &[u8] {
        self.buf.get(self.start..).unwrap_or_default()
    }

    /// Length of the byte order mark in front of the event in progress: only the first may have one. (A mark that is not
    /// here whole yet holds no line ending, so nothing is decided without it.)
    fn mark(&self) -> usize {
        if !self.begun && self.remainder().starts_with(BOM) { BOM.len() } else { 0 }
    }

    /// The end of the event in progress (behind its blank line), if it is here.
    fn find_end(&mut self) -> Option<usize> {
        loop {
            let Some(at) = memchr2(b'\n', b'\r', self.buf.get(self.scan..)?).map(|at| self.scan + at) else {
                self.scan = self.buf.len();
                break;
            };
            let end = match (self.buf.get(at), self.buf.get(at + 1)) {
                (Some(b'\r'), Some(b'\n')) => at + 2,
                (Some(b'\r'), None) if !self.ended => {
                    self.scan = at;
                    return None;
                }
                _ => at + 1,
            };
            let blank = at == self.line;
            (self.line, self.scan) = (end, end);
            if blank {
                return Some(end);
            }
        }
        (self.ended && self.start < self.buf.len()).then_some(self.buf.len())
    }
}

/// Reads the fields of an event.
fn read<'a>(raw: &'a [u8], mut lines: &'a [u8]) -> Event<'a> {
    let mut event = Event { raw, name: None, data: Cow::Borrowed(b"") };
    let mut has_data = false;
    while !lines.is_empty() {
        let (line, rest) = split_line(lines);
        lines = rest;
        let (name, value) = match memchr::memchr(b':', line) {
            Some(at) => (line.get(..at).unwrap_or_default(), line.get(at + 1..).unwrap_or_default()),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"event" => event.name = Some(value),
            b"data" if has_data => {
                let data = event.data.to_mut();
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            b"data" => {
                event.data = Cow::Borrowed(value);
                has_data = true;
            }
            _ => {}
        }
    }
    event
}

/// Appends one event: an `event` field if a name is given, then `data` line by line, then the blank line.
///
/// The name must be a single line; it is cut at a line break, so that nothing in it can become a field of its own.
pub fn write(out: &mut Vec<u8>, event: Option<&str>, data: &[u8]) {
    if let Some(name) = event {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(split_line(name.as_bytes()).0);
        out.push(b'\n');
    }
    let mut rest = data;
    loop {
        let (line, after) = split_line(rest);
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
        if line.len() == rest.len() {
            break;
        }
        rest = after;
    }
    out.push(b'\n');
}

/// The first line without its ending, and what follows the ending.
fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    let Some(at) = memchr2(b'\n', b'\r', text) else {
        return (text, b"");
    };
    let (line, rest) = text.split_at(at);
    (line, rest.strip_prefix(b"\r\n").or_else(|| rest.get(1..)).unwrap_or_default())
}

/// The byte order mark that a text may begin with.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests;
