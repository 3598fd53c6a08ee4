//! Whole requests against scripted providers, with the part of Envoy played by a loop: it opens the cluster that was named
//! last, retries what is marked for it, and never more often than it was told.
//!
//! Half of this file is that loop, which all files below it use; what has a subject of its own stands in them.

mod accounts;
mod callers;
mod chance;
mod charges;
mod estimates;
mod fuzz;
mod groups;
mod ledger;
mod routing;
mod slots;

use serde_json::{Value, json};

use super::{
    next::{Release, Then},
    *,
};
use crate::core::{config, model::call_record::CallRecord, quota, random::Random, store::Memory};

/// How a provider behaves for one attempt.
enum Behaviour {
    Refuse,
    Hang,
    Answer(u16, Value),
    Stream(Vec<String>),
    Raw(Raw),
    /// The listener inside has no answer to pass on.
    NoAnswer(u16),
}
use Behaviour::*;

/// Any answer at all.
struct Raw {
    status: u16,
    headers: Vec<(&'static str, String)>,
    pieces: Vec<Vec<u8>>,
    /// The connection breaks after the last piece.
    cut: bool,
}

/// What happened.
#[derive(Debug, Default)]
struct Story {
    /// Model asked of the provider, attempt by attempt.
    models: Vec<String>,
    /// Cluster named and, through the listener inside, cluster behind it and time-outs (whole, begin).
    ways: Vec<String>,
    /// What Envoy was told to give every attempt.
    per_try_ms: u64,
    /// Paths asked for.
    paths: Vec<String>,
    /// Bodies sent.
    bodies: Vec<Value>,
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    record: Option<CallRecord>,
    /// How many answers the client got.
    answers: u32,
    /// The seconds that Envoy was told to wait before each retry that an answer asked for.
    waits: Vec<Option<u64>>,
}

impl Story {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn message(&self) -> String {
        let value: Value = serde_json::from_str(&self.body).unwrap();
        value["error"]["message"].as_str().unwrap().to_owned()
    }
}

struct Rig {
    config: Rc<Config>,
    shared: Memory,
    random: Random,
    keys: Keyring,
    lengths: OutputLengths,
    now_ms: u64,
    /// What passes between an attempt's request and its answer.
    answer_takes_ms: u64,
    /// The key that requests bring.
    key: Option<&'static str>,
    /// After so many steps of a request the client goes away.
    patience: Option<u32>,
}

impl Rig {
    fn new(yaml: &str) -> Rig {
        Rig::with_environment(yaml, |_| None)
    }

    fn with_environment(yaml: &str, environment: fn(&str) -> Option<String>) -> Rig {
        let loaded = config::load(yaml, &environment, &|_| None).unwrap();
        let shared = Memory::default();
        quota::prepare(&shared, [1, 2]);
        Rig {
            config: Rc::new(loaded.config),
            shared,
            random: Random::new(1),
            keys: Keyring::new(100),
            lengths: OutputLengths::default(),
            now_ms: 1_000_000_000,
            answer_takes_ms: 0,
            key: None,
            patience: None,
        }
    }

    fn env(&mut self) -> Env<'_> {
        Env {
            shared: &self.shared,
            now_ms: self.now_ms,
            random: &mut self.random,
            keys: &mut self.keys,
            output_lengths: &mut self.lengths,
            worker: Worker(1),
            client: &|| Some("192.0.2.1".to_owned()),
        }
    }

    fn headers(&self, path: &str) -> Headers {
        let mut list = vec![(":method", "POST"), (":path", path)];
        let key = self.key.map(|key| format!("Bearer {key}"));
        list.extend(key.as_deref().map(|key| ("authorization", key)));
        Headers::from_pairs(&list)
    }

    fn chat(&mut self, body: Value, play: impl FnMut(usize, &str) -> Behaviour) -> Story {
        self.call("/v1/chat/completions", body, play)
    }

