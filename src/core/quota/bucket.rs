//! How meters stand in shared data: 1,024 values, each a byte string with up to 64 entries.
//!
//! A value is one version byte and then the entries, each of them a fingerprint, the number of its holders (u16), flags
//! (u16), thirteen words (u64) and the holders (u32 worker, u32 requests, u64 tokens, i64 cost); all little-endian. A value
//! that reads as anything else counts as an empty bucket.

use std::ops::Range;

use crate::core::shared::{Shared, Version};

/// How many values there are. Shared data never forgets a key, so their number is fixed.
pub(super) const BUCKETS: u16 = 1_024;
/// How many entries fit into one.
pub(super) const ENTRIES: usize = 64;
/// A value without entries.
pub(super) const EMPTY: &[u8] = &[1];
/// From so many entries on a new one first drops those that nothing needs, so that values stay short.
const CROWDED: usize = 8;
/// Somebody always wins a compare-and-swap, so this many lost ones in a row mean that the host is broken.
const TRIES: u32 = 10_000;

const FIXED: usize = 16 + 4 + 13 * 8;
const HOLDER: usize = 24;
const RATED: u16 = 1;
const BUDGETED: u16 = 2;
const PLACE: u16 = 4;

/// A fingerprint, see [`super::Meter::print`].
pub(super) type Print = [u8; 16];

