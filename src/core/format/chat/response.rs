//! What all translations of responses share: chunks in the order a chat client expects them, texts out of a message, failures
//! that arrive as a response.

use serde_json::{Map, Value};

use super::thought;
use crate::core::{
    codec::{needle::Needle, value::object},
    error::{Error, Form},
    format::{failure, response::ResponseIds},
    model::failure::Class,
};

/// Makes the chunks of one chat stream: the same id, model and time on each, the role on a choice's first.
#[derive(Debug)]
pub struct Chunks {
    ids: ResponseIds,
    adopted: bool,
    begun: Vec<u64>,
}

impl Chunks {
    /// Chunks of a stream of which nothing has been made yet.
    pub fn new(ids: &ResponseIds) -> Chunks {
        Chunks { ids: ids.clone(), adopted: false, begun: Vec::new() }
    }

    /// What the chunks are called.
    pub fn ids(&self) -> &ResponseIds {
        &self.ids
    }

    /// Takes over what the provider's first chunk names itself.
    pub fn adopt(&mut self, chunk: &Value) {
        if !self.adopted {
            self.adopted = true;
            self.ids = ids_of(chunk, &self.ids);
        }
    }

    /// The choices that have been named so far, in that order.
    pub fn choices(&self) -> &[u64] {
        &self.begun
    }

    /// A piece of a choice's text.
    pub fn content(&mut self, index: u64, text: &str) -> Value {
        let mut delta = Map::new();
        delta.insert("content".into(), text.into());
        self.choice(index, delta, None)
    }

    /// Any other piece of a choice.
    pub fn delta(&mut self, index: u64, delta: Map<String, Value>) -> Value {
        self.choice(index, delta, None)
    }

    /// The end of a choice.
    pub fn finish(&mut self, index: u64, reason: &str) -> Value {
        self.choice(index, Map::new(), Some(reason))
    }

    /// The last chunk. It still has a choice, as LiteLLM's has.
    pub fn usage(&self, usage: &Value) -> Value {
        let mut chunk = chunk(&self.ids, [object! {"index": 0, "delta": object! {}}]);
        set_usage(&mut chunk, Some(usage.clone()));
        chunk
    }

    fn choice(&mut self, index: u64, mut delta: Map<String, Value>, reason: Option<&str>) -> Value {
        if !self.begun.contains(&index) {
            self.begun.push(index);
            delta.insert("role".into(), "assistant".into());
        }
        let choice = match reason {
            Some(reason) => object! {"finish_reason": reason, "index": index, "delta": delta},
            None => object! {"index": index, "delta": delta},
        };
        chunk(&self.ids, [choice])
    }
}

/// One chunk of a chat stream.
pub fn chunk(ids: &ResponseIds, choices: [Value; 1]) -> Value {
    object! {
        "id": ids.id.as_str(),
        "created": ids.created,
        "model": ids.model.as_str(),
        "object": "chat.completion.chunk",
        "choices": choices,
    }
}

/// Gives a response or chunk its usage, if it has one.
pub fn set_usage(response: &mut Value, usage: Option<Value>) {
    if let (Value::Object(response), Some(usage)) = (response, usage) {
        response.insert("usage".into(), usage);
    }
}

/// One choice of a chat response that is only text, and perhaps thoughts before it.
pub fn text_choice(index: u64, text: &str, reason: &str) -> Value {
    let mut message = object! {
        "content": text,
        "role": "assistant",
        "tool_calls": Value::Null,
        "function_call": Value::Null,
    };
    message.as_object_mut().into_iter().for_each(thought::split_in);
    object! {"finish_reason": reason, "index": index, "message": message}
}

/// What a response names itself, `ids` where it says nothing.
pub fn ids_of(body: &Value, ids: &ResponseIds) -> ResponseIds {
    let text = |name: &str| body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    ResponseIds {
        id: text("id").unwrap_or(&ids.id).to_owned(),
        created: body.get("created").and_then(Value::as_u64).filter(|at| *at > 0).unwrap_or(ids.created),
        model: text("model").unwrap_or(&ids.model).to_owned(),
    }
}

/// The choices of a response, or what is wrong with it.
pub fn choices_of(body: &Value) -> Result<&Vec<Value>, Error> {
    if let Some(error) = failure_in(body) {
        return Err(error);
    }
    let choices = body.get("choices").and_then(Value::as_array).filter(|choices| !choices.is_empty());
    choices.ok_or_else(|| unreadable("no `choices`"))
}

/// The text of a message or delta member: a string, or the text parts of a list.
pub fn text_of(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
        }
        _ => String::new(),
    }
}

/// A choice's `index`, 0 when it has none. OpenAI allows 128 choices, so what a stream keeps per choice is bounded by that.
pub fn index_of(choice: &Value) -> u64 {
    choice.get("index").and_then(Value::as_u64).unwrap_or(0).min(127)
}

/// The failure that a provider reports in place of a response or a chunk.
pub fn failure_in(body: &Value) -> Option<Error> {
    let (at, words) = failure::reporting(body)?;
    Some(failure::reported(at, Form::Whole, |class| format!("litellm.{}: {words}", class.name())))
}

/// Whether a buffered response says at `path` that it was stopped for `reason`. Few hold the word at all, so few are parsed.
pub fn is_stopped_by(reason: &Needle, path: &str, body: &[u8]) -> bool {
    reason.is_in(body)
        && serde_json::from_slice::<Value>(body)
            .is_ok_and(|response| response.pointer(path).and_then(Value::as_str) == Some(reason.text()))
}

/// A response that is not what its API promises.
pub fn unreadable(lack: &str) -> Error {
    Error::provider(Class::Api, format!("litellm.APIError: the provider's answer has {lack}")).whole()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reported_failure_keeps_its_status() {
        for (body, status, message) in [
            (
                json!({"error": {"message": "slow down", "code": 429}}),
                429,
                "litellm.RateLimitError: slow down",
            ),
            (json!({"error": {"message": "no", "code": "401"}}), 401, "litellm.AuthenticationError: no"),
            (
                json!({"error": "overloaded", "error_type": "x"}),
                500,
                "litellm.InternalServerError: overloaded",
            ),
            (json!({"error": {"a": 1}}), 500, "litellm.InternalServerError: the provider reported an error"),
        ] {
            let error = failure_in(&body).unwrap();
            assert_eq!((error.status(), error.message.as_str()), (status, message));
        }
        assert_eq!(failure_in(&json!({"error": null, "choices": []})), None);
    }

    #[test]
    fn a_response_without_choices_is_no_response() {
        for body in [json!({}), json!([]), json!({"choices": []}), json!({"choices": 1})] {
            assert_eq!(choices_of(&body).unwrap_err().class(), Some(Class::Api), "{body}");
        }
    }
}
