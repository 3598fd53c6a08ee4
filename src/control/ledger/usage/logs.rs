//! A row for each call, and sums by day.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::{AnyConnection, Row as _};

use super::sums::events;
use crate::{
    control::ledger::{bulk, db::DbError, rows::Stored, schema::SPEND_LOGS},
    core::{
        model::call_record::{CallRecord, Cell},
        protocol::Batch,
    },
};

/// Writes a row for each call; for those that failed only when `failures` are kept. A call that has one already keeps it.
pub async fn write(
    connection: &mut AnyConnection,
    events: &[CallRecord],
    failures: bool,
) -> Result<(), DbError> {
    let events: Vec<CallRecord> =
        events.iter().filter(|event| failures || event.error.is_none()).cloned().collect();
    let events = events.as_slice();
    let keys =
        aliases(connection, "token", "key_alias", "tollgate_keys", events, |event| Some(&event.api_key))
            .await?;
    let teams =
        aliases(connection, "team_id", "team_alias", "tollgate_teams", events, |event| event.team.as_ref())
            .await?;
    let names: Vec<&str> = SPEND_LOGS.columns.iter().map(|(name, _)| *name).collect();
    let statement = format!(
        "INSERT INTO {} ({}) VALUES {{}} ON CONFLICT (request_id) DO NOTHING",
        SPEND_LOGS.name,
        names.join(", ")
    );
    let all = events
        .iter()
        .map(|event| {
            let team = event.team.as_ref().and_then(|team| teams.get(team));
            let metadata = metadata(event, keys.get(&event.api_key), team).to_string();
            names.iter().map(|name| column(event, name, &metadata)).collect()
        })
        .collect();
    bulk::run(connection, &statement, all).await?;
    Ok(())
}

/// The value of a column of [`SPEND_LOGS`]: a fact of the call, or what the ledger makes of several.
fn column(record: &CallRecord, name: &str, metadata: &str) -> Stored {
    match (name, record.cell(name)) {
        ("metadata", _) => Stored::from(metadata),
        ("status", _) => Stored::from(status(record)),
        // When it ended nobody knows of calls that were imported.
        ("end_time", _) => Stored::Int(i64::try_from(record.end_ms).ok().filter(|ms| *ms > 0)),
        ("cache_hit", _) => Stored::from("False"),
        ("cache_key", _) => Stored::from("Cache OFF"),
        (_, Some(Cell::Text(text))) => Stored::Text(text.map(str::to_owned)),
        (_, Some(Cell::Number(number))) => Stored::Int(number),
        (_, Some(Cell::Texts(texts))) => Value::from(texts).to_string().into(),
        (_, None) => Stored::Text(None),
    }
}

fn status(event: &CallRecord) -> &'static str {
    if event.error.is_some() { "failure" } else { "success" }
}

/// What LiteLLM's readers find in a row's metadata.
fn metadata(event: &CallRecord, key_alias: Option<&String>, team_alias: Option<&String>) -> Value {
    let mut metadata = json!({
        "status": status(event),
        "user_api_key": event.api_key,
        "user_api_key_alias": key_alias,
        "user_api_key_user_id": event.user,
        "user_api_key_team_id": event.team,
        "user_api_key_team_alias": team_alias,
        "user_api_key_org_id": event.organization,
        "user_api_key_end_user_id": event.end_user,
        "requester_ip_address": event.ip,
        "usage_object": {
            "prompt_tokens": event.prompt_tokens,
            "completion_tokens": event.completion_tokens,
            "total_tokens": event.total_tokens,
        },
        "additional_usage_values": {
            "cache_read_input_tokens": event.cache_read_tokens,
            "cache_creation_input_tokens": event.cache_creation_tokens,
        },
    });
    if let Some(map) = metadata.as_object_mut() {
        if let Some(class) = &event.error {
            let error = json!({"error_code": event.status.unwrap_or(0).to_string(), "error_class": class,
                               "llm_provider": event.provider, "traceback": "",
                               "error_message": event.message.as_deref().unwrap_or_default()});
            map.insert("error_information".to_owned(), error);
        }
        if event.estimated {
            map.insert("usage_estimated".to_owned(), json!(true));
        }
    }
    metadata
}

