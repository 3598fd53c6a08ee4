//! Budgets by model of everybody who can have some: spend, what is told, and when it starts again.

use serde_json::{Value, json};

use crate::control::ledger::{
    caller::hash,
    resets,
    testing::{Ledger, MASTER, START_MS, on_each},
};

#[test]
fn models_of_teams_members_users_organizations_and_customers_have_budgets() {
    on_each("", |ledger| async move {
        let budget = json!({"m": {"budget_limit": 1, "time_period": "1d"}});
        let calls = [
            ("/budget/new", json!({"budget_id": "b", "model_max_budget": budget})),
            ("/team/new", json!({"team_id": "t", "model_max_budget": budget})),
            ("/user/new", json!({"user_id": "u/1", "model_max_budget": budget, "auto_create_key": false})),
            (
                "/organization/new",
                json!({"organization_id": "o", "organization_alias": "o", "budget_id": "b"}),
            ),
            ("/customer/new", json!({"user_id": "e/2", "model_max_budget": budget})),
            (
                "/team/member_add",
                json!({"team_id": "t", "member": {"user_id": "u/1", "role": "user"}, "model_max_budget": budget}),
            ),
            ("/key/generate", json!({"key": "sk-of-the-user", "user_id": "u/1", "organization_id": "o"})),
            ("/key/generate", json!({"key": "sk-of-the-team", "user_id": "u/1", "team_id": "t"})),
        ];
        for (path, body) in calls {
            ledger.admin("POST", path, Some(body)).await;
        }
        let meters = [
            "team_model:t/m",
            "member_model:t/u/1/m",
            "user_model:u/1/m",
            "org_model:o/m",
            "end_user_model:e/2/m",
        ];
        let event = json!({"id": "1", "api_key": "x", "spend": 7, "metered": meters});
        let sync = json!({"node": "n", "batch": {"number": 1, "events": [event]}});
        let (_, reply) = ledger.envoy("POST", "/internal/sync", Some(sync)).await;
        for meter in meters {
            let is_told = reply["changes"]
                .as_array()
                .unwrap()
                .iter()
                .any(|change| change["meter"] == meter && change["spend"] == 7);
            assert!(is_told, "{meter}: {reply}");
        }
        let told = async || {
            let by =
                async |key: &str| ledger.envoy("GET", &format!("/internal/keys/{}", hash(key)), None).await.1;
            let (of_user, of_team) = (by("sk-of-the-user").await, by("sk-of-the-team").await);
            let (_, customer) = ledger.envoy("GET", "/internal/end_users/e%2F2", None).await;
            // A user's budgets are for its keys without a team.
            assert_eq!(of_team["user"].get("model_budgets"), None);
            [
                of_team["team"]["model_budgets"]["m"].clone(),
                of_team["member"]["model_budgets"]["m"].clone(),
                of_user["user"]["model_budgets"]["m"].clone(),
                of_user["organization"]["model_budgets"]["m"].clone(),
                customer["scope"]["model_budgets"]["m"].clone(),
            ]
        };
        for budget in told().await {
            assert_eq!((&budget["max"], &budget["spend"]), (&json!(1_000_000_000_000_i64), &json!(7)));
            assert!(budget["reset_at_ms"].is_u64(), "{budget}");
        }
        ledger.pass(86_400_000);
        resets::run(&ledger.app, ledger.app.now_ms()).await.unwrap();
        for budget in told().await {
            assert_eq!((&budget["max"], &budget["spend"]), (&json!(1_000_000_000_000_i64), &json!(0)));
        }
        let other = json!({"m": {"budget_limit": 2, "time_period": "1d"}});
        let changed = json!({"team_id": "t", "user_id": "u/1", "model_max_budget": other});
        let changed = ledger.admin("POST", "/team/member_update", Some(changed)).await;
        assert_eq!(changed["model_max_budget"], other);
        assert_eq!(told().await[1]["max"], 2_000_000_000_000_i64);
    });
}

