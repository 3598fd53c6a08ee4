//! What a gateway asks. Its filter: is the ledger there, what may a key do, and here is usage. Its command: which models are
//! stored.

use std::sync::Arc;

use axum::http::Method;
use serde_json::{Value, json, to_value};

use crate::{
    control::ledger::{App, grants, live, problem::Problem, route::Answer, serve::unescape, tokens, usage},
    core::protocol::SyncRequest,
};

/// Answers a call below `/internal/`.
pub async fn answer(
    app: &Arc<App>,
    method: &Method,
    path: &str,
    query: &str,
    body: &[u8],
) -> Result<Answer, Problem> {
    let (chapter, rest) = path.split_once('/').unwrap_or((path, ""));
    match (method.as_str(), chapter, rest) {
        // Whatever its database does: it takes calls and answers them.
        ("GET", "alive", "") => Ok(Answer::json(&json!({"status": "alive"}))),
        ("GET", "ready", "") => {
            app.db.read().await?;
            Ok(Answer::json(&json!({"status": "ready"})))
        }
        ("GET", "keys", hash) if !hash.is_empty() => match grants::grant(app, &unescape(hash)).await? {
            Some(grant) => written(&grant),
            None => Err(Problem::Detail(404, json!("there is no such key"))),
        },
        ("GET", "end_users", id) if !id.is_empty() => written(&grants::end_user(app, &unescape(id)).await?),
        ("GET", "models", "") => match live::models(app, &live::Asked::of(query)?).await? {
            Some(models) => written(&models),
            None => Ok(Answer { status: 204, ..Answer::json(&Value::Null) }),
        },
        ("POST", "sync", "") => {
            let request: SyncRequest = serde_json::from_slice(body).map_err(|error| {
                Problem::Detail(400, json!(format!("the body is not what a node says: {error}")))
            })?;
            written(&usage::sync(app, &request).await?)
        }
        ("POST", "texts", "") => Ok(Answer::json(&json!({"input": tokens::texts(body).await?}))),
        _ => Err(Problem::Detail(404, json!("Not Found"))),
    }
}

fn written(answer: &impl serde::Serialize) -> Result<Answer, Problem> {
    let value = to_value(answer)
        .map_err(|error| Problem::Detail(500, json!(format!("the answer cannot be written: {error}"))))?;
    Ok(Answer::json(&value))
}
