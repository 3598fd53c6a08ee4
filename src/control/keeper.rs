//! The ledger's process: started with the gateway, started again whenever it dies or hangs, ended after Envoy.
//!
//! It is a process of its own so that nothing that happens to it takes Envoy along: while it is away, keys that are known go on.

mod pulse;

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    Failure, admin, complain,
    process::{self, own_group_and_fate, step_back},
};
use crate::core::protocol::{KEY_VARIABLE, READY_PATH};
use pulse::Pulse;

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

/// Times that a ledger was started in the place of one that died or hung.
static RESTARTS: AtomicU64 = AtomicU64::new(0);

/// How often a ledger was started in the place of one that died or hung, in the life of this process.
pub fn restarts() -> u64 {
    RESTARTS.load(Ordering::Relaxed)
}

/// A ledger that is kept alive.
#[derive(Debug)]
pub struct Keeper {
    /// Program and arguments.
    words: Vec<OsString>,
    socket: PathBuf,
    secret: String,
    child: Option<Child>,
    pulse: Pulse,
    started: Instant,
    deaths: u32,
    start_at: Instant,
}

impl Keeper {
    /// Starts a ledger that listens on `socket` and keeps its file in `folder`; [`Keeper::await_ready`] waits for it. It is
    /// this same program with the same flags: it reads the same configuration. `gateway` is the URL at which it calls
    /// deployments.
    pub fn start(socket: &Path, folder: &Path, gateway: &str, secret: &str) -> Result<Keeper, Failure> {
        let mut words = vec![env::current_exe().map_err(cannot_start)?.into_os_string(), "ledger".into()];
        words.extend(env::args_os().skip(1));
        words.extend(["--socket".into(), socket.into(), "--database_dir".into(), folder.into()]);
        words.extend(["--gateway".into(), gateway.into()]);
        Keeper::begin(words, socket, secret)
    }

    fn begin(words: Vec<OsString>, socket: &Path, secret: &str) -> Result<Keeper, Failure> {
        let mut keeper = Keeper {
            words,
            socket: socket.to_owned(),
            secret: secret.to_owned(),
            child: None,
            pulse: Pulse::feel(socket, secret),
            started: Instant::now(),
            deaths: 0,
            start_at: Instant::now(),
        };
        keeper.child = Some(keeper.spawn()?);
        Ok(keeper)
    }

    /// Waits until it is ready for the first time.
    pub fn await_ready(&mut self, stop: &AtomicBool) -> Result<(), Failure> {
        let deadline = self.started + START_LIMIT;
        while !self.is_ready() {
            if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                return Err(did_not_start(status));
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::running("stopped while the ledger was starting"));
            }
            if Instant::now() > deadline {
                return Err(Failure::running("the ledger did not get ready in time"));
            }
            thread::sleep(LOOK);
        }
        // What may be served is decided at the start, and not when a ledger takes the place of one that died.
        self.words.push("--allow_open".into());
        Ok(())
    }

    /// Looks after it: one that has died is started again, after a pause that grows while it keeps dying; one that hangs dies.
    pub fn look(&mut self) {
        if let Some(child) = &mut self.child {
            if let Some(silence) = self.pulse.hangs(child.id()) {
                complain(&format!(
                    "the ledger hangs: it has not answered for {} s. It is ended and started again.",
                    silence.as_secs()
                ));
                self.pulse.begin_anew();
                let _ = child.kill();
            }
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
                    self.pulse.begin_anew();
                    self.started = Instant::now();
                    RESTARTS.fetch_add(1, Ordering::Relaxed);
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
        if let Ok(id) = libc::pid_t::try_from(child.id()) {
            // SAFETY: the process is our child and has not been waited for, so its number is its own.
            unsafe { libc::kill(id, libc::SIGTERM) };
        }
        process::end(&mut child, END_LIMIT);
    }

    fn spawn(&self) -> Result<Child, Failure> {
        let (program, arguments) =
            self.words.split_first().ok_or_else(|| Failure::running("the ledger has no program"))?;
        let mut command = Command::new(program);
        command.args(arguments).env(KEY_VARIABLE, &self.secret).stdin(Stdio::null());
        own_group_and_fate(&mut command);
        step_back(&mut command);
        command.spawn().map_err(cannot_start)
    }

    fn is_ready(&self) -> bool {
        let header = format!("authorization: Bearer {}\r\n", self.secret);
        admin::call(&self.socket, "GET", READY_PATH, &header).is_ok_and(|(status, _)| status == 200)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end();
    }
}

