//! How long the parts of the core take, one by one: `cargo bench --bench core [FILTER]`.
//!
//! Inputs are the benchmark's requests (see `scenario`) and the golden fixtures, their streams drawn out to fifty pieces of
//! text. Translations go from bytes to bytes, as they do for a request. What a part makes is dropped within its time: a
//! request pays for that too.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark ends at the first fault"
)]

#[path = "scenario.rs"]
mod scenario;

use std::{fmt, fs, path::Path, time::Duration};

use divan::{Bencher, Divan, black_box, counter::BytesCount};
use scenario::{Gateway, NAMES, Scenario};
use serde_json::{Map, Value, json};
use tollgate::core::{
    codec::{
        json::{Object, string},
        sse,
    },
    config::{self, Config},
    cost::table,
    format::{
        self, Context, Ref, chat, completions, embeddings, generate, messages, pipeline::Pipeline,
        response::ResponseIds, translate::Back,
    },
    model::{
        limits::Limits,
        meter::{Meter, MeterKind},
        money::Money,
        rule::{Base, Rule},
        terms::Terms,
        usage::Usage,
    },
    operation,
    quota::{self, Estimate, Worker},
    random::Random,
    route::{
        latency::{self, Sample},
        plan::Plan,
        world::{Controls, RoutingInput, World},
    },
    store::Memory,
};

const NOW_MS: u64 = 1_800_000_000_000;
const WORKER: Worker = Worker(1);
/// Pieces of text in a stream.
const PIECES: usize = 50;
const WARM_UP: usize = 20;

fn main() {
    Divan::default().min_time(Duration::from_millis(300)).config_with_args().main();
}

/// Times `run`, with what becomes of its result.
fn time<T>(bencher: Bencher, mut run: impl FnMut() -> T) {
    // Before the first sample, by whose time divan decides how many runs a sample needs.
    for _ in 0..WARM_UP {
        black_box(run());
    }
    bencher.bench_local(|| drop(black_box(run())));
}

/// The same for something that reads `bytes`: tells the throughput too.
fn time_on<T>(bencher: Bencher, bytes: &[u8], mut run: impl FnMut(&[u8]) -> T) {
    for _ in 0..WARM_UP {
        black_box(run(bytes));
    }
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| drop(black_box(run(black_box(bytes)))));
}

// ------------------------------------------------------------------------------------------------------------------ bytes

/// Whole requests: what the instructions are counted of.
#[divan::bench(args = NAMES)]
fn request_whole(bencher: Bencher, name: &str) {
    let (mut gateway, scenario) = (Gateway::new(), Scenario::named(name));
    time(bencher, || gateway.call(&scenario));
}

const BODIES: [&str; 3] = ["chat-1k", "chat-32k", "chat-1m"];

/// The members of a body.
#[divan::bench(args = BODIES)]
fn head_scan(bencher: Bencher, name: &str) {
    let body = Scenario::named(name).request;
    time_on(bencher, &body, |body| Object::parse(body).expect("an object").raw("model").map(str::len));
}

/// A body with another model.
#[divan::bench(args = BODIES)]
fn splice(bencher: Bencher, name: &str) {
    let body = Scenario::named(name).request;
    let object = Object::parse(&body).expect("an object");
    time_on(bencher, &body, |_| {
        let mut object = object.clone();
        object.set("model", string("gpt-4o-mini-2024-07-18"));
        object.to_bytes()
    });
}

/// The events of a stream, by the size of the pieces it comes in.
#[divan::bench(args = ["17 bytes", "1 KiB", "whole"])]
fn sse_scan(bencher: Bencher, pieces: &str) {
    let stream = Scenario::named("stream-50").answer.concat();
    let size = match pieces {
        "17 bytes" => 17,
        "1 KiB" => 1 << 10,
        _ => stream.len(),
    };
    time_on(bencher, &stream, |stream| {
        let mut decoder = sse::Decoder::new(1 << 20);
        let mut length = 0;
        for chunk in stream.chunks(size) {
            decoder.push(chunk);
            while let Some(frame) = decoder.next() {
                length += frame.expect("events are short").data.len();
            }
        }
        length
    });
}

