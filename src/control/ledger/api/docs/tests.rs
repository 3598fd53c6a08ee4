//! The OpenAPI document is sound, complete and the one that is committed; the page works on its own.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;

use super::openapi::document;
use crate::{
    control::ledger::{
        api,
        route::Access,
        testing::{MASTER, on_each},
    },
    core::operation::{managed, path},
};

/// The committed document.
const COMMITTED: &str = "tests/fixtures/openapi.json";
/// Rewrites it.
const BLESS: &str = "TOLLGATE_BLESS";

/// Every operation: path, method, operation.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object()
                .unwrap()
                .iter()
                .map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
        .collect()
}

/// Shows every value in a value.
fn walk<'v>(value: &'v Value, see: &mut impl FnMut(&'v Value)) {
    see(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, see)),
        Value::Object(members) => members.values().for_each(|member| walk(member, see)),
        _ => {}
    }
}

#[test]
fn the_document_is_sound() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(document["info"]["title"].is_string());
    let mut references = 0;
    walk(&document, &mut |value| {
        if let Some(reference) = value.get("$ref") {
            let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
            references += 1;
        }
        // Types are those of JSON Schema.
        for kind in value.get("type").into_iter().flat_map(|kind| match kind {
            Value::Array(kinds) => kinds.iter().collect(),
            Value::String(_) => vec![kind],
            _ => vec![],
        }) {
            let known = ["string", "integer", "number", "boolean", "array", "object", "null", "http"];
            assert!(known.contains(&kind.as_str().unwrap()), "{value}");
        }
    });
    assert!(references > 100, "{references}");
    let tags: Vec<&str> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    assert_eq!(tags.iter().collect::<BTreeSet<_>>().len(), tags.len(), "{tags:?}");
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    for security in document["security"].as_array().unwrap() {
        assert!(security.as_object().unwrap().keys().all(|name| schemes.contains_key(name)));
    }
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let what = format!("{method} {path}");
        assert!(path.starts_with('/'), "{what}");
        assert!(["get", "post", "put", "patch", "delete"].contains(&method), "{what}");
        let id = operation["operationId"].as_str().unwrap();
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{what}: {id}");
        assert!(ids.insert(id.to_owned()), "{what}: {id} is there twice");
        assert!(operation["summary"].as_str().unwrap().ends_with('.'), "{what}");
        for tag in operation["tags"].as_array().unwrap() {
            assert!(tags.contains(&tag.as_str().unwrap()), "{what}: {tag}");
        }
        // Parameters: those of the path and no others in it, no name twice, each with a schema.
        let none = Vec::new();
        let parameters = operation["parameters"].as_array().unwrap_or(&none);
        let mut names = BTreeSet::new();
        for parameter in parameters {
            let (name, place) = (parameter["name"].as_str().unwrap(), parameter["in"].as_str().unwrap());
            assert!(names.insert((place, name)), "{what}: {name} is there twice");
            assert!(parameter["schema"].is_object(), "{what}: {name}");
            assert!(["path", "query"].contains(&place), "{what}: {name}");
            assert!(place == "query" || parameter["required"] == true, "{what}: {name}");
        }
        let declared: BTreeSet<&str> =
            names.iter().filter(|(place, _)| *place == "path").map(|(_, name)| *name).collect();
        let wanted: BTreeSet<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(declared, wanted, "{what}");
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(matches!(status.parse(), Ok(200..=599)) && response["description"].is_string(), "{what}");
        }
        assert!(operation["responses"]["200"]["content"].as_object().unwrap().len() == 1, "{what}");
        // What must be in a body is among its members.
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        for name in schema["required"].as_array().into_iter().flatten() {
            assert!(schema["properties"].get(name.as_str().unwrap()).is_some(), "{what}: {name}");
        }
        assert!(method != "get" || operation.get("requestBody").is_none(), "{what}");
    }
}

