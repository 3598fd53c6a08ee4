//! Whose records a caller may see and change: its own, those of teams and organizations it runs, or all.

use serde_json::{Value, json};
use sqlx::AnyConnection;

use super::fields::{python_list, texts};
use crate::{
    control::ledger::{
        caller::Caller,
        db::DbError,
        problem::{ErrorStatus, Problem},
        route::Call,
        rows::{self, Record, Select, Where},
        schema::{ORGANIZATION_MEMBERS, TEAM_MEMBERS, TEAMS},
    },
    core::{
        access::{refusals, routes::Right},
        error::{Error, KeyFault},
        model::key_record::Role,
    },
};

/// What members of a team who do not run it may do with its keys, unless the team says otherwise.
const MEMBER_PERMISSIONS: [&str; 2] = ["/key/info", "/key/health"];

/// The refusal of a route to this caller.
pub fn refused(call: &Call) -> Problem {
    match &call.caller {
        Caller::Master => Problem::refused(ErrorStatus::INTERNAL_SERVER_ERROR, "the master key was refused"),
        Caller::Key(holder) => refusals::role(&holder.grant, &call.path).into(),
    }
}

/// 403 `auth_error`.
pub fn forbidden(message: impl Into<String>) -> Problem {
    Problem::Error(Error::of(KeyFault::Forbidden, message))
}

/// The caller's user, when it is somebody who may change things of its own: viewers and keys without a user may not.
pub fn acting_user(call: &Call) -> Result<&str, Problem> {
    match (call.caller.role(), call.caller.user_id()) {
        (Role::ProxyAdmin | Role::OrgAdmin | Role::InternalUser, Some(id)) => Ok(id),
        _ => Err(refused(call)),
    }
}

/// The same for operations that a key which is nobody's may be granted: none is such a key.
pub fn actor(call: &Call) -> Result<Option<&str>, Problem> {
    match call.right {
        Right::Grant => Ok(call.caller.user_id()),
        Right::Role => acting_user(call).map(Some),
    }
}

/// The name of the caller's role.
pub fn role_name(caller: &Caller) -> String {
    caller.role().name().to_owned()
}

/// A user's role in a team: `admin` or `user`.
pub fn role_in_team<'t>(team: &'t Record, user: &str) -> Option<&'t str> {
    let members = team.get("members_with_roles")?.as_array()?;
    let member = members.iter().find(|member| member.get("user_id").and_then(Value::as_str) == Some(user))?;
    member.get("role").and_then(Value::as_str).or(Some("user"))
}

/// Whether the caller runs an organization.
pub async fn runs_organization(
    connection: &mut AnyConnection,
    caller: &Caller,
    id: Option<&str>,
) -> Result<bool, DbError> {
    if caller.is_admin() {
        return Ok(true);
    }
    let (Some(user), Some(id)) = (caller.user_id(), id) else { return Ok(false) };
    if !matches!(caller.role(), Role::OrgAdmin | Role::InternalUser) {
        return Ok(false);
    }
    let member = rows::get(connection, &ORGANIZATION_MEMBERS, &[user, id]).await?;
    Ok(member.is_some_and(|member| member.get("user_role") == Some(&json!("org_admin"))))
}

/// Whether the caller is a member of an organization.
pub async fn in_organization(
    connection: &mut AnyConnection,
    caller: &Caller,
    id: &str,
) -> Result<bool, DbError> {
    let Some(user) = caller.user_id() else { return Ok(false) };
    Ok(rows::get(connection, &ORGANIZATION_MEMBERS, &[user, id]).await?.is_some())
}

/// Whether the caller runs a team's organization: it may change the team's limits.
pub async fn above_team(
    connection: &mut AnyConnection,
    caller: &Caller,
    team: &Record,
) -> Result<bool, DbError> {
    runs_organization(connection, caller, team.get("organization_id").and_then(Value::as_str)).await
}

/// Whether the caller runs a team: it may change its members and its keys.
pub async fn runs_team(
    connection: &mut AnyConnection,
    caller: &Caller,
    team: &Record,
) -> Result<bool, DbError> {
    let acts = matches!(caller.role(), Role::OrgAdmin | Role::InternalUser);
    let is_team_admin = caller.user_id().is_some_and(|user| role_in_team(team, user) == Some("admin"));
    Ok(acts && is_team_admin || above_team(connection, caller, team).await?)
}

/// Whether the caller may see a team: who runs it, its members, its keys, viewers.
pub async fn sees_team(
    connection: &mut AnyConnection,
    caller: &Caller,
    team: &Record,
) -> Result<bool, DbError> {
    let id = team.get("team_id").and_then(Value::as_str);
    let belongs = caller.may_see_all()
        || id.is_some() && caller.team_id() == id
        || caller.user_id().is_some_and(|user| role_in_team(team, user).is_some());
    Ok(belongs || runs_team(connection, caller, team).await?)
}

