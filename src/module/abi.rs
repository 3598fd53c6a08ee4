//! Envoy's ABI for dynamic modules, as far as the gateway uses it: version 0.2.0, of Envoy 1.40.
//!
//! Written by hand from what the ABI is, name by name; at another version of Envoy every line here is to be looked at again,
//! above all positions in enumerations, which nothing checks. Two kinds of functions: *callbacks*, which Envoy has and the
//! module calls (below), and *hooks*, which the module has and Envoy calls ([`hooks`](super::hooks)).
//!
//! | callback | what it does |
//! |---|---|
//! | `log`, `log_enabled` | Envoy's log, under the component `dynamic_modules` |
//! | `http_get_headers_size`, `http_get_headers` | a header map, as pointers into Envoy's: good until a setter or the end of the hook |
//! | `http_set_header`, `http_add_header` | one header: put in place of all of its name (a null value removes them), or added |
//! | `http_get_body_size`, `http_get_body_chunks_size`, `http_get_body_chunks` | a body: the part that is here, and the part that is kept back |
//! | `http_append_body`, `http_drain_body` | changes either |
//! | `http_set_filter_state_bytes`, `http_get_filter_state_bytes` | values of a stream, shared by both filters, the route's matcher and the access log |
//! | `http_filter_get_attribute_string` | what Envoy knows of a stream |
//! | `http_clear_route_cluster_cache` | has the route's matcher choose the cluster again |
//! | `http_send_response` | replies; runs at once, and through our own hooks |
//! | `http_filter_continue_decoding`, `…_encoding` | go on with what was paused; the same |
//! | `http_filter_http_callout` | a call for a stream; done in `on_http_filter_http_callout_done` |
//! | `http_filter_scheduler_new`, `…_commit`, `…_delete` | wakes a stream on its own worker, from any thread |
//! | `bootstrap_extension_config_define_counter`, `…_increment_counter` | counters; defined while the extension is made |
//! | `bootstrap_extension_timer_new`, `…_enable` | a timer of the main thread |
//! | `bootstrap_extension_http_callout` | a call of the main thread |
//! | `bootstrap_extension_config_signal_init_complete` | lets Envoy go on with its start |

#![allow(unsafe_code, reason = "Envoy's functions are declared here, and what it points to is read")]

use std::{ffi::c_void, ptr::null, slice};

/// The version of the ABI, as `on_program_init` tells it.
pub const VERSION: &std::ffi::CStr = c"v0.2.0";

/// Envoy's own objects and ours on their way through Envoy: nothing is known of what they point to.
pub type Opaque = *mut c_void;

/// Bytes that somebody else owns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Buffer {
    pointer: *const u8,
    length: usize,
}

impl Buffer {
    /// No bytes; as a header's value: none.
    pub const NONE: Buffer = Buffer { pointer: null(), length: 0 };

    /// Lends bytes for the time of a call.
    pub fn of(bytes: &[u8]) -> Buffer {
        Buffer { pointer: bytes.as_ptr(), length: bytes.len() }
    }

    /// Whether it says that there is nothing, which empty bytes do not.
    #[cfg(test)]
    pub fn is_none(self) -> bool {
        self.pointer.is_null()
    }

    /// What it points to.
    ///
    /// # Safety
    /// The bytes must live as long as `'a`: Envoy's do until the hook ends or the map, body or state they are of is changed.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.pointer.is_null() || self.length == 0 {
            return &[];
        }
        // SAFETY: as promised by the caller; the ABI never gives a pointer without its length.
        unsafe { slice::from_raw_parts(self.pointer, self.length) }
    }
}

/// A header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header {
    /// The header's name.
    pub name: Buffer,
    /// The header's value.
    pub value: Buffer,
}

/// An array that Envoy lends to a hook.
///
/// # Safety
/// `pointer` must point to `count` values for as long as `'a`, or be null.
pub unsafe fn list<'a, T>(pointer: *const T, count: usize) -> &'a [T] {
    if pointer.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: as promised by the caller.
    unsafe { slice::from_raw_parts(pointer, count) }
}

/// Header maps.
pub mod map {
    pub const REQUEST: u32 = 0;
    pub const REQUEST_TRAILERS: u32 = 1;
    pub const RESPONSE: u32 = 2;
    pub const RESPONSE_TRAILERS: u32 = 3;
}

/// Bodies: what has just come, and what is kept back.
pub mod body {
    pub const RECEIVED_REQUEST: u32 = 0;
    pub const BUFFERED_REQUEST: u32 = 1;
    pub const RECEIVED_RESPONSE: u32 = 2;
    pub const BUFFERED_RESPONSE: u32 = 3;
}

/// How a hook lets go on what came by. For headers and trailers [`status::STOP`] keeps them back, for bodies too, with what came
/// before.
pub mod status {
    pub const CONTINUE: u32 = 0;
    pub const STOP: u32 = 1;
}

/// Attributes, by their position in Envoy's list.
pub mod attribute {
    pub const RESPONSE_CODE_DETAILS: u32 = 16;
    pub const SOURCE_ADDRESS: u32 = 24;
    pub const UPSTREAM_LOCAL_ADDRESS: u32 = 51;
    pub const UPSTREAM_TRANSPORT_FAILURE_REASON: u32 = 52;
}

