//! Budgets that keys, team members, organizations and end users share by their id: making, showing, changing, removing them.

use std::collections::HashMap;

use serde_json::{Value, json};
use sqlx::AnyConnection;

use super::fields::{bounded, bounded_query, copied, reset_at, text, texts, uuid};
use crate::control::ledger::{
    db::{DbError, Tx},
    problem::{ErrorStatus, Problem},
    resets,
    route::{Access, Answer, Call, Field, Route, Type},
    rows::{self, Record, Select, Where},
    schema::{BUDGETS, END_USERS, KEYS, ORGANIZATION_MEMBERS, ORGANIZATIONS, TEAM_MEMBERS, Table},
};

/// What a budget limits.
pub const LIMITS: &[Field] = &[
    Field::new("max_budget", Type::Money, "Dollars that may be spent; null is no limit."),
    Field::new("soft_budget", Type::Money, "Dollars after which somebody is told and nobody refused."),
    Field::new("max_parallel_requests", Type::Int, "Requests at a time."),
    Field::new("tpm_limit", Type::Int, "Tokens a minute."),
    Field::new("rpm_limit", Type::Int, "Requests a minute."),
    Field::new("budget_duration", Type::Text, "Period after which spend starts again, such as 30d or 1mo."),
    Field::new(
        "model_max_budget",
        Type::Object,
        "Budget of single models: {\"gpt-4o\": {\"budget_limit\": 1, \"time_period\": \"1d\"}}.",
    ),
    Field::new(
        "budget_reset_at",
        Type::Text,
        "When spend starts again next; the end of the period otherwise.",
    ),
];

const NEW: &[Field] =
    super::fields::joined!(&[Field::new("budget_id", Type::Text, "Its id; a random one otherwise.")], LIMITS);
const UPDATE: &[Field] =
    super::fields::joined!(&[Field::required("budget_id", Type::Text, "Which.")], LIMITS);
const INFO: &[Field] = &[Field::required("budgets", Type::Texts, "Ids of budgets.")];
const DELETE: &[Field] = &[Field::required("id", Type::Text, "Which.")];

/// The routes of this chapter.
pub static ROUTES: &[Route] = &[
    Route {
        method: "POST",
        paths: &["/budget/new"],
        tag: "budgets",
        summary: "Makes a budget that keys, team members, organizations and customers can share.",
        access: Access::Admin,
        query: &[],
        body: NEW,
        handler: |call| Box::pin(new(call)),
    },
    Route {
        method: "POST",
        paths: &["/budget/update"],
        tag: "budgets",
        summary: "Changes a budget; what is not sent stays.",
        access: Access::Admin,
        query: &[],
        body: UPDATE,
        handler: |call| Box::pin(update(call)),
    },
    Route {
        method: "POST",
        paths: &["/budget/info"],
        tag: "budgets",
        summary: "Shows budgets.",
        access: Access::Viewer,
        query: &[],
        body: INFO,
        handler: |call| Box::pin(info(call)),
    },
    Route {
        method: "GET",
        paths: &["/budget/settings"],
        tag: "budgets",
        summary: "Shows what can be set in a budget, and what is.",
        access: Access::Viewer,
        query: &[Field::required("budget_id", Type::Text, "Which.")],
        body: &[],
        handler: |call| Box::pin(settings(call)),
    },
    Route {
        method: "GET",
        paths: &["/budget/list"],
        tag: "budgets",
        summary: "Shows all budgets.",
        access: Access::Viewer,
        query: &[],
        body: &[],
        handler: |call| Box::pin(list(call)),
    },
    Route {
        method: "POST",
        paths: &["/budget/delete"],
        tag: "budgets",
        summary: "Removes a budget; whoever had it has none then.",
        access: Access::Admin,
        query: &[],
        body: DELETE,
        handler: |call| Box::pin(delete(call)),
    },
];

async fn new(call: Call) -> Result<Answer, Problem> {
    bounded(NEW, &call.body)?;
    let mut tx = call.app.db.write().await?;
    let id = make(&mut tx, &call, &call.body, call.text("budget_id")).await?;
    answer(tx, &id).await
}

async fn update(call: Call) -> Result<Answer, Problem> {
    bounded(UPDATE, &call.body)?;
    let mut tx = call.app.db.write().await?;
    let id = text(&call.body, "budget_id").unwrap_or_default();
    change(&mut tx, &call, id, &call.body).await?;
    answer(tx, id).await
}

