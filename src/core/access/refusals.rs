//! The refusals of known callers: each names its fault and says it in the words of the LiteLLM proxy.

use crate::core::model::key_record::{EndUserRecord, KeyRecord, Principal, Role};
use crate::core::{
    error::{Error, KeyFault, LimitFault, ModelOwner, OurFault, RequestFault},
    model::{meter::MeterKind, money::Money, period::Civil, rule::Rule},
    quota::Why,
};

/// A model that is not in a list.
pub fn model(owner: ModelOwner, models: &[String], tried: &str) -> Error {
    let word = owner.word();
    let message = format!(
        "{word} not allowed to access model. This {word} can only access models={}. Tried to access {tried}",
        list(models)
    );
    Error::of(KeyFault::Model(owner), message).with_param("model")
}

/// A user that may only call what its teams may.
pub fn no_default_models(tried: &str) -> Error {
    let message = format!(
        "User not allowed to access model. No default model access, only team models allowed. Tried to access {tried}"
    );
    Error::of(KeyFault::Model(ModelOwner::Key), message).with_param("model")
}

/// A blocked key.
pub fn blocked_key() -> Error {
    Error::auth("Authentication Error, Key is blocked. Update via `/key/unblock` if you're admin.")
}

/// A blocked team.
pub fn blocked_team(team: &Principal) -> Error {
    Error::auth(format!(
        "Authentication Error, Team={} is blocked. Update via `/team/unblock` if your admin.",
        team.id
    ))
}

/// A blocked end user.
pub fn blocked_end_user(end_user: &EndUserRecord) -> Error {
    Error::auth(format!(
        "Authentication Error, End User={} is blocked. Update via `/customer/unblock` if you're admin.",
        end_user.scope.id
    ))
}

/// A blocked user or organization.
pub fn blocked_owner(word: &str, scope: &Principal) -> Error {
    Error::auth(format!("Authentication Error, {word}={} is blocked.", scope.id))
}

/// A key whose time is over.
pub fn expired(grant: &KeyRecord, expires_ms: u64, now_ms: u64) -> Error {
    let message = format!(
        "Authentication Error - Expired Key. Key Expiry time {}+00:00 and current time {}+00:00",
        utc(expires_ms),
        utc(now_ms)
    );
    Error::of(KeyFault::Expired, message).with_param(grant.name.as_deref().unwrap_or("sk-...").to_owned())
}

/// A client that is not in `allowed_ips`.
pub fn address(client: &str) -> Error {
    Error::of(KeyFault::Forbidden, format!("Access forbidden: IP address {client} not allowed."))
}

/// A path that is not in `allowed_routes` of the configuration.
pub fn route(path: &str) -> Error {
    Error::of(KeyFault::Forbidden, format!("Access forbidden: Route {path} not allowed"))
}

/// A path of `admin_only_routes`.
pub fn admin_only(path: &str) -> Error {
    Error::of(
        KeyFault::Forbidden,
        format!("user not allowed to access this route. Route={path} is an admin only route"),
    )
}

/// A path that is not in the key's `allowed_routes`.
pub fn not_for_key(routes: &[String], path: &str) -> Error {
    Error::auth(format!(
        "Virtual key is not allowed to call this route. Only allowed to call routes: {}. Tried to call route: {path}",
        list(routes)
    ))
}

/// An operation that the role of the key's owner is not enough for.
pub fn role(grant: &KeyRecord, path: &str) -> Error {
    if grant.role == Role::ProxyAdminViewer {
        return Error::of(
            KeyFault::Forbidden,
            format!(
                "user not allowed to access this route, role= proxy_admin_viewer. Trying to access: {path}"
            ),
        );
    }
    let user = grant.user.as_deref().filter(|_| grant.role != Role::Unknown);
    Error::auth(format!(
        "Authentication Error, Only proxy admin can be used to generate, delete, update info for new keys/users/teams. \
         Route={path}. Your role={}. Your user_id={}",
        grant.role.name(),
        masked(user.map_or("unknown", |user| &user.id))
    ))
}

/// The beginning of an id, and that more follows: enough for its owner to know it.
fn masked(id: &str) -> String {
    let head: String = id.chars().take(4).collect();
    if id.chars().count() <= 4 || id == "unknown" { id.to_owned() } else { format!("{head}****") }
}

