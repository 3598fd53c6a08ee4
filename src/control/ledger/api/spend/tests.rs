//! Spend of a few people over a few days, as every route shows it.
//!
//! | module | what it tests |
//! |---|---|
//! | [`logs`] | single calls, pages, sums by day |
//! | [`global`] | sums of everything |
//! | [`costs`] | `/spend/calculate` |
//! | [`scale`] | very many rows, and the indexes |

mod costs;
mod global;
mod logs;
mod scale;

use serde_json::{Value, json};

use super::ROUTES;
use crate::{
    control::ledger::{
        api::cast::Cast,
        caller::hash,
        testing::{Ledger, START_MS, on_each},
    },
    core::{
        model::call_record::CallRecord,
        protocol::{Batch, SyncRequest, escape},
    },
};

/// 10⁻¹² dollars of a dollar.
const DOLLAR: i64 = 1_000_000_000_000;
/// Milliseconds of an hour.
const HOUR: i64 = 3_600_000;
/// Midnight before 2026-01-15.
const DAY_15: i64 = START_MS - 12 * HOUR;

/// Hash of somebody's key.
fn token(cast: &Cast, who: &str) -> String {
    hash(cast.key(who))
}

/// Gives events to the ledger, as Envoy's filter does.
async fn feed(cast: &Cast, number: u64, events: Vec<CallRecord>) {
    let batch = Some(Batch { number, events, aggregated: Vec::new() });
    let request = SyncRequest { node: "n1".to_owned(), batch, cursor: 1, ..SyncRequest::default() };
    let body = serde_json::to_value(request).unwrap();
    let (status, answer) = cast.ledger.envoy("POST", "/internal/sync", Some(body)).await;
    assert_eq!((status, &answer["acknowledged"]), (200, &json!(number)));
}

/// A call by somebody's key: what it cost, when, which tokens it took.
fn call(cast: &Cast, id: &str, who: &str, at: i64, spend: i64, tokens: (u64, u64)) -> CallRecord {
    let some = |text: &str| Some(text.to_owned());
    CallRecord {
        id: id.to_owned(),
        call_type: "acompletion".into(),
        api_key: token(cast, who),
        user: some(who).filter(|who| !["service", "nobody"].contains(&who.as_str())),
        team: some("t1").filter(|_| ["member", "service"].contains(&who)),
        organization: some("o1").filter(|_| ["member", "service"].contains(&who)),
        model: "gpt-4o".to_owned(),
        model_group: "large".to_owned(),
        model_id: "d1".to_owned(),
        provider: "openai".into(),
        api_base: "https://api.openai.com/v1".to_owned(),
        spend,
        prompt_tokens: tokens.0,
        completion_tokens: tokens.1,
        total_tokens: tokens.0 + tokens.1,
        start_ms: at as u64,
        end_ms: at as u64 + 2_000,
        status: Some(200),
        ..CallRecord::default()
    }
}

/// People and what they called from 2025-12-01 to 2026-01-16; it is the first second of the last of these days.
async fn books(ledger: Ledger) -> Cast {
    let cast = Cast::new(ledger).await;
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let some = |text: &str| Some(text.to_owned());
    let day = 24 * HOUR;
    let small = |event: CallRecord| CallRecord {
        model: "claude-3".to_owned(),
        model_group: "small".to_owned(),
        provider: "anthropic".into(),
        ..event
    };
    feed(
        &cast,
        1,
        vec![
            // The last millisecond of a day, and the first of the next.
            CallRecord {
                end_user: some("e1"),
                tags: texts(&["red"]),
                ..call(&cast, "a", "member", DAY_15 - day - 1, DOLLAR / 10, (10, 5))
            },
            CallRecord {
                end_user: some("e1"),
                tags: texts(&["red", "blue"]),
                session: some("s1"),
                ip: some("10.0.0.1"),
                first_ms: Some((DAY_15 - day + 500) as u64),
                ..call(&cast, "b", "member", DAY_15 - day, DOLLAR / 5, (20, 10))
            },
            // The least there is, and a failure.
            small(CallRecord {
                end_user: some("e2"),
                cache_read_tokens: 4,
                cache_creation_tokens: 2,
                ..call(&cast, "c", "loner", START_MS, 1, (7, 3))
            }),
            small(CallRecord {
                error: some("RateLimitError"),
                status: Some(429),
                ..call(&cast, "d", "loner", START_MS + 1_000, 0, (0, 0))
            }),
            // A key of a team that failed before there was a deployment.
            CallRecord {
                error: some("BadRequestError"),
                status: Some(400),
                model: String::new(),
                provider: "".into(),
                ..call(&cast, "f", "service", START_MS + HOUR, 0, (0, 0))
            },
            // Key and team are gone since.
            CallRecord {
                api_key: "gone".to_owned(),
                team: some("t9"),
                organization: None,
                ..call(&cast, "g", "member", START_MS + HOUR / 2, DOLLAR / 20, (5, 5))
            },
            // More than 30 days ago.
            CallRecord {
                end_user: some("e3"),
                tags: texts(&["old"]),
                ..call(&cast, "h", "nobody", DAY_15 - 45 * day, 7 * DOLLAR, (1, 1))
            },
        ],
    )
    .await;
    cast.ledger.pass(12 * HOUR + 1_000);
    let last = call(&cast, "e", "nobody", DAY_15 + day, DOLLAR * 3 / 2, (100, 50));
    feed(&cast, 2, vec![CallRecord { tags: texts(&["blue"]), ..last }]).await;
    cast
}

