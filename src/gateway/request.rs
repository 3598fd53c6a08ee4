//! One request in the listener's chain, from its headers to the access log.

use std::{cell::RefCell, rc::Rc};

use super::{Turn, exchanges::ExchangeRef, fault, lookup, metrics, policy::Policy, report, worker::client};
use crate::core::{
    access::{Caller, changes},
    error::{Error, ErrorFormat},
    exchange::{self, Begin, EXTERNAL_ADDRESS, Opening, Reply, local, record::request_members},
    headers::Headers,
    host::{Attribute, CallId, CallResponse, HeaderMap, Host, Level, Side, Stream},
    model::{general::General, lookup::Lookup},
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

/// Names the first cluster and tells Envoy how often and how long to try. Headers come last: changing one makes Envoy choose
/// its route again.
pub(super) fn forward(stream: &impl Stream, cluster: &str, max_retries: u32, per_try_timeout_ms: u64) {
    stream.set_state(NEXT, cluster.as_bytes());
    set(stream, "x-envoy-upstream-rq-per-try-timeout-ms", &per_try_timeout_ms.to_string());
    set(stream, "x-envoy-max-retries", &max_retries.to_string());
}

fn set(stream: &impl Stream, name: &str, value: &str) {
    stream.set_header(HeaderMap::Request, name, Some(value));
}

/// Names the ledger's cluster. It is asked once: a call that makes something must not be made twice.
fn forward_to_ledger(stream: &impl Stream, headers: &Headers, general: &General) {
    let is_health = headers.text(":path").is_some_and(|path| path.starts_with("/health"));
    let limit_ms = if is_health { HEALTH_LIMIT_MS } else { MANAGE_LIMIT_MS };
    stream.set_state(NEXT, protocol::CLUSTER.as_bytes());
    if let Some(address) = exchange::client_address(headers, general, &|| client(stream)) {
        set(stream, CLIENT_HEADER, &address);
    }
    set(stream, "x-envoy-upstream-rq-timeout-ms", &limit_ms.to_string());
    set(stream, "x-envoy-max-retries", "0");
}

/// Tells a request whose answer has not begun when there was no connection to its provider yet: nothing has been sent.
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
fn status_of(stream: &impl Stream) -> Option<u16> {
    stream.headers(HeaderMap::Response).text(":status").and_then(|text| text.parse().ok())
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
    /// Its key is being looked up.
    Identifying { lookup: Lookup, headers: Headers, ended: bool },
    /// A call of the ledger's API; true for a browser's.
    Managing(bool),
    /// A model call.
    Calling(ExchangeRef),
    /// A model call whose end user is being looked up.
    Naming(ExchangeRef, Lookup),
    /// An answer of ours is on its way through this same filter.
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

    /// Answers the client. Every answer of this role goes through here.
    fn reply(&mut self, stream: &H::Stream, answer: Reply) -> Turn {
        let exchange = match std::mem::replace(&mut self.state, State::New) {
            State::Calling(exchange) | State::Naming(exchange, _) => Some(exchange),
            State::Replied(exchange) => exchange,
            _ => None,
        };
        self.state = State::Replied(exchange);
        if !answer.members.is_empty() {
            self.record(stream, &answer.members);
        }
        Turn::Reply(answer)
    }

    /// Answers with what the core decided, if it did.
    fn reply_or_pause(&mut self, stream: &H::Stream, answer: Option<Reply>) -> Turn {
        answer.map_or(Turn::Pause, |answer| self.reply(stream, answer))
    }

    /// Tells the access log what this request was.
    fn record(&mut self, stream: &H::Stream, members: &[u8]) {
        self.is_recorded = true;
        stream.set_state(RECORD, members);
    }

    /// Counts a request that called no model.
    fn count_local(&self, status: u16) {
        self.policy.worker.count(&metrics::local(status), 1);
    }

    /// Has the whole body read in the next tick. A body that is too much for this worker kills it wherever it is read, but a
    /// request that is in a call's answer then would never be answered.
    fn read_later(&mut self, stream: &H::Stream, exchange: ExchangeRef) -> Turn {
        self.wait(stream, 0, exchange)
    }

    fn wait(&self, stream: &H::Stream, ms: u64, exchange: ExchangeRef) -> Turn {
        self.policy.waiting.add(&self.policy.worker.host, ms, stream.id(), exchange);
        Turn::Pause
    }

    /// Finds out what a request is. It may come here again, once its key has been looked up. `now`: its body may be read here.
    fn open(&mut self, stream: &H::Stream, headers: Headers, ended: bool, now: bool) -> Turn {
        let policy = Rc::clone(&self.policy);
        let opening = policy.worker.with_env(stream, |env| exchange::open(&policy.config, &headers, env));
        let Some(opening) = opening else { return self.reply(stream, super::lost()) };
        match opening {
            Opening::Reply(answer) => {
                self.count_local(answer.status);
                if policy.is_watched {
                    let members = String::from_utf8_lossy(&answer.members);
                    let members = members.trim_start_matches(',');
                    let line = format!("answered here with {}: {members}", answer.status);
                    policy.worker.host.log(Level::Info, &line);
                }
                self.reply(stream, answer)
            }
            Opening::Refuse(exchange, answer) => {
                self.state = State::Replied(Some(Rc::new(RefCell::new(*exchange))));
                self.reply(stream, answer)
            }
            Opening::Pass => {
                self.record(stream, &request_members(&headers, &Caller::Open, None));
                self.state = State::Passed;
                Turn::Continue
            }
            Opening::Manage => {
                self.record(stream, &request_members(&headers, &Caller::Open, None));
                self.state = State::Managing(headers.get("origin").is_some());
                forward_to_ledger(stream, &headers, &policy.config.general);
                Turn::Continue
            }
            Opening::Ask(lookup) => {
                if !self.may_ask() {
                    return self.reply(stream, super::lost());
                }
                if lookup::ask(&policy.worker, stream, &lookup).is_none() {
                    return self.open(stream, headers, ended, true);
                }
                self.state = State::Identifying { lookup, headers, ended };
                Turn::Pause
            }
            Opening::Call(exchange) => self.begin_call(stream, *exchange, ended, now),
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
        match (ended, now) {
            (true, true) => self.on_whole_body(stream),
            (true, false) => self.read_later(stream, exchange),
            (false, _) => {
                let received = self.received;
                let refusal = self.with(&exchange, stream, |exchange, env| {
                    exchange.on_headers(env).or_else(|| exchange.on_body_part(received, env))
                });
                self.reply_or_pause(stream, refusal.flatten())
            }
        }
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
        let Some(begin) = self.with(&exchange, stream, |exchange, env| exchange.on_body(&body, env)) else {
            return self.reply(stream, super::lost());
        };
        match begin {
            Begin::Reply(answer) => self.reply(stream, answer),
            Begin::Forward { cluster, max_retries, per_try_timeout_ms } => {
                forward(stream, &cluster, max_retries, per_try_timeout_ms);
                Turn::Continue
            }
            Begin::Wait(ms) => self.wait(stream, ms, exchange),
            Begin::Ask(lookup) => {
                if !self.may_ask() {
                    return self.reply(stream, super::lost());
                }
                if lookup::ask(&self.policy.worker, stream, &lookup).is_none() {
                    return self.on_whole_body(stream);
                }
                self.state = State::Naming(exchange, lookup);
                Turn::Pause
            }
        }
    }

    /// The ledger's answer to a management call, or Envoy's when there was none.
    fn on_managed(&mut self, stream: &H::Stream, browser: bool) -> Turn {
        let headers = stream.headers(HeaderMap::Response);
        if let Some(changed) = headers.text(CHANGED_HEADER) {
            changes::announce_header(self.policy.worker.host.store(), changed);
            stream.set_header(HeaderMap::Response, CHANGED_HEADER, None);
        }
        let details = stream.attribute(Attribute::ResponseCodeDetails).unwrap_or_default();
        if details == b"via_upstream" {
            self.count_local(headers.text(":status").and_then(|text| text.parse().ok()).unwrap_or(0));
            for (name, value) in
                local::CORS.into_iter().filter(|(name, _)| browser && headers.get(name).is_none())
            {
                stream.set_header(HeaderMap::Response, name, Some(value));
            }
            return Turn::Continue;
        }
        if details == b"request_overall_timeout" {
            // Envoy words it.
            self.count_local(408);
            return Turn::Continue;
        }
        self.count_local(503);
        let error =
            Error::new(503, "the ledger is not reachable now; model calls with known keys go on. Try again.")
                .with_kind("service_unavailable");
        let mut answer = local::refusal(&error, ErrorFormat::OpenAi, "");
        local::add_cors(&mut answer, browser);
        self.reply(stream, answer)
    }

    /// Envoy has refused a request whose key was still being looked up: its body is too large, or did not come in time.
    fn on_refused_early(&mut self, stream: &H::Stream) -> Turn {
        let status = status_of(stream).unwrap_or(500);
        let message = match status {
            413 => "the request body is too large.",
            408 | 504 => exchange::TOO_SLOW,
            _ => "the request could not be read.",
        };
        self.count_local(status);
        let error = Error::new(status, message).with_kind("invalid_request_error");
        if let State::Identifying { headers, .. } = &self.state {
            let members = request_members(headers, &Caller::Open, Some(&error));
            self.record(stream, &members);
        }
        self.reply(stream, local::refusal(&error, ErrorFormat::OpenAi, ""))
    }
}

/// The hooks.
impl<H: Host> Request<H> {
    /// A call of this stream has its response, or will have none. The request was paused: what comes back is to be
    /// [settled](Turn::settle).
    pub fn on_called(&mut self, stream: &H::Stream, call: CallId, response: Option<CallResponse>) -> Turn {
        // Going on is only right for what has not been answered.
        match std::mem::replace(&mut self.state, State::New) {
            State::Identifying { lookup, headers, ended } => {
                lookup::learn(&self.policy.worker, &lookup, response);
                self.open(stream, headers, ended, false)
            }
            State::Naming(exchange, lookup) => {
                lookup::learn(&self.policy.worker, &lookup, response);
                self.state = State::Calling(Rc::clone(&exchange));
                self.read_later(stream, exchange)
            }
            other => {
                self.state = other;
                self.policy.on_asked(call, response);
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
            State::Replied(_) | State::Naming(..) => Turn::Pause,
            State::Identifying { ended: known, .. } => {
                *known = ended;
                self.received = size;
                Turn::Pause
            }
            State::Calling(_) if ended => self.on_whole_body(stream),
            State::Calling(exchange) => {
                // A part is all that has come so far: parts are kept back.
                let exchange = Rc::clone(exchange);
                let refusal = self.with(&exchange, stream, |exchange, env| exchange.on_body_part(size, env));
                self.reply_or_pause(stream, refusal.flatten())
            }
            // Not a model call, and not answered.
            State::New | State::Passed | State::Managing(_) => Turn::Continue,
        }
    }

    /// Request trailers: with them the body never says that it has ended.
    pub fn on_request_trailers(&mut self, stream: &H::Stream) -> Turn {
        match &mut self.state {
            State::Replied(_) | State::Naming(..) => Turn::Pause,
            State::Identifying { ended, .. } => {
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
            State::Calling(exchange) | State::Naming(exchange, _) => Rc::clone(exchange),
            State::Identifying { .. } => return self.on_refused_early(stream),
            _ => return Turn::Continue,
        };
        let released = exchange.try_borrow().is_ok_and(|exchange| exchange.has_responded());
        if released {
            return Turn::Continue;
        }
        note_unreached(stream, &exchange);
        let status = status_of(stream).unwrap_or(0);
        let details = stream.attribute(Attribute::ResponseCodeDetails).unwrap_or_default();
        let details = String::from_utf8_lossy(&details);
        let decided =
            self.with(&exchange, stream, |exchange, env| exchange.on_release(status, &details, env));
        match decided.flatten() {
            Some(answer) => self.reply(stream, answer),
            None => Turn::Continue,
        }
    }

    /// The stream is over; its access log is about to be written.
    pub fn on_log(&mut self, stream: &H::Stream) {
        fault::inject(stream, "log");
        let policy = Rc::clone(&self.policy);
        policy.waiting.forget(stream.id());
        let exchange = match std::mem::replace(&mut self.state, State::Passed) {
            State::Calling(exchange) | State::Naming(exchange, _) | State::Replied(Some(exchange)) => {
                exchange
            }
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
