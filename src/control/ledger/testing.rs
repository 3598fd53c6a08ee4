//! Databases for tests: every suite runs on SQLite, and on Postgres when `TOLLGATE_TEST_POSTGRES` names a server. What is kept
//! in a Redis is tested when `TOLLGATE_TEST_REDIS` names one.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use axum::{
    body::{Body, to_bytes},
    http::{Request, Response},
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor};

use super::{App, Clock, db::Db, serve};
use crate::core::config::load;

/// The URL of a Postgres server whose user may make databases.
pub const POSTGRES: &str = "TOLLGATE_TEST_POSTGRES";
/// The URL of a Redis server with many databases, all of them for tests.
pub const REDIS: &str = "TOLLGATE_TEST_REDIS";
/// The secret of test ledgers.
pub const SECRET: &str = "a-secret-for-tests";
/// The master key of test ledgers.
pub const MASTER: &str = "sk-master-for-tests";
/// What test clocks say first: 2026-01-15T12:00:00Z, a Thursday.
pub const START_MS: i64 = 1_768_478_400_000;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// A ledger for one test.
pub struct Ledger {
    /// The ledger.
    pub app: Arc<App>,
    /// What its clock says.
    pub clock: Arc<AtomicI64>,
    file: Option<PathBuf>,
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            for end in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{end}", file.display()));
            }
        }
    }
}

/// Runs a test on every database there is, with `yaml` as the configuration (a master key is added).
pub fn on_each<T: Future<Output = ()>>(yaml: &str, test: impl Fn(Ledger) -> T) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        test(sqlite(yaml).await).await;
        if let Some(ledger) = postgres(yaml).await {
            test(ledger).await;
        }
    });
}

/// A ledger over a new SQLite file.
pub async fn sqlite(yaml: &str) -> Ledger {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("tollgate-test-{}-{count}.db", std::process::id()));
    let _ = std::fs::remove_file(&file);
    ledger(Db::sqlite(&file).await.unwrap(), yaml, Some(file))
}

/// A ledger over a new database of the Postgres server, when there is one.
pub async fn postgres(yaml: &str) -> Option<Ledger> {
    let url = postgres_url().await?;
    Some(ledger(Db::postgres(&url, 4).await.unwrap(), yaml, None))
}

/// The URL of a new database of the Postgres server, when there is one.
pub async fn postgres_url() -> Option<String> {
    let server = std::env::var(POSTGRES).ok()?;
    sqlx::any::install_default_drivers();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("unit_{}_{count}", std::process::id());
    let mut connection = sqlx::AnyConnection::connect(&server).await.unwrap();
    connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let (head, query) = server.split_once('?').map_or((server.as_str(), None), |(h, q)| (h, Some(q)));
    let (head, _) = head.rsplit_once('/').unwrap();
    Some(format!("{head}/{name}{}", query.map(|query| format!("?{query}")).unwrap_or_default()))
}

/// The URL of an empty database of the Redis server, when there is one.
pub async fn redis_url() -> Option<String> {
    let server = std::env::var(REDIS).ok()?;
    let url = format!("{}/{}", server.trim_end_matches('/'), COUNT.fetch_add(1, Ordering::Relaxed));
    redis::cmd("FLUSHDB").exec_async(&mut redis_at(&url).await).await.unwrap();
    Some(url)
}

/// A connection of the test's own to a Redis.
pub async fn redis_at(url: &str) -> redis::aio::MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

fn ledger(db: Db, yaml: &str, file: Option<PathBuf>) -> Ledger {
    let env = |name: &str| (name == "LITELLM_MASTER_KEY").then(|| MASTER.to_owned());
    let config = load(yaml, &env, &|_| None).unwrap_or_else(|problems| panic!("{problems:?}")).config;
    let clock = Arc::new(AtomicI64::new(START_MS));
    let hand = Arc::clone(&clock);
    let tells: Clock = Arc::new(move || hand.load(Ordering::Relaxed));
    Ledger { app: App::new(db, config, SECRET.to_owned(), tells), clock, file }
}

impl Ledger {
    /// Lets time pass.
    pub fn pass(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    /// One call: status, headers and body (`null` when it is no JSON).
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<Value>,
    ) -> (u16, axum::http::HeaderMap, Value) {
        use tower::ServiceExt as _;
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response: Response<Body> =
            serve::router(Arc::clone(&self.app)).oneshot(request.body(body).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        (head.status.as_u16(), head.headers, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// A call with the master key that must succeed.
    pub async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, _, answer) = self.call(method, path, Some(MASTER), body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// A call of Envoy's filter.
    pub async fn envoy(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let (status, _, answer) = self.call(method, path, Some(SECRET), body).await;
        (status, answer)
    }
}
