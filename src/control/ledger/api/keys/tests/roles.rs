//! Who may do what with keys.

use serde_json::{Value, json};

use crate::control::ledger::{api::cast::Cast, testing::on_each};

#[test]
fn everybody_does_what_the_role_allows() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        for (alias, body) in [
            ("of-lead", json!({"user_id": "lead"})),
            ("of-member-in-t1", json!({"user_id": "member", "team_id": "t1"})),
            ("of-o1", json!({"organization_id": "o1"})),
        ] {
            let mut body = body;
            body["key_alias"] = json!(alias);
            body["key"] = json!(format!("sk-{alias}"));
            assert_eq!(cast.call("master", "POST", "/key/generate", body).await.0, 200);
        }
        // By master, admin, viewer, chief (o1), lead (t1), member (t1), loner, watcher, service (t1), nobody.
        cast.matrix(&[
            ("POST", "/key/generate", json!({}), [200, 200, 403, 200, 200, 200, 200, 401, 401, 401]),
            (
                "POST",
                "/key/generate",
                json!({"user_id": "loner"}),
                [200, 200, 403, 403, 403, 403, 200, 401, 401, 401],
            ),
            (
                "POST",
                "/key/generate",
                json!({"team_id": "t1"}),
                [200, 200, 403, 200, 200, 401, 400, 401, 401, 401],
            ),
            (
                "POST",
                "/key/generate",
                json!({"team_id": "t1", "user_id": "member"}),
                [200, 200, 403, 200, 200, 401, 403, 401, 401, 401],
            ),
            (
                "POST",
                "/key/generate",
                json!({"team_id": "t1", "user_id": "loner"}),
                [200, 200, 403, 400, 400, 403, 400, 401, 401, 401],
            ),
            (
                "POST",
                "/key/generate",
                json!({"team_id": "unknown"}),
                [400, 400, 403, 400, 400, 400, 400, 401, 401, 401],
            ),
            (
                "POST",
                "/key/generate",
                json!({"organization_id": "o1"}),
                [200, 200, 403, 200, 403, 403, 403, 401, 401, 401],
            ),
            (
                "POST",
                "/key/service-account/generate",
                json!({"team_id": "t1"}),
                [200, 200, 403, 200, 200, 401, 400, 401, 401, 401],
            ),
            (
                "POST",
                "/key/service-account/generate",
                json!({}),
                [422, 422, 403, 422, 422, 422, 422, 401, 401, 401],
            ),
            (
                "GET",
                "/key/info?key=sk-of-lead",
                Value::Null,
                [200, 200, 200, 403, 200, 403, 403, 403, 403, 403],
            ),
            (
                "GET",
                "/key/info?key=sk-of-member-in-t1",
                Value::Null,
                [200, 200, 200, 200, 200, 200, 403, 403, 403, 403],
            ),
            (
                "GET",
                "/key/info?key=sk-of-o1",
                Value::Null,
                [200, 200, 200, 200, 403, 403, 403, 403, 403, 403],
            ),
            ("GET", "/key/info", Value::Null, [404, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
            (
                "POST",
                "/v2/key/info",
                json!({"keys": ["sk-of-lead"]}),
                [200, 200, 200, 403, 200, 403, 403, 403, 403, 403],
            ),
            ("GET", "/key/list", Value::Null, [200; 10]),
            (
                "GET",
                "/key/list?user_id=loner",
                Value::Null,
                [200, 200, 200, 403, 403, 403, 200, 403, 200, 200],
            ),
            ("POST", "/key/health", Value::Null, [200; 10]),
            (
                "POST",
                "/key/update",
                json!({"key": "sk-of-lead", "max_budget": 1}),
                [200, 200, 403, 403, 200, 403, 403, 401, 401, 401],
            ),
            (
                "POST",
                "/key/update",
                json!({"key": "sk-of-member-in-t1", "max_budget": 1}),
                [200, 200, 403, 200, 200, 401, 400, 401, 401, 401],
            ),
            (
                "POST",
                "/key/update",
                json!({"key": "sk-of-o1", "max_budget": 1}),
                [200, 200, 403, 200, 403, 403, 403, 401, 401, 401],
            ),
            (
                "POST",
                "/key/block",
                json!({"key": "sk-of-lead"}),
                [200, 200, 403, 403, 200, 403, 403, 401, 401, 401],
            ),
            (
                "POST",
                "/key/unblock",
                json!({"key": "sk-of-lead"}),
                [200, 200, 403, 403, 403, 403, 403, 401, 401, 401],
            ),
            (
                "POST",
                "/key/unblock",
                json!({"key": "sk-of-member-in-t1"}),
                [200, 200, 403, 200, 200, 401, 400, 401, 401, 401],
            ),
            (
                "POST",
                "/key/regenerate",
                json!({"key": "sk-of-member-in-t1", "new_key": "sk-of-member-in-t1"}),
                [200, 200, 403, 200, 200, 401, 400, 401, 401, 401],
            ),
            (
                "POST",
                "/key/delete",
                json!({"keys": ["sk-of-lead", "sk-unknown"]}),
                [404, 404, 403, 403, 404, 403, 403, 401, 401, 401],
            ),
        ])
        .await;
    });
}

