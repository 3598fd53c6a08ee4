//! One `model_list` entry that can be called.

use serde_json::{Map, Value};

use super::{
    accepts::Accepts,
    brand::Brand,
    endpoint::Endpoint,
    limits::{Allowance, Limits},
    rule::Rule,
    secret::Secret,
    template::PromptTemplate,
};

/// One `model_list` entry that can be called.
#[derive(Debug)]
pub struct Deployment {
    /// `model_info.id`, or LiteLLM's hash of the entry.
    pub id: String,
    /// The entry's `model_name`.
    pub group: String,
    /// Envoy's cluster for it, and its name in filter state.
    pub cluster: String,
    /// The provider's brand.
    pub brand: &'static Brand,
    /// True for the deployments that a bare `model: "*"` expands to, one for each brand: it serves only names that are
    /// inferred to be of its brand.
    pub only_inferred: bool,
    /// The model at the provider without its brand prefix; may hold `*` (see [`Deployment::model_for`]).
    pub model: String,
    /// What its model takes of OpenAI's parameters; of a model that holds `*` nothing is known yet (see
    /// [`Deployment::accepts_of`]).
    pub accepts: Accepts,
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
    /// `modify_params`; `None` leaves it to [`General::modify_params`].
    pub modify_params: Option<bool>,
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
    /// The base URL without a query, as headers and logs show it.
    pub api_base: String,
    /// `cooldown_time` in milliseconds; 0 never cools it down.
    pub cooldown_ms: Option<u64>,
    /// `mock_response`: respond without calling.
    pub mock_response: Option<Value>,
    /// `mock_timeout`.
    pub mock_timeout: bool,
    /// `initial_prompt_value`, `roles`, `final_prompt_value`, `bos_token`, `eos_token`.
    pub template: Option<PromptTemplate>,
    /// `model_info` as written, with `id`.
    pub model_info: Map<String, Value>,
    /// Price fields set in `litellm_params` or `model_info` (`litellm_params` wins), as decimal text.
    pub prices: Vec<(String, String)>,
    /// `model_info.base_model` (or `litellm_params.base_model`).
    pub base_model: Option<String>,
    /// `model_info.health_check_model` without its brand: what a deployment whose model holds `*` is asked for when a caller
    /// calls it by its id.
    pub health_check_model: Option<String>,
    /// `litellm_params` as `/model/info` may show them: without keys, credentials, header values and without anything
    /// that came from the environment or was sealed.
    pub shown_params: Map<String, Value>,
}

impl Deployment {
    /// Whether its model holds `*`, so that the caller says which one is called.
    pub fn has_any_model(&self) -> bool {
        self.model.contains('*')
    }

    /// What the cooldown of the deployment with this id is kept by in the shared store. Their number is bounded by the
    /// configuration.
    pub fn cooldown_key_of(id: &str) -> String {
        format!("cooldown/{id}")
    }
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
    /// `model_info.team_id`: no other team may call it.
    pub team: Option<String>,
    /// `model_info.team_public_model_name`: what that team calls it by.
    pub team_name: Option<String>,
}
