//! Which callers may use which operation, and from where, as far as a request's headers tell: one judgement for calls of models
//! and for the management API.
//!
//! Lists of routes name operations. A list that opens something (`allowed_routes`) names them by one of their paths, by a pattern or
//! by a group. A list that closes something (`admin_only_routes`) closes all ways to do the same, however they are spelt.
//!
//! Long, because names, groups and rules of operations are one table with its tests: apart, they would not stay in step.

use super::{Caller, models::is_match, refusals};
use crate::core::{
    error::Error,
    model::{
        general::General,
        key_record::{KeyRecord, Role},
        meter::MeterKind,
    },
    operation::{Dialect, Operation, path::Action},
};

/// What kind of path one is, in LiteLLM's groups of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// Model calls and lists of models (`llm_api_routes`).
    Models,
    /// What is configured (`info_routes`).
    Info,
    /// The ledger's API.
    Management,
}

/// The roles that may use an operation. What handlers check besides only makes it narrower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Any client, without a key.
    Public,
    /// Any valid key; whose records it sees is the handler's business.
    AnyKey,
    /// Internal users and above: handlers of key management.
    InternalUser,
    /// Admins, and viewers (for reading).
    Viewer,
    /// Admins.
    Admin,
}

impl Access {
    /// Whether a role is enough.
    pub fn allows(self, role: Role) -> bool {
        match self {
            Access::Public | Access::AnyKey => true,
            Access::InternalUser => matches!(role, Role::ProxyAdmin | Role::OrgAdmin | Role::InternalUser),
            Access::Viewer => matches!(role, Role::ProxyAdmin | Role::ProxyAdminViewer),
            Access::Admin => role == Role::ProxyAdmin,
        }
    }
}

/// An operation that is called.
#[derive(Clone, Copy, Debug)]
pub struct Route<'r> {
    /// As called, without a query.
    pub path: &'r str,
    /// All paths that lead to the operation; parts in braces vary.
    pub names: &'r [&'r str],
    /// What the operation is about.
    pub area: Area,
    /// The roles that may use it.
    pub access: Access,
}

/// By what a caller may use an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// By the role of the key's owner.
    Role,
    /// Only because `allowed_routes` of the key name the operation.
    Grant,
}

const CHAT: &[&str] = &[
    "/chat/completions",
    "/v1/chat/completions",
    "/engines/{model}/chat/completions",
    "/openai/deployments/{model}/chat/completions",
];
const COMPLETIONS: &[&str] = &[
    "/completions",
    "/v1/completions",
    "/engines/{model}/completions",
    "/openai/deployments/{model}/completions",
];
const EMBEDDINGS: &[&str] = &[
    "/embeddings",
    "/v1/embeddings",
    "/engines/{model}/embeddings",
    "/openai/deployments/{model}/embeddings",
];
const MESSAGES: &[&str] = &["/v1/messages"];
const COUNT_TOKENS: &[&str] = &["/v1/messages/count_tokens"];
const MODELS: &[&str] = &["/models", "/v1/models"];

/// Operations that do in another form what another one does: a caller that may not call the second by any name may not call the
/// first.
const SAME: &[(&str, &[&str])] = &[
    ("/v1/messages", CHAT),
    ("/completions", CHAT),
    ("/models/{model}", MODELS),
    ("/v2/key/info", &["/key/info"]),
    ("/v2/team/list", &["/team/list"]),
    ("/v2/model/info", &["/model/info", "/v1/model/info"]),
    ("/key/aliases", &["/key/list"]),
    ("/spend/logs/v2", &["/spend/logs"]),
    ("/model/{model_id}/update", &["/model/update"]),
    ("/key/service-account/generate", &["/key/generate"]),
];

/// LiteLLM's `info_routes`, besides everything that ends with `/info`.
const INFO: &[&str] = &[
    "/key/health",
    "/key/list",
    "/key/aliases",
    "/team/list",
    "/v2/team/list",
    "/organization/list",
    "/health",
];
/// Where LiteLLM's `management_routes` begin.
const MANAGEMENT: &[&str] = &[
    "/key/",
    "/v2/key/",
    "/user/",
    "/team/",
    "/v2/team/",
    "/v2/model/",
    "/organization/",
    "/budget/",
    "/customer/",
    "/end_user/",
    "/model/",
];

