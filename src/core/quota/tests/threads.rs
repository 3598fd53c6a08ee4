//! Limits under eight threads, which are what workers are to shared data.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hashbrown::HashMap;

use super::*;
use crate::core::random::Random;

/// What proxy-wasm's host does, for threads.
#[derive(Default)]
struct Locked(Mutex<HashMap<String, (Vec<u8>, Version)>>, AtomicU64);

impl Store for Locked {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> bool {
        let mut map = self.0.lock().unwrap();
        let next = u32::try_from(self.1.fetch_add(1, Ordering::Relaxed) + 1).unwrap();
        match map.get_mut(key) {
            Some((_, newest)) if version.is_some_and(|version| version != *newest) => false,
            Some(stored) => {
                *stored = (value.to_vec(), next);
                true
            }
            None => map.insert(key.to_owned(), (value.to_vec(), next)).is_none(),
        }
    }

    fn secret(&self) -> crate::core::host::Secret {
        crate::core::store::read_secret(self).unwrap_or_default()
    }

    fn succeeded(&self, _: &str, _: u64) {
        unreachable!("quotas are not counted like that")
    }

    fn successes(&self, _: &str, _: u64) -> u64 {
        unreachable!("quotas are not counted like that")
    }
}

const THREADS: u32 = 8;

/// Calls `work` on eight threads at once, each a worker with its own chance.
fn workers<T: Send>(shared: &Locked, work: impl Fn(Worker, &mut Random) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (1..=THREADS)
            .map(|n| {
                scope.spawn(move || {
                    prepare(shared, [1, 2]);
                    heartbeat(shared, Worker(n), NOW);
                    work(Worker(n), &mut Random::new(n.into()))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[allow(clippy::disallowed_methods, reason = "threads that meet in any order")]
fn nap(random: &mut Random) {
    std::thread::sleep(Duration::from_micros(random.bits() % 200));
}

#[test]
fn fifty_of_two_hundred_from_eight_threads() {
    let (shared, rules) = (Locked::default(), [rpm(50)]);
    let admitted = workers(&shared, |worker, random| {
        (0..25)
            .filter(|_| {
                nap(random);
                let answer = reserve(&shared, worker, &rules, estimate(10, 0), NOW);
                nap(random);
                answer.map(|reservation| reservation.settle(&shared, 10, Money::ZERO, NOW)).is_ok()
            })
            .count()
    });
    assert_eq!(admitted.iter().sum::<usize>(), 50);
    let entry = entry(&shared, &rules[0]);
    assert_eq!((entry.requests, entry.tokens, entry.holders), (50, 500, Vec::new()));
}

#[test]
fn never_more_than_five_at_a_time_from_eight_threads() {
    let (shared, rules) = (Locked::default(), [rpm(1_000_000), parallel(5)]);
    let (flying, most) = (AtomicU64::new(0), AtomicU64::new(0));
    let refused: usize = workers(&shared, |worker, random| {
        let mut refused = 0;
        for _ in 0..100 {
            let Ok(reservation) = reserve(&shared, worker, &rules, estimate(1, 1), NOW) else {
                refused += 1;
                nap(random);
                continue;
            };
            most.fetch_max(flying.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            nap(random);
            flying.fetch_sub(1, Ordering::SeqCst);
            reservation.settle(&shared, 1, pico(1), NOW);
        }
        refused
    })
    .into_iter()
    .sum();
    let most = most.into_inner();
    assert!((1..=5).contains(&most), "{most}");
    assert_eq!(standing(&shared, &rules[1], NOW).parallel_left, Some(5));
    let counted = entry(&shared, &rules[0]).requests;
    assert_eq!(counted, u64::from(THREADS) * 100 - refused as u64, "refused requests are not counted");
}

#[test]
fn a_budget_of_a_hundred_admits_a_hundred_from_eight_threads() {
    let (shared, rules) =
        (Locked::default(), [budget(MeterKind::Key, 100 * 7), budget(MeterKind::Global, i128::MAX)]);
    let admitted: usize = workers(&shared, |worker, random| {
        (0..50)
            .filter(|_| {
                let answer = reserve(&shared, worker, &rules, estimate(0, 7), NOW);
                nap(random);
                answer.map(|reservation| reservation.settle(&shared, 0, pico(7), NOW)).is_ok()
            })
            .count()
    })
    .into_iter()
    .sum();
    assert_eq!(admitted, 100);
    for rule in &rules {
        assert_eq!(standing(&shared, rule, NOW).spend, pico(700));
    }
}
