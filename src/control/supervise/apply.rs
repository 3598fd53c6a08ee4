//! Getting Envoy to serve something else: the files it follows, in an order in which no request finds half of a configuration.
//!
//! Clusters first, then routes to them, then the policy role that picks them, and the listener last, which hardly ever changes.
//! What goes away goes the other way round, a minute later: requests that were admitted before may still be retried there.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Instance, TICK, text};
use crate::control::{
    Failure,
    envoy::{AccessLog, Gateway, bootstrap, cluster, filter, listener},
    process::make_public,
};
use crate::core::config::Config;

/// How long Envoy may take to take over new files (new names are resolved first).
const APPLY_LIMIT: Duration = Duration::from_secs(20);

/// How long clusters that the configuration no longer has are kept for retries of requests that were admitted before.
const RETIRE_AFTER: Duration = Duration::from_secs(60);

/// A file that Envoy follows.
#[derive(Clone, Copy)]
pub(super) struct Followed {
    file: &'static str,
    kind: &'static str,
    /// Where Envoy counts what became of it.
    subscription: &'static str,
}

const CLUSTERS: Followed = Followed {
    file: bootstrap::CLUSTERS,
    kind: bootstrap::CLUSTER_TYPE,
    subscription: "cluster_manager.cds",
};
const ROUTES: Followed = Followed {
    file: bootstrap::ROUTES,
    kind: bootstrap::ROUTE_TYPE,
    subscription: "http.tollgate.rds.tollgate",
};
const POLICY: Followed = Followed {
    file: bootstrap::POLICY,
    kind: bootstrap::EXTENSION_TYPE,
    subscription: "extension_config_discovery.http_filter.tollgate.policy",
};
const LISTENERS: Followed = Followed {
    file: bootstrap::LISTENERS,
    kind: bootstrap::LISTENER_TYPE,
    subscription: "listener_manager.lds",
};

/// All of them.
pub(super) const FOLLOWED: [Followed; 4] = [CLUSTERS, ROUTES, POLICY, LISTENERS];

/// What is served: what Envoy is told beside its bootstrap, and what concerns its supervisor.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Files {
    pub(super) clusters: Vec<Value>,
    /// Most bytes of a request's body, which stands in the routes.
    limit: u64,
    policy: Value,
    listener: Value,
    /// How long requests in flight may go on after SIGTERM.
    pub(super) drain: Duration,
    /// The access log, when it is a file.
    log: Option<PathBuf>,
}

impl Files {
    /// Makes the access log as the user's umask has it, before Envoy, whose own files are private, makes it: whatever ships logs
    /// may be another user. In the state directory `folder` it is private too. When it cannot be made, Envoy says so.
    pub(super) fn make_log(&self, folder: &Path, umask: u32) {
        let elsewhere = self.log.as_ref().filter(|log| !log.starts_with(folder));
        let _ = elsewhere.map(|log| make_public(log, umask));
    }
}

