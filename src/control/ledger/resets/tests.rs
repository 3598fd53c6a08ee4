//! Periods: when they end, what starts again with them, and what is removed for its age.

use serde_json::{Value, json};

use super::*;
use crate::control::ledger::{
    grants,
    schema::{self, BUDGETS, END_USERS, KEYS, ORGANIZATIONS, SPEND_LOGS, TEAM_MEMBERS, TEAMS, USERS},
    testing::{START_MS, on_each},
    usage,
};
use crate::core::{
    model::call_record::CallRecord,
    protocol::{Batch, SyncRequest},
};

fn ms(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

fn shown(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap().to_string()
}

#[test]
fn things_expire() {
    for (duration, now, expected) in [
        ("30s", "2026-01-15T12:00:00Z", "2026-01-15T12:00:30Z"),
        ("30min", "2026-01-15T12:00:00Z", "2026-01-15T12:30:00Z"),
        ("12h", "2026-01-15T12:00:00Z", "2026-01-16T00:00:00Z"),
        ("30d", "2026-01-15T12:00:00.25Z", "2026-02-14T12:00:00.25Z"),
        ("2w", "2026-01-15T12:00:00Z", "2026-01-29T12:00:00Z"),
        ("1mo", "2026-01-15T12:00:00Z", "2026-02-15T12:00:00Z"),
        ("1month", "2026-01-31T12:00:00Z", "2026-02-28T12:00:00Z"),
        ("1mo", "2028-01-31T12:00:00Z", "2028-02-29T12:00:00Z"),
        ("1mo", "2026-12-15T12:00:00Z", "2027-01-15T12:00:00Z"),
        ("14mo", "2026-11-30T12:00:00Z", "2028-01-30T12:00:00Z"),
    ] {
        assert_eq!(expires(duration, ms(now)).map(shown).as_deref(), Ok(expected), "{duration} {now}");
    }
}

#[test]
fn budgets_start_again_at_round_times() {
    let berlin = TimeZone::get("Europe/Berlin").unwrap();
    let kolkata = TimeZone::get("Asia/Kolkata").unwrap();
    let utc = TimeZone::UTC;
    for (duration, now, zone, expected) in [
        ("1d", "2026-01-15T12:00:00Z", &utc, "2026-01-16T00:00:00Z"),
        ("1d", "2026-01-15T00:00:00Z", &utc, "2026-01-16T00:00:00Z"),
        ("7d", "2026-01-15T12:00:00Z", &utc, "2026-01-19T00:00:00Z"),
        // A Monday: the next week's.
        ("7d", "2026-01-19T00:00:00Z", &utc, "2026-01-26T00:00:00Z"),
        ("30d", "2026-01-15T12:00:00Z", &utc, "2026-02-01T00:00:00Z"),
        ("30d", "2026-12-31T23:59:59Z", &utc, "2027-01-01T00:00:00Z"),
        ("3d", "2026-02-27T12:00:00Z", &utc, "2026-03-02T00:00:00Z"),
        ("1mo", "2026-01-31T12:00:00Z", &utc, "2026-02-01T00:00:00Z"),
        ("1w", "2026-01-15T12:00:00Z", &utc, "2026-01-16T00:00:00Z"),
        ("1h", "2026-01-15T12:20:30Z", &utc, "2026-01-15T13:00:00Z"),
        ("6h", "2026-01-15T12:00:00Z", &utc, "2026-01-15T18:00:00Z"),
        ("5h", "2026-01-15T23:10:00Z", &utc, "2026-01-16T01:00:00Z"),
        ("24h", "2026-01-15T23:10:00Z", &utc, "2026-01-16T00:00:00Z"),
        ("48h", "2026-01-15T23:10:00Z", &utc, "2026-01-16T00:00:00Z"),
        ("15m", "2026-01-15T12:07:00Z", &utc, "2026-01-15T12:15:00Z"),
        ("15m", "2026-01-15T23:45:00Z", &utc, "2026-01-16T00:00:00Z"),
        ("30s", "2026-01-15T23:59:45.5Z", &utc, "2026-01-16T00:00:00Z"),
        ("10s", "2026-01-15T12:00:00Z", &utc, "2026-01-15T12:00:10Z"),
        // Midnight in Berlin is 23:00 UTC in winter, 22:00 in summer.
        ("1d", "2026-01-15T22:59:59Z", &berlin, "2026-01-15T23:00:00Z"),
        ("1d", "2026-01-15T23:00:00Z", &berlin, "2026-01-16T23:00:00Z"),
        ("30d", "2026-03-15T12:00:00Z", &berlin, "2026-03-31T22:00:00Z"),
        ("7d", "2026-03-29T12:00:00Z", &berlin, "2026-03-29T22:00:00Z"),
        ("1h", "2026-01-15T12:20:00Z", &kolkata, "2026-01-15T12:30:00Z"),
        // 02:30 does not exist on this night, and 02:45 of the other one comes twice.
        ("30m", "2026-03-29T00:59:00Z", &berlin, "2026-03-29T01:00:00Z"),
        ("15m", "2026-10-25T01:40:00Z", &berlin, "2026-10-25T01:45:00Z"),
    ] {
        let got = next_reset(duration, ms(now), zone).map(shown);
        assert_eq!(got.as_deref(), Ok(expected), "{duration} {now}");
    }
}

#[test]
fn wrong_durations_are_refused() {
    for wrong in ["", "d", "-1d", "10", "3y", "١d", "99999999999999999999d", "9000000000000000000s"] {
        assert!(expires(wrong, 0).is_err() && next_reset(wrong, 0, &TimeZone::UTC).is_err(), "{wrong}");
    }
    for wrong in ["2mo", "0d", "9999mo", "3000000d"] {
        assert!(next_reset(wrong, START_MS, &TimeZone::UTC).is_err(), "{wrong}");
    }
}

async fn put(app: &App, table: &schema::Table, row: Value) {
    let mut tx = app.db.write().await.unwrap();
    rows::insert(tx.connection(), table, row.as_object().unwrap()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn get(app: &App, table: &schema::Table, key: &[&str]) -> rows::Record {
    let mut connection = app.db.read().await.unwrap();
    rows::get(&mut connection, table, key).await.unwrap().unwrap()
}

/// Names of the records that changed after a revision.
async fn changed(app: &App, after: i64) -> Vec<String> {
    let mut connection = app.db.read().await.unwrap();
    let sql = "SELECT meter FROM tollgate_changes WHERE record_revision > $1 ORDER BY meter";
    let found = rows::rows(&mut connection, sql, vec![after.into()]).await.unwrap();
    found.iter().map(|row| row.try_get(0).unwrap()).collect()
}

#[test]
fn spend_starts_again() {
    on_each("litellm_settings: {timezone: Europe/Berlin}", |ledger| async move {
        let app = &ledger.app;
        let over = "2026-01-15T11:59:59Z";
        let with = |mut row: Value, duration: Value, at: &str| {
            row["spend"] = json!(5);
            (row["budget_duration"], row["budget_reset_at"]) = (duration, json!(at));
            row
        };
        put(app, &KEYS, with(json!({"token": "due"}), json!("1d"), over)).await;
        put(app, &KEYS, with(json!({"token": "later"}), json!("1d"), "2026-01-15T12:00:01Z")).await;
        put(app, &KEYS, with(json!({"token": "odd"}), json!("sometimes"), over)).await;
        put(app, &KEYS, with(json!({"token": "ended"}), Value::Null, over)).await;
        put(app, &USERS, with(json!({"user_id": "u"}), json!("7d"), over)).await;
        put(app, &TEAMS, with(json!({"team_id": "t"}), json!("1mo"), over)).await;
        put(app, &BUDGETS, json!({"budget_id": "b", "budget_duration": "30d", "budget_reset_at": over}))
            .await;
        put(
            app,
            &BUDGETS,
            json!({"budget_id": "c", "budget_duration": "30d", "budget_reset_at": "2026-02-01T00:00:00Z"}),
        )
        .await;
        put(app, &KEYS, json!({"token": "shared", "spend": 5, "budget_id": "b"})).await;
        put(app, &KEYS, with(json!({"token": "own", "budget_id": "b"}), json!("1d"), "2026-01-15T12:00:01Z"))
            .await;
        put(app, &END_USERS, json!({"user_id": "e", "spend": 5, "budget_id": "b"})).await;
        put(app, &END_USERS, json!({"user_id": "f", "spend": 5, "budget_id": "c"})).await;
        put(app, &TEAM_MEMBERS, json!({"team_id": "t", "user_id": "u", "spend": 5, "budget_id": "b"})).await;
        put(app, &ORGANIZATIONS, json!({"organization_id": "o", "spend": 5, "budget_id": "b"})).await;
        let before = app.db.snapshot().await.unwrap().1;
        assert_eq!(run(app, START_MS).await.unwrap(), 6);
        for (table, id, spend, reset_at) in [
            (&KEYS, "due", 0.0, json!("2026-01-15T23:00:00Z")),
            (&KEYS, "later", 5.0, json!("2026-01-15T12:00:01Z")),
            (&KEYS, "odd", 0.0, json!("2026-01-15T23:00:00Z")),
            (&KEYS, "ended", 5.0, Value::Null),
            (&USERS, "u", 0.0, json!("2026-01-18T23:00:00Z")),
            (&TEAMS, "t", 0.0, json!("2026-01-31T23:00:00Z")),
            (&KEYS, "shared", 0.0, Value::Null),
            (&KEYS, "own", 5.0, json!("2026-01-15T12:00:01Z")),
        ] {
            let row = get(app, table, &[id]).await;
            assert_eq!((&row["spend"], &row["budget_reset_at"]), (&json!(spend), &reset_at), "{id}");
        }
        assert_eq!(get(app, &BUDGETS, &["b"]).await["budget_reset_at"], "2026-01-31T23:00:00Z");
        for (table, key, spend) in [
            (&END_USERS, &["e"][..], 0.0),
            (&END_USERS, &["f"], 5.0),
            (&TEAM_MEMBERS, &["u", "t"], 0.0),
            (&ORGANIZATIONS, &["o"], 0.0),
        ] {
            assert_eq!(get(app, table, key).await["spend"], json!(spend), "{key:?}");
        }
        let told = [
            "end_user:e",
            "key:due",
            "key:ended",
            "key:odd",
            "key:shared",
            "member:t/u",
            "org:o",
            "team:t",
            "user:u",
        ];
        assert_eq!(changed(app, before).await, told);
        // Nothing more to do, so nothing is written.
        let revision = app.db.snapshot().await.unwrap().1;
        assert_eq!(run(app, START_MS).await.unwrap(), 0);
        assert_eq!(app.db.snapshot().await.unwrap().1, revision);
        ledger.pass(1_000);
        assert_eq!(run(app, app.now_ms()).await.unwrap(), 2);
    });
}

#[test]
fn many_start_again_in_parts() {
    on_each("", |ledger| async move {
        let app = &ledger.app;
        let mut tx = app.db.write().await.unwrap();
        let all =
            (0..1_200).map(|at| vec![format!("k{at}").into(), 7.into(), 1.into(), "1d".into()]).collect();
        let sql = "INSERT INTO tollgate_keys (token, spend, budget_reset_at, budget_duration) VALUES {}";
        bulk::run(tx.connection(), sql, all).await.unwrap();
        tx.commit().await.unwrap();
        let before = app.db.snapshot().await.unwrap().1;
        assert_eq!(run(app, START_MS).await.unwrap(), 1_200);
        assert_eq!(app.db.snapshot().await.unwrap().1, before + 3);
        assert_eq!(changed(app, before).await.len(), 1_200);
    });
    on_each("general_settings: {disable_reset_budget: true}", |ledger| async move {
        let app = &ledger.app;
        put(
            app,
            &KEYS,
            json!({"token": "k", "spend": 5, "budget_duration": "1d", "budget_reset_at": "2026-01-01"}),
        )
        .await;
        assert_eq!(run(app, START_MS).await.unwrap(), 0);
        assert_eq!(get(app, &KEYS, &["k"]).await["spend"], json!(5.0));
    });
}

#[test]
fn windows_follow_what_configuration_and_keys_say() {
    on_each("litellm_settings: {max_budget: 100, budget_duration: 1d}", |ledger| async move {
        let app = &ledger.app;
        let budgets = json!({"m": {"budget_limit": 1, "time_period": "1h"}});
        put(app, &KEYS, json!({"token": "k", "model_max_budget": budgets})).await;
        app.db.known().note(["key:k"].into_iter());
        run(app, START_MS).await.unwrap();
        let spend = |number: u64| {
            let budgeted_meters = vec!["key_model:k/m".to_owned()];
            let event = CallRecord {
                id: number.to_string(),
                api_key: "k".into(),
                spend: 5,
                budgeted_meters,
                ..CallRecord::default()
            };
            let batch = Some(Batch { number, events: vec![event], aggregated: Vec::new() });
            let request = SyncRequest { node: "n".into(), batch, cursor: 1, ..SyncRequest::default() };
            async move { usage::sync(app, &request).await.map(drop).unwrap() }
        };
        let now = || async move {
            run(app, app.now_ms()).await.unwrap();
            let grant = grants::grant(app, "k").await.unwrap().unwrap();
            (grant.key.model_budgets["m"].spend, grant.global_spend)
        };
        spend(1).await;
        assert_eq!(now().await, (5, 5));
        let resets_at = grants::grant(app, "k").await.unwrap().unwrap().key.model_budgets["m"].reset_at_ms;
        assert_eq!(resets_at, Some(START_MS as u64 + 3_600_000));
        let before = app.db.snapshot().await.unwrap().1;
        ledger.pass(3_600_000);
        assert_eq!(now().await, (0, 5));
        assert_eq!(changed(app, before).await, ["key:k", "key_model:k/m"]);
        spend(2).await;
        assert_eq!(now().await, (5, 10));
        // The key's period becomes a day.
        let mut tx = app.db.write().await.unwrap();
        let row = json!({"model_max_budget": {"m": {"budget_limit": 1, "time_period": "1d"}}});
        rows::update(tx.connection(), &KEYS, &[], row.as_object().unwrap()).await.unwrap();
        tx.commit().await.unwrap();
        spend(3).await;
        ledger.pass(3_600_000);
        assert_eq!(now().await, (10, 15));
        ledger.pass(10 * 3_600_000);
        assert_eq!(now().await, (0, 0));
    });
}

#[test]
fn old_logs_go() {
    on_each("general_settings: {maximum_spend_logs_retention_period: 7d}", |ledger| async move {
        let app = &ledger.app;
        for (id, time) in [("old", "2026-01-08T11:59:59Z"), ("kept", "2026-01-08T12:00:00Z")] {
            put(app, &SPEND_LOGS, json!({"request_id": id, "start_time": time})).await;
        }
        assert_eq!(clean(app, START_MS).await.unwrap(), 1);
        assert_eq!(clean(app, START_MS).await.unwrap(), 0);
        assert_eq!(get(app, &SPEND_LOGS, &["kept"]).await["request_id"], "kept");
    });
    on_each("", |ledger| async move {
        put(&ledger.app, &SPEND_LOGS, json!({"request_id": "old", "start_time": "2020-01-01"})).await;
        assert_eq!(clean(&ledger.app, START_MS).await.unwrap(), 0);
    });
}
