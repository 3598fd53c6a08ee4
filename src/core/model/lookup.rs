//! What a request can be waiting for.

/// A record that must be fetched before a request can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A key, by its hash in lower-case hexadecimal.
    Key(String),
    /// An end user, by the id in the request.
    EndUser(String),
}
