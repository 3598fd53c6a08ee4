//! When budgets start again, and the task that starts them: spend that was counted for a period goes back to nothing when the
//! period is over.

use std::{sync::Arc, time::Duration};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use sqlx::{AnyConnection, Row as _};

use super::{
    App, bulk,
    db::{DbError, Tx},
    former, log, rates,
    rows::{self, Stored},
    windows,
};
use crate::core::{
    config::Config,
    model::period::{self, Civil},
};

/// How often the ledger looks for periods that are over.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often old rows are removed, unless `maximum_spend_logs_retention_interval` says so.
const CLEAN_EVERY_MS: i64 = 3_600_000;
/// Rows of one transaction: others wait for it no longer than this takes.
const ROWS: usize = 500;

/// When something expires that is given at `now_ms` for `duration` (`30s`, `5m`, `12h`, `30d`, `2w`, `1mo`). The error says
/// what a duration looks like.
pub fn expires(duration: &str, now_ms: i64) -> Result<i64, String> {
    let end = period::parse(duration)?.expires_ms(u64::try_from(now_ms).unwrap_or_default());
    Ok(i64::try_from(end).unwrap_or(i64::MAX))
}

/// When a budget of this duration starts again after `now_ms`, at a round time of the clocks and calendars of `zone`: always
/// later than `now_ms`. The error says what a duration looks like.
pub fn next_reset(duration: &str, now_ms: i64, zone: &TimeZone) -> Result<i64, String> {
    let period = period::parse(duration)?;
    let now = Timestamp::from_millisecond(now_ms).unwrap_or_default().to_zoned(zone.clone()).datetime();
    let next = period.next_reset(civil(now)).ok_or_else(|| {
        format!("`{duration}` cannot be the period of a budget: expected at least 1, and of months not more")
    })?;
    let mut at = date_time(next)
        .and_then(|next| next.to_zoned(zone.clone()).ok())
        .ok_or_else(|| format!("`{duration}` is too long: it ends after the year 9999"))?
        .timestamp()
        .as_millisecond();
    // An hour that clocks show twice: the first of the two can be over.
    while at <= now_ms {
        at = at.saturating_add(3_600_000);
    }
    Ok(at)
}

/// The time zone of `litellm_settings.timezone`; UTC when there is none, or none of this name.
pub fn zone(config: &Config) -> TimeZone {
    config.ledger.timezone.as_deref().and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC)
}

