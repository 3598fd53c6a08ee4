//! Teams: calls and their answers, members and their budgets, cascades, who may do what.

use serde_json::{Value, json};

use crate::control::ledger::{
    api::cast::{Cast, names},
    caller::hash,
    testing::on_each,
};

#[test]
fn a_team_is_made_shown_changed_and_removed() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let body = json!({"team_alias": "T", "team_id": "t2", "max_budget": 10, "budget_duration": "30d", "tpm_limit": 5,
                          "models": ["m"], "model_aliases": {"a": "m"}, "tags": ["x"], "metadata": {"k": 1},
                          "members_with_roles": [{"role": "user", "user_email": "new@x.org"}, {"role": "admin", "user_id": "lead"}]});
        let (status, made) = cast.call("master", "POST", "/team/new", body).await;
        assert_eq!(status, 200, "{made}");
        assert_eq!(
            names(&made),
            [
                "team_alias",
                "team_id",
                "organization_id",
                "admins",
                "members",
                "members_with_roles",
                "team_member_permissions",
                "metadata",
                "tpm_limit",
                "rpm_limit",
                "max_budget",
                "budget_duration",
                "models",
                "blocked",
                "spend",
                "max_parallel_requests",
                "budget_reset_at",
                "model_max_budget",
                "budget_limits",
                "model_id",
                "litellm_model_table",
                "created_at",
                "updated_at",
            ]
        );
        assert_eq!(made["budget_reset_at"], "2026-02-01T00:00:00Z");
        assert_eq!((&made["blocked"], &made["spend"]), (&json!(false), &json!(0.0)));
        assert_eq!(
            made["members_with_roles"][2],
            json!({"user_id": "default_user_id", "user_email": null, "role": "admin"})
        );
        let new_user = made["members_with_roles"][0]["user_id"].as_str().unwrap().to_owned();
        let key = json!({"team_id": "t2", "key": "sk-of-team-2"});
        assert_eq!(cast.call("master", "POST", "/key/generate", key).await.0, 200);
        cast.script(&[
            ("master", "GET", &format!("/user/info?user_id={new_user}"), Value::Null, 200,
             json!({"user_info": {"user_email": "new@x.org", "user_role": "internal_user", "teams": ["t2"]}})),
            ("master", "GET", "/team/info?team_id=t2", Value::Null, 200,
             json!({"team_id": "t2", "team_info": {"metadata": {"k": 1, "tags": ["x"]}, "litellm_model_table": {"model_aliases": {"a": "m"}}},
                    "keys": [{"team_id": "t2"}], "team_memberships": [{"team_id": "t2"}, {"team_id": "t2"}]})),
            ("master", "GET", "/team/info?team_id=none", Value::Null, 404, json!({"error": {"type": "not_found_error"}})),
            ("master", "GET", "/team/info", Value::Null, 422, json!({"detail": [{"loc": ["query", "team_id"]}]})),
            ("master", "POST", "/team/new", json!({"team_id": "t2"}), 400,
             json!({"error": {"message": "{'error': 'Team id = t2 already exists. Please use a different team id.'}"}})),
            ("master", "POST", "/team/new", json!({"organization_id": "none"}), 404, Value::Null),
            ("master", "POST", "/team/new", json!({"members_with_roles": [{"role": "king", "user_id": "x"}]}), 422, Value::Null),
            ("master", "POST", "/team/new", json!({"members_with_roles": [{"role": "user"}]}), 422, Value::Null),
            ("master", "POST", "/team/new", json!({"members_with_roles": [{"user_id": "x"}, {"user_id": "x"}]}), 400, Value::Null),
            ("master", "POST", "/team/update", json!({"team_id": "t2", "max_budget": 20, "tpm_limit": null}), 200,
             json!({"team_id": "t2", "data": {"max_budget": 20.0, "tpm_limit": null, "models": ["m"], "team_alias": "T"}})),
            ("master", "POST", "/team/update", json!({"team_id": "none"}), 404, Value::Null),
            ("master", "POST", "/team/update", json!({}), 422, Value::Null),
            ("master", "POST", "/team/block", json!({"team_id": "t2"}), 200, json!({"blocked": true})),
            ("master", "POST", "/team/unblock", json!({"team_id": "t2"}), 200, json!({"blocked": false})),
            ("master", "POST", "/team/model/add", json!({"team_id": "t2", "models": ["n", "m"]}), 200, json!({"models": ["m", "n"]})),
            ("master", "POST", "/team/model/delete", json!({"team_id": "t2", "models": ["m"]}), 200, json!({"models": ["n"]})),
            ("master", "POST", "/team/model/delete", json!({"team_id": "t2", "models": ["n"]}), 400, Value::Null),
            ("master", "GET", "/team/list", Value::Null, 200, json!([{"team_id": "t1"}, {"team_id": "t2", "keys": [{"token": "…"}]}])),
            ("master", "GET", "/team/list?user_id=member", Value::Null, 200, json!([{"team_id": "t1", "team_memberships": [{}, {}]}])),
            ("master", "GET", "/team/list?organization_id=o1", Value::Null, 200, json!([{"team_id": "t1"}])),
            ("lead", "GET", "/team/list?user_id=lead", Value::Null, 200, json!([{"team_id": "t1"}, {"team_id": "t2"}])),
            ("master", "GET", "/v2/team/list?page_size=1&sort_by=team_id&sort_order=asc", Value::Null, 200,
             json!({"teams": [{"team_id": "t1"}], "total": 2, "page": 1, "page_size": 1, "total_pages": 2})),
            ("master", "GET", "/v2/team/list?page_size=1&page=2&sort_by=team_id&sort_order=asc", Value::Null, 200,
             json!({"teams": [{"team_id": "t2"}]})),
            ("master", "GET", "/v2/team/list?team_alias=t", Value::Null, 200, json!({"teams": [{"team_id": "t2"}]})),
            ("master", "GET", "/team/permissions_list?team_id=t2", Value::Null, 200,
             json!({"team_member_permissions": ["/key/info", "/key/health"]})),
            ("master", "POST", "/team/delete", json!({"team_ids": ["t2", "none"]}), 404, Value::Null),
            ("master", "POST", "/team/delete", json!({"team_ids": ["t2"]}), 200, json!({"deleted_teams": ["t2"]})),
            ("master", "GET", "/key/info?key=sk-of-team-2", Value::Null, 404, Value::Null),
            ("master", "GET", "/user/info?user_id=lead", Value::Null, 200, json!({"user_info": {"teams": ["t1"]}})),
        ])
        .await;
    });
}

