//! `/team/new`, `/team/update`, `/team/delete`, `/team/block`, `/team/unblock`, `/team/model/…`, `/team/permissions_update`.

use serde_json::{Value, json};

use super::{DELETE, MODELS, Member, NEW, PERMISSIONS, UPDATE, WHICH, add_members, members, require, shown};
use crate::control::ledger::{
    api::{
        access::{above_team, acting_user, forbidden, refused, runs_organization, runs_team},
        budgets,
        fields::{bounded, copied, metadata, reset_at, text, texts, uuid},
        keys,
    },
    caller::Caller,
    db::Tx,
    problem::{ErrorStatus, Problem},
    resets,
    route::{Answer, Call},
    rows::{self, Record, Select, Where},
    schema::{BUDGETS, KEYS, ORGANIZATIONS, TEAM_MEMBERS, TEAMS},
    windows,
};

/// Columns that are taken from the body as they are.
const COLUMNS: &[&str] = &[
    "team_alias",
    "organization_id",
    "team_member_permissions",
    "tpm_limit",
    "rpm_limit",
    "max_budget",
    "budget_duration",
    "models",
    "blocked",
    "max_parallel_requests",
    "model_max_budget",
    "budget_limits",
    "model_aliases",
    "spend",
];

/// What admins of a team may change of it: nothing that limits it.
const OF_TEAM_ADMINS: [&str; 3] = ["team_id", "team_alias", "team_member_permissions"];

/// What a body says of the budget of all members, and what budgets call it.
const MEMBER_LIMITS: [(&str, &str); 4] = [
    ("team_member_budget", "max_budget"),
    ("team_member_budget_duration", "budget_duration"),
    ("team_member_rpm_limit", "rpm_limit"),
    ("team_member_tpm_limit", "tpm_limit"),
];
/// Where the metadata of a team names the budget of its members.
pub const MEMBER_BUDGET: &str = "team_member_budget_id";

pub async fn new(call: Call) -> Result<Answer, Problem> {
    bounded(NEW, &call.body)?;
    let mut body = call.body.clone();
    for (name, default) in &call.app.config().ledger.default_team_params {
        let is_empty = match body.get(name) {
            None | Some(Value::Null) => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(_) => false,
        };
        if is_empty && !default.is_null() {
            body.insert(name.clone(), default.clone());
        }
    }
    let mut tx = call.app.db.write().await?;
    if !call.caller.is_admin() {
        acting_user(&call)?;
        if !runs_organization(tx.connection(), &call.caller, text(&body, "organization_id")).await? {
            return Err(refused(&call));
        }
    }
    known_organization(&mut tx, &body).await?;
    let id = match text(&body, "team_id") {
        // Members are told apart by `team/user`.
        Some(id) if id.contains('/') => {
            return Err(Problem::bad_request("team_id", "`team_id` contains a `/`: choose an id without."));
        }
        Some(id) => id.to_owned(),
        None => uuid()?,
    };
    if rows::get(tx.connection(), &TEAMS, &[&id]).await?.is_some() {
        return Err(Problem::wrapped(
            ErrorStatus::BAD_REQUEST,
            format!("Team id = {id} already exists. Please use a different team id."),
        ));
    }
    let mut row = columns(&mut tx, &call, &body, None).await?;
    row.retain(|_, value| !value.is_null());
    row.entry("blocked").or_insert_with(|| json!(false));
    row.insert("team_id".to_owned(), json!(id));
    row.insert("members_with_roles".to_owned(), json!([]));
    row.insert("created_at".to_owned(), json!(call.now_ms));
    rows::insert(tx.connection(), &TEAMS, &row).await?;
    tx.record_changed(format!("team:{id}"));
    first_members(&mut tx, &call, &id, &body).await?;
    let row = stored(&mut tx, &call, &id).await?;
    Ok(Answer::changed(&Value::Object(shown(&row)), tx.commit().await?))
}

