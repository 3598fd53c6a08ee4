//! `/key/update`, `/key/block`, `/key/unblock`, `/key/regenerate`.

use serde_json::{Value, json};

use super::{
    REGENERATE, UPDATE, WHICH,
    make::{self, COLUMNS, New},
    require, token, width,
};
use crate::control::ledger::{
    api::{
        access::{forbidden, may_change_key, runs_organization, runs_team, team_of},
        budgets,
        fields::{bounded, copied, expiry, metadata, reset_at, text, without_permissions},
    },
    caller::hash,
    db::{DbError, Tx},
    former,
    problem::{ErrorStatus, Problem},
    resets,
    route::{Answer, Call},
    rows::{self, Record, Where},
    schema::{BUDGETS, KEYS},
};

pub async fn update(call: Call) -> Result<Answer, Problem> {
    bounded(UPDATE, &call.body)?;
    let mut tx = call.app.db.write().await?;
    let given = call.text("key").unwrap_or_default();
    let row = require(tx.connection(), given).await?;
    may_change_key(tx.connection(), &call, &row, "/key/update").await?;
    let changes = changes(&mut tx, &call, &row, "/key/update").await?;
    let now = store(&mut tx, &call, token(&row), &changes).await?;
    let mut reply = Record::from_iter([("key".to_owned(), json!(given))]);
    for name in changes.keys() {
        reply.insert(name.clone(), now.get(name).cloned().unwrap_or_default());
    }
    if let Some(kept) = now.get("metadata").filter(|_| changes.contains_key("metadata")) {
        let sent = crate::control::ledger::api::fields::IN_METADATA
            .iter()
            .filter(|name| call.body.contains_key(**name));
        for name in sent {
            reply.insert((*name).to_owned(), kept.get(*name).cloned().unwrap_or_default());
        }
    }
    Ok(Answer::changed(&Value::Object(reply), tx.commit().await?))
}

pub async fn block(call: Call, blocked: bool) -> Result<Answer, Problem> {
    bounded(WHICH, &call.body)?;
    let operation = if blocked { "/key/block" } else { "/key/unblock" };
    let mut tx = call.app.db.write().await?;
    let row = require(tx.connection(), call.text("key").unwrap_or_default()).await?;
    may_change_key(tx.connection(), &call, &row, operation).await?;
    if !blocked {
        may_unblock(&mut tx, &call, &row).await?;
    }
    let changes = Record::from_iter([
        ("blocked".to_owned(), json!(blocked)),
        ("updated_at".to_owned(), json!(call.now_ms)),
        ("updated_by".to_owned(), width::changed_by(&call, &row)),
    ]);
    let mut now = [store(&mut tx, &call, token(&row), &changes).await?];
    budgets::attach(tx.connection(), &mut now).await?;
    let [now] = now;
    Ok(Answer::changed(&Value::Object(now), tx.commit().await?))
}

pub async fn regenerate(call: Call) -> Result<Answer, Problem> {
    bounded(REGENERATE, &call.body)?;
    if call.text("new_master_key").is_some() {
        return Err(Problem::bad_request(
            "new_master_key",
            "The master key stands in the configuration (`general_settings.master_key`): change it there. What is \
             secret in the database stays readable with LITELLM_SALT_KEY.",
        ));
    }
    let Some(given) = call.parts.first().map(String::as_str).or(call.text("key")) else {
        return Err(Problem::missing("body", "key", &Value::Object(Record::new())));
    };
    let mut tx = call.app.db.write().await?;
    let row = require(tx.connection(), given).await?;
    may_change_key(tx.connection(), &call, &row, "/key/regenerate").await?;
    width::handed(&call, &row)?;
    let mut changes = changes(&mut tx, &call, &row, "/key/regenerate").await?;
    let key = match call.text("new_key") {
        Some(own) => {
            make::own_key(own)?;
            own.to_owned()
        }
        None => make::secret()?,
    };
    let (old, new) = (token(&row), hash(&key));
    if former::is_taken(tx.connection(), &new, old).await? {
        return Err(make::taken(DbError::Duplicate));
    }
    let good_until = match call.text("grace_period") {
        None | Some("0s") => None,
        Some(period) => Some(
            resets::expires(period, call.now_ms)
                .map_err(|error| Problem::bad_request("grace_period", format!("`grace_period`: {error}.")))?,
        ),
    };
    changes.insert("token".to_owned(), json!(new));
    changes.insert("key_name".to_owned(), json!(make::name(&key)));
    let this = [Where::Is("token", json!(old))];
    rows::update(tx.connection(), &KEYS, &this, &changes).await.map_err(make::taken)?;
    if old != new {
        former::replace(tx.connection(), old, &new, good_until, call.now_ms).await?;
    }
    tx.record_changed(format!("key:{old}"));
    tx.record_changed(format!("key:{new}"));
    let row = make::stored(&mut tx, &call, &new).await?;
    let reply = make::reply(&call.body, &New { key, row });
    Ok(Answer::changed(&Value::Object(reply), tx.commit().await?))
}

