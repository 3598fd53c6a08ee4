//! What signals ask for.
//!
//! | signal | what it asks for |
//! |---|---|
//! | SIGTERM, SIGINT | the end: requests in flight may finish; a second one cuts them off, a third ends the process there and then |
//! | SIGHUP | the configuration is read again; from a terminal that was closed, the end |
//! | SIGUSR1 | log files are opened again |

use std::{
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::{consts, flag};

use crate::control::Failure;

/// Signals that came and were not looked at yet.
#[derive(Debug)]
pub(super) struct Signals {
    stop: Arc<AtomicBool>,
    hangup: Arc<AtomicBool>,
    reopen: Arc<AtomicBool>,
    /// From now on a signal to stop ends the process.
    last: Arc<AtomicBool>,
    has_terminal: bool,
}

impl Signals {
    /// Listens for them from now on.
    pub(super) fn listen() -> Result<Signals, Failure> {
        let [stop, hangup, reopen, last] = [(); 4].map(|()| Arc::new(AtomicBool::new(false)));
        for signal in [consts::SIGTERM, consts::SIGINT] {
            flag::register_conditional_shutdown(signal, 1, Arc::clone(&last)).map_err(cannot_listen)?;
            flag::register(signal, Arc::clone(&stop)).map_err(cannot_listen)?;
        }
        flag::register(consts::SIGHUP, Arc::clone(&hangup)).map_err(cannot_listen)?;
        flag::register(consts::SIGUSR1, Arc::clone(&reopen)).map_err(cannot_listen)?;
        Ok(Signals { stop, hangup, reopen, last, has_terminal: has_terminal() })
    }

    /// True once it has to stop.
    pub(super) fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// Whether it has to stop.
    pub(super) fn must_stop(&self) -> bool {
        if self.has_terminal && self.hangup.load(Ordering::Relaxed) && !has_terminal() {
            self.stop.store(true, Ordering::Relaxed);
        }
        self.stop.load(Ordering::Relaxed)
    }

    /// It stops; the next signal to stop is a second one.
    pub(super) fn stopping(&self) {
        self.hangup.store(false, Ordering::Relaxed);
        self.stop.store(false, Ordering::Relaxed);
    }

    /// The next signal to stop ends the process.
    pub(super) fn stop_hard(&self) {
        self.last.store(true, Ordering::Relaxed);
    }

    /// Whether the configuration is to be read again.
    pub(super) fn reload(&self) -> bool {
        !self.must_stop() && self.hangup.swap(false, Ordering::Relaxed)
    }

    /// Whether log files are to be opened again.
    pub(super) fn reopen_logs(&self) -> bool {
        self.reopen.swap(false, Ordering::Relaxed)
    }
}

fn cannot_listen(error: std::io::Error) -> Failure {
    Failure::running(format!("cannot handle signals: {error}"))
}

/// Whether somebody sits at a terminal that this process belongs to.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}
