//! `/spend/logs`: single calls, pages of them, and their sums by day.

use std::collections::BTreeMap;

use jiff::ToSpan as _;
use serde_json::{Map, Value, json};
use sqlx::{AnyConnection, Row as _};

use super::sums::{Amounts, Filter, Moment, Owner, Span, date, moment, sums};
use crate::control::ledger::{
    caller::token_of,
    db::DbError,
    problem::Problem,
    route::{Answer, Call, Field, Type},
    rows::{self, Record, dollars},
    schema::SPEND_LOGS,
};

/// What `/spend/logs` can be asked.
pub const QUERY: &[Field] = &[
    Field::new("api_key", Type::Text, "Only calls of this key, given raw or as its hash."),
    Field::new("user_id", Type::Text, "Only calls of this user."),
    Field::new("request_id", Type::Text, "Only the call with this id."),
    Field::new("team_id", Type::Text, "Only calls of this team."),
    Field::new("end_user", Type::Text, "Only calls of this end user."),
    Field::new("model", Type::Text, "Only calls of this model at its provider."),
    Field::new("model_group", Type::Text, "Only calls that this model group served."),
    Field::new("session_id", Type::Text, "Only calls of this session."),
    Field::new("status_filter", Type::Text, "Only calls that ended so: success or failure."),
    Field::new("min_spend", Type::Money, "Only calls that cost at least this."),
    Field::new("max_spend", Type::Money, "Only calls that cost at most this."),
    Field::new("start_date", Type::Text, "First day, such as 2026-01-01 (UTC); of single calls a time too."),
    Field::new("end_date", Type::Text, "Last day (of single calls a time too), included."),
    Field::new("summarize", Type::Bool, "Sums by day when both days are given; true unless said otherwise."),
    Field::new("page", Type::Int, "Answers this page, from 1, with totals."),
    Field::new("page_size", Type::Int, "Calls on a page: 1 to 1000, 50 unless said otherwise."),
    Field::new(
        "cursor",
        Type::Text,
        "Goes on after a page's `next_cursor`: no call is left out or answered twice while others come in.",
    ),
];

/// At most so many calls are answered without paging: the newest.
const MOST_ROWS: i64 = 10_000;
/// Sums by day cover at most so many days: ten years.
const MOST_DAYS: i64 = 3_660;

/// `GET /spend/logs`.
pub async fn logs(call: Call) -> Result<Answer, Problem> {
    if ["page", "page_size", "cursor"].iter().any(|name| call.query.contains_key(*name)) {
        return pages(call).await;
    }
    let span = Span::of(&call)?;
    let summarize = call.query.get("summarize").and_then(Value::as_bool).unwrap_or(true);
    let single = ["request_id", "end_user", "session_id", "status_filter", "min_spend", "max_spend"];
    let mut connection = call.app.db.read().await?;
    if let Some(span) = span
        && summarize
        && single.iter().all(|name| !call.query.contains_key(*name))
    {
        return by_day(&call, &mut connection, &span).await;
    }
    let rows = select(&mut connection, &filter(&call)?, MOST_ROWS, 0).await?;
    Ok(Answer::json(&rows.into_iter().map(renamed).collect()))
}

/// `GET /spend/logs/v2`, and `/spend/logs` when a page is asked for.
pub async fn pages(call: Call) -> Result<Answer, Problem> {
    let (page, size) = paging(&call, 50, 1_000)?;
    let filter = filter(&call)?;
    let mut connection = call.app.db.read().await?;
    if let Some(cursor) = call.parameter("cursor") {
        // Counting all of them again for every page would cost more than the page.
        let (rows, next) = page_of(&mut connection, &after(filter, cursor)?, size, 0).await?;
        return Ok(Answer::json(&json!({"data": rows, "page_size": size, "next_cursor": next})));
    }
    let sql = format!("SELECT COUNT(*) FROM {}{}", SPEND_LOGS.name, filter.sql());
    let counted = rows::rows(&mut connection, &sql, filter.values()).await?;
    let total: i64 = counted.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
    let (rows, next) = page_of(&mut connection, &filter, size, (page - 1).saturating_mul(size)).await?;
    Ok(Answer::json(&json!({
        "data": rows, "total": total, "page": page, "page_size": size, "total_pages": pages_of(total, size),
        "next_cursor": next,
    })))
}

