//! Which role a configuration of Envoy's is for, and what each worker makes of it.
//!
//! Envoy reads a configuration once, on its main thread, and uses it on all workers. A role cannot cross threads, so each worker
//! makes its own when it has the first stream of that configuration.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    host::Envoy,
    store::{Process, lock},
};
use crate::{
    core::{host::Host, quota},
    gateway::{policy::Policy, worker::Worker},
};

/// A configuration of one of the two filters.
pub struct Configuration {
    is_policy: bool,
    /// The text of a `config.yaml`.
    text: Vec<u8>,
    /// Envoy still has it.
    is_used: AtomicBool,
}

/// A role of this worker.
pub enum Role {
    /// In the listener's chain.
    Policy(Rc<Policy<Envoy>>),
    /// In the router's upstream chain.
    Provider(Rc<Worker<Envoy>>),
}

impl Configuration {
    /// Reads a configuration on the main thread. `None` refuses it, and Envoy keeps what it had.
    pub fn read(name: &[u8], text: &[u8]) -> Option<Arc<Configuration>> {
        let is_policy = name == b"policy";
        // What is wrong with it is said here; the workers then have only to make the same of it.
        if is_policy && policy(text).is_none() {
            return None;
        }
        Some(Arc::new(Configuration { is_policy, text: text.to_vec(), is_used: AtomicBool::new(true) }))
    }

    /// Envoy has no use for it any more; streams under way keep what they have.
    pub fn retire(&self) {
        self.is_used.store(false, Ordering::Relaxed);
    }

    /// This worker's role, made when it is the first time.
    pub fn role(self: &Arc<Configuration>) -> Option<Role> {
        if !self.is_policy {
            return Some(Role::Provider(worker()));
        }
        MADE.with_borrow_mut(|made| {
            if let Some((_, policy)) = made.iter().find(|(of, _)| Arc::ptr_eq(of, self)) {
                return Some(Role::Policy(Rc::clone(policy)));
            }
            made.retain(|(of, _)| of.is_used.load(Ordering::Relaxed));
            let policy = Rc::new(policy(&self.text)?);
            made.push((Arc::clone(self), Rc::clone(&policy)));
            ALL.with_borrow_mut(|all| {
                all.retain(|policy| policy.strong_count() > 0);
                all.push(Rc::downgrade(&policy));
            });
            Some(Role::Policy(policy))
        })
    }
}

fn policy(text: &[u8]) -> Option<Policy<Envoy>> {
    let worker = worker();
    worker.host.configure(text, || Policy::configure(&worker))
}

/// A configuration, and what a worker made of it.
type Made = (Arc<Configuration>, Rc<Policy<Envoy>>);

thread_local! {
    static WORKER: Rc<Worker<Envoy>> = {
        let worker = Rc::new(Worker::new(Envoy::new(Process::own())));
        lock(&WORKERS).push(worker.id());
        worker
    };
    /// The policies of configurations that Envoy has.
    static MADE: RefCell<Vec<Made>> = const { RefCell::new(Vec::new()) };
    /// The policies of those configurations, and of others that only streams under way still have.
    static ALL: RefCell<Vec<Weak<Policy<Envoy>>>> = const { RefCell::new(Vec::new()) };
}

/// The workers of this process.
static WORKERS: Mutex<Vec<quota::Worker>> = Mutex::new(Vec::new());

/// This thread's worker.
pub fn worker() -> Rc<Worker<Envoy>> {
    WORKER.with(Rc::clone)
}

/// All policies of this worker that a stream can have.
pub fn policies() -> Vec<Rc<Policy<Envoy>>> {
    ALL.with_borrow(|all| all.iter().filter_map(Weak::upgrade).collect())
}

/// Says that every worker lives: they end with the process and not before, and idle ones run no hook.
pub fn heartbeat() {
    let worker = worker();
    let now = worker.host.now_ms();
    for id in lock(&WORKERS).iter() {
        quota::heartbeat(worker.host.store(), *id, now);
    }
}
