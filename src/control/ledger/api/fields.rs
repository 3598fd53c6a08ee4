//! Members of bodies that keys, users, teams and budgets share, how large they may be, and how they become columns.

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::{
    control::ledger::{
        problem::{ErrorStatus, Problem},
        resets,
        route::{Call, Field, Type},
        rows::{Record, dollars},
    },
    core::model::limits::MOST_BUDGETS,
};

/// Most characters of an id, a name, or another short text.
pub const LONGEST_TEXT: usize = 512;
/// Most items of a list.
pub const LONGEST_LIST: usize = 5_000;
/// Most bytes of an object.
pub const LARGEST_OBJECT: usize = 64 << 10;

/// Limits of keys, users and teams.
pub const LIMITS: &[Field] = &[
    Field::new("max_budget", Type::Money, "Dollars that may be spent; null is no limit."),
    Field::new("budget_duration", Type::Text, "Period after which spend starts again, such as 30d or 1mo."),
    Field::new("tpm_limit", Type::Int, "Tokens a minute."),
    Field::new("rpm_limit", Type::Int, "Requests a minute."),
    Field::new("max_parallel_requests", Type::Int, "Requests at a time."),
    Field::new(
        "model_max_budget",
        Type::Object,
        "Budget of single models: {\"gpt-4o\": {\"budget_limit\": 1, \"time_period\": \"1d\"}}.",
    ),
    Field::new(
        "budget_limits",
        Type::List,
        "Budgets side by side, each by its own period: [{\"budget_duration\": \"1d\", \"max_budget\": 10}]; at most 8.",
    ),
    Field::new("model_rpm_limit", Type::Object, "Requests a minute of single models: {\"gpt-4o\": 10}."),
    Field::new("model_tpm_limit", Type::Object, "Tokens a minute of single models: {\"gpt-4o\": 10000}."),
];

/// What else a key has.
pub const KEY: &[Field] = &[
    Field::new("key_alias", Type::Text, "Name of the key; no two keys have the same."),
    Field::new(
        "duration",
        Type::Text,
        "How long the key is valid, such as 30s, 20m, 12h, 30d; null is for ever.",
    ),
    Field::new("models", Type::Texts, "Models it may call; none is all."),
    Field::new("spend", Type::Money, "Dollars spent so far."),
    Field::new("soft_budget", Type::Money, "Dollars after which somebody is told and nobody refused."),
    Field::new("budget_id", Type::Text, "A budget made before, whose limits hold too."),
    Field::new("user_id", Type::Text, "The user it belongs to."),
    Field::new("team_id", Type::Text, "The team it belongs to."),
    Field::new("organization_id", Type::Text, "The organization it belongs to."),
    Field::new("metadata", Type::Object, "Anything you want to keep with it."),
    Field::new("allowed_cache_controls", Type::Texts, "Cache controls it may use, such as no-store."),
    Field::new("config", Type::Object, "Not enforced yet: refused unless it is empty."),
    Field::new("permissions", Type::Object, "Not enforced yet: refused unless it is empty."),
    Field::new("guardrails", Type::Texts, "Not enforced yet: refused unless it is empty."),
    Field::new("prompts", Type::Texts, "Not enforced yet: refused unless it is empty."),
    Field::new("blocked", Type::Bool, "Refused whatever it asks."),
    Field::new("aliases", Type::Object, "Models asked for and those called instead."),
    Field::new("tags", Type::Texts, "Tags of its requests."),
    Field::new("enforced_params", Type::Texts, "Members that its requests must have."),
    Field::new("allowed_routes", Type::Texts, "Routes it may call; none is all."),
    Field::new("key_type", Type::Text, "What it is for: llm_api, management, read_only or default."),
    Field::new("object_permission", Type::Object, "Not enforced yet: refused unless it is empty."),
    Field::new("send_invite_email", Type::Bool, "Accepted; no mail is sent."),
];

/// Members of the body that are kept in `metadata`.
pub const IN_METADATA: &[&str] = &[
    "model_rpm_limit",
    "model_tpm_limit",
    "guardrails",
    "prompts",
    "tags",
    "enforced_params",
    "object_permission",
    "temp_budget_increase",
    "temp_budget_expiry",
    "team_member_key_duration",
];

