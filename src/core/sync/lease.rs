//! The lease of the connection to the ledger: one VM talks to it.
//!
//! The sync role has a VM of its own, which Envoy does not make anew when it is lost. So every worker's VM stands by: when the
//! lease was not renewed for [`STALE_MS`], the next one that looks takes it, and goes on where the other stopped.

use crate::core::host::Store;

/// Key of the lease in shared data.
const KEY: &str = "sync/lease";
/// A lease that was not renewed for so long is free. Its holder renews it at least once a second.
const STALE_MS: u64 = 5_000;

/// What came of asking for the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// The lease was the asker's, and is for another while.
    Kept,
    /// The lease is the asker's now: what another one did in between has to be read first.
    Taken,
    /// The lease is another VM's.
    Other,
}

/// Makes the lease where there is none, before it is asked for: creating a missing key cannot be guarded against another VM that
/// creates it.
pub fn prepare(shared: &dyn Store) {
    if shared.get(KEY).is_none() {
        shared.set(KEY, &encode(0, 0), None);
    }
}

/// Renews the lease, or takes it when it is free. `id` is the asker's own, and not 0.
pub fn hold(shared: &dyn Store, id: u64, now_ms: u64) -> Lease {
    let Some((bytes, version)) = shared.get(KEY) else {
        prepare(shared);
        return Lease::Other;
    };
    let (holder, renewed_ms) = decode(&bytes);
    let is_own = holder == id;
    if !is_own && now_ms.abs_diff(renewed_ms) < STALE_MS {
        return Lease::Other;
    }
    match (shared.set(KEY, &encode(id, now_ms), Some(version)), is_own) {
        (true, true) => Lease::Kept,
        (true, false) => Lease::Taken,
        (false, _) => Lease::Other,
    }
}

fn encode(holder: u64, renewed_ms: u64) -> Vec<u8> {
    [holder.to_le_bytes(), renewed_ms.to_le_bytes()].concat()
}

/// Anything that is no lease is a free one.
fn decode(bytes: &[u8]) -> (u64, u64) {
    let number = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    (number(bytes.first_chunk()), number(bytes.get(8..).and_then(<[u8]>::first_chunk)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::store::Memory;

    #[test]
    fn one_holds_it_until_it_falls_silent() {
        let shared = Memory::default();
        prepare(&shared);
        for (id, now_ms, expected) in [
            (1, 10_000, Lease::Taken),
            (2, 10_000, Lease::Other),
            (1, 14_000, Lease::Kept),
            (2, 18_999, Lease::Other),
            (2, 19_000, Lease::Taken),
            (1, 19_001, Lease::Other),
            (2, 40_000, Lease::Kept),
            // A clock that was set back.
            (1, 20_000, Lease::Taken),
        ] {
            assert_eq!(hold(&shared, id, now_ms), expected, "{id} at {now_ms}");
        }
        prepare(&shared);
        assert_eq!(hold(&shared, 1, 20_001), Lease::Kept);
    }

    #[test]
    fn garbage_is_free() {
        let shared = Memory::default();
        assert_eq!(hold(&shared, 7, 50_000), Lease::Other, "missing: made, and asked for again");
        for bytes in [&b""[..], b"abc"] {
            shared.set(KEY, bytes, None);
            assert_eq!(hold(&shared, 7, 50_000), Lease::Taken);
        }
    }
}
