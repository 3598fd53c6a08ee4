//! Settings that are not about one deployment.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{limits::Budget, secret::Secret, virtual_key::VirtualKey};

/// Settings that are not about one deployment.
#[derive(Clone, Debug, Default)]
pub struct General {
    /// `general_settings.master_key` (or `LITELLM_MASTER_KEY`). Without one every client is admin.
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
    /// Cap in bytes for a buffered response whose headers are held until its cost is known (262,144; `tollgate_settings.max_held_answer_bytes`).
    pub max_held_answer_bytes: u64,
    /// `forward_client_headers_to_llm_api`.
    pub forward_client_headers: bool,
    /// `general_settings.allow_client_side_credentials`.
    pub allow_client_credentials: bool,
    /// `litellm_settings.require_auth_for_metrics_endpoint`.
    pub auth_metrics: bool,
    /// SHA-256 of the master key in lower-case hexadecimal: what it is called in usage events. Empty without a master key.
    pub master_hash: String,
    /// There is a ledger to ask for keys, because the environment has the secret for it.
    pub has_ledger: bool,
    /// `general_settings.keys`: keys that need no ledger, by their hash.
    pub keys: HashMap<String, Arc<VirtualKey>>,
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
    /// The response's.
    Output,
}
