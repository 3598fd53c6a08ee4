//! Former values of keys: usage that was under way when a key got a new value finds its row, and a former value can stay good
//! for a while (`grace_period`).
//!
//! What counts for a key goes by the hash that it had first (`first_token`), so that budgets and windows go on, whatever value
//! it has now.

use std::collections::BTreeMap;

use sqlx::{AnyConnection, Row as _};

use super::{
    bulk,
    db::DbError,
    rows::{self, Stored},
};

/// How long a former value is remembered: requests take minutes, nodes that cannot reach the ledger keep usage for hours.
const KEPT_MS: i64 = 7 * 86_400_000;

/// A key has a new value. Until `good_until_ms` it goes by the old one too.
pub async fn replace(
    connection: &mut AnyConnection,
    old: &str,
    new: &str,
    good_until_ms: Option<i64>,
    now_ms: i64,
) -> Result<(), DbError> {
    let first = "UPDATE tollgate_keys SET first_token = COALESCE(first_token, $1) WHERE token = $2";
    rows::run(connection, first, vec![old.into(), new.into()]).await?;
    let follow = "UPDATE tollgate_former_keys SET current_token = $1 WHERE current_token = $2";
    rows::run(connection, follow, vec![new.into(), old.into()]).await?;
    // It may have had this value before.
    rows::run(connection, "DELETE FROM tollgate_former_keys WHERE token = $1", vec![new.into()]).await?;
    let insert = "INSERT INTO tollgate_former_keys (token, current_token, good_until, replaced_at) \
                  VALUES ($1, $2, $3, $4)";
    let values = vec![old.into(), new.into(), good_until_ms.into(), now_ms.into()];
    rows::run(connection, insert, values).await?;
    Ok(())
}

/// Whether a hash is a former one of another key than `of`: a value that was replaced is nobody's any more.
pub async fn is_taken(connection: &mut AnyConnection, hash: &str, of: &str) -> Result<bool, DbError> {
    let sql = "SELECT token FROM tollgate_keys WHERE first_token = $1 AND token <> $2 UNION ALL \
               SELECT current_token FROM tollgate_former_keys WHERE token = $1 AND current_token <> $2";
    Ok(!rows::rows(connection, sql, vec![hash.into(), of.into()]).await?.is_empty())
}

/// A former value that is still good: the key's hash now, and until when (Unix milliseconds).
pub async fn good(
    connection: &mut AnyConnection,
    hash: &str,
    now_ms: i64,
) -> Result<Option<(String, i64)>, DbError> {
    let sql =
        "SELECT current_token, good_until FROM tollgate_former_keys WHERE token = $1 AND good_until > $2";
    let found = rows::rows(connection, sql, vec![hash.into(), now_ms.into()]).await?;
    found.first().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}

/// All former values that may still be good.
pub async fn all_good(connection: &mut AnyConnection, now_ms: i64) -> Result<Vec<String>, DbError> {
    let sql = "SELECT token FROM tollgate_former_keys WHERE good_until > $1";
    let found = rows::rows(connection, sql, vec![now_ms.into()]).await?;
    found.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// The hashes that keys have now, by former ones.
pub async fn current(
    connection: &mut AnyConnection,
    hashes: impl Iterator<Item = &str>,
) -> Result<BTreeMap<String, String>, DbError> {
    let all: Vec<Vec<Stored>> = hashes.map(|hash| vec![hash.into()]).collect();
    let sql = "SELECT token, current_token FROM tollgate_former_keys WHERE token IN (VALUES {})";
    let mut found = BTreeMap::new();
    for row in bulk::run(connection, sql, all).await? {
        found.insert(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(found)
}

/// Forgets what nobody can need any more.
pub async fn prune(connection: &mut AnyConnection, now_ms: i64) -> Result<(), DbError> {
    let sql = "DELETE FROM tollgate_former_keys WHERE replaced_at < $1 AND (good_until IS NULL OR good_until <= $2)";
    rows::run(connection, sql, vec![now_ms.saturating_sub(KEPT_MS).into(), now_ms.into()]).await?;
    Ok(())
}

/// Removes what is left of keys that are removed: their former values, and what their models cost. Gives the hashes that count
/// for them.
pub async fn remove(connection: &mut AnyConnection, tokens: &[&str]) -> Result<(), DbError> {
    let ids = || tokens.iter().map(|token| vec![Stored::from(*token)]).collect::<Vec<_>>();
    let sql = "SELECT COALESCE(first_token, token) FROM tollgate_keys WHERE token IN (VALUES {}) \
               AND (model_max_budget IS NOT NULL AND model_max_budget <> '{}' OR budget_limits IS NOT NULL)";
    for row in bulk::run(connection, sql, ids()).await? {
        let counted = row.try_get::<String, _>(0)?;
        for kind in ["key_model", "key_window"] {
            let all = format!("{kind}:{counted}/%");
            rows::run(connection, "DELETE FROM tollgate_windows WHERE meter LIKE $1", vec![all.into()])
                .await?;
        }
    }
    let sql = "DELETE FROM tollgate_former_keys WHERE current_token IN (VALUES {})";
    bulk::run(connection, sql, ids()).await?;
    Ok(())
}