// ------------------------------------------------------------------------------------------------------------ translation

/// A part of a golden fixture.
fn fixture(case: &str, member: &str) -> Value {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats").join(format!("{case}.json"));
    let text = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut case: Value = serde_json::from_slice(&text).expect("a fixture is JSON");
    case[member].take()
}

#[divan::bench_group]
mod request_of {
    use super::*;

    type Made = Map<String, Value>;

    fn translate(bencher: Bencher, model: &str, body: &Value, make: impl Fn(Made, &Context<'_>) -> Made) {
        let options = Context { model, brand: "acme", drop_params: true, ..Context::default() };
        time_on(bencher, body.to_string().as_bytes(), |body| {
            let made = make(serde_json::from_slice(body).expect("an object"), &options);
            serde_json::to_vec(&made).expect("an object is JSON")
        });
    }

    #[divan::bench]
    fn chat_to_messages(bencher: Bencher) {
        let body = fixture("messages/request/write/tool_round", "chat");
        translate(bencher, "claude-x", &body, |body, options| {
            messages::request::write(body, options).expect("it is translated").0
        });
    }

    #[divan::bench]
    fn messages_to_chat(bencher: Bencher) {
        let body = fixture("messages/request/read/tool_round", "request");
        translate(bencher, "gpt-x", &body, |body, options| {
            messages::request::read(body, options).expect("it is translated").0
        });
    }

    #[divan::bench]
    fn chat_to_completions(bencher: Bencher) {
        let body = fixture("completions/request/write/several", "request");
        translate(bencher, "gpt-x", &body, |body, options| {
            completions::request::write(body, options).expect("it is translated")
        });
    }

    #[divan::bench]
    fn completions_to_chat(bencher: Bencher) {
        let body = fixture("completions/request/read/simple", "request");
        translate(bencher, "gpt-x", &body, |body, options| {
            completions::request::read(body, options).expect("it is translated")
        });
    }

    #[divan::bench]
    fn chat_to_generate(bencher: Bencher) {
        let body = fixture("generate/request/write/zephyr", "request");
        translate(bencher, "HuggingFaceH4/zephyr-7b-beta", &body, |body, options| {
            generate::request::write(body, options).expect("it is translated").0
        });
    }
}

/// A client API and the wire format of the provider that answers. The same on both sides passes.
struct Pair(operation::ApiRef, Ref);

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} from {:?}", self.0.dialect, self.1)
    }
}

const STREAMED: [Pair; 12] = [
    Pair(&operation::CHAT, &chat::Format),
    Pair(&operation::CHAT, &messages::Format),
    Pair(&operation::CHAT, &completions::Format),
    Pair(&operation::CHAT, &generate::Format),
    Pair(&operation::MESSAGES, &chat::Format),
    Pair(&operation::MESSAGES, &messages::Format),
    Pair(&operation::MESSAGES, &completions::Format),
    Pair(&operation::MESSAGES, &generate::Format),
    Pair(&operation::COMPLETIONS, &chat::Format),
    Pair(&operation::COMPLETIONS, &messages::Format),
    Pair(&operation::COMPLETIONS, &completions::Format),
    Pair(&operation::COMPLETIONS, &generate::Format),
];
const EMBEDDINGS: [Pair; 1] = [Pair(&operation::EMBEDDINGS, &embeddings::Format)];

impl Pair {
    fn pipeline(&self) -> Pipeline {
        let client = format::of(self.0);
        let ids = ResponseIds {
            id: "chatcmpl-stamp".to_owned(),
            created: 1_700_000_000,
            model: "a-model".to_owned(),
        };
        let chat = json!({"messages": [{"role": "user", "content": "Hi"}], "stop": ["</s>"]});
        let chat = chat.as_object().expect("an object").clone();
        let back = match client == self.1 {
            true => Back::passing(client, true),
            false => Back {
                client,
                provider: self.1,
                include_usage: true,
                translation: Some((
                    self.1.write_request(chat, &Context::default()).expect("it is translated").reader,
                    client.writer(true).expect("a client speaks it"),
                )),
            },
        };
        Pipeline::new(back, Terms::default(), &ids)
    }

