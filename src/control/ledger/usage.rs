//! Usage from Envoy: batches are applied once, totals and changes go back.
//!
//! | module | what it does |
//! |---|---|
//! | [`bounded`] | texts of clients made to fit |
//! | [`sums`] | what a batch adds to the spend of keys, users, teams, … |
//! | [`logs`] | a row for each call, and sums by day |
//! | [`feed`] | what changed since a revision, with the spend of each meter |

pub mod bounded;
pub mod feed;
pub mod logs;
pub mod sums;

use std::collections::BTreeSet;

use serde_json::json;
use sqlx::Row as _;

use super::{App, alerts::Crossing, db::DbError, grants, log, problem::Problem, rates, rows};
use crate::core::protocol::{Batch, SyncReply, SyncRequest};

/// Answers one call of a node.
pub async fn sync(app: &App, request: &SyncRequest) -> Result<SyncReply, Problem> {
    if request.node.is_empty() || request.node.len() > 200 {
        return Err(Problem::Detail(400, json!("`node` must name the Envoy process, in at most 200 bytes")));
    }
    let now_ms = app.now_ms();
    let mut budgeted_meters = BTreeSet::new();
    if let Some(batch) = &request.batch {
        apply(app, &request.node, batch, now_ms).await?;
        budgeted_meters.extend(
            sums::events(batch).flat_map(|(event, _)| event.budgeted_meters.iter().map(String::as_str)),
        );
    }
    let heard = rates::exchange(app, &request.node, &request.rates, now_ms).await?;
    let (mut tx, revision) = app.db.snapshot().await?;
    let acknowledged = newest(&mut tx, &request.node).await?;
    let lazy_ms = (!app.config().ledger.disable_reset_budget).then_some(now_ms);
    let page = feed::page(&mut tx, request.cursor, revision, &budgeted_meters, lazy_ms).await?;
    let reply = SyncReply {
        acknowledged: u64::try_from(acknowledged.unwrap_or(0)).unwrap_or_default(),
        cursor: page.cursor,
        changes: page.changes,
        reset: page.reset,
        more: page.more,
        nodes: heard.nodes.max(1),
        rates: heard.rates,
        end_users: grants::end_users_matter(app, &mut tx).await?,
        health: app.checks.verdict(&app.config().ledger.health, now_ms),
    };
    drop(tx);
    know(app, &reply).await?;
    Ok(reply)
}

/// Takes over what the node is about to hear: when it asks for a key that another ledger made, this one has heard of it too.
async fn know(app: &App, reply: &SyncReply) -> Result<(), DbError> {
    let known = app.db.known();
    if reply.reset {
        return known.refresh(&app.db).await;
    }
    known.note(reply.changes.iter().filter(|change| change.record).map(|change| change.meter.as_str()));
    Ok(())
}

/// Applies a batch, unless it is applied already. After this it is in the database for good.
async fn apply(app: &App, node: &str, batch: &Batch, now_ms: i64) -> Result<(), DbError> {
    let number = i64::try_from(batch.number).unwrap_or(i64::MAX);
    let config = app.config();
    // Every transaction that writes begins with the same row: no two ledgers apply the same batch at the same time.
    let mut tx = app.db.write().await?;
    let last = newest(tx.connection(), node).await?;
    if last.is_some_and(|last| number <= last) {
        return Ok(());
    }
    if number > last.unwrap_or(0).saturating_add(1) {
        log(&format!(
            "node {node}: batch {number} follows batch {}: what was between is in a database that is no longer here",
            last.unwrap_or(0)
        ));
    }
    rows::run(
        tx.connection(),
        "INSERT INTO tollgate_nodes (node, batch, seen_at) VALUES ($1, $2, $3) \
         ON CONFLICT (node) DO UPDATE SET batch = excluded.batch, seen_at = excluded.seen_at",
        vec![node.into(), number.into(), now_ms.into()],
    )
    .await?;
    let batch = &bounded::batch(batch);
    let crossings: Vec<Crossing> = sums::apply(&mut tx, &config, batch, now_ms).await?;
    if !config.ledger.disable_spend_logs {
        logs::write(tx.connection(), &batch.events, !config.ledger.disable_error_logs).await?;
    }
    logs::sum(tx.connection(), batch).await?;
    tx.commit().await?;
    app.alerts.tell(crossings, now_ms);
    Ok(())
}

/// The newest batch of a node that is applied; none when the node is new.
async fn newest(connection: &mut sqlx::AnyConnection, node: &str) -> Result<Option<i64>, DbError> {
    let sql = "SELECT batch FROM tollgate_nodes WHERE node = $1";
    let found = rows::rows(connection, sql, vec![node.into()]).await?;
    Ok(found.first().map(|row| row.try_get(0)).transpose()?)
}

#[cfg(test)]
mod tests;
