//! What is known of a request when it is over: for the access log, for counters, later for the ledger.

use std::{cell::OnceCell, sync::Arc};

use super::{Env, Exchange, attempt::Attempt};
use crate::core::{
    codec::json::Writer,
    cost::{money::Money, price::Price, terms::Terms, usage::Usage},
    error::Class,
    ledger::Event,
    route::plan::Plan,
    translate::answer::{Pipeline, failure::Failure},
};

/// What an answer used.
#[derive(Clone, Debug, PartialEq)]
pub struct Completed {
    /// As the provider said, or estimated.
    pub usage: Option<Usage>,
    /// What it is charged by.
    terms: Terms,
    /// The model the provider said it used.
    pub model: Option<String>,
    /// The id in the answer.
    pub id: Option<String>,
    /// No provider was called for it.
    pub is_mock: bool,
    /// The price of it, once it was asked for: a header and the record want it.
    cost: OnceCell<Option<Money>>,
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

    /// Out of a mock's. The model is the deployment's, whatever the mock says.
    pub fn of_mock(pipeline: &Pipeline) -> Completed {
        Completed { model: None, is_mock: true, ..Completed::of(pipeline, pipeline.usage().cloned()) }
    }
}

/// Tokens and money that calls have used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Served {
    /// All tokens.
    pub usage: Usage,
    /// What they cost, as far as prices are known.
    pub cost: Money,
}

impl Served {
    /// Adds what another answer used.
    fn add(&mut self, usage: &Usage, cost: Money) {
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

/// One finished request.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The call's id.
    pub call_id: String,
    /// LiteLLM's call type.
    pub call_type: &'static str,
    /// The path as the client wrote it.
    pub path: String,
    /// The model asked for.
    pub model: Option<String>,
    /// The group that served (or failed last).
    pub group: Option<String>,
    /// The deployment.
    pub deployment: Option<String>,
    /// Its brand.
    pub provider: Option<&'static str>,
    /// The model at the provider.
    pub provider_model: Option<String>,
    /// The status the client got; 0 when it went away before.
    pub status: u16,
    /// Was a stream asked for.
    pub streaming: bool,
    /// Attempts made.
    pub attempts: u32,
    /// Groups left behind.
    pub fallbacks: u32,
    /// Tokens.
    pub usage: Option<Usage>,
    /// The provider did not say its usage; it was estimated.
    pub estimated: bool,
    /// The stream broke, or the client left, before its end.
    pub incomplete: bool,
    /// The price of it.
    pub cost: Option<Money>,
    /// What of it a mock cost.
    pub mocked: Money,
    /// The class of the failure the client saw.
    pub error: Option<Class>,
    /// Milliseconds from the headers to the end.
    pub duration_ms: u64,
    /// What the ledger is told.
    event: Option<Box<Event>>,
}

impl Exchange {
    /// The request is over, complete or not.
    pub fn on_done(&mut self, env: &mut Env) -> Record {
        let is_cut = self.completed.is_none() && self.status == 0 && self.is_under_way();
        if is_cut {
            self.charge_unanswered(env);
        }
        let incomplete = self.completed.is_none().then(|| self.unfinished()).flatten();
        let is_incomplete = is_cut || incomplete.is_some();
        self.completed = self.completed.take().or(incomplete);
        if self.status == 0 && self.attempt.is_some() {
            // The client left before an answer came. That says nothing about the provider.
            self.note_error(
                Failure::without_answer(Class::ApiConnection, "the client went away").to_error(""),
            );
        }
        let used = self.used();
        if let (Some(segment), Some(completed)) =
            (self.plan.as_ref().and_then(Plan::segment), &self.completed)
            && let Some(usage) = completed.usage.as_ref().filter(|_| self.attempt.is_some() && !is_incomplete)
        {
            env.lengths.note(&segment.group, usage.completion_tokens);
        }
        if !is_incomplete {
            self.note_latency(env);
        }
        self.leave_at_the_end(env);
        let event = self.event(&used, env);
        let mocked = self.mock_cost();
        self.settle(&used, used.cost.saturating_sub(mocked), env);
        let deployment =
            self.plan.as_ref().and_then(|plan| self.config.deployments.get(plan.current().deployment));
        Record {
            call_id: self.call_id.clone(),
            call_type: self.api.call_type(),
            path: self.path.clone(),
            model: self.asked.model.clone(),
            group: self.plan.as_ref().and_then(Plan::segment).map(|segment| segment.group.clone()),
            deployment: deployment.map(|deployment| deployment.id.clone()),
            provider: deployment.map(|deployment| deployment.brand.name),
            provider_model: self.attempt.as_ref().map(|attempt| attempt.model.clone()),
            status: self.status,
            streaming: self.asked.streaming,
            attempts: self.attempts,
            fallbacks: self.fallbacks,
            estimated: used.usage.estimated,
            usage: match self.served {
                Some(_) => Some(used.usage),
                None => self.completed.as_ref().and_then(|completed| completed.usage.clone()),
            },
            incomplete: is_incomplete,
            cost: self.cost(),
            mocked,
            error: if (200..300).contains(&self.status) {
                None
            } else {
                self.first_error.as_ref().and_then(|e| e.class)
            },
            duration_ms: env.now_ms.saturating_sub(self.started_ms),
            event: event.map(Box::new),
        }
    }

