//! Counts of tokens: asked of providers that count, estimated for the others, and free.

use super::*;
use crate::core::access;

const MODELS: &str = r#"
model_list:
  - {model_name: c, litellm_params: {model: anthropic/claude-3-opus-20240229, api_base: "http://d.test", api_key: k, max_tokens: 7, top_k: 2}}
  - {model_name: c2, litellm_params: {model: anthropic/claude-3-haiku, api_base: "http://e.test/v1/messages", api_key: k}}
  - {model_name: o, litellm_params: {model: openai/gpt-4o, api_base: "http://o.test/v1", api_key: k}}
  - {model_name: mocked, litellm_params: {model: anthropic/claude-3-haiku, api_key: k, mock_response: hi}}
  - {model_name: failing, litellm_params: {model: openai/gpt-4o, api_key: k, mock_response: litellm.RateLimitError}}
litellm_settings: {num_retries: 0, fallbacks: [{c: [c2]}, {c2: [o]}]}
router_settings: {model_group_alias: {sonnet: c}}
"#;
const PATH: &str = "/v1/messages/count_tokens";

fn ask(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}]})
}

#[test]
fn anthropics_count_is_asked_for_as_messages_are_and_comes_as_it_is() {
    let mut body = ask("sonnet");
    body["system"] = json!("be brief");
    body["stream"] = json!(true);
    body["messages"].as_array_mut().unwrap().push(json!({"role": "assistant", "content": [
        {"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "hi"}]}));
    let told = json!({"input_tokens": 2095, "context_management": {"original_input_tokens": 3000}});
    let story = Rig::new(MODELS).call(PATH, body, |_, _| Answer(200, told.clone()));
    assert_eq!((story.status, serde_json::from_str::<Value>(&story.body).unwrap()), (200, told));
    assert_eq!(story.paths, ["/v1/messages/count_tokens"]);
    let sent = json!({"model": "claude-3-opus-20240229", "system": "be brief", "messages": [
        {"role": "user", "content": "hello"}, {"role": "assistant", "content": [{"type": "text", "text": "hi"}]}]});
    assert_eq!(story.bodies, [sent]);
    assert_eq!(story.header("content-type"), Some("application/json"));
    assert_eq!(story.header("x-litellm-model-group"), Some("c"));
    assert_eq!(story.header("x-litellm-response-cost"), None);
    let record = story.record.unwrap();
    assert_eq!((record.usage.clone(), record.cost, record.event().is_none()), (None, None, true));
    assert_eq!(record.call_type, "acount_tokens");
}

#[test]
fn a_base_that_is_a_whole_path_is_the_same_apis() {
    let story = Rig::new(MODELS).call(PATH, ask("c2"), |_, _| Answer(200, json!({"input_tokens": 1})));
    assert_eq!((story.status, story.paths), (200, vec!["/v1/messages/count_tokens".to_owned()]));
}

#[test]
fn a_failed_count_goes_on_to_fallbacks_and_the_last_is_an_estimate() {
    let overloaded = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let mut rig = Rig::new(MODELS);
    let story = rig.call(PATH, ask("c"), |_, model| match model {
        "gpt-4o" => panic!("a count is not asked of OpenAI"),
        _ => Answer(529, overloaded.clone()),
    });
    assert_eq!((story.status, story.body.as_str()), (200, r#"{"input_tokens":8}"#));
    assert_eq!(story.header("x-litellm-attempted-fallbacks"), Some("2"));
}

#[test]
fn a_provider_that_has_no_count_is_estimated_and_not_put_to_rest_by_who_asks_for_one() {
    let yaml =
        MODELS.replace("num_retries: 0", "num_retries: 0, allowed_fails: 0").replace("fallbacks:", "x:");
    let yaml = yaml.replace("{model_name: c2,", "{model_name: c,");
    let mut rig = Rig::new(&yaml);
    let of =
        |message: &str| json!({"type": "error", "error": {"type": "not_found_error", "message": message}});
    for (status, body, told) in [
        (404, of("Not found"), 200),
        (404, json!({"detail": "Not Found"}), 200),
        (405, json!({"detail": "Method Not Allowed"}), 200),
        (501, json!("no"), 200),
        (404, of("model: claude-9"), 404),
        (404, of("model: claude-9"), 404),
    ] {
        let story = rig.call(PATH, ask("c"), |_, _| Answer(status, body.clone()));
        assert_eq!(story.status, told, "{body}: {}", story.body);
        let record = story.record.unwrap();
        assert_eq!((record.usage.clone(), record.cost), (None, None));
        if told == 200 {
            assert_eq!(story.body, r#"{"input_tokens":8}"#);
        }
    }
    let mut body = ask("c");
    body["max_tokens"] = json!(5);
    let story = rig.call("/v1/messages", body.clone(), |_, _| Answer(404, of("Not found")));
    assert_eq!(story.status, 404);
    assert_eq!(rig.call("/v1/messages", body, |_, _| Answer(200, message())).status, 200);
}

#[test]
fn others_are_counted_here_in_the_same_shape() {
    for model in ["o", "mocked"] {
        let mut rig = Rig::new(MODELS);
        let story = rig.call(PATH, ask(model), |_, _| panic!("nobody is asked"));
        assert_eq!((story.status, story.body.as_str()), (200, r#"{"input_tokens":8}"#), "{model}");
        assert_eq!(story.header("request-id"), story.header("x-litellm-call-id"));
        let record = story.record.unwrap();
        assert_eq!((record.usage.clone(), record.cost, record.attempts), (None, None, 0));
        let refused = rig.call(PATH, json!({"model": model}), |_, _| panic!("nobody is asked"));
        let body: Value = serde_json::from_str(&refused.body).unwrap();
        assert_eq!((refused.status, &body["error"]["type"]), (400, &json!("invalid_request_error")));
        assert_eq!(body["error"]["message"], "messages: expected a list of at least one message.");
    }
    let story = Rig::new(MODELS).call(PATH, ask("failing"), |_, _| panic!("nobody is asked"));
    assert_eq!(story.status, 429);
    let story = Rig::new(MODELS).call(PATH, ask("nobody"), |_, _| panic!("nobody is asked"));
    assert_eq!(story.status, 400);
}

/// The models, and keys of which each has a limit.
fn with_keys() -> String {
    let keys = [
        (
            "sk-limited",
            "models: [c, o], rpm_limit: 1, tpm_limit: 1, max_parallel_requests: 1, max_budget: 0.000001",
        ),
        ("sk-chat", "allowed_routes: [/v1/messages]"),
        ("sk-routes", "allowed_routes: [anthropic_routes]"),
    ];
    let keys = keys.map(|(key, limits)| format!("{{token: {}, {limits}}}", access::hash(key.as_bytes())));
    format!("{MODELS}general_settings: {{master_key: sk-master, keys: [{}]}}\n", keys.join(", "))
}

#[test]
fn a_count_is_free_and_nobodys_limits_hold_for_it_but_who_may_call_a_model() {
    let mut rig = Rig::new(&with_keys());
    rig.key = Some("sk-limited");
    for _ in 0..3 {
        for model in ["c", "o"] {
            let story = rig.call(PATH, ask(model), |_, _| Answer(200, json!({"input_tokens": 5})));
            assert_eq!(story.status, 200, "{}", story.body);
        }
    }
    let story = rig.call(PATH, ask("mocked"), |_, _| panic!("nobody is asked"));
    let body: Value = serde_json::from_str(&story.body).unwrap();
    assert_eq!((story.status, &body["error"]["type"]), (401, &json!("authentication_error")));
    for (key, status) in [("sk-chat", 401), ("sk-routes", 200), ("sk-nobodys", 401)] {
        rig.key = Some(key);
        let story = rig.call(PATH, ask("o"), |_, _| panic!("nobody is asked"));
        assert_eq!(story.status, status, "{key}: {}", story.body);
    }
}

#[test]
fn who_goes_away_during_a_count_pays_nothing() {
    let mut rig = Rig::new(MODELS);
    for patience in 1..6 {
        rig.patience = Some(patience);
        let record = rig.run(PATH, ask("c"), |_, _| Hang).record.unwrap();
        assert_eq!(
            (record.usage.map(|usage| usage.total_tokens).unwrap_or(0), record.cost),
            (0, None),
            "{patience}"
        );
    }
}
