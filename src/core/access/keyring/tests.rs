//! Copies of records: their time, outages, changes, scans.

use super::*;
use crate::core::{model::key_record::Principal, store::Memory};

const NOW: u64 = 1_000_000;

fn hash(n: u64) -> String {
    super::super::hash(n.to_string().as_bytes())
}

fn grant(hash: &str) -> KeyRecord {
    let mut grant = KeyRecord::default();
    grant.key.id = hash.to_owned();
    grant
}

fn scope(id: &str) -> Option<Box<Principal>> {
    Some(Box::new(Principal { id: id.to_owned(), ..Principal::default() }))
}

fn ring(capacity: usize) -> (Keyring, Memory) {
    let shared = Memory::default();
    changes::prepare(&shared);
    let mut keys = Keyring::new(capacity);
    keys.refresh(&shared);
    (keys, shared)
}

fn word<T>(found: &Found<T>) -> &'static str {
    match found {
        Found::Known(_) => "known",
        Found::Unknown => "unknown",
        Found::Ask => "ask",
        Found::Unreachable => "unreachable",
    }
}

fn look(keys: &mut Keyring, n: u64, now_ms: u64) -> &'static str {
    word(&keys.key(&hash(n), now_ms))
}

fn learn(keys: &mut Keyring, n: u64, now_ms: u64) {
    keys.learn_key(&hash(n), LookupResult::Record(grant(&hash(n))), now_ms);
}

#[test]
fn a_record_is_good_for_its_time_and_then_asked_for_by_one() {
    let (mut keys, _) = ring(10);
    assert_eq!(look(&mut keys, 1, NOW), "ask");
    learn(&mut keys, 1, NOW);
    assert_eq!(look(&mut keys, 1, NOW + 59_999), "known");
    assert_eq!(look(&mut keys, 1, NOW + 60_000), "ask");
    assert_eq!(look(&mut keys, 1, NOW + 60_001), "known", "others go on with what there is");
    assert_eq!(look(&mut keys, 1, NOW + 65_001), "ask", "nobody answered the first one");
    learn(&mut keys, 1, NOW + 65_002);
    assert_eq!(look(&mut keys, 1, NOW + 125_001), "known");
    // The ledger has forgotten it.
    keys.learn_key(&hash(1), LookupResult::None, NOW + 130_000);
    assert_eq!(look(&mut keys, 1, NOW + 139_999), "unknown");
    assert_eq!(look(&mut keys, 1, NOW + 140_000), "ask");
}

#[test]
fn while_the_ledger_is_away_known_keys_go_on() {
    let (mut keys, shared) = ring(10);
    learn(&mut keys, 1, NOW);
    let later = NOW + 70_000;
    assert_eq!(look(&mut keys, 1, later), "ask");
    keys.learn_key(&hash(1), LookupResult::Unreachable, later);
    assert_eq!((look(&mut keys, 1, later), look(&mut keys, 2, later)), ("known", "unreachable"));
    assert_eq!(look(&mut keys, 2, later + 1_000), "ask", "it is tried again after a second");
    keys.learn_key(&hash(2), LookupResult::Unreachable, later + 1_000);
    assert_eq!(look(&mut keys, 2, later + 1_999), "unreachable");
    // After a reset an old record serves only when there is no other way.
    let later = later + 10_000;
    learn(&mut keys, 1, later);
    changes::reset(&shared);
    keys.refresh(&shared);
    assert_eq!((look(&mut keys, 1, later), look(&mut keys, 1, later)), ("ask", "ask"));
    keys.learn_key(&hash(1), LookupResult::Unreachable, later);
    assert_eq!(look(&mut keys, 1, later), "known");
    assert_eq!(look(&mut keys, 1, later + 1_000), "ask");
    learn(&mut keys, 1, later + 1_000);
    assert_eq!(look(&mut keys, 1, later + 2_000), "known");
}

