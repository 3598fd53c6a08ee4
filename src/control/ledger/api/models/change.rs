//! Adding, changing and removing models. What is added is checked by the loader first, so that a wrong model is refused when it is
//! made and not when it is called.

use serde_json::{Map, Value, json};

use super::{CHANGED, opened, team};
use crate::control::{
    dynamic::{self, StoredModel},
    ledger::{
        App,
        api::{
            access::{forbidden, refused, runs_team},
            fields::text,
        },
        caller::Caller,
        db::{DbError, Tx},
        problem::{ErrorStatus, Problem},
        route::{Answer, Call},
        rows::{self, Record, Where, time_text},
        schema::{MODELS, TEAMS},
        seal::Sealer,
    },
};
use crate::core::access::routes::{Access, Area, Route};

/// `POST /model/new`.
pub async fn add(call: Call) -> Result<Answer, Problem> {
    let sealer = sealer(&call.app)?;
    let object = |name: &str| call.body.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let mut model_info = object("model_info");
    let id = match model_info.get("id") {
        None | Some(Value::Null) => random_id()?,
        Some(Value::String(id)) if !id.is_empty() => id.clone(),
        Some(other) => {
            return Err(Problem::invalid(
                "body",
                "model_info.id",
                "string_type",
                "Input should be a valid string",
                other,
            ));
        }
    };
    not_of_configuration(&call.app, &id)?;
    model_info.insert("id".to_owned(), json!(id));
    let mut model = StoredModel {
        model_name: call.text("model_name").unwrap_or_default().to_owned(),
        litellm_params: object("litellm_params"),
        model_info,
    };
    may_change(&call, None, Some(&model)).await?;
    if !call.caller.is_admin() {
        with_own_key(&model)?;
    }
    team::name(&mut model, None, None)?;
    let shown = checked(&call.app, &model)?;
    let now = time_text(call.now_ms);
    let by = json!(call.caller.user_id());
    let mut record = stored(&model, &sealer)?;
    record.insert("model_id".to_owned(), json!(id));
    for (name, value) in
        [("created_at", &now), ("created_by", &by), ("updated_at", &now), ("updated_by", &by)]
    {
        record.insert(name.to_owned(), value.clone());
    }
    let mut tx = call.app.db.write().await?;
    match rows::insert(tx.connection(), &MODELS, &record).await {
        Err(DbError::Duplicate) => {
            return Err(Problem::bad_request(
                "model_info.id",
                format!("Model id = {id} exists already: choose another id"),
            ));
        }
        result => result?,
    }
    team::tell(&mut tx, None, Some(&model), call.now_ms).await?;
    answered(&call.app, tx, record, shown).await
}

/// `POST /model/update`.
pub async fn update(call: Call) -> Result<Answer, Problem> {
    let id = call.body.get("model_info").and_then(|info| info.get("id")).and_then(Value::as_str);
    let Some(id) = id.filter(|id| !id.is_empty()).map(str::to_owned) else {
        return Err(Problem::bad_request(
            "model_info.id",
            "`model_info.id` is missing: expected the id of the model to change",
        ));
    };
    change(call, &id, 400).await
}

/// `PATCH /model/{model_id}/update`.
pub async fn patch(call: Call) -> Result<Answer, Problem> {
    let id = call.parts.first().cloned().unwrap_or_default();
    change(call, &id, 404).await
}

/// `POST /model/delete`.
pub async fn delete(call: Call) -> Result<Answer, Problem> {
    sealer(&call.app)?;
    let id = call.text("id").unwrap_or_default();
    not_of_configuration(&call.app, id)?;
    let there = may_change_stored(&call, id).await?;
    let mut tx = call.app.db.write().await?;
    let row = rows::get(tx.connection(), &MODELS, &[id]).await?;
    let Some(row) = row.filter(|_| there) else { return Err(unknown(id, 400)) };
    rows::delete(tx.connection(), &MODELS, &[Where::Is("model_id", json!(id))]).await?;
    // Its parameters may be sealed with a key that is lost: they do not matter any more.
    let model_info = row.get("model_info").and_then(Value::as_object).cloned().unwrap_or_default();
    let model_name = text(&row, "model_name").unwrap_or_default().to_owned();
    let gone = StoredModel { model_name, litellm_params: Map::new(), model_info };
    if let Some(bond) = team::bond(&gone) {
        team::tell(&mut tx, Some((&bond, &gone.model_name)), None, call.now_ms).await?;
    }
    let changed = committed(&call.app, tx).await?;
    Ok(Answer::changed(&json!({"message": format!("Model: {id} deleted successfully")}), changed))
}

