//! Sums over the tables of days: whose, of which days, grouped by what.

use std::collections::BTreeMap;

use jiff::{Timestamp, ToSpan as _, Unit, civil::Date, tz::TimeZone};
use serde_json::{Map, Value, json};
use sqlx::{AnyConnection, Row as _};

use crate::control::ledger::{
    caller::Caller,
    db::DbError,
    problem::Problem,
    route::Call,
    rows::{self, Stored, dollars},
};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// Groups of one answer: beyond them it would fill the memory of whoever asks, and ours.
pub const MOST_GROUPS: i64 = 100_000;

/// Whose spend a caller may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Everybody's.
    All,
    /// A user's own.
    User(String),
    /// That of a key which belongs to nobody.
    Key(String),
}

impl Owner {
    /// What the caller's role lets it see.
    pub fn of(caller: &Caller) -> Owner {
        if caller.may_see_all() {
            return Owner::All;
        }
        // Empty text stands for "no user" in the sums, which is not somebody whose spend these callers may see.
        match caller.user_id().filter(|user| !user.is_empty()) {
            Some(user) => Owner::User(user.to_owned()),
            None => Owner::Key(caller.token().unwrap_or_default().to_owned()),
        }
    }
}

/// Days (UTC), the first and the last included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first day.
    pub first: Date,
    /// The last day.
    pub last: Date,
}

impl Span {
    /// The days between `start_date` and `end_date` of the query; `None` when one of them is missing.
    pub fn of(call: &Call) -> Result<Option<Span>, Problem> {
        let day = |name: &str| call.parameter(name).map(|text| date(name, text)).transpose();
        Ok(day("start_date")?.zip(day("end_date")?).map(|(first, last)| Span { first, last }))
    }

    /// The same, where both are needed.
    pub fn required(call: &Call) -> Result<Span, Problem> {
        Span::of(call)?
            .ok_or_else(|| Problem::Detail(400, json!({"error": "Please provide start_date and end_date"})))
    }

    /// Today and the 30 days before.
    pub fn last_30_days(now_ms: i64) -> Span {
        let last = today(now_ms);
        Span { first: last.saturating_sub(30.days()), last }
    }

    /// How many days.
    pub fn days(&self) -> i64 {
        // Not by moments: the last day of all has an end that is none.
        self.first.until((Unit::Day, self.last)).map_or(i64::MAX, |span| i64::from(span.get_days()) + 1)
    }

    /// Unix milliseconds at which it starts, and those after its end.
    pub fn times(&self) -> (i64, i64) {
        (start_ms(self.first), start_ms(self.last) + DAY_MS)
    }
}

/// The day of a time, in UTC.
pub fn today(now_ms: i64) -> Date {
    Timestamp::from_millisecond(now_ms).unwrap_or_default().to_zoned(TimeZone::UTC).date()
}

fn start_ms(day: Date) -> i64 {
    // A day that is too late to be a moment is after all of them.
    day.to_zoned(TimeZone::UTC).map_or(i64::MAX - DAY_MS, |start| start.timestamp().as_millisecond())
}

/// A date, or the day (UTC) of a time.
pub fn date(name: &str, text: &str) -> Result<Date, Problem> {
    Ok(match moment(name, text)? {
        Moment::Day(day) => day,
        Moment::Time(ms) => today(ms),
    })
}

/// What a query means by a date: a whole day, or a time in Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A day.
    Day(Date),
    /// A time.
    Time(i64),
}

/// Reads `2026-01-31`, `2026-01-31 12:00:00` (UTC) or `2026-01-31T12:00:00Z`.
pub fn moment(name: &str, text: &str) -> Result<Moment, Problem> {
    let read = || {
        let day = text.get(..10)?;
        let is_written_out = day.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
        let day = day.parse::<Date>().ok().filter(|_| is_written_out)?;
        match text.len() {
            10 => Some(Moment::Day(day)),
            _ => rows::time(&Value::from(text)).map(Moment::Time),
        }
    };
    read().ok_or_else(|| {
        let message = format!("`{name}` must be a date such as 2026-01-31");
        Problem::Detail(400, json!({"error": message}))
    })
}

/// Conditions of a statement and their values.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    conditions: Vec<String>,
    values: Vec<Stored>,
}

impl Filter {
    /// What an owner may see, in a table with `user_id` and `api_key`.
    pub fn of(owner: &Owner) -> Filter {
        let filter = Filter::default();
        match owner {
            Owner::All => filter,
            Owner::User(user) => filter.with("user_id", "=", user.as_str()),
            Owner::Key(token) => filter.with("api_key", "=", token.as_str()),
        }
    }

    /// And `column operator value`.
    pub fn with(mut self, column: &str, operator: &str, value: impl Into<Stored>) -> Filter {
        self.values.push(value.into());
        self.conditions.push(format!("{column} {operator} ${}", self.values.len()));
        self
    }

