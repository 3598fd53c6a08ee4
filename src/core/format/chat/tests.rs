//! What the pivot may hold besides OpenAI's own.

use serde_json::{Value, json};

use super::{
    super::{FORMATS, named, of},
    *,
};
use crate::core::{operation::APIS, provider::BRANDS};

/// A chat request with each of the extensions in it.
fn extended() -> Map<String, Value> {
    let chat = json!({
        "model": "m", "max_tokens": 5, "top_k": 40,
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "Look", "cache_control": {"type": "ephemeral"}},
                {"type": "file", "file": {"file_id": "https://files.test/a.pdf"}},
            ]},
            {"role": "assistant", "content": "Yes", "reasoning_content": "Hm",
             "thinking_blocks": [{"type": "thinking", "thinking": "Hm", "signature": "s"}]},
            {"role": "user", "content": "And?"},
        ],
    });
    chat.as_object().cloned().unwrap()
}

#[test]
fn whoever_writes_a_request_keeps_refuses_or_leaves_out_what_is_not_openais() {
    for format in FORMATS {
        let context = Context { model: "m", brand: "openai", drop_params: true, ..Context::default() };
        let Ok(written) = format.write_request(extended(), &context) else { continue };
        let body = Value::Object(written.body).to_string();
        // Anthropic's own words go to Anthropic only.
        for member in ["thinking_blocks", "reasoning_content"] {
            assert!(!body.contains(member), "{format:?}: {body}");
        }
        let has_thinking = ["messages", "ollama"].contains(&format.name());
        assert_eq!(body.contains("\"thinking\""), has_thinking, "{format:?}: {body}");
        assert_eq!(body.contains("top_k"), format.name() != "chat", "{format:?}: {body}");
    }
}

#[test]
fn each_extension_is_listed_once_and_says_what_it_means() {
    for (at, extension) in EXTENSIONS.iter().enumerate() {
        assert!(!extension.means.is_empty() && extension.at.contains(['_', '.']), "{extension:?}");
        assert!(EXTENSIONS.iter().skip(at + 1).all(|other| other.at != extension.at), "{extension:?} twice");
    }
}

#[test]
fn rows_of_brands_name_formats_that_there_are() {
    for brand in BRANDS {
        for name in [brand.speaks, brand.with_template, brand.embeds, brand.counts].into_iter().flatten() {
            assert!(named(name).is_some(), "{} names `{name}`", brand.name);
        }
    }
    for (at, format) in FORMATS.iter().enumerate() {
        assert_eq!(FORMATS.iter().position(|other| other == format), Some(at), "{format:?} twice");
    }
}

#[test]
fn a_client_reads_errors_in_its_own_format() {
    for api in APIS {
        assert_eq!(of(api).error_format(), api.error_format, "{api:?}");
    }
}
