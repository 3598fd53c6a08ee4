//! Packed responses: what a provider sends that was asked to send nothing packed.

use crate::core::{
    codec::packed::{UNDERSTOOD, Unpacker, Unreadable},
    error::Error,
    headers::Headers,
    model::failure::Class,
};

/// The most that a packed response may become: a small bomb must not fill the VM.
const MOST_UNPACKED_BYTES: usize = 256 * 1024 * 1024;

/// The most that one chunk of a stream may become: as much as its largest event.
const MOST_UNPACKED_CHUNK_BYTES: usize = 32 * 1024 * 1024;

/// Whether the body is said to be something else than plain.
pub(super) fn is_packed(headers: &Headers) -> bool {
    headers.get("content-encoding").is_some_and(|value| !value.trim_ascii().eq_ignore_ascii_case(b"identity"))
}

fn unpacker(headers: &Headers) -> Result<Option<Unpacker>, Unreadable> {
    if !is_packed(headers) {
        return Ok(None);
    }
    let all = headers.raw().filter(|(name, _)| *name == b"content-encoding");
    Unpacker::new(all.map(|(_, value)| value))
}

/// A whole body, unpacked; `None` when it is plain.
pub(super) fn unpack_all(headers: &Headers, bytes: &[u8]) -> Result<Option<Vec<u8>>, Unreadable> {
    let Some(mut unpacker) = unpacker(headers)? else { return Ok(None) };
    // Whoever has nothing to say has nothing packed.
    if bytes.is_empty() {
        return Ok(None);
    }
    let plain = unpacker.push(bytes, MOST_UNPACKED_BYTES)?;
    unpacker.finish()?;
    Ok(Some(plain))
}

/// The body of a failed response, as much of it as came; `None` when it is plain.
pub(super) fn unpack_failure(
    headers: &Headers,
    bytes: &[u8],
    most: usize,
) -> Result<Option<Vec<u8>>, Unreadable> {
    unpacker(headers)?.map(|mut unpacker| unpacker.push(bytes, most)).transpose()
}

/// Unpacks a stream as it comes.
pub(super) struct Unpacking(Result<Option<Unpacker>, Unreadable>);

impl Unpacking {
    pub(super) fn new(headers: &Headers) -> Unpacking {
        Unpacking(unpacker(headers))
    }

    /// What one more chunk unpacks to; `None` when it is plain.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match &mut self.0 {
            Ok(None) => Ok(None),
            Ok(Some(unpacker)) => {
                unpacker.push(bytes, MOST_UNPACKED_CHUNK_BYTES).map(Some).map_err(|why| unreadable(&why))
            }
            Err(why) => Err(unreadable(why)),
        }
    }

    /// No more comes: an error when there should be more.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        match &mut self.0 {
            Ok(Some(unpacker)) => unpacker.finish().map_err(|why| unreadable(&why)),
            _ => Ok(()),
        }
    }
}

/// A response that cannot be unpacked.
pub(super) fn unreadable(why: &Unreadable) -> Error {
    Error::provider(Class::Api, format!("the provider's answer {why}"))
}

/// A response that is packed and does not say so.
pub(super) fn unsaid() -> Error {
    Error::provider(
        Class::Api,
        format!(
            "the provider's answer is packed and has no content-encoding that says how: expected {UNDERSTOOD}"
        ),
    )
}