impl<'r> Route<'r> {
    /// The route of an operation that the filter serves itself.
    pub fn of(action: &Action<'_>, path: &'r str) -> Route<'r> {
        let (names, area): (&[&str], Area) = match action {
            Action::Call { api, .. } => (
                match api.dialect {
                    _ if api.operation == Operation::CountTokens => COUNT_TOKENS,
                    Dialect::Chat => CHAT,
                    Dialect::Completions => COMPLETIONS,
                    Dialect::Embeddings => EMBEDDINGS,
                    Dialect::Messages => MESSAGES,
                },
                Area::Models,
            ),
            Action::Models => (MODELS, Area::Models),
            Action::Model(_) => (&["/models/{model}", "/v1/models/{model}"], Area::Models),
            Action::ModelInfo => (&["/model/info", "/v1/model/info"], Area::Info),
            Action::Manage => (&[], Area::Management),
            _ => (&[], Area::Info),
        };
        Route { path, names, area, access: Access::AnyKey }
    }

    /// Whether a list that opens routes names it: by one of its paths (with or without `/v1`), by a pattern, or by a group.
    pub fn is_in(&self, list: &[String]) -> bool {
        list.iter().any(|entry| self.is_opened_by(entry))
    }

    /// Whether a list that closes routes names it, or what it does, in whatever spelling.
    pub fn is_closed_by(&self, list: &[String]) -> bool {
        if list.is_empty() {
            return false;
        }
        let same = SAME.iter().filter(|(name, _)| self.names.contains(name)).flat_map(|(_, names)| *names);
        let names: Vec<&str> = self.names.iter().chain(same).copied().collect();
        let all = Route { names: &names, ..*self };
        list.iter().any(|entry| {
            let entry = plain(entry);
            all.is_opened_by(&entry)
                || names.iter().any(|name| fits_form(bare(name), bare(&entry)) || is_match(&entry, name))
        })
    }

    fn is_opened_by(&self, entry: &str) -> bool {
        if let Some(is_member) = self.is_in_group(entry) {
            return is_member;
        }
        let (wanted, called) = (bare(entry), bare(self.path));
        wanted == called
            || self.names.iter().any(|name| bare(name) == wanted)
            || (wanted.contains('*')
                && (is_match(entry, self.path)
                    || self.names.iter().any(|name| !name.contains('{') && is_match(entry, name))))
            || fits_form(wanted, called)
    }

    /// Whether it belongs to a group; `None` when there is no such group.
    fn is_in_group(&self, entry: &str) -> Option<bool> {
        let path = trimmed(self.path);
        let below = |starts: &[&str]| starts.iter().any(|start| path.starts_with(start));
        let calls = self.area == Area::Models || path == "/utils/token_counter";
        let is_messages = self.names == MESSAGES || self.names == COUNT_TOKENS;
        Some(match entry.strip_prefix("LiteLLMRoutes.").unwrap_or(entry) {
            "llm_api_routes" => calls,
            "openai_routes" => calls && !is_messages,
            "anthropic_routes" => is_messages,
            "info_routes" => self.area == Area::Info || path.ends_with("/info") || INFO.contains(&path),
            "management_routes" => {
                bare(path) == "/model/info" || self.area == Area::Management && below(MANAGEMENT)
            }
            "key_management_routes" => below(&["/key/"]) && path != "/key/health",
            "spend_tracking_routes" => below(&["/spend/"]),
            "global_spend_tracking_routes" => path == "/global/spend" || below(&["/global/spend/"]),
            _ => return None,
        })
    }
}

/// A path without slashes at its end.
fn trimmed(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { path } else { trimmed }
}

/// A path without `/v1` in front and without slashes at its end.
fn bare(path: &str) -> &str {
    let path = trimmed(path);
    path.strip_prefix("/v1").filter(|rest| rest.starts_with('/')).unwrap_or(path)
}

/// An entry of a list that closes routes, as paths are written: what was meant to be closed stays closed when it was written
/// `V1/Chat/Completions/`.
fn plain(entry: &str) -> String {
    let entry = entry.trim();
    let entry = entry.strip_prefix("LiteLLMRoutes.").unwrap_or(entry);
    if !entry.contains('/') {
        return entry.to_owned();
    }
    let parts: Vec<&str> = entry.split('/').filter(|part| !part.is_empty()).collect();
    format!("/{}", parts.join("/")).to_ascii_lowercase()
}

