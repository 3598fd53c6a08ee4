//! What providers say when they fail, and what kind of failure that is: one table of words and codes, each with where it was seen.
//!
//! It is the same table wherever a failure stands: with the status of a failed response, in a body that came with a good one, in an
//! event of a stream. A status says too little: too long a prompt, a refused one and a wrong key are all 400 somewhere. What steers
//! retries and cooldowns of a deployment that others use too (a rate limit, a wrong key) is known by a status or an exact code and
//! never by words alone: some servers quote the request in their errors, and no caller may take a deployment away by what it writes.

use super::Class;
use crate::core::model::status::Status;

/// A failure as its provider words it.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// The status of the failed response, or the number that stands for one in a body or an event; none when there is neither.
    status: Option<Status>,
    /// The failure's `code`, `type`, `status`, in lower case.
    codes: Vec<String>,
    /// Everything that is said, in lower case.
    text: String,
}

/// One thing that a provider says.
struct Row {
    class: Class,
    by: By,
    /// Where it comes from.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "says where to look when a provider changes its words")
    )]
    from: &'static str,
}

enum By {
    /// One of the error's codes is this.
    Code(&'static str),
    /// The error says this. Between two pieces stands a number or the name of a model.
    Words(&'static [&'static str]),
}

/// Bytes of the longest code that is taken for one.
const LONGEST_CODE: usize = 64;

/// So many bytes may stand between two pieces of a phrase.
const LONGEST_GAP: usize = 120;

const fn row(class: Class, by: By, from: &'static str) -> Row {
    Row { class, by, from }
}

use By::{Code, Words};
use Class::{
    Authentication, BadRequest, ContentPolicyViolation as Refused, ContextWindowExceeded as TooLong,
    InternalServer, NotFound, PermissionDenied, RateLimit, ServiceUnavailable, Timeout,
};

