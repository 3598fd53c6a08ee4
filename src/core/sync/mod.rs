//! The sync role's memory: usage that goes up in numbered batches, changes that come down.
//!
//! No more than one batch is under way. It stands in shared data until the ledger has acknowledged it, and is repeated without a
//! change until then: a lost VM loses nothing, and nothing counts twice. What waits behind it stays in the host's queue, which
//! survives VMs as well. When the ledger stays away and the queue grows beyond [`WAITING`], its oldest calls are aggregated into
//! sums, and so are those of a batch that the ledger refuses: their details are dropped, their spend never is.
//!
//! | file | what it holds |
//! |---|---|
//! | [`lease`] | which VM does all this |
//! | [`sums`] | calls without their details |

pub mod lease;
pub mod sums;
#[cfg(test)]
mod tests;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::sums::Sums;
use crate::core::{
    access::{changes, trouble},
    codec::json::Object,
    host::Store,
    model::{
        call_record::{CallRecord, MeterCharge},
        meter::Meter,
        money::Money,
        rate::Rate,
        rule::Base,
    },
    protocol::{Aggregated, SyncReply},
    quota,
    route::checks,
};

/// Where the batch under way and its number stand in shared data.
const STATE: &str = "sync/state";
/// Most events of a batch, and most sums.
const BATCH_EVENTS: usize = 1_000;
/// A batch with so many bytes of events takes no more of them.
const BATCH_BYTES: usize = 1 << 20;
/// Most events that wait in the host's queue.
pub const WAITING: u64 = 50_000;
/// Milliseconds between two tries after the first failure, and at most.
const BACK_OFF_MS: (u64, u64) = (200, 2_000);
/// A response that takes longer is one that does not come, as far as operators are told.
const SLOW_MS: u64 = 2_000;
/// So many failures in a row are no accident.
const AWAY: u32 = 2;
/// Most bytes of a reason that are told.
const REASON_BYTES: usize = 200;
/// A response that did not come in this time never will: the host gives up long before.
const LOST_MS: u64 = 60_000;

/// What the role knows.
pub struct Sync {
    node: String,
    number: u64,
    cursor: u64,
    nodes: u64,
    under_way: Option<UnderWay>,
    /// Events of the next batch, and their bytes.
    next: Vec<Box<RawValue>>,
    next_bytes: usize,
    aggregated: Sums,
    failures: u32,
    not_before_ms: u64,
    /// When the request was sent whose response is awaited.
    asked_ms: Option<u64>,
    /// What all workers were told last of the ledger's trouble.
    trouble: Option<String>,
}

/// What became of events that were taken out of the queue. What is no event is in neither number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// So many go with the next batch.
    pub whole: u64,
    /// Of so many the details are dropped; they count in a sum.
    pub aggregated: u64,
}

/// What a reply or a failure comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Calls that the ledger has taken over with this reply.
    pub acknowledged: u64,
    /// Ask again at once: there is more to say or to hear.
    pub again: bool,
    /// The reply made no sense, or none came.
    pub failed: bool,
    /// The ledger refused a batch with so many calls; they count in sums from now on.
    pub aggregated: u64,
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
    /// More was waiting when it was made.
    full: bool,
}

/// The part of a batch that acknowledging it takes.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Charges {
    events: Vec<Charge>,
    #[serde(rename = "folded")]
    aggregated: Vec<AggregatedCharge>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Charge {
    spend: i64,
    #[serde(rename = "metered")]
    budgeted_meters: Vec<String>,
    #[serde(rename = "charged")]
    meter_charges: Vec<MeterCharge>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AggregatedCharge {
    sum: Charge,
    calls: u64,
}

/// The part of a batch that folding it takes. What one version of this program has written another may not know: events are
/// read one by one, and one that cannot be read is in no sum.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refused {
    events: Vec<Box<RawValue>>,
    #[serde(rename = "folded")]
    aggregated: Vec<Aggregated>,
}

/// [`crate::core::protocol::SyncRequest`] around a batch whose text is made already.
#[derive(Serialize)]
struct Request<'r> {
    node: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<&'r RawValue>,
    cursor: u64,
    rates: Vec<Rate>,
}

