//! Authentication and authorization: reading the key out of a request, finding its record, and judging the request by it.
//!
//! Rules, their order and their messages follow the LiteLLM proxy. Without a master key every request is let in, as there.

pub mod authorize;
pub mod changes;
pub mod keyring;
pub mod models;
pub mod refusals;
pub mod routes;
pub mod rules;
pub mod trouble;

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::core::{
    access::keyring::{Found, Keyring},
    codec::hex::hex,
    error::{Error, KeyFault, OurFault},
    headers::Headers,
    host::Store,
    model::{general::General, key_record::KeyRecord, lookup::Lookup, virtual_key::VirtualKey},
};

/// The caller, by the key that a request shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Caller {
    /// Any client: there is no master key.
    Open,
    /// The holder of the master key.
    Master,
    /// The holder of a virtual key.
    Key(Arc<VirtualKey>),
}

/// Why a caller is not authenticated (yet).
#[derive(Clone, Debug, PartialEq)]
pub enum NotAuthenticated {
    /// The key is missing, malformed or unknown.
    Rejected(Error),
    /// The key's record has to be fetched first.
    NeedsLookup(Lookup),
}

impl From<Error> for NotAuthenticated {
    fn from(error: Error) -> NotAuthenticated {
        NotAuthenticated::Rejected(error)
    }
}

impl Caller {
    /// The virtual key, if the caller has one.
    pub fn key(&self) -> Option<&VirtualKey> {
        match self {
            Caller::Key(key) => Some(key),
            Caller::Open | Caller::Master => None,
        }
    }

    /// The record of a virtual key.
    pub fn grant(&self) -> Option<&KeyRecord> {
        match self {
            Caller::Key(grant) => Some(grant),
            Caller::Open | Caller::Master => None,
        }
    }

    /// The virtual key, to be kept beyond the call.
    pub fn shared_grant(&self) -> Option<Arc<VirtualKey>> {
        match self {
            Caller::Key(grant) => Some(Arc::clone(grant)),
            Caller::Open | Caller::Master => None,
        }
    }
}

/// Headers that may carry a key when no other header is configured, in the order they are asked. The first one present
/// decides, even when what it holds is malformed.
const KEY_HEADERS: [&str; 6] = [
    "x-litellm-api-key",
    "authorization",
    "api-key",
    "x-api-key",
    "x-goog-api-key",
    "ocp-apim-subscription-key",
];

/// LiteLLM's name for a key that passed without being looked up.
const WITHOUT_LEDGER: &str = "failed-to-connect-to-db";

/// Authenticates a request by the key in its headers. A key whose record is not here is to be looked up; then this is called
/// again.
pub fn authenticate(
    headers: &Headers,
    general: &General,
    keys: &mut Keyring,
    shared: &dyn Store,
    now_ms: u64,
) -> Result<Caller, NotAuthenticated> {
    if general.master_key.is_none() {
        return Ok(Caller::Open);
    }
    let key = presented(headers, general)?;
    let hash = hash(key);
    // Comparing hashes makes the comparison's time independent of length and content.
    if bool::from(hash.as_bytes().ct_eq(general.master_hash.as_bytes())) {
        return Ok(Caller::Master);
    }
    if !key.starts_with(b"sk-") {
        return Err(rejection(key, &hash).into());
    }
    if let Some(grant) = general.keys.get(&hash) {
        return Ok(Caller::Key(Arc::clone(grant)));
    }
    if !general.has_ledger {
        return Err(rejection(key, &hash).into());
    }
    match keys.key(&hash, now_ms) {
        Found::Known(grant) => Ok(Caller::Key(grant)),
        Found::Unknown => Err(rejection(key, &hash).into()),
        Found::Ask => Err(NotAuthenticated::NeedsLookup(Lookup::Key(hash))),
        Found::Unreachable => match keyring::spare::find(shared, &hash) {
            Some(grant) => Ok(Caller::Key(keys.adopt(grant, now_ms))),
            None if general.pass_without_ledger => Ok(Caller::Key(unlimited().into())),
            None => Err(unreachable().into()),
        },
    }
}

/// SHA-256 of a key in lower-case hexadecimal: what stands for it everywhere.
pub fn hash(key: &[u8]) -> String {
    hex(&Sha256::digest(key))
}

/// The record of a key that passes while the ledger is away (`allow_requests_on_db_unavailable`). Nothing is known of it, so one
/// record stands for all such keys.
fn unlimited() -> KeyRecord {
    let mut grant = KeyRecord::default();
    grant.key.id = WITHOUT_LEDGER.to_owned();
    grant.name = Some(WITHOUT_LEDGER.into());
    grant
}

fn unreachable() -> Error {
    Error::of(
        OurFault::Unavailable { retry_after_s: Some(1) },
        "the key cannot be looked up now: the ledger does not answer. Try again in a second.",
    )
}

/// The key in the request, without its scheme.
pub fn presented<'h>(headers: &'h Headers, general: &General) -> Result<&'h [u8], Error> {
    let found = match &general.key_header {
        Some(name) => headers.get(name).map(|value| bearer(value).unwrap_or_default()),
        None => KEY_HEADERS.iter().find_map(|name| {
            let value = headers.get(name)?;
            Some(match *name {
                "authorization" => bearer(value).unwrap_or_default(),
                _ => bearer(value).unwrap_or(value),
            })
        }),
    };
    match found {
        None => Err(Error::auth("Authentication Error, No api key passed in.")),
        Some(b"") => Err(Error::auth(
            "Authentication Error, Malformed API Key passed in. Ensure Key has `Bearer ` prefix.",
        )),
        Some(key) => Ok(key),
    }
}

