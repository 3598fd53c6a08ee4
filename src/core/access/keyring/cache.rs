//! Records by name in a bounded table.

use std::sync::Arc;

use hashbrown::HashMap;

use super::ASKING_MS;
use crate::core::access::changes::{Changed, Fingerprint};

/// The most rounds of the hand that a record survives without being asked for.
const HOTTEST: u8 = 3;

/// A copy of a record.
pub(super) enum Copy<T> {
    /// To go on with.
    Good(Arc<T>),
    /// Too old: ask for a newer one.
    Old,
}

/// Records by name. When there is no more room, a hand goes round and takes the first one that has grown cold.
pub(super) struct Cache<T> {
    places: HashMap<Fingerprint, usize>,
    slots: Vec<Slot<T>>,
    free: Vec<usize>,
    hand: usize,
    capacity: usize,
    /// Until when no request is to ask, because the ledger is away.
    pub(super) leave_alone_until_ms: u64,
}

struct Slot<T> {
    fingerprint: Fingerprint,
    names: Box<[Fingerprint]>,
    /// The ledger's revision that the record is as of.
    revision: u64,
    /// None in a free slot.
    value: Option<Arc<T>>,
    good_until_ms: u64,
    /// Until when a request is expected to bring a newer one.
    asking_until_ms: u64,
    /// A reset came since: the copy serves only while the ledger does not respond.
    outdated: bool,
    /// How often it was asked for, up to [`HOTTEST`]; the hand takes one off when it comes by.
    heat: u8,
}

impl<T> Cache<T> {
    pub(super) fn new(capacity: usize) -> Cache<T> {
        Cache {
            places: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            capacity: capacity.max(1),
            leave_alone_until_ms: 0,
        }
    }

    pub(super) fn resize(&mut self, capacity: usize) {
        self.capacity = capacity.max(1);
        if self.slots.len() > self.capacity {
            self.clear();
        }
    }

    /// The copy of a record.
    pub(super) fn find(&mut self, fingerprint: Fingerprint, now_ms: u64) -> Option<Copy<T>> {
        let alone = now_ms < self.leave_alone_until_ms;
        let slot = self.slots.get_mut(*self.places.get(&fingerprint)?)?;
        let value = Arc::clone(slot.value.as_ref()?);
        slot.heat = slot.heat.saturating_add(1).min(HOTTEST);
        let good = now_ms < slot.good_until_ms && !slot.outdated;
        let is_asked_for = now_ms < slot.asking_until_ms && !slot.outdated;
        if good || alone || is_asked_for {
            return Some(Copy::Good(value));
        }
        slot.asking_until_ms = now_ms.saturating_add(ASKING_MS);
        Some(Copy::Old)
    }

    pub(super) fn put(
        &mut self,
        fingerprint: Fingerprint,
        (names, revision): (Box<[Fingerprint]>, u64),
        value: T,
        good_until_ms: u64,
    ) {
        let slot = Slot {
            fingerprint,
            names,
            revision,
            value: Some(Arc::new(value)),
            good_until_ms,
            asking_until_ms: 0,
            outdated: false,
            heat: 0,
        };
        let at = match self.places.get(&fingerprint) {
            Some(&at) => at,
            None => self.room(),
        };
        self.places.insert(fingerprint, at);
        match self.slots.get_mut(at) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
    }

    /// A place for one more.
    fn room(&mut self) -> usize {
        if let Some(at) = self.free.pop() {
            return at;
        }
        if self.slots.len() < self.capacity {
            return self.slots.len();
        }
        // After some rounds no slot is warm any more.
        for _ in 0..=self.slots.len().saturating_mul(usize::from(HOTTEST)) {
            let at = self.hand;
            self.hand = if at.saturating_add(1) >= self.slots.len() { 0 } else { at.saturating_add(1) };
            let Some(slot) = self.slots.get_mut(at) else { continue };
            if slot.heat == 0 {
                self.places.remove(&slot.fingerprint);
                return at;
            }
            slot.heat -= 1;
        }
        self.hand
    }

    /// Drops every record that one of these changes is part of and that does not have it yet, in one round.
    pub(super) fn drop_changed(&mut self, changes: &[Changed]) {
        let mut newest: HashMap<Fingerprint, u64> = HashMap::new();
        for change in changes {
            let revision = newest.entry(change.name).or_default();
            *revision = change.revision.max(*revision);
        }
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let is_stale = |name| newest.get(name).is_some_and(|revision| *revision > slot.revision);
            if slot.value.is_some() && slot.names.iter().any(is_stale) {
                slot.value = None;
                self.places.remove(&slot.fingerprint);
                self.free.push(at);
            }
        }
    }

    pub(super) fn outdate(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.outdated = true);
    }

    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.slots.clear();
        self.free.clear();
        self.hand = 0;
    }
}
