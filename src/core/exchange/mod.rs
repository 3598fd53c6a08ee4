//! The life of one request, from its headers to its record: a state machine with no input or output of its own.
//!
//! Facts come in through `on_*` methods, with the time, chance and the shared store as arguments; what the host is to do
//! comes back as values. The order of calls:
//!
//! | who | method | what comes back |
//! |---|---|---|
//! | policy | [`open`] | an answer at once, a record to fetch first, or an [`Exchange`] that waits for the body |
//! | policy | [`Exchange::on_body`] | forward to a cluster, answer, wait, or fetch a record and come back |
//! | provider, once per attempt | [`Exchange::on_attempt`] | the request as this provider wants it, and who is next |
//! | provider | [`Exchange::on_retry_body`] | the same for attempts after the first, which read the body again |
//! | provider | [`Exchange::on_response_headers`], [`Exchange::on_response_body`] | hold, pass, or release with new headers and body |
//! | policy | [`Exchange::on_release`] | what to do with headers on their way to the client (Envoy's own replies included) |
//! | policy | [`Exchange::on_done`] | the [`CallRecord`](crate::core::model::call_record::CallRecord); must come for every exchange, because it gives back what is reserved |

pub mod attempt;
pub mod attempt_timeout;
pub mod bounds;
mod early;
mod event;
mod groups;
mod listing;
pub mod local;
mod lookup;
pub mod mock;
pub mod next;
mod open;
pub mod output_lengths;
pub mod prompt;
pub mod record;
pub mod request_params;
mod reservation;
pub mod response;
mod slot;
#[cfg(test)]
mod tests;
mod trail;

pub use lookup::learn;
pub use next::{Callout, Forward, Next, Reply};
pub use open::{EXTERNAL_ADDRESS, Opened, client_address, open};

use std::rc::Rc;

use crate::core::{
    access::{
        Caller,
        keyring::Keyring,
        models::{self, Names},
        refusals,
    },
    codec::json::Object,
    config::Config,
    error::{Error, RequestFault},
    exchange::{
        attempt::{Attempt, Built},
        groups::Entered,
        next::Then,
        open::{size_allowed, too_large},
        output_lengths::OutputLengths,
        request_params::{MAX_MODEL_BYTES, Requested},
        reservation::CallerReservation,
        response::Response,
        slot::Slot,
    },
    headers::Headers,
    host::{CallResponse, Store},
    model::{
        failure::{Class, Failure},
        money::Money,
        router::Strategy,
        status::{ErrorStatus, Status},
        virtual_key::EndUser,
    },
    operation::ApiRef,
    quota::Worker,
    random::Random,
    route::{
        affinity, chain, cooldown,
        latency::{self, Sample},
        plan::{Candidate, Plan},
        world::{RoutingInput, World},
    },
};

/// A header that a released answer carries when Envoy is to try again; the route's `retriable_headers` names it.
pub const RETRY_HEADER: &str = "x-tollgate-retry";
/// A header beside it: the least seconds that Envoy is to wait before; the route's `rate_limited_retry_back_off` names it.
pub const WAIT_HEADER: &str = "x-tollgate-wait";
/// The cluster named when there is nothing left to try. No such cluster exists, so Envoy gives up.
pub const NO_CLUSTER: &str = "tollgate_none";

/// What is said of a request whose body did not come within `tollgate_settings.upload_timeout`.
pub const TOO_SLOW: &str = "The request did not arrive in time. Send the body without a pause, or raise `tollgate_settings.upload_timeout`.";

/// What a callback may look at besides its own facts.
pub struct Env<'e> {
    /// What all workers share.
    pub shared: &'e dyn Store,
    /// Unix milliseconds.
    pub now_ms: u64,
    /// Chance.
    pub random: &'e mut Random,
    /// This VM's copies of the ledger's records.
    pub keys: &'e mut Keyring,
    /// How long answers are in this VM.
    pub output_lengths: &'e mut OutputLengths,
    /// Who this VM is among all that count requests in flight.
    pub worker: Worker,
    /// The client's address without a port, read only when something needs it.
    pub client: &'e dyn Fn() -> Option<String>,
}

