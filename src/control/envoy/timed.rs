//! The listener inside: keeps the time-out of an attempt that may take less than the others of its request, and passes it on.
//!
//! Envoy has one time-out for all attempts of a request. An attempt with a shorter one is sent to [`cluster`], whose only
//! endpoint is [`listener`] in this same process; what that is told in headers, and by whom, is in
//! [`crate::core::exchange::attempt_timeout`]. Neither depends on the configuration, so a reload never touches them.

use serde_json::{Value, json};

use super::{
    cluster::{self, PROTOCOL_OPTIONS, PROTOCOL_OPTIONS_TYPE},
    listener::ANSWER_BUFFER_BYTES,
};
use crate::core::exchange::attempt_timeout::{
    BEGIN_HEADER, CLUSTER_HEADER, NO_RESPONSE_HEADER, TIMED_CLUSTER, WHOLE_HEADER,
};

/// Address of the listener, and its name.
const ADDRESS: &str = "tollgate_timed";

/// KiB of headers and number of headers: more than the outer side lets through.
const HEADER_KIB: u32 = 1024;
const HEADERS: u32 = 1000;

/// What Envoy needs to be told to have listeners inside.
pub fn extension() -> Value {
    json!({
        "name": "envoy.bootstrap.internal_listener",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
        }
    })
}

/// The cluster whose endpoint is the listener.
pub fn cluster() -> Value {
    json!({
        "name": TIMED_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "5s",
        "per_connection_buffer_limit_bytes": ANSWER_BUFFER_BYTES,
        "circuit_breakers": cluster::no_limits(),
        "load_assignment": cluster::assignment(TIMED_CLUSTER, json!({
            "envoy_internal_address": {"server_listener_name": ADDRESS}
        })),
        "typed_extension_protocol_options": {
            PROTOCOL_OPTIONS: {
                "@type": PROTOCOL_OPTIONS_TYPE,
                "common_http_protocol_options": {"idle_timeout": "60s", "max_headers_count": HEADERS},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    })
}

/// The listener.
pub fn listener() -> Value {
    json!({
        "name": ADDRESS,
        "internal_listener": {},
        // The outer side counts connections already.
        "ignore_global_conn_limit": true,
        "per_connection_buffer_limit_bytes": ANSWER_BUFFER_BYTES,
        "filter_chains": [{"filters": [connection_manager()]}],
    })
}

fn connection_manager() -> Value {
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": ADDRESS,
            "codec_type": "HTTP1",
            // The request stays as the provider role wrote it, and the answer as the provider wrote it.
            "server_header_transformation": "PASS_THROUGH",
            "generate_request_id": false,
            "preserve_external_request_id": true,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            // HTTP/1 does not say the scheme.
            "scheme_header_transformation": {"match_upstream": true},
            "max_request_headers_kb": HEADER_KIB,
            // The outer side closes idle connections, and first.
            "common_http_protocol_options": {"idle_timeout": "3600s", "max_headers_count": HEADERS},
            "stream_idle_timeout": "0s",
            "http_filters": [time_outs(), {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": true,
                }
            }],
            "route_config": {
                "name": ADDRESS,
                "virtual_hosts": [{
                    "name": ADDRESS,
                    "domains": ["*"],
                    "request_headers_to_remove": [CLUSTER_HEADER, "x-forwarded-proto", "x-envoy-internal"],
                    // Only this listener may say it.
                    "response_headers_to_remove": [NO_RESPONSE_HEADER],
                    "routes": [{
                        "match": {"prefix": "/"},
                        "route": {"cluster_header": CLUSTER_HEADER, "timeout": "0s"},
                    }],
                }],
            },
            "local_reply_config": {"mappers": [{
                "filter": {"status_code_filter": {"comparison": {
                    "op": "GE",
                    "value": {"default_value": 400, "runtime_key": "tollgate.no_answer"},
                }}},
                "headers_to_add": [{
                    "header": {"key": NO_RESPONSE_HEADER, "value": "1"},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }],
            }]},
        }
    })
}

/// Names the time-outs as the router reads them. Sent under these names they would be gone: Envoy takes nobody's word for
/// them before the filters run.
fn time_outs() -> Value {
    let rename = |from: &str, to: &str| {
        [
            json!({"append": {
                "header": {"key": to, "value": format!("%REQ({from})%")},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }}),
            json!({"remove": from}),
        ]
    };
    let mutations = [
        rename(WHOLE_HEADER, "x-envoy-upstream-rq-timeout-ms"),
        rename(BEGIN_HEADER, "x-envoy-upstream-rq-per-try-timeout-ms"),
    ];
    json!({
        "name": "envoy.filters.http.header_mutation",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": mutations.concat()},
        }
    })
}
