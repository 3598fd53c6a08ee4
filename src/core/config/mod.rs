//! What a LiteLLM `config.yaml` means: the checked configuration that everything else works with.
//!
//! [`load`](load()) makes it from YAML text and an environment look-up, together with a [`mod@report`]:
//! one verdict per setting that the text contains. Nothing in here reads a file, the environment or a clock.

mod endpoint;
mod entry;
mod global;
mod keys;
mod ledger;
pub mod limits;
pub mod load;
pub mod lookup;
mod prices;
mod read;
mod redis;
pub mod report;
pub mod seal;
pub mod settings;
mod wildcard;
mod yaml;

use std::{fmt, sync::Arc};

use hashbrown::HashMap;
use serde_json::{Map, Value};

use crate::core::{
    access::grant::{Budget, Grant, Limits},
    error::Class,
    provider::{Brand, infer},
    quota::Rule,
};

pub use entry::LEFT_OUT;
pub use ledger::{HealthChecks, Ledger};
pub use limits::{Allowance, LatencyArgs, Strategy};
pub use load::{Loaded, Problem, load};
pub use lookup::Resolved;
pub use redis::Redis;
pub use report::{ENVIRONMENT, LeftOut, Report, Row};
pub use yaml::{Read, Repeated, quoted_texts, read as read_yaml};

/// The longest time-out there is, in milliseconds: 24 days. Longer ones count as this.
pub const MAX_TIMEOUT_MS: u64 = 24 * 86_400_000;

/// A configuration that can serve.
#[derive(Debug)]
pub struct Config {
    /// Every deployment that can be called, in file order. The index into this list names a deployment everywhere else.
    pub deployments: Vec<Deployment>,
    /// Exact model groups: `model_name` to its deployments, in file order.
    pub groups: HashMap<String, Vec<usize>>,
    /// Group names in file order (what `/models` lists, and where the default model comes from).
    pub group_order: Vec<String>,
    /// `model_name`s with `*`, in the order LiteLLM tries them (longest first).
    pub wildcards: Vec<Wildcard>,
    /// `router_settings.model_group_alias`.
    pub aliases: HashMap<String, Alias>,
    /// `litellm_settings.model_alias_map`: a flat rename applied before everything else.
    pub renames: HashMap<String, String>,
    /// `general_settings.completion_model`: overrides what the client asked for.
    pub forced_model: Option<String>,
    /// The model for a request that names none: CLI `--model`, else the first group of the file.
    pub default_model: Option<String>,
    /// Retries, fallbacks, cooldowns, timeouts.
    pub router: Router,
    /// `general_settings` and what is global in `litellm_settings`.
    pub general: General,
    /// What only the ledger works with.
    pub ledger: Ledger,
    /// Tollgate's own settings.
    pub tollgate: TollgateSettings,
    /// Groups (and wildcards) named by the file none of whose deployments can be called: name to the reason. Such a name
    /// never falls through to a broader pattern: that would send its requests to somebody else.
    pub unavailable: HashMap<String, String>,
    /// What [`Config::resolve`] looks names up in.
    pub(crate) index: lookup::Index,
    /// What [`Config::price`] has found.
    pub(crate) prices: prices::Prices,
}

/// A `model_name` with `*`.
#[derive(Clone, Debug)]
pub struct Wildcard {
    /// The pattern as written.
    pub pattern: String,
    /// Deployments that share it; none when all are [unavailable](Config::unavailable).
    pub deployments: Vec<usize>,
}

/// An entry of `model_group_alias`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The group it stands for.
    pub model: String,
    /// Not listed by `/models`.
    pub hidden: bool,
}

