//! `/key/generate`: defaults and upper bounds of the configuration, whose key it may be, the row, the reply.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::{GENERATE, SERVICE, width};
use crate::{
    control::ledger::{
        api::{
            access::{
                actor, forbidden, in_organization, may_as_member, role_in_team, role_name, runs_organization,
                runs_team,
            },
            budgets,
            fields::{
                LIMITS, bounded, copied, expiry, metadata, random, reset_at, text, text_fits, texts,
                without_permissions,
            },
        },
        caller::{Caller, hash},
        db::{DbError, Tx},
        former,
        problem::{ErrorStatus, Problem},
        resets,
        route::{Answer, Call, Type},
        rows::{self, Record, Select, Where},
        schema::{KEYS, ORGANIZATIONS, TEAMS},
        windows,
    },
    core::{
        config::Config,
        error::{Error, RequestFault},
    },
};

/// Columns that are taken from the body as they are.
pub const COLUMNS: &[&str] = &[
    "key_alias",
    "models",
    "spend",
    "max_budget",
    "soft_budget",
    "budget_id",
    "budget_duration",
    "user_id",
    "team_id",
    "organization_id",
    "max_parallel_requests",
    "tpm_limit",
    "rpm_limit",
    "model_max_budget",
    "budget_limits",
    "allowed_cache_controls",
    "config",
    "permissions",
    "blocked",
    "aliases",
    "allowed_routes",
];

/// What `default_key_generate_params` may fill.
const DEFAULTS: &[&str] = &[
    "max_budget",
    "user_id",
    "team_id",
    "max_parallel_requests",
    "tpm_limit",
    "rpm_limit",
    "budget_duration",
    "duration",
    "models",
    "metadata",
];

/// A key that was made.
pub struct New {
    /// The key itself: only in this reply, nowhere else.
    pub key: String,
    /// Its row.
    pub row: Record,
}

pub async fn generate(call: Call) -> Result<Answer, Problem> {
    bounded(GENERATE, &call.body)?;
    let mut body = call.body.clone();
    if !call.caller.is_admin() {
        own(&call, &mut body)?;
    }
    made(&call, body, "/key/generate").await
}

pub async fn service_account(call: Call) -> Result<Answer, Problem> {
    bounded(SERVICE, &call.body)?;
    if !call.caller.is_admin() {
        actor(&call)?;
        granted(&call.body, None)?;
    }
    let mut body = call.body.clone();
    body.remove("user_id");
    if text(&body, "team_id").is_none() {
        return Err(Problem::missing("body", "team_id", &Value::Object(call.body.clone())));
    }
    made(&call, body, "/key/service-account/generate").await
}

async fn made(call: &Call, mut body: Record, operation: &str) -> Result<Answer, Problem> {
    let config = call.app.config();
    width::fill(call, &mut body);
    let is_service = operation != "/key/generate";
    fill_defaults(&config.ledger.default_key_params, &mut body, is_service);
    bind(&config.ledger.upperbound_key_params, &mut body, true)?;
    let mut tx = call.app.db.write().await?;
    place(&mut tx, call, &mut body, operation).await?;
    let new = insert(&mut tx, call, &body).await?;
    width::made(call, &new.row)?;
    let reply = reply(&body, &new);
    Ok(Answer::changed(&Value::Object(reply), tx.commit().await?))
}

/// Somebody who is no admin makes keys for itself. For whom else it may, the team decides (see [`place`]).
fn own(call: &Call, body: &mut Record) -> Result<(), Problem> {
    let user = actor(call)?;
    let wanted = text(body, "user_id");
    if wanted.is_some() && wanted != user && text(body, "team_id").is_none() {
        return Err(for_themselves(wanted, user));
    }
    if wanted.is_none() {
        body.insert("user_id".to_owned(), json!(user));
    }
    granted(body, None)?;
    // Who was made for an organization stays within its limits.
    if let Caller::Key(holder) = &call.caller
        && let Some(home) = holder.user.as_ref().and_then(|user| text(user, "organization_id"))
        && text(body, "team_id").is_none()
        && text(body, "organization_id").is_none()
    {
        body.insert("organization_id".to_owned(), json!(home));
    }
    Ok(())
}

