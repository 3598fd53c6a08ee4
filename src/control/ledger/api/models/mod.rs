//! Models: what is served, and models added through the API.

mod change;
pub mod info;
mod team;

use std::sync::Arc;

use serde_json::{Map, Value};
use sqlx::AnyConnection;

use crate::{
    control::{
        dynamic::{self, StoredModel, StoredModels},
        ledger::{
            App,
            api::fields::PAGE,
            db::DbError,
            problem::{ErrorStatus, Problem},
            route::{Access, Field, Route, Type},
            rows::{self, Record, Select},
            schema::MODELS,
            seal::Sealer,
        },
    },
    core::{
        config::{Config, Resolved},
        model::{deployment::Deployment, money::Money, terms::Terms, usage::Usage},
    },
};

const TAG: &str = "models";
const PARTS: [Field; 3] = [
    Field::new("model_name", Type::Text, "Model group it belongs to."),
    Field::new("litellm_params", Type::Object, "Provider, model, key and the like; kept encrypted."),
    Field::new(
        "model_info",
        Type::Object,
        "Id, base model, mode, prices; shown to everybody who may call it.",
    ),
];
const NEW: &[Field] = &[
    Field::required("model_name", Type::Text, PARTS[0].about),
    Field::required("litellm_params", Type::Object, PARTS[1].about),
    PARTS[2],
];

const PAGES: &[Field] = &[
    PAGE,
    Field::new("size", Type::Int, "Deployments on a page: 50, at most 100."),
    Field::new("model", Type::Text, "Of this group."),
    Field::new("modelId", Type::Text, "With this id."),
    Field::new("search", Type::Text, "Whose group has this in its name."),
];

/// The routes of this chapter.
pub static ROUTES: &[Route] = &[
    Route {
        method: "GET",
        paths: &["/model/info", "/v1/model/info"],
        tag: TAG,
        summary: "Lists the deployments that the caller may call, without their secrets.",
        access: Access::AnyKey,
        query: &[Field::new("litellm_model_id", Type::Text, "Only the deployment with this id.")],
        body: &[],
        handler: |call| Box::pin(info::deployments(call)),
    },
    Route {
        method: "GET",
        paths: &["/v2/model/info"],
        tag: TAG,
        summary: "The same page by page.",
        access: Access::AnyKey,
        query: PAGES,
        body: &[],
        handler: |call| Box::pin(info::pages(call)),
    },
    Route {
        method: "GET",
        paths: &["/model_group/info"],
        tag: TAG,
        summary: "Lists the model groups that the caller may call, with what they can do.",
        access: Access::AnyKey,
        query: &[Field::new("model_group", Type::Text, "Only this group.")],
        body: &[],
        handler: |call| Box::pin(info::groups(call)),
    },
    Route {
        method: "POST",
        paths: &["/model/new"],
        tag: TAG,
        summary: "Adds a model.",
        access: Access::InternalUser,
        query: &[],
        body: NEW,
        handler: |call| Box::pin(change::add(call)),
    },
    Route {
        method: "POST",
        paths: &["/model/update"],
        tag: TAG,
        summary: "Changes a model that was added; the one with the id in `model_info`.",
        access: Access::InternalUser,
        query: &[],
        body: &PARTS,
        handler: |call| Box::pin(change::update(call)),
    },
    Route {
        method: "PATCH",
        paths: &["/model/{model_id}/update"],
        tag: TAG,
        summary: "Changes a model that was added. Members that are left out stay; null removes one.",
        access: Access::InternalUser,
        query: &[],
        body: &PARTS,
        handler: |call| Box::pin(change::patch(call)),
    },
    Route {
        method: "POST",
        paths: &["/model/delete"],
        tag: TAG,
        summary: "Removes a model that was added.",
        access: Access::InternalUser,
        query: &[],
        body: &[Field::required("id", Type::Text, "Id of the model.")],
        handler: |call| Box::pin(change::delete(call)),
    },
];

/// The revision at which a stored model changed last; 0 when none ever did, and without `store_model_in_db`.
pub async fn revision(app: &App) -> Result<u64, Problem> {
    if !app.config().ledger.store_model_in_db {
        return Ok(0);
    }
    let mut connection = app.db.read().await?;
    Ok(revision_in(&mut connection).await?)
}

async fn revision_in(connection: &mut AnyConnection) -> Result<u64, DbError> {
    let sql = "SELECT revision FROM tollgate_changes WHERE meter = $1";
    let changed = rows::rows(connection, sql, vec![CHANGED.into()]).await?;
    let revision = changed.first().map(|row| sqlx::Row::try_get::<i64, _>(row, 0)).transpose()?;
    Ok(revision.and_then(|revision| u64::try_from(revision).ok()).unwrap_or_default())
}

