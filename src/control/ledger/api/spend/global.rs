//! `/global/spend…`: what everything cost in the last 30 days, by day, key, team, model, provider, end user and tag; starting
//! all spend again.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sqlx::{AnyConnection, Row as _};

use super::{
    MOST_LISTED,
    logs::number,
    sums::{Amounts, Filter, Owner, Span, date, first, sums},
};
use crate::control::ledger::{
    caller::{Caller, token_of},
    db::DbError,
    problem::Problem,
    route::{Answer, Call},
    rows::{self, dollars},
};

/// Teamless spend in LiteLLM's words.
pub const NO_TEAM: &str = "Unassigned";
/// End users in a list of those that cost most.
const MOST_END_USERS: i64 = 100;

/// `GET /global/spend`: with a budget of the whole gateway, what that budget counts.
pub async fn total(call: Call) -> Result<Answer, Problem> {
    let max = call.app.config().ledger.global_max_budget;
    let mut connection = call.app.db.read().await?;
    let spend = match max {
        Some(_) => budget_spend(&mut connection, call.now_ms).await?,
        None => {
            let filter = Filter::default().days(&Span::last_30_days(call.now_ms));
            let found = sums(&mut connection, "tollgate_daily", &[], &["spend"], &filter, "").await?;
            found.first().map_or(0, |sum| sum.number(0))
        }
    };
    Ok(Answer::json(&json!({"spend": dollars(spend), "max_budget": dollars(max.unwrap_or(0))})))
}

/// Spend of the gateway's own budget in its running period.
async fn budget_spend(connection: &mut AnyConnection, now_ms: i64) -> Result<i64, DbError> {
    let sql = "SELECT spend, reset_at FROM tollgate_windows WHERE meter = $1";
    let found = rows::rows(connection, sql, vec!["global".into()]).await?;
    let Some(row) = found.first() else { return Ok(0) };
    let is_over = row.try_get::<Option<i64>, _>(1)?.is_some_and(|reset_at| reset_at <= now_ms);
    Ok(if is_over { 0 } else { row.try_get(0)? })
}

/// `GET /global/spend/logs`: spend by day.
pub async fn days(call: Call) -> Result<Answer, Problem> {
    let key = call.parameter("api_key").map(token_of);
    let filter = last_30_days(&call).maybe("api_key", "=", key.clone());
    let mut connection = call.app.db.read().await?;
    let found =
        sums(&mut connection, "tollgate_daily", &["day"], &["spend"], &filter, "ORDER BY day").await?;
    let list = found.iter().map(|sum| {
        let mut day = json!({"date": sum.name(0), "spend": dollars(sum.number(0))});
        if let (Some(key), Some(map)) = (&key, day.as_object_mut()) {
            map.insert("api_key".to_owned(), json!(key));
        }
        day
    });
    Ok(Answer::json(&list.collect()))
}

/// `GET /global/spend/keys`: the keys that spent most.
pub async fn keys(call: Call) -> Result<Answer, Problem> {
    let filter = last_30_days(&call);
    let mut connection = call.app.db.read().await?;
    let (by, order) = (["api_key"], "ORDER BY 2 DESC, api_key");
    let found =
        first(&mut connection, "tollgate_daily", &by, &["spend"], &filter, order, limit(&call)?).await?;
    let names = key_names(&mut connection, found.iter().map(|sum| sum.name(0))).await?;
    let list = found.iter().map(|sum| {
        let name = names.get(sum.name(0)).cloned().unwrap_or_default();
        json!({"api_key": sum.name(0), "key_alias": name.alias, "key_name": name.name,
               "total_spend": dollars(sum.number(0))})
    });
    Ok(Answer::json(&list.collect()))
}

/// `GET /global/spend/models`: the models that cost most.
pub async fn models(call: Call) -> Result<Answer, Problem> {
    let mut connection = call.app.db.read().await?;
    let (by, order) = (["model"], "ORDER BY 2 DESC, model");
    let filter = last_30_days(&call);
    let found =
        first(&mut connection, "tollgate_daily", &by, &["spend"], &filter, order, limit(&call)?).await?;
    let list = found.iter().map(|sum| json!({"model": sum.name(0), "total_spend": dollars(sum.number(0))}));
    Ok(Answer::json(&list.collect()))
}

