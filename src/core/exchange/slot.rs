//! The slot that an attempt takes at its deployment: what limits and budgets of deployments and providers are counted by.
//!
//! A slot belongs to one attempt. The first is taken when the request is planned, at the first deployment that has room; when
//! all are busy the request waits, and when all are used up it goes on to its fallbacks. A failure gives the slot back and
//! takes one at the next deployment. What Envoy tries by itself (nobody is asked after a refused connection) is a deployment
//! that had room when it was named, and takes its slot when its attempt begins. Whatever becomes of the request, [`Exchange::on_done`]
//! gives back what is left.

use std::rc::Rc;

use super::{Env, Exchange, Next};
use crate::core::{
    config::Config,
    error::Error,
    host::Store,
    model::{
        call_record::MeterCharge,
        deployment::Deployment,
        failure::{Class, Failure},
        general::CountedTokens,
        money::Money,
        rule::Rule,
        status::Status,
    },
    quota::{self, Reservation, Why, Worker},
    route::{
        plan::{Candidate, Plan},
        refusals,
        refusals::none_available,
        world::World,
    },
};

/// How often a request that waits for a slot looks for one, in milliseconds.
const POLL_MS: u64 = 10;

/// Where a request stands with slots.
#[derive(Default)]
pub(super) struct Slot {
    /// The deployment and what is held there; nothing at one without limits.
    held: Option<(usize, Reservation)>,
    /// What attempts have cost deployments and providers with a budget.
    charged: Vec<MeterCharge>,
}

/// Lets attempts in, one deployment after the other, and remembers why not.
struct Admission<'g> {
    exchange: &'g Exchange,
    config: &'g Config,
    /// Tokens of an answer, more or less.
    typical: u64,
    shared: &'g dyn Store,
    worker: Worker,
    now_ms: u64,
    taken: Option<(usize, Reservation)>,
    rejection: Rejection,
}

/// Why deployments let nobody in.
#[derive(Default)]
struct Rejection {
    /// One has too many requests in flight: it is worth waiting for.
    busy: bool,
    /// One has too many requests or tokens in this minute.
    over_rate: Option<Box<Error>>,
    /// Budgets that are used up, in LiteLLM's words.
    over_budget: String,
}

impl Admission<'_> {
    /// Takes a slot at a deployment.
    fn admits(&mut self, at: usize) -> bool {
        let Some(deployment) = self.config.deployments.get(at) else { return false };
        if deployment.rules.is_empty() || self.exchange.requested.is_mock() {
            return true;
        }
        let has_budget = deployment.rules.iter().any(|rule| rule.max_budget.is_some());
        let estimate = self.exchange.estimate_at(at, has_budget, CountedTokens::Total, self.typical);
        match quota::reserve(self.shared, self.worker, &deployment.rules, estimate, self.now_ms) {
            Ok(reservation) => {
                if let Some((_, other)) = self.taken.replace((at, reservation)) {
                    other.cancel(self.shared, self.now_ms);
                }
                true
            }
            Err(refused) => {
                if let Some(rule) = deployment.rules.get(refused.rule) {
                    self.note(deployment, rule, refused.why);
                }
                false
            }
        }
    }

    fn note(&mut self, deployment: &Deployment, rule: &Rule, why: Why) {
        match why {
            Why::Parallel => self.rejection.busy = true,
            Why::Budget { spend, held } => {
                self.rejection.over_budget.push_str(&refusals::over_budget(deployment, rule, spend, held));
            }
            Why::Requests { resets_at_ms } | Why::Tokens { resets_at_ms } => {
                let (what, limit) = match why {
                    Why::Requests { .. } => ("rpm", rule.limits.rpm),
                    _ => ("tpm", rule.limits.tpm),
                };
                self.rejection.over_rate.get_or_insert_with(|| {
                    let counts = quota::counts(self.shared, std::iter::once(&rule.meter), self.now_ms);
                    let used = counts.first().copied().unwrap_or_default();
                    let used = if what == "rpm" { used.requests } else { used.tokens };
                    let message = format!(
                        "Deployment over defined {what} limit={}. current usage={used}",
                        limit.unwrap_or_default()
                    );
                    Box::new(refusals::rate_limited(message, resets_at_ms, self.now_ms))
                });
            }
            Why::Full => {
                self.rejection.over_rate.get_or_insert_with(|| {
                    let message = "the gateway counts too many meters; try again later.";
                    Box::new(refusals::rate_limited(message.to_owned(), self.now_ms, self.now_ms))
                });
            }
        }
    }
}

