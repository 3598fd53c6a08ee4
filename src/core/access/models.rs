//! Which models a caller may call: names, wildcards, access groups, LiteLLM's special names, aliases.

use std::borrow::Cow;

use hashbrown::HashSet;
use serde_json::Value;

use super::Caller;
use crate::core::{
    config::{Config, Resolved},
    cost::table,
    model::{
        deployment::Deployment,
        key_record::{KeyRecord, Principal},
    },
    provider::infer,
};

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
    pub fn of(asked: &'n str, grant: Option<&'n KeyRecord>) -> Names<'n> {
        let team = grant.and_then(|grant| grant.team.as_ref());
        let in_team = team.and_then(|team| team.aliases.get(asked)).map_or(asked, String::as_str);
        let key = grant.map(|grant| &grant.key);
        let called = key.and_then(|key| key.aliases.get(in_team)).map_or(in_team, String::as_str);
        Names { asked, in_team, called }
    }

    /// Whether a key may call it. A key's maker chose its aliases, so an alias is as good as what it stands for.
    pub fn allowed_for_key(&self, key: &Principal, config: &Config) -> bool {
        self.in_key(key, config, is_allowed)
    }

    /// Whether a team (or user, or organization) lets it be called. A key's alias must not lead out of what they allow.
    pub fn allowed_for_owner(&self, owner: &Principal, config: &Config) -> bool {
        self.in_owner(owner, config, is_allowed)
    }

    fn in_key(&self, key: &Principal, config: &Config, is_allowed: Allows) -> bool {
        key.models.iter().any(|model| model == ALL_TEAM)
            || [self.asked, self.in_team, self.called]
                .iter()
                .any(|name| is_allowed(name, &key.models, config))
    }

    fn in_owner(&self, owner: &Principal, config: &Config, is_allowed: Allows) -> bool {
        let by_team_alias = self.called == self.in_team && is_allowed(self.asked, &owner.models, config);
        by_team_alias || is_allowed(self.called, &owner.models, config)
    }

    /// All that the model goes by: as it is called, asked for, renamed; its group, its provider's name for it when the
    /// deployments have one, and behind a wildcard its name with the provider and without.
    pub fn direct(&self, team: Option<&str>, config: &'n Config) -> Vec<Cow<'n, str>> {
        let called = config.forced_model.as_deref().unwrap_or(self.called);
        let mut names: Vec<Cow<'n, str>> = [called, self.in_team, self.asked].map(Cow::Borrowed).to_vec();
        if let Some(resolved) = config.resolve_for(called, team) {
            names.extend(meanings(called, &resolved, config));
            let full = strip_brand(&resolved.requested).map(|rest| Cow::Owned(rest.to_owned()));
            names.extend(full);
            names.push(Cow::Owned(resolved.group));
        }
        names
    }
}

/// What a name stands for besides its group: what it is renamed to, and what its provider calls it.
fn meanings<'c>(name: &'c str, resolved: &Resolved, config: &'c Config) -> Vec<Cow<'c, str>> {
    let mut names = vec![Cow::Borrowed(config.target(name))];
    if resolved.group.contains('*') {
        names.push(Cow::Owned(resolved.requested.clone()));
        if let Ok((brand, rest)) = infer(&resolved.requested, None, None) {
            names.push(Cow::Owned(format!("{}/{rest}", brand.name)));
        }
        return names;
    }
    let mut models = resolved.deployments.iter().filter_map(|&at| config.deployments.get(at));
    if let Some(first) = models.next()
        && config.groups.get(&resolved.group).is_none_or(|group| group.len() == resolved.deployments.len())
        && models.all(|other| other.litellm_model == first.litellm_model)
    {
        names.push(Cow::Borrowed(first.litellm_model.as_str()));
    }
    names
}

/// A name without the provider in front.
fn strip_brand(name: &str) -> Option<&str> {
    let (brand, rest) = name.split_once('/')?;
    infer(name, None, None).is_ok_and(|(found, _)| found.name == brand).then_some(rest)
}

