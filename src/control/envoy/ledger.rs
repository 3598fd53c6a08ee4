//! The way to the ledger: clusters without the filter in their chain (a call to one that has it would enter the calling VM a
//! second time).

use serde_json::{Value, json};

use super::{
    LedgerAddress, Setup,
    cluster::{self, PROTOCOL_OPTIONS, PROTOCOL_OPTIONS_TYPE},
    filter,
};
use crate::core::protocol::{CLUSTER, INTERNAL_CLUSTER};

/// The clusters, when there is a ledger: one for clients' management calls, one for the filter's own.
pub fn clusters(setup: &Setup) -> Vec<Value> {
    [CLUSTER, INTERNAL_CLUSTER].into_iter().filter_map(|name| cluster(setup, name)).collect()
}

fn cluster(setup: &Setup, name: &str) -> Option<Value> {
    let ledger = setup.ledger.as_ref()?;
    let (kind, address, tls) = match &ledger.at {
        LedgerAddress::Socket(path) => ("STATIC", json!({"pipe": {"path": path}}), None),
        LedgerAddress::Remote(endpoint) => (
            cluster::discovery(endpoint),
            json!({"socket_address": {"address": endpoint.host, "port_value": endpoint.port}}),
            endpoint.tls.then(|| cluster::tls(endpoint, setup)),
        ),
    };
    let mut cluster = json!({
        "name": name,
        "type": kind,
        "connect_timeout": "2s",
        "circuit_breakers": cluster::no_limits(),
        "load_assignment": cluster::assignment(name, address),
        "typed_extension_protocol_options": {
            PROTOCOL_OPTIONS: {
                "@type": PROTOCOL_OPTIONS_TYPE,
                // Before something in between forgets the connection: a call that is lost with it is not made twice.
                "common_http_protocol_options": {"idle_timeout": "30s"},
                "explicit_http_config": {"http_protocol_options": {}},
                "http_filters": [filter::codec()],
            }
        },
    });
    if let (Some(cluster), Some(tls)) = (cluster.as_object_mut(), tls) {
        cluster.insert("transport_socket".to_owned(), tls);
    }
    Some(cluster)
}
