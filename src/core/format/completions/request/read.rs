//! An OpenAI text completion request as a chat request: the prompt becomes one user message.

use serde_json::{Map, Value};

use crate::core::format::{params, path::Path};
use crate::core::{codec::value::object, error::Error, format::Context};

/// Parameters of text completions without a counterpart in chat. `logprobs` is a count here and a switch there.
const TEXT_ONLY: [&str; 4] = ["suffix", "best_of", "echo", "logprobs"];

/// Makes the chat request. Only one prompt, as text, can be asked of a chat model.
pub fn request(mut body: Map<String, Value>, context: &Context<'_>) -> Result<Map<String, Value>, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::format::{generate::Asked, golden::requests as cases};

    const TRANSLATE: cases::Translate = |body, context| Ok((request(body, context)?, Asked::default()));

    #[test]
    fn whole_requests() {
        cases::walk("completions/request/read", TRANSLATE);
    }

    #[test]
    fn odd_values_are_refused_or_taken() {
        cases::mutate("completions/request/read", TRANSLATE);
    }
}
