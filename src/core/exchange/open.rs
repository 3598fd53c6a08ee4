//! A request's headers: what it asks for, who asks, whether it may go on.

use std::rc::Rc;

use serde_json::json;

use super::{
    Callout, Delivery, Env, Exchange, Next, Phase, Received, Reply,
    books::Books,
    listing,
    local::{self, Database},
    record::request_members,
    request_params::{END_USER_HEADERS, Requested},
};
use crate::core::{
    access::{
        self, Caller, NotAuthenticated, models, refusals,
        routes::{self, Route},
    },
    config::Config,
    error::{Error, ErrorFormat, RequestFault},
    headers::Headers,
    model::{general::General, key_record::Role},
    operation::{
        ApiRef,
        path::{self, Action},
    },
    random::Random,
    route::{
        explain::{self, Question},
        world::World,
    },
};

/// Headers that a call looks at again when its body is there.
const CONTROLS: [&str; 4] =
    ["x-litellm-timeout", "x-litellm-num-retries", "x-litellm-tags", "x-litellm-session-id"];

/// Says how a body is packed.
pub(super) const ENCODING_HEADER: &str = "content-encoding";

/// Where Envoy puts the address of a client that is not its own network's.
pub const EXTERNAL_ADDRESS: &str = "x-envoy-external-address";

/// What comes of a request's headers.
pub struct Opened {
    /// A model call has one, also when its caller is known and may not make it.
    pub exchange: Option<Box<Exchange>>,
    /// [`Next::Call`] without an exchange: give the response to [`learn`](super::learn), and open again with the same headers.
    pub next: Next,
}

impl From<Next> for Opened {
    fn from(next: Next) -> Opened {
        Opened { exchange: None, next }
    }
}

/// Reads a request's headers.
pub fn open(config: &Rc<Config>, headers: &Headers, env: &mut Env) -> Opened {
    let cors = headers.get("origin").is_some();
    let call_id = call_id(headers, env.random);
    let mut who = Caller::Open;
    let refuse = |error: Error, format: ErrorFormat, caller: &Caller| {
        let mut reply = local::refusal(&error, format, &call_id);
        reply.members = request_members(headers, caller, Some(&error));
        local::add_cors(&mut reply, cors);
        Opened::from(Next::Reply(reply))
    };
    let (Some(method), Some(target)) = (headers.text(":method"), headers.text(":path")) else {
        return refuse(
            Error::bad_request("the request has no path, or one that is not valid UTF-8."),
            ErrorFormat::OpenAi,
            &who,
        );
    };
    let action = match path::find(method, target) {
        Ok(action) => action,
        Err(error) => return refuse(error, path::error_format(target), &who),
    };
    let format = match &action {
        Action::Call { api, .. } => api.error_format,
        _ => ErrorFormat::OpenAi,
    };
    let path = target.split('?').next().unwrap_or_default();
    match admit(&action, path, config, headers, env, &mut who) {
        Ok(Entry::Caller) => {}
        Ok(Entry::Manage) => return Next::Manage.into(),
        Ok(Entry::Refused(error)) => {
            let Action::Call { api, model, .. } = action else {
                return refuse(error, format, &who);
            };
            let mut reply = local::refusal(&error, format, &call_id);
            local::add_cors(&mut reply, cors);
            let mut exchange = Exchange::new(config, who, call_id, api, path, headers, env);
            exchange.received.path_model = model.map(|model| model.into_owned());
            exchange.end_with(error);
            return Opened { exchange: Some(Box::new(exchange)), next: Next::Reply(reply) };
        }
        Err(NotAuthenticated::NeedsLookup(lookup)) => return Next::Call(Callout::record(lookup)).into(),
        Err(NotAuthenticated::Rejected(error)) => return refuse(error, format, &who),
    }
    let caller = who;
    let answer = match action {
        Action::Call { api, model, api_version } => {
            let mut exchange = Exchange::new(config, caller, call_id, api, path, headers, env);
            exchange.received.path_model = model.map(|model| model.into_owned());
            exchange.received.api_version = api_version.map(|version| version.into_owned());
            return Opened { exchange: Some(Box::new(exchange)), next: Next::ReadBody };
        }
        Action::Metrics => return Next::Pass.into(),
        Action::Manage => Err(refusals::no_ledger()),
        Action::Explain(query) => explain_call(query, path, &caller, &mut env.world(config)),
        _ => {
            let database = Database::of(&config.general, env.shared);
            let catalog = local::Catalog {
                list: &|| listing::answer(query_of(target), &caller, config),
                listed: &|| models::listed(&caller, config, false),
                exists: &|name| models::exists(name, &caller, config),
            };
            local::answer(&action, config, headers, &catalog, &database)
        }
    };
    match answer {
        Ok(mut reply) => {
            reply.members = request_members(headers, &caller, None);
            local::add_cors(&mut reply, cors);
            Next::Reply(reply).into()
        }
        Err(error) => refuse(error, format, &caller),
    }
}

