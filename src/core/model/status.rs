//! HTTP statuses: of a response that has come, and of an error.

use std::fmt;

/// The status of a response. That there is none is said by an `Option`, never by a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(u16);

impl Status {
    /// 200.
    pub const OK: Status = Status(200);

    /// A status of three digits; `None` for any other number.
    pub const fn new(code: u16) -> Option<Status> {
        if code >= 100 && code <= 999 { Some(Status(code)) } else { None }
    }

    /// A status as a header has it.
    pub fn parse(text: &str) -> Option<Status> {
        Status::new(text.parse().ok()?)
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whether it is a 2xx.
    pub const fn is_good(self) -> bool {
        self.0 >= 200 && self.0 < 300
    }

    /// Whether it is a 4xx.
    pub const fn is_client_error(self) -> bool {
        self.0 >= 400 && self.0 < 500
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The status of an error: from 400 to 599, so that no error can be taken for a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorStatus(u16);

/// Named as in RFC 9110.
#[expect(missing_docs, reason = "a name says all there is")]
impl ErrorStatus {
    pub const BAD_REQUEST: ErrorStatus = ErrorStatus(400);
    pub const UNAUTHORIZED: ErrorStatus = ErrorStatus(401);
    pub const FORBIDDEN: ErrorStatus = ErrorStatus(403);
    pub const NOT_FOUND: ErrorStatus = ErrorStatus(404);
    pub const METHOD_NOT_ALLOWED: ErrorStatus = ErrorStatus(405);
    pub const REQUEST_TIMEOUT: ErrorStatus = ErrorStatus(408);
    pub const CONFLICT: ErrorStatus = ErrorStatus(409);
    pub const CONTENT_TOO_LARGE: ErrorStatus = ErrorStatus(413);
    pub const UNSUPPORTED_MEDIA_TYPE: ErrorStatus = ErrorStatus(415);
    pub const UNPROCESSABLE_CONTENT: ErrorStatus = ErrorStatus(422);
    pub const TOO_MANY_REQUESTS: ErrorStatus = ErrorStatus(429);
    pub const INTERNAL_SERVER_ERROR: ErrorStatus = ErrorStatus(500);
    pub const BAD_GATEWAY: ErrorStatus = ErrorStatus(502);
    pub const SERVICE_UNAVAILABLE: ErrorStatus = ErrorStatus(503);
}

impl ErrorStatus {
    /// A status that an error can have; `None` for any other number.
    pub const fn new(code: u16) -> Option<ErrorStatus> {
        if code >= 400 && code <= 599 { Some(ErrorStatus(code)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl From<ErrorStatus> for Status {
    fn from(status: ErrorStatus) -> Status {
        Status(status.0)
    }
}

impl fmt::Display for ErrorStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_never_a_success() {
        for (code, is_status, is_error) in [
            (0, false, false),
            (99, false, false),
            (200, true, false),
            (302, true, false),
            (399, true, false),
            (400, true, true),
            (599, true, true),
            (600, true, false),
            (1_000, false, false),
        ] {
            assert_eq!(Status::new(code).is_some(), is_status, "{code}");
            assert_eq!(ErrorStatus::new(code).is_some(), is_error, "{code}");
        }
        assert_eq!((Status::parse("204").map(Status::is_good), Status::parse("")), (Some(true), None));
        assert_eq!(Status::from(ErrorStatus::NOT_FOUND).to_string(), "404");
    }
}
