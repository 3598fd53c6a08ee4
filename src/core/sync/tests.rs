//! Conversations with a ledger.

use super::*;
use crate::core::{
    config,
    model::{
        meter::MeterKind,
        rule::{Base, Rule},
    },
    protocol::{Batch, Change, Health, SyncRequest},
    random::Random,
    route::{
        plan::Plan,
        world::{Controls, World},
    },
    store::Memory,
};

fn event(id: u64, spend: i64, budgeted_meters: &[&str]) -> Vec<u8> {
    let budgeted_meters = budgeted_meters.iter().map(|name| (*name).to_owned()).collect();
    let event = CallRecord {
        id: format!("c{id}"),
        api_key: "k".to_owned(),
        spend,
        budgeted_meters,
        ..CallRecord::default()
    };
    serde_json::to_vec(&event).unwrap()
}

fn memory() -> Memory {
    let shared = Memory::default();
    quota::prepare(&shared, [1, 2]);
    changes::prepare(&shared);
    shared
}

fn sent(sync: &mut Sync, shared: &Memory, now: u64) -> SyncRequest {
    serde_json::from_slice(&sync.request(shared, now).unwrap()).unwrap()
}

fn reply(reply: &SyncReply) -> Vec<u8> {
    serde_json::to_vec(reply).unwrap()
}

fn acknowledged(number: u64) -> Vec<u8> {
    reply(&SyncReply { acknowledged: number, ..SyncReply::default() })
}

fn batch(request: &SyncRequest) -> &Batch {
    request.batch.as_ref().unwrap()
}

#[test]
fn a_batch_is_repeated_until_it_is_acknowledged() {
    let shared = memory();
    let mut sync = Sync::open(&shared, "n".to_owned());
    assert!(sent(&mut sync, &shared, 0).batch.is_none());
    assert!(sync.request(&shared, 0).is_none(), "one request at a time");
    assert!(!sync.wants_event(1, 0), "what waits stays in the queue");
    sync.on_reply(&reply(&SyncReply { cursor: 7, ..SyncReply::default() }), &shared, 0);
    assert!(sync.wants_event(1, 0));
    assert_eq!(sync.push(&event(1, 5, &[]), 0), Taken { whole: 1, aggregated: 0 });
    let first = sent(&mut sync, &shared, 1);
    assert_eq!((first.cursor, batch(&first).number, batch(&first).events.len()), (7, 1, 1));
    assert!(!sync.wants_event(WAITING, 1));
    assert!(sync.on_failure(&shared, 1).failed);
    assert!(sync.request(&shared, 100).is_none(), "too early");
    assert!(!sync.wants_event(1, 201), "a batch is there already");
    assert_eq!(sent(&mut sync, &shared, 201).batch, first.batch);
    // The ledger answered, and did not take it.
    assert_eq!(sync.on_reply(&acknowledged(0), &shared, 250), Outcome::default());
    assert_eq!(sent(&mut sync, &shared, 251).batch, first.batch);
    assert_eq!(sync.on_reply(&acknowledged(1), &shared, 300).acknowledged, 1);
    sync.push(&event(2, 5, &[]), 300);
    let second = sent(&mut sync, &shared, 301);
    assert_eq!((batch(&second).number, batch(&second).events[0].id.as_str()), (2, "c2"));
}

#[test]
fn failures_are_tried_again_more_and_more_slowly() {
    let shared = memory();
    let mut sync = Sync::open(&shared, "n".to_owned());
    let mut now = 1_000;
    for wait in [200, 400, 800, 1_600, 2_000, 2_000] {
        assert!(sync.request(&shared, now).is_some());
        sync.on_failure(&shared, now);
        assert!(sync.request(&shared, now + wait - 1).is_none());
        now += wait;
    }
    assert!(sync.request(&shared, now).is_some());
    // An answer that never came.
    assert!(sync.request(&shared, now + LOST_MS - 1).is_none());
    assert!(sync.request(&shared, now + LOST_MS).is_some());
    sync.on_reply(&acknowledged(0), &shared, now + LOST_MS);
    assert_eq!(sync.failures(), 0);
    assert!(sync.request(&shared, now + LOST_MS).is_some());
}