/// Lists of fields, one after another, at compile time.
macro_rules! joined {
    ($($part:expr),+ $(,)?) => {{
        const PARTS: &[&[$crate::control::ledger::route::Field]] = &[$($part),+];
        const JOINED: [$crate::control::ledger::route::Field; $crate::control::ledger::api::fields::total(PARTS)] =
            $crate::control::ledger::api::fields::join(PARTS);
        &JOINED
    }};
}
pub(super) use joined;

/// How many fields there are in all lists.
pub const fn total(mut parts: &[&[Field]]) -> usize {
    let mut count = 0;
    while let Some((first, rest)) = parts.split_first() {
        count += first.len();
        parts = rest;
    }
    count
}

/// All lists in one.
#[allow(clippy::indexing_slicing, reason = "it runs at compile time only")]
pub const fn join<const N: usize>(mut parts: &[&[Field]]) -> [Field; N] {
    let mut all = [Field::new("", Type::Any, ""); N];
    let mut at = 0;
    while let Some((first, rest)) = parts.split_first() {
        let mut from = *first;
        while let Some((field, others)) = from.split_first() {
            all[at] = *field;
            at += 1;
            from = others;
        }
        parts = rest;
    }
    all
}

/// Members that LiteLLM enforces and this gateway does not yet, with what they would do. A limit that is taken and not enforced is
/// worse than one that is refused.
const NOT_YET: &[(&str, &str)] = &[
    ("guardrails", "guardrails"),
    ("disable_global_guardrails", "guardrails"),
    ("policies", "policies"),
    ("prompts", "managed prompts"),
    ("object_permission", "rights to vector stores and tool servers"),
    ("allowed_vector_store_indexes", "limits on vector stores"),
    ("config", "settings of single keys"),
    ("router_settings", "routing of single keys and teams"),
    ("secret_manager_settings", "secret managers of single teams"),
    ("auto_rotate", "keys that get a new value by themselves"),
    ("rotation_interval", "keys that get a new value by themselves"),
    ("allowed_passthrough_routes", "pass-through routes of single keys and teams"),
    ("access_group_ids", "access groups by their ids"),
    ("allowed_models", "models of single members of a team"),
    ("default_team_member_models", "models of the members of a team"),
    ("project_id", "projects"),
    ("agent_id", "agents"),
    ("model_max_budget_alert_emails", "mails about budgets"),
];

/// Limits that only some kinds of records have: the others' bodies do not name them.
const OF_SOME: &[(&str, &str)] = &[
    ("soft_budget", "keys and budgets have it"),
    ("budget_limits", "keys, teams and users have them"),
    ("model_max_budget", "keys, teams, their members, users, organizations, customers and budgets have it"),
    ("model_rpm_limit", "keys, teams, users and organizations have it"),
    ("model_tpm_limit", "keys, teams, users and organizations have it"),
    ("max_parallel_requests", "keys, teams, users, organizations, customers and budgets have it"),
];

/// Whether a member asks for anything: nothing, `false`, and what has nothing else in it do not.
pub fn asks(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(list)) => list.iter().any(|item| asks(Some(item))),
        Some(Value::Object(map)) => map.values().any(|item| asks(Some(item))),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Number(_) | Value::Bool(true)) => true,
    }
}

fn not_enforced(name: &str, what: &str) -> Problem {
    let message = format!("`{name}` is not enforced yet ({what}): it would do nothing. Leave it out.");
    Problem::bad_request(name, message)
}

/// Refuses `permissions` that are not there already. Who may not give them is told that first.
pub fn without_permissions(body: &Record, there: Option<&Record>) -> Result<(), Problem> {
    const NAME: &str = "permissions";
    let wanted = body.get(NAME);
    match asks(wanted) && wanted != there.and_then(|there| there.get(NAME)) {
        true => Err(not_enforced(NAME, "permissions of single keys")),
        false => Ok(()),
    }
}

