//! What a batch adds to the spend of everybody it concerns.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Row as _, any::AnyRow};

use super::bounded::METER;
use crate::{
    control::ledger::{
        alerts::{Crossing, Entity},
        bulk,
        db::{DbError, Tx},
        former, resets,
        rows::Stored,
        windows,
    },
    core::{config::Config, model::call_record::CallRecord, protocol::Batch},
};

/// All events of a batch that used something, with the number of calls each stands for; aggregated sums too.
pub fn events(batch: &Batch) -> impl Iterator<Item = (&CallRecord, u64)> {
    let single = batch.events.iter().filter(|event| !event.refused).map(|event| (event, 1));
    single.chain(batch.aggregated.iter().map(|aggregated| (&aggregated.sum, aggregated.calls)))
}

/// Amounts by who is charged. Sorted, so that every ledger touches rows in the same order.
#[derive(Default)]
struct Sums<'b> {
    keys: BTreeMap<[&'b str; 1], i64>,
    users: BTreeMap<[&'b str; 1], i64>,
    teams: BTreeMap<[&'b str; 1], i64>,
    members: BTreeMap<[&'b str; 2], i64>,
    organizations: BTreeMap<[&'b str; 1], i64>,
    organization_members: BTreeMap<[&'b str; 2], i64>,
    end_users: BTreeMap<[&'b str; 1], i64>,
    windows: BTreeMap<[&'b str; 1], i64>,
    /// Periods of windows that the nodes tell.
    periods: BTreeMap<&'b str, Option<&'b str>>,
    /// Meters that were charged on the node, with spend.
    budgeted_meters: BTreeSet<&'b str>,
}

impl<'b> Sums<'b> {
    fn of(batch: &'b Batch) -> Sums<'b> {
        let mut sums = Sums::default();
        for (event, _) in events(batch) {
            sums.add(event);
        }
        sums
    }

    fn add(&mut self, event: &'b CallRecord) {
        let spend = event.spend;
        for charged in
            event.meter_charges.iter().filter(|charged| is_place(&charged.meter) && charged.spend != 0)
        {
            put(&mut self.windows, [&charged.meter], charged.spend);
            self.periods.insert(&charged.meter, charged.period.as_deref());
            self.budgeted_meters.insert(&charged.meter);
        }
        let (user, team) = (filled(&event.user), filled(&event.team));
        let organization = filled(&event.organization);
        if let Some(end_user) = filled(&event.end_user) {
            put(&mut self.end_users, [end_user], spend);
        }
        if spend == 0 {
            return;
        }
        put(&mut self.keys, [&event.api_key], spend);
        put(&mut self.windows, ["global"], spend.saturating_sub(event.mocked));
        if let Some(user) = user {
            put(&mut self.users, [user], spend);
        }
        if let Some(team) = team {
            put(&mut self.teams, [team], spend);
        }
        if let Some(organization) = organization {
            put(&mut self.organizations, [organization], spend);
        }
        if let (Some(team), Some(user)) = (team, user) {
            put(&mut self.members, [team, user], spend);
        }
        if let (Some(organization), Some(user)) = (organization, user) {
            put(&mut self.organization_members, [organization, user], spend);
        }
        for meter in event.budgeted_meters.iter().filter(|meter| meter.len() <= METER) {
            self.budgeted_meters.insert(meter);
            // Only the node knows which budgets by model and by period a call counted for.
            if windows::is_held(meter) {
                put(&mut self.windows, [meter], spend);
            }
        }
    }
}

/// Whether a meter is a deployment's or a provider's.
fn is_place(meter: &str) -> bool {
    meter.len() <= METER && (meter.starts_with("deployment:") || meter.starts_with("provider:"))
}

fn filled(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

fn put<'b, const N: usize>(sums: &mut BTreeMap<[&'b str; N], i64>, key: [&'b str; N], spend: i64) {
    let sum = sums.entry(key).or_default();
    // The least number has no opposite: sums stay above it.
    *sum = sum.saturating_add(spend).max(-i64::MAX);
}

/// Adds a batch's spend to all rows it concerns and notes the meters that changed. Says which budgets were crossed.
pub async fn apply(
    tx: &mut Tx,
    config: &Config,
    batch: &Batch,
    now_ms: i64,
) -> Result<Vec<Crossing>, DbError> {
    let sums = Sums::of(batch);
    let mut crossings = Vec::new();
    let shown = "RETURNING tollgate_keys.token, tollgate_keys.spend, tollgate_keys.max_budget, \
                 tollgate_keys.soft_budget, tollgate_keys.key_alias, tollgate_keys.user_id, tollgate_keys.team_id";
    let keys = add(tx, "tollgate_keys", ["token"], &sums.keys, shown).await?;
    crossed(&mut crossings, Entity::Key, &keys, &sums.keys)?;
    // Calls that were under way when their key got a new value.
    let found: BTreeSet<String> = keys.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let lost = || sums.keys.iter().filter(|([hash], _)| !found.contains(*hash));
    let current = former::current(tx.connection(), lost().map(|([hash], _)| *hash)).await?;
    let mut late = BTreeMap::new();
    for ([hash], spend) in lost() {
        if let Some(now) = current.get(*hash) {
            put(&mut late, [now.as_str()], *spend);
        }
    }
    let keys = add(tx, "tollgate_keys", ["token"], &late, shown).await?;
    crossed(&mut crossings, Entity::Key, &keys, &late)?;
    let shown = "RETURNING tollgate_users.user_id, tollgate_users.spend, tollgate_users.max_budget, \
                 CAST(NULL AS BIGINT) AS soft, tollgate_users.user_alias, tollgate_users.user_id AS u, \
                 CAST(NULL AS TEXT) AS t";
    let users = add(tx, "tollgate_users", ["user_id"], &sums.users, shown).await?;
    crossed(&mut crossings, Entity::User, &users, &sums.users)?;
    let shown = "RETURNING tollgate_teams.team_id, tollgate_teams.spend, tollgate_teams.max_budget, \
                 CAST(NULL AS BIGINT) AS soft, tollgate_teams.team_alias, CAST(NULL AS TEXT) AS u, \
                 tollgate_teams.team_id AS t";
    let teams = add(tx, "tollgate_teams", ["team_id"], &sums.teams, shown).await?;
    crossed(&mut crossings, Entity::Team, &teams, &sums.teams)?;
    add(tx, "tollgate_team_members", ["team_id", "user_id"], &sums.members, "").await?;
    add(tx, "tollgate_organizations", ["organization_id"], &sums.organizations, "").await?;
    let members = &sums.organization_members;
    add(tx, "tollgate_organization_members", ["organization_id", "user_id"], members, "").await?;
    add_end_users(tx, config, &sums.end_users).await?;
    add_windows(tx, config, &sums.windows, &sums.periods, now_ms).await?;
    for meter in sums.budgeted_meters {
        tx.spend_changed(meter);
    }
    Ok(crossings)
}

/// Adds to rows that are there.
async fn add<const N: usize>(
    tx: &mut Tx,
    table: &str,
    key: [&str; N],
    sums: &BTreeMap<[&str; N], i64>,
    returning: &str,
) -> Result<Vec<AnyRow>, DbError> {
    let same: Vec<String> = key.iter().map(|column| format!("{table}.{column} = v.{column}")).collect();
    let statement = format!(
        "WITH v ({}, delta) AS (VALUES {{}}) UPDATE {table} SET spend = {} FROM v WHERE {} {returning}",
        key.join(", "),
        bulk::sum(&format!("{table}.spend"), "v.delta"),
        same.join(" AND "),
    );
    let all = sums.iter().map(|(key, delta)| {
        key.iter().map(|text| Stored::from(*text)).chain([Stored::from(*delta)]).collect()
    });
    bulk::run(tx.connection(), &statement, all.collect()).await
}

/// End users come into being with their first call.
async fn add_end_users(tx: &mut Tx, config: &Config, sums: &BTreeMap<[&str; 1], i64>) -> Result<(), DbError> {
    let budget = &config.ledger.end_user_budget_id;
    let statement = format!(
        "INSERT INTO tollgate_end_users (user_id, spend, budget_id, blocked) VALUES {{}} \
         ON CONFLICT (user_id) DO UPDATE SET spend = {}",
        bulk::sum("tollgate_end_users.spend", "excluded.spend"),
    );
    let all = sums
        .iter()
        .map(|([id], spend)| vec![(*id).into(), (*spend).into(), budget.clone().into(), 0.into()])
        .collect();
    bulk::run(tx.connection(), &statement, all).await?;
    Ok(())
}

/// Adds to spend with a period of its own, and starts the period where it is new or another one.
async fn add_windows(
    tx: &mut Tx,
    config: &Config,
    sums: &BTreeMap<[&str; 1], i64>,
    told: &BTreeMap<&str, Option<&str>>,
    now_ms: i64,
) -> Result<(), DbError> {
    let statement = format!(
        "INSERT INTO tollgate_windows (meter, spend) VALUES {{}} ON CONFLICT (meter) DO UPDATE SET spend = {} \
         RETURNING meter, period",
        bulk::sum("tollgate_windows.spend", "excluded.spend"),
    );
    let all = sums.iter().map(|([meter], spend)| vec![(*meter).into(), (*spend).into()]).collect();
    let rows = bulk::run(tx.connection(), &statement, all).await?;
    let mut periods: BTreeMap<String, Option<String>> = BTreeMap::new();
    for row in rows {
        periods.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let mut wanted = windows::periods(tx.connection(), periods.keys().map(String::as_str)).await?;
    // A period that nobody can read is none.
    let readable = |period: &&str| resets::next_reset(period, now_ms, &resets::zone(config)).is_ok();
    wanted.extend(
        told.iter().map(|(meter, period)| ((*meter).to_owned(), period.filter(readable).map(str::to_owned))),
    );
    let zone = resets::zone(config);
    let changed: Vec<Vec<Stored>> = wanted
        .into_iter()
        .filter(|(meter, period)| periods.get(meter) != Some(period))
        .map(|(meter, period)| {
            let reset_at =
                period.as_deref().and_then(|period| resets::next_reset(period, now_ms, &zone).ok());
            vec![meter.into(), period.into(), reset_at.into()]
        })
        .collect();
    let statement = "WITH v (meter, period, reset_at) AS (VALUES {}) UPDATE tollgate_windows \
                     SET period = v.period, reset_at = v.reset_at FROM v WHERE tollgate_windows.meter = v.meter";
    bulk::run(tx.connection(), statement, changed).await?;
    Ok(())
}

/// Budgets that were not used up before and are now. Rows: id, spend, max, soft, alias, user, team.
fn crossed(
    crossings: &mut Vec<Crossing>,
    entity: Entity,
    rows: &[AnyRow],
    sums: &BTreeMap<[&str; 1], i64>,
) -> Result<(), DbError> {
    for row in rows {
        let id: String = row.try_get(0)?;
        let spend: i64 = row.try_get(1)?;
        let (max, soft): (Option<i64>, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
        let before = spend.saturating_sub(sums.get(&[id.as_str()]).copied().unwrap_or(0));
        let passed = |limit: Option<i64>| limit.is_some_and(|limit| before < limit && limit <= spend);
        if !passed(max) && !passed(soft) {
            continue;
        }
        crossings.push(Crossing {
            entity,
            id,
            is_hard: passed(max),
            spend,
            max_budget: max,
            soft_budget: soft,
            alias: row.try_get(4)?,
            user: row.try_get(5)?,
            team: row.try_get(6)?,
        });
    }
    Ok(())
}
