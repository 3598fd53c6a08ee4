//! Limits and budgets of keys of the configuration, over whole requests.

use super::*;
use crate::core::{
    access,
    model::{
        meter::{Meter, MeterKind},
        money::Money,
    },
};

/// Two groups with prices of one and ten millionths of a dollar a token; a fallback for filtered answers; a mock.
const MODELS: &str = r#"
model_list:
  - {model_name: a, litellm_params: {model: openai/a1, api_base: "http://a.test/v1", api_key: k, input_cost_per_token: 0.000001, output_cost_per_token: 0.000001}}
  - {model_name: b, litellm_params: {model: openai/b1, api_base: "http://b.test/v1", api_key: k, input_cost_per_token: 0.00001, output_cost_per_token: 0.00001}}
  - {model_name: m, litellm_params: {model: openai/m1, api_base: "http://m.test/v1", api_key: k, mock_response: "hello", input_cost_per_token: 0.000001, output_cost_per_token: 0.000001}}
router_settings: {content_policy_fallbacks: [{a: [b]}], fallbacks: [{b: [a]}]}
"#;

/// A gateway with one key that has these members.
fn rig(members: &str) -> Rig {
    rig_of(members, "")
}

fn rig_of(members: &str, settings: &str) -> Rig {
    let key = access::hash(b"sk-one");
    let mut rig = Rig::new(&format!(
        "{MODELS}general_settings:\n  master_key: sk-master\n  keys: [{{token: {key}, {members}}}]\n{settings}"
    ));
    rig.key = Some("sk-one");
    rig
}

fn ok(rig: &mut Rig, model: &str) -> Story {
    rig.chat(hello(model), |_, model| Answer(200, completion(model)))
}

fn kind(story: &Story) -> String {
    let value: Value = serde_json::from_str(&story.body).unwrap();
    value["error"]["type"].as_str().unwrap_or("null").to_owned()
}

