//! What clients see of every error.

use serde_json::{Value, json};

use super::*;
use crate::core::{
    access::{self, refusals},
    model::{
        key_record::{KeyRecord, Role},
        limits::Limits,
        meter::{Meter, MeterKind},
        money::Money,
        rule::{Base, Rule},
    },
    quota::Why,
    route::refusals as routing,
};

#[test]
fn bodies_follow_the_clients_format() {
    let error = Error::auth("Authentication Error, No api key passed in.");
    let openai: serde_json::Value =
        serde_json::from_slice(&error.body(ErrorFormat::OpenAi, "call-1")).unwrap();
    assert_eq!(
        openai,
        json!({"error": {"message": "Authentication Error, No api key passed in.", "type": "auth_error",
                         "param": "None", "code": "401"}})
    );
    let anthropic: serde_json::Value =
        serde_json::from_slice(&error.body(ErrorFormat::Anthropic, "call-1")).unwrap();
    assert_eq!(anthropic["type"], "error");
    assert_eq!(anthropic["error"]["type"], "authentication_error");
}

#[test]
fn an_event_inside_a_stream_is_one_frame() {
    let event = Error::provider(Class::InternalServer, "x\ny").event(ErrorFormat::OpenAi, "call-1");
    assert!(event.starts_with(b"data: {") && event.ends_with(b"}\n\n"));
    assert_eq!(event.iter().filter(|&&b| b == b'\n').count(), 2);
}

#[test]
fn a_log_has_our_words_and_never_a_providers() {
    let quoting = Error::quoted(Class::RateLimit, "litellm.RateLimitError: you wrote: my secret");
    assert_eq!(quoting.logged(), "RateLimitError from the provider");
    let words = Words::Theirs { code: Some("insufficient_quota".to_owned()) };
    let quoting = Error::of(ProviderFault::new(Class::RateLimit, words, Form::Whole), quoting.message);
    assert_eq!(quoting.logged(), "RateLimitError from the provider (insufficient_quota)");
    let own = Error::auth("ä".repeat(1_000));
    assert_eq!((own.name(), own.logged()), ("auth_error", "ä".repeat(400)));
}

/// Status, `type`, `param` and `code` for OpenAI's clients; `type` in a stream; `type` for Anthropic's; headers; name in logs.
fn seen(error: &Error) -> String {
    let openai: Value = serde_json::from_slice(&error.body(ErrorFormat::OpenAi, "call-1")).unwrap();
    let anthropic: Value = serde_json::from_slice(&error.body(ErrorFormat::Anthropic, "call-1")).unwrap();
    let event = error.event(ErrorFormat::OpenAi, "call-1");
    let event: Value = serde_json::from_slice(&event[b"data: ".len()..]).unwrap();
    assert_eq!(openai["error"]["message"], error.message);
    assert_eq!(anthropic["error"]["message"], error.message);
    let text = |value: &Value| value.as_str().unwrap_or("null").to_owned();
    assert!(openai["error"]["code"].is_string());
    let headers: Vec<String> =
        error.shape().headers.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    format!(
        "{} {} {} {} | {} | {} | {} |{}",
        error.status(),
        text(&openai["error"]["type"]),
        text(&openai["error"]["param"]),
        text(&openai["error"]["code"]),
        text(&event["error"]["type"]),
        text(&anthropic["error"]["type"]),
        error.name(),
        headers.concat()
    )
}

fn rule(kind: MeterKind) -> Rule {
    Rule {
        owner: None,
        kind,
        meter: Meter::new(kind, "h"),
        limits: Limits { rpm: Some(3), tpm: Some(40), parallel: Some(2) },
        max_budget: Money::parse("1"),
        base: Base::default(),
        resets: None,
    }
}

