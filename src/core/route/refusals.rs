//! The refusals of planning, in LiteLLM's words.

use crate::core::{
    access::refusals::dollars,
    error::{Error, LimitFault},
    model::{deployment::Deployment, meter::MeterKind, money::Money, rule::Rule},
};

/// The refusal when no deployment of a group can be called, until the first that could be.
pub fn none_available(model: &str, available_at_ms: Option<u64>, now_ms: u64) -> Error {
    let wait_s = available_at_ms.map_or(0, |until| until.saturating_sub(now_ms).div_ceil(1_000));
    Error::of(
        LimitFault::NoDeployment { wait_s },
        format!(
            "No deployments available for selected model, Try again in {wait_s} seconds. Passed model={model}. \
             pre-call-checks=False"
        ),
    )
}

/// A refusal for too many requests, with the time until there is room again.
pub fn rate_limited(message: String, resets_at_ms: u64, now_ms: u64) -> Error {
    let wait_s = resets_at_ms.saturating_sub(now_ms).div_ceil(1_000).max(1);
    Error::of(LimitFault::DeploymentRate { wait_s }, message)
}

/// One line about a budget that is used up, as LiteLLM writes it.
pub fn over_budget(deployment: &Deployment, rule: &Rule, spend: Money, held: Money) -> String {
    let max = rule.max_budget.unwrap_or_default();
    // What is only reserved is not spent.
    let reserved = if spend < max { format!(" + {} reserved", dollars(held)) } else { String::new() };
    let (max, spend) = (dollars(max), format!("{}{reserved}", dollars(spend)));
    match rule.kind {
        MeterKind::Provider => {
            format!("Exceeded budget for provider {}: {spend} >= {max}\n", deployment.brand.name)
        }
        _ => format!(
            "Exceeded budget for deployment model_name: {}, litellm_params.model: {}, model_id: {}: {spend} >= {max}\n",
            deployment.group, deployment.litellm_model, deployment.id
        ),
    }
}

/// The refusal when every deployment has used up its budget.
pub fn crossed_budget(told: &str) -> Error {
    let message = format!("No deployments available - crossed budget: {}", told.trim_end());
    Error::of(LimitFault::DeploymentBudget, message)
}