#[test]
fn members_come_change_and_go() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let budgets = async || {
            cast.call("master", "GET", "/budget/list", Value::Null).await.1.as_array().unwrap().len()
        };
        let before = budgets().await;
        cast.script(&[
            ("lead", "POST", "/team/member_add",
             json!({"team_id": "t1", "member": {"user_id": "loner", "role": "user"}, "max_budget_in_team": 2}), 200,
             json!({"team_id": "t1", "members_with_roles": [{}, {}, {}, {"user_id": "loner", "user_email": "loner@x.org", "role": "user"}],
                    "updated_users": [{"user_id": "loner", "teams": ["t1"]}],
                    "updated_team_memberships": [{"user_id": "loner", "litellm_budget_table": {"max_budget": 2.0}}]})),
            ("lead", "POST", "/team/member_add", json!({"team_id": "t1", "member": {"user_email": "loner@x.org", "role": "user"}}), 400,
             json!({"error": {"type": "team_member_already_in_team", "code": "400"}})),
            ("lead", "POST", "/team/member_add", json!({"team_id": "t1", "member": [{"user_email": "n1@x.org"}, {"user_email": "n2@x.org"}]}), 200,
             json!({"updated_users": [{"user_email": "n1@x.org"}, {"user_email": "n2@x.org"}]})),
            ("lead", "POST", "/team/member_add", json!({"team_id": "t1", "member": []}), 200, json!({"updated_users": []})),
            ("lead", "POST", "/team/member_add", json!({"team_id": "t1"}), 422, Value::Null),
            ("lead", "POST", "/team/member_add", json!({"team_id": "t1", "member": "loner"}), 422, Value::Null),
            ("lead", "POST", "/team/member_add", json!({"team_id": "none", "member": {"user_id": "x"}}), 404, Value::Null),
            ("lead", "POST", "/team/member_update", json!({"team_id": "t1", "user_id": "loner", "max_budget_in_team": 4}), 200,
             json!({"team_id": "t1", "user_id": "loner", "user_email": "loner@x.org", "max_budget_in_team": 4.0})),
            ("lead", "POST", "/team/member_update", json!({"team_id": "t1", "user_email": "member@x.org", "max_budget_in_team": 1, "role": "admin"}), 200,
             json!({"user_id": "member", "max_budget_in_team": 1.0})),
            ("lead", "POST", "/team/member_update", json!({"team_id": "t1", "user_id": "lead", "max_budget_in_team": 1000}), 403, Value::Null),
            ("chief", "POST", "/team/member_update", json!({"team_id": "t1", "user_id": "lead", "max_budget_in_team": 8}), 200, Value::Null),
            ("lead", "POST", "/team/member_update", json!({"team_id": "t1", "user_id": "stranger"}), 400, Value::Null),
            ("lead", "POST", "/team/member_update", json!({"team_id": "t1"}), 422, Value::Null),
            ("lead", "POST", "/team/member_update", json!({"team_id": "t1", "user_id": "loner", "role": "king"}), 422, Value::Null),
            ("member", "POST", "/team/member_update", json!({"team_id": "t1", "user_id": "loner", "role": "user"}), 200, Value::Null),
            ("master", "POST", "/key/generate", json!({"team_id": "t1", "user_id": "loner", "key": "sk-loner-in-t1"}), 200, Value::Null),
            ("lead", "POST", "/team/member_delete", json!({"team_id": "t1", "user_email": "loner@x.org"}), 200,
             json!({"members_with_roles": [{"user_id": "lead"}, {"user_id": "member", "role": "admin"}, {}, {}, {}]})),
            // Its key of the team goes, its own stays.
            ("master", "GET", "/key/info?key=sk-loner-in-t1", Value::Null, 404, Value::Null),
            ("loner", "GET", "/key/info", Value::Null, 200, Value::Null),
            ("lead", "POST", "/team/member_delete", json!({"team_id": "t1", "user_id": "loner"}), 400, Value::Null),
            ("loner", "GET", "/team/info?team_id=t1", Value::Null, 403, Value::Null),
        ])
        .await;
        // The budget that was made for the member is gone with it; two others got one.
        assert_eq!(budgets().await, before + 2);
    });
}

