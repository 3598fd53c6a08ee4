//! Limits by model of the groups that a call goes on to: its fallbacks, whoever named them.
//!
//! What a call reserves when it is let in is counted for the model that was asked for. A group that takes its place has limits of
//! its own, and a call must not come past them because it was asked for under another name. Such a group is judged and its
//! limits reserved when the plan comes to it; a group whose limits are used up is passed over.

use super::{Env, Exchange, reservation, served::Served};
use crate::core::{
    access::{models::Names, refusals, rules::rules},
    error::Error,
    model::{failure::Class, money::Money, rule::Rule},
    quota::{self, Reservation},
    route::plan::{Candidate, Plan},
};

/// A group in the place of the one that was asked for.
pub(super) struct Entered {
    at: Candidate,
    /// What is held of the limits that the caller has for it.
    reservation: Option<Reservation>,
    /// What the call had used before.
    before: Served,
}

impl Exchange {
    /// Goes on to `next`, past groups whose limits are used up.
    pub(super) fn move_on(&mut self, before: Candidate, next: Candidate, env: &mut Env) -> Option<Candidate> {
        let (mut before, mut next) = (before, next);
        loop {
            self.count_move(before, next);
            if before.is_same_group(next) {
                return Some(next);
            }
            let Err(error) = self.enter_group(env) else { return Some(next) };
            self.note_error(error);
            before = next;
            next = self.next_group(Class::RateLimit, env)?;
        }
    }

    /// Reserves what the call will probably use with the limits that its caller has for the current group, unless that is the
    /// one that was asked for. The error: they are used up.
    pub(super) fn enter_group(&mut self, env: &mut Env) -> Result<(), Error> {
        let Some(plan) = self.plan().filter(|_| self.fallbacks() > 0 && self.is_metered()) else {
            return Ok(());
        };
        let at = plan.current();
        if self.books.group.as_ref().is_some_and(|entered| entered.at.is_same_group(at)) {
            return Ok(());
        }
        self.leave_group(&self.books.served.clone().unwrap_or_default(), env);
        let rules = self.rules_of_group(env);
        let mut reservation = None;
        if !rules.is_empty() {
            let estimate = self.estimate(&rules, env);
            let reserved = quota::reserve(env.shared, env.worker, &rules, estimate, env.now_ms);
            let caller = self.caller.clone();
            let alias = reservation::alias(caller.grant());
            reservation = Some(reserved.map_err(|refused| match rules.get(refused.rule) {
                Some(rule) => refusals::limit(rule, refused.why, alias, env.now_ms),
                None => Error::internal("a limit has no rule"),
            })?);
        }
        self.note_metered(reservation.as_ref());
        self.books.group =
            Some(Entered { at, reservation, before: self.books.served.clone().unwrap_or_default() });
        Ok(())
    }

    /// The call has left the group that it had entered, or is over. `used` is all that it has used until now.
    pub(super) fn leave_group(&mut self, used: &Served, env: &Env) {
        let Some(Entered { reservation, before, .. }) = self.books.group.take() else { return };
        if let Some(reservation) = reservation {
            let counted =
                |used: &Served| reservation::counted(&used.usage, self.config.general.counted_tokens);
            let tokens = counted(used).saturating_sub(counted(&before));
            reservation.settle(env.shared, tokens, used.cost.saturating_sub(before.cost), env.now_ms);
        }
    }

    /// The caller's limits by model for the current group, but for those that the call is counted by anyway.
    fn rules_of_group(&self, env: &mut Env) -> Vec<Rule> {
        let Some(segment) = self.plan().and_then(Plan::segment) else { return Vec::new() };
        let name = segment.name.as_str();
        let end_user = self.end_user(env).ok().flatten();
        let names = Names { asked: name, in_team: name, called: name };
        let mut rules = rules(self.caller.key(), end_user.as_deref(), &names, &self.config);
        rules.retain(|rule| rule.kind.is_by_model() && !self.books.reservation.holds(&rule.meter));
        rules
    }

    fn next_group(&mut self, class: Class, env: &mut Env) -> Option<Candidate> {
        self.release_slot(0, Money::ZERO, env);
        self.past_group(class, env)
    }
}
