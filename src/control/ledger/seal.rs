//! Secrets at rest: what the database keeps encrypted (the parameters of models that were added through the API).
//!
//! A sealed text is `sealed-v1/` and base64url of a nonce and XChaCha20-Poly1305 ciphertext. The key comes from
//! `LITELLM_SALT_KEY`, else from the master key, so whoever has a copy of the database alone has no provider's key.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce, aead::Aead};
use sha2::{Digest, Sha256};

use crate::core::config::Config;

/// How a sealed text begins: the version of what follows.
const PREFIX: &str = "sealed-v1/";
/// Separates this use of the salt from any other.
const PURPOSE: &[u8] = b"tollgate ledger: secrets at rest, version 1";
/// Length of a nonce: long enough to be random, whatever the number of texts.
const NONCE_BYTES: usize = 24;

/// Seals and unseals with one key.
pub struct Sealer {
    cipher: XChaCha20Poly1305,
}

impl Sealer {
    /// The sealer of a configuration: from `LITELLM_SALT_KEY`, else from the master key. The error says that one is needed.
    pub fn of(config: &Config) -> Result<Sealer, String> {
        let salt = config.ledger.salt_key.as_ref().or(config.general.master_key.as_ref());
        let salt = salt.map(|salt| salt.reveal()).filter(|salt| !salt.is_empty()).ok_or(
            "secrets cannot be stored without a key to encrypt them: set LITELLM_SALT_KEY, or `general_settings.master_key`",
        )?;
        Ok(Sealer::from_salt(salt))
    }

    /// The sealer of a salt.
    pub fn from_salt(salt: &str) -> Sealer {
        // The salt is hashed first, so that its length never matters (as in HMAC), then bound to its purpose.
        let inner = Sha256::digest(salt.as_bytes());
        let key = Sha256::new().chain_update(PURPOSE).chain_update([0]).chain_update(inner).finalize();
        Sealer { cipher: XChaCha20Poly1305::new(&key) }
    }

    /// Encrypts a text; the same text is sealed differently every time.
    pub fn seal(&self, text: &str) -> Result<String, String> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)
            .map_err(|error| format!("this machine gives no random numbers: {error}"))?;
        let sealed = self
            .cipher
            .encrypt(XNonce::from_slice(&nonce), text.as_bytes())
            .map_err(|_| "the text is too long to be encrypted".to_owned())?;
        Ok(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat())))
    }

    /// The text inside. The error says what to check, and shows nothing of it.
    pub fn unseal(&self, sealed: &str) -> Result<String, String> {
        let body = sealed.strip_prefix(PREFIX).ok_or_else(|| {
            format!("the stored text does not begin with `{PREFIX}`: it was written by something else, or by a newer tollgate")
        })?;
        let broken = "the stored text is incomplete or was changed in the database: store it again";
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(body).map_err(|_| broken)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(broken)?;
        let plain = self.cipher.decrypt(XNonce::from_slice(nonce), sealed).map_err(|_| {
            "the stored text was encrypted with another key: set LITELLM_SALT_KEY (or, if there never was one, the master \
             key) to what it was when the text was stored"
        })?;
        String::from_utf8(plain).map_err(|_| broken.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_comes_back_with_the_same_salt_only() {
        let sealer = Sealer::from_salt("sk-salt");
        for text in ["", r#"{"api_key":"sk-1"}"#, "ключ 🔑", &"x".repeat(100_000)] {
            let sealed = sealer.seal(text).unwrap();
            assert!(sealed.starts_with(PREFIX) && (text.is_empty() || !sealed.contains(text)));
            assert_ne!(sealed, sealer.seal(text).unwrap());
            assert_eq!(Sealer::from_salt("sk-salt").unseal(&sealed).as_deref(), Ok(text));
            let other = Sealer::from_salt("sk-other").unseal(&sealed).unwrap_err();
            assert!(other.contains("LITELLM_SALT_KEY"), "{other}");
        }
    }

    #[test]
    fn what_was_changed_is_refused() {
        let sealer = Sealer::from_salt("sk-salt");
        let sealed = sealer.seal("secret").unwrap();
        let end = sealed.len() - 2;
        for bad in
            ["", "secret", "sealed-v1/", "sealed-v1/AAAA", "sealed-v1/%%", "sealed-v2/AAAA", &sealed[..end]]
        {
            let error = sealer.unseal(bad).unwrap_err();
            assert!(!error.contains("secret\""), "{error}");
        }
    }

    #[test]
    fn the_salt_comes_from_the_configuration() {
        let load = |variables: &'static [(&str, &str)]| {
            let env = move |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            };
            crate::core::config::load("", &env, &|_| None).unwrap().config
        };
        let salted = load(&[("LITELLM_SALT_KEY", "s"), ("LITELLM_MASTER_KEY", "sk-m")]);
        let sealed = Sealer::of(&salted).unwrap().seal("text").unwrap();
        assert_eq!(Sealer::from_salt("s").unseal(&sealed).as_deref(), Ok("text"));
        let master = load(&[("LITELLM_MASTER_KEY", "sk-m")]);
        let sealed = Sealer::of(&master).unwrap().seal("text").unwrap();
        assert_eq!(Sealer::from_salt("sk-m").unseal(&sealed).as_deref(), Ok("text"));
        assert!(Sealer::of(&load(&[])).is_err());
    }
}
