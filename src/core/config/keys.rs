//! `general_settings.keys`: virtual keys of the configuration, for a filter without a ledger.

use std::sync::Arc;

use hashbrown::HashMap;
use serde_json::Value;

use super::{
    General,
    global::Blocks,
    read::{Block, Source, scalar_text},
    settings::Verdict,
    yaml::item,
};
use crate::core::{
    access::grant::{Budget, Grant, Limits, Scope},
    quota::period,
};

/// Reads them, by their hash.
pub(super) fn read(src: &mut Source, blocks: &Blocks, general: &General) -> HashMap<String, Arc<Grant>> {
    let mut keys = HashMap::new();
    let _ = (src, blocks, general, &mut keys);
    keys
}