/// One `model_list` entry that can be called.
#[derive(Debug)]
pub struct Deployment {
    /// `model_info.id`, or LiteLLM's hash of the entry.
    pub id: String,
    /// Its `model_name`.
    pub group: String,
    /// Envoy's cluster for it, and its name in filter state.
    pub cluster: String,
    /// Who serves it.
    pub brand: &'static Brand,
    /// True for the deployments that a bare `model: "*"` expands to, one for each brand: it serves only names that are
    /// inferred to be of its brand.
    pub only_inferred: bool,
    /// The model at the provider without its brand prefix; may hold `*` (see [`Deployment::model_for`]).
    pub model: String,
    /// `litellm_params.model` as written (price look-up, `/model/info`).
    pub litellm_model: String,
    /// Where it is.
    pub endpoint: Endpoint,
    /// `api_key`, or the brand's from the environment.
    pub api_key: Option<Secret>,
    /// `azure_ad_token`.
    pub azure_ad_token: Option<Secret>,
    /// `api_version` (Azure).
    pub api_version: Option<String>,
    /// `organization` (OpenAI).
    pub organization: Option<String>,
    /// `headers` and `extra_headers`, values may be secrets.
    pub headers: Vec<(String, Secret)>,
    /// Default parameters: everything in `litellm_params` that is not a setting of ours. A value in the request wins.
    pub defaults: Map<String, Value>,
    /// `extra_body`: members put into the provider's body last.
    pub extra_body: Map<String, Value>,
    /// `drop_params`; `None` leaves it to [`General::drop_params`].
    pub drop_params: Option<bool>,
    /// `additional_drop_params`.
    pub additional_drop_params: Vec<String>,
    /// `allowed_openai_params`.
    pub allowed_openai_params: Vec<String>,
    /// `timeout` (or `request_timeout`) in milliseconds.
    pub timeout_ms: Option<u64>,
    /// `stream_timeout` in milliseconds.
    pub stream_timeout_ms: Option<u64>,
    /// `num_retries`.
    pub num_retries: Option<u32>,
    /// `weight`.
    pub weight: Option<f64>,
    /// `rpm` in `litellm_params` (the only place simple-shuffle reads).
    pub rpm: Option<u64>,
    /// `tpm` in `litellm_params`.
    pub tpm: Option<u64>,
    /// `rpm` and `tpm` as usage, latency and cost-based routing read them: beside `model_name`, in `litellm_params`, in
    /// `model_info`.
    pub rates: Limits,
    /// `max_parallel_requests`.
    pub max_parallel: Option<u64>,
    /// `max_budget` and `budget_duration`.
    pub budget: Option<Allowance>,
    /// What every attempt on it comes under: its own limits and budget, its provider's budget. None for most.
    pub rules: Vec<Rule>,
    /// What cost-based routing compares (see [`Price::unit`](crate::core::cost::price::Price::unit)); 0 with other strategies.
    pub unit_price: u64,
    /// Which calls it is for.
    pub choice: Choice,
    /// What its cooldown is kept by, see [`cooldown`](crate::core::route::cooldown).
    pub cooldown_key: String,
    /// Its base URL without a query, as headers and logs show it.
    pub api_base: String,
    /// `cooldown_time` in milliseconds; 0 never cools it down.
    pub cooldown_ms: Option<u64>,
    /// `mock_response`: answer without calling.
    pub mock_response: Option<Value>,
    /// `mock_timeout`.
    pub mock_timeout: bool,
    /// `initial_prompt_value`, `roles`, `final_prompt_value`, `bos_token`, `eos_token`.
    pub template: Option<PromptTemplate>,
    /// `merge_reasoning_content_in_choices`.
    pub merge_reasoning: bool,
    /// `model_info` as written, with `id`.
    pub model_info: Map<String, Value>,
    /// Price fields set in `litellm_params` or `model_info` (`litellm_params` wins), as decimal text.
    pub prices: Vec<(String, String)>,
    /// `model_info.base_model` (or `litellm_params.base_model`).
    pub base_model: Option<String>,
    /// `model_info.health_check_model` without its brand: what a deployment whose model holds `*` is asked for when somebody
    /// calls it by its id.
    pub health_check_model: Option<String>,
    /// `litellm_params` as `/model/info` may show them: without keys, credentials, header values and without anything
    /// that came from the environment or was sealed.
    pub shown_params: Map<String, Value>,
}

/// Which calls a deployment is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// `tags`.
    pub tags: Vec<String>,
    /// `order`: lower ones first, with `enable_pre_call_checks`.
    pub order: Option<u64>,
    /// `region_name`.
    pub region: Option<String>,
    /// The longest prompt: `max_input_tokens` of `model_info`, else what the price data knows. Only with
    /// `enable_pre_call_checks`.
    pub max_input: Option<u64>,
    /// `model_info.team_id`: nobody else may call it.
    pub team: Option<String>,
    /// `model_info.team_public_model_name`: what that team calls it by.
    pub team_name: Option<String>,
}