/// What stands behind the `?` of a path.
fn query_of(target: &str) -> &str {
    target.split_once('?').map_or("", |(_, query)| query)
}

/// Tells an administrator where a call would go.
fn explain_call(query: &str, path: &str, caller: &Caller, world: &mut World) -> Result<Reply, Error> {
    if caller.grant().is_some_and(|grant| grant.role != Role::ProxyAdmin) {
        return Err(refusals::admin_only(path));
    }
    let question = Question::from_query(query)?;
    Ok(local::body(&json!(explain::explain(&question, world))))
}

/// How a request comes in.
enum Entry {
    /// As a caller who is known by now.
    Caller,
    /// By the ledger, which judges its callers itself.
    Manage,
    /// Not at all, though it is known who calls.
    Refused(Error),
}

/// Judges a request by its headers, in the order of the reference: size, address and path; then who it is and what it may.
/// `who` is told as soon as it is known, so that a refusal can be put down to its key.
fn admit(
    action: &Action<'_>,
    path: &str,
    config: &Config,
    headers: &Headers,
    env: &mut Env,
    who: &mut Caller,
) -> Result<Entry, NotAuthenticated> {
    let general = &config.general;
    one_host(headers)?;
    if matches!(action, Action::Call { .. }) {
        size_allowed(announced(headers), config)?;
    }
    let route = Route::of(action, path);
    let for_all = local::is_public(action) || (*action == Action::Metrics && !general.auth_metrics);
    if !for_all {
        routes::check_address_and_route(route, general, || client(headers, general, env))?;
    }
    if general.has_ledger && matches!(action, Action::Manage | Action::ModelInfo | Action::Home) {
        return Ok(Entry::Manage);
    }
    if for_all || route.is_in(&general.public_routes) {
        return Ok(Entry::Caller);
    }
    if general.has_ledger {
        env.keys.configure(config.tollgate.key_cache_size, general.key_ttl_ms);
        env.keys.refresh(env.shared);
    }
    *who = access::authenticate(headers, general, env.keys, env.shared, env.now_ms)?;
    Ok(match routes::authorize(who, route, general, env.now_ms) {
        Ok(_) => Entry::Caller,
        Err(error) => Entry::Refused(error),
    })
}

