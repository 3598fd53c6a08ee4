//! The sync role's memory: usage that goes up in numbered batches, changes that come down.
//!
//! One batch is under way at a time. It stands in shared data until the ledger has acknowledged it, and is repeated without a
//! change until then: a lost VM loses nothing, and nothing counts twice. What waits behind it stays in the host's queue. When
//! the ledger stays away, the queue is emptied into a bounded list, and what does not fit there is folded into sums: details of
//! single calls are dropped, the oldest first; spend never is.

use std::collections::VecDeque;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::core::{
    access::changes,
    cost::money::Money,
    ledger::{Event, Folded, Rate, SyncReply},
    quota::{self, Base, Meter},
    shared::Shared,
};

/// Where the batch under way and its number stand in shared data.
const STATE: &str = "sync/state";
/// Most events of a batch.
const BATCH_EVENTS: usize = 1_000;
/// Most bytes of a batch's events.
const BATCH_BYTES: usize = 1 << 20;
/// Most events that wait here, when the ledger stays away.
const WAITING: usize = 50_000;
/// Most sums with all their names. Beyond that, calls of a key are summed whatever they called.
const SUMS: usize = 20_000;
/// After so many failures in a row the ledger counts as away.
const AWAY: u32 = 10;
/// Milliseconds between two tries after the first failure, and at most.
const BACK_OFF_MS: (u64, u64) = (200, 5_000);

/// What the role knows.
pub struct Sync {
    node: String,
    number: u64,
    cursor: u64,
    nodes: u64,
    under_way: Option<UnderWay>,
    waiting: VecDeque<Box<[u8]>>,
    folded: Sums,
    failures: u32,
    not_before_ms: u64,
    asking: bool,
    dropped: u64,
}

/// What a reply or a failure comes to, for counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Calls that the ledger has taken over with this reply.
    pub acknowledged: u64,
    /// Ask again at once: there is more to say or to hear.
    pub again: bool,
    /// The reply made no sense, or none came.
    pub failed: bool,
}

/// What is kept in shared data.
#[derive(Serialize, Deserialize)]
struct State {
    node: String,
    number: u64,
    batch: Option<Box<RawValue>>,
}

/// The batch under way: its text, how many calls it stands for, and what it charges each meter with.
struct UnderWay {
    text: Box<RawValue>,
    calls: u64,
    charges: HashMap<String, i64>,
}

/// The part of a batch that acknowledging it takes.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Charges {
    events: Vec<Charge>,
    folded: Vec<FoldedCharge>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Charge {
    spend: i64,
    metered: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FoldedCharge {
    sum: Charge,
    calls: u64,
}

#[derive(Serialize)]
struct Request<'r> {
    node: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<&'r RawValue>,
    cursor: u64,
    rates: Vec<Rate>,
}

#[derive(Serialize)]
struct NewBatch<'b> {
    number: u64,
    events: Vec<&'b RawValue>,
    folded: &'b [Folded],
}

impl Sync {
    /// Goes on where a lost VM stopped, or begins as the node `fresh`.
    pub fn open(shared: &dyn Shared, fresh: String) -> Sync {
        let kept = shared.get(STATE).and_then(|(bytes, _)| serde_json::from_slice::<State>(&bytes).ok());
        let (node, number, batch) =
            kept.map_or((fresh, 0, None), |state| (state.node, state.number, state.batch));
        Sync {
            node,
            number,
            cursor: 0,
            nodes: 1,
            under_way: batch.map(UnderWay::of),
            waiting: VecDeque::new(),
            folded: Sums::default(),
            failures: 0,
            not_before_ms: 0,
            asking: false,
            dropped: 0,
        }
    }

    /// Whether the host's queue is to be emptied further: for the next batch, or because the ledger stays away and the queue has
    /// no bound.
    pub fn wants_events(&self) -> bool {
        let has_room = self.under_way.is_none() && self.waiting.len() < BATCH_EVENTS;
        has_room || self.failures >= AWAY
    }

