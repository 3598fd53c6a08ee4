//! Serving: writes Envoy's configuration, starts Envoy, follows `config.yaml`, restarts Envoy when it dies, drains at the end.
//!
//! One thread, one loop: everything that can happen (a signal, a dead child, a changed file, clusters to forget) is looked
//! at a few times a second. Files are looked at by their stamps and not through inotify, which says nothing about bind
//! mounts and network file systems, and goes blind when a configuration map swaps a symbolic link.

use std::{
    env,
    io::Write,
    net::{IpAddr, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Failure, admin, binary, checked,
    cli::{Serve, bracketed},
    complain,
    document::{self, Document},
    envoy::{AccessLog, Admin, Gateway, Ledger, LedgerAddress, Setup, bootstrap, cluster, listener},
    keeper::Keeper,
    machine::{authorities, claim, variables},
    process::{end, own_group_and_fate},
    state::State,
    watch::Watch,
};
use crate::core::{
    config::{Config, seal},
    ledger::KEY_VARIABLE,
};

/// The filter, carried inside the command.
static MODULE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tollgate.wasm"));

/// How often the loop looks.
const TICK: Duration = Duration::from_millis(100);

/// How long Envoy may take to be ready.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long Envoy may take to take over new files (new names are resolved first).
const APPLY_LIMIT: Duration = Duration::from_secs(20);

/// How long clusters that the configuration no longer has are kept for retries of requests that were admitted before.
const RETIRE_AFTER: Duration = Duration::from_secs(60);

/// Requests on connections of an earlier configuration have this long.
const OLD_LISTENER_SECONDS: u32 = 1800;

/// An Envoy that lived this long was well; its death is not counted.
const WELL: Duration = Duration::from_secs(30);

/// Deaths in a row before the command gives up.
const DEATHS: u32 = 5;

/// How long Envoy may take to end, once it was told to.
const END_LIMIT: Duration = Duration::from_secs(5);

/// How long the last usage may take to reach the ledger at the end.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// What `--detailed_debug` logs besides. Envoy's `http` and `router` logs are left out: they show headers, keys among them.
const DETAILS: &str = "config:debug,dns:debug,pool:debug,upstream:debug,wasm:debug";

/// Where Envoy counts what became of the files with clusters, and with the listener.
const CLUSTERS: &str = "cluster_manager.cds";
const LISTENERS: &str = "listener_manager.lds";
const SUBSCRIPTIONS: [&str; 2] = [CLUSTERS, LISTENERS];

/// Serves until a signal ends it or Envoy cannot be kept alive.
pub fn serve(serve: &Serve) -> Result<(), Failure> {
    if MODULE.is_empty() {
        return Err(Failure::configuration(
            "this build of the command carries no filter module: build it with `make build`",
        ));
    }
    let document = document::read(serve)?;
    let checked = checked::check_document(&document)?;
    for remark in checked.remarks() {
        complain(&remark);
    }
    let binary = binary::find(serve.envoy.as_deref())?;
    let address = claim(&serve.host, serve.port)?;
    let state = State::open(serve.state_dir.as_deref(), &serve.host, address.port())?;
    let stop = stop_signal()?;
    let key = new_key()?;
    let secret = ledger_secret(&checked.config)?;
    let at = match &checked.config.tollgate.ledger_url {
        Some(endpoint) => LedgerAddress::Remote(endpoint.clone()),
        None => LedgerAddress::Socket(state.ledger_socket().to_owned()),
    };
    let keeper = match &at {
        LedgerAddress::Socket(socket) => {
            let mut there = serve.clone();
            there.port = address.port();
            Some(Keeper::start(socket, state.folder(), &there.url(), &secret, &stop)?)
        }
        LedgerAddress::Remote(_) => None,
    };
    let setup = Setup {
        host: address.ip().to_string(),
        port: address.port(),
        tls: serve.ssl_certfile_path.clone().zip(serve.ssl_keyfile_path.clone()),
        module: state.write_module(MODULE)?.display().to_string(),
        variables: variables(),
        admin: Admin::Socket(state.socket().to_owned()),
        ledger: Some(Ledger::new(at, &checked.config)),
        authorities: authorities()?,
    };
    let mut instance = Instance {
        secret,
        keeper,
        serve,
        binary,
        admin: admin::Envoy::new(state.socket()),
        state,
        key,
        setup,
        stop,
        version: 0,
        served: Files::default(),
        present: Vec::new(),
        retire_at: None,
    };
    instance.run(document)
}

/// What is served: what Envoy is told beside its bootstrap, and what concerns its supervisor.
#[derive(Clone, Debug, Default, PartialEq)]
struct Files {
    clusters: Vec<Value>,
    listener: Value,
    /// How long requests in flight may go on after SIGTERM.
    drain: Duration,
}

struct Instance<'a> {
    serve: &'a Serve,
    binary: PathBuf,
    admin: admin::Envoy,
    state: State,
    key: seal::Key,
    /// What Envoy and the ledger share.
    secret: String,
    /// The ledger, when it is ours.
    keeper: Option<Keeper>,
    setup: Setup,
    stop: Arc<AtomicBool>,
    /// Goes up with every file that is written.
    version: u64,
    /// What Envoy is meant to serve now.
    served: Files,
    /// Clusters that Envoy has: those served, and those that wait to be taken away.
    present: Vec<Value>,
    /// When to leave only the clusters that are served.
    retire_at: Option<Instant>,
}

