//! Users: calls and their answers, defaults, cascades, who may do what.

use serde_json::{Value, json};

use crate::control::ledger::{
    api::cast::{Cast, names},
    caller::hash,
    testing::on_each,
};

#[test]
fn a_user_is_made_shown_changed_and_removed() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let body = json!({"user_id": "u1", "user_email": "u1@x.org", "user_role": "internal_user", "max_budget": 1000.0,
                          "budget_duration": "1mo", "tpm_limit": 10_000, "rpm_limit": 10, "max_parallel_requests": 2,
                          "models": ["m"], "model_rpm_limit": {"m": 1}, "key": "sk-first-of-u1", "user_alias": "U",
                          "teams": [{"team_id": "t1", "max_budget_in_team": 3, "user_role": "user"}],
                          "organizations": ["o1"]});
        let (status, made) = cast.call("master", "POST", "/user/new", body).await;
        assert_eq!(status, 200, "{made}");
        assert_eq!(
            names(&made),
            [
                "key_alias",
                "duration",
                "models",
                "spend",
                "max_budget",
                "user_id",
                "team_id",
                "max_parallel_requests",
                "metadata",
                "tpm_limit",
                "rpm_limit",
                "budget_duration",
                "allowed_cache_controls",
                "soft_budget",
                "config",
                "permissions",
                "model_max_budget",
                "budget_limits",
                "send_invite_email",
                "model_rpm_limit",
                "model_tpm_limit",
                "guardrails",
                "prompts",
                "blocked",
                "aliases",
                "object_permission",
                "key",
                "budget_id",
                "tags",
                "enforced_params",
                "allowed_routes",
                "key_name",
                "expires",
                "token_id",
                "litellm_budget_table",
                "created_by",
                "updated_by",
                "created_at",
                "updated_at",
                "user_email",
                "user_role",
                "teams",
                "user_alias",
            ]
        );
        for (name, value) in [
            ("key", json!("sk-first-of-u1")),
            ("key_name", Value::Null),
            ("token_id", Value::Null),
            ("max_parallel_requests", Value::Null),
            ("model_rpm_limit", Value::Null),
            ("max_budget", json!(1000.0)),
            ("budget_duration", json!("1mo")),
            ("metadata", json!({"model_rpm_limit": {"m": 1}})),
            ("models", json!(["m"])),
        ] {
            assert_eq!(made[name], value, "{name}");
        }
        cast.script(&[
            // Money and rates are the user's, not the key's.
            ("master", "GET", "/key/info?key=sk-first-of-u1", Value::Null, 200,
             json!({"info": {"max_budget": null, "tpm_limit": null, "rpm_limit": null, "budget_duration": null,
                             "models": ["m"], "user_id": "u1", "metadata": {"model_rpm_limit": {"m": 1}}}})),
            ("master", "GET", "/user/info?user_id=u1", Value::Null, 200,
             json!({"user_id": "u1", "user_info": {"max_budget": 1000.0, "max_parallel_requests": 2, "rpm_limit": 10,
                    "budget_reset_at": "2026-02-01T00:00:00Z", "teams": ["t1"], "user_alias": "U", "spend": 0.0,
                    "organization_memberships": [{"organization_id": "o1", "user_role": "internal_user"}]},
                    "keys": [{"key_alias": null, "user_id": "u1"}], "teams": [{"team_id": "t1"}]})),
            ("master", "GET", "/team/info?team_id=t1", Value::Null, 200,
             json!({"team_memberships": [{}, {}, {"user_id": "u1", "litellm_budget_table": {"max_budget": 3.0}}]})),
            ("master", "POST", "/user/new", json!({"user_id": "u1"}), 409,
             json!({"error": {"message": "{'error': 'User with id u1 already exists'}"}})),
            ("master", "POST", "/user/new", json!({"user_email": "u1@x.org"}), 400,
             json!({"error": {"message": "{'error': 'User with email u1@x.org already exists'}", "code": "400"}})),
            ("master", "POST", "/user/new", json!({"user_role": "king"}), 422, json!({"detail": [{"type": "enum"}]})),
            ("master", "POST", "/user/new", json!({"teams": ["none"]}), 404, json!({"error": {"param": "teams"}})),
            ("master", "POST", "/user/new", json!({"teams": [3]}), 422, Value::Null),
            ("master", "POST", "/user/new", json!({"teams": [{"team_id": "t1", "max_budget_in_team": -1}]}), 422, Value::Null),
            ("master", "POST", "/user/new", json!({"organizations": ["none"]}), 404, Value::Null),
            ("master", "POST", "/user/new", json!({"max_budget": 1e9}), 400,
             json!({"error": {"message": "`max_budget` is too large: expected at most 9223372 dollars; leave it out for no limit."}})),
            ("master", "POST", "/user/new", json!({"user_id": "u2", "auto_create_key": false}), 200, json!({"key": "", "user_role": null})),
            ("master", "GET", "/user/info?user_id=u2", Value::Null, 200, json!({"keys": [], "user_info": {"metadata": {}}})),
            // Changes.
            ("master", "POST", "/user/update", json!({"user_id": "u1", "max_budget": 5, "user_role": "proxy_admin"}), 200,
             json!({"user_id": "u1", "data": {"max_budget": 5.0, "user_role": "proxy_admin", "rpm_limit": 10, "teams": ["t1"]}})),
            ("master", "POST", "/user/update", json!({"user_email": "u1@x.org", "rpm_limit": null}), 200,
             json!({"user_id": "u1", "data": {"rpm_limit": null, "max_budget": 5.0}})),
            ("master", "POST", "/user/update", json!({"user_id": "u2", "user_email": "u1@x.org"}), 400, Value::Null),
            ("master", "POST", "/user/update", json!({"user_id": "u2", "user_role": "king"}), 422, Value::Null),
            ("master", "POST", "/user/update", json!({"user_id": "nobody-known"}), 404, Value::Null),
            ("master", "POST", "/user/update", json!({"max_budget": 5}), 400, Value::Null),
            ("master", "GET", "/user/info?user_id=unknown", Value::Null, 404, json!({"error": {"type": "not_found_error"}})),
            // With everything that is the user's.
            ("master", "POST", "/user/delete", json!({"user_ids": ["u1", "unknown"]}), 404, Value::Null),
            ("master", "POST", "/user/delete", json!({"user_ids": ["u1", "u2"]}), 200, json!(2)),
            ("master", "GET", "/key/info?key=sk-first-of-u1", Value::Null, 404, Value::Null),
            ("master", "GET", "/team/info?team_id=t1", Value::Null, 200,
             json!({"team_info": {"members_with_roles": [{"user_id": "lead"}, {"user_id": "member"}, {"user_id": "default_user_id"}]},
                    "team_memberships": [{"user_id": "lead"}, {"user_id": "member"}]})),
            ("master", "GET", "/organization/info?organization_id=o1", Value::Null, 200, json!({"members": [{"user_id": "chief"}]})),
            ("master", "GET", "/budget/list", Value::Null, 200, json!([{}])),
            ("master", "POST", "/user/delete", json!({}), 422, json!({"detail": [{"type": "missing"}]})),
        ])
        .await;
    });
}

