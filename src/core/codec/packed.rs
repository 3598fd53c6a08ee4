//! Content codings (`content-encoding`): gzip and deflate, one over the other too, undone as the bytes come.
//!
//! Brotli and Zstandard are not here: Brotli's dictionary alone would make the filter a twentieth larger, and the Zstandard decoder
//! that is small keeps back what a stream has flushed. Nobody who asks for no coding is sent them.

use std::{fmt, io::Write};

use flate2::{Decompress, FlushDecompress, Status, write::MultiGzDecoder};

/// The codings that are understood, in words.
pub const UNDERSTOOD: &str = "`gzip`, `deflate` or none";

/// No body is packed more often than this.
const MOST_CODINGS: usize = 4;

/// How much is undone at a time, so that what comes of it can be bounded.
const STEP_BYTES: usize = 1_024;

/// Why packed bytes cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// A coding that is not understood: as it was named, cut to a readable length.
    Unknown(String),
    /// More codings than anybody has a reason for.
    TooMany,
    /// The bytes are not what the coding says.
    Broken(&'static str),
    /// The bytes would become more than so many.
    TooLarge(usize),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Unknown(name) => {
                write!(f, "has the content-encoding `{name}`: expected {UNDERSTOOD}")
            }
            Unreadable::TooMany => {
                write!(f, "has more than {MOST_CODINGS} content-encodings: expected {UNDERSTOOD}")
            }
            Unreadable::Broken(name) => {
                write!(f, "is not valid {name}, which its content-encoding says it is")
            }
            Unreadable::TooLarge(most) => write!(f, "is larger than {} MiB unpacked", most >> 20),
        }
    }
}

/// Undoes the codings of one body.
#[derive(Debug, Default)]
pub struct Unpacker {
    /// The coding that was applied last comes first.
    layers: Vec<Layer>,
}

#[derive(Debug)]
enum Layer {
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    Deflate(Box<Deflate>),
}

impl Unpacker {
    /// What undoes the codings that the values of `content-encoding` name, in the order in which they were applied; `None` when there
    /// are none.
    pub fn new<'v>(values: impl Iterator<Item = &'v [u8]>) -> Result<Option<Unpacker>, Unreadable> {
        let mut layers = Vec::new();
        for name in values.flat_map(|value| value.split(|byte| *byte == b',')) {
            let name = name.trim_ascii();
            let layer = match name.to_ascii_lowercase().as_slice() {
                b"" | b"identity" => continue,
                b"gzip" | b"x-gzip" => Layer::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
                b"deflate" => Layer::Deflate(Box::default()),
                _ => return Err(Unreadable::Unknown(readable(name))),
            };
            if layers.len() == MOST_CODINGS {
                return Err(Unreadable::TooMany);
            }
            layers.push(layer);
        }
        layers.reverse();
        Ok((!layers.is_empty()).then_some(Unpacker { layers }))
    }

    /// What the next bytes unpack to, as far as they say it; an error when that is more than `most` bytes.
    pub fn push(&mut self, bytes: &[u8], most: usize) -> Result<Vec<u8>, Unreadable> {
        let mut plain = None;
        for layer in &mut self.layers {
            plain = Some(layer.push(plain.as_deref().unwrap_or(bytes), most)?);
        }
        Ok(plain.unwrap_or_else(|| bytes.to_vec()))
    }

    /// No more bytes come: an error when there should be more.
    pub fn finish(&mut self) -> Result<(), Unreadable> {
        self.layers.iter_mut().try_for_each(Layer::finish)
    }
}

impl Layer {
    fn push(&mut self, bytes: &[u8], most: usize) -> Result<Vec<u8>, Unreadable> {
        let mut plain = Vec::new();
        for step in bytes.chunks(STEP_BYTES) {
            match self {
                Layer::Gzip(gzip) => {
                    gzip.write_all(step)
                        .and_then(|()| gzip.flush())
                        .map_err(|_| Unreadable::Broken("gzip"))?;
                    plain.append(gzip.get_mut());
                }
                Layer::Deflate(deflate) => deflate.push(step, &mut plain)?,
            }
            if plain.len() > most {
                return Err(Unreadable::TooLarge(most));
            }
        }
        Ok(plain)
    }

    fn finish(&mut self) -> Result<(), Unreadable> {
        let is_whole = match self {
            Layer::Gzip(gzip) => gzip.try_finish().is_ok(),
            Layer::Deflate(deflate) => deflate.is_whole,
        };
        if is_whole { Ok(()) } else { Err(self.broken()) }
    }

    fn broken(&self) -> Unreadable {
        Unreadable::Broken(match self {
            Layer::Gzip(_) => "gzip",
            Layer::Deflate(_) => "deflate",
        })
    }
}

/// `deflate` with the frame of zlib, as the standard has it, or without it, as some servers send it.
#[derive(Debug, Default)]
struct Deflate {
    /// The first two bytes, which tell the one from the other.
    head: Vec<u8>,
    decoder: Option<Decompress>,
    is_whole: bool,
}

impl Deflate {
    fn push(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Unreadable> {
        if self.decoder.is_none() {
            let (head, rest) = bytes.split_at(bytes.len().min(2 - self.head.len().min(2)));
            self.head.extend_from_slice(head);
            let [first, second] = self.head[..] else { return Ok(()) };
            // The method is 8, and the two as a number a multiple of 31. Without the frame the first byte would say that a block
            // follows as it is, with rubbish behind it.
            let is_framed = first & 0x0f == 8 && (u16::from(first) << 8 | u16::from(second)) % 31 == 0;
            let decoder = self.decoder.insert(Decompress::new(is_framed));
            self.is_whole = inflate(decoder, &[first, second], plain)?;
            bytes = rest;
        }
        match &mut self.decoder {
            Some(decoder) if !self.is_whole => self.is_whole = inflate(decoder, bytes, plain)?,
            // What stands behind the end is nobody's.
            _ => {}
        }
        Ok(())
    }
}

/// Undoes deflate, and says whether it has come to its end.
fn inflate(decoder: &mut Decompress, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<bool, Unreadable> {
    let mut out = [0; 8 * 1_024];
    loop {
        let (read, written) = (decoder.total_in(), decoder.total_out());
        let status = decoder.decompress(bytes, &mut out, FlushDecompress::None);
        let since = |before: u64, now: u64| usize::try_from(now.saturating_sub(before)).unwrap_or(usize::MAX);
        let (read, written) = (since(read, decoder.total_in()), since(written, decoder.total_out()));
        bytes = bytes.get(read..).unwrap_or_default();
        plain.extend_from_slice(out.get(..written).unwrap_or_default());
        match status {
            Ok(Status::StreamEnd) => return Ok(true),
            Ok(_) if written == out.len() => {}
            Ok(_) if bytes.is_empty() || read == 0 => return Ok(false),
            Ok(_) => {}
            Err(_) => return Err(Unreadable::Broken("deflate")),
        }
    }
}

/// The bytes of a header for a message.
fn readable(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(40).collect()
}

#[cfg(test)]
pub mod pack;
#[cfg(test)]
mod tests;