    fn call(&mut self, path: &str, body: Value, play: impl FnMut(usize, &str) -> Behaviour) -> Story {
        let story = self.run(path, body, play);
        assert_eq!(story.answers, 1, "one request, one answer: {story:?}");
        story
    }

    fn run(&mut self, path: &str, body: Value, mut play: impl FnMut(usize, &str) -> Behaviour) -> Story {
        self.run_bytes(path, body.to_string().as_bytes(), |attempt, _, model| play(attempt, model))
    }

    /// The same with any body. `play` knows the attempt, the path and the model that are asked of the provider.
    fn run_bytes(
        &mut self,
        path: &str,
        body: &[u8],
        mut play: impl FnMut(usize, &str, &str) -> Behaviour,
    ) -> Story {
        let mut story = Story::default();
        let headers = self.headers(path);
        let config = Rc::clone(&self.config);
        quota::heartbeat(&self.shared, Worker(1), self.now_ms);
        macro_rules! env {
            () => {
                &mut self.env()
            };
        }
        let mut steps = self.patience.unwrap_or(u32::MAX);
        // The client may go away at any moment.
        macro_rules! step {
            ($exchange:expr) => {
                if steps == 0 {
                    story.record = Some($exchange.on_done(env!()));
                    return story;
                }
                steps -= 1;
            };
        }
        let Opened { exchange, next } = open(&config, &headers, env!());
        let mut exchange = match (exchange, next) {
            (Some(exchange), Next::ReadBody) => *exchange,
            (exchange, Next::Reply(reply)) => {
                story = finish(story, &reply);
                story.record = exchange.map(|mut exchange| exchange.on_done(env!()));
                return story;
            }
            (_, next) => panic!("a model call is ours, there is no ledger: {next:?}"),
        };
        step!(exchange);
        let mut begin = exchange.on_body(body, env!());
        step!(exchange);
        while let Next::Wait(ms) = begin {
            self.now_ms += ms;
            begin = match exchange.on_wait(env!()) {
                Next::ReadBody => exchange.on_body(body, env!()),
                next => next,
            };
        }
        let (mut next, max_retries) = match begin {
            Next::Forward(Forward { cluster, max_retries, per_try_timeout_ms }) => {
                story.per_try_ms = per_try_timeout_ms;
                (cluster, max_retries)
            }
            Next::Reply(reply) => {
                let mut story = finish(story, &reply);
                story.record = Some(exchange.on_done(env!()));
                return story;
            }
            next => panic!("it has waited, and there is no ledger: {next:?}"),
        };
        for attempt in 0..=max_retries {
            let own = |status: u16, exchange: &mut Exchange, env: &mut Env| {
                replied(exchange.on_release(status, "via_upstream", env))
            };
            if next == NO_CLUSTER {
                let reply = own(503, &mut exchange, env!()).unwrap();
                story = finish(story, &reply);
                break;
            }
            let opened = next.clone();
            let start = exchange.on_attempt(env!());
            step!(exchange);
            if let Some(following) = start.next_cluster {
                next = following;
            }
            let start = match start.next {
                Next::ReadBody => exchange.on_retry_body(body, env!()),
                next => next,
            };
            let outgoing = match start {
                Next::Send(outgoing) => outgoing,
                Next::Reply(reply) => {
                    story = finish(story, &reply);
                    break;
                }
                next => panic!("an attempt sends or replies: {next:?}"),
            };
            let header = |name: &str| {
                String::from_utf8(outgoing.headers.get(name).unwrap_or_default().to_vec()).unwrap()
            };
            // Attempts with a time-out of their own go through one cluster, which passes them on by a header.
            let cluster = if opened == attempt_timeout::TIMED_CLUSTER {
                header(attempt_timeout::CLUSTER_HEADER)
            } else {
                opened
            };
            let called =
                config.deployments.iter().find(|d| d.cluster == cluster).expect("a cluster that exists");
            assert_eq!(header("content-length"), outgoing.body.len().to_string());
            assert!(header(":authority").starts_with(&called.endpoint.host), "the host of the cluster");
            let inside = [
                attempt_timeout::CLUSTER_HEADER,
                attempt_timeout::WHOLE_HEADER,
                attempt_timeout::BEGIN_HEADER,
            ]
            .map(header);
            story.ways.push(match inside[0].as_str() {
                "" => called.model.clone(),
                _ => format!("{} {} {}", called.model, inside[1], inside[2]),
            });
            story.paths.push(header(":path"));
            // Half a surrogate pair is the provider's to refuse, and no text here.
            serde_json::from_slice::<serde::de::IgnoredAny>(&outgoing.body).expect("a provider is sent JSON");
            let sent: Value = serde_json::from_slice(&outgoing.body).unwrap_or_default();
            story.models.push(sent["model"].as_str().unwrap_or_default().to_owned());
            story.bodies.push(sent);
            let last = attempt == max_retries;
            let json = |kind: &str| vec![("content-type", kind.to_owned())];
            let raw = match play(attempt as usize, &header(":path"), &called.model) {
                Refuse if !last => continue,
                Hang if !last => {
                    self.now_ms += 7_000_000;
                    continue;
                }
                Refuse => {
                    let reply = own(503, &mut exchange, env!()).unwrap();
                    story = finish(story, &reply);
                    break;
                }
                Hang => {
                    let reply = own(504, &mut exchange, env!()).unwrap();
                    story = finish(story, &reply);
                    break;
                }
                Answer(status, value) => Raw {
                    status,
                    headers: json("application/json"),
                    pieces: vec![value.to_string().into_bytes()],
                    cut: false,
                },
                Stream(pieces) => Raw {
                    status: 200,
                    headers: json("text/event-stream"),
                    pieces: pieces.into_iter().map(String::into_bytes).collect(),
                    cut: false,
                },
                NoAnswer(status) => Raw {
                    status,
                    headers: vec![
                        ("content-type", "text/plain".to_owned()),
                        (attempt_timeout::NO_RESPONSE_HEADER, "1".to_owned()),
                    ],
                    pieces: vec![b"no upstream".to_vec()],
                    cut: false,
                },
                Raw(raw) => raw,
            };
            let status = raw.status;
            let line = status.to_string();
            let mut pairs = vec![
                (":status", line.as_str()),
                ("x-request-id", "r1"),
                ("x-ratelimit-remaining-requests", "9"),
            ];
            pairs.extend(raw.headers.iter().map(|(name, value)| (*name, value.as_str())));
            let headers = Headers::from_pairs(&pairs);
            let mut out = Vec::new();
            let mut kept = Vec::new();
            self.now_ms += self.answer_takes_ms;
            let first = exchange.on_response_headers(headers, raw.pieces.is_empty() && !raw.cut, env!());
            assert_eq!(first == Next::Hold, !raw.pieces.is_empty() || raw.cut);
            let Release { headers: mut list, next_cluster: mut named, .. } =
                released(first).unwrap_or_default();
            step!(exchange);
            for (at, piece) in raw.pieces.iter().enumerate() {
                let end = at + 1 == raw.pieces.len() && !raw.cut;
                kept.extend_from_slice(piece);
                if !exchange.wants_body(kept.len(), end) {
                    if !exchange.holds() {
                        out.append(&mut kept);
                    }
                    continue;
                }
                let next = exchange.on_response_body(&kept, end, env!());
                step!(exchange);
                let Some(release) = released(next) else { continue };
                list = list.or(release.headers);
                named = named.or(release.next_cluster);
                out.extend(release.body.unwrap_or_else(|| kept.clone()));
                kept.clear();
            }
            if list.is_none() && raw.cut {
                if !last {
                    continue;
                }
                let reply = own(503, &mut exchange, env!()).unwrap();
                story = finish(story, &reply);
                break;
            }
            let list = list.expect("headers are released at the latest with the last part");
            if list.get(RETRY_HEADER).is_some() {
                next = named.unwrap_or(next);
                story.waits.push(list.text(WAIT_HEADER).map(|seconds| seconds.parse().unwrap()));
                if !last {
                    continue;
                }
            }
            if let Some(reply) = own(status, &mut exchange, env!()) {
                story = finish(story, &reply);
                break;
            }
            story.answers += 1;
            story.status = list.text(":status").unwrap().parse().unwrap();
            story.headers = list
                .iter()
                .map(|(name, value)| (name.to_owned(), String::from_utf8(value.to_vec()).unwrap()))
                .collect();
            story.body = String::from_utf8_lossy(&out).into_owned();
            break;
        }
        story.record = Some(exchange.on_done(env!()));
        story
    }
}