#[test]
fn every_route_is_in_the_document() {
    let document = document();
    for route in api::routes() {
        for path in route.paths {
            let operation = &document["paths"][*path][route.method.to_ascii_lowercase()];
            let what = format!("{} {path}", route.method);
            assert_eq!(operation["tags"][0], route.tag, "{what}");
            assert_eq!(operation["summary"], route.summary, "{what}");
            let is_public = operation.get("security").is_some_and(|list| list.as_array().unwrap().is_empty());
            assert_eq!(is_public, route.access == Access::Public, "{what}");
            let query =
                operation["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "query");
            let listed: Vec<&str> = query.map(|parameter| parameter["name"].as_str().unwrap()).collect();
            assert_eq!(listed, route.query.iter().map(|field| field.name).collect::<Vec<_>>(), "{what}");
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let members: Vec<&str> = schema["properties"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name.as_str())
                .collect();
            let mut wanted: Vec<&str> = Vec::new();
            for field in route.body {
                if !wanted.contains(&field.name) {
                    wanted.push(field.name);
                }
            }
            assert_eq!(members, wanted, "{what}");
        }
    }
    for (path, method) in path::routes() {
        assert!(document["paths"][&path][method.to_ascii_lowercase()].is_object(), "{method} {path}");
    }
    // And nothing that is not served.
    for (path, method, _) in operations(&document) {
        let method = method.to_ascii_uppercase();
        let is_managed = api::routes().any(|route| route.method == method && route.paths.contains(&path));
        let is_filtered = path::routes().iter().any(|(known, by)| known == path && *by == method);
        assert!(is_managed || is_filtered, "{method} {path}");
    }
}

#[test]
fn the_list_of_routes_has_every_path_of_the_document() {
    let own = path::routes();
    let own = own.iter().map(|(path, method)| (path.clone(), *method));
    let managed =
        managed::ROUTES.iter().flat_map(|(path, methods)| methods.iter().map(|by| ((*path).to_owned(), *by)));
    let listed: BTreeSet<(String, String)> =
        own.chain(managed).map(|(path, by)| (path, by.to_lowercase())).collect();
    let document = document();
    let told =
        operations(&document).into_iter().map(|(path, by, _)| (path.to_owned(), by.to_owned())).collect();
    assert_eq!(listed, told);
}

#[test]
fn what_litellm_has_and_is_not_served_says_so_below_the_management_api_too() {
    on_each("", |ledger| async move {
        for (method, path, told) in [
            (
                "GET",
                "/team/available",
                "Not Found: Tollgate does not serve `GET /team/available` yet. LiteLLM has this route",
            ),
            ("POST", "/key/bulk_update", "Not Found: Tollgate does not serve `POST /key/bulk_update` yet."),
            (
                "POST",
                "/key/genrate",
                "Not Found: no route `POST /key/genrate`. Did you mean `/key/generate`?",
            ),
            ("GET", "/team", "Not Found: no route `GET /team`. GET /routes lists every path."),
        ] {
            let (status, _, answer) = ledger.call(method, path, Some(MASTER), None).await;
            let message = answer["error"]["message"].as_str().unwrap_or_default();
            assert!(status == 404 && message.starts_with(told), "{status} {answer}");
        }
    });
}

#[test]
fn no_two_routes_share_a_path() {
    let mut seen = BTreeSet::new();
    for route in api::routes() {
        for path in route.paths {
            assert!(seen.insert((route.method, *path)), "{} {path}", route.method);
        }
    }
}

#[test]
fn the_committed_document_is_this_one() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(COMMITTED);
    let mut document = document();
    if std::env::var_os(BLESS).is_some() {
        let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
        std::fs::write(&file, text).unwrap();
    }
    let hint = format!("run `{BLESS}=1 cargo test the_committed_document` and look at what changed");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|why| panic!("{COMMITTED}: {why}: {hint}"));
    let mut committed: Value =
        serde_json::from_str(&text).unwrap_or_else(|why| panic!("{COMMITTED}: {why}: {hint}"));
    // A new version alone changes nothing for clients.
    for document in [&mut document, &mut committed] {
        document["info"]["version"] = Value::Null;
    }
    let (ours, theirs) = (operations(&document), operations(&committed));
    for operation in &ours {
        assert!(
            theirs.contains(operation),
            "{} {} is not as in {COMMITTED}: {hint}",
            operation.1,
            operation.0
        );
    }
    for operation in &theirs {
        assert!(ours.contains(operation), "{} {} is only in {COMMITTED}: {hint}", operation.1, operation.0);
    }
    assert!(document == committed, "{COMMITTED} is not what is served: {hint}");
}

