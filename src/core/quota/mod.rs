//! Limits that hold exactly: requests and tokens a minute, concurrent requests, money, counted in what all workers share.
//!
//! A request reserves first: one request, one of the concurrent ones, and an estimate of its tokens and its cost. When it is
//! over, the estimate is replaced by what it really used. So concurrent requests cannot pass a limit together that only one of
//! them fits under; what a limit can be overshot by is the error of the estimates.
//!
//! | meter | counts |
//! |---|---|
//! | `key:<hash>` | a virtual key |
//! | `key_model:<hash>/<model>` | one model of a key |
//! | `user:<id>`, `team:<id>`, `member:<team>/<user>`, `org:<id>`, `end_user:<id>` | the principals behind it |
//! | `team_model:<id>/<model>` | one model of a team |
//! | `key_window:<hash>/<period>`, `user_window:…`, `team_window:…` | one of several budgets of a principal |
//! | `global` | the whole gateway |
//! | `deployment:<id>` | one deployment |
//! | `provider:<brand>` | all deployments of a provider |
//!
//! | file | what it holds |
//! |---|---|
//! | `entry` | the rules: what one entry says about the next request, how requests change it |
//! | `layout` | what one entry holds, and its bytes |
//! | `bucket` | how entries stand in shared data |
//! | `liveness` | which workers live, so that what a lost VM held does not stay held |
//! | `synced` | what the ledger and other nodes say |

mod bucket;
mod entry;
mod layout;
mod liveness;
mod synced;
#[cfg(test)]
mod tests;

pub use entry::IDLE_MS;
pub use liveness::heartbeat;
pub use synced::{know, open_rates, rebase, set_remote, synced};

use self::{
    bucket::Room,
    entry::{Held, Reserved},
    layout::Entry,
    liveness::Liveness,
};
use crate::core::{
    host::{Secret, Store},
    model::{
        meter::{Meter, MeterKind},
        money::Money,
        rule::Rule,
    },
    store,
};

/// What a request will probably use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Tokens of input and output.
    pub tokens: u64,
    /// Cost at the model's price.
    pub cost: Money,
    /// What the client says that it may use besides. It is reserved only as far as it takes no more than half of what is left:
    /// a number in a request must not keep other callers out.
    pub claim: Claim,
}

/// Further tokens that an answer may have if it is as long as its client allows it to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Tokens of output.
    pub tokens: u64,
    /// Cost at the model's price.
    pub cost: Money,
}

/// A VM, as the holder of requests in flight. A VM takes a new number at each start (chance will do) and says [`heartbeat`] before
/// its first [`reserve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Worker(pub u32);

/// A refused request. Nothing is counted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The index of the rule that refuses, from 0.
    pub rule: usize,
    /// Why it refuses.
    pub why: Why,
}

/// Why a rule refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The budget is used up.
    Budget {
        /// Settled.
        spend: Money,
        /// Reserved for requests in flight.
        held: Money,
    },
    /// Too many requests in this window.
    Requests {
        /// Unix milliseconds of the window's end.
        resets_at_ms: u64,
    },
    /// Too many tokens in this window.
    Tokens {
        /// Unix milliseconds of the window's end.
        resets_at_ms: u64,
    },
    /// Too many concurrent requests.
    Parallel,
    /// The table has no room for another meter in force.
    Full,
}

/// Where a meter stands, for response headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Requests left of [`Limits::rpm`].
    pub requests_left: Option<u64>,
    /// Tokens left of [`Limits::tpm`], estimates of requests in flight taken off.
    pub tokens_left: Option<u64>,
    /// Concurrent requests left of [`Limits::parallel`].
    pub parallel_left: Option<u64>,
    /// Settled and in flight.
    pub spend: Money,
    /// The part of `spend` that is in flight.
    pub held: Money,
    /// Unix milliseconds of the open window's end, or of a window's that would open now.
    pub resets_at_ms: u64,
}

/// What a meter counts, on all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests in the open window.
    pub requests: u64,
    /// Tokens in the open window, estimates of requests in flight included.
    pub tokens: u64,
    /// Requests in flight.
    pub parallel: u64,
    /// Unix milliseconds of the open window's end, or of a window's that would open now.
    pub resets_at_ms: u64,
}

/// What a request holds until it is settled or cancelled.
#[must_use = "a reservation that is neither settled nor cancelled holds its share until the VM ends"]
#[derive(Debug)]
pub struct Reservation {
    worker: Worker,
    holds: Vec<Hold>,
}

