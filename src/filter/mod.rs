//! The filter: carries bytes between Envoy and the core. No rule of the gateway is in here.
//!
//! One module, two roles that Envoy runs in one VM per worker: [`policy`] in the listener's chain, [`provider`] in the router's
//! upstream chain, once per attempt. They meet in [`exchanges`].

mod exchanges;
#[cfg(feature = "fault-injection")]
mod fault;
mod host;
mod metrics;
mod policy;
mod provider;

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
}

/// A root context before it is known which role it has: the role is its configured root id.
#[derive(Default)]
struct Root {
    role: Option<Role>,
}

enum Role {
    Policy(policy::Policy),
    Provider,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let role = host::property(&["plugin_root_id"]).unwrap_or_default();
        self.role = match role.as_slice() {
            b"provider" => Some(Role::Provider),
            _ => policy::Policy::configure().map(Role::Policy),
        };
        self.role.is_some()
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        match &self.role {
            Some(Role::Policy(policy)) => Some(Box::new(policy.stream(context_id))),
            Some(Role::Provider) => Some(Box::new(provider::Attempt::default())),
            None => None,
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn on_tick(&mut self) {
        if let Some(Role::Policy(policy)) = &self.role {
            policy.tick();
        }
    }
}

/// The answer to a request whose plan was lost with its VM.
fn lost() -> crate::core::exchange::Reply {
    let error = crate::core::error::Error::new(503, "the gateway lost track of this request; send it again.")
        .with_kind("service_unavailable");
    crate::core::exchange::local::refusal(&error, crate::core::api::ErrorFormat::OpenAi, "")
}
