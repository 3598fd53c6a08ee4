//! The provider role, in the router's upstream chain: once per attempt, the request as this provider wants it, and
//! its answer as the client wants it.

use std::rc::Rc;

use super::{Turn, exchanges::ExchangeRef, fault, request::NEXT, worker::Worker};
use crate::core::{
    exchange::{
        Env, Exchange, Reply,
        attempt::{StartAction, UpstreamRequest},
        response::Step,
    },
    host::{HeaderMap, Host, Side, Stream},
};

/// One attempt.
pub struct Attempt<H: Host> {
    worker: Rc<Worker<H>>,
    exchange: Option<ExchangeRef>,
    /// The body to send, until its first part comes by.
    body: Option<Vec<u8>>,
    state: Sending,
    /// The host keeps the answer's body back for us. A body can be changed only while it comes by or is kept back.
    keeps_response: bool,
}

/// What happens to the request body's parts.
#[derive(Clone, Copy, PartialEq)]
enum Sending {
    /// They are collected; the request is made when the last has come.
    Collect,
    /// The first is replaced by the whole new body, the others by nothing.
    Replace,
    /// Nothing is sent: the client has been answered.
    Stop,
}

impl<H: Host> Attempt<H> {
    /// An attempt begins.
    pub fn new(worker: Rc<Worker<H>>) -> Attempt<H> {
        Attempt { worker, exchange: None, body: None, state: Sending::Collect, keeps_response: false }
    }

    /// Runs a piece of core logic on the exchange. `None` when there is none.
    fn with<T>(&self, stream: &H::Stream, work: impl FnOnce(&mut Exchange, &mut Env) -> T) -> Option<T> {
        self.worker.with(self.exchange.as_ref()?, stream, work)
    }

    fn reply(&mut self, answer: Reply) -> Turn {
        self.state = Sending::Stop;
        Turn::Reply(answer)
    }

    fn send(&mut self, stream: &H::Stream, outgoing: UpstreamRequest) {
        stream.replace_headers(HeaderMap::Request, &outgoing.headers);
        self.body = Some(outgoing.body);
        self.state = Sending::Replace;
    }

    /// The client's whole body is here, for an attempt after the first.
    fn on_whole_body(&mut self, stream: &H::Stream) -> Turn {
        if self.exchange.is_none() {
            return Turn::Continue;
        }
        let body = stream.body(Side::Request);
        match self.with(stream, |exchange, env| exchange.on_retry_body(&body, env)) {
            Some(Ok(outgoing)) => {
                self.send(stream, outgoing);
                self.replace(stream);
                Turn::Continue
            }
            Some(Err(answer)) => self.reply(answer),
            None => Turn::Continue,
        }
    }

    /// Puts the new body where the old one was.
    fn replace(&mut self, stream: &H::Stream) {
        stream.replace_body(Side::Request, &self.body.take().unwrap_or_default());
    }

    /// Does what the core decided about a part of the answer. `has_body`: there is a body to change.
    fn apply(&mut self, stream: &H::Stream, step: Step, has_body: bool) -> Turn {
        self.keeps_response = step.hold && has_body;
        if step.hold {
            return Turn::Pause;
        }
        if let Some(next) = step.next {
            stream.set_state(NEXT, next.as_bytes());
        }
        if let Some(headers) = step.headers {
            stream.replace_headers(HeaderMap::Response, &headers);
        }
        if let Some(body) = step.body.filter(|_| has_body) {
            stream.replace_body(Side::Response, &body);
        }
        Turn::Continue
    }

    fn on_response_part(&mut self, stream: &H::Stream, size: usize, end: bool, has_body: bool) -> Turn {
        fault::inject(stream, "response_body");
        let Some(exchange) = &self.exchange else { return Turn::Continue };
        let Ok((wants, holds)) = exchange.try_borrow().map(|e| (e.wants_body(size, end), e.holds())) else {
            return Turn::Continue;
        };
        if !wants {
            self.keeps_response = holds && has_body;
            return if holds { Turn::Pause } else { Turn::Continue };
        }
        let bytes = if has_body { stream.body(Side::Response) } else { Vec::new() };
        match self.with(stream, |exchange, env| exchange.on_response_body(&bytes, end, env)) {
            Some(step) => self.apply(stream, step, has_body),
            None => Turn::Continue,
        }
    }
}

/// The hooks.
impl<H: Host> Attempt<H> {
    /// The request's headers, as this attempt is to send them; `ended`: there is no body.
    pub fn on_request_headers(&mut self, stream: &H::Stream, ended: bool) -> Turn {
        fault::inject(stream, "attempt");
        self.exchange = self.worker.exchanges.find(stream);
        // Without one the worker was replaced while the request was under way: whoever planned it is gone.
        let Some(start) = self.with(stream, |exchange, env| exchange.on_attempt(env)) else {
            return self.reply(super::lost());
        };
        if let Some(next) = start.next {
            stream.set_state(NEXT, next.as_bytes());
        }
        match start.action {
            StartAction::Send(outgoing) => {
                self.send(stream, outgoing);
                Turn::Continue
            }
            // A request without a body was refused before it came here.
            StartAction::ReadBody if ended => self.reply(super::lost()),
            StartAction::ReadBody => Turn::Pause,
            StartAction::Reply(answer) => self.reply(answer),
        }
    }

    /// A part of the client's body.
    pub fn on_request_body(&mut self, stream: &H::Stream, ended: bool) -> Turn {
        match self.state {
            Sending::Stop => Turn::Pause,
            Sending::Replace => {
                self.replace(stream);
                Turn::Continue
            }
            Sending::Collect if ended => self.on_whole_body(stream),
            Sending::Collect => Turn::Pause,
        }
    }

    /// Request trailers: the body has ended.
    pub fn on_request_trailers(&mut self, stream: &H::Stream) -> Turn {
        match self.state {
            Sending::Stop => Turn::Pause,
            Sending::Replace => Turn::Continue,
            Sending::Collect => self.on_whole_body(stream),
        }
    }

    /// The answer's headers; `ended`: there is no body.
    pub fn on_response_headers(&mut self, stream: &H::Stream, ended: bool) -> Turn {
        fault::inject(stream, "response_headers");
        if self.exchange.is_none() {
            return Turn::Continue;
        }
        let headers = stream.headers(HeaderMap::Response);
        match self.with(stream, |exchange, env| exchange.on_response_headers(headers, ended, env)) {
            Some(step) => self.apply(stream, step, false),
            None => Turn::Continue,
        }
    }

    /// A part of the answer's body: `size` bytes, with all that is kept back.
    pub fn on_response_body(&mut self, stream: &H::Stream, size: usize, ended: bool) -> Turn {
        self.on_response_part(stream, size, ended, true)
    }

    /// The answer's trailers: its body has ended.
    pub fn on_response_trailers(&mut self, stream: &H::Stream) -> Turn {
        self.on_response_part(stream, 0, true, self.keeps_response)
    }
}
