//! Cooldowns in a virtual hour.

use std::cell::Cell;

use super::*;
use crate::core::{
    config::{self, Config},
    host::Version,
    store::Memory,
};

/// An hour after the epoch, at the start of a minute.
const NOW: u64 = 3_600_000;

fn load(params: &str, router: &str) -> Config {
    let yaml = format!(
        "model_list: [{{model_name: g, litellm_params: {{model: openai/m, api_key: k{params}}}}}]\nrouter_settings: {{{router}}}"
    );
    config::load(&yaml, &|_| None, &|_| None).unwrap().config
}

fn failure(status: u16, group_size: usize) -> FailedAttempt {
    let class = match status {
        0 => Class::ApiConnection,
        400 => Class::BadRequest,
        401 => Class::Authentication,
        403 => Class::PermissionDenied,
        404 => Class::NotFound,
        408 => Class::Timeout,
        429 => Class::RateLimit,
        503 => Class::ServiceUnavailable,
        418 => Class::Api,
        _ => Class::InternalServer,
    };
    FailedAttempt {
        class,
        status: Status::new(status).unwrap_or(class.status().into()),
        retry_after_ms: None,
        group_size,
    }
}

/// The cooldown that the last of some calls brings; 200 is a success.
fn cooldown_after(config: &Config, calls: impl IntoIterator<Item = u16>, group_size: usize) -> Option<u64> {
    let (shared, deployment) = (Memory::default(), &config.deployments[0]);
    let mut cooldown_ms = None;
    for status in calls {
        cooldown_ms = None;
        match status {
            200 => succeeded(&shared, deployment, NOW),
            _ => cooldown_ms = failed(&shared, &config.router, deployment, failure(status, group_size), NOW),
        }
    }
    let until = cooling_down_until(&shared, deployment, NOW);
    assert!(cooldown_ms.is_none() || until.is_some());
    cooldown_ms
}

#[test]
fn one_failure() {
    let config = load("", "");
    let rows = [
        ("a rate limit, with others", 429, 2, true),
        ("a rate limit, alone", 429, 1, false),
        ("a refused key", 401, 1, true),
        ("a missing model", 404, 1, true),
        ("a failing server", 500, 2, false),
        ("a time-out", 408, 2, false),
        ("a bad request", 400, 2, false),
        ("a forbidden one", 403, 2, false),
        ("an odd one", 418, 2, false),
        ("no connection", 0, 2, false),
    ];
    for (name, status, size, cools_down) in rows {
        assert_eq!(cooldown_after(&config, [status], size), cools_down.then_some(5_000), "{name}");
    }
}

#[test]
fn a_minute_of_failures() {
    let config = load("", "");
    let calls = |good: usize, bad: usize| [vec![200; good], vec![500; bad]].concat();
    let rows = [
        ("four say nothing", calls(0, 4), 2, false),
        ("five of five", calls(0, 5), 2, true),
        ("three of five", calls(2, 3), 2, true),
        ("half is not more than half", calls(3, 3), 2, false),
        ("alone", calls(0, 900), 1, false),
        ("alone, a thousand", calls(0, 1_000), 1, true),
        ("alone, a thousand and a success", calls(1, 1_100), 1, false),
        ("bad requests do not count", vec![400; 50], 2, false),
    ];
    for (name, calls, size, cools_down) in rows {
        assert_eq!(cooldown_after(&config, calls, size).is_some(), cools_down, "{name}");
    }
}

#[test]
fn a_new_minute_counts_anew() {
    let (config, shared) = (load("", ""), Memory::default());
    let fail = |now| failed(&shared, &config.router, &config.deployments[0], failure(500, 2), now).is_some();
    assert!((0..4).all(|_| !fail(NOW + 59_000)));
    assert!((0..4).all(|_| !fail(NOW + 60_000)));
    assert!(fail(NOW + 119_999), "five in one minute");
}

#[test]
fn allowed_fails_and_its_policy() {
    let policy = "allowed_fails_policy: {RateLimitErrorAllowedFails: 0, InternalServerErrorAllowedFails: 2}";
    let with_limit = &format!("{policy}, allowed_fails: 1");
    let rows = [
        ("not more than allowed", "allowed_fails: 2", vec![500; 2], false),
        ("more than allowed", "allowed_fails: 2", vec![500; 3], true),
        ("a refused key is a failure like others", "allowed_fails: 2", vec![401], false),
        ("none allowed", "allowed_fails: 0", vec![500], true),
        ("3 is the default and no limit", "allowed_fails: 3", vec![500; 900], false),
        ("successes change nothing", "allowed_fails: 1", vec![500, 200, 200, 200, 500], true),
        ("by class: none", policy, vec![429], true),
        ("by class: two", policy, vec![500; 2], false),
        ("by class: the third", policy, vec![500; 3], true),
        ("another class has the default of three", policy, vec![503; 3], false),
        ("and cools down after it", policy, vec![503; 4], true),
        ("another class has the general limit", with_limit, vec![503; 2], true),
        ("bad requests are not counted", policy, vec![400; 9], false),
    ];
    for (name, settings, calls, cools_down) in rows {
        assert_eq!(cooldown_after(&load("", settings), calls, 1).is_some(), cools_down, "{name}");
    }
}