#[test]
fn one_lost_connection_is_asked_again_and_the_second_in_a_row_is_an_outage() {
    let (mut keys, _) = ring(10);
    let lose = |keys: &mut Keyring, n, now| keys.learn_key(&hash(n), LookupResult::Lost, now);
    assert_eq!((look(&mut keys, 1, NOW), look(&mut keys, 2, NOW)), ("ask", "ask"));
    // Both were under way when the connections broke: that is one failure.
    lose(&mut keys, 1, NOW);
    lose(&mut keys, 2, NOW);
    assert_eq!((look(&mut keys, 1, NOW), look(&mut keys, 3, NOW)), ("ask", "ask"));
    learn(&mut keys, 3, NOW);
    lose(&mut keys, 1, NOW);
    assert_eq!(look(&mut keys, 1, NOW), "ask", "an answer came in between");
    lose(&mut keys, 1, NOW);
    assert_eq!(look(&mut keys, 1, NOW), "unreachable");
    // One that hangs is not waited for a second time.
    let (mut keys, _) = ring(10);
    assert_eq!(look(&mut keys, 1, NOW), "ask");
    lose(&mut keys, 1, NOW + 3_000);
    assert_eq!(look(&mut keys, 1, NOW + 3_000), "unreachable");
}

#[test]
fn a_change_that_a_copy_has_already_does_not_drop_it() {
    let (mut keys, shared) = ring(10);
    let name = format!("key:{}", hash(1));
    let mut record = grant(&hash(1));
    record.revision = 7;
    keys.learn_key(&hash(1), LookupResult::Record(record.clone()), NOW);
    // The feed tells of the change that the copy was fetched after.
    changes::announce_as_of(&shared, [(name.as_str(), 7)].into_iter());
    keys.refresh(&shared);
    assert_eq!(look(&mut keys, 1, NOW), "known");
    changes::announce_as_of(&shared, [(name.as_str(), 8)].into_iter());
    keys.refresh(&shared);
    assert_eq!(look(&mut keys, 1, NOW), "ask");
    // The same while the answer is on its way.
    changes::announce_as_of(&shared, [(name.as_str(), 9)].into_iter());
    keys.refresh(&shared);
    record.revision = 9;
    keys.learn_key(&hash(1), LookupResult::Record(record), NOW);
    assert_eq!(look(&mut keys, 1, NOW), "known");
}

#[test]
fn what_one_worker_knows_serves_the_others_while_the_ledger_is_away() {
    let (mut keys, shared) = ring(10);
    let mut record = grant(&hash(1));
    (record.team, record.revision) = (scope("t"), 7);
    spare::keep(&shared, &record, changes::watermark(&shared).count);
    assert_eq!(spare::find(&shared, &hash(1)).as_ref(), Some(&record));
    assert_eq!(spare::find(&shared, &hash(2)), None);
    keys.learn_key(&hash(1), LookupResult::Unreachable, NOW);
    assert_eq!(look(&mut keys, 1, NOW), "unreachable");
    keys.adopt(record, NOW);
    assert_eq!(look(&mut keys, 1, NOW + 500), "known");
    assert_eq!(look(&mut keys, 1, NOW + 1_000), "ask", "the ledger is asked as soon as it may be");
    // Blocked meanwhile: the copy serves no more.
    changes::announce_as_of(&shared, [("team:t", 7)].into_iter());
    assert!(spare::find(&shared, &hash(1)).is_some());
    changes::announce(&shared, &["team:t"]);
    assert_eq!(spare::find(&shared, &hash(1)), None);
}

#[test]
fn a_change_drops_whatever_it_is_part_of() {
    let rows = ["key:K", "user:u", "team:t", "member:t/u", "org:o"];
    for name in rows {
        let (mut keys, shared) = ring(10);
        let mut record = grant(&hash(1));
        (record.user, record.team, record.member, record.organization) =
            (scope("u"), scope("t"), scope("u"), scope("o"));
        keys.learn_key(&hash(1), LookupResult::Record(record), NOW);
        learn(&mut keys, 2, NOW);
        changes::announce(&shared, &["team:other", &name.replace('K', &hash(1))]);
        keys.refresh(&shared);
        assert_eq!((look(&mut keys, 1, NOW), look(&mut keys, 2, NOW)), ("ask", "known"), "{name}");
    }
    let (mut keys, shared) = ring(10);
    keys.learn_key(&hash(1), LookupResult::None, NOW);
    keys.learn_end_user("e", LookupResult::None, NOW);
    assert_eq!((look(&mut keys, 1, NOW), word(&keys.end_user("e", NOW))), ("unknown", "known"));
    changes::announce(&shared, &[&format!("key:{}", hash(1)), "end_user:e"]);
    keys.refresh(&shared);
    assert_eq!((look(&mut keys, 1, NOW), word(&keys.end_user("e", NOW))), ("ask", "ask"));
    // More changes than are remembered: everything goes.
    learn(&mut keys, 1, NOW);
    let names: Vec<String> = (0..300).map(|n| format!("user:{n}")).collect();
    names.iter().for_each(|name| changes::announce(&shared, &[name]));
    keys.refresh(&shared);
    assert_eq!(look(&mut keys, 1, NOW), "ask");
}

