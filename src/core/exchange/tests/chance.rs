//! Ten thousand requests against providers that do anything at all: no panic, one answer each, and never more calls than
//! Envoy was told of.

use super::*;

const FILE: &str = r#"
model_list:
  - {model_name: a, litellm_params: {model: openai/a1, api_base: "http://a.test/v1", api_key: k}}
  - {model_name: a, litellm_params: {model: azure/a2, api_base: "http://b.test", api_version: "1", api_key: k}}
  - {model_name: b, litellm_params: {model: anthropic/b1, api_base: "http://c.test", api_key: k}}
  - {model_name: c, litellm_params: {model: mistral/c1, api_base: "http://d.test/v1", api_key: k, num_retries: 3}}
  - {model_name: "x/*", litellm_params: {model: "openai/*", api_base: "http://e.test/v1", api_key: k}}
  - {model_name: m, litellm_params: {model: openai/m1, api_base: "http://f.test/v1", api_key: k, mock_response: "hello"}}
router_settings:
  num_retries: 1
  cooldown_time: 1
  fallbacks: [{a: [b, c]}, {b: [a]}, {c: [m, a]}]
  context_window_fallbacks: [{a: [c]}, {c: [b]}]
  content_policy_fallbacks: [{a: [b]}, {b: [c]}]
  retry_policy: {RateLimitErrorRetries: 2, BadRequestErrorRetries: 1}
"#;

/// What a provider may do, `bits` deciding.
fn behaviour(bits: u64, model: &str, streaming: bool) -> Behaviour {
    const STATUSES: [u16; 16] =
        [400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 429, 500, 502, 503, 504, 529];
    const BODIES: [&str; 9] = [
        "",
        "{",
        "null",
        "[]",
        "<html>oops</html>",
        r#"{"error":{"code":"context_length_exceeded","message":"too long"}}"#,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long"}}"#,
        r#"{"error":{"code":"content_filter","message":"no"}}"#,
        r#"{"error":null,"choices":5}"#,
    ];
    const STREAMS: [&str; 8] = [
        "data: {\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"hi\"}}]}\n\ndata: {\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"b1\",\"content\":[],\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hi\"}}\n\nevent: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":2}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        "data: {\"error\":{\"message\":\"late\",\"code\":429}}\n\n",
        "data: {not json}\n\n",
        "data: [DONE]\n\n",
        ": nothing\n\n",
        "data: \u{fffd}",
        "",
    ];
    let pick = |shift: u64, length: usize| (bits >> shift) as usize % length;
    let split = |text: &str| -> Vec<Vec<u8>> {
        let size = pick(40, text.len().max(1)) + 1;
        text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect()
    };
    let raw = |status: u16, kind: &str, text: &str, cut: bool| {
        let headers = vec![
            ("content-type", kind.to_owned()),
            ("retry-after", ["1", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "x"][pick(50, 4)].to_owned()),
        ];
        Raw(Raw { status, headers, pieces: split(text), cut })
    };
    let good = if model == "b1" { message() } else { completion(model) };
    let stream = STREAMS[if model == "b1" { 1 } else { 0 }];
    match pick(0, 12) {
        0 => Refuse,
        1 => Hang,
        2 | 3 => raw(STATUSES[pick(8, 16)], "application/json", BODIES[pick(16, 9)], false),
        4 => raw(STATUSES[pick(8, 16)], "text/html", BODIES[pick(16, 9)], true),
        5 => raw(200, "application/json", BODIES[pick(16, 9)], false),
        6 => raw(200, "text/event-stream", STREAMS[pick(16, 8)], false),
        7 => raw(200, "text/event-stream", &stream[..pick(24, stream.len())], true),
        8 => raw(200, "application/json", &good.to_string(), pick(24, 3) == 0),
        9 => raw([204, 201, 302, 999][pick(8, 4)], "application/json", BODIES[pick(16, 9)], false),
        _ if streaming => raw(200, "text/event-stream", stream, false),
        _ => Answer(200, good),
    }
}

