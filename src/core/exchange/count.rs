//! Counts of tokens that the gateway makes itself, where a provider has none.

use serde_json::json;

use super::{Env, Exchange, Phase, Released, Reply, local, prompt, served::Completed};
use crate::core::{
    codec::json::Object,
    error::Error,
    format::{messages::count, pipeline::content_type},
    headers::Headers,
    model::{failure::Failure, status::Status},
    operation::Operation,
};

impl Exchange {
    /// Whether the gateway answers a count for this deployment: its provider has none, or is not to be called.
    pub(super) fn counts_here(&self, at: usize) -> bool {
        self.received.api.operation == Operation::CountTokens
            && self.config.deployments.get(at).is_some_and(|deployment| {
                deployment.brand.counts.is_none()
                    || deployment.mock_response.is_some()
                    || self.requested.mock_response.is_some()
            })
    }

    /// Remembers what a count is, more or less, for the case that its provider counts nothing.
    pub(super) fn estimate_tokens(&mut self, body: &Object<'_>) {
        self.estimated_tokens = count::estimate(body, prompt::text_tokens).ok();
    }

    /// The body of a count in the place of a failure that says that the provider's API has none. That there is no such model is
    /// another thing.
    pub(super) fn count_instead(&self, failure: &Failure) -> Option<Vec<u8>> {
        let has_none = is_unknown(failure.status)
            && !(failure.status.map(Status::get) == Some(404) && failure.message.starts_with("model"));
        self.estimated_tokens.filter(|_| has_none).map(told)
    }

    /// Answers with an estimate. Nothing is used by it.
    pub(super) fn count_reply(&mut self, body: &Object<'_>, env: &Env) -> Result<Reply, Error> {
        let tokens = count::estimate(body, prompt::text_tokens)?;
        self.delivery.status = Some(Status::OK);
        self.delivery.first_ms = env.now_ms;
        self.delivery.released = Released::Response;
        // An attempt before it was somebody else's.
        self.phase = Phase::Over;
        self.books.completed = Some(Completed::of_nothing());
        let mut headers = Headers::from_pairs(&[("content-type", content_type(false))]);
        self.name_request(&mut headers);
        self.add_gateway_headers(&mut headers);
        self.add_time_headers(&mut headers, env.now_ms);
        self.add_limit_headers(&mut headers, None);
        let mut reply = Reply { status: 200, headers: Vec::new(), body: told(tokens), members: Vec::new() };
        reply.extend(&headers);
        local::add_cors(&mut reply, self.received.cors);
        Ok(reply)
    }
}

/// Whether a status is that of a path which a provider may not have.
pub(super) fn is_unknown(status: Option<Status>) -> bool {
    matches!(status.map(Status::get), Some(404 | 405 | 501))
}

/// A count in Anthropic's words.
fn told(tokens: u64) -> Vec<u8> {
    json!({"input_tokens": tokens}).to_string().into_bytes()
}