/// Whether a path fits a form such as `/engines/{model}/chat/completions`. A model may hold slashes.
fn fits_form(form: &str, path: &str) -> bool {
    let Some((before, rest)) = form.split_once('{') else { return false };
    let after = rest.split_once('}').map_or("", |(_, after)| after);
    path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).is_some_and(|part| !part.is_empty())
}

/// What the configuration says about a path, for every caller: `allowed_ips`, `allowed_routes`.
pub fn check_address_and_route(
    route: Route<'_>,
    general: &General,
    client: impl Fn() -> Option<String>,
) -> Result<(), Error> {
    if !general.allowed_ips.is_empty() {
        let client = client().unwrap_or_default();
        if !general.allowed_ips.iter().any(|allowed| allowed.trim() == client) {
            return Err(refusals::address(&client));
        }
    }
    if !general.allowed_routes.is_empty() && !route.is_in(&general.allowed_routes) {
        return Err(refusals::route(route.path));
    }
    Ok(())
}

/// What is known of a caller and an operation before the body is there, in LiteLLM's order: blocked, expired, what stands
/// above the key (for management; for calls it is judged with the model), for admins only, the role, the key's own list.
pub fn authorize(caller: &Caller, route: Route<'_>, general: &General, now_ms: u64) -> Result<Right, Error> {
    match caller.grant() {
        Some(grant) => authorize_key(grant, route, general, now_ms),
        None => Ok(Right::Role),
    }
}

/// Authorizes a virtual key for an operation.
pub fn authorize_key(
    grant: &KeyRecord,
    route: Route<'_>,
    general: &General,
    now_ms: u64,
) -> Result<Right, Error> {
    if grant.key.blocked {
        return Err(refusals::blocked_key());
    }
    if let Some(expires_ms) = grant.expires_ms.filter(|expires| *expires < now_ms) {
        return Err(refusals::expired(grant, expires_ms, now_ms));
    }
    if route.area == Area::Management {
        owners_stand(grant)?;
    }
    if grant.role != Role::ProxyAdmin && route.is_closed_by(&general.admin_only_routes) {
        return Err(refusals::admin_only(route.path));
    }
    let right = match route.access.allows(grant.role) {
        true => Right::Role,
        false if is_granted(grant, route) => Right::Grant,
        false => return Err(refusals::role(grant, route.path)),
    };
    if !grant.allowed_routes.is_empty() && !route.is_in(&grant.allowed_routes) {
        return Err(refusals::not_for_key(&grant.allowed_routes, route.path));
    }
    Ok(right)
}

/// Whether a key's own list gives more than the role of its owner. Groups only say what a key is for: they give nothing to
/// a user with a role, and to a key without a user what an internal user may.
fn is_granted(grant: &KeyRecord, route: Route<'_>) -> bool {
    grant.role != Role::ProxyAdminViewer
        && grant.allowed_routes.iter().any(|entry| {
            let is_group = route.is_in_group(entry).is_some();
            let by_group = grant.role == Role::Unknown && route.access == Access::InternalUser;
            (!is_group || by_group) && route.is_opened_by(entry)
        })
}

