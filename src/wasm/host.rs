//! Envoy through the proxy-wasm ABI, as the host of the gateway.
//!
//! Every call works with bytes, and returns a value instead of a panic: the SDK's string getters and its convenience methods
//! abort the VM on a header that is not UTF-8 or on a status they do not expect, and an aborted VM takes every stream of its
//! worker with it.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, UNIX_EPOCH},
};

use proxy_wasm::{
    hostcalls,
    types::{BufferType, LogLevel, MapType, MetricType},
};

use super::store::{self, SharedData};
use crate::core::{
    headers::Headers,
    host::{
        Attribute, CallId, CallResponse, Callout, HeaderMap, Host, Level, Metric, MetricId, QueueId, Side,
        Stream, StreamId,
    },
};

/// `vm_id` of all roles, by which their VMs share data and queues.
const VM: &str = "tollgate";

/// Envoy as this VM reaches it.
#[derive(Default)]
pub struct Envoy {
    store: SharedData,
}

impl Host for Envoy {
    type Store = SharedData;
    type Stream = HttpStream;

    fn store(&self) -> &SharedData {
        &self.store
    }

    fn now_ms(&self) -> u64 {
        let since = hostcalls::get_current_time().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since.and_then(|since| u64::try_from(since.as_millis()).ok()).unwrap_or(0)
    }

