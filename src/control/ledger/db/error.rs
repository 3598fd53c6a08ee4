//! What goes wrong in a database, and whose fault it is: a statement's, or that of the disk, the file or the way there.

use sqlx::error::DatabaseError;

/// What went wrong in the database. Its text never holds values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DbError {
    /// It cannot be reached, or it was slow beyond reason.
    Unavailable(String),
    /// It is there, and cannot keep (or read) what it should.
    Storage(Trouble, String),
    /// A statement failed.
    Statement(String),
    /// A row with this key is there already.
    Duplicate,
}

/// Why a database that is there cannot do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No room is left.
    Full,
    /// It may not be written.
    ReadOnly,
    /// The disk fails.
    Io,
    /// What it holds makes no sense.
    Damaged,
    /// Its file cannot be opened.
    Closed,
}

impl Trouble {
    /// In words that a client may read: no path, no address.
    pub fn words(self) -> &'static str {
        match self {
            Trouble::Full => "the disk of its database is full",
            Trouble::ReadOnly => "its database is read-only",
            Trouble::Io => "the disk of its database fails",
            Trouble::Damaged => "its database is damaged",
            Trouble::Closed => "the file of its database cannot be opened",
        }
    }
}

impl std::fmt::Display for DbError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DbError::Unavailable(text) => write!(f, "the database is not reachable: {text}"),
            DbError::Storage(Trouble::Full, text) => write!(f, "the disk is full: {text}"),
            DbError::Storage(Trouble::ReadOnly, text) => write!(f, "the database is read-only: {text}"),
            DbError::Storage(Trouble::Io, text) => write!(f, "the disk fails: {text}"),
            DbError::Storage(Trouble::Damaged, text) => write!(f, "the database is damaged: {text}"),
            DbError::Storage(Trouble::Closed, text) => write!(f, "the file cannot be opened: {text}"),
            DbError::Statement(text) => write!(f, "the database refused a statement: {text}"),
            DbError::Duplicate => f.write_str("a row with this key is there already"),
        }
    }
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> DbError {
        match &error {
            sqlx::Error::Database(inner) if inner.is_unique_violation() => DbError::Duplicate,
            sqlx::Error::Database(inner) => of_database(inner.as_ref()),
            // The system's words for it, without its number: "connection refused".
            sqlx::Error::Io(io) => match io.raw_os_error() {
                Some(_) => DbError::Unavailable(io.kind().to_string()),
                None => DbError::Unavailable(io.to_string()),
            },
            sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => DbError::Unavailable(error.to_string()),
            _ => DbError::Statement(error.to_string()),
        }
    }
}

/// An error that the database itself tells of. Postgres puts values into details, not into the message.
fn of_database(error: &dyn DatabaseError) -> DbError {
    let message = error.message().to_owned();
    let code = error.code().unwrap_or_default();
    // Postgres has codes of five characters; SQLite's numbers are shorter.
    let found = if code.len() == 5 { of_postgres(&code) } else { of_sqlite(&code) };
    match found {
        Found::Statement => DbError::Statement(message),
        Found::Unavailable => DbError::Unavailable(message),
        Found::Storage(trouble) => DbError::Storage(trouble, message),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Statement,
    Unavailable,
    Storage(Trouble),
}

fn of_sqlite(code: &str) -> Found {
    // The low byte of an extended result code is the primary one.
    match code.parse::<u32>().unwrap_or_default() & 0xff {
        13 => Found::Storage(Trouble::Full),
        8 => Found::Storage(Trouble::ReadOnly),
        10 => Found::Storage(Trouble::Io),
        11 | 26 => Found::Storage(Trouble::Damaged),
        14 => Found::Storage(Trouble::Closed),
        // Locked by another process, or out of memory.
        5..=7 => Found::Unavailable,
        _ => Found::Statement,
    }
}

fn of_postgres(code: &str) -> Found {
    match code {
        "53100" => Found::Storage(Trouble::Full),
        "25006" => Found::Storage(Trouble::ReadOnly),
        "XX001" | "XX002" => Found::Storage(Trouble::Damaged),
        // Serialization, deadlock, a lock not given in time: it goes well the next time.
        "40001" | "40P01" | "55P03" | "57014" => Found::Unavailable,
        // The database does not exist (yet).
        "3D000" => Found::Unavailable,
        _ => match code.get(..2) {
            Some("58") => Found::Storage(Trouble::Io),
            // Connections, who may log in, resources, an operator's hand.
            Some("08" | "28" | "53" | "57") => Found::Unavailable,
            _ => Found::Statement,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_whose_fault_it_is() {
        let storage = Found::Storage;
        for (code, expected) in [
            ("13", storage(Trouble::Full)),
            ("8", storage(Trouble::ReadOnly)),
            ("1032", storage(Trouble::ReadOnly)),
            ("778", storage(Trouble::Io)),
            ("11", storage(Trouble::Damaged)),
            ("267", storage(Trouble::Damaged)),
            ("26", storage(Trouble::Damaged)),
            ("14", storage(Trouble::Closed)),
            ("5", Found::Unavailable),
            ("517", Found::Unavailable),
            ("1", Found::Statement),
            ("787", Found::Statement),
            ("", Found::Statement),
        ] {
            assert_eq!(of_sqlite(code), expected, "{code}");
        }
        for (code, expected) in [
            ("53100", storage(Trouble::Full)),
            ("25006", storage(Trouble::ReadOnly)),
            ("58030", storage(Trouble::Io)),
            ("XX001", storage(Trouble::Damaged)),
            ("57P01", Found::Unavailable),
            ("08006", Found::Unavailable),
            ("53300", Found::Unavailable),
            ("28P01", Found::Unavailable),
            ("40P01", Found::Unavailable),
            ("42601", Found::Statement),
            ("22003", Found::Statement),
        ] {
            assert_eq!(of_postgres(code), expected, "{code}");
        }
    }

    #[test]
    fn a_refused_connection_is_told_in_words() {
        let refused = sqlx::Error::Io(std::io::Error::from_raw_os_error(111));
        assert_eq!(DbError::from(refused), DbError::Unavailable("connection refused".to_owned()));
    }
}
