//! Why the ledger cannot be used now: what the sync role has heard, for all workers.

use crate::core::host::Store;

/// Where it stands in the store.
const TROUBLE: &str = "ledger/trouble";

/// Tells all workers whether the ledger and its database can be used; if not, why, in words that may be shown to any client.
pub fn set(shared: &dyn Store, reason: Option<&str>) {
    shared.set(TROUBLE, reason.unwrap_or_default().as_bytes(), None);
}

/// Why the ledger or its database cannot be used now; nothing while it can.
pub fn reason(shared: &dyn Store) -> Option<String> {
    let (bytes, _) = shared.get(TROUBLE)?;
    String::from_utf8(bytes).ok().filter(|reason| !reason.is_empty())
}