/// Refuses what the gateway would have to enforce and does not yet.
fn enforced(fields: &[Field], body: &Record) -> Result<(), Problem> {
    const LIMITING: [&str; 4] =
        ["max_budget", "model_rpm_limit", "max_budget_in_team", "max_budget_in_organization"];
    // Bodies that limit nobody are not meant.
    if !fields.iter().any(|field| LIMITING.contains(&field.name)) {
        return Ok(());
    }
    if let Some((name, what)) = NOT_YET.iter().find(|(name, _)| asks(body.get(*name))) {
        return Err(not_enforced(name, what));
    }
    let is_known = |name: &str| fields.iter().any(|field| field.name == name);
    if let Some((name, what)) = OF_SOME.iter().find(|(name, _)| !is_known(name) && asks(body.get(*name))) {
        let message = format!("`{name}` is no limit of this ({what}): it would limit nothing. Leave it out.");
        return Err(Problem::bad_request(name, message));
    }
    for name in ["rpm_limit_type", "tpm_limit_type"] {
        if text(body, name).is_some_and(|kind| kind != "best_effort_throughput") {
            let message = format!("`{name}`: only `best_effort_throughput` is enforced; leave it out.");
            return Err(Problem::bad_request(name, message));
        }
    }
    Ok(())
}

/// Refuses what is too long, too large, below zero, not storable, or not enforced. Both databases then take what is left.
pub fn bounded(fields: &[Field], body: &Record) -> Result<(), Problem> {
    enforced(fields, body)?;
    for field in fields {
        let Some(value) = body.get(field.name).filter(|value| !value.is_null()) else { continue };
        match value {
            Value::Number(number) => {
                if number.as_f64().is_some_and(|number| number < 0.0) {
                    return Err(Problem::invalid(
                        "body",
                        field.name,
                        "greater_than_equal",
                        "Input should be greater than or equal to 0",
                        value,
                    ));
                }
                number_fits(field, value)?;
            }
            Value::String(text) => text_fits(field.name, text)?,
            Value::Array(list) => list_fits(field, list)?,
            Value::Object(_) => object_fits(field.name, value)?,
            Value::Null | Value::Bool(_) => {}
        }
    }
    if fields.iter().any(|field| field.name == "budget_limits") {
        side_by_side(body)?;
    }
    for (name, is_money) in
        [("model_max_budget", true), ("model_rpm_limit", false), ("model_tpm_limit", false)]
    {
        if fields.iter().any(|field| field.name == name) {
            by_model(name, is_money, body)?;
        }
    }
    Ok(())
}

