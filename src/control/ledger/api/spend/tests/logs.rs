//! `/spend/logs`: single calls, pages of them, sums by day; `/spend/keys` and `/spend/users`.

use std::collections::BTreeSet;

use super::*;
use crate::control::ledger::api::cast::names;

/// The ids of rows.
fn ids(rows: &Value) -> Vec<&str> {
    rows.as_array().unwrap().iter().map(|row| row["request_id"].as_str().unwrap()).collect()
}

#[test]
fn a_row_is_litellms() {
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        let (status, rows) = cast.call("master", "GET", "/spend/logs?request_id=b", Value::Null).await;
        assert_eq!((status, ids(&rows)), (200, vec!["b"]));
        let api_key = token(&cast, "member");
        let expected = json!({
            "request_id": "b", "call_type": "acompletion", "api_key": api_key, "spend": 0.2,
            "total_tokens": 30, "prompt_tokens": 20, "completion_tokens": 10,
            "startTime": "2026-01-14T00:00:00Z", "endTime": "2026-01-14T00:00:02Z",
            "completionStartTime": "2026-01-14T00:00:00.5Z",
            "model": "gpt-4o", "model_id": "d1", "model_group": "large", "custom_llm_provider": "openai",
            "api_base": "https://api.openai.com/v1", "user": "member",
            "metadata": rows[0]["metadata"],
            "cache_hit": "False", "cache_key": "Cache OFF", "request_tags": ["red", "blue"], "team_id": "t1",
            "end_user": "e1", "requester_ip_address": "10.0.0.1", "messages": {}, "response": {},
            "session_id": "s1", "status": "success", "proxy_server_request": {},
        });
        assert_eq!(rows[0], expected);
        let metadata = &rows[0]["metadata"];
        for (name, value) in [
            ("user_api_key", json!(api_key)),
            ("user_api_key_user_id", json!("member")),
            ("user_api_key_team_id", json!("t1")),
            ("user_api_key_org_id", json!("o1")),
            ("status", json!("success")),
            ("usage_object", json!({"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30})),
        ] {
            assert_eq!(metadata[name], value, "{name}");
        }
        let (_, rows) = cast.call("master", "GET", "/spend/logs?request_id=f", Value::Null).await;
        let row = &rows[0];
        let shape: BTreeSet<&str> = names(row).into_iter().collect();
        assert_eq!(shape, names(&expected).into_iter().collect());
        assert_eq!(
            (&row["status"], &row["spend"], &row["user"]),
            (&json!("failure"), &json!(0.0), &Value::Null)
        );
        let error = &row["metadata"]["error_information"];
        assert_eq!((&error["error_class"], &error["error_code"]), (&json!("BadRequestError"), &json!("400")));
    });
}

#[test]
fn calls_are_found_by_what_they_are() {
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        let (raw, hashed) = (cast.key("member").to_owned(), token(&cast, "member"));
        for (query, expected) in [
            ("", &["e", "f", "g", "d", "c", "b", "a", "h"][..]),
            (&format!("api_key={raw}"), &["b", "a"]),
            (&format!("api_key={hashed}"), &["b", "a"]),
            ("api_key=gone", &["g"]),
            ("api_key=sk-nobody-has-this", &[]),
            ("user_id=member", &["g", "b", "a"]),
            ("user_id=member&api_key=gone", &["g"]),
            ("user_id=", &["e", "f", "g", "d", "c", "b", "a", "h"]),
            ("request_id=c", &["c"]),
            ("request_id=c&user_id=member", &[]),
            ("team_id=t1", &["f", "b", "a"]),
            ("end_user=e1", &["b", "a"]),
            ("model=claude-3", &["d", "c"]),
            ("model_group=large", &["e", "f", "g", "b", "a", "h"]),
            ("session_id=s1", &["b"]),
            ("status_filter=failure", &["f", "d"]),
            ("status_filter=success", &["e", "g", "c", "b", "a", "h"]),
            ("min_spend=0.2", &["e", "b", "h"]),
            ("max_spend=0.000000000001", &["f", "d", "c"]),
            ("min_spend=0.05&max_spend=0.1", &["g", "a"]),
            ("start_date=2026-01-15", &["e", "f", "g", "d", "c"]),
            ("end_date=2026-01-13", &["a", "h"]),
            ("start_date=2026-01-13&end_date=2026-01-14&summarize=false", &["b", "a"]),
            ("start_date=2026-01-14&end_date=2026-01-13&summarize=false", &[]),
            // Times, both included.
            ("start_date=2026-01-15T12:00:01Z&end_date=2026-01-15%2012:30:00&summarize=false", &["g", "d"]),
            (
                "start_date=2026-01-15%2012:00:01&end_date=2026-01-15T14:30:00%2B02:00&summarize=false",
                &["g", "d"],
            ),
            // What sums by day do not know asks for single calls.
            ("start_date=2026-01-13&end_date=2026-01-16&request_id=a", &["a"]),
            ("start_date=2026-01-13&end_date=2026-01-16&end_user=e2", &["c"]),
        ] {
            let (status, rows) =
                cast.call("master", "GET", &format!("/spend/logs?{query}"), Value::Null).await;
            assert_eq!((status, ids(&rows)), (200, expected.to_vec()), "{query}");
            let (status, page) =
                cast.call("master", "GET", &format!("/spend/logs/v2?{query}"), Value::Null).await;
            assert_eq!((status, ids(&page["data"])), (200, expected.to_vec()), "v2 {query}");
            assert_eq!(page["total"], expected.len(), "{query}");
        }
    });
}

