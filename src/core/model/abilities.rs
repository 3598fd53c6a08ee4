//! What LiteLLM's price data says a model can do.
//!
//! The build script uses this file too, so it needs nothing.

/// What a model can do, as flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities(u64);

impl Abilities {
    /// Nothing.
    pub const NONE: Abilities = Abilities(0);
    /// The model reasons.
    pub const REASONING: Abilities = Abilities(1);
    /// The model calls tools.
    pub const TOOLS: Abilities = Abilities(1 << 1);
    /// The model can be told which tool to call.
    pub const TOOL_CHOICE: Abilities = Abilities(1 << 2);
    /// The model calls several tools at once.
    pub const PARALLEL_CALLS: Abilities = Abilities(1 << 3);
    /// The model answers in a schema.
    pub const SCHEMA: Abilities = Abilities(1 << 4);
    /// The model searches the web.
    pub const WEB_SEARCH: Abilities = Abilities(1 << 5);
    /// The model samples as it is told to.
    pub const FIXED_SAMPLING: Abilities = Abilities(1 << 6);
    /// The model can do without reasoning.
    pub const EFFORT_NONE: Abilities = Abilities(1 << 7);
    /// The model cannot do without reasoning.
    pub const NO_EFFORT_NONE: Abilities = Abilities(1 << 8);
    /// The model does not reason unless it is told to.
    pub const RESTS: Abilities = Abilities(1 << 9);
    /// The model reasons more than much.
    pub const EFFORT_XHIGH: Abilities = Abilities(1 << 10);
    /// The model does not reason least.
    pub const NO_EFFORT_MINIMAL: Abilities = Abilities(1 << 11);
    /// The model does not reason little.
    pub const NO_EFFORT_LOW: Abilities = Abilities(1 << 12);
    /// The model calls no tools.
    pub const NO_TOOLS: Abilities = Abilities(1 << 13);
    /// The newest list has the model. Of others nothing is known but what they cost.
    pub const LISTED: Abilities = Abilities(1 << 14);

    /// Each ability by its flag in the price data, and what the flag says there.
    const FLAGS: [(&str, bool, Abilities); 13] = [
        ("supports_reasoning", true, Abilities::REASONING),
        ("supports_function_calling", true, Abilities::TOOLS),
        ("supports_function_calling", false, Abilities::NO_TOOLS),
        ("supports_tool_choice", true, Abilities::TOOL_CHOICE),
        ("supports_parallel_function_calling", true, Abilities::PARALLEL_CALLS),
        ("supports_response_schema", true, Abilities::SCHEMA),
        ("supports_web_search", true, Abilities::WEB_SEARCH),
        ("supports_sampling_params", false, Abilities::FIXED_SAMPLING),
        ("supports_none_reasoning_effort", true, Abilities::EFFORT_NONE),
        ("supports_none_reasoning_effort", false, Abilities::NO_EFFORT_NONE),
        ("supports_xhigh_reasoning_effort", true, Abilities::EFFORT_XHIGH),
        ("supports_minimal_reasoning_effort", false, Abilities::NO_EFFORT_MINIMAL),
        ("supports_low_reasoning_effort", false, Abilities::NO_EFFORT_LOW),
    ];

    /// The abilities of a model, of which `flag` tells what the price data says by a name. `rests` says that its
    /// `default_reasoning_effort` is `none`.
    pub fn told(flag: impl Fn(&str) -> Option<bool>, rests: bool) -> Abilities {
        let flags = Self::FLAGS.iter().filter(|(name, says, _)| flag(name) == Some(*says));
        let told = flags.fold(0, |bits, (_, _, Abilities(bit))| bits | bit);
        Abilities(if rests { told | Self::RESTS.0 } else { told })
    }

    /// As they stand in the price table.
    pub fn from_bits(bits: u64) -> Abilities {
        Abilities(bits)
    }

    /// For the price table.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The abilities of both.
    pub fn and(self, other: Abilities) -> Abilities {
        Abilities(self.0 | other.0)
    }

    /// Whether it has any of `wanted`.
    pub fn has(self, wanted: Abilities) -> bool {
        self.0 & wanted.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_abilities_and_what_is_not_said_is_none() {
        let said = [("supports_reasoning", true), ("supports_none_reasoning_effort", false)];
        let flag = |name: &str| said.iter().find(|(known, _)| *known == name).map(|(_, says)| *says);
        let told = Abilities::told(flag, true);
        for ability in [Abilities::REASONING, Abilities::NO_EFFORT_NONE, Abilities::RESTS] {
            assert!(told.has(ability), "{ability:?}");
        }
        for ability in [Abilities::TOOLS, Abilities::EFFORT_NONE, Abilities::FIXED_SAMPLING] {
            assert!(!told.has(ability), "{ability:?}");
        }
        assert_eq!(Abilities::from_bits(told.bits()), told);
        assert_eq!(Abilities::told(|_| None, false), Abilities::default());
    }
}
