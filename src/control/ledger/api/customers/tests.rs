//! Customers: calls and their answers, and who is told.

use serde_json::{Value, json};

use crate::control::ledger::{
    api::cast::{Cast, names},
    testing::on_each,
};

#[test]
fn a_customer_is_made_shown_changed_and_removed() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let body = json!({"user_id": "c", "alias": "C", "max_budget": 1, "budget_duration": "30d", "allowed_model_region": "eu"});
        let (status, made) = cast.call("master", "POST", "/customer/new", body).await;
        assert_eq!(status, 200, "{made}");
        assert_eq!(
            names(&made),
            [
                "user_id",
                "alias",
                "spend",
                "allowed_model_region",
                "default_model",
                "blocked",
                "litellm_budget_table",
            ]
        );
        assert_eq!(made["litellm_budget_table"]["max_budget"], json!(1.0));
        cast.ledger
            .admin("POST", "/budget/new", Some(json!({"budget_id": "b", "max_budget": 5, "rpm_limit": 3})))
            .await;
        cast.script(&[
            ("master", "POST", "/customer/new", json!({"user_id": "c"}), 400,
             json!({"error": {"message": "Customer already exists, passed user_id=c. Please pass a new user_id.",
                              "type": "bad_request", "param": "user_id", "code": "400"}})),
            ("master", "POST", "/customer/new", json!({"user_id": "d", "max_budget": 1, "budget_id": "b"}), 422, Value::Null),
            ("master", "POST", "/customer/new", json!({"user_id": "d", "allowed_model_region": "mars"}), 422, Value::Null),
            ("master", "POST", "/customer/new", json!({"user_id": "d", "budget_id": "none"}), 404, Value::Null),
            ("master", "POST", "/customer/new", json!({"user_id": ""}), 422, Value::Null),
            ("master", "POST", "/customer/new", json!({}), 422, Value::Null),
            ("master", "POST", "/end_user/new", json!({"user_id": "d", "budget_id": "b"}), 200, json!({"litellm_budget_table": {"budget_id": "b"}})),
            ("master", "POST", "/end_user/new", json!({"user_id": "e", "budget_id": "b"}), 200, json!({"blocked": false})),
            ("master", "GET", "/customer/info?end_user_id=c", Value::Null, 200, json!({"user_id": "c", "alias": "C", "spend": 0.0})),
            ("master", "GET", "/end_user/info?end_user_id=none", Value::Null, 404, json!({"error": {"code": "404"}})),
            ("master", "GET", "/customer/info", Value::Null, 422, Value::Null),
            ("master", "POST", "/customer/update", json!({"user_id": "c", "max_budget": 2, "default_model": "m"}), 200,
             json!({"alias": "C", "default_model": "m", "litellm_budget_table": {"max_budget": 2.0, "budget_duration": "30d"}})),
            // A limit for one of those who share a budget is not one for all of them.
            ("master", "POST", "/customer/update", json!({"user_id": "d", "max_budget": 9}), 200,
             json!({"litellm_budget_table": {"max_budget": 9.0, "rpm_limit": 3}})),
            ("master", "GET", "/customer/info?end_user_id=e", Value::Null, 200, json!({"litellm_budget_table": {"budget_id": "b", "max_budget": 5.0}})),
            ("master", "POST", "/customer/update", json!({"user_id": "none"}), 404, Value::Null),
            ("master", "POST", "/customer/block", json!({"user_ids": ["c", "new"]}), 200,
             json!({"blocked_users": [{"user_id": "c", "blocked": true}, {"user_id": "new", "blocked": true}]})),
            ("master", "POST", "/customer/unblock", json!({"user_ids": ["c"]}), 200, json!({"blocked_users": [{"user_id": "c", "blocked": false}]})),
            ("master", "POST", "/customer/unblock", json!({"user_ids": ["none"]}), 404, Value::Null),
            ("master", "POST", "/customer/block", json!({"user_ids": []}), 400, Value::Null),
            ("master", "GET", "/customer/list", Value::Null, 200, json!([{"user_id": "c"}, {"user_id": "d"}, {"user_id": "e"}, {"user_id": "new"}])),
            ("master", "POST", "/customer/delete", json!({"user_ids": ["c", "none"]}), 404, Value::Null),
            ("master", "POST", "/customer/delete", json!({"user_ids": ["c", "d"]}), 200,
             json!({"deleted_customers": 2, "message": "Successfully deleted customers with ids: ['c', 'd']"})),
        ])
        .await;
    });
}

#[test]
fn changes_are_told_and_only_admins_make_them() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        for (path, body) in [
            ("/customer/new", json!({"user_id": "c", "max_budget": 1})),
            ("/customer/update", json!({"user_id": "c", "max_budget": 2})),
            ("/customer/block", json!({"user_ids": ["c"]})),
            ("/customer/unblock", json!({"user_ids": ["c"]})),
            ("/customer/delete", json!({"user_ids": ["c"]})),
        ] {
            assert_eq!(cast.changed("POST", path, body).await, ["end_user:c"], "{path}");
        }
        // By master, admin, viewer, chief (o1), lead (t1), member (t1), loner, watcher, service (t1), nobody.
        let admins = [200, 200, 403, 401, 401, 401, 401, 401, 401, 401];
        let lookers = [200, 200, 200, 401, 401, 401, 401, 401, 401, 401];
        cast.ledger.admin("POST", "/customer/new", Some(json!({"user_id": "c"}))).await;
        cast.matrix(&[
            ("POST", "/customer/new", json!({"user_id": "n{n}"}), admins),
            ("POST", "/customer/update", json!({"user_id": "c"}), admins),
            ("POST", "/customer/block", json!({"user_ids": ["c"]}), admins),
            ("POST", "/customer/unblock", json!({"user_ids": ["c"]}), admins),
            ("GET", "/customer/info?end_user_id=c", Value::Null, lookers),
            ("GET", "/end_user/list", Value::Null, lookers),
            (
                "POST",
                "/customer/delete",
                json!({"user_ids": ["none"]}),
                [404, 404, 403, 401, 401, 401, 401, 401, 401, 401],
            ),
        ])
        .await;
    });
}
