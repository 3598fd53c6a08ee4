//! The door through which Envoy comes in as a Wasm host: the roles of the gateway as proxy-wasm's root and stream contexts.
//! These are the only files that name `proxy_wasm`.
//!
//! One module, three roles; which one a root context has is its configured root id. The policy and the provider role share one VM
//! per worker, the sync role has a VM of its own.

#![allow(clippy::disallowed_methods, reason = "a door is where clock and environment come from")]

mod host;
mod store;

use std::{panic, rc::Rc};

use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::{Action, ContextType, LogLevel},
};

use self::host::{Envoy, HttpStream};
use crate::{
    core::host::Side,
    gateway::{Turn, policy::Policy, provider::Attempt, request::Request, sync, worker::Worker},
};

// The SDK's macro defines the exported entry point.
#[allow(unsafe_code, reason = "the entry point that the host calls is an exported symbol")]
mod entry {
    use super::Root;

    proxy_wasm::main! {{
        proxy_wasm::set_log_level(super::LogLevel::Info);
        proxy_wasm::set_root_context(|_| Box::new(Root::default()));
    }}
}

thread_local! {
    /// What this VM knows: the SDK makes root contexts one by one, and all of a VM share it.
    static WORKER: Rc<Worker<Envoy>> = {
        // A panic sends the usage that waits before it takes the VM with it.
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let _ = WORKER.try_with(|worker| worker.flush());
            told(info);
        }));
        Rc::new(Worker::new(Envoy::default()))
    };
}

fn worker() -> Rc<Worker<Envoy>> {
    WORKER.with(Rc::clone)
}

/// A root context; it has no role before it is configured.
#[derive(Default)]
struct Root {
    role: Option<Role>,
}

enum Role {
    Policy(Rc<Policy<Envoy>>),
    Provider(Rc<Worker<Envoy>>),
    Sync(Box<sync::SyncRole<Envoy>>),
}

impl Context for Root {
    /// The VM, or this configuration of it, is no longer needed.
    fn on_done(&mut self) -> bool {
        worker().flush();
        true
    }

    // What a stream has asked for in a tick is answered here too: the SDK remembers whose hook was running.
    fn on_http_call_response(&mut self, token: u32, headers: usize, body: usize, _trailers: usize) {
        let response = host::call_response(headers, body);
        match &mut self.role {
            Some(Role::Policy(policy)) => policy.on_called(token.into(), response),
            Some(Role::Sync(sync)) => sync.on_called(response),
            Some(Role::Provider(_)) | None => {}
        }
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let role = host::property(&["plugin_root_id"]).unwrap_or_default();
        let worker = worker();
        self.role = match role.as_slice() {
            b"provider" => Some(Role::Provider(worker)),
            b"sync" => sync::SyncRole::configure(&worker).map(|role| Role::Sync(Box::new(role))),
            _ => Policy::configure(&worker).map(Rc::new).map(Role::Policy),
        };
        self.role.is_some()
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        let stream = HttpStream(context_id);
        match &self.role {
            Some(Role::Policy(policy)) => Some(Box::new(Downstream { stream, request: policy.stream() })),
            Some(Role::Provider(worker)) => {
                Some(Box::new(Upstream { stream, attempt: Attempt::new(Rc::clone(worker)) }))
            }
            Some(Role::Sync(_)) | None => None,
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn on_tick(&mut self) {
        match &mut self.role {
            Some(Role::Policy(policy)) => policy.tick(),
            Some(Role::Sync(sync)) => sync.tick(),
            Some(Role::Provider(_)) | None => {}
        }
    }
}

/// What the host is told at the end of a hook.
fn action(turn: Turn, stream: &HttpStream) -> Action {
    match turn.goes_on(stream) {
        true => Action::Continue,
        false => Action::Pause,
    }
}

/// The policy role's part of a request.
struct Downstream {
    stream: HttpStream,
    request: Request<Envoy>,
}

impl Context for Downstream {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body: usize, _trailers: usize) {
        let response = host::call_response(headers, body);
        self.request.on_called(&self.stream, token.into(), response).settle(&self.stream, Side::Request);
    }
}

impl HttpContext for Downstream {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        action(self.request.on_request_headers(&self.stream, end_of_stream), &self.stream)
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        action(self.request.on_request_body(&self.stream, size, end_of_stream), &self.stream)
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        action(self.request.on_request_trailers(&self.stream), &self.stream)
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        action(self.request.on_response_headers(&self.stream), &self.stream)
    }

    fn on_log(&mut self) {
        self.request.on_log(&self.stream);
    }
}

/// The provider role's part of a request: one attempt.
struct Upstream {
    stream: HttpStream,
    attempt: Attempt<Envoy>,
}

impl Context for Upstream {
    fn on_http_call_response(&mut self, _token: u32, headers: usize, body: usize, _trailers: usize) {
        let response = host::call_response(headers, body);
        self.attempt.on_called(&self.stream, response).settle(&self.stream, Side::Response);
    }
}

impl HttpContext for Upstream {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        action(self.attempt.on_request_headers(&self.stream, end_of_stream), &self.stream)
    }

    fn on_http_request_body(&mut self, _size: usize, end_of_stream: bool) -> Action {
        action(self.attempt.on_request_body(&self.stream, end_of_stream), &self.stream)
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        action(self.attempt.on_request_trailers(&self.stream), &self.stream)
    }

    fn on_http_response_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        action(self.attempt.on_response_headers(&self.stream, end_of_stream), &self.stream)
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        action(self.attempt.on_response_body(&self.stream, size, end_of_stream), &self.stream)
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        action(self.attempt.on_response_trailers(&self.stream), &self.stream)
    }
}