#[test]
fn documents_and_page_are_served_without_a_key() {
    on_each("", |ledger| async move {
        for (path, content_type) in [
            ("/", "text/html; charset=utf-8"),
            ("/docs", "text/html; charset=utf-8"),
            ("/docs/", "text/html; charset=utf-8"),
            ("/redoc", "text/html; charset=utf-8"),
            ("/docs/page.css", "text/css; charset=utf-8"),
            ("/docs/page.js", "text/javascript; charset=utf-8"),
            ("/openapi.json", "application/json"),
        ] {
            for key in [None, Some("sk-unknown-key")] {
                let (status, headers, _) = ledger.call("GET", path, key, None).await;
                assert_eq!(
                    (status, &headers["content-type"].to_str().unwrap()),
                    (200, &content_type),
                    "{path}"
                );
            }
            assert_eq!(ledger.call("POST", path, None, None).await.0, 405, "{path}");
        }
        let (_, _, answer) = ledger.call("GET", "/openapi.json", None, None).await;
        assert_eq!(answer, document());
        assert_eq!(ledger.call("GET", "/docs/other.js", None, None).await.0, 404);
    });
}

#[test]
fn a_browser_is_told_what_it_may_do_with_every_answer() {
    on_each("", |ledger| async move {
        for (method, path, key, is_page) in [
            ("GET", "/", None, true),
            ("GET", "/docs", None, true),
            ("GET", "/docs/page.js", None, false),
            ("GET", "/docs/page.css", None, false),
            ("GET", "/openapi.json", None, false),
            ("GET", "/key/list", Some(MASTER), false),
            ("GET", "/key/list", None, false),
            ("GET", "/nowhere", None, false),
            ("POST", "/", None, false),
            ("POST", "/team/new", Some(MASTER), false),
        ] {
            let (_, headers, _) = ledger.call(method, path, key, None).await;
            let header =
                |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none");
            assert_eq!(header("x-content-type-options"), "nosniff", "{method} {path}");
            assert_eq!(header("x-frame-options"), "DENY", "{method} {path}");
            assert_eq!(header("referrer-policy"), "no-referrer", "{method} {path}");
            let policy = header("content-security-policy");
            assert!(
                policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
                "{path}"
            );
            assert_eq!(policy.contains("script-src 'self'"), is_page, "{method} {path}: {policy}");
            assert!(!policy.contains("unsafe"), "{method} {path}: {policy}");
        }
    });
}

#[test]
fn every_refusal_has_its_shape() {
    let document = document();
    for (path, method, operation) in operations(&document) {
        let responses = operation["responses"].as_object().unwrap();
        let needs_key = operation["security"] != serde_json::json!([]);
        for status in ["401", "403", "503"] {
            assert!(!needs_key || responses.contains_key(status), "{method} {path}: {status}");
        }
        if path.contains('{') {
            assert!(responses.contains_key("404"), "{method} {path}");
        }
        for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
            let schema = &response["content"]["application/json"]["schema"]["$ref"];
            assert!(schema.is_string(), "{method} {path} {status}");
        }
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let (html, css, js) = (
        include_str!("../../page/page.html"),
        include_str!("../../page/page.css"),
        include_str!("../../page/page.js"),
    );
    for (name, text) in [("html", html), ("css", css), ("js", js)] {
        for elsewhere in ["http:", "https:", "//cdn", "\"//", "'//", "@import", "url("] {
            assert!(!text.contains(elsewhere), "{name} has {elsewhere}");
        }
    }
    // Whatever it links to is served here.
    let links = html.split(['"', '\'']).filter(|text| text.starts_with('/'));
    let fetched = js.split(['"', '\'', '`']).filter(|text| text.starts_with('/') && text.ends_with(".json"));
    let mut count = 0;
    for link in links.chain(fetched) {
        assert!(api::routes().any(|route| route.paths.contains(&link)), "{link}");
        count += 1;
    }
    assert!(count >= 4, "{count}");
    // Neither script nor style stands in the HTML, and its policy forbids both.
    assert!(html.contains("default-src 'none'") && !html.contains("unsafe-inline"));
    assert!(!html.contains("<style") && !html.contains("style=") && !html.contains("onclick"));
    assert_eq!(html.matches("<script src=").count(), html.matches("<script").count());
    // A document is shown as text, never as markup.
    assert!(!js.contains("innerHTML") && !js.contains("insertAdjacentHTML") && !js.contains("eval("));
}

#[test]
fn every_refusal_is_stated() {
    let document = document();
    for (path, method, statuses) in [
        ("/health/services", "get", &["400", "422", "502"][..]),
        ("/health/readiness", "get", &["503"]),
        ("/v1/models", "get", &["400", "401", "403", "422", "503"]),
        ("/team/member_update", "post", &["400", "401", "403", "404", "413", "422", "503"]),
    ] {
        for status in statuses {
            let response = &document["paths"][path][method]["responses"][status];
            assert!(response.is_object(), "{method} {path} {status}");
        }
    }
}
