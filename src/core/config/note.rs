//! What loading found out about single settings.

use super::settings::Verdict;

/// A verdict that loading gave to a setting, or to a whole `model_list` entry.
pub(super) struct Note {
    pub(super) path: String,
    pub(super) verdict: Verdict,
}
