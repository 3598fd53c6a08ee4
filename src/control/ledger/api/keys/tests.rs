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
        let mut connection = cast.ledger.app.db.read().await.unwrap();
        let moved = "SELECT meter FROM tollgate_windows WHERE meter = $1";
        let moved =
            rows::rows(&mut connection, moved, vec![format!("key_model:{new}/m").into()]).await.unwrap();
        assert_eq!(moved.len(), 1);
        drop(connection);
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
