//! Virtual keys: making, showing, changing, blocking, removing them.

mod change;
mod make;
mod remove;
mod show;
mod width;

pub use make::{New, bind, granted, insert};
pub use remove::remove;
pub use show::{LONGEST_ANSWER, without_token};
pub use width::{fill, made};

use serde_json::Value;
use sqlx::AnyConnection;

use super::fields::{self, PAGE, SORT_BY, SORT_ORDER};
use crate::control::ledger::{
    caller::token_of,
    problem::Problem,
    route::{Access, Field, Route, Type},
    rows::{self, Record},
    schema::KEYS,
};

const OWN_VALUE: &[Field] = &[Field::new(
    "key",
    Type::Text,
    "A key of your own making: sk- and what you like. A random one otherwise.",
)];
const GENERATE: &[Field] = fields::joined!(fields::KEY, fields::LIMITS, OWN_VALUE);
const SERVICE: &[Field] = fields::joined!(
    &[Field::required("team_id", Type::Text, "The team whose service account it is.")],
    GENERATE
);
const CHANGES: &[Field] = fields::joined!(
    fields::KEY,
    fields::LIMITS,
    &[
        Field::new("temp_budget_increase", Type::Money, "Dollars on top of max_budget for a while."),
        Field::new("temp_budget_expiry", Type::Text, "Until when."),
    ]
);
const WHICH: &[Field] = &[Field::required("key", Type::Text, "The key or its hash.")];
const UPDATE: &[Field] = fields::joined!(WHICH, CHANGES);
const REGENERATE: &[Field] = fields::joined!(
    &[
        Field::new("key", Type::Text, "The key or its hash, unless the path names it."),
        Field::new("new_key", Type::Text, "The new key: sk- and what you like. A random one otherwise."),
        Field::new(
            "grace_period",
            Type::Text,
            "How long the old value works too, such as 1h; not at all otherwise."
        ),
        Field::new("new_master_key", Type::Text, "Refused: the master key stands in the configuration."),
    ],
    CHANGES
);
const DELETE: &[Field] = &[
    Field::new("keys", Type::Texts, "Keys or their hashes."),
    Field::new("key_aliases", Type::Texts, "Names of keys."),
];
const INFOS: &[Field] = &[Field::required("keys", Type::Texts, "Keys or their hashes.")];
const LIST: &[Field] = &[
    PAGE,
    Field::new("size", Type::Int, "Keys on a page: 10, at most 100."),
    Field::new("user_id", Type::Text, "Of this user."),
    Field::new("team_id", Type::Text, "Of this team."),
    Field::new("organization_id", Type::Text, "Of this organization."),
    Field::new("key_hash", Type::Text, "With this hash."),
    Field::new("key_alias", Type::Text, "With this name."),
    Field::new("expires", Type::Text, "expired: whose time is over; active: all others."),
    Field::new("return_full_object", Type::Bool, "Objects instead of hashes."),
    Field::new("include_team_keys", Type::Bool, "Also keys of the teams that the caller runs."),
    SORT_BY,
    SORT_ORDER,
];

const ALIASES: &[Field] = &[
    PAGE,
    Field::new("size", Type::Int, "Names on a page: 50, at most 100."),
    Field::new("search", Type::Text, "That have this in them."),
    Field::new("user_id", Type::Text, "Of keys of this user."),
    Field::new("team_id", Type::Text, "Of keys of this team."),
];

