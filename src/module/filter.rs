//! One filter of one stream: the policy role's request or the provider role's attempt, and what comes of a panic in it.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use super::{
    abi::status,
    host::{Envoy, HttpStream, log},
    later,
    roles::Role,
    waking,
};
use crate::{
    core::{
        error::{Error, ErrorFormat},
        exchange::local,
        host::{CallId, CallResponse, Level, Side, Stream, StreamId},
    },
    gateway::{Turn, policy::Policy, provider::Attempt, request::Request},
};

/// A filter, from `on_http_filter_new` to `on_http_filter_destroy`.
pub struct Filter {
    stream: HttpStream,
    part: Part,
    /// A hook of it has panicked: what came by is answered, and no other hook does anything.
    has_failed: Cell<bool>,
}

/// What it does. A hook that is entered a second time finds it borrowed and does nothing.
pub(super) enum Part {
    Policy { policy: Rc<Policy<Envoy>>, request: RefCell<Request<Envoy>> },
    Provider(RefCell<Attempt<Envoy>>),
}

impl Filter {
    /// The filter of a stream in a role.
    pub fn new(stream: HttpStream, role: Role) -> Filter {
        let part = match role {
            Role::Policy(policy) => Part::Policy { request: RefCell::new(policy.stream()), policy },
            Role::Provider(worker) => Part::Provider(RefCell::new(Attempt::new(worker))),
        };
        Filter { stream, part, has_failed: Cell::new(false) }
    }

    /// The id of the filter's stream.
    pub fn id(&self) -> StreamId {
        self.stream.id()
    }

    /// Envoy's side of it.
    pub fn stream(&self) -> &HttpStream {
        &self.stream
    }

    /// The policy of a request; `None` for an attempt.
    pub fn policy(&self) -> Option<&Rc<Policy<Envoy>>> {
        match &self.part {
            Part::Policy { policy, .. } => Some(policy),
            Part::Provider(_) => None,
        }
    }

    /// Request headers.
    pub fn on_request_headers(&self, ended: bool) -> u32 {
        self.hook(|stream, part| match part {
            Part::Policy { request, .. } => with(request, |it| it.on_request_headers(stream, ended)),
            Part::Provider(attempt) => with(attempt, |it| it.on_request_headers(stream, ended)),
        })
    }

    /// A part of the request's body.
    pub fn on_request_body(&self, ended: bool) -> u32 {
        self.hook(|stream, part| match part {
            Part::Policy { request, .. } => {
                let size = stream.body_size(Side::Request);
                with(request, |it| it.on_request_body(stream, size, ended))
            }
            Part::Provider(attempt) => with(attempt, |it| it.on_request_body(stream, ended)),
        })
    }

    /// Request trailers.
    pub fn on_request_trailers(&self) -> u32 {
        self.hook(|stream, part| match part {
            Part::Policy { request, .. } => with(request, |it| it.on_request_trailers(stream)),
            Part::Provider(attempt) => with(attempt, |it| it.on_request_trailers(stream)),
        })
    }

    /// Response headers.
    pub fn on_response_headers(&self, ended: bool) -> u32 {
        self.hook(|stream, part| match part {
            Part::Policy { request, .. } => with(request, |it| it.on_response_headers(stream)),
            Part::Provider(attempt) => with(attempt, |it| it.on_response_headers(stream, ended)),
        })
    }

    /// A part of the response's body. The policy role has no business with it.
    pub fn on_response_body(&self, ended: bool) -> u32 {
        let Part::Provider(attempt) = &self.part else { return status::CONTINUE };
        self.hook(|stream, _| {
            let size = stream.body_size(Side::Response);
            with(attempt, |it| it.on_response_body(stream, size, ended))
        })
    }

    /// Response trailers.
    pub fn on_response_trailers(&self) -> u32 {
        let Part::Provider(attempt) = &self.part else { return status::CONTINUE };
        self.hook(|stream, _| with(attempt, |it| it.on_response_trailers(stream)))
    }

    /// A call has its response, or will have none.
    pub fn on_called(&self, call: CallId, response: Option<CallResponse>) {
        later::hook(|| {
            self.guarded(|stream, part| {
                let (turn, side) = match part {
                    Part::Policy { request, .. } => {
                        (with(request, |it| it.on_called(stream, call, response)), Side::Request)
                    }
                    Part::Provider(attempt) => {
                        (with(attempt, |it| it.on_called(stream, response)), Side::Response)
                    }
                };
                turn.settle(stream, side);
            });
            waking::look(self);
        });
    }

    /// The stream is over; its access log is about to be written. After a panic too: what it held is given back.
    pub fn on_complete(&self) {
        let Part::Policy { request, .. } = &self.part else { return };
        later::hook(|| {
            let ended = catch_unwind(AssertUnwindSafe(|| {
                if let Ok(mut request) = request.try_borrow_mut() {
                    request.on_log(&self.stream);
                }
            }));
            if ended.is_err() {
                self.has_failed.set(true);
            }
            self.on_destroy();
        });
    }

    /// Envoy is about to forget it.
    pub fn on_destroy(&self) {
        waking::leave(self.stream.id());
        later::forget(self.stream.id());
    }

    pub(super) fn hook(&self, work: impl FnOnce(&HttpStream, &Part) -> Turn) -> u32 {
        later::hook(|| {
            if self.has_failed.get() {
                return status::CONTINUE;
            }
            let goes_on = self.guarded(|stream, part| work(stream, part).goes_on(stream));
            waking::look(self);
            match goes_on {
                Some(true) => status::CONTINUE,
                Some(false) | None => status::STOP,
            }
        })
    }

    /// Runs what may panic. `None` when it has: the client is answered, and this request has no other hook that does anything.
    fn guarded<T>(&self, work: impl FnOnce(&HttpStream, &Part) -> T) -> Option<T> {
        if self.has_failed.get() {
            return None;
        }
        let done = catch_unwind(AssertUnwindSafe(|| work(&self.stream, &self.part)));
        done.inspect_err(|_| {
            self.has_failed.set(true);
            log(Level::Error, "tollgate: a request made the filter panic; it is answered with 500");
            let error = Error::internal("The gateway failed on this request. Retry the request.");
            let reply = local::refusal(&error, ErrorFormat::OpenAi, "");
            self.stream.reply(reply.status, &reply.headers, &reply.body);
        })
        .ok()
    }
}

#[cfg(test)]
impl Filter {
    /// Runs something as if a hook of this filter were running.
    pub fn while_borrowed(&self, work: impl FnOnce()) {
        let Part::Policy { request, .. } = &self.part else { return };
        let _request = request.borrow_mut();
        work();
    }
}

/// Runs a hook of a role, unless one of the same filter is running.
fn with<T>(cell: &RefCell<T>, work: impl FnOnce(&mut T) -> Turn) -> Turn {
    match cell.try_borrow_mut() {
        Ok(mut it) => work(&mut it),
        Err(_) => Turn::Continue,
    }
}
