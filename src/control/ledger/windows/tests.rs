//! Budgets by model of everybody who can have some: spend, what is told, and when it starts again.

use serde_json::json;

use crate::control::ledger::{caller::hash, resets, testing::on_each};

#[test]
fn models_of_teams_users_organizations_and_customers_have_budgets() {
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
            ("/key/generate", json!({"key": "sk-of-the-user", "user_id": "u/1", "organization_id": "o"})),
            ("/key/generate", json!({"key": "sk-of-the-team", "user_id": "u/1", "team_id": "t"})),
        ];
        for (path, body) in calls {
            ledger.admin("POST", path, Some(body)).await;
        }
        let meters = ["team_model:t/m", "user_model:u/1/m", "org_model:o/m", "end_user_model:e/2/m"];
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
    });
}
