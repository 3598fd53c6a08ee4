//! Keys: calls and their answers, who may do what, defaults and bounds, pages.

mod roles;
mod width;

use serde_json::{Value, json};

use crate::control::ledger::{
    api::cast::{Cast, names},
    caller::hash,
    rows,
    schema::KEYS,
    testing::{START_MS, on_each},
};

#[test]
fn a_key_is_made_shown_changed_and_removed() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let body = json!({"models": ["m"], "max_budget": 10.0, "user_id": "u1", "budget_duration": "30d",
                          "duration": "20m", "model_rpm_limit": {"m": 3}, "key_alias": "one", "soft_budget": 0.1});
        let (status, made) = cast.call("master", "POST", "/key/generate", body).await;
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
                "config",
                "permissions",
                "model_max_budget",
                "budget_limits",
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
                "soft_budget",
                "key_name",
                "expires",
                "token_id",
                "token",
                "litellm_budget_table",
                "created_by",
                "updated_by",
                "created_at",
                "updated_at",
            ]
        );
        let key = made["key"].as_str().unwrap().to_owned();
        assert!(key.starts_with("sk-") && key.len() == 25, "{key}");
        assert_eq!(made["token"], json!(hash(&key)));
        assert_eq!(made["key_name"], json!(format!("sk-...{}", &key[21..])));
        assert_eq!(made["expires"], "2026-01-15T12:20:00Z");
        assert_eq!(made["metadata"], json!({"model_rpm_limit": {"m": 3}}));
        assert_eq!((&made["spend"], &made["max_budget"]), (&json!(0.0), &json!(10.0)));

        let (_, shown) = cast.call("master", "GET", &format!("/key/info?key={key}"), Value::Null).await;
        assert_eq!(shown["key"], json!(key));
        assert_eq!(
            names(&shown["info"]),
            [
                "key_name",
                "key_alias",
                "soft_budget_cooldown",
                "spend",
                "expires",
                "models",
                "aliases",
                "config",
                "user_id",
                "team_id",
                "permissions",
                "max_parallel_requests",
                "metadata",
                "blocked",
                "tpm_limit",
                "rpm_limit",
                "max_budget",
                "soft_budget",
                "budget_duration",
                "budget_reset_at",
                "allowed_cache_controls",
                "allowed_routes",
                "model_spend",
                "model_max_budget",
                "budget_id",
                "organization_id",
                "object_permission_id",
                "created_at",
                "created_by",
                "updated_at",
                "updated_by",
                "budget_limits",
                "litellm_budget_table",
            ]
        );
        assert_eq!(shown["info"]["budget_reset_at"], "2026-02-01T00:00:00Z");
        assert_eq!(shown["info"]["soft_budget"], json!(0.1));

        let by_hash = hash(&key);
        let long = "x".repeat(600);
        cast.script(&[
            // By its hash, by its value; only what is sent changes.
            ("master", "POST", "/key/update", json!({"key": by_hash, "max_budget": 20, "tags": ["a"]}), 200,
             json!({"key": by_hash, "max_budget": 20.0, "tags": ["a"],
                    "metadata": {"model_rpm_limit": {"m": 3}, "tags": ["a"]}})),
            ("master", "POST", "/key/update", json!({"key": key, "duration": null, "budget_duration": "7d"}), 200,
             json!({"expires": null, "budget_reset_at": "2026-01-19T00:00:00Z"})),
            ("master", "POST", "/key/update", json!({"key": key, "duration": "1mo"}), 200,
             json!({"expires": "2026-02-15T12:00:00Z"})),
            ("master", "POST", "/key/update", json!({"key": key, "duration": "-1", "spend": 1.5}), 200,
             json!({"expires": null, "spend": 1.5})),
            ("master", "GET", &format!("/key/info?key={by_hash}"), Value::Null, 200,
             json!({"key": by_hash, "info": {"max_budget": 20.0, "models": ["m"], "spend": 1.5, "key_alias": "one"}})),
            ("master", "POST", "/key/update", json!({"key": key, "max_budget": null, "model_rpm_limit": null}), 200,
             json!({"max_budget": null, "metadata": {"tags": ["a"]}})),
            ("master", "POST", "/key/update", json!({"key": key, "key_type": "read_only"}), 200,
             json!({"allowed_routes": ["info_routes"]})),
            // Names are unique.
            ("master", "POST", "/key/generate", json!({"key_alias": "one"}), 400,
             json!({"error": {"message": "Key with alias 'one' already exists. Unique key aliases across all keys are required.",
                              "type": "bad_request_error", "param": "key_alias", "code": "400"}})),
            ("master", "POST", "/key/update", json!({"key": key, "key_alias": "one"}), 200, json!({"key_alias": "one"})),
            ("master", "POST", "/key/generate", json!({"key_alias": ""}), 200, json!({"key_alias": null})),
            ("master", "POST", "/key/generate", json!({"key_alias": ""}), 200, json!({"key_alias": null})),
            // Own values.
            ("master", "POST", "/key/generate", json!({"key": "sk-mine-12345"}), 200,
             json!({"key": "sk-mine-12345", "key_name": "sk-...2345"})),
            ("master", "POST", "/key/generate", json!({"key": "sk-mine-12345"}), 400,
             json!({"error": {"param": "key", "type": "bad_request_error"}})),
            ("master", "POST", "/key/generate", json!({"key": "mine-12345"}), 400, json!({"error": {"param": "key"}})),
            ("master", "POST", "/key/generate", json!({"key": "sk-with space"}), 400, json!({"error": {"param": "key"}})),
            // What does not fit.
            ("master", "POST", "/key/generate", json!({"duration": "soon"}), 400, json!({"error": {"code": "400"}})),
            ("master", "POST", "/key/generate", json!({"budget_duration": "2mo"}), 400, json!({"error": {"code": "400"}})),
            ("master", "POST", "/key/generate", json!({"max_budget": "10", "rpm_limit": "10", "blocked": "yes"}), 200,
             json!({"max_budget": 10.0, "rpm_limit": 10, "blocked": true})),
            ("master", "GET", "/key/list?expires=soon", Value::Null, 422, Value::Null),
            ("master", "POST", "/key/generate", json!({"team_id": "typo"}), 400,
             json!({"error": {"message": "{'error': 'Unable to find team object in database. Team ID: typo'}"}})),
            ("master", "POST", "/key/generate", json!({"key_type": "x"}), 422, json!({"detail": [{"type": "enum"}]})),
            ("master", "POST", "/key/generate", json!({"tpm_limit": "ten"}), 422, json!({"detail": [{"type": "int_parsing"}]})),
            ("master", "POST", "/key/generate", json!({"key_alias": long}), 400, json!({"error": {"code": "400"}})),
            ("master", "POST", "/key/generate", json!({"budget_id": "none"}), 404, json!({"error": {"param": "budget_id"}})),
            ("master", "POST", "/key/generate", json!({"organization_id": "none"}), 400, json!({"error": {"code": "400"}})),
            ("master", "POST", "/key/update", json!({"max_budget": 1}), 422,
             json!({"detail": [{"type": "missing", "loc": ["body", "key"], "msg": "Field required", "input": {"max_budget": 1}}]})),
            ("master", "POST", "/key/update", json!({"key": "sk-unknown"}), 404,
             json!({"error": {"message": "Key not found in database", "type": "not_found_error", "param": "key", "code": "404"}})),
            ("master", "GET", "/key/info?key=sk-unknown", Value::Null, 404, json!({"error": {"type": "not_found_error"}})),
            ("master", "GET", "/key/info", Value::Null, 404, json!({"error": {"type": "not_found_error"}})),
            ("nobody", "GET", "/key/info", Value::Null, 200, json!({"info": {"user_id": null}})),
            ("master", "GET", "/key/info?key=%00", Value::Null, 400, json!({"error": {"code": "400"}})),
            ("master", "POST", "/v2/key/info", json!({"keys": [key, "sk-unknown"]}), 200,
             json!({"key": [key, "sk-unknown"], "info": [{"key_alias": "one"}]})),
            ("master", "POST", "/v2/key/info", json!({}), 422, json!({"detail": [{"type": "missing"}]})),
            // Blocked and back: the row with its hash.
            ("master", "POST", "/key/block", json!({"key": key}), 200, json!({"token": by_hash, "blocked": true})),
            ("master", "POST", "/key/unblock", json!({"key": by_hash}), 200, json!({"token": by_hash, "blocked": false})),
            ("nobody", "POST", "/key/health", Value::Null, 200, json!({"key": "healthy", "logging_callbacks": null})),
            // Removed: all or none.
            ("master", "POST", "/key/delete", json!({}), 422, json!({"detail": [{"loc": ["body"]}]})),
            ("master", "POST", "/key/delete", json!({"keys": [key, "sk-unknown"]}), 404, json!({"error": {"param": "keys"}})),
            ("master", "POST", "/key/delete", json!({"key_aliases": ["one"]}), 200, json!({"deleted_keys": ["one"]})),
            ("master", "POST", "/key/delete", json!({"keys": ["sk-mine-12345"]}), 200, json!({"deleted_keys": ["sk-mine-12345"]})),
            ("master", "GET", &format!("/key/info?key={key}"), Value::Null, 404, Value::Null),
        ])
        .await;
    });
}

