//! The Redis that several ledgers share: `router_settings.redis_*`, and LiteLLM's variables for what these leave open.

use super::{
    blocks::Blocks,
    read::{Block, Source, flag_of, word_flag},
    settings::Verdict,
    yaml::member,
};
use crate::core::model::secret::Secret;

/// What is done with it.
const SHARED: &str = "gateways tell each other what limits and strategies count; cooldowns stay with each";

/// Where a Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redis {
    /// `redis_url`, or `REDIS_URL`, which LiteLLM takes before a host.
    Url(Secret),
    /// `redis_host` and what belongs to it.
    Host {
        /// `redis_host`, or `REDIS_HOST`.
        host: String,
        /// `cache_kwargs.port`, `redis_port` or `REDIS_PORT` (6379).
        port: u16,
        /// `cache_kwargs.username`, `redis_username` or `REDIS_USERNAME`.
        username: Option<String>,
        /// `cache_kwargs.password`, `redis_password` or `REDIS_PASSWORD`.
        password: Option<Secret>,
        /// `cache_kwargs.db`, `redis_db` or `REDIS_DB` (0).
        db: u32,
        /// `cache_kwargs.ssl`, `redis_ssl` or `REDIS_SSL`.
        tls: bool,
    },
}

/// Reads it. The variables alone name none: LiteLLM's router looks at them only when its settings name one.
pub(super) fn read(src: &mut Source, blocks: &Blocks) -> Option<Redis> {
    let own = &blocks.router;
    let more = own.member(src, "cache_kwargs");
    let own_url = own.text(src, "redis_url");
    let own_host = own.text(src, "redis_host");
    if own_url.is_none() && own_host.is_none() {
        return None;
    }
    let named_by = member(&own.path, if own_url.is_some() { "redis_url" } else { "redis_host" });
    src.note(&named_by, Verdict::Approximated(SHARED.into()));
    let url = own_url.or_else(|| src.variable("REDIS_URL"));
    if let Some(url) = url {
        return by_url(src, &member(&own.path, "redis_url"), url);
    }
    by_host(src, own, &more, own_host?)
}

fn by_host(src: &mut Source, own: &Block, more: &Block, host: String) -> Option<Redis> {
    let path = member(&own.path, "redis_host");
    if host.contains('/') {
        src.problem(&path, "expected a host name", "write a URL as `redis_url`");
        return None;
    }
    let password = text(src, [own, more], ["redis_password", "password"], "REDIS_PASSWORD");
    Some(Redis::Host {
        host,
        port: number(src, [own, more], ["redis_port", "port"], "REDIS_PORT")?.unwrap_or(6379),
        username: text(src, [own, more], ["redis_username", "username"], "REDIS_USERNAME"),
        password: password.map(Secret::new),
        db: number(src, [own, more], ["redis_db", "db"], "REDIS_DB")?.unwrap_or(0),
        tls: flag(src, [own, more], ["redis_ssl", "ssl"], "REDIS_SSL")?,
    })
}

/// The scheme is all that can be said of it without showing it.
fn by_url(src: &mut Source, path: &str, url: String) -> Option<Redis> {
    const SCHEMES: [&str; 5] = ["redis", "rediss", "valkey", "valkeys", "unix"];
    let rest = url.split_once("://").filter(|(scheme, rest)| SCHEMES.contains(scheme) && !rest.is_empty());
    if rest.is_none() {
        src.problem(
            path,
            "expected the URL of a Redis (here or in REDIS_URL)",
            "write `redis://:password@host:6379`, or `rediss://…` for TLS",
        );
        return None;
    }
    Some(Redis::Url(Secret::new(url)))
}

/// The first of: the member of `cache_kwargs` (LiteLLM lays these over the settings), the setting, the variable.
fn text(src: &mut Source, blocks: [&Block; 2], names: [&str; 2], variable: &str) -> Option<String> {
    let [own, more] = blocks;
    let [name, short] = names;
    let set = more.text(src, short).or_else(|| own.text(src, name));
    set.or_else(|| src.variable(variable))
}

/// The number of [`text`]; `None` when the text is none, `Some(None)` when nothing is set.
fn number<T: std::str::FromStr>(
    src: &mut Source,
    blocks: [&Block; 2],
    names: [&str; 2],
    variable: &str,
) -> Option<Option<T>> {
    let Some(text) = text(src, blocks, names, variable) else { return Some(None) };
    let number = text.trim().parse().ok();
    if number.is_none() {
        misread(src, blocks, names, variable, ["a whole number", "write digits only"]);
    }
    number.map(Some)
}