#[test]
fn everybody_sees_the_own_calls() {
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        for (who, expected) in [
            ("master", &["e", "f", "g", "d", "c", "b", "a", "h"][..]),
            ("admin", &["e", "f", "g", "d", "c", "b", "a", "h"]),
            ("viewer", &["e", "f", "g", "d", "c", "b", "a", "h"]),
            ("chief", &[]),
            ("lead", &[]),
            ("member", &["g", "b", "a"]),
            ("loner", &["d", "c"]),
            ("watcher", &[]),
            ("service", &["f"]),
            ("nobody", &["e", "h"]),
        ] {
            // Naming somebody else shows no more.
            let sees_all = expected.len() == 8;
            for path in
                ["/spend/logs", "/spend/logs/v2?page_size=100", "/spend/logs?page=1", "/spend/logs/ui"]
            {
                let (_, answer) = cast.call(who, "GET", path, Value::Null).await;
                let rows = if answer.is_array() { &answer } else { &answer["data"] };
                assert_eq!(ids(rows), expected, "{who} {path}");
            }
            for (query, others) in
                [("user_id=member", "member"), ("request_id=c", "loner"), ("api_key=gone", "member")]
            {
                let (_, answer) = cast.call(who, "GET", &format!("/spend/logs?{query}"), Value::Null).await;
                assert_eq!(ids(&answer).is_empty(), !sees_all && who != others, "{who} {query}");
            }
            let days = "start_date=2025-12-01&end_date=2026-01-16";
            let (_, answer) = cast.call(who, "GET", &format!("/spend/logs?{days}"), Value::Null).await;
            let sum: f64 = answer.as_array().unwrap().iter().map(|day| day["spend"].as_f64().unwrap()).sum();
            let own = match who {
                "member" => 0.35,
                "loner" => 1e-12,
                "nobody" => 8.5,
                _ if sees_all => 8.850000000001,
                _ => 0.0,
            };
            assert!((sum - own).abs() < 1e-13, "{who}: {sum}");
        }
    });
}

