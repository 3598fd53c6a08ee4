//! What holds for one meter.

use super::{
    limits::Limits,
    meter::{Meter, MeterKind},
    money::Money,
    period::Period,
};

/// A meter and what holds for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Decides how a budget is compared.
    pub kind: MeterKind,
    /// What is counted.
    pub meter: Meter,
    /// Rates. Without limits and budget the meter is not touched at all.
    pub limits: Limits,
    /// What may be spent.
    pub max_budget: Option<Money>,
    /// What was spent, as the ledger says.
    pub base: Base,
    /// The fingerprint of the principal that made what is counted, where callers may make any number of it: the key of an end user, the user
    /// of a key. When the table is full, each owner pushes out its own.
    pub owner: Option<[u8; 16]>,
    /// When the spend starts again from zero. Only for keys of the configuration: for all others the ledger does it.
    pub resets: Option<Period>,
}

impl Rule {
    /// Whether there is anything that it could refuse.
    pub fn binds(&self) -> bool {
        self.limits.any() || self.max_budget.is_some()
    }
}

/// A total of the ledger and the revision at which it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// The total.
    pub spend: Money,
    /// When; 0 without a ledger.
    pub revision: u64,
}