#[test]
fn nobody_gets_out_of_its_limits() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let own = cast.key("loner").to_owned();
        let of_member = json!({"key": "sk-of-member", "user_id": "member", "team_id": "t1"});
        assert_eq!(cast.call("master", "POST", "/key/generate", of_member).await.0, 200);
        let in_o1 = json!({"key": "sk-in-o1-of-loner", "user_id": "loner", "organization_id": "o1"});
        assert_eq!(cast.call("master", "POST", "/key/generate", in_o1).await.0, 200);
        cast.script(&[
            ("loner", "POST", "/key/generate", json!({}), 200, json!({"user_id": "loner", "created_by": "loner"})),
            ("loner", "POST", "/key/generate", json!({"user_id": "lead"}), 403,
             json!({"error": {"message": "User can only create keys for themselves. Got user_id=lead, Your ID=loner"}})),
            ("loner", "POST", "/key/generate", json!({"team_id": "t1"}), 400,
             json!({"error": {"message": "User=loner not assigned to team=t1", "type": "internal_server_error"}})),
            ("member", "POST", "/key/generate", json!({"team_id": "t1"}), 401,
             json!({"error": {"type": "team_member_permission_error", "param": "/key/generate"}})),
            // Its spend, its owner, a way around the owner's budget.
            ("loner", "POST", "/key/update", json!({"key": own, "spend": 0.5}), 403, Value::Null),
            ("loner", "POST", "/key/regenerate", json!({"key": own, "spend": 0.5}), 403, Value::Null),
            ("loner", "POST", "/key/update", json!({"key": own, "user_id": null}), 403, Value::Null),
            ("loner", "POST", "/key/update", json!({"key": own, "user_id": ""}), 403, Value::Null),
            ("loner", "POST", "/key/update", json!({"key": own, "user_id": "lead"}), 403, Value::Null),
            ("loner", "POST", "/key/update", json!({"key": own, "team_id": "t1"}), 400, Value::Null),
            ("loner", "POST", "/key/update", json!({"key": own, "team_id": "gone"}), 400, Value::Null),
            ("loner", "POST", "/key/update", json!({"key": own, "organization_id": "o1"}), 403, Value::Null),
            ("loner", "POST", "/key/update", json!({"key": "sk-in-o1-of-loner", "organization_id": null}), 403, Value::Null),
            ("loner", "POST", "/key/update", json!({"key": own, "user_id": "loner", "max_budget": 3}), 200, Value::Null),
            ("member", "POST", "/key/update", json!({"key": "sk-of-member", "team_id": null}), 401, Value::Null),
            ("loner", "POST", "/key/generate", json!({"permissions": {"get_spend_routes": true}}), 403, Value::Null),
            ("loner", "POST", "/key/update", json!({"key": own, "permissions": {"get_spend_routes": true}}), 403, Value::Null),
            ("loner", "POST", "/key/generate", json!({"permissions": {}}), 200, Value::Null),
            // A block holds until somebody above takes it away.
            ("loner", "POST", "/key/generate", json!({"key": "sk-second-of-loner"}), 200, Value::Null),
            ("master", "POST", "/key/block", json!({"key": own}), 200, Value::Null),
            ("loner", "GET", "/key/info", Value::Null, 401,
             json!({"error": {"message": "Authentication Error, Key is blocked. Update via `/key/unblock` if you're admin."}})),
        ])
        .await;
        let (status, _, _) = cast
            .ledger
            .call(
                "POST",
                "/key/update",
                Some("sk-second-of-loner"),
                Some(json!({"key": own, "blocked": false})),
            )
            .await;
        assert_eq!(status, 403);
        let (status, _, _) = cast
            .ledger
            .call("POST", "/key/unblock", Some("sk-second-of-loner"), Some(json!({"key": own})))
            .await;
        assert_eq!(status, 403);
        // A team may let its members make keys for themselves.
        let body = json!({"team_id": "t1", "team_member_permissions": ["/key/generate", "/key/update"]});
        cast.script(&[
            ("lead", "POST", "/team/permissions_update", body, 200, Value::Null),
            (
                "member",
                "POST",
                "/key/generate",
                json!({"team_id": "t1"}),
                200,
                json!({"user_id": "member", "team_id": "t1"}),
            ),
            (
                "member",
                "POST",
                "/key/generate",
                json!({"team_id": "t1", "user_id": "lead"}),
                403,
                Value::Null,
            ),
            (
                "member",
                "POST",
                "/key/update",
                json!({"key": "sk-of-member", "user_id": "lead"}),
                403,
                Value::Null,
            ),
            ("member", "POST", "/key/delete", json!({"keys": ["sk-of-member"]}), 401, Value::Null),
        ])
        .await;
    });
}