    /// Takes an event ([`Event`] in JSON) out of the queue.
    pub fn push(&mut self, event: &[u8]) {
        self.waiting.push_back(event.into());
        while self.waiting.len() > WAITING {
            let oldest = self.waiting.pop_front();
            if let Some(event) = oldest.and_then(|bytes| serde_json::from_slice::<Event>(&bytes).ok()) {
                self.folded.add(event);
                self.dropped = self.dropped.saturating_add(1);
            }
        }
    }

    /// How many calls have lost their details so far.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What to send now; `None` while an answer is awaited, or it is too early after a failure.
    pub fn request(&mut self, shared: &dyn Shared, now_ms: u64) -> Option<Vec<u8>> {
        if self.asking || now_ms < self.not_before_ms {
            return None;
        }
        if self.under_way.is_none() {
            self.begin_batch(shared);
        }
        let rates = if self.nodes > 1 { quota::open_rates(shared, now_ms) } else { Vec::new() };
        let batch = self.under_way.as_ref().map(|batch| &*batch.text);
        let request = Request { node: &self.node, batch, cursor: self.cursor, rates };
        let body = serde_json::to_vec(&request).ok()?;
        self.asking = true;
        Some(body)
    }

    /// Makes a batch of what waits, and keeps it in shared data before it is sent for the first time.
    fn begin_batch(&mut self, shared: &dyn Shared) {
        let mut bytes = 0;
        let mut taken = Vec::new();
        while let Some(event) = self.waiting.front() {
            if taken.len() >= BATCH_EVENTS || (bytes > 0 && bytes + event.len() > BATCH_BYTES) {
                break;
            }
            bytes += event.len();
            // What is no JSON could never be acknowledged.
            let raw = self
                .waiting
                .pop_front()
                .and_then(|event| serde_json::from_slice::<Box<RawValue>>(&event).ok());
            taken.extend(raw);
        }
        let folded = self.folded.take(BATCH_EVENTS);
        if taken.is_empty() && folded.is_empty() {
            return;
        }
        let number = self.number.saturating_add(1);
        let batch = NewBatch { number, events: taken.iter().map(AsRef::as_ref).collect(), folded: &folded };
        let Ok(text) = serde_json::value::to_raw_value(&batch) else { return };
        self.number = number;
        self.under_way = Some(UnderWay::of(text));
        self.keep(shared);
    }

    fn keep(&self, shared: &dyn Shared) {
        let batch = self.under_way.as_ref().map(|batch| batch.text.clone());
        let state = State { node: self.node.clone(), number: self.number, batch };
        if let Ok(bytes) = serde_json::to_vec(&state) {
            shared.set(STATE, &bytes, None);
        }
    }

    /// The ledger has answered with a 200.
    pub fn on_reply(&mut self, body: &[u8], shared: &dyn Shared, now_ms: u64) -> Outcome {
        let Ok(reply) = serde_json::from_slice::<SyncReply>(body) else {
            return self.on_failure(now_ms);
        };
        self.asking = false;
        self.failures = 0;
        self.not_before_ms = 0;
        self.nodes = reply.nodes.max(1);
        let acknowledged = self.settle(&reply, shared);
        self.follow(&reply, shared, now_ms);
        // What has piled up goes at once.
        let again = reply.more || (acknowledged > 0 && self.waiting.len() >= BATCH_EVENTS / 2);
        Outcome { acknowledged, again, failed: false }
    }

    /// The batch under way is the ledger's now: what it charged is in the totals that came with the reply.
    fn settle(&mut self, reply: &SyncReply, shared: &dyn Shared) -> u64 {
        if reply.acknowledged < self.number {
            return 0;
        }
        let Some(batch) = self.under_way.take() else { return 0 };
        self.keep(shared);
        for (name, spent) in &batch.charges {
            let total = reply.changes.iter().rev().find(|change| change.meter == *name);
            let base = total.and_then(|change| Some((change.spend?, change.revision)));
            let base = base.map(|(spend, revision)| Base { spend: Money::from_pico(spend.into()), revision });
            quota::synced(shared, &Meter::named(name), Money::from_pico((*spent).into()), base);
        }
        batch.calls
    }