/// The team of a key, when it has one that exists.
pub async fn team_of(connection: &mut AnyConnection, key: &Record) -> Result<Option<Record>, DbError> {
    match key.get("team_id").and_then(Value::as_str) {
        Some(id) => rows::get(connection, &TEAMS, &[id]).await,
        None => Ok(None),
    }
}

/// Refuses a caller that may not change a key. `operation` is the path by which teams name it in their members' permissions.
pub async fn may_change_key(
    connection: &mut AnyConnection,
    call: &Call,
    key: &Record,
    operation: &str,
) -> Result<(), Problem> {
    if call.caller.is_admin() {
        return Ok(());
    }
    let owner = key.get("user_id").and_then(Value::as_str);
    let made_with = key.get("created_by").and_then(Value::as_str);
    if call.right == Right::Grant && call.caller.token().is_some() && call.caller.token() == made_with {
        return Ok(());
    }
    let user = match actor(call)? {
        Some(user) => user,
        None => return Err(forbidden(format!("{operation}: this key may do this with keys that it made."))),
    };
    let organization = key.get("organization_id").and_then(Value::as_str);
    if let Some(team) = team_of(connection, key).await? {
        if runs_team(connection, &call.caller, &team).await? {
            return Ok(());
        }
        return may_as_member(&team, user, operation);
    }
    // A key that names a team that is gone is nobody's but its owner's.
    if owner == Some(user) || runs_organization(connection, &call.caller, organization).await? {
        return Ok(());
    }
    Err(forbidden(format!("{operation}: this key is not yours; its owner or an admin may do this.")))
}

/// Whether a member who does not run the team may do something with its keys.
pub fn may_as_member(team: &Record, user: &str, operation: &str) -> Result<(), Problem> {
    let id = team.get("team_id").and_then(Value::as_str).unwrap_or_default();
    match role_in_team(team, user) {
        None => {
            Err(Problem::refused(ErrorStatus::BAD_REQUEST, format!("User={user} not assigned to team={id}")))
        }
        Some("admin") => Ok(()),
        Some(_) => {
            let permissions = member_permissions(team);
            if permissions.iter().any(|path| path == operation) {
                return Ok(());
            }
            Err(Problem::Error(
                Error::of(
                    KeyFault::TeamMember,
                    format!(
                        "Team member does not have permissions for endpoint: {operation}. You only have access to \
                         the following endpoints: {} for team {id}. An admin of the team can change that: \
                         /team/permissions_update.",
                        python_list(&permissions)
                    ),
                )
                .with_param(operation.to_owned()),
            ))
        }
    }
}

/// What members who do not run a team may do with its keys.
pub fn member_permissions(team: &Record) -> Vec<String> {
    let own = texts(team, "team_member_permissions");
    if own.is_empty() { MEMBER_PERMISSIONS.map(str::to_owned).to_vec() } else { own }
}

/// Whether the caller may see a key.
pub async fn sees_key(
    connection: &mut AnyConnection,
    caller: &Caller,
    key: &Record,
) -> Result<bool, DbError> {
    let field = |name: &str| key.get(name).and_then(Value::as_str);
    if caller.may_see_all() || caller.token().is_some() && caller.token() == field("token") {
        return Ok(true);
    }
    if caller.user_id().is_some() && caller.user_id() == field("user_id") {
        return Ok(true);
    }
    if let Some(team) = team_of(connection, key).await? {
        // As what members may do by default has it; a team's own list may leave it out.
        let is_member = caller.user_id().is_some_and(|user| role_in_team(&team, user).is_some());
        let may_see = member_permissions(&team).iter().any(|path| path == "/key/info");
        return Ok(is_member && may_see || sees_keys_of_team(connection, caller, &team).await?);
    }
    runs_organization(connection, caller, field("organization_id")).await
}

/// Whether the caller may see all keys of a team: its members do when the team says so in so many words.
pub async fn sees_keys_of_team(
    connection: &mut AnyConnection,
    caller: &Caller,
    team: &Record,
) -> Result<bool, DbError> {
    let is_open = texts(team, "team_member_permissions").iter().any(|path| path == "/key/info");
    let is_member = caller.user_id().is_some_and(|user| role_in_team(team, user).is_some());
    Ok(caller.may_see_all() || is_open && is_member || runs_team(connection, caller, team).await?)
}

/// Ids of the teams a user is a member of.
pub async fn teams_of(connection: &mut AnyConnection, user: &str) -> Result<Vec<String>, DbError> {
    let select = Select::all(vec![Where::Is("user_id", json!(user))]);
    let members = rows::select(connection, &TEAM_MEMBERS, &select).await?;
    Ok(members
        .iter()
        .filter_map(|member| member.get("team_id").and_then(Value::as_str).map(str::to_owned))
        .collect())
}