#[test]
fn an_answer_that_is_older_than_a_change_is_asked_for_again() {
    for reset in [false, true] {
        let (mut keys, shared) = ring(10);
        assert_eq!(look(&mut keys, 1, NOW), "ask");
        assert_eq!(look(&mut keys, 2, NOW), "ask");
        // While the ledger answers, another request of this worker sees the change.
        match reset {
            true => changes::reset(&shared),
            false => changes::announce(&shared, &[&format!("key:{}", hash(1))]),
        }
        keys.refresh(&shared);
        learn(&mut keys, 1, NOW);
        learn(&mut keys, 2, NOW);
        assert_eq!(look(&mut keys, 1, NOW), "ask");
        assert_eq!(look(&mut keys, 2, NOW), if reset { "ask" } else { "known" });
        learn(&mut keys, 1, NOW);
        assert_eq!(look(&mut keys, 1, NOW), "known");
    }
}

#[test]
fn a_scan_of_random_keys_takes_no_room_and_puts_nobody_out() {
    let (mut keys, _) = ring(100);
    for n in 0..50 {
        learn(&mut keys, n, NOW);
    }
    for n in 1_000..1_001_000_u64 {
        // Any 64 digits will do for a hash.
        let hash = format!("{:016x}{:048x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n);
        assert_eq!(word(&keys.key(&hash, NOW)), "ask");
        keys.learn_key(&hash, LookupResult::None, NOW);
        if n % 1_000 == 0 {
            assert_eq!(word(&keys.key(&hash, NOW)), "unknown");
        }
    }
    assert!((0..50).all(|n| look(&mut keys, n, NOW) == "known"));
    assert_eq!(keys.unknown.len(), UNKNOWN_SLOTS);
    assert!(keys.watched.len() <= WATCHED && keys.seen.is_empty());
    // Asked and never answered, too.
    for n in 0..10_000 {
        look(&mut keys, 10_000_000 + n, NOW + n);
    }
    assert!(keys.watched.len() <= WATCHED);
}

#[test]
fn who_is_asked_for_stays_when_room_runs_out() {
    let (mut keys, shared) = ring(100);
    for n in 0..10_000 {
        learn(&mut keys, n, NOW);
        assert_eq!(look(&mut keys, 0, NOW), "known", "the one in use stays");
        if n % 100 == 0 {
            changes::announce(&shared, &[&format!("key:{}", hash(n / 2 + 1))]);
            keys.refresh(&shared);
        }
    }
    let kept = (0..10_000).filter(|&n| look(&mut keys, n, NOW) == "known").count();
    assert!((95..=100).contains(&kept), "{kept}");
    keys.configure(10, 60_000);
    (0..100).for_each(|n| learn(&mut keys, n, NOW));
    assert_eq!((0..100).filter(|&n| look(&mut keys, n, NOW) == "known").count(), 10);
}

#[test]
fn ten_thousand_keys_are_small() {
    // Native sizes; those of wasm32 are smaller. A key with limits and a budget owns its id, a name and little else.
    assert!(size_of::<VirtualKey>() <= 568, "{}", size_of::<VirtualKey>());
}

#[test]
fn end_users_without_a_record_have_no_limits() {
    let (mut keys, shared) = ring(10);
    assert!(!keys.wants_end_users());
    changes::set_end_users(&shared, true);
    keys.refresh(&shared);
    assert!(keys.wants_end_users());
    assert_eq!(word(&keys.end_user("e", NOW)), "ask");
    keys.learn_end_user("e", LookupResult::None, NOW);
    let Found::Known(record) = keys.end_user("e", NOW) else { panic!("learnt") };
    assert_eq!((record.scope.id.as_str(), record.scope.blocked), ("e", false));
    keys.learn_end_user("f", LookupResult::Unreachable, NOW);
    assert_eq!(word(&keys.end_user("f", NOW)), "unreachable");
}
