//! `/global/…` and `/user/daily/activity`: sums of everything, and of somebody.

use super::*;
use crate::control::ledger::api::cast::names;

#[test]
fn spend_of_the_last_30_days() {
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        let key = |who: &str| token(&cast, who);
        let day = |date: &str, spend: f64| json!({"date": date, "spend": spend});
        let of_key = |date: &str, spend: f64| json!({"date": date, "spend": spend, "api_key": key("member")});
        let model = |model: &str, spend: f64| json!({"model": model, "total_spend": spend});
        let provider = |provider: &str, spend: f64| json!({"provider": provider, "spend": spend});
        let raw = cast.key("member").to_owned();
        let every = json!([
            day("2026-01-13", 0.1),
            day("2026-01-14", 0.2),
            day("2026-01-15", 0.050000000001),
            day("2026-01-16", 1.5)
        ]);
        for (who, path, expected) in [
            ("master", "/global/spend/logs", every.clone()),
            ("viewer", "/global/spend/logs", every),
            (
                "master",
                &format!("/global/spend/logs?api_key={raw}"),
                json!([of_key("2026-01-13", 0.1), of_key("2026-01-14", 0.2)]),
            ),
            (
                "master",
                &format!("/global/spend/logs?api_key={}", key("member")),
                json!([of_key("2026-01-13", 0.1), of_key("2026-01-14", 0.2)]),
            ),
            ("loner", "/global/spend/logs", json!([day("2026-01-15", 1e-12)])),
            ("loner", &format!("/global/spend/logs?api_key={raw}"), json!([])),
            ("nobody", "/global/spend/logs", json!([day("2026-01-16", 1.5)])),
            ("chief", "/global/spend/logs", json!([])),
            (
                "master",
                "/global/spend/models",
                json!([model("gpt-4o", 1.85), model("claude-3", 1e-12), model("", 0.0)]),
            ),
            ("master", "/global/spend/models?limit=1", json!([model("gpt-4o", 1.85)])),
            ("member", "/global/spend/models", json!([model("gpt-4o", 0.35)])),
            (
                "master",
                "/global/spend/provider",
                json!([provider("openai", 1.85), provider("anthropic", 1e-12), provider("Unknown", 0.0)]),
            ),
            (
                "master",
                "/global/spend/provider?start_date=2025-12-01&end_date=2025-12-01",
                json!([provider("openai", 7.0)]),
            ),
            ("loner", "/global/spend/provider", json!([provider("anthropic", 1e-12)])),
        ] {
            let (status, answer) = cast.call(who, "GET", path, Value::Null).await;
            assert_eq!((status, answer), (200, expected), "{who} {path}");
        }
        // A month later nothing of it is in the list.
        cast.ledger.pass(31 * 24 * HOUR);
        for path in
            ["/global/spend/logs", "/global/spend/models", "/global/spend/keys", "/global/spend/provider"]
        {
            assert_eq!(cast.call("master", "GET", path, Value::Null).await.1, json!([]), "{path}");
        }
    });
}

#[test]
fn keys_that_spent_most() {
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        let row = |who: &str, spend: f64| json!({"api_key": token(&cast, who), "key_alias": null, "key_name": "sk-…", "total_spend": spend});
        let gone = json!({"api_key": "gone", "key_alias": null, "key_name": null, "total_spend": 0.05});
        let all =
            json!([row("nobody", 1.5), row("member", 0.3), gone, row("loner", 1e-12), row("service", 0.0)]);
        cast.script(&[
            ("master", "GET", "/global/spend/keys", Value::Null, 200, all.clone()),
            ("viewer", "GET", "/global/spend/keys?limit=10000", Value::Null, 200, all),
            (
                "master",
                "GET",
                "/global/spend/keys?limit=2",
                Value::Null,
                200,
                json!([row("nobody", 1.5), row("member", 0.3)]),
            ),
            ("member", "GET", "/global/spend/keys", Value::Null, 200, json!([row("member", 0.3), gone])),
            ("service", "GET", "/global/spend/keys", Value::Null, 200, json!([row("service", 0.0)])),
            ("lead", "GET", "/global/spend/keys", Value::Null, 200, json!([])),
        ])
        .await;
    });
}

