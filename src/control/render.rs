//! `tollgate render`: one static Envoy configuration for a `config.yaml`, for an Envoy that runs without the command.
//!
//! Such a file is copied about and put under version control, so it names no secret: each literal becomes a reference to an
//! environment variable, and the head of the file says which variables to set.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::{Path, PathBuf},
};

use serde_yaml::Value;

use super::{
    Failure, checked,
    document::{self, Document},
    envoy::{
        AccessLog, Admin, Gateway, Ledger, LedgerAddress, Module, SEARCH_PATH, Setup, bootstrap, callable,
    },
    secrets,
};
use crate::core::{
    config::{Config, FilterHost},
    protocol::KEY_VARIABLE,
};

/// Where Debian, Ubuntu and Envoy's own images keep the certificate authorities.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Port of the listener, and of Envoy's admin interface.
const PORTS: (u16, u16) = (4000, 9901);

/// The variable in place of a literal `general_settings.master_key`.
const MASTER_KEY: &str = "TOLLGATE_MASTER_KEY";

/// Variables that LiteLLM reads without being told to.
const IMPLIED: [&str; 1] = ["LITELLM_MASTER_KEY"];

/// The file's text.
pub fn render(config: PathBuf, host: FilterHost, module: Option<&str>) -> Result<String, Failure> {
    let module = module.unwrap_or(match host {
        FilterHost::Wasm => "/etc/envoy/tollgate.wasm",
        FilterHost::Native => "/etc/envoy/libtollgate.so",
    });
    let shown = config.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let document = document::read_file(config)?;
    // Problems are told with the lines of the file as it was written.
    checked::check_document(&document)?;
    let (value, wanted) = refer(&document);
    let text = document::emit(&value)?;
    let checked = checked::check_with(&text, None, &|name| {
        wanted.get(name).map(|wanted| wanted.value.clone()).or_else(|| env::var(name).ok())
    })?;
    let setup = Setup {
        host: "0.0.0.0".to_owned(),
        port: PORTS.0,
        tls: None,
        module: built(host, module)?,
        variables: variables(&value, &checked.config),
        admin: Admin::Loopback(PORTS.1),
        ledger: checked
            .config
            .tollgate
            .ledger_url
            .clone()
            .map(|endpoint| Ledger::new(LedgerAddress::Remote(endpoint), &checked.config)),
        authorities: AUTHORITIES.to_owned(),
        // What the machine that runs it has is not known here.
        max_memory_bytes: checked.config.tollgate.max_memory_bytes,
    };
    let gateway =
        Gateway { config: &checked.config, document: &text, setup: &setup, access_log: &AccessLog::Stdout };
    let body = serde_yaml::to_string(&bootstrap::fixed(&gateway))
        .map_err(|error| Failure::running(format!("the configuration cannot be written: {error}")))?;
    Ok(format!("{}\n{}", head(&shown, module, host, &wanted), body.trim_end()))
}

/// The module at a path, as Envoy is told of it.
fn built(host: FilterHost, path: &str) -> Result<Module, Failure> {
    if host == FilterHost::Wasm {
        return Ok(Module::Wasm(path.to_owned()));
    }
    let name = Path::new(path).file_name().and_then(|name| name.to_str());
    let name = name.and_then(|name| name.strip_prefix("lib")?.strip_suffix(".so"));
    name.map(|name| Module::Native(name.to_owned())).ok_or_else(|| {
        Failure::configuration(format!(
            "--module {path}: Envoy looks for a dynamic module in a file that is called lib….so; name it so"
        ))
    })
}

/// A variable to set, in place of a literal.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    /// Where the literal stood.
    place: String,
    value: String,
}

/// The document with references in place of its literal secrets, and the variables these name.
fn refer(document: &Document) -> (Value, BTreeMap<String, Wanted>) {
    let mut value = document.for_filter();
    let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
    secrets::replace(&mut value, &mut |path, plain| {
        let base = variable_for(path);
        let mut name = base.clone();
        let mut number = 1;
        // The same value under the same name needs only one variable; another value needs another.
        while wanted.get(&name).is_some_and(|other| other.value != plain) {
            number += 1;
            name = format!("{base}_{number}");
        }
        wanted
            .entry(name.clone())
            .or_insert_with(|| Wanted { place: path.join("."), value: plain.to_owned() });
        format!("os.environ/{name}")
    });
    (value, wanted)
}

/// `model_list.gpt-4o.litellm_params.api_key` is `TOLLGATE_GPT_4O_API_KEY`, `general_settings.master_key` is
/// `TOLLGATE_MASTER_KEY`; what stands in `environment_variables` has its name already.
fn variable_for(path: &secrets::Path) -> String {
    if let [section, name, ..] = path
        && section == "environment_variables"
    {
        return name.clone();
    }
    let silent = ["model_list", "litellm_params", "general_settings", "litellm_settings", "router_settings"];
    let words = path.iter().filter(|part| !silent.contains(&part.as_str()));
    let name: Vec<String> =
        std::iter::once("TOLLGATE".to_owned()).chain(words.map(|word| upper(word))).collect();
    name.join("_")
}

fn upper(word: &str) -> String {
    let word: String =
        word.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    let parts: Vec<&str> = word.split('_').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "ANY".to_owned() } else { parts.join("_") }
}

/// Every variable that the document names, that a deployment's brand falls back to, or that is implied.
fn variables(document: &Value, config: &Config) -> Vec<String> {
    let mut names = BTreeSet::new();
    referenced(document, &mut names);
    for deployment in callable(config) {
        let brand = deployment.brand;
        names.extend(brand.key_env.iter().chain(brand.base_env).map(|name| (*name).to_owned()));
    }
    names.extend(IMPLIED.map(str::to_owned));
    if config.tollgate.ledger_url.is_some() {
        names.insert(KEY_VARIABLE.to_owned());
    }
    names.into_iter().collect()
}

