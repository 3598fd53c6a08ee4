//! Which of OpenAI's parameters a model takes: the set of its brand, which a row of [`BRANDS`](super::BRANDS) names, and the rules by
//! which single models take more or less. It is LiteLLM's knowledge: what is not taken is dropped with `drop_params`, else refused.
//!
//! Four parameters stand in no set, because nobody is refused for them: `stream`, `stream_options`, and `max_retries` and
//! `extra_headers`, which the gateway itself heeds.

use crate::core::model::{
    abilities::Abilities,
    accepts::{Accepts, Series},
    brand::Brand,
    params::Params as P,
};

const LIMITS: P = P::MAX_TOKENS.and(P::MAX_COMPLETION_TOKENS);
const SAMPLING: P = P::TEMPERATURE.and(P::TOP_P);
const PENALTIES: P = P::FREQUENCY_PENALTY.and(P::PRESENCE_PENALTY);
const LOGPROBS: P = P::LOGPROBS.and(P::TOP_LOGPROBS);
const TOOLS: P = P::TOOLS.and(P::TOOL_CHOICE);
const FUNCTIONS: P = P::FUNCTIONS.and(P::FUNCTION_CALL);
const MEDIA: P = P::AUDIO.and(P::MODALITIES).and(P::PREDICTION);
const CACHE: P = P::PROMPT_CACHE_KEY.and(P::PROMPT_CACHE_RETENTION);
const ACCOUNT: P = P::SAFETY_IDENTIFIER.and(P::SERVICE_TIER).and(P::STORE);
const REASONING: P = P::REASONING_EFFORT.and(P::THINKING);
/// What nearly everybody takes.
const BASIC: P = LIMITS.and(SAMPLING).and(P::STOP);
const JSON: P = P::RESPONSE_FORMAT;
const OLDER: P = BASIC.and(PENALTIES).and(LOGPROBS).and(P::LOGIT_BIAS).and(P::N).and(P::SEED);

/// No chat at all.
pub(super) const NOTHING: P = P::NONE;
/// OpenAI's own set, to which its models add, and that of every brand of which nothing else is known.
pub(super) const CHAT: P = OLDER
    .and(TOOLS)
    .and(P::PARALLEL_TOOL_CALLS)
    .and(FUNCTIONS)
    .and(JSON)
    .and(MEDIA)
    .and(CACHE)
    .and(ACCOUNT)
    .and(P::WEB_SEARCH_OPTIONS);
pub(super) const REASONS: P = CHAT.and(P::REASONING_EFFORT);
pub(super) const THINKS: P = CHAT.and(REASONING);
/// LiteLLM itself.
pub(super) const ALL: P = THINKS.and(P::VERBOSITY).and(P::USER).and(P::SERVER_SIDE_TOOLS);
pub(super) const GROQ: P = CHAT.without(P::WEB_SEARCH_OPTIONS);
pub(super) const MISTRAL: P =
    BASIC.and(TOOLS).and(P::PARALLEL_TOOL_CALLS).and(P::SEED).and(JSON).and(P::PROMPT_CACHE_KEY);
pub(super) const FIREWORKS: P = OLDER
    .and(P::TOOLS)
    .and(P::PARALLEL_TOOL_CALLS)
    .and(JSON)
    .and(P::PREDICTION)
    .and(P::PROMPT_CACHE_KEY)
    .and(P::SERVICE_TIER)
    .and(P::USER);
pub(super) const PERPLEXITY: P = LIMITS.and(SAMPLING).and(PENALTIES).and(JSON);
pub(super) const DEEPINFRA: P =
    BASIC.and(PENALTIES).and(TOOLS).and(FUNCTIONS).and(P::LOGIT_BIAS).and(P::N).and(JSON);
