//! Limits, from outside.

mod full;
mod nodes;
mod runs;
mod threads;

use std::sync::OnceLock;

use super::*;
use crate::core::{
    host::Version,
    model::{limits::Limits, period, rate::Rate, rule::Base},
    store::Memory,
};

/// The ledger has applied this much.
fn acknowledge(shared: &dyn Store, meter: &Meter, spent: Money) {
    synced(shared, meter, spent, None);
}

/// Some time, in Unix milliseconds: 2026-11-21 12:36:16 UTC.
const NOW: u64 = 1_795_264_576_000;
const A: Worker = Worker(1);
const B: Worker = Worker(2);

fn table() -> Memory {
    let shared = Memory::default();
    prepare(&shared, [1, 2]);
    for worker in [A, B] {
        heartbeat(&shared, worker, NOW);
    }
    shared
}

fn rule(kind: MeterKind) -> Rule {
    Rule {
        owner: None,
        kind,
        meter: Meter::new(kind, "x"),
        limits: Limits::default(),
        max_budget: None,
        base: Base::default(),
        resets: None,
    }
}

fn rpm(limit: u64) -> Rule {
    Rule { limits: Limits { rpm: Some(limit), ..Limits::default() }, ..rule(MeterKind::Key) }
}

fn tpm(limit: u64) -> Rule {
    Rule { limits: Limits { tpm: Some(limit), ..Limits::default() }, ..rule(MeterKind::User) }
}

fn parallel(limit: u64) -> Rule {
    Rule { limits: Limits { parallel: Some(limit), ..Limits::default() }, ..rule(MeterKind::Team) }
}

fn budget(kind: MeterKind, max: i128) -> Rule {
    Rule { max_budget: Some(pico(max)), ..rule(kind) }
}

fn pico(amount: i128) -> Money {
    Money::from_pico(amount)
}

fn estimate(tokens: u64, cost: i128) -> Estimate {
    Estimate { tokens, cost: pico(cost), ..Estimate::default() }
}

fn ask(shared: &dyn Store, rule: &Rule, estimate: Estimate, now_ms: u64) -> Result<Reservation, Why> {
    reserve(shared, A, std::slice::from_ref(rule), estimate, now_ms).map_err(|refused| refused.why)
}

/// Whether a request is admitted; it stays in flight.
fn admitted(shared: &dyn Store, rule: &Rule) -> bool {
    ask(shared, rule, Estimate::default(), NOW).is_ok()
}

fn entry(shared: &dyn Store, rule: &Rule) -> Entry {
    bucket::look(shared, rule.meter.fingerprint()).unwrap_or_default()
}

/// Up to 129 meters whose entries stand in one value, each with a budget as `base` says.
fn crowd(count: usize, base: Base) -> Vec<Rule> {
    static METERS: OnceLock<Vec<Meter>> = OnceLock::new();
    let meters = METERS.get_or_init(|| {
        let all = (0..).map(|n| Meter::new(MeterKind::Team, &n.to_string()));
        all.filter(|meter| bucket::index([1, 2], meter.fingerprint()) == 0)
            .take(bucket::ENTRIES + 1)
            .collect()
    });
    let limits = Limits { rpm: Some(1_000), ..Limits::default() };
    let rule = Rule { limits, base, ..budget(MeterKind::Team, 1_000) };
    meters.iter().take(count).map(|meter| Rule { meter: meter.clone(), ..rule.clone() }).collect()
}

#[test]
fn exactly_as_many_as_the_limit_says() {
    for limit in [0, 1, 3, 50] {
        for rule in [rpm(limit), parallel(limit)] {
            let shared = table();
            let admitted = (0..60).filter(|_| admitted(&shared, &rule)).count();
            assert_eq!(admitted as u64, limit, "{rule:?}");
        }
    }
    // Tokens admit while there are any left, however many a request takes.
    for (limit, each, expected) in [(0, 1, 0), (1, 1_000, 1), (10, 4, 3), (10, 5, 2), (10, 0, 60)] {
        let (shared, rule) = (table(), tpm(limit));
        let admitted = (0..60).filter(|_| ask(&shared, &rule, estimate(each, 0), NOW).is_ok()).count();
        assert_eq!(admitted, expected, "{limit} {each}");
    }
}

