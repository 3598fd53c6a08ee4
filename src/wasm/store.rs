//! Shared data as the core sees it, and the metrics by which copies of it stay true.

use std::cell::{Cell, RefCell};

use hashbrown::HashMap;
use proxy_wasm::{hostcalls, types::MetricType};

use crate::core::{
    host::{Secret, Store, Topic, Version},
    store::{self, Minutes},
};

/// So many copies of values are kept. There are as many keys as deployments, and a few.
const MOST_COPIES: usize = 10_000;

/// Shared data, with what this VM has read of it.
#[derive(Default)]
pub struct SharedData {
    /// The secret of the shared tables, which is written once and stays.
    secret: Cell<Option<Secret>>,
    copies: RefCell<HashMap<String, Copy>>,
    pub(super) metrics: Metrics,
    successes: Successes,
}

/// A value as it was when its topic had been touched so often.
struct Copy {
    touched: u64,
    value: Option<Vec<u8>>,
}

impl Store for SharedData {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        match hostcalls::get_shared_data(key) {
            Ok((Some(value), version)) => Some((value, version.unwrap_or(0))),
            _ => None,
        }
    }

    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> bool {
        hostcalls::set_shared_data(key, Some(value), version).is_ok()
    }

    // A counter is read without a call into the VM, so it tells whether what was read before still stands.
    fn look(&self, topic: Topic, key: &str) -> Option<Vec<u8>> {
        let read = || self.get(key).map(|(value, _)| value);
        let Some(touched) = self.metrics.value(changes_of(topic)) else {
            return read();
        };
        let known = self.copies.try_borrow().ok().and_then(|copies| {
            copies.get(key).filter(|copy| copy.touched == touched).map(|copy| copy.value.clone())
        });
        known.unwrap_or_else(|| {
            let value = read();
            if let Ok(mut copies) = self.copies.try_borrow_mut() {
                if copies.len() >= MOST_COPIES {
                    copies.clear();
                }
                copies.insert(key.to_owned(), Copy { touched, value: value.clone() });
            }
            value
        })
    }

    fn touch(&self, topic: Topic) {
        self.metrics.count(changes_of(topic));
    }

    fn secret(&self) -> Secret {
        self.secret.get().unwrap_or_else(|| {
            let secret = store::read_secret(self);
            self.secret.set(secret);
            secret.unwrap_or_default()
        })
    }

    fn count(&self, counter: &'static str) {
        self.metrics.count(counter);
    }

    fn succeeded(&self, deployment: &str, minute: u64) {
        self.successes.add(deployment, minute);
    }

    fn successes(&self, deployment: &str, minute: u64) -> u64 {
        self.successes.of(deployment, minute)
    }
}

/// The counter of how often values of a topic were changed.
fn changes_of(topic: Topic) -> &'static str {
    match topic {
        Topic::Access => "tollgate_changes;kind=access",
        Topic::Cooldown => "tollgate_changes;kind=rest",
    }
}

/// The ids of metrics by some key, as this VM knows them.
#[derive(Default)]
pub struct Metrics(RefCell<HashMap<String, u32>>);

impl Metrics {
    /// The id behind a key, made by the metric's name when it is new.
    pub fn id(&self, kind: MetricType, key: &str, name: impl FnOnce() -> String) -> Option<u32> {
        let mut ids = self.0.try_borrow_mut().ok()?;
        if let Some(id) = ids.get(key) {
            return Some(*id);
        }
        let id = hostcalls::define_metric(kind, &name()).ok()?;
        ids.insert(key.to_owned(), id);
        Some(id)
    }

    fn counter(&self, name: &str) -> Option<u32> {
        self.id(MetricType::Counter, name, || name.to_owned())
    }

    fn count(&self, name: &str) {
        self.counter(name).inspect(|id| add(*id, 1));
    }

    fn value(&self, name: &str) -> Option<u64> {
        value(self.counter(name)?)
    }
}

/// Adds to a counter.
pub fn add(id: u32, by: u64) {
    if let (true, Ok(by)) = (by > 0, i64::try_from(by)) {
        let _ = hostcalls::increment_metric(id, by);
    }
}

/// What a metric stands at, in all VMs together.
pub fn value(id: u32) -> Option<u64> {
    hostcalls::get_metric(id).ok()
}

/// The counters of responses that went well, by deployment, and what each stood at when this VM first asked in a minute.
#[derive(Default)]
struct Successes {
    ids: Metrics,
    minutes: RefCell<Minutes>,
}

impl Successes {
    fn add(&self, deployment: &str, minute: u64) {
        // What it stood at before the first of the minute is what the minute is counted from.
        if !self.minutes.try_borrow().is_ok_and(|minutes| minutes.knows(deployment, minute)) {
            self.of(deployment, minute);
        }
        self.id(deployment).inspect(|id| add(*id, 1));
    }

    fn of(&self, deployment: &str, minute: u64) -> u64 {
        let total = self.id(deployment).and_then(value);
        let (Some(total), Ok(mut minutes)) = (total, self.minutes.try_borrow_mut()) else { return 0 };
        minutes.since(deployment, minute, total)
    }

    fn id(&self, deployment: &str) -> Option<u32> {
        let name = || format!("tollgate_successes;deployment={}", deployment.replace([';', '='], "_"));
        self.ids.id(MetricType::Counter, deployment, name)
    }
}