impl Instance<'_> {
    fn run(&mut self, document: Document) -> Result<(), Failure> {
        let mut watch = Watch::new(&document.files);
        self.served = self.files(&document)?;
        let bootstrap = bootstrap::served(&self.setup, self.state.folder());
        self.state.replace("envoy.json", text(&bootstrap)?.as_bytes())?;
        self.write_clusters(&self.served.clusters.clone())?;
        self.write_listener(&self.served.listener.clone())?;
        let mut envoy = self.start()?;
        self.await_ready(&mut envoy)?;
        let scheme = if self.setup.tls.is_some() { "https" } else { "http" };
        say(&format!(
            "tollgate: listening on {scheme}://{}:{}",
            bracketed(&self.serve.host),
            self.setup.port
        ));
        let (mut started, mut deaths) = (Instant::now(), 0);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return self.drain(envoy);
            }
            self.keep();
            if let Some(status) = exited(&mut envoy)? {
                deaths = if started.elapsed() >= WELL { 1 } else { deaths + 1 };
                envoy = self.restart(status, deaths)?;
                started = Instant::now();
            }
            if watch.changed() {
                match self.reload() {
                    Ok(document) => watch.follow(&document.files),
                    Err(failure) => {
                        for line in failure.to_string().lines() {
                            complain(line);
                        }
                        complain("the configuration above is not used; the earlier one stays in force");
                    }
                }
            }
            self.retire()?;
            thread::sleep(TICK);
        }
    }

    /// Looks after the ledger, when it is ours.
    fn keep(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.look();
        }
    }

    /// What `document` means to Envoy.
    fn files(&self, document: &Document) -> Result<Files, Failure> {
        let sealed = document.sealed(&self.key)?;
        let checked = checked::check(&sealed, Some(&self.key))?;
        let access_log = access_log(document)?;
        Ok(self.files_for(&checked.config, &sealed, &access_log))
    }

    fn files_for(&self, config: &Config, document: &str, access_log: &AccessLog) -> Files {
        let gateway = Gateway { config, document, setup: &self.setup, access_log };
        let drain = Duration::from_millis(config.tollgate.drain_timeout_ms);
        Files { clusters: cluster::all(&gateway), listener: listener::listener(&gateway), drain }
    }

    fn write_clusters(&mut self, clusters: &[Value]) -> Result<String, Failure> {
        self.present = clusters.to_vec();
        self.write(bootstrap::CLUSTERS, bootstrap::CLUSTER_TYPE, clusters.to_vec())
    }

    fn write_listener(&mut self, listener: &Value) -> Result<String, Failure> {
        self.write(bootstrap::LISTENERS, bootstrap::LISTENER_TYPE, vec![listener.clone()])
    }

    fn write(&mut self, file: &str, kind: &str, resources: Vec<Value>) -> Result<String, Failure> {
        self.version += 1;
        let version = self.version.to_string();
        self.state.replace(file, text(&bootstrap::discovery(&version, kind, resources))?.as_bytes())?;
        Ok(version)
    }

    /// Reads the configuration again and has Envoy take it over. Requests in flight are not touched. When anything is
    /// wrong with it, what was served before is served on.
    fn reload(&mut self) -> Result<Document, Failure> {
        let document = document::read(self.serve)?;
        let checked = checked::check_document(&document)?;
        let new = self.files(&document)?;
        self.remark_ledger(&checked.config);
        if new == self.served {
            return Ok(document);
        }
        match self.apply(&new) {
            Ok(()) => {
                self.served = new;
                checked.remarks().iter().for_each(|remark| complain(remark));
                say("tollgate: configuration reloaded");
                Ok(document)
            }
            Err(failure) => {
                let served = self.served.clone();
                self.write_clusters(&served.clusters)?;
                self.write_listener(&served.listener)?;
                Err(failure)
            }
        }
    }

    /// Where the ledger is, and how often it is talked to, stands in what Envoy started from.
    fn remark_ledger(&self, new: &Config) {
        let Some(Ledger { at, interval_ms }) = &self.setup.ledger else { return };
        let there = match &new.tollgate.ledger_url {
            Some(endpoint) => LedgerAddress::Remote(endpoint.clone()),
            None => LedgerAddress::Socket(self.state.ledger_socket().to_owned()),
        };
        if *at != there {
            complain("`tollgate_settings.ledger_url` has changed: it is used from the next start on");
        }
        if *interval_ms != Ledger::new(there, new).interval_ms {
            complain(
                "`general_settings.proxy_batch_write_at` has changed: it is used from the next start on",
            );
        }
    }

    /// New clusters first, then the listener that names them; clusters that are gone stay a while for retries of requests
    /// that were admitted under the old configuration.
    fn apply(&mut self, new: &Files) -> Result<(), Failure> {
        let gone = self.gone(&new.clusters);
        let mut clusters = new.clusters.clone();
        clusters.extend(gone.iter().cloned());
        let refused = self.refused(CLUSTERS);
        let version = self.write_clusters(&clusters)?;
        self.await_taken(CLUSTERS, &version, refused)?;
        self.await_warm();
        if new.listener != self.served.listener {
            let refused = self.refused(LISTENERS);
            let version = self.write_listener(&new.listener)?;
            self.await_taken(LISTENERS, &version, refused)?;
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
    fn retire(&mut self) -> Result<(), Failure> {
        if self.retire_at.is_none_or(|when| when > Instant::now()) {
            return Ok(());
        }
        self.retire_at = None;
        self.write_clusters(&self.served.clusters.clone()).map(drop)
    }

    /// How many files of a kind Envoy has refused so far.
    fn refused(&self, subscription: &str) -> u64 {
        self.admin.count(&format!("{subscription}.update_rejected")).unwrap_or_default()
    }

    /// The version of a file that Envoy uses now.
    fn taken(&self, subscription: &str) -> Option<String> {
        self.admin.statistic(&format!("{subscription}.version_text")).filter(|version| !version.is_empty())
    }

    /// Waits until Envoy says that it uses `version`. `refused` is how many it had refused before the file was written.
    fn await_taken(&self, subscription: &str, version: &str, refused: u64) -> Result<(), Failure> {
        let deadline = Instant::now() + APPLY_LIMIT;
        loop {
            if self.taken(subscription).as_deref() == Some(version) {
                return Ok(());
            }
            if self.refused(subscription) > refused {
                return Err(Failure::running("Envoy refused the configuration made from it (reason above)"));
            }
            if Instant::now() > deadline {
                return Err(Failure::running(
                    "Envoy did not take over the configuration made from it in time",
                ));
            }
            thread::sleep(TICK / 4);
        }
    }

    /// Waits until new clusters know their addresses; one that never does must not hold up the others for ever.
    fn await_warm(&self) {
        let deadline = Instant::now() + APPLY_LIMIT;
        while self.admin.count("cluster_manager.warming_clusters").is_ok_and(|count| count > 0)
            && Instant::now() < deadline
        {
            thread::sleep(TICK / 4);
        }
    }

    fn start(&self) -> Result<Child, Failure> {
        let _ = std::fs::remove_file(self.state.socket());
        let (level, details) = match (self.serve.detailed_debug, self.serve.debug) {
            (Some(true), _) => ("info", DETAILS),
            (_, Some(true)) => ("info", ""),
            _ => ("warning", ""),
        };
        let mut command = Command::new(&self.binary);
        command
            .arg("--config-path")
            .arg(self.state.folder().join("envoy.json"))
            .args(["--concurrency", &self.serve.num_workers.to_string()])
            .args(["--log-level", level])
            .args(if details.is_empty() { vec![] } else { vec!["--component-log-level", details] })
            .args(["--drain-strategy", "immediate"])
            .args(["--drain-time-s", &OLD_LISTENER_SECONDS.to_string()])
            .args(["--file-flush-interval-msec", "1000"])
            .arg("--disable-hot-restart")
            .env(seal::KEY_VARIABLE, seal::key_text(&self.key))
            .env(KEY_VARIABLE, &self.secret)
            .stdin(Stdio::null());
        own_group_and_fate(&mut command);
        command
            .spawn()
            .map_err(|error| Failure::running(format!("cannot start `{}`: {error}", self.binary.display())))
    }

    fn await_ready(&self, envoy: &mut Child) -> Result<(), Failure> {
        let deadline = Instant::now() + START_LIMIT;
        let problem = loop {
            if let Some(status) = exited(envoy)? {
                return Err(Failure::running(format!("Envoy did not start: {status} (reason above)")));
            }
            if self.stop.load(Ordering::Relaxed) {
                break "stopped while Envoy was starting";
            }
            if self.admin.is_ready() {
                if SUBSCRIPTIONS.iter().any(|subscription| self.refused(subscription) > 0) {
                    break "Envoy refused the configuration made from yours (reason above)";
                }
                if SUBSCRIPTIONS.iter().all(|subscription| self.taken(subscription).is_some())
                    && self.connects()
                {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                break "Envoy did not get ready in time";
            }
            thread::sleep(TICK / 4);
        };
        let _ = self.admin.quit();
        end(envoy, END_LIMIT);
        Err(Failure::running(problem))
    }

    fn connects(&self) -> bool {
        let ip = match self.setup.host.parse() {
            Ok(IpAddr::V4(ip)) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            Ok(IpAddr::V6(ip)) if ip.is_unspecified() => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
            Ok(ip) => ip,
            Err(_) => return true,
        };
        TcpStream::connect_timeout(&SocketAddr::new(ip, self.setup.port), Duration::from_secs(1)).is_ok()
    }

    /// Starts Envoy again after it died for the `deaths`th time in a row.
    fn restart(&self, status: ExitStatus, mut deaths: u32) -> Result<Child, Failure> {
        loop {
            if deaths > DEATHS {
                return Err(Failure::running(format!(
                    "Envoy died {DEATHS} times in a row ({status}): giving up"
                )));
            }
            complain(&format!("Envoy ended ({status}): starting it again"));
            if deaths > 1 {
                thread::sleep(Duration::from_millis(100 << deaths.min(6)));
            }
            let mut envoy = self.start()?;
            match self.await_ready(&mut envoy) {
                Ok(()) => return Ok(envoy),
                Err(failure) if self.stop.load(Ordering::Relaxed) => return Err(failure),
                Err(failure) => complain(&failure.to_string()),
            }
            deaths += 1;
        }
    }

    /// Takes no new connections, lets requests in flight end, then ends Envoy. A second signal ends everything at once.
    fn drain(&mut self, mut envoy: Child) -> Result<(), Failure> {
        let begun = Instant::now();
        let _ = self.admin.fail_health_checks();
        let _ = self.admin.stop_listening();
        let mut idle = 0;
        while idle < 2 && begun.elapsed() < self.served.drain && exited(&mut envoy)?.is_none() {
            let active = self.admin.count(&format!("http.{}.downstream_rq_active", listener::STAT_PREFIX));
            idle = if matches!(active, Ok(1..)) { 0 } else { idle + 1 };
            self.keep();
            thread::sleep(TICK);
        }
        self.flush();
        let _ = self.admin.quit();
        end(&mut envoy, END_LIMIT);
        if let Some(mut keeper) = self.keeper.take() {
            keeper.end();
        }
        Ok(())
    }

    /// Waits until the ledger has all usage, as far as it can be reached.
    fn flush(&mut self) {
        let interval = self.setup.ledger.as_ref().map_or(0, |ledger| ledger.interval_ms);
        let deadline = Instant::now() + FLUSH_LIMIT + Duration::from_millis(interval);
        loop {
            match self.unsent() {
                Some(0) | None => return,
                Some(unsent) if Instant::now() > deadline => {
                    complain(&format!(
                        "the ledger was not reached: usage of the last {unsent} calls is lost"
                    ));
                    return;
                }
                Some(_) => {}
            }
            self.keep();
            thread::sleep(TICK / 4);
        }
    }

    /// How many calls the ledger has not been told of; `None` when Envoy cannot be asked.
    fn unsent(&self) -> Option<u64> {
        let count = |name: &str| self.admin.count(&format!("wasmcustom.{name}")).ok();
        // In this order, so that what comes in between is not missed.
        let acknowledged = count("tollgate_events_acknowledged")?;
        Some(count("tollgate_events_enqueued")?.saturating_sub(acknowledged))
    }
}

/// What Envoy and the ledger share: given by the operator when they are on different machines, else new with each start.
fn ledger_secret(config: &Config) -> Result<String, Failure> {
    if let Some(secret) = env::var(KEY_VARIABLE).ok().filter(|secret| !secret.is_empty()) {
        return Ok(secret);
    }
    if config.tollgate.ledger_url.is_some() {
        return Err(Failure::configuration(format!(
            "`tollgate_settings.ledger_url` needs {KEY_VARIABLE}: the secret of that ledger"
        )));
    }
    Ok(seal::key_text(&new_key()?))
}

fn exited(envoy: &mut Child) -> Result<Option<ExitStatus>, Failure> {
    envoy.try_wait().map_err(|error| Failure::running(format!("cannot watch Envoy: {error}")))
}

fn stop_signal() -> Result<Arc<AtomicBool>, Failure> {
    use signal_hook::{consts, flag};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [consts::SIGTERM, consts::SIGINT] {
        // The order matters: the second signal finds the flag set and ends the process.
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| Failure::running(format!("cannot handle signals: {error}")))?;
    }
    Ok(stop)
}

/// A sealing key for the life of this process.
fn new_key() -> Result<seal::Key, Failure> {
    let mut key = [0; seal::KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| Failure::running(format!("no random numbers: {error}")))?;
    Ok(key)
}

/// `tollgate_settings.access_log`: `stdout` (the default), `off`, or a file.
fn access_log(document: &Document) -> Result<AccessLog, Failure> {
    let setting = document.setting("tollgate_settings", "access_log");
    match setting {
        None | Some(serde_yaml::Value::Bool(true)) => Ok(AccessLog::Stdout),
        Some(serde_yaml::Value::Bool(false)) => Ok(AccessLog::Off),
        Some(serde_yaml::Value::String(text)) => Ok(match text.as_str() {
            "stdout" => AccessLog::Stdout,
            "off" => AccessLog::Off,
            file => AccessLog::File(file.to_owned()),
        }),
        Some(_) => Err(Failure::configuration(
            "`tollgate_settings.access_log`: expected `stdout`, `off` or the name of a file",
        )),
    }
}

fn text(value: &Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Failure::running(format!("the configuration cannot be written: {error}")))
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_logs_are_read() {
        let file = env::temp_dir().join(format!("tollgate-settings-{}.yaml", std::process::id()));
        for (settings, log) in [
            ("{}", Some(AccessLog::Stdout)),
            ("{tollgate_settings: {access_log: stdout}}", Some(AccessLog::Stdout)),
            ("{tollgate_settings: {access_log: off}}", Some(AccessLog::Off)),
            ("{tollgate_settings: {access_log: false}}", Some(AccessLog::Off)),
            ("{tollgate_settings: {access_log: /x/y}}", Some(AccessLog::File("/x/y".to_owned()))),
            ("{tollgate_settings: {access_log: [1]}}", None),
        ] {
            std::fs::write(&file, settings).unwrap();
            let document = document::read_file(file.clone()).unwrap();
            assert_eq!(access_log(&document).ok(), log, "{settings}");
        }
        std::fs::remove_file(file).unwrap();
    }
}
