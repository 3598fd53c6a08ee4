//! What the gateway needs of whatever runs it, as traits: the core and the roles name no host.
//!
//! | trait | one per | what it gives |
//! |---|---|---|
//! | [`Store`] | process | values that all workers share |
//! | [`Host`] | worker | clock, environment, calls, queues, metrics, log, ticks |
//! | [`Stream`] | request and role | headers, bodies, values stored with the stream, reply and resumption |
//!
//! Roles are generic over them. They may rely on this, whatever the host:
//! - A hook runs to its end before another hook of the same stream begins. A reply, a resumption or a call that a hook asks for
//!   is settled by the host after the hook: nothing of it comes back while the hook runs.
//! - A stream that is over cannot be entered, and no response to a call of it comes any more.
//! - Counters may be added up later, and ticks may come late: nothing that must be exact hangs on them.

use std::time::Duration;

use crate::core::headers::Headers;

/// A version of a stored value; a write that names it succeeds only while it is still the newest.
pub type Version = u32;

/// What workers share: a store of small values with compare-and-swap.
///
/// Keys can be neither listed nor deleted, so writers must bound the number of distinct keys.
///
/// Reading is what costs where the host hands values into a VM: it prepares a call into it for each, which takes longer than
/// most of what a request needs. So values that seldom change are read with [`Store::look`], and what is only counted is no
/// value at all ([`Store::succeeded`]).
pub trait Store {
    /// The value and its version.
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)>;

    /// Writes a value; false when `version` is given and no longer the newest. Creating a missing key ignores `version`.
    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> bool;

    /// The value of a key of a topic whose values seldom change. It may be a copy made since the topic was last
    /// [touched](Store::touch).
    fn look(&self, _topic: Topic, key: &str) -> Option<Vec<u8>> {
        self.get(key).map(|(value, _)| value)
    }

    /// Says that a value of this topic has been written: copies are stale.
    fn touch(&self, _topic: Topic) {}

    /// Two numbers that no client can guess, the same for all workers that share the store: what hashes are keyed with, so that
    /// no client can choose names that fall into one place. Zeros until [`seal`](super::store::seal) has been called.
    fn secret(&self) -> Secret;

    /// Counts something that operators should know of, by the whole name of its counter.
    fn count(&self, _counter: &'static str) {}

    /// Counts a response of a deployment that went well, in this minute (Unix minutes).
    fn succeeded(&self, deployment: &str, minute: u64);

    /// How many were counted in this minute, as far as this worker knows: what others counted before it had anything to do
    /// with that deployment in this minute may be missing.
    fn successes(&self, deployment: &str, minute: u64) -> u64;
}

/// See [`Store::secret`].
pub type Secret = [u64; 2];

/// What values are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Records of keys, teams, users: whether any of them changed.
    Access,
    /// Cooldowns: which deployments are cooling down, and until when.
    Cooldown,
}

/// A worker's host. What it is asked to send, it may send when the hook that is running has returned.
pub trait Host {
    /// What workers share.
    type Store: Store;
    /// One request's stream.
    type Stream: Stream;

    /// What workers share.
    fn store(&self) -> &Self::Store;

    /// Unix milliseconds.
    fn now_ms(&self) -> u64;

    /// A random number that differs between workers. Not for secrets that outlive the process.
    fn random(&self) -> u64;

    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;

    /// The configuration of the role whose hook is running.
    fn configuration(&self) -> Vec<u8>;

    /// The stream of this id, to work on it in a hook that is not its own; `None` when it is over. What was entered before
    /// is not to be used any more.
    fn enter(&self, id: StreamId) -> Option<Self::Stream>;

    /// Asks for ticks of the role whose hook is running. They may come a little early, and later than that.
    fn tick_every(&self, period: Duration);

