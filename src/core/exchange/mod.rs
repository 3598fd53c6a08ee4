//! The life of one request, from its headers to its record: a state machine with no input or output of its own.
//!
//! Facts come in through `on_*` methods, with the time, chance and the shared store as arguments; what the host is to do
//! comes back as [`Next`]. The order of calls:
//!
//! | who | method | what comes of it |
//! |---|---|---|
//! | policy | [`open`] | an [`Exchange`] that wants its body; or a reply, or a record to fetch first |
//! | policy | [`Exchange::on_headers`], [`Exchange::on_body_part`] | a reply to what need not be waited for |
//! | policy | [`Exchange::on_body`] | forward to a cluster, reply, wait, or call somebody and come back with the body |
//! | policy | [`Exchange::on_wait`] | after a wait: wait longer, or come back with the body |
//! | both | [`Exchange::on_called`] | after a call: what the request, or the response, does now |
//! | provider, once per attempt | [`Exchange::on_attempt`] | the request as this provider wants it, and who is next |
//! | provider | [`Exchange::on_retry_body`] | the same for attempts after the first, which read the body again |
//! | provider | [`Exchange::on_response_headers`], [`Exchange::on_response_body`] | hold, pass, release with edits, or call somebody |
//! | policy | [`Exchange::on_release`] | what to do with headers on their way to the client (Envoy's own replies included) |
//! | policy | [`Exchange::on_done`] | the [`CallRecord`](crate::core::model::call_record::CallRecord); must come for every exchange, because it gives back what is reserved |
//!
//! Time never goes back. An exchange may be over at any point: its client leaves, its attempt is reset, its worker dies.

pub mod attempt;
pub mod attempt_timeout;
mod books;
pub mod bounds;
mod count;
mod early;
mod event;
mod failure;
mod groups;
mod listing;
pub mod local;
mod lookup;
pub mod mock;
pub mod next;
mod open;
pub mod output_lengths;
mod prepare;
pub mod prompt;
pub mod record;
pub mod request_params;
mod reservation;
mod response;
mod route;
pub mod seams;
mod served;
mod slot;
#[cfg(test)]
mod tests;
mod trail;

pub use failure::refused_early;
pub use lookup::learn;
pub use next::{Callout, Forward, Next, Reply};
pub use open::{EXTERNAL_ADDRESS, Opened, client_address, open};

use std::rc::Rc;

use self::{
    attempt::{Attempt, Built},
    books::Books,
    output_lengths::OutputLengths,
    prepare::Preparing,
    request_params::Requested,
    route::Route,
    seams::Seams,
};
use crate::core::{
    access::{Caller, keyring::Keyring},
    config::Config,
    error::Error,
    headers::Headers,
    host::Store,
    model::status::Status,
    operation::ApiRef,
    quota::Worker,
    random::Random,
    route::world::World,
};

/// A header that a released response carries when Envoy is to try again; the route's `retriable_headers` names it.
pub const RETRY_HEADER: &str = "x-tollgate-retry";
/// A header beside it: the least seconds that Envoy is to wait before; the route's `rate_limited_retry_back_off` names it.
pub const WAIT_HEADER: &str = "x-tollgate-wait";
/// The cluster named when there is nothing left to try. No such cluster exists, so Envoy gives up.
pub const NO_CLUSTER: &str = "tollgate_none";

/// What is said of a request whose body did not come within `tollgate_settings.upload_timeout`.
pub const TOO_SLOW: &str = "The request did not arrive in time. Send the body without a pause, or raise `tollgate_settings.upload_timeout`.";

/// What a callback may look at besides its own facts.
pub struct Env<'e> {
    /// What all workers share.
    pub shared: &'e dyn Store,
    /// Unix milliseconds.
    pub now_ms: u64,
    /// Chance.
    pub random: &'e mut Random,
    /// What looks at requests and responses on their way.
    pub seams: &'e Seams,
    /// This VM's copies of the ledger's records.
    pub keys: &'e mut Keyring,
    /// How long answers are in this VM.
    pub output_lengths: &'e mut OutputLengths,
    /// This VM among all that count requests in flight.
    pub worker: Worker,
    /// The client's address without a port, read only when something needs it.
    pub client: &'e dyn Fn() -> Option<String>,
}

impl Env<'_> {
    /// The environment as planning wants it.
    fn world<'w>(&'w mut self, config: &'w Config) -> World<'w> {
        World {
            config,
            shared: self.shared,
            now_ms: self.now_ms,
            random: &mut *self.random,
            worker: self.worker,
            trace: None,
        }
    }
}