#[test]
fn a_budget_is_raised_for_a_while() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        cast.script(&[
            ("master", "POST", "/key/generate", json!({"key": "sk-raised-key", "max_budget": 1}), 200, Value::Null),
            ("master", "POST", "/key/update",
             json!({"key": "sk-raised-key", "temp_budget_increase": 5, "temp_budget_expiry": "10d"}), 200,
             json!({"metadata": {"temp_budget_increase": 5, "temp_budget_expiry": "2026-01-25T12:00:00Z"}})),
            ("master", "POST", "/key/update", json!({"key": "sk-raised-key", "temp_budget_expiry": "2026-02-01"}), 200,
             json!({"temp_budget_expiry": "2026-02-01T00:00:00Z"})),
            ("master", "POST", "/key/update", json!({"key": "sk-raised-key", "temp_budget_expiry": "soon"}), 422,
             json!({"detail": [{"type": "datetime_parsing"}]})),
        ])
        .await;
    });
}

#[test]
fn a_new_value_keeps_the_row() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let body = json!({"key": "sk-old-value", "max_budget": 5, "key_alias": "a",
                          "model_max_budget": {"m": {"budget_limit": 1, "time_period": "1d"}}});
        cast.call("master", "POST", "/key/generate", body).await;
        let (old, new) = (hash("sk-old-value"), hash("sk-new-value"));
        let mut tx = cast.ledger.app.db.write().await.unwrap();
        let window = "INSERT INTO tollgate_windows (meter, spend) VALUES ($1, 7)";
        rows::run(tx.connection(), window, vec![format!("key_model:{old}/m").into()]).await.unwrap();
        tx.commit().await.unwrap();
        let path = format!("/key/{old}/regenerate");
        cast.script(&[
            ("master", "POST", "/key/regenerate", json!({}), 422, json!({"detail": [{"type": "missing"}]})),
            ("master", "POST", "/key/regenerate", json!({"key": "sk-old-value", "new_master_key": "sk-x"}), 400, Value::Null),
            ("master", "POST", &path, json!({"new_key": "not-a-key"}), 400, json!({"error": {"param": "key"}})),
            ("master", "POST", &path, json!({"new_key": "sk-new-value", "max_budget": 6}), 200,
             json!({"key": "sk-new-value", "token": new, "key_name": "sk-...alue", "max_budget": 6.0, "key_alias": "a"})),
            ("master", "GET", "/key/info?key=sk-old-value", Value::Null, 404, Value::Null),
            ("master", "GET", "/key/info?key=sk-new-value", Value::Null, 200, json!({"info": {"key_alias": "a"}})),
        ])
        .await;
        // What its models have cost goes on counting.
        let (_, grant) = cast.ledger.envoy("GET", &format!("/internal/keys/{new}"), None).await;
        assert_eq!(
            (&grant["key"]["former"]["counted"], &grant["key"]["model_budgets"]["m"]["spend"]),
            (&json!(old), &json!(7))
        );
        let (_, again) = cast.call("master", "POST", "/key/sk-new-value/regenerate", Value::Null).await;
        assert!(again["key"].as_str().unwrap().len() == 25, "{again}");
        assert_eq!(cast.call("master", "POST", "/key/generate", json!({"key": "sk-taken-one"})).await.0, 200);
        let body = json!({"key": again["key"], "new_key": "sk-taken-one"});
        assert_eq!(cast.call("master", "POST", "/key/regenerate", body).await.0, 400);
    });
}