#[test]
fn spend_of_teams_end_users_and_tags() {
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        let teams = json!({
            "daily_spend": [
                {"date": "2026-01-13", "t1": 0.1},
                {"date": "2026-01-14", "t1": 0.2},
                {"date": "2026-01-15", "Unassigned": 1e-12, "t1": 0.0, "t9": 0.05},
                {"date": "2026-01-16", "Unassigned": 1.5},
            ],
            "teams": ["Unassigned", "t1", "t9"],
            "total_spend_per_team": [
                {"team_id": "Unassigned", "total_spend": 1.500000000001},
                {"team_id": "t1", "total_spend": 0.3},
                {"team_id": "t9", "total_spend": 0.05},
            ],
        });
        let (_, answer) = cast.call("viewer", "GET", "/global/spend/teams", Value::Null).await;
        assert_eq!(answer, teams);
        let body = json!({"team_id": "t1", "team_alias": "The first"});
        cast.ledger.admin("POST", "/team/update", Some(body)).await;
        let (_, answer) = cast.call("viewer", "GET", "/global/spend/teams", Value::Null).await;
        assert_eq!(answer["teams"], json!(["The first", "Unassigned", "t9"]));

        let user = |id: &str, count: i64, spend: f64| json!({"end_user": id, "total_count": count, "total_spend": spend});
        for (body, expected) in [
            (json!({}), json!([user("e1", 2, 0.3), user("e2", 1, 1e-12)])),
            (json!({"api_key": cast.key("loner")}), json!([user("e2", 1, 1e-12)])),
            (json!({"api_key": token(&cast, "loner")}), json!([user("e2", 1, 1e-12)])),
            (
                json!({"startTime": "2025-12-01", "endTime": "2026-01-13"}),
                json!([user("e3", 1, 7.0), user("e1", 1, 0.1)]),
            ),
            (
                json!({"startTime": "2026-01-14T00:00:00Z", "endTime": "2026-01-14T10:00:00Z"}),
                json!([user("e1", 1, 0.2)]),
            ),
            // One day alone means nothing.
            (json!({"startTime": "2025-12-01"}), json!([user("e1", 2, 0.3), user("e2", 1, 1e-12)])),
        ] {
            let (status, answer) = cast.call("admin", "POST", "/global/spend/end_users", body.clone()).await;
            assert_eq!((status, answer), (200, expected), "{body}");
        }

        for (query, expected) in [
            ("", &[("old", 7.0, 1), ("blue", 1.7, 2), ("red", 0.3, 2)][..]),
            ("start_date=2026-01-14&end_date=2026-01-14", &[("blue", 0.2, 1), ("red", 0.2, 1)]),
            ("tags=red", &[("red", 0.3, 2)]),
            ("tags=red,old", &[("old", 7.0, 1), ("red", 0.3, 2)]),
            ("tags=red&tags=old", &[("old", 7.0, 1), ("red", 0.3, 2)]),
            ("tags=red,all-tags", &[("old", 7.0, 1), ("blue", 1.7, 2), ("red", 0.3, 2)]),
            ("tags=none", &[]),
            ("tags=red&start_date=2026-01-13&end_date=2026-01-13", &[("red", 0.1, 1)]),
        ] {
            let (_, answer) =
                cast.call("viewer", "GET", &format!("/global/spend/tags?{query}"), Value::Null).await;
            let list: Vec<Value> = expected
                .iter()
                .map(|(name, spend, count)| json!({"name": name, "spend": spend, "log_count": count}))
                .collect();
            assert_eq!(answer, json!({"spend_per_tag": list}), "{query}");
            if query.contains("tags=") {
                continue;
            }
            let (_, answer) = cast.call("viewer", "GET", &format!("/spend/tags?{query}"), Value::Null).await;
            let list: Vec<Value> = expected
                .iter()
                .map(|(name, spend, count)| json!({"individual_request_tag": name, "log_count": count, "total_spend": spend}))
                .collect();
            assert_eq!(answer, json!(list), "{query}");
        }
        let (_, answer) = cast.call("viewer", "GET", "/global/spend/all_tag_names", Value::Null).await;
        assert_eq!(answer, json!({"tag_names": ["blue", "old", "red"]}));
    });
}

