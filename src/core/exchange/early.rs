//! What is known of a call before its body is there: a long body is not waited for when its caller can call nothing now.

use super::{Env, Exchange, Next, Phase, Reply, open::size_allowed, reservation};
use crate::core::{
    access::{models::Names, refusals, rules::rules},
    model::rule::Rule,
    quota,
};

/// A body of so many bytes is read whoever sends it: most are shorter, and are judged once they are there.
const SHORT_BODY: u64 = 64 << 10;

impl Exchange {
    /// The headers have been read, and a body follows; `received` bytes of it are here already.
    pub fn on_headers(&mut self, received: usize, env: &mut Env) -> Next {
        match self.on_length(self.received.announced, env) {
            Some(reply) => Next::Reply(reply),
            None => self.on_body_part(received, env),
        }
    }

    /// More of the body has come, `length` bytes in all, and it has not ended. Too much of it is refused at once.
    pub fn on_body_part(&mut self, length: usize, env: &mut Env) -> Next {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        self.on_length(length, env).map_or(Next::ReadBody, Next::Reply)
    }

    fn on_length(&mut self, length: u64, env: &mut Env) -> Option<Reply> {
        if let Err(error) = size_allowed(length, &self.config) {
            return Some(self.refuse(error));
        }
        let Phase::Receiving { judged_early } = &mut self.phase else { return None };
        if length <= SHORT_BODY || std::mem::replace(judged_early, true) {
            return None;
        }
        self.refuse_early(env)
    }

    /// Refuses whoever has used up a budget or a rate that counts whatever is called. A budget says nothing yet where a model
    /// may cost nothing.
    fn refuse_early(&mut self, env: &mut Env) -> Option<Reply> {
        if !self.is_metered() {
            return None;
        }
        let caller = self.caller.clone();
        let grant = caller.grant()?;
        let names = Names::of("", Some(grant));
        let mut rules = rules(caller.key(), None, &names, &self.config);
        rules.retain(|rule| !rule.kind.is_by_model());
        let budget = || reservation::over_budget(&rules, env).filter(|_| !self.config.may_be_free());
        let rates = |rule: &Rule| quota::check_rates(env.shared, env.worker, rule, env.now_ms);
        let over = budget().or_else(|| rules.iter().find_map(|rule| rates(rule).map(|why| (rule, why))));
        let (rule, why) = over?;
        let error = refusals::limit(rule, why, reservation::alias(Some(grant)), env.now_ms);
        self.books.reservation.refused = true;
        self.describe(Some(grant), &rules, &names, None, env);
        Some(self.refuse(error))
    }
}
