//! What a start tells the person who started it: a short summary, and a warning for everything that will surprise.

use std::env;

use super::{Failure, checked::Checked, document::Document, envoy::AccessLog, ledger::db};
use crate::core::{config::Config, model::deployment::Deployment, protocol::KEY_VARIABLE};

/// Names that the summary lists before it only counts.
const NAMES: usize = 8;

/// How a line begins that tells of an entry that is not served.
pub const LEFT_OUT: &str = "left out: ";

/// How a remark ends that tells of a variable which should hold a provider's key.
const GETS_NO_KEY: &str = " is not set: the provider gets no key";

/// A master key with fewer characters can be guessed.
const LEAST_KEY: usize = 16;

/// What is to be said about the settings: how the file was read, and what does not happen as its author may think.
pub fn warnings_of_settings(document: &Document, checked: &Checked) -> Vec<String> {
    let mut warnings = document.remarks.clone();
    warnings.extend(open(&checked.config).map(str::to_owned));
    warnings.extend(weak_key(&checked.config));
    warnings.extend(keyless(&checked.config));
    warnings
}

/// Whether an address is this machine's alone.
fn is_local(address: &str) -> bool {
    let host = address.split_once("://").map_or(address, |(_, host)| host);
    ["127.", "localhost:", "[::1]:"].iter().any(|own| host.starts_with(own))
}

/// What is to be said before a start that will listen at `address`.
pub fn warnings(document: &Document, checked: &Checked, address: &str) -> Vec<String> {
    let mut warnings = document.remarks.clone();
    if open(&checked.config).is_some() {
        let or = if is_local(address) { "" } else { ", or let --host 127.0.0.1 keep others out" };
        warnings.push(format!(
            "there is no master key: everybody who reaches {address} can call every model, and make and read every key. Set \
             general_settings.master_key or LITELLM_MASTER_KEY{or}"
        ));
    }
    warnings.extend(weak_key(&checked.config));
    let keyless = keyless(&checked.config);
    // One line is enough for a key that is missing.
    let told = |remark: &String| {
        let variable =
            remark.split("environment variable ").nth(1).and_then(|rest| rest.strip_suffix(GETS_NO_KEY));
        variable
            .is_some_and(|name| keyless.iter().any(|line| line.split([' ', ',']).any(|word| word == name)))
    };
    let remarks = checked.remarks().into_iter().filter(|remark| !told(remark));
    warnings.extend(keyless.iter().cloned());
    warnings.extend(remarks);
    warnings
}

/// Refuses what cannot be started, by what the configuration and the environment say alone: `tollgate check` says the same.
pub fn refusals(document: &Document, checked: &Checked, may_be_open: bool) -> Result<(), Failure> {
    let config = &checked.config;
    access_log(document)?;
    let has_secret = env::var(KEY_VARIABLE).is_ok_and(|secret| !secret.is_empty());
    if config.tollgate.ledger_url.is_some() && !has_secret {
        return Err(Failure::configuration(format!(
            "`tollgate_settings.ledger_url` needs {KEY_VARIABLE}: the secret of that ledger"
        )));
    }
    refuse_open(config, may_be_open)?;
    let url = config.ledger.database_url.as_ref().map(|url| url.reveal()).filter(|url| !url.is_empty());
    match url.filter(|_| config.tollgate.ledger_url.is_none()) {
        Some(url) => db::Db::place(url).map(|_| ()),
        None => Ok(()),
    }
}

/// Refuses to open to everybody what a ledger that others share keeps: its keys, its models and their providers' keys. A ledger
/// beside the gateway looks itself whether it has keys.
fn refuse_open(config: &Config, is_allowed: bool) -> Result<(), Failure> {
    let general = &config.general;
    if config.tollgate.ledger_url.is_none()
        || general.master_key.is_some()
        || general.may_be_open
        || is_allowed
    {
        return Ok(());
    }
    Err(Failure::configuration(
        "there is no master key, and `tollgate_settings.ledger_url` names a ledger that others share: everybody could call \
         what is kept there. Set general_settings.master_key (or LITELLM_MASTER_KEY), or start with --allow_open",
    ))
}

/// `tollgate_settings.access_log`: `stdout` (the default), `off`, or a file.
pub fn access_log(document: &Document) -> Result<AccessLog, Failure> {
    let setting = document.setting("tollgate_settings", "access_log");
    match setting {
        None | Some(serde_yaml::Value::Bool(true)) => Ok(AccessLog::Stdout),
        Some(serde_yaml::Value::Bool(false)) => Ok(AccessLog::Off),
        Some(serde_yaml::Value::String(text)) => Ok(match text.as_str() {
            "stdout" => AccessLog::Stdout,
            "off" => AccessLog::Off,
            file => AccessLog::File(file.to_owned()),
        }),
        Some(_) => Err(Failure::configuration(
            "`tollgate_settings.access_log`: expected `stdout`, `off` or the name of a file",
        )),
    }
}

