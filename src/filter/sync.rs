//! The sync role: one VM for the whole process, on Envoy's main thread. Several times a second it tells the ledger what was used
//! and hears what changed. What is told and what is made of the answer is [`core::sync`](crate::core::sync)'s business.

use std::time::Duration;

use super::{host, metrics::Metrics};
use crate::core::{
    access::changes,
    ledger::{CLUSTER, KEY_VARIABLE},
    quota,
    random::Random,
    sync::{Outcome, Sync},
};

/// The queue of usage events.
pub const QUEUE: &str = "tollgate.usage";
/// `vm_id` of all roles, by which their VMs share data and queues.
pub const VM: &str = "tollgate";
/// How long an answer may take. The next request waits for it.
const LIMIT: Duration = Duration::from_secs(10);
/// How often, unless the configuration says otherwise.
const INTERVAL: Duration = Duration::from_millis(250);

/// The role.
pub struct Role {
    sync: Sync,
    queue: u32,
    bearer: String,
    metrics: Metrics,
    dropped: u64,
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
            dropped: 0,
        };
        host::tick_every(interval.unwrap_or(INTERVAL).max(Duration::from_millis(10)));
        Some(role)
    }

    /// Time to talk.
    pub fn tick(&mut self) {
        while self.sync.wants_events() {
            let Some(event) = host::dequeue(self.queue) else { break };
            self.sync.push(&event);
        }
        self.metrics.add("tollgate_events_dropped", self.sync.dropped().saturating_sub(self.dropped));
        self.dropped = self.sync.dropped();
        let now = host::now_ms();
        let Some(body) = self.sync.request(&host::SharedData, now) else { return };
        let headers = [
            (":method", "POST"),
            (":path", "/internal/sync"),
            (":authority", CLUSTER),
            ("content-type", "application/json"),
            ("authorization", self.bearer.as_str()),
        ];
        if host::call(CLUSTER, &headers, Some(&body), LIMIT).is_none() {
            let outcome = self.sync.on_failure(now);
            self.count(outcome);
        }
    }

    /// The ledger has answered, or not.
    pub fn on_answer(&mut self, headers: usize, body: usize) {
        let outcome = match host::call_answer(headers, body) {
            Some((200, body)) => self.sync.on_reply(&body, &host::SharedData, host::now_ms()),
            _ => self.sync.on_failure(host::now_ms()),
        };
        self.count(outcome);
        if outcome.again {
            self.tick();
        }
    }

    fn count(&self, outcome: Outcome) {
        self.metrics.add("tollgate_events_acknowledged", outcome.acknowledged);
        self.metrics.add("tollgate_sync_failures", u64::from(outcome.failed));
        self.metrics.add("tollgate_syncs", u64::from(!outcome.failed));
    }
}
