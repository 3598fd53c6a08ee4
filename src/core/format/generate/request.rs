//! Text generation inference requests (`{"inputs", "parameters", "stream"}`), written from chat.

use serde_json::{Map, Value};

use super::Requested;
use crate::core::{
    codec::value,
    error::Error,
    format::{Context, params, template},
    model::template::PromptTemplate,
};

/// OpenAI parameters that the server has nothing for.
const UNSUPPORTED: [&str; 18] = [
    "audio",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "modalities",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "thinking",
    "tool_choice",
    "tools",
    "top_logprobs",
    "verbosity",
    "web_search_options",
];

/// OpenAI members that are not about generating.
const IGNORED: [&str; 6] = ["metadata", "model", "service_tier", "store", "stream_options", "user"];

/// Bytes of text counted as one token, where the server does not count the prompt.
const BYTES_PER_TOKEN: usize = 4;

/// Makes the request. The prompt is made by the deployment's template, else by the one known for the model's family, else
/// the messages' texts are joined. Parameters that are not OpenAI's (`repetition_penalty`, …) go into `parameters`.
pub fn write(
    mut body: Map<String, Value>,
    context: &Context<'_>,
) -> Result<(Map<String, Value>, Requested), Error> {
    let known = if context.template.is_none() { template::for_model(context.model) } else { None };
    let template = context.template.or(known.as_ref());
    let prompt = template::take_prompt(&mut body, template, context)?;
    params::drop_or_refuse(&mut body, &UNSUPPORTED, context)?;
    let stream = body.shift_remove("stream").and_then(|stream| stream.as_bool()).unwrap_or(false);
    let parameters = parameters(body);
    let requested = Requested {
        strip_tokens: strip_tokens(template, parameters.get("stop")),
        prompt_tokens: prompt.len().div_ceil(BYTES_PER_TOKEN) as u64,
    };
    let generate = Map::from_iter([
        ("inputs".to_owned(), Value::from(prompt)),
        ("parameters".to_owned(), Value::from(parameters)),
        ("stream".to_owned(), Value::from(stream)),
    ]);
    Ok((generate, requested))
}

fn parameters(mut body: Map<String, Value>) -> Map<String, Value> {
    body.retain(|name, value| !value.is_null() && !IGNORED.contains(&name.as_str()));
    let mut parameters = Map::new();
    if let Some(limit) = params::take_max_tokens(&mut body) {
        // The server refuses 0.
        let limit = if limit.as_u64() == Some(0) { Value::from(1) } else { limit };
        parameters.insert("max_new_tokens".into(), limit);
    }
    let mut sample = false;
    // The server wants a temperature above 0 and a top_p below 1; at these ends, leaving them out means the same.
    if let Some(temperature) = body.shift_remove("temperature")
        && value::as_f64(&temperature) != Some(0.0)
    {
        parameters.insert("temperature".into(), temperature);
        sample = true;
    }
    if let Some(top_p) = body.shift_remove("top_p")
        && value::as_f64(&top_p).is_none_or(|p| p < 1.0)
    {
        parameters.insert("top_p".into(), top_p);
        sample = true;
    }
    match body.shift_remove("stop") {
        Some(Value::Array(stops)) if stops.is_empty() => {}
        Some(Value::Array(stops)) => drop(parameters.insert("stop".into(), stops.into())),
        Some(stop) => drop(parameters.insert("stop".into(), Value::from([stop]))),
        None => {}
    }
    parameters.insert("do_sample".into(), sample.into());
    parameters.insert("return_full_text".into(), false.into());
    parameters.insert("details".into(), true.into());
    parameters.extend(body);
    parameters
}

/// What the response may carry at its ends without meaning it: the template's own tokens, and the stop texts, which this
/// server leaves in.
fn strip_tokens(template: Option<&PromptTemplate>, stops: Option<&Value>) -> Vec<String> {
    let mut tokens = Vec::new();
    if let Some(template) = template {
        let after_turn = template.roles.get("assistant").map_or("", |(_, after)| after.as_str());
        for token in [&template.bos, &template.eos, after_turn] {
            tokens.push(token.trim().to_owned());
        }
    }
    if let Some(Value::Array(stops)) = stops {
        tokens.extend(stops.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    tokens.retain(|token| !token.is_empty());
    tokens.sort();
    tokens.dedup();
    tokens
}
