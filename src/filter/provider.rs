//! The provider role, in the router's upstream chain: once per attempt, the request as this provider wants it, and
//! its answer as the client wants it.

use proxy_wasm::{
    traits::{Context, HttpContext},
    types::Action,
};

use super::{
    exchanges::{self, Shared},
    fault, host,
    policy::NEXT,
};
use crate::core::exchange::{
    Reply,
    answer::Step,
    attempt::{Outgoing, StartAction},
};

/// One attempt.
#[derive(Default)]
pub struct Attempt {
    exchange: Option<Shared>,
    /// The body to send, until its first part comes by.
    body: Option<Vec<u8>>,
    state: Sending,
    /// The host keeps the answer's body back for us. A body can be changed only while it comes by or is kept back; trying it
    /// at another time is an error that the SDK answers with a panic.
    keeps_answer: bool,
}

/// What happens to the request body's parts.
#[derive(Clone, Copy, Default, PartialEq)]
enum Sending {
    /// They are collected; the request is made when the last has come.
    #[default]
    Collect,
    /// The first is replaced by the whole new body, the others by nothing.
    Replace,
    /// Nothing is sent: the client has been answered.
    Stop,
}

impl Attempt {
    fn reply(&mut self, answer: &Reply) -> Action {
        self.state = Sending::Stop;
        host::reply(answer.status, &answer.headers, &answer.body);
        Action::Pause
    }

    fn send(&mut self, outgoing: Outgoing) {
        host::replace_request_headers(&outgoing.headers);
        self.body = Some(outgoing.body);
        self.state = Sending::Replace;
    }

    /// The client's whole body is here, for an attempt after the first.
    fn on_whole_body(&mut self) -> Action {
        let Some(exchange) = self.exchange.clone() else { return Action::Continue };
        let body = host::request_body();
        match exchanges::with(&exchange, |exchange, env| exchange.on_retry_body(&body, env)) {
            Some(Ok(outgoing)) => {
                self.send(outgoing);
                self.replace();
                Action::Continue
            }
            Some(Err(answer)) => self.reply(&answer),
            None => Action::Continue,
        }
    }

    /// Puts the new body where the old one was.
    fn replace(&mut self) {
        host::replace_request_body(&self.body.take().unwrap_or_default());
    }

    /// Does what the core decided about a part of the answer. `has_body`: there is a body to change.
    fn apply(&mut self, step: Step, has_body: bool) -> Action {
        self.keeps_answer = step.hold && has_body;
        if step.hold {
            return Action::Pause;
        }
        if let Some(next) = step.next {
            host::set_state(NEXT, next.as_bytes());
        }
        if let Some(headers) = step.headers {
            host::replace_answer_headers(&headers);
        }
        if let Some(body) = step.body.filter(|_| has_body) {
            host::replace_answer_body(&body);
        }
        Action::Continue
    }

    fn on_answer_part(&mut self, size: usize, end: bool, has_body: bool) -> Action {
        fault::strike("answer_body");
        let Some(exchange) = self.exchange.clone() else { return Action::Continue };
        let Ok((wants, holds)) = exchange.try_borrow().map(|e| (e.wants_body(size, end), e.holds())) else {
            return Action::Continue;
        };
        if !wants {
            self.keeps_answer = holds && has_body;
            return if holds { Action::Pause } else { Action::Continue };
        }
        let bytes = if has_body { host::answer_body() } else { Vec::new() };
        match exchanges::with(&exchange, |exchange, env| exchange.on_answer_body(&bytes, end, env)) {
            Some(step) => self.apply(step, has_body),
            None => Action::Continue,
        }
    }
}

impl Context for Attempt {}

impl HttpContext for Attempt {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        fault::strike("attempt");
        self.exchange = exchanges::find();
        let Some(exchange) = self.exchange.clone() else {
            // The VM was replaced while the request was under way: whoever planned it is gone.
            return self.reply(&super::lost());
        };
        let Some(start) = exchanges::with(&exchange, |exchange, env| exchange.on_attempt(env)) else {
            return self.reply(&super::lost());
        };
        if let Some(next) = start.next {
            host::set_state(NEXT, next.as_bytes());
        }
        match start.action {
            StartAction::Send(outgoing) => {
                self.send(outgoing);
                Action::Continue
            }
            // A request without a body was refused before it came here.
            StartAction::ReadBody if end_of_stream => self.reply(&super::lost()),
            StartAction::ReadBody => Action::Pause,
            StartAction::Reply(answer) => self.reply(&answer),
        }
    }

    fn on_http_request_body(&mut self, _size: usize, end_of_stream: bool) -> Action {
        match self.state {
            Sending::Stop => Action::Pause,
            Sending::Replace => {
                self.replace();
                Action::Continue
            }
            Sending::Collect if end_of_stream => self.on_whole_body(),
            Sending::Collect => Action::Pause,
        }
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        match self.state {
            Sending::Stop => Action::Pause,
            Sending::Replace => Action::Continue,
            Sending::Collect => self.on_whole_body(),
        }
    }

    fn on_http_response_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        fault::strike("answer_headers");
        let Some(exchange) = self.exchange.clone() else { return Action::Continue };
        let headers = host::answer_headers();
        match exchanges::with(&exchange, |exchange, env| {
            exchange.on_answer_headers(headers, end_of_stream, env)
        }) {
            Some(step) => self.apply(step, false),
            None => Action::Continue,
        }
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.on_answer_part(size, end_of_stream, true)
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        self.on_answer_part(0, true, self.keeps_answer)
    }
}
