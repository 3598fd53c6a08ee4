//! What limits single deployments and providers, and how one deployment of several is chosen.

use hashbrown::HashMap;

use super::{
    blocks::Blocks,
    read::{Block, Source},
    yaml::member,
};
use crate::core::{
    cost::{price::Price, table},
    model::{
        deployment::Deployment,
        limits::{Allowance, Limits},
        meter::{Meter, MeterKind},
        money::Money,
        period,
        router::{LatencyArgs, Router, Strategy},
        rule::{Base, Rule},
    },
};

/// Most latencies that are remembered of a deployment.
const MOST_LATENCIES: u64 = 100;

/// `routing_strategy`.
pub(super) fn strategy(src: &mut Source, own: &Block) -> Strategy {
    let Some(name) = own.text(src, "routing_strategy") else { return Strategy::default() };
    if let Some((_, strategy)) = Strategy::NAMES.iter().find(|(known, _)| *known == name) {
        return *strategy;
    }
    let names: Vec<&str> = Strategy::NAMES.iter().map(|(name, _)| *name).collect();
    src.problem(
        &member(&own.path, "routing_strategy"),
        "expected the name of a routing strategy",
        format!("write one of {}", names.join(", ")),
    );
    Strategy::default()
}

/// `routing_strategy_args`.
pub(super) fn latency_args(src: &mut Source, own: &Block) -> LatencyArgs {
    let args = own.member(src, "routing_strategy_args");
    let size = args.count(src, "max_latency_list_size").unwrap_or(10).clamp(1, MOST_LATENCIES);
    LatencyArgs {
        ttl_ms: args.millis(src, "ttl").unwrap_or(3_600_000),
        buffer: args.number(src, "lowest_latency_buffer", "a part, such as 0.5").unwrap_or(0.0),
        size: usize::try_from(size).unwrap_or(10),
    }
}

/// `provider_budget_config`.
pub(super) fn provider_budgets(src: &mut Source, blocks: &Blocks) -> HashMap<String, Allowance> {
    let block = blocks.router.member(src, "provider_budget_config");
    let mut budgets = HashMap::new();
    for provider in block.map.keys() {
        let entry = block.member(src, provider);
        let limit = if entry.get("budget_limit").is_some() { "budget_limit" } else { "max_budget" };
        let time = if entry.get("time_period").is_some() { "time_period" } else { "budget_duration" };
        match allowance(src, &entry, limit, time) {
            Some(allowance) => _ = budgets.insert(provider.clone(), allowance),
            None => {
                src.problem(&entry.path, "expected a budget", "write `{budget_limit: 1.5, time_period: 1d}`")
            }
        }
    }
    budgets
}

/// An amount and a time; `None` without an amount.
pub(super) fn allowance(src: &mut Source, block: &Block, limit: &str, time: &str) -> Option<Allowance> {
    let max = Money::from_pico(block.money(src, limit)?.into());
    let period = block.duration(src, time);
    let resets = period.as_deref().and_then(|text| period::parse(text).ok());
    Some(Allowance { max, resets, period })
}

/// Requests and tokens a minute as strategies read them; what is 0 counts as not set.
pub(super) fn rates(src: &mut Source, block: &Block) -> Limits {
    let mut count = |name: &str| block.count(src, name).filter(|count| *count > 0);
    Limits { rpm: count("rpm"), tpm: count("tpm"), parallel: None }
}

/// Rates of the first place that has them.
pub(super) fn merged<const N: usize>(places: [Limits; N]) -> Limits {
    Limits {
        rpm: places.iter().find_map(|limits| limits.rpm),
        tpm: places.iter().find_map(|limits| limits.tpm),
        parallel: None,
    }
}

fn price(deployment: &Deployment) -> Price {
    let base = deployment.base_model.as_deref();
    let known = table::price_for(&deployment.litellm_model, deployment.brand.name, base, None);
    Price::with_overrides(known.as_ref(), &deployment.prices)
}