pub(super) const ANYSCALE: P = P::MAX_TOKENS.and(SAMPLING).and(PENALTIES).and(P::STOP);
pub(super) const XAI: P =
    OLDER.and(TOOLS).and(P::PARALLEL_TOOL_CALLS).and(JSON).and(P::WEB_SEARCH_OPTIONS).and(P::USER);
pub(super) const NVIDIA: P =
    BASIC.and(PENALTIES).and(TOOLS).and(P::PARALLEL_TOOL_CALLS).and(P::SEED).and(JSON);
pub(super) const CEREBRAS: P = BASIC.and(TOOLS).and(P::SEED).and(JSON).and(P::USER);
pub(super) const SAMBANOVA: P = BASIC.and(JSON);
pub(super) const AI21: P =
    LIMITS.and(P::TEMPERATURE).and(TOOLS).and(P::N).and(P::SEED).and(P::STOP).and(JSON);
pub(super) const VOLCENGINE: P = OLDER.and(TOOLS).and(FUNCTIONS).and(P::THINKING);
pub(super) const NSCALE: P = P::MAX_TOKENS
    .and(SAMPLING)
    .and(P::STOP)
    .and(PENALTIES)
    .and(LOGPROBS)
    .and(P::LOGIT_BIAS)
    .and(P::N)
    .and(JSON);
pub(super) const FEATHERLESS: P = BASIC.and(PENALTIES).and(FUNCTIONS).and(P::LOGIT_BIAS).and(P::N);
pub(super) const MOONSHOT: P = CHAT.without(P::FUNCTIONS);
pub(super) const V0: P = TOOLS;
pub(super) const MORPH: P = OLDER
    .without(P::N)
    .and(TOOLS)
    .and(P::PARALLEL_TOOL_CALLS)
    .and(JSON)
    .and(P::PROMPT_CACHE_KEY)
    .and(P::REASONING_EFFORT);
pub(super) const HYPERBOLIC: P = P::MAX_TOKENS
    .and(SAMPLING)
    .and(P::STOP)
    .and(PENALTIES)
    .and(TOOLS)
    .and(P::N)
    .and(P::SEED)
    .and(JSON)
    .and(P::USER);
pub(super) const AZURE_AI: P = CHAT.without(P::TOOL_CHOICE);
pub(super) const GEMINI: P = BASIC
    .and(PENALTIES)
    .and(TOOLS)
    .and(P::FUNCTIONS)
    .and(P::PARALLEL_TOOL_CALLS)
    .and(P::LOGPROBS)
    .and(P::N)
    .and(P::SEED)
    .and(JSON)
    .and(P::MODALITIES)
    .and(P::SERVICE_TIER)
    .and(P::WEB_SEARCH_OPTIONS)
    .and(P::SERVER_SIDE_TOOLS);
pub(super) const COHERE: P = BASIC.and(PENALTIES).and(TOOLS).and(P::N).and(P::SEED);
pub(super) const DATABRICKS: P = BASIC.and(TOOLS).and(P::N).and(JSON).and(P::SERVICE_TIER).and(REASONING);
/// LiteLLM puts the tools of `ollama/` into the prompt; the server knows them.
pub(super) const OLLAMA: P = BASIC
    .and(P::FREQUENCY_PENALTY)
    .and(P::SEED)
    .and(JSON)
    .and(TOOLS)
    .and(P::FUNCTIONS)
    .and(P::REASONING_EFFORT);
pub(super) const TEXT: P =
    OLDER.without(P::MAX_COMPLETION_TOKENS).and(TOOLS).and(FUNCTIONS).and(JSON).and(P::USER);
pub(super) const AZURE: P = CHAT
    .without(P::PROMPT_CACHE_RETENTION)
    .without(P::SAFETY_IDENTIFIER)
    .without(P::SERVICE_TIER)
    .and(P::USER);
