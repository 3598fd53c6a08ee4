//! Judges the call: which model it asks for, and whether its caller may make it.

use std::rc::Rc;

use super::{
    super::{Callout, Env, Exchange, Next, request_params::MAX_MODEL_BYTES},
    Body, Flow, Preparing,
};
use crate::core::{
    access::models::{self, Names},
    error::Error,
    route::chain,
};

/// Finds the record of the end user that the request names.
pub(super) fn end_user(
    exchange: &mut Exchange,
    preparing: &mut Preparing,
    _: &mut Body<'_>,
    env: &mut Env<'_>,
) -> Result<Flow, Error> {
    match exchange.end_user(env) {
        Ok(end_user) => {
            preparing.end_user = end_user;
            Ok(Flow::Done)
        }
        Err(lookup) => {
            preparing.calls()?;
            Ok(Flow::Leave(Next::Call(Callout::record(lookup))))
        }
    }
}

/// Judges the call by the model that it asks for.
pub(super) fn permit(
    exchange: &mut Exchange,
    preparing: &mut Preparing,
    body: &mut Body<'_>,
    env: &mut Env<'_>,
) -> Result<Flow, Error> {
    let config = Rc::clone(&exchange.config);
    let caller = exchange.caller.clone();
    let end_user = preparing.end_user.as_deref();
    let asked = exchange.received.path_model.take().or(exchange.requested.model.take());
    let asked = asked.or_else(|| end_user.and_then(|end_user| end_user.default_model.clone()));
    // A model that the server prescribes needs no name in the request.
    let asked = asked.or_else(|| config.forced_model.clone());
    // The first of the file, for those who may call it: others are not told of a model that they did not ask for.
    let may_call = |name: &&String| caller.grant().is_none_or(|grant| models::may_call(name, grant, &config));
    let asked = asked.or_else(|| config.default_model.as_ref().filter(may_call).cloned());
    let Some(asked) = asked else {
        return Err(chain::unknown_model(exchange.received.api.path, "None"));
    };
    if asked.len() > MAX_MODEL_BYTES {
        return Err(Error::bad_request(format!(
            "`model` has {} bytes: expected at most {MAX_MODEL_BYTES}. Name a model of the gateway.",
            asked.len()
        ))
        .with_param("model"));
    }
    exchange.requested.region = end_user.and_then(|end_user| end_user.region.clone());
    exchange.requested.model = Some(config.forced_model.clone().unwrap_or_else(|| asked.clone()));
    let object = body.object(exchange)?;
    exchange.permit(&Names::of(&asked, caller.grant()), object, end_user, env)?;
    preparing.model = asked;
    Ok(Flow::Done)
}
