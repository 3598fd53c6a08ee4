//! Bodies before and after.

use serde_json::{Value, json};

use super::*;
use crate::core::{
    cost::table,
    format::{chat as chat_format, completions, embeddings, messages},
    model::{
        accepts::Accepts,
        brand::{AuthScheme, Brand, Quirks, UrlScheme},
        endpoint::Endpoint,
        failure::Class,
        params::Params,
        secret::Secret,
    },
    provider,
};

mod history;
mod values;

const OPENAI: Brand = Brand {
    name: "openai",
    title: "OpenAI",
    speaks: Some(chat_format::NAME),
    with_template: None,
    embeds: None,
    counts: None,
    url: UrlScheme::Joined,
    auth: AuthScheme::Bearer,
    base: None,
    base_env: &[],
    key_env: &[],
    default_key: None,
    hosts: &[],
    text_completions: true,
    takes: Params::ALL,
    tells_cost: false,
    append_v1: false,
    quirks: Quirks::NONE,
};
const QUIRKY: Quirks = Quirks {
    max_tokens: true,
    flatten_content: true,
    tool_choice_any: true,
    random_seed: true,
    no_stream_options: true,
    ..Quirks::NONE
};

static AT_OPENAI: Brand = OPENAI;
static AT_GROQ: Brand = Brand { name: "groq", title: "Groq", takes: LITTLE, ..OPENAI };
const LITTLE: Params = Params::ALL
    .without(Params::LOGIT_BIAS)
    .without(Params::LOGPROBS)
    .without(Params::USER)
    .without(Params::N);
static AT_MISTRAL: Brand = Brand { name: "mistral", title: "Mistral", quirks: QUIRKY, ..OPENAI };
static AT_AZURE: Brand = Brand { name: "azure", title: "Azure", url: UrlScheme::Azure, ..OPENAI };
static AT_ANTHROPIC: Brand =
    Brand { name: "anthropic", title: "Anthropic", speaks: Some(messages::NAME), ..OPENAI };