/// What a reservation holds of one meter.
#[derive(Debug)]
struct Hold {
    meter: Meter,
    reserved: Reserved,
    /// Where the meter stood right after it.
    standing: Standing,
}

impl Reservation {
    /// The request is over: what it used takes the place of what it reserved.
    pub fn settle(self, shared: &dyn Store, tokens: u64, cost: Money, now_ms: u64) {
        self.settle_with(shared, tokens, cost, cost, now_ms);
    }

    /// [`Reservation::settle`] where the gateway as a whole has spent something else than its caller.
    pub fn settle_with(self, shared: &dyn Store, tokens: u64, cost: Money, gateways: Money, now_ms: u64) {
        for Hold { meter, reserved, .. } in &self.holds {
            let cost = if meter.is_of(MeterKind::Global, "") { gateways } else { cost };
            amend(shared, meter, |entry| entry.settle(self.worker, reserved, tokens, cost, now_ms));
        }
    }

    /// As if the request had never been: it counts for no limit, not even as a request.
    pub fn cancel(self, shared: &dyn Store, now_ms: u64) {
        for Hold { meter, reserved, .. } in &self.holds {
            amend(shared, meter, |entry| entry.cancel(self.worker, reserved, now_ms));
        }
    }

    /// Names of the meters with a budget: those that settling charges (see [`crate::core::model::call_record::CallRecord::budgeted_meters`]).
    pub fn budgeted_meters(&self) -> Vec<&str> {
        self.holds.iter().filter(|hold| hold.reserved.budgeted).map(|hold| hold.meter.name()).collect()
    }

    /// How many tokens of a meter the reservation holds.
    pub fn tokens(&self, meter: &Meter) -> Option<u64> {
        self.holds
            .iter()
            .find(|hold| hold.meter.fingerprint() == meter.fingerprint())
            .map(|hold| hold.reserved.tokens)
    }

    /// Where a meter stood right after this request was let in.
    pub fn standing(&self, meter: &Meter) -> Option<Standing> {
        self.holds
            .iter()
            .find(|hold| hold.meter.fingerprint() == meter.fingerprint())
            .map(|hold| hold.standing)
    }
}

/// A new meter found its part of the table nearly full.
const NEARLY_FULL: &str = "tollgate_limits_nearly_full";
/// A meter was pushed out of the table by another one of its owner, or by one of an owner with fewer.
const PUSHED_OUT: &str = "tollgate_limits_pushed_out";
/// A request was refused because a meter had no room.
const FULL: &str = "tollgate_limits_full";

/// Makes the table where it is missing; cheap where it exists. Any number of workers may do this at once, also while
/// requests are counted. The first one's `secret` says for all where meters stand.
pub fn prepare(shared: &dyn Store, secret: Secret) {
    store::seal(shared, secret);
    let last = bucket::BUCKETS - 1;
    if shared.get(&bucket::name(last)).is_none() {
        liveness::prepare(shared);
        for index in 0..=last {
            store::create(shared, &bucket::name(index), bucket::EMPTY);
        }
    }
}

/// Reserves with all rules, in order, or with none.
pub fn reserve(
    shared: &dyn Store,
    worker: Worker,
    rules: &[Rule],
    estimate: Estimate,
    now_ms: u64,
) -> Result<Reservation, Refused> {
    let liveness = Liveness::new(shared, Some(worker), now_ms);
    let mut reservation = Reservation { worker, holds: Vec::with_capacity(rules.len()) };
    for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.binds()) {
        match take(shared, &liveness, worker, rule, estimate, now_ms) {
            Ok((reserved, standing)) => {
                reservation.holds.push(Hold { meter: rule.meter.clone(), reserved, standing });
            }
            Err(why) => {
                reservation.cancel(shared, now_ms);
                return Err(Refused { rule: index, why });
            }
        }
    }
    Ok(reservation)
}

/// Why a rule would refuse now, its budget asked first; `None` when it would admit. Changes nothing.
pub fn check(shared: &dyn Store, worker: Worker, rule: &Rule, now_ms: u64) -> Option<Why> {
    check_budget(shared, worker, rule, now_ms).or_else(|| check_rates(shared, worker, rule, now_ms))
}

/// [`check`] of the budget alone.
pub fn check_budget(shared: &dyn Store, worker: Worker, rule: &Rule, now_ms: u64) -> Option<Why> {
    rule.max_budget?;
    let entry = look(shared, rule, now_ms);
    refusal(&entry, &Liveness::new(shared, Some(worker), now_ms), |held| entry.over_budget(rule, held))
}