#[test]
fn a_rule_without_limits_touches_nothing() {
    let shared = table();
    let reservation = ask(&shared, &rule(MeterKind::Global), estimate(5, 5), NOW).unwrap();
    assert!(reservation.budgeted_meters().is_empty());
    reservation.settle(&shared, 5, pico(5), NOW);
    assert_eq!(bucket::look(&shared, rule(MeterKind::Global).meter.fingerprint()), None);
    let bare = Rule { base: Base { spend: pico(7), revision: 1 }, ..rule(MeterKind::Global) };
    let standing = standing(&shared, &bare, NOW);
    assert_eq!((standing.requests_left, standing.spend), (None, pico(7)));
}

#[test]
fn refusals_come_in_order_and_say_when_it_is_over() {
    let limits = |rpm, tpm, parallel| Limits { rpm, tpm, parallel };
    let resets_at_ms = NOW + 60_000;
    let rows = [
        (limits(Some(1), Some(1), Some(1)), Some(1), Why::Budget { spend: pico(0), held: pico(10) }),
        (limits(Some(1), Some(1), Some(1)), Some(11), Why::Parallel),
        (limits(Some(1), Some(1), None), None, Why::Requests { resets_at_ms }),
        (limits(None, Some(1), None), None, Why::Tokens { resets_at_ms }),
    ];
    for (limits, max, why) in rows {
        let shared = table();
        let rule = Rule { limits, max_budget: max.map(pico), ..rule(MeterKind::User) };
        let _held = ask(&shared, &rule, estimate(9, 10), NOW).unwrap();
        let before = entry(&shared, &rule);
        let later = NOW + 20_000;
        heartbeat(&shared, A, later);
        assert_eq!(ask(&shared, &rule, estimate(9, 10), later).unwrap_err(), why);
        assert_eq!(check(&shared, A, &rule, later), Some(why));
        assert_eq!(check(&shared, A, &rule, later), check_budget(&shared, A, &rule, later).or(Some(why)));
        let rates = check_rates(&shared, A, &rule, later);
        assert_eq!(rates.is_some(), limits.any(), "{rates:?}");
        assert_eq!(entry(&shared, &rule), before, "a refusal changes nothing");
    }
}

#[test]
fn all_rules_or_none() {
    let shared = table();
    let rules = [rpm(5), rule(MeterKind::Member), tpm(5), budget(MeterKind::Organization, 5), parallel(1)];
    let first = reserve(&shared, A, &rules, estimate(1, 1), NOW).unwrap();
    let refused = reserve(&shared, A, &rules, estimate(1, 1), NOW).unwrap_err();
    assert_eq!(refused, Refused { rule: 4, why: Why::Parallel });
    assert_eq!(first.budgeted_meters(), ["org:x"]);
    let left = rules.each_ref().map(|rule| {
        let Standing { requests_left, tokens_left, parallel_left, .. } = standing(&shared, rule, NOW);
        (requests_left, tokens_left, parallel_left)
    });
    let none = (None, None, None);
    assert_eq!(left, [(Some(4), None, None), none, (None, Some(4), None), none, (None, None, Some(0))]);
    assert_eq!(standing(&shared, &rules[3], NOW).spend, pico(1));
    first.settle(&shared, 3, pico(2), NOW);
    assert_eq!(standing(&shared, &rules[2], NOW).tokens_left, Some(2));
    assert_eq!(standing(&shared, &rules[3], NOW).spend, pico(2));
    assert_eq!(standing(&shared, &rules[4], NOW).parallel_left, Some(1));
}

#[test]
fn a_window_opens_with_the_first_request_and_lasts_a_minute() {
    let (shared, rule) = (table(), rpm(1));
    let rows = [
        (0, true),
        (1, false),
        (59_999, false),
        (60_000, true),
        (119_999, false),
        (500_000, true),
        (559_999, false),
        (560_000, true),
    ];
    for (after, expected) in rows {
        let answer = ask(&shared, &rule, Estimate::default(), NOW + after);
        assert_eq!(answer.is_ok(), expected, "{after}");
    }
    assert_eq!(standing(&shared, &rule, NOW + 570_000).resets_at_ms, NOW + 620_000);
    assert_eq!(standing(&shared, &rule, NOW + 620_000).resets_at_ms, NOW + 680_000);
    // A clock that goes back does not keep a window open until it has caught up.
    assert!(ask(&shared, &rule, Estimate::default(), NOW + 400_000).is_ok());
}

