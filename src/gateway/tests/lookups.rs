//! Records that are asked for while a request waits: keys when its headers are here, end users when its body is.

use std::{cell::RefCell, rc::Rc};

use hashbrown::HashMap;

use super::{envoy::*, *};
use crate::core::{
    access::{self, changes},
    host::CallResponse,
    model::key_record::{EndUserRecord, KeyRecord, Principal},
    protocol::KEY_VARIABLE,
};
use crate::gateway::fake::Pending;

pub const FILE: &str = "
model_list:
- {model_name: a, litellm_params: {model: openai/a1, api_base: 'http://a.test/v1', api_key: k}}
general_settings: {master_key: sk-master}
";

pub fn environment() -> HashMap<&'static str, String> {
    HashMap::from_iter([(KEY_VARIABLE, "secret".to_owned())])
}

fn record(value: &impl serde::Serialize) -> Option<CallResponse> {
    Some(CallResponse { status: 200, body: serde_json::to_vec(value).unwrap() })
}

/// The record of the key `sk-one`.
pub fn grant() -> KeyRecord {
    let mut grant = KeyRecord::default();
    grant.key.id = access::hash(b"sk-one");
    grant
}

/// What the ledger says: it knows one key, and every end user.
pub fn known(call: &Pending) -> Option<CallResponse> {
    assert_eq!(call.authorization, "Bearer secret");
    match call.path.strip_prefix("/internal/keys/") {
        Some(hash) if hash == grant().key.id => record(&grant()),
        Some(_) => Some(CallResponse { status: 404, body: Vec::new() }),
        None => record(&EndUserRecord {
            scope: Principal { id: "u".to_owned(), ..Principal::default() },
            ..EndUserRecord::default()
        }),
    }
}

/// Paths that the ledger was asked for.
type Asked = Rc<RefCell<Vec<String>>>;

/// A gateway whose ledger answers by this, as long as it does.
fn gateway(
    mut ledger: impl FnMut(usize, &Pending) -> Option<Option<CallResponse>> + 'static,
) -> (Envoy, Asked) {
    let asked = Asked::default();
    let seen = Rc::clone(&asked);
    let play = |_: usize, sent: &Sent| Answer(200, completion(&sent.model));
    let envoy = Envoy::with_ledger(FILE, environment(), play, move |call| {
        // A call that is not answered yet is shown again.
        let answer = ledger(seen.borrow().len(), call)?;
        seen.borrow_mut().push(call.path.clone());
        Some(answer)
    });
    (envoy, asked)
}

fn ask() -> Ask {
    Ask::chat(&hello("a")).with("authorization", "Bearer sk-one")
}

fn for_user() -> Ask {
    let mut body = hello("a");
    body["user"] = json!("u");
    Ask::chat(&body).with("authorization", "Bearer sk-one")
}

#[test]
fn a_key_is_asked_for_once_and_remembered_until_it_changes() {
    let (mut envoy, asked) = gateway(|_, call| Some(known(call)));
    for _ in 0..3 {
        let id = envoy.begin(0, ask());
        envoy.pass(10);
        assert_eq!(envoy.finish(id).status, 200);
    }
    assert_eq!(asked.borrow().len(), 1);
    changes::announce(&envoy.process.store, &[&format!("key:{}", grant().key.id)]);
    let id = envoy.begin(0, ask());
    envoy.pass(10);
    assert_eq!((envoy.finish(id).status, asked.borrow().len()), (200, 2));
    assert_eq!(envoy.process.metric("tollgate_lookups;kind=found"), 2);
}

#[test]
fn an_unknown_key_is_refused_and_nobody_is_called() {
    let (mut envoy, asked) = gateway(|_, call| Some(known(call)));
    for _ in 0..2 {
        let story = envoy.call(Ask::chat(&hello("a")).with("authorization", "Bearer sk-two"));
        assert_eq!(story.status, 401);
    }
    assert_eq!((envoy.sent.len(), asked.borrow().len()), (0, 1));
    assert_eq!(envoy.process.metric("tollgate_lookups;kind=unknown"), 1);
}