/// Names by id, of those that the events name.
async fn aliases<'e>(
    connection: &mut AnyConnection,
    key: &str,
    alias: &str,
    table: &str,
    events: &'e [CallRecord],
    id: impl Fn(&'e CallRecord) -> Option<&'e String>,
) -> Result<BTreeMap<String, String>, DbError> {
    let ids: BTreeSet<&String> = events.iter().filter_map(id).collect();
    let statement =
        format!("SELECT {key}, {alias} FROM {table} WHERE {alias} IS NOT NULL AND {key} IN (VALUES {{}})");
    let all = ids.into_iter().map(|id| vec![id.as_str().into()]).collect();
    let rows = bulk::run(connection, &statement, all).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// What is summed by day.
#[derive(Clone, Copy, Debug, Default)]
struct Day {
    spend: i64,
    prompt: i64,
    completion: i64,
    cache_read: i64,
    cache_creation: i64,
    requests: i64,
    failures: i64,
}

impl Day {
    fn add(&mut self, event: &CallRecord, calls: u64, failures: u64) {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.spend = self.spend.saturating_add(event.spend).max(-i64::MAX);
        self.prompt = self.prompt.saturating_add(count(event.prompt_tokens));
        self.completion = self.completion.saturating_add(count(event.completion_tokens));
        self.cache_read = self.cache_read.saturating_add(count(event.cache_read_tokens));
        self.cache_creation = self.cache_creation.saturating_add(count(event.cache_creation_tokens));
        self.requests = self.requests.saturating_add(count(calls));
        self.failures = self.failures.saturating_add(count(failures));
    }
}

/// Adds a batch to the sums by day (UTC).
pub async fn sum(connection: &mut AnyConnection, batch: &Batch) -> Result<(), DbError> {
    let mut days: BTreeMap<[&str; 8], Day> = BTreeMap::new();
    let mut tags: BTreeMap<[&str; 2], Day> = BTreeMap::new();
    let mut end_users: BTreeMap<[&str; 4], Day> = BTreeMap::new();
    let failures = batch
        .events
        .iter()
        // As in `events`: what was refused counts as no call of a model, whose name is any text of a client.
        .filter(|event| !event.refused)
        .map(|event| u64::from(event.error.is_some()))
        .chain(batch.aggregated.iter().map(|aggregated| aggregated.failures));
    let dates: Vec<String> = events(batch).map(|(event, _)| day(event)).collect();
    for (((event, calls), failures), date) in events(batch).zip(failures).zip(&dates) {
        let key = [
            date.as_str(),
            &event.api_key,
            event.user.as_deref().unwrap_or_default(),
            event.team.as_deref().unwrap_or_default(),
            event.organization.as_deref().unwrap_or_default(),
            &event.model,
            &event.model_group,
            &event.provider,
        ];
        days.entry(key).or_default().add(event, calls, failures);
        for tag in &event.tags {
            tags.entry([date, tag]).or_default().add(event, calls, failures);
        }
        if let Some(end_user) = event.end_user.as_deref().filter(|id| !id.is_empty()) {
            let key = [date.as_str(), end_user, &event.api_key, &event.model];
            end_users.entry(key).or_default().add(event, calls, failures);
        }
    }
    upsert(
        connection,
        "tollgate_daily",
        &["day", "api_key", "user_id", "team_id", "organization_id", "model", "model_group", "provider"],
        &[
            "spend",
            "prompt_tokens",
            "completion_tokens",
            "cache_read_tokens",
            "cache_creation_tokens",
            "requests",
            "failures",
        ],
        &days,
    )
    .await?;
    let columns = ["spend", "prompt_tokens", "completion_tokens", "requests", "failures"];
    upsert(connection, "tollgate_daily_tags", &["day", "tag"], &columns, &tags).await?;
    let key = ["day", "end_user", "api_key", "model"];
    let columns = ["spend", "prompt_tokens", "completion_tokens", "requests"];
    upsert(connection, "tollgate_daily_end_users", &key, &columns, &end_users).await
}

async fn upsert<const N: usize>(
    connection: &mut AnyConnection,
    table: &str,
    key: &[&str; N],
    columns: &[&str],
    sums: &BTreeMap<[&str; N], Day>,
) -> Result<(), DbError> {
    let sets: Vec<String> = columns
        .iter()
        .map(|name| {
            format!("{name} = {}", bulk::sum(&format!("{table}.{name}"), &format!("excluded.{name}")))
        })
        .collect();
    let key_names = key.join(", ");
    let statement = format!(
        "INSERT INTO {table} ({key_names}, {}) VALUES {{}} ON CONFLICT ({key_names}) DO UPDATE SET {}",
        columns.join(", "),
        sets.join(", ")
    );
    let value = |day: &Day, name: &str| match name {
        "spend" => day.spend,
        "prompt_tokens" => day.prompt,
        "completion_tokens" => day.completion,
        "cache_read_tokens" => day.cache_read,
        "cache_creation_tokens" => day.cache_creation,
        "requests" => day.requests,
        _ => day.failures,
    };
    let all = sums
        .iter()
        .map(|(key, day)| {
            let ids = key.iter().map(|text| Stored::from(*text));
            ids.chain(columns.iter().map(|name| value(day, name).into())).collect()
        })
        .collect();
    bulk::run(connection, &statement, all).await?;
    Ok(())
}

/// The day of a call, in UTC.
pub(super) fn day(event: &CallRecord) -> String {
    let ms = i64::try_from(event.start_ms).unwrap_or_default();
    let date = Timestamp::from_millisecond(ms).unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC).date();
    date.to_string()
}
