//! Which models a caller may call: names, wildcards, access groups, LiteLLM's special names, aliases.

use serde_json::Value;

use super::{
    Caller,
    grant::{Grant, Scope},
};
use crate::core::{config::Config, provider::infer};

/// In a list of models: whatever the gateway serves.
const ALL_PROXY: &str = "all-proxy-models";
/// In a key's list: whatever its team may call.
const ALL_TEAM: &str = "all-team-models";
/// In a user's list: nothing but what teams give.
pub const NO_DEFAULT: &str = "no-default-models";

/// A model by the names a rule may know it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names<'n> {
    /// As the client wrote it.
    pub asked: &'n str,
    /// As a team's alias has it; the same when there is none.
    pub in_team: &'n str,
    /// As it will be called, after a key's alias too.
    pub called: &'n str,
}

impl<'n> Names<'n> {
    /// The names of a model for a caller.
    pub fn of(asked: &'n str, grant: Option<&'n Grant>) -> Names<'n> {
        let team = grant.and_then(|grant| grant.team.as_ref());
        let in_team = team.and_then(|team| team.aliases.get(asked)).map_or(asked, String::as_str);
        let key = grant.map(|grant| &grant.key);
        let called = key.and_then(|key| key.aliases.get(in_team)).map_or(in_team, String::as_str);
        Names { asked, in_team, called }
    }

    /// Whether a key may call it. Whoever made the key chose its aliases, so an alias is as good as what it stands for.
    pub fn allowed_for_key(&self, key: &Scope, config: &Config) -> bool {
        key.models.iter().any(|model| model == ALL_TEAM)
            || [self.asked, self.in_team, self.called]
                .iter()
                .any(|name| is_allowed(name, &key.models, config))
    }

    /// Whether a team (or user, or organization) lets it be called. A key's alias must not lead out of what they allow.
    pub fn allowed_for_owner(&self, owner: &Scope, config: &Config) -> bool {
        let by_team_alias = self.called == self.in_team && is_allowed(self.asked, &owner.models, config);
        by_team_alias || is_allowed(self.called, &owner.models, config)
    }
}

/// Whether a list of models allows a name. An empty list allows all.
pub fn is_allowed(name: &str, models: &[String], config: &Config) -> bool {
    if models.is_empty() || models.iter().any(|model| model == name || model == "*" || model == ALL_PROXY) {
        return true;
    }
    let patterns = || models.iter().filter(|model| model.contains('*'));
    if patterns().any(|pattern| is_match(pattern, name)) {
        return true;
    }
    // `openai/*` allows `gpt-4o` as well.
    if patterns().next().is_some()
        && let Ok((brand, rest)) = infer(name, None, None)
    {
        let full = format!("{}/{rest}", brand.name);
        if patterns().any(|pattern| is_match(pattern, &full)) {
            return true;
        }
    }
    in_access_group(name, models, config)
}

/// The models a caller may call, as `/models` lists them: what is configured, and names of its own that a wildcard serves.
pub fn listed(caller: &Caller, config: &Config) -> Vec<String> {
    let mut names = config.model_names();
    let Some(grant) = caller.grant() else { return names };
    let mut own: Vec<&String> = scopes(grant).flat_map(|scope| &scope.models).collect();
    own.extend(grant.team.iter().flat_map(|team| team.aliases.keys()));
    own.extend(grant.key.aliases.keys());
    let team = grant.team.as_deref().map(|team| team.id.as_str());
    own.extend(team.into_iter().flat_map(|team| config.team_names(team)));
    own.sort();
    own.dedup();
    names.retain(|name| !config.is_foreign(name, team));
    for name in own {
        let target = Names::of(name, Some(grant)).called;
        if !name.contains('*') && !names.contains(name) && config.resolve_for(target, team).is_some() {
            names.push(name.clone());
        }
    }
    names.retain(|name| may_call(name, grant, config));
    names
}

/// Whether a key, and everybody behind it, may call a model.
pub fn may_call(name: &str, grant: &Grant, config: &Config) -> bool {
    let names = Names::of(name, Some(grant));
    names.allowed_for_key(&grant.key, config)
        && scopes(grant).skip(1).all(|owner| names.allowed_for_owner(owner, config))
}

/// Who has a say in what a key may call: the key, its team or else its user, its organization.
fn scopes(grant: &Grant) -> impl Iterator<Item = &Scope> {
    let owner = grant.team.as_deref().or(grant.user.as_deref());
    [Some(&grant.key), owner, grant.organization.as_deref()].into_iter().flatten()
}

