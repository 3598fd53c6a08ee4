//! The listener: connection manager, routes, retries, access log, and replies that Envoy makes before the filter can.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{AccessLog, Admin, Gateway, Setup, bootstrap, callable, cluster, filter, longest_timeout};
use crate::core::{
    exchange::{NO_CLUSTER, TOO_SLOW, attempt_timeout::TIMED_CLUSTER, local::REQUEST_ID},
    protocol,
};

/// Bytes of an answer that may be held: by a filter that needs it whole, or because the client reads slowly. An answer that
/// a filter holds beyond this becomes a 500, so it is far above any completion (10 MB of JSON is about 2 million tokens).
pub const ANSWER_BUFFER_BYTES: u32 = 32 << 20;

/// So much is read of one connection before the others of its worker have their turn: who sends large bodies on many
/// connections at once must not make everybody wait until all of them are read. What filters hold has a limit of its own.
const TURN_BYTES: u32 = 64 << 10;

/// New connections that a worker takes in one go; for the same reason.
const TURN_CONNECTIONS: u32 = 4;

/// KiB of request headers that are accepted.
const HEADER_KIB: u32 = 96;

/// Name in statistics (`http.tollgate.…`).
pub const STAT_PREFIX: &str = "tollgate";

/// Name of the routes.
pub const ROUTES: &str = "tollgate";

/// The gateway's listener. With `state`, its routes and the policy role's configuration come from files in that folder: a
/// connection that is open already has them from its next request on, while a listener that changes would go on with what
/// it had for those.
pub fn listener(gateway: &Gateway, state: Option<&Path>) -> Value {
    let setup = gateway.setup;
    let mut chain = json!({"filters": [connection_manager(gateway, state)]});
    if let (Some(chain), Some((certificate, key))) = (chain.as_object_mut(), &setup.tls) {
        chain.insert("transport_socket".to_owned(), json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_certificates": [{
                        "certificate_chain": {"filename": certificate},
                        "private_key": {"filename": key},
                    }]
                }
            }
        }));
    }
    json!({
        "name": "tollgate",
        "address": {"socket_address": {
            "address": setup.host.trim_matches(['[', ']']),
            "port_value": setup.port,
        }},
        "per_connection_buffer_limit_bytes": TURN_BYTES,
        "max_connections_to_accept_per_socket_event": TURN_CONNECTIONS,
        "filter_chains": [chain],
    })
}

fn connection_manager(gateway: &Gateway, state: Option<&Path>) -> Value {
    let policy = match state {
        None => filter::policy(gateway.setup, gateway.document),
        Some(state) => filter::policy_from(gateway.setup, bootstrap::source(state, bootstrap::POLICY)),
    };
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": STAT_PREFIX,
        "codec_type": "AUTO",
        "server_name": "tollgate",
        "server_header_transformation": "OVERWRITE",
        // The client's address is the connection's; nobody's headers can change it, and providers are not told it.
        "use_remote_address": true,
        "skip_xff_append": true,
        "preserve_external_request_id": true,
        // Model names may hold `%2F`: left as it is. `..` is resolved, so that no path means two things.
        "normalize_path": true,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "max_request_headers_kb": HEADER_KIB,
        "common_http_protocol_options": {
            "idle_timeout": "900s",
            "max_headers_count": 200,
            // LiteLLM's clients send such headers (`langfuse_trace_id`). No header that decides has a twin with underscores:
            // names are compared as they are.
            "headers_with_underscores_action": "ALLOW",
        },
        "http_protocol_options": {"accept_http_10": true, "default_host_for_http_10": "tollgate"},
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            // Bodies are prompts with images: larger than what a page sends, so more than the usual 64 KiB is under way.
            "initial_stream_window_size": 256 << 10,
            "initial_connection_window_size": 1 << 20,
        },
        "request_headers_timeout": "60s",
        // A request that does not get complete holds memory; an answer may take as long as it likes.
        "request_timeout": seconds(gateway.config.tollgate.upload_timeout_ms),
        // Never before the time-out that was configured for the call.
        "stream_idle_timeout": format!("{}s", (longest_timeout(gateway.config) / 1000 + 60).max(3600)),
        "http_filters": [readiness(), policy, {
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                "suppress_envoy_headers": true,
                "upstream_http_filters": [filter::provider(gateway.setup), filter::codec()],
            }
        }],
        "local_reply_config": local_replies(),
    });
    if let Some(manager) = manager.as_object_mut() {
        let (name, value) = match state {
            None => {
                let clusters = callable(gateway.config).map(|deployment| deployment.cluster.as_str());
                ("route_config", routes(gateway.setup, gateway.config.request_limit(), clusters))
            }
            Some(state) => {
                let source = bootstrap::source(state, bootstrap::ROUTES);
                ("rds", json!({"route_config_name": ROUTES, "config_source": source}))
            }
        };
        manager.insert(name.to_owned(), value);
        if let Some(log) = access_log(gateway.access_log) {
            manager.insert("access_log".to_owned(), json!([log]));
        }
    }
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager})
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}s", ms / 1000, ms % 1000)
}

