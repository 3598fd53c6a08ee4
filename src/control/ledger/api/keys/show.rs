//! `/key/info`, `/v2/key/info`, `/key/list`, `/key/health`.

use serde_json::{Value, json};
use sqlx::AnyConnection;

use super::{INFOS, require, token};
use crate::control::ledger::{
    api::{
        access::{
            forbidden, may_as_member, role_in_team, role_name, runs_organization, runs_team, sees_key,
            teams_of,
        },
        budgets,
        fields::{Page, bounded, bounded_query, order, texts},
    },
    caller::{Caller, token_of},
    db::DbError,
    problem::Problem,
    route::{Answer, Call},
    rows::{self, Record, Select, Where},
    schema::{KEYS, TEAMS},
    windows,
};

/// Most keys that an answer without pages shows, the newest first; `/key/list` shows all.
pub const LONGEST_ANSWER: i64 = 10_000;

/// Columns that a list can be sorted by.
const SORTED: &[&str] = &[
    "created_at",
    "updated_at",
    "expires",
    "spend",
    "max_budget",
    "key_alias",
    "key_name",
    "token",
    "user_id",
    "team_id",
];

pub async fn info(call: Call) -> Result<Answer, Problem> {
    bounded_query(&call)?;
    let mut connection = call.app.db.read().await?;
    let (given, row) = match (call.parameter("key"), call.caller.token()) {
        (Some(given), _) => (given.to_owned(), require(&mut connection, given).await?),
        (None, Some(own)) => (own.to_owned(), require(&mut connection, own).await?),
        // The master key is in no database.
        (None, None) => return Err(Problem::not_found("Key not found in database", "key")),
    };
    visible(&mut connection, &call, &row).await?;
    let info = one(&mut connection, &call, row).await?;
    Ok(Answer::json(&json!({"key": given, "info": info})))
}

pub async fn infos(call: Call) -> Result<Answer, Problem> {
    bounded(INFOS, &call.body)?;
    let keys = texts(&call.body, "keys");
    let mut connection = call.app.db.read().await?;
    let mut found = Vec::new();
    for some in keys.chunks(500) {
        let tokens = some.iter().map(|key| json!(token_of(key))).collect();
        let select = Select::all(vec![Where::In("token", tokens)]);
        found.extend(rows::select(&mut connection, &KEYS, &select).await?);
    }
    for row in &found {
        visible(&mut connection, &call, row).await?;
    }
    let infos = without_token(&mut connection, &call, found).await?;
    Ok(Answer::json(&json!({"key": keys, "info": infos})))
}

async fn visible(connection: &mut AnyConnection, call: &Call, row: &Record) -> Result<(), Problem> {
    if sees_key(connection, &call.caller, row).await? {
        return Ok(());
    }
    Err(forbidden(format!(
        "You are not allowed to access this key's info. Your role={}",
        role_name(&call.caller)
    )))
}

async fn one(connection: &mut AnyConnection, call: &Call, row: Record) -> Result<Value, DbError> {
    Ok(without_token(connection, call, vec![row]).await?.pop().map_or(Value::Null, Value::Object))
}

/// Keys as `/key/info` shows them: without their hash, with the budget they share.
pub async fn without_token(
    connection: &mut AnyConnection,
    call: &Call,
    rows_: Vec<Record>,
) -> Result<Vec<Record>, DbError> {
    let mut rows_ = full(connection, call, rows_).await?;
    for row in &mut rows_ {
        row.shift_remove("token");
    }
    Ok(rows_)
}

async fn full(
    connection: &mut AnyConnection,
    call: &Call,
    mut rows_: Vec<Record>,
) -> Result<Vec<Record>, DbError> {
    budgets::attach(connection, &mut rows_).await?;
    windows::attach(connection, call, "key", &mut rows_, true).await?;
    for row in &mut rows_ {
        // LiteLLM keeps it in the shared budget; whoever has none of its own does not see the member.
        if row.get("soft_budget").is_some_and(Value::is_null) {
            row.shift_remove("soft_budget");
        }
    }
    Ok(rows_)
}

pub async fn list(call: Call) -> Result<Answer, Problem> {
    bounded_query(&call)?;
    let page = Page::of(&call, "size", 10, 100)?;
    let order = order(&call, SORTED, ("created_at", true))?;
    let mut connection = call.app.db.read().await?;
    let mut conditions = scope(&mut connection, &call).await?;
    for name in ["user_id", "team_id", "organization_id", "key_alias"] {
        conditions.extend(call.parameter(name).map(|value| Where::Is(name, json!(value))));
    }
    conditions.extend(call.parameter("key_hash").map(|key| Where::Is("token", json!(token_of(key)))));
    conditions.extend(by_expiry(&call)?);
    let total = rows::count(&mut connection, &KEYS, &conditions).await?;
    let select = Select { conditions, order: Some(order), limit: Some(page.size), offset: page.offset() };
    let found = rows::select(&mut connection, &KEYS, &select).await?;
    let keys: Vec<Value> = if call.flag("return_full_object") {
        full(&mut connection, &call, found).await?.into_iter().map(Value::Object).collect()
    } else {
        found.iter().map(|row| json!(token(row))).collect()
    };
    Ok(Answer::json(&json!({
        "keys": keys, "total_count": total, "current_page": page.number, "total_pages": page.pages(total),
    })))
}