fn open(config: &Config) -> Option<&'static str> {
    config.general.master_key.is_none().then_some(
        "there is no master key: everybody who reaches the gateway can call every model, and make and read every key",
    )
}

fn weak_key(config: &Config) -> Option<String> {
    let key = config.general.master_key.as_ref()?.reveal();
    if key.starts_with('\0') {
        return None;
    }
    let what = match () {
        () if key == "sk-1234" => "is the one of LiteLLM's examples, which everybody knows",
        () if key.starts_with("${") || key.starts_with('$') => "looks like a variable that was not filled in",
        () if key.chars().count() < LEAST_KEY => "is short enough to be guessed",
        () => return None,
    };
    Some(format!(
        "the master key {what}: choose another, such as `echo \"sk-$(openssl rand -hex 32)\"` prints"
    ))
}

/// Models that are called at a provider's own address without a key, by provider.
fn keyless(config: &Config) -> Vec<String> {
    let needs_key = |d: &&Deployment| {
        let own_address = d.brand.hosts.iter().any(|host| {
            host.split('/')
                .next()
                .is_some_and(|host| d.endpoint.host == host || d.endpoint.host.ends_with(host))
        });
        // A bare `*` stands for every provider: nobody has a key for all of them.
        d.api_key.is_none()
            && d.azure_ad_token.is_none()
            && d.headers.is_empty()
            && d.mock_response.is_none()
            && !d.only_inferred
            && (own_address || d.brand.is_azure())
    };
    let mut told: Vec<(&str, &[&str], Vec<&str>)> = Vec::new();
    for deployment in config.deployments.iter().filter(needs_key) {
        let variables = deployment.brand.key_env;
        if variables.is_empty() {
            continue;
        }
        let group = deployment.group.as_str();
        match told.iter_mut().find(|(brand, ..)| *brand == deployment.brand.name) {
            Some((.., groups)) if groups.contains(&group) => {}
            Some((.., groups)) => groups.push(group),
            None => told.push((deployment.brand.name, variables, vec![group])),
        }
    }
    told.into_iter()
        .map(|(brand, variables, groups)| {
            format!(
                "there is no key for {brand}, so it will refuse calls of {}: set {}, or `api_key` in the file",
                listed(&groups),
                variables.join(" or ")
            )
        })
        .collect()
}

/// Where a gateway is and what it is made of, for [`summary`].
#[derive(Debug)]
pub struct Place {
    /// For a client on this machine.
    pub url: String,
    /// The state directory.
    pub state: String,
    /// How many models of the database are served besides.
    pub stored: usize,
}

/// The summary, one line each.
pub fn summary(checked: &Checked, place: &Place) -> Vec<String> {
    let config = &checked.config;
    let names: Vec<&str> = config
        .group_order
        .iter()
        .map(String::as_str)
        .chain(config.wildcards.iter().map(|wildcard| wildcard.pattern.as_str()))
        .fold(Vec::new(), |mut names, name| {
            if !names.contains(&name) && !config.unavailable.contains_key(name) {
                names.push(name);
            }
            names
        });
    let mut lines = checked.report.served();
    if let Some(first) = lines.first_mut() {
        if !names.is_empty() {
            first.push_str(&format!(": {}", listed(&names)));
        }
        if place.stored > 0 || config.ledger.store_model_in_db {
            first.push_str(&format!("; {} of the database", place.stored));
        }
    }
    if names.is_empty() && place.stored == 0 {
        lines.push(
            "no model is served yet: POST /model/new adds one, or name a file with --config".to_owned(),
        );
    }
    lines.push(format!("authentication: {}", authentication(config)));
    lines.push(format!("database: {}", database(config, &place.state)));
    lines.push(format!("state: {}", place.state));
    lines.push(format!("API reference and console: {}/", place.url));
    lines
}

fn authentication(config: &Config) -> &'static str {
    match &config.general.master_key {
        None => "NONE, everybody may do everything",
        Some(key) if key.reveal().starts_with('\0') => {
            "no key is accepted, because the variable that master_key names is not set"
        }
        Some(_) => "master key and virtual keys",
    }
}

/// The database, without its user and password.
fn database(config: &Config, state: &str) -> String {
    if let Some(ledger) = &config.tollgate.ledger_url {
        return format!("that of the ledger at {ledger}");
    }
    match &config.ledger.database_url {
        Some(url) => {
            let place = url.reveal().rsplit('@').next().unwrap_or_default();
            let place = place.split('?').next().unwrap_or_default();
            format!(
                "Postgres at {}",
                place.trim_start_matches("postgresql://").trim_start_matches("postgres://")
            )
        }
        None => format!("SQLite in {state}/ledger.db, because DATABASE_URL is not set"),
    }
}

