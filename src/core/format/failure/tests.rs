//! What is read of failures, wherever they stand.

use serde_json::json;

use super::*;
use crate::core::{
    error::Fault,
    format::{
        FORMATS, chat, completions, messages, pipeline::Pipeline, response::ResponseIds, translate::Back,
    },
    model::terms::Terms,
};

#[test]
fn classes_by_status_and_words() {
    let rows = [
        (
            400,
            r#"{"error":{"code":"context_length_exceeded","message":"This model's maximum context length is 4097 tokens"}}"#,
            Class::ContextWindowExceeded,
        ),
        (400, r#"{"error":{"code":"content_filter","message":"filtered"}}"#, Class::ContentPolicyViolation),
        (
            400,
            r#"{"error":{"type":"invalid_request_error","code":"content_policy_violation"}}"#,
            Class::ContentPolicyViolation,
        ),
        (400, r#"{"error":{"message":"bad"}}"#, Class::BadRequest),
        (422, "{}", Class::BadRequest),
        (502, "", Class::Api),
        (401, "", Class::Authentication),
        (403, "", Class::PermissionDenied),
        (404, "", Class::NotFound),
        (408, "", Class::Timeout),
        (504, "", Class::Timeout),
        (429, "", Class::RateLimit),
        (500, "Service tier capacity exceeded", Class::RateLimit),
        (500, "", Class::InternalServer),
        (503, "", Class::ServiceUnavailable),
        (418, "", Class::Api),
    ];
    for (status, body, expected) in rows {
        assert_eq!(Class::of(&said(Status::new(status), body.as_bytes())), expected, "{status} {body}");
    }
}

#[test]
fn words_are_found_in_every_common_shape() {
    for (body, words) in [
        (r#"{"error":{"message":"a"}}"#, "a"),
        (r#"{"error":"b"}"#, "b"),
        (r#"[{"error":{"message":"e"}}]"#, "e"),
        (r#"{"error":null,"message":"f"}"#, "f"),
        (r#"{"detail":"c"}"#, "c"),
        (r#"{"message":"d"}"#, "d"),
        ("plain", "plain"),
        ("\u{fffd}", "\u{fffd}"),
    ] {
        assert_eq!(message(body.as_bytes()), words, "{body}");
    }
    assert_eq!(message(&[b'x'; 9_000]).len(), 2_000);
}

#[test]
fn waits_are_read_from_headers() {
    for (name, value, ms) in [
        ("retry-after", "2", Some(2_000)),
        ("retry-after-ms", "150", Some(150)),
        ("retry-after", "-1", None),
        ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT", Some(8_500)),
        ("retry-after", "Wed, 21 Oct 2026 07:27:51 GMT", None),
        ("retry-after", "Fri, 23 Oct 2026 07:28:00 GMT", None),
        ("retry-after", "tomorrow", None),
        ("retry-after", "1e300", None),
        ("retry-after", "NaN", None),
    ] {
        let headers = Headers::from_pairs(&[(name, value)]);
        assert_eq!(retry_after(&headers, 1_792_567_671_500), ms, "{name}: {value}");
    }
}

#[test]
fn http_dates() {
    for (date, seconds) in [
        ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
        ("Tue, 29 Feb 2000 23:59:59 GMT", Some(951_868_799)),
        ("Wed, 01 Mar 2000 00:00:00 GMT", Some(951_868_800)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", None),
        ("Sun Nov  6 08:49:37 1994", None),
        ("Sun, 06 Nov 1994 08:49:37", None),
        ("Sun, 06 Nov 1994 24:00:00 GMT", None),
        ("Sun, +6 Nov 1994 08:49:37 GMT", None),
        ("Sun, 00 Nov 1994 08:49 GMT", None),
        ("Sun, 06 Nov 99999999999999999999 08:49:37 GMT", None),
        (", GMT", None),
        ("", None),
    ] {
        assert_eq!(unix_seconds(date), seconds, "{date}");
    }
}

/// The class of a failed response, of each format.
fn in_the_head(status: u16, body: &Value) -> Vec<Class> {
    let class = |format: &Ref| {
        read(*format, Status::new(status), &Headers::default(), body.to_string().as_bytes(), 0).class
    };
    FORMATS.iter().map(class).collect()
}

/// The class of the same object where it comes as an event, each format's, and as a buffered body.
fn in_the_body(body: &Value) -> Vec<Class> {
    let events = FORMATS.iter().map(|format| format.read_error(body).unwrap());
    let ids = ResponseIds::default();
    let event = format!("data: {body}\n\n");
    let passed = [&chat::Format as Ref, &completions::Format, &messages::Format].map(|format| {
        let mut pipeline = Pipeline::new(Back::passing(format, false), Terms::default(), &ids);
        pipeline.chunk(event.as_bytes(), &mut Vec::new()).unwrap_err()
    });
    let buffered = chat::response::failure_in(body).unwrap();
    events.chain(passed).chain([buffered]).map(|error| error.class().unwrap()).collect()
}

#[test]
fn a_number_means_the_same_in_the_head_and_in_the_body() {
    for status in [400, 401, 402, 403, 404, 405, 408, 409, 413, 418, 422, 429, 500, 502, 503, 504] {
        let [plain, number, text] = [json!(null), json!(status), json!(status.to_string())]
            .map(|code| json!({"type": "error", "error": {"message": "m", "code": code}}));
        let expected = in_the_head(status, &plain)[0];
        for body in [number, text] {
            let classes = [in_the_head(status, &body), in_the_body(&body)].concat();
            assert!(classes.iter().all(|class| *class == expected), "{status} {expected:?}: {classes:?}");
        }
    }
}

#[test]
fn words_mean_the_same_in_the_head_and_in_the_body() {
    #[rustfmt::skip]
    let rows = [
        (400, json!({"code": "context_length_exceeded", "type": "invalid_request_error"}), Class::ContextWindowExceeded),
        (400, json!({"message": "This model's maximum context length is 4097 tokens"}), Class::ContextWindowExceeded),
        (413, json!({"type": "request_too_large"}), Class::ContextWindowExceeded),
        (400, json!({"code": "content_filter"}), Class::ContentPolicyViolation),
        (400, json!({"message": "Output blocked by content filtering policy"}), Class::ContentPolicyViolation),
        (400, json!({"type": "invalid_request_error"}), Class::BadRequest),
        (400, json!({"status": "INVALID_ARGUMENT"}), Class::BadRequest),
        (401, json!({"type": "authentication_error"}), Class::Authentication),
        (401, json!({"code": "invalid_api_key", "type": "invalid_request_error"}), Class::Authentication),
        (403, json!({"type": "permission_error"}), Class::PermissionDenied),
        (404, json!({"type": "not_found_error"}), Class::NotFound),
        (404, json!({"code": "model_not_found", "type": "invalid_request_error"}), Class::NotFound),
        (408, json!({"type": "timeout_error"}), Class::Timeout),
        (429, json!({"type": "rate_limit_error"}), Class::RateLimit),
        (429, json!({"code": "rate_limit_exceeded", "type": "tokens"}), Class::RateLimit),
        (429, json!({"code": "insufficient_quota"}), Class::RateLimit),
        (429, json!({"status": "RESOURCE_EXHAUSTED"}), Class::RateLimit),
        (500, json!({"type": "api_error"}), Class::InternalServer),
        (500, json!({"type": "server_error"}), Class::InternalServer),
        (500, json!({}), Class::InternalServer),
        (503, json!({"status": "UNAVAILABLE"}), Class::ServiceUnavailable),
        (529, json!({"type": "overloaded_error"}), Class::InternalServer),
        (503, json!({"type": "overloaded_error"}), Class::InternalServer),
    ];
    for (status, mut error, expected) in rows {
        if error.get("message").is_none() {
            error["message"] = "m".into();
        }
        let mut body = json!({"type": "error", "error": error});
        let mut classes = [in_the_head(status, &body), in_the_body(&body)].concat();
        if error.get("code").is_none() {
            body["error"]["code"] = status.into();
            classes.extend(in_the_body(&body).into_iter().filter(|_| status != 529));
        }
        assert!(classes.iter().all(|class| *class == expected), "{status} {error} {expected:?}: {classes:?}");
    }
}

#[test]
fn a_failure_in_the_body_keeps_its_status_and_code() {
    for (body, status, code) in [
        (json!({"error": {"message": "pay", "code": 402}}), 402, None),
        (json!({"error": {"message": "slow", "code": "429"}}), 429, None),
        (
            json!({"error": {"message": "no", "type": "insufficient_quota", "code": 429}}),
            429,
            Some("insufficient_quota"),
        ),
        (json!({"error": "down", "http_status_code": 503}), 503, None),
        (json!({"error": {"message": "m", "code": 1301}}), 500, None),
        (json!({"error": {"message": "m", "code": 200}}), 500, None),
    ] {
        let error = reported_in(&body).unwrap();
        assert_eq!(error.status(), status, "{body}");
        let Fault::Provider(fault) = error.fault else { panic!("{body}") };
        assert_eq!(fault.words, Words::Theirs { code: code.map(str::to_owned) }, "{body}");
    }
    assert_eq!(reported_in(&json!({"error": null, "choices": []})), None);
}

#[test]
fn only_anthropic_means_overloaded_by_529() {
    for format in FORMATS {
        let class = read(*format, Status::new(529), &Headers::default(), b"<html>", 0).class;
        let expected = if [messages::NAME, messages::count::NAME].contains(&format.name()) {
            Class::InternalServer
        } else {
            Class::Api
        };
        assert_eq!(class, expected, "{format:?}");
    }
}
