//! Serving: writes Envoy's configuration, starts Envoy, follows `config.yaml`, restarts Envoy when it dies, drains at the end.
//!
//! One thread, one loop: everything that can happen (a signal, a dead child, a changed file, clusters to forget) is looked
//! at a few times a second. Files are looked at by their stamps and not through inotify, which says nothing about bind
//! mounts and network file systems, and goes blind when a configuration map swaps a symbolic link.

mod apply;
mod drain;
mod lasting;
mod signals;

use std::{
    env,
    net::{IpAddr, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Failure, admin, binary, checked,
    cli::{Serve, bracketed},
    complain,
    document::{self, Document},
    dynamic::StoredModel,
    envoy::{Admin, Ledger, LedgerAddress, Module, SEARCH_PATH, Setup, bootstrap, callable},
    follow::{self, Follower, Stored},
    host,
    keeper::Keeper,
    log,
    machine::{authorities, claim, half_of_memory, variables},
    metrics,
    process::{end, hand_on, keep_private, own_group_and_fate},
    start,
    state::{self, State},
    watch::Watch,
};
use apply::{FOLLOWED, Files};
use lasting::Lasting;
use signals::Signals;

use crate::core::{
    config::{Config, FilterHost, seal},
    protocol::KEY_VARIABLE,
};

/// How often the loop looks.
const TICK: Duration = Duration::from_millis(100);

/// How long Envoy may take to be ready.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Requests on connections of an earlier configuration have this long.
const OLD_LISTENER_SECONDS: u32 = 1800;

/// An Envoy that lived this long was well; its death is not counted.
const WELL: Duration = Duration::from_secs(30);

/// Deaths in a row before the command gives up.
const DEATHS: u32 = 5;

/// So many deaths within [`NATIVE_PERIOD`] of an Envoy with the dynamic module, and the filter is run as Wasm from then on: a fault in
/// native code ends the whole process.
const NATIVE_DEATHS: usize = 3;
const NATIVE_PERIOD: Duration = Duration::from_secs(60);

/// How long Envoy may take to end, once it was told to.
const END_LIMIT: Duration = Duration::from_secs(5);

/// What `--debug` logs: what the filter decides, and nothing of what Envoy is made of.
const DECISIONS: &str = "wasm:info,dynamic_modules:info";

/// What `--detailed_debug` logs besides. Envoy's `http` and `router` logs are left out: they show headers, keys among them.
const DETAILS: &str = "config:debug,dns:debug,pool:debug,upstream:debug,wasm:debug,dynamic_modules:debug";

/// Where glibc reads how a program wants it.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// The setting by which glibc leaves the restartable sequences of the kernel to the program. Envoy's allocator needs them for
/// one cache for each CPU; without, it has one for each thread, and all that one thread frees of what another took stays there.
const RSEQ: &str = "glibc.pthread.rseq";

/// Serves until a signal ends it or Envoy cannot be kept alive.
pub fn serve(serve: &Serve) -> Result<(), Failure> {
    host::is_built()?;
    let umask = keep_private();
    let document = document::read(serve)?;
    let checked = checked::check_document(&document)?;
    start::refusals(&document, &checked, serve.allow_open == Some(true))?;
    state::await_end_of_the_last(serve.state_dir.as_deref());
    let address = claim(&serve.host, serve.port)?;
    let state = State::open(serve.state_dir.as_deref(), &serve.host, address.port())?;
    let mut there = serve.clone();
    there.port = address.port();
    state.remarks().iter().for_each(|remark| complain(remark));
    let scheme = if serve.ssl_certfile_path.is_some() { "https" } else { "http" };
    let listens = format!("{scheme}://{}:{}", bracketed(&serve.host), address.port());
    start::warnings(&document, &checked, &listens).iter().for_each(|warning| complain(warning));
    state.note_address(there.url())?;
    let signals = Signals::listen()?;
    let key = new_key()?;
    let secret = ledger_secret()?;
    let at = match &checked.config.tollgate.ledger_url {
        Some(endpoint) => LedgerAddress::Remote(endpoint.clone()),
        None => LedgerAddress::Socket(state.ledger_socket().to_owned()),
    };
    let mut keeper = match &at {
        LedgerAddress::Socket(socket) => Some(Keeper::start(socket, state.folder(), &there.url(), &secret)?),
        LedgerAddress::Remote(_) => None,
    };
    // While the ledger starts: asking a program for its version takes as long as loading it.
    let binary = binary::find(serve.envoy.as_deref())?;
    let (host, why) = host::choose(serve.filter_host.or(checked.config.tollgate.host), binary.version);
    why.iter().for_each(|why| complain(why));
    let setup = Setup {
        host: address.ip().to_string(),
        port: address.port(),
        tls: serve.ssl_certfile_path.clone().zip(serve.ssl_keyfile_path.clone()),
        module: host::install(host, &state)?,
        variables: variables(),
        admin: Admin::Socket(state.socket().to_owned()),
        ledger: Some(Ledger::new(at.clone(), &checked.config)),
        authorities: authorities()?,
        max_memory_bytes: checked.config.tollgate.max_memory_bytes.or_else(half_of_memory),
    };
    metrics::serve(state.socket())?;
    if let Some(keeper) = &mut keeper {
        keeper.await_ready(signals.stop())?;
    }
    let (follower, models) = Follower::start(follow::Ledger::at(&at, &secret, &setup.authorities)?);
    let mut stored = Stored::default();
    stored.replace(models);
    let place = start::Place {
        url: there.url(),
        state: state.folder().display().to_string(),
        stored: stored.count(),
    };
    let mut summary = start::summary(&checked, &place);
    if host == FilterHost::Native {
        summary.push(host::NATIVE_LINE.to_owned());
    }
    let mut instance = Instance {
        secret,
        keeper,
        follower,
        stored,
        serve,
        own: env::current_exe()
            .map_err(|error| Failure::running(format!("cannot find this program: {error}")))?,
        binary: binary.path,
        admin: admin::Envoy::new(state.socket()),
        state,
        key,
        is_open: checked.config.general.master_key.is_none(),
        umask,
        lasting: Lasting::of(&checked.config),
        setup,
        signals,
        version: 0,
        served: Files::default(),
        present: Vec::new(),
        routed: Vec::new(),
        retire_at: None,
        native_deaths: Vec::new(),
    };
    instance.run(document, &listens, &summary)
}

struct Instance<'a> {
    serve: &'a Serve,
    /// This program, which runs Envoy's guard.
    own: PathBuf,
    binary: PathBuf,
    admin: admin::Envoy,
    state: State,
    key: seal::Key,
    /// What Envoy and the ledger share.
    secret: String,
    /// The ledger, when it is ours.
    keeper: Option<Keeper>,
    follower: Follower,
    /// The models of the ledger's database.
    stored: Stored,
    setup: Setup,
    signals: Signals,
    /// Whether it is served without a master key.
    is_open: bool,
    /// The user's own, which holds for the access log.
    umask: u32,
    /// Settings that a reload does not change.
    lasting: Lasting,
    /// Goes up with every file that is written.
    version: u64,
    /// What Envoy is meant to serve now.
    served: Files,
    /// Clusters that Envoy has: those served, and those that wait to be taken away.
    present: Vec<Value>,
    /// Names of those that routes lead to.
    routed: Vec<String>,
    /// When to leave only the clusters that are served.
    retire_at: Option<Instant>,
    /// When an Envoy with the dynamic module died, as far as it counts.
    native_deaths: Vec<Instant>,
}

