//! The host, wrapped: the only file that makes host calls.
//!
//! Every call answers with bytes and with a value instead of a panic: the SDK's string getters and its convenience methods
//! abort the VM on a header that is not UTF-8 or on a status they do not expect, and an aborted VM takes every stream of its
//! worker with it.

#![allow(clippy::disallowed_methods, reason = "this is the one place that may call the host")]

use std::{
    cell::{Cell, RefCell},
    time::UNIX_EPOCH,
};

use hashbrown::HashMap;

use proxy_wasm::{
    hostcalls,
    types::{BufferType, LogLevel, MapType, MetricType},
};

use crate::core::{
    headers::Headers,
    host::{Secret, Store, Topic, Version},
    store::{self, Minutes},
};

/// Shared data as the core sees it.
pub struct SharedData;

impl Store for SharedData {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        match hostcalls::get_shared_data(key) {
            Ok((Some(value), version)) => Some((value, version.unwrap_or(0))),
            _ => None,
        }
    }

    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> bool {
        hostcalls::set_shared_data(key, Some(value), version).is_ok()
    }

    // A counter is read without a call into the VM, so it tells whether what was read before still stands.
    fn look(&self, topic: Topic, key: &str) -> Option<Vec<u8>> {
        let read = || self.get(key).map(|(value, _)| value);
        let Some(touched) = COUNTERS.with(|counters| counters.value(changes_of(topic))) else {
            return read();
        };
        let known = COPIES.with(|copies| {
            let copies = copies.try_borrow().ok()?;
            copies.get(key).filter(|copy| copy.touched == touched).map(|copy| copy.value.clone())
        });
        known.unwrap_or_else(|| {
            let value = read();
            COPIES.with(|copies| {
                if let Ok(mut copies) = copies.try_borrow_mut() {
                    if copies.len() >= MOST_COPIES {
                        copies.clear();
                    }
                    copies.insert(key.to_owned(), Copy { touched, value: value.clone() });
                }
            });
            value
        })
    }

    fn touch(&self, topic: Topic) {
        COUNTERS.with(|counters| counters.add(changes_of(topic), 1));
    }

    // It is written once and stays.
    fn secret(&self) -> Secret {
        SECRET.get().unwrap_or_else(|| {
            let secret = store::read_secret(self);
            SECRET.set(secret);
            secret.unwrap_or_default()
        })
    }

    fn count(&self, counter: &'static str) {
        COUNTERS.with(|counters| counters.add(counter, 1));
    }

    fn succeeded(&self, deployment: &str, minute: u64) {
        SUCCESSES.with(|successes| successes.add(deployment, minute));
    }

    fn successes(&self, deployment: &str, minute: u64) -> u64 {
        SUCCESSES.with(|successes| successes.of(deployment, minute))
    }
}

/// So many copies of values are kept. There are as many keys as deployments, and a few.
const MOST_COPIES: usize = 10_000;

/// A value as it was when its topic had been touched so often.
struct Copy {
    touched: u64,
    value: Option<Vec<u8>>,
}

thread_local! {
    static SECRET: Cell<Option<Secret>> = const { Cell::new(None) };
    static COPIES: RefCell<HashMap<String, Copy>> = RefCell::default();
    static COUNTERS: Counters = Counters::default();
    static SUCCESSES: Successes = Successes::default();
}

/// The counter of how often values of a topic were changed.
fn changes_of(topic: Topic) -> &'static str {
    match topic {
        Topic::Access => "tollgate_changes;kind=access",
        Topic::Rest => "tollgate_changes;kind=rest",
    }
}

/// The ids of counters by some key, as this VM knows them.
type Ids = RefCell<HashMap<String, u32>>;

/// The id behind a key, made by the counter's name when it is new.
fn known(ids: &Ids, key: &str, name: impl FnOnce() -> String) -> Option<u32> {
    let mut ids = ids.try_borrow_mut().ok()?;
    if let Some(id) = ids.get(key) {
        return Some(*id);
    }
    counter(&name()).inspect(|id| {
        ids.insert(key.to_owned(), *id);
    })
}

/// Counters by name.
#[derive(Default)]
pub struct Counters(Ids);

impl Counters {
    /// Adds to a counter.
    pub fn add(&self, name: &str, by: u64) {
        if by > 0
            && let Some(id) = self.id(name)
        {
            count(id, by);
        }
    }

    /// What a counter stands at, in all VMs together.
    pub fn value(&self, name: &str) -> Option<u64> {
        counted(self.id(name)?)
    }

