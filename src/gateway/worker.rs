//! What one worker knows beyond a request and beyond a configuration. Nothing of it is shared with another worker; what is,
//! stands in the host's store.

use std::cell::{Cell, OnceCell, RefCell};

use super::{
    exchanges::{ExchangeRef, Exchanges},
    report::Reports,
};
use crate::core::{
    access::{changes, keyring::Keyring},
    exchange::{Env, Exchange, output_lengths::OutputLengths, seams::Seams},
    host::{Attribute, Host, Level, Metric, Stream},
    model::call_record::CallRecord,
    protocol::KEY_VARIABLE,
    quota,
    random::Random,
};

/// One worker: a door makes it, owns it, and lends it to the roles that run in it.
pub struct Worker<H: Host> {
    /// What it runs in.
    pub host: H,
    /// The requests under way.
    pub(super) exchanges: Exchanges,
    /// What looks at requests and responses on their way: nothing in production.
    seams: Seams,
    /// Names it among all that count requests in flight.
    id: quota::Worker,
    random: RefCell<Random>,
    /// What it knows of keys and of responses; the configuration sets its size.
    known: RefCell<(Keyring, OutputLengths)>,
    /// Usage that waits for company.
    reports: Reports,
    /// When it last said that it lives, Unix milliseconds.
    beaten_ms: Cell<u64>,
    /// How it names itself to the ledger.
    bearer: OnceCell<String>,
}

impl<H: Host> Worker<H> {
    /// A worker that knows nothing yet.
    pub fn new(host: H) -> Worker<H> {
        Worker::with_seams(host, Seams::default())
    }

    /// One in which these look at requests and responses.
    pub fn with_seams(host: H, seams: Seams) -> Worker<H> {
        Worker {
            seams,
            exchanges: Exchanges::default(),
            id: quota::Worker((host.random() >> 32) as u32),
            random: RefCell::new(Random::new(host.random())),
            known: RefCell::new((Keyring::new(1), OutputLengths::default())),
            reports: Reports::default(),
            beaten_ms: Cell::new(0),
            bearer: OnceCell::new(),
            host,
        }
    }

    /// Names it among all that count requests in flight.
    pub fn id(&self) -> quota::Worker {
        self.id
    }

    /// Makes ready what all workers share.
    pub(super) fn prepare(&self) {
        let store = self.host.store();
        quota::prepare(store, [self.host.random(), self.host.random()]);
        changes::prepare(store);
    }

    /// Says that this worker lives, so that the requests it holds count.
    pub(super) fn heartbeat(&self) {
        let now = self.host.now_ms();
        self.beaten_ms.set(now);
        quota::heartbeat(self.host.store(), self.id, now);
    }

    /// When it last said so, Unix milliseconds.
    pub(super) fn beaten_ms(&self) -> u64 {
        self.beaten_ms.get()
    }

    /// What it shows the ledger.
    pub(super) fn bearer(&self) -> &str {
        self.bearer.get_or_init(|| format!("Bearer {}", self.host.variable(KEY_VARIABLE).unwrap_or_default()))
    }

    /// Gives an event to the sync role. True: it waits, and [`Worker::flush`] is to be called in time.
    pub(super) fn report(&self, event: &CallRecord) -> bool {
        self.reports.report(&self.host, event, self.host.now_ms())
    }

    /// Sends the events that wait: on time, and when this worker is about to be lost. True when there were some.
    pub fn flush(&self) -> bool {
        self.reports.flush(&self.host, self.host.now_ms())
    }

    /// Runs a piece of core logic with what it may look at.
    pub(super) fn with_env<T>(&self, stream: &H::Stream, work: impl FnOnce(&mut Env) -> T) -> Option<T> {
        let mut random = self.random.try_borrow_mut().ok()?;
        let mut known = self.known.try_borrow_mut().ok()?;
        let (keys, output_lengths) = &mut *known;
        Some(work(&mut Env {
            shared: self.host.store(),
            seams: &self.seams,
            now_ms: self.host.now_ms(),
            random: &mut random,
            keys,
            output_lengths,
            worker: self.id,
            client: &|| client(stream),
        }))
    }

    /// Runs a piece of core logic on an exchange.
    pub(super) fn with<T>(
        &self,
        exchange: &ExchangeRef,
        stream: &H::Stream,
        work: impl FnOnce(&mut Exchange, &mut Env) -> T,
    ) -> Option<T> {
        let mut exchange = exchange.try_borrow_mut().ok()?;
        let done = self.with_env(stream, |env| work(&mut exchange, env));
        exchange.take_trail().iter().for_each(|line| self.host.log(Level::Info, line));
        done
    }

    /// Whether no hook has anything of this in hand.
    #[cfg(test)]
    pub(super) fn is_free(&self) -> bool {
        self.known.try_borrow_mut().is_ok()
            && self.random.try_borrow_mut().is_ok()
            && self.exchanges.are_free()
            && self.reports.is_free()
    }

    /// Adds to a counter by its whole name.
    pub(super) fn count(&self, name: &str, by: u64) {
        if by > 0
            && let Some(id) = self.host.metric(Metric::Counter, name)
        {
            self.host.add(id, by);
        }
    }

    /// What a counter stands at, by its whole name, in all workers together.
    pub(super) fn counted(&self, name: &str) -> Option<u64> {
        self.host.value(self.host.metric(Metric::Counter, name)?)
    }
}

/// The address of the client, without a port.
pub(super) fn client(stream: &impl Stream) -> Option<String> {
    let address = String::from_utf8(stream.attribute(Attribute::ClientAddress)?).ok()?;
    let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
    Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}
