//! Sealed values: literal secrets of a configuration file, encrypted so that Envoy's configuration never shows them.
//!
//! The command seals with a key that lives as long as its process and reaches the filter through one environment variable
//! ([`KEY_VARIABLE`]). What stands in Envoy's configuration (and so in `/config_dump`) is `sealed/<base64url>` of a nonce
//! and ChaCha20-Poly1305 ciphertext. Pure: key and nonce are arguments.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, aead::Aead};
use sha2::{Digest, Sha256};

/// How a sealed value begins.
pub const PREFIX: &str = "sealed/";

/// The environment variable that carries the key to the filter, as [`key_text`] writes it.
pub const KEY_VARIABLE: &str = "TOLLGATE_SEAL_KEY";

/// Length of a key in bytes.
pub const KEY_BYTES: usize = 32;

/// Length of a nonce in bytes.
pub const NONCE_BYTES: usize = 12;

/// A sealing key.
pub type Key = [u8; KEY_BYTES];

/// A nonce; see [`nonce`].
pub type Nonce = [u8; NONCE_BYTES];

/// Encrypts `plain`. `None` only when it is too long for the cipher (256 GiB).
pub fn seal(plain: &str, key: &Key, nonce: &Nonce) -> Option<String> {
    let cipher = ChaCha20Poly1305::new(key.into());
    let mut sealed = nonce.to_vec();
    sealed.extend(cipher.encrypt(nonce.into(), plain.as_bytes()).ok()?);
    Some(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(sealed)))
}

/// The value inside `sealed` (with or without [`PREFIX`]); `None` when it is not a sealed value, was sealed with another key,
/// or was changed.
pub fn unseal(sealed: &str, key: &Key) -> Option<String> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(sealed.strip_prefix(PREFIX).unwrap_or(sealed)).ok()?;
    let (nonce, ciphertext) = bytes.split_first_chunk::<NONCE_BYTES>()?;
    let plain = ChaCha20Poly1305::new(key.into()).decrypt(nonce.into(), ciphertext).ok()?;
    String::from_utf8(plain).ok()
}

/// The nonce for `plain`: the same one whenever the same value is sealed with the same key, so that an unchanged file makes
/// an unchanged configuration and Envoy has nothing to reload.
///
/// A nonce must not be used for two different plaintexts under one key. Here it is a keyed hash of the plaintext (the hash
/// is nested, so that knowing one nonce gives no start for another): different values get different nonces up to chance
/// collisions of 96 bits, which for the few dozen secrets of a file is about 1 in 2⁸⁵. Equal values give equal sealed
/// text, so an onlooker learns that two settings are equal and nothing else; as keys are random and new in every process,
/// he cannot compare across processes or test a guess.
pub fn nonce(plain: &str, key: &Key) -> Nonce {
    let keyed = |bytes: &[u8]| Sha256::new().chain_update(key).chain_update(bytes).finalize();
    let digest = keyed(&keyed(plain.as_bytes()));
    let mut nonce = [0; NONCE_BYTES];
    for (to, from) in nonce.iter_mut().zip(digest) {
        *to = from;
    }
    nonce
}

/// A key as the environment variable carries it.
pub fn key_text(key: &Key) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(key)
}

/// The key that [`key_text`] wrote.
pub fn parse_key(text: &str) -> Option<Key> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = [7; KEY_BYTES];

    fn sealed(plain: &str) -> String {
        seal(plain, &KEY, &nonce(plain, &KEY)).unwrap()
    }

    #[test]
    fn what_is_sealed_can_be_unsealed_with_the_same_key_only() {
        for plain in ["", "sk-1234", "ключ 🔑", &"x".repeat(10_000)] {
            let text = sealed(plain);
            assert!(text.starts_with(PREFIX));
            assert!(plain.is_empty() || !text.contains(plain));
            assert_eq!(unseal(&text, &KEY).as_deref(), Some(plain));
            assert_eq!(unseal(text.trim_start_matches(PREFIX), &KEY).as_deref(), Some(plain));
            assert_eq!(unseal(&text, &[8; KEY_BYTES]), None);
        }
    }

    #[test]
    fn what_was_changed_or_never_sealed_is_refused() {
        let good = sealed("sk-1234");
        let mut changed = good.clone();
        changed.pop();
        for bad in ["", "sealed/", "sealed/AAAA", "AAAA", "sk-1234", "sealed/%%%", &changed] {
            assert_eq!(unseal(bad, &KEY), None, "{bad}");
        }
    }

    #[test]
    fn nonces_follow_key_and_value() {
        assert_eq!(sealed("a"), sealed("a"));
        assert_ne!(nonce("a", &KEY), nonce("b", &KEY));
        assert_ne!(nonce("a", &KEY), nonce("a", &[8; KEY_BYTES]));
    }

    #[test]
    fn keys_survive_the_environment() {
        assert_eq!(parse_key(&key_text(&KEY)), Some(KEY));
        assert_eq!(parse_key("short"), None);
    }
}
