//! Envoy through its ABI for dynamic modules, as the host of the gateway.
//!
//! Everything here runs on the thread of the worker whose hook is running. What would come back into our own hooks at once (a
//! reply, a resumption, a call) waits in [`later`] until the hook has returned.

#![allow(unsafe_code, reason = "Envoy's functions are called here")]

use std::{
    cell::RefCell,
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    abi::{self, Buffer, Header, Opaque},
    later::{self, Later},
    store::{Process, Shared},
};
use crate::{
    core::{
        headers::Headers,
        host::{
            Attribute, CallId, CallResponse, Callout, HeaderMap, Host, Level, Metric, MetricId, QueueId,
            Side, Stream, StreamId,
        },
    },
    gateway::request::NEXT,
};

/// What stands before the names of filter state, as it does where Wasm keeps it: the route's matcher and the access log are the
/// same for both hosts.
const STATE_PREFIX: &[u8] = b"wasm.";

/// Envoy as one thread reaches it.
pub struct Envoy {
    store: Shared,
    /// The configuration of the role that is being made.
    configuration: RefCell<Vec<u8>>,
}

impl Envoy {
    /// Envoy, with what its process has in common.
    pub fn new(process: &'static Process) -> Envoy {
        Envoy { store: Shared::of(process), configuration: RefCell::default() }
    }

    /// Has a role read this configuration.
    pub fn configure<T>(&self, configuration: &[u8], make: impl FnOnce() -> T) -> T {
        self.configuration.replace(configuration.to_vec());
        make()
    }
}

impl Host for Envoy {
    type Store = Shared;
    type Stream = HttpStream;

    fn store(&self) -> &Shared {
        &self.store
    }

    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        since.and_then(|since| u64::try_from(since.as_millis()).ok()).unwrap_or(0)
    }

    fn random(&self) -> u64 {
        RandomState::new().build_hasher().finish() ^ self.now_ms()
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn configuration(&self) -> Vec<u8> {
        self.configuration.borrow().clone()
    }

    fn enter(&self, id: StreamId) -> Option<HttpStream> {
        later::stream(id)
    }

    // Nothing here ticks for its own sake: requests that wait are woken (see `waking`), what is counted lies in memory, and the
    // main thread says that the workers live.
    fn tick_every(&self, _period: Duration) {}

    fn call(&self, callout: &Callout<'_>) -> Option<CallId> {
        later::call(None, callout)
    }

    fn make_queue(&self, name: &str) -> Option<QueueId> {
        self.store.process().make_queue(name)
    }

    fn find_queue(&self, name: &str) -> Option<QueueId> {
        self.store.process().find_queue(name)
    }

    fn queue_wakes(&self) -> bool {
        false
    }

    fn enqueue(&self, queue: QueueId, value: &[u8]) -> bool {
        self.store.process().enqueue(queue, value)
    }

    fn dequeue(&self, queue: QueueId) -> Option<Vec<u8>> {
        self.store.process().dequeue(queue)
    }

    fn metric(&self, kind: Metric, name: &str) -> Option<MetricId> {
        match kind {
            Metric::Counter => self.store.counter(name),
            // There are none yet.
            Metric::Gauge | Metric::Histogram => None,
        }
    }

    fn add(&self, counter: MetricId, by: u64) {
        self.store.process().counters().add(counter, by);
    }

    fn record(&self, _metric: MetricId, _value: u64) {}

    fn value(&self, metric: MetricId) -> Option<u64> {
        self.store.process().counters().value(metric)
    }

    fn is_watched(&self) -> bool {
        // SAFETY: a function of a number.
        unsafe { abi::log_enabled(abi::level::INFO) }
    }

    fn log(&self, level: Level, message: &str) {
        log(level, message);
    }
}

/// Writes to Envoy's log.
pub fn log(level: Level, message: &str) {
    let level = match level {
        Level::Info => abi::level::INFO,
        Level::Warn => abi::level::WARN,
        Level::Error => abi::level::ERROR,
    };
    // SAFETY: Envoy reads the message before it returns.
    unsafe { abi::log(level, Buffer::of(message.as_bytes())) }
}

