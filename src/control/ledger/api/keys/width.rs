//! How wide a key is: what it may call, spend and reach. Nobody gives what he has not: a key that somebody makes who is no admin is at
//! most as wide as the key it is made with, and what others set on a key its owner may only narrow.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::make;
use crate::{
    control::ledger::{
        api::{
            self,
            access::forbidden,
            fields::{text, texts},
        },
        caller::{Caller, Holder},
        problem::Problem,
        resets,
        route::Call,
        rows::{self, Record},
        windows,
    },
    core::{
        access::{
            models::is_allowed,
            routes::{Access, Route},
        },
        config::Config,
        model::{
            key_record::{Principal, Role},
            limits::Budget,
        },
        operation::path,
    },
};

/// Model lists that stand for whatever the owner of the key may call.
const ALL: [&str; 3] = ["*", "all-proxy-models", "all-team-models"];
/// Groups of routes that call models.
const CALLS: [&str; 3] = ["llm_api_routes", "openai_routes", "anthropic_routes"];

/// What limits a key, out of its row. Money in 10⁻¹² dollars, times in unix milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Width {
    models: Vec<String>,
    aliases: BTreeMap<String, String>,
    max_budget: Option<i64>,
    period: Option<String>,
    raise: Option<(String, String)>,
    budget_id: Option<String>,
    rates: [Option<i64>; 3],
    expires: Option<i64>,
    model_budgets: BTreeMap<String, (f64, Option<String>)>,
    /// Budgets side by side, by their periods.
    windows: BTreeMap<String, i64>,
    model_rates: [BTreeMap<String, i64>; 2],
    routes: Vec<String>,
    /// Lists that must hold what they held.
    kept: [Vec<String>; 3],
    cache_controls: Vec<String>,
    object_permission: Value,
    disable_fallbacks: bool,
    team: Option<String>,
    organization: Option<String>,
}

const RATES: [&str; 3] = ["rpm_limit", "tpm_limit", "max_parallel_requests"];
const MODEL_RATES: [&str; 2] = ["model_rpm_limit", "model_tpm_limit"];
/// What a key of a user is measured by, beside its user's.
const OF_USER: [&str; 6] =
    ["max_budget", "budget_duration", "budget_limits", "rpm_limit", "tpm_limit", "max_parallel_requests"];
const KEPT: [&str; 3] = ["enforced_params", "tags", "guardrails"];

impl Width {
    /// Reads a row.
    pub fn of(row: &Record) -> Width {
        let empty = Map::new();
        let metadata = row.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
        let map = |from: &Record, name: &str| {
            from.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
        };
        let numbers = |name: &str| {
            map(metadata, name).iter().filter_map(|(model, n)| Some((model.clone(), n.as_i64()?))).collect()
        };
        let own = |name: &str| text(row, name).map(str::to_owned);
        let raise =
            metadata.get("temp_budget_increase").filter(|raise| raise.as_f64().is_some_and(|n| n > 0.0));
        Width {
            models: texts(row, "models"),
            aliases: map(row, "aliases")
                .into_iter()
                .filter_map(|(from, to)| Some((from, to.as_str()?.to_owned())))
                .collect(),
            max_budget: row.get("max_budget").and_then(rows::money),
            period: own("budget_duration"),
            raise: raise.map(|raise| {
                (
                    raise.to_string(),
                    metadata.get("temp_budget_expiry").map(Value::to_string).unwrap_or_default(),
                )
            }),
            budget_id: own("budget_id"),
            rates: RATES.map(|name| row.get(name).and_then(Value::as_i64)),
            expires: row.get("expires").and_then(rows::time),
            model_budgets: map(row, "model_max_budget").iter().filter_map(model_budget).collect(),
            windows: windows::several(row.get("budget_limits").unwrap_or(&Value::Null))
                .into_iter()
                .filter_map(|budget| budget.duration.zip(budget.max))
                .collect(),
            model_rates: MODEL_RATES.map(numbers),
            routes: texts(row, "allowed_routes"),
            kept: KEPT.map(|name| texts(metadata, name)),
            cache_controls: texts(row, "allowed_cache_controls"),
            object_permission: metadata.get("object_permission").cloned().unwrap_or_default(),
            disable_fallbacks: metadata.get("disable_fallbacks") == Some(&Value::Bool(true)),
            team: own("team_id"),
            organization: own("organization_id"),
        }
    }

