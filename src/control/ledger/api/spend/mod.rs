//! Spend: logs, sums, prices.
//!
//! Sums come from the tables of days, so they cost the same with a thousand calls and with a billion; only `/spend/logs` looks
//! at single calls, along their indexes. Days are days in UTC.

mod activity;
mod calculate;
mod global;
mod logs;
mod report;
mod sums;

use serde_json::{Value, json};
use sqlx::Row as _;

use crate::control::ledger::{
    prices,
    problem::{ErrorStatus, Problem},
    route::{Access, Answer, Call, Field, Route, Type},
    rows::{self, Select, Where, dollars},
    schema::{KEYS, USERS},
};
use sums::Owner;

const START: Field = Field::new("start_date", Type::Text, "First day, such as 2026-01-01 (UTC).");
const END: Field = Field::new("end_date", Type::Text, "Last day, included.");
/// Rows of a list that names no smaller number: the dearest.
const MOST_LISTED: i64 = 10_000;

const LIMIT: Field = Field::new("limit", Type::Int, "At most so many: 1 to 10000, which it is unless said.");
const PAGE: Field = Field::new("page", Type::Int, "Page, from 1.");
const PAGE_SIZE: Field =
    Field::new("page_size", Type::Int, "Rows on a page: 1 to 10000, which it is unless said.");
const KEY: Field = Field::new("api_key", Type::Text, "Only spend of this key, given raw or as its hash.");
const SPAN: &[Field] = &[START, END];
const TAG: &str = "spend";

const fn get(
    paths: &'static [&'static str],
    access: Access,
    summary: &'static str,
    query: &'static [Field],
    handler: crate::control::ledger::route::Handler,
) -> Route {
    Route { method: "GET", paths, tag: TAG, summary, access, query, body: &[], handler }
}

const fn post(
    paths: &'static [&'static str],
    access: Access,
    summary: &'static str,
    body: &'static [Field],
    handler: crate::control::ledger::route::Handler,
) -> Route {
    Route { method: "POST", paths, tag: TAG, summary, access, query: &[], body, handler }
}

/// The routes of this chapter.
pub static ROUTES: &[Route] = &[
    get(
        &["/spend/logs"],
        Access::AnyKey,
        "Lists calls, or sums them by day when both days are given; others than admins see their own.",
        logs::QUERY,
        |call| Box::pin(logs::logs(call)),
    ),
    get(
        &["/spend/logs/v2", "/spend/logs/ui"],
        Access::AnyKey,
        "Lists calls page by page, the newest first; others than admins see their own.",
        logs::QUERY,
        |call| Box::pin(logs::pages(call)),
    ),
    get(
        &["/spend/keys"],
        Access::AnyKey,
        "Lists keys, the dearest first; others than admins see their own.",
        &[PAGE, PAGE_SIZE],
        |call| Box::pin(keys(call)),
    ),
    get(
        &["/spend/users"],
        Access::AnyKey,
        "Lists users, the dearest first; others than admins see themselves.",
        &[Field::new("user_id", Type::Text, "Only this user."), PAGE, PAGE_SIZE],
        |call| Box::pin(users(call)),
    ),
    get(&["/spend/tags"], Access::Viewer, "Sums spend by request tag.", SPAN, |call| {
        Box::pin(global::tags_by_log(call))
    }),
    post(
        &["/spend/calculate"],
        Access::AnyKey,
        "Says what a request or an answer costs.",
        &[
            Field::new("model", Type::Text, "Model group, or a model of the price list."),
            Field::new("messages", Type::List, "Chat messages whose tokens are counted."),
            Field::new("completion_response", Type::Object, "An answer with its usage."),
        ],
        |call| Box::pin(calculate::calculate(call)),
    ),
    get(&["/global/spend"], Access::Viewer, "Says what the gateway spent, and its budget.", &[], |call| {
        Box::pin(global::total(call))
    }),
    get(
        &["/global/spend/logs"],
        Access::AnyKey,
        "Sums the last 30 days' spend by day; others than admins see their own.",
        &[KEY],
        |call| Box::pin(global::days(call)),
    ),
    get(
        &["/global/spend/keys"],
        Access::AnyKey,
        "Lists the keys that spent most in the last 30 days; others than admins see their own.",
        &[LIMIT],
        |call| Box::pin(global::keys(call)),
    ),
    get(
        &["/global/spend/teams"],
        Access::Viewer,
        "Sums the last 30 days' spend by day and team.",
        &[],
        |call| Box::pin(global::teams(call)),
    ),
    get(
        &["/global/spend/models"],
        Access::AnyKey,
        "Lists the models that cost most in the last 30 days; others than admins see their own.",
        &[LIMIT],
        |call| Box::pin(global::models(call)),
    ),
    post(
        &["/global/spend/end_users"],
        Access::Viewer,
        "Lists the hundred end users that cost most; in the last 30 days unless said otherwise.",
        &[
            Field::new("api_key", Type::Text, "Only what they spent with this key."),
            Field::new("startTime", Type::Text, "First day."),
            Field::new("endTime", Type::Text, "Last day, included."),
        ],
        |call| Box::pin(global::end_users(call)),
    ),
    get(
        &["/global/spend/provider"],
        Access::AnyKey,
        "Sums spend by provider; others than admins see their own.",
        SPAN,
        |call| Box::pin(global::providers(call)),
    ),
    get(
        &["/global/spend/report"],
        Access::Viewer,
        "Says who spent what with which model, by day.",
        &[
            START,
            END,
            Field::new("group_by", Type::Text, "team, customer or api_key; team unless said otherwise."),
            KEY,
            Field::new("internal_user_id", Type::Text, "Only keys of this user."),
            Field::new("team_id", Type::Text, "Only this team."),
            Field::new("customer_id", Type::Text, "Only this customer."),
        ],
        |call| Box::pin(report::report(call)),
    ),
    get(
        &["/global/spend/tags"],
        Access::Viewer,
        "Sums spend by request tag.",
        &[START, END, Field::new("tags", Type::Texts, "Only these tags, with commas between them.")],
        |call| Box::pin(global::tags(call)),
    ),
    get(
        &["/global/spend/all_tag_names"],
        Access::Viewer,
        "Lists the request tags there have been.",
        &[],
        |call| Box::pin(global::tag_names(call)),
    ),
    post(
        &["/global/spend/reset"],
        Access::Admin,
        "Sets the spend of all keys and teams to nothing; only for the master key.",
        &[],
        |call| Box::pin(global::reset(call)),
    ),
    get(
        &["/global/activity"],
        Access::AnyKey,
        "Counts requests and tokens by day; others than admins see their own.",
        SPAN,
        |call| Box::pin(activity::activity(call)),
    ),
    get(
        &["/global/activity/model"],
        Access::AnyKey,
        "Counts requests and tokens by model group and day; others than admins see their own.",
        SPAN,
        |call| Box::pin(activity::by_model(call)),
    ),
    get(
        &["/user/daily/activity"],
        Access::AnyKey,
        "Breaks spend, tokens and requests down by day, model, provider and key; others than admins see their own.",
        &[
            START,
            END,
            Field::new("user_id", Type::Text, "Only this user."),
            Field::new("model", Type::Text, "Only this model at its provider."),
            KEY,
            PAGE,
            Field::new("page_size", Type::Int, "Days on a page: 1 to 1000, 50 unless said otherwise."),
        ],
        |call| Box::pin(activity::of_user(call)),
    ),
    get(&["/provider/budgets"], Access::Viewer, "Lists the budgets of providers.", &[], |call| {
        Box::pin(provider_budgets(call))
    }),
    get(&["/get/litellm_model_cost_map"], Access::AnyKey, "Answers the price list.", &[], |call| {
        Box::pin(cost_map(call))
    }),
];

