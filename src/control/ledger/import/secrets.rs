//! What LiteLLM has encrypted in its database, read with its salt key.
//!
//! | as it is stored | cipher | key |
//! |---|---|---|
//! | `v3:gcm:` and base64url of nonce (12), ciphertext, tag | AES-256-GCM | HKDF-SHA256 of the salt key, info `litellm-at-rest-v3` |
//! | `v2:gcm:` and the same | AES-256-GCM | SHA-256 of the salt key |
//! | base64 (either alphabet) of nonce (24), tag, ciphertext | XSalsa20-Poly1305 (nacl's secret box) | SHA-256 of the salt key |
//!
//! The salt key is `LITELLM_SALT_KEY`, else the master key. Values that are no text are not encrypted.

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use crypto_secretbox::{KeyInit, XSalsa20Poly1305, aead::Aead};
use ring::{aead, hkdf};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

const V3: &str = "v3:gcm:";
const V2: &str = "v2:gcm:";
const HKDF_INFO: &[&[u8]] = &[b"litellm-at-rest-v3"];
/// Bytes of a nonce of the secret box.
const BOX_NONCE: usize = 24;
/// Bytes of nonce and tag of the secret box.
const BOX_LEAST: usize = BOX_NONCE + 16;
const KEY_BYTES: usize = 32;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const ALPHABETS: [GeneralPurpose; 2] =
    [GeneralPurpose::new(&URL_SAFE, LENIENT), GeneralPurpose::new(&STANDARD, LENIENT)];

/// Reads with one salt key.
pub struct SaltKey(String);

impl SaltKey {
    /// With this salt key.
    pub fn new(key: &str) -> SaltKey {
        SaltKey(key.to_owned())
    }

    /// The text that was encrypted; none when it was not, or with another key.
    pub fn decrypt(&self, stored: &str) -> Option<String> {
        let plain = if let Some(body) = stored.strip_prefix(V3) {
            open_gcm(&self.hkdf()?, body)?
        } else if let Some(body) = stored.strip_prefix(V2) {
            open_gcm(&self.sha256(), body)?
        } else {
            let bytes = decoded(stored).filter(|bytes| bytes.len() >= BOX_LEAST)?;
            let (nonce, sealed) = bytes.split_first_chunk::<BOX_NONCE>()?;
            XSalsa20Poly1305::new(&self.sha256().into()).decrypt(nonce.into(), sealed).ok()?
        };
        String::from_utf8(plain).ok()
    }

    /// Members in the clear. Texts that are not encrypted stay as they are, as LiteLLM reads them; none when a text looks
    /// encrypted and is not with this key.
    pub fn members(&self, stored: &Map<String, Value>) -> Option<Map<String, Value>> {
        let mut plain = Map::new();
        for (name, value) in stored {
            let value = match value {
                Value::String(text) => match self.decrypt(text) {
                    Some(text) => Value::String(text),
                    None if looks_encrypted(text) => return None,
                    None => value.clone(),
                },
                other => other.clone(),
            };
            plain.insert(name.clone(), value);
        }
        Some(plain)
    }

    fn sha256(&self) -> [u8; KEY_BYTES] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    fn hkdf(&self) -> Option<[u8; KEY_BYTES]> {
        let mut key = [0; KEY_BYTES];
        // No salt is a salt of zeros.
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &[0; KEY_BYTES]).extract(self.0.as_bytes());
        extracted.expand(HKDF_INFO, hkdf::HKDF_SHA256).ok()?.fill(&mut key).ok()?;
        Some(key)
    }
}

/// Whether a text is an encrypted one by its form. No name of a model, no address and no `os.environ/…` is.
fn looks_encrypted(text: &str) -> bool {
    text.starts_with(V3)
        || text.starts_with(V2)
        || (text.len().is_multiple_of(4) && decoded(text).is_some_and(|bytes| bytes.len() >= BOX_LEAST))
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    ALPHABETS.iter().find_map(|alphabet| alphabet.decode(text).ok())
}

fn open_gcm(key: &[u8; KEY_BYTES], body: &str) -> Option<Vec<u8>> {
    let bytes = decoded(body)?;
    let (nonce, sealed) = bytes.split_first_chunk::<{ aead::NONCE_LEN }>()?;
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, key).ok()?);
    let nonce = aead::Nonce::assume_unique_for_key(*nonce);
    Some(key.open_in_place(nonce, aead::Aad::empty(), &mut sealed.to_vec()).ok()?.to_vec())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_that_litellm_has_written_is_read() {
        let salt = SaltKey::new("sk-salt-1");
        for (stored, plain) in [
            (
                "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXAAC6dVPPvNjXSOPD_5oktCq2SZ8QMFMYw_LkMslRJWle",
                Some("openai/gpt-4o ÿ?"),
            ),
            (
                "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXAAC6dVPPvNjXSOPD/5oktCq2SZ8QMFMYw/LkMslRJWle",
                Some("openai/gpt-4o ÿ?"),
            ),
            (
                "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXlcW/xIuPiLyoCclvup7RKDatAYEDNgoW1+O7K5c=",
                Some("sk-provider-1"),
            ),
            ("v2:gcm:AAECAwQFBgcICQoL7IQdjfeuBcceGpTDfrXOnvOn9vDilERphGmTF-Y=", Some("sk-provider-2")),
            ("v3:gcm:AAECAwQFBgcICQoLp2v2WObPT-_QqX0LOCN3BWoaVxF8yV5AME22GQo=", Some("sk-provider-3")),
            ("v3:gcm:AAECAwQFBgcICQoLRXLF2lM4D0oraDHlU3x49g==", Some("")),
            ("v3:gcm:AAECAwQFBgcICQoLRXLF2lM4D0oraDHlU3x48g==", None),
            ("v3:gcm:", None),
            ("v2:gcm:AAEC", None),
            ("", None),
            ("openai/gpt-4o", None),
        ] {
            assert_eq!(salt.decrypt(stored).as_deref(), plain, "{stored}");
            assert_eq!(SaltKey::new("sk-salt-2").decrypt(stored), None, "with another key: {stored}");
        }
    }

    #[test]
    fn members_are_read_whether_encrypted_or_not() {
        let stored = json!({
            "model": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXO53u77g0XSJUDw7xLT5aGCq2SZ8QMFMYw_LkMsk=",
            "api_base": "https://models.example.com/v1",
            "api_key": "os.environ/OPENAI_API_KEY",
            "rpm": 5,
            "extra_headers": {"a": "b"},
        });
        let mut plain = stored.clone();
        plain["model"] = json!("openai/gpt-4o");
        let stored = stored.as_object().unwrap();
        assert_eq!(SaltKey::new("sk-salt-1").members(stored).as_ref(), plain.as_object());
        assert_eq!(SaltKey::new("sk-salt-2").members(stored), None);
        for text in
            ["gpt-4o", "openai/gpt-4o-mini-2024-07-18", "arn:aws:bedrock:us-east-1:123456789012:x/y", ""]
        {
            assert!(!looks_encrypted(text), "{text}");
        }
    }
}
