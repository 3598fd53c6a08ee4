//! A guard that calls somebody before a request is routed, and again before the client sees the response.

use std::time::Duration;

use super::{envoy::*, lookups, *};
use crate::core::{
    access::changes,
    error::Error,
    exchange::{
        Callout,
        next::{Then, Upstream},
        seams::{Called, Request, Response, Seam, Seams, Verdict},
    },
    host::CallResponse,
};
use crate::gateway::fake::Pending;

const ONE_SLOT: &str = "
model_list:
- {model_name: a, litellm_params: {model: openai/a1, api_base: 'http://a.test/v1', api_key: k, max_parallel_requests: 1, timeout: 5}}
- {model_name: b, litellm_params: {model: openai/b1, api_base: 'http://b.test/v1', api_key: k}}
";

/// Asks the service of the cluster `guard` about everything.
struct Guard;

impl Seam for Guard {
    fn before(&self, request: &Request<'_>, called: Called) -> Verdict {
        ask("/before", request.body, called)
    }

    fn after(&self, response: &Response<'_>, called: Called) -> Verdict {
        ask("/after", response.body, called)
    }
}

fn ask(path: &str, body: &[u8], called: Called) -> Verdict {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    match called {
        Called::No => Verdict::Call(Callout {
            to: Upstream::Cluster("guard".to_owned()),
            headers: vec![header(":method", "POST"), header(":path", path)],
            body: Some(body.to_vec()),
            limit: Duration::from_secs(1),
            then: Then::Seam,
        }),
        Called::Response(Some(CallResponse { status: 200, .. })) => Verdict::Go,
        Called::Response(Some(CallResponse { status: 201, body })) => Verdict::Change(body),
        Called::Response(Some(_)) => Verdict::Block(Error::bad_request("a guard has blocked this.")),
        Called::Response(None) => Verdict::Block(Error::unavailable("the guard is away.")),
    }
}

fn says(status: u16, body: &str) -> Option<Option<CallResponse>> {
    Some(Some(CallResponse { status, body: body.as_bytes().to_vec() }))
}

fn guarded() -> Seams {
    Seams { guards: vec![Box::new(Guard)], ..Seams::default() }
}

/// A gateway whose guard is answered by this; its second worker has it.
fn gateway(
    play: impl FnMut(usize, &Sent) -> Behaviour + 'static,
    guard: impl FnMut(&Pending) -> Option<Option<CallResponse>> + 'static,
) -> Envoy {
    let mut envoy = Envoy::with_ledger(ONE_SLOT, hashbrown::HashMap::new(), play, guard);
    envoy.process.seams.set(guarded);
    assert_eq!(envoy.add_worker(), 1);
    envoy
}

/// One request from its beginning to its end.
fn call(envoy: &mut Envoy, ask: Ask) -> Story {
    let id = envoy.begin(1, ask);
    envoy.pass(50);
    assert!(envoy.is_over(id), "it waits");
    envoy.finish(id)
}

/// Nothing is kept of requests that are over, and the one slot is free.
fn nothing_is_left(envoy: &mut Envoy) {
    assert_eq!(envoy.held(1), (0, 0, 0));
    let id = envoy.begin(0, Ask::chat(&hello("a")));
    assert_eq!(envoy.held(0).1, 0, "it does not wait for a slot");
    envoy.drop_client(id);
}

fn answer(_: usize, sent: &Sent) -> Behaviour {
    Answer(200, completion(&sent.model))
}

#[test]
fn what_a_guard_allows_or_changes_goes_on_on_both_sides() {
    let other = completion("changed").to_string();
    for (before, after) in [(200, 200), (201, 200), (200, 201), (201, 201)] {
        let (mut changed, other) = (hello("a"), other.clone());
        changed["messages"][0]["content"] = json!("changed");
        let mut envoy = gateway(answer, move |call| match call.path.as_str() {
            "/before" => says(before, &changed.to_string()),
            _ => says(after, &other),
        });
        let story = call(&mut envoy, Ask::chat(&hello("a")));
        assert_eq!(story.status, 200, "{story:?}");
        let asked = envoy.sent[0].body["messages"][0]["content"].clone();
        assert_eq!(asked, if before == 201 { "changed" } else { "hello" });
        let body: Value = serde_json::from_str(&story.body).unwrap();
        assert_eq!(body["model"], if after == 201 { "changed" } else { "a1" });
        assert_eq!(story.header("content-length"), Some(story.body.len().to_string().as_str()));
        assert_eq!(story.header("x-litellm-model-group"), Some("a"));
        nothing_is_left(&mut envoy);
    }
}

#[test]
fn what_a_guard_blocks_is_told_in_the_clients_format() {
    for blocked in ["/before", "/after"] {
        for path in ["/v1/chat/completions", "/v1/messages"] {
            let mut envoy =
                gateway(answer, move |call| says(if call.path == blocked { 400 } else { 200 }, ""));
            let mut body = hello("a");
            body["max_tokens"] = json!(5);
            let story = call(&mut envoy, Ask::to(path, &body));
            assert_eq!(story.status, 400, "{story:?}");
            assert_eq!(message_of(&story.body), "a guard has blocked this.");
            let body: Value = serde_json::from_str(&story.body).unwrap();
            assert_eq!(body["type"] == "error", path == "/v1/messages");
            assert_eq!(envoy.sent.len(), usize::from(blocked == "/after"), "nothing is tried again");
            nothing_is_left(&mut envoy);
        }
    }
}

