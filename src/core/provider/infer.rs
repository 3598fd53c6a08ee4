//! Which brand serves a model name: LiteLLM's rules, with name patterns where it looks into its price list.

use super::{brands, params};
use crate::core::model::{brand::Brand, deployment::Deployment};

/// The brand of `model` and the model without the brand's prefix.
///
/// A forced provider wins, then the prefix of the name, then a known host in `api_base`, then names that only one
/// provider has. The error is LiteLLM's text for the caller.
pub fn infer(
    model: &str,
    custom_llm_provider: Option<&str>,
    api_base: Option<&str>,
) -> Result<(&'static Brand, String), String> {
    if let Some(name) = custom_llm_provider {
        let brand = brands::brand(name).ok_or_else(|| {
            format!("custom_llm_provider `{name}` is not a provider. Use the name of one, for example openai")
        })?;
        let rest = model.strip_prefix(name).and_then(|rest| rest.strip_prefix('/')).unwrap_or(model);
        return Ok((brand, rest.to_owned()));
    }
    if let Some((prefix, rest)) = model.split_once('/')
        && let Some(brand) = brands::brand(prefix)
        && !rest.is_empty()
    {
        return Ok((served_elsewhere(brand, rest).unwrap_or(brand), rest.to_owned()));
    }
    let by_host = api_base.and_then(|base| {
        brands::BRANDS.iter().find(|brand| brand.hosts.iter().any(|host| base.contains(host)))
    });
    let by_name = || name_of(model).and_then(brands::brand);
    match by_host.or_else(by_name) {
        Some(brand) => Ok((brand, model.to_owned())),
        None => Err(format!(
            "LLM Provider NOT provided. Pass in the LLM provider you are trying to call. You passed model={model}. \
             Put the provider in front of the model, for example `openai/{model}`"
        )),
    }
}

impl Deployment {
    /// The model to ask the provider for: captures of the requested name's wildcard fill the `*`s left to right; more
    /// captures than `*`s means the whole requested name (without the brand's prefix); no `*` at all means the model as
    /// written (LiteLLM's rule). A variant of a bare `*` asks for the name without its provider. Called by its id, a
    /// deployment whose model holds `*` asks for its `health_check_model`.
    pub fn model_for(&self, requested: &str, captures: &[&str]) -> String {
        if let Some(model) = self.health_check_model.as_ref().filter(|_| requested == self.id)
            && self.has_any_model()
        {
            return model.clone();
        }
        if self.only_inferred {
            return infer(requested, None, None).map_or_else(|_| requested.to_owned(), |(_, rest)| rest);
        }
        let holes = self.model.matches('*').count();
        if holes == 0 {
            return self.model.clone();
        }
        if captures.len() > holes {
            let rest = requested.strip_prefix(self.brand.name).and_then(|rest| rest.strip_prefix('/'));
            return rest.unwrap_or(requested).to_owned();
        }
        let mut captures = captures.iter();
        let mut model = String::with_capacity(self.model.len() + requested.len());
        for (at, part) in self.model.split('*').enumerate() {
            if at > 0 {
                model.push_str(captures.next().copied().unwrap_or("*"));
            }
            model.push_str(part);
        }
        model
    }
}

/// Models that a prefix names but another brand's format serves: OpenAI's completion-only models, and models of other
/// makers behind Azure's OpenAI-compatible endpoints.
fn served_elsewhere(brand: &Brand, model: &str) -> Option<&'static Brand> {
    const FOREIGN_ON_AZURE: [&str; 7] = [
        "mistral-large",
        "mistral-medium",
        "mistral-small",
        "mistral-tiny",
        "open-mistral",
        "open-mixtral",
        "command-r",
    ];
    match brand.name {
        "openai" if is_completion_model(model) => brands::brand("text-completion-openai"),
        "azure" if FOREIGN_ON_AZURE.iter().any(|prefix| model.starts_with(prefix)) => brands::brand("openai"),
        "ai21" if model.starts_with("jamba") => brands::brand("ai21_chat"),
        _ => None,
    }
}

/// The provider of a name without prefix, by what only that provider's names look like.
fn name_of(model: &str) -> Option<&'static str> {
    const PREFIXES: &[(&str, &str)] = &[
        ("gpt-", "openai"),
        ("chatgpt-", "openai"),
        ("codex-", "openai"),
        ("computer-use-preview", "openai"),
        ("text-embedding-", "openai"),
        ("text-moderation-", "openai"),
        ("omni-moderation-", "openai"),
        ("dall-e-", "openai"),
        ("whisper-", "openai"),
        ("tts-", "openai"),
        ("ft:gpt-", "openai"),
        ("ft:o", "openai"),
        ("claude-", "anthropic"),
        ("command-", "cohere_chat"),
        ("embed-english-", "cohere"),
        ("embed-multilingual-", "cohere"),
        ("gemini-", "vertex_ai"),
        ("chat-bison", "vertex_ai"),
        ("text-bison", "vertex_ai"),
        ("jamba-", "ai21_chat"),
        ("j2-", "ai21"),
    ];
    if model == "*" {
        return Some("openai");
    }
    if is_completion_model(model)
        || model.starts_with("ft:davinci-002")
        || model.starts_with("ft:babbage-002")
    {
        return Some("text-completion-openai");
    }
    if params::is_o_series(model) || model == "command" {
        return Some(if model == "command" { "cohere_chat" } else { "openai" });
    }
    if is_bedrock(model) {
        return Some("bedrock");
    }
    if model.rsplit_once(':').is_some_and(|(_, v)| v.len() == 64 && v.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Some("replicate");
    }
    PREFIXES.iter().find(|(prefix, _)| model.starts_with(prefix)).map(|(_, name)| *name)
}

