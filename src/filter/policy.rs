//! The policy role, in the listener's chain: who may call, what is planned, and what the client gets to see in the end.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use hashbrown::HashMap;
use proxy_wasm::{
    traits::{Context, HttpContext},
    types::Action,
};

use super::{
    exchanges::{self, Shared},
    fault, host, lookup,
    metrics::Metrics,
    report, sync,
};
use crate::core::{
    access::{Caller, changes},
    api::ErrorFormat,
    config::{self, Config},
    error::Error,
    exchange::{self, Begin, EXTERNAL_ADDRESS, Opening, Reply, local, record::request_members},
    headers::Headers,
    ledger::{self, CHANGED_HEADER, CLIENT_HEADER},
    model::{general::General, lookup::Lookup},
    quota,
};

/// Filter state that names the cluster of the next attempt; the route's matcher reads it as `wasm.tollgate.next`.
pub const NEXT: &str = "tollgate.next";
/// Filter state with the record of the request, as members of the access log's JSON object.
const RECORD: &str = "tollgate.record";
/// How often waiting requests (for a free place at a deployment, `mock_timeout`) are looked at.
const TICK: Duration = Duration::from_millis(10);
/// How often this VM says that it lives, so that the requests it holds count.
const BEAT: Duration = Duration::from_secs(1);
/// How long a call of the ledger's API may take.
const MANAGE_LIMIT_MS: u64 = 60_000;
/// How long `/health` may take: it waits for every deployment.
const HEALTH_LIMIT_MS: u64 = 600_000;
/// How often one request may ask for records. Two are regular (its key, its end user); more come when they change meanwhile.
const LOOKUPS: u8 = 6;

thread_local! {
    /// When this VM last said that it lives.
    static BEATEN_MS: Cell<u64> = const { Cell::new(0) };
}

/// One configuration of the role.
pub struct Policy {
    config: Rc<Config>,
    metrics: Rc<Metrics>,
    waiting: Rc<Waiting>,
    /// Somebody wants to know what is decided, as it was when this was configured.
    is_watched: bool,
    /// Stands by for the sync role's own VM, when there is a ledger.
    sync: RefCell<Option<sync::Role>>,
}

/// Requests that wait for a time, by their stream.
struct Waiting {
    list: RefCell<Vec<(u64, u32, Shared)>>,
    /// Those that asked for a record when their time had come, by the call that fetches it.
    asked: RefCell<HashMap<u32, (u32, Shared, Lookup)>>,
    /// How often this role is called now.
    pace: Cell<Duration>,
}

impl Waiting {
    /// Sees that this role is called so often.
    fn pace(&self, pace: Duration) {
        if self.pace.replace(pace) != pace {
            host::tick_every(pace);
        }
    }

    /// Has a request go on after so many milliseconds.
    fn add(&self, ms: u64, context_id: u32, exchange: Shared) {
        if let Ok(mut list) = self.list.try_borrow_mut() {
            list.push((host::now_ms().saturating_add(ms), context_id, exchange));
        }
        self.hurry(TICK);
    }

    /// Sees that it is called at least so often.
    fn hurry(&self, pace: Duration) {
        self.pace(pace.min(self.pace.get()));
    }
}

impl Policy {
    /// Reads the plugin configuration: a LiteLLM `config.yaml`. `None` refuses it, and Envoy keeps what it had.
    pub fn configure() -> Option<Policy> {
        let bytes = host::plugin_configuration();
        let Ok(yaml) = std::str::from_utf8(&bytes) else {
            host::error(
                "tollgate: the plugin configuration is not UTF-8; expected the text of a config.yaml",
            );
            return None;
        };
        let env = |name: &str| std::env::var(name).ok();
        let key = env(config::seal::KEY_VARIABLE).as_deref().and_then(config::seal::parse_key);
        let unseal = |text: &str| config::seal::unseal(text, key.as_ref()?);
        match config::load(yaml, &env, &unseal) {
            Ok(loaded) => Some(Policy::begin(loaded.config)),
            Err(problems) => {
                for problem in problems {
                    host::error(&format!("tollgate: {problem}"));
                }
                None
            }
        }
    }

    /// Makes ready what requests need.
    fn begin(config: Config) -> Policy {
        let shared = &host::SharedData;
        quota::prepare(shared, [exchanges::seed(), exchanges::seed()]);
        changes::prepare(shared);
        beat();
        host::tick_every(BEAT);
        report::flush_when_lost();
        let sync = config.general.has_ledger.then(|| sync::Role::stand_by(config.ledger.batch_write_ms));
        Policy {
            config: Rc::new(config),
            metrics: Rc::new(Metrics::default()),
            is_watched: host::is_watched(),
            waiting: Rc::new(Waiting {
                list: RefCell::default(),
                asked: RefCell::default(),
                pace: Cell::new(BEAT),
            }),
            sync: RefCell::new(sync.flatten()),
        }
    }