#[test]
fn a_lost_vm_goes_on_with_its_batch() {
    let shared = memory();
    let mut sync = Sync::open(&shared, "first".to_owned());
    sync.push(&event(1, 5, &["key:k"]), 0);
    let before = sent(&mut sync, &shared, 0);
    let mut sync = Sync::open(&shared, "second".to_owned());
    let after = sent(&mut sync, &shared, 0);
    assert_eq!((after.node.as_str(), &after.batch), ("first", &before.batch));
    assert_eq!(sync.on_reply(&acknowledged(1), &shared, 0).acknowledged, 1);
    let mut sync = Sync::open(&shared, "third".to_owned());
    assert_eq!(sent(&mut sync, &shared, 0).batch, None);
    sync.on_reply(&acknowledged(1), &shared, 0);
    sync.push(&event(2, 5, &[]), 0);
    assert_eq!(batch(&sent(&mut sync, &shared, 0)).number, 2);
}

#[test]
fn vms_take_turns() {
    let shared = memory();
    let mut first = Sync::open(&shared, "n".to_owned());
    let mut second = Sync::open(&shared, "m".to_owned());
    first.push(&event(1, 5, &[]), 0);
    let before = sent(&mut first, &shared, 0);
    second.resume(&shared);
    let after = sent(&mut second, &shared, 0);
    assert_eq!((&after.node, &after.batch), (&before.node, &before.batch));
    assert_eq!(second.on_reply(&acknowledged(1), &shared, 0).acknowledged, 1);
    // Back with the first one, which still waits for an answer about the batch that is settled.
    first.resume(&shared);
    assert_eq!(first.on_reply(&acknowledged(1), &shared, 0).acknowledged, 0);
    first.push(&event(2, 5, &[]), 0);
    assert_eq!(batch(&sent(&mut first, &shared, 0)).number, 2);
}

#[test]
fn full_batches_follow_each_other_at_once() {
    let shared = memory();
    let mut sync = Sync::open(&shared, "n".to_owned());
    for (size, most) in [(10, BATCH_EVENTS), (BATCH_BYTES / 10, 10)] {
        let text = event(1, 1, &[&"x".repeat(size)]);
        let mut taken = 0;
        while sync.wants_event(9_999, 0) {
            sync.push(&text, 0);
            taken += 1;
        }
        assert_eq!(taken, most);
        let number = batch(&sent(&mut sync, &shared, 0)).number;
        let done = sync.on_reply(&acknowledged(number), &shared, 0);
        assert_eq!((done.acknowledged, done.again), (taken as u64, true));
    }
    sync.push(&event(1, 1, &[]), 0);
    let number = batch(&sent(&mut sync, &shared, 0)).number;
    assert!(!sync.on_reply(&acknowledged(number), &shared, 0).again);
}

#[test]
fn what_a_batch_charged_leaves_the_meters_with_it() {
    use quota::{Estimate, Worker};
    let shared = memory();
    quota::heartbeat(&shared, Worker(1), 1);
    let rule = Rule {
        owner: None,
        kind: MeterKind::Key,
        meter: Meter::named("key:k"),
        limits: Default::default(),
        max_budget: Some(Money::from_pico(1_000)),
        base: Base { spend: Money::from_pico(100), revision: 1 },
        resets: None,
    };
    let held =
        quota::reserve(&shared, Worker(1), std::slice::from_ref(&rule), Estimate::default(), 1).unwrap();
    held.settle(&shared, 0, Money::from_pico(30), 2);
    let spend = || quota::standing(&shared, &rule, 3).spend.pico();
    assert_eq!(spend(), 130);
    let mut sync = Sync::open(&shared, "n".to_owned());
    sync.push(&event(1, 10, &["key:k"]), 3);
    sync.push(&event(2, 20, &["key:k", "global"]), 3);
    sent(&mut sync, &shared, 3);
    let total = Change {
        meter: "key:k".to_owned(),
        revision: 2,
        record: false,
        spend: Some(145),
        ..Change::default()
    };
    let answer = SyncReply { acknowledged: 1, changes: vec![total], cursor: 2, ..SyncReply::default() };
    sync.on_reply(&reply(&answer), &shared, 4);
    // Another node has spent 15 meanwhile.
    assert_eq!(spend(), 145);
}