    /// What the last answer cost.
    pub(super) fn last_cost(&self) -> Option<Money> {
        let completed = self.completed.as_ref()?;
        *completed.cost.get_or_init(|| {
            self.cost_of(completed.usage.as_ref()?, &completed.terms, completed.model.as_deref())
        })
    }

    /// What of it a mock cost: no provider wants it.
    pub(super) fn mock_cost(&self) -> Money {
        let is_mock = self.completed.as_ref().is_some_and(|completed| completed.is_mock);
        self.last_cost().filter(|_| is_mock).unwrap_or_default()
    }

    /// What an answer of the current deployment costs; `answered` is the model that it names.
    fn cost_of(&self, usage: &Usage, terms: &Terms, answered: Option<&str>) -> Option<Money> {
        let price = self.price(answered);
        let deployment = self.config.deployments.get(self.plan.as_ref()?.current().deployment)?;
        deployment.cost(price.as_deref(), usage, terms, Some(self.took_ms))
    }

    /// What the call cost; `None` while usage or price is unknown.
    pub(super) fn cost(&self) -> Option<Money> {
        let last = self.last_cost();
        match &self.served {
            Some(served) => Some(served.cost.saturating_add(last.unwrap_or_default())),
            None => last,
        }
    }

    /// An answer that the client will not see: another is to take its place, and it has to be paid for all the same.
    pub(super) fn charge_replaced(&mut self, pipeline: &Pipeline, env: &Env) {
        let Some(usage) = pipeline.used(|| self.prompt_tokens()) else { return };
        self.charge_unseen(&usage, &pipeline.terms(), pipeline.model(), env);
    }

    /// An attempt whose client has gone away, or has no more time, while the provider worked: it has the prompt, and what it
    /// makes of it nobody will know.
    pub(super) fn charge_unanswered(&mut self, env: &Env) {
        let Some(attempt) = &self.attempt else { return };
        let terms = attempt.memo.terms;
        self.took_ms = env.now_ms.saturating_sub(attempt.started_ms);
        self.sent = false;
        self.charge_unseen(&Usage::estimate(self.prompt_tokens(), 0), &terms, None, env);
    }

    /// The same for an attempt that has failed: when its client allowed it less time than its deployment is given.
    pub(super) fn charge_hurried(&mut self, failure: &Failure, env: &Env) {
        let hurried = |attempt: &Attempt| self.is_hurried(attempt.candidate.deployment);
        if self.sent && failure.class == Class::Timeout && self.attempt.as_ref().is_some_and(hurried) {
            self.charge_unanswered(env);
        }
    }

    fn charge_unseen(&mut self, usage: &Usage, terms: &Terms, answered: Option<&str>, env: &Env) {
        let cost = self.cost_of(usage, terms, answered).unwrap_or_default();
        self.served.get_or_insert_default().add(usage, cost);
        self.leave(usage.total_tokens, cost, env);
    }

    /// All that was used.
    fn used(&self) -> Served {
        let mut used = self.served.clone().unwrap_or_default();
        if let Some(usage) = self.completed.as_ref().and_then(|completed| completed.usage.as_ref()) {
            used.add(usage, Money::ZERO);
        }
        used.cost = self.cost().unwrap_or_default();
        used
    }

    /// The price of the current deployment; `answered` is the model its answer names.
    pub(super) fn price(&self, answered: Option<&str>) -> Option<Arc<Price>> {
        self.price_at(self.plan.as_ref()?.current().deployment, answered)
    }

    /// The price of a deployment.
    pub(super) fn price_at(&self, at: usize, answered: Option<&str>) -> Option<Arc<Price>> {
        let model = self.attempt.as_ref().map_or("", |attempt| attempt.model.as_str());
        self.config.price(at, model, answered)
    }
}

impl Record {
    /// What the ledger is to be told; nothing when there is none.
    pub fn event(&self) -> Option<&Event> {
        self.event.as_deref()
    }

    /// The record as one JSON object for the access log. It holds no key and nothing of a prompt or an answer.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(768);
        let mut shown = Writer::begin(&mut out);
        shown.text("call_id", &self.call_id);
        shown.text("call_type", self.call_type);
        shown.text("path", &self.path);
        shown.text_if("model", self.model.as_deref());
        shown.text_if("model_group", self.group.as_deref());
        shown.text_if("model_id", self.deployment.as_deref());
        shown.text_if("provider", self.provider);
        shown.text_if("provider_model", self.provider_model.as_deref());
        shown.number("status", self.status);
        shown.flag("stream", self.streaming);
        shown.number("attempts", self.attempts);
        shown.number("fallbacks", self.fallbacks);
        if let Some(usage) = &self.usage {
            shown.number("prompt_tokens", usage.prompt_tokens);
            shown.number("completion_tokens", usage.completion_tokens);
            shown.number("total_tokens", usage.total_tokens);
            shown.number("cached_tokens", usage.cached_tokens);
            shown.flag("estimated", self.estimated);
        }
        if self.incomplete {
            shown.flag("incomplete", true);
        }
        shown.text_if("cost", self.cost.map(Money::to_text).as_deref());
        shown.text_if("error", self.error.map(Class::name));
        shown.number("duration_ms", self.duration_ms);
        shown.end();
        out
    }
}