/// Only who stands above the owner of a key may: what it has spent is what it is held to.
pub async fn reset_spend(call: Call) -> Result<Answer, Problem> {
    let given = call.parts.first().map(String::as_str).unwrap_or_default();
    let wanted = call.body.get("reset_to").cloned().unwrap_or_default();
    let mut tx = call.app.db.write().await?;
    let row = require(tx.connection(), given).await?;
    if !call.caller.is_admin() && !is_above(&mut tx, &call, &row).await? {
        return Err(forbidden("Only proxy admins and admins of its team may change what a key has spent."));
    }
    let spent = row.get("spend").cloned().unwrap_or_default();
    let own = row.get("max_budget").filter(|max| !max.is_null()).cloned();
    let shared = match text(&row, "budget_id") {
        Some(id) if own.is_none() => rows::get(tx.connection(), &BUDGETS, &[id]).await?,
        _ => None,
    };
    let most = own.or_else(|| shared?.get("max_budget").cloned()).unwrap_or_default();
    for (limit, name) in [(&spent, "current spend"), (&most, "budget")] {
        let amount = |value: &Value| value.as_f64().map(|number| format!("{number:?}")).unwrap_or_default();
        if rows::money(limit).is_some_and(|limit| rows::money(&wanted).is_some_and(|wanted| wanted > limit)) {
            return Err(Problem::wrapped(
                ErrorStatus::BAD_REQUEST,
                format!("reset_to ({}) must be <= {name} ({})", amount(&wanted), amount(limit)),
            ));
        }
    }
    let changes = Record::from_iter([
        ("spend".to_owned(), wanted),
        ("updated_at".to_owned(), json!(call.now_ms)),
        ("updated_by".to_owned(), width::changed_by(&call, &row)),
    ]);
    let now = store(&mut tx, &call, token(&row), &changes).await?;
    let of = |name: &str| now.get(name).cloned().unwrap_or_default();
    let reply = json!({
        "key_hash": token(&row), "spend": of("spend"), "previous_spend": spent, "max_budget": of("max_budget"),
        "budget_reset_at": of("budget_reset_at"),
    });
    Ok(Answer::changed(&reply, tx.commit().await?))
}

/// The columns that a body changes, checked.
async fn changes(tx: &mut Tx, call: &Call, row: &Record, operation: &str) -> Result<Record, Problem> {
    let config = call.app.config();
    let mut body = call.body.clone();
    body.remove("key");
    make::bind(&config.ledger.upperbound_key_params, &mut body, false)?;
    if let Some(expiry) = text(&body, "temp_budget_expiry") {
        let at = raised_until(expiry, call.now_ms)?;
        body.insert("temp_budget_expiry".to_owned(), at);
    }
    if !call.caller.is_admin() {
        narrow(tx, call, row, &body).await?;
    }
    without_permissions(&body, Some(row))?;
    if ["user_id", "team_id", "organization_id"].iter().any(|name| body.contains_key(*name)) {
        moved(tx, call, row, &body, operation).await?;
    }
    if let Some(alias) = text(&body, "key_alias") {
        make::free_alias(tx, alias, token(row)).await?;
    }
    if let Some(id) = text(&body, "budget_id") {
        width::same_budget(call, id, row)?;
        budgets::require(tx.connection(), id).await?;
    }
    let mut changes = copied(&body, COLUMNS);
    // A sum cannot be nothing.
    changes.retain(|name, value| name != "spend" || !value.is_null());
    if let Some(metadata) = metadata(&body, row.get("metadata")) {
        changes.insert("metadata".to_owned(), metadata);
    }
    if let Some(routes) = make::routes_of(&body)? {
        changes.insert("allowed_routes".to_owned(), routes);
    }
    if body.contains_key("duration") {
        changes.insert("expires".to_owned(), expiry(&body, call.now_ms)?);
    }
    if body.contains_key("budget_duration") {
        let zone = resets::zone(&config);
        changes.insert("budget_reset_at".to_owned(), reset_at(&body, call.now_ms, &zone)?);
    }
    changes.insert("updated_at".to_owned(), json!(call.now_ms));
    changes.insert("updated_by".to_owned(), width::changed_by(call, row));
    let mut after = row.clone();
    after.extend(changes.clone());
    let narrow = width::set_by_others(row) && !may_widen(tx, call, row).await?;
    width::changed(call, row, &after, narrow)?;
    Ok(changes)
}