/// The first row that fits counts. Words are in lower case.
#[rustfmt::skip]
static ROWS: &[Row] = &[
    // Limits of the account, which some give another status than 429.
    row(RateLimit, Code("rate_limit_exceeded"), "Groq, 413: continuedev/continue#10218, HunorLaczko/ha-groq-cloud-api#27"),
    row(RateLimit, Code("rate_limit_error"), "Anthropic's API reference, errors; inside streams"),
    row(RateLimit, Code("throttlingexception"), "Amazon Bedrock API reference, common errors (400 with __type)"),

    // Prompts that are too long.
    row(TooLong, Code("context_length_exceeded"), "OpenAI, Azure, Groq, Cerebras: xtekky/gpt4free#137"),
    row(TooLong, Code("exceed_context_size_error"), "llama.cpp: ggml-org/llama.cpp#15780"),
    row(TooLong, Code("tokens_limit_reached"), "GitHub Models, 413"),
    row(TooLong, Code("request_too_large"), "Anthropic's API reference, errors (413)"),
    row(TooLong, Code("model_context_window_exceeded"), "Z.ai, Anthropic's API reference"),
    row(TooLong, Words(&["context_length_exceeded"]), "OpenAI's code behind proxies that put the error into a text"),
    row(TooLong, Words(&["maximum context length is"]), "OpenAI, Azure, DeepSeek, vLLM, OpenRouter (this endpoint's): refly-ai/refly#1177"),
    row(TooLong, Words(&["model's maximum context limit"]), "LiteLLM's list"),
    row(TooLong, Words(&["too large for model with", "maximum context length"]), "Mistral (prompt contains … tokens, …)"),
    row(TooLong, Words(&["exceeds", "model's maximum context length"]), "SGLang (requested token count), Together (input length): sgl-project/sglang"),
    row(TooLong, Words(&["prompt is too long"]), "Anthropic: earendil-works/pi#102; Fireworks; Bedrock"),
    row(TooLong, Words(&["prompt too long"]), "Ollama's cloud (prompt too long; exceeded max context length by …)"),
    row(TooLong, Words(&["prompt: length"]), "Anthropic, old API: LiteLLM's list"),
    row(TooLong, Words(&["exceed context limit"]), "Anthropic (input length and `max_tokens` …): docker/docker-agent#569"),
    row(TooLong, Words(&["exceeds the context window"]), "OpenAI's newer models (your input …)"),
    row(TooLong, Words(&["context window exceeds limit"]), "MiniMax"),
    row(TooLong, Words(&["exceed context window of"]), "llama-cpp-python (requested tokens …): abetlen/llama-cpp-python#416"),
    row(TooLong, Words(&["string too long. expected a string with maximum length"]), "OpenAI"),
    row(TooLong, Words(&["reduce the length of the messages"]), "Groq, Cerebras, vLLM: THUDM/LongBench#104"),
    row(TooLong, Words(&["input token count", "exceeds the maximum number of tokens allowed"]), "Google: google-gemini/gemini-cli#6678"),
    row(TooLong, Words(&["input token count exceeds the maximum"]), "Vertex AI: LiteLLM's list"),
    row(TooLong, Words(&["request payload size exceeds"]), "Google: LiteLLM's list"),
    row(TooLong, Words(&["maximum prompt length is"]), "xAI: cline/cline#3120"),
    row(TooLong, Words(&["too many tokens:"]), "Cohere: cohere-ai/sandbox-topically#4"),
    row(TooLong, Words(&["too many input tokens"]), "Bedrock: LiteLLM's list"),
    row(TooLong, Words(&["input is too long"]), "Bedrock (for requested model): aws-samples/bedrock-chat#95; Replicate"),
    row(TooLong, Words(&["expected maxlength:"]), "Bedrock: LiteLLM's list"),
    row(TooLong, Words(&["is longer than the model's context length"]), "SGLang: QwenLM/Qwen3#1321"),
    row(TooLong, Words(&["input length", "exceeds the maximum allowed length"]), "SGLang: sgl-project/sglang#4048"),
    row(TooLong, Words(&["is longer than the maximum model length"]), "vLLM: vllm-project/vllm#20241, hiyouga/LlamaFactory#7723"),
    row(TooLong, Words(&["is too long to fit into the model"]), "vLLM: vllm-project/vllm#12165"),
    row(TooLong, Words(&["`inputs` tokens + `max_new_tokens` must be <="]), "TGI, Together, SageMaker: huggingface/llm-vscode#94"),
    row(TooLong, Words(&["`inputs` must have less than", "tokens"]), "TGI: huggingface/text-generation-inference#695"),
    row(TooLong, Words(&["exceeds the available context size"]), "llama.cpp: ggml-org/llama.cpp#17284, #19774"),
    row(TooLong, Words(&["context size has been exceeded"]), "llama.cpp, 500: ggml-org/llama.cpp#19774"),
    row(TooLong, Words(&["input length exceeds", "context length"]), "Ollama: nano-step/nano-brain#208"),
    row(TooLong, Words(&["is greater than the context length"]), "LM Studio (tokens to keep from the initial prompt …)"),
    row(TooLong, Words(&["range of input length should be"]), "DashScope: QwenLM/qwen-code#98"),
    row(TooLong, Words(&["exceeded model token limit"]), "Moonshot: MoonshotAI/kimi-cli#2011"),
    row(TooLong, Words(&["total message size", "exceeds limit"]), "Moonshot: MoonshotAI/kimi-code#1862"),
    row(TooLong, Words(&["request body too large for", "max size:"]), "GitHub Models"),
    row(TooLong, Words(&["prompt token count of", "exceeds the limit of"]), "GitHub Copilot"),

    // Prompts and answers that are refused.
    row(Refused, Words(&["content_policy_violation"]), "OpenAI, Azure"),
    row(Refused, Words(&["content_filter"]), "Azure, Moonshot, Xiaomi: XiaomiMiMo/MiMo-V2-Flash#18"),
    row(Refused, Words(&["violating our usage policy"]), "OpenAI (invalid prompt: …)"),
    row(Refused, Words(&["request was rejected as a result of the safety system"]), "OpenAI"),
    row(Refused, Words(&["the response was filtered due to the prompt triggering"]), "Azure"),
    row(Refused, Words(&["responsibleaipolicyviolation"]), "Azure"),
    row(Refused, Words(&["the response was blocked."]), "Vertex AI: LiteLLM's list"),
    row(Refused, Words(&["content filtering policy"]), "Anthropic, Vertex AI: anthropics/claude-code#62817"),
    row(Refused, Words(&["content exists risk"]), "DeepSeek: deepseek-ai/DeepSeek-V2#30"),
    row(Refused, Words(&["data_inspection_failed"]), "DashScope"),
    row(Refused, Words(&["datainspectionfailed"]), "DashScope: QwenLM/qwen-code#3145"),
    row(Refused, Words(&["content violates usage guidelines"]), "xAI, 403 (failed check: SAFETY_CHECK_TYPE_…)"),
    row(Refused, Words(&["sensitivecontentdetected"]), "Volcengine's API reference, error codes"),
    row(Refused, Words(&["\"flagged_input\""]), "OpenRouter's API reference, errors (403 of a moderated model)"),

    // Keys and models, under statuses that say "bad request".
    row(Authentication, Words(&["incorrect api key provided"]), "xAI, 400"),
    row(Authentication, Words(&["api key not valid"]), "Google, 400 (API_KEY_INVALID)"),
    row(NotFound, Code("model_not_found"), "OpenAI, Groq"),
    row(NotFound, Code("invalid_model"), "Mistral, 400"),
    row(NotFound, Words(&["is not a valid model id"]), "OpenRouter, 400"),

    // A provider that has too much to do is not the caller's rate limit.
    row(InternalServer, Code("overloaded_error"), "Anthropic's API reference, errors (529)"),
];

