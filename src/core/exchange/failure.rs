//! What has failed, and how the client is told: the first error counts, worded for it in one place.

use super::{Env, Exchange, Next, Released, Reply, TOO_SLOW, count, local, open::too_large};
use crate::core::{
    access::refusals,
    error::{Error, RequestFault},
    headers::Headers,
    model::{
        failure::{Class, Failure},
        money::Money,
        router::Strategy,
        status::{ErrorStatus, Status},
    },
    route::{
        cooldown,
        latency::{self, Sample},
        plan::Plan,
    },
};

impl Exchange {
    /// The current candidate's brand as messages name it.
    pub(super) fn title(&self) -> &'static str {
        let deployment = self.plan().map(|plan| plan.current().deployment);
        deployment
            .and_then(|at| self.config.deployments.get(at))
            .map_or("", |deployment| deployment.brand.title)
    }

    /// Keeps the first error: it is what the client sees when everything fails (LiteLLM's rule).
    pub(super) fn note_error(&mut self, mut error: Error) {
        if self.delivery.first_error.is_none() {
            if let Some(id) = self.delivery.provider_request_id.take() {
                error.native.get_or_insert_default().request_id = Some(id);
            }
            self.delivery.first_error = Some(error);
        }
    }

    /// The error the client gets when nothing is left, with LiteLLM's notes on the group and its fallbacks.
    pub(super) fn final_error(&self) -> Error {
        let mut error = self
            .delivery
            .first_error
            .clone()
            .unwrap_or_else(|| Error::internal("the request failed without an error"));
        if let (Some(_), Some(plan)) = (error.class(), self.plan()) {
            let first = plan.asked();
            let others: Vec<String> = plan.fallbacks().map(|name| format!("'{name}'")).collect();
            let others =
                if others.is_empty() { "None".to_owned() } else { format!("[{}]", others.join(", ")) };
            error.message = format!(
                "{}. Received Model Group={first}\nAvailable Model Group Fallbacks={others}",
                error.message.trim_end_matches('.')
            );
        }
        error
    }

    /// The call is over before its body is read.
    pub(super) fn end_with(&mut self, error: Error) {
        self.delivery.released = Released::Response;
        self.delivery.status = Some(error.status_in(self.received.api.error_format).into());
        self.delivery.told = Some(error.clone());
        self.delivery.first_error = Some(error);
    }

    /// The reply for an error, and the end of this exchange.
    pub(super) fn refuse(&mut self, error: Error) -> Reply {
        self.delivery.released = Released::Response;
        self.delivery.status = Some(error.status_in(self.received.api.error_format).into());
        let mut reply = local::refusal(&error, self.received.api.error_format, &self.received.call_id);
        let mut more = Headers::with_capacity(16);
        self.add_routing_headers(&mut more);
        self.add_limit_headers(&mut more, None);
        if more.get("x-litellm-key-spend").is_none()
            && let Some(grant) = self.caller.grant()
        {
            let spend = Money::from_pico(grant.key.budget.spend.into());
            more.push("x-litellm-key-spend", refusals::dollars(spend).as_bytes());
        }
        match self.cost() {
            Some(cost) => more.push_shown("x-litellm-response-cost", cost),
            None => more.push("x-litellm-response-cost", b"0"),
        }
        reply.extend(&more);
        if error.class() == Some(Class::Timeout) {
            let ms = self.plan().map_or(0, |plan| self.timeout_ms(plan.current().deployment));
            reply.headers.push(("x-litellm-timeout".to_owned(), seconds(ms)));
        }
        self.delivery.told = Some(error.clone());
        self.delivery.first_error.get_or_insert(error);
        local::add_cors(&mut reply, self.received.cors);
        reply
    }

    /// Headers are on their way to the client: a response that passes, or a failure that was not retried, or Envoy's own
    /// reply, in whose place another goes.
    pub fn on_release(&mut self, status: Option<Status>, details: &str, env: &mut Env) -> Next {
        match self.delivery.released {
            Released::Response => return Next::Pass,
            Released::Failure => {}
            Released::Nothing => {
                let error = self.envoy_error(status, details, env.now_ms);
                if let (Some(class), Some(_)) = (error.class(), self.attempt()) {
                    let failure = Failure::without_answer(class, &error.message);
                    if self.is_under_way() {
                        self.charge_hurried(&failure, env);
                    }
                    self.charge_unjudged(env);
                    self.cool_down(failure, env);
                }
                self.note_error(error);
            }
        }
        let error = self.final_error();
        let mut reply = self.refuse(error);
        let provider = std::mem::take(&mut self.delivery.failure_headers);
        // A provider's own limits stand before ours.
        reply.headers.retain(|(name, _)| !name.starts_with("x-ratelimit-") || provider.get(name).is_none());
        reply.extend(&provider);
        Next::Reply(reply)
    }

    /// What a reply of Envoy itself means.
    fn envoy_error(&self, status: Option<Status>, details: &str, now_ms: u64) -> Error {
        let title = self.title();
        let failed = |class: Class, message: &str| Failure::without_answer(class, message).to_error(title);
        match status.map(Status::get) {
            Some(413) => too_large(&self.config),
            Some(408 | 504) if !details.contains("request_overall_timeout") || self.plan().is_some() => {
                failed(Class::Timeout, "no answer within the time-out")
            }
            Some(408) => Error::of(RequestFault::TooSlow, TOO_SLOW),
            Some(404) => Error::of(RequestFault::NotFound, format!("Not Found: `{}`.", self.received.path)),
            Some(400..=499) => unreadable(status),
            Some(502 | 503) => self.ended_without_response(now_ms).to_error(title),
            _ => failed(Class::InternalServer, "the gateway could not complete the request."),
        }
    }

    /// Notes a failed call on the deployment of the current attempt.
    pub(super) fn cool_down(&mut self, failure: Failure, env: &Env) {
        let rest_ms = self.rest(&failure, env);
        self.tell_failure(&failure, rest_ms);
    }

    /// Notes a failed call likewise, and says how many milliseconds the deployment cools down for it.
    fn rest(&self, failure: &Failure, env: &Env) -> Option<u64> {
        let attempt = self.attempt()?;
        // A provider that does not count tokens may answer all the same.
        if count::is_unknown(failure.status) && !self.is_metered() {
            return None;
        }
        let deployment = self.config.deployments.get(attempt.candidate.deployment)?;
        let router = &self.config.router;
        // A caller who allows less time than the deployment is given learns nothing about it.
        if failure.class == Class::Timeout
            && failure.status.is_none()
            && self.is_hurried(attempt.candidate.deployment)
        {
            return None;
        }
        if router.strategy == Strategy::LatencyBased && failure.class == Class::Timeout {
            latency::note(env.shared, deployment, Sample::timed_out(), &router.latency, env.now_ms);
        }
        // Wildcards stand for whole providers: one bad name must not take all others down.
        if deployment.group.contains('*') {
            return None;
        }
        let group_size = self.plan().and_then(Plan::segment).map_or(1, |segment| segment.group_size);
        let failed = cooldown::FailedAttempt {
            class: failure.class,
            status: failure.status.unwrap_or(failure.class.status().into()),
            retry_after_ms: failure.retry_after_ms,
            group_size,
        };
        cooldown::failed(env.shared, router, deployment, failed, env.now_ms)
    }
}

/// Milliseconds as seconds, the way LiteLLM prints times: a float's text.
fn seconds(ms: u64) -> String {
    format!("{:?}", ms as f64 / 1_000.0)
}

/// What Envoy's refusal of a request means of whose call nothing is known yet.
pub fn refused_early(status: Option<Status>) -> Error {
    match status.map(Status::get) {
        Some(413) => Error::of(RequestFault::TooLarge, "the request body is too large."),
        Some(408 | 504) => Error { message: TOO_SLOW.to_owned(), ..unreadable(status) },
        _ => unreadable(status),
    }
}

/// The refusal of a request that the host could not read and gave this status.
fn unreadable(status: Option<Status>) -> Error {
    let status = status.and_then(|status| ErrorStatus::new(status.get()));
    let status = status.unwrap_or(ErrorStatus::INTERNAL_SERVER_ERROR);
    Error::of(RequestFault::Unreadable(status), "the request could not be read.")
}