#[test]
fn everybody_calls_what_the_role_allows() {
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        // By master, admin, viewer, chief, lead, member, loner, watcher, service, nobody.
        let all = [200; 10];
        let some = [200, 200, 200, 401, 401, 401, 401, 401, 401, 401];
        let days = "start_date=2026-01-01&end_date=2026-01-31";
        for (paths, expected) in [
            (
                &[
                    "/spend/logs",
                    "/spend/logs/v2",
                    "/spend/logs/ui",
                    "/spend/keys",
                    "/spend/users",
                    "/global/spend/logs",
                    "/global/spend/keys",
                    "/global/spend/models",
                    "/global/spend/provider",
                    "/global/activity",
                    "/global/activity/model",
                    "/user/daily/activity",
                    "/get/litellm_model_cost_map",
                ][..],
                all,
            ),
            (
                &[
                    "/spend/tags",
                    "/global/spend",
                    "/global/spend/teams",
                    "/global/spend/report",
                    "/global/spend/tags",
                    "/global/spend/all_tag_names",
                    "/provider/budgets",
                ],
                some,
            ),
        ] {
            for path in paths {
                cast.matrix(&[("GET", &format!("{path}?{days}"), Value::Null, expected)]).await;
            }
        }
        let body = json!({"completion_response": {"model": "gpt-4o", "usage": {"prompt_tokens": 1, "completion_tokens": 1}}});
        cast.matrix(&[
            ("POST", "/spend/calculate", body, all),
            ("POST", "/global/spend/end_users", json!({}), some),
            // Not even an admin's key.
            ("POST", "/global/spend/reset", json!({}), [200, 401, 403, 401, 401, 401, 401, 401, 401, 401]),
        ])
        .await;
        for route in ROUTES {
            for path in route.paths {
                for key in [None, Some("sk-unknown-key"), Some("unknown")] {
                    let (status, _, answer) = cast.ledger.call(route.method, path, key, None).await;
                    assert_eq!(status, 401, "{} {path} {key:?}: {answer}", route.method);
                }
            }
        }
    });
}

