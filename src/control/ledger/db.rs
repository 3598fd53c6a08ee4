//! The database: SQLite or Postgres behind one set of statements.
//!
//! Only TEXT and BIGINT columns are used, and only statements that both understand, so there is one code and one suite of
//! tests. Every transaction that writes takes the next revision first. The row that holds it is locked until the
//! transaction ends, so revisions become visible in order: whoever has seen revision 7 has missed nothing up to 7.

use std::{collections::BTreeMap, path::Path, str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    Any, AnyConnection, AnyPool, AssertSqlSafe, Executor, Row, Transaction,
    any::{AnyConnectOptions, AnyPoolOptions},
    pool::PoolConnection,
};

use super::{bulk, grants::Known, schema};
use crate::control::Failure;

/// How long to wait for a connection, or for another writer of an SQLite file.
const WAIT: Duration = Duration::from_secs(10);

/// A database that is migrated and ready.
#[derive(Clone, Debug)]
pub struct Db {
    read: AnyPool,
    write: AnyPool,
    postgres: bool,
    known: Arc<Known>,
}

/// What went wrong in the database. Its text never holds values.
#[derive(Debug)]
pub enum DbError {
    /// It cannot be reached, or it was slow beyond reason.
    Unavailable(String),
    /// A statement failed.
    Statement(String),
    /// A row with this key is there already.
    Duplicate,
}

impl std::fmt::Display for DbError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DbError::Unavailable(text) => write!(f, "the database is not reachable: {text}"),
            DbError::Statement(text) => write!(f, "the database refused a statement: {text}"),
            DbError::Duplicate => f.write_str("a row with this key is there already"),
        }
    }
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> DbError {
        match &error {
            sqlx::Error::Database(inner) if inner.is_unique_violation() => DbError::Duplicate,
            // Postgres puts values into details, not into the message.
            sqlx::Error::Database(inner) => DbError::Statement(inner.message().to_owned()),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => DbError::Unavailable(error.to_string()),
            _ => DbError::Statement(error.to_string()),
        }
    }
}

impl Db {
    /// Opens (or makes) an SQLite file.
    pub async fn sqlite(path: &Path) -> Result<Db, DbError> {
        let url = format!("sqlite://{}?mode=rwc", path.display());
        // Readers see the last commit while the one writer works.
        let write = pool(&url, 1, SQLITE_SETTINGS).await?;
        schema::migrate(&write).await?;
        let read = pool(&url, 4, SQLITE_SETTINGS).await?;
        Ok(Db { read, write, postgres: false, known: Arc::default() })
    }

    /// Connects to Postgres. Several ledgers may do so at the same moment: migrations take a lock.
    pub async fn postgres(url: &str, connections: u32) -> Result<Db, DbError> {
        let both = pool(url, connections.max(2), &[]).await?;
        schema::migrate(&both).await?;
        Ok(Db { read: both.clone(), write: both, postgres: true, known: Arc::default() })
    }