#[test]
fn records_that_changed_are_announced() {
    let shared = memory();
    let mut sync = Sync::open(&shared, "n".to_owned());
    sent(&mut sync, &shared, 0);
    let before = changes::watermark(&shared);
    let change = |name: &str, record| Change { meter: name.to_owned(), record, ..Change::default() };
    let answer = SyncReply {
        changes: vec![change("key:a", true), change("team:b", false)],
        end_users: true,
        reset: true,
        more: true,
        ..SyncReply::default()
    };
    assert!(sync.on_reply(&reply(&answer), &shared, 0).again);
    let after = changes::watermark(&shared);
    assert_eq!((after.count, after.resets, after.end_users), (before.count + 1, before.resets + 1, true));
}

#[test]
fn details_are_dropped_before_spend_is() {
    let shared = memory();
    let mut sync = Sync::open(&shared, "n".to_owned());
    sync.push(&event(0, 1, &["key:k"]), 0);
    sent(&mut sync, &shared, 0);
    sync.on_failure(&shared, 0);
    let mut queue: std::collections::VecDeque<Vec<u8>> =
        (1..=WAITING + 500).map(|id| event(id, 1, &["key:k"])).collect();
    let mut drain = |sync: &mut Sync, now: u64| {
        let mut aggregated = 0;
        while sync.wants_event(queue.len() as u64, now) {
            let Some(event) = queue.pop_front() else { break };
            aggregated += sync.push(&event, now).aggregated;
        }
        (aggregated, queue.len() as u64)
    };
    assert_eq!(drain(&mut sync, 1), (500, WAITING));
    let (mut spend, mut calls, mut details) = (0, 0, 0);
    for number in 1.. {
        let now = 1_000_000;
        drain(&mut sync, now);
        let request = sent(&mut sync, &shared, now);
        let Some(batch) = request.batch else { break };
        assert!(batch.events.len() <= BATCH_EVENTS);
        details += batch.events.len() as u64;
        spend += batch.events.iter().map(|event| event.spend).sum::<i64>();
        spend += batch.aggregated.iter().map(|aggregated| aggregated.sum.spend).sum::<i64>();
        let in_batch = batch.events.len() as u64
            + batch.aggregated.iter().map(|aggregated| aggregated.calls).sum::<u64>();
        calls += in_batch;
        assert_eq!(sync.on_reply(&acknowledged(number), &shared, now).acknowledged, in_batch);
    }
    assert_eq!((spend, calls, details), (WAITING as i64 + 501, WAITING + 501, WAITING + 1));
}

#[test]
fn events_that_come_together_stay_together() {
    let shared = memory();
    let mut sync = Sync::open(&shared, "n".to_owned());
    let lines = |ids: std::ops::Range<u64>| {
        let all: Vec<Vec<u8>> = ids.map(|id| [event(id, 1, &["key:k"]), b"\n".to_vec()].concat()).collect();
        all.concat()
    };
    assert_eq!(sync.push(&lines(0..3), 0), Taken { whole: 3, aggregated: 0 });
    let mixed = [lines(3..4), b"no json\n\n".to_vec(), lines(4..5)].concat();
    assert_eq!(sync.push(&mixed, 0), Taken { whole: 2, aggregated: 0 });
    // What does not fit any more is in the batch all the same, or its details would be dropped for no reason.
    let many = BATCH_EVENTS as u64 - 5 + 10;
    assert_eq!(sync.push(&lines(5..5 + many), 0), Taken { whole: many, aggregated: 0 });
    assert!(!sync.wants_event(1, 0));
    assert_eq!(batch(&sent(&mut sync, &shared, 0)).events.len() as u64, 5 + many);
    sync.on_failure(&shared, 0);
    // Behind it there is no room while no response comes.
    while sync.has_room(1) {
        sync.push(&lines(0..1), 1);
    }
    assert_eq!(sync.push(&lines(0..2), 1), Taken { whole: 0, aggregated: 2 });
}

