//! Requests of one configuration that wait: for a time, or for the response to a call.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use hashbrown::HashMap;

use super::exchanges::ExchangeRef;
use crate::core::{
    exchange::next::Then,
    host::{CallId, Host, StreamId},
};

/// How often waiting requests (for a free slot at a deployment, `mock_timeout`) are looked at.
pub const TICK: Duration = Duration::from_millis(10);
/// How often the role is called when nothing waits.
pub const IDLE: Duration = Duration::from_secs(1);

/// A request that waits.
pub struct Waiter {
    /// Unix milliseconds.
    pub until_ms: u64,
    pub stream: StreamId,
    pub exchange: ExchangeRef,
}

/// A request that waits for the response to a call.
pub struct Caller {
    pub stream: StreamId,
    pub exchange: ExchangeRef,
    /// What the response is for.
    pub then: Then,
}

/// All of them.
pub struct Waiting {
    list: RefCell<Vec<Waiter>>,
    /// By the call.
    callers: RefCell<HashMap<CallId, Caller>>,
    /// How often the role is called now.
    pace: Cell<Duration>,
}

impl Default for Waiting {
    fn default() -> Waiting {
        Waiting { list: RefCell::default(), callers: RefCell::default(), pace: Cell::new(IDLE) }
    }
}

impl Waiting {
    /// Sees that the role is called so often.
    pub fn pace(&self, host: &impl Host, pace: Duration) {
        if self.pace.replace(pace) != pace {
            host.tick_every(pace);
        }
    }

    /// Sees that it is called at least so often.
    pub fn hurry(&self, host: &impl Host, pace: Duration) {
        self.pace(host, pace.min(self.pace.get()));
    }

    /// Has a request go on after so many milliseconds.
    pub fn add(&self, host: &impl Host, ms: u64, stream: StreamId, exchange: ExchangeRef) {
        self.push(Waiter { until_ms: host.now_ms().saturating_add(ms), stream, exchange });
        self.hurry(host, TICK);
    }

    /// Puts a request behind those who have waited as long: who came first is asked first.
    pub fn push(&self, waiter: Waiter) {
        if let Ok(mut list) = self.list.try_borrow_mut() {
            list.push(waiter);
        }
    }

    /// Takes out whose time has come.
    pub fn due(&self, now_ms: u64) -> Vec<Waiter> {
        let Ok(mut list) = self.list.try_borrow_mut() else { return Vec::new() };
        let (due, later) = std::mem::take(&mut *list).into_iter().partition(|w| w.until_ms <= now_ms);
        *list = later;
        due
    }

    /// Whether nobody waits for a time.
    pub fn is_idle(&self) -> bool {
        self.list.try_borrow().is_ok_and(|list| list.is_empty())
    }

    /// Remembers who made a call.
    pub fn call(&self, call: CallId, caller: Caller) {
        if let Ok(mut callers) = self.callers.try_borrow_mut() {
            callers.insert(call, caller);
        }
    }

    /// Takes out who made a call, once the response is here.
    pub fn caller(&self, call: CallId) -> Option<Caller> {
        self.callers.try_borrow_mut().ok()?.remove(&call)
    }

    /// A stream is over: no response to what it called will come.
    pub fn forget(&self, stream: StreamId) {
        if let Ok(mut callers) = self.callers.try_borrow_mut()
            && !callers.is_empty()
        {
            callers.retain(|_, caller| caller.stream != stream);
        }
    }

    /// How many wait for a time, and for a response.
    #[cfg(test)]
    pub fn counts(&self) -> (usize, usize) {
        (self.list.borrow().len(), self.callers.borrow().len())
    }
}
