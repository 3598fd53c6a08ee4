//! HTTP: finds the route, the caller and the body's members, runs the handler, writes the answer.

use std::{
    net::SocketAddr, os::unix::process::parent_id, path::Path, sync::Arc, time::Duration, time::Instant,
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    App, api,
    caller::{self, Caller},
    log,
    problem::Problem,
    route::{Access, Answer, Call, Route, applied, check_body, check_query},
};
use crate::{
    control::{Failure, log as lines, state::ADMIN_SOCKET},
    core::{
        access::routes::{self, Right},
        codec::json::complaint,
        codec::percent,
        model::general::General,
        operation::path,
        protocol::{CHANGED_HEADER, EVERYTHING, escape},
    },
};

/// The page has no script and no style inside its HTML, and loads nothing from elsewhere.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Largest body of a management call (an import of thousands of keys is far below).
const MAX_BODY: usize = 32 << 20;

/// So much of a body that nobody wants is read and dropped, in bytes. Where more is left the connection is closed: a gateway that
/// used it again would lose the next call on it.
const DROPPED: usize = 1 << 20;
/// How long Envoy may take to end when the command is gone.
const ENVOY_LIMIT: Duration = Duration::from_secs(15);
/// How long a command that was killed may take to be gone.
const PARENT_LIMIT: Duration = Duration::from_secs(1);
/// How often Envoy is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(25);
/// How long that may take.
const DROPPED_WITHIN: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT, then finishes what is under way.
pub async fn serve(app: &Arc<App>, socket: Option<&Path>, listen: Option<SocketAddr>) -> Result<(), Failure> {
    let stop = stop_signal(app, socket)?;
    let router = router(Arc::clone(app));
    let failed =
        |what: String| move |error: std::io::Error| Failure::running(format!("ledger: {what}: {error}"));
    let mut servers = tokio::task::JoinSet::new();
    if let Some(path) = socket {
        let _ = std::fs::remove_file(path);
        let listener =
            UnixListener::bind(path).map_err(failed(format!("cannot listen on `{}`", path.display())))?;
        let server = axum::serve(listener, router.clone()).with_graceful_shutdown(stopped(stop.clone()));
        servers.spawn(async move { server.await });
    }
    if let Some(address) = listen {
        let listener =
            TcpListener::bind(address).await.map_err(failed(format!("cannot listen on {address}")))?;
        // Port 0 takes a free one.
        let address = listener.local_addr().unwrap_or(address);
        lines::info(&format!("ledger listening on http://{address}"));
        let server = axum::serve(listener, router).with_graceful_shutdown(stopped(stop.clone()));
        servers.spawn(async move { server.await });
    }
    while let Some(ended) = servers.join_next().await {
        let _ = ended;
    }
    Ok(())
}

/// The service itself, without a socket.
pub fn router(app: Arc<App>) -> Router {
    Router::new().fallback(answer).with_state(app)
}

/// Turns true at SIGTERM or SIGINT; calls that only wait are over then. Signals are listened for from here on, so whoever has
/// read that the ledger listens can end it.
///
/// When it is because the command was killed that has started this ledger, Envoy's last usage is still to come.
fn stop_signal(app: &Arc<App>, socket: Option<&Path>) -> Result<watch::Receiver<bool>, Failure> {
    let failed =
        |error: std::io::Error| Failure::running(format!("ledger: cannot listen for signals: {error}"));
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    let (tell, stop) = watch::channel(false);
    let app = Arc::clone(app);
    let (parent, socket) = (parent_id(), socket.map(Path::to_owned));
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        app.live().close();
        if let Some(socket) = socket {
            envoy_ends(&socket, parent).await;
        }
        let _ = tell.send(true);
    });
    Ok(stop)
}

