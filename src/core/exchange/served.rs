//! What responses used: tokens, and what these are charged by.

use std::cell::OnceCell;

use crate::core::{
    format::pipeline::Pipeline,
    model::{money::Money, terms::Terms, usage::Usage},
};

/// What a response used.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Completed {
    /// As the provider said, or estimated.
    pub usage: Option<Usage>,
    /// What it is charged by.
    pub terms: Terms,
    /// The model the provider said it used.
    pub model: Option<String>,
    /// The id in the response.
    pub id: Option<String>,
    /// No provider was called for it.
    pub is_mock: bool,
    /// The price of it, once it was asked for: a header and the record want it.
    pub cost: OnceCell<Option<Money>>,
}

impl Completed {
    /// Out of a pipeline.
    pub fn of(pipeline: &Pipeline, usage: Option<Usage>) -> Completed {
        Completed {
            usage,
            terms: pipeline.terms(),
            model: pipeline.model().map(str::to_owned),
            id: pipeline.id().map(str::to_owned),
            is_mock: false,
            cost: OnceCell::new(),
        }
    }

    /// Of an answer that used nothing.
    pub fn of_nothing() -> Completed {
        Completed {
            usage: None,
            terms: Terms::default(),
            model: None,
            id: None,
            is_mock: false,
            cost: OnceCell::new(),
        }
    }

    /// Out of a mock's. The model is the deployment's, whatever the mock says.
    pub fn of_mock(pipeline: &Pipeline) -> Completed {
        Completed { model: None, is_mock: true, ..Completed::of(pipeline, pipeline.usage().cloned()) }
    }
}

/// Tokens and money that calls have used.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Served {
    /// All tokens.
    pub usage: Usage,
    /// What they cost, as far as prices are known.
    pub cost: Money,
}

impl Served {
    /// Adds what another response used.
    pub fn add(&mut self, usage: &Usage, cost: Money) {
        let sum = &mut self.usage;
        sum.prompt_tokens = sum.prompt_tokens.saturating_add(usage.prompt_tokens);
        sum.completion_tokens = sum.completion_tokens.saturating_add(usage.completion_tokens);
        sum.total_tokens = sum.total_tokens.saturating_add(usage.total_tokens);
        sum.cached_tokens = sum.cached_tokens.saturating_add(usage.cached_tokens);
        sum.cache_creation_tokens = sum.cache_creation_tokens.saturating_add(usage.cache_creation_tokens);
        sum.estimated |= usage.estimated;
        self.cost = self.cost.saturating_add(cost);
    }
}