/// Refuses a team, user or organization whose budget is used up.
pub fn within_budget(kind: MeterKind, scope: &Principal) -> Result<(), Error> {
    match scope.budget.max.filter(|max| scope.budget.spend > *max) {
        None => Ok(()),
        Some(max) => Err(over_budget(kind, &scope.id, money(scope.budget.spend), money(max), None)),
    }
}

fn money(pico: i64) -> Money {
    Money::from_pico(pico.into())
}

/// `enforce_user_param`.
pub fn no_user() -> Error {
    Error::auth("Authentication Error, 'user' param not passed in. 'enforce_user_param'=True")
}

/// `enforced_params`.
pub fn no_param(name: &str) -> Error {
    Error::bad_request(format!(
        "BadRequest please pass param={name} in request body. This is a required param"
    ))
    .with_param(name.to_owned())
}

/// A management path, and no ledger.
pub fn no_ledger() -> Error {
    Error::of(RequestFault::NoLedger, "No connected db.")
}

/// What a limit or a budget says that refuses; `alias` is the key's.
pub fn limit(rule: &Rule, why: Why, alias: Option<&str>, now_ms: u64) -> Error {
    let id = rule.meter.name().split_once(':').map_or("", |(_, id)| id);
    match why {
        Why::Budget { spend, held } => budget(rule, id, spend, held, alias),
        Why::Requests { resets_at_ms } => rate(rule, id, "requests", rule.limits.rpm, resets_at_ms, now_ms),
        Why::Tokens { resets_at_ms } => rate(rule, id, "tokens", rule.limits.tpm, resets_at_ms, now_ms),
        // A slot is free when another request ends, which nobody can tell.
        Why::Parallel => rate(
            rule,
            id,
            "max_parallel_requests",
            rule.limits.parallel,
            now_ms.saturating_add(1_000),
            now_ms,
        ),
        Why::Full => Error::of(
            OurFault::Unavailable { retry_after_s: Some(60) },
            "more keys, teams and users with limits are in use than the gateway can count at a time. Try again later.",
        ),
    }
}

fn budget(rule: &Rule, id: &str, spend: Money, held: Money, alias: Option<&str>) -> Error {
    let max = rule.max_budget.unwrap_or_default();
    let mut error = over_budget(rule.kind, id, spend, max, alias);
    // What is only reserved has not been spent: it may come back when a request in flight is over.
    if spend < max && held > Money::ZERO {
        error.message = format!("{}. Requests in flight have reserved {} more", error.message, dollars(held));
    }
    error
}

fn over_budget(kind: MeterKind, id: &str, spend: Money, limit: Money, alias: Option<&str>) -> Error {
    let (cost, max) = (dollars(spend), dollars(limit));
    let message = match kind {
        MeterKind::Team => {
            format!("Budget has been exceeded! Team={id} Current cost: {cost}, Max budget: {max}")
        }
        MeterKind::User => format!("ExceededBudget: User={id} over budget. Spend={cost}, Budget={max}"),
        MeterKind::EndUser => {
            format!("ExceededBudget: End User={id} over budget. Spend={cost}, Budget={max}")
        }
        MeterKind::Organization => {
            format!("Budget has been exceeded! Organization={id} Current cost: {cost}, Max budget: {max}")
        }
        MeterKind::KeyModel => {
            let (hash, model) = id.split_once('/').unwrap_or((id, ""));
            let alias = alias.unwrap_or("None");
            format!("LiteLLM Virtual Key: {hash}, key_alias: {alias}, exceeded budget for model={model}")
        }
        MeterKind::TeamModel
        | MeterKind::UserModel
        | MeterKind::OrganizationModel
        | MeterKind::EndUserModel => {
            let (id, model) = id.split_once('/').unwrap_or((id, ""));
            let who = match kind {
                MeterKind::TeamModel => "Team",
                MeterKind::UserModel => "User",
                MeterKind::OrganizationModel => "Organization",
                _ => "End User",
            };
            format!("Budget has been exceeded! {who}={id} exceeded budget for model={model}")
        }
        MeterKind::MemberModel => {
            let (team, rest) = id.split_once('/').unwrap_or((id, ""));
            let (user, model) = rest.split_once('/').unwrap_or((rest, ""));
            format!("Budget has been exceeded! User={user} in Team={team} exceeded budget for model={model}")
        }
        MeterKind::KeyWindow | MeterKind::UserWindow | MeterKind::TeamWindow => {
            let (id, period) = id.rsplit_once('/').unwrap_or(("", id));
            let who = match kind {
                MeterKind::UserWindow => format!("User={id}"),
                MeterKind::TeamWindow => format!("Team={id}"),
                _ => "Key".to_owned(),
            };
            let (cost, max) = (rounded(spend, 4), rounded(limit, 2));
            format!("ExceededBudget: {who} over {period} budget. Spend=${cost}, Limit=${max}")
        }
        MeterKind::Key
        | MeterKind::Member
        | MeterKind::OrganizationMember
        | MeterKind::Global
        | MeterKind::Deployment
        | MeterKind::Provider => {
            format!("Budget has been exceeded! Current cost: {cost}, Max budget: {max}")
        }
    };
    Error::of(LimitFault::Budget, message)
}