#[test]
fn who_may_make_keys_is_a_setting() {
    let yaml = "litellm_settings:\n  key_generation_settings:\n    team_key_generation:\n      allowed_team_member_roles: [admin]\n      \
                required_params: [tags]\n    personal_key_generation:\n      allowed_user_roles: [proxy_admin]\n";
    on_each(yaml, |ledger| async move {
        let cast = Cast::new(ledger).await;
        let open = json!({"team_id": "t1", "team_member_permissions": ["/key/generate"]});
        cast.script(&[
            ("master", "POST", "/team/permissions_update", open, 200, Value::Null),
            ("loner", "POST", "/key/generate", json!({}), 400,
             json!({"error": {"message": "Personal key creation has been restricted by admin. Allowed roles=['proxy_admin']. Your role=internal_user"}})),
            ("admin", "POST", "/key/generate", json!({}), 200, Value::Null),
            ("member", "POST", "/key/generate", json!({"team_id": "t1", "tags": ["a"]}), 400,
             json!({"error": {"message": "Team member role user not in allowed_team_member_roles=['admin']"}})),
            ("lead", "POST", "/key/generate", json!({"team_id": "t1"}), 400,
             json!({"error": {"message": "Required param tags not in data"}})),
            ("lead", "POST", "/key/generate", json!({"team_id": "t1", "tags": ["a"]}), 200, json!({"tags": ["a"]})),
        ])
        .await;
    });
}

#[test]
fn members_see_the_keys_of_their_team_and_its_admins_list_them_by_user() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        for body in [
            json!({"key": "sk-of-lead-in-t1", "user_id": "lead", "team_id": "t1"}),
            json!({"key": "sk-of-member-in-t1", "user_id": "member", "team_id": "t1"}),
            json!({"key": "sk-of-member-alone", "user_id": "member"}),
        ] {
            cast.ledger.admin("POST", "/key/generate", Some(body)).await;
        }
        let own = |keys: &[&str]| {
            let mut hashes: Vec<String> =
                keys.iter().map(|key| crate::control::ledger::caller::hash(key)).collect();
            hashes.sort();
            hashes
        };
        cast.script(&[
            ("member", "GET", "/key/info?key=sk-of-lead-in-t1", Value::Null, 200, Value::Null),
            ("loner", "GET", "/key/info?key=sk-of-lead-in-t1", Value::Null, 403, Value::Null),
            ("member", "GET", "/key/list?user_id=lead", Value::Null, 403, Value::Null),
            ("lead", "GET", "/key/list?user_id=loner", Value::Null, 403, Value::Null),
        ])
        .await;
        let (status, list) = cast.call("lead", "GET", "/key/list?user_id=member", Value::Null).await;
        assert_eq!((status, &list["keys"]), (200, &json!(own(&["sk-of-member-in-t1"]))));
        // A team may keep its keys from its members.
        let body = json!({"team_id": "t1", "team_member_permissions": ["/key/health"]});
        cast.script(&[
            ("lead", "POST", "/team/permissions_update", body, 200, Value::Null),
            ("member", "GET", "/key/info?key=sk-of-lead-in-t1", Value::Null, 403, Value::Null),
        ])
        .await;
    });
}
