//! A JSON value on each line (NDJSON): values out of bytes that arrive in any pieces.

use std::borrow::Cow;

use super::event::{Event, TooLong};

/// Cuts a byte stream into lines. Blank ones are passed over.
///
/// Time is linear in the bytes pushed, however they are cut; memory is one unfinished line (at most the cap) and the last chunk.
#[derive(Debug)]
pub struct Decoder {
    buf: Vec<u8>,
    // start <= scan <= buf.len()
    /// First byte of the line in progress.
    start: usize,
    /// Where the search for its end goes on.
    scan: usize,
    cap: usize,
}

impl Decoder {
    /// A decoder that holds at most `cap` bytes of one line.
    pub fn new(cap: usize) -> Decoder {
        Decoder { buf: Vec::new(), start: 0, scan: 0, cap }
    }

    /// Takes the bytes that arrived.
    pub fn push(&mut self, chunk: &[u8]) {
        // Moving the tail only when it is no longer than what it replaces keeps the total cost linear.
        if self.start >= self.buf.len() - self.start {
            self.buf.drain(..self.start);
            self.scan -= self.start;
            self.start = 0;
        }
        self.buf.extend_from_slice(chunk);
    }

    /// The next whole line; `None` until more bytes arrive.
    #[expect(
        clippy::should_implement_trait,
        reason = "a line borrows the decoder, which Iterator cannot say"
    )]
    pub fn next(&mut self) -> Option<Result<Event<'_>, TooLong>> {
        loop {
            let Some(at) = memchr::memchr(b'\n', self.buf.get(self.scan..)?) else {
                self.scan = self.buf.len();
                let is_long = self.scan - self.start > self.cap;
                return is_long.then_some(Err(TooLong { cap: self.cap }));
            };
            let (from, to) = (self.start, self.scan + at + 1);
            (self.start, self.scan) = (to, to);
            if to - from > self.cap {
                return Some(Err(TooLong { cap: self.cap }));
            }
            if !self.buf.get(from..to)?.trim_ascii().is_empty() {
                return self.buf.get(from..to).map(|raw| Ok(event(raw)));
            }
        }
    }

    /// Like [`next`](Self::next) when no more bytes will come: the last line needs no line break.
    pub fn finish(&mut self) -> Option<Result<Event<'_>, TooLong>> {
        if self.start < self.buf.len() && self.buf.last() != Some(&b'\n') {
            self.buf.push(b'\n');
        }
        self.next()
    }
}

fn event(raw: &[u8]) -> Event<'_> {
    Event { raw, name: None, data: Cow::Borrowed(raw.trim_ascii()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(decoder: &mut Decoder, pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            while let Some(Ok(line)) = decoder.next() {
                lines.push(String::from_utf8(line.data.to_vec()).unwrap());
            }
        }
        while let Some(Ok(line)) = decoder.finish() {
            lines.push(String::from_utf8(line.data.to_vec()).unwrap());
        }
        lines
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let text = "{\"a\":\"ü\"}\r\n\n \n{\"b\":2}\n{\"c\":3}".as_bytes();
        let expected = ["{\"a\":\"ü\"}", "{\"b\":2}", "{\"c\":3}"];
        for one in 0..=text.len() {
            for two in one..=text.len() {
                let pieces = [&text[..one], &text[one..two], &text[two..]];
                assert_eq!(all(&mut Decoder::new(64), &pieces), expected, "{one} {two}");
            }
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(all(&mut Decoder::new(64), &bytes), expected);
    }

    #[test]
    fn a_line_longer_than_the_cap_is_told() {
        for pieces in [&[&b"12345678\n"[..]][..], &[b"1234", b"5678"]] {
            let mut decoder = Decoder::new(6);
            pieces.iter().for_each(|piece| decoder.push(piece));
            assert_eq!(decoder.next(), Some(Err(TooLong { cap: 6 })));
        }
    }

    #[test]
    fn many_short_lines_cost_no_more_than_their_bytes() {
        let mut decoder = Decoder::new(64);
        for _ in 0..100_000 {
            decoder.push(b"{}\n");
            assert!(decoder.next().is_some() && decoder.next().is_none());
        }
        assert!(decoder.buf.len() <= 8, "{}", decoder.buf.len());
    }
}
