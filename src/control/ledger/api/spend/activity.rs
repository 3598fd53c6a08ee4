//! Requests and tokens by day: `/global/activity`, `/user/daily/activity`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    global::{KeyName, key_names},
    logs::{pages_of, paging},
    sums::{Filter, Owner, Span, Sum, date, sums},
};
use crate::control::ledger::{
    caller::token_of,
    problem::Problem,
    route::{Answer, Call},
    rows::dollars,
};

const COUNTS: [&str; 3] = ["requests", "prompt_tokens", "completion_tokens"];

/// `GET /global/activity`.
pub async fn activity(call: Call) -> Result<Answer, Problem> {
    let filter = Filter::of(&Owner::of(&call.caller)).days(&Span::required(&call)?);
    let mut connection = call.app.db.read().await?;
    let found = sums(&mut connection, "tollgate_daily", &["day"], &COUNTS, &filter, "ORDER BY day").await?;
    Ok(Answer::json(&Value::Object(summed(found.iter())?)))
}

/// `GET /global/activity/model`: the same for each model group, the busiest first.
pub async fn by_model(call: Call) -> Result<Answer, Problem> {
    let filter = Filter::of(&Owner::of(&call.caller)).days(&Span::required(&call)?);
    let mut connection = call.app.db.read().await?;
    let by = ["day", "model_group"];
    let found = sums(&mut connection, "tollgate_daily", &by, &COUNTS, &filter, "ORDER BY day").await?;
    let mut models: BTreeMap<&str, Vec<&Sum>> = BTreeMap::new();
    for sum in &found {
        models.entry(sum.name(1)).or_default().push(sum);
    }
    let mut list = Vec::new();
    for (model, days) in models {
        let mut map = Map::from_iter([("model".to_owned(), json!(model))]);
        map.extend(summed(days.into_iter())?);
        list.push(Value::Object(map));
    }
    list.sort_by_key(|model| std::cmp::Reverse(model.get("sum_api_requests").and_then(Value::as_i64)));
    Ok(Answer::json(&Value::from(list)))
}

fn summed<'s>(days: impl Iterator<Item = &'s Sum>) -> Result<Map<String, Value>, Problem> {
    let (mut requests, mut tokens, mut daily) = (0_i64, 0_i64, Vec::new());
    for day in days {
        let used = day.number(1).saturating_add(day.number(2));
        requests = requests.saturating_add(day.number(0));
        tokens = tokens.saturating_add(used);
        let name = date("day", day.name(0))?.strftime("%b %d").to_string();
        daily.push(json!({"date": name, "api_requests": day.number(0), "total_tokens": used}));
    }
    Ok(Map::from_iter([
        ("daily_data".to_owned(), json!(daily)),
        ("sum_api_requests".to_owned(), json!(requests)),
        ("sum_total_tokens".to_owned(), json!(tokens)),
    ]))
}

/// What a row of `/user/daily/activity` counts.
#[derive(Clone, Copy, Debug, Default)]
struct Metrics {
    spend: i64,
    prompt: i64,
    completion: i64,
    cache_read: i64,
    cache_creation: i64,
    requests: i64,
    failures: i64,
}

const METRICS: [&str; 7] = [
    "spend",
    "prompt_tokens",
    "completion_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "requests",
    "failures",
];

impl Metrics {
    fn add(&mut self, sum: &Sum) {
        let fields = [
            &mut self.spend,
            &mut self.prompt,
            &mut self.completion,
            &mut self.cache_read,
            &mut self.cache_creation,
            &mut self.requests,
            &mut self.failures,
        ];
        for (at, field) in fields.into_iter().enumerate() {
            *field = field.saturating_add(sum.number(at));
        }
    }

    fn shown(&self) -> Value {
        json!({
            "spend": dollars(self.spend),
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "cache_read_input_tokens": self.cache_read,
            "cache_creation_input_tokens": self.cache_creation,
            "total_tokens": self.prompt.saturating_add(self.completion),
            "successful_requests": self.requests.saturating_sub(self.failures),
            "failed_requests": self.failures,
            "api_requests": self.requests,
        })
    }
}

/// Metrics of something, and of each key in it.
#[derive(Default)]
struct Part {
    metrics: Metrics,
    keys: BTreeMap<String, Metrics>,
}