#[test]
fn defaults_and_upper_bounds() {
    let yaml = "litellm_settings:\n  default_key_generate_params:\n    max_budget: 5\n    models: [small]\n    metadata: {from: config}\n    \
                duration: 7d\n  upperbound_key_generate_params:\n    max_budget: 100\n    budget_duration: 10d\n    \
                duration: 30d\n    tpm_limit: 1000\n    rpm_limit: 10\n";
    on_each(yaml, |ledger| async move {
        let cast = Cast::new(ledger).await;
        cast.script(&[
            ("master", "POST", "/key/generate", json!({"key": "sk-bounded"}), 200,
             json!({"max_budget": 5.0, "models": ["small"], "metadata": {"from": "config"}, "duration": "7d",
                    "budget_duration": "10d", "tpm_limit": 1000, "rpm_limit": 10, "expires": "2026-01-22T12:00:00Z"})),
            ("loner", "POST", "/key/generate", json!({"max_budget": 7, "models": ["big"], "rpm_limit": 3}), 200,
             json!({"max_budget": 7.0, "models": ["big"], "rpm_limit": 3})),
            ("master", "POST", "/key/generate", json!({"max_budget": 200}), 400,
             json!({"error": {"message": "{'error': 'max_budget is over max limit set in config - user_value=200.0; max_value=100.0'}",
                              "type": "internal_server_error", "param": "None", "code": "400"}})),
            ("master", "POST", "/key/generate", json!({"tpm_limit": 2000}), 400,
             json!({"error": {"message": "{'error': 'tpm_limit is over max limit set in config - user_value=2000; max_value=1000'}"}})),
            ("master", "POST", "/key/generate", json!({"duration": "31d"}), 400,
             json!({"error": {"message": "{'error': 'duration is over max limit set in config - user_value=31d; max_value=30d'}"}})),
            ("master", "POST", "/key/generate", json!({"duration": "-1"}), 400, Value::Null),
            ("master", "POST", "/key/generate", json!({"duration": "24h"}), 200, Value::Null),
            // Bounds hold for changes too; nothing is not a way around them.
            ("master", "POST", "/key/update", json!({"key": "sk-bounded", "max_budget": 101}), 400, Value::Null),
            ("master", "POST", "/key/update", json!({"key": "sk-bounded", "max_budget": null}), 200, json!({"max_budget": 100.0})),
            ("master", "POST", "/key/update", json!({"key": "sk-bounded", "duration": ""}), 400, Value::Null),
            ("master", "POST", "/key/update", json!({"key": "sk-bounded", "models": []}), 200, json!({"models": []})),
            ("master", "POST", "/key/regenerate", json!({"key": "sk-bounded", "rpm_limit": 11}), 400, Value::Null),
        ])
        .await;
    });
}