/// Starts budgets again when it is time, and removes what is too old; forever.
pub async fn keep_up(app: Arc<App>) {
    let (mut cleaned_ms, mut failing) = (None, false);
    if let Some(name) = app.config().ledger.timezone.as_deref().filter(|name| TimeZone::get(name).is_err()) {
        log(&format!(
            "`litellm_settings.timezone`: there is no time zone `{name}`; budgets start again by UTC"
        ));
    }
    loop {
        let now_ms = app.now_ms();
        let mut result = run(&app, now_ms).await.map(|_| ());
        let every = clean_every(&app.config(), now_ms);
        if cleaned_ms.is_none_or(|last| now_ms >= last + every) {
            cleaned_ms = Some(now_ms);
            result = result.and(clean(&app, now_ms).await.map(|_| ()));
        }
        // Said once; the next round tries again.
        if let Err(error) = &result {
            app.db.condition().note(error);
            if !failing {
                log(&format!("cannot start budgets again: {error}"));
            }
        }
        failing = result.is_err();
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Starts all budgets again whose period is over at `now_ms`. Says how many rows of keys, users, teams, budgets and windows
/// there were.
pub async fn run(app: &App, now_ms: i64) -> Result<usize, DbError> {
    let config = app.config();
    keep_global(app, &config, now_ms).await?;
    if config.ledger.disable_reset_budget {
        return Ok(0);
    }
    let mut count = 0;
    for plan in &PLANS {
        loop {
            // Looking costs no revision.
            let mut connection = app.db.read().await?;
            if due(&mut connection, plan, now_ms, 1).await?.is_empty() {
                break;
            }
            drop(connection);
            let mut tx = app.db.write().await?;
            let rows = due(tx.connection(), plan, now_ms, ROWS).await?;
            count += rows.len();
            restart(&mut tx, &config, plan, rows, now_ms).await?;
            tx.commit().await?;
        }
    }
    Ok(count)
}

/// Removes spend logs that are older than `maximum_spend_logs_retention_period`, and what nodes said long ago. Says how many
/// logs went.
pub async fn clean(app: &App, now_ms: i64) -> Result<u64, DbError> {
    rates::sql::prune(app, now_ms).await?;
    let mut tx = app.db.aside().await?;
    former::prune(&mut tx, now_ms).await?;
    tx.commit().await?;
    let config = app.config();
    let Some(kept_ms) = config.ledger.spend_log_retention.as_deref().and_then(|text| length(text, now_ms))
    else {
        return Ok(0);
    };
    let mut count = 0;
    loop {
        let mut tx = app.db.aside().await?;
        let gone = rows::run(
            &mut tx,
            "DELETE FROM tollgate_spend_logs WHERE request_id IN \
             (SELECT request_id FROM tollgate_spend_logs WHERE start_time < $1 LIMIT 1000)",
            vec![now_ms.saturating_sub(kept_ms).into()],
        )
        .await?;
        tx.commit().await?;
        count += gone;
        if gone == 0 {
            return Ok(count);
        }
    }
}

fn clean_every(config: &Config, now_ms: i64) -> i64 {
    config.ledger.spend_log_cleanup.as_deref().and_then(|text| length(text, now_ms)).unwrap_or(CLEAN_EVERY_MS)
}

fn length(duration: &str, now_ms: i64) -> Option<i64> {
    Some(expires(duration, now_ms).ok()? - now_ms)
}

/// A table whose rows have a period.
struct Plan {
    table: &'static str,
    key: &'static str,
    period: &'static str,
    reset_at: &'static str,
    /// The meter of a row is this and its key; nothing for budgets, which are those of others.
    prefix: Option<&'static str>,
}

const fn plan(table: &'static str, key: &'static str, prefix: Option<&'static str>) -> Plan {
    Plan { table, key, period: "budget_duration", reset_at: "budget_reset_at", prefix }
}

const PLANS: [Plan; 5] = [
    plan("tollgate_keys", "token", Some("key:")),
    plan("tollgate_users", "user_id", Some("user:")),
    plan("tollgate_teams", "team_id", Some("team:")),
    plan("tollgate_budgets", "budget_id", None),
    Plan {
        table: "tollgate_windows",
        key: "meter",
        period: "period",
        reset_at: "reset_at",
        prefix: Some(""),
    },
];

/// Keys and periods of rows whose period is over.
async fn due(
    connection: &mut AnyConnection,
    plan: &Plan,
    now_ms: i64,
    limit: usize,
) -> Result<Vec<(String, Option<String>)>, DbError> {
    let Plan { table, key, period, reset_at, .. } = plan;
    let sql = format!("SELECT {key}, {period} FROM {table} WHERE {reset_at} <= $1 LIMIT {limit}");
    let found = rows::rows(connection, &sql, vec![now_ms.into()]).await?;
    found.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Starts a new period for rows. One that has no period any more keeps what it has spent.
async fn restart(
    tx: &mut Tx,
    config: &Config,
    plan: &Plan,
    mut due: Vec<(String, Option<String>)>,
    now_ms: i64,
) -> Result<(), DbError> {
    let zone = zone(config);
    if plan.table == "tollgate_windows" {
        // The record of the key says which period there is now.
        let mut periods =
            windows::periods(tx.connection(), due.iter().map(|(meter, _)| meter.as_str())).await?;
        for (meter, period) in &mut due {
            if let Some(now) = periods.remove(meter) {
                *period = now;
            }
        }
    }
    let (again, ended): (Vec<_>, Vec<_>) = due.into_iter().partition(|(_, period)| period.is_some());
    let Plan { table, key, period, reset_at, prefix } = plan;
    let spend = if prefix.is_some() { "spend = 0, " } else { "" };
    let statement = format!(
        "WITH v (id, period, next) AS (VALUES {{}}) UPDATE {table} SET {spend}{period} = v.period, {reset_at} = v.next \
         FROM v WHERE {table}.{key} = v.id"
    );
    let values = again.iter().map(|(id, period)| {
        let next = next_or_midnight(period.as_deref().unwrap_or_default(), now_ms, &zone);
        vec![id.as_str().into(), period.clone().into(), next.into()]
    });
    bulk::run(tx.connection(), &statement, values.collect()).await?;
    let statement =
        format!("UPDATE {table} SET {reset_at} = NULL, {period} = NULL WHERE {key} IN (VALUES {{}})");
    bulk::run(tx.connection(), &statement, ended.iter().map(|(id, _)| vec![id.as_str().into()]).collect())
        .await?;
    match prefix {
        Some(prefix) => {
            for (id, _) in again.iter().chain(&ended) {
                tx.record_changed(format!("{prefix}{id}"));
                // The grant of the key shows when the period ends.
                windows::owners(id).into_iter().for_each(|owner| tx.record_changed(owner));
            }
            Ok(())
        }
        None => restart_linked(tx, config, again.iter().map(|(id, _)| id.as_str()).collect()).await,
    }
}

/// What is stored as a period may be anything (it may come from another database): then a day.
fn next_or_midnight(period: &str, now_ms: i64, zone: &TimeZone) -> i64 {
    next_reset(period, now_ms, zone)
        .or_else(|_| next_reset("1d", now_ms, zone))
        .unwrap_or(now_ms.saturating_add(86_400_000))
}

/// Those whose spend is limited by one of these budgets start again with it.
async fn restart_linked(tx: &mut Tx, config: &Config, budgets: Vec<&str>) -> Result<(), DbError> {
    let ids = || budgets.iter().map(|id| vec![Stored::from(*id)]).collect::<Vec<_>>();
    let linked = "budget_id IN (VALUES {})";
    // A key with a period of its own starts again by that.
    for (table, condition, meter) in [
        ("tollgate_keys", " AND budget_duration IS NULL", "'key:' || token"),
        ("tollgate_end_users", "", "'end_user:' || user_id"),
        ("tollgate_team_members", "", "'member:' || team_id || '/' || user_id"),
        ("tollgate_organizations", "", "'org:' || organization_id"),
        ("tollgate_organization_members", "", "'org_member:' || organization_id || '/' || user_id"),
    ] {
        let sql = format!("UPDATE {table} SET spend = 0 WHERE {linked}{condition} RETURNING {meter}");
        for row in bulk::run(tx.connection(), &sql, ids()).await? {
            tx.record_changed(row.try_get::<String, _>(0)?);
        }
    }
    // End users without a budget have the default one.
    if config.ledger.end_user_budget_id.as_deref().is_some_and(|default| budgets.contains(&default)) {
        let sql = "UPDATE tollgate_end_users SET spend = 0 WHERE budget_id IS NULL RETURNING 'end_user:' || user_id";
        for row in rows::rows(tx.connection(), sql, Vec::new()).await? {
            tx.record_changed(row.try_get::<String, _>(0)?);
        }
    }
    Ok(())
}

/// Gives the spend of the whole gateway the period that the configuration says.
async fn keep_global(app: &App, config: &Config, now_ms: i64) -> Result<(), DbError> {
    let wanted = &config.ledger.global_budget_duration;
    let sql = "SELECT period FROM tollgate_windows WHERE meter = 'global'";
    let mut connection = app.db.read().await?;
    let found = rows::rows(&mut connection, sql, Vec::new()).await?;
    let is = found.first().map(|row| row.try_get::<Option<String>, _>(0)).transpose()?.flatten();
    if is == *wanted {
        return Ok(());
    }
    drop(connection);
    let next = wanted.as_deref().map(|period| next_or_midnight(period, now_ms, &zone(config)));
    let mut tx = app.db.write().await?;
    rows::run(
        tx.connection(),
        "INSERT INTO tollgate_windows (meter, spend, period, reset_at) VALUES ('global', 0, $1, $2) \
         ON CONFLICT (meter) DO UPDATE SET period = excluded.period, reset_at = excluded.reset_at",
        vec![wanted.clone().into(), next.into()],
    )
    .await?;
    tx.record_changed("global");
    tx.commit().await?;
    Ok(())
}

/// Years are always after 0 here, and all other parts of a date are below 60.
fn civil(shown: DateTime) -> Civil {
    let part = |value: i8| u8::try_from(value).unwrap_or_default();
    Civil {
        year: shown.year().into(),
        month: part(shown.month()),
        day: part(shown.day()),
        hour: part(shown.hour()),
        minute: part(shown.minute()),
        second: part(shown.second()),
    }
}

fn date_time(civil: Civil) -> Option<DateTime> {
    let part = |value: u8| i8::try_from(value).ok();
    let year = i16::try_from(civil.year).ok()?;
    let (month, day, hour) = (part(civil.month)?, part(civil.day)?, part(civil.hour)?);
    DateTime::new(year, month, day, hour, part(civil.minute)?, part(civil.second)?, 0).ok()
}

#[cfg(test)]
mod tests;
