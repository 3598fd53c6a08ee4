//! How meters stand in shared data: 1,024 values, each a byte string with up to 128 entries.
//!
//! Which value a meter is in, a keyed hash of its fingerprint says: a client cannot choose names that fall into one value. What
//! callers can make any number of (end users, a user's own keys) has an owner. Where there is no room, a new entry takes the
//! place of one of the owner that has the most; so an owner that fills the table pushes out its own.
//!
//! A value is one version byte and then the entries, as [`layout`](super::layout) writes them. A value that reads as anything else
//! counts as an empty bucket.

use std::ops::Range;

use super::layout::{Entry, FIXED, Fingerprint, HOLDER, Loss, OWNERS};
use crate::core::{
    host::{Secret, Store},
    store,
};

/// How many values there are. Store data never forgets a key, so their number is fixed.
pub(super) const BUCKETS: u16 = 1_024;
/// How many entries fit into one.
pub(super) const ENTRIES: usize = 128;
/// How many of them may be of end users.
pub(super) const GUESTS: usize = 64;
/// From so many entries on each owner has its share only.
const TIGHT: usize = 64;
/// Entries of one owner in one value when it is [`TIGHT`]: some 8,000 in all.
const SHARE: u16 = 8;
/// From so many on operators should know.
const NEARLY_FULL: usize = 96;
/// A value without entries.
pub(super) const EMPTY: &[u8] = &[1];
/// From so many entries on a new one first drops those that nothing needs, so that values stay short.
const CROWDED: usize = 8;
/// One writer always wins a compare-and-swap, so this many lost ones in a row mean that the host is broken.
const TRIES: u32 = 10_000;

/// What came of looking for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// There is some.
    Free,
    /// There is some, and not much more.
    Little,
    /// An entry was pushed out.
    Made,
    /// There is none.
    None,
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
    pub(super) fn find(&self, fingerprint: Fingerprint) -> Option<Entry> {
        self.place(fingerprint).and_then(|span| self.bytes.get(span)).and_then(Entry::decode)
    }

    /// Every entry.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        spans(&self.bytes).filter_map(|span| self.bytes.get(span)).filter_map(Entry::decode)
    }

    /// Writes an entry over the meter's old one, or behind the others.
    pub(super) fn put(&mut self, entry: &Entry) {
        let bytes = entry.encode();
        self.changed = true;
        match self.place(entry.fingerprint) {
            None => self.bytes.extend_from_slice(&bytes),
            Some(span) => match self.bytes.get_mut(span.clone()) {
                Some(old) if old.len() == bytes.len() => old.copy_from_slice(&bytes),
                _ => {
                    self.bytes.splice(span, bytes);
                }
            },
        }
    }

    /// Makes room for one more entry: first drops those that nothing is lost with. When it is tight, one of the owner that has
    /// the most goes, the one that was not used for longest; never one of an owner that has less than the newcomer's.
    pub(super) fn make_room(&mut self, newcomer: &Entry, loss: impl Fn(&Entry) -> Loss) -> Room {
        let count = spans(&self.bytes).count();
        // While there is room, looking now and then is enough.
        if count < TIGHT && (count < CROWDED || !count.is_multiple_of(CROWDED)) {
            return Room::Free;
        }
        let all: Vec<(Entry, Loss)> = self
            .entries()
            .map(|entry| {
                let loss = loss(&entry);
                (entry, loss)
            })
            .collect();
        let mut kept: Vec<(Entry, Loss)> =
            all.into_iter().filter(|(_, loss)| *loss != Loss::Nothing).collect();
        let mut counts = [0_u16; OWNERS as usize];
        for owner in kept.iter().map(|(entry, _)| entry.owner).filter(|owner| *owner != 0) {
            if let Some(count) = counts.get_mut(usize::from(owner)) {
                *count += 1;
            }
        }
        let of = |owner: u16| counts.get(usize::from(owner)).copied().unwrap_or(0);
        let own = of(newcomer.owner);
        let guests = kept.iter().filter(|(entry, _)| entry.guest).count();
        let only_guests = newcomer.guest && guests >= GUESTS;
        let room = if only_guests || kept.len() >= ENTRIES || (kept.len() >= TIGHT && own >= SHARE) {
            let may_go = |(entry, loss): &&(Entry, Loss)| {
                let cheap = match loss {
                    Loss::Nothing | Loss::Little => true,
                    Loss::Some => entry.guest,
                    Loss::Much => false,
                };
                cheap && entry.owner != 0 && of(entry.owner) >= own && (entry.guest || !only_guests)
            };
            let rank = |(entry, loss): &&(Entry, Loss)| {
                (of(entry.owner), *loss == Loss::Little, u64::MAX - entry.used_ms)
            };
            match kept.iter().filter(may_go).max_by_key(rank).map(|(entry, _)| entry.fingerprint) {
                Some(fingerprint) => {
                    kept.retain(|(entry, _)| entry.fingerprint != fingerprint);
                    Room::Made
                }
                // An owner with more than its share in a value with room left takes some of that, when nothing of it can go.
                None if !only_guests && kept.len() < ENTRIES => Room::Little,
                None => Room::None,
            }
        } else if kept.len() >= NEARLY_FULL {
            Room::Little
        } else {
            Room::Free
        };
        if kept.len() < count {
            let mut bytes = EMPTY.to_vec();
            kept.iter().for_each(|(entry, _)| bytes.extend_from_slice(&entry.encode()));
            (self.bytes, self.changed) = (bytes, true);
        }
        room
    }

    fn place(&self, fingerprint: Fingerprint) -> Option<Range<usize>> {
        spans(&self.bytes)
            .find(|span| self.bytes.get(span.clone()).is_some_and(|entry| entry.starts_with(&fingerprint)))
    }
}