/// Whether one of the lists' names is an access group of a deployment that serves the model.
fn in_access_group(name: &str, models: &[String], config: &Config) -> bool {
    let Some(resolved) = config.resolve(name) else { return false };
    let deployments = resolved.deployments.iter().filter_map(|&at| config.deployments.get(at));
    deployments
        .filter_map(|deployment| deployment.model_info.get("access_groups")?.as_array())
        .flatten()
        .filter_map(Value::as_str)
        .any(|group| models.iter().any(|model| model == group))
}

/// Whether the whole name fits a pattern; every `*` stands for any text.
pub fn is_match(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = name.split_once(part) else { return false };
        name = after;
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config;

    fn gateway() -> Config {
        let yaml = "model_list:\n  \
            - {model_name: gpt-4o, litellm_params: {model: openai/gpt-4o, api_key: k}, model_info: {access_groups: [beta]}}\n  \
            - {model_name: claude, litellm_params: {model: anthropic/claude-3-opus-20240229, api_key: k}}\n  \
            - {model_name: 'mistral/*', litellm_params: {model: 'mistral/*', api_key: k}, model_info: {access_groups: [eu]}}\n";
        config::load(yaml, &|_| None, &|_| None).unwrap().config
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn lists_of_models() {
        let config = gateway();
        let rows: &[(&[&str], &str, bool)] = &[
            (&[], "anything", true),
            (&["gpt-4o"], "gpt-4o", true),
            (&["gpt-4o"], "gpt-4o-mini", false),
            (&["*"], "x", true),
            (&["all-proxy-models"], "claude", true),
            (&["openai/*"], "openai/gpt-4o", true),
            (&["openai/*"], "gpt-4o", true),
            (&["openai/*"], "claude-3-opus-20240229", false),
            (&["gpt-*-mini"], "gpt-4o-mini", true),
            (&["gpt-*-mini"], "gpt-4o", false),
            (&["beta"], "gpt-4o", true),
            (&["beta"], "claude", false),
            (&["eu"], "mistral/large", true),
            (&["no-default-models"], "gpt-4o", false),
        ];
        for (models, name, allowed) in rows {
            assert_eq!(is_allowed(name, &list(models), &config), *allowed, "{models:?} {name}");
        }
    }

    #[test]
    fn aliases_rename_and_do_not_lead_out_of_the_team() {
        let config = gateway();
        let mut grant = Grant::default();
        grant.key.aliases.insert("cheap".to_owned(), "claude".to_owned());
        grant.key.models = list(&["cheap"]);
        let mut team = Scope { models: list(&["cheap", "gpt-4o"]), ..Scope::default() };
        team.aliases.insert("best".to_owned(), "gpt-4o".to_owned());

        let names = Names::of("cheap", Some(&grant));
        assert_eq!((names.in_team, names.called), ("cheap", "claude"));
        assert!(names.allowed_for_key(&grant.key, &config));
        assert!(!names.allowed_for_owner(&team, &config), "the name is allowed, what it stands for is not");

        grant.team = Some(Box::new(team.clone()));
        let names = Names::of("best", Some(&grant));
        assert_eq!(names.called, "gpt-4o");
        assert!(!names.allowed_for_key(&grant.key, &config));
        assert!(names.allowed_for_owner(&team, &config));
        grant.key.models = list(&["all-team-models"]);
        assert!(Names::of("best", Some(&grant)).allowed_for_key(&grant.key, &config));
    }

    #[test]
    fn what_is_listed_is_what_may_be_called() {
        let config = gateway();
        let rows: &[(&[&str], &[&str], &[&str])] = &[
            (&[], &[], &["gpt-4o", "claude", "mistral/*"]),
            (&["gpt-4o"], &[], &["gpt-4o"]),
            (&["beta", "mistral/large", "nonsense"], &[], &["gpt-4o", "mistral/large"]),
            (&["all-team-models"], &["claude"], &["claude"]),
            (&["gpt-4o", "claude"], &["claude"], &["claude"]),
        ];
        for (key, team, expected) in rows {
            let mut grant = Grant::default();
            grant.key.models = list(key);
            if !team.is_empty() {
                grant.team = Some(Box::new(Scope { models: list(team), ..Scope::default() }));
            }
            let listed = listed(&Caller::Key(grant.into()), &config);
            assert_eq!(listed, list(expected), "{key:?} {team:?}");
        }
        assert_eq!(listed(&Caller::Master, &config).len(), 3);
    }
}