fn rate(
    rule: &Rule,
    id: &str,
    what: &'static str,
    limit: Option<u64>,
    resets_at_ms: u64,
    now_ms: u64,
) -> Error {
    let (who, limit) = (rule.kind.descriptor(), limit.unwrap_or_default());
    // LiteLLM has a colon where the meter's name has a slash.
    let id = match rule.kind {
        MeterKind::KeyModel
        | MeterKind::TeamModel
        | MeterKind::UserModel
        | MeterKind::OrganizationModel
        | MeterKind::EndUserModel
        | MeterKind::Member
        | MeterKind::OrganizationMember => id.replacen('/', ":", 1),
        MeterKind::MemberModel => id.replacen('/', ":", 2),
        MeterKind::Global => "proxy".to_owned(),
        _ => id.to_owned(),
    };
    let resets_at = format!("{} UTC", utc(resets_at_ms.div_ceil(1_000).saturating_mul(1_000)));
    let message = format!(
        "Rate limit exceeded for {who}: {id}. Limit type: {what}. Current limit: {limit}, Remaining: 0. \
         Limit resets at: {resets_at}"
    );
    let wait_s = resets_at_ms.saturating_sub(now_ms).div_ceil(1_000).max(1);
    Error::of(LimitFault::Rate { what, resets_at, wait_s }, message)
}

/// Dollars as Python prints a float: with a point in any case.
pub fn dollars(money: Money) -> String {
    let mut text = money.to_text();
    if !text.contains('.') {
        text.push_str(".0");
    }
    text
}

/// Dollars with so many digits after the point, as some of LiteLLM's messages have them.
fn rounded(money: Money, places: u32) -> String {
    let parts = 10_u128.pow(places);
    let unit = 1_000_000_000_000 / parts;
    let all = (money.pico().unsigned_abs() + unit / 2) / unit;
    let sign = if money < Money::ZERO { "-" } else { "" };
    format!("{sign}{}.{:0width$}", all / parts, all % parts, width = places as usize)
}

/// A list as Python prints it, which LiteLLM's messages do.
fn list(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    format!("[{}]", names.join(", "))
}

