//! Workers that are lost: what goes with one, and what the others and its successor make of it.

use std::{cell::RefCell, rc::Rc};

use super::{
    envoy::*,
    lookups::{FILE, environment, known},
    *,
};
use crate::core::{
    host::CallResponse,
    protocol::{SYNC_PATH, SyncReply, SyncRequest},
};

const ONE_AT_A_TIME: &str = "
model_list:
- {model_name: a, litellm_params: {model: openai/a1, api_base: 'http://a.test/v1', api_key: k, max_parallel_requests: 1}}
";

#[test]
fn a_lost_worker_costs_its_own_requests_and_no_others() {
    let mut envoy = Envoy::new(&ONE_AT_A_TIME.replace(", max_parallel_requests: 1", ""), |_, _| Later);
    envoy.add_worker();
    let ids: Vec<usize> = (0..24).map(|number| envoy.begin(number % 2, Ask::chat(&hello("a")))).collect();
    envoy.kill(0, false);
    for (number, id) in ids.into_iter().enumerate() {
        envoy.respond(id, Answer(200, completion("a1")));
        assert_eq!(envoy.finish(id).status, if number % 2 == 0 { 503 } else { 200 });
    }
    let id = envoy.begin(0, Ask::chat(&hello("a")));
    envoy.respond(id, Answer(200, completion("a1")));
    assert_eq!(envoy.finish(id).status, 200, "its successor serves at once");
}

#[test]
fn what_a_lost_worker_held_is_free_after_its_silence() {
    let mut envoy = Envoy::new(ONE_AT_A_TIME, |_, _| Later);
    envoy.add_worker();
    envoy.begin(0, Ask::chat(&hello("a")));
    assert_eq!(envoy.sent.len(), 1);
    envoy.kill(0, false);
    let second = envoy.begin(1, Ask::chat(&hello("a")));
    envoy.pass(4_000);
    assert_eq!(envoy.sent.len(), 1, "it may only be busy");
    envoy.pass(2_100);
    assert_eq!(envoy.sent.len(), 2);
    envoy.respond(second, Answer(200, completion("a1")));
    assert_eq!(envoy.finish(second).status, 200);
}

#[test]
fn a_worker_that_lives_keeps_what_it_holds() {
    let mut envoy = Envoy::new(ONE_AT_A_TIME, |_, _| Later);
    envoy.add_worker();
    let first = envoy.begin(0, Ask::chat(&hello("a")));
    let second = envoy.begin(1, Ask::chat(&hello("a")));
    envoy.pass(60_000);
    assert_eq!(envoy.sent.len(), 1, "it says that it lives, however long its provider takes");
    envoy.respond(first, Answer(200, completion("a1")));
    envoy.pass(20);
    envoy.respond(second, Answer(200, completion("a1")));
    assert_eq!((envoy.finish(first).status, envoy.finish(second).status), (200, 200));
}

#[test]
fn an_attempt_in_a_new_worker_says_that_its_request_is_lost() {
    // The downstream part waits while the worker is replaced; its attempt begins in the new one.
    let mut envoy = Envoy::new(ONE_AT_A_TIME, |_, _| Later);
    let first = envoy.begin(0, Ask::chat(&hello("a")));
    envoy.replace_worker_of(first);
    envoy.respond(first, Refuse);
    assert!(envoy.is_over(first));
    let story = envoy.finish(first);
    assert_eq!(story.status, 503);
    assert!(message_of(&story.body).contains("lost track of this request"), "{}", story.body);
}

#[test]
fn cooldowns_outlive_a_worker() {
    let yaml = "
model_list:
- {model_name: pair, litellm_params: {model: openai/good, api_base: 'http://good.test/v1', api_key: k}}
- {model_name: pair, litellm_params: {model: openai/bad, api_base: 'http://bad.test/v1', api_key: k}}
router_settings: {num_retries: 1, cooldown_time: 300}
";
    let mut envoy = Envoy::new(yaml, |_, sent| match sent.model.as_str() {
        "bad" => Answer(401, error("refused", "invalid_api_key")),
        model => Answer(200, completion(model)),
    });
    let bad = |envoy: &Envoy| envoy.sent.iter().filter(|sent| sent.model == "bad").count();
    while bad(&envoy) == 0 {
        assert_eq!(envoy.chat(&hello("pair")).status, 200);
    }
    envoy.kill(0, false);
    for _ in 0..20 {
        assert_eq!(envoy.chat(&hello("pair")).status, 200);
    }
    assert_eq!(bad(&envoy), 1, "what one worker knew the next one knows");
}

type Requests = Rc<RefCell<Vec<SyncRequest>>>;

/// A gateway with a ledger that takes everything.
fn gateway() -> (Envoy, Requests) {
    let requests = Requests::default();
    let seen = Rc::clone(&requests);
    let play = |_: usize, sent: &Sent| Answer(200, completion(&sent.model));
    let mut envoy = Envoy::with_ledger(FILE, environment(), play, move |call| {
        if call.path != SYNC_PATH {
            return Some(known(call));
        }
        let request: SyncRequest = serde_json::from_slice(&call.body).unwrap();
        let number = request.batch.as_ref().map_or(u64::MAX, |batch| batch.number);
        seen.borrow_mut().push(request);
        let reply = SyncReply { acknowledged: number, ..SyncReply::default() };
        Some(Some(CallResponse { status: 200, body: serde_json::to_vec(&reply).unwrap() }))
    });
    envoy.start_sync();
    (envoy, requests)
}

fn call(envoy: &mut Envoy) {
    let id = envoy.begin(0, Ask::chat(&hello("a")).with("authorization", "Bearer sk-master"));
    assert_eq!(envoy.finish(id).status, 200);
}

fn events(requests: &Requests) -> usize {
    requests
        .borrow()
        .iter()
        .filter_map(|request| request.batch.as_ref())
        .map(|batch| batch.events.len())
        .sum()
}

#[test]
fn a_worker_that_is_lost_sends_its_usage_first() {
    for flushes in [true, false] {
        let (mut envoy, requests) = gateway();
        // The first goes at once, the others wait for company.
        (0..5).for_each(|_| call(&mut envoy));
        envoy.kill(0, flushes);
        envoy.pass(1_000);
        assert_eq!(events(&requests), if flushes { 5 } else { 1 });
    }
}

#[test]
fn the_queue_outlives_the_sync_role_and_a_worker_goes_on() {
    let (mut envoy, requests) = gateway();
    envoy.add_worker();
    call(&mut envoy);
    envoy.pass(1_000);
    let node = requests.borrow()[0].node.clone();
    envoy.kill_sync();
    call(&mut envoy);
    envoy.pass(2_000);
    let before = requests.borrow().len();
    assert_eq!(events(&requests), 1, "nobody has missed it yet");
    envoy.pass(10_000);
    assert_eq!(events(&requests), 2);
    let last: Vec<SyncRequest> = requests.borrow()[before..].to_vec();
    assert!(last.iter().all(|request| request.node == node), "it is the same node to the ledger");
    let numbers: Vec<u64> = requests
        .borrow()
        .iter()
        .filter_map(|request| request.batch.as_ref())
        .map(|batch| batch.number)
        .collect();
    assert_eq!(numbers, [1, 2], "and goes on counting");
}