/// One request: what is known of it from beginning to end, and where it stands.
pub struct Exchange {
    /// The exchange's name in filter state.
    pub id: u64,
    config: Rc<Config>,
    /// The caller.
    caller: Caller,
    received: Received,
    /// What it says to the gateway; nothing before its body is read.
    requested: Requested,
    /// Where it goes; a call that is refused before has none.
    route: Option<Route>,
    books: Books,
    delivery: Delivery,
    phase: Phase,
    /// What was decided, when somebody wants to know.
    trail: Option<Vec<String>>,
    /// The gateway's own count of a prompt whose tokens a provider is asked for, which may turn out to count none.
    estimated_tokens: Option<u64>,
}

/// Where a request stands, with what is known only there.
enum Phase {
    /// The body is coming.
    Receiving {
        /// Whether its caller was judged before the body was there.
        judged_early: bool,
    },
    /// The body is read, and the first attempt made ready.
    Preparing(Preparing),
    /// The first attempt is ready, and Envoy opens its cluster.
    Built(Built),
    /// An attempt has gone to its provider, whose response comes.
    Attempting(Attempt),
    /// Another attempt begins, which reads the body again. Beside it, the one before.
    Retrying(Option<Attempt>),
    /// Nothing more is done for it.
    Over,
}

/// What the headers of a request say, and the size of its body.
struct Received {
    call_id: String,
    /// `x-request-id`, when it is not the call's id.
    request_id: Option<String>,
    started_ms: u64,
    api: ApiRef,
    /// The path as the client wrote it.
    path: String,
    path_model: Option<String>,
    api_version: Option<String>,
    /// The client's address, when somebody is to know it: the ledger, or the access log behind proxies.
    client: Option<String>,
    /// Client headers to hand on (`forward_client_headers_to_llm_api`).
    forwarded: Headers,
    /// The client is a browser that needs CORS headers.
    cors: bool,
    /// Headers that say something to the gateway.
    param_headers: Headers,
    /// Bytes of the body that the headers announce; 0 when they say nothing.
    announced: u64,
    /// Bytes of the request's body: what its tokens are estimated from when nobody counts them.
    body_bytes: u64,
    /// The body in the place of the client's, once a seam has changed it.
    changed: Option<Rc<[u8]>>,
}

/// What has gone to the client.
#[derive(Default)]
struct Delivery {
    released: Released,
    first_error: Option<Error>,
    /// The refusal that the client got.
    told: Option<Error>,
    /// The id that Anthropic gave the newest attempt, for a client of its API.
    provider_request_id: Option<String>,
    /// The last failed response's headers, named for the client.
    failure_headers: Headers,
    /// What the client has got; none while it has got nothing.
    status: Option<Status>,
    /// When the first part of the response went out, Unix milliseconds.
    first_ms: u64,
    /// Milliseconds that the attempts before the newest took, and the waits after them.
    earlier_ms: u64,
}

/// How far a response has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Released {
    /// Nothing has gone out.
    #[default]
    Nothing,
    /// A response, the gateway's or a provider's.
    Response,
    /// A failure without words. Envoy may retry it; if it does not, the client gets the first error.
    Failure,
}

impl Exchange {
    /// The newest attempt that has gone to a provider.
    fn attempt(&self) -> Option<&Attempt> {
        match &self.phase {
            Phase::Attempting(attempt) => Some(attempt),
            Phase::Retrying(attempt) => attempt.as_ref(),
            Phase::Receiving { .. } | Phase::Preparing(_) | Phase::Built(_) | Phase::Over => None,
        }
    }

    /// The attempt that is under way.
    fn attempt_mut(&mut self) -> Option<&mut Attempt> {
        match &mut self.phase {
            Phase::Attempting(attempt) => Some(attempt),
            _ => None,
        }
    }

    /// Whether the call uses tokens, which count against limits and cost money.
    fn is_metered(&self) -> bool {
        self.received.api.operation.is_metered()
    }

    /// Whether what is on its way to the client is a response, the gateway's or a provider's, that needs no further look.
    pub fn has_responded(&self) -> bool {
        self.delivery.released == Released::Response
    }

    /// Whether an attempt is under way of whose provider nothing has come.
    pub fn awaits_response(&self) -> bool {
        matches!(&self.phase, Phase::Attempting(attempt) if attempt.sent && attempt.response.is_awaited())
    }

    /// The current attempt has not come to its provider: there was no connection yet.
    pub fn on_unreached(&mut self) {
        self.attempt_mut().into_iter().for_each(|attempt| attempt.sent = false);
    }
}