/// The reply that is to go to the client, unless what came by does.
fn replied(next: Next) -> Option<Reply> {
    match next {
        Next::Reply(reply) => Some(reply),
        Next::Pass => None,
        next => panic!("headers pass or are replaced: {next:?}"),
    }
}

/// The edits of what goes on, unless it is kept back.
fn released(next: Next) -> Option<Release> {
    match next {
        Next::Release(release) => Some(release),
        Next::Pass => Some(Release::default()),
        Next::Hold => None,
        next => panic!("a response is held or goes on: {next:?}"),
    }
}

fn finish(mut story: Story, reply: &Reply) -> Story {
    story.answers += 1;
    story.status = reply.status;
    story.headers = reply.headers.clone();
    story.body = String::from_utf8(reply.body.clone()).unwrap();
    story
}

fn completion(model: &str) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
           "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
           "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}})
}

fn message() -> Value {
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-3-opus-20240229",
           "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn", "stop_sequence": null,
           "usage": {"input_tokens": 9, "output_tokens": 2}})
}

fn error(message: &str, code: &str) -> Value {
    json!({"error": {"message": message, "type": "invalid_request_error", "code": code}})
}

fn hello(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}]})
}

const TWO_GROUPS: &str = r#"
model_list:
  - {model_name: small, litellm_params: {model: openai/small-1, api_base: "http://a.test/v1", api_key: k1}}
  - {model_name: small, litellm_params: {model: openai/small-2, api_base: "http://b.test/v1", api_key: k2}}
  - {model_name: large, litellm_params: {model: openai/large-1, api_base: "http://c.test/v1", api_key: k3}}
  - {model_name: claude, litellm_params: {model: anthropic/claude-3-opus-20240229, api_base: "http://d.test", api_key: k4}}
