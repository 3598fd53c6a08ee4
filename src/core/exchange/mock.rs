//! `mock_response`: answers made without a provider, in every client API.

use serde_json::{Value, json};

use super::{Env, Exchange, Phase, Released, Reply, local, served::Completed};
use crate::core::{
    codec::sse,
    error::Error,
    format::{
        self,
        pipeline::{Pipeline, content_type},
        response::ResponseIds,
        translate::Back,
    },
    headers::Headers,
    model::{
        failure::{Class, Failure},
        status::Status,
        terms::Terms,
    },
    operation::Operation,
};

/// The failure that a mock response stands for, when its text names one of LiteLLM's errors.
pub fn failure(mock: &Value) -> Option<Failure> {
    let text = mock.as_str()?;
    let class =
        Class::named_in(text).filter(|_| text.starts_with("litellm.") || text.starts_with("Exception:"))?;
    Some(Failure::without_answer(class, "this is a mock error"))
}

impl Exchange {
    /// Answers with a mock: the text of `mock`, 10 prompt and 20 completion tokens, as LiteLLM. Nothing that it costs is taken
    /// from what a client wrote.
    pub(super) fn mock_reply(&mut self, mock: &Value, env: &mut Env) -> Result<Reply, Error> {
        let candidate = self.plan().map(|plan| plan.current());
        let deployment = candidate.and_then(|candidate| self.config.deployments.get(candidate.deployment));
        let segment = candidate.zip(self.plan()).and_then(|(candidate, plan)| plan.segment_of(candidate));
        let model = deployment.zip(segment).map_or_else(String::new, |(deployment, segment)| {
            let captures: Vec<&str> = segment.captures.iter().map(String::as_str).collect();
            deployment.model_for(&segment.requested, &captures)
        });
        let stamp =
            ResponseIds { id: format!("chatcmpl-{}", env.random.uuid()), created: env.now_ms / 1_000, model };
        let is_embedding = self.received.api.operation == Operation::Embed;
        let (client, include_usage) = (format::of(self.received.api), self.requested.include_usage);
        let back = match is_embedding {
            true => Back::passing(client, include_usage),
            false => Back::of_chat(client, include_usage)?,
        };
        let mut pipeline = Pipeline::new(back, Terms::default(), &stamp);
        let streaming = self.requested.streaming && !is_embedding;
        let body = if streaming {
            let mut out = Vec::new();
            pipeline.chunk(&stream(mock, &stamp), &mut out)?;
            out
        } else {
            let make = if is_embedding { embedding } else { completion };
            let made = make(mock, &stamp).to_string().into_bytes();
            pipeline.whole(&made)?.unwrap_or(made)
        };
        self.delivery.status = Some(Status::OK);
        self.delivery.first_ms = env.now_ms;
        self.delivery.released = Released::Response;
        // An attempt before it was somebody else's.
        self.phase = Phase::Over;
        self.books.completed = Some(Completed::of_mock(&pipeline));
        let mut headers = Headers::from_pairs(&[("content-type", content_type(streaming))]);
        self.name_request(&mut headers);
        self.add_gateway_headers(&mut headers);
        if !streaming {
            self.add_cost_header(&mut headers);
            self.add_time_headers(&mut headers, env.now_ms);
        }
        self.add_limit_headers(&mut headers, None);
        let mut reply = Reply { status: 200, headers: Vec::new(), body, members: Vec::new() };
        reply.extend(&headers);
        local::add_cors(&mut reply, self.received.cors);
        Ok(reply)
    }
}

/// The words of a mock: those of the first choice when it is a whole completion.
fn text(mock: &Value) -> String {
    let content = mock.pointer("/choices/0/message/content").and_then(Value::as_str);
    content.or(mock.as_str()).map_or_else(|| mock.to_string(), str::to_owned)
}

fn usage() -> Value {
    json!({"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30})
}

/// A mock that is a whole completion object is given as it is, but for its usage: what a caller says it used is charged to nobody.
fn completion(mock: &Value, stamp: &ResponseIds) -> Value {
    if let Some(given) = mock.as_object().filter(|mock| mock.contains_key("choices")) {
        let mut whole = given.clone();
        whole.insert("usage".to_owned(), usage());
        return Value::Object(whole);
    }
    json!({
        "id": stamp.id, "created": stamp.created, "model": stamp.model, "object": "chat.completion",
        "choices": [{"finish_reason": "stop", "index": 0, "message": {"content": text(mock), "role": "assistant"}}],
        "usage": usage(),
    })
}

fn stream(mock: &Value, stamp: &ResponseIds) -> Vec<u8> {
    let chunk = |choice: Value| {
        json!({"id": stamp.id, "created": stamp.created, "model": stamp.model, "object": "chat.completion.chunk",
               "choices": [choice]})
    };
    let mut out = Vec::new();
    let words = text(mock);
    for (at, piece) in words.split_inclusive(' ').enumerate() {
        let delta = match at {
            0 => json!({"role": "assistant", "content": piece}),
            _ => json!({"content": piece}),
        };
        sse::write(&mut out, None, chunk(json!({"index": 0, "delta": delta})).to_string().as_bytes());
    }
    sse::write(
        &mut out,
        None,
        chunk(json!({"index": 0, "delta": {}, "finish_reason": "stop"})).to_string().as_bytes(),
    );
    let last = json!({"id": stamp.id, "created": stamp.created, "model": stamp.model, "object": "chat.completion.chunk",
                      "choices": [{"index": 0, "delta": {}}], "usage": usage()});
    sse::write(&mut out, None, last.to_string().as_bytes());
    sse::write(&mut out, None, b"[DONE]");
    out
}

fn embedding(mock: &Value, stamp: &ResponseIds) -> Value {
    let vector = if mock.is_array() { mock.clone() } else { json!([0.1, 0.2, 0.3]) };
    json!({"object": "list", "model": stamp.model, "data": [{"object": "embedding", "index": 0, "embedding": vector}],
           "usage": {"prompt_tokens": 10, "total_tokens": 10}})
}
