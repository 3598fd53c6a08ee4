//! What a call holds of its caller's limits and budgets: judged and reserved before the first attempt, settled at the end.

use std::sync::Arc;

use super::{Env, Exchange, output_lengths::OutputLengths, request_params, served::Served};
use crate::core::{
    access::{
        authorize::{self, AuthorizeRequest, CheckStep},
        keyring::Found,
        models::Names,
        refusals,
        rules::rules,
    },
    codec::json::Object,
    cost::table,
    error::Error,
    headers::Headers,
    model::{
        deployment::Deployment,
        general::CountedTokens,
        key_record::KeyRecord,
        lookup::Lookup,
        meter::{Meter, MeterKind},
        money::Money,
        rule::Rule,
        usage::Usage,
        virtual_key::EndUser,
    },
    operation::Operation,
    quota::{self, Claim, Estimate, Refused, Reservation, Why},
    route::plan::Plan,
};

/// Bytes of a request that make about one token.
const BYTES_PER_TOKEN: u64 = 4;
/// A request that seems longer than this likely holds pictures or sound, which are fewer tokens than their bytes say.
const LONG_PROMPT: u64 = 16_384;
/// A client may always say that an answer of so many tokens is enough for it.
const LONG_ANSWER: u64 = 4_096;
/// Of a model whose longest answer is not known: so many typical ones are no more likely.
const TYPICAL_ANSWERS: u64 = 16;
/// No provider gives more choices.
const MOST_CHOICES: u64 = 128;

/// What a call holds.
#[derive(Default)]
pub(super) struct CallerReservation {
    reservation: Option<Reservation>,
    /// Names of the meters that the ledger is to answer totals of.
    pub(super) budgeted_meters: Vec<String>,
    /// The key's limits and what is left of all limits but those of tokens, as response headers.
    headers: Headers,
    /// What is left of those.
    tokens_left: Vec<TokensLeft>,
    /// The model in the name of a header.
    model: Option<String>,
    /// A limit or a budget refused the call.
    pub(super) refused: bool,
}

impl CallerReservation {
    /// Whether a meter is among those that the call was let in by.
    pub(super) fn holds(&self, meter: &Meter) -> bool {
        self.reservation.as_ref().is_some_and(|reservation| reservation.tokens(meter).is_some())
    }
}

/// What is left of a limit of tokens.
struct TokensLeft {
    kind: MeterKind,
    /// What the call has reserved is off it.
    left: u64,
    reserved: u64,
}

