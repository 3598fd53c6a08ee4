//! What the ledger and the other nodes say: acknowledged money, new totals, rates.

use super::{
    bucket::{self, Room},
    entry::pico,
    layout::{Entry, Remote},
    liveness::Liveness,
};
use crate::core::{
    codec::hex::{hex, unhex},
    host::Store,
    model::{meter::Meter, money::Money, rate::Rate, rule::Base},
};

/// The ledger's new total. Taken when it is newer than the one there, and when the table has the meter with a budget.
pub fn rebase(shared: &dyn Store, meter: &Meter, spend: Money, revision: u64) {
    synced(shared, meter, Money::ZERO, Some(Base { spend, revision }));
}

/// [`rebase`] of a deployment or a provider. They have no record that would bring their total with the first request, so the
/// table takes it before there is one.
pub fn know(shared: &dyn Store, meter: &Meter, spend: Money, revision: u64, now_ms: u64) {
    let fingerprint = meter.fingerprint();
    let liveness = Liveness::new(shared, None, now_ms);
    let is_there = bucket::change(shared, fingerprint, |bucket| {
        if bucket.find(fingerprint).is_some() {
            return true;
        }
        let (base, used_ms) = (pico(spend), now_ms);
        let fresh = Entry {
            budgeted: true,
            place: true,
            ahead: true,
            base,
            revision,
            used_ms,
            ..Entry::new(fingerprint)
        };
        if bucket.make_room(&fresh, |entry| entry.loss(&liveness, now_ms)) != Room::None {
            bucket.put(&fresh);
        }
        false
    });
    if is_there == Some(true) {
        rebase(shared, meter, spend, revision);
    }
}

/// Settles what the ledger has applied: `spent` leaves what is not yet synced (never below 0), and `total` is taken as by
/// [`rebase`]. One step, so that no request in between sees money counted twice or not at all.
pub fn synced(shared: &dyn Store, meter: &Meter, spent: Money, total: Option<Base>) {
    let fingerprint = meter.fingerprint();
    bucket::change(shared, fingerprint, |bucket| {
        let Some(mut entry) = bucket.find(fingerprint) else { return };
        let before = (entry.unsynced, entry.revision);
        if spent > Money::ZERO {
            entry.unsynced = entry.unsynced.saturating_sub(pico(spent)).max(0);
        }
        if let Some(total) = total.filter(|total| entry.budgeted && total.revision > entry.revision) {
            (entry.base, entry.revision) = (pico(total.spend), total.revision);
            entry.ahead = true;
        }
        if before != (entry.unsynced, entry.revision) {
            bucket.put(&entry);
        }
    });
}

/// The rates of every meter that has a rate limit and an open window or requests in flight, here or elsewhere: a node that
/// refuses because of other nodes must go on asking for theirs. [`Rate::meter`] is [`Meter::hex`]. Reads the whole table.
pub fn open_rates(shared: &dyn Store, now_ms: u64) -> Vec<Rate> {
    let liveness = Liveness::new(shared, None, now_ms);
    let mut rates = Vec::new();
    for bucket in (0..bucket::BUCKETS).filter_map(|index| bucket::nth(shared, index)) {
        for mut entry in bucket.entries().filter(|entry| entry.rated) {
            entry.turn(None, now_ms);
            let held = entry.held(|worker| liveness.lives(worker));
            if entry.window_ms != 0 || held.requests != 0 || entry.remote.counts(now_ms) {
                rates.push(Rate {
                    meter: hex(&entry.fingerprint),
                    window_ms: entry.window_ms,
                    requests: entry.requests,
                    tokens: entry.tokens.saturating_add(held.tokens),
                    parallel: held.requests,
                    place: entry.place,
                });
            }
        }
    }
    rates
}

/// What other nodes have, absolute, by [`Meter::hex`]. It counts besides our own until it is replaced, for at most 5 s.
/// Meters that are not in the table are passed over: they have no request here that could be refused. Those of deployments
/// are taken in: a strategy compares also those that were not called here.
pub fn set_remote(shared: &dyn Store, rates: &[Rate], now_ms: u64) {
    let liveness = Liveness::new(shared, None, now_ms);
    for rate in rates {
        let Some(fingerprint) = unhex(&rate.meter) else { continue };
        let remote = Remote {
            at_ms: now_ms,
            window_ms: rate.window_ms,
            requests: rate.requests,
            tokens: rate.tokens,
            parallel: rate.parallel,
        };
        bucket::change(shared, fingerprint, |bucket| {
            if let Some(entry) = bucket.find(fingerprint) {
                let (rated, place) = (entry.rated || rate.place, entry.place || rate.place);
                bucket.put(&Entry { remote, rated, place, ..entry });
            } else if rate.place && remote.counts(now_ms) {
                let fresh =
                    Entry { rated: true, place: true, used_ms: now_ms, remote, ..Entry::new(fingerprint) };
                if bucket.make_room(&fresh, |entry| entry.loss(&liveness, now_ms)) != Room::None {
                    bucket.put(&fresh);
                }
            }
        });
    }
}