#[test]
fn reports_group_by_team_customer_and_key() {
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        let key = |who: &str| token(&cast, who);
        let part = |model: &str, spend: f64, tokens: i64, api_key: &str| json!({"model": model, "spend": spend, "total_tokens": tokens, "api_key": api_key});
        let share = |kind: &str, who: &str, spend: f64, parts: Vec<Value>| json!({kind: who, "total_spend": spend, "metadata": parts});
        let day = |day: &str, list: &str, shares: Vec<Value>| json!({"group_by_day": format!("{day}T00:00:00+00:00"), list: shares});
        let team = |who: &str, spend: f64, parts: Vec<Value>| share("team_name", who, spend, parts);
        let customer = |who: &str, spend: f64, parts: Vec<Value>| share("customer", who, spend, parts);
        let a = || part("gpt-4o", 0.1, 15, &key("member"));
        let b = || part("gpt-4o", 0.2, 30, &key("member"));
        let c = || part("claude-3", 1e-12, 10, &key("loner"));
        let by_team = json!([
            day("2026-01-13", "teams", vec![team("t1", 0.1, vec![a()])]),
            day("2026-01-14", "teams", vec![team("t1", 0.2, vec![b()])]),
            day(
                "2026-01-15",
                "teams",
                vec![
                    team("Unassigned", 1e-12, vec![c()]),
                    team("t1", 0.0, vec![part("", 0.0, 0, &key("service"))]),
                    team("t9", 0.05, vec![part("gpt-4o", 0.05, 10, "gone")]),
                ]
            ),
        ]);
        let by_customer = json!([
            day("2026-01-13", "customers", vec![customer("e1", 0.1, vec![a()])]),
            day("2026-01-14", "customers", vec![customer("e1", 0.2, vec![b()])]),
            day("2026-01-15", "customers", vec![customer("e2", 1e-12, vec![c()])]),
        ]);
        let of_key = |api_key: &str, model: &str, spend: f64, input: i64, output: i64| {
            json!({"api_key": api_key, "total_cost": spend, "total_input_tokens": input, "total_output_tokens": output,
                   "model_details": [{"model": model, "total_cost": spend, "total_input_tokens": input, "total_output_tokens": output}]})
        };
        let mut keys = vec![
            of_key(&key("member"), "gpt-4o", 0.3, 30, 15),
            of_key(&key("loner"), "claude-3", 1e-12, 7, 3),
            of_key(&key("service"), "", 0.0, 0, 0),
            of_key("gone", "gpt-4o", 0.05, 5, 5),
        ];
        let members = {
            let mut list = vec![keys[0].clone(), keys[3].clone()];
            list.sort_by_key(|row| row["api_key"].as_str().unwrap().to_owned());
            list
        };
        let one = json!([keys[0]]);
        keys.sort_by_key(|row| row["api_key"].as_str().unwrap().to_owned());
        let raw = cast.key("member").to_owned();
        for (query, expected) in [
            ("", by_team.clone()),
            ("&group_by=team", by_team.clone()),
            (
                "&team_id=t9",
                json!([day(
                    "2026-01-15",
                    "teams",
                    vec![team("t9", 0.05, vec![part("gpt-4o", 0.05, 10, "gone")])]
                )]),
            ),
            ("&group_by=customer", by_customer.clone()),
            ("&group_by=customer&customer_id=e2", json!([by_customer[2]])),
            ("&group_by=customer&customer_id=stranger", json!([])),
            (&format!("&group_by=customer&api_key={raw}"), json!([by_customer[0], by_customer[1]])),
            ("&group_by=api_key", json!(keys)),
            (&format!("&group_by=api_key&api_key={raw}"), one.clone()),
            (&format!("&api_key={}", key("member")), one),
            ("&internal_user_id=member", json!(members)),
        ] {
            let path = format!("/global/spend/report?start_date=2026-01-13&end_date=2026-01-15{query}");
            let (status, answer) = cast.call("viewer", "GET", &path, Value::Null).await;
            assert_eq!((status, answer), (200, expected), "{query}");
        }
    });
}

