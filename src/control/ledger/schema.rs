//! The tables. Names and meaning of their columns follow LiteLLM's, so that its data can be taken over; types are only two:
//! TEXT, and BIGINT for numbers, booleans (0, 1), money (10⁻¹² dollars) and times (Unix milliseconds).
//!
//! A [`Table`] says how its columns read as JSON, which is what the management API speaks.

use sqlx::{AnyPool, AssertSqlSafe, Executor, Row};

use super::db::DbError;

/// How a column is stored and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number.
    Int,
    /// 0 or 1, shown as a boolean.
    Bool,
    /// 10⁻¹² dollars, shown as a number of dollars.
    Money,
    /// Unix milliseconds, shown as RFC 3339 in UTC.
    Time,
    /// Any JSON, stored as text; shown as `{}` when there is none.
    Object,
    /// The same, shown as `null` when there is none.
    Json,
    /// A list of texts, stored as JSON; shown as `[]` when there is none.
    List,
}

/// A column.
pub type Column = (&'static str, Kind);

/// A table that the management API reads and writes row by row.
#[derive(Debug)]
pub struct Table {
    /// Its name in the database.
    pub name: &'static str,
    /// The columns that identify a row.
    pub key: &'static [&'static str],
    /// All columns, in the order in which they are shown.
    pub columns: &'static [Column],
}

use Kind::{Bool, Int, Json, List, Money, Object, Text, Time};

/// Virtual keys. `token` is the SHA-256 of the key; the key itself is nowhere.
pub const KEYS: Table = Table {
    name: "tollgate_keys",
    key: &["token"],
    columns: &[
        ("token", Text),
        ("key_name", Text),
        ("key_alias", Text),
        ("soft_budget_cooldown", Bool),
        ("spend", Money),
        ("expires", Time),
        ("models", List),
        ("aliases", Object),
        ("config", Object),
        ("user_id", Text),
        ("team_id", Text),
        ("permissions", Object),
        ("max_parallel_requests", Int),
        ("metadata", Object),
        ("blocked", Bool),
        ("tpm_limit", Int),
        ("rpm_limit", Int),
        ("max_budget", Money),
        ("soft_budget", Money),
        ("budget_duration", Text),
        ("budget_reset_at", Time),
        ("allowed_cache_controls", List),
        ("allowed_routes", List),
        ("model_spend", Object),
        ("model_max_budget", Object),
        ("budget_id", Text),
        ("organization_id", Text),
        ("object_permission_id", Text),
        ("created_at", Time),
        ("created_by", Text),
        ("updated_at", Time),
        ("updated_by", Text),
        ("budget_limits", Json),
    ],
};

/// Users.
pub const USERS: Table = Table {
    name: "tollgate_users",
    key: &["user_id"],
    columns: &[
        ("user_id", Text),
        ("user_alias", Text),
        ("user_email", Text),
        ("user_role", Text),
        ("sso_user_id", Text),
        ("organization_id", Text),
        ("team_id", Text),
        ("teams", List),
        ("models", List),
        ("max_budget", Money),
        ("spend", Money),
        ("model_max_budget", Object),
        ("model_spend", Object),
        ("max_parallel_requests", Int),
        ("tpm_limit", Int),
        ("rpm_limit", Int),
        ("budget_duration", Text),
        ("budget_reset_at", Time),
        ("allowed_cache_controls", List),
        ("metadata", Object),
        ("created_at", Time),
        ("updated_at", Time),
        ("budget_limits", Json),
    ],
};

/// Teams.
pub const TEAMS: Table = Table {
    name: "tollgate_teams",
    key: &["team_id"],
    columns: &[
        ("team_id", Text),
        ("team_alias", Text),
        ("organization_id", Text),
        ("object_permission_id", Text),
        ("admins", List),
        ("members", List),
        ("members_with_roles", Object),
        ("metadata", Object),
        ("tpm_limit", Int),
        ("rpm_limit", Int),
        ("max_budget", Money),
        ("budget_duration", Text),
        ("models", List),
        ("blocked", Bool),
        ("spend", Money),
        ("max_parallel_requests", Int),
        ("budget_reset_at", Time),
        ("model_spend", Object),
        ("model_max_budget", Object),
        ("model_aliases", Object),
        ("team_member_permissions", List),
        ("created_at", Time),
        ("updated_at", Time),
        ("budget_limits", Json),
    ],
};

/// Users as members of teams.
pub const TEAM_MEMBERS: Table = Table {
    name: "tollgate_team_members",
    key: &["user_id", "team_id"],
    columns: &[("user_id", Text), ("team_id", Text), ("budget_id", Text), ("spend", Money)],
};

