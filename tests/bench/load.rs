//! Load for benchmarks: sends one request over and over on kept connections and checks every answer.
//!
//! Closed loop (`--connections 64 --requests 20000`, or `--seconds 5`): each connection sends as soon as it has its answer. Open
//! loop (`--rate 20`): requests begin on time, whatever becomes of those before them, and their latency counts from that time.
//! With `--events 50` answers are streams that must have so many events and an end mark. Prints one line of JSON; any status
//! but 200, any short or broken answer is an error.
//!
//! For an attacker: with `--any 1` every answer will do, and a lost connection too (status 0); statuses are counted. With
//! `--fresh 1` each request has a connection of its own. Each `00000000` in the request is the request's number, in so many
//! digits, from `--from`.
//!
//! `load --url http://127.0.0.1:4000/v1/chat/completions --body FILE [--header 'name: value']… [--min-bytes 300]`

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The little of epoll and of timers that is needed: the standard library has neither, and links the C library anyway.
mod sys {
    use std::os::fd::{FromRawFd, RawFd};

    #[derive(Clone, Copy)]
    #[cfg_attr(target_arch = "x86_64", repr(C, packed))]
    #[cfg_attr(not(target_arch = "x86_64"), repr(C))]
    pub struct Event {
        pub events: u32,
        pub data: u64,
    }

    pub const IN: u32 = 1;
    pub const OUT: u32 = 4;

    unsafe extern "C" {
        fn epoll_create1(flags: i32) -> i32;
        fn epoll_ctl(poll: i32, operation: i32, fd: i32, event: *mut Event) -> i32;
        fn epoll_wait(poll: i32, events: *mut Event, most: i32, timeout_ms: i32) -> i32;
        fn timerfd_create(clock: i32, flags: i32) -> i32;
        fn timerfd_settime(fd: i32, flags: i32, new: *const [i64; 4], old: *mut [i64; 4]) -> i32;
    }

    pub fn create() -> RawFd {
        // SAFETY: no pointers.
        let poll = unsafe { epoll_create1(0) };
        assert!(poll >= 0, "epoll_create1: {}", std::io::Error::last_os_error());
        poll
    }

    pub fn watch(poll: RawFd, fd: RawFd, data: usize, events: u32, known: bool) {
        let mut event = Event { events, data: data as u64 };
        // SAFETY: the event lives until the call returns.
        let done = unsafe { epoll_ctl(poll, if known { 3 } else { 1 }, fd, &mut event) };
        assert!(done == 0, "epoll_ctl: {}", std::io::Error::last_os_error());
    }

    pub fn wait(poll: RawFd, events: &mut [Event], timeout_ms: i32) -> usize {
        // SAFETY: the kernel writes no more events than the slice has.
        let found = unsafe { epoll_wait(poll, events.as_mut_ptr(), events.len() as i32, timeout_ms) };
        found.max(0) as usize
    }

    /// A timer on the monotonic clock that is readable every `nanos`.
    pub fn timer(nanos: u64) -> std::fs::File {
        let (seconds, rest) = ((nanos / 1_000_000_000) as i64, (nanos % 1_000_000_000) as i64);
        let times = [seconds, rest, seconds, rest];
        // SAFETY: `times` has the layout of `itimerspec` on 64 bits and lives until the call returns; nobody else has the timer.
        unsafe {
            let fd = timerfd_create(1, 0);
            assert!(fd >= 0 && timerfd_settime(fd, 0, &times, std::ptr::null_mut()) == 0, "no timer");
            std::fs::File::from_raw_fd(fd)
        }
    }
}

/// The event of the timer; all others are numbers of connections.
const TIMER: usize = usize::MAX;
/// Without any answer for so long the run has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Stands for the number of a request.
const NUMBER: &[u8] = b"00000000";

struct Flags {
    host: String,
    path: String,
    request: Rc<Vec<u8>>,
    /// Where the number of a request stands in it.
    numbers: Vec<usize>,
    from: usize,
    any: bool,
    fresh: bool,
    connections: usize,
    requests: usize,
    time: Duration,
    rate: f64,
    events: usize,
    min_bytes: usize,
}