impl Env<'_> {
    /// The same as planning wants it.
    fn world<'w>(&'w mut self, config: &'w Config) -> World<'w> {
        World {
            config,
            shared: self.shared,
            now_ms: self.now_ms,
            random: &mut *self.random,
            worker: self.worker,
            trace: None,
        }
    }
}

/// What has gone to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Released {
    /// Nothing.
    Nothing,
    /// An answer, ours or a provider's.
    Response,
    /// A failure without words. Envoy may retry it; if it does not, the client gets the first error.
    Failure,
}

/// One request.
pub struct Exchange {
    /// Its name in filter state.
    pub id: u64,
    config: Rc<Config>,
    /// Who calls.
    caller: Caller,
    call_id: String,
    /// `x-request-id`, when it is not the call's id.
    request_id: Option<String>,
    started_ms: u64,
    api: ApiRef,
    /// The path as the client wrote it.
    path: String,
    path_model: Option<String>,
    api_version: Option<String>,
    /// The client's address, when somebody is to know it: the ledger, or the access log behind proxies.
    client: Option<String>,
    /// Client headers to hand on (`forward_client_headers_to_llm_api`).
    forwarded: Headers,
    /// The client is a browser that needs CORS headers.
    cors: bool,
    controls: Headers,
    requested: Requested,
    /// `allowed_model_region` of the end user.
    region: Option<String>,
    plan: Option<Plan>,
    /// What it holds of its caller's limits and budgets.
    reservation: CallerReservation,
    /// The group that stands in for the one asked for, and what it holds of its caller's limits there.
    entered: Option<Entered>,
    /// What it holds of its deployment's.
    slot: Slot,
    /// What answers used that the client never saw, because another took their place.
    served: Option<record::Served>,
    /// The longest time-out of all planned attempts, which is the one Envoy has for each of them.
    per_try_timeout_ms: u64,
    attempts: u32,
    /// Groups left behind.
    fallbacks: u32,
    /// Attempts on the current group after its first.
    retries: u32,
    built: Option<Built>,
    attempt: Option<Attempt>,
    /// Its request has gone to the provider, and nothing has been charged for it yet.
    sent: bool,
    next_candidate: Option<Candidate>,
    response: Response,
    released: Released,
    first_error: Option<Error>,
    /// The refusal that the client got.
    told: Option<Error>,
    /// The last failed answer's headers, named for the client.
    failure_headers: Headers,
    status: u16,
    /// When the first part of the answer went out, Unix milliseconds.
    first_ms: u64,
    waited: bool,
    /// Bytes of the body that the headers announce; 0 when they say nothing.
    announced: u64,
    /// Whether its caller was judged before the body was there.
    judged_early: bool,
    /// Bytes of the request's body: what its tokens are estimated from when nobody counts them.
    body_bytes: u64,
    /// Milliseconds from the start of the attempt to the newest part of its answer: what a price by the second counts.
    took_ms: u64,
    /// Milliseconds that the attempts before it took, and the waits after them.
    earlier_ms: u64,
    completed: Option<record::Completed>,
    /// What was decided, when somebody wants to know.
    trail: Option<Vec<String>>,
}

impl Exchange {
    /// Reads the body, plans, and makes the first attempt ready.
    pub fn on_body(&mut self, body: &[u8], env: &mut Env) -> Next {
        self.begin(body, env).unwrap_or_else(|error| Next::Reply(self.refuse(error)))
    }

    /// A call that [`Next::Call`] asked for has its response, or will have none.
    pub fn on_called(&mut self, then: &Then, response: Option<CallResponse>, env: &mut Env) -> Next {
        match then {
            Then::Record(lookup) => {
                learn(lookup, response, env);
                // The body is read when no call's response is in hand: what is too much for this worker kills it wherever
                // it is read, but a request that is in a call's response then would never be answered.
                Next::Wait(0)
            }
        }
    }

