//! What a caller says of its own request never costs anybody else: mocks, time-outs, retries, addresses.

use super::*;
use crate::core::{
    access,
    model::{
        limits::Limits,
        meter::{Meter, MeterKind},
        money::Money,
        rule::{Base, Rule},
    },
};

const PRICES: &str = "input_cost_per_token: 0.000001, output_cost_per_token: 0.000001";

/// Two deployments with limits, a budget of the whole gateway, one key with a budget.
fn rig(settings: &str) -> Rig {
    let key = access::hash(b"sk-one");
    let mut rig = Rig::new(&format!(
        r#"
model_list:
  - {{model_name: a, litellm_params: {{model: openai/a1, api_base: "http://a.test/v1", api_key: k, max_budget: 5, rpm: 100, max_parallel_requests: 1, {PRICES}}}, model_info: {{id: a1}}}}
  - {{model_name: c, litellm_params: {{model: anthropic/c1, api_base: "http://c.test", api_key: k, {PRICES}}}}}
  - {{model_name: e, litellm_params: {{model: openai/e1, api_base: "http://e.test/v1", api_key: k, timeout: 10, {PRICES}}}, model_info: {{id: e1}}}}
litellm_settings: {{max_budget: 1000}}
general_settings: {{master_key: sk-master, keys: [{{token: {key}, max_budget: 1}}]}}
{settings}"#
    ));
    rig.key = Some("sk-one");
    rig
}

