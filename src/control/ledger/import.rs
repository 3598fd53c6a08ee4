//! `tollgate import`: takes over what a LiteLLM database has. A row is written only where there is none, so it can run again
//! and again, also beside a ledger that is in use.
//!
//! Rows are read as JSON, so neither the types of LiteLLM's columns nor columns that a version does not have matter.

mod models;
mod secrets;
mod source;
mod windows;

use std::{collections::HashMap, path::PathBuf, time::Duration};

use clap::Args;
use serde_json::{Value, json};
use sqlx::Row as _;

use super::{
    bulk,
    db::{Db, DbError, Tx},
    rows::{self, Record, Stored},
    schema::{
        self, BUDGETS, END_USERS, KEYS, ORGANIZATION_MEMBERS, ORGANIZATIONS, SPEND_LOGS, TEAM_MEMBERS, TEAMS,
        Table, USERS,
    },
};
use crate::{
    control::{
        Failure, checked, document, dynamic, envoy::SYNC_INTERVAL_MS, ledger::grants::POLL_EVERY,
        process::keep_private, state,
    },
    core::config::Config,
};
use models::Keys;
use source::Source;

/// How long it may take from hearing of a change to acting on it.
const NOTICING: Duration = Duration::from_millis(500);

/// What to take over, and where to.
#[derive(Clone, Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct Options {
    /// LiteLLM's database (postgresql://user:password@host/name)
    #[arg(long, value_name = "URL")]
    pub from: String,
    /// Our database, when it is not that of a configuration or a state directory
    #[arg(long, value_name = "URL", conflicts_with_all = ["config", "state_dir"])]
    pub to: Option<String>,
    /// LiteLLM configuration file: its `general_settings.database_url` (or DATABASE_URL) is written to
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the gateway keeps its state, when it has no database_url
    #[arg(long = "state_dir", value_name = "DIR", env = "TOLLGATE_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Address the gateway listens on: with the port it names the folder of an earlier version's state
    #[arg(long, env = "HOST", default_value = "0.0.0.0")]
    pub host: String,
    /// Port the gateway listens on
    #[arg(long, env = "PORT", default_value_t = 4000)]
    pub port: u16,
    /// Also take over the rows of single calls (there may be very many)
    #[arg(long)]
    pub spend_logs: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// LiteLLM's salt key, with which it has encrypted models and credentials [default: its master key, LITELLM_MASTER_KEY]
    #[arg(long, value_name = "KEY", env = "LITELLM_SALT_KEY", hide_env_values = true)]
    pub salt_key: Option<String>,
}

/// Imports and says what was done.
pub fn run(options: &Options) -> Result<String, Failure> {
    if !is_postgres(&options.from) {
        return Err(Failure::configuration(
            "`--from` must name LiteLLM's database: postgresql://user:password@host/name",
        ));
    }
    keep_private();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::running(format!("import: cannot start: {error}")))?;
    runtime.block_on(async {
        let failed = |error: DbError| Failure::running(format!("import: {error}"));
        let mut source = Source::open(&options.from)
            .await
            .map_err(|error| Failure::running(format!("import: `--from`: {error}")))?;
        if !source.is_litellms().await.map_err(failed)? {
            return Err(Failure::configuration(
                "`--from`: there is no table of LiteLLM in this database. Name the one that LiteLLM's DATABASE_URL names, \
                 with `?schema=…` when its tables are not in `public`",
            ));
        }
        let target = Target::open(options).await?;
        let keys = models::Keys::of(options, target.config.as_ref(), target.settings.clone());
        let report =
            import(&mut source, &target.db, options.spend_logs, options.dry_run, &keys).await.map_err(failed)?;
        target.db.close().await;
        if !options.dry_run {
            tokio::time::sleep(noticed_within(target.config.as_ref())).await;
        }
        Ok(report.shown(&target.name, options.dry_run))
    })
}

