//! One attempt: the request as a provider wants it, made from the client's original body.

use super::{Env, Exchange, Next, Phase, Released, next::UpstreamRequest, response::Response};
use crate::core::{
    codec::json::Object,
    error::Error,
    format::{
        self,
        prepare::Prepare,
        translate::{self, Back},
    },
    headers::Headers,
    model::{deployment::Deployment, money::Money, terms::Terms},
    provider::{
        auth,
        params::without_series,
        target::{Target, body_model, target},
        url::{self, Call},
    },
    route::plan::{Candidate, Plan},
};

/// An attempt that has gone to its provider.
pub(super) struct Attempt {
    /// What is being called.
    pub candidate: Candidate,
    /// The format spoken.
    pub format: format::Ref,
    /// The model asked for.
    pub model: String,
    /// What the call is charged by, as it was asked.
    pub terms: Terms,
    /// Whether the response goes to the client as it comes.
    pub passes: bool,
    /// Whether somebody judges the response before the client sees it.
    pub is_guarded: bool,
    /// When it began, Unix milliseconds.
    pub started_ms: u64,
    /// Milliseconds from there to the newest part of the response.
    pub took_ms: u64,
    /// The request has gone to the provider, and nothing has been charged for it yet.
    pub sent: bool,
    pub response: Response,
}

/// A request that is built for a candidate, and the way back of its response.
#[derive(Debug)]
pub(super) struct Built {
    request: UpstreamRequest,
    format: format::Ref,
    model: String,
    terms: Terms,
    back: Back,
}

/// What an attempt begins with.
#[derive(Debug)]
pub struct Start {
    /// The cluster to name for the attempt after this one; `None` leaves what stands there.
    pub next_cluster: Option<String>,
    /// [`Next::ReadBody`]: the client's body is wanted again, by [`Exchange::on_retry_body`].
    pub next: Next,
}

impl Exchange {
    /// An attempt begins: Envoy has opened the cluster that was named last.
    pub fn on_attempt(&mut self, env: &mut Env) -> Start {
        if self.attempts() > 0 {
            self.previous_is_over(env);
        }
        self.route.iter_mut().for_each(|route| route.attempts = route.attempts.saturating_add(1));
        self.delivery.released = Released::Nothing;
        self.delivery.provider_request_id = None;
        let built = self.take_built();
        let Some(plan) = self.plan() else {
            let reply = self.refuse(Error::internal("an attempt began before its request was read"));
            return Start { next_cluster: None, next: Next::Reply(reply) };
        };
        let candidate = plan.current();
        let following = plan.following(&self.config, &mut |at| self.has_room(at, env));
        // A plan of one attempt leaves the name as it is: Envoy has been told not to retry.
        let next_cluster = (plan.max_retries() > 0).then(|| self.cluster_of(following));
        self.route.iter_mut().for_each(|route| route.next_candidate = following);
        if !self.take_slot(env) || self.enter_group(env).is_err() {
            let error = self.final_error();
            let reply = self.refuse(error);
            return Start { next_cluster: None, next: Next::Reply(reply) };
        }
        let next = match built {
            Some(built) => Next::Send(self.start(candidate, built, env)),
            None => Next::ReadBody,
        };
        Start { next_cluster, next }
    }

    /// The first attempt's request; the others read the body again.
    fn take_built(&mut self) -> Option<Built> {
        match std::mem::replace(&mut self.phase, Phase::Retrying(None)) {
            Phase::Built(built) => return Some(built),
            Phase::Attempting(attempt) => self.phase = Phase::Retrying(Some(attempt)),
            phase => self.phase = phase,
        }
        None
    }

    /// The body of an attempt after the first.
    pub fn on_retry_body(&mut self, body: &[u8], env: &mut Env) -> Next {
        let Some(candidate) = self.plan().map(Plan::current) else {
            return Next::Reply(self.refuse(Error::internal("a retry has no plan")));
        };
        if self.counts_here(candidate.deployment) {
            let changed = self.received.changed.clone();
            let object = self.members(changed.as_deref().unwrap_or(body));
            let reply = object.and_then(|object| self.count_reply(&object, env));
            return Next::Reply(reply.unwrap_or_else(|error| self.refuse(error)));
        }
        let mock = self.config.deployments.get(candidate.deployment).and_then(|d| d.mock_response.clone());
        if let Some(mock) = mock {
            let reply = self.mock_reply(&mock, env).unwrap_or_else(|error| self.refuse(error));
            return Next::Reply(reply);
        }
        let changed = self.received.changed.clone();
        let object = self.members(changed.as_deref().unwrap_or(body));
        match object.and_then(|object| self.build(candidate, object)) {
            Ok(built) => Next::Send(self.start(candidate, built, env)),
            Err(error) => {
                self.note_error(error);
                let error = self.final_error();
                Next::Reply(self.refuse(error))
            }
        }
    }

