//! Who calls the management API: the key of the request, and whose it is.

use axum::http::HeaderMap;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::AnyConnection;
use subtle::ConstantTimeEq;

use super::{
    App,
    db::DbError,
    problem::Problem,
    rows::{self, Record},
    schema::{KEYS, USERS},
};
use crate::core::{
    access::{self, grant::Role},
    config::Config,
    headers::Headers,
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
    /// The user's role. A key without a user is an internal user's.
    pub role: Role,
}

impl Caller {
    /// The role.
    pub fn role(&self) -> Role {
        match self {
            Caller::Master => Role::ProxyAdmin,
            Caller::Key(holder) => holder.role,
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
pub async fn identify(app: &App, headers: &HeaderMap, now_ms: i64) -> Result<Caller, Problem> {
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
        return Err(access::refuse(key, &hash).into());
    }
    let mut connection = app.db.read().await?;
    let Some(record) = rows::get(&mut connection, &KEYS, &[&hash]).await? else {
        return Err(access::refuse(key, &hash).into());
    };
    holder(&mut connection, record, now_ms).await
}

async fn holder(connection: &mut AnyConnection, key: Record, now_ms: i64) -> Result<Caller, Problem> {
    if key.get("blocked") == Some(&Value::Bool(true)) {
        return Err(Problem::auth("Key is blocked. Update via `/key/unblock` if you're admin."));
    }
    if let Some(expires) = key.get("expires").and_then(rows::time).filter(|expires| *expires < now_ms) {
        let (expires, now) = (rows::time_text(expires), rows::time_text(now_ms));
        let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
        return Err(crate::core::error::Error::new(
            400,
            format!(
                "Authentication Error - Expired Key. Key Expiry time {} and current time {}",
                text(expires),
                text(now)
            ),
        )
        .with_kind("expired_key")
        .into());
    }
    let user = match key.get("user_id").and_then(Value::as_str) {
        Some(id) => rows::get(connection, &USERS, &[id]).await?,
        None => None,
    };
    let role = user.as_ref().and_then(|user| user.get("user_role")).map(role_of).unwrap_or_default();
    Ok(Caller::Key(Box::new(Holder { key, user, role })))
}

/// A role as stored; anything unknown may do the least that makes sense.
pub fn role_of(value: &Value) -> Role {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

/// A user's row.
pub async fn user(connection: &mut AnyConnection, id: &str) -> Result<Option<Record>, DbError> {
    rows::get(connection, &USERS, &[id]).await
}

/// Whether there is a master key: without one everybody is admin.
pub fn is_open(config: &Config) -> bool {
    config.general.master_key.is_none()
}
