//! `/user/info` and `/user/list`.

use std::collections::HashMap;

use serde_json::{Value, json};
use sqlx::Row as _;

use crate::control::ledger::{
    api::{
        access::{forbidden, runs_organization, teams_of},
        fields::{Page, bounded_query, order, text, texts},
        keys, teams,
    },
    db::DbError,
    problem::Problem,
    route::{Answer, Call},
    rows::{self, Record, Select, Where},
    schema::{KEYS, ORGANIZATION_MEMBERS, TEAMS, USERS},
    windows,
};

/// Columns that a list can be sorted by.
const SORTED: &[&str] =
    &["user_id", "user_email", "user_alias", "user_role", "spend", "max_budget", "created_at", "updated_at"];

pub async fn info(call: Call) -> Result<Answer, Problem> {
    bounded_query(&call)?;
    let mut connection = call.app.db.read().await?;
    let caller = &call.caller;
    let id = match call.parameter("user_id") {
        Some(id) => Some(id),
        None if caller.may_see_all() => None,
        None => caller.user_id(),
    };
    let newest = |conditions: Vec<Where>| Select {
        order: Some(("created_at", true)),
        limit: Some(keys::LONGEST_ANSWER),
        ..Select::all(conditions)
    };
    let Some(id) = id else {
        // An admin sees all; a key without a user itself.
        let (conditions, teams) = match caller.token().filter(|_| !caller.may_see_all()) {
            Some(token) => (vec![Where::Is("token", json!(token))], Vec::new()),
            None => (Vec::new(), rows::select(&mut connection, &TEAMS, &newest(Vec::new())).await?),
        };
        let found = rows::select(&mut connection, &KEYS, &newest(conditions)).await?;
        let keys = keys::without_token(&mut connection, &call, found).await?;
        let teams: Vec<Record> = teams.iter().map(teams::shown).collect();
        return Ok(Answer::json(&json!({"user_id": null, "user_info": null, "keys": keys, "teams": teams})));
    };
    if !caller.may_see_all()
        && caller.user_id() != Some(id)
        && !in_my_organization(&mut connection, &call, id).await?
    {
        return Err(forbidden(format!(
            "key not allowed to access this user's info. user_id={id}, key's user_id={}",
            caller.user_id().unwrap_or("None")
        )));
    }
    let Some(user) = rows::get(&mut connection, &USERS, &[id]).await? else {
        return Err(Problem::not_found(format!("User {id} not found"), "user_id"));
    };
    let mut user = [user];
    windows::attach(&mut connection, &call, "user", &mut user, true).await?;
    let [mut user] = user;
    let found = rows::select(&mut connection, &KEYS, &newest(vec![Where::Is("user_id", json!(id))])).await?;
    let keys = keys::without_token(&mut connection, &call, found).await?;
    let ids: Vec<Value> = teams_of(&mut connection, id).await?.into_iter().map(Value::from).collect();
    let mut found = Vec::new();
    for some in ids.chunks(500) {
        let select = Select::all(vec![Where::In("team_id", some.to_vec())]);
        let mut members = teams::memberships(&mut connection, some).await?;
        for row in rows::select(&mut connection, &TEAMS, &select).await? {
            let members = members.remove(text(&row, "team_id").unwrap_or_default()).unwrap_or_default();
            let mut team = teams::shown(&row);
            team.insert("team_memberships".to_owned(), json!(members));
            found.push(team);
        }
    }
    let memberships = Select::all(vec![Where::Is("user_id", json!(id))]);
    let memberships = rows::select(&mut connection, &ORGANIZATION_MEMBERS, &memberships).await?;
    user.insert("organization_memberships".to_owned(), json!(memberships));
    Ok(Answer::json(&json!({"user_id": id, "user_info": user, "keys": keys, "teams": found})))
}

/// Whether the caller runs an organization that the user is in.
async fn in_my_organization(
    connection: &mut sqlx::AnyConnection,
    call: &Call,
    user: &str,
) -> Result<bool, DbError> {
    let select = Select::all(vec![Where::Is("user_id", json!(user))]);
    for member in rows::select(connection, &ORGANIZATION_MEMBERS, &select).await? {
        if runs_organization(connection, &call.caller, text(&member, "organization_id")).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

pub async fn list(call: Call) -> Result<Answer, Problem> {
    bounded_query(&call)?;
    let page = Page::of(&call, "page_size", 25, 100)?;
    let order = order(&call, SORTED, ("created_at", true))?;
    let mut conditions = Vec::new();
    conditions.extend(call.parameter("role").map(|role| Where::Is("user_role", json!(role))));
    conditions.extend(call.parameter("user_email").map(|email| Where::Holds("user_email", email.to_owned())));
    conditions.extend(call.parameter("team").map(|team| Where::Has("teams", team.to_owned())));
    for (name, column) in [("user_ids", "user_id"), ("sso_user_ids", "sso_user_id")] {
        let wanted: Vec<Value> = texts(&call.query, name)
            .iter()
            .map(|id| id.trim())
            .filter(|id| !id.is_empty())
            .map(|id| json!(id))
            .collect();
        if wanted.len() > 500 {
            return Err(Problem::bad_request(name, format!("`{name}`: expected at most 500 ids.")));
        }
        if !wanted.is_empty() {
            conditions.push(Where::In(column, wanted));
        }
    }
    let mut connection = call.app.db.read().await?;
    let total = rows::count(&mut connection, &USERS, &conditions).await?;
    let select = Select { conditions, order: Some(order), limit: Some(page.size), offset: page.offset() };
    let mut users = rows::select(&mut connection, &USERS, &select).await?;
    windows::attach(&mut connection, &call, "user", &mut users, false).await?;
    let counts = key_counts(&mut connection, &users).await?;
    for user in &mut users {
        let count = text(user, "user_id").and_then(|id| counts.get(id)).copied().unwrap_or_default();
        user.insert("key_count".to_owned(), json!(count));
    }
    Ok(Answer::json(&json!({
        "users": users, "total": total, "page": page.number, "page_size": page.size, "total_pages": page.pages(total),
    })))
}

async fn key_counts(
    connection: &mut sqlx::AnyConnection,
    users: &[Record],
) -> Result<HashMap<String, i64>, Problem> {
    if users.is_empty() {
        return Ok(HashMap::new());
    }
    let marks: Vec<String> = (1..=users.len()).map(|at| format!("${at}")).collect();
    let sql = format!(
        "SELECT user_id, COUNT(*) FROM tollgate_keys WHERE user_id IN ({}) GROUP BY user_id",
        marks.join(", ")
    );
    let ids = users.iter().map(|user| text(user, "user_id").unwrap_or_default().into()).collect();
    let mut counts = HashMap::new();
    for row in rows::rows(connection, &sql, ids).await? {
        counts.insert(row.try_get::<String, _>(0)?, row.try_get::<i64, _>(1)?);
    }
    Ok(counts)
}
