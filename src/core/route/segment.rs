//! One model group of a plan.

use serde_json::{Map, Value};

/// One model group of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// The name as it was asked for, or as a list of fallbacks has it.
    pub name: String,
    /// The group's name (`x-litellm-model-group`).
    pub group: String,
    /// The name that was matched, which fills wildcards.
    pub requested: String,
    /// What the `*`s of a wildcard group stand for.
    pub captures: Vec<String>,
    /// Deployments that may be called, in the order they are to be tried; never empty.
    pub order: Vec<usize>,
    /// The most attempts that there can be, the first included.
    pub attempts: u32,
    /// How many deployments the group has, resting ones included.
    pub group_size: usize,
    /// Request members to replace in this segment.
    pub overrides: Map<String, Value>,
    /// 0 for the group asked for, 1 for its fallbacks, 2 for theirs.
    pub depth: u32,
}

impl Segment {
    pub(super) fn key(&self) -> String {
        key(&self.name, &self.overrides)
    }
}

/// What makes two entries the same thing to try.
pub(super) fn key(model: &str, overrides: &Map<String, Value>) -> String {
    if overrides.is_empty() {
        return model.to_owned();
    }
    let members: Vec<String> = overrides.iter().map(|(name, value)| format!("{name}\0{value}")).collect();
    format!("{model}\0{}", members.join("\0"))
}
