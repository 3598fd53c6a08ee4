//! Adding, changing and removing models. What is added is checked by the loader first, so that a wrong model is refused when it is
//! made and not when it is called.

use serde_json::{Map, Value, json};

use super::{CHANGED, opened, team};
use crate::control::{
    dynamic::StoredModel,
    ledger::{
        App,
        api::fields::text,
        db::{DbError, Tx},
        problem::Problem,
        route::{Answer, Call},
        rows::{self, Record, Where, time_text},
        schema::MODELS,
        seal::Sealer,
    },
};

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
            return Err(Problem::refused(400, format!("Model id = {id} exists already: choose another id")));
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
        return Err(Problem::refused(
            400,
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
    let mut tx = call.app.db.write().await?;
    let row = rows::get(tx.connection(), &MODELS, &[id]).await?;
    let Some(row) = row else { return Err(unknown(id, 400)) };
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
    not_of_configuration(&call.app, id)?;
    let mut tx = call.app.db.write().await?;
    let Some(row) = rows::get(tx.connection(), &MODELS, &[id]).await? else {
        return Err(unknown(id, missing));
    };
    let mut model =
        opened(&row, &sealer).map_err(|why| Problem::refused(500, format!("Model id = {id}: {why}")))?;
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
    // Elsewhere a gateway has an environment of its own, and says itself what is missing in it.
    if app.live().has_gateway()
        && let Some(name) = model.missing_variables(&settings, &env).first()
    {
        let why = format!(
            "the model cannot be used: `os.environ/{name}` names an environment variable that the running gateway does not \
             have; set {name} and start the gateway again, or name one that it has"
        );
        return Err(Problem::refused(400, why));
    }
    let config = model
        .check(&settings, &env)
        .map_err(|why| Problem::refused(400, format!("the model cannot be used: {why}")))?;
    Ok(config.deployments.first().map_or_else(|| json!({}), |d| Value::Object(d.shown_params.clone())))
}

/// The columns that a model fills.
fn stored(model: &StoredModel, sealer: &Sealer) -> Result<Record, Problem> {
    let params = Value::Object(model.litellm_params.clone()).to_string();
    let sealed = sealer.seal(&params).map_err(|why| Problem::refused(500, why))?;
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
            500,
            "Set `general_settings.store_model_in_db: true` in the configuration to enable this feature.",
        ));
    }
    Sealer::of(&config).map_err(|why| Problem::refused(500, why))
}

fn not_of_configuration(app: &App, id: &str) -> Result<(), Problem> {
    let config = app.config();
    let found = config.deployments.iter().find(|deployment| deployment.id == id);
    // A configuration that was completed with the stored models has them too.
    if found.is_none_or(|deployment| deployment.model_info.get("db_model") == Some(&Value::Bool(true))) {
        return Ok(());
    }
    Err(Problem::refused(
        400,
        format!("Model id = {id} is a model of the configuration file: change it there"),
    ))
}

fn unknown(id: &str, status: u16) -> Problem {
    Problem::Detail(status, json!({"error": format!("Model id = {id} not found on litellm proxy")}))
}

/// A random UUID.
fn random_id() -> Result<String, Problem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::refused(500, format!("this machine gives no random numbers: {error}")))?;
    let number = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{number:032x}");
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default().to_owned();
    Ok([part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-"))
}