#[test]
fn allowed_fails_count_within_the_cooldown_time() {
    let (config, shared) = (load("", "allowed_fails: 1, cooldown_time: 30"), Memory::default());
    let fail = |now| failed(&shared, &config.router, &config.deployments[0], failure(500, 1), now);
    assert_eq!([fail(NOW), fail(NOW + 30_000), fail(NOW + 59_999)], [None, None, Some(30_000)]);
}

#[test]
fn how_long_a_rest_is() {
    let rows = [
        ("LiteLLM's default", "", "", None, Some(5_000)),
        ("the router's", "", "cooldown_time: 60", None, Some(60_000)),
        ("the provider's own wish", "", "cooldown_time: 60", Some(7_000), Some(7_000)),
        ("the deployment's", ", cooldown_time: 2", "cooldown_time: 60", Some(7_000), Some(2_000)),
        ("never", ", cooldown_time: 0", "", None, None),
        ("never, by the router", "", "cooldown_time: 0", None, None),
        ("switched off", "", "disable_cooldowns: true", None, None),
    ];
    for (name, params, router, retry_after_ms, expected) in rows {
        let (config, shared) = (load(params, router), Memory::default());
        let deployment = &config.deployments[0];
        let failure = FailedAttempt { retry_after_ms, ..failure(401, 1) };
        assert_eq!(failed(&shared, &config.router, deployment, failure, NOW), expected, "{name}");
        assert_eq!(cooling_down_until(&shared, deployment, NOW), expected.map(|ms| NOW + ms), "{name}");
        let end = NOW + expected.unwrap_or(0);
        assert_eq!(cooling_down_until(&shared, deployment, end), None, "{name}: it ends");
    }
}

#[test]
fn a_later_shorter_rest_does_not_cut_a_longer_one() {
    let (config, shared) = (load("", ""), Memory::default());
    let deployment = &config.deployments[0];
    for (wait, until) in [(60_000, NOW + 60_000), (1_000, NOW + 60_000)] {
        let failure = FailedAttempt { retry_after_ms: Some(wait), ..failure(401, 1) };
        failed(&shared, &config.router, deployment, failure, NOW);
        assert_eq!(cooling_down_until(&shared, deployment, NOW), Some(until));
    }
}

/// A store where other workers write in between: the first writes of every update fail.
struct Contended {
    inner: Memory,
    each: u32,
    left: Cell<u32>,
}

impl Store for Contended {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        self.inner.get(key)
    }

    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> bool {
        if self.left.get() > 0 {
            self.left.set(self.left.get() - 1);
            return false;
        }
        self.left.set(self.each);
        self.inner.set(key, value, version)
    }

    fn secret(&self) -> crate::core::host::Secret {
        crate::core::store::read_secret(self).unwrap_or_default()
    }

    fn succeeded(&self, deployment: &str, minute: u64) {
        self.inner.succeeded(deployment, minute);
    }

    fn successes(&self, deployment: &str, minute: u64) -> u64 {
        self.inner.successes(deployment, minute)
    }
}

#[test]
fn a_contended_store_loses_nothing_and_never_spins() {
    let config = load("", "allowed_fails: 4");
    for (each, works) in [(0, true), (1, true), (31, true), (32, false), (u32::MAX, false)] {
        let shared = Contended { inner: Memory::default(), each, left: Cell::new(each) };
        let cools_down: Vec<bool> = (0..5)
            .map(|_| failed(&shared, &config.router, &config.deployments[0], failure(500, 1), NOW).is_some())
            .collect();
        if works {
            assert_eq!(cools_down, [false, false, false, false, true], "{each} lost writes each");
        } else {
            assert!(!cools_down[4], "{each} lost writes each: given up");
        }
    }
}

#[test]
fn what_is_stored_may_be_anything() {
    let (config, shared) = (load("", ""), Memory::default());
    let deployment = &config.deployments[0];
    for bytes in [&b""[..], b"x", &[255; 7], &[255; 48], &[255; 500]] {
        shared.set(&deployment.cooldown_key, bytes, None);
        cooling_down_until(&shared, deployment, NOW);
        succeeded(&shared, deployment, NOW);
        failed(&shared, &config.router, deployment, failure(429, 2), NOW);
    }
    let record = Record { until_ms: 1, minute_ms: 2, failed: 4, window_ms: 5, window_failures: 6 };
    assert_eq!(Record::decode(Some(&record.encode())), record);
}