#[test]
fn users_are_listed() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        cast.ledger.admin("POST", "/key/generate", Some(json!({"user_id": "lead"}))).await;
        let (_, all) = cast
            .call("master", "GET", "/user/list?page_size=3&sort_by=user_id&sort_order=asc", Value::Null)
            .await;
        assert_eq!(names(&all), ["users", "total", "page", "page_size", "total_pages"]);
        cast.script(&[
            ("master", "GET", "/user/list?page_size=3&sort_by=user_id&sort_order=asc", Value::Null, 200,
             json!({"users": [{"user_id": "admin"}, {"user_id": "chief"}, {"user_id": "lead", "key_count": 2}],
                    "total": 7, "page": 1, "page_size": 3, "total_pages": 3})),
            ("master", "GET", "/user/list?role=proxy_admin", Value::Null, 200, json!({"users": [{"user_id": "admin"}], "page_size": 25})),
            ("master", "GET", "/user/list?user_ids=lead,%20member&sort_by=user_id&sort_order=asc", Value::Null, 200,
             json!({"users": [{"user_id": "lead"}, {"user_id": "member"}]})),
            ("master", "GET", "/user/list?user_email=LEAD", Value::Null, 200, json!({"users": [{"user_id": "lead"}]})),
            ("master", "GET", "/user/list?team=t1", Value::Null, 200, json!({"total": 2})),
            ("master", "GET", "/user/get_users", Value::Null, 200, json!({"total": 7})),
            ("master", "GET", "/user/list?page_size=101", Value::Null, 422, Value::Null),
            ("master", "GET", "/user/list?sort_by=metadata", Value::Null, 400, Value::Null),
            ("loner", "GET", "/user/available_roles", Value::Null, 200,
             json!({"proxy_admin": {"description": "…", "ui_label": "…"}, "internal_user": {"description": "…"}})),
        ])
        .await;
    });
}

