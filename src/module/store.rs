//! What the workers of one process share: plain memory behind locks, where Wasm has shared data, queues and metrics.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use hashbrown::HashMap;

use crate::core::{
    host::{MetricId, QueueId, Secret, Store, Version},
    store::{self, Values},
};

/// Locks of the store's values: workers that change different values do not wait for each other.
const SHARDS: usize = 64;

/// The memory of the process.
#[derive(Debug)]
pub struct Process {
    values: [Mutex<Values>; SHARDS],
    counters: Counters,
    /// By deployment: the minute, and how many responses went well in it.
    successes: Mutex<HashMap<String, (u64, u64)>>,
    queues: Mutex<Vec<(String, VecDeque<Vec<u8>>)>>,
}

impl Default for Process {
    fn default() -> Process {
        Process {
            values: std::array::from_fn(|_| Mutex::default()),
            counters: Counters::default(),
            successes: Mutex::default(),
            queues: Mutex::default(),
        }
    }
}

impl Process {
    /// The one that Envoy's process has.
    pub fn own() -> &'static Process {
        static OWN: OnceLock<Process> = OnceLock::new();
        OWN.get_or_init(Process::default)
    }

    fn succeeded(&self, deployment: &str, minute: u64) {
        let mut successes = lock(&self.successes);
        match successes.get_mut(deployment) {
            Some((known, count)) if *known == minute => *count = count.saturating_add(1),
            Some(entry) => *entry = (minute, 1),
            None => {
                successes.insert(deployment.to_owned(), (minute, 1));
            }
        }
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, Values> {
        let sum = key.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        match self.values.get(sum % SHARDS) {
            Some(shard) => lock(shard),
            None => lock(&self.values[0]),
        }
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The queue of a name, made when it is new.
    pub fn make_queue(&self, name: &str) -> Option<QueueId> {
        let mut queues = lock(&self.queues);
        let at = queues.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            queues.push((name.to_owned(), VecDeque::new()));
            queues.len() - 1
        });
        QueueId::try_from(at).ok()
    }

    /// The queue of a name.
    pub fn find_queue(&self, name: &str) -> Option<QueueId> {
        let at = lock(&self.queues).iter().position(|(known, _)| known == name)?;
        QueueId::try_from(at).ok()
    }

    /// Puts a value into a queue.
    pub fn enqueue(&self, queue: QueueId, value: &[u8]) -> bool {
        let mut queues = lock(&self.queues);
        let queue = usize::try_from(queue).ok().and_then(|at| queues.get_mut(at));
        queue.map(|(_, values)| values.push_back(value.to_vec())).is_some()
    }

    /// Takes the oldest value out of a queue.
    pub fn dequeue(&self, queue: QueueId) -> Option<Vec<u8>> {
        lock(&self.queues).get_mut(usize::try_from(queue).ok()?)?.1.pop_front()
    }
}

/// So many counters are kept together.
const PAGE: usize = 256;
/// So many pages there may be: names are bounded by the configuration, and this is far beyond any.
const PAGES: usize = 4096;

/// Counters by their whole names. They only ever grow, and each keeps its place.
#[derive(Debug)]
pub struct Counters {
    names: Mutex<Names>,
    pages: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

#[derive(Debug, Default)]
struct Names {
    ids: HashMap<String, MetricId>,
    in_order: Vec<String>,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters { names: Mutex::default(), pages: (0..PAGES).map(|_| OnceLock::new()).collect() }
    }
}

impl Counters {
    /// The counter of a name, made when it is new.
    fn make(&self, name: String) -> Option<MetricId> {
        let mut names = lock(&self.names);
        if let Some(id) = names.ids.get(&name) {
            return Some(*id);
        }
        let at = names.in_order.len();
        self.pages.get(at / PAGE)?.get_or_init(|| (0..PAGE).map(|_| AtomicU64::new(0)).collect());
        let id = MetricId::try_from(at).ok()?;
        names.ids.insert(name.clone(), id);
        names.in_order.push(name);
        Some(id)
    }

    fn at(&self, id: MetricId) -> Option<&AtomicU64> {
        let at = usize::try_from(id).ok()?;
        self.pages.get(at / PAGE)?.get()?.get(at % PAGE)
    }

    /// Adds to a counter.
    pub fn add(&self, id: MetricId, by: u64) {
        self.at(id).inspect(|counter| {
            counter.fetch_add(by, Ordering::Relaxed);
        });
    }

    /// What a counter stands at.
    pub fn value(&self, id: MetricId) -> Option<u64> {
        self.at(id).map(|counter| counter.load(Ordering::Relaxed))
    }

    /// The names of the counters made after the first `known`, in order.
    pub fn names_after(&self, known: usize) -> Vec<String> {
        lock(&self.names).in_order.get(known..).unwrap_or_default().to_vec()
    }
}

/// A panic elsewhere leaves every value whole: each is changed by one statement.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The process's memory as one worker has it, with what that worker knows of the names in it.
#[derive(Debug)]
pub struct Shared {
    process: &'static Process,
    secret: Cell<Option<Secret>>,
    counters: RefCell<HashMap<String, MetricId>>,
    /// The counters of responses that went well, by deployment.
    successes: RefCell<HashMap<String, MetricId>>,
}

impl Shared {
    /// A worker's share of this memory.
    pub fn of(process: &'static Process) -> Shared {
        Shared {
            process,
            secret: Cell::default(),
            counters: RefCell::default(),
            successes: RefCell::default(),
        }
    }

    /// What all workers have.
    pub fn process(&self) -> &'static Process {
        self.process
    }

    /// The counter of a name, made when it is new.
    pub fn counter(&self, name: &str) -> Option<MetricId> {
        self.known(&self.counters, name, || name.to_owned())
    }

    fn known(
        &self,
        ids: &RefCell<HashMap<String, MetricId>>,
        key: &str,
        name: impl FnOnce() -> String,
    ) -> Option<MetricId> {
        let mut ids = ids.try_borrow_mut().ok()?;
        if let Some(id) = ids.get(key) {
            return Some(*id);
        }
        let id = self.process.counters.make(name())?;
        ids.insert(key.to_owned(), id);
        Some(id)
    }
}

impl Store for Shared {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        self.process.shard(key).get(key)
    }

    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> bool {
        self.process.shard(key).set(key, value, version)
    }

    fn secret(&self) -> Secret {
        self.secret.get().unwrap_or_else(|| {
            let secret = store::read_secret(self);
            self.secret.set(secret);
            secret.unwrap_or_default()
        })
    }

    fn count(&self, counter: &'static str) {
        self.counter(counter).inspect(|id| self.process.counters.add(*id, 1));
    }

    fn succeeded(&self, deployment: &str, minute: u64) {
        self.process.succeeded(deployment, minute);
        // What operators see of it.
        let name = || format!("tollgate_successes;deployment={}", deployment.replace([';', '='], "_"));
        self.known(&self.successes, deployment, name).inspect(|id| self.process.counters.add(*id, 1));
    }

    fn successes(&self, deployment: &str, minute: u64) -> u64 {
        match lock(&self.process.successes).get(deployment) {
            Some((known, count)) if *known == minute => *count,
            _ => 0,
        }
    }
}
