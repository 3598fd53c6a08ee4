//! One request in the listener's chain, from its headers to the access log.

use std::{cell::RefCell, rc::Rc};

use super::{
    Turn, callout, exchanges::ExchangeRef, fault, lost, metrics, policy::Policy, refusal, report,
    waiting::Caller as Waiter, worker::client,
};
use crate::core::{
    access::{Caller, changes},
    error::Error,
    exchange::{
        self, EXTERNAL_ADDRESS, Forward, Next, Opened, Reply, local, next::Then, record::request_members,
    },
    headers::Headers,
    host::{Attribute, CallId, CallResponse, HeaderMap, Host, Level, Side, Stream},
    model::{general::General, lookup::Lookup, status::Status},
    protocol::{self, CHANGED_HEADER, CLIENT_HEADER},
};

/// Filter state that names the cluster of the next attempt; the route's matcher reads it as `wasm.tollgate.next`.
pub const NEXT: &str = "tollgate.next";
/// Filter state with the record of the request, as members of the access log's JSON object.
const RECORD: &str = "tollgate.record";
/// How long a call of the ledger's API may take.
const MANAGE_LIMIT_MS: u64 = 60_000;
/// How long `/health` may take: it waits for every deployment.
const HEALTH_LIMIT_MS: u64 = 600_000;
/// How often one request may ask for records. Two are regular (its key, its end user); more come when they change meanwhile.
const LOOKUPS: u8 = 6;

/// Does what the core decided about a request: here each outcome gets its meaning for this role, whatever hook it comes of.
pub(super) fn act<H: Host>(
    policy: &Policy<H>,
    stream: &H::Stream,
    exchange: Option<&ExchangeRef>,
    next: Next,
) -> Turn {
    match (next, exchange) {
        (Next::Reply(reply), _) => Turn::Reply(reply),
        (Next::Forward(to), _) => {
            forward(stream, &to);
            Turn::Continue
        }
        (Next::Wait(ms), Some(exchange)) => {
            policy.waiting.add(&policy.worker.host, ms, stream.id(), Rc::clone(exchange));
            Turn::Pause
        }
        (Next::Call(callout), Some(exchange)) => match callout::begin(&policy.worker, stream, &callout) {
            Some(call) => {
                let exchange = Rc::clone(exchange);
                policy.waiting.call(call, Waiter { stream: stream.id(), exchange, then: callout.then });
                Turn::Pause
            }
            None => called(policy, stream, exchange, &callout.then, None),
        },
        (Next::ReadBody | Next::Hold, _) => Turn::Pause,
        (Next::Pass, _) => Turn::Continue,
        (Next::Manage, _) => {
            forward_to_ledger(stream, &policy.config.general);
            Turn::Continue
        }
        // Only an exchange waits, and only attempts send and release.
        (Next::Wait(_) | Next::Call(_) | Next::Send(_) | Next::Release(_), _) => Turn::Reply(lost(stream)),
    }
}

/// A call of a request has its response, or will have none.
pub(super) fn called<H: Host>(
    policy: &Policy<H>,
    stream: &H::Stream,
    exchange: &ExchangeRef,
    then: &Then,
    response: Option<CallResponse>,
) -> Turn {
    // Envoy may have refused it meanwhile.
    if exchange.try_borrow().map_or(true, |exchange| exchange.has_responded()) {
        return Turn::Pause;
    }
    let next = policy.worker.with(exchange, stream, |exchange, env| exchange.on_called(then, response, env));
    next.map_or(Turn::Pause, |next| act(policy, stream, Some(exchange), next))
}

/// Names the first cluster and tells Envoy how often and how long to try. Headers come last: changing one makes Envoy choose
/// its route again.
fn forward(stream: &impl Stream, to: &Forward) {
    stream.set_state(NEXT, to.cluster.as_bytes());
    set(stream, "x-envoy-upstream-rq-per-try-timeout-ms", &to.per_try_timeout_ms.to_string());
    set(stream, "x-envoy-max-retries", &to.max_retries.to_string());
}

