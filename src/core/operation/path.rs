//! The path table: which action a method and a path name.
//!
//! Every OpenAI path is served with and without `/v1`, and as `/engines/{model}/…` and `/openai/deployments/{model}/…`, as
//! the LiteLLM proxy does. A model in the path may hold slashes and percent escapes.

use std::borrow::Cow;

use super::{APIS, ApiRef, managed, not_yet};
use crate::core::{
    codec::percent::unescape,
    error::{Error, ErrorFormat, RequestFault},
};

/// What a request asks the gateway to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<'p> {
    /// Call a model.
    Call {
        /// The API spoken.
        api: ApiRef,
        /// A model in the path; it overrides the body's.
        model: Option<Cow<'p, str>>,
        /// `?api-version=` (Azure clients).
        api_version: Option<Cow<'p, str>>,
    },
    /// List the models.
    Models,
    /// Describe one model.
    Model(Cow<'p, str>),
    /// The deployments, without their secrets.
    ModelInfo,
    /// Is the process alive.
    Liveliness,
    /// Can it serve.
    Readiness,
    /// List the paths.
    Routes,
    /// Envoy's statistics, which Envoy serves itself.
    Metrics,
    /// Say where a call would go; the query has the call.
    Explain(&'p str),
    /// `/`: says what this is.
    Home,
    /// A CORS preflight.
    Preflight,
    /// A path of the ledger's API: keys, users, teams, spend. Which ones there are is the ledger's to know.
    Manage,
}

/// Pattern without `/v1`, its method, whether `/v1` may stand before it, and what it asks for.
type Fixed = (&'static str, &'static str, bool, fn() -> Action<'static>);

/// Paths without a part that varies.
const TABLE: &[Fixed] = &[
    ("/models", "GET", true, || Action::Models),
    ("/model/info", "GET", true, || Action::ModelInfo),
    ("/health/liveliness", "GET", false, || Action::Liveliness),
    ("/health/liveness", "GET", false, || Action::Liveliness),
    ("/health/readiness", "GET", false, || Action::Readiness),
    ("/routes", "GET", false, || Action::Routes),
    ("/metrics", "GET", false, || Action::Metrics),
    ("/", "GET", false, || Action::Home),
];

/// Explains where a call would go.
const EXPLAIN: &str = "/tollgate/explain";

/// What the ledger serves: each path and everything below it.
const MANAGED: &[&str] = &[
    "/key",
    "/user",
    "/team",
    "/budget",
    "/customer",
    "/end_user",
    "/organization",
    "/model",
    "/spend",
    "/global",
    "/utils",
    "/v2/key/info",
    "/v2/team/list",
    "/v2/model/info",
    "/model_group/info",
    "/provider/budgets",
    "/health/services",
    "/openapi.json",
    "/docs",
    "/redoc",
    "/get/litellm_model_cost_map",
];

/// Finds the action, or says with 404 or 405 why there is none.
pub fn find<'p>(method: &str, target: &'p str) -> Result<Action<'p>, Error> {
    find_in(&APIS, method, target)
}

/// Finds the action among these client APIs and everything else that is served.
fn find_in<'p>(apis: &[ApiRef], method: &str, target: &'p str) -> Result<Action<'p>, Error> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
    let bare = path.strip_prefix("/v1").filter(|rest| rest.starts_with('/'));
    let versioned = bare.is_some();
    let short = bare.unwrap_or(path);

    if let Some((pattern, model)) = call(apis, path, short) {
        let rows = apis.iter().filter(|api| api.path == pattern);
        return match rows.clone().find(|api| serves(api.method, method)) {
            Some(api) => Ok(Action::Call { api, model, api_version: parameter(query, "api-version") }),
            None if method == "OPTIONS" => Ok(Action::Preflight),
            None => Err(not_allowed(method, path, rows.map(|api| api.method).collect::<Vec<_>>().join(", "))),
        };
    }
    let (action, allowed) = if let Some((_, allowed, _, make)) =
        TABLE.iter().find(|(known, _, with_version, _)| *known == short && (*with_version || !versioned))
    {
        (make(), *allowed)
    } else if let Some(model) = short.strip_prefix("/models/").filter(|model| !model.is_empty()) {
        (Action::Model(unescape(model)), "GET")
    } else if path == EXPLAIN {
        (Action::Explain(query), "GET")
    } else if is_managed(path) {
        return Ok(if method == "OPTIONS" { Action::Preflight } else { Action::Manage });
    } else {
        return Err(not_found(method, path));
    };
    match method {
        "OPTIONS" => Ok(Action::Preflight),
        _ if serves(allowed, method) => Ok(action),
        _ => Err(not_allowed(method, path, allowed)),
    }
}