#[test]
fn defaults_of_new_users() {
    let yaml = "litellm_settings:\n  max_internal_user_budget: 1000000000\n  internal_user_budget_duration: 1mo\n  \
                default_internal_user_params:\n    tpm_limit: 7\n    models: [small]\n    available_teams: [t1]\n";
    on_each(yaml, |ledger| async move {
        let cast = Cast::new(ledger).await;
        cast.script(&[
            // More than can be counted is the most that can be.
            ("master", "POST", "/user/new", json!({"user_role": "internal_user"}), 200,
             json!({"user_id": "…", "max_budget": 9_223_372.036_854_776, "budget_duration": "1mo", "tpm_limit": 7, "models": ["small"]})),
            ("master", "POST", "/user/new", json!({"user_role": "internal_user", "max_budget": 3, "budget_duration": "1d"}), 200,
             json!({"max_budget": 3.0, "budget_duration": "1d"})),
            ("master", "POST", "/user/new", json!({"user_role": "proxy_admin"}), 200, json!({"max_budget": null, "tpm_limit": null, "models": []})),
            ("master", "POST", "/user/new", json!({}), 200, json!({"tpm_limit": 7})),
            // Teams that users may join by themselves, as plain members, without a budget of their choice.
            ("loner", "POST", "/team/member_add", json!({"team_id": "t1", "member": {"user_id": "loner", "role": "admin"}}), 403, Value::Null),
            ("loner", "POST", "/team/member_add", json!({"team_id": "t1", "member": {"user_id": "watcher", "role": "user"}}), 403, Value::Null),
            ("loner", "POST", "/team/member_add",
             json!({"team_id": "t1", "member": {"user_id": "loner", "role": "user"}, "max_budget_in_team": 100}), 200,
             json!({"updated_team_memberships": [{"user_id": "loner", "litellm_budget_table": null}]})),
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
        let lookers = [200, 200, 200, 401, 401, 401, 401, 401, 401, 401];
        cast.matrix(&[
            ("POST", "/user/new", json!({}), admins),
            ("POST", "/user/new", json!({"user_role": "proxy_admin"}), admins),
            (
                "POST",
                "/user/new",
                json!({"organizations": ["o1"], "teams": ["t1"], "user_role": "internal_user"}),
                [200, 200, 403, 200, 401, 401, 401, 401, 401, 401],
            ),
            (
                "POST",
                "/user/new",
                json!({"organizations": ["o1"], "user_role": "proxy_admin"}),
                [200, 200, 403, 403, 401, 401, 401, 401, 401, 401],
            ),
            ("POST", "/user/update", json!({"user_id": "loner", "max_budget": 5}), admins),
            (
                "POST",
                "/user/delete",
                json!({"user_ids": ["made-up"]}),
                [404, 404, 403, 401, 401, 401, 401, 401, 401, 401],
            ),
            ("GET", "/user/info", Value::Null, [200; 10]),
            (
                "GET",
                "/user/info?user_id=loner",
                Value::Null,
                [200, 200, 200, 403, 403, 403, 200, 403, 403, 403],
            ),
            (
                "GET",
                "/user/info?user_id=chief",
                Value::Null,
                [200, 200, 200, 200, 403, 403, 403, 403, 403, 403],
            ),
            ("GET", "/user/list", Value::Null, lookers),
            ("GET", "/user/get_users", Value::Null, lookers),
            ("GET", "/user/available_roles", Value::Null, [200; 10]),
        ])
        .await;
        cast.script(&[
            ("loner", "GET", "/user/info?user_id=lead", Value::Null, 403,
             json!({"error": {"message": "key not allowed to access this user's info. user_id=lead, key's user_id=loner",
                              "code": "403"}})),
            ("loner", "GET", "/user/info", Value::Null, 200, json!({"user_id": "loner", "keys": [{}], "teams": []})),
            ("nobody", "GET", "/user/info", Value::Null, 200, json!({"user_id": null, "keys": [{"user_id": null}], "teams": []})),
            ("chief", "POST", "/user/new", json!({"organizations": ["o1"], "organization_id": "o2"}), 403, Value::Null),
            ("chief", "POST", "/user/new", json!({"organizations": ["o1"], "team_id": "no-team"}), 403, Value::Null),
        ])
        .await;
    });
}

#[test]
fn changes_are_told() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let key = format!("key:{}", hash("sk-told-user"));
        let body = json!({"user_id": "u", "key": "sk-told-user", "teams": ["t1"]});
        assert_eq!(cast.changed("POST", "/user/new", body).await, [key.as_str(), "member:t1/u", "user:u"]);
        let body = json!({"user_id": "u", "max_budget": 1});
        assert_eq!(cast.changed("POST", "/user/update", body).await, ["user:u"]);
        let body = json!({"user_ids": ["u"]});
        assert_eq!(cast.changed("POST", "/user/delete", body).await, [key.as_str(), "member:t1/u", "user:u"]);
        // Names that are no plain text are escaped.
        let body = json!({"user_id": "ü,x", "auto_create_key": false});
        assert_eq!(cast.changed("POST", "/user/new", body).await, ["user:%C3%BC%2Cx"]);
    });
}

