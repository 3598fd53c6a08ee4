//! What the ledger is told of a finished call.

use super::{Env, Exchange, record::Served};
use crate::core::{
    access::{Caller, grant::Scope},
    error::Class,
    ledger::Event,
    route::plan::Plan,
};

/// LiteLLM's user of the master key.
const ADMIN: &str = "default_user_id";

impl Exchange {
    /// The event of a call that was planned; none for one that was refused, or when there is nobody to tell.
    pub(super) fn event(&mut self, used: &Served, estimated: bool, env: &mut Env) -> Option<Event> {
        let charged = self.charged();
        let plan = self.plan.as_ref().filter(|_| self.config.general.has_ledger && !self.hold.refused)?;
        let deployment = self.config.deployments.get(plan.current().deployment)?;
        let segment = Plan::segment(plan);
        let grant = self.caller.grant();
        let id = |scope: Option<&Scope>| scope.map(|scope| scope.id.clone());
        let failed = !(200..300).contains(&self.status);
        let model = match &self.attempt {
            Some(attempt) => attempt.model.clone(),
            None => segment.map_or_else(String::new, |segment| {
                let captures: Vec<&str> = segment.captures.iter().map(String::as_str).collect();
                deployment.model_for(&segment.requested, &captures)
            }),
        };
        Some(Event {
            // A client may give two calls the same id.
            id: format!("{}-{:08x}", self.call_id, env.random.bits() >> 32),
            call_type: self.api.call_type().to_owned(),
            api_key: match &self.caller {
                Caller::Open => String::new(),
                Caller::Master => self.config.general.master_hash.clone(),
                Caller::Key(grant) => grant.key.id.clone(),
            },
            user: match &self.caller {
                Caller::Master => Some(ADMIN.to_owned()),
                _ => id(grant.and_then(|grant| grant.user.as_deref())),
            },
            team: id(grant.and_then(|grant| grant.team.as_deref())),
            organization: id(grant.and_then(|grant| grant.organization.as_deref())),
            end_user: self.asked.end_user.clone(),
            model,
            model_group: segment.map_or_else(String::new, |segment| segment.group.clone()),
            model_id: deployment.id.clone(),
            provider: deployment.brand.name.to_owned(),
            api_base: deployment.api_base.clone(),
            spend: i64::try_from(used.cost.pico()).unwrap_or(i64::MAX),
            mocked: i64::try_from(self.mock_cost().pico()).unwrap_or(i64::MAX),
            prompt_tokens: used.usage.prompt_tokens,
            completion_tokens: used.usage.completion_tokens,
            total_tokens: used.usage.total_tokens,
            cache_read_tokens: used.usage.cached_tokens,
            cache_creation_tokens: used.usage.cache_creation_tokens,
            start_ms: self.started_ms,
            end_ms: env.now_ms,
            first_ms: self.first_ms,
            status: self.status,
            error: failed.then(|| self.failure_name()),
            estimated,
            tags: self.tags(),
            ip: self.client.clone(),
            session: self.asked.session.clone(),
            metered: self.hold.metered.clone(),
            charged,
        })
    }

    fn failure_name(&self) -> String {
        let error = self.first_error.as_ref();
        let class = error.and_then(|error| error.class).map(Class::name);
        let kind = || error.and_then(|error| error.kind.as_deref());
        class.or_else(kind).unwrap_or(Class::ApiConnection.name()).to_owned()
    }

    /// The request's tags, the key's and the team's.
    pub(super) fn tags(&self) -> Vec<String> {
        let mut tags = self.asked.tags.clone();
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
