//! What planning tells while it goes on: which groups it looks at, and why each deployment is in or out.

use std::cell::RefCell;

use serde::{Deserialize, Serialize};

use crate::core::{
    config::{Config, Resolved},
    error::Error,
};

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
    /// The group's deployments: those that would be tried in their order, then those that are left out.
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
    /// The deployment's place in the order, from 1 on; none when it is left out.
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
