//! A streamed response: chunk by chunk, its headers with the first that has something to show.

use super::state::{Judging, Response, Streaming};
use crate::core::{
    error::Error,
    exchange::{Env, Exchange, Next, next::Release},
    headers::Headers,
};

impl Exchange {
    /// One more chunk, with those that are kept back.
    pub(super) fn stream_on(
        &mut self,
        mut stream: Box<Streaming>,
        bytes: &[u8],
        end: bool,
        env: &mut Env,
    ) -> Next {
        let fresh = bytes.get(stream.seen..).unwrap_or_default();
        let unpacked = match stream.gunzip.as_mut().map(|gunzip| gunzip.unpack(fresh)).transpose() {
            Ok(unpacked) => unpacked,
            Err(error) => return self.fail_stream(&mut stream, error, env),
        };
        let mut out = Vec::with_capacity(fresh.len() + 64);
        let mut result = stream.pipeline.chunk(unpacked.as_deref().unwrap_or(fresh), &mut out);
        if result.is_ok() && end {
            result = stream.pipeline.end(&mut out);
        }
        if let Err(error) = result {
            return self.fail_stream(&mut stream, error, env);
        }
        if !env.seams.guards.is_empty() {
            return self.judge_part(stream, &out, bytes.len(), end, env);
        }
        if stream.headers.is_some() && out.is_empty() && !end {
            // Nothing to show yet (half an event): the attempt can still be retried.
            stream.seen = bytes.len();
            self.set_response(Response::Streaming(stream));
            return Next::Hold;
        }
        stream.seen = 0;
        let headers = self.let_go(stream, end, env);
        Next::Release(Release { headers, body: (out != bytes).then_some(out), ..Release::default() })
    }

    /// Lets a part go out, with the headers when they have not.
    fn let_go(&mut self, mut stream: Box<Streaming>, end: bool, env: &mut Env) -> Option<Headers> {
        let list = stream.headers.take().map(|headers| self.release(&headers, None, true, env));
        if end {
            self.complete(&stream.pipeline);
        } else {
            self.set_response(Response::Streaming(stream));
        }
        list
    }

    /// Has a part judged before it goes out. `kept`: how much the host keeps back.
    fn judge_part(
        &mut self,
        mut stream: Box<Streaming>,
        out: &[u8],
        kept: usize,
        end: bool,
        env: &mut Env,
    ) -> Next {
        stream.unjudged.extend_from_slice(out);
        if stream.unjudged.is_empty() || (!stream.ready.is_empty() && !end) {
            return self.let_judged_go(stream, kept, end, env);
        }
        let part = std::mem::take(&mut stream.unjudged);
        self.judge(Judging::part(stream, part, kept, end), env)
    }

    /// Lets go what has been judged of a stream.
    pub(super) fn let_judged_go(
        &mut self,
        mut stream: Box<Streaming>,
        kept: usize,
        end: bool,
        env: &mut Env,
    ) -> Next {
        if stream.headers.is_some() && stream.ready.is_empty() && !end {
            stream.seen = kept;
            self.set_response(Response::Streaming(stream));
            return Next::Hold;
        }
        stream.seen = 0;
        let body = std::mem::take(&mut stream.ready);
        let headers = self.let_go(stream, end, env);
        Next::Release(Release { headers, body: Some(body), ..Release::default() })
    }

    /// A part has been judged while the host kept it back: what came meanwhile is read with it.
    pub(super) fn resume_stream(&mut self, mut stream: Box<Streaming>, part: &[u8], kept: usize) -> Next {
        stream.ready.extend_from_slice(part);
        stream.seen = kept;
        self.set_response(Response::Streaming(stream));
        Next::ReadBody
    }

    /// A part has been judged at once.
    pub(super) fn judged_at_once(
        &mut self,
        mut stream: Box<Streaming>,
        part: &[u8],
        kept: usize,
        end: bool,
        env: &mut Env,
    ) -> Next {
        stream.ready.extend_from_slice(part);
        self.let_judged_go(stream, kept, end, env)
    }

    /// A stream that failed: a retry while its headers are still here, an event after that.
    pub(super) fn fail_stream(&mut self, stream: &mut Streaming, error: Error, env: &mut Env) -> Next {
        if stream.headers.is_some() {
            return self.fail_with(error, env);
        }
        self.end_stream(stream, &error)
    }

    /// Ends a stream whose beginning is out with an error event.
    pub(super) fn end_stream(&mut self, stream: &mut Streaming, error: &Error) -> Next {
        self.complete(&stream.pipeline);
        let mut body = std::mem::take(&mut stream.ready);
        let id = self.delivery.provider_request_id.as_deref().unwrap_or(&self.received.call_id);
        body.extend(error.event(self.received.api.error_format, id));
        Next::Release(Release { body: Some(body), ..Release::default() })
    }
}