/// A page, and the cursor of what follows when something does.
async fn page_of(
    connection: &mut AnyConnection,
    filter: &Filter,
    size: i64,
    offset: i64,
) -> Result<(Vec<Value>, Option<String>), DbError> {
    let mut rows = select(connection, filter, size.saturating_add(1), offset).await?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let is_last = rows.len() <= size;
    rows.truncate(size);
    let next = rows.last().filter(|_| !is_last).and_then(cursor);
    Ok((rows.into_iter().map(renamed).collect(), next))
}

/// Where a row stands in the order of lists: its time, then its id.
fn cursor(row: &Record) -> Option<String> {
    let ms = row.get("start_time").and_then(rows::time)?;
    Some(format!("{ms}:{}", row.get("request_id").and_then(Value::as_str)?))
}

/// And behind a cursor.
pub(super) fn after(filter: Filter, cursor: &str) -> Result<Filter, Problem> {
    let read = cursor.split_once(':').and_then(|(ms, id)| Some((ms.parse::<i64>().ok()?, id)));
    let Some((ms, id)) = read else {
        let message = "`cursor` must be the `next_cursor` of the page before";
        return Err(Problem::Detail(400, json!({"error": message})));
    };
    // The first condition alone decides where the index is entered.
    Ok(filter.with("start_time", "<=", ms).with_either(("start_time", "<", ms), ("request_id", ">", id)))
}

/// `page` and `page_size`, within their limits.
pub fn paging(call: &Call, size: i64, largest: i64) -> Result<(i64, i64), Problem> {
    Ok((number(call, "page", 1, i64::MAX)?, number(call, "page_size", size, largest)?))
}

/// A number of the query from 1 to the largest.
pub fn number(call: &Call, name: &str, default: i64, largest: i64) -> Result<i64, Problem> {
    let number = call.number(name).unwrap_or(default);
    let (kind, message) = match number {
        ..1 => ("greater_than_equal", "Input should be greater than or equal to 1".to_owned()),
        n if n > largest => ("less_than_equal", format!("Input should be less than or equal to {largest}")),
        _ => return Ok(number),
    };
    Err(Problem::invalid("query", name, kind, &message, &json!(number.to_string())))
}

/// How many pages of a size hold so many rows.
pub fn pages_of(total: i64, size: i64) -> i64 {
    total / size + i64::from(total % size > 0)
}

/// Single calls that the query means and the caller may see.
fn filter(call: &Call) -> Result<Filter, Problem> {
    let mut filter = Filter::of(&Owner::of(&call.caller))
        .maybe_any(&["request_id", "response_id", "call_id"], call.parameter("request_id"))
        .maybe("api_key", "=", call.parameter("api_key").map(token_of));
    for column in ["user_id", "team_id", "end_user", "model", "model_group", "session_id"] {
        filter = filter.maybe(column, "=", call.parameter(column));
    }
    let amount = |name: &str| call.query.get(name).and_then(rows::money);
    filter = match call.parameter("status_filter") {
        None => filter,
        // Not as values: the index of failures serves a statement that names them.
        Some("failure") => filter.and("status = 'failure'"),
        Some("success") => filter.and("status = 'success'"),
        Some(_) => {
            let message = "`status_filter` must be success or failure";
            return Err(Problem::Detail(400, json!({"error": message})));
        }
    };
    filter = filter.maybe("spend", ">=", amount("min_spend")).maybe("spend", "<=", amount("max_spend"));
    if let Some(text) = call.parameter("start_date") {
        let from = match moment("start_date", text)? {
            Moment::Day(day) => Span { first: day, last: day }.times().0,
            Moment::Time(ms) => ms,
        };
        filter = filter.with("start_time", ">=", from);
    }
    if let Some(text) = call.parameter("end_date") {
        filter = match moment("end_date", text)? {
            Moment::Day(day) => filter.with("start_time", "<", Span { first: day, last: day }.times().1),
            Moment::Time(ms) => filter.with("start_time", "<=", ms),
        };
    }
    Ok(filter)
}