#[test]
fn a_member_that_comes_back_has_spent_nothing_of_its_models() {
    on_each("", |ledger| async move {
        let member = json!({"team_id": "t", "member": {"user_id": "u", "role": "user"},
                            "model_max_budget": {"m": {"budget_limit": 1, "time_period": "1d"}}});
        ledger.admin("POST", "/team/new", Some(json!({"team_id": "t"}))).await;
        ledger.admin("POST", "/team/member_add", Some(member.clone())).await;
        charge(&ledger, 1, &["member_model:t/u/m".to_owned()], 7).await;
        let spent = async || {
            let key = json!({"key": "sk-of-the-member", "user_id": "u", "team_id": "t"});
            ledger.admin("POST", "/key/generate", Some(key)).await;
            grant(&ledger, "sk-of-the-member").await["member"]["model_budgets"]["m"]["spend"].clone()
        };
        assert_eq!(spent().await, 7);
        ledger.admin("POST", "/team/member_delete", Some(json!({"team_id": "t", "user_id": "u"}))).await;
        ledger.admin("POST", "/team/member_add", Some(member)).await;
        assert_eq!(spent().await, 0);
    });
}

/// A day and a month, as a client writes them.
fn day_and_month() -> Value {
    json!([{"budget_duration": "1d", "max_budget": 1}, {"budget_duration": "30d", "max_budget": "10"}])
}

/// What `/internal/keys` says of one of the holders of a key: the spend of each of its budgets side by side.
fn spends(scope: &Value) -> Vec<(&str, i64, Option<i64>)> {
    let list = scope["budget_limits"].as_array().map(Vec::as_slice).unwrap_or_default();
    let one = |budget: &'_ Value| (budget["spend"].as_i64().unwrap(), budget["reset_at_ms"].as_i64());
    list.iter().map(|budget| (budget["duration"].as_str().unwrap(), one(budget).0, one(budget).1)).collect()
}

async fn grant(ledger: &Ledger, key: &str) -> Value {
    ledger.envoy("GET", &format!("/internal/keys/{}", hash(key)), None).await.1
}

async fn charge(ledger: &Ledger, number: u64, meters: &[String], spend: i64) -> Value {
    let event = json!({"id": number.to_string(), "api_key": "x", "spend": spend, "metered": meters});
    let sync = json!({"node": "n", "batch": {"number": number, "events": [event]}});
    ledger.envoy("POST", "/internal/sync", Some(sync)).await.1
}

