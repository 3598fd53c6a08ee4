//! What a management route is: one table drives dispatch, the check of bodies and queries, and the OpenAPI document.

use std::{future::Future, pin::Pin, sync::Arc};

use serde_json::{Map, Value, json};

use super::{App, caller::Caller, problem::Problem};
pub use crate::core::access::routes::Access;
use crate::core::access::routes::{Area, Right, Route as Judged};

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

impl Route {
    /// The route as it is judged, called by `path`.
    pub fn judged<'r>(&self, path: &'r str) -> Judged<'r> {
        Judged { path, names: self.paths, area: Area::Management, access: self.access }
    }
}

/// Runs a call.
pub type Handler = fn(Call) -> Pin<Box<dyn Future<Output = Result<Answer, Problem>> + Send>>;

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
    /// By what it may.
    pub right: Right,
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
    let mut taken = members.clone();
    for field in fields {
        match members.get(field.name) {
            None | Some(Value::Null) if field.required => {
                return Err(Problem::missing("body", field.name, body));
            }
            None | Some(Value::Null) => {}
            Some(value) => match read(field, value) {
                Ok(None) => {}
                Ok(Some(meant)) => {
                    taken.insert(field.name.to_owned(), meant);
                }
                Err((kind, message)) => {
                    return Err(Problem::invalid("body", field.name, kind, message, value));
                }
            },
        }
    }
    Ok(taken)
}

/// Filters of LiteLLM's lists that are not applied here, by the first path of a route. Whoever sends one would take all that is
/// listed for what he asked for.
const NOT_APPLIED: &[(&str, &[&str])] = &[
    ("/key/list", &["status", "project_id", "access_group_id", "include_created_by_keys", "agent_id"]),
    ("/key/aliases", &["status", "project_id"]),
    ("/user/list", &["organization_ids", "status"]),
    ("/team/list", &["status"]),
    ("/v2/team/list", &["status"]),
    ("/v2/model/info", &["teamId", "user_models_only"]),
    ("/user/daily/activity", &["team_ids", "tags"]),
    ("/spend/logs", &["error_code", "error_message", "key_alias"]),
];

/// Refuses a filter that is known and not applied.
pub fn applied(route: &Route, pairs: &[(String, String)]) -> Result<(), Problem> {
    let names =
        NOT_APPLIED.iter().find(|(path, _)| route.paths.contains(path)).map_or(&[][..], |(_, names)| names);
    let sent = pairs.iter().find(|(name, value)| {
        names.contains(&name.as_str()) && !value.is_empty() && truth(value) != Some(false)
    });
    match sent {
        None => Ok(()),
        Some((name, _)) => Err(Problem::bad_request(
            name,
            format!(
                "`{name}`: this filter is not applied yet, so the list would have what it is to leave out. Leave it out."
            ),
        )),
    }
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
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "t" | "y" => Some(true),
        "false" | "0" | "no" | "off" | "f" | "n" => Some(false),
        _ => None,
    }
}

/// Reads a member as pydantic's lax mode does: numbers and truths may be written as text, as forms and Terraform send them.
/// None: it is what its field says already. The error is pydantic's name and text.
fn read(field: &Field, value: &Value) -> Result<Option<Value>, (&'static str, &'static str)> {
    let fits = |fits: bool, error: (&'static str, &'static str)| if fits { Ok(None) } else { Err(error) };
    match field.kind {
        Type::Any => Ok(None),
        Type::Text => fits(value.is_string(), ("string_type", "Input should be a valid string")),
        Type::Int => whole(value),
        Type::Money => money(value),
        Type::Bool => flag(value),
        Type::Texts => {
            fits(value.is_array(), LIST)?;
            let texts = value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
            fits(texts, ("string_type", "Input should be a valid string"))
        }
        Type::List => {
            fits(value.is_array(), LIST)?;
            Ok(side_by_side(field.name, value))
        }
        Type::Object => {
            fits(value.is_object(), ("dict_type", "Input should be a valid dictionary"))?;
            Ok(by_model(field.name, value))
        }
    }
}

const LIST: (&str, &str) = ("list_type", "Input should be a valid list");

fn whole(value: &Value) -> Result<Option<Value>, (&'static str, &'static str)> {
    match value {
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(None),
        Value::Number(number) if number.as_f64().is_some_and(|number| number.fract() == 0.0) => Ok(None),
        Value::Number(_) => {
            Err(("int_from_float", "Input should be a valid integer, got a number with a fractional part"))
        }
        Value::Bool(bit) => Ok(Some(Value::from(i64::from(*bit)))),
        Value::String(text) => number_of(text)
            .filter(|number| number.as_f64().is_some_and(|number| number.fract() == 0.0))
            .map(Some)
            .ok_or(("int_parsing", "Input should be a valid integer, unable to parse string as an integer")),
        _ => Err(("int_type", "Input should be a valid integer")),
    }
}

fn money(value: &Value) -> Result<Option<Value>, (&'static str, &'static str)> {
    let meant = match value {
        Value::Number(_) => None,
        Value::Bool(bit) => Some(Value::from(i64::from(*bit))),
        Value::String(text) => Some(number_of(text).ok_or((
            "float_parsing",
            "Input should be a valid number, unable to parse string as a number",
        ))?),
        _ => return Err(("float_type", "Input should be a valid number")),
    };
    if meant.as_ref().unwrap_or(value).as_f64().is_some_and(|number| number >= 0.0) {
        return Ok(meant);
    }
    Err(("greater_than_equal", "Input should be greater than or equal to 0"))
}

