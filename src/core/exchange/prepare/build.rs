//! Takes a slot at the first candidate that has one, and builds its request.

use std::rc::Rc;

use super::{
    super::{Env, Exchange, Forward, Next, Phase, mock},
    Body, Flow, Preparing,
};
use crate::core::{
    error::Error,
    model::failure::{Class, Failure},
    operation::Operation,
    route::plan::{Candidate, Plan},
};

/// Takes a slot at a deployment of the current group, or of a fallback.
pub(super) fn slot(
    exchange: &mut Exchange,
    preparing: &mut Preparing,
    _: &mut Body<'_>,
    env: &mut Env<'_>,
) -> Result<Flow, Error> {
    Ok(match exchange.find_slot(&mut preparing.waits_since_ms, env)? {
        Some(ms) => Flow::Leave(Next::Wait(ms)),
        None => Flow::Done,
    })
}

/// Answers, or fails, in a provider's place where a mock is wanted.
pub(super) fn mock(
    exchange: &mut Exchange,
    preparing: &mut Preparing,
    _: &mut Body<'_>,
    env: &mut Env<'_>,
) -> Result<Flow, Error> {
    let at = exchange.current()?.deployment;
    let config = Rc::clone(&exchange.config);
    let Some(deployment) = config.deployments.get(at) else {
        return Err(Error::internal("a plan names a deployment that is not configured"));
    };
    if exchange.requested.mock_timeout || deployment.mock_timeout {
        if !std::mem::replace(&mut preparing.timed_out, true) {
            return Ok(Flow::Leave(Next::Wait(exchange.timeout_ms(at))));
        }
        exchange.fail_without_call(Failure::without_answer(Class::Timeout, "mock_timeout"), env)?;
        return Ok(Flow::ToSlot);
    }
    let mock = exchange.requested.mock_response.as_ref().or(deployment.mock_response.as_ref()).cloned();
    let Some(mock) = mock else { return Ok(Flow::Done) };
    match mock::failure(&mock) {
        Some(failure) => {
            exchange.fail_without_call(failure, env)?;
            Ok(Flow::ToSlot)
        }
        None if exchange.counts_here(at) => Ok(Flow::Done),
        None => Ok(Flow::Leave(Next::Reply(exchange.mock_reply(&mock, env)?))),
    }
}

/// Answers a count of tokens that the current candidate's provider does not count.
pub(super) fn count(
    exchange: &mut Exchange,
    _: &mut Preparing,
    body: &mut Body<'_>,
    env: &mut Env<'_>,
) -> Result<Flow, Error> {
    let at = exchange.current()?.deployment;
    if exchange.received.api.operation != Operation::CountTokens {
        return Ok(Flow::Done);
    }
    let object = body.object(exchange)?;
    if !exchange.counts_here(at) {
        exchange.estimate_tokens(object);
        return Ok(Flow::Done);
    }
    let object = body.take(exchange)?;
    Ok(Flow::Leave(Next::Reply(exchange.count_reply(&object, env)?)))
}

/// Builds the request for the current candidate; where that cannot be done, the next one is tried.
pub(super) fn build(
    exchange: &mut Exchange,
    _: &mut Preparing,
    body: &mut Body<'_>,
    env: &mut Env<'_>,
) -> Result<Flow, Error> {
    let candidate = exchange.current()?;
    match body.take(exchange).and_then(|object| exchange.build(candidate, object)) {
        Ok(built) => {
            exchange.phase = Phase::Built(built);
            Ok(Flow::Leave(exchange.forward(candidate)))
        }
        Err(error) => {
            let class = error.class().unwrap_or(Class::BadRequest);
            exchange.advance_or_fail(class, error, env)?;
            Ok(Flow::ToSlot)
        }
    }
}

impl Exchange {
    /// The current candidate.
    fn current(&self) -> Result<Candidate, Error> {
        self.plan().map(Plan::current).ok_or_else(|| Error::internal("a request has no plan"))
    }

    fn forward(&self, candidate: Candidate) -> Next {
        Next::Forward(Forward {
            cluster: self.cluster_of(Some(candidate)),
            max_retries: self.plan().map_or(0, Plan::max_retries),
            per_try_timeout_ms: self.route.as_ref().map_or(0, |route| route.per_try_timeout_ms),
        })
    }

    /// A failure that needed no call (mocks): noted, and on to the next candidate.
    fn fail_without_call(&mut self, failure: Failure, env: &mut Env) -> Result<(), Error> {
        let title = self.title();
        self.advance_or_fail(failure.class, failure.to_error(title), env)
    }

    /// Goes on to the next candidate, or fails with the first error when there is none.
    fn advance_or_fail(&mut self, class: Class, error: Error, env: &mut Env) -> Result<(), Error> {
        self.note_error(error);
        match self.advance(class, None, env) {
            Some(_) => Ok(()),
            None => Err(self.final_error()),
        }
    }
}