    /// A buffered answer of the provider.
    fn whole(&self) -> Vec<u8> {
        let answer = match self.1.name() {
            "chat" => fixture("messages/response/write/text", "answer"),
            "messages" => fixture("messages/response/read/text", "body"),
            "completions" => fixture("completions/response/read/two_choices", "answer"),
            "generate" => fixture("generate/response/read/list_with_marks", "answer"),
            _ => {
                let numbers: Vec<f64> = (0..1_536).map(|at| f64::from(at) / 65_537.0 - 0.011).collect();
                json!({
                    "object": "list", "data": [{"object": "embedding", "index": 0, "embedding": numbers}],
                    "model": "text-embedding-3-small", "usage": {"prompt_tokens": 8, "total_tokens": 8},
                })
            }
        };
        answer.to_string().into_bytes()
    }

    /// A streamed answer, event by event: a fixture whose text comes in many pieces.
    fn events(&self) -> Vec<Vec<u8>> {
        let (case, member, text) = match self.1.name() {
            "chat" => ("messages/stream/write/text", "chunks", 1),
            "messages" => ("messages/stream/read/text", "events", 3),
            "completions" => ("completions/stream/read/with_usage", "chunks", 0),
            "generate" => ("generate/stream/read/end_token", "chunks", 0),
            _ => panic!("embeddings are not streamed"),
        };
        let events = fixture(case, member);
        let mut stream = Vec::new();
        for (at, event) in events.as_array().expect("a list").iter().enumerate() {
            let name = event["type"].as_str().filter(|_| self.1.name() == "messages");
            for _ in 0..if at == text { PIECES } else { 1 } {
                let mut bytes = Vec::new();
                sse::write(&mut bytes, name, event.to_string().as_bytes());
                stream.push(bytes);
            }
        }
        if matches!(self.1.name(), "chat" | "completions") {
            stream.push(b"data: [DONE]\n\n".to_vec());
        }
        stream
    }
}

#[divan::bench(args = STREAMED.into_iter().chain(EMBEDDINGS))]
fn answer_buffered(bencher: Bencher, pair: &Pair) {
    time_on(bencher, &pair.whole(), |body| {
        let mut pipeline = pair.pipeline();
        let answer = pipeline.whole(body).expect("it is translated");
        assert!(pipeline.usage().is_some());
        answer
    });
}

#[divan::bench(args = STREAMED)]
fn answer_streamed(bencher: Bencher, pair: &Pair) {
    let events = pair.events();
    time_on(bencher, &events.concat(), |_| {
        let mut pipeline = pair.pipeline();
        for event in black_box(&events) {
            let mut out = Vec::new();
            pipeline.chunk(event, &mut out).expect("it is translated");
            black_box(out);
        }
        pipeline.end(&mut Vec::new()).expect("the stream is whole");
        assert!(pipeline.usage().is_some() && pipeline.events() > PIECES as u64);
    });
}

// ------------------------------------------------------------------------------------------------------- quota and routing

/// A store in which this worker lives.
fn memory() -> Memory {
    let shared = Memory::default();
    quota::prepare(&shared, [1, 2]);
    quota::heartbeat(&shared, WORKER, NOW_MS);
    shared
}

/// A rule with every limit, none of them near.
fn rule(kind: MeterKind) -> Rule {
    Rule {
        owner: None,
        kind,
        meter: Meter::new(kind, "0f2d7a55c1"),
        limits: Limits {
            rpm: Some(1_000_000_000_000),
            tpm: Some(1_000_000_000_000_000),
            parallel: Some(1_000_000),
        },
        max_budget: Some(Money::from_pico(i128::from(u64::MAX))),
        base: Base::default(),
        resets: None,
    }
}