#[test]
fn a_guard_that_does_not_answer_decides_what_becomes_of_it() {
    for lost in ["/before", "/after"] {
        let mut envoy =
            gateway(answer, move |call| if call.path == lost { Some(None) } else { says(200, "") });
        let story = call(&mut envoy, Ask::chat(&hello("a")));
        assert_eq!((story.status, message_of(&story.body).as_str()), (503, "the guard is away."));
        nothing_is_left(&mut envoy);
    }
    let mut envoy = gateway(answer, |_| panic!("no call can begin"));
    envoy.refuse_calls(1, true);
    assert_eq!(call(&mut envoy, Ask::chat(&hello("a"))).status, 503);
    nothing_is_left(&mut envoy);
}

#[test]
fn a_client_that_leaves_while_a_guard_is_asked_leaves_nothing_behind() {
    for left in ["/before", "/after"] {
        let mut envoy = gateway(answer, move |call| if call.path == left { None } else { says(200, "") });
        let id = envoy.begin(1, Ask::chat(&hello("a")));
        envoy.pass(50);
        let calls = envoy.pending();
        assert_eq!((calls.len(), calls[0].path.as_str()), (1, left));
        // Others of the worker are served meanwhile.
        let other = envoy.begin(0, Ask::chat(&hello("b")));
        assert_eq!(envoy.finish(other).status, 200);
        envoy.drop_client(id);
        assert!(envoy.pending().is_empty());
        envoy.answer_call(&calls[0], says(200, "").flatten());
        envoy.pass(50);
        nothing_is_left(&mut envoy);
    }
}

#[test]
fn parts_of_a_stream_are_judged_before_they_are_seen() {
    let play = |_: usize, _: &Sent| Stream(vec![chunk("a"), chunk("b"), "data: [DONE]\n\n".to_owned()]);
    let mut body = hello("a");
    body["stream"] = json!(true);
    let mut envoy = gateway(play, |_| says(200, ""));
    let story = call(&mut envoy, Ask::chat(&body));
    assert_eq!((story.status, story.is_broken), (200, false), "{story:?}");
    assert_eq!(story.body, format!("{}{}data: [DONE]\n\n", chunk("a"), chunk("b")));
    nothing_is_left(&mut envoy);
    let mut envoy = gateway(play, |call| says(if call.path == "/after" { 400 } else { 200 }, ""));
    let story = call(&mut envoy, Ask::chat(&body));
    assert_eq!((story.status, message_of(&story.body).as_str()), (400, "a guard has blocked this."));
    nothing_is_left(&mut envoy);
}

#[test]
fn what_comes_before_a_streams_answer_is_judged_with_it() {
    let before =
        [": OPENROUTER PROCESSING\n\n".to_owned(), "data: {\"id\":\"1\",\"choices\":[]}\n\n".to_owned()];
    let parts = [before.as_slice(), &[chunk("a"), "data: [DONE]\n\n".to_owned()]].concat();
    let whole = parts.concat();
    let play = move |_: usize, _: &Sent| Stream(parts.clone());
    let mut body = hello("a");
    body["stream"] = json!(true);
    let mut judged = Vec::new();
    let (told, heard) = std::sync::mpsc::channel();
    let mut envoy = gateway(play, move |call| {
        if call.path == "/after" {
            told.send(String::from_utf8(call.body.clone()).unwrap()).unwrap();
        }
        says(200, "")
    });
    let story = call(&mut envoy, Ask::chat(&body));
    judged.extend(heard.try_iter());
    assert_eq!((story.status, story.body.as_str()), (200, whole.as_str()), "{story:?}");
    assert_eq!(judged.concat(), whole);
    assert!(judged[0].starts_with(before.concat().as_str()) && judged[0].contains("\"a\""), "{judged:?}");
    nothing_is_left(&mut envoy);
}

#[test]
fn a_guard_comes_after_the_records_of_key_and_end_user() {
    let play = |_: usize, sent: &Sent| Answer(200, completion(&sent.model));
    let mut envoy =
        Envoy::with_ledger(lookups::FILE, lookups::environment(), play, |call| match call.cluster.as_str() {
            "guard" => says(200, ""),
            _ => Some(lookups::known(call)),
        });
    changes::set_end_users(&envoy.process.store, true);
    envoy.process.seams.set(guarded);
    envoy.add_worker();
    let mut body = hello("a");
    body["user"] = json!("u");
    let story = call(&mut envoy, Ask::chat(&body).with("authorization", "Bearer sk-one"));
    assert_eq!((story.status, envoy.sent.len()), (200, 1), "{story:?}");
    assert_eq!(envoy.process.metric("tollgate_lookups;kind=found"), 2);
    assert_eq!(envoy.held(1), (0, 0, 0));
}
