//! What a request may make the core hold, counted by the allocator: every operation and every member, with the values that cost
//! the most for their bytes.
#![allow(unsafe_code, reason = "an allocator that counts can be written in no other way")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    rc::Rc,
};

use tollgate::core::{
    access::keyring::Keyring,
    config::{self, Config},
    exchange::{
        Env, Next, Opened,
        bounds::{LEAST_BOUND, MOST_TIMES, settings},
        open,
        output_lengths::OutputLengths,
        seams::Seams,
    },
    headers::Headers,
    quota::{self, Worker},
    random::Random,
    store::Memory,
};

/// Counts what a thread holds, and the most that it did: each test is a thread, and what it allocates it frees.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

fn grow(by: usize) {
    let held = HELD.get().wrapping_add(by);
    HELD.set(held);
    // What came from another thread and was freed here makes it less than nothing.
    MOST.set(if (MOST.get() as isize) < held as isize { held } else { MOST.get() });
}

// SAFETY: all work is the system allocator's; what is counted beside it changes nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(at, layout) }
    }

    // Growing holds both for a moment: the provided `realloc` makes a new one, copies and frees.
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONFIG: &str = r#"
model_list:
  - {model_name: same, litellm_params: {model: openai/a, api_base: "http://a.test/v1", api_key: k}}
  - {model_name: flat, litellm_params: {model: mistral/a, api_base: "http://a.test/v1", api_key: k}}
  - {model_name: claude, litellm_params: {model: anthropic/a, api_base: "http://a.test", api_key: k}}
  - {model_name: tgi, litellm_params: {model: huggingface/a, api_base: "http://a.test", api_key: k}}
  - {model_name: text, litellm_params: {model: text-completion-openai/a, api_base: "http://a.test/v1", api_key: k}}
router_settings: {enable_pre_call_checks: true, optional_pre_call_checks: [prompt_caching], num_retries: 0, fallbacks: [{same: [claude]}]}
general_settings: {enforced_params: [metadata.a, messages.a, input.a, model]}
"#;
const MODELS: [&str; 5] = ["same", "flat", "claude", "tgi", "text"];
const FILLERS: [&str; 4] = ["[]", "{}", "0", "{\"a\":\"\"}"];