/// [`crate::core::protocol::Batch`] around events whose text is made already.
#[derive(Serialize)]
struct NewBatch<'b> {
    number: u64,
    events: &'b [Box<RawValue>],
    #[serde(rename = "folded")]
    aggregated: &'b [Aggregated],
}

impl Sync {
    /// Goes on where a lost VM stopped, or begins as the node `fresh`.
    pub fn open(shared: &dyn Store, fresh: String) -> Sync {
        let mut sync = Sync {
            node: fresh,
            number: 0,
            cursor: 0,
            nodes: 1,
            under_way: None,
            next: Vec::new(),
            next_bytes: 0,
            aggregated: Sums::default(),
            failures: 0,
            not_before_ms: 0,
            asked_ms: None,
            trouble: trouble::reason(shared),
        };
        if !sync.resume(shared) {
            sync.keep(shared);
        }
        sync
    }

    /// Goes on where another VM stopped. False when there is nothing to go on with.
    pub fn resume(&mut self, shared: &dyn Store) -> bool {
        let kept = shared.get(STATE).and_then(|(bytes, _)| serde_json::from_slice::<State>(&bytes).ok());
        let Some(State { node, number, batch }) = kept else { return false };
        (self.node, self.number) = (node, number);
        self.under_way = batch.map(|text| UnderWay::of(text, false));
        // What the other heard meanwhile is in shared data; hearing it again changes nothing.
        (self.asked_ms, self.not_before_ms) = (None, 0);
        true
    }

    /// Whether an event is to be taken out of the host's queue, in which `queued` are: for a batch that is about to go, or
    /// because too many wait.
    pub fn wants_event(&self, queued: u64, now_ms: u64) -> bool {
        self.has_room(now_ms) || queued > WAITING
    }

