//! The provider's answer: held until it can be judged, then released to the client, or to Envoy for a retry.
//!
//! Nothing can be taken back once headers have gone out, so headers wait: a failed answer until its body is read, a stream
//! until its first event is (some providers answer 200 and then send an error), a buffered answer until its cost is known,
//! unless it is too large to hold and needs no translation.

use super::{Env, Exchange, Next, RETRY_HEADER, Released, WAIT_HEADER, local, next::Release, record};
use crate::core::{
    codec::tap::Tap,
    error::{Error, Fault, Form, ProviderFault, RequestFault},
    format::{
        failure,
        pipeline::{Pipeline, content_type},
        response::ResponseIds,
    },
    headers::Headers,
    model::{
        failure::{Class, Failure, Words},
        status::{ErrorStatus, Status},
    },
    operation::{Dialect, Operation},
    route::{affinity, cooldown, plan::Plan, retries},
};

/// Of a failed answer no more is read than this.
const MAX_ERROR_BYTES: usize = 256 * 1024;
/// A member of a large answer that is kept while it passes (`usage`, `model`).
const MAX_TAPPED_BYTES: usize = 64 * 1024;
/// Provider headers never handed on, because they are about the connection or about a body that has changed.
const DROPPED: [&str; 12] = [
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "content-type",
    "set-cookie",
    "server",
    "date",
    "trailer",
    "upgrade",
    "proxy-connection",
];

/// Where an answer stands.
pub enum Response {
    /// None has come.
    None,
    /// A failure whose body is being read.
    Failing {
        /// The provider's status.
        status: Option<Status>,
        /// Its headers.
        headers: Headers,
    },
    /// A buffered answer whose headers wait for its end.
    Held {
        /// What reads it.
        pipeline: Box<Pipeline>,
        /// Its headers.
        headers: Headers,
    },
    /// A buffered answer too large to hold: it passes while its usage is caught.
    Passing {
        /// What keeps its usage.
        pipeline: Box<Pipeline>,
        /// What catches it.
        tap: Box<Tap>,
    },
    /// A stream.
    Streaming(Box<Streaming>),
    /// Nothing more is to be read.
    Over,
}

/// A stream under way.
pub struct Streaming {
    pipeline: Pipeline,
    /// Its headers, until the first event goes out.
    headers: Option<Headers>,
    /// While headers wait, the host keeps the chunks and gives them again with the next one: how much of them is known.
    seen: usize,
    gunzip: Option<Gunzip>,
}

/// Unpacks gzip as it comes.
pub type Gunzip = flate2::write::GzDecoder<Vec<u8>>;

impl Exchange {
    /// The answer's headers; `end` says that no body follows.
    pub fn on_response_headers(&mut self, headers: Headers, end: bool, env: &mut Env) -> Next {
        let status = headers.text(":status").and_then(Status::parse);
        let Some(attempt) = &mut self.attempt else { return Next::Pass };
        if !status.is_some_and(Status::is_good) {
            self.response = Response::Failing { status, headers };
            return if end { self.failed(b"", env) } else { Next::Hold };
        }
        let Some(back) = attempt.back.take() else { return Next::Pass };
        let ids = ResponseIds {
            // What passes as it is has an id of its own.
            id: match attempt.passes {
                true => String::new(),
                false => format!("chatcmpl-{}", env.random.uuid()),
            },
            created: env.now_ms / 1_000,
            model: attempt.model.clone(),
        };
        let pipeline = Box::new(Pipeline::new(back, attempt.terms, &ids));
        let media_type = attempt.format.framing().media_type();
        let is_stream = headers.text("content-type").is_some_and(|kind| kind.starts_with(media_type));
        self.response = if is_stream {
            let gunzip = is_gzip(&headers).then(|| Gunzip::new(Vec::new()));
            Response::Streaming(Box::new(Streaming {
                pipeline: *pipeline,
                headers: Some(headers),
                seen: 0,
                gunzip,
            }))
        } else {
            Response::Held { pipeline, headers }
        };
        if end { self.on_response_body(b"", true, env) } else { Next::Hold }
    }