/// Lays the members of the body over a stored model's; `missing` is the status when there is no such model.
async fn change(call: Call, id: &str, missing: u16) -> Result<Answer, Problem> {
    let sealer = sealer(&call.app)?;
    may_change_stored(&call, id).await?;
    not_of_configuration(&call.app, id)?;
    let mut tx = call.app.db.write().await?;
    let Some(row) = rows::get(tx.connection(), &MODELS, &[id]).await? else {
        return Err(unknown(id, missing));
    };
    let mut model = opened(&row, &sealer).map_err(|why| {
        Problem::refused(ErrorStatus::INTERNAL_SERVER_ERROR, format!("Model id = {id}: {why}"))
    })?;
    let (bond, old_name) = (team::bond(&model), model.model_name.clone());
    // Who sends back what it was shown renames nothing.
    let renamed = call.text("model_name").filter(|name| *name != old_name);
    if let Some(name) = renamed {
        model.model_name = name.to_owned();
    }
    lay_over(&mut model.litellm_params, call.body.get("litellm_params"));
    lay_over(&mut model.model_info, call.body.get("model_info"));
    // The id is the row's, whatever the body says.
    model.model_info.insert("id".to_owned(), json!(id));
    if !call.caller.is_admin() {
        with_own_key(&model)?;
        let team = model.model_info.get("team_id").and_then(Value::as_str);
        if team != bond.as_ref().map(|bond| bond.team()) {
            return Err(forbidden("Only proxy admins may give a model to another team, or to everybody."));
        }
    }
    team::name(&mut model, bond.as_ref(), renamed)?;
    let shown = checked(&call.app, &model)?;
    let mut changes = stored(&model, &sealer)?;
    changes.insert("updated_at".to_owned(), time_text(call.now_ms));
    changes.insert("updated_by".to_owned(), json!(call.caller.user_id()));
    rows::update(tx.connection(), &MODELS, &[Where::Is("model_id", json!(id))], &changes).await?;
    let before = bond.as_ref().map(|bond| (bond, old_name.as_str()));
    team::tell(&mut tx, before, Some(&model), call.now_ms).await?;
    let mut record = row;
    record.extend(changes);
    answered(&call.app, tx, record, shown).await
}

/// Refuses a caller that may not change the stored model with this id. Whether there is one.
async fn may_change_stored(call: &Call, id: &str) -> Result<bool, Problem> {
    let row = match call.caller.is_admin() {
        true => return Ok(true),
        false => rows::get(&mut *call.app.db.read().await?, &MODELS, &[id]).await?,
    };
    let info = row.as_ref().and_then(|row| row.get("model_info")).and_then(Value::as_object).cloned();
    let there = StoredModel { model_info: info.unwrap_or_default(), ..StoredModel::default() };
    may_change(call, Some(&there), None).await?;
    Ok(row.is_some())
}

/// Whether the caller's key was given this very route.
fn is_granted(call: &Call) -> bool {
    let Caller::Key(holder) = &call.caller else { return false };
    let paths: Vec<String> =
        holder.grant.allowed_routes.iter().filter(|entry| entry.contains('/')).cloned().collect();
    let route = Route { path: &call.path, names: &[], area: Area::Management, access: Access::Admin };
    route.is_in(&paths)
}

/// What somebody who is no admin adds for a team calls with a key of the team's own: the gateway's keys, its environment and its
/// credentials are not the team's to send where it likes.
fn with_own_key(model: &StoredModel) -> Result<(), Problem> {
    let params = Value::Object(model.litellm_params.clone());
    let refers = params.to_string().contains("os.environ/") || params.to_string().contains("oidc/");
    let names_credential = params.get("litellm_credential_name").is_some_and(|name| !name.is_null());
    let has_key = params.get("api_key").and_then(Value::as_str).is_some_and(|key| !key.trim().is_empty());
    if has_key && !refers && !names_credential {
        return Ok(());
    }
    Err(forbidden(
        "A model that a team's admin makes needs an `api_key` of its own in `litellm_params`, and may name neither \
         environment variables nor credentials of the gateway. A proxy admin may add it otherwise.",
    ))
}

/// Models are for admins to change; those of a team are for its admins too.
async fn may_change(
    call: &Call,
    there: Option<&StoredModel>,
    new: Option<&StoredModel>,
) -> Result<(), Problem> {
    if call.caller.is_admin() || is_granted(call) {
        return Ok(());
    }
    let Some(model) = there.or(new) else { return Err(refused(call)) };
    let Some(id) = text(&model.model_info, "team_id") else { return Err(refused(call)) };
    let mut connection = call.app.db.read().await?;
    let team = rows::get(&mut connection, &TEAMS, &[id]).await?;
    match team {
        Some(team) if runs_team(&mut connection, &call.caller, &team).await? => Ok(()),
        _ => Err(forbidden(format!(
            "Only proxy admins and the admins of the team {id} may make, change or delete its models."
        ))),
    }
}

