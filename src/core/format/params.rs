//! Parameters that the other format does not have: dropped or refused, as `drop_params` says; and the few that every
//! format knows under another name.

use serde_json::{Map, Value};

use crate::core::{
    codec::{
        json::MOST_VALUES,
        scan,
        value::{self, object},
    },
    error::{Error, RequestFault},
    format::Context,
};

/// Takes `names` out of `body`. One that says something (see [`is_default`]) is refused unless `drop_params` is on or
/// `allowed_openai_params` lists it; a listed one stays.
pub fn drop_or_refuse(
    body: &mut Map<String, Value>,
    names: &[&str],
    context: &Context<'_>,
) -> Result<(), Error> {
    let mut refused = Vec::new();
    for name in names.iter().filter(|name| !context.allowed_params.iter().any(|allowed| allowed == *name)) {
        if body.shift_remove(*name).is_some_and(|value| !is_default(name, &value)) {
            refused.push(*name);
        }
    }
    if refused.is_empty() || context.drop_params {
        Ok(())
    } else {
        Err(unsupported(&refused, context.brand, context.model))
    }
}

/// The refusal of parameters that a brand does not know. Every request format refuses them with these words.
pub fn unsupported(names: &[&str], brand: &str, model: &str) -> Error {
    let list = names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let message = format!(
        "litellm.UnsupportedParamsError: {brand} does not support parameters: [{list}], for model={model}. To drop these, set \
         `litellm_settings.drop_params: true` in the configuration or send `\"drop_params\": true`; to pass them on, list \
         them in `allowed_openai_params`."
    );
    Error::of(RequestFault::UnsupportedParams, message)
}

/// Arguments are texts that hold JSON: what they would be as values is bounded like what stands in the body itself.
pub fn refuse_large_arguments(messages: Option<&Value>) -> Result<(), Error> {
    let messages = messages.and_then(Value::as_array).into_iter().flatten();
    let calls = messages.flat_map(|message| {
        let listed = message.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
        listed.filter_map(|call| call.get("function")).chain(message.get("function_call"))
    });
    let texts = calls.filter_map(|call| call.get("arguments")?.as_str());
    let values = texts.fold(0_usize, |sum, text| sum.saturating_add(scan::values(text)));
    if values <= MOST_VALUES {
        return Ok(());
    }
    let message = format!(
        "the arguments of the tool calls in `messages` hold {values} values: expected at most {MOST_VALUES}. Send fewer."
    );
    Err(Error::of(RequestFault::TooLarge, message).with_param("messages"))
}

/// What must be an object (a tool's input) out of a call's arguments. Text that is none (an answer that was cut off ends within it) is
/// kept under one name: nothing the model said is lost, the tool's own check can tell it, and it goes back as it came.
pub fn arguments_object(arguments: Value) -> Value {
    match arguments {
        Value::Object(object) => Value::Object(object),
        Value::String(text) if !matches!(text.trim(), "" | "null") => {
            match value::read_exact(text.as_bytes()) {
                Ok(Value::Object(object)) => Value::Object(object),
                _ => object! {"arguments": text},
            }
        }
        _ => object! {},
    }
}

/// Takes the limit on the response's length: `max_completion_tokens` wins over `max_tokens`.
pub fn take_max_tokens(body: &mut Map<String, Value>) -> Option<Value> {
    let older = body.shift_remove("max_tokens");
    let newer = body.shift_remove("max_completion_tokens");
    newer.filter(|value| !value.is_null()).or(older.filter(|value| !value.is_null()))
}

/// Whether the client wants the usage chunk at the end of the stream it asks for.
pub fn wants_usage(body: &Map<String, Value>) -> bool {
    let is_true = |value: Option<&Value>| value.and_then(Value::as_bool) == Some(true);
    is_true(body.get("stream"))
        && is_true(body.get("stream_options").and_then(|options| options.get("include_usage")))
}

/// The model to ask for: the deployment's, else the request's own.
pub fn model(body: &mut Map<String, Value>, context: &Context<'_>) -> Value {
    let asked = body.shift_remove("model");
    if context.model.is_empty() { asked.unwrap_or_default() } else { Value::from(context.model) }
}

/// Whether leaving the parameter out changes nothing.
fn is_default(name: &str, value: &Value) -> bool {
    if let Some(number) = value::digits(value) {
        return number.parse() == Ok(if matches!(name, "n" | "best_of") { 1.0 } else { 0.0 });
    }
    match (name, value) {
        ("tool_choice" | "function_call", Value::String(choice)) => choice == "none" || choice == "auto",
        ("parallel_tool_calls", Value::Bool(_)) => true,
        ("response_format", Value::Object(format)) => {
            format.get("type").and_then(Value::as_str) == Some("text")
        }
        ("n" | "best_of", Value::Number(count)) => count.as_u64() == Some(1),
        (_, Value::Null) => true,
        (_, Value::Bool(on)) => !on,
        (_, Value::Number(number)) => number.as_f64() == Some(0.0),
        (_, Value::String(text)) => text.is_empty(),
        (_, Value::Array(list)) => list.is_empty(),
        (_, Value::Object(object)) => object.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NAMES: [&str; 5] = ["n", "echo", "suffix", "tool_choice", "logprobs"];

    fn run(body: Value, context: &Context<'_>) -> Result<Value, Error> {
        let mut body = body.as_object().unwrap().clone();
        drop_or_refuse(&mut body, &NAMES, context).map(|()| Value::Object(body))
    }

    #[test]
    fn what_says_nothing_goes_and_what_says_something_is_refused() {
        let options = Context { model: "m", brand: "acme", ..Context::default() };
        let body =
            json!({"n": 1, "echo": false, "suffix": "", "tool_choice": "auto", "logprobs": null, "x": 1});
        assert_eq!(run(body, &options), Ok(json!({"x": 1})));

        let error = run(json!({"n": 2, "echo": true}), &options).unwrap_err();
        assert_eq!(
            (error.status(), error.class()),
            (400, Some(crate::core::model::failure::Class::UnsupportedParams))
        );
        assert!(error.message.contains("acme does not support parameters: ['n', 'echo'], for model=m"));
    }

    #[test]
    fn drop_params_drops_and_allowed_params_stay() {
        let body = json!({"n": 2, "echo": true, "x": 1});
        let dropping = Context { drop_params: true, ..Context::default() };
        assert_eq!(run(body.clone(), &dropping), Ok(json!({"x": 1})));
        let allowed = ["n".to_owned(), "echo".to_owned()];
        assert_eq!(run(body.clone(), &Context { allowed_params: &allowed, ..Context::default() }), Ok(body));
    }

    #[test]
    fn the_newer_limit_wins() {
        for (body, wanted) in [
            (json!({"max_tokens": 5, "max_completion_tokens": 7}), Some(json!(7))),
            (json!({"max_tokens": 5, "max_completion_tokens": null}), Some(json!(5))),
            (json!({"max_tokens": null}), None),
            (json!({}), None),
        ] {
            assert_eq!(take_max_tokens(&mut body.as_object().unwrap().clone()), wanted, "{body}");
        }
    }
}
