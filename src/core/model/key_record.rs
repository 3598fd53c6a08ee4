//! What a virtual key may do: the record that the ledger hands to the filter, joined over key, team, user, team member and
//! organization.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::limits::{Budget, Limits, Several};

/// Hashes of a key that got a new value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Former {
    /// The id that its meters go by, when it is another: it goes on counting by its first hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted: Option<String>,
    /// The key's hash now, when it was asked for by a former one that is still good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
}

/// What key, team, user, team member, organization and end user have in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Principal {
    /// Hash of the key, `team_id`, `user_id`, `organization_id`, end user's id; for a team member the user's id.
    pub id: String,
    /// Other hashes that a key has had; most have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub former: Option<Box<Former>>,
    /// `key_alias`, `team_alias`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Every request is refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub blocked: bool,
    /// Models it may call; empty is all. Wildcards, access groups and LiteLLM's special names included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Rates.
    pub limits: Limits,
    /// Money.
    pub budget: Budget,
    /// `budget_limits`: further budgets side by side, each by its own period, which no two share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_limits: Option<Box<Several>>,
    /// `model_rpm_limit`.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub model_rpm: HashMap<String, u64>,
    /// `model_tpm_limit`.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub model_tpm: HashMap<String, u64>,
    /// `model_max_budget`, with the spend of the running period.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub model_budgets: HashMap<String, Budget>,
    /// `aliases` of a key, `model_aliases` of a team: asked for → called.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub aliases: HashMap<String, String>,
    /// `metadata.tags`: added to every request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl Principal {
    /// The id that its meters go by.
    pub fn counted_as(&self) -> &str {
        self.former.as_ref().and_then(|former| former.counted.as_deref()).unwrap_or(&self.id)
    }
}

/// LiteLLM's user roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May do everything.
    ProxyAdmin,
    /// May see everything.
    ProxyAdminViewer,
    /// Runs an organization.
    OrgAdmin,
    /// Makes keys for itself and sees its own spend.
    InternalUser,
    /// Sees its own spend.
    InternalUserViewer,
    /// A team as a user (JWT).
    Team,
    /// An end user.
    Customer,
    /// None: the key has no user, or one that has no record.
    #[default]
    Unknown,
}

impl Role {
    /// LiteLLM's name.
    pub fn name(self) -> &'static str {
        match self {
            Role::ProxyAdmin => "proxy_admin",
            Role::ProxyAdminViewer => "proxy_admin_viewer",
            Role::OrgAdmin => "org_admin",
            Role::InternalUser => "internal_user",
            Role::InternalUserViewer => "internal_user_viewer",
            Role::Team => "team",
            Role::Customer => "customer",
            Role::Unknown => "unknown",
        }
    }
}

/// One virtual key and everything that limits it. Ten thousand of them lie in every worker, so what most keys lack is boxed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyRecord {
    /// The key; its id is the SHA-256 hash in lower-case hexadecimal.
    pub key: Principal,
    /// `key_name`: `sk-...` and the last four characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
    /// Unix milliseconds after which it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// `allowed_routes`; empty is all. Paths, wildcard paths, and LiteLLM's group names (`llm_api_routes`, `info_routes`,
    /// `management_routes`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_routes: Vec<String>,
    /// `enforced_params`: members a request must have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub enforced_params: Vec<String>,
    /// `metadata.disable_fallbacks`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disable_fallbacks: bool,
    /// Role of the user it belongs to.
    pub role: Role,
    /// The user it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Box<Principal>>,
    /// The key's team.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<Box<Principal>>,
    /// The user as a member of the team.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<Box<Principal>>,
    /// The key's organization, or its team's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<Box<Principal>>,
    /// The user as a member of the organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization_member: Option<Box<Principal>>,
    /// Spend of the whole gateway (`litellm_settings.max_budget`), in 10⁻¹² dollars.
    pub global_spend: i64,
    /// Revision of the ledger at which all this was read.
    pub revision: u64,
}

impl KeyRecord {
    /// The team's id.
    pub fn team_id(&self) -> Option<&str> {
        self.team.as_deref().map(|team| team.id.as_str())
    }
}

/// An end user (customer), as requests name it in `user`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndUserRecord {
    /// Id, block, limits, budget. An end user that the ledger does not know yet has the default budget.
    pub scope: Principal,
    /// `allowed_model_region`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// `default_model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_model: Option<String>,
    /// Revision of the ledger at which all this was read.
    pub revision: u64,
}
