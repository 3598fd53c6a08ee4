//! Copies of keys that all VMs share: a worker that has not seen a key goes on with what another has, while the ledger is away.
//!
//! Store data forgets nothing, so there are [`SLOTS`] places of at most [`MOST_BYTES`]; a key that falls into a taken one takes it.

use serde::{Deserialize, Serialize};

use super::{KeyRecord, hash_start, names_of};
use crate::core::{access::changes, host::Store};

/// So many keys are kept at most.
const SLOTS: u128 = 4_096;
/// A larger record is not kept, in bytes of JSON.
const MOST_BYTES: usize = 8 << 10;

#[derive(Serialize)]
struct Kept<'g> {
    /// How many changes there had been.
    count: u64,
    grant: &'g KeyRecord,
}

#[derive(Deserialize)]
struct Found {
    count: u64,
    grant: KeyRecord,
}

/// Keeps a record that the ledger has just given. `count` is how many changes were seen when it was asked for.
pub fn keep(shared: &dyn Store, grant: &KeyRecord, count: u64) {
    let Some(place) = place(&grant.key.id) else { return };
    if let Ok(bytes) = serde_json::to_vec(&Kept { count, grant })
        && bytes.len() <= MOST_BYTES
    {
        shared.set(&place, &bytes, None);
    }
}

/// The record of a key, unless it has changed since.
pub fn find(shared: &dyn Store, hash: &str) -> Option<KeyRecord> {
    let (bytes, _) = shared.get(&place(hash)?)?;
    let Found { count, grant } = serde_json::from_slice(&bytes).ok()?;
    if grant.key.id != hash {
        return None;
    }
    let names = names_of(&grant);
    let stale = changes::since(shared, count)?
        .iter()
        .any(|change| change.revision > grant.revision && names.contains(&change.name));
    (!stale).then_some(grant)
}

fn place(hash: &str) -> Option<String> {
    Some(format!("access/key/{}", hash_start(hash)? % SLOTS))
}