/// What is counted for one meter. Money in 10⁻¹² dollars, times in Unix milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entry {
    pub print: Print,
    /// It has rate limits.
    pub rated: bool,
    /// It has a budget: `base` is filled.
    pub budgeted: bool,
    /// It is a deployment's or a provider's.
    pub place: bool,
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
    fn decode(bytes: &[u8]) -> Option<Entry> {
        let mut words = Words(bytes);
        let print = words.take()?;
        let (holders, flags) = (words.u16()?, words.u16()?);
        let mut entry = Entry {
            print,
            rated: flags & RATED != 0,
            budgeted: flags & BUDGETED != 0,
            place: flags & PLACE != 0,
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

    fn encode(&self) -> Vec<u8> {
        let holders = u16::try_from(self.holders.len()).unwrap_or(u16::MAX);
        let flags = [(self.rated, RATED), (self.budgeted, BUDGETED), (self.place, PLACE)];
        let flags = flags.into_iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag);
        let mut bytes = Vec::with_capacity(FIXED + usize::from(holders) * HOLDER);
        bytes.extend_from_slice(&self.print);
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

/// One value, read and perhaps changed.
pub(super) struct Bucket {
    bytes: Vec<u8>,
    changed: bool,
}

impl Bucket {
    fn read(mut bytes: Vec<u8>) -> Bucket {
        let (mut end, mut count) = (EMPTY.len(), 0);
        for span in spans(&bytes) {
            (end, count) = (span.end, count + 1);
        }
        if !bytes.starts_with(EMPTY) || end != bytes.len() || count > ENTRIES {
            bytes = EMPTY.to_vec();
        }
        Bucket { bytes, changed: false }
    }

    /// The entry of a meter.
    pub(super) fn find(&self, print: Print) -> Option<Entry> {
        self.place(print).and_then(|span| self.bytes.get(span)).and_then(Entry::decode)
    }

    /// Every entry.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        spans(&self.bytes).filter_map(|span| self.bytes.get(span)).filter_map(Entry::decode)
    }

    /// Writes an entry over the meter's old one, or behind the others.
    pub(super) fn put(&mut self, entry: &Entry) {
        let bytes = entry.encode();
        self.changed = true;
        match self.place(entry.print) {
            None => self.bytes.extend_from_slice(&bytes),
            Some(span) => match self.bytes.get_mut(span.clone()) {
                Some(old) if old.len() == bytes.len() => old.copy_from_slice(&bytes),
                _ => {
                    self.bytes.splice(span, bytes);
                }
            },
        }
    }

    /// Makes room for one more entry, dropping those that `idle` says nothing is lost with. False when there is none.
    pub(super) fn make_room(&mut self, idle: impl Fn(&Entry) -> bool) -> bool {
        let count = spans(&self.bytes).count();
        if count < CROWDED {
            return true;
        }
        let mut kept = EMPTY.to_vec();
        let mut left = 0;
        for span in spans(&self.bytes) {
            let Some(bytes) = self.bytes.get(span) else { continue };
            if Entry::decode(bytes).is_some_and(|entry| !idle(&entry)) {
                kept.extend_from_slice(bytes);
                left += 1;
            }
        }
        if left < count {
            (self.bytes, self.changed) = (kept, true);
        }
        left < ENTRIES
    }

    fn place(&self, print: Print) -> Option<Range<usize>> {
        spans(&self.bytes)
            .find(|span| self.bytes.get(span.clone()).is_some_and(|entry| entry.starts_with(&print)))
    }
}

/// Reads the value that a meter is in, lets `step` change it, and writes it back if it did, again and again until nobody
/// else wrote in between. `None` only when the host is broken.
pub(super) fn change<T>(
    shared: &dyn Shared,
    print: Print,
    mut step: impl FnMut(&mut Bucket) -> T,
) -> Option<T> {
    let name = name(index(print));
    for _ in 0..TRIES {
        let Some((bytes, version)) = shared.get(&name) else {
            create(shared, &name, EMPTY);
            continue;
        };
        let mut bucket = Bucket::read(bytes);
        let result = step(&mut bucket);
        if !bucket.changed || shared.set(&name, &bucket.bytes, Some(version)) {
            return Some(result);
        }
    }
    None
}

/// The entry of a meter, for those who only look.
pub(super) fn look(shared: &dyn Shared, print: Print) -> Option<Entry> {
    let (bytes, _) = shared.get(&name(index(print)))?;
    Bucket::read(bytes).find(print)
}

/// One of all values.
pub(super) fn nth(shared: &dyn Shared, index: u16) -> Option<Bucket> {
    shared.get(&name(index)).map(|(bytes, _)| Bucket::read(bytes))
}

/// The key of a value.
pub(super) fn name(index: u16) -> String {
    format!("quota/{index}")
}

/// Creates a value unless there is one already, whoever else does the same. A missing key ignores the version that a write
/// names, and an existing one refuses a version that it does not have: so naming one that nothing has is exactly this.
pub(super) fn create(shared: &dyn Shared, name: &str, value: &[u8]) {
    const NOBODYS: Version = Version::MAX;
    shared.set(name, value, Some(NOBODYS));
}

/// Which value a meter is in.
pub(super) fn index(print: Print) -> u16 {
    let [low, high, ..] = print;
    u16::from_le_bytes([low, high]) % BUCKETS
}

/// Where the entries are.
fn spans(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut start = EMPTY.len();
    std::iter::from_fn(move || {
        let holders = bytes.get(start..)?.get(16..18)?;
        let holders = holders.try_into().map(u16::from_le_bytes).ok()?;
        let end =
            start.checked_add(FIXED + usize::from(holders) * HOLDER).filter(|&end| end <= bytes.len())?;
        let span = start..end;
        start = end;
        Some(span)
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{random::Random, shared::Memory};

    fn entry(print: u8, holders: u32) -> Entry {
        Entry {
            print: [print; 16],
            rated: true,
            budgeted: print & 1 == 0,
            place: print & 2 == 0,
            used_ms: 1,
            window_ms: 2,
            requests: 3,
            tokens: 4,
            base: -5,
            revision: 6,
            unsynced: i64::MIN,
            reset_at_ms: 7,
            remote: Remote { at_ms: 8, window_ms: 9, requests: 10, tokens: 11, parallel: 12 },
            holders: (0..holders)
                .map(|n| Holder { worker: n, requests: n + 1, tokens: u64::MAX, cost: i64::MAX })
                .collect(),
        }
    }

    fn reread(bucket: &Bucket) -> Bucket {
        Bucket::read(bucket.bytes.clone())
    }

    #[test]
    fn entries_read_back_as_they_were_written() {
        let mut bucket = Bucket::read(EMPTY.to_vec());
        for n in 0..5 {
            bucket.put(&entry(n, n.into()));
        }
        // Growing and shrinking one leaves the others alone.
        bucket.put(&entry(2, 9));
        bucket.put(&entry(4, 0));
        let bucket = reread(&bucket);
        for (n, holders) in [(0, 0), (1, 1), (2, 9), (3, 3), (4, 0)] {
            assert_eq!(bucket.find([n; 16]), Some(entry(n, holders)), "{n}");
        }
        assert_eq!((bucket.find([9; 16]), bucket.entries().count()), (None, 5));
    }

    #[test]
    fn garbage_counts_as_empty() {
        let mut whole = Bucket::read(EMPTY.to_vec());
        whole.put(&entry(1, 2));
        whole.put(&entry(2, 1));
        for end in 0..whole.bytes.len() {
            let cut = Bucket::read(whole.bytes[..end].to_vec());
            // A cut between two entries is a bucket of one.
            let left = usize::from(end == EMPTY.len() + FIXED + 2 * HOLDER);
            assert_eq!(cut.entries().count(), left, "{end}");
        }
        let mut random = Random::new(1);
        for length in 0..2_000 {
            let bytes: Vec<u8> = (0..length).map(|_| random.bits() as u8).collect();
            let mut bucket = Bucket::read(bytes);
            bucket.put(&entry(1, 1));
            assert_eq!(reread(&bucket).find([1; 16]), Some(entry(1, 1)));
        }
        let crowd = [EMPTY.to_vec(), entry(1, 0).encode().repeat(ENTRIES + 1)].concat();
        assert_eq!(Bucket::read(crowd).entries().count(), 0);
    }

    #[test]
    fn creating_leaves_what_is_there() {
        let shared = Memory::default();
        create(&shared, "a", b"1");
        create(&shared, "a", b"2");
        assert_eq!(shared.get("a").map(|(value, _)| value), Some(b"1".to_vec()));
    }

    #[test]
    fn idle_entries_go_when_it_gets_crowded() {
        let mut bucket = Bucket::read(EMPTY.to_vec());
        for n in 0..7 {
            bucket.put(&entry(n, 0));
            assert!(bucket.make_room(|_| true), "{n}");
        }
        assert_eq!(bucket.entries().count(), 7);
        bucket.put(&entry(7, 0));
        assert!(bucket.make_room(|entry| entry.print[0] != 3));
        assert_eq!(bucket.entries().map(|entry| entry.print[0]).collect::<Vec<_>>(), [3]);
        for n in 0..64 {
            bucket.put(&entry(n, 0));
        }
        assert!(!bucket.make_room(|_| false));
        assert!(bucket.make_room(|entry| entry.print[0] == 9));
        assert_eq!(bucket.entries().count(), 63);
    }
}
