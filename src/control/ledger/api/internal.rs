//! What Envoy's filter asks: is the ledger there, what may a key do, and here is usage.

use std::sync::Arc;

use axum::http::Method;
use serde_json::json;

use crate::control::ledger::{App, problem::Problem, route::Answer};

/// Answers a call below `/internal/`.
pub async fn answer(app: &Arc<App>, method: &Method, path: &str, _body: &[u8]) -> Result<Answer, Problem> {
    match (method.as_str(), path) {
        ("GET", "ready") => {
            app.db.read().await?;
            Ok(Answer::json(&json!({"status": "ready"})))
        }
        _ => Err(Problem::Detail(404, json!("Not Found"))),
    }
}