async fn answer(mut tx: Tx, id: &str) -> Result<Answer, Problem> {
    let row = require(tx.connection(), id).await?;
    Ok(Answer::changed(&Value::Object(row), tx.commit().await?))
}

async fn info(call: Call) -> Result<Answer, Problem> {
    bounded(INFO, &call.body)?;
    let ids = texts(&call.body, "budgets");
    if ids.is_empty() {
        return Err(Problem::wrapped(
            ErrorStatus::BAD_REQUEST,
            "Specify list of budget id's to query. Passed in=[]",
        ));
    }
    let mut connection = call.app.db.read().await?;
    let wanted = ids.into_iter().map(Value::from).collect();
    let select = Select::all(vec![Where::In("budget_id", wanted)]);
    let rows = rows::select(&mut connection, &BUDGETS, &select).await?;
    Ok(Answer::json(&json!(rows)))
}

async fn settings(call: Call) -> Result<Answer, Problem> {
    bounded_query(&call)?;
    let id = call.parameter("budget_id").unwrap_or_default();
    let mut connection = call.app.db.read().await?;
    let row = require(&mut connection, id).await?;
    let settings: Vec<Value> = LIMITS
        .iter()
        .map(|field| {
            let value = row.get(field.name).cloned().unwrap_or_default();
            let kind = match field.kind {
                Type::Int => "Integer",
                Type::Money => "Float",
                Type::Object => "Object",
                _ => "String",
            };
            json!({"field_name": field.name, "field_type": kind, "field_description": field.about,
                   "field_value": value, "stored_in_db": !value.is_null(), "field_default_value": null})
        })
        .collect();
    Ok(Answer::json(&json!(settings)))
}

async fn list(call: Call) -> Result<Answer, Problem> {
    let mut connection = call.app.db.read().await?;
    let rows = rows::select(&mut connection, &BUDGETS, &Select::default()).await?;
    Ok(Answer::json(&json!(rows)))
}

async fn delete(call: Call) -> Result<Answer, Problem> {
    bounded(DELETE, &call.body)?;
    let id = text(&call.body, "id").unwrap_or_default();
    let mut tx = call.app.db.write().await?;
    let row = require(tx.connection(), id).await?;
    linked_changed(&mut tx, id).await?;
    let none = Record::from_iter([("budget_id".to_owned(), Value::Null)]);
    let this = [Where::Is("budget_id", json!(id))];
    for table in HOLDERS {
        rows::update(tx.connection(), table, &this, &none).await?;
    }
    rows::delete(tx.connection(), &BUDGETS, &this).await?;
    Ok(Answer::changed(&Value::Object(row), tx.commit().await?))
}

/// Adds a budget and gives its id.
pub async fn make(tx: &mut Tx, call: &Call, body: &Record, id: Option<&str>) -> Result<String, Problem> {
    let id = match id {
        Some(id) => id.to_owned(),
        None => uuid()?,
    };
    if rows::get(tx.connection(), &BUDGETS, &[&id]).await?.is_some() {
        return Err(Problem::wrapped(
            ErrorStatus::BAD_REQUEST,
            format!("Budget id = {id} already exists. Please use a different budget id."),
        ));
    }
    let mut row = columns(call, body)?;
    let author = json!(call.caller.user_id());
    for (name, value) in [
        ("budget_id", json!(id)),
        ("created_at", json!(call.now_ms)),
        ("created_by", author.clone()),
        ("updated_at", json!(call.now_ms)),
        ("updated_by", author),
    ] {
        row.insert(name.to_owned(), value);
    }
    rows::insert(tx.connection(), &BUDGETS, &row).await?;
    Ok(id)
}

/// Changes what was sent of a budget. Everybody who has it is noted as changed.
pub async fn change(tx: &mut Tx, call: &Call, id: &str, body: &Record) -> Result<(), Problem> {
    require(tx.connection(), id).await?;
    let mut row = columns(call, body)?;
    row.insert("updated_at".to_owned(), json!(call.now_ms));
    row.insert("updated_by".to_owned(), json!(call.caller.user_id()));
    rows::update(tx.connection(), &BUDGETS, &[Where::Is("budget_id", json!(id))], &row).await?;
    linked_changed(tx, id).await
}

