//! The filter: carries bytes between Envoy and the core. No rule of the gateway is in here.
//!
//! One module, three roles. Envoy runs two of them in one VM per worker: [`policy`] in the listener's chain, [`provider`] in the
//! router's upstream chain, once per attempt; they meet in [`exchanges`]. The third, [`sync`], is one VM for the whole process: it
//! talks to the ledger.

mod exchanges;
#[cfg(feature = "fault-injection")]
mod fault;
mod host;
mod lookup;
mod metrics;
mod policy;
mod provider;
mod report;
mod sync;

use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::{ContextType, LogLevel},
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

#[cfg(not(feature = "fault-injection"))]
mod fault {
    pub fn arm() {}
    pub fn strike(_callback: &str) {}
    pub fn strike_shared(_role: &str) {}
}

/// A root context before it is known which role it has: the role is its configured root id.
#[derive(Default)]
struct Root {
    role: Option<Role>,
}

enum Role {
    Policy(Box<policy::Policy>),
    Provider,
    Sync(Box<sync::Role>),
}

impl Context for Root {
    /// The VM, or this configuration of it, is no longer needed.
    fn on_done(&mut self) -> bool {
        report::flush(host::now_ms());
        true
    }

    fn on_http_call_response(&mut self, token: u32, headers: usize, body: usize, _trailers: usize) {
        match &mut self.role {
            Some(Role::Policy(policy)) => policy.on_answer(token, headers, body),
            Some(Role::Sync(sync)) => sync.on_answer(headers, body),
            Some(Role::Provider) | None => {}
        }
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let role = host::property(&["plugin_root_id"]).unwrap_or_default();
        self.role = match role.as_slice() {
            b"provider" => Some(Role::Provider),
            b"sync" => sync::Role::configure().map(|role| Role::Sync(Box::new(role))),
            _ => policy::Policy::configure().map(Box::new).map(Role::Policy),
        };
        self.role.is_some()
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        match &self.role {
            Some(Role::Policy(policy)) => Some(Box::new(policy.stream(context_id))),
            Some(Role::Provider) => Some(Box::new(provider::Attempt::default())),
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
            Some(Role::Provider) | None => {}
        }
    }
}

/// The answer to a request whose plan was lost with its VM.
fn lost() -> crate::core::exchange::Reply {
    let error = crate::core::error::Error::new(503, "the gateway lost track of this request; send it again.")
        .with_kind("service_unavailable");
    crate::core::exchange::local::refusal(&error, crate::core::api::ErrorFormat::OpenAi, "")
}