#[test]
fn pages_never_overlap_and_miss_nothing() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let mut tx = cast.ledger.app.db.write().await.unwrap();
        for at in 0..1_000_i64 {
            // Many have the same time: only the hash tells them apart.
            let row = json!({"token": hash(&at.to_string()), "user_id": if at % 4 == 0 { "loner" } else { "x" },
                             "created_at": START_MS + at / 100, "key_alias": format!("k{at}")});
            rows::insert(tx.connection(), &KEYS, row.as_object().unwrap()).await.unwrap();
        }
        tx.commit().await.unwrap();
        for (query, total) in [("", 1_009), ("&sort_by=spend&sort_order=asc", 1_009), ("&user_id=x", 750)] {
            let mut seen = Vec::new();
            let mut page = 1;
            loop {
                let path = format!("/key/list?size=100&page={page}{query}");
                let (_, answer) = cast.call("master", "GET", &path, Value::Null).await;
                assert_eq!(answer["total_count"], json!(total), "{answer}");
                assert_eq!(answer["current_page"], json!(page));
                seen.extend(answer["keys"].as_array().unwrap().clone());
                if answer["total_pages"] == json!(page) {
                    break;
                }
                page += 1;
            }
            let count = seen.len();
            seen.sort_by_key(Value::to_string);
            seen.dedup();
            assert_eq!((count, seen.len()), (total, total), "{query}");
        }
        let first = hash("999");
        cast.script(&[
            (
                "master",
                "GET",
                "/key/list",
                Value::Null,
                200,
                json!({"total_count": 1_009, "current_page": 1, "total_pages": 101}),
            ),
            ("loner", "GET", "/key/list", Value::Null, 200, json!({"total_count": 251, "total_pages": 26})),
            (
                "loner",
                "GET",
                "/key/list?key_alias=k1",
                Value::Null,
                200,
                json!({"keys": [], "total_count": 0, "total_pages": 0}),
            ),
            ("nobody", "GET", "/key/list", Value::Null, 200, json!({"total_count": 1})),
            (
                "master",
                "GET",
                "/key/list?key_alias=k999&return_full_object=true",
                Value::Null,
                200,
                json!({"keys": [{"token": first, "key_alias": "k999", "litellm_budget_table": null}]}),
            ),
            (
                "master",
                "GET",
                &format!("/key/list?key_hash={first}"),
                Value::Null,
                200,
                json!({"keys": [first]}),
            ),
            ("lead", "GET", "/key/list", Value::Null, 200, json!({"total_count": 1})),
            ("lead", "GET", "/key/list?include_team_keys=true", Value::Null, 200, json!({"total_count": 2})),
            ("lead", "GET", "/key/list?team_id=t1", Value::Null, 200, json!({"total_count": 1})),
            (
                "master",
                "GET",
                "/key/list?size=101",
                Value::Null,
                422,
                json!({"detail": [{"type": "less_than_equal"}]}),
            ),
            (
                "master",
                "GET",
                "/key/list?page=0",
                Value::Null,
                422,
                json!({"detail": [{"type": "greater_than_equal"}]}),
            ),
            ("master", "GET", "/key/list?sort_by=token;--", Value::Null, 400, Value::Null),
            ("master", "GET", "/key/list?page=99999", Value::Null, 200, json!({"keys": []})),
        ])
        .await;
    });
}