litellm_settings:
  num_retries: 1
  fallbacks: [{small: [large]}]
  context_window_fallbacks: [{small: [claude]}]
  content_policy_fallbacks: [{small: [large]}]
"#;

#[test]
fn a_good_answer_passes_with_its_headers() {
    let mut rig = Rig::new(TWO_GROUPS);
    let story = rig.chat(hello("large"), |_, _| Answer(200, completion("gpt-4o")));
    assert_eq!((story.status, story.models.as_slice()), (200, &["large-1".to_owned()][..]));
    assert_eq!(serde_json::from_str::<Value>(&story.body).unwrap(), completion("gpt-4o"));
    assert_eq!(story.header("x-litellm-model-group"), Some("large"));
    assert_eq!(story.header("x-litellm-attempted-retries"), Some("0"));
    assert_eq!(story.header("llm_provider-x-request-id"), Some("r1"));
    assert_eq!(story.header("x-ratelimit-remaining-requests"), Some("9"));
    // 1000 × 2.5e-6 + 500 × 1e-5 dollars, by the model that answered.
    assert_eq!(story.header("x-litellm-response-cost"), Some("0.0075"));
    let record = story.record.unwrap();
    assert_eq!((record.attempts, record.fallbacks, record.estimated), (1, 0, false));
}