#[test]
fn budgets_side_by_side_are_stored_told_and_start_again_each_by_its_own_period() {
    on_each("", |ledger| async move {
        let made = ledger
            .admin(
                "POST",
                "/key/generate",
                Some(json!({"key": "sk-two-budgets", "user_id": "u/1", "budget_limits": day_and_month()})),
            )
            .await;
        let shown = json!([
            {"budget_duration": "1d", "max_budget": 1.0, "reset_at": "2026-01-16T00:00:00Z"},
            {"budget_duration": "30d", "max_budget": 10.0, "reset_at": "2026-02-01T00:00:00Z"},
        ]);
        assert_eq!(made["budget_limits"], shown, "{made}");
        for (path, name) in [("/user/new", "user_id"), ("/team/new", "team_id")] {
            let id = if name == "user_id" { "u/1" } else { "t" };
            let body = json!({name: id, "auto_create_key": false, "budget_limits": day_and_month()});
            assert_eq!(ledger.admin("POST", path, Some(body)).await["budget_limits"], shown, "{path}");
        }
        ledger.admin("POST", "/key/generate", Some(json!({"key": "sk-of-the-team", "team_id": "t"}))).await;
        let key = hash("sk-two-budgets");
        let meters: Vec<String> =
            [format!("key_window:{key}"), "user_window:u/1".into(), "team_window:t".into()]
                .iter()
                .flat_map(|start| [format!("{start}/1d"), format!("{start}/30d")])
                .collect();
        let reply = charge(&ledger, 1, &meters, 7_000_000_000).await;
        for meter in &meters {
            let told = |change: &Value| change["meter"] == **meter && change["spend"] == 7_000_000_000_i64;
            assert!(reply["changes"].as_array().unwrap().iter().any(told), "{meter}: {reply}");
        }
        let day = START_MS + 12 * 3_600_000;
        let month = day + 16 * 86_400_000;
        let spent = 7_000_000_000;
        let expected = vec![("1d", spent, Some(day)), ("30d", spent, Some(month))];
        let (own, of_team) = (grant(&ledger, "sk-two-budgets").await, grant(&ledger, "sk-of-the-team").await);
        assert_eq!(spends(&own["key"]), expected, "{own}");
        assert_eq!(spends(&own["user"]), expected, "{own}");
        assert_eq!(spends(&of_team["team"]), expected, "{of_team}");
        let usage = json!({"1d": {"current_spend": 0.007}, "30d": {"current_spend": 0.007}});
        let info = ledger.admin("GET", "/key/info?key=sk-two-budgets", None).await;
        assert_eq!(info["info"]["budget_limits"], shown);
        assert_eq!(info["info"]["budget_limits_usage"], usage);
        let info = ledger.admin("GET", "/user/info?user_id=u%2F1", None).await;
        assert_eq!(info["user_info"]["budget_limits_usage"], usage);
        let info = ledger.admin("GET", "/team/info?team_id=t", None).await;
        assert_eq!(
            (&info["team_info"]["budget_limits_usage"], &info["team_info"]["budget_limits"]),
            (&usage, &shown)
        );

        // A new value of the key goes on where it was.
        let body = json!({"new_key": "sk-two-budgets-again"});
        ledger.admin("POST", "/key/sk-two-budgets/regenerate", Some(body)).await;
        assert_eq!(spends(&grant(&ledger, "sk-two-budgets-again").await["key"]), expected);
        let info = ledger.admin("GET", "/key/info?key=sk-two-budgets-again", None).await;
        assert_eq!(info["info"]["budget_limits_usage"], usage);

        // The day is over, the month is not.
        ledger.pass(12 * 3_600_000);
        resets::run(&ledger.app, ledger.app.now_ms()).await.unwrap();
        let (own, of_team) =
            (grant(&ledger, "sk-two-budgets-again").await, grant(&ledger, "sk-of-the-team").await);
        let expected = vec![("1d", 0, Some(day + 86_400_000)), ("30d", spent, Some(month))];
        for scope in [&own["key"], &own["user"], &of_team["team"]] {
            assert_eq!(spends(scope), expected, "{own} {of_team}");
        }
    });
}

#[test]
fn who_has_an_id_later_has_spent_nothing() {
    on_each("", |ledger| async move {
        let keys = [json!({"key": "sk-comes-and-goes", "budget_limits": day_and_month()})];
        let make = async || {
            for body in &keys {
                ledger.admin("POST", "/key/generate", Some(body.clone())).await;
            }
            let team = json!({"team_id": "t", "budget_limits": day_and_month()});
            ledger.admin("POST", "/team/new", Some(team)).await;
            let user = json!({"user_id": "u", "auto_create_key": false, "budget_limits": day_and_month()});
            ledger.admin("POST", "/user/new", Some(user)).await;
        };
        make().await;
        let starts = [
            format!("key_window:{}", hash("sk-comes-and-goes")),
            "team_window:t".into(),
            "user_window:u".into(),
        ];
        let meters: Vec<String> = starts.iter().map(|start| format!("{start}/1d")).collect();
        charge(&ledger, 1, &meters, 5).await;
        ledger.admin("POST", "/key/delete", Some(json!({"keys": ["sk-comes-and-goes"]}))).await;
        ledger.admin("POST", "/team/delete", Some(json!({"team_ids": ["t"]}))).await;
        ledger.admin("POST", "/user/delete", Some(json!({"user_ids": ["u"]}))).await;
        make().await;
        for (path, member) in [
            ("/key/info?key=sk-comes-and-goes", "info"),
            ("/team/info?team_id=t", "team_info"),
            ("/user/info?user_id=u", "user_info"),
        ] {
            let info = ledger.admin("GET", path, None).await;
            assert_eq!(info[member]["budget_limits_usage"]["1d"]["current_spend"], 0.0, "{path}: {info}");
        }
    });
}