/// The members that the body names, and whoever makes the team.
async fn first_members(tx: &mut Tx, call: &Call, id: &str, body: &Record) -> Result<(), Problem> {
    let listed = body.get("members_with_roles").cloned().unwrap_or_else(|| json!([]));
    let mut wanted = members::named(tx, call, &listed).await?;
    for (name, role) in [("admins", "admin"), ("members", "user")] {
        for user in texts(body, name) {
            members::filled(name, &user)?;
            if !wanted.iter().any(|member| member.user_id == user) {
                wanted.push(Member { user_id: user, email: None, role: role.to_owned() });
            }
        }
    }
    let maker = call.caller.user_id().filter(|maker| !wanted.iter().any(|member| member.user_id == *maker));
    if let (Some(maker), Caller::Key(_)) = (maker, &call.caller) {
        wanted.push(Member { user_id: maker.to_owned(), email: None, role: "admin".to_owned() });
    }
    let team = require(tx.connection(), id).await?;
    add_members(tx, call, &team, &wanted, &Record::new()).await?;
    if let (Some(maker), Caller::Master) = (maker, &call.caller) {
        // The holder of the master key is no user: it stands in the list and nowhere else.
        let team = require(tx.connection(), id).await?;
        let mut list = members::list(&team);
        list.push(json!({"user_id": maker, "user_email": null, "role": "admin"}));
        members::store(tx, call, id, list).await?;
    }
    Ok(())
}

async fn known_organization(tx: &mut Tx, body: &Record) -> Result<(), Problem> {
    let Some(id) = text(body, "organization_id") else { return Ok(()) };
    if rows::get(tx.connection(), &ORGANIZATIONS, &[id]).await?.is_none() {
        return Err(Problem::not_found(
            format!("Organization not found. organization_id={id}"),
            "organization_id",
        ));
    }
    Ok(())
}

/// The columns that a body sets, checked; `there` is the row before.
async fn columns(tx: &mut Tx, call: &Call, body: &Record, there: Option<&Record>) -> Result<Record, Problem> {
    let mut body = body.clone();
    if let Some(duration) = text(&body, "team_member_key_duration") {
        resets::expires(duration, call.now_ms).map_err(|error| {
            Problem::bad_request("team_member_key_duration", format!("`team_member_key_duration`: {error}."))
        })?;
    }
    let zone = resets::zone(&call.app.config());
    let mut row = copied(&body, COLUMNS);
    row.retain(|name, value| name != "spend" || !value.is_null());
    if body.contains_key("budget_duration") {
        row.insert("budget_reset_at".to_owned(), reset_at(&body, call.now_ms, &zone)?);
    }
    let kept = there.and_then(|row| row.get("metadata"));
    let known = kept.and_then(|kept| kept.get(MEMBER_BUDGET)).cloned();
    if let Some(id) = member_budget(tx, call, &body, &row, there).await? {
        let mut metadata =
            body.get("metadata").or(kept).and_then(Value::as_object).cloned().unwrap_or_default();
        metadata.insert(MEMBER_BUDGET.to_owned(), json!(id));
        body.insert("metadata".to_owned(), Value::Object(metadata));
    }
    if let Some(mut metadata) = metadata(&body, kept) {
        // New metadata does not make the team forget its members' budget.
        if let (Some(id), Some(map)) = (known, metadata.as_object_mut()) {
            map.entry(MEMBER_BUDGET).or_insert(id);
        }
        row.insert("metadata".to_owned(), metadata);
    }
    row.insert("updated_at".to_owned(), json!(call.now_ms));
    Ok(row)
}

/// Makes or changes the budget that all members of a team have, where a body says something of it. Gives its id, when it is new.
///
/// Members' spend starts again with the team's, unless they have a period of their own; so a new period of the team is theirs too.
async fn member_budget(
    tx: &mut Tx,
    call: &Call,
    body: &Record,
    row: &Record,
    there: Option<&Record>,
) -> Result<Option<String>, Problem> {
    let mut limits = Record::new();
    for (sent, name) in MEMBER_LIMITS {
        limits.extend(body.get(sent).map(|value| (name.to_owned(), value.clone())));
    }
    let of_team = |name: &str| row.get(name).or_else(|| there?.get(name)).cloned().unwrap_or_default();
    let period = |limits: &mut Record| {
        limits.insert("budget_duration".to_owned(), of_team("budget_duration"));
        // A column as it is stored, or as it is shown.
        let at = of_team("budget_reset_at");
        limits.insert("budget_reset_at".to_owned(), at.as_i64().map_or(at, rows::time_text));
    };
    let known = there.and_then(members::default_budget);
    let before = there.and_then(|there| text(there, "budget_duration"));
    if let (Some(there), true) = (there, row.contains_key("budget_duration")) {
        for id in following(tx, there, before).await? {
            let mut limits = Record::new();
            period(&mut limits);
            budgets::change(tx, call, &id, &limits).await?;
        }
    }
    match known {
        Some(id) if !limits.is_empty() => {
            // No period of their own any more: the team's.
            if limits.get("budget_duration").is_some_and(Value::is_null) {
                period(&mut limits);
            }
            budgets::change(tx, call, &id, &limits).await?;
            Ok(None)
        }
        None if limits.values().any(|value| !value.is_null()) => {
            if limits.get("budget_duration").is_none_or(Value::is_null) {
                period(&mut limits);
            }
            Ok(Some(budgets::make(tx, call, &limits, None).await?))
        }
        _ => Ok(None),
    }
}

