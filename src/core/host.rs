//! What the gateway needs of whatever runs it, as traits: the core and the roles name no host.

use crate::core::store;

/// A version of a stored value; a write that names it succeeds only while it is still the newest.
pub type Version = u32;

/// What workers share: a store of small values with compare-and-swap.
///
/// Keys can be neither listed nor deleted, so whoever writes must bound the number of distinct keys.
///
/// Reading is what costs where the host hands values into a VM: it prepares a call into it for each, which takes longer than
/// most of what a request needs. So values that seldom change are read with [`Store::look`], and what is only counted is no
/// value at all ([`Store::succeeded`]).
pub trait Store {
    /// The value and its version.
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)>;

    /// Writes a value; false when `version` is given and no longer the newest. Creating a missing key ignores `version`.
    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> bool;

    /// The value of a key of a topic whose values seldom change. It may be a copy made since the topic was last
    /// [touched](Store::touch).
    fn look(&self, _topic: Topic, key: &str) -> Option<Vec<u8>> {
        self.get(key).map(|(value, _)| value)
    }

    /// Says that a value of this topic has been written: copies are stale.
    fn touch(&self, _topic: Topic) {}

    /// Two numbers that nobody outside can guess, the same for all who share the store: what hashes are keyed with, so that
    /// no client can choose names that fall into one place. Zeros until [`seal`](super::store::seal) has been called.
    fn secret(&self) -> Secret {
        store::read_secret(self).unwrap_or_default()
    }

    /// Counts something that operators should know of, by the whole name of its counter.
    fn count(&self, _counter: &'static str) {}

    /// Counts an answer of a deployment that went well, in this minute (Unix minutes).
    fn succeeded(&self, deployment: &str, minute: u64);

    /// How many were counted in this minute, as far as this worker knows: what others counted before it had anything to do
    /// with that deployment in this minute may be missing.
    fn successes(&self, deployment: &str, minute: u64) -> u64;
}

/// See [`Store::secret`].
pub type Secret = [u64; 2];

/// What values are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Records of keys, teams, users: whether any of them changed.
    Access,
    /// Deployments that rest.
    Rest,
}
