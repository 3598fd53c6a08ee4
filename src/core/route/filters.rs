//! Which deployments of a group may take a call at all, before a strategy orders them: budgets, `enable_pre_call_checks`, tags.

use std::fmt::Write as _;

use super::{
    refusals::{crossed_budget, none_available, over_budget},
    world::{RoutingInput, Tokens, World},
};

use crate::core::{
    error::{Error, RequestFault},
    model::{deployment::Deployment, failure::Class, params::Params},
    quota::{self, Why},
};

/// In a deployment's tags: it takes calls whose tags no other has, and alone those without tags.
const DEFAULT: &str = "default";

/// What is left of a group, in its order; never none. The error is why nothing is.
pub fn narrow(
    healthy: Vec<usize>,
    group: &str,
    call: &RoutingInput,
    world: &World,
) -> Result<Vec<usize>, Error> {
    let left = affordable(healthy, world)?;
    let left = match &call.messages {
        Some(tokens) if world.config.router.pre_call_checks => {
            let found = checked(&left, group, call, *tokens, world);
            tell_left_out(&left, &found, world, |d| unfit(d, call, *tokens, world));
            found?
        }
        _ => left,
    };
    if !world.config.router.tag_filtering {
        return Ok(left);
    }
    let found = tagged(&left, group, &call.tags, world);
    tell_left_out(&left, &found, world, |d| match d.choice.tags.is_empty() {
        true => "has no tags".to_owned(),
        false => format!("is for other tags than the call's: {}", d.choice.tags.join(", ")),
    });
    found
}

/// Tells why deployments were left out by a step.
fn tell_left_out(
    before: &[usize],
    after: &Result<Vec<usize>, Error>,
    world: &World,
    why: impl Fn(&Deployment) -> String,
) {
    world.tell(|trace| {
        let is_left = |at: &usize| after.as_ref().is_ok_and(|after| after.contains(at));
        for &at in before.iter().filter(|at| !is_left(at)) {
            if let Some(deployment) = world.config.deployments.get(at) {
                trace.note(at, why(deployment));
            }
        }
    });
}

/// The deployments whose budgets, and whose providers' budgets, are not used up.
fn affordable(healthy: Vec<usize>, world: &World) -> Result<Vec<usize>, Error> {
    let mut told = String::new();
    let mut left = Vec::with_capacity(healthy.len());
    for at in healthy {
        let Some(deployment) = world.config.deployments.get(at) else { continue };
        let over = deployment.rules.iter().find_map(|rule| {
            match quota::check_budget(world.shared, world.worker, rule, world.now_ms)? {
                Why::Budget { spend, held } => Some((rule, spend, held)),
                _ => None,
            }
        });
        match over {
            Some((rule, spend, held)) => {
                let line = over_budget(deployment, rule, spend, held);
                world.tell(|trace| trace.note(at, line.trim_end()));
                told.push_str(&line);
            }
            None => left.push(at),
        }
    }
    if left.is_empty() { Err(crossed_budget(&told)) } else { Ok(left) }
}

