//! Copies of the ledger's records in one VM: bounded, dropped when they change, still good when the ledger is away.
//!
//! | what is known of a name | what comes back |
//! |---|---|
//! | a record, younger than the time to live | it |
//! | an older one | the first request is told to ask, the others go on with it |
//! | one that was outdated by a reset | every request asks; it serves while the ledger does not respond |
//! | that there is none | [`Found::Unknown`], for ten seconds |
//! | nothing, and the ledger did not respond within the last second | [`Found::Unreachable`] |
//! | nothing | [`Found::Ask`] |

mod cache;
pub mod spare;

use std::sync::Arc;

use hashbrown::HashMap;

use self::cache::{Cache, Copy};
use super::changes::{self, Changed, Fingerprint, Watermark, fingerprint, hash_start};
use crate::core::{
    host::Store,
    model::{
        key_record::{EndUserRecord, KeyRecord},
        virtual_key::{EndUser, VirtualKey},
    },
};

/// How long a key stays unknown without asking again.
const UNKNOWN_MS: u64 = 10_000;
/// Slots for unknown keys. Two keys of one slot put each other out; a scan of millions takes no more room than this.
const UNKNOWN_SLOTS: usize = 4_096;
/// How long a ledger that did not respond is left alone.
const RETRY_MS: u64 = 1_000;
/// How long one request is waited for that was told to ask.
const ASKING_MS: u64 = 5_000;
/// A response that did not come for so long: the ledger hangs. Before that, a connection was lost.
const HUNG_MS: u64 = 2_500;
/// How many names may be asked for concurrently while changes to them are watched.
const WATCHED: usize = 1_024;

/// What is known of a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Found<T> {
    /// The record of the name.
    Known(Arc<T>),
    /// There is none.
    Unknown,
    /// Nothing: ask the ledger, say what came of it with `learn_*`, and look again.
    Ask,
    /// Nothing, and the ledger cannot be asked.
    Unreachable,
}

/// What the ledger said.
#[derive(Clone, Debug, PartialEq)]
pub enum LookupResult<T> {
    /// A record (200).
    Record(T),
    /// There is none (404).
    None,
    /// No response: the connection was lost, or it took too long.
    Lost,
    /// No connection to begin with, or a response that makes no sense.
    Unreachable,
}

/// The copies of one VM.
pub struct Keyring {
    keys: Cache<VirtualKey>,
    end_users: Cache<EndUser>,
    unknown: Box<[Unknown]>,
    ttl_ms: u64,
    /// Until when the ledger is left alone.
    away_until_ms: u64,
    /// How often it was asked.
    asked: u64,
    /// A question was lost when it had been asked so often, and none was answered since.
    lost: Option<u64>,
    watermark: Option<Watermark>,
    /// Names that are being asked for, and how many changes had been seen by then: a response may be older than a change.
    watched: HashMap<Fingerprint, Watch>,
    /// The changes seen last, the newest at the end.
    seen: Vec<Changed>,
}

#[derive(Clone, Copy)]
struct Unknown {
    fingerprint: Fingerprint,
    until_ms: u64,
}

#[derive(Clone, Copy)]
struct Watch {
    /// None when everything went stale since.
    count: Option<u64>,
    since_ms: u64,
    /// The number of the question.
    asked: u64,
}

impl Keyring {
    /// Room for so many keys and so many end users.
    pub fn new(capacity: usize) -> Keyring {
        Keyring {
            keys: Cache::new(capacity),
            end_users: Cache::new(capacity),
            unknown: vec![Unknown { fingerprint: 0, until_ms: 0 }; UNKNOWN_SLOTS].into(),
            ttl_ms: 60_000,
            away_until_ms: 0,
            asked: 0,
            lost: None,
            watermark: None,
            watched: HashMap::new(),
            seen: Vec::new(),
        }
    }

    /// Sets room and time to live as a configuration wants them. Records that have no room are dropped.
    pub fn configure(&mut self, capacity: usize, ttl_ms: u64) {
        self.ttl_ms = ttl_ms;
        self.keys.resize(capacity);
        self.end_users.resize(capacity);
    }

    /// Drops what changed since the last time. One read of shared data when nothing did.
    pub fn refresh(&mut self, shared: &dyn Store) {
        let watermark = changes::watermark(shared);
        let Some(before) = self.watermark.replace(watermark) else { return };
        if watermark.resets != before.resets {
            self.keys.outdate();
            self.end_users.outdate();
            self.forget_unknown();
            // Responses on their way are as old as what is outdated.
            self.watched.values_mut().for_each(|watch| watch.count = None);
        }
        if watermark.count == before.count {
            return;
        }
        match changes::since(shared, before.count) {
            Some(names) => {
                self.keys.drop_changed(&names);
                self.end_users.drop_changed(&names);
                for change in &names {
                    let slot = self.slot(change.name);
                    if let Some(slot) = slot.filter(|slot| slot.fingerprint == change.name) {
                        slot.until_ms = 0;
                    }
                }
                // The ring may be ahead of the watermark that was read.
                let count = before.count.saturating_add(names.len() as u64);
                self.watermark = Some(Watermark { count, ..watermark });
                self.remember(&names);
            }
            None => {
                self.keys.clear();
                self.end_users.clear();
                self.forget_unknown();
                self.seen.clear();
            }
        }
    }