    /// Whether the next part of the body has to be read at all; `size` is what is buffered of it.
    pub fn wants_body(&self, size: usize, end: bool) -> bool {
        match &self.response {
            Response::None | Response::Over => false,
            Response::Failing { .. } => end || size > MAX_ERROR_BYTES,
            Response::Held { .. } => end || (self.may_pass() && size > self.max_held()),
            Response::Passing { tap, .. } => end || !tap.is_done(),
            Response::Streaming(_) => true,
        }
    }

    /// Whether parts that are not read are kept back.
    pub fn holds(&self) -> bool {
        matches!(self.response, Response::Failing { .. } | Response::Held { .. })
    }

    fn max_held(&self) -> usize {
        usize::try_from(self.config.general.max_held_answer_bytes).unwrap_or(usize::MAX)
    }

    /// Whether the answer may go to the client without being read to its end.
    fn may_pass(&self) -> bool {
        let Response::Held { headers, .. } = &self.response else { return false };
        self.attempt.as_ref().is_some_and(|attempt| attempt.passes) && !is_gzip(headers)
    }

    /// A part of the answer's body: all that is buffered while it is held, else the newest chunk.
    pub fn on_response_body(&mut self, bytes: &[u8], end: bool, env: &mut Env) -> Next {
        self.took_ms =
            self.attempt.as_ref().map_or(0, |attempt| env.now_ms.saturating_sub(attempt.started_ms));
        match std::mem::replace(&mut self.response, Response::Over) {
            Response::None | Response::Over => Next::Pass,
            failing @ Response::Failing { .. } => {
                self.response = failing;
                self.failed(bytes, env)
            }
            Response::Held { pipeline, headers } if !end => {
                self.start_passing(pipeline, &headers, bytes, env)
            }
            Response::Held { pipeline, headers } => self.finish_held(pipeline, &headers, bytes, env),
            Response::Passing { pipeline, tap } => {
                self.pass_on(pipeline, tap, bytes, end);
                Next::Pass
            }
            Response::Streaming(stream) => self.stream_on(stream, bytes, end, env),
        }
    }

    /// A large answer starts to pass.
    fn start_passing(
        &mut self,
        pipeline: Box<Pipeline>,
        headers: &Headers,
        bytes: &[u8],
        env: &mut Env,
    ) -> Next {
        let tap = Box::new(Tap::new(Pipeline::NOTED, MAX_TAPPED_BYTES));
        let list = self.release(200, headers, None, false, env);
        self.pass_on(pipeline, tap, bytes, false);
        Next::Release(Release { headers: Some(list), ..Release::default() })
    }

    /// A part of a large response passes.
    fn pass_on(&mut self, mut pipeline: Box<Pipeline>, mut tap: Box<Tap>, bytes: &[u8], end: bool) {
        tap.push(bytes);
        pipeline.pass_by(bytes);
        if end {
            pipeline.note(&tap);
            self.complete(&pipeline);
        } else {
            self.response = Response::Passing { pipeline, tap };
        }
    }

    /// A buffered answer is complete.
    fn finish_held(
        &mut self,
        mut pipeline: Box<Pipeline>,
        headers: &Headers,
        bytes: &[u8],
        env: &mut Env,
    ) -> Next {
        let unpacked = if is_gzip(headers) { gunzip_all(bytes) } else { Ok(None) };
        let result = unpacked.and_then(|unpacked| {
            let body = unpacked.as_deref().unwrap_or(bytes);
            let whole = pipeline.whole(body)?;
            if self.is_cut_by_filter(body) {
                return Err(Error::provider(Class::ContentPolicyViolation, "the answer was blocked"));
            }
            Ok(whole.or(unpacked))
        });
        match result {
            Ok(body) => {
                self.complete(&pipeline);
                let length = body.as_ref().map_or(bytes.len(), Vec::len);
                let list = self.release(200, headers, Some(length), false, env);
                Next::Release(Release { headers: Some(list), body, ..Release::default() })
            }
            Err(error) => {
                self.charge_replaced(&pipeline, env);
                self.fail_with(error, env)
            }
        }
    }

