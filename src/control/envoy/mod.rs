//! Envoy's configuration: what a checked `config.yaml` looks like to Envoy.
//!
//! | part | what it writes |
//! |---|---|
//! | [`bootstrap`] | the file Envoy starts from: static (the filter alone) or pointing at the files below (served) |
//! | [`listener`] | the listener: connection manager, routes, retries, access log, replies of Envoy's own |
//! | [`timed`] | the listener inside, which keeps the time-out of attempts that have their own |
//! | [`cluster`] | one cluster for each deployment, and the one to Envoy's own admin interface |
//! | [`ledger`] | the way to the ledger: its clusters |
//! | [`filter`] | the filter in its roles, as a Wasm module or a dynamic one |
//!
//! Everything here is a function of its arguments: the same configuration makes the same bytes, so comparing texts tells
//! whether Envoy has anything to reload.

pub mod bootstrap;
pub mod cluster;
pub mod filter;
pub mod ledger;
pub mod listener;
pub mod timed;

use std::path::PathBuf;

use crate::core::{
    config::{Config, MAX_TIMEOUT_MS},
    model::{deployment::Deployment, endpoint::Endpoint},
};

/// What the writer works from.
#[derive(Clone, Copy, Debug)]
pub struct Gateway<'a> {
    /// What `document` means.
    pub config: &'a Config,
    /// The configuration document as the filter gets it.
    pub document: &'a str,
    /// How this Envoy is set up.
    pub setup: &'a Setup,
    /// Where requests are logged.
    pub access_log: &'a AccessLog,
}

/// What stays the same for the life of an Envoy process.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on.
    pub port: u16,
    /// Certificate chain and private key (PEM files) when the listener speaks TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The filter module.
    pub module: Module,
    /// Names of the environment variables that the filter may read, sorted, each once.
    pub variables: Vec<String>,
    /// Where Envoy's admin interface is.
    pub admin: Admin,
    /// Where the ledger is. Without one there are only the keys of the configuration.
    pub ledger: Option<Ledger>,
    /// Certificates of the authorities that providers' certificates are checked against.
    pub authorities: String,
    /// How much memory Envoy may take, in bytes, when there is a limit.
    pub max_memory_bytes: Option<u64>,
}

/// The build of the filter that Envoy runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// The Wasm module of this file.
    Wasm(String),
    /// The dynamic module of this name: Envoy looks for `lib<name>.so` in the folders that [`SEARCH_PATH`] names.
    Native(String),
}

/// The variable in which Envoy is told where dynamic modules are.
pub const SEARCH_PATH: &str = "ENVOY_DYNAMIC_MODULES_SEARCH_PATH";

/// Where Envoy's admin interface listens.
#[derive(Clone, Debug)]
pub enum Admin {
    /// A Unix socket that only its owner can open.
    Socket(PathBuf),
    /// A port of this machine, for an Envoy that a person runs by hand.
    Loopback(u16),
}

/// Where the ledger is, and how often it is talked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Its address.
    pub at: LedgerAddress,
    /// Milliseconds between two syncs (`proxy_batch_write_at`).
    pub interval_ms: u64,
}

impl Ledger {
    /// At an address, talked to as often as a configuration says.
    pub fn new(at: LedgerAddress, config: &Config) -> Ledger {
        Ledger { at, interval_ms: config.ledger.batch_write_ms.unwrap_or(SYNC_INTERVAL_MS).max(1) }
    }
}

/// Milliseconds between two syncs, unless `proxy_batch_write_at` says otherwise.
pub const SYNC_INTERVAL_MS: u64 = 250;

/// The ledger's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerAddress {
    /// A Unix socket of this machine.
    Socket(PathBuf),
    /// Elsewhere (`tollgate_settings.ledger_url`).
    Remote(Endpoint),
}

/// Where requests are logged (`tollgate_settings.access_log`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(String),
    /// Nowhere.
    Off,
}

/// Deployments that get a cluster: those that can be called.
pub fn callable(config: &Config) -> impl Iterator<Item = &Deployment> {
    config
        .deployments
        .iter()
        .filter(|deployment| deployment.brand.is_callable() && !deployment.endpoint.host.is_empty())
}

/// The longest time-out any request can have, in milliseconds.
fn longest_timeout(config: &Config) -> u64 {
    let deployments = config.deployments.iter().flat_map(|d| [d.timeout_ms, d.stream_timeout_ms]).flatten();
    deployments
        .chain([config.router.timeout_ms])
        .chain(config.router.stream_timeout_ms)
        .max()
        .unwrap_or_default()
        .min(MAX_TIMEOUT_MS)
}

#[cfg(test)]
mod tests;