/// The routes of this chapter.
pub static ROUTES: &[Route] = &[
    Route {
        method: "POST",
        paths: &["/key/generate"],
        tag: "keys",
        summary: "Makes a key. It is shown once: only its hash is kept.",
        access: Access::InternalUser,
        query: &[],
        body: GENERATE,
        handler: |call| Box::pin(make::generate(call)),
    },
    Route {
        method: "POST",
        paths: &["/key/service-account/generate"],
        tag: "keys",
        summary: "Makes a key of a team that is no user's.",
        access: Access::InternalUser,
        query: &[],
        body: SERVICE,
        handler: |call| Box::pin(make::service_account(call)),
    },
    Route {
        method: "POST",
        paths: &["/key/update"],
        tag: "keys",
        summary: "Changes a key; what is not sent stays.",
        access: Access::InternalUser,
        query: &[],
        body: UPDATE,
        handler: |call| Box::pin(change::update(call)),
    },
    Route {
        method: "POST",
        paths: &["/key/delete"],
        tag: "keys",
        summary: "Removes keys: all that are named, or none.",
        access: Access::InternalUser,
        query: &[],
        body: DELETE,
        handler: |call| Box::pin(remove::delete(call)),
    },
    Route {
        method: "GET",
        paths: &["/key/info"],
        tag: "keys",
        summary: "Shows a key; the caller's own when none is named.",
        access: Access::AnyKey,
        query: &[Field::new("key", Type::Text, "The key or its hash.")],
        body: &[],
        handler: |call| Box::pin(show::info(call)),
    },
    Route {
        method: "POST",
        paths: &["/v2/key/info"],
        tag: "keys",
        summary: "Shows several keys; those that do not exist are left out.",
        access: Access::AnyKey,
        query: &[],
        body: INFOS,
        handler: |call| Box::pin(show::infos(call)),
    },
    Route {
        method: "GET",
        paths: &["/key/list"],
        tag: "keys",
        summary: "Lists keys page by page: all for admins, otherwise the caller's.",
        access: Access::AnyKey,
        query: LIST,
        body: &[],
        handler: |call| Box::pin(show::list(call)),
    },
    Route {
        method: "GET",
        paths: &["/key/aliases"],
        tag: "keys",
        summary: "Lists the names of keys page by page: all for admins, otherwise those of the caller's keys.",
        access: Access::AnyKey,
        query: ALIASES,
        body: &[],
        handler: |call| Box::pin(show::aliases(call)),
    },
    Route {
        method: "POST",
        paths: &["/key/{key}/reset_spend"],
        tag: "keys",
        summary: "Sets what a key has spent to less than it is.",
        access: Access::InternalUser,
        query: &[],
        body: &[Field::required(
            "reset_to",
            Type::Money,
            "Dollars: at most what it has spent, and its budget.",
        )],
        handler: |call| Box::pin(change::reset_spend(call)),
    },
    Route {
        method: "POST",
        paths: &["/key/block"],
        tag: "keys",
        summary: "Refuses a key from now on.",
        access: Access::InternalUser,
        query: &[],
        body: WHICH,
        handler: |call| Box::pin(change::block(call, true)),
    },
    Route {
        method: "POST",
        paths: &["/key/unblock"],
        tag: "keys",
        summary: "Lets a key pass again.",
        access: Access::InternalUser,
        query: &[],
        body: WHICH,
        handler: |call| Box::pin(change::block(call, false)),
    },
    Route {
        method: "POST",
        paths: &["/key/regenerate", "/key/{key}/regenerate"],
        tag: "keys",
        summary: "Gives a key a new value; limits and spend stay, what is sent changes.",
        access: Access::InternalUser,
        query: &[],
        body: REGENERATE,
        handler: |call| Box::pin(change::regenerate(call)),
    },
    Route {
        method: "POST",
        paths: &["/key/health"],
        tag: "keys",
        summary: "Says whether the caller's key works, and its logging callbacks.",
        access: Access::AnyKey,
        query: &[],
        body: &[],
        handler: |call| Box::pin(show::health(call)),
    },
];

/// The row of a key that a body or a query names, which must exist.
async fn require(connection: &mut AnyConnection, key: &str) -> Result<Record, Problem> {
    fields::text_fits("key", key)?;
    rows::get(connection, &KEYS, &[&token_of(key)])
        .await?
        .ok_or_else(|| Problem::not_found("Key not found in database", "key"))
}

/// The hash in a key's row.
fn token(row: &Record) -> &str {
    row.get("token").and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
