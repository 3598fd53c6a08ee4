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
        failure::{Class, Failure},
        money::Money,
        terms::Terms,
        usage::Usage,
    },
    protocol::Event,
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
    /// Whose key it was.
    caller: Caller,
    /// The end user it was for.
    end_user: Option<String>,
    /// `x-request-id`, when the call has another id.
    request_id: Option<String>,
    /// The client's address, when it is not that of its connection.
    client: Option<String>,
    /// Attempts on the last group after its first.
    retries: u32,
    /// Milliseconds from the headers to the first part of the answer.
    first_ms: Option<u64>,
    /// The answer came whole.
    complete: bool,
    /// What the failure is called, and its words as far as they are ours.
    failure: Option<(Cow<'static, str>, String)>,
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
        let is_good = (200..300).contains(&self.status);
        let failed = || self.told.as_ref().or(self.first_error.as_ref());
        let call_id =
            if self.trail.is_some() { self.call_id.clone() } else { std::mem::take(&mut self.call_id) };
        let record = Record {
            call_id,
            call_type: self.api.call_type(),
            path: std::mem::take(&mut self.path),
            model: self.asked.model.take().or_else(|| self.path_model.take()),
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
            error: if is_good { None } else { self.first_error.as_ref().and_then(|e| e.class) },
            caller: self.caller.clone(),
            end_user: self.asked.end_user.take(),
            request_id: self.request_id.take(),
            client: self.client.take().filter(|_| self.config.general.use_forwarded_for),
            retries: self.retries,
            first_ms: (self.first_ms > 0).then(|| self.first_ms.saturating_sub(self.started_ms)),
            complete: is_good && self.completed.is_some() && !is_incomplete,
            failure: if is_good { None } else { failed().map(|error| (error.name(), error.logged())) },
            duration_ms: env.now_ms.saturating_sub(self.started_ms),
            event: event.map(Box::new),
        };
        self.tell_end(&record);
        record
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

impl Record {
    /// The model that counters of the call go by: the group that served it, else that of the model it asked for. Names are the
    /// configuration's, never a client's: whatever else was asked for, or was not read before it was refused, is `other`.
    pub fn counted_model<'c>(&'c self, config: &'c Config) -> Cow<'c, str> {
        let known = |name: &str| {
            config.groups.contains_key(name)
                || config.wildcards.iter().any(|wildcard| wildcard.pattern == name)
        };
        let team = self.caller.grant().and_then(|grant| grant.team_id());
        let asked = || Some(config.resolve_for(self.model.as_deref()?, team)?.group);
        match self.group.as_deref().filter(|name| known(name)) {
            Some(served) => Cow::Borrowed(served),
            None => asked().filter(|name| known(name)).map_or(Cow::Borrowed("other"), Cow::Owned),
        }
    }

    /// What the ledger is to be told; nothing when there is none.
    pub fn event(&self) -> Option<&Event> {
        self.event.as_deref()
    }

    /// Whether Envoy has more to say of why it ended as it did.
    pub fn is_whole(&self) -> bool {
        self.complete
    }

    /// The record as members that follow others in the JSON object of the access log.
    pub fn to_members(&self) -> Vec<u8> {
        let mut members = self.to_json();
        members.pop();
        if let Some(first) = members.first_mut() {
            *first = b',';
        }
        members
    }

    /// The record as one JSON object. It holds no key and nothing of a prompt or an answer.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1_024);
        let mut shown = Writer::begin(&mut out);
        shown.text("method", "POST");
        shown.text("path", cut(&self.path));
        shown.text("call_id", &self.call_id);
        shown.text("request_id", self.request_id.as_deref().map_or(&self.call_id, cut));
        shown.text("call_type", self.call_type);
        shown.text_if("model", self.model.as_deref());
        shown.text_if("model_group", self.group.as_deref());
        shown.text_if("model_id", self.deployment.as_deref());
        shown.text_if("provider", self.provider);
        shown.text_if("provider_model", self.provider_model.as_deref());
        show_caller(&mut shown, &self.caller);
        shown.text_if("end_user", self.end_user.as_deref());
        shown.text_if("client_address", self.client.as_deref());
        shown.flag("stream", self.streaming);
        shown.number("attempts", self.attempts);
        shown.number("retries", self.retries);
        shown.number("fallbacks", self.fallbacks);
        if let Some(ms) = self.first_ms {
            shown.number("first_ms", ms);
        }
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
        if let Some((name, words)) = &self.failure {
            shown.text("error", name);
            shown.text("error_message", words);
        }
        shown.end();
        out
    }
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
    show_caller(&mut shown, caller);
    if let Some(error) = refusal {
        shown.text("error", &error.name());
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

/// Who called: the key by its hash and its alias, its team and its user.
fn show_caller(shown: &mut Writer<'_>, caller: &Caller) {
    let Some(grant) = caller.grant() else { return };
    shown.text_if("key_hash", Some(grant.key.id.as_str()).filter(|id| !id.is_empty()));
    shown.text_if("key_alias", grant.key.alias.as_deref());
    shown.text_if("user_id", grant.user.as_ref().map(|user| user.id.as_str()));
    shown.text_if("team_id", grant.team.as_ref().map(|team| team.id.as_str()));
    shown.text_if("team_alias", grant.team.as_ref().and_then(|team| team.alias.as_deref()));
    let organization = grant.organization.as_ref().map(|organization| organization.id.as_str());
    shown.text_if("organization_id", organization);
}

/// The beginning of what a client wrote.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MOST_BYTES)).unwrap_or_default()
}
