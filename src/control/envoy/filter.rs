//! The filter in its roles, as a Wasm module or as a dynamic module of Envoy.
//!
//! As Wasm, policy and provider must live in one VM of each worker: they hand the parsed request over in its memory. Envoy puts
//! plugins into one VM when their whole `vm_config` is the same, so it is made in one place and only from what never changes while
//! an Envoy process lives. As a dynamic module they share the process anyway.

use serde_json::{Value, json};

use super::{Module, Setup};

/// The role in the listener's chain: `document` is its configuration.
pub fn policy(setup: &Setup, document: &str) -> Value {
    filter(setup, "policy", Some(document))
}

/// The role in the listener's chain, its configuration kept elsewhere: what [`policy`] gives is read from `source`.
pub fn policy_from(setup: &Setup, source: Value) -> Value {
    let kind = match &setup.module {
        Module::Wasm(_) => WASM_TYPE,
        Module::Native(_) => NATIVE_TYPE,
    };
    json!({"name": POLICY, "config_discovery": {"config_source": source, "type_urls": [kind]}})
}

/// Name of the policy role's filter.
pub const POLICY: &str = "tollgate.policy";

const WASM_TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const NATIVE_TYPE: &str =
    "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter";

/// The role in the router's upstream chain, run once for each attempt whatever its cluster. It takes no configuration: it
/// finds what it needs in the exchange that the policy role filed.
pub fn provider(setup: &Setup) -> Value {
    filter(setup, "provider", None)
}

/// The bootstrap extension that runs once for the process: as Wasm the sync role, when there is a ledger, natively also what brings
/// the workers' counters to Envoy's statistics.
pub fn extension(setup: &Setup) -> Option<Value> {
    let interval = setup.ledger.as_ref().map(|ledger| ledger.interval_ms.to_string());
    match &setup.module {
        Module::Wasm(file) => interval.map(|interval| {
            json!({
                "name": "envoy.bootstrap.wasm",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.wasm.v3.WasmService",
                    "singleton": true,
                    "config": plugin_config(setup, file, "sync", Some(&interval)),
                }
            })
        }),
        Module::Native(name) => Some(json!({
            "name": "envoy.bootstrap.dynamic_modules",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.bootstrap.dynamic_modules.v3.DynamicModuleBootstrapExtension",
                "dynamic_module_config": native_module(name),
                "extension_name": "tollgate",
                "extension_config": string(&interval.unwrap_or_default()),
            }
        })),
    }
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

fn filter(setup: &Setup, role: &str, configuration: Option<&str>) -> Value {
    let config = match &setup.module {
        Module::Wasm(file) => {
            json!({"@type": WASM_TYPE, "config": plugin_config(setup, file, role, configuration)})
        }
        Module::Native(name) => json!({
            "@type": NATIVE_TYPE,
            "dynamic_module_config": native_module(name),
            "filter_name": role,
            "filter_config": string(configuration.unwrap_or_default()),
        }),
    };
    json!({"name": format!("tollgate.{role}"), "typed_config": config})
}

/// A dynamic module that stays in memory: streams under way may need its code after the last configuration of it is gone.
fn native_module(name: &str) -> Value {
    json!({"name": name, "do_not_close": true})
}

fn string(text: &str) -> Value {
    json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": text})
}

/// A role of the Wasm module, wherever it runs.
fn plugin_config(setup: &Setup, file: &str, role: &str, configuration: Option<&str>) -> Value {
    let mut config = json!({
        "name": format!("tollgate_{role}"),
        "root_id": role,
        "vm_config": vm(setup, file),
        // A trap costs the requests in flight on its worker and nothing after them.
        "failure_policy": "FAIL_RELOAD",
        "reload_config": {"backoff": {"base_interval": "0.02s", "max_interval": "0.5s"}},
        // Headers can be held until the body has been read.
        "allow_on_headers_stop_iteration": true,
    });
    if let (Some(config), Some(text)) = (config.as_object_mut(), configuration) {
        config.insert("configuration".to_owned(), string(text));
    }
    config
}

fn vm(setup: &Setup, file: &str) -> Value {
    let mut vm = json!({
        "vm_id": "tollgate",
        "runtime": "envoy.wasm.runtime.v8",
        "code": {"local": {"filename": file}},
    });
    if let (Some(vm), false) = (vm.as_object_mut(), setup.variables.is_empty()) {
        vm.insert("environment_variables".to_owned(), json!({"host_env_keys": setup.variables}));
    }
    vm
}