/// Members of `from` replace those of `into`; a null removes one.
fn lay_over(into: &mut Map<String, Value>, from: Option<&Value>) {
    for (name, value) in from.and_then(Value::as_object).into_iter().flatten() {
        match value {
            Value::Null => drop(into.remove(name)),
            value => drop(into.insert(name.clone(), value.clone())),
        }
    }
}

/// Commits and answers the row, its parameters as they may be shown.
async fn answered(app: &App, tx: Tx, mut record: Record, shown: Value) -> Result<Answer, Problem> {
    let changed = committed(app, tx).await?;
    record.insert("litellm_params".to_owned(), shown);
    Ok(Answer::changed(&Value::Object(record), changed))
}

/// Commits a change of models and sees that it is in force.
async fn committed(app: &App, mut tx: Tx) -> Result<Vec<String>, Problem> {
    tx.record_changed(CHANGED);
    let revision = tx.revision();
    let changed = tx.commit().await?;
    app.live().changed(revision).await;
    Ok(changed)
}

/// The parameters as they may be shown, when the loader takes the model.
fn checked(app: &App, model: &StoredModel) -> Result<Value, Problem> {
    let (settings, env) = (app.live().settings(), |name: &str| std::env::var(name).ok());
    // Before anything is said of the environment.
    if let Some(name) = dynamic::own_variable(model, &settings) {
        return Err(Problem::bad_request(
            "litellm_params",
            format!("the model cannot be used: {}", dynamic::names_own(&name)),
        ));
    }
    // Elsewhere a gateway has an environment of its own, and says itself what is missing in it.
    if app.live().has_gateway()
        && let Some(name) = model.missing_variables(&settings, &env).first()
    {
        let why = format!(
            "the model cannot be used: `os.environ/{name}` names an environment variable that the running gateway does not \
             have; set {name} and start the gateway again, or name one that it has"
        );
        return Err(Problem::bad_request("litellm_params", why));
    }
    let config = model
        .check(&settings, &env)
        .map_err(|why| Problem::bad_request("litellm_params", format!("the model cannot be used: {why}")))?;
    Ok(config.deployments.first().map_or_else(|| json!({}), |d| Value::Object(d.shown_params.clone())))
}

/// The columns that a model fills.
fn stored(model: &StoredModel, sealer: &Sealer) -> Result<Record, Problem> {
    let params = Value::Object(model.litellm_params.clone()).to_string();
    let sealed =
        sealer.seal(&params).map_err(|why| Problem::refused(ErrorStatus::INTERNAL_SERVER_ERROR, why))?;
    Ok(Record::from_iter([
        ("model_name".to_owned(), json!(model.model_name)),
        ("litellm_params".to_owned(), json!(sealed)),
        ("model_info".to_owned(), Value::Object(model.model_info.clone())),
    ]))
}

/// Seals parameters, where models may be stored at all.
fn sealer(app: &App) -> Result<Sealer, Problem> {
    let config = app.config();
    if !config.ledger.store_model_in_db {
        return Err(Problem::wrapped(
            ErrorStatus::INTERNAL_SERVER_ERROR,
            "Set `general_settings.store_model_in_db: true` in the configuration to enable this feature.",
        ));
    }
    Sealer::of(&config).map_err(|why| Problem::refused(ErrorStatus::INTERNAL_SERVER_ERROR, why))
}

fn not_of_configuration(app: &App, id: &str) -> Result<(), Problem> {
    let config = app.config();
    let found = config.deployments.iter().find(|deployment| deployment.id == id);
    // A configuration that was completed with the stored models has them too.
    if found.is_none_or(|deployment| deployment.model_info.get("db_model") == Some(&Value::Bool(true))) {
        return Ok(());
    }
    Err(Problem::bad_request(
        "id",
        format!("Model id = {id} is a model of the configuration file: change it there"),
    ))
}

fn unknown(id: &str, status: u16) -> Problem {
    Problem::Detail(status, json!({"error": format!("Model id = {id} not found on litellm proxy")}))
}

/// A random UUID.
fn random_id() -> Result<String, Problem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Problem::refused(
            ErrorStatus::INTERNAL_SERVER_ERROR,
            format!("this machine gives no random numbers: {error}"),
        )
    })?;
    let number = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{number:032x}");
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default().to_owned();
    Ok([part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-"))
}
