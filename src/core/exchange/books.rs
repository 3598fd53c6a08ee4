//! What a call holds and what it has used: reservations, slots, usage and cost.

use std::sync::Arc;

use super::{
    Env, Exchange, Phase,
    groups::Entered,
    reservation::CallerReservation,
    served::{Completed, Served},
    slot::Slot,
};
use crate::core::{
    cost::price::Price,
    format::pipeline::Pipeline,
    model::{
        failure::{Class, Failure},
        money::Money,
        router::Strategy,
        terms::Terms,
        usage::Usage,
    },
    route::{
        latency::{self, Sample},
        plan::Plan,
    },
};

/// What a call holds and what it has used.
#[derive(Default)]
pub(super) struct Books {
    /// What it holds of its caller's limits and budgets.
    pub reservation: CallerReservation,
    /// The group that stands in for the one asked for, and what it holds of its caller's limits there.
    pub group: Option<Entered>,
    /// What it holds of its deployment's.
    pub slot: Slot,
    /// What responses used that the client never saw, because another took their place.
    pub served: Option<Served>,
    /// What the response used that the client saw.
    pub completed: Option<Completed>,
}

impl Exchange {
    /// What the last response cost.
    pub(super) fn last_cost(&self) -> Option<Money> {
        let completed = self.books.completed.as_ref()?;
        *completed.cost.get_or_init(|| {
            self.cost_of(completed.usage.as_ref()?, &completed.terms, completed.model.as_deref())
        })
    }

    /// What of it a mock cost: no provider wants it.
    pub(super) fn mock_cost(&self) -> Money {
        let is_mock = self.books.completed.as_ref().is_some_and(|completed| completed.is_mock);
        self.last_cost().filter(|_| is_mock).unwrap_or_default()
    }

    /// What an answer of the current deployment costs; `answered` is the model that it names.
    fn cost_of(&self, usage: &Usage, terms: &Terms, answered: Option<&str>) -> Option<Money> {
        let price = self.price(answered);
        let deployment = self.config.deployments.get(self.plan()?.current().deployment)?;
        deployment.cost(price.as_deref(), usage, terms, Some(self.took_ms()))
    }

    /// What the call cost; `None` while usage or price is unknown.
    pub(super) fn cost(&self) -> Option<Money> {
        let last = self.last_cost();
        match &self.books.served {
            Some(served) => Some(served.cost.saturating_add(last.unwrap_or_default())),
            None => last,
        }
    }

    /// A response that the client will not see: another is to take its place, and it has to be paid for all the same.
    pub(super) fn charge_replaced(&mut self, pipeline: &Pipeline, env: &Env) {
        let used = || pipeline.used(|| self.prompt_tokens());
        let Some(usage) = self.is_metered().then(used).flatten() else { return };
        self.charge_unseen(&usage, &pipeline.terms(), pipeline.model(), env);
    }

    /// An attempt whose client has gone away, or has no more time, while the provider worked: it has the prompt, and what it
    /// makes of it nobody will know but by what a stream has said before its answer.
    pub(super) fn charge_unanswered(&mut self, env: &Env) {
        let is_metered = self.is_metered();
        let told = self.unshown();
        let Some(attempt) = self.attempt_mut().filter(|_| is_metered) else { return };
        let terms = told.as_ref().map_or(attempt.terms, |told| told.terms);
        attempt.took_ms = env.now_ms.saturating_sub(attempt.started_ms);
        attempt.sent = false;
        let usage = told.as_ref().and_then(|told| told.usage.clone());
        let usage = usage.unwrap_or_else(|| Usage::estimate(self.prompt_tokens(), 0));
        let model = told.and_then(|told| told.model);
        self.charge_unseen(&usage, &terms, model.as_deref(), env);
    }

    /// Charges a failed attempt for its estimated prompt when its client allowed it less time than its deployment is given.
    pub(super) fn charge_hurried(&mut self, failure: &Failure, env: &Env) {
        let is_hurried = matches!(&self.phase, Phase::Attempting(attempt)
            if attempt.sent && self.is_hurried(attempt.candidate.deployment));
        if failure.class == Class::Timeout && is_hurried {
            self.charge_unanswered(env);
        }
    }

    /// Milliseconds from the start of the attempt to the newest part of its response: what a price by the second counts.
    pub(super) fn took_ms(&self) -> u64 {
        self.attempt().map_or(0, |attempt| attempt.took_ms)
    }

    fn charge_unseen(&mut self, usage: &Usage, terms: &Terms, answered: Option<&str>, env: &Env) {
        let cost = self.cost_of(usage, terms, answered).unwrap_or_default();
        self.books.served.get_or_insert_default().add(usage, cost);
        self.release_slot(usage.total_tokens, cost, env);
    }

    /// All that was used.
    pub(super) fn used(&self) -> Served {
        let mut used = self.books.served.clone().unwrap_or_default();
        if let Some(usage) = self.books.completed.as_ref().and_then(|completed| completed.usage.as_ref()) {
            used.add(usage, Money::ZERO);
        }
        used.cost = self.cost().unwrap_or_default();
        used
    }

    /// The price of the current deployment; `answered` is the model its answer names.
    pub(super) fn price(&self, answered: Option<&str>) -> Option<Arc<Price>> {
        let model = self.attempt().map_or("", |attempt| attempt.model.as_str());
        self.config.price(self.plan()?.current().deployment, model, answered)
    }

    /// The price of a call that the plan is about to make at a deployment of the group it has come to.
    pub(super) fn planned_price(&self, at: usize) -> Option<Arc<Price>> {
        let any = self.config.deployments.get(at).filter(|deployment| deployment.has_any_model());
        let model = any.zip(self.plan().and_then(Plan::segment)).map(|(deployment, segment)| {
            let captures: Vec<&str> = segment.captures.iter().map(String::as_str).collect();
            deployment.model_for(&segment.requested, &captures)
        });
        self.config.price(at, model.as_deref().unwrap_or_default(), None)
    }

    /// Notes how quick a good response was, when that decides about later calls.
    pub(super) fn note_latency(&self, env: &Env) {
        let router = &self.config.router;
        let (Strategy::LatencyBased, true, Some(attempt), Some(completed)) =
            (router.strategy, self.is_metered(), self.attempt(), &self.books.completed)
        else {
            return;
        };
        let Some(deployment) = self.config.deployments.get(attempt.candidate.deployment) else { return };
        let first_ms =
            self.requested.streaming.then(|| self.delivery.first_ms.saturating_sub(attempt.started_ms));
        let tokens = completed.usage.as_ref().map_or(0, |usage| usage.completion_tokens);
        let sample = Sample::of(self.took_ms(), first_ms, tokens);
        latency::note(env.shared, deployment, sample, &router.latency, env.now_ms);
    }
}
