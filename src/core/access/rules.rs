//! What is counted for one call of a key: a rule for every scope of it that has a limit or a budget.

use super::{
    grant::{Budget, EndUser, Grant, Limits, Scope},
    models::Names,
};
use crate::core::{
    config::General,
    cost::money::Money,
    quota::{Base, Kind, Meter, Rule, period},
};

/// The rules, in the order in which the reference checks rates. Most keys have none.
pub fn rules(grant: &Grant, end_user: Option<&EndUser>, names: &Names<'_>, general: &General) -> Vec<Rule> {
    let mut rules = Rules { grant, resets: grant.revision == 0, list: Vec::new() };
    let parallel = grant.key.limits.parallel.or(general.key_max_parallel);
    rules.scope(Kind::Key, &grant.key, Limits { parallel, ..grant.key.limits }, true);
    if let Some(user) = &grant.user {
        // A key of a team spends the team's money.
        rules.scope(Kind::User, user, user.limits, grant.team.is_none());
    }
    if let Some(team) = &grant.team {
        rules.scope(Kind::Team, team, team.limits, true);
    }
    if let (Some(team), Some(member)) = (&grant.team, &grant.member) {
        let meter = || Meter::new(Kind::Member, &format!("{}/{}", team.id, member.id));
        rules.add(Kind::Member, meter, member.limits, Some(&member.budget), grant.revision);
    }
    if let Some(end_user) = end_user {
        let scope = &end_user.scope;
        rules.add(
            Kind::EndUser,
            || scope.meter(Kind::EndUser),
            scope.limits,
            Some(&scope.budget),
            end_user.revision,
        );
    }
    rules.model(Kind::KeyModel, &grant.key, names);
    if let Some(team) = &grant.team {
        rules.model(Kind::TeamModel, team, names);
    }
    if let Some(organization) = &grant.organization {
        rules.scope(Kind::Organization, organization, organization.limits, true);
    }
    let limits = Limits { parallel: general.max_parallel, ..Limits::default() };
    let budget = Budget { spend: grant.global_spend, ..general.budget.clone() };
    rules.resets = !general.has_ledger;
    rules.add(Kind::Global, || Meter::new(Kind::Global, ""), limits, Some(&budget), grant.revision);
    rules.list
}

struct Rules<'g> {
    grant: &'g Grant,
    /// Budgets start again by themselves: nobody else does it.
    resets: bool,
    list: Vec<Rule>,
}

impl Rules<'_> {
    fn scope(&mut self, kind: Kind, scope: &Scope, limits: Limits, has_budget: bool) {
        let budget = Some(&scope.budget).filter(|_| has_budget);
        self.add(kind, || scope.meter(kind), limits, budget, self.grant.revision);
    }

    /// The limits that a scope has for the model that is called.
    fn model(&mut self, kind: Kind, scope: &Scope, names: &Names<'_>) {
        if scope.model_rpm.is_empty() && scope.model_tpm.is_empty() && scope.model_budgets.is_empty() {
            return;
        }
        let known = |name: &&str| {
            scope.model_rpm.contains_key(*name)
                || scope.model_tpm.contains_key(*name)
                || scope.model_budgets.contains_key(*name)
        };
        let Some(model) = [names.called, names.in_team, names.asked].into_iter().find(known) else { return };
        let limits = Limits {
            rpm: scope.model_rpm.get(model).copied(),
            tpm: scope.model_tpm.get(model).copied(),
            parallel: None,
        };
        let meter = || Meter::new(kind, &format!("{}/{model}", scope.counted_as()));
        self.add(kind, meter, limits, scope.model_budgets.get(model), self.grant.revision);
    }

    fn add(
        &mut self,
        kind: Kind,
        meter: impl Fn() -> Meter,
        limits: Limits,
        budget: Option<&Budget>,
        revision: u64,
    ) {
        let max = budget.and_then(|budget| budget.max);
        if !limits.any() && max.is_none() {
            return;
        }
        let duration = budget.and_then(|budget| budget.duration.as_deref());
        self.list.push(Rule {
            kind,
            meter: meter(),
            limits,
            max_budget: max.map(|pico| Money::from_pico(pico.into())),
            base: Base { spend: Money::from_pico(budget.map_or(0, |budget| budget.spend).into()), revision },
            resets: duration.filter(|_| self.resets).and_then(|text| period::parse(text).ok()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::access::grant::Former;

    fn money(pico: i64) -> Budget {
        Budget { max: Some(pico), spend: 7, duration: Some("1d".to_owned()), ..Budget::default() }
    }

    fn scope(id: &str) -> Option<Box<Scope>> {
        Some(Box::new(Scope { id: id.to_owned(), budget: money(5), ..Scope::default() }))
    }

    fn names(rules: &[Rule]) -> Vec<&str> {
        rules.iter().map(|rule| rule.meter.name()).collect()
    }

    #[test]
    fn a_key_without_limits_counts_nothing() {
        let mut grant = Grant::default();
        grant.key.id = "h".to_owned();
        grant.team = Some(Box::default());
        assert_eq!(rules(&grant, None, &Names::of("a", None), &General::default()), []);
    }

    #[test]
    fn every_scope_has_its_meter() {
        let mut grant = Grant { revision: 3, global_spend: 9, ..Grant::default() };
        grant.key.id = "h".to_owned();
        grant.key.budget = money(1);
        grant.key.model_rpm.insert("a".to_owned(), 2);
        grant.user = scope("u");
        grant.organization = scope("o");
        let general =
            General { max_parallel: Some(8), has_ledger: true, budget: money(6), ..General::default() };
        let end_user = EndUser { scope: *scope("e").unwrap(), revision: 4, ..EndUser::default() };

        let called = Names::of("a", None);
        let list = rules(&grant, Some(&end_user), &called, &general);
        assert_eq!(names(&list), ["key:h", "user:u", "end_user:e", "key_model:h/a", "org:o", "global"]);
        assert_eq!(list[2].base.revision, 4);
        assert_eq!((list[5].base.spend, list[5].base.revision), (Money::from_pico(9), 3));
        assert!(list.iter().all(|rule| rule.resets.is_none()), "the ledger resets");

        grant.team = scope("t");
        grant.member = scope("u");
        let list = rules(&grant, None, &Names::of("b", None), &general);
        assert_eq!(names(&list), ["key:h", "team:t", "member:t/u", "org:o", "global"]);
    }

    #[test]
    fn keys_of_the_configuration_reset_themselves() {
        let mut grant = Grant::default();
        grant.key.budget = money(1);
        let general = General { budget: money(2), key_max_parallel: Some(4), ..General::default() };
        let list = rules(&grant, None, &Names::of("a", None), &general);
        assert!(list.len() == 2 && list.iter().all(|rule| rule.resets.is_some()));
        assert_eq!(list[0].limits.parallel, Some(4));
    }

    #[test]
    fn a_key_with_a_new_value_counts_by_its_first() {
        let key = Scope { id: "new".to_owned(), budget: money(1), ..Scope::default() };
        let mut grant = Grant { key, ..Grant::default() };
        grant.key.former = Some(Box::new(Former { counted: Some("first".to_owned()), current: None }));
        grant.key.model_rpm.insert("a".to_owned(), 2);
        let list = rules(&grant, None, &Names::of("a", None), &General::default());
        assert_eq!(names(&list), ["key:first", "key_model:first/a"]);
    }
}
