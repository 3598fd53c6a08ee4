//! Limits that hold exactly: requests and tokens a minute, requests at a time, money, counted in what all workers share.
//!
//! A request reserves first: one request, one place, and an estimate of its tokens and its cost. When it is over, the estimate
//! is replaced by what it really used. So concurrent requests cannot pass a limit together that only one of them fits under;
//! what a limit can be overshot by is the error of the estimates.
//!
//! | meter | counts |
//! |---|---|
//! | `key:<hash>` | a virtual key |
//! | `key_model:<hash>/<model>` | one model of a key |
//! | `user:<id>`, `team:<id>`, `member:<team>/<user>`, `org:<id>`, `end_user:<id>` | who stands behind it |
//! | `team_model:<id>/<model>` | one model of a team |
//! | `global` | the whole gateway |
//! | `deployment:<id>` | one deployment |

mod meter;
pub mod period;

pub use meter::{Kind, Meter};
use period::Period;

use crate::core::{access::grant::Limits, cost::money::Money, ledger::Rate, shared::Shared};

/// A meter and what holds for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Decides how a budget is compared.
    pub kind: Kind,
    /// What is counted.
    pub meter: Meter,
    /// Rates. Without limits and budget the meter is not touched at all.
    pub limits: Limits,
    /// What may be spent.
    pub max_budget: Option<Money>,
    /// What was spent, as the ledger says.
    pub base: Base,
    /// When the spend starts again from zero. Only for keys of the configuration: for all others the ledger does it.
    pub resets: Option<Period>,
}

/// A total of the ledger and the revision at which it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// The total.
    pub spend: Money,
    /// When; 0 without a ledger.
    pub revision: u64,
}

/// What a request will probably use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Input and output.
    pub tokens: u64,
    /// At the model's price.
    pub cost: Money,
}

/// A VM, as the holder of requests in flight. A VM takes a new number at each start (chance will do) and says [`beat`] before
/// its first [`reserve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Worker(pub u32);

/// A refused request. Nothing is counted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which of the rules, from 0.
    pub rule: usize,
    /// What it said.
    pub why: Why,
}

/// Why a rule refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The budget is used up.
    Budget {
        /// Settled and in flight.
        spend: Money,
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
    /// Too many requests at a time.
    Parallel,
    /// The table has no room for another meter in force.
    Full,
}

/// Where a meter stands, for answer headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Of [`Limits::rpm`].
    pub requests_left: Option<u64>,
    /// Of [`Limits::tpm`], estimates of requests in flight taken off.
    pub tokens_left: Option<u64>,
    /// Of [`Limits::parallel`].
    pub parallel_left: Option<u64>,
    /// Settled and in flight.
    pub spend: Money,
    /// Unix milliseconds of the open window's end, or of a window's that would open now.
    pub resets_at_ms: u64,
}

/// What a request holds until it is settled or cancelled.
#[must_use = "a reservation that is neither settled nor cancelled holds its place until the VM ends"]
#[derive(Debug)]
pub struct Reservation {
    names: Vec<Meter>,
}

impl Reservation {
    /// The request is over: what it used takes the place of what it reserved.
    pub fn settle(self, _shared: &dyn Shared, _tokens: u64, _cost: Money, _now_ms: u64) {}

    /// As if the request had never been.
    pub fn cancel(self, _shared: &dyn Shared, _now_ms: u64) {}

    /// Names of the meters with a budget: those that settling charges (see [`crate::core::ledger::Event::metered`]).
    pub fn metered(&self) -> Vec<&str> {
        self.names.iter().map(Meter::name).collect()
    }
}

/// Makes the table where it is missing; cheap where it exists.
pub fn prepare(_shared: &dyn Shared) {}

/// Says that a worker lives. About once a second; after 5 s of silence what it holds no longer counts.
pub fn beat(_shared: &dyn Shared, _worker: Worker, _now_ms: u64) {}

/// Reserves with all rules, in order, or with none.
pub fn reserve(
    _shared: &dyn Shared,
    _worker: Worker,
    _rules: &[Rule],
    _estimate: Estimate,
    _now_ms: u64,
) -> Result<Reservation, Refused> {
    Ok(Reservation { names: Vec::new() })
}

/// Whether a rule's budget would refuse now. Changes nothing.
pub fn check_budget(_shared: &dyn Shared, _worker: Worker, _rule: &Rule, _now_ms: u64) -> Option<Why> {
    None
}

/// Whether a rule's rates would refuse now. Changes nothing.
pub fn check_rates(_shared: &dyn Shared, _worker: Worker, _rule: &Rule, _now_ms: u64) -> Option<Why> {
    None
}

/// Whether a rule would refuse now, budget first. Changes nothing.
pub fn check(_shared: &dyn Shared, _worker: Worker, _rule: &Rule, _now_ms: u64) -> Option<Why> {
    None
}

/// Where a rule's meter stands now.
pub fn standing(_shared: &dyn Shared, _rule: &Rule, _now_ms: u64) -> Standing {
    Standing::default()
}

/// The ledger has applied this much: it leaves what is not yet synced (never below 0).
pub fn acknowledge(shared: &dyn Shared, meter: &Meter, spent: Money) {
    synced(shared, meter, spent, None);
}

/// The ledger's new total. Taken when it is newer than the one there, and when the meter is in the table at all.
pub fn rebase(shared: &dyn Shared, meter: &Meter, spend: Money, revision: u64) {
    synced(shared, meter, Money::ZERO, Some(Base { spend, revision }));
}

/// [`acknowledge`] and [`rebase`] in one step, so that nobody sees a spend counted twice or not at all in between.
pub fn synced(_shared: &dyn Shared, _meter: &Meter, _spent: Money, _total: Option<Base>) {}

/// The rates of every meter that has a rate limit and an open window or requests in flight. [`Rate::meter`] is
/// [`Meter::hex`].
pub fn open_rates(_shared: &dyn Shared, _now_ms: u64) -> Vec<Rate> {
    Vec::new()
}

/// What other nodes have, absolute. It counts besides our own until it is replaced, for at most 5 s.
pub fn set_remote(_shared: &dyn Shared, _rates: &[Rate], _now_ms: u64) {}