fn flags() -> Flags {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().unwrap_or_else(|| panic!("{name}: a value"));
        values.entry(name).or_default().push(value);
    }
    let number = |name: &str, otherwise: f64| {
        values
            .get(name)
            .map_or(otherwise, |found| found[0].parse().unwrap_or_else(|_| panic!("{name}: a number")))
    };
    let url = &values.get("--url").expect("--url")[0];
    let (host, path) = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .expect("--url http://HOST:PORT/PATH");
    let body =
        values.get("--body").map(|files| std::fs::read(&files[0]).expect("--body")).unwrap_or_default();
    let mut request = format!(
        "POST /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for header in values.get("--header").into_iter().flatten() {
        request += &format!("{header}\r\n");
    }
    request += "\r\n";
    let mut request = request.into_bytes();
    request.extend_from_slice(&body);
    let seconds = number("--seconds", 0.0);
    Flags {
        host: host.to_owned(),
        path: path.to_owned(),
        numbers: (0..request.len()).filter(|&at| request[at..].starts_with(NUMBER)).collect(),
        request: Rc::new(request),
        from: number("--from", 0.0) as usize,
        any: number("--any", 0.0) > 0.0,
        fresh: number("--fresh", 0.0) > 0.0,
        connections: number("--connections", 64.0) as usize,
        requests: number("--requests", if seconds > 0.0 { f64::MAX } else { 1.0 }) as usize,
        time: if seconds > 0.0 { Duration::from_secs_f64(seconds) } else { Duration::MAX },
        rate: number("--rate", 0.0),
        events: number("--events", 0.0) as usize,
        min_bytes: number("--min-bytes", 1.0) as usize,
    }
}

/// Where the reader of an answer is.
#[derive(Clone, Copy)]
enum At {
    Head,
    Body(usize),
    ChunkSize,
    Chunk(usize),
    Trailers,
}

/// An answer as far as it has been read.
struct Answer {
    at: At,
    line: Vec<u8>,
    status: u16,
    bytes: usize,
    events: usize,
    /// How much of `data: ` the body ended with, and its last bytes, for the end mark.
    matched: usize,
    last: Vec<u8>,
    closes: bool,
}

const EVENT: &[u8] = b"data: ";
const END: &[u8] = b"data: [DONE]\n\n";

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

impl Answer {
    fn new() -> Answer {
        Answer {
            at: At::Head,
            line: Vec::new(),
            status: 0,
            bytes: 0,
            events: 0,
            matched: 0,
            last: Vec::new(),
            closes: false,
        }
    }

    fn take_until(&mut self, input: &mut &[u8], end: &[u8]) -> bool {
        let before = self.line.len();
        self.line.extend_from_slice(input);
        let from = before.saturating_sub(end.len() - 1);
        match find(&self.line[from..], end) {
            Some(at) => {
                self.line.truncate(from + at + end.len());
                *input = &input[self.line.len() - before..];
                true
            }
            None => {
                *input = &[];
                false
            }
        }
    }

    fn body(&mut self, piece: &[u8], streamed: bool) {
        self.bytes += piece.len();
        if !streamed {
            return;
        }
        for &byte in piece {
            self.matched = match byte == EVENT[self.matched] {
                true => self.matched + 1,
                false => usize::from(byte == EVENT[0]),
            };
            if self.matched == EVENT.len() {
                self.events += 1;
                self.matched = 0;
            }
        }
        self.last.extend_from_slice(&piece[piece.len().saturating_sub(END.len())..]);
        self.last.drain(..self.last.len().saturating_sub(END.len()));
    }