/// The budgets of a team's members, shared or of their own, that have the team's period.
async fn following(tx: &mut Tx, team: &Record, period: Option<&str>) -> Result<Vec<String>, Problem> {
    let this = vec![Where::Is("team_id", json!(text(team, "team_id")))];
    let of_members = rows::select(tx.connection(), &TEAM_MEMBERS, &Select::all(this)).await?;
    let mut ids: Vec<String> =
        of_members.iter().filter_map(|member| text(member, "budget_id").map(str::to_owned)).collect();
    ids.extend(members::default_budget(team));
    ids.sort();
    ids.dedup();
    let mut same = Vec::new();
    for id in ids {
        let budget = rows::get(tx.connection(), &BUDGETS, &[&id]).await?;
        if budget.is_some_and(|budget| text(&budget, "budget_duration") == period) {
            same.push(id);
        }
    }
    Ok(same)
}

pub async fn update(call: Call) -> Result<Answer, Problem> {
    bounded(UPDATE, &call.body)?;
    let id = call.text("team_id").unwrap_or_default();
    let mut tx = call.app.db.write().await?;
    let there = require(tx.connection(), id).await?;
    if !call.caller.is_admin() {
        narrow(&mut tx, &call, &there).await?;
    }
    known_organization(&mut tx, &call.body).await?;
    let row = columns(&mut tx, &call, &call.body, Some(&there)).await?;
    store(&mut tx, id, &row).await?;
    let now = stored(&mut tx, &call, id).await?;
    Ok(Answer::changed(&json!({"team_id": id, "data": shown(&now)}), tx.commit().await?))
}

/// A team's row as replies show it.
async fn stored(tx: &mut Tx, call: &Call, id: &str) -> Result<Record, Problem> {
    let mut row = [require(tx.connection(), id).await?];
    windows::attach(tx.connection(), call, "team", &mut row, false).await?;
    let [row] = row;
    Ok(row)
}

/// Who runs the organization may change a team's limits; who runs the team may not.
async fn narrow(tx: &mut Tx, call: &Call, there: &Record) -> Result<(), Problem> {
    let connection = tx.connection();
    if !runs_team(connection, &call.caller, there).await? {
        return Err(not_yours(call, there));
    }
    let above = above_team(connection, &call.caller, there).await?;
    if !above {
        let beyond = call.body.keys().find(|name| !OF_TEAM_ADMINS.contains(&name.as_str()));
        if let Some(name) = beyond {
            return Err(forbidden(format!(
                "Team admins may change the team's name and its members' permissions; `{name}` is for proxy admins and \
                 admins of its organization."
            )));
        }
    }
    if call.body.get("spend").is_some_and(|spend| !spend.is_null()) {
        return Err(forbidden("Only proxy admins may change what a team has spent (`spend`)."));
    }
    if call.body.contains_key("organization_id")
        && call.text("organization_id") != text(there, "organization_id")
        && !runs_organization(connection, &call.caller, call.text("organization_id")).await?
    {
        return Err(forbidden("You do not run the organization that the team would move to."));
    }
    Ok(())
}

/// The refusal of a change of a team.
pub fn not_yours(call: &Call, team: &Record) -> Problem {
    if acting_user(call).is_err() {
        return refused(call);
    }
    let id = text(team, "team_id").unwrap_or_default();
    Problem::wrapped(
        ErrorStatus::FORBIDDEN,
        format!("Call not allowed. User not proxy admin OR team admin. route={}, team_id={id}", call.path),
    )
}

async fn store(tx: &mut Tx, id: &str, changes: &Record) -> Result<Record, Problem> {
    rows::update(tx.connection(), &TEAMS, &[Where::Is("team_id", json!(id))], changes).await?;
    tx.record_changed(format!("team:{id}"));
    require(tx.connection(), id).await
}

