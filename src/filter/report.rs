//! Usage events on their way from a worker to the sync role.
//!
//! Every value that is put into the queue wakes Envoy's main thread, which under load costs more than all else that is done for
//! an event. So the first event in a while goes at once, and those that come soon after it wait in this VM, for [`EVERY`] at
//! most, to go together. A VM that is about to be lost sends them first.

use std::{
    cell::{Cell, RefCell},
    panic,
    time::Duration,
};

use super::{host, sync};
use crate::core::ledger::Event;

/// How often events go.
pub const EVERY: Duration = Duration::from_millis(50);
/// So many bytes go at once.
const FULL: usize = 32 * 1024;
/// So many refused calls are told of in a second: whoever is refused can be so by the thousand, and each would be a row.
const REFUSALS: u32 = 50;
/// Counter of refused calls that were not told of.
const UNTOLD: &str = "tollgate_refusals_untold";
/// Counter of events that found no queue.
const LOST: &str = "tollgate_events_lost";

thread_local! {
    static WAITING: RefCell<Waiting> = const { RefCell::new(Waiting { lines: Vec::new(), count: 0, sent_ms: 0 }) };
    /// The queue, once it is found.
    static QUEUE: Cell<Option<u32>> = const { Cell::new(None) };
    /// The counters of events that were put into it and of those that were not, once they are known.
    static COUNTERS: Cell<[Option<u32>; 2]> = const { Cell::new([None; 2]) };
}

struct Waiting {
    /// Events in JSON, a line each.
    lines: Vec<u8>,
    count: u64,
    sent_ms: u64,
}

thread_local! {
    /// The second, and how many refused calls were told of in it.
    static REFUSED: Cell<(u64, u32)> = const { Cell::new((0, 0)) };
}

/// Whether a refused call is told of.
fn may_tell(now_ms: u64) -> bool {
    let (second, count) = match REFUSED.get() {
        (second, count) if second == now_ms / 1_000 => (second, count),
        _ => (now_ms / 1_000, 0),
    };
    REFUSED.set((second, count.saturating_add(1)));
    count < REFUSALS
}

/// Gives an event to the sync role. True: it waits, and [`flush`] is to be called in time.
pub fn report(event: &Event, now_ms: u64) -> bool {
    if event.refused && !may_tell(now_ms) {
        if let Some(id) = host::counter(UNTOLD) {
            host::count(id, 1);
        }
        return false;
    }
    let waits = WAITING.try_with(|waiting| {
        let Ok(mut waiting) = waiting.try_borrow_mut() else { return false };
        event.write_json(&mut waiting.lines);
        waiting.lines.push(b'\n');
        waiting.count = waiting.count.saturating_add(1);
        let is_quiet = now_ms.abs_diff(waiting.sent_ms) >= u64::try_from(EVERY.as_millis()).unwrap_or(0);
        !is_quiet && waiting.lines.len() < FULL
    });
    let waits = waits.unwrap_or(false);
    if !waits {
        flush(now_ms);
    }
    waits
}

/// Sends what waits. True when there was something.
pub fn flush(now_ms: u64) -> bool {
    let sent = WAITING.try_with(|waiting| {
        let mut waiting = waiting.try_borrow_mut().ok()?;
        let count = std::mem::take(&mut waiting.count);
        if count == 0 {
            return None;
        }
        waiting.sent_ms = now_ms;
        let queue = QUEUE.get().or_else(|| host::find_queue(sync::VM, sync::QUEUE));
        QUEUE.set(queue);
        let kept = queue.is_some_and(|queue| host::enqueue(queue, &waiting.lines));
        waiting.lines.clear();
        Some((kept, count))
    });
    let Some((kept, count)) = sent.ok().flatten() else { return false };
    let mut counters = COUNTERS.get();
    let (name, at) = if kept { (sync::ENQUEUED, 0) } else { (LOST, 1) };
    if let Some(counter) = counters.get_mut(at) {
        *counter = counter.or_else(|| host::counter(name));
        counter.inspect(|id| host::count(*id, count));
    }
    COUNTERS.set(counters);
    true
}

/// From now on a panic sends what waits before it takes the VM with it.
pub fn flush_when_lost() {
    let told = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        flush(host::now_ms());
        told(info);
    }));
}
