//! Which workers live: a lost VM must not hold places for ever.

use std::cell::RefCell;

use super::Worker;
use crate::core::{host::Store, store};

/// A worker that was silent for longer holds nothing.
const SILENT_MS: u64 = 5_000;
/// A worker that was silent for longer is forgotten. In between it may come back (its thread was busy) and finds its
/// counts where it left them.
const FORGOTTEN_MS: u64 = 60_000;
const KEY: &str = "quota/workers";
const VERSION: u8 = 1;
const RECORD: usize = 12;

/// Says that a worker lives. About once a second; after 5 s of silence what it holds no longer counts.
pub fn beat(shared: &dyn Store, worker: Worker, now_ms: u64) {
    // A beat lost to 32 others is made good by the next one.
    store::update(shared, KEY, |bytes| {
        let mut list = decode(bytes);
        list.retain(|&(id, beat_ms)| id != worker.0 && now_ms.abs_diff(beat_ms) <= FORGOTTEN_MS);
        list.push((worker.0, now_ms));
        (encode(&list), ())
    });
}

/// Makes the list where it is missing.
pub(super) fn prepare(shared: &dyn Store) {
    store::create(shared, KEY, &encode(&[]));
}

/// The workers as one call sees them. The list is read when it is first asked for: mostly it is not. It is read again for a
/// worker that is not in it, because whoever holds something has said before that it lives: it may have come meanwhile.
pub(super) struct Crew<'s> {
    shared: &'s dyn Store,
    own: Option<Worker>,
    now_ms: u64,
    list: RefCell<Vec<(u32, u64)>>,
}

impl<'s> Crew<'s> {
    /// As `own` sees them, which certainly lives itself.
    pub(super) fn new(shared: &'s dyn Store, own: Option<Worker>, now_ms: u64) -> Crew<'s> {
        Crew { shared, own, now_ms, list: RefCell::default() }
    }

    /// It is the caller.
    pub(super) fn is_own(&self, worker: u32) -> bool {
        self.own == Some(Worker(worker))
    }

    /// What it holds counts.
    pub(super) fn lives(&self, worker: u32) -> bool {
        self.is_own(worker)
            || self.beat_ms(worker).is_some_and(|beat_ms| self.now_ms.abs_diff(beat_ms) <= SILENT_MS)
    }

    /// It lives or may come back.
    pub(super) fn knows(&self, worker: u32) -> bool {
        self.is_own(worker) || self.beat_ms(worker).is_some()
    }

    fn beat_ms(&self, worker: u32) -> Option<u64> {
        let find =
            |list: &[(u32, u64)]| list.iter().find(|(id, _)| *id == worker).map(|&(_, beat_ms)| beat_ms);
        if let Some(beat_ms) = find(&self.list.borrow()) {
            return Some(beat_ms);
        }
        let newest = decode(self.shared.get(KEY).as_ref().map(|(bytes, _)| bytes.as_slice()));
        let found = find(&newest);
        self.list.replace(newest);
        found
    }
}

fn decode(bytes: Option<&[u8]>) -> Vec<(u32, u64)> {
    let Some((&VERSION, records)) = bytes.and_then(<[u8]>::split_first) else { return Vec::new() };
    records
        .chunks_exact(RECORD)
        .filter_map(|record| {
            let (id, beat_ms) = record.split_first_chunk()?;
            Some((u32::from_le_bytes(*id), u64::from_le_bytes(beat_ms.try_into().ok()?)))
        })
        .collect()
}

fn encode(list: &[(u32, u64)]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for (id, beat_ms) in list {
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.extend_from_slice(&beat_ms.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::store::Memory;

    #[test]
    fn workers_live_fall_silent_and_are_forgotten() {
        let shared = Memory::default();
        prepare(&shared);
        beat(&shared, Worker(1), 100_000);
        beat(&shared, Worker(2), 103_000);
        // (now, lives and is known for 1, 2 and a stranger)
        let rows = [
            (103_000, [true, true, false], [true, true, false]),
            (105_000, [true, true, false], [true, true, false]),
            (105_001, [false, true, false], [true, true, false]),
            (109_000, [false, false, false], [true, true, false]),
        ];
        for (now_ms, lives, known) in rows {
            let crew = Crew::new(&shared, None, now_ms);
            assert_eq!([1, 2, 3].map(|id| crew.lives(id)), lives, "{now_ms}");
            assert_eq!([1, 2, 3].map(|id| crew.knows(id)), known, "{now_ms}");
        }
        beat(&shared, Worker(2), 160_001);
        let crew = Crew::new(&shared, Some(Worker(3)), 160_001);
        assert_eq!([1, 2, 3].map(|id| crew.lives(id)), [false, true, true]);
        assert_eq!([1, 2, 3].map(|id| crew.knows(id)), [false, true, true]);
    }

    #[test]
    fn a_worker_that_comes_while_a_call_looks_is_seen() {
        let shared = Memory::default();
        prepare(&shared);
        beat(&shared, Worker(1), 100_000);
        let crew = Crew::new(&shared, Some(Worker(1)), 100_000);
        assert!(crew.lives(1) && !crew.lives(2) && !crew.knows(2));
        beat(&shared, Worker(2), 100_000);
        assert!(crew.lives(2) && crew.knows(2));
    }

    #[test]
    fn garbage_is_an_empty_list() {
        let shared = Memory::default();
        for bytes in [&b""[..], b"\x02aaaaaaaaaaaa", b"\x01aaaa"] {
            shared.set(KEY, bytes, None);
            assert!(!Crew::new(&shared, None, 0).knows(0x6161_6161), "{bytes:?}");
        }
        beat(&shared, Worker(1), 5);
        assert!(Crew::new(&shared, None, 5).lives(1));
    }
}