/// Refuses `permissions` that are not there already: they open routes, so admins give them.
pub fn granted(body: &Record, there: Option<&Value>) -> Result<(), Problem> {
    let wanted =
        body.get("permissions").filter(|wanted| wanted.as_object().is_some_and(|map| !map.is_empty()));
    if wanted.is_some() && wanted != there {
        return Err(forbidden("Only proxy admins may give a key `permissions`."));
    }
    Ok(())
}

fn for_themselves(wanted: Option<&str>, user: Option<&str>) -> Problem {
    forbidden(format!(
        "User can only create keys for themselves. Got user_id={}, Your ID={}",
        wanted.unwrap_or("None"),
        user.unwrap_or("None")
    ))
}

/// Puts defaults where nothing was sent.
pub fn fill_defaults(defaults: &Map<String, Value>, body: &mut Record, is_service: bool) {
    for name in DEFAULTS {
        let Some(default) = defaults.get(*name).filter(|default| !default.is_null()) else { continue };
        let is_empty = match body.get(*name) {
            None | Some(Value::Null) => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            Some(_) => false,
        };
        if is_empty && !(is_service && *name == "user_id") {
            body.insert((*name).to_owned(), default.clone());
        }
    }
}

/// Refuses what is over `upperbound_key_generate_params`. With `fill`, what was not sent becomes the largest allowed;
/// without, only what was sent as `null` does, which would lift the bound.
pub fn bind(bounds: &Map<String, Value>, body: &mut Record, fill: bool) -> Result<(), Problem> {
    for (name, most) in bounds {
        if most.is_null() {
            continue;
        }
        match body.get(name) {
            None if !fill => {}
            None | Some(Value::Null) => {
                body.insert(name.clone(), most.clone());
            }
            Some(value) => {
                let over = match (value, most) {
                    (Value::String(value), Value::String(most)) => over_duration(value, most),
                    (value, most) => {
                        value.as_f64().zip(most.as_f64()).is_some_and(|(value, most)| value > most)
                    }
                };
                if over {
                    return Err(Problem::wrapped(
                        ErrorStatus::BAD_REQUEST,
                        format!(
                            "{name} is over max limit set in config - user_value={}; max_value={}",
                            python_number(name, value),
                            python_number(name, most)
                        ),
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Whether a duration is longer than another one. `-1` and nothing are for ever.
fn over_duration(value: &str, most: &str) -> bool {
    match (resets::expires(value, 0), resets::expires(most, 0)) {
        (Ok(value), Ok(most)) => value > most,
        (Err(_), Ok(_)) => matches!(value, "" | "-1"),
        _ => false,
    }
}

/// A number as LiteLLM prints it: amounts of money always with a point.
fn python_number(name: &str, value: &Value) -> String {
    let is_money = LIMITS.iter().any(|field| field.name == name && field.kind == Type::Money);
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if is_money => format!("{:?}", number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

/// Checks that the caller may make (or move) a key with this user, team and organization.
pub async fn place(tx: &mut Tx, call: &Call, body: &mut Record, operation: &str) -> Result<(), Problem> {
    let config = call.app.config();
    let is_admin = call.caller.is_admin();
    let user = text(body, "user_id").map(str::to_owned);
    let team = match text(body, "team_id") {
        Some(id) => rows::get(tx.connection(), &TEAMS, &[id]).await?,
        None => None,
    };
    match (&team, text(body, "team_id")) {
        (None, None) => personal(call, &config, body)?,
        (None, Some(id)) => {
            return Err(Problem::wrapped(
                ErrorStatus::BAD_REQUEST,
                format!("Unable to find team object in database. Team ID: {id}"),
            ));
        }
        (Some(team), Some(_)) => {
            if !is_admin {
                in_team(tx, call, &config, team, user.as_deref(), body, operation).await?;
            }
            // The team's period for the keys of its members.
            let period = team.get("metadata").and_then(|metadata| metadata.get("team_member_key_duration"));
            if let Some(period) = period.filter(|period| period.is_string())
                && user.is_some()
                && operation == "/key/generate"
                && text(body, "duration").is_none()
            {
                body.insert("duration".to_owned(), period.clone());
            }
        }
        (Some(_), None) => {}
    }
    if let Some(id) = text(body, "organization_id") {
        let connection = tx.connection();
        if rows::get(connection, &ORGANIZATIONS, &[id]).await?.is_none() {
            return Err(Problem::wrapped(
                ErrorStatus::BAD_REQUEST,
                format!("Organization not found. organization_id={id}"),
            ));
        }
        let of_team = team.as_ref().and_then(|team| text(team, "organization_id")) == Some(id);
        if !is_admin && !of_team && !in_organization(connection, &call.caller, id).await? {
            return Err(forbidden(format!("You are no member of the organization {id}.")));
        }
    }
    Ok(())
}

/// Rules for keys without a team (`key_generation_settings.personal_key_generation`).
fn personal(call: &Call, config: &Config, body: &Record) -> Result<(), Problem> {
    let empty = Map::new();
    let rules = config.ledger.key_generation.get("personal_key_generation").and_then(Value::as_object);
    let rules = rules.unwrap_or(&empty);
    if !call.caller.is_admin() {
        let user = actor(call)?;
        if text(body, "user_id") != user {
            return Err(for_themselves(text(body, "user_id"), user));
        }
        let (roles, role) = (texts(rules, "allowed_user_roles"), role_name(&call.caller));
        if !roles.is_empty() && !roles.contains(&role) {
            return Err(Problem::refused(
                ErrorStatus::BAD_REQUEST,
                format!(
                    "Personal key creation has been restricted by admin. Allowed roles={}. Your role={role}",
                    crate::control::ledger::api::fields::python_list(&roles)
                ),
            ));
        }
    }
    required_params(rules, body)
}

/// Rules for keys of a team (`key_generation_settings.team_key_generation`), for somebody who is no admin.
async fn in_team(
    tx: &mut Tx,
    call: &Call,
    config: &Config,
    team: &Record,
    user: Option<&str>,
    body: &Record,
    operation: &str,
) -> Result<(), Problem> {
    let id = text(team, "team_id").unwrap_or_default();
    let Some(caller) = actor(call)? else {
        // A key that is nobody's makes keys of its own team that are nobody's.
        return match (user, call.caller.team_id() == Some(id)) {
            (None, true) => Ok(()),
            (Some(_), _) => Err(for_themselves(user, None)),
            (None, false) => Err(Problem::refused(
                ErrorStatus::BAD_REQUEST,
                format!("User=None not assigned to team={id}"),
            )),
        };
    };
    let runs = runs_team(tx.connection(), &call.caller, team).await?;
    if user.is_some_and(|user| user != caller) && !runs {
        return Err(for_themselves(user, Some(caller)));
    }
    if let Some(user) = user.filter(|user| *user != caller || !runs)
        && role_in_team(team, user).is_none()
    {
        return Err(Problem::refused(
            ErrorStatus::BAD_REQUEST,
            format!("User={user} not assigned to team={id}"),
        ));
    }
    let empty = Map::new();
    let rules = config.ledger.key_generation.get("team_key_generation").and_then(Value::as_object);
    let rules = rules.unwrap_or(&empty);
    let roles = texts(rules, "allowed_team_member_roles");
    if let Some(role) = role_in_team(team, caller)
        && !roles.is_empty()
        && !roles.iter().any(|allowed| allowed == role)
    {
        return Err(Problem::refused(
            ErrorStatus::BAD_REQUEST,
            format!(
                "Team member role {role} not in allowed_team_member_roles={}",
                crate::control::ledger::api::fields::python_list(&roles)
            ),
        ));
    }
    if !runs {
        may_as_member(team, caller, operation)?;
    }
    required_params(rules, body)
}

fn required_params(rules: &Map<String, Value>, body: &Record) -> Result<(), Problem> {
    for name in texts(rules, "required_params") {
        if body.get(&name).is_none_or(Value::is_null) {
            return Err(Problem::refused(
                ErrorStatus::BAD_REQUEST,
                format!("Required param {name} not in data"),
            ));
        }
    }
    Ok(())
}

/// Adds a key made of a checked body.
pub async fn insert(tx: &mut Tx, call: &Call, body: &Record) -> Result<New, Problem> {
    without_permissions(body, None)?;
    let key = match text(body, "key") {
        Some(own) => {
            own_key(own)?;
            own.to_owned()
        }
        None => secret()?,
    };
    let token = hash(&key);
    if former::is_taken(tx.connection(), &token, "").await? {
        return Err(taken(DbError::Duplicate));
    }
    if let Some(alias) = text(body, "key_alias") {
        free_alias(tx, alias, &token).await?;
    }
    if let Some(id) = text(body, "budget_id") {
        if let Caller::Key(holder) = &call.caller {
            width::same_budget(call, id, &holder.key)?;
        }
        budgets::require(tx.connection(), id).await?;
    }
    let author = json!(width::author(call));
    let zone = resets::zone(&call.app.config());
    let mut row = copied(body, COLUMNS);
    row.retain(|_, value| !value.is_null());
    if let Some(routes) = routes_of(body)? {
        row.insert("allowed_routes".to_owned(), routes);
    }
    for (name, value) in [
        ("token", json!(token)),
        ("key_name", json!(name(&key))),
        ("expires", expiry(body, call.now_ms)?),
        ("metadata", metadata(body, None).unwrap_or_else(|| json!({}))),
        ("budget_reset_at", reset_at(body, call.now_ms, &zone)?),
        ("created_at", json!(call.now_ms)),
        ("created_by", author.clone()),
        ("updated_at", json!(call.now_ms)),
        ("updated_by", author),
    ] {
        row.insert(name.to_owned(), value);
    }
    rows::insert(tx.connection(), &KEYS, &row).await.map_err(taken)?;
    // Somebody may have asked for it before it was there.
    tx.record_changed(format!("key:{token}"));
    Ok(New { key, row: stored(tx, call, &token).await? })
}

/// A key's row as replies show it.
pub async fn stored(tx: &mut Tx, call: &Call, token: &str) -> Result<Record, Problem> {
    let mut row = [rows::get(tx.connection(), &KEYS, &[token]).await?.unwrap_or_default()];
    windows::attach(tx.connection(), call, "key", &mut row, false).await?;
    let [row] = row;
    Ok(row)
}

/// A new random key: `sk-` and 22 characters for 16 bytes.
pub fn secret() -> Result<String, Problem> {
    Ok(format!("sk-{}", URL_SAFE_NO_PAD.encode(random::<16>()?)))
}

/// Refuses a value that could never be used as a key.
pub fn own_key(key: &str) -> Result<(), Problem> {
    text_fits("key", key)?;
    if !key.starts_with("sk-") || key.len() < 8 || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Problem::Error(
            Error::of(
                RequestFault::BadRequest,
                "A key of your own must start with `sk-` and have at least 8 characters, all of them visible ASCII: \
                 others could never be used.",
            )
            .with_param("key"),
        ));
    }
    Ok(())
}

/// How a key is shown: its beginning and its last four characters.
pub fn name(key: &str) -> String {
    let end: String = key.chars().skip(key.chars().count().saturating_sub(4)).collect();
    format!("sk-...{end}")
}

/// Refuses an alias that another key has.
pub async fn free_alias(tx: &mut Tx, alias: &str, token: &str) -> Result<(), Problem> {
    let select = Select { limit: Some(1), ..Select::all(vec![Where::Is("key_alias", json!(alias))]) };
    let there = rows::select(tx.connection(), &KEYS, &select).await?;
    if there.iter().any(|row| super::token(row) != token) {
        return Err(Problem::Error(
            Error::of(
                RequestFault::BadRequest,
                format!("Key with alias '{alias}' already exists. Unique key aliases across all keys are required."),
            )
            .with_param("key_alias"),
        ));
    }
    Ok(())
}

/// The same value is a key already.
pub fn taken(error: DbError) -> Problem {
    match error {
        DbError::Duplicate => Problem::Error(
            Error::of(
                RequestFault::BadRequest,
                "This key exists already: choose another value, or change it with /key/update.",
            )
            .with_param("key"),
        ),
        other => other.into(),
    }
}

/// The routes that `key_type` stands for.
pub fn routes_of(body: &Record) -> Result<Option<Value>, Problem> {
    let group = match text(body, "key_type") {
        None | Some("default") => return Ok(None),
        Some("llm_api") => "llm_api_routes",
        Some("management") => "management_routes",
        Some("read_only") => "info_routes",
        Some(other) => {
            return Err(Problem::invalid(
                "body",
                "key_type",
                "enum",
                "Input should be 'llm_api', 'management', 'read_only' or 'default'",
                &json!(other),
            ));
        }
    };
    Ok(Some(json!([group])))
}

/// What `/key/generate` answers.
pub fn reply(body: &Record, new: &New) -> Record {
    let row = |name: &str| new.row.get(name).cloned().unwrap_or_default();
    let sent = |name: &str| body.get(name).cloned().unwrap_or_default();
    let kept =
        |name: &str| new.row.get("metadata").and_then(|kept| kept.get(name)).cloned().unwrap_or_default();
    Record::from_iter(
        [
            ("key_alias", row("key_alias")),
            ("duration", sent("duration")),
            ("models", row("models")),
            ("spend", row("spend")),
            ("max_budget", row("max_budget")),
            ("user_id", row("user_id")),
            ("team_id", row("team_id")),
            ("max_parallel_requests", row("max_parallel_requests")),
            ("metadata", row("metadata")),
            ("tpm_limit", row("tpm_limit")),
            ("rpm_limit", row("rpm_limit")),
            ("budget_duration", row("budget_duration")),
            ("allowed_cache_controls", row("allowed_cache_controls")),
            ("config", row("config")),
            ("permissions", row("permissions")),
            ("model_max_budget", row("model_max_budget")),
            ("budget_limits", row("budget_limits")),
            ("model_rpm_limit", kept("model_rpm_limit")),
            ("model_tpm_limit", kept("model_tpm_limit")),
            ("guardrails", kept("guardrails")),
            ("prompts", kept("prompts")),
            ("blocked", row("blocked")),
            ("aliases", row("aliases")),
            ("object_permission", kept("object_permission")),
            ("key", json!(new.key)),
            ("budget_id", row("budget_id")),
            ("tags", kept("tags")),
            ("enforced_params", kept("enforced_params")),
            ("allowed_routes", row("allowed_routes")),
            ("soft_budget", row("soft_budget")),
            ("key_name", row("key_name")),
            ("expires", row("expires")),
            ("token_id", row("token")),
            ("token", row("token")),
            ("litellm_budget_table", Value::Null),
            ("created_by", row("created_by")),
            ("updated_by", row("updated_by")),
            ("created_at", row("created_at")),
            ("updated_at", row("updated_at")),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    )
}

/// Whether the caller may set a key's organization: kept beside the rule for making keys.
pub async fn may_leave_organization(tx: &mut Tx, call: &Call, row: &Record) -> Result<bool, Problem> {
    Ok(runs_organization(tx.connection(), &call.caller, text(row, "organization_id")).await?)
}