/// Gives every deployment the rules that attempts on it come under. Most have none, and cost nothing.
pub(super) fn set_rules(deployments: &mut [Deployment], router: &Router, has_ledger: bool) {
    for deployment in deployments {
        deployment.rules = rules(deployment, router);
        if has_ledger {
            // The ledger knows what all gateways have spent, and starts it again.
            deployment.rules.iter_mut().for_each(|rule| rule.resets = None);
        }
        // LiteLLM has one number for all; looking models up takes time.
        if router.pre_call_checks && deployment.choice.max_input.is_none() {
            let base = deployment.base_model.as_deref();
            let known = table::entry_for(&deployment.litellm_model, deployment.brand.name, base, None);
            deployment.choice.max_input = known.and_then(|known| known.max_input_tokens);
        }
        if router.strategy == Strategy::CostBased {
            deployment.unit_price = price(deployment).unit();
        }
    }
}

fn rules(deployment: &Deployment, router: &Router) -> Vec<Rule> {
    let rule = |kind: MeterKind, id: &str, limits: Limits, budget: Option<&Allowance>| Rule {
        owner: None,
        kind,
        meter: Meter::new(kind, id),
        limits,
        max_budget: budget.map(|budget| budget.max),
        base: Base::default(),
        resets: budget.and_then(|budget| budget.resets),
    };
    let own =
        rule(MeterKind::Deployment, &deployment.id, limits(deployment, router), deployment.budget.as_ref());
    let provider = router.provider_budgets.get(deployment.brand.name);
    let provider = provider
        .map(|budget| rule(MeterKind::Provider, deployment.brand.name, Limits::default(), Some(budget)));
    let binds = own.limits.any() || own.max_budget.is_some();
    Some(own).filter(|_| binds).into_iter().chain(provider).collect()
}

fn limits(deployment: &Deployment, router: &Router) -> Limits {
    /// No limit, and counted all the same: the strategy goes by it.
    const COUNTED: u64 = u64::MAX;
    let rates = Some(deployment.rates).filter(|_| router.strategy.minds_rates()).unwrap_or_default();
    let checked = deployment.rpm.filter(|rpm| *rpm > 0 && router.pre_call_checks);
    let counts = |strategy: Strategy| (router.strategy == strategy).then_some(COUNTED);
    Limits {
        rpm: [rates.rpm, checked].into_iter().flatten().min().or(counts(Strategy::UsageBased)),
        tpm: rates.tpm.or(counts(Strategy::UsageBased)),
        parallel: parallel(deployment, router).or(counts(Strategy::LeastBusy)),
    }
}

