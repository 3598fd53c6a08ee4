//! How long the answers of a model group are: what a request without a limit of its own will probably use.

use hashbrown::HashMap;

/// Tokens of an answer of which nothing is known.
const FIRST: u64 = 256;
/// Groups that are remembered. Groups are named by the configuration, so more than this are rare, and harmless.
const GROUPS: usize = 1_024;
/// A new answer's part in the mean is one in this many.
const SLOWNESS: u64 = 8;

/// Running means by group, of one VM.
#[derive(Debug, Default)]
pub struct OutputLengths(HashMap<String, u64>);

impl OutputLengths {
    /// Tokens that an answer of this group has, more or less.
    pub fn typical(&self, group: &str) -> u64 {
        self.0.get(group).copied().unwrap_or(FIRST)
    }

    /// An answer of a group had so many tokens.
    pub fn note(&mut self, group: &str, tokens: u64) {
        if let Some(mean) = self.0.get_mut(group) {
            let sum = mean.saturating_mul(SLOWNESS - 1).saturating_add(tokens);
            *mean = sum.div_ceil(SLOWNESS);
        } else if self.0.len() < GROUPS {
            let sum = FIRST.saturating_mul(SLOWNESS - 1).saturating_add(tokens);
            self.0.insert(group.to_owned(), sum.div_ceil(SLOWNESS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_follows_what_comes() {
        let mut lengths = OutputLengths::default();
        assert_eq!(lengths.typical("g"), 256);
        lengths.note("g", 0);
        assert_eq!(lengths.typical("g"), 224);
        (0..100).for_each(|_| lengths.note("g", 1_000));
        assert_eq!(lengths.typical("g"), 1_000);
        (0..5_000).for_each(|at| lengths.note(&format!("g{at}"), 1));
        assert!(lengths.0.len() <= GROUPS);
        lengths.note("g", u64::MAX);
    }
}