/// The same for the texts of a query.
pub fn bounded_query(call: &Call) -> Result<(), Problem> {
    for (name, value) in &call.query {
        match value {
            Value::String(text) => text_fits(name, text)?,
            Value::Array(list) => {
                list.iter().filter_map(Value::as_str).try_for_each(|text| text_fits(name, text))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A text that can be an id.
pub fn text_fits(name: &str, text: &str) -> Result<(), Problem> {
    let length = text.chars().count();
    if length > LONGEST_TEXT {
        return Err(Problem::bad_request(
            name,
            format!("`{name}` has {length} characters: expected at most {LONGEST_TEXT}."),
        ));
    }
    if text.contains('\0') {
        return Err(Problem::bad_request(
            name,
            format!("`{name}` contains a zero character, which cannot be stored."),
        ));
    }
    Ok(())
}

fn list_fits(field: &Field, list: &[Value]) -> Result<(), Problem> {
    if list.len() > LONGEST_LIST {
        return Err(Problem::bad_request(
            field.name,
            format!("`{}` has {} items: expected at most {LONGEST_LIST}.", field.name, list.len()),
        ));
    }
    for item in list {
        match item {
            Value::String(text) => text_fits(field.name, text)?,
            other => object_fits(field.name, other)?,
        }
    }
    Ok(())
}

fn object_fits(name: &str, value: &Value) -> Result<(), Problem> {
    let size = value.to_string().len();
    if size > LARGEST_OBJECT {
        return Err(Problem::bad_request(
            name,
            format!("`{name}` has {size} bytes: expected at most {LARGEST_OBJECT}."),
        ));
    }
    Ok(())
}

fn number_fits(field: &Field, value: &Value) -> Result<(), Problem> {
    let number = value.as_f64().unwrap_or_default();
    match field.kind {
        Type::Money => money_fits(field.name, number),
        // What is between the two limits is read as the largest number there is.
        Type::Int if number > i64::MAX as f64 => Err(Problem::bad_request(
            field.name,
            format!(
                "`{}` is too large: expected at most {}; leave it out for no limit.",
                field.name,
                i64::MAX
            ),
        )),
        _ => Ok(()),
    }
}

fn money_fits(name: &str, number: f64) -> Result<(), Problem> {
    let largest = dollars(i64::MAX).as_f64().unwrap_or_default().floor();
    if number > largest {
        return Err(Problem::bad_request(
            name,
            format!("`{name}` is too large: expected at most {largest} dollars; leave it out for no limit."),
        ));
    }
    Ok(())
}

/// Checks limits by model: numbers, or budgets with their periods.
fn by_model(name: &str, is_money: bool, body: &Record) -> Result<(), Problem> {
    let Some(models) = body.get(name).and_then(Value::as_object) else { return Ok(()) };
    for (model, limit) in models {
        text_fits(name, model)?;
        if !is_money {
            if limit.as_u64().is_none() {
                return Err(Problem::bad_request(
                    name,
                    format!("`{name}` of `{model}`: expected a whole number, not below 0."),
                ));
            }
            continue;
        }
        let either = |names: [&str; 2]| names.iter().find_map(|name| limit.get(*name));
        let amount = either(["budget_limit", "max_budget"]);
        let Some(amount) = amount.and_then(Value::as_f64).filter(|amount| *amount >= 0.0) else {
            return Err(Problem::bad_request(
                name,
                format!(
                    "Invalid model_max_budget: `{model}` needs an object such as \
                     {{\"budget_limit\": 1.5, \"time_period\": \"1d\"}}, with no amount below 0."
                ),
            ));
        };
        money_fits(name, amount)?;
        if let Some(period) = either(["time_period", "budget_duration"]).and_then(Value::as_str) {
            resets::expires(period, 0).map_err(|error| bad_duration(name, &error))?;
        }
    }
    Ok(())
}

/// Checks budgets side by side. The errors of their members are pydantic's.
fn side_by_side(body: &Record) -> Result<(), Problem> {
    const NAME: &str = "budget_limits";
    let Some(list) = body.get(NAME).and_then(Value::as_array) else { return Ok(()) };
    if list.len() > MOST_BUDGETS {
        return Err(Problem::bad_request(
            NAME,
            format!("`{NAME}` has {} budgets: expected at most {MOST_BUDGETS}.", list.len()),
        ));
    }
    for (at, item) in list.iter().enumerate() {
        let bad = |member: &str, kind: &str, message: &str, input: &Value| {
            let loc = json!(["body", NAME, at, member]);
            Err(Problem::Detail(422, json!([{"type": kind, "loc": loc, "msg": message, "input": input}])))
        };
        let Some(budget) = item.as_object() else {
            let loc = json!(["body", NAME, at]);
            let message = "Input should be a valid dictionary or instance of BudgetLimitEntry";
            let detail = json!([{"type": "model_type", "loc": loc, "msg": message, "input": item}]);
            return Err(Problem::Detail(422, detail));
        };
        for member in ["budget_duration", "max_budget"] {
            if !budget.contains_key(member) {
                return bad(member, "missing", "Field required", item);
            }
        }
        let (period, amount) =
            (budget.get("budget_duration").unwrap_or(&Value::Null), budget.get("max_budget"));
        let Some(period) = period.as_str() else {
            return bad("budget_duration", "string_type", "Input should be a valid string", period);
        };
        text_fits(NAME, period)?;
        resets::next_reset(period, 0, &TimeZone::UTC).map_err(|error| bad_duration(NAME, &error))?;
        let amount = amount.unwrap_or(&Value::Null);
        match amount.as_f64() {
            None => return bad("max_budget", "float_type", "Input should be a valid number", amount),
            Some(number) if number < 0.0 => {
                let message = "Input should be greater than or equal to 0";
                return bad("max_budget", "greater_than_equal", message, amount);
            }
            Some(number) => money_fits(NAME, number)?,
        }
    }
    Ok(())
}

fn bad_duration(name: &str, error: &str) -> Problem {
    Problem::bad_request(name, format!("`{name}`: {error}."))
}

/// When something expires that is made now, from the member `duration`. `-1` and nothing are never.
pub fn expiry(body: &Record, now_ms: i64) -> Result<Value, Problem> {
    match body.get("duration").and_then(Value::as_str) {
        None | Some("" | "-1") => Ok(Value::Null),
        Some(duration) => resets::expires(duration, now_ms)
            .map(Value::from)
            .map_err(|error| bad_duration("duration", &error)),
    }
}

/// When spend starts again, from the member `budget_duration`: at the next round time.
pub fn reset_at(body: &Record, now_ms: i64, zone: &TimeZone) -> Result<Value, Problem> {
    match text(body, "budget_duration") {
        None => Ok(Value::Null),
        Some(duration) => resets::next_reset(duration, now_ms, zone)
            .map(Value::from)
            .map_err(|error| bad_duration("budget_duration", &error)),
    }
}

/// Text of a member; empty text is none.
pub fn text<'b>(body: &'b Record, name: &str) -> Option<&'b str> {
    body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// Texts of a member.
pub fn texts(body: &Record, name: &str) -> Vec<String> {
    body.get(name)
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default()
}

/// Copies members that are columns, when they were sent. Empty text becomes nothing, so that it never counts as an id.
pub fn copied(body: &Record, names: &[&str]) -> Record {
    names
        .iter()
        .filter_map(|name| {
            let value = match body.get(*name)? {
                Value::String(text) if text.is_empty() => Value::Null,
                other => other.clone(),
            };
            Some(((*name).to_owned(), value))
        })
        .collect()
}

/// The metadata after a change: what was sent, else what is there, with the members that are kept inside. None when
/// nothing of it was sent.
pub fn metadata(body: &Record, there: Option<&Value>) -> Option<Value> {
    if !body.contains_key("metadata") && !IN_METADATA.iter().any(|name| body.contains_key(*name)) {
        return None;
    }
    let base = body.get("metadata").or(there).and_then(Value::as_object).cloned();
    let mut metadata = base.unwrap_or_default();
    for name in IN_METADATA {
        match body.get(*name) {
            Some(Value::Null) => {
                metadata.remove(*name);
            }
            Some(value) => {
                metadata.insert((*name).to_owned(), value.clone());
            }
            None => {}
        }
    }
    Some(Value::Object(metadata))
}

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// From 1.
    pub number: i64,
    /// Rows on a page.
    pub size: i64,
}

impl Page {
    /// Reads `page` and the parameter of the size.
    pub fn of(call: &Call, size_name: &str, default: i64, most: i64) -> Result<Page, Problem> {
        let check = |name: &str, value: i64, most: i64| {
            if value < 1 {
                let message = "Input should be greater than or equal to 1";
                return Err(Problem::invalid("query", name, "greater_than_equal", message, &json!(value)));
            }
            if value > most {
                let message = format!("Input should be less than or equal to {most}");
                return Err(Problem::invalid("query", name, "less_than_equal", &message, &json!(value)));
            }
            Ok(value)
        };
        Ok(Page {
            number: check("page", call.number("page").unwrap_or(1), i64::from(i32::MAX))?,
            size: check(size_name, call.number(size_name).unwrap_or(default), most)?,
        })
    }

    /// Rows before it.
    pub fn offset(self) -> i64 {
        (self.number - 1) * self.size
    }

    /// How many pages `total` rows have.
    pub fn pages(self, total: i64) -> i64 {
        (total + self.size - 1) / self.size
    }
}

/// `page`, with a size of another name each time.
pub const PAGE: Field = Field::new("page", Type::Int, "Which page, from 1.");
/// `sort_by`.
pub const SORT_BY: Field = Field::new("sort_by", Type::Text, "The member to sort by.");
/// `sort_order`.
pub const SORT_ORDER: Field = Field::new("sort_order", Type::Text, "asc or desc.");

/// The order of a list: a column out of `allowed`, and whether the largest comes first.
pub fn order(
    call: &Call,
    allowed: &[&'static str],
    default: (&'static str, bool),
) -> Result<(&'static str, bool), Problem> {
    let column = match call.parameter("sort_by") {
        None => default.0,
        Some(wanted) => allowed.iter().find(|name| **name == wanted).copied().ok_or_else(|| {
            Problem::wrapped(
                ErrorStatus::BAD_REQUEST,
                format!("Invalid sort column. Must be one of: {}", allowed.join(", ")),
            )
        })?,
    };
    let descending = match call.parameter("sort_order") {
        None => default.1,
        Some(text) if text.eq_ignore_ascii_case("asc") => false,
        Some(text) if text.eq_ignore_ascii_case("desc") => true,
        Some(_) => {
            return Err(Problem::wrapped(
                ErrorStatus::BAD_REQUEST,
                "Invalid sort order. Must be asc or desc",
            ));
        }
    };
    Ok((column, descending))
}

/// Random bytes.
pub fn random<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        crate::control::ledger::log(&format!("no random bytes: {error}"));
        Problem::refused(ErrorStatus::INTERNAL_SERVER_ERROR, "the system has no random bytes to give")
    })?;
    Ok(bytes)
}

/// A new random id in the form of a UUID (version 4).
pub fn uuid() -> Result<String, Problem> {
    let number = u128::from_be_bytes(random()?);
    let number = number & !(0xf000 << 64) & !(0xc000 << 48) | 0x4000 << 64 | 0x8000 << 48;
    let digits = format!("{number:032x}");
    let mut id = String::with_capacity(36);
    for (at, digit) in digits.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            id.push('-');
        }
        id.push(digit);
    }
    Ok(id)
}

