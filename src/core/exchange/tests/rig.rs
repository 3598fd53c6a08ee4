//! Whole requests against scripted providers, with the part of Envoy played by a loop: it opens the cluster that was named
//! last, retries what is marked for it, and never more often than it was told.

use std::rc::Rc;

use serde_json::Value;

use super::super::{
    next::{Forward, Next, Release, Reply},
    *,
};
use crate::core::{
    config,
    headers::Headers,
    model::{call_record::CallRecord, status::Status},
    quota,
    store::Memory,
};

/// How a provider behaves for one attempt.
pub(super) enum Behaviour {
    Refuse,
    Hang,
    Answer(u16, Value),
    Stream(Vec<String>),
    Raw(Raw),
    /// The listener inside has no answer to pass on.
    NoAnswer(u16),
}
pub(super) use Behaviour::*;

/// Any answer at all.
pub(super) struct Raw {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) pieces: Vec<Vec<u8>>,
    /// The connection breaks after the last piece.
    pub(super) cut: bool,
}

/// What happened.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// Model asked of the provider, attempt by attempt.
    pub(super) models: Vec<String>,
    /// Cluster named and, through the listener inside, cluster behind it and time-outs (whole, begin).
    pub(super) ways: Vec<String>,
    /// What Envoy was told to give every attempt.
    pub(super) per_try_ms: u64,
    /// Paths asked for.
    pub(super) paths: Vec<String>,
    /// Bodies sent.
    pub(super) bodies: Vec<Value>,
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
    pub(super) record: Option<CallRecord>,
    /// How many answers the client got.
    pub(super) answers: u32,
    /// The seconds that Envoy was told to wait before each retry that an answer asked for.
    pub(super) waits: Vec<Option<u64>>,
}

impl Story {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn message(&self) -> String {
        let value: Value = serde_json::from_str(&self.body).unwrap();
        value["error"]["message"].as_str().unwrap().to_owned()
    }
}

pub(super) struct Rig {
    pub(super) config: Rc<Config>,
    pub(super) shared: Memory,
    pub(super) random: Random,
    pub(super) keys: Keyring,
    pub(super) seams: Seams,
    pub(super) lengths: OutputLengths,
    pub(super) now_ms: u64,
    /// What passes between an attempt's request and its answer.
    pub(super) answer_takes_ms: u64,
    /// The key that requests bring.
    pub(super) key: Option<&'static str>,
    /// After so many steps of a request the client goes away.
    pub(super) patience: Option<u32>,
}

impl Rig {
    pub(super) fn new(yaml: &str) -> Rig {
        Rig::with_environment(yaml, |_| None)
    }

    pub(super) fn with_environment(yaml: &str, environment: fn(&str) -> Option<String>) -> Rig {
        let loaded = config::load(yaml, &environment, &|_| None).unwrap();
        let shared = Memory::default();
        quota::prepare(&shared, [1, 2]);
        Rig {
            config: Rc::new(loaded.config),
            shared,
            random: Random::new(1),
            keys: Keyring::new(100),
            seams: Seams::default(),
            lengths: OutputLengths::default(),
            now_ms: 1_000_000_000,
            answer_takes_ms: 0,
            key: None,
            patience: None,
        }
    }

    pub(super) fn env(&mut self) -> Env<'_> {
        Env {
            shared: &self.shared,
            seams: &self.seams,
            now_ms: self.now_ms,
            random: &mut self.random,
            keys: &mut self.keys,
            output_lengths: &mut self.lengths,
            worker: Worker(1),
            client: &|| Some("192.0.2.1".to_owned()),
        }
    }

    pub(super) fn headers(&self, path: &str) -> Headers {
        let mut list = vec![(":method", "POST"), (":path", path)];
        let key = self.key.map(|key| format!("Bearer {key}"));
        list.extend(key.as_deref().map(|key| ("authorization", key)));
        Headers::from_pairs(&list)
    }

    pub(super) fn chat(&mut self, body: Value, play: impl FnMut(usize, &str) -> Behaviour) -> Story {
        self.call("/v1/chat/completions", body, play)
    }

    pub(super) fn call(
        &mut self,
        path: &str,
        body: Value,
        play: impl FnMut(usize, &str) -> Behaviour,
    ) -> Story {
        let story = self.run(path, body, play);
        assert_eq!(story.answers, 1, "one request, one answer: {story:?}");
        story
    }

    pub(super) fn run(
        &mut self,
        path: &str,
        body: Value,
        mut play: impl FnMut(usize, &str) -> Behaviour,
    ) -> Story {
        self.run_bytes(path, body.to_string().as_bytes(), |attempt, _, model| play(attempt, model))
    }

    /// Runs a request that ends in one answer. `play` knows the path and the model that are asked of the provider.
    pub(super) fn run_path(
        &mut self,
        path: &str,
        body: Value,
        mut play: impl FnMut(&str, &str) -> Behaviour,
    ) -> Story {
        let story = self.run_bytes(path, body.to_string().as_bytes(), |_, asked, model| play(asked, model));
        assert_eq!(story.answers, 1, "one request, one answer: {story:?}");
        story
    }

    /// Runs a request with any body. `play` knows the attempt, the path and the model that are asked of the provider.
    pub(super) fn run_bytes(
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
                replied(exchange.on_release(Status::new(status), "via_upstream", env))
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
pub(super) fn replied(next: Next) -> Option<Reply> {
    match next {
        Next::Reply(reply) => Some(reply),
        Next::Pass => None,
        next => panic!("headers pass or are replaced: {next:?}"),
    }
}

/// The edits of what goes on, unless it is kept back.
pub(super) fn released(next: Next) -> Option<Release> {
    match next {
        Next::Release(release) => Some(release),
        Next::Pass => Some(Release::default()),
        Next::Hold => None,
        next => panic!("a response is held or goes on: {next:?}"),
    }
}

pub(super) fn finish(mut story: Story, reply: &Reply) -> Story {
    story.answers += 1;
    story.status = reply.status;
    story.headers = reply.headers.clone();
    story.body = String::from_utf8(reply.body.clone()).unwrap();
    story
}
