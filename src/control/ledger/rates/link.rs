//! The connection to a Redis that may go away at any time: nobody waits for it longer than [`LIMIT`], and it is not asked again
//! for [`PAUSE`] after a failure.
//!
//! Connecting goes on aside: a sync that finds no connection goes on without one.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult, aio::MultiplexedConnection};
use tokio::time::Instant;

/// How long a round trip may take.
const LIMIT: Duration = Duration::from_millis(200);
/// How long connecting may take, with names, TLS and login.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// After a failure nothing is tried for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// Who is told when the Redis goes and when it is back.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// A connection that comes and goes.
pub struct Link {
    client: Client,
    tell: Tell,
    state: Mutex<State>,
}

struct State {
    line: Line,
    /// It was told that there is no connection.
    told: bool,
}

enum Line {
    Open(MultiplexedConnection),
    Opening,
    /// Until when.
    Closed(Instant),
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client holds the password.
        f.debug_struct("Link").field("at", &self.client.get_connection_info().addr()).finish_non_exhaustive()
    }
}

impl Link {
    /// A link that is not connected yet.
    pub fn new(client: Client, tell: Tell) -> Link {
        let state = State { line: Line::Closed(Instant::now()), told: false };
        Link { client, tell, state: Mutex::new(state) }
    }

    /// The connection, if there is one now. If there is none and it is time to, one is made aside.
    pub fn connection(self: &Arc<Self>) -> Option<MultiplexedConnection> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.line {
            Line::Open(connection) => return Some(connection.clone()),
            Line::Closed(until) if *until <= Instant::now() => {}
            Line::Opening | Line::Closed(_) => return None,
        }
        state.line = Line::Opening;
        drop(state);
        let link = Arc::clone(self);
        tokio::spawn(async move { link.open().await });
        None
    }

    async fn open(&self) {
        match tokio::time::timeout(CONNECT_LIMIT, self.connect()).await {
            Ok(Ok(connection)) => self.opened(connection),
            Ok(Err(error)) => self.lost(&error),
            Err(_) => self.lost(&too_slow()),
        }
    }

    /// A connection that has answered once.
    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(Some(LIMIT));
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&settings).await?;
        redis::cmd("PING").query_async::<()>(&mut connection).await?;
        Ok(connection)
    }

    fn opened(&self, connection: MultiplexedConnection) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).line = Line::Open(connection);
    }

    /// It has done what it is for. A connection alone is not enough: it may be full, or a replica, or forbid the commands.
    pub fn works(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut state.told) {
            let at = self.client.get_connection_info().addr();
            (self.tell)(&format!("Redis at {at} is back: gateways know of each other's rates again"));
        }
    }

    /// What came of asking. After a failure there is no connection for a while.
    pub fn checked<T>(&self, result: RedisResult<T>) -> Option<T> {
        result.inspect_err(|error| self.lost(error)).ok()
    }

    fn lost(&self, error: &RedisError) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.line = Line::Closed(Instant::now() + PAUSE);
        if !std::mem::replace(&mut state.told, true) {
            let at = self.client.get_connection_info().addr();
            (self.tell)(&format!(
                "Redis at {at} is of no use ({}): until it is back, each gateway goes by what it counts itself",
                reason(error)
            ));
        }
    }
}

/// A round trip that does not last for ever.
pub async fn limited<T>(asking: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    tokio::time::timeout(LIMIT, asking).await.unwrap_or_else(|_| Err(too_slow()))
}

fn too_slow() -> RedisError {
    (ErrorKind::Io, "no answer in time").into()
}

/// Why, in words that hold nothing of what was sent: some servers repeat a refused command with its arguments.
fn reason(error: &RedisError) -> String {
    // One refused command out of many has its code only here.
    let answers = error.clone().into_server_errors();
    let first = answers.as_deref().and_then(<[_]>::first).map(|(_, answer)| answer.code());
    match first.or_else(|| error.code()) {
        Some(code) => format!("it answers {code}"),
        None if error.is_io_error() => error.to_string(),
        None => error.category().to_owned(),
    }
}
