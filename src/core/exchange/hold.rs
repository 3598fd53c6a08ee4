//! What a call holds of its caller's limits and budgets: judged and reserved before the first attempt, settled at the end.

use std::sync::Arc;

use super::{Env, Exchange, controls, lengths::Lengths, record::Served};
use crate::core::{
    access::{
        Lookup,
        grant::{EndUser, Grant},
        keyring::Found,
        models::Names,
        permit::{self, Call, Step},
        refusals,
        rules::rules,
    },
    api::Api,
    codec::json::Object,
    config::CountedTokens,
    cost::{money::Money, table, usage::Usage},
    error::Error,
    headers::Headers,
    quota::{self, Estimate, Kind, Reservation, Rule},
    route::plan::Plan,
};

/// Bytes of a request that make about one token.
const BYTES_PER_TOKEN: u64 = 4;
/// A request that seems longer than this likely holds pictures or sound, which are fewer tokens than their bytes say.
const LONG_PROMPT: u64 = 16_384;

/// What a call holds.
#[derive(Default)]
pub(super) struct Hold {
    reservation: Option<Reservation>,
    /// Names of the meters that the ledger is to answer totals of.
    pub(super) metered: Vec<String>,
    /// The key's limits and what is left of all limits, as answer headers.
    headers: Headers,
    /// A limit or a budget refused the call.
    pub(super) refused: bool,
}

impl Exchange {
    /// The record of the end user that the request names, if records of end users matter. The error is what to fetch.
    pub(super) fn end_user(&self, env: &mut Env) -> Result<Option<Arc<EndUser>>, Lookup> {
        let general = &self.config.general;
        // Who has the master key is not limited by it, but an end user stays in its region whoever calls for it.
        let matters = self.caller.grant().is_some() || self.config.router.pre_call_checks;
        let (true, Some(id), true) = (matters, &self.asked.end_user, general.has_ledger) else {
            return Ok(None);
        };
        if !general.end_users_have_budgets && !env.keys.wants_end_users() {
            return Ok(None);
        }
        match env.keys.end_user(id, env.now_ms) {
            Found::Known(record) => Ok(Some(record)),
            Found::Ask => Err(Lookup::EndUser(id.clone())),
            // Who calls is known; a ledger that is away is no reason to refuse a caller.
            Found::Unknown | Found::Unreachable => Ok(None),
        }
    }

    /// Judges the call. A budget that comes earlier in the reference's order and is used up has the first word.
    pub(super) fn permit(
        &mut self,
        names: &Names<'_>,
        object: &Object<'_>,
        end_user: Option<&EndUser>,
        env: &mut Env,
    ) -> Result<(), Error> {
        let has_param = |path: &str| has_param(object, path);
        let call = Call {
            model: names.asked,
            fallbacks: controls::fallback_models(&self.asked.controls),
            end_user,
            names_user: self.asked.end_user.is_some(),
            has_param: &has_param,
        };
        let Err(denied) = permit::permit(&self.caller, &call, &self.config) else { return Ok(()) };
        let caller = self.caller.clone();
        let Some(grant) = caller.grant() else { return Err(denied.error) };
        let rules = rules(grant, end_user, names, &self.config.general);
        self.describe(grant, &rules, names, None, env);
        match over_budget(&rules, env) {
            Some((rule, why)) if Step::of_budget(rule.kind) < denied.step => {
                Err(refusals::limit(rule, why, grant.key.alias.as_deref(), env.now_ms))
            }
            _ => Err(denied.error),
        }
    }

