//! Asking the ledger for one record: the path of the question, and what the answer means.

use crate::core::{
    access::{
        Lookup,
        keyring::{Answer, Keyring},
    },
    ledger::{END_USERS_PATH, KEYS_PATH},
};

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learnt {
    /// There is a record.
    Record,
    /// There is none.
    Unknown,
    /// Nobody knows.
    Unreachable,
}

impl Learnt {
    /// The word in counters.
    pub fn name(self) -> &'static str {
        match self {
            Learnt::Record => "miss",
            Learnt::Unknown => "unknown",
            Learnt::Unreachable => "unreachable",
        }
    }
}

/// The path to ask.
pub fn path(lookup: &Lookup) -> String {
    match lookup {
        Lookup::Key(hash) => format!("{KEYS_PATH}{hash}"),
        Lookup::EndUser(id) => format!("{END_USERS_PATH}{}", escape(id)),
    }
}

/// Takes in what the ledger answered; status 0 is no answer at all.
pub fn learn(keys: &mut Keyring, lookup: &Lookup, status: u16, body: &[u8], now_ms: u64) -> Learnt {
    match lookup {
        Lookup::Key(hash) => {
            let (answer, learnt) = read(status, body);
            keys.learn_key(hash, answer, now_ms);
            learnt
        }
        Lookup::EndUser(id) => {
            let (answer, learnt) = read(status, body);
            keys.learn_end_user(id, answer, now_ms);
            learnt
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(status: u16, body: &[u8]) -> (Answer<T>, Learnt) {
    match status {
        200 => serde_json::from_slice(body).map_or((Answer::Unreachable, Learnt::Unreachable), |record| {
            (Answer::Record(record), Learnt::Record)
        }),
        404 => (Answer::None, Learnt::Unknown),
        _ => (Answer::Unreachable, Learnt::Unreachable),
    }
}

/// Anything but letters, digits, `-` and `_` escaped, so that no id can leave its place in the path.
fn escape(text: &str) -> String {
    use std::fmt::Write;

    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => _ = write!(out, "%{byte:02X}"),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::access::{
        grant::{EndUser, Grant},
        keyring::Found,
    };

    #[test]
    fn ids_stay_in_their_place() {
        for (lookup, expected) in [
            (Lookup::Key("ab12".to_owned()), "/internal/keys/ab12"),
            (Lookup::EndUser("a-B_9".to_owned()), "/internal/end_users/a-B_9"),
            (
                Lookup::EndUser("../x?y#z/ü\n".to_owned()),
                "/internal/end_users/%2E%2E%2Fx%3Fy%23z%2F%C3%BC%0A",
            ),
        ] {
            assert_eq!(path(&lookup), expected);
        }
    }

    #[test]
    fn answers_are_learnt() {
        let hash = "ab".repeat(32);
        let mut grant = Grant::default();
        grant.key.id = hash.clone();
        let grant = serde_json::to_vec(&grant).unwrap();
        for (status, body, learnt, found) in [
            (200, grant.as_slice(), Learnt::Record, "known"),
            (404, b"{}", Learnt::Unknown, "unknown"),
            (200, b"<html>", Learnt::Unreachable, "unreachable"),
            (503, b"", Learnt::Unreachable, "unreachable"),
            (401, b"", Learnt::Unreachable, "unreachable"),
            (0, b"", Learnt::Unreachable, "unreachable"),
        ] {
            let mut keys = Keyring::new(4);
            assert_eq!(keys.key(&hash, 1), Found::Ask);
            let lookup = Lookup::Key(hash.clone());
            assert_eq!(learn(&mut keys, &lookup, status, body, 2), learnt, "{status}");
            let now = match keys.key(&hash, 3) {
                Found::Known(_) => "known",
                Found::Unknown => "unknown",
                Found::Unreachable => "unreachable",
                Found::Ask => "ask",
            };
            assert_eq!(now, found, "{status}");
        }
    }

    #[test]
    fn end_users_are_learnt() {
        let mut keys = Keyring::new(4);
        let lookup = Lookup::EndUser("u".to_owned());
        let body = serde_json::to_vec(&EndUser::default()).unwrap();
        assert_eq!(learn(&mut keys, &lookup, 200, &body, 2), Learnt::Record);
        assert!(matches!(keys.end_user("u", 3), Found::Known(_)));
    }
}