/// Whether a row of one method serves another: what can be got has a head.
fn serves(allowed: &str, method: &str) -> bool {
    method == allowed || (method == "HEAD" && allowed == "GET")
}

/// The refusal of a method where only others are taken.
fn not_allowed(method: &str, path: &str, allowed: impl Into<Cow<'static, str>>) -> Error {
    let allowed = allowed.into();
    let message = format!("Method Not Allowed: `{path}` takes {allowed}, not {method}.");
    Error::of(RequestFault::Method(allowed), message)
}

/// Why there is nothing at a path.
fn not_found(method: &str, path: &str) -> Error {
    let routes = routes();
    let managed = managed::ROUTES.iter().map(|(path, _)| *path);
    absent(method, path, routes.iter().map(|(path, _)| path.as_str()).chain(managed))
}

/// Why there is nothing at a path, where there could be something at the `known` ones. A 404 also where LiteLLM has something:
/// clients try again after a 501.
pub fn absent<'k>(method: &str, path: &str, known: impl Iterator<Item = &'k str>) -> Error {
    let message = match not_yet::missing(path) {
        Some(what) => format!(
            "Not Found: Tollgate does not serve `{method} {path}` yet. LiteLLM has this route ({what}). GET /routes lists every \
             path that is served."
        ),
        None => {
            let meant = not_yet::meant(path, known).map(|meant| format!(" Did you mean `{meant}`?"));
            let meant = meant.unwrap_or_default();
            format!("Not Found: no route `{method} {path}`.{meant} GET /routes lists every path.")
        }
    };
    Error::of(RequestFault::NotFound, message)
}

/// The format of errors at a path: Anthropic's at and below its own.
pub fn error_format(path: &str) -> ErrorFormat {
    let below = |own: &str| {
        path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    };
    match below("/v1/messages") || below("/anthropic") {
        true => ErrorFormat::Anthropic,
        false => ErrorFormat::OpenAi,
    }
}

/// Whether a path is the ledger's. What climbs up with `..` is nobody's.
fn is_managed(path: &str) -> bool {
    let below = |prefix: &&str| {
        path.strip_prefix(*prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    (path == "/health" || MANAGED.iter().any(below)) && !path.split('/').any(|part| part == "..")
}

/// The path of the client APIs that a path means, as their rows have it, and the model in it.
fn call<'p>(apis: &[ApiRef], path: &'p str, short: &'p str) -> Option<(&'static str, Option<Cow<'p, str>>)> {
    for api in apis {
        let here = if api.with_version { short } else { path };
        if api.path == here {
            return Some((api.path, None));
        }
        let named = match api.path.split_once("{model}") {
            Some((before, after)) => here.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)),
            None => None,
        };
        if let Some(model) = named.filter(|model| !model.is_empty()) {
            return Some((api.path, Some(unescape(model))));
        }
        let Some(form) = short.strip_suffix(api.path).filter(|_| api.model_in_path) else { continue };
        let model = form.strip_prefix("/engines/").or_else(|| form.strip_prefix("/openai/deployments/"))?;
        // The first suffix that fits decides.
        return (!model.is_empty()).then(|| (api.path, Some(unescape(model))));
    }
    None
}

/// The paths that the filter answers by itself or through providers.
pub fn routes() -> Vec<(String, &'static str)> {
    let mut routes = Vec::new();
    for api in APIS {
        routes.push((api.path.to_owned(), api.method));
        if api.with_version {
            routes.push((format!("/v1{}", api.path), api.method));
        }
        for form in ["/engines/{model}", "/openai/deployments/{model}"].iter().filter(|_| api.model_in_path) {
            routes.push((format!("{form}{}", api.path), api.method));
        }
    }
    for (path, method, with_version, _) in TABLE {
        routes.push(((*path).to_owned(), method));
        if *with_version {
            routes.push((format!("/v1{path}"), method));
        }
    }
    routes.push((EXPLAIN.to_owned(), "GET"));
    routes.push(("/models/{model}".to_owned(), "GET"));
    routes.push(("/v1/models/{model}".to_owned(), "GET"));
    routes
}

