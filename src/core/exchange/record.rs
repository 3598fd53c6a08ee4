//! What is known of a request when it is over: for the access log, for counters, later for the ledger.

use std::borrow::Cow;

use super::{Env, Exchange, served::Served};
use crate::core::{
    access::Caller,
    codec::json::Writer,
    config::Config,
    error::Error,
    headers::Headers,
    model::{
        call_record::CallRecord,
        failure::{Class, Failure},
        status::Status,
    },
    route::plan::Plan,
};

/// So many bytes of what a client wrote stand in the access log: of its path, of a request id.
const MOST_BYTES: usize = 1_000;

impl Exchange {
    /// The request is over, complete or not.
    pub fn on_done(&mut self, env: &mut Env) -> CallRecord {
        let is_cut = self.books.completed.is_none() && self.delivery.status.is_none() && self.is_under_way();
        if is_cut {
            self.charge_unanswered(env);
        }
        let incomplete = self.books.completed.is_none().then(|| self.unfinished()).flatten();
        let is_incomplete = is_cut || incomplete.is_some();
        self.books.completed = self.books.completed.take().or(incomplete);
        if self.delivery.status.is_none() && self.attempt().is_some() {
            // The client left before a response came. That says nothing about the provider.
            self.note_error(
                Failure::without_answer(Class::ApiConnection, "the client went away").to_error(""),
            );
        }
        let used = self.used();
        if let (Some(segment), Some(completed)) = (self.plan().and_then(Plan::segment), &self.books.completed)
            && let Some(usage) =
                completed.usage.as_ref().filter(|_| self.attempt().is_some() && !is_incomplete)
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
        let status = self.delivery.status.map(Status::get);
        let is_good = self.delivery.status.is_some_and(Status::is_good);
        let failed =
            || self.delivery.told.as_ref().or(self.delivery.first_error.as_ref()).filter(|_| !is_good);
        let plan = self.route.as_ref().map(|route| &route.plan);
        let segment = plan.and_then(Plan::segment);
        // What its caller's limits refuse has come to no deployment, wherever it would have gone.
        let deployment = plan.filter(|_| !self.books.reservation.refused);
        let deployment = deployment.and_then(|plan| self.config.deployments.get(plan.current().deployment));
        let usage = match self.books.served {
            Some(_) => Some(used.usage.clone()),
            None => self.books.completed.as_ref().and_then(|completed| completed.usage.clone()),
        };
        CallRecord {
            request_id: self
                .received
                .request_id
                .take()
                .map_or_else(|| self.received.call_id.clone(), |id| cut(&id).to_owned()),
            call_id: self.received.call_id.clone(),
            path: cut(&self.received.path).to_owned(),
            call_type: self.received.api.call_type.into(),
            asked_model: self.requested.model.take().or_else(|| self.received.path_model.take()),
            group: segment.map(|segment| segment.group.clone()),
            model_id: deployment.map(|deployment| deployment.id.clone()).unwrap_or_default(),
            provider: deployment.map_or("", |deployment| deployment.brand.name).into(),
            attempted_model: self.attempt().map(|attempt| attempt.model.clone()),
            grant: self.caller.shared_grant(),
            end_user: self.requested.end_user.take(),
            forwarded_for: self.received.client.clone().filter(|_| self.config.general.use_forwarded_for),
            streaming: self.requested.streaming,
            attempts: self.attempts(),
            retries: self.retries(),
            fallbacks: self.fallbacks(),
            first_after_ms: (self.delivery.first_ms > 0)
                .then(|| self.delivery.first_ms.saturating_sub(self.received.started_ms)),
            usage,
            estimated: used.usage.estimated,
            incomplete,
            cost: self.cost(),
            mocked: i64::try_from(self.mock_cost().pico()).unwrap_or(i64::MAX),
            start_ms: self.received.started_ms,
            end_ms: now_ms,
            status,
            failure: failed().map(|error| error.name().into()),
            failure_message: failed().map(Error::logged),
            is_whole: is_good && self.books.completed.is_some() && !incomplete,
            ..CallRecord::default()
        }
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