    /// Takes events that came together out of the queue: [`CallRecord`]s in JSON, a line each. They stay together.
    pub fn push(&mut self, events: &[u8], now_ms: u64) -> Taken {
        let mut taken = Taken::default();
        let has_room = self.has_room(now_ms);
        for event in events.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            // What is no JSON could never be acknowledged.
            if has_room && let Ok(event) = serde_json::from_slice::<Box<RawValue>>(event) {
                self.next_bytes = self.next_bytes.saturating_add(event.get().len());
                self.next.push(event);
                taken.whole += 1;
            } else if !has_room && let Ok(event) = serde_json::from_slice::<CallRecord>(event) {
                self.aggregated.add(&event);
                taken.aggregated += 1;
            }
        }
        taken
    }

    /// A batch can be made now, and would take one more.
    fn has_room(&self, now_ms: u64) -> bool {
        self.is_due(now_ms)
            && self.under_way.is_none()
            && self.next.len() < BATCH_EVENTS
            && self.next_bytes < BATCH_BYTES
    }

    /// No response is awaited, and it is not too early after a failure.
    fn is_due(&self, now_ms: u64) -> bool {
        let awaits = self.asked_ms.is_some_and(|asked| now_ms.saturating_sub(asked) < LOST_MS);
        !awaits && now_ms >= self.not_before_ms
    }

    /// What to send now, if anything. The caller says [`Sync::on_reply`] or [`Sync::on_failure`] for every request.
    pub fn request(&mut self, shared: &dyn Store, now_ms: u64) -> Option<Vec<u8>> {
        if self.asked_ms.is_some_and(|asked| now_ms.saturating_sub(asked) >= SLOW_MS) {
            self.tell(shared, Some(SILENT));
        }
        if !self.is_due(now_ms) {
            return None;
        }
        if self.under_way.is_none() {
            self.begin_batch(shared);
        }
        let rates = if self.nodes > 1 { quota::open_rates(shared, now_ms) } else { Vec::new() };
        let batch = self.under_way.as_ref().map(|batch| &*batch.text);
        let body =
            serde_json::to_vec(&Request { node: &self.node, batch, cursor: self.cursor, rates }).ok()?;
        self.asked_ms = Some(now_ms);
        Some(body)
    }

    /// Makes a batch, and keeps it in shared data before it is sent for the first time.
    fn begin_batch(&mut self, shared: &dyn Store) {
        let aggregated = self.aggregated.take(BATCH_EVENTS);
        if self.next.is_empty() && aggregated.is_empty() {
            return;
        }
        let full =
            self.next.len() >= BATCH_EVENTS || self.next_bytes >= BATCH_BYTES || !self.aggregated.is_empty();
        let number = self.number.saturating_add(1);
        let batch = NewBatch { number, events: &self.next, aggregated: &aggregated };
        let Ok(text) = serde_json::value::to_raw_value(&batch) else { return };
        self.number = number;
        self.next.clear();
        self.next_bytes = 0;
        self.under_way = Some(UnderWay::of(text, full));
        self.keep(shared);
    }

    fn keep(&self, shared: &dyn Store) {
        let batch = self.under_way.as_ref().map(|batch| batch.text.clone());
        let state = State { node: self.node.clone(), number: self.number, batch };
        if let Ok(bytes) = serde_json::to_vec(&state) {
            shared.set(STATE, &bytes, None);
        }
    }

    /// The ledger has answered with a 200.
    pub fn on_reply(&mut self, body: &[u8], shared: &dyn Store, now_ms: u64) -> Outcome {
        let Ok(reply) = serde_json::from_slice::<SyncReply>(body) else {
            return self.on_failure(shared, now_ms);
        };
        self.tell(shared, None);
        self.asked_ms = None;
        self.failures = 0;
        self.not_before_ms = 0;
        self.nodes = reply.nodes.max(1);
        let settled = self.settle(&reply, shared);
        self.follow(&reply, shared, now_ms);
        Outcome {
            acknowledged: settled.as_ref().map_or(0, |batch| batch.calls),
            again: reply.more || settled.is_some_and(|batch| batch.full),
            ..Outcome::default()
        }
    }

    /// The batch under way is the ledger's when it says so: what it charged is in the totals that come with the reply.
    fn settle(&mut self, reply: &SyncReply, shared: &dyn Store) -> Option<UnderWay> {
        if reply.acknowledged < self.number {
            return None;
        }
        let batch = self.under_way.take()?;
        self.keep(shared);
        let totals: HashMap<&str, Base> = reply
            .changes
            .iter()
            .filter_map(|change| {
                let spend = Money::from_pico(change.spend?.into());
                Some((change.meter.as_str(), Base { spend, revision: change.revision }))
            })
            .collect();
        for (name, spent) in &batch.charges {
            let total = totals.get(name.as_str()).copied();
            quota::synced(shared, &Meter::named(name), Money::from_pico((*spent).into()), total);
        }
        Some(batch)
    }

    /// What changed in the ledger, here or elsewhere.
    fn follow(&mut self, reply: &SyncReply, shared: &dyn Store, now_ms: u64) {
        for change in &reply.changes {
            if let Some(spend) = change.spend {
                let (meter, spend) = (Meter::named(&change.meter), Money::from_pico(spend.into()));
                let is_place =
                    change.meter.starts_with("deployment:") || change.meter.starts_with("provider:");
                match is_place {
                    true => quota::know(shared, &meter, spend, change.revision, now_ms),
                    false => quota::rebase(shared, &meter, spend, change.revision),
                }
            }
        }
        let records = reply.changes.iter().filter(|change| change.record);
        let changed = records.map(|change| {
            let revision = match change.record_revision {
                0 => change.revision,
                revision => revision,
            };
            (change.meter.as_str(), revision)
        });
        changes::announce_as_of(shared, changed);
        if reply.reset {
            changes::reset(shared);
        }
        changes::set_end_users(shared, reply.end_users);
        if self.nodes > 1 {
            quota::set_remote(shared, &reply.rates, now_ms);
        }
        if let Some(health) = &reply.health {
            checks::note(shared, &health.failing, now_ms.saturating_add(health.valid_ms));
        }
        self.cursor = reply.cursor;
    }

    /// Tells all workers of the ledger's trouble, when it is news.
    fn tell(&mut self, shared: &dyn Store, reason: Option<&str>) {
        if self.trouble.as_deref() != reason {
            trouble::set(shared, reason);
            self.trouble = reason.map(str::to_owned);
        }
    }

    /// No response came, or one that is not a 200.
    pub fn on_failure(&mut self, shared: &dyn Store, now_ms: u64) -> Outcome {
        let outcome = self.fail(now_ms);
        if self.failures >= AWAY {
            self.tell(shared, Some(SILENT));
        }
        outcome
    }

    fn fail(&mut self, now_ms: u64) -> Outcome {
        self.asked_ms = None;
        self.failures = self.failures.saturating_add(1);
        let (first, most) = BACK_OFF_MS;
        let doubled = first << self.failures.saturating_sub(1).min(16);
        self.not_before_ms = now_ms.saturating_add(doubled.min(most));
        Outcome { failed: true, ..Outcome::default() }
    }

    /// The ledger has answered, with another status than 200 and this body.
    pub fn on_status(&mut self, status: u16, body: &[u8], shared: &dyn Store, now_ms: u64) -> Outcome {
        match reason(body).filter(|_| status == 503) {
            Some(reason) => self.tell(shared, Some(&reason)),
            None if self.failures >= 1 => self.tell(shared, Some(SILENT)),
            None => {}
        }
        // What is wrong with a batch is wrong with it the next time too, and all that comes later waits behind it.
        let aggregated = if matches!(status, 400 | 413 | 422) { self.aggregate(shared) } else { 0 };
        Outcome { aggregated, ..self.fail(now_ms) }
    }

    /// Makes sums of the batch under way. It keeps its number: the ledger has not taken it.
    fn aggregate(&mut self, shared: &dyn Store) -> u64 {
        let Some(batch) = &mut self.under_way else { return 0 };
        let refused: Refused = serde_json::from_str(batch.text.get()).unwrap_or_default();
        if refused.events.is_empty() {
            return 0;
        }
        let mut sums = Sums::default();
        let events = refused.events.iter().filter_map(|event| serde_json::from_str(event.get()).ok());
        events.for_each(|event| sums.add(&event));
        let mut aggregated = refused.aggregated;
        aggregated.append(&mut sums.take(usize::MAX));
        let new = NewBatch { number: self.number, events: &[], aggregated: &aggregated };
        let Ok(text) = serde_json::value::to_raw_value(&new) else { return 0 };
        *batch = UnderWay::of(text, batch.full);
        self.keep(shared);
        refused.events.len() as u64
    }

    /// How many requests in a row have failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// What a ledger without words is said to do.