    /// A request begins.
    pub fn stream(&self, context_id: u32) -> Request {
        Request {
            context_id,
            config: Rc::clone(&self.config),
            metrics: Rc::clone(&self.metrics),
            waiting: Rc::clone(&self.waiting),
            state: State::New,
            lookups: 0,
            received: 0,
            is_watched: self.is_watched,
            is_recorded: false,
        }
    }

    /// The ledger has answered: a question of a request that had waited, or what this VM told it in the sync role's place.
    pub fn on_answer(&self, token: u32, headers: usize, body: usize) {
        let asked = self.waiting.asked.try_borrow_mut().ok().and_then(|mut asked| asked.remove(&token));
        if let Some((context_id, exchange, lookup)) = asked {
            lookup::learn(&lookup, host::call_answer(headers, body), &self.metrics);
            return self.waiting.add(0, context_id, exchange);
        }
        self.with_sync(|sync| sync.on_answer(headers, body));
    }

    fn with_sync(&self, work: impl FnOnce(&mut sync::Role)) {
        if let Ok(mut sync) = self.sync.try_borrow_mut()
            && let Some(sync) = sync.as_mut()
        {
            work(sync);
        }
    }

    /// Says that this VM lives, and wakes the requests whose wait is over.
    pub fn tick(&self) {
        let now = host::now_ms();
        let reports = report::flush(now);
        if now.saturating_sub(BEATEN_MS.get()) >= BEAT.as_millis() as u64 / 2 {
            beat();
            self.with_sync(sync::Role::tick);
        }
        let Ok(mut list) = self.waiting.list.try_borrow_mut() else { return };
        let (due, later) = std::mem::take(&mut *list).into_iter().partition(|(until, _, _)| *until <= now);
        *list = later;
        let idle = list.is_empty();
        drop(list);
        let due: Vec<(u64, u32, Shared)> = due;
        let mut waits = !idle;
        for (_, context_id, exchange) in due {
            // A stream that is over cannot be entered.
            if host::enter(context_id)
                && let Some(ms) = self.wake(context_id, &exchange)
                && let Ok(mut list) = self.waiting.list.try_borrow_mut()
            {
                // Behind those who have waited as long: who came first is asked first.
                list.push((now.saturating_add(ms), context_id, exchange));
                waits = true;
            }
        }
        // Who has just reported will do so again.
        self.waiting.pace(match (waits, reports) {
            (true, _) => TICK,
            (false, true) => report::EVERY,
            (false, false) => BEAT,
        });
    }

    /// Goes on with a request that has waited for a time. Milliseconds: it has to wait again.
    fn wake(&self, context_id: u32, exchange: &Shared) -> Option<u64> {
        // Envoy may have refused it meanwhile.
        if exchange.try_borrow().map_or(true, |exchange| exchange.is_answered()) {
            return None;
        }
        // The body is copied only for a request that goes on.
        if let Some(ms) = exchanges::with(exchange, |exchange, env| exchange.on_wait(env)).flatten() {
            return Some(ms);
        }
        let body = host::request_body();
        match exchanges::with(exchange, |exchange, env| exchange.on_body(&body, env))? {
            Begin::Reply(answer) => host::reply(answer.status, &answer.headers, &answer.body),
            Begin::Forward { cluster, max_retries, per_try_timeout_ms } => {
                forward(&cluster, max_retries, per_try_timeout_ms);
                host::resume_request();
            }
            Begin::Wait(ms) => return Some(ms),
            // Where the ledger cannot be asked it is known to be away by now.
            Begin::Ask(lookup) => match lookup::ask(&lookup, &self.metrics) {
                Some(token) => {
                    if let Ok(mut asked) = self.waiting.asked.try_borrow_mut() {
                        asked.insert(token, (context_id, Rc::clone(exchange), lookup));
                    }
                }
                None => return Some(0),
            },
        }
        None
    }
}

/// Says that this VM lives.
fn beat() {
    let now = host::now_ms();
    BEATEN_MS.set(now);
    quota::beat(&host::SharedData, exchanges::worker(), now);
}