    fn any_model(&self) -> bool {
        self.models.is_empty() || self.models.iter().any(|model| ALL.contains(&model.as_str()))
    }

    /// Members in which `new` goes beyond this.
    fn exceeded_by(&self, new: &Width, config: &Config) -> Vec<&'static str> {
        let mut beyond = Vec::new();
        let mut note = |is_wider: bool, name: &'static str| {
            if is_wider {
                beyond.push(name);
            }
        };
        let allowed = |model: &String| self.any_model() || is_allowed(model, &self.models, config);
        let empty_is_all = new.models.is_empty() && !self.any_model();
        note(empty_is_all || !new.models.iter().all(allowed), "models");
        let target_allowed =
            |(from, to): (&String, &String)| self.aliases.get(from) == Some(to) || allowed(to);
        let aliases_stay = self.aliases.iter().all(|(from, to)| new.aliases.get(from) == Some(to));
        note(!aliases_stay || !new.aliases.iter().all(target_allowed), "aliases");
        note(over(self.max_budget, new.max_budget), "max_budget");
        if self.max_budget.is_some() {
            note(sooner(self.period.as_deref(), new.period.as_deref()), "budget_duration");
            note(new.raise.is_some() && new.raise != self.raise, "temp_budget_increase");
        }
        note(new.budget_id != self.budget_id, "budget_id");
        for ((name, most), rate) in RATES.into_iter().zip(self.rates).zip(new.rates) {
            note(over(most, rate), name);
        }
        note(over(self.expires, new.expires), "duration");
        let dearer = self.model_budgets.iter().any(|(model, (most, period))| {
            new.model_budgets
                .get(model)
                .is_none_or(|(amount, new)| amount > most || sooner(period.as_deref(), new.as_deref()))
        });
        note(dearer, "model_max_budget");
        // What is spent by day is also held by as little by week.
        let holds = |(period, most): (&String, &i64)| {
            new.windows.iter().any(|(new, amount)| amount <= most && !sooner(Some(period), Some(new)))
        };
        note(!self.windows.iter().all(holds), "budget_limits");
        for ((name, limits), rates) in MODEL_RATES.into_iter().zip(&self.model_rates).zip(&new.model_rates) {
            note(limits.iter().any(|(model, most)| over(Some(*most), rates.get(model).copied())), name);
        }
        note(!routes_within(&new.routes, &self.routes), "allowed_routes");
        for ((name, there), now) in KEPT.into_iter().zip(&self.kept).zip(&new.kept) {
            note(!there.iter().all(|item| now.contains(item)), name);
        }
        let fewer = !new.cache_controls.is_empty()
            && new.cache_controls.iter().all(|control| self.cache_controls.contains(control));
        note(!self.cache_controls.is_empty() && !fewer, "allowed_cache_controls");
        let permission = &self.object_permission;
        note(!permission.is_null() && *permission != new.object_permission, "object_permission");
        note(self.disable_fallbacks && !new.disable_fallbacks, "metadata.disable_fallbacks");
        note(self.team.is_some() && self.team != new.team, "team_id");
        note(self.organization.is_some() && self.organization != new.organization, "organization_id");
        beyond
    }

    /// Members in which two are not the same.
    fn differs(&self, other: &Width) -> Vec<&'static str> {
        let mut names = Vec::new();
        let mut note = |same: bool, name: &'static str| {
            if !same {
                names.push(name);
            }
        };
        note(self.models == other.models, "models");
        note(self.aliases == other.aliases, "aliases");
        note(self.max_budget == other.max_budget, "max_budget");
        note(self.period == other.period, "budget_duration");
        note(self.raise == other.raise, "temp_budget_increase");
        note(self.budget_id == other.budget_id, "budget_id");
        for ((name, rate), new) in RATES.into_iter().zip(self.rates).zip(other.rates) {
            note(rate == new, name);
        }
        note(self.expires == other.expires, "duration");
        note(self.model_budgets == other.model_budgets, "model_max_budget");
        note(self.windows == other.windows, "budget_limits");
        for ((name, rates), new) in MODEL_RATES.into_iter().zip(&self.model_rates).zip(&other.model_rates) {
            note(rates == new, name);
        }
        note(self.routes == other.routes, "allowed_routes");
        for ((name, list), new) in KEPT.into_iter().zip(&self.kept).zip(&other.kept) {
            note(list == new, name);
        }
        note(self.cache_controls == other.cache_controls, "allowed_cache_controls");
        note(self.object_permission == other.object_permission, "object_permission");
        note(self.disable_fallbacks == other.disable_fallbacks, "metadata.disable_fallbacks");
        note(self.team == other.team, "team_id");
        note(self.organization == other.organization, "organization_id");
        names
    }
}

