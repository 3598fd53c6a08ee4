//! A provider for benchmarks, faster than any gateway: OpenAI chat completions (buffered and streamed) and Anthropic messages.
//!
//! `mock --port 0 [--pause-us 2000]` prints its port and serves until it is ended. One thread waits for all connections; an
//! answer that pauses between its events is written by a thread of its own. Bodies are counted, not kept: only their first and
//! last bytes are, to see whether they ask for a stream.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

/// The little of epoll that is needed: the standard library has none, and links the C library anyway.
mod epoll {
    use std::os::fd::RawFd;

    #[derive(Clone, Copy)]
    #[cfg_attr(target_arch = "x86_64", repr(C, packed))]
    #[cfg_attr(not(target_arch = "x86_64"), repr(C))]
    pub struct Event {
        pub events: u32,
        pub fd: u64,
    }

    unsafe extern "C" {
        fn epoll_create1(flags: i32) -> i32;
        fn epoll_ctl(poll: i32, operation: i32, fd: i32, event: *mut Event) -> i32;
        fn epoll_wait(poll: i32, events: *mut Event, most: i32, timeout_ms: i32) -> i32;
    }

    pub fn create() -> RawFd {
        // SAFETY: no pointers.
        let poll = unsafe { epoll_create1(0) };
        assert!(poll >= 0, "epoll_create1: {}", std::io::Error::last_os_error());
        poll
    }

    /// Operation 1 adds, 2 removes.
    pub fn control(poll: RawFd, operation: i32, fd: RawFd) {
        let mut event = Event { events: 1, fd: fd as u64 };
        // SAFETY: the event lives until the call returns.
        let done = unsafe { epoll_ctl(poll, operation, fd, &mut event) };
        assert!(done == 0, "epoll_ctl: {}", std::io::Error::last_os_error());
    }

    pub fn wait(poll: RawFd, events: &mut [Event]) -> usize {
        // SAFETY: the kernel writes no more events than the slice has.
        let found = unsafe { epoll_wait(poll, events.as_mut_ptr(), events.len() as i32, -1) };
        found.max(0) as usize
    }
}

const EVENTS: usize = 50;
/// So much of each end of a body is looked at.
const ENDS: usize = 2048;

/// What is ready to be written.
struct Answers {
    chat: Vec<u8>,
    messages: Vec<u8>,
    not_found: Vec<u8>,
    /// The head of a stream, then one chunk for each event, then the last chunk.
    stream: Vec<Vec<u8>>,
    pause: Duration,
}

fn buffered(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8).into_bytes()
}

impl Answers {
    fn new(pause: Duration) -> Answers {
        let text = "All happy families are alike; each unhappy family is unhappy in its own way. ".repeat(3);
        let chat = format!(
            r#"{{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1741569952,"model":"gpt-4o-mini-2024-07-18","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":230,"completion_tokens":51,"total_tokens":281,"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0}}}},"service_tier":"default"}}"#
        );
        let messages = format!(
            r#"{{"id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant","model":"claude-sonnet-4-20250514","content":[{{"type":"text","text":"{text}"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":230,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":51}}}}"#
        );
        let event = |rest: &str| {
            chunk(&format!(
                r#"{{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk","created":1741569952,"model":"gpt-4o-mini-2024-07-18","service_tier":"default",{rest}}}"#
            ))
        };
        let mut stream = vec![
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec(),
        ];
        for number in 0..EVENTS {
            let delta = match number {
                0 => r#"{"role":"assistant","content":"","refusal":null}"#.to_owned(),
                _ if number == EVENTS - 1 => "{}".to_owned(),
                _ => format!(r#"{{"content":" word{number}"}}"#),
            };
            let reason = if number == EVENTS - 1 { r#""stop""# } else { "null" };
            stream.push(event(&format!(
                r#""choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason}}}],"usage":null"#
            )));
        }
        stream.push(event(
            r#""choices":[],"usage":{"prompt_tokens":230,"completion_tokens":50,"total_tokens":280}"#,
        ));
        stream.push(chunk("[DONE]"));
        stream.push(b"0\r\n\r\n".to_vec());
        Answers {
            chat: buffered("200 OK", &chat),
            messages: buffered("200 OK", &messages),
            not_found: buffered(
                "404 Not Found",
                r#"{"error":{"message":"not found","type":"invalid_request_error"}}"#,
            ),
            stream,
            pause,
        }
    }

    /// The stream, all of it at once or a pause before each event but the first.
    fn write_stream(&self, connection: &mut TcpStream) -> std::io::Result<()> {
        if self.pause.is_zero() {
            return connection.write_all(&self.stream.concat());
        }
        connection.write_all(&self.stream[..2].concat())?;
        for event in &self.stream[2..=EVENTS] {
            std::thread::sleep(self.pause);
            connection.write_all(event)?;
        }
        connection.write_all(&self.stream[EVENTS + 1..].concat())
    }
}

/// Where the reader of a connection is.
enum At {
    Head,
    /// In a body of which so many bytes are to come.
    Body(usize),
    ChunkSize,
    /// In a chunk, of which so many bytes are to come, with the line end behind it.
    Chunk(usize),
    Trailers,
}

struct Connection {
    stream: TcpStream,
    at: At,
    /// The head or the line that is not complete yet.
    line: Vec<u8>,
    path: Path,
    first: Vec<u8>,
    last: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq)]
enum Path {
    Chat,
    Messages,
    Other,
}

/// What came of the bytes that were read.
#[derive(Clone, Copy, PartialEq)]
enum Done {
    NotYet,
    Buffered(Path),
    Stream,
    Bad,
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn asks_for_stream(end: &[u8]) -> bool {
    let Some(at) = find(end, b"\"stream\"") else { return false };
    let mut rest = end[at + 8..].iter().filter(|byte| !byte.is_ascii_whitespace());
    rest.next() == Some(&b':') && rest.next() == Some(&b't')
}

impl Connection {
    fn new(stream: TcpStream) -> Connection {
        Connection {
            stream,
            at: At::Head,
            line: Vec::new(),
            path: Path::Other,
            first: Vec::new(),
            last: Vec::new(),
        }
    }

