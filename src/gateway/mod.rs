//! The gateway's roles, written once for every host: they carry bytes between a [`Host`](crate::core::host::Host) and the core.
//! No rule of the gateway is in here, and nothing that outlives a [`Worker`](worker::Worker).
//!
//! Three roles. Two of them run in every worker: [`policy`] in the listener's chain, with a [`request::Request`] for each
//! request, and [`provider`] in the router's upstream chain, once per attempt; they meet in [`exchanges`]. The third, [`sync`],
//! runs once for the whole process: it talks to the ledger.
//!
//! | file | what it holds |
//! |---|---|
//! | [`worker`] | what one worker knows; a door owns it and lends it to the roles |
//! | [`policy`], [`request`], [`waiting`] | a configuration of the policy role, a request, requests that wait for a time |
//! | [`provider`] | one attempt |
//! | [`sync`], [`report`] | usage on its way to the ledger |
//! | [`callout`] | calls that a request or a response waits for |
//! | [`exchanges`] | requests under way |
//! | [`metrics`] | counters |

mod callout;
mod exchanges;
#[cfg(test)]
mod fake;
#[cfg(feature = "fault-injection")]
mod fault;
pub mod metrics;
pub mod policy;
pub mod provider;
mod report;
pub mod request;
pub mod sync;
#[cfg(test)]
mod tests;
mod waiting;
pub mod worker;

pub use waiting::TICK;

use crate::core::{
    error::Error,
    exchange::{Reply, local},
    host::{HeaderMap, Side, Stream},
    operation::path,
};

#[cfg(not(feature = "fault-injection"))]
mod fault {
    pub fn arm<S>(_store: &impl crate::core::host::Store, _stream: &S) {}
    pub fn inject<S>(_stream: &S, _callback: &str) {}
    pub fn inject_shared(_store: &impl crate::core::host::Store, _role: &str) {}
}

/// How a stream goes on after a hook.
#[derive(Debug, PartialEq)]
#[must_use]
pub enum Turn {
    /// What came by goes on.
    Continue,
    /// What came by is kept back.
    Pause,
    /// The client is answered, and nothing goes on.
    Reply(Reply),
}

impl Turn {
    /// Tells it to the host of a stream that was paused.
    pub fn settle<S: Stream>(self, stream: &S, side: Side) {
        match self {
            Turn::Continue => stream.resume(side),
            Turn::Pause => {}
            Turn::Reply(reply) => stream.reply(reply.status, &reply.headers, &reply.body),
        }
    }

    /// Tells a reply to the host in a hook of the stream; true when what came by goes on.
    pub fn goes_on<S: Stream>(self, stream: &S) -> bool {
        match self {
            Turn::Continue => true,
            Turn::Pause => false,
            Turn::Reply(reply) => {
                stream.reply(reply.status, &reply.headers, &reply.body);
                false
            }
        }
    }
}

/// The reply to a request whose plan was lost with its worker.
fn lost<S: Stream>(stream: &S) -> Reply {
    let error = Error::unavailable("the gateway lost track of this request; send it again.");
    refusal(stream, &error)
}

/// The refusal of a request that has no exchange, in the format that its path says.
fn refusal<S: Stream>(stream: &S, error: &Error) -> Reply {
    let headers = stream.headers(HeaderMap::Request);
    let format = path::error_format(headers.text(":path").unwrap_or_default());
    local::refusal(error, format, headers.text("x-request-id").unwrap_or_default())
}