/// A path and a body, `chance` deciding.
fn request(chance: &mut Random) -> (&'static str, Value) {
    let mut below = |n: usize| chance.bits() as usize % n;
    let path =
        ["/v1/chat/completions", "/v1/messages", "/v1/completions", "/v1/embeddings"][below(8) % 5 % 4];
    let model = ["a", "b", "c", "x/gpt", "m", "nobody"][below(16) % 6];
    let streaming = path != "/v1/embeddings" && below(2) == 0;
    let mut body = match path {
        "/v1/completions" => json!({"model": model, "prompt": "hello"}),
        "/v1/embeddings" => json!({"model": model, "input": "hello"}),
        _ => json!({"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}),
    };
    body["stream"] = json!(streaming);
    match below(14) {
        0 => body["num_retries"] = json!(below(4)),
        1 => body["fallbacks"] = json!(["c", {"model": "b", "temperature": 0}]),
        2 => body["disable_fallbacks"] = json!(true),
        3 => body["mock_timeout"] = json!(true),
        4 => body["mock_testing_content_policy_fallbacks"] = json!(true),
        5 => body["mock_response"] = json!("litellm.InternalServerError"),
        6 => body["stream_options"] = json!({"include_usage": true}),
        7 => body["logit_bias"] = json!({"1": 1}),
        _ => {}
    }
    (path, body)
}

#[test]
fn anything_ends_in_one_answer() {
    let mut rig = Rig::new(FILE);
    let mut chance = crate::core::fuzz::chance(20_26);
    let mut seen = [0_u32; 3];
    for round in 0..crate::core::fuzz::cases(10_000) {
        let (path, body) = request(&mut chance);
        let streaming = body["stream"] == json!(true);
        let mut below = |n: usize| chance.bits() as usize % n;
        let all_good = below(8) == 0;
        let story = rig.call(path, body.clone(), |attempt, model| {
            assert!(attempt < 64, "round {round} does not end");
            behaviour(if all_good { 10 } else { chance.bits() }, model, streaming)
        });
        let status = story.status;
        assert!((200..600).contains(&status), "round {round}: {status} for {body}");
        if status >= 300 {
            let told: Value = serde_json::from_str(&story.body)
                .unwrap_or_else(|_| panic!("round {round}: {status} without words: {:?}", story.body));
            assert!(told["error"]["message"].is_string(), "round {round}: {told}");
        }
        assert!(!story.body.contains("x-tollgate"), "round {round}");
        for own in [RETRY_HEADER, WAIT_HEADER] {
            assert!(story.header(own).is_none(), "round {round}: the client sees our own header");
        }
        let record = story.record.expect("every request is recorded");
        assert_eq!(record.status.unwrap_or(0), status, "round {round}");
        seen[usize::from(status / 100 != 2) + usize::from(status >= 500)] += 1;
        rig.now_ms += 400;
    }
    assert!(seen.iter().all(|&count| count > 500), "all kinds of ends: {seen:?}");
}

/// What a key is charged with all along is what its requests used, and nothing is held once they are over: however they go,
/// and whenever the client leaves.
#[test]
fn whatever_happens_reservations_end() {
    let limits = "rpm_limit: 1000000, tpm_limit: 1000000000, max_parallel_requests: 5, max_budget: 1000000";
    let key = format!("{{token: {}, {limits}}}", crate::core::access::hash(b"sk-key"));
    let prices = "input_cost_per_token: 0.000001, output_cost_per_token: 0.000003";
    let file = FILE.replace("api_key: k", &format!("api_key: k, {prices}"));
    let mut rig = Rig::new(&format!("{file}general_settings: {{master_key: sk-master, keys: [{key}]}}\n"));
    rig.key = Some("sk-key");
    let grant = rig.config.general.keys.values().next().unwrap().clone();
    let names = Names::of("a", Some(&grant));
    let rules = crate::core::access::rules::rules(Some(&grant), None, &names, &rig.config);
    let mut chance = Random::new(7);
    let mut spent = crate::core::model::money::Money::ZERO;
    let (mut left, mut charged) = (0, 0);
    for round in 0..10_000 {
        let (path, body) = request(&mut chance);
        let streaming = body["stream"] == json!(true);
        rig.patience = chance.bits().is_multiple_of(2).then(|| (chance.bits() % 12) as u32);
        let story = rig.run(path, body, |_, model| behaviour(chance.bits(), model, streaming));
        left += u32::from(story.answers == 0);
        let cost = story.record.and_then(|record| record.cost);
        charged += u32::from(cost.is_some());
        spent = spent.saturating_add(cost.unwrap_or_default());
        quota::heartbeat(&rig.shared, Worker(1), rig.now_ms);
        let standing = quota::standing(&rig.shared, &rules[0], rig.now_ms);
        assert_eq!(standing.parallel_left, Some(5), "round {round}");
        assert_eq!(standing.spend, spent, "round {round}");
        rig.now_ms += 400;
    }
    assert!(left > 1_000 && charged > 1_000, "{left} left, {charged} charged");
}

/// Anything at all, for what is held of deployments, with every strategy: nothing is left over, and what deployments are charged with
/// is what their requests cost.
#[test]
fn whatever_happens_places_are_given_back() {
    let params = "input_cost_per_token: 0.000001, output_cost_per_token: 0.000003, rpm: 1000000, \
                  max_parallel_requests: 1, max_budget: 1000000";
    let file = FILE.replace("api_key: k", &format!("api_key: k, {params}"));
    let strategies = [
        "simple-shuffle",
        "least-busy",
        "usage-based-routing",
        "latency-based-routing",
        "cost-based-routing",
    ];
    for (seed, strategy) in (1..).zip(strategies) {
        let mut rig = Rig::new(&format!("{file}  routing_strategy: {strategy}\n"));
        let config = Rc::clone(&rig.config);
        let mut chance = Random::new(seed);
        let mut spent = crate::core::model::money::Money::ZERO;
        for round in 0..2_000 {
            let (path, body) = request(&mut chance);
            let streaming = body["stream"] == json!(true);
            rig.patience = chance.bits().is_multiple_of(2).then(|| (chance.bits() % 12) as u32);
            let story = rig.run(path, body, |_, model| behaviour(chance.bits(), model, streaming));
            // A mock costs no deployment anything.
            let cost = story
                .record
                .and_then(|record| Some(record.cost?.saturating_sub(Money::from_pico(record.mocked.into()))));
            spent = spent.saturating_add(cost.unwrap_or_default());
            quota::heartbeat(&rig.shared, Worker(1), rig.now_ms);
            let mut charged = crate::core::model::money::Money::ZERO;
            for deployment in &config.deployments {
                let standing = quota::standing(&rig.shared, &deployment.rules[0], rig.now_ms);
                assert_eq!(standing.parallel_left, Some(1), "{strategy}, round {round}: {}", deployment.id);
                charged = charged.saturating_add(standing.spend);
            }
            assert_eq!(charged, spent, "{strategy}, round {round}");
            rig.now_ms += 400;
        }
        assert!(spent > crate::core::model::money::Money::ZERO, "{strategy}");
    }
}
