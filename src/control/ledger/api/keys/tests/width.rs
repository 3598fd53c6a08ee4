//! Nobody gives what he has not, and an owner does not lift what others set.

use serde_json::{Value, json};

use crate::control::ledger::{
    api::cast::Cast,
    testing::{Ledger, on_each},
};

const MODELS: &str = "model_list:\n  - {model_name: cheap, litellm_params: {model: openai/a, api_key: k}}\n  \
                      - {model_name: dear, litellm_params: {model: openai/b, api_key: k}}\n";

/// A call with a key: status and body.
async fn call(ledger: &Ledger, key: &str, path: &str, body: &Value) -> (u16, Value) {
    let (status, _, answer) = ledger.call("POST", path, Some(key), Some(body.clone())).await;
    (status, answer)
}

/// A key of `loner`'s with every kind of limit, set by an admin.
fn narrow() -> Value {
    json!({
        "key": "sk-narrow-of-loner", "user_id": "loner", "models": ["cheap"], "max_budget": 0.3, "budget_duration": "30d",
        "rpm_limit": 2, "tpm_limit": 100, "max_parallel_requests": 1, "duration": "1h",
        "model_rpm_limit": {"cheap": 1}, "model_tpm_limit": {"cheap": 50},
        "model_max_budget": {"cheap": {"budget_limit": 0.1, "time_period": "1d"}},
        "budget_limits": [{"budget_duration": "1d", "max_budget": 0.2}, {"budget_duration": "7d", "max_budget": 0.25}],
        "enforced_params": ["user"], "tags": ["red"], "aliases": {"nick": "cheap"},
        "allowed_routes": ["/chat/completions", "/key/generate", "/key/update", "/key/regenerate", "/key/delete"],
        "metadata": {"disable_fallbacks": true, "guardrails": ["g"]},
    })
}

#[test]
fn what_others_set_an_owner_may_only_narrow() {
    on_each(MODELS, |ledger| async move {
        let cast = Cast::new(ledger).await;
        cast.ledger.admin("POST", "/key/generate", Some(narrow())).await;
        cast.ledger.admin("POST", "/budget/new", Some(json!({"budget_id": "b1", "max_budget": 100}))).await;
        // With a key that has no limits at all: what counts is who set them.
        let wide = cast.key("loner").to_owned();
        let lifts = [
            json!({"max_budget": null}),
            json!({"max_budget": 1_000_000}),
            json!({"budget_duration": "1s"}),
            json!({"rpm_limit": null}),
            json!({"rpm_limit": 3}),
            json!({"tpm_limit": null}),
            json!({"max_parallel_requests": null}),
            json!({"models": []}),
            json!({"models": ["cheap", "dear"]}),
            json!({"models": ["*"]}),
            json!({"models": ["all-team-models"]}),
            json!({"duration": null}),
            json!({"duration": "-1"}),
            json!({"duration": "2h"}),
            json!({"allowed_routes": []}),
            json!({"allowed_routes": ["/key/list"]}),
            json!({"key_type": "management"}),
            json!({"enforced_params": []}),
            json!({"tags": []}),
            json!({"guardrails": null}),
            json!({"metadata": {}}),
            json!({"metadata": {"tags": ["red"], "enforced_params": ["user"]}}),
            json!({"temp_budget_increase": 1_000_000, "temp_budget_expiry": "1d"}),
            json!({"metadata": {"temp_budget_increase": 9, "temp_budget_expiry": "2030-01-01T00:00:00Z"}}),
            json!({"budget_id": "b1"}),
            json!({"budget_id": "guessed"}),
            json!({"aliases": {"nick": "dear"}}),
            json!({"aliases": {"nick": "cheap", "cheap": "dear"}}),
            json!({"aliases": {}}),
            json!({"model_max_budget": {}}),
            json!({"model_max_budget": {"cheap": {"budget_limit": 0.1, "time_period": "1s"}}}),
            json!({"model_rpm_limit": {"cheap": 9}}),
            json!({"model_tpm_limit": {}}),
            json!({"budget_limits": null}),
            json!({"budget_limits": []}),
            json!({"budget_limits": [{"budget_duration": "1d", "max_budget": 0.2}]}),
            json!({"budget_limits": [{"budget_duration": "1h", "max_budget": 0.2}, {"budget_duration": "7d", "max_budget": 0.25}]}),
            json!({"budget_limits": [{"budget_duration": "1d", "max_budget": 0.21}, {"budget_duration": "7d", "max_budget": 0.25}]}),
        ];
        let before = cast.ledger.admin("GET", "/key/info?key=sk-narrow-of-loner", None).await["info"].clone();
        for path in ["/key/update", "/key/regenerate"] {
            for lift in &lifts {
                let mut body = lift.clone();
                body["key"] = json!("sk-narrow-of-loner");
                let (status, answer) = call(&cast.ledger, &wide, path, &body).await;
                assert!(matches!(status, 400 | 403), "{path} {lift}: {status} {answer}");
            }
        }
        let after = cast.ledger.admin("GET", "/key/info?key=sk-narrow-of-loner", None).await["info"].clone();
        assert_eq!(before, after);
        // Its owner may narrow it, name it, and change what nobody limited; which lifts nothing.
        for narrower in [
            json!({"max_budget": 0.2}),
            json!({"rpm_limit": 1}),
            json!({"budget_duration": "60d"}),
            json!({"duration": "30m"}),
            json!({"tags": ["red", "blue"]}),
            json!({"key_alias": "mine"}),
            json!({"budget_limits": [{"budget_duration": "1d", "max_budget": 0.1}, {"budget_duration": "7d", "max_budget": 0.2},
                                     {"budget_duration": "1h", "max_budget": 9}]}),
            json!({"budget_limits": [{"budget_duration": "30d", "max_budget": 0.05}]}),
            json!({"allowed_routes": ["/v1/chat/completions"]}),
        ] {
            let mut body = narrower.clone();
            body["key"] = json!("sk-narrow-of-loner");
            let (status, answer) = call(&cast.ledger, &wide, "/key/update", &body).await;
            assert_eq!(status, 200, "{narrower}: {answer}");
        }
        let lift = json!({"key": "sk-narrow-of-loner", "max_budget": 1});
        assert_eq!(call(&cast.ledger, &wide, "/key/update", &lift).await.0, 403);
        assert_eq!(cast.call("admin", "POST", "/key/update", lift).await.0, 200);
    });
}