/// Whose rows name a budget.
pub const HOLDERS: [&Table; 5] = [&KEYS, &TEAM_MEMBERS, &ORGANIZATIONS, &ORGANIZATION_MEMBERS, &END_USERS];

/// Removes a budget that nobody has any more.
pub async fn remove_unused(tx: &mut Tx, id: &str) -> Result<(), DbError> {
    let this = [Where::Is("budget_id", json!(id))];
    for table in HOLDERS {
        if rows::count(tx.connection(), table, &this).await? > 0 {
            return Ok(());
        }
    }
    rows::delete(tx.connection(), &BUDGETS, &this).await?;
    Ok(())
}

/// Whether a body has any limit of a budget.
pub fn has_limits(body: &Record) -> bool {
    LIMITS.iter().any(|field| body.get(field.name).is_some_and(|value| !value.is_null()))
}

fn columns(call: &Call, body: &Record) -> Result<Record, Problem> {
    let names: Vec<&str> = LIMITS.iter().map(|field| field.name).collect();
    let mut row = copied(body, &names);
    match text(body, "budget_reset_at") {
        Some(at) => {
            let time = rows::time(&json!(at)).ok_or_else(|| {
                Problem::invalid(
                    "body",
                    "budget_reset_at",
                    "datetime_parsing",
                    "Input should be a valid datetime",
                    &json!(at),
                )
            })?;
            row.insert("budget_reset_at".to_owned(), json!(time));
        }
        None if body.contains_key("budget_duration") => {
            let zone = resets::zone(&call.app.config());
            row.insert("budget_reset_at".to_owned(), reset_at(body, call.now_ms, &zone)?);
        }
        None => {
            row.remove("budget_reset_at");
        }
    }
    Ok(row)
}

/// The budget with this id, which must exist.
pub async fn require(connection: &mut AnyConnection, id: &str) -> Result<Record, Problem> {
    rows::get(connection, &BUDGETS, &[id])
        .await?
        .ok_or_else(|| Problem::not_found(format!("Budget not found. budget_id={id}"), "budget_id"))
}

/// Notes everybody who has a budget as changed.
pub async fn linked_changed(tx: &mut Tx, id: &str) -> Result<(), Problem> {
    let select = Select::all(vec![Where::Is("budget_id", json!(id))]);
    let field =
        |row: &Record, name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut meters = Vec::new();
    for key in rows::select(tx.connection(), &KEYS, &select).await? {
        meters.push(format!("key:{}", field(&key, "token")));
    }
    for member in rows::select(tx.connection(), &TEAM_MEMBERS, &select).await? {
        meters.push(format!("member:{}/{}", field(&member, "team_id"), field(&member, "user_id")));
    }
    for organization in rows::select(tx.connection(), &ORGANIZATIONS, &select).await? {
        meters.push(format!("org:{}", field(&organization, "organization_id")));
    }
    for member in rows::select(tx.connection(), &ORGANIZATION_MEMBERS, &select).await? {
        meters.push(format!(
            "org_member:{}/{}",
            field(&member, "organization_id"),
            field(&member, "user_id")
        ));
    }
    for end_user in rows::select(tx.connection(), &END_USERS, &select).await? {
        meters.push(format!("end_user:{}", field(&end_user, "user_id")));
    }
    for meter in meters {
        tx.record_changed(meter);
    }
    Ok(())
}

/// Adds the member `litellm_budget_table` to rows that have a `budget_id`.
pub async fn attach(connection: &mut AnyConnection, rows_: &mut [Record]) -> Result<(), DbError> {
    let id_of = |row: &Record| row.get("budget_id").and_then(Value::as_str).map(str::to_owned);
    let mut ids: Vec<String> = rows_.iter().filter_map(id_of).collect();
    ids.sort();
    ids.dedup();
    let mut budgets = HashMap::new();
    for some in ids.chunks(500) {
        let wanted = some.iter().map(|id| json!(id)).collect();
        let select = Select::all(vec![Where::In("budget_id", wanted)]);
        for budget in rows::select(connection, &BUDGETS, &select).await? {
            budgets.extend(id_of(&budget).map(|id| (id, Value::Object(budget))));
        }
    }
    for row in rows_ {
        let budget = id_of(row).and_then(|id| budgets.get(&id)).cloned().unwrap_or_default();
        row.insert("litellm_budget_table".to_owned(), budget);
    }
    Ok(())
}

#[cfg(test)]
#[path = "budgets/tests.rs"]
mod tests;