/// Fails readiness once Envoy was told that it is to end, so that load balancers send nothing new while it still takes
/// requests. Until then the question passes.
fn readiness() -> Value {
    json!({
        "name": "envoy.filters.http.health_check",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck",
            "pass_through_mode": true,
            "headers": [{
                "name": ":path",
                "string_match": {"safe_regex": {"regex": r"/health/readiness/?(\?.*)?"}},
            }],
        }
    })
}

/// The routes, to `clusters` for requests with bodies of at most `limit` bytes.
pub fn routes<'c>(setup: &Setup, limit: u64, clusters: impl Iterator<Item = &'c str>) -> Value {
    let statistics = |path: &str| {
        // The admin interface has more to say than what may be asked for here; the command has not.
        let rewrite = match &setup.admin {
            Admin::Socket(_) => "/metrics",
            Admin::Loopback(_) => "/stats/prometheus?usedonly&",
        };
        json!({
            "match": {"path": path},
            "route": {"cluster": cluster::ADMIN, "prefix_rewrite": rewrite, "timeout": "30s"},
        })
    };
    json!({
        "name": ROUTES,
        "virtual_hosts": [{
            "name": "tollgate",
            "domains": ["*"],
            // Who the client is, and how it came here, is not a provider's business.
            "request_headers_to_remove": [
                "x-envoy-external-address", "x-envoy-internal", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host",
                "forwarded", "x-real-ip",
            ],
            // For the filter that reads it and for replaying it on a retry. The filter refuses more. It is the limit of what is
            // held of an answer, too.
            "request_body_buffer_limit": limit.max(u64::from(ANSWER_BUFFER_BYTES)),
            "routes": [statistics("/metrics"), statistics("/metrics/"), {
                "match": {"prefix": "/"},
                "route": {
                    // Time-outs come with each request, in headers that the filter sets.
                    "timeout": "0s",
                    "inline_cluster_specifier_plugin": {"extension": next_deployment(setup, clusters)},
                    "retry_policy": retries(),
                }
            }],
        }],
    })
}

/// The cluster is the one that filter state names, read again before every attempt. Only clusters listed here can be named.
fn next_deployment<'c>(setup: &Setup, clusters: impl Iterator<Item = &'c str>) -> Value {
    let choose = |cluster: &str| {
        json!({"action": {"name": "cluster", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.router.cluster_specifiers.matcher.v3.ClusterAction",
            "cluster": cluster,
        }}})
    };
    let known: Map<String, Value> = clusters
        .chain([TIMED_CLUSTER])
        .chain(setup.ledger.as_ref().map(|_| protocol::CLUSTER))
        .map(|cluster| (cluster.to_owned(), choose(cluster)))
        .collect();
    let matcher = json!({
        "matcher_tree": {
            "input": {
                "name": "envoy.matching.inputs.filter_state",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.FilterStateInput",
                    "key": "wasm.tollgate.next",
                }
            },
            "exact_match_map": {"map": known},
        },
        "on_no_match": choose(NO_CLUSTER),
    });
    json!({
        "name": "envoy.router.cluster_specifier_plugin.matcher",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.router.cluster_specifiers.matcher.v3.MatcherClusterSpecifier",
            "cluster_matcher": matcher,
        }
    })
}

/// How often is said by each request's `x-envoy-max-retries`. An answer is retried when the filter marked it, and a
/// time-out of one attempt (504) is.
fn retries() -> Value {
    json!({
        "retry_on": "reset,connect-failure,retriable-headers,retriable-status-codes",
        "retriable_status_codes": [504],
        "retriable_headers": [{"name": "x-tollgate-retry", "present_match": true}],
        "num_retries": 0,
        "refresh_cluster_on_retry": true,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.250s"},
        // Where the deployment that failed is the only one, the filter says how long to leave it alone.
        "rate_limited_retry_back_off": {
            "reset_headers": [{"name": "x-tollgate-wait", "format": "SECONDS"}],
            "max_interval": "61s",
        },
    })
}

/// One flat JSON object a line. Envoy escapes nothing in such a text, so nothing that a client or a provider has a hand in may
/// stand here: those members come from the filter, escaped, at the end. The JSON that Envoy can write itself has no way to put
/// them beside its own.
const RECORD: &str = concat!(
    r#"{"start_time":"%START_TIME%","protocol":"%PROTOCOL%","status":%RESPONSE_CODE%,"response_flags":"%RESPONSE_FLAGS%","#,
    r#""duration_ms":%DURATION%,"client":"%DOWNSTREAM_REMOTE_ADDRESS%","upstream_cluster":"%UPSTREAM_CLUSTER_RAW%","#,
    r#""upstream_address":"%UPSTREAM_HOST%","bytes_received":%BYTES_RECEIVED%,"bytes_sent":%BYTES_SENT%"#,
    "%FILTER_STATE(wasm.tollgate.record:PLAIN)%}\n"
);