#[test]
fn a_team_has_a_budget_for_its_members() {
    let yaml = "litellm_settings:\n  default_team_params:\n    tpm_limit: 9\n    models: [small]\n";
    on_each(yaml, |ledger| async move {
        let cast = Cast::new(ledger).await;
        let body = json!({"team_id": "t2", "team_member_budget": 5, "team_member_key_duration": "1d",
                          "members_with_roles": [{"user_id": "member"}]});
        cast.script(&[
            ("master", "POST", "/team/new", body, 200, json!({"tpm_limit": 9, "models": ["small"], "metadata": {"team_member_budget_id": "…"}})),
            ("master", "POST", "/team/member_add", json!({"team_id": "t2", "member": {"user_id": "loner"}}), 200,
             json!({"updated_team_memberships": [{"litellm_budget_table": {"max_budget": 5.0}}]})),
            ("master", "POST", "/team/update", json!({"team_id": "t2", "team_member_budget": 6, "metadata": {"x": 1}, "team_member_key_duration": "1d"}), 200,
             json!({"data": {"metadata": {"x": 1, "team_member_budget_id": "…"}}})),
            // One member's own budget leaves that of the others alone.
            ("master", "POST", "/team/member_update", json!({"team_id": "t2", "user_id": "loner", "max_budget_in_team": 1}), 200, Value::Null),
            ("master", "GET", "/team/info?team_id=t2", Value::Null, 200,
             json!({"team_memberships": [{"user_id": "loner", "litellm_budget_table": {"max_budget": 1.0}},
                                         {"user_id": "member", "litellm_budget_table": {"max_budget": 6.0}}]})),
            ("master", "POST", "/key/generate", json!({"team_id": "t2", "user_id": "member"}), 200, json!({"expires": "2026-01-16T12:00:00Z"})),
            ("master", "POST", "/team/new", json!({"team_member_key_duration": "soon"}), 400, Value::Null),
        ])
        .await;
        let body = json!({"team_id": "t2", "team_member_budget": 7});
        assert_eq!(cast.changed("POST", "/team/update", body).await, ["member:t2/member", "team:t2"]);
        let (_, budgets) = cast.call("master", "GET", "/budget/list", Value::Null).await;
        let before = budgets.as_array().unwrap().len();
        cast.ledger.admin("POST", "/team/delete", Some(json!({"team_ids": ["t2"]}))).await;
        let (_, budgets) = cast.call("master", "GET", "/budget/list", Value::Null).await;
        assert_eq!(budgets.as_array().unwrap().len(), before - 2);
    });
}