/// What follows `Bearer ` or `Basic `.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    [&b"Bearer "[..], b"bearer ", b"Basic "]
        .into_iter()
        .find_map(|scheme| value.strip_prefix(scheme))
        .map(<[u8]>::trim_ascii)
}

/// The error for a key that is neither the master key nor known. No more of the key is shown than its last four characters.
pub fn rejection(key: &[u8], hash: &str) -> Error {
    let text = String::from_utf8_lossy(key);
    if !key.starts_with(b"sk-") {
        return Error::auth(format!(
            "Authentication Error, LiteLLM Virtual Key expected. Received={}, expected to start with 'sk-'.",
            mask(&text)
        ));
    }
    Error::of(
        KeyFault::Unknown,
        format!(
            "Authentication Error, Invalid proxy server token passed. Received API Key = {}, Key Hash (Token) ={hash}. \
             Unable to find token in cache or `LiteLLM_VerificationTokenTable`",
            mask(&text)
        ),
    )
    .with_param("key")
}

/// `sk-...1234`; nothing at all of a key so short that four characters would give it away.
fn mask(key: &str) -> String {
    let tail: Vec<char> = key.chars().rev().take(4).collect();
    let tail: String =
        if key.chars().count() >= 12 { tail.into_iter().rev().collect() } else { String::new() };
    let head = if key.starts_with("sk-") { "sk-" } else { "" };
    format!("{head}...{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::secret::Secret;

    fn general(master: Option<&str>, header: Option<&str>) -> General {
        General {
            master_key: master.map(Secret::new),
            master_hash: master.map(|key| hash(key.as_bytes())).unwrap_or_default(),
            key_header: header.map(str::to_owned),
            ..General::default()
        }
    }

    fn authenticated(headers: &Headers, general: &General) -> Result<(), Error> {
        match authenticate(headers, general, &mut Keyring::new(1), &crate::core::store::Memory::default(), 0)
        {
            Ok(_) => Ok(()),
            Err(NotAuthenticated::Rejected(error)) => Err(error),
            Err(NotAuthenticated::NeedsLookup(lookup)) => panic!("{lookup:?} without a ledger"),
        }
    }

    #[test]
    fn rejections_are_litellms() {
        let sk = "sk-1234567890ab";
        type Row<'r> = (&'r [(&'r str, &'r str)], Result<(), (&'r str, &'r str)>);
        let rows: &[Row] = &[
            (&[("authorization", "Bearer sk-1234567890ab")], Ok(())),
            (&[("authorization", "bearer sk-1234567890ab")], Ok(())),
            (&[("x-api-key", "sk-1234567890ab")], Ok(())),
            (&[("api-key", "sk-1234567890ab")], Ok(())),
            (&[("x-litellm-api-key", "Bearer sk-1234567890ab"), ("authorization", "nonsense")], Ok(())),
            (&[], Err(("auth_error", "No api key passed in."))),
            (&[("authorization", "sk-1234567890ab")], Err(("auth_error", "Malformed API Key"))),
            (&[("authorization", "Bearer ")], Err(("auth_error", "Malformed API Key"))),
            // A bad Authorization header does not fall through to the next one.
            (
                &[("authorization", "Token x"), ("x-api-key", "sk-1234567890ab")],
                Err(("auth_error", "Malformed")),
            ),
            (
                &[("authorization", "Bearer hello-there-1234")],
                Err(("auth_error", "Received=...1234, expected")),
            ),
            (&[("authorization", "Bearer sk-0000000000zz")], Err(("token_not_found_in_db", "sk-...00zz"))),
        ];
        for (headers, expected) in rows {
            let headers = Headers::from_pairs(headers);
            match (authenticated(&headers, &general(Some(sk), None)), expected) {
                (Ok(()), Ok(())) => {}
                (Err(error), Err((kind, text))) => {
                    assert_eq!((error.status(), error.shape().kind), (401, Some(*kind)));
                    assert!(error.message.contains(text), "{}", error.message);
                }
                (got, _) => panic!("{headers:?}: {got:?}"),
            }
        }
    }

    #[test]
    fn without_a_master_key_everybody_is_let_in() {
        assert_eq!(authenticated(&Headers::from_pairs(&[]), &general(None, None)), Ok(()));
    }

    #[test]
    fn a_configured_header_replaces_all_others() {
        let general = general(Some("sk-master-key-1"), Some("x-my-key"));
        let good = Headers::from_pairs(&[("x-my-key", "Bearer sk-master-key-1")]);
        let elsewhere = Headers::from_pairs(&[("authorization", "Bearer sk-master-key-1")]);
        assert_eq!(authenticated(&good, &general), Ok(()));
        assert!(authenticated(&elsewhere, &general).is_err());
    }

    #[test]
    fn a_refusal_never_shows_a_key() {
        for key in ["sk-a", "sk-abcdefgh", "topsecret"] {
            assert!(!rejection(key.as_bytes(), &hash(key.as_bytes())).message.contains(key), "{key}");
        }
    }
}