/// Where a provider is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `https`.
    pub tls: bool,
    /// Host name or address, without brackets or port.
    pub host: String,
    /// Port, filled in from the scheme when the URL has none.
    pub port: u16,
    /// Path before the API's own (`/v1`), without a slash at its end; empty when there is none.
    pub path: String,
    /// Query of the base URL, without `?`.
    pub query: Option<String>,
    /// Verify the certificate (`ssl_verify`).
    pub verify: bool,
}

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

/// Group name to the ordered list of what to try instead.
pub type Fallbacks = HashMap<String, Vec<Fallback>>;

/// One thing to try instead: a group, with request members to replace on the way.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Fallback {
    /// The model group.
    pub model: String,
    /// Other members of a map entry (`{"model": "x", "messages": […]}`).
    pub overrides: Map<String, Value>,
}

/// Settings that are not about one deployment.
#[derive(Clone, Debug, Default)]
pub struct General {
    /// `general_settings.master_key` (or `LITELLM_MASTER_KEY`). Without one everybody is admin.
    pub master_key: Option<Secret>,
    /// `dangerously_permit_weak_or_unset_master_key`: it may start without a master key although its database has keys.
    pub may_be_open: bool,
    /// `litellm_key_header_name`, lower-case.
    pub key_header: Option<String>,
    /// `litellm_settings.drop_params`.
    pub drop_params: bool,
    /// `litellm_settings.modify_params`.
    pub modify_params: bool,
    /// `max_request_size_mb`, in bytes.
    pub max_request_bytes: Option<u64>,
    /// Cap in bytes for a buffered answer whose headers are held until its cost is known (`tollgate_settings.max_held_answer_bytes`).
    pub max_held_answer_bytes: u64,
    /// `forward_client_headers_to_llm_api`.
    pub forward_client_headers: bool,
    /// `litellm_settings.add_function_to_prompt`.
    pub add_function_to_prompt: bool,
    /// `general_settings.allow_client_side_credentials`.
    pub allow_client_credentials: bool,
    /// `litellm_settings.require_auth_for_metrics_endpoint`.
    pub auth_metrics: bool,
    /// SHA-256 of the master key in lower-case hexadecimal: who it is in usage events. Empty without a master key.
    pub master_hash: String,
    /// There is a ledger to ask for keys, because the environment has the secret for it.
    pub has_ledger: bool,
    /// `general_settings.keys`: keys that need no ledger, by their hash.
    pub keys: HashMap<String, Arc<Grant>>,
    /// `user_api_key_cache_ttl` in milliseconds (60,000): how long a copy of the ledger's record is good.
    pub key_ttl_ms: u64,
    /// `allow_requests_on_db_unavailable`: unknown keys pass while the ledger cannot be asked.
    pub pass_without_ledger: bool,
    /// `enforce_user_param`.
    pub enforce_user: bool,
    /// `enforced_params`.
    pub enforced_params: Vec<String>,
    /// `user_header_name`, lower-case: the header that names the end user.
    pub user_header: Option<String>,
    /// `allowed_routes`; empty is all.
    pub allowed_routes: Vec<String>,
    /// `admin_only_routes`.
    pub admin_only_routes: Vec<String>,
    /// `public_routes`.
    pub public_routes: Vec<String>,
    /// `allowed_ips`; empty is all.
    pub allowed_ips: Vec<String>,
    /// `use_x_forwarded_for`: that header names the client.
    pub use_forwarded_for: bool,
    /// `tollgate_settings.xff_num_trusted_hops` (1): how many proxies before this gateway are to be believed.
    pub trusted_hops: usize,
    /// `tollgate_settings.allow_client_mocks` is false: virtual keys may not ask for mocks.
    pub refuse_client_mocks: bool,
    /// `tollgate_settings.max_client_retries`: a request gets no more retries by asking for them.
    pub max_client_retries: Option<u32>,
    /// `global_max_parallel_requests`.
    pub max_parallel: Option<u64>,
    /// `max_parallel_requests`: of every key that has no such limit of its own.
    pub key_max_parallel: Option<u64>,
    /// `litellm_settings.max_budget` and `budget_duration`: of the whole gateway.
    pub budget: Budget,
    /// `litellm_settings.max_end_user_budget` in 10⁻¹² dollars, or that there is a `max_end_user_budget_id`: every end user
    /// has a budget, so everyone's record has to be asked for.
    pub end_users_have_budgets: bool,
    /// `token_rate_limit_type`: the tokens that count against tokens a minute.
    pub counted_tokens: CountedTokens,
}