    /// Whether a chat answer was stopped by a content filter and there is a fallback for that.
    fn is_cut_by_filter(&self, body: &[u8]) -> bool {
        let (Some(attempt), Some(plan), Dialect::Chat) = (&self.attempt, &self.plan, self.api.dialect) else {
            return false;
        };
        plan.minds_content_filter(&self.config) && attempt.format.is_filtered(body)
    }

    fn stream_on(&mut self, mut stream: Box<Streaming>, bytes: &[u8], end: bool, env: &mut Env) -> Next {
        let fresh = bytes.get(stream.seen..).unwrap_or_default();
        let unpacked = match stream.gunzip.as_mut().map(|gunzip| unpack(gunzip, fresh)).transpose() {
            Ok(unpacked) => unpacked,
            Err(error) => return self.fail_stream(&stream, error, env),
        };
        let mut out = Vec::with_capacity(fresh.len() + 64);
        let mut result = stream.pipeline.chunk(unpacked.as_deref().unwrap_or(fresh), &mut out);
        if result.is_ok() && end {
            result = stream.pipeline.end(&mut out);
        }
        if let Err(error) = result {
            return self.fail_stream(&stream, error, env);
        }
        if stream.headers.is_some() && out.is_empty() && !end {
            // Nothing to show yet (half an event): the attempt can still be retried.
            stream.seen = bytes.len();
            self.response = Response::Streaming(stream);
            return Next::Hold;
        }
        stream.seen = 0;
        let list = stream.headers.take().map(|headers| self.release(200, &headers, None, true, env));
        if end {
            self.complete(&stream.pipeline);
        } else {
            self.response = Response::Streaming(stream);
        }
        Next::Release(Release { headers: list, body: (out != bytes).then_some(out), ..Release::default() })
    }

    /// A stream that failed: a retry while its headers are still here, an event after that.
    fn fail_stream(&mut self, stream: &Streaming, error: Error, env: &mut Env) -> Next {
        if stream.headers.is_some() {
            return self.fail_with(error, env);
        }
        self.complete(&stream.pipeline);
        Next::Release(Release { body: Some(error.event(self.api.error_format)), ..Release::default() })
    }

    /// A failed answer has been read.
    fn failed(&mut self, body: &[u8], env: &mut Env) -> Next {
        let Response::Failing { status, headers } = std::mem::replace(&mut self.response, Response::Over)
        else {
            return Next::Pass;
        };
        if self.attempt.is_none() {
            return Next::Pass;
        }
        if let Some(failure) = self.no_response(status, &headers) {
            self.charge_hurried(&failure, env);
            return self.conclude(failure, &Headers::default(), env);
        }
        let unpacked = if is_gzip(&headers) { gunzip_all(body).ok().flatten() } else { None };
        let Some(attempt) = &self.attempt else { return Next::Pass };
        let failure =
            failure::read(attempt.format, status, &headers, unpacked.as_deref().unwrap_or(body), env.now_ms);
        self.conclude(failure, &headers, env)
    }

    /// An answer that looked fine and is not.
    fn fail_with(&mut self, error: Error, env: &mut Env) -> Next {
        let class = error.class().unwrap_or(Class::Api);
        let failed = |message: &str, words, status: Option<ErrorStatus>| Failure {
            words,
            status: status.map(Status::from),
            ..Failure::without_answer(class, message)
        };
        let (worded, status) = match error.fault {
            // Translations say whose fault it is themselves; what comes from a stream's own error event does not.
            Fault::Provider(ProviderFault { form: Form::Bare, words, status, .. }) => {
                (failed(&error.message, words, status).to_error(self.title()), status)
            }
            Fault::Provider(ProviderFault { status, .. }) => (error, status),
            Fault::Request(RequestFault::Foreseen(_)) => (error, None),
            _ => (failed(&error.message, Words::Ours, None).to_error(self.title()), None),
        };
        self.note_error(worded);
        self.conclude(failed("", Words::Ours, status), &Headers::default(), env)
    }