fn set(stream: &impl Stream, name: &str, value: &str) {
    stream.set_header(HeaderMap::Request, name, Some(value));
}

/// Names the ledger's cluster. It is asked once: a call that makes something must not be made twice.
fn forward_to_ledger(stream: &impl Stream, general: &General) {
    let headers = stream.headers(HeaderMap::Request);
    let is_health = headers.text(":path").is_some_and(|path| path.starts_with("/health"));
    let limit_ms = if is_health { HEALTH_LIMIT_MS } else { MANAGE_LIMIT_MS };
    stream.set_state(NEXT, protocol::CLUSTER.as_bytes());
    if let Some(address) = exchange::client_address(&headers, general, &|| client(stream)) {
        set(stream, CLIENT_HEADER, &address);
    }
    set(stream, "x-envoy-upstream-rq-timeout-ms", &limit_ms.to_string());
    set(stream, "x-envoy-max-retries", "0");
}

/// Tells a request whose response has not begun when there was no connection to its provider yet: nothing has been sent.
fn note_unreached(stream: &impl Stream, exchange: &ExchangeRef) {
    let awaits = exchange.try_borrow().is_ok_and(|exchange| exchange.awaits_response());
    let address = || stream.attribute(Attribute::UpstreamLocalAddress);
    if awaits && address().is_none_or(|address| address.is_empty()) {
        exchange.try_borrow_mut().into_iter().for_each(|mut exchange| exchange.on_unreached());
    }
}

/// Adds what Envoy knows of the end of a request.
fn add_failure(stream: &impl Stream, members: &mut Vec<u8>) {
    let details = stream.attribute(Attribute::ResponseCodeDetails);
    let connection = stream.attribute(Attribute::UpstreamFailure);
    exchange::record::add_failure(members, details.as_deref(), connection.as_deref());
}

/// The status of the response that comes by.
fn status_of(stream: &impl Stream) -> Option<Status> {
    stream.headers(HeaderMap::Response).text(":status").and_then(Status::parse)
}

/// Whether a header of a client would tell Envoy or us what to do.
fn is_internal_header(name: &str) -> bool {
    let ours = name.starts_with("x-envoy-") || name.starts_with("x-tollgate-");
    ours && name != EXTERNAL_ADDRESS && name != "x-envoy-internal"
}

/// One request. Each hook is told of its stream; the door calls none while another runs.
pub struct Request<H: Host> {
    policy: Rc<Policy<H>>,
    state: State,
    /// How often it has asked for a record.
    lookups: u8,
    /// Bytes of its body that came while its key was looked up.
    received: usize,
    /// The access log has been told what it is.
    is_recorded: bool,
}

/// Where a request stands.
enum State {
    /// Nothing is known of it.
    New,
    /// Envoy's own business.
    Passed,
    /// A record is being looked up, without which nobody knows who calls.
    Waiting { lookup: Lookup, headers: Headers, ended: bool },
    /// A call of the ledger's API; true for a browser's.
    Managing(bool),
    /// A model call.
    Calling(ExchangeRef),
    /// A reply of ours is on its way through this same filter.
    Replied(Option<ExchangeRef>),
}

impl<H: Host> Request<H> {
    pub(super) fn new(policy: Rc<Policy<H>>) -> Request<H> {
        Request { policy, state: State::New, lookups: 0, received: 0, is_recorded: false }
    }

    /// Runs a piece of core logic on an exchange.
    fn with<T>(
        &self,
        exchange: &ExchangeRef,
        stream: &H::Stream,
        work: impl FnOnce(&mut exchange::Exchange, &mut exchange::Env) -> T,
    ) -> Option<T> {
        self.policy.worker.with(exchange, stream, work)
    }