    /// What changed in the ledger, here or elsewhere.
    fn follow(&mut self, reply: &SyncReply, shared: &dyn Shared, now_ms: u64) {
        for change in &reply.changes {
            if let Some(spend) = change.spend {
                quota::rebase(
                    shared,
                    &Meter::named(&change.meter),
                    Money::from_pico(spend.into()),
                    change.revision,
                );
            }
        }
        let names: Vec<&str> =
            reply.changes.iter().filter(|change| change.record).map(|change| change.meter.as_str()).collect();
        changes::announce(shared, &names);
        // At its start a node has copied nothing yet: what it hears then is where it begins.
        if reply.reset {
            changes::reset(shared);
        }
        if changes::mark(shared).end_users != reply.end_users {
            changes::set_end_users(shared, reply.end_users);
        }
        if self.nodes > 1 {
            quota::set_remote(shared, &reply.rates, now_ms);
        }
        self.cursor = reply.cursor;
    }

    /// No answer came, or one that is not a 200.
    pub fn on_failure(&mut self, now_ms: u64) -> Outcome {
        self.asking = false;
        self.failures = self.failures.saturating_add(1);
        let (first, most) = BACK_OFF_MS;
        let wait = first.checked_shl(self.failures.saturating_sub(1).min(16)).unwrap_or(most).min(most);
        self.not_before_ms = now_ms.saturating_add(wait);
        Outcome { failed: true, ..Outcome::default() }
    }
}

impl UnderWay {
    fn of(text: Box<RawValue>) -> UnderWay {
        let read = serde_json::from_str::<Charges>(text.get()).unwrap_or_default();
        let mut charges: HashMap<String, i64> = HashMap::new();
        let mut calls = u64::try_from(read.events.len()).unwrap_or(0);
        let sums = read.folded.into_iter().map(|folded| {
            calls = calls.saturating_add(folded.calls);
            folded.sum
        });
        for charge in read.events.into_iter().chain(sums.collect::<Vec<_>>()) {
            for name in charge.metered {
                let total = charges.entry(name).or_default();
                *total = total.saturating_add(charge.spend);
            }
        }
        UnderWay { text, calls, charges }
    }
}

/// Sums of calls whose details were dropped.
#[derive(Default)]
struct Sums {
    list: Vec<Folded>,
    index: HashMap<String, usize>,
}

impl Sums {
    fn add(&mut self, event: Event) {
        let mut name = Self::name(&event);
        if self.list.len() >= SUMS && !self.index.contains_key(&name) {
            name = format!("{}\n{}", event.api_key, event.metered.join("\n"));
        }
        let at = self.index.get(&name).copied();
        match at.and_then(|at| self.list.get_mut(at)) {
            Some(folded) => folded.add(event),
            None => {
                self.index.insert(name, self.list.len());
                let mut folded = Folded { sum: event.without_details(), calls: 0, failures: 0 };
                folded.add(event);
                self.list.push(folded);
            }
        }
    }

    fn name(event: &Event) -> String {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        [
            event.api_key.clone(),
            text(&event.user),
            text(&event.team),
            text(&event.organization),
            text(&event.end_user),
            event.model.clone(),
            event.model_group.clone(),
            event.provider.clone(),
            event.metered.join("\n"),
        ]
        .join("\n")
    }

    /// The first sums.
    fn take(&mut self, most: usize) -> Vec<Folded> {
        if self.list.is_empty() {
            return Vec::new();
        }
        let rest = self.list.split_off(most.min(self.list.len()));
        let taken = std::mem::replace(&mut self.list, rest);
        // Positions have moved; names are made anew.
        self.index = self.list.iter().enumerate().map(|(at, folded)| (Self::name(&folded.sum), at)).collect();
        taken
    }
}

impl Event {
    /// What is the same for all calls of a sum.
    fn without_details(&self) -> Event {
        Event {
            api_key: self.api_key.clone(),
            user: self.user.clone(),
            team: self.team.clone(),
            organization: self.organization.clone(),
            end_user: self.end_user.clone(),
            model: self.model.clone(),
            model_group: self.model_group.clone(),
            provider: self.provider.clone(),
            metered: self.metered.clone(),
            ..Event::default()
        }
    }
}

