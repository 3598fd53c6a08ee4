//! What changed in the ledger, told to all workers: a counter and the names of the last changes in shared data.
//!
//! Two keys. The *watermark* is a few bytes that every request reads: how many changes there have been, how often everything
//! went stale, and whether end users have to be asked for. The *ring* holds the fingerprints of the last [`RING`] names and
//! is read only when the watermark has moved. An announcement writes the ring first, so a worker that sees the watermark finds
//! the names.

use sha2::{Digest, Sha256};

use crate::core::{
    codec::{hex::unhex, percent::unescape},
    host::{Store, Topic},
    protocol::EVERYTHING,
    store,
};

/// Key of the watermark.
const WATERMARK: &str = "access/watermark";
/// Key of the ring.
const NAMES: &str = "access/changes";
/// How many names are remembered. A worker that missed more takes everything it has for stale.
pub const RING: u64 = 256;
/// Bytes of one fingerprint, and with its revision.
const NAME_BYTES: usize = 16;
const CHANGE_BYTES: usize = NAME_BYTES + 8;
/// How often a write is begun anew, beyond what [`store::update`] does by itself. A lost announcement would leave a revoked
/// key in force until its copy is too old.
const TRIES: usize = 8;

/// What stands for a name: 16 bytes of a SHA-256. For a key that is the beginning of the hash in its name.
pub type Fingerprint = u128;

/// A record that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The record's name, as a fingerprint.
    pub name: Fingerprint,
    /// The ledger's revision of the change: a copy as of this one, or a later one, has the change.
    pub revision: u64,
}

impl Changed {
    /// A change of which it is unknown whether a copy has it.
    pub const UNKNOWN: u64 = u64::MAX;
}

/// What every request looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermark {
    /// How many names have ever been announced.
    pub count: u64,
    /// How often everything went stale.
    pub resets: u64,
    /// Whether any end user has limits, so that requests have to be asked for theirs.
    pub end_users: bool,
}

/// Makes the keys, before there is traffic: creating a missing key cannot be guarded against another worker that creates it.
pub fn prepare(shared: &dyn Store) {
    for (key, value) in [(NAMES, &[0; 8][..]), (WATERMARK, &Watermark::default().to_bytes())] {
        if shared.get(key).is_none() {
            shared.set(key, value, None);
        }
    }
}

/// The watermark as it stands.
pub fn watermark(shared: &dyn Store) -> Watermark {
    shared.look(Topic::Access, WATERMARK).map(|bytes| Watermark::from_bytes(&bytes)).unwrap_or_default()
}

/// Tells every worker that the records behind these names changed: `key:<hash>`, `user:<id>`, `team:<id>`,
/// `member:<team>/<user>`, `org:<id>`, `end_user:<id>`.
pub fn announce(shared: &dyn Store, names: &[&str]) {
    announce_as_of(shared, names.iter().map(|name| (*name, Changed::UNKNOWN)));
}

/// Tells all workers what a management call changed, as [`CHANGED_HEADER`](crate::core::protocol::CHANGED_HEADER) says it.
pub fn announce_header(shared: &dyn Store, header: &str) {
    if header == EVERYTHING {
        return reset(shared);
    }
    let names: Vec<_> = header.split(',').map(unescape).collect();
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    // From the first of them on, requests have to be asked for theirs.
    if names.iter().any(|name| name.starts_with("end_user:")) {
        set_end_users(shared, true);
    }
    announce(shared, &names);
}

/// Announces changes with their revisions. A change is heard of twice, from the call that made it and from the ledger's feed:
/// a worker that has asked in between need not ask again.
pub fn announce_as_of<'n>(shared: &dyn Store, changes: impl Iterator<Item = (&'n str, u64)>) {
    let changes: Vec<Changed> =
        changes.map(|(name, revision)| Changed { name: fingerprint(name), revision }).collect();
    if changes.is_empty() {
        return;
    }
    let added = persist(|| store::update(shared, NAMES, |ring| add(ring.unwrap_or_default(), &changes)));
    match added {
        Some(count) => change_watermark(shared, |watermark| watermark.count = watermark.count.max(count)),
        None => reset(shared),
    }
}

/// Tells every worker whether requests have to be asked for their end user.
pub fn set_end_users(shared: &dyn Store, wanted: bool) {
    if watermark(shared).end_users != wanted {
        change_watermark(shared, |watermark| watermark.end_users = wanted);
    }
}

/// Tells every worker that all it has is stale.
pub fn reset(shared: &dyn Store) {
    change_watermark(shared, |watermark| watermark.resets = watermark.resets.wrapping_add(1));
}

/// The changes after `seen`; none when more were made than are remembered.
pub fn since(shared: &dyn Store, seen: u64) -> Option<Vec<Changed>> {
    let (bytes, _) = shared.get(NAMES)?;
    let (count, ring) = split(&bytes);
    let fresh = count.checked_sub(seen).filter(|fresh| *fresh <= RING)?;
    let names = ring.chunks_exact(CHANGE_BYTES);
    // The newest is the last.
    let skip = names.len().checked_sub(usize::try_from(fresh).ok()?)?;
    Some(names.skip(skip).map(change_of).collect())
}