    /// Does what was decided about an exchange; nothing was when it could not be had.
    fn act(&mut self, stream: &H::Stream, exchange: &ExchangeRef, next: Option<Next>) -> Turn {
        match next
            .map_or_else(|| Turn::Reply(lost(stream)), |next| act(&self.policy, stream, Some(exchange), next))
        {
            Turn::Reply(reply) => self.reply(stream, reply),
            turn => turn,
        }
    }

    /// Answers the client. Every reply of a hook of this request goes through here.
    fn reply(&mut self, stream: &H::Stream, reply: Reply) -> Turn {
        let exchange = match std::mem::replace(&mut self.state, State::New) {
            State::Calling(exchange) => Some(exchange),
            State::Replied(exchange) => exchange,
            _ => None,
        };
        self.state = State::Replied(exchange);
        if !reply.members.is_empty() {
            self.record(stream, &reply.members);
        }
        Turn::Reply(reply)
    }

    /// Tells the access log what this request was.
    fn record(&mut self, stream: &H::Stream, members: &[u8]) {
        self.is_recorded = true;
        stream.set_state(RECORD, members);
    }

    /// Counts a request that called no model.
    fn count_local(&self, status: Option<Status>) {
        self.policy.worker.count(&metrics::local(status), 1);
    }

    /// Finds out what a request is. It may come here again, once its key has been looked up. `now`: its body may be read here.
    fn open(&mut self, stream: &H::Stream, headers: Headers, ended: bool, now: bool) -> Turn {
        let policy = Rc::clone(&self.policy);
        let opened = policy.worker.with_env(stream, |env| exchange::open(&policy.config, &headers, env));
        let Some(Opened { exchange, next }) = opened else { return self.reply(stream, lost(stream)) };
        match (exchange, &next) {
            (Some(exchange), Next::ReadBody) => return self.begin_call(stream, *exchange, ended, now),
            (Some(exchange), _) => self.state = State::Replied(Some(Rc::new(RefCell::new(*exchange)))),
            (None, Next::Reply(reply)) => {
                self.count_local(Status::new(reply.status));
                self.tell_reply(reply);
            }
            (None, Next::Pass) => {
                self.record(stream, &request_members(&headers, &Caller::Open, None));
                self.state = State::Passed;
            }
            (None, Next::Manage) => {
                self.record(stream, &request_members(&headers, &Caller::Open, None));
                self.state = State::Managing(headers.get("origin").is_some());
            }
            (None, Next::Call(callout)) => {
                let Then::Record(lookup) = &callout.then else { return self.reply(stream, lost(stream)) };
                if !self.may_ask() {
                    return self.reply(stream, lost(stream));
                }
                if callout::begin(&policy.worker, stream, callout).is_none() {
                    policy.worker.with_env(stream, |env| exchange::learn(lookup, None, env));
                    return self.open(stream, headers, ended, true);
                }
                self.state = State::Waiting { lookup: lookup.clone(), headers, ended };
                return Turn::Pause;
            }
            (None, _) => {}
        }
        match act(&policy, stream, None, next) {
            Turn::Reply(reply) => self.reply(stream, reply),
            turn => turn,
        }
    }

    /// Tells whoever watches what a request without an exchange was answered with.
    fn tell_reply(&self, reply: &Reply) {
        if self.policy.is_watched {
            let members = String::from_utf8_lossy(&reply.members);
            let members = members.trim_start_matches(',');
            let line = format!("answered here with {}: {members}", reply.status);
            self.policy.worker.host.log(Level::Info, &line);
        }
    }

    /// A model call is known by its headers.
    fn begin_call(
        &mut self,
        stream: &H::Stream,
        mut exchange: exchange::Exchange,
        ended: bool,
        now: bool,
    ) -> Turn {
        if self.policy.is_watched {
            exchange.watch();
        }
        let exchange = Rc::new(RefCell::new(exchange));
        self.policy.worker.exchanges.file(&exchange, stream);
        self.state = State::Calling(Rc::clone(&exchange));
        let next = match (ended, now) {
            (true, true) => return self.on_whole_body(stream),
            // A body that is too much for this worker kills it wherever it is read, but a request that is in a call's response
            // then would never be answered.
            (true, false) => Some(Next::Wait(0)),
            (false, _) => {
                let received = self.received;
                self.with(&exchange, stream, |exchange, env| exchange.on_headers(received, env))
            }
        };
        self.act(stream, &exchange, next.or(Some(Next::ReadBody)))
    }

