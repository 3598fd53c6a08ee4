//! Records of the ledger's that a request waits for: what comes of asking for one.

use super::Env;
use crate::core::{
    access::keyring::{LookupResult, spare},
    host::CallResponse,
    model::lookup::Lookup,
};

/// Tells this worker's copies what the ledger said of a record; no response is a ledger that is away.
pub fn learn(lookup: &Lookup, response: Option<CallResponse>, env: &mut Env) {
    match lookup {
        Lookup::Key(hash) => {
            let found = read(response);
            env.shared.count(counter(&found));
            if let LookupResult::Record(grant) = &found {
                spare::keep(env.shared, grant, env.keys.seen_when_asked(hash));
            }
            env.keys.learn_key(hash, found, env.now_ms);
        }
        Lookup::EndUser(id) => {
            let found = read(response);
            env.shared.count(counter(&found));
            env.keys.learn_end_user(id, found, env.now_ms);
        }
    }
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

fn counter<T>(found: &LookupResult<T>) -> &'static str {
    match found {
        LookupResult::Record(_) => "tollgate_lookups;kind=found",
        LookupResult::None => "tollgate_lookups;kind=unknown",
        LookupResult::Unreachable | LookupResult::Lost => "tollgate_lookups;kind=unreachable",
    }
}
