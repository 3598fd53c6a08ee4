//! Organizations: calls and their answers, cascades, who may do what.

use serde_json::{Value, json};

use crate::control::ledger::{
    api::cast::{Cast, names},
    caller::hash,
    testing::on_each,
};

#[test]
fn an_organization_is_made_shown_changed_and_removed() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let body = json!({"organization_alias": "two", "organization_id": "o2", "max_budget": 10, "models": ["m"],
                          "model_rpm_limit": {"m": 1}, "budget_duration": "1d"});
        let (status, made) = cast.call("master", "POST", "/organization/new", body).await;
        assert_eq!(status, 200, "{made}");
        assert_eq!(
            names(&made),
            [
                "organization_id",
                "organization_alias",
                "budget_id",
                "metadata",
                "models",
                "spend",
                "object_permission_id",
                "created_at",
                "created_by",
                "updated_at",
                "updated_by",
                "litellm_budget_table",
                "members",
                "teams",
            ]
        );
        cast.script(&[
            ("master", "GET", "/organization/info?organization_id=o2", Value::Null, 200,
             json!({"models": ["m"], "metadata": {"model_rpm_limit": {"m": 1}},
                    "litellm_budget_table": {"max_budget": 10.0, "budget_reset_at": "2026-01-16T00:00:00Z"}})),
            ("master", "POST", "/organization/new", json!({"organization_alias": "two", "organization_id": "o2"}), 400, Value::Null),
            ("master", "POST", "/organization/new", json!({"organization_id": "o3"}), 422, Value::Null),
            ("master", "POST", "/organization/new", json!({"organization_alias": "x", "budget_id": "none"}), 404, Value::Null),
            ("master", "PATCH", "/organization/update", json!({"organization_id": "o2", "max_budget": 20, "models": []}), 200,
             json!({"models": [], "litellm_budget_table": {"max_budget": 20.0, "budget_duration": "1d"}})),
            ("master", "PATCH", "/organization/update", json!({"organization_id": "none"}), 404, Value::Null),
            ("master", "GET", "/organization/list", Value::Null, 200,
             json!([{"organization_id": "o1", "members": [{"user_id": "chief"}], "teams": [{"team_id": "t1"}]}, {"organization_id": "o2"}])),
            ("chief", "GET", "/organization/list", Value::Null, 200, json!([{"organization_id": "o1"}])),
            ("nobody", "GET", "/organization/list", Value::Null, 200, json!([])),
            ("master", "POST", "/organization/info", json!({"organizations": ["o1", "none"]}), 200, json!([{"organization_id": "o1"}])),
            ("master", "POST", "/organization/info", json!({"organizations": []}), 400, Value::Null),
            ("chief", "POST", "/organization/member_add",
             json!({"organization_id": "o1", "member": {"user_id": "loner", "role": "internal_user"}, "max_budget_in_organization": 1}), 200,
             json!({"organization_id": "o1", "updated_users": [{"user_id": "loner"}],
                    "updated_organization_memberships": [{"user_id": "loner", "litellm_budget_table": {"max_budget": 1.0}}]})),
            ("chief", "POST", "/organization/member_add", json!({"organization_id": "o1", "member": {"user_id": "loner"}}), 400, Value::Null),
            ("chief", "POST", "/organization/member_add", json!({"organization_id": "o1", "member": {"user_id": "x", "role": "proxy_admin"}}), 422, Value::Null),
            ("chief", "PATCH", "/organization/member_update",
             json!({"organization_id": "o1", "user_email": "loner@x.org", "role": "org_admin", "max_budget_in_organization": 2}), 200,
             json!({"user_role": "org_admin", "litellm_budget_table": {"max_budget": 2.0}})),
            ("loner", "POST", "/team/block", json!({"team_id": "t1"}), 200, Value::Null),
            ("loner", "PATCH", "/organization/member_update",
             json!({"organization_id": "o1", "user_id": "loner", "max_budget_in_organization": 1000}), 403, Value::Null),
            ("chief", "DELETE", "/organization/member_delete", json!({"organization_id": "o1", "user_id": "loner"}), 200, json!({"user_id": "loner"})),
            ("chief", "DELETE", "/organization/member_delete", json!({"organization_id": "o1", "user_id": "loner"}), 400, Value::Null),
            ("loner", "POST", "/team/block", json!({"team_id": "t1"}), 403, Value::Null),
            // With its teams and their keys.
            ("master", "DELETE", "/organization/delete", json!({"organization_ids": ["o1", "none"]}), 404, Value::Null),
            ("master", "DELETE", "/organization/delete", json!({"organization_ids": ["o1"]}), 200, json!([{"organization_id": "o1"}])),
            ("master", "GET", "/team/info?team_id=t1", Value::Null, 404, Value::Null),
            ("service", "GET", "/key/info", Value::Null, 401, Value::Null),
            ("master", "GET", "/user/info?user_id=lead", Value::Null, 200, json!({"user_info": {"teams": []}})),
        ])
        .await;
    });
}

