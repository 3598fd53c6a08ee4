//! Which workers live: a lost VM must not hold concurrency for ever.

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
pub fn heartbeat(shared: &dyn Store, worker: Worker, now_ms: u64) {
    // A heartbeat lost to 32 others is made good by the next one.
    store::update(shared, KEY, |bytes| {
        let mut list = decode(bytes);
        list.retain(|&(id, heartbeat_ms)| id != worker.0 && now_ms.abs_diff(heartbeat_ms) <= FORGOTTEN_MS);
        list.push((worker.0, now_ms));
        (encode(&list), ())
    });
}

/// Makes the list where it is missing.
pub(super) fn prepare(shared: &dyn Store) {
    store::create(shared, KEY, &encode(&[]));
}

/// The workers as one call sees them. The list is read when it is first asked for: mostly it is not. It is read again for a
/// worker that is not in it, because a worker that holds something has said before that it lives: it may have come meanwhile.
pub(super) struct Liveness<'s> {
    shared: &'s dyn Store,
    own: Option<Worker>,
    now_ms: u64,
    list: RefCell<Vec<(u32, u64)>>,
}

impl<'s> Liveness<'s> {
    /// As `own` sees them, which certainly lives itself.
    pub(super) fn new(shared: &'s dyn Store, own: Option<Worker>, now_ms: u64) -> Liveness<'s> {
        Liveness { shared, own, now_ms, list: RefCell::default() }
    }

    /// Whether a worker is the caller's own.
    pub(super) fn is_own(&self, worker: u32) -> bool {
        self.own == Some(Worker(worker))
    }

    /// Whether a worker lives, so that what it holds counts.
    pub(super) fn lives(&self, worker: u32) -> bool {
        self.is_own(worker)
            || self
                .heartbeat_ms(worker)
                .is_some_and(|heartbeat_ms| self.now_ms.abs_diff(heartbeat_ms) <= SILENT_MS)
    }

    /// Whether a worker lives or may come back.
    pub(super) fn knows(&self, worker: u32) -> bool {
        self.is_own(worker) || self.heartbeat_ms(worker).is_some()
    }

    fn heartbeat_ms(&self, worker: u32) -> Option<u64> {
        let find = |list: &[(u32, u64)]| {
            list.iter().find(|(id, _)| *id == worker).map(|&(_, heartbeat_ms)| heartbeat_ms)
        };
        if let Some(heartbeat_ms) = find(&self.list.borrow()) {
            return Some(heartbeat_ms);
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
            let (id, heartbeat_ms) = record.split_first_chunk()?;
            Some((u32::from_le_bytes(*id), u64::from_le_bytes(heartbeat_ms.try_into().ok()?)))
        })
        .collect()
}

fn encode(list: &[(u32, u64)]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for (id, heartbeat_ms) in list {
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.extend_from_slice(&heartbeat_ms.to_le_bytes());
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
        heartbeat(&shared, Worker(1), 100_000);
        heartbeat(&shared, Worker(2), 103_000);
        // (now, lives and is known for 1, 2 and a stranger)
        let rows = [
            (103_000, [true, true, false], [true, true, false]),
            (105_000, [true, true, false], [true, true, false]),
            (105_001, [false, true, false], [true, true, false]),
            (109_000, [false, false, false], [true, true, false]),
        ];
        for (now_ms, lives, known) in rows {
            let liveness = Liveness::new(&shared, None, now_ms);
            assert_eq!([1, 2, 3].map(|id| liveness.lives(id)), lives, "{now_ms}");
            assert_eq!([1, 2, 3].map(|id| liveness.knows(id)), known, "{now_ms}");
        }
        heartbeat(&shared, Worker(2), 160_001);
        let liveness = Liveness::new(&shared, Some(Worker(3)), 160_001);
        assert_eq!([1, 2, 3].map(|id| liveness.lives(id)), [false, true, true]);
        assert_eq!([1, 2, 3].map(|id| liveness.knows(id)), [false, true, true]);
    }

    #[test]
    fn a_worker_that_comes_while_a_call_looks_is_seen() {
        let shared = Memory::default();
        prepare(&shared);
        heartbeat(&shared, Worker(1), 100_000);
        let liveness = Liveness::new(&shared, Some(Worker(1)), 100_000);
        assert!(liveness.lives(1) && !liveness.lives(2) && !liveness.knows(2));
        heartbeat(&shared, Worker(2), 100_000);
        assert!(liveness.lives(2) && liveness.knows(2));
    }

    #[test]
    fn garbage_is_an_empty_list() {
        let shared = Memory::default();
        for bytes in [&b""[..], b"\x02aaaaaaaaaaaa", b"\x01aaaa"] {
            shared.set(KEY, bytes, None);
            assert!(!Liveness::new(&shared, None, 0).knows(0x6161_6161), "{bytes:?}");
        }
        heartbeat(&shared, Worker(1), 5);
        assert!(Liveness::new(&shared, None, 5).lives(1));
    }
}
