//! Values that single models and versions of an API refuse, and thoughts in the words of a brand.

use super::*;

#[test]
fn gpt5_takes_what_its_effort_leaves() {
    let openai = deployment(&AT_OPENAI);
    // Model, body; what is sent with `drop_params`, and how the refusal without it begins.
    let rows = [
        (
            "gpt-5.2",
            r#"{"temperature":0.2,"top_p":0.5}"#,
            r#"{"temperature":0.2,"top_p":0.5,"model":"M"}"#,
            None,
        ),
        (
            "gpt-5.2",
            r#"{"top_p":0.5,"reasoning_effort":"low"}"#,
            r#"{"reasoning_effort":"low","model":"M"}"#,
            Some(
                "gpt-5.2 only supports logprobs, top_p, top_logprobs when reasoning_effort resolves to 'none'",
            ),
        ),
        (
            "gpt-5",
            r#"{"reasoning_effort":"xhigh"}"#,
            r#"{"model":"M"}"#,
            Some("reasoning_effort=xhigh is not supported for gpt-5. "),
        ),
        (
            "gpt-5",
            r#"{"reasoning_effort":"none"}"#,
            r#"{"model":"M"}"#,
            Some("reasoning_effort=none is not supported for gpt-5. "),
        ),
        (
            "gpt-5",
            r#"{"reasoning_effort":{"effort":"low","summary":"auto"}}"#,
            r#"{"reasoning_effort":"low","model":"M"}"#,
            None,
        ),
        ("gpt-5", r#"{"temperature":1.0}"#, r#"{"temperature":1.0,"model":"M"}"#, None),
    ];
    for (model, body, sent, refused) in rows {
        let p = Prepare { drop_params: true, ..chat(&openai, model) };
        assert_eq!(run(body, &p).unwrap().0, sent.replace('M', model), "{model} {body}");
        let strict = run(body, &chat(&openai, model));
        match refused {
            None => assert!(strict.is_ok(), "{model} {body}"),
            Some(words) => {
                let message = strict.unwrap_err().message;
                assert!(
                    message.starts_with(&format!("litellm.UnsupportedParamsError: {words}")),
                    "{message}"
                );
            }
        }
    }
}

const FORMAT: &str =
    r#""response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}"#;

#[test]
fn azure_is_asked_for_a_schema_by_a_tool_where_it_knows_none() {
    let azure = deployment(&AT_AZURE);
    let rows = [
        ("2024-05-01-preview", "dep", true),
        ("2024-07-18", "dep", true),
        ("2024-08-01-preview", "dep", false),
        ("2025-02-01-preview", "dep", false),
        ("v1", "dep", false),
        ("preview", "dep", false),
        ("2025-02-01-preview", "my-gpt-35-turbo", true),
        ("2025-02-01-preview", "gpt-3.5-turbo", true),
        ("2025-02-01-preview", "gpt-3-5-turbo", true),
        ("2024-05-01-preview", "o3-mini", false),
    ];
    for (version, model, by_tool) in rows {
        let p = Prepare { api_version: version, ..chat(&azure, model) };
        let (sent, facts) = run(&format!("{{{FORMAT}}}"), &p).unwrap();
        assert_eq!(facts.json_tool, by_tool, "{version} {model}");
        assert_eq!(sent.contains("json_tool_call"), by_tool, "{sent}");
        assert_eq!(sent.contains("response_format"), !by_tool, "{sent}");
    }
    let openai = deployment(&AT_OPENAI);
    let p = Prepare { api_version: "2024-05-01-preview", ..chat(&openai, "gpt-4o") };
    assert!(!run(&format!("{{{FORMAT}}}"), &p).unwrap().1.json_tool);
}

#[test]
fn a_choice_of_tools_needs_an_azure_that_knows_it() {
    let azure = deployment(&AT_AZURE);
    let (required, auto) = (r#"{"tool_choice":"required"}"#, r#"{"tool_choice":"auto"}"#);
    let rows = [
        (
            "2024-05-01-preview",
            required,
            Some("Azure does not support 'required' as a tool_choice param, for api_version="),
        ),
        ("2024-06-01", required, None),
        ("2023-12-01-preview", required, None),
        ("2024-02-01", auto, None),
        ("2023-05-15", auto, Some("Azure does not support 'tool_choice', for api_version=2023-05-15. ")),
        ("v1", required, None),
    ];
    for (version, body, refused) in rows {
        let p = Prepare { api_version: version, ..chat(&azure, "dep") };
        let dropping = run(body, &Prepare { drop_params: true, ..p }).unwrap().0;
        assert_eq!(dropping.contains("tool_choice"), refused.is_none(), "{version} {body}");
        match refused {
            None => assert!(run(body, &p).is_ok(), "{version} {body}"),
            Some(words) => {
                let message = run(body, &p).unwrap_err().message;
                assert!(
                    message.starts_with(&format!("litellm.UnsupportedParamsError: {words}")),
                    "{message}"
                );
            }
        }
    }
}

#[test]
fn a_call_without_arguments_has_empty_ones() {
    let azure = deployment(&AT_AZURE);
    let body =
        r#"{"messages":[{"role":"assistant","content":null,"function_call":{"name":"f","arguments":null}}]}"#;
    let sent = run(body, &chat(&azure, "")).unwrap().0;
    assert_eq!(sent, body.replace(r#""arguments":null"#, r#""arguments":"""#));
}

#[test]
fn thoughts_are_asked_for_in_the_brands_words() {
    let thinking = |kind: &str, budget: u64| json!({"thinking": {"type": kind, "budget_tokens": budget}});
    let switch = |state: &str| json!({"thinking": {"type": state}});
    let rows = [
        ("hosted_vllm", thinking("enabled", 2048), json!({"reasoning_effort": "medium"})),
        ("hosted_vllm", thinking("enabled", 31_999), json!({"reasoning_effort": "high"})),
        ("hosted_vllm", thinking("disabled", 0), json!({})),
        ("deepseek", thinking("enabled", 2048), switch("enabled")),
        ("deepseek", json!({"reasoning_effort": "none"}), switch("disabled")),
        (
            "deepseek",
            json!({"reasoning_effort": "low"}),
            json!({"reasoning_effort": "low", "thinking": {"type": "enabled"}}),
        ),
        ("openrouter", thinking("enabled", 2048), thinking("enabled", 2048)),
    ];
    for (name, body, sent) in rows {
        let deployment = deployment(provider::brand(name).unwrap());
        let found = run(&body.to_string(), &chat(&deployment, "")).unwrap().0;
        assert_eq!(serde_json::from_str::<Value>(&found).unwrap(), sent, "{name} {body}");
    }
}