/// Rows, the newest first. The order is that of the indexes, so a page costs what stands before it in the index.
async fn select(
    connection: &mut AnyConnection,
    filter: &Filter,
    limit: i64,
    offset: i64,
) -> Result<Vec<Record>, DbError> {
    let sql = format!("{} LIMIT {limit} OFFSET {offset}", listing(filter));
    let found = rows::rows(connection, &sql, filter.values()).await?;
    found.iter().map(|row| rows::shown(&SPEND_LOGS, row)).collect()
}

pub(super) fn listing(filter: &Filter) -> String {
    let names: Vec<&str> = SPEND_LOGS.columns.iter().map(|(name, _)| *name).collect();
    let (names, table) = (names.join(", "), SPEND_LOGS.name);
    format!("SELECT {names} FROM {table}{} ORDER BY start_time DESC, request_id", filter.sql())
}

/// A row under LiteLLM's names and with no others; what is never stored stands there as empty objects.
fn renamed(row: Record) -> Value {
    // The id of the answer, else that of the call: what a client knows.
    let mut known = ["response_id", "call_id", "request_id"].into_iter();
    let known =
        known.find_map(|name| row.get(name).filter(|id| id.as_str().is_some_and(|id| !id.is_empty())));
    let id = known.cloned().unwrap_or_default();
    let mut shown: Map<String, Value> = row
        .into_iter()
        .filter(|(name, _)| !matches!(name.as_str(), "organization_id" | "response_id" | "call_id"))
        .map(|(name, value)| {
            let name = match name.as_str() {
                "start_time" => "startTime",
                "end_time" => "endTime",
                "completion_start_time" => "completionStartTime",
                "user_id" => "user",
                _ => return (name, value),
            };
            (name.to_owned(), value)
        })
        .collect();
    shown.insert("request_id".to_owned(), id);
    for name in ["messages", "response", "proxy_server_request"] {
        shown.insert(name.to_owned(), json!({}));
    }
    Value::Object(shown)
}

/// What a day cost, by key, user and model.
#[derive(Default)]
struct Day {
    spend: i64,
    keys: Amounts,
    users: Amounts,
    models: Amounts,
}

impl Day {
    fn shown(&self, day: &str) -> Value {
        let mut map = self.keys.members();
        map.insert("users".to_owned(), self.users.members().into());
        map.insert("models".to_owned(), self.models.members().into());
        map.insert("spend".to_owned(), dollars(self.spend));
        map.insert("startTime".to_owned(), json!(day));
        Value::Object(map)
    }
}

/// Sums by day. Days after the last call are there with nothing, days between calls are not, as in LiteLLM.
async fn by_day(call: &Call, connection: &mut AnyConnection, span: &Span) -> Result<Answer, Problem> {
    if span.days() > MOST_DAYS {
        let message = format!("`start_date` and `end_date` must be at most {MOST_DAYS} days apart");
        return Err(Problem::Detail(400, json!({"error": message})));
    }
    let mut filter = Filter::of(&Owner::of(&call.caller)).days(span).maybe(
        "api_key",
        "=",
        call.parameter("api_key").map(token_of),
    );
    for column in ["user_id", "team_id", "model", "model_group"] {
        filter = filter.maybe(column, "=", call.parameter(column));
    }
    let by = ["day", "api_key", "user_id", "model"];
    let found = sums(connection, "tollgate_daily", &by, &["spend"], &filter, "").await?;
    let mut days: BTreeMap<&str, Day> = BTreeMap::new();
    for sum in &found {
        let day = days.entry(sum.name(0)).or_default();
        let amount = sum.number(0);
        day.spend = day.spend.saturating_add(amount);
        day.keys.add(sum.name(1), amount);
        day.users.add(sum.name(2), amount);
        day.models.add(sum.name(3), amount);
    }
    let mut list: Vec<Value> = days.iter().map(|(name, day)| day.shown(name)).collect();
    if let Some(last) = days.keys().next_back() {
        let mut next = date("day", last)?.checked_add(1.days()).ok();
        while let Some(day) = next.filter(|day| *day <= span.last) {
            list.push(json!({"startTime": day.to_string(), "spend": 0, "users": {}, "models": {}}));
            next = day.checked_add(1.days()).ok();
        }
    }
    Ok(Answer::json(&Value::from(list)))
}