/// With the older names of tools, which become tools on the way.
pub(super) const ANTHROPIC: P = BASIC
    .and(TOOLS)
    .and(FUNCTIONS)
    .and(P::PARALLEL_TOOL_CALLS)
    .and(P::SERVICE_TIER)
    .and(JSON)
    .and(P::WEB_SEARCH_OPTIONS)
    .and(P::USER)
    .and(P::CONTEXT_MANAGEMENT);

/// Looks a model of a brand up in the price data.
pub type Find<'a> = &'a dyn Fn(&str, &str) -> Option<Abilities>;

/// What a model of a brand takes. `base` is what the deployment says it is: on Azure that counts before the name, which says
/// nothing there; elsewhere it only adds.
pub fn accepts(brand: &Brand, model: &str, base: Option<&str>, find: Find<'_>) -> Accepts {
    let base = base
        .map(|base| base.strip_prefix(brand.name).and_then(|rest| rest.strip_prefix('/')).unwrap_or(base));
    let base = base.filter(|base| !base.is_empty());
    let lead = if brand.is_azure() { base.unwrap_or(model) } else { model };
    let mut accepts = of_model(brand, lead, find);
    accepts.embeddings = embeddings(brand, model);
    if let Some(base) = base.filter(|base| *base != lead) {
        accepts.chat = accepts.chat | of_model(brand, base, find).chat;
    }
    accepts
}

fn of_model(brand: &Brand, model: &str, find: Find<'_>) -> Accepts {
    let facts = find(brand.name, model);
    let abilities = facts.unwrap_or_default();
    let row = brand.takes;
    let if_it = |ability, params: P| if abilities.has(ability) { params } else { P::NONE };
    let effort = if_it(Abilities::REASONING, P::REASONING_EFFORT);
    let chat = match brand.name {
        "openai" | "jina_ai" => return openai(row, model, find),
        "azure" => return azure(row, model, find),
        "azure_ai" if is_o_series(last(model)) || is_gpt5(model) => return openai(CHAT, model, find),
        "azure_ai" => without_stop_of_grok(row | if_it(Abilities::TOOL_CHOICE, P::TOOL_CHOICE), model),
        "anthropic" => return anthropic(row, model, facts),
        "gemini" => gemini(row, model, abilities),
        "mistral" | "codestral" if model.contains("magistral") => row | REASONING,
        "groq" | "perplexity" => {
            let searches = if_it(Abilities::WEB_SEARCH, P::WEB_SEARCH_OPTIONS);
            let is_compound = matches!(last(model), "compound" | "compound-mini");
            row | effort | if is_compound { P::WEB_SEARCH_OPTIONS } else { searches }
        }
        "mistral" | "codestral" | "together_ai" | "deepinfra" | "cerebras" | "moonshot" => row | effort,
        "xai" => {
            let penalty = if model.contains("grok-4") { P::FREQUENCY_PENALTY } else { P::NONE };
            without_stop_of_grok(row.without(penalty), model) | effort
        }
        "fireworks_ai" => {
            let row = row.without(if abilities.has(Abilities::NO_TOOLS) {
                P::TOOLS | P::PARALLEL_TOOL_CALLS
            } else {
                P::NONE
            });
            row | if_it(Abilities::REASONING, REASONING) | if_it(Abilities::TOOL_CHOICE, P::TOOL_CHOICE)
        }
        "sambanova" => row | if_it(Abilities::TOOLS, TOOLS | P::PARALLEL_TOOL_CALLS),
        "morph" if model.starts_with("morph-v3") => P::NONE,
        _ => row,
    };
    Accepts { chat, abilities, ..Accepts::default() }
}

