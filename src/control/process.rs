//! Child processes: they end with this one, and not before it wants them to. And who may read what they and this one make.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

/// How far the ledger steps back, as a nice value: on a machine that is busy it still gets a quarter of what a worker gets.
const STEP: libc::c_int = 5;

/// How often a child is looked at that is to end.
const LOOK: Duration = Duration::from_millis(20);

/// Bits of a file's mode that the umask is taken from when the file is made.
const NEW_FILE: u32 = 0o666;

/// From here on whatever this process and its children make (files, sockets, folders) is for its owner alone. Returns the umask
/// that was in force: the user's own. To be called before threads that make files.
#[expect(unsafe_code, reason = "the umask is set by a system call")]
pub fn keep_private() -> u32 {
    // SAFETY: umask cannot fail and touches no memory.
    unsafe { libc::umask(0o077) }
}

/// Makes a file that others are meant to read, as far as `umask` lets them. One that is there stays as it is.
pub fn make_public(path: &Path, umask: u32) -> io::Result<()> {
    match File::options().write(true).create_new(true).open(path) {
        Ok(file) => file.set_permissions(fs::Permissions::from_mode(NEW_FILE & !umask)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Waits so long for a child that was told to go, then ends it.
pub fn end(child: &mut Child, limit: Duration) {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        thread::sleep(LOOK);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Has the kernel kill a child when this process is gone, however that came.
pub fn die_together(command: &mut Command) {
    fate(command, libc::SIGKILL);
}

/// Gives a child a process group of its own, so that Ctrl-C reaches only this process, which then ends its children in order;
/// and has the kernel end it when this process is gone, however that came.
pub fn own_group_and_fate(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
    fate(command, libc::SIGTERM);
}

#[expect(
    unsafe_code,
    reason = "what runs between fork and exec is one system call that touches no memory of ours"
)]
fn fate(command: &mut Command, signal: libc::c_int) {
    use std::os::unix::process::CommandExt;
    #[cfg(target_os = "linux")]
    // SAFETY: prctl is async-signal-safe.
    unsafe {
        command.pre_exec(move || match libc::prctl(libc::PR_SET_PDEATHSIG, signal) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// Has a child and its own children keep a file of this process open: a lock on it then lasts until all of them are gone. The file
/// is open until the child is started.
#[expect(
    unsafe_code,
    reason = "what runs between fork and exec is one system call that touches no memory of ours"
)]
pub fn hand_on(command: &mut Command, file: &File) {
    use std::os::{fd::AsRawFd, unix::process::CommandExt};
    let number = file.as_raw_fd();
    // SAFETY: fcntl is async-signal-safe.
    unsafe {
        command.pre_exec(move || match libc::fcntl(number, libc::F_SETFD, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// Has a child leave the CPU to whoever wants it more urgently. A worker that has to wait for the ledger's turn to end keeps
/// callers waiting; what the ledger does can mostly wait.
#[expect(
    unsafe_code,
    reason = "what runs between fork and exec is one system call that touches no memory of ours"
)]
pub fn step_back(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: setpriority is one system call, and async-signal-safe. A refusal changes nothing but the order of turns.
    unsafe {
        command.pre_exec(|| {
            libc::setpriority(libc::PRIO_PROCESS, 0, STEP);
            Ok(())
        });
    }
}
