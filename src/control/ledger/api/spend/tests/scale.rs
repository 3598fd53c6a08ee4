//! Very many keys, days and calls: answers stay bounded, statements go along indexes.

use sqlx::Row as _;

use super::*;
use crate::control::ledger::rows;

/// Runs a statement that makes rows of the numbers `i` from 1 to `count`.
async fn make(cast: &Cast, count: i64, insert: &str, select: &str) {
    let sql = format!(
        "INSERT INTO {insert} WITH RECURSIVE n (i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
         SELECT {select} FROM n"
    );
    let mut tx = cast.ledger.app.db.write().await.unwrap();
    rows::run(tx.connection(), &sql, Vec::new()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn count(cast: &Cast, path: &str) -> usize {
    let (status, answer) = cast.call("master", "GET", path, Value::Null).await;
    assert_eq!(status, 200, "{path}: {answer:.200}");
    answer.as_array().unwrap().len()
}

#[test]
fn answers_stay_bounded() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        make(&cast, 100_000, "tollgate_keys (token, spend)", "'t' || i, i").await;
        make(&cast, 20_000, "tollgate_users (user_id, spend)", "'u' || i, i").await;
        let columns = "(day, api_key, user_id, team_id, organization_id, model, model_group, provider, spend, prompt_tokens, \
                       completion_tokens, cache_read_tokens, cache_creation_tokens, requests, failures)";
        let day = "'2026-01-15', 't' || i, '', '', '', 'm' || i, 'g' || i, 'p', i, 1, 1, 0, 0, 1, 0";
        make(&cast, 100_001, &format!("tollgate_daily {columns}"), day).await;
        let columns = "(day, tag, spend, prompt_tokens, completion_tokens, requests, failures)";
        make(
            &cast,
            20_000,
            &format!("tollgate_daily_tags {columns}"),
            "'2026-01-15', 'tag' || i, i, 1, 1, 1, 0",
        )
        .await;
        let columns = "(day, end_user, api_key, model, spend, prompt_tokens, completion_tokens, requests)";
        make(
            &cast,
            100_001,
            &format!("tollgate_daily_end_users {columns}"),
            "'2026-01-15', 'e' || i, 'k', 'm', i, 1, 1, 1",
        )
        .await;

        for (path, expected) in [
            ("/spend/keys", 10_000),
            ("/spend/keys?page=11", 9),
            ("/spend/users", 10_000),
            ("/global/spend/keys", 10_000),
            ("/global/spend/keys?limit=3", 3),
            ("/global/spend/models", 10_000),
            ("/spend/tags", 10_000),
            ("/global/spend/provider", 1),
        ] {
            assert_eq!(count(&cast, path).await, expected, "{path}");
        }
        let (_, keys) = cast.call("master", "GET", "/spend/keys?page_size=2", Value::Null).await;
        assert_eq!((&keys[0]["token"], &keys[1]["token"]), (&json!("t100000"), &json!("t99999")));
        let (_, names) = cast.call("master", "GET", "/global/spend/all_tag_names", Value::Null).await;
        assert_eq!(names["tag_names"].as_array().unwrap().len(), 10_000);
        let (_, users) = cast.call("master", "POST", "/global/spend/end_users", json!({})).await;
        assert_eq!((users.as_array().unwrap().len(), &users[0]["end_user"]), (100, &json!("e100001")));

        // What cannot be cut without being wrong is refused, and says how to ask.
        let days = "start_date=2026-01-15&end_date=2026-01-15";
        for path in [
            "/spend/logs",
            "/user/daily/activity",
            "/global/activity/model",
            "/global/spend/report",
            "/global/spend/report?group_by=customer",
            "/global/spend/report?group_by=api_key",
        ] {
            let path = format!("{path}{}{days}", if path.contains('?') { "&" } else { "?" });
            let (status, answer) = cast.call("master", "GET", &path, Value::Null).await;
            let message = answer["detail"]["error"].as_str().unwrap_or_default();
            assert_eq!(status, 400, "{path}: {answer:.200}");
            assert!(
                message.starts_with("this is more than 100000 sums: ask for fewer days"),
                "{path}: {message}"
            );
            let (status, _) = cast.call("master", "GET", &format!("{path}&api_key=t1"), Value::Null).await;
            assert!(status == 200 || path.contains("activity/model"), "{path}");
        }
    });
}

#[test]
fn single_calls_are_read_along_an_index() {
    on_each("", |ledger| async move {
        if ledger.app.db.is_postgres() {
            // Its plans follow the size of tables; the indexes are the same.
            return;
        }
        let filter = super::super::sums::Filter::default;
        for (filter, index) in [
            (filter(), "start"),
            (filter().with("start_time", ">=", 1).with("start_time", "<", 2), "start"),
            (filter().with("api_key", "=", "k"), "key"),
            (filter().with("api_key", "=", "k").with("start_time", ">=", 1), "key"),
            (filter().with("user_id", "=", "u"), "user"),
            (filter().with("team_id", "=", "t"), "team"),
            (filter().with("end_user", "=", "e"), "end_user"),
            (filter().with("model", "=", "m"), "model"),
            (filter().with("model_group", "=", "g"), "group"),
            (filter().and("status = 'failure'"), "failed"),
        ] {
            for filter in [filter.clone(), super::super::logs::after(filter, "5:x").unwrap_or_default()] {
                let sql = format!("EXPLAIN QUERY PLAN {} LIMIT 50", super::super::logs::listing(&filter));
                let mut connection = ledger.app.db.read().await.unwrap();
                let plan = rows::rows(&mut connection, &sql, filter.values()).await.unwrap();
                let plan: Vec<String> = plan.iter().map(|row| row.try_get(3).unwrap()).collect();
                let plan = plan.join("; ");
                assert!(
                    plan.contains(&format!("USING INDEX tollgate_spend_logs_{index}")),
                    "{filter:?}: {plan}"
                );
                // Only calls of the same millisecond are sorted.
                assert!(!plan.contains("TEMP B-TREE FOR ORDER BY"), "{filter:?}: {plan}");
            }
        }
    });
}