impl Instance<'_> {
    fn run(&mut self, mut document: Document, listens: &str, summary: &[String]) -> Result<(), Failure> {
        let mut watch = Watch::new(&document.files);
        self.served = self.files(&document)?;
        self.write_bootstrap()?;
        self.write_all(&self.served.clone())?;
        let mut envoy = self.start()?;
        self.await_ready(&mut envoy)?;
        for line in summary {
            if line.starts_with(start::LEFT_OUT) { complain(line) } else { log::info(line) }
        }
        log::info(&format!("listening on {listens}"));
        let (mut started, mut deaths) = (Instant::now(), 0);
        loop {
            if self.signals.must_stop() {
                return self.drain(envoy);
            }
            if self.signals.reopen_logs() {
                self.reopen_logs();
            }
            self.keep();
            if let Some(status) = exited(&mut envoy)? {
                deaths = if started.elapsed() >= WELL { 1 } else { deaths + 1 };
                envoy = self.restart(status, deaths, &document)?;
                started = Instant::now();
            }
            let asked = self.signals.reload();
            if watch.changed() || asked {
                match self.reload(asked) {
                    Ok(read) => {
                        watch.follow(&read.files);
                        document = read;
                    }
                    Err(failure) => not_used(&failure),
                }
            }
            self.retire()?;
            if let Some(models) = self.follower.next(TICK) {
                self.take_models(models, &document);
            }
        }
    }

    /// Looks after the ledger, when it is ours.
    fn keep(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.look();
        }
    }

    /// What `document` means to Envoy, with the stored models behind its own.
    fn files(&mut self, document: &Document) -> Result<Files, Failure> {
        let (document, remarks) = self.stored.merged(document);
        remarks.iter().for_each(|remark| complain(remark));
        let sealed = document.sealed(&self.key)?;
        let checked = checked::check(&sealed, Some(&self.key))?;
        let access_log = start::access_log(&document)?;
        Ok(self.files_for(&checked.config, &sealed, &access_log))
    }

    /// Reads the configuration again and has Envoy take it over. Requests in flight are not touched. When anything is
    /// wrong with it, what was served before is served on. Whoever `asked` for it is told also that nothing has changed.
    fn reload(&mut self, asked: bool) -> Result<Document, Failure> {
        let document = document::read(self.serve)?;
        let checked = checked::check_document(&document)?;
        checked::stays_closed(self.is_open, &checked.config)?;
        let new = self.files(&document)?;
        self.lasting.waits(&checked.config).iter().for_each(|remark| complain(remark));
        if new != self.served {
            self.apply(new)?;
            checked.remarks().iter().chain(&checked.left_out()).for_each(|line| complain(line));
            log::info(&format!("configuration reloaded: {}", deployments(&checked.config)));
        } else if asked {
            log::info(&format!(
                "configuration reloaded, nothing has changed: {}",
                deployments(&checked.config)
            ));
        }
        self.is_open = checked.config.general.master_key.is_none();
        Ok(document)
    }

    /// Serves other stored models beside those of the configuration.
    fn take_models(&mut self, models: Vec<StoredModel>, document: &Document) {
        self.stored.replace(models);
        match self.files(document) {
            Ok(new) if new == self.served => {}
            Ok(new) => match self.apply(new) {
                Ok(()) => log::info(&format!("models of the database: {}", self.stored.count())),
                Err(failure) => not_used(&failure),
            },
            Err(failure) => not_used(&failure),
        }
        self.follower.taken();
    }

    fn start(&self) -> Result<Child, Failure> {
        let _ = std::fs::remove_file(self.state.socket());
        self.served.make_log(self.state.folder(), self.umask);
        let (level, details) = match (self.serve.detailed_debug, self.serve.debug) {
            (Some(true), _) => ("warning", DETAILS),
            (_, Some(true)) => ("warning", DECISIONS),
            _ => ("warning", ""),
        };
        let mut command = Command::new(&self.own);
        command
            .args(["guard", "--parent", &std::process::id().to_string(), "--admin"])
            .arg(self.state.socket())
            .arg("--")
            .arg(&self.binary)
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
            .env(SEARCH_PATH, self.state.folder())
            .env(TUNABLES, tunables(env::var(TUNABLES).ok()))
            .stdin(Stdio::null());
        own_group_and_fate(&mut command);
        hand_on(&mut command, self.state.lock());
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
            if self.signals.must_stop() {
                break "stopped while Envoy was starting";
            }
            if self.admin.is_ready() {
                if FOLLOWED.iter().any(|followed| self.refused(*followed) > 0) {
                    break "Envoy refused the configuration made from yours (reason above)";
                }
                if FOLLOWED.iter().all(|followed| self.taken(*followed).is_some()) && self.connects() {
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

    /// Envoy has died: whether that was once too often for the dynamic module.
    fn must_leave_native(&mut self) -> bool {
        if !matches!(self.setup.module, Module::Native(_)) {
            return false;
        }
        self.native_deaths.retain(|died| died.elapsed() < NATIVE_PERIOD);
        self.native_deaths.push(Instant::now());
        self.native_deaths.len() >= NATIVE_DEATHS
    }

    /// Has the next Envoy run the filter as Wasm.
    fn leave_native(&mut self, document: &Document) -> Result<(), Failure> {
        complain(&format!(
            "Envoy died {NATIVE_DEATHS} times in a minute with the filter as a dynamic module: from now on it runs as Wasm"
        ));
        self.setup.module = host::install(FilterHost::Wasm, &self.state)?;
        self.write_bootstrap()?;
        self.served = self.files(document)?;
        self.write_all(&self.served.clone())
    }

    fn write_bootstrap(&self) -> Result<(), Failure> {
        let bootstrap = bootstrap::served(&self.setup, self.state.folder());
        self.state.replace("envoy.json", text(&bootstrap)?.as_bytes()).map(drop)
    }

    /// Starts Envoy again after it died for the `deaths`th time in a row.
    fn restart(
        &mut self,
        status: ExitStatus,
        mut deaths: u32,
        document: &Document,
    ) -> Result<Child, Failure> {
        loop {
            if self.must_leave_native() {
                self.leave_native(document)?;
            }
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
                Err(failure) if self.signals.must_stop() => return Err(failure),
                Err(failure) => complain(&failure.to_string()),
            }
            deaths += 1;
        }
    }
}

/// What Envoy and the ledger share: given by the operator when they are on different machines, else new with each start.
fn ledger_secret() -> Result<String, Failure> {
    if let Some(secret) = env::var(KEY_VARIABLE).ok().filter(|secret| !secret.is_empty()) {
        return Ok(secret);
    }
    Ok(seal::key_text(&new_key()?))
}

/// What Envoy is to run with: what is set already, and [`RSEQ`] unless that is among it.
fn tunables(given: Option<String>) -> String {
    let given = given.unwrap_or_default();
    if given.split(':').any(|setting| setting.split('=').next() == Some(RSEQ)) {
        return given;
    }
    let colon = if given.is_empty() { "" } else { ":" };
    format!("{given}{colon}{RSEQ}=0")
}

/// Says why what was read is not served.
fn not_used(failure: &Failure) {
    for line in failure.to_string().lines() {
        complain(line);
    }
    complain("the configuration above is not used; the earlier one stays in force");
}

fn exited(envoy: &mut Child) -> Result<Option<ExitStatus>, Failure> {
    envoy.try_wait().map_err(|error| Failure::running(format!("cannot watch Envoy: {error}")))
}

/// How much of a configuration is served.
fn deployments(config: &Config) -> String {
    let count = callable(config).count();
    format!("{count} deployment{}", if count == 1 { "" } else { "s" })
}

/// A sealing key for the life of this process.
fn new_key() -> Result<seal::Key, Failure> {
    let mut key = [0; seal::KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| Failure::running(format!("no random numbers: {error}")))?;
    Ok(key)
}

fn text(value: &Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Failure::running(format!("the configuration cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_has_tuned_stays() {
        for (given, expected) in [
            (None, "glibc.pthread.rseq=0"),
            (Some(""), "glibc.pthread.rseq=0"),
            (Some("glibc.malloc.check=1"), "glibc.malloc.check=1:glibc.pthread.rseq=0"),
            (Some("glibc.pthread.rseq=1:a=b"), "glibc.pthread.rseq=1:a=b"),
        ] {
            assert_eq!(tunables(given.map(str::to_owned)), expected);
        }
    }
}