#[test]
fn tokens_count_in_the_window_that_is_open_when_they_are_settled() {
    let (shared, rule) = (table(), tpm(100));
    let left = |now_ms| standing(&shared, &rule, now_ms).tokens_left;
    let long = ask(&shared, &rule, estimate(30, 0), NOW).unwrap();
    let short = ask(&shared, &rule, estimate(30, 0), NOW).unwrap();
    short.settle(&shared, 10, Money::ZERO, NOW + 1);
    assert_eq!(left(NOW + 1), Some(60));
    heartbeat(&shared, A, NOW + 60_000);
    // What is in flight stays reserved, whatever the window.
    assert_eq!(left(NOW + 60_000), Some(70));
    let next = ask(&shared, &rule, estimate(1, 0), NOW + 61_000).unwrap();
    long.settle(&shared, 50, Money::ZERO, NOW + 62_000);
    assert_eq!(left(NOW + 62_000), Some(49));
    next.settle(&shared, 1, Money::ZERO, NOW + 200_000);
    assert_eq!(left(NOW + 200_000), Some(100));
}

#[test]
fn keys_stop_at_their_budget_and_all_others_after_it() {
    let rows = [
        (MeterKind::Key, 0, 0, false),
        (MeterKind::Key, 10, 9, true),
        (MeterKind::Key, 10, 10, false),
        (MeterKind::KeyModel, 10, 9, true),
        (MeterKind::KeyModel, 10, 10, false),
        (MeterKind::KeyWindow, 10, 9, true),
        (MeterKind::KeyWindow, 10, 10, false),
        (MeterKind::TeamWindow, 10, 10, false),
        (MeterKind::User, 0, 0, true),
        (MeterKind::User, 10, 10, true),
        (MeterKind::User, 10, 11, false),
        (MeterKind::Team, 10, 11, false),
        (MeterKind::TeamModel, 10, 10, true),
        (MeterKind::Member, 10, 10, true),
        (MeterKind::Organization, 10, 10, true),
        (MeterKind::EndUser, 10, 10, true),
        (MeterKind::EndUser, 10, 11, false),
        (MeterKind::Global, 10, 10, true),
        (MeterKind::Global, 10, 11, false),
        (MeterKind::Deployment, 10, 9, true),
        (MeterKind::Deployment, 10, 10, false),
        (MeterKind::Provider, 10, 10, false),
    ];
    for (kind, max, spend, expected) in rows {
        let shared = table();
        let rule = Rule { base: Base { spend: pico(spend), revision: 1 }, ..budget(kind, max) };
        let answer = ask(&shared, &rule, Estimate::default(), NOW).map(drop);
        let refused = Err(Why::Budget { spend: pico(spend), held: pico(0) });
        assert_eq!(answer, if expected { Ok(()) } else { refused }, "{rule:?}");
    }
}

#[test]
fn spend_is_what_the_ledger_says_and_what_it_does_not_know_yet() {
    let shared = table();
    let at = |spend, revision| Rule {
        base: Base { spend: pico(spend), revision },
        ..budget(MeterKind::Key, 1_000)
    };
    let rule = at(100, 5);
    let spend = |rule: &Rule| standing(&shared, rule, NOW).spend.pico();
    assert_eq!(spend(&rule), 100);
    let first = ask(&shared, &rule, estimate(0, 30), NOW).unwrap();
    assert_eq!(spend(&rule), 130);
    first.settle(&shared, 0, pico(25), NOW);
    assert_eq!(spend(&rule), 125);
    // An older record changes nothing, a newer one is taken with the next request.
    assert_eq!((spend(&at(1, 4)), spend(&at(1, 5)), spend(&at(200, 6))), (125, 125, 225));
    assert_eq!(spend(&rule), 125);
    ask(&shared, &at(200, 6), estimate(0, 0), NOW).unwrap().cancel(&shared, NOW);
    assert_eq!(spend(&rule), 225);
    acknowledge(&shared, &rule.meter, pico(10));
    assert_eq!(spend(&rule), 215);
    rebase(&shared, &rule.meter, pico(900), 6);
    assert_eq!(spend(&rule), 215);
    rebase(&shared, &rule.meter, pico(900), 7);
    assert_eq!(spend(&rule), 915);
    synced(&shared, &rule.meter, pico(15), Some(Base { spend: pico(920), revision: 8 }));
    assert_eq!(spend(&rule), 920);
    acknowledge(&shared, &rule.meter, pico(1_000_000));
    assert_eq!(spend(&rule), 920);
    // Meters that are not in the table are left out of it.
    let other = Meter::named("user:other");
    synced(&shared, &other, pico(1), Some(Base { spend: pico(1), revision: 9 }));
    assert_eq!(bucket::look(&shared, other.fingerprint()), None);
}