#[test]
fn a_batch_that_is_refused_goes_as_sums() {
    let shared = memory();
    let mut sync = Sync::open(&shared, "n".to_owned());
    sync.push(&[event(1, 5, &["key:a"]), event(2, 7, &["key:a"])].join(&b'\n'), 0);
    sync.push(b"{\"spend\":\"of another version\"}", 0);
    assert!(sync.request(&shared, 0).is_some());
    // The ledger has no time, or does not know us: that says nothing about the batch.
    for (status, now) in [(503, 1_000), (401, 7_000), (500, 13_000)] {
        assert_eq!(sync.on_status(status, b"", &shared, now), Outcome { failed: true, ..Outcome::default() });
        assert!(sync.request(&shared, now + 5_000).is_some());
    }
    assert_eq!(
        sync.on_status(413, b"", &shared, 20_000),
        Outcome { failed: true, aggregated: 3, ..Outcome::default() }
    );
    let request = sync.request(&shared, 30_000).unwrap();
    // Another VM would go on with the same.
    assert_eq!(Sync::open(&shared, "other".to_owned()).request(&shared, 30_000).unwrap(), request);
    let request: SyncRequest = serde_json::from_slice(&request).unwrap();
    let again = batch(&request);
    assert_eq!((again.number, again.events.len(), again.aggregated.len()), (1, 0, 1));
    assert_eq!((again.aggregated[0].calls, again.aggregated[0].sum.spend), (2, 12));
    // Sums are as small as it gets.
    assert_eq!(sync.on_status(413, b"", &shared, 31_000).aggregated, 0);
    assert_eq!(sent(&mut sync, &shared, 60_000).batch, request.batch);
    assert_eq!(sync.on_reply(&acknowledged(1), &shared, 61_000).acknowledged, 2);
}

#[test]
fn nonsense_neither_stops_nor_acknowledges() {
    let shared = memory();
    let mut sync = Sync::open(&shared, "n".to_owned());
    assert_eq!(sync.push(b"no json", 0), Taken::default());
    sync.push(&event(1, 1, &[]), 0);
    assert_eq!(batch(&sent(&mut sync, &shared, 0)).events.len(), 1);
    assert_eq!(sync.push(b"no json", 0), Taken::default());
    assert!(sync.on_reply(b"{", &shared, 0).failed);
    assert_eq!(batch(&sent(&mut sync, &shared, 9_999)).number, 1);
    shared.set(STATE, b"garbage", None);
    assert!(Sync::open(&shared, "n".to_owned()).under_way.is_none());
}

#[test]
fn what_health_checks_found_reaches_the_routes() {
    let yaml = "model_list:
  - {model_name: g, litellm_params: {model: openai/a, api_key: k}, model_info: {id: a}}
  - {model_name: g, litellm_params: {model: openai/b, api_key: k}, model_info: {id: b}}
general_settings: {background_health_checks: true}";
    let config = config::load(yaml, &|_| None, &|_| None).unwrap().config;
    let shared = memory();
    let mut sync = Sync::open(&shared, "n".to_owned());
    let mut hear = |health: Option<Health>, now: u64| {
        sent(&mut sync, &shared, now);
        sync.on_reply(&reply(&SyncReply { health, ..SyncReply::default() }), &shared, now);
    };
    let reached = |now_ms: u64| {
        let random = &mut Random::new(1);
        let mut world =
            World { config: &config, shared: &shared, now_ms, random, worker: quota::Worker(1), trace: None };
        let plan = Plan::new("g", Controls::default(), &mut world).unwrap();
        let mut reached: Vec<usize> = plan.deployments().collect();
        reached.sort_unstable();
        reached
    };
    hear(Some(Health { failing: vec!["a".to_owned()], valid_ms: 5_000 }), 1_000);
    assert_eq!(reached(1_000), [1]);
    // A ledger that has just begun has found nothing yet, and takes nothing back.
    hear(None, 2_000);
    assert_eq!(reached(5_999), [1]);
    assert_eq!(reached(6_000), [0, 1], "nobody says it any more");
    hear(Some(Health { failing: vec!["a".to_owned()], valid_ms: 5_000 }), 6_000);
    hear(Some(Health::default()), 6_500);
    assert_eq!(reached(6_500), [0, 1], "it passes again");
}

