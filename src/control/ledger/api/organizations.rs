//! Organizations: making, showing, changing, removing them, and their members.

use serde_json::{Value, json};
use sqlx::AnyConnection;

use super::{
    access::{forbidden, in_organization, refused, runs_organization},
    budgets,
    fields::{self, bounded, bounded_query, copied, metadata, text, texts, uuid},
    keys, teams, users,
};
use crate::control::ledger::{
    db::{DbError, Tx},
    problem::{ErrorStatus, Problem},
    route::{Access, Answer, Call, Field, Route, Type},
    rows::{self, Record, Select, Where},
    schema::{KEYS, ORGANIZATION_MEMBERS, ORGANIZATIONS, TEAMS, USERS},
};

const ROLES: [&str; 3] = ["org_admin", "internal_user", "internal_user_viewer"];

const OWN: &[Field] = fields::joined!(
    &[
        Field::new(
            "budget_id",
            Type::Text,
            "A budget made before; a new one is made of the limits otherwise."
        ),
        Field::new("metadata", Type::Object, "Anything you want to keep with it."),
        Field::new("models", Type::Texts, "Models it may call; none is all."),
        Field::new("model_rpm_limit", Type::Object, "Requests a minute of single models."),
        Field::new("model_tpm_limit", Type::Object, "Tokens a minute of single models."),
        Field::new("object_permission", Type::Object, "Not enforced yet: refused unless it is empty."),
    ],
    budgets::LIMITS
);
const NEW: &[Field] = fields::joined!(
    &[
        Field::required("organization_alias", Type::Text, "Name to show."),
        Field::new("organization_id", Type::Text, "Its id; a random one otherwise."),
    ],
    OWN
);
const WHICH: &[Field] = &[Field::required("organization_id", Type::Text, "Which.")];
const UPDATE: &[Field] = fields::joined!(
    WHICH,
    &[
        Field::new("organization_alias", Type::Text, "Name to show."),
        Field::new("spend", Type::Money, "Dollars spent so far."),
    ],
    OWN
);
const DELETE: &[Field] = &[Field::required("organization_ids", Type::Texts, "Ids of organizations.")];
const LIST: &[Field] = &[
    Field::new("org_id", Type::Text, "With this id."),
    Field::new("org_alias", Type::Text, "Whose name has this in it."),
];
const INFOS: &[Field] = &[Field::required("organizations", Type::Texts, "Ids of organizations.")];
const MEMBER_ADD: &[Field] = &[
    Field::required("organization_id", Type::Text, "Which organization."),
    Field::required(
        "member",
        Type::Any,
        "{\"role\": \"org_admin\", \"internal_user\" or \"internal_user_viewer\", \"user_id\" or \"user_email\"}, or a list of such.",
    ),
    Field::new(
        "max_budget_in_organization",
        Type::Money,
        "Dollars that each of them may spend in the organization.",
    ),
];
const MEMBER: &[Field] = &[
    Field::required("organization_id", Type::Text, "Which organization."),
    Field::new("user_id", Type::Text, "The member's id."),
    Field::new("user_email", Type::Text, "The member's address."),
];
const MEMBER_UPDATE: &[Field] = fields::joined!(
    MEMBER,
    &[
        Field::new(
            "max_budget_in_organization",
            Type::Money,
            "Dollars that the member may spend in the organization."
        ),
        Field::new("role", Type::Text, "org_admin, internal_user or internal_user_viewer."),
    ]
);

