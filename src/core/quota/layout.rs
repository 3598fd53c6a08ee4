//! One entry, and its bytes in a value of shared data.
//!
//! An entry is a fingerprint, the number of its holders (u16), flags (u16), thirteen words (u64) and the holders (u32 worker, u32
//! requests, u64 tokens, i64 cost); all little-endian.

use crate::core::{host::Secret, store};

/// Bytes of an entry without its holders.
pub(super) const FIXED: usize = 16 + 4 + 13 * 8;
/// Bytes of one holder.
pub(super) const HOLDER: usize = 24;
const RATED: u16 = 1;
const BUDGETED: u16 = 2;
const PLACE: u16 = 4;
const AHEAD: u16 = 8;
const GUEST: u16 = 16;
/// The other bits are the owner's.
const OWNER_BITS: u32 = 5;
/// How many numbers of owners there are.
pub(super) const OWNERS: u64 = 1 << (16 - OWNER_BITS);

/// A fingerprint, see [`super::Meter::fingerprint`].
pub(super) type Fingerprint = [u8; 16];

/// What is counted for one meter. Money in 10⁻¹² dollars, times in Unix milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entry {
    pub fingerprint: Fingerprint,
    /// The meter has rate limits.
    pub rated: bool,
    /// The meter has a budget: `base` is filled.
    pub budgeted: bool,
    /// The meter is a deployment's or a provider's.
    pub place: bool,
    /// Money was spent since the record that `base` came from was read: a request with that record does not know of it.
    pub ahead: bool,
    /// The meter is an end user's.
    pub guest: bool,
    /// A number for the principal that made it, below 2¹¹; 0 for those that only administrators make.
    pub owner: u16,
    /// When a request last touched it.
    pub used_ms: u64,
    /// Start of the window; 0 when none is open.
    pub window_ms: u64,
    /// Admitted in the window.
    pub requests: u64,
    /// Settled in the window.
    pub tokens: u64,
    /// Total of the ledger.
    pub base: i64,
    /// When that was.
    pub revision: u64,
    /// Settled here and not in `base`.
    pub unsynced: i64,
    /// When the spend starts again from zero, where the filter does that itself; else 0.
    pub reset_at_ms: u64,
    /// What other nodes have.
    pub remote: Remote,
    /// Requests in flight and what they reserve, by worker, so that what a lost worker held can be told apart.
    pub holders: Vec<Holder>,
}

/// The rates of all other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Remote {
    /// When they said so.
    pub at_ms: u64,
    /// Start of their window.
    pub window_ms: u64,
    pub requests: u64,
    pub tokens: u64,
    pub parallel: u64,
}

/// What the requests of one worker hold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Holder {
    pub worker: u32,
    pub requests: u32,
    pub tokens: u64,
    pub cost: i64,
}

impl Entry {
    pub(super) fn decode(bytes: &[u8]) -> Option<Entry> {
        let mut words = Words(bytes);
        let fingerprint = words.take()?;
        let (holders, flags) = (words.u16()?, words.u16()?);
        let mut entry = Entry {
            fingerprint,
            rated: flags & RATED != 0,
            budgeted: flags & BUDGETED != 0,
            place: flags & PLACE != 0,
            ahead: flags & AHEAD != 0,
            guest: flags & GUEST != 0,
            owner: flags >> OWNER_BITS,
            used_ms: words.u64()?,
            window_ms: words.u64()?,
            requests: words.u64()?,
            tokens: words.u64()?,
            base: words.i64()?,
            revision: words.u64()?,
            unsynced: words.i64()?,
            reset_at_ms: words.u64()?,
            remote: Remote {
                at_ms: words.u64()?,
                window_ms: words.u64()?,
                requests: words.u64()?,
                tokens: words.u64()?,
                parallel: words.u64()?,
            },
            holders: Vec::with_capacity(usize::from(holders) + 1),
        };
        for _ in 0..holders {
            entry.holders.push(Holder {
                worker: words.u32()?,
                requests: words.u32()?,
                tokens: words.u64()?,
                cost: words.i64()?,
            });
        }
        Some(entry)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let holders = u16::try_from(self.holders.len()).unwrap_or(u16::MAX);
        let flags = [
            (self.rated, RATED),
            (self.budgeted, BUDGETED),
            (self.place, PLACE),
            (self.ahead, AHEAD),
            (self.guest, GUEST),
        ];
        let flags = flags.into_iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag);
        let flags = flags | self.owner << OWNER_BITS;
        let mut bytes = Vec::with_capacity(FIXED + usize::from(holders) * HOLDER);
        bytes.extend_from_slice(&self.fingerprint);
        bytes.extend_from_slice(&holders.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        for word in [self.used_ms, self.window_ms, self.requests, self.tokens] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&self.base.to_le_bytes());
        bytes.extend_from_slice(&self.revision.to_le_bytes());
        bytes.extend_from_slice(&self.unsynced.to_le_bytes());
        let Remote { at_ms, window_ms, requests, tokens, parallel } = self.remote;
        for word in [self.reset_at_ms, at_ms, window_ms, requests, tokens, parallel] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for holder in self.holders.iter().take(usize::from(holders)) {
            bytes.extend_from_slice(&holder.worker.to_le_bytes());
            bytes.extend_from_slice(&holder.requests.to_le_bytes());
            bytes.extend_from_slice(&holder.tokens.to_le_bytes());
            bytes.extend_from_slice(&holder.cost.to_le_bytes());
        }
        bytes
    }
}

/// What would be lost with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nothing.
    Nothing,
    /// What it counted in this minute, or a total that the ledger has too.
    Little,
    /// What it counted in this minute, and what the ledger has not heard yet.
    Some,
    /// What is known nowhere else.
    Much,
}

/// The number of an owner, never 0.
pub(super) fn owner(secret: Secret, fingerprint: Fingerprint) -> u16 {
    // Other bits than a value is found by.
    (1 + (store::keyed(secret, fingerprint) >> 32) % (OWNERS - 1)) as u16
}

/// Takes little-endian numbers off the front of bytes.
struct Words<'b>(&'b [u8]);

impl Words<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }
}