/// OpenAI's models that only `/completions` serves.
pub(super) fn is_completion_model(model: &str) -> bool {
    matches!(model, "davinci-002" | "babbage-002") || model.starts_with("gpt-3.5-turbo-instruct")
}

/// Bedrock ids are `maker.model`, maybe behind a region (`us.`).
fn is_bedrock(model: &str) -> bool {
    const MAKERS: [&str; 11] = [
        "ai21.",
        "amazon.",
        "anthropic.",
        "cohere.",
        "deepseek.",
        "luma.",
        "meta.",
        "mistral.",
        "openai.",
        "stability.",
        "writer.",
    ];
    const REGIONS: [&str; 6] = ["us.", "eu.", "apac.", "us-gov.", "ca.", "global."];
    let id = REGIONS.iter().find_map(|region| model.strip_prefix(region)).unwrap_or(model);
    MAKERS.iter().any(|maker| id.starts_with(maker))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_in_order() {
        // Model, custom_llm_provider, api_base; brand, what is left of the model.
        type Row = (&'static str, Option<&'static str>, Option<&'static str>, &'static str, &'static str);
        let rows: &[Row] = &[
            ("groq/llama-3", None, None, "groq", "llama-3"),
            ("huggingface/bigcode/starcoder", None, None, "huggingface", "bigcode/starcoder"),
            ("openai/openai/gpt-oss", None, None, "openai", "openai/gpt-oss"),
            ("llama", Some("openai"), None, "openai", "llama"),
            ("groq/llama", Some("groq"), None, "groq", "llama"),
            ("groq/llama", Some("openai"), None, "openai", "groq/llama"),
            ("llama", None, Some("https://api.groq.com/openai/v1"), "groq", "llama"),
            ("gpt-4o", None, None, "openai", "gpt-4o"),
            ("gpt-4o", None, Some("http://localhost:9"), "openai", "gpt-4o"),
            ("ft:gpt-4o-mini:me::1", None, None, "openai", "ft:gpt-4o-mini:me::1"),
            ("o3-mini", None, None, "openai", "o3-mini"),
            ("dall-e-3", None, None, "openai", "dall-e-3"),
            ("gpt-3.5-turbo-instruct", None, None, "text-completion-openai", "gpt-3.5-turbo-instruct"),
            ("openai/gpt-3.5-turbo-instruct", None, None, "text-completion-openai", "gpt-3.5-turbo-instruct"),
            ("davinci-002", None, None, "text-completion-openai", "davinci-002"),
            ("claude-3-opus-20240229", None, None, "anthropic", "claude-3-opus-20240229"),
            ("claude-2", None, None, "anthropic", "claude-2"),
            ("command-r-plus", None, None, "cohere_chat", "command-r-plus"),
            ("gemini-1.5-pro", None, None, "vertex_ai", "gemini-1.5-pro"),
            ("gemini/gemini-1.5-pro", None, None, "gemini", "gemini-1.5-pro"),
            ("anthropic.claude-3-haiku-v1:0", None, None, "bedrock", "anthropic.claude-3-haiku-v1:0"),
            ("us.amazon.nova-pro-v1:0", None, None, "bedrock", "us.amazon.nova-pro-v1:0"),
            ("azure/mistral-large-latest", None, None, "openai", "mistral-large-latest"),
            ("azure/my-gpt", None, None, "azure", "my-gpt"),
            ("*", None, None, "openai", "*"),
            ("anthropic/*", None, None, "anthropic", "*"),
            ("sagemaker/x-4", None, None, "sagemaker", "x-4"),
        ];
        for (model, custom, base, name, rest) in rows {
            let (brand, model_left) = infer(model, *custom, *base).unwrap();
            assert_eq!((brand.name, model_left.as_str()), (*name, *rest), "{model}");
        }
    }

    #[test]
    fn what_nobody_serves() {
        assert!(infer("my-model", None, None).unwrap_err().starts_with("LLM Provider NOT provided."));
        assert!(infer("unknown/model", None, None).is_err());
        assert!(infer("groq/", None, None).is_err());
        assert!(infer("x", Some("nobody"), None).unwrap_err().contains("nobody"));
    }
}
