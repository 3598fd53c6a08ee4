//! `/spend/calculate`, the budget of the gateway, and starting all spend again.

use super::*;

const YAML: &str = "
model_list:
- model_name: large
  litellm_params: {model: openai/gpt-4o, api_key: x}
- model_name: mine
  litellm_params: {model: openai/own, api_base: https://a.invalid, api_key: x, input_cost_per_token: 0.001, output_cost_per_token: 0.01}
- model_name: hourly
  litellm_params: {model: openai/own, api_base: https://a.invalid, api_key: x, input_cost_per_second: 0.01}
- model_name: free
  litellm_params: {model: openai/gpt-4o, api_key: x, input_cost_per_token: 0, output_cost_per_token: 0}
- model_name: unknown
  litellm_params: {model: openai/nobody-knows, api_base: https://a.invalid, api_key: x}
";

#[test]
fn costs_are_those_that_calls_would_have() {
    on_each(YAML, |ledger| async move {
        let cast = Cast::new(ledger).await;
        let hello = json!([{"role": "user", "content": "Hello, how are you?"}]);
        let usage = json!({"prompt_tokens": 1_000, "completion_tokens": 500, "total_tokens": 1_500});
        let cached = json!({"prompt_tokens": 1_000, "completion_tokens": 0, "total_tokens": 1_000,
                            "prompt_tokens_details": {"cached_tokens": 400}});
        let anthropic = json!({"input_tokens": 2, "output_tokens": 3});
        let answer = |model: &str, usage: &Value| json!({"model": model, "usage": usage});
        for (body, cost) in [
            // 13 tokens.
            (json!({"model": "large", "messages": hello}), json!(0.0000325)),
            (json!({"model": "gpt-4o", "messages": hello}), json!(0.0000325)),
            (json!({"model": "openai/gpt-4o", "messages": hello}), json!(0.0000325)),
            (json!({"model": "gpt-3.5-turbo", "messages": hello}), json!(0.0000065)),
            (json!({"model": "mine", "messages": hello}), json!(0.013)),
            (json!({"model": "free", "messages": hello}), json!(0.0)),
            (json!({"completion_response": answer("gpt-4o", &usage)}), json!(0.0075)),
            (json!({"completion_response": answer("gpt-4o", &cached)}), json!(0.002)),
            (
                json!({"model": "large", "completion_response": answer("gpt-4o-2024-08-06", &usage)}),
                json!(0.0075),
            ),
            (json!({"model": "mine", "completion_response": answer("own", &usage)}), json!(6.0)),
            (json!({"model": "mine", "completion_response": answer("own", &anthropic)}), json!(0.032)),
            // An answer counts for more than messages beside it.
            (
                json!({"model": "mine", "messages": hello, "completion_response": answer("own", &usage)}),
                json!(6.0),
            ),
            (json!({"model": "mine", "messages": hello, "completion_response": null}), json!(0.013)),
            (
                json!({"model": "hourly", "completion_response": {"model": "own", "usage": usage, "_response_ms": 2_500}}),
                json!(0.025),
            ),
        ] {
            let (status, got) = cast.call("nobody", "POST", "/spend/calculate", body.clone()).await;
            assert_eq!((status, &got), (200, &json!({"cost": cost})), "{body}");
        }
        let refused = |message: &str| json!({"error": {"message": message, "code": "400"}});
        let no_price = "no price is known for model `unknown`: set input_cost_per_token and output_cost_per_token in its litellm_params";
        let kind = |kind: &str, name: &str| json!({"detail": [{"type": kind, "loc": ["body", name]}]});
        for (body, status, expected) in [
            (
                json!({}),
                400,
                refused("Bad Request - Either 'model' or 'completion_response' must be provided"),
            ),
            (
                json!({"messages": hello}),
                400,
                refused("Bad Request - Either 'model' or 'completion_response' must be provided"),
            ),
            (json!({"model": "large"}), 400, refused("If using model, `messages` must be provided")),
            (
                json!({"completion_response": {"usage": usage}}),
                400,
                refused("`completion_response` names no model: expected its `model`, or one beside it"),
            ),
            (
                json!({"completion_response": {"model": "gpt-4o"}}),
                400,
                refused("`completion_response` has no usage: expected `usage` with its token counts"),
            ),
            (json!({"completion_response": {"model": "gpt-4o", "usage": null}}), 400, Value::Null),
            (json!({"completion_response": {"model": "gpt-4o", "usage": {}}}), 400, Value::Null),
            (json!({"completion_response": {"model": "gpt-4o", "usage": [1]}}), 400, Value::Null),
            (json!({"model": "unknown", "messages": hello}), 400, refused(no_price)),
            (json!({"completion_response": answer("unknown", &usage)}), 400, refused(no_price)),
            (json!({"model": "large", "messages": "hello"}), 422, kind("list_type", "messages")),
            (json!({"model": ["large"], "messages": hello}), 422, kind("string_type", "model")),
            (json!({"completion_response": "x"}), 422, kind("dict_type", "completion_response")),
        ] {
            cast.script(&[("nobody", "POST", "/spend/calculate", body, status, expected)]).await;
        }
    });
}

#[test]
fn the_gateways_own_budget_counts_its_own_period() {
    let yaml = "litellm_settings:\n  max_budget: 100.5\n  budget_duration: 1d\n";
    on_each(yaml, |ledger| async move {
        let cast = books(ledger).await;
        let spent = async || cast.call("viewer", "GET", "/global/spend", Value::Null).await.1;
        let before = spent().await;
        assert_eq!(before["max_budget"], json!(100.5));
        // What was counted since the budget's period began, whatever day the calls are of.
        feed(&cast, 3, vec![call(&cast, "more", "loner", START_MS - 40 * 24 * HOUR, DOLLAR / 4, (1, 1))])
            .await;
        let after = spent().await;
        let difference = after["spend"].as_f64().unwrap() - before["spend"].as_f64().unwrap();
        assert!((difference - 0.25).abs() < 1e-9, "{before} {after}");
    });
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        for who in ["master", "admin", "viewer"] {
            let (_, answer) = cast.call(who, "GET", "/global/spend", Value::Null).await;
            assert_eq!(answer, json!({"spend": 1.850000000001, "max_budget": 0.0}), "{who}");
        }
    });
}

#[test]
fn all_spend_starts_again() {
    on_each("", |ledger| async move {
        let cast = books(ledger).await;
        let changed = cast.changed("POST", "/global/spend/reset", json!({})).await;
        let mut wanted: Vec<String> =
            ["nobody", "member", "loner"].iter().map(|who| format!("key:{}", token(&cast, who))).collect();
        wanted.push("team:t1".to_owned());
        wanted.sort();
        assert_eq!(changed, wanted);
        cast.script(&[
            ("master", "POST", "/global/spend/reset", json!({}), 200,
             json!({"message": "Spend for all API Keys and Teams reset successfully", "status": "success"})),
            ("nobody", "GET", "/key/info", Value::Null, 200, json!({"info": {"spend": 0.0}})),
            ("master", "GET", "/team/info?team_id=t1", Value::Null, 200, json!({"team_info": {"spend": 0.0}})),
            // What was spent stays in the books.
            ("master", "GET", "/user/info?user_id=member", Value::Null, 200, json!({"user_info": {"spend": 0.35}})),
            ("master", "GET", "/global/spend", Value::Null, 200, json!({"spend": 1.850000000001})),
        ])
        .await;
        assert_eq!(cast.changed("POST", "/global/spend/reset", json!({})).await, [""]);
    });
}