fn referenced(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Mapping(members) => members.values().for_each(|value| referenced(value, names)),
        Value::Sequence(entries) => entries.iter().for_each(|value| referenced(value, names)),
        Value::String(text) => {
            for part in text.split("os.environ/").skip(1) {
                let end = part.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(part.len());
                names.extend(part.get(..end).filter(|name| !name.is_empty()).map(str::to_owned));
            }
        }
        _ => {}
    }
}

fn head(config: &str, module: &str, host: FilterHost, wanted: &BTreeMap<String, Wanted>) -> String {
    let (flag, versions, search) = match host {
        FilterHost::Wasm => ("", "1.40 or newer", String::new()),
        FilterHost::Native => {
            let folder = Path::new(module).parent().unwrap_or(Path::new(".")).display().to_string();
            (" --host native", "1.40, and no other version", format!("{SEARCH_PATH}={folder} "))
        }
    };
    let mut lines = vec![
        format!(
            "Envoy with the Tollgate filter and nothing else, made by `tollgate render --config {config}{flag}`."
        ),
        format!("Start it with Envoy {versions}:"),
        String::new(),
        format!("    {search}envoy -c envoy.yaml"),
        String::new(),
        format!(
            "It listens on port {}; the filter module must be at {module}, and Envoy's admin interface is on",
            PORTS.0
        ),
        match host {
            FilterHost::Wasm => format!(
                "127.0.0.1:{}. Provider keys and base URLs are read from the environment (`host_env_keys`).",
                PORTS.1
            ),
            FilterHost::Native => {
                format!("127.0.0.1:{}. Provider keys and base URLs are read from the environment.", PORTS.1)
            }
        },
    ];
    if !wanted.is_empty() {
        lines.push(String::new());
        lines.push("Secrets are not written here. Before starting Envoy, set:".to_owned());
        lines.push(String::new());
        let width = wanted.keys().map(String::len).max().unwrap_or_default();
        lines.extend(wanted.iter().map(|(name, wanted)| format!("    {name:width$}  {}", wanted.place)));
        if wanted.contains_key(MASTER_KEY) {
            lines.push(String::new());
            lines.push(format!("Until {MASTER_KEY} is set, no key is accepted."));
        }
    }
    // A file's name may hold a line break, which would end the comment.
    let shown = |line: &String| format!("# {line}").trim_end().replace(char::is_control, "?");
    lines.iter().map(shown).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn secrets_become_variables() {
        for (path, expected) in [
            (&["general_settings", "master_key"][..], "TOLLGATE_MASTER_KEY"),
            (&["model_list", "gpt-4o", "litellm_params", "api_key"], "TOLLGATE_GPT_4O_API_KEY"),
            (&["model_list", "*", "litellm_params", "api_key"], "TOLLGATE_ANY_API_KEY"),
            (&["model_list", "a", "litellm_params", "headers", "X-Team"], "TOLLGATE_A_HEADERS_X_TEAM"),
            (&["environment_variables", "Redis_Password"], "Redis_Password"),
        ] {
            let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
            assert_eq!(variable_for(&path), expected);
        }
    }

    #[test]
    fn the_example_in_the_repository_is_current() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("envoy");
        let text = render(folder.join("config.yaml"), FilterHost::Wasm, None).unwrap() + "\n";
        if env::var_os("UPDATE").is_some() {
            fs::write(folder.join("envoy.yaml"), &text).unwrap();
        }
        let there = fs::read_to_string(folder.join("envoy.yaml")).unwrap_or_default();
        assert!(there == text, "envoy/envoy.yaml is not what `make example` writes");
    }

    #[test]
    fn rendered_files_name_variables_and_show_no_secret() {
        let file = std::env::temp_dir().join(format!("tollgate-render-{}.yaml", std::process::id()));
        fs::write(
            &file,
            "model_list:
- {model_name: a, litellm_params: {model: openai/x, api_base: 'http://127.0.0.1:1/v1', api_key: sk-one}}
- {model_name: a, litellm_params: {model: openai/x, api_base: 'http://127.0.0.1:1/v1', api_key: sk-two}}
- {model_name: a, litellm_params: {model: openai/x, api_base: 'http://127.0.0.1:1/v1', api_key: sk-one}}
- {model_name: b, litellm_params: {model: openai/x, api_key: os.environ/MY_KEY}}
router_settings: {redis_host: redis.example, redis_password: sk-redis, redis_port: os.environ/REDIS_PORT}
general_settings: {master_key: sk-master}
",
        )
        .unwrap();
        let text = render(file.clone(), FilterHost::Wasm, None).unwrap();
        for secret in ["sk-one", "sk-two", "sk-master", "sk-redis", "redis.example", "REDIS_PORT"] {
            assert!(!text.contains(secret), "{secret} is shown:\n{text}");
        }
        for line in [
            "#     TOLLGATE_A_API_KEY    model_list.a",
            "#     TOLLGATE_A_API_KEY_2",
            "#     TOLLGATE_MASTER_KEY",
        ] {
            assert!(text.contains(line), "{line:?} is missing in\n{text}");
        }
        assert!(!text.contains("TOLLGATE_A_API_KEY_3"));
        let parsed: Value = serde_yaml::from_str(&text).unwrap();
        let listed = serde_yaml::to_string(&parsed).unwrap();
        for name in ["- LITELLM_MASTER_KEY", "- MY_KEY", "- OPENAI_API_KEY", "- TOLLGATE_A_API_KEY_2"] {
            assert!(listed.contains(name), "{name} is not passed to the filter");
        }
        fs::remove_file(file).unwrap();
    }
}
