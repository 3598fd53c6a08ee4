//! Keys and end users as a worker keeps them: the ledger's record, and beside it the meters of those it names.
//!
//! A meter's fingerprint takes longer to make than all else that a limit costs, so each is made when a limit first needs it, and
//! once for each copy of a record. The record inside cannot be changed, so a meter that was made stays the right one.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
};

use super::{
    key_record::{EndUserRecord, KeyRecord, Principal},
    meter::{Meter, MeterKind},
};

/// A virtual key: its [`KeyRecord`], and the meters of the key, its user, its team and its organization.
#[derive(Clone, Debug, Default)]
pub struct VirtualKey {
    record: KeyRecord,
    meters: KnownMeters,
}

/// An end user: its [`EndUserRecord`] and its meter.
#[derive(Clone, Debug, Default)]
pub struct EndUser {
    record: EndUserRecord,
    meters: KnownMeters,
}

/// Nothing until a limit first needs one of them: most keys have none, and ten thousand of them lie in every worker.
type KnownMeters = OnceLock<Box<Meters>>;

#[derive(Clone, Debug, Default)]
struct Meters {
    own: OnceLock<Meter>,
    user: OnceLock<Meter>,
    team: OnceLock<Meter>,
    organization: OnceLock<Meter>,
}

/// A principal that limits a call, with its own meter.
pub struct Holder<'k> {
    /// The principal's limits and budgets.
    pub principal: &'k Principal,
    /// What its meter counts.
    pub kind: MeterKind,
    meters: &'k KnownMeters,
    slot: fn(&Meters) -> &OnceLock<Meter>,
}

impl Holder<'_> {
    /// The principal's meter.
    pub fn meter(&self) -> Meter {
        let slot = (self.slot)(self.meters.get_or_init(Box::default));
        slot.get_or_init(|| Meter::new(self.kind, self.principal.counted_as())).clone()
    }
}

impl VirtualKey {
    /// The key itself.
    pub fn holder(&self) -> Holder<'_> {
        self.held(&self.record.key, MeterKind::Key, |meters| &meters.own)
    }

    /// The key's user, if it has one.
    pub fn user_holder(&self) -> Option<Holder<'_>> {
        let user = self.record.user.as_deref()?;
        Some(self.held(user, MeterKind::User, |meters| &meters.user))
    }

    /// The key's team, if it has one.
    pub fn team_holder(&self) -> Option<Holder<'_>> {
        let team = self.record.team.as_deref()?;
        Some(self.held(team, MeterKind::Team, |meters| &meters.team))
    }

    /// The key's (or its team's) organization, if it has one.
    pub fn organization_holder(&self) -> Option<Holder<'_>> {
        let organization = self.record.organization.as_deref()?;
        Some(self.held(organization, MeterKind::Organization, |meters| &meters.organization))
    }

    fn held<'k>(
        &'k self,
        principal: &'k Principal,
        kind: MeterKind,
        slot: fn(&Meters) -> &OnceLock<Meter>,
    ) -> Holder<'k> {
        Holder { principal, kind, meters: &self.meters, slot }
    }
}

impl EndUser {
    /// The end user itself.
    pub fn holder(&self) -> Holder<'_> {
        let slot: fn(&Meters) -> &OnceLock<Meter> = |meters| &meters.own;
        Holder { principal: &self.record.scope, kind: MeterKind::EndUser, meters: &self.meters, slot }
    }
}

impl Deref for VirtualKey {
    type Target = KeyRecord;

    fn deref(&self) -> &KeyRecord {
        &self.record
    }
}

impl Deref for EndUser {
    type Target = EndUserRecord;

    fn deref(&self) -> &EndUserRecord {
        &self.record
    }
}

impl From<KeyRecord> for VirtualKey {
    fn from(record: KeyRecord) -> VirtualKey {
        VirtualKey { record, ..VirtualKey::default() }
    }
}

impl From<EndUserRecord> for EndUser {
    fn from(record: EndUserRecord) -> EndUser {
        EndUser { record, ..EndUser::default() }
    }
}

impl From<KeyRecord> for Arc<VirtualKey> {
    fn from(record: KeyRecord) -> Arc<VirtualKey> {
        Arc::new(record.into())
    }
}

/// Keys are equal when their records are: their meters follow from those.
impl PartialEq for VirtualKey {
    fn eq(&self, other: &VirtualKey) -> bool {
        self.record == other.record
    }
}

/// End users are equal when their records are.
impl PartialEq for EndUser {
    fn eq(&self, other: &EndUser) -> bool {
        self.record == other.record
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::key_record::Former;

    fn principal(id: &str) -> Principal {
        Principal { id: id.to_owned(), ..Principal::default() }
    }

    #[test]
    fn each_principal_has_its_meter_which_is_made_once() {
        let former = Former { counted: Some("first".to_owned()), ..Former::default() };
        let key = VirtualKey::from(KeyRecord {
            key: Principal { former: Some(Box::new(former)), ..principal("h") },
            user: Some(Box::new(principal("u"))),
            organization: Some(Box::new(principal("o"))),
            ..KeyRecord::default()
        });
        assert_eq!(
            key.holder().meter().name(),
            "key:first",
            "a key with a new value goes on by its first hash"
        );
        let meters = [key.user_holder(), key.team_holder(), key.organization_holder()]
            .map(|holder| holder.map(|holder| holder.meter().name().to_owned()));
        assert_eq!(meters, [Some("user:u".to_owned()), None, Some("org:o".to_owned())]);
        let (one, again) = (key.holder().meter(), key.holder().meter());
        assert!(std::ptr::eq(one.name(), again.name()), "one text for all who ask");
        let record = EndUserRecord { scope: principal("e"), ..EndUserRecord::default() };
        assert_eq!(EndUser::from(record).holder().meter().name(), "end_user:e");
    }

    #[test]
    fn what_was_asked_of_a_key_makes_it_no_other_key() {
        let one = VirtualKey::from(KeyRecord { key: principal("h"), ..KeyRecord::default() });
        let other = one.clone();
        one.holder().meter();
        assert_eq!(one, other);
        assert_ne!(one, VirtualKey::from(KeyRecord { key: principal("i"), ..KeyRecord::default() }));
    }
}
