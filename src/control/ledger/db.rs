//! The database: SQLite or Postgres behind one set of statements.
//!
//! Only TEXT and BIGINT columns are used, and only statements that both understand, so there is one code and one suite of
//! tests. Every transaction that writes takes the next revision first. The row that holds it is locked until the
//! transaction ends, so revisions become visible in order: whoever has seen revision 7 has missed nothing up to 7.
//!
//! | module | what it does |
//! |---|---|
//! | [`error`] | what goes wrong, and whose fault it is |
//! | [`condition`] | whether the database can be used |
//! | [`probe`] | looks for that |
//! | [`target`] | where it is and how a connection is set up |

pub mod condition;
pub mod error;
pub mod probe;
pub mod target;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use sqlx::{
    Any, AnyConnection, AnyPool, AssertSqlSafe, Executor, Row, Transaction, any::AnyPoolOptions,
    pool::PoolConnection,
};

pub use self::error::DbError;
use self::{condition::Condition, target::Target};
use super::{bulk, grants::Known, log, schema};
use crate::control::Failure;

/// How long to wait for a connection.
const WAIT: Duration = Duration::from_secs(10);
/// How often a database that is not there yet is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A database that is migrated and ready.
#[derive(Clone, Debug)]
pub struct Db {
    read: AnyPool,
    write: AnyPool,
    target: Arc<Target>,
    known: Arc<Known>,
    condition: Arc<Condition>,
}

impl Db {
    /// Opens (or makes) an SQLite file.
    pub async fn sqlite(path: &Path) -> Result<Db, DbError> {
        // Readers see the last commit while the one writer works.
        Db::open_at(Target::file(path)?, 4, Some(1)).await
    }

    /// Connects to Postgres. Several ledgers may do so at the same moment: migrations take a lock.
    pub async fn postgres(url: &str, connections: u32) -> Result<Db, DbError> {
        Db::open_at(Target::server(url)?, connections.max(2), None).await
    }

    async fn open_at(target: Target, connections: u32, writers: Option<u32>) -> Result<Db, DbError> {
        // A pool would try again and again, and say in the end that it took too long.
        target.prepare().await?;
        let target = Arc::new(target);
        let condition = Arc::new(Condition::well(target.place.clone()));
        let read = pool(&target, connections, &condition).await?;
        let write = match writers {
            Some(writers) => pool(&target, writers, &condition).await?,
            None => read.clone(),
        };
        schema::migrate(&write).await?;
        Ok(Db { read, write, target, known: Arc::default(), condition })
    }

    /// Opens what a configuration names: a Postgres URL, else the SQLite file.
    pub async fn open(url: Option<&str>, connections: u32, file: &Path) -> Result<Db, Failure> {
        let (place, result) = Db::try_open(url, connections, file).await?;
        result
            .map_err(|error| Failure::running(format!("ledger: cannot use the database at {place}: {error}")))
    }

    /// The same, and waits for a server that is not there yet, or for a lock. Says at once what it waits for.
    pub async fn open_when_there(url: Option<&str>, connections: u32, file: &Path) -> Result<Db, Failure> {
        let mut told = None;
        loop {
            let (place, result) = Db::try_open(url, connections, file).await?;
            let reason = match result {
                Ok(db) => return Ok(db),
                Err(DbError::Unavailable(reason)) => reason,
                Err(error) => {
                    return Err(Failure::running(format!(
                        "ledger: cannot use the database at {place}: {error}"
                    )));
                }
            };
            if told.as_ref() != Some(&reason) {
                log(&format!("waiting for the database at {place}: {reason}"));
                told = Some(reason);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Where the server with this URL is, for people.
    pub fn place(url: &str) -> Result<String, Failure> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return placed(Target::server(url));
        }
        Err(Failure::configuration(
            "`general_settings.database_url` (or DATABASE_URL) must start with postgresql://; \
             without it the ledger keeps an SQLite file in its state directory",
        ))
    }

    async fn try_open(
        url: Option<&str>,
        connections: u32,
        file: &Path,
    ) -> Result<(String, Result<Db, DbError>), Failure> {
        match url {
            Some(url) => Ok((Db::place(url)?, Db::postgres(url, connections).await)),
            None => Ok((placed(Target::file(file))?, Db::sqlite(file).await)),
        }
    }

    /// Whether this is Postgres (the statements of the two differ in a few places).
    pub fn is_postgres(&self) -> bool {
        self.target.file.is_none()
    }

    /// Whether it can be used.
    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// A connection to read with.
    pub async fn read(&self) -> Result<PoolConnection<Any>, DbError> {
        self.condition.may_read()?;
        self.taken(self.read.acquire()).await
    }

    /// What is remembered of the records in it, kept up by every transaction that commits here.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Begins a transaction that reads: everything in it is as it was at one moment. Also gives the revision of that moment.
    pub async fn snapshot(&self) -> Result<(Transaction<'static, Any>, i64), DbError> {
        self.condition.may_read()?;
        let begin =
            if self.is_postgres() { "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" } else { "BEGIN" };
        let mut tx = self.begin(&self.read, begin).await?;
        let row = tx.fetch_one("SELECT revision FROM tollgate_state WHERE id = 1").await?;
        let revision = row.try_get::<i64, _>(0)?;
        Ok((tx, revision))
    }

    /// Begins a transaction that writes what has no revision: rates, when nodes were seen, old logs that go.
    pub async fn aside(&self) -> Result<Transaction<'static, Any>, DbError> {
        self.condition.may_write()?;
        self.begin(&self.write, begin_write(self.is_postgres())).await
    }

