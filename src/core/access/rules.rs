//! What is counted for one call of a key: a rule for every principal of it that has a limit or a budget.

use std::{borrow::Cow, cell::OnceCell};

use super::models::{self, Names};
use crate::core::{
    config::Config,
    model::{
        key_record::Principal,
        limits::{Budget, Limits},
        meter::{Meter, MeterKind},
        money::Money,
        period,
        rule::{Base, Rule},
        virtual_key::{EndUser, Holder, VirtualKey},
    },
};

/// The rules, in the order in which LiteLLM checks rates. Most keys have none. The master key has none of its
/// own (`grant` is `None`), but its end users have theirs.
pub fn rules(
    grant: Option<&VirtualKey>,
    end_user: Option<&EndUser>,
    names: &Names<'_>,
    config: &Config,
) -> Vec<Rule> {
    let mut rules = Rules { grant, config, names, direct: OnceCell::new(), list: Vec::new() };
    if let Some(grant) = grant {
        rules.holders(grant);
    }
    if let Some(end_user) = end_user {
        let (holder, scope) = (end_user.holder(), &end_user.scope);
        rules.add(holder.kind, || holder.meter(), scope.limits, Some(&scope.budget), end_user.revision);
    }
    if let Some(grant) = grant {
        rules.models(grant, end_user);
        rules.whole(grant);
    } else if let Some(end_user) = end_user {
        rules.model(MeterKind::EndUserModel, &end_user.scope, end_user.revision);
    }
    rules.list
}

struct Rules<'r> {
    grant: Option<&'r VirtualKey>,
    config: &'r Config,
    names: &'r Names<'r>,
    /// See [`Names::direct`]; made when a principal has limits by model.
    direct: OnceCell<Vec<Cow<'r, str>>>,
    list: Vec<Rule>,
}

