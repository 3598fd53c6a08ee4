//! A chat request as an OpenAI text completion request, for providers that only complete text.

use serde_json::{Map, Value};

use crate::core::format::{params, path::Path, template};
use crate::core::{error::Error, format::Context};

/// Chat parameters that a text completion does not have.
const CHAT_ONLY: [&str; 17] = [
    "audio",
    "function_call",
    "functions",
    "modalities",
    "parallel_tool_calls",
    "prediction",
    "reasoning_effort",
    "response_format",
    "service_tier",
    "store",
    "thinking",
    "tool_choice",
    "tools",
    "top_logprobs",
    "logprobs",
    "verbosity",
    "web_search_options",
];

/// Makes the text completion request. The prompt is made by the deployment's template; without one the messages' texts
/// are joined by a space, as LiteLLM does.
pub fn request(mut body: Map<String, Value>, context: &Context<'_>) -> Result<Map<String, Value>, Error> {
    let messages = take_messages(&mut body, context)?;
    let prompt = match context.template {
        Some(template) => template::render(&messages, template)?,
        None => template::join(&messages)?,
    };
    params::drop_or_refuse(&mut body, &CHAT_ONLY, context)?;
    let mut text = Map::new();
    text.insert("model".into(), params::model(&mut body, context));
    text.insert("prompt".into(), prompt.into());
    if let Some(limit) = params::take_max_tokens(&mut body) {
        text.insert("max_tokens".into(), limit);
    }
    text.extend(body.into_iter().filter(|(name, value)| name != "prompt" && !value.is_null()));
    Ok(text)
}

/// Takes the messages out of a chat request that will become a prompt. A history with tool calls cannot be told as text;
/// with `drop_params` the calls are left out.
pub(in crate::core::format) fn take_messages(
    body: &mut Map<String, Value>,
    context: &Context<'_>,
) -> Result<Vec<Value>, Error> {
    let path = Path::top("messages");
    let messages = path.list(body.shift_remove("messages").unwrap_or_default())?;
    if messages.is_empty() {
        return Err(path.wrong("a list of at least one message"));
    }
    let with_calls = |message: &Value| {
        message.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty())
    };
    match messages.iter().position(with_calls) {
        Some(at) if !context.drop_params => Err(path.item(at).member("tool_calls").wrong(
            "absent: this model completes text and knows no tools; `drop_params: true` leaves them out",
        )),
        _ => Ok(messages),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::format::{generate::Asked, golden::requests as cases};

    const TRANSLATE: cases::Translate = |body, context| Ok((request(body, context)?, Asked::default()));

    #[test]
    fn whole_requests() {
        cases::walk("completions/request/write", TRANSLATE);
    }

    #[test]
    fn odd_values_are_refused_or_taken() {
        cases::mutate("completions/request/write", TRANSLATE);
    }
}
