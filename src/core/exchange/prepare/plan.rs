//! Plans where the call goes, and reserves what it will probably use.

use std::rc::Rc;

use super::{
    super::{Env, Exchange, prompt, route::Route},
    Body, Flow, Preparing,
};
use crate::core::{
    access::models::Names,
    codec::json::Object,
    error::Error,
    model::{
        failure::{Class, Failure},
        virtual_key::EndUser,
    },
    route::{
        affinity,
        plan::Plan,
        world::{RoutingInput, World},
    },
};

/// Makes the plan of attempts.
pub(super) fn plan(
    exchange: &mut Exchange,
    preparing: &mut Preparing,
    body: &mut Body<'_>,
    env: &mut Env<'_>,
) -> Result<Flow, Error> {
    let config = Rc::clone(&exchange.config);
    let caller = exchange.caller.clone();
    let names = Names::of(&preparing.model, caller.grant());
    let called = config.forced_model.as_deref().unwrap_or(names.called);
    let mut controls = std::mem::take(&mut exchange.requested.controls);
    controls.disable_fallbacks |= caller.grant().is_some_and(|grant| grant.disable_fallbacks);
    controls.call = exchange.routing_input(body.object(exchange)?, preparing.end_user.as_deref());
    let trace = exchange.trace();
    let plan = Plan::new(called, controls, &mut World { trace: trace.as_ref(), ..env.world(&config) });
    exchange.tell_plan(trace);
    exchange.route = Some(Route::new(plan?));
    let per_try_timeout_ms = exchange.longest_timeout_ms();
    exchange.route.iter_mut().for_each(|route| route.per_try_timeout_ms = per_try_timeout_ms);
    Ok(Flow::Done)
}

/// Reserves what the call will probably use, with every limit that it comes under.
pub(super) fn reserve(
    exchange: &mut Exchange,
    preparing: &mut Preparing,
    _: &mut Body<'_>,
    env: &mut Env<'_>,
) -> Result<Flow, Error> {
    let caller = exchange.caller.clone();
    let names = Names::of(&preparing.model, caller.grant());
    exchange.reserve(&names, preparing.end_user.as_deref(), env)?;
    Ok(Flow::Done)
}

/// Fails the first group that a request wants to see failing (`mock_testing_*`).
pub(super) fn mock_fallback(
    exchange: &mut Exchange,
    _: &mut Preparing,
    _: &mut Body<'_>,
    env: &mut Env<'_>,
) -> Result<Flow, Error> {
    let Some(class) = exchange.requested.mock_testing.take() else { return Ok(Flow::Done) };
    let failure = Failure::without_answer(class, "This is a mock exception for testing fallbacks.");
    exchange.note_error(failure.to_error(exchange.title()));
    let config = Rc::clone(&exchange.config);
    let before = exchange.plan().map(Plan::current);
    let mut world = env.world(&config);
    // A group that is busy is tried again; the others are mocked for the sake of their fallbacks.
    let after = exchange.plan_mut().and_then(|plan| match class {
        Class::RateLimit => plan.advance(class, Some(class.status().into()), &mut world, &mut |_| true),
        _ => plan.abandon_group(class, &mut world, &mut |_| true),
    });
    let (Some(before), Some(after)) = (before, after) else { return Err(exchange.final_error()) };
    exchange.count_move(before, after);
    Ok(Flow::Done)
}

impl Exchange {
    /// What routing may look at, as far as the configuration lets it look.
    fn routing_input(&self, object: &Object<'_>, end_user: Option<&EndUser>) -> RoutingInput {
        let router = &self.config.router;
        let team = self.caller.grant().and_then(|grant| grant.team.as_deref());
        let call = RoutingInput {
            prompt_tokens: self.prompt_tokens(),
            streaming: self.requested.streaming,
            team: team.map(|team| team.id.clone()),
            any_team: self.caller.grant().is_none(),
            cached: if router.prompt_affinity && self.is_metered() {
                affinity::fingerprints(object)
            } else {
                Vec::new()
            },
            ..RoutingInput::default()
        };
        if !router.has_filters() {
            return call;
        }
        RoutingInput {
            tags: if router.tag_filtering { self.tags() } else { Vec::new() },
            region: end_user.and_then(|end_user| end_user.region.clone()),
            messages: router.pre_call_checks.then(|| prompt::tokens(object)).flatten(),
            response_format: object.has("response_format"),
            ..call
        }
    }
}
