//! `/user/new`: defaults of the configuration, the row, its teams and organizations, its first key.

use serde_json::{Value, json};

use super::{NEW, columns, free_email, known_role, of_users};
use crate::{
    control::ledger::{
        api::{
            access::{acting_user, forbidden, refused, runs_organization},
            fields::{bounded, text, texts, uuid},
            keys, teams,
        },
        db::Tx,
        problem::{ErrorStatus, Problem},
        route::{Answer, Call, check_body},
        rows::{self, Record, dollars},
        schema::{ORGANIZATION_MEMBERS, ORGANIZATIONS, TEAMS, USERS},
        windows,
    },
    core::{
        config::Config,
        error::{Error, KeyFault},
    },
};

pub async fn new(call: Call) -> Result<Answer, Problem> {
    let mut meant = call.body.clone();
    // A chat that came to the wrong address, as in an example that AWS prints: LiteLLM takes it.
    if meant.contains_key("messages") {
        meant.shift_remove("guardrails");
    }
    bounded(NEW, &meant)?;
    known_role(&call.body)?;
    of_users(&call.body, call.body.get("auto_create_key") != Some(&Value::Bool(false)))?;
    let mut body = call.body.clone();
    fill(&call.app.config(), &mut body);
    let mut tx = call.app.db.write().await?;
    allowed(&mut tx, &call, &body).await?;
    if !call.caller.is_admin() {
        within_organization(&call.app.config(), &mut body)?;
    }
    let id = match text(&body, "user_id") {
        Some(id) => id.to_owned(),
        None => uuid()?,
    };
    body.insert("user_id".to_owned(), json!(id));
    if rows::get(tx.connection(), &USERS, &[&id]).await?.is_some() {
        return Err(Problem::wrapped(ErrorStatus::CONFLICT, format!("User with id {id} already exists")));
    }
    if let Some(email) = text(&body, "user_email") {
        free_email(&mut tx, email, &id).await?;
    }
    insert(&mut tx, &call, &body).await?;
    join_teams(&mut tx, &call, &id, &body).await?;
    join_organizations(&mut tx, &call, &id, &body).await?;
    let key = match body.get("auto_create_key") {
        Some(Value::Bool(false)) => None,
        _ => {
            let mut first = first_key(&body);
            keys::fill(&call, &mut first);
            if !call.caller.is_admin() {
                keys::bind(&call.app.config().ledger.upperbound_key_params, &mut first, true)?;
            }
            let first = keys::insert(&mut tx, &call, &first).await?;
            keys::made(&call, &first.row)?;
            Some(first)
        }
    };
    let row = stored(&mut tx, &call, &id).await?;
    let reply = reply(&call.body, &body, &row, key.as_ref());
    Ok(Answer::changed(&Value::Object(reply), tx.commit().await?))
}

/// A user's row as replies show it.
pub async fn stored(tx: &mut Tx, call: &Call, id: &str) -> Result<Record, Problem> {
    let mut row = [rows::get(tx.connection(), &USERS, &[id]).await?.unwrap_or_default()];
    windows::attach(tx.connection(), call, "user", &mut row, false).await?;
    let [row] = row;
    Ok(row)
}

/// Adds the row of a user.
pub async fn insert(tx: &mut Tx, call: &Call, body: &Record) -> Result<(), Problem> {
    let mut row = columns(call, body, None)?;
    row.retain(|_, value| !value.is_null());
    row.insert("user_id".to_owned(), json!(text(body, "user_id")));
    row.insert("created_at".to_owned(), json!(call.now_ms));
    rows::insert(tx.connection(), &USERS, &row).await?;
    tx.record_changed(format!("user:{}", text(body, "user_id").unwrap_or_default()));
    Ok(())
}

/// `default_internal_user_params` and the default budget, for internal users: not for admins.
pub fn fill(config: &Config, body: &mut Record) {
    let ledger = &config.ledger;
    let is_internal =
        matches!(text(body, "user_role"), None | Some("internal_user" | "internal_user_viewer"));
    for (name, default) in ledger.default_user_params.iter().filter(|_| is_internal) {
        let is_empty = match body.get(name) {
            None | Some(Value::Null) => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(_) => false,
        };
        if is_empty && name != "available_teams" && !default.is_null() {
            body.insert(name.clone(), default.clone());
        }
    }
    if matches!(text(body, "user_role"), Some("internal_user" | "internal_user_viewer")) {
        let mut put = |name: &str, default: Option<Value>| {
            if body.get(name).is_none_or(Value::is_null)
                && let Some(default) = default
            {
                body.insert(name.to_owned(), default);
            }
        };
        put("max_budget", ledger.max_user_budget.map(dollars));
        put("budget_duration", ledger.user_budget_duration.clone().map(Value::from));
    }
}