/// Bytes of the body, as the headers say; 0 when they do not.
fn announced(headers: &Headers) -> u64 {
    headers.text("content-length").and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Envoy joins Host headers: who sends two has one hop believe the first and the next hop the second.
fn one_host(headers: &Headers) -> Result<(), Error> {
    match headers.text(":authority").is_some_and(|host| host.contains(',')) {
        true => Err(Error::bad_request("the request names several hosts: expected one Host header")),
        false => Ok(()),
    }
}

fn client(headers: &Headers, general: &General, env: &Env) -> Option<String> {
    client_address(headers, general, env.client)
}

/// The client's address, as the connection (`peer`) or, with `use_x_forwarded_for`, the outermost proxy that is trusted tells
/// it. Whatever stands before that proxy's entry has been written by whoever called it, and proves nothing.
pub fn client_address(
    headers: &Headers,
    general: &General,
    peer: &dyn Fn() -> Option<String>,
) -> Option<String> {
    let forwarded = headers.text("x-forwarded-for").filter(|_| general.use_forwarded_for);
    let told = forwarded.and_then(|list| list.rsplit(',').nth(general.trusted_hops.saturating_sub(1)));
    match told.map(str::trim).filter(|address| !address.is_empty()) {
        Some(told) => Some(told.to_owned()),
        None => peer(),
    }
}

/// The client's address for the books: Envoy's own header tells it sooner than the connection does. What is let in is not decided by it,
/// because an Envoy that is set up otherwise may let a client write that header.
fn shown_client(headers: &Headers, general: &General, env: &Env) -> Option<String> {
    let told = headers.text(EXTERNAL_ADDRESS).filter(|_| !general.use_forwarded_for);
    told.map(str::to_owned).or_else(|| client(headers, general, env))
}

impl Exchange {
    /// A call whose headers have been read.
    fn new(
        config: &Rc<Config>,
        caller: Caller,
        call_id: String,
        api: ApiRef,
        path: &str,
        headers: &Headers,
        env: &mut Env,
    ) -> Exchange {
        let general = &config.general;
        let tells_client = general.has_ledger || general.use_forwarded_for;
        let request_id = headers.text("x-request-id").filter(|id| *id != call_id).map(str::to_owned);
        let is_control = |name: &[u8]| {
            CONTROLS.iter().chain(&END_USER_HEADERS).any(|control| control.as_bytes() == name)
                || general.user_header.as_deref().is_some_and(|header| header.as_bytes() == name)
                || name == ENCODING_HEADER.as_bytes()
                || (name == b"content-type" && api.carries.needs_content_type())
        };
        Exchange {
            id: env.random.bits(),
            config: Rc::clone(config),
            caller,
            received: Received {
                call_id,
                request_id,
                started_ms: env.now_ms,
                api,
                path: path.to_owned(),
                path_model: None,
                api_version: None,
                client: tells_client.then(|| shown_client(headers, general, env)).flatten(),
                forwarded: forwarded(headers, config),
                cors: headers.get("origin").is_some(),
                param_headers: picked(headers, is_control),
                announced: announced(headers),
                body_bytes: 0,
                changed: None,
            },
            requested: Requested::default(),
            route: None,
            books: Books::default(),
            delivery: Delivery::default(),
            phase: Phase::Receiving { judged_early: false },
            trail: None,
            estimated_tokens: None,
        }
    }
}

/// The client's `x-litellm-call-id`, else Envoy's request id (so logs can be matched), else a new one.
fn call_id(headers: &Headers, random: &mut Random) -> String {
    let plain = |text: &&str| {
        !text.is_empty()
            && text.len() <= 128
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    ["x-litellm-call-id", "x-request-id"]
        .into_iter()
        .find_map(|name| headers.text(name).filter(plain))
        .map_or_else(|| random.uuid(), str::to_owned)
}

/// A length, announced or real, against `max_request_size_mb` and what is buffered at all.
pub(super) fn size_allowed(length: u64, config: &Config) -> Result<(), Error> {
    if length > config.request_limit() {
        return Err(too_large(config));
    }
    let Some(max) = config.general.max_request_bytes.filter(|max| length > *max) else { return Ok(()) };
    let mb = |bytes: u64| bytes as f64 / 1_048_576.0;
    Err(Error::of(
        RequestFault::BadRequest,
        format!("Request size is too large. Request size is {} MB. Max size is {} MB", mb(length), mb(max)),
    )
    .with_param("content-length"))
}

pub(super) fn too_large(config: &Config) -> Error {
    let limit = config.request_limit();
    Error::of(
        RequestFault::TooLarge,
        format!(
            "the request body is too large: expected at most {limit} bytes. \
             `tollgate_settings.request_body_buffer_limit_bytes` raises the limit."
        ),
    )
}

/// Client headers that `forward_client_headers_to_llm_api` hands on.
fn forwarded(headers: &Headers, config: &Config) -> Headers {
    let wanted = |name: &[u8]| {
        name == b"anthropic-beta"
            || (config.general.forward_client_headers
                && name.starts_with(b"x-")
                && ![
                    "x-stainless",
                    "x-envoy-",
                    "x-tollgate-",
                    "x-litellm-",
                    "x-forwarded-",
                    "x-request-id",
                    "x-api-key",
                ]
                .iter()
                .any(|ours| name.starts_with(ours.as_bytes())))
    };
    picked(headers, wanted)
}

/// The headers whose names are wanted. Most requests have none.
fn picked(headers: &Headers, wanted: impl Fn(&[u8]) -> bool) -> Headers {
    let mut list = Headers::default();
    for (name, value) in headers.raw().filter(|(name, _)| wanted(name)) {
        list.push(std::str::from_utf8(name).unwrap_or_default(), value);
    }
    list
}