/// Organizations.
pub const ORGANIZATIONS: Table = Table {
    name: "tollgate_organizations",
    key: &["organization_id"],
    columns: &[
        ("organization_id", Text),
        ("organization_alias", Text),
        ("budget_id", Text),
        ("metadata", Object),
        ("models", List),
        ("spend", Money),
        ("model_spend", Object),
        ("object_permission_id", Text),
        ("created_at", Time),
        ("created_by", Text),
        ("updated_at", Time),
        ("updated_by", Text),
    ],
};

/// Users as members of organizations.
pub const ORGANIZATION_MEMBERS: Table = Table {
    name: "tollgate_organization_members",
    key: &["user_id", "organization_id"],
    columns: &[
        ("user_id", Text),
        ("organization_id", Text),
        ("user_role", Text),
        ("spend", Money),
        ("budget_id", Text),
        ("created_at", Time),
        ("updated_at", Time),
    ],
};

/// Budgets that keys, team members, organizations and end users share by their id.
pub const BUDGETS: Table = Table {
    name: "tollgate_budgets",
    key: &["budget_id"],
    columns: &[
        ("budget_id", Text),
        ("max_budget", Money),
        ("soft_budget", Money),
        ("max_parallel_requests", Int),
        ("tpm_limit", Int),
        ("rpm_limit", Int),
        ("model_max_budget", Object),
        ("budget_duration", Text),
        ("budget_reset_at", Time),
        ("created_at", Time),
        ("created_by", Text),
        ("updated_at", Time),
        ("updated_by", Text),
    ],
};

/// End users (customers): whom requests name in `user`.
pub const END_USERS: Table = Table {
    name: "tollgate_end_users",
    key: &["user_id"],
    columns: &[
        ("user_id", Text),
        ("alias", Text),
        ("spend", Money),
        ("allowed_model_region", Text),
        ("default_model", Text),
        ("budget_id", Text),
        ("blocked", Bool),
    ],
};

/// Models added through the API. `litellm_params` is sealed.
pub const MODELS: Table = Table {
    name: "tollgate_models",
    key: &["model_id"],
    columns: &[
        ("model_id", Text),
        ("model_name", Text),
        ("litellm_params", Text),
        ("model_info", Object),
        ("created_at", Time),
        ("created_by", Text),
        ("updated_at", Time),
        ("updated_by", Text),
    ],
};

/// One row for each model call.
pub const SPEND_LOGS: Table = Table {
    name: "tollgate_spend_logs",
    key: &["request_id"],
    columns: &[
        ("request_id", Text),
        ("call_type", Text),
        ("api_key", Text),
        ("spend", Money),
        ("total_tokens", Int),
        ("prompt_tokens", Int),
        ("completion_tokens", Int),
        ("start_time", Time),
        ("end_time", Time),
        ("completion_start_time", Time),
        ("model", Text),
        ("model_id", Text),
        ("model_group", Text),
        ("custom_llm_provider", Text),
        ("api_base", Text),
        ("user_id", Text),
        ("metadata", Object),
        ("cache_hit", Text),
        ("cache_key", Text),
        ("request_tags", List),
        ("team_id", Text),
        ("organization_id", Text),
        ("end_user", Text),
        ("requester_ip_address", Text),
        ("session_id", Text),
        ("status", Text),
        ("call_id", Text),
        ("response_id", Text),
    ],
};

/// Tables made from their description above, and their indexes.
const TABLES: [&Table; 10] = [
    &KEYS,
    &USERS,
    &TEAMS,
    &TEAM_MEMBERS,
    &ORGANIZATIONS,
    &ORGANIZATION_MEMBERS,
    &BUDGETS,
    &END_USERS,
    &MODELS,
    &SPEND_LOGS,
];