#[test]
fn changes_are_told() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let (old, new) = (hash("sk-told-key"), hash("sk-told-new"));
        for (path, body, expected) in [
            ("/key/generate", json!({"key": "sk-told-key", "key_alias": "told"}), vec![format!("key:{old}")]),
            ("/key/update", json!({"key": old, "rpm_limit": 1}), vec![format!("key:{old}")]),
            ("/key/block", json!({"key": old}), vec![format!("key:{old}")]),
            ("/key/unblock", json!({"key": old}), vec![format!("key:{old}")]),
            ("/key/regenerate", json!({"key": old, "new_key": "sk-told-new"}), {
                let mut both = vec![format!("key:{old}"), format!("key:{new}")];
                both.sort();
                both
            }),
            ("/key/delete", json!({"key_aliases": ["told"]}), vec![format!("key:{new}")]),
        ] {
            assert_eq!(cast.changed("POST", path, body).await, expected, "{path}");
        }
    });
}

#[test]
fn printed_calls_work() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        cast.script(&[
            ("master", "POST", "/key/generate", json!({"models": ["gpt-3.5-turbo", "gpt-4", "claude-2"], "duration": "20m"}), 200,
             json!({"key": "sk-…", "expires": "2026-01-15T12:20:00Z"})),
            ("master", "POST", "/key/generate",
             json!({"models": ["my-free-tier"], "aliases": {"gpt-3.5-turbo": "my-free-tier"}, "duration": "30min"}), 200,
             json!({"expires": "2026-01-15T12:30:00Z", "aliases": {"gpt-3.5-turbo": "my-free-tier"}})),
            ("loner", "POST", "/key/generate", json!({"user_id": "loner"}), 200,
             json!({"user_id": "loner", "max_budget": null, "key_name": "sk-...…", "token_id": "…"})),
        ])
        .await;
    });
}

