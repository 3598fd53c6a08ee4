//! How often a model group is tried again, by what went wrong.

use hashbrown::HashMap;

use crate::core::{
    config::Config,
    model::{failure::Class, status::Status},
};

/// However many retries are asked for, a group gets no more: beyond it a request is an endless loop.
pub const MOST: u32 = 100;

/// The longest wait that a provider's `Retry-After` is followed for, and the longest of our own, in milliseconds.
const LONGEST_ASKED_MS: u64 = 60_000;
const LONGEST_MS: u64 = 8_000;
/// The first wait of our own; each one doubles it.
const FIRST_MS: u64 = 500;

/// How many seconds to wait before the deployment that just failed is tried again, `used` retries having been made: as long as it
/// says, else twice as long each time and at least `retry_after` of the configuration. Whole seconds are what Envoy reads; it
/// adds up to half as much by chance.
pub fn wait_seconds(used: u32, asked_ms: Option<u64>, least_ms: u64) -> u64 {
    let asked = asked_ms.filter(|ms| (1..=LONGEST_ASKED_MS).contains(ms));
    let own =
        || FIRST_MS.saturating_mul(1_u64.checked_shl(used).unwrap_or(u64::MAX)).max(least_ms).min(LONGEST_MS);
    asked.unwrap_or_else(own).div_ceil(1_000)
}

/// What decides about the retries of one group in one request.
#[derive(Clone, Copy)]
pub struct Rules<'r> {
    /// The configuration.
    pub config: &'r Config,
    /// `num_retries` of the request.
    pub asked: Option<u32>,
    /// The name that was asked for, and the group that serves it: `model_group_retry_policy` goes by either.
    pub names: [&'r str; 2],
}

impl Rules<'_> {
    /// How many retries the group has in all when a call of `deployment` fails with `class`: the request's number, else the
    /// deployment's own, else the policy's for the class, else the router's.
    pub fn allowed(&self, class: Class, deployment: usize) -> u32 {
        let own = || self.config.deployments.get(deployment).and_then(|d| d.num_retries);
        self.asked
            .or_else(own)
            .or_else(|| by_class(self.policy()?, class))
            .unwrap_or(self.config.router.num_retries)
            .min(MOST)
    }

    /// The most retries that any sequence of failures on these deployments can use.
    pub fn most(&self, deployments: &[usize]) -> u32 {
        if let Some(asked) = self.asked {
            return asked.min(MOST);
        }
        let by_policy = self.policy().and_then(|policy| policy.values().max()).copied().unwrap_or(0);
        let without_own = by_policy.max(self.config.router.num_retries);
        let own = |&at: &usize| self.config.deployments.get(at).and_then(|d| d.num_retries);
        deployments.iter().map(|at| own(at).unwrap_or(without_own)).max().unwrap_or(0).min(MOST)
    }

    /// Whether a failure is one to try again after at all. What is wrong with the request is wrong everywhere, unless a policy
    /// says by name that it is to be retried.
    pub fn is_retried(&self, class: Class, status: Option<Status>, group_size: usize) -> bool {
        match class {
            Class::NotFound => false,
            Class::BadRequest
            | Class::ContextWindowExceeded
            | Class::ContentPolicyViolation
            | Class::UnsupportedParams
            | Class::UnprocessableEntity => {
                self.policy().and_then(|policy| by_class(policy, class)).is_some()
            }
            Class::Authentication | Class::PermissionDenied => group_size > 1,
            Class::Api => status
                .is_none_or(|status| !status.is_client_error() || matches!(status.get(), 408 | 409 | 429)),
            Class::Timeout
            | Class::RateLimit
            | Class::InternalServer
            | Class::ApiConnection
            | Class::ServiceUnavailable => true,
        }
    }

    /// The group's own policy stands in for the general one as a whole.
    fn policy(&self) -> Option<&HashMap<Class, u32>> {
        let router = &self.config.router;
        let of_group = self.names.iter().find_map(|name| router.model_group_retry_policy.get(*name));
        Some(of_group.unwrap_or(&router.retry_policy)).filter(|policy| !policy.is_empty())
    }
}

/// A policy's number for a class. `BadRequestError` stands for its subclasses too, and before their own.
pub fn by_class(policy: &HashMap<Class, u32>, class: Class) -> Option<u32> {
    let bad_request = matches!(
        class,
        Class::BadRequest
            | Class::ContextWindowExceeded
            | Class::ContentPolicyViolation
            | Class::UnsupportedParams
    );
    let general = if bad_request { policy.get(&Class::BadRequest) } else { None };
    general.or_else(|| policy.get(&class)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end() {
        for (used, asked_ms, least_ms, expected) in [
            (0, None, 0, 1),
            (1, None, 0, 1),
            (2, None, 0, 2),
            (3, None, 0, 4),
            (4, None, 0, 8),
            (5, None, 0, 8),
            (63, None, 0, 8),
            (u32::MAX, None, 0, 8),
            (0, None, 2_500, 3),
            (0, None, 60_000, 8),
            (3, Some(1_500), 0, 2),
            (0, Some(60_000), 0, 60),
            (0, Some(60_001), 0, 1),
            (2, Some(0), 0, 2),
        ] {
            assert_eq!(wait_seconds(used, asked_ms, least_ms), expected, "{used} {asked_ms:?} {least_ms}");
        }
    }
}