/// The models that were added through the API, unsealed, for `GET /internal/models`. A row that cannot be unsealed is left out
/// and told of in the log, once. Without `store_model_in_db` there are none.
pub async fn stored_models(app: &App) -> Result<StoredModels, Problem> {
    let config = app.config();
    if !config.ledger.store_model_in_db {
        return Ok(StoredModels::default());
    }
    let (mut tx, _) = app.db.snapshot().await?;
    let revision = revision_in(&mut tx).await?;
    let rows = all_rows(&mut tx).await?;
    drop(tx);
    let mut models = Vec::with_capacity(rows.len());
    if rows.is_empty() {
        return Ok(StoredModels { revision, models });
    }
    let sealer =
        Sealer::of(&config).map_err(|why| Problem::refused(ErrorStatus::INTERNAL_SERVER_ERROR, why))?;
    for row in &rows {
        match opened(row, &sealer) {
            Ok(model) => models.push(model),
            Err(why) => {
                let id = row.get("model_id").and_then(Value::as_str).unwrap_or_default();
                app.live().log_once(format!("model `{id}` of the database is left out: {why}"));
            }
        }
    }
    Ok(StoredModels { revision, models })
}

/// The entry of the change feed that every change of a stored model moves.
pub const CHANGED: &str = "models";

async fn all_rows(connection: &mut AnyConnection) -> Result<Vec<Record>, DbError> {
    let select = Select { order: Some(("created_at", false)), ..Select::default() };
    rows::select(connection, &MODELS, &select).await
}

/// A row as a model. The error says what is wrong with it, and shows nothing of it.
fn opened(row: &Record, sealer: &Sealer) -> Result<StoredModel, String> {
    let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
    let params = sealer.unseal(text("litellm_params"))?;
    let litellm_params: Map<String, Value> =
        serde_json::from_str(&params).map_err(|_| "its stored parameters are no JSON object".to_owned())?;
    let mut model_info = row.get("model_info").and_then(Value::as_object).cloned().unwrap_or_default();
    model_info.insert("id".to_owned(), Value::from(text("model_id")));
    Ok(StoredModel { model_name: text("model_name").to_owned(), litellm_params, model_info })
}

/// What the stored models mean; those that the loader does not take are left out.
pub async fn stored_config(app: &App) -> Result<Config, Problem> {
    let mut models = stored_models(app).await?.models;
    let settings = app.live().settings();
    let load = |models: &[StoredModel]| dynamic::load(&settings, models, &|name| std::env::var(name).ok());
    if let Ok(config) = load(&models) {
        return Ok(config);
    }
    models.retain(|model| load(std::slice::from_ref(model)).is_ok());
    load(&models).map_err(|why| {
        Problem::refused(
            ErrorStatus::INTERNAL_SERVER_ERROR,
            format!("the stored models cannot be used: {why}"),
        )
    })
}

/// A model as a deployment serves it.
pub struct Served {
    config: Arc<Config>,
    at: usize,
    resolved: Resolved,
}

/// The deployment that would serve a model, the first of its group: of the configuration, else of the stored models. `None` when
/// nothing serves it.
pub async fn served(app: &App, model: &str) -> Result<Option<Served>, Problem> {
    let find = |config: Arc<Config>| {
        let resolved = config.resolve(model)?;
        let at = *resolved.deployments.first()?;
        Some(Served { config, at, resolved })
    };
    match find(app.config()) {
        Some(served) => Ok(Some(served)),
        None => Ok(find(Arc::new(stored_config(app).await?))),
    }
}

impl Served {
    /// The deployment.
    pub fn deployment(&self) -> Option<&Deployment> {
        self.config.deployments.get(self.at)
    }

    /// The model at the provider, without its brand.
    pub fn model(&self) -> String {
        let captures: Vec<&str> = self.resolved.captures.iter().map(String::as_str).collect();
        self.deployment().map(|d| d.model_for(&self.resolved.requested, &captures)).unwrap_or_default()
    }

    /// The name that says which tokenizer it has.
    pub fn tokenizer_model(&self) -> String {
        let base = self.deployment().and_then(|deployment| deployment.base_model.clone());
        base.unwrap_or_else(|| self.model())
    }

    /// What a call costs, by the same rule as the filter's: `answered` is the model that the answer names.
    pub fn cost(
        &self,
        answered: Option<&str>,
        usage: &Usage,
        terms: &Terms,
        duration_ms: Option<u64>,
    ) -> Option<Money> {
        let deployment = self.deployment()?;
        let price = deployment.price(&self.model(), answered);
        deployment.cost(price.as_ref(), usage, terms, duration_ms)
    }
}

#[cfg(test)]
mod tests;