/// What the ledger says of a key to a filter: status, spend of the key, spend of its model `m`.
async fn told(cast: &Cast, hash: &str) -> (u16, Value, Value) {
    let (status, grant) = cast.ledger.envoy("GET", &format!("/internal/keys/{hash}"), None).await;
    let key = &grant["key"];
    (status, key["budget"]["spend"].clone(), key["model_budgets"]["m"]["spend"].clone())
}

#[test]
fn usage_under_way_when_a_key_gets_a_new_value_is_the_keys() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let body = json!({"key": "sk-value-0", "max_budget": 4, "user_id": "loner",
                          "model_max_budget": {"m": {"budget_limit": 1, "time_period": "1d"}}});
        cast.ledger.admin("POST", "/key/generate", Some(body)).await;
        let hashes: Vec<String> = (0..4).map(|at| hash(&format!("sk-value-{at}"))).collect();
        let first = &hashes[0];
        for at in 1..3 {
            let body = json!({"new_key": format!("sk-value-{at}")});
            let path = format!("/key/sk-value-{}/regenerate", at - 1);
            let told = cast.changed("POST", &path, body).await;
            assert!(
                told.contains(&format!("key:{}", hashes[at]))
                    && told.contains(&format!("key:{}", hashes[at - 1]))
            );
        }
        // Calls that began with each of the values, in one batch: all count for the key, by the name that its meters have.
        let event = |at: usize| {
            json!({"id": format!("e{at}"), "api_key": hashes[at], "user": "loner", "spend": 5,
                   "metered": [format!("key:{first}"), format!("key_model:{first}/m")]})
        };
        let batch = json!({"number": 1, "events": [event(0), event(1), event(2)]});
        let cursor = cast.ledger.app.db.snapshot().await.unwrap().1;
        let sync = json!({"node": "n", "cursor": cursor, "batch": batch});
        let (_, reply) = cast.ledger.envoy("POST", "/internal/sync", Some(sync)).await;
        assert_eq!(told(&cast, &hashes[2]).await, (200, json!(15), json!(15)));
        let totals: Vec<_> = reply["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|change| (&change["meter"], &change["spend"]))
            .collect();
        assert!(totals.contains(&(&json!(format!("key:{first}")), &json!(15))), "{reply}");
        assert!(totals.contains(&(&json!(format!("key_model:{first}/m")), &json!(15))), "{reply}");
        assert_eq!(told(&cast, first).await.0, 404);
        // The period of the model's budget is still the key's, and its end is told.
        cast.ledger.pass(86_400_000);
        crate::control::ledger::resets::run(&cast.ledger.app, cast.ledger.app.now_ms()).await.unwrap();
        assert_eq!(told(&cast, &hashes[2]).await, (200, json!(15), json!(0)));
        cast.script(&[
            // A value that was given up is nobody's any more, but the key may have it back.
            (
                "master",
                "POST",
                "/key/generate",
                json!({"key": "sk-value-0"}),
                400,
                json!({"error": {"param": "key"}}),
            ),
            ("master", "POST", "/key/generate", json!({"key": "sk-value-1"}), 400, Value::Null),
            ("master", "POST", "/key/generate", json!({"key": "sk-another-key"}), 200, Value::Null),
            (
                "master",
                "POST",
                "/key/sk-another-key/regenerate",
                json!({"new_key": "sk-value-1"}),
                400,
                Value::Null,
            ),
            (
                "master",
                "POST",
                "/key/sk-value-2/regenerate",
                json!({"new_key": "sk-value-0"}),
                200,
                Value::Null,
            ),
            (
                "master",
                "POST",
                "/key/sk-value-0/regenerate",
                json!({"new_key": "sk-value-0"}),
                200,
                Value::Null,
            ),
        ])
        .await;
        assert_eq!(told(&cast, first).await, (200, json!(15), json!(0)));
        cast.ledger.admin("POST", "/key/delete", Some(json!({"keys": ["sk-value-0"]}))).await;
        assert_eq!(told(&cast, first).await.0, 404);
        cast.ledger.admin("POST", "/key/generate", Some(json!({"key": "sk-value-1"}))).await;
    });
}

