//! Asking the ledger for a record while a request waits.

use std::time::Duration;

use super::worker::Worker;
use crate::core::{
    access::keyring::{LookupResult, spare},
    host::{CallId, CallResponse, Callout, Host, Stream},
    model::lookup::Lookup,
    protocol::INTERNAL_CLUSTER,
};

/// How long the ledger may take over one record.
const LIMIT: Duration = Duration::from_secs(3);

/// Asks the ledger for a record, and names the call. `None` when it cannot begin; the record is then known to be out of reach.
pub fn ask<H: Host>(worker: &Worker<H>, stream: &H::Stream, lookup: &Lookup) -> Option<CallId> {
    let path = lookup.path();
    let headers = [
        (":method", "GET"),
        (":path", &path),
        (":authority", INTERNAL_CLUSTER),
        ("authorization", worker.bearer()),
    ];
    let begun =
        stream.call(&Callout { cluster: INTERNAL_CLUSTER, headers: &headers, body: None, limit: LIMIT });
    if begun.is_none() {
        learn(worker, lookup, None);
    }
    begun
}

/// Tells the worker's copies what the ledger said.
pub fn learn<H: Host>(worker: &Worker<H>, lookup: &Lookup, response: Option<CallResponse>) {
    let now = worker.host.now_ms();
    worker.with_keys(|keys| match lookup {
        Lookup::Key(hash) => {
            let answer = read(response);
            worker.count(counter(&answer), 1);
            if let LookupResult::Record(grant) = &answer {
                spare::keep(worker.host.store(), grant, keys.seen_when_asked(hash));
            }
            keys.learn_key(hash, answer, now);
        }
        Lookup::EndUser(id) => {
            let answer = read(response);
            worker.count(counter(&answer), 1);
            keys.learn_end_user(id, answer, now);
        }
    });
}

fn read<T: serde::de::DeserializeOwned>(response: Option<CallResponse>) -> LookupResult<T> {
    match response {
        Some(CallResponse { status: 200, body }) => {
            serde_json::from_slice(&body).map_or(LookupResult::Unreachable, LookupResult::Record)
        }
        Some(CallResponse { status: 404, .. }) => LookupResult::None,
        Some(_) => LookupResult::Unreachable,
        None => LookupResult::Lost,
    }
}

fn counter<T>(answer: &LookupResult<T>) -> &'static str {
    match answer {
        LookupResult::Record(_) => "tollgate_lookups;kind=found",
        LookupResult::None => "tollgate_lookups;kind=unknown",
        LookupResult::Unreachable | LookupResult::Lost => "tollgate_lookups;kind=unreachable",
    }
}
