//! What changed since a revision, for nodes to catch up.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AnyConnection, Row as _};

use crate::{
    control::ledger::{
        bulk,
        db::DbError,
        rows::{self, Stored},
        windows,
    },
    core::protocol::Change,
};

/// Changes told at a time.
const PAGE: usize = 1_000;
/// More changes than this in one revision are not told one by one: the node forgets everything instead.
const MOST: usize = 10_000;

/// A part of the feed.
#[derive(Debug, Default)]
pub struct Page {
    /// See [`SyncReply`](crate::core::protocol::SyncReply).
    pub changes: Vec<Change>,
    /// The revision up to which it goes.
    pub cursor: u64,
    /// It begins later than what was asked for.
    pub reset: bool,
    /// There is more.
    pub more: bool,
}

/// Changes after `cursor`, in a snapshot at `revision`, and the totals of `also`. With `lazy_ms` (now), spend of periods that
/// are over counts as nothing.
pub async fn page(
    connection: &mut AnyConnection,
    cursor: u64,
    revision: i64,
    also: &BTreeSet<&str>,
    lazy_ms: Option<i64>,
) -> Result<Page, DbError> {
    let after = i64::try_from(cursor).unwrap_or(i64::MAX);
    let now = u64::try_from(revision).unwrap_or_default();
    let mut page = Page { cursor: now, ..Page::default() };
    // A node that starts has copied nothing yet; one from the future has seen another database.
    if after == 0 || after > revision {
        page.reset = true;
    } else {
        let mut found = read(connection, after, PAGE).await?;
        // A revision is told whole or not at all, so what the page ends in waits for the next one …
        if let Some(last) = found.get(PAGE).map(|change| change.revision) {
            page.more = true;
            found.retain(|change| change.revision < last);
            if found.is_empty() {
                // … unless it fills a page alone.
                found = read(connection, after, MOST).await?;
                found.retain(|change| change.revision == last);
                page.more = last < now;
            }
            page.cursor = found.last().map_or(now, |change| change.revision);
        }
        if found.len() > MOST {
            (page.reset, page.more, page.cursor) = (true, false, now);
            found.clear();
        }
        page.changes = found;
    }
    if page.reset {
        page.changes.extend(places(connection, now).await?);
    }
    let told: BTreeSet<String> = page.changes.iter().map(|change| change.meter.clone()).collect();
    let rest = also.iter().filter(|meter| !told.contains(**meter));
    page.changes.extend(rest.map(|meter| Change {
        meter: (*meter).to_owned(),
        revision: now,
        ..Change::default()
    }));
    let mut spend =
        spend(connection, page.changes.iter().map(|change| change.meter.as_str()), lazy_ms).await?;
    for change in &mut page.changes {
        change.spend = spend.remove(&change.meter);
    }
    Ok(page)
}

/// Deployments and providers that have spent something of a budget. They have no record that a node would ask for, so one that
/// starts is told of them.
async fn places(connection: &mut AnyConnection, revision: u64) -> Result<Vec<Change>, DbError> {
    let sql = format!(
        "SELECT meter FROM tollgate_windows WHERE meter LIKE 'deployment:%' OR meter LIKE 'provider:%' LIMIT {MOST}"
    );
    let found = rows::rows(connection, &sql, Vec::new()).await?;
    let change =
        |row: &sqlx::any::AnyRow| Ok(Change { meter: row.try_get(0)?, revision, ..Change::default() });
    found.iter().map(change).collect()
}

/// The oldest changes after a revision: `limit` and one more, when there are more.
async fn read(connection: &mut AnyConnection, after: i64, limit: usize) -> Result<Vec<Change>, DbError> {
    let sql = format!(
        "SELECT meter, revision, record_revision FROM tollgate_changes WHERE revision > $1 ORDER BY revision LIMIT {}",
        limit + 1
    );
    let mut changes = Vec::new();
    for row in rows::rows(connection, &sql, vec![after.into()]).await? {
        let number = |at: usize| row.try_get::<i64, _>(at);
        changes.push(Change {
            meter: row.try_get(0)?,
            revision: u64::try_from(number(1)?).unwrap_or_default(),
            record: number(2)? > after,
            record_revision: u64::try_from(number(2)?).unwrap_or_default(),
            spend: None,
        });
    }
    Ok(changes)
}