#[test]
fn activity_by_day_and_model() {
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        let day = |date: &str, requests: i64, tokens: i64| json!({"date": date, "api_requests": requests, "total_tokens": tokens});
        let sums = |days: Vec<Value>, requests: i64, tokens: i64| json!({"daily_data": days, "sum_api_requests": requests, "sum_total_tokens": tokens});
        let all =
            vec![day("Jan 13", 1, 15), day("Jan 14", 1, 30), day("Jan 15", 4, 20), day("Jan 16", 1, 150)];
        let large =
            vec![day("Jan 13", 1, 15), day("Jan 14", 1, 30), day("Jan 15", 2, 10), day("Jan 16", 1, 150)];
        let model = |name: &str, mut sums: Value| {
            sums["model"] = json!(name);
            sums
        };
        let days = "start_date=2026-01-13&end_date=2026-01-16";
        for (who, path, expected) in [
            ("viewer", "/global/activity", sums(all, 7, 215)),
            ("loner", "/global/activity", sums(vec![day("Jan 15", 2, 10)], 2, 10)),
            ("service", "/global/activity", sums(vec![day("Jan 15", 1, 0)], 1, 0)),
            ("lead", "/global/activity", sums(vec![], 0, 0)),
            (
                "viewer",
                "/global/activity/model",
                json!([
                    model("large", sums(large, 5, 205)),
                    model("small", sums(vec![day("Jan 15", 2, 10)], 2, 10))
                ]),
            ),
            (
                "loner",
                "/global/activity/model",
                json!([model("small", sums(vec![day("Jan 15", 2, 10)], 2, 10))]),
            ),
        ] {
            let (status, answer) = cast.call(who, "GET", &format!("{path}?{days}"), Value::Null).await;
            assert_eq!((status, answer), (200, expected), "{who} {path}");
        }
    });
}

#[test]
fn activity_of_users_is_broken_down() {
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        let metrics =
            |spend: f64, prompt: i64, completion: i64, read: i64, created: i64, good: i64, bad: i64| {
                json!({"spend": spend, "prompt_tokens": prompt, "completion_tokens": completion,
                   "cache_read_input_tokens": read, "cache_creation_input_tokens": created,
                   "total_tokens": prompt + completion, "successful_requests": good, "failed_requests": bad,
                   "api_requests": good + bad})
            };
        let days = "start_date=2026-01-01&end_date=2026-01-31";
        let (status, answer) =
            cast.call("loner", "GET", &format!("/user/daily/activity?{days}"), Value::Null).await;
        let own = metrics(1e-12, 7, 3, 4, 2, 1, 1);
        let keys = json!({(token(&cast, "loner")): {"metrics": own, "metadata": {"key_alias": null, "team_id": null}}});
        let part = json!({"metrics": own, "metadata": {}, "api_key_breakdown": keys});
        let expected = json!({
            "results": [{"date": "2026-01-15", "metrics": own, "breakdown": {
                "models": {"claude-3": part}, "model_groups": {"small": part}, "providers": {"anthropic": part},
                "api_keys": keys, "entities": {}, "mcp_servers": {},
            }}],
            "metadata": {
                "total_spend": 1e-12, "total_prompt_tokens": 7, "total_completion_tokens": 3, "total_tokens": 10,
                "total_api_requests": 2, "total_successful_requests": 1, "total_failed_requests": 1,
                "total_cache_read_input_tokens": 4, "total_cache_creation_input_tokens": 2,
                "page": 1, "total_pages": 1, "has_more": false,
            },
        });
        assert_eq!((status, answer), (200, expected));

        // Everything, day by day; keys that are gone have no names.
        let (_, answer) =
            cast.call("viewer", "GET", &format!("/user/daily/activity?{days}"), Value::Null).await;
        let dates: Vec<&Value> =
            answer["results"].as_array().unwrap().iter().map(|day| &day["date"]).collect();
        assert_eq!(dates, ["2026-01-16", "2026-01-15", "2026-01-14", "2026-01-13"]);
        let fifteenth = &answer["results"][1];
        assert_eq!(fifteenth["metrics"], metrics(0.050000000001, 12, 8, 4, 2, 2, 2));
        assert_eq!(names(&fifteenth["breakdown"]["models"]), ["", "claude-3", "gpt-4o"]);
        assert_eq!(
            fifteenth["breakdown"]["model_groups"]["large"]["metrics"],
            metrics(0.05, 5, 5, 0, 0, 1, 1)
        );
        let gone = &fifteenth["breakdown"]["api_keys"]["gone"];
        assert_eq!(gone["metadata"], json!({"key_alias": null, "team_id": null}));
        let service = &fifteenth["breakdown"]["api_keys"][token(&cast, "service")];
        assert_eq!(service["metadata"], json!({"key_alias": null, "team_id": "t1"}));
        assert_eq!(answer["metadata"]["total_spend"], json!(1.850000000001));

        for (who, query, dates, total, pages) in [
            ("viewer", "page_size=3", &["2026-01-16", "2026-01-15", "2026-01-14"][..], 1.750000000001, 2),
            ("viewer", "page_size=3&page=2", &["2026-01-13"], 0.1, 2),
            ("viewer", "page_size=3&page=3", &[], 0.0, 2),
            ("viewer", "user_id=member", &["2026-01-15", "2026-01-14", "2026-01-13"], 0.35, 1),
            ("viewer", "model=claude-3", &["2026-01-15"], 1e-12, 1),
            ("viewer", &format!("api_key={}", cast.key("member")), &["2026-01-14", "2026-01-13"], 0.3, 1),
            ("member", "", &["2026-01-15", "2026-01-14", "2026-01-13"], 0.35, 1),
            ("member", "user_id=loner", &[], 0.0, 0),
            ("nobody", "", &["2026-01-16"], 1.5, 1),
            ("nobody", "api_key=gone", &[], 0.0, 0),
        ] {
            let (_, answer) =
                cast.call(who, "GET", &format!("/user/daily/activity?{days}&{query}"), Value::Null).await;
            let got: Vec<&Value> =
                answer["results"].as_array().unwrap().iter().map(|day| &day["date"]).collect();
            assert_eq!(got, dates, "{who} {query}");
            let metadata = &answer["metadata"];
            assert_eq!(
                (&metadata["total_spend"], &metadata["total_pages"]),
                (&json!(total), &json!(pages)),
                "{who} {query}"
            );
            let more = metadata["page"].as_i64().unwrap() < pages;
            assert_eq!(metadata["has_more"], json!(more), "{who} {query}");
        }
    });
}

