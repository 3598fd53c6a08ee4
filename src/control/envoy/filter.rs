//! The Wasm filter in its roles.
//!
//! Policy and provider must live in one VM of each worker: they hand the parsed request over in its memory. Envoy puts plugins into
//! one VM when their whole `vm_config` is the same, so it is made in one place and only from what never changes while an
//! Envoy process lives.

use serde_json::{Value, json};

use super::Setup;

/// The role in the listener's chain: `document` is its configuration.
pub fn policy(setup: &Setup, document: &str) -> Value {
    plugin(setup, "policy", Some(document))
}

/// The same, its configuration kept elsewhere: what [`policy`] gives is read from `source`.
pub fn policy_from(source: Value) -> Value {
    json!({
        "name": POLICY,
        "config_discovery": {"config_source": source, "type_urls": [WASM_TYPE]},
    })
}

/// Name of the policy role's filter.
pub const POLICY: &str = "tollgate.policy";

const WASM_TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// The role in the router's upstream chain, run once for each attempt whatever its cluster. It takes no configuration: it
/// finds what it needs in the exchange that the policy role filed.
pub fn provider(setup: &Setup) -> Value {
    plugin(setup, "provider", None)
}

/// What must come last in every upstream chain.
pub fn codec() -> Value {
    json!({
        "name": "envoy.filters.http.upstream_codec",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"
        }
    })
}

fn plugin(setup: &Setup, role: &str, configuration: Option<&str>) -> Value {
    json!({
        "name": format!("tollgate.{role}"),
        "typed_config": {
            "@type": WASM_TYPE,
            "config": plugin_config(setup, role, configuration),
        }
    })
}

/// A role of the module, wherever it runs.
pub(super) fn plugin_config(setup: &Setup, role: &str, configuration: Option<&str>) -> Value {
    let mut config = json!({
        "name": format!("tollgate_{role}"),
        "root_id": role,
        "vm_config": vm(setup),
        // A trap costs the requests in flight on its worker and nothing after them.
        "failure_policy": "FAIL_RELOAD",
        "reload_config": {"backoff": {"base_interval": "0.02s", "max_interval": "0.5s"}},
        // Headers can be held until the body has been read.
        "allow_on_headers_stop_iteration": true,
    });
    if let (Some(config), Some(text)) = (config.as_object_mut(), configuration) {
        config.insert(
            "configuration".to_owned(),
            json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": text}),
        );
    }
    config
}

fn vm(setup: &Setup) -> Value {
    let mut vm = json!({
        "vm_id": "tollgate",
        "runtime": "envoy.wasm.runtime.v8",
        "code": {"local": {"filename": setup.module}},
    });
    if let (Some(vm), false) = (vm.as_object_mut(), setup.variables.is_empty()) {
        vm.insert("environment_variables".to_owned(), json!({"host_env_keys": setup.variables}));
    }
    vm
}
