//! What a management route is: one table drives dispatch, the check of bodies and queries, and the OpenAPI document.

use std::{future::Future, pin::Pin, sync::Arc};

use serde_json::{Map, Value, json};

use super::{App, caller::Caller, problem::Problem};

/// One operation.
pub struct Route {
    /// `GET`, `POST`, `PATCH`, `DELETE`.
    pub method: &'static str,
    /// Paths that lead to it; parts in braces vary. The first is the documented one.
    pub paths: &'static [&'static str],
    /// Chapter of the documentation.
    pub tag: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Who may call.
    pub access: Access,
    /// Query parameters.
    pub query: &'static [Field],
    /// Members of the JSON body; none of a route without a body.
    pub body: &'static [Field],
    /// What does it.
    pub handler: Handler,
}

/// Runs a call.
pub type Handler = fn(Call) -> Pin<Box<dyn Future<Output = Result<Answer, Problem>> + Send>>;

/// Who may call a route. The rules inside the handlers only make it narrower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, without a key.
    Public,
    /// Any valid key; whose records it sees is the handler's business.
    AnyKey,
    /// Internal users and above: handlers of key management.
    InternalUser,
    /// Admins, and viewers (for reading).
    Viewer,
    /// Admins.
    Admin,
}

/// A member of a body or a query.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// Refused without it.
    pub required: bool,
    /// One line.
    pub about: &'static str,
}

impl Field {
    /// A member that may be left out.
    pub const fn new(name: &'static str, kind: Type, about: &'static str) -> Field {
        Field { name, kind, required: false, about }
    }

    /// A member that must be there.
    pub const fn required(name: &'static str, kind: Type, about: &'static str) -> Field {
        Field { name, kind, required: true, about }
    }
}

/// JSON types of members. `null` counts as left out, everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Text.
    Text,
    /// A whole number.
    Int,
    /// A number of dollars, not negative.
    Money,
    /// True or false.
    Bool,
    /// A list of texts.
    Texts,
    /// A list of anything.
    List,
    /// An object.
    Object,
    /// Anything.
    Any,
}

/// One call, authenticated and checked.
pub struct Call {
    /// The ledger.
    pub app: Arc<App>,
    /// Who calls.
    pub caller: Caller,
    /// The path as called.
    pub path: String,
    /// Values of the path's varying parts, in order.
    pub parts: Vec<String>,
    /// Query parameters, checked; numbers and booleans are such.
    pub query: Map<String, Value>,
    /// The body's members, checked; those that are `null` stay in, so that a handler can tell "unset" from "not sent".
    pub body: Map<String, Value>,
    /// Unix milliseconds.
    pub now_ms: i64,
}

impl Call {
    /// Text of a member of the body; empty text is none.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// Text of a query parameter; empty text is none.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// A whole number in the query.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.query.get(name).and_then(Value::as_i64)
    }

    /// A truth in the query.
    pub fn flag(&self, name: &str) -> bool {
        self.query.get(name).and_then(Value::as_bool).unwrap_or(false)
    }
}

/// What a call answers.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Type of the body.
    pub content_type: &'static str,
    /// Body.
    pub body: Vec<u8>,
    /// Meters whose records changed (see [`Tx::commit`](super::db::Tx::commit)).
    pub changed: Vec<String>,
}

impl Answer {
    /// 200 with JSON.
    pub fn json(value: &Value) -> Answer {
        Answer {
            status: 200,
            content_type: "application/json",
            body: value.to_string().into_bytes(),
            changed: Vec::new(),
        }
    }

    /// The same after a change.
    pub fn changed(value: &Value, changed: Vec<String>) -> Answer {
        Answer { changed, ..Answer::json(value) }
    }
}

/// Checks the members of a body against its fields. Members that no field names are left alone, as LiteLLM does.
pub fn check_body(fields: &[Field], body: &Value) -> Result<Map<String, Value>, Problem> {
    let Value::Object(members) = body else {
        return Err(Problem::Detail(
            422,
            json!([{"type": "model_attributes_type", "loc": ["body"], "input": body,
                    "msg": "Input should be a valid dictionary or object to extract fields from"}]),
        ));
    };
    for field in fields {
        match members.get(field.name) {
            None | Some(Value::Null) if field.required => {
                return Err(Problem::missing("body", field.name, body));
            }
            None | Some(Value::Null) => {}
            Some(value) => {
                if let Err((kind, message)) = fits(field.kind, value) {
                    return Err(Problem::invalid("body", field.name, kind, message, value));
                }
            }
        }
    }
    Ok(members.clone())
}

/// Reads a query: text becomes what its field says.
pub fn check_query(fields: &[Field], pairs: &[(String, String)]) -> Result<Map<String, Value>, Problem> {
    let mut query = Map::new();
    for field in fields {
        let texts: Vec<&String> =
            pairs.iter().filter(|(name, _)| name == field.name).map(|(_, value)| value).collect();
        let Some(text) = texts.last() else {
            if field.required {
                return Err(Problem::missing("query", field.name, &Value::Null));
            }
            continue;
        };
        let value = match field.kind {
            Type::Int => text.parse::<i64>().ok().map(Value::from).ok_or((
                "int_parsing",
                "Input should be a valid integer, unable to parse string as an integer",
            )),
            Type::Bool => truth(text)
                .map(Value::from)
                .ok_or(("bool_parsing", "Input should be a valid boolean, unable to interpret input")),
            Type::Money => {
                text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from).ok_or((
                    "float_parsing",
                    "Input should be a valid number, unable to parse string as a number",
                ))
            }
            // Given several times, or with commas between them.
            Type::Texts | Type::List => Ok(Value::from(
                texts.iter().flat_map(|text| text.split(',')).map(str::to_owned).collect::<Vec<_>>(),
            )),
            Type::Text | Type::Object | Type::Any => Ok(Value::from((*text).clone())),
        };
        match value {
            Ok(value) => query.insert(field.name.to_owned(), value),
            Err((kind, message)) => {
                return Err(Problem::invalid(
                    "query",
                    field.name,
                    kind,
                    message,
                    &Value::from((*text).clone()),
                ));
            }
        };
    }
    Ok(query)
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Whether a value is of a type; else pydantic's name and text of the error.
fn fits(kind: Type, value: &Value) -> Result<(), (&'static str, &'static str)> {
    let texts = |list: &Vec<Value>| list.iter().all(Value::is_string);
    match kind {
        Type::Any => Ok(()),
        Type::Text if value.is_string() => Ok(()),
        Type::Text => Err(("string_type", "Input should be a valid string")),
        Type::Int if value.as_i64().is_some() || value.as_f64().is_some_and(|n| n.fract() == 0.0) => Ok(()),
        Type::Int => Err(("int_type", "Input should be a valid integer")),
        Type::Money if value.as_f64().is_some_and(|n| n >= 0.0) => Ok(()),
        Type::Money if value.is_number() => {
            Err(("greater_than_equal", "Input should be greater than or equal to 0"))
        }
        Type::Money => Err(("float_type", "Input should be a valid number")),
        Type::Bool if value.is_boolean() => Ok(()),
        Type::Bool => Err(("bool_type", "Input should be a valid boolean")),
        Type::Texts if value.as_array().is_some_and(texts) => Ok(()),
        Type::Texts | Type::List if value.is_array() && kind == Type::List => Ok(()),
        Type::Texts | Type::List => Err(("list_type", "Input should be a valid list")),
        Type::Object if value.is_object() => Ok(()),
        Type::Object => Err(("dict_type", "Input should be a valid dictionary")),
    }
}
