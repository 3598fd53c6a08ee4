//! Which paths may be called, by whom and from where, as far as a request's headers tell.

use super::{Caller, grant::Role, models::is_match, refusals};
use crate::core::{config::General, error::Error};

/// What kind of path one is, in LiteLLM's groups of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// Model calls and lists of models (`llm_api_routes`).
    Models,
    /// What is configured (`info_routes`).
    Info,
    /// The ledger's API (`management_routes`).
    Management,
}

/// A path that is called.
#[derive(Clone, Copy, Debug)]
pub struct Route<'r> {
    /// Without a query.
    pub path: &'r str,
    /// Its kind.
    pub area: Area,
}

impl Route<'_> {
    /// Whether a list names it: by its path (with or without `/v1`), by a pattern, or by a group.
    pub fn is_in(&self, list: &[String]) -> bool {
        list.iter().any(|entry| self.fits(entry))
    }

    fn fits(&self, entry: &str) -> bool {
        match entry.strip_prefix("LiteLLMRoutes.").unwrap_or(entry) {
            "llm_api_routes" | "openai_routes" | "anthropic_routes" => self.area == Area::Models,
            "info_routes" => self.area == Area::Info || self.path.ends_with("/info"),
            "management_routes" => self.area == Area::Management,
            path => {
                let (wanted, called) = (bare(path), bare(self.path));
                wanted == called
                    || (wanted.contains('*') && is_match(wanted, called))
                    || fits_form(wanted, called)
            }
        }
    }
}

/// A path without `/v1` in front and without a slash at its end.
fn bare(path: &str) -> &str {
    let path = path.strip_suffix('/').unwrap_or(path);
    path.strip_prefix("/v1").filter(|rest| rest.starts_with('/')).unwrap_or(path)
}

/// Whether a path fits a form such as `/engines/{model}/chat/completions`. A model may hold slashes.
fn fits_form(form: &str, path: &str) -> bool {
    let Some((before, rest)) = form.split_once('{') else { return false };
    let after = rest.split_once('}').map_or("", |(_, after)| after);
    path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).is_some_and(|part| !part.is_empty())
}

/// What the configuration says about a path, whoever calls it: `allowed_ips`, `allowed_routes`.
pub fn gate(route: Route<'_>, general: &General, client: impl Fn() -> Option<String>) -> Result<(), Error> {
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

/// What is known of a caller and a path before the body is there: blocked, expired, not for this path.
pub fn permit(caller: &Caller, route: Route<'_>, general: &General, now_ms: u64) -> Result<(), Error> {
    let Some(grant) = caller.grant() else { return Ok(()) };
    if grant.key.blocked {
        return Err(refusals::blocked_key());
    }
    if let Some(expires_ms) = grant.expires_ms.filter(|expires| *expires < now_ms) {
        return Err(refusals::expired(grant, expires_ms, now_ms));
    }
    if grant.role != Role::ProxyAdmin && route.is_in(&general.admin_only_routes) {
        return Err(refusals::admin_only(route.path));
    }
    if !grant.allowed_routes.is_empty() && !route.is_in(&grant.allowed_routes) {
        return Err(refusals::not_for_key(&grant.allowed_routes, route.path));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::access::grant::Grant;

    const CHAT: Route = Route { path: "/v1/chat/completions", area: Area::Models };
    const KEYS: Route = Route { path: "/key/generate", area: Area::Management };

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
            ("info_routes", Route { path: "/key/info", area: Area::Management }, true),
            ("/key/*", KEYS, true),
            (
                "/engines/{model}/chat/completions",
                Route { path: "/engines/a/b/chat/completions", area: Area::Models },
                true,
            ),
        ];
        for (entry, route, expected) in rows {
            assert_eq!(route.is_in(&[entry.to_owned()]), expected, "{entry} {}", route.path);
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
            let got = gate(CHAT, &general, || Some("10.0.0.1".to_owned())).err();
            assert_eq!(got.map(|error| error.status), *status, "{ips:?} {paths:?}");
        }
    }

    #[test]
    fn keys_are_judged_by_their_headers_first() {
        let general =
            General { admin_only_routes: vec!["/v1/chat/completions".into()], ..General::default() };
        let plain = General::default();
        let change = |change: fn(&mut Grant)| {
            let mut grant = Grant { name: Some("sk-...abcd".to_owned()), ..Grant::default() };
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
            let got = permit(&caller, CHAT, general, now).err();
            let got = got.as_ref().map(|error| {
                (error.status, error.kind.as_deref().unwrap_or_default(), error.message.as_str())
            });
            assert_eq!(got, expected);
        }
    }
}