    fn head(&mut self, any: bool) -> Result<(), String> {
        let head = String::from_utf8_lossy(&self.line).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        self.status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        if self.status != 200 && !any {
            return Err(format!("answered: {status}"));
        }
        let mut length = None;
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    length = Some(At::Body(value.parse().map_err(|_| "a wrong content-length")?))
                }
                "transfer-encoding" => length = Some(At::ChunkSize),
                "connection" => self.closes = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        self.at = length.ok_or("an answer without a length")?;
        Ok(())
    }

    /// Goes on with what was read: true when the answer is complete.
    fn feed(&mut self, mut input: &[u8], streamed: bool, any: bool) -> Result<bool, String> {
        loop {
            match self.at {
                At::Head => {
                    if !self.take_until(&mut input, b"\r\n\r\n") {
                        return Ok(false);
                    }
                    self.head(any)?;
                    self.line.clear();
                }
                At::Body(left) => {
                    let taken = left.min(input.len());
                    self.body(&input[..taken], streamed);
                    self.at = At::Body(left - taken);
                    return Ok(taken == left);
                }
                At::ChunkSize => {
                    if !self.take_until(&mut input, b"\r\n") {
                        return Ok(false);
                    }
                    let digits = String::from_utf8_lossy(&self.line);
                    let digits = digits.split([';', '\r']).next().unwrap_or_default();
                    let size = usize::from_str_radix(digits.trim(), 16).map_err(|_| "a wrong chunk")?;
                    self.line.clear();
                    self.at = if size == 0 { At::Trailers } else { At::Chunk(size + 2) };
                }
                At::Chunk(left) => {
                    let taken = left.min(input.len());
                    self.body(&input[..taken.min(left.saturating_sub(2))], streamed);
                    input = &input[taken..];
                    self.at = if taken < left { At::Chunk(left - taken) } else { At::ChunkSize };
                    if taken < left {
                        return Ok(false);
                    }
                }
                At::Trailers => {
                    if !self.take_until(&mut input, b"\r\n") {
                        return Ok(false);
                    }
                    let empty = self.line == b"\r\n";
                    self.line.clear();
                    if empty {
                        return Ok(true);
                    }
                }
            }
        }
    }

    fn check(&self, flags: &Flags) -> Result<(), String> {
        if self.bytes < flags.min_bytes {
            return Err(format!("an answer of {} bytes", self.bytes));
        }
        // The end mark counts as an event here.
        if flags.events > 0 && (self.events <= flags.events || self.last != END) {
            return Err(format!(
                "a stream of {} events that ends with {:?}",
                self.events,
                String::from_utf8_lossy(&self.last)
            ));
        }
        Ok(())
    }
}

struct Connection {
    stream: Option<TcpStream>,
    request: Rc<Vec<u8>>,
    waits_to_write: bool,
    sent: usize,
    answer: Answer,
    begun: Instant,
    first: Option<Duration>,
    busy: bool,
}

struct Load<'a> {
    flags: &'a Flags,
    poll: RawFd,
    connections: Vec<Connection>,
    latencies: Vec<u64>,
    firsts: Vec<u64>,
    begun: usize,
    statuses: BTreeMap<u16, usize>,
    bytes: usize,
    events: usize,
    errors: usize,
    error: Option<String>,
}