    /// Opens what a configuration names: a Postgres URL, else the SQLite file.
    pub async fn open(url: Option<&str>, connections: u32, file: &Path) -> Result<Db, Failure> {
        let result = match url {
            Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                Db::postgres(url, connections).await
            }
            Some(_) => {
                return Err(Failure::configuration(
                    "`general_settings.database_url` (or DATABASE_URL) must start with postgresql://; \
                     without it the ledger keeps an SQLite file in its state directory",
                ));
            }
            None => Db::sqlite(file).await,
        };
        result.map_err(|error| Failure::running(format!("ledger: {error}")))
    }

    /// Whether this is Postgres (the statements of the two differ in a few places).
    pub fn is_postgres(&self) -> bool {
        self.postgres
    }

    /// A connection to read with.
    pub async fn read(&self) -> Result<PoolConnection<Any>, DbError> {
        Ok(self.read.acquire().await?)
    }

    /// What is remembered of the records in it, kept up by every transaction that commits here.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Begins a transaction that reads: everything in it is as it was at one moment. Also gives the revision of that moment.
    pub async fn snapshot(&self) -> Result<(Transaction<'static, Any>, i64), DbError> {
        let begin = if self.postgres { "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" } else { "BEGIN" };
        let mut tx = self.read.begin_with(begin).await?;
        let row = tx.fetch_one("SELECT revision FROM tollgate_state WHERE id = 1").await?;
        let revision = row.try_get::<i64, _>(0)?;
        Ok((tx, revision))
    }

    /// Begins a transaction that writes what has no revision: rates, when nodes were seen, old logs that go.
    pub async fn aside(&self) -> Result<Transaction<'static, Any>, DbError> {
        Ok(self.write.begin().await?)
    }

    /// Begins a transaction that writes.
    pub async fn write(&self) -> Result<Tx, DbError> {
        let mut tx = self.write.begin().await?;
        let row = tx
            .fetch_one("UPDATE tollgate_state SET revision = revision + 1 WHERE id = 1 RETURNING revision")
            .await?;
        let revision = row.try_get::<i64, _>(0)?;
        Ok(Tx { tx, revision, changes: BTreeMap::new(), known: Arc::clone(&self.known) })
    }

    /// Closes all connections; SQLite then folds its log into the file.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

/// A transaction with the revision it makes. Dropped without [`Tx::commit`], it has changed nothing.
pub struct Tx {
    tx: Transaction<'static, Any>,
    revision: i64,
    changes: BTreeMap<String, bool>,
    known: Arc<Known>,
}

impl Tx {
    /// The connection to run statements on.
    pub fn connection(&mut self) -> &mut AnyConnection {
        &mut self.tx
    }

    /// The revision that this transaction makes.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Notes that the record behind a meter has changed (limits, models, owner, deleted …): copies of it are stale.
    pub fn record_changed(&mut self, meter: impl Into<String>) {
        self.note(meter.into(), true);
    }

    /// Notes that the spend of a meter has changed.
    pub fn spend_changed(&mut self, meter: impl Into<String>) {
        self.note(meter.into(), false);
    }

    fn note(&mut self, meter: String, record: bool) {
        *self.changes.entry(meter).or_default() |= record;
    }

    /// Writes the change feed and commits. Returns the meters whose records changed, for
    /// [`CHANGED_HEADER`](crate::core::ledger::CHANGED_HEADER).
    pub async fn commit(mut self) -> Result<Vec<String>, DbError> {
        let revision = self.revision;
        let rows = self.changes.iter().map(|(meter, record)| {
            vec![meter.as_str().into(), revision.into(), (if *record { revision } else { 0 }).into()]
        });
        bulk::run(
            &mut self.tx,
            "INSERT INTO tollgate_changes (meter, revision, record_revision) VALUES {} \
             ON CONFLICT (meter) DO UPDATE SET revision = excluded.revision, record_revision = \
             CASE WHEN excluded.record_revision > 0 THEN excluded.record_revision \
             ELSE tollgate_changes.record_revision END",
            rows.collect(),
        )
        .await?;
        self.tx.commit().await?;
        let changed: Vec<String> =
            self.changes.into_iter().filter(|(_, record)| *record).map(|(meter, _)| meter).collect();
        self.known.note(changed.iter().map(String::as_str));
        Ok(changed)
    }
}

/// Each connection of an SQLite file: a log beside the file, synced at checkpoints, and patience with other writers.
const SQLITE_SETTINGS: &[&str] =
    &["PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", "PRAGMA busy_timeout = 10000"];