    fn begin(&mut self, body: &[u8], env: &mut Env) -> Result<Next, Error> {
        if self.plan.is_none() {
            // A chunked body announces nothing.
            self.body_bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
            size_allowed(self.body_bytes, &self.config)?;
            let object = self.members(body)?;
            bounds::check(&object, self.api)?;
            self.requested = request_params::read(&object, &self.controls, &self.config.general)?;
            request_params::refuse_endpoints(&object, &self.requested, &self.config.general)?;
            if self.caller.grant().is_some() {
                request_params::refuse_mocks(&object, &self.config.general)?;
            }
            let end_user = match self.end_user(env) {
                Ok(end_user) => end_user,
                Err(lookup) => return Ok(Next::Call(Callout::record(lookup))),
            };
            self.plan(&object, end_user.as_deref(), env)?;
            return self.first_attempt(body, Some(object), env);
        }
        self.first_attempt(body, None, env)
    }

    /// What the body says by name, in whichever way its call carries that.
    fn members<'b>(&self, body: &'b [u8]) -> Result<Object<'b>, Error> {
        self.api.carries.members(self.controls.text("content-type"), body)
    }

    /// Judges the call, plans it, and reserves what it will probably use.
    fn plan(&mut self, object: &Object<'_>, end_user: Option<&EndUser>, env: &mut Env) -> Result<(), Error> {
        let config = Rc::clone(&self.config);
        let caller = self.caller.clone();
        let asked = self.path_model.take().or(self.requested.model.take());
        let asked = asked.or_else(|| end_user.and_then(|end_user| end_user.default_model.clone()));
        // A model that the server prescribes needs no name in the request.
        let asked = asked.or_else(|| config.forced_model.clone());
        // The first of the file, for those who may call it: others are not told of a model that they did not ask for.
        let may_call =
            |name: &&String| caller.grant().is_none_or(|grant| models::may_call(name, grant, &config));
        let asked = asked.or_else(|| config.default_model.as_ref().filter(may_call).cloned());
        let Some(asked) = asked else {
            return Err(chain::unknown_model(self.api.path, "None"));
        };
        if asked.len() > MAX_MODEL_BYTES {
            return Err(Error::bad_request(format!(
                "`model` has {} bytes: expected at most {MAX_MODEL_BYTES}. Name a model of the gateway.",
                asked.len()
            ))
            .with_param("model"));
        }
        self.region = end_user.and_then(|end_user| end_user.region.clone());
        self.requested.model = Some(config.forced_model.clone().unwrap_or_else(|| asked.clone()));
        let names = Names::of(&asked, caller.grant());
        let called = config.forced_model.as_deref().unwrap_or(names.called);
        self.permit(&names, object, end_user, env)?;
        let mut controls = std::mem::take(&mut self.requested.controls);
        controls.disable_fallbacks |= caller.grant().is_some_and(|grant| grant.disable_fallbacks);
        controls.call = self.call(object, end_user);
        let trace = self.trace();
        let plan = Plan::new(called, controls, &mut World { trace: trace.as_ref(), ..env.world(&config) });
        self.tell_plan(trace);
        self.plan = Some(plan?);
        self.per_try_timeout_ms = self.longest_timeout_ms();
        // A group whose deployments all rest has been passed over.
        self.fallbacks =
            self.plan.as_ref().and_then(Plan::segment).map_or(0, |segment| u32::from(segment.depth > 0));
        self.reserve(&names, end_user, env)?;
        if let Some(class) = self.requested.mock_testing.take() {
            self.note_error(
                Failure::without_answer(class, "This is a mock exception for testing fallbacks.")
                    .to_error(self.title()),
            );
            let before = self.plan.as_ref().map(Plan::current);
            let mut world = env.world(&config);
            // A group that is busy is tried again; the others are mocked for the sake of their fallbacks.
            let after = self.plan.as_mut().and_then(|plan| match class {
                Class::RateLimit => {
                    plan.advance(class, Some(class.status().into()), &mut world, &mut |_| true)
                }
                _ => plan.abandon_group(class, &mut world, &mut |_| true),
            });
            let (Some(before), Some(after)) = (before, after) else { return Err(self.final_error()) };
            self.count_move(before, after);
        }
        Ok(())
    }

    /// What routing may look at, as far as the configuration lets it look.
    fn call(&self, object: &Object<'_>, end_user: Option<&EndUser>) -> RoutingInput {
        let router = &self.config.router;
        let team = self.caller.grant().and_then(|grant| grant.team.as_deref());
        let call = RoutingInput {
            prompt_tokens: self.prompt_tokens(),
            streaming: self.requested.streaming,
            team: team.map(|team| team.id.clone()),
            any_team: self.caller.grant().is_none(),
            cached: if router.prompt_affinity { affinity::fingerprints(object) } else { Vec::new() },
            ..RoutingInput::default()
        };
        if !router.has_filters() {
            return call;
        }
        RoutingInput {
            tags: if router.tag_filtering { self.tags() } else { Vec::new() },
            region: end_user.and_then(|end_user| end_user.region.clone()),
            messages: router.pre_call_checks.then(|| prompt::tokens(object)).flatten(),
            response_format: object.has("response_format"),
            ..call
        }
    }

    /// Finds the first candidate that can be called (or mocked) and makes its request ready.
    /// `object` is the body if it has been read already.
    fn first_attempt<'b>(
        &mut self,
        body: &'b [u8],
        mut object: Option<Object<'b>>,
        env: &mut Env,
    ) -> Result<Next, Error> {
        loop {
            if let Some(ms) = self.find_slot(env)? {
                return Ok(Next::Wait(ms));
            }
            let Some(candidate) = self.plan.as_ref().map(Plan::current) else {
                return Err(Error::internal("a request has no plan"));
            };
            let config = Rc::clone(&self.config);
            let Some(deployment) = config.deployments.get(candidate.deployment) else {
                return Err(Error::internal("a plan names a deployment that is not configured"));
            };
            if self.requested.mock_timeout || deployment.mock_timeout {
                if !std::mem::replace(&mut self.waited, true) {
                    return Ok(Next::Wait(self.timeout_ms(candidate.deployment)));
                }
                let failure = Failure::without_answer(Class::Timeout, "mock_timeout");
                self.fail_without_call(failure, env)?;
                continue;
            }
            let mock = self.requested.mock_response.as_ref().or(deployment.mock_response.as_ref()).cloned();
            if let Some(mock) = mock {
                match mock::failure(&mock) {
                    Some(failure) => {
                        self.fail_without_call(failure, env)?;
                        continue;
                    }
                    None => return Ok(Next::Reply(self.mock_reply(&mock, env)?)),
                }
            }
            let object = object.take().map_or_else(|| self.members(body), Ok);
            match object.and_then(|object| self.build(candidate, object)) {
                Ok(built) => self.built = Some(built),
                Err(error) => {
                    let class = error.class().unwrap_or(Class::BadRequest);
                    self.advance_or_fail(class, error, env)?;
                    continue;
                }
            }
            return Ok(self.forward(candidate));
        }
    }

    fn forward(&self, candidate: Candidate) -> Next {
        Next::Forward(Forward {
            cluster: self.cluster_of(Some(candidate)),
            max_retries: self.plan.as_ref().map_or(0, Plan::max_retries),
            per_try_timeout_ms: self.per_try_timeout_ms,
        })
    }

    /// A failure that needed no call (mocks): noted, and on to the next candidate.
    fn fail_without_call(&mut self, failure: Failure, env: &mut Env) -> Result<(), Error> {
        let title = self.title();
        self.advance_or_fail(failure.class, failure.to_error(title), env)
    }

    /// The current candidate's brand as messages name it.
    fn title(&self) -> &'static str {
        let deployment = self.plan.as_ref().map(|plan| plan.current().deployment);
        deployment
            .and_then(|at| self.config.deployments.get(at))
            .map_or("", |deployment| deployment.brand.title)
    }

    /// Goes on to the next candidate, or fails with the first error when there is none.
    fn advance_or_fail(&mut self, class: Class, error: Error, env: &mut Env) -> Result<(), Error> {
        self.note_error(error);
        match self.advance(class, None, env) {
            Some(_) => Ok(()),
            None => Err(self.final_error()),
        }
    }

    /// Advances the plan and counts retries and fallbacks.
    fn advance(&mut self, class: Class, status: Option<Status>, env: &mut Env) -> Option<Candidate> {
        let before = self.plan.as_ref().map(Plan::current)?;
        let next = self.next_with_slot(class, status, env)?;
        self.move_on(before, next, env)
    }

    /// Counts a move from one candidate to the next.
    fn count_move(&mut self, from: Candidate, to: Candidate) {
        if from.is_same_group(to) {
            self.retries = self.retries.saturating_add(1);
        } else {
            self.fallbacks = self.fallbacks.saturating_add(1);
            self.retries = 0;
        }
        self.tell_move(from, to);
    }

    /// Keeps the first error: it is what the client sees when everything fails (LiteLLM's rule).
    fn note_error(&mut self, error: Error) {
        self.first_error.get_or_insert(error);
    }

    /// The error the client gets when nothing is left, with LiteLLM's notes on the group and its fallbacks.
    fn final_error(&self) -> Error {
        let mut error = self
            .first_error
            .clone()
            .unwrap_or_else(|| Error::internal("the request failed without an error"));
        if let (Some(_), Some(plan)) = (error.class(), self.plan.as_ref()) {
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
    fn end_with(&mut self, error: Error) {
        self.released = Released::Response;
        self.status = error.status();
        self.told = Some(error.clone());
        self.first_error = Some(error);
    }

    /// The reply for an error, and the end of this exchange.
    fn refuse(&mut self, error: Error) -> Reply {
        self.released = Released::Response;
        self.status = error.status();
        let mut reply = local::refusal(&error, self.api.error_format, &self.call_id);
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
            let ms = self.plan.as_ref().map_or(0, |plan| self.timeout_ms(plan.current().deployment));
            reply.headers.push(("x-litellm-timeout".to_owned(), seconds(ms)));
        }
        self.told = Some(error.clone());
        self.first_error.get_or_insert(error);
        local::add_cors(&mut reply, self.cors);
        reply
    }

    /// Answer headers that say how the request was routed.
    fn add_routing_headers(&self, list: &mut Headers) {
        let segment = self.plan.as_ref().and_then(Plan::segment);
        let deployment =
            self.plan.as_ref().and_then(|plan| self.config.deployments.get(plan.current().deployment));
        if let Some(deployment) = deployment {
            list.push("x-litellm-model-id", deployment.id.as_bytes());
            list.push("x-litellm-model-api-base", deployment.api_base.as_bytes());
        }
        if let Some(segment) = segment {
            list.push("x-litellm-model-group", segment.group.as_bytes());
        }
        if let Some(region) = self.region.as_deref().filter(|region| !region.is_empty()) {
            list.push("x-litellm-model-region", region.as_bytes());
        }
        if matches!(self.caller, Caller::Master) {
            list.push("x-litellm-key-spend", b"0.0");
        }
        list.push_number("x-litellm-attempted-retries", self.retries.into());
        list.push_number("x-litellm-attempted-fallbacks", self.fallbacks.into());
    }

    /// Whether what is on its way to the client is an answer, ours or a provider's, that needs no further look.
    pub fn has_responded(&self) -> bool {
        self.released == Released::Response
    }

    /// Whether an attempt is under way of whose provider nothing has come.
    pub fn awaits_response(&self) -> bool {
        self.sent && matches!(self.response, Response::None)
    }

    /// The current attempt has not come to its provider: there was no connection yet.
    pub fn on_unreached(&mut self) {
        self.sent = false;
    }

    /// Headers are on their way to the client: a response that passes, or a failure that was not retried, or Envoy's own
    /// reply, in whose place another goes.
    pub fn on_release(&mut self, status: u16, details: &str, env: &mut Env) -> Next {
        match self.released {
            Released::Response => return Next::Pass,
            Released::Failure => {}
            Released::Nothing => {
                let error = self.envoy_error(status, details, env.now_ms);
                if let (Some(class), Some(_)) = (error.class(), &self.attempt) {
                    let failure = Failure::without_answer(class, &error.message);
                    if self.is_under_way() {
                        self.charge_hurried(&failure, env);
                    }
                    self.cool_down(failure, env);
                }
                self.note_error(error);
            }
        }
        let error = self.final_error();
        let mut reply = self.refuse(error);
        let provider = std::mem::take(&mut self.failure_headers);
        // A provider's own limits stand before ours.
        reply.headers.retain(|(name, _)| !name.starts_with("x-ratelimit-") || provider.get(name).is_none());
        reply.extend(&provider);
        Next::Reply(reply)
    }

    /// What an answer of Envoy itself means.
    fn envoy_error(&self, status: u16, details: &str, now_ms: u64) -> Error {
        let title = self.title();
        let failed = |class: Class, message: &str| Failure::without_answer(class, message).to_error(title);
        match status {
            413 => too_large(&self.config),
            408 | 504 if !details.contains("request_overall_timeout") || self.plan.is_some() => {
                failed(Class::Timeout, "no answer within the time-out")
            }
            408 => Error::of(RequestFault::TooSlow, TOO_SLOW),
            404 => Error::of(RequestFault::NotFound, format!("Not Found: `{}`.", self.path)),
            400..=499 => unreadable(status),
            503 | 502 => self.ended_without_response(now_ms).to_error(title),
            _ => failed(Class::InternalServer, "the gateway could not complete the request."),
        }
    }

    /// Notes a failed call on the deployment of the current attempt.
    fn cool_down(&mut self, failure: Failure, env: &Env) {
        let rest_ms = self.rest(&failure, env);
        self.tell_failure(&failure, rest_ms);
    }

    /// The same; milliseconds that the deployment rests for it.
    fn rest(&self, failure: &Failure, env: &Env) -> Option<u64> {
        let attempt = self.attempt.as_ref()?;
        let deployment = self.config.deployments.get(attempt.candidate.deployment)?;
        let router = &self.config.router;
        // Who allows less time than the deployment is given learns nothing about it.
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
        let group_size = self.plan.as_ref().and_then(Plan::segment).map_or(1, |segment| segment.group_size);
        let failed = cooldown::FailedAttempt {
            class: failure.class,
            status: failure.status.unwrap_or(failure.class.status().into()),
            retry_after_ms: failure.retry_after_ms,
            group_size,
        };
        cooldown::failed(env.shared, router, deployment, failed, env.now_ms)
    }

    /// Notes how quick a good answer was, when that decides about later calls.
    fn note_latency(&self, env: &Env) {
        let router = &self.config.router;
        let (Strategy::LatencyBased, Some(attempt), Some(completed)) =
            (router.strategy, &self.attempt, &self.completed)
        else {
            return;
        };
        let Some(deployment) = self.config.deployments.get(attempt.candidate.deployment) else { return };
        let first_ms = self.requested.streaming.then(|| self.first_ms.saturating_sub(attempt.started_ms));
        let tokens = completed.usage.as_ref().map_or(0, |usage| usage.completion_tokens);
        let sample = Sample::of(self.took_ms, first_ms, tokens);
        latency::note(env.shared, deployment, sample, &router.latency, env.now_ms);
    }
}

/// What Envoy's refusal of a request means of whose call nothing is known yet.
pub fn refused_early(status: u16) -> Error {
    match status {
        413 => Error::of(RequestFault::TooLarge, "the request body is too large."),
        408 | 504 => Error::of(RequestFault::Unreadable(error_status(status)), TOO_SLOW),
        _ => unreadable(status),
    }
}

fn error_status(status: u16) -> ErrorStatus {
    ErrorStatus::new(status).unwrap_or(ErrorStatus::INTERNAL_SERVER_ERROR)
}

/// The refusal of a request that the host could not read and gave this status.
fn unreadable(status: u16) -> Error {
    Error::of(RequestFault::Unreadable(error_status(status)), "the request could not be read.")
}

/// Milliseconds as seconds, the way LiteLLM prints times: a float's text.
fn seconds(ms: u64) -> String {
    format!("{:?}", ms as f64 / 1_000.0)
}
