//! Guards that judge a response before the client sees it.
//!
//! What is judged is kept back by the host: a buffered response whole, a stream part by part. What comes of a stream while a
//! part is judged is judged with the next part.

use super::state::{Judged, Judging, Response};
use crate::core::{
    error::Error,
    exchange::{
        Env, Exchange, Next, Phase,
        next::Release,
        seams::{self, Called, Verdict},
    },
    host::CallResponse,
};

/// No guard asks for more than this about one part.
const MOST_CALLS: u8 = 6;

impl Exchange {
    /// Has guards judge a response or a part of one.
    pub(super) fn judge(&mut self, judging: Box<Judging>, env: &mut Env) -> Next {
        self.judge_on(judging, Called::No, env)
    }

    /// The guard that called somebody about the response has what came of it.
    pub(in crate::core::exchange) fn on_judged(
        &mut self,
        response: Option<CallResponse>,
        env: &mut Env,
    ) -> Next {
        let Some(attempt) = self.attempt_mut() else { return Next::Hold };
        match std::mem::replace(&mut attempt.response, Response::Over) {
            Response::Judging(judging) => self.judge_on(judging, Called::Response(response), env),
            response => {
                attempt.response = response;
                Next::Hold
            }
        }
    }

    fn judge_on(&mut self, mut judging: Box<Judging>, mut called: Called, env: &mut Env) -> Next {
        let is_resumed = matches!(called, Called::Response(_));
        while let Some(guard) = env.seams.guards.get(judging.at) {
            let response = seams::Response {
                api: self.received.api,
                body: &judging.body,
                is_part: matches!(judging.what, Judged::Part { .. }),
            };
            match guard.after(&response, std::mem::take(&mut called)) {
                Verdict::Go => judging.at = judging.at.saturating_add(1),
                Verdict::Change(body) | Verdict::Reply(body) => {
                    judging.body = body;
                    judging.at = judging.at.saturating_add(1);
                }
                Verdict::Block(error) => return self.block_judged(judging.what, error, env),
                Verdict::Call(_) if judging.calls == MOST_CALLS => {
                    let error = Error::internal("a guard did not come to a verdict");
                    return self.block_judged(judging.what, error, env);
                }
                Verdict::Call(callout) => {
                    judging.calls = judging.calls.saturating_add(1);
                    self.set_response(Response::Judging(judging));
                    return Next::Call(callout);
                }
            }
        }
        let Judging { what, body, .. } = *judging;
        match what {
            Judged::Whole { pipeline, headers } => {
                self.complete(&pipeline);
                let list = self.release(&headers, Some(body.len()), false, env);
                Next::Release(Release { headers: Some(list), body: Some(body), ..Release::default() })
            }
            Judged::Part { stream, kept, .. } if is_resumed => self.resume_stream(stream, &body, kept),
            Judged::Part { stream, kept, end } => self.judged_at_once(stream, &body, kept, end, env),
        }
    }

    /// The client may not see it. What it used is paid for all the same.
    fn block_judged(&mut self, judged: Judged, error: Error, env: &mut Env) -> Next {
        match judged {
            Judged::Part { mut stream, .. } if stream.has_begun() => self.end_stream(&mut stream, &error),
            Judged::Part { stream, .. } => {
                self.charge_replaced(&stream.pipeline, env);
                self.block(error)
            }
            Judged::Whole { pipeline, .. } => {
                self.charge_replaced(&pipeline, env);
                self.block(error)
            }
        }
    }

    /// The attempt is over while its response was being judged: it has to be paid for all the same.
    pub(in crate::core::exchange) fn charge_unjudged(&mut self, env: &Env) {
        let Phase::Attempting(attempt) = &mut self.phase else { return };
        if let Response::Judging(_) = &attempt.response
            && let Response::Judging(judging) = std::mem::replace(&mut attempt.response, Response::Over)
        {
            self.charge_replaced(judging.pipeline(), env);
        }
    }
}
