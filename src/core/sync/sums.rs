//! Calls whose details were dropped because the ledger was away too long: sums of money and tokens by caller and model.

use hashbrown::HashMap;

use crate::core::{
    model::call_record::{CallRecord, MeterCharge},
    protocol::Aggregated,
};

/// Most sums that keep all their names. Beyond that, new ones keep only whose call it was and what it charged, and stand for
/// whatever was called.
const MAX_DETAILED: usize = 20_000;

/// What stands between the parts of a name: no name holds it.
const SEPARATOR: &str = "\n";

/// The sums, in the order in which they began.
#[derive(Default)]
pub struct Sums {
    list: Vec<Aggregated>,
    /// Where the sum of a name is, counted from the first sum ever.
    index: HashMap<String, usize>,
    /// How many sums were taken away.
    taken: usize,
}

impl Sums {
    /// Counts a call in.
    pub fn add(&mut self, event: &CallRecord) {
        // A refusal has nothing that could be summed.
        if event.refused {
            return;
        }
        let detailed = kind_of(event);
        let name = name_of(&detailed);
        if let Some(sum) = self.find(&name) {
            return count(sum, event);
        }
        let (kind, name) = match self.list.len() < MAX_DETAILED {
            true => (detailed, name),
            false => {
                let grouped = without_call(detailed);
                let name = name_of(&grouped);
                (grouped, name)
            }
        };
        if let Some(sum) = self.find(&name) {
            return count(sum, event);
        }
        let mut sum = Aggregated { sum: kind, calls: 0, failures: 0 };
        count(&mut sum, event);
        self.index.insert(name, self.taken.wrapping_add(self.list.len()));
        self.list.push(sum);
    }

    fn find(&mut self, name: &str) -> Option<&mut Aggregated> {
        let at = self.index.get(name)?.checked_sub(self.taken)?;
        self.list.get_mut(at)
    }

    /// Takes the first sums, at most so many.
    pub fn take(&mut self, most: usize) -> Vec<Aggregated> {
        let rest = self.list.split_off(most.min(self.list.len()));
        let first = std::mem::replace(&mut self.list, rest);
        self.taken = self.taken.wrapping_add(first.len());
        for sum in &first {
            self.index.remove(&name_of(&sum.sum));
        }
        first
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// What all calls of a sum have in common.
fn kind_of(event: &CallRecord) -> CallRecord {
    CallRecord {
        api_key: event.api_key.clone(),
        user: event.user.clone(),
        team: event.team.clone(),
        organization: event.organization.clone(),
        end_user: event.end_user.clone(),
        model: event.model.clone(),
        model_group: event.model_group.clone(),
        provider: event.provider.clone(),
        budgeted_meters: event.budgeted_meters.clone(),
        ..CallRecord::default()
    }
}

/// A sum without what was called and for which end user: user, team and organization go with the key.
fn without_call(kind: CallRecord) -> CallRecord {
    CallRecord {
        api_key: kind.api_key,
        user: kind.user,
        team: kind.team,
        organization: kind.organization,
        budgeted_meters: kind.budgeted_meters,
        ..CallRecord::default()
    }
}

fn name_of(kind: &CallRecord) -> String {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    [
        kind.api_key.clone(),
        text(&kind.user),
        text(&kind.team),
        text(&kind.organization),
        text(&kind.end_user),
        kind.model.clone(),
        kind.model_group.clone(),
        kind.provider.to_string(),
        kind.budgeted_meters.join(SEPARATOR),
    ]
    .join(SEPARATOR)
}

fn count(aggregated: &mut Aggregated, event: &CallRecord) {
    let sum = &mut aggregated.sum;
    sum.spend = sum.spend.saturating_add(event.spend);
    sum.mocked = sum.mocked.saturating_add(event.mocked);
    for charged in &event.meter_charges {
        MeterCharge::put(&mut sum.meter_charges, charged);
    }
    sum.prompt_tokens = sum.prompt_tokens.saturating_add(event.prompt_tokens);
    sum.completion_tokens = sum.completion_tokens.saturating_add(event.completion_tokens);
    sum.total_tokens = sum.total_tokens.saturating_add(event.total_tokens);
    sum.cache_read_tokens = sum.cache_read_tokens.saturating_add(event.cache_read_tokens);
    sum.cache_creation_tokens = sum.cache_creation_tokens.saturating_add(event.cache_creation_tokens);
    sum.start_ms = sum.start_ms.max(event.start_ms);
    sum.end_ms = sum.end_ms.max(event.end_ms);
    aggregated.calls = aggregated.calls.saturating_add(1);
    if event.error.is_some() {
        aggregated.failures = aggregated.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(key: usize, model: &str) -> CallRecord {
        CallRecord {
            id: "x".to_owned(),
            api_key: format!("k{key}"),
            user: Some(format!("u{key}")),
            model: model.to_owned(),
            spend: 3,
            total_tokens: 7,
            end_ms: key as u64,
            error: (model == "bad").then(|| "Timeout".to_owned()),
            budgeted_meters: vec![format!("key:k{key}")],
            ..CallRecord::default()
        }
    }

    #[test]
    fn calls_of_one_kind_make_one_sum() {
        let mut sums = Sums::default();
        for (key, model) in [(1, "a"), (2, "a"), (1, "a"), (1, "bad")] {
            sums.add(&event(key, model));
        }
        let first = sums.take(1);
        assert_eq!((first[0].calls, first[0].sum.spend, first[0].sum.total_tokens), (2, 6, 14));
        assert!(first[0].sum.id.is_empty());
        // What was taken begins anew; the others go on.
        sums.add(&event(1, "a"));
        sums.add(&event(2, "a"));
        let rest = sums.take(10);
        let told: Vec<_> = rest
            .iter()
            .map(|f| (f.sum.api_key.as_str(), f.sum.model.as_str(), f.calls, f.failures))
            .collect();
        assert_eq!(told, [("k2", "a", 2, 0), ("k1", "bad", 1, 1), ("k1", "a", 1, 0)]);
        assert!(sums.is_empty() && sums.index.is_empty());
    }

    #[test]
    fn too_many_kinds_are_summed_by_key() {
        let mut sums = Sums::default();
        let models = MAX_DETAILED + 500;
        for model in 0..models {
            sums.add(&event(1, &model.to_string()));
        }
        assert_eq!(sums.list.len(), MAX_DETAILED + 1);
        sums.add(&event(1, "0"));
        sums.add(&event(1, "another"));
        let all = sums.take(usize::MAX);
        let grouped = all.last().unwrap();
        assert_eq!(
            (grouped.calls, grouped.sum.model.as_str(), grouped.sum.user.as_deref()),
            (501, "", Some("u1"))
        );
        assert_eq!(all[0].calls, 2);
        assert_eq!(all.iter().map(|f| f.sum.spend).sum::<i64>(), 3 * (models as i64 + 2));
        assert!(sums.index.is_empty());
    }
}