    /// And one of the columns is this value, when there is one.
    pub fn maybe_any(mut self, columns: &[&str], value: Option<&str>) -> Filter {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return self };
        self.values.push(value.into());
        let at = self.values.len();
        let each: Vec<String> = columns.iter().map(|column| format!("{column} = ${at}")).collect();
        self.conditions.push(format!("({})", each.join(" OR ")));
        self
    }

    /// And one of two.
    pub fn with_either(
        mut self,
        (one, is, this): (&str, &str, impl Into<Stored>),
        (other, relates, that): (&str, &str, impl Into<Stored>),
    ) -> Filter {
        self.values.extend([this.into(), that.into()]);
        let at = self.values.len();
        self.conditions.push(format!("({one} {is} ${} OR {other} {relates} ${at})", at - 1));
        self
    }

    /// And a condition without values.
    pub fn and(mut self, condition: &str) -> Filter {
        self.conditions.push(condition.to_owned());
        self
    }

    /// The same as [`with`](Filter::with), when there is a value.
    pub fn maybe(self, column: &str, operator: &str, value: Option<impl Into<Stored>>) -> Filter {
        match value {
            Some(value) => self.with(column, operator, value),
            None => self,
        }
    }

    /// And the column is one of these.
    pub fn among(mut self, column: &str, values: impl IntoIterator<Item = String>) -> Filter {
        let from = self.values.len();
        self.values.extend(values.into_iter().map(Stored::from));
        let marks: Vec<String> = (from + 1..=self.values.len()).map(|at| format!("${at}")).collect();
        self.conditions.push(match marks.is_empty() {
            true => "1 = 0".to_owned(),
            false => format!("{column} IN ({})", marks.join(", ")),
        });
        self
    }

    /// And within these days, in a table of days.
    pub fn days(self, span: &Span) -> Filter {
        self.with("day", ">=", span.first.to_string()).with("day", "<=", span.last.to_string())
    }

    /// ` WHERE …`; empty without conditions.
    pub fn sql(&self) -> String {
        match self.conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", self.conditions.join(" AND ")),
        }
    }

    /// The values, in the order of their marks.
    pub fn values(&self) -> Vec<Stored> {
        self.values.clone()
    }
}

/// A group and its sums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    names: Vec<String>,
    numbers: Vec<i64>,
}

impl Sum {
    /// What the group has in the column it is grouped by.
    pub fn name(&self, at: usize) -> &str {
        self.names.get(at).map(String::as_str).unwrap_or_default()
    }

    /// One of the sums.
    pub fn number(&self, at: usize) -> i64 {
        self.numbers.get(at).copied().unwrap_or_default()
    }
}

/// Sums `of` grouped `by`, all of them. More than [`MOST_GROUPS`] are refused.
pub async fn sums(
    connection: &mut AnyConnection,
    table: &str,
    by: &[&str],
    of: &[&str],
    filter: &Filter,
    order: &str,
) -> Result<Vec<Sum>, Problem> {
    let found = first(connection, table, by, of, filter, order, MOST_GROUPS + 1).await?;
    if i64::try_from(found.len()).is_ok_and(|count| count <= MOST_GROUPS) {
        return Ok(found);
    }
    let message = format!(
        "this is more than {MOST_GROUPS} sums: ask for fewer days (with `page_size` where there are pages), \
         or for one key, user or team"
    );
    Err(Problem::Detail(400, json!({"error": message})))
}

/// The first so many sums `of` grouped `by`, in an order.
pub async fn first(
    connection: &mut AnyConnection,
    table: &str,
    by: &[&str],
    of: &[&str],
    filter: &Filter,
    order: &str,
    limit: i64,
) -> Result<Vec<Sum>, DbError> {
    let mut columns: Vec<String> = by.iter().map(|column| (*column).to_owned()).collect();
    // Postgres sums BIGINTs as NUMERIC, and both answer nothing for no rows.
    columns.extend(of.iter().map(|column| format!("CAST(COALESCE(SUM({column}), 0) AS BIGINT)")));
    let group = if by.is_empty() { String::new() } else { format!(" GROUP BY {}", by.join(", ")) };
    let sql =
        format!("SELECT {} FROM {table}{}{group} {order} LIMIT {limit}", columns.join(", "), filter.sql());
    let found = rows::rows(connection, &sql, filter.values()).await?;
    let read = found.iter().map(|row| {
        let names: Result<Vec<String>, sqlx::Error> =
            (0..by.len()).map(|at| Ok(row.try_get::<Option<String>, _>(at)?.unwrap_or_default())).collect();
        let numbers: Result<Vec<i64>, sqlx::Error> =
            (by.len()..by.len() + of.len()).map(|at| row.try_get(at)).collect();
        Ok(Sum { names: names?, numbers: numbers? })
    });
    read.collect()
}

/// Amounts by name, in 10⁻¹² dollars.
#[derive(Clone, Debug, Default)]
pub struct Amounts(BTreeMap<String, i64>);

impl Amounts {
    /// Adds to a name's amount.
    pub fn add(&mut self, name: &str, amount: i64) {
        match self.0.get_mut(name) {
            Some(sum) => *sum = sum.saturating_add(amount),
            None => {
                self.0.insert(name.to_owned(), amount);
            }
        }
    }

    /// The amounts in dollars, as members of an object.
    pub fn members(&self) -> Map<String, Value> {
        self.0.iter().map(|(name, amount)| (name.clone(), dollars(*amount))).collect()
    }

    /// Names and amounts, the largest amount first.
    pub fn ranked(&self) -> Vec<(&str, i64)> {
        let mut list: Vec<(&str, i64)> =
            self.0.iter().map(|(name, amount)| (name.as_str(), *amount)).collect();
        list.sort_by_key(|(_, amount)| std::cmp::Reverse(*amount));
        list
    }
}
