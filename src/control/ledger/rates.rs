//! Rates between nodes: each says what its own windows hold, and hears what those of all others hold together.
//!
//! None of this has a revision and none of it is needed after a minute.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use sqlx::{AnyConnection, Row as _};

use super::{App, db::DbError, rows, usage::bulk};
use crate::core::ledger::Rate;

/// A node that said nothing for so long is gone, and its requests with it.
const LIVE_MS: i64 = 5_000;
/// Length of a window.
const WINDOW_MS: i64 = 60_000;
/// How often it is written that a node is there.
const BEAT_MS: i64 = 1_000;
/// Nodes that said nothing for so long are forgotten, and with them the number of their last batch.
const FORGET_MS: i64 = 30 * 86_400_000;

/// When nodes were last written down, in Unix milliseconds.
#[derive(Debug, Default)]
pub struct Beats(Mutex<HashMap<String, i64>>);

impl Beats {
    /// Whether it is time to write a node down.
    fn is_due(&self, node: &str, now_ms: i64) -> bool {
        let mut beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if beats.get(node).is_some_and(|last| (0..BEAT_MS).contains(&(now_ms - last))) {
            return false;
        }
        beats.retain(|_, last| now_ms - *last < LIVE_MS);
        beats.insert(node.to_owned(), now_ms);
        true
    }
}

/// Takes a node's rates and notes that it lives.
pub async fn take(app: &App, node: &str, rates: &[Rate], now_ms: i64) -> Result<(), DbError> {
    let beats = app.beats.is_due(node, now_ms);
    if rates.is_empty() && !beats {
        return Ok(());
    }
    let mut tx = app.db.aside().await?;
    if beats {
        rows::run(
            &mut tx,
            "INSERT INTO tollgate_nodes (node, batch, seen_at) VALUES ($1, 0, $2) \
             ON CONFLICT (node) DO UPDATE SET seen_at = excluded.seen_at",
            vec![node.into(), now_ms.into()],
        )
        .await?;
    }
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    // By name: each meter once, in the same order everywhere.
    let sorted: BTreeMap<&str, &Rate> = rates.iter().map(|rate| (rate.meter.as_str(), rate)).collect();
    let all = sorted
        .into_iter()
        .map(|(meter, rate)| {
            let counts = [rate.window_ms, rate.requests, rate.tokens, rate.parallel];
            let counts = counts.into_iter().map(|count| number(count).into());
            [meter.into(), node.into()].into_iter().chain(counts).chain([now_ms.into()]).collect()
        })
        .collect();
    bulk::run(
        &mut tx,
        "INSERT INTO tollgate_rates (meter, node, window_ms, requests, tokens, parallel, seen_at) VALUES {} \
         ON CONFLICT (meter, node) DO UPDATE SET window_ms = excluded.window_ms, requests = excluded.requests, \
         tokens = excluded.tokens, parallel = excluded.parallel, seen_at = excluded.seen_at",
        all,
    )
    .await?;
    Ok(tx.commit().await?)
}

/// How many nodes were heard of lately.
pub async fn nodes(connection: &mut AnyConnection, now_ms: i64) -> Result<u64, DbError> {
    let sql = "SELECT COUNT(*) FROM tollgate_nodes WHERE seen_at > $1";
    let found = rows::rows(connection, sql, vec![(now_ms - LIVE_MS).into()]).await?;
    let count: i64 = found.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
    Ok(u64::try_from(count).unwrap_or_default())
}

/// What all other nodes together have, for each of the meters. The window is that of the latest of them: until it ends,
/// something of it may count.
pub async fn of_others(
    connection: &mut AnyConnection,
    node: &str,
    rates: &[Rate],
    now_ms: i64,
) -> Result<Vec<Rate>, DbError> {
    let mut sums: BTreeMap<String, Rate> = BTreeMap::new();
    let all = rates.iter().map(|rate| vec![rate.meter.as_str().into()]).collect();
    let statement = "SELECT meter, node, window_ms, requests, tokens, parallel, seen_at FROM tollgate_rates \
                     WHERE meter IN (VALUES {})";
    for row in bulk::run(connection, statement, all).await? {
        let number = |at: usize| row.try_get::<i64, _>(at);
        if row.try_get::<String, _>(1)? == node || number(6)? <= now_ms - LIVE_MS {
            continue;
        }
        let meter: String = row.try_get(0)?;
        let sum = sums.entry(meter.clone()).or_insert_with(|| Rate { meter, ..Rate::default() });
        let count = |at: usize| number(at).map(|count| u64::try_from(count).unwrap_or_default());
        sum.parallel = sum.parallel.saturating_add(count(5)?);
        if number(2)? > now_ms - WINDOW_MS {
            sum.window_ms = sum.window_ms.max(count(2)?);
            sum.requests = sum.requests.saturating_add(count(3)?);
            sum.tokens = sum.tokens.saturating_add(count(4)?);
        }
    }
    let empty = |rate: &Rate| Rate { meter: rate.meter.clone(), ..Rate::default() };
    Ok(rates.iter().map(|rate| sums.get(&rate.meter).cloned().unwrap_or_else(|| empty(rate))).collect())
}

/// Forgets what no longer counts.
pub async fn prune(app: &App, now_ms: i64) -> Result<(), DbError> {
    let mut tx = app.db.aside().await?;
    let gone = vec![(now_ms - 2 * WINDOW_MS).into()];
    rows::run(&mut tx, "DELETE FROM tollgate_rates WHERE seen_at < $1", gone).await?;
    let gone = vec![(now_ms - FORGET_MS).into()];
    rows::run(&mut tx, "DELETE FROM tollgate_nodes WHERE seen_at < $1", gone).await?;
    Ok(tx.commit().await?)
}
