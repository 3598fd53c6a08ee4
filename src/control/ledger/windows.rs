//! Spend that has a period of its own because it is for one model of somebody (`key_model:<key>/<model>`, `team_model:…`) or for
//! one of several budgets (`key_window:<key>/<period>`, …).
//!
//! Only a node knows for which of these budgets a call counted, so it says so ([`CallRecord::budgeted_meters`](crate::core::model::call_record::CallRecord)).
//! The period is what the record of the key, team, member, user, organization or customer says.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use serde_json::{Value, json};
use sqlx::{AnyConnection, Row as _};

use super::{
    bulk,
    db::DbError,
    resets,
    route::Call,
    rows::{self, Record, Stored},
};
use crate::core::model::limits::Budget;

/// Somebody who can have budgets by model, or several budgets.
struct Holder {
    /// What the meters of these begin with.
    prefix: &'static str,
    /// What its own meter begins with.
    owner: &'static str,
    /// Its id, these budgets, and those of the budget that it shares.
    budgets: &'static str,
    /// What identifies its row; several when its id can be read in several ways.
    names: fn(&str) -> Vec<Vec<Stored>>,
    /// Reads them.
    read: fn(&Value) -> HashMap<String, Budget>,
}

const HOLDERS: [Holder; 9] = [
    Holder {
        prefix: "key_model:",
        owner: "key:",
        budgets: "WITH v (id) AS (VALUES {}) SELECT v.id, k.model_max_budget, b.model_max_budget FROM v \
                  JOIN tollgate_keys k ON k.first_token = v.id OR k.token = v.id \
                  LEFT JOIN tollgate_budgets b ON b.budget_id = k.budget_id",
        names: whole,
        read: budgets,
    },
    Holder {
        prefix: "team_model:",
        owner: "team:",
        budgets: "SELECT team_id, model_max_budget, CAST(NULL AS TEXT) FROM tollgate_teams WHERE team_id IN (VALUES {})",
        names: whole,
        read: budgets,
    },
    Holder {
        prefix: "user_model:",
        owner: "user:",
        budgets: "SELECT user_id, model_max_budget, CAST(NULL AS TEXT) FROM tollgate_users WHERE user_id IN (VALUES {})",
        names: whole,
        read: budgets,
    },
    Holder {
        prefix: "member_model:",
        owner: "member:",
        // A join: SQLite uses no index for pairs in a list.
        budgets: "WITH v (team_id, user_id) AS (VALUES {}) SELECT m.team_id || '/' || m.user_id, CAST(NULL AS TEXT), \
                  b.model_max_budget FROM v \
                  JOIN tollgate_team_members m ON m.team_id = v.team_id AND m.user_id = v.user_id \
                  JOIN tollgate_budgets b ON b.budget_id = m.budget_id",
        names: pairs,
        read: budgets,
    },
    Holder {
        prefix: "org_model:",
        owner: "org:",
        budgets: "SELECT o.organization_id, CAST(NULL AS TEXT), b.model_max_budget FROM tollgate_organizations o \
                  JOIN tollgate_budgets b ON b.budget_id = o.budget_id WHERE o.organization_id IN (VALUES {})",
        names: whole,
        read: budgets,
    },
    Holder {
        prefix: "end_user_model:",
        owner: "end_user:",
        budgets: "SELECT e.user_id, CAST(NULL AS TEXT), b.model_max_budget FROM tollgate_end_users e \
                  JOIN tollgate_budgets b ON b.budget_id = e.budget_id WHERE e.user_id IN (VALUES {})",
        names: whole,
        read: budgets,
    },
    Holder {
        prefix: "key_window:",
        owner: "key:",
        budgets: "WITH v (id) AS (VALUES {}) SELECT v.id, k.budget_limits, CAST(NULL AS TEXT) FROM v \
                  JOIN tollgate_keys k ON k.first_token = v.id OR k.token = v.id",
        names: whole,
        read: by_period,
    },
    Holder {
        prefix: "team_window:",
        owner: "team:",
        budgets: "SELECT team_id, budget_limits, CAST(NULL AS TEXT) FROM tollgate_teams WHERE team_id IN (VALUES {})",
        names: whole,
        read: by_period,
    },
    Holder {
        prefix: "user_window:",
        owner: "user:",
        budgets: "SELECT user_id, budget_limits, CAST(NULL AS TEXT) FROM tollgate_users WHERE user_id IN (VALUES {})",
        names: whole,
        read: by_period,
    },
];

fn whole(id: &str) -> Vec<Vec<Stored>> {
    vec![vec![id.into()]]
}

/// The team and the user of a member, with a `/` between them that can be part of either.
pub fn pairs(id: &str) -> Vec<Vec<Stored>> {
    let split = |at: usize| Some(vec![id.get(..at)?.into(), id.get(at + 1..)?.into()]);
    id.match_indices('/').filter_map(|(at, _)| split(at)).collect()
}