    /// Notes a failure and asks Envoy for a retry when there is somewhere to go. What is released is bare: if it gets to the
    /// policy role after all, that words it for the client (see [`Exchange::on_release`]).
    fn conclude(&mut self, failure: Failure, headers: &Headers, env: &mut Env) -> Next {
        self.response = Response::Over;
        if !failure.message.is_empty() || self.first_error.is_none() {
            self.note_error(failure.to_error(self.title()));
        }
        self.cool_down(failure.clone(), env);
        self.failure_headers = copied(headers);
        self.released = Released::Failure;
        let mut list = Headers::with_capacity(4);
        list.push_number(":status", failure.class.status().get().into());
        list.push("content-length", b"0");
        let (failed, used) = (self.plan.as_ref().map(Plan::current), self.retries);
        let next = self.advance(failure.class, failure.status, env);
        if let Some(next) = next {
            list.push(RETRY_HEADER, b"1");
            // Whoever has not failed need not be waited for.
            if failed.is_some_and(|failed| failed.is_same_group(next) && failed.deployment == next.deployment)
            {
                let least_ms = self.config.router.retry_after_ms;
                let seconds = retries::wait_seconds(used, failure.retry_after_ms, least_ms);
                list.push_number(WAIT_HEADER, seconds);
            }
        }
        let next_cluster = next.map(|next| self.cluster_of(Some(next)));
        Next::Release(Release { headers: Some(list), body: Some(Vec::new()), next_cluster })
    }

    /// What an answer has used that the client has seen the beginning of and not the end.
    pub(super) fn unfinished(&self) -> Option<record::Completed> {
        match &self.response {
            Response::Streaming(stream) if stream.headers.is_none() => {
                Some(self.completed_by(&stream.pipeline))
            }
            Response::Passing { pipeline, .. } => Some(self.completed_by(pipeline)),
            _ => None,
        }
    }

    /// Whether a provider has been asked and the client has seen nothing of an answer or a failure yet.
    pub(super) fn is_under_way(&self) -> bool {
        self.sent
            && match &self.response {
                Response::None | Response::Held { .. } => true,
                Response::Streaming(stream) => stream.headers.is_some(),
                Response::Failing { .. } | Response::Passing { .. } | Response::Over => false,
            }
    }

    /// The answer has been read to its end.
    fn complete(&mut self, pipeline: &Pipeline) {
        self.response = Response::Over;
        self.completed = Some(self.completed_by(pipeline));
    }

    fn completed_by(&self, pipeline: &Pipeline) -> record::Completed {
        record::Completed::of(pipeline, pipeline.used(|| self.prompt_tokens()))
    }

    /// All headers of a good answer.
    fn release(
        &mut self,
        status: u16,
        provider: &Headers,
        length: Option<usize>,
        streaming: bool,
        env: &mut Env,
    ) -> Headers {
        self.released = Released::Response;
        self.status = status;
        self.first_ms = env.now_ms;
        let deployment =
            self.plan.as_ref().and_then(|plan| self.config.deployments.get(plan.current().deployment));
        if let Some(deployment) = deployment.filter(|deployment| !deployment.group.contains('*')) {
            cooldown::succeeded(env.shared, deployment, env.now_ms);
        }
        let cached = self.plan.as_ref().and_then(Plan::cached);
        if let (Some(deployment), Some(fingerprint)) = (deployment, cached) {
            affinity::note(env.shared, fingerprint, deployment, env.now_ms);
        }
        let kind = match provider.text("content-type") {
            Some(kind)
                if self.api.operation == Operation::Embed
                    || (!streaming && kind.starts_with("application/json")) =>
            {
                kind
            }
            _ => content_type(streaming),
        };
        let mut list = self.base_headers(status, kind, length);
        if length.is_some() {
            self.add_cost_header(&mut list);
            self.add_time_headers(&mut list, env.now_ms);
        }
        if self.retries > 0 {
            let most = self
                .plan
                .as_ref()
                .and_then(Plan::segment)
                .map_or(0, |segment| segment.attempts.saturating_sub(1));
            list.push_number("x-litellm-max-retries", most.into());
        }
        let copied = copied(provider);
        self.add_limit_headers(&mut list, Some(&copied));
        list.append(&copied);
        list
    }