const SILENT: &str = "the ledger does not answer";

/// What the ledger says is wrong: the first part of its error's message, up to what it says is to be done.
fn reason(body: &[u8]) -> Option<String> {
    let object = Object::parse(body).ok()?;
    let error = Object::parse(object.raw("error")?.as_bytes()).ok()?;
    let message: String = error.read("message")?;
    let first = message.split([';', '.']).next().unwrap_or_default();
    Some(first.get(..first.floor_char_boundary(REASON_BYTES)).unwrap_or_default().to_owned())
}

impl UnderWay {
    fn of(text: Box<RawValue>, full: bool) -> UnderWay {
        let read = serde_json::from_str::<Charges>(text.get()).unwrap_or_default();
        let calls =
            read.aggregated.iter().fold(read.events.len() as u64, |calls, f| calls.saturating_add(f.calls));
        let mut charges: HashMap<String, i64> = HashMap::new();
        for charge in
            read.events.into_iter().chain(read.aggregated.into_iter().map(|aggregated| aggregated.sum))
        {
            let whole = charge.budgeted_meters.into_iter().map(|name| (name, charge.spend));
            let parts = charge.meter_charges.into_iter().map(|charged| (charged.meter, charged.spend));
            for (name, spend) in whole.chain(parts) {
                let total = charges.entry(name).or_default();
                *total = total.saturating_add(spend);
            }
        }
        UnderWay { text, calls, charges, full }
    }
}