impl Load<'_> {
    /// Begins a request on a connection that has none under way; its latency counts from `begun`.
    fn begin(&mut self, number: usize, begun: Instant) {
        let connection = &mut self.connections[number];
        if !self.flags.numbers.is_empty() {
            let digits = format!("{:0width$}", self.flags.from + self.begun, width = NUMBER.len());
            let request = Rc::make_mut(&mut connection.request);
            for &at in &self.flags.numbers {
                request[at..at + NUMBER.len()]
                    .copy_from_slice(&digits.as_bytes()[digits.len() - NUMBER.len()..]);
            }
        }
        self.begun += 1;
        connection.sent = 0;
        connection.answer = Answer::new();
        connection.begun = begun;
        connection.first = None;
        connection.busy = true;
        self.write(number);
    }

    fn write(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        if connection.stream.is_none() {
            let made = TcpStream::connect(&self.flags.host).and_then(|stream| {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Ok(stream)
            });
            match made {
                Ok(stream) => {
                    sys::watch(self.poll, stream.as_raw_fd(), number, sys::IN, false);
                    connection.stream = Some(stream);
                    connection.waits_to_write = false;
                }
                Err(error) => return self.fail(number, format!("cannot connect: {error}")),
            }
        }
        let Some(stream) = &mut connection.stream else { return };
        let mut waits = false;
        while connection.sent < connection.request.len() {
            match stream.write(&connection.request[connection.sent..]) {
                Ok(length) => connection.sent += length,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    waits = true;
                    break;
                }
                Err(error) => return self.fail(number, format!("cannot send: {error}")),
            }
        }
        if waits != connection.waits_to_write {
            connection.waits_to_write = waits;
            sys::watch(
                self.poll,
                stream.as_raw_fd(),
                number,
                if waits { sys::IN | sys::OUT } else { sys::IN },
                true,
            );
        }
    }

    /// Reads what is there: true when the request of this connection is over, well or not.
    fn read(&mut self, number: usize, buffer: &mut [u8]) -> bool {
        let connection = &mut self.connections[number];
        let Some(stream) = &mut connection.stream else { return false };
        let read = stream.read(buffer);
        if !connection.busy {
            // An idle connection that the other side closes is made anew when it is needed.
            if matches!(read, Ok(0) | Err(_)) {
                connection.stream = None;
            }
            return false;
        }
        let length = match read {
            Ok(0) => {
                self.fail(number, "the connection was closed before the answer's end".to_owned());
                return true;
            }
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            Err(error) => {
                self.fail(number, format!("cannot read: {error}"));
                return true;
            }
        };
        let before = connection.answer.bytes;
        let done = connection.answer.feed(&buffer[..length], self.flags.events > 0, self.flags.any);
        if before == 0 && connection.answer.bytes > 0 {
            connection.first = Some(connection.begun.elapsed());
        }
        let outcome = match done {
            Ok(false) => return false,
            Ok(true) if self.flags.any => Ok(()),
            Ok(true) => connection.answer.check(self.flags),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => {
                self.latencies.push(connection.begun.elapsed().as_micros() as u64);
                self.firsts.push(connection.first.unwrap_or_default().as_micros() as u64);
                self.bytes += connection.answer.bytes;
                self.events += connection.answer.events;
                *self.statuses.entry(connection.answer.status).or_default() += 1;
                connection.busy = false;
                // An answer that came before the whole request had gone leaves a connection that nothing more can be sent on.
                let cut = connection.sent < connection.request.len();
                if connection.answer.closes || self.flags.fresh || cut {
                    connection.stream = None;
                }
            }
            Err(error) => self.fail(number, error),
        }
        true
    }

    fn fail(&mut self, number: usize, error: String) {
        let connection = &mut self.connections[number];
        if self.flags.any {
            self.latencies.push(connection.begun.elapsed().as_micros() as u64);
            *self.statuses.entry(0).or_default() += 1;
        } else {
            self.errors += 1;
        }
        self.error.get_or_insert(error);
        connection.busy = false;
        connection.stream = None;
    }

    fn ended(&self) -> usize {
        self.latencies.len() + self.errors
    }
}