#[test]
fn what_an_admin_set_on_an_owners_own_key_stays_set() {
    on_each(MODELS, |ledger| async move {
        let cast = Cast::new(ledger).await;
        let key = "sk-own-of-loner";
        cast.script(&[
            ("loner", "POST", "/key/generate", json!({"key": key}), 200, Value::Null),
            ("loner", "POST", "/key/update", json!({"key": key, "max_budget": 5}), 200, Value::Null),
            ("loner", "POST", "/key/update", json!({"key": key, "max_budget": null}), 200, Value::Null),
            ("admin", "POST", "/key/update", json!({"key": key, "max_budget": 0.3}), 200, Value::Null),
            ("loner", "POST", "/key/update", json!({"key": key, "max_budget": null}), 403, Value::Null),
            ("loner", "POST", "/key/update", json!({"key": key, "key_alias": "other"}), 200, Value::Null),
            ("loner", "POST", "/key/update", json!({"key": key, "max_budget": null}), 403, Value::Null),
            ("loner", "POST", "/key/block", json!({"key": key}), 200, Value::Null),
            ("loner", "POST", "/key/update", json!({"key": key, "rpm_limit": 9}), 200, Value::Null),
            (
                "loner",
                "POST",
                "/key/update",
                json!({"key": key, "max_budget": 9}),
                403,
                json!({"error": {"type": "auth_error", "code": "403"}}),
            ),
            // Who runs the team of a key may, unless it is his own.
            (
                "master",
                "POST",
                "/key/generate",
                json!({"key": "sk-of-member", "user_id": "member", "team_id": "t1", "rpm_limit": 1}),
                200,
                Value::Null,
            ),
            (
                "master",
                "POST",
                "/key/generate",
                json!({"key": "sk-of-lead", "user_id": "lead", "team_id": "t1", "rpm_limit": 1}),
                200,
                Value::Null,
            ),
            ("lead", "POST", "/key/update", json!({"key": "sk-of-member", "rpm_limit": 9}), 200, Value::Null),
            ("lead", "POST", "/key/update", json!({"key": "sk-of-lead", "rpm_limit": 9}), 403, Value::Null),
        ])
        .await;
    });
}