/// Bodies of about `bytes` bytes: a member after the other, filled with one of the fillers.
fn bodies(model: &str, member: &str, filler: &str, bytes: usize) -> Vec<String> {
    let list = vec![filler; bytes / (filler.len() + 1)].join(",");
    let base = |more: String| {
        format!(
            r#"{{"model":"{model}","max_tokens":5,"prompt":"x","input":"x","messages":[{{"role":"user","content":"x"}}],{more}}}"#
        )
    };
    let mut bodies =
        vec![base(format!(r#""{member}":[{list}]"#)), base(format!(r#""{member}":{{"a":[{list}]}}"#))];
    if member == "messages" {
        bodies.push(base(format!(r#""messages":[{{"role":"user","content":[{list}]}}]"#)));
        bodies.push(base(format!(
            r#""messages":[{{"role":"user","content":[{{"type":"text","text":[{list}]}}]}}]"#
        )));
        let quoted = list.replace('"', "\\\"");
        bodies.push(base(format!(
            r#""messages":[{{"role":"user","content":"x"}},{{"role":"assistant","tool_calls":[{{"id":"1","type":"function","function":{{"name":"f","arguments":"{{\"a\":[{quoted}]}}"}}}}]}}]"#
        )));
        // What has to be looked into, piece by piece.
        bodies.push(base(format!(
            r#""messages":[{{"role":"user","content":[{{"type":"image_url","image_url":"u"}},{list}]}}]"#
        )));
    }
    if member == "input" {
        bodies.push(base(format!(r#""additional_drop_params":["input[0].x","input[*]"],"input":[{list}]"#)));
    }
    bodies
}

/// Members whose number is large, and texts that grow when they are read or written.
fn others(model: &str, bytes: usize) -> Vec<String> {
    let base = |more: String| format!(r#"{{"model":"{model}","max_tokens":5,{more}}}"#);
    let names: String = (0..bytes / 12).map(|at| format!(r#""m{at}":0,"#)).collect();
    let same = r#""":0,"#.repeat(bytes / 5);
    let text = |piece: &str| piece.repeat(bytes / piece.len());
    let said = |text: String| {
        base(format!(
            r#""prompt":"{text}","input":"{text}","messages":[{{"role":"user","content":"{text}"}}]"#
        ))
    };
    vec![
        base(format!(r#"{names}"prompt":"x","input":"x","messages":[]"#)),
        base(format!(r#"{same}"prompt":"x","input":"x","messages":[]"#)),
        said(text("x")),
        said(text("\\n")),
        said(text("\\u0001")),
        said(text("\u{e9}")),
        format!("{{\"a\":{}", text("[")),
        text("{\"a\":"),
        text("\""),
    ]
}

struct Gateway {
    config: Rc<Config>,
    shared: Memory,
    random: Random,
    keys: Keyring,
    seams: Seams,
    lengths: OutputLengths,
}

impl Gateway {
    fn new() -> Gateway {
        let config = config::load(CONFIG, &|_| None, &|_| None).unwrap().config;
        let shared = Memory::default();
        quota::prepare(&shared, [1, 2]);
        quota::heartbeat(&shared, Worker(1), 1_000_000);
        Gateway {
            config: Rc::new(config),
            shared,
            random: Random::new(1),
            keys: Keyring::new(10),
            seams: Seams::default(),
            lengths: OutputLengths::default(),
        }
    }

    /// Sends a request as far as its first provider, and returns what it was answered (0 for nothing), and the most bytes
    /// that were held for it.
    fn run(&mut self, path: &str, body: &str) -> (u16, usize) {
        let headers = Headers::from_pairs(&[(":method", "POST"), (":path", path)]);
        let config = Rc::clone(&self.config);
        let before = HELD.get();
        MOST.set(before);
        let mut env = Env {
            shared: &self.shared,
            seams: &self.seams,
            now_ms: 1_000_000,
            random: &mut self.random,
            keys: &mut self.keys,
            output_lengths: &mut self.lengths,
            worker: Worker(1),
            client: &|| None,
        };
        let Opened { exchange: Some(mut exchange), next: Next::ReadBody } = open(&config, &headers, &mut env)
        else {
            panic!("a call is ours")
        };
        let status = match exchange.on_body(body.as_bytes(), &mut env) {
            Next::Reply(reply) => reply.status,
            Next::Forward(_) => match exchange.on_attempt(&mut env).next {
                Next::Send(outgoing) => u16::from(outgoing.body.is_empty()),
                Next::Reply(reply) => reply.status,
                _ => match exchange.on_retry_body(body.as_bytes(), &mut env) {
                    Next::Reply(reply) => reply.status,
                    _ => 0,
                },
            },
            _ => 0,
        };
        exchange.on_done(&mut env);
        (status, MOST.get().wrapping_sub(before))
    }

    fn check(&mut self, path: &str, what: &str, body: &str, worst: &mut (f64, String)) -> u16 {
        let (status, held) = self.run(path, body);
        let bound = LEAST_BOUND.max(MOST_TIMES * body.len());
        assert!(
            held <= bound,
            "{what} on {path}: {held} bytes are held for a body of {}, {bound} may be; status {status}",
            body.len()
        );
        let share = held as f64 / bound as f64;
        if share > worst.0 {
            *worst = (share, format!("{what} on {path}: {held} for {}, status {status}", body.len()));
        }
        status
    }
}

/// Runs one part of the cases and says what came nearest to its bound.
fn watched(part: impl FnOnce(&mut Gateway, &mut (f64, String))) {
    let mut worst = (0.0, String::new());
    part(&mut Gateway::new(), &mut worst);
    println!("the most of what may be held: {:.2}, {}", worst.0, worst.1);
}

/// As many values as are let in, and then more.
fn translated(path: &str) {
    watched(|gateway, worst| {
        for model in MODELS {
            for filler in FILLERS {
                let values = filler.matches(['[', '{', '0', '"']).count().max(1);
                for (member, most) in [("messages", 240_000), ("tools", 240_000), ("input", 240_000)] {
                    let many = most / values * (filler.len() + 1);
                    // All of them once where trees are made and taken apart, a part of them everywhere else.
                    let all = path.ends_with("chat/completions") && model == "claude" && member == "messages";
                    let bytes = if all { many } else { many / 32 };
                    for (at, body) in bodies(model, member, filler, bytes).iter().enumerate() {
                        gateway.check(path, &format!("{model}, {member} of {filler} ({at})"), body, worst);
                    }
                }
            }
            for (at, body) in others(model, 200_000).iter().enumerate() {
                gateway.check(path, &format!("{model}, other {at}"), body, worst);
            }
        }
    });
}

#[test]
fn no_chat_makes_the_core_hold_more_than_a_multiple_of_its_body() {
    translated("/v1/chat/completions");
}

#[test]
fn no_completion_makes_the_core_hold_more_than_a_multiple_of_its_body() {
    translated("/v1/completions");
}

#[test]
fn no_message_makes_the_core_hold_more_than_a_multiple_of_its_body() {
    translated("/v1/messages");
}

#[test]
fn no_embedding_makes_the_core_hold_more_than_a_multiple_of_its_body() {
    translated("/v1/embeddings");
}

/// Settings are refused whoever would have got them.
#[test]
fn no_setting_makes_the_core_hold_more_than_a_multiple_of_its_body() {
    watched(|gateway, worst| {
        for (member, filler) in settings().zip(FILLERS.iter().cycle()) {
            for (at, body) in bodies("claude", member, filler, 600_000).iter().enumerate() {
                let what = format!("{member} of {filler} ({at})");
                assert_eq!(gateway.check("/v1/chat/completions", &what, body, worst), 400, "{what}");
            }
        }
    });
}

#[test]
fn no_large_body_makes_the_core_hold_more_than_a_multiple_of_it() {
    watched(|gateway, worst| {
        for member in ["fallbacks", "mock_response", "messages"] {
            for (at, body) in bodies("claude", member, "0", 14_000_000).iter().take(3).enumerate() {
                let what = format!("{member} ({at})");
                let status = gateway.check("/v1/chat/completions", &what, body, worst);
                assert!(matches!(status, 400 | 413), "{what}: {status}");
            }
        }
    });
}

#[test]
fn no_long_text_or_many_members_make_the_core_hold_more_than_a_multiple_of_the_body() {
    watched(|gateway, worst| {
        for (at, body) in others("claude", 14_000_000).iter().enumerate() {
            gateway.check("/v1/messages", &format!("other {at}"), body, worst);
        }
    });
}