    /// The headers that every answer of this request has.
    fn base_headers(&self, status: u16, kind: &str, length: Option<usize>) -> Headers {
        let mut list = Headers::with_capacity(32);
        list.push_number(":status", status.into());
        list.push("content-type", kind.as_bytes());
        if let Some(length) = length {
            list.push_number("content-length", u64::try_from(length).unwrap_or(u64::MAX));
        }
        self.add_gateway_headers(&mut list);
        if self.cors {
            local::CORS.iter().for_each(|(name, value)| list.push(name, value.as_bytes()));
        }
        list
    }

    /// `x-litellm-*` headers of this request.
    pub(super) fn add_gateway_headers(&self, list: &mut Headers) {
        list.push("x-litellm-call-id", self.call_id.as_bytes());
        list.push("x-litellm-version", env!("CARGO_PKG_VERSION").as_bytes());
        self.add_routing_headers(list);
    }

    /// `x-litellm-response-cost`, when usage and price are known.
    pub(super) fn add_cost_header(&self, list: &mut Headers) {
        if let Some(cost) = self.cost() {
            list.push_shown("x-litellm-response-cost", cost);
        }
    }

    /// How long the call took, and how much of that was none of a provider's, in milliseconds. As in LiteLLM, an answer that goes out
    /// before it is whole has neither.
    pub(super) fn add_time_headers(&self, list: &mut Headers, now_ms: u64) {
        let whole = now_ms.saturating_sub(self.started_ms);
        let overhead = whole.saturating_sub(self.earlier_ms).saturating_sub(self.took_ms);
        list.push_number("x-litellm-response-duration-ms", whole);
        list.push_number("x-litellm-overhead-duration-ms", overhead);
    }
}

/// A provider's headers for the client: each as `llm_provider-…`, and the rate-limit ones under their own names too.
fn copied(provider: &Headers) -> Headers {
    let mut list = Headers::with_capacity(provider.len() + 2);
    for (name, value) in provider.raw() {
        if name.starts_with(b":") || name.starts_with(b"x-envoy-") {
            continue;
        }
        let name = std::str::from_utf8(name).unwrap_or_default();
        if DROPPED.contains(&name) {
            continue;
        }
        list.push_with(&["llm_provider-", name], |bytes| bytes.extend_from_slice(value));
        if name.starts_with("x-ratelimit-") {
            list.push(name, value);
        } else if let Some(same) = from_anthropic(name) {
            list.push(same, value);
        }
    }
    list
}

/// OpenAI's name for one of Anthropic's rate-limit headers.
fn from_anthropic(name: &str) -> Option<&'static str> {
    Some(match name {
        "anthropic-ratelimit-requests-limit" => "x-ratelimit-limit-requests",
        "anthropic-ratelimit-requests-remaining" => "x-ratelimit-remaining-requests",
        "anthropic-ratelimit-tokens-limit" => "x-ratelimit-limit-tokens",
        "anthropic-ratelimit-tokens-remaining" => "x-ratelimit-remaining-tokens",
        _ => return None,
    })
}

fn is_gzip(headers: &Headers) -> bool {
    headers.text("content-encoding").is_some_and(|encoding| encoding.trim().eq_ignore_ascii_case("gzip"))
}

/// The most that a compressed answer may become: a small bomb must not fill the VM.
const MAX_UNPACKED_BYTES: usize = 256 * 1024 * 1024;

/// A whole gzip body, unpacked.
fn gunzip_all(bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    use std::io::Read;

    let mut plain = Vec::with_capacity(bytes.len().saturating_mul(4));
    let limit = u64::try_from(MAX_UNPACKED_BYTES).unwrap_or(u64::MAX);
    match flate2::read::GzDecoder::new(bytes).take(limit).read_to_end(&mut plain) {
        Ok(length) if length < MAX_UNPACKED_BYTES => Ok(Some(plain)),
        _ => Err(broken_gzip()),
    }
}

/// What one more chunk of a gzip stream unpacks to.
fn unpack(gunzip: &mut Gunzip, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    use std::io::Write;

    gunzip.write_all(bytes).and_then(|()| gunzip.flush()).map_err(|_| broken_gzip())?;
    Ok(std::mem::take(gunzip.get_mut()))
}

fn broken_gzip() -> Error {
    Error::provider(Class::Api, "the provider's answer is not valid gzip, or larger than 256 MiB unpacked")
}
