//! Text completion requests: read as chat, the prompt being one user message, and written from chat for providers that only
//! complete text.

use serde_json::{Map, Value};

use crate::core::{
    codec::value::object,
    error::Error,
    format::{Context, params, path::Path, template},
};

/// Parameters of text completions without a counterpart in chat. `logprobs` is a count here and a switch there.
const TEXT_ONLY: [&str; 4] = ["suffix", "best_of", "echo", "logprobs"];

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

/// Makes the chat request. Only one prompt, as text, can be asked of a chat model.
pub fn read(mut body: Map<String, Value>, context: &Context<'_>) -> Result<Map<String, Value>, Error> {
    let prompt = prompt(body.shift_remove("prompt").unwrap_or_default())?;
    params::drop_or_refuse(&mut body, &TEXT_ONLY, context)?;
    let mut chat = Map::new();
    chat.insert("model".into(), params::model(&mut body, context));
    chat.insert("messages".into(), Value::from([object! {"role": "user", "content": prompt}]));
    chat.extend(body.into_iter().filter(|(name, value)| name != "messages" && !value.is_null()));
    Ok(chat)
}

fn prompt(prompt: Value) -> Result<String, Error> {
    match prompt {
        Value::String(text) => Ok(text),
        Value::Array(mut list) if list.len() == 1 && list.iter().all(Value::is_string) => match list.pop() {
            Some(Value::String(text)) => Ok(text),
            _ => Ok(String::new()),
        },
        _ => Err(Path::top("prompt").wrong(
            "a string or a list of one string: this model is a chat model, which takes neither several prompts nor tokens",
        )),
    }
}

/// Makes the text completion request. The prompt is made by the deployment's template; without one the messages' texts
/// are joined by a space, as LiteLLM does.
pub fn write(mut body: Map<String, Value>, context: &Context<'_>) -> Result<Map<String, Value>, Error> {
    let prompt = template::take_prompt(&mut body, context.template, context)?;
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
