//! The sync role: several times a second it tells the ledger what was used and hears what changed. What is logged_outage and what is made
//! of the response is [`core::sync`](crate::core::sync)'s business.
//!
//! It runs once for the whole process, on Envoy's main thread, so that no worker is kept from requests. When it is lost, as a VM
//! can be that Envoy does not make anew, a worker takes over: all stand by.

use std::{rc::Rc, time::Duration};

use super::{fault, worker::Worker};
use crate::core::{
    host::{CallResponse, Callout, Host, Level, QueueId},
    protocol::{INTERNAL_CLUSTER, KEY_VARIABLE, SYNC_PATH},
    random::Random,
    sync::{
        Outcome, Sync,
        lease::{self, Lease},
    },
};

/// The queue of usage events.
pub const QUEUE: &str = "tollgate.usage";
/// Counter of events that were put into the queue.
pub const ENQUEUED: &str = "tollgate_events_enqueued";
/// How long a response may take. The next request waits for it.
const LIMIT: Duration = Duration::from_secs(10);
/// How often, unless the configuration says otherwise.
const INTERVAL_MS: u64 = 250;
/// How often the lease is renewed at least.
const RENEW: Duration = Duration::from_secs(1);
/// Most events that are taken out of the queue in one tick: this is Envoy's main thread.
const AT_A_TIME: u64 = 5_000;
/// So many failures in a row are worth a line in the log.
const AWAY: u32 = 5;

/// The role.
pub struct SyncRole<H: Host> {
    worker: Rc<Worker<H>>,
    sync: Sync,
    queue: QueueId,
    /// What [`ENQUEUED`] says less this are in the queue.
    dequeued: Option<u64>,
    /// The log says that the ledger is away.
    logged_outage: bool,
    /// Names it in the lease.
    id: u64,
    interval_ms: u64,
    /// When to talk again.
    next_ms: u64,
}

impl<H: Host> SyncRole<H> {
    /// Begins in a worker of its own. The configuration is the interval in milliseconds. `None` without the ledger's secret.
    pub fn configure(worker: &Rc<Worker<H>>) -> Option<SyncRole<H>> {
        let host = &worker.host;
        let configured = String::from_utf8(host.configuration()).ok();
        let interval_ms = configured.and_then(|text| text.trim().parse().ok());
        worker.prepare();
        let queue = host.make_queue(QUEUE);
        let role = queue.and_then(|queue| SyncRole::begin(worker, queue, interval_ms));
        match &role {
            Some(role) => host.tick_every(Duration::from_millis(role.interval_ms).min(RENEW)),
            None => host
                .log(Level::Error, "tollgate: the sync role has no secret: TOLLGATE_LEDGER_KEY is not set"),
        }
        role
    }

    /// Stands by in a worker that has other roles, and ticks about once a second. `None` without a ledger.
    pub fn stand_by(worker: &Rc<Worker<H>>, interval_ms: Option<u64>) -> Option<SyncRole<H>> {
        let host = &worker.host;
        SyncRole::begin(worker, host.find_queue(QUEUE).or_else(|| host.make_queue(QUEUE))?, interval_ms)
    }

    fn begin(worker: &Rc<Worker<H>>, queue: QueueId, interval_ms: Option<u64>) -> Option<SyncRole<H>> {
        let host = &worker.host;
        host.variable(KEY_VARIABLE).filter(|secret| !secret.is_empty())?;
        lease::prepare(host.store());
        let mut random = Random::new(host.random());
        Some(SyncRole {
            worker: Rc::clone(worker),
            sync: Sync::open(host.store(), random.uuid()),
            queue,
            dequeued: None,
            logged_outage: false,
            id: random.bits() | 1,
            interval_ms: interval_ms.unwrap_or(INTERVAL_MS).max(10),
            next_ms: 0,
        })
    }

    /// Whether talking is up to this worker. What another one did in between is read.
    fn is_holder(&mut self, now: u64) -> bool {
        match lease::hold(self.worker.host.store(), self.id, now) {
            Lease::Kept => true,
            Lease::Taken => {
                self.sync.resume(self.worker.host.store());
                true
            }
            Lease::Other => false,
        }
    }

