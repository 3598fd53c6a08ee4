//! What planning looks at: the world around a call, the call, and what its client says about routing.

use super::{affinity, cooldown, trace::Trace};
use crate::core::{
    config::Config,
    host::Store,
    model::fallback::{Fallback, Fallbacks},
    quota::Worker,
    random::Random,
};

/// What planning needs to know of the world.
pub struct World<'w> {
    /// The configuration.
    pub config: &'w Config,
    /// Cooldowns of all workers.
    pub shared: &'w dyn Store,
    /// Unix milliseconds.
    pub now_ms: u64,
    /// The worker's random numbers.
    pub random: &'w mut Random,
    /// The worker that plans, among all that count requests in flight.
    pub worker: Worker,
    /// Where each decision is recorded, when it is to be explained.
    pub trace: Option<&'w Trace>,
}

impl World<'_> {
    /// Records a decision, when decisions are to be explained.
    pub(super) fn tell(&self, what: impl FnOnce(&Trace)) {
        if let Some(trace) = self.trace {
            what(trace);
        }
    }

    /// Whether a deployment does not rest.
    pub fn is_available(&self, at: usize) -> bool {
        let deployment = self.config.deployments.get(at);
        deployment.is_some_and(|d| cooldown::cooling_down_until(self.shared, d, self.now_ms).is_none())
    }
}

/// What routing may look at of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutingInput {
    /// Tokens of the prompt, more or less.
    pub prompt_tokens: u64,
    /// Whether the request asks for a stream.
    pub streaming: bool,
    /// The caller's team.
    pub team: Option<String>,
    /// The caller may ask for any team's deployments, by their ids: it has the master key.
    pub any_team: bool,
    /// The request's tags, the key's and the team's. Only with `enable_tag_filtering`.
    pub tags: Vec<String>,
    /// `allowed_model_region` of the end user.
    pub region: Option<String>,
    /// Tokens of its messages, if it has any. Only with `enable_pre_call_checks`.
    pub messages: Option<Tokens>,
    /// What its cached parts are known by, the longest first. Only with `optional_pre_call_checks: [prompt_caching]`.
    pub cached: Vec<affinity::Fingerprint>,
    /// Whether the request has a `response_format`.
    pub response_format: bool,
}

/// An estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Probably so many.
    pub likely: u64,
    /// Certainly not fewer.
    pub least: u64,
}

/// What the client may say about routing, out of its request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Controls {
    /// `num_retries`.
    pub num_retries: Option<u32>,
    /// `fallbacks` as a list of names or parameter maps: used for every kind of error.
    pub fallbacks: Option<Vec<Fallback>>,
    /// `fallbacks` as router-style maps: in place of the configured ones.
    pub group_fallbacks: Option<Fallbacks>,
    /// `context_window_fallbacks`.
    pub context_window_fallbacks: Option<Fallbacks>,
    /// `content_policy_fallbacks`.
    pub content_policy_fallbacks: Option<Fallbacks>,
    /// `disable_fallbacks`.
    pub disable_fallbacks: bool,
    /// The call itself.
    pub call: RoutingInput,
}