#[test]
fn sums_by_day_end_with_empty_days() {
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        let key = |who: &str| token(&cast, who);
        let empty = |day: &str| json!({"startTime": day, "spend": 0, "users": {}, "models": {}});
        let thirteenth = json!({"startTime": "2026-01-13", "spend": 0.1, "users": {"member": 0.1},
                                "models": {"gpt-4o": 0.1}, (key("member")): 0.1});
        let fifteenth = json!({
            "startTime": "2026-01-15", "spend": 0.050000000001,
            "users": {"": 0.0, "loner": 1e-12, "member": 0.05},
            "models": {"": 0.0, "claude-3": 1e-12, "gpt-4o": 0.05},
            (key("loner")): 1e-12, (key("service")): 0.0, "gone": 0.05,
        });
        let december = json!({"startTime": "2025-12-01", "spend": 7.0, "users": {"": 7.0}, "models": {"gpt-4o": 7.0},
                              (key("nobody")): 7.0});
        let own = json!({"startTime": "2026-01-14", "spend": 0.2, "users": {"member": 0.2}, "models": {"gpt-4o": 0.2},
                         (key("member")): 0.2});
        for (query, expected) in [
            ("start_date=2026-01-13&end_date=2026-01-13", json!([thirteenth])),
            ("start_date=2026-01-13&end_date=2026-01-13&summarize=true", json!([thirteenth])),
            ("start_date=2026-01-15&end_date=2026-01-15", json!([fifteenth])),
            // Days before and between calls are left out, those after them are not.
            (
                "start_date=2025-11-01&end_date=2025-12-03",
                json!([december, empty("2025-12-02"), empty("2025-12-03")]),
            ),
            (
                &format!("start_date=2026-01-14&end_date=2026-01-16&api_key={}", cast.key("member")),
                json!([own, empty("2026-01-15"), empty("2026-01-16")]),
            ),
            (&format!("start_date=2026-01-14&end_date=2026-01-14&api_key={}", key("member")), json!([own])),
            (
                "start_date=2026-01-14&end_date=2026-01-15&user_id=member&team_id=t1",
                json!([own, empty("2026-01-15")]),
            ),
            ("start_date=2026-01-14&end_date=2026-01-14&model=gpt-4o&model_group=large", json!([own])),
            ("start_date=2026-02-01&end_date=2026-02-03", json!([])),
            ("start_date=2026-01-16&end_date=2026-01-13", json!([])),
        ] {
            let (status, answer) =
                cast.call("master", "GET", &format!("/spend/logs?{query}"), Value::Null).await;
            assert_eq!((status, answer), (200, expected), "{query}");
        }
        // The last days there are: nothing comes after them.
        let late = "9999-12-30T12:00:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond();
        feed(&cast, 3, vec![call(&cast, "late", "nobody", late, 1, (1, 1))]).await;
        let (status, answer) = cast
            .call("nobody", "GET", "/spend/logs?start_date=9999-12-01&end_date=9999-12-31", Value::Null)
            .await;
        assert_eq!((status, answer.as_array().unwrap().len()), (200, 2), "{answer}");
    });
}

#[test]
fn pages_have_totals() {
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        for (query, expected, total, page, size, pages) in [
            ("page_size=3", &["e", "f", "g"][..], 8, 1, 3, 3),
            ("page_size=3&page=2", &["d", "c", "b"], 8, 2, 3, 3),
            ("page_size=3&page=3", &["a", "h"], 8, 3, 3, 3),
            ("page_size=3&page=4", &[], 8, 4, 3, 3),
            ("page=1", &["e", "f", "g", "d", "c", "b", "a", "h"], 8, 1, 50, 1),
            ("page_size=4&page=2", &["c", "b", "a", "h"], 8, 2, 4, 2),
            ("page_size=2&user_id=member", &["g", "b"], 3, 1, 2, 2),
            ("page=1&user_id=stranger", &[], 0, 1, 50, 0),
        ] {
            for path in ["/spend/logs", "/spend/logs/v2", "/spend/logs/ui"] {
                let (status, answer) =
                    cast.call("master", "GET", &format!("{path}?{query}"), Value::Null).await;
                assert_eq!((status, ids(&answer["data"])), (200, expected.to_vec()), "{path}?{query}");
                let wanted = json!([total, page, size, pages]);
                let got =
                    json!([answer["total"], answer["page"], answer["page_size"], answer["total_pages"]]);
                assert_eq!(got, wanted, "{path}?{query}");
                assert_eq!(answer["next_cursor"].is_null(), page >= pages, "{path}?{query}");
            }
        }
    });
}