/// `2026-01-01 00:00:10`.
fn utc(ms: u64) -> String {
    let Civil { year, month, day, hour, minute, second } = Civil::from_ms(ms);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::{limits::Limits, meter::Meter, rule::Base};

    fn rule(kind: MeterKind, id: &str) -> Rule {
        Rule {
            owner: None,
            kind,
            meter: Meter::new(kind, id),
            limits: Limits { rpm: Some(3), tpm: Some(40), parallel: Some(2) },
            max_budget: Money::parse("1"),
            base: Base::default(),
            resets: None,
        }
    }

    #[test]
    fn budgets() {
        let why = Why::Budget { spend: Money::parse("1.2").unwrap(), held: Money::parse("3").unwrap() };
        let rows = [
            (rule(MeterKind::Key, "h"), "Budget has been exceeded! Current cost: 1.2, Max budget: 1.0"),
            (rule(MeterKind::Member, "t/u"), "Budget has been exceeded! Current cost: 1.2, Max budget: 1.0"),
            (
                rule(MeterKind::MemberModel, "t/u/m/n"),
                "Budget has been exceeded! User=u in Team=t exceeded budget for model=m/n",
            ),
            (rule(MeterKind::Global, ""), "Budget has been exceeded! Current cost: 1.2, Max budget: 1.0"),
            (
                rule(MeterKind::Team, "t"),
                "Budget has been exceeded! Team=t Current cost: 1.2, Max budget: 1.0",
            ),
            (rule(MeterKind::User, "u"), "ExceededBudget: User=u over budget. Spend=1.2, Budget=1.0"),
            (rule(MeterKind::EndUser, "e"), "ExceededBudget: End User=e over budget. Spend=1.2, Budget=1.0"),
            (
                rule(MeterKind::KeyModel, "h/openai/gpt-4o"),
                "LiteLLM Virtual Key: h, key_alias: mine, exceeded budget for model=openai/gpt-4o",
            ),
            (
                rule(MeterKind::KeyWindow, "h/30d"),
                "ExceededBudget: Key over 30d budget. Spend=$1.2000, Limit=$1.00",
            ),
            (
                rule(MeterKind::TeamWindow, "a/b/1d"),
                "ExceededBudget: Team=a/b over 1d budget. Spend=$1.2000, Limit=$1.00",
            ),
            (
                rule(MeterKind::UserWindow, "u/1h"),
                "ExceededBudget: User=u over 1h budget. Spend=$1.2000, Limit=$1.00",
            ),
        ];
        for (rule, message) in rows {
            let error = limit(&rule, why, Some("mine"), 0);
            assert_eq!((error.status(), error.name()), (400, "budget_exceeded"));
            assert_eq!(error.message, message);
            let body: serde_json::Value =
                serde_json::from_slice(&error.body(crate::core::error::ErrorFormat::OpenAi, "")).unwrap();
            assert_eq!((&body["error"]["param"], &body["error"]["code"]), (&().into(), &"400".into()));
        }
    }

    #[test]
    fn dollars_have_the_digits_that_messages_show() {
        for (amount, places, text) in [
            ("500.16584", 4, "500.1658"),
            ("500.16585", 4, "500.1659"),
            ("0.999951", 4, "1.0000"),
            ("0.004", 2, "0.00"),
            ("-1.5", 2, "-1.50"),
            ("1011.5675", 4, "1011.5675"),
        ] {
            assert_eq!(rounded(Money::parse(amount).unwrap(), places), text, "{amount}");
        }
    }

    #[test]
    fn what_is_only_reserved_is_not_called_cost() {
        let why = Why::Budget { spend: Money::parse("0.25").unwrap(), held: Money::parse("3").unwrap() };
        assert_eq!(
            limit(&rule(MeterKind::Team, "t"), why, None, 0).message,
            "Budget has been exceeded! Team=t Current cost: 0.25, Max budget: 1.0. \
             Requests in flight have reserved 3.0 more"
        );
    }

    #[test]
    fn rates() {
        let (now, at) = (1_767_225_600_001, 1_767_225_609_001);
        let rows = [
            (
                rule(MeterKind::Key, "h"),
                Why::Requests { resets_at_ms: at },
                "api_key: h. Limit type: requests. Current limit: 3",
                "9",
            ),
            (
                rule(MeterKind::User, "u"),
                Why::Tokens { resets_at_ms: at },
                "user: u. Limit type: tokens. Current limit: 40",
                "9",
            ),
            (
                rule(MeterKind::KeyModel, "h/a/b"),
                Why::Tokens { resets_at_ms: at },
                "model_per_key: h:a/b. Limit type: tokens. Current limit: 40",
                "9",
            ),
            (
                rule(MeterKind::Key, "h"),
                Why::Parallel,
                "api_key: h. Limit type: max_parallel_requests. Current limit: 2",
                "1",
            ),
        ];
        for (rule, why, text, wait) in rows {
            let error = limit(&rule, why, None, now);
            let reset = if wait == "9" { "2026-01-01 00:00:10 UTC" } else { "2026-01-01 00:00:02 UTC" };
            assert_eq!(
                error.message,
                format!("Rate limit exceeded for {text}, Remaining: 0. Limit resets at: {reset}")
            );
            assert_eq!((error.status(), error.shape().kind), (429, None));
            let headers = error.shape().headers;
            let header =
                |wanted: &str| headers.iter().find(|(name, _)| *name == wanted).map(|(_, v)| v.as_str());
            assert_eq!((header("retry-after"), header("reset_at")), (Some(wait), Some(reset)));
            assert!(header("rate_limit_type").is_some());
        }
        assert_eq!(limit(&rule(MeterKind::Key, "h"), Why::Full, None, 0).status(), 503);
    }
}
