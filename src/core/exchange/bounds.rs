//! What a request may hold, looked at before any of it is made into a tree: a tree takes many times the bytes of its text, and
//! the memory of a worker is everybody's.
//!
//! Members that are the gateway's own, or are settings by nature, are small. What is left (messages, prompts, tools) may be as
//! long as the body may be, but of a limited number of values. So no request makes the core hold more than
//! [`MOST_TIMES`] times its body, or [`LEAST_BOUND`] when that is more.

use crate::core::{
    codec::json::{MOST_VALUES, Object},
    error::{Error, RequestFault},
    format::prepare::OURS,
    operation::{Api, Operation},
};

/// How many times its body a request may make the core hold at once.
pub const MOST_TIMES: usize = 8;
/// What any request may make the core hold at once, in bytes.
pub const LEAST_BOUND: usize = 48 << 20;

/// The most bytes of a member that says something to the gateway, or how the model is to answer.
const SETTING: usize = 64 << 10;
/// The most bytes of a member in which whole requests or responses may stand.
const PART: usize = 256 << 10;

/// Members that providers read too and that are short by nature.
const SETTINGS: &[&str] = &[
    "dimensions",
    "encoding_format",
    "frequency_penalty",
    "function_call",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "modalities",
    "model",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
    "prompt_cache_key",
    "reasoning_effort",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "stop_sequences",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "thinking",
    "tool_choice",
    "top_k",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];

/// The names of all members that have a cap.
pub fn settings() -> impl Iterator<Item = &'static str> {
    let parts =
        ["fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "extra_body", "mock_response"];
    OURS.iter().chain(SETTINGS).copied().filter(move |name| !parts.contains(name)).chain(parts)
}

/// Refuses what is too large to be read.
pub fn check(body: &Object<'_>, api: &Api) -> Result<(), Error> {
    for (name, raw) in body.iter().filter(|(_, raw)| raw.len() > SETTING) {
        let Some(most) = most_bytes(name).filter(|most| raw.len() > *most) else { continue };
        let message =
            format!("`{name}` has {} bytes: expected at most {most}. Send a shorter one.", raw.len());
        return Err(Error::bad_request(message).with_param(name.to_owned()));
    }
    // Embeddings go to the provider as they are, and lists of tokens may be long.
    let untouched = if api.operation == Operation::Embed { body.values("input") } else { 0 };
    let values = body.all_values().saturating_sub(untouched);
    if values > MOST_VALUES {
        let message = format!(
            "the request body has {values} values (texts, numbers, lists, objects): expected at most {MOST_VALUES}. \
             Send fewer, longer ones, or several requests."
        );
        return Err(Error::of(RequestFault::TooLarge, message));
    }
    Ok(())
}

/// The most bytes that a member may have; `None` when the body's own limit is all there is.
fn most_bytes(name: &str) -> Option<usize> {
    match name {
        "fallbacks"
        | "context_window_fallbacks"
        | "content_policy_fallbacks"
        | "extra_body"
        | "mock_response" => Some(PART),
        _ if name.starts_with("mock_") || OURS.contains(&name) || SETTINGS.contains(&name) => Some(SETTING),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::operation::{CHAT, EMBEDDINGS};

    fn checked(body: &str, api: &Api) -> Result<(), Error> {
        check(&Object::parse(body.as_bytes()).unwrap(), api)
    }

    #[test]
    fn every_setting_has_a_cap_and_content_has_none() {
        let own = OURS.iter().chain(SETTINGS).copied().chain(["mock_tool_calls", "mock_testing_fallbacks"]);
        for name in own {
            let large = format!(r#"{{"{name}":"{}"}}"#, "x".repeat(PART));
            let error = checked(&large, &CHAT).unwrap_err();
            assert_eq!((error.status(), error.param.as_deref()), (400, Some(name)));
            assert!(error.message.contains("expected at most"), "{}", error.message);
            let small = format!(r#"{{"{name}":"{}"}}"#, "x".repeat(SETTING - 2));
            assert_eq!(checked(&small, &CHAT), Ok(()), "{name}");
        }
        for name in ["messages", "prompt", "input", "system", "tools", "response_format", "documents"] {
            let large = format!(r#"{{"{name}":"{}"}}"#, "x".repeat(PART));
            assert_eq!(checked(&large, &CHAT), Ok(()), "{name}");
        }
    }

    #[test]
    fn values_are_counted_wherever_they_stand() {
        let many = |filler: &str| format!("[{}]", vec![filler; MOST_VALUES / 2 + 10].join(","));
        for filler in ["[0]", r#"{"a":0}"#, r#"{"a":""}"#, "[[]]"] {
            for name in ["messages", "prompt", "whatever"] {
                let error = checked(&format!(r#"{{"{name}":{}}}"#, many(filler)), &CHAT).unwrap_err();
                assert_eq!(error.status(), 413, "{name} {filler}");
            }
        }
        let half = many("0");
        assert_eq!(checked(&format!(r#"{{"messages":{half}}}"#), &CHAT), Ok(()));
        assert!(checked(&format!(r#"{{"messages":{half},"tools":{half}}}"#), &CHAT).is_err());
        assert_eq!(checked(&format!(r#"{{"input":{}}}"#, many("[0]")), &EMBEDDINGS), Ok(()));
        assert!(checked(&format!(r#"{{"messages":{}}}"#, many("[0]")), &EMBEDDINGS).is_err());
        let text = ",[{".repeat(MOST_VALUES);
        assert_eq!(checked(&format!(r#"{{"messages":"{text}"}}"#), &CHAT), Ok(()), "text is no value");
    }
}