#[test]
fn what_clients_see_follows_from_the_fault() {
    let viewer = KeyRecord { role: Role::ProxyAdminViewer, ..KeyRecord::default() };
    let limit = |why| refusals::limit(&rule(MeterKind::Key), why, None, 1_000);
    #[rustfmt::skip]
    let rows: Vec<(Error, &str)> = vec![
        // The request.
        (Error::bad_request("m"), "400 invalid_request_error None 400 | invalid_request_error | invalid_request_error | invalid_request_error |"),
        (Error::bad_request("m").with_param("model"), "400 invalid_request_error model 400 | invalid_request_error | invalid_request_error | invalid_request_error |"),
        (Error::of(RequestFault::UnknownModel, "m"), "400 None None 400 | None | invalid_request_error | ProxyException |"),
        (Error::of(RequestFault::BadRequest, "m").with_param("content-length"), "400 bad_request_error content-length 400 | bad_request_error | invalid_request_error | bad_request_error |"),
        (Error::of(RequestFault::Forbidden, "m").with_param("mock_response"), "403 invalid_request_error mock_response 403 | invalid_request_error | permission_error | invalid_request_error |"),
        (Error::of(RequestFault::NotFound, "m"), "404 invalid_request_error None 404 | invalid_request_error | not_found_error | invalid_request_error |"),
        (Error::of(RequestFault::Method("GET".into()), "m"), "405 invalid_request_error None 405 | invalid_request_error | invalid_request_error | invalid_request_error | allow=GET, OPTIONS"),
        (Error::of(RequestFault::TooSlow, "m"), "408 invalid_request_error None 408 | invalid_request_error | timeout_error | invalid_request_error |"),
        (Error::of(RequestFault::TooLarge, "m").with_param("messages"), "413 invalid_request_error messages 413 | invalid_request_error | request_too_large | invalid_request_error |"),
        (Error::of(RequestFault::Unreadable(ErrorStatus::new(431).unwrap()), "m"), "431 invalid_request_error None 431 | invalid_request_error | invalid_request_error | invalid_request_error |"),
        (refusals::no_param("user"), "400 invalid_request_error user 400 | invalid_request_error | invalid_request_error | invalid_request_error |"),
        (refusals::no_ledger(), "400 no_db_connection null 400 | no_db_connection | invalid_request_error | no_db_connection |"),
        (Error::of(RequestFault::UnsupportedParams, "m"), "400 invalid_request_error None 400 | invalid_request_error | invalid_request_error | UnsupportedParamsError |"),
        (Error::of(RequestFault::Foreseen(Class::UnsupportedParams), "m"), "400 null None 400 | None | invalid_request_error | UnsupportedParamsError |"),
        (Error::of(RequestFault::Foreseen(Class::ContextWindowExceeded), "m"), "400 null None 400 | None | invalid_request_error | ContextWindowExceededError |"),
        // The key.
        (Error::auth("m"), "401 auth_error None 401 | auth_error | authentication_error | auth_error |"),
        (refusals::model(ModelOwner::Key, &[], "m"), "401 key_model_access_denied model 401 | key_model_access_denied | authentication_error | key_model_access_denied |"),
        (refusals::model(ModelOwner::Team, &[], "m"), "401 team_model_access_denied model 401 | team_model_access_denied | authentication_error | team_model_access_denied |"),
        (refusals::model(ModelOwner::User, &[], "m"), "401 user_model_access_denied model 401 | user_model_access_denied | authentication_error | user_model_access_denied |"),
        (refusals::model(ModelOwner::Organization, &[], "m"), "401 org_model_access_denied model 401 | org_model_access_denied | authentication_error | org_model_access_denied |"),
        (refusals::no_default_models("m"), "401 key_model_access_denied model 401 | key_model_access_denied | authentication_error | key_model_access_denied |"),
        (refusals::expired(&KeyRecord::default(), 0, 1), "400 expired_key sk-... 400 | expired_key | invalid_request_error | expired_key |"),
        (refusals::address("192.0.2.1"), "403 auth_error None 403 | auth_error | permission_error | auth_error |"),
        (refusals::role(&viewer, "/p"), "403 auth_error None 403 | auth_error | permission_error | auth_error |"),
        (access::rejection(b"sk-1234567890", "hash"), "401 token_not_found_in_db key 401 | token_not_found_in_db | authentication_error | token_not_found_in_db |"),
        (Error::of(RequestFault::Tags, "m"), "401 None None 401 | None | authentication_error | ProxyException |"),
        // A limit.
        (limit(Why::Budget { spend: Money::ZERO, held: Money::ZERO }), "400 budget_exceeded null 400 | budget_exceeded | invalid_request_error | budget_exceeded |"),
        (limit(Why::Requests { resets_at_ms: 9_500 }), "429 None None 429 | None | rate_limit_error | ProxyException | retry-after=9 rate_limit_type=requests reset_at=1970-01-01 00:00:10 UTC"),
        (limit(Why::Tokens { resets_at_ms: 9_500 }), "429 None None 429 | None | rate_limit_error | ProxyException | retry-after=9 rate_limit_type=tokens reset_at=1970-01-01 00:00:10 UTC"),
        (limit(Why::Parallel), "429 None None 429 | None | rate_limit_error | ProxyException | retry-after=1 rate_limit_type=max_parallel_requests reset_at=1970-01-01 00:00:02 UTC"),
        (routing::none_available("m", Some(9_500), 1_000), "429 null None 429 | None | rate_limit_error | RateLimitError | retry-after=9"),
        (routing::rate_limited("m".to_owned(), 9_500, 1_000), "429 throttling_error None 429 | throttling_error | rate_limit_error | RateLimitError | retry-after=9"),
        (routing::crossed_budget("m"), "429 null None 429 | None | rate_limit_error | RateLimitError |"),
        // Ourselves.
        (Error::internal("m"), "500 internal_server_error None 500 | internal_server_error | api_error | internal_server_error |"),
        (limit(Why::Full), "503 service_unavailable None 503 | service_unavailable | overloaded_error | service_unavailable | retry-after=60"),
        (Error::unavailable("m"), "503 service_unavailable None 503 | service_unavailable | overloaded_error | service_unavailable |"),
    ];
    for (error, expected) in rows {
        assert_eq!(seen(&error), expected, "{}", error.message);
    }
}