impl Exchange {
    /// The record of the end user that the request names, if records of end users matter. The error is what to fetch.
    pub(super) fn end_user(&self, env: &mut Env) -> Result<Option<Arc<EndUser>>, Lookup> {
        let general = &self.config.general;
        // Who has the master key is not limited by it, but its end users are: whoever calls for them.
        let (Some(id), true) = (&self.requested.end_user, general.has_ledger) else { return Ok(None) };
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
        let call = AuthorizeRequest {
            model: names.asked,
            fallbacks: request_params::fallback_models(&self.requested.controls),
            end_user,
            names_user: self.requested.end_user.is_some(),
            has_param: &has_param,
        };
        let Err(denied) = authorize::authorize(&self.caller, &call, &self.config) else { return Ok(()) };
        let caller = self.caller.clone();
        let grant = caller.grant();
        let rules = rules(caller.key(), end_user, names, &self.config);
        self.describe(grant, &rules, names, None, env);
        match over_budget(&rules, env) {
            Some((rule, why)) if CheckStep::of_budget(rule.kind) < denied.step => {
                Err(refusals::limit(rule, why, alias(grant), env.now_ms))
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
        let grant = caller.grant();
        if grant.is_none() && end_user.is_none() {
            return Ok(());
        }
        let mut rules = rules(caller.key(), end_user, names, &self.config);
        if rules.is_empty() || !self.is_metered() {
            self.describe(grant, &rules, names, None, env);
            return Ok(());
        }
        let estimate = self.estimate(&rules, env);
        let mut reserved = quota::reserve(env.shared, env.worker, &rules, estimate, env.now_ms);
        // Who has no money left may go on with what costs none.
        if matches!(reserved, Err(Refused { why: Why::Budget { .. }, .. })) && self.is_free() {
            rules.iter_mut().for_each(|rule| rule.max_budget = None);
            reserved = quota::reserve(env.shared, env.worker, &rules, estimate, env.now_ms);
        }
        self.describe(grant, &rules, names, reserved.as_ref().ok(), env);
        match reserved {
            Ok(reservation) => {
                self.note_metered(Some(&reservation));
                self.books.reservation.reservation = Some(reservation);
                Ok(())
            }
            Err(refused) => {
                self.books.reservation.refused = true;
                let first = over_budget(&rules, env).or_else(|| {
                    let rates = |rule| {
                        quota::check_rates(env.shared, env.worker, rule, env.now_ms).map(|why| (rule, why))
                    };
                    rules.iter().find_map(rates)
                });
                // Between two looks a place may have become free.
                let first = first.or_else(|| Some((rules.get(refused.rule)?, refused.why)));
                let Some((rule, why)) = first else { return Err(Error::internal("a limit has no rule")) };
                Err(refusals::limit(rule, why, alias(grant), env.now_ms))
            }
        }
    }

    /// Whether nothing that the call can lead to costs anything.
    fn is_free(&self) -> bool {
        let is_free = |(at, model): (usize, &str)| {
            self.config.price(at, model, None).is_some_and(|price| price.is_nothing())
        };
        self.plan().is_some_and(|plan| plan.reached().all(is_free))
    }

    /// The call is over: what it used takes the place of what it reserved. The gateway as a whole is charged with `paid`, what
    /// providers want for it.
    pub(super) fn settle(&mut self, used: &Served, paid: Money, env: &mut Env) {
        self.leave_group(used, env);
        if let Some(reservation) = self.books.reservation.reservation.take() {
            let tokens = counted(&used.usage, self.config.general.counted_tokens);
            reservation.settle_with(env.shared, tokens, used.cost, paid, env.now_ms);
        }
    }

    /// Remembers the meters with a budget. Of a key that the ledger does not know it has no totals to answer.
    pub(super) fn note_metered(&mut self, reservation: Option<&Reservation>) {
        let is_known = self.caller.grant().is_none_or(|grant| grant.revision > 0);
        let known = |name: &&str| is_known || !name.starts_with("key");
        let names =
            reservation.into_iter().flat_map(Reservation::budgeted_meters).filter(known).map(str::to_owned);
        self.books.reservation.budgeted_meters.extend(names);
    }

    /// Adds the response headers about limits. Where it is known what the call used, that is off what is left, else what it has
    /// reserved. A provider's own limits (`copied`) stand before ours.
    pub(super) fn add_limit_headers(&self, list: &mut Headers, copied: Option<&Headers>) {
        // Most providers send none of these names.
        let limits = copied.filter(|copied| copied.raw().any(|(name, _)| name.starts_with(b"x-ratelimit-")));
        match limits {
            None => list.append(&self.books.reservation.headers),
            Some(limits) => self
                .books
                .reservation
                .headers
                .iter()
                .filter(|(name, _)| limits.get(name).is_none())
                .for_each(|(name, value)| list.push(name, value)),
        }
        if self.books.reservation.tokens_left.is_empty() {
            return;
        }
        let used = self.books.completed.as_ref().and_then(|completed| completed.usage.as_ref());
        let used = used.map(|usage| counted(usage, self.config.general.counted_tokens));
        for TokensLeft { kind, left, reserved } in &self.books.reservation.tokens_left {
            let left = used.map_or(*left, |used| left.saturating_add(*reserved).saturating_sub(used));
            let push = |list: &mut Headers, name: &[&str]| {
                if limits.is_none_or(|limits| !limits.iter().any(|(other, _)| is_joined(other, name))) {
                    list.push_number_of(name, left);
                }
            };
            push(list, &["x-ratelimit-", kind.descriptor(), "-remaining-tokens"]);
            match (kind, &self.books.reservation.model) {
                (MeterKind::Key, _) => push(list, &["x-ratelimit-remaining-tokens"]),
                (MeterKind::KeyModel, Some(model)) => push(list, &["x-litellm-key-remaining-tokens-", model]),
                _ => {}
            }
        }
    }

    /// Tokens of an answer of the current group, more or less.
    pub(super) fn typical(&self, lengths: &OutputLengths) -> u64 {
        let group = self.plan().and_then(Plan::segment).map_or("", |segment| segment.group.as_str());
        lengths.typical(group)
    }

    /// What a call of the current group will probably use; and what its client says that it may use besides.
    pub(super) fn guess(&self, at: usize, typical: u64) -> (Usage, u64) {
        let prompt = self.prompt_tokens();
        let (output, claim) = match (self.received.api.operation, self.requested.max_output) {
            (Operation::Embed | Operation::CountTokens, _) => (0, 0),
            (_, None) => (typical, 0),
            (_, Some(most)) => {
                let most = most.min(self.longest_answer(at, most, typical));
                let most = most.saturating_mul(self.requested.choices.min(MOST_CHOICES));
                (most.min(typical), most.saturating_sub(typical))
            }
        };
        let usage = Usage {
            prompt_tokens: prompt,
            completion_tokens: output,
            total_tokens: prompt.saturating_add(output),
            ..Usage::default()
        };
        (usage, claim)
    }

    /// The most tokens that one answer can have, looked for when a client asks for much.
    fn longest_answer(&self, at: usize, most: u64, typical: u64) -> u64 {
        if most <= LONG_ANSWER {
            return most;
        }
        let known = self.config.deployments.get(at).and_then(|deployment| {
            let own = deployment.model_info.get("max_output_tokens").and_then(serde_json::Value::as_u64);
            own.or_else(|| known_model(deployment)?.max_output_tokens)
        });
        known.unwrap_or_else(|| typical.saturating_mul(TYPICAL_ANSWERS).max(LONG_ANSWER))
    }

    /// An estimate for a deployment, priced when there are budgets.
    pub(super) fn estimate_at(
        &self,
        at: usize,
        has_budget: bool,
        counts: CountedTokens,
        typical: u64,
    ) -> Estimate {
        let (usage, claim) = self.guess(at, typical);
        let price = has_budget.then(|| self.planned_price(at)).flatten();
        let cost = |usage: &Usage| {
            price.as_ref().map_or(Money::ZERO, |price| price.cost(usage, &self.requested.terms, None))
        };
        let estimate =
            Estimate { tokens: counted(&usage, counts), cost: cost(&usage), ..Estimate::default() };
        if claim == 0 {
            return estimate;
        }
        // Together, so that what is dearer above some length is.
        let output = usage.completion_tokens.saturating_add(claim);
        let total = usage.total_tokens.saturating_add(claim);
        let whole = Usage { completion_tokens: output, total_tokens: total, ..usage };
        let tokens = counted(&whole, counts).saturating_sub(estimate.tokens);
        let cost = cost(&whole).saturating_sub(estimate.cost);
        Estimate { claim: Claim { tokens, cost }, ..estimate }
    }

    pub(super) fn estimate(&self, rules: &[Rule], env: &Env) -> Estimate {
        let has_budget = rules.iter().any(|rule| rule.max_budget.is_some());
        let at = self.plan().map_or(usize::MAX, |plan| plan.current().deployment);
        self.estimate_at(at, has_budget, self.config.general.counted_tokens, self.typical(env.output_lengths))
    }

    /// Tokens of the prompt, more or less: never more than the model takes.
    pub(super) fn prompt_tokens(&self) -> u64 {
        let tokens = self.received.body_bytes.div_ceil(BYTES_PER_TOKEN);
        if tokens <= LONG_PROMPT {
            return tokens;
        }
        let at = self.plan().map(|plan| plan.current().deployment);
        let most = at.and_then(|at| self.config.deployments.get(at)).and_then(|deployment| {
            let own = deployment.model_info.get("max_input_tokens").and_then(serde_json::Value::as_u64);
            own.or_else(|| known_model(deployment)?.max_input_tokens)
        });
        tokens.min(most.unwrap_or(u64::MAX))
    }

    /// The key's own limits, and what is left of every limit, as response headers. `held` is what this call has reserved.
    pub(super) fn describe(
        &mut self,
        grant: Option<&KeyRecord>,
        rules: &[Rule],
        names: &Names<'_>,
        held: Option<&Reservation>,
        env: &Env,
    ) {
        let mut headers = Headers::with_capacity(16);
        let mut spend = grant.map_or(Money::ZERO, |grant| Money::from_pico(grant.key.budget.spend.into()));
        self.books.reservation.tokens_left.clear();
        for rule in rules.iter().filter(|rule| rule.limits.any() || rule.kind == MeterKind::Key) {
            let standing = held.and_then(|held| held.standing(&rule.meter));
            let standing = standing.unwrap_or_else(|| quota::standing(env.shared, rule, env.now_ms));
            if rule.kind == MeterKind::Key && rule.max_budget.is_some() {
                spend = standing.spend.saturating_sub(standing.held);
            }
            if let Some(left) = standing.tokens_left {
                let reserved = held.and_then(|held| held.tokens(&rule.meter)).unwrap_or(0);
                self.books.reservation.tokens_left.push(TokensLeft { kind: rule.kind, left, reserved });
                if rule.kind == MeterKind::KeyModel && is_header_text(names.called) {
                    self.books.reservation.model = Some(names.called.to_owned());
                }
            }
            let limits = [
                ("requests", rule.limits.rpm, standing.requests_left),
                ("tokens", rule.limits.tpm, standing.tokens_left),
                ("max_parallel_requests", rule.limits.parallel, standing.parallel_left),
            ];
            for (what, limit, left) in limits {
                let (Some(limit), Some(left)) = (limit, left) else { continue };
                let who = rule.kind.descriptor();
                let is_settled = what != "tokens";
                if is_settled {
                    headers.push_number_of(&["x-ratelimit-", who, "-remaining-", what], left);
                }
                headers.push_number_of(&["x-ratelimit-", who, "-limit-", what], limit);
                match rule.kind {
                    MeterKind::Key if what != "max_parallel_requests" => {
                        if is_settled {
                            headers.push_number_of(&["x-ratelimit-remaining-", what], left);
                        }
                        headers.push_number_of(&["x-ratelimit-limit-", what], limit);
                    }
                    MeterKind::KeyModel if is_settled && is_header_text(names.called) => {
                        headers.push_number_of(&["x-litellm-key-remaining-", what, "-", names.called], left);
                    }
                    _ => {}
                }
            }
        }
        self.books.reservation.headers = headers;
        let Some(KeyRecord { key, .. }) = grant else { return };
        let headers = &mut self.books.reservation.headers;
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
    }
}

/// What the price data knows of a deployment's model.
fn known_model(deployment: &Deployment) -> Option<table::ModelFacts> {
    let base = deployment.base_model.as_deref();
    table::entry_for(&deployment.litellm_model, deployment.brand.name, base, None)
}

/// Whether a text is these parts one after the other.
fn is_joined(text: &str, parts: &[&str]) -> bool {
    parts.iter().try_fold(text, |rest, part| rest.strip_prefix(part)) == Some("")
}

/// The key's name for itself.
pub(super) fn alias(grant: Option<&KeyRecord>) -> Option<&str> {
    grant?.key.alias.as_deref()
}

/// The first budget in the reference's order that is used up.
pub(super) fn over_budget<'r>(rules: &'r [Rule], env: &Env) -> Option<(&'r Rule, quota::Why)> {
    let over =
        |rule: &'r Rule| quota::check_budget(env.shared, env.worker, rule, env.now_ms).map(|why| (rule, why));
    rules.iter().filter_map(over).min_by_key(|(rule, _)| CheckStep::of_budget(rule.kind))
}

/// The tokens that count against tokens a minute.
pub(super) fn counted(usage: &Usage, which: CountedTokens) -> u64 {
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