#[test]
fn a_key_makes_no_wider_key() {
    on_each(MODELS, |ledger| async move {
        let cast = Cast::new(ledger).await;
        let mut body = narrow();
        cast.ledger.admin("POST", "/key/generate", Some(body.clone())).await;
        let maker = "sk-narrow-of-loner";
        // What is not sent is what the maker has.
        let (status, made) = call(&cast.ledger, maker, "/key/generate", &json!({"models": []})).await;
        assert_eq!(status, 200, "{made}");
        for name in [
            "models",
            "max_budget",
            "budget_duration",
            "rpm_limit",
            "tpm_limit",
            "max_parallel_requests",
            "model_max_budget",
            "model_rpm_limit",
            "model_tpm_limit",
            "enforced_params",
            "tags",
            "aliases",
            "allowed_routes",
        ] {
            assert_eq!(made[name], body[name], "{name}");
        }
        assert_eq!(made["metadata"]["guardrails"], json!(["g"]), "{made}");
        for (at, budget) in made["budget_limits"].as_array().unwrap().iter().enumerate() {
            for name in ["budget_duration", "max_budget"] {
                assert_eq!(budget[name], body["budget_limits"][at][name], "{made}");
            }
        }
        assert_eq!(made["metadata"]["disable_fallbacks"], true);
        let info = cast.ledger.admin("GET", &format!("/key/info?key={maker}"), None).await;
        assert!(made["expires"].as_str().unwrap() <= info["info"]["expires"].as_str().unwrap(), "{made}");
        for wider in [
            json!({"models": ["dear"]}),
            json!({"models": ["cheap", "*"]}),
            json!({"max_budget": 0.31}),
            json!({"budget_duration": "1d"}),
            json!({"rpm_limit": 3}),
            json!({"tpm_limit": 101}),
            json!({"max_parallel_requests": 2}),
            json!({"duration": "2h"}),
            json!({"tags": ["blue"]}),
            json!({"enforced_params": ["x"]}),
            json!({"model_rpm_limit": {"cheap": 2}}),
            json!({"model_max_budget": {"cheap": {"budget_limit": 1}}}),
            json!({"budget_limits": [{"budget_duration": "1d", "max_budget": 0.3}]}),
            json!({"budget_limits": [{"budget_duration": "7d", "max_budget": 0.25}]}),
            json!({"aliases": {"nick": "cheap", "x": "dear"}}),
            json!({"allowed_routes": ["/embeddings"]}),
            json!({"allowed_routes": ["/key/*"]}),
            json!({"key_type": "llm_api"}),
            json!({"temp_budget_increase": 1, "temp_budget_expiry": "1d"}),
            json!({"metadata": {"temp_budget_increase": 1, "temp_budget_expiry": "2030-01-01T00:00:00Z"}}),
        ] {
            let (status, answer) = call(&cast.ledger, maker, "/key/generate", &wider).await;
            assert_eq!(status, 403, "{wider}: {answer}");
        }
        // Nor does it widen itself, nor get hold of a wider key of the same user.
        for lift in [json!({"key": maker, "rpm_limit": null}), json!({"key": maker, "models": []})] {
            assert_eq!(call(&cast.ledger, maker, "/key/update", &lift).await.0, 403, "{lift}");
        }
        let wide = cast.key("loner").to_owned();
        assert_eq!(call(&cast.ledger, maker, "/key/regenerate", &json!({"key": wide})).await.0, 403);
        // The same rules for a key of a team: what it makes stays in the team.
        body = json!({"key": "sk-of-lead-in-t1", "user_id": "lead", "team_id": "t1"});
        cast.ledger.admin("POST", "/key/generate", Some(body)).await;
        let (status, made) = call(&cast.ledger, "sk-of-lead-in-t1", "/key/generate", &json!({})).await;
        assert_eq!((status, &made["team_id"]), (200, &json!("t1")), "{made}");
    });
}

#[test]
fn a_key_gets_no_more_than_its_user_has_and_no_route_above_its_role() {
    on_each(MODELS, |ledger| async move {
        let cast = Cast::new(ledger).await;
        let body = json!({"user_id": "poor", "user_role": "internal_user", "max_budget": 1, "rpm_limit": 5});
        let key =
            cast.ledger.admin("POST", "/user/new", Some(body)).await["key"].as_str().unwrap().to_owned();
        for (body, expected) in [
            (json!({}), 200),
            (json!({"max_budget": 1, "rpm_limit": 5}), 200),
            (json!({"max_budget": 1.01}), 403),
            (json!({"rpm_limit": 6}), 403),
            (json!({"allowed_routes": ["/key/generate"]}), 200),
            (json!({"key_type": "management"}), 200),
            (json!({"allowed_routes": ["/user/update"]}), 403),
            (json!({"allowed_routes": ["/user/*"]}), 403),
            (json!({"allowed_routes": ["/*"]}), 403),
            (json!({"allowed_routes": ["/v1/model/info", "llm_api_routes"]}), 200),
        ] {
            let (status, answer) = call(&cast.ledger, &key, "/key/generate", &body).await;
            assert_eq!(status, expected, "{body}: {answer}");
        }
    });
}

