//! Budgets: calls and their answers, and who is told.

use serde_json::{Value, json};

use crate::control::ledger::{
    api::cast::{Cast, names},
    caller::hash,
    testing::on_each,
};

#[test]
fn a_budget_is_made_shown_changed_and_removed() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let body = json!({"budget_id": "b", "max_budget": 0.000_001, "soft_budget": 1, "budget_duration": "1d", "tpm_limit": 1,
                          "model_max_budget": {"m": {"budget_limit": 1, "time_period": "1d"}}});
        let (status, made) = cast.call("master", "POST", "/budget/new", body).await;
        assert_eq!(status, 200, "{made}");
        assert_eq!(
            names(&made),
            [
                "budget_id",
                "max_budget",
                "soft_budget",
                "max_parallel_requests",
                "tpm_limit",
                "rpm_limit",
                "model_max_budget",
                "budget_duration",
                "budget_reset_at",
                "created_at",
                "created_by",
                "updated_at",
                "updated_by",
            ]
        );
        assert_eq!(
            (&made["max_budget"], &made["budget_reset_at"]),
            (&json!(0.000_001), &json!("2026-01-16T00:00:00Z"))
        );
        cast.script(&[
            ("master", "POST", "/budget/new", json!({"budget_id": "b"}), 400, Value::Null),
            ("master", "POST", "/budget/new", json!({"budget_reset_at": "soon"}), 422, Value::Null),
            ("master", "POST", "/budget/new", json!({"budget_duration": "soon"}), 400, Value::Null),
            ("master", "POST", "/budget/new", json!({"max_budget": -1}), 422, Value::Null),
            ("master", "POST", "/budget/new", json!({"max_budget": 1, "budget_reset_at": "2026-03-01T00:00:00Z"}), 200,
             json!({"budget_id": "…", "budget_reset_at": "2026-03-01T00:00:00Z"})),
            ("master", "POST", "/budget/update", json!({"budget_id": "b", "max_budget": 2}), 200,
             json!({"max_budget": 2.0, "soft_budget": 1.0, "budget_reset_at": "2026-01-16T00:00:00Z"})),
            ("master", "POST", "/budget/update", json!({"budget_id": "none"}), 404, Value::Null),
            ("master", "POST", "/budget/info", json!({"budgets": ["b", "none"]}), 200, json!([{"budget_id": "b"}])),
            ("master", "POST", "/budget/info", json!({"budgets": []}), 400, Value::Null),
            ("master", "GET", "/budget/settings?budget_id=b", Value::Null, 200,
             json!([{"field_name": "max_budget", "field_value": 2.0, "stored_in_db": true}, {}, {}, {}, {}, {}, {}, {}])),
            ("master", "GET", "/budget/settings", Value::Null, 422, Value::Null),
            ("master", "GET", "/budget/list", Value::Null, 200, json!([{}, {}, {}])),
            ("master", "POST", "/key/generate", json!({"budget_id": "b", "key": "sk-with-budget"}), 200, json!({"budget_id": "b"})),
            ("master", "GET", "/key/info?key=sk-with-budget", Value::Null, 200,
             json!({"info": {"budget_id": "b", "litellm_budget_table": {"max_budget": 2.0}}})),
            ("master", "POST", "/customer/new", json!({"user_id": "c", "budget_id": "b"}), 200, Value::Null),
        ])
        .await;
        let key = format!("key:{}", hash("sk-with-budget"));
        let told = cast.changed("POST", "/budget/update", json!({"budget_id": "b", "max_budget": 3})).await;
        assert_eq!(told, ["end_user:c", &key]);
        let told = cast.changed("POST", "/budget/delete", json!({"id": "b"})).await;
        assert_eq!(told, ["end_user:c", &key]);
        cast.script(&[
            (
                "master",
                "GET",
                "/key/info?key=sk-with-budget",
                Value::Null,
                200,
                json!({"info": {"budget_id": null, "litellm_budget_table": null}}),
            ),
            ("master", "POST", "/budget/delete", json!({"id": "b"}), 404, Value::Null),
            ("master", "POST", "/budget/delete", json!({}), 422, Value::Null),
        ])
        .await;
    });
}

#[test]
fn only_admins_make_budgets() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        // By master, admin, viewer, chief (o1), lead (t1), member (t1), loner, watcher, service (t1), nobody.
        let admins = [200, 200, 403, 401, 401, 401, 401, 401, 401, 401];
        let lookers = [200, 200, 200, 401, 401, 401, 401, 401, 401, 401];
        cast.ledger.admin("POST", "/budget/new", Some(json!({"budget_id": "b"}))).await;
        cast.matrix(&[
            ("POST", "/budget/new", json!({}), admins),
            ("POST", "/budget/update", json!({"budget_id": "b"}), admins),
            ("POST", "/budget/info", json!({"budgets": ["b"]}), lookers),
            ("GET", "/budget/settings?budget_id=b", Value::Null, lookers),
            ("GET", "/budget/list", Value::Null, lookers),
            (
                "POST",
                "/budget/delete",
                json!({"id": "none"}),
                [404, 404, 403, 401, 401, 401, 401, 401, 401, 401],
            ),
        ])
        .await;
    });
}
