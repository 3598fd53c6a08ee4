//! The ledger's process: started with the gateway, started again whenever it dies, ended after Envoy.
//!
//! It is a process of its own so that nothing that happens to it takes Envoy along: while it is away, keys that are known go on.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{Failure, admin, complain, supervise::own_group_and_fate};
use crate::core::ledger::KEY_VARIABLE;

/// How long it may take to be ready the first time (a database may have to be made).
const START_LIMIT: Duration = Duration::from_secs(60);
/// The pause before it is started again: after the first death, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A ledger that lived this long was well; its death is not counted.
const WELL: Duration = Duration::from_secs(30);
/// How long it may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked at while something is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// A ledger that is kept alive.
#[derive(Debug)]
pub struct Keeper {
    socket: PathBuf,
    folder: PathBuf,
    secret: String,
    child: Option<Child>,
    started: Instant,
    deaths: u32,
    start_at: Instant,
}

impl Keeper {
    /// Starts a ledger that listens on `socket` and keeps its file in `folder`, and waits until it is ready.
    pub fn start(socket: &Path, folder: &Path, secret: &str) -> Result<Keeper, Failure> {
        let mut keeper = Keeper {
            socket: socket.to_owned(),
            folder: folder.to_owned(),
            secret: secret.to_owned(),
            child: None,
            started: Instant::now(),
            deaths: 0,
            start_at: Instant::now(),
        };
        keeper.child = Some(keeper.spawn()?);
        let deadline = Instant::now() + START_LIMIT;
        while !keeper.is_ready() {
            if let Some(Ok(Some(status))) = keeper.child.as_mut().map(Child::try_wait) {
                return Err(Failure::running(format!("the ledger did not start: {status} (reason above)")));
            }
            if Instant::now() > deadline {
                return Err(Failure::running("the ledger did not get ready in time"));
            }
            thread::sleep(LOOK);
        }
        Ok(keeper)
    }

    /// Looks after it: one that has died is started again, after a pause that grows while it keeps dying.
    pub fn look(&mut self) {
        if let Some(child) = &mut self.child {
            let Ok(Some(status)) = child.try_wait() else { return };
            self.child = None;
            self.deaths = if self.started.elapsed() >= WELL { 1 } else { self.deaths.saturating_add(1) };
            let pause = PAUSE.0.saturating_mul(1 << self.deaths.saturating_sub(1).min(10)).min(PAUSE.1);
            self.start_at = Instant::now() + pause;
            complain(&format!("the ledger ended ({status}): starting it again. Keys that are known go on."));
        }
        if Instant::now() >= self.start_at {
            match self.spawn() {
                Ok(child) => {
                    self.child = Some(child);
                    self.started = Instant::now();
                }
                Err(failure) => {
                    complain(&failure.to_string());
                    self.start_at = Instant::now() + PAUSE.1;
                }
            }
        }
    }

    /// Tells it to end, and waits.
    #[expect(unsafe_code, reason = "a signal is sent by a system call")]
    pub fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Ok(process) = libc::pid_t::try_from(child.id()) {
            // SAFETY: the process is our child and has not been waited for, so its number is its own.
            unsafe { libc::kill(process, libc::SIGTERM) };
        }
        let deadline = Instant::now() + END_LIMIT;
        while Instant::now() < deadline {
            if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            thread::sleep(LOOK);
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    /// The same program with the same flags: it reads the same configuration.
    fn spawn(&self) -> Result<Child, Failure> {
        let cannot = |error: std::io::Error| Failure::running(format!("cannot start the ledger: {error}"));
        let program = env::current_exe().map_err(cannot)?;
        let mut command = Command::new(program);
        command
            .arg("ledger")
            .args(env::args_os().skip(1).collect::<Vec<OsString>>())
            .arg("--socket")
            .arg(&self.socket)
            .arg("--database_dir")
            .arg(&self.folder)
            .env(KEY_VARIABLE, &self.secret)
            .stdin(Stdio::null());
        own_group_and_fate(&mut command);
        command.spawn().map_err(cannot)
    }

    fn is_ready(&self) -> bool {
        let header = format!("authorization: Bearer {}\r\n", self.secret);
        admin::call(&self.socket, "GET", "/internal/ready", &header).is_ok_and(|(status, _)| status == 200)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end();
    }
}
