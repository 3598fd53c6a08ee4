//! How often a model group is tried again, by what went wrong.

use hashbrown::HashMap;

use crate::core::{config::Config, error::Class};

/// However many retries are asked for, a group gets no more: beyond it a request is an endless loop.
pub const MOST: u32 = 100;

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
    pub fn is_retried(&self, class: Class, status: u16, group_size: usize) -> bool {
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
            Class::Api => !(400..500).contains(&status) || matches!(status, 408 | 409 | 429),
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