    /// Whether one more record may be asked for.
    fn may_ask(&mut self) -> bool {
        self.lookups = self.lookups.saturating_add(1);
        self.lookups <= LOOKUPS
    }

    /// The whole body is here, or the headers say that there is none.
    fn on_whole_body(&mut self, stream: &H::Stream) -> Turn {
        fault::inject(stream, "request_body");
        let State::Calling(exchange) = &self.state else { return Turn::Continue };
        let exchange = Rc::clone(exchange);
        let body = stream.body(Side::Request);
        let next = self.with(&exchange, stream, |exchange, env| exchange.on_body(&body, env));
        self.act(stream, &exchange, next)
    }

    /// The ledger's response to a management call, or Envoy's when there was none.
    fn on_managed(&mut self, stream: &H::Stream, browser: bool) -> Turn {
        let headers = stream.headers(HeaderMap::Response);
        if let Some(changed) = headers.text(CHANGED_HEADER) {
            changes::announce_header(self.policy.worker.host.store(), changed);
            stream.set_header(HeaderMap::Response, CHANGED_HEADER, None);
        }
        let details = stream.attribute(Attribute::ResponseCodeDetails).unwrap_or_default();
        if details == b"via_upstream" {
            self.count_local(status_of(stream));
            for (name, value) in
                local::CORS.into_iter().filter(|(name, _)| browser && headers.get(name).is_none())
            {
                stream.set_header(HeaderMap::Response, name, Some(value));
            }
            return Turn::Continue;
        }
        if details == b"request_overall_timeout" {
            // Envoy words it.
            self.count_local(Status::new(408));
            return Turn::Continue;
        }
        self.count_local(Status::new(503));
        let error = Error::unavailable(
            "the ledger is not reachable now; model calls with known keys go on. Try again.",
        );
        let mut reply = refusal(stream, &error);
        local::add_cors(&mut reply, browser);
        self.reply(stream, reply)
    }

    /// Envoy has refused a request whose key was still being looked up: its body is too large, or did not come in time.
    fn on_refused_early(&mut self, stream: &H::Stream) -> Turn {
        let status = status_of(stream);
        self.count_local(status);
        let error = exchange::refused_early(status);
        if let State::Waiting { headers, .. } = &self.state {
            let members = request_members(headers, &Caller::Open, Some(&error));
            self.record(stream, &members);
        }
        self.reply(stream, refusal(stream, &error))
    }
}

/// The hooks.
impl<H: Host> Request<H> {
    /// A call of this stream has its response, or will have none. The request was paused: what comes back is to be
    /// [settled](Turn::settle).
    pub fn on_called(&mut self, stream: &H::Stream, call: CallId, response: Option<CallResponse>) -> Turn {
        // Going on is only right for what has not been answered.
        match std::mem::replace(&mut self.state, State::New) {
            State::Waiting { lookup, headers, ended } => {
                self.policy.worker.with_env(stream, |env| exchange::learn(&lookup, response, env));
                self.open(stream, headers, ended, false)
            }
            other => {
                self.state = other;
                if let Some(caller) = self.policy.waiting.caller(call) {
                    self.policy.go_on(caller, response);
                }
                Turn::Pause
            }
        }
    }

