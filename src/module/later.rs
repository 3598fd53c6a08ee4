//! What a hook asks for and what must not happen before it has returned: replies, resumptions and calls run through our own hooks
//! at once. They wait here, in order, until the outermost hook of this thread is done and nothing is borrowed any more.

#![allow(unsafe_code, reason = "Envoy's functions are called here")]

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use hashbrown::HashMap;

use super::{
    abi::{self, Buffer, Header},
    extension,
    filter::Filter,
    host::HttpStream,
};
use crate::core::host::{CallId, Callout, Side, Stream, StreamId};

/// What waits.
pub enum Later {
    /// Replies to the client of a stream.
    Reply { stream: StreamId, status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// Lets a stream go on.
    Resume { stream: StreamId, side: Side },
    /// Begins a call: of a stream, or of the main thread.
    Call { id: CallId, stream: Option<StreamId>, call: Call },
}

/// A call to a cluster, as [`Callout`] says it.
pub struct Call {
    cluster: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    limit_ms: u64,
}

impl Call {
    /// Hands it to one of Envoy's functions.
    pub fn begin(&self, with: impl FnOnce(Buffer, &[Header], Buffer, u64) -> u32) -> bool {
        let headers = lent(&self.headers);
        let body = self.body.as_deref().map_or(Buffer::NONE, Buffer::of);
        with(Buffer::of(self.cluster.as_bytes()), &headers, body, self.limit_ms) == abi::SUCCESS
    }
}

thread_local! {
    /// The streams under way in this worker.
    static STREAMS: RefCell<HashMap<StreamId, (HttpStream, *const Filter)>> = RefCell::default();
    /// The last id that was given to a stream or a call.
    static LAST: Cell<u64> = const { Cell::new(0) };
    static WAITING: RefCell<VecDeque<Later>> = const { RefCell::new(VecDeque::new()) };
    /// How many hooks are running, one inside the other.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Calls of streams under way: ours by Envoy's.
    static CALLS: RefCell<HashMap<(StreamId, u64), CallId>> = RefCell::default();
    /// The call that is being begun: its end may come before Envoy has named it.
    static BEGINNING: Cell<Option<(StreamId, CallId)>> = const { Cell::new(None) };
}

/// An id that no stream and no call of this thread has had.
pub fn next_id() -> u64 {
    LAST.with(|last| {
        last.set(last.get().wrapping_add(1));
        last.get()
    })
}

/// A stream begins; `filter` lives until [`forget`].
pub fn remember(stream: HttpStream, filter: *const Filter) {
    STREAMS.with_borrow_mut(|streams| streams.insert(stream.id(), (stream, filter)));
}

/// A stream is over: nothing that waits for it happens any more.
pub fn forget(stream: StreamId) {
    STREAMS.with_borrow_mut(|streams| streams.remove(&stream));
    CALLS.with_borrow_mut(|calls| {
        if !calls.is_empty() {
            calls.retain(|(of, _), _| *of != stream);
        }
    });
}

/// The stream of an id; `None` when it is over.
pub fn stream(id: StreamId) -> Option<HttpStream> {
    STREAMS.with_borrow(|streams| streams.get(&id).map(|(stream, _)| *stream))
}

/// Some stream under way of which this holds.
pub fn any_stream(wanted: impl Fn(&Filter) -> bool) -> Option<HttpStream> {
    STREAMS.with_borrow(|streams| {
        // SAFETY: a filter lives as long as it is in this list.
        streams.values().find(|(_, filter)| unsafe { filter.as_ref() }.is_some_and(&wanted)).map(|(s, _)| *s)
    })
}

/// Has something wait.
pub fn push(later: Later) {
    WAITING.with_borrow_mut(|waiting| waiting.push_back(later));
}

/// Has a call wait, and names it.
pub fn call(stream: Option<StreamId>, callout: &Callout<'_>) -> Option<CallId> {
    let id = next_id();
    let headers =
        callout.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let call = Call {
        cluster: callout.cluster.to_owned(),
        headers,
        body: callout.body.map(<[u8]>::to_vec),
        limit_ms: u64::try_from(callout.limit.as_millis()).unwrap_or(u64::MAX),
    };
    push(Later::Call { id, stream, call });
    Some(id)
}

/// Takes out which call of ours has ended.
pub fn ended(stream: StreamId, envoys: u64) -> Option<CallId> {
    let known = CALLS.with_borrow_mut(|calls| calls.remove(&(stream, envoys)));
    known.or_else(|| match BEGINNING.get() {
        Some((of, id)) if of == stream => {
            BEGINNING.set(None);
            Some(id)
        }
        _ => None,
    })
}

/// Runs a hook. What it asks for happens when no other is running around it.
pub fn hook<T>(work: impl FnOnce() -> T) -> T {
    DEPTH.set(DEPTH.get().saturating_add(1));
    let done = work();
    if DEPTH.get() == 1 {
        settle();
    }
    DEPTH.set(DEPTH.get().saturating_sub(1));
    done
}

/// Does what waits, and what comes of it.
fn settle() {
    while let Some(later) = WAITING.with_borrow_mut(VecDeque::pop_front) {
        match later {
            Later::Reply { stream: id, status, headers, body } => {
                let Some(stream) = stream(id) else { continue };
                let headers = lent(&headers);
                // SAFETY: the filter lives; Envoy copies what it is given.
                unsafe {
                    abi::send_response(
                        stream.filter(),
                        u32::from(status),
                        headers.as_ptr(),
                        headers.len(),
                        Buffer::of(&body),
                        Buffer::of(b"tollgate"),
                    );
                }
            }
            Later::Resume { stream: id, side } => {
                let Some(stream) = stream(id) else { continue };
                // SAFETY: the filter lives.
                unsafe {
                    match side {
                        Side::Request => abi::continue_decoding(stream.filter()),
                        Side::Response => abi::continue_encoding(stream.filter()),
                    }
                }
            }
            Later::Call { id, stream: None, call } => extension::begin(id, &call),
            Later::Call { id, stream: Some(stream), call } => begin(id, stream, &call),
        }
    }
}

/// Begins a call of a stream.
fn begin(id: CallId, of: StreamId, call: &Call) {
    let Some(stream) = stream(of) else { return };
    let mut envoys = 0;
    BEGINNING.set(Some((of, id)));
    // SAFETY: the filter lives; Envoy copies what it is given.
    let begun = call.begin(|cluster, headers, body, limit| unsafe {
        abi::http_callout(stream.filter(), &mut envoys, cluster, headers.as_ptr(), headers.len(), body, limit)
    });
    // It may have ended already.
    if BEGINNING.take().is_none() {
        return;
    }
    if begun {
        CALLS.with_borrow_mut(|calls| calls.insert((of, envoys), id));
    } else if let Some(filter) = filter(of) {
        filter.on_called(id, None);
    }
}

/// The filter of a stream under way.
fn filter<'a>(stream: StreamId) -> Option<&'a Filter> {
    let pointer = STREAMS.with_borrow(|streams| streams.get(&stream).map(|(_, filter)| *filter))?;
    // SAFETY: a filter lives as long as it is in this list, and Envoy destroys none while a call of it runs.
    unsafe { pointer.as_ref() }
}

/// Lends headers for the time of a call.
fn lent(headers: &[(String, String)]) -> Vec<Header> {
    let lend = |(name, value): &(String, String)| Header {
        name: Buffer::of(name.as_bytes()),
        value: Buffer::of(value.as_bytes()),
    };
    headers.iter().map(lend).collect()
}

/// How many streams are under way.
#[cfg(test)]
pub fn count() -> usize {
    STREAMS.with_borrow(HashMap::len)
}