async fn pool(url: &str, connections: u32, settings: &'static [&'static str]) -> Result<AnyPool, DbError> {
    sqlx::any::install_default_drivers();
    let options = AnyConnectOptions::from_str(url)?;
    Ok(AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(WAIT)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                for setting in settings {
                    connection.execute(AssertSqlSafe(*setting)).await?;
                }
                Ok(())
            })
        })
        .connect_with(options)
        .await?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{
        rows::{self, Select, Where},
        schema::KEYS,
        testing::{self, on_each},
    };
    use super::*;

    #[test]
    fn rows_come_back_as_they_were() {
        on_each("", |ledger| async move {
            let record = json!({
                "token": "t1", "key_alias": "a'lias", "spend": 0.000_000_012_345, "max_budget": 10.5,
                "models": ["gpt-4", "openai/*"], "metadata": {"a": [1, {"b": null}]}, "blocked": true,
                "tpm_limit": 9_007_199_254_740_993_i64, "expires": "2026-01-15T12:00:00.25Z", "user_id": null,
            });
            let record = record.as_object().unwrap().clone();
            let mut tx = ledger.app.db.write().await.unwrap();
            rows::insert(tx.connection(), &KEYS, &record).await.unwrap();
            tx.record_changed("key:t1");
            assert_eq!(tx.commit().await.unwrap(), ["key:t1"]);
            let mut connection = ledger.app.db.read().await.unwrap();
            let back = rows::get(&mut connection, &KEYS, &["t1"]).await.unwrap().unwrap();
            for (name, value) in &record {
                assert_eq!(back.get(name), Some(value), "{name}");
            }
            assert_eq!((&back["aliases"], &back["allowed_routes"]), (&json!({}), &json!([])));
            let find = |condition: Where| Select::all(vec![condition]);
            for (condition, hits) in [
                (Where::Is("max_budget", json!(10.5)), 1),
                (Where::Has("models", "openai/*".to_owned()), 1),
                (Where::Has("models", "openai/".to_owned()), 0),
                (Where::Holds("key_alias", "A'LI".to_owned()), 1),
                (Where::Holds("key_alias", "%".to_owned()), 0),
                (Where::Empty("user_id"), 1),
                (Where::In("token", vec![json!("x"), json!("t1")]), 1),
                (Where::In("token", vec![]), 0),
                (Where::Before("expires", json!("2026-01-16")), 1),
                (Where::From("expires", json!("2026-01-16")), 0),
            ] {
                let found = rows::select(&mut connection, &KEYS, &find(condition.clone())).await.unwrap();
                assert_eq!(found.len(), hits, "{condition:?}");
            }
        });
    }

    #[test]
    fn revisions_are_counted_and_duplicates_known() {
        on_each("", |ledger| async move {
            let record = json!({"token": "t"}).as_object().unwrap().clone();
            let mut tx = ledger.app.db.write().await.unwrap();
            let first = tx.revision();
            rows::insert(tx.connection(), &KEYS, &record).await.unwrap();
            tx.commit().await.unwrap();
            let mut tx = ledger.app.db.write().await.unwrap();
            assert_eq!(tx.revision(), first + 1);
            let again = rows::insert(tx.connection(), &KEYS, &record).await;
            assert!(matches!(again, Err(DbError::Duplicate)), "{again:?}");
        });
    }

    #[test]
    fn tables_of_the_first_version_are_brought_up_to_date() {
        on_each("", |ledger| async move {
            let db = &ledger.app.db;
            let older = [
                "DROP INDEX tollgate_rates_places",
                "ALTER TABLE tollgate_rates DROP COLUMN place",
                "INSERT INTO tollgate_rates VALUES ('key:k', 'n', 1, 2, 3, 4, 5)",
                "UPDATE tollgate_state SET schema_version = 1 WHERE id = 1",
            ];
            for statement in older {
                db.write.execute(statement).await.unwrap();
            }
            // The second time there is nothing to do.
            for _ in 0..2 {
                schema::migrate(&db.write).await.unwrap();
                let row = db.write.fetch_one("SELECT parallel, place FROM tollgate_rates").await.unwrap();
                assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (4, 0));
            }
        });
    }

    #[test]
    fn several_may_migrate_at_once() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let Some(url) = testing::postgres_url().await else { return };
            let mut all = tokio::task::JoinSet::new();
            for _ in 0..6 {
                let url = url.clone();
                all.spawn(async move { Db::postgres(&url, 2).await.map(drop) });
            }
            for result in all.join_all().await {
                result.unwrap();
            }
        });
    }
}