impl Rules<'_> {
    /// Adds the rules of a key, its user, its team and its team member.
    fn holders(&mut self, grant: &VirtualKey) {
        let parallel = grant.key.limits.parallel.or(self.config.general.key_max_parallel);
        self.by_holder(&grant.holder(), Limits { parallel, ..grant.key.limits }, true);
        self.windows(MeterKind::KeyWindow, &grant.key);
        if let Some(user) = grant.user_holder() {
            // A key of a team spends the team's money.
            self.by_holder(&user, user.principal.limits, grant.team.is_none());
            if grant.team.is_none() {
                self.windows(MeterKind::UserWindow, user.principal);
            }
        }
        if let Some(team) = grant.team_holder() {
            self.by_holder(&team, team.principal.limits, true);
            self.windows(MeterKind::TeamWindow, team.principal);
        }
        if let (Some(team), Some(member)) = (&grant.team, &grant.member) {
            let meter = || Meter::new(MeterKind::Member, &format!("{}/{}", team.id, member.id));
            self.add(MeterKind::Member, meter, member.limits, Some(&member.budget), grant.revision);
        }
    }

    /// Adds the rules that those have for the model that is called.
    fn models(&mut self, grant: &VirtualKey, end_user: Option<&EndUser>) {
        let revision = grant.revision;
        self.model(MeterKind::KeyModel, &grant.key, revision);
        if let Some(team) = &grant.team {
            self.model(MeterKind::TeamModel, team, revision);
        }
        if let (Some(team), Some(member)) = (&grant.team, &grant.member) {
            self.model_of(MeterKind::MemberModel, &|| format!("{}/{}", team.id, member.id), member, revision);
        }
        if let Some(user) = &grant.user {
            self.model(MeterKind::UserModel, user, revision);
        }
        if let Some(end_user) = end_user {
            self.model(MeterKind::EndUserModel, &end_user.scope, end_user.revision);
        }
    }

    /// Adds the rules that many keys share: the organization's and the whole gateway's.
    fn whole(&mut self, grant: &VirtualKey) {
        if let (Some(organization), Some(member)) = (&grant.organization, &grant.organization_member) {
            let meter =
                || Meter::new(MeterKind::OrganizationMember, &format!("{}/{}", organization.id, member.id));
            self.add(
                MeterKind::OrganizationMember,
                meter,
                member.limits,
                Some(&member.budget),
                grant.revision,
            );
        }
        if let Some(organization) = grant.organization_holder() {
            self.by_holder(&organization, organization.principal.limits, true);
            self.model(MeterKind::OrganizationModel, organization.principal, grant.revision);
        }
        let general = &self.config.general;
        let limits = Limits { parallel: general.max_parallel, ..Limits::default() };
        let budget = Budget { spend: grant.global_spend, ..general.budget.clone() };
        self.add(
            MeterKind::Global,
            || Meter::new(MeterKind::Global, ""),
            limits,
            Some(&budget),
            grant.revision,
        );
    }

    fn by_holder(&mut self, holder: &Holder<'_>, limits: Limits, has_budget: bool) {
        let budget = Some(&holder.principal.budget).filter(|_| has_budget);
        let revision = self.grant.map_or(0, |grant| grant.revision);
        self.add(holder.kind, || holder.meter(), limits, budget, revision);
    }

    /// Adds the budgets that a principal has side by side, each with its own period.
    fn windows(&mut self, kind: MeterKind, scope: &Principal) {
        let revision = self.grant.map_or(0, |grant| grant.revision);
        for budget in scope.budget_limits.iter().flat_map(|several| &several.0) {
            let period = budget.duration.as_deref().unwrap_or_default();
            let meter = || Meter::new(kind, &format!("{}/{period}", scope.counted_as()));
            self.add(kind, meter, Limits::default(), Some(budget), revision);
        }
    }

    /// Adds the limits that a principal has for the model that is called.
    fn model(&mut self, kind: MeterKind, scope: &Principal, revision: u64) {
        self.model_of(kind, &|| scope.counted_as().to_owned(), scope, revision);
    }

    /// Adds the limits that a principal has for the model that is called; its meters go by `id`.
    fn model_of(&mut self, kind: MeterKind, id: &dyn Fn() -> String, scope: &Principal, revision: u64) {
        if scope.model_rpm.is_empty() && scope.model_tpm.is_empty() && scope.model_budgets.is_empty() {
            return;
        }
        let (names, config) = (self.names, self.config);
        let team = self.grant.and_then(|grant| grant.team_id());
        let direct = self.direct.get_or_init(|| names.direct(team, config));
        let tables = scope.model_rpm.keys().chain(scope.model_tpm.keys()).chain(scope.model_budgets.keys());
        for model in models::limited(tables.map(String::as_str), direct, team, config) {
            let limits = Limits {
                rpm: scope.model_rpm.get(model).copied(),
                tpm: scope.model_tpm.get(model).copied(),
                parallel: None,
            };
            let meter = || Meter::new(kind, &format!("{}/{model}", id()));
            self.add(kind, meter, limits, scope.model_budgets.get(model), revision);
        }
    }

    fn add(
        &mut self,
        kind: MeterKind,
        meter: impl Fn() -> Meter,
        limits: Limits,
        budget: Option<&Budget>,
        revision: u64,
    ) {
        let max = budget.and_then(|budget| budget.max);
        if !limits.any() && max.is_none() {
            return;
        }
        // Budgets start again by themselves where no ledger sees to it.
        let resets = match kind {
            MeterKind::Global => !self.config.general.has_ledger,
            _ => self.grant.is_some_and(|grant| grant.revision == 0),
        };
        let duration = budget.and_then(|budget| budget.duration.as_deref());
        self.list.push(Rule {
            kind,
            meter: meter(),
            limits,
            max_budget: max.map(|pico| Money::from_pico(pico.into())),
            base: Base { spend: Money::from_pico(budget.map_or(0, |budget| budget.spend).into()), revision },
            owner: self.owner(kind),
            resets: duration.filter(|_| resets).and_then(|text| period::parse(text).ok()),
        });
    }

    /// The fingerprint of the principal that can make any number of such meters: users make keys, and keys name end users.
    fn owner(&self, kind: MeterKind) -> Option<[u8; 16]> {
        match kind {
            MeterKind::Key | MeterKind::KeyModel | MeterKind::KeyWindow => {
                Some(self.grant?.user_holder()?.meter().fingerprint())
            }
            MeterKind::EndUser | MeterKind::EndUserModel => {
                Some(self.grant.map_or([0; 16], |grant| grant.holder().meter().fingerprint()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        config,
        model::{
            general::General,
            key_record::{EndUserRecord, Former, KeyRecord},
            limits::Several,
        },
    };

    fn money(pico: i64) -> Budget {
        Budget { max: Some(pico), spend: 7, duration: Some("1d".to_owned()), ..Budget::default() }
    }

    fn scope(id: &str) -> Option<Box<Principal>> {
        Some(Box::new(Principal { id: id.to_owned(), budget: money(5), ..Principal::default() }))
    }

    fn names(rules: &[Rule]) -> Vec<&str> {
        rules.iter().map(|rule| rule.meter.name()).collect()
    }

    fn gateway(general: General) -> Config {
        Config { general, ..models::tests::gateway() }
    }

    fn list(grant: &KeyRecord, end_user: Option<&EndUserRecord>, model: &str, config: &Config) -> Vec<Rule> {
        let (key, end_user) = (VirtualKey::from(grant.clone()), end_user.cloned().map(EndUser::from));
        rules(Some(&key), end_user.as_ref(), &Names::of(model, Some(grant)), config)
    }

    #[test]
    fn a_key_without_limits_counts_nothing() {
        let mut grant = KeyRecord::default();
        grant.key.id = "h".to_owned();
        grant.team = Some(Box::default());
        assert_eq!(list(&grant, None, "a", &gateway(General::default())), []);
    }

    #[test]
    fn every_scope_has_its_meter() {
        let mut grant = KeyRecord { revision: 3, global_spend: 9, ..KeyRecord::default() };
        grant.key.id = "h".to_owned();
        grant.key.budget = money(1);
        grant.key.model_rpm.insert("a".to_owned(), 2);
        grant.user = scope("u");
        grant.organization = scope("o");
        let config = gateway(General {
            max_parallel: Some(8),
            has_ledger: true,
            budget: money(6),
            ..General::default()
        });
        let end_user = EndUserRecord { scope: *scope("e").unwrap(), revision: 4, ..EndUserRecord::default() };

        let all = list(&grant, Some(&end_user), "a", &config);
        assert_eq!(names(&all), ["key:h", "user:u", "end_user:e", "key_model:h/a", "org:o", "global"]);
        assert_eq!(all[2].base.revision, 4);
        assert_eq!((all[5].base.spend, all[5].base.revision), (Money::from_pico(9), 3));
        assert!(all.iter().all(|rule| rule.resets.is_none()), "the ledger resets");
        let user = Some(Meter::new(MeterKind::User, "u").fingerprint());
        let key = Some(Meter::new(MeterKind::Key, "h").fingerprint());
        let owners: Vec<_> = all.iter().map(|rule| rule.owner).collect();
        assert_eq!(owners, [user, None, key, user, None, None]);

        grant.team = scope("t");
        grant.member = scope("u");
        let all = list(&grant, None, "b", &config);
        assert_eq!(names(&all), ["key:h", "team:t", "member:t/u", "org:o", "global"]);

        grant.member.as_mut().unwrap().model_budgets.insert("a".to_owned(), money(2));
        let all = list(&grant, None, "a", &config);
        assert_eq!(
            names(&all),
            ["key:h", "team:t", "member:t/u", "key_model:h/a", "member_model:t/u/a", "org:o", "global"]
        );
        assert_eq!(all[4].max_budget, Some(Money::from_pico(2)));
        assert_eq!(list(&grant, None, "b", &config).len(), 5, "another model");

        grant.organization_member = scope("u");
        let all = list(&grant, None, "b", &config);
        assert_eq!(names(&all), ["key:h", "team:t", "member:t/u", "org_member:o/u", "org:o", "global"]);
    }

    #[test]
    fn budgets_side_by_side_are_counted_each_for_itself() {
        let windows = |periods: &[&str]| -> Vec<Budget> {
            let of = |period: &&str| Budget {
                max: Some(9),
                spend: 2,
                duration: Some((*period).to_owned()),
                ..Budget::default()
            };
            periods.iter().map(of).collect()
        };
        let several = |id: &str, periods: &[&str]| {
            let scope = Principal {
                id: id.to_owned(),
                budget_limits: Several::of(windows(periods)),
                ..Principal::default()
            };
            Some(Box::new(scope))
        };
        let mut grant = KeyRecord { revision: 3, ..KeyRecord::default() };
        grant.key = *several("h", &["1d", "30d"]).unwrap();
        grant.user = several("u", &["7d"]);
        let config = gateway(General { has_ledger: true, ..General::default() });
        let all = list(&grant, None, "a", &config);
        assert_eq!(names(&all), ["key_window:h/1d", "key_window:h/30d", "user_window:u/7d"]);
        assert!(all.iter().all(|rule| rule.max_budget == Some(Money::from_pico(9)) && rule.resets.is_none()));
        assert_eq!((all[1].base.spend, all[1].base.revision), (Money::from_pico(2), 3));
        assert_eq!(all[0].owner, Some(Meter::new(MeterKind::User, "u").fingerprint()));
        // A key of a team spends the team's money.
        grant.team = several("t", &["1h"]);
        let all = list(&grant, None, "a", &config);
        assert_eq!(names(&all), ["key_window:h/1d", "key_window:h/30d", "team_window:t/1h"]);
        grant.key.former = Some(Box::new(Former { counted: Some("first".to_owned()), current: None }));
        grant.revision = 0;
        let all = list(&grant, None, "a", &config);
        assert_eq!(all[0].meter.name(), "key_window:first/1d");
        assert!(all[0].resets.is_some(), "nobody else sees to it");
    }

    #[test]
    fn end_users_of_the_master_key_have_their_limits() {
        let config = gateway(General { has_ledger: true, budget: money(6), ..General::default() });
        let mut end_user =
            EndUserRecord { scope: *scope("e").unwrap(), revision: 4, ..EndUserRecord::default() };
        end_user.scope.model_rpm.insert("a".to_owned(), 1);
        let all = rules(None, Some(&end_user.clone().into()), &Names::of("a", None), &config);
        assert_eq!(names(&all), ["end_user:e", "end_user_model:e/a"]);
        assert!(all[0].owner.is_some() && all[0].resets.is_none());
        assert_eq!(rules(None, None, &Names::of("a", None), &config), []);
    }

    #[test]
    fn keys_of_the_configuration_reset_themselves() {
        let mut grant = KeyRecord::default();
        grant.key.budget = money(1);
        let config = gateway(General { budget: money(2), key_max_parallel: Some(4), ..General::default() });
        let all = list(&grant, None, "a", &config);
        assert!(all.len() == 2 && all.iter().all(|rule| rule.resets.is_some()));
        assert_eq!(all[0].limits.parallel, Some(4));
    }

    #[test]
    fn one_limit_for_one_model_whatever_it_is_called_by() {
        let config = config::load(
            "model_list:
  - {model_name: cheap, litellm_params: {model: openai/okx, api_key: k}, model_info: {id: d1}}
  - {model_name: pair, litellm_params: {model: openai/p1, api_key: k}, model_info: {id: p1}}
  - {model_name: pair, litellm_params: {model: openai/p2, api_key: k}, model_info: {id: p2}}
  - {model_name: 'openai/*', litellm_params: {model: 'openai/*', api_key: k}}
  - {model_name: 'azure/*', litellm_params: {model: 'azure/*', api_key: k, api_base: 'https://a.example'}}
  - {model_name: team-x, litellm_params: {model: openai/x, api_key: k}, model_info: {id: tx, team_id: t, team_public_model_name: x}}
router_settings: {model_group_alias: {nick: cheap, shy: {model: cheap, hidden: true}}}
litellm_settings: {model_alias_map: {old-name: cheap}}
",
            &|_| None,
            &|_| None,
        )
        .unwrap()
        .config;
        // (models with a limit, model asked for, those that count)
        let rows: &[(&[&str], &str, &[&str])] = &[
            (&["cheap"], "cheap", &["cheap"]),
            (&["cheap"], "nick", &["cheap"]),
            (&["cheap"], "shy", &["cheap"]),
            (&["cheap"], "old-name", &["cheap"]),
            (&["cheap"], "d1", &["cheap"]),
            (&["cheap"], "mine", &["cheap"]),
            (&["cheap"], "ours", &["cheap"]),
            (&["cheap"], "pair", &[]),
            (&["nick"], "cheap", &["nick"]),
            (&["shy"], "nick", &["shy"]),
            (&["old-name"], "d1", &["old-name"]),
            (&["d1"], "cheap", &["d1"]),
            (&["openai/okx"], "cheap", &["openai/okx"]),
            // Each name has its own, and the group's counts in any case.
            (&["cheap", "nick"], "nick", &["cheap", "nick"]),
            (&["cheap", "nick"], "cheap", &["cheap"]),
            (&["cheap", "nick"], "shy", &["cheap"]),
            // A deployment of several is less than its group.
            (&["p1"], "pair", &[]),
            (&["p1"], "p1", &["p1"]),
            (&["p1"], "p2", &[]),
            (&["pair"], "p2", &["pair"]),
            (&["gpt-4o"], "gpt-4o", &["gpt-4o"]),
            (&["gpt-4o"], "openai/gpt-4o", &["gpt-4o"]),
            (&["openai/gpt-4o"], "gpt-4o", &["openai/gpt-4o"]),
            (&["openai/gpt-4o"], "azure/gpt-4o", &[]),
            (&["openai/gpt-4o"], "openai/gpt-4o-mini", &[]),
            (&["openai/*"], "gpt-4o", &["openai/*"]),
            (&["openai/*"], "azure/gpt-4o", &[]),
            (&["x"], "x", &["x"]),
            (&["team-x"], "x", &["team-x"]),
        ];
        for (limited, asked, counted) in rows {
            let mut grant = KeyRecord::default();
            grant.key.aliases.insert("mine".to_owned(), "cheap".to_owned());
            let mut team = *scope("t").unwrap();
            team.budget = Budget::default();
            team.aliases.insert("ours".to_owned(), "cheap".to_owned());
            for model in *limited {
                grant.key.model_rpm.insert((*model).to_owned(), 1);
                team.model_budgets.insert((*model).to_owned(), money(1));
            }
            grant.team = Some(Box::new(team));
            let all = list(&grant, None, asked, &config);
            let named = |kind: MeterKind, id: &'static str| {
                counted.iter().map(move |model| Meter::new(kind, &format!("{id}/{model}")))
            };
            let expected: Vec<Meter> =
                named(MeterKind::KeyModel, "").chain(named(MeterKind::TeamModel, "t")).collect();
            let got: Vec<Meter> = all.into_iter().map(|rule| rule.meter).collect();
            assert_eq!(got, expected, "{limited:?} {asked}");
        }
    }

    #[test]
    fn a_key_with_a_new_value_counts_by_its_first() {
        let key = Principal { id: "new".to_owned(), budget: money(1), ..Principal::default() };
        let mut grant = KeyRecord { key, ..KeyRecord::default() };
        grant.key.former = Some(Box::new(Former { counted: Some("first".to_owned()), current: None }));
        grant.key.model_rpm.insert("a".to_owned(), 2);
        let all = list(&grant, None, "a", &gateway(General::default()));
        assert_eq!(names(&all), ["key:first", "key_model:first/a"]);
    }
}