/// A request that stays in flight.
fn begin(rig: &mut Rig, body: Value) -> Result<Exchange, Reply> {
    let headers = rig.headers("/v1/chat/completions");
    let config = Rc::clone(&rig.config);
    quota::heartbeat(&rig.shared, Worker(1), rig.now_ms);
    let mut exchange = match open(&config, &headers, &mut rig.env()) {
        Opened { exchange: Some(exchange), next: Next::ReadBody } => *exchange,
        Opened { exchange: None, next: Next::Reply(reply) } => return Err(reply),
        _ => panic!("a call is ours"),
    };
    match exchange.on_body(body.to_string().as_bytes(), &mut rig.env()) {
        Next::Forward(_) => Ok(exchange),
        Next::Reply(reply) => {
            exchange.on_done(&mut rig.env());
            Err(reply)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_a_minute() {
    let mut rig = rig("rpm_limit: 3, tpm_limit: 1000000");
    for left in ["2", "1", "0"] {
        let story = ok(&mut rig, "a");
        assert_eq!((story.status, story.header("x-ratelimit-api_key-remaining-requests")), (200, Some(left)));
        assert_eq!(story.header("x-ratelimit-api_key-limit-requests"), Some("3"));
        assert_eq!(story.header("x-ratelimit-limit-requests"), Some("3"));
        assert_eq!(story.header("x-ratelimit-remaining-requests"), Some("9"), "the provider's own");
        assert_eq!(story.header("x-litellm-key-rpm-limit"), Some("3"));
        assert_eq!(story.header("x-litellm-key-spend"), Some("0.0"));
        rig.now_ms += 1_000;
    }
    let story = ok(&mut rig, "a");
    assert_eq!((story.status, kind(&story).as_str()), (429, "None"));
    let hash = access::hash(b"sk-one");
    // 1970-01-12 13:46:40 began the window.
    assert_eq!(
        story.message(),
        format!(
            "Rate limit exceeded for api_key: {hash}. Limit type: requests. Current limit: 3, Remaining: 0. \
             Limit resets at: 1970-01-12 13:47:40 UTC"
        )
    );
    assert_eq!(story.header("retry-after"), Some("57"));
    assert_eq!(story.header("rate_limit_type"), Some("requests"));
    assert_eq!(story.header("x-ratelimit-remaining-requests"), Some("0"));
    assert!(story.models.is_empty() && story.record.unwrap().cost.is_none());
    rig.now_ms += 57_000;
    assert_eq!(ok(&mut rig, "a").status, 200);
    // The master key has no limits.
    rig.key = Some("sk-master");
    assert!((0..5).all(|_| ok(&mut rig, "a").status == 200));
}

#[test]
fn tokens_a_minute_are_reserved_and_then_counted() {
    let mut rig = rig("tpm_limit: 2000");
    // 1,500 used, though 256 were expected.
    assert_eq!(ok(&mut rig, "a").status, 200);
    let answer = ok(&mut rig, "a");
    assert_eq!(answer.status, 200, "500 are left for an estimate of some 300");
    let refused = ok(&mut rig, "a");
    assert_eq!((refused.status, refused.header("rate_limit_type")), (429, Some("tokens")));
    rig.now_ms += 60_000;
    let mut body = hello("a");
    body["max_tokens"] = json!(3_000);
    let mut large = begin(&mut rig, body).unwrap();
    assert_eq!(ok(&mut rig, "a").status, 429, "all of the window is reserved");
    large.on_done(&mut rig.env());
    assert_eq!(ok(&mut rig, "a").status, 200, "nothing of it was used");
}

#[test]
fn pictures_are_not_counted_byte_by_byte() {
    let info = ", model_info: {max_input_tokens: 1000}}";
    let key = access::hash(b"sk-one");
    let models =
        MODELS.replacen("output_cost_per_token: 0.000001}}", "output_cost_per_token: 0.000001}#}", 1);
    let models = models.replace("}#}", &format!("}}{info}"));
    let keys = format!("  keys: [{{token: {key}, tpm_limit: 3000}}]\n");
    let mut rig = Rig::new(&format!("{models}general_settings:\n  master_key: sk-master\n{keys}"));
    rig.key = Some("sk-one");
    let picture = json!({"model": "a", "max_tokens": 100, "messages": [{"role": "user", "content": "x".repeat(400_000)}]});
    let mut large = begin(&mut rig, picture).unwrap();
    assert_eq!(ok(&mut rig, "a").status, 200, "1,100 of 3,000 are reserved");
    large.on_done(&mut rig.env());
}

#[test]
fn requests_at_a_time_leave_their_place() {
    let mut rig = rig("max_parallel_requests: 2");
    let first = begin(&mut rig, hello("a")).unwrap();
    let mut second = begin(&mut rig, hello("a")).unwrap();
    let refused = begin(&mut rig, hello("a")).err().unwrap();
    assert_eq!(refused.status, 429);
    assert!(
        String::from_utf8_lossy(&refused.body)
            .contains("Limit type: max_parallel_requests. Current limit: 2")
    );
    second.on_done(&mut rig.env());
    let third = begin(&mut rig, hello("a")).unwrap();
    for mut exchange in [first, third] {
        exchange.on_done(&mut rig.env());
        // Being told twice that it is over changes nothing.
        exchange.on_done(&mut rig.env());
    }
    assert!(begin(&mut rig, hello("a")).is_ok());
}

#[test]
fn budgets_count_what_was_used() {
    let mut rig = rig("max_budget: 0.002");
    let first = ok(&mut rig, "a");
    assert_eq!((first.status, first.header("x-litellm-key-max-budget")), (200, Some("0.002")));
    assert_eq!(first.header("x-litellm-key-spend"), Some("0.0"));
    assert_eq!(first.header("x-litellm-response-cost"), Some("0.0015"));
    let second = ok(&mut rig, "a");
    assert_eq!((second.status, second.header("x-litellm-key-spend")), (200, Some("0.0015")));
    let third = ok(&mut rig, "a");
    assert_eq!((third.status, kind(&third).as_str()), (400, "budget_exceeded"));
    assert_eq!(third.message(), "Budget has been exceeded! Current cost: 0.003, Max budget: 0.002");
    let body: Value = serde_json::from_str(&third.body).unwrap();
    assert_eq!(body["error"]["param"], Value::Null);
    // Nothing at all may be spent.
    let mut rig = self::rig("max_budget: 0");
    assert_eq!(ok(&mut rig, "a").status, 400);
}

#[test]
fn a_budget_starts_again_by_itself() {
    let mut rig = rig("max_budget: 0.001, budget_duration: 1d");
    assert_eq!((ok(&mut rig, "a").status, ok(&mut rig, "a").status), (200, 400));
    rig.now_ms += 86_400_000;
    assert_eq!(ok(&mut rig, "a").status, 200);
}

#[test]
fn limits_of_single_models() {
    let mut rig = rig(
        "model_rpm_limit: {a: 1}, model_max_budget: {b: {budget_limit: 0.001, time_period: 1d}}, key_alias: mine",
    );
    let first = ok(&mut rig, "a");
    assert_eq!(first.header("x-litellm-key-remaining-requests-a"), Some("0"));
    let hash = access::hash(b"sk-one");
    let second = ok(&mut rig, "a");
    assert_eq!(second.status, 429);
    assert!(second.message().starts_with(&format!("Rate limit exceeded for model_per_key: {hash}:a. ")));
    assert_eq!(ok(&mut rig, "b").status, 200);
    let over = ok(&mut rig, "b");
    assert_eq!(over.status, 400);
    assert_eq!(
        over.message(),
        format!("LiteLLM Virtual Key: {hash}, key_alias: mine, exceeded budget for model=b")
    );
}

#[test]
fn the_whole_gateway_has_limits_too() {
    let mut rig = rig_of("rpm_limit: 100", "  global_max_parallel_requests: 1\n");
    let mut first = begin(&mut rig, hello("a")).unwrap();
    let refused = begin(&mut rig, hello("a")).err().unwrap();
    assert!(String::from_utf8_lossy(&refused.body).contains("Rate limit exceeded for global"));
    first.on_done(&mut rig.env());

    let mut rig = rig_of("rpm_limit: 100", "litellm_settings: {max_budget: 0.001}\n");
    assert_eq!(ok(&mut rig, "a").status, 200);
    let over = ok(&mut rig, "a");
    assert_eq!(over.message(), "Budget has been exceeded! Current cost: 0.0015, Max budget: 0.001");
}

#[test]
fn an_answer_that_another_replaced_is_paid_for() {
    let mut rig = rig("max_budget: 1");
    let story = rig.chat(hello("a"), |attempt, model| {
        let mut answer = completion(model);
        if attempt == 0 {
            answer["choices"][0]["finish_reason"] = json!("content_filter");
        }
        Answer(200, answer)
    });
    assert_eq!((story.status, story.models.len()), (200, 2));
    // 1,500 tokens of each group.
    assert_eq!(story.header("x-litellm-response-cost"), Some("0.0165"));
    let record = story.record.unwrap();
    assert_eq!(record.cost, Money::parse("0.0165"));
    assert_eq!(record.usage.unwrap().total_tokens, 3_000);
    assert_eq!(ok(&mut rig, "a").header("x-litellm-key-spend"), Some("0.0165"));
}

#[test]
fn mocks_retries_and_fallbacks_are_settled() {
    let mut rig = rig("max_budget: 1, max_parallel_requests: 1");
    // 30 tokens of a mock, in advance.
    assert_eq!(ok(&mut rig, "m").status, 200);
    let story = rig.chat(hello("b"), |_, model| match model {
        "b1" => Answer(500, error("no", "x")),
        model => Answer(200, completion(model)),
    });
    assert_eq!(story.status, 200);
    let failed = rig.chat(hello("a"), |_, _| Answer(500, error("no", "x")));
    assert_eq!(failed.status, 500);
    assert_eq!(failed.header("x-litellm-key-spend"), Some("0.00153"), "errors tell the key's spend");
    assert_eq!(ok(&mut rig, "a").header("x-litellm-key-spend"), Some("0.00153"));
}

#[test]
fn who_goes_away_pays_for_what_had_begun() {
    // Steps: headers, body, attempt, the answer's headers, its parts.
    for (patience, spend) in [(0, "0.0"), (1, "0.0"), (2, "0.000015"), (3, "0.000015"), (9, "0.0015")] {
        let mut rig = rig("max_budget: 1, max_parallel_requests: 1");
        rig.patience = Some(patience);
        let story = rig.run("/v1/chat/completions", hello("a"), |_, model| Answer(200, completion(model)));
        assert_eq!(story.answers, u32::from(patience == 9), "{patience}");
        rig.patience = None;
        assert_eq!(ok(&mut rig, "a").header("x-litellm-key-spend"), Some(spend), "{patience}");
    }
}

#[test]
fn models_of_a_key() {
    let mut rig = rig("models: [a, cheap], aliases: {cheap: b}");
    assert_eq!(ok(&mut rig, "a").models, ["a1"]);
    assert_eq!(ok(&mut rig, "cheap").models, ["b1"], "an alias is renamed before routing");
    let story = ok(&mut rig, "m");
    assert_eq!((story.status, kind(&story).as_str()), (401, "key_model_access_denied"));
    let mut body = hello("a");
    body["fallbacks"] = json!(["m"]);
    let story = rig.chat(body, |_, model| Answer(200, completion(model)));
    assert_eq!(story.status, 401, "fallbacks that the client names are judged too");
    let list = |rig: &mut Rig, path: &str| {
        let headers =
            Headers::from_pairs(&[(":method", "GET"), (":path", path), ("authorization", "Bearer sk-one")]);
        let config = Rc::clone(&rig.config);
        let Opened { exchange: None, next: Next::Reply(reply) } = open(&config, &headers, &mut rig.env())
        else {
            panic!("answered here")
        };
        (reply.status, String::from_utf8(reply.body).unwrap())
    };
    let (_, names) = list(&mut rig, "/v1/models");
    assert!(
        names.contains(r#""id":"a""#) && names.contains(r#""id":"cheap""#) && !names.contains(r#""id":"m""#)
    );
    assert_eq!((list(&mut rig, "/models/a").0, list(&mut rig, "/models/m").0), (200, 404));
}

#[test]
fn the_reference_decides_what_is_told_first() {
    // A budget comes before the reference's later checks, and after its earlier ones.
    let mut rig = rig_of("max_budget: 0, models: [a]", "  enforce_user_param: true\n");
    assert_eq!(kind(&ok(&mut rig, "b")), "key_model_access_denied");
    assert_eq!(kind(&ok(&mut rig, "a")), "budget_exceeded");
    let mut rig = rig_of("max_budget: 1, rpm_limit: 0", "  enforce_user_param: true\n");
    assert_eq!(
        ok(&mut rig, "a").message(),
        "Authentication Error, 'user' param not passed in. 'enforce_user_param'=True"
    );
    let mut rig = self::rig("max_budget: 0, rpm_limit: 0");
    assert_eq!(kind(&ok(&mut rig, "a")), "budget_exceeded", "money before rates");
}

#[test]
fn a_key_without_limits_touches_nothing_shared() {
    struct Watched(Memory, std::cell::RefCell<Vec<String>>);
    impl crate::core::host::Store for Watched {
        fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
            self.1.borrow_mut().push(key.to_owned());
            self.0.get(key)
        }
        fn set(&self, key: &str, value: &[u8], version: Option<u32>) -> bool {
            self.1.borrow_mut().push(key.to_owned());
            self.0.set(key, value, version)
        }
        fn secret(&self) -> crate::core::host::Secret {
            crate::core::store::read_secret(self).unwrap_or_default()
        }
        fn succeeded(&self, deployment: &str, minute: u64) {
            self.0.succeeded(deployment, minute);
        }
        fn successes(&self, deployment: &str, minute: u64) -> u64 {
            self.0.successes(deployment, minute)
        }
    }
    let mut rig = rig("models: [a]");
    let watched = Watched(Memory::default(), std::cell::RefCell::default());
    let (headers, config) = (rig.headers("/v1/chat/completions"), Rc::clone(&rig.config));
    let mut env = Env { shared: &watched, ..rig.env() };
    let Opened { exchange: Some(mut exchange), next: Next::ReadBody } = open(&config, &headers, &mut env)
    else {
        panic!("a call is ours")
    };
    let begin = exchange.on_body(hello("a").to_string().as_bytes(), &mut env);
    assert!(matches!(begin, Next::Forward(_)));
    exchange.on_done(&mut env);
    let touched: Vec<String> =
        watched.1.borrow().iter().filter(|key| !key.starts_with("cooldown")).cloned().collect();
    assert_eq!(touched, Vec::<String>::new());
}

#[test]
fn a_request_with_two_hosts_is_refused_whoever_sends_it() {
    let mut rig = rig("rpm_limit: 3");
    let config = Rc::clone(&rig.config);
    for (path, host, status) in [
        ("/health/liveliness", "a", 200),
        ("/health/liveliness", "a,b", 400),
        ("/health/liveliness", "a,a", 400),
        ("/v1/models", "a, b", 400),
    ] {
        let headers = Headers::from_pairs(&[
            (":method", "GET"),
            (":path", path),
            (":authority", host),
            ("authorization", "Bearer sk-one"),
        ]);
        match open(&config, &headers, &mut rig.env()).next {
            Next::Reply(reply) => assert_eq!(reply.status, status, "{path} {host}"),
            _ => panic!("answered here"),
        }
    }
}

#[test]
fn the_answer_shows_what_it_used() {
    let mut rig = rig("tpm_limit: 10000");
    let story = ok(&mut rig, "b");
    // 1,500 tokens, though fewer were reserved.
    assert_eq!(story.header("x-ratelimit-api_key-remaining-tokens"), Some("8500"));
    assert_eq!(story.header("x-ratelimit-api_key-limit-tokens"), Some("10000"));
    assert_eq!(ok(&mut rig, "b").header("x-ratelimit-api_key-remaining-tokens"), Some("7000"));
}

#[test]
fn what_costs_nothing_goes_on_without_money() {
    let free = "  - {model_name: free, litellm_params: {model: openai/f1, api_base: \"http://f.test/v1\", api_key: k, input_cost_per_token: 0, output_cost_per_token: 0}}\n  \
        - {model_name: unknown, litellm_params: {model: openai/u1, api_base: \"http://u.test/v1\", api_key: k}}\n  \
        - {model_name: falls, litellm_params: {model: openai/f2, api_base: \"http://f.test/v1\", api_key: k, input_cost_per_token: 0, output_cost_per_token: 0}}\n\
        router_settings: {fallbacks: [{falls: [a]}, {b: [a]}]}\n";
    let models = MODELS.split("router_settings").next().unwrap();
    let key = access::hash(b"sk-one");
    let mut rig = Rig::new(&format!(
        "{models}{free}litellm_settings: {{max_budget: 0.0001, budget_duration: 1d}}\ngeneral_settings:\n  \
         master_key: sk-master\n  keys: [{{token: {key}, max_budget: 0, rpm_limit: 3}}]\n"
    ));
    rig.key = Some("sk-one");
    // (model, status): what may cost something, now or in a fallback, does not go on.
    for (model, status) in [("a", 400), ("free", 200), ("unknown", 400), ("falls", 400), ("free", 200)] {
        assert_eq!(ok(&mut rig, model).status, status, "{model}");
    }
    assert_eq!(ok(&mut rig, "free").status, 200);
    assert_eq!(ok(&mut rig, "free").status, 429, "rates hold");
}

#[test]
fn refused_calls_are_counted_for_the_model_that_they_ask_for() {
    let key = access::hash(b"sk-one");
    let models = MODELS.split("router_settings").next().unwrap();
    let counted = |limits: &str, path: &str, model: &str| {
        let mut rig = Rig::new(&format!(
            "{models}  - {{model_name: 'any/*', litellm_params: {{model: 'openai/*', api_key: k}}}}\n\
             general_settings:\n  master_key: sk-master\n  keys: [{{token: {key}, {limits}}}]\n"
        ));
        rig.key = Some("sk-one");
        let story = rig.call(path, hello(model), |_, _| panic!("no call"));
        assert!(story.status >= 400, "{limits} {model}");
        record::counted_model(&story.record.unwrap(), &rig.config).into_owned()
    };
    const CHAT: &str = "/v1/chat/completions";
    for (limits, path, model, expected) in [
        ("max_budget: 0", CHAT, "a", "a"),
        ("max_budget: 0", CHAT, "any/gpt-4o", "any/*"),
        ("models: [b]", CHAT, "a", "a"),
        ("models: [b]", CHAT, "nonsense", "other"),
        // Its body was not read.
        ("blocked: true", CHAT, "a", "other"),
        ("blocked: true", "/openai/deployments/a/chat/completions", "", "a"),
    ] {
        assert_eq!(counted(limits, path, model), expected, "{limits} {path} {model}");
    }
}

#[test]
fn what_costs_nothing_behind_a_wildcard_goes_on_without_money() {
    let models = "model_list:\n  \
        - {model_name: 'gemini/*', litellm_params: {model: 'gemini/*', api_base: \"http://f.test/v1\", api_key: k}}\n  \
        - {model_name: 'own/*', litellm_params: {model: 'openai/*', api_base: \"http://f.test/v1\", api_key: k, input_cost_per_token: 0, output_cost_per_token: 0}}\n";
    let key = access::hash(b"sk-one");
    let mut rig = Rig::new(&format!(
        "{models}general_settings:\n  master_key: sk-master\n  keys: [{{token: {key}, max_budget: 0}}]\n"
    ));
    rig.key = Some("sk-one");
    for (model, status) in [
        ("gemini/gemma-3-27b-it", 200),
        ("gemini/gemini-2.5-pro", 400),
        ("gemini/unheard-of", 400),
        ("own/anything", 200),
    ] {
        assert_eq!(ok(&mut rig, model).status, status, "{model}");
    }
}

#[test]
fn another_teams_model_is_none() {
    let models = "model_list:\n  \
        - {model_name: mine, litellm_params: {model: openai/a, api_key: k}}\n  \
        - {model_name: theirs, litellm_params: {model: openai/b, api_key: k}, model_info: {id: t1, team_id: other, team_public_model_name: x}}\n\
        general_settings: {master_key: sk-master}\n";
    let mut rig = Rig::new(models);
    rig.key = Some("sk-master");
    for model in ["theirs", "x", "nonsense"] {
        let story = ok(&mut rig, model);
        assert_eq!(story.status, 400, "{model}");
        assert!(
            story.body.contains(&format!("Invalid model name passed in model={model}")),
            "{}",
            story.body
        );
    }
    assert_eq!(ok(&mut rig, "t1").status, 200, "who has the master key may ask for it by its id");
}

#[test]
fn a_number_of_a_client_reserves_no_more_than_the_model_can_answer() {
    let info = "model_info: {max_output_tokens: 5000}";
    let models = MODELS.replacen(
        "output_cost_per_token: 0.000001}}",
        &format!("output_cost_per_token: 0.000001}}, {info}}}"),
        1,
    );
    let key = access::hash(b"sk-one");
    let keys = format!("  keys: [{{token: {key}, max_budget: 100, tpm_limit: 100000000}}]\n");
    // (max_tokens, n, model, tokens that are held less those of the prompt)
    let rows = [
        (json!(10), json!(null), "a", 10),
        (json!(10), json!(3), "a", 30),
        (json!(1_000_000_000_000_u64), json!(null), "a", 5_000),
        (json!(i64::MAX), json!(2), "a", 10_000),
        (json!(10), json!(i64::MAX), "a", 1_280),
        // Nobody knows how long its answers can be: as sixteen typical ones.
        (json!(i64::MAX), json!(null), "b", 4_096),
    ];
    for (most, choices, model, expected) in rows {
        let mut rig = Rig::new(&format!("{models}general_settings:\n  master_key: sk-master\n{keys}"));
        rig.key = Some("sk-one");
        let mut body = hello(model);
        body["max_tokens"] = most.clone();
        body["n"] = choices.clone();
        let prompt = (body.to_string().len() as u64).div_ceil(4);
        let mut exchange = begin(&mut rig, body).unwrap();
        let held = quota::counts(&rig.shared, std::iter::once(&Meter::new(MeterKind::Key, &key)), rig.now_ms);
        assert_eq!(held[0].tokens, expected + prompt, "{model} {most} {choices}");
        exchange.on_done(&mut rig.env());
    }
}

/// What becomes of a call whose body of 32 MiB is announced, and of one whose body only turns out to be long.
fn long_bodies(rig: &mut Rig) -> [Option<Reply>; 2] {
    let config = Rc::clone(&rig.config);
    let mut open_with = |announced: Option<&[u8]>, length: Option<usize>| {
        let mut headers = rig.headers("/v1/chat/completions");
        announced.into_iter().for_each(|length| headers.push("content-length", length));
        quota::heartbeat(&rig.shared, Worker(1), rig.now_ms);
        let Opened { exchange: Some(mut exchange), next: Next::ReadBody } =
            open(&config, &headers, &mut rig.env())
        else {
            panic!("a call")
        };
        let early = match (exchange.on_headers(0, &mut rig.env()), length) {
            (Next::ReadBody, Some(length)) => exchange.on_body_part(length, &mut rig.env()),
            (next, _) => next,
        };
        exchange.on_done(&mut rig.env());
        match early {
            Next::Reply(reply) => Some(reply),
            next => {
                assert_eq!(next, Next::ReadBody);
                None
            }
        }
    };
    assert_eq!(open_with(Some(b"100"), Some(65_536)), None, "short bodies are judged with their model");
    [open_with(Some(b"33554432"), None), open_with(None, Some(65_537))]
}

#[test]
fn a_long_body_is_not_waited_for_when_its_caller_may_call_nothing() {
    let free = "  - {model_name: free, litellm_params: {model: openai/f1, api_base: \"http://f.test/v1\", api_key: k, input_cost_per_token: 0, output_cost_per_token: 0}}\n";
    let paid = MODELS.split("router_settings").next().unwrap();
    let key = access::hash(b"sk-one");
    // (models, members of the key, settings, status and type of the refusal)
    let rows = [
        (paid.to_owned(), "max_budget: 0", "", Some((400, "budget_exceeded"))),
        (
            paid.to_owned(),
            "budget_limits: [{budget_duration: 1d, max_budget: 0}]",
            "",
            Some((400, "budget_exceeded")),
        ),
        (paid.to_owned(), "max_budget: 1", "", None),
        (paid.to_owned(), "rpm_limit: 0", "", Some((429, "None"))),
        (paid.to_owned(), "max_parallel_requests: 0", "", Some((429, "None"))),
        // What one model may not, another may.
        (paid.to_owned(), "model_rpm_limit: {a: 0}, model_max_budget: {a: {budget_limit: 0}}", "", None),
        // A model that costs nothing is called without money, so the body has to say which it is.
        (format!("{paid}{free}"), "max_budget: 0", "", None),
        (format!("{paid}{free}"), "max_budget: 0, rpm_limit: 0", "", Some((429, "None"))),
    ];
    for (models, members, settings, expected) in rows {
        let mut rig = Rig::new(&format!(
            "{models}general_settings:\n  master_key: sk-master\n  keys: [{{token: {key}, {members}}}]\n{settings}"
        ));
        rig.key = Some("sk-one");
        for reply in long_bodies(&mut rig) {
            let got = reply.as_ref().map(|reply| {
                let body: Value = serde_json::from_slice(&reply.body).unwrap();
                (reply.status, body["error"]["type"].as_str().unwrap_or("null").to_owned())
            });
            assert_eq!(got, expected.map(|(status, kind)| (status, kind.to_owned())), "{members}");
        }
    }
}
