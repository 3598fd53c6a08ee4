//! Whole requests on the core, as the benchmark's clients send them: a virtual key with every kind of limit, a ledger that is
//! told of each, two deployments. The part of Envoy is played by the order of the calls.

use std::{hint::black_box, rc::Rc};

use tollgate::core::{
    access::{
        self,
        keyring::{Keyring, LookupResult},
    },
    config::{self, Config},
    exchange::{
        Env, Exchange, Next, Opened, open, output_lengths::OutputLengths, record::members, seams::Seams,
    },
    headers::Headers,
    model::{call_record::CallRecord, key_record::KeyRecord},
    protocol,
    quota::{self, Worker},
    random::Random,
    store::Memory,
};

/// The scenarios by name.
pub const NAMES: [&str; 5] = ["chat-1k", "chat-32k", "chat-1m", "stream-50", "openai-to-anthropic-1k"];

const KEY: &str = "sk-of-the-benchmark";
const NOW_MS: u64 = 1_800_000_000_000;
const CONFIG: &str = r#"
model_list:
  - {model_name: gpt-4o-mini, litellm_params: {model: openai/gpt-4o-mini, api_base: "http://one.test/v1", api_key: sk-1}}
  - {model_name: gpt-4o-mini, litellm_params: {model: openai/gpt-4o-mini, api_base: "http://one.test/v1", api_key: sk-2}}
  - {model_name: claude-sonnet-4-20250514, litellm_params: {model: anthropic/claude-sonnet-4-20250514, api_base: "http://two.test", api_key: sk-3}}
general_settings: {master_key: sk-the-master-key-of-the-benchmark}
"#;

/// A gateway without a host.
pub struct Gateway {
    config: Rc<Config>,
    shared: Memory,
    random: Random,
    keys: Keyring,
    seams: Seams,
    lengths: OutputLengths,
}

/// A request and its answer.
pub struct Scenario {
    /// The client's body.
    pub request: Vec<u8>,
    answer_headers: Vec<(&'static str, &'static str)>,
    /// The provider's body, part by part.
    pub answer: Vec<Vec<u8>>,
}

impl Gateway {
    /// One that knows the key.
    pub fn new() -> Gateway {
        let variables = |name: &str| (name == protocol::KEY_VARIABLE).then(|| "secret".to_owned());
        let config = config::load(CONFIG, &variables, &|_| None).expect("the configuration is valid").config;
        let shared = Memory::default();
        quota::prepare(&shared, [1, 2]);
        access::changes::prepare(&shared);
        quota::heartbeat(&shared, Worker(1), NOW_MS);
        let mut grant = KeyRecord { revision: 1, ..KeyRecord::default() };
        grant.key.id = access::hash(KEY.as_bytes());
        grant.key.limits.rpm = Some(1_000_000_000);
        grant.key.limits.tpm = Some(1_000_000_000_000);
        grant.key.limits.parallel = Some(1_000_000);
        grant.key.budget.max = Some(1_000_000_000_000_000_000);
        let mut keys = Keyring::new(1_000);
        keys.configure(config.tollgate.key_cache_size, config.general.key_ttl_ms);
        keys.refresh(&shared);
        let hash = grant.key.id.clone();
        keys.learn_key(&hash, LookupResult::Record(grant), NOW_MS);
        Gateway {
            config: Rc::new(config),
            shared,
            random: Random::new(1),
            keys,
            seams: Seams::default(),
            lengths: OutputLengths::default(),
        }
    }

