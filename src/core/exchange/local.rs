//! What the gateway answers by itself: lists, health, CORS, and every refusal.

use serde_json::{Value, json};

use super::Reply;
use crate::core::{
    access::trouble,
    config::Config,
    error::{Error, ErrorFormat, RequestFault},
    headers::Headers,
    host::Store,
    model::general::General,
    operation::{
        managed,
        path::{self, Action},
    },
};

/// LiteLLM's constant `created` of a listed model.
const MODEL_CREATED: u64 = 1_677_610_602;

/// Where clients of Anthropic's API look for the id of their request, in good responses too.
pub const REQUEST_ID: &str = "request-id";

/// Whether an action is for everybody.
pub fn is_public(action: &Action<'_>) -> bool {
    matches!(
        action,
        Action::Preflight | Action::Liveliness | Action::Readiness | Action::Home | Action::Routes
    )
}

/// The models of a caller.
pub struct Catalog<'c> {
    /// The answer that lists them.
    pub list: &'c dyn Fn() -> Reply,
    /// The names that are listed.
    pub listed: &'c dyn Fn() -> Vec<String>,
    /// Whether there is one of this name that it may call, listed or not.
    pub exists: &'c dyn Fn(&str) -> bool,
}

/// Answers an action that calls no model; `database` is how the ledger's database is.
pub fn answer(
    action: &Action<'_>,
    config: &Config,
    headers: &Headers,
    models: &Catalog<'_>,
    database: &Database,
) -> Result<Reply, Error> {
    match action {
        Action::Preflight => Ok(preflight(headers)),
        Action::Liveliness => Ok(body(&json!("I'm alive!"))),
        Action::Readiness => Ok(readiness(database)),
        Action::Home => Ok(body(&json!({"name": "tollgate", "version": env!("CARGO_PKG_VERSION")}))),
        Action::Routes => Ok(body(&routes())),
        Action::Models => Ok((models.list)()),
        Action::Model(name) => {
            if (models.exists)(name) || (models.listed)().iter().any(|known| known == name.as_ref()) {
                return Ok(body(&model(name)));
            }
            Err(Error::of(
                RequestFault::NotFound,
                format!("Model `{name}` not found. GET /v1/models lists every model."),
            )
            .with_param("model"))
        }
        Action::ModelInfo => Ok(body(&config.model_info())),
        _ => Err(Error::internal("a model call was taken for a list")),
    }
}

/// How the ledger's database is, as far as this gateway knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// There is none.
    None,
    /// The database answers.
    Connected,
    /// The database cannot be used, and why. True: keys pass without it (`allow_requests_on_db_unavailable`).
    Trouble(String, bool),
}

impl Database {
    /// As the sync role heard last.
    pub fn of(general: &General, shared: &dyn Store) -> Database {
        if !general.has_ledger {
            return Database::None;
        }
        match trouble::reason(shared) {
            Some(reason) => Database::Trouble(reason, general.pass_without_ledger),
            None => Database::Connected,
        }
    }
}

/// LiteLLM's fields, and its 503 when the database is not there. Known keys go on all the same: who wants such a gateway to be
/// ready says so with `allow_requests_on_db_unavailable`.
fn readiness(database: &Database) -> Reply {
    let db = match database {
        Database::Trouble(reason, false) => {
            let detail = json!({"detail": format!("Service Unhealthy ({reason})")});
            return Reply { status: 503, ..body(&detail) };
        }
        Database::Connected => "connected",
        Database::None | Database::Trouble(..) => "Not connected",
    };
    body(&json!({
        "status": "healthy",
        "db": db,
        "cache": null,
        "litellm_version": env!("CARGO_PKG_VERSION"),
        "success_callbacks": [],
    }))
}

fn routes() -> Value {
    let own = path::routes().into_iter().map(|(path, method)| json!({"path": path, "methods": [method]}));
    let managed = managed::ROUTES.iter().map(|(path, methods)| json!({"path": path, "methods": methods}));
    json!({"routes": own.chain(managed).collect::<Vec<_>>()})
}

/// A model, as lists have it.
pub(super) fn model(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": MODEL_CREATED, "owned_by": "openai"})
}

/// A JSON response.
pub(super) fn body(value: &Value) -> Reply {
    Reply {
        status: 200,
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: value.to_string().into_bytes(),
        members: Vec::new(),
    }
}

/// An error in the client's format.
pub fn refusal(error: &Error, format: ErrorFormat, call_id: &str) -> Reply {
    let mut headers = vec![
        ("content-type".to_owned(), "application/json".to_owned()),
        ("x-litellm-call-id".to_owned(), call_id.to_owned()),
        ("x-litellm-version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ];
    if format == ErrorFormat::Anthropic {
        headers.push((REQUEST_ID.to_owned(), error.request_id(call_id).to_owned()));
    }
    let more = error.shape().headers;
    headers.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Reply {
        status: error.status_in(format).get(),
        headers,
        body: error.body(format, call_id),
        members: Vec::new(),
    }
}

/// The answer to a CORS preflight: every origin, method and header, as LiteLLM.
fn preflight(headers: &Headers) -> Reply {
    let origin = headers.text("origin").unwrap_or("*");
    let wanted = headers.text("access-control-request-headers").unwrap_or("*");
    let list = [
        ("content-type", "text/plain; charset=utf-8"),
        ("access-control-allow-origin", origin),
        ("access-control-allow-methods", "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
        ("access-control-allow-headers", wanted),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "600"),
        ("vary", "Origin"),
    ];
    Reply {
        status: 200,
        headers: list.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        body: b"OK".to_vec(),
        members: Vec::new(),
    }
}

/// What a browser needs to read any other answer.
pub const CORS: [(&str, &str); 2] =
    [("access-control-allow-origin", "*"), ("access-control-allow-credentials", "true")];

/// Adds [`CORS`] to a reply for a browser (a preflight has its own).
pub fn add_cors(reply: &mut Reply, cors: bool) {
    if cors && !reply.headers.iter().any(|(name, _)| name == "access-control-allow-origin") {
        reply.headers.extend(CORS.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
