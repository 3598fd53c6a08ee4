//! The policy role, in the listener's chain: who may call, what is planned, and what the client gets to see in the end.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use proxy_wasm::{
    traits::{Context, HttpContext},
    types::Action,
};

use super::{
    exchanges::{self, Shared},
    fault, host,
    metrics::Metrics,
};
use crate::core::{
    config::{self, Config},
    exchange::{self, Begin, Opening, Reply},
};

/// Filter state that names the cluster of the next attempt; the route's matcher reads it as `wasm.tollgate.next`.
pub const NEXT: &str = "tollgate.next";
/// Filter state with the record of the request, for access logs.
const USAGE: &str = "tollgate.usage";
/// How often waiting requests (`mock_timeout`) are looked at.
const TICK: Duration = Duration::from_millis(50);

/// One configuration of the role.
pub struct Policy {
    config: Rc<Config>,
    metrics: Rc<Metrics>,
    waiting: Rc<Waiting>,
}

/// Requests that wait for a time, by their stream.
#[derive(Default)]
struct Waiting {
    list: RefCell<Vec<(u64, u32, Shared)>>,
    ticking: Cell<bool>,
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
            Ok(loaded) => Some(Policy {
                config: Rc::new(loaded.config),
                metrics: Rc::new(Metrics::default()),
                waiting: Rc::default(),
            }),
            Err(problems) => {
                for problem in problems {
                    host::error(&format!("tollgate: {problem}"));
                }
                None
            }
        }
    }

    /// A request begins.
    pub fn stream(&self, context_id: u32) -> Request {
        Request {
            context_id,
            config: Rc::clone(&self.config),
            metrics: Rc::clone(&self.metrics),
            waiting: Rc::clone(&self.waiting),
            exchange: None,
            replied: false,
        }
    }

    /// Wakes the requests whose wait is over.
    pub fn tick(&self) {
        let now = host::now_ms();
        let Ok(mut list) = self.waiting.list.try_borrow_mut() else { return };
        let (due, later) = std::mem::take(&mut *list).into_iter().partition(|(until, _, _)| *until <= now);
        *list = later;
        let idle = list.is_empty();
        drop(list);
        let due: Vec<(u64, u32, Shared)> = due;
        for (_, context_id, exchange) in due {
            if host::enter(context_id) {
                let body = host::request_body();
                if let Some(begin) = exchanges::with(&exchange, |exchange, env| exchange.on_body(&body, env))
                {
                    resume(begin);
                }
            }
        }
        if idle {
            self.waiting.ticking.set(false);
            host::tick_every(Duration::ZERO);
        }
    }
}

/// Goes on with a request that has waited.
fn resume(begin: Begin) {
    match begin {
        Begin::Reply(answer) => host::reply(answer.status, &answer.headers, &answer.body),
        Begin::Forward { cluster, max_retries, per_try_timeout_ms } => {
            forward(&cluster, max_retries, per_try_timeout_ms);
            host::resume_request();
        }
        Begin::Wait(_) | Begin::Ask(_) => host::reply(500, &[], b""),
    }
}

/// Names the first cluster and tells Envoy how often and how long to try. Headers come last: changing one makes Envoy choose
/// its route again.
fn forward(cluster: &str, max_retries: u32, per_try_timeout_ms: u64) {
    host::set_state(NEXT, cluster.as_bytes());
    host::set_request_header("x-envoy-upstream-rq-per-try-timeout-ms", &per_try_timeout_ms.to_string());
    host::set_request_header("x-envoy-max-retries", &max_retries.to_string());
}

/// One request.
pub struct Request {
    context_id: u32,
    config: Rc<Config>,
    metrics: Rc<Metrics>,
    waiting: Rc<Waiting>,
    exchange: Option<Shared>,
    /// An answer of ours is on its way through this same filter.
    replied: bool,
}

impl Request {
    /// Answers the client. Every answer of this role goes through here.
    fn reply(&mut self, answer: &Reply) -> Action {
        self.replied = true;
        host::reply(answer.status, &answer.headers, &answer.body);
        Action::Pause
    }

