//! Asking the ledger for a record while a request waits.

use std::{cell::RefCell, time::Duration};

use super::{exchanges, host, metrics::Metrics};
use crate::core::{
    access::keyring::{Answer, spare},
    ledger::{INTERNAL_CLUSTER, KEY_VARIABLE},
    model::lookup::Lookup,
};

/// How long the ledger may take over one record.
const LIMIT: Duration = Duration::from_secs(3);

thread_local! {
    static BEARER: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Asks the ledger for a record, and names the call. `None` when it cannot begin; the record is then known to be out of reach.
pub fn ask(lookup: &Lookup, metrics: &Metrics) -> Option<u32> {
    let path = lookup.path();
    let begun = BEARER.with(|bearer| {
        let mut bearer = bearer.try_borrow_mut().ok()?;
        let bearer = bearer
            .get_or_insert_with(|| format!("Bearer {}", std::env::var(KEY_VARIABLE).unwrap_or_default()));
        let headers = [
            (":method", "GET"),
            (":path", &path),
            (":authority", INTERNAL_CLUSTER),
            ("authorization", bearer.as_str()),
        ];
        host::call(INTERNAL_CLUSTER, &headers, None, LIMIT)
    });
    if begun.is_none() {
        learn(lookup, None, metrics);
    }
    begun
}

/// Tells this VM's copies what the ledger said: status and body of its answer, or nothing.
pub fn learn(lookup: &Lookup, answer: Option<(u16, Vec<u8>)>, metrics: &Metrics) {
    let now = host::now_ms();
    exchanges::with_keys(|keys| match lookup {
        Lookup::Key(hash) => {
            let answer = read(answer);
            metrics.add(counter(&answer), 1);
            if let Answer::Record(grant) = &answer {
                spare::keep(&host::SharedData, grant, keys.seen_when_asked(hash));
            }
            keys.learn_key(hash, answer, now);
        }
        Lookup::EndUser(id) => {
            let answer = read(answer);
            metrics.add(counter(&answer), 1);
            keys.learn_end_user(id, answer, now);
        }
    });
}

fn read<T: serde::de::DeserializeOwned>(answer: Option<(u16, Vec<u8>)>) -> Answer<T> {
    match answer {
        Some((200, body)) => serde_json::from_slice(&body).map_or(Answer::Unreachable, Answer::Record),
        Some((404, _)) => Answer::None,
        Some(_) => Answer::Unreachable,
        None => Answer::Lost,
    }
}

fn counter<T>(answer: &Answer<T>) -> &'static str {
    match answer {
        Answer::Record(_) => "tollgate_lookups;kind=found",
        Answer::None => "tollgate_lookups;kind=unknown",
        Answer::Unreachable | Answer::Lost => "tollgate_lookups;kind=unreachable",
    }
}
