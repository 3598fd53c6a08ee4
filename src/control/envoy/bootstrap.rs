//! The file Envoy starts from.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Gateway, Module, Setup, cluster, filter, ledger, listener, timed};

/// File name of the clusters in the state directory.
pub const CLUSTERS: &str = "cds.json";

/// File name of the listener in the state directory.
pub const LISTENERS: &str = "lds.json";

/// File name of the routes in the state directory.
pub const ROUTES: &str = "rds.json";

/// File name of the policy role's configuration in the state directory.
pub const POLICY: &str = "ecds.json";

/// Names that a custom statistic of the filter may carry as `;name=value` after its own name; Prometheus shows them as labels.
const LABELS: [&str; 10] =
    ["model", "deployment", "provider", "api", "status", "class", "kind", "reason", "team", "key"];

/// So much of what Envoy has no more use for may go back to the system in a second. What comes and goes within a minute is
/// kept, whatever stands here.
const RELEASED_BYTES: u64 = 8 << 20;

/// Everything in one file: a complete Envoy with the filter and nothing else.
pub fn fixed(gateway: &Gateway) -> Value {
    let mut bootstrap = common(gateway.setup);
    let mut clusters = cluster::all(gateway);
    clusters.push(timed::cluster());
    clusters.extend(ledger::clusters(gateway.setup));
    bootstrap.insert(
        "static_resources".to_owned(),
        json!({"listeners": [listener::listener(gateway, None), timed::listener()], "clusters": clusters}),
    );
    Value::Object(bootstrap)
}

/// Listener and clusters come from files in `state`, which [`discovery`] makes; Envoy follows them when they are replaced.
pub fn served(setup: &Setup, state: &Path) -> Value {
    let mut bootstrap = common(setup);
    bootstrap.insert("node".to_owned(), json!({"id": "tollgate", "cluster": "tollgate"}));
    let clusters: Vec<Value> = [timed::cluster()].into_iter().chain(ledger::clusters(setup)).collect();
    bootstrap.insert(
        "static_resources".to_owned(),
        json!({"listeners": [timed::listener()], "clusters": clusters}),
    );
    bootstrap.insert(
        "dynamic_resources".to_owned(),
        json!({"lds_config": source(state, LISTENERS), "cds_config": source(state, CLUSTERS)}),
    );
    Value::Object(bootstrap)
}

/// Where Envoy reads what a file in `state` says, again whenever it is replaced.
pub(super) fn source(state: &Path, file: &str) -> Value {
    json!({
        "resource_api_version": "V3",
        "path_config_source": {"path": state.join(file), "watched_directory": {"path": state}},
    })
}

/// A discovery answer, the content of a file that [`served`] names. `version` comes back in Envoy's statistics
/// (`version_text`), which is how to see that it was taken.
pub fn discovery(version: &str, kind: &str, resources: Vec<Value>) -> Value {
    let typed = resources.into_iter().map(|resource| {
        let mut typed = Map::new();
        typed.insert("@type".to_owned(), json!(kind));
        if let Value::Object(members) = resource {
            typed.extend(members);
        }
        Value::Object(typed)
    });
    json!({"version_info": version, "resources": typed.collect::<Vec<_>>()})
}

/// Type of a cluster in [`discovery`].
pub const CLUSTER_TYPE: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

/// Type of a listener in [`discovery`].
pub const LISTENER_TYPE: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

/// Type of the routes in [`discovery`].
pub const ROUTE_TYPE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

/// Type of a filter's configuration in [`discovery`].
pub const EXTENSION_TYPE: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";

fn common(setup: &Setup) -> Map<String, Value> {
    let tags = LABELS
        .map(|label| json!({"tag_name": label, "regex": format!(r"^wasmcustom\..*?(;{label}=([^;]*))")}));
    let extensions: Vec<Value> = [timed::extension()].into_iter().chain(filter::extension(setup)).collect();
    let bootstrap = json!({
        "bootstrap_extensions": extensions,
        "admin": {"address": cluster::admin_address(&setup.admin)},
        "stats_config": {"stats_tags": tags},
        // What compiling the filter and every burst of large bodies needed goes back to the system, in time: the allocator
        // alone would keep it for ever.
        "memory_allocator_manager": {"bytes_to_release": RELEASED_BYTES, "memory_release_interval": "1s"},
        // Statistics of a cluster take memory from its first request on, not from its definition.
        "deferred_stat_options": {"enable_deferred_creation_stats": true},
        "typed_dns_resolver_config": {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                // Envoy is ready when every name was asked for once: a name server that is away must not hold it up long.
                "query_timeout_seconds": 2,
                "query_tries": 2,
                "filter_unroutable_families": true,
            }
        },
        "overload_manager": overload(setup.max_memory_bytes),
    });
    let Value::Object(mut bootstrap) = bootstrap else { return Map::new() };
    if let Module::Native(_) = &setup.module {
        // Counters of the module are then called as those of a Wasm module: without what stands before a custom name.
        let layer = json!({"envoy.reloadable_features.dynamic_modules_strip_custom_stat_prefix": true});
        let layers = json!({"layers": [{"name": "tollgate", "static_layer": layer}]});
        bootstrap.insert("layered_runtime".to_owned(), layers);
    }
    bootstrap
}

/// What Envoy does before it runs out of connections or memory: at first it gives memory back and ends the streams that hold
/// most, then it refuses requests, which tells a load balancer, at last it takes no connections.
fn overload(max_memory_bytes: Option<u64>) -> Value {
    let connections = json!({
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": 100_000
        }
    });
    let Some(bytes) = max_memory_bytes else { return json!({"resource_monitors": [connections]}) };
    let heap = json!({
        "name": HEAP,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
            "max_heap_size_bytes": bytes,
        }
    });
    let action = |name: &str, trigger: Value| {
        let mut trigger = trigger;
        if let Some(trigger) = trigger.as_object_mut() {
            trigger.insert("name".to_owned(), json!(HEAP));
        }
        json!({"name": format!("envoy.overload_actions.{name}"), "triggers": [trigger]})
    };
    json!({
        // Many clients together fill a few hundred mebibytes in the usual quarter of a second.
        "refresh_interval": "0.1s",
        "resource_monitors": [connections, heap],
        "actions": [
            action("shrink_heap", json!({"threshold": {"value": 0.85}})),
            action(
                "reset_high_memory_stream",
                json!({"scaled": {"scaling_threshold": 0.9, "saturation_threshold": 0.98}}),
            ),
            action("stop_accepting_requests", json!({"threshold": {"value": 0.95}})),
            action("stop_accepting_connections", json!({"threshold": {"value": 0.98}})),
        ],
        // Streams that hold a mebibyte and more are known by what they hold.
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 20},
    })
}

/// The monitor of Envoy's memory.
const HEAP: &str = "envoy.resource_monitors.fixed_heap";
