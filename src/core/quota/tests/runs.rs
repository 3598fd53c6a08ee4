//! Long runs: of chance, and against the clock.

use std::time::Instant;

use super::*;
use crate::core::random::Random;

#[test]
fn whatever_happens_the_books_balance() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut below = |n: u64| random.bits() % n;
        let shared = table();
        let mut rules: Vec<Rule> = crowd(6, Base { spend: pico(10), revision: 3 });
        for rule in &mut rules {
            let mut some = |n| Some(below(n)).filter(|&limit| limit != 0);
            rule.limits = Limits { rpm: some(30), tpm: some(2_000), parallel: some(8) };
            rule.max_budget = some(4).map(|_| pico(3_000));
        }
        let (mut flying, mut settled, mut acknowledged) = (Vec::new(), [0_i128; 6], [0_i128; 6]);
        let mut now_ms = NOW;
        for _ in 0..400 {
            now_ms += below(1_500);
            for worker in [A, B] {
                heartbeat(&shared, worker, now_ms);
            }
            let worker = if below(2) == 0 { A } else { B };
            let (first, count) = (below(6) as usize, 1 + below(3) as usize);
            match below(8) {
                0..4 => {
                    let chosen: Vec<usize> = (first..6).take(count).collect();
                    let asked: Vec<Rule> = chosen.iter().map(|&n| rules[n].clone()).collect();
                    let estimate = estimate(below(300), below(300).into());
                    if let Ok(reservation) = reserve(&shared, worker, &asked, estimate, now_ms) {
                        flying.push((chosen, reservation));
                    }
                }
                4..6 if !flying.is_empty() => {
                    let at = below(flying.len() as u64) as usize;
                    let (chosen, reservation) = flying.swap_remove(at);
                    let cost = i128::from(below(400));
                    for n in chosen.into_iter().filter(|&n| rules[n].max_budget.is_some()) {
                        settled[n] += cost;
                    }
                    reservation.settle(&shared, below(400), pico(cost), now_ms);
                }
                6 if !flying.is_empty() => flying.swap_remove(0).1.cancel(&shared, now_ms),
                _ => {
                    let spent = i128::from(below(200)).min(settled[first] - acknowledged[first]);
                    acknowledged[first] += spent;
                    acknowledge(&shared, &rules[first].meter, pico(spent));
                }
            }
            for rule in &rules {
                let (held, limits) = (entry(&shared, rule).held(|_| true), rule.limits);
                assert!(limits.parallel.is_none_or(|limit| held.requests <= limit), "{seed} {held:?}");
            }
        }
        for (_, reservation) in flying {
            reservation.cancel(&shared, now_ms);
        }
        for (n, rule) in rules.iter().enumerate() {
            let left = entry(&shared, rule);
            assert_eq!(left.holders, [], "{seed} {n}");
            assert_eq!(i128::from(left.unsynced), settled[n] - acknowledged[n], "{seed} {n}");
        }
    }
}

/// `cargo test --release quota::tests::runs::what_it_costs -- --ignored --nocapture`
#[test]
#[ignore = "prints times, asserts nothing"]
#[allow(clippy::disallowed_methods, reason = "a measurement of time")]
fn what_it_costs() {
    let shared = table();
    for others in crowd(10, Base::default()) {
        std::mem::forget(ask(&shared, &others, Estimate::default(), NOW));
    }
    let mut rules = crowd(1, Base::default());
    rules.push(budget(MeterKind::User, i128::MAX));
    rules.push(parallel(1_000));
    let rounds = 100_000_u32;
    let start = Instant::now();
    for n in 0..u64::from(rounds) {
        let now_ms = NOW + n * 100;
        if let Ok(reservation) = reserve(&shared, A, &rules, estimate(10, 0), now_ms) {
            reservation.settle(&shared, 10, Money::ZERO, now_ms);
        }
    }
    println!("reserve and settle, three rules: {:?}", start.elapsed() / rounds);
}
