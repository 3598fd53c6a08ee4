//! Internal users: making, showing, changing, removing them.

mod make;
mod show;

pub use make::{insert_default, join_teams};

use serde_json::{Value, json};

use super::{
    fields::{self, PAGE, SORT_BY, SORT_ORDER, bounded, copied, metadata, reset_at, text, texts},
    keys, teams,
};
use crate::control::ledger::{
    db::Tx,
    problem::{ErrorStatus, Problem},
    resets,
    route::{Access, Answer, Call, Field, Route, Type},
    rows::{self, Record, Select, Where},
    schema::{KEYS, ORGANIZATION_MEMBERS, TEAM_MEMBERS, TEAMS, USERS},
    windows,
};

/// The roles a user may have, as they are called and what they may do.
const ROLES: [(&str, &str, &str); 7] = [
    (
        "proxy_admin",
        "Admin (All Permissions)",
        "Makes and changes keys, users, teams and models; sees all spend.",
    ),
    ("proxy_admin_viewer", "Admin (View Only)", "Sees all keys and all spend; changes nothing."),
    ("org_admin", "Organization Admin", "Runs the teams and users of its organizations."),
    (
        "internal_user",
        "Internal User (Create/Delete/View)",
        "Makes, changes and removes its own keys; sees its own spend.",
    ),
    ("internal_user_viewer", "Internal User (View Only)", "Sees its own keys and its own spend."),
    ("team", "Team", "A team that signs in by a token of its own."),
    ("customer", "Customer", "Somebody outside, for whom requests are made."),
];

const OWN: &[Field] = &[
    Field::new("user_email", Type::Text, "Address; no two users have the same."),
    Field::new("user_alias", Type::Text, "Name to show."),
    Field::new(
        "user_role",
        Type::Text,
        "proxy_admin, proxy_admin_viewer, internal_user or internal_user_viewer.",
    ),
    Field::new(
        "teams",
        Type::List,
        "Teams to join: ids, or {\"team_id\", \"max_budget_in_team\", \"user_role\"}.",
    ),
    Field::new("organizations", Type::Texts, "Organizations to join."),
    Field::new("auto_create_key", Type::Bool, "Make a key as well (true)."),
    Field::new("sso_user_id", Type::Text, "Its id at the identity provider."),
    Field::new("key", Type::Text, "The value of its first key: sk- and what you like."),
];
const NEW: &[Field] = fields::joined!(fields::KEY, fields::LIMITS, OWN);
const UPDATE: &[Field] = fields::joined!(fields::KEY, fields::LIMITS, OWN);
const DELETE: &[Field] = &[Field::required("user_ids", Type::Texts, "Ids of users.")];
const LIST: &[Field] = &[
    PAGE,
    Field::new("page_size", Type::Int, "Users on a page: 25, at most 100."),
    Field::new("role", Type::Text, "With this role."),
    Field::new("user_ids", Type::Texts, "With one of these ids, commas between them."),
    Field::new("sso_user_ids", Type::Texts, "With one of these ids at the identity provider."),
    Field::new("user_email", Type::Text, "Whose address has this in it."),
    Field::new("team", Type::Text, "In this team."),
    SORT_BY,
    SORT_ORDER,
];

