//! `/global/spend/report`: who spent what with which model, by day.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::{AnyConnection, Row as _};

use super::{
    global::{team_aliases, team_name},
    sums::{Filter, Span, sums},
};
use crate::control::ledger::{
    caller::token_of,
    problem::Problem,
    route::{Answer, Call},
    rows::{self, dollars},
};

/// `GET /global/spend/report`.
pub async fn report(call: Call) -> Result<Answer, Problem> {
    let span = Span::required(&call)?;
    let group = call.parameter("group_by").unwrap_or("team");
    // A report on one key or user is about keys.
    let about_keys = call.parameter("api_key").is_some() || call.parameter("internal_user_id").is_some();
    let mut connection = call.app.db.read().await?;
    let list = match group {
        "api_key" => keys(&call, &mut connection, &span).await?,
        "team" if about_keys => keys(&call, &mut connection, &span).await?,
        "team" => teams(&call, &mut connection, &span).await?,
        "customer" => customers(&call, &mut connection, &span).await?,
        _ => {
            let message = "`group_by` must be team, customer or api_key";
            return Err(Problem::Detail(400, json!({"error": message})));
        }
    };
    Ok(Answer::json(&Value::from(list)))
}

const OF: [&str; 3] = ["spend", "prompt_tokens", "completion_tokens"];

fn filter(call: &Call, span: &Span) -> Filter {
    Filter::default()
        .days(span)
        .maybe("api_key", "=", call.parameter("api_key").map(token_of))
        .maybe("user_id", "=", call.parameter("internal_user_id"))
        .maybe("team_id", "=", call.parameter("team_id"))
}

/// Spend of somebody on a day, and what it is made of.
#[derive(Default)]
struct Share {
    spend: i64,
    parts: Vec<Value>,
}

impl Share {
    fn add(&mut self, model: Option<&str>, api_key: &str, spend: i64, tokens: Option<i64>) {
        self.parts.push(
            json!({"model": model, "spend": dollars(spend), "total_tokens": tokens, "api_key": api_key}),
        );
    }
}

/// Days with everybody's share, in LiteLLM's shape.
fn shown(days: BTreeMap<String, BTreeMap<String, Share>>, list: &str, name: &str) -> Vec<Value> {
    let shown = days.into_iter().map(|(day, shares)| {
        let shares = shares.into_iter().map(
            |(who, share)| json!({name: who, "total_spend": dollars(share.spend), "metadata": share.parts}),
        );
        json!({"group_by_day": format!("{day}T00:00:00+00:00"), list: shares.collect::<Vec<_>>()})
    });
    shown.collect()
}

async fn teams(call: &Call, connection: &mut AnyConnection, span: &Span) -> Result<Vec<Value>, Problem> {
    let by = ["day", "team_id", "model", "api_key"];
    let rest = "ORDER BY day, team_id, model, api_key";
    let found = sums(connection, "tollgate_daily", &by, &OF, &filter(call, span), rest).await?;
    let aliases = team_aliases(connection).await?;
    let mut days: BTreeMap<String, BTreeMap<String, Share>> = BTreeMap::new();
    for sum in &found {
        let team = team_name(&aliases, sum.name(1)).to_owned();
        let share = days.entry(sum.name(0).to_owned()).or_default().entry(team).or_default();
        share.spend = share.spend.saturating_add(sum.number(0));
        share.add(Some(sum.name(2)), sum.name(3), sum.number(0), Some(sum.number(1) + sum.number(2)));
    }
    Ok(shown(days, "teams", "team_name"))
}

/// Totals come from the sums by day, which stay; models and tokens from the rows of single calls, as far as they are kept.
async fn customers(call: &Call, connection: &mut AnyConnection, span: &Span) -> Result<Vec<Value>, Problem> {
    let customer = call.parameter("customer_id");
    let filter = Filter::default().days(span).maybe("end_user", "=", customer);
    let by = ["day", "end_user"];
    let found = sums(connection, "tollgate_daily_end_users", &by, &["spend"], &filter, "").await?;
    let mut days: BTreeMap<String, BTreeMap<String, Share>> = BTreeMap::new();
    for sum in &found {
        let share = Share { spend: sum.number(0), ..Share::default() };
        days.entry(sum.name(0).to_owned()).or_default().insert(sum.name(1).to_owned(), share);
    }
    let (from, until) = span.times();
    let filter = Filter::default()
        .with("start_time", ">=", from)
        .with("start_time", "<", until)
        .with("end_user", "<>", "")
        .maybe("end_user", "=", customer);
    let sql = format!(
        "SELECT start_time / 86400000 AS d, end_user, model, api_key, CAST(SUM(spend) AS BIGINT), \
         CAST(SUM(total_tokens) AS BIGINT) FROM tollgate_spend_logs{} \
         GROUP BY start_time / 86400000, end_user, model, api_key ORDER BY d, end_user, model, api_key",
        filter.sql()
    );
    for row in rows::rows(connection, &sql, filter.values()).await? {
        let day = super::sums::today(row.try_get::<i64, _>(0)?.saturating_mul(86_400_000)).to_string();
        let text = |at: usize| row.try_get::<Option<String>, _>(at).map(Option::unwrap_or_default);
        let Some(share) = days.get_mut(&day).and_then(|shares| shares.get_mut(&text(1).ok()?)) else {
            continue;
        };
        share.add(Some(&text(2)?), &text(3)?, row.try_get(4)?, row.try_get(5)?);
    }
    Ok(shown(days, "customers", "customer"))
}

async fn keys(call: &Call, connection: &mut AnyConnection, span: &Span) -> Result<Vec<Value>, Problem> {
    let by = ["api_key", "model"];
    let rest = "ORDER BY api_key, 3 DESC, model";
    let found = sums(connection, "tollgate_daily", &by, &OF, &filter(call, span), rest).await?;
    let mut keys: BTreeMap<&str, ([i64; 3], Vec<Value>)> = BTreeMap::new();
    for sum in &found {
        let ([spend, input, output], models) = keys.entry(sum.name(0)).or_default();
        *spend = spend.saturating_add(sum.number(0));
        *input = input.saturating_add(sum.number(1));
        *output = output.saturating_add(sum.number(2));
        models.push(json!({
            "model": sum.name(1), "total_cost": dollars(sum.number(0)),
            "total_input_tokens": sum.number(1), "total_output_tokens": sum.number(2),
        }));
    }
    let shown = keys.into_iter().map(|(key, ([spend, input, output], models))| {
        json!({
            "api_key": key, "total_cost": dollars(spend), "total_input_tokens": input,
            "total_output_tokens": output, "model_details": models,
        })
    });
    Ok(shown.collect())
}
