//! `/team/info`, `/team/list`, `/v2/team/list`, `/team/permissions_list`.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use sqlx::AnyConnection;

use super::{members, require, shown};
use crate::{
    control::ledger::{
        api::{
            access::{
                forbidden, member_permissions, role_name, runs_organization, sees_keys_of_team, sees_team,
                teams_of,
            },
            budgets,
            fields::{Page, bounded_query, order, text},
            keys,
        },
        problem::Problem,
        route::{Answer, Call},
        rows::{self, Record, Select, Where},
        schema::{BUDGETS, KEYS, TEAM_MEMBERS, TEAMS},
        windows,
    },
    core::error::{Error, KeyFault},
};

/// Columns that a list can be sorted by.
const SORTED: &[&str] = &["team_id", "team_alias", "created_at", "updated_at", "spend", "max_budget"];
/// What members of a team may be allowed to do with its keys.
const PERMISSIONS: [&str; 9] = [
    "/key/generate",
    "/key/service-account/generate",
    "/key/update",
    "/key/delete",
    "/key/regenerate",
    "/key/block",
    "/key/unblock",
    "/key/list",
    "/key/info",
];

pub async fn info(call: Call) -> Result<Answer, Problem> {
    bounded_query(&call)?;
    let id = call.parameter("team_id").unwrap_or_default();
    let mut connection = call.app.db.read().await?;
    let team = visible(&mut connection, &call, id).await?;
    let mut extras = extras(&mut connection, &call, std::slice::from_ref(&team)).await?;
    let (keys, memberships) = extras.remove(id).unwrap_or_default();
    let keys = keys::without_token(&mut connection, &call, keys).await?;
    let budget = match members::default_budget(&team) {
        Some(budget) => rows::get(&mut connection, &BUDGETS, &[&budget]).await?,
        None => None,
    };
    let mut team = [team];
    windows::attach(&mut connection, &call, "team", &mut team, true).await?;
    let mut team = team.iter().map(shown).next().unwrap_or_default();
    team.insert("team_member_budget_table".to_owned(), json!(budget));
    Ok(Answer::json(&json!({
        "team_id": id, "team_info": team, "keys": keys, "team_memberships": memberships,
    })))
}

async fn visible(connection: &mut AnyConnection, call: &Call, id: &str) -> Result<Record, Problem> {
    let team = require(connection, id).await?;
    if sees_team(connection, &call.caller, &team).await? {
        return Ok(team);
    }
    Err(forbidden(format!(
        "key not allowed to access this team's info. Key's team={}, requested team={id}",
        call.caller.team_id().unwrap_or("None")
    )))
}

/// Keys that the caller sees, and memberships, of each of some teams.
type Extras = HashMap<String, (Vec<Record>, Vec<Record>)>;

async fn extras(connection: &mut AnyConnection, call: &Call, teams: &[Record]) -> Result<Extras, Problem> {
    let mut extras = Extras::new();
    let mut open = HashSet::new();
    for team in teams {
        if sees_keys_of_team(connection, &call.caller, team).await? {
            open.extend(text(team, "team_id"));
        }
    }
    let own = |key: &Record| {
        call.caller.user_id().is_some() && call.caller.user_id() == text(key, "user_id")
            || call.caller.token().is_some() && call.caller.token() == text(key, "token")
    };
    let ids: Vec<Value> = teams.iter().map(|team| json!(text(team, "team_id"))).collect();
    for some in ids.chunks(500) {
        let newest = Select {
            order: Some(("created_at", true)),
            limit: Some(keys::LONGEST_ANSWER),
            ..Select::all(vec![Where::In("team_id", some.to_vec())])
        };
        for key in rows::select(connection, &KEYS, &newest).await? {
            let team = text(&key, "team_id").unwrap_or_default().to_owned();
            if open.contains(team.as_str()) || own(&key) {
                extras.entry(team).or_default().0.push(key);
            }
        }
        for (team, members) in memberships(connection, some).await? {
            extras.entry(team).or_default().1 = members;
        }
    }
    Ok(extras)
}