/// Whether a meter is for one model of somebody, or for one of several budgets.
pub fn is_held(meter: &str) -> bool {
    HOLDERS.iter().any(|holder| meter.starts_with(holder.prefix))
}

/// Whose budget such a meter may be: a `/` can be part of ids and of names of models.
fn readings(holder: &Holder, meter: &str) -> Vec<(String, String)> {
    let Some(rest) = meter.strip_prefix(holder.prefix) else { return Vec::new() };
    let split = |at: usize| Some((rest.get(..at)?.to_owned(), rest.get(at + 1..)?.to_owned()));
    rest.match_indices('/').filter_map(|(at, _)| split(at)).collect()
}

/// The meters of those whose record says when the period of such a meter ends.
pub fn owners(meter: &str) -> Vec<String> {
    let of = |holder: &Holder| {
        readings(holder, meter).into_iter().map(|(id, _)| format!("{}{id}", holder.owner)).collect::<Vec<_>>()
    };
    HOLDERS.iter().flat_map(of).collect()
}

/// Budgets for single models: `{"budget_limit": 1, "time_period": "1d"}`, or with the names that budgets have elsewhere.
pub fn budgets(column: &Value) -> HashMap<String, Budget> {
    let Some(models) = column.as_object() else { return HashMap::new() };
    let one = |value: &Value| match value {
        Value::Object(map) => Budget {
            max: map.get("budget_limit").or_else(|| map.get("max_budget")).and_then(rows::money),
            duration: map
                .get("time_period")
                .or_else(|| map.get("budget_duration"))
                .and_then(Value::as_str)
                .map(str::to_owned),
            ..Budget::default()
        },
        plain => Budget { max: rows::money(plain), ..Budget::default() },
    };
    models.iter().map(|(model, value)| (model.clone(), one(value))).collect()
}

/// Budgets side by side, in their order: `[{"budget_duration": "1d", "max_budget": 10}]`. Of two with the same period the lower holds.
pub fn several(column: &Value) -> Vec<Budget> {
    let mut list: Vec<Budget> = Vec::new();
    for item in column.as_array().into_iter().flatten() {
        let (Some(max), Some(period)) = (
            item.get("max_budget").and_then(rows::money),
            item.get("budget_duration").and_then(Value::as_str),
        ) else {
            continue;
        };
        match list.iter_mut().find(|budget| budget.duration.as_deref() == Some(period)) {
            Some(there) => there.max = there.max.min(Some(max)),
            None => {
                list.push(Budget { max: Some(max), duration: Some(period.to_owned()), ..Budget::default() })
            }
        }
    }
    list
}

fn by_period(column: &Value) -> HashMap<String, Budget> {
    let of = |budget: Budget| (budget.duration.clone().unwrap_or_default(), budget);
    several(column).into_iter().map(of).collect()
}

/// The periods that these meters have by the records of their holders. Other meters are left out.
pub async fn periods<'m>(
    connection: &mut AnyConnection,
    meters: impl Iterator<Item = &'m str>,
) -> Result<BTreeMap<String, Option<String>>, DbError> {
    let meters: Vec<&str> = meters.filter(|meter| is_held(meter)).collect();
    let mut found = BTreeMap::new();
    for holder in &HOLDERS {
        let read: Vec<(&str, Vec<(String, String)>)> = meters
            .iter()
            .filter(|meter| meter.starts_with(holder.prefix))
            .map(|meter| (*meter, readings(holder, meter)))
            .collect();
        let ids: BTreeSet<&str> =
            read.iter().flat_map(|(_, readings)| readings).map(|(id, _)| id.as_str()).collect();
        if ids.is_empty() {
            continue;
        }
        let ids = ids.into_iter().flat_map(holder.names).collect();
        let mut all = BTreeMap::new();
        for row in bulk::run(connection, holder.budgets, ids).await? {
            let parsed = |at: usize| -> Result<_, DbError> {
                let text: Option<String> = row.try_get(at)?;
                Ok((holder.read)(&text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()))
            };
            let own = parsed(1)?;
            all.insert(row.try_get::<String, _>(0)?, if own.is_empty() { parsed(2)? } else { own });
        }
        for (meter, readings) in read {
            let budget = readings.iter().find_map(|(id, model)| all.get(id)?.get(model));
            found.insert(meter.to_owned(), budget.and_then(|budget| budget.duration.clone()));
        }
    }
    Ok(found)
}