    /// Begins a call of the role itself; its response comes to the role. `None` when it cannot even begin.
    fn call(&self, callout: &Callout<'_>) -> Option<CallId>;

    /// Makes a queue that all workers share; the one there when it exists.
    fn make_queue(&self, name: &str) -> Option<QueueId>;

    /// Finds a queue that another worker made.
    fn find_queue(&self, name: &str) -> Option<QueueId>;

    /// Whether a value put into a queue wakes another thread, so that it is better to put in many at once.
    fn queue_wakes(&self) -> bool {
        true
    }

    /// Puts a value into a queue.
    fn enqueue(&self, queue: QueueId, value: &[u8]) -> bool;

    /// Takes the oldest value out of a queue.
    fn dequeue(&self, queue: QueueId) -> Option<Vec<u8>>;

    /// The id of a metric, made when it is new. Labels stand in the name: `name;label=value;label=value`.
    fn metric(&self, kind: Metric, name: &str) -> Option<MetricId>;

    /// Adds to a counter. It may show a second later.
    fn add(&self, counter: MetricId, by: u64);

    /// Sets a gauge, or adds a sample to a histogram.
    fn record(&self, metric: MetricId, value: u64);

    /// What a counter or a gauge stands at, in all workers together.
    fn value(&self, metric: MetricId) -> Option<u64>;

    /// Whether the log shows [`Level::Info`].
    fn is_watched(&self) -> bool;

    /// Writes to the log.
    fn log(&self, level: Level, message: &str);
}

/// One request's stream, in a hook of its own or [entered](Host::enter) from another.
pub trait Stream {
    /// Names it among all streams under way in this worker.
    fn id(&self) -> StreamId;

    /// All headers of a map, those with a `:` included; none when there is no such map now.
    fn headers(&self, map: HeaderMap) -> Headers;

    /// Puts headers in place of all that a map holds.
    fn replace_headers(&self, map: HeaderMap, headers: &Headers);

    /// Sets one header, or removes it.
    fn set_header(&self, map: HeaderMap, name: &str, value: Option<&str>);

    /// What is kept back of a body, and its newest part.
    fn body(&self, side: Side) -> Vec<u8>;

    /// Puts bytes in place of what [`body`](Stream::body) gives. Only while a part comes by or is kept back.
    fn replace_body(&self, side: Side, body: &[u8]);

    /// A value that was stored with the stream, by whichever role.
    fn state(&self, name: &str) -> Option<Vec<u8>>;

    /// Stores a value with the stream: for the other role, the route's matcher and the access log.
    fn set_state(&self, name: &str, value: &[u8]);

    /// What the host knows of the stream.
    fn attribute(&self, attribute: Attribute) -> Option<Vec<u8>>;

    /// Begins a call for this stream; its response comes to the stream, unless that is over by then. `None` when it cannot
    /// even begin.
    fn call(&self, callout: &Callout<'_>) -> Option<CallId>;

    /// Replies to the client. The reply passes the response hooks of the same stream.
    fn reply(&self, status: u16, headers: &[(String, String)], body: &[u8]);

    /// Lets go on what was paused.
    fn resume(&self, side: Side);
}

/// Names a stream in its worker.
pub type StreamId = u64;
/// Names a call in its worker.
pub type CallId = u64;
/// Names a queue.
pub type QueueId = u32;
/// Names a metric in its worker.
pub type MetricId = u32;

/// A call to a cluster.
pub struct Callout<'c> {
    /// The cluster. None of our filters stands in its chain.
    pub cluster: &'c str,
    /// Headers, `:method`, `:path` and `:authority` included.
    pub headers: &'c [(&'c str, &'c str)],
    /// The request's body.
    pub body: Option<&'c [u8]>,
    /// How long the response may take.
    pub limit: Duration,
}

/// The response to a call. There is none when the connection was lost or the time was over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallResponse {
    /// HTTP status.
    pub status: u16,
    /// The response's body.
    pub body: Vec<u8>,
}

/// The two directions of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// To the provider.
    Request,
    /// To the client.
    Response,
}

/// The header maps of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderMap {
    /// Request headers.
    Request,
    /// Request trailers.
    RequestTrailers,
    /// Response headers.
    Response,
    /// Response trailers.
    ResponseTrailers,
}

/// What a host knows of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// The client's address, with its port.
    ClientAddress,
    /// The own end of the connection to the provider; empty while there is none.
    UpstreamLocalAddress,
    /// Why the response is what it is, in Envoy's words.
    ResponseCodeDetails,
    /// Why there was no connection.
    UpstreamFailure,
}

/// Kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// A number that only grows.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// Samples.
    Histogram,
}

/// Levels of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For a close look (`--debug`).
    Info,
    /// What an operator should know.
    Warn,
    /// What keeps the gateway from working.
    Error,
}
