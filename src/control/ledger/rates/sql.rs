//! Rates in the database.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use sqlx::{AnyConnection, Row as _, any::AnyRow};

use super::{LIVE_MS, Sums, WINDOW_MS};
use crate::{
    control::ledger::{App, bulk, db::DbError, rows},
    core::model::rate::Rate,
};

/// How often it is written that a node is there.
const BEAT_MS: i64 = 1_000;
/// Nodes that said nothing for so long are forgotten, and with them the number of their last batch.
const FORGET_MS: i64 = 30 * 86_400_000;
/// What [`rate`] reads.
const COLUMNS: &str = "meter, node, window_ms, requests, tokens, parallel, seen_at";

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

/// Takes a node's rates (each meter once) and notes that it lives.
pub async fn take(app: &App, node: &str, rates: &[&Rate], now_ms: i64) -> Result<(), DbError> {
    let beats = app.rates.beats.is_due(node, now_ms);
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
    let all = rates
        .iter()
        .map(|rate| {
            let counts = [rate.window_ms, rate.requests, rate.tokens, rate.parallel, rate.place.into()];
            let counts = counts.into_iter().map(|count| number(count).into());
            [rate.meter.as_str().into(), node.into()]
                .into_iter()
                .chain(counts)
                .chain([now_ms.into()])
                .collect()
        })
        .collect();
    bulk::run(
        &mut tx,
        "INSERT INTO tollgate_rates (meter, node, window_ms, requests, tokens, parallel, place, seen_at) \
         VALUES {} ON CONFLICT (meter, node) DO UPDATE SET window_ms = excluded.window_ms, \
         requests = excluded.requests, tokens = excluded.tokens, parallel = excluded.parallel, \
         place = excluded.place, seen_at = excluded.seen_at",
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

/// Adds what all other nodes have, for each of the meters and for all deployments.
pub async fn add_others(
    connection: &mut AnyConnection,
    node: &str,
    rates: &[&Rate],
    sums: &mut Sums<'_>,
) -> Result<(), DbError> {
    let since_ms = sums.now_ms - LIVE_MS;
    let asked = rates.iter().map(|rate| vec![rate.meter.as_str().into()]).collect();
    let statement = format!("SELECT {COLUMNS} FROM tollgate_rates WHERE meter IN (VALUES {{}})");
    for row in bulk::run(connection, &statement, asked).await? {
        if row.try_get::<i64, _>(6)? > since_ms {
            rate(&row, node)?.into_iter().for_each(|rate| sums.add(rate));
        }
    }
    let statement = format!("SELECT {COLUMNS} FROM tollgate_rates WHERE place = 1 AND seen_at > $1");
    for row in rows::rows(connection, &statement, vec![since_ms.into()]).await? {
        rate(&row, node)?.into_iter().for_each(|rate| sums.add_place(rate));
    }
    Ok(())
}

/// What a row says; nothing when it is the node's own.
fn rate(row: &AnyRow, node: &str) -> Result<Option<Rate>, DbError> {
    if row.try_get::<String, _>(1)? == node {
        return Ok(None);
    }
    let count = |at: usize| row.try_get::<i64, _>(at).map(|count| u64::try_from(count).unwrap_or_default());
    Ok(Some(Rate {
        meter: row.try_get(0)?,
        window_ms: count(2)?,
        requests: count(3)?,
        tokens: count(4)?,
        parallel: count(5)?,
        place: false,
    }))
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
