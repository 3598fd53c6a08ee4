//! Who serves a deployment: what a row of the table of brands says.

/// Who serves a deployment: one row of the table.
#[derive(Debug, PartialEq)]
pub struct Brand {
    /// The prefix in `litellm_params.model` (`groq/…`), and `custom_llm_provider`.
    pub name: &'static str,
    /// What the brand is called in messages: `OpenAI` in `OpenAIException - …`.
    pub title: &'static str,
    /// How its URLs, credentials and bodies are made.
    pub family: Family,
    /// Base URL when neither the deployment nor the environment names one; `None` means `api_base` is required.
    pub base: Option<&'static str>,
    /// A base URL whose path does not end in `/v1` gets it (brands whose users name the bare host).
    pub append_v1: bool,
    /// Environment variables with a base URL, first wins.
    pub base_env: &'static [&'static str],
    /// Environment variables with a key, first wins.
    pub key_env: &'static [&'static str],
    /// Key sent when none is configured (servers that want any).
    pub default_key: Option<&'static str>,
    /// Hosts that mark an `api_base` as this brand's when the model has no prefix.
    pub hosts: &'static [&'static str],
    /// Serves `/completions` itself; otherwise text completions go through chat.
    pub text_completions: bool,
    /// OpenAI chat parameters it refuses.
    pub unsupported: &'static [&'static str],
    /// Its answers say what they cost (`usage.cost`), in dollars.
    pub tells_cost: bool,
    /// How its bodies differ from OpenAI's.
    pub quirks: Quirks,
}

/// How URLs, credentials and bodies of a brand are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `{base}/chat/completions`, `Authorization: Bearer`.
    OpenAi,
    /// OpenAI's completions endpoint only; chat is turned into a prompt (`text-completion-openai`).
    OpenAiText,
    /// `{base}/openai/deployments/{model}/…?api-version=`, `api-key` or an AD token.
    Azure,
    /// `{base}/v1/messages`, `x-api-key`.
    Anthropic,
    /// Hugging Face: OpenAI-compatible, or text generation inference when a prompt template is configured.
    HuggingFace,
    /// A known LiteLLM provider whose format is not built yet. Its deployments load and are reported, never called.
    NotYet,
}

/// Body differences of an OpenAI-compatible brand. All false is OpenAI itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// `max_completion_tokens` is renamed to `max_tokens`.
    pub max_tokens: bool,
    /// Content lists without an image become strings.
    pub flatten_content: bool,
    /// `tool_choice: "required"` is called `any`.
    pub tool_choice_any: bool,
    /// `seed` is called `random_seed`.
    pub random_seed: bool,
    /// `stream_options` is not understood: usage comes anyway, or not at all.
    pub no_stream_options: bool,
}
