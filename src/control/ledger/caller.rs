//! Who calls the management API: the key of the request, and whose it is.

use axum::http::HeaderMap;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::AnyConnection;
use subtle::ConstantTimeEq;

use super::{
    App,
    db::DbError,
    former, grants,
    problem::Problem,
    rows::{self, Record},
    schema::{KEYS, USERS},
};
use crate::core::{
    access,
    config::Config,
    headers::Headers,
    model::key_record::{KeyRecord, Role},
};

/// The caller of a management call.
#[derive(Clone, Debug)]
pub enum Caller {
    /// The master key, or anybody when there is none.
    Master,
    /// A virtual key.
    Key(Box<Holder>),
}

/// Whose key it is.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The key's row.
    pub key: Record,
    /// The user's row, when the key has a user and it exists.
    pub user: Option<Record>,
    /// The key as calls are judged by it: the role of its user, its limits, those of whoever it belongs to.
    pub grant: KeyRecord,
}

impl Caller {
    /// The role.
    pub fn role(&self) -> Role {
        match self {
            Caller::Master => Role::ProxyAdmin,
            Caller::Key(holder) => holder.grant.role,
        }
    }

    /// May it do everything?
    pub fn is_admin(&self) -> bool {
        self.role() == Role::ProxyAdmin
    }

    /// May it see everything?
    pub fn may_see_all(&self) -> bool {
        matches!(self.role(), Role::ProxyAdmin | Role::ProxyAdminViewer)
    }

    /// The user's id: LiteLLM's name for the admin, the id of the key's user, or none.
    pub fn user_id(&self) -> Option<&str> {
        match self {
            Caller::Master => Some("default_user_id"),
            Caller::Key(holder) => holder.key.get("user_id").and_then(Value::as_str),
        }
    }

    /// Hash of the key.
    pub fn token(&self) -> Option<&str> {
        match self {
            Caller::Master => None,
            Caller::Key(holder) => holder.key.get("token").and_then(Value::as_str),
        }
    }

    /// The team of the key.
    pub fn team_id(&self) -> Option<&str> {
        match self {
            Caller::Master => None,
            Caller::Key(holder) => holder.key.get("team_id").and_then(Value::as_str),
        }
    }
}

/// SHA-256 in lower-case hexadecimal.
pub fn hash(text: &str) -> String {
    access::hash(text.as_bytes())
}

/// The hash of a key that a body or query names: a raw key is hashed, a hash is itself.
pub fn token_of(key: &str) -> String {
    if key.starts_with("sk-") { hash(key) } else { key.to_owned() }
}

/// Reads the key of a request and says whose it is.
pub async fn identify(app: &App, headers: &HeaderMap) -> Result<Caller, Problem> {
    let config = app.config();
    let Some(master) = &config.general.master_key else { return Ok(Caller::Master) };
    let headers: Headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let key = access::presented(&headers, &config.general)?;
    let (given, wanted) = (Sha256::digest(key), Sha256::digest(master.reveal().as_bytes()));
    if bool::from(given.as_slice().ct_eq(wanted.as_slice())) {
        return Ok(Caller::Master);
    }
    let hash = access::hash(key);
    if !key.starts_with(b"sk-") {
        return Err(access::rejection(key, &hash).into());
    }
    if !grants::is_known(app, &hash).await? {
        return Err(access::rejection(key, &hash).into());
    }
    let mut connection = app.db.read().await?;
    let mut record = rows::get(&mut connection, &KEYS, &[&hash]).await?;
    if record.is_none()
        && let Some((current, _)) = former::good(&mut connection, &hash, app.now_ms()).await?
    {
        record = rows::get(&mut connection, &KEYS, &[&current]).await?;
    }
    let Some(record) = record else {
        return Err(access::rejection(key, &hash).into());
    };
    let user = match record.get("user_id").and_then(Value::as_str) {
        Some(id) => rows::get(&mut connection, &USERS, &[id]).await?,
        None => None,
    };
    drop(connection);
    let Some(grant) = grants::read(app, &hash).await? else {
        return Err(access::rejection(key, &hash).into());
    };
    Ok(Caller::Key(Box::new(Holder { key: record, user, grant })))
}

/// The role of a user as stored; what is none is an internal user's. (Who is no user has none.)
pub fn role_of(value: &Value) -> Role {
    serde_json::from_value(value.clone()).unwrap_or(Role::InternalUser)
}

/// A user's row.
pub async fn user(connection: &mut AnyConnection, id: &str) -> Result<Option<Record>, DbError> {
    rows::get(connection, &USERS, &[id]).await
}

/// Whether there is a master key: without one everybody is admin.
pub fn is_open(config: &Config) -> bool {
    config.general.master_key.is_none()
}