/// What a code alone means, where there is no status.
#[rustfmt::skip]
static CODES: &[Row] = &[
    row(BadRequest, Code("invalid_request_error"), "OpenAI, Anthropic"),
    row(BadRequest, Code("badrequesterror"), "vLLM, SGLang"),
    row(BadRequest, Code("invalid_argument"), "Google"),
    row(BadRequest, Code("validationexception"), "Amazon Bedrock API reference, common errors"),
    row(Authentication, Code("authentication_error"), "Anthropic's API reference, errors"),
    row(Authentication, Code("invalid_api_key"), "OpenAI"),
    row(Authentication, Code("unauthenticated"), "Google"),
    row(PermissionDenied, Code("permission_error"), "Anthropic's API reference, errors"),
    row(PermissionDenied, Code("permission_denied"), "Google"),
    row(PermissionDenied, Code("accessdeniedexception"), "Amazon Bedrock API reference, common errors"),
    row(NotFound, Code("not_found_error"), "Anthropic's API reference, errors"),
    row(NotFound, Code("not_found"), "Google"),
    row(RateLimit, Code("overloaded"), "TGI, 429 (error_type)"),
    row(BadRequest, Code("validation"), "TGI, 422 (error_type)"),
    row(Timeout, Code("timeout_error"), "Anthropic's API reference, errors"),
    row(Timeout, Code("deadline_exceeded"), "Google"),
    row(Timeout, Code("modeltimeoutexception"), "Amazon Bedrock API reference, InvokeModel"),
    row(RateLimit, Code("insufficient_quota"), "OpenAI, 429"),
    row(RateLimit, Code("resource_exhausted"), "Google"),
    row(ServiceUnavailable, Code("unavailable"), "Google"),
    row(ServiceUnavailable, Code("serviceunavailableexception"), "Amazon Bedrock API reference, common errors"),
    row(InternalServer, Code("api_error"), "Anthropic's API reference, errors"),
    row(InternalServer, Code("server_error"), "OpenAI"),
];