#[test]
fn a_price_by_the_second_counts_the_time_of_the_attempt() {
    let mut rig = Rig::new(
        "model_list: [{model_name: m, litellm_params: {model: openai/own, api_base: 'http://a.test/v1', api_key: k, \
         input_cost_per_second: 0.00042}}]",
    );
    rig.answer_takes_ms = 2_500;
    let story = rig.chat(hello("m"), |_, _| Answer(200, completion("own")));
    assert_eq!(story.header("x-litellm-response-cost"), Some("0.00105"));
    assert_eq!(story.record.unwrap().cost.unwrap().to_string(), "0.00105");
}

#[test]
fn a_whole_answer_says_how_long_it_took_and_how_much_of_that_was_the_gateways() {
    let mut rig = Rig::new(TWO_GROUPS);
    rig.answer_takes_ms = 2_500;
    let story = rig.chat(hello("large"), |_, _| Answer(200, completion("gpt-4o")));
    let told = |story: &Story| {
        ["x-litellm-response-duration-ms", "x-litellm-overhead-duration-ms"]
            .map(|name| story.header(name).map(|text| text.parse::<u64>().unwrap()))
    };
    assert_eq!(told(&story), [Some(2_500), Some(0)]);
    // What a failed attempt took is not the gateway's either.
    let story = rig.chat(hello("small"), |attempt, _| match attempt {
        0 => Answer(500, json!({"error": {"message": "x"}})),
        _ => Answer(200, completion("gpt-4o")),
    });
    let [Some(whole), overhead] = told(&story) else { panic!("{:?}", told(&story)) };
    assert!(whole >= 5_000 && overhead == Some(0), "{whole} {overhead:?}");
    let mut streamed = hello("large");
    streamed["stream"] = json!(true);
    let events = || vec![format!("data: {}\n\n", completion("gpt-4o")), "data: [DONE]\n\n".to_owned()];
    let story = rig.chat(streamed, |_, _| Stream(events()));
    assert_eq!((story.status, told(&story)), (200, [None, None]));
}

#[test]
fn refused_then_failing_then_fallback() {
    let mut rig = Rig::new(TWO_GROUPS);
    let story = rig.chat(hello("small"), |attempt, _| match attempt {
        0 => Refuse,
        1 => Answer(500, error("boom", "x")),
        _ => Answer(200, completion("large-1")),
    });
    assert_eq!(story.status, 200);
    assert_eq!(story.models[2], "large-1");
    assert_ne!(story.models[0], story.models[1], "a retry takes the other deployment");
    assert_eq!(story.header("x-litellm-attempted-fallbacks"), Some("1"));
    assert_eq!(story.record.unwrap().attempts, 3);
}

#[test]
fn when_all_fail_the_first_error_is_told() {
    let mut rig = Rig::new(TWO_GROUPS);
    let story = rig.chat(hello("small"), |attempt, _| Answer(500, error(&format!("failure {attempt}"), "x")));
    assert_eq!(story.status, 500);
    let message = story.message();
    assert!(message.contains("InternalServerError") && message.contains("failure 0"), "{message}");
    assert!(
        message.contains("Received Model Group=small\nAvailable Model Group Fallbacks=['large']"),
        "{message}"
    );
    assert_eq!(story.models.len(), 4, "two attempts in each group");
}

#[test]
fn every_class_goes_where_it_is_configured_to_go() {
    let too_long = error("This model's maximum context length is 4097 tokens", "context_length_exceeded");
    let refused = error("filtered", "content_filter");
    let rows: [(&str, u16, Value, &[&str]); 5] = [
        ("context window", 400, too_long, &["small", "claude-3-opus-20240229"]),
        ("content policy", 400, refused, &["small", "large-1"]),
        ("bad request", 400, error("bad", "x"), &["small", "large-1"]),
        ("unknown model", 404, error("no such model", "model_not_found"), &["small", "large-1"]),
        ("refused key", 401, error("bad key", "x"), &["small", "small", "large-1"]),
    ];
    for (name, status, body, expected) in rows {
        let mut rig = Rig::new(TWO_GROUPS);
        let story = rig.chat(hello("small"), |_, model| match model {
            "small-1" | "small-2" => Answer(status, body.clone()),
            "large-1" => Answer(200, completion("large-1")),
            _ => Answer(200, message()),
        });
        assert_eq!(story.status, 200, "{name}");
        let models: Vec<&str> =
            story.models.iter().map(|m| if m.starts_with("small") { "small" } else { m }).collect();
        assert_eq!(models, expected, "{name}");
    }
}

