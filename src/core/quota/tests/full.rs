//! A table that is full, or that one owner fills: what goes, and that no other owner is shut out.

use super::*;

#[test]
fn meters_in_force_are_never_dropped() {
    let at = |spend, revision| Base { spend: pico(spend), revision };
    // (what the meters are doing, their base, how long ago, what they spent besides, whether one of them makes room)
    type Do = fn(&dyn Store, &Rule);
    let settled: Do =
        |shared, rule| ask(shared, rule, estimate(0, 5), NOW).unwrap().settle(shared, 0, pico(5), NOW);
    let synced: Do = |shared, rule| {
        ask(shared, rule, estimate(0, 5), NOW).unwrap().settle(shared, 0, pico(5), NOW);
        acknowledge(shared, &rule.meter, pico(5));
    };
    let free: Do =
        |shared, rule| ask(shared, rule, estimate(0, 0), NOW).unwrap().settle(shared, 0, pico(0), NOW);
    let flying: Do = |shared, rule| std::mem::forget(ask(shared, rule, estimate(0, 5), NOW).unwrap());
    let minute = 60_000;
    let rows: [(&str, Do, Base, u64, i128, bool); 10] = [
        ("nothing spent just now, the window open", free, at(9, 1), minute - 1, 0, false),
        ("nothing spent in this minute", free, at(9, 1), minute, 0, true),
        ("synced long ago", synced, at(9, 1), IDLE_MS, 0, true),
        ("synced just now", synced, at(9, 1), IDLE_MS - 1, 0, false),
        ("not synced", settled, at(9, 1), IDLE_MS, 5, false),
        ("in flight", flying, at(9, 1), IDLE_MS, 5, false),
        ("nothing spent, no ledger", free, at(0, 0), IDLE_MS, 0, true),
        ("spent, no ledger", settled, at(0, 0), IDLE_MS, 5, false),
        ("spent before, no ledger", free, at(9, 0), IDLE_MS, 0, false),
        ("nothing spent, ledger", free, at(9, 1), IDLE_MS, 0, true),
    ];
    for (name, act, base, after, extra, expected) in rows {
        let shared = table();
        let rules = crowd(bucket::ENTRIES + 1, base);
        let (last, first) = rules.split_last().unwrap();
        first.iter().for_each(|rule| act(&shared, rule));
        heartbeat(&shared, A, NOW + after);
        let answer = ask(&shared, last, Estimate::default(), NOW + after).map(drop);
        assert_eq!(answer, if expected { Ok(()) } else { Err(Why::Full) }, "{name}");
        // Those who are in the table are served anyway, and with the same spend as before.
        for rule in first {
            assert_eq!(check(&shared, A, rule, NOW + after), None, "{name}");
            let spend = standing(&shared, rule, NOW + after).spend;
            assert_eq!(spend.pico(), base.spend.pico() + extra, "{name}");
        }
    }
}

#[test]
fn what_a_lost_worker_held_can_be_dropped() {
    let shared = table();
    let rules = crowd(bucket::ENTRIES + 1, Base { spend: pico(1), revision: 1 });
    for rule in &rules[..bucket::ENTRIES] {
        std::mem::forget(reserve(&shared, B, std::slice::from_ref(rule), estimate(1, 1), NOW).unwrap());
    }
    for (later, expected) in [(NOW + 60_000, false), (NOW + 60_001, true)] {
        heartbeat(&shared, A, later);
        assert_eq!(ask(&shared, &rules[bucket::ENTRIES], estimate(1, 1), later).is_ok(), expected);
    }
}

/// Calls by a key for an end user, each settled at once; whether it was let in.
fn call_for(shared: &dyn Store, key: &str, end_user: &str, now_ms: u64) -> Result<(), Why> {
    let owner = Some(Meter::new(MeterKind::Key, key).fingerprint());
    let limits = Limits { rpm: Some(100), ..Limits::default() };
    let meter = Meter::new(MeterKind::EndUser, end_user);
    let rule = Rule { meter, owner, limits, ..budget(MeterKind::EndUser, 1_000) };
    ask(shared, &rule, estimate(1, 1), now_ms)?.settle(shared, 1, pico(1), now_ms);
    Ok(())
}

/// Every kind of meter that others than the attacker have, none of them in the table.
fn others() -> Vec<Rule> {
    let named = |kind: MeterKind, n: u32| Rule {
        meter: Meter::new(kind, &format!("other{n}")),
        limits: Limits { rpm: Some(100), ..Limits::default() },
        owner: (kind == MeterKind::EndUser).then(|| Meter::new(MeterKind::Key, "other").fingerprint()),
        ..budget(kind, 1_000)
    };
    let kinds = [
        MeterKind::Key,
        MeterKind::KeyModel,
        MeterKind::User,
        MeterKind::Team,
        MeterKind::EndUser,
        MeterKind::Deployment,
    ];
    kinds.into_iter().flat_map(|kind| (0..200).map(move |n| named(kind, n))).collect()
}