    /// Whether requests have to be asked for their end user, as of the last [`Keyring::refresh`].
    pub fn wants_end_users(&self) -> bool {
        self.watermark.is_some_and(|watermark| watermark.end_users)
    }

    /// The record of a key, by its hash in lower-case hexadecimal.
    pub fn key(&mut self, hash: &str, now_ms: u64) -> Found<VirtualKey> {
        let Some(fingerprint) = hash_start(hash) else { return Found::Unknown };
        match self.keys.find(fingerprint, now_ms) {
            // Half a hash finds the record; all of it must fit.
            Some(Copy::Good(grant)) if grant.key.id == hash => return Found::Known(grant),
            Some(Copy::Good(_)) => return Found::Unknown,
            Some(Copy::Old) => return self.ask(fingerprint, now_ms),
            None => {}
        }
        if self
            .slot(fingerprint)
            .is_some_and(|slot| slot.fingerprint == fingerprint && slot.until_ms > now_ms)
        {
            return Found::Unknown;
        }
        self.ask(fingerprint, now_ms)
    }

    /// The record of an end user.
    pub fn end_user(&mut self, id: &str, now_ms: u64) -> Found<EndUser> {
        let fingerprint = end_user_fingerprint(id);
        match self.end_users.find(fingerprint, now_ms) {
            Some(Copy::Good(record)) => Found::Known(record),
            Some(Copy::Old) | None => self.ask(fingerprint, now_ms),
        }
    }

    /// Takes in what the ledger said of a key.
    pub fn learn_key(&mut self, hash: &str, result: LookupResult<KeyRecord>, now_ms: u64) {
        let Some(fingerprint) = hash_start(hash) else { return };
        let watch = self.watched.remove(&fingerprint);
        if matches!(result, LookupResult::Record(_) | LookupResult::None) {
            self.lost = None;
        }
        match result {
            LookupResult::Record(grant) => {
                let (names, revision) = (names_of(&grant), grant.revision);
                let until = self.good_until(watch, &names, revision, now_ms);
                self.keys.put(fingerprint, (names, revision), grant.into(), until);
            }
            LookupResult::None => {
                self.keys.drop_changed(&[Changed { name: fingerprint, revision: Changed::UNKNOWN }]);
                let until =
                    self.good_until(watch, &[fingerprint], 0, now_ms).min(now_ms.saturating_add(UNKNOWN_MS));
                if let Some(slot) = self.slot(fingerprint) {
                    *slot = Unknown { fingerprint, until_ms: until };
                }
            }
            LookupResult::Lost => self.lose(watch, now_ms),
            LookupResult::Unreachable => self.leave_alone(now_ms),
        }
    }

    /// How many changes had been seen when this key was asked for. Unknown after a reset: as many as there can be.
    pub fn seen_when_asked(&self, hash: &str) -> u64 {
        let watch = hash_start(hash).and_then(|fingerprint| self.watched.get(&fingerprint));
        let now = self.watermark.map_or(0, |watermark| watermark.count);
        watch.map_or(now, |watch| watch.count.unwrap_or(now))
    }

    /// Takes in a record that another VM has learnt, while the ledger cannot be asked: it is gone on with until it can.
    pub fn adopt(&mut self, grant: KeyRecord, now_ms: u64) -> Arc<VirtualKey> {
        let kept = grant.clone().into();
        if let Some(fingerprint) = hash_start(&grant.key.id) {
            let (names, revision) = (names_of(&grant), grant.revision);
            self.keys.put(fingerprint, (names, revision), grant.into(), now_ms);
        }
        kept
    }

    /// Takes in what the ledger said of an end user. One without a record has no limits.
    pub fn learn_end_user(&mut self, id: &str, result: LookupResult<EndUserRecord>, now_ms: u64) {
        let fingerprint = end_user_fingerprint(id);
        let watch = self.watched.remove(&fingerprint);
        if matches!(result, LookupResult::Record(_) | LookupResult::None) {
            self.lost = None;
        }
        let record = match result {
            LookupResult::Record(record) => record,
            LookupResult::None => {
                let mut none = EndUserRecord::default();
                none.scope.id = id.to_owned();
                none
            }
            LookupResult::Lost => return self.lose(watch, now_ms),
            LookupResult::Unreachable => return self.leave_alone(now_ms),
        };
        let revision = record.revision;
        let until = self.good_until(watch, &[fingerprint], revision, now_ms);
        self.end_users.put(fingerprint, (Box::new([fingerprint]), revision), record.into(), until);
    }

