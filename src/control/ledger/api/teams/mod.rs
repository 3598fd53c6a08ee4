//! Teams: making, showing, changing, blocking, removing them; their members and models.

mod change;
mod members;
mod show;

pub use change::remove;
pub use members::{Member, add_members, forget_member, limits as member_limits};
pub use show::memberships;

use serde_json::{Value, json};
use sqlx::AnyConnection;

use super::fields::{self, PAGE, SORT_BY, SORT_ORDER};
use crate::control::ledger::{
    problem::Problem,
    route::{Access, Field, Route, Type},
    rows::{self, Record},
    schema::TEAMS,
};

/// What a body says about a member besides who it is.
pub const MEMBER_LIMITS: &[Field] = fields::joined!(MEMBER_OF, MEMBER_RATES);
const MEMBER_OF: &[Field] = &[
    Field::new("team_id", Type::Text, "Which team."),
    Field::new("max_budget_in_team", Type::Money, "Dollars that the member may spend with keys of the team."),
    Field::new("user_role", Type::Text, "admin or user."),
];

/// What else limits a member of a team.
const MEMBER_RATES: &[Field] = &[
    Field::new("tpm_limit", Type::Int, "Tokens a minute of the member's keys of the team."),
    Field::new("rpm_limit", Type::Int, "Requests a minute of the member's keys of the team."),
    Field::new("budget_duration", Type::Text, "Period of the member's budget; the team's otherwise."),
    Field::new(
        "model_max_budget",
        Type::Object,
        "What the member may spend of single models with keys of the team: {\"gpt-4o\": {\"budget_limit\": 1, \"time_period\": \"1d\"}}.",
    ),
];

const OWN: &[Field] = &[
    Field::new("team_alias", Type::Text, "Name to show."),
    Field::new("organization_id", Type::Text, "The organization it is part of."),
    Field::new(
        "team_member_permissions",
        Type::Texts,
        "What members may do with the team's keys, as paths: /key/generate …",
    ),
    Field::new("metadata", Type::Object, "Anything you want to keep with it."),
    Field::new("models", Type::Texts, "Models it may call; none is all."),
    Field::new("blocked", Type::Bool, "Refused whatever it asks."),
    Field::new("model_aliases", Type::Object, "Models asked for and those called instead."),
    Field::new("tags", Type::Texts, "Tags of its requests."),
    Field::new("guardrails", Type::Texts, "Not enforced yet: refused unless it is empty."),
    Field::new("prompts", Type::Texts, "Not enforced yet: refused unless it is empty."),
    Field::new(
        "team_member_budget",
        Type::Money,
        "Dollars that each member may spend with keys of the team.",
    ),
    Field::new(
        "team_member_budget_duration",
        Type::Text,
        "Period after which the spend of members starts again; the team's otherwise.",
    ),
    Field::new("team_member_rpm_limit", Type::Int, "Requests a minute of each member."),
    Field::new("team_member_tpm_limit", Type::Int, "Tokens a minute of each member."),
    Field::new(
        "team_member_key_duration",
        Type::Text,
        "How long keys of members are valid when nothing is said.",
    ),
    Field::new("object_permission", Type::Object, "Not enforced yet: refused unless it is empty."),
];
const NEW: &[Field] = fields::joined!(
    &[
        Field::new("team_id", Type::Text, "Its id; a random one otherwise."),
        Field::new(
            "members_with_roles",
            Type::List,
            "Members: {\"role\": \"admin\" or \"user\", \"user_id\" or \"user_email\"}."
        ),
        Field::new("admins", Type::Texts, "Ids of users who run it (old form)."),
        Field::new("members", Type::Texts, "Ids of its members (old form)."),
    ],
    OWN,
    fields::LIMITS
);
const WHICH: &[Field] = &[Field::required("team_id", Type::Text, "Which.")];
const UPDATE: &[Field] =
    fields::joined!(WHICH, OWN, fields::LIMITS, &[Field::new("spend", Type::Money, "Dollars spent so far.")]);
const DELETE: &[Field] = &[Field::required("team_ids", Type::Texts, "Ids of teams.")];
const MEMBER_ADD: &[Field] = fields::joined!(MEMBER_NEW, MEMBER_RATES);
const MEMBER_NEW: &[Field] = &[
    Field::required("team_id", Type::Text, "Which team."),
    Field::required(
        "member",
        Type::Any,
        "{\"role\": \"admin\" or \"user\", \"user_id\" or \"user_email\"}, or a list of such.",
    ),
    Field::new(
        "max_budget_in_team",
        Type::Money,
        "Dollars that each of them may spend with keys of the team.",
    ),
];
const MEMBER_DELETE: &[Field] = &[
    Field::required("team_id", Type::Text, "Which team."),
    Field::new("user_id", Type::Text, "The member's id."),
    Field::new("user_email", Type::Text, "The member's address."),
];
const MEMBER_UPDATE: &[Field] = fields::joined!(
    MEMBER_DELETE,
    &[
        Field::new(
            "max_budget_in_team",
            Type::Money,
            "Dollars that the member may spend with keys of the team; null is no limit."
        ),
        Field::new("role", Type::Text, "admin or user."),
    ],
    MEMBER_RATES
);
const MODELS: &[Field] = &[
    Field::required("team_id", Type::Text, "Which team."),
    Field::required("models", Type::Texts, "Names of models."),
];
const PERMISSIONS: &[Field] = &[
    Field::required("team_id", Type::Text, "Which team."),
    Field::required("team_member_permissions", Type::Texts, "Paths of key management: /key/generate …"),
];
const LIST: &[Field] = &[
    Field::new("user_id", Type::Text, "That this user is in."),
    Field::new("organization_id", Type::Text, "Of this organization."),
];
const PAGES: &[Field] = fields::joined!(
    LIST,
    &[
        Field::new("team_id", Type::Text, "With this id."),
        Field::new("team_alias", Type::Text, "Whose name has this in it."),
        PAGE,
        Field::new("page_size", Type::Int, "Teams on a page: 10, at most 100."),
        SORT_BY,
        SORT_ORDER,
    ]
);