/// Sums, feeds and bookkeeping, which only fixed statements touch.
const FIXED: &[&str] = &[
    // Spend by day. Empty text stands for "none", so that all columns can be part of the key.
    "CREATE TABLE tollgate_daily (day TEXT NOT NULL, api_key TEXT NOT NULL, user_id TEXT NOT NULL, \
     team_id TEXT NOT NULL, organization_id TEXT NOT NULL, model TEXT NOT NULL, model_group TEXT NOT NULL, \
     provider TEXT NOT NULL, spend BIGINT NOT NULL, prompt_tokens BIGINT NOT NULL, \
     completion_tokens BIGINT NOT NULL, cache_read_tokens BIGINT NOT NULL, cache_creation_tokens BIGINT NOT NULL, \
     requests BIGINT NOT NULL, failures BIGINT NOT NULL, \
     PRIMARY KEY (day, api_key, user_id, team_id, organization_id, model, model_group, provider))",
    "CREATE TABLE tollgate_daily_tags (day TEXT NOT NULL, tag TEXT NOT NULL, spend BIGINT NOT NULL, \
     prompt_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL, requests BIGINT NOT NULL, \
     failures BIGINT NOT NULL, PRIMARY KEY (day, tag))",
    "CREATE TABLE tollgate_daily_end_users (day TEXT NOT NULL, end_user TEXT NOT NULL, api_key TEXT NOT NULL, \
     model TEXT NOT NULL, spend BIGINT NOT NULL, prompt_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL, \
     requests BIGINT NOT NULL, PRIMARY KEY (day, end_user, api_key, model))",
    // Spend that has a period of its own: `global`, and by model, `key_model:…`.
    "CREATE TABLE tollgate_windows (meter TEXT PRIMARY KEY, spend BIGINT NOT NULL, period TEXT, reset_at BIGINT)",
    // Envoys, and the newest batch of each that is applied.
    "CREATE TABLE tollgate_nodes (node TEXT PRIMARY KEY, batch BIGINT NOT NULL, seen_at BIGINT NOT NULL)",
    "CREATE TABLE tollgate_rates (meter TEXT NOT NULL, node TEXT NOT NULL, window_ms BIGINT NOT NULL, \
     requests BIGINT NOT NULL, tokens BIGINT NOT NULL, parallel BIGINT NOT NULL, seen_at BIGINT NOT NULL, \
     PRIMARY KEY (meter, node))",
    "CREATE TABLE tollgate_changes (meter TEXT PRIMARY KEY, revision BIGINT NOT NULL, record_revision BIGINT NOT NULL)",
    "CREATE INDEX tollgate_changes_revision ON tollgate_changes (revision)",
    "CREATE UNIQUE INDEX tollgate_keys_alias ON tollgate_keys (key_alias)",
    "CREATE INDEX tollgate_keys_user ON tollgate_keys (user_id)",
    "CREATE INDEX tollgate_keys_team ON tollgate_keys (team_id)",
    "CREATE INDEX tollgate_keys_organization ON tollgate_keys (organization_id)",
    "CREATE INDEX tollgate_keys_budget ON tollgate_keys (budget_id)",
    // As lists are ordered: the newest first, the hash breaks ties.
    "CREATE INDEX tollgate_keys_created ON tollgate_keys (created_at DESC, token)",
    "CREATE INDEX tollgate_keys_reset ON tollgate_keys (budget_reset_at)",
    "CREATE INDEX tollgate_users_reset ON tollgate_users (budget_reset_at)",
    "CREATE INDEX tollgate_teams_reset ON tollgate_teams (budget_reset_at)",
    "CREATE INDEX tollgate_windows_reset ON tollgate_windows (reset_at)",
    "CREATE INDEX tollgate_users_email ON tollgate_users (user_email)",
    "CREATE INDEX tollgate_team_members_team ON tollgate_team_members (team_id)",
    "CREATE INDEX tollgate_team_members_budget ON tollgate_team_members (budget_id)",
    "CREATE INDEX tollgate_end_users_budget ON tollgate_end_users (budget_id)",
    "CREATE INDEX tollgate_spend_logs_start ON tollgate_spend_logs (start_time)",
    "CREATE INDEX tollgate_spend_logs_key ON tollgate_spend_logs (api_key, start_time)",
    "CREATE INDEX tollgate_spend_logs_user ON tollgate_spend_logs (user_id, start_time)",
    "CREATE INDEX tollgate_spend_logs_team ON tollgate_spend_logs (team_id, start_time)",
    "CREATE INDEX tollgate_spend_logs_end_user ON tollgate_spend_logs (end_user, start_time)",
    "CREATE INDEX tollgate_spend_logs_model ON tollgate_spend_logs (model, start_time)",
    "CREATE INDEX tollgate_spend_logs_group ON tollgate_spend_logs (model_group, start_time)",
    "CREATE INDEX tollgate_spend_logs_session ON tollgate_spend_logs (session_id)",
    // Failures are few, and somebody always looks for them; most calls cost nothing here.
    "CREATE INDEX tollgate_spend_logs_failed ON tollgate_spend_logs (start_time) WHERE status = 'failure'",
];

/// What version 2 has besides: rates of deployments are known apart, because every node hears of them.
const SECOND: &[&str] = &[
    "ALTER TABLE tollgate_rates ADD COLUMN place BIGINT NOT NULL DEFAULT 0",
    "CREATE INDEX tollgate_rates_places ON tollgate_rates (seen_at) WHERE place = 1",
];

/// What version 3 has besides: former values of keys, and addresses whatever the case of their letters.
const THIRD: &[&str] = &[
    // What counts for a key goes by this where it is set.
    "ALTER TABLE tollgate_keys ADD COLUMN first_token TEXT",
    "CREATE INDEX tollgate_keys_first ON tollgate_keys (first_token)",
    "CREATE TABLE tollgate_former_keys (token TEXT PRIMARY KEY, current_token TEXT NOT NULL, good_until BIGINT, \
     replaced_at BIGINT NOT NULL)",
    "CREATE INDEX tollgate_former_keys_current ON tollgate_former_keys (current_token)",
    "CREATE INDEX tollgate_users_address ON tollgate_users (LOWER(user_email))",
];

