//! The core as a gateway without Envoy, for tests that want thousands of calls a second: `one_call CONFIG`.
//!
//! On each line of the input a JSON object, on each line of the output what comes of it. A client's request
//! (`{"path", "headers", "body"}`) becomes what its provider is asked (`{"asked": {"path", "headers", "body"}}`) or the gateway's own
//! answer (`{"answer": {"status", "headers", "body"}}`); after the former the provider's answer is wanted
//! (`{"status", "headers", "pieces"}`) and becomes the client's, or it does not come at all. Bodies are texts with a character for each byte.

#![allow(clippy::expect_used, clippy::panic, reason = "a helper of tests ends at the first fault")]

use std::{
    io::{BufRead, Write},
    rc::Rc,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tollgate::core::{
    access::keyring::Keyring,
    config::{self, Config},
    exchange::{Env, Exchange, Next, Opened, open, output_lengths::OutputLengths, seams::Seams},
    headers::Headers,
    model::status::Status,
    quota::{self, Worker},
    random::Random,
    store::Memory,
};

const NOW_MS: u64 = 1_800_000_000_000;

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Request(Request),
    Answer(Answer),
}

#[derive(Deserialize)]
struct Request {
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

#[derive(Deserialize)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    pieces: Vec<String>,
}

struct Gateway {
    config: Rc<Config>,
    shared: Memory,
    random: Random,
    keys: Keyring,
    seams: Seams,
    lengths: OutputLengths,
}

fn main() {
    let path = std::env::args().nth(1).expect("the path of a configuration");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let config =
        config::load(&text, &|_| None, &|_| None).unwrap_or_else(|faults| panic!("{faults:?}")).config;
    let shared = Memory::default();
    quota::prepare(&shared, [1, 2]);
    quota::heartbeat(&shared, Worker(1), NOW_MS);
    let mut gateway = Gateway {
        config: Rc::new(config),
        shared,
        random: Random::new(1),
        keys: Keyring::new(100),
        seams: Seams::default(),
        lengths: OutputLengths::default(),
    };
    let mut asked: Option<Exchange> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line of text");
        let said = match (asked.take(), serde_json::from_str(&line)) {
            (Some(exchange), Ok(Line::Answer(answer))) => gateway.answer(exchange, &answer),
            // A call that nobody has answered is over with the next.
            (_, Ok(Line::Request(request))) => gateway.request(&request, &mut asked),
            _ => panic!("neither a request nor the answer to one: {line}"),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{said}").and_then(|()| out.flush()).expect("somebody reads");
    }
}

impl Gateway {
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

    /// A client's request: the exchange is left in `asked` when a provider is to answer it.
    fn request(&mut self, request: &Request, asked: &mut Option<Exchange>) -> Value {
        let mut headers = Headers::from_pairs(&[(":method", "POST"), (":path", &request.path)]);
        request.headers.iter().for_each(|(name, value)| headers.push(name, value.as_bytes()));
        let body = bytes_of(&request.body);
        let config = Rc::clone(&self.config);
        let mut exchange = match open(&config, &headers, &mut self.env()) {
            Opened { exchange: Some(exchange), next: Next::ReadBody } => *exchange,
            Opened { next, .. } => return reply(next),
        };
        let next = match exchange.on_body(&body, &mut self.env()) {
            Next::Forward(_) => exchange.on_attempt(&mut self.env()).next,
            next => next,
        };
        match next {
            Next::Send(outgoing) => {
                let path = outgoing.headers.text(":path");
                let said = json!({"asked": {
                    "path": path, "headers": pairs_of(&outgoing.headers), "body": text_of(&outgoing.body),
                }});
                *asked = Some(exchange);
                said
            }
            next => {
                exchange.on_done(&mut self.env());
                reply(next)
            }
        }
    }

    /// A provider's answer, as the client is to get it.
    fn answer(&mut self, mut exchange: Exchange, answer: &Answer) -> Value {
        let status = answer.status.to_string();
        let mut headers = Headers::from_pairs(&[(":status", &status)]);
        answer.headers.iter().for_each(|(name, value)| headers.push(name, value.as_bytes()));
        let mut released = None;
        let (mut out, mut kept) = (Vec::new(), Vec::new());
        if let Next::Release(first) =
            exchange.on_response_headers(headers, answer.pieces.is_empty(), &mut self.env())
        {
            released = first.headers;
        }
        for (at, piece) in answer.pieces.iter().enumerate() {
            let end = at + 1 == answer.pieces.len();
            kept.extend(bytes_of(piece));
            if !exchange.wants_body(kept.len(), end) {
                if !exchange.holds() {
                    out.append(&mut kept);
                }
                continue;
            }
            match exchange.on_response_body(&kept, end, &mut self.env()) {
                Next::Release(part) => {
                    released = released.or(part.headers);
                    out.extend(part.body.unwrap_or_else(|| kept.clone()));
                }
                Next::Pass => out.extend_from_slice(&kept),
                _ => continue,
            }
            kept.clear();
        }
        let released = released.unwrap_or_default();
        let said = match exchange.on_release(Status::new(answer.status), "via_upstream", &mut self.env()) {
            Next::Pass => json!({"answer": {
                "status": released.text(":status").and_then(|status| status.parse::<u16>().ok()),
                "headers": pairs_of(&released), "body": text_of(&out),
            }}),
            next => reply(next),
        };
        exchange.on_done(&mut self.env());
        said
    }
}

/// The gateway's own answer.
fn reply(next: Next) -> Value {
    let Next::Reply(reply) = next else { panic!("neither asked nor answered: {next:?}") };
    json!({"answer": {"status": reply.status, "headers": reply.headers, "body": text_of(&reply.body)}})
}

fn pairs_of(headers: &Headers) -> Vec<(&str, String)> {
    headers.iter().map(|(name, value)| (name, text_of(value))).collect()
}

/// Bytes as a text with a character for each.
fn text_of(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn bytes_of(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("a character for each byte")).collect()
}