/// Of models that have a limit, those that the limit of a call by these names is. Where none of its [direct](Names::direct)
/// names has one, other names of the same model count: a limit is not passed by calling the model by another name.
pub fn limited<'t>(
    table: impl Iterator<Item = &'t str> + Clone,
    direct: &[Cow<'_, str>],
    team: Option<&str>,
    config: &Config,
) -> Vec<&'t str> {
    let is_direct = |name: &str| direct.iter().any(|known| known == name);
    let mut found: Vec<&str> = table.clone().filter(|name| is_direct(name)).collect();
    if found.is_empty() {
        found = table.filter(|name| means_one_of(name, &is_direct, team, config)).collect();
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether a name with a limit is another one of a model that is called.
fn means_one_of(name: &str, is_direct: &dyn Fn(&str) -> bool, team: Option<&str>, config: &Config) -> bool {
    let Some(resolved) = config.resolve_for(name, team) else { return false };
    if meanings(name, &resolved, config).iter().any(|meaning| is_direct(meaning)) {
        return true;
    }
    // A pattern stands for many models, a deployment by its id for less than its group.
    let is_whole =
        config.groups.get(&resolved.group).is_some_and(|group| group.len() == resolved.deployments.len());
    is_whole && is_direct(&resolved.group)
}

type Allows = fn(&str, &[String], &Config) -> bool;

/// Whether a list of models allows a name, or what it is an alias of. An empty list allows all.
pub fn is_allowed(name: &str, models: &[String], config: &Config) -> bool {
    if is_named(name, models, config) {
        return true;
    }
    let target = config.target(name);
    target != name && is_named(target, models, config)
}

/// Whether a list of models allows a name as it stands.
fn is_named(name: &str, models: &[String], config: &Config) -> bool {
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

/// The models a caller may call, as `/models` lists them: what is configured, names of its own that a wildcard serves, and
/// last (unless it is to be `unexpanded`) what is known of each wildcard's provider.
pub fn listed(caller: &Caller, config: &Config, unexpanded: bool) -> Vec<String> {
    let mut names = config.model_names();
    let team = caller.grant().and_then(KeyRecord::team_id);
    if let Some(grant) = caller.grant() {
        let mut own: Vec<&String> = scopes(grant).flat_map(|scope| &scope.models).collect();
        own.extend(grant.team.iter().flat_map(|team| team.aliases.keys()));
        own.extend(team.into_iter().flat_map(|team| config.team_names(team)));
        own.sort();
        own.dedup();
        for name in own {
            let target = Names::of(name, Some(grant)).called;
            if !name.contains('*') && !names.contains(name) && config.resolve_for(target, team).is_some() {
                names.push(name.clone());
            }
        }
        names.retain(|name| lists(grant, name, config));
    }
    names.retain(|name| !config.is_foreign(name, team));
    if !unexpanded {
        let mut seen: HashSet<String> = names.iter().cloned().collect();
        for wildcard in config.wildcards.iter().filter(|one| !config.is_foreign(&one.pattern, team)) {
            // A key that may call the whole pattern may call all of it.
            let all = caller.grant().filter(|grant| !lists(grant, &wildcard.pattern, config));
            let known = config.known_models(wildcard).into_iter();
            let known = known.filter(|name| all.is_none_or(|grant| lists(grant, name, config)));
            names.extend(known.filter(|name| seen.insert(name.clone())));
        }
    }
    names
}

/// The access groups of the configuration that a caller's lists of models open, in alphabetical order.
pub fn access_groups(caller: &Caller, config: &Config) -> Vec<String> {
    let team = caller.grant().and_then(KeyRecord::team_id);
    let own = config.deployments.iter().filter(|deployment| !config.is_foreign(&deployment.group, team));
    let groups =
        own.filter_map(|deployment| deployment.model_info.get("access_groups")?.as_array()).flatten();
    let mut names: Vec<String> = groups.filter_map(Value::as_str).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names.retain(|name| caller.grant().is_none_or(|grant| lists(grant, name, config)));
    names
}

/// Whether there is a model of this name that the caller may call: one that is listed, or one that a wildcard serves and
/// that is known.
pub fn exists(name: &str, caller: &Caller, config: &Config) -> bool {
    let names = Names::of(name, caller.grant());
    let may_call = caller.grant().is_none_or(|grant| may_call(name, grant, config));
    let team = caller.grant().and_then(KeyRecord::team_id);
    let found =
        config.resolve_for(names.called, team).filter(|_| may_call && !config.is_foreign(names.called, team));
    found.is_some_and(|resolved| {
        let mut deployments = resolved.deployments.iter().filter_map(|&at| config.deployments.get(at));
        let is_known = |deployment: &Deployment| {
            let captures: Vec<&str> = resolved.captures.iter().map(String::as_str).collect();
            let model = deployment.model_for(&resolved.requested, &captures);
            table::entry_for(&model, deployment.brand.name, None, None).is_some()
        };
        resolved.captures.is_empty() || deployments.any(is_known)
    })
}

/// Whether every principal of a key names a model.
fn lists(grant: &KeyRecord, name: &str, config: &Config) -> bool {
    let names = Names::of(name, Some(grant));
    names.in_key(&grant.key, config, is_named)
        && scopes(grant).skip(1).all(|owner| names.in_owner(owner, config, is_named))
}

/// Whether a key, and every principal behind it, may call a model.
pub fn may_call(name: &str, grant: &KeyRecord, config: &Config) -> bool {
    let names = Names::of(name, Some(grant));
    names.allowed_for_key(&grant.key, config)
        && scopes(grant).skip(1).all(|owner| names.allowed_for_owner(owner, config))
}

/// The principals whose lists of models bind a key: the key, its team or else its user, its organization.
fn scopes(grant: &KeyRecord) -> impl Iterator<Item = &Principal> {
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
pub(super) mod tests {
    use super::*;
    use crate::core::config;

    pub fn gateway() -> Config {
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
        let mut grant = KeyRecord::default();
        grant.key.aliases.insert("cheap".to_owned(), "claude".to_owned());
        grant.key.models = list(&["cheap"]);
        let mut team = Principal { models: list(&["cheap", "gpt-4o"]), ..Principal::default() };
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
            let mut grant = KeyRecord::default();
            grant.key.models = list(key);
            if !team.is_empty() {
                grant.team = Some(Box::new(Principal { models: list(team), ..Principal::default() }));
            }
            let listed = listed(&Caller::Key(grant.into()), &config, true);
            assert_eq!(listed, list(expected), "{key:?} {team:?}");
        }
        assert_eq!(listed(&Caller::Master, &config, true).len(), 3);
    }

    #[test]
    fn an_alias_of_an_allowed_model_is_allowed() {
        let yaml = "model_list:\n  \
            - {model_name: cheap, litellm_params: {model: openai/a, api_key: k}}\n  \
            - {model_name: dear, litellm_params: {model: openai/b, api_key: k}}\n\
            router_settings: {model_group_alias: {nick: cheap, shy: {model: cheap, hidden: true}, other: dear}}\n\
            litellm_settings: {model_alias_map: {old-name: cheap}}\n";
        let config = config::load(yaml, &|_| None, &|_| None).unwrap().config;
        let rows = [
            ("cheap", true),
            ("nick", true),
            ("shy", true),
            ("old-name", true),
            ("other", false),
            ("dear", false),
        ];
        for (name, allowed) in rows {
            let scope = Principal { models: list(&["cheap"]), ..Principal::default() };
            let names = Names::of(name, None);
            assert_eq!(names.allowed_for_key(&scope, &config), allowed, "{name}");
            assert_eq!(names.allowed_for_owner(&scope, &config), allowed, "{name}");
            let caller = Caller::Key(KeyRecord { key: scope, ..KeyRecord::default() }.into());
            assert_eq!(exists(name, &caller, &config), allowed, "{name}");
        }
        // What is listed are the models themselves.
        let mut grant = KeyRecord::default();
        grant.key.models = list(&["cheap"]);
        grant.key.aliases.insert("mine".to_owned(), "cheap".to_owned());
        assert_eq!(listed(&Caller::Key(grant.into()), &config, false), ["cheap"]);
        assert_eq!(listed(&Caller::Master, &config, false), ["cheap", "dear", "nick", "other"]);
    }

    #[test]
    fn wildcards_are_expanded_with_what_the_price_data_knows() {
        let yaml = "model_list:\n  \
            - {model_name: plain, litellm_params: {model: openai/a, api_key: k}}\n  \
            - {model_name: '*', litellm_params: {model: 'openai/*', api_key: k}}\n  \
            - {model_name: 'groq/*', litellm_params: {model: 'groq/*', api_key: k}}\n  \
            - {model_name: 'house/claude-3*', litellm_params: {model: 'anthropic/claude-3*', api_key: k}}\n  \
            - {model_name: 'team/*', litellm_params: {model: 'xai/*', api_key: k}, model_info: {team_id: t}}\n";
        let config = config::load(yaml, &|_| None, &|_| None).unwrap().config;
        let of = |models: &[&str]| {
            let mut grant = KeyRecord::default();
            grant.key.models = list(models);
            Caller::Key(grant.into())
        };
        let all = listed(&Caller::Master, &config, false);
        assert_eq!(all[..4], ["plain", "*", "groq/*", "house/claude-3*"], "the entries first");
        let groq = |names: &[String]| names.iter().filter(|name| name.starts_with("groq/llama")).count();
        assert!(groq(&all) > 2, "{all:?}");
        assert!(all.contains(&"house/claude-3-haiku-20240307".to_owned()), "{all:?}");
        assert!(!all.iter().any(|name| name.starts_with("team/") || name.contains("gpt-4")), "{all:?}");
        let unexpanded = listed(&Caller::Master, &config, true);
        assert_eq!(unexpanded, ["plain", "*", "groq/*", "house/claude-3*"]);

        assert_eq!(groq(&listed(&of(&["groq/*"]), &config, false)), groq(&all));
        let one = listed(&of(&["groq/llama-3.3-70b-versatile"]), &config, false);
        assert_eq!(one, ["groq/llama-3.3-70b-versatile"]);
        assert_eq!(listed(&of(&["plain"]), &config, false), ["plain"]);

        let rows = [
            ("groq/llama-3.3-70b-versatile", true),
            ("gpt-4o", true),
            ("house/claude-3-haiku-20240307", true),
            ("house/claude-3-nonsense", false),
            ("nonsense", false),
            ("team/grok-4", false),
        ];
        for (name, expected) in rows {
            assert_eq!(exists(name, &Caller::Master, &config), expected, "{name}");
        }
        assert!(!exists("gpt-4o", &of(&["groq/*"]), &config));
    }
}
