//! The functions that Envoy calls. Each turns pointers into what they point to, and hands over; none lets a panic through.
//!
//! Envoy looks for all hooks of the filters and of the bootstrap extension when it loads the module: those that the gateway has no
//! use for are at the end, and do nothing.

#![allow(unsafe_code, reason = "the hooks that Envoy calls are exported symbols and get pointers")]

use std::{
    ffi::c_char,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::null_mut,
    sync::Arc,
};

use super::{
    abi::{self, Buffer, Header, Opaque, status},
    extension::Extension,
    filter::Filter,
    host::{HttpStream, call_response},
    later,
    roles::{Configuration, Role},
};

/// What a hook gives back that refuses.
const NOTHING: Opaque = null_mut();

/// Runs what must not unwind into Envoy.
fn safe<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(otherwise)
}

/// Runs a hook of one of our filters.
///
/// # Safety
/// `filter` must be what `on_http_filter_new` gave, and not destroyed.
unsafe fn of(filter: Opaque, work: impl FnOnce(&Filter) -> u32) -> u32 {
    // SAFETY: as promised by the caller; only shared references to it are made.
    match unsafe { filter.cast::<Filter>().as_ref() } {
        Some(filter) => safe(status::CONTINUE, || work(filter)),
        None => status::CONTINUE,
    }
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    abi::VERSION.as_ptr()
}

