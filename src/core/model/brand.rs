//! A provider's brand: what a row of the table of brands says.

use super::params::Params;

/// A provider's brand: one row of the table.
#[derive(Debug, PartialEq)]
pub struct Brand {
    /// The prefix in `litellm_params.model` (`groq/…`), and `custom_llm_provider`.
    pub name: &'static str,
    /// What the brand is called in messages: `OpenAI` in `OpenAIException - …`.
    pub title: &'static str,
    /// The name of the format that its models speak; `None` for a LiteLLM provider whose format is not built yet.
    pub speaks: Option<&'static str>,
    /// The format that they speak where a prompt template is configured.
    pub with_template: Option<&'static str>,
    /// The format of its embeddings.
    pub embeds: Option<&'static str>,
    /// The format of its counts of tokens; `None` where they are estimated here.
    pub counts: Option<&'static str>,
    /// How the path of a call is made.
    pub url: UrlScheme,
    /// How a call is given its credentials.
    pub auth: AuthScheme,
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
    /// The chat parameters that it takes, whatever the model.
    pub takes: Params,
    /// The brand's responses say what they cost (`usage.cost`), in dollars.
    pub tells_cost: bool,
    /// How its bodies differ from OpenAI's.
    pub quirks: Quirks,
}

impl Brand {
    /// Whether its models can be called. Deployments of the others load and are reported.
    pub fn is_callable(&self) -> bool {
        self.speaks.is_some()
    }

    /// Whether its models are OpenAI's, behind deployments with names of their own.
    pub fn is_azure(&self) -> bool {
        self.url == UrlScheme::Azure
    }
}

/// How the paths of a brand's calls are made. Formats say what theirs end in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlScheme {
    /// Behind the base URL.
    Joined,
    /// Under `/v1`, for base URLs that may stop before it.
    Versioned,
    /// `{base}/openai/deployments/{model}/…?api-version=`, and Azure's other forms.
    Azure,
    /// Azure AI Foundry's.
    AzureAi,
}

/// How a call shows the deployment's credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthScheme {
    /// `Authorization: Bearer`.
    Bearer,
    /// `Authorization: Bearer`, with OpenAI's organization.
    OpenAi,
    /// `x-api-key`.
    XApiKey,
    /// `api-key`, or a token of Azure's directory.
    Azure,
    /// `api-key` at Azure AI Foundry's own hosts, a bearer everywhere else.
    AzureAi,
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
    /// The role `developer` is called `system`.
    pub no_developer: bool,
    /// `cache_control` is refused.
    pub no_cache_control: bool,
    /// Calls carry the signature of the thought behind them (`extra_content`), and want it back.
    pub signed_calls: bool,
    /// `reasoning_content` goes back with the calls that it led to.
    pub wants_reasoning: bool,
    /// Where it is missing, a thinking model refuses a conversation that has calls.
    pub needs_reasoning: bool,
    /// Images are refused.
    pub no_images: bool,
    /// After a tool's result only the model may speak.
    pub no_user_after_tool: bool,
    /// The server reads the arguments of calls in the history: those of a response that was cut off make it refuse the conversation.
    pub reads_arguments: bool,
    /// `thinking` is asked for by `reasoning_effort`.
    pub effort_for_thinking: bool,
    /// `thinking` is a switch, which `reasoning_effort` needs on.
    pub thinking_switch: bool,
    /// The input of embeddings may be lists of tokens; where it may not, texts are made of them.
    pub takes_tokens: bool,
    /// `stream_options` is not understood: usage comes anyway, or not at all.
    pub no_stream_options: bool,
}

impl Quirks {
    /// OpenAI itself: what rows of the table begin with.
    pub const NONE: Quirks = Quirks {
        max_tokens: false,
        flatten_content: false,
        tool_choice_any: false,
        random_seed: false,
        no_developer: false,
        no_cache_control: false,
        signed_calls: false,
        wants_reasoning: false,
        needs_reasoning: false,
        no_images: false,
        no_user_after_tool: false,
        reads_arguments: false,
        effort_for_thinking: false,
        thinking_switch: false,
        takes_tokens: false,
        no_stream_options: false,
    };
}