fn cannot_start(error: std::io::Error) -> Failure {
    Failure::running(format!("cannot start the ledger: {error}"))
}

/// It has said why. Whether that is the configuration's fault, its exit code says.
fn did_not_start(status: ExitStatus) -> Failure {
    let problem = format!("the ledger did not start: {status} (reason above)");
    if status.code() == Some(2) { Failure::configuration(problem) } else { Failure::running(problem) }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixListener,
    };

    use super::*;

    static GO_ON: AtomicBool = AtomicBool::new(false);

    /// A socket on which somebody answers as a ready ledger does, once it was shown the secret.
    fn ready(name: &str) -> PathBuf {
        let path = env::temp_dir().join(format!("tollgate-keeper-{name}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 1024];
                let size = stream.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..size]).into_owned();
                let good = request.contains("authorization: Bearer s3cret") && request.contains(READY_PATH);
                let status = if good { "200 OK" } else { "401 No" };
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            }
        });
        path
    }

    fn words(script: &str) -> Vec<OsString> {
        ["/bin/sh", "-c", script].map(OsString::from).to_vec()
    }

    fn begin(script: &str, socket: &Path) -> Result<Keeper, Failure> {
        let mut keeper = Keeper::begin(words(script), socket, "s3cret")?;
        keeper.await_ready(&GO_ON)?;
        Ok(keeper)
    }

    #[test]
    fn a_ledger_that_does_not_start_says_whose_fault_it_is() {
        let nobody = Path::new("/nonexistent/ledger.sock");
        assert!(matches!(begin("exit 2", nobody), Err(Failure::Configuration(_))));
        let failure = begin("exit 1", nobody).unwrap_err();
        assert_eq!(failure, Failure::running("the ledger did not start: exit status: 1 (reason above)"));
        let gone = Keeper::begin(vec!["/nonexistent/program".into()], nobody, "s3cret");
        assert!(gone.unwrap_err().to_string().starts_with("cannot start the ledger"));
        let mut stopped = Keeper::begin(words("sleep 60"), nobody, "s3cret").unwrap();
        assert!(
            stopped.await_ready(&AtomicBool::new(true)).unwrap_err().to_string().contains("stopped while")
        );
    }

    #[test]
    fn a_ledger_that_dies_is_started_again_after_a_pause_that_grows() {
        let mut keeper = begin("sleep 60", &ready("dies")).unwrap();
        for pause in [100, 200, 400] {
            keeper.child.as_mut().unwrap().kill().unwrap();
            let died = Instant::now();
            while keeper.child.is_some() {
                keeper.look();
            }
            while keeper.child.is_none() {
                keeper.look();
                thread::sleep(Duration::from_millis(1));
            }
            assert!(died.elapsed() >= Duration::from_millis(pause), "{:?} after {pause}", died.elapsed());
        }
        // One that lived long enough was well: the pause begins anew.
        keeper.started = Instant::now().checked_sub(WELL).unwrap();
        keeper.child.as_mut().unwrap().kill().unwrap();
        while keeper.child.is_some() {
            keeper.look();
        }
        assert_eq!(keeper.deaths, 1);
    }

    #[test]
    fn a_ledger_ends_when_it_is_told_to_and_knows_the_secret() {
        let told = env::temp_dir().join(format!("tollgate-keeper-told-{}", std::process::id()));
        let script = format!(
            "trap 'echo ended >> {0}; exit 0' TERM; echo $TOLLGATE_LEDGER_KEY > {0}; while :; do sleep 0.05; done",
            told.display()
        );
        let mut keeper = begin(&script, &ready("ends")).unwrap();
        while std::fs::read_to_string(&told).unwrap_or_default().is_empty() {
            thread::sleep(LOOK);
        }
        keeper.end();
        assert_eq!(std::fs::read_to_string(&told).unwrap(), "s3cret\nended\n");
        // Nothing is left to end.
        keeper.end();
        std::fs::remove_file(told).unwrap();
    }
}