#[test]
fn a_context_window_error_of_a_group_without_an_entry_is_told() {
    let mut rig = Rig::new(TWO_GROUPS);
    let story = rig.chat(hello("large"), |_, _| {
        Answer(400, error("This model's maximum context length is 1", "context_length_exceeded"))
    });
    assert_eq!((story.status, story.models.len()), (400, 1));
    assert!(story.message().contains("ContextWindowExceededError"));
}

#[test]
fn a_rate_limited_deployment_rests_for_other_requests() {
    let mut rig = Rig::new(TWO_GROUPS);
    let limited = "small-1";
    for _ in 0..12 {
        rig.chat(hello("small"), |_, model| match model {
            m if m == limited => Answer(429, error("slow down", "rate_limit")),
            m => Answer(200, completion(m)),
        });
    }
    for _ in 0..20 {
        let story = rig.chat(hello("small"), |_, model| Answer(200, completion(model)));
        assert_eq!(story.models, ["small-2"]);
    }
    rig.now_ms += 6_000;
    let after: Vec<String> = (0..30)
        .map(|_| rig.chat(hello("small"), |_, m| Answer(200, completion(m))).models.remove(0))
        .collect();
    assert!(after.iter().any(|model| model == limited), "it is back after the cooldown");
}

#[test]
fn all_resting_is_a_rate_limit() {
    let mut rig = Rig::new(TWO_GROUPS);
    rig.chat(hello("large"), |_, _| Answer(401, error("bad key", "x")));
    let story = rig.chat(hello("large"), |_, _| panic!("nothing may be called"));
    assert_eq!(story.status, 429);
    assert!(story.message().starts_with("No deployments available for selected model, Try again in"));
    assert_eq!(story.header("retry-after"), Some("5"));
}

#[test]
fn streams_hide_the_usage_nobody_asked_for() {
    let chunk = |delta: &str| {
        format!(
            "data: {{\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{delta}\"}}}}]}}\n\n"
        )
    };
    let usage = "data: {\"id\":\"1\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2,\"total_tokens\":7}}\n\n";
    let whole = format!("{}{}{usage}data: [DONE]\n\n", chunk("a"), chunk("b"));
    let without = format!("{}{}data: [DONE]\n\n", chunk("a"), chunk("b"));
    for asks in [false, true] {
        for cut in 1..whole.len() {
            let mut rig = Rig::new(TWO_GROUPS);
            let mut body = hello("large");
            body["stream"] = json!(true);
            if asks {
                body["stream_options"] = json!({"include_usage": true});
            }
            let pieces = vec![whole[..cut].to_owned(), whole[cut..].to_owned()];
            let mut pieces = Some(pieces);
            let story = rig.chat(body, |_, _| Stream(pieces.take().unwrap()));
            assert_eq!(story.body, if asks { whole.clone() } else { without.clone() }, "cut at {cut}");
            assert_eq!(story.bodies[0]["stream_options"]["include_usage"], true);
            let usage = story.record.unwrap().usage.unwrap();
            assert_eq!((usage.prompt_tokens, usage.completion_tokens), (5, 2));
        }
    }
}

#[test]
fn a_silent_provider_is_a_time_out() {
    let mut rig = Rig::new(TWO_GROUPS);
    let story = rig.chat(hello("large"), |_, _| Hang);
    assert_eq!((story.status, story.models.len()), (408, 2));
    assert!(story.message().starts_with("litellm.Timeout: APITimeoutError - Request timed out."));
    assert_eq!(story.header("x-litellm-timeout"), Some("6000.0"));
}

