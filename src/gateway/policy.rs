//! The policy role, in the listener's chain: who may call, what is planned, and what the client gets to see in the end.

use std::{cell::RefCell, rc::Rc};

use super::{
    Turn,
    exchanges::ExchangeRef,
    metrics::Metrics,
    report,
    request::{self, Request},
    sync,
    waiting::{Caller, IDLE, TICK, Waiter, Waiting},
    worker::Worker,
};
use crate::core::{
    config::{self, Config},
    exchange::Next,
    host::{CallId, CallResponse, Host, Level, Side, Stream},
};

/// One configuration of the role.
pub struct Policy<H: Host> {
    pub(super) worker: Rc<Worker<H>>,
    pub(super) config: Rc<Config>,
    pub(super) metrics: Metrics,
    pub(super) waiting: Waiting,
    /// Whether decisions are logged, as it was when this was configured.
    pub(super) is_watched: bool,
    /// Stands by for the sync role's own worker, when there is a ledger.
    sync: RefCell<Option<sync::SyncRole<H>>>,
}

impl<H: Host> Policy<H> {
    /// Reads the role's configuration: a LiteLLM `config.yaml`. `None` refuses it, and Envoy keeps what it had.
    pub fn configure(worker: &Rc<Worker<H>>) -> Option<Policy<H>> {
        let host = &worker.host;
        let bytes = host.configuration();
        let Ok(yaml) = std::str::from_utf8(&bytes) else {
            host.log(
                Level::Error,
                "tollgate: the plugin configuration is not UTF-8; expected the text of a config.yaml",
            );
            return None;
        };
        let env = |name: &str| host.variable(name);
        let key = env(config::seal::KEY_VARIABLE).as_deref().and_then(config::seal::parse_key);
        let unseal = |text: &str| config::seal::unseal(text, key.as_ref()?);
        match config::load(yaml, &env, &unseal) {
            Ok(loaded) => Some(Policy::begin(worker, loaded.config)),
            Err(problems) => {
                for problem in problems {
                    host.log(Level::Error, &format!("tollgate: {problem}"));
                }
                None
            }
        }
    }

    /// Makes ready what requests need.
    fn begin(worker: &Rc<Worker<H>>, config: Config) -> Policy<H> {
        worker.prepare();
        worker.heartbeat();
        worker.host.tick_every(IDLE);
        let sync =
            config.general.has_ledger.then(|| sync::SyncRole::stand_by(worker, config.ledger.batch_write_ms));
        Policy {
            config: Rc::new(config),
            metrics: Metrics::default(),
            is_watched: worker.host.is_watched(),
            waiting: Waiting::default(),
            sync: RefCell::new(sync.flatten()),
            worker: Rc::clone(worker),
        }
    }

    /// A request begins.
    pub fn stream(self: &Rc<Self>) -> Request<H> {
        Request::new(Rc::clone(self))
    }

    /// A call of this role has its response, or will have none: what it told the ledger in the sync role's place. Hosts that
    /// hand to the role what a stream asked for in a tick may do so.
    pub fn on_called(&self, call: CallId, response: Option<CallResponse>) {
        match self.waiting.caller(call) {
            Some(caller) => self.go_on(caller, response),
            None => self.with_sync(|sync| sync.on_called(response)),
        }
    }

    /// Whether a request waits for a time, and [`Policy::tick`] is to be called for it.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_idle()
    }

    /// Goes on with a request whose call has its response. A stream that is over cannot be entered.
    pub(super) fn go_on(&self, caller: Caller, response: Option<CallResponse>) {
        let Caller { stream, exchange, then } = caller;
        let Some(stream) = self.worker.host.enter(stream) else { return };
        request::called(self, &stream, &exchange, &then, response).settle(&stream, Side::Request);
    }

    fn with_sync(&self, work: impl FnOnce(&mut sync::SyncRole<H>)) {
        if let Ok(mut sync) = self.sync.try_borrow_mut()
            && let Some(sync) = sync.as_mut()
        {
            work(sync);
        }
    }

    /// Says that this worker lives, and wakes the requests whose wait is over.
    pub fn tick(&self) {
        let host = &self.worker.host;
        let now = host.now_ms();
        let reports = self.worker.flush();
        if now.saturating_sub(self.worker.beaten_ms()) >= IDLE.as_millis() as u64 / 2 {
            self.worker.heartbeat();
            self.with_sync(sync::SyncRole::tick);
        }
        for Waiter { stream: id, exchange, .. } in self.waiting.due(now) {
            // A stream that is over cannot be entered.
            let Some(stream) = host.enter(id) else { continue };
            self.wake(&stream, &exchange).settle(&stream, Side::Request);
        }
        // Who has just reported will do so again.
        let pace = match (self.waiting.is_idle(), reports) {
            (false, _) => TICK,
            (true, true) => report::EVERY,
            (true, false) => IDLE,
        };
        self.waiting.pace(host, pace);
    }

    /// Goes on with a request that has waited for a time.
    fn wake(&self, stream: &H::Stream, exchange: &ExchangeRef) -> Turn {
        // Envoy may have refused it meanwhile.
        if exchange.try_borrow().map_or(true, |exchange| exchange.has_responded()) {
            return Turn::Pause;
        }
        // The body is copied only for a request that goes on.
        let next = match self.worker.with(exchange, stream, |exchange, env| exchange.on_wait(env)) {
            Some(Next::ReadBody) => {
                let body = stream.body(Side::Request);
                self.worker.with(exchange, stream, |exchange, env| exchange.on_body(&body, env))
            }
            next => next,
        };
        next.map_or(Turn::Pause, |next| request::act(self, stream, Some(exchange), next))
    }
}
