//! Wakes requests that wait for a time. Envoy gives filters no timer on their worker, so one thread of ours pokes, every
//! [`TICK`], one stream of each worker that has such requests; that one's hook looks after all of them.

#![allow(unsafe_code, reason = "Envoy's functions are called here")]

use std::{
    cell::RefCell,
    sync::{
        Arc, Condvar, Mutex, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::{
    abi::{self, Opaque},
    filter::Filter,
    host::HttpStream,
    later, roles,
    store::lock,
};
use crate::{
    core::host::{Stream, StreamId},
    gateway::TICK,
};

/// A stream that is poked.
struct Alarm {
    scheduler: Opaque,
    /// Whether the stream has been poked and its hook has not run yet.
    is_due: Arc<AtomicBool>,
}

// SAFETY: Envoy's schedulers are made for use from any thread.
unsafe impl Send for Alarm {}

/// The streams that are poked, at most one of each worker.
static ALARMS: Mutex<Vec<Alarm>> = Mutex::new(Vec::new());
/// Tells the thread that there is one.
static ADDED: Condvar = Condvar::new();

thread_local! {
    /// This worker's.
    static ARMED: RefCell<Option<Armed>> = const { RefCell::new(None) };
}

struct Armed {
    stream: StreamId,
    scheduler: Opaque,
    is_due: Arc<AtomicBool>,
}

/// Sees that this worker is woken if one of its requests waits. A hook of `filter` has just run.
pub fn look(filter: &Filter) {
    if filter.policy().is_some_and(|policy| policy.has_waiting()) {
        arm(filter.stream());
    }
}

/// A stream is over: if it was the one that is poked, another takes its place.
pub fn leave(stream: StreamId) {
    let was_it = ARMED.with_borrow(|armed| armed.as_ref().is_some_and(|armed| armed.stream == stream));
    if !was_it {
        return;
    }
    disarm();
    let waits = |filter: &Filter| {
        filter.stream().id() != stream && filter.policy().is_some_and(|policy| policy.has_waiting())
    };
    if let Some(other) = later::any_stream(waits) {
        arm(&other);
    }
}

/// The stream that is poked has its hook.
pub fn woken() {
    ARMED.with_borrow(|armed| armed.iter().for_each(|armed| armed.is_due.store(false, Ordering::Release)));
    let policies = roles::policies();
    policies.iter().filter(|policy| policy.has_waiting()).for_each(|policy| policy.tick());
    if !policies.iter().any(|policy| policy.has_waiting()) {
        disarm();
    }
}

fn arm(stream: &HttpStream) {
    if ARMED.with_borrow(Option::is_some) {
        return;
    }
    // SAFETY: the filter lives.
    let scheduler = unsafe { abi::scheduler_new(stream.filter()) };
    if scheduler.is_null() {
        return;
    }
    let is_due = Arc::new(AtomicBool::new(false));
    ARMED.replace(Some(Armed { stream: stream.id(), scheduler, is_due: Arc::clone(&is_due) }));
    lock(&ALARMS).push(Alarm { scheduler, is_due });
    static THREAD: Once = Once::new();
    THREAD.call_once(|| {
        thread::spawn(poke);
    });
    ADDED.notify_one();
}

fn disarm() {
    let Some(armed) = ARMED.take() else { return };
    // After this the thread does not know it any more.
    lock(&ALARMS).retain(|alarm| alarm.scheduler != armed.scheduler);
    // SAFETY: it was made by `scheduler_new`, and nobody else has it.
    unsafe { abi::scheduler_delete(armed.scheduler) };
}

/// The thread.
fn poke() {
    loop {
        let mut alarms = lock(&ALARMS);
        while alarms.is_empty() {
            alarms = ADDED.wait(alarms).unwrap_or_else(PoisonError::into_inner);
        }
        for alarm in alarms.iter() {
            if !alarm.is_due.swap(true, Ordering::AcqRel) {
                // SAFETY: a scheduler is deleted only after it was taken out of this list, which is locked.
                unsafe { abi::scheduler_commit(alarm.scheduler, 0) };
            }
        }
        drop(alarms);
        thread::sleep(TICK);
    }
}
