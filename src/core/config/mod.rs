//! What a LiteLLM `config.yaml` means: the checked configuration that everything else works with.
//!
//! [`load`](load()) makes it from YAML text and an environment look-up, together with a [`mod@report`]:
//! one verdict per setting that the text contains. Nothing in here reads a file, the environment or a clock.

pub mod accepts;
mod blocks;
mod entry;
mod global;
mod keys;
mod ledger_settings;
pub mod limits;
pub mod load;
pub mod lookup;
mod note;
mod prices;
mod problem;
mod read;
mod redis;
pub mod report;
pub mod seal;
pub mod settings;
mod wildcard;
mod yaml;

use hashbrown::HashMap;

use crate::core::model::{deployment::Deployment, endpoint::Endpoint, general::General, router::Router};

pub use entry::LEFT_OUT;
pub use ledger_settings::{HealthChecks, LedgerSettings};
pub use load::{Loaded, load};
pub use lookup::Resolved;
pub use problem::Problem;
pub use redis::Redis;
pub use report::{ENVIRONMENT, LeftOut, Report, ReportRow};
pub use yaml::{ParsedYaml, Repeated, quoted_texts, read as read_yaml};

/// The longest timeout there is, in milliseconds: 24 days. Longer ones count as this.
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
    pub ledger: LedgerSettings,
    /// Tollgate's own settings.
    pub tollgate: TollgateSettings,
    /// Groups (and wildcards) named by the file none of whose deployments can be called: name to the reason. Such a name
    /// never falls through to a broader pattern: that would send its requests to another provider.
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

/// Tollgate's own settings: `tollgate_settings`, a block that LiteLLM ignores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TollgateSettings {
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
    /// `host`: which build of the filter Envoy runs, unless the command line says it.
    pub host: Option<FilterHost>,
}

/// What hosts the filter in Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterHost {
    /// The Wasm engine in Envoy: any Envoy that is new enough.
    Wasm,
    /// Envoy itself, as a dynamic module: the one version that the module was made for.
    Native,
}

impl FilterHost {
    /// What a configuration calls it.
    pub const fn name(self) -> &'static str {
        match self {
            FilterHost::Wasm => "wasm",
            FilterHost::Native => "native",
        }
    }

    /// The host of a name.
    pub fn parse(name: &str) -> Option<FilterHost> {
        [FilterHost::Wasm, FilterHost::Native].into_iter().find(|host| host.name() == name)
    }
}

impl Config {
    /// The largest request body in bytes that is taken.
    pub fn request_limit(&self) -> u64 {
        let limit = self.tollgate.request_body_buffer_limit_bytes;
        limit.max(self.general.max_request_bytes.unwrap_or_default())
    }
}
