//! The sync role: one VM for the whole process, on Envoy's main thread. Several times a second it tells the ledger what was used
//! and hears what changed. What is told and what is made of the answer is [`core::sync`](crate::core::sync)'s business.

use std::time::Duration;

use super::{fault, host, metrics::Metrics};
use crate::core::{
    access::changes,
    ledger::{CLUSTER, KEY_VARIABLE, SYNC_PATH},
    quota,
    random::Random,
    sync::{Kept, Outcome, Sync},
};

/// The queue of usage events.
pub const QUEUE: &str = "tollgate.usage";
/// `vm_id` of all roles, by which their VMs share data and queues.
pub const VM: &str = "tollgate";
/// Counter of events that were put into the queue.
pub const ENQUEUED: &str = "tollgate_events_enqueued";
/// How long an answer may take. The next request waits for it.
const LIMIT: Duration = Duration::from_secs(10);
/// How often, unless the configuration says otherwise.
const INTERVAL: Duration = Duration::from_millis(250);
/// Most events that are taken out of the queue at a time: this is Envoy's main thread.
const AT_A_TIME: usize = 5_000;
/// So many failures in a row are worth a line in the log.
const AWAY: u32 = 5;

/// The role.
pub struct Role {
    sync: Sync,
    queue: u32,
    bearer: String,
    metrics: Metrics,
    /// What [`ENQUEUED`] says less this are in the queue.
    gone: Option<u64>,
    /// The log says that the ledger is away.
    told: bool,
}

impl Role {
    /// Begins. The configuration is the interval in milliseconds. `None` without the ledger's secret.
    pub fn configure() -> Option<Role> {
        let Ok(secret) = std::env::var(KEY_VARIABLE) else {
            host::error("tollgate: the sync role has no secret: TOLLGATE_LEDGER_KEY is not set");
            return None;
        };
        let configured = String::from_utf8(host::plugin_configuration()).ok();
        let interval = configured.and_then(|text| text.trim().parse().ok()).map(Duration::from_millis);
        let shared = &host::SharedData;
        quota::prepare(shared);
        changes::prepare(shared);
        let node = Random::new(super::exchanges::seed()).uuid();
        let role = Role {
            sync: Sync::open(shared, node),
            queue: host::make_queue(QUEUE)?,
            bearer: format!("Bearer {secret}"),
            metrics: Metrics::default(),
            gone: None,
            told: false,
        };
        host::tick_every(interval.unwrap_or(INTERVAL).max(Duration::from_millis(10)));
        Some(role)
    }

    /// Time to talk.
    pub fn tick(&mut self) {
        fault::strike_shared("sync");
        let now = host::now_ms();
        self.drain(now);
        let Some(body) = self.sync.request(&host::SharedData, now) else { return };
        let headers = [
            (":method", "POST"),
            (":path", SYNC_PATH),
            (":authority", CLUSTER),
            ("content-type", "application/json"),
            ("authorization", self.bearer.as_str()),
        ];
        if host::call(CLUSTER, &headers, Some(&body), LIMIT).is_none() {
            let outcome = self.sync.on_failure(now);
            self.count(outcome, 0);
        }
    }

    /// Takes out of the queue what goes with the next batch, and what is too much in it.
    fn drain(&mut self, now: u64) {
        let enqueued = self.metrics.value(ENQUEUED).unwrap_or(0);
        // A VM that was lost did not say how many it took out: what was there before this one counts when it is seen.
        let mut gone = self.gone.unwrap_or(enqueued);
        let mut folded = 0;
        for _ in 0..AT_A_TIME {
            if !self.sync.wants_event(enqueued.saturating_sub(gone), now) {
                break;
            }
            let Some(event) = host::dequeue(self.queue) else {
                gone = enqueued;
                break;
            };
            gone = gone.saturating_add(1);
            if self.sync.push(&event, now) == Kept::Folded {
                folded += 1;
            }
        }
        self.gone = Some(gone);
        self.metrics.add("tollgate_events_dropped", folded);
    }

    /// The ledger has answered, or not.
    pub fn on_answer(&mut self, headers: usize, body: usize) {
        let now = host::now_ms();
        let (status, outcome) = match host::call_answer(headers, body) {
            Some((200, body)) => (200, self.sync.on_reply(&body, &host::SharedData, now)),
            Some((status, _)) => (status, self.sync.on_failure(now)),
            None => (0, self.sync.on_failure(now)),
        };
        self.count(outcome, status);
        if outcome.again {
            self.tick();
        }
    }

    /// Counts, and says in the log when the ledger goes away and when it is back.
    fn count(&mut self, outcome: Outcome, status: u16) {
        self.metrics.add("tollgate_events_acknowledged", outcome.acknowledged);
        self.metrics.add("tollgate_sync_failures", u64::from(outcome.failed));
        self.metrics.add("tollgate_syncs", u64::from(!outcome.failed));
        self.metrics.add("tollgate_sync_batches", u64::from(outcome.acknowledged > 0));
        if self.sync.failures() >= AWAY && !self.told {
            self.told = true;
            let what = match status {
                0 => "does not answer".to_owned(),
                200 => "answers what makes no sense".to_owned(),
                status => format!("answers with status {status}"),
            };
            host::warn(&format!("tollgate: the ledger {what}; usage waits for it"));
        } else if self.told && !outcome.failed {
            self.told = false;
            host::warn("tollgate: the ledger answers again");
        }
    }
}
