//! Cooldowns: which deployments rest after failures, known to all workers.
//!
//! One small record per deployment in shared data. Rules follow LiteLLM: without a configured `allowed_fails` a rate limit
//! (when there is another deployment), a refused key, a missing model, or more than half of a minute's calls failing sends
//! a deployment to rest; with one (or an `allowed_fails_policy`), more failures than it allows within the cooldown time do.

use super::retries;
use crate::core::{
    host::{Store, Topic},
    model::{deployment::Deployment, failure::Class, router::Router, status::Status},
    store,
};

/// Below this many calls in a minute a failure rate says nothing.
const RATE_NEEDS_CALLS: u64 = 5;
/// A minute of nothing but failures sends even a lone deployment to rest, from this many calls on.
const ALL_FAILED_NEEDS_CALLS: u64 = 1_000;
/// LiteLLM's own default, which means the same as not setting it.
const DEFAULT_ALLOWED_FAILS: u32 = 3;
const MINUTE_MS: u64 = 60_000;

/// What is remembered of one deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    /// Resting until this time (Unix milliseconds).
    until_ms: u64,
    /// Start of the minute that `failed` counts.
    minute_ms: u64,
    failed: u32,
    /// Start of the window that `window_failures` counts against `allowed_fails`.
    window_ms: u64,
    window_failures: u32,
}

impl Record {
    fn decode(bytes: Option<&[u8]>) -> Record {
        let Some(bytes) = bytes else { return Record::default() };
        let mut words = bytes.chunks_exact(8).filter_map(|word| word.try_into().ok()).map(u64::from_le_bytes);
        let mut next = || words.next().unwrap_or(0);
        Record {
            until_ms: next(),
            minute_ms: next(),
            failed: next() as u32,
            window_ms: next(),
            window_failures: next() as u32,
        }
    }

    fn encode(self) -> Vec<u8> {
        [self.until_ms, self.minute_ms, self.failed.into(), self.window_ms, self.window_failures.into()]
            .into_iter()
            .flat_map(u64::to_le_bytes)
            .collect()
    }

    /// Starts a new minute when the old one is over.
    fn turn(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.minute_ms) >= MINUTE_MS {
            (self.minute_ms, self.failed) = (now_ms - now_ms % MINUTE_MS, 0);
        }
    }
}

/// One failed call, as far as cooldowns care.
#[derive(Clone, Copy, Debug)]
pub struct FailedAttempt {
    /// What went wrong.
    pub class: Class,
    /// The provider's status; that of the class when there was none.
    pub status: Status,
    /// `retry-after` of the response.
    pub retry_after_ms: Option<u64>,
    /// How many deployments the group has.
    pub group_size: usize,
}

/// When a deployment's rest ends; `None` when it may be called now.
pub fn cooling_down_until(shared: &dyn Store, deployment: &Deployment, now_ms: u64) -> Option<u64> {
    let bytes = shared.look(Topic::Cooldown, &deployment.cooldown_key)?;
    Some(Record::decode(Some(&bytes)).until_ms).filter(|&until| until > now_ms)
}

/// Notes a call that went well.
pub fn succeeded(shared: &dyn Store, deployment: &Deployment, now_ms: u64) {
    shared.succeeded(&deployment.id, now_ms / MINUTE_MS);
}

/// Notes a failed call and returns the milliseconds of rest that it brought, if any.
pub fn failed(
    shared: &dyn Store,
    router: &Router,
    deployment: &Deployment,
    failure: FailedAttempt,
    now_ms: u64,
) -> Option<u64> {
    let cooldown_ms = deployment.cooldown_ms.or(failure.retry_after_ms).unwrap_or(router.cooldown_ms);
    if router.disable_cooldowns || cooldown_ms == 0 || !counts(failure) {
        return None;
    }
    let succeeded = shared.successes(&deployment.id, now_ms / MINUTE_MS);
    let cooldown_ms = store::update(shared, &deployment.cooldown_key, |bytes| {
        let mut record = Record::decode(bytes);
        record.turn(now_ms);
        record.failed = record.failed.saturating_add(1);
        let cools_down = match allowed_fails(router, failure.class) {
            Some(allowed) => count_failure(&mut record, cooldown_ms, now_ms) > allowed,
            None => by_rate(record.failed, succeeded, failure),
        };
        if cools_down {
            record.until_ms = record.until_ms.max(now_ms.saturating_add(cooldown_ms));
            record.window_failures = 0;
        }
        (record.encode(), cools_down.then_some(cooldown_ms))
    })
    .flatten();
    if cooldown_ms.is_some() {
        shared.touch(Topic::Cooldown);
    }
    cooldown_ms
}

/// Failures that are the client's doing say nothing about the deployment, and neither does our own failed connection
/// attempt (LiteLLM leaves that to retries).
fn counts(failure: FailedAttempt) -> bool {
    match failure.class {
        Class::ApiConnection => false,
        Class::Timeout => true,
        _ => !failure.status.is_client_error() || matches!(failure.status.get(), 401 | 404 | 408 | 429),
    }
}

/// One more failure in the window; returns how many there are.
fn count_failure(record: &mut Record, window_ms: u64, now_ms: u64) -> u32 {
    if now_ms.saturating_sub(record.window_ms) >= window_ms {
        (record.window_ms, record.window_failures) = (now_ms, 0);
    }
    record.window_failures = record.window_failures.saturating_add(1);
    record.window_failures
}

/// How many failures of a class a deployment may have within its cooldown time; `None` when nothing is configured about it
/// and [`by_rate`] decides.
fn allowed_fails(router: &Router, class: Class) -> Option<u32> {
    let set = router.allowed_fails.filter(|&fails| fails != DEFAULT_ALLOWED_FAILS);
    if router.allowed_fails_policy.is_empty() {
        return set;
    }
    let by_policy = retries::by_class(&router.allowed_fails_policy, class);
    Some(by_policy.or(set).unwrap_or(DEFAULT_ALLOWED_FAILS))
}

/// LiteLLM's rules when `allowed_fails` is not set.
fn by_rate(failed: u32, succeeded: u64, failure: FailedAttempt) -> bool {
    let failed = u64::from(failed);
    let calls = failed.saturating_add(succeeded);
    let others = failure.group_size > 1;
    let permanent = matches!(failure.status.get(), 401 | 404);
    let mostly_failing = others && calls >= RATE_NEEDS_CALLS && failed.saturating_mul(2) > calls;
    let only_failing = succeeded == 0 && calls >= ALL_FAILED_NEEDS_CALLS;
    permanent || (others && failure.class == Class::RateLimit) || mostly_failing || only_failing
}

#[cfg(test)]
mod tests;
