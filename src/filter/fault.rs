//! Panics where a request asks for one: in builds with the feature `fault-injection` only, to see a VM die and come back.

use super::host;
use crate::core::host::Store;

/// The request header that names the callback to panic in.
const HEADER: &str = "x-fault";
/// Where the name is kept for the callbacks that no longer see the request's own headers.
const STATE: &str = "tollgate.fault";

/// Key of shared data with an order for a role that sees no requests.
const ORDER: &str = "fault/order";

/// Takes the order out of the request's headers, so that no provider gets to see it.
pub fn arm() {
    if let Some(name) = host::request_headers().get(HEADER) {
        host::set_state(STATE, name);
        if name == b"sync" {
            host::SharedData.set(ORDER, name, None);
        }
        host::remove_request_header(HEADER);
    }
}

/// Panics if this is the callback that the request named.
#[allow(clippy::panic, reason = "panicking is what this build is for")]
pub fn strike(callback: &str) {
    if host::property(&[STATE]).is_some_and(|name| name == callback.as_bytes()) {
        panic!("fault injected in {callback}");
    }
}

/// Panics, once, if a request named this role.
#[allow(clippy::panic, reason = "panicking is what this build is for")]
pub fn strike_shared(role: &str) {
    if host::SharedData.get(ORDER).is_some_and(|(name, _)| name == role.as_bytes()) {
        host::SharedData.set(ORDER, b"", None);
        panic!("fault injected in the role {role}");
    }
}