impl Exchange {
    /// Finds a slot for the next call: at the first deployment of the current group that has room, else (when none ever has)
    /// in a fallback. Milliseconds: all are busy, come back after them.
    pub(super) fn find_slot(
        &mut self,
        waits_since_ms: &mut Option<u64>,
        env: &mut Env,
    ) -> Result<Option<u64>, Error> {
        loop {
            let entered = self.enter_group(env);
            let error = match entered.map(|()| self.try_group(waits_since_ms.is_some(), env)) {
                Err(error) => error,
                Ok(Ok(())) => {
                    *waits_since_ms = None;
                    return Ok(None);
                }
                Ok(Err(Rejection { busy: true, .. })) => {
                    let since_ms = *waits_since_ms.get_or_insert(env.now_ms);
                    let limit_ms = self.plan().map_or(0, |plan| self.timeout_ms(plan.current().deployment));
                    let waited_ms = env.now_ms.saturating_sub(since_ms);
                    if waited_ms < limit_ms {
                        return Ok(Some(POLL_MS.min(limit_ms - waited_ms)));
                    }
                    let message = "no deployment had a free slot within the time-out";
                    Failure::without_answer(Class::Timeout, message).to_error(self.title())
                }
                Ok(Err(rejection)) => rejection.error(self.plan().map_or("", Plan::asked), env.now_ms),
            };
            *waits_since_ms = None;
            let class = error.class().unwrap_or(Class::RateLimit);
            self.note_error(error);
            let config = Rc::clone(&self.config);
            let Some(plan) = self.plan_mut() else { return Err(self.final_error()) };
            let before = plan.current();
            match plan.abandon_group(class, &mut env.world(&config), &mut |_| true) {
                Some(after) => self.count_move(before, after),
                None => return Err(self.final_error()),
            }
        }
    }

    /// Looks whether a request that waits since then has to go on waiting.
    pub(super) fn wait_on(&mut self, since_ms: u64, env: &mut Env) -> Next {
        let limit_ms = self.plan().map_or(0, |plan| self.timeout_ms(plan.current().deployment));
        let left_ms = since_ms.saturating_add(limit_ms).saturating_sub(env.now_ms);
        match self.try_group(true, env) {
            Err(Rejection { busy: true, .. }) if left_ms > 0 => Next::Wait(POLL_MS.min(left_ms)),
            _ => Next::ReadBody,
        }
    }

    /// Takes a slot in the current group, if it needs one and has none.
    fn try_group(&mut self, waits: bool, env: &mut Env) -> Result<(), Rejection> {
        let Some(plan) = self.plan() else { return Ok(()) };
        let at = plan.current().deployment;
        let order = plan.segment().map(|segment| segment.order.as_slice()).unwrap_or_default();
        let has_slot = self.books.slot.held.as_ref().is_some_and(|(held, _)| *held == at);
        if has_slot || self.requested.is_mock() || !order.iter().any(|&at| self.has_rules(at)) {
            return Ok(());
        }
        // Who has waited finds that some have gone to rest meanwhile.
        let (found, rejection) = self.with_admission(env, |plan, world, admission| {
            plan.enter(&mut |at| (!waits || world.is_available(at)) && admission.admits(at))
        });
        if found.flatten().is_some() { Ok(()) } else { Err(rejection) }
    }

    /// Moves the plan on under an admission, and keeps the slot that it took.
    fn with_admission<T>(
        &mut self,
        env: &mut Env,
        go: impl FnOnce(&mut Plan, &mut World, &mut Admission) -> T,
    ) -> (Option<T>, Rejection) {
        let config = Rc::clone(&self.config);
        let typical = self.typical(env.output_lengths);
        let Some(mut route) = self.route.take() else { return (None, Rejection::default()) };
        let (shared, worker, now_ms) = (env.shared, env.worker, env.now_ms);
        let mut admission = Admission {
            exchange: self,
            config: &config,
            typical,
            shared,
            worker,
            now_ms,
            taken: None,
            rejection: Rejection::default(),
        };
        let result = go(&mut route.plan, &mut env.world(&config), &mut admission);
        let Admission { taken, rejection, .. } = admission;
        self.route = Some(route);
        self.books.slot.held = taken;
        (Some(result), rejection)
    }