#[test]
fn everybody_does_what_the_role_allows() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        // By master, admin, viewer, chief (o1), lead (t1), member (t1), loner, watcher, service (t1), nobody.
        let above = [200, 200, 403, 200, 403, 403, 403, 401, 401, 401];
        let runs = [200, 200, 403, 200, 200, 403, 403, 401, 401, 401];
        let sees = [200, 200, 200, 200, 200, 200, 403, 403, 200, 403];
        cast.matrix(&[
            ("POST", "/team/new", json!({}), [200, 200, 403, 401, 401, 401, 401, 401, 401, 401]),
            (
                "POST",
                "/team/new",
                json!({"organization_id": "o1"}),
                [200, 200, 403, 200, 401, 401, 401, 401, 401, 401],
            ),
            ("GET", "/team/info?team_id=t1", Value::Null, sees),
            ("GET", "/team/permissions_list?team_id=t1", Value::Null, sees),
            ("GET", "/team/list", Value::Null, [200, 200, 200, 401, 401, 401, 401, 401, 401, 401]),
            (
                "GET",
                "/team/list?organization_id=o1",
                Value::Null,
                [200, 200, 200, 200, 401, 401, 401, 401, 401, 401],
            ),
            (
                "GET",
                "/team/list?user_id=member",
                Value::Null,
                [200, 200, 200, 401, 401, 200, 401, 401, 401, 401],
            ),
            (
                "GET",
                "/v2/team/list?user_id=member",
                Value::Null,
                [200, 200, 200, 401, 401, 200, 401, 401, 401, 401],
            ),
            ("POST", "/team/update", json!({"team_id": "t1", "team_alias": "x"}), runs),
            ("POST", "/team/update", json!({"team_id": "t1", "max_budget": 9}), above),
            ("POST", "/team/update", json!({"team_id": "t1", "models": []}), above),
            ("POST", "/team/update", json!({"team_id": "t1", "metadata": {}}), above),
            (
                "POST",
                "/team/update",
                json!({"team_id": "t1", "spend": 0}),
                [200, 200, 403, 403, 403, 403, 403, 401, 401, 401],
            ),
            ("POST", "/team/block", json!({"team_id": "t1"}), above),
            ("POST", "/team/unblock", json!({"team_id": "t1"}), above),
            ("POST", "/team/model/add", json!({"team_id": "t1", "models": ["m", "k"]}), above),
            ("POST", "/team/model/delete", json!({"team_id": "t1", "models": ["k"]}), above),
            (
                "POST",
                "/team/permissions_update",
                json!({"team_id": "t1", "team_member_permissions": []}),
                runs,
            ),
            ("POST", "/team/member_add", json!({"team_id": "t1", "member": {"user_id": "new{n}"}}), runs),
            (
                "POST",
                "/team/member_update",
                json!({"team_id": "t1", "user_id": "member", "role": "user"}),
                runs,
            ),
            (
                "POST",
                "/team/member_delete",
                json!({"team_id": "t1", "user_id": "x"}),
                [400, 400, 403, 400, 400, 403, 403, 401, 401, 401],
            ),
            (
                "POST",
                "/team/delete",
                json!({"team_ids": ["t1", "unknown"]}),
                [404, 404, 403, 404, 403, 403, 403, 401, 401, 401],
            ),
        ])
        .await;
        cast.script(&[
            ("master", "POST", "/team/new", json!({"team_id": "a/b"}), 400, Value::Null),
            ("member", "POST", "/team/member_add", json!({"team_id": "t1", "member": {"user_id": "x"}}), 403,
             json!({"error": {"message": "{'error': 'Call not allowed. User not proxy admin OR team admin. route=/team/member_add, team_id=t1'}"}})),
            ("chief", "POST", "/team/update", json!({"team_id": "t1", "organization_id": null}), 403, Value::Null),
            ("chief", "POST", "/team/new", json!({"organization_id": "o1", "team_id": "t3"}), 200,
             json!({"members_with_roles": [{"user_id": "chief", "role": "admin"}]})),
        ])
        .await;
    });
}

