//! Usage on its way to the ledger and changes on their way back, with workers, queue and sync role as they are in a process.

use std::{cell::RefCell, rc::Rc};

use super::{
    envoy::*,
    lookups::{FILE, environment, known},
    *,
};
use crate::core::{
    access::{changes, keyring},
    host::{CallResponse, Level},
    protocol::{Batch, Change, SYNC_PATH, SyncReply, SyncRequest},
};

/// What the ledger does with a batch.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Takes,
    /// A response with this status.
    Says(u16),
    /// No answer comes.
    Silent,
    /// The answer takes longer than the test waits.
    Slow,
}

/// A ledger that keeps what it is told, and applies each number of a node once.
struct Ledger {
    mood: Mood,
    requests: Vec<SyncRequest>,
    /// The last number that was taken.
    taken: u64,
    /// Ids of events that were taken.
    events: Vec<String>,
    reply: SyncReply,
}

type Kept = Rc<RefCell<Ledger>>;

fn gateway() -> (Envoy, Kept) {
    let kept = Rc::new(RefCell::new(Ledger {
        mood: Mood::Takes,
        requests: Vec::new(),
        taken: 0,
        events: Vec::new(),
        reply: SyncReply::default(),
    }));
    let ledger = Rc::clone(&kept);
    let play = |_: usize, sent: &Sent| Answer(200, completion(&sent.model));
    let mut envoy = Envoy::with_ledger(FILE, environment(), play, move |call| {
        if call.path != SYNC_PATH {
            return Some(known(call));
        }
        assert_eq!(call.authorization, "Bearer secret");
        ledger.borrow_mut().answer(&call.body)
    });
    envoy.start_sync();
    (envoy, kept)
}

impl Ledger {
    fn answer(&mut self, body: &[u8]) -> Option<Option<CallResponse>> {
        if self.mood == Mood::Slow {
            return None;
        }
        let request: SyncRequest = serde_json::from_slice(body).unwrap();
        let batch = request.batch.clone();
        self.requests.push(request);
        match self.mood {
            Mood::Slow => None,
            Mood::Silent => Some(None),
            Mood::Says(status) => Some(Some(CallResponse { status, body: b"{}".to_vec() })),
            Mood::Takes => {
                if let Some(batch) = batch.filter(|batch| batch.number > self.taken) {
                    assert_eq!(batch.number, self.taken + 1, "numbers follow each other");
                    self.taken = batch.number;
                    self.events.extend(batch.events.into_iter().map(|event| event.id));
                }
                let reply = SyncReply { acknowledged: self.taken, ..self.reply.clone() };
                Some(Some(CallResponse { status: 200, body: serde_json::to_vec(&reply).unwrap() }))
            }
        }
    }

    fn batches(&self) -> Vec<&Batch> {
        self.requests.iter().filter_map(|request| request.batch.as_ref()).collect()
    }
}

fn call(envoy: &mut Envoy, worker: usize) {
    let id = envoy.begin(worker, Ask::chat(&hello("a")).with("authorization", "Bearer sk-master"));
    assert_eq!(envoy.finish(id).status, 200);
}

#[test]
fn every_call_comes_to_the_ledger_once() {
    let (mut envoy, kept) = gateway();
    envoy.add_worker();
    for number in 0..40 {
        call(&mut envoy, number % 2);
        envoy.pass(17);
    }
    envoy.pass(2_000);
    let mut ids = kept.borrow().events.clone();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), kept.borrow().events.len()), (40, 40));
    let numbers: Vec<u64> = kept.borrow().batches().iter().map(|batch| batch.number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(numbers.len() > 1);
    assert_eq!(envoy.process.metric("tollgate_events_enqueued"), 40);
    assert_eq!(envoy.process.metric("tollgate_events_acknowledged"), 40);
    assert_eq!(envoy.process.queued(), 0);
}

#[test]
fn events_that_come_close_together_go_together() {
    let (mut envoy, _) = gateway();
    for _ in 0..30 {
        call(&mut envoy, 0);
    }
    assert_eq!(envoy.process.queued(), 1, "the first goes at once");
    envoy.pass(60);
    assert_eq!(envoy.process.metric("tollgate_events_enqueued"), 30);
    assert!(envoy.process.queued() <= 2);
}