/// A request comes and is over, under so many rules.
#[divan::bench(args = [1, 5])]
fn quota_reserve_and_settle(bencher: Bencher, rules: usize) {
    let kinds =
        [MeterKind::Key, MeterKind::User, MeterKind::Team, MeterKind::Member, MeterKind::Organization];
    let rules: Vec<Rule> = kinds.into_iter().take(rules).map(rule).collect();
    let shared = memory();
    let estimate = Estimate { tokens: 500, cost: Money::from_pico(1_000_000), ..Estimate::default() };
    time(bencher, || {
        let reserved = quota::reserve(&shared, WORKER, &rules, estimate, NOW_MS).expect("there is room");
        reserved.settle(&shared, 281, Money::from_pico(65_100), NOW_MS);
    });
}

const STRATEGIES: [&str; 5] =
    ["simple-shuffle", "least-busy", "usage-based-routing-v2", "latency-based-routing", "cost-based-routing"];

/// The plan of a request, in a group of so many deployments that have been called before.
#[divan::bench(args = STRATEGIES, consts = [2, 50])]
fn pick<const DEPLOYMENTS: usize>(bencher: Bencher, strategy: &str) {
    let (config, shared, mut random) = (group(strategy, DEPLOYMENTS), memory(), Random::new(1));
    for (at, deployment) in config.deployments.iter().enumerate() {
        let estimate = Estimate { tokens: 100 + at as u64, ..Estimate::default() };
        let reserved = quota::reserve(&shared, WORKER, &deployment.rules, estimate, NOW_MS);
        reserved.expect("there is room").settle(&shared, 100 + at as u64, Money::default(), NOW_MS);
        let sample = Sample::of(800 + at as u64, Some(90), 51);
        latency::note(&shared, deployment, sample, &config.router.latency, NOW_MS);
    }
    time(bencher, || {
        let mut world = World {
            config: &config,
            shared: &shared,
            now_ms: NOW_MS,
            random: &mut random,
            worker: WORKER,
            trace: None,
        };
        let call = RoutingInput { prompt_tokens: 230, ..RoutingInput::default() };
        let plan = Plan::new("gpt-4o", Controls { call, ..Controls::default() }, &mut world);
        plan.unwrap_or_else(|error| panic!("a deployment is picked: {}", error.message))
    });
}

/// A group, as `config.yaml` has it.
fn group(strategy: &str, deployments: usize) -> Config {
    let mut text = format!("router_settings: {{routing_strategy: {strategy}}}\nmodel_list:\n");
    for at in 0..deployments {
        text += &format!(
            "  - {{model_name: gpt-4o, litellm_params: {{model: openai/gpt-4o, api_base: \"http://{at}.test/v1\", api_key: sk-{at}}}}}\n"
        );
    }
    config::load(&text, &|_| None, &|_| None).expect("the configuration is valid").config
}

// ------------------------------------------------------------------------------------------------------------------- price

/// As calls ask for it, again and again: before the answer, and with the model that has answered.
#[divan::bench(args = ["known", "answered"])]
fn price_of_call(bencher: Bencher, name: &str) {
    let config = group("simple-shuffle", 2);
    let answered = (name == "answered").then_some("gpt-4o-2024-08-06");
    time(bencher, || config.price(black_box(1), "gpt-4o", black_box(answered)).expect("the price is known"));
}

/// In the table: by the configured model, by the one that has answered, and in vain.
#[divan::bench(args = ["known", "answered", "unknown"])]
fn price_for(bencher: Bencher, name: &str) {
    let (model, answered) = match name {
        "known" => ("openai/gpt-4o-mini", None),
        "answered" => ("openai/gpt-4o-mini", Some("gpt-4o-mini-2024-07-18")),
        _ => ("openai/our-own-model", Some("our-own-model-7")),
    };
    assert_eq!(table::price_for(model, "openai", None, answered).is_some(), name != "unknown");
    time(bencher, || table::price_for(black_box(model), "openai", None, black_box(answered)));
}

#[divan::bench]
fn price_cost(bencher: Bencher) {
    let price = table::price_for("openai/gpt-4o-mini", "openai", None, None).expect("the price is known");
    let usage = Usage {
        prompt_tokens: 230,
        completion_tokens: 51,
        total_tokens: 281,
        cached_tokens: 128,
        ..Usage::default()
    };
    time(bencher, || black_box(&price).cost(black_box(&usage), &Terms::default(), None));
}
