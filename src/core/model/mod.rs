//! The nouns: plain data that all other modules read.
//!
//! Nothing in here decides anything. [`config`](crate::core::config) and the ledger make these values, the rules above
//! read them, so that two rules can speak of the same thing without knowing each other. A method in here looks at its own
//! value and at nothing else; what needs more is the business of the module that has the rule. Only
//! [`codec`](crate::core::codec) lies below.

pub mod abilities;
pub mod accepts;
pub mod brand;
pub mod call_record;
pub mod deployment;
pub mod endpoint;
pub mod failure;
pub mod fallback;
pub mod general;
pub mod key_record;
pub mod limits;
pub mod lookup;
pub mod meter;
pub mod money;
pub mod params;
pub mod period;
pub mod rate;
pub mod router;
pub mod rule;
pub mod secret;
pub mod status;
pub mod template;
pub mod terms;
pub mod usage;
pub mod virtual_key;
