//! Why a management call was refused, in the shapes LiteLLM's clients know.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::db::DbError;
use crate::core::error::{Error, ErrorFormat, RequestFault, Shape};
pub use crate::core::model::status::ErrorStatus;

/// A refusal.
#[derive(Debug)]
pub enum Problem {
    /// `{"error": {"message", "type", "param", "code"}}`.
    Error(Error),
    /// `{"detail": …}` with any status (404 of an unknown path, 422 of a body that does not fit).
    Detail(u16, Value),
    /// The database failed.
    Database(DbError),
}

impl Problem {
    /// A refusal in LiteLLM's own words: what it raises as an HTTP exception on management paths has the `type`
    /// `internal_server_error`, whatever its status.
    pub fn refused(status: ErrorStatus, message: impl Into<String>) -> Problem {
        Problem::Error(Error::of(RequestFault::Raised(status), message))
    }

    /// The same, with the message as `{'error': '…'}`, the text LiteLLM makes of a map.
    pub fn wrapped(status: ErrorStatus, message: impl AsRef<str>) -> Problem {
        Problem::refused(status, format!("{{'error': '{}'}}", message.as_ref()))
    }

    /// 400 `bad_request_error`: a member or a parameter that LiteLLM would take, or refuses by its type alone, and that cannot be used
    /// here.
    pub fn bad_request(name: &str, message: impl Into<String>) -> Problem {
        Problem::Error(Error::of(RequestFault::BadRequest, message).with_param(name.to_owned()))
    }

    /// 413 `invalid_request_error`, as for calls of models.
    pub fn too_large(message: impl Into<String>) -> Problem {
        Problem::Error(Error::of(RequestFault::TooLarge, message))
    }

    /// 404 `not_found_error`.
    pub fn not_found(message: impl Into<String>, param: &str) -> Problem {
        Problem::Error(Error::of(RequestFault::NoSuchRow, message).with_param(param.to_owned()))
    }

    /// 401 `auth_error`; the message gets `Authentication Error, ` in front.
    pub fn auth(message: impl AsRef<str>) -> Problem {
        Problem::Error(Error::auth(format!("Authentication Error, {}", message.as_ref())))
    }

    /// A member of the body (or the query) does not fit; `kind` and `message` in pydantic's words.
    pub fn invalid(place: &str, name: &str, kind: &str, message: &str, input: &Value) -> Problem {
        Problem::Detail(422, json!([{"type": kind, "loc": [place, name], "msg": message, "input": input}]))
    }

    /// A member of the body is missing.
    pub fn missing(place: &str, name: &str, input: &Value) -> Problem {
        Problem::invalid(place, name, "missing", "Field required", input)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem::Error(error)
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Problem {
        // What a database's condition explains is told there, once.
        if matches!(error, DbError::Statement(_) | DbError::Duplicate) {
            super::log(&error.to_string());
        }
        Problem::Database(error)
    }
}

/// What a client is told of a database that fails: it cannot do anything about it, and what happened is in the log.
fn told(error: &DbError) -> Error {
    match error {
        DbError::Unavailable(_) => Error::unavailable("the ledger cannot reach its database; try again"),
        DbError::Storage(trouble, _) => Error::unavailable(format!(
            "the ledger cannot store this: {}. Nothing was changed; try again later",
            trouble.words()
        )),
        DbError::Statement(_) | DbError::Duplicate => {
            Error::internal("the ledger could not do this; the reason is in its log")
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Problem {
        DbError::from(error).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let of_error = |error: Error| {
            let Shape { status, headers, .. } = error.shape();
            (status.get(), headers, error.body(ErrorFormat::OpenAi, ""))
        };
        let (status, headers, body) = match self {
            Problem::Error(error) => of_error(error),
            Problem::Database(error) => of_error(told(&error)),
            Problem::Detail(status, detail) => {
                (status, Vec::new(), json!({"detail": detail}).to_string().into_bytes())
            }
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, body).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in headers {
            let pair = (HeaderName::try_from(name), HeaderValue::try_from(value));
            if let (Ok(name), Ok(value)) = pair {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}