    /// Takes a piece of the body.
    fn body(&mut self, piece: &[u8]) {
        let room = ENDS - self.first.len();
        let (first, rest) = piece.split_at(piece.len().min(room));
        self.first.extend_from_slice(first);
        if rest.len() >= ENDS {
            self.last.clear();
        }
        self.last.extend_from_slice(&rest[rest.len().saturating_sub(ENDS)..]);
        if self.last.len() > 2 * ENDS {
            self.last.drain(..self.last.len() - ENDS);
        }
    }

    /// Reads the request's head.
    fn head(&mut self) -> Option<()> {
        let head = std::str::from_utf8(&self.line).ok()?;
        let mut lines = head.split("\r\n");
        let path = lines.next()?.split(' ').nth(1)?;
        self.path = match path.split('?').next()? {
            "/v1/chat/completions" => Path::Chat,
            "/v1/messages" => Path::Messages,
            _ => Path::Other,
        };
        self.at = At::Body(0);
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                self.at = At::Body(value.trim().parse().ok()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding")
                && value.trim().eq_ignore_ascii_case("chunked")
            {
                self.at = At::ChunkSize;
                break;
            }
        }
        Some(())
    }

    /// Moves bytes up to and with `end` into `line`. True when the end has been seen.
    fn take_until(&mut self, input: &mut &[u8], end: &[u8]) -> bool {
        let before = self.line.len();
        self.line.extend_from_slice(input);
        match find(&self.line[before.saturating_sub(end.len() - 1)..], end) {
            Some(at) => {
                let length = before.saturating_sub(end.len() - 1) + at + end.len();
                self.line.truncate(length);
                *input = &input[length - before..];
                true
            }
            None => {
                *input = &[];
                false
            }
        }
    }

