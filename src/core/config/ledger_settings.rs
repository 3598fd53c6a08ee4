//! What only the ledger works with: where it keeps its data, and the defaults of keys, users and teams that it makes.

use serde_json::{Map, Value};

use super::{
    Redis,
    blocks::Blocks,
    read::{Reference, Source, reference},
    redis,
    settings::Verdict,
};
use crate::core::{codec::percent::percent, model::secret::Secret};

/// Settings of the ledger. It reads the same file as the filter, with the same loader.
#[derive(Clone, Debug, Default)]
pub struct LedgerSettings {
    /// `general_settings.database_url`, or `DATABASE_URL`. None is the ledger's own file.
    pub database_url: Option<Secret>,
    /// `database_connection_pool_limit`.
    pub pool_limit: Option<u32>,
    /// Where rates between nodes are kept instead, when `router_settings` names one.
    pub redis: Option<Redis>,
    /// `LITELLM_SALT_KEY`: encrypts what is secret in the database. Without it the master key does.
    pub salt_key: Option<Secret>,
    /// `proxy_batch_write_at` in milliseconds: how often usage goes to the ledger.
    pub batch_write_ms: Option<u64>,
    /// `proxy_budget_rescheduler_min_time` in milliseconds (597,000): the least time between two rounds of budget resets.
    pub reset_min_ms: u64,
    /// `proxy_budget_rescheduler_max_time` in milliseconds (605,000).
    pub reset_max_ms: u64,
    /// `disable_reset_budget`.
    pub disable_reset_budget: bool,
    /// `litellm_settings.timezone`: where a day begins. None is UTC.
    pub timezone: Option<String>,
    /// `store_model_in_db`.
    pub store_model_in_db: bool,
    /// `disable_spend_logs`: spend is summed, single calls are not kept.
    pub disable_spend_logs: bool,
    /// `disable_error_logs`: calls that were refused or failed are not kept.
    pub disable_error_logs: bool,
    /// `maximum_spend_logs_retention_period`, a duration such as `7d`.
    pub spend_log_retention: Option<String>,
    /// `maximum_spend_logs_retention_interval`, a duration.
    pub spend_log_cleanup: Option<String>,
    /// `default_key_generate_params`.
    pub default_key_params: Map<String, Value>,
    /// `upperbound_key_generate_params`.
    pub upperbound_key_params: Map<String, Value>,
    /// `key_generation_settings`.
    pub key_generation: Map<String, Value>,
    /// `default_internal_user_params`.
    pub default_user_params: Map<String, Value>,
    /// `default_team_params`.
    pub default_team_params: Map<String, Value>,
    /// `max_internal_user_budget`, else `default_max_internal_user_budget`, in 10⁻¹² dollars.
    pub max_user_budget: Option<i64>,
    /// `internal_user_budget_duration`.
    pub user_budget_duration: Option<String>,
    /// `max_end_user_budget` in 10⁻¹² dollars: the budget of end users that have none of their own.
    pub max_end_user_budget: Option<i64>,
    /// `max_end_user_budget_id`: the budget row that end users without one of their own have.
    pub end_user_budget_id: Option<String>,
    /// `litellm_settings.max_budget` in 10⁻¹² dollars: of the whole gateway. None is no limit.
    pub global_max_budget: Option<i64>,
    /// `litellm_settings.budget_duration`.
    pub global_budget_duration: Option<String>,
    /// `alerting`: the channels that are told of used up budgets.
    pub alerting: Vec<String>,
    /// Checks of deployments. Routing looks at what they found, so the filter reads this too.
    pub health: HealthChecks,
}

/// How the ledger finds out whether deployments respond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthChecks {
    /// `background_health_checks`: all the time, and not only when they are asked for.
    pub in_background: bool,
    /// `health_check_interval` in milliseconds (300,000): from the end of one round to the next.
    pub interval_ms: u64,
    /// `health_check_details` (true): show parameters and errors, and not only models.
    pub details: bool,
    /// `enable_health_check_routing` (true): deployments that fail in the background get no requests while others of their group
    /// pass.
    pub routing: bool,
    /// `health_check_ignore_transient_errors`: a rate limit or a timeout does not keep requests away.
    pub ignore_transient: bool,
}

impl HealthChecks {
    /// Whether routing goes by what the checks find.
    pub fn steer(&self) -> bool {
        self.in_background && self.routing
    }
}

impl Default for HealthChecks {
    fn default() -> HealthChecks {
        HealthChecks {
            in_background: false,
            interval_ms: 300_000,
            details: true,
            routing: true,
            ignore_transient: false,
        }
    }
}

/// No round begins sooner after the last one: every check is a call that is paid for.
const LEAST_INTERVAL_MS: u64 = 100;

