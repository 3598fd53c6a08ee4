//! Members of teams: who they are, what each may spend.

use serde_json::{Value, json};

use super::{
    MEMBER_ADD, MEMBER_DELETE, MEMBER_UPDATE, change::MEMBER_BUDGET, change::not_yours, require, shown,
};
use crate::{
    control::ledger::{
        api::{
            access::{above_team, forbidden, role_in_team, runs_team},
            budgets,
            fields::{bounded, text, text_fits, texts, uuid},
            keys, users,
        },
        db::Tx,
        problem::{ErrorStatus, Problem},
        route::{Answer, Call},
        rows::{self, Record, Select, Where},
        schema::{BUDGETS, KEYS, TEAM_MEMBERS, TEAMS, USERS},
        windows,
    },
    core::error::{Error, RequestFault},
};

/// Somebody in a team.
#[derive(Clone, Debug)]
pub struct Member {
    /// The user's id.
    pub user_id: String,
    /// Its address, when it was named by that.
    pub email: Option<String>,
    /// `admin` or `user`.
    pub role: String,
}

/// The members in a team's row.
pub fn list(team: &Record) -> Vec<Value> {
    team.get("members_with_roles").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Refuses an id that is no text: nobody could be named by it.
pub fn filled(name: &str, id: &str) -> Result<(), Problem> {
    if id.is_empty() {
        let message = "String should have at least 1 character";
        return Err(Problem::invalid("body", name, "string_too_short", message, &json!("")));
    }
    Ok(())
}

/// Reads members out of a body: one or a list. An address that nobody has makes a new user.
pub async fn named(tx: &mut Tx, call: &Call, given: &Value) -> Result<Vec<Member>, Problem> {
    let one;
    let list = match given {
        Value::Array(list) => list.as_slice(),
        Value::Null => &[],
        other => {
            one = [other.clone()];
            &one
        }
    };
    if list.len() > 1_000 {
        return Err(Problem::bad_request("member", "`member`: expected at most 1000 members in one call."));
    }
    let mut members: Vec<Member> = Vec::new();
    for item in list {
        let member = item
            .as_object()
            .filter(|member| text(member, "user_id").is_some() || text(member, "user_email").is_some());
        let Some(member) = member else {
            let message = "Input should be an object with `user_id` or `user_email`, and `role`";
            return Err(Problem::invalid("body", "member", "value_error", message, item));
        };
        let role = known_role(text(member, "role").unwrap_or("user"), item)?;
        let email = text(member, "user_email");
        for (name, value) in [("user_id", text(member, "user_id")), ("user_email", email)] {
            value.map_or(Ok(()), |value| text_fits(name, value))?;
        }
        let user_id = match (text(member, "user_id"), email) {
            (Some(id), _) => id.to_owned(),
            (None, Some(email)) => match id_by_email(tx, email).await? {
                Some(id) => id,
                None => {
                    let id = uuid()?;
                    users::insert_default(tx, call, &id, Some(email)).await?;
                    id
                }
            },
            (None, None) => continue,
        };
        if members.iter().any(|known| known.user_id == user_id) {
            return Err(there_already(&user_id));
        }
        members.push(Member { user_id, email: email.map(str::to_owned), role });
    }
    Ok(members)
}

fn known_role(role: &str, input: &Value) -> Result<String, Problem> {
    if matches!(role, "admin" | "user") {
        return Ok(role.to_owned());
    }
    Err(Problem::invalid("body", "role", "literal_error", "Input should be 'admin' or 'user'", input))
}

async fn id_by_email(tx: &mut Tx, email: &str) -> Result<Option<String>, Problem> {
    let found = users::by_email(tx, email).await?;
    Ok(found.as_ref().and_then(|user| text(user, "user_id")).map(str::to_owned))
}

fn there_already(user: &str) -> Problem {
    Problem::Error(
        Error::of(RequestFault::AlreadyInTeam, format!("User already in team. Member: user_id={user}"))
            .with_param("user_id"),
    )
}

/// Adds members to a team; those who are no users yet become some. Gives their users and their memberships.
pub async fn add_members(
    tx: &mut Tx,
    call: &Call,
    team: &Record,
    new: &[Member],
    limits: &Record,
) -> Result<(Vec<Record>, Vec<Record>), Problem> {
    let id = text(team, "team_id").unwrap_or_default();
    let mut all = list(team);
    let (mut users, mut memberships) = (Vec::new(), Vec::new());
    for member in new {
        let user = member.user_id.as_str();
        if role_in_team(team, user).is_some() {
            return Err(there_already(user));
        }
        if rows::get(tx.connection(), &USERS, &[user]).await?.is_none() {
            users::insert_default(tx, call, user, member.email.as_deref()).await?;
        }
        let mut row = rows::get(tx.connection(), &USERS, &[user]).await?.unwrap_or_default();
        let mut teams = texts(&row, "teams");
        if !teams.iter().any(|team| team == id) {
            teams.push(id.to_owned());
            row.insert("teams".to_owned(), json!(teams));
            let change = Record::from_iter([("teams".to_owned(), json!(teams))]);
            rows::update(tx.connection(), &USERS, &[Where::Is("user_id", json!(user))], &change).await?;
        }
        let email = member.email.as_deref().or(text(&row, "user_email"));
        all.push(json!({"user_id": user, "user_email": email, "role": member.role}));
        let budget = match limits.values().all(Value::is_null) {
            true => default_budget(team),
            false => Some(own_budget(tx, call, team, limits).await?),
        };
        let membership = json!({"user_id": user, "team_id": id, "budget_id": budget, "spend": 0});
        if let Value::Object(membership) = membership {
            rows::insert(tx.connection(), &TEAM_MEMBERS, &membership).await?;
            memberships.push(membership);
        }
        tx.record_changed(format!("member:{id}/{user}"));
        tx.record_changed(format!("user:{user}"));
        users.push(row);
    }
    store(tx, call, id, all).await?;
    budgets::attach(tx.connection(), &mut memberships).await?;
    Ok((users, memberships))
}

/// What a body limits a member to, by the names that budgets have for it.
pub fn limits(body: &Record) -> Record {
    let names = [
        ("max_budget_in_team", "max_budget"),
        ("rpm_limit", "rpm_limit"),
        ("tpm_limit", "tpm_limit"),
        ("budget_duration", "budget_duration"),
        ("model_max_budget", "model_max_budget"),
    ];
    names.into_iter().filter_map(|(sent, name)| Some((name.to_owned(), body.get(sent)?.clone()))).collect()
}

/// Makes a budget for one member. What is not said is as for the others, and its period is the team's.
async fn own_budget(tx: &mut Tx, call: &Call, team: &Record, limits: &Record) -> Result<String, Problem> {
    let mut all = Record::new();
    if let Some(shared) = default_budget(team)
        && let Some(row) = rows::get(tx.connection(), &BUDGETS, &[&shared]).await?
    {
        for name in
            ["max_budget", "rpm_limit", "tpm_limit", "budget_duration", "budget_reset_at", "model_max_budget"]
        {
            all.insert(name.to_owned(), row.get(name).cloned().unwrap_or_default());
        }
    }
    if all.get("budget_duration").is_none_or(Value::is_null) {
        for name in ["budget_duration", "budget_reset_at"] {
            all.insert(name.to_owned(), team.get(name).cloned().unwrap_or_default());
        }
    }
    if limits.contains_key("budget_duration") {
        all.remove("budget_reset_at");
    }
    all.extend(limits.clone());
    budgets::make(tx, call, &all, None).await
}

/// The budget that a team gives to its members.
pub fn default_budget(team: &Record) -> Option<String> {
    team.get("metadata")?.get(MEMBER_BUDGET)?.as_str().map(str::to_owned)
}

/// Writes the list of a team's members.
pub async fn store(tx: &mut Tx, call: &Call, id: &str, list: Vec<Value>) -> Result<(), Problem> {
    let change = Record::from_iter([
        ("members_with_roles".to_owned(), Value::Array(list)),
        ("updated_at".to_owned(), json!(call.now_ms)),
    ]);
    rows::update(tx.connection(), &TEAMS, &[Where::Is("team_id", json!(id))], &change).await?;
    Ok(())
}

/// Takes a member out of a team's list, and out of everything that [`leave`] says.
pub async fn forget_member(tx: &mut Tx, call: &Call, team: &Record, user: &str) -> Result<(), Problem> {
    let mut all = list(team);
    all.retain(|member| member.get("user_id").and_then(Value::as_str) != Some(user));
    store(tx, call, text(team, "team_id").unwrap_or_default(), all).await?;
    leave(tx, team, user).await
}

/// Removes a membership, the budget that only it had, and the team from the user.
pub async fn leave(tx: &mut Tx, team: &Record, user: &str) -> Result<(), Problem> {
    let id = text(team, "team_id").unwrap_or_default();
    let this = [Where::Is("user_id", json!(user)), Where::Is("team_id", json!(id))];
    if let Some(member) = rows::get(tx.connection(), &TEAM_MEMBERS, &[user, id]).await? {
        rows::delete(tx.connection(), &TEAM_MEMBERS, &this).await?;
        if let Some(budget) = text(&member, "budget_id") {
            if let Some(row) = rows::get(tx.connection(), &BUDGETS, &[budget]).await? {
                windows::forget(tx.connection(), "member", &format!("{id}/{user}"), &row).await?;
            }
            if default_budget(team).as_deref() != Some(budget) {
                budgets::remove_unused(tx, budget).await?;
            }
        }
    }
    if let Some(row) = rows::get(tx.connection(), &USERS, &[user]).await? {
        let teams: Vec<String> = texts(&row, "teams").into_iter().filter(|team| team != id).collect();
        let change = Record::from_iter([("teams".to_owned(), json!(teams))]);
        rows::update(tx.connection(), &USERS, &[Where::Is("user_id", json!(user))], &change).await?;
    }
    tx.record_changed(format!("member:{id}/{user}"));
    tx.record_changed(format!("user:{user}"));
    Ok(())
}

pub async fn add(call: Call) -> Result<Answer, Problem> {
    bounded(MEMBER_ADD, &call.body)?;
    let id = call.text("team_id").unwrap_or_default();
    let mut tx = call.app.db.write().await?;
    let team = require(tx.connection(), id).await?;
    let runs = runs_team(tx.connection(), &call.caller, &team).await?;
    let given = call.body.get("member").cloned().unwrap_or_default();
    if !runs && !joins_itself(&call, id, &given) {
        return Err(not_yours(&call, &team));
    }
    let wanted = named(&mut tx, &call, &given).await?;
    let limits = if runs { limits(&call.body) } else { Record::new() };
    let (users, memberships) = add_members(&mut tx, &call, &team, &wanted, &limits).await?;
    let mut reply = shown(&require(tx.connection(), id).await?);
    reply.insert("updated_users".to_owned(), json!(users));
    reply.insert("updated_team_memberships".to_owned(), json!(memberships));
    Ok(Answer::changed(&Value::Object(reply), tx.commit().await?))
}

/// `default_internal_user_params.available_teams`: teams that a user may join by itself, as a plain member.
fn joins_itself(call: &Call, team: &str, given: &Value) -> bool {
    let open = texts(&call.app.config().ledger.default_user_params, "available_teams");
    let one = match given {
        Value::Array(list) => match list.as_slice() {
            [one] => one,
            _ => return false,
        },
        one => one,
    };
    let user = one.get("user_id").and_then(Value::as_str);
    open.iter().any(|open| open == team)
        && crate::control::ledger::api::access::acting_user(call).ok().is_some_and(|own| user == Some(own))
        && one.get("role").and_then(Value::as_str).unwrap_or("user") == "user"
}

/// The member that a body names by id or address.
async fn which(tx: &mut Tx, call: &Call, team: &Record) -> Result<String, Problem> {
    let id = match (call.text("user_id"), call.text("user_email")) {
        (Some(id), _) => Some(id.to_owned()),
        (None, Some(email)) => {
            let same = |member: &Value| {
                let there = member.get("user_email").and_then(Value::as_str);
                there.is_some_and(|there| there.to_lowercase() == email.to_lowercase())
            };
            let listed = list(team).into_iter().find(same);
            match listed.as_ref().and_then(|member| member.get("user_id")).and_then(Value::as_str) {
                Some(id) => Some(id.to_owned()),
                None => id_by_email(tx, email).await?,
            }
        }
        (None, None) => {
            return Err(Problem::Detail(
                422,
                json!([{"type": "value_error", "loc": ["body"], "input": call.body,
                        "msg": "Value error, Either user_id or user_email must be provided"}]),
            ));
        }
    };
    id.filter(|id| role_in_team(team, id).is_some()).ok_or_else(|| {
        Problem::wrapped(
            ErrorStatus::BAD_REQUEST,
            format!(
                "User not found in team. Team={}, user_id={}, user_email={}",
                text(team, "team_id").unwrap_or_default(),
                call.text("user_id").unwrap_or("None"),
                call.text("user_email").unwrap_or("None")
            ),
        )
    })
}

pub async fn delete(call: Call) -> Result<Answer, Problem> {
    bounded(MEMBER_DELETE, &call.body)?;
    let id = call.text("team_id").unwrap_or_default();
    let mut tx = call.app.db.write().await?;
    let team = require(tx.connection(), id).await?;
    if !runs_team(tx.connection(), &call.caller, &team).await? {
        return Err(not_yours(&call, &team));
    }
    let user = which(&mut tx, &call, &team).await?;
    // Otherwise somebody who left would go on spending the team's money.
    let theirs = Select::all(vec![Where::Is("user_id", json!(user)), Where::Is("team_id", json!(id))]);
    let keys = rows::select(tx.connection(), &KEYS, &theirs).await?;
    keys::remove(&mut tx, &keys).await?;
    forget_member(&mut tx, &call, &team, &user).await?;
    let reply = shown(&require(tx.connection(), id).await?);
    Ok(Answer::changed(&Value::Object(reply), tx.commit().await?))
}

pub async fn update(call: Call) -> Result<Answer, Problem> {
    bounded(MEMBER_UPDATE, &call.body)?;
    let id = call.text("team_id").unwrap_or_default();
    let mut tx = call.app.db.write().await?;
    let team = require(tx.connection(), id).await?;
    if !runs_team(tx.connection(), &call.caller, &team).await? {
        return Err(not_yours(&call, &team));
    }
    let user = which(&mut tx, &call, &team).await?;
    let limits = limits(&call.body);
    if !limits.is_empty() {
        let above = above_team(tx.connection(), &call.caller, &team).await?;
        if !above && call.caller.user_id() == Some(&user) {
            return Err(forbidden("Nobody may change the budget of its own membership; another admin may."));
        }
        set_budget(&mut tx, &call, &team, &user, &limits).await?;
    }
    if let Some(role) = call.text("role") {
        let role = known_role(role, &json!(role))?;
        let mut all = list(&team);
        let mine = |member: &&mut Value| member.get("user_id").and_then(Value::as_str) == Some(&user);
        if let Some(Value::Object(member)) = all.iter_mut().find(mine) {
            member.insert("role".to_owned(), json!(role));
        }
        store(&mut tx, &call, id, all).await?;
    }
    tx.record_changed(format!("member:{id}/{user}"));
    let email = rows::get(tx.connection(), &USERS, &[&user]).await?;
    let email = email.as_ref().and_then(|row| text(row, "user_email"));
    let membership = rows::get(tx.connection(), &TEAM_MEMBERS, &[&user, id]).await?.unwrap_or_default();
    let mut memberships = [membership];
    budgets::attach(tx.connection(), &mut memberships).await?;
    let [membership] = memberships;
    let limit =
        |name: &str| membership.get("litellm_budget_table").and_then(|budget| budget.get(name)).cloned();
    let reply = json!({
        "team_id": id, "user_id": user, "user_email": email, "max_budget_in_team": limit("max_budget"),
        "tpm_limit": limit("tpm_limit"), "rpm_limit": limit("rpm_limit"),
        "budget_duration": limit("budget_duration"), "model_max_budget": limit("model_max_budget"),
    });
    Ok(Answer::changed(&reply, tx.commit().await?))
}

/// Gives a member a budget of its own, or changes the one it has. The team's budget for all members stays as it is.
async fn set_budget(
    tx: &mut Tx,
    call: &Call,
    team: &Record,
    user: &str,
    limits: &Record,
) -> Result<(), Problem> {
    let id = text(team, "team_id").unwrap_or_default();
    let there = rows::get(tx.connection(), &TEAM_MEMBERS, &[user, id]).await?.unwrap_or_default();
    let own = text(&there, "budget_id").filter(|budget| default_budget(team).as_deref() != Some(budget));
    if let Some(budget) = own {
        return budgets::change(tx, call, budget, limits).await;
    }
    let budget = own_budget(tx, call, team, limits).await?;
    let this = [Where::Is("user_id", json!(user)), Where::Is("team_id", json!(id))];
    let change = Record::from_iter([("budget_id".to_owned(), json!(budget))]);
    rows::update(tx.connection(), &TEAM_MEMBERS, &this, &change).await?;
    Ok(())
}