impl Folded {
    fn add(&mut self, event: Event) {
        let sum = &mut self.sum;
        sum.spend = sum.spend.saturating_add(event.spend);
        sum.prompt_tokens = sum.prompt_tokens.saturating_add(event.prompt_tokens);
        sum.completion_tokens = sum.completion_tokens.saturating_add(event.completion_tokens);
        sum.total_tokens = sum.total_tokens.saturating_add(event.total_tokens);
        sum.cache_read_tokens = sum.cache_read_tokens.saturating_add(event.cache_read_tokens);
        sum.cache_creation_tokens = sum.cache_creation_tokens.saturating_add(event.cache_creation_tokens);
        sum.start_ms = sum.start_ms.max(event.start_ms);
        sum.end_ms = sum.end_ms.max(event.end_ms);
        self.calls = self.calls.saturating_add(1);
        if event.error.is_some() {
            self.failures = self.failures.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        ledger::{Batch, Change, SyncRequest},
        shared::Memory,
    };

    fn event(id: u64, spend: i64, metered: &[&str]) -> Vec<u8> {
        let metered = metered.iter().map(|name| (*name).to_owned()).collect();
        let event =
            Event { id: format!("c{id}"), api_key: "k".to_owned(), spend, metered, ..Event::default() };
        serde_json::to_vec(&event).unwrap()
    }

    fn sent(sync: &mut Sync, shared: &Memory, now: u64) -> SyncRequest {
        serde_json::from_slice(&sync.request(shared, now).unwrap()).unwrap()
    }

    fn reply(reply: &SyncReply) -> Vec<u8> {
        serde_json::to_vec(reply).unwrap()
    }

    fn memory() -> Memory {
        let shared = Memory::default();
        quota::prepare(&shared);
        changes::prepare(&shared);
        shared
    }

    fn batch(request: &SyncRequest) -> &Batch {
        request.batch.as_ref().unwrap()
    }

    #[test]
    fn a_batch_is_repeated_until_it_is_acknowledged() {
        let shared = memory();
        let mut sync = Sync::open(&shared, "n".to_owned());
        assert!(sent(&mut sync, &shared, 0).batch.is_none());
        assert!(sync.request(&shared, 0).is_none(), "one request at a time");
        sync.on_reply(&reply(&SyncReply { cursor: 7, ..SyncReply::default() }), &shared, 0);
        sync.push(&event(1, 5, &[]));
        let first = sent(&mut sync, &shared, 1);
        assert_eq!((first.cursor, batch(&first).number, batch(&first).events.len()), (7, 1, 1));
        sync.push(&event(2, 5, &[]));
        assert!(sync.on_failure(1).failed);
        assert!(sync.request(&shared, 100).is_none(), "too early");
        assert_eq!(sent(&mut sync, &shared, 201).batch, first.batch);
        let done =
            sync.on_reply(&reply(&SyncReply { acknowledged: 1, ..SyncReply::default() }), &shared, 300);
        assert_eq!(done.acknowledged, 1);
        let second = sent(&mut sync, &shared, 301);
        assert_eq!((batch(&second).number, batch(&second).events[0].id.as_str()), (2, "c2"));
    }

    #[test]
    fn a_lost_vm_goes_on_with_its_batch() {
        let shared = memory();
        let mut sync = Sync::open(&shared, "first".to_owned());
        sync.push(&event(1, 5, &["key:k"]));
        let before = sent(&mut sync, &shared, 0);
        let mut sync = Sync::open(&shared, "second".to_owned());
        let after = sent(&mut sync, &shared, 0);
        assert_eq!((after.node.as_str(), &after.batch), ("first", &before.batch));
        sync.on_reply(&reply(&SyncReply { acknowledged: 1, ..SyncReply::default() }), &shared, 0);
        let sync = Sync::open(&shared, "third".to_owned());
        assert!(sync.under_way.is_none() && sync.number == 1);
    }

    #[test]
    fn what_a_batch_charged_leaves_the_meters_with_it() {
        use quota::{Estimate, Kind, Rule, Worker};
        let shared = memory();
        quota::beat(&shared, Worker(1), 1);
        let rule = Rule {
            kind: Kind::Key,
            meter: Meter::named("key:k"),
            limits: Default::default(),
            max_budget: Some(Money::from_pico(1_000)),
            base: Base { spend: Money::from_pico(100), revision: 1 },
            resets: None,
        };
        let held =
            quota::reserve(&shared, Worker(1), std::slice::from_ref(&rule), Estimate::default(), 1).unwrap();
        held.settle(&shared, 0, Money::from_pico(30), 2);
        let spend = || quota::standing(&shared, &rule, 3).spend.pico();
        assert_eq!(spend(), 130);
        let mut sync = Sync::open(&shared, "n".to_owned());
        sync.push(&event(1, 30, &["key:k"]));
        sent(&mut sync, &shared, 3);
        let total = Change { meter: "key:k".to_owned(), revision: 2, record: false, spend: Some(145) };
        let answer = SyncReply { acknowledged: 1, changes: vec![total], cursor: 2, ..SyncReply::default() };
        sync.on_reply(&reply(&answer), &shared, 4);
        // Another node has spent 15 meanwhile.
        assert_eq!(spend(), 145);
    }

    #[test]
    fn records_that_changed_are_announced() {
        let shared = memory();
        let mut sync = Sync::open(&shared, "n".to_owned());
        sent(&mut sync, &shared, 0);
        let before = changes::mark(&shared);
        let change = |name: &str, record| Change { meter: name.to_owned(), record, ..Change::default() };
        let answer = SyncReply {
            changes: vec![change("key:a", true), change("team:b", false)],
            end_users: true,
            reset: true,
            more: true,
            ..SyncReply::default()
        };
        assert!(sync.on_reply(&reply(&answer), &shared, 0).again);
        let after = changes::mark(&shared);
        assert_eq!((after.count, after.resets, after.end_users), (before.count + 1, before.resets + 1, true));
    }

    #[test]
    fn details_are_dropped_before_spend_is() {
        let shared = memory();
        let mut sync = Sync::open(&shared, "n".to_owned());
        sync.push(&event(0, 1, &["key:k"]));
        sent(&mut sync, &shared, 0);
        for _ in 0..AWAY {
            sync.on_failure(0);
        }
        assert!(sync.wants_events());
        let all = WAITING as u64 + 500;
        for id in 1..=all {
            sync.push(&event(id, 1, &["key:k"]));
        }
        assert_eq!((sync.waiting.len(), sync.dropped()), (WAITING, 500));
        let (mut spend, mut calls, mut now) = (0, 0, 1_000_000);
        for number in 1.. {
            now += 10_000;
            let request = sent(&mut sync, &shared, now);
            let Some(batch) = request.batch else { break };
            assert!(batch.events.len() <= BATCH_EVENTS);
            spend += batch.events.iter().map(|event| event.spend).sum::<i64>();
            spend += batch.folded.iter().map(|folded| folded.sum.spend).sum::<i64>();
            calls += batch.events.len() as u64 + batch.folded.iter().map(|folded| folded.calls).sum::<u64>();
            let done = sync.on_reply(
                &reply(&SyncReply { acknowledged: number, ..SyncReply::default() }),
                &shared,
                now,
            );
            assert!(done.acknowledged > 0);
        }
        assert_eq!((spend, calls), (all as i64 + 1, all + 1));
    }

    #[test]
    fn nonsense_neither_stops_nor_acknowledges() {
        let shared = memory();
        let mut sync = Sync::open(&shared, "n".to_owned());
        sync.push(b"no json");
        sync.push(&event(1, 1, &[]));
        assert_eq!(batch(&sent(&mut sync, &shared, 0)).events.len(), 1);
        assert!(sync.on_reply(b"{", &shared, 0).failed);
        assert!(batch(&sent(&mut sync, &shared, 9_999)).number == 1);
    }
}
