//! What is known of a request when it is over: for the access log, for counters, later for the ledger.

use std::{borrow::Cow, cell::OnceCell, sync::Arc};

use super::{Env, Exchange, attempt::Attempt};
use crate::core::{
    access::Caller,
    codec::json::Writer,
    config::Config,
    cost::price::Price,
    error::Error,
    format::pipeline::Pipeline,
    headers::Headers,
    model::{
        call_record::CallRecord,
        failure::{Class, Failure},
        money::Money,
        terms::Terms,
        usage::Usage,
    },
    route::plan::Plan,
};

/// So many bytes of what a client wrote stand in the access log: of its path, of a request id.
const MOST_BYTES: usize = 1_000;

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

impl Exchange {
    /// The request is over, complete or not.
    pub fn on_done(&mut self, env: &mut Env) -> CallRecord {
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
            env.output_lengths.note(&segment.group, usage.completion_tokens);
        }
        if !is_incomplete {
            self.note_latency(env);
        }
        self.release_slot_at_end(env);
        let charged = self.charged();
        let mut record = self.record(&used, is_incomplete, env.now_ms);
        self.tell_ledger(&mut record, &used, charged, env);
        self.settle(&used, used.cost.saturating_sub(self.mock_cost()), env);
        self.tell_end(&record);
        record
    }

    /// What every view of the call has, those that the ledger alone wants left out.
    fn record(&mut self, used: &Served, incomplete: bool, now_ms: u64) -> CallRecord {
        let status = (self.status > 0).then_some(self.status);
        let is_good = (200..300).contains(&self.status);
        let failed = || self.told.as_ref().or(self.first_error.as_ref()).filter(|_| !is_good);
        let segment = self.plan.as_ref().and_then(Plan::segment);
        // What its caller's limits refuse has come to no deployment, wherever it would have gone.
        let deployment = self.plan.as_ref().filter(|_| !self.reservation.refused);
        let deployment = deployment.and_then(|plan| self.config.deployments.get(plan.current().deployment));
        let usage = match self.served {
            Some(_) => Some(used.usage.clone()),
            None => self.completed.as_ref().and_then(|completed| completed.usage.clone()),
        };
        CallRecord {
            request_id: self.request_id.take().map_or_else(|| self.call_id.clone(), |id| cut(&id).to_owned()),
            call_id: self.call_id.clone(),
            path: cut(&self.path).to_owned(),
            call_type: self.api.call_type.into(),
            asked_model: self.requested.model.take().or_else(|| self.path_model.take()),
            group: segment.map(|segment| segment.group.clone()),
            model_id: deployment.map(|deployment| deployment.id.clone()).unwrap_or_default(),
            provider: deployment.map_or("", |deployment| deployment.brand.name).into(),
            attempted_model: self.attempt.as_ref().map(|attempt| attempt.model.clone()),
            grant: self.caller.shared_grant(),
            end_user: self.requested.end_user.take(),
            forwarded_for: self.client.clone().filter(|_| self.config.general.use_forwarded_for),
            streaming: self.requested.streaming,
            attempts: self.attempts,
            retries: self.retries,
            fallbacks: self.fallbacks,
            first_after_ms: (self.first_ms > 0).then(|| self.first_ms.saturating_sub(self.started_ms)),
            usage,
            estimated: used.usage.estimated,
            incomplete,
            cost: self.cost(),
            mocked: i64::try_from(self.mock_cost().pico()).unwrap_or(i64::MAX),
            start_ms: self.started_ms,
            end_ms: now_ms,
            status,
            failure: failed().map(|error| error.name().into()),
            failure_message: failed().map(Error::logged),
            is_whole: is_good && self.completed.is_some() && !incomplete,
            ..CallRecord::default()
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
        let terms = attempt.terms;
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
        self.release_slot(usage.total_tokens, cost, env);
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
        let model = self.attempt.as_ref().map_or("", |attempt| attempt.model.as_str());
        self.config.price(self.plan.as_ref()?.current().deployment, model, answered)
    }

    /// The price of a call that the plan is about to make at a deployment of the group it has come to.
    pub(super) fn planned_price(&self, at: usize) -> Option<Arc<Price>> {
        let any = self.config.deployments.get(at).filter(|deployment| deployment.has_any_model());
        let model = any.zip(self.plan.as_ref().and_then(Plan::segment)).map(|(deployment, segment)| {
            let captures: Vec<&str> = segment.captures.iter().map(String::as_str).collect();
            deployment.model_for(&segment.requested, &captures)
        });
        self.config.price(at, model.as_deref().unwrap_or_default(), None)
    }
}

/// The model that counters of the call go by: the group that served it, else that of the model it asked for. Names are the
/// configuration's, never a client's: whatever else was asked for, or was not read before it was refused, is `other`.
pub fn counted_model<'c>(record: &'c CallRecord, config: &'c Config) -> Cow<'c, str> {
    let known = |name: &str| {
        config.groups.contains_key(name) || config.wildcards.iter().any(|wildcard| wildcard.pattern == name)
    };
    let team = record.grant.as_ref().and_then(|grant| grant.team_id());
    let asked = || Some(config.resolve_for(record.asked_model.as_deref()?, team)?.group);
    match record.group.as_deref().filter(|name| known(name)) {
        Some(served) => Cow::Borrowed(served),
        None => asked().filter(|name| known(name)).map_or(Cow::Borrowed("other"), Cow::Owned),
    }
}

/// The record as members that follow others in the JSON object of the access log. They hold no key and nothing of a prompt or
/// a response.
pub fn members(record: &CallRecord) -> Vec<u8> {
    let mut members = Vec::with_capacity(1_024);
    Writer::follow(&mut members).text("method", "POST");
    record.write_log(&mut members);
    members
}

/// What the access log has of a request that called no model, as members that follow others: what it was, whose key it had
/// (when that is known), and why it was refused.
pub fn request_members(headers: &Headers, caller: &Caller, refusal: Option<&Error>) -> Vec<u8> {
    // An address that is no text is shown as far as it is one.
    let shown_as_text = |name: &str| headers.get(name).map(String::from_utf8_lossy);
    let path = shown_as_text(":path");
    let path = path.as_deref().and_then(|path| path.split(['?', '#']).next());
    let mut members = Vec::with_capacity(256);
    let mut shown = Writer::follow(&mut members);
    shown.text_if("method", shown_as_text(":method").as_deref().map(cut));
    shown.text_if("path", path.map(cut));
    shown.text_if("request_id", shown_as_text("x-request-id").as_deref().map(cut));
    if let Some(grant) = caller.grant() {
        grant.write_log(&mut shown);
    }
    if let Some(error) = refusal {
        shown.text("error", error.name());
        shown.text("error_message", &error.logged());
    }
    members
}

/// Adds why a request ended as it did, in Envoy's words, to the members of its record.
pub fn add_failure(members: &mut Vec<u8>, details: Option<&[u8]>, connection: Option<&[u8]>) {
    let words = |text: &[u8]| cut(&String::from_utf8_lossy(text)).to_owned();
    let mut shown = Writer::follow(members);
    shown.text_if("code_details", details.map(words).as_deref());
    shown.text_if("upstream_failure", connection.filter(|text| !text.is_empty()).map(words).as_deref());
}

/// The beginning of what a client wrote.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MOST_BYTES)).unwrap_or_default()
}