/// Reads the value that a meter is in, lets `step` change it, and writes it back if it did, again and again until no other
/// worker wrote in between. `None` only when the host is broken.
pub(super) fn change<T>(
    shared: &dyn Store,
    fingerprint: Fingerprint,
    mut step: impl FnMut(&mut Bucket) -> T,
) -> Option<T> {
    let name = name(index(shared.secret(), fingerprint));
    for _ in 0..TRIES {
        let Some((bytes, version)) = shared.get(&name) else {
            store::create(shared, &name, EMPTY);
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

/// The entry of a meter, without changing it.
pub(super) fn look(shared: &dyn Store, fingerprint: Fingerprint) -> Option<Entry> {
    let (bytes, _) = shared.get(&name(index(shared.secret(), fingerprint)))?;
    Bucket::read(bytes).find(fingerprint)
}

/// One of all values.
pub(super) fn nth(shared: &dyn Store, index: u16) -> Option<Bucket> {
    shared.get(&name(index)).map(|(bytes, _)| Bucket::read(bytes))
}

/// The key of a value.
pub(super) fn name(index: u16) -> String {
    ["quota/", itoa::Buffer::new().format(index)].concat()
}

/// Which value a meter is in.
pub(super) fn index(secret: Secret, fingerprint: Fingerprint) -> u16 {
    (store::keyed(secret, fingerprint) % u64::from(BUCKETS)) as u16
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        quota::layout::{Holder, Remote},
        random::Random,
    };

    fn entry(fingerprint: u8, holders: u32) -> Entry {
        Entry {
            fingerprint: [fingerprint; 16],
            rated: true,
            budgeted: fingerprint & 1 == 0,
            place: fingerprint & 2 == 0,
            ahead: fingerprint & 4 == 0,
            guest: fingerprint & 3 == 0,
            owner: u16::from(fingerprint) << 3,
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
    fn entries_that_nothing_is_lost_with_go_when_it_gets_crowded() {
        let mut bucket = Bucket::read(EMPTY.to_vec());
        let plain = |fingerprint: u8| Entry { owner: 0, guest: false, ..entry(fingerprint, 0) };
        for n in 0..7 {
            bucket.put(&plain(n));
            assert_eq!(bucket.make_room(&plain(99), |_| Loss::Nothing), Room::Free, "{n}");
        }
        assert_eq!(bucket.entries().count(), 7);
        bucket.put(&plain(7));
        let all_but = |kept: u8| {
            move |entry: &Entry| if entry.fingerprint[0] == kept { Loss::Little } else { Loss::Nothing }
        };
        assert_eq!(bucket.make_room(&plain(99), all_but(3)), Room::Free);
        assert_eq!(bucket.entries().map(|entry| entry.fingerprint[0]).collect::<Vec<_>>(), [3]);
        for n in 0..ENTRIES as u8 {
            bucket.put(&plain(n));
        }
        // They have no owner, so none is pushed out.
        assert_eq!(bucket.make_room(&plain(99), |_| Loss::Little), Room::None);
        assert_eq!(bucket.make_room(&plain(99), all_but(9)), Room::Free);
        assert_eq!(bucket.entries().count(), 1);
    }

    #[test]
    fn who_has_the_most_makes_room() {
        // (entries by owner, whether they are end users', what is lost with them; the newcomer's owner and kind; what comes of
        // it, whose entry goes)
        type Crowd<'c> = &'c [(u16, usize, bool, Loss)];
        type Row<'c> = (&'c str, Crowd<'c>, (u16, bool), Room, Option<u16>);
        let rows: &[Row] = &[
            ("room for all", &[(1, 60, true, Loss::Little)], (2, true), Room::Free, None),
            ("end users have half", &[(1, 64, true, Loss::Little)], (2, true), Room::Made, Some(1)),
            ("the other half is for others", &[(1, 64, true, Loss::Much)], (0, false), Room::Free, None),
            (
                "of many the most",
                &[(1, 20, true, Loss::Little), (2, 44, true, Loss::Little)],
                (1, true),
                Room::Made,
                Some(2),
            ),
            ("its own", &[(1, 64, true, Loss::Little)], (1, true), Room::Made, Some(1)),
            ("not yet told to the ledger", &[(1, 64, true, Loss::Some)], (2, true), Room::Made, Some(1)),
            ("in flight", &[(1, 64, true, Loss::Much)], (2, true), Room::None, None),
            (
                "never of somebody with less",
                &[(1, 40, true, Loss::Much), (2, 24, true, Loss::Little)],
                (1, true),
                Room::None,
                None,
            ),
            (
                "a share of what is tight",
                &[(1, 8, false, Loss::Little), (0, 56, false, Loss::Little)],
                (1, false),
                Room::Made,
                Some(1),
            ),
            (
                "less than its share",
                &[(1, 7, false, Loss::Little), (0, 57, false, Loss::Little)],
                (1, false),
                Room::Free,
                None,
            ),
            (
                "more than its share where there is room",
                &[(1, 9, false, Loss::Some), (0, 56, false, Loss::Little)],
                (1, false),
                Room::Little,
                None,
            ),
            ("nearly full", &[(0, 96, false, Loss::Much)], (1, false), Room::Little, None),
            (
                "full, of owners",
                &[(1, 100, false, Loss::Little), (0, 28, false, Loss::Little)],
                (0, false),
                Room::Made,
                Some(1),
            ),
            (
                "full, of a key that is not told",
                &[(1, 100, false, Loss::Some), (0, 28, false, Loss::Little)],
                (0, false),
                Room::None,
                None,
            ),
        ];
        for (name, crowd, (owner, guest), room, gone) in rows {
            let mut bucket = Bucket::read(EMPTY.to_vec());
            let mut lost = Vec::new();
            for &(owner, count, guest, loss) in *crowd {
                for _ in 0..count {
                    let fingerprint = lost.len() as u8;
                    bucket.put(&Entry {
                        fingerprint: [fingerprint; 16],
                        owner,
                        guest,
                        used_ms: 100 - u64::from(fingerprint) % 100,
                        ..Entry::default()
                    });
                    lost.push(loss);
                }
            }
            let newcomer = Entry { fingerprint: [255; 16], owner: *owner, guest: *guest, ..Entry::default() };
            let before: Vec<Entry> = bucket.entries().collect();
            assert_eq!(
                bucket.make_room(&newcomer, |entry| lost[usize::from(entry.fingerprint[0])]),
                *room,
                "{name}"
            );
            let after: Vec<Entry> = bucket.entries().collect();
            let missing: Vec<&Entry> = before.iter().filter(|entry| !after.contains(entry)).collect();
            assert_eq!(
                missing.iter().map(|entry| entry.owner).collect::<Vec<_>>(),
                Vec::from_iter(*gone),
                "{name}"
            );
            if let Some(first) = missing.first() {
                let others = before.iter().filter(|entry| entry.owner == first.owner);
                assert_eq!(others.map(|entry| entry.used_ms).min(), Some(first.used_ms), "{name}");
            }
        }
    }
}