/// How long gateways that run on the database take to know what was imported: their ledger looks for changes of others, their
/// workers hear of them with the next sync.
fn noticed_within(config: Option<&Config>) -> Duration {
    let sync = config.and_then(|config| config.ledger.batch_write_ms).unwrap_or(SYNC_INTERVAL_MS);
    POLL_EVERY + Duration::from_millis(sync) + NOTICING
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// The database that is written to.
struct Target {
    db: Db,
    /// As people know it; no password.
    name: String,
    /// The gateway's configuration, when it was named.
    config: Option<Config>,
    /// What it says besides its models.
    settings: serde_yaml::Value,
    /// A file that stands for a database that a dry run must not make.
    stand_in: Option<PathBuf>,
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(file) = &self.stand_in {
            for end in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{end}", file.display()));
            }
        }
    }
}

impl Target {
    async fn open(options: &Options) -> Result<Target, Failure> {
        let document = options.config.clone().map(document::read_file).transpose()?;
        let config = match &document {
            Some(document) => Some(checked::examine(document)?.config),
            None => None,
        };
        let settings = document.as_ref().map_or(serde_yaml::Value::Null, dynamic::settings);
        let configured = config.as_ref().and_then(|config| config.ledger.database_url.as_ref());
        let url = options.to.clone().or_else(|| configured.map(|url| url.reveal().to_owned()));
        let file = state::ledger_file(options.state_dir.as_deref(), &options.host, options.port);
        let name = match &url {
            Some(_) => "the Postgres database".to_owned(),
            None => format!("`{}`", file.display()),
        };
        let is_there = match &url {
            Some(url) => {
                Source::has_ledger(url).await.map_err(|error| Failure::running(format!("import: {error}")))?
            }
            None => file.exists(),
        };
        if options.dry_run && !is_there {
            let stand_in = std::env::temp_dir().join(format!("tollgate-import-{}.db", std::process::id()));
            let db = Db::open(None, 2, &stand_in).await?;
            return Ok(Target { db, name, config, settings, stand_in: Some(stand_in) });
        }
        if url.is_none() {
            let folder = file.parent().unwrap_or(&file);
            std::fs::create_dir_all(folder).map_err(|error| {
                Failure::configuration(format!(
                    "cannot use the state directory `{}`: {error}; choose another with --state_dir",
                    folder.display()
                ))
            })?;
        }
        Ok(Target { db: Db::open(url.as_deref(), 2, &file).await?, name, config, settings, stand_in: None })
    }
}

/// What an import did, or would do.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<Line>,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Line {
    what: &'static str,
    found: usize,
    imported: usize,
    skipped: usize,
}

impl Report {
    /// A table for people.
    pub fn shown(&self, target: &str, dry_run: bool) -> String {
        let (title, verb) = match dry_run {
            true => (format!("Would import into {target}; nothing was written"), "would add"),
            false => (format!("Imported into {target}"), "added"),
        };
        let mut text = format!(
            "{title}\n\n{:<24}{:>10}{verb:>12}{:>16}{:>10}\n",
            "", "found", "already there", "skipped"
        );
        for line in &self.lines {
            let there = line.found - line.imported - line.skipped;
            text.push_str(&format!(
                "{:<24}{:>10}{:>12}{there:>16}{:>10}\n",
                line.what, line.found, line.imported, line.skipped
            ));
        }
        for note in &self.notes {
            text.push_str(&format!("\n{note}"));
        }
        text
    }

    /// Found, imported, skipped of one kind.
    #[cfg(test)]
    fn counts(&self, what: &str) -> (usize, usize, usize) {
        let line = self.lines.iter().find(|line| line.what == what).unwrap();
        (line.found, line.imported, line.skipped)
    }
}

/// One of LiteLLM's tables and ours.
struct Plan {
    what: &'static str,
    from: &'static str,
    to: &'static Table,
    /// Name of the meter of a row.
    meter: fn(&Record) -> Option<String>,
}

