//! What is built on the [`Store`] that workers share: a secret, values that are made once, changes that lose no update; and a
//! store of one process.

use crate::core::host::{Secret, Store, Version};

/// The key of the [`Secret`].
const SECRET: &str = "secret";

/// Makes the store's [`Secret`] unless it has one, whichever other workers do so too.
pub fn seal(shared: &dyn Store, secret: Secret) {
    let [a, b] = secret.map(u64::to_le_bytes);
    create(shared, SECRET, &[a, b].concat());
}

/// Creates a value unless there is one already, whichever other workers do so too. A missing key ignores the version that a write
/// names, and an existing one refuses a version that it does not have: so naming one that nothing has is exactly this.
pub fn create(shared: &dyn Store, key: &str, value: &[u8]) {
    const NOBODYS: Version = Version::MAX;
    shared.set(key, value, Some(NOBODYS));
}

/// The store's [`Secret`] as it stands there.
pub fn read_secret(shared: &(impl Store + ?Sized)) -> Option<Secret> {
    shared.get(SECRET).and_then(|(bytes, _)| unpack(&bytes))
}

fn unpack(bytes: &[u8]) -> Option<Secret> {
    let (a, rest) = bytes.split_first_chunk()?;
    Some([u64::from_le_bytes(*a), u64::from_le_bytes(rest.try_into().ok()?)])
}

/// A keyed hash (SipHash-1-3, Aumasson and Bernstein 2012) of 16 bytes.
pub fn keyed(secret: Secret, bytes: [u8; 16]) -> u64 {
    let [k0, k1] = secret;
    let [a, b] = [0, 64].map(|shift| (u128::from_le_bytes(bytes) >> shift) as u64);
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    // The last word is the length.
    for word in [a, b, 16 << 56] {
        v = round([v[0], v[1], v[2], v[3] ^ word]);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    let [a, b, c, d] = round(round(round(v)));
    a ^ b ^ c ^ d
}

fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    [a, b, c.rotate_left(32), d]
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

/// Reads, changes and writes a value until no other worker wrote in between. Gives up after a bounded number of tries: a lost
/// update of a health record is better than a worker that spins.
pub fn update<T>(
    shared: &dyn Store,
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

/// Values with their versions, in plain memory: the rules of [`Store::get`] and [`Store::set`].
#[derive(Debug, Default)]
pub struct Values(hashbrown::HashMap<String, (Vec<u8>, Version)>);

impl Values {
    /// The value and its version.
    pub fn get(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        self.0.get(key).cloned()
    }

    /// Writes a value; false when `version` is given and no longer the newest.
    pub fn set(&mut self, key: &str, value: &[u8], version: Option<Version>) -> bool {
        match self.0.get_mut(key) {
            Some((_, newest)) if version.is_some_and(|version| version != *newest) => false,
            Some((stored, newest)) => {
                stored.clear();
                stored.extend_from_slice(value);
                *newest = newest.wrapping_add(1);
                true
            }
            None => {
                self.0.insert(key.to_owned(), (value.to_vec(), 1));
                true
            }
        }
    }
}

/// A store of one process by the same rules: for tests, and for what is worked out without a gateway.
#[derive(Debug, Default)]
pub struct Memory {
    values: std::cell::RefCell<Values>,
    /// A copy of what is in `values`, once it is there.
    secret: std::cell::Cell<Option<Secret>>,
    counters: std::cell::RefCell<hashbrown::HashMap<&'static str, u64>>,
    successes: std::cell::RefCell<hashbrown::HashMap<(String, u64), u64>>,
}

impl Store for Memory {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        self.values.borrow().get(key)
    }

    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> bool {
        self.values.borrow_mut().set(key, value, version)
    }

    fn secret(&self) -> Secret {
        self.secret.get().unwrap_or_else(|| {
            let found = read_secret(self);
            self.secret.set(found);
            found.unwrap_or_default()
        })
    }

    fn count(&self, counter: &'static str) {
        *self.counters.borrow_mut().entry(counter).or_default() += 1;
    }

    fn succeeded(&self, deployment: &str, minute: u64) {
        *self.successes.borrow_mut().entry((deployment.to_owned(), minute)).or_default() += 1;
    }

    fn successes(&self, deployment: &str, minute: u64) -> u64 {
        self.successes.borrow().get(&(deployment.to_owned(), minute)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
impl Memory {
    /// What a counter stands at.
    pub fn counted(&self, counter: &str) -> u64 {
        self.counters.borrow().get(counter).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creating_leaves_what_is_there() {
        let shared = Memory::default();
        create(&shared, "a", b"1");
        create(&shared, "a", b"2");
        assert_eq!(shared.get("a").map(|(value, _)| value), Some(b"1".to_vec()));
    }

    #[test]
    fn the_first_secret_stays() {
        let shared = Memory::default();
        assert_eq!(shared.secret(), [0, 0]);
        seal(&shared, [3, 4]);
        seal(&shared, [5, 6]);
        assert_eq!(shared.secret(), [3, 4]);
    }

    #[test]
    fn the_keyed_hash_is_siphash_1_3() {
        use std::hash::Hasher as _;
        let mut random = crate::core::random::Random::new(1);
        for _ in 0..100 {
            let bytes = random.uuid().as_bytes()[..16].try_into().unwrap();
            // The standard library's hasher is the same with a key of zeros.
            let mut known = std::hash::DefaultHasher::new();
            known.write(&bytes as &[u8]);
            assert_eq!(keyed([0, 0], bytes), known.finish());
            assert_ne!(keyed([0, 1], bytes), known.finish());
            assert_ne!(keyed([1, 0], bytes), known.finish());
        }
    }

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
