//! OpenAI's request parameters, as sets.

use std::ops::BitOr;

/// A set of OpenAI's request parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params(u64);

/// Names the parameters in the order in which LiteLLM lists those that it refuses.
macro_rules! params {
    ($($name:ident = $text:literal),* $(,)?) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Place { $($name),* }

        /// Every parameter's name, by its place in a set.
        const NAMES: [&str; [$($text),*].len()] = [$($text),*];

        #[allow(missing_docs)]
        impl Params {
            $(pub const $name: Params = Params(1 << Place::$name as u64);)*
        }
    };
}

params! {
    FUNCTIONS = "functions",
    FUNCTION_CALL = "function_call",
    TEMPERATURE = "temperature",
    TOP_P = "top_p",
    N = "n",
    STREAM = "stream",
    STREAM_OPTIONS = "stream_options",
    STOP = "stop",
    MAX_TOKENS = "max_tokens",
    MAX_COMPLETION_TOKENS = "max_completion_tokens",
    MODALITIES = "modalities",
    PREDICTION = "prediction",
    AUDIO = "audio",
    PRESENCE_PENALTY = "presence_penalty",
    FREQUENCY_PENALTY = "frequency_penalty",
    LOGIT_BIAS = "logit_bias",
    USER = "user",
    RESPONSE_FORMAT = "response_format",
    SEED = "seed",
    TOOLS = "tools",
    TOOL_CHOICE = "tool_choice",
    MAX_RETRIES = "max_retries",
    LOGPROBS = "logprobs",
    TOP_LOGPROBS = "top_logprobs",
    EXTRA_HEADERS = "extra_headers",
    PARALLEL_TOOL_CALLS = "parallel_tool_calls",
    REASONING_EFFORT = "reasoning_effort",
    VERBOSITY = "verbosity",
    THINKING = "thinking",
    WEB_SEARCH_OPTIONS = "web_search_options",
    SAFETY_IDENTIFIER = "safety_identifier",
    STORE = "store",
    PROMPT_CACHE_KEY = "prompt_cache_key",
    SERVER_SIDE_TOOLS = "include_server_side_tool_invocations",
    SERVICE_TIER = "service_tier",
    PROMPT_CACHE_RETENTION = "prompt_cache_retention",
    CONTEXT_MANAGEMENT = "context_management",
    DIMENSIONS = "dimensions",
    ENCODING_FORMAT = "encoding_format",
}

impl Params {
    /// No parameter.
    pub const NONE: Params = Params(0);
    /// Every parameter.
    pub const ALL: Params = Params((1 << NAMES.len()) - 1);

    /// Every parameter of a chat request.
    pub const CHAT: Params = Params::ALL.without(Params::DIMENSIONS).without(Params::ENCODING_FORMAT);

    /// The parameter of a name; none where OpenAI has none of that name.
    pub fn named(name: &str) -> Params {
        let places = BY_LENGTH.get(name.len()).map_or(&[][..], |places| places.as_slice());
        let place = places.iter().map_while(|place| Some((*place, NAMES.get(usize::from(*place))?)));
        place
            .filter(|(_, known)| **known == name)
            .map(|(place, _)| Params(1 << place))
            .next()
            .unwrap_or_default()
    }

    /// The parameters of either set.
    pub const fn and(self, other: Params) -> Params {
        Params(self.0 | other.0)
    }

    /// The parameters that are not in `other`.
    pub const fn without(self, other: Params) -> Params {
        Params(self.0 & !other.0)
    }

    /// The parameters that are in `other` as well.
    pub const fn within(self, other: Params) -> Params {
        Params(self.0 & other.0)
    }

    /// Whether any of `wanted` is among them.
    pub const fn has(self, wanted: Params) -> bool {
        self.0 & wanted.0 != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of its parameters, in LiteLLM's order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(place, _)| self.0 & (1 << place) != 0).map(|(_, name)| *name)
    }
}

impl BitOr for Params {
    type Output = Params;

    fn bitor(self, other: Params) -> Params {
        self.and(other)
    }
}

/// No name is longer.
const LONGEST: usize = 36;
/// No more names have one length.
const MOST_OF_A_LENGTH: usize = 6;
/// A place that no name has.
const NOWHERE: u8 = u8::MAX;

/// The places of the names of each length: a name is looked for among those of its own.
static BY_LENGTH: [[u8; MOST_OF_A_LENGTH]; LONGEST + 1] = by_length();

#[allow(clippy::indexing_slicing, reason = "it is the compiler that indexes")]
const fn by_length() -> [[u8; MOST_OF_A_LENGTH]; LONGEST + 1] {
    let mut places = [[NOWHERE; MOST_OF_A_LENGTH]; LONGEST + 1];
    let mut place = 0;
    while place < NAMES.len() {
        let row = NAMES[place].len();
        let mut at = 0;
        while places[row][at] != NOWHERE {
            at += 1;
        }
        places[row][at] = place as u8;
        place += 1;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_nothing_else() {
        for (place, name) in NAMES.iter().enumerate() {
            assert_eq!(Params::named(name), Params(1 << place), "{name}");
            assert_eq!(Params::named(name).names().collect::<Vec<_>>(), [*name]);
        }
        for other in ["", "model", "messages", "top_k", "temperaturf", "max_token", &"x".repeat(99)] {
            assert_eq!(Params::named(other), Params::NONE, "{other}");
        }
    }

    #[test]
    fn sets_keep_what_they_are_told_to() {
        let both = Params::STOP | Params::N;
        assert_eq!(both.names().collect::<Vec<_>>(), ["n", "stop"]);
        assert_eq!((both.without(Params::N), both.within(Params::N)), (Params::STOP, Params::N));
        assert!(both.has(Params::N | Params::SEED) && !both.has(Params::SEED));
        assert!(Params::NONE.is_empty() && Params::ALL.has(Params::ENCODING_FORMAT));
    }
}
