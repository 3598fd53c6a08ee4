//! What must change in a configuration before the gateway can start.

use std::fmt;

/// Something in the text that must change before the gateway can start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line of the text, from 1.
    pub line: Option<usize>,
    /// The setting's path; empty when it is about the text as a whole.
    pub setting: String,
    /// What should stand there and what does. Never a value: it may be a key.
    pub expected: String,
    /// What to do.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.setting.is_empty() {
            write!(f, "`{}`: ", self.setting)?;
        }
        write!(f, "{}; {}", self.expected, self.fix)
    }
}
