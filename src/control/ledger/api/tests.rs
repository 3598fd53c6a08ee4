//! Every route of people and their keys with members that nobody sends in good faith, and lists over very many keys.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::cast::Cast;
use crate::control::ledger::{
    caller::hash,
    route::{Route, Type},
    rows,
    schema::KEYS,
    testing::{START_MS, on_each},
};
use crate::core::protocol::escape;

fn routes() -> impl Iterator<Item = &'static Route> {
    super::routes().filter(|route| {
        ["keys", "users", "teams", "organizations", "budgets", "customers"].contains(&route.tag)
    })
}

/// All that take something, health checks apart: those call providers.
fn taking() -> impl Iterator<Item = &'static Route> {
    super::routes()
        .filter(|route| route.tag != "health" && !(route.body.is_empty() && route.query.is_empty()))
}

const STORES: &str = "
model_list:
- {model_name: own, litellm_params: {model: openai/gpt-4o, api_key: sk-of-the-file}, model_info: {id: own-1}}
general_settings: {store_model_in_db: true}
";

/// Something that fits, so that what does not is the only reason.
fn plausible(name: &str, kind: Type) -> Value {
    match (name, kind) {
        ("team_id", _) => json!("t1"),
        ("organization_id", _) => json!("o1"),
        ("member", _) => json!({"user_id": "member"}),
        ("user_id", _) => json!("member"),
        ("litellm_params", _) => json!({"model": "openai/gpt-4o", "api_key": "k"}),
        (_, Type::Texts) => json!(["x"]),
        (_, Type::Object) => json!({}),
        (_, Type::Money | Type::Int) => json!(1),
        _ => json!("x"),
    }
}

/// Lists in lists.
fn nested(depth: usize) -> Value {
    (0..depth).fold(json!("a"), |inner, _| json!([inner]))
}

#[test]
fn no_member_breaks_a_route() {
    on_each(STORES, |ledger| async move {
        let cast = Cast::new(ledger).await;
        let long = "x".repeat(10_000);
        let hostile = [
            json!(long),
            json!("a\u{0}b"),
            json!("'; DROP TABLE tollgate_keys; --"),
            json!("%_\\"),
            json!(""),
            json!("\u{202e}\u{1f600}"),
            json!(-1),
            json!(1e300),
            json!(9.5e15),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(0.1),
            json!(true),
            json!([]),
            json!({}),
            json!([null]),
            json!([{}]),
            json!(["a\u{0}b"]),
            json!([[]]),
            json!([""]),
            json!(["x", "x"]),
            json!([" "]),
            json!([{"user_id": ""}, {"user_email": ""}, {"team_id": ""}]),
            json!([{"user_id": 1, "user_email": {}, "team_id": [], "role": 2}]),
            json!({"user_id": "", "user_email": ""}),
            json!({"": ""}),
            json!({"a": null}),
            json!({"id": {}, "team_id": "", "model": [], "mode": {}}),
            json!({"team_id": {"a": 1}, "id": ""}),
            nested(100),
            json!({"a": nested(100)}),
            json!([{"user_id": "a\u{0}"}]),
            json!({"user_id": "a\u{0}b"}),
            json!({"user_id": long}),
            json!({"a\u{0}": {"budget_limit": 1e300, "time_period": "99999999999999999999d"}}),
            json!({"x": {"budget_limit": 1, "time_period": "9999999999d"}}),
            json!("99999999999999d"),
            json!("0d"),
        ];
        for route in taking() {
            let path = route.paths[0];
            let base: Map<String, Value> = route
                .body
                .iter()
                .filter(|field| field.required)
                .map(|field| (field.name.to_owned(), plausible(field.name, field.kind)))
                .collect();
            for field in route.body {
                for value in &hostile {
                    let mut body = base.clone();
                    body.insert(field.name.to_owned(), value.clone());
                    let (status, answer) = cast.call("master", route.method, path, Value::Object(body)).await;
                    assert!(status < 500, "{} {path} {}: {value:.60}: {answer}", route.method, field.name);
                }
            }
            for field in route.query {
                for value in hostile.iter().filter_map(Value::as_str) {
                    let query = format!("{path}?{}={}", field.name, escape(value));
                    let (status, answer) = cast.call("master", route.method, &query, Value::Null).await;
                    assert!(status < 500, "{} {path} {}: {value:.60}: {answer}", route.method, field.name);
                }
            }
            // The whole body something else.
            for body in [json!([]), json!("x"), json!(1), json!({"unknown": "\u{0}"})] {
                let (status, answer) = cast.call("master", route.method, path, body).await;
                assert!(status < 500, "{} {path}: {answer}", route.method);
            }
        }
        let (status, _) = cast.call("master", "POST", "/key/%00/regenerate", Value::Null).await;
        assert!(status < 500);
    });
}

#[test]
fn every_route_needs_a_key() {
    on_each("", |ledger| async move {
        for route in routes() {
            let path = route.paths[0].replace("{key}", "x");
            let (status, _, answer) = ledger.call(route.method, &path, None, None).await;
            assert_eq!(status, 401, "{} {path}: {answer}", route.method);
            let (status, _, answer) = ledger.call(route.method, &path, Some("sk-unknown-key"), None).await;
            assert_eq!(status, 401, "{} {path}: {answer}", route.method);
        }
    });
}