/// The deployments that can take the prompt, stand in the region that the end user must stay in, and know `response_format` if
/// it is asked for.
///
/// Tokens are not counted here as a provider does. So the estimate decides which deployment is better, and the call is only
/// refused when it is too long for all of them by half.
fn checked(
    list: &[usize],
    group: &str,
    call: &RoutingInput,
    tokens: Tokens,
    world: &World,
) -> Result<Vec<usize>, Error> {
    let find = |at: &usize| world.config.deployments.get(*at);
    let all: Vec<(usize, &Deployment)> = list.iter().filter_map(|at| Some((*at, find(at)?))).collect();
    let left = || all.iter().filter(|(_, d)| is_known(d, call, world) && is_allowed(d, call));

    let fitting: Vec<usize> = left().filter(|(_, d)| takes(d, tokens.likely)).map(|(at, _)| *at).collect();
    if !fitting.is_empty() {
        return Ok(fitting);
    }
    let longest =
        left().filter(|(_, d)| takes(d, tokens.least)).filter_map(|(_, d)| d.choice.max_input).max();
    if let Some(longest) = longest {
        let has_it = |d: &Deployment| d.choice.max_input == Some(longest);
        return Ok(left().filter(|(_, d)| has_it(d)).map(|(at, _)| *at).collect());
    }
    let too_long = || all.iter().filter(|(_, d)| !takes(d, tokens.likely));
    if too_long().next().is_none() {
        return Err(none_available(group, None, world.now_ms));
    }
    let mut message = "litellm.ContextWindowExceededError: litellm._pre_call_checks: Context Window exceeded for given call. \
                       No models have context window large enough for this call.\n"
        .to_owned();
    for (_, d) in too_long() {
        let max = d.choice.max_input.unwrap_or_default();
        // Writing to a String cannot fail.
        _ = write!(message, "Model={}, Max Input Tokens={max}, Got={}", d.litellm_model, tokens.likely);
    }
    Err(Error::of(RequestFault::Foreseen(Class::ContextWindowExceeded), message))
}

/// Whether it understands what is asked for, or may do without.
fn is_known(d: &Deployment, call: &RoutingInput, world: &World) -> bool {
    let drops = world.config.general.drop_params;
    drops || !call.response_format || d.accepts_of(&d.model).chat.has(Params::RESPONSE_FORMAT)
}

/// Whether it is where the end user must stay.
fn is_allowed(d: &Deployment, call: &RoutingInput) -> bool {
    call.region.is_none() || d.choice.region == call.region
}

/// Whether so many tokens are not too many.
fn takes(d: &Deployment, tokens: u64) -> bool {
    d.choice.max_input.is_none_or(|max| tokens <= max)
}

/// Why [`checked`] leaves one out.
fn unfit(d: &Deployment, call: &RoutingInput, tokens: Tokens, world: &World) -> String {
    if !is_known(d, call, world) {
        return "does not know `response_format`".to_owned();
    }
    if !is_allowed(d, call) {
        let own = d.choice.region.as_deref().unwrap_or("no region");
        return format!("is in {own}, not in {}", call.region.as_deref().unwrap_or_default());
    }
    let max = d.choice.max_input.unwrap_or_default();
    format!("takes prompts of {max} tokens, this one has about {}", tokens.likely)
}

/// The deployments that a call's tags lead to: with one of them (or, without `tag_filtering_match_any`, with all), else the default
/// ones. A call without tags goes to the default ones, if there are any.
fn tagged(list: &[usize], group: &str, tags: &[String], world: &World) -> Result<Vec<usize>, Error> {
    let tags_of =
        |at: &usize| world.config.deployments.get(*at).map(|d| d.choice.tags.as_slice()).unwrap_or_default();
    let serves = |own: &[String]| match world.config.router.tags_match_any {
        true => tags.iter().any(|tag| own.contains(tag)),
        false => tags.iter().all(|tag| own.contains(tag)),
    };
    let with = |is: &dyn Fn(&[String]) -> bool| -> Vec<usize> {
        list.iter().filter(|at| is(tags_of(at))).copied().collect()
    };
    if !tags.is_empty() {
        let found = with(&serves);
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let default = with(&|own| own.iter().any(|tag| tag == DEFAULT));
    match (default.is_empty(), tags.is_empty()) {
        (false, _) => Ok(default),
        (true, true) => Ok(list.to_vec()),
        (true, false) => {
            let shown: Vec<String> = tags.iter().map(|tag| format!("'{tag}'")).collect();
            let message = format!(
                "Not allowed to access model due to tags configuration. Passed model={group} and tags=[{}]",
                shown.join(", ")
            );
            Err(Error::of(RequestFault::Tags, message))
        }
    }
}

#[cfg(test)]
mod tests;
