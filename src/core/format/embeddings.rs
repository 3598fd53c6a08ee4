//! OpenAI embeddings: one format on both sides, never translated.

use serde_json::Value;

use super::{
    params::{HOW_TO_DROP, is_idle},
    prepare::{Facts, Prepare},
};
use crate::core::{
    codec::json::Object,
    error::Error,
    model::{brand::Brand, params::Params},
};

/// The parameters that not everybody takes.
const CHECKED: [&str; 3] = ["user", "encoding_format", "dimensions"];

/// Brands whose refusal LiteLLM words in its older way.
const WORDED_OTHERWISE: [&str; 7] = [
    "anthropic",
    "custom_openai",
    "huggingface",
    "ollama",
    "ollama_chat",
    "openai_like",
    "text-completion-openai",
];

/// LiteLLM's words.
fn refusal(list: &str, brand: &str, model: &str) -> String {
    const HOW: &str = "To drop it from the call, set `litellm.drop_params = True`.";
    match brand {
        "openai" => {
            format!(
                "Setting dimensions is not supported for OpenAI `text-embedding-3` and later models. {HOW}"
            )
        }
        brand if WORDED_OTHERWISE.contains(&brand) => {
            format!("Setting {{{list}}} is not supported by {brand}. {HOW}")
        }
        _ => format!("{brand} does not support parameters: {{{list}}}, for model={model}. {HOW_TO_DROP}"),
    }
}

/// What rows of brands call it.
pub const NAME: &str = "embeddings";

/// The format.
pub struct Format;

impl super::Format for Format {
    fn name(&self) -> &'static str {
        NAME
    }

    fn path(&self) -> &'static str {
        "/embeddings"
    }

    fn takes_default(&self, member: &str) -> bool {
        !Params::named(member).has(Params::CHAT) || CHECKED.contains(&member)
    }

    fn fit(&self, body: &mut Object<'_>, p: &Prepare<'_>, facts: &mut Facts) -> Result<(), Error> {
        takes_input(body, p.deployment.brand)?;
        let taking = p.taking(facts);
        let mut refused = Vec::new();
        for name in CHECKED {
            if taking.accepts.embeddings.has(Params::named(name)) || taking.is_allowed(name) {
                continue;
            }
            if let Some(raw) = body.remove(name).filter(|raw| !is_idle(name, raw)) {
                refused.push(format!("'{name}': {raw}"));
            }
        }
        if !refused.is_empty() {
            taking.refuse_value(|| refusal(&refused.join(", "), taking.brand, taking.model))?;
        }
        if p.deployment.brand.name == "voyage"
            && let Some(raw) = body.remove("dimensions")
        {
            body.set("output_dimension", raw);
        }
        Ok(())
    }

    fn has_texts(&self) -> bool {
        false
    }

    fn answer(&self) -> (&'static str, fn(&Value) -> bool) {
        ("data", Value::is_array)
    }
}

/// Refuses tokens for a brand that takes texts alone.
fn takes_input(body: &Object<'_>, brand: &Brand) -> Result<(), Error> {
    if brand.quirks.takes_tokens || !body.raw("input").is_some_and(is_tokens) {
        return Ok(());
    }
    Err(Error::bad_request(format!(
        "`input` is a list of tokens, which {} does not take: expected texts. LangChain's OpenAIEmbeddings sends texts with \
         `check_embedding_ctx_length=False`; a gateway with its ledger makes texts of tokens by itself.",
        brand.name
    ))
    .with_param("input"))
}

/// Whether an `input` is a list of tokens, or a list of such lists.
pub fn is_tokens(input: &str) -> bool {
    fn inside(list: &str) -> Option<&str> {
        list.trim_start().strip_prefix('[').map(str::trim_start)
    }
    let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    inside(input).is_some_and(|first| is_number(first) || inside(first).is_some_and(is_number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_told_from_texts() {
        for tokens in ["[15339,1917]", "[[15339,1917]]", " [ [ 1 ] , \"x\" ]", "[0]"] {
            assert!(is_tokens(tokens), "{tokens}");
        }
        for other in
            ["\"hello\"", "[\"hello\"]", "[]", "[[]]", "[[\"1\"]]", "1", "[[[1]]]", "null", "{}", "[-1]", ""]
        {
            assert!(!is_tokens(other), "{other}");
        }
    }
}