    fn id(&self, name: &str) -> Option<u32> {
        known(&self.0, name, || name.to_owned())
    }
}

/// The counters of answers that went well, by deployment, and what each stood at when this VM first asked in a minute.
#[derive(Default)]
struct Successes {
    ids: Ids,
    minutes: RefCell<Minutes>,
}

impl Successes {
    fn add(&self, deployment: &str, minute: u64) {
        // What it stood at before the first of the minute is what the minute is counted from.
        if !self.minutes.try_borrow().is_ok_and(|minutes| minutes.knows(deployment, minute)) {
            self.of(deployment, minute);
        }
        if let Some(id) = self.id(deployment) {
            count(id, 1);
        }
    }

    fn of(&self, deployment: &str, minute: u64) -> u64 {
        let total = self.id(deployment).and_then(counted);
        let (Some(total), Ok(mut minutes)) = (total, self.minutes.try_borrow_mut()) else { return 0 };
        minutes.since(deployment, minute, total)
    }

    fn id(&self, deployment: &str) -> Option<u32> {
        let name = || format!("tollgate_successes;deployment={}", deployment.replace([';', '='], "_"));
        known(&self.ids, deployment, name)
    }
}

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    let since = hostcalls::get_current_time().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| u64::try_from(since.as_millis()).ok()).unwrap_or(0)
}

/// The whole plugin configuration.
pub fn plugin_configuration() -> Vec<u8> {
    hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX).ok().flatten().unwrap_or_default()
}

/// All request headers, the `:`-ones included.
pub fn request_headers() -> Headers {
    map::read(MapType::HttpRequestHeaders)
}

/// All answer headers, `:status` included.
pub fn answer_headers() -> Headers {
    map::read(MapType::HttpResponseHeaders)
}

/// Puts a whole set of request headers in place of the old one.
pub fn replace_request_headers(list: &Headers) {
    map::write(MapType::HttpRequestHeaders, list);
}

/// Puts a whole set of answer headers in place of the old one.
pub fn replace_answer_headers(list: &Headers) {
    map::write(MapType::HttpResponseHeaders, list);
}

/// Header maps as the one buffer that the host hands over: the SDK would make two allocations of each header.
#[allow(unsafe_code, reason = "the host's own functions are called here")]
mod map {
    use std::ptr::null_mut;

    use proxy_wasm::types::MapType;

    use super::Headers;

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        fn proxy_set_header_map_pairs(map: u32, data: *const u8, size: usize) -> u32;
    }

    /// All headers of a map; none when the host has no such map now.
    pub fn read(map: MapType) -> Headers {
        let mut data = null_mut();
        let mut size = 0;
        // SAFETY: both pointers live until the call returns.
        let status = unsafe { proxy_get_header_map_pairs(map as u32, &mut data, &mut size) };
        if status != 0 || data.is_null() {
            return Headers::default();
        }
        // SAFETY: the host has had the buffer made by the SDK's `proxy_on_memory_allocate`, a vector of just this size that
        // was left for whoever asked.
        Headers::from_map(unsafe { Vec::from_raw_parts(data, size, size) })
    }

    /// Puts headers in place of all that a map holds.
    pub fn write(map: MapType, list: &Headers) {
        let bytes = list.to_map();
        // SAFETY: the host only reads, and only until the call returns.
        unsafe { proxy_set_header_map_pairs(map as u32, bytes.as_ptr(), bytes.len()) };
    }
}

/// Sets one request header.
pub fn set_request_header(name: &str, value: &str) {
    let _ = hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, Some(value.as_bytes()));
}

/// Removes a request header.
pub fn remove_request_header(name: &str) {
    let _ = hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, None);
}

/// What is buffered of the request body.
pub fn request_body() -> Vec<u8> {
    hostcalls::get_buffer(BufferType::HttpRequestBody, 0, usize::MAX).ok().flatten().unwrap_or_default()
}

/// What is buffered of the answer's body, or its newest chunk.
pub fn answer_body() -> Vec<u8> {
    hostcalls::get_buffer(BufferType::HttpResponseBody, 0, usize::MAX).ok().flatten().unwrap_or_default()
}

/// Puts `body` in place of what is buffered of the request body.
pub fn replace_request_body(body: &[u8]) {
    let _ = hostcalls::set_buffer(BufferType::HttpRequestBody, 0, usize::MAX, body);
}

/// Puts `body` in place of what is buffered of the answer's body.
pub fn replace_answer_body(body: &[u8]) {
    let _ = hostcalls::set_buffer(BufferType::HttpResponseBody, 0, usize::MAX, body);
}

