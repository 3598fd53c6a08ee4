//! Whether the database can be used: said by every statement that fails for the disk's, the file's or the network's sake, and by
//! a probe that looks again and again.
//!
//! | condition | reads | writes |
//! |---|---|---|
//! | well | go on | go on |
//! | it keeps nothing (disk full, read-only, damaged, …) | go on | are refused at once |
//! | it is away | are refused at once | are refused at once |
//!
//! It ends by itself: while it lasts the probe tries what failed.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};

use super::error::{DbError, Trouble};
use crate::control::ledger::log;

/// The condition of one database.
#[derive(Debug)]
pub struct Condition {
    /// Where it is: an address or a path, never a password.
    place: String,
    /// What is wrong with it.
    fault: watch::Sender<Option<DbError>>,
    since: Instant,
    /// Microseconds after `since`: connections that are older are not used again. 0 while nothing happened.
    trouble_us: AtomicU64,
    /// Why the latest new connection could not be set up.
    unconnected: watch::Sender<Option<DbError>>,
    /// Somebody has seen something: the probe is to look now.
    hurry: Notify,
}

impl Condition {
    /// A database that was just opened.
    pub fn well(place: String) -> Condition {
        Condition {
            place,
            fault: watch::Sender::default(),
            since: Instant::now(),
            trouble_us: AtomicU64::new(0),
            unconnected: watch::Sender::default(),
            hurry: Notify::new(),
        }
    }

    /// Where the database is.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What is wrong with it now.
    pub fn fault(&self) -> Option<DbError> {
        self.fault.borrow().clone()
    }

    /// Fails while nothing can be written.
    pub fn may_write(&self) -> Result<(), DbError> {
        self.fault().map_or(Ok(()), Err)
    }

    /// Fails while nothing can be read.
    pub fn may_read(&self) -> Result<(), DbError> {
        match self.fault() {
            Some(away @ DbError::Unavailable(_)) => Err(away),
            _ => Ok(()),
        }
    }

    /// Takes in that something failed. What is a statement's own fault changes nothing.
    pub fn note(&self, error: &DbError) {
        match error {
            DbError::Storage(..) => self.set(Some(error.clone())),
            // One connection may be broken, or all may be busy: the probe knows.
            DbError::Unavailable(_) => self.hurry.notify_one(),
            DbError::Statement(_) | DbError::Duplicate => {}
        }
    }

    /// Takes in that a new connection could not be set up.
    pub fn note_unconnected(&self, error: &DbError) {
        self.note(error);
        self.unconnected.send_replace(Some(error.clone()));
    }

    /// Returns when a new connection cannot be set up for the file's or the disk's sake. A pool, which takes every failure for a
    /// server that is starting, would try again until its patience is over.
    pub async fn cannot_connect(&self) -> DbError {
        let mut unconnected = self.unconnected.subscribe();
        loop {
            if unconnected.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(error @ DbError::Storage(..)) = &*unconnected.borrow_and_update() {
                return error.clone();
            }
        }
    }

    /// From now on only connections are used that are newer.
    pub fn distrust(&self) {
        let now = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.trouble_us.store(now.max(1), Ordering::Relaxed);
    }

    /// Says what is wrong with it, and in the log when that is news.
    pub fn set(&self, fault: Option<DbError>) {
        if fault.is_some() {
            self.distrust();
        }
        let before = self.fault.send_replace(fault.clone());
        match (&before, &fault) {
            (Some(_), None) => log(&format!("the database at {} works again", self.place)),
            (before, Some(DbError::Unavailable(reason))) if *before != fault => log(&format!(
                "the database at {} cannot be reached: {reason}. Keys that gateways know go on; usage waits.",
                self.place
            )),
            (before, Some(error)) if kind(before.as_ref()) != kind(Some(error)) => log(&format!(
                "the database at {} keeps nothing: {error}. Changes are refused and usage waits until it does.",
                self.place
            )),
            _ => {}
        }
    }

    /// Whether a connection of this age has seen no trouble: one whose statement failed is never used again.
    pub fn trusts(&self, age: Duration) -> bool {
        match self.trouble_us.load(Ordering::Relaxed) {
            0 => true,
            at => age < self.since.elapsed().saturating_sub(Duration::from_micros(at)),
        }
    }

    /// Returns when the database goes away; what began before need not wait for it.
    pub async fn goes_away(&self) -> DbError {
        let mut fault = self.fault.subscribe();
        loop {
            if fault.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(away @ DbError::Unavailable(_)) = &*fault.borrow_and_update() {
                return away.clone();
            }
        }
    }

    /// Returns when somebody has seen something, or after a while.
    pub async fn rest(&self, most: Duration) {
        let _ = tokio::time::timeout(most, self.hurry.notified()).await;
    }
}

/// What of a fault is news: SQLite words the same trouble differently from statement to statement.
fn kind(fault: Option<&DbError>) -> Option<Option<Trouble>> {
    match fault? {
        DbError::Storage(trouble, _) => Some(Some(*trouble)),
        _ => Some(None),
    }
}