// Filters.

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    _config: Opaque,
    name: Buffer,
    text: Buffer,
) -> *const Configuration {
    // SAFETY: both live until this returns.
    let (name, text) = unsafe { (name.bytes(), text.bytes()) };
    let read = safe(None, || later::hook(|| Configuration::read(name, text)));
    read.map_or(std::ptr::null(), Arc::into_raw)
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(
    configuration: *const Configuration,
) {
    if !configuration.is_null() {
        // SAFETY: it came from `config_new`, and Envoy gives it back once.
        unsafe { Arc::from_raw(configuration) }.retire();
    }
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_new(
    configuration: *const Configuration,
    filter: Opaque,
) -> Opaque {
    if configuration.is_null() {
        return NOTHING;
    }
    // SAFETY: it came from `config_new`; Envoy keeps its own share of it.
    let configuration = unsafe {
        Arc::increment_strong_count(configuration);
        Arc::from_raw(configuration)
    };
    safe(NOTHING, || {
        let Some(role) = later::hook(|| configuration.role()) else { return NOTHING };
        let is_upstream = matches!(role, Role::Provider(_));
        let stream = HttpStream::new(later::next_id(), filter, is_upstream);
        let ours = Box::into_raw(Box::new(Filter::new(stream, role)));
        later::remember(stream, ours);
        ours.cast()
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    _envoy: Opaque,
    filter: Opaque,
    ended: bool,
) -> u32 {
    // SAFETY: Envoy calls no hook of a filter that is destroyed.
    unsafe { of(filter, |filter| filter.on_request_headers(ended)) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_body(
    _envoy: Opaque,
    filter: Opaque,
    ended: bool,
) -> u32 {
    // SAFETY: as above.
    unsafe { of(filter, |filter| filter.on_request_body(ended)) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(
    _envoy: Opaque,
    filter: Opaque,
) -> u32 {
    // SAFETY: as above.
    unsafe { of(filter, Filter::on_request_trailers) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_headers(
    _envoy: Opaque,
    filter: Opaque,
    ended: bool,
) -> u32 {
    // SAFETY: as above.
    unsafe { of(filter, |filter| filter.on_response_headers(ended)) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_body(
    _envoy: Opaque,
    filter: Opaque,
    ended: bool,
) -> u32 {
    // SAFETY: as above.
    unsafe { of(filter, |filter| filter.on_response_body(ended)) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_trailers(
    _envoy: Opaque,
    filter: Opaque,
) -> u32 {
    // SAFETY: as above.
    unsafe { of(filter, Filter::on_response_trailers) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_stream_complete(
    _envoy: Opaque,
    filter: Opaque,
) {
    // SAFETY: as above.
    unsafe {
        of(filter, |filter| {
            filter.on_complete();
            status::CONTINUE
        });
    }
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_destroy(filter: *mut Filter) {
    if filter.is_null() {
        return;
    }
    // SAFETY: it came from `filter_new`, and Envoy gives it back once, when no hook of it runs.
    let filter = unsafe { Box::from_raw(filter) };
    safe((), || {
        filter.on_destroy();
        drop(filter);
    });
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_http_callout_done(
    _envoy: Opaque,
    filter: Opaque,
    call: u64,
    result: u32,
    headers: *const Header,
    headers_count: usize,
    body: *const Buffer,
    body_count: usize,
) {
    // SAFETY: Envoy's arrays live until this returns, and its filter has not been destroyed.
    unsafe {
        of(filter, |filter| {
            if let Some(call) = later::ended(filter.id(), call) {
                let (headers, body) = (abi::list(headers, headers_count), abi::list(body, body_count));
                filter.on_called(call, call_response(result, headers, body));
            }
            status::CONTINUE
        });
    }
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_scheduled(
    _envoy: Opaque,
    _filter: Opaque,
    _event: u64,
) {
    safe((), || later::hook(super::waking::woken));
}

// The bootstrap extension.

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_bootstrap_extension_config_new(
    envoy: Opaque,
    _name: Buffer,
    text: Buffer,
) -> *const Extension {
    // SAFETY: it lives until this returns.
    let text = unsafe { text.bytes() };
    safe(None, || later::hook(|| Extension::begin(envoy, text))).map_or(std::ptr::null(), std::ptr::from_ref)
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_bootstrap_extension_new(
    extension: *const Extension,
    _envoy: Opaque,
) -> *const Extension {
    extension
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn envoy_dynamic_module_on_bootstrap_extension_server_initialized(
    _envoy: Opaque,
    extension: *const Extension,
) {
    // SAFETY: it lives as long as the process.
    unsafe { extension.as_ref() }.into_iter().for_each(|extension| safe((), || extension.on_started()));
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn envoy_dynamic_module_on_bootstrap_extension_timer_fired(
    _envoy: Opaque,
    extension: *const Extension,
    _timer: Opaque,
) {
    // SAFETY: it lives as long as the process.
    unsafe { extension.as_ref() }.into_iter().for_each(|extension| safe((), || extension.on_tick()));
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn envoy_dynamic_module_on_bootstrap_extension_http_callout_done(
    _envoy: Opaque,
    extension: *const Extension,
    _call: u64,
    result: u32,
    headers: *const Header,
    headers_count: usize,
    body: *const Buffer,
    body_count: usize,
) {
    // SAFETY: the extension lives as long as the process, Envoy's arrays until this returns.
    unsafe {
        let response = call_response(result, abi::list(headers, headers_count), abi::list(body, body_count));
        extension
            .as_ref()
            .into_iter()
            .for_each(|extension| safe((), || extension.on_called(response.clone())));
    }
}

/// Envoy waits for this before it ends.
#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_bootstrap_extension_shutdown(
    _envoy: Opaque,
    _extension: *const Extension,
    done: extern "C" fn(Opaque),
    context: Opaque,
) {
    done(context);
}

// What the gateway has no use for. What Envoy hands over is not looked at; 0 is "go on", and no pointer refuses.
macro_rules! unused {
    ($($name:ident)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name() -> usize {
                0
            }
        )*
    };
}

unused! {
    envoy_dynamic_module_on_bootstrap_extension_admin_request
    envoy_dynamic_module_on_bootstrap_extension_cluster_add_or_update
    envoy_dynamic_module_on_bootstrap_extension_cluster_removal
    envoy_dynamic_module_on_bootstrap_extension_config_destroy
    envoy_dynamic_module_on_bootstrap_extension_config_scheduled
    envoy_dynamic_module_on_bootstrap_extension_destroy
    envoy_dynamic_module_on_bootstrap_extension_drain_started
    envoy_dynamic_module_on_bootstrap_extension_file_changed
    envoy_dynamic_module_on_bootstrap_extension_listener_add_or_update
    envoy_dynamic_module_on_bootstrap_extension_listener_removal
    envoy_dynamic_module_on_bootstrap_extension_worker_thread_initialized
    envoy_dynamic_module_on_http_filter_config_http_callout_done
    envoy_dynamic_module_on_http_filter_config_http_stream_complete
    envoy_dynamic_module_on_http_filter_config_http_stream_data
    envoy_dynamic_module_on_http_filter_config_http_stream_headers
    envoy_dynamic_module_on_http_filter_config_http_stream_reset
    envoy_dynamic_module_on_http_filter_config_http_stream_trailers
    envoy_dynamic_module_on_http_filter_config_scheduled
    envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark
    envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark
    envoy_dynamic_module_on_http_filter_http_stream_complete
    envoy_dynamic_module_on_http_filter_http_stream_data
    envoy_dynamic_module_on_http_filter_http_stream_headers
    envoy_dynamic_module_on_http_filter_http_stream_reset
    envoy_dynamic_module_on_http_filter_http_stream_trailers
    envoy_dynamic_module_on_http_filter_local_reply
    envoy_dynamic_module_on_http_filter_per_route_config_destroy
    envoy_dynamic_module_on_http_filter_per_route_config_new
}
