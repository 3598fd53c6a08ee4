//! Grants as the filter gets them: keys with everybody who stands behind them.

use serde_json::json;

use super::*;
use crate::control::ledger::{
    caller::hash,
    rows::Record,
    schema::{self, BUDGETS, END_USERS, KEYS, ORGANIZATIONS, TEAM_MEMBERS, TEAMS, USERS},
    testing::{START_MS, on_each},
};

/// Puts a row into a table; its record changed.
async fn put(app: &App, table: &schema::Table, meter: &str, row: Value) {
    let record: Record = row.as_object().unwrap().clone();
    let mut tx = app.db.write().await.unwrap();
    rows::insert(tx.connection(), table, &record).await.unwrap();
    tx.record_changed(meter);
    tx.commit().await.unwrap();
}

async fn window(app: &App, meter: &str, spend: i64, reset_at: i64) {
    let mut tx = app.db.write().await.unwrap();
    let sql = "INSERT INTO tollgate_windows (meter, spend, period, reset_at) VALUES ($1, $2, '1d', $3)";
    rows::run(tx.connection(), sql, vec![meter.into(), spend.into(), reset_at.into()]).await.unwrap();
    tx.commit().await.unwrap();
}

const DOLLAR: i64 = 1_000_000_000_000;

#[test]
fn a_grant_is_joined_from_all_tables() {
    on_each("", |ledger| async move {
        let app = &ledger.app;
        for (id, max, rpm) in [("kb", 10, 1), ("mb", 20, 2), ("ob", 30, 3)] {
            let row = json!({"budget_id": id, "max_budget": max, "soft_budget": 5, "rpm_limit": rpm, "tpm_limit": 100,
                             "max_parallel_requests": 4, "budget_duration": "30d",
                             "budget_reset_at": "2026-02-01T00:00:00Z"});
            put(app, &BUDGETS, "budget", row).await;
        }
        let key = json!({
            "token": "k", "key_name": "sk-...abcd", "key_alias": "mine", "spend": 1.5, "models": ["gpt-4o", "openai/*"],
            "aliases": {"a": "b"}, "user_id": "u", "team_id": "t", "budget_id": "kb", "rpm_limit": 9,
            "expires": "2027-01-01T00:00:00Z", "allowed_routes": ["llm_api_routes"],
            "model_max_budget": {"gpt-4o": {"budget_limit": 1, "time_period": "1d"}, "x": {"max_budget": "2.5", "budget_duration": "7d"},
                                 "old/er": {"budget_limit": 3, "time_period": "1d"}},
            "metadata": {"model_rpm_limit": {"gpt-4o": 2}, "model_tpm_limit": {"gpt-4o": 200}, "tags": ["red"],
                         "enforced_params": ["user"], "disable_fallbacks": true},
        });
        put(app, &KEYS, "key:k", key).await;
        let user = json!({"user_id": "u", "user_alias": "Ann", "user_role": "proxy_admin_viewer", "max_budget": 7, "spend": 2,
                          "models": ["m"], "tpm_limit": 50, "metadata": {"model_rpm_limit": {"m": 1}}});
        put(app, &USERS, "user:u", user).await;
        let team = json!({"team_id": "t", "team_alias": "ours", "organization_id": "o", "blocked": true, "spend": 3, "max_budget": 8,
                          "rpm_limit": 6, "models": ["n"], "model_aliases": {"c": "d"}, "metadata": {"tags": ["blue"]}});
        put(app, &TEAMS, "team:t", team).await;
        put(
            app,
            &TEAM_MEMBERS,
            "member:t/u",
            json!({"team_id": "t", "user_id": "u", "budget_id": "mb", "spend": 4}),
        )
        .await;
        let organization =
            json!({"organization_id": "o", "organization_alias": "all", "budget_id": "ob", "spend": 5});
        put(app, &ORGANIZATIONS, "org:o", organization).await;
        window(app, "key_model:k/gpt-4o", 400, START_MS + 1_000).await;
        window(app, "key_model:k/old/er", 500, START_MS).await;
        window(app, "global", 600, START_MS + 1_000).await;

        let (status, answer) = ledger.envoy("GET", "/internal/keys/k", None).await;
        assert_eq!(status, 200);
        let grant: KeyRecord = serde_json::from_value(answer).unwrap();
        let key = &grant.key;
        assert_eq!(
            (key.id.as_str(), key.alias.as_deref(), grant.name.as_deref()),
            ("k", Some("mine"), Some("sk-...abcd"))
        );
        assert_eq!(
            (&key.models, &key.tags),
            (&vec!["gpt-4o".to_owned(), "openai/*".to_owned()], &vec!["red".to_owned()])
        );
        assert_eq!(key.limits, Limits { rpm: Some(9), tpm: Some(100), parallel: Some(4) });
        let resets = u64::try_from(rows::time(&json!("2026-02-01T00:00:00Z")).unwrap()).unwrap();
        let budget = |max: i64, soft: Option<i64>, spend: i64| Budget {
            max: Some(max * DOLLAR),
            soft: soft.map(|soft| soft * DOLLAR),
            spend,
            duration: Some("30d".to_owned()),
            reset_at_ms: Some(resets),
        };
        assert_eq!(key.budget, budget(10, Some(5), DOLLAR * 3 / 2));
        assert_eq!((key.model_rpm["gpt-4o"], key.model_tpm["gpt-4o"]), (2, 200));
        let model = |name: &str| (key.model_budgets[name].max.unwrap(), key.model_budgets[name].spend);
        assert_eq!((model("gpt-4o"), model("x")), ((DOLLAR, 400), (DOLLAR * 5 / 2, 0)));
        // Its day is over.
        assert_eq!(
            (model("old/er"), key.model_budgets["x"].duration.as_deref()),
            ((3 * DOLLAR, 0), Some("7d"))
        );
        assert_eq!(
            (key.aliases["a"].as_str(), grant.disable_fallbacks, grant.role),
            ("b", true, crate::core::model::key_record::Role::ProxyAdminViewer)
        );
        assert_eq!(
            (grant.enforced_params, grant.allowed_routes),
            (vec!["user".to_owned()], vec!["llm_api_routes".to_owned()])
        );
        assert_eq!(grant.expires_ms, Some(1_798_761_600_000));
        let user = grant.user.unwrap();
        assert_eq!(
            (user.id.as_str(), user.alias.as_deref(), user.budget.max, user.budget.spend),
            ("u", Some("Ann"), Some(7 * DOLLAR), 2 * DOLLAR)
        );
        assert_eq!((user.limits.tpm, user.model_rpm["m"]), (Some(50), 1));
        let team = grant.team.unwrap();
        assert_eq!(
            (team.blocked, team.budget.spend, team.limits.rpm, team.aliases["c"].as_str()),
            (true, 3 * DOLLAR, Some(6), "d")
        );
        let member = grant.member.unwrap();
        assert_eq!(
            (member.id.as_str(), member.budget, member.limits.rpm),
            ("u", budget(20, Some(5), 4 * DOLLAR), Some(2))
        );
        let organization = grant.organization.unwrap();
        assert_eq!(
            (organization.id.as_str(), organization.budget, organization.limits.rpm),
            ("o", budget(30, Some(5), 5 * DOLLAR), Some(3))
        );
        assert_eq!(
            (grant.global_spend, i64::try_from(grant.revision).unwrap()),
            (600, app.db.snapshot().await.unwrap().1)
        );
    });
}

