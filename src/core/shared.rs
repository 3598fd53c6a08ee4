//! What workers share: a store of small values with compare-and-swap, as proxy-wasm's shared data gives it.
//!
//! Keys can be neither listed nor deleted there, so whoever writes must bound the number of distinct keys.
//!
//! Reading is what costs: for every value that the host hands over it prepares a call into the VM, which takes longer than
//! most of what a request needs. So values that seldom change are read with [`Shared::look`], and what is only counted is no
//! value at all ([`Shared::succeeded`]).

/// A version of a stored value; a write that names it succeeds only while it is still the newest.
pub type Version = u32;

/// The store.
pub trait Shared {
    /// The value and its version.
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)>;

    /// Writes a value; false when `version` is given and no longer the newest. Creating a missing key ignores `version`.
    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> bool;

    /// The value of a key of a topic whose values seldom change. It may be a copy made since the topic was last
    /// [touched](Shared::touch).
    fn look(&self, _topic: Topic, key: &str) -> Option<Vec<u8>> {
        self.get(key).map(|(value, _)| value)
    }

    /// Says that a value of this topic has been written: copies are stale.
    fn touch(&self, _topic: Topic) {}

    /// Counts an answer of a deployment that went well, in this minute (Unix minutes).
    fn succeeded(&self, deployment: &str, minute: u64);

    /// How many were counted in this minute, as far as this worker knows: what others counted before it had anything to do
    /// with that deployment in this minute may be missing.
    fn successes(&self, deployment: &str, minute: u64) -> u64;
}

/// What values are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Records of keys, teams, users: whether any of them changed.
    Access,
    /// Deployments that rest.
    Rest,
}

/// What one worker remembers of counts that only ever grow, to tell those of a minute.
#[derive(Debug, Default)]
pub struct Minutes(hashbrown::HashMap<String, (u64, u64)>);

impl Minutes {
    /// What `total` has grown since this minute was first asked for.
    pub fn since(&mut self, name: &str, minute: u64, total: u64) -> u64 {
        match self.0.get_mut(name) {
            Some((known, start)) if *known == minute => total.saturating_sub(*start),
            Some(entry) => {
                *entry = (minute, total);
                0
            }
            None => {
                self.0.insert(name.to_owned(), (minute, total));
                0
            }
        }
    }

    /// Whether this minute has been asked for.
    pub fn knows(&self, name: &str, minute: u64) -> bool {
        self.0.get(name).is_some_and(|(known, _)| *known == minute)
    }
}

/// Reads, changes and writes a value until nobody else wrote in between. Gives up after a bounded number of tries: a lost
/// update of a health record is better than a worker that spins.
pub fn update<T>(
    shared: &dyn Shared,
    key: &str,
    mut change: impl FnMut(Option<&[u8]>) -> (Vec<u8>, T),
) -> Option<T> {
    for _ in 0..32 {
        let current = shared.get(key);
        let (value, result) = change(current.as_ref().map(|(value, _)| value.as_slice()));
        if shared.set(key, &value, current.map(|(_, version)| version)) {
            return Some(result);
        }
    }
    None
}

/// A store of one process by the same rules: for tests, and for what is worked out without a gateway.
#[derive(Debug, Default)]
pub struct Memory {
    values: std::cell::RefCell<hashbrown::HashMap<String, (Vec<u8>, Version)>>,
    successes: std::cell::RefCell<hashbrown::HashMap<(String, u64), u64>>,
}

impl Shared for Memory {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        self.values.borrow().get(key).cloned()
    }

    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> bool {
        let mut map = self.values.borrow_mut();
        match map.get_mut(key) {
            Some((_, newest)) if version.is_some_and(|version| version != *newest) => false,
            Some((stored, newest)) => {
                *stored = value.to_vec();
                *newest = newest.wrapping_add(1);
                true
            }
            None => {
                map.insert(key.to_owned(), (value.to_vec(), 1));
                true
            }
        }
    }

    fn succeeded(&self, deployment: &str, minute: u64) {
        *self.successes.borrow_mut().entry((deployment.to_owned(), minute)).or_default() += 1;
    }

    fn successes(&self, deployment: &str, minute: u64) -> u64 {
        self.successes.borrow().get(&(deployment.to_owned(), minute)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grew_in_a_minute() {
        let mut minutes = Minutes::default();
        assert!(!minutes.knows("a", 1));
        let rows = [
            ("a", 1, 10, 0),
            ("a", 1, 12, 2),
            ("b", 1, 5, 0),
            ("a", 2, 20, 0),
            ("a", 2, 21, 1),
            ("b", 1, 7, 2),
        ];
        for (name, minute, total, grown) in rows {
            assert_eq!(minutes.since(name, minute, total), grown, "{name} {minute} {total}");
            assert!(minutes.knows(name, minute));
        }
        assert!(!minutes.knows("a", 1));
    }
}
