//! Statements over many rows at a time. One round trip for two hundred rows is what makes a batch of a thousand calls cheap.

use sqlx::{AnyConnection, AssertSqlSafe, any::AnyRow};

use crate::control::ledger::{db::DbError, rows::Stored};

/// Rows of one statement; SQLite takes at most 32,766 values, and no table here has more than 30 columns.
pub const ROWS: usize = 200;

/// Runs `statement` for every [`ROWS`] rows (each of the same number of values), with `($1, $2), ($3, $4)` for its `{}`.
/// Gives the rows that come back.
pub async fn run(
    connection: &mut AnyConnection,
    statement: &str,
    all: Vec<Vec<Stored>>,
) -> Result<Vec<AnyRow>, DbError> {
    let mut back = Vec::new();
    let mut all = all.into_iter().peekable();
    while all.peek().is_some() {
        let some: Vec<Vec<Stored>> = all.by_ref().take(ROWS).collect();
        let sql = statement.replacen("{}", &marks(&some), 1);
        // Statements of the common sizes stay prepared; those of the many others would only fill the cache.
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(matches!(some.len(), 1 | 2 | ROWS));
        for value in some.into_iter().flatten() {
            query = match value {
                Stored::Text(text) => query.bind(text),
                Stored::Int(number) => query.bind(number),
            };
        }
        back.extend(query.fetch_all(&mut *connection).await?);
    }
    Ok(back)
}

fn marks(rows: &[Vec<Stored>]) -> String {
    let mut text = String::new();
    let mut at = 0;
    for row in rows {
        text.push_str(if at == 0 { "(" } else { ", (" });
        for (column, _) in row.iter().enumerate() {
            at += 1;
            text.push_str(&format!("{}${at}", if column == 0 { "" } else { ", " }));
        }
        text.push(')');
    }
    text
}

/// The sum of two numbers in SQL that stays at the largest number instead of failing (Postgres) or becoming inexact
/// (SQLite). Both must be above the least number.
pub fn sum(a: &str, b: &str) -> String {
    const MAX: i64 = i64::MAX;
    format!(
        "CASE WHEN {b} > 0 AND {a} > {MAX} - {b} THEN {MAX} WHEN {b} < 0 AND {a} < -{MAX} - {b} THEN -{MAX} ELSE {a} + {b} END"
    )
}