#[test]
fn what_deployments_were_charged_is_settled_by_its_own_amount() {
    let shared = memory();
    let meter = Meter::named("deployment:d");
    let rule = Rule {
        owner: None,
        kind: MeterKind::Deployment,
        meter: meter.clone(),
        limits: Default::default(),
        max_budget: Some(Money::from_pico(100)),
        base: Base::default(),
        resets: None,
    };
    quota::heartbeat(&shared, quota::Worker(1), 1_000);
    let held =
        quota::reserve(&shared, quota::Worker(1), std::slice::from_ref(&rule), Default::default(), 1_000);
    held.unwrap().settle(&shared, 0, Money::from_pico(30), 1_000);
    let mut sync = Sync::open(&shared, "n".to_owned());
    let charged = vec![MeterCharge { meter: "deployment:d".to_owned(), spend: 30, period: None }];
    let event = CallRecord { id: "c".to_owned(), spend: 50, meter_charges: charged, ..CallRecord::default() };
    sync.push(&serde_json::to_vec(&event).unwrap(), 1_000);
    let batch = sent(&mut sync, &shared, 1_000).batch.unwrap();
    assert_eq!(batch.events, [event]);
    let spend = || quota::standing(&shared, &rule, 1_000).spend;
    assert_eq!(spend(), Money::from_pico(30));
    // The ledger has it, and 12 of other nodes.
    let change =
        Change { meter: "deployment:d".to_owned(), revision: 3, spend: Some(42), ..Change::default() };
    let answer =
        SyncReply { acknowledged: batch.number, cursor: 3, changes: vec![change], ..SyncReply::default() };
    sync.on_reply(&reply(&answer), &shared, 1_000);
    assert_eq!(spend(), Money::from_pico(42));
}

#[test]
fn what_is_wrong_with_the_ledger_is_told_to_all_workers() {
    let shared = memory();
    let told = || trouble::reason(&shared);
    let mut sync = Sync::open(&shared, "n".to_owned());
    sent(&mut sync, &shared, 0);
    sync.on_failure(&shared, 0);
    assert_eq!(told(), None, "one lost connection is nothing");
    sent(&mut sync, &shared, 300);
    sync.on_failure(&shared, 300);
    assert_eq!(told().as_deref(), Some("the ledger does not answer"));
    sent(&mut sync, &shared, 3_000);
    sync.on_reply(&acknowledged(0), &shared, 3_000);
    assert_eq!(told(), None);
    // It says itself what is wrong: that is told at once.
    let body = br#"{"error":{"message":"the ledger cannot reach its database; try again","code":"503"}}"#;
    sent(&mut sync, &shared, 4_000);
    sync.on_status(503, body, &shared, 4_000);
    assert_eq!(told().as_deref(), Some("the ledger cannot reach its database"));
    sent(&mut sync, &shared, 7_000);
    sync.on_reply(&acknowledged(0), &shared, 7_000);
    // One that hangs is not waited for.
    sent(&mut sync, &shared, 8_000);
    assert!(sync.request(&shared, 9_000).is_none());
    assert_eq!(told(), None);
    assert!(sync.request(&shared, 10_000).is_none());
    assert_eq!(told().as_deref(), Some("the ledger does not answer"));
}
