//! Retries, fallbacks, cooldowns, timeouts, and how one deployment of several is chosen.

use hashbrown::HashMap;

use super::{failure::Class, fallback::Fallbacks, limits::Allowance};

/// Retries, fallbacks, cooldowns, timeouts: `router_settings`, with `litellm_settings` where LiteLLM falls back to it.
#[derive(Clone, Debug)]
pub struct Router {
    /// Additional attempts in a group after the first (default 2).
    pub num_retries: u32,
    /// `timeout`/`request_timeout` in milliseconds (default 6,000,000).
    pub timeout_ms: u64,
    /// `stream_timeout` in milliseconds.
    pub stream_timeout_ms: Option<u64>,
    /// `fallbacks`, with `default_fallbacks` under `"*"`.
    pub fallbacks: Fallbacks,
    /// `context_window_fallbacks`; `None` when not configured (general fallbacks then apply).
    pub context_window_fallbacks: Option<Fallbacks>,
    /// `content_policy_fallbacks`; `None` when not configured.
    pub content_policy_fallbacks: Option<Fallbacks>,
    /// How many fallback groups a request may go through (default 5).
    pub max_fallbacks: u32,
    /// `retry_after`: the least backoff before a retry, in milliseconds.
    pub retry_after_ms: u64,
    /// `retry_policy`: retries by what went wrong, before `num_retries`.
    pub retry_policy: HashMap<Class, u32>,
    /// `model_group_retry_policy`: the same for single groups, before `retry_policy`.
    pub model_group_retry_policy: HashMap<String, HashMap<Class, u32>>,
    /// `allowed_fails_policy`: failures a minute before a cooldown, by what went wrong.
    pub allowed_fails_policy: HashMap<Class, u32>,
    /// `allowed_fails`; `None` when unset or 3, LiteLLM's default (its failure-rate rules then apply).
    pub allowed_fails: Option<u32>,
    /// `cooldown_time` in milliseconds (default 5,000).
    pub cooldown_ms: u64,
    /// `disable_cooldowns`.
    pub disable_cooldowns: bool,
    /// `routing_strategy`.
    pub strategy: Strategy,
    /// `routing_strategy_args`.
    pub latency: LatencyArgs,
    /// `default_max_parallel_requests`.
    pub max_parallel: Option<u64>,
    /// `provider_budget_config`, by brand.
    pub provider_budgets: HashMap<String, Allowance>,
    /// `enable_pre_call_checks`.
    pub pre_call_checks: bool,
    /// `optional_pre_call_checks` names `prompt_caching`: prompts go where they are cached.
    pub prompt_affinity: bool,
    /// `enable_tag_filtering`.
    pub tag_filtering: bool,
    /// `tag_filtering_match_any` (true): one common tag is enough.
    pub tags_match_any: bool,
}

impl Router {
    /// Whether deployments are left out by what a call is.
    pub fn has_filters(&self) -> bool {
        self.pre_call_checks || self.tag_filtering
    }
}

/// `router_settings.routing_strategy`: which deployment of a group is tried first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// `simple-shuffle`: by chance and weight.
    #[default]
    SimpleShuffle,
    /// `least-busy`: the fewest requests in flight.
    LeastBusy,
    /// `usage-based-routing`, in both versions: the fewest tokens in this minute.
    UsageBased,
    /// `latency-based-routing`: the quickest responses lately.
    LatencyBased,
    /// `cost-based-routing`: the lowest price.
    CostBased,
}

impl Strategy {
    /// Every name, and what it means.
    pub const NAMES: [(&str, Strategy); 6] = [
        ("simple-shuffle", Strategy::SimpleShuffle),
        ("least-busy", Strategy::LeastBusy),
        ("usage-based-routing", Strategy::UsageBased),
        ("usage-based-routing-v2", Strategy::UsageBased),
        ("latency-based-routing", Strategy::LatencyBased),
        ("cost-based-routing", Strategy::CostBased),
    ];

    /// The strategy's name in `routing_strategy`; the first when it has several.
    pub fn name(self) -> &'static str {
        Strategy::NAMES.iter().find(|(_, strategy)| *strategy == self).map_or("", |(name, _)| name)
    }

    /// Whether requests and tokens a minute are limits for it, and not only weights.
    pub fn minds_rates(self) -> bool {
        matches!(self, Strategy::UsageBased | Strategy::LatencyBased | Strategy::CostBased)
    }
}

/// `routing_strategy_args` of latency-based routing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatencyArgs {
    /// `ttl` in milliseconds (an hour): what is older is forgotten.
    pub ttl_ms: u64,
    /// `lowest_latency_buffer` (0): by what part of the lowest latency another may be above it and count as the same.
    pub buffer: f64,
    /// `max_latency_list_size` (10): how many responses are remembered.
    pub size: usize,
}