/// Fills in what was spent of budgets by model or by period; `holder` is the kind and the id of their meters. With `lazy`, spend
/// of a period that is over at `now_ms` counts as nothing.
pub async fn spend(
    connection: &mut AnyConnection,
    holder: (&str, &str),
    mut budgets: HashMap<String, &mut Budget>,
    now_ms: i64,
    lazy: bool,
) -> Result<(), DbError> {
    let start = format!("{}:{}/", holder.0, holder.1);
    let meters: Vec<String> = budgets.keys().map(|name| format!("{start}{name}")).collect();
    for (meter, (spend, reset_at)) in standing(connection, &meters).await? {
        if let Some(budget) = budgets.get_mut(meter.strip_prefix(&start).unwrap_or_default()) {
            let is_over = lazy && reset_at.is_some_and(|at| at <= now_ms);
            budget.spend = if is_over { 0 } else { spend };
            budget.reset_at_ms = reset_at.and_then(|at| u64::try_from(at).ok());
        }
    }
    Ok(())
}

/// What was spent by these meters, and when their period ends.
async fn standing(
    connection: &mut AnyConnection,
    meters: &[String],
) -> Result<BTreeMap<String, (i64, Option<i64>)>, DbError> {
    let sql = "SELECT meter, spend, reset_at FROM tollgate_windows WHERE meter IN (VALUES {})";
    let names = meters.iter().map(|meter| vec![Stored::from(meter.as_str())]).collect();
    let mut found = BTreeMap::new();
    for row in bulk::run(connection, sql, names).await? {
        found.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?));
    }
    Ok(found)
}

/// Shows rows of keys, teams or users (`owner`) with the end of the period of each of their budgets side by side, and, when `used`,
/// what was spent of each in `budget_limits_usage`.
pub async fn attach(
    connection: &mut AnyConnection,
    call: &Call,
    owner: &str,
    records: &mut [Record],
    used: bool,
) -> Result<(), DbError> {
    let id_of = |row: &Record| {
        let name = if owner == "key" { "token".to_owned() } else { format!("{owner}_id") };
        row.get(&name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let has = |row: &&Record| row.get("budget_limits").is_some_and(Value::is_array);
    let ids: Vec<String> = records.iter().filter(has).map(id_of).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let mut counted = BTreeMap::new();
    if owner == "key" {
        let sql = "SELECT token, first_token FROM tollgate_keys WHERE first_token IS NOT NULL AND token IN (VALUES {})";
        let ids = ids.iter().map(|id| vec![Stored::from(id.as_str())]).collect();
        for row in bulk::run(connection, sql, ids).await? {
            counted.insert(row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?);
        }
    }
    let meter = |id: &str, period: &str| {
        format!("{owner}_window:{}/{period}", counted.get(id).map_or(id, String::as_str))
    };
    let periods = |row: &Record| several(row.get("budget_limits").unwrap_or(&Value::Null));
    let named = |row: &Record| -> Vec<String> {
        let id = id_of(row);
        periods(row).iter().filter_map(|budget| Some(meter(&id, budget.duration.as_deref()?))).collect()
    };
    let meters: Vec<String> = records.iter().filter(has).flat_map(named).collect();
    let standing = standing(connection, &meters).await?;
    let (zone, now_ms) = (resets::zone(&call.app.config()), call.now_ms);
    for row in records.iter_mut() {
        let id = id_of(row);
        let Some(list) = row.get_mut("budget_limits").and_then(Value::as_array_mut) else { continue };
        let mut usage = Record::new();
        for budget in list.iter_mut().filter_map(Value::as_object_mut) {
            let period = budget.get("budget_duration").and_then(Value::as_str).unwrap_or_default().to_owned();
            let there = standing.get(&meter(&id, &period));
            // A period that is over starts again within a second.
            let open = there.and_then(|(spend, at)| Some((*spend, at.filter(|at| *at > now_ms)?)));
            let at = open.map(|(_, at)| at).or_else(|| resets::next_reset(&period, now_ms, &zone).ok());
            budget.insert("reset_at".to_owned(), at.map_or(Value::Null, rows::time_text));
            let spend = rows::dollars(open.map_or(0, |(spend, _)| spend));
            usage.insert(period, json!({"current_spend": spend}));
        }
        if used {
            row.insert("budget_limits_usage".to_owned(), Value::Object(usage));
        }
    }
    Ok(())
}

/// Forgets what a team, a user or a member (`owner`) with this id spent by model and by period: whoever has the id later has spent
/// nothing yet. `row` says which budgets there were.
pub async fn forget(
    connection: &mut AnyConnection,
    owner: &str,
    id: &str,
    row: &Record,
) -> Result<(), DbError> {
    let mut gone = Vec::new();
    for (kind, column) in [("model", "model_max_budget"), ("window", "budget_limits")] {
        let meter = format!("{owner}_{kind}:");
        let Some(holder) = HOLDERS.iter().find(|holder| holder.prefix == meter) else { continue };
        let budgets = (holder.read)(row.get(column).unwrap_or(&Value::Null));
        gone.extend(budgets.into_keys().map(|name| vec![Stored::from(format!("{meter}{id}/{name}"))]));
    }
    bulk::run(connection, "DELETE FROM tollgate_windows WHERE meter IN (VALUES {})", gone).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
