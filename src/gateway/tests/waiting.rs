//! Requests that wait for a free slot at a deployment, or for a time: which is woken when, and how often a worker looks.

use std::time::Duration;

use super::{envoy::*, *};

const ONE_AT_A_TIME: &str = "
model_list:
- {model_name: a, litellm_params: {model: openai/a1, api_base: 'http://a.test/v1', api_key: k, max_parallel_requests: 1, timeout: 2}}
- {model_name: b, litellm_params: {model: openai/b1, api_base: 'http://b.test/v1', api_key: k}}
";

fn gateway(yaml: &str) -> Envoy {
    Envoy::new(yaml, |_, _| Later)
}

fn serve(envoy: &mut Envoy, id: usize) {
    envoy.respond(id, Answer(200, completion("a1")));
    assert_eq!(envoy.finish(id).status, 200);
}

/// Models that were asked, in order.
fn asked(envoy: &Envoy) -> Vec<String> {
    envoy.sent.iter().map(|sent| sent.body["messages"][0]["content"].as_str().unwrap().to_owned()).collect()
}

fn named(name: &str) -> Ask {
    let mut body = hello("a");
    body["messages"][0]["content"] = json!(name);
    Ask::chat(&body)
}

#[test]
fn who_came_first_is_served_first_and_once_a_slot_is_free() {
    let mut envoy = gateway(ONE_AT_A_TIME);
    let first = envoy.begin(0, named("first"));
    let others: Vec<usize> = ["second", "third"].map(|name| envoy.begin(0, named(name))).into();
    envoy.pass(500);
    assert_eq!((asked(&envoy), envoy.held(0).1), (vec!["first".to_owned()], 2));
    let other = envoy.begin(0, Ask::chat(&hello("b")));
    assert_eq!(envoy.sent.len(), 2, "others are not kept");
    serve(&mut envoy, other);
    serve(&mut envoy, first);
    envoy.pass(20);
    serve(&mut envoy, others[0]);
    envoy.pass(20);
    serve(&mut envoy, others[1]);
    assert_eq!(asked(&envoy), ["first", "hello", "second", "third"]);
    assert_eq!(envoy.held(0), (0, 0, 0));
}

#[test]
fn a_slot_of_another_worker_is_waited_for_too() {
    let mut envoy = gateway(ONE_AT_A_TIME);
    envoy.add_worker();
    let first = envoy.begin(0, named("first"));
    let second = envoy.begin(1, named("second"));
    envoy.pass(300);
    assert_eq!(asked(&envoy), ["first"]);
    serve(&mut envoy, first);
    envoy.pass(20);
    serve(&mut envoy, second);
}

#[test]
fn a_wait_ends_with_the_time_out() {
    let mut envoy = gateway(ONE_AT_A_TIME);
    let first = envoy.begin(0, named("first"));
    let second = envoy.begin(0, named("second"));
    envoy.pass(1_980);
    assert!(!envoy.is_over(second));
    envoy.pass(40);
    let story = envoy.finish(second);
    assert_eq!(story.status, 408);
    assert!(message_of(&story.body).contains("litellm.Timeout"), "{}", story.body);
    assert_eq!(envoy.sent.len(), 1, "nobody was called for it");
    serve(&mut envoy, first);
}

#[test]
fn who_leaves_while_waiting_takes_nothing() {
    let mut envoy = gateway(ONE_AT_A_TIME);
    let first = envoy.begin(0, named("first"));
    let second = envoy.begin(0, named("second"));
    let third = envoy.begin(0, named("third"));
    envoy.drop_client(second);
    serve(&mut envoy, first);
    envoy.pass(20);
    assert_eq!(asked(&envoy), ["first", "third"]);
    serve(&mut envoy, third);
    assert_eq!(envoy.held(0), (0, 0, 0));
}

#[test]
fn who_leaves_while_served_gives_the_slot_back() {
    let mut envoy = gateway(ONE_AT_A_TIME);
    let first = envoy.begin(0, named("first"));
    let second = envoy.begin(0, named("second"));
    envoy.drop_client(first);
    envoy.pass(20);
    assert_eq!(asked(&envoy), ["first", "second"]);
    serve(&mut envoy, second);
}

#[test]
fn what_envoy_has_answered_is_not_woken() {
    let mut envoy = gateway(ONE_AT_A_TIME);
    let first = envoy.begin(0, named("first"));
    let second = envoy.begin(0, named("second"));
    envoy.refuse(second, 408, "request_overall_timeout");
    assert_eq!(envoy.finish(second).status, 408);
    serve(&mut envoy, first);
    envoy.pass(100);
    assert_eq!((envoy.sent.len(), envoy.held(0)), (1, (0, 0, 0)));
}

#[test]
fn a_mocked_time_out_takes_its_time() {
    let mut envoy = gateway(ONE_AT_A_TIME);
    let mut body = hello("b");
    (body["mock_timeout"], body["timeout"]) = (json!(true), json!(1.5));
    let id = envoy.begin(0, Ask::chat(&body));
    envoy.pass(1_490);
    assert!(!envoy.is_over(id));
    envoy.pass(20);
    assert_eq!((envoy.finish(id).status, envoy.sent.len()), (408, 0));
}

#[test]
fn a_worker_looks_often_only_while_something_waits() {
    let mut envoy = gateway(ONE_AT_A_TIME);
    let (idle, busy) = (Duration::from_secs(1), Duration::from_millis(10));
    assert_eq!(envoy.period(0), idle);
    let first = envoy.begin(0, named("first"));
    assert_eq!(envoy.period(0), idle);
    let second = envoy.begin(0, named("second"));
    assert_eq!(envoy.period(0), busy);
    envoy.pass(100);
    assert_eq!(envoy.period(0), busy);
    envoy.drop_client(second);
    envoy.pass(20);
    assert_eq!(envoy.period(0), idle);
    serve(&mut envoy, first);
}

#[test]
fn two_configurations_of_a_worker_wake_their_own() {
    let mut envoy = gateway(ONE_AT_A_TIME);
    let first = envoy.begin(0, named("first"));
    let second = envoy.begin(0, named("second"));
    assert!(envoy.configure(0, ONE_AT_A_TIME));
    let third = envoy.begin(0, named("third"));
    serve(&mut envoy, first);
    envoy.pass(20);
    serve(&mut envoy, second);
    envoy.pass(20);
    serve(&mut envoy, third);
    assert_eq!(envoy.sent.len(), 3);
}