/// The value below which so much of the sorted values lies.
fn percentile(sorted: &[u64], share: f64) -> u64 {
    sorted
        .get(((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// How often each latency was seen, rounded to three digits, so that the figures of several runs can be put together.
fn histogram(values: &[u64]) -> String {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for &value in values {
        let unit = 10_u64.pow(value.max(1).ilog10().saturating_sub(2));
        *counts.entry(value / unit * unit).or_default() += 1;
    }
    let pairs: Vec<String> = counts.iter().map(|(value, count)| format!("[{value},{count}]")).collect();
    format!("[{}]", pairs.join(","))
}

fn main() {
    let flags = flags();
    let poll = sys::create();
    let now = Instant::now();
    let connections = (0..flags.connections)
        .map(|_| Connection {
            stream: None,
            request: flags.request.clone(),
            waits_to_write: false,
            sent: 0,
            answer: Answer::new(),
            begun: now,
            first: None,
            busy: false,
        })
        .collect();
    let mut load = Load {
        flags: &flags,
        poll,
        connections,
        latencies: Vec::new(),
        firsts: Vec::new(),
        begun: 0,
        statuses: BTreeMap::new(),
        bytes: 0,
        events: 0,
        errors: 0,
        error: None,
    };
    let mut events = vec![sys::Event { events: 0, data: 0 }; 1024];
    let mut buffer = vec![0; 256 << 10];
    let open = flags.rate > 0.0;
    let interval = Duration::from_secs_f64(if open { 1.0 / flags.rate } else { 1.0 });
    let mut timer = open.then(|| sys::timer(interval.as_nanos() as u64));
    if let Some(timer) = &timer {
        sys::watch(poll, timer.as_raw_fd(), TIMER, sys::IN, false);
    }
    let start = Instant::now();
    let mut begun = 0;
    let more = |begun: usize| begun < flags.requests && start.elapsed() < flags.time;
    // Idle connections; the one used last is used again. In an open loop, requests that found none idle wait in turn.
    let mut idle: Vec<usize> = (0..flags.connections).rev().collect();
    let mut waiting: std::collections::VecDeque<Instant> = Default::default();
    let mut last = Instant::now();
    while (more(begun) || load.ended() < begun) && load.errors == 0 {
        while !open
            && more(begun)
            && let Some(number) = idle.pop()
        {
            begun += 1;
            load.begin(number, Instant::now());
            if !load.connections[number].busy {
                // It could not even begin: the others go on meanwhile.
                idle.push(number);
                break;
            }
        }
        let found = sys::wait(poll, &mut events, if open || idle.is_empty() { 1000 } else { 10 });
        if load.ended() < begun && last.elapsed() > PATIENCE {
            load.errors += begun - load.ended();
            load.error.get_or_insert(format!("no answer for {} s", PATIENCE.as_secs()));
            break;
        }
        for event in &events[..found] {
            let number = event.data as usize;
            if number == TIMER {
                let mut expired = [0; 8];
                timer
                    .as_mut()
                    .expect("only an open loop has one")
                    .read_exact(&mut expired)
                    .expect("how often it was due");
                for _ in 0..u64::from_ne_bytes(expired) {
                    if !more(begun) {
                        break;
                    }
                    begun += 1;
                    let due = start + interval * begun as u32;
                    match idle.pop() {
                        Some(number) => load.begin(number, due),
                        None => waiting.push_back(due),
                    }
                }
                continue;
            }
            let flagged = event.events;
            let busy = load.connections[number].busy;
            if flagged & sys::OUT != 0 && busy {
                load.write(number);
            }
            let lost = busy && !load.connections[number].busy;
            if !lost && (flagged & !sys::OUT == 0 || !load.read(number, &mut buffer)) {
                continue;
            }
            last = Instant::now();
            if let Some(due) = waiting.pop_front() {
                load.begin(number, due);
            } else if !open && more(begun) {
                begun += 1;
                load.begin(number, Instant::now());
                if !load.connections[number].busy {
                    idle.push(number);
                }
            } else {
                idle.push(number);
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let all = histogram(&load.latencies);
    let first = histogram(&load.firsts);
    load.latencies.sort_unstable();
    load.firsts.sort_unstable();
    let done = load.latencies.len();
    let statuses: Vec<String> =
        load.statuses.iter().map(|(status, count)| format!("\"{status}\":{count}")).collect();
    let statuses = statuses.join(",");
    let error =
        load.error.map_or("null".to_owned(), |error| format!("{:?}", format!("{error} (/{})", flags.path)));
    println!(
        "{{\"requests\":{done},\"errors\":{},\"error\":{error},\"seconds\":{seconds:.6},\"rps\":{:.1},\"p50_us\":{},\"p99_us\":{},\
         \"first_p50_us\":{},\"first_p99_us\":{},\"events\":{},\"bytes\":{},\"statuses\":{{{statuses}}},\"latencies\":{all},\"firsts\":{first}}}",
        load.errors,
        done as f64 / seconds,
        percentile(&load.latencies, 0.5),
        percentile(&load.latencies, 0.99),
        percentile(&load.firsts, 0.5),
        percentile(&load.firsts, 0.99),
        load.events,
        load.bytes,
    );
    std::process::exit(i32::from(load.errors > 0));
}