/// Names the first cluster and tells Envoy how often and how long to try. Headers come last: changing one makes Envoy choose
/// its route again.
fn forward(cluster: &str, max_retries: u32, per_try_timeout_ms: u64) {
    host::set_state(NEXT, cluster.as_bytes());
    host::set_request_header("x-envoy-upstream-rq-per-try-timeout-ms", &per_try_timeout_ms.to_string());
    host::set_request_header("x-envoy-max-retries", &max_retries.to_string());
}

/// Names the ledger's cluster. It is asked once: a call that makes something must not be made twice.
fn forward_to_ledger(headers: &Headers, general: &General) {
    let is_health = headers.text(":path").is_some_and(|path| path.starts_with("/health"));
    let limit_ms = if is_health { HEALTH_LIMIT_MS } else { MANAGE_LIMIT_MS };
    host::set_state(NEXT, ledger::CLUSTER.as_bytes());
    if let Some(client) = exchange::client_address(headers, general, &host::client) {
        host::set_request_header(CLIENT_HEADER, &client);
    }
    host::set_request_header("x-envoy-upstream-rq-timeout-ms", &limit_ms.to_string());
    host::set_request_header("x-envoy-max-retries", "0");
}

/// Tells a request whose answer has not begun when there was no connection to its provider yet: nothing has been sent.
fn note_unreached(exchange: &Shared) {
    let awaits = exchange.try_borrow().is_ok_and(|exchange| exchange.awaits_answer());
    if awaits && host::property(&["upstream", "local_address"]).is_none_or(|address| address.is_empty()) {
        exchange.try_borrow_mut().into_iter().for_each(|mut exchange| exchange.on_unreached());
    }
}

/// Adds what Envoy knows of the end of a request.
fn add_failure(members: &mut Vec<u8>) {
    let details = host::property(&["response", "code_details"]);
    let connection = host::property(&["upstream", "transport_failure_reason"]);
    exchange::record::add_failure(members, details.as_deref(), connection.as_deref());
}

/// Whether a header of a client would tell Envoy or us what to do.
fn steers(name: &str) -> bool {
    let ours = name.starts_with("x-envoy-") || name.starts_with("x-tollgate-");
    ours && name != EXTERNAL_ADDRESS && name != "x-envoy-internal"
}

/// One request.
pub struct Request {
    context_id: u32,
    config: Rc<Config>,
    metrics: Rc<Metrics>,
    waiting: Rc<Waiting>,
    state: State,
    /// How often it has asked for a record.
    lookups: u8,
    /// Bytes of its body that came while its key was looked up.
    received: usize,
    /// Somebody wants to know what is decided.
    is_watched: bool,
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
    Calling(Shared),
    /// A model call whose end user is being looked up.
    Naming(Shared, Lookup),
    /// An answer of ours is on its way through this same filter.
    Replied(Option<Shared>),
}

impl Request {
    /// Answers the client. Every answer of this role goes through here.
    fn reply(&mut self, answer: &Reply) -> Action {
        let exchange = match std::mem::replace(&mut self.state, State::New) {
            State::Calling(exchange) | State::Naming(exchange, _) => Some(exchange),
            State::Replied(exchange) => exchange,
            _ => None,
        };
        self.state = State::Replied(exchange);
        if !answer.members.is_empty() {
            self.record(&answer.members);
        }
        host::reply(answer.status, &answer.headers, &answer.body);
        Action::Pause
    }

    /// Tells the access log what this request was.
    fn record(&mut self, members: &[u8]) {
        self.is_recorded = true;
        host::set_state(RECORD, members);
    }

    /// Has the whole body read in the next tick. A body that is too much for this VM kills it wherever it is read, but a
    /// request that is in a call's answer then would never be answered.
    fn read_later(&mut self, exchange: Shared) -> Action {
        self.waiting.add(0, self.context_id, exchange);
        Action::Pause
    }