#[test]
fn the_price_list_is_served() {
    on_each("", |ledger| async move {
        let cast = Cast::new(ledger).await;
        let (status, list) = cast.call("nobody", "GET", "/get/litellm_model_cost_map", Value::Null).await;
        assert_eq!((status, &list["gpt-4o"]["litellm_provider"]), (200, &json!("openai")));
        let (_, answer) = cast.call("viewer", "GET", "/provider/budgets", Value::Null).await;
        assert_eq!(answer, json!({"providers": {}}));
    });
}

#[test]
fn budgets_of_providers_are_shown_with_what_is_spent() {
    let yaml = "router_settings: {provider_budget_config: {openai: {budget_limit: 2.5, time_period: 1d}, groq: {budget_limit: 1}}}";
    on_each(yaml, |ledger| async move {
        let charged = json!([{"meter": "provider:openai", "spend": 1_500_000_000_000_i64, "period": "1d"}]);
        let event = json!({"id": "a", "api_key": "k", "spend": 1_500_000_000_000_i64, "charged": charged});
        let batch = json!({"node": "n", "batch": {"number": 1, "events": [event]}});
        assert_eq!(ledger.envoy("POST", "/internal/sync", Some(batch)).await.0, 200);
        let openai = |spend: f64, until: &str| json!({"budget_limit": 2.5, "time_period": "1d", "spend": spend, "budget_reset_at": until});
        let groq = json!({"budget_limit": 1.0, "time_period": null, "spend": 0.0, "budget_reset_at": null});
        let shown = ledger.admin("GET", "/provider/budgets", None).await;
        assert_eq!(
            shown,
            json!({"providers": {"groq": groq, "openai": openai(1.5, "2026-01-16T00:00:00Z")}})
        );
        ledger.pass(86_400_000);
        let later = ledger.admin("GET", "/provider/budgets", None).await;
        assert_eq!(later["providers"]["openai"]["spend"], 0.0, "its period is over");
    });
}