/// The switch of [`text`], which is off when nothing is set.
fn flag(src: &mut Source, blocks: [&Block; 2], names: [&str; 2], variable: &str) -> Option<bool> {
    let Some(text) = text(src, blocks, names, variable) else { return Some(false) };
    let flag = flag_of(text.trim()).or_else(|| word_flag(text.trim()));
    if flag.is_none() {
        misread(src, blocks, names, variable, ["true or false", "write one of the two"]);
    }
    flag
}

/// A problem with a value that may be a secret in the wrong place: it is not shown.
fn misread(
    src: &mut Source,
    [own, _]: [&Block; 2],
    [name, short]: [&str; 2],
    variable: &str,
    [expected, fix]: [&str; 2],
) {
    let expected = format!("expected {expected} (here, as `cache_kwargs.{short}` or in {variable})");
    src.problem(&member(&own.path, name), expected, fix);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config::load;

    fn read(router: &str, env: &[(&str, &str)]) -> Result<Option<Redis>, String> {
        let get =
            |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let unseal = |sealed: &str| sealed.strip_prefix("ok+").map(str::to_owned);
        load(&format!("router_settings: {{{router}}}"), &get, &unseal)
            .map(|loaded| loaded.config.ledger.redis)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn host(host: &str, port: u16) -> Redis {
        let (username, password) = (None, None);
        Redis::Host { host: host.to_owned(), port, username, password, db: 0, tls: false }
    }

    #[test]
    fn the_settings_name_it_and_variables_fill_what_is_missing() {
        let url = |url: &str| Some(Redis::Url(Secret::new(url)));
        let full = Redis::Host {
            host: "h".to_owned(),
            port: 7,
            username: Some("u".to_owned()),
            password: Some(Secret::new("p")),
            db: 2,
            tls: true,
        };
        for (router, env, expected) in [
            ("", &[("REDIS_URL", "redis://e"), ("REDIS_HOST", "e")][..], None),
            ("redis_password: p, redis_port: 1", &[], None),
            ("redis_url: 'redis://:p@h:1/2'", &[], url("redis://:p@h:1/2")),
            ("redis_url: os.environ/R", &[("R", "rediss://e")], url("rediss://e")),
            ("redis_url: os.environ/R", &[], None),
            ("redis_url: sealed/ok+redis://s", &[], url("redis://s")),
            ("redis_url: 'redis://h'", &[("REDIS_URL", "redis://e")], url("redis://h")),
            ("redis_host: h, redis_port: 7", &[("REDIS_URL", "redis://e")], url("redis://e")),
            ("redis_host: h, redis_port: '7'", &[], Some(host("h", 7))),
            ("redis_host: h", &[], Some(host("h", 6379))),
            (
                "redis_host: os.environ/H, redis_port: os.environ/P",
                &[("H", "e"), ("P", "9")],
                Some(host("e", 9)),
            ),
            (
                "redis_host: h, redis_port: 1, redis_password: p, cache_kwargs: {port: 7, db: 2, ssl: true, username: u}",
                &[("REDIS_PASSWORD", "other")],
                Some(full.clone()),
            ),
            (
                "redis_host: h",
                &[
                    ("REDIS_PORT", "7"),
                    ("REDIS_PASSWORD", "p"),
                    ("REDIS_USERNAME", "u"),
                    ("REDIS_DB", "2"),
                    ("REDIS_SSL", "True"),
                ],
                Some(full),
            ),
        ] {
            assert_eq!(read(router, env), Ok(expected), "{router} {env:?}");
        }
    }

    #[test]
    fn what_is_no_redis_is_a_problem_that_shows_nothing() {
        for (router, named) in [
            ("redis_url: 'http://:hidden@h'", "router_settings.redis_url"),
            ("redis_url: 'redis://'", "router_settings.redis_url"),
            ("redis_host: 'redis://:hidden@h'", "router_settings.redis_host"),
            ("redis_host: h, redis_port: hidden", "router_settings.redis_port"),
            ("redis_host: h, redis_port: 70000", "router_settings.redis_port"),
            ("redis_host: h, redis_db: -1", "router_settings.redis_db"),
            ("redis_host: h, cache_kwargs: {port: hidden}", "cache_kwargs.port"),
            ("redis_host: h, cache_kwargs: {ssl: hidden}", "router_settings.redis_ssl"),
        ] {
            let problem = read(router, &[]).unwrap_err();
            assert!(problem.contains(named) && !problem.contains("hidden"), "{problem}");
        }
    }
}