/// Refuses a key whose team, user or organization is blocked or has used up its budget, as LiteLLM does on every route. The
/// key's own budget is for calls of models alone.
fn owners_stand(grant: &KeyRecord) -> Result<(), Error> {
    let team = grant.team.as_deref();
    if let Some(team) = team {
        if team.blocked {
            return Err(refusals::blocked_team(team));
        }
        refusals::within_budget(MeterKind::Team, team)?;
    }
    if let Some(user) = grant.user.as_deref() {
        if user.blocked {
            return Err(refusals::blocked_owner("User", user));
        }
        if team.is_none() {
            refusals::within_budget(MeterKind::User, user)?;
        }
    }
    if let Some(organization) = grant.organization.as_deref() {
        if organization.blocked {
            return Err(refusals::blocked_owner("Organization", organization));
        }
        refusals::within_budget(MeterKind::Organization, organization)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::{key_record::Principal, limits::Budget};

    const CHAT: Route = call("/v1/chat/completions", super::CHAT);
    const KEYS: Route = managed("/key/generate", &["/key/generate"]);

    const fn call<'r>(path: &'r str, names: &'r [&'r str]) -> Route<'r> {
        Route { path, names, area: Area::Models, access: Access::AnyKey }
    }

    const fn managed<'r>(path: &'r str, names: &'r [&'r str]) -> Route<'r> {
        Route { path, names, area: Area::Management, access: Access::InternalUser }
    }

    #[test]
    fn lists_of_routes() {
        let rows = [
            ("/chat/completions", CHAT, true),
            ("/v1/chat/completions", CHAT, true),
            ("/v1/chat/completions/", CHAT, true),
            ("/v1/*", CHAT, true),
            ("/embeddings", CHAT, false),
            ("llm_api_routes", CHAT, true),
            ("LiteLLMRoutes.openai_routes", CHAT, true),
            ("management_routes", CHAT, false),
            ("management_routes", KEYS, true),
            ("info_routes", KEYS, false),
            ("info_routes", managed("/key/info", &["/key/info"]), true),
            ("/key/*", KEYS, true),
            ("/v1/*", KEYS, false),
            ("/v1/*", call("/engines/a/chat/completions", super::CHAT), true),
            ("/chat/completions", call("/openai/deployments/a/chat/completions", super::CHAT), true),
            ("/engines/a/chat/completions", call("/engines/a/chat/completions", super::CHAT), true),
            ("/engines/a/chat/completions", call("/engines/b/chat/completions", super::CHAT), false),
            ("/chat/completions", call("/v1/messages", super::MESSAGES), false),
            ("anthropic_routes", call("/v1/messages", super::MESSAGES), true),
            ("openai_routes", call("/v1/messages", super::MESSAGES), false),
            ("llm_api_routes", call("/v1/messages", super::MESSAGES), true),
            ("anthropic_routes", call("/v1/messages/count_tokens", super::COUNT_TOKENS), true),
            ("openai_routes", call("/v1/messages/count_tokens", super::COUNT_TOKENS), false),
            ("llm_api_routes", call("/v1/messages/count_tokens", super::COUNT_TOKENS), true),
            ("/v1/messages/*", call("/v1/messages/count_tokens", super::COUNT_TOKENS), true),
            ("/v1/messages", call("/v1/messages/count_tokens", super::COUNT_TOKENS), false),
            ("llm_api_routes", KEYS, false),
            ("llm_api_routes", managed("/utils/token_counter", &["/utils/token_counter"]), true),
            ("info_routes", managed("/key/list", &["/key/list"]), true),
            ("info_routes", managed("/spend/logs", &["/spend/logs"]), false),
            ("management_routes", managed("/spend/logs", &["/spend/logs"]), false),
            ("spend_tracking_routes", managed("/spend/logs", &["/spend/logs"]), true),
            ("key_management_routes", KEYS, true),
            ("/customer/new", managed("/end_user/new", &["/customer/new", "/end_user/new"]), true),
            ("/engines/{model}/chat/completions", call("/engines/a/b/chat/completions", super::CHAT), true),
        ];
        for (entry, route, expected) in rows {
            assert_eq!(route.is_in(&[entry.to_owned()]), expected, "{entry} {}", route.path);
        }
    }

    #[test]
    fn what_is_closed_is_closed_in_every_spelling() {
        let deployments = "/openai/deployments/a/b/chat/completions";
        let regenerate: &[&str] = &["/key/regenerate", "/key/{key}/regenerate"];
        let rows = [
            ("/v1/chat/completions", CHAT, true),
            ("/chat/completions", CHAT, true),
            (" V1//Chat/Completions// ", CHAT, true),
            ("chat/completions", CHAT, true),
            ("/v1/chat/completions", call("/engines/pool/chat/completions", super::CHAT), true),
            ("/v1/chat/completions", call(deployments, super::CHAT), true),
            ("/engines/{model}/chat/completions", CHAT, true),
            ("/engines/*", CHAT, true),
            ("/v1/chat/completions", call("/v1/messages", super::MESSAGES), true),
            ("/v1/chat/completions", call("/completions", super::COMPLETIONS), true),
            ("/v1/chat/completions", call("/embeddings", super::EMBEDDINGS), false),
            ("/embeddings", call("/openai/deployments/pool/embeddings", super::EMBEDDINGS), true),
            ("/v1/messages", CHAT, false),
            ("/completions", CHAT, false),
            ("/key/generate", KEYS, true),
            ("/key/generate", managed("/key/generate//", &["/key/generate"]), true),
            (
                "/key/generate",
                managed("/key/service-account/generate", &["/key/service-account/generate"]),
                true,
            ),
            ("/key/update", KEYS, false),
            ("/key/regenerate", managed("/key/abc/regenerate", regenerate), true),
            ("/key/{key}/regenerate", managed("/key/regenerate", regenerate), true),
            ("/end_user/new", managed("/customer/new", &["/customer/new", "/end_user/new"]), true),
            ("/key/info", managed("/v2/key/info", &["/v2/key/info"]), true),
            ("management_routes", KEYS, true),
            ("llm_api_routes", KEYS, false),
        ];
        for (entry, route, expected) in rows {
            assert_eq!(route.is_closed_by(&[entry.to_owned()]), expected, "{entry} {}", route.path);
        }
    }

    #[test]
    fn a_role_and_what_a_key_is_granted_decide_about_management() {
        let admin = Route { access: Access::Admin, ..managed("/user/update", &["/user/update"]) };
        let any = Route { access: Access::AnyKey, ..managed("/key/info", &["/key/info"]) };
        let role = "Only proxy admin can be used";
        let list = "Virtual key is not allowed to call this route.";
        let viewer = "user not allowed to access this route, role= proxy_admin_viewer";
        type Expected<'r> = Result<Right, (u16, &'r str)>;
        let rows: &[(Role, &[&str], Route, Expected)] = &[
            (Role::ProxyAdmin, &[], admin, Ok(Right::Role)),
            (Role::ProxyAdmin, &["/chat/completions"], admin, Err((401, list))),
            (Role::ProxyAdmin, &["llm_api_routes"], KEYS, Err((401, list))),
            (Role::ProxyAdmin, &["management_routes"], KEYS, Ok(Right::Role)),
            (Role::ProxyAdmin, &["info_routes"], KEYS, Err((401, list))),
            (Role::ProxyAdmin, &["info_routes"], any, Ok(Right::Role)),
            (Role::ProxyAdminViewer, &["/key/generate"], KEYS, Err((403, viewer))),
            (Role::InternalUser, &[], KEYS, Ok(Right::Role)),
            (Role::InternalUser, &[], admin, Err((401, role))),
            (Role::InternalUser, &["llm_api_routes"], KEYS, Err((401, list))),
            (Role::InternalUser, &["llm_api_routes"], any, Err((401, list))),
            (Role::InternalUser, &["management_routes"], KEYS, Ok(Right::Role)),
            // A group says what a key is for; it does not make its owner more.
            (Role::InternalUser, &["management_routes"], admin, Err((401, role))),
            (Role::InternalUser, &["/user/update"], admin, Ok(Right::Grant)),
            (Role::InternalUser, &["/user/*"], admin, Ok(Right::Grant)),
            (Role::InternalUserViewer, &[], KEYS, Err((401, role))),
            (Role::Unknown, &[], KEYS, Err((401, "Your role=unknown. Your user_id=unknown"))),
            (Role::Unknown, &[], any, Ok(Right::Role)),
            (Role::Unknown, &["/key/generate"], KEYS, Ok(Right::Grant)),
            (Role::Unknown, &["/key/generate"], admin, Err((401, role))),
            (Role::Unknown, &["management_routes"], KEYS, Ok(Right::Grant)),
            (Role::Unknown, &["management_routes"], admin, Err((401, role))),
            (Role::Unknown, &["llm_api_routes"], KEYS, Err((401, role))),
        ];
        for (role, routes, route, expected) in rows {
            let allowed_routes = routes.iter().map(|route| (*route).to_owned()).collect();
            let grant = KeyRecord { role: *role, allowed_routes, ..KeyRecord::default() };
            let got = authorize_key(&grant, *route, &General::default(), 0);
            match (&got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{role:?} {routes:?} {}", route.path),
                (Err(error), Err((status, text))) => {
                    assert_eq!(error.status(), *status, "{}", error.message);
                    assert!(error.message.contains(text), "{}", error.message);
                }
                _ => panic!("{role:?} {routes:?} {}: {got:?}", route.path),
            }
        }
    }

    #[test]
    fn whose_team_or_user_is_blocked_or_over_budget_manages_nothing() {
        let scope = |blocked, spend| {
            let budget = Budget { max: Some(1_000_000_000_000), spend, ..Budget::default() };
            Some(Box::new(Principal { id: "x".to_owned(), blocked, budget, ..Principal::default() }))
        };
        let (at, over) = (1_000_000_000_000, 1_500_000_000_000);
        let admin = || KeyRecord { role: Role::InternalUser, ..KeyRecord::default() };
        let of_key = |mut grant: KeyRecord| {
            grant.key.budget = Budget { max: Some(0), ..Budget::default() };
            grant
        };
        let rows = [
            (of_key(admin()), None),
            (KeyRecord { team: scope(false, at), ..admin() }, None),
            (
                KeyRecord { team: scope(false, over), ..admin() },
                Some((400, "Budget has been exceeded! Team=x Current cost: 1.5, Max budget: 1.0")),
            ),
            (
                KeyRecord { team: scope(true, 0), ..admin() },
                Some((
                    401,
                    "Authentication Error, Team=x is blocked. Update via `/team/unblock` if your admin.",
                )),
            ),
            (
                KeyRecord { user: scope(false, over), ..admin() },
                Some((400, "ExceededBudget: User=x over budget. Spend=1.5, Budget=1.0")),
            ),
            // With a team the user's own budget says nothing.
            (KeyRecord { user: scope(false, over), team: scope(false, 0), ..admin() }, None),
            (
                KeyRecord { organization: scope(false, over), ..admin() },
                Some((400, "Budget has been exceeded! Organization=x Current cost: 1.5, Max budget: 1.0")),
            ),
        ];
        for (grant, expected) in rows {
            let got = authorize_key(&grant, KEYS, &General::default(), 0).err();
            let got = got.as_ref().map(|error| (error.status(), error.message.as_str()));
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn the_configuration_names_addresses_and_paths() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let rows: &[(&[&str], &[&str], Option<u16>)] = &[
            (&[], &[], None),
            (&["10.0.0.1"], &[], None),
            (&["10.0.0.2"], &[], Some(403)),
            (&[], &["/chat/completions"], None),
            (&[], &["/embeddings"], Some(403)),
        ];
        for (ips, paths, status) in rows {
            let general =
                General { allowed_ips: texts(ips), allowed_routes: texts(paths), ..General::default() };
            let got = check_address_and_route(CHAT, &general, || Some("10.0.0.1".to_owned())).err();
            assert_eq!(got.map(|error| error.status()), *status, "{ips:?} {paths:?}");
        }
    }

    #[test]
    fn keys_are_judged_by_their_headers_first() {
        let general =
            General { admin_only_routes: vec!["/v1/chat/completions".into()], ..General::default() };
        let plain = General::default();
        let change = |change: fn(&mut KeyRecord)| {
            let mut grant = KeyRecord { name: Some("sk-...abcd".into()), ..KeyRecord::default() };
            change(&mut grant);
            Caller::Key(grant.into())
        };
        let now = 1_767_225_610_000;
        type Row<'r> = (Caller, &'r General, Option<(u16, &'r str, &'r str)>);
        let rows: Vec<Row> = vec![
            (change(|_| {}), &plain, None),
            (Caller::Master, &general, None),
            (
                change(|grant| grant.key.blocked = true),
                &plain,
                Some((
                    401,
                    "auth_error",
                    "Authentication Error, Key is blocked. Update via `/key/unblock` if you're admin.",
                )),
            ),
            (
                change(|grant| grant.expires_ms = Some(1_767_225_600_000)),
                &plain,
                Some((
                    400,
                    "expired_key",
                    "Authentication Error - Expired Key. Key Expiry time 2026-01-01 00:00:00+00:00 and current time \
                     2026-01-01 00:00:10+00:00",
                )),
            ),
            (change(|grant| grant.expires_ms = Some(1_767_225_700_000)), &plain, None),
            (
                change(|grant| grant.allowed_routes = vec!["/embeddings".to_owned()]),
                &plain,
                Some((
                    401,
                    "auth_error",
                    "Virtual key is not allowed to call this route. Only allowed to call routes: ['/embeddings']. \
                     Tried to call route: /v1/chat/completions",
                )),
            ),
            (
                change(|_| {}),
                &general,
                Some((
                    403,
                    "auth_error",
                    "user not allowed to access this route. Route=/v1/chat/completions is an admin only route",
                )),
            ),
            (change(|grant| grant.role = Role::ProxyAdmin), &general, None),
        ];
        for (caller, general, expected) in rows {
            let got = authorize(&caller, CHAT, general, now).err();
            let got = got.as_ref().map(|error| {
                (error.status(), error.shape().kind.unwrap_or_default(), error.message.as_str())
            });
            assert_eq!(got, expected);
        }
    }
}
