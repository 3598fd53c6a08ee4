//! The provider's response: held until it can be judged, then released to the client, or to Envoy for a retry.
//!
//! Nothing can be taken back once headers have gone out, so headers wait: a failed response until its body is read, a stream
//! until something of the answer is (some providers answer 200, say for a while that they are at work, and then send an error), a
//! buffered response until its cost is known, unless it is too large to hold and needs no translation.

mod buffered;
mod encoding;
mod failure;
mod headers;
mod judge;
mod state;
mod stream;

use self::{encoding::is_packed, state::Streaming};
use super::{Env, Exchange, Next, Phase, local::REQUEST_ID, served::Completed};
pub(super) use state::Response;

use crate::core::{
    codec::framing::Framing,
    error::ErrorFormat,
    format::{pipeline::Pipeline, response::ResponseIds},
    headers::Headers,
    model::{failure::native, status::Status},
    operation::Operation,
};

/// Of a failed response no more is read than this.
const MAX_ERROR_BYTES: usize = 256 * 1024;

impl Exchange {
    /// The response's headers; `end` says that no body follows.
    pub fn on_response_headers(&mut self, headers: Headers, end: bool, env: &mut Env) -> Next {
        let status = headers.text(":status").and_then(Status::parse);
        let is_stream_wanted = self.is_stream_wanted();
        let Phase::Attempting(attempt) = &mut self.phase else { return Next::Pass };
        if self.received.api.error_format == ErrorFormat::Anthropic {
            let id = headers.text(REQUEST_ID).filter(|id| native::is_word(id));
            self.delivery.provider_request_id = id.map(str::to_owned);
        }
        if !status.is_some_and(Status::is_good) {
            attempt.response = Response::Failing { status, headers };
            return if end { self.failed(b"", env) } else { Next::Hold };
        }
        let back = match std::mem::replace(&mut attempt.response, Response::Over) {
            Response::Awaited(back) => back,
            response => {
                attempt.response = response;
                return Next::Pass;
            }
        };
        let ids = ResponseIds {
            // What passes as it is has an id of its own.
            id: match attempt.passes {
                true => String::new(),
                false => format!("chatcmpl-{}", env.random.uuid()),
            },
            created: env.now_ms / 1_000,
            model: attempt.model.clone(),
        };
        let pipeline = Pipeline::new(back, attempt.terms, &ids);
        // What comes is told by what was asked for and by its first bytes: providers say all sorts of things of their bodies.
        attempt.response = match is_stream_wanted {
            true => Response::Streaming(Box::new(Streaming::new(pipeline, headers))),
            false => {
                let says_stream = is_said_to_be(attempt.format.framing(), &headers);
                let to_the_end = says_stream || is_packed(&headers) || !attempt.passes || attempt.is_guarded;
                Response::Held { pipeline: Box::new(pipeline), headers, to_the_end }
            }
        };
        if end { self.on_response_body(b"", true, env) } else { Next::Hold }
    }

    /// Whether the next part of the body has to be read at all; `size` is what is buffered of it.
    pub fn wants_body(&self, size: usize, end: bool) -> bool {
        let Phase::Attempting(attempt) = &self.phase else { return false };
        match &attempt.response {
            Response::Awaited(_) | Response::Judging(_) | Response::Over => false,
            Response::Failing { .. } => end || size > MAX_ERROR_BYTES,
            Response::Held { to_the_end, .. } => end || (!to_the_end && size > self.max_held()),
            Response::Passing { tap, .. } => end || !tap.is_done(),
            Response::Streaming(stream) => end || !stream.is_whole(),
        }
    }

    /// Whether parts that are not read are kept back.
    pub fn holds(&self) -> bool {
        let Phase::Attempting(attempt) = &self.phase else { return false };
        match &attempt.response {
            Response::Failing { .. } | Response::Held { .. } | Response::Judging(_) => true,
            Response::Streaming(stream) => stream.is_whole(),
            Response::Awaited(_) | Response::Passing { .. } | Response::Over => false,
        }
    }

    /// Whether the client has asked for a stream, of an API that has streams.
    fn is_stream_wanted(&self) -> bool {
        self.requested.streaming && self.received.api.operation == Operation::Generate
    }

    fn max_held(&self) -> usize {
        usize::try_from(self.config.general.max_held_answer_bytes).unwrap_or(usize::MAX)
    }

    /// A part of the response's body: all that is buffered while it is held, else the newest chunk.
    pub fn on_response_body(&mut self, bytes: &[u8], end: bool, env: &mut Env) -> Next {
        let Phase::Attempting(attempt) = &mut self.phase else { return Next::Pass };
        attempt.took_ms = env.now_ms.saturating_sub(attempt.started_ms);
        match std::mem::replace(&mut attempt.response, Response::Over) {
            Response::Over => Next::Pass,
            response @ Response::Awaited(_) => {
                attempt.response = response;
                Next::Pass
            }
            response @ Response::Judging(_) => {
                attempt.response = response;
                Next::Hold
            }
            failing @ Response::Failing { .. } => {
                attempt.response = failing;
                self.failed(bytes, env)
            }
            Response::Held { pipeline, headers, .. } if !end => {
                self.start_passing(pipeline, headers, bytes, env)
            }
            Response::Held { pipeline, headers, .. } => self.finish_held(pipeline, headers, bytes, env),
            Response::Passing { pipeline, tap } => {
                self.pass_on(pipeline, tap, bytes, end);
                Next::Pass
            }
            Response::Streaming(stream) => self.stream_on(stream, bytes, end, env),
        }
    }

    fn set_response(&mut self, response: Response) {
        if let Some(attempt) = self.attempt_mut() {
            attempt.response = response;
        }
    }

    /// What a response has used that the client has seen the beginning of and not the end, or that is being judged.
    pub(super) fn unfinished(&self) -> Option<Completed> {
        let Phase::Attempting(attempt) = &self.phase else { return None };
        match &attempt.response {
            Response::Streaming(stream) if stream.has_begun() => Some(self.completed_by(&stream.pipeline)),
            Response::Passing { pipeline, .. } => Some(self.completed_by(pipeline)),
            Response::Judging(judging) => Some(self.completed_by(judging.pipeline())),
            _ => None,
        }
    }

    /// What a stream has used of which the client has seen nothing.
    pub(super) fn unshown(&self) -> Option<Completed> {
        match &self.attempt()?.response {
            Response::Streaming(stream) if !stream.has_begun() => Some(self.completed_by(&stream.pipeline)),
            _ => None,
        }
    }

    /// Whether a provider has been asked and the client has seen nothing of a response or a failure yet.
    pub(super) fn is_under_way(&self) -> bool {
        let Phase::Attempting(attempt) = &self.phase else { return false };
        attempt.sent
            && match &attempt.response {
                Response::Awaited(_) | Response::Held { .. } => true,
                Response::Streaming(stream) => !stream.has_begun(),
                _ => false,
            }
    }

    /// The response has been read to its end.
    fn complete(&mut self, pipeline: &Pipeline) {
        self.set_response(Response::Over);
        self.books.completed = Some(self.completed_by(pipeline));
    }

    fn completed_by(&self, pipeline: &Pipeline) -> Completed {
        let used = || pipeline.used(|| self.prompt_tokens());
        Completed::of(pipeline, self.is_metered().then(used).flatten())
    }
}

/// Whether a response's headers say that it is a stream.
fn is_said_to_be(framing: Framing, headers: &Headers) -> bool {
    let kind = headers.get("content-type").unwrap_or_default();
    let media_type = framing.media_type().as_bytes();
    kind.get(..media_type.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(media_type))
}