/// How many concurrent requests a deployment takes: what is said, else what its rates come to, else the router's number.
fn parallel(deployment: &Deployment, router: &Router) -> Option<u64> {
    let by_tokens = || deployment.tpm.map(|tpm| (tpm / 6_000).max(1));
    let number = deployment.max_parallel.or(deployment.rpm).or_else(by_tokens).or(router.max_parallel);
    number.filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config;

    /// The limits of a deployment with these parameters.
    fn limits(params: &str, settings: &str) -> Limits {
        let yaml = format!(
            "model_list:\n- model_name: m\n  litellm_params: {{model: openai/x, api_key: k{params}}}\n{settings}"
        );
        let config = config::load(&yaml, &|_| None, &|_| None).unwrap_or_else(|e| panic!("{e:?}")).config;
        config.deployments[0].rules.first().map(|rule| rule.limits).unwrap_or_default()
    }

    #[test]
    fn requests_at_a_time_come_from_what_is_set() {
        let default = "router_settings: {default_max_parallel_requests: 7}";
        let rows = [
            ("", "", None),
            (", max_parallel_requests: 3, rpm: 9", default, Some(3)),
            (", rpm: 9, tpm: 60000", default, Some(9)),
            (", tpm: 60000", default, Some(10)),
            (", tpm: 5999", "", Some(1)),
            ("", default, Some(7)),
            (", max_parallel_requests: 0", "", None),
        ];
        for (params, settings, parallel) in rows {
            assert_eq!(limits(params, settings), Limits { parallel, ..Limits::default() }, "{params}");
        }
    }

    #[test]
    fn rates_are_limits_where_the_strategy_says_so() {
        let strategy = |name: &str| format!("router_settings: {{routing_strategy: {name}}}");
        let params = ", rpm: 5, tpm: 6000, max_parallel_requests: 2";
        let told = |settings: &str| {
            let limits = limits(params, settings);
            (limits.rpm, limits.tpm, limits.parallel)
        };
        assert_eq!(told(""), (None, None, Some(2)));
        assert_eq!(told(&strategy("least-busy")), (None, None, Some(2)));
        for name in
            ["usage-based-routing", "usage-based-routing-v2", "latency-based-routing", "cost-based-routing"]
        {
            assert_eq!(told(&strategy(name)), (Some(5), Some(6_000), Some(2)), "{name}");
        }
        for name in ["enable_pre_call_checks", "enable_pre_call_check"] {
            let checked = format!("router_settings: {{{name}: true}}");
            assert_eq!(told(&checked), (Some(5), None, Some(2)), "{name}");
        }
        // What a strategy goes by is counted without a limit too.
        let counted = |name: &str| {
            let limits = limits("", &strategy(name));
            [limits.rpm, limits.tpm, limits.parallel].map(|limit| limit.is_some())
        };
        assert_eq!(counted("least-busy"), [false, false, true]);
        assert_eq!(counted("usage-based-routing-v2"), [true, true, false]);
        assert_eq!(counted("cost-based-routing"), [false; 3]);
    }

    #[test]
    fn rates_are_read_from_the_first_place_that_has_them() {
        let yaml = "model_list:\n\
            - {model_name: a, rpm: 1, litellm_params: {model: openai/x, rpm: 2, tpm: 3}, model_info: {tpm: 4}}\n\
            - {model_name: a, litellm_params: {model: openai/x}, model_info: {rpm: 5, tpm: '6'}}\n";
        let config = config::load(yaml, &|_| None, &|_| None).unwrap().config;
        let told: Vec<_> = config.deployments.iter().map(|d| (d.rates.rpm, d.rates.tpm)).collect();
        assert_eq!(told, [(Some(1), Some(3)), (Some(5), Some(6))]);
        assert_eq!(config.deployments[0].rpm, Some(2), "weights are read from litellm_params alone");
    }

    #[test]
    fn budgets_of_deployments_and_providers() {
        let yaml = "model_list:\n\
            - {model_name: a, litellm_params: {model: openai/x, max_budget: 1.5, budget_duration: 1d}, model_info: {id: x}}\n\
            - {model_name: a, litellm_params: {model: groq/x}}\n\
            router_settings: {provider_budget_config: {openai: {budget_limit: 2, time_period: 1h}}}\n";
        let config = config::load(yaml, &|_| None, &|_| None).unwrap().config;
        let told: Vec<(&str, Option<Money>, bool)> = config.deployments[0]
            .rules
            .iter()
            .map(|rule| (rule.meter.name(), rule.max_budget, rule.resets.is_some()))
            .collect();
        let money = |text: &str| Money::parse(text);
        assert_eq!(told, [("deployment:x", money("1.5"), true), ("provider:openai", money("2"), true)]);
        assert!(config.deployments[1].rules.is_empty());
        for wrong in ["provider_budget_config: {openai: {time_period: 1d}}", "routing_strategy: best"] {
            let problems = config::load(&format!("router_settings: {{{wrong}}}"), &|_| None, &|_| None);
            assert_eq!(problems.unwrap_err().len(), 1, "{wrong}");
        }
    }
}