/// The first names, and how many more there are.
fn listed(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{checked::check_with, document};

    fn checked(text: &str, env: &[(&str, &str)]) -> Checked {
        let env: Vec<(String, String)> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        check_with(text, None, &|name| {
            env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        })
        .unwrap()
    }

    fn told(text: &str, env: &[(&str, &str)]) -> String {
        let document =
            Document { value: serde_yaml::Value::Null, files: vec![], text: None, remarks: vec![] };
        let checked = checked(text, env);
        let mut lines = warnings(&document, &checked, "http://0.0.0.0:4000");
        let place = Place { url: "http://127.0.0.1:1".to_owned(), state: "/state".to_owned(), stored: 0 };
        lines.extend(summary(&checked, &place).into_iter().filter(|line| line.starts_with(LEFT_OUT)));
        lines.join("\n")
    }

    #[test]
    fn who_listens_for_this_machine_only_is_not_told_to() {
        let document =
            Document { value: serde_yaml::Value::Null, files: vec![], text: None, remarks: vec![] };
        let rows = [
            ("http://127.0.0.1:4000", false),
            ("http://localhost:4000", false),
            ("https://[::1]:4000", false),
            ("http://0.0.0.0:4000", true),
            ("http://127x.example:4000", true),
        ];
        for (address, is_told) in rows {
            let told = warnings(&document, &checked(ONE, &[]), address).join("\n");
            assert!(told.contains(address), "{told}");
            assert_eq!(told.contains("keep others out"), is_told, "{told}");
        }
    }

    const ONE: &str = "model_list: [{model_name: a, litellm_params: {model: openai/a, api_key: k}}]\n";

    #[test]
    fn what_will_surprise_is_said() {
        let set = "general_settings: {master_key: os.environ/MK, database_url: os.environ/DB}";
        let keyed = "general_settings: {master_key: sk-0123456789abcdef}";
        let rows = [
            (ONE.to_owned(), "everybody who reaches http://0.0.0.0:4000"),
            (format!("{ONE}{set}"), "environment variable MK is not set: no key is accepted until it is"),
            (
                format!("{ONE}{set}"),
                "environment variable DB is not set: keys and spend are kept in an SQLite file",
            ),
            (format!("{ONE}general_settings: {{master_key: sk-1234}}"), "everybody knows"),
            (format!("{ONE}general_settings: {{master_key: abc}}"), "short enough to be guessed"),
            (format!("{ONE}general_settings: {{master_key: '${{MASTER_KEY_OF_MINE}}'}}"), "not filled in"),
            (
                format!("{}{keyed}", ONE.replace("api_key: k", "api_base: os.environ/BASE")),
                "left out: `a` (line 1): environment variable BASE is not set",
            ),
            (
                format!("{}{keyed}", ONE.replace("api_key: k", "n: 1")),
                "there is no key for openai, so it will refuse calls of `a`: set OPENAI_API_KEY",
            ),
        ];
        for (text, part) in &rows {
            assert!(told(text, &[]).contains(part), "{text}: {}", told(text, &[]));
        }
        assert_eq!(told(&format!("{ONE}{keyed}"), &[]), "");
        // A server of one's own needs no key.
        let local = ONE.replace("api_key: k", "api_base: 'http://localhost:1/v1'");
        assert_eq!(told(&format!("{local}{keyed}"), &[]), "");
    }

    #[test]
    fn one_variable_is_told_once() {
        let text = "model_list:
- {model_name: a, litellm_params: {model: openai/a, api_base: 'http://h', api_key: os.environ/KEY}}
- {model_name: b, litellm_params: {model: openai/b, api_base: 'http://h', api_key: os.environ/KEY}}
general_settings: {master_key: sk-0123456789abcdef}";
        let line = "`model_list[0].litellm_params.api_key` (line 2) and of 1 other setting: environment variable KEY is not \
                    set: the provider gets no key";
        assert_eq!(told(text, &[]), line);
    }

    #[test]
    fn a_missing_key_and_an_entry_that_is_left_out_are_told_once() {
        let text = "model_list:
- {model_name: a, litellm_params: {model: openai/a, api_key: os.environ/OPENAI_API_KEY}}
- {model_name: b, litellm_params: {model: gemini/b, api_key: os.environ/GOOGLE_API_KEY}}
- {model_name: c, litellm_params: {model: mistral/c}}
- {model_name: d, litellm_params: {model: bedrock/d}}
- {model_name: e, litellm_params: {model: openai/e, api_base: 'http://h', api_key: os.environ/KEY_OF_E}}
router_settings: {redis_host: os.environ/REDIS_HOST}
general_settings: {master_key: sk-0123456789abcdef}";
        let told = told(text, &[]);
        let lines: Vec<&str> = told.lines().filter(|line| !line.contains("tollgate check")).collect();
        assert_eq!(
            lines,
            [
                "there is no key for openai, so it will refuse calls of `a`: set OPENAI_API_KEY, or `api_key` in the file",
                "there is no key for gemini, so it will refuse calls of `b`: set GEMINI_API_KEY or GOOGLE_API_KEY, or `api_key` \
                 in the file",
                "there is no key for mistral, so it will refuse calls of `c`: set MISTRAL_AZURE_API_KEY or MISTRAL_API_KEY, or \
                 `api_key` in the file",
                "`model_list[4].litellm_params.api_key` (line 6): environment variable KEY_OF_E is not set: the provider gets no key",
                "`router_settings.redis_host` (line 7): environment variable REDIS_HOST is not set: it is as if the setting were \
                 not there",
                "left out: `d` (line 5): provider `bedrock` cannot be called yet",
            ]
        );
    }

    #[test]
    fn who_starts_without_a_model_is_told_how_to_add_one() {
        let place =
            |stored| Place { url: "http://127.0.0.1:1".to_owned(), state: "/state".to_owned(), stored };
        let empty =
            checked("general_settings: {store_model_in_db: true, master_key: sk-0123456789abcdef}", &[]);
        let hint = "no model is served yet: POST /model/new adds one, or name a file with --config";
        assert_eq!(summary(&empty, &place(0))[1], hint);
        assert!(!summary(&empty, &place(1)).contains(&hint.to_owned()));
        assert!(!summary(&checked(ONE, &[]), &place(0)).contains(&hint.to_owned()));
    }

    #[test]
    fn a_summary_is_short_and_shows_no_secret() {
        let text = format!(
            "{ONE}general_settings: {{master_key: sk-0123456789abcdef, database_url: 'postgresql://u:hidden@db:5432/n?x=hidden'}}"
        );
        let place = Place { url: "http://127.0.0.1:1".to_owned(), state: "/state".to_owned(), stored: 0 };
        assert_eq!(
            summary(&checked(&text, &[]), &place),
            [
                "models: 1 of 1 served: `a`",
                "authentication: master key and virtual keys",
                "database: Postgres at db:5432/n",
                "state: /state",
                "API reference and console: http://127.0.0.1:1/",
            ]
        );
        let text = ONE.replace("}}]", "}}, {model_name: b, litellm_params: {model: bedrock/b}}]");
        let lines = summary(&checked(&text, &[]), &place).join("\n");
        for part in [
            "models: 1 of 2 served: `a`",
            "left out: `b` (line 1): provider `bedrock` cannot be called yet",
            "authentication: NONE",
            "database: SQLite in /state/ledger.db, because DATABASE_URL is not set",
        ] {
            assert!(lines.contains(part), "{lines}");
        }
    }

    #[test]
    fn without_a_master_key_a_shared_ledger_is_not_opened() {
        let shared = "tollgate_settings: {ledger_url: 'http://ledger:4100'}\n";
        let rows = [
            (shared.to_owned(), false, false),
            (shared.to_owned(), true, true),
            (format!("{shared}general_settings: {{master_key: sk-1}}"), false, true),
            (
                format!("{shared}general_settings: {{dangerously_permit_weak_or_unset_master_key: true}}"),
                false,
                true,
            ),
            (String::new(), false, true),
        ];
        for (text, is_allowed, expected) in rows {
            let config = crate::core::config::load(&format!("model_list: []\n{text}"), &|_| None, &|_| None);
            let found = refuse_open(&config.unwrap().config, is_allowed);
            assert_eq!(found.is_ok(), expected, "{text} {is_allowed}");
        }
    }

    #[test]
    fn access_logs_are_read() {
        let file = env::temp_dir().join(format!("tollgate-settings-{}.yaml", std::process::id()));
        for (settings, log) in [
            ("{}", Some(AccessLog::Stdout)),
            ("{tollgate_settings: {access_log: stdout}}", Some(AccessLog::Stdout)),
            ("{tollgate_settings: {access_log: off}}", Some(AccessLog::Off)),
            ("{tollgate_settings: {access_log: false}}", Some(AccessLog::Off)),
            ("{tollgate_settings: {access_log: /x/y}}", Some(AccessLog::File("/x/y".to_owned()))),
            ("{tollgate_settings: {access_log: [1]}}", None),
        ] {
            std::fs::write(&file, settings).unwrap();
            let document = document::read_file(file.clone()).unwrap();
            assert_eq!(access_log(&document).ok(), log, "{settings}");
        }
        std::fs::remove_file(file).unwrap();
    }
}
