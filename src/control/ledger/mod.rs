//! The ledger: keys, users, teams, budgets and spend in a database, the management API over them, and what Envoy's filter
//! asks of it.
//!
//! | module | what it does |
//! |---|---|
//! | [`db`] | SQLite or Postgres behind one set of statements; transactions with revisions |
//! | [`bulk`] | statements over many rows |
//! | [`schema`] | the tables |
//! | [`rows`] | rows as JSON |
//! | [`caller`] | who calls |
//! | [`route`] | what a route is; the check of bodies and queries |
//! | [`problem`] | refusals |
//! | [`serve`](mod@serve) | HTTP: dispatch over the table of routes |
//! | [`live`] | stored models, told to gateways as they change |
//! | [`grants`] | what a key may do, joined for the filter |
//! | [`usage`] | usage from the filter: sums, logs, changes |
//! | [`rates`] | rates between nodes |
//! | [`resets`] | when budgets start again |
//! | [`alerts`] | telling somebody that a budget is used up |
//! | [`health`] | whether deployments answer |
//! | [`seal`] | secrets at rest |
//! | [`import`] | taking over what a LiteLLM database has |
//! | [`backup`] | a copy of the SQLite file, and putting it back |
//! | [`prices`] | the whole price data |
//! | [`tokens`] | counting tokens |
//! | [`api`] | the routes |
//!
//! It runs as a process of its own (`tollgate ledger`), so that whatever happens to it, requests with known keys go on.

pub mod alerts;
pub mod api;
pub mod backup;
pub mod bulk;
pub mod caller;
pub mod db;
pub mod former;
pub mod grants;
pub mod health;
pub mod import;
pub mod live;
pub mod prices;
pub mod problem;
pub mod rates;
pub mod resets;
pub mod route;
pub mod rows;
pub mod schema;
pub mod seal;
pub mod serve;
pub mod tokens;
pub mod usage;
pub mod windows;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, RwLock},
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, checked, cli::Serve, complain, document, process::keep_private, state, watch::Watch};
use crate::core::{config::Config, protocol::KEY_VARIABLE};
use db::Db;

/// How often the files of the configuration are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// How to run a ledger.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it serves: the same flags as the gateway's.
    pub serve: Serve,
    /// Unix socket to listen on.
    pub socket: Option<PathBuf>,
    /// Address to listen on (for fleets).
    pub listen: Option<SocketAddr>,
    /// Where the SQLite file is when no database is configured.
    pub folder: PathBuf,
    /// Where the gateway is, for calls of its deployments.
    pub gateway: Option<String>,
}

/// Everything a call needs.
pub struct App {
    /// The database.
    pub db: Db,
    config: RwLock<Arc<Config>>,
    /// The secret between Envoy and the ledger.
    secret: String,
    /// Unix milliseconds; tests set it.
    clock: Clock,
    /// Rates between nodes.
    rates: rates::Rates,
    /// Tells of budgets that are used up.
    alerts: alerts::Alerts,
    /// Tells gateways of stored models.
    live: live::Live,
    /// Whether deployments answer.
    checks: health::Checks,
}

/// Tells the time in Unix milliseconds.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

impl App {
    /// A ledger over an open database.
    pub fn new(db: Db, config: Config, secret: String, clock: Clock) -> Arc<App> {
        let receivers =
            alerts::Receivers::of(&config.ledger.alerting, &|name: &str| std::env::var(name).ok());
        Arc::new(App {
            db,
            rates: rates::Rates::of(config.ledger.redis.as_ref()),
            config: RwLock::new(Arc::new(config)),
            secret,
            clock,
            alerts: alerts::Alerts::to(receivers),
            live: live::Live::default(),
            checks: health::Checks::default(),
        })
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config
            .read()
            .map_or_else(|poisoned| Arc::clone(&poisoned.into_inner()), |config| Arc::clone(&config))
    }

    /// Puts another configuration in force.
    pub fn set_config(&self, new: Config) {
        self.rates.follow(new.ledger.redis.as_ref());
        match self.config.write() {
            Ok(mut config) => *config = Arc::new(new),
            Err(poisoned) => *poisoned.into_inner() = Arc::new(new),
        }
    }

    /// What gateways know of the stored models.
    pub fn live(&self) -> &live::Live {
        &self.live
    }

    /// Now, in Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        (self.clock)()
    }

    /// The secret that Envoy shows.
    pub fn secret(&self) -> &str {
        &self.secret
    }
}

