//! What the filter and the ledger say to each other: keys down, usage up, changes down.
//!
//! JSON over HTTP, from Envoy to the ledger, authenticated with the secret of [`KEY_VARIABLE`]:
//!
//! | call | body | response |
//! |---|---|---|
//! | `GET /internal/keys/{hash}` | – | [`KeyRecord`](crate::core::model::key_record::KeyRecord), or 404 when there is no such key |
//! | `GET /internal/end_users/{id}` (percent-encoded) | – | [`EndUserRecord`](crate::core::model::key_record::EndUserRecord), also for an unknown one |
//! | `GET /internal/ready` | – | 200 |
//! | `POST /internal/sync` | [`SyncRequest`] | [`SyncReply`] |
//! | `POST /internal/texts` ([`TEXTS_PATH`]) | the `input` of an embedding, in tokens | `{"input": …}` in texts, or 400 with `detail` |
//!
//! The gateway's command asks too: `GET /internal/models?since=REVISION&wait_ms=…` ([`MODELS_PATH`]) returns the models that
//! were added through the API, or 204 when there is no newer revision within that time.
//!
//! Usage goes up in numbered batches that a node repeats until they are acknowledged; the ledger applies each number of a
//! node once, so every event counts exactly once. Totals come down with the revision of the ledger they were read at: a node
//! takes a total only when it is newer than the one it has.

use serde::{Deserialize, Serialize};

use crate::core::{
    codec::percent::percent,
    model::{call_record::CallRecord, lookup::Lookup, rate::Rate},
};

/// Envoy's (and the ledger's) environment variable with the secret between them. Without it the filter has no ledger.
pub const KEY_VARIABLE: &str = "TOLLGATE_LEDGER_KEY";
/// The cluster that leads to the ledger. It has no Wasm filter in its chain.
pub const CLUSTER: &str = "tollgate_ledger";
/// The cluster over which the filter itself asks and tells. Its connections are its own: what clients make of theirs disturbs no
/// look-up.
pub const INTERNAL_CLUSTER: &str = "tollgate_ledger_internal";
/// Where Envoy says usage and hears of changes ([`SyncRequest`]).
pub const SYNC_PATH: &str = "/internal/sync";
/// Where the gateway's command asks for the models that were added through the API.
pub const MODELS_PATH: &str = "/internal/models";
/// Where the filter has texts made of tokens.
pub const TEXTS_PATH: &str = "/internal/texts";
/// Returns 200 as long as the ledger responds, whatever its database does.
pub const ALIVE_PATH: &str = "/internal/alive";
/// Returns 200 when the ledger can serve.
pub const READY_PATH: &str = "/internal/ready";
/// Response header of the ledger's management API: what the call changed, as meter names (see [`crate::core::quota`]) with
/// commas between them, percent-encoded. The policy role drops those records and removes the header.
pub const CHANGED_HEADER: &str = "x-tollgate-changed";
/// Request header by which the gateway tells the ledger the client's address.
pub const CLIENT_HEADER: &str = "x-tollgate-client";

/// What stands in [`CHANGED_HEADER`] when a call changed too much to name.
pub const EVERYTHING: &str = "*";

/// A name as it stands in [`CHANGED_HEADER`] and in paths: whatever could mean something there is percent-escaped.
pub fn escape(text: &str) -> String {
    percent(text, |byte| byte.is_ascii_alphanumeric() || b"-_.:/@".contains(&byte))
}

impl Lookup {
    /// The path at the ledger.
    pub fn path(&self) -> String {
        match self {
            Lookup::Key(hash) => format!("/internal/keys/{hash}"),
            Lookup::EndUser(id) => format!("/internal/end_users/{}", escape(id)),
        }
    }
}

/// Spend of events whose details had to be dropped because the ledger was away too long. Spend itself is never dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Aggregated {
    /// An event with everything that is summed by (key, user, team, organization, end user, model, group, provider, budgeted_meters);
    /// its money and tokens are sums, its times those of the last, its id is empty.
    pub sum: CallRecord,
    /// How many calls it stands for.
    pub calls: u64,
    /// How many of them failed.
    pub failures: u64,
}

/// A numbered batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Batch {
    /// 1, 2, 3, … for each node.
    pub number: u64,
    /// Calls in the order in which they ended.
    pub events: Vec<CallRecord>,
    /// Sums of calls whose details were dropped.
    #[serde(rename = "folded")]
    pub aggregated: Vec<Aggregated>,
}

/// What a node says, several times a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncRequest {
    /// Names this Envoy process: new with every start.
    pub node: String,
    /// Usage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// The newest revision whose changes the node has; 0 at its start.
    pub cursor: u64,
    /// Meters with a rate limit whose window is open here or that have requests in flight. Only sent when there is more than
    /// one node.
    pub rates: Vec<Rate>,
}

/// Something that changed in the ledger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// Name of the meter: `key:…`, `user:…`, `team:…`, `member:…`, `org:…`, `org_member:…`, `end_user:…`, `key_model:…`, `global`.
    pub meter: String,
    /// When.
    pub revision: u64,
    /// The record itself changed (limits, models, deleted …), not only its spend: copies of it are stale.
    pub record: bool,
    /// When the record changed last: a copy as of this revision, or a later one, is not stale. 0 when unknown.
    pub record_revision: u64,
    /// The meter's spend in 10⁻¹² dollars; none when it has none (deleted).
    pub spend: Option<i64>,
}

/// What the ledger responds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncReply {
    /// The newest batch of this node that is applied.
    pub acknowledged: u64,
    /// The revision up to which `changes` go.
    pub cursor: u64,
    /// Everything that changed after the request's cursor (by other nodes and by management calls), and the totals of every
    /// meter the batch charged.
    pub changes: Vec<Change>,
    /// The node's cursor is older than what the ledger remembers (or 0): everything the node has copied is stale.
    pub reset: bool,
    /// There are more changes after `cursor`: ask again at once.
    pub more: bool,
    /// Nodes heard of in the last seconds, this one included.
    pub nodes: u64,
    /// For each meter in the request's `rates`, and for each deployment that another node has called lately: what all *other*
    /// nodes together have in their open windows.
    pub rates: Vec<Rate>,
    /// Whether any end user has limits, is blocked, or gets a default budget: whether requests have to be asked for theirs.
    pub end_users: bool,
    /// What background health checks found; none while the ledger makes no such checks, or has not made one yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// What background health checks found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Ids of the deployments that fail.
    pub failing: Vec<String>,
    /// How many milliseconds from now on this may be believed.
    pub valid_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::call_record::MeterCharge;

    /// A node and a ledger may be of different versions while one of them is replaced: names on the wire stay.
    #[test]
    fn a_batch_has_these_names_on_the_wire() {
        let charge = MeterCharge { meter: "provider:p".to_owned(), spend: 2, period: None };
        let sum = CallRecord {
            budgeted_meters: vec!["key:k".to_owned()],
            meter_charges: vec![charge],
            ..CallRecord::default()
        };
        let aggregated = vec![Aggregated { sum, calls: 3, failures: 1 }];
        let batch = Batch { number: 7, events: Vec::new(), aggregated };
        let text = serde_json::to_string(&batch).unwrap();
        assert_eq!(
            text,
            r#"{"number":7,"events":[],"folded":[{"sum":{"metered":["key:k"],"charged":[{"meter":"provider:p","spend":2}]},"calls":3,"failures":1}]}"#
        );
        assert_eq!(serde_json::from_str::<Batch>(&text).unwrap(), batch);
    }
}
