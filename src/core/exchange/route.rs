//! Where a request goes: its plan, and how far it has come in it.

use super::{Env, Exchange};
use crate::core::{
    model::{failure::Class, status::Status},
    route::plan::{Candidate, Plan},
};

/// The way of a request through its candidates.
pub(super) struct Route {
    pub plan: Plan,
    /// Attempts that have begun.
    pub attempts: u32,
    /// Attempts on the current group after its first.
    pub retries: u32,
    /// Groups left behind.
    pub fallbacks: u32,
    /// What Envoy goes on to by itself after the attempt that is under way.
    pub next_candidate: Option<Candidate>,
    /// The longest time-out of all planned attempts, which is the one Envoy has for each of them.
    pub per_try_timeout_ms: u64,
}

impl Route {
    /// The beginning of a plan. A group whose deployments are all cooling down has been passed over.
    pub fn new(plan: Plan) -> Route {
        let fallbacks = plan.segment().map_or(0, |segment| u32::from(segment.depth > 0));
        Route { plan, attempts: 0, retries: 0, fallbacks, next_candidate: None, per_try_timeout_ms: 0 }
    }
}

impl Exchange {
    pub(super) fn plan(&self) -> Option<&Plan> {
        self.route.as_ref().map(|route| &route.plan)
    }

    pub(super) fn plan_mut(&mut self) -> Option<&mut Plan> {
        self.route.as_mut().map(|route| &mut route.plan)
    }

    /// Attempts that have begun.
    pub(super) fn attempts(&self) -> u32 {
        self.route.as_ref().map_or(0, |route| route.attempts)
    }

    /// Attempts on the current group after its first.
    pub(super) fn retries(&self) -> u32 {
        self.route.as_ref().map_or(0, |route| route.retries)
    }

    /// Groups left behind.
    pub(super) fn fallbacks(&self) -> u32 {
        self.route.as_ref().map_or(0, |route| route.fallbacks)
    }

    /// Advances the plan and counts retries and fallbacks.
    pub(super) fn advance(
        &mut self,
        class: Class,
        status: Option<Status>,
        env: &mut Env,
    ) -> Option<Candidate> {
        let before = self.plan().map(Plan::current)?;
        let next = self.next_with_slot(class, status, env)?;
        self.move_on(before, next, env)
    }

    /// Counts a move from one candidate to the next.
    pub(super) fn count_move(&mut self, from: Candidate, to: Candidate) {
        if let Some(route) = &mut self.route {
            if from.is_same_group(to) {
                route.retries = route.retries.saturating_add(1);
            } else {
                route.fallbacks = route.fallbacks.saturating_add(1);
                route.retries = 0;
            }
        }
        self.tell_move(from, to);
    }
}