/// A stream under way in this worker. Envoy's object lives until `on_http_filter_destroy`; nothing keeps one of these longer
/// than a hook but by its id.
#[derive(Clone, Copy)]
pub struct HttpStream {
    id: StreamId,
    filter: Opaque,
    /// Whether the stream is an attempt's, in the router's upstream chain.
    is_upstream: bool,
}

impl HttpStream {
    /// The stream of one of Envoy's filters.
    pub fn new(id: StreamId, filter: Opaque, is_upstream: bool) -> HttpStream {
        HttpStream { id, filter, is_upstream }
    }

    /// Envoy's filter.
    pub fn filter(&self) -> Opaque {
        self.filter
    }

    /// Bytes of a body: of what has just come, and of what is kept back.
    pub fn body_size(&self, side: Side) -> usize {
        let (received, buffered) = bodies(side);
        // SAFETY: the filter lives.
        unsafe {
            abi::get_body_size(self.filter, buffered)
                .saturating_add(abi::get_body_size(self.filter, received))
        }
    }

    fn add_chunks(&self, body: u32, bytes: &mut Vec<u8>) {
        // SAFETY: the filter lives; Envoy fills in as many chunks as it said there are, which live until the body is changed.
        unsafe {
            let count = abi::get_body_chunks_size(self.filter, body);
            let mut chunks = vec![Buffer::NONE; count];
            if count > 0 && abi::get_body_chunks(self.filter, body, chunks.as_mut_ptr()) {
                chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk.bytes()));
            }
        }
    }

    fn put_header(&self, map: HeaderMap, name: &[u8], value: Option<&[u8]>) {
        let value = value.map_or(Buffer::NONE, Buffer::of);
        // SAFETY: the filter lives; Envoy copies name and value.
        unsafe { abi::set_header(self.filter, map_of(map), Buffer::of(name), value) };
    }

    fn add_header(&self, map: HeaderMap, name: &[u8], value: &[u8]) {
        // SAFETY: the filter lives; Envoy copies name and value.
        unsafe { abi::add_header(self.filter, map_of(map), Buffer::of(name), Buffer::of(value)) };
    }
}

impl Stream for HttpStream {
    fn id(&self) -> StreamId {
        self.id
    }

    fn headers(&self, map: HeaderMap) -> Headers {
        let map = map_of(map);
        let none = Header { name: Buffer::NONE, value: Buffer::NONE };
        // SAFETY: the filter lives; Envoy fills in as many headers as it said there are, which live until one is changed.
        unsafe {
            let count = abi::get_headers_size(self.filter, map);
            let mut headers = vec![none; count];
            if count == 0 || !abi::get_headers(self.filter, map, headers.as_mut_ptr()) {
                return Headers::default();
            }
            let mut list = Headers::with_capacity(count);
            for header in headers {
                list.push_bytes(header.name.bytes(), header.value.bytes());
            }
            list
        }
    }

    // What stays as it is costs nothing: of a request's headers that is the greater part.
    fn replace_headers(&self, map: HeaderMap, headers: &Headers) {
        let old = self.headers(map);
        let times = |list: &Headers, name: &[u8]| list.raw().filter(|(known, _)| *known == name).count();
        for (at, (name, _)) in old.raw().enumerate() {
            let is_first = old.raw().take(at).all(|(known, _)| known != name);
            if is_first && times(headers, name) == 0 {
                self.put_header(map, name, None);
            }
        }
        for (at, (name, value)) in headers.raw().enumerate() {
            let is_first = headers.raw().take(at).all(|(known, _)| known != name);
            if !is_first {
                self.add_header(map, name, value);
            } else if times(&old, name) != 1
                || old.raw().find(|(known, _)| *known == name).is_none_or(|(_, known)| known != value)
            {
                self.put_header(map, name, Some(value));
            }
        }
    }

    fn set_header(&self, map: HeaderMap, name: &str, value: Option<&str>) {
        self.put_header(map, name.as_bytes(), value.map(str::as_bytes));
    }

    fn body(&self, side: Side) -> Vec<u8> {
        let (received, buffered) = bodies(side);
        let mut bytes = Vec::with_capacity(self.body_size(side));
        self.add_chunks(buffered, &mut bytes);
        self.add_chunks(received, &mut bytes);
        bytes
    }

