//! `POST /spend/calculate`: what a request or an answer costs, at the prices that the gateway charges.

use serde_json::{Value, json};

use crate::{
    control::ledger::{
        api::{models::Served, utils::served_to},
        problem::Problem,
        route::{Answer, Call},
        rows::dollars,
        tokens::{self, Prompt},
    },
    core::{
        cost::{price::Price, table},
        model::{terms::Terms, usage::Usage},
        provider::infer,
    },
};

/// `POST /spend/calculate`.
pub async fn calculate(call: Call) -> Result<Answer, Problem> {
    let refused = |message: &str| Err(Problem::bad_request("None", message));
    let response = call.body.get("completion_response").filter(|response| !response.is_null());
    let (model, usage, answered) = match (response, call.text("model")) {
        (Some(response), asked) => {
            let answered = response.get("model").and_then(Value::as_str);
            let Some(model) = asked.or(answered) else {
                return refused(
                    "`completion_response` names no model: expected its `model`, or one beside it",
                );
            };
            let told = response.get("usage").unwrap_or(&Value::Null);
            let Some(usage) = Usage::from_openai(told).or_else(|| Usage::from_anthropic(told)) else {
                return refused("`completion_response` has no usage: expected `usage` with its token counts");
            };
            (model, usage, answered)
        }
        (None, Some(model)) => {
            let Some(messages) = call.body.get("messages").and_then(Value::as_array) else {
                return refused("If using model, `messages` must be provided");
            };
            let target = served_to(&call, model).await?;
            let tokenizer = target.as_ref().map_or_else(|| model.to_owned(), Served::tokenizer_model);
            let prompt = Prompt { messages: messages.clone(), ..Prompt::default() };
            let tokens = tokens::count(&tokenizer, prompt).await?;
            (model, Usage { prompt_tokens: tokens, total_tokens: tokens, ..Usage::default() }, None)
        }
        (None, None) => {
            return refused("Bad Request - Either 'model' or 'completion_response' must be provided");
        }
    };
    let duration = response.and_then(|response| response.get("_response_ms")).and_then(Value::as_f64);
    let terms = response.map(Terms::of_response).unwrap_or_default();
    let duration = duration.filter(|ms| *ms >= 0.0).map(|ms| ms as u64);
    let cost = match served_to(&call, model).await? {
        Some(target) => target.cost(answered, &usage, &terms, duration),
        None => listed(model, answered).map(|price| price.cost(&usage, &terms, duration)).or(usage.cost),
    };
    let Some(cost) = cost else {
        return refused(&format!(
            "no price is known for model `{model}`: set input_cost_per_token and output_cost_per_token in its litellm_params"
        ));
    };
    Ok(Answer::json(&json!({"cost": dollars(i64::try_from(cost.pico()).unwrap_or(i64::MAX))})))
}

/// The price of a model that is not configured.
fn listed(model: &str, answered: Option<&str>) -> Option<Price> {
    let brand = infer(model, None, None).map_or("openai", |(brand, _)| brand.name);
    table::price_for(model, brand, None, answered)
}
