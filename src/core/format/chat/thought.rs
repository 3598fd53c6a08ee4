//! What a model thought, where chat has no member for it: between tags before the answer, and as a signature in the id of a call.

use serde_json::{Map, Value};

use crate::core::codec::{scan::THOUGHT, value::object};

/// The tags between which thoughts stand, as LiteLLM knows them.
const TAGS: [&str; 3] = ["think>", "thinking>", "budget:thinking>"];

/// What Google takes for a signature of calls that it has not made itself: `skip_thought_signature_validator`, in base64.
pub const NO_SIGNATURE: &str = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I=";

/// Whether a model of Google's refuses a conversation whose calls are not signed: all since Gemini 3. The names are LiteLLM's.
pub fn must_be_signed(model: &str) -> bool {
    let Some(name) = model.strip_prefix("gemini-") else { return !model.starts_with("gemma-") };
    let is_latest = name.ends_with("-latest");
    let (family, _) = name.split_once('-').unwrap_or((name, ""));
    match family {
        "exp" => false,
        "pro" | "flash" => is_latest,
        family => !family.starts_with(['1', '2']),
    }
}

/// The thoughts that a text begins with, and what it says after them. Each of the tags may close what another has opened.
pub fn split(text: &str) -> Option<(&str, &str)> {
    let tag = |rest: &str| TAGS.iter().find(|tag| rest.starts_with(**tag)).map(|tag| tag.len());
    let rest = text.strip_prefix('<')?;
    let rest = rest.get(tag(rest)?..)?;
    rest.match_indices("</").find_map(|(at, closing)| {
        let end = rest.get(at + closing.len()..)?;
        Some((rest.get(..at)?, end.get(tag(end)?..)?))
    })
}

/// Moves the thoughts that a message's text begins with into `reasoning_content`, if it has none.
pub fn split_in(message: &mut Map<String, Value>) {
    let has = |name: &str| message.get(name).is_some_and(|value| !value.is_null());
    if has("reasoning_content") || has("reasoning") {
        return;
    }
    if let Some(Value::String(text)) = message.get("content")
        && let Some((thoughts, said)) = split(text)
    {
        let (thoughts, said) = (Value::from(thoughts), Value::from(said));
        message.insert("content".into(), said);
        message.insert("reasoning_content".into(), thoughts);
    }
}

/// The signature of the thought behind a call, which Gemini wants back with it.
pub fn signature(call: &Value) -> Option<&str> {
    signature_in(call.get("extra_content")?)
}

/// The signature in the `extra_content` of a call.
pub fn signature_in(extra_content: &Value) -> Option<&str> {
    extra_content.pointer("/google/thought_signature")?.as_str()
}

/// Where a call has its signature.
pub fn extra_content(signature: &str) -> Value {
    object! {"google": object! {"thought_signature": signature}}
}

/// A call's id with a signature in it: most clients keep nothing else of a call that OpenAI's API does not have.
pub fn with_signature(id: &str, signature: &str) -> String {
    format!("{id}{THOUGHT}{signature}")
}

/// A call's own id, and the signature that it carries.
pub fn without_signature(id: &str) -> (&str, Option<&str>) {
    match id.split_once(THOUGHT) {
        Some((own, signature)) => (own, Some(signature)),
        None => (id, None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn thoughts_stand_between_tags_at_the_beginning() {
        let rows = [
            ("<think>th</think>x", Some(("th", "x"))),
            ("<thinking>th</thinking>x", Some(("th", "x"))),
            ("<budget:thinking>th</budget:thinking>x", Some(("th", "x"))),
            ("<think>th</thinking>x", Some(("th", "x"))),
            ("<think>\na </b> b\n</think>\n\nx</think>", Some(("\na </b> b\n", "\n\nx</think>"))),
            ("<think></think>", Some(("", ""))),
            ("<think>th", None),
            (" <think>th</think>x", None),
            ("x<think>th</think>", None),
            ("<thinker>th</think>", None),
            ("<", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(split(text), expected, "{text}");
        }
    }

    #[test]
    fn models_that_want_signatures() {
        for model in [
            "gemini-3-pro-preview",
            "gemini-3.5-flash",
            "gemini-flash-latest",
            "gemini-flash-lite-latest",
            "nano",
        ] {
            assert!(must_be_signed(model), "{model}");
        }
        for model in [
            "gemini-2.5-pro",
            "gemini-1.5-flash",
            "gemini-exp-1206",
            "gemini-pro",
            "gemini-pro-vision",
            "gemma-3-27b",
        ] {
            assert!(!must_be_signed(model), "{model}");
        }
    }

    #[test]
    fn thoughts_that_have_a_member_stay_there() {
        let rows = [
            (json!({"content": "<think>th</think>x"}), json!({"content": "x", "reasoning_content": "th"})),
            (
                json!({"content": "<think>th</think>x", "reasoning_content": null}),
                json!({"content": "x", "reasoning_content": "th"}),
            ),
            (
                json!({"content": "<think>th</think>x", "reasoning_content": "a"}),
                json!({"content": "<think>th</think>x", "reasoning_content": "a"}),
            ),
            (json!({"content": null}), json!({"content": null})),
        ];
        for (mut message, expected) in rows {
            split_in(message.as_object_mut().unwrap());
            assert_eq!(message, expected);
        }
    }

    #[test]
    fn a_signature_comes_back_out_of_an_id_as_it_was() {
        for signature in ["Ab==", "a+b/c9==", "a-b_c", ""] {
            let id = with_signature("call_1", signature);
            assert_eq!(without_signature(&id), ("call_1", Some(signature)));
        }
        assert_eq!(without_signature("call_1"), ("call_1", None));
    }
}