fn flag(value: &Value) -> Result<Option<Value>, (&'static str, &'static str)> {
    let meant = match value {
        Value::Bool(_) => return Ok(None),
        Value::String(text) => truth(text),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => None,
        },
        _ => return Err(("bool_type", "Input should be a valid boolean")),
    };
    meant
        .map(|bit| Some(Value::from(bit)))
        .ok_or(("bool_parsing", "Input should be a valid boolean, unable to interpret input"))
}

/// A finite number written as text, whole where it is.
fn number_of(text: &str) -> Option<Value> {
    let text = text.trim();
    let text = text.strip_prefix('+').unwrap_or(text);
    if !text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '-' | '.')) {
        return None;
    }
    if let Ok(number) = text.parse::<i64>() {
        return Some(Value::from(number));
    }
    text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from)
}

/// Budgets side by side with nothing in them but what holds: when each starts again is the ledger's to say. None is none.
fn side_by_side(name: &str, value: &Value) -> Option<Value> {
    let list = value.as_array().filter(|_| name == "budget_limits")?;
    if list.is_empty() {
        return Some(Value::Null);
    }
    let only = |item: &Value| match item {
        Value::Object(budget) => {
            let mut budget = budget.clone();
            budget.retain(|name, _| matches!(name.as_str(), "budget_duration" | "max_budget"));
            let amount = budget.get("max_budget");
            let meant = amount.and_then(Value::as_str).and_then(number_of).or_else(|| amount.cloned());
            if let Some(number) = meant.and_then(|meant| meant.as_f64()) {
                budget.insert("max_budget".to_owned(), Value::from(number));
            }
            Value::Object(budget)
        }
        other => other.clone(),
    };
    Some(list.iter().map(only).collect())
}

/// Limits of single models with their numbers written as text: `{"gpt-4o": "10"}`, `{"gpt-4o": {"budget_limit": "1.5"}}`.
fn by_model(name: &str, value: &Value) -> Option<Value> {
    let is_money = match name {
        "model_max_budget" => true,
        "model_rpm_limit" | "model_tpm_limit" => false,
        _ => return None,
    };
    let mut models = value.as_object()?.clone();
    let number = |value: &mut Value| {
        if let Some(meant) = value.as_str().and_then(number_of) {
            *value = meant;
        }
    };
    for limit in models.values_mut() {
        match limit {
            Value::Object(budget) if is_money => {
                let amounts = ["budget_limit", "max_budget"];
                budget
                    .iter_mut()
                    .filter(|(name, _)| amounts.contains(&name.as_str()))
                    .for_each(|(_, v)| number(v));
            }
            limit if !is_money => number(limit),
            _ => {}
        }
    }
    Some(Value::Object(models))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_truths_of_a_body_may_be_written_as_text() {
        const FIELDS: &[Field] = &[
            Field::new("n", Type::Int, ""),
            Field::new("m", Type::Money, ""),
            Field::new("b", Type::Bool, ""),
            Field::new("t", Type::Text, ""),
            Field::new("model_rpm_limit", Type::Object, ""),
            Field::new("model_max_budget", Type::Object, ""),
        ];
        let taken = [
            (json!({"n": "10"}), json!({"n": 10})),
            (json!({"n": " 10.0 "}), json!({"n": 10.0})),
            (json!({"n": true}), json!({"n": 1})),
            (json!({"n": 3.0}), json!({"n": 3.0})),
            (json!({"m": "10"}), json!({"m": 10})),
            (json!({"m": "+0.25"}), json!({"m": 0.25})),
            (json!({"m": "1e1"}), json!({"m": 10.0})),
            (json!({"b": "yes"}), json!({"b": true})),
            (json!({"b": "Off"}), json!({"b": false})),
            (json!({"b": 1}), json!({"b": true})),
            (json!({"n": null, "unknown": "10"}), json!({"n": null, "unknown": "10"})),
            (json!({"model_rpm_limit": {"a": "3", "b": 4}}), json!({"model_rpm_limit": {"a": 3, "b": 4}})),
            (
                json!({"model_max_budget": {"a": {"budget_limit": "1.5", "time_period": "1d"}}}),
                json!({"model_max_budget": {"a": {"budget_limit": 1.5, "time_period": "1d"}}}),
            ),
        ];
        for (body, expected) in taken {
            match check_body(FIELDS, &body) {
                Ok(members) => assert_eq!(Value::Object(members), expected, "{body}"),
                Err(problem) => panic!("{body}: {problem:?}"),
            }
        }
        let refused = [
            (json!({"n": "ten"}), "int_parsing"),
            (json!({"n": "1.5"}), "int_parsing"),
            (json!({"n": 1.5}), "int_from_float"),
            (json!({"n": []}), "int_type"),
            (json!({"n": ""}), "int_parsing"),
            (json!({"m": "nan"}), "float_parsing"),
            (json!({"m": "inf"}), "float_parsing"),
            (json!({"m": "-1"}), "greater_than_equal"),
            (json!({"m": {}}), "float_type"),
            (json!({"b": "maybe"}), "bool_parsing"),
            (json!({"b": 2}), "bool_parsing"),
            (json!({"b": []}), "bool_type"),
            (json!({"t": 10}), "string_type"),
        ];
        for (body, expected) in refused {
            match check_body(FIELDS, &body) {
                Err(Problem::Detail(422, detail)) => assert_eq!(detail[0]["type"], expected, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }
}
