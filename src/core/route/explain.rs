//! Why a call would go where it goes: the same planning as for any call, told step by step.
//!
//! Whoever leaves a deployment out or puts it in a place says so to the [`Trace`] of its [`World`], if there is one. A call
//! that is served has none.

use std::cell::RefCell;

use serde::{Deserialize, Serialize};

use super::{
    chain::{self, Kind},
    plan::{Call, Controls, Plan, Tokens, World},
};
use crate::core::{
    api::path::parameter,
    codec::escape::percent,
    config::{Config, Resolved},
    error::Error,
};

/// What a call would try, and why each deployment is in or out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The name that was asked for.
    pub model: String,
    /// `routing_strategy`.
    pub strategy: String,
    /// The most attempts that there can be, whatever fails how; 0 for a refusal.
    pub attempts: u32,
    /// The groups that were looked at, in the order in which they would be tried.
    pub groups: Vec<Group>,
    /// Where a prompt goes that is too long for the group asked for, if not to `groups`.
    pub context_window_fallbacks: Vec<String>,
    /// Where a prompt goes that the provider's content policy refuses, if not to `groups`.
    pub content_policy_fallbacks: Vec<String>,
    /// What the client is told when there is nothing to try.
    pub refusal: Option<Refusal>,
}

/// An error as the client sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Text.
    pub message: String,
}

/// A model group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The name as it was asked for, or as a list of fallbacks has it.
    pub name: String,
    /// The name of the group that serves it; empty when none does.
    pub group: String,
    /// 0 for the group asked for, 1 for its fallbacks, 2 for theirs.
    pub depth: u32,
    /// The most attempts on it; 0 when it is passed over.
    pub attempts: u32,
    /// Its deployments: those that would be tried in their order, then those that are left out.
    pub deployments: Vec<Member>,
    /// Why it is passed over, when that is not a matter of single deployments.
    pub refusal: Option<String>,
}

/// A deployment of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// `model_info.id`.
    pub id: String,
    /// `litellm_params.model`.
    pub model: String,
    /// Its place in the order, from 1 on; none when it is left out.
    pub place: Option<usize>,
    /// What put it there.
    pub why: Vec<String>,
}

/// What planning tells while it goes on.
#[derive(Debug, Default)]
pub struct Trace(RefCell<Vec<Visit>>);

#[derive(Debug, Default)]
struct Visit {
    group: Group,
    members: Vec<(usize, Member)>,
}

impl Trace {
    /// Comes to a group.
    pub(super) fn visit(&self, name: &str, resolved: &Resolved, depth: u32, config: &Config) {
        let group = Group { name: name.to_owned(), group: resolved.group.clone(), depth, ..Group::default() };
        let found = resolved.deployments.iter().filter_map(|&at| Some((at, config.deployments.get(at)?)));
        let members = found.map(|(at, deployment)| {
            let member = Member {
                id: deployment.id.clone(),
                model: deployment.litellm_model.clone(),
                ..Member::default()
            };
            (at, member)
        });
        let members = members.collect();
        self.change(|visits| visits.push(Visit { group, members }));
    }

    /// Skips a fallback that stands for nothing.
    pub(super) fn skip(&self, name: &str, depth: u32, why: &Error) {
        let refusal = Some(why.message.clone());
        let group = Group { name: name.to_owned(), depth, refusal, ..Group::default() };
        self.change(|visits| visits.push(Visit { group, members: Vec::new() }));
    }

    /// Something about a deployment of the group.
    pub(super) fn note(&self, at: usize, why: impl Into<String>) {
        self.last(|visit| {
            if let Some((_, member)) = visit.members.iter_mut().find(|(known, _)| *known == at) {
                member.why.push(why.into());
            }
        });
    }

    /// The group is left as it is, in this order.
    pub(super) fn settle(&self, order: &[usize], attempts: u32) {
        self.last(|visit| {
            visit.group.attempts = attempts;
            for (at, member) in &mut visit.members {
                member.place =
                    order.iter().position(|known| known == at).map(|place| place.saturating_add(1));
            }
            // Those without a place come last, as they are.
            visit.members.sort_by_key(|(_, member)| member.place.unwrap_or(usize::MAX));
        });
    }

    /// The group is passed over.
    pub(super) fn pass_over(&self, why: &Error) {
        self.last(|visit| visit.group.refusal = Some(why.message.clone()));
    }

