//! Looks whether the database can be used, over a connection of its own: the others may all be busy.

use std::{path::PathBuf, time::Duration};

use sqlx::{AnyConnection, Connection, Executor, Row as _};
use tokio::time::{Instant, timeout};

use super::{
    Db, Target,
    error::{DbError, Trouble},
};

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(500);
/// How long it may take over one look.
const LIMIT: Duration = Duration::from_secs(2);
/// How often a damaged file is read again as a whole.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// Files up to this size are read as a whole when a ledger starts, in bytes.
const CHECKED_AT_START: u64 = 1 << 30;
/// A full disk is full until so many bytes can be written.
const ROOM: usize = 256 << 10;

/// What the probe remembers.
#[derive(Debug, Default)]
pub struct Probe {
    connection: Option<AnyConnection>,
    /// So many looks in a row took too long.
    slow: u32,
    checked: Option<Instant>,
}

/// Looks again and again, forever.
pub async fn keep_looking(db: Db) {
    let mut probe = Probe::default();
    tokio::spawn(inspect(db.clone()));
    loop {
        probe.look(&db).await;
        db.condition().rest(EVERY).await;
        // Whoever is in a hurry is not a reason to look without a pause.
        tokio::time::sleep(EVERY / 10).await;
    }
}

/// Reads the whole file of an SQLite database once, so that damage is known before somebody meets it.
pub async fn inspect(db: Db) {
    let Some(file) = db.target.file.as_ref() else { return };
    if std::fs::metadata(file).is_ok_and(|found| found.len() <= CHECKED_AT_START)
        && let Err(error) = check(&db.target).await
    {
        db.condition().note(&error);
    }
}

async fn check(target: &Target) -> Result<(), DbError> {
    let mut connection = target.connect().await?;
    check_over(&mut connection).await
}

async fn check_over(connection: &mut AnyConnection) -> Result<(), DbError> {
    let row = connection.fetch_one("PRAGMA quick_check(1)").await?;
    match row.try_get::<String, _>(0)? {
        text if text == "ok" => Ok(()),
        text => Err(DbError::Storage(Trouble::Damaged, text.replace('\n', " "))),
    }
}

impl Probe {
    /// Looks once, and says what came of it.
    pub async fn look(&mut self, db: &Db) {
        let condition = db.condition();
        let fault = condition.fault();
        if let Some(DbError::Storage(Trouble::Damaged, _)) = fault {
            if self.checked.is_some_and(|at| at.elapsed() < CHECK_EVERY) {
                return;
            }
            self.checked = Some(Instant::now());
        }
        let mut connection = self.connection.take();
        // A connection that broke says nothing about the database: the second look is over a new one.
        for _ in 0..2 {
            let had_one = connection.is_some();
            match timeout(LIMIT, one_look(&mut connection, db, fault.as_ref())).await {
                Ok(Ok(())) => {
                    (self.slow, self.connection) = (0, connection);
                    if condition.fault() == fault {
                        condition.set(None);
                    }
                    return;
                }
                Ok(Err(_)) if had_one => connection = None,
                Ok(Err(DbError::Statement(text))) => return condition.set(Some(DbError::Unavailable(text))),
                Ok(Err(error)) => return condition.set(Some(error)),
                Err(_) => {
                    self.slow += 1;
                    // One that still keeps nothing is not away.
                    if self.slow > 1 && !matches!(fault, Some(DbError::Storage(..))) {
                        let text = format!("no answer within {} s", LIMIT.as_secs());
                        condition.set(Some(DbError::Unavailable(text)));
                    }
                    return;
                }
            }
        }
    }
}

/// Reads the row that everything begins with; when something else failed, tries that.
async fn one_look(kept: &mut Option<AnyConnection>, db: &Db, fault: Option<&DbError>) -> Result<(), DbError> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => db.target.connect().await?,
    };
    connection.fetch_one("SELECT revision FROM tollgate_state WHERE id = 1").await?;
    if let Some(DbError::Storage(trouble, _)) = fault {
        match (trouble, &db.target.file) {
            (Trouble::Damaged, Some(_)) => check_over(&mut connection).await?,
            (Trouble::Full, Some(file)) => has_room(file.clone()).await?,
            _ => {}
        }
        try_write(&mut connection, db.is_postgres()).await?;
    }
    *kept = Some(connection);
    Ok(())
}

/// A transaction that writes and changes nothing.
async fn try_write(connection: &mut AnyConnection, postgres: bool) -> Result<(), DbError> {
    let mut tx = connection.begin_with(super::begin_write(postgres)).await?;
    tx.execute("UPDATE tollgate_state SET revision = revision WHERE id = 1").await?;
    Ok(tx.commit().await?)
}

/// Whether there is room for more than a page beside the file.
async fn has_room(file: PathBuf) -> Result<(), DbError> {
    let path = file.with_extension("probe");
    let written = tokio::task::spawn_blocking(move || {
        let written = std::fs::write(&path, vec![0; ROOM]);
        let _ = std::fs::remove_file(&path);
        written
    });
    match written.await {
        Ok(Err(error)) => Err(DbError::Storage(Trouble::Full, error.kind().to_string())),
        _ => Ok(()),
    }
}