#[test]
fn a_key_whose_user_has_no_record_is_that_users_all_the_same() {
    on_each("", |ledger| async move {
        let grant = async |key: &str| read(&ledger.app, &hash(key)).await.unwrap().unwrap();
        let made = ledger.admin("POST", "/key/generate", Some(json!({"user_id": "ghost"}))).await;
        let key = made["key"].as_str().unwrap();
        let found = grant(key).await;
        let user = found.user.as_deref().unwrap();
        assert_eq!((user.id.as_str(), found.role), ("ghost", Role::Unknown));
        assert_eq!(*user, Principal { id: "ghost".to_owned(), ..Principal::default() });
        // Nobody's key stays nobody's.
        let made = ledger.admin("POST", "/key/generate", Some(json!({}))).await;
        assert_eq!(grant(made["key"].as_str().unwrap()).await.user, None);
        // Once there is a record, it counts.
        let body = json!({"user_id": "ghost", "user_role": "internal_user", "rpm_limit": 3});
        ledger.admin("POST", "/user/new", Some(body)).await;
        let found = grant(key).await;
        assert_eq!((found.user.unwrap().limits.rpm, found.role), (Some(3), Role::InternalUser));
    });
}

#[test]
fn sums_are_exact_beyond_what_a_double_holds() {
    on_each("", |ledger| async move {
        let app = &ledger.app;
        put(app, &KEYS, "key:k", json!({"token": "k"})).await;
        let mut tx = app.db.write().await.unwrap();
        let sql = "UPDATE tollgate_keys SET spend = $1";
        rows::run(tx.connection(), sql, vec![9_007_199_254_740_993_i64.into()]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(grant(app, "k").await.unwrap().unwrap().key.budget.spend, 9_007_199_254_740_993);
    });
}

#[test]
fn time_changes_budgets() {
    on_each("", |ledger| async move {
        let app = &ledger.app;
        let key = json!({"token": "k", "max_budget": 10, "spend": 4, "budget_duration": "1d", "budget_reset_at": "2026-01-16T00:00:00Z",
                         "metadata": {"temp_budget_increase": 5, "temp_budget_expiry": "2026-01-15T18:00:00Z"}});
        put(app, &KEYS, "key:k", key).await;
        let budget = || async move {
            let budget = grant(app, "k").await.unwrap().unwrap().key.budget;
            (budget.max.unwrap() / DOLLAR, budget.spend / DOLLAR)
        };
        assert_eq!(budget().await, (15, 4));
        ledger.pass(6 * 3_600_000);
        assert_eq!(budget().await, (10, 4));
        ledger.pass(6 * 3_600_000);
        assert_eq!(budget().await, (10, 0));
    });
    on_each("general_settings: {disable_reset_budget: true}", |ledger| async move {
        let key = json!({"token": "k", "spend": 4, "budget_duration": "1d", "budget_reset_at": "2026-01-15T00:00:00Z"});
        put(&ledger.app, &KEYS, "key:k", key).await;
        assert_eq!(grant(&ledger.app, "k").await.unwrap().unwrap().key.budget.spend, 4 * DOLLAR);
    });
}

#[test]
fn unknown_keys_never_reach_the_database() {
    on_each("", |ledger| async move {
        let app = &ledger.app;
        put(app, &KEYS, "key:old", json!({"token": "old"})).await;
        let looked = || app.db.known().lookups();
        for at in 0..1_000 {
            assert_eq!(ledger.envoy("GET", &format!("/internal/keys/{at:064x}"), None).await.0, 404);
        }
        assert_eq!(looked(), 0);
        assert_eq!(ledger.envoy("GET", "/internal/keys/old", None).await.0, 200);
        // One that is made now is known at once; one that is deleted costs a look.
        assert_eq!(ledger.envoy("GET", "/internal/keys/new", None).await.0, 404);
        put(app, &KEYS, "key:new", json!({"token": "new"})).await;
        assert_eq!(ledger.envoy("GET", "/internal/keys/new", None).await.0, 200);
        let mut tx = app.db.write().await.unwrap();
        rows::delete(tx.connection(), &KEYS, &[]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(ledger.envoy("GET", "/internal/keys/new", None).await.0, 404);
        assert_eq!(looked(), 3);
        assert_eq!(ledger.call("GET", "/internal/keys/old", None, None).await.0, 401);
    });
}

#[test]
fn all_keys_are_known_after_a_start() {
    on_each("", |ledger| async move {
        let app = &ledger.app;
        let mut tx = app.db.write().await.unwrap();
        let all = (0..12_000).map(|at| vec![format!("k{at}").into()]).collect();
        let sql = "INSERT INTO tollgate_keys (token) VALUES {}";
        crate::control::ledger::bulk::run(tx.connection(), sql, all).await.unwrap();
        tx.commit().await.unwrap();
        for at in [0, 4_999, 5_000, 11_999] {
            assert!(grant(app, &format!("k{at}")).await.unwrap().is_some(), "{at}");
        }
        assert!(grant(app, "k12000").await.unwrap().is_none());
        // What another ledger makes, in the feed only.
        let mut tx = app.db.write().await.unwrap();
        let revision = tx.revision();
        let sql = "INSERT INTO tollgate_keys (token) VALUES ('theirs')";
        rows::run(tx.connection(), sql, Vec::new()).await.unwrap();
        let sql =
            "INSERT INTO tollgate_changes (meter, revision, record_revision) VALUES ('key:theirs', $1, $1)";
        rows::run(tx.connection(), sql, vec![revision.into()]).await.unwrap();
        tx.commit().await.unwrap();
        assert!(grant(app, "theirs").await.unwrap().is_some());
    });
}

#[test]
fn while_changes_cannot_be_read_nobody_is_unknown() {
    on_each("", |ledger| async move {
        let app = &ledger.app;
        assert!(grant(app, "x").await.unwrap().is_none());
        app.db.close().await;
        assert!(app.db.known().refresh(&app.db).await.is_err());
        assert_eq!(ledger.envoy("GET", "/internal/keys/x", None).await.0, 503);
    });
}

#[test]
fn end_users_have_their_budget_or_the_default() {
    let ask = |ledger: crate::control::ledger::testing::Ledger| async move {
        let app = &ledger.app;
        for (id, max) in [("small", 1), ("large", 100)] {
            let row = json!({"budget_id": id, "max_budget": max, "rpm_limit": max, "budget_duration": "1d"});
            put(app, &BUDGETS, "budget", row).await;
        }
        let bad = json!({"user_id": "a b/c", "alias": "x", "spend": 2, "blocked": true, "budget_id": "large",
                         "allowed_model_region": "eu", "default_model": "m"});
        put(app, &END_USERS, "end_user:a b/c", bad).await;
        put(app, &END_USERS, "end_user:plain", json!({"user_id": "plain", "spend": 3, "blocked": false}))
            .await;
        let mut found = Vec::new();
        for path in ["a%20b%2Fc", "plain", "nobody"] {
            let (status, answer) = ledger.envoy("GET", &format!("/internal/end_users/{path}"), None).await;
            assert_eq!(status, 200);
            let end_user: EndUserRecord = serde_json::from_value(answer).unwrap();
            let budget = &end_user.scope.budget;
            let shown =
                (budget.max.map(|max| max / DOLLAR), budget.spend / DOLLAR, end_user.scope.limits.rpm);
            if path.starts_with('a') {
                assert_eq!((end_user.scope.id.as_str(), end_user.scope.blocked), ("a b/c", true));
                assert_eq!(
                    (end_user.region.as_deref(), end_user.default_model.as_deref()),
                    (Some("eu"), Some("m"))
                );
            }
            found.push(shown);
        }
        found
    };
    let large = (Some(100), 2, Some(100));
    on_each("", |ledger| async move {
        assert_eq!(ask(ledger).await, [large, (None, 3, None), (None, 0, None)]);
    });
    on_each("litellm_settings: {max_end_user_budget: 5}", |ledger| async move {
        assert_eq!(ask(ledger).await, [large, (Some(5), 3, None), (Some(5), 0, None)]);
    });
    on_each("litellm_settings: {max_end_user_budget_id: small}", |ledger| async move {
        assert_eq!(ask(ledger).await, [large, (Some(1), 3, Some(1)), (Some(1), 0, Some(1))]);
    });
}