fn with(model: &str, members: Value) -> Value {
    let mut body = hello(model);
    for (name, value) in members.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn spend_of(rig: &Rig, kind: MeterKind, id: &str) -> Money {
    let rule = Rule {
        owner: None,
        kind,
        meter: Meter::new(kind, id),
        limits: Limits { rpm: Some(100), ..Limits::default() },
        max_budget: Some(Money::parse("1000").unwrap()),
        base: Base::default(),
        resets: None,
    };
    quota::standing(&rig.shared, &rule, rig.now_ms).spend
}

#[test]
fn a_mocks_usage_is_the_gateways_own() {
    let forged = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "gpt-4o",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi there"}}],
        "usage": {"prompt_tokens": 1_000_000_000, "completion_tokens": 1_000_000_000, "total_tokens": 2_000_000_000}});
    let vector = json!([0.5, 0.5]);
    let rows = [
        ("/v1/chat/completions", json!("hi there"), 30),
        ("/v1/chat/completions", forged.clone(), 30),
        ("/v1/completions", forged.clone(), 30),
        ("/v1/messages", forged.clone(), 30),
        ("/v1/embeddings", vector, 10),
        ("/v1/embeddings", forged, 10),
    ];
    for (path, mock, tokens) in rows {
        for streaming in [false, true] {
            for model in ["a", "c"] {
                let mut rig = rig("");
                let input = json!({"mock_response": mock, "stream": streaming, "prompt": "x", "input": "x", "max_tokens": 5});
                let story = rig.call(path, with(model, input), |_, _| panic!("no call"));
                if path == "/v1/embeddings" && model == "c" {
                    assert_eq!(story.status, 200);
                }
                let what = format!("{path} {model} {streaming}: {}", story.body);
                let record = story.record.unwrap();
                assert_eq!(story.status, 200, "{what}");
                assert_eq!(record.usage.unwrap().total_tokens, tokens, "{what}");
                assert_eq!(record.cost, Some(Money::from_pico(1_000_000 * i128::from(tokens))), "{what}");
                assert!(!story.body.contains("1000000000"), "{what}");
                let hash = access::hash(b"sk-one");
                assert_eq!(
                    spend_of(&rig, MeterKind::Key, &hash),
                    record.cost.unwrap(),
                    "its caller pays: {what}"
                );
                for (kind, id) in
                    [(MeterKind::Global, ""), (MeterKind::Deployment, "a1"), (MeterKind::Provider, "openai")]
                {
                    assert_eq!(spend_of(&rig, kind, id), Money::ZERO, "{id} has paid nothing: {what}");
                }
                assert_eq!(
                    quota::counts(
                        &rig.shared,
                        [&Meter::new(MeterKind::Deployment, "a1")].into_iter(),
                        rig.now_ms
                    )[0]
                    .requests,
                    0
                );
                if streaming && path == "/v1/chat/completions" {
                    assert!(story.body.contains(r#""content":"there""#), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_mock_waits_without_a_place() {
    let mut rig = rig("");
    let headers = rig.headers("/v1/chat/completions");
    let config = Rc::clone(&rig.config);
    quota::heartbeat(&rig.shared, Worker(1), rig.now_ms);
    let Opened { exchange: Some(mut exchange), next: Next::ReadBody } =
        open(&config, &headers, &mut rig.env())
    else {
        panic!("a call is ours")
    };
    let body = with("a", json!({"mock_timeout": true, "timeout": 600})).to_string();
    assert_eq!(exchange.on_body(body.as_bytes(), &mut rig.env()), Next::Wait(600_000));
    let story = rig.chat(hello("a"), |_, model| Answer(200, completion(model)));
    assert_eq!(story.status, 200, "the only place of the deployment is free");
    exchange.on_done(&mut rig.env());
}

#[test]
fn mocks_can_be_shut_off_for_keys() {
    for member in [
        json!({"mock_response": "x"}),
        json!({"mock_timeout": true}),
        json!({"mock_testing_fallbacks": true}),
        json!({"mock_tool_calls": []}),
    ] {
        let mut rig = rig("tollgate_settings: {allow_client_mocks: false}");
        let story = rig.chat(with("a", member.clone()), |_, _| panic!("no call"));
        assert_eq!(story.status, 403, "{member}");
        assert!(story.message().contains("`tollgate_settings.allow_client_mocks`"), "{}", story.message());
        rig.key = Some("sk-master");
        let story = rig.chat(with("a", member.clone()), |_, model| Answer(200, completion(model)));
        assert_ne!(story.status, 403, "{member}");
    }
    let mut rig = rig("tollgate_settings: {allow_client_mocks: false}");
    let story =
        rig.chat(with("a", json!({"mock_response": null})), |_, model| Answer(200, completion(model)));
    assert_eq!(story.status, 200);
}

#[test]
fn a_busy_group_is_mocked_for_its_first_attempt() {
    let settings = "router_settings: {num_retries: 3, disable_cooldowns: true}";
    let body = with("a", json!({"mock_testing_rate_limit_error": true}));
    let story = rig(settings).chat(body.clone(), |_, model| Answer(200, completion(model)));
    assert_eq!((story.status, story.models.len()), (200, 1), "{}", story.body);
    assert_eq!(story.header("x-litellm-attempted-retries"), Some("1"));
    assert_eq!(story.header("x-litellm-max-retries"), Some("3"));
    let story = rig("router_settings: {num_retries: 0}").chat(body, |_, _| panic!("no call"));
    assert_eq!(story.status, 429);
    assert!(story.message().contains("litellm.RateLimitError"), "{}", story.message());
}

#[test]
fn a_client_in_a_hurry_sends_nobody_to_rest() {
    let tired = |asked: Value, hangs: fn() -> Behaviour, strategy: &str| {
        let settings = format!(
            "router_settings: {{num_retries: 0, allowed_fails: 1, cooldown_time: 60, routing_strategy: {strategy}}}"
        );
        let mut rig = rig(&settings);
        for _ in 0..6 {
            let story = rig.chat(with("e", asked.clone()), |_, _| hangs());
            assert!([408, 429].contains(&story.status), "{asked}: {}", story.body);
        }
        rig.chat(hello("e"), |_, model| Answer(200, completion(model))).status
    };
    for strategy in ["simple-shuffle", "latency-based-routing"] {
        for asked in [
            json!({"timeout": 0.05}),
            json!({"request_timeout": 9}),
            json!({"stream": true, "stream_timeout": 1}),
        ] {
            assert_eq!(tired(asked.clone(), || Hang, strategy), 200, "{asked}");
        }
        for asked in [json!({}), json!({"timeout": 10}), json!({"timeout": 11})] {
            assert_eq!(tired(asked.clone(), || Hang, strategy), 429, "its own time-out is over: {asked}");
        }
        let says_so = || Answer(504, error("upstream timed out", "x"));
        assert_eq!(tired(json!({"timeout": 0.05}), says_so, strategy), 429, "the provider says so itself");
    }
}

#[test]
fn retries_that_a_client_asks_for_are_few() {
    let calls = |settings: &str, asked: Value| {
        let settings = format!("router_settings: {{disable_cooldowns: true, num_retries: 0}}\n{settings}");
        rig(&settings).chat(with("e", asked), |_, _| Answer(500, error("no", "x"))).models.len()
    };
    let most = json!({"num_retries": 2_147_483_647});
    assert_eq!(calls("", most.clone()), 11);
    assert_eq!(calls("", json!({"num_retries": 3})), 4);
    assert_eq!(calls("tollgate_settings: {max_client_retries: 2}", most.clone()), 3);
    assert_eq!(calls("tollgate_settings: {max_client_retries: 0}", most.clone()), 1);
    assert_eq!(calls("tollgate_settings: {max_client_retries: 20}", most), 21);
}

#[test]
fn only_trusted_proxies_name_the_client() {
    let rows = [
        // allowed address, trusted hops, X-Forwarded-For, whether it comes in. The connection is 192.0.2.1's.
        ("10.0.0.1", "", Some("10.0.0.1"), true),
        ("10.0.0.1", "", Some("10.0.0.1, 203.0.113.9"), false),
        ("203.0.113.9", "", Some("10.0.0.1, 203.0.113.9"), true),
        ("203.0.113.9", "", Some("10.0.0.1,203.0.113.9 "), true),
        ("203.0.113.9", "xff_num_trusted_hops: 2", Some("10.0.0.1, 203.0.113.9, 10.0.0.2"), true),
        ("10.0.0.2", "xff_num_trusted_hops: 2", Some("10.0.0.1, 203.0.113.9, 10.0.0.2"), false),
        ("192.0.2.1", "xff_num_trusted_hops: 2", Some("203.0.113.9"), true),
        ("203.0.113.9", "xff_num_trusted_hops: 2", Some("203.0.113.9"), false),
        ("192.0.2.1", "", Some(""), true),
        ("192.0.2.1", "", None, true),
    ];
    for (allowed, hops, forwarded, comes_in) in rows {
        let config = format!(
            "model_list: [{{model_name: a, litellm_params: {{model: openai/a1, api_key: k}}}}]\n\
             general_settings: {{allowed_ips: [{allowed}], use_x_forwarded_for: true}}\ntollgate_settings: {{{hops}}}\n"
        );
        let mut rig = Rig::new(&config);
        let mut headers = rig.headers("/v1/chat/completions");
        forwarded.into_iter().for_each(|list| headers.push("x-forwarded-for", list.as_bytes()));
        let config = Rc::clone(&rig.config);
        let opened = open(&config, &headers, &mut rig.env());
        let what = format!("{allowed} {hops} {forwarded:?}");
        assert_eq!(matches!(opened, Opened { exchange: Some(_), next: Next::ReadBody }), comes_in, "{what}");
    }
}

#[test]
fn the_default_model_is_for_those_who_may_call_it() {
    let ask = json!({"messages": [{"role": "user", "content": "hi"}], "prompt": "hi", "input": "hi", "max_tokens": 5});
    let rig_for = |members: &str, models: &str| {
        let key = access::hash(b"sk-one");
        let mut rig = Rig::new(&format!(
            "model_list: [{models}]\ngeneral_settings: {{master_key: sk-master, keys: [{{token: {key}, {members}}}]}}\n"
        ));
        rig.key = Some("sk-one");
        rig
    };
    let model = |name: &str| {
        format!(
            "{{model_name: '{name}', litellm_params: {{model: 'openai/{name}', api_base: 'http://a.test/v1', api_key: k}}}}"
        )
    };
    let two = [model("first"), model("second")].join(",");
    for (members, may) in [("models: []", true), ("models: [first]", true), ("models: [second]", false)] {
        let story = rig_for(members, &two).chat(ask.clone(), |_, model| Answer(200, completion(model)));
        assert_eq!(story.status == 200, may, "{members}");
    }
    for (path, named) in [("/v1/chat/completions", "/chat/completions"), ("/v1/embeddings", "/embeddings")] {
        for mut rig in [rig_for("models: [second]", &two), rig_for("models: []", &model("any/*"))] {
            let story = rig.call(path, ask.clone(), |_, _| panic!("no call"));
            assert_eq!(story.status, 400, "{path}");
            let wanted = format!(
                "{{'error': '{named}: Invalid model name passed in model=None. Call `/v1/models` to view available models for your key.'}}"
            );
            assert_eq!(story.message(), wanted);
            assert!(!story.body.contains("first"), "a model that nobody named: {}", story.body);
        }
    }
    let mut rig = rig_for("models: [second]", &two);
    rig.key = Some("sk-master");
    assert_eq!(rig.chat(ask, |_, model| Answer(200, completion(model))).models, ["first"]);
}

#[test]
fn errors_and_the_master_key_have_their_headers() {
    let mut rig = rig("router_settings: {num_retries: 0, disable_cooldowns: true}");
    assert_eq!(rig.chat(hello("a"), |_, model| Answer(200, completion(model))).status, 200);
    let failed = rig.chat(hello("a"), |_, _| Answer(500, error("no", "x")));
    let told = |story: &Story, name: &str| story.header(name).map(str::to_owned);
    assert_eq!(told(&failed, "x-litellm-key-spend").as_deref(), Some("0.0015"));
    assert_eq!(told(&failed, "x-litellm-response-cost").as_deref(), Some("0"));
    let shape: Value = serde_json::from_str(&failed.body).unwrap();
    assert_eq!(shape["error"]["type"], Value::Null, "a provider's failure has no type");
    let broken = rig.chat(with("a", json!({"timeout": -1})), |_, _| panic!("no call"));
    assert_eq!((broken.status, broken.header("x-litellm-response-cost")), (400, Some("0")));
    assert!(broken.header("x-litellm-key-spend").is_some());
    let late = rig.chat(with("a", json!({"timeout": 1})), |_, _| Hang);
    assert_eq!(late.header("x-litellm-timeout"), Some("1.0"));
    let late = rig.chat(with("a", json!({"timeout": 0.05})), |_, _| Hang);
    assert_eq!(late.header("x-litellm-timeout"), Some("0.05"));
    rig.key = Some("sk-master");
    let good = rig.chat(hello("a"), |_, model| Answer(200, completion(model)));
    assert_eq!(good.header("x-litellm-key-spend"), Some("0.0"));
    let unknown = rig.chat(hello("nobody"), |_, _| panic!("no call"));
    assert_eq!((unknown.status, unknown.header("x-litellm-key-spend")), (400, Some("0.0")));
    let shape: Value = serde_json::from_str(&unknown.body).unwrap();
    assert_eq!(shape["error"]["type"], "None");
}