/// `GET /global/spend/teams`: spend by day and team.
pub async fn teams(call: Call) -> Result<Answer, Problem> {
    let filter = Filter::default().days(&Span::last_30_days(call.now_ms));
    let mut connection = call.app.db.read().await?;
    let by = ["day", "team_id"];
    let found =
        sums(&mut connection, "tollgate_daily", &by, &["spend"], &filter, "ORDER BY day, team_id").await?;
    let aliases = team_aliases(&mut connection).await?;
    let mut days: BTreeMap<&str, Amounts> = BTreeMap::new();
    let mut totals = Amounts::default();
    for sum in &found {
        let team = team_name(&aliases, sum.name(1));
        days.entry(sum.name(0)).or_default().add(team, sum.number(0));
        totals.add(team, sum.number(0));
    }
    let daily = days.iter().map(|(day, amounts)| {
        let mut map = Map::from_iter([("date".to_owned(), json!(day))]);
        map.extend(amounts.members());
        Value::Object(map)
    });
    let ranked = totals.ranked();
    let per_team =
        ranked.iter().map(|(team, amount)| json!({"team_id": team, "total_spend": dollars(*amount)}));
    Ok(Answer::json(&json!({
        "daily_spend": daily.collect::<Vec<_>>(),
        "teams": totals.members().keys().collect::<Vec<_>>(),
        "total_spend_per_team": per_team.collect::<Vec<_>>(),
    })))
}

/// `POST /global/spend/end_users`: the end users that cost most.
pub async fn end_users(call: Call) -> Result<Answer, Problem> {
    let day = |name: &str| call.text(name).map(|text| date(name, text)).transpose();
    let span = match day("startTime")?.zip(day("endTime")?) {
        Some((first, last)) => Span { first, last },
        None => Span::last_30_days(call.now_ms),
    };
    let filter = Filter::default().days(&span).maybe("api_key", "=", call.text("api_key").map(token_of));
    let mut connection = call.app.db.read().await?;
    let (by, of, order) = (["end_user"], ["spend", "requests"], "ORDER BY 2 DESC, end_user");
    let found =
        first(&mut connection, "tollgate_daily_end_users", &by, &of, &filter, order, MOST_END_USERS).await?;
    let list = found.iter().map(|sum| {
        json!({"end_user": sum.name(0), "total_count": sum.number(1), "total_spend": dollars(sum.number(0))})
    });
    Ok(Answer::json(&list.collect()))
}

/// `GET /global/spend/provider`.
pub async fn providers(call: Call) -> Result<Answer, Problem> {
    let span = Span::of(&call)?.unwrap_or_else(|| Span::last_30_days(call.now_ms));
    let filter = Filter::of(&Owner::of(&call.caller)).days(&span);
    let mut connection = call.app.db.read().await?;
    let rest = "ORDER BY 2 DESC, provider";
    let found = sums(&mut connection, "tollgate_daily", &["provider"], &["spend"], &filter, rest).await?;
    let list = found.iter().map(|sum| {
        let provider = if sum.name(0).is_empty() { "Unknown" } else { sum.name(0) };
        json!({"provider": provider, "spend": dollars(sum.number(0))})
    });
    Ok(Answer::json(&list.collect()))
}

/// `GET /global/spend/tags`.
pub async fn tags(call: Call) -> Result<Answer, Problem> {
    let list = tag_sums(&call)
        .await?
        .into_iter()
        .map(|(tag, spend, count)| json!({"name": tag, "spend": dollars(spend), "log_count": count}));
    Ok(Answer::json(&json!({"spend_per_tag": list.collect::<Vec<_>>()})))
}

/// `GET /spend/tags`: the same in other words.
pub async fn tags_by_log(call: Call) -> Result<Answer, Problem> {
    let list = tag_sums(&call).await?.into_iter().map(|(tag, spend, count)| {
        json!({"individual_request_tag": tag, "log_count": count, "total_spend": dollars(spend)})
    });
    Ok(Answer::json(&list.collect()))
}