/// Levels of the log.
pub mod level {
    pub const INFO: u32 = 2;
    pub const WARN: u32 = 3;
    pub const ERROR: u32 = 4;
}

/// Of a call or a counter: it is begun, made, counted.
pub const SUCCESS: u32 = 0;

#[cfg(not(test))]
pub use real::*;

#[cfg(test)]
pub use super::fake::*;

#[cfg(not(test))]
mod real {
    use super::{Buffer, Header, Opaque};

    macro_rules! callbacks {
        ($($name:ident = $symbol:literal ($($argument:ident: $kind:ty),*) $(-> $result:ty)?;)*) => {
            #[allow(unsafe_code, reason = "Envoy's functions are declared here")]
            unsafe extern "C" {
                $(
                    #[link_name = $symbol]
                    pub fn $name($($argument: $kind),*) $(-> $result)?;
                )*
            }
        };
    }

    callbacks! {
        log = "envoy_dynamic_module_callback_log" (level: u32, message: Buffer);
        log_enabled = "envoy_dynamic_module_callback_log_enabled" (level: u32) -> bool;
        get_headers_size = "envoy_dynamic_module_callback_http_get_headers_size" (filter: Opaque, map: u32) -> usize;
        get_headers = "envoy_dynamic_module_callback_http_get_headers" (filter: Opaque, map: u32, headers: *mut Header) -> bool;
        set_header = "envoy_dynamic_module_callback_http_set_header" (filter: Opaque, map: u32, name: Buffer, value: Buffer) -> bool;
        add_header = "envoy_dynamic_module_callback_http_add_header" (filter: Opaque, map: u32, name: Buffer, value: Buffer) -> bool;
        get_body_size = "envoy_dynamic_module_callback_http_get_body_size" (filter: Opaque, body: u32) -> usize;
        get_body_chunks_size = "envoy_dynamic_module_callback_http_get_body_chunks_size" (filter: Opaque, body: u32) -> usize;
        get_body_chunks = "envoy_dynamic_module_callback_http_get_body_chunks" (filter: Opaque, body: u32, chunks: *mut Buffer) -> bool;
        append_body = "envoy_dynamic_module_callback_http_append_body" (filter: Opaque, body: u32, bytes: Buffer) -> bool;
        drain_body = "envoy_dynamic_module_callback_http_drain_body" (filter: Opaque, body: u32, count: usize) -> bool;
        set_filter_state = "envoy_dynamic_module_callback_http_set_filter_state_bytes" (filter: Opaque, key: Buffer, value: Buffer) -> bool;
        get_filter_state = "envoy_dynamic_module_callback_http_get_filter_state_bytes" (filter: Opaque, key: Buffer, value: *mut Buffer) -> bool;
        get_attribute = "envoy_dynamic_module_callback_http_filter_get_attribute_string" (filter: Opaque, attribute: u32, value: *mut Buffer) -> bool;
        clear_route_cluster_cache = "envoy_dynamic_module_callback_http_clear_route_cluster_cache" (filter: Opaque);
        send_response = "envoy_dynamic_module_callback_http_send_response" (filter: Opaque, status: u32, headers: *const Header, count: usize, body: Buffer, details: Buffer);
        continue_decoding = "envoy_dynamic_module_callback_http_filter_continue_decoding" (filter: Opaque);
        continue_encoding = "envoy_dynamic_module_callback_http_filter_continue_encoding" (filter: Opaque);
        http_callout = "envoy_dynamic_module_callback_http_filter_http_callout" (filter: Opaque, id: *mut u64, cluster: Buffer, headers: *const Header, count: usize, body: Buffer, limit_ms: u64) -> u32;
        scheduler_new = "envoy_dynamic_module_callback_http_filter_scheduler_new" (filter: Opaque) -> Opaque;
        scheduler_commit = "envoy_dynamic_module_callback_http_filter_scheduler_commit" (scheduler: Opaque, event: u64);
        scheduler_delete = "envoy_dynamic_module_callback_http_filter_scheduler_delete" (scheduler: Opaque);
        define_counter = "envoy_dynamic_module_callback_bootstrap_extension_config_define_counter" (extension: Opaque, name: Buffer, labels: *const Buffer, count: usize, id: *mut usize) -> u32;
        increment_counter = "envoy_dynamic_module_callback_bootstrap_extension_config_increment_counter" (extension: Opaque, id: usize, values: *const Buffer, count: usize, by: u64) -> u32;
        timer_new = "envoy_dynamic_module_callback_bootstrap_extension_timer_new" (extension: Opaque) -> Opaque;
        timer_enable = "envoy_dynamic_module_callback_bootstrap_extension_timer_enable" (timer: Opaque, ms: u64);
        extension_http_callout = "envoy_dynamic_module_callback_bootstrap_extension_http_callout" (extension: Opaque, id: *mut u64, cluster: Buffer, headers: *const Header, count: usize, body: Buffer, limit_ms: u64) -> u32;
        signal_init_complete = "envoy_dynamic_module_callback_bootstrap_extension_config_signal_init_complete" (extension: Opaque);
    }
}
