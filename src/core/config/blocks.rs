//! The blocks of a configuration that every reader of settings works on.

use super::read::Block;

/// The four blocks, references resolved.
pub(super) struct Blocks {
    pub(super) litellm: Block,
    pub(super) router: Block,
    pub(super) general: Block,
    pub(super) tollgate: Block,
    /// `general_settings` as written.
    pub(super) raw_general: Block,
}
