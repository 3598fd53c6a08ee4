//! Models of one team: the team calls a model by the name that it was made with, nobody else sees it.
//!
//! As in LiteLLM, the model itself gets a name that no other has; the team's aliases lead to it, and the name stands in the list
//! of what the team may call.

use serde_json::{Value, json};

use crate::control::{
    dynamic::StoredModel,
    ledger::{
        api::fields::{text, texts, uuid},
        db::Tx,
        problem::Problem,
        rows::{self, Record, Where},
        schema::TEAMS,
    },
};

/// The team of a model, and what the team calls it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bond {
    team: String,
    name: String,
}

impl Bond {
    /// The team's id.
    pub(super) fn team(&self) -> &str {
        &self.team
    }
}

/// How a model belongs to a team; none when it is everybody's.
pub(super) fn bond(model: &StoredModel) -> Option<Bond> {
    let team = text(&model.model_info, "team_id")?.to_owned();
    let name = text(&model.model_info, "team_public_model_name").unwrap_or(&model.model_name).to_owned();
    Some(Bond { team, name })
}

/// Gives a model the names that it has as a team's, or as everybody's again; `renamed` is what a change calls it.
pub(super) fn name(
    model: &mut StoredModel,
    before: Option<&Bond>,
    renamed: Option<&str>,
) -> Result<(), Problem> {
    let Some(team) = text(&model.model_info, "team_id").map(str::to_owned) else {
        // What was a team's has the team's name for it.
        if let (Some(before), None) = (before, renamed) {
            model.model_name.clone_from(&before.name);
        }
        model.model_info.remove("team_public_model_name");
        return Ok(());
    };
    let there = before.map(|before| before.name.as_str());
    let public = match renamed {
        Some(name) => name.to_owned(),
        None => text(&model.model_info, "team_public_model_name")
            .or(there)
            .unwrap_or(&model.model_name)
            .to_owned(),
    };
    let own = format!("model_name_{team}_");
    if renamed.is_some() || !model.model_name.starts_with(&own) {
        model.model_name = format!("{own}{}", uuid()?);
    }
    model.model_info.insert("team_public_model_name".to_owned(), json!(public));
    Ok(())
}

/// Tells the teams what a model is to them now.
pub(super) async fn tell(
    tx: &mut Tx,
    before: Option<(&Bond, &str)>,
    model: Option<&StoredModel>,
    now_ms: i64,
) -> Result<(), Problem> {
    if let Some((bond, model_name)) = before
        && let Some(team) = rows::get(tx.connection(), &TEAMS, &[&bond.team]).await?
    {
        forget(tx, &team, bond, model_name, now_ms).await?;
    }
    let Some((bond, model)) = model.and_then(|model| Some((bond(model)?, model))) else { return Ok(()) };
    let Some(team) = rows::get(tx.connection(), &TEAMS, &[&bond.team]).await? else {
        return Err(Problem::not_found(
            format!("Team not found, passed team id: {}.", bond.team),
            "model_info.team_id",
        ));
    };
    let mut models = texts(&team, "models");
    if !models.contains(&bond.name) {
        models.push(bond.name.clone());
    }
    let mut aliases = aliases(&team);
    aliases.insert(bond.name, json!(model.model_name));
    store(tx, &bond.team, models, aliases, now_ms).await
}

/// The team's alias goes, and the name out of its list, unless that would leave none, which means all.
async fn forget(
    tx: &mut Tx,
    team: &Record,
    bond: &Bond,
    model_name: &str,
    now_ms: i64,
) -> Result<(), Problem> {
    let mut aliases = aliases(team);
    if aliases.get(&bond.name).and_then(Value::as_str) != Some(model_name) {
        return Ok(());
    }
    aliases.shift_remove(&bond.name);
    let mut models = texts(team, "models");
    if models.len() > 1 {
        models.retain(|model| *model != bond.name);
    }
    store(tx, &bond.team, models, aliases, now_ms).await
}

fn aliases(team: &Record) -> Record {
    team.get("model_aliases").and_then(Value::as_object).cloned().unwrap_or_default()
}

async fn store(
    tx: &mut Tx,
    team: &str,
    models: Vec<String>,
    aliases: Record,
    now_ms: i64,
) -> Result<(), Problem> {
    let change = Record::from_iter([
        ("models".to_owned(), json!(models)),
        ("model_aliases".to_owned(), Value::Object(aliases)),
        ("updated_at".to_owned(), json!(now_ms)),
    ]);
    rows::update(tx.connection(), &TEAMS, &[Where::Is("team_id", json!(team))], &change).await?;
    tx.record_changed(format!("team:{team}"));
    Ok(())
}
