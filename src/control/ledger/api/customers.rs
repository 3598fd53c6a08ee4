//! Customers (end users), as requests name them in `user`: making, showing, changing, blocking, removing them.

use serde_json::{Value, json};
use sqlx::AnyConnection;

use super::{
    budgets,
    fields::{self, bounded, bounded_query, copied, text, texts},
};
use crate::{
    control::ledger::{
        db::Tx,
        problem::Problem,
        route::{Access, Answer, Call, Field, Route, Type},
        rows::{self, Record, Select, Where},
        schema::END_USERS,
    },
    core::error::{Error, RequestFault},
};

const OWN: &[Field] = fields::joined!(
    &[
        Field::required("user_id", Type::Text, "The name that requests give in `user`."),
        Field::new("alias", Type::Text, "Name to show."),
        Field::new("blocked", Type::Bool, "Refused whatever it asks."),
        Field::new("budget_id", Type::Text, "A budget made before; not together with limits of its own."),
        Field::new("allowed_model_region", Type::Text, "eu or us: only models there."),
        Field::new(
            "default_model",
            Type::Text,
            "The model called when a request names none that it may call."
        ),
        Field::new("spend", Type::Money, "Dollars spent so far."),
        Field::new("metadata", Type::Object, "Accepted; not kept."),
        Field::new("object_permission", Type::Object, "Not enforced yet: refused unless it is empty."),
    ],
    budgets::LIMITS
);
const WHICH: &[Field] = &[Field::required("user_ids", Type::Texts, "Ids of customers.")];
const INFO: &[Field] = &[Field::required("end_user_id", Type::Text, "Which.")];

macro_rules! route {
    ($method:literal, $path:literal, $old:literal, $summary:literal, $access:expr, $query:expr, $body:expr, $handler:expr) => {
        Route {
            method: $method,
            paths: &[$path, $old],
            tag: "customers",
            summary: $summary,
            access: $access,
            query: $query,
            body: $body,
            handler: |call| Box::pin($handler(call)),
        }
    };
}

/// The routes of this chapter.
pub static ROUTES: &[Route] = &[
    route!("POST", "/customer/new", "/end_user/new", "Makes a customer.", Access::Admin, &[], OWN, new),
    route!("GET", "/customer/info", "/end_user/info", "Shows a customer.", Access::Viewer, INFO, &[], info),
    route!(
        "POST",
        "/customer/update",
        "/end_user/update",
        "Changes a customer; what is not sent stays.",
        Access::Admin,
        &[],
        OWN,
        update
    ),
    route!(
        "POST",
        "/customer/delete",
        "/end_user/delete",
        "Removes customers.",
        Access::Admin,
        &[],
        WHICH,
        delete
    ),
    route!(
        "POST",
        "/customer/block",
        "/end_user/block",
        "Refuses customers from now on, known or not.",
        Access::Admin,
        &[],
        WHICH,
        block
    ),
    route!(
        "POST",
        "/customer/unblock",
        "/end_user/unblock",
        "Lets customers pass again.",
        Access::Admin,
        &[],
        WHICH,
        unblock
    ),
    route!(
        "GET",
        "/customer/list",
        "/end_user/list",
        "Shows customers, at most 10,000.",
        Access::Viewer,
        &[],
        &[],
        list
    ),
];

/// Most customers that a list shows.
const LONGEST_LIST: i64 = 10_000;

async fn require(connection: &mut AnyConnection, id: &str) -> Result<Record, Problem> {
    rows::get(connection, &END_USERS, &[id]).await?.ok_or_else(|| {
        Problem::Error(
            Error::of(RequestFault::NoSuchCustomer, format!("End User Id={id} does not exist in db"))
                .with_param("user_id"),
        )
    })
}

/// Rows as the API shows them.
async fn shown(connection: &mut AnyConnection, mut found: Vec<Record>) -> Result<Vec<Record>, Problem> {
    budgets::attach(connection, &mut found).await?;
    for row in &mut found {
        row.shift_remove("budget_id");
    }
    Ok(found)
}

