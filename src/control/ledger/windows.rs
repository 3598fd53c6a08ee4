//! Spend that has a period of its own because it is for one model of somebody: `key_model:<key>/<model>`, `team_model:…`.
//!
//! Only a node knows for which of these budgets a call counted, so it says so ([`Event::metered`](crate::core::ledger::Event)).
//! The period is what the record of the key, team, user, organization or customer says.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use serde_json::Value;
use sqlx::{AnyConnection, Row as _};

use super::{
    bulk,
    db::DbError,
    rows::{self, Stored},
};
use crate::core::access::grant::Budget;

/// Somebody who can have budgets by model.
struct Holder {
    /// What its meters by model begin with.
    prefix: &'static str,
    /// What its own meter begins with.
    owner: &'static str,
    /// Its id, its budgets by model, and those of the budget that it shares.
    budgets: &'static str,
}

const HOLDERS: [Holder; 5] = [
    Holder {
        prefix: "key_model:",
        owner: "key:",
        budgets: "WITH v (id) AS (VALUES {}) SELECT v.id, k.model_max_budget, b.model_max_budget FROM v \
                  JOIN tollgate_keys k ON k.first_token = v.id OR k.token = v.id \
                  LEFT JOIN tollgate_budgets b ON b.budget_id = k.budget_id",
    },
    Holder {
        prefix: "team_model:",
        owner: "team:",
        budgets: "SELECT team_id, model_max_budget, CAST(NULL AS TEXT) FROM tollgate_teams WHERE team_id IN (VALUES {})",
    },
    Holder {
        prefix: "user_model:",
        owner: "user:",
        budgets: "SELECT user_id, model_max_budget, CAST(NULL AS TEXT) FROM tollgate_users WHERE user_id IN (VALUES {})",
    },
    Holder {
        prefix: "org_model:",
        owner: "org:",
        budgets: "SELECT o.organization_id, CAST(NULL AS TEXT), b.model_max_budget FROM tollgate_organizations o \
                  JOIN tollgate_budgets b ON b.budget_id = o.budget_id WHERE o.organization_id IN (VALUES {})",
    },
    Holder {
        prefix: "end_user_model:",
        owner: "end_user:",
        budgets: "SELECT e.user_id, CAST(NULL AS TEXT), b.model_max_budget FROM tollgate_end_users e \
                  JOIN tollgate_budgets b ON b.budget_id = e.budget_id WHERE e.user_id IN (VALUES {})",
    },
];

/// Whether a meter is for one model of somebody.
pub fn is_by_model(meter: &str) -> bool {
    HOLDERS.iter().any(|holder| meter.starts_with(holder.prefix))
}

/// Whose budget a meter by model may be: a `/` can be part of ids and of names of models.
fn readings(holder: &Holder, meter: &str) -> Vec<(String, String)> {
    let Some(rest) = meter.strip_prefix(holder.prefix) else { return Vec::new() };
    let split = |at: usize| Some((rest.get(..at)?.to_owned(), rest.get(at + 1..)?.to_owned()));
    rest.match_indices('/').filter_map(|(at, _)| split(at)).collect()
}

/// The meters of those whose record says when the period of a meter by model ends.
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

/// The periods that meters by model have by the records of their holders. Other meters are left out.
pub async fn periods<'m>(
    connection: &mut AnyConnection,
    meters: impl Iterator<Item = &'m str>,
) -> Result<BTreeMap<String, Option<String>>, DbError> {
    let meters: Vec<&str> = meters.filter(|meter| is_by_model(meter)).collect();
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
        let ids = ids.into_iter().map(|id| vec![Stored::from(id)]).collect();
        let mut all = BTreeMap::new();
        for row in bulk::run(connection, holder.budgets, ids).await? {
            let parsed = |at: usize| -> Result<_, DbError> {
                let text: Option<String> = row.try_get(at)?;
                Ok(budgets(&text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()))
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

/// Fills in what the models of somebody have cost; `holder` is the kind and the id of its meters by model. With `lazy`, spend of
/// a period that is over at `now_ms` counts as nothing.
pub async fn spend(
    connection: &mut AnyConnection,
    holder: (&str, &str),
    budgets: &mut HashMap<String, Budget>,
    now_ms: i64,
    lazy: bool,
) -> Result<(), DbError> {
    let start = format!("{}:{}/", holder.0, holder.1);
    let models: Vec<String> = budgets.keys().cloned().collect();
    for some in models.chunks(100) {
        let marks: Vec<String> = (1..=some.len()).map(|at| format!("${at}")).collect();
        let sql = format!(
            "SELECT meter, spend, reset_at FROM tollgate_windows WHERE meter IN ({})",
            marks.join(", ")
        );
        let names = some.iter().map(|model| format!("{start}{model}").into()).collect();
        for row in rows::rows(connection, &sql, names).await? {
            let meter: String = row.try_get(0)?;
            let model = meter.strip_prefix(&start).unwrap_or_default();
            if let Some(budget) = budgets.get_mut(model) {
                let reset_at: Option<i64> = row.try_get(2)?;
                let is_over = lazy && reset_at.is_some_and(|at| at <= now_ms);
                budget.spend = if is_over { 0 } else { row.try_get(1)? };
                budget.reset_at_ms = reset_at.and_then(|at| u64::try_from(at).ok());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
