//! What other nodes count, and what they are told.

use super::*;

#[test]
fn other_nodes_count_while_they_are_heard_of() {
    let shared = table();
    let limits = Limits { rpm: Some(10), tpm: Some(100), parallel: Some(5) };
    let rule = Rule { limits, ..rule(MeterKind::Key) };
    let theirs = Rate { window_ms: NOW - 30_000, requests: 4, tokens: 40, parallel: 2, ..Rate::default() };
    let rate = Rate { meter: rule.meter.hex(), ..theirs };
    set_remote(&shared, std::slice::from_ref(&rate), NOW);
    assert!(open_rates(&shared, NOW).is_empty(), "a meter nobody asked for here");

    let held = ask(&shared, &rule, estimate(7, 0), NOW).unwrap();
    let counts = Rate { window_ms: NOW, requests: 1, tokens: 7, parallel: 1, ..Rate::default() };
    let ours = Rate { meter: rule.meter.hex(), ..counts };
    assert_eq!(open_rates(&shared, NOW), std::slice::from_ref(&ours));
    let left = |now_ms| {
        let left = standing(&shared, &rule, now_ms);
        [left.requests_left, left.tokens_left, left.parallel_left].map(Option::unwrap)
    };
    assert_eq!(left(NOW), [9, 93, 4]);
    set_remote(&shared, std::slice::from_ref(&rate), NOW);
    heartbeat(&shared, A, NOW + 5_000);
    assert_eq!((left(NOW), left(NOW + 5_000), left(NOW + 5_001)), ([5, 53, 2], [5, 53, 2], [9, 93, 4]));
    // Their window closes, their places stay.
    set_remote(&shared, &[Rate { window_ms: NOW - 60_000, ..rate.clone() }], NOW);
    assert_eq!(left(NOW), [9, 93, 2]);
    let full = Rate { requests: 9, ..rate };
    set_remote(&shared, &[full.clone(), Rate { meter: "nonsense".into(), ..full.clone() }], NOW);
    assert_eq!(check_rates(&shared, A, &rule, NOW), Some(Why::Requests { resets_at_ms: NOW + 60_000 }));
    held.settle(&shared, 8, Money::ZERO, NOW);
    let ours = Rate { tokens: 8, parallel: 0, ..ours };
    assert_eq!(open_rates(&shared, NOW + 59_999), [ours]);
    assert!(open_rates(&shared, NOW + 60_000).is_empty());
    // Refused because of the others alone: goes on being asked for, so that it goes on being refused.
    let full = Rate { requests: 10, window_ms: NOW + 60_000, ..full };
    set_remote(&shared, &[full], NOW + 60_000);
    assert_eq!(
        check_rates(&shared, A, &rule, NOW + 60_000),
        Some(Why::Requests { resets_at_ms: NOW + 120_000 })
    );
    assert_eq!(open_rates(&shared, NOW + 60_000).len(), 1);
}

#[test]
fn deployments_of_other_nodes_count_before_they_are_called_here() {
    let shared = table();
    let limits = Limits { rpm: Some(5), tpm: None, parallel: Some(5) };
    let rule = Rule { limits, meter: Meter::new(MeterKind::Deployment, "d"), ..rule(MeterKind::Deployment) };
    let theirs = Rate { window_ms: NOW - 30_000, requests: 4, tokens: 40, parallel: 2, ..Rate::default() };
    let rate = Rate { meter: rule.meter.hex(), place: true, ..theirs };
    set_remote(&shared, std::slice::from_ref(&rate), NOW);
    let counted = |now_ms| {
        let counts = counts(&shared, std::iter::once(&rule.meter), now_ms);
        [counts[0].requests, counts[0].tokens, counts[0].parallel]
    };
    assert_eq!((counted(NOW), counted(NOW + 5_001)), ([4, 40, 2], [0, 0, 0]));
    // While it counts, it is asked for, so that it is heard when the last request there is over.
    let asked = Rate { meter: rate.meter.clone(), place: true, ..Rate::default() };
    assert_eq!(open_rates(&shared, NOW), std::slice::from_ref(&asked));
    set_remote(&shared, &[asked], NOW);
    assert_eq!((counted(NOW), open_rates(&shared, NOW).len()), ([0, 0, 0], 0));
    // What was called here is told as a deployment's.
    set_remote(&shared, &[rate], NOW);
    let held = ask(&shared, &rule, estimate(7, 0), NOW).unwrap();
    assert_eq!(
        ask(&shared, &rule, estimate(7, 0), NOW).unwrap_err(),
        Why::Requests { resets_at_ms: NOW + 60_000 }
    );
    held.settle(&shared, 7, Money::ZERO, NOW);
    assert!(open_rates(&shared, NOW).iter().all(|rate| rate.place && rate.requests == 1));
    // Nothing is kept of one that is not called anywhere.
    let idle = Rate { meter: Meter::named("deployment:e").hex(), place: true, ..Rate::default() };
    set_remote(&shared, &[idle], NOW);
    assert_eq!(open_rates(&shared, NOW).len(), 1);
}

#[test]
fn other_nodes_are_not_told_of_lost_workers() {
    let shared = table();
    let rule = Rule { limits: Limits { parallel: Some(5), ..Limits::default() }, ..rule(MeterKind::Key) };
    std::mem::forget(ask(&shared, &rule, estimate(7, 0), NOW).unwrap());
    let told = |now_ms| {
        open_rates(&shared, now_ms).into_iter().map(|rate| (rate.tokens, rate.parallel)).collect::<Vec<_>>()
    };
    assert_eq!((told(NOW + 5_000), told(NOW + 5_001)), (vec![(7, 1)], vec![(0, 0)]));
    heartbeat(&shared, A, NOW + 61_000);
    assert_eq!(told(NOW + 61_000), [(7, 1)]);
    assert_eq!(told(NOW + 67_000), []);
}