/// The end of a raised budget: a time, or how long from now.
fn raised_until(text: &str, now_ms: i64) -> Result<Value, Problem> {
    let at = rows::time(&json!(text)).or_else(|| resets::expires(text, now_ms).ok());
    at.map(rows::time_text).ok_or_else(|| {
        let message = "Input should be a valid datetime, or a duration such as 10d";
        Problem::invalid("body", "temp_budget_expiry", "datetime_parsing", message, &json!(text))
    })
}

/// What only those above its owner may do with a key: change what it has spent, unblock it.
async fn narrow(tx: &mut Tx, call: &Call, row: &Record, body: &Record) -> Result<(), Problem> {
    if body.get("spend").is_some_and(|spend| !spend.is_null() && Some(spend) != row.get("spend")) {
        return Err(forbidden("Only proxy admins may change what a key has spent (`spend`)."));
    }
    make::granted(body, row.get("permissions"))?;
    let is_blocked = row.get("blocked") == Some(&json!(true));
    if is_blocked && body.get("blocked").is_some_and(|blocked| blocked != &json!(true)) {
        may_unblock(tx, call, row).await?;
    }
    Ok(())
}

/// Who stands above a key's owner may lift what was set on it, as may the key that made it.
async fn may_widen(tx: &mut Tx, call: &Call, row: &Record) -> Result<bool, Problem> {
    if call.caller.is_admin()
        || call.caller.token().is_some() && call.caller.token() == text(row, "created_by")
    {
        return Ok(true);
    }
    let is_owner = call.caller.user_id().is_some() && call.caller.user_id() == text(row, "user_id");
    Ok(!is_owner && is_above(tx, call, row).await?)
}

/// Whether the caller runs the team of a key, or the organization of one without a team.
async fn is_above(tx: &mut Tx, call: &Call, row: &Record) -> Result<bool, Problem> {
    let connection = tx.connection();
    Ok(match team_of(connection, row).await? {
        Some(team) => runs_team(connection, &call.caller, &team).await?,
        None => runs_organization(connection, &call.caller, text(row, "organization_id")).await?,
    })
}

/// Whoever blocked a key meant it: its owner cannot undo that, only an admin of its team or organization, or of the gateway.
async fn may_unblock(tx: &mut Tx, call: &Call, row: &Record) -> Result<(), Problem> {
    if is_above(tx, call, row).await? { Ok(()) } else { Err(forbidden("Only admins may unblock a key.")) }
}

/// Checks the key as it would stand after a change of its user, team or organization.
async fn moved(
    tx: &mut Tx,
    call: &Call,
    row: &Record,
    body: &Record,
    operation: &str,
) -> Result<(), Problem> {
    let mut after = body.clone();
    for name in ["user_id", "team_id", "organization_id"] {
        let stays = row.get(name).cloned().unwrap_or_default();
        after.entry(name).or_insert(stays);
    }
    if call.caller.is_admin() {
        return make::place(tx, call, &mut after, operation).await;
    }
    let same = |name: &str| text(&after, name) == text(row, name);
    if same("user_id") && same("team_id") && same("organization_id") {
        return Ok(());
    }
    // Without its organization a key would be out of that organization's limits.
    if text(row, "organization_id").is_some()
        && !same("organization_id")
        && !make::may_leave_organization(tx, call, row).await?
    {
        return Err(forbidden("Only admins of its organization may take a key out of it."));
    }
    make::place(tx, call, &mut after, operation).await
}

async fn store(tx: &mut Tx, call: &Call, token: &str, changes: &Record) -> Result<Record, Problem> {
    rows::update(tx.connection(), &KEYS, &[Where::Is("token", json!(token))], changes).await?;
    tx.record_changed(format!("key:{token}"));
    make::stored(tx, call, token).await
}
