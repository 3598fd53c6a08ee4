//! Talking to Envoy's admin interface over its Unix socket.

use std::{
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use socket2::{Domain, SockAddr, Socket, Type};

/// Most bytes of an answer that are read: statistics of many thousands of deployments; `/stats` with a filter is far smaller.
const ANSWER_BYTES: u64 = 256 << 20;

/// How long a step of a call may take.
const LIMIT: Duration = Duration::from_secs(5);

/// An Envoy's admin interface.
#[derive(Clone, Debug)]
pub struct Envoy {
    socket: PathBuf,
}

impl Envoy {
    /// The one behind `socket`.
    pub fn new(socket: &Path) -> Envoy {
        Envoy { socket: socket.to_owned() }
    }

    /// Whether it has its configuration and takes requests.
    pub fn is_ready(&self) -> bool {
        self.call("GET", "/ready").is_ok_and(|(status, _)| status == 200)
    }

    /// The value of one statistic, without the quotes of a text.
    pub fn statistic(&self, name: &str) -> Option<String> {
        let (_, body) = self.call("GET", &format!("/stats?filter=^{}$", name.replace('.', "\\."))).ok()?;
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
        Some(line.trim().trim_matches('"').to_owned())
    }

    /// Like [`Envoy::statistic`], for a count; one that was never touched is 0.
    pub fn count(&self, name: &str) -> io::Result<u64> {
        let (_, body) = self.call("GET", &format!("/stats?filter=^{}$", name.replace('.', "\\.")))?;
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(line.and_then(|count| count.trim().parse().ok()).unwrap_or_default())
    }

    /// Tells clients to leave: answers close their connections from now on.
    pub fn fail_health_checks(&self) -> io::Result<()> {
        self.call("POST", "/healthcheck/fail").map(drop)
    }

    /// Takes no new connections; those there are go on.
    pub fn stop_listening(&self) -> io::Result<()> {
        self.call("POST", "/drain_listeners").map(drop)
    }

    /// All statistics that were ever touched, in Prometheus' format.
    pub fn metrics(&self) -> io::Result<String> {
        match self.call("GET", "/stats/prometheus?usedonly")? {
            (200, text) => Ok(text),
            (status, _) => Err(io::Error::other(format!("it answered {status}"))),
        }
    }

    /// Opens log files again, under their names.
    pub fn reopen_logs(&self) -> io::Result<()> {
        self.call("POST", "/reopen_logs").map(drop)
    }

    /// Ends the process.
    pub fn quit(&self) -> io::Result<()> {
        self.call("POST", "/quitquitquit").map(drop)
    }

    fn call(&self, method: &str, path: &str) -> io::Result<(u16, String)> {
        call(&self.socket, method, path, "")
    }
}

/// One call over a Unix socket: status and body. `headers` are whole lines.
pub fn call(socket: &Path, method: &str, path: &str, headers: &str) -> io::Result<(u16, String)> {
    call_within(LIMIT, socket, method, path, headers)
}

/// The same, and each step of it may take so long: to connect, to write, to read.
pub fn call_within(
    limit: Duration,
    socket: &Path,
    method: &str,
    path: &str,
    headers: &str,
) -> io::Result<(u16, String)> {
    // Of a process that hangs the queue may be full; then one waits for the connection as for an answer.
    let connection = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    connection.set_read_timeout(Some(limit))?;
    connection.set_write_timeout(Some(limit))?;
    connection.connect(&SockAddr::unix(socket)?)?;
    let mut stream = UnixStream::from(OwnedFd::from(connection));
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))
}

/// Status and body of a whole HTTP/1.1 answer.
fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let answer = String::from_utf8_lossy(answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked");
    Some((status, if chunked { unchunk(body)? } else { body.to_owned() }))
}

fn unchunk(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..size)?);
        body = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", Some((200, "hi"))),
            (
                "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
                Some((503, "abc0123456789")),
            ),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nabc", None),
            ("", None),
        ] {
            let expected = expected.map(|(status, body): (u16, &str)| (status, body.to_owned()));
            assert_eq!(parse(answer.as_bytes()), expected);
        }
    }
}