    /// Reserves what the call will probably use, with every limit it comes under, or with none.
    pub(super) fn reserve(
        &mut self,
        names: &Names<'_>,
        end_user: Option<&EndUser>,
        env: &mut Env,
    ) -> Result<(), Error> {
        let caller = self.caller.clone();
        let Some(grant) = caller.grant() else { return Ok(()) };
        let rules = rules(grant, end_user, names, &self.config.general);
        if rules.is_empty() {
            self.describe(grant, &rules, names, None, env);
            return Ok(());
        }
        let estimate = self.estimate(&rules, env);
        let reserved = quota::reserve(env.shared, env.worker, &rules, estimate, env.now_ms);
        self.describe(grant, &rules, names, reserved.as_ref().ok().map(|held| (held, estimate.cost)), env);
        match reserved {
            Ok(reservation) => {
                // Of a key that the ledger does not know it has no totals to answer.
                let known = |name: &&str| grant.revision > 0 || !name.starts_with("key");
                let metered = reservation.metered().into_iter().filter(known).map(str::to_owned).collect();
                self.hold.metered = metered;
                self.hold.reservation = Some(reservation);
                Ok(())
            }
            Err(refused) => {
                self.hold.refused = true;
                let first = over_budget(&rules, env).or_else(|| {
                    let rates = |rule| {
                        quota::check_rates(env.shared, env.worker, rule, env.now_ms).map(|why| (rule, why))
                    };
                    rules.iter().find_map(rates)
                });
                // Between two looks a place may have become free.
                let first = first.or_else(|| Some((rules.get(refused.rule)?, refused.why)));
                let Some((rule, why)) = first else { return Err(Error::internal("a limit has no rule")) };
                Err(refusals::limit(rule, why, grant.key.alias.as_deref(), env.now_ms))
            }
        }
    }

    /// The call is over: what it used takes the place of what it reserved. The gateway as a whole is charged with `paid`, what
    /// providers want for it.
    pub(super) fn settle(&mut self, used: &Served, paid: Money, env: &mut Env) {
        if let Some(reservation) = self.hold.reservation.take() {
            let tokens = counted(&used.usage, self.config.general.counted_tokens);
            reservation.settle_with(env.shared, tokens, used.cost, paid, env.now_ms);
        }
    }

    /// Answer headers about limits.
    pub(super) fn limit_headers(&self) -> &Headers {
        &self.hold.headers
    }

    /// What a call of the current group will probably use.
    pub(super) fn guess(&self, lengths: &Lengths) -> Usage {
        let prompt = self.prompt_tokens();
        let group = self.plan.as_ref().and_then(Plan::segment).map_or("", |segment| segment.group.as_str());
        let output = match self.api {
            Api::Embeddings => 0,
            _ => self.asked.max_output.unwrap_or_else(|| lengths.typical(group)),
        };
        Usage {
            prompt_tokens: prompt,
            completion_tokens: output,
            total_tokens: prompt.saturating_add(output),
            ..Usage::default()
        }
    }

    fn estimate(&self, rules: &[Rule], env: &Env) -> Estimate {
        let usage = self.guess(env.lengths);
        let has_budget = rules.iter().any(|rule| rule.max_budget.is_some());
        let cost = has_budget.then(|| self.price(None)).flatten();
        let cost = cost.map_or(Money::ZERO, |price| price.cost(&usage, &self.asked.terms, None));
        Estimate { tokens: counted(&usage, self.config.general.counted_tokens), cost }
    }

    /// Tokens of the prompt, more or less: never more than the model takes.
    pub(super) fn prompt_tokens(&self) -> u64 {
        let tokens = self.body_bytes.div_ceil(BYTES_PER_TOKEN);
        if tokens <= LONG_PROMPT {
            return tokens;
        }
        let at = self.plan.as_ref().map(|plan| plan.current().deployment);
        let most = at.and_then(|at| self.config.deployments.get(at)).and_then(|deployment| {
            let own = deployment.model_info.get("max_input_tokens").and_then(serde_json::Value::as_u64);
            let base = deployment.base_model.as_deref();
            let known = || {
                table::entry_for(&deployment.litellm_model, deployment.brand.name, base, None)?
                    .max_input_tokens
            };
            own.or_else(known)
        });
        tokens.min(most.unwrap_or(u64::MAX))
    }