macro_rules! route {
    ($method:literal, $path:literal, $summary:literal, $access:expr, query $query:expr, $handler:expr) => {
        route!(@ $method, $path, $summary, $access, $query, &[], $handler)
    };
    ($method:literal, $path:literal, $summary:literal, $access:expr, body $body:expr, $handler:expr) => {
        route!(@ $method, $path, $summary, $access, &[], $body, $handler)
    };
    (@ $method:literal, $path:literal, $summary:literal, $access:expr, $query:expr, $body:expr, $handler:expr) => {
        Route {
            method: $method,
            paths: &[$path],
            tag: "organizations",
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
    route!("POST", "/organization/new", "Makes an organization.", Access::Admin, body NEW, new),
    route!("PATCH", "/organization/update", "Changes an organization; what is not sent stays.", Access::Admin, body UPDATE, update),
    route!("DELETE", "/organization/delete", "Removes organizations with their teams and keys.", Access::Admin, body DELETE, delete),
    route!("GET", "/organization/info", "Shows an organization with its members and teams.", Access::AnyKey, query WHICH, info),
    route!("POST", "/organization/info", "Shows several organizations.", Access::Viewer, body INFOS, infos),
    route!(
        "GET",
        "/organization/list",
        "Shows all organizations; to others than admins those they are in.",
        Access::AnyKey,
        query LIST,
        list
    ),
    route!("POST", "/organization/member_add", "Adds members.", Access::InternalUser, body MEMBER_ADD, member_add),
    route!("PATCH", "/organization/member_update", "Changes a member's role and budget.", Access::InternalUser, body MEMBER_UPDATE, member_update),
    route!("DELETE", "/organization/member_delete", "Removes a member.", Access::InternalUser, body MEMBER, member_delete),
];

async fn require(connection: &mut AnyConnection, id: &str) -> Result<Record, Problem> {
    rows::get(connection, &ORGANIZATIONS, &[id]).await?.ok_or_else(|| {
        Problem::not_found(format!("Organization not found. organization_id={id}"), "organization_id")
    })
}

async fn new(call: Call) -> Result<Answer, Problem> {
    bounded(NEW, &call.body)?;
    let mut tx = call.app.db.write().await?;
    let id = match call.text("organization_id") {
        Some(id) => id.to_owned(),
        None => uuid()?,
    };
    if rows::get(tx.connection(), &ORGANIZATIONS, &[&id]).await?.is_some() {
        return Err(Problem::wrapped(
            ErrorStatus::BAD_REQUEST,
            format!("Organization id = {id} already exists. Please use a different organization id."),
        ));
    }
    let budget = match call.text("budget_id") {
        Some(budget) => {
            budgets::require(tx.connection(), budget).await?;
            budget.to_owned()
        }
        None => budgets::make(&mut tx, &call, &call.body, None).await?,
    };
    let mut row = columns(&call, &call.body, None);
    let author = json!(call.caller.user_id());
    for (name, value) in [
        ("organization_id", json!(id)),
        ("budget_id", json!(budget)),
        ("created_at", json!(call.now_ms)),
        ("created_by", author),
    ] {
        row.insert(name.to_owned(), value);
    }
    row.shift_remove("spend");
    rows::insert(tx.connection(), &ORGANIZATIONS, &row).await?;
    answer(tx, &id).await
}

fn columns(call: &Call, body: &Record, there: Option<&Value>) -> Record {
    let mut row = copied(body, &["organization_alias", "models", "spend"]);
    row.retain(|name, value| name != "spend" || !value.is_null());
    if let Some(metadata) = metadata(body, there) {
        row.insert("metadata".to_owned(), metadata);
    }
    row.insert("updated_at".to_owned(), json!(call.now_ms));
    row.insert("updated_by".to_owned(), json!(call.caller.user_id()));
    row
}

/// Commits a change and answers the organization.
async fn answer(mut tx: Tx, id: &str) -> Result<Answer, Problem> {
    tx.record_changed(format!("org:{id}"));
    let row = require(tx.connection(), id).await?;
    let mut shown = whole(tx.connection(), vec![row]).await?;
    let shown = shown.pop().map_or(Value::Null, Value::Object);
    Ok(Answer::changed(&shown, tx.commit().await?))
}

async fn update(call: Call) -> Result<Answer, Problem> {
    bounded(UPDATE, &call.body)?;
    let id = call.text("organization_id").unwrap_or_default();
    let mut tx = call.app.db.write().await?;
    let there = require(tx.connection(), id).await?;
    let mut row = columns(&call, &call.body, there.get("metadata"));
    if let Some(budget) = call.text("budget_id") {
        budgets::require(tx.connection(), budget).await?;
        row.insert("budget_id".to_owned(), json!(budget));
    }
    rows::update(tx.connection(), &ORGANIZATIONS, &[Where::Is("organization_id", json!(id))], &row).await?;
    if budgets::LIMITS.iter().any(|field| call.body.contains_key(field.name)) {
        match call.text("budget_id").or(text(&there, "budget_id")) {
            Some(budget) => budgets::change(&mut tx, &call, budget, &call.body).await?,
            None => {
                let budget = budgets::make(&mut tx, &call, &call.body, None).await?;
                let change = Record::from_iter([("budget_id".to_owned(), json!(budget))]);
                let this = [Where::Is("organization_id", json!(id))];
                rows::update(tx.connection(), &ORGANIZATIONS, &this, &change).await?;
            }
        }
    }
    answer(tx, id).await
}

async fn delete(call: Call) -> Result<Answer, Problem> {
    bounded(DELETE, &call.body)?;
    let mut ids = texts(&call.body, "organization_ids");
    ids.sort();
    ids.dedup();
    let mut tx = call.app.db.write().await?;
    let mut gone = Vec::new();
    for id in &ids {
        let row = require(tx.connection(), id).await?;
        let this = vec![Where::Is("organization_id", json!(id))];
        let select = Select::all(this.clone());
        let keys = rows::select(tx.connection(), &KEYS, &select).await?;
        keys::remove(&mut tx, &keys).await?;
        for team in rows::select(tx.connection(), &TEAMS, &select).await? {
            teams::remove(&mut tx, &team).await?;
        }
        for user in rows::select(tx.connection(), &USERS, &select).await? {
            tx.record_changed(format!("user:{}", text(&user, "user_id").unwrap_or_default()));
        }
        let none = Record::from_iter([("organization_id".to_owned(), Value::Null)]);
        rows::update(tx.connection(), &USERS, &this, &none).await?;
        for table in [&ORGANIZATION_MEMBERS, &ORGANIZATIONS] {
            rows::delete(tx.connection(), table, &this).await?;
        }
        tx.record_changed(format!("org:{id}"));
        gone.push(row);
    }
    Ok(Answer::changed(&json!(gone), tx.commit().await?))
}

/// Organizations with their budgets, members and teams.
async fn whole(connection: &mut AnyConnection, mut found: Vec<Record>) -> Result<Vec<Record>, DbError> {
    budgets::attach(connection, &mut found).await?;
    for row in &mut found {
        row.shift_remove("model_spend");
        let select = Select::all(vec![Where::Is("organization_id", json!(text(row, "organization_id")))]);
        let mut members = rows::select(connection, &ORGANIZATION_MEMBERS, &select).await?;
        budgets::attach(connection, &mut members).await?;
        let teams = rows::select(connection, &TEAMS, &select).await?;
        row.insert("members".to_owned(), json!(members));
        row.insert("teams".to_owned(), json!(teams.iter().map(teams::shown).collect::<Vec<_>>()));
    }
    Ok(found)
}

async fn info(call: Call) -> Result<Answer, Problem> {
    bounded_query(&call)?;
    let id = call.parameter("organization_id").unwrap_or_default();
    let mut connection = call.app.db.read().await?;
    if !call.caller.may_see_all() && !in_organization(&mut connection, &call.caller, id).await? {
        return Err(forbidden(format!("You are no member of the organization {id}.")));
    }
    let row = require(&mut connection, id).await?;
    let shown = whole(&mut connection, vec![row]).await?.pop();
    Ok(Answer::json(&shown.map_or(Value::Null, Value::Object)))
}

async fn infos(call: Call) -> Result<Answer, Problem> {
    bounded(INFOS, &call.body)?;
    let ids = texts(&call.body, "organizations");
    if ids.is_empty() {
        return Err(Problem::wrapped(
            ErrorStatus::BAD_REQUEST,
            "Specify list of organization id's to query. Passed in=[]",
        ));
    }
    let mut connection = call.app.db.read().await?;
    let select = Select::all(vec![Where::In("organization_id", ids.into_iter().map(Value::from).collect())]);
    let found = rows::select(&mut connection, &ORGANIZATIONS, &select).await?;
    Ok(Answer::json(&json!(whole(&mut connection, found).await?)))
}

async fn list(call: Call) -> Result<Answer, Problem> {
    bounded_query(&call)?;
    let mut connection = call.app.db.read().await?;
    let mut conditions = if call.caller.may_see_all() {
        Vec::new()
    } else {
        let Some(user) = call.caller.user_id() else { return Ok(Answer::json(&json!([]))) };
        let mine = Select::all(vec![Where::Is("user_id", json!(user))]);
        let mine = rows::select(&mut connection, &ORGANIZATION_MEMBERS, &mine).await?;
        let ids = mine.iter().map(|member| json!(text(member, "organization_id"))).collect();
        vec![Where::In("organization_id", ids)]
    };
    conditions.extend(call.parameter("org_id").map(|id| Where::Is("organization_id", json!(id))));
    conditions.extend(
        call.parameter("org_alias").map(|alias| Where::Holds("organization_alias", alias.to_owned())),
    );
    let found = rows::select(&mut connection, &ORGANIZATIONS, &Select::all(conditions)).await?;
    Ok(Answer::json(&json!(whole(&mut connection, found).await?)))
}

/// Begins a change of an organization's members, by somebody who runs it.
async fn begin(call: &Call) -> Result<Tx, Problem> {
    let id = call.text("organization_id").unwrap_or_default();
    let mut tx = call.app.db.write().await?;
    if !runs_organization(tx.connection(), &call.caller, Some(id)).await? {
        return Err(refused(call));
    }
    require(tx.connection(), id).await?;
    Ok(tx)
}

fn known_role(role: &str) -> Result<&str, Problem> {
    if ROLES.contains(&role) {
        return Ok(role);
    }
    let message = "Input should be 'org_admin', 'internal_user' or 'internal_user_viewer'";
    Err(Problem::invalid("body", "role", "enum", message, &json!(role)))
}

async fn member_add(call: Call) -> Result<Answer, Problem> {
    bounded(MEMBER_ADD, &call.body)?;
    let id = call.text("organization_id").unwrap_or_default();
    let mut tx = begin(&call).await?;
    let given = call.body.get("member").cloned().unwrap_or_default();
    let list = match given {
        Value::Array(list) => list,
        one => vec![one],
    };
    let (mut found, mut memberships) = (Vec::new(), Vec::new());
    for item in &list {
        let (user, role) = member(&mut tx, &call, item).await?;
        if rows::get(tx.connection(), &ORGANIZATION_MEMBERS, &[&user, id]).await?.is_some() {
            return Err(Problem::wrapped(
                ErrorStatus::BAD_REQUEST,
                format!("User with user_id={user} already exists in organization"),
            ));
        }
        let budget = match call.body.get("max_budget_in_organization").filter(|amount| !amount.is_null()) {
            Some(amount) => {
                let limits = Record::from_iter([("max_budget".to_owned(), amount.clone())]);
                Some(budgets::make(&mut tx, &call, &limits, None).await?)
            }
            None => None,
        };
        let row = Record::from_iter([
            ("user_id".to_owned(), json!(user)),
            ("organization_id".to_owned(), json!(id)),
            ("user_role".to_owned(), json!(role)),
            ("budget_id".to_owned(), json!(budget)),
            ("created_at".to_owned(), json!(call.now_ms)),
            ("updated_at".to_owned(), json!(call.now_ms)),
        ]);
        rows::insert(tx.connection(), &ORGANIZATION_MEMBERS, &row).await?;
        tx.record_changed(format!("user:{user}"));
        memberships.extend(rows::get(tx.connection(), &ORGANIZATION_MEMBERS, &[&user, id]).await?);
        found.extend(rows::get(tx.connection(), &USERS, &[&user]).await?);
    }
    budgets::attach(tx.connection(), &mut memberships).await?;
    let reply = json!({
        "organization_id": id, "updated_users": found, "updated_organization_memberships": memberships,
    });
    Ok(Answer::changed(&reply, tx.commit().await?))
}

/// The user that a body names as a member, made if need be, and its role.
async fn member(tx: &mut Tx, call: &Call, item: &Value) -> Result<(String, String), Problem> {
    let object = item.as_object().cloned().unwrap_or_default();
    let role = known_role(text(&object, "role").unwrap_or("internal_user"))?.to_owned();
    bounded(MEMBER, &object)?;
    let id = match (text(&object, "user_id"), text(&object, "user_email")) {
        (Some(id), _) => Some(id.to_owned()),
        (None, Some(email)) => Some(id_by_email(tx, email).await?.map_or_else(uuid, Ok)?),
        (None, None) => None,
    };
    let Some(id) = id else {
        let message = "Input should be an object with `user_id` or `user_email`, and `role`";
        return Err(Problem::invalid("body", "member", "value_error", message, item));
    };
    if rows::get(tx.connection(), &USERS, &[&id]).await?.is_none() {
        users::insert_default(tx, call, &id, text(&object, "user_email")).await?;
    }
    Ok((id, role))
}

async fn id_by_email(tx: &mut Tx, email: &str) -> Result<Option<String>, Problem> {
    let found = users::by_email(tx, email).await?;
    Ok(found.as_ref().and_then(|user| text(user, "user_id")).map(str::to_owned))
}

/// The membership that a body names.
async fn which(tx: &mut Tx, call: &Call) -> Result<Record, Problem> {
    let organization = call.text("organization_id").unwrap_or_default();
    let user = match (call.text("user_id"), call.text("user_email")) {
        (Some(id), _) => Some(id.to_owned()),
        (None, Some(email)) => id_by_email(tx, email).await?,
        (None, None) => {
            return Err(Problem::Detail(
                422,
                json!([{"type": "value_error", "loc": ["body"], "input": call.body,
                        "msg": "Value error, Either user_id or user_email must be provided"}]),
            ));
        }
    };
    let there = match &user {
        Some(user) => rows::get(tx.connection(), &ORGANIZATION_MEMBERS, &[user, organization]).await?,
        None => None,
    };
    there.ok_or_else(|| {
        Problem::wrapped(
            ErrorStatus::BAD_REQUEST,
            format!(
                "User not found in organization. organization_id={organization}, user_id={}",
                user.as_deref().unwrap_or("None")
            ),
        )
    })
}

async fn member_update(call: Call) -> Result<Answer, Problem> {
    bounded(MEMBER_UPDATE, &call.body)?;
    let mut tx = begin(&call).await?;
    let there = which(&mut tx, &call).await?;
    let (user, organization) =
        (text(&there, "user_id").unwrap_or_default(), text(&there, "organization_id").unwrap_or_default());
    let mut change = Record::from_iter([("updated_at".to_owned(), json!(call.now_ms))]);
    if let Some(role) = call.text("role") {
        change.insert("user_role".to_owned(), json!(known_role(role)?));
    }
    if let Some(amount) = call.body.get("max_budget_in_organization") {
        if !call.caller.is_admin() && call.caller.user_id() == Some(user) {
            return Err(forbidden("Nobody may change the budget of its own membership; another admin may."));
        }
        let limits = Record::from_iter([("max_budget".to_owned(), amount.clone())]);
        match text(&there, "budget_id") {
            Some(budget) => budgets::change(&mut tx, &call, budget, &limits).await?,
            None => {
                let budget = budgets::make(&mut tx, &call, &limits, None).await?;
                change.insert("budget_id".to_owned(), json!(budget));
            }
        }
    }
    let this = [Where::Is("user_id", json!(user)), Where::Is("organization_id", json!(organization))];
    rows::update(tx.connection(), &ORGANIZATION_MEMBERS, &this, &change).await?;
    tx.record_changed(format!("user:{user}"));
    let now = rows::get(tx.connection(), &ORGANIZATION_MEMBERS, &[user, organization]).await?;
    let mut now = [now.unwrap_or_default()];
    budgets::attach(tx.connection(), &mut now).await?;
    Ok(Answer::changed(&json!(now.first()), tx.commit().await?))
}

async fn member_delete(call: Call) -> Result<Answer, Problem> {
    bounded(MEMBER, &call.body)?;
    let mut tx = begin(&call).await?;
    let there = which(&mut tx, &call).await?;
    let (user, organization) =
        (text(&there, "user_id").unwrap_or_default(), text(&there, "organization_id").unwrap_or_default());
    let this = [Where::Is("user_id", json!(user)), Where::Is("organization_id", json!(organization))];
    rows::delete(tx.connection(), &ORGANIZATION_MEMBERS, &this).await?;
    if let Some(budget) = text(&there, "budget_id") {
        budgets::remove_unused(&mut tx, budget).await?;
    }
    tx.record_changed(format!("user:{user}"));
    Ok(Answer::changed(&json!(there), tx.commit().await?))
}

#[cfg(test)]
#[path = "organizations/tests.rs"]
mod tests;