/// Reads them.
pub(super) fn read(src: &mut Source, blocks: &Blocks) -> LedgerSettings {
    let (general, litellm) = (&blocks.general, &blocks.litellm);
    let database_url = database_url(src, blocks);
    let user_budget = litellm.money(src, "max_internal_user_budget");
    let own_team_params = litellm.member(src, "default_team_params").map;
    LedgerSettings {
        database_url: database_url.map(Secret::new),
        pool_limit: general.small_count(src, "database_connection_pool_limit").filter(|limit| *limit > 0),
        redis: redis::read(src, blocks),
        salt_key: src.variable("LITELLM_SALT_KEY").map(Secret::new),
        batch_write_ms: general.millis(src, "proxy_batch_write_at"),
        reset_min_ms: general.millis(src, "proxy_budget_rescheduler_min_time").unwrap_or(597_000),
        reset_max_ms: general.millis(src, "proxy_budget_rescheduler_max_time").unwrap_or(605_000),
        disable_reset_budget: general.flag(src, "disable_reset_budget").unwrap_or(false),
        timezone: litellm.text(src, "timezone"),
        store_model_in_db: store_models(src, blocks),
        disable_spend_logs: general.flag(src, "disable_spend_logs").unwrap_or(false),
        disable_error_logs: general.flag(src, "disable_error_logs").unwrap_or(false),
        spend_log_retention: general.duration(src, "maximum_spend_logs_retention_period"),
        spend_log_cleanup: general.duration(src, "maximum_spend_logs_retention_interval"),
        default_key_params: litellm.member(src, "default_key_generate_params").map,
        upperbound_key_params: litellm.member(src, "upperbound_key_generate_params").map,
        key_generation: litellm.member(src, "key_generation_settings").map,
        default_user_params: litellm.member(src, "default_internal_user_params").map,
        default_team_params: own_team_params,
        max_user_budget: user_budget.or_else(|| litellm.money(src, "default_max_internal_user_budget")),
        user_budget_duration: litellm.duration(src, "internal_user_budget_duration"),
        max_end_user_budget: litellm.money(src, "max_end_user_budget"),
        end_user_budget_id: litellm.text(src, "max_end_user_budget_id"),
        global_max_budget: litellm.money(src, "max_budget").filter(|max| *max > 0),
        global_budget_duration: litellm.duration(src, "budget_duration"),
        alerting: general.texts(src, "alerting"),
        health: health(src, blocks),
    }
}

/// `general_settings.database_url`, `DATABASE_URL`, or one made of LiteLLM's single variables. Only Postgres is known.
fn database_url(src: &mut Source, blocks: &Blocks) -> Option<String> {
    let own = blocks.general.text(src, "database_url").map(|url| (url, "general_settings.database_url"));
    let named = own.or_else(|| src.variable("DATABASE_URL").map(|url| (url, "DATABASE_URL")));
    let Some((url, at)) = named else {
        let parts = url_of_parts(src);
        note_no_database(src, blocks, parts.is_some());
        return parts;
    };
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Some(url);
    }
    src.problem(
        at,
        "expected the URL of a Postgres: it must start with postgresql://",
        "write postgresql://user:password@host:5432/name, or remove it to keep an SQLite file in the state directory",
    );
    None
}

/// Says what it means that the database is named by a variable that is not set.
fn note_no_database(src: &mut Source, blocks: &Blocks, has_parts: bool) {
    let written = blocks.raw_general.get("database_url").and_then(Value::as_str).and_then(reference);
    if let Some(Reference::Environment(name)) = written {
        let means = match has_parts {
            true => "the database is the one that DATABASE_HOST and its like name",
            false => {
                "keys and spend are kept in an SQLite file in the state directory, which no other gateway shares"
            }
        };
        let why = format!("environment variable {name} is not set: {means}");
        src.note("general_settings.database_url", Verdict::Missing(why.into()));
    }
}

/// `DATABASE_HOST`, `DATABASE_USER` (or `DATABASE_USERNAME`), `DATABASE_NAME`, and what may go with them.
fn url_of_parts(src: &Source) -> Option<String> {
    let host = src.variable("DATABASE_HOST")?;
    let user = src.first_variable(&["DATABASE_USER", "DATABASE_USERNAME"])?;
    let name = src.variable("DATABASE_NAME")?;
    let password = src.variable("DATABASE_PASSWORD").map(|text| format!(":{}", quoted(&text)));
    let port = src.variable("DATABASE_PORT").map(|port| format!(":{port}"));
    let schema = src.variable("DATABASE_SCHEMA").map(|schema| format!("?schema={}", quoted(&schema)));
    let or_none = Option::unwrap_or_default;
    Some(format!(
        "postgresql://{}{}@{host}{}/{}{}",
        quoted(&user),
        or_none(password),
        // A port that stands in the host already stays.
        if host.contains(':') { String::new() } else { or_none(port) },
        quoted(&name),
        or_none(schema)
    ))
}

/// A part of a URL: everything but letters, digits and `-._~` in hexadecimal.
fn quoted(text: &str) -> String {
    percent(text, |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

/// `store_model_in_db`, or `STORE_MODEL_IN_DB`: one that says so is enough, as in LiteLLM.
fn store_models(src: &mut Source, blocks: &Blocks) -> bool {
    let variable = src.variable("STORE_MODEL_IN_DB");
    blocks.general.flag(src, "store_model_in_db") == Some(true)
        || variable.is_some_and(|text| text.trim().eq_ignore_ascii_case("true"))
}

fn health(src: &mut Source, blocks: &Blocks) -> HealthChecks {
    let (general, router) = (&blocks.general, &blocks.router);
    let standard = HealthChecks::default();
    let either = |src: &mut Source, name: &str| general.flag(src, name).or_else(|| router.flag(src, name));
    HealthChecks {
        in_background: general.flag(src, "background_health_checks").unwrap_or(standard.in_background),
        interval_ms: general
            .timeout(src, "health_check_interval")
            .unwrap_or(standard.interval_ms)
            .max(LEAST_INTERVAL_MS),
        details: general.flag(src, "health_check_details").unwrap_or(standard.details),
        routing: either(src, "enable_health_check_routing").unwrap_or(standard.routing),
        ignore_transient: either(src, "health_check_ignore_transient_errors")
            .unwrap_or(standard.ignore_transient),
    }
}
