//! A response that comes whole: held to its end, or passed on when it is too large for that.

use super::{
    MAX_ERROR_BYTES,
    encoding::{self, unreadable},
    is_said_to_be,
    state::{Judging, Response},
};
use crate::core::{
    codec::{framing::Shape, sse, tap::Tap},
    error::Error,
    exchange::{Env, Exchange, Next, next::Release},
    format::{pipeline::Pipeline, reshape},
    headers::Headers,
    model::{failure::Class, status::Status},
    operation::Dialect,
};

/// A member of a large response that is kept while it passes (`usage`, `model`).
const MAX_TAPPED_BYTES: usize = 64 * 1024;

impl Exchange {
    /// A large response starts to pass, if it is what was asked for.
    pub(super) fn start_passing(
        &mut self,
        mut pipeline: Box<Pipeline>,
        headers: Headers,
        bytes: &[u8],
        env: &mut Env,
    ) -> Next {
        let framing = self.attempt().map(|attempt| attempt.format.framing());
        if framing.and_then(|framing| framing.shape(bytes, false)) != Some(Shape::Whole) {
            self.set_response(Response::Held { pipeline, headers, to_the_end: true });
            return Next::Hold;
        }
        let mut tap = Box::new(Tap::new(Pipeline::NOTED, MAX_TAPPED_BYTES));
        tap.push(bytes);
        if Pipeline::begins_with_failure(&tap) {
            let status = headers.text(":status").and_then(Status::parse);
            self.set_response(Response::Failing { status, headers });
            return if bytes.len() > MAX_ERROR_BYTES { self.failed(bytes, env) } else { Next::Hold };
        }
        let list = self.release(&headers, None, false, env);
        pipeline.pass_by(bytes);
        self.set_response(Response::Passing { pipeline, tap });
        Next::Release(Release { headers: Some(list), ..Release::default() })
    }

    /// A part of a large response passes.
    pub(super) fn pass_on(
        &mut self,
        mut pipeline: Box<Pipeline>,
        mut tap: Box<Tap>,
        bytes: &[u8],
        end: bool,
    ) {
        tap.push(bytes);
        pipeline.pass_by(bytes);
        if end {
            pipeline.note(&tap);
            self.complete(&pipeline);
        } else {
            self.set_response(Response::Passing { pipeline, tap });
        }
    }

    /// A buffered response is complete.
    pub(super) fn finish_held(
        &mut self,
        mut pipeline: Box<Pipeline>,
        headers: Headers,
        bytes: &[u8],
        env: &mut Env,
    ) -> Next {
        let result = self.in_the_asked_shape(&headers, bytes).and_then(|changed| {
            let body = changed.as_deref().unwrap_or(bytes);
            let whole = pipeline.whole(body)?;
            if self.is_cut_by_filter(body) {
                return Err(Error::provider(Class::ContentPolicyViolation, "the answer was blocked"));
            }
            Ok(whole.or(changed))
        });
        match result {
            Ok(body) if !env.seams.guards.is_empty() => {
                let body = body.unwrap_or_else(|| bytes.to_vec());
                self.judge(Judging::whole(pipeline, headers, body), env)
            }
            Ok(body) => {
                self.complete(&pipeline);
                let length = body.as_ref().map_or(bytes.len(), Vec::len);
                let list = self.release(&headers, Some(length), false, env);
                Next::Release(Release { headers: Some(list), body, ..Release::default() })
            }
            Err(error) => {
                self.charge_replaced(&pipeline, env);
                self.fail_with(error, &headers, env)
            }
        }
    }

    /// A body unpacked, and put together if it is a stream; `None` when it is what was asked for.
    fn in_the_asked_shape(&self, headers: &Headers, bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let unpacked = encoding::unpack_all(headers, bytes).map_err(|why| unreadable(&why))?;
        let Some(format) = self.attempt().map(|attempt| attempt.format) else { return Ok(unpacked) };
        let body = unpacked.as_deref().unwrap_or(bytes);
        match format.framing().shape(body, true) {
            Some(Shape::Packed) => Err(encoding::unsaid()),
            _ if reshape::is_stream(format, body, is_said_to_be(format.framing(), headers)) => {
                reshape::as_whole(format, body).map(Some)
            }
            _ => Ok(body.strip_prefix(sse::BOM).map(<[u8]>::to_vec).or(unpacked)),
        }
    }

    /// Whether a chat response was stopped by a content filter and there is a fallback for that.
    fn is_cut_by_filter(&self, body: &[u8]) -> bool {
        let (Some(attempt), Some(plan), Dialect::Chat) =
            (self.attempt(), self.plan(), self.received.api.dialect)
        else {
            return false;
        };
        plan.minds_content_filter(&self.config) && attempt.format.is_filtered(body)
    }
}
