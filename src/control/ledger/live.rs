//! Stored models on their way to the gateways: `GET /internal/models`, which waits for changes, and management calls, which
//! wait until the gateway this ledger belongs to has a change in force.
//!
//! A gateway's command asks again and again, each time with the revision that it has (`since`). While nothing has changed the
//! ledger keeps it waiting for as long as it agreed to (`wait_ms`) and then answers 204. A change made here wakes it at once; one
//! made by another ledger of the same database is seen within [`LOOK_EVERY`]. The command that runs this very ledger also
//! says which revision is in force (`applied`).

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use serde_yaml::Value as Yaml;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{App, api::models, log, problem::Problem, serve::form};
use crate::control::{
    document::Document,
    dynamic::{self, StoredModels},
};

/// How often the database is looked at for what other ledgers changed, while somebody waits.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long one question may be kept waiting.
const LONGEST_WAIT_MS: u64 = 30_000;
/// How long a management call waits for its gateway. New clusters have to find their addresses first.
const IN_FORCE_LIMIT: Duration = Duration::from_secs(5);

/// What gateways know of the stored models.
#[derive(Debug, Default)]
pub struct Live {
    /// Moves with every change that is made here, and at the end.
    news: watch::Sender<u64>,
    closing: AtomicBool,
    /// The revision that this ledger's own gateway has in force; none while it is not heard of.
    applied: watch::Sender<Option<u64>>,
    /// There is a gateway, though it has not said a word yet.
    expected: AtomicBool,
    /// What the configuration says besides its models.
    settings: RwLock<Arc<Yaml>>,
    /// What was logged already.
    told: Mutex<HashSet<String>>,
}

/// What a gateway says when it asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The revision that it has.
    pub since: Option<u64>,
    /// The revision that it has in force, when this ledger is its own.
    pub applied: Option<u64>,
    /// How long it waits for a change.
    pub wait_ms: u64,
}

impl Asked {
    /// Reads a query.
    pub fn of(query: &str) -> Result<Asked, Problem> {
        let mut asked = Asked::default();
        for (name, value) in form(query) {
            let number = value.parse::<u64>().map_err(|_| {
                Problem::Detail(400, json!(format!("`{name}` is `{value}`: expected a whole number")))
            });
            match name.as_str() {
                "since" => asked.since = Some(number?),
                "applied" => asked.applied = Some(number?),
                "wait_ms" => asked.wait_ms = number?.min(LONGEST_WAIT_MS),
                _ => {}
            }
        }
        Ok(asked)
    }
}

/// The stored models, once they are others than those the asker has; none when its time is over.
pub async fn models(app: &App, asked: &Asked) -> Result<Option<StoredModels>, Problem> {
    let live = app.live();
    if let Some(revision) = asked.applied {
        live.applied.send_replace(Some(revision));
    }
    let deadline = Instant::now() + Duration::from_millis(asked.wait_ms);
    // Before the first look, so that no change falls between the look and the wait.
    let mut news = live.news.subscribe();
    loop {
        if asked.since != Some(models::revision(app).await?) {
            return models::stored_models(app).await.map(Some);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || live.closing.load(Ordering::Relaxed) {
            return Ok(None);
        }
        tokio::select! { _ = news.changed() => {}, () = sleep(left.min(LOOK_EVERY)) => {} }
    }
}

impl Live {
    /// This ledger belongs to a gateway that will ask.
    pub fn expect_gateway(&self) {
        self.expected.store(true, Ordering::Relaxed);
    }

    /// Whether this ledger runs under a gateway's command, in the same environment.
    pub fn has_gateway(&self) -> bool {
        self.expected.load(Ordering::Relaxed) || self.applied.borrow().is_some()
    }

    /// A change of models was committed here: gateways are told, and when this ledger has one of its own, this returns once
    /// it has the change in force.
    pub async fn changed(&self, revision: i64) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
        if !self.has_gateway() {
            return;
        }
        let revision = u64::try_from(revision).unwrap_or_default();
        let mut applied = self.applied.subscribe();
        let done = applied.wait_for(|there| there.is_some_and(|there| there >= revision));
        if timeout(IN_FORCE_LIMIT, done).await.is_err() {
            log(&format!(
                "a change of models is stored, but the gateway has not taken it over within {} s: it is in force later",
                IN_FORCE_LIMIT.as_secs()
            ));
            // The next call does not wait for somebody who is not there.
            self.expected.store(false, Ordering::Relaxed);
            self.applied.send_replace(None);
        }
    }

    /// Ends all waiting.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Takes over what a configuration document says besides its models.
    pub fn set_settings(&self, document: &Document) {
        let settings = Arc::new(dynamic::settings(document));
        match self.settings.write() {
            Ok(mut there) => *there = settings,
            Err(poisoned) => *poisoned.into_inner() = settings,
        }
    }

    /// What the configuration says besides its models: stored models are read together with it.
    pub fn settings(&self) -> Arc<Yaml> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Logs a line, unless it was logged before.
    pub fn log_once(&self, line: String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.contains(&line) {
            log(&line);
            told.insert(line);
        }
    }
}
