//! The OpenAPI document, made of the tables that dispatch calls: what is not in it is not served.

use serde_json::{Map, Value, json};

use crate::{
    control::ledger::{
        api,
        route::{Access, Field, Route, Type},
    },
    core::operation::path,
};

/// The whole document.
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    let mut tags = vec![CALLS.to_owned()];
    for (path, method) in path::routes() {
        let managed = |route: &Route| route.method == method && route.paths.contains(&path.as_str());
        if !api::routes().any(managed) {
            put(&mut paths, &path, method, model_call(&path, method));
        }
    }
    for route in api::routes() {
        if !tags.iter().any(|tag| tag == route.tag) {
            tags.push(route.tag.to_owned());
        }
        for (at, path) in route.paths.iter().enumerate() {
            put(&mut paths, path, route.method, operation(route, path, at > 0));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tollgate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "An LLM gateway: model calls in the formats of OpenAI and Anthropic, and the management of keys, \
                            users, teams, budgets and spend.",
        },
        "security": [{"key": []}],
        "tags": tags.iter().map(|tag| json!({"name": tag})).collect::<Vec<_>>(),
        "paths": paths,
        "components": components(),
    })
}

fn put(paths: &mut Map<String, Value>, path: &str, method: &str, operation: Value) {
    let item = paths.entry(path).or_insert_with(|| json!({}));
    if let Some(item) = item.as_object_mut() {
        item.insert(method.to_ascii_lowercase(), operation);
    }
}

/// A route of the ledger. Other spellings of its path are there, but marked as such.
fn operation(route: &Route, path: &str, is_alias: bool) -> Value {
    let mut operation = json!({
        "tags": [route.tag],
        "summary": route.summary,
        "operationId": operation_id(route.method, path),
        "responses": responses(produces(path), &refusals(route, path)),
    });
    let Some(map) = operation.as_object_mut() else { return operation };
    let mut description = who(route.access).to_owned();
    if is_alias && let Some(first) = route.paths.first() {
        description.push_str(&format!(" The same as `{first}`."));
    }
    map.insert("description".to_owned(), json!(description));
    let mut parameters = path_parameters(path);
    parameters.extend(route.query.iter().map(query_parameter));
    if !parameters.is_empty() {
        map.insert("parameters".to_owned(), json!(parameters));
    }
    if !route.body.is_empty() {
        let is_required = route.body.iter().any(|field| field.required);
        map.insert(
            "requestBody".to_owned(),
            json!({"required": is_required, "content": {"application/json": {"schema": body(route.body)}}}),
        );
    }
    if route.access == Access::Public {
        map.insert("security".to_owned(), json!([]));
    }
    operation
}

fn who(access: Access) -> &'static str {
    match access {
        Access::Public => "For everybody, without a key.",
        Access::AnyKey => "For every key.",
        Access::InternalUser => "For internal users and admins.",
        Access::Viewer => "For admins, and for those who may see everything.",
        Access::Admin => "For admins.",
    }
}

fn query_parameter(field: &Field) -> Value {
    json!({"name": field.name, "in": "query", "required": field.required, "description": field.about,
           "schema": schema(field.kind)})
}

/// Query parameters of the list of models.
const MODEL_LIST: [Field; 6] = [
    Field::new("return_wildcard_routes", Type::Bool, "Do not list what is known behind wildcards."),
    Field::new("team_id", Type::Text, "The team of the key that asks; others are refused."),
    Field::new("include_model_access_groups", Type::Bool, "List access groups, too."),
    Field::new("only_model_access_groups", Type::Bool, "List access groups alone."),
    Field::new("include_metadata", Type::Bool, "Tell the fallbacks of each model."),
    Field::new("fallback_type", Type::Text, "Which: general, context_window or content_policy."),
];

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect()
}