    /// Time to look whether it is time to talk.
    pub fn tick(&mut self) {
        let now = self.worker.host.now_ms();
        if !self.is_holder(now) {
            return;
        }
        fault::inject_shared(self.worker.host.store(), "sync");
        // A tick may come a little early.
        if now.saturating_add(5) >= self.next_ms || now.saturating_add(self.interval_ms) < self.next_ms {
            self.next_ms = now.saturating_add(self.interval_ms);
            self.talk(now);
        }
    }

    fn talk(&mut self, now: u64) {
        self.drain(now);
        let worker = Rc::clone(&self.worker);
        let Some(body) = self.sync.request(worker.host.store(), now) else { return };
        let headers = [
            (":method", "POST"),
            (":path", SYNC_PATH),
            (":authority", INTERNAL_CLUSTER),
            ("content-type", "application/json"),
            ("authorization", worker.bearer()),
        ];
        let callout =
            Callout { cluster: INTERNAL_CLUSTER, headers: &headers, body: Some(&body), limit: LIMIT };
        if worker.host.call(&callout).is_none() {
            let outcome = self.sync.on_failure(worker.host.store(), now);
            self.count(outcome, None);
        }
    }

    /// Takes out of the queue what goes with the next batch, and what is too much in it.
    fn drain(&mut self, now: u64) {
        let enqueued = self.worker.counted(ENQUEUED).unwrap_or(0);
        // A worker that was lost did not say how many it took out: what was there before this one counts when it is seen.
        let mut dequeued = self.dequeued.unwrap_or(enqueued);
        let mut aggregated = 0;
        let mut seen = 0;
        while seen < AT_A_TIME {
            if !self.sync.wants_event(enqueued.saturating_sub(dequeued), now) {
                break;
            }
            let Some(events) = self.worker.host.dequeue(self.queue) else {
                dequeued = enqueued;
                break;
            };
            let taken = self.sync.push(&events, now);
            dequeued = dequeued.saturating_add(taken.whole).saturating_add(taken.aggregated);
            // What is no event is looked at too.
            seen += taken.whole.saturating_add(taken.aggregated).max(1);
            aggregated += taken.aggregated;
        }
        self.dequeued = Some(dequeued);
        self.worker.count("tollgate_events_dropped", aggregated);
    }

    /// The ledger has answered, or not.
    pub fn on_called(&mut self, response: Option<CallResponse>) {
        let now = self.worker.host.now_ms();
        // The VM that has taken over has settled the batch, or will.
        if !self.is_holder(now) {
            return;
        }
        let store = self.worker.host.store();
        let (status, outcome) = match response {
            Some(CallResponse { status: 200, body }) => (Some(200), self.sync.on_reply(&body, store, now)),
            Some(CallResponse { status, body }) => {
                (Some(status), self.sync.on_status(status, &body, store, now))
            }
            None => (None, self.sync.on_failure(store, now)),
        };
        self.count(outcome, status);
        if outcome.again {
            self.talk(now);
        }
    }

    /// Counts, and says in the log when the ledger goes away and when it is back.
    fn count(&mut self, outcome: Outcome, status: Option<u16>) {
        self.worker.count("tollgate_events_acknowledged", outcome.acknowledged);
        self.worker.count("tollgate_events_dropped", outcome.aggregated);
        self.worker.count("tollgate_sync_failures", u64::from(outcome.failed));
        self.worker.count("tollgate_syncs", u64::from(!outcome.failed));
        self.worker.count("tollgate_sync_batches", u64::from(outcome.acknowledged > 0));
        if let (true, Some(status)) = (outcome.aggregated > 0, status) {
            self.warn(&format!(
                "tollgate: the ledger refused a batch of calls with status {status}; their sums are kept, their details dropped"
            ));
        }
        if self.sync.failures() >= AWAY && !self.logged_outage {
            self.logged_outage = true;
            let what = match status {
                None => "does not answer".to_owned(),
                Some(200) => "answers what makes no sense".to_owned(),
                Some(status) => format!("answers with status {status}"),
            };
            self.warn(&format!("tollgate: the ledger {what}; usage waits for it"));
        } else if self.logged_outage && !outcome.failed {
            self.logged_outage = false;
            self.warn("tollgate: the ledger answers again");
        }
    }
    fn warn(&self, message: &str) {
        self.worker.host.log(Level::Warn, message);
    }
}