/// `GET /spend/keys`.
async fn keys(call: Call) -> Result<Answer, Problem> {
    let own = match Owner::of(&call.caller) {
        Owner::All => Vec::new(),
        Owner::User(user) => vec![Where::Is("user_id", json!(user))],
        Owner::Key(token) => vec![Where::Is("token", json!(token))],
    };
    let mut connection = call.app.db.read().await?;
    let select = dearest(&call, own)?;
    let found = rows::select(&mut connection, &KEYS, &select).await?;
    Ok(Answer::json(&found.into_iter().map(Value::Object).collect()))
}

/// `GET /spend/users`.
async fn users(call: Call) -> Result<Answer, Problem> {
    let mut conditions = match Owner::of(&call.caller) {
        Owner::All => Vec::new(),
        Owner::User(user) => vec![Where::Is("user_id", json!(user))],
        Owner::Key(_) => vec![Where::In("user_id", Vec::new())],
    };
    conditions.extend(call.parameter("user_id").map(|user| Where::Is("user_id", json!(user))));
    let mut connection = call.app.db.read().await?;
    let select = dearest(&call, conditions)?;
    let found = rows::select(&mut connection, &USERS, &select).await?;
    Ok(Answer::json(&found.into_iter().map(Value::Object).collect()))
}

/// A page of a list that LiteLLM answers whole: without a page it is as much of it as makes sense.
fn dearest(call: &Call, conditions: Vec<Where>) -> Result<Select, Problem> {
    let (page, size) = logs::paging(call, MOST_LISTED, MOST_LISTED)?;
    let offset = (page - 1).saturating_mul(size);
    Ok(Select { order: Some(("spend", true)), limit: Some(size), offset, conditions })
}

/// `GET /provider/budgets`: those of `provider_budget_config`, and what is spent of them.
async fn provider_budgets(call: Call) -> Result<Answer, Problem> {
    let config = call.app.config();
    let mut connection = call.app.db.read().await?;
    let mut budgets: Vec<_> = config.router.provider_budgets.iter().collect();
    budgets.sort_by_key(|(provider, _)| provider.as_str());
    let mut shown = serde_json::Map::new();
    for (provider, budget) in budgets {
        let sql = "SELECT spend, reset_at FROM tollgate_windows WHERE meter = $1";
        let found = rows::rows(&mut connection, sql, vec![format!("provider:{provider}").into()]).await?;
        let (spend, reset_at) = match found.first() {
            Some(row) => (row.try_get::<i64, _>(0)?, row.try_get::<Option<i64>, _>(1)?),
            None => (0, None),
        };
        let is_over = reset_at.is_some_and(|at| at <= call.now_ms);
        let limit = i64::try_from(budget.max.pico()).unwrap_or(i64::MAX);
        shown.insert(
            provider.clone(),
            json!({
                "budget_limit": dollars(limit), "time_period": budget.period,
                "spend": dollars(if is_over { 0 } else { spend }), "budget_reset_at": reset_at.map(rows::time_text),
            }),
        );
    }
    Ok(Answer::json(&json!({"providers": shown})))
}

/// `GET /get/litellm_model_cost_map`.
async fn cost_map(_call: Call) -> Result<Answer, Problem> {
    let read = tokio::task::spawn_blocking(prices::all).await;
    let body = read.map_err(|_| {
        Problem::refused(ErrorStatus::INTERNAL_SERVER_ERROR, "the price list could not be read")
    })?;
    Ok(Answer { body, ..Answer::json(&Value::Null) })
}

#[cfg(test)]
mod tests;