impl Instance<'_> {
    pub(super) fn files_for(&self, config: &Config, document: &str, access_log: &AccessLog) -> Files {
        let gateway = Gateway { config, document, setup: &self.setup, access_log };
        Files {
            clusters: cluster::all(&gateway),
            limit: config.request_limit(),
            policy: filter::policy(&self.setup, document),
            listener: listener::listener(&gateway, Some(self.state.folder())),
            drain: Duration::from_millis(config.tollgate.drain_timeout_ms),
            log: match access_log {
                AccessLog::File(path) => Some(PathBuf::from(path)),
                AccessLog::Stdout | AccessLog::Off => None,
            },
        }
    }

    /// Writes everything, for an Envoy that starts.
    pub(super) fn write_all(&mut self, files: &Files) -> Result<(), Failure> {
        self.write_clusters(&files.clusters)?;
        self.write_routes(files.limit)?;
        self.write(POLICY, &files.policy)?;
        self.write(LISTENERS, &files.listener)?;
        Ok(())
    }

    /// Has Envoy serve `new`; when it cannot, it serves on what it did.
    pub(super) fn apply(&mut self, new: Files) -> Result<(), Failure> {
        new.make_log(self.state.folder(), self.umask);
        let done = self.take_over(&new);
        match done {
            Ok(()) => self.served = new,
            Err(_) => self.write_all(&self.served.clone())?,
        }
        done
    }

    fn take_over(&mut self, new: &Files) -> Result<(), Failure> {
        let gone = self.gone(&new.clusters);
        let mut clusters = new.clusters.clone();
        clusters.extend(gone.iter().cloned());
        if clusters != self.present {
            self.awaited(CLUSTERS, |it| it.write_clusters(&clusters))?;
            self.await_warm();
        }
        if new.limit != self.served.limit || self.unrouted() {
            self.awaited(ROUTES, |it| it.write_routes(new.limit))?;
        }
        if new.policy != self.served.policy {
            self.awaited(POLICY, |it| it.write(POLICY, &new.policy))?;
        }
        if new.listener != self.served.listener {
            self.awaited(LISTENERS, |it| it.write(LISTENERS, &new.listener))?;
        }
        self.retire_at = (!gone.is_empty()).then(|| Instant::now() + RETIRE_AFTER);
        Ok(())
    }

    /// Clusters that Envoy has and `new` has not.
    fn gone(&self, new: &[Value]) -> Vec<Value> {
        let named = |list: &[Value], name: &Value| list.iter().any(|other| other.get("name") == Some(name));
        let there = self.present.iter();
        there.filter(|cluster| cluster.get("name").is_some_and(|name| !named(new, name))).cloned().collect()
    }

    /// Takes away clusters whose time has come.
    pub(super) fn retire(&mut self) -> Result<(), Failure> {
        if self.retire_at.is_none_or(|when| when > Instant::now()) {
            return Ok(());
        }
        self.retire_at = None;
        self.write_clusters(&self.served.clusters.clone())?;
        self.write_routes(self.served.limit)?;
        Ok(())
    }

    fn write_clusters(&mut self, clusters: &[Value]) -> Result<String, Failure> {
        self.present = clusters.to_vec();
        self.write_list(CLUSTERS, clusters.to_vec())
    }

    /// Routes to every cluster that Envoy has.
    fn write_routes(&mut self, limit: u64) -> Result<String, Failure> {
        self.routed = names(&self.present);
        let routes = listener::routes(&self.setup, limit, self.routed.iter().map(String::as_str));
        self.write(ROUTES, &routes)
    }

    /// Whether Envoy has a cluster that no route leads to.
    fn unrouted(&self) -> bool {
        names(&self.present) != self.routed
    }

    fn write(&mut self, followed: Followed, resource: &Value) -> Result<String, Failure> {
        self.write_list(followed, vec![resource.clone()])
    }

    fn write_list(&mut self, followed: Followed, resources: Vec<Value>) -> Result<String, Failure> {
        self.version += 1;
        let version = self.version.to_string();
        let content = text(&bootstrap::discovery(&version, followed.kind, resources))?;
        self.state.replace(followed.file, content.as_bytes())?;
        Ok(version)
    }

    /// Writes a file and waits until Envoy uses it.
    fn awaited(
        &mut self,
        followed: Followed,
        write: impl FnOnce(&mut Self) -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        let refused = self.refused(followed);
        let version = write(self)?;
        let deadline = Instant::now() + APPLY_LIMIT;
        loop {
            if self.taken(followed).as_deref() == Some(&version) {
                return Ok(());
            }
            if self.refused(followed) > refused {
                return Err(Failure::running("Envoy refused the configuration made from it (reason above)"));
            }
            if Instant::now() > deadline {
                return Err(Failure::running(
                    "Envoy did not take over the configuration made from it in time",
                ));
            }
            thread::sleep(TICK / 10);
        }
    }

    /// How many files of a kind Envoy has refused so far.
    pub(super) fn refused(&self, followed: Followed) -> u64 {
        self.admin.count(&format!("{}.update_rejected", followed.subscription)).unwrap_or_default()
    }

    /// The version of a file that Envoy uses now.
    pub(super) fn taken(&self, followed: Followed) -> Option<String> {
        let name = format!("{}.version_text", followed.subscription);
        self.admin.statistic(&name).filter(|version| !version.is_empty())
    }

    /// Waits until new clusters know their addresses; one that never does must not hold up the others for ever.
    fn await_warm(&self) {
        let deadline = Instant::now() + APPLY_LIMIT;
        while self.admin.count("cluster_manager.warming_clusters").is_ok_and(|count| count > 0)
            && Instant::now() < deadline
        {
            thread::sleep(TICK / 10);
        }
    }
}

/// Names of clusters, without the one to Envoy itself.
fn names(clusters: &[Value]) -> Vec<String> {
    let all = clusters.iter().filter_map(|cluster| cluster.get("name")?.as_str());
    all.filter(|name| *name != cluster::ADMIN).map(str::to_owned).collect()
}
