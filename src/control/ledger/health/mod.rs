//! Health of deployments: each is called through the gateway's own Envoy, so that a check uses the cluster, the credentials and
//! the translation that requests use.
//!
//! [`targets`] says what there is to check, [`probe`] makes one call and judges its answer. Here is when that is done (when
//! somebody asks, or all the time with `background_health_checks`) and what is kept of it. The filter is told who fails in the
//! background, and sends requests elsewhere.

pub mod probe;
pub mod targets;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::JoinSet, time::sleep};

use super::{App, log};
use crate::core::{config::HealthChecks, protocol::Health};
use probe::{Gateway, Outcome};
use targets::Target;

/// Most deployments that are called at a time, however many ask for their health.
const AT_A_TIME: usize = 10;
/// How often it is looked whether the settings have changed.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is looked whether the gateway is there, while it is not.
const AWAIT_GATEWAY: Duration = Duration::from_millis(250);
/// For so many intervals after a check it counts what it found.
const INTERVALS: u64 = 3;

/// What is known of the health of deployments.
pub struct Checks {
    gateway: OnceLock<Gateway>,
    places: Arc<Semaphore>,
    /// What the background found, by the deployment's id.
    found: Mutex<BTreeMap<String, Found>>,
    /// What was found when somebody asked, by the deployment's id: others than admins are told of that.
    asked: Mutex<BTreeMap<String, Outcome>>,
    /// The background has been through all deployments once.
    is_complete: AtomicBool,
}

/// What a check in the background found.
#[derive(Clone, Debug)]
struct Found {
    outcome: Outcome,
    /// Unix milliseconds until which it counts.
    until_ms: i64,
}

impl Default for Checks {
    fn default() -> Checks {
        Checks {
            gateway: OnceLock::new(),
            places: Arc::new(Semaphore::new(AT_A_TIME)),
            found: Mutex::default(),
            asked: Mutex::default(),
            is_complete: AtomicBool::new(false),
        }
    }
}

impl Checks {
    /// Says where the gateway is. It is said once.
    pub fn set_gateway(&self, gateway: Gateway) {
        let _ = self.gateway.set(gateway);
    }

    /// The gateway, when the ledger knows where it is.
    pub fn gateway(&self) -> Option<&Gateway> {
        self.gateway.get()
    }

    /// What the last check of a deployment in the background found.
    pub fn last(&self, id: &str) -> Option<Outcome> {
        self.found().get(id).map(|found| found.outcome.clone())
    }

    /// What the last check of a deployment found, in the background or when somebody asked for one.
    pub fn latest(&self, id: &str) -> Option<Outcome> {
        self.last(id).or_else(|| self.asked().get(id).cloned())
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<String, Outcome>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What nodes are told; none as long as nothing is known.
    pub fn verdict(&self, health: &HealthChecks, now_ms: i64) -> Option<Health> {
        if !health.steer() || !self.is_complete.load(Ordering::Acquire) {
            return None;
        }
        let found = self.found();
        let failing = || {
            found.iter().filter(|(_, found)| {
                found.until_ms > now_ms && found.outcome.keeps_away(health.ignore_transient)
            })
        };
        let left_ms = |found: &Found| u64::try_from(found.until_ms.saturating_sub(now_ms)).unwrap_or(0);
        Some(Health {
            failing: failing().map(|(id, _)| id.clone()).collect(),
            valid_ms: failing().map(|(_, found)| left_ms(found)).min().unwrap_or_default(),
        })
    }

    fn found(&self) -> MutexGuard<'_, BTreeMap<String, Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        self.is_complete.store(false, Ordering::Release);
        self.found().clear();
    }

    /// Keeps what was found, and says in the log when a deployment begins to fail and when it passes again.
    fn keep(&self, target: &Target, outcome: Outcome, until_ms: i64) {
        let before = self.found().insert(target.id.clone(), Found { outcome: outcome.clone(), until_ms });
        let failed = before.is_some_and(|found| matches!(found.outcome, Outcome::Failed { .. }));
        let who = format!("deployment `{}` of `{}`", target.id, target.group);
        match outcome {
            Outcome::Failed { error, .. } if !failed => {
                log(&format!("{who} fails its health check: {error}"))
            }
            Outcome::Passed if failed => log(&format!("{who} passes its health check again")),
            _ => {}
        }
    }
}

