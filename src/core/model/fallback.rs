//! What is tried instead of a model group.

use hashbrown::HashMap;
use serde_json::{Map, Value};

/// Group name to the ordered list of what to try instead.
pub type Fallbacks = HashMap<String, Vec<Fallback>>;

/// One thing to try instead: a group, with request members to replace on the way.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Fallback {
    /// The model group.
    pub model: String,
    /// Other members of a map entry (`{"model": "x", "messages": […]}`).
    pub overrides: Map<String, Value>,
}
