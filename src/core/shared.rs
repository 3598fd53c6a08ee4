//! What workers share: a store of small values with compare-and-swap, as proxy-wasm's shared data gives it.
//!
//! Keys can be neither listed nor deleted there, so whoever writes must bound the number of distinct keys.

/// A version of a stored value; a write that names it succeeds only while it is still the newest.
pub type Version = u32;

/// The store.
pub trait Shared {
    /// The value and its version.
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)>;

    /// Writes a value; false when `version` is given and no longer the newest. Creating a missing key ignores `version`.
    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> bool;
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
pub struct Memory(std::cell::RefCell<hashbrown::HashMap<String, (Vec<u8>, Version)>>);

impl Shared for Memory {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        self.0.borrow().get(key).cloned()
    }

    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> bool {
        let mut map = self.0.borrow_mut();
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
}
