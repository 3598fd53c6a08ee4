//! OpenAI embeddings: one format on both sides, never translated.

use super::{
    params::{HOW_TO_DROP, is_idle},
    prepare::{Facts, Prepare},
};
use crate::core::{codec::json::Object, error::Error, model::params::Params};

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
}