/// Returns when the Envoy beside a ledger's `socket` is gone; while process `parent` lives, which ends Envoy first, soon anyway.
async fn envoy_ends(socket: &Path, parent: u32) {
    let admin = socket.with_file_name(ADMIN_SOCKET);
    let begun = Instant::now();
    while UnixStream::connect(&admin).await.is_ok() {
        // A process that is killed dies thread by thread, and tells with each of them.
        let limit = if parent_id() == parent { PARENT_LIMIT } else { ENVOY_LIMIT };
        if begun.elapsed() >= limit {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn answer(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let mut body = Some(body);
    let answered = tokio::select! {
        biased;
        answered = dispatch(Arc::clone(&app), head, &mut body) => answered,
        // Nobody waits for a database that has gone away meanwhile.
        away = app.db.condition().goes_away() => Err(away.into()),
    };
    let mut response = match answered {
        Ok(answer) => written(answer),
        Err(problem) => {
            if let Problem::Database(error) = &problem {
                app.db.condition().note(error);
            }
            problem.into_response()
        }
    };
    if let Some(body) = body
        && !dropped(body).await
    {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    guard(response.headers_mut());
    response
}

/// What a browser may do with an answer: take it for what it says it is, show it in no frame, and load for a page nothing but what
/// comes from here. Whatever is no page loads nothing at all.
fn guard(headers: &mut HeaderMap) {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let policy = if kind.starts_with(b"text/html") { PAGE_POLICY } else { DATA_POLICY };
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Reads what is left of a body that nobody wants. False: there is more.
async fn dropped(body: Body) -> bool {
    tokio::time::timeout(DROPPED_WITHIN, to_bytes(body, DROPPED)).await.is_ok_and(|read| read.is_ok())
}

/// Takes the body out of its place when it is read.
async fn dispatch(app: Arc<App>, head: Parts, body: &mut Option<Body>) -> Result<Answer, Problem> {
    let path = head.uri.path().to_owned();
    let path = if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { path };
    if let Some(rest) = path.strip_prefix("/internal/") {
        authorize_envoy(&app, &head.headers)?;
        let body = read(body).await?;
        return api::internal::answer(&app, &head.method, rest, head.uri.query().unwrap_or_default(), &body)
            .await;
    }
    let (route, parts) = find(&head.method, &path)?;
    let now_ms = app.now_ms();
    let caller = match route.access {
        Access::Public => Caller::Master,
        _ => caller::identify(&app, &head.headers).await?,
    };
    let right = permit(&app, route, &caller, &path, now_ms)?;
    let pairs: Vec<(String, String)> = form(head.uri.query().unwrap_or_default());
    applied(route, &pairs)?;
    let query = check_query(route.query, &pairs)?;
    let body = match route.method {
        "GET" => Map::new(),
        _ => members(route, &read(body).await?)?,
    };
    (route.handler)(Call { app, caller, right, path, parts, query, body, now_ms }).await
}

fn authorize_envoy(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    use subtle::ConstantTimeEq;

    let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
    if bool::from(given.ct_eq(app.secret().as_bytes())) {
        return Ok(());
    }
    Err(Problem::auth("this is for the gateway's own Envoy, which knows the ledger's secret."))
}

async fn read(body: &mut Option<Body>) -> Result<Bytes, Problem> {
    to_bytes(body.take().unwrap_or_default(), MAX_BODY).await.map_err(|_| {
        Problem::too_large(format!("the body is too large, or broke off: expected at most {MAX_BODY} bytes."))
    })
}

fn members(route: &Route, body: &[u8]) -> Result<Map<String, Value>, Problem> {
    if body.trim_ascii().is_empty() {
        return check_body(route.body, &Value::Object(Map::new()));
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        Problem::Detail(
            422,
            json!([{"type": "json_invalid", "loc": ["body", error.column()], "msg": "JSON decode error",
                    "input": {}, "ctx": {"error": complaint(&error)}}]),
        )
    })?;
    check_body(route.body, &value)
}

/// Finds the route of a method and a path.
fn find(method: &Method, called: &str) -> Result<(&'static Route, Vec<String>), Problem> {
    let mut other_method = false;
    for route in api::routes() {
        for pattern in route.paths {
            let Some(parts) = matched(pattern, called) else { continue };
            if route.method == method.as_str() || (method == Method::HEAD && route.method == "GET") {
                return Ok((route, parts));
            }
            other_method = true;
        }
    }
    Err(match other_method {
        true => Problem::Detail(405, json!("Method Not Allowed")),
        false => Problem::Error(path::absent(
            method.as_str(),
            called,
            api::routes().flat_map(|route| route.paths.iter().copied()),
        )),
    })
}

/// The varying parts of a path that fits a pattern.
fn matched(pattern: &str, path: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(parts),
            (Some(part), Some(text)) if part.starts_with('{') && !text.is_empty() => {
                parts.push(unescape(text))
            }
            (Some(part), Some(text)) if part == text => {}
            _ => return None,
        }
    }
}

/// The rule of the route; handlers look at whose records are meant.
fn permit(app: &App, route: &Route, caller: &Caller, path: &str, now_ms: i64) -> Result<Right, Problem> {
    let config = app.config();
    let judged = route.judged(path);
    // Whoever reaches the ledger past the gateway reaches no more.
    if route.access != Access::Public {
        let routes = General { allowed_routes: config.general.allowed_routes.clone(), ..General::default() };
        routes::check_address_and_route(judged, &routes, || None)?;
    }
    match caller {
        Caller::Master => Ok(Right::Role),
        Caller::Key(holder) => {
            let now_ms = u64::try_from(now_ms).unwrap_or_default();
            Ok(routes::authorize_key(&holder.grant, judged, &config.general, now_ms)?)
        }
    }
}

/// Names and values of a query string.
pub fn form(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(&name.replace('+', " ")), unescape(&value.replace('+', " ")))
        })
        .collect()
}

/// Percent escapes resolved.
pub fn unescape(text: &str) -> String {
    percent::unescape(text).into_owned()
}

fn written(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, answer.body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    if !answer.changed.is_empty() {
        // A header has to stay small; a call that changes very much makes everything stale.
        let names: Vec<String> = answer.changed.iter().map(|name| escape(name)).collect();
        let list = if names.len() > 64 { EVERYTHING.to_owned() } else { names.join(",") };
        match HeaderValue::from_str(&list) {
            Ok(value) => {
                headers.insert(CHANGED_HEADER, value);
            }
            Err(error) => log(&format!("cannot say what a call changed: {error}")),
        }
    }
    response
}
