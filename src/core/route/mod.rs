//! Which deployments a request may try, in which order, and which of them rest.
//!
//! [`plan`] makes the ordered list for one request and says where to go after a failure of each class, [`chain`] puts groups
//! and their fallbacks in a row for it, [`retries`] counts, [`pick`] is the strategy, [`cooldown`] remembers failures across
//! workers, [`checks`] what the ledger's health checks found. Envoy does the retrying; nothing in here makes a call.

pub mod chain;
pub mod checks;
pub mod cooldown;
pub mod pick;
pub mod plan;
pub mod retries;