    /// Finds out what a request is. It may come here again, once its key has been looked up. `now`: its body may be read here.
    fn open(&mut self, headers: Headers, ended: bool, now: bool) -> Action {
        let Some(opening) = exchanges::with_env(|env| exchange::open(&self.config, &headers, env)) else {
            return self.reply(&super::lost());
        };
        match opening {
            Opening::Reply(answer) => {
                self.metrics.local(answer.status);
                if self.is_watched {
                    let members = String::from_utf8_lossy(&answer.members);
                    host::info(&format!(
                        "answered here with {}: {}",
                        answer.status,
                        members.trim_start_matches(',')
                    ));
                }
                self.reply(&answer)
            }
            Opening::Refuse(exchange, answer) => {
                self.state = State::Replied(Some(Rc::new(RefCell::new(*exchange))));
                self.reply(&answer)
            }
            Opening::Pass => {
                self.record(&request_members(&headers, &Caller::Open, None));
                self.state = State::Passed;
                Action::Continue
            }
            Opening::Manage => {
                self.record(&request_members(&headers, &Caller::Open, None));
                self.state = State::Managing(headers.get("origin").is_some());
                forward_to_ledger(&headers, &self.config.general);
                Action::Continue
            }
            Opening::Ask(lookup) => {
                if !self.may_ask() {
                    return self.reply(&super::lost());
                }
                if lookup::ask(&lookup, &self.metrics).is_none() {
                    return self.open(headers, ended, true);
                }
                self.state = State::Identifying { lookup, headers, ended };
                Action::Pause
            }
            Opening::Call(exchange) => {
                let mut exchange = *exchange;
                if self.is_watched {
                    exchange.watch();
                }
                let exchange = Rc::new(RefCell::new(exchange));
                exchanges::file(&exchange);
                self.state = State::Calling(Rc::clone(&exchange));
                match (ended, now) {
                    (true, true) => self.on_whole_body(),
                    (true, false) => self.read_later(exchange),
                    (false, _) => {
                        let received = self.received;
                        let refusal = exchanges::with(&exchange, |exchange, env| {
                            exchange.on_headers(env).or_else(|| exchange.on_body_part(received, env))
                        });
                        refusal.flatten().map_or(Action::Pause, |answer| self.reply(&answer))
                    }
                }
            }
        }
    }

    /// Whether one more record may be asked for.
    fn may_ask(&mut self) -> bool {
        self.lookups = self.lookups.saturating_add(1);
        self.lookups <= LOOKUPS
    }

    /// The whole body is here, or the headers say that there is none.
    fn on_whole_body(&mut self) -> Action {
        fault::strike("request_body");
        let State::Calling(exchange) = &self.state else { return Action::Continue };
        let exchange = Rc::clone(exchange);
        let body = host::request_body();
        let Some(begin) = exchanges::with(&exchange, |exchange, env| exchange.on_body(&body, env)) else {
            return self.reply(&super::lost());
        };
        match begin {
            Begin::Reply(answer) => self.reply(&answer),
            Begin::Forward { cluster, max_retries, per_try_timeout_ms } => {
                forward(&cluster, max_retries, per_try_timeout_ms);
                Action::Continue
            }
            Begin::Wait(ms) => {
                self.waiting.add(ms, self.context_id, exchange);
                Action::Pause
            }
            Begin::Ask(lookup) => {
                if !self.may_ask() {
                    return self.reply(&super::lost());
                }
                if lookup::ask(&lookup, &self.metrics).is_none() {
                    return self.on_whole_body();
                }
                self.state = State::Naming(exchange, lookup);
                Action::Pause
            }
        }
    }

    /// The ledger has answered a question of this request.
    fn on_record(&mut self, answer: Option<(u16, Vec<u8>)>) -> Action {
        match std::mem::replace(&mut self.state, State::New) {
            State::Identifying { lookup, headers, ended } => {
                lookup::learn(&lookup, answer, &self.metrics);
                self.open(headers, ended, false)
            }
            State::Naming(exchange, lookup) => {
                lookup::learn(&lookup, answer, &self.metrics);
                self.state = State::Calling(Rc::clone(&exchange));
                self.read_later(exchange)
            }
            other => {
                self.state = other;
                Action::Pause
            }
        }
    }

    /// The ledger's answer to a management call, or Envoy's when there was none.
    fn on_managed(&mut self, browser: bool) -> Action {
        let headers = host::answer_headers();
        if let Some(changed) = headers.text(CHANGED_HEADER) {
            ledger::announce(&host::SharedData, changed);
            host::remove_answer_header(CHANGED_HEADER);
        }
        let details = host::property(&["response", "code_details"]).unwrap_or_default();
        if details == b"via_upstream" {
            self.metrics.local(headers.text(":status").and_then(|text| text.parse().ok()).unwrap_or(0));
            for (name, value) in
                local::CORS.into_iter().filter(|(name, _)| browser && headers.get(name).is_none())
            {
                host::set_answer_header(name, value);
            }
            return Action::Continue;
        }
        if details == b"request_overall_timeout" {
            // Envoy words it.
            self.metrics.local(408);
            return Action::Continue;
        }
        self.metrics.local(503);
        let error =
            Error::new(503, "the ledger is not reachable now; model calls with known keys go on. Try again.")
                .with_kind("service_unavailable");
        let mut answer = local::refusal(&error, ErrorFormat::OpenAi, "");
        local::add_cors(&mut answer, browser);
        self.reply(&answer)
    }
}