    fn last(&self, change: impl FnOnce(&mut Visit)) {
        self.change(|visits| {
            if let Some(last) = visits.last_mut() {
                change(last);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Visit>)) {
        if let Ok(mut visits) = self.0.try_borrow_mut() {
            change(&mut visits);
        }
    }

    /// The groups that were looked at.
    pub(in crate::core) fn into_groups(self) -> Vec<Group> {
        let group = |visit: Visit| Group {
            deployments: visit.members.into_iter().map(|(_, member)| member).collect(),
            ..visit.group
        };
        self.0.into_inner().into_iter().map(group).collect()
    }
}

/// The call to explain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Question {
    /// The model that is asked for.
    pub model: String,
    /// Its tags, and those of its key and team.
    pub tags: Vec<String>,
    /// Tokens of its prompt.
    pub tokens: u64,
    /// It asks for a stream.
    pub stream: bool,
    /// The caller's team.
    pub team: Option<String>,
    /// `allowed_model_region` of its end user.
    pub region: Option<String>,
    /// It has a `response_format`.
    pub response_format: bool,
}

impl Question {
    /// Reads `model=…&tags=a,b&tokens=100&stream=true&team=…&region=…&response_format=true`; all but the model may be left out.
    pub fn from_query(query: &str) -> Result<Question, Error> {
        let text = |name: &str| parameter(query, name).map(|text| text.into_owned());
        let wrong = |name: &str, expected: &str| {
            Error::bad_request(format!("`{name}` in the query: expected {expected}."))
        };
        let flag = |name: &'static str| match text(name).as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(wrong(name, "true or false")),
        };
        let tokens = text("tokens").map(|text| text.parse()).transpose();
        let tags = text("tags").unwrap_or_default();
        Ok(Question {
            model: text("model").ok_or_else(|| wrong("model", "the name of a model"))?,
            tags: tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
            tokens: tokens.map_err(|_| wrong("tokens", "a whole number"))?.unwrap_or(0),
            stream: flag("stream")?,
            team: text("team"),
            region: text("region"),
            response_format: flag("response_format")?,
        })
    }

    /// The same as a query.
    pub fn to_query(&self) -> String {
        let mut query = format!("model={}&tokens={}", escape(&self.model), self.tokens);
        let flag = |is: bool| is.then(|| "true".to_owned());
        let tags = (!self.tags.is_empty()).then(|| self.tags.join(","));
        for (name, value) in [
            ("tags", tags),
            ("team", self.team.clone()),
            ("region", self.region.clone()),
            ("stream", flag(self.stream)),
            ("response_format", flag(self.response_format)),
        ] {
            if let Some(value) = value {
                query += &format!("&{name}={}", escape(&value));
            }
        }
        query
    }

    fn controls(&self) -> Controls {
        let tokens = Tokens { likely: self.tokens, least: self.tokens };
        let call = Call {
            prompt_tokens: self.tokens,
            streaming: self.stream,
            team: self.team.clone(),
            any_team: self.team.is_none(),
            tags: self.tags.clone(),
            region: self.region.clone(),
            messages: Some(tokens),
            response_format: self.response_format,
            ..Call::default()
        };
        Controls { call, ..Controls::default() }
    }
}

/// Everything but letters, digits and what needs no escape in a query.
fn escape(text: &str) -> String {
    percent(text, |byte| byte.is_ascii_alphanumeric() || b"-._~/,:".contains(&byte))
}

/// Explains a call. It is planned and not made: nothing counts as used.
pub fn explain(question: &Question, world: &mut World) -> Explanation {
    let trace = Trace::default();
    let (config, model, controls) = (world.config, question.model.as_str(), question.controls());
    let mut world = World {
        config,
        shared: world.shared,
        now_ms: world.now_ms,
        random: &mut *world.random,
        worker: world.worker,
        trace: Some(&trace),
    };
    let names = |kind| names(model, &controls, config, kind);
    let mut explanation = Explanation {
        model: model.to_owned(),
        strategy: config.router.strategy.name().to_owned(),
        context_window_fallbacks: names(Kind::ContextWindow),
        content_policy_fallbacks: names(Kind::ContentPolicy),
        ..Explanation::default()
    };
    match Plan::new(model, controls, &mut world) {
        Ok(plan) => explanation.attempts = plan.max_retries().saturating_add(1),
        Err(error) => {
            explanation.refusal = Some(Refusal { status: error.status, message: error.message });
        }
    }
    explanation.groups = trace.into_groups();
    explanation
}

/// The fallbacks that failures of a kind have to themselves.
fn names(model: &str, controls: &Controls, config: &Config, kind: Kind) -> Vec<String> {
    let resolved = config.resolve_for(model, controls.call.team.as_deref());
    let group = resolved.map(|resolved| resolved.group).unwrap_or_default();
    let entries = chain::fallbacks(controls, config, [model, &group], 0, kind);
    entries.map(|entry| entry.model.clone()).collect()
}

#[cfg(test)]
mod tests;
