//! The table of provider brands: one row each.

use super::params;
use crate::core::model::brand::{AuthScheme, Brand, Quirks, UrlScheme};

/// Every provider name that LiteLLM knows. A brand whose API is OpenAI's is one row and nothing else.
#[rustfmt::skip]
pub static BRANDS: &[Brand] = &[
    Brand { hosts: &["api.openai.com"], quirks: OPENAI, ..compatible("openai", "OpenAI", Some("https://api.openai.com/v1"), &["OPENAI_BASE_URL", "OPENAI_API_BASE"], &["OPENAI_API_KEY"]) },
    Brand { quirks: MAX_TOKENS, ..compatible("custom_openai", "Custom_openai", None, &[], &[]) },
    Brand { quirks: MAX_TOKENS, ..compatible("openai_like", "Openai_like", None, &["OPENAI_LIKE_API_BASE"], &["OPENAI_LIKE_API_KEY"]) },
    Brand { takes: params::GROQ, hosts: &["api.groq.com/openai/v1"], quirks: Quirks { no_cache_control: true, ..MAX_TOKENS }, ..compatible("groq", "Groq", Some("https://api.groq.com/openai/v1"), &["GROQ_API_BASE"], &["GROQ_API_KEY"]) },
    Brand { takes: params::MISTRAL, hosts: &["api.mistral.ai/v1"], append_v1: true, quirks: MISTRAL, ..compatible("mistral", "Mistral", Some("https://api.mistral.ai/v1"), &["MISTRAL_AZURE_API_BASE"], &["MISTRAL_AZURE_API_KEY", "MISTRAL_API_KEY"]) },
    Brand { takes: params::MISTRAL, hosts: &["codestral.mistral.ai/v1"], append_v1: true, quirks: MISTRAL, ..compatible("codestral", "Codestral", Some("https://codestral.mistral.ai/v1"), &["CODESTRAL_API_BASE"], &["CODESTRAL_API_KEY"]) },
    Brand { takes: params::THINKS, hosts: &["api.deepseek.com"], quirks: Quirks { no_cache_control: true, needs_reasoning: true, no_images: true, thinking_switch: true, ..THINKING }, ..compatible("deepseek", "Deepseek", Some("https://api.deepseek.com/beta"), &["DEEPSEEK_API_BASE"], &["DEEPSEEK_API_KEY"]) },
    Brand { hosts: &["api.together.xyz"], text_completions: true, quirks: MAX_TOKENS, ..compatible("together_ai", "Together_ai", Some("https://api.together.xyz/v1"), &["TOGETHER_AI_API_BASE"], &["TOGETHER_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHERAI_API_KEY", "TOGETHER_AI_TOKEN"]) },
    Brand { takes: params::FIREWORKS, hosts: &["api.fireworks.ai"], text_completions: true, quirks: MAX_TOKENS, ..compatible("fireworks_ai", "Fireworks_ai", Some("https://api.fireworks.ai/inference/v1"), &["FIREWORKS_API_BASE"], &["FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY", "FIREWORKSAI_API_KEY"]) },
    Brand { takes: params::PERPLEXITY, hosts: &["api.perplexity.ai"], tells_cost: true, quirks: Quirks { no_stream_options: true, ..MAX_TOKENS }, ..compatible("perplexity", "Perplexity", Some("https://api.perplexity.ai"), &["PERPLEXITY_API_BASE"], &["PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"]) },
    Brand { takes: params::DEEPINFRA, hosts: &["api.deepinfra.com/v1/openai"], quirks: FLAT, ..compatible("deepinfra", "Deepinfra", Some("https://api.deepinfra.com/v1/openai"), &["DEEPINFRA_API_BASE"], &["DEEPINFRA_API_KEY"]) },
    Brand { takes: params::ANYSCALE, hosts: &["api.endpoints.anyscale.com/v1"], quirks: MAX_TOKENS, ..compatible("anyscale", "Anyscale", Some("https://api.endpoints.anyscale.com/v1"), &["ANYSCALE_API_BASE"], &["ANYSCALE_API_KEY"]) },
    Brand { takes: params::XAI, hosts: &["api.x.ai"], quirks: MAX_TOKENS, ..compatible("xai", "Xai", Some("https://api.x.ai/v1"), &["XAI_API_BASE"], &["XAI_API_KEY"]) },
    Brand { takes: params::THINKS, hosts: &["openrouter.ai/api/v1"], tells_cost: true, text_completions: true, quirks: Quirks { wants_reasoning: true, ..PLAIN }, ..compatible("openrouter", "Openrouter", Some("https://openrouter.ai/api/v1"), &["OPENROUTER_API_BASE"], &["OPENROUTER_API_KEY", "OR_API_KEY"]) },
    Brand { takes: params::NVIDIA, hosts: &["integrate.api.nvidia.com/v1"], quirks: MAX_TOKENS, ..compatible("nvidia_nim", "Nvidia_nim", Some("https://integrate.api.nvidia.com/v1"), &["NVIDIA_NIM_API_BASE"], &["NVIDIA_NIM_API_KEY"]) },
    Brand { takes: params::CEREBRAS, hosts: &["api.cerebras.ai/v1"], quirks: MAX_TOKENS, ..compatible("cerebras", "Cerebras", Some("https://api.cerebras.ai/v1"), &["CEREBRAS_API_BASE"], &["CEREBRAS_API_KEY"]) },
    Brand { takes: params::SAMBANOVA, hosts: &["api.sambanova.ai/v1"], quirks: FLAT, ..compatible("sambanova", "Sambanova", Some("https://api.sambanova.ai/v1"), &["SAMBANOVA_API_BASE"], &["SAMBANOVA_API_KEY"]) },
    Brand { takes: params::AI21, hosts: &["api.ai21.com/studio/v1"], quirks: FLAT, ..compatible("ai21_chat", "Ai21_chat", Some("https://api.ai21.com/studio/v1"), &["AI21_API_BASE"], &["AI21_API_KEY"]) },
    Brand { takes: params::AI21, quirks: FLAT, ..compatible("ai21", "Ai21", Some("https://api.ai21.com/studio/v1"), &["AI21_API_BASE"], &["AI21_API_KEY"]) },
    Brand { takes: params::VOLCENGINE, hosts: &["ark.cn-beijing.volces.com"], quirks: MAX_TOKENS, ..compatible("volcengine", "Volcengine", Some("https://ark.cn-beijing.volces.com/api/v3"), &["VOLCENGINE_API_BASE"], &["VOLCENGINE_API_KEY", "ARK_API_KEY"]) },
    Brand { hosts: &["models.inference.ai.azure.com"], quirks: MAX_TOKENS, ..compatible("github", "Github", Some("https://models.inference.ai.azure.com"), &["GITHUB_API_BASE"], &["GITHUB_API_KEY"]) },
    Brand { takes: params::THINKS, default_key: Some("fake-api-key"), text_completions: true, quirks: Quirks { no_cache_control: true, reads_arguments: true, wants_reasoning: true, effort_for_thinking: true, takes_tokens: true, ..MAX_TOKENS }, ..compatible("hosted_vllm", "Hosted_vllm", None, &["HOSTED_VLLM_API_BASE"], &["HOSTED_VLLM_API_KEY"]) },
    Brand { default_key: Some(" "), text_completions: true, quirks: MAX_TOKENS, ..compatible("lm_studio", "Lm_studio", None, &["LM_STUDIO_API_BASE"], &["LM_STUDIO_API_KEY"]) },
    Brand { default_key: Some("fake-api-key"), text_completions: true, quirks: MAX_TOKENS, ..compatible("llamafile", "Llamafile", Some("http://127.0.0.1:8080/v1"), &["LLAMAFILE_API_BASE"], &["LLAMAFILE_API_KEY"]) },
    Brand { takes: params::ALL, text_completions: true, ..compatible("litellm_proxy", "Litellm_proxy", None, &["LITELLM_PROXY_API_BASE"], &["LITELLM_PROXY_API_KEY"]) },
    Brand { hosts: &["api.friendli.ai/serverless/v1"], quirks: MAX_TOKENS, ..compatible("friendliai", "Friendliai", Some("https://api.friendli.ai/serverless/v1"), &["FRIENDLI_API_BASE"], &["FRIENDLIAI_API_KEY", "FRIENDLI_TOKEN"]) },
    Brand { hosts: &["api.galadriel.com/v1"], quirks: MAX_TOKENS, ..compatible("galadriel", "Galadriel", Some("https://api.galadriel.com/v1"), &["GALADRIEL_API_BASE"], &["GALADRIEL_API_KEY"]) },
    Brand { hosts: &["app.empower.dev/api/v1"], quirks: MAX_TOKENS, ..compatible("empower", "Empower", Some("https://app.empower.dev/api/v1"), &["EMPOWER_API_BASE"], &["EMPOWER_API_KEY"]) },
    Brand { hosts: &["api.llama.com/compat/v1"], ..compatible("meta_llama", "Meta_llama", Some("https://api.llama.com/compat/v1"), &["LLAMA_API_BASE"], &["LLAMA_API_KEY"]) },
    Brand { hosts: &["api.studio.nebius.ai/v1"], quirks: Quirks { takes_tokens: true, ..MAX_TOKENS }, ..compatible("nebius", "Nebius", Some("https://api.studio.nebius.ai/v1"), &["NEBIUS_API_BASE"], &["NEBIUS_API_KEY"]) },
    Brand { hosts: &["api.novita.ai/v3/openai"], quirks: MAX_TOKENS, ..compatible("novita", "Novita", Some("https://api.novita.ai/v3/openai"), &["NOVITA_API_BASE"], &["NOVITA_API_KEY"]) },
    Brand { takes: params::NSCALE, hosts: &["inference.api.nscale.com/v1"], ..compatible("nscale", "Nscale", Some("https://inference.api.nscale.com/v1"), &["NSCALE_API_BASE"], &["NSCALE_API_KEY"]) },
    Brand { takes: params::FEATHERLESS, hosts: &["api.featherless.ai/v1"], quirks: MAX_TOKENS, ..compatible("featherless_ai", "Featherless_ai", Some("https://api.featherless.ai/v1"), &["FEATHERLESS_API_BASE"], &["FEATHERLESS_API_KEY"]) },
    Brand { takes: params::REASONS, hosts: &["dashscope-intl.aliyuncs.com/compatible-mode/v1"], quirks: THINKING, ..compatible("dashscope", "Dashscope", Some("https://dashscope-intl.aliyuncs.com/compatible-mode/v1"), &["DASHSCOPE_API_BASE"], &["DASHSCOPE_API_KEY"]) },
    Brand { takes: params::MOONSHOT, hosts: &["api.moonshot.ai/v1"], quirks: Quirks { needs_reasoning: true, ..THINKING }, ..compatible("moonshot", "Moonshot", Some("https://api.moonshot.ai/v1"), &["MOONSHOT_API_BASE"], &["MOONSHOT_API_KEY"]) },
    Brand { takes: params::V0, hosts: &["api.v0.dev/v1"], ..compatible("v0", "V0", Some("https://api.v0.dev/v1"), &["V0_API_BASE"], &["V0_API_KEY"]) },
    Brand { takes: params::MORPH, hosts: &["api.morphllm.com/v1"], quirks: MAX_TOKENS, ..compatible("morph", "Morph", Some("https://api.morphllm.com/v1"), &["MORPH_API_BASE"], &["MORPH_API_KEY"]) },
    Brand { hosts: &["api.lambda.ai/v1"], quirks: MAX_TOKENS, ..compatible("lambda_ai", "Lambda_ai", Some("https://api.lambda.ai/v1"), &["LAMBDA_API_BASE"], &["LAMBDA_API_KEY"]) },
    Brand { takes: params::HYPERBOLIC, hosts: &["api.hyperbolic.xyz/v1"], ..compatible("hyperbolic", "Hyperbolic", Some("https://api.hyperbolic.xyz/v1"), &["HYPERBOLIC_API_BASE"], &["HYPERBOLIC_API_KEY"]) },
    Brand { hosts: &["api.jina.ai/v1"], ..compatible("jina_ai", "Jina_ai", Some("https://api.jina.ai/v1"), &["JINA_AI_API_BASE"], &["JINA_AI_API_KEY", "JINA_AI_TOKEN"]) },
    Brand { takes: params::AZURE_AI, url: UrlScheme::AzureAi, auth: AuthScheme::AzureAi, ..compatible("azure_ai", "Azure_ai", None, &["AZURE_AI_API_BASE"], &["AZURE_AI_API_KEY"]) },
    Brand { takes: params::GEMINI, hosts: &["generativelanguage.googleapis.com"], quirks: Quirks { signed_calls: true, effort_for_thinking: true, ..MAX_TOKENS }, ..compatible("gemini", "Gemini", Some("https://generativelanguage.googleapis.com/v1beta/openai"), &[], &["GEMINI_API_KEY", "GOOGLE_API_KEY"]) },
    Brand { takes: params::COHERE, quirks: MAX_TOKENS, ..compatible("cohere", "Cohere", Some("https://api.cohere.ai/compatibility/v1"), &[], &["COHERE_API_KEY", "CO_API_KEY"]) },
    Brand { takes: params::COHERE, quirks: MAX_TOKENS, ..compatible("cohere_chat", "Cohere_chat", Some("https://api.cohere.ai/compatibility/v1"), &[], &["COHERE_API_KEY", "CO_API_KEY"]) },
    Brand { takes: params::DATABRICKS, quirks: MAX_TOKENS, ..compatible("databricks", "Databricks", None, &["DATABRICKS_API_BASE"], &["DATABRICKS_API_KEY"]) },
    Brand { takes: params::OLLAMA, append_v1: true, text_completions: true, quirks: MAX_TOKENS, ..compatible("ollama", "Ollama", Some("http://localhost:11434/v1"), &["OLLAMA_API_BASE"], &["OLLAMA_API_KEY"]) },
    Brand { takes: params::OLLAMA, speaks: Some("ollama"), url: UrlScheme::Versioned, auth: AuthScheme::Bearer, ..compatible("ollama_chat", "Ollama_chat", Some("http://localhost:11434"), &["OLLAMA_API_BASE"], &["OLLAMA_API_KEY"]) },
    Brand { takes: params::NOTHING, hosts: &["api.voyageai.com"], ..compatible("voyage", "Voyage", Some("https://api.voyageai.com/v1"), &["VOYAGE_API_BASE"], &["VOYAGE_API_KEY", "VOYAGE_AI_API_KEY", "VOYAGE_AI_TOKEN"]) },
    // Formats of their own.
    Brand { takes: params::TEXT, speaks: Some("completions"), text_completions: true, ..compatible("text-completion-openai", "Text-completion-openai", Some("https://api.openai.com/v1"), &["OPENAI_BASE_URL", "OPENAI_API_BASE"], &["OPENAI_API_KEY"]) },
    Brand { takes: params::AZURE, url: UrlScheme::Azure, auth: AuthScheme::Azure, quirks: OPENAI, ..compatible("azure", "Azure", None, &["AZURE_API_BASE"], &["AZURE_API_KEY", "AZURE_OPENAI_API_KEY"]) },
    Brand { takes: params::ANTHROPIC, speaks: Some("messages"), embeds: None, counts: Some("count_tokens"), url: UrlScheme::Versioned, auth: AuthScheme::XApiKey, hosts: &["api.anthropic.com"], ..compatible("anthropic", "Anthropic", Some("https://api.anthropic.com"), &["ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"], &["ANTHROPIC_API_KEY"]) },
    Brand { with_template: Some("generate"), url: UrlScheme::Versioned, auth: AuthScheme::Bearer, ..compatible("huggingface", "Huggingface", Some("https://router.huggingface.co"), &["HF_API_BASE", "HUGGINGFACE_API_BASE"], &["HF_TOKEN", "HUGGINGFACE_API_KEY"]) },
    // Known, reported, never called.
    not_yet("aiohttp_openai", "Aiohttp_openai"),
    not_yet("aleph_alpha", "Aleph_alpha"),
    not_yet("amazon_nova", "Amazon_nova"),
    not_yet("anthropic_text", "Anthropic_text"),
    not_yet("assemblyai", "Assemblyai"),
    not_yet("auto_router", "Auto_router"),
    not_yet("azure_text", "Azure_text"),
    not_yet("baseten", "Baseten"),
    not_yet("bedrock", "Bedrock"),
    not_yet("bedrock_converse", "Bedrock_converse"),
    not_yet("bytez", "Bytez"),
    not_yet("clarifai", "Clarifai"),
    not_yet("cloudflare", "Cloudflare"),
    not_yet("cometapi", "Cometapi"),
    not_yet("compactifai", "Compactifai"),
    not_yet("datarobot", "Datarobot"),
    not_yet("deepgram", "Deepgram"),
    not_yet("elevenlabs", "Elevenlabs"),
    not_yet("gigachat", "Gigachat"),
    not_yet("github_copilot", "Github_copilot"),
    not_yet("gradient_ai", "Gradient_ai"),
    not_yet("heroku", "Heroku"),
    not_yet("infinity", "Infinity"),
    not_yet("langgraph", "Langgraph"),
    not_yet("maritalk", "Maritalk"),
    not_yet("nlp_cloud", "Nlp_cloud"),
    not_yet("oci", "Oci"),
    not_yet("oobabooga", "Oobabooga"),
    not_yet("oci_genai", "Oci_genai"),
    not_yet("ovhcloud", "Ovhcloud"),
    not_yet("palm", "Palm"),
    not_yet("petals", "Petals"),
    not_yet("predibase", "Predibase"),
    not_yet("recraft", "Recraft"),
    not_yet("replicate", "Replicate"),
    not_yet("runwayml", "Runwayml"),
    not_yet("sagemaker", "Sagemaker"),
    not_yet("sagemaker_chat", "Sagemaker_chat"),
    not_yet("sap", "Sap"),
    not_yet("snowflake", "Snowflake"),
    not_yet("stability", "Stability"),
    not_yet("text-completion-codestral", "Text-completion-codestral"),
    not_yet("topaz", "Topaz"),
    not_yet("triton", "Triton"),
    not_yet("vercel_ai_gateway", "Vercel_ai_gateway"),
    not_yet("vertex_ai", "Vertex_ai"),
    not_yet("vertex_ai_beta", "Vertex_ai_beta"),
    not_yet("vllm", "Vllm"),
    not_yet("wandb", "Wandb"),
    not_yet("watsonx", "Watsonx"),
    not_yet("watsonx_text", "Watsonx_text"),
    not_yet("xinference", "Xinference"),
];