pub async fn delete(call: Call) -> Result<Answer, Problem> {
    bounded(DELETE, &call.body)?;
    if !call.caller.is_admin() {
        acting_user(&call)?;
    }
    let mut ids = texts(&call.body, "team_ids");
    ids.sort();
    ids.dedup();
    let mut tx = call.app.db.write().await?;
    for id in &ids {
        let team = require(tx.connection(), id).await?;
        if !above_team(tx.connection(), &call.caller, &team).await? {
            return Err(not_yours(&call, &team));
        }
        remove(&mut tx, &team).await?;
    }
    Ok(Answer::changed(&json!({"deleted_teams": ids}), tx.commit().await?))
}

/// Removes a team, its keys, its memberships and the budget of its members.
pub async fn remove(tx: &mut Tx, team: &Record) -> Result<(), Problem> {
    let id = text(team, "team_id").unwrap_or_default();
    let this = vec![Where::Is("team_id", json!(id))];
    let select = Select::all(this.clone());
    let keys = rows::select(tx.connection(), &KEYS, &select).await?;
    keys::remove(tx, &keys).await?;
    for member in rows::select(tx.connection(), &TEAM_MEMBERS, &select).await? {
        members::leave(tx, team, text(&member, "user_id").unwrap_or_default()).await?;
    }
    let budget =
        team.get("metadata").and_then(|metadata| metadata.get(MEMBER_BUDGET)).and_then(Value::as_str);
    if let Some(budget) = budget {
        budgets::remove_unused(tx, budget).await?;
    }
    windows::forget(tx.connection(), "team", id, team).await?;
    rows::delete(tx.connection(), &TEAMS, &this).await?;
    tx.record_changed(format!("team:{id}"));
    Ok(())
}

pub async fn block(call: Call) -> Result<Answer, Problem> {
    set_blocked(call, true).await
}

pub async fn unblock(call: Call) -> Result<Answer, Problem> {
    set_blocked(call, false).await
}

async fn set_blocked(call: Call, blocked: bool) -> Result<Answer, Problem> {
    bounded(WHICH, &call.body)?;
    above(call, |_| Ok(Record::from_iter([("blocked".to_owned(), json!(blocked))]))).await
}

pub async fn add_models(call: Call) -> Result<Answer, Problem> {
    bounded(MODELS, &call.body)?;
    let more = texts(&call.body, "models");
    above(call, move |team| {
        let mut models = texts(team, "models");
        for model in more {
            if !models.contains(&model) {
                models.push(model);
            }
        }
        Ok(Record::from_iter([("models".to_owned(), json!(models))]))
    })
    .await
}

pub async fn delete_models(call: Call) -> Result<Answer, Problem> {
    bounded(MODELS, &call.body)?;
    let gone = texts(&call.body, "models");
    above(call, move |team| {
        let before = texts(team, "models");
        let models: Vec<&String> = before.iter().filter(|model| !gone.contains(model)).collect();
        if models.is_empty() && !before.is_empty() {
            // No models at all means all models: the opposite of what was asked.
            return Err(Problem::bad_request(
                "models",
                "This would leave no model, which means all models. Name what the team may call with /team/update, or \
                 block it with /team/block.",
            ));
        }
        Ok(Record::from_iter([("models".to_owned(), json!(models))]))
    })
    .await
}

/// A change by those who may change a team's limits; answers the team.
async fn above(
    call: Call,
    change: impl FnOnce(&Record) -> Result<Record, Problem> + Send,
) -> Result<Answer, Problem> {
    let id = call.text("team_id").unwrap_or_default();
    let mut tx = call.app.db.write().await?;
    let team = require(tx.connection(), id).await?;
    if !above_team(tx.connection(), &call.caller, &team).await? {
        return Err(not_yours(&call, &team));
    }
    let mut changes = change(&team)?;
    changes.insert("updated_at".to_owned(), json!(call.now_ms));
    let now = store(&mut tx, id, &changes).await?;
    Ok(Answer::changed(&Value::Object(shown(&now)), tx.commit().await?))
}

pub async fn permissions(call: Call) -> Result<Answer, Problem> {
    bounded(PERMISSIONS, &call.body)?;
    let id = call.text("team_id").unwrap_or_default();
    let mut tx = call.app.db.write().await?;
    let team = require(tx.connection(), id).await?;
    if !runs_team(tx.connection(), &call.caller, &team).await? {
        return Err(not_yours(&call, &team));
    }
    let mut changes = copied(&call.body, &["team_member_permissions"]);
    changes.insert("updated_at".to_owned(), json!(call.now_ms));
    let now = store(&mut tx, id, &changes).await?;
    Ok(Answer::changed(&Value::Object(shown(&now)), tx.commit().await?))
}
