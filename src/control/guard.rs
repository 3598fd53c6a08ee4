//! The process between the command and Envoy: it outlives a command that was killed, so that what Envoy has counted by then comes to
//! the ledger before Envoy ends too.
//!
//! As long as the command lives it only waits, and ends as Envoy ends. Killed itself, it takes Envoy along.

use std::{
    ffi::OsString,
    os::unix::process::{ExitStatusExt, parent_id},
    path::PathBuf,
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use signal_hook::{
    consts::{SIGCHLD, SIGTERM},
    iterator::Signals,
    low_level,
};

use super::{Failure, admin, complain, flush, process};

/// How long requests in flight may go on without a command.
const REQUESTS: Duration = Duration::from_secs(5);
/// How long the last usage may take to reach the ledger.
const USAGE: Duration = Duration::from_secs(5);
/// How long Envoy may take to end, once it was told to.
const END: Duration = Duration::from_secs(2);
/// What to run, and for whom.
#[derive(Clone, Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct Flags {
    /// The process that starts this one
    #[arg(long)]
    pub parent: u32,
    /// Envoy's admin socket
    #[arg(long)]
    pub admin: PathBuf,
    /// Envoy and its arguments
    #[arg(last = true, required = true)]
    pub words: Vec<OsString>,
}

/// Runs Envoy to its end, and ends as it did.
pub fn run(flags: &Flags) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| Failure::running(format!("cannot start Envoy: {error}"));
    let mut signals = Signals::new([SIGCHLD, SIGTERM]).map_err(failed)?;
    let (program, arguments) =
        flags.words.split_first().ok_or_else(|| Failure::running("there is no Envoy"))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    process::die_together(&mut command);
    let mut envoy = command.spawn().map_err(failed)?;
    loop {
        if let Ok(Some(status)) = envoy.try_wait() {
            return Ok(end_as(status));
        }
        // A signal to end that is for all processes is the command's business.
        if parent_id() != flags.parent {
            return Ok(end_as(finish(&mut envoy, &admin::Envoy::new(&flags.admin))));
        }
        signals.wait();
    }
}

/// Ends Envoy in order, as the command would have, if it were not in a hurry.
fn finish(envoy: &mut Child, admin: &admin::Envoy) -> ExitStatus {
    complain("the command is gone: Envoy ends, once its last usage is in the ledger");
    let _ = admin.fail_health_checks();
    let _ = admin.stop_listening();
    let deadline = Instant::now() + REQUESTS;
    while flush::active(admin) > 0 && Instant::now() < deadline {
        thread::sleep(flush::LOOK);
    }
    let lost = flush::flush(admin, USAGE, &mut || {});
    if lost > 0 {
        complain(&format!("the ledger was not reached: usage of the last {lost} calls is lost"));
    }
    let _ = admin.quit();
    process::end(envoy, END);
    envoy.wait().unwrap_or_default()
}

/// For whoever waits for this process, it was Envoy.
fn end_as(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        let _ = low_level::emulate_default_handler(signal);
    }
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
