//! Made-up bodies and queries for every route of the ledger, and for what Envoy says to it: whatever comes, the answer is a
//! refusal or done, and never a failure of ours.

use serde_json::{Map, Value, json};

use super::{
    api,
    route::{Field, Route, Type},
    testing::{MASTER, sqlite},
};
use crate::core::{
    fuzz::{below, cases, chance},
    random::Random,
};

const SEED: u64 = 0xfa11_5afe;

fn one_of(random: &mut Random, values: &[Value]) -> Value {
    values[below(random, values.len())].clone()
}

/// What nobody expects anywhere.
fn odd(random: &mut Random) -> Value {
    one_of(
        random,
        &[
            json!(null),
            json!(""),
            json!(" "),
            json!("\u{0}"),
            json!("%00'\";--"),
            json!("é\u{202e}🦀"),
            json!("x".repeat(5_000)),
            json!(-1),
            json!(0),
            json!(1.5),
            json!(1e300),
            json!(i64::MIN),
            json!(u64::MAX),
            json!(true),
            json!([]),
            json!([null]),
            json!([""]),
            json!([[]]),
            json!({}),
            json!({"": ""}),
            json!({"a": {"b": [1, null]}}),
            json!("2026-13-45"),
            json!("99999999d"),
            json!("../../etc/passwd"),
            json!([{"role": "user"}]),
            json!("-0"),
            json!("NaN"),
        ],
    )
}

/// Something of the right type.
fn fitting(random: &mut Random, field: &Field) -> Value {
    match field.kind {
        Type::Text => one_of(
            random,
            &[
                json!("a"),
                json!("sk-a"),
                json!("30d"),
                json!("2026-01-15"),
                json!("internal_user"),
                json!("default"),
            ],
        ),
        Type::Int => one_of(random, &[json!(0), json!(1), json!(100)]),
        Type::Money => one_of(random, &[json!(0), json!(0.5), json!(10)]),
        Type::Bool => json!(random.bits().is_multiple_of(2)),
        Type::Texts => one_of(random, &[json!([]), json!(["a"]), json!(["a", "a"]), json!([""])]),
        Type::List => one_of(random, &[json!([]), json!([{"user_id": "a", "role": "user"}]), json!([1])]),
        Type::Object => {
            one_of(random, &[json!({}), json!({"a": 1}), json!({"user_id": "a", "role": "admin"})])
        }
        Type::Any => odd(random),
    }
}

fn members(random: &mut Random, fields: &[Field]) -> Map<String, Value> {
    let mut body = Map::new();
    for field in fields {
        if field.required || below(random, 4) == 0 {
            let value = if below(random, 3) == 0 { odd(random) } else { fitting(random, field) };
            body.insert(field.name.to_owned(), value);
        }
    }
    if below(random, 8) == 0 {
        body.insert("no_such_member".to_owned(), odd(random));
    }
    body
}

fn uri(random: &mut Random, route: &Route) -> String {
    let part = ["a", "sk-a", "%00", "..", "%F0%9F%A6%80", "x%2Fy"][below(random, 6)];
    let path = route.paths[0].split('/').map(|name| if name.starts_with('{') { part } else { name });
    let path = path.collect::<Vec<_>>().join("/");
    let escape = |byte: u8| format!("%{byte:02X}");
    let pairs = members(random, route.query).into_iter().map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{name}={}", text.bytes().take(600).map(escape).collect::<String>())
    });
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

/// Routes that call somebody else, wait for something or count long texts.
const LEFT_OUT: &[&str] = &["/health", "/health/test_connection", "/utils/token_counter"];

#[tokio::test(flavor = "multi_thread")]
async fn no_body_and_no_query_makes_a_route_fail() {
    let ledger = sqlite("").await;
    let mut random = chance(SEED);
    let mut failed = Vec::new();
    for route in api::routes().filter(|route| !LEFT_OUT.contains(&route.paths[0])) {
        for _ in 0..cases(6) {
            let uri = uri(&mut random, route);
            let body = match below(&mut random, 12) {
                0 => odd(&mut random),
                _ => Value::Object(members(&mut random, route.body)),
            };
            let sent = (route.method != "GET").then(|| body.clone());
            let (status, _, answer) = ledger.call(route.method, &uri, Some(MASTER), sent).await;
            // LiteLLM answers 500 to what a server is not set up for; then it says what to set.
            let is_ours =
                answer.to_string().contains("the reason is in its log") || !answer["error"].is_object();
            if status >= 500 && is_ours {
                failed.push(format!("{} {uri} {body}: {status} {answer}", route.method));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_envoy_says_is_taken_or_refused() {
    let ledger = sqlite("").await;
    let mut random = chance(SEED + 1);
    let whole = json!({
        "node": "n", "cursor": 3, "rates": [{"meter": "key:a", "requests": 1, "tokens": 2, "parallel": 1, "since_ms": 5}],
        "batch": {"number": 1, "dropped": 0, "folded": [], "events": [
            {"id": "e", "api_key": "k", "spend": 5, "model": "m", "status": 200, "start_ms": 1, "end_ms": 2}]},
    });
    for case in 0..cases(300) {
        let mut body = whole.clone();
        body["node"] = json!(format!("n{case}"));
        // One value somewhere in it is something else, or is gone.
        let pointers = [
            "/node",
            "/cursor",
            "/rates",
            "/rates/0",
            "/rates/0/meter",
            "/batch",
            "/batch/number",
            "/batch/events",
            "/batch/events/0",
            "/batch/events/0/id",
            "/batch/events/0/spend",
            "/batch/events/0/model",
            "/batch/events/0/start_ms",
            "/batch/events/0/status",
            "/batch/folded",
        ];
        let pointer = pointers[below(&mut random, pointers.len())];
        *body.pointer_mut(pointer).unwrap() = odd(&mut random);
        let (status, answer) = ledger.envoy("POST", "/internal/sync", Some(body.clone())).await;
        assert!(status == 200 || status == 400, "{pointer} {body}: {status} {answer}");
    }
    // And it goes on.
    let (status, _) = ledger.envoy("POST", "/internal/sync", Some(json!({"node": "last"}))).await;
    assert_eq!(status, 200);
}