const TIMED: &str = "
model_list:
- {model_name: a, litellm_params: {model: openai/m1, api_base: 'http://p1/v1', api_key: k, timeout: 2, stream_timeout: 1, headers: {X-Tollgate-Cluster: envoy_admin}}}
- {model_name: b, litellm_params: {model: openai/m2, api_base: 'http://p2/v1', api_key: k, timeout: 30}}
- {model_name: c, litellm_params: {model: openai/m3, api_base: 'http://p3/v1', api_key: k}}
- {model_name: d, litellm_params: {model: openai/m4, api_base: 'http://p4/v1', api_key: k, timeout: 1.0e+30}}
- {model_name: e, litellm_params: {model: openai/m5, api_base: 'http://p5/v1', api_key: k, timeout: 0.00001}}
router_settings: {num_retries: 0, timeout: 10, fallbacks: [{a: [b, c]}, {d: [e]}]}
";

#[test]
fn every_attempt_has_its_own_time_out() {
    // Only what may take less than the longest goes through the listener inside.
    for (model, more, per_try_ms, ways) in [
        ("a", json!({}), 30_000, "m1 2000 0, m2, m3 10000 0"),
        ("a", json!({"stream": true}), 30_000, "m1 0 1000, m2, m3 0 10000"),
        ("a", json!({"timeout": 5}), 5_000, "m1, m2, m3"),
        ("a", json!({"timeout": 0.5, "stream": true}), 1_000, "m1, m2 0 500, m3 0 500"),
        ("a", json!({"stream_timeout": 7, "stream": true}), 7_000, "m1, m2, m3"),
        ("a", json!({"stream_timeout": 7}), 30_000, "m1 2000 0, m2, m3 10000 0"),
        ("b", json!({}), 30_000, "m2"),
        ("d", json!({}), config::MAX_TIMEOUT_MS, "m4, m5 1 0"),
    ] {
        let mut body = hello(model);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let story = Rig::new(TIMED).chat(body.clone(), |_, _| Refuse);
        assert_eq!((story.per_try_ms, story.ways.join(", ").as_str()), (per_try_ms, ways), "{body}");
    }
}

#[test]
fn no_answer_behind_a_time_out_is_no_providers_error() {
    for (status, told, message) in [(504, 408, "litellm.Timeout"), (503, 500, "Connection error.")] {
        let story = Rig::new(TIMED).chat(hello("a"), |attempt, _| match attempt {
            0 => NoAnswer(status),
            _ => Answer(500, error("broken", "x")),
        });
        assert_eq!(story.models, ["m1", "m2", "m3"]);
        assert_eq!(story.status, told);
        assert!(story.message().contains(message), "{}", story.message());
    }
    // Only an attempt that went that way is believed.
    let mut rig = Rig::new(TIMED);
    let story = rig.chat(hello("b"), |_, _| NoAnswer(503));
    assert!(story.message().contains("ServiceUnavailable"), "{}", story.message());
}

#[test]
fn a_body_that_is_no_json_is_refused_in_plain_words() {
    let mut rig = Rig::new(TWO_GROUPS);
    let rows: [(&[u8], &str); 4] = [
        (b"", "the request has no body; a JSON object was expected."),
        (b"not json", "the request body is not valid JSON: line 1, column 2: expected a value"),
        (
            b"{\"model\": \"a\",}",
            "the request body is not valid JSON: line 1, column 15: a comma with nothing after it.",
        ),
        (b"[]", "the request body is not a JSON object: line 1, column 0: expected a JSON object."),
    ];
    for path in ["/v1/chat/completions", "/v1/messages"] {
        for (body, words) in rows {
            let (config, headers) = (Rc::clone(&rig.config), rig.headers(path));
            let Opened { exchange: Some(mut exchange), next: Next::ReadBody } =
                open(&config, &headers, &mut rig.env())
            else {
                panic!("a call")
            };
            let Next::Reply(reply) = exchange.on_body(body, &mut rig.env()) else { panic!("refused") };
            let told: Value = serde_json::from_slice(&reply.body).unwrap();
            let message = told["error"]["message"].as_str().unwrap();
            assert!(reply.status == 400 && message.contains(words), "{message}");
            exchange.on_done(&mut rig.env());
        }
    }
}