fn text<'r>(row: &'r Record, name: &str) -> &'r str {
    row.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// In the order in which rows refer to each other.
const PLANS: [Plan; 8] = [
    Plan { what: "budgets", from: "LiteLLM_BudgetTable", to: &BUDGETS, meter: |_| None },
    Plan {
        what: "organizations",
        from: "LiteLLM_OrganizationTable",
        to: &ORGANIZATIONS,
        meter: |row| Some(format!("org:{}", text(row, "organization_id"))),
    },
    Plan {
        what: "teams",
        from: "LiteLLM_TeamTable",
        to: &TEAMS,
        meter: |row| Some(format!("team:{}", text(row, "team_id"))),
    },
    Plan {
        what: "users",
        from: "LiteLLM_UserTable",
        to: &USERS,
        meter: |row| Some(format!("user:{}", text(row, "user_id"))),
    },
    Plan {
        what: "team members",
        from: "LiteLLM_TeamMembership",
        to: &TEAM_MEMBERS,
        meter: |row| Some(format!("member:{}/{}", text(row, "team_id"), text(row, "user_id"))),
    },
    Plan {
        what: "organization members",
        from: "LiteLLM_OrganizationMembership",
        to: &ORGANIZATION_MEMBERS,
        meter: |_| None,
    },
    Plan {
        what: "end users",
        from: "LiteLLM_EndUserTable",
        to: &END_USERS,
        meter: |row| Some(format!("end_user:{}", text(row, "user_id"))),
    },
    Plan {
        what: "keys",
        from: "LiteLLM_VerificationToken",
        to: &KEYS,
        meter: |row| Some(format!("key:{}", text(row, "token"))),
    },
];

/// The user in whose row LiteLLM keeps the spend of the whole gateway.
const WHOLE_GATEWAY: &str = "litellm-proxy-budget";
/// The team of the keys by which LiteLLM's own user interface logs people in.
const USER_INTERFACE: &str = "litellm-dashboard";

/// Imports everything in one transaction, which a dry run does not commit.
async fn import(
    source: &mut Source,
    db: &Db,
    spend_logs: bool,
    dry_run: bool,
    keys: &Keys,
) -> Result<Report, DbError> {
    let mut report = Report::default();
    let mut tx = db.write().await?;
    let aliases = team_aliases(source).await?;
    let mut teams_of_keys = HashMap::new();
    for plan in &PLANS {
        let Some(mut pages) = source.table(plan.from).await? else {
            report.notes.push(format!("{}: the database has no table `{}`.", plan.what, plan.from));
            continue;
        };
        let mut line = Line { what: plan.what, found: 0, imported: 0, skipped: 0 };
        while let Some(found) = source.page(&mut pages, plan.to.key).await? {
            line.found += found.len();
            let mut kept = Vec::new();
            for mut row in found {
                if plan.from == "LiteLLM_UserTable" && text(&row, "user_id") == WHOLE_GATEWAY {
                    whole_gateway(&mut tx, &row).await?;
                    line.skipped += 1;
                } else if is_kept(plan, &row) {
                    complete(plan, &mut row, &aliases, &mut teams_of_keys);
                    kept.push(row);
                } else {
                    line.skipped += 1;
                }
            }
            if plan.from == "LiteLLM_VerificationToken" {
                report.notes.extend(free_aliases(&mut tx, &mut kept).await?);
            }
            for added in insert(&mut tx, plan.to, &kept).await? {
                line.imported += 1;
                if let Some(meter) = (plan.meter)(&added) {
                    tx.record_changed(meter);
                }
            }
        }
        report.lines.push(line);
    }
    windows::import(source, &mut tx, &mut report).await?;
    daily(source, &mut tx, &teams_of_keys, &mut report).await?;
    if spend_logs {
        logs(source, &mut tx, &mut report).await?;
    }
    models::import(source, &mut tx, keys, &mut report).await?;
    models::skipped(source, &mut report).await?;
    if !dry_run {
        tx.commit().await?;
    }
    Ok(report)
}

