//! A response that comes whole: held to its end, or passed on when it is too large for that.

use super::{
    gzip,
    gzip::is_gzip,
    state::{Judging, Response},
};
use crate::core::{
    codec::tap::Tap,
    error::Error,
    exchange::{Env, Exchange, Next, next::Release},
    format::pipeline::Pipeline,
    headers::Headers,
    model::failure::Class,
    operation::Dialect,
};

/// A member of a large response that is kept while it passes (`usage`, `model`).
const MAX_TAPPED_BYTES: usize = 64 * 1024;

impl Exchange {
    /// A large response starts to pass.
    pub(super) fn start_passing(
        &mut self,
        pipeline: Box<Pipeline>,
        headers: &Headers,
        bytes: &[u8],
        env: &mut Env,
    ) -> Next {
        let tap = Box::new(Tap::new(Pipeline::NOTED, MAX_TAPPED_BYTES));
        let list = self.release(headers, None, false, env);
        self.pass_on(pipeline, tap, bytes, false);
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
        let unpacked = if is_gzip(&headers) { gzip::unpack_all(bytes) } else { Ok(None) };
        let result = unpacked.and_then(|unpacked| {
            let body = unpacked.as_deref().unwrap_or(bytes);
            let whole = pipeline.whole(body)?;
            if self.is_cut_by_filter(body) {
                return Err(Error::provider(Class::ContentPolicyViolation, "the answer was blocked"));
            }
            Ok(whole.or(unpacked))
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
                self.fail_with(error, env)
            }
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
