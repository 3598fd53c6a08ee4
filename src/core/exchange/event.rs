//! What the ledger is told of a finished call.

use super::{Env, Exchange, served::Served};
use crate::core::{
    access::Caller,
    codec::hex::hex,
    error::Error,
    model::{
        call_record::{CallRecord, MeterCharge},
        deployment::Deployment,
        failure::Class,
        key_record::Principal,
    },
    route::{plan::Plan, segment::Segment},
};

/// LiteLLM's user of the master key.
const ADMIN: &str = "default_user_id";
/// Most bytes of a failure's words that are kept.
const MESSAGE_BYTES: usize = 1_000;

impl Exchange {
    /// Adds what the ledger is told of a call; nothing when there is none. One that came to no deployment was refused.
    pub(super) fn tell_ledger(
        &self,
        record: &mut CallRecord,
        used: &Served,
        charged: Vec<MeterCharge>,
        env: &mut Env,
    ) {
        if !self.config.general.has_ledger {
            return;
        }
        let plan = self.plan().filter(|_| !self.books.reservation.refused);
        let planned =
            plan.and_then(|plan| Some((plan, self.config.deployments.get(plan.current().deployment)?)));
        match planned {
            // As in LiteLLM, what uses nothing has no row.
            Some(_) if !self.is_metered() => return,
            Some((plan, deployment)) => {
                self.tell_use(record, used, Plan::segment(plan), deployment);
                record.meter_charges = charged;
            }
            None if !self.tell_refusal(record) => return,
            None => {}
        }
        self.tell_caller(record);
        // A client may give two calls the same id.
        record.id = numbered(&self.received.call_id, env.random.bits());
        record.tags = self.tags();
        record.ip.clone_from(&self.received.client);
        record.session.clone_from(&self.requested.session);
    }

    /// What a call used, and where.
    fn tell_use(
        &self,
        record: &mut CallRecord,
        used: &Served,
        segment: Option<&Segment>,
        deployment: &Deployment,
    ) {
        record.response_id = self.books.completed.as_ref().and_then(|completed| completed.id.clone());
        record.model = match self.attempt() {
            Some(attempt) => attempt.model.clone(),
            None => segment.map_or_else(String::new, |segment| {
                let captures: Vec<&str> = segment.captures.iter().map(String::as_str).collect();
                deployment.model_for(&segment.requested, &captures)
            }),
        };
        // A wildcard is no name that anybody asks for.
        record.model_group = segment.map_or_else(String::new, |segment| match segment.group.contains('*') {
            true => segment.requested.clone(),
            false => segment.group.clone(),
        });
        record.api_base.clone_from(&deployment.api_base);
        record.spend = i64::try_from(used.cost.pico()).unwrap_or(i64::MAX);
        record.prompt_tokens = used.usage.prompt_tokens;
        record.completion_tokens = used.usage.completion_tokens;
        record.total_tokens = used.usage.total_tokens;
        record.cache_read_tokens = used.usage.cached_tokens;
        record.cache_creation_tokens = used.usage.cache_creation_tokens;
        record.first_ms = (self.delivery.first_ms > 0).then_some(self.delivery.first_ms);
        if !record.is_good() {
            record.error = Some(self.failure_name());
            record.message = self.failure_message();
        }
        record.budgeted_meters.clone_from(&self.books.reservation.budgeted_meters);
    }

    /// Why a call was refused; `false` when nobody wants to know (`disable_error_logs`).
    fn tell_refusal(&self, record: &mut CallRecord) -> bool {
        let Some(error) = &self.delivery.first_error else { return false };
        if self.config.ledger.disable_error_logs || matches!(self.caller, Caller::Open) {
            return false;
        }
        record.model = record.asked_model.clone().unwrap_or_default();
        record.model_group.clone_from(&record.model);
        record.error = Some(error.exception().to_owned());
        record.refused = true;
        record.message = self.failure_message();
        true
    }

    /// The principals that are charged.
    fn tell_caller(&self, record: &mut CallRecord) {
        let grant = self.caller.grant();
        let id = |scope: Option<&Principal>| scope.map(|scope| scope.id.clone());
        record.api_key = match &self.caller {
            Caller::Open => String::new(),
            Caller::Master => self.config.general.master_hash.clone(),
            Caller::Key(grant) => grant.key.id.clone(),
        };
        record.user = match &self.caller {
            Caller::Master => Some(ADMIN.to_owned()),
            _ => id(grant.and_then(|grant| grant.user.as_deref())),
        };
        record.team = id(grant.and_then(|grant| grant.team.as_deref()));
        record.organization = id(grant.and_then(|grant| grant.organization.as_deref()));
    }

    /// The words that the client got, else those of the failure it left behind.
    fn failure_message(&self) -> Option<String> {
        let error = self.delivery.told.as_ref().or(self.delivery.first_error.as_ref())?;
        let end = error.message.floor_char_boundary(MESSAGE_BYTES);
        error.message.get(..end).map(str::to_owned)
    }

    fn failure_name(&self) -> String {
        let error = self.delivery.first_error.as_ref();
        let class = error.and_then(Error::class).map(Class::name);
        let kind = || error.and_then(|error| error.shape().kind);
        class.or_else(kind).unwrap_or(Class::ApiConnection.name()).to_owned()
    }

    /// The request's tags, the key's and the team's.
    pub(super) fn tags(&self) -> Vec<String> {
        let mut tags = self.requested.tags.clone();
        let grant = self.caller.grant();
        let team = grant.and_then(|grant| grant.team.as_deref());
        for tag in grant.map(|grant| &grant.key).into_iter().chain(team).flat_map(|scope| &scope.tags) {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
        tags
    }
}

/// `id-0123abcd`: the upper half of the bits in hexadecimal.
fn numbered(id: &str, bits: u64) -> String {
    let [a, b, c, d, ..] = bits.to_be_bytes();
    [id, "-", &hex(&[a, b, c, d])].concat()
}