/// The fingerprint of a name.
pub fn fingerprint(name: &str) -> Fingerprint {
    name.strip_prefix("key:").and_then(hash_start).unwrap_or_else(|| fingerprint_of(&Sha256::digest(name)))
}

/// The first 16 bytes of a hash in hexadecimal; none when it is no such hash.
pub fn hash_start(hash: &str) -> Option<Fingerprint> {
    let (start, rest) = hash.split_at_checked(32)?;
    let is_hash = rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit());
    unhex(start).filter(|_| is_hash).map(u128::from_be_bytes)
}

impl Watermark {
    fn to_bytes(self) -> [u8; 17] {
        let mut bytes = [0; 17];
        let all = self.count.to_le_bytes().into_iter().chain(self.resets.to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(all.chain([u8::from(self.end_users)])) {
            *to = from;
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Watermark {
        let (count, rest) = split(bytes);
        let (resets, rest) = split(rest);
        Watermark { count, resets, end_users: rest.first() == Some(&1) }
    }
}

fn change_watermark(shared: &dyn Store, change: impl Fn(&mut Watermark)) {
    let write = || {
        store::update(shared, WATERMARK, |bytes| {
            let mut watermark = bytes.map(Watermark::from_bytes).unwrap_or_default();
            change(&mut watermark);
            (watermark.to_bytes().to_vec(), ())
        })
    };
    let _ = persist(write);
    shared.touch(Topic::Access);
}

fn persist<T>(mut write: impl FnMut() -> Option<T>) -> Option<T> {
    (0..TRIES).find_map(|_| write())
}

/// The ring with more names, and the count with them.
fn add(ring: &[u8], changes: &[Changed]) -> (Vec<u8>, u64) {
    let (count, names) = split(ring);
    let count = count.wrapping_add(changes.len() as u64);
    let mut all = names.to_vec();
    for change in changes {
        all.extend(change.name.to_be_bytes());
        all.extend(change.revision.to_be_bytes());
    }
    let most = CHANGE_BYTES.saturating_mul(usize::try_from(RING).unwrap_or(usize::MAX));
    let names = all.get(all.len().saturating_sub(most)..).unwrap_or_default();
    (count.to_le_bytes().iter().chain(names).copied().collect(), count)
}

/// A number at the start, and the rest.
fn split(bytes: &[u8]) -> (u64, &[u8]) {
    bytes.split_first_chunk::<8>().map_or((0, &[]), |(number, rest)| (u64::from_le_bytes(*number), rest))
}

fn change_of(bytes: &[u8]) -> Changed {
    let revision = bytes.last_chunk::<8>().map_or(Changed::UNKNOWN, |bytes| u64::from_be_bytes(*bytes));
    Changed { name: fingerprint_of(bytes), revision }
}

fn fingerprint_of(bytes: &[u8]) -> Fingerprint {
    bytes.first_chunk::<NAME_BYTES>().map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::store::Memory;

    #[test]
    fn names_are_found_by_whoever_has_not_seen_them() {
        let shared = Memory::default();
        assert_eq!(watermark(&shared), Watermark::default());
        prepare(&shared);
        announce(&shared, &["key:a", "team:t"]);
        announce(&shared, &["user:u"]);
        let all = ["key:a", "team:t", "user:u"]
            .map(|name| Changed { name: fingerprint(name), revision: Changed::UNKNOWN });
        assert_eq!(watermark(&shared).count, 3);
        assert_eq!(since(&shared, 0).unwrap(), all);
        assert_eq!(since(&shared, 2).unwrap(), all[2..]);
        assert_eq!(since(&shared, 3).unwrap(), []);
        prepare(&shared);
        assert_eq!(watermark(&shared).count, 3, "preparing twice loses nothing");
        announce_as_of(&shared, [("user:u", 7)].into_iter());
        assert_eq!(since(&shared, 3).unwrap(), [Changed { name: fingerprint("user:u"), revision: 7 }]);
    }

    #[test]
    fn who_missed_too_much_is_told_so() {
        let shared = Memory::default();
        let names: Vec<String> = (0..300).map(|n| format!("user:{n}")).collect();
        for name in &names {
            announce(&shared, &[name]);
        }
        assert_eq!(since(&shared, 43), None);
        assert_eq!(since(&shared, 44).unwrap().len(), 256);
        assert_eq!(since(&shared, 299).unwrap()[0].name, fingerprint("user:299"));
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        announce(&shared, &all);
        assert_eq!((watermark(&shared).count, since(&shared, 300)), (600, None));
        assert_eq!(since(&shared, 344).unwrap().len(), 256);
    }

    #[test]
    fn flags_and_resets_stand_beside_the_count() {
        let shared = Memory::default();
        set_end_users(&shared, true);
        reset(&shared);
        announce(&shared, &["org:o"]);
        assert_eq!(watermark(&shared), Watermark { count: 1, resets: 1, end_users: true });
        set_end_users(&shared, false);
        assert_eq!(watermark(&shared), Watermark { count: 1, resets: 1, end_users: false });
    }

    #[test]
    fn a_keys_name_is_its_hash() {
        let hash = format!("00ff{}", "a".repeat(60));
        assert_eq!(Some(fingerprint(&format!("key:{hash}"))), hash_start(&hash));
        assert_eq!(hash_start("short"), None);
        assert_eq!(hash_start(&"+".repeat(64)), None);
    }
}