/// Lists stay fast, and a team with very many keys can be removed. Debug builds are slow: the bounds are loose.
#[test]
fn very_many_keys() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let mut tx = cast.ledger.app.db.write().await.unwrap();
        let count = 20_000_i64;
        for at in 0..count {
            let row = json!({"token": hash(&at.to_string()), "team_id": "big", "user_id": format!("u{}", at % 1_000),
                             "created_at": START_MS + at, "key_alias": format!("k{at}"), "metadata": {"n": at}});
            rows::insert(tx.connection(), &KEYS, row.as_object().unwrap()).await.unwrap();
        }
        tx.commit().await.unwrap();
        cast.ledger.admin("POST", "/team/new", Some(json!({"team_id": "big"}))).await;
        for path in [
            "/key/list?size=100&return_full_object=true",
            "/key/list?size=100&page=190",
            "/key/list?user_id=u7",
            "/key/list?team_id=big&sort_by=spend",
            "/key/list?key_alias=k77",
            "/user/list",
        ] {
            let start = Instant::now();
            let (status, _) = cast.call("master", "GET", path, Value::Null).await;
            let took = start.elapsed().as_millis();
            assert!(status == 200 && took < 1_500, "{path}: {status} after {took} ms");
        }
        let start = Instant::now();
        let told = cast.changed("POST", "/team/delete", json!({"team_ids": ["big"]})).await;
        assert_eq!(told, ["*"]);
        assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
        let (_, left) = cast.call("master", "GET", "/key/list?team_id=big", Value::Null).await;
        assert_eq!(left["total_count"], 0);
    });
}

/// Sends bytes over one connection and reads answers until it has so many, or the connection ends.
async fn conversation(stream: &mut tokio::net::TcpStream, request: &[u8]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let (mut from, mut to) = stream.split();
    // One that answers early and closes does not read all of it.
    let (_, answer) = tokio::join!(to.write_all(request), async {
        let mut answer = Vec::new();
        let mut part = [0; 4_096];
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                length.is_some_and(|length| length.parse().is_ok_and(|length: usize| body.len() >= length))
            });
            if whole {
                return text;
            }
            match from.read(&mut part).await {
                Ok(size) if size > 0 => answer.extend_from_slice(&part[..size]),
                _ => return text,
            }
        }
    });
    answer
}

#[test]
fn a_refused_call_leaves_a_connection_that_the_next_one_can_use_or_closes_it() {
    on_each("", |ledger| async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = crate::control::ledger::serve::router(std::sync::Arc::clone(&ledger.app));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let post = |size: usize| {
            let mut request =
                format!("POST /key/generate HTTP/1.1\r\nhost: h\r\ncontent-length: {size}\r\n\r\n")
                    .into_bytes();
            request.resize(request.len() + size, b'x');
            request
        };
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        for _ in 0..3 {
            let answer = conversation(&mut stream, &post(500_000)).await;
            assert!(answer.starts_with("HTTP/1.1 401") && !answer.contains("connection: close"), "{answer}");
        }
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let answer = conversation(&mut stream, &post(3_000_000)).await;
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("connection: close"), "{answer}");
    });
}

#[test]
fn what_is_known_and_not_enforced_is_refused_as_a_bad_request() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let all = [
            ("guardrails", json!(["g"])),
            ("prompts", json!(["p"])),
            ("object_permission", json!({"mcp_servers": ["m"]})),
            ("config", json!({"a": 1})),
            ("policies", json!(["p"])),
            ("router_settings", json!({"num_retries": 1})),
            ("access_group_ids", json!(["a"])),
            ("rpm_limit_type", json!("guaranteed_throughput")),
        ];
        let own = [
            ("/key/generate", json!({}), "permissions", json!({"get_spend_routes": true})),
            ("/user/new", json!({"user_id": "u"}), "soft_budget", json!(1)),
            (
                "/user/new",
                json!({"user_id": "u", "auto_create_key": false}),
                "allowed_routes",
                json!(["/models"]),
            ),
            ("/user/update", json!({"user_id": "loner"}), "blocked", json!(true)),
            ("/user/update", json!({"user_id": "loner"}), "aliases", json!({"a": "b"})),
            ("/user/update", json!({"user_id": "loner"}), "duration", json!("1d")),
            ("/team/new", json!({}), "soft_budget", json!(1)),
            (
                "/team/member_add",
                json!({"team_id": "t1", "member": {"user_id": "loner"}}),
                "allowed_models",
                json!(["m"]),
            ),
            (
                "/team/member_update",
                json!({"team_id": "t1", "user_id": "member"}),
                "max_parallel_requests",
                json!(1),
            ),
            ("/customer/new", json!({"user_id": "c"}), "model_rpm_limit", json!({"m": 1})),
            ("/budget/new", json!({}), "model_tpm_limit", json!({"m": 1})),
            (
                "/organization/new",
                json!({"organization_alias": "o"}),
                "budget_limits",
                json!([{"budget_duration": "1d", "max_budget": 1}]),
            ),
        ];
        let bodies = [
            ("/key/generate", json!({})),
            ("/key/update", json!({"key": cast.key("loner")})),
            ("/user/new", json!({"user_id": "u"})),
            ("/user/update", json!({"user_id": "loner"})),
            ("/team/new", json!({"team_id": "t9"})),
            ("/team/update", json!({"team_id": "t1"})),
            ("/organization/new", json!({"organization_alias": "o"})),
            ("/budget/new", json!({"budget_id": "b"})),
            ("/customer/new", json!({"user_id": "c"})),
        ];
        let everywhere = bodies.iter().flat_map(|(path, body)| {
            all.iter().map(|(name, value)| (*path, body.clone(), *name, value.clone()))
        });
        for (path, mut body, name, value) in everywhere.chain(own) {
            body[name] = value;
            let (status, answer) = cast.call("master", "POST", path, body.clone()).await;
            assert_eq!(status, 400, "{path} {body}: {answer}");
            let error = &answer["error"];
            assert_eq!(
                (&error["type"], &error["param"]),
                (&json!("bad_request_error"), &json!(name)),
                "{answer}"
            );
            assert!(error["message"].as_str().unwrap().contains(&format!("`{name}`")), "{answer}");
        }
    });
}