#[test]
fn a_service_key_makes_keys_and_nothing_else() {
    on_each(MODELS, |ledger| async move {
        let cast = Cast::new(ledger).await;
        let body = json!({"key": "sk-service-of-nobody", "allowed_routes": ["/key/generate", "/key/delete"],
                          "models": ["cheap"], "max_budget": 2});
        cast.ledger.admin("POST", "/key/generate", Some(body)).await;
        let body = json!({"key": "sk-service-of-t1", "team_id": "t1", "key_type": "management"});
        cast.ledger.admin("POST", "/key/generate", Some(body)).await;
        let body =
            json!({"key": "sk-service-of-ghost", "user_id": "ghost", "allowed_routes": ["/key/generate"]});
        cast.ledger.admin("POST", "/key/generate", Some(body)).await;
        let (of_nobody, of_t1) = ("sk-service-of-nobody", "sk-service-of-t1");
        let (status, made) =
            call(&cast.ledger, of_nobody, "/key/generate", &json!({"key": "sk-made-by-service"})).await;
        assert_eq!(status, 200, "{made}");
        // A key that only manages makes keys that only call models.
        assert_eq!(made["allowed_routes"], json!(["llm_api_routes"]), "{made}");
        assert_eq!(
            (&made["models"], &made["max_budget"], &made["user_id"]),
            (&json!(["cheap"]), &json!(2.0), &Value::Null)
        );
        let (status, made) = call(&cast.ledger, of_t1, "/key/generate", &json!({})).await;
        assert_eq!((status, &made["team_id"]), (200, &json!("t1")), "{made}");
        let (status, made) = call(&cast.ledger, "sk-service-of-ghost", "/key/generate", &json!({})).await;
        assert_eq!((status, &made["user_id"]), (200, &json!("ghost")), "{made}");
        for (key, path, body, status) in [
            (of_nobody, "/key/generate", json!({"models": ["dear"]}), 403),
            (of_nobody, "/key/generate", json!({"max_budget": 3}), 403),
            (of_nobody, "/key/generate", json!({"user_id": "loner"}), 403),
            (of_nobody, "/key/generate", json!({"team_id": "t1"}), 400),
            (of_nobody, "/key/generate", json!({"allowed_routes": ["/user/new"]}), 403),
            (of_nobody, "/key/generate", json!({"key_type": "management"}), 403),
            (of_nobody, "/key/update", json!({"key": of_nobody, "models": []}), 401),
            (of_nobody, "/user/new", json!({}), 401),
            (of_nobody, "/key/delete", json!({"keys": [cast.key("loner")]}), 403),
            (of_nobody, "/key/delete", json!({"keys": ["sk-made-by-service"]}), 200),
            (of_t1, "/key/generate", json!({"user_id": "member"}), 403),
            (of_t1, "/user/update", json!({"user_id": "member", "user_role": "proxy_admin"}), 401),
            // Without such a list a key without a user, or of one who has no record, manages nothing.
            (cast.key("nobody"), "/key/generate", json!({}), 401),
        ] {
            let (got, answer) = call(&cast.ledger, key, path, &body).await;
            assert_eq!(got, status, "{path} {body}: {answer}");
        }
    });
}

#[test]
fn a_key_of_a_user_without_a_record_makes_and_changes_nothing() {
    on_each(MODELS, |ledger| async move {
        let cast = Cast::new(ledger).await;
        let body = json!({"key": "sk-of-ghost", "user_id": "ghost", "models": ["cheap"], "max_budget": 0.01});
        cast.ledger.admin("POST", "/key/generate", Some(body)).await;
        for (path, body) in [
            ("/key/generate", json!({"max_budget": 1000})),
            ("/key/update", json!({"key": "sk-of-ghost", "max_budget": 500, "models": []})),
            ("/key/delete", json!({"keys": ["sk-of-ghost"]})),
            ("/key/regenerate", json!({"key": "sk-of-ghost"})),
        ] {
            let (status, answer) = call(&cast.ledger, "sk-of-ghost", path, &body).await;
            let message = format!(
                "Authentication Error, Only proxy admin can be used to generate, delete, update info for new \
                 keys/users/teams. Route={path}. Your role=unknown. Your user_id=unknown"
            );
            assert_eq!((status, &answer["error"]["message"]), (401, &json!(message)));
        }
        let (status, _, _) = cast.ledger.call("GET", "/key/info", Some("sk-of-ghost"), None).await;
        assert_eq!(status, 200);
    });
}