    /// Goes on with what was read. Nobody sends a second request before the first is answered.
    fn feed(&mut self, mut input: &[u8]) -> Done {
        loop {
            match self.at {
                At::Head => {
                    if !self.take_until(&mut input, b"\r\n\r\n") {
                        return Done::NotYet;
                    }
                    self.first.clear();
                    self.last.clear();
                    if self.head().is_none() {
                        return Done::Bad;
                    }
                    self.line.clear();
                }
                At::Body(left) => {
                    let taken = left.min(input.len());
                    self.body(&input[..taken]);
                    if taken < left {
                        self.at = At::Body(left - taken);
                        return Done::NotYet;
                    }
                    return self.complete();
                }
                At::ChunkSize => {
                    if !self.take_until(&mut input, b"\r\n") {
                        return Done::NotYet;
                    }
                    let digits =
                        std::str::from_utf8(&self.line).unwrap_or("").split([';', '\r']).next().unwrap_or("");
                    let Ok(size) = usize::from_str_radix(digits.trim(), 16) else { return Done::Bad };
                    self.line.clear();
                    self.at = if size == 0 { At::Trailers } else { At::Chunk(size + 2) };
                }
                At::Chunk(left) => {
                    let taken = left.min(input.len());
                    self.body(&input[..taken.min(left.saturating_sub(2))]);
                    input = &input[taken..];
                    self.at = if taken < left { At::Chunk(left - taken) } else { At::ChunkSize };
                    if taken < left {
                        return Done::NotYet;
                    }
                }
                At::Trailers => {
                    if !self.take_until(&mut input, b"\r\n") {
                        return Done::NotYet;
                    }
                    let empty = self.line == b"\r\n";
                    self.line.clear();
                    if empty {
                        return self.complete();
                    }
                }
            }
        }
    }

    fn complete(&mut self) -> Done {
        self.at = At::Head;
        let streamed =
            self.path == Path::Chat && (asks_for_stream(&self.first) || asks_for_stream(&self.last));
        if streamed { Done::Stream } else { Done::Buffered(self.path) }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let flag = |name: &str| {
        arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1))
    };
    let number = |name: &str| {
        flag(name).map_or(0, |value| value.parse::<u64>().unwrap_or_else(|_| panic!("{name}: a number")))
    };
    let answers = Arc::new(Answers::new(Duration::from_micros(number("--pause-us"))));
    let listener = TcpListener::bind(("127.0.0.1", number("--port") as u16)).expect("cannot listen");
    println!("{}", listener.local_addr().expect("an address").port());
    std::io::stdout().flush().expect("stdout");

    let poll = epoll::create();
    epoll::control(poll, 1, listener.as_raw_fd());
    let mut connections: HashMap<RawFd, Connection> = HashMap::new();
    let (back, returned) = mpsc::channel::<Connection>();
    let mut events = vec![epoll::Event { events: 0, fd: 0 }; 256];
    let mut buffer = vec![0; 256 << 10];
    // Whoever writes a paused stream wakes this thread with a byte, and gives the connection back.
    let (wake, woken) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    epoll::control(poll, 1, woken.as_raw_fd());
    loop {
        let found = epoll::wait(poll, &mut events);
        for event in &events[..found] {
            let fd = event.fd as RawFd;
            if fd == listener.as_raw_fd() {
                let Ok((stream, _)) = listener.accept() else { continue };
                let _ = stream.set_nodelay(true);
                epoll::control(poll, 1, stream.as_raw_fd());
                connections.insert(stream.as_raw_fd(), Connection::new(stream));
                continue;
            }
            if fd == woken.as_raw_fd() {
                let _ = (&woken).read(&mut buffer[..64]);
                for connection in returned.try_iter() {
                    epoll::control(poll, 1, connection.stream.as_raw_fd());
                    connections.insert(connection.stream.as_raw_fd(), connection);
                }
                continue;
            }
            let Some(connection) = connections.get_mut(&fd) else { continue };
            // One read: epoll says so when there is more. Answers are far smaller than a socket's buffer, so writing never waits.
            let kept = match connection.stream.read(&mut buffer) {
                Ok(0) | Err(_) => false,
                Ok(length) => match connection.feed(&buffer[..length]) {
                    Done::NotYet => true,
                    Done::Bad => false,
                    Done::Buffered(path) => {
                        let answer = match path {
                            Path::Chat => &answers.chat,
                            Path::Messages => &answers.messages,
                            Path::Other => &answers.not_found,
                        };
                        connection.stream.write_all(answer).is_ok()
                    }
                    Done::Stream if answers.pause.is_zero() => {
                        answers.write_stream(&mut connection.stream).is_ok()
                    }
                    Done::Stream => {
                        epoll::control(poll, 2, fd);
                        let mut connection = connections.remove(&fd).expect("it was found above");
                        let (answers, back, mut wake) =
                            (answers.clone(), back.clone(), wake.try_clone().expect("a socket"));
                        std::thread::spawn(move || {
                            if answers.write_stream(&mut connection.stream).is_ok()
                                && back.send(connection).is_ok()
                            {
                                let _ = wake.write_all(&[1]);
                            }
                        });
                        true
                    }
                },
            };
            if !kept {
                connections.remove(&fd);
            }
        }
    }
}