fn model_budget((model, budget): (&String, &Value)) -> Option<(String, (f64, Option<String>))> {
    let either = |names: [&str; 2]| names.iter().find_map(|name| budget.get(*name));
    let amount = either(["budget_limit", "max_budget"])?.as_f64()?;
    let period = either(["time_period", "budget_duration"]).and_then(Value::as_str).map(str::to_owned);
    Some((model.clone(), (amount, period)))
}

/// Whether an amount is over the most there may be; none is no limit.
fn over(most: Option<i64>, new: Option<i64>) -> bool {
    most.is_some_and(|most| new.is_none_or(|new| new > most))
}

/// Whether spend would start again sooner; none is never.
fn sooner(period: Option<&str>, new: Option<&str>) -> bool {
    let length = |period: &str| resets::expires(period, 0).unwrap_or_default();
    match (period, new) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(period), Some(new)) => length(new) < length(period),
    }
}

/// Whether everything that a list opens is opened by another; an empty one opens all.
fn routes_within(new: &[String], list: &[String]) -> bool {
    list.is_empty() || !new.is_empty() && new.iter().all(|entry| is_within(entry, list))
}

fn is_within(entry: &str, list: &[String]) -> bool {
    if list.iter().any(|there| {
        there == entry || there.ends_with('*') && crate::core::access::models::is_match(there, entry)
    }) {
        return true;
    }
    if entry.contains('*') || !entry.starts_with('/') {
        return false;
    }
    let managed = api::routes().find(|route| route.paths.contains(&entry));
    let calls = ["POST", "GET"].into_iter().find_map(|method| match path::find(method, entry) {
        Ok(path::Action::Manage) | Err(_) => None,
        Ok(operation) => Some(Route::of(&operation, entry).is_in(list)),
    });
    managed.map(|route| route.judged(entry).is_in(list)).or(calls).unwrap_or(false)
}

/// Whether a list opens any call of a model.
fn opens_calls(list: &[String]) -> bool {
    list.is_empty()
        || ["/chat/completions", "/completions", "/embeddings", "/v1/messages"]
            .iter()
            .any(|path| is_within(path, list))
}

/// What a key made with this one may be: a key that only manages makes keys that only call, since that is what it is for.
fn inherited(maker: &Holder) -> Width {
    let mut width = Width::of(&maker.key);
    let limits = &maker.grant.key;
    // With what its budget row says.
    width.max_budget = limits.budget.max;
    width.period = limits.budget.duration.clone();
    width.raise = None;
    width.rates = [limits.limits.rpm, limits.limits.tpm, limits.limits.parallel]
        .map(|rate| rate.map(|rate| i64::try_from(rate).unwrap_or(i64::MAX)));
    if !opens_calls(&width.routes) {
        width.routes.extend(CALLS.map(str::to_owned));
    }
    width
}

/// Who makes or changes keys and is bound by its own. An admin's key is when it may not call everything: by its routes alone.
fn maker(call: &Call) -> Option<(&Holder, bool)> {
    match &call.caller {
        Caller::Master => None,
        Caller::Key(holder) if !call.caller.is_admin() => Some((holder, true)),
        Caller::Key(holder) if !holder.grant.allowed_routes.is_empty() => Some((holder, false)),
        Caller::Key(_) => None,
    }
}