impl Request {
    /// Envoy has refused a request whose key was still being looked up: its body is too large, or did not come in time.
    fn on_refused_early(&mut self) -> Action {
        let status = host::answer_headers().text(":status").and_then(|text| text.parse().ok()).unwrap_or(500);
        let message = match status {
            413 => "the request body is too large.",
            408 | 504 => exchange::TOO_SLOW,
            _ => "the request could not be read.",
        };
        self.metrics.local(status);
        let error = Error::new(status, message).with_kind("invalid_request_error");
        if let State::Identifying { headers, .. } = &self.state {
            let members = request_members(headers, &Caller::Open, Some(&error));
            self.record(&members);
        }
        self.reply(&local::refusal(&error, ErrorFormat::OpenAi, ""))
    }
}

impl Context for Request {
    fn on_http_call_response(&mut self, _token: u32, headers: usize, body: usize, _trailers: usize) {
        // Going on is only right for what has not been answered.
        if self.on_record(host::call_answer(headers, body)) == Action::Continue {
            host::resume_request();
        }
    }
}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        fault::arm();
        fault::strike("request_headers");
        let headers = host::request_headers();
        // What steers Envoy and us is ours alone to say. What the listener says of the client steers nothing.
        for (name, _) in headers.iter().filter(|(name, _)| steers(name)) {
            host::remove_request_header(name);
        }
        self.open(headers, end_of_stream, true)
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match &mut self.state {
            State::Replied(_) | State::Naming(..) => Action::Pause,
            State::Identifying { ended, .. } => {
                *ended = end_of_stream;
                self.received = size;
                Action::Pause
            }
            State::Calling(_) if end_of_stream => self.on_whole_body(),
            State::Calling(exchange) => {
                // A part is all that has come so far: parts are kept back.
                let refusal = exchanges::with(exchange, |exchange, env| exchange.on_body_part(size, env));
                refusal.flatten().map_or(Action::Pause, |answer| self.reply(&answer))
            }
            // Not a model call, and not answered.
            State::New | State::Passed | State::Managing(_) => Action::Continue,
        }
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        // With trailers the body never says that it has ended.
        match &mut self.state {
            State::Replied(_) | State::Naming(..) => Action::Pause,
            State::Identifying { ended, .. } => {
                *ended = true;
                Action::Pause
            }
            _ => self.on_whole_body(),
        }
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let exchange = match &self.state {
            State::Managing(browser) => {
                let browser = *browser;
                return self.on_managed(browser);
            }
            State::Calling(exchange) | State::Naming(exchange, _) => Rc::clone(exchange),
            State::Identifying { .. } => return self.on_refused_early(),
            _ => return Action::Continue,
        };
        let released = exchange.try_borrow().is_ok_and(|exchange| exchange.is_answered());
        if released {
            return Action::Continue;
        }
        note_unreached(&exchange);
        let status = host::answer_headers().text(":status").and_then(|text| text.parse().ok()).unwrap_or(0);
        let details = host::property(&["response", "code_details"]).unwrap_or_default();
        let details = String::from_utf8_lossy(&details);
        let decided = exchanges::with(&exchange, |exchange, env| exchange.on_release(status, &details, env));
        match decided.flatten() {
            Some(answer) => self.reply(&answer),
            None => Action::Continue,
        }
    }

    fn on_log(&mut self) {
        fault::strike("log");
        let exchange = match std::mem::replace(&mut self.state, State::Passed) {
            State::Calling(exchange) | State::Naming(exchange, _) | State::Replied(Some(exchange)) => {
                exchange
            }
            // One that never came this far: Envoy has answered it, or its client has left.
            _ if !self.is_recorded => {
                let mut members = request_members(&host::request_headers(), &Caller::Open, None);
                add_failure(&mut members);
                return self.record(&members);
            }
            _ => return,
        };
        note_unreached(&exchange);
        let Some((id, record)) =
            exchanges::with(&exchange, |exchange, env| (exchange.id, exchange.on_done(env)))
        else {
            return;
        };
        exchanges::forget(id);
        let mut members = record.to_members();
        if !record.is_whole() {
            add_failure(&mut members);
        }
        self.record(&members);
        self.metrics.record(&record, &self.config);
        if record.event().is_some_and(|event| report::report(event, host::now_ms())) {
            self.waiting.hurry(report::EVERY);
        }
    }
}