    // The standard library's hasher keys come from the host's random source.
    fn random(&self) -> u64 {
        RandomState::new().build_hasher().finish() ^ self.now_ms()
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn configuration(&self) -> Vec<u8> {
        buffer(BufferType::PluginConfiguration)
    }

    fn enter(&self, id: StreamId) -> Option<HttpStream> {
        let stream = HttpStream(u32::try_from(id).ok()?);
        hostcalls::set_effective_context(stream.0).is_ok().then_some(stream)
    }

    fn tick_every(&self, period: Duration) {
        let _ = hostcalls::set_tick_period(period);
    }

    fn call(&self, callout: &Callout<'_>) -> Option<CallId> {
        call(callout)
    }

    fn make_queue(&self, name: &str) -> Option<QueueId> {
        hostcalls::register_shared_queue(name).ok()
    }

    fn find_queue(&self, name: &str) -> Option<QueueId> {
        hostcalls::resolve_shared_queue(VM, name).ok().flatten()
    }

    fn enqueue(&self, queue: QueueId, value: &[u8]) -> bool {
        hostcalls::enqueue_shared_queue(queue, Some(value)).is_ok()
    }

    fn dequeue(&self, queue: QueueId) -> Option<Vec<u8>> {
        hostcalls::dequeue_shared_queue(queue).ok().flatten()
    }

    fn metric(&self, kind: Metric, name: &str) -> Option<MetricId> {
        let kind = match kind {
            Metric::Counter => MetricType::Counter,
            Metric::Gauge => MetricType::Gauge,
            Metric::Histogram => MetricType::Histogram,
        };
        self.store.metrics.id(kind, name, || name.to_owned())
    }

    fn add(&self, counter: MetricId, by: u64) {
        store::add(counter, by);
    }

    fn record(&self, metric: MetricId, value: u64) {
        let _ = hostcalls::record_metric(metric, value);
    }

    fn value(&self, metric: MetricId) -> Option<u64> {
        store::value(metric)
    }

    fn is_watched(&self) -> bool {
        let level = hostcalls::get_log_level();
        matches!(level, Ok(LogLevel::Trace | LogLevel::Debug | LogLevel::Info))
    }

    fn log(&self, level: Level, message: &str) {
        let level = match level {
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        let _ = hostcalls::log(level, message);
    }
}

/// The stream of this context id. The host's calls are about the one whose hook is running, or which was entered last.
pub struct HttpStream(pub u32);

impl Stream for HttpStream {
    fn id(&self) -> StreamId {
        self.0.into()
    }

    fn headers(&self, map: HeaderMap) -> Headers {
        map::read(map_type(map))
    }

    fn replace_headers(&self, map: HeaderMap, headers: &Headers) {
        map::write(map_type(map), headers);
    }

    fn set_header(&self, map: HeaderMap, name: &str, value: Option<&str>) {
        let _ = hostcalls::set_map_value_bytes(map_type(map), name, value.map(str::as_bytes));
    }

    fn body(&self, side: Side) -> Vec<u8> {
        buffer(body_type(side))
    }

    fn replace_body(&self, side: Side, body: &[u8]) {
        let _ = hostcalls::set_buffer(body_type(side), 0, usize::MAX, body);
    }

    fn state(&self, name: &str) -> Option<Vec<u8>> {
        property(&[name])
    }

    fn set_state(&self, name: &str, value: &[u8]) {
        let _ = hostcalls::set_property(vec![name], Some(value));
    }

    fn attribute(&self, attribute: Attribute) -> Option<Vec<u8>> {
        property(match attribute {
            Attribute::ClientAddress => &["source", "address"],
            Attribute::UpstreamLocalAddress => &["upstream", "local_address"],
            Attribute::ResponseCodeDetails => &["response", "code_details"],
            Attribute::UpstreamFailure => &["upstream", "transport_failure_reason"],
        })
    }

    fn call(&self, callout: &Callout<'_>) -> Option<CallId> {
        call(callout)
    }

    fn reply(&self, status: u16, headers: &[(String, String)], body: &[u8]) {
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let _ = hostcalls::send_http_response(u32::from(status), headers, Some(body));
    }

    fn resume(&self, side: Side) {
        let _ = match side {
            Side::Request => hostcalls::resume_http_request(),
            Side::Response => hostcalls::resume_http_response(),
        };
    }
}

/// A property of the stream, or of the VM.
pub fn property(path: &[&str]) -> Option<Vec<u8>> {
    hostcalls::get_property(path.to_vec()).ok().flatten()
}

/// The response to a call that has just come. `None` when there is none (a broken connection): the SDK must not be asked for its
/// headers then, it panics.
pub fn call_response(headers: usize, body: usize) -> Option<CallResponse> {
    if headers == 0 {
        return None;
    }
    let map = map::read(MapType::HttpCallResponseHeaders);
    let status = map.text(":status")?.parse().ok()?;
    let body = match body {
        0 => Vec::new(),
        size => hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, size).ok()??,
    };
    Some(CallResponse { status, body })
}

fn call(callout: &Callout<'_>) -> Option<CallId> {
    let Callout { cluster, headers, body, limit } = callout;
    let call = hostcalls::dispatch_http_call(cluster, headers.to_vec(), *body, Vec::new(), *limit);
    call.ok().map(CallId::from)
}

fn buffer(buffer: BufferType) -> Vec<u8> {
    hostcalls::get_buffer(buffer, 0, usize::MAX).ok().flatten().unwrap_or_default()
}

fn map_type(map: HeaderMap) -> MapType {
    match map {
        HeaderMap::Request => MapType::HttpRequestHeaders,
        HeaderMap::RequestTrailers => MapType::HttpRequestTrailers,
        HeaderMap::Response => MapType::HttpResponseHeaders,
        HeaderMap::ResponseTrailers => MapType::HttpResponseTrailers,
    }
}

fn body_type(side: Side) -> BufferType {
    match side {
        Side::Request => BufferType::HttpRequestBody,
        Side::Response => BufferType::HttpResponseBody,
    }
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
        // was left for the one that asked.
        Headers::from_map(unsafe { Vec::from_raw_parts(data, size, size) })
    }

    /// Puts headers in place of all that a map holds.
    pub fn write(map: MapType, list: &Headers) {
        let bytes = list.to_map();
        // SAFETY: the host only reads, and only until the call returns.
        unsafe { proxy_set_header_map_pairs(map as u32, bytes.as_ptr(), bytes.len()) };
    }
}