#[test]
fn a_body_that_comes_while_the_key_is_asked_for_is_kept() {
    for size in [3, 10_000] {
        for trailers in [false, true] {
            let (mut envoy, _) = gateway(|_, _| None);
            let mut request = ask().in_parts(size);
            request.trailers = trailers;
            let id = envoy.begin(0, request);
            let calls = envoy.pending();
            assert_eq!((calls.len(), envoy.sent.len()), (1, 0));
            envoy.answer_call(&calls[0], known(&calls[0]));
            // It is read in the next tick: what kills a worker there would leave it hanging here.
            assert_eq!((envoy.sent.len(), envoy.held(0).1), (0, 1));
            envoy.pass(10);
            assert_eq!(envoy.sent.len(), 1);
            assert_eq!(envoy.finish(id).status, 200);
        }
    }
}

#[test]
fn the_rest_of_a_body_may_come_after_the_record() {
    let (mut envoy, _) = gateway(|_, call| Some(known(call)));
    let mut request = ask();
    let whole = request.parts.concat();
    let (first, second) = whole.split_at(9);
    (request.parts, request.is_open) = (vec![first.to_vec()], true);
    let id = envoy.begin(0, request);
    assert!(envoy.sent.is_empty());
    envoy.send(id, second, true);
    assert_eq!((envoy.finish(id).status, envoy.sent.len()), (200, 1));
}

#[test]
fn an_end_user_is_asked_for_when_the_body_is_here() {
    let (mut envoy, asked) = gateway(|_, call| Some(known(call)));
    changes::set_end_users(&envoy.process.store, true);
    let id = envoy.begin(0, for_user());
    envoy.pass(20);
    assert_eq!(envoy.finish(id).status, 200);
    assert_eq!(asked.borrow().iter().map(|path| path.len() > 30).collect::<Vec<_>>(), [true, false]);
    assert_eq!(asked.borrow()[1], "/internal/end_users/u");
    let id = envoy.begin(0, for_user());
    envoy.pass(20);
    assert_eq!((envoy.finish(id).status, asked.borrow().len()), (200, 2), "remembered");
}

#[test]
fn a_record_may_be_asked_for_in_a_tick() {
    for hands_to_role in [false, true] {
        // The first answer about the end user is lost: it is asked for again, in the tick that reads the body.
        let (mut envoy, asked) = gateway(|count, call| Some(if count == 1 { None } else { known(call) }));
        envoy.hands_to_role = hands_to_role;
        changes::set_end_users(&envoy.process.store, true);
        let id = envoy.begin(0, for_user());
        envoy.pass(40);
        assert!(envoy.is_over(id));
        assert_eq!((envoy.finish(id).status, asked.borrow().len()), (200, 3));
        assert_eq!(envoy.held(0), (0, 0, 0));
    }
}

#[test]
fn a_response_after_the_client_has_left_changes_nothing() {
    for hands_to_role in [false, true] {
        for answers in 0..3 {
            // So many are answered, the next is not before the client leaves.
            let (mut envoy, _) = gateway(move |count, call| match count {
                count if count >= answers => None,
                1 => Some(None),
                _ => Some(known(call)),
            });
            envoy.hands_to_role = hands_to_role;
            changes::set_end_users(&envoy.process.store, true);
            let id = envoy.begin(0, for_user());
            envoy.pass(40);
            let calls = envoy.pending();
            assert_eq!(calls.len(), 1, "{answers}");
            envoy.drop_client(id);
            assert!(envoy.pending().is_empty(), "a stream's calls end with it");
            assert_eq!(envoy.held(0), (0, 0, 0), "{answers}: nothing waits for what will not come");
            // A host that hands it in all the same.
            envoy.answer_call(&calls[0], known(&calls[0]));
            envoy.pass(100);
            assert_eq!((envoy.held(0), envoy.sent.len()), ((0, 0, 0), 0));
            assert!(envoy.finish(id).record.contains("path"), "it has its line in the access log");
        }
    }
}

#[test]
fn a_client_that_leaves_while_its_body_is_to_be_read_is_forgotten() {
    let (mut envoy, _) = gateway(|_, call| Some(known(call)));
    let id = envoy.begin(0, ask());
    assert_eq!(envoy.held(0).1, 1);
    envoy.drop_client(id);
    envoy.pass(20);
    assert_eq!((envoy.held(0), envoy.sent.len()), ((0, 0, 0), 0));
}