#[test]
fn a_cursor_loses_and_doubles_nothing() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        // Many at the same millisecond, with ids that are no plain words.
        let events = (0..50).map(|at| {
            let id = format!("id:{}&/ü {at}", at * 7 % 50);
            call(&cast, &id, "member", START_MS + i64::from(at) / 10, 1, (1, 1))
        });
        let events: Vec<CallRecord> = events.collect();
        let mut wanted: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
        feed(&cast, 1, events).await;
        let (mut seen, mut next, mut round): (Vec<String>, Option<String>, u64) = Default::default();
        loop {
            let query = next.as_ref().map(|cursor| format!("&cursor={}", escape(cursor))).unwrap_or_default();
            let path = format!("/spend/logs/v2?page_size=7&user_id=member{query}");
            let (status, answer) = cast.call("member", "GET", &path, Value::Null).await;
            assert_eq!(status, 200, "{answer}");
            seen.extend(ids(&answer["data"]).into_iter().map(str::to_owned));
            assert_eq!(next.is_none(), answer.get("total").is_some());
            next = answer["next_cursor"].as_str().map(str::to_owned);
            // Others come in all the time, and others' calls are at the same moments.
            round += 1;
            let others = (0..20).map(|at| {
                let who = if at % 2 == 0 { "member" } else { "loner" };
                let ms = if who == "member" { START_MS + HOUR } else { START_MS + at % 5 };
                call(&cast, &format!("new {round} {at}"), who, ms, 1, (1, 1))
            });
            feed(&cast, round + 1, others.collect()).await;
            if next.is_none() {
                break;
            }
        }
        assert_eq!(round, 8);
        // The newest first, the id breaks ties.
        let unsorted = seen.clone();
        seen.sort();
        seen.dedup();
        wanted.sort();
        assert_eq!((seen.len(), &seen), (unsorted.len(), &wanted));
        // Pages up to a time that is past stay as they are, too.
        let mut seen = BTreeSet::new();
        for page in 1..=8 {
            let path = format!("/spend/logs/v2?page_size=7&page={page}&end_date=2026-01-15%2012:00:01");
            let (_, answer) = cast.call("member", "GET", &path, Value::Null).await;
            assert_eq!((&answer["total"], &answer["total_pages"]), (&json!(50), &json!(8)));
            seen.extend(ids(&answer["data"]).into_iter().map(str::to_owned));
            feed(
                &cast,
                100 + page,
                vec![call(&cast, &format!("newer {page}"), "member", START_MS + HOUR, 1, (1, 1))],
            )
            .await;
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), wanted);
    });
}

#[test]
fn keys_and_users_are_ranked() {
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        let ranked = async |who: &str, path: &str, name: &str| {
            let (status, answer) = cast.call(who, "GET", path, Value::Null).await;
            assert_eq!(status, 200, "{who} {path}: {answer}");
            let list: Vec<(String, Value)> = answer
                .as_array()
                .unwrap()
                .iter()
                .map(|row| (row[name].as_str().unwrap().to_owned(), row["spend"].clone()))
                .collect();
            list
        };
        let key = |who: &str, spend: f64| (token(&cast, who), json!(spend));
        let user = |who: &str, spend: f64| (who.to_owned(), json!(spend));
        for who in ["master", "admin", "viewer"] {
            let keys = ranked(who, "/spend/keys", "token").await;
            assert_eq!(keys[..3], [key("nobody", 8.5), key("member", 0.3), key("loner", 1e-12)], "{who}");
            assert_eq!(keys.len(), 9, "{who}");
            assert!(keys[3..].iter().all(|(_, spend)| *spend == json!(0.0)));
            let users = ranked(who, "/spend/users", "user_id").await;
            assert_eq!(users[..2], [user("member", 0.35), user("loner", 1e-12)], "{who}");
            assert_eq!(ranked(who, "/spend/users?user_id=loner", "user_id").await, [user("loner", 1e-12)]);
            assert_eq!(ranked(who, "/spend/users?user_id=stranger", "user_id").await, []);
        }
        for (who, keys, users) in [
            ("member", vec![key("member", 0.3)], vec![user("member", 0.35)]),
            ("loner", vec![key("loner", 1e-12)], vec![user("loner", 1e-12)]),
            ("service", vec![key("service", 0.0)], vec![]),
            ("nobody", vec![key("nobody", 8.5)], vec![]),
        ] {
            assert_eq!(ranked(who, "/spend/keys", "token").await, keys, "{who}");
            assert_eq!(ranked(who, "/spend/users", "user_id").await, users, "{who}");
            let others = if who == "member" { "loner" } else { "member" };
            assert_eq!(ranked(who, &format!("/spend/users?user_id={others}"), "user_id").await, [], "{who}");
        }
        // Pages put together are the whole.
        let all = ranked("master", "/spend/keys", "token").await;
        let mut pages = Vec::new();
        for page in 1..=4 {
            pages.extend(ranked("master", &format!("/spend/keys?page_size=3&page={page}"), "token").await);
        }
        assert_eq!(pages, all);
    });
}