#[test]
fn budgets_side_by_side_are_checked() {
    let one = |budget: Value| json!({"budget_limits": [budget]});
    let many = |count: usize| {
        let all: Vec<Value> =
            (1..=count).map(|at| json!({"budget_duration": format!("{at}d"), "max_budget": 1})).collect();
        json!({"budget_limits": all})
    };
    let rows = [
        (many(8), 200, Value::Null),
        (many(9), 400, Value::Null),
        (json!({"budget_limits": null}), 200, Value::Null),
        (json!({"budget_limits": []}), 200, Value::Null),
        (json!({"budget_limits": {"1d": 1}}), 422, json!([["body", "budget_limits"], "list_type"])),
        (one(json!("1d")), 422, json!([["body", "budget_limits", 0], "model_type"])),
        (
            one(json!({"budget_limit": 5, "time_period": "1h"})),
            422,
            json!([["body", "budget_limits", 0, "budget_duration"], "missing"]),
        ),
        (
            one(json!({"budget_duration": "1h"})),
            422,
            json!([["body", "budget_limits", 0, "max_budget"], "missing"]),
        ),
        (
            one(json!({"budget_duration": 3, "max_budget": 1})),
            422,
            json!([["body", "budget_limits", 0, "budget_duration"], "string_type"]),
        ),
        (
            one(json!({"budget_duration": "1d", "max_budget": -1})),
            422,
            json!([["body", "budget_limits", 0, "max_budget"], "greater_than_equal"]),
        ),
        (one(json!({"budget_duration": "soon", "max_budget": 1})), 400, Value::Null),
        (one(json!({"budget_duration": "0d", "max_budget": 1})), 400, Value::Null),
        (one(json!({"budget_duration": "1d", "max_budget": 0})), 200, Value::Null),
    ];
    on_each("", |ledger| {
        let rows = rows.clone();
        async move {
            for path in ["/key/generate", "/team/new", "/user/new"] {
                for (body, expected, detail) in &rows {
                    let (status, _, answer) =
                        ledger.call("POST", path, Some(MASTER), Some(body.clone())).await;
                    assert_eq!(status, *expected, "{path} {body}: {answer}");
                    if !detail.is_null() {
                        let first = &answer["detail"][0];
                        assert_eq!(json!([first["loc"], first["type"]]), *detail, "{path} {body}");
                    }
                }
            }
            // Whoever has no such budgets is not given any.
            let body = many(1);
            for (path, id) in [("/budget/new", "budget_id"), ("/customer/new", "user_id")] {
                let mut body = body.clone();
                body[id] = json!("x");
                let (status, _, answer) = ledger.call("POST", path, Some(MASTER), Some(body)).await;
                assert_eq!(status, 400, "{path}: {answer}");
            }
            // Nothing takes them away.
            let made = ledger.admin("POST", "/key/generate", Some(json!({"key": "sk-for-update"}))).await;
            assert_eq!(made["budget_limits"], Value::Null);
            let with = |limits: Value| json!({"key": "sk-for-update", "budget_limits": limits});
            let now = ledger.admin("POST", "/key/update", Some(with(day_and_month()))).await;
            assert_eq!(now["budget_limits"][1]["budget_duration"], "30d", "{now}");
            let now = ledger.admin("POST", "/key/update", Some(with(json!([])))).await;
            assert_eq!(now["budget_limits"], Value::Null, "{now}");
            assert_eq!(grant(&ledger, "sk-for-update").await["key"].get("budget_limits"), None);
        }
    });
}

#[test]
fn a_raise_for_a_while_raises_every_budget_of_a_key() {
    on_each("", |ledger| async move {
        let body = json!({"key": "sk-raised-a-while", "budget_limits": day_and_month()});
        ledger.admin("POST", "/key/generate", Some(body)).await;
        let body = json!({"key": "sk-raised-a-while", "temp_budget_increase": 5, "temp_budget_expiry": "1h"});
        ledger.admin("POST", "/key/update", Some(body)).await;
        let most = async || {
            let grant = grant(&ledger, "sk-raised-a-while").await;
            let list = grant["key"]["budget_limits"].as_array().unwrap().clone();
            list.iter().map(|budget| budget["max"].as_i64().unwrap() / 1_000_000_000_000).collect::<Vec<_>>()
        };
        assert_eq!(most().await, [6, 15]);
        ledger.pass(3_600_001);
        assert_eq!(most().await, [1, 10]);
    });
}
