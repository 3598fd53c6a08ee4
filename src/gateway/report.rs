//! Usage events on their way from a worker to the sync role.
//!
//! Every value that is put into the queue wakes Envoy's main thread, which under load costs more than all else that is done for
//! an event. So the first event in a while goes at once, and those that come soon after it wait in this worker, for [`EVERY`] at
//! most, to go together. A worker that is about to be lost sends them first.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use super::sync;
use crate::core::{
    host::{Host, Metric, QueueId},
    model::call_record::CallRecord,
};

/// How often events go.
pub const EVERY: Duration = Duration::from_millis(50);
/// So many bytes go at once.
const FULL: usize = 32 * 1024;
/// So many refused calls are told of in a second: one client's can be thousands, and each would be a row.
const REFUSALS: u32 = 50;
/// Counter of refused calls that were not told of.
const UNTOLD: &str = "tollgate_refusals_untold";
/// Counter of events that found no queue.
const LOST: &str = "tollgate_events_lost";

/// The events of one worker.
#[derive(Default)]
pub struct Reports {
    waiting: RefCell<Waiting>,
    /// The queue, once it is found.
    queue: Cell<Option<QueueId>>,
    /// The second, and how many refused calls were told of in it.
    refused: Cell<(u64, u32)>,
}

#[derive(Default)]
struct Waiting {
    /// Events in JSON, a line each.
    lines: Vec<u8>,
    count: u64,
    sent_ms: u64,
}

impl Reports {
    /// Gives an event to the sync role. True: it waits, and [`Reports::flush`] is to be called in time.
    pub fn report(&self, host: &impl Host, event: &CallRecord, now_ms: u64) -> bool {
        if event.refused && !self.may_tell(now_ms) {
            count(host, UNTOLD, 1);
            return false;
        }
        let waits = self.waiting.try_borrow_mut().is_ok_and(|mut waiting| {
            event.write_event(&mut waiting.lines);
            waiting.lines.push(b'\n');
            waiting.count = waiting.count.saturating_add(1);
            let is_quiet = now_ms.abs_diff(waiting.sent_ms) >= u64::try_from(EVERY.as_millis()).unwrap_or(0);
            host.queue_wakes() && !is_quiet && waiting.lines.len() < FULL
        });
        if !waits {
            self.flush(host, now_ms);
        }
        waits
    }

    /// Whether a refused call is told of.
    fn may_tell(&self, now_ms: u64) -> bool {
        let (second, count) = match self.refused.get() {
            (second, count) if second == now_ms / 1_000 => (second, count),
            _ => (now_ms / 1_000, 0),
        };
        self.refused.set((second, count.saturating_add(1)));
        count < REFUSALS
    }

    /// Sends what waits. True when there was something.
    pub fn flush(&self, host: &impl Host, now_ms: u64) -> bool {
        let Ok(mut waiting) = self.waiting.try_borrow_mut() else { return false };
        let calls = std::mem::take(&mut waiting.count);
        if calls == 0 {
            return false;
        }
        waiting.sent_ms = now_ms;
        let queue = self.queue.get().or_else(|| host.find_queue(sync::QUEUE));
        self.queue.set(queue);
        let kept = queue.is_some_and(|queue| host.enqueue(queue, &waiting.lines));
        waiting.lines.clear();
        count(host, if kept { sync::ENQUEUED } else { LOST }, calls);
        true
    }

    /// Whether no hook has them in hand.
    #[cfg(test)]
    pub fn is_free(&self) -> bool {
        self.waiting.try_borrow_mut().is_ok()
    }
}

fn count(host: &impl Host, name: &str, by: u64) {
    if let Some(id) = host.metric(Metric::Counter, name) {
        host.add(id, by);
    }
}