/// A property of the stream.
pub fn property(path: &[&str]) -> Option<Vec<u8>> {
    hostcalls::get_property(path.to_vec()).ok().flatten()
}

/// The address of the client, without a port.
pub fn client() -> Option<String> {
    let address = String::from_utf8(property(&["source", "address"])?).ok()?;
    let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
    Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

/// Stores a value in the stream's filter state under `wasm.{name}`.
pub fn set_state(name: &str, value: &[u8]) {
    let _ = hostcalls::set_property(vec![name], Some(value));
}

/// Answers the client. The caller pauses the stream after it.
pub fn reply(status: u16, headers: &[(String, String)], body: &[u8]) {
    let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let _ = hostcalls::send_http_response(u32::from(status), headers, Some(body));
}

/// Names the stream that the next host calls are about (for work done on a tick).
pub fn enter(context_id: u32) -> bool {
    hostcalls::set_effective_context(context_id).is_ok()
}

/// Sets one answer header.
pub fn set_answer_header(name: &str, value: &str) {
    let _ = hostcalls::set_map_value_bytes(MapType::HttpResponseHeaders, name, Some(value.as_bytes()));
}

/// Removes an answer header.
pub fn remove_answer_header(name: &str) {
    let _ = hostcalls::set_map_value_bytes(MapType::HttpResponseHeaders, name, None);
}

/// Begins a call to a cluster; its answer comes to `on_http_call_response` of the context that is asking. `None` when it cannot
/// even begin.
pub fn call(
    cluster: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
    limit: std::time::Duration,
) -> Option<u32> {
    hostcalls::dispatch_http_call(cluster, headers.to_vec(), body, Vec::new(), limit).ok()
}

/// Status and body of the answer that has just come. `None` when there is none (a broken connection): the SDK must not be
/// asked for its headers then, it panics.
pub fn call_answer(headers: usize, body: usize) -> Option<(u16, Vec<u8>)> {
    if headers == 0 {
        return None;
    }
    let map = map::read(MapType::HttpCallResponseHeaders);
    let status = map.text(":status")?.parse().ok()?;
    let bytes = match body {
        0 => Vec::new(),
        size => hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, size).ok()??,
    };
    Some((status, bytes))
}

/// Makes a queue that all VMs with this VM's id share; the one there when it exists.
pub fn make_queue(name: &str) -> Option<u32> {
    hostcalls::register_shared_queue(name).ok()
}

/// Finds a queue that another VM made.
pub fn find_queue(vm: &str, name: &str) -> Option<u32> {
    hostcalls::resolve_shared_queue(vm, name).ok().flatten()
}

/// Puts a value into a queue.
pub fn enqueue(queue: u32, value: &[u8]) -> bool {
    hostcalls::enqueue_shared_queue(queue, Some(value)).is_ok()
}

/// Takes the oldest value out of a queue.
pub fn dequeue(queue: u32) -> Option<Vec<u8>> {
    hostcalls::dequeue_shared_queue(queue).ok().flatten()
}

/// Lets a request go on that was paused.
pub fn resume_request() {
    let _ = hostcalls::resume_http_request();
}

/// Asks for ticks; zero stops them.
pub fn tick_every(period: std::time::Duration) {
    let _ = hostcalls::set_tick_period(period);
}

/// The id of a counter, made when it is new.
pub fn counter(name: &str) -> Option<u32> {
    hostcalls::define_metric(MetricType::Counter, name).ok()
}

/// Adds to a counter.
pub fn count(id: u32, by: u64) {
    if let (true, Ok(by)) = (by > 0, i64::try_from(by)) {
        let _ = hostcalls::increment_metric(id, by);
    }
}

/// What a counter stands at, in all VMs together.
pub fn counted(id: u32) -> Option<u64> {
    hostcalls::get_metric(id).ok()
}

/// Whether Envoy's log shows what is for whoever looks closely (`--debug`).
pub fn is_watched() -> bool {
    let level = hostcalls::get_log_level();
    matches!(level, Ok(LogLevel::Trace | LogLevel::Debug | LogLevel::Info))
}

/// Writes to Envoy's log what is for whoever looks closely.
pub fn info(message: &str) {
    let _ = hostcalls::log(LogLevel::Info, message);
}

/// Writes a warning to Envoy's log.
pub fn warn(message: &str) {
    let _ = hostcalls::log(LogLevel::Warn, message);
}

/// Writes an error to Envoy's log.
pub fn error(message: &str) {
    let _ = hostcalls::log(LogLevel::Error, message);
}