/// OpenAI's models. One that is not listed may be anybody's behind the same API: it may reason, and takes no `user`.
fn openai(row: P, model: &str, find: Find<'_>) -> Accepts {
    let facts = find("openai", model).filter(|_| !model.starts_with("ft:"));
    let abilities = facts.unwrap_or_default();
    let user = if facts.is_some() { P::USER } else { P::NONE };
    if is_o_series(last(model)) {
        return o_series(row | user, facts);
    }
    if model.contains("gpt-5") && model.contains("search") {
        let chat = LIMITS | P::WEB_SEARCH_OPTIONS | ACCOUNT | JSON | P::USER | P::VERBOSITY;
        return Accepts { chat, abilities, renames_max_tokens: true, ..Accepts::default() };
    }
    if is_gpt5(model) {
        let lost =
            if facts.is_some() && !abilities.has(Abilities::TOOL_CHOICE) { P::TOOL_CHOICE } else { P::NONE };
        return gpt5(row.without(lost) | user, abilities);
    }
    let own = if facts.is_some() { P::USER } else { P::REASONING_EFFORT };
    let lost = if matches!(model, "gpt-4" | "gpt-3.5-turbo-16k") { JSON } else { P::NONE };
    Accepts { chat: row.without(lost) | own, abilities, ..Accepts::default() }
}

/// OpenAI's models on Azure: a series is told by a prefix or by any part of the name.
fn azure(row: P, model: &str, find: Find<'_>) -> Accepts {
    let (series, name) = series_of(model);
    let user = if find("openai", model).is_some() { P::USER } else { P::NONE };
    let chat = CHAT | user;
    if series == Some(O_SERIES) || ["o1", "o3", "o4"].iter().any(|part| name.contains(part)) {
        return o_series(chat, None);
    }
    let [own, its] = ["azure", "openai"].map(|brand| find(brand, name).unwrap_or_default());
    let abilities = own.and(its);
    let is_named_gpt5 =
        series == Some(GPT5_SERIES) || ["gpt-5", "gpt-6"].iter().any(|part| name.contains(part));
    if series == Some(GPT5_SERIES) || is_gpt5(name) {
        let mut accepts = gpt5(chat, abilities);
        let tells_logprobs = ["gpt-5.2", "gpt-5.4"].iter().any(|start| last(name).starts_with(start));
        accepts.chat = if tells_logprobs { accepts.chat | LOGPROBS } else { accepts.chat.without(LOGPROBS) };
        return accepts;
    }
    Accepts { chat: row, abilities, renames_max_tokens: is_named_gpt5, ..Accepts::default() }
}

fn o_series(row: P, facts: Option<Abilities>) -> Accepts {
    let mut chat = row.without(SAMPLING.without(P::TEMPERATURE) | PENALTIES | LOGPROBS) | P::REASONING_EFFORT;
    let needs = [
        (Abilities::TOOLS, TOOLS | FUNCTIONS),
        (Abilities::PARALLEL_CALLS, P::PARALLEL_TOOL_CALLS),
        (Abilities::SCHEMA, JSON),
    ];
    for (ability, params) in needs {
        if facts.is_some_and(|facts| !facts.has(ability)) {
            chat = chat.without(params);
        }
    }
    let abilities = facts.unwrap_or_default();
    Accepts { chat, series: Series::O, abilities, renames_max_tokens: true, ..Accepts::default() }
}

fn gpt5(row: P, abilities: Abilities) -> Accepts {
    let reasons = if abilities.has(Abilities::EFFORT_NONE) { P::NONE } else { P::TOP_P | LOGPROBS };
    let lost = PENALTIES | P::STOP | P::LOGIT_BIAS | MEDIA | P::WEB_SEARCH_OPTIONS | reasons;
    let chat = row.without(lost) | P::REASONING_EFFORT | P::VERBOSITY;
    Accepts { chat, series: Series::Gpt5, abilities, renames_max_tokens: true, ..Accepts::default() }
}

