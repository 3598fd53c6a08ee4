//! What a request says to the gateway rather than to the model: retries, fallbacks, timeouts, mocks.
//!
//! LiteLLM takes these as members of the body (and a few headers). They are read here and never reach a provider.

use serde_json::{Map, Value};

use crate::core::{
    codec::json::Object,
    error::{Error, RequestFault},
    headers::Headers,
    model::{
        fallback::{Fallback, Fallbacks},
        general::General,
        terms::Terms,
    },
    route::world::Controls,
};

/// Everything the gateway reads out of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requested {
    /// `model`.
    pub model: Option<String>,
    /// `stream`.
    pub streaming: bool,
    /// Routing.
    pub controls: Controls,
    /// `timeout` or `request_timeout` in milliseconds.
    pub timeout_ms: Option<u64>,
    /// `stream_timeout` in milliseconds.
    pub stream_timeout_ms: Option<u64>,
    /// `mock_response`.
    pub mock_response: Option<Value>,
    /// `mock_timeout`.
    pub mock_timeout: bool,
    /// `mock_testing_*`: the error to raise before the first group is called.
    pub mock_testing: Option<crate::core::model::failure::Class>,
    /// `stream_options.include_usage`.
    pub include_usage: bool,
    /// The end user, out of a header or the body.
    pub end_user: Option<String>,
    /// `x-litellm-tags`, `tags`, `metadata.tags`.
    pub tags: Vec<String>,
    /// `litellm_session_id`, or `session_id` in the metadata.
    pub session: Option<String>,
    /// The most tokens that a choice of the answer may have.
    pub max_output: Option<u64>,
    /// What the call is charged by.
    pub terms: Terms,
    /// `n`: choices that the response is to have, at least 1.
    pub choices: u64,
    /// `allowed_model_region` of the end user.
    pub region: Option<String>,
}

impl Requested {
    /// Whether the client wants no provider called at all: then it takes nobody's place at one.
    pub fn is_mock(&self) -> bool {
        self.mock_timeout || self.mock_response.is_some()
    }
}

/// Headers that name the end user whatever the configuration says, in the order in which they are asked.
pub(super) const END_USER_HEADERS: [&str; 2] = ["x-litellm-customer-id", "x-litellm-end-user-id"];
/// Of an end user's id no more counts than this: it becomes a name in tables.
const MAX_ID_BYTES: usize = 512;
/// A longer name is no model's. What matches a wildcard goes into the record of the call: one of megabytes would be more than
/// the ledger takes.
pub(super) const MAX_MODEL_BYTES: usize = 1_024;
/// A request gets no more retries by asking for them, unless `max_client_retries` says otherwise: each may wait for a minute.
const MOST_RETRIES: u32 = 10;
/// Further tags of a request do not count: all of them go into the record of the call, and each is compared with the others.
const MAX_TAGS: usize = 100;