fn body(fields: &[Field]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|field| {
            let mut schema = schema(field.kind);
            if let Some(map) = schema.as_object_mut() {
                map.insert("description".to_owned(), json!(field.about));
            }
            (field.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = json!({"type": "object", "properties": properties});
    if let Some(map) = schema.as_object_mut().filter(|_| !required.is_empty()) {
        map.insert("required".to_owned(), json!(required));
    }
    schema
}

fn schema(kind: Type) -> Value {
    match kind {
        Type::Text => json!({"type": "string"}),
        Type::Int => json!({"type": "integer"}),
        Type::Money => json!({"type": "number", "minimum": 0}),
        Type::Bool => json!({"type": "boolean"}),
        Type::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Type::List => json!({"type": "array", "items": {}}),
        Type::Object => json!({"type": "object"}),
        Type::Any => json!({}),
    }
}

/// The type of what a path answers.
fn produces(path: &str) -> &'static str {
    match path {
        "/" | "/docs" | "/redoc" => "text/html",
        "/metrics" => "text/plain",
        _ if path.ends_with(".css") => "text/css",
        _ if path.ends_with(".js") => "text/javascript",
        _ => "application/json",
    }
}

/// A refusal that an operation may answer with: its status, what it means, and the shape of its body.
type Refusal = (&'static str, &'static str, &'static str);

const NO_KEY: Refusal = ("401", "The key is missing, unknown or not allowed to do this.", "Error");
const FORBIDDEN: Refusal = ("403", "The caller's role does not allow this.", "Refusal");
const NOT_POSSIBLE: Refusal = ("400", "What is asked for cannot be done.", "Refusal");
const NOT_THERE: Refusal = ("404", "There is no such thing.", "Refusal");
const TAKEN: Refusal = ("409", "There is one of that name already.", "Refusal");
const TOO_LARGE: Refusal = ("413", "The body is too large.", "Refusal");
const NOT_VALID: Refusal =
    ("422", "A member or parameter is missing or of the wrong type.", "ValidationError");
const FAILED: Refusal = ("500", "It could not be done; the reason is in the log.", "Refusal");
const UNAVAILABLE: Refusal = ("503", "The database cannot be reached: try again.", "Error");

const NOT_TOLD: Refusal = ("502", "The test message did not arrive.", "Refusal");
const NOT_READY: Refusal = ("503", "The database cannot be used.", "Refusal");

/// What a route of the ledger may answer instead.
fn refusals(route: &Route, path: &str) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if route.access != Access::Public {
        refusals.extend([NO_KEY, FORBIDDEN, FAILED, UNAVAILABLE]);
    }
    if !route.query.is_empty() || !route.body.is_empty() || path.contains('{') {
        refusals.extend([NOT_POSSIBLE, NOT_THERE, NOT_VALID]);
    }
    if route.method != "GET" {
        refusals.extend([TAKEN, TOO_LARGE]);
    }
    if path == "/health/services" {
        refusals.push(NOT_TOLD);
    }
    refusals
}

fn responses(content: &str, refusals: &[Refusal]) -> Value {
    let mut responses = json!({"200": {"description": "Done.", "content": {content: {"schema": {}}}}});
    let Some(map) = responses.as_object_mut() else { return responses };
    for (status, about, schema) in refusals {
        let content =
            json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}});
        map.insert((*status).to_owned(), json!({"description": about, "content": content}));
    }
    responses
}

/// What a call of a model may answer instead, in the format of its API.
fn call_refusals(path: &str) -> Vec<Refusal> {
    let schema = if path.starts_with("/v1/messages") { "MessagesError" } else { "Error" };
    [
        ("400", "The request is wrong, refused by the model's provider, or over a budget."),
        ("401", "The key is missing, unknown, or may not call this model."),
        ("403", "The provider does not allow this."),
        ("404", "The provider has no such model."),
        ("408", "No answer came in time."),
        ("413", "The body is too large."),
        ("422", "The request is not valid."),
        ("429", "A limit is reached, of the caller or of every deployment."),
        ("500", "The provider failed."),
        ("503", "The provider, or what knows the key, cannot be reached."),
    ]
    .into_iter()
    .map(|(status, about)| (status, about, schema))
    .collect()
}

/// A path that the filter serves itself.
fn model_call(path: &str, method: &str) -> Value {
    let is_call = method == "POST";
    let is_public = path.starts_with("/health") || matches!(path, "/" | "/routes");
    let (summary, tag) = match path {
        _ if path.ends_with("/chat/completions") => ("Answers a chat, whole or as a stream.", CALLS),
        _ if path.ends_with("/completions") => ("Completes a text, whole or as a stream.", CALLS),
        _ if path.ends_with("/embeddings") => ("Makes embeddings.", CALLS),
        _ if path.ends_with("/messages") => ("Answers Anthropic messages, whole or as a stream.", CALLS),
        _ if path.ends_with("/count_tokens") => {
            ("Counts the tokens of Anthropic messages, for nothing.", CALLS)
        }
        _ if path.ends_with("/models") => ("Lists the models that the caller may call.", "models"),
        _ if path.ends_with("/models/{model}") => ("Describes a model.", "models"),
        _ if path.starts_with("/health/live") => ("Says that the gateway lives.", "health"),
        "/health/readiness" => ("Says whether the gateway can serve.", "health"),
        "/routes" => ("Lists the paths.", "documentation"),
        "/metrics" => ("Answers statistics in Prometheus' format.", "health"),
        _ => ("Answered by the gateway itself.", CALLS),
    };
    let refusals = match is_call {
        true => call_refusals(path),
        false if path == "/health/readiness" => vec![NOT_READY],
        false if is_public => Vec::new(),
        false => vec![NO_KEY, FORBIDDEN, NOT_POSSIBLE, NOT_THERE, NOT_VALID, UNAVAILABLE],
    };
    let mut operation = json!({
        "tags": [tag],
        "summary": summary,
        "operationId": operation_id(method, path),
        "responses": responses(produces(path), &refusals),
    });
    let Some(map) = operation.as_object_mut() else { return operation };
    let mut parameters = path_parameters(path);
    if path.ends_with("/models") {
        parameters.extend(MODEL_LIST.iter().map(query_parameter));
    }
    if !parameters.is_empty() {
        map.insert("parameters".to_owned(), json!(parameters));
    }
    if is_call {
        let schema = match path {
            _ if path.ends_with("/chat/completions") => "ChatRequest",
            _ if path.ends_with("/completions") => "CompletionRequest",
            _ if path.ends_with("/embeddings") => "EmbeddingRequest",
            _ if path.ends_with("/count_tokens") => "CountTokensRequest",
            _ => "MessagesRequest",
        };
        let schema = json!({"$ref": format!("#/components/schemas/{schema}")});
        map.insert(
            "requestBody".to_owned(),
            json!({"required": true, "content": {"application/json": {"schema": schema}}}),
        );
    }
    if is_public {
        map.insert("security".to_owned(), json!([]));
    }
    operation
}