/// Gives a new key the limits of the key that makes it, where none were sent.
pub fn fill(call: &Call, body: &mut Record) {
    let Some((maker, whole)) = maker(call) else { return };
    let width = inherited(maker);
    let sent_routes =
        make::routes_of(body).ok().flatten().is_some() || !texts(body, "allowed_routes").is_empty();
    if !width.routes.is_empty() && !sent_routes {
        let routes = if opens_calls(&maker.grant.allowed_routes) {
            json!(width.routes)
        } else {
            json!(["llm_api_routes"])
        };
        body.insert("allowed_routes".to_owned(), routes);
    }
    if !whole {
        return;
    }
    let mut put = |name: &str, value: Value| {
        let is_empty = match body.get(name) {
            None | Some(Value::Null) => true,
            Some(Value::String(text)) => text.is_empty() || text == "-1",
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            Some(_) => false,
        };
        if is_empty && !value.is_null() {
            body.insert(name.to_owned(), value);
        }
    };
    if !width.any_model() {
        put("models", json!(width.models));
    }
    if let Some(most) = width.max_budget {
        put("max_budget", rows::dollars(most));
        put("budget_duration", json!(width.period));
    }
    put("budget_id", json!(width.budget_id));
    for (name, rate) in RATES.into_iter().zip(width.rates) {
        put(name, json!(rate));
    }
    if let Some(expires) = width.expires {
        put("duration", json!(format!("{}s", expires.saturating_sub(call.now_ms).max(1_000) / 1_000)));
    }
    for name in ["aliases", "model_max_budget", "budget_limits", "allowed_cache_controls"] {
        let there =
            maker.key.get(name).filter(|value| !matches!(value, Value::Object(map) if map.is_empty()));
        put(
            name,
            there
                .filter(|value| !matches!(value, Value::Array(list) if list.is_empty()))
                .cloned()
                .unwrap_or_default(),
        );
    }
    let metadata = maker.key.get("metadata");
    for name in MODEL_RATES.iter().chain(&KEPT).chain(&["object_permission"]) {
        put(name, metadata.and_then(|metadata| metadata.get(*name)).cloned().unwrap_or_default());
    }
    put("team_id", json!(width.team));
    put("organization_id", json!(width.organization));
    if width.disable_fallbacks {
        let mut metadata = body.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        metadata.insert("disable_fallbacks".to_owned(), json!(true));
        body.insert("metadata".to_owned(), Value::Object(metadata));
    }
}

/// Refuses a new key that is wider than the key that makes it, or than the user whose it is to be.
pub fn made(call: &Call, row: &Record) -> Result<(), Problem> {
    let Some((maker, whole)) = maker(call) else { return Ok(()) };
    let config = call.app.config();
    let (width, new) = (inherited(maker), Width::of(row));
    let mut beyond = width.exceeded_by(&new, &config);
    beyond.retain(|name| whole || *name == "allowed_routes");
    if let Some(name) = beyond.first() {
        return Err(forbidden(format!(
            "`{name}`: a key may not get more than the key that makes it has. A proxy admin may give more."
        )));
    }
    if whole {
        within_user(maker, &new)?;
        reach(maker, row, &new.routes)?;
    }
    Ok(())
}

/// A key without a team may not be given more than its user has.
fn within_user(maker: &Holder, new: &Width) -> Result<(), Problem> {
    let Some(user) = maker.grant.user.as_deref().filter(|_| new.team.is_none()) else { return Ok(()) };
    let number = |rate: Option<u64>| rate.map(|rate| i64::try_from(rate).unwrap_or(i64::MAX));
    let limits = [
        ("max_budget", user.budget.max, new.max_budget),
        ("rpm_limit", number(user.limits.rpm), new.rates[0]),
        ("tpm_limit", number(user.limits.tpm), new.rates[1]),
        ("max_parallel_requests", number(user.limits.parallel), new.rates[2]),
    ];
    // What a key does not limit, its user does.
    let over = limits.iter().find(|(_, most, new)| most.zip(*new).is_some_and(|(most, new)| new > most));
    match over.map(|(name, ..)| *name).or_else(|| over_in_a_period(user, new)) {
        None => Ok(()),
        Some(name) => Err(forbidden(format!(
            "`{name}`: a key may not get more than its user has. A proxy admin may give more."
        ))),
    }
}

/// The budget by which a key may spend more in its period than its user may in one that is as long or longer.
fn over_in_a_period(user: &Principal, new: &Width) -> Option<&'static str> {
    let of_user = |budget: &Budget| budget.max.map(|most| (budget.duration.clone(), most));
    let side_by_side = user.budget_limits.iter().flat_map(|several| &several.0);
    let most: Vec<_> = std::iter::once(&user.budget).chain(side_by_side).filter_map(of_user).collect();
    let is_over = |period: Option<&str>, amount: i64| {
        most.iter().any(|(longer, most)| amount > *most && !sooner(period, longer.as_deref()))
    };
    if new.windows.iter().any(|(period, amount)| is_over(Some(period), *amount)) {
        return Some("budget_limits");
    }
    new.max_budget.filter(|amount| is_over(new.period.as_deref(), *amount)).map(|_| "max_budget")
}

