//! What one entry says about the next request, and how requests change it.

use super::{
    Claim, Counts, Estimate, Standing, Why, Worker,
    layout::{self, Entry, Fingerprint, Holder, Loss, Remote},
    liveness::Liveness,
};
use crate::core::{
    host::Secret,
    model::{meter::MeterKind, money::Money, period::Period, rule::Rule},
};

/// How long a window is, from its first request.
const WINDOW_MS: u64 = 60_000;
/// What other nodes said counts for so long.
const REMOTE_MS: u64 = 5_000;
/// An entry that no request touched for so long may be dropped, if nothing is lost with it: an entry made anew takes its base
/// from the rule. So no record of the ledger that is older than this may be used.
pub const IDLE_MS: u64 = 600_000;
/// From so many holders on, those of forgotten workers are looked for.
const MANY_HOLDERS: usize = 4;

/// What requests in flight hold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Held {
    pub requests: u64,
    pub tokens: u64,
    cost: i128,
}

/// What one request holds of one meter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserved {
    window_ms: u64,
    pub tokens: u64,
    cost: i64,
    /// The meter has a budget.
    pub budgeted: bool,
    resets: Option<Period>,
}

impl Entry {
    /// The entry of a rule that nothing was counted for.
    pub(super) fn of(rule: &Rule, secret: Secret) -> Entry {
        let owner = rule.owner.map_or(0, |fingerprint| layout::owner(secret, fingerprint));
        Entry {
            owner,
            guest: matches!(rule.kind, MeterKind::EndUser | MeterKind::EndUserModel),
            ..Entry::new(rule.meter.fingerprint())
        }
    }

    /// An entry of a meter that nothing was counted for.
    pub(super) fn new(fingerprint: Fingerprint) -> Entry {
        Entry { fingerprint, ..Entry::default() }
    }

    /// Brings it up to date: with the clock, and with what the rule knows better.
    pub(super) fn adopt(&mut self, rule: &Rule, now_ms: u64) {
        self.rated = rule.limits.any();
        self.place = rule.kind.is_place();
        if rule.max_budget.is_some() && (!self.budgeted || rule.base.revision > self.revision) {
            self.budgeted = true;
            (self.base, self.revision) = (pico(rule.base.spend), rule.base.revision);
            self.ahead = self.unsynced != 0;
        }
        self.turn(rule.resets, now_ms);
    }

    /// Why the budget refuses one more request, if it does.
    pub(super) fn over_budget(&self, rule: &Rule, held: &Held) -> Option<Why> {
        let max = rule.max_budget?;
        let spend = self.spend(held);
        let over = if stops_at_budget(rule.kind) { spend >= max } else { spend > max };
        let held = Money::from_pico(held.cost);
        over.then(|| Why::Budget { spend: spend.saturating_sub(held), held })
    }

    /// Why the rates refuse one more request, if they do.
    pub(super) fn over_rates(&self, rule: &Rule, held: &Held, now_ms: u64) -> Option<Why> {
        let left = self.standing(rule, held, now_ms);
        let resets_at_ms = left.resets_at_ms;
        if left.parallel_left == Some(0) {
            return Some(Why::Parallel);
        }
        if left.requests_left == Some(0) {
            return Some(Why::Requests { resets_at_ms });
        }
        (left.tokens_left == Some(0)).then_some(Why::Tokens { resets_at_ms })
    }

    /// Where it stands.
    pub(super) fn standing(&self, rule: &Rule, held: &Held, now_ms: u64) -> Standing {
        let remote = self.remote.at(now_ms);
        let left = |limit: Option<u64>, own: u64, remote: u64| {
            limit.map(|limit| limit.saturating_sub(own.saturating_add(remote)))
        };
        Standing {
            requests_left: left(rule.limits.rpm, self.requests, remote.requests),
            tokens_left: left(rule.limits.tpm, self.tokens.saturating_add(held.tokens), remote.tokens),
            parallel_left: left(rule.limits.parallel, held.requests, remote.parallel),
            spend: if rule.max_budget.is_some() { self.spend(held) } else { rule.base.spend },
            held: if rule.max_budget.is_some() { Money::from_pico(held.cost) } else { Money::ZERO },
            resets_at_ms: self.resets_at_ms(now_ms),
        }
    }

    /// What it counts, with what other nodes said.
    pub(super) fn counts(&self, held: &Held, now_ms: u64) -> Counts {
        let remote = self.remote.at(now_ms);
        Counts {
            requests: self.requests.saturating_add(remote.requests),
            tokens: self.tokens.saturating_add(held.tokens).saturating_add(remote.tokens),
            parallel: held.requests.saturating_add(remote.parallel),
            resets_at_ms: self.resets_at_ms(now_ms),
        }
    }

