//! Who may call: reading the key out of a request and judging it.
//!
//! Rules and messages follow the LiteLLM proxy. Without a master key everybody is let in, as there.

pub mod grant;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::core::{config::General, error::Error, headers::Headers};

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

/// Lets a request in or says why not.
pub fn admit(headers: &Headers, general: &General) -> Result<(), Error> {
    let Some(master) = &general.master_key else { return Ok(()) };
    let key = presented(headers, general)?;
    // Hashing both first makes the comparison's time independent of length and content.
    let (given, wanted) = (Sha256::digest(key), Sha256::digest(master.reveal().as_bytes()));
    if bool::from(given.as_slice().ct_eq(wanted.as_slice())) {
        return Ok(());
    }
    Err(refuse(key))
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

/// The refusal of a key that is not the master key. It shows no more of the key than its last four characters.
pub fn refuse(key: &[u8]) -> Error {
    let text = String::from_utf8_lossy(key);
    if !key.starts_with(b"sk-") {
        return Error::auth(format!(
            "Authentication Error, LiteLLM Virtual Key expected. Received={}, expected to start with 'sk-'.",
            mask(&text)
        ));
    }
    let hash: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    Error::new(
        401,
        format!(
            "Authentication Error, Invalid proxy server token passed. Received API Key = {}, Key Hash (Token) ={hash}. \
             Unable to find token in cache or `LiteLLM_VerificationTokenTable`",
            mask(&text)
        ),
    )
    .with_kind("token_not_found_in_db")
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
    use crate::core::config::Secret;

    fn general(master: Option<&str>, header: Option<&str>) -> General {
        General {
            master_key: master.map(Secret::new),
            key_header: header.map(str::to_owned),
            ..General::default()
        }
    }

    #[test]
    fn the_refusals_of_the_reference() {
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
            match (admit(&headers, &general(Some(sk), None)), expected) {
                (Ok(()), Ok(())) => {}
                (Err(error), Err((kind, text))) => {
                    assert_eq!((error.status, error.kind.as_deref()), (401, Some(*kind)));
                    assert!(error.message.contains(text), "{}", error.message);
                }
                (got, _) => panic!("{headers:?}: {got:?}"),
            }
        }
    }

    #[test]
    fn without_a_master_key_everybody_is_let_in() {
        assert_eq!(admit(&Headers::from_pairs(&[]), &general(None, None)), Ok(()));
    }

    #[test]
    fn a_configured_header_replaces_all_others() {
        let general = general(Some("sk-master-key-1"), Some("x-my-key"));
        let good = Headers::from_pairs(&[("x-my-key", "Bearer sk-master-key-1")]);
        let elsewhere = Headers::from_pairs(&[("authorization", "Bearer sk-master-key-1")]);
        assert_eq!(admit(&good, &general), Ok(()));
        assert!(admit(&elsewhere, &general).is_err());
    }

    #[test]
    fn a_refusal_never_shows_a_key() {
        for key in ["sk-a", "sk-abcdefgh", "topsecret"] {
            assert!(!refuse(key.as_bytes()).message.contains(key), "{key}");
        }
    }
}