/// Tag, spend and calls, the dearest [`MOST_LISTED`] first; all days when none are named.
async fn tag_sums(call: &Call) -> Result<Vec<(String, i64, i64)>, Problem> {
    let mut filter = match Span::of(call)? {
        Some(span) => Filter::default().days(&span),
        None => Filter::default(),
    };
    let tags = call.query.get("tags").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let tags: Vec<String> = tags.iter().filter_map(Value::as_str).map(|tag| tag.trim().to_owned()).collect();
    if !tags.is_empty() && !tags.iter().any(|tag| tag == "all-tags") {
        filter = filter.among("tag", tags);
    }
    let mut connection = call.app.db.read().await?;
    let (by, of) = (["tag"], ["spend", "requests"]);
    let order = "ORDER BY 2 DESC, tag";
    let found = first(&mut connection, "tollgate_daily_tags", &by, &of, &filter, order, MOST_LISTED).await?;
    Ok(found.iter().map(|sum| (sum.name(0).to_owned(), sum.number(0), sum.number(1))).collect())
}

/// `GET /global/spend/all_tag_names`: clients make tags, so their number is bounded.
pub async fn tag_names(call: Call) -> Result<Answer, Problem> {
    let mut connection = call.app.db.read().await?;
    let filter = Filter::default();
    let (by, order) = (["tag"], "ORDER BY tag");
    let found = first(&mut connection, "tollgate_daily_tags", &by, &[], &filter, order, MOST_LISTED).await?;
    Ok(Answer::json(&json!({"tag_names": found.iter().map(|sum| sum.name(0)).collect::<Vec<_>>()})))
}

/// `POST /global/spend/reset`: the spend of all keys and teams starts again.
pub async fn reset(call: Call) -> Result<Answer, Problem> {
    if !matches!(call.caller, Caller::Master) {
        return Err(Problem::auth("Only the master key may do this: all spend starts again."));
    }
    let mut tx = call.app.db.write().await?;
    for (table, id, kind) in [("tollgate_keys", "token", "key"), ("tollgate_teams", "team_id", "team")] {
        let sql = format!("UPDATE {table} SET spend = 0 WHERE spend <> 0 RETURNING {id}");
        for row in rows::rows(tx.connection(), &sql, Vec::new()).await? {
            tx.record_changed(format!("{kind}:{}", row.try_get::<String, _>(0)?));
        }
    }
    let changed = tx.commit().await?;
    let done = json!({"message": "Spend for all API Keys and Teams reset successfully", "status": "success"});
    Ok(Answer::changed(&done, changed))
}

/// Aliases of teams by their ids.
pub async fn team_aliases(connection: &mut AnyConnection) -> Result<BTreeMap<String, String>, DbError> {
    let sql = "SELECT team_id, team_alias FROM tollgate_teams WHERE team_alias IS NOT NULL";
    let found = rows::rows(connection, sql, Vec::new()).await?;
    found.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// What a team is called in reports.
pub fn team_name<'t>(aliases: &'t BTreeMap<String, String>, id: &'t str) -> &'t str {
    if id.is_empty() { NO_TEAM } else { aliases.get(id).map_or(id, String::as_str) }
}

/// What a key is called.
#[derive(Clone, Debug, Default)]
pub struct KeyName {
    /// `key_alias`.
    pub alias: Option<String>,
    /// `key_name`: its masked text.
    pub name: Option<String>,
    /// Its team.
    pub team: Option<String>,
}

/// Names of keys by their hashes. Keys that are gone have none.
pub async fn key_names<'k>(
    connection: &mut AnyConnection,
    tokens: impl Iterator<Item = &'k str>,
) -> Result<BTreeMap<String, KeyName>, DbError> {
    let mut tokens: Vec<String> = tokens.map(str::to_owned).collect();
    tokens.sort();
    tokens.dedup();
    let mut names = BTreeMap::new();
    for some in tokens.chunks(500) {
        let filter = Filter::default().among("token", some.iter().cloned());
        let sql = format!("SELECT token, key_alias, key_name, team_id FROM tollgate_keys{}", filter.sql());
        for row in rows::rows(connection, &sql, filter.values()).await? {
            let name = KeyName { alias: row.try_get(1)?, name: row.try_get(2)?, team: row.try_get(3)? };
            names.insert(row.try_get::<String, _>(0)?, name);
        }
    }
    Ok(names)
}

fn last_30_days(call: &Call) -> Filter {
    Filter::of(&Owner::of(&call.caller)).days(&Span::last_30_days(call.now_ms))
}

fn limit(call: &Call) -> Result<i64, Problem> {
    number(call, "limit", MOST_LISTED, MOST_LISTED)
}
