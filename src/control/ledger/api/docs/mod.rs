//! Documentation: the OpenAPI document, and a page that shows it.

mod openapi;

use serde_json::Value;

use crate::control::ledger::{
    problem::Problem,
    route::{Access, Answer, Call, Route},
};

const TAG: &str = "documentation";

/// The routes of this chapter.
pub static ROUTES: &[Route] = &[
    Route {
        method: "GET",
        paths: &["/openapi.json"],
        tag: TAG,
        summary: "Describes every path as an OpenAPI 3.1 document.",
        access: Access::Public,
        query: &[],
        body: &[],
        handler: |call| Box::pin(document(call)),
    },
    Route {
        method: "GET",
        paths: &["/docs", "/redoc", "/"],
        tag: TAG,
        summary: "Shows the OpenAPI document as a page to read and to try calls from.",
        access: Access::Public,
        query: &[],
        body: &[],
        handler: |call| Box::pin(page(call)),
    },
    Route {
        method: "GET",
        paths: &["/docs/page.css"],
        tag: TAG,
        summary: "Looks of that page.",
        access: Access::Public,
        query: &[],
        body: &[],
        handler: |call| Box::pin(style(call)),
    },
    Route {
        method: "GET",
        paths: &["/docs/page.js"],
        tag: TAG,
        summary: "What that page does.",
        access: Access::Public,
        query: &[],
        body: &[],
        handler: |call| Box::pin(script(call)),
    },
];

async fn document(_call: Call) -> Result<Answer, Problem> {
    Ok(Answer::json(&openapi::document()))
}

async fn page(_call: Call) -> Result<Answer, Problem> {
    Ok(file("text/html; charset=utf-8", include_str!("../../page/page.html")))
}

async fn style(_call: Call) -> Result<Answer, Problem> {
    Ok(file("text/css; charset=utf-8", include_str!("../../page/page.css")))
}

async fn script(_call: Call) -> Result<Answer, Problem> {
    Ok(file("text/javascript; charset=utf-8", include_str!("../../page/page.js")))
}

/// A file of the page. It loads nothing from elsewhere and has no script or style inside its HTML, so it works offline and under
/// the strictest content security policy.
fn file(content_type: &'static str, text: &str) -> Answer {
    Answer { content_type, body: text.as_bytes().to_vec(), ..Answer::json(&Value::Null) }
}

#[cfg(test)]
mod tests;
