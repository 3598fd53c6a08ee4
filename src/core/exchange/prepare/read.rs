//! Reads the body: its size, its members, and what it says to the gateway.

use super::{
    super::{Env, Exchange, bounds, open::size_allowed, request_params},
    Body, Flow, Preparing,
};
use crate::core::{codec::json::Object, error::Error, operation::Operation};

/// Reads what the request says to the gateway, and refuses what nobody may say.
pub(super) fn read(
    exchange: &mut Exchange,
    _: &mut Preparing,
    body: &mut Body<'_>,
    _: &mut Env<'_>,
) -> Result<Flow, Error> {
    // A chunked body announces nothing.
    exchange.received.body_bytes = u64::try_from(body.bytes.len()).unwrap_or(u64::MAX);
    size_allowed(exchange.received.body_bytes, &exchange.config)?;
    let object = body.object(exchange)?;
    bounds::check(object, exchange.received.api)?;
    let general = &exchange.config.general;
    exchange.requested = request_params::read(object, &exchange.received.param_headers, general)?;
    exchange.requested.streaming &= exchange.received.api.operation != Operation::CountTokens;
    request_params::refuse_endpoints(object, &exchange.requested, general)?;
    if exchange.caller.grant().is_some() {
        request_params::refuse_mocks(object, general)?;
    }
    Ok(Flow::Done)
}

impl Exchange {
    /// What the body says by name, in whichever way its call carries that.
    pub(in crate::core::exchange) fn members<'b>(&self, body: &'b [u8]) -> Result<Object<'b>, Error> {
        let received = &self.received;
        received.api.carries.members(received.param_headers.text("content-type"), body)
    }
}