/// Claude from 3.7 on thinks. A name that the price data does not have is a newer one, unless it is a number of old.
fn anthropic(row: P, model: &str, facts: Option<Abilities>) -> Accepts {
    let is_new = model.starts_with("claude-")
        && !["claude-2", "claude-3-", "claude-instant"].iter().any(|old| model.starts_with(old));
    let thinks =
        model.contains("claude-3-7-sonnet") || facts.map_or(is_new, |facts| facts.has(Abilities::REASONING));
    let abilities = facts.unwrap_or_default();
    let chat = row | if thinks { REASONING } else { P::NONE };
    match abilities.has(Abilities::FIXED_SAMPLING) {
        true => Accepts {
            chat: chat.without(P::TOP_P),
            series: Series::FixedClaude,
            abilities,
            ..Accepts::default()
        },
        false => Accepts { chat, abilities, ..Accepts::default() },
    }
}

/// Gemini from 2.5 on reasons.
fn gemini(row: P, model: &str, abilities: Abilities) -> P {
    let is_old = ["gemini-1", "gemini-2.0", "gemini-exp", "gemma"].iter().any(|old| model.starts_with(old));
    let row = row | if is_old && !abilities.has(Abilities::REASONING) { P::NONE } else { REASONING };
    row.without(if abilities.has(Abilities::FIXED_SAMPLING) { SAMPLING } else { P::NONE })
}

fn without_stop_of_grok(row: P, model: &str) -> P {
    let refuses = ["grok-3-mini", "grok-4", "grok-code-fast"].iter().any(|part| model.contains(part));
    row.without(if refuses { P::STOP } else { P::NONE })
}

/// What a brand's models for embeddings take of `dimensions`, `encoding_format` and `user`.
fn embeddings(brand: &Brand, model: &str) -> P {
    let all = P::DIMENSIONS | P::ENCODING_FORMAT | P::USER;
    match brand.name {
        "openai" if model.contains("text-embedding-3") => all,
        "openai" | "volcengine" => P::ENCODING_FORMAT | P::USER,
        "mistral" => P::ENCODING_FORMAT,
        "perplexity" | "cohere" | "cohere_chat" | "voyage" => P::DIMENSIONS | P::ENCODING_FORMAT,
        "gemini" | "jina_ai" | "ollama" => P::DIMENSIONS,
        "fireworks_ai" if model.starts_with("nomic-ai") => P::DIMENSIONS,
        "fireworks_ai"
        | "sambanova"
        | "lm_studio"
        | "databricks"
        | "custom_openai"
        | "openai_like"
        | "huggingface"
        | "anthropic"
        | "ollama_chat"
        | "text-completion-openai" => P::NONE,
        _ => all,
    }
}

/// What says that a deployment on Azure is of OpenAI's o-series, before its name.
const O_SERIES: &str = "o_series/";
/// What says that one is of gpt-5.
const GPT5_SERIES: &str = "gpt5_series/";

/// The series that a model on Azure is said to be of, and what its deployment is called.
fn series_of(model: &str) -> (Option<&'static str>, &str) {
    let found =
        [O_SERIES, GPT5_SERIES].into_iter().find_map(|series| Some((series, model.strip_prefix(series)?)));
    found.map_or((None, model), |(series, name)| (Some(series), name))
}

/// What a deployment on Azure is called, without the series that it is said to be of.
pub fn without_series<'m>(brand: &Brand, model: &'m str) -> &'m str {
    if brand.is_azure() { series_of(model).1 } else { model }
}

/// `o1`, `o3-mini`, `o4-mini-2025-04-16`: an `o`, one digit, and nothing or a dash.
pub(super) fn is_o_series(model: &str) -> bool {
    matches!(model.as_bytes(), [b'o', b'1' | b'3' | b'4'] | [b'o', b'1' | b'3' | b'4', b'-', ..])
}

/// gpt-5 and gpt-6, but for the model of ChatGPT, which does not reason.
fn is_gpt5(model: &str) -> bool {
    ["gpt-5", "gpt-6"].iter().any(|part| model.contains(part)) && !last(model).contains("gpt-5-chat")
}

fn last(model: &str) -> &str {
    model.rsplit('/').next().unwrap_or(model)
}

#[cfg(test)]
mod tests;