#[test]
fn spans_that_are_too_long_are_refused() {
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        for (first, last, status) in [
            ("2026-01-01", "2026-01-31", 200),
            ("2026-01-01", "2036-01-08", 200),
            ("2026-01-01", "2036-01-09", 400),
            ("2026-01-01", "9999-12-31", 400),
            ("-009999-01-01", "9999-12-31", 400),
        ] {
            let path = format!("/spend/logs?start_date={first}&end_date={last}");
            let (got, answer) = cast.call("master", "GET", &path, Value::Null).await;
            assert_eq!(got, status, "{path}: {answer:.200}");
        }
    });
}

#[test]
fn a_call_is_found_by_the_ids_that_its_client_knows() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let some = |text: &str| Some(text.to_owned());
        let event =
            |id: &str| CallRecord { id: id.to_owned(), start_ms: START_MS as u64, ..CallRecord::default() };
        let events = vec![
            // Providers repeat themselves: both have a row.
            CallRecord { call_id: "call-1".to_owned(), response_id: some("chatcmpl-1"), ..event("i1") },
            CallRecord { call_id: "call-2".to_owned(), response_id: some("chatcmpl-1"), ..event("i2") },
            CallRecord {
                call_id: "call-3".to_owned(),
                model: "nobody".to_owned(),
                model_group: "nobody".to_owned(),
                error: some("ProxyException"),
                message: some("/chat/completions: Invalid model name passed in model=nobody"),
                refused: true,
                status: Some(400),
                ..event("i3")
            },
        ];
        feed(&cast, 1, events).await;
        for (id, expected) in [
            ("chatcmpl-1", &["chatcmpl-1", "chatcmpl-1"][..]),
            ("call-1", &["chatcmpl-1"]),
            ("call-3", &["call-3"]),
            ("i2", &["chatcmpl-1"]),
            ("call", &[]),
        ] {
            let (_, rows) =
                cast.call("master", "GET", &format!("/spend/logs?request_id={id}"), Value::Null).await;
            assert_eq!(ids(&rows), expected, "{id}");
        }
        let (_, rows) = cast.call("master", "GET", "/spend/logs?request_id=call-3", Value::Null).await;
        let row = &rows[0];
        assert_eq!((&row["model"], &row["model_group"]), (&json!("nobody"), &json!("nobody")));
        assert_eq!(
            (&row["status"], &row["spend"], &row["cache_hit"]),
            (&json!("failure"), &json!(0.0), &json!("False"))
        );
        assert_eq!(
            row["metadata"]["error_information"],
            json!({"error_code": "400", "error_class": "ProxyException", "llm_provider": "", "traceback": "",
                   "error_message": "/chat/completions: Invalid model name passed in model=nobody"})
        );
        assert_eq!(row["metadata"]["status"], "failure");
        // What was refused is no call of a model whose name any client can make up.
        let mut connection = cast.ledger.app.db.read().await.unwrap();
        let rows = sqlx::Executor::fetch_all(
            &mut *connection,
            "SELECT model FROM tollgate_daily WHERE model = 'nobody'",
        );
        assert!(rows.await.unwrap().is_empty());
    });
}

#[test]
fn failures_have_no_rows_where_error_logs_are_disabled() {
    on_each("general_settings: {disable_error_logs: true}", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let event = |id: &str, error: Option<&str>| CallRecord {
            id: id.to_owned(),
            call_id: id.to_owned(),
            error: error.map(str::to_owned),
            start_ms: START_MS as u64,
            ..CallRecord::default()
        };
        feed(&cast, 1, vec![event("a", None), event("b", Some("Timeout"))]).await;
        let (_, rows) = cast.call("master", "GET", "/spend/logs", Value::Null).await;
        assert_eq!(ids(&rows), ["a"]);
    });
}