/// A query parameter, unescaped.
pub fn parameter<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name && !value.is_empty()).then(|| unescape(value))
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Api, CHAT, COMPLETIONS, COUNT_TOKENS, EMBEDDINGS, MESSAGES, body::Carries},
        *,
    };

    #[test]
    fn every_path_of_the_product() {
        let call = |api, model: Option<&'static str>| Action::Call {
            api,
            model: model.map(Cow::Borrowed),
            api_version: None,
        };
        let rows = [
            ("POST", "/chat/completions", call(&CHAT, None)),
            ("POST", "/v1/chat/completions", call(&CHAT, None)),
            ("POST", "/v1/chat/completions/", call(&CHAT, None)),
            ("POST", "/engines/gpt-4/chat/completions", call(&CHAT, Some("gpt-4"))),
            ("POST", "/openai/deployments/a/b/chat/completions", call(&CHAT, Some("a/b"))),
            ("POST", "/openai/deployments/a%2Fb%3A1/embeddings", call(&EMBEDDINGS, Some("a/b:1"))),
            ("POST", "/engines/x/completions", call(&COMPLETIONS, Some("x"))),
            ("POST", "/completions", call(&COMPLETIONS, None)),
            ("POST", "/v1/embeddings", call(&EMBEDDINGS, None)),
            ("POST", "/v1/messages", call(&MESSAGES, None)),
            ("POST", "/v1/messages/count_tokens", call(&COUNT_TOKENS, None)),
            ("POST", "/v1/messages/count_tokens?beta=true", call(&COUNT_TOKENS, None)),
            ("GET", "/models", Action::Models),
            ("GET", "/v1/models?x=1", Action::Models),
            ("HEAD", "/v1/models", Action::Models),
            ("GET", "/v1/models/openai/gpt-4o", Action::Model(Cow::Borrowed("openai/gpt-4o"))),
            ("GET", "/model/info", Action::ModelInfo),
            ("GET", "/v1/model/info", Action::ModelInfo),
            ("GET", "/health/liveliness", Action::Liveliness),
            ("GET", "/health/liveness", Action::Liveliness),
            ("GET", "/health/readiness", Action::Readiness),
            ("GET", "/routes", Action::Routes),
            ("GET", "/metrics/", Action::Metrics),
            ("GET", "/", Action::Home),
            ("GET", "/tollgate/explain?model=a", Action::Explain("model=a")),
            ("OPTIONS", "/chat/completions", Action::Preflight),
            ("OPTIONS", "/key/generate", Action::Preflight),
            ("POST", "/key/generate", Action::Manage),
            ("POST", "/key/sk-1/regenerate", Action::Manage),
            ("GET", "/v2/key/info?key=x", Action::Manage),
            ("PATCH", "/model/abc/update", Action::Manage),
            ("POST", "/model/new", Action::Manage),
            ("GET", "/health", Action::Manage),
            ("GET", "/health/services?service=slack", Action::Manage),
            ("GET", "/global/spend/logs", Action::Manage),
            ("DELETE", "/customer/", Action::Manage),
            ("GET", "/openapi.json", Action::Manage),
        ];
        for (method, path, operation) in rows {
            assert_eq!(find(method, path), Ok(operation), "{method} {path}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let rows = [
            ("POST", "/v2/chat", 404),
            ("POST", "/messages", 404),
            ("POST", "/messages/count_tokens", 404),
            ("GET", "/v1/messages/count_tokens", 405),
            ("GET", "/v1", 404),
            ("POST", "/engines//chat/completions", 404),
            ("GET", "/v1/health/readiness", 404),
            ("GET", "/chat/completions", 405),
            ("DELETE", "/models", 405),
            ("GET", "/keys/list", 404),
            ("GET", "/key/../internal/keys/x", 404),
            ("GET", "/internal/sync", 404),
            ("GET", "/health/other", 404),
        ];
        for (method, path, status) in rows {
            let error = find(method, path).unwrap_err();
            assert_eq!(error.status(), status, "{method} {path}");
            assert!(error.message.contains(path), "{}", error.message);
        }
    }

    #[test]
    fn what_litellm_has_and_we_do_not_says_so_and_typos_are_guessed() {
        let rows = [
            (
                "POST",
                "/v1/responses",
                "does not serve `POST /v1/responses` yet. LiteLLM has this route (the responses API)",
            ),
            ("POST", "/v1/messages/batches", "does not serve `POST /v1/messages/batches` yet"),
            ("POST", "/openai/deployments/d/images/generations", "pass-through to OpenAI"),
            ("GET", "/guardrails/list", "(guardrails)"),
            (
                "POST",
                "/chat/completion",
                "no route `POST /chat/completion`. Did you mean `/chat/completions`?",
            ),
            ("GET", "/v1/nothing", "no route `GET /v1/nothing`. GET /routes lists every path."),
        ];
        for (method, path, words) in rows {
            let error = find(method, path).unwrap_err();
            assert_eq!(error.status(), 404);
            assert!(error.message.contains(words), "{}", error.message);
        }
        for (path, format) in [
            ("/v1/messages/count_tokens", ErrorFormat::Anthropic),
            ("/v1/messages", ErrorFormat::Anthropic),
            ("/v1/messages?beta=true", ErrorFormat::Anthropic),
            ("/v1/messages/batches/b1", ErrorFormat::Anthropic),
            ("/v1/messagesx", ErrorFormat::OpenAi),
            ("/anthropic/v1/messages", ErrorFormat::Anthropic),
            ("/v1/responses", ErrorFormat::OpenAi),
        ] {
            assert_eq!(error_format(path), format, "{path}");
        }
    }

    /// What no client API of ours is yet: a form, a model in the path, several methods at one path.
    static OTHERS: [Api; 4] = [
        Api { path: "/audio/transcriptions", carries: Carries::Form, ..CHAT },
        Api { path: "/bedrock/{model}/converse", with_version: false, model_in_path: false, ..CHAT },
        Api { method: "GET", path: "/tunes/{model}", carries: Carries::Opaque, model_in_path: false, ..CHAT },
        Api {
            method: "DELETE",
            path: "/tunes/{model}",
            carries: Carries::Opaque,
            model_in_path: false,
            ..CHAT
        },
    ];

    #[test]
    fn a_row_says_what_a_call_carries_and_where_its_model_stands() {
        let [form, converse, get, delete] = &OTHERS;
        let apis = [form, &CHAT, converse, get, delete];
        let rows = [
            ("POST", "/v1/audio/transcriptions", Ok((form, None))),
            ("POST", "/openai/deployments/whisper/audio/transcriptions", Ok((form, Some("whisper")))),
            ("POST", "/v1/chat/completions", Ok((&CHAT, None))),
            ("POST", "/bedrock/us.amazon.nova-v1%3A0/converse", Ok((converse, Some("us.amazon.nova-v1:0")))),
            ("POST", "/bedrock/arn/aws/converse", Ok((converse, Some("arn/aws")))),
            ("POST", "/v1/bedrock/x/converse", Err((404, None))),
            ("POST", "/bedrock//converse", Err((404, None))),
            ("GET", "/tunes/ft:gpt", Ok((get, Some("ft:gpt")))),
            ("HEAD", "/v1/tunes/ft:gpt", Ok((get, Some("ft:gpt")))),
            ("DELETE", "/v1/tunes/ft:gpt", Ok((delete, Some("ft:gpt")))),
            ("PUT", "/tunes/ft:gpt", Err((405, Some("GET, DELETE, OPTIONS")))),
            ("GET", "/bedrock/x/converse", Err((405, Some("POST, OPTIONS")))),
        ];
        for (method, path, expected) in rows {
            let found = find_in(&apis, method, path).map(|action| match action {
                Action::Call { api, model, .. } => (api, model.map(Cow::into_owned)),
                other => panic!("{method} {path}: {other:?}"),
            });
            let expected = expected.map(|(api, model): (&Api, Option<&str>)| (api, model.map(str::to_owned)));
            let found = found.map_err(|error| {
                let headers = error.shape().headers;
                let allow = headers.into_iter().find(|(name, _)| *name == "allow");
                (error.status(), allow.map(|(_, value)| value))
            });
            let expected = expected.map_err(|(status, allow)| (status, allow.map(str::to_owned)));
            assert_eq!(found, expected, "{method} {path}");
        }
        assert_eq!(find_in(&apis, "OPTIONS", "/tunes/x"), Ok(Action::Preflight));
    }

    #[test]
    fn the_model_of_a_call_is_read_out_of_what_its_row_carries() {
        let form = "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b--\r\n";
        let rows = [
            (&CHAT, "application/json", r#"{"model":"gpt-4o"}"#, Ok(Some("gpt-4o"))),
            (&CHAT, "multipart/form-data; boundary=b", form, Err("the request body is not valid JSON")),
            (&OTHERS[0], "multipart/form-data; boundary=b", form, Ok(Some("whisper-1"))),
            (&OTHERS[0], "application/json", r#"{"model":"x"}"#, Err("the request body must be a form")),
            (&OTHERS[2], "", "", Ok(None)),
        ];
        for (api, content_type, body, expected) in rows {
            let members = api.carries.members(Some(content_type), body.as_bytes());
            let model = members.map(|members| members.read::<String>("model"));
            match (model, expected) {
                (Ok(model), Ok(expected)) => assert_eq!(model.as_deref(), expected, "{api:?}"),
                (Err(error), Err(words)) => assert!(error.message.starts_with(words), "{}", error.message),
                (found, _) => panic!("{api:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn an_api_version_comes_from_the_query() {
        let found = find("POST", "/openai/deployments/d/chat/completions?api-version=2024-02-01&x").unwrap();
        let Action::Call { api_version, .. } = found else { panic!("{found:?}") };
        assert_eq!(api_version.as_deref(), Some("2024-02-01"));
    }
}