/// The memberships of teams, with what each member may spend.
pub async fn memberships(
    connection: &mut AnyConnection,
    teams: &[Value],
) -> Result<HashMap<String, Vec<Record>>, Problem> {
    let select = Select::all(vec![Where::In("team_id", teams.to_vec())]);
    let mut members = rows::select(connection, &TEAM_MEMBERS, &select).await?;
    budgets::attach(connection, &mut members).await?;
    let mut by_team: HashMap<String, Vec<Record>> = HashMap::new();
    for member in members {
        by_team.entry(text(&member, "team_id").unwrap_or_default().to_owned()).or_default().push(member);
    }
    Ok(by_team)
}

pub async fn list(call: Call) -> Result<Answer, Problem> {
    bounded_query(&call)?;
    let mut connection = call.app.db.read().await?;
    let conditions = scope(&mut connection, &call).await?;
    let select = Select { limit: Some(keys::LONGEST_ANSWER), ..Select::all(conditions) };
    let mut teams = rows::select(&mut connection, &TEAMS, &select).await?;
    windows::attach(&mut connection, &call, "team", &mut teams, false).await?;
    let mut extras = extras(&mut connection, &call, &teams).await?;
    let shown: Vec<Record> = teams
        .iter()
        .map(|team| {
            let id = text(team, "team_id").unwrap_or_default();
            let (keys, memberships) = extras.remove(id).unwrap_or_default();
            let mut team = shown(team);
            team.insert("team_memberships".to_owned(), json!(memberships));
            team.insert("keys".to_owned(), json!(keys));
            team
        })
        .collect();
    Ok(Answer::json(&json!(shown)))
}

pub async fn pages(call: Call) -> Result<Answer, Problem> {
    bounded_query(&call)?;
    let page = Page::of(&call, "page_size", 10, 100)?;
    let order = order(&call, SORTED, ("created_at", true))?;
    let mut connection = call.app.db.read().await?;
    let mut conditions = scope(&mut connection, &call).await?;
    conditions.extend(call.parameter("team_id").map(|id| Where::Is("team_id", json!(id))));
    conditions.extend(call.parameter("team_alias").map(|alias| Where::Holds("team_alias", alias.to_owned())));
    let total = rows::count(&mut connection, &TEAMS, &conditions).await?;
    let select = Select { conditions, order: Some(order), limit: Some(page.size), offset: page.offset() };
    let mut teams = rows::select(&mut connection, &TEAMS, &select).await?;
    windows::attach(&mut connection, &call, "team", &mut teams, false).await?;
    let teams: Vec<Record> = teams.iter().map(shown).collect();
    Ok(Answer::json(&json!({
        "teams": teams, "total": total, "page": page.number, "page_size": page.size, "total_pages": page.pages(total),
    })))
}

/// Which teams the caller sees: all, those of an organization it runs, or its own.
async fn scope(connection: &mut AnyConnection, call: &Call) -> Result<Vec<Where>, Problem> {
    let caller = &call.caller;
    let mut conditions = Vec::new();
    let organization = call.parameter("organization_id");
    conditions.extend(organization.map(|id| Where::Is("organization_id", json!(id))));
    let runs = runs_organization(connection, caller, organization).await?;
    if !caller.may_see_all()
        && !runs
        && (caller.user_id().is_none() || call.parameter("user_id") != caller.user_id())
    {
        return Err(Problem::Error(Error::of(
            KeyFault::Refused,
            format!(
                "{{'error': 'Only admin users can query all teams/other teams. Your user role={}'}}",
                role_name(caller)
            ),
        )));
    }
    if let Some(user) = call.parameter("user_id") {
        let ids = teams_of(connection, user).await?.into_iter().map(Value::from).collect();
        conditions.push(Where::In("team_id", ids));
    }
    Ok(conditions)
}

pub async fn permissions(call: Call) -> Result<Answer, Problem> {
    bounded_query(&call)?;
    let id = call.parameter("team_id").unwrap_or_default();
    let mut connection = call.app.db.read().await?;
    let team = visible(&mut connection, &call, id).await?;
    Ok(Answer::json(&json!({
        "team_id": id, "team_member_permissions": member_permissions(&team), "all_available_permissions": PERMISSIONS,
    })))
}