#[test]
fn a_budget_that_is_set_later_starts_from_its_record() {
    let shared = table();
    let _held =
        ask(&shared, &Rule { base: Base { spend: pico(3), revision: 9 }, ..rpm(5) }, estimate(0, 5), NOW);
    rebase(&shared, &rpm(5).meter, pico(50), 10);
    let rule = Rule { base: Base { spend: pico(7), revision: 9 }, ..budget(MeterKind::Key, 100) };
    assert_eq!(standing(&shared, &rule, NOW).spend, pico(7));
}

#[test]
fn amounts_beyond_the_type_stay_at_its_limit() {
    let shared = table();
    let rule = Rule {
        base: Base { spend: pico(i128::MAX), revision: 1 },
        limits: Limits { tpm: Some(u64::MAX), ..Limits::default() },
        ..budget(MeterKind::User, i128::MAX)
    };
    let huge = estimate(u64::MAX - 1, i128::MAX);
    let first = ask(&shared, &rule, huge, NOW).unwrap();
    let second = ask(&shared, &rule, huge, NOW).unwrap();
    second.settle(&shared, u64::MAX, pico(i128::MAX), NOW);
    let held = &entry(&shared, &rule).holders[0];
    assert_eq!((held.requests, held.tokens, held.cost), (1, u64::MAX - 1, i64::MAX));
    first.settle(&shared, u64::MAX, pico(i128::MAX), NOW);
    let entry = entry(&shared, &rule);
    assert_eq!((entry.unsynced, entry.base, entry.holders.len()), (i64::MAX, i64::MAX, 0));
    assert_eq!(ask(&shared, &rule, huge, NOW).unwrap_err(), Why::Tokens { resets_at_ms: NOW + 60_000 });
}

#[test]
fn cancelling_undoes_everything() {
    let shared = table();
    let mut rule = Rule { limits: Limits { rpm: Some(1), tpm: Some(1), parallel: Some(1) }, ..rpm(1) };
    rule.max_budget = Some(pico(1));
    for _ in 0..5 {
        ask(&shared, &rule, estimate(10, 10), NOW).unwrap().cancel(&shared, NOW + 5);
    }
    let left = entry(&shared, &rule);
    assert_eq!((left.window_ms, left.requests, left.tokens, left.unsynced), (0, 0, 0, 0));
    assert_eq!(left.holders, []);
    // In a later window there is nothing to take back.
    let late = ask(&shared, &rpm(2), Estimate::default(), NOW).unwrap();
    let _next = ask(&shared, &rpm(2), Estimate::default(), NOW + 60_000).unwrap();
    late.cancel(&shared, NOW + 60_001);
    assert_eq!(standing(&shared, &rpm(2), NOW + 60_001).requests_left, Some(1));
}

#[test]
fn a_lost_worker_holds_nothing() {
    let shared = table();
    let rules = [
        parallel(2),
        Rule { limits: Limits { tpm: Some(20), ..Limits::default() }, ..rule(MeterKind::User) },
        budget(MeterKind::Key, 20),
    ];
    for _ in 0..2 {
        std::mem::forget(reserve(&shared, B, &rules, estimate(10, 10), NOW));
    }
    let why = |now_ms| rules.each_ref().map(|rule| check(&shared, A, rule, now_ms).is_some());
    assert_eq!(why(NOW), [true; 3]);
    heartbeat(&shared, A, NOW + 5_000);
    assert_eq!(why(NOW + 5_000), [true; 3]);
    assert_eq!(why(NOW + 5_001), [false; 3]);
    assert_eq!(standing(&shared, &rules[0], NOW + 5_001).parallel_left, Some(2));
    // It was only busy and comes back: its counts are where it left them.
    heartbeat(&shared, B, NOW + 6_000);
    assert_eq!(why(NOW + 6_000), [true; 3]);
    // It is gone, and a new VM in its place starts from nothing.
    let restarted = Worker(3);
    let later = NOW + 70_000;
    heartbeat(&shared, A, later);
    heartbeat(&shared, restarted, later);
    let held: Vec<_> = (0..4).map(|_| reserve(&shared, restarted, &rules, estimate(10, 10), later)).collect();
    assert_eq!(held.iter().filter(|answer| answer.is_ok()).count(), 2);
    for reservation in held.into_iter().flatten() {
        reservation.settle(&shared, 0, Money::ZERO, later);
    }
    assert_eq!(standing(&shared, &rules[0], later).parallel_left, Some(2));
}