    /// Begins a transaction that writes.
    pub async fn write(&self) -> Result<Tx, DbError> {
        let mut tx = self.aside().await?;
        let row = tx
            .fetch_one("UPDATE tollgate_state SET revision = revision + 1 WHERE id = 1 RETURNING revision")
            .await
            .map_err(|error| self.failed(error))?;
        let revision = row.try_get::<i64, _>(0)?;
        Ok(Tx { tx, revision, changes: BTreeMap::new(), known: Arc::clone(&self.known) })
    }

    /// Begins a transaction, which must be the connection's first: with one open already, whatever is committed later would be a
    /// part of that and end with it. The statement fails on such a connection; then a new one is taken.
    async fn begin(
        &self,
        pool: &AnyPool,
        statement: &'static str,
    ) -> Result<Transaction<'static, Any>, DbError> {
        match self.taken(pool.begin_with(statement)).await {
            Err(DbError::Statement(_)) => {
                self.condition.distrust();
                self.taken(pool.begin_with(statement)).await
            }
            other => other,
        }
    }

    /// What a pool gives, or why it cannot give anything.
    async fn taken<T>(&self, taking: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, DbError> {
        tokio::select! {
            biased;
            taken = taking => taken.map_err(|error| self.failed(error)),
            error = self.condition.cannot_connect() => Err(error),
        }
    }

    fn failed(&self, error: sqlx::Error) -> DbError {
        let error = match error {
            sqlx::Error::PoolTimedOut => {
                let busy = format!("all connections were busy for {} s", WAIT.as_secs());
                self.condition.fault().unwrap_or(DbError::Unavailable(busy))
            }
            error => error.into(),
        };
        self.condition.note(&error);
        error
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
    /// [`CHANGED_HEADER`](crate::core::protocol::CHANGED_HEADER).
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

/// Where a database is, for people.
fn placed(target: Result<Target, DbError>) -> Result<String, Failure> {
    target.map(|target| target.place).map_err(|error| Failure::configuration(error.to_string()))
}

/// What begins a transaction that writes. It is never a savepoint: where a transaction is open already it fails.
fn begin_write(postgres: bool) -> &'static str {
    if postgres { "BEGIN" } else { "BEGIN IMMEDIATE" }
}

async fn pool(
    target: &Arc<Target>,
    connections: u32,
    condition: &Arc<Condition>,
) -> Result<AnyPool, DbError> {
    let (target, trusting, condition) = (Arc::clone(target), Arc::clone(condition), Arc::clone(condition));
    let options = target.options.clone();
    Ok(AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(WAIT)
        .before_acquire(move |_, found| {
            let trusted = trusting.trusts(found.age);
            Box::pin(async move { Ok(trusted) })
        })
        .after_connect(move |connection, _| {
            let (target, condition) = (Arc::clone(&target), Arc::clone(&condition));
            Box::pin(async move {
                for setting in &target.settings {
                    if let Err(error) = connection.execute(AssertSqlSafe(setting.clone())).await {
                        let error = DbError::from(error);
                        condition.note_unconnected(&error);
                        return Err(sqlx::Error::Protocol(error.to_string()));
                    }
                }
                Ok(())
            })
        })
        .connect_with(options)
        .await?)
}

#[cfg(test)]
mod tests;