#[test]
fn changes_are_told() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let key = format!("key:{}", hash("sk-told-team"));
        let body = json!({"team_id": "t2", "members_with_roles": [{"user_id": "loner"}]});
        assert_eq!(
            cast.changed("POST", "/team/new", body).await,
            ["member:t2/loner", "team:t2", "user:loner"]
        );
        cast.ledger
            .admin(
                "POST",
                "/key/generate",
                Some(json!({"team_id": "t2", "user_id": "loner", "key": "sk-told-team"})),
            )
            .await;
        for (path, body, expected) in [
            ("/team/update", json!({"team_id": "t2", "max_budget": 1}), vec!["team:t2"]),
            ("/team/block", json!({"team_id": "t2"}), vec!["team:t2"]),
            ("/team/model/add", json!({"team_id": "t2", "models": ["m"]}), vec!["team:t2"]),
            (
                "/team/member_add",
                json!({"team_id": "t2", "member": {"user_id": "lead"}}),
                vec!["member:t2/lead", "user:lead"],
            ),
            (
                "/team/member_update",
                json!({"team_id": "t2", "user_id": "lead", "max_budget_in_team": 1}),
                vec!["member:t2/lead"],
            ),
            (
                "/team/member_delete",
                json!({"team_id": "t2", "user_id": "lead"}),
                vec!["member:t2/lead", "user:lead"],
            ),
            (
                "/team/delete",
                json!({"team_ids": ["t2"]}),
                vec![key.as_str(), "member:t2/loner", "team:t2", "user:loner"],
            ),
        ] {
            assert_eq!(cast.changed("POST", path, body).await, expected, "{path}");
        }
    });
}

#[test]
fn members_see_their_own_keys_of_a_team() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        for user in ["lead", "member"] {
            cast.ledger.admin("POST", "/key/generate", Some(json!({"team_id": "t1", "user_id": user}))).await;
        }
        let open = json!({"team_id": "t1", "team_member_permissions": ["/key/info"]});
        cast.script(&[
            (
                "member",
                "GET",
                "/team/info?team_id=t1",
                Value::Null,
                200,
                json!({"keys": [{"user_id": "member"}]}),
            ),
            (
                "member",
                "GET",
                "/team/list?user_id=member",
                Value::Null,
                200,
                json!([{"keys": [{"user_id": "member"}]}]),
            ),
            (
                "service",
                "GET",
                "/team/info?team_id=t1",
                Value::Null,
                200,
                json!({"keys": [{"user_id": null}]}),
            ),
            ("lead", "GET", "/team/info?team_id=t1", Value::Null, 200, json!({"keys": [{}, {}, {}]})),
            ("viewer", "GET", "/team/info?team_id=t1", Value::Null, 200, json!({"keys": [{}, {}, {}]})),
            ("lead", "POST", "/team/permissions_update", open, 200, Value::Null),
            ("member", "GET", "/team/info?team_id=t1", Value::Null, 200, json!({"keys": [{}, {}, {}]})),
        ])
        .await;
    });
}