fn deployment(brand: &'static Brand) -> Deployment {
    Deployment {
        shown_params: Map::new(),
        id: "id".into(),
        group: "group".into(),
        cluster: "cluster".into(),
        brand,
        only_inferred: false,
        model: "m".into(),
        litellm_model: "m".into(),
        endpoint: Endpoint {
            tls: true,
            host: "host".into(),
            port: 443,
            path: String::new(),
            query: None,
            verify: true,
        },
        api_key: Some(Secret::new("key")),
        azure_ad_token: None,
        api_version: None,
        organization: None,
        headers: Vec::new(),
        defaults: Map::new(),
        extra_body: Map::new(),
        drop_params: None,
        modify_params: None,
        additional_drop_params: Vec::new(),
        allowed_openai_params: Vec::new(),
        timeout_ms: None,
        stream_timeout_ms: None,
        num_retries: None,
        weight: None,
        rpm: None,
        tpm: None,
        rates: crate::core::model::limits::Limits::default(),
        max_parallel: None,
        budget: None,
        rules: Vec::new(),
        unit_price: 0,
        choice: crate::core::model::deployment::Choice::default(),
        cooldown_key: String::new(),
        api_base: String::new(),
        cooldown_ms: None,
        mock_response: None,
        mock_timeout: false,
        template: None,
        model_info: Map::new(),
        prices: Vec::new(),
        accepts: Accepts::ALL,
        base_model: None,
        health_check_model: None,
    }
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn chat<'a>(deployment: &'a Deployment, model: &'a str) -> Prepare<'a> {
    Prepare {
        deployment,
        model,
        from: &chat_format::Format,
        to: &chat_format::Format,
        streaming: false,
        drop_params: false,
        accepts: provider::accepts(
            deployment.brand,
            model,
            deployment.base_model.as_deref(),
            &table::abilities,
        ),
        api_version: "2024-10-21",
    }
}

fn run(body: &str, p: &Prepare<'_>) -> Result<(String, Facts), Error> {
    let mut object = Object::parse(body.as_bytes()).unwrap();
    let facts = prepare(&mut object, p)?;
    Ok((String::from_utf8(object.to_bytes()).unwrap(), facts))
}

#[test]
fn a_body_that_needs_no_change_keeps_every_byte() {
    let openai = deployment(&AT_OPENAI);
    let body = r#"{"model":"m","messages":[ {"role":"user", "content":[{"type":"text","text":"\u00e9 😀"}]} ],"temperature":0.70,"top_p":1E-0,"seed":12345678901234567890123,"new_param":{ "x" : 1e400 },"user":"u","tools":[{"strict":true}]}"#;
    assert_eq!(run(body, &chat(&openai, "m")).unwrap().0, body);
    let renamed = body.replace("\"model\":\"m\"", "\"model\":\"gpt-4o\"");
    assert_eq!(run(body, &chat(&openai, "gpt-4o")).unwrap().0, renamed);
    let messages = r#"{"model":"m","max_tokens":5,"metadata":{"user_id":"u"},"messages":[{"role":"user","content":"x"}],"stream":true}"#;
    let anthropic = deployment(&AT_ANTHROPIC);
    let p =
        Prepare { from: &messages::Format, to: &messages::Format, streaming: true, ..chat(&anthropic, "m") };
    assert_eq!(run(messages, &p).unwrap().0, messages);
}

#[test]
fn what_is_said_to_the_gateway_never_leaves_it() {
    let openai = deployment(&AT_OPENAI);
    let members: Vec<String> = OURS.iter().map(|name| format!("\"{name}\":null")).collect();
    let body = format!(
        r#"{{"model":"m",{},"metadata":{{"a":1}},"mock_testing_fallbacks":true,"input_cost_per_token":1,"messages":[]}}"#,
        members.join(",")
    );
    let expected = r#"{"model":"m","messages":[]}"#;
    assert_eq!(run(&body, &chat(&openai, "m")).unwrap().0, expected);
    for format in [&completions::Format as Ref, &embeddings::Format] {
        assert_eq!(
            run(&body, &Prepare { from: format, to: format, ..chat(&openai, "m") }).unwrap().0,
            expected
        );
    }
    let p = Prepare { from: &messages::Format, to: &messages::Format, ..chat(&openai, "m") };
    assert_eq!(run(&body, &p).unwrap().0, r#"{"model":"m","metadata":{"a":1},"messages":[]}"#);
}

#[test]
fn defaults_fill_in_and_the_client_wins() {
    let mut openai = deployment(&AT_OPENAI);
    openai.defaults = map(json!({"temperature": 0.5, "max_tokens": 10, "safe_prompt": true}));
    let rows = [
        (
            &chat_format::Format as Ref,
            r#"{"model":"m"}"#,
            r#"{"model":"m","temperature":0.5,"max_tokens":10,"safe_prompt":true}"#,
        ),
        (
            &chat_format::Format as Ref,
            r#"{"model":"m","temperature":0.20,"max_completion_tokens":7}"#,
            r#"{"model":"m","temperature":0.20,"max_completion_tokens":7,"safe_prompt":true}"#,
        ),
        (
            &embeddings::Format,
            r#"{"model":"m","input":"x"}"#,
            r#"{"model":"m","input":"x","safe_prompt":true}"#,
        ),
        (
            &messages::Format,
            r#"{"model":"m","max_tokens":1}"#,
            r#"{"model":"m","max_tokens":1,"temperature":0.5,"safe_prompt":true}"#,
        ),
    ];
    for (format, body, expected) in rows {
        assert_eq!(
            run(body, &Prepare { from: format, to: format, ..chat(&openai, "m") }).unwrap().0,
            expected
        );
    }
}

#[test]
fn extra_bodies_come_last_and_cannot_change_what_was_checked() {
    let mut openai = deployment(&AT_OPENAI);
    openai.extra_body = map(json!({"top_k": 5, "a": 1}));
    let body = r#"{"model":"m","top_k":1,"extra_body":{"a":2,"b":[3],"model":"dear","stream":true}}"#;
    let (sent, facts) = run(body, &chat(&openai, "m")).unwrap();
    assert_eq!(sent, r#"{"model":"m","top_k":5,"a":2,"b":[3]}"#);
    assert_eq!(Value::Object(facts.extra_body), json!({"top_k": 5, "a": 2, "b": [3]}));
    assert_eq!(run(r#"{"extra_body":[1]}"#, &chat(&openai, "m")).unwrap_err().status(), 400);
}

#[test]
fn headers_of_the_request() {
    let openai = deployment(&AT_OPENAI);
    let body = r#"{"headers":{"X-A":"1"},"extra_headers":{"anthropic-beta":"x","X-N":2}}"#;
    let expected = [("x-a", "1"), ("anthropic-beta", "x"), ("x-n", "2")];
    let (sent, facts) = run(body, &chat(&openai, "m")).unwrap();
    assert_eq!(sent, r#"{"model":"m"}"#);
    assert_eq!(facts.headers, Headers::from_pairs(&expected));
    for bad in [
        r#"{"Authorization":"Bearer x"}"#,
        r#"{"host":"evil"}"#,
        r#"{"Content-Length":"0"}"#,
        r#"{"x-envoy-max-retries":"9"}"#,
        r#"{":path":"/"}"#,
        r#"{"a b":"c"}"#,
        r#"{"":"c"}"#,
        r#"{"a":"b\r\nc: d"}"#,
        r#"{"a":{}}"#,
        r#"["a"]"#,
        r#""a""#,
    ] {
        let error = run(&format!(r#"{{"extra_headers":{bad}}}"#), &chat(&openai, "m")).unwrap_err();
        assert_eq!((error.status(), error.param.as_deref()), (400, Some("extra_headers")), "{bad}");
    }
}

#[test]
fn unsupported_parameters_are_refused_dropped_or_allowed() {
    let groq = deployment(&AT_GROQ);
    let body = r#"{"model":"x","logit_bias":{"1":2},"logprobs":true,"user":"u","n":1}"#;
    let error = run(body, &chat(&groq, "m")).unwrap_err();
    assert_eq!((error.status(), error.class()), (400, Some(Class::UnsupportedParams)));
    let start = "litellm.UnsupportedParamsError: groq does not support parameters: ['logit_bias', 'logprobs'], for model=m. To drop these, set `litellm.drop_params=True` or for proxy:\n\n`litellm_settings:\n drop_params: true`\n. \n If you want to use these params dynamically send allowed_openai_params=['logit_bias', 'logprobs'] in your request.";
    assert!(error.message.starts_with(start), "{}", error.message);

    let dropped = r#"{"model":"m"}"#;
    let p = Prepare { drop_params: true, ..chat(&groq, "m") };
    assert_eq!(run(body, &p).unwrap().0, dropped);
    let asked = body.replacen('{', r#"{"drop_params":true,"#, 1);
    assert_eq!(run(&asked, &chat(&groq, "m")).unwrap().0, dropped);
    let named = body.replacen('{', r#"{"additional_drop_params":["logit_bias","logprobs"],"#, 1);
    assert_eq!(run(&named, &chat(&groq, "m")).unwrap().0, dropped);
    let allowed = body.replacen('{', r#"{"allowed_openai_params":["logit_bias","logprobs"],"#, 1);
    let (sent, facts) = run(&allowed, &chat(&groq, "m")).unwrap();
    assert_eq!(sent, r#"{"model":"m","logit_bias":{"1":2},"logprobs":true}"#);
    assert_eq!(facts.allowed_params, ["logit_bias", "logprobs"]);
    for nothing in [r#"{"n":null}"#, r#"{"n":1}"#, r#"{"logprobs":false}"#, r#"{"logit_bias":{}}"#] {
        assert_eq!(run(nothing, &chat(&groq, "m")).unwrap().0, dropped, "{nothing}");
    }
}

#[test]
fn the_deployments_drops_and_paths() {
    let mut openai = deployment(&AT_OPENAI);
    openai.additional_drop_params = vec!["seed".into(), "tools[*].function.strict".into()];
    openai.defaults = map(json!({"seed": 1}));
    let body = r#"{"model":"m","tools":[{"function":{"name":"f","strict":true}}],"x":1.0}"#;
    let expected = r#"{"model":"m","tools":[{"function":{"name":"f"}}],"x":1.0}"#;
    assert_eq!(run(body, &chat(&openai, "m")).unwrap().0, expected);
}

#[test]
fn brand_quirks() {
    let mistral = deployment(&AT_MISTRAL);
    let rows = [
        (r#"{"max_completion_tokens":5,"max_tokens":4}"#, r#"{"max_tokens":5}"#),
        (r#"{"max_completion_tokens":null,"max_tokens":4}"#, r#"{"max_tokens":4}"#),
        (r#"{"seed":7,"tool_choice":"required"}"#, r#"{"tool_choice":"any","random_seed":7}"#),
        (r#"{"tool_choice":"auto","stream_options":{}}"#, r#"{"tool_choice":"auto"}"#),
        (
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a\n"},{"type":"text","text":"é"}],"n":1.50}]}"#,
            r#"{"messages":[{"role":"user","content":"a\né","n":1.50}]}"#,
        ),
        (
            r#"{"messages":[{"content":[{"type":"text","text":"a"},{"type":"image_url","image_url":"http://x"}]}]}"#,
            r#"{"messages":[{"content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"http://x"}}]}]}"#,
        ),
        (r#"{"messages":[ {"content": "text"} ]}"#, r#"{"messages":[ {"content": "text"} ]}"#),
        (r#"{"messages":"\"text\""}"#, r#"{"messages":"\"text\""}"#),
    ];
    for (body, expected) in rows {
        assert_eq!(run(body, &chat(&mistral, "")).unwrap().0, expected, "{body}");
    }
    let openai = deployment(&AT_OPENAI);
    let body = r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"u","format":"image/png","detail":"low"}}]}, {"x": 1}]}"#;
    let expected = r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"u","detail":"low"}}]},{"x": 1}]}"#;
    assert_eq!(run(body, &chat(&openai, "")).unwrap().0, expected);
    let object = r#"{"messages":[ {"content":[{"type":"image_url","image_url":{"url":"u"}}]}]}"#;
    assert_eq!(run(object, &chat(&openai, "")).unwrap().0, object);
}

/// A message as a brand's server gets it.
fn message_at(brand: &str, host: &str, message: &Value) -> Value {
    let mut deployment = deployment(crate::core::provider::brand(brand).unwrap());
    deployment.endpoint.host = host.to_owned();
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}, message]}).to_string();
    let (body, _) = run(&body, &chat(&deployment, "m")).unwrap();
    serde_json::from_str::<Value>(&body).unwrap()["messages"][1].clone()
}

/// Groq: "property 'reasoning_content' is unsupported"; Mistral: "Extra inputs are not permitted"; DeepSeek: "unknown variant
/// `developer`". What a client got as a response it sends back as it is.
#[test]
fn messages_hold_what_the_brand_takes() {
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let mut signed = call.clone();
    signed["extra_content"] = json!({"google": {"thought_signature": "Ab="}});
    let mut streamed = signed.clone();
    streamed
        .as_object_mut()
        .unwrap()
        .extend([("index".to_owned(), json!(0)), ("provider_specific_fields".to_owned(), json!({}))]);
    let dumped = json!({"role": "assistant", "content": null, "tool_calls": [streamed], "function_call": null, "audio": null,
        "refusal": null, "reasoning_content": "hm", "thinking_blocks": [], "provider_specific_fields": {"a": null}});
    let clean = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let reasoned =
        json!({"role": "assistant", "content": null, "tool_calls": [call], "reasoning_content": "hm"});
    let google = json!({"role": "assistant", "content": null, "tool_calls": [signed]});
    let rows = [
        ("openai", "api.openai.com", &clean),
        ("openai", "my.server", &reasoned),
        ("azure", "x.openai.azure.com", &clean),
        ("groq", "h", &clean),
        ("mistral", "h", &clean),
        ("databricks", "h", &clean),
        ("deepseek", "h", &reasoned),
        ("moonshot", "h", &reasoned),
        ("hosted_vllm", "h", &reasoned),
        ("openrouter", "h", &reasoned),
        ("gemini", "h", &google),
    ];
    for (brand, host, expected) in rows {
        assert_eq!(message_at(brand, host, &dumped), *expected, "{brand} at {host}");
    }

    let developer = json!({"role": "developer", "content": "Be brief."});
    let system = json!({"role": "system", "content": "Be brief."});
    for brand in ["openai", "azure"] {
        assert_eq!(message_at(brand, "h", &developer), developer, "{brand}");
    }
    for brand in ["groq", "mistral", "deepseek", "hosted_vllm", "gemini", "openrouter", "openai_like", "xai"]
    {
        assert_eq!(message_at(brand, "h", &developer), system, "{brand}");
    }
    // What only reads like one of the words is a text.
    let said = json!({"role": "user", "content": "developer: \"role\": \"developer\", null"});
    assert_eq!(message_at("groq", "h", &said), said);
}

/// DeepSeek: "unknown variant `image_url`, expected `text`".
#[test]
fn images_are_named_where_none_are_taken() {
    let text = |text: &str| json!({"type": "text", "text": text});
    let image = json!({"type": "image_url", "image_url": {"url": "https://h/a.png"}});
    let user = |content: Value| json!({"role": "user", "content": content});
    let seen = user(json!([text("What is it?"), image, image]));
    let told = user(json!("What is it?[image][image]"));
    assert_eq!(message_at("deepseek", "h", &seen), told);
    assert_eq!(message_at("deepseek", "h", &user(json!([image]))), user(json!("[image]")));
    // A text that was cut within a character.
    let deepseek = deployment(crate::core::provider::brand("deepseek").unwrap());
    let half = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a\ud83d"}]}],"model":"m"}"#;
    let (sent, _) = run(half, &chat(&deepseek, "m")).unwrap();
    assert_eq!(sent, json!({"messages": [user(json!("a\u{fffd}"))], "model": "m"}).to_string());
    assert_eq!(message_at("moonshot", "h", &seen), seen);
}

/// Groq: "property 'annotations' is unsupported". OpenAI takes back what it has answered with.
#[test]
fn annotations_go_back_to_openai_only() {
    let message = |more: Value| {
        let mut message = json!({"role": "assistant", "content": "Hi."});
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message
    };
    for annotations in [json!([]), json!([{"type": "url_citation"}])] {
        let said = message(json!({"annotations": annotations}));
        assert_eq!(message_at("openai", "api.openai.com", &said), said);
        for brand in ["groq", "mistral", "deepseek"] {
            assert_eq!(message_at(brand, "h", &said), message(json!({})), "{brand}");
        }
    }
    assert_eq!(message_at("openai", "h", &message(json!({"annotations": null}))), message(json!({})));
}

/// Mistral: "Unexpected role 'user' after role 'tool'".
#[test]
fn the_model_has_a_word_where_only_it_may_speak_after_a_tool() {
    let tool = json!({"role": "tool", "tool_call_id": "c", "content": "x"});
    let (user, said) =
        (json!({"role": "user", "content": "a"}), json!({"role": "assistant", "content": "b"}));
    let done = json!({"role": "assistant", "content": "Done."});
    let rows = [
        (vec![&tool, &user], vec![&tool, &done, &user]),
        (vec![&tool, &tool, &user, &user], vec![&tool, &tool, &done, &user, &user]),
        (vec![&tool, &said, &user], vec![&tool, &said, &user]),
        (vec![&user, &tool], vec![&user, &tool]),
    ];
    let mistral = deployment(crate::core::provider::brand("mistral").unwrap());
    let groq = deployment(crate::core::provider::brand("groq").unwrap());
    for (given, expected) in rows {
        let body = json!({"model": "m", "messages": given}).to_string();
        let (sent, _) = run(&body, &chat(&mistral, "m")).unwrap();
        assert_eq!(sent, json!({"model": "m", "messages": expected}).to_string());
        assert_eq!(run(&body, &chat(&groq, "m")).unwrap().0, body);
    }
}

/// vLLM: "Unterminated string starting at: line 1 column 10".
#[test]
fn arguments_are_whole_where_the_server_reads_them() {
    let message = |arguments: &str| {
        let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}});
        json!({"role": "assistant", "content": null, "tool_calls": [call]})
    };
    let rows = [
        (r#"{"city": "Os"#, r#"{"arguments":"{\"city\": \"Os"}"#),
        ("[1]", r#"{"arguments":"[1]"}"#),
        (r#" {"a": 123456789012345678901}"#, r#" {"a": 123456789012345678901}"#),
        ("", ""),
    ];
    for (given, expected) in rows {
        assert_eq!(message_at("hosted_vllm", "h", &message(given)), message(expected), "{given}");
        assert_eq!(message_at("groq", "h", &message(given)), message(given), "{given}");
    }
}

#[test]
fn marks_for_a_cache_go_only_where_they_are_known() {
    let mark = json!({"type": "ephemeral"});
    let marked = json!({"role": "user", "cache_control": mark, "content": [
        {"type": "text", "text": "a", "cache_control": mark}, {"type": "image_url", "image_url": {"url": "http://h/a.png"}}]});
    let bare = json!({"role": "user", "content": [
        {"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "http://h/a.png"}}]});
    for brand in ["groq", "mistral", "hosted_vllm"] {
        assert_eq!(message_at(brand, "h", &marked), bare, "{brand}");
    }
    assert_eq!(message_at("deepseek", "h", &marked), json!({"role": "user", "content": "a[image]"}));
    for brand in ["openai", "openrouter", "gemini"] {
        assert_eq!(message_at(brand, "h", &marked), marked, "{brand}");
    }
    let groq = deployment(crate::core::provider::brand("groq").unwrap());
    let tools = r#"{"tools":[{"type":"function","function":{"name":"f","cache_control":{}},"cache_control":{}},{"a":1.0}]}"#;
    let (body, _) = run(tools, &chat(&groq, "")).unwrap();
    assert_eq!(body, r#"{"tools":[{"type":"function","function":{"name":"f"}},{"a":1.0}]}"#);
}

#[test]
fn reasoning_models_by_name() {
    let (openai, groq) = (deployment(&AT_OPENAI), deployment(&AT_GROQ));
    let mut azure = deployment(&AT_AZURE);
    azure.base_model = Some("azure/o3-mini".into());
    let body = r#"{"max_tokens":5,"temperature":1}"#;
    let renamed = r#"{"temperature":1,"model":"M","max_completion_tokens":5}"#;
    let same = r#"{"max_tokens":5,"temperature":1,"model":"M"}"#;
    let rows = [
        (&openai, "o1", renamed),
        (&openai, "o4-mini-2025-04-16", renamed),
        (&openai, "gpt-5-mini", renamed),
        (&openai, "gpt-5-chat-latest", same),
        (&openai, "gpt-4o", same),
        (&openai, "o2x", same),
        (&groq, "o1", same),
        (&azure, "my-deployment", renamed),
    ];
    for (deployment, model, expected) in rows {
        let sent = run(body, &chat(deployment, model)).unwrap().0;
        assert_eq!(sent, expected.replace('M', model), "{model}");
    }
    let warm = r#"{"temperature":0.5,"top_p":0.1}"#;
    let error = run(warm, &chat(&openai, "o1")).unwrap_err();
    assert!(error.message.contains("['top_p'], for model=o1"), "{}", error.message);
    let p = Prepare { drop_params: true, ..chat(&openai, "o1") };
    assert_eq!(run(warm, &p).unwrap().0, r#"{"model":"o1"}"#);
    let refusals = [
        ("o1", "O-series models don't support temperature=0.5. Only temperature=1 is supported. "),
        ("gpt-5", "gpt-5 doesn't support temperature=0.5 while reasoning is active. Only temperature=1 is "),
    ];
    for (model, said) in refusals {
        let error = run(r#"{"temperature":0.5}"#, &chat(&openai, model)).unwrap_err();
        let start = format!("litellm.UnsupportedParamsError: {said}");
        assert!(error.message.starts_with(&start), "{}", error.message);
        let allowed = r#"{"temperature":0.5,"allowed_openai_params":["temperature"]}"#;
        assert!(run(allowed, &chat(&openai, model)).unwrap().0.contains("0.5"), "{model}");
    }
}

#[test]
fn streams_are_asked_for_their_usage() {
    let (openai, mistral) = (deployment(&AT_OPENAI), deployment(&AT_MISTRAL));
    let rows = [
        (&openai, r#"{"stream":true}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#, false),
        (
            &openai,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            true,
        ),
        (
            &openai,
            r#"{"stream_options":{"include_usage":false,"x":1.0}}"#,
            r#"{"stream_options":{"include_usage":true,"x":1.0}}"#,
            false,
        ),
        (&openai, r#"{"stream_options":null}"#, r#"{"stream_options":{"include_usage":true}}"#, false),
        (&mistral, r#"{"stream_options":{"include_usage":true}}"#, "{}", true),
    ];
    for (deployment, body, expected, include_usage) in rows {
        let p = Prepare { streaming: true, ..chat(deployment, "") };
        let (sent, facts) = run(body, &p).unwrap();
        assert_eq!((sent.as_str(), facts.include_usage), (expected, include_usage), "{body}");
    }
    let (sent, facts) = run(r#"{"stream":false}"#, &chat(&openai, "")).unwrap();
    assert_eq!((sent.as_str(), facts.include_usage), (r#"{"stream":false}"#, false));
}

#[test]
fn a_body_to_be_translated_keeps_its_model_and_parameters() {
    let mut groq = deployment(&AT_GROQ);
    groq.extra_body = map(json!({"x": 1}));
    let mut body =
        Object::parse(br#"{"model":"group","logprobs":true,"num_retries":3,"drop_params":true}"#).unwrap();
    let facts = strip_and_default(&mut body, &chat(&groq, "m")).unwrap();
    assert_eq!(body.to_bytes(), br#"{"model":"group","logprobs":true}"#);
    assert!(facts.drop_params);
    assert_eq!(Value::Object(facts.extra_body), json!({"x": 1}));
}

#[test]
fn hostile_bodies_are_refused_or_passed_and_never_panic() {
    let (openai, mistral) = (deployment(&AT_OPENAI), deployment(&AT_MISTRAL));
    let paths = vec!["a"; 65];
    let many = json!({"additional_drop_params": paths}).to_string();
    assert_eq!(run(&many, &chat(&openai, "m")).unwrap_err().status(), 400);

    const VALUES: [&str; 14] = [
        "null",
        "true",
        "1e999",
        "-0.0",
        "\"\"",
        "\"text\"",
        "[]",
        "{}",
        "[null]",
        "[[\"image_url\"]]",
        "{\"a\":{}}",
        "[{\"content\":[{\"type\":\"text\",\"text\":\"\\ud800\"}]}]",
        "[{\"content\":[{\"type\":\"image_url\",\"image_url\":7}]},3]",
        "[\"tools[*].a[0]..\",\"messages[*].content[*].image_url\",\"tools[99999999999999999999]\"]",
    ];
    const NAMES: [&str; 14] = [
        "messages",
        "tools",
        "stream_options",
        "extra_body",
        "extra_headers",
        "additional_drop_params",
        "temperature",
        "allowed_openai_params",
        "drop_params",
        "max_tokens",
        "max_completion_tokens",
        "seed",
        "tool_choice",
        "model",
    ];
    let mut seed = 0x0123_4567_89ab_cdef_u64;
    let mut next = |limit: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % limit as u64) as usize
    };
    for _ in 0..3_000 {
        let members: Vec<String> =
            (0..5).map(|_| format!("\"{}\":{}", NAMES[next(14)], VALUES[next(14)])).collect();
        let body = format!("{{{}}}", members.join(","));
        for deployment in [&openai, &mistral] {
            let p = Prepare { streaming: next(2) == 0, ..chat(deployment, "o1") };
            match run(&body, &p) {
                Ok((sent, _)) => assert!(Object::parse(sent.as_bytes()).is_ok(), "{body} became {sent}"),
                Err(error) => assert_eq!(error.status(), 400, "{body}"),
            }
        }
    }
}