#[test]
fn everybody_does_what_the_role_allows() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        // By master, admin, viewer, chief (o1), lead (t1), member (t1), loner, watcher, service (t1), nobody.
        let admins = [200, 200, 403, 401, 401, 401, 401, 401, 401, 401];
        let runs = [200, 200, 403, 200, 401, 401, 401, 401, 401, 401];
        cast.matrix(&[
            ("POST", "/organization/new", json!({"organization_alias": "x"}), admins),
            ("PATCH", "/organization/update", json!({"organization_id": "o1", "max_budget": 1}), admins),
            (
                "DELETE",
                "/organization/delete",
                json!({"organization_ids": ["x"]}),
                [404, 404, 403, 401, 401, 401, 401, 401, 401, 401],
            ),
            (
                "GET",
                "/organization/info?organization_id=o1",
                Value::Null,
                [200, 200, 200, 200, 403, 403, 403, 403, 403, 403],
            ),
            (
                "POST",
                "/organization/info",
                json!({"organizations": ["o1"]}),
                [200, 200, 200, 401, 401, 401, 401, 401, 401, 401],
            ),
            ("GET", "/organization/list", Value::Null, [200; 10]),
            (
                "POST",
                "/organization/member_add",
                json!({"organization_id": "o1", "member": {"user_id": "new{n}"}}),
                runs,
            ),
            (
                "PATCH",
                "/organization/member_update",
                json!({"organization_id": "o1", "user_id": "chief", "role": "org_admin"}),
                runs,
            ),
            (
                "DELETE",
                "/organization/member_delete",
                json!({"organization_id": "o1", "user_id": "x"}),
                [400, 400, 403, 400, 401, 401, 401, 401, 401, 401],
            ),
        ])
        .await;
    });
}

#[test]
fn changes_are_told() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let key = format!("key:{}", hash(cast.key("service")));
        let member = |user: &str| json!({"organization_id": "o1", "member": {"user_id": user}});
        for (method, path, body, expected) in [
            (
                "PATCH",
                "/organization/update",
                json!({"organization_id": "o1", "max_budget": 1}),
                vec!["org:o1"],
            ),
            ("POST", "/organization/member_add", member("loner"), vec!["user:loner"]),
            (
                "DELETE",
                "/organization/member_delete",
                json!({"organization_id": "o1", "user_id": "loner"}),
                vec!["user:loner"],
            ),
            (
                "DELETE",
                "/organization/delete",
                json!({"organization_ids": ["o1"]}),
                vec![
                    key.as_str(),
                    "member:t1/lead",
                    "member:t1/member",
                    "org:o1",
                    "team:t1",
                    "user:lead",
                    "user:member",
                ],
            ),
        ] {
            assert_eq!(cast.changed(method, path, body).await, expected, "{path}");
        }
    });
}