#[test]
fn wrong_questions_are_refused() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let date =
            |name: &str| json!({"detail": {"error": format!("`{name}` must be a date such as 2026-01-31")}});
        let both = json!({"detail": {"error": "Please provide start_date and end_date"}});
        for path in [
            "/spend/logs",
            "/spend/logs/v2",
            "/spend/tags",
            "/global/spend/tags",
            "/global/spend/provider",
            "/global/spend/report",
            "/global/activity",
            "/global/activity/model",
            "/user/daily/activity",
        ] {
            for wrong in [
                "x",
                "2026-13-01",
                "2026-02-30",
                "01/02/2026",
                "20260131",
                "2026-01-31Tx",
                "2026-1-1",
                "2026-01-31 25:00:00",
                "-2026-01-31",
                "2026-01-3é",
                "2026-01-31%00",
            ] {
                let query = format!("{path}?start_date={wrong}&end_date=2026-01-31").replace(' ', "%20");
                cast.script(&[("master", "GET", &query, Value::Null, 400, date("start_date"))]).await;
                let query = format!("{path}?start_date=2026-01-01&end_date={wrong}").replace(' ', "%20");
                cast.script(&[("master", "GET", &query, Value::Null, 400, date("end_date"))]).await;
            }
        }
        for path in
            ["/global/spend/report", "/global/activity", "/global/activity/model", "/user/daily/activity"]
        {
            for query in ["", "?start_date=2026-01-01", "?end_date=2026-01-01", "?start_date=&end_date="] {
                cast.script(&[("master", "GET", &format!("{path}{query}"), Value::Null, 400, both.clone())])
                    .await;
            }
        }
        let days = "start_date=2026-01-01&end_date=2026-01-31";
        let group = json!({"detail": {"error": "`group_by` must be team, customer or api_key"}});
        for wrong in ["model", "Team", "team%20", "'"] {
            let path = format!("/global/spend/report?{days}&group_by={wrong}");
            cast.script(&[("master", "GET", &path, Value::Null, 400, group.clone())]).await;
        }
        let least = |name: &str| json!({"detail": [{"type": "greater_than_equal", "loc": ["query", name]}]});
        let most = |name: &str| json!({"detail": [{"type": "less_than_equal", "loc": ["query", name]}]});
        let number = |name: &str| json!({"detail": [{"type": "int_parsing", "loc": ["query", name]}]});
        cast.script(&[
            ("master", "GET", "/global/spend/keys?limit=0", Value::Null, 422, least("limit")),
            ("master", "GET", "/global/spend/keys?limit=-1", Value::Null, 422, least("limit")),
            ("master", "GET", "/global/spend/models?limit=10001", Value::Null, 422, most("limit")),
            ("master", "GET", "/global/spend/models?limit=x", Value::Null, 422, number("limit")),
            ("master", "GET", "/spend/logs?page=0", Value::Null, 422, least("page")),
            ("master", "GET", "/spend/logs/v2?page_size=0", Value::Null, 422, least("page_size")),
            ("master", "GET", "/spend/logs/v2?page_size=1001", Value::Null, 422, most("page_size")),
            (
                "master",
                "GET",
                "/spend/logs/v2?page=9223372036854775807",
                Value::Null,
                200,
                json!({"data": []}),
            ),
            ("master", "GET", "/spend/keys?page_size=10001", Value::Null, 422, most("page_size")),
            ("master", "GET", "/spend/users?page=0", Value::Null, 422, least("page")),
            (
                "master",
                "GET",
                "/spend/logs/v2?cursor=x",
                Value::Null,
                400,
                json!({"detail": {"error": "`cursor` must be the `next_cursor` of the page before"}}),
            ),
            (
                "master",
                "GET",
                "/spend/logs?status_filter=ok",
                Value::Null,
                400,
                json!({"detail": {"error": "`status_filter` must be success or failure"}}),
            ),
            (
                "master",
                "GET",
                "/spend/logs?start_date=2001-01-01&end_date=2026-01-01",
                Value::Null,
                400,
                json!({"detail": {"error": "`start_date` and `end_date` must be at most 3660 days apart"}}),
            ),
            ("master", "GET", "/spend/logs?summarize=maybe", Value::Null, 422, Value::Null),
            (
                "master",
                "POST",
                "/global/spend/end_users",
                json!({"startTime": "x", "endTime": "2026-01-01"}),
                400,
                date("startTime"),
            ),
            ("master", "POST", "/global/spend/end_users", json!({"startTime": 7}), 422, Value::Null),
        ])
        .await;
    });
}

#[test]
fn no_parameter_breaks_a_route() {
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        let long = "x".repeat(10_000);
        let days = "start_date=2026-01-01&end_date=2026-01-31";
        for route in ROUTES.iter().filter(|route| !route.paths[0].starts_with("/get/")) {
            for field in route.query {
                for value in [
                    &long,
                    "a\u{0}b",
                    "'; DROP TABLE tollgate_keys; --",
                    "%_\\",
                    "",
                    "-1",
                    "1e300",
                    "9223372036854775807",
                    "-9223372036854775808",
                    "9999-12-31",
                    "0000-01-01",
                    "NaN",
                    "true",
                    "9223372036854775807:x",
                    "-5:\u{0}",
                    "\u{202e}",
                ] {
                    let path = format!("{}?{days}&{}={}", route.paths[0], field.name, escape(value));
                    let (status, answer) = cast.call("master", route.method, &path, Value::Null).await;
                    assert!(status < 500, "{} {path:.200}: {answer}", route.method);
                }
            }
            for field in route.body {
                for value in [
                    json!(long),
                    json!("a\u{0}b"),
                    json!(""),
                    json!(-1),
                    json!(1e300),
                    json!([]),
                    json!({}),
                    json!([null]),
                    json!({"model": "gpt-4o", "usage": {"prompt_tokens": -1}}),
                    json!({"model": "gpt-4o", "usage": {"prompt_tokens": 1e300, "completion_tokens": u64::MAX}}),
                    json!({"model": "gpt-4o", "usage": {"prompt_tokens": u64::MAX, "completion_tokens": u64::MAX},
                                     "_response_ms": -1e300}),
                ] {
                    let body = json!({field.name: value});
                    let (status, answer) = cast.call("master", route.method, route.paths[0], body).await;
                    assert!(
                        status < 500,
                        "{} {} {}: {value:.60}: {answer}",
                        route.method,
                        route.paths[0],
                        field.name
                    );
                }
            }
        }
    });
}