/// Refuses routes that would give a key more than the role of whose it is.
fn reach(maker: &Holder, row: &Record, routes: &[String]) -> Result<(), Problem> {
    let owner = text(row, "user_id");
    let own = text(&maker.key, "user_id");
    // Of others it is enough to know that they are users.
    let role = match owner {
        None => Role::Unknown,
        Some(owner) if Some(owner) == own => maker.grant.role,
        Some(_) => Role::InternalUser,
    };
    let more = api::routes().filter(|route| !route.access.allows(role)).find(|route| {
        let given = |entry: &String| {
            let is_group = !entry.contains('/') && !entry.contains('*');
            let by_group = role == Role::Unknown && route.access == Access::InternalUser;
            let judged = route.paths.iter().any(|path| route.judged(path).is_in(std::slice::from_ref(entry)));
            (!is_group || by_group) && judged && !is_within(entry, &maker.grant.allowed_routes)
        };
        routes.iter().any(given)
    });
    match more.filter(|_| !routes.is_empty()) {
        None => Ok(()),
        Some(route) => Err(forbidden(format!(
            "`allowed_routes`: only proxy admins may give a key the route {}, which the role of its user does not have.",
            route.paths.first().unwrap_or(&"")
        ))),
    }
}

/// Refuses a budget that somebody who is no admin chose, before a look whether it exists: ids are not to be guessed.
pub fn same_budget(call: &Call, wanted: &str, there: &Record) -> Result<(), Problem> {
    if call.caller.is_admin() || text(there, "budget_id") == Some(wanted) {
        return Ok(());
    }
    Err(forbidden("`budget_id`: only proxy admins may give a key a budget that is kept apart."))
}

/// Refuses to hand out the value of a key that is wider than the one that asks for it.
pub fn handed(call: &Call, row: &Record) -> Result<(), Problem> {
    let own = call.caller.token().is_some() && call.caller.token() == text(row, "token");
    if own { Ok(()) } else { made(call, row) }
}

/// Refuses a change that widens a key beyond the key it is changed with; and, when `narrow`, beyond what it is.
pub fn changed(call: &Call, before: &Record, after: &Record, narrow: bool) -> Result<(), Problem> {
    let Some((maker, whole)) = maker(call) else { return Ok(()) };
    let config = call.app.config();
    let (old, new) = (Width::of(before), Width::of(after));
    let differs = old.differs(&new);
    let mut beyond = inherited(maker).exceeded_by(&new, &config);
    beyond.retain(|name| differs.contains(name) && (whole || *name == "allowed_routes"));
    if let Some(name) = beyond.first() {
        return Err(forbidden(format!(
            "`{name}`: a key may not get more than the key that changes it has. A proxy admin may give more."
        )));
    }
    let mut lifted = if narrow { old.exceeded_by(&new, &config) } else { Vec::new() };
    lifted.retain(|name| differs.contains(name));
    if let Some(name) = lifted.first() {
        return Err(forbidden(format!(
            "`{name}`: somebody else set it on this key, so its owner may only make it narrower. A proxy admin may lift it."
        )));
    }
    if whole {
        if differs.iter().any(|name| OF_USER.contains(name)) {
            within_user(maker, &new)?;
        }
        if differs.contains(&"allowed_routes") || before.get("user_id") != after.get("user_id") {
            reach(maker, after, &new.routes)?;
        }
    }
    Ok(())
}

/// Whether a key has limits that others than its owner set: it was made, or last changed, by somebody else.
pub fn set_by_others(row: &Record) -> bool {
    let owner = text(row, "user_id");
    ["created_by", "updated_by"].iter().any(|name| text(row, name) != owner)
}

/// Who a key's row says changed it last. What others set on it stays theirs when its owner changes it.
pub fn changed_by(call: &Call, row: &Record) -> Value {
    let owner = text(row, "user_id");
    let kept = text(row, "updated_by").filter(|by| Some(*by) != owner);
    match kept.filter(|_| !call.caller.is_admin() && call.caller.user_id() == owner) {
        Some(by) => json!(by),
        None => json!(author(call)),
    }
}

/// Who a call's changes are put down to: the user, or the key itself when it is nobody's.
pub fn author(call: &Call) -> Option<String> {
    call.caller.user_id().or_else(|| call.caller.token()).map(str::to_owned)
}
