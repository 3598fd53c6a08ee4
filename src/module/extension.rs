//! What runs once for the process, on Envoy's main thread: the sync role, the counters on their way to Envoy's statistics, and the
//! heartbeats of the workers.

#![allow(unsafe_code, reason = "Envoy's functions are called here")]

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
};

use hashbrown::HashMap;

use super::{
    abi::{self, Buffer, Opaque},
    host::{Envoy, log},
    later::{self, Call},
    roles,
    store::Process,
};
use crate::{
    core::host::{CallId, CallResponse, Host, Level},
    gateway::{metrics::FAMILIES, sync::SyncRole},
};

/// How often the main thread looks, in milliseconds, unless the ledger is to be talked to more often.
const TICK_MS: u64 = 250;
/// How often counters are told and workers said to live, in milliseconds.
const SHOW_MS: u64 = 1_000;

/// The extension.
pub struct Extension {
    envoy: Opaque,
    timer: Opaque,
    /// Milliseconds between two ticks.
    every_ms: u64,
    role: RefCell<Option<SyncRole<Envoy>>>,
    shown: RefCell<Shown>,
    shown_ms: Cell<u64>,
}

/// What Envoy's statistics have of the counters.
#[derive(Default)]
struct Shown {
    /// Envoy's ids of the families, with the names of their labels in order.
    families: HashMap<&'static str, (usize, &'static [&'static str])>,
    /// By our id: the family, the values of its labels, and what Envoy has been told.
    counters: Vec<Option<Counter>>,
}

struct Counter {
    family: usize,
    values: Vec<String>,
    told: u64,
}

thread_local! {
    /// The extension of the main thread; its calls are made and ended there.
    static CURRENT: Cell<Option<&'static Extension>> = const { Cell::new(None) };
    /// The call that is under way: the role has one at a time.
    static CALLING: Cell<Option<CallId>> = const { Cell::new(None) };
}

impl Extension {
    /// Begins. `configuration` is the interval in milliseconds in which the ledger is talked to; without a ledger it is empty.
    /// There is one for the life of the process.
    pub fn begin(envoy: Opaque, configuration: &[u8]) -> Option<&'static Extension> {
        let worker = roles::worker();
        let interval: Option<u64> =
            std::str::from_utf8(configuration).ok().and_then(|text| text.trim().parse().ok());
        let role = match interval {
            Some(_) => Some(worker.host.configure(configuration, || SyncRole::configure(&worker))?),
            None => None,
        };
        let extension: &'static Extension = Box::leak(Box::new(Extension {
            envoy,
            // SAFETY: Envoy's object lives as long as the process.
            timer: unsafe { abi::timer_new(envoy) },
            every_ms: interval.unwrap_or(TICK_MS).clamp(10, SHOW_MS),
            role: RefCell::new(role),
            shown: RefCell::new(Shown { families: define(envoy), counters: Vec::new() }),
            shown_ms: Cell::new(0),
        }));
        CURRENT.set(Some(extension));
        // SAFETY: as above.
        unsafe { abi::signal_init_complete(envoy) };
        Some(extension)
    }

    /// Envoy runs.
    pub fn on_started(&self) {
        self.wait();
    }

    /// Time to look.
    pub fn on_tick(&self) {
        later::hook(|| {
            self.guarded(SyncRole::tick);
            let now = roles::worker().host.now_ms();
            if now.abs_diff(self.shown_ms.get()) >= SHOW_MS {
                self.shown_ms.set(now);
                roles::heartbeat();
                self.show();
            }
        });
        self.wait();
    }

    /// A call has its response, or will have none.
    pub fn on_called(&self, response: Option<CallResponse>) {
        if CALLING.take().is_some() {
            later::hook(|| self.guarded(|role| role.on_called(response)));
        }
    }

    fn wait(&self) {
        // SAFETY: the timer lives as long as the process.
        unsafe { abi::timer_enable(self.timer, self.every_ms) };
    }

    /// Runs the role. One that panics is made anew: it reads where it stood from the store.
    fn guarded(&self, work: impl FnOnce(&mut SyncRole<Envoy>)) {
        let Ok(mut role) = self.role.try_borrow_mut() else { return };
        let Some(current) = role.as_mut() else { return };
        if catch_unwind(AssertUnwindSafe(|| work(current))).is_err() {
            log(Level::Error, "tollgate: the sync role panicked; it begins again");
            let worker = roles::worker();
            *role = SyncRole::configure(&worker);
        }
    }

    /// Tells Envoy's statistics what was counted.
    fn show(&self) {
        let Ok(mut shown) = self.shown.try_borrow_mut() else { return };
        let Shown { families, counters } = &mut *shown;
        let process = Process::own().counters();
        for name in process.names_after(counters.len()) {
            counters.push(Counter::of(&name, families));
        }
        for (id, counter) in (0..).zip(counters.iter_mut()) {
            let Some(counter) = counter else { continue };
            let now = process.value(id).unwrap_or(0);
            if now > counter.told {
                self.increment(counter, now.saturating_sub(counter.told));
                counter.told = now;
            }
        }
    }

    fn increment(&self, counter: &Counter, by: u64) {
        let values: Vec<Buffer> = counter.values.iter().map(|value| Buffer::of(value.as_bytes())).collect();
        // SAFETY: Envoy's object lives as long as the process, and copies what it is given.
        unsafe { abi::increment_counter(self.envoy, counter.family, values.as_ptr(), values.len(), by) };
    }
}

impl Counter {
    /// The counter of a whole name: `family;label=value;label=value`.
    fn of(name: &str, families: &HashMap<&'static str, (usize, &'static [&'static str])>) -> Option<Counter> {
        let mut parts = name.split(';');
        let (family, labels) = families.get(parts.next()?)?;
        let pairs: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let value =
            |label: &&str| pairs.iter().find(|(name, _)| name == label).map_or("", |(_, value)| *value);
        let values = labels.iter().map(|label| value(label).to_owned()).collect();
        Some(Counter { family: *family, values, told: 0 })
    }
}

/// Defines all counters: Envoy takes none later.
fn define(envoy: Opaque) -> HashMap<&'static str, (usize, &'static [&'static str])> {
    let mut families = HashMap::new();
    for (name, labels) in FAMILIES {
        let names: Vec<Buffer> = labels.iter().map(|label| Buffer::of(label.as_bytes())).collect();
        let mut id = 0;
        // SAFETY: Envoy's object lives as long as the process, and copies what it is given.
        let result = unsafe {
            abi::define_counter(envoy, Buffer::of(name.as_bytes()), names.as_ptr(), names.len(), &mut id)
        };
        if result == abi::SUCCESS {
            families.insert(*name, (id, *labels));
        }
    }
    families
}

/// Begins a call of the main thread.
pub fn begin(id: CallId, call: &Call) {
    let Some(extension) = CURRENT.get() else { return };
    let mut envoys = 0;
    CALLING.set(Some(id));
    // SAFETY: Envoy's object lives as long as the process, and copies what it is given.
    let begun = call.begin(|cluster, headers, body, limit| unsafe {
        abi::extension_http_callout(
            extension.envoy,
            &mut envoys,
            cluster,
            headers.as_ptr(),
            headers.len(),
            body,
            limit,
        )
    });
    if !begun {
        extension.on_called(None);
    }
}