/// What version 4 has besides: calls are found by the ids that clients know.
const FOURTH_COLUMNS: &[&str] = &[
    "ALTER TABLE tollgate_spend_logs ADD COLUMN call_id TEXT",
    "ALTER TABLE tollgate_spend_logs ADD COLUMN response_id TEXT",
];
const FOURTH: &[&str] = &[
    "CREATE INDEX tollgate_spend_logs_call ON tollgate_spend_logs (call_id)",
    "CREATE INDEX tollgate_spend_logs_response ON tollgate_spend_logs (response_id)",
];

/// What version 5 has besides: several budgets of one key, team or user.
const FIFTH_COLUMNS: &[&str] = &[
    "ALTER TABLE tollgate_keys ADD COLUMN budget_limits TEXT",
    "ALTER TABLE tollgate_teams ADD COLUMN budget_limits TEXT",
    "ALTER TABLE tollgate_users ADD COLUMN budget_limits TEXT",
];

/// The version of the schema that this build works with.
const VERSION: i64 = 5;

/// Refuses a schema of a newer build.
pub fn knows(version: i64) -> Result<(), DbError> {
    if version <= VERSION {
        return Ok(());
    }
    Err(DbError::Statement(format!(
        "its schema has version {version}, this build knows up to {VERSION}: start a newer tollgate"
    )))
}

/// Makes the tables, or brings older ones up to date. Several may call it at once.
pub async fn migrate(pool: &AnyPool) -> Result<(), DbError> {
    pool.execute(
        "CREATE TABLE IF NOT EXISTS tollgate_state (id BIGINT PRIMARY KEY, revision BIGINT NOT NULL, \
         schema_version BIGINT NOT NULL)",
    )
    .await
    .or_else(made_by_another)?;
    pool.execute("INSERT INTO tollgate_state (id, revision, schema_version) VALUES (1, 1, 0) ON CONFLICT (id) DO NOTHING")
        .await?;
    let mut tx = pool.begin().await?;
    // The update takes the row's lock: whoever comes second waits here and finds the work done.
    let row = tx
        .fetch_one("UPDATE tollgate_state SET revision = revision + 1 WHERE id = 1 RETURNING schema_version")
        .await?;
    let there = row.try_get::<i64, _>(0)?;
    knows(there)?;
    if there < 1 {
        for table in TABLES {
            tx.execute(AssertSqlSafe(create(table))).await?;
        }
        for statement in FIXED {
            tx.execute(AssertSqlSafe(*statement)).await?;
        }
    }
    for (version, statements) in [(2, SECOND), (3, THIRD)] {
        for statement in statements.iter().filter(|_| there < version) {
            tx.execute(AssertSqlSafe(*statement)).await?;
        }
    }
    for (version, columns, others) in [(4, FOURTH_COLUMNS, FOURTH), (5, FIFTH_COLUMNS, &[])] {
        if there < version {
            // New tables have the columns of their description.
            let columns = if there < 1 { &[] } else { columns };
            for statement in columns.iter().chain(others) {
                tx.execute(AssertSqlSafe(*statement)).await?;
            }
        }
    }
    tx.execute(AssertSqlSafe(format!("UPDATE tollgate_state SET schema_version = {VERSION} WHERE id = 1")))
        .await?;
    Ok(tx.commit().await?)
}

/// Postgres: two `CREATE TABLE IF NOT EXISTS` at the same moment can collide in its catalogue. The table is there then.
fn made_by_another(error: sqlx::Error) -> Result<sqlx::any::AnyQueryResult, sqlx::Error> {
    match &error {
        sqlx::Error::Database(inner)
            if inner.is_unique_violation() || inner.message().contains("already exists") =>
        {
            Ok(sqlx::any::AnyQueryResult::default())
        }
        _ => Err(error),
    }
}

fn create(table: &Table) -> String {
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|(name, kind)| {
            let stored = match kind {
                Text | Object | Json | List => "TEXT",
                Int | Bool | Money | Time => "BIGINT",
            };
            // Sums start at nothing; what identifies a row is always there.
            let rule = match *name {
                "spend" => " NOT NULL DEFAULT 0",
                name if table.key.contains(&name) => " NOT NULL",
                _ => "",
            };
            format!("{name} {stored}{rule}")
        })
        .collect();
    format!("CREATE TABLE {} ({}, PRIMARY KEY ({}))", table.name, columns.join(", "), table.key.join(", "))
}