#[test]
fn an_old_value_is_good_for_its_grace_period() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let (old, new) = (hash("sk-grace-0"), hash("sk-grace-1"));
        let body = json!({"key": "sk-grace-0", "user_id": "loner", "max_budget": 4});
        cast.ledger.admin("POST", "/key/generate", Some(body)).await;
        cast.script(&[
            (
                "master",
                "POST",
                "/key/sk-grace-0/regenerate",
                json!({"grace_period": "soon"}),
                400,
                Value::Null,
            ),
            (
                "master",
                "POST",
                "/key/sk-grace-0/regenerate",
                json!({"grace_period": "1h", "new_key": "sk-grace-1"}),
                200,
                json!({"key": "sk-grace-1"}),
            ),
        ])
        .await;
        let grant =
            async |hash: &str| cast.ledger.envoy("GET", &format!("/internal/keys/{hash}"), None).await;
        let (status, by_old) = grant(&old).await;
        assert_eq!(
            (status, &by_old["key"]["id"], &by_old["key"]["former"]["current"]),
            (200, &json!(old), &json!(new))
        );
        assert_eq!(by_old["expires_ms"], START_MS + 3_600_000);
        assert_eq!(by_old["key"]["former"].get("counted"), None, "it counts by its own hash");
        assert_eq!(grant(&new).await.1["key"]["former"]["counted"], json!(old));
        let info = async || cast.ledger.call("GET", "/key/info", Some("sk-grace-0"), None).await;
        assert_eq!(info().await.2["info"]["key_name"], "sk-...ce-1");
        // A ledger that starts meanwhile knows it too.
        let known = crate::control::ledger::grants::Known::default();
        known.refresh(&cast.ledger.app.db).await.unwrap();
        assert!(known.has(&old));
        cast.ledger.pass(3_600_001);
        assert_eq!((grant(&old).await.0, grant(&new).await.0, info().await.0), (404, 200, 401));
        cast.ledger.pass(8 * 86_400_000);
        crate::control::ledger::resets::clean(&cast.ledger.app, cast.ledger.app.now_ms()).await.unwrap();
        let mut connection = cast.ledger.app.db.read().await.unwrap();
        let left =
            rows::rows(&mut connection, "SELECT token FROM tollgate_former_keys", Vec::new()).await.unwrap();
        assert!(left.is_empty());
    });
}

#[test]
fn a_list_of_expired_keys_has_no_others() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        for (key, duration) in [("sk-short-lived", "1s"), ("sk-long-lived", "1h")] {
            cast.ledger.admin("POST", "/key/generate", Some(json!({"key": key, "duration": duration}))).await;
        }
        cast.ledger.pass(2_000);
        let (_, expired) = cast.call("master", "GET", "/key/list?expires=expired", Value::Null).await;
        assert_eq!(expired["keys"], json!([hash("sk-short-lived")]));
        let (_, all) = cast.call("master", "GET", "/key/list", Value::Null).await;
        let (_, active) = cast.call("master", "GET", "/key/list?expires=active", Value::Null).await;
        assert_eq!(active["total_count"].as_i64().unwrap() + 1, all["total_count"].as_i64().unwrap());
    });
}