    /// Request headers; `ended`: there is no body.
    pub fn on_request_headers(&mut self, stream: &H::Stream, ended: bool) -> Turn {
        fault::arm(self.policy.worker.host.store(), stream);
        fault::inject(stream, "request_headers");
        let headers = stream.headers(HeaderMap::Request);
        // Internal headers from a client are removed: what steers Envoy and the gateway is theirs alone to say. What the listener says of
        // the client steers nothing.
        for (name, _) in headers.iter().filter(|(name, _)| is_internal_header(name)) {
            stream.set_header(HeaderMap::Request, name, None);
        }
        self.open(stream, headers, ended, true)
    }

    /// A part of the request's body has come, `size` bytes in all that are kept back.
    pub fn on_request_body(&mut self, stream: &H::Stream, size: usize, ended: bool) -> Turn {
        match &mut self.state {
            State::Replied(_) => Turn::Pause,
            State::Waiting { ended: known, .. } => {
                *known = ended;
                self.received = size;
                Turn::Pause
            }
            State::Calling(_) if ended => self.on_whole_body(stream),
            State::Calling(exchange) => {
                // A part is all that has come so far: parts are kept back.
                let exchange = Rc::clone(exchange);
                let next = self.with(&exchange, stream, |exchange, env| exchange.on_body_part(size, env));
                self.act(stream, &exchange, next.or(Some(Next::ReadBody)))
            }
            // Not a model call, and not answered.
            State::New | State::Passed | State::Managing(_) => Turn::Continue,
        }
    }

    /// Request trailers: with them the body never says that it has ended.
    pub fn on_request_trailers(&mut self, stream: &H::Stream) -> Turn {
        match &mut self.state {
            State::Replied(_) => Turn::Pause,
            State::Waiting { ended, .. } => {
                *ended = true;
                Turn::Pause
            }
            _ => self.on_whole_body(stream),
        }
    }

    /// Response headers on their way to the client: a provider's, the ledger's, ours or Envoy's own.
    pub fn on_response_headers(&mut self, stream: &H::Stream) -> Turn {
        let exchange = match &self.state {
            State::Managing(browser) => {
                let browser = *browser;
                return self.on_managed(stream, browser);
            }
            State::Calling(exchange) => Rc::clone(exchange),
            State::Waiting { .. } => return self.on_refused_early(stream),
            _ => return Turn::Continue,
        };
        let released = exchange.try_borrow().is_ok_and(|exchange| exchange.has_responded());
        if released {
            return Turn::Continue;
        }
        note_unreached(stream, &exchange);
        let status = status_of(stream);
        let details = stream.attribute(Attribute::ResponseCodeDetails).unwrap_or_default();
        let details = String::from_utf8_lossy(&details);
        let next = self.with(&exchange, stream, |exchange, env| exchange.on_release(status, &details, env));
        self.act(stream, &exchange, next.or(Some(Next::Pass)))
    }

    /// The stream is over; its access log is about to be written.
    pub fn on_log(&mut self, stream: &H::Stream) {
        fault::inject(stream, "log");
        let policy = Rc::clone(&self.policy);
        policy.waiting.forget(stream.id());
        let exchange = match std::mem::replace(&mut self.state, State::Passed) {
            State::Calling(exchange) | State::Replied(Some(exchange)) => exchange,
            // One that never came this far: Envoy has answered it, or its client has left.
            _ if !self.is_recorded => {
                let headers = stream.headers(HeaderMap::Request);
                let mut members = request_members(&headers, &Caller::Open, None);
                add_failure(stream, &mut members);
                return self.record(stream, &members);
            }
            _ => return,
        };
        note_unreached(stream, &exchange);
        let done = self.with(&exchange, stream, |exchange, env| (exchange.id, exchange.on_done(env)));
        let Some((id, record)) = done else { return };
        policy.worker.exchanges.forget(id);
        let mut members = exchange::record::members(&record);
        if !record.is_whole {
            add_failure(stream, &mut members);
        }
        self.record(stream, &members);
        policy.metrics.record(&policy.worker.host, &record, &policy.config);
        if record.event().is_some_and(|event| policy.worker.report(event)) {
            policy.waiting.hurry(&policy.worker.host, report::EVERY);
        }
    }
}