/// Admins make any user. Who runs organizations makes users without rights of their own, in those organizations.
async fn allowed(tx: &mut Tx, call: &Call, body: &Record) -> Result<(), Problem> {
    if call.caller.is_admin() {
        return Ok(());
    }
    acting_user(call)?;
    let organizations = texts(body, "organizations");
    for id in &organizations {
        if !runs_organization(tx.connection(), &call.caller, Some(id)).await? {
            return Err(refused(call));
        }
    }
    if organizations.is_empty() {
        return Err(refused(call));
    }
    if !matches!(text(body, "user_role"), None | Some("internal_user" | "internal_user_viewer")) {
        return Err(forbidden(
            "Admins of an organization may make users with the role `internal_user` or `internal_user_viewer` only.",
        ));
    }
    if let Some(id) = text(body, "organization_id").filter(|id| !organizations.iter().any(|own| own == id)) {
        return Err(forbidden(format!("The organization {id} is not among `organizations`.")));
    }
    for (team, _) in wanted_teams(body)? {
        let row = rows::get(tx.connection(), &TEAMS, &[&team]).await?;
        let organization = row.as_ref().and_then(|row| text(row, "organization_id"));
        if !runs_organization(tx.connection(), &call.caller, organization).await? {
            return Err(forbidden(format!("The team {team} is in none of your organizations.")));
        }
    }
    Ok(())
}

/// What an organization's admin makes stays in the organization, and below the budget of internal users.
fn within_organization(config: &Config, body: &mut Record) -> Result<(), Problem> {
    keys::granted(body, None)?;
    if text(body, "user_role").is_none() {
        body.insert("user_role".to_owned(), json!("internal_user"));
        fill(config, body);
    }
    if text(body, "organization_id").is_none() {
        let home = texts(body, "organizations").into_iter().next();
        body.insert("organization_id".to_owned(), json!(home));
    }
    let wanted = body.get("max_budget").and_then(rows::money);
    match config.ledger.max_user_budget {
        Some(most) if wanted.is_none_or(|wanted| wanted > most) => Err(forbidden(format!(
            "Only proxy admins may give a user more than `max_internal_user_budget`: {} dollars.",
            dollars(most)
        ))),
        _ => Ok(()),
    }
}

/// The teams that a body names, that of the user's first key among them, each with what its member is to have.
fn wanted_teams(body: &Record) -> Result<Vec<(String, Record)>, Problem> {
    let of_key = text(body, "team_id").map(|id| json!(id));
    let list = body.get("teams").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .chain(&of_key)
        .map(|item| {
            let member = match item {
                Value::String(id) => return Ok((id.clone(), Record::new())),
                Value::Object(member) => member,
                _ => return Err(bad_team(item)),
            };
            let id = text(member, "team_id").ok_or_else(|| bad_team(item))?;
            let member = check_body(teams::MEMBER_LIMITS, item)?;
            bounded(teams::MEMBER_LIMITS, &member)?;
            Ok((id.to_owned(), member))
        })
        .collect()
}

fn bad_team(item: &Value) -> Problem {
    let message = "Input should be the id of a team, or an object with `team_id`";
    Problem::invalid("body", "teams", "string_type", message, item)
}

/// Makes a user a member of the teams that a body names, those apart that it is in.
pub async fn join_teams(tx: &mut Tx, call: &Call, user: &str, body: &Record) -> Result<(), Problem> {
    for (id, wish) in wanted_teams(body)? {
        let Some(team) = rows::get(tx.connection(), &TEAMS, &[&id]).await? else {
            return Err(Problem::not_found(format!("Team not found, passed team id: {id}."), "teams"));
        };
        if crate::control::ledger::api::access::role_in_team(&team, user).is_some() {
            continue;
        }
        let role = text(&wish, "user_role").filter(|role| *role == "admin").unwrap_or("user");
        let member = teams::Member { user_id: user.to_owned(), email: None, role: role.to_owned() };
        teams::add_members(tx, call, &team, &[member], &teams::member_limits(&wish)).await?;
    }
    Ok(())
}

/// Makes a user a member of the organizations that a body names.
pub async fn join_organizations(tx: &mut Tx, call: &Call, user: &str, body: &Record) -> Result<(), Problem> {
    for id in texts(body, "organizations") {
        if rows::get(tx.connection(), &ORGANIZATIONS, &[&id]).await?.is_none() {
            return Err(Problem::not_found(
                format!("Organization not found. organization_id={id}"),
                "organizations",
            ));
        }
        if rows::get(tx.connection(), &ORGANIZATION_MEMBERS, &[user, &id]).await?.is_some() {
            continue;
        }
        let role =
            text(body, "user_role").filter(|role| matches!(*role, "org_admin" | "internal_user_viewer"));
        let row = json!({
            "user_id": user, "organization_id": id, "user_role": role.unwrap_or("internal_user"),
            "created_at": call.now_ms, "updated_at": call.now_ms,
        });
        if let Value::Object(row) = row {
            rows::insert(tx.connection(), &ORGANIZATION_MEMBERS, &row).await?;
        }
    }
    Ok(())
}

