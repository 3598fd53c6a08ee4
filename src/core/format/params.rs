//! Parameters that a model does not take, or a format has no words for: dropped or refused, as `drop_params` says; and the few that
//! every format knows under another name.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::core::{
    codec::{
        json::{MOST_VALUES, Object},
        scan,
        value::{self, object},
    },
    error::{Error, RequestFault},
    format::Context,
    model::{accepts::Accepts, params::Params},
};

/// What is taken of a request's parameters, and what becomes of the others.
#[derive(Clone, Copy, Debug)]
pub struct Taking<'a> {
    /// What the model takes.
    pub accepts: Accepts,
    /// The brand's name in messages.
    pub brand: &'a str,
    /// The model's name in messages.
    pub model: &'a str,
    /// The others are dropped instead of refused.
    pub drop_params: bool,
    /// `allowed_openai_params`: they are sent all the same.
    pub allowed: &'a [String],
}

impl<'a> Taking<'a> {
    /// For a request that is translated.
    pub fn of(context: &Context<'a>) -> Taking<'a> {
        Taking {
            accepts: context.accepts,
            brand: context.brand,
            model: context.model,
            drop_params: context.drop_params,
            allowed: context.allowed_params,
        }
    }

    /// Whether a parameter may be sent although it is not known to be taken.
    pub fn is_allowed(&self, name: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed == name)
    }

    /// The parameters of `given` that are not taken.
    fn outside(&self, given: Params) -> Params {
        let outside = given.without(self.accepts.chat | UNCHECKED);
        if outside.is_empty() {
            outside
        } else {
            outside.without(given_by(self.allowed.iter().map(String::as_str)))
        }
    }

    /// Refuses parameters, unless they are dropped.
    fn refuse(&self, refused: &[&str]) -> Result<(), Error> {
        if refused.is_empty() || self.drop_params {
            return Ok(());
        }
        Err(unsupported(refused, self.brand, self.model))
    }

    /// Refuses the value of a parameter in words of its own; with `drop_params` it is to be dropped.
    pub fn refuse_value(&self, why: impl FnOnce() -> String) -> Result<(), Error> {
        if self.drop_params {
            return Ok(());
        }
        let message = format!("litellm.UnsupportedParamsError: {}", why());
        Err(Error::of(RequestFault::UnsupportedParams, message))
    }
}

/// Parameters that no request is refused for: every stream can be asked for, and the gateway heeds the others itself. The last two
/// are none of a chat.
const UNCHECKED: Params = Params::STREAM
    .and(Params::STREAM_OPTIONS)
    .and(Params::MAX_RETRIES)
    .and(Params::EXTRA_HEADERS)
    .and(Params::DIMENSIONS)
    .and(Params::ENCODING_FORMAT);

/// Which of OpenAI's parameters are among `names`.
fn given_by<'n>(names: impl Iterator<Item = &'n str>) -> Params {
    names.fold(Params::NONE, |given, name| given | Params::named(name))
}

/// Takes out of a body what is not taken; what is left of OpenAI's parameters is told. One that says something (see [`is_idle`])
/// is refused unless `drop_params` is on.
pub fn fit(body: &mut Object<'_>, taking: &Taking<'_>) -> Result<Params, Error> {
    let given = given_by(body.iter().map(|(name, _)| name));
    let outside = taking.outside(given);
    if outside.is_empty() {
        return Ok(given);
    }
    let says_something = |name: &&'static str| body.remove(name).is_some_and(|raw| !is_idle(name, &raw));
    let refused: Vec<&str> = outside.names().filter(says_something).collect();
    taking.refuse(&refused).map(|()| given.without(outside))
}

/// [`fit`] for a request that is translated.
pub fn fit_chat(chat: &mut Map<String, Value>, context: &Context<'_>) -> Result<(), Error> {
    let taking = Taking::of(context);
    let outside = taking.outside(given_by(chat.keys().map(String::as_str)));
    if outside.is_empty() {
        return Ok(());
    }
    taking.refuse(&take_out(chat, outside.names()))
}

/// [`fit`] for the parameters that a format has no words for.
pub fn drop_or_refuse(
    body: &mut Map<String, Value>,
    names: &[&str],
    context: &Context<'_>,
) -> Result<(), Error> {
    let taking = Taking::of(context);
    let names = names.iter().copied().filter(|name| !taking.is_allowed(name));
    taking.refuse(&take_out(body, names))
}

/// Takes parameters out of a body; those that say something (see [`is_idle`]) are told.
fn take_out<'n>(body: &mut Map<String, Value>, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let says_something =
        |name: &&str| body.shift_remove(*name).is_some_and(|value| !is_idle(name, &value::to_text(&value)));
    names.filter(says_something).collect()
}

/// The refusal of parameters that a brand does not know, in LiteLLM's words. Every request format refuses them with these.
pub fn unsupported(names: &[&str], brand: &str, model: &str) -> Error {
    let list = names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let message = format!(
        "litellm.UnsupportedParamsError: {brand} does not support parameters: [{list}], for model={model}. {HOW_TO_DROP}. \n \
         If you want to use these params dynamically send allowed_openai_params=[{list}] in your request."
    );
    Error::of(RequestFault::UnsupportedParams, message)
}

/// How LiteLLM says that parameters can be dropped.
pub const HOW_TO_DROP: &str = "To drop these, set `litellm.drop_params=True` or for proxy:\n\n`litellm_settings:\n drop_params: true`\n";

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

/// Whether leaving the parameter out changes nothing, or nothing that is missed: client libraries send such defaults, and `user`
/// is only a label.
pub fn is_idle(name: &str, raw: &str) -> bool {
    let is = |number: f64| raw.parse() == Ok(number);
    match (name, raw) {
        (_, "null" | "\"\"" | "[]") | ("user" | "stream_options" | "encoding_format", _) => true,
        ("parallel_tool_calls", raw) => raw == "true",
        ("web_search_options", _) => false,
        (_, "false" | "{}") => true,
        ("n" | "best_of" | "top_p", _) => is(1.0),
        ("frequency_penalty" | "presence_penalty" | "logprobs" | "top_logprobs", _) => is(0.0),
        ("tool_choice" | "function_call", _) => matches!(raw, "\"auto\"" | "\"none\""),
        ("service_tier", _) => matches!(raw, "\"auto\"" | "\"default\""),
        ("reasoning_effort", _) => matches!(raw, "\"none\"" | "\"disable\""),
        ("modalities", _) => value::read(raw.as_bytes()).is_ok_and(|value| value == Value::from(["text"])),
        ("thinking", _) => says_type(raw, "disabled"),
        ("response_format", _) => says_type(raw, "text"),
        _ => false,
    }
}

fn says_type(raw: &str, name: &str) -> bool {
    Object::parse(raw.as_bytes())
        .is_ok_and(|object| object.read::<Cow<'_, str>>("type").as_deref() == Some(name))
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