    /// When the open window ends, here or elsewhere; one that would open now, when there is none.
    fn resets_at_ms(&self, now_ms: u64) -> u64 {
        let start_ms = match (self.window_ms, self.remote.at(now_ms).window_ms) {
            (0, 0) => now_ms,
            (0, start_ms) | (start_ms, _) => start_ms,
        };
        start_ms.saturating_add(WINDOW_MS)
    }

    /// Admits a request.
    pub(super) fn take(
        &mut self,
        rule: &Rule,
        worker: Worker,
        liveness: &Liveness,
        estimate: Estimate,
        now_ms: u64,
    ) -> Reserved {
        self.used_ms = self.used_ms.max(now_ms);
        if self.window_ms == 0 {
            self.window_ms = now_ms;
        }
        self.requests = self.requests.saturating_add(1);
        let budgeted = rule.max_budget.is_some();
        let (mut tokens, mut cost) = (estimate.tokens, if budgeted { pico(estimate.cost).max(0) } else { 0 });
        if estimate.claim != Claim::default() {
            let (more, money) = self.claimed(rule, &estimate);
            (tokens, cost) = (tokens.saturating_add(more), cost.saturating_add(money));
        }
        // What is held is what was really added, so that giving it back ends at exactly nothing.
        let holder = self.remove_holder(worker, liveness);
        let tokens = tokens.min(u64::MAX - holder.tokens);
        let cost = cost.min(i64::MAX.saturating_sub(holder.cost));
        self.holders.push(Holder {
            requests: holder.requests.saturating_add(1),
            tokens: holder.tokens.saturating_add(tokens),
            cost: holder.cost.saturating_add(cost),
            ..holder
        });
        Reserved { window_ms: self.window_ms, tokens, cost, budgeted, resets: rule.resets }
    }

    /// How much of a claim is reserved: all of it by principals that keep out only themselves, else tokens and money as long as no
    /// more than half of what is left is held.
    fn claimed(&self, rule: &Rule, estimate: &Estimate) -> (u64, i64) {
        if matches!(
            rule.kind,
            MeterKind::Key
                | MeterKind::KeyModel
                | MeterKind::KeyWindow
                | MeterKind::Member
                | MeterKind::MemberModel
                | MeterKind::OrganizationMember
                | MeterKind::EndUser
                | MeterKind::EndUserModel
        ) {
            return (estimate.claim.tokens, pico(estimate.claim.cost).max(0));
        }
        let held = self.held(|_| true);
        let tokens = rule.limits.tpm.map_or(estimate.claim.tokens, |limit| {
            let half = limit.saturating_sub(self.tokens) / 2;
            estimate.claim.tokens.min(half.saturating_sub(held.tokens).saturating_sub(estimate.tokens))
        });
        let cost = rule.max_budget.map_or(0, |max| {
            let left = max.pico() - i128::from(self.base) - i128::from(self.unsynced);
            let room = left / 2 - held.cost - estimate.cost.pico();
            room.clamp(0, pico(estimate.claim.cost).max(0).into())
        });
        (tokens, i64::try_from(cost).unwrap_or(i64::MAX))
    }

    /// A request is over.
    pub(super) fn settle(
        &mut self,
        worker: Worker,
        reserved: &Reserved,
        tokens: u64,
        cost: Money,
        now_ms: u64,
    ) {
        self.release(worker, reserved);
        self.turn(reserved.resets, now_ms);
        self.used_ms = self.used_ms.max(now_ms);
        if self.window_ms != 0 {
            self.tokens = self.tokens.saturating_add(tokens);
        }
        if reserved.budgeted {
            self.unsynced = self.unsynced.saturating_add(pico(cost).max(0));
            self.ahead |= self.unsynced != 0;
        }
    }

    /// A request never was.
    pub(super) fn cancel(&mut self, worker: Worker, reserved: &Reserved, now_ms: u64) {
        self.release(worker, reserved);
        self.turn(reserved.resets, now_ms);
        if self.window_ms == reserved.window_ms {
            self.requests = self.requests.saturating_sub(1);
            if self.requests == 0 && self.tokens == 0 {
                self.window_ms = 0;
            }
        }
    }

    /// What requests in flight of those workers hold that `counts` says yes to.
    pub(super) fn held(&self, counts: impl Fn(u32) -> bool) -> Held {
        let mut held = Held::default();
        for holder in self.holders.iter().filter(|holder| counts(holder.worker)) {
            held.requests = held.requests.saturating_add(holder.requests.into());
            held.tokens = held.tokens.saturating_add(holder.tokens);
            held.cost = held.cost.saturating_add(holder.cost.into());
        }
        held
    }