/// A route that changes something: who may, the handlers say.
macro_rules! post {
    ($path:literal, $summary:literal, $body:expr, $handler:expr) => {
        Route {
            method: "POST",
            paths: &[$path],
            tag: "teams",
            summary: $summary,
            access: Access::InternalUser,
            query: &[],
            body: $body,
            handler: |call| Box::pin($handler(call)),
        }
    };
}

/// A route that shows something: whose, the handlers say.
macro_rules! get {
    ($path:literal, $summary:literal, $query:expr, $handler:expr) => {
        Route {
            method: "GET",
            paths: &[$path],
            tag: "teams",
            summary: $summary,
            access: Access::AnyKey,
            query: $query,
            body: &[],
            handler: |call| Box::pin($handler(call)),
        }
    };
}

/// The routes of this chapter.
pub static ROUTES: &[Route] = &[
    post!("/team/new", "Makes a team; whoever makes it runs it.", NEW, change::new),
    get!("/team/info", "Shows a team with its keys and members.", WHICH, show::info),
    post!("/team/update", "Changes a team; what is not sent stays.", UPDATE, change::update),
    post!("/team/delete", "Removes teams and their keys.", DELETE, change::delete),
    post!("/team/block", "Refuses the keys of a team from now on.", WHICH, change::block),
    post!("/team/unblock", "Lets the keys of a team pass again.", WHICH, change::unblock),
    get!("/team/list", "Lists teams with their keys and members.", LIST, show::list),
    get!("/v2/team/list", "Lists teams page by page.", PAGES, show::pages),
    post!("/team/member_add", "Adds members.", MEMBER_ADD, members::add),
    post!(
        "/team/member_delete",
        "Removes a member and its keys of the team.",
        MEMBER_DELETE,
        members::delete
    ),
    post!("/team/member_update", "Changes a member's limits and role.", MEMBER_UPDATE, members::update),
    post!("/team/model/add", "Lets a team call more models.", MODELS, change::add_models),
    post!("/team/model/delete", "Takes models from a team.", MODELS, change::delete_models),
    get!(
        "/team/permissions_list",
        "Shows what members may do with the team's keys.",
        WHICH,
        show::permissions
    ),
    post!(
        "/team/permissions_update",
        "Says what members may do with the team's keys.",
        PERMISSIONS,
        change::permissions
    ),
];

/// The row of a team, which must exist.
async fn require(connection: &mut AnyConnection, id: &str) -> Result<Record, Problem> {
    rows::get(connection, &TEAMS, &[id])
        .await?
        .ok_or_else(|| Problem::not_found(format!("Team not found, passed team id: {id}."), "team_id"))
}

/// A team as the API shows it.
pub fn shown(row: &Record) -> Record {
    let of = |name: &str| row.get(name).cloned().unwrap_or_default();
    let list =
        |name: &str| row.get(name).filter(|value| value.is_array()).cloned().unwrap_or_else(|| json!([]));
    let aliases = row.get("model_aliases").and_then(Value::as_object).filter(|aliases| !aliases.is_empty());
    let aliases = aliases.map_or(Value::Null, |aliases| json!({"model_aliases": aliases}));
    let mut shown = Record::new();
    for name in ["team_alias", "team_id", "organization_id"] {
        shown.insert(name.to_owned(), of(name));
    }
    for name in ["admins", "members", "members_with_roles", "team_member_permissions"] {
        shown.insert(name.to_owned(), list(name));
    }
    for name in [
        "metadata",
        "tpm_limit",
        "rpm_limit",
        "max_budget",
        "budget_duration",
        "models",
        "blocked",
        "spend",
        "max_parallel_requests",
        "budget_reset_at",
        "model_max_budget",
        "budget_limits",
    ] {
        shown.insert(name.to_owned(), of(name));
    }
    if let Some(usage) = row.get("budget_limits_usage") {
        shown.insert("budget_limits_usage".to_owned(), usage.clone());
    }
    shown.insert("model_id".to_owned(), Value::Null);
    shown.insert("litellm_model_table".to_owned(), aliases);
    for name in ["created_at", "updated_at"] {
        shown.insert(name.to_owned(), of(name));
    }
    shown
}

#[cfg(test)]
mod tests;