/// The routes of this chapter.
pub static ROUTES: &[Route] = &[
    Route {
        method: "POST",
        paths: &["/user/new"],
        tag: "users",
        summary: "Makes a user, and a first key for it. Limits are the user's: over all its keys without a team.",
        access: Access::InternalUser,
        query: &[],
        body: NEW,
        handler: |call| Box::pin(make::new(call)),
    },
    Route {
        method: "GET",
        paths: &["/user/info"],
        tag: "users",
        summary: "Shows a user with its keys and teams; the caller when none is named, and everything to an admin.",
        access: Access::AnyKey,
        query: &[Field::new("user_id", Type::Text, "Which.")],
        body: &[],
        handler: |call| Box::pin(show::info(call)),
    },
    Route {
        method: "POST",
        paths: &["/user/update"],
        tag: "users",
        summary: "Changes a user, named by its id or its address; what is not sent stays.",
        access: Access::Admin,
        query: &[],
        body: UPDATE,
        handler: |call| Box::pin(update(call)),
    },
    Route {
        method: "POST",
        paths: &["/user/delete"],
        tag: "users",
        summary: "Removes users and their keys.",
        access: Access::Admin,
        query: &[],
        body: DELETE,
        handler: |call| Box::pin(delete(call)),
    },
    Route {
        method: "GET",
        paths: &["/user/list", "/user/get_users"],
        tag: "users",
        summary: "Lists users page by page, with the number of their keys.",
        access: Access::Viewer,
        query: LIST,
        body: &[],
        handler: |call| Box::pin(show::list(call)),
    },
    Route {
        method: "GET",
        paths: &["/user/available_roles"],
        tag: "users",
        summary: "Shows the roles a user may have.",
        access: Access::AnyKey,
        query: &[],
        body: &[],
        handler: |_| Box::pin(roles()),
    },
];

async fn roles() -> Result<Answer, Problem> {
    let roles: Record = ROLES
        .iter()
        .map(|(name, label, about)| ((*name).to_owned(), json!({"description": about, "ui_label": label})))
        .collect();
    Ok(Answer::json(&Value::Object(roles)))
}

/// Columns that are taken from the body as they are.
const COLUMNS: &[&str] = &[
    "user_alias",
    "user_email",
    "user_role",
    "sso_user_id",
    "organization_id",
    "models",
    "max_budget",
    "spend",
    "model_max_budget",
    "budget_limits",
    "max_parallel_requests",
    "tpm_limit",
    "rpm_limit",
    "budget_duration",
    "allowed_cache_controls",
];

/// The columns that a body sets, checked; `there` is the row before.
fn columns(call: &Call, body: &Record, there: Option<&Record>) -> Result<Record, Problem> {
    known_role(body)?;
    let mut row = copied(body, COLUMNS);
    row.retain(|name, value| name != "spend" || !value.is_null());
    if let Some(metadata) = metadata(body, there.and_then(|row| row.get("metadata"))) {
        row.insert("metadata".to_owned(), metadata);
    }
    if body.contains_key("budget_duration") {
        let zone = resets::zone(&call.app.config());
        row.insert("budget_reset_at".to_owned(), reset_at(body, call.now_ms, &zone)?);
    }
    row.insert("updated_at".to_owned(), json!(call.now_ms));
    Ok(row)
}

fn known_role(body: &Record) -> Result<(), Problem> {
    match text(body, "user_role") {
        Some(role) if !ROLES.iter().any(|(name, _, _)| *name == role) => {
            let names: Vec<String> = ROLES.iter().map(|(name, _, _)| format!("'{name}'")).collect();
            let message = format!("Input should be one of {}", names.join(", "));
            Err(Problem::invalid("body", "user_role", "enum", &message, &json!(role)))
        }
        _ => Ok(()),
    }
}

/// Users with an address. Addresses are the same whatever the case of their letters; should there be several, because they come
/// from another database, the one that is written like this comes first.
async fn with_email(tx: &mut Tx, email: &str) -> Result<Vec<Record>, Problem> {
    let select =
        Select { limit: Some(100), ..Select::all(vec![Where::Same("user_email", email.to_owned())]) };
    let mut found = rows::select(tx.connection(), &USERS, &select).await?;
    found.sort_by_key(|row| text(row, "user_email") != Some(email));
    Ok(found)
}

/// The user with an address.
pub async fn by_email(tx: &mut Tx, email: &str) -> Result<Option<Record>, Problem> {
    Ok(with_email(tx, email).await?.into_iter().next())
}

/// Refuses an address that another user has.
async fn free_email(tx: &mut Tx, email: &str, user: &str) -> Result<(), Problem> {
    let there = with_email(tx, email).await?;
    if there.iter().any(|row| text(row, "user_id") != Some(user)) {
        return Err(Problem::wrapped(
            ErrorStatus::BAD_REQUEST,
            format!("User with email {email} already exists"),
        ));
    }
    Ok(())
}