#[test]
fn holders_of_forgotten_workers_are_cleared_away() {
    let (shared, rule) = (table(), parallel(100));
    for n in 10..30 {
        let now_ms = NOW + u64::from(n) * 100_000;
        heartbeat(&shared, Worker(n), now_ms);
        let answer = reserve(&shared, Worker(n), std::slice::from_ref(&rule), Estimate::default(), now_ms);
        std::mem::forget(answer);
    }
    assert!(entry(&shared, &rule).holders.len() <= 4);
}

#[test]
fn the_end_of_a_long_request_counts_as_use() {
    let shared = table();
    let rules = crowd(bucket::ENTRIES + 1, Base { spend: pico(1), revision: 1 });
    let long: Vec<_> = rules[..bucket::ENTRIES]
        .iter()
        .map(|rule| ask(&shared, rule, estimate(1, 1), NOW).unwrap())
        .collect();
    for (reservation, rule) in long.into_iter().zip(&rules) {
        reservation.settle(&shared, 1, pico(1), NOW + IDLE_MS);
        acknowledge(&shared, &rule.meter, pico(1));
    }
    for (later, expected) in [(NOW + 2 * IDLE_MS - 1, false), (NOW + 2 * IDLE_MS, true)] {
        assert_eq!(ask(&shared, &rules[bucket::ENTRIES], estimate(1, 1), later).is_ok(), expected);
    }
}

#[test]
fn budgets_of_the_configuration_start_again_by_themselves() {
    let shared = table();
    let rule = Rule { resets: period::parse("1h").ok(), ..budget(MeterKind::Key, 10) };
    let spend = |now_ms| standing(&shared, &rule, now_ms).spend.pico();
    // 12:36:16; the next hour begins in 23:44.
    let hour = NOW + (23 * 60 + 44) * 1_000;
    let over = ask(&shared, &rule, estimate(0, 5), NOW).unwrap();
    let long = ask(&shared, &rule, estimate(0, 5), NOW).unwrap();
    over.settle(&shared, 0, pico(7), NOW);
    assert_eq!(
        ask(&shared, &rule, estimate(0, 5), NOW).unwrap_err(),
        Why::Budget { spend: pico(7), held: pico(5) }
    );
    heartbeat(&shared, A, hour);
    assert_eq!((spend(hour - 1), spend(hour)), (12, 5));
    // Settled in the new period: counts in it, though nobody asked in between.
    long.settle(&shared, 0, pico(6), hour + 5);
    assert_eq!((spend(hour + 5), spend(hour + 3_599_999), spend(hour + 3_600_000)), (6, 6, 0));
    // A shorter period takes effect at once.
    let minutes = Rule { resets: period::parse("1m").ok(), ..rule.clone() };
    ask(&shared, &minutes, estimate(0, 0), hour + 10).unwrap().cancel(&shared, hour + 10);
    assert_eq!(spend(hour + 60_000), 0);
}

#[test]
fn a_table_that_is_missing_or_garbled_is_made_anew() {
    let shared = Memory::default();
    let rule = rpm(2);
    assert_eq!(check(&shared, A, &rule, NOW), None);
    prepare(&shared, [1, 2]);
    assert!(admitted(&shared, &rule) && admitted(&shared, &rule) && !admitted(&shared, &rule));
    prepare(&shared, [3, 4]);
    assert!(!admitted(&shared, &rule), "preparing keeps what is there");
    for index in 0..bucket::BUCKETS {
        assert!(shared.get(&bucket::name(index)).is_some());
        shared.set(&bucket::name(index), b"garbage", None);
    }
    assert!(admitted(&shared, &rule) && admitted(&shared, &rule) && !admitted(&shared, &rule));
}

/// A store that is never as it was read.
struct Contended(Memory);

impl Store for Contended {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        self.0.get(key)
    }

    fn set(&self, _: &str, _: &[u8], _: Option<Version>) -> bool {
        false
    }

    fn secret(&self) -> crate::core::host::Secret {
        crate::core::store::read_secret(self).unwrap_or_default()
    }

    fn succeeded(&self, deployment: &str, minute: u64) {
        self.0.succeeded(deployment, minute);
    }

    fn successes(&self, deployment: &str, minute: u64) -> u64 {
        self.0.successes(deployment, minute)
    }
}

#[test]
fn a_store_that_takes_nothing_refuses() {
    let shared = Contended(table());
    assert_eq!(ask(&shared, &rpm(1), Estimate::default(), NOW).unwrap_err(), Why::Full);
}
