//! What the ledger is told of a finished call.

use super::{Env, Exchange, record::Served};
use crate::core::{
    access::Caller,
    codec::escape::hex,
    model::{failure::Class, grant::Scope},
    protocol::Event,
    route::plan::Plan,
};

/// LiteLLM's user of the master key.
const ADMIN: &str = "default_user_id";
/// Most bytes of a failure's words that are kept.
const MESSAGE_BYTES: usize = 1_000;

impl Exchange {
    /// The event of a call; none when there is nobody to tell. One that came to no deployment was refused.
    pub(super) fn event(&mut self, used: &Served, env: &mut Env) -> Option<Event> {
        let charged = self.charged();
        if !self.config.general.has_ledger {
            return None;
        }
        let plan = self.plan.as_ref().filter(|_| !self.hold.refused);
        let planned =
            plan.and_then(|plan| Some((plan, self.config.deployments.get(plan.current().deployment)?)));
        let Some((plan, deployment)) = planned else { return self.refusal(env) };
        let segment = Plan::segment(plan);
        let failed = !(200..300).contains(&self.status);
        let model = match &self.attempt {
            Some(attempt) => attempt.model.clone(),
            None => segment.map_or_else(String::new, |segment| {
                let captures: Vec<&str> = segment.captures.iter().map(String::as_str).collect();
                deployment.model_for(&segment.requested, &captures)
            }),
        };
        Some(Event {
            response_id: self.completed.as_ref().and_then(|completed| completed.id.clone()),
            model,
            // A wildcard is no name that anybody asks for.
            model_group: segment.map_or_else(String::new, |segment| match segment.group.contains('*') {
                true => segment.requested.clone(),
                false => segment.group.clone(),
            }),
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
            first_ms: self.first_ms,
            error: failed.then(|| self.failure_name()),
            message: if failed { self.failure_message() } else { None },
            estimated: used.usage.estimated,
            metered: self.hold.metered.clone(),
            charged,
            ..self.blank(env)
        })
    }

    /// What is told of a call that was refused, unless `disable_error_logs`.
    fn refusal(&self, env: &mut Env) -> Option<Event> {
        let error = self.first_error.as_ref()?;
        if self.config.ledger.disable_error_logs || matches!(self.caller, Caller::Open) {
            return None;
        }
        let asked = self.asked.model.clone().or_else(|| self.path_model.clone()).unwrap_or_default();
        let kind = error.kind.as_deref();
        let class = match error.class.map(Class::name) {
            Some(class) => class,
            None if kind == Some("budget_exceeded") => "BudgetExceededError",
            None if error.status == 429 => "HTTPException",
            None => "ProxyException",
        };
        Some(Event {
            model: asked.clone(),
            model_group: asked,
            error: Some(class.to_owned()),
            refused: true,
            message: self.failure_message(),
            ..self.blank(env)
        })
    }

    /// What is known of every call: who, when, for whom.
    fn blank(&self, env: &mut Env) -> Event {
        let grant = self.caller.grant();
        let id = |scope: Option<&Scope>| scope.map(|scope| scope.id.clone());
        Event {
            // A client may give two calls the same id.
            id: numbered(&self.call_id, env.random.bits()),
            call_id: self.call_id.clone(),
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
            start_ms: self.started_ms,
            end_ms: env.now_ms,
            status: self.status,
            tags: self.tags(),
            ip: self.client.clone(),
            session: self.asked.session.clone(),
            ..Event::default()
        }
    }

    /// The words that the client got, else those of the failure it left behind.
    fn failure_message(&self) -> Option<String> {
        let error = self.told.as_ref().or(self.first_error.as_ref())?;
        let end = error.message.floor_char_boundary(MESSAGE_BYTES);
        error.message.get(..end).map(str::to_owned)
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

/// `id-0123abcd`: the upper half of the bits in hexadecimal.
fn numbered(id: &str, bits: u64) -> String {
    let [a, b, c, d, ..] = bits.to_be_bytes();
    [id, "-", &hex(&[a, b, c, d])].concat()
}
