//! The last usage: whatever Envoy has counted is to be in the ledger before Envoy ends.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{admin::Envoy, envoy::listener};

/// Workers hold usage back for a third of this, so that only then it is certain that nothing more comes.
const HELD_BACK: Duration = Duration::from_millis(150);

/// How often it is looked at.
pub const LOOK: Duration = Duration::from_millis(25);

/// Waits until the ledger has all usage, as far as it can be reached; `meanwhile` is done again and again. Says how many calls are
/// lost after `limit`.
pub fn flush(envoy: &Envoy, limit: Duration, meanwhile: &mut dyn FnMut()) -> u64 {
    let deadline = Instant::now() + limit;
    let mut quiet_since: Option<Instant> = None;
    loop {
        match unsent(envoy) {
            None => return 0,
            Some(0) => {
                if quiet_since.get_or_insert_with(Instant::now).elapsed() > HELD_BACK {
                    return 0;
                }
            }
            Some(unsent) if Instant::now() > deadline => return unsent,
            Some(_) => quiet_since = None,
        }
        meanwhile();
        thread::sleep(LOOK);
    }
}

/// How many calls the ledger has not been told of; `None` when Envoy cannot be asked.
fn unsent(envoy: &Envoy) -> Option<u64> {
    let count = |name: &str| envoy.count(&format!("wasmcustom.{name}")).ok();
    // In this order, so that what comes in between is not missed.
    let acknowledged = count("tollgate_events_acknowledged")?;
    Some(count("tollgate_events_enqueued")?.saturating_sub(acknowledged))
}

/// Requests in flight, as far as Envoy says.
pub fn active(envoy: &Envoy) -> u64 {
    envoy.count(&format!("http.{}.downstream_rq_active", listener::STAT_PREFIX)).unwrap_or_default()
}
