//! From the name a client asks for to the deployments that may serve it.

use hashbrown::HashMap;
use serde_json::{Map, Value, json};

use super::{Config, Wildcard, wildcard};
use crate::core::{cost::table, model::deployment::Deployment, provider::infer};

/// What a requested name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The model group (or wildcard pattern) that serves it: fallbacks, policies and metrics go by it.
    pub group: String,
    /// The name that was matched, after renames and aliases: [`Deployment::model_for`](Deployment::model_for) takes
    /// it together with `captures`.
    pub requested: String,
    /// Candidates, in file order.
    pub deployments: Vec<usize>,
    /// What the pattern's `*`s stand for; empty for an exact name.
    pub captures: Vec<String>,
}

/// Exact names of every kind, each already decided by the order of precedence.
#[derive(Debug, Default)]
pub(crate) struct Index {
    names: HashMap<String, Name>,
    /// `litellm_params.model` to the deployments that have it, all of one group.
    by_model: HashMap<String, Vec<usize>>,
    /// The deployments of a bare `model: "*"`: the last resort for names that nothing else matches.
    default: Vec<usize>,
    /// By team: what it calls its own deployments by.
    team_names: HashMap<String, HashMap<String, Vec<usize>>>,
}

#[derive(Debug)]
enum Name {
    Id(usize),
    Alias(String),
    Group(Vec<usize>),
    Unavailable,
}

impl Index {
    /// Built once all other parts of the configuration are there.
    pub(super) fn of(config: &Config) -> Index {
        let mut index = Index::default();
        for name in config.unavailable.keys() {
            index.names.insert(name.clone(), Name::Unavailable);
        }
        for (name, deployments) in &config.groups {
            index.names.insert(name.clone(), Name::Group(deployments.clone()));
        }
        for (name, alias) in &config.aliases {
            index.names.insert(name.clone(), Name::Alias(alias.model.clone()));
        }
        for (at, d) in config.deployments.iter().enumerate() {
            index.names.insert(d.id.clone(), Name::Id(at));
            let same_group =
                |other: &usize| config.deployments.get(*other).is_some_and(|o| o.group == d.group);
            let of_model = index.by_model.entry(d.litellm_model.clone()).or_default();
            if of_model.first().is_none_or(same_group) {
                of_model.push(at);
            }
            if let (Some(team), Some(name)) = (&d.choice.team, &d.choice.team_name) {
                index.team_names.entry(team.clone()).or_default().entry(name.clone()).or_default().push(at);
            }
            if d.litellm_model == "*" {
                index.default.push(at);
            }
        }
        index
    }
}

impl Config {
    /// The deployments for a name: rename, deployment id, alias, group, wildcards (then again with the inferred provider
    /// in front), the default deployment, a group whose own model has that name. `None` is LiteLLM's "Invalid model name",
    /// or [`Config::why_unavailable`] knows better.
    pub fn resolve(&self, model: &str) -> Option<Resolved> {
        let model = self.renames.get(model).map_or(model, String::as_str);
        match self.index.names.get(model) {
            Some(Name::Alias(target)) => match self.index.names.get(target.as_str()) {
                // One hop: an alias of an alias is not followed.
                Some(Name::Alias(_)) | None => self.resolve_pattern(target),
                Some(name) => self.resolve_name(target, name),
            },
            Some(name) => self.resolve_name(model, name),
            None => self.resolve_pattern(model),
        }
    }

    /// [`Config::resolve`] for a caller of a team: its own deployments that it calls by this name are in front of all others.
    pub fn resolve_for(&self, model: &str, team: Option<&str>) -> Option<Resolved> {
        let shared = self.resolve(model);
        let Some(own) = team.and_then(|team| self.index.team_names.get(team)?.get(model)) else {
            return shared;
        };
        let mut resolved = shared.unwrap_or_else(|| Resolved {
            group: model.to_owned(),
            requested: model.to_owned(),
            deployments: Vec::new(),
            captures: Vec::new(),
        });
        resolved.deployments.retain(|at| !own.contains(at));
        resolved.deployments.splice(0..0, own.iter().copied());
        Some(resolved)
    }

    /// What a name is an alias of, renames first; the same for all other names.
    pub fn target<'a>(&'a self, model: &'a str) -> &'a str {
        let model = self.renames.get(model).map_or(model, String::as_str);
        self.aliases.get(model).map_or(model, |alias| alias.model.as_str())
    }

