//! The order in which a request tries the deployments of a group: `routing_strategy`.
//!
//! Retries take the next one of the order, so the first is what the strategy chooses and the others are what it would choose
//! without those before them.

use std::fmt::Write as _;

use super::{
    filters, latency, pick,
    refusals::{none_available, rate_limited},
    trace::Trace,
    world::{RoutingInput, World},
};
use crate::core::{
    error::Error,
    model::{deployment::Deployment, meter::MeterKind, router::Strategy, rule::Rule},
    quota::{self, Counts},
};

/// The deployments of a group that are left, in order; never none. The error is why there is none.
pub fn order(
    healthy: Vec<usize>,
    group: &str,
    call: &RoutingInput,
    world: &mut World,
) -> Result<Vec<usize>, Error> {
    let config = world.config;
    let strategy = config.router.strategy;
    let rules = |at: usize| config.deployments.get(at).map(|d| d.rules.as_slice()).unwrap_or_default();
    let is_plain = strategy == Strategy::SimpleShuffle && !config.router.has_filters();
    if is_plain && healthy.iter().all(|&at| rules(at).is_empty()) {
        return Ok(shuffled(healthy, world));
    }
    let left = filters::narrow(healthy, group, call, world)?;
    let counted = counted(left, world);
    world.tell(|trace| tell_counts(&counted, call, trace));
    let (within, over): (Vec<_>, Vec<_>) = counted.into_iter().partition(|one| one.has_room(call));
    if within.is_empty() {
        return Err(all_over(strategy, group, &over, world.now_ms));
    }
    let mut order = match strategy {
        Strategy::SimpleShuffle => {
            let left: Vec<usize> = within.iter().map(|one| one.at).collect();
            shuffled(left, world)
        }
        Strategy::LeastBusy => sorted(mixed(within, world), |one| one.counts.parallel),
        Strategy::UsageBased => sorted(mixed(within, world), |one| one.counts.tokens),
        Strategy::CostBased => {
            world.tell(|trace| within.iter().for_each(|one| trace.note(one.at, price(one.deployment))));
            sorted(within, |one| one.deployment.unit_price)
        }
        Strategy::LatencyBased => by_latency(mixed(within, world), call, world),
    };
    if config.router.pre_call_checks && call.messages.is_some() {
        // `order`: the lowest first, the others when those have failed.
        let place = |at: &usize| config.deployments.get(*at).and_then(|d| d.choice.order).unwrap_or(u64::MAX);
        order.sort_by_key(place);
        world.tell(|trace| {
            order
                .iter()
                .filter(|at| place(at) != u64::MAX)
                .for_each(|at| trace.note(*at, format!("order {}", place(at))));
        });
    }
    Ok(order)
}

/// One deployment and what is counted for it.
struct Counted<'c> {
    at: usize,
    deployment: &'c Deployment,
    counts: Counts,
}

impl Counted<'_> {
    /// Whether its requests and tokens a minute leave room for one more call.
    fn has_room(&self, call: &RoutingInput) -> bool {
        let Some(rule) = own_rule(self.deployment) else { return true };
        let fits = |limit: Option<u64>, used: u64, more: u64| {
            limit.is_none_or(|limit| used.saturating_add(more) <= limit)
        };
        fits(rule.limits.rpm, self.counts.requests, 1)
            && fits(rule.limits.tpm, self.counts.tokens, call.prompt_tokens)
    }
}

/// A deployment's own limits and budget.
fn own_rule(deployment: &Deployment) -> Option<&Rule> {
    deployment.rules.iter().find(|rule| rule.kind == MeterKind::Deployment)
}

/// Reads the counts of all deployments; those without limits have none.
fn counted<'c>(order: Vec<usize>, world: &World<'c>) -> Vec<Counted<'c>> {
    let found = |at: &usize| Some((*at, world.config.deployments.get(*at)?));
    let all: Vec<(usize, &Deployment)> = order.iter().filter_map(found).collect();
    let meters = all.iter().filter_map(|(_, deployment)| Some(&own_rule(deployment)?.meter));
    let mut counts = quota::counts(world.shared, meters, world.now_ms).into_iter();
    let mut next = |deployment: &Deployment| own_rule(deployment).and_then(|_| counts.next());
    all.into_iter()
        .map(|(at, deployment)| Counted { at, deployment, counts: next(deployment).unwrap_or_default() })
        .collect()
}

