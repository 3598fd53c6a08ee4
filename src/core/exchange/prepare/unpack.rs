//! Unpacks a body that its client has packed.

use super::{
    super::{
        Env, Exchange,
        open::{ENCODING_HEADER, too_large},
    },
    Body, Flow, Preparing,
};
use crate::core::{
    codec::packed::{Unpacker, Unreadable},
    error::{Error, RequestFault},
    model::status::ErrorStatus,
};

/// Puts the body as it was before it was packed in the place of the client's.
pub(super) fn unpack(
    exchange: &mut Exchange,
    _: &mut Preparing,
    body: &mut Body<'_>,
    _: &mut Env<'_>,
) -> Result<Flow, Error> {
    let received = &exchange.received;
    if received.changed.is_some() || received.param_headers.get(ENCODING_HEADER).is_none() {
        return Ok(Flow::Done);
    }
    let headers = received.param_headers.raw().filter(|(name, _)| *name == ENCODING_HEADER.as_bytes());
    let refused = |why: Unreadable| refused(&why, exchange);
    let unpacker = Unpacker::new(headers.map(|(_, value)| value)).map_err(refused)?;
    let Some(mut unpacker) = unpacker else { return Ok(Flow::Done) };
    let most = usize::try_from(exchange.config.request_limit()).unwrap_or(usize::MAX);
    let plain = unpacker.push(body.bytes, most).map_err(refused)?;
    unpacker.finish().map_err(refused)?;
    exchange.change_body(plain)?;
    Ok(Flow::Changed)
}

fn refused(why: &Unreadable, exchange: &Exchange) -> Error {
    let fault = match why {
        Unreadable::TooLarge(_) => return too_large(&exchange.config),
        Unreadable::Broken(_) => RequestFault::Invalid,
        Unreadable::Unknown(_) | Unreadable::TooMany => {
            RequestFault::Unreadable(ErrorStatus::UNSUPPORTED_MEDIA_TYPE)
        }
    };
    Error::of(fault, format!("the request body {why}."))
}