    /// The whole body is here, or the headers say that there is none.
    fn on_whole_body(&mut self) -> Action {
        fault::strike("request_body");
        let Some(exchange) = self.exchange.clone() else { return Action::Continue };
        let body = host::request_body();
        let Some(begin) = exchanges::with(&exchange, |exchange, env| exchange.on_body(&body, env)) else {
            return Action::Continue;
        };
        match begin {
            Begin::Reply(answer) => self.reply(&answer),
            Begin::Forward { cluster, max_retries, per_try_timeout_ms } => {
                forward(&cluster, max_retries, per_try_timeout_ms);
                Action::Continue
            }
            Begin::Wait(ms) => {
                if let Ok(mut list) = self.waiting.list.try_borrow_mut() {
                    list.push((host::now_ms().saturating_add(ms), self.context_id, exchange));
                }
                if !self.waiting.ticking.replace(true) {
                    host::tick_every(TICK);
                }
                Action::Pause
            }
            Begin::Ask(_) => self.reply(&Reply { status: 500, headers: Vec::new(), body: Vec::new() }),
        }
    }
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        fault::arm();
        fault::strike("request_headers");
        let headers = host::request_headers();
        // What steers Envoy and us is ours alone to say.
        for (name, _) in
            headers.iter().filter(|(name, _)| name.starts_with("x-envoy-") || name.starts_with("x-tollgate-"))
        {
            host::remove_request_header(name);
        }
        let Some(opening) = exchanges::with_env(|env| exchange::open(&self.config, &headers, env)) else {
            return Action::Continue;
        };
        match opening {
            Opening::Reply(answer) => {
                self.metrics.local(answer.status);
                self.reply(&answer)
            }
            Opening::Pass => Action::Continue,
            // Without a ledger neither comes.
            Opening::Ask(_) | Opening::Manage => {
                self.reply(&Reply { status: 500, headers: Vec::new(), body: Vec::new() })
            }
            Opening::Call(exchange) => {
                let exchange = Rc::new(RefCell::new(*exchange));
                exchanges::file(&exchange);
                self.exchange = Some(exchange);
                if end_of_stream { self.on_whole_body() } else { Action::Pause }
            }
        }
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if self.replied {
            return Action::Pause;
        }
        // Not a model call, and not answered: Envoy's own business.
        let Some(exchange) = &self.exchange else { return Action::Continue };
        if end_of_stream {
            return self.on_whole_body();
        }
        // A part is all that has come so far: parts are kept back.
        let refusal = exchange.try_borrow_mut().ok().and_then(|mut exchange| exchange.on_body_part(size));
        refusal.map_or(Action::Pause, |answer| self.reply(&answer))
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        // With trailers the body never says that it has ended.
        if self.replied {
            return Action::Pause;
        }
        self.on_whole_body()
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        if self.replied {
            return Action::Continue;
        }
        let Some(exchange) = &self.exchange else { return Action::Continue };
        let released = exchange.try_borrow().is_ok_and(|exchange| exchange.is_answered());
        if released {
            return Action::Continue;
        }
        let status = host::answer_headers().text(":status").and_then(|text| text.parse().ok()).unwrap_or(0);
        let details = host::property(&["response", "code_details"]).unwrap_or_default();
        let details = String::from_utf8_lossy(&details);
        let decided = exchanges::with(exchange, |exchange, env| exchange.on_release(status, &details, env));
        match decided.flatten() {
            Some(answer) => self.reply(&answer),
            None => Action::Continue,
        }
    }

    fn on_log(&mut self) {
        fault::strike("log");
        let Some(exchange) = self.exchange.take() else { return };
        let Some((id, record)) =
            exchanges::with(&exchange, |exchange, env| (exchange.id, exchange.on_done(env)))
        else {
            return;
        };
        exchanges::forget(id);
        host::set_state(USAGE, record.to_json().as_bytes());
        self.metrics.record(&record, &self.config);
    }
}