    fn env(&mut self) -> Env<'_> {
        Env {
            shared: &self.shared,
            seams: &self.seams,
            now_ms: NOW_MS,
            random: &mut self.random,
            keys: &mut self.keys,
            output_lengths: &mut self.lengths,
            worker: Worker(1),
            client: &|| Some("192.0.2.1".to_owned()),
        }
    }

    /// One request from its headers to its record.
    pub fn call(&mut self, scenario: &Scenario) -> CallRecord {
        let mut exchange = self.open(scenario);
        let Next::Forward(_) = exchange.on_body(&scenario.request, &mut self.env()) else {
            panic!("the request goes to a provider")
        };
        let Next::Send(outgoing) = exchange.on_attempt(&mut self.env()).next else {
            panic!("the attempt is ready")
        };
        black_box(outgoing);
        let headers = Headers::from_pairs(&scenario.answer_headers);
        black_box(exchange.on_response_headers(headers, false, &mut self.env()));
        let last = scenario.answer.len() - 1;
        // What is held comes again with the next part.
        let mut held = Vec::new();
        for (at, part) in scenario.answer.iter().enumerate() {
            let bytes = if held.is_empty() { part } else { &[held.as_slice(), part].concat() };
            if exchange.wants_body(bytes.len(), at == last) {
                let next = black_box(exchange.on_response_body(bytes, at == last, &mut self.env()));
                held = if next == Next::Hold { bytes.clone() } else { Vec::new() };
            }
        }
        assert!(exchange.has_responded());
        let record = exchange.on_done(&mut self.env());
        black_box(members(&record));
        let mut event = Vec::new();
        record.event().expect("the ledger is told").write_event(&mut event);
        black_box(event);
        record
    }

    fn open(&mut self, scenario: &Scenario) -> Exchange {
        let length = scenario.request.len().to_string();
        let bearer = format!("Bearer {KEY}");
        let headers = Headers::from_pairs(&[
            (":authority", "127.0.0.1:4000"),
            (":path", "/v1/chat/completions"),
            (":method", "POST"),
            (":scheme", "http"),
            ("content-type", "application/json"),
            ("authorization", &bearer),
            ("content-length", &length),
            ("x-forwarded-proto", "http"),
            ("x-request-id", "0d6f1c5e-8a34-4d6b-9f11-6a2f0c8e7b55"),
        ]);
        let config = Rc::clone(&self.config);
        match open(&config, &headers, &mut self.env()) {
            Opened { exchange: Some(exchange), next: Next::ReadBody } => *exchange,
            _ => panic!("a model call of a known key"),
        }
    }
}

impl Scenario {
    /// A scenario by its name.
    pub fn named(name: &str) -> Scenario {
        match name {
            "chat-1k" => Scenario::buffered("gpt-4o-mini", 1 << 10, CHAT),
            "chat-32k" => Scenario::buffered("gpt-4o-mini", 32 << 10, CHAT),
            "chat-1m" => Scenario::buffered("gpt-4o-mini", 1 << 20, CHAT),
            "openai-to-anthropic-1k" => Scenario::buffered("claude-sonnet-4-20250514", 1 << 10, MESSAGE),
            "stream-50" => Scenario {
                request: request(
                    "gpt-4o-mini",
                    1 << 10,
                    r#","stream":true,"stream_options":{"include_usage":true}"#,
                ),
                answer_headers: vec![(":status", "200"), ("content-type", "text/event-stream")],
                answer: (0..50).map(event).chain([LAST_EVENT.into(), "data: [DONE]\n\n".into()]).collect(),
            },
            _ => panic!("no scenario `{name}`; there are {NAMES:?}"),
        }
    }

    fn buffered(model: &str, size: usize, answer: &str) -> Scenario {
        Scenario {
            request: request(model, size, ""),
            answer_headers: vec![
                (":status", "200"),
                ("content-type", "application/json"),
                ("content-length", "650"),
                ("x-envoy-upstream-service-time", "0"),
            ],
            answer: vec![answer.into()],
        }
    }
}

/// A chat request with messages of about `size` bytes together.
fn request(model: &str, size: usize, more: &str) -> Vec<u8> {
    let words = "The quick brown fox jumps over the lazy dog; \\\"naïve\\\" café owners pay 5 % more.\\n";
    let turns = (size >> 10).clamp(1, 32) | 1;
    let text = words.repeat((size / turns / words.len()).max(1));
    let messages: Vec<String> = (0..turns)
        .map(|turn| format!(r#"{{"role":"{}","content":"{text}"}}"#, ["user", "assistant"][turn % 2]))
        .collect();
    let messages = messages.join(",");
    format!(r#"{{"model":"{model}","messages":[{messages}],"temperature":0.7,"max_tokens":256{more}}}"#)
        .into_bytes()
}

fn event(at: usize) -> Vec<u8> {
    let delta = if at == 0 { r#"{"role":"assistant","content":""}"# } else { r#"{"content":" brown"}"# };
    format!(
        "data: {{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion.chunk\",\"created\":1741569952,\
         \"model\":\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_06737a9306\",\
         \"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":null}}],\"usage\":null}}\n\n"
    )
    .into_bytes()
}

const LAST_EVENT: &str = "data: {\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion.chunk\",\"created\":1741569952,\"model\":\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_06737a9306\",\"choices\":[],\"usage\":{\"prompt_tokens\":230,\"completion_tokens\":50,\"total_tokens\":280}}\n\n";

const CHAT: &str = r#"{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1741569952,"model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"The fox jumps over the dog because the dog is lazy and the fox is quick, which the café owners of this town have known for a while.","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":230,"completion_tokens":51,"total_tokens":281,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}},"service_tier":"default"}"#;

const MESSAGE: &str = r#"{"id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant","model":"claude-sonnet-4-20250514","content":[{"type":"text","text":"The fox jumps over the dog because the dog is lazy and the fox is quick, which the café owners of this town have known for a while."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":230,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":51}}"#;
