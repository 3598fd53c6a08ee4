//! Utilities: counting tokens, parameters of models.

use serde_json::{Value, json};

use crate::{
    control::ledger::{
        api::models::{Served, served},
        caller::Caller,
        problem::{ErrorStatus, Problem},
        route::{Access, Answer, Call, Field, Route, Type},
        tokens::{self, Prompt},
    },
    core::{
        access::{self, authorize, refusals},
        config::accepts,
        error::ModelOwner,
        model::accepts::Accepts,
        provider::infer,
    },
};

const TAG: &str = "utilities";

/// The routes of this chapter.
pub static ROUTES: &[Route] = &[
    Route {
        method: "POST",
        paths: &["/utils/token_counter"],
        tag: TAG,
        summary: "Counts the tokens of a prompt or of chat messages, without calling anybody.",
        access: Access::AnyKey,
        query: &[],
        body: &[
            Field::required("model", Type::Text, "Model group, or a model's name."),
            Field::new("prompt", Type::Text, "Text."),
            Field::new("messages", Type::List, "Chat messages."),
            Field::new("tools", Type::List, "Tools of a chat request."),
            Field::new("tool_choice", Type::Any, "Choice of tools of a chat request."),
        ],
        handler: |call| Box::pin(token_counter(call)),
    },
    Route {
        method: "GET",
        paths: &["/utils/supported_openai_params"],
        tag: TAG,
        summary: "Lists the OpenAI parameters that a model takes.",
        access: Access::AnyKey,
        query: &[Field::required("model", Type::Text, "Model group, or a model with its provider in front.")],
        body: &[],
        handler: |call| Box::pin(supported_openai_params(call)),
    },
];

/// `POST /utils/token_counter`.
async fn token_counter(call: Call) -> Result<Answer, Problem> {
    let model = call.text("model").unwrap_or_default().to_owned();
    let list = |name: &str| call.body.get(name).and_then(Value::as_array).cloned();
    let (text, messages) = (call.text("prompt").map(str::to_owned), list("messages"));
    if text.is_none() && messages.is_none() {
        return Err(Problem::refused(ErrorStatus::BAD_REQUEST, "prompt or messages must be provided"));
    }
    let (used, tokenizer) = match served_to(&call, &model).await? {
        Some(served) => (served.model(), served.tokenizer_model()),
        None => (model.clone(), model.clone()),
    };
    let prompt = Prompt {
        text: text.filter(|_| messages.is_none()),
        messages: messages.unwrap_or_default(),
        tools: list("tools").unwrap_or_default(),
        tool_choice: call.body.get("tool_choice").cloned(),
    };
    let total = tokens::count(&tokenizer, prompt).await?;
    Ok(Answer::json(&json!({
        "total_tokens": total,
        "request_model": model,
        "model_used": used,
        "tokenizer_type": "openai_tokenizer",
    })))
}

/// The deployment that would serve a model, for somebody who may call it: what it stands for and costs is nobody else's to know.
pub async fn served_to(call: &Call, model: &str) -> Result<Option<Served>, Problem> {
    let served = served(&call.app, model).await?;
    if served.is_some() && !may_call(call, model) {
        return Err(Problem::Error(refusals::model(ModelOwner::Key, &models_of(call), model)));
    }
    Ok(served)
}

/// Whether the caller may call a model.
fn may_call(call: &Call, model: &str) -> bool {
    let Caller::Key(holder) = &call.caller else { return true };
    if call.caller.may_see_all() {
        return true;
    }
    let asked = authorize::AuthorizeRequest {
        model,
        fallbacks: Vec::new(),
        end_user: None,
        names_user: true,
        has_param: &|_| true,
    };
    let caller = access::Caller::Key(holder.grant.clone().into());
    let config = call.app.config();
    authorize::authorize(&caller, &asked, &config).is_ok()
}

fn models_of(call: &Call) -> Vec<String> {
    match &call.caller {
        Caller::Key(holder) => holder.grant.key.models.clone(),
        Caller::Master => Vec::new(),
    }
}

/// `GET /utils/supported_openai_params`.
async fn supported_openai_params(call: Call) -> Result<Answer, Problem> {
    let model = call.parameter("model").unwrap_or_default();
    let served = served_to(&call, model).await?;
    let params = match served.as_ref().and_then(|served| Some((served.deployment()?, served.model()))) {
        Some((deployment, model)) => Some(supported_params(deployment.accepts_of(&model))),
        None => {
            infer(model, None, None).ok().map(|(brand, model)| supported_params(accepts::of(brand, &model)))
        }
    };
    let Some(params) = params else {
        return Err(Problem::Detail(400, json!({"error": format!("Could not map model={model}")})));
    };
    Ok(Answer::json(&json!({"supported_openai_params": params})))
}

/// The names of the chat parameters that a model takes.
pub fn supported_params(accepts: Accepts) -> Vec<&'static str> {
    accepts.listed().names().collect()
}

#[cfg(test)]
mod tests;