/// Where requests are logged. No path has its query, where some APIs carry keys.
fn access_log(log: &AccessLog) -> Option<Value> {
    let format = json!({
        "text_format_source": {"inline_string": RECORD},
        "omit_empty_values": true,
    });
    match log {
        AccessLog::Off => None,
        AccessLog::Stdout => Some(json!({
            "name": "envoy.access_loggers.stdout",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
                "log_format": format,
            }
        })),
        AccessLog::File(path) => Some(json!({
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": path,
                "log_format": format,
            }
        })),
    }
}

/// Replies to requests that never got to the filter, in the shape that the path's clients read. What the filter answers itself, and
/// what it sees on its way out, it words better: only the cases named here are touched.
fn local_replies() -> Value {
    let too_large = format!(
        "Request headers are too large: expected at most {HEADER_KIB} KiB and 200 headers. Move long values into the body."
    );
    let is_431 = json!({"status_code_filter": {"comparison": {
        "op": "EQ",
        "value": {"default_value": 431, "runtime_key": "tollgate.headers_too_large"},
    }}});
    let invalid = ["invalid_request_error", "invalid_request_error"];
    let rows = [
        (is_431, too_large.as_str(), invalid),
        (
            because("response.code_details == 'health_check_failed'"),
            "The gateway is stopping: it finishes what it has and should get nothing new.",
            ["service_unavailable", "overloaded_error"],
        ),
        (
            because("response.code_details == 'request_overall_timeout'"),
            TOO_SLOW,
            ["invalid_request_error", "timeout_error"],
        ),
        (
            because("response.code_details == 'overload'"),
            "The gateway is short of memory and takes no new requests for the moment. Retry the request.",
            ["service_unavailable", "overloaded_error"],
        ),
        (
            because("response.code_details == 'upgrade_failed'"),
            "No route can be upgraded to another protocol (WebSocket). Send a plain HTTP request.",
            ["invalid_request_error", "permission_error"],
        ),
        (
            because("response.code_details == 'route_not_found'"),
            "There is no such route.",
            ["invalid_request_error", "not_found_error"],
        ),
        (
            because("response.code_details == 'wasm_fail_stream'"),
            "The gateway failed on a request of this worker and is starting again. Retry the request.",
            ["internal_server_error", "api_error"],
        ),
        (
            because(
                "response.code_details.startsWith('http.') || response.code_details.startsWith('http1.') || \
                 response.code_details.startsWith('http2.') || \
                 response.code_details in ['missing_host_header', 'low_version', 'absolute_path_rejected', \
                 'path_normalization_failed', 'request_header_timeout', 'filter_chain_not_found']",
            ),
            "The request is not valid HTTP (%RESPONSE_CODE_DETAILS%).",
            invalid,
        ),
    ];
    // Of a request that Envoy could not read there may be no path.
    let is_anthropics = because(
        "has(request.path) && (request.path == '/v1/messages' || request.path.startsWith('/v1/messages/') || \
         request.path.startsWith('/v1/messages?'))",
    );
    let mappers = rows.iter().flat_map(|(filter, message, [openai, anthropic])| {
        let both = json!({"and_filter": {"filters": [filter, is_anthropics]}});
        [anthropic_reply(&both, message, anthropic), openai_reply(filter, message, openai)]
    });
    json!({"mappers": mappers.collect::<Vec<Value>>()})
}

fn openai_reply(filter: &Value, message: &str, kind: &str) -> Value {
    let body = format!(
        r#"{{"error":{{"message":"{message}","type":"{kind}","param":"None","code":"%RESPONSE_CODE%"}}}}"#
    );
    json!({
        "filter": filter,
        "body_format_override": {
            "content_type": "application/json",
            "text_format_source": {"inline_string": body},
        },
    })
}

/// Written by Envoy as JSON, because the request's id may be the client's.
fn anthropic_reply(filter: &Value, message: &str, kind: &str) -> Value {
    json!({
        "filter": filter,
        "headers_to_add": [{
            "header": {"key": REQUEST_ID, "value": "%REQ(X-REQUEST-ID)%"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }],
        "body_format_override": {
            "content_type": "application/json",
            "json_format": {
                "type": "error",
                "error": {"type": kind, "message": message},
                "request_id": "%REQ(X-REQUEST-ID)%",
            },
        },
    })
}

/// Picks replies by what Envoy says about why it made them.
fn because(expression: &str) -> Value {
    json!({"extension_filter": {
        "name": "envoy.access_loggers.extension_filters.cel",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
            "expression": expression,
        }
    }})
}