    /// What would be lost with it. A base of the ledger comes back with the next record; one without a ledger (revision 0)
    /// does not, and a record that was read before money was spent brings an old one, until no copy of it is left.
    pub(super) fn loss(&self, liveness: &Liveness, now_ms: u64) -> Loss {
        let only_here = self.revision == 0 && self.base != 0;
        if only_here || self.holders.iter().any(|holder| liveness.knows(holder.worker)) {
            return Loss::Much;
        }
        if self.unsynced != 0 {
            return Loss::Some;
        }
        let counts = is_open(self.window_ms, now_ms) || self.remote.counts(now_ms);
        if self.rated && counts {
            return if self.place { Loss::Much } else { Loss::Little };
        }
        let is_old = now_ms.saturating_sub(self.used_ms) >= IDLE_MS;
        if is_old || !(self.budgeted && self.ahead) { Loss::Nothing } else { Loss::Little }
    }

    /// Ends the window when it is over, and the period of a budget that the filter resets itself.
    pub(super) fn turn(&mut self, resets: Option<Period>, now_ms: u64) {
        if !is_open(self.window_ms, now_ms) {
            (self.window_ms, self.requests, self.tokens) = (0, 0, 0);
        }
        let Some(next_ms) = resets.and_then(|period| period.next_reset_ms(now_ms)) else { return };
        self.reset_at_ms = match self.reset_at_ms {
            0 => next_ms,
            // The earlier one, should the configuration have changed to a shorter period.
            at_ms if now_ms < at_ms => at_ms.min(next_ms),
            _ => {
                (self.base, self.unsynced) = (0, 0);
                next_ms
            }
        };
    }

    fn spend(&self, held: &Held) -> Money {
        Money::from_pico(i128::from(self.base) + i128::from(self.unsynced) + held.cost)
    }

    /// Takes the worker's holder out; one that holds nothing when it has none.
    fn remove_holder(&mut self, worker: Worker, liveness: &Liveness) -> Holder {
        if let Some(place) = self.holders.iter().position(|holder| holder.worker == worker.0) {
            return self.holders.swap_remove(place);
        }
        if self.holders.len() >= MANY_HOLDERS {
            self.holders.retain(|holder| liveness.knows(holder.worker));
        }
        Holder { worker: worker.0, ..Holder::default() }
    }

    fn release(&mut self, worker: Worker, reserved: &Reserved) {
        if let Some(holder) = self.holders.iter_mut().find(|holder| holder.worker == worker.0) {
            holder.requests = holder.requests.saturating_sub(1);
            holder.tokens = holder.tokens.saturating_sub(reserved.tokens);
            holder.cost = holder.cost.saturating_sub(reserved.cost).max(0);
        }
        self.holders.retain(|holder| holder.requests != 0);
    }
}

impl Remote {
    /// Whether any of it counts now.
    pub(super) fn counts(self, now_ms: u64) -> bool {
        let Remote { requests, tokens, parallel, .. } = self.at(now_ms);
        requests != 0 || tokens != 0 || parallel != 0
    }

    /// What of it counts now: places as long as it is fresh, the rest only while its window is open too.
    fn at(self, now_ms: u64) -> Remote {
        if now_ms.abs_diff(self.at_ms) > REMOTE_MS {
            return Remote::default();
        }
        if !is_open(self.window_ms, now_ms) {
            return Remote { at_ms: self.at_ms, parallel: self.parallel, ..Remote::default() };
        }
        self
    }
}

/// Whether a window is open. The distance counts in both directions: after a clock went back, windows close as well.
fn is_open(window_ms: u64, now_ms: u64) -> bool {
    window_ms != 0 && now_ms.abs_diff(window_ms) < WINDOW_MS
}

/// LiteLLM refuses a key, a deployment, a provider and a principal with several budgets when they have reached one, and every
/// other principal once it passed it.
fn stops_at_budget(kind: MeterKind) -> bool {
    let windows = matches!(kind, MeterKind::KeyWindow | MeterKind::UserWindow | MeterKind::TeamWindow);
    windows
        || matches!(kind, MeterKind::Key | MeterKind::KeyModel | MeterKind::Deployment | MeterKind::Provider)
}

/// In 10⁻¹² dollars, at the limits of the type when it is more than 9 million of them.
pub(super) fn pico(money: Money) -> i64 {
    i64::try_from(money.pico()).unwrap_or(if money > Money::ZERO { i64::MAX } else { i64::MIN })
}