/// The key of a new user. Money and rates are the user's; limits by model hold for each key.
fn first_key(body: &Record) -> Record {
    let mut key = body.clone();
    for name in [
        "max_budget",
        "budget_duration",
        "tpm_limit",
        "rpm_limit",
        "max_parallel_requests",
        "model_max_budget",
        "budget_limits",
        "spend",
        "soft_budget",
    ] {
        key.shift_remove(name);
    }
    key
}

/// LiteLLM's reply: that of `/key/generate` with the user's values. Some members are always `null` there.
fn reply(sent: &Record, body: &Record, user: &Record, key: Option<&keys::New>) -> Record {
    let of_user = |name: &str| user.get(name).cloned().unwrap_or_default();
    let of_key = |name: &str| key.and_then(|key| key.row.get(name)).cloned().unwrap_or_default();
    let was_sent = |name: &str| body.get(name).cloned().unwrap_or_default();
    Record::from_iter(
        [
            ("key_alias", of_key("key_alias")),
            ("duration", was_sent("duration")),
            ("models", of_user("models")),
            ("spend", of_user("spend")),
            ("max_budget", of_user("max_budget")),
            ("user_id", of_user("user_id")),
            ("team_id", of_key("team_id")),
            ("max_parallel_requests", Value::Null),
            ("metadata", of_user("metadata")),
            ("tpm_limit", of_user("tpm_limit")),
            ("rpm_limit", of_user("rpm_limit")),
            ("budget_duration", of_user("budget_duration")),
            ("allowed_cache_controls", of_user("allowed_cache_controls")),
            ("soft_budget", was_sent("soft_budget")),
            ("config", key.map_or_else(|| json!({}), |_| of_key("config"))),
            ("permissions", key.map_or_else(|| json!({}), |_| of_key("permissions"))),
            ("model_max_budget", of_user("model_max_budget")),
            ("budget_limits", of_user("budget_limits")),
            ("send_invite_email", was_sent("send_invite_email")),
            ("model_rpm_limit", Value::Null),
            ("model_tpm_limit", Value::Null),
            ("guardrails", was_sent("guardrails")),
            ("prompts", was_sent("prompts")),
            ("blocked", of_key("blocked")),
            ("aliases", key.map_or_else(|| json!({}), |_| of_key("aliases"))),
            ("object_permission", was_sent("object_permission")),
            ("key", json!(key.map_or("", |key| key.key.as_str()))),
            ("budget_id", of_key("budget_id")),
            ("tags", was_sent("tags")),
            ("enforced_params", was_sent("enforced_params")),
            ("allowed_routes", key.map_or_else(|| json!([]), |_| of_key("allowed_routes"))),
            ("key_name", Value::Null),
            ("expires", of_key("expires")),
            ("token_id", Value::Null),
            ("litellm_budget_table", Value::Null),
            ("created_by", of_key("created_by")),
            ("updated_by", of_key("updated_by")),
            ("created_at", of_user("created_at")),
            ("updated_at", of_user("updated_at")),
            ("user_email", of_user("user_email")),
            ("user_role", of_user("user_role")),
            // As it was sent: `null` is not the same as no teams to old clients.
            ("teams", sent.get("teams").cloned().unwrap_or_default()),
            ("user_alias", of_user("user_alias")),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    )
}

/// A user for an id or an address that a team or an organization names and nobody has: an internal user with the defaults.
pub async fn insert_default(tx: &mut Tx, call: &Call, id: &str, email: Option<&str>) -> Result<(), Problem> {
    let mut body =
        Record::from_iter([("user_id".to_owned(), json!(id)), ("user_email".to_owned(), json!(email))]);
    if call.app.config().ledger.default_user_params.get("user_role").is_none_or(Value::is_null) {
        body.insert("user_role".to_owned(), json!("internal_user"));
    }
    fill(&call.app.config(), &mut body);
    // The teams of the defaults are for those who sign up themselves.
    body.shift_remove("teams");
    if !call.caller.is_admin()
        && !matches!(text(&body, "user_role"), Some("internal_user" | "internal_user_viewer"))
    {
        return Err(Problem::Error(Error::of(
            KeyFault::Forbidden,
            format!(
                "The user {id} does not exist, and only a proxy admin may make it with the default role."
            ),
        )));
    }
    insert(tx, call, &body).await
}
