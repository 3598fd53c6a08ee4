//! Time-outs that differ between the attempts of one request.
//!
//! Envoy gives all attempts of a request one time-out, read when the request begins: the longest of all that may be tried.
//! An attempt that may take less than that goes through an Envoy listener inside the process, whose connection manager does
//! nothing but keep the attempt's own time-out and pass the request on to the deployment's cluster. All other attempts go
//! straight to the cluster.

use super::{Exchange, NO_CLUSTER};
use crate::core::{
    config::MAX_TIMEOUT_MS,
    headers::Headers,
    model::{
        deployment::Deployment,
        failure::{Class, Failure},
        status::Status,
    },
    route::plan::{Candidate, Plan},
};

/// The cluster that leads to the listener inside.
pub const TIMED_CLUSTER: &str = "tollgate_timed";
/// Request header: the cluster to pass the request on to.
pub const CLUSTER_HEADER: &str = "x-tollgate-cluster";
/// Request header: milliseconds until the response must be complete; 0 is for ever.
pub const WHOLE_HEADER: &str = "x-tollgate-whole-ms";
/// Request header: milliseconds until the response must have begun; 0 is for ever.
pub const BEGIN_HEADER: &str = "x-tollgate-begin-ms";
/// Response header: the listener inside made this response because there was none.
pub const NO_RESPONSE_HEADER: &str = "x-tollgate-no-answer";

/// What an attempt that took all its time may seem to have missed of it: two clocks are compared.
const SLACK_MS: u64 = 20;

impl Exchange {
    /// How long one attempt on a deployment may take: until the first byte of a stream, until the end of anything else.
    pub(super) fn timeout_ms(&self, deployment: usize) -> u64 {
        self.configured_timeout_ms(deployment).clamp(1, MAX_TIMEOUT_MS)
    }

    fn configured_timeout_ms(&self, deployment: usize) -> u64 {
        self.timeout_with(self.requested.timeout_ms, self.requested.stream_timeout_ms, deployment)
    }

    /// Whether the request allows a deployment less time than the configuration does.
    pub(super) fn is_hurried(&self, deployment: usize) -> bool {
        self.configured_timeout_ms(deployment) < self.timeout_with(None, None, deployment)
    }

    /// The time-out of a request that asks for these.
    fn timeout_with(&self, asked: Option<u64>, asked_streamed: Option<u64>, deployment: usize) -> u64 {
        let deployment = self.config.deployments.get(deployment);
        let router = &self.config.router;
        let whole = asked.or(deployment.and_then(|d| d.timeout_ms)).unwrap_or(router.timeout_ms);
        if !self.requested.streaming {
            return whole;
        }
        let streamed = asked_streamed.or(deployment.and_then(|d| d.stream_timeout_ms));
        streamed.or(router.stream_timeout_ms).unwrap_or(whole)
    }

    /// The longest time-out of all attempts that are planned.
    pub(super) fn longest_timeout_ms(&self) -> u64 {
        let deployments = self.plan().into_iter().flat_map(Plan::deployments);
        deployments.map(|at| self.timeout_ms(at)).max().unwrap_or(MAX_TIMEOUT_MS)
    }

    /// Whether attempts on a deployment must end before Envoy would end them.
    fn has_own_timeout(&self, deployment: usize) -> bool {
        self.route.as_ref().is_some_and(|route| self.timeout_ms(deployment) < route.per_try_timeout_ms)
    }

    /// The cluster to name for a candidate.
    pub(super) fn cluster_of(&self, candidate: Option<Candidate>) -> String {
        let Some(at) = candidate.map(|candidate| candidate.deployment) else { return NO_CLUSTER.to_owned() };
        // A mock is answered when its attempt begins; all it needs is a cluster that can always be reached.
        let is_mock =
            self.config.deployments.get(at).is_some_and(|deployment| deployment.mock_response.is_some());
        if is_mock || self.has_own_timeout(at) {
            return TIMED_CLUSTER.to_owned();
        }
        self.config
            .deployments
            .get(at)
            .map_or(NO_CLUSTER, |deployment| deployment.cluster.as_str())
            .to_owned()
    }

    /// Headers that tell the listener inside where an attempt goes and how long it may take.
    pub(super) fn add_timeout_headers(&self, list: &mut Headers, at: usize, deployment: &Deployment) {
        if !self.has_own_timeout(at) {
            return;
        }
        let limit = self.timeout_ms(at);
        let (whole, begin) = if self.requested.streaming { (0, limit) } else { (limit, 0) };
        list.push(CLUSTER_HEADER, deployment.cluster.as_bytes());
        list.push_number(WHOLE_HEADER, whole);
        list.push_number(BEGIN_HEADER, begin);
    }

    /// The failure behind a response that Envoy made because there was none.
    pub(super) fn no_response(&self, status: Option<Status>, headers: &Headers) -> Option<Failure> {
        let timed = self.attempt().is_some_and(|attempt| self.has_own_timeout(attempt.candidate.deployment));
        headers.get(NO_RESPONSE_HEADER).filter(|_| timed)?;
        Some(without_answer(if status == Status::new(504) { Class::Timeout } else { Class::ApiConnection }))
    }

    /// The failure of an attempt that ended without a response. Envoy does not say why: one that took as long as it may take
    /// has timed out.
    pub(super) fn ended_without_response(&self, now_ms: u64) -> Failure {
        let timed_out = self.attempt().is_some_and(|attempt| {
            let limit = self.timeout_ms(attempt.candidate.deployment);
            now_ms.saturating_sub(attempt.started_ms) >= limit - SLACK_MS.min(limit / 10)
        });
        without_answer(if timed_out { Class::Timeout } else { Class::ApiConnection })
    }
}

fn without_answer(class: Class) -> Failure {
    let message = if class == Class::Timeout { "no answer within the time-out" } else { "Connection error." };
    Failure::without_answer(class, message)
}