/// [`check`] of the rates alone.
pub fn check_rates(shared: &dyn Store, worker: Worker, rule: &Rule, now_ms: u64) -> Option<Why> {
    if !rule.limits.any() {
        return None;
    }
    let entry = look(shared, rule, now_ms);
    refusal(&entry, &Liveness::new(shared, Some(worker), now_ms), |held| entry.over_rates(rule, held, now_ms))
}

/// Where a rule's meter stands now.
pub fn standing(shared: &dyn Store, rule: &Rule, now_ms: u64) -> Standing {
    let entry = if rule.binds() { look(shared, rule, now_ms) } else { Entry::new(rule.meter.fingerprint()) };
    let liveness = Liveness::new(shared, None, now_ms);
    entry.standing(rule, &entry.held(|worker| liveness.lives(worker)), now_ms)
}

/// What meters count now, in their order. Those that are not in the table count nothing.
pub fn counts<'m>(shared: &dyn Store, meters: impl Iterator<Item = &'m Meter>, now_ms: u64) -> Vec<Counts> {
    let liveness = Liveness::new(shared, None, now_ms);
    let count = |meter: &Meter| {
        let mut entry =
            bucket::look(shared, meter.fingerprint()).unwrap_or_else(|| Entry::new(meter.fingerprint()));
        entry.turn(None, now_ms);
        entry.counts(&entry.held(|worker| liveness.lives(worker)), now_ms)
    };
    meters.map(count).collect()
}

/// Checks and reserves in one step, and looks where that leaves the meter.
fn take(
    shared: &dyn Store,
    liveness: &Liveness,
    worker: Worker,
    rule: &Rule,
    estimate: Estimate,
    now_ms: u64,
) -> Result<(Reserved, Standing), Why> {
    let fingerprint = rule.meter.fingerprint();
    let mut room = Room::Free;
    let taken = bucket::change(shared, fingerprint, |bucket| {
        let found = bucket.find(fingerprint);
        let is_new = found.is_none();
        let mut entry = found.unwrap_or_else(|| Entry::of(rule, shared.secret()));
        entry.adopt(rule, now_ms);
        let over =
            |held: &Held| entry.over_budget(rule, held).or_else(|| entry.over_rates(rule, held, now_ms));
        if let Some(why) = refusal(&entry, liveness, over) {
            return Err(why);
        }
        if is_new {
            room = bucket.make_room(&entry, |entry| entry.loss(liveness, now_ms));
            if room == Room::None {
                return Err(Why::Full);
            }
        }
        let reserved = entry.take(rule, worker, liveness, estimate, now_ms);
        bucket.put(&entry);
        Ok((reserved, entry.standing(rule, &entry.held(|worker| liveness.lives(worker)), now_ms)))
    });
    match room {
        Room::Free => {}
        Room::Little => shared.count(NEARLY_FULL),
        Room::Made => shared.count(PUSHED_OUT),
        Room::None => shared.count(FULL),
    }
    taken.unwrap_or(Err(Why::Full))
}

/// The verdict on an entry. Whether workers live is only asked when it matters: without the lost ones less is held, so what
/// is admitted with them is admitted anyway.
fn refusal(entry: &Entry, liveness: &Liveness, over: impl Fn(&Held) -> Option<Why>) -> Option<Why> {
    let why = over(&entry.held(|_| true))?;
    if entry.holders.iter().all(|holder| liveness.is_own(holder.worker)) {
        return Some(why);
    }
    over(&entry.held(|worker| liveness.lives(worker)))
}

/// A rule's entry as a request would find it now.
fn look(shared: &dyn Store, rule: &Rule, now_ms: u64) -> Entry {
    let fingerprint = rule.meter.fingerprint();
    let mut entry = bucket::look(shared, fingerprint).unwrap_or_else(|| Entry::new(fingerprint));
    entry.adopt(rule, now_ms);
    entry
}

/// Changes an entry that is there.
fn amend(shared: &dyn Store, meter: &Meter, mut step: impl FnMut(&mut Entry)) {
    let fingerprint = meter.fingerprint();
    bucket::change(shared, fingerprint, |bucket| {
        if let Some(mut entry) = bucket.find(fingerprint) {
            step(&mut entry);
            bucket.put(&entry);
        }
    });
}