    /// Gives the slot back, and goes on to the next candidate after a failure of `class`: one that has room.
    pub(super) fn next_with_slot(
        &mut self,
        class: Class,
        status: Option<Status>,
        env: &mut Env,
    ) -> Option<Candidate> {
        self.release_slot(0, Money::ZERO, env);
        let (next, _) = self.with_admission(env, |plan, world, admission| {
            plan.advance(class, status, world, &mut |at| admission.admits(at))
        });
        next.flatten()
    }

    /// Goes on to the next group that has a deployment with room.
    pub(super) fn past_group(&mut self, class: Class, env: &mut Env) -> Option<Candidate> {
        let (next, _) = self.with_admission(env, |plan, world, admission| {
            plan.abandon_group(class, world, &mut |at| admission.admits(at))
        });
        next.flatten()
    }

    /// Takes the slot of an attempt that Envoy has begun by itself. False when it has gone to somebody else meanwhile.
    pub(super) fn take_slot(&mut self, env: &mut Env) -> bool {
        let Some(at) = self.plan().map(|plan| plan.current().deployment) else { return false };
        if self.books.slot.held.is_some() || !self.has_rules(at) {
            return true;
        }
        self.with_admission(env, |_, _, admission| admission.admits(at)).0.unwrap_or(false)
    }

    /// Whether a deployment would let one more attempt in now. The slot that this request has there is as good as free.
    pub(super) fn has_room(&self, at: usize, env: &Env) -> bool {
        let Some(deployment) = self.config.deployments.get(at) else { return false };
        if !self.is_metered() {
            return true;
        }
        let is_own = self.books.slot.held.as_ref().is_some_and(|(held, _)| *held == at);
        deployment.rules.iter().all(|rule| match quota::check(env.shared, env.worker, rule, env.now_ms) {
            None => true,
            Some(Why::Parallel) => is_own,
            Some(_) => false,
        })
    }

    /// The attempt is over: what it used takes the place of what it reserved.
    pub(super) fn release_slot(&mut self, tokens: u64, cost: Money, env: &Env) {
        if let Some((at, reservation)) = self.books.slot.held.take() {
            if cost > Money::ZERO {
                self.charge(at, &reservation, cost);
            }
            reservation.settle(env.shared, tokens, cost, env.now_ms);
        }
    }

    /// Remembers for the ledger what an attempt cost those that have a budget.
    fn charge(&mut self, at: usize, reservation: &Reservation, cost: Money) {
        let Some(deployment) = self.config.deployments.get(at) else { return };
        let spend = i64::try_from(cost.pico()).unwrap_or(i64::MAX);
        for meter in reservation.budgeted_meters() {
            let provider = || self.config.router.provider_budgets.get(deployment.brand.name);
            let budget = if meter.starts_with("provider:") { provider() } else { deployment.budget.as_ref() };
            let period = budget.and_then(|budget| budget.period.clone());
            let new = MeterCharge { meter: meter.to_owned(), spend, period };
            MeterCharge::put(&mut self.books.slot.charged, &new);
        }
    }

    /// What attempts have cost deployments and providers with a budget.
    pub(super) fn charged(&mut self) -> Vec<MeterCharge> {
        std::mem::take(&mut self.books.slot.charged)
    }

    /// The request is over. One that called nobody counts nowhere, and neither does a mock.
    pub(super) fn release_slot_at_end(&mut self, env: &Env) {
        let is_mock = self.books.completed.as_ref().is_some_and(|completed| completed.is_mock);
        if is_mock || (self.attempts() == 0 && self.books.completed.is_none()) {
            if let Some((_, reservation)) = self.books.slot.held.take() {
                reservation.cancel(env.shared, env.now_ms);
            }
            return;
        }
        let tokens = self.books.completed.as_ref().and_then(|completed| completed.usage.as_ref());
        let tokens = tokens.map_or(0, |usage| usage.total_tokens);
        let cost = self.last_cost().unwrap_or_default();
        self.release_slot(tokens, cost, env);
    }

    fn has_rules(&self, at: usize) -> bool {
        self.is_metered()
            && self.config.deployments.get(at).is_some_and(|deployment| !deployment.rules.is_empty())
    }
}

impl Rejection {
    /// What the client reads when nothing else can be tried.
    fn error(self, model: &str, now_ms: u64) -> Error {
        match self.over_rate {
            Some(error) => *error,
            None if self.over_budget.is_empty() => none_available(model, None, now_ms),
            None => refusals::crossed_budget(&self.over_budget),
        }
    }
}