#[test]
fn printed_calls_work() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let sonnet = "anthropic.claude-3-5-sonnet-20240620-v1:0";
        cast.script(&[
            ("master", "POST", "/user/new", json!({"user_email": "a@x.org", "user_role": "internal_user"}), 200,
             json!({"user_email": "a@x.org", "user_role": "internal_user", "key": "sk-…", "teams": null, "models": []})),
            ("master", "POST", "/user/new",
             json!({"user_email": "b@x.org", "user_role": "internal_user", "max_budget": 1000.0, "budget_duration": "1mo"}), 200,
             json!({"max_budget": 1000.0, "budget_duration": "1mo"})),
            ("master", "POST", "/user/new", json!({"user_role": "internal_user", "models": [sonnet]}), 200, json!({"models": [sonnet]})),
            ("master", "POST", "/user/new", json!({"model_rpm_limit": {sonnet: 1}, "model_tpm_limit": {sonnet: 10_000}}), 200,
             json!({"metadata": {"model_rpm_limit": {sonnet: 1}, "model_tpm_limit": {sonnet: 10_000}}, "model_rpm_limit": null})),
            // Members that mean nothing here are left alone.
            ("master", "POST", "/user/new",
             json!({"model": sonnet, "messages": [{"role": "user", "content": "x"}], "guardrails": ["g"]}), 200, json!({"guardrails": ["g"]})),
        ])
        .await;
    });
}

