//! What is counted, by name: `key:<hash>`, `team:<id>`, `global`, and the fingerprint it is found by in shared data.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::core::codec::hex::hex;

/// What a meter stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MeterKind {
    /// A virtual key; the id is its hash.
    Key,
    /// One model of a key: `<hash>/<model>`.
    KeyModel,
    /// One of several budgets of a key: `<hash>/<period>`.
    KeyWindow,
    /// A user.
    User,
    /// One model of a user: `<user>/<model>`.
    UserModel,
    /// One of several budgets of a user: `<user>/<period>`.
    UserWindow,
    /// A team.
    Team,
    /// One model of a team: `<team>/<model>`.
    TeamModel,
    /// One of several budgets of a team: `<team>/<period>`.
    TeamWindow,
    /// A user within a team: `<team>/<user>`.
    Member,
    /// One model of a user within a team: `<team>/<user>/<model>`.
    MemberModel,
    /// An organization.
    Organization,
    /// A user within an organization: `<organization>/<user>`.
    OrganizationMember,
    /// One model of an organization: `<organization>/<model>`.
    OrganizationModel,
    /// An end user (customer).
    EndUser,
    /// One model of an end user: `<end user>/<model>`.
    EndUserModel,
    /// The whole gateway; it has no id.
    Global,
    /// One deployment.
    Deployment,
    /// All deployments of a provider.
    Provider,
}

impl MeterKind {
    /// The word of LiteLLM's rate limiter (v3), as its messages and headers spell it.
    pub fn descriptor(self) -> &'static str {
        match self {
            MeterKind::Key => "api_key",
            MeterKind::KeyModel => "model_per_key",
            MeterKind::KeyWindow => "window_per_key",
            MeterKind::User => "user",
            MeterKind::UserModel => "model_per_user",
            MeterKind::UserWindow => "window_per_user",
            MeterKind::Team => "team",
            MeterKind::TeamModel => "model_per_team",
            MeterKind::TeamWindow => "window_per_team",
            MeterKind::Member => "team_member",
            MeterKind::MemberModel => "model_per_team_member",
            MeterKind::Organization => "organization",
            MeterKind::OrganizationMember => "organization_member",
            MeterKind::OrganizationModel => "model_per_organization",
            MeterKind::EndUser => "end_user",
            MeterKind::EndUserModel => "model_per_end_user",
            MeterKind::Global => "global",
            MeterKind::Deployment => "deployment",
            MeterKind::Provider => "provider",
        }
    }

    /// Whether attempts are counted by it rather than callers.
    pub fn is_place(self) -> bool {
        matches!(self, MeterKind::Deployment | MeterKind::Provider)
    }

    /// Whether it counts for one model of a principal.
    pub fn is_by_model(self) -> bool {
        matches!(
            self,
            MeterKind::KeyModel
                | MeterKind::UserModel
                | MeterKind::TeamModel
                | MeterKind::MemberModel
                | MeterKind::OrganizationModel
                | MeterKind::EndUserModel
        )
    }

    /// What the names of its meters begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            MeterKind::Key => "key",
            MeterKind::KeyModel => "key_model",
            MeterKind::KeyWindow => "key_window",
            MeterKind::User => "user",
            MeterKind::UserModel => "user_model",
            MeterKind::UserWindow => "user_window",
            MeterKind::Team => "team",
            MeterKind::TeamModel => "team_model",
            MeterKind::TeamWindow => "team_window",
            MeterKind::Member => "member",
            MeterKind::MemberModel => "member_model",
            MeterKind::Organization => "org",
            MeterKind::OrganizationMember => "org_member",
            MeterKind::OrganizationModel => "org_model",
            MeterKind::EndUser => "end_user",
            MeterKind::EndUserModel => "end_user_model",
            MeterKind::Global => "global",
            MeterKind::Deployment => "deployment",
            MeterKind::Provider => "provider",
        }
    }
}

/// The name of something counted, with its fingerprint. Cheap to clone; made once for each key, not for each request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Meter {
    name: Arc<str>,
    fingerprint: [u8; 16],
}

impl Meter {
    /// The meter of `id`, named `key:<id>` and so on; [`MeterKind::Global`] is just `global`.
    pub fn new(kind: MeterKind, id: &str) -> Meter {
        match kind {
            MeterKind::Global => Meter::named(kind.prefix()),
            _ => Meter::named(&format!("{}:{id}", kind.prefix())),
        }
    }

    /// Whether it is the meter of `id`.
    pub fn is_of(&self, kind: MeterKind, id: &str) -> bool {
        let rest = self.name.strip_prefix(kind.prefix());
        rest.is_some_and(|rest| {
            rest.strip_prefix(':') == Some(id) || (kind == MeterKind::Global && rest.is_empty())
        })
    }

    /// The meter with this whole name, as [`crate::core::protocol`] spells it.
    pub fn named(name: &str) -> Meter {
        let mut fingerprint = [0; 16];
        for (to, from) in fingerprint.iter_mut().zip(Sha256::digest(name.as_bytes())) {
            *to = from;
        }
        Meter { name: name.into(), fingerprint }
    }

    /// `key:<hash>`, `team:<id>`, …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fingerprint: the first half of the name's SHA-256.
    pub fn fingerprint(&self) -> [u8; 16] {
        self.fingerprint
    }

    /// The fingerprint as 32 hexadecimal digits, by which nodes tell each other their rates.
    pub fn hex(&self) -> String {
        hex(&self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::codec::hex::unhex;

    #[test]
    fn names_and_words() {
        let rows = [
            (MeterKind::Key, "key:x", "api_key"),
            (MeterKind::KeyModel, "key_model:x", "model_per_key"),
            (MeterKind::User, "user:x", "user"),
            (MeterKind::UserModel, "user_model:x", "model_per_user"),
            (MeterKind::Team, "team:x", "team"),
            (MeterKind::TeamModel, "team_model:x", "model_per_team"),
            (MeterKind::Member, "member:x", "team_member"),
            (MeterKind::MemberModel, "member_model:x", "model_per_team_member"),
            (MeterKind::OrganizationMember, "org_member:x", "organization_member"),
            (MeterKind::Organization, "org:x", "organization"),
            (MeterKind::OrganizationModel, "org_model:x", "model_per_organization"),
            (MeterKind::EndUser, "end_user:x", "end_user"),
            (MeterKind::EndUserModel, "end_user_model:x", "model_per_end_user"),
            (MeterKind::Global, "global", "global"),
            (MeterKind::Deployment, "deployment:x", "deployment"),
            (MeterKind::Provider, "provider:x", "provider"),
        ];
        for (kind, name, descriptor) in rows {
            let meter = Meter::new(kind, "x");
            assert_eq!((meter.name(), kind.descriptor()), (name, descriptor));
            assert_eq!(meter, Meter::named(name));
            for (other, _, _) in rows {
                assert_eq!(meter.is_of(other, "x"), other == kind, "{name}");
            }
            assert_eq!(meter.is_of(kind, "y"), kind == MeterKind::Global);
            assert_eq!(unhex(&meter.hex()), Some(meter.fingerprint()));
        }
    }

    #[test]
    fn the_fingerprint_is_half_a_sha256() {
        // printf abc | sha256sum
        assert_eq!(Meter::named("abc").hex(), "ba7816bf8f01cfea414140de5dae2223");
        for bad in ["", "ba78", "+a7816bf8f01cfea414140de5dae2223", "éé7816bf8f01cfea414140de5dae22"] {
            assert_eq!(unhex::<16>(bad), None, "{bad:?}");
        }
    }
}