/// The spend of meters, by name; those that have none are left out.
pub async fn spend<'m>(
    connection: &mut AnyConnection,
    meters: impl Iterator<Item = &'m str>,
    lazy_ms: Option<i64>,
) -> Result<BTreeMap<String, i64>, DbError> {
    let mut found = BTreeMap::new();
    let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for meter in meters {
        let (kind, id) = meter.split_once(':').unwrap_or((meter, ""));
        kinds.entry(kind).or_default().push(id);
        // Where nothing was spent yet there is no row.
        if is_window(meter) || kind == "end_user" {
            found.insert(meter.to_owned(), 0);
        }
    }
    for (kind, ids) in kinds {
        let Some(statement) = statement(kind) else { continue };
        let all = ids.into_iter().flat_map(|id| names(kind, id)).collect();
        for row in bulk::run(connection, statement, all).await? {
            let (meter, spend): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            let reset_at: Option<i64> = row.try_get(2)?;
            let is_over = lazy_ms.is_some_and(|now| reset_at.is_some_and(|at| at <= now));
            found.insert(meter, if is_over { 0 } else { spend });
        }
    }
    Ok(found)
}

/// Whether a meter's spend is a row of its own, which is there once something was spent.
fn is_window(meter: &str) -> bool {
    let kind = meter.split_once(':').map_or(meter, |(kind, _)| kind);
    matches!(kind, "global" | "deployment" | "provider") || windows::is_held(meter)
}

/// What identifies the row of a meter; several when its name can be read in several ways.
fn names(kind: &str, id: &str) -> Vec<Vec<Stored>> {
    match kind {
        "global" => vec![vec!["global".into()]],
        "member" | "org_member" => windows::pairs(id),
        _ if is_window(&format!("{kind}:")) => vec![vec![format!("{kind}:{id}").into()]],
        _ => vec![vec![id.into()]],
    }
}

/// Meter, spend, and when a period ends.
fn statement(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "key" => {
            "WITH v (id) AS (VALUES {}) \
             SELECT 'key:' || v.id, k.spend, CASE WHEN k.budget_duration IS NOT NULL THEN k.budget_reset_at \
             WHEN b.budget_duration IS NOT NULL THEN b.budget_reset_at END FROM v \
             JOIN tollgate_keys k ON k.token = v.id OR k.first_token = v.id \
             LEFT JOIN tollgate_budgets b ON b.budget_id = k.budget_id"
        }
        "user" => {
            "SELECT 'user:' || user_id, spend, CASE WHEN budget_duration IS NOT NULL THEN budget_reset_at END \
             FROM tollgate_users WHERE user_id IN (VALUES {})"
        }
        "team" => {
            "SELECT 'team:' || team_id, spend, CASE WHEN budget_duration IS NOT NULL THEN budget_reset_at END \
             FROM tollgate_teams WHERE team_id IN (VALUES {})"
        }
        "member" => {
            // A join: SQLite uses no index for pairs in a list.
            "WITH v (team_id, user_id) AS (VALUES {}) SELECT 'member:' || m.team_id || '/' || m.user_id, m.spend, \
             CASE WHEN b.budget_duration IS NOT NULL THEN b.budget_reset_at END FROM v \
             JOIN tollgate_team_members m ON m.team_id = v.team_id AND m.user_id = v.user_id \
             LEFT JOIN tollgate_budgets b ON b.budget_id = m.budget_id"
        }
        "org" => {
            "SELECT 'org:' || o.organization_id, o.spend, \
             CASE WHEN b.budget_duration IS NOT NULL THEN b.budget_reset_at END FROM tollgate_organizations o \
             LEFT JOIN tollgate_budgets b ON b.budget_id = o.budget_id WHERE o.organization_id IN (VALUES {})"
        }
        "org_member" => {
            "WITH v (organization_id, user_id) AS (VALUES {}) \
             SELECT 'org_member:' || m.organization_id || '/' || m.user_id, m.spend, \
             CASE WHEN b.budget_duration IS NOT NULL THEN b.budget_reset_at END FROM v \
             JOIN tollgate_organization_members m ON m.organization_id = v.organization_id AND m.user_id = v.user_id \
             LEFT JOIN tollgate_budgets b ON b.budget_id = m.budget_id"
        }
        "end_user" => {
            "SELECT 'end_user:' || e.user_id, e.spend, \
             CASE WHEN b.budget_duration IS NOT NULL THEN b.budget_reset_at END FROM tollgate_end_users e \
             LEFT JOIN tollgate_budgets b ON b.budget_id = e.budget_id WHERE e.user_id IN (VALUES {})"
        }
        _ if is_window(&format!("{kind}:")) => {
            "SELECT meter, spend, reset_at FROM tollgate_windows WHERE meter IN (VALUES {})"
        }
        _ => return None,
    })
}