    // What has just come goes behind what was kept back: the new body is put there when there is such a part, which is only in
    // the hook of a body.
    fn replace_body(&self, side: Side, body: &[u8]) {
        let (received, buffered) = bodies(side);
        // SAFETY: the filter lives; Envoy copies the bytes.
        unsafe {
            abi::drain_body(self.filter, buffered, usize::MAX);
            abi::drain_body(self.filter, received, usize::MAX);
            if !abi::append_body(self.filter, received, Buffer::of(body)) {
                abi::append_body(self.filter, buffered, Buffer::of(body));
            }
        }
    }

    fn state(&self, name: &str) -> Option<Vec<u8>> {
        let mut value = Buffer::NONE;
        // SAFETY: the filter lives; the value is copied before anything can change it.
        unsafe {
            abi::get_filter_state(self.filter, Buffer::of(&state_key(name)), &mut value)
                .then(|| value.bytes().to_vec())
        }
    }

    fn set_state(&self, name: &str, value: &[u8]) {
        // SAFETY: the filter lives; Envoy copies key and value.
        unsafe {
            abi::set_filter_state(self.filter, Buffer::of(&state_key(name)), Buffer::of(value));
            // The router asks again before each attempt, but for the first one the route has been chosen already.
            if name == NEXT && !self.is_upstream {
                abi::clear_route_cluster_cache(self.filter);
            }
        }
    }

    fn attribute(&self, attribute: Attribute) -> Option<Vec<u8>> {
        let attribute = match attribute {
            Attribute::ClientAddress => abi::attribute::SOURCE_ADDRESS,
            Attribute::UpstreamLocalAddress => abi::attribute::UPSTREAM_LOCAL_ADDRESS,
            Attribute::ResponseCodeDetails => abi::attribute::RESPONSE_CODE_DETAILS,
            Attribute::UpstreamFailure => abi::attribute::UPSTREAM_TRANSPORT_FAILURE_REASON,
        };
        let mut value = Buffer::NONE;
        // SAFETY: the filter lives; the value is copied before anything can change it.
        unsafe { abi::get_attribute(self.filter, attribute, &mut value).then(|| value.bytes().to_vec()) }
    }

    fn call(&self, callout: &Callout<'_>) -> Option<CallId> {
        later::call(Some(self.id), callout)
    }

    fn reply(&self, status: u16, headers: &[(String, String)], body: &[u8]) {
        later::push(Later::Reply { stream: self.id, status, headers: headers.to_vec(), body: body.to_vec() });
    }

    fn resume(&self, side: Side) {
        later::push(Later::Resume { stream: self.id, side });
    }
}

/// The response to a call, as a hook is given it. `None` when there is none: the connection was lost, or the time was over.
///
/// # Safety
/// Both arrays must be what Envoy gave the hook that is running.
pub unsafe fn call_response(result: u32, headers: &[Header], body: &[Buffer]) -> Option<CallResponse> {
    if result != abi::SUCCESS {
        return None;
    }
    // SAFETY: as promised by the caller.
    let (status, body) = unsafe {
        let status = headers.iter().find(|header| header.name.bytes() == b":status")?.value.bytes();
        let mut bytes = Vec::with_capacity(body.iter().map(|chunk| chunk.bytes().len()).sum());
        body.iter().for_each(|chunk| bytes.extend_from_slice(chunk.bytes()));
        (status, bytes)
    };
    Some(CallResponse { status: std::str::from_utf8(status).ok()?.parse().ok()?, body })
}

fn state_key(name: &str) -> Vec<u8> {
    [STATE_PREFIX, name.as_bytes()].concat()
}

fn map_of(map: HeaderMap) -> u32 {
    match map {
        HeaderMap::Request => abi::map::REQUEST,
        HeaderMap::RequestTrailers => abi::map::REQUEST_TRAILERS,
        HeaderMap::Response => abi::map::RESPONSE,
        HeaderMap::ResponseTrailers => abi::map::RESPONSE_TRAILERS,
    }
}

fn bodies(side: Side) -> (u32, u32) {
    match side {
        Side::Request => (abi::body::RECEIVED_REQUEST, abi::body::BUFFERED_REQUEST),
        Side::Response => (abi::body::RECEIVED_RESPONSE, abi::body::BUFFERED_RESPONSE),
    }
}
