//! Reading LiteLLM's Postgres: tables in pages, rows as JSON, everything as it was at one moment.

use serde_json::Value;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor, Row as _};

use crate::control::ledger::{
    db::DbError,
    rows::{self, Record},
};

/// Rows read at a time.
const PAGE: usize = 2_000;

/// LiteLLM's database.
pub struct Source {
    connection: AnyConnection,
    /// Where its tables are, quoted.
    schema: String,
}

/// How far a table is read.
pub struct Pages {
    table: String,
    /// The last key of the last page.
    last: Option<Vec<Value>>,
    is_over: bool,
}

impl Source {
    /// Connects.
    pub async fn open(url: &str) -> Result<Source, DbError> {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(url).await?;
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let schema = schema(url);
        let quoted = format!("\"{}\"", schema.replace('"', "\"\""));
        Ok(Source { connection, schema: quoted })
    }

    /// Whether there is any table of LiteLLM.
    pub async fn is_litellms(&mut self) -> Result<bool, DbError> {
        let sql = "SELECT COUNT(*) FROM pg_catalog.pg_tables \
                   WHERE starts_with(tablename, 'LiteLLM_') AND '\"' || schemaname || '\"' = $1";
        let found = rows::rows(&mut self.connection, sql, vec![self.schema.as_str().into()]).await?;
        Ok(found.first().map(|row| row.try_get::<i64, _>(0)).transpose()?.is_some_and(|count| count > 0))
    }

    /// Whether a Postgres database has a ledger's tables.
    pub async fn has_ledger(url: &str) -> Result<bool, DbError> {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(url).await?;
        let sql = "SELECT COUNT(*) FROM pg_catalog.pg_tables WHERE tablename = 'tollgate_state'";
        let found = connection.fetch_one(sql).await?.try_get::<i64, _>(0)? > 0;
        connection.close().await?;
        Ok(found)
    }

    /// Begins to read a table, when there is one of this name.
    pub async fn table(&mut self, name: &str) -> Result<Option<Pages>, DbError> {
        Ok(self.count(name).await?.map(|_| Pages { table: name.to_owned(), last: None, is_over: false }))
    }

    /// How many rows a table has; none when there is no such table.
    pub async fn count(&mut self, name: &str) -> Result<Option<i64>, DbError> {
        let sql = "SELECT COUNT(*) FROM pg_catalog.pg_tables WHERE tablename = $1 AND '\"' || schemaname || '\"' = $2";
        let values = vec![name.into(), self.schema.as_str().into()];
        let found = rows::rows(&mut self.connection, sql, values).await?;
        if found.first().map(|row| row.try_get::<i64, _>(0)).transpose()? != Some(1) {
            return Ok(None);
        }
        let sql = format!("SELECT COUNT(*) FROM {}.\"{name}\"", self.schema);
        Ok(Some(self.connection.fetch_one(AssertSqlSafe(sql)).await?.try_get(0)?))
    }

    /// The next rows of a table by its key; none when all were read.
    pub async fn page(&mut self, pages: &mut Pages, key: &[&str]) -> Result<Option<Vec<Record>>, DbError> {
        if pages.is_over {
            return Ok(None);
        }
        // Keys are compared as text, whatever their type.
        let columns: Vec<String> =
            key.iter().map(|name| format!("(t.\"{name}\")::text COLLATE \"C\"")).collect();
        let columns = columns.join(", ");
        let mut sql = format!("SELECT row_to_json(t)::text FROM {}.\"{}\" t", self.schema, pages.table);
        let mut values = Vec::new();
        if let Some(last) = &pages.last {
            let marks: Vec<String> = (1..=key.len()).map(|at| format!("${at}")).collect();
            sql.push_str(&format!(" WHERE ({columns}) > ({})", marks.join(", ")));
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            values = last.iter().map(|value| text(value).into()).collect();
        }
        sql.push_str(&format!(" ORDER BY {columns} LIMIT {PAGE}"));
        let mut found: Vec<Record> = Vec::new();
        for row in rows::rows(&mut self.connection, &sql, values).await? {
            let text: String = row.try_get(0)?;
            if let Ok(Value::Object(record)) = serde_json::from_str(&text) {
                found.push(record);
            }
        }
        pages.is_over = found.len() < PAGE;
        let of =
            |record: &Record| key.iter().map(|name| record.get(*name).cloned().unwrap_or_default()).collect();
        pages.last = found.last().map(of);
        Ok((!found.is_empty()).then_some(found))
    }
}

/// Prisma's parameter `schema`, which says where the tables are.
fn schema(url: &str) -> String {
    let query = url.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let pairs = crate::control::ledger::serve::form(query);
    pairs
        .into_iter()
        .find(|(name, _)| name == "schema")
        .map_or_else(|| "public".to_owned(), |(_, value)| value)
}