fn shuffled(left: Vec<usize>, world: &mut World) -> Vec<usize> {
    if left.len() < 2 {
        return left;
    }
    let deployments = &world.config.deployments;
    world.tell(|trace| {
        for (at, share) in pick::shares(deployments, &left) {
            trace.note(at, format!("is tried first by {:.1} % of all calls", share * 100.0));
        }
    });
    pick::shuffle(deployments, &left, world.random)
}

/// What is counted for deployments that have limits, and which are over them.
fn tell_counts(counted: &[Counted], call: &RoutingInput, trace: &Trace) {
    for one in counted {
        let Some(rule) = own_rule(one.deployment) else { continue };
        let of = |limit: Option<u64>| {
            limit.filter(|limit| *limit != u64::MAX).map(|limit| format!(" of {limit}")).unwrap_or_default()
        };
        let Counts { parallel, requests, tokens, .. } = one.counts;
        let (in_flight, rpm, tpm) = (of(rule.limits.parallel), of(rule.limits.rpm), of(rule.limits.tpm));
        let over = if one.has_room(call) { "" } else { "no room for this call: " };
        trace.note(
            one.at,
            format!("{over}{parallel}{in_flight} in flight, {requests}{rpm} requests and {tokens}{tpm} tokens in this minute"),
        );
    }
}

/// What cost-based routing goes by.
fn price(deployment: &Deployment) -> String {
    // 10⁻¹⁸ dollars a token.
    format!("costs {:.3} dollars for a million tokens each way", deployment.unit_price as f64 / 1e12)
}

/// By chance, all orders alike.
fn mixed<'c>(mut list: Vec<Counted<'c>>, world: &mut World) -> Vec<Counted<'c>> {
    pick::mix(&mut list, world.random);
    list
}

/// The least first; among equals, those that come first.
fn sorted<K: Ord>(mut list: Vec<Counted>, key: impl Fn(&Counted) -> K) -> Vec<usize> {
    list.sort_by_key(key);
    list.into_iter().map(|one| one.at).collect()
}

/// The deployments that are about as quick as the quickest, in the order in which they come, then the others by their latency.
fn by_latency(list: Vec<Counted>, call: &RoutingInput, world: &World) -> Vec<usize> {
    let args = &world.config.router.latency;
    let mut known: Vec<(usize, f64)> = list
        .into_iter()
        .map(|one| {
            let latency = latency::mean(world.shared, one.deployment, call.streaming, args, world.now_ms);
            (one.at, latency)
        })
        .collect();
    let lowest = known.iter().map(|(_, latency)| *latency).fold(f64::INFINITY, f64::min);
    let most = lowest * (1.0 + args.buffer);
    world.tell(|trace| {
        for (at, latency) in &known {
            trace.note(
                *at,
                match *latency {
                    0.0 => "was not called lately".to_owned(),
                    ns => format!("takes {:.3} ms a token", ns / 1e6),
                },
            );
        }
    });
    // Sorting keeps the order of equals.
    known.sort_by(|(_, a), (_, b)| a.max(most).total_cmp(&b.max(most)));
    known.into_iter().map(|(at, _)| at).collect()
}

/// What is told when all that is left has used up its requests or tokens of this minute.
fn all_over(strategy: Strategy, group: &str, over: &[Counted], now_ms: u64) -> Error {
    let resets_at_ms = over.iter().map(|one| one.counts.resets_at_ms).min().unwrap_or(now_ms);
    if strategy != Strategy::UsageBased {
        return match strategy {
            Strategy::LatencyBased | Strategy::CostBased => none_available(group, Some(resets_at_ms), now_ms),
            _ => {
                let message = format!("No deployments available for selected model. Passed model={group}");
                rate_limited(message, resets_at_ms, now_ms)
            }
        };
    }
    // Python's form of a map, as LiteLLM prints it.
    let limit = |limit: Option<u64>| match limit {
        Some(limit) if limit != u64::MAX => limit.to_string(),
        _ => "inf".to_owned(),
    };
    let mut map = String::new();
    for one in over {
        let limits = own_rule(one.deployment).map(|rule| rule.limits).unwrap_or_default();
        let comma = if map.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        _ = write!(
            map,
            "{comma}'{}': {{'current_tpm': {}, 'tpm_limit': {}, 'current_rpm': {}, 'rpm_limit': {}}}",
            one.deployment.id,
            one.counts.tokens,
            limit(limits.tpm),
            one.counts.requests,
            limit(limits.rpm),
        );
    }
    let message =
        format!("No deployments available for selected model. Passed model={group}. Deployments={{{map}}}");
    rate_limited(message, resets_at_ms, now_ms)
}

#[cfg(test)]
mod tests;
