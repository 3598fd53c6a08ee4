//! Whether the ledger answers at all: a thread asks it again and again, for it may hang where nobody sees it end.
//!
//! What its database does is no matter here, and one that is busy is not one that hangs: as long as it works it has
//! [`BUSY_LIMIT`].

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{control::admin, core::protocol::ALIVE_PATH};

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long it may take to answer.
const LIMIT: Duration = Duration::from_secs(2);
/// So many questions in a row without an answer, and without that it worked meanwhile, are a hang.
const MISSES: u32 = 3;
/// The same, when it works all the while.
const BUSY_LIMIT: Duration = Duration::from_secs(60);

/// The asking thread's view of one ledger after the other.
#[derive(Debug)]
pub struct Pulse {
    /// Questions in a row that were not answered in time.
    misses: Arc<AtomicU32>,
    silence: Option<Silence>,
}

/// The time in which it did not answer.
#[derive(Clone, Copy, Debug)]
struct Silence {
    since: Instant,
    /// CPU time that the process had used when it began.
    worked: Option<u64>,
}

impl Pulse {
    /// Asks on `socket` from now on, until this value is gone.
    pub fn feel(socket: &Path, secret: &str) -> Pulse {
        let misses = Arc::new(AtomicU32::new(0));
        let (socket, count) = (socket.to_owned(), Arc::downgrade(&misses));
        let header = format!("authorization: Bearer {secret}\r\n");
        thread::spawn(move || {
            while let Some(count) = count.upgrade() {
                let answer = admin::call_within(LIMIT, &socket, "GET", ALIVE_PATH, &header);
                if answer.is_err_and(|error| is_silence(&error)) {
                    count.fetch_add(1, Ordering::Relaxed);
                } else {
                    count.store(0, Ordering::Relaxed);
                    drop(count);
                    thread::sleep(EVERY);
                }
            }
        });
        Pulse { misses, silence: None }
    }

    /// A new process takes the place of the one that was asked.
    pub fn begin_anew(&mut self) {
        self.misses.store(0, Ordering::Relaxed);
        self.silence = None;
    }

    /// How long the ledger has not answered, when it hangs. It is process `id`.
    pub fn hangs(&mut self, id: u32) -> Option<Duration> {
        let misses = self.misses.load(Ordering::Relaxed);
        if misses == 0 {
            self.silence = None;
            return None;
        }
        let worked = worked(id);
        let silence = *self.silence.get_or_insert_with(|| Silence { since: Instant::now(), worked });
        let elapsed = silence.since.elapsed();
        let stands = misses >= MISSES && worked == silence.worked;
        // The first question that was missed is older.
        (stands || elapsed >= BUSY_LIMIT).then_some(elapsed.saturating_add(LIMIT))
    }
}

/// Nobody listens while a ledger starts, or waits for its database; that is no silence.
fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// CPU time that a process has used, in the kernel's ticks.
fn worked(id: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // Behind the name, which may hold anything; user and system time are fields 14 and 15 of all.
    let mut times =
        text.rsplit(')').next()?.split_ascii_whitespace().skip(11).map_while(|text| text.parse::<u64>().ok());
    Some(times.next()?.saturating_add(times.next()?))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixListener,
        path::PathBuf,
        process::{Child, Command},
        sync::atomic::AtomicBool,
    };

    use super::*;

    fn socket(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tollgate-pulse-{name}-{}.sock", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    fn child(script: &str) -> Child {
        Command::new("/bin/sh").args(["-c", script]).spawn().unwrap()
    }

    /// Waits for so many misses.
    fn missed(pulse: &Pulse, count: u32) {
        while pulse.misses.load(Ordering::Relaxed) < count {
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn one_that_stands_still_hangs_and_one_that_works_is_busy() {
        let path = socket("silent");
        // Connections are taken by the kernel, and nobody answers.
        let _listener = UnixListener::bind(&path).unwrap();
        let mut pulse = Pulse::feel(&path, "s3cret");
        let (mut still, mut busy) = (child("exec sleep 600"), child("while :; do :; done"));
        let mut other = Pulse { misses: Arc::clone(&pulse.misses), silence: None };
        assert_eq!((pulse.hangs(still.id()), other.hangs(busy.id())), (None, None));
        missed(&pulse, 1);
        assert_eq!((pulse.hangs(still.id()), other.hangs(busy.id())), (None, None));
        missed(&pulse, MISSES);
        assert!(pulse.hangs(still.id()).unwrap() >= LIMIT * MISSES);
        assert_eq!(other.hangs(busy.id()), None, "it works");
        other.silence =
            other.silence.map(|it| Silence { since: it.since.checked_sub(BUSY_LIMIT).unwrap(), ..it });
        assert!(other.hangs(busy.id()).is_some(), "but not for ever");
        pulse.begin_anew();
        assert_eq!(pulse.hangs(still.id()), None);
        for child in [&mut still, &mut busy] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn nobody_there_and_any_answer_are_no_silence() {
        let path = socket("answers");
        let header = "authorization: Bearer s3cret";
        assert!(!is_silence(&admin::call_within(LIMIT, &path, "GET", ALIVE_PATH, "").unwrap_err()));
        let listener = UnixListener::bind(&path).unwrap();
        let mut pulse = Pulse::feel(&path, "s3cret");
        pulse.misses.store(MISSES, Ordering::Relaxed);
        pulse.silence = Some(Silence { since: Instant::now(), worked: worked(std::process::id()) });
        let asked = AtomicBool::new(false);
        for stream in listener.incoming().take(2) {
            let mut stream = stream.unwrap();
            // It may come in pieces.
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut piece = [0; 1024];
                let size = stream.read(&mut piece).unwrap();
                assert!(size > 0, "a request is whole");
                request.extend_from_slice(&piece[..size]);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            asked.store(
                request.starts_with("GET /internal/alive") && request.contains(header),
                Ordering::Relaxed,
            );
            write!(stream, "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
        // The second question came after the first answer was heard.
        assert!(asked.into_inner());
        assert_eq!(pulse.hangs(std::process::id()), None);
    }

    #[test]
    fn a_full_queue_is_a_silence() {
        let path = socket("full");
        let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let _waits = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let limit = Duration::from_millis(50);
        assert!(is_silence(&admin::call_within(limit, &path, "GET", ALIVE_PATH, "").unwrap_err()));
    }
}