impl Said {
    /// What a failure says: its status, its codes, the one that tells most first, and its text.
    pub fn new<'t>(status: Option<Status>, codes: impl Iterator<Item = &'t str>, text: &str) -> Said {
        // Amazon puts a name space before it.
        let codes = codes.map(|code| code.rsplit('#').next().unwrap_or(code).to_lowercase()).collect();
        Said { status, codes, text: text.to_lowercase() }
    }

    /// Adds one more code.
    pub fn with_code(mut self, code: &str) -> Said {
        self.codes.push(code.to_owned());
        self
    }

    /// The status that it has, or says that it has.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// The code that tells most, when it looks like one: neither a number nor a sentence.
    pub fn code(&self) -> Option<&str> {
        let is_code = |text: &str| {
            text.len() <= LONGEST_CODE
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
                && text.bytes().any(|b| b.is_ascii_alphabetic())
        };
        self.codes.iter().map(String::as_str).find(|code| is_code(code))
    }

    fn has_code(&self, code: &str) -> bool {
        self.codes.iter().any(|other| other == code)
    }

    fn has(&self, words: &str) -> bool {
        self.text.contains(words)
    }

    /// Whether its status leaves room for a row to decide. That there is none leaves most.
    fn admits(&self, row: &Row) -> bool {
        let status = self.status.map(Status::get);
        match row.class {
            Class::ContextWindowExceeded => matches!(status, None | Some(400 | 413 | 422 | 500)),
            Class::ContentPolicyViolation => matches!(status, None | Some(400 | 403 | 422)),
            Class::RateLimit => matches!(status, None | Some(400 | 413 | 500)),
            Class::Authentication | Class::NotFound => {
                status == Some(400) || (status.is_none() && matches!(row.by, Code(_)))
            }
            Class::InternalServer => status.is_none_or(|status| status >= 500),
            _ => false,
        }
    }
}

impl Class {
    /// The class of a failure. Words and codes that say more than a status decide first, then the status, then codes that say
    /// as much. A failure that says nothing we know is at least not the client's.
    pub fn of(said: &Said) -> Class {
        if let Some(row) = ROWS.iter().find(|row| said.admits(row) && row.by.is_in(said)) {
            return row.class;
        }
        let Some(status) = said.status else {
            let known = said.codes.iter().find_map(|code| CODES.iter().find(|row| row.by.is(code)));
            return known.map_or(Class::InternalServer, |row| row.class);
        };
        match status.get() {
            400 | 413 | 422 => Class::BadRequest,
            401 => Class::Authentication,
            403 => Class::PermissionDenied,
            404 => Class::NotFound,
            408 | 504 => Class::Timeout,
            429 => Class::RateLimit,
            500 if said.has("rate limit") || said.has("service tier capacity exceeded") => Class::RateLimit,
            500 => Class::InternalServer,
            503 => Class::ServiceUnavailable,
            _ => Class::Api,
        }
    }
}

impl By {
    fn is_in(&self, said: &Said) -> bool {
        match self {
            Code(code) => said.has_code(code),
            Words(pieces) => says(&said.text, pieces),
        }
    }

    fn is(&self, code: &str) -> bool {
        matches!(self, Code(known) if *known == code)
    }
}

/// Whether the pieces follow each other somewhere in the text, near enough to be one phrase.
fn says(text: &str, pieces: &[&str]) -> bool {
    let Some((first, rest)) = pieces.split_first() else { return true };
    text.match_indices(first).any(|(at, found)| {
        let mut after = text.get(at + found.len()..).unwrap_or_default();
        rest.iter().all(|piece| match after.find(piece) {
            Some(gap) if gap <= LONGEST_GAP => {
                after = after.get(gap + piece.len()..).unwrap_or_default();
                true
            }
            _ => false,
        })
    })
}

#[cfg(test)]
mod tests;
