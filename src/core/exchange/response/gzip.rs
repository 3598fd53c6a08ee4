//! Compressed responses.

use crate::core::{error::Error, headers::Headers, model::failure::Class};

/// Unpacks gzip as it comes.
pub(super) struct Gunzip(flate2::write::GzDecoder<Vec<u8>>);

impl Default for Gunzip {
    fn default() -> Gunzip {
        Gunzip(flate2::write::GzDecoder::new(Vec::new()))
    }
}

impl Gunzip {
    /// What one more chunk of a stream unpacks to.
    pub(super) fn unpack(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        use std::io::Write;

        self.0.write_all(bytes).and_then(|()| self.0.flush()).map_err(|_| broken_gzip())?;
        Ok(std::mem::take(self.0.get_mut()))
    }
}

pub(super) fn is_gzip(headers: &Headers) -> bool {
    headers.text("content-encoding").is_some_and(|encoding| encoding.trim().eq_ignore_ascii_case("gzip"))
}

/// The most that a compressed response may become: a small bomb must not fill the VM.
const MAX_UNPACKED_BYTES: usize = 256 * 1024 * 1024;

/// A whole gzip body, unpacked.
pub(super) fn unpack_all(bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    use std::io::Read;

    let mut plain = Vec::with_capacity(bytes.len().saturating_mul(4));
    let limit = u64::try_from(MAX_UNPACKED_BYTES).unwrap_or(u64::MAX);
    match flate2::read::GzDecoder::new(bytes).take(limit).read_to_end(&mut plain) {
        Ok(length) if length < MAX_UNPACKED_BYTES => Ok(Some(plain)),
        _ => Err(broken_gzip()),
    }
}

fn broken_gzip() -> Error {
    Error::provider(Class::Api, "the provider's answer is not valid gzip, or larger than 256 MiB unpacked")
}