#[test]
fn what_a_key_has_spent_is_set_back_by_who_stands_above_it() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let body = json!({"key": "sk-of-lead-spent", "user_id": "member", "team_id": "t1", "spend": 5, "max_budget": 3});
        cast.ledger.admin("POST", "/key/generate", Some(body)).await;
        let body = json!({"key": "sk-own-of-loner", "user_id": "loner", "spend": 5});
        cast.ledger.admin("POST", "/key/generate", Some(body)).await;
        let path = "/key/sk-of-lead-spent/reset_spend";
        let message = |text: &str| json!({"error": {"message": format!("{{'error': '{text}'}}")}});
        cast.script(&[
            ("master", "POST", path, json!({}), 422, json!({"detail": [{"loc": ["body", "reset_to"], "type": "missing"}]})),
            ("master", "POST", path, json!({"reset_to": -1}), 422, Value::Null),
            ("master", "POST", path, json!({"reset_to": 6}), 400, message("reset_to (6.0) must be <= current spend (5.0)")),
            ("master", "POST", path, json!({"reset_to": 4}), 400, message("reset_to (4.0) must be <= budget (3.0)")),
            ("master", "POST", "/key/sk-nobody-has/reset_spend", json!({"reset_to": 0}), 404, Value::Null),
            ("member", "POST", path, json!({"reset_to": 0}), 403, Value::Null),
            ("loner", "POST", "/key/sk-own-of-loner/reset_spend", json!({"reset_to": 0}), 403, Value::Null),
            (
                "lead",
                "POST",
                path,
                json!({"reset_to": 1.5}),
                200,
                json!({"key_hash": hash("sk-of-lead-spent"), "spend": 1.5, "previous_spend": 5.0, "max_budget": 3.0}),
            ),
        ])
        .await;
        let told = cast.changed("POST", path, json!({"reset_to": 0})).await;
        assert!(told.contains(&format!("key:{}", hash("sk-of-lead-spent"))), "{told:?}");
        let info = cast.ledger.admin("GET", "/key/info?key=sk-of-lead-spent", None).await;
        assert_eq!(info["info"]["spend"], 0.0);
    });
}

#[test]
fn names_of_keys_are_listed_to_who_sees_the_keys() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        for (alias, user) in [("b-one", "loner"), ("a-two", "loner"), ("c-One", "member")] {
            let body = json!({"key_alias": alias, "user_id": user});
            cast.ledger.admin("POST", "/key/generate", Some(body)).await;
        }
        let list = async |who: &str, query: &str| {
            let (status, answer) = cast.call(who, "GET", &format!("/key/aliases{query}"), Value::Null).await;
            assert_eq!(status, 200, "{answer}");
            answer
        };
        let first = list("master", "?size=1&search=one").await;
        assert_eq!(
            first,
            json!({"aliases": ["b-one"], "total_count": 2, "current_page": 1, "total_pages": 2, "size": 1})
        );
        assert_eq!(list("master", "?size=1&search=one&page=2").await["aliases"], json!(["c-One"]));
        assert_eq!(list("loner", "").await["aliases"], json!(["a-two", "b-one"]));
        assert_eq!(list("master", "?user_id=member").await["aliases"], json!(["c-One"]));
    });
}

#[test]
fn a_filter_that_is_not_applied_is_refused() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        for path in
            ["/key/list?status=deleted", "/v2/team/list?status=deleted", "/user/list?organization_ids=o1"]
        {
            let (status, answer) = cast.call("master", "GET", path, Value::Null).await;
            assert_eq!(status, 400, "{path}: {answer}");
            assert!(answer["error"]["message"].as_str().unwrap().contains("not applied"), "{answer}");
        }
        for path in ["/key/list?status=", "/key/list?include_created_by_keys=false", "/key/list?unknown=1"] {
            assert_eq!(cast.call("master", "GET", path, Value::Null).await.0, 200, "{path}");
        }
        for (query, count) in [("", 2), ("?org_id=o1", 1), ("?org_alias=HER", 1), ("?org_alias=none", 0)] {
            let body = json!({"organization_id": "o9", "organization_alias": "Another"});
            cast.call("master", "POST", "/organization/new", body).await;
            let (_, found) =
                cast.call("master", "GET", &format!("/organization/list{query}"), Value::Null).await;
            assert_eq!(found.as_array().map(Vec::len), Some(count), "{query}: {found}");
        }
    });
}