/// The tokens that count against tokens a minute (`token_rate_limit_type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CountedTokens {
    /// All.
    #[default]
    Total,
    /// The prompt's.
    Input,
    /// The answer's.
    Output,
}

/// Tollgate's own settings: `tollgate_settings`, a block that LiteLLM ignores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TollgateSettings {
    /// Cap in bytes for a buffered answer whose headers wait for its cost (262,144).
    pub max_held_answer_bytes: u64,
    /// Largest request body in bytes that is buffered for a retry (33,554,432).
    pub request_body_buffer_limit_bytes: u64,
    /// How many key records each worker keeps (10,000).
    pub key_cache_size: usize,
    /// Where the access log goes: a path or `stdout` (the default).
    pub access_log: String,
    /// `drain_timeout` in milliseconds: how long requests in flight may go on after SIGTERM (600,000).
    pub drain_timeout_ms: u64,
    /// `upload_timeout` in milliseconds: how long a request may take to arrive whole (120,000).
    pub upload_timeout_ms: u64,
    /// `max_memory_bytes`: how much memory Envoy may take. None is half of what the machine or the container has.
    pub max_memory_bytes: Option<u64>,
    /// `ledger_url`: a ledger that runs elsewhere. None is one of this gateway's own.
    pub ledger_url: Option<Endpoint>,
}

/// `initial_prompt_value`, `roles`, `final_prompt_value`, `bos_token`, `eos_token`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptTemplate {
    /// Text before the first message.
    pub initial: String,
    /// Text after the last message.
    pub last: String,
    /// Put at the start, and again where a user turn follows an assistant turn.
    pub bos: String,
    /// Put after each assistant turn.
    pub eos: String,
    /// Role to (text before, text after).
    pub roles: HashMap<String, (String, String)>,
}

/// A value that must never be printed: provider keys, the master key, header values.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The value itself, for the one place that sends or compares it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Config {
    /// The largest request body in bytes that is taken.
    pub fn request_limit(&self) -> u64 {
        let limit = self.tollgate.request_body_buffer_limit_bytes;
        limit.max(self.general.max_request_bytes.unwrap_or_default())
    }
}

impl Deployment {
    /// Whether its model holds `*`, so that the caller says which one is called.
    pub fn has_any_model(&self) -> bool {
        self.model.contains('*')
    }

    /// The model to ask the provider for: captures of the requested name's wildcard fill the `*`s left to right; more
    /// captures than `*`s means the whole requested name (without the brand's prefix); no `*` at all means the model as
    /// written (LiteLLM's rule). A variant of a bare `*` asks for the name without its provider. Called by its id, a
    /// deployment whose model holds `*` asks for its `health_check_model`.
    pub fn model_for(&self, requested: &str, captures: &[&str]) -> String {
        if let Some(model) = self.health_check_model.as_ref().filter(|_| requested == self.id)
            && self.has_any_model()
        {
            return model.clone();
        }
        if self.only_inferred {
            return infer(requested, None, None).map_or_else(|_| requested.to_owned(), |(_, rest)| rest);
        }
        let holes = self.model.matches('*').count();
        if holes == 0 {
            return self.model.clone();
        }
        if captures.len() > holes {
            let rest = requested.strip_prefix(self.brand.name).and_then(|rest| rest.strip_prefix('/'));
            return rest.unwrap_or(requested).to_owned();
        }
        let mut captures = captures.iter();
        let mut model = String::with_capacity(self.model.len() + requested.len());
        for (at, part) in self.model.split('*').enumerate() {
            if at > 0 {
                model.push_str(captures.next().copied().unwrap_or("*"));
            }
            model.push_str(part);
        }
        model
    }
}
