//! `/metrics` without harm: what Envoy's admin interface says, asked for so seldom that it never keeps the main thread busy.
//!
//! Envoy writes its statistics on the thread that also brings usage to the ledger, and with thousands of deployments that takes
//! a while. Requests for `/metrics` are therefore led here: all that wait get one answer, which is newer than their question,
//! and between two answers Envoy is left alone for [`REST`] times as long as the last one took. What a client writes behind
//! the path reaches nobody.

use std::{
    fs,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{Failure, admin::Envoy, keeper};

/// So much longer Envoy rests than it worked: statistics take at most a fifth of its main thread.
const REST: u32 = 4;
/// How long Envoy, the only client, may take to write its request or to read its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest request head.
const HEAD_BYTES: usize = 128 * 1024;
/// So much of a body that nobody wants is read.
const DROPPED_BYTES: u64 = 1024 * 1024;

/// What each family of ours counts.
const HELP: [(&str, &str); 17] = [
    ("tollgate_requests", "Requests that are over."),
    ("tollgate_attempts", "Attempts at providers."),
    ("tollgate_fallbacks", "Model groups left behind for another."),
    ("tollgate_tokens", "Tokens used."),
    ("tollgate_cost_nanodollars", "What calls cost, in billionths of a US dollar."),
    ("tollgate_usage_missing", "Answers whose usage had to be estimated."),
    ("tollgate_successes", "Answers that went well, which cooldowns weigh failures against."),
    ("tollgate_changes", "Times that what workers keep copies of was changed."),
    ("tollgate_lookups", "Keys and end users asked of the ledger."),
    ("tollgate_events_enqueued", "Calls told to the sync role."),
    ("tollgate_events_acknowledged", "Calls that the ledger has."),
    ("tollgate_events_dropped", "Calls whose details were dropped and only their sums kept."),
    ("tollgate_events_lost", "Calls for which Envoy had no queue."),
    ("tollgate_syncs", "Answers of the ledger to the sync role."),
    ("tollgate_sync_batches", "Batches of calls that the ledger has taken."),
    ("tollgate_sync_failures", "Times that the ledger did not answer the sync role."),
    ("tollgate_ledger_restarts", "Times that a ledger was started in the place of one that died or hung."),
];

/// Where `/metrics` is answered when Envoy's admin interface is at `admin`.
pub fn socket_of(admin: &Path) -> PathBuf {
    admin.with_file_name("stats.sock")
}

/// Answers on a socket from now on, on threads of its own.
pub fn serve(admin: &Path) -> Result<(), Failure> {
    let path = socket_of(admin);
    let failed =
        |error: io::Error| Failure::running(format!("cannot listen on `{}`: {error}", path.display()));
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let envoy = Envoy::new(admin);
    thread::spawn(move || answer_all(&listener, &|| envoy.metrics()));
    Ok(())
}

/// Answers those who wait, all with one text, and rests.
fn answer_all(listener: &UnixListener, ask: &dyn Fn() -> io::Result<String>) {
    loop {
        let mut waiting = Vec::new();
        let _ = listener.set_nonblocking(false);
        match listener.accept() {
            Ok((stream, _)) => waiting.push(stream),
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
        let _ = listener.set_nonblocking(true);
        while let Ok((stream, _)) = listener.accept() {
            waiting.push(stream);
        }
        if waiting.is_empty() {
            continue;
        }
        let begun = Instant::now();
        let text: Arc<io::Result<String>> = Arc::new(ask().map(|text| with_help(&with_ours(text))));
        for stream in waiting {
            let text = Arc::clone(&text);
            thread::spawn(move || answer(stream, &text));
        }
        thread::sleep(begun.elapsed().saturating_mul(REST));
    }
}

fn answer(mut stream: UnixStream, text: &io::Result<String>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (status, body) = match (asks_for_metrics(&mut stream)?, text) {
        (false, _) => ("404 Not Found", "expected GET /metrics\n"),
        (true, Ok(text)) => ("200 OK", text.as_str()),
        (true, Err(_)) => ("503 Service Unavailable", "Envoy does not say its statistics right now\n"),
    };
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )?;
    // A socket that is closed with something unread loses the answer too.
    stream.shutdown(Shutdown::Write)?;
    io::copy(&mut stream.take(DROPPED_BYTES), &mut io::sink()).map(drop)
}

/// Reads a request's head.
fn asks_for_metrics(stream: &mut UnixStream) -> io::Result<bool> {
    let mut head = Vec::new();
    let mut part = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES {
        match stream.read(&mut part)? {
            0 => break,
            size => head.extend_from_slice(part.get(..size).unwrap_or_default()),
        }
    }
    Ok(head.starts_with(b"GET /metrics"))
}

/// With what the command itself has counted.
fn with_ours(mut text: String) -> String {
    let restarts = keeper::restarts();
    text.push_str(&format!(
        "# TYPE tollgate_ledger_restarts counter\ntollgate_ledger_restarts{{}} {restarts}\n"
    ));
    text
}

/// Says before each family of ours what it is.
fn with_help(text: &str) -> String {
    let mut told = String::with_capacity(text.len() + 2048);
    for line in text.split_inclusive('\n') {
        let family = line.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next());
        if let Some((name, help)) = HELP.iter().find(|(name, _)| family == Some(*name)) {
            told.push_str(&format!("# HELP {name} {help}\n"));
        }
        told.push_str(line);
    }
    told
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
    };

    use super::*;

    #[test]
    fn our_families_are_explained() {
        assert_eq!(
            with_help(
                "# TYPE envoy_x counter\nenvoy_x{} 1\n# TYPE tollgate_syncs counter\ntollgate_syncs{} 2"
            ),
            "# TYPE envoy_x counter\nenvoy_x{} 1\n# HELP tollgate_syncs Answers of the ledger to the sync role.\n\
             # TYPE tollgate_syncs counter\ntollgate_syncs{} 2"
        );
    }

    fn call(path: &Path, target: &str) -> String {
        let mut stream = UnixStream::connect(path).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn all_who_wait_share_one_question() {
        let path = std::env::temp_dir().join(format!("tollgate-metrics-{}.sock", std::process::id()));
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let (go, may_go) = channel::<()>();
        thread::spawn(move || {
            answer_all(&listener, &|| {
                let _ = may_go.recv();
                Ok(format!("number {}\n", ASKED.fetch_add(1, Ordering::SeqCst)))
            });
        });
        let ask = |target: &'static str| {
            let path = path.clone();
            thread::spawn(move || call(&path, target))
        };
        let first = ask("/metrics");
        go.send(()).unwrap();
        let first = first.join().unwrap();
        assert!(first.contains("\r\n\r\nnumber 0\n"));
        assert!(
            first.contains("# TYPE tollgate_ledger_restarts counter\ntollgate_ledger_restarts{} "),
            "{first}"
        );
        // These connect while the next question waits for its answer or before it is asked; none is asked for each of them.
        let rest: Vec<_> = (0..20).map(|_| ask("/metrics?filter=.*")).collect();
        drop(go);
        for answer in rest {
            assert!(answer.join().unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
        }
        assert!(ASKED.load(Ordering::SeqCst) < 21);
        assert!(ask("/server_info").join().unwrap().starts_with("HTTP/1.1 404 "));
        fs::remove_file(path).unwrap();
    }
}
