//! What the filter and the ledger say to each other: keys down, usage up, changes down.
//!
//! JSON over HTTP, from Envoy to the ledger, authenticated with the secret of [`KEY_VARIABLE`]:
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /internal/keys/{hash}` | – | [`Grant`](crate::core::model::grant::Grant), or 404 when there is no such key |
//! | `GET /internal/end_users/{id}` (percent-encoded) | – | [`EndUser`](crate::core::model::grant::EndUser), also for an unknown one |
//! | `GET /internal/ready` | – | 200 |
//! | `POST /internal/sync` | [`SyncRequest`] | [`SyncReply`] |
//!
//! The gateway's command asks too: `GET /internal/models?since=REVISION&wait_ms=…` ([`MODELS_PATH`]) answers the models that
//! were added through the API, or 204 when there is no newer revision within that time.
//!
//! Usage goes up in numbered batches that a node repeats until they are acknowledged; the ledger applies each number of a
//! node once, so every event counts exactly once. Totals come down with the revision of the ledger they were read at: a node
//! takes a total only when it is newer than the one it has.

use serde::{Deserialize, Serialize};

use crate::core::{
    codec::{escape::percent, json::Writer},
    model::{lookup::Lookup, rate::Rate},
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
/// Answers 200 as long as the ledger answers, whatever its database does.
pub const ALIVE_PATH: &str = "/internal/alive";
/// Answers 200 when the ledger can serve.
pub const READY_PATH: &str = "/internal/ready";
/// Answer header of the ledger's management API: what the call changed, as meter names (see [`crate::core::quota`]) with
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

/// One finished model call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Names the event; two never share one.
    pub id: String,
    /// The call's id (`x-litellm-call-id`), which a client may choose.
    pub call_id: String,
    /// The id in the answer's body, when it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// LiteLLM's call type (`acompletion`).
    pub call_type: String,
    /// Hash of the key (of the master key too).
    pub api_key: String,
    /// Whose key it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The key's team.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// The key's (or its team's) organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The end user the request named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_user: Option<String>,
    /// The model at the provider.
    pub model: String,
    /// The group that served (or failed last).
    pub model_group: String,
    /// The deployment's id.
    pub model_id: String,
    /// Its brand.
    pub provider: String,
    /// Its base URL without a query.
    pub api_base: String,
    /// What it cost, in 10⁻¹² dollars.
    pub spend: i64,
    /// What of it a mock cost: its caller's to pay, and no expense of the gateway's.
    #[serde(skip_serializing_if = "is_zero")]
    pub mocked: i64,
    /// Input tokens.
    pub prompt_tokens: u64,
    /// Output tokens.
    pub completion_tokens: u64,
    /// Their sum, or what the provider says it is.
    pub total_tokens: u64,
    /// Input tokens that the provider read from its cache.
    pub cache_read_tokens: u64,
    /// Input tokens that the provider wrote to its cache.
    pub cache_creation_tokens: u64,
    /// Unix milliseconds of the request's headers.
    pub start_ms: u64,
    /// Unix milliseconds of its end.
    pub end_ms: u64,
    /// Unix milliseconds of the first part of the answer; 0 when unknown.
    pub first_ms: u64,
    /// The status the client got; 0 when it went away before.
    pub status: u16,
    /// The class of the failure, when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// It came to no deployment and used nothing: it has a row and counts in no sum.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// What the client was told of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The tokens were estimated.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
    /// Request tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Address of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// `litellm_session_id` of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Meters that were charged with [`Event::spend`] on the node (those with a budget). The ledger answers their totals.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metered: Vec<String>,
    /// What attempts cost at deployments and providers that have a budget. The ledger answers their totals too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub charged: Vec<Charged>,
}

/// For what is written only when it says something.
fn is_zero(count: &i64) -> bool {
    *count == 0
}

impl Event {
    /// Appends it as JSON, as `serde` would: a node does so for every call.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let mut json = Writer::begin(out);
        json.text("id", &self.id);
        json.text("call_id", &self.call_id);
        json.text_if("response_id", self.response_id.as_deref());
        json.text("call_type", &self.call_type);
        json.text("api_key", &self.api_key);
        json.text_if("user", self.user.as_deref());
        json.text_if("team", self.team.as_deref());
        json.text_if("organization", self.organization.as_deref());
        json.text_if("end_user", self.end_user.as_deref());
        json.text("model", &self.model);
        json.text("model_group", &self.model_group);
        json.text("model_id", &self.model_id);
        json.text("provider", &self.provider);
        json.text("api_base", &self.api_base);
        json.number("spend", self.spend);
        if self.mocked != 0 {
            json.number("mocked", self.mocked);
        }
        json.number("prompt_tokens", self.prompt_tokens);
        json.number("completion_tokens", self.completion_tokens);
        json.number("total_tokens", self.total_tokens);
        json.number("cache_read_tokens", self.cache_read_tokens);
        json.number("cache_creation_tokens", self.cache_creation_tokens);
        json.number("start_ms", self.start_ms);
        json.number("end_ms", self.end_ms);
        json.number("first_ms", self.first_ms);
        json.number("status", self.status);
        json.text_if("error", self.error.as_deref());
        if self.refused {
            json.flag("refused", true);
        }
        json.text_if("message", self.message.as_deref());
        if self.estimated {
            json.flag("estimated", true);
        }
        json.texts_if("tags", &self.tags);
        json.text_if("ip", self.ip.as_deref());
        json.text_if("session", self.session.as_deref());
        json.texts_if("metered", &self.metered);
        if !self.charged.is_empty() {
            json.value("charged", &self.charged);
        }
        json.end();
    }
}

/// Spend of a deployment or a provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Charged {
    /// `deployment:…` or `provider:…`.
    pub meter: String,
    /// In 10⁻¹² dollars.
    pub spend: i64,
    /// The duration after which its spend starts again. Nodes know it, also for models that are not in the ledger's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
}

impl Charged {
    /// Adds to a list, in which every meter stands once.
    pub fn put(list: &mut Vec<Charged>, new: &Charged) {
        match list.iter_mut().find(|old| old.meter == new.meter) {
            Some(old) => {
                old.spend = old.spend.saturating_add(new.spend);
                old.period.clone_from(&new.period);
            }
            None => list.push(new.clone()),
        }
    }
}

/// Spend of events whose details had to be dropped because the ledger was away too long. Spend itself is never dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Folded {
    /// An event with everything that is summed by (key, user, team, organization, end user, model, group, provider, metered);
    /// its money and tokens are sums, its times those of the last, its id is empty.
    pub sum: Event,
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
    pub events: Vec<Event>,
    /// Sums of calls whose details were dropped.
    pub folded: Vec<Folded>,
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
    /// Its spend in 10⁻¹² dollars; none when it has none (deleted).
    pub spend: Option<i64>,
}

/// What the ledger answers.
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

    #[test]
    fn an_event_is_written_as_serde_writes_it() {
        let text = |text: &str| Some(text.to_owned());
        let full = Event {
            id: "i\"1".to_owned(),
            call_id: "c".to_owned(),
            response_id: text("chatcmpl-1"),
            call_type: "acompletion".to_owned(),
            api_key: "k".to_owned(),
            user: text("u"),
            team: text("t\n"),
            organization: text("o"),
            end_user: text("é\\"),
            model: "m".to_owned(),
            model_group: "g".to_owned(),
            model_id: "d".to_owned(),
            provider: "p".to_owned(),
            api_base: "https://a".to_owned(),
            spend: i64::MIN,
            mocked: 9,
            prompt_tokens: 1,
            completion_tokens: u64::MAX,
            total_tokens: 3,
            cache_read_tokens: 4,
            cache_creation_tokens: 5,
            start_ms: 6,
            end_ms: 7,
            first_ms: 8,
            status: 499,
            error: text("Timeout"),
            refused: true,
            message: text("it took \"too\" long"),
            estimated: true,
            tags: vec!["a".to_owned(), "\"b\"".to_owned()],
            ip: text("::1"),
            session: text("s"),
            metered: vec!["key:k".to_owned()],
            charged: vec![Charged { meter: "provider:p".to_owned(), spend: -1, period: text("1d") }],
        };
        for event in [full, Event::default()] {
            let mut written = b"before".to_vec();
            event.write_json(&mut written);
            assert_eq!(
                String::from_utf8(written).unwrap(),
                format!("before{}", serde_json::to_string(&event).unwrap())
            );
        }
    }
}