#[test]
fn members_are_limited_and_start_again_with_their_team() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let body = json!({"team_id": "t2", "max_budget": 9, "budget_duration": "1h", "team_member_budget": 0.3,
                          "team_member_rpm_limit": 2, "team_member_tpm_limit": "40", "members": ["member", "loner"]});
        let of_all = json!({"max_budget": 0.3, "rpm_limit": 2, "tpm_limit": 40, "budget_duration": "1h",
                            "budget_reset_at": "2026-01-15T13:00:00Z"});
        cast.script(&[
            ("master", "POST", "/team/new", body, 200, Value::Null),
            ("master", "GET", "/team/info?team_id=t2", Value::Null, 200, json!({
                "team_info": {"team_member_budget_table": of_all},
                "team_memberships": [{"user_id": "loner", "litellm_budget_table": of_all}, {"user_id": "member"}],
            })),
            // A budget of one member alone is otherwise as those of the others.
            ("master", "POST", "/team/member_update", json!({"team_id": "t2", "user_id": "loner", "max_budget_in_team": 1, "rpm_limit": 7}), 200,
             json!({"max_budget_in_team": 1.0, "rpm_limit": 7, "tpm_limit": 40, "budget_duration": "1h"})),
            ("master", "POST", "/key/generate", json!({"team_id": "t2", "user_id": "loner", "key": "sk-loner-of-t2"}), 200, Value::Null),
        ])
        .await;
        let hash = hash("sk-loner-of-t2");
        let path = format!("/internal/keys/{hash}");
        let (_, grant) = cast.ledger.envoy("GET", &path, None).await;
        assert_eq!(grant["member"]["limits"], json!({"rpm": 7, "tpm": 40}));
        let event = json!({"id": "a", "api_key": hash, "user": "loner", "team": "t2", "spend": 1_200_000_000_000_i64});
        let sync = json!({"node": "n", "batch": {"number": 1, "events": [event]}});
        cast.ledger.envoy("POST", "/internal/sync", Some(sync)).await;
        let (_, grant) = cast.ledger.envoy("GET", &path, None).await;
        assert_eq!(grant["member"]["budget"]["spend"], 1_200_000_000_000_i64);
        cast.ledger.pass(3_600_000);
        crate::control::ledger::resets::run(&cast.ledger.app, cast.ledger.app.now_ms()).await.unwrap();
        let (_, grant) = cast.ledger.envoy("GET", &path, None).await;
        assert_eq!(
            (&grant["member"]["budget"]["spend"], &grant["team"]["budget"]["spend"]),
            (&json!(0), &json!(0))
        );
        // A new period of the team is its members' too, unless they have one of their own.
        cast.script(&[
            ("master", "POST", "/team/member_update", json!({"team_id": "t2", "user_id": "loner", "budget_duration": "1d"}), 200,
             json!({"max_budget_in_team": 1.0, "budget_duration": "1d"})),
            ("master", "POST", "/team/update", json!({"team_id": "t2", "budget_duration": "2h"}), 200, Value::Null),
            ("master", "GET", "/team/info?team_id=t2", Value::Null, 200, json!({
                "team_info": {"team_member_budget_table": {"max_budget": 0.3, "budget_duration": "2h"}},
                "team_memberships": [{"litellm_budget_table": {"budget_duration": "1d"}}, {"litellm_budget_table": {"budget_duration": "2h"}}],
            })),
            ("master", "POST", "/team/update", json!({"team_id": "t2", "team_member_budget_duration": "3h"}), 200, Value::Null),
            ("master", "POST", "/team/update", json!({"team_id": "t2", "budget_duration": "5h"}), 200, Value::Null),
            ("master", "GET", "/team/info?team_id=t2", Value::Null, 200,
             json!({"team_info": {"team_member_budget_table": {"budget_duration": "3h"}}})),
            ("master", "POST", "/team/update", json!({"team_id": "t2", "team_member_budget_duration": "soon"}), 400, Value::Null),
            ("lead", "POST", "/team/member_update", json!({"team_id": "t1", "user_id": "lead", "rpm_limit": 1000}), 403, Value::Null),
            ("master", "POST", "/team/new", json!({"members": [""]}), 422, json!({"detail": [{"type": "string_too_short"}]})),
            ("master", "GET", "/team/info?team_id=t1", Value::Null, 200, json!({"team_info": {"team_member_budget_table": null}})),
        ])
        .await;
    });
}
