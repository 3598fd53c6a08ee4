//! Rows as JSON: reading, writing and listing the tables of [`schema`](super::schema).

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sqlx::{
    Any, AnyConnection, AssertSqlSafe, Row as _,
    any::{AnyArguments, AnyRow},
    query::Query,
};

use super::{
    db::DbError,
    schema::{Kind, Table},
};
use crate::core::model::money::Money;

/// A row as the management API shows it.
pub type Record = Map<String, Value>;

/// A condition on a column. Values are as shown in JSON.
#[derive(Clone, Debug)]
pub enum Where {
    /// Equal.
    Is(&'static str, Value),
    /// Equal to one of them.
    In(&'static str, Vec<Value>),
    /// The same text, whatever the case of its letters.
    Same(&'static str, String),
    /// Text that holds this, whatever the case of its letters.
    Holds(&'static str, String),
    /// A list that has this item.
    Has(&'static str, String),
    /// At least.
    From(&'static str, Value),
    /// Less than.
    Before(&'static str, Value),
    /// Nothing is stored.
    Empty(&'static str),
    /// Any of these.
    Any(Vec<Where>),
}

/// Which rows, in which order.
#[derive(Clone, Debug, Default)]
pub struct Select {
    /// All must hold.
    pub conditions: Vec<Where>,
    /// Column and whether the largest comes first. The key of the table breaks ties, so pages never overlap.
    pub order: Option<(&'static str, bool)>,
    /// At most this many.
    pub limit: Option<i64>,
    /// After leaving out this many.
    pub offset: i64,
}

impl Select {
    /// Rows for which all conditions hold.
    pub fn all(conditions: Vec<Where>) -> Select {
        Select { conditions, ..Select::default() }
    }
}

/// The row with this key.
pub async fn get(
    connection: &mut AnyConnection,
    table: &Table,
    key: &[&str],
) -> Result<Option<Record>, DbError> {
    let conditions =
        table.key.iter().zip(key).map(|(column, value)| Where::Is(column, json!(value))).collect();
    Ok(select(connection, table, &Select { limit: Some(1), ..Select::all(conditions) }).await?.pop())
}

/// Rows.
pub async fn select(
    connection: &mut AnyConnection,
    table: &Table,
    select: &Select,
) -> Result<Vec<Record>, DbError> {
    let mut values = Vec::new();
    let names: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
    let mut sql = format!("SELECT {} FROM {}", names.join(", "), table.name);
    sql.push_str(&conditions(table, &select.conditions, &mut values));
    let mut order: Vec<String> = Vec::new();
    if let Some((column, descending)) = select.order {
        // The two databases sort missing values to different ends; this puts them last in both. What is never missing is
        // left alone, so that its index can give the order.
        if !matches!(column, "created_at" | "spend") {
            order.push(format!("CASE WHEN {column} IS NULL THEN 1 ELSE 0 END"));
        }
        order.push(format!("{column}{}", if descending { " DESC" } else { "" }));
    }
    order.extend(table.key.iter().map(|column| (*column).to_owned()));
    sql.push_str(&format!(" ORDER BY {}", order.join(", ")));
    if let Some(limit) = select.limit {
        sql.push_str(&format!(" LIMIT {limit} OFFSET {}", select.offset));
    }
    let rows = bound(&sql, values).fetch_all(connection).await?;
    rows.iter().map(|row| shown(table, row)).collect()
}

/// How many rows.
pub async fn count(
    connection: &mut AnyConnection,
    table: &Table,
    conditions_: &[Where],
) -> Result<i64, DbError> {
    let mut values = Vec::new();
    let sql = format!("SELECT COUNT(*) FROM {}{}", table.name, conditions(table, conditions_, &mut values));
    Ok(bound(&sql, values).fetch_one(connection).await?.try_get(0)?)
}

/// Adds a row. Members that are no column are left out.
pub async fn insert(connection: &mut AnyConnection, table: &Table, record: &Record) -> Result<(), DbError> {
    let (names, values) = stored_members(table, record);
    let marks: Vec<String> = (1..=names.len()).map(|at| format!("${at}")).collect();
    let sql = format!("INSERT INTO {} ({}) VALUES ({})", table.name, names.join(", "), marks.join(", "));
    bound(&sql, values).execute(connection).await?;
    Ok(())
}

/// Changes the columns that `record` names (those of the key too) of the rows for which all conditions hold; says how many.
pub async fn update(
    connection: &mut AnyConnection,
    table: &Table,
    conditions_: &[Where],
    record: &Record,
) -> Result<u64, DbError> {
    let (names, mut values) = stored_members(table, record);
    if names.is_empty() {
        return Ok(0);
    }
    let sets: Vec<String> =
        names.iter().enumerate().map(|(at, name)| format!("{name} = ${}", at + 1)).collect();
    let tail = conditions(table, conditions_, &mut values);
    let sql = format!("UPDATE {} SET {}{tail}", table.name, sets.join(", "));
    Ok(bound(&sql, values).execute(connection).await?.rows_affected())
}

/// Removes rows and says how many.
pub async fn delete(
    connection: &mut AnyConnection,
    table: &Table,
    conditions_: &[Where],
) -> Result<u64, DbError> {
    let mut values = Vec::new();
    let sql = format!("DELETE FROM {}{}", table.name, conditions(table, conditions_, &mut values));
    Ok(bound(&sql, values).execute(connection).await?.rows_affected())
}

/// Runs a fixed statement with values and gives its rows. Booleans and times are given as numbers.
pub async fn rows(
    connection: &mut AnyConnection,
    sql: &str,
    values: Vec<Stored>,
) -> Result<Vec<AnyRow>, DbError> {
    Ok(bound(sql, values).fetch_all(connection).await?)
}

/// Runs a fixed statement with values; says how many rows it touched.
pub async fn run(connection: &mut AnyConnection, sql: &str, values: Vec<Stored>) -> Result<u64, DbError> {
    Ok(bound(sql, values).execute(connection).await?.rows_affected())
}

/// A value as the database has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// TEXT.
    Text(Option<String>),
    /// BIGINT.
    Int(Option<i64>),
}

impl From<&str> for Stored {
    fn from(text: &str) -> Stored {
        Stored::Text(Some(text.to_owned()))
    }
}

impl From<String> for Stored {
    fn from(text: String) -> Stored {
        Stored::Text(Some(text))
    }
}

impl From<Option<String>> for Stored {
    fn from(text: Option<String>) -> Stored {
        Stored::Text(text)
    }
}

impl From<i64> for Stored {
    fn from(number: i64) -> Stored {
        Stored::Int(Some(number))
    }
}

impl From<Option<i64>> for Stored {
    fn from(number: Option<i64>) -> Stored {
        Stored::Int(number)
    }
}

fn bound(sql: &str, values: Vec<Stored>) -> Query<'static, Any, AnyArguments> {
    let mut query = sqlx::query(AssertSqlSafe(sql.to_owned()));
    for value in values {
        query = match value {
            // Postgres has no place for this character, and clients can send it. Usage is written in the same way.
            Stored::Text(text) => query.bind(text.map(|text| text.replace('\0', "\u{fffd}"))),
            Stored::Int(number) => query.bind(number),
        };
    }
    query
}

fn stored_members(table: &Table, record: &Record) -> (Vec<&'static str>, Vec<Stored>) {
    table
        .columns
        .iter()
        .filter_map(|(name, kind)| record.get(*name).map(|value| (*name, stored(*kind, value))))
        .unzip()
}

fn kind_of(table: &Table, column: &str) -> Kind {
    table.columns.iter().find(|(name, _)| *name == column).map_or(Kind::Text, |(_, kind)| *kind)
}

fn conditions(table: &Table, list: &[Where], values: &mut Vec<Stored>) -> String {
    if list.is_empty() {
        return String::new();
    }
    let all: Vec<String> = list.iter().map(|condition| one(table, condition, values)).collect();
    format!(" WHERE {}", all.join(" AND "))
}

fn one(table: &Table, condition: &Where, values: &mut Vec<Stored>) -> String {
    let mut put = |value: Stored| {
        values.push(value);
        format!("${}", values.len())
    };
    match condition {
        Where::Is(column, value) => format!("{column} = {}", put(stored(kind_of(table, column), value))),
        // No row is in an empty list.
        Where::In(_, list) if list.is_empty() => "1 = 0".to_owned(),
        Where::In(column, list) => {
            let kind = kind_of(table, column);
            let marks: Vec<String> = list.iter().map(|value| put(stored(kind, value))).collect();
            format!("{column} IN ({})", marks.join(", "))
        }
        // The database folds both sides, so both by the same letters.
        Where::Same(column, text) => format!("LOWER({column}) = LOWER({})", put(text.clone().into())),
        Where::Holds(column, text) => {
            format!("LOWER({column}) LIKE {} ESCAPE '\\'", put(pattern(&text.to_lowercase()).into()))
        }
        Where::Has(column, text) => {
            // Lists are stored as JSON, so an item stands in quotation marks.
            format!("{column} LIKE {} ESCAPE '\\'", put(pattern(&json!(text).to_string()).into()))
        }
        Where::From(column, value) => format!("{column} >= {}", put(stored(kind_of(table, column), value))),
        Where::Before(column, value) => format!("{column} < {}", put(stored(kind_of(table, column), value))),
        Where::Empty(column) => format!("{column} IS NULL"),
        Where::Any(list) => {
            let any: Vec<String> = list.iter().map(|condition| one(table, condition, values)).collect();
            format!("({})", if any.is_empty() { "1 = 0".to_owned() } else { any.join(" OR ") })
        }
    }
}

fn pattern(text: &str) -> String {
    format!("%{}%", text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"))
}

/// A value as shown, as it is stored. What does not fit its column counts as nothing: bodies are checked before.
pub fn stored(kind: Kind, value: &Value) -> Stored {
    match kind {
        Kind::Text => Stored::Text(match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }),
        Kind::Object | Kind::Json | Kind::List => Stored::Text((!value.is_null()).then(|| value.to_string())),
        Kind::Int => Stored::Int(value.as_i64().or_else(|| value.as_f64().map(|number| number as i64))),
        Kind::Bool => Stored::Int(value.as_bool().map(i64::from)),
        Kind::Money => Stored::Int(money(value)),
        Kind::Time => Stored::Int(time(value)),
    }
}

/// Dollars in JSON as 10⁻¹² dollars. The shortest decimal text of a number is what its writer meant.
pub fn money(value: &Value) -> Option<i64> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return None,
    };
    let pico = Money::parse(&text)?.pico();
    Some(i64::try_from(pico).unwrap_or(if pico < 0 { i64::MIN } else { i64::MAX }))
}

/// 10⁻¹² dollars as a number of dollars.
pub fn dollars(pico: i64) -> Value {
    let text = Money::from_pico(i128::from(pico)).to_string();
    // Parsed from its decimal text, so it is the number nearest to the amount.
    text.parse::<f64>().ok().map_or(Value::Null, |number| json!(number))
}

/// A time in JSON (RFC 3339, or a date) as Unix milliseconds.
pub fn time(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text
            .parse::<Timestamp>()
            .ok()
            .or_else(|| {
                let date_time = text.trim_end_matches('Z').parse::<jiff::civil::DateTime>().ok()?;
                Some(date_time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
            })
            .map(Timestamp::as_millisecond),
        _ => None,
    }
}

/// Unix milliseconds as RFC 3339 in UTC.
pub fn time_text(ms: i64) -> Value {
    Timestamp::from_millisecond(ms).map_or(Value::Null, |time| json!(time.to_string()))
}

/// A row as the management API shows it.
pub fn shown(table: &Table, row: &AnyRow) -> Result<Record, DbError> {
    let mut record = Record::new();
    for (at, (name, kind)) in table.columns.iter().enumerate() {
        let value = match kind {
            Kind::Text => json!(row.try_get::<Option<String>, _>(at)?),
            Kind::Object | Kind::Json | Kind::List => {
                let empty = match kind {
                    Kind::List => json!([]),
                    Kind::Object => json!({}),
                    _ => Value::Null,
                };
                let text = row.try_get::<Option<String>, _>(at)?;
                text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(empty)
            }
            Kind::Int => json!(row.try_get::<Option<i64>, _>(at)?),
            Kind::Bool => json!(row.try_get::<Option<i64>, _>(at)?.map(|bit| bit != 0)),
            Kind::Money => row.try_get::<Option<i64>, _>(at)?.map_or(Value::Null, dollars),
            Kind::Time => row.try_get::<Option<i64>, _>(at)?.map_or(Value::Null, time_text),
        };
        record.insert((*name).to_owned(), value);
    }
    Ok(record)
}