#[test]
fn who_was_made_for_an_organization_stays_in_it() {
    on_each("litellm_settings:\n  max_internal_user_budget: 10\n", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let user = json!({"user_id": "made", "key": "sk-of-made", "organizations": ["o1"]});
        cast.script(&[
            (
                "chief",
                "POST",
                "/user/new",
                json!({"organizations": ["o1"], "max_budget": 11}),
                403,
                Value::Null,
            ),
            (
                "chief",
                "POST",
                "/user/new",
                json!({"organizations": ["o1"], "permissions": {"a": 1}}),
                403,
                Value::Null,
            ),
            (
                "chief",
                "POST",
                "/user/new",
                user,
                200,
                json!({"max_budget": 10.0, "user_role": "internal_user"}),
            ),
            (
                "master",
                "GET",
                "/key/info?key=sk-of-made",
                Value::Null,
                200,
                json!({"info": {"organization_id": "o1"}}),
            ),
        ])
        .await;
        let (_, _, made) =
            cast.ledger.call("POST", "/key/generate", Some("sk-of-made"), Some(json!({}))).await;
        let path = format!("/key/info?key={}", made["token"].as_str().unwrap());
        let (_, shown) = cast.call("master", "GET", &path, Value::Null).await;
        assert_eq!(shown["info"]["organization_id"], "o1");
        let body = json!({"key": made["token"], "organization_id": null});
        assert_eq!(cast.ledger.call("POST", "/key/update", Some("sk-of-made"), Some(body)).await.0, 403);
    });
}

#[test]
fn a_user_with_a_team_is_a_member_of_it() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        cast.script(&[
            ("master", "POST", "/team/new", json!({"team_id": "t2", "team_member_budget": 0.3}), 200, Value::Null),
            ("master", "POST", "/user/new", json!({"user_id": "a", "team_id": "t2"}), 200, json!({"team_id": "t2"})),
            ("master", "POST", "/user/new", json!({"user_id": "b", "teams": [{"team_id": "t2", "user_role": "admin", "max_budget_in_team": "2"}]}), 200, Value::Null),
            ("master", "POST", "/user/new", json!({"user_id": "c", "team_id": "t2", "teams": ["t2", "t1"]}), 200, Value::Null),
            ("master", "POST", "/user/new", json!({"user_id": "d", "team_id": "none"}), 404, Value::Null),
            ("master", "GET", "/team/info?team_id=t2", Value::Null, 200, json!({
                "team_info": {"members_with_roles": [{}, {"user_id": "a", "role": "user"}, {"user_id": "b", "role": "admin"}, {"user_id": "c", "role": "user"}]},
            })),
            ("master", "GET", "/user/info?user_id=a", Value::Null, 200, json!({
                "user_info": {"teams": ["t2"]},
                "teams": [{"team_id": "t2", "team_memberships": [
                    {"user_id": "a", "litellm_budget_table": {"max_budget": 0.3}},
                    {"user_id": "b", "litellm_budget_table": {"max_budget": 2.0}}, {"user_id": "c"},
                ]}],
            })),
            ("master", "GET", "/user/info?user_id=c", Value::Null, 200, json!({"user_info": {"teams": ["t2", "t1"]}})),
        ])
        .await;
    });
}

#[test]
fn addresses_are_the_same_whatever_the_case_of_their_letters() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        cast.script(&[
            ("master", "POST", "/user/new", json!({"user_id": "ann", "user_email": "Ann@X.org"}), 200, json!({"user_email": "Ann@X.org"})),
            ("master", "POST", "/user/new", json!({"user_email": "ann@x.org"}), 400, Value::Null),
            ("master", "POST", "/user/update", json!({"user_id": "loner", "user_email": "aNN@x.org"}), 400, Value::Null),
            ("master", "POST", "/user/update", json!({"user_email": "aNN@x.ORG", "user_alias": "a"}), 200, json!({"user_id": "ann"})),
            ("master", "POST", "/team/member_add", json!({"team_id": "t1", "member": {"user_email": "ANN@x.org"}}), 200,
             json!({"updated_users": [{"user_id": "ann"}]})),
            ("master", "POST", "/team/member_update", json!({"team_id": "t1", "user_email": "aNn@x.org", "role": "admin"}), 200,
             json!({"user_id": "ann"})),
            ("master", "POST", "/team/member_delete", json!({"team_id": "t1", "user_email": "ann@x.ORG"}), 200, Value::Null),
            ("master", "POST", "/organization/member_add", json!({"organization_id": "o1", "member": {"user_email": "ANN@x.org", "role": "internal_user"}}), 200,
             json!({"updated_users": [{"user_id": "ann"}]})),
            ("master", "GET", "/user/list?user_email=ann@x", Value::Null, 200, json!({"total": 1})),
        ])
        .await;
    });
}