#[test]
fn a_restricted_key_of_an_admin_gives_nobody_more_than_its_routes() {
    on_each(MODELS, |ledger| async move {
        let cast = Cast::new(ledger).await;
        let body =
            json!({"key": "sk-of-admin-calls", "user_id": "admin", "allowed_routes": ["/chat/completions"]});
        cast.ledger.admin("POST", "/key/generate", Some(body)).await;
        let routes = json!(["/key/generate", "/user/new", "/key/update", "/key/regenerate"]);
        let body = json!({"key": "sk-of-admin-makes", "user_id": "admin", "allowed_routes": routes});
        cast.ledger.admin("POST", "/key/generate", Some(body)).await;
        let (calls, makes) = ("sk-of-admin-calls", "sk-of-admin-makes");
        let (status, answer) =
            call(&cast.ledger, calls, "/user/new", &json!({"user_id": "evil", "user_role": "proxy_admin"}))
                .await;
        assert_eq!(status, 401);
        assert_eq!(
            answer["error"]["message"],
            "Virtual key is not allowed to call this route. Only allowed to call routes: ['/chat/completions']. \
             Tried to call route: /user/new"
        );
        let (status, made) = call(&cast.ledger, makes, "/key/generate", &json!({"user_id": "admin"})).await;
        assert_eq!((status, &made["allowed_routes"]), (200, &json!(["llm_api_routes"])), "{made}");
        let (status, made) =
            call(&cast.ledger, makes, "/user/new", &json!({"user_role": "proxy_admin"})).await;
        assert_eq!((status, &made["allowed_routes"]), (200, &json!(["llm_api_routes"])), "{made}");
        for (path, body) in [
            ("/key/generate", json!({"allowed_routes": ["/user/update"]})),
            ("/key/generate", json!({"key_type": "management"})),
            ("/user/new", json!({"allowed_routes": ["/*"]})),
            ("/key/update", json!({"key": makes, "allowed_routes": []})),
            ("/key/regenerate", json!({"key": cast.key("admin")})),
        ] {
            let (status, answer) = call(&cast.ledger, makes, path, &body).await;
            assert_eq!(status, 403, "{path} {body}: {answer}");
        }
    });
}

#[test]
fn a_key_may_spend_no_more_in_a_period_than_its_user() {
    on_each(MODELS, |ledger| async move {
        let cast = Cast::new(ledger).await;
        let day_and_month = |day: f64, month: f64| json!([{"budget_duration": "1d", "max_budget": day}, {"budget_duration": "30d", "max_budget": month}]);
        let user = json!({"user_id": "loner", "budget_limits": day_and_month(1.0, 10.0)});
        cast.ledger.admin("POST", "/user/update", Some(user)).await;
        let own = cast.key("loner").to_owned();
        let one = |period: &str, amount: f64| json!({"budget_limits": [{"budget_duration": period, "max_budget": amount}]});
        let rows = [
            (one("1d", 1.0), None),
            (one("1d", 1.5), Some("budget_limits")),
            (one("1h", 2.0), Some("budget_limits")),
            (one("30d", 10.0), None),
            (one("30d", 10.5), Some("budget_limits")),
            (json!({"budget_limits": day_and_month(1.0, 11.0)}), Some("budget_limits")),
            (json!({"max_budget": 1.5, "budget_duration": "1d"}), Some("max_budget")),
            (json!({"max_budget": 9, "budget_duration": "30d"}), None),
            (json!({"max_budget": 9}), None),
        ];
        for (mut body, refused) in rows {
            let (status, answer) = call(&cast.ledger, &own, "/key/generate", &body).await;
            assert_eq!(status, if refused.is_some() { 403 } else { 200 }, "{body}: {answer}");
            if let Some(name) = refused {
                let message = answer["error"]["message"].as_str().unwrap();
                assert!(message.starts_with(&format!("`{name}`: ")), "{body}: {message}");
            }
            // A change of a key that had no limits comes to the same.
            let (_, made) = call(&cast.ledger, &own, "/key/generate", &json!({})).await;
            body["key"] = made["key"].clone();
            let (status, answer) = call(&cast.ledger, &own, "/key/update", &body).await;
            assert_eq!(status, if refused.is_some() { 403 } else { 200 }, "{body}: {answer}");
        }
    });
}
