//! Clusters: one for each deployment, and one to Envoy's own admin interface.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Admin, Gateway, Setup, callable, filter};
use crate::{
    control::metrics,
    core::model::{deployment::Deployment, endpoint::Endpoint},
};

/// Name of the cluster to Envoy's admin interface (`/metrics`).
pub const ADMIN: &str = "envoy_admin";

/// So many may ask for statistics at once.
const AT_ONCE: u32 = 16;

/// So many at once that no limit of Envoy's is ever what refuses a request.
const UNLIMITED: u32 = 1_000_000;

/// Circuit breakers that never break.
pub(super) fn no_limits() -> Value {
    json!({"thresholds": [{
        "max_connections": UNLIMITED,
        "max_pending_requests": UNLIMITED,
        "max_requests": UNLIMITED,
        "max_retries": UNLIMITED,
    }]})
}

/// Where a cluster says how it speaks HTTP.
pub(super) const PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
pub(super) const PROTOCOL_OPTIONS_TYPE: &str =
    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A port (tcpmux) that nothing listens on.
const NOBODYS_PORT: u16 = 1;

/// Every cluster of a gateway.
pub fn all(gateway: &Gateway) -> Vec<Value> {
    let mut clusters = vec![admin(gateway.setup)];
    clusters.extend(callable(gateway.config).map(|deployment| provider(deployment, gateway.setup)));
    clusters
}

/// The cluster of a deployment.
fn provider(deployment: &Deployment, setup: &Setup) -> Value {
    let endpoint = &deployment.endpoint;
    let mut cluster = json!({
        "name": deployment.cluster,
        "type": discovery(endpoint),
        "connect_timeout": "5s",
        "dns_lookup_family": "V4_PREFERRED",
        "per_connection_buffer_limit_bytes": super::listener::ANSWER_BUFFER_BYTES,
        "circuit_breakers": no_limits(),
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_time": 60, "keepalive_interval": 10, "keepalive_probes": 6}
        },
        "load_assignment": addresses(deployment),
        "typed_extension_protocol_options": {
            PROTOCOL_OPTIONS: protocol(endpoint)
        },
    });
    if let (Some(cluster), true) = (cluster.as_object_mut(), endpoint.tls) {
        cluster.insert("transport_socket".to_owned(), tls(endpoint, setup));
    }
    cluster
}

/// A name stands for all of its addresses, asked for again and again.
pub(super) fn discovery(endpoint: &Endpoint) -> &'static str {
    if address(endpoint).is_some() { "STATIC" } else { "STRICT_DNS" }
}

/// The addresses of a deployment. Behind a name stands, for when it has none, an address where nobody listens: Envoy gives up
/// at once on a cluster without addresses, while a refused connection is retried, on the next deployment.
fn addresses(deployment: &Deployment) -> Value {
    let endpoint = &deployment.endpoint;
    let at = |host: &str, port: u16| json!([{"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}]);
    let mut endpoints = vec![json!({"lb_endpoints": at(&endpoint.host, endpoint.port)})];
    if address(endpoint).is_none() {
        endpoints.push(json!({"priority": 1, "lb_endpoints": at("127.0.0.1", NOBODYS_PORT)}));
    }
    json!({"cluster_name": deployment.cluster, "endpoints": endpoints})
}

fn protocol(endpoint: &Endpoint) -> Value {
    // Servers close idle connections on their own, and a request sent just then is lost; be first. Model servers in Python
    // wait 5 s, public APIs a minute and more.
    let idle = if endpoint.tls { "50s" } else { "4s" };
    let mut protocol = json!({
        "@type": PROTOCOL_OPTIONS_TYPE,
        "common_http_protocol_options": {"idle_timeout": idle},
    });
    let (name, versions) = if endpoint.tls {
        // What the server picks by ALPN.
        (
            "auto_config",
            json!({
                "http_protocol_options": {},
                "http2_protocol_options": {
                    "connection_keepalive": {"connection_idle_interval": "30s", "timeout": "5s"}
                },
            }),
        )
    } else {
        ("explicit_http_config", json!({"http_protocol_options": {}}))
    };
    if let Some(protocol) = protocol.as_object_mut() {
        protocol.insert(name.to_owned(), versions);
    }
    protocol
}

pub(super) fn tls(endpoint: &Endpoint, setup: &Setup) -> Value {
    let (kind, sni) = match address(endpoint) {
        Some(_) => ("IP_ADDRESS", None),
        None => ("DNS", Some(&endpoint.host)),
    };
    let mut common = json!({});
    if let (Some(common), true) = (common.as_object_mut(), endpoint.verify) {
        common.insert(
            "validation_context".to_owned(),
            json!({
                "trusted_ca": {"filename": setup.authorities},
                "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": endpoint.host}}],
            }),
        );
    }
    let mut context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": common,
    });
    // The name is fixed for the cluster: taken from the request it would still be the first attempt's on a retry.
    if let (Some(context), Some(sni)) = (context.as_object_mut(), sni) {
        context.insert("sni".to_owned(), json!(sni));
    }
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

/// What answers the one route to Envoy's statistics: the command, or where there is none the admin interface itself.
fn admin(setup: &Setup) -> Value {
    json!({
        "name": ADMIN,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": assignment(ADMIN, statistics_address(&setup.admin)),
        // Who asks for statistics again and again, and does not wait, is refused.
        "circuit_breakers": {"thresholds": [{
            "max_connections": AT_ONCE, "max_pending_requests": AT_ONCE, "max_requests": AT_ONCE,
        }]},
        // A chain of its own, so that the provider role, which is in everybody else's, stays out of it.
        "typed_extension_protocol_options": {
            PROTOCOL_OPTIONS: {
                "@type": PROTOCOL_OPTIONS_TYPE,
                "explicit_http_config": {"http_protocol_options": {}},
                "http_filters": [filter::codec()],
            }
        },
    })
}

/// Where statistics are asked for, as Envoy writes addresses.
fn statistics_address(admin: &Admin) -> Value {
    match admin {
        Admin::Socket(path) => json!({"pipe": {"path": metrics::socket_of(path)}}),
        Admin::Loopback(_) => admin_address(admin),
    }
}

/// Where the admin interface is, as Envoy writes addresses.
pub fn admin_address(admin: &Admin) -> Value {
    match admin {
        Admin::Socket(path) => json!({"pipe": {"path": path, "mode": 0o600}}),
        Admin::Loopback(port) => json!({"socket_address": {"address": "127.0.0.1", "port_value": port}}),
    }
}

pub(super) fn assignment(cluster: &str, address: Value) -> Value {
    json!({
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    })
}

fn address(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.host.parse().ok()
}
