//! What the host is to do after it has told a fact: the one outcome of every entry of an [`Exchange`](super::Exchange).
//!
//! A role acts on it in one place; each outcome says which facts come after it.

use std::time::Duration;

use crate::core::{headers::Headers, model::lookup::Lookup};

/// What is to be done next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Answer the client with this; nothing else goes on.
    Reply(Reply),
    /// Let Envoy call a cluster.
    Forward(Forward),
    /// Send this to the provider in place of the client's request.
    Send(UpstreamRequest),
    /// The whole body is wanted: what comes of it is kept back until then.
    ReadBody,
    /// After this many milliseconds ask [`Exchange::on_wait`](super::Exchange::on_wait).
    Wait(u64),
    /// Make this call; [`Exchange::on_called`](super::Exchange::on_called) wants to know its response.
    Call(Callout),
    /// What came by is kept back.
    Hold,
    /// What came by goes on as it is.
    Pass,
    /// A response, or a part of one, goes on with these edits.
    Release(Release),
    /// A call of the ledger's API: it goes there as it is.
    Manage,
}

/// A whole response made by the gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers, `content-type` included.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// What the access log has of it, when no exchange is behind it.
    pub members: Vec<u8>,
}

impl Reply {
    /// Adds headers, those that are text.
    pub(super) fn extend(&mut self, headers: &Headers) {
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).ok();
        self.headers.extend(headers.iter().filter_map(|(name, value)| Some((name.to_owned(), text(value)?))));
    }
}

/// The first cluster to call, and how often and how long Envoy is to try.
#[derive(Debug, PartialEq)]
pub struct Forward {
    /// The first candidate's cluster.
    pub cluster: String,
    /// `x-envoy-max-retries`.
    pub max_retries: u32,
    /// `x-envoy-upstream-rq-per-try-timeout-ms`.
    pub per_try_timeout_ms: u64,
}

/// A request as a provider is to get it.
#[derive(Debug, PartialEq)]
pub struct UpstreamRequest {
    /// All headers, the `:`-ones and an exact `content-length` included.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
}

/// Edits of a response, or of a part of its body.
#[derive(Debug, Default, PartialEq)]
pub struct Release {
    /// The whole set of headers to send, when they are to go out now.
    pub headers: Option<Headers>,
    /// What to put in place of the body (or chunk); `None` leaves it.
    pub body: Option<Vec<u8>>,
    /// The cluster to name for the retry.
    pub next_cluster: Option<String>,
}

/// A call to somebody else that a request, or a response, waits for. It owns its data: it outlives the hook that asked for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Callout {
    /// What is called.
    pub to: Upstream,
    /// Headers without `:authority`, `:method` and `:path` included.
    pub headers: Vec<(String, String)>,
    /// The body, when there is one.
    pub body: Option<Vec<u8>>,
    /// How long the response may take.
    pub limit: Duration,
    /// What its response is for.
    pub then: Then,
}

/// What can be called.
#[derive(Clone, Debug, PartialEq)]
pub enum Upstream {
    /// The ledger, by its own credentials.
    Ledger,
    /// A cluster in whose chain none of the gateway's filters stands.
    Cluster(String),
}

/// What the response to a call is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Then {
    /// A record of the ledger's, for this worker's copies.
    Record(Lookup),
    /// The seam that asked for it.
    Seam,
}

/// How long the ledger may take over one record.
const RECORD_LIMIT: Duration = Duration::from_secs(3);

impl Callout {
    /// Asks the ledger for a record.
    pub fn record(lookup: Lookup) -> Callout {
        let header = |name: &str, value: String| (name.to_owned(), value);
        Callout {
            to: Upstream::Ledger,
            headers: vec![header(":method", "GET".to_owned()), header(":path", lookup.path())],
            body: None,
            limit: RECORD_LIMIT,
            then: Then::Record(lookup),
        }
    }
}
