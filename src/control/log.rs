//! Lines of our own about what happens while something serves: time, level, text. For whoever watches, and for what collects them.
//!
//! `2026-01-14T10:00:00.123Z INFO tollgate: configuration reloaded`. What is as it should be goes to standard output, all else to
//! standard error. An output that is gone (a terminal that was closed) is no reason to end.

use std::{fmt, io::Write};

use jiff::Timestamp;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Info,
    /// Somebody should look at it; what can be served is served.
    Warning,
    /// The end.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Info => "INFO",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
        })
    }
}

/// Says that something went as it should.
pub fn info(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(stamped(Timestamp::now(), Level::Info, text).as_bytes()).and_then(|()| out.flush());
}

/// Says that something needs to be looked at.
pub fn warn(text: &str) {
    complain(Level::Warning, text);
}

/// Says why it ends.
pub fn error(text: &str) {
    complain(Level::Error, text);
}

fn complain(level: Level, text: &str) {
    let _ = std::io::stderr().lock().write_all(stamped(Timestamp::now(), level, text).as_bytes());
}

/// The text with time and level before each of its lines.
fn stamped(now: Timestamp, level: Level, text: &str) -> String {
    text.lines().map(|line| format!("{now:.3} {level} tollgate: {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_time_and_level() {
        let now = Timestamp::from_millisecond(1_768_384_800_120).unwrap();
        assert_eq!(
            stamped(now, Level::Warning, "one\ntwo"),
            "2026-01-14T10:00:00.120Z WARNING tollgate: one\n2026-01-14T10:00:00.120Z WARNING tollgate: two\n"
        );
        assert_eq!(stamped(now, Level::Info, "x"), "2026-01-14T10:00:00.120Z INFO tollgate: x\n");
    }
}
