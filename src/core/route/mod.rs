//! Which deployments a request may try, in which order, and which of them rest.
//!
//! [`plan`] makes the ordered list for one request and says where to go after a failure of each class, [`chain`] puts groups
//! and their fallbacks in a row for it, [`retries`] counts, [`filters`] leaves out the deployments that may not take a call,
//! [`strategy`] orders the deployments of a group ([`pick`] by chance, [`latency`] knows how quick they are), [`cooldown`]
//! remembers failures across workers, [`affinity`] which one has a prompt in its cache, [`checks`] what the ledger's health
//! checks found, [`explain`] tells all that without a call. They speak of it in the words of [`world`], [`segment`], [`trace`]
//! and [`refusals`]. Envoy does the retrying; nothing in here makes a call.

pub mod affinity;
pub mod chain;
pub mod checks;
pub mod cooldown;
pub mod explain;
pub mod filters;
pub mod latency;
pub mod pick;
pub mod plan;
pub mod refusals;
pub mod retries;
pub mod segment;
pub mod strategy;
pub mod trace;
pub mod world;