/// Members that limit a key. A user has none of them: without a key to be made they would be for nothing.
const OF_KEYS: [&str; 8] = [
    "duration",
    "budget_id",
    "blocked",
    "aliases",
    "allowed_routes",
    "key_type",
    "enforced_params",
    "permissions",
];

/// Refuses what a user cannot have: `with_key` says whether a key is made that can.
fn of_users(body: &Record, with_key: bool) -> Result<(), Problem> {
    if fields::asks(body.get("soft_budget")) {
        let message = "`soft_budget` is no limit of users (keys and budgets have it): leave it out.";
        return Err(Problem::bad_request("soft_budget", message));
    }
    match OF_KEYS.iter().find(|name| !with_key && fields::asks(body.get(**name))) {
        None => Ok(()),
        Some(name) => Err(Problem::bad_request(
            name,
            format!("`{name}` is for keys: set it on those of the user with /key/update."),
        )),
    }
}

async fn update(call: Call) -> Result<Answer, Problem> {
    bounded(UPDATE, &call.body)?;
    of_users(&call.body, false)?;
    let mut tx = call.app.db.write().await?;
    let (name, value, found) = match (call.text("user_id"), call.text("user_email")) {
        (Some(id), _) => ("user_id", id, rows::get(tx.connection(), &USERS, &[id]).await?),
        (None, Some(email)) => ("user_email", email, by_email(&mut tx, email).await?),
        (None, None) => {
            return Err(Problem::bad_request(
                "user_id",
                "Name the user to change by `user_id` or `user_email`.",
            ));
        }
    };
    let Some(there) = found else {
        return Err(Problem::not_found(format!("User not found, {name}={value}"), name));
    };
    let id = text(&there, "user_id").unwrap_or_default().to_owned();
    if let Some(email) = call.text("user_email") {
        free_email(&mut tx, email, &id).await?;
    }
    let row = columns(&call, &call.body, Some(&there))?;
    rows::update(tx.connection(), &USERS, &[Where::Is("user_id", json!(id))], &row).await?;
    join_teams(&mut tx, &call, &id, &call.body).await?;
    make::join_organizations(&mut tx, &call, &id, &call.body).await?;
    tx.record_changed(format!("user:{id}"));
    let now = make::stored(&mut tx, &call, &id).await?;
    Ok(Answer::changed(&json!({"user_id": id, "data": now}), tx.commit().await?))
}

async fn delete(call: Call) -> Result<Answer, Problem> {
    bounded(DELETE, &call.body)?;
    let mut ids = texts(&call.body, "user_ids");
    ids.sort();
    ids.dedup();
    let mut tx = call.app.db.write().await?;
    for id in &ids {
        let this = vec![Where::Is("user_id", json!(id))];
        if let Some(row) = rows::get(tx.connection(), &USERS, &[id]).await? {
            windows::forget(tx.connection(), "user", id, &row).await?;
        }
        if rows::delete(tx.connection(), &USERS, &this).await? == 0 {
            return Err(Problem::not_found(
                format!("{{'error': 'User not found, passed user_id={id}'}}"),
                "user_ids",
            ));
        }
        let select = Select::all(this.clone());
        let keys = rows::select(tx.connection(), &KEYS, &select).await?;
        keys::remove(&mut tx, &keys).await?;
        for member in rows::select(tx.connection(), &TEAM_MEMBERS, &select).await? {
            let team = text(&member, "team_id").unwrap_or_default();
            if let Some(row) = rows::get(tx.connection(), &TEAMS, &[team]).await? {
                teams::forget_member(&mut tx, &call, &row, id).await?;
            }
        }
        for table in [&TEAM_MEMBERS, &ORGANIZATION_MEMBERS] {
            rows::delete(tx.connection(), table, &this).await?;
        }
        tx.record_changed(format!("user:{id}"));
    }
    Ok(Answer::changed(&json!(ids.len()), tx.commit().await?))
}

#[cfg(test)]
mod tests;