    fn start(&mut self, candidate: Candidate, built: Built, env: &Env) -> UpstreamRequest {
        self.tell_attempt(candidate);
        let Built { request, format, model, terms, back } = built;
        if let Some(before) = self.attempt() {
            let before_ms = env.now_ms.saturating_sub(before.started_ms);
            self.delivery.earlier_ms = self.delivery.earlier_ms.saturating_add(before_ms);
        }
        self.phase = Phase::Attempting(Attempt {
            candidate,
            format,
            model,
            terms,
            passes: back.passes(),
            is_guarded: !env.seams.guards.is_empty(),
            started_ms: env.now_ms,
            took_ms: 0,
            sent: true,
            response: Response::Awaited(back),
        });
        request
    }

    /// An attempt that ended without a response (refused, reset, timed out) is only seen when the next one begins.
    fn previous_is_over(&mut self, env: &mut Env) {
        if self.delivery.released == Released::Failure {
            return;
        }
        let failure = self.ended_without_response(env.now_ms);
        let title = self.title();
        self.note_error(failure.to_error(title));
        if self.is_under_way() {
            self.charge_hurried(&failure, env);
        }
        self.charge_unjudged(env);
        self.cool_down(failure, env);
        self.release_slot(0, Money::ZERO, env);
        let next = self.route.as_ref().and_then(|route| route.next_candidate);
        if let (Some(next), Some(plan)) = (next, self.plan_mut()) {
            let before = plan.current();
            plan.take(next);
            self.count_move(before, next);
        }
    }

    /// Makes the request for a candidate out of the client's body.
    pub(super) fn build(&self, candidate: Candidate, mut object: Object<'_>) -> Result<Built, Error> {
        let deployment = self
            .config
            .deployments
            .get(candidate.deployment)
            .ok_or_else(|| Error::internal("a plan names a deployment that is not configured"))?;
        let segment = self.plan().and_then(|plan| plan.segment_of(candidate));
        let segment = segment.ok_or_else(|| Error::internal("a candidate has no segment"))?;
        let captures: Vec<&str> = segment.captures.iter().map(String::as_str).collect();
        let model = deployment.model_for(&segment.requested, &captures);
        let format = format::spoken(deployment, self.received.api)?;

        for (name, value) in &segment.overrides {
            // How the response comes has been settled with the client.
            if !["stream", "stream_options"].contains(&name.as_str()) {
                object.set(name.clone(), value.to_string());
            }
        }
        let called = without_series(deployment.brand, &model);
        let body_model = body_model(deployment, called);
        let api_version = self.received.api_version.as_deref();
        let prepare = Prepare {
            deployment,
            model: &body_model,
            from: format::of(self.received.api),
            to: format,
            streaming: self.requested.streaming,
            drop_params: deployment.drop_params.unwrap_or(self.config.general.drop_params),
            accepts: deployment.accepts_of(&model),
            api_version: url::api_version(deployment, api_version),
        };
        let translated = translate::request(
            object,
            &prepare,
            deployment.modify_params.unwrap_or(self.config.general.modify_params),
            self.requested.include_usage,
        )?;
        let mut where_to = target(&Call {
            deployment,
            leaf: format.path(),
            headers: format.headers(),
            model: called,
            api_version,
        });
        where_to.headers.append(&translated.headers);
        let mut headers =
            self.header_list(deployment, format, where_to, &translated.betas, translated.body.len());
        self.add_timeout_headers(&mut headers, candidate.deployment, deployment);
        auth::sign(deployment, &mut headers);
        let request = UpstreamRequest { headers, body: translated.body };
        Ok(Built { request, format, model, terms: translated.terms, back: translated.back })
    }

    /// All headers of the provider's request. The list replaces the client's headers as a whole: nothing of the client's, and
    /// nothing of an earlier attempt's, reaches a provider by accident.
    fn header_list(
        &self,
        deployment: &Deployment,
        format: format::Ref,
        where_to: Target,
        betas: &[String],
        length: usize,
    ) -> Headers {
        let mut list = Headers::with_capacity(12 + where_to.headers.len());
        list.push(":method", b"POST");
        list.push(":scheme", if deployment.endpoint.tls { b"https" } else { b"http" });
        list.push(":authority", where_to.authority.as_bytes());
        list.push(":path", where_to.path.as_bytes());
        list.push("content-type", b"application/json");
        list.push_number("content-length", u64::try_from(length).unwrap_or(u64::MAX));
        list.push(
            "accept",
            match self.requested.streaming {
                true => format.framing().media_type().as_bytes(),
                false => b"application/json",
            },
        );
        // Compressed responses would have to be unpacked to be read.
        list.push("accept-encoding", b"identity");
        list.push("user-agent", concat!("tollgate/", env!("CARGO_PKG_VERSION")).as_bytes());
        let mut betas: Vec<&[u8]> = betas.iter().map(|beta| beta.as_bytes()).collect();
        for (name, value) in self.received.forwarded.iter().chain(where_to.headers.iter()) {
            // What steers Envoy is nobody's to add.
            if name.starts_with("x-tollgate-") || name.starts_with("x-envoy-") {
                continue;
            }
            if name == "anthropic-beta" {
                betas.insert(0, value);
                continue;
            }
            list.set(name, value);
        }
        if !betas.is_empty() {
            list.push("anthropic-beta", &betas.join(&b","[..]));
        }
        list
    }
}