/// Rows that mean nothing here.
fn is_kept(plan: &Plan, row: &Record) -> bool {
    let has_key = plan.to.key.iter().all(|name| !text(row, name).is_empty());
    let is_session = plan.to.name == KEYS.name && text(row, "team_id") == USER_INTERFACE;
    has_key && !is_session && !(plan.to.name == TEAMS.name && text(row, "team_id") == USER_INTERFACE)
}

/// Puts in what LiteLLM keeps elsewhere.
fn complete(
    plan: &Plan,
    row: &mut Record,
    aliases: &HashMap<String, Value>,
    teams_of_keys: &mut HashMap<String, (String, String)>,
) {
    match plan.from {
        "LiteLLM_TeamTable" => {
            let found =
                row.get("model_id").filter(|id| !id.is_null()).and_then(|id| aliases.get(&id.to_string()));
            if let Some(found) = found {
                row.insert("model_aliases".to_owned(), found.clone());
            }
        }
        "LiteLLM_VerificationToken" => {
            let places = (text(row, "team_id").to_owned(), text(row, "organization_id").to_owned());
            teams_of_keys.insert(text(row, "token").to_owned(), places);
        }
        _ => {}
    }
}

/// Aliases of teams by the id of their row.
async fn team_aliases(source: &mut Source) -> Result<HashMap<String, Value>, DbError> {
    let mut aliases = HashMap::new();
    if let Some(mut pages) = source.table("LiteLLM_ModelTable").await? {
        while let Some(rows) = source.page(&mut pages, &["id"]).await? {
            for mut row in rows {
                let value = row.remove("aliases").or_else(|| row.remove("model_aliases")).unwrap_or_default();
                aliases.insert(row.get("id").map(Value::to_string).unwrap_or_default(), value);
            }
        }
    }
    Ok(aliases)
}

/// Two keys of LiteLLM may have one alias, here they may not: the later one gets the beginning of its hash behind it.
/// Says which.
async fn free_aliases(tx: &mut Tx, keys: &mut [Record]) -> Result<Vec<String>, DbError> {
    let mut told = Vec::new();
    let wanted: Vec<&str> =
        keys.iter().map(|row| text(row, "key_alias")).filter(|alias| !alias.is_empty()).collect();
    let sql = "SELECT key_alias, token FROM tollgate_keys WHERE key_alias IN (VALUES {})";
    let values = wanted.into_iter().map(|alias| vec![alias.into()]).collect();
    let mut taken: HashMap<String, String> = HashMap::new();
    for row in bulk::run(tx.connection(), sql, values).await? {
        taken.insert(row.try_get(0)?, row.try_get(1)?);
    }
    for row in keys {
        let (alias, token) = (text(row, "key_alias").to_owned(), text(row, "token").to_owned());
        if alias.is_empty() {
            row.insert("key_alias".to_owned(), Value::Null);
            continue;
        }
        if taken.get(&alias).is_some_and(|other| *other != token) {
            let start: String = token.chars().take(12).collect();
            told.push(format!(
                "keys: the alias `{alias}` is taken by another key; this one becomes `{alias}-{start}`."
            ));
            row.insert("key_alias".to_owned(), json!(format!("{alias}-{start}")));
        } else {
            taken.insert(alias, token);
        }
    }
    Ok(told)
}

/// Spend of the whole gateway.
async fn whole_gateway(tx: &mut Tx, row: &Record) -> Result<(), DbError> {
    let spend = row.get("spend").and_then(rows::money).unwrap_or_default();
    let sql =
        "INSERT INTO tollgate_windows (meter, spend) VALUES ('global', $1) ON CONFLICT (meter) DO NOTHING";
    if rows::run(tx.connection(), sql, vec![spend.into()]).await? > 0 {
        tx.record_changed("global");
    }
    Ok(())
}