    /// The key's own limits, and what is left of every limit, as answer headers. `held` is what this call has reserved and
    /// the money of it: the spend is the one before it.
    fn describe(
        &mut self,
        grant: &Grant,
        rules: &[Rule],
        names: &Names<'_>,
        held: Option<(&Reservation, Money)>,
        env: &Env,
    ) {
        let key = &grant.key;
        let mut headers = Headers::with_capacity(16);
        let mut spend = Money::from_pico(key.budget.spend.into());
        for rule in rules.iter().filter(|rule| rule.limits.any() || rule.kind == Kind::Key) {
            let standing = held.and_then(|(held, _)| held.standing(&rule.meter));
            let standing = standing.unwrap_or_else(|| quota::standing(env.shared, rule, env.now_ms));
            if rule.kind == Kind::Key && rule.max_budget.is_some() {
                spend = standing.spend.saturating_sub(held.map_or(Money::ZERO, |(_, cost)| cost));
            }
            let limits = [
                ("requests", rule.limits.rpm, standing.requests_left),
                ("tokens", rule.limits.tpm, standing.tokens_left),
                ("max_parallel_requests", rule.limits.parallel, standing.parallel_left),
            ];
            for (what, limit, left) in limits {
                let (Some(limit), Some(left)) = (limit, left) else { continue };
                let who = rule.kind.descriptor();
                headers.push_number_of(&["x-ratelimit-", who, "-remaining-", what], left);
                headers.push_number_of(&["x-ratelimit-", who, "-limit-", what], limit);
                match rule.kind {
                    Kind::Key if what != "max_parallel_requests" => {
                        headers.push_number_of(&["x-ratelimit-remaining-", what], left);
                        headers.push_number_of(&["x-ratelimit-limit-", what], limit);
                    }
                    Kind::KeyModel if is_header_text(names.called) => {
                        headers.push_number_of(&["x-litellm-key-remaining-", what, "-", names.called], left);
                    }
                    _ => {}
                }
            }
        }
        let limits =
            [("x-litellm-key-tpm-limit", key.limits.tpm), ("x-litellm-key-rpm-limit", key.limits.rpm)];
        for (name, limit) in limits {
            limit.into_iter().for_each(|limit| headers.push_number(name, limit));
        }
        if let Some(max) = key.budget.max {
            headers
                .push("x-litellm-key-max-budget", refusals::dollars(Money::from_pico(max.into())).as_bytes());
        }
        headers.push("x-litellm-key-spend", refusals::dollars(spend).as_bytes());
        self.hold.headers = headers;
    }
}

/// The first budget in the reference's order that is used up.
fn over_budget<'r>(rules: &'r [Rule], env: &Env) -> Option<(&'r Rule, quota::Why)> {
    let over =
        |rule: &'r Rule| quota::check_budget(env.shared, env.worker, rule, env.now_ms).map(|why| (rule, why));
    rules.iter().filter_map(over).min_by_key(|(rule, _)| Step::of_budget(rule.kind))
}

/// The tokens that count against tokens a minute.
fn counted(usage: &Usage, which: CountedTokens) -> u64 {
    match which {
        CountedTokens::Total => usage.total_tokens,
        CountedTokens::Input => usage.prompt_tokens,
        CountedTokens::Output => usage.completion_tokens,
    }
}

/// Whether a model's name may stand in the name of a header.
fn is_header_text(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Whether a body has a member, by its path (`metadata.trace`).
fn has_param(object: &Object<'_>, path: &str) -> bool {
    let mut parts = path.split('.');
    let Some(first) = parts.next() else { return false };
    let mut rest = parts.peekable();
    if rest.peek().is_none() {
        return object.has(first);
    }
    let value = object.read::<serde_json::Value>(first);
    rest.try_fold(value.as_ref(), |value, part| Some(value?.get(part))).flatten().is_some()
}