#[test]
fn a_batch_is_repeated_until_it_is_acknowledged() {
    let (mut envoy, kept) = gateway();
    for mood in [Mood::Silent, Mood::Says(503), Mood::Says(500), Mood::Silent] {
        kept.borrow_mut().mood = mood;
        call(&mut envoy, 0);
        envoy.pass(3_000);
    }
    {
        let ledger = kept.borrow();
        let batches = ledger.batches();
        assert!(
            batches.len() > 4 && batches.iter().all(|batch| *batch == batches[0]),
            "the same one, unchanged"
        );
        assert!(ledger.events.is_empty());
    }
    let told = |envoy: &Envoy, words: &str| {
        envoy
            .process
            .log
            .borrow()
            .iter()
            .filter(|(level, line)| *level == Level::Warn && line.contains(words))
            .count()
    };
    assert_eq!((told(&envoy, "usage waits for it"), told(&envoy, "answers again")), (1, 0));
    kept.borrow_mut().mood = Mood::Takes;
    envoy.pass(5_000);
    assert_eq!((kept.borrow().events.len(), told(&envoy, "answers again")), (4, 1));
}

#[test]
fn a_batch_that_is_refused_becomes_sums() {
    let (mut envoy, kept) = gateway();
    kept.borrow_mut().mood = Mood::Says(422);
    (0..3).for_each(|_| call(&mut envoy, 0));
    envoy.pass(3_000);
    kept.borrow_mut().mood = Mood::Takes;
    envoy.pass(3_000);
    let ledger = kept.borrow();
    let last = ledger.batches().pop().unwrap().clone();
    let calls: u64 = ledger
        .batches()
        .iter()
        .flat_map(|batch| &batch.aggregated)
        .map(|aggregated| aggregated.calls)
        .max()
        .unwrap();
    assert!(calls >= 1 && last.number >= 1);
    assert!(envoy.process.metric("tollgate_events_dropped") >= 1);
    assert_eq!(envoy.process.metric("tollgate_events_acknowledged"), 3, "their sums are not lost");
}

#[test]
fn what_changed_in_the_ledger_reaches_every_worker() {
    let (mut envoy, kept) = gateway();
    envoy.add_worker();
    let ask = || Ask::chat(&hello("a")).with("authorization", "Bearer sk-one");
    for worker in 0..2 {
        let id = envoy.begin(worker, ask());
        envoy.pass(20);
        assert_eq!(envoy.finish(id).status, 200);
    }
    assert_eq!(envoy.process.metric("tollgate_lookups;kind=found"), 2);
    let meter = format!("key:{}", super::lookups::grant().key.id);
    kept.borrow_mut().reply = SyncReply {
        cursor: 9,
        changes: vec![Change { meter, record: true, revision: 9, ..Change::default() }],
        ..SyncReply::default()
    };
    envoy.pass(600);
    assert_eq!(kept.borrow().requests.last().unwrap().cursor, 9);
    kept.borrow_mut().reply.changes.clear();
    for worker in 0..2 {
        let id = envoy.begin(worker, ask());
        envoy.pass(20);
        assert_eq!(envoy.finish(id).status, 200);
    }
    assert_eq!(envoy.process.metric("tollgate_lookups;kind=found"), 4, "each asks anew");
    assert_ne!(changes::watermark(&envoy.process.store), changes::Watermark::default());
}

#[test]
fn a_key_that_was_once_known_serves_while_the_ledger_is_away() {
    let (mut envoy, _) = gateway();
    let ask = || Ask::chat(&hello("a")).with("authorization", "Bearer sk-one");
    let id = envoy.begin(0, ask());
    envoy.pass(20);
    assert_eq!(envoy.finish(id).status, 200);
    let spare = keyring::spare::find(&envoy.process.store, &super::lookups::grant().key.id);
    assert!(spare.is_some(), "other workers find it");
    let other = envoy.add_worker();
    envoy.refuse_calls(other, true);
    let id = envoy.begin(other, ask());
    envoy.pass(20);
    assert_eq!(envoy.finish(id).status, 200);
}

#[test]
fn one_request_is_under_way_at_a_time_and_a_lost_answer_is_not_waited_for_for_ever() {
    let (mut envoy, kept) = gateway();
    envoy.pass(1_000);
    let before = kept.borrow().requests.len();
    kept.borrow_mut().mood = Mood::Slow;
    call(&mut envoy, 0);
    envoy.pass(30_000);
    assert_eq!(kept.borrow().requests.len(), before, "none is asked beside it");
    assert!(crate::core::access::trouble::reason(&envoy.process.store).is_some(), "but people are told");
    kept.borrow_mut().mood = Mood::Takes;
    envoy.pass(1_000);
    assert_eq!(kept.borrow().events.len(), 1);
    assert_eq!(crate::core::access::trouble::reason(&envoy.process.store), None);
}