#[test]
fn what_clients_see_of_a_provider_follows_from_its_class() {
    #[rustfmt::skip]
    let rows = [
        (Class::BadRequest, "400 null None 400 | None | invalid_request_error | BadRequestError |"),
        (Class::ContextWindowExceeded, "400 null None 400 | None | invalid_request_error | ContextWindowExceededError |"),
        (Class::ContentPolicyViolation, "400 null None 400 | None | invalid_request_error | ContentPolicyViolationError |"),
        (Class::UnsupportedParams, "400 null None 400 | None | invalid_request_error | UnsupportedParamsError |"),
        (Class::Authentication, "401 null None 401 | None | authentication_error | AuthenticationError |"),
        (Class::PermissionDenied, "403 null None 403 | None | permission_error | PermissionDeniedError |"),
        (Class::NotFound, "404 null None 404 | None | not_found_error | NotFoundError |"),
        (Class::Timeout, "408 null None 408 | None | timeout_error | Timeout |"),
        (Class::UnprocessableEntity, "422 null None 422 | None | invalid_request_error | UnprocessableEntityError |"),
        (Class::RateLimit, "429 throttling_error None 429 | throttling_error | rate_limit_error | RateLimitError |"),
        (Class::InternalServer, "500 null None 500 | None | api_error | InternalServerError |"),
        (Class::ApiConnection, "500 null None 500 | None | api_error | APIConnectionError |"),
        (Class::ServiceUnavailable, "503 null None 503 | None | overloaded_error | ServiceUnavailableError |"),
        (Class::Api, "500 null None 500 | None | api_error | APIError |"),
    ];
    for (class, expected) in rows {
        assert_eq!(seen(&Error::provider(class, "m")), expected, "{class:?}");
        assert_eq!(seen(&Error::quoted(class, "m")), expected, "{class:?}");
    }
}
