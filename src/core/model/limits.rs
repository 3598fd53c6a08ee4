//! How much may be used, of what, in which time.

use serde::{Deserialize, Serialize};

use super::{money::Money, period::Period};

/// How much, by what unit of time. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Requests a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpm: Option<u64>,
    /// Tokens a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpm: Option<u64>,
    /// Concurrent requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u64>,
}

impl Limits {
    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.rpm.is_some() || self.tpm.is_some() || self.parallel.is_some()
    }
}

/// Money that may be spent. All amounts in 10⁻¹² dollars.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// `max_budget`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// `soft_budget`: an alert is sent, and no request is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft: Option<i64>,
    /// Spent so far, as the ledger knows it at [`KeyRecord::revision`](super::key_record::KeyRecord::revision).
    pub spend: i64,
    /// `budget_duration`; the ledger resets, except for keys of the configuration, which the filter resets itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Unix milliseconds of the next reset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_at_ms: Option<u64>,
}

/// Most budgets that one key, team or user has side by side: each is counted with every call.
pub const MOST_BUDGETS: usize = 8;

/// Budgets side by side, in their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Several(pub Vec<Budget>);

impl Several {
    /// None when there is none: most have none, so that they are a pointer.
    pub fn of(list: Vec<Budget>) -> Option<Box<Several>> {
        (!list.is_empty()).then(|| Box::new(Several(list)))
    }
}

/// Money that may be spent in each period.
#[derive(Clone, Debug, PartialEq)]
pub struct Allowance {
    /// How much.
    pub max: Money,
    /// When it starts again; never without.
    pub resets: Option<Period>,
    /// The period as it was written.
    pub period: Option<String>,
}