/// Commits a change and answers the customer.
async fn answer(mut tx: Tx, id: &str) -> Result<Answer, Problem> {
    tx.record_changed(format!("end_user:{id}"));
    let row = require(tx.connection(), id).await?;
    let row = shown(tx.connection(), vec![row]).await?.pop().map_or(Value::Null, Value::Object);
    Ok(Answer::changed(&row, tx.commit().await?))
}

/// What a body may not say of a customer.
fn checked(body: &Record) -> Result<(), Problem> {
    let refuse = |name: &str, message: &str| {
        Problem::Detail(
            422,
            json!([{"type": "value_error", "loc": ["body"], "input": body.get(name),
                    "msg": format!("Value error, {message}")}]),
        )
    };
    if text(body, "budget_id").is_some() && body.get("max_budget").is_some_and(|amount| !amount.is_null()) {
        return Err(refuse("budget_id", "Set either 'max_budget' or 'budget_id', not both."));
    }
    match text(body, "allowed_model_region") {
        Some(region) if !matches!(region, "eu" | "us") => {
            let message = "Input should be 'eu' or 'us'";
            Err(Problem::invalid("body", "allowed_model_region", "literal_error", message, &json!(region)))
        }
        _ => Ok(()),
    }
}

fn columns(body: &Record) -> Record {
    let mut row =
        copied(body, &["alias", "allowed_model_region", "default_model", "blocked", "spend", "budget_id"]);
    row.retain(|name, value| !matches!(name.as_str(), "spend" | "blocked") || !value.is_null());
    row
}

fn id_of(call: &Call) -> Result<&str, Problem> {
    call.text("user_id").ok_or_else(|| {
        let message = "String should have at least 1 character";
        Problem::invalid("body", "user_id", "string_too_short", message, &json!(""))
    })
}

async fn new(call: Call) -> Result<Answer, Problem> {
    bounded(OWN, &call.body)?;
    checked(&call.body)?;
    let id = id_of(&call)?;
    let mut tx = call.app.db.write().await?;
    if rows::get(tx.connection(), &END_USERS, &[id]).await?.is_some() {
        return Err(Problem::Error(
            Error::of(
                RequestFault::CustomerExists,
                format!("Customer already exists, passed user_id={id}. Please pass a new user_id."),
            )
            .with_param("user_id"),
        ));
    }
    let mut row = columns(&call.body);
    row.insert("user_id".to_owned(), json!(id));
    row.entry("blocked").or_insert_with(|| json!(false));
    match call.text("budget_id") {
        Some(budget) => {
            budgets::require(tx.connection(), budget).await?;
        }
        None if budgets::has_limits(&call.body) => {
            let budget = budgets::make(&mut tx, &call, &call.body, None).await?;
            row.insert("budget_id".to_owned(), json!(budget));
        }
        None => {}
    }
    rows::insert(tx.connection(), &END_USERS, &row).await?;
    answer(tx, id).await
}

async fn update(call: Call) -> Result<Answer, Problem> {
    bounded(OWN, &call.body)?;
    checked(&call.body)?;
    let id = id_of(&call)?;
    let mut tx = call.app.db.write().await?;
    let there = require(tx.connection(), id).await?;
    let mut row = columns(&call.body);
    if let Some(budget) = call.text("budget_id") {
        budgets::require(tx.connection(), budget).await?;
    } else if budgets::LIMITS.iter().any(|field| call.body.contains_key(field.name)) {
        let budget = own_budget(&mut tx, &call, &there).await?;
        row.insert("budget_id".to_owned(), json!(budget));
    }
    rows::update(tx.connection(), &END_USERS, &[Where::Is("user_id", json!(id))], &row).await?;
    answer(tx, id).await
}