/// Texts as Python writes a list of them, for messages that clients know.
pub fn python_list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("'{text}'")).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids() {
        let id = uuid().unwrap();
        let parts: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{id}");
        assert_eq!(id.as_bytes()[14], b'4', "{id}");
        assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}");
        assert_ne!(id, uuid().unwrap());
    }

    #[test]
    fn hostile_members_are_refused() {
        const FIELDS: &[Field] = joined!(KEY, LIMITS);
        let long = "x".repeat(LONGEST_TEXT + 1);
        let cases = [
            (json!({"key_alias": long}), 400),
            (json!({"key_alias": "a\u{0}"}), 400),
            (json!({"models": [long]}), 400),
            (json!({"models": vec!["m"; LONGEST_LIST + 1]}), 400),
            (json!({"metadata": {"a": "x".repeat(LARGEST_OBJECT)}}), 400),
            (json!({"max_budget": 9_300_000}), 400),
            (json!({"max_budget": -0.1}), 422),
            (json!({"tpm_limit": -1}), 422),
            (json!({"tpm_limit": 1e30}), 400),
            (json!({"model_rpm_limit": {"m": -1}}), 400),
            (json!({"budget_limits": [{"budget_duration": "1d"}]}), 422),
            (json!({"policies": ["p"]}), 400),
            (json!({"auto_rotate": true}), 400),
            (json!({"guardrails": ["g"]}), 400),
            (json!({"prompts": ["p"]}), 400),
            (json!({"config": {"cache": {"type": "redis"}}}), 400),
            (json!({"object_permission": {"vector_stores": ["v"]}}), 400),
            (json!({"rpm_limit_type": "guaranteed_throughput"}), 400),
            (json!({"model_rpm_limit": {"m": "1"}}), 400),
            (json!({"model_max_budget": {"m": 1}}), 400),
            (json!({"model_max_budget": {"m": {"budget_limit": 1, "time_period": "x"}}}), 400),
            (json!({"model_max_budget": {"m": {"budget_limit": 1e9}}}), 400),
        ];
        for (body, expected) in cases {
            let shown = body.to_string().chars().take(80).collect::<String>();
            match bounded(FIELDS, body.as_object().unwrap()) {
                Err(Problem::Error(error)) => {
                    assert_eq!(error.status(), expected, "{shown}");
                    assert_eq!(error.shape().kind, Some("bad_request_error"), "{shown}");
                }
                Err(Problem::Detail(status, _)) => assert_eq!(status, expected, "{shown}"),
                other => panic!("{shown}: {other:?}"),
            }
        }
        let fine = json!({"key_alias": "ä".repeat(LONGEST_TEXT), "max_budget": 9_200_000, "tpm_limit": 0,
                          "model_max_budget": {"m": {"budget_limit": 0.5, "time_period": "1d"}}, "models": null, "policies": [],
                          "auto_rotate": false, "budget_limits": null, "permissions": {"pii": false}, "config": {}, "guardrails": [],
                          "object_permission": {"vector_stores": []}, "tpm_limit_type": "best_effort_throughput"});
        bounded(FIELDS, fine.as_object().unwrap()).unwrap();
    }
}
