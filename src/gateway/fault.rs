//! Panics where a request asks for one: in builds with the feature `fault-injection` only, to see a worker die and come back.

use crate::core::host::{HeaderMap, Store, Stream};

/// The request header that names the callback to panic in.
const HEADER: &str = "x-fault";
/// Where the name is kept for the callbacks that no longer see the request's own headers.
const STATE: &str = "tollgate.fault";

/// Key of shared data with an order for a role that sees no requests.
const ORDER: &str = "fault/order";

/// Takes the order out of the request's headers, so that no provider gets to see it.
pub fn arm(store: &impl Store, stream: &impl Stream) {
    if let Some(name) = stream.headers(HeaderMap::Request).get(HEADER) {
        stream.set_state(STATE, name);
        if name == b"sync" {
            store.set(ORDER, name, None);
        }
        stream.set_header(HeaderMap::Request, HEADER, None);
    }
}

/// Panics if this is the callback that the request named.
#[allow(clippy::panic, reason = "panicking is what this build is for")]
pub fn inject(stream: &impl Stream, callback: &str) {
    if stream.state(STATE).is_some_and(|name| name == callback.as_bytes()) {
        panic!("fault injected in {callback}");
    }
}

/// Panics, once, if a request named this role.
#[allow(clippy::panic, reason = "panicking is what this build is for")]
pub fn inject_shared(store: &impl Store, role: &str) {
    if store.get(ORDER).is_some_and(|(name, _)| name == role.as_bytes()) {
        store.set(ORDER, b"", None);
        panic!("fault injected in the role {role}");
    }
}