/// One day, broken down.
#[derive(Default)]
struct Day {
    metrics: Metrics,
    /// By what, then by name.
    parts: [BTreeMap<String, Part>; 3],
    keys: BTreeMap<String, Metrics>,
}

const PARTS: [&str; 3] = ["models", "model_groups", "providers"];

impl Day {
    /// Adds a sum grouped by day, model, model group, provider and key.
    fn add(&mut self, sum: &Sum) {
        self.metrics.add(sum);
        let key = sum.name(4);
        self.keys.entry(key.to_owned()).or_default().add(sum);
        for (at, part) in self.parts.iter_mut().enumerate() {
            let part = part.entry(sum.name(at + 1).to_owned()).or_default();
            part.metrics.add(sum);
            part.keys.entry(key.to_owned()).or_default().add(sum);
        }
    }

    fn shown(&self, day: &str, names: &BTreeMap<String, KeyName>) -> Value {
        let keys = |keys: &BTreeMap<String, Metrics>| -> Map<String, Value> {
            let shown = keys.iter().map(|(key, metrics)| {
                let name = names.get(key).cloned().unwrap_or_default();
                let metadata = json!({"key_alias": name.alias, "team_id": name.team});
                (key.clone(), json!({"metrics": metrics.shown(), "metadata": metadata}))
            });
            shown.collect()
        };
        let mut breakdown = Map::new();
        for (name, parts) in PARTS.iter().zip(&self.parts) {
            let shown: Map<String, Value> = parts
                .iter()
                .map(|(name, part)| {
                    let shown = json!({"metrics": part.metrics.shown(), "metadata": {},
                                       "api_key_breakdown": keys(&part.keys)});
                    (name.clone(), shown)
                })
                .collect();
            breakdown.insert((*name).to_owned(), shown.into());
        }
        breakdown.insert("api_keys".to_owned(), keys(&self.keys).into());
        breakdown.insert("entities".to_owned(), json!({}));
        breakdown.insert("mcp_servers".to_owned(), json!({}));
        json!({"date": day, "metrics": self.metrics.shown(), "breakdown": breakdown})
    }
}

/// `GET /user/daily/activity`: a page of days, the newest first; totals are those of the page.
pub async fn of_user(call: Call) -> Result<Answer, Problem> {
    let (page, size) = paging(&call, 50, 1_000)?;
    let filter = Filter::of(&Owner::of(&call.caller))
        .days(&Span::required(&call)?)
        .maybe("user_id", "=", call.parameter("user_id"))
        .maybe("model", "=", call.parameter("model"))
        .maybe("api_key", "=", call.parameter("api_key").map(token_of));
    let mut connection = call.app.db.read().await?;
    let all = sums(&mut connection, "tollgate_daily", &["day"], &[], &filter, "ORDER BY day DESC").await?;
    let skip = usize::try_from((page - 1).saturating_mul(size)).unwrap_or(usize::MAX);
    let shown: Vec<&str> =
        all.iter().map(|sum| sum.name(0)).skip(skip).take(usize::try_from(size).unwrap_or(0)).collect();
    let filter = filter.among("day", shown.iter().map(|day| (*day).to_owned()));
    let by = ["day", "model", "model_group", "provider", "api_key"];
    let found = sums(&mut connection, "tollgate_daily", &by, &METRICS, &filter, "").await?;
    let names = key_names(&mut connection, found.iter().map(|sum| sum.name(4))).await?;
    let (mut days, mut total): (BTreeMap<&str, Day>, Metrics) = Default::default();
    for sum in &found {
        days.entry(sum.name(0)).or_default().add(sum);
        total.add(sum);
    }
    let results: Vec<Value> = days.iter().rev().map(|(day, of)| of.shown(day, &names)).collect();
    let pages = pages_of(i64::try_from(all.len()).unwrap_or(i64::MAX), size);
    Ok(Answer::json(&json!({
        "results": results,
        "metadata": {
            "total_spend": dollars(total.spend),
            "total_prompt_tokens": total.prompt,
            "total_completion_tokens": total.completion,
            "total_tokens": total.prompt.saturating_add(total.completion),
            "total_api_requests": total.requests,
            "total_successful_requests": total.requests.saturating_sub(total.failures),
            "total_failed_requests": total.failures,
            "total_cache_read_input_tokens": total.cache_read,
            "total_cache_creation_input_tokens": total.cache_creation,
            "page": page,
            "total_pages": pages,
            "has_more": page < pages,
        },
    })))
}