/// Reads a request.
pub fn read(body: &Object<'_>, headers: &Headers, general: &General) -> Result<Requested, Error> {
    use crate::core::model::failure::Class;

    let mut asked = Requested {
        model: match body.raw("model") {
            None | Some("null") => None,
            Some(_) => Some(body.read::<String>("model").ok_or_else(|| {
                Error::bad_request("`model` must be a string that names a model.").with_param("model")
            })?),
        },
        streaming: match body.raw("stream") {
            None | Some("null" | "false") => false,
            Some("true") => true,
            Some(_) => {
                return Err(Error::bad_request("`stream` must be true or false.").with_param("stream"));
            }
        },
        timeout_ms: milliseconds(body, "timeout")?.or(milliseconds(body, "request_timeout")?),
        stream_timeout_ms: milliseconds(body, "stream_timeout")?,
        terms: Terms::asked(body.raw("service_tier"), body.raw("web_search_options")),
        mock_timeout: flag(body, "mock_timeout"),
        include_usage: body
            .read::<Value>("stream_options")
            .is_some_and(|options| options.get("include_usage") == Some(&Value::Bool(true))),
        ..Requested::default()
    };
    if body.has("mock_response") {
        asked.mock_response = body.read("mock_response");
    }
    asked.mock_testing = [
        ("mock_testing_fallbacks", Class::InternalServer),
        ("mock_testing_context_fallbacks", Class::ContextWindowExceeded),
        ("mock_testing_content_policy_fallbacks", Class::ContentPolicyViolation),
        ("mock_testing_rate_limit_error", Class::RateLimit),
    ]
    .into_iter()
    .find_map(|(name, class)| flag(body, name).then_some(class));
    asked.controls = controls(body)?;
    accounting(&mut asked, body, headers, general);

    if let Some(seconds) = headers.text("x-litellm-timeout") {
        let ms = seconds.parse::<f64>().ok().and_then(from_seconds);
        asked.timeout_ms = asked.timeout_ms.or(Some(ms.ok_or_else(|| {
            Error::bad_request("header `x-litellm-timeout` must be a number of seconds above zero.")
        })?));
    }
    if let Some(retries) = headers.text("x-litellm-num-retries") {
        let retries = retries.parse().map_err(|_| {
            Error::bad_request("header `x-litellm-num-retries` must be a whole number of retries.")
        })?;
        asked.controls.num_retries = asked.controls.num_retries.or(Some(retries));
    }
    let most = general.max_client_retries.unwrap_or(MOST_RETRIES);
    asked.controls.num_retries = asked.controls.num_retries.map(|retries| retries.min(most));
    Ok(asked)
}

/// Refuses a virtual key's wish for a mock where the configuration forbids it.
pub fn refuse_mocks(body: &Object<'_>, general: &General) -> Result<(), Error> {
    let is_mock = |(name, raw): &(&str, &str)| name.starts_with("mock_") && !matches!(*raw, "null" | "false");
    match body.iter().find(is_mock).filter(|_| general.refuse_client_mocks) {
        Some((name, _)) => {
            let name: String = name.chars().take(64).collect();
            let message = format!(
                "`{name}` in a request is not allowed: `tollgate_settings.allow_client_mocks` is false. Leave it out."
            );
            Err(Error::of(RequestFault::Forbidden, message).with_param(name))
        }
        None => Ok(()),
    }
}

/// What accounts go by: end user, tags, session, the answer's greatest length.
fn accounting(asked: &mut Requested, body: &Object<'_>, headers: &Headers, general: &General) {
    let map = |name: &str| body.read::<Map<String, Value>>(name).unwrap_or_default();
    let (own, metadata) = (map("litellm_metadata"), map("metadata"));
    let member = |name: &str| body.has(name).then(|| body.read::<Value>(name)).flatten();
    let header = |name: &str| headers.text(name).map(|value| Value::String(value.to_owned()));
    let headers_of_end_users = END_USER_HEADERS.into_iter().chain(general.user_header.as_deref());
    asked.end_user = headers_of_end_users
        .filter_map(header)
        .find(|value| id(value).is_some())
        .or_else(|| member("user"))
        .or_else(|| own.get("user").cloned())
        .or_else(|| metadata.get("user_id").cloned())
        .or_else(|| member("safety_identifier"))
        .and_then(|value| id(&value));
    asked.session = header("x-litellm-session-id")
        .or_else(|| member("litellm_session_id"))
        .or_else(|| own.get("session_id").or(metadata.get("session_id")).cloned())
        .and_then(|value| id(&value));
    // A list in the body stands in for the header's.
    let listed =
        headers.text("x-litellm-tags").filter(|_| !member("tags").is_some_and(|tags| tags.is_array()));
    let listed = listed.into_iter().flat_map(|list| list.split(','));
    let listed = listed.filter_map(id_text);
    let lists = [member("tags"), own.get("tags").cloned(), metadata.get("tags").cloned()];
    let in_lists = lists.iter().flatten().filter_map(Value::as_array).flatten().filter_map(id);
    for tag in listed.chain(in_lists) {
        if asked.tags.len() < MAX_TAGS && !asked.tags.contains(&tag) {
            asked.tags.push(tag);
        }
    }
    let number = |name: &str| member(name).and_then(|value| value.as_u64());
    let most = number("max_completion_tokens").or_else(|| number("max_tokens"));
    asked.max_output = most;
    asked.choices = number("n").unwrap_or(1).max(1);
}

