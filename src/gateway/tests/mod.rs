//! Whole requests through both roles, in a host that is nothing but memory, with the part of Envoy played by
//! [`envoy`]: what the tests against a real Envoy show, in seconds.

mod bodies;
mod envoy;
mod fallbacks;
mod guards;
mod lifecycle;
mod lookups;
mod sources;
mod sync;
mod waiting;
mod workers;

use serde_json::{Value, json};

fn completion(model: &str) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
           "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
           "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}})
}

fn chunk(text: &str) -> String {
    let chunk = json!({"id": "1", "object": "chat.completion.chunk",
                       "choices": [{"index": 0, "delta": {"content": text}}]});
    format!("data: {chunk}\n\n")
}

fn error(message: &str, code: &str) -> Value {
    json!({"error": {"message": message, "type": "invalid_request_error", "code": code}})
}

fn hello(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}]})
}

fn message_of(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap();
    body["error"]["message"].as_str().unwrap().to_owned()
}