#[test]
fn a_stream_that_begins_with_an_error_is_retried() {
    let mut rig = Rig::new(TWO_GROUPS);
    let mut body = hello("small");
    body["stream"] = json!(true);
    let story = rig.chat(body, |attempt, _| match attempt {
        0 => Stream(vec!["data: {\"error\":{\"message\":\"overloaded\",\"code\":500}}\n\n".to_owned()]),
        _ => Stream(vec![
            "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n".to_owned(),
        ]),
    });
    assert_eq!((story.status, story.models.len()), (200, 2));
    assert!(story.body.contains("\"x\""));
}

#[test]
fn anthropic_clients_read_any_provider() {
    let mut rig = Rig::new(TWO_GROUPS);
    let ask = json!({"model": "large", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]});
    let story = rig.call("/v1/messages", ask.clone(), |_, _| Answer(200, completion("gpt-4o")));
    let body: Value = serde_json::from_str(&story.body).unwrap();
    assert_eq!((body["type"].as_str(), body["content"][0]["text"].as_str()), (Some("message"), Some("hi")));
    assert_eq!(story.paths, ["/v1/chat/completions"]);

    let story = rig.call("/v1/messages", ask, |_, _| Answer(404, error("nope", "x")));
    let body: Value = serde_json::from_str(&story.body).unwrap();
    assert_eq!((story.status, body["type"].as_str()), (404, Some("error")));
    assert_eq!(body["error"]["type"], "not_found_error");
}

#[test]
fn a_clients_fallbacks_serve_every_kind_of_error() {
    let mut rig = Rig::new(TWO_GROUPS);
    let mut body = hello("large");
    body["fallbacks"] = json!(["claude"]);
    body["num_retries"] = json!(0);
    let story = rig.chat(body, |attempt, _| match attempt {
        0 => Answer(400, error("This model's maximum context length is 1", "context_length_exceeded")),
        _ => Answer(200, message()),
    });
    assert_eq!(story.status, 200);
    assert_eq!(story.paths, ["/v1/chat/completions", "/v1/messages"]);
    assert!(
        story.bodies.iter().all(|body| body.get("fallbacks").is_none() && body.get("num_retries").is_none())
    );
}

#[test]
fn mocks_answer_without_a_provider() {
    let mut rig = Rig::new(TWO_GROUPS);
    let mut body = hello("large");
    body["mock_response"] = json!("hello there");
    let story = rig.chat(body.clone(), |_, _| panic!("no call"));
    let answer: Value = serde_json::from_str(&story.body).unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "hello there");
    assert_eq!(answer["usage"]["total_tokens"], 30);

    body["mock_response"] = json!("litellm.RateLimitError");
    let story = rig.chat(body.clone(), |_, _| panic!("no call"));
    assert_eq!(story.status, 429);

    let mut body = hello("small");
    body["mock_testing_fallbacks"] = json!(true);
    let story = rig.chat(body, |_, model| Answer(200, completion(model)));
    assert_eq!((story.status, story.header("x-litellm-model-group")), (200, Some("large")));
}

#[test]
fn what_cannot_be_read_is_refused_in_the_clients_format() {
    let mut rig = Rig::new(TWO_GROUPS);
    let story = rig.chat(json!({"messages": []}), |_, model| Answer(200, completion(model)));
    assert_eq!(story.status, 200, "the first group of the file is the default");
    let story = rig.chat(hello("nonesuch"), |_, _| panic!("no call"));
    assert_eq!(story.status, 400);
    assert!(story.message().contains("Invalid model name passed in model=nonesuch"));
}
