//! `/key/delete`, and removing the keys of users and teams that go.

use serde_json::{Value, json};

use super::{DELETE, token};
use crate::control::ledger::{
    api::{
        access::{actor, may_change_key},
        fields::{bounded, texts},
    },
    caller::token_of,
    db::{DbError, Tx},
    former,
    problem::Problem,
    route::{Answer, Call},
    rows::{self, Record, Select, Where},
    schema::KEYS,
};

/// Rows that one statement names: below what either database binds.
const AT_ONCE: usize = 500;

pub async fn delete(call: Call) -> Result<Answer, Problem> {
    bounded(DELETE, &call.body)?;
    if !call.caller.is_admin() {
        actor(&call)?;
    }
    let (keys, aliases) = (texts(&call.body, "keys"), texts(&call.body, "key_aliases"));
    let (column, given, wanted): (_, &[String], Vec<String>) = match (keys.is_empty(), aliases.is_empty()) {
        (false, _) => ("token", &keys, keys.iter().map(|key| token_of(key)).collect()),
        (true, false) => ("key_alias", &aliases, aliases.clone()),
        (true, true) => {
            return Err(Problem::Detail(
                422,
                json!([{"type": "value_error", "loc": ["body"], "input": call.body,
                        "msg": "Value error, At least one of 'keys' or 'key_aliases' must be provided."}]),
            ));
        }
    };
    let mut tx = call.app.db.write().await?;
    let mut found = Vec::new();
    for some in wanted.chunks(AT_ONCE) {
        let values = some.iter().map(|value| json!(value)).collect();
        let select = Select::all(vec![Where::In(column, values)]);
        found.extend(rows::select(tx.connection(), &KEYS, &select).await?);
    }
    for row in &found {
        may_change_key(tx.connection(), &call, row, "/key/delete").await?;
    }
    let is_there =
        |value: &String| found.iter().any(|row| row.get(column).and_then(Value::as_str) == Some(value));
    let missing = wanted.iter().filter(|value| !is_there(value)).count();
    if missing > 0 {
        return Err(Problem::not_found(
            format!(
                "{missing} of the {} keys were not found in the database; none was deleted.",
                wanted.len()
            ),
            column_name(column),
        ));
    }
    remove(&mut tx, &found).await?;
    Ok(Answer::changed(&json!({"deleted_keys": given}), tx.commit().await?))
}

fn column_name(column: &str) -> &'static str {
    if column == "token" { "keys" } else { "key_aliases" }
}

/// Removes keys.
pub async fn remove(tx: &mut Tx, keys: &[Record]) -> Result<(), DbError> {
    for some in keys.chunks(AT_ONCE) {
        let hashes: Vec<&str> = some.iter().map(token).collect();
        former::remove(tx.connection(), &hashes).await?;
        let tokens = hashes.iter().map(|hash| json!(hash)).collect();
        rows::delete(tx.connection(), &KEYS, &[Where::In("token", tokens)]).await?;
    }
    for row in keys {
        tx.record_changed(format!("key:{}", token(row)));
    }
    Ok(())
}
