//! Why a call would go where it goes: the same planning as for any call, told step by step.
//!
//! Each rule that leaves a deployment out or gives it a place records so in the [`Trace`] of its [`World`], if there is one. A call
//! that is served has none.

use serde::{Deserialize, Serialize};

use super::{
    chain::{self, FallbackKind},
    plan::Plan,
    trace::{Group, Trace},
    world::{Controls, RoutingInput, Tokens, World},
};
use crate::core::{codec::percent::percent, config::Config, error::Error, operation::path::parameter};

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

/// The call to explain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Question {
    /// The model that is asked for.
    pub model: String,
    /// The request's tags, and those of its key and team.
    pub tags: Vec<String>,
    /// Tokens of its prompt.
    pub tokens: u64,
    /// Whether the request asks for a stream.
    pub stream: bool,
    /// The caller's team.
    pub team: Option<String>,
    /// `allowed_model_region` of its end user.
    pub region: Option<String>,
    /// Whether the request has a `response_format`.
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

    /// The question as a query.
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
        let call = RoutingInput {
            prompt_tokens: self.tokens,
            streaming: self.stream,
            team: self.team.clone(),
            any_team: self.team.is_none(),
            tags: self.tags.clone(),
            region: self.region.clone(),
            messages: Some(tokens),
            response_format: self.response_format,
            ..RoutingInput::default()
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
        context_window_fallbacks: names(FallbackKind::ContextWindow),
        content_policy_fallbacks: names(FallbackKind::ContentPolicy),
        ..Explanation::default()
    };
    match Plan::new(model, controls, &mut world) {
        Ok(plan) => explanation.attempts = plan.max_retries().saturating_add(1),
        Err(error) => {
            explanation.refusal = Some(Refusal { status: error.status(), message: error.message });
        }
    }
    explanation.groups = trace.into_groups();
    explanation
}

/// The fallbacks that failures of a kind have to themselves.
fn names(model: &str, controls: &Controls, config: &Config, kind: FallbackKind) -> Vec<String> {
    let resolved = config.resolve_for(model, controls.call.team.as_deref());
    let group = resolved.map(|resolved| resolved.group).unwrap_or_default();
    let entries = chain::fallbacks(controls, config, [model, &group], 0, kind);
    entries.map(|entry| entry.model.clone()).collect()
}

#[cfg(test)]
mod tests;