/// Checks deployments now, in their order.
pub async fn check(app: &App, gateway: &Gateway, targets: Vec<Target>) -> Vec<(Target, Outcome)> {
    let mut all = Vec::with_capacity(targets.len());
    let mut running = start(app, gateway, targets);
    while let Some(done) = running.join_next().await {
        all.extend(done);
    }
    all.sort_by_key(|(at, _, _)| *at);
    let mut asked = app.checks.asked();
    asked.extend(all.iter().map(|(_, target, outcome)| (target.id.clone(), outcome.clone())));
    drop(asked);
    all.into_iter().map(|(_, target, outcome)| (target, outcome)).collect()
}

/// Begins to check; each target comes back with its place.
fn start(app: &App, gateway: &Gateway, targets: Vec<Target>) -> JoinSet<(usize, Target, Outcome)> {
    let mut running = JoinSet::new();
    for (at, target) in targets.into_iter().enumerate() {
        let (gateway, places) = (gateway.clone(), Arc::clone(&app.checks.places));
        let general = app.config();
        running.spawn(async move {
            let Ok(_place) = places.acquire_owned().await else {
                return (at, target, Outcome::Unchecked("the ledger ends".to_owned()));
            };
            let asked = target.clone();
            let made = tokio::task::spawn_blocking(move || probe::call(&gateway, &asked, &general.general));
            let outcome =
                made.await.unwrap_or_else(|_| Outcome::Unchecked("it could not be called".to_owned()));
            (at, target, outcome)
        });
    }
    running
}

/// Checks all deployments round after round while `background_health_checks` is on.
pub async fn keep_up(app: Arc<App>) {
    let mut complained = false;
    loop {
        let health = app.config().ledger.health.clone();
        if !health.in_background {
            app.checks.forget();
            complained = false;
            sleep(LOOK).await;
            continue;
        }
        let Some(gateway) = app.checks.gateway() else {
            if !std::mem::replace(&mut complained, true) {
                log(
                    "`background_health_checks` needs the gateway's address: start the ledger with --gateway URL",
                );
            }
            sleep(LOOK).await;
            continue;
        };
        // A round against a gateway that has not started yet would find out nothing.
        if !lives(gateway).await {
            sleep(AWAIT_GATEWAY).await;
            continue;
        }
        round(&app, gateway, &health).await;
        let end = Instant::now() + Duration::from_millis(health.interval_ms);
        while app.config().ledger.health == health {
            match end.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => sleep(left.min(LOOK)).await,
                _ => break,
            }
        }
    }
}

async fn lives(gateway: &Gateway) -> bool {
    let gateway = gateway.clone();
    tokio::task::spawn_blocking(move || gateway.lives()).await.unwrap_or(false)
}

/// Checks all deployments once; what is found counts as soon as it is.
async fn round(app: &Arc<App>, gateway: &Gateway, health: &HealthChecks) {
    let targets = match targets::all(app, None).await {
        Ok(targets) => targets,
        Err(problem) => return log(&format!("health checks: the deployments cannot be listed: {problem:?}")),
    };
    let targets: Vec<Target> = targets.into_iter().filter(|target| target.in_background).collect();
    let ids: BTreeSet<String> = targets.iter().map(|target| target.id.clone()).collect();
    app.checks.found().retain(|id, _| ids.contains(id));
    let mut running = start(app, gateway, targets);
    while let Some(done) = running.join_next().await {
        let Ok((_, target, outcome)) = done else { continue };
        // The next check may take its whole time before it finds the same.
        let good_ms = INTERVALS.saturating_mul(health.interval_ms).saturating_add(target.timeout_ms);
        let until_ms = app.now_ms().saturating_add(i64::try_from(good_ms).unwrap_or(i64::MAX));
        app.checks.keep(&target, outcome, until_ms);
    }
    app.checks.is_complete.store(true, Ordering::Release);
}

#[cfg(test)]
mod tests;
