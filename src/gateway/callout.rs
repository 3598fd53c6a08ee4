//! Calls that a request or a response waits for, as the host makes them.

use super::worker::Worker;
use crate::core::{
    exchange::{Callout, next::Upstream},
    host::{self, CallId, Host, Stream},
    protocol::INTERNAL_CLUSTER,
};

/// Begins a call for a stream, and names it. `None` when it cannot even begin.
pub fn begin<H: Host>(worker: &Worker<H>, stream: &H::Stream, callout: &Callout) -> Option<CallId> {
    let mut headers: Vec<(&str, &str)> =
        callout.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let cluster = match &callout.to {
        Upstream::Ledger => {
            headers.extend([(":authority", INTERNAL_CLUSTER), ("authorization", worker.bearer())]);
            INTERNAL_CLUSTER
        }
        Upstream::Cluster(name) => {
            headers.push((":authority", name));
            name
        }
    };
    let (body, limit) = (callout.body.as_deref(), callout.limit);
    stream.call(&host::Callout { cluster, headers: &headers, body, limit })
}