/// Adds rows where there are none; gives (the keys of) those that were added.
async fn insert(tx: &mut Tx, table: &Table, all: &[Record]) -> Result<Vec<Record>, DbError> {
    let names: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
    let statement = format!(
        "INSERT INTO {} ({}) VALUES {{}} ON CONFLICT ({}) DO NOTHING RETURNING {}",
        table.name,
        names.join(", "),
        table.key.join(", "),
        table.key.join(", ")
    );
    let values = all
        .iter()
        .map(|row| {
            let value = |(name, kind): &schema::Column| match rows::stored(
                *kind,
                row.get(*name).unwrap_or(&Value::Null),
            ) {
                Stored::Int(None) if *name == "spend" => 0.into(),
                stored => stored,
            };
            table.columns.iter().map(value).collect()
        })
        .collect();
    let mut added = Vec::new();
    for row in bulk::run(tx.connection(), &statement, values).await? {
        let mut key = Record::new();
        for (at, name) in table.key.iter().enumerate() {
            key.insert((*name).to_owned(), json!(row.try_get::<String, _>(at)?));
        }
        added.push(key);
    }
    Ok(added)
}

/// Sums by day.
async fn daily(
    source: &mut Source,
    tx: &mut Tx,
    teams_of_keys: &HashMap<String, (String, String)>,
    report: &mut Report,
) -> Result<(), DbError> {
    let Some(mut pages) = source.table("LiteLLM_DailyUserSpend").await? else { return Ok(()) };
    let statement = "INSERT INTO tollgate_daily (day, api_key, user_id, team_id, organization_id, model, model_group, \
                     provider, spend, prompt_tokens, completion_tokens, cache_read_tokens, cache_creation_tokens, \
                     requests, failures) VALUES {} ON CONFLICT (day, api_key, user_id, team_id, organization_id, model, \
                     model_group, provider) DO NOTHING RETURNING day";
    let mut line = Line { what: "sums by day", found: 0, imported: 0, skipped: 0 };
    while let Some(rows) = source.page(&mut pages, &["id"]).await? {
        line.found += rows.len();
        let values = rows.iter().map(|row| {
            let number = |name: &str| Stored::from(row.get(name).and_then(Value::as_i64).unwrap_or_default());
            let (team, organization) = teams_of_keys.get(text(row, "api_key")).cloned().unwrap_or_default();
            let spend = row.get("spend").and_then(rows::money).unwrap_or_default();
            vec![
                text(row, "date").into(),
                text(row, "api_key").into(),
                text(row, "user_id").into(),
                team.into(),
                organization.into(),
                text(row, "model").into(),
                text(row, "model_group").into(),
                text(row, "custom_llm_provider").into(),
                spend.into(),
                number("prompt_tokens"),
                number("completion_tokens"),
                number("cache_read_input_tokens"),
                number("cache_creation_input_tokens"),
                number("api_requests"),
                number("failed_requests"),
            ]
        });
        line.imported += bulk::run(tx.connection(), statement, values.collect()).await?.len();
    }
    report.lines.push(line);
    Ok(())
}

/// Rows of single calls.
async fn logs(source: &mut Source, tx: &mut Tx, report: &mut Report) -> Result<(), DbError> {
    let Some(mut pages) = source.table("LiteLLM_SpendLogs").await? else { return Ok(()) };
    let mut line = Line { what: "spend logs", found: 0, imported: 0, skipped: 0 };
    while let Some(mut rows) = source.page(&mut pages, SPEND_LOGS.key).await? {
        line.found += rows.len();
        for row in &mut rows {
            for (theirs, ours) in [
                ("startTime", "start_time"),
                ("endTime", "end_time"),
                ("completionStartTime", "completion_start_time"),
                ("user", "user_id"),
            ] {
                if let Some(value) = row.remove(theirs) {
                    row.insert(ours.to_owned(), value);
                }
            }
        }
        line.imported += insert(tx, &SPEND_LOGS, &rows).await?.len();
    }
    report.lines.push(line);
    Ok(())
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