/// Changes the budget that only this customer has, or gives it one of its own: others who share it keep theirs.
async fn own_budget(tx: &mut Tx, call: &Call, there: &Record) -> Result<String, Problem> {
    let Some(shared) = text(there, "budget_id") else {
        return budgets::make(tx, call, &call.body, None).await;
    };
    let this = [Where::Is("budget_id", json!(shared))];
    let mut holders = 0;
    for table in budgets::HOLDERS {
        holders += rows::count(tx.connection(), table, &this).await?;
    }
    if holders <= 1 {
        budgets::change(tx, call, shared, &call.body).await?;
        return Ok(shared.to_owned());
    }
    let mut limits = budgets::require(tx.connection(), shared).await?;
    limits.shift_remove("budget_reset_at");
    limits.extend(call.body.clone());
    budgets::make(tx, call, &limits, None).await
}

async fn info(call: Call) -> Result<Answer, Problem> {
    bounded_query(&call)?;
    let mut connection = call.app.db.read().await?;
    let row = require(&mut connection, call.parameter("end_user_id").unwrap_or_default()).await?;
    let row = shown(&mut connection, vec![row]).await?.pop();
    Ok(Answer::json(&row.map_or(Value::Null, Value::Object)))
}

async fn list(call: Call) -> Result<Answer, Problem> {
    let mut connection = call.app.db.read().await?;
    let select = Select { limit: Some(LONGEST_LIST), ..Select::default() };
    let found = rows::select(&mut connection, &END_USERS, &select).await?;
    Ok(Answer::json(&json!(shown(&mut connection, found).await?)))
}

/// The ids that a body names, each once.
fn ids(call: &Call) -> Result<Vec<String>, Problem> {
    bounded(WHICH, &call.body)?;
    let mut ids = texts(&call.body, "user_ids");
    ids.retain(|id| !id.is_empty());
    ids.sort();
    ids.dedup();
    if ids.is_empty() {
        return Err(Problem::bad_request("user_ids", "`user_ids`: expected at least one id."));
    }
    Ok(ids)
}

async fn delete(call: Call) -> Result<Answer, Problem> {
    let ids = ids(&call)?;
    let mut tx = call.app.db.write().await?;
    for id in &ids {
        require(tx.connection(), id).await?;
        rows::delete(tx.connection(), &END_USERS, &[Where::Is("user_id", json!(id))]).await?;
        tx.record_changed(format!("end_user:{id}"));
    }
    let message = format!("Successfully deleted customers with ids: {}", fields::python_list(&ids));
    Ok(Answer::changed(&json!({"deleted_customers": ids.len(), "message": message}), tx.commit().await?))
}

async fn block(call: Call) -> Result<Answer, Problem> {
    let ids = ids(&call)?;
    let mut tx = call.app.db.write().await?;
    for id in &ids {
        if set_blocked(&mut tx, id, true).await? == 0 {
            let row =
                Record::from_iter([("user_id".to_owned(), json!(id)), ("blocked".to_owned(), json!(true))]);
            rows::insert(tx.connection(), &END_USERS, &row).await?;
        }
    }
    blocked(tx, &ids).await
}

async fn unblock(call: Call) -> Result<Answer, Problem> {
    let ids = ids(&call)?;
    let mut tx = call.app.db.write().await?;
    for id in &ids {
        require(tx.connection(), id).await?;
        set_blocked(&mut tx, id, false).await?;
    }
    blocked(tx, &ids).await
}

async fn set_blocked(tx: &mut Tx, id: &str, blocked: bool) -> Result<u64, Problem> {
    let change = Record::from_iter([("blocked".to_owned(), json!(blocked))]);
    tx.record_changed(format!("end_user:{id}"));
    Ok(rows::update(tx.connection(), &END_USERS, &[Where::Is("user_id", json!(id))], &change).await?)
}

/// Answers the customers after they were blocked or unblocked.
async fn blocked(mut tx: Tx, ids: &[String]) -> Result<Answer, Problem> {
    let mut found = Vec::new();
    for id in ids {
        found.push(require(tx.connection(), id).await?);
    }
    let found = shown(tx.connection(), found).await?;
    Ok(Answer::changed(&json!({"blocked_users": found}), tx.commit().await?))
}

#[cfg(test)]
#[path = "customers/tests.rs"]
mod tests;
