//! The provider role, in the router's upstream chain: once per attempt, the request as this provider wants it, and
//! its response as the client wants it.

use std::rc::Rc;

use super::{Turn, callout, exchanges::ExchangeRef, fault, request::NEXT, worker::Worker};
use crate::core::{
    exchange::{Env, Exchange, Next, next::Then},
    host::{CallResponse, HeaderMap, Host, Side, Stream},
};

/// One attempt.
pub struct Attempt<H: Host> {
    worker: Rc<Worker<H>>,
    exchange: Option<ExchangeRef>,
    /// The body to send, until its first part comes by.
    body: Option<Vec<u8>>,
    state: Sending,
    /// What the call is for whose response is awaited.
    called: Option<Then>,
    /// The response has come to its end.
    has_ended: bool,
    /// The host keeps the response's body back for us. A body can be changed only while it comes by or is kept back.
    keeps_response: bool,
}

/// What happens to the request body's parts.
#[derive(Clone, Copy, PartialEq)]
enum Sending {
    /// The parts are collected; the request is made when the last has come.
    Collect,
    /// The first is replaced by the whole new body, the others by nothing.
    Replace,
    /// Nothing is sent: the client has been answered.
    Stop,
}

impl<H: Host> Attempt<H> {
    /// An attempt begins.
    pub fn new(worker: Rc<Worker<H>>) -> Attempt<H> {
        Attempt {
            worker,
            exchange: None,
            body: None,
            state: Sending::Collect,
            called: None,
            has_ended: false,
            keeps_response: false,
        }
    }

    /// Runs a piece of core logic on the exchange. `None` when there is none.
    fn with<T>(&self, stream: &H::Stream, work: impl FnOnce(&mut Exchange, &mut Env) -> T) -> Option<T> {
        self.worker.with(self.exchange.as_ref()?, stream, work)
    }

    /// Does what the core decided: here each outcome gets its meaning for this role. `has_body`: what comes by has a body that can
    /// be changed.
    fn act(&mut self, stream: &H::Stream, next: Next, has_body: bool) -> Turn {
        self.keeps_response = matches!(next, Next::Hold | Next::Call(_)) && has_body;
        match next {
            Next::Reply(reply) => {
                self.state = Sending::Stop;
                Turn::Reply(reply)
            }
            Next::Send(request) => {
                stream.replace_headers(HeaderMap::Request, &request.headers);
                self.body = Some(request.body);
                self.state = Sending::Replace;
                Turn::Continue
            }
            Next::Release(release) => {
                if let Some(next) = release.next_cluster {
                    stream.set_state(NEXT, next.as_bytes());
                }
                if let Some(headers) = release.headers {
                    stream.replace_headers(HeaderMap::Response, &headers);
                }
                if let Some(body) = release.body.filter(|_| has_body) {
                    stream.replace_body(Side::Response, &body);
                }
                Turn::Continue
            }
            Next::Call(callout) => {
                let begun = callout::begin(&self.worker, stream, &callout).is_some();
                self.called = Some(callout.then);
                if begun { Turn::Pause } else { self.called(stream, None) }
            }
            Next::Hold | Next::ReadBody => Turn::Pause,
            Next::Pass => Turn::Continue,
            // What a request does before it has an attempt.
            Next::Forward(_) | Next::Wait(_) | Next::Manage => Turn::Reply(super::lost(stream)),
        }
    }

    /// A call about the response has its own, or will have none.
    fn called(&mut self, stream: &H::Stream, response: Option<CallResponse>) -> Turn {
        let Some(then) = self.called.take() else { return Turn::Pause };
        let has_body = self.keeps_response;
        let next = match self.with(stream, |exchange, env| exchange.on_called(&then, response, env)) {
            // What came meanwhile goes on, or is kept back, together with what was held.
            Some(Next::ReadBody) => {
                let bytes = if has_body { stream.body(Side::Response) } else { Vec::new() };
                let end = self.has_ended;
                self.with(stream, |exchange, env| exchange.on_response_body(&bytes, end, env))
            }
            next => next,
        };
        self.act(stream, next.unwrap_or(Next::Pass), has_body)
    }

    /// The client's whole body is here, for an attempt after the first.
    fn on_whole_body(&mut self, stream: &H::Stream) -> Turn {
        if self.exchange.is_none() {
            return Turn::Continue;
        }
        let body = stream.body(Side::Request);
        let next = self.with(stream, |exchange, env| exchange.on_retry_body(&body, env));
        let turn = self.act(stream, next.unwrap_or(Next::Pass), true);
        if self.state == Sending::Replace {
            self.replace(stream);
        }
        turn
    }

    /// Puts the new body where the old one was.
    fn replace(&mut self, stream: &H::Stream) {
        stream.replace_body(Side::Request, &self.body.take().unwrap_or_default());
    }

    fn on_response_part(&mut self, stream: &H::Stream, size: usize, end: bool, has_body: bool) -> Turn {
        fault::inject(stream, "response_body");
        self.has_ended |= end;
        let Some(exchange) = &self.exchange else { return Turn::Continue };
        let Ok((wants, holds)) = exchange.try_borrow().map(|e| (e.wants_body(size, end), e.holds())) else {
            return Turn::Continue;
        };
        let next = match (wants, holds) {
            (true, _) => {
                let bytes = if has_body { stream.body(Side::Response) } else { Vec::new() };
                self.with(stream, |exchange, env| exchange.on_response_body(&bytes, end, env))
            }
            (false, true) => Some(Next::Hold),
            (false, false) => Some(Next::Pass),
        };
        self.act(stream, next.unwrap_or(Next::Pass), has_body)
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
            return self.act(stream, Next::Reply(super::lost(stream)), false);
        };
        if let Some(next) = start.next_cluster {
            stream.set_state(NEXT, next.as_bytes());
        }
        // A request without a body was refused before it came here.
        let next =
            if ended && start.next == Next::ReadBody { Next::Reply(super::lost(stream)) } else { start.next };
        self.act(stream, next, false)
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

    /// The response's headers; `ended`: there is no body.
    pub fn on_response_headers(&mut self, stream: &H::Stream, ended: bool) -> Turn {
        fault::inject(stream, "response_headers");
        if self.exchange.is_none() {
            return Turn::Continue;
        }
        self.has_ended = ended;
        let headers = stream.headers(HeaderMap::Response);
        let next = self.with(stream, |exchange, env| exchange.on_response_headers(headers, ended, env));
        self.act(stream, next.unwrap_or(Next::Pass), false)
    }

    /// A part of the response's body: `size` bytes, with all that is kept back.
    pub fn on_response_body(&mut self, stream: &H::Stream, size: usize, ended: bool) -> Turn {
        self.on_response_part(stream, size, ended, true)
    }

    /// The call of this stream has its response, or will have none. The response was paused: what comes back is to be
    /// [settled](Turn::settle).
    pub fn on_called(&mut self, stream: &H::Stream, response: Option<CallResponse>) -> Turn {
        self.called(stream, response)
    }

    /// The response's trailers: its body has ended.
    pub fn on_response_trailers(&mut self, stream: &H::Stream) -> Turn {
        self.on_response_part(stream, 0, true, self.keeps_response)
    }
}