/// The row of a provider name (`groq`).
pub fn brand(name: &str) -> Option<&'static Brand> {
    BRANDS.iter().find(|brand| brand.name == name)
}

const MAX_TOKENS: Quirks = Quirks { max_tokens: true, no_developer: true, ..Quirks::NONE };
/// OpenAI's models themselves.
const OPENAI: Quirks = Quirks { no_developer: false, takes_tokens: true, ..PLAIN };
/// Everybody else's of whom nothing more is known.
const PLAIN: Quirks = Quirks { max_tokens: false, ..MAX_TOKENS };
const FLAT: Quirks = Quirks { flatten_content: true, ..MAX_TOKENS };
/// [`FLAT`], for models that think between calls.
const THINKING: Quirks = Quirks { wants_reasoning: true, ..FLAT };
const MISTRAL: Quirks = Quirks {
    tool_choice_any: true,
    random_seed: true,
    no_cache_control: true,
    no_user_after_tool: true,
    effort_for_thinking: true,
    no_stream_options: true,
    ..FLAT
};

/// A brand that speaks OpenAI's API with nothing special about it.
const fn compatible(
    name: &'static str,
    title: &'static str,
    base: Option<&'static str>,
    base_env: &'static [&'static str],
    key_env: &'static [&'static str],
) -> Brand {
    Brand {
        name,
        title,
        speaks: Some("chat"),
        with_template: None,
        embeds: Some("embeddings"),
        counts: None,
        url: UrlScheme::Joined,
        auth: AuthScheme::OpenAi,
        base,
        append_v1: false,
        base_env,
        key_env,
        default_key: None,
        hosts: &[],
        text_completions: false,
        takes: params::CHAT,
        tells_cost: false,
        quirks: PLAIN,
    }
}

/// A brand that is known by name only.
const fn not_yet(name: &'static str, title: &'static str) -> Brand {
    Brand { speaks: None, ..compatible(name, title, None, &[], &[]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole() {
        for (at, row) in BRANDS.iter().enumerate() {
            assert_eq!(
                BRANDS.iter().position(|other| other.name == row.name),
                Some(at),
                "{} twice",
                row.name
            );
            assert!(!row.title.is_empty() && !row.name.contains('/'));
            if let Some(base) = row.base {
                assert!(base.starts_with("http") && !base.ends_with('/'), "{base}");
            }
            for host in row.hosts {
                let base = row.base.unwrap_or_default();
                assert!(base.contains(host), "{} has no {host} in its base", row.name);
            }
        }
    }

    #[test]
    fn mistral_is_the_quirky_one() {
        let mistral = brand("mistral").unwrap().quirks;
        assert!(mistral.max_tokens && mistral.flatten_content && mistral.tool_choice_any);
        assert!(mistral.random_seed && mistral.no_stream_options);
        assert_eq!(brand("openai").unwrap().quirks, Quirks { takes_tokens: true, ..Quirks::default() });
        assert!(brand("nobody").is_none());
    }
}
