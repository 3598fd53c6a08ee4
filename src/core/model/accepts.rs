//! What of OpenAI's parameters a model takes.

use super::{abilities::Abilities, params::Params};

/// What of OpenAI's parameters a model of a brand takes, made once for a deployment that has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepts {
    /// The parameters of a chat request.
    pub chat: Params,
    /// The parameters of a request for embeddings.
    pub embeddings: Params,
    /// Whose rules for their values hold.
    pub series: Series,
    /// What the price data says it can do; nothing of a model that is not listed.
    pub abilities: Abilities,
    /// `max_tokens` is called `max_completion_tokens`.
    pub renames_max_tokens: bool,
}

impl Accepts {
    /// Everything, as it is.
    pub const ALL: Accepts = Accepts {
        chat: Params::ALL,
        embeddings: Params::ALL,
        series: Series::Plain,
        abilities: Abilities::NONE,
        renames_max_tokens: false,
    };

    /// The parameters of a chat request as they are listed: with those that nobody refuses.
    pub fn listed(&self) -> Params {
        let always = Params::STREAM | Params::STREAM_OPTIONS | Params::MAX_RETRIES | Params::EXTRA_HEADERS;
        (self.chat | always).within(Params::CHAT)
    }
}

/// Models with rules for the values of their parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Series {
    /// Any value goes.
    #[default]
    Plain,
    /// OpenAI's o-series: the temperature is 1.
    O,
    /// OpenAI's gpt-5 and newer: the temperature is 1 while they reason, and each takes efforts of its own.
    Gpt5,
    /// Claude from opus 4.7 on: the temperature is 1.
    FixedClaude,
}
