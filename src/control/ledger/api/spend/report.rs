//! `/global/spend/report`: who spent what with which model, by day.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::AnyConnection;

use super::{
    global::{team_aliases, team_name},
    sums::{Filter, Span, Sum, sums},
};
use crate::control::ledger::{
    caller::token_of,
    problem::Problem,
    route::{Answer, Call},
    rows::dollars,
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
    /// Adds a sum of a day and somebody, by model and key.
    fn add(&mut self, sum: &Sum) {
        let spend = sum.number(0);
        self.spend = self.spend.saturating_add(spend);
        let tokens = sum.number(1).saturating_add(sum.number(2));
        self.parts.push(
            json!({"model": sum.name(2), "spend": dollars(spend), "total_tokens": tokens, "api_key": sum.name(3)}),
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
    Ok(shown(shares(&found, |id| team_name(&aliases, id)), "teams", "team_name"))
}

async fn customers(call: &Call, connection: &mut AnyConnection, span: &Span) -> Result<Vec<Value>, Problem> {
    let filter = Filter::default()
        .days(span)
        .maybe("api_key", "=", call.parameter("api_key").map(token_of))
        .maybe("end_user", "=", call.parameter("customer_id"));
    let by = ["day", "end_user", "model", "api_key"];
    let order = "ORDER BY day, end_user, model, api_key";
    let found = sums(connection, "tollgate_daily_end_users", &by, &OF, &filter, order).await?;
    Ok(shown(shares(&found, |customer| customer), "customers", "customer"))
}

/// Everybody's share by day, of sums by day, who, model and key.
fn shares<'s>(
    found: &'s [Sum],
    name: impl Fn(&'s str) -> &'s str,
) -> BTreeMap<String, BTreeMap<String, Share>> {
    let mut days: BTreeMap<String, BTreeMap<String, Share>> = BTreeMap::new();
    for sum in found {
        let day = days.entry(sum.name(0).to_owned()).or_default();
        day.entry(name(sum.name(1)).to_owned()).or_default().add(sum);
    }
    days
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
