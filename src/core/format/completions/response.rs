//! Whole text completions: read as chat, and written from it.

use serde_json::Value;

use crate::core::{
    codec::value::object,
    error::Error,
    format::{chat::response as chat, response::ResponseIds},
};

/// Makes the `chat.completion` of a `text_completion`.
pub fn read(body: &Value, ids: &ResponseIds) -> Result<Value, Error> {
    let choices = chat::choices_of(body)?.iter().map(|choice| {
        let reason = choice.get("finish_reason").and_then(Value::as_str).unwrap_or("stop");
        chat::text_choice(chat::index_of(choice), &chat::text_of(choice.get("text")), reason)
    });
    let choices: Vec<Value> = choices.collect();
    let ResponseIds { id, created, model } = chat::ids_of(body, ids);
    let mut chat = object! {
        "id": id,
        "created": created,
        "model": model,
        "object": "chat.completion",
        "system_fingerprint": body.get("system_fingerprint").cloned(),
        "choices": choices,
    };
    chat::set_usage(&mut chat, body.get("usage").filter(|usage| usage.is_object()).cloned());
    Ok(chat)
}

/// Makes the `text_completion` object of a `chat.completion`.
pub fn write(chat: &Value, ids: &ResponseIds) -> Result<Value, Error> {
    let choices = chat::choices_of(chat)?.iter().map(|choice| {
        let text = chat::text_of(choice.get("message").and_then(|message| message.get("content")));
        text_choice(chat::index_of(choice), &text, choice.get("finish_reason"))
    });
    let mut completion = completion(&chat::ids_of(chat, ids), choices.collect());
    if let Some(completion) = completion.as_object_mut() {
        for name in ["system_fingerprint", "usage"] {
            if let Some(value) = chat.get(name).filter(|value| !value.is_null()) {
                completion.insert(name.into(), value.clone());
            }
        }
    }
    Ok(completion)
}

/// A text completion, or an object of a stream of it.
pub(super) fn completion(ids: &ResponseIds, choices: Vec<Value>) -> Value {
    object! {
        "id": ids.id.as_str(),
        "object": "text_completion",
        "created": ids.created,
        "model": ids.model.as_str(),
        "choices": choices,
    }
}

/// One choice of a text completion.
pub(super) fn text_choice(index: u64, text: &str, reason: Option<&Value>) -> Value {
    object! {"text": text, "index": index, "logprobs": Value::Null, "finish_reason": reason.cloned()}
}