    /// The models that the price data knows behind a wildcard, by the names that clients call them by.
    pub fn known_models(&self, wildcard: &Wildcard) -> Vec<String> {
        let deployments = wildcard.deployments.iter().filter_map(|&at| self.deployments.get(at));
        let mut names: Vec<String> =
            deployments.flat_map(|deployment| wildcard::expand(&wildcard.pattern, deployment)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What a team calls its own deployments by.
    pub fn team_names(&self, team: &str) -> impl Iterator<Item = &String> {
        self.index.team_names.get(team).into_iter().flat_map(HashMap::keys)
    }

    /// Whether all deployments of a name are another team's.
    pub fn is_foreign(&self, model: &str, team: Option<&str>) -> bool {
        let Some(resolved) = self.resolve_for(model, team) else { return false };
        let owner = |at: &usize| self.deployments.get(*at).and_then(|d| d.choice.team.as_deref());
        resolved.deployments.iter().all(|at| owner(at).is_some_and(|owner| Some(owner) != team))
    }

    /// Why a name that the file knows cannot be served.
    pub fn why_unavailable(&self, model: &str) -> Option<&str> {
        let model = self.target(model);
        if let Some(reason) = self.unavailable.get(model) {
            return Some(reason);
        }
        let (pattern, _, _) = self.matching(model)?;
        self.unavailable.get(pattern).map(String::as_str)
    }

    /// The names `/models` lists: groups in file order, then aliases that are not hidden.
    pub fn model_names(&self) -> Vec<String> {
        let mut aliases: Vec<&String> =
            self.aliases.iter().filter(|(_, alias)| !alias.hidden).map(|(name, _)| name).collect();
        aliases.sort();
        aliases.retain(|alias| !self.group_order.contains(alias));
        self.group_order.iter().chain(aliases).cloned().collect()
    }

    /// The body of `/model/info`: every deployment, without secrets, its `model_info` completed with what the price data
    /// knows of the model.
    pub fn model_info(&self) -> Value {
        let data = self.deployments.iter().map(
            |d| json!({"model_name": d.group, "litellm_params": d.shown_params, "model_info": known_info(d)}),
        );
        json!({"data": data.collect::<Vec<Value>>()})
    }

    fn resolve_name(&self, model: &str, name: &Name) -> Option<Resolved> {
        match name {
            Name::Id(at) => {
                let group = self.deployments.get(*at)?.group.clone();
                Some(Resolved {
                    group,
                    requested: model.to_owned(),
                    deployments: vec![*at],
                    captures: Vec::new(),
                })
            }
            Name::Group(deployments) => self.resolved(model, model, deployments, Vec::new()),
            Name::Alias(_) | Name::Unavailable => None,
        }
    }

    fn resolve_pattern(&self, model: &str) -> Option<Resolved> {
        if let Some((pattern, deployments, name)) = self.matching(model) {
            let captures = wildcard::captures(pattern, &name).unwrap_or_default();
            let captures = captures.into_iter().map(str::to_owned).collect();
            return self.resolved(pattern, &name, deployments, captures);
        }
        let group_of = |deployments: &[usize]| Some(&self.deployments.get(*deployments.first()?)?.group);
        if let Some(group) = group_of(&self.index.default)
            && let Some(resolved) = self.resolved(group, model, &self.index.default, vec![model.to_owned()])
        {
            return Some(resolved);
        }
        let deployments = self.index.by_model.get(model)?;
        self.resolved(group_of(deployments)?, model, deployments, Vec::new())
    }

    /// Of the candidates, drops the variants of a bare `*` that are for other brands than the name's; `None` when none is
    /// left.
    fn resolved(
        &self,
        group: &str,
        name: &str,
        deployments: &[usize],
        captures: Vec<String>,
    ) -> Option<Resolved> {
        let only_inferred = |at: &usize| self.deployments.get(*at).is_some_and(|d| d.only_inferred);
        let mut deployments = deployments.to_vec();
        if deployments.iter().any(only_inferred) {
            let brand = infer(name, None, None).ok().map(|(brand, _)| brand.name);
            deployments.retain(|at| {
                !only_inferred(at) || self.deployments.get(*at).is_some_and(|d| Some(d.brand.name) == brand)
            });
        }
        let (group, requested) = (group.to_owned(), name.to_owned());
        (!deployments.is_empty()).then_some(Resolved { group, requested, deployments, captures })
    }

    /// The first wildcard that matches the name, or the name with its inferred provider in front; and that name.
    fn matching(&self, model: &str) -> Option<(&str, &[usize], String)> {
        let find = |name: &str| {
            let wildcards = self.wildcards.iter();
            wildcards.clone().find(|wildcard| wildcard::captures(&wildcard.pattern, name).is_some())
        };
        if self.wildcards.is_empty() {
            return None;
        }
        let (wildcard, name) = match find(model) {
            Some(wildcard) => (wildcard, model.to_owned()),
            None => {
                let (brand, rest) = infer(model, None, None).ok()?;
                let name = format!("{}/{rest}", brand.name);
                (find(&name)?, name)
            }
        };
        Some((&wildcard.pattern, &wildcard.deployments, name))
    }
}

/// A deployment's `model_info`: as written, else as its own prices say, else as the price data says.
fn known_info(deployment: &Deployment) -> Map<String, Value> {
    let mut info = deployment.model_info.clone();
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            info.entry(name).or_insert(value);
        }
    };
    // Prices are shown as numbers; what is charged is computed from the text.
    let number = |text: &str| serde_json::from_str::<Value>(text).ok();
    for (name, text) in &deployment.prices {
        add(name, number(text));
    }
    let known = table::entry_for(
        &deployment.litellm_model,
        deployment.brand.name,
        deployment.base_model.as_deref(),
        None,
    );
    if let Some(known) = known {
        add("mode", known.mode.map(Value::from));
        add("litellm_provider", known.litellm_provider.map(Value::from));
        add("max_input_tokens", known.max_input_tokens.map(Value::from));
        add("max_output_tokens", known.max_output_tokens.map(Value::from));
        for (name, text) in known.price.fields() {
            add(&name, number(&text));
        }
    }
    info
}

#[cfg(test)]
mod tests;