#[test]
fn names_that_were_chosen_to_fall_together_do_not() {
    let shared = table();
    // What stood beside the team when values were found by the fingerprint itself, which anybody can compute.
    let place = |meter: &Meter| u16::from_le_bytes([meter.fingerprint()[0], meter.fingerprint()[1]]) % 1_024;
    let team = Rule { limits: Limits { rpm: Some(5), ..Limits::default() }, ..rule(MeterKind::Team) };
    let keys = (0..).map(|n| Meter::new(MeterKind::Key, &n.to_string()));
    let chosen: Vec<Meter> = keys.filter(|meter| place(meter) == place(&team.meter)).take(128).collect();
    let owner = Some(Meter::new(MeterKind::User, "attacker").fingerprint());
    for meter in chosen {
        assert!(admitted(&shared, &Rule { meter, owner, ..rpm(1) }));
    }
    assert!(admitted(&shared, &team));
    let values = |secret| {
        let all = (0..1_000)
            .map(|n| bucket::index(secret, Meter::new(MeterKind::Key, &n.to_string()).fingerprint()));
        all.collect::<Vec<_>>()
    };
    assert_ne!(values([1, 2]), values([1, 3]), "another process, other places");
}

#[test]
fn seventy_thousand_end_users_of_one_key_shut_out_nobody() {
    let shared = table();
    let mut refused = 0;
    for n in 0..70_000 {
        refused += u32::from(call_for(&shared, "attacker", &n.to_string(), NOW + n / 10).is_err());
    }
    assert_eq!(refused, 0, "it pushes out its own");
    let now_ms = NOW + 7_000;
    heartbeat(&shared, A, now_ms);
    for rule in others() {
        assert_eq!(ask(&shared, &rule, estimate(1, 1), now_ms).map(drop), Ok(()), "{rule:?}");
    }
    let [pushed_out, full] = [PUSHED_OUT, FULL].map(|counter| shared.counted(counter));
    assert!(pushed_out > 4_000 && full == 0, "{pushed_out} {full}");
    // What others have stays, however the attacker goes on.
    for n in 70_000..75_000 {
        call_for(&shared, "attacker", &n.to_string(), now_ms).unwrap();
    }
    let lost = others().iter().filter(|rule| entry(&shared, rule).requests != 1).count();
    assert_eq!(lost, 0);
}

#[test]
fn keys_that_a_user_makes_shut_out_nobody() {
    let shared = table();
    let owner = Some(Meter::new(MeterKind::User, "attacker").fingerprint());
    for n in 0..80_000 {
        let meter = Meter::new(MeterKind::Key, &n.to_string());
        ask(&shared, &Rule { meter, owner, ..rpm(1) }, estimate(1, 0), NOW).unwrap().settle(
            &shared,
            1,
            pico(0),
            NOW,
        );
    }
    for rule in others() {
        assert_eq!(ask(&shared, &rule, estimate(1, 1), NOW).map(drop), Ok(()), "{rule:?}");
    }
    assert_eq!(shared.counted(FULL), 0);
}

#[test]
fn what_a_client_says_it_may_use_keeps_nobody_out() {
    let limits = Limits { tpm: Some(1_000), ..Limits::default() };
    let claim = Claim { tokens: u64::MAX, cost: pico(i128::MAX) };
    let huge = Estimate { claim, ..estimate(1, 1) };
    for kind in [
        MeterKind::Team,
        MeterKind::User,
        MeterKind::Organization,
        MeterKind::Global,
        MeterKind::Deployment,
        MeterKind::TeamModel,
    ] {
        let shared = table();
        let rule = Rule { limits, ..budget(kind, 1_000_000) };
        // Half of what is left, and then what the requests are likely to use.
        for (n, tokens, cost) in [(0, 500, 500_000), (1, 501, 500_001), (2, 502, 500_002)] {
            std::mem::forget(ask(&shared, &rule, huge, NOW).unwrap());
            let holder = entry(&shared, &rule).holders[0];
            assert_eq!((holder.tokens, holder.cost), (tokens, cost), "{kind:?} {n}");
        }
        for n in 0..400 {
            assert!(ask(&shared, &rule, estimate(1, 1_000), NOW).map(std::mem::forget).is_ok(), "{n}");
        }
        // A claim that fits is held whole.
        let shared = table();
        let fits = Estimate { claim: Claim { tokens: 300, cost: pico(40) }, ..estimate(5, 6) };
        std::mem::forget(ask(&shared, &rule, fits, NOW).unwrap());
        let holder = entry(&shared, &rule).holders[0];
        assert_eq!((holder.tokens, holder.cost), (305, 46));
    }
    // A key keeps out nobody but itself.
    let shared = table();
    let rule = Rule { limits, ..budget(MeterKind::Key, 1_000_000) };
    std::mem::forget(ask(&shared, &rule, huge, NOW).unwrap());
    assert!(matches!(ask(&shared, &rule, huge, NOW), Err(Why::Budget { .. })));
}
