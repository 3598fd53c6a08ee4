//! Where the two roles of one VM meet: the requests under way, by id.
//!
//! The policy role files an exchange and names its id in filter state; the provider role, in the upstream chain of the same
//! request, finds it there. Nothing is serialised and nothing is parsed twice.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

use hashbrown::HashMap;

use super::host;
use crate::core::{
    access::keyring::Keyring,
    exchange::{Env, Exchange, lengths::Lengths},
    quota::Worker,
    random::Random,
};

/// A request that both roles hold.
pub type Shared = Rc<RefCell<Exchange>>;

/// The name in filter state of the exchange's id.
const ID: &str = "tollgate.exchange";

thread_local! {
    static TABLE: RefCell<HashMap<u64, Weak<RefCell<Exchange>>>> = RefCell::default();
    /// What this VM knows of keys and of answers; the configuration sets its size.
    static VM: RefCell<(Keyring, Lengths)> = RefCell::new((Keyring::new(1), Lengths::default()));
    /// Chance makes it differ from every other VM's.
    static WORKER: u32 = (seed() >> 32) as u32;
    static RANDOM: RefCell<Random> = RefCell::new(Random::new(seed()));
}

/// A seed that differs between VMs. The standard library's hasher keys come from the host's random source.
pub fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() ^ host::now_ms()
}

/// Files an exchange and names it in the stream's filter state.
pub fn file(exchange: &Shared) {
    let Ok(id) = exchange.try_borrow().map(|exchange| exchange.id) else { return };
    TABLE.with(|table| {
        if let Ok(mut table) = table.try_borrow_mut() {
            // Each is taken out when its stream is over. Should the host ever fail to say so, the table still stays as large
            // as what is under way.
            if table.len() == table.capacity() {
                table.retain(|_, exchange| exchange.strong_count() > 0);
            }
            table.insert(id, Rc::downgrade(exchange));
        }
    });
    host::set_state(ID, &id.to_le_bytes());
}

/// The exchange of the stream that the host is talking about.
pub fn find() -> Option<Shared> {
    let id = u64::from_le_bytes(host::property(&[ID])?.try_into().ok()?);
    TABLE.with(|table| table.try_borrow().ok()?.get(&id)?.upgrade())
}

/// Takes an exchange out.
pub fn forget(id: u64) {
    TABLE.with(|table| {
        if let Ok(mut table) = table.try_borrow_mut() {
            table.remove(&id);
        }
    });
}

/// This VM, as the holder of requests in flight.
pub fn worker() -> Worker {
    Worker(WORKER.with(|worker| *worker))
}

/// Runs a piece of work on this VM's copies of the ledger's records.
pub fn with_keys<T>(work: impl FnOnce(&mut Keyring) -> T) -> Option<T> {
    VM.with(|vm| vm.try_borrow_mut().ok().map(|mut vm| work(&mut vm.0)))
}

/// Runs a piece of core logic with what it may look at.
pub fn with_env<T>(work: impl FnOnce(&mut Env) -> T) -> Option<T> {
    RANDOM.with(|random| {
        let mut random = random.try_borrow_mut().ok()?;
        VM.with(|vm| {
            let mut vm = vm.try_borrow_mut().ok()?;
            let (keys, lengths) = &mut *vm;
            Some(work(&mut Env {
                shared: &host::SharedData,
                now_ms: host::now_ms(),
                random: &mut random,
                keys,
                lengths,
                worker: worker(),
                client: &host::client,
            }))
        })
    })
}

/// Runs a piece of core logic on an exchange.
pub fn with<T>(exchange: &Shared, work: impl FnOnce(&mut Exchange, &mut Env) -> T) -> Option<T> {
    let mut exchange = exchange.try_borrow_mut().ok()?;
    let done = with_env(|env| work(&mut exchange, env));
    exchange.take_trail().iter().for_each(|line| host::info(line));
    done
}