const CALLS: &str = "model calls";

/// `post_v1_chat_completions`: from method and path, so it is unique as they are.
fn operation_id(method: &str, path: &str) -> String {
    let mut id = method.to_ascii_lowercase();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        id.push('_');
        id.extend(part.chars().filter_map(|c| match c {
            '{' | '}' => None,
            c if c.is_ascii_alphanumeric() => Some(c),
            _ => Some('_'),
        }));
    }
    if path == "/" { format!("{id}_root") } else { id }
}

fn components() -> Value {
    let text = || json!({"type": "string"});
    let stream = || json!({"type": "boolean", "description": "Answer as a stream of events."});
    // Members that are not listed pass to the provider as they are.
    let request = |properties: Value, required: &[&str]| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": true});
    let messages = || json!({"type": "array", "items": {"type": "object", "properties": {"role": text(), "content": {}}}});
    json!({
        "securitySchemes": {
            "key": {"type": "http", "scheme": "bearer", "description": "The master key or a virtual key: `Bearer sk-…`."},
        },
        "schemas": {
            "Error": {
                "type": "object",
                "required": ["error"],
                "properties": {"error": {
                    "type": "object",
                    "required": ["message", "type", "param", "code"],
                    "properties": {
                        "message": text(),
                        "type": {"type": ["string", "null"]},
                        "param": {"type": ["string", "null"]},
                        "code": {"type": "string", "description": "The HTTP status, as text."},
                    },
                }},
            },
            "ValidationError": {
                "type": "object",
                "required": ["detail"],
                "properties": {"detail": {"type": "array", "items": {
                    "type": "object",
                    "required": ["type", "loc", "msg"],
                    "properties": {
                        "type": text(),
                        "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                        "msg": text(),
                        "input": {},
                    },
                }}},
            },
            "MessagesError": {
                "type": "object",
                "required": ["type", "error", "request_id"],
                "properties": {
                    "type": {"const": "error"},
                    "error": {
                        "type": "object",
                        "required": ["type", "message"],
                        "properties": {"type": text(), "message": text(), "details": {"type": "object"}},
                    },
                    "request_id": text(),
                },
            },
            // LiteLLM has both shapes, and which one a path answers with is its own.
            "Refusal": {
                "anyOf": [
                    {"$ref": "#/components/schemas/Error"},
                    {
                        "type": "object",
                        "required": ["detail"],
                        "properties": {"detail": {"type": ["string", "object", "array"]}},
                    },
                ],
            },
            "ChatRequest": request(
                json!({"model": text(), "messages": messages(), "stream": stream(), "temperature": {"type": "number"},
                       "max_tokens": {"type": "integer"}, "tools": {"type": "array", "items": {"type": "object"}},
                       "user": text()}),
                &["messages"],
            ),
            "CompletionRequest": request(
                json!({"model": text(), "prompt": {}, "stream": stream(), "max_tokens": {"type": "integer"}, "user": text()}),
                &["prompt"],
            ),
            "EmbeddingRequest": request(json!({"model": text(), "input": {}, "user": text()}), &["input"]),
            "MessagesRequest": request(
                json!({"model": text(), "max_tokens": {"type": "integer"}, "messages": messages(), "system": {},
                       "stream": stream()}),
                &["max_tokens", "messages"],
            ),
            "CountTokensRequest": request(
                json!({"model": text(), "messages": messages(), "system": {},
                       "tools": {"type": "array", "items": {"type": "object"}}}),
                &["messages"],
            ),
        },
    })
}
