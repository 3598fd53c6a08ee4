//! Counting tokens and listing parameters, over HTTP.

use serde_json::{Value, json};

use super::supported_params;
use crate::{
    control::ledger::{
        api::cast::{Cast, names},
        testing::on_each,
    },
    core::{config::accepts, provider::brand},
};

const YAML: &str = "
model_list:
- model_name: large
  litellm_params: {model: openai/gpt-4o, api_key: x}
- model_name: mine
  litellm_params: {model: azure/any-name, api_base: https://a.invalid, api_key: x}
  model_info: {base_model: azure/gpt-4o}
- model_name: unnamed
  litellm_params: {model: azure/any-name, api_base: https://a.invalid, api_key: x}
- model_name: claude
  litellm_params: {model: anthropic/claude-3-5-sonnet-20241022, api_key: x}
- model_name: 'groq/*'
  litellm_params: {model: 'groq/*', api_key: x}
- model_name: thinker
  litellm_params: {model: openai/o1, api_key: x}
";

#[test]
fn tokens_are_counted_by_the_model_that_would_answer() {
    on_each(YAML, |ledger| async move {
        let cast = Cast::new(ledger).await;
        let text = json!([{"role": "user", "content": "Grüße, 世界! 🎉"}]);
        for (model, used, tokens) in [
            ("large", "gpt-4o", 15),
            ("mine", "any-name", 15),
            ("unnamed", "any-name", 19),
            ("claude", "claude-3-5-sonnet-20241022", 19),
            ("groq/llama-3.1-8b", "llama-3.1-8b", 19),
            // Nothing serves these: by their own names.
            ("gpt-4o", "gpt-4o", 15),
            ("gpt-3.5-turbo", "gpt-3.5-turbo", 19),
            ("nobody-knows", "nobody-knows", 19),
        ] {
            let body = json!({"model": model, "messages": text});
            let (status, answer) = cast.call("nobody", "POST", "/utils/token_counter", body).await;
            let expected = json!({"total_tokens": tokens, "request_model": model, "model_used": used,
                                  "tokenizer_type": "openai_tokenizer"});
            assert_eq!((status, &answer), (200, &expected), "{model}");
            assert_eq!(names(&answer), ["total_tokens", "request_model", "model_used", "tokenizer_type"]);
        }
    });
}

#[test]
fn a_prompt_or_messages_with_tools() {
    on_each(YAML, |ledger| async move {
        let cast = Cast::new(ledger).await;
        let hello = json!([{"role": "user", "content": "Hello, how are you?"}]);
        let tools = json!([{"type": "function", "function": {"name": "now"}}]);
        let missing = |name: &str| json!({"detail": [{"type": "missing", "loc": ["body", name]}]});
        let none = json!({"error": {"message": "prompt or messages must be provided", "code": "400"}});
        cast.script(&[
            ("nobody", "POST", "/utils/token_counter", json!({"model": "large", "prompt": "hello world"}), 200,
             json!({"total_tokens": 2})),
            ("nobody", "POST", "/utils/token_counter", json!({"model": "large", "prompt": "hello world", "tools": tools}), 200,
             json!({"total_tokens": 2})),
            ("nobody", "POST", "/utils/token_counter", json!({"model": "large", "messages": hello, "tools": tools}), 200,
             json!({"total_tokens": 36})),
            ("nobody", "POST", "/utils/token_counter",
             json!({"model": "large", "messages": hello, "tools": tools, "tool_choice": "none"}), 200, json!({"total_tokens": 37})),
            ("nobody", "POST", "/utils/token_counter", json!({"model": "large", "messages": hello, "prompt": "x"}), 200,
             json!({"total_tokens": 13})),
            ("nobody", "POST", "/utils/token_counter", json!({"model": "large", "messages": []}), 200, json!({"total_tokens": 3})),
            ("nobody", "POST", "/utils/token_counter", json!({"model": "large"}), 400, none.clone()),
            ("nobody", "POST", "/utils/token_counter", json!({"model": "large", "prompt": null, "messages": null}), 400, none),
            ("nobody", "POST", "/utils/token_counter", json!({"messages": hello}), 422, missing("model")),
            ("nobody", "POST", "/utils/token_counter", json!({"model": "large", "messages": "x"}), 422,
             json!({"detail": [{"type": "list_type", "loc": ["body", "messages"]}]})),
            ("nobody", "POST", "/utils/token_counter", json!({"model": 7, "prompt": "x"}), 422,
             json!({"detail": [{"type": "string_type", "loc": ["body", "model"]}]})),
            ("nobody", "POST", "/utils/token_counter", json!({"model": "large", "prompt": "x".repeat(5 << 20)}), 413,
             json!({"error": {"message": "the text is too long to be counted: expected at most 4194304 bytes"}})),
            ("nobody", "GET", "/utils/token_counter", Value::Null, 405, Value::Null),
        ])
        .await;
        let (status, _, _) = cast.ledger.call("POST", "/utils/token_counter", None, Some(json!({}))).await;
        assert_eq!(status, 401);
    });
}

#[test]
fn parameters_are_those_of_the_model_that_would_answer() {
    on_each(YAML, |ledger| async move {
        let cast = Cast::new(ledger).await;
        for (model, takes, refuses) in [
            (
                "large",
                &["logit_bias", "tools", "user", "temperature"][..],
                &["thinking", "reasoning_effort"][..],
            ),
            ("gpt-4o", &["logit_bias"], &["thinking"]),
            ("openai/gpt-4o", &["logit_bias"], &["thinking"]),
            ("claude", &["max_tokens", "tools"], &["thinking", "logit_bias", "seed", "n"]),
            ("anthropic/claude-sonnet-4-5", &["thinking", "reasoning_effort"], &["logit_bias"]),
            ("groq/llama-3.1-8b", &["tools"], &["reasoning_effort", "web_search_options", "verbosity"]),
            ("thinker", &["reasoning_effort", "max_completion_tokens"], &["top_p", "presence_penalty"]),
        ] {
            let path = format!("/utils/supported_openai_params?model={model}");
            let (status, answer) = cast.call("nobody", "GET", &path, Value::Null).await;
            assert_eq!((status, names(&answer)), (200, vec!["supported_openai_params"]), "{model}");
            let list: Vec<&str> = answer["supported_openai_params"]
                .as_array()
                .unwrap()
                .iter()
                .map(|p| p.as_str().unwrap())
                .collect();
            assert!(takes.iter().all(|name| list.contains(name)), "{model}: {list:?}");
            assert!(!refuses.iter().any(|name| list.contains(name)), "{model}: {list:?}");
        }
        cast.script(&[
            (
                "nobody",
                "GET",
                "/utils/supported_openai_params?model=nobody-knows",
                Value::Null,
                400,
                json!({"detail": {"error": "Could not map model=nobody-knows"}}),
            ),
            ("nobody", "GET", "/utils/supported_openai_params?model=", Value::Null, 400, Value::Null),
            (
                "nobody",
                "GET",
                "/utils/supported_openai_params",
                Value::Null,
                422,
                json!({"detail": [{"type": "missing", "loc": ["query", "model"]}]}),
            ),
        ])
        .await;
        let path = "/utils/supported_openai_params?model=large";
        assert_eq!(cast.ledger.call("GET", path, None, None).await.0, 401);
    });
}

#[test]
fn no_parameter_is_listed_twice() {
    for (name, model) in [("openai", "gpt-4o"), ("openai", "o1"), ("anthropic", "claude-3"), ("mistral", "x")]
    {
        let mut list = supported_params(accepts::of(brand(name).unwrap(), model));
        let count = list.len();
        list.sort();
        list.dedup();
        assert_eq!(list.len(), count, "{name}/{model}");
    }
}

#[test]
fn what_a_model_stands_for_is_told_to_those_who_may_call_it() {
    let yaml = "model_list:\n  - {model_name: secret-model, litellm_params: {model: openai/gpt-4-turbo, api_key: k}}\n  \
                - {model_name: open-model, litellm_params: {model: openai/gpt-4o, api_key: k}}\n";
    on_each(yaml, |ledger| async move {
        let body = json!({"key": "sk-of-few-models", "models": ["open-model"]});
        ledger.admin("POST", "/key/generate", Some(body)).await;
        for (model, status) in [("secret-model", 401), ("open-model", 200), ("gpt-4-turbo", 200)] {
            let body = json!({"model": model, "prompt": "hi"});
            let (got, _, answer) =
                ledger.call("POST", "/utils/token_counter", Some("sk-of-few-models"), Some(body)).await;
            assert_eq!(got, status, "{model}: {answer}");
            assert!(model == "gpt-4-turbo" || !answer.to_string().contains("gpt-4-turbo"), "{answer}");
            let path = format!("/utils/supported_openai_params?model={model}");
            assert_eq!(ledger.call("GET", &path, Some("sk-of-few-models"), None).await.0, status, "{model}");
            let answer = json!({"model": model, "usage": {"prompt_tokens": 1, "completion_tokens": 1}});
            for body in [json!({"model": model, "messages": []}), json!({"completion_response": answer})] {
                let (got, _, answer) =
                    ledger.call("POST", "/spend/calculate", Some("sk-of-few-models"), Some(body)).await;
                assert_eq!(got, status, "{model}: {answer}");
            }
        }
    });
}