    fn ask<T>(&mut self, fingerprint: Fingerprint, now_ms: u64) -> Found<T> {
        if now_ms < self.away_until_ms {
            return Found::Unreachable;
        }
        if self.watched.len() >= WATCHED {
            // Of those whose response never came nothing more is expected.
            self.watched.retain(|_, watch| watch.since_ms.saturating_add(ASKING_MS) > now_ms);
        }
        if self.watched.len() < WATCHED {
            let count = Some(self.watermark.map_or(0, |watermark| watermark.count));
            self.asked = self.asked.saturating_add(1);
            let asked = self.asked;
            self.watched.entry(fingerprint).or_insert(Watch { count, since_ms: now_ms, asked });
        }
        Found::Ask
    }

    /// One lost connection says nothing: it is asked again. When a question is lost that was asked after another was lost, or one
    /// that waited long, the ledger is away.
    fn lose(&mut self, watch: Option<Watch>, now_ms: u64) {
        let hung = watch.is_some_and(|watch| watch.since_ms.saturating_add(HUNG_MS) <= now_ms);
        let asked = watch.map_or(0, |watch| watch.asked);
        match self.lost {
            Some(before) if asked > before => self.leave_alone(now_ms),
            _ if hung => self.leave_alone(now_ms),
            Some(_) => {}
            None => self.lost = Some(self.asked),
        }
    }

    fn leave_alone(&mut self, now_ms: u64) {
        self.away_until_ms = now_ms.saturating_add(RETRY_MS);
        self.keys.leave_alone_until_ms = self.away_until_ms;
        self.end_users.leave_alone_until_ms = self.away_until_ms;
    }

    /// Until when a response is good: not at all when one of its names changed while it was on its way.
    fn good_until(&self, watch: Option<Watch>, names: &[Fingerprint], revision: u64, now_ms: u64) -> u64 {
        let count = self.watermark.map_or(0, |watermark| watermark.count);
        let missed = match watch {
            Some(watch) => watch.count.map(|seen| count.saturating_sub(seen)),
            None => Some(0),
        };
        let missed = missed.and_then(|missed| usize::try_from(missed).ok());
        let changed = match missed.and_then(|missed| self.seen.len().checked_sub(missed)) {
            Some(skip) => {
                let missed = |change: &Changed| change.revision > revision && names.contains(&change.name);
                self.seen.iter().skip(skip).any(missed)
            }
            None => true,
        };
        if changed { now_ms } else { now_ms.saturating_add(self.ttl_ms.max(1)) }
    }

    fn remember(&mut self, changes: &[Changed]) {
        self.seen.extend_from_slice(changes);
        let most = usize::try_from(changes::RING).unwrap_or(usize::MAX);
        self.seen.drain(..self.seen.len().saturating_sub(most));
    }

    fn forget_unknown(&mut self) {
        self.unknown.iter_mut().for_each(|slot| slot.until_ms = 0);
    }

    fn slot(&mut self, fingerprint: Fingerprint) -> Option<&mut Unknown> {
        let at = usize::try_from(fingerprint % (UNKNOWN_SLOTS as u128)).ok()?;
        self.unknown.get_mut(at)
    }
}

fn end_user_fingerprint(id: &str) -> Fingerprint {
    fingerprint(&format!("end_user:{id}"))
}

/// The names whose change makes a grant stale.
fn names_of(grant: &KeyRecord) -> Box<[Fingerprint]> {
    let mut names = Vec::with_capacity(5);
    // Whatever name of the key a change comes by.
    names.extend(hash_start(&grant.key.id));
    if let Some(former) = &grant.key.former {
        let hashes = [&former.counted, &former.current];
        names.extend(hashes.into_iter().flatten().filter_map(|hash| hash_start(hash)));
    }
    let scopes = [("user", &grant.user), ("team", &grant.team), ("org", &grant.organization)];
    for (kind, scope) in scopes {
        names.extend(scope.as_ref().map(|scope| fingerprint(&format!("{kind}:{}", scope.id))));
    }
    if let (Some(team), Some(member)) = (&grant.team, &grant.member) {
        names.push(fingerprint(&format!("member:{}/{}", team.id, member.id)));
    }
    if let (Some(organization), Some(member)) = (&grant.organization, &grant.organization_member) {
        names.push(fingerprint(&format!("org_member:{}/{}", organization.id, member.id)));
    }
    names.into()
}

#[cfg(test)]
mod tests;