#[test]
fn a_ledger_that_is_away_refuses_new_keys_and_keeps_known_ones() {
    let (mut envoy, _) = gateway(|count, call| Some((count < 1).then(|| known(call)).flatten()));
    let id = envoy.begin(0, ask());
    envoy.pass(10);
    assert_eq!(envoy.finish(id).status, 200);
    // No answer twice: the ledger is away.
    let other = || Ask::chat(&hello("a")).with("authorization", "Bearer sk-two");
    let story = envoy.call(other());
    assert_eq!(story.status, 503, "{}", story.body);
    envoy.pass(60_000);
    assert_eq!(envoy.call(other()).status, 503);
    let id = envoy.begin(0, ask());
    envoy.pass(10);
    assert_eq!(envoy.finish(id).status, 200);
    assert!(envoy.process.metric("tollgate_lookups;kind=unreachable") >= 2);
}

#[test]
fn a_call_that_cannot_begin_is_a_ledger_that_is_away() {
    let (mut envoy, asked) = gateway(|_, call| Some(known(call)));
    envoy.refuse_calls(0, true);
    assert_eq!(envoy.call(ask()).status, 503);
    assert!(asked.borrow().is_empty());
    envoy.refuse_calls(0, false);
    envoy.pass(60_000);
    let id = envoy.begin(0, ask());
    envoy.pass(10);
    assert_eq!(envoy.finish(id).status, 200);
}

#[test]
fn nobody_asks_for_ever() {
    // Whatever is learnt of the key is outdated at once.
    let (mut envoy, asked) = gateway(|_, _| None);
    let id = envoy.begin(0, ask());
    for _ in 0..20 {
        let Some(call) = envoy.pending().pop() else { break };
        asked.borrow_mut().push(call.path.clone());
        changes::announce(&envoy.process.store, &[&format!("key:{}", grant().key.id)]);
        envoy.answer_call(&call, known(&call));
    }
    envoy.pass(100);
    assert!(envoy.is_over(id) && asked.borrow().len() <= 6, "{:?}", asked.borrow());
    let story = envoy.finish(id);
    assert!([200, 503].contains(&story.status), "{story:?}");
}

#[test]
fn envoy_may_refuse_a_request_whose_key_is_asked_for() {
    for (status, told) in [(413, "too large"), (408, "did not arrive in time"), (400, "could not be read")] {
        let (mut envoy, _) = gateway(|_, _| None);
        let id = envoy.begin(0, ask());
        let call = envoy.pending().remove(0);
        envoy.refuse(id, status, "of envoys own");
        let story = envoy.finish(id);
        assert_eq!(story.status, status);
        assert!(message_of(&story.body).contains(told), "{}", story.body);
        envoy.answer_call(&call, known(&call));
        envoy.pass(20);
        assert_eq!((envoy.held(0), envoy.sent.len()), ((0, 0, 0), 0));
    }
}

#[test]
fn a_management_call_goes_to_the_ledger_and_tells_what_it_changed() {
    let play = |_: usize, sent: &Sent| {
        assert_eq!(sent.cluster, crate::core::protocol::CLUSTER);
        Answer(200, json!({"key": "sk-new"}))
    };
    let mut envoy = Envoy::with_ledger(FILE, environment(), play, |call| Some(known(call)));
    let before = changes::watermark(&envoy.process.store);
    let ask = Ask::to("/key/generate", &json!({})).with("authorization", "Bearer sk-master");
    let story = envoy.call(ask.with("x-tollgate-client", "forged"));
    assert_eq!(story.status, 200, "{story:?}");
    let client = envoy.sent[0].headers.iter().find(|(name, _)| name == "x-tollgate-client");
    assert_eq!(client.map(|(_, value)| value.as_str()), Some("192.0.2.1"));
    assert_eq!(story.header("x-tollgate-changed"), None, "is between the gateway and its ledger");
    assert_ne!(changes::watermark(&envoy.process.store), before, "all workers hear of it");
    assert_eq!(envoy.process.metric("tollgate_requests;model=none;status=200"), 1);
}

#[test]
fn a_management_call_without_a_ledger_is_told_so() {
    let mut envoy = Envoy::with_ledger(FILE, environment(), |_, _| Refuse, |call| Some(known(call)));
    let ask = Ask::to("/key/generate", &json!({})).with("authorization", "Bearer sk-master");
    let story = envoy.call(ask.with("origin", "http://ui.test"));
    assert_eq!(story.status, 503);
    assert!(message_of(&story.body).contains("the ledger is not reachable now"), "{}", story.body);
    assert!(story.header("access-control-allow-origin").is_some(), "a browser may read it");
}
