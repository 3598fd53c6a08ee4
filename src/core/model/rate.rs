//! What one node counts in the open window of one meter.

use serde::{Deserialize, Serialize};

/// The rate counters of one meter on one node, absolute: repeating them changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rate {
    /// Name of the meter.
    pub meter: String,
    /// Unix milliseconds of the start of its window.
    pub window_ms: u64,
    /// Requests admitted in the window.
    pub requests: u64,
    /// Tokens used in the window, reserved ones included.
    pub tokens: u64,
    /// Requests in flight now.
    pub parallel: u64,
    /// The meter is a deployment's: strategies of every node compare it with others, so each hears of it without asking.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub place: bool,
}