/// The clock on the wall.
pub fn wall_clock() -> Clock {
    Arc::new(|| jiff::Timestamp::now().as_millisecond())
}

/// Runs a ledger until a signal ends it.
pub fn run(options: &Options) -> Result<(), Failure> {
    keep_private();
    state::shut(&options.folder);
    let document = document::read(&options.serve)?;
    let config = checked::examine(&document)?.config;
    let secret = std::env::var(KEY_VARIABLE).ok().filter(|secret| secret.len() >= 16).ok_or_else(|| {
        Failure::configuration(format!(
            "{KEY_VARIABLE} must hold the secret that Envoy and the ledger share: at least 16 characters"
        ))
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::running(format!("ledger: cannot start its threads: {error}")))?;
    runtime.block_on(async {
        let url = config.ledger.database_url.as_ref().map(|url| url.reveal()).filter(|url| !url.is_empty());
        let connections = config.ledger.pool_limit.unwrap_or(10);
        let db = Db::open_when_there(url, connections, &options.folder.join("ledger.db")).await?;
        if config.general.master_key.is_none()
            && !config.general.may_be_open
            && options.serve.allow_open != Some(true)
        {
            refuse_if_used(&db).await?;
        }
        let app = App::new(db, config, secret, wall_clock());
        app.live.set_settings(&document);
        if options.socket.is_some() {
            app.live.expect_gateway();
        }
        let is_alone = options.socket.is_none();
        tokio::spawn(follow(Arc::clone(&app), options.serve.clone(), Watch::new(&document.files), is_alone));
        if let Some(url) = &options.gateway {
            // With the gateway's flags, it is the gateway's own ledger.
            let is_own = options.serve.ssl_certfile_path.is_some();
            app.checks.set_gateway(health::probe::Gateway::at(url, is_own));
        }
        tokio::spawn(health::keep_up(Arc::clone(&app)));
        tokio::spawn(db::probe::keep_looking(app.db.clone()));
        tokio::spawn(grants::follow(Arc::clone(&app)));
        tokio::spawn(resets::keep_up(Arc::clone(&app)));
        let served = serve::serve(&app, options.socket.as_deref(), options.listen).await;
        app.db.close().await;
        served
    })
}

/// Refuses to open a database to everybody that somebody has made keys in.
async fn refuse_if_used(db: &Db) -> Result<(), Failure> {
    let failed = |error: db::DbError| Failure::running(format!("ledger: {error}"));
    let mut connection = db.read().await.map_err(failed)?;
    let found = sqlx::query("SELECT token FROM tollgate_keys LIMIT 1").fetch_optional(&mut *connection).await;
    match found.map_err(|error| failed(error.into()))? {
        None => Ok(()),
        Some(_) => Err(Failure::configuration(
            "there is no master key, and the database has keys: everybody could use and manage them. Set \
             general_settings.master_key (or LITELLM_MASTER_KEY), or start with --allow_open",
        )),
    }
}

/// Takes over changes of the configuration's files.
async fn follow(app: Arc<App>, serve: Serve, mut watch: Watch, is_alone: bool) {
    // A gateway refuses what serves nobody; so does the ledger beside it. One for many gateways may serve none.
    let check = if is_alone { checked::examine } else { checked::check_document };
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    loop {
        let asked = tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => false,
            _ = hangup.recv() => true,
        };
        if !watch.changed() && !asked {
            continue;
        }
        let read =
            document::read(&serve).and_then(|document| check(&document).map(|checked| (document, checked)));
        let was_open = app.config().general.master_key.is_none();
        let read = read.and_then(|read| checked::stays_closed(was_open, &read.1.config).map(|()| read));
        match read {
            Ok((document, checked)) => {
                app.live.set_settings(&document);
                app.set_config(checked.config);
                watch.follow(&document.files);
            }
            Err(failure) if is_alone => {
                failure.to_string().lines().for_each(log);
                log("the configuration above is not used; the earlier one stays in force");
            }
            // The gateway has said it.
            Err(_) => {}
        }
    }
}

/// A line in the log.
pub fn log(line: &str) {
    complain(&format!("ledger: {line}"));
}

/// Database suites: every test in them runs on SQLite, and on Postgres when `TOLLGATE_TEST_POSTGRES` names one. Likewise Redis
/// and `TOLLGATE_TEST_REDIS`.
#[cfg(test)]
mod fuzz;
#[cfg(test)]
pub mod testing;