/// A text or a number as an id; none when it is empty.
fn id(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => id_text(text),
        Value::Number(number) => id_text(&number.to_string()),
        _ => None,
    }
}

fn id_text(text: &str) -> Option<String> {
    let text = text.trim();
    let end = (0..=MAX_ID_BYTES.min(text.len())).rev().find(|&at| text.is_char_boundary(at))?;
    text.get(..end).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The models that a request names as fallbacks.
pub fn fallback_models(controls: &Controls) -> Vec<&str> {
    let tables =
        [&controls.group_fallbacks, &controls.context_window_fallbacks, &controls.content_policy_fallbacks];
    let in_tables = tables.into_iter().flatten().flat_map(|table| table.values().flatten());
    controls.fallbacks.iter().flatten().chain(in_tables).map(|entry| entry.model.as_str()).collect()
}

/// Refuses a request that brings an endpoint or credentials of its own, in its fallbacks too: nobody may have the gateway call
/// any address. An `api_key` alone, where no key is allowed, is left out like all that is meant for the gateway.
pub fn refuse_endpoints(body: &Object<'_>, asked: &Requested, general: &General) -> Result<(), Error> {
    let text = |name: &str| body.read::<Value>(name).filter(|value| !value.is_null());
    refuse_endpoint(&text, general)?;
    let controls = &asked.controls;
    let tables =
        [&controls.group_fallbacks, &controls.context_window_fallbacks, &controls.content_policy_fallbacks];
    let listed = controls.fallbacks.iter().flatten();
    let in_tables = tables.into_iter().flatten().flat_map(|table| table.values().flatten());
    for entry in listed.chain(in_tables) {
        refuse_endpoint(
            &|name| entry.overrides.get(name).filter(|value| !value.is_null()).cloned(),
            general,
        )?;
    }
    Ok(())
}

fn refuse_endpoint(member: &dyn Fn(&str) -> Option<Value>, general: &General) -> Result<(), Error> {
    let endpoint = ["api_base", "base_url"].into_iter().find(|name| member(name).is_some());
    let own_key = member("api_key").is_some_and(|key| key.as_str().is_some_and(|key| !key.is_empty()));
    let allowed = general.allow_client_credentials;
    let name = match endpoint {
        Some(name) if !own_key && !allowed => {
            return Err(Error::auth(format!(
                "Authentication Error, Rejected Request: {name} is not allowed in request body. Enable with \
                 `general_settings::allow_client_side_credentials` on proxy config.yaml."
            )));
        }
        Some(name) => name,
        None if own_key && allowed => "api_key",
        None => return Ok(()),
    };
    let message = format!(
        "`{name}` in a request cannot be used yet: leave it out, and name a model that the gateway is configured for."
    );
    Err(Error::bad_request(message).with_param(name))
}

/// The routing members.
fn controls(body: &Object<'_>) -> Result<Controls, Error> {
    let mut controls = Controls { disable_fallbacks: flag(body, "disable_fallbacks"), ..Controls::default() };
    if body.has("num_retries") {
        controls.num_retries =
            Some(body.read("num_retries").ok_or_else(|| wrong("num_retries", "a whole number"))?);
    }
    if body.has("fallbacks") {
        let list: Vec<Value> = body.read("fallbacks").ok_or_else(|| wrong("fallbacks", "a list"))?;
        // A list of names or of maps with `model` is tried as it stands; maps of another kind are the router's own form.
        if list.iter().all(is_direct) {
            controls.fallbacks = Some(list.iter().filter_map(entry).collect());
        } else {
            controls.group_fallbacks = Some(by_group("fallbacks", &list)?);
        }
    }
    for (name, slot) in [
        ("context_window_fallbacks", &mut controls.context_window_fallbacks),
        ("content_policy_fallbacks", &mut controls.content_policy_fallbacks),
    ] {
        if body.has(name) {
            let list: Vec<Value> = body.read(name).ok_or_else(|| wrong(name, "a list of maps"))?;
            *slot = Some(by_group(name, &list)?);
        }
    }
    Ok(controls)
}

fn is_direct(entry: &Value) -> bool {
    match entry {
        Value::String(_) => true,
        Value::Object(map) => map.get("model").is_some_and(Value::is_string),
        _ => false,
    }
}

/// One thing to try instead, from a name or a map with `model`. What can be no model's name is left out, as is a name that
/// stands for nothing.
fn entry(value: &Value) -> Option<Fallback> {
    let fallback = match value {
        Value::String(model) => Fallback { model: model.clone(), overrides: Map::new() },
        Value::Object(map) => {
            let mut overrides = map.clone();
            let Value::String(model) = overrides.shift_remove("model")? else { return None };
            Fallback { model, overrides }
        }
        _ => return None,
    };
    (fallback.model.len() <= MAX_MODEL_BYTES).then_some(fallback)
}

/// `[{"group": ["a", "b"]}, …]`.
fn by_group(name: &'static str, list: &[Value]) -> Result<Fallbacks, Error> {
    let mut fallbacks = Fallbacks::default();
    for map in list {
        let map = map
            .as_object()
            .ok_or_else(|| wrong(name, "a list of names or of maps from a group to a list"))?;
        for (group, models) in map {
            let models =
                models.as_array().ok_or_else(|| wrong(name, "maps from a group to a list of models"))?;
            fallbacks.insert(group.clone(), models.iter().filter_map(entry).collect());
        }
    }
    Ok(fallbacks)
}

fn flag(body: &Object<'_>, name: &str) -> bool {
    body.raw(name) == Some("true")
}

/// A member in seconds, as milliseconds.
fn milliseconds(body: &Object<'_>, name: &'static str) -> Result<Option<u64>, Error> {
    if !body.has(name) {
        return Ok(None);
    }
    let seconds = match body.read::<Value>(name) {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    match seconds.and_then(from_seconds) {
        Some(ms) => Ok(Some(ms)),
        None => Err(wrong(name, "a number of seconds above zero")),
    }
}

/// Seconds as whole milliseconds, at least one; `None` for what is no positive time.
fn from_seconds(seconds: f64) -> Option<u64> {
    (seconds.is_finite() && seconds > 0.0).then(|| ((seconds * 1_000.0) as u64).max(1))
}

fn wrong(name: &'static str, expected: &str) -> Error {
    Error::bad_request(format!("`{name}` must be {expected}.")).with_param(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &str) -> Result<Requested, Error> {
        read(&Object::parse(body.as_bytes()).unwrap(), &Headers::default(), &General::default())
    }

    #[test]
    fn names_and_maps_of_fallbacks() {
        let direct = asked(r#"{"fallbacks":["a",{"model":"b","temperature":1}]}"#)
            .unwrap()
            .controls
            .fallbacks
            .unwrap();
        assert_eq!(direct.iter().map(|f| f.model.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(direct[1].overrides["temperature"], 1);

        let by_group = asked(r#"{"fallbacks":[{"zephyr-beta":["gpt-3.5-turbo"]}]}"#).unwrap().controls;
        assert_eq!(by_group.fallbacks, None);
        assert_eq!(by_group.group_fallbacks.unwrap()["zephyr-beta"][0].model, "gpt-3.5-turbo");
    }

    #[test]
    fn what_goes_into_records_is_bounded() {
        let tags: Vec<String> = (0..100_000).map(|n| format!("{n} {}", "x".repeat(600))).collect();
        let session = "s".repeat(100_000);
        let body = serde_json::json!({
            "metadata": {"tags": tags, "session_id": session}, "user": session,
            "fallbacks": ["a", "b".repeat(MAX_MODEL_BYTES + 1), {"model": "c".repeat(1 << 20)}],
        });
        let asked = asked(&body.to_string()).unwrap();
        assert_eq!((asked.tags.len(), asked.tags[99].len()), (MAX_TAGS, MAX_ID_BYTES));
        assert_eq!(asked.session.map(|id| id.len()), Some(MAX_ID_BYTES));
        assert_eq!(asked.end_user.map(|id| id.len()), Some(MAX_ID_BYTES));
        assert_eq!(asked.controls.fallbacks.map(|list| list.len()), Some(1));

        let listed: Vec<String> = (0..1_000).map(|n| format!(" {n} , ")).collect();
        let headers = Headers::from_pairs(&[("x-litellm-tags", &listed.concat())]);
        let asked = read(&Object::parse(b"{}").unwrap(), &headers, &General::default()).unwrap();
        assert_eq!((asked.tags.len(), asked.tags[1].as_str()), (MAX_TAGS, "1"));
    }

    #[test]
    fn who_the_end_user_is() {
        // (headers, body, end user)
        type Row<'r> = (&'r [(&'r str, &'r str)], &'r str, Option<&'r str>);
        let body = r#"{"user":"b","litellm_metadata":{"user":"l"},"metadata":{"user_id":"m"}}"#;
        let rows: &[Row] = &[
            (
                &[("x-litellm-customer-id", "c"), ("x-litellm-end-user-id", "e"), ("x-user", "u")],
                body,
                Some("c"),
            ),
            (&[("x-litellm-end-user-id", "e"), ("x-user", "u")], body, Some("e")),
            (&[("x-litellm-customer-id", " "), ("x-user", "u")], body, Some("u")),
            (&[], body, Some("b")),
            (&[], r#"{"litellm_metadata":{"user":"l"},"metadata":{"user_id":"m"}}"#, Some("l")),
            (&[], r#"{"metadata":{"user_id":"m"},"safety_identifier":"s"}"#, Some("m")),
            (&[], r#"{"safety_identifier":"s"}"#, Some("s")),
            (&[], "{}", None),
        ];
        let general = General { user_header: Some("x-user".to_owned()), ..General::default() };
        for (headers, body, expected) in rows {
            let body = Object::parse(body.as_bytes()).unwrap();
            let asked = read(&body, &Headers::from_pairs(headers), &general).unwrap();
            assert_eq!(asked.end_user.as_deref(), *expected, "{headers:?}");
        }
    }

    #[test]
    fn times_come_in_seconds() {
        for (body, ms) in [
            (r#"{"timeout":0.01}"#, 10),
            (r#"{"request_timeout":"10"}"#, 10_000),
            (r#"{"timeout":1}"#, 1_000),
        ] {
            assert_eq!(asked(body).unwrap().timeout_ms, Some(ms), "{body}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for body in [
            r#"{"model":5}"#,
            r#"{"stream":"yes"}"#,
            r#"{"timeout":-1}"#,
            r#"{"timeout":[1]}"#,
            r#"{"num_retries":-1}"#,
            r#"{"fallbacks":{"a":1}}"#,
            r#"{"fallbacks":[3]}"#,
            r#"{"context_window_fallbacks":[{"a":"b"}]}"#,
        ] {
            let error = asked(body).unwrap_err();
            assert_eq!(error.status(), 400, "{body}");
            assert!(error.param.is_some(), "{body}");
        }
    }
}