pub async fn aliases(call: Call) -> Result<Answer, Problem> {
    bounded_query(&call)?;
    let page = Page::of(&call, "size", 50, 100)?;
    let mut connection = call.app.db.read().await?;
    let mut conditions = scope(&mut connection, &call).await?;
    for name in ["user_id", "team_id"] {
        conditions.extend(call.parameter(name).map(|value| Where::Is(name, json!(value))));
    }
    // Every alias is a text that has nothing in it.
    let search = call.parameter("search").unwrap_or_default();
    conditions.push(Where::Holds("key_alias", search.to_owned()));
    let total = rows::count(&mut connection, &KEYS, &conditions).await?;
    let order = Some(("key_alias", false));
    let select = Select { conditions, order, limit: Some(page.size), offset: page.offset() };
    let found = rows::select(&mut connection, &KEYS, &select).await?;
    let aliases: Vec<&Value> = found.iter().filter_map(|row| row.get("key_alias")).collect();
    Ok(Answer::json(&json!({
        "aliases": aliases, "total_count": total, "current_page": page.number, "total_pages": page.pages(total),
        "size": page.size,
    })))
}

/// Keys that are expired, or those that are not.
fn by_expiry(call: &Call) -> Result<Option<Where>, Problem> {
    let now = json!(call.now_ms);
    match call.parameter("expires") {
        None => Ok(None),
        Some("expired") => Ok(Some(Where::Before("expires", now))),
        Some("active") => Ok(Some(Where::Any(vec![Where::Empty("expires"), Where::From("expires", now)]))),
        Some(other) => {
            let message = "Input should be 'expired' or 'active'";
            Err(Problem::invalid("query", "expires", "literal_error", message, &json!(other)))
        }
    }
}

/// Which keys the caller sees at all.
async fn scope(connection: &mut AnyConnection, call: &Call) -> Result<Vec<Where>, Problem> {
    let caller = &call.caller;
    if caller.may_see_all() {
        return Ok(Vec::new());
    }
    let Some(user) = caller.user_id() else {
        return Ok(vec![Where::Is("token", json!(caller.token()))]);
    };
    if let Some(id) = call.parameter("team_id")
        && let Some(team) = rows::get(connection, &TEAMS, &[id]).await?
        && (runs_team(connection, caller, &team).await? || may_as_member(&team, user, "/key/list").is_ok())
    {
        return Ok(Vec::new());
    }
    if runs_organization(connection, caller, call.parameter("organization_id")).await? {
        return Ok(Vec::new());
    }
    if let Some(wanted) = call.parameter("user_id").filter(|wanted| *wanted != user) {
        // Who runs teams that somebody is in sees that member's keys of those teams.
        let mut teams = Vec::new();
        for id in run_by(connection, caller, user).await? {
            let team = rows::get(connection, &TEAMS, &[id.as_str().unwrap_or_default()]).await?;
            if team.is_some_and(|team| role_in_team(&team, wanted).is_some()) {
                teams.push(id);
            }
        }
        if !teams.is_empty() {
            return Ok(vec![Where::In("team_id", teams)]);
        }
        return Err(forbidden("You are not authorized to check another user's keys"));
    }
    let own = Where::Is("user_id", json!(user));
    if !call.flag("include_team_keys") {
        return Ok(vec![own]);
    }
    let teams = run_by(connection, caller, user).await?;
    Ok(vec![Where::Any(vec![own, Where::In("team_id", teams)])])
}

/// The teams that a user is an admin of.
async fn run_by(connection: &mut AnyConnection, caller: &Caller, user: &str) -> Result<Vec<Value>, Problem> {
    let mut run = Vec::new();
    for id in teams_of(connection, user).await? {
        if let Some(team) = rows::get(connection, &TEAMS, &[&id]).await?
            && runs_team(connection, caller, &team).await?
        {
            run.push(json!(id));
        }
    }
    Ok(run)
}

pub async fn health(call: Call) -> Result<Answer, Problem> {
    let row = match &call.caller {
        Caller::Master => None,
        Caller::Key(holder) => Some(&holder.key),
    };
    let logging = row.and_then(|row| row.get("metadata")).and_then(|metadata| metadata.get("logging"));
    let names: Vec<&str> = logging
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(|item| item.get("callback_name")?.as_str()).collect())
        .unwrap_or_default();
    if names.is_empty() {
        return Ok(Answer::json(&json!({"key": "healthy", "logging_callbacks": null})));
    }
    Ok(Answer::json(&json!({
        "key": "unhealthy",
        "logging_callbacks": {
            "callbacks": names, "status": "unhealthy",
            "details": "Callbacks of single keys are not called; those of the configuration are.",
        },
    })))
}
