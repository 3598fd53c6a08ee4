//! A streamed response: chunk by chunk, its headers with the first that has something to show.

use super::{
    encoding::{self, unreadable},
    state::{Judging, Response, Streaming},
};
use crate::core::{
    codec::framing::Shape,
    error::Error,
    exchange::{Env, Exchange, Next, next::Release},
    format::{self, reshape},
    headers::Headers,
    model::failure::Class,
};

/// What has come of a part.
enum Read {
    /// What the client is to get of it.
    Heard,
    /// Not enough to tell a stream from a whole response.
    Nothing,
}

impl Exchange {
    /// One more chunk, with those that are kept back.
    pub(super) fn stream_on(
        &mut self,
        mut stream: Box<Streaming>,
        bytes: &[u8],
        end: bool,
        env: &mut Env,
    ) -> Next {
        let mut out = std::mem::take(&mut stream.held);
        out.reserve(bytes.len().saturating_sub(stream.seen) + 64);
        match self.read(&mut stream, bytes, end, &mut out) {
            Ok(Read::Heard) if stream.pipeline.has_begun() => {}
            // Nothing to show yet (half an event, a comment, a role): the attempt can still be retried.
            Ok(_) => return self.keep_back(stream, out, bytes.len(), env),
            Err(error) if stream.pipeline.has_begun() && stream.pipeline.is_finished() => {
                out.extend(self.last_event(&self.worded(error)));
            }
            Err(error) => return self.fail_stream(&mut stream, error, env),
        }
        if !env.seams.guards.is_empty() {
            return self.judge_part(stream, &out, bytes.len(), end, env);
        }
        stream.seen = 0;
        let headers = self.let_go(stream, end, env);
        Next::Release(Release { headers, body: (out != bytes).then_some(out), ..Release::default() })
    }

    /// Reads what is new in `bytes`. What the client is to get of it is appended to `out`.
    fn read(
        &self,
        stream: &mut Streaming,
        bytes: &[u8],
        end: bool,
        out: &mut Vec<u8>,
    ) -> Result<Read, Error> {
        let fresh = bytes.get(stream.seen..).unwrap_or_default();
        let unpacked = match stream.unpacking.push(fresh) {
            // What stands behind the end of a stream is nobody's.
            Err(_) if stream.pipeline.is_finished() => return Ok(Read::Heard),
            unpacked => unpacked?,
        };
        let plain = unpacked.as_deref().unwrap_or(fresh);
        if stream.shape == Some(Shape::Stream) {
            return stream.hear(plain, end, out);
        }
        let Some(format) = self.attempt().map(|attempt| attempt.format) else { return Ok(Read::Nothing) };
        stream.begin(format, plain, bytes, end, out)
    }

    /// Keeps back what shows nothing of the answer yet, as long as the attempt has time. `kept`: what the host keeps back of it.
    fn keep_back(&mut self, mut stream: Box<Streaming>, out: Vec<u8>, kept: usize, env: &mut Env) -> Next {
        let limit_ms = self.attempt().map(|attempt| self.timeout_ms(attempt.candidate.deployment));
        stream.held = out;
        stream.seen = kept;
        self.set_response(Response::Streaming(stream));
        match limit_ms.filter(|limit| self.requested.streaming && self.took_ms() >= *limit) {
            Some(_) => self.time_out(env),
            None => Next::Hold,
        }
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
        if let Some(headers) = stream.headers.take() {
            return self.fail_with(error, &headers, env);
        }
        let error = self.worded(error);
        self.end_stream(stream, &error)
    }

    /// Ends a stream whose beginning is out with an error event.
    pub(super) fn end_stream(&mut self, stream: &mut Streaming, error: &Error) -> Next {
        self.complete(&stream.pipeline);
        let mut body = std::mem::take(&mut stream.ready);
        body.extend(self.last_event(error));
        Next::Release(Release { body: Some(body), ..Release::default() })
    }

    /// An error as the last event of the client's stream.
    fn last_event(&self, error: &Error) -> Vec<u8> {
        error.event(self.received.api.error_format, self.request_id())
    }
}

impl Streaming {
    /// The next part of a stream.
    fn hear(&mut self, plain: &[u8], end: bool, out: &mut Vec<u8>) -> Result<Read, Error> {
        self.pipeline.chunk(plain, out)?;
        if end {
            // What is cut short may have been packed wrongly.
            self.pipeline.end(out).map_err(|error| self.unpacking.finish().err().unwrap_or(error))?;
        }
        Ok(Read::Heard)
    }

    /// A part of what is not known yet to be a stream: `plain` is what is new of `bytes`, which are all that has come.
    fn begin(
        &mut self,
        format: format::Ref,
        plain: &[u8],
        bytes: &[u8],
        end: bool,
        out: &mut Vec<u8>,
    ) -> Result<Read, Error> {
        if self.is_whole() {
            return if end { self.hear_whole(format, bytes, out) } else { Ok(Read::Nothing) };
        }
        let mut beginning = std::mem::take(&mut self.beginning);
        let known = if beginning.is_empty() {
            plain
        } else {
            beginning.extend_from_slice(plain);
            &beginning
        };
        self.shape = match format.framing().shape(known, end) {
            Some(Shape::Packed) => return Err(encoding::unsaid()),
            Some(Shape::Other) => return Err(neither()),
            Some(Shape::Whole) => Some(Shape::Whole),
            // Nothing but blanks: it ends before it has begun.
            None if !end => None,
            _ => Some(Shape::Stream),
        };
        match self.shape {
            Some(Shape::Stream) => self.hear(known, end, out),
            Some(_) if end => self.hear_whole(format, bytes, out),
            Some(_) => Ok(Read::Nothing),
            None => {
                self.beginning = if beginning.is_empty() { plain.to_vec() } else { beginning };
                Ok(Read::Nothing)
            }
        }
    }

    /// A whole response in the place of a stream: told as one.
    fn hear_whole(&mut self, format: format::Ref, bytes: &[u8], out: &mut Vec<u8>) -> Result<Read, Error> {
        let unpacked = match &self.headers {
            Some(headers) => encoding::unpack_all(headers, bytes).map_err(|why| unreadable(&why))?,
            None => None,
        };
        let events = reshape::as_stream(format, unpacked.as_deref().unwrap_or(bytes))?;
        self.hear(&events, true, out)
    }
}

/// What is nothing that a provider answers with.
fn neither() -> Error {
    Error::provider(Class::Api, "the provider's answer is neither a stream nor JSON")
}
