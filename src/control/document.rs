//! The configuration document: `config.yaml` with its includes and the command line merged in, as the filter will read it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::Value as Json;
use serde_yaml::{Mapping, Value};

use super::{Failure, cli::Serve, secrets};
use crate::core::config::{self, Repeated, seal};

/// A configuration document and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Everything merged.
    pub value: Value,
    /// The files it was read from, the main one first.
    pub files: Vec<PathBuf>,
    /// The main file's text, when nothing was merged into it: its line numbers are the ones to name in messages.
    pub(super) text: Option<String>,
    /// What its author should know of how it was read, one line each.
    pub remarks: Vec<String>,
}

/// Reads what `serve` asks for: the file of `--config` with its includes, or the one model of `--model`.
pub fn read(serve: &Serve) -> Result<Document, Failure> {
    read_with(serve, &|name| env::var(name).ok().filter(|value| !value.is_empty()))
}

fn read_with(serve: &Serve, env: &dyn Fn(&str) -> Option<String>) -> Result<Document, Failure> {
    let mut document = match (&serve.config, &serve.model) {
        (Some(file), _) => read_file(file.clone())?,
        (None, Some(model)) => Document::of(one_model(model, serve)),
        (None, None) => Document::of(from_database(env)?),
    };
    let before = document.value.clone();
    merge_flags(&mut document.value, serve);
    if document.value != before {
        document.text = None;
    }
    Ok(document)
}

/// The files that [`read`] would read now, as far as they can be known: the main file and what it includes.
pub fn read_file(main: PathBuf) -> Result<Document, Failure> {
    let text = fs::read_to_string(&main)
        .map_err(|error| Failure::configuration(format!("cannot read `{}`: {error}", main.display())))?;
    let mut remarks = Vec::new();
    let mut value = parse(&text, &main, &mut remarks)?;
    let includes = included_files(&value, &main)?;
    let mut files = vec![main];
    for file in includes {
        let text = fs::read_to_string(&file).map_err(|error| {
            Failure::configuration(format!("cannot read `{}` (named by `include`): {error}", file.display()))
        })?;
        include(&mut value, parse(&text, &file, &mut remarks)?);
        files.push(file);
    }
    let text = (files.len() == 1).then_some(text);
    // The filter has no files: what was included stands in place now.
    if let Value::Mapping(settings) = &mut value {
        settings.remove("include");
    }
    Ok(Document { value, files, text, remarks })
}

/// The document of a gateway that has no file: its models are those of the database that the environment names, as in
/// LiteLLM's own container.
fn from_database(env: &dyn Fn(&str) -> Option<String>) -> Result<Value, Failure> {
    if env("DATABASE_URL").or_else(|| env("DATABASE_HOST")).is_none() {
        return Err(Failure::configuration(
            "nothing to serve: expected `--config config.yaml`, or `--model provider/model` with its key in the environment, \
             or DATABASE_URL with the models in that database",
        ));
    }
    let mut document = Value::Mapping(Mapping::new());
    if env("STORE_MODEL_IN_DB").is_none() {
        put_setting(&mut document, "general_settings", "store_model_in_db", Some(true.into()));
    }
    Ok(document)
}

impl Document {
    fn of(value: Value) -> Document {
        Document { value, files: Vec::new(), text: None, remarks: Vec::new() }
    }

    /// The document as its author knows it, for messages that name lines.
    pub fn readable(&self) -> Result<String, Failure> {
        match &self.text {
            Some(text) => Ok(text.clone()),
            None => emit(&self.value),
        }
    }

    /// The file to name in messages about [`Document::readable`], and whether that is its own text, so that line numbers in
    /// it mean something.
    pub fn origin(&self) -> (Option<&Path>, bool) {
        (self.files.first().map(PathBuf::as_path), self.text.is_some())
    }

    /// The document without what only the ledger has a use for.
    pub fn for_filter(&self) -> Value {
        let mut value = self.value.clone();
        if let Some(Value::Mapping(router)) = value.get_mut("router_settings") {
            router.retain(|name, _| {
                name.as_str().is_none_or(|name| !name.starts_with("redis_") && name != "cache_kwargs")
            });
        }
        value
    }

    /// The document as the filter gets it: every literal secret sealed with `key`. The same document and key always give
    /// the same text.
    pub fn sealed(&self, key: &seal::Key) -> Result<String, Failure> {
        let mut value = self.for_filter();
        let mut failed = false;
        secrets::replace(&mut value, &mut |_, plain| {
            seal::seal(plain, key, &seal::nonce(plain, key)).unwrap_or_else(|| {
                failed = true;
                String::new()
            })
        });
        if failed {
            return Err(Failure::configuration("a secret in the configuration is too long to be sealed"));
        }
        emit(&value)
    }

    /// `section.name`, when it is there.
    pub fn setting(&self, section: &str, name: &str) -> Option<&Value> {
        self.value.get(section)?.get(name).filter(|value| !value.is_null())
    }
}

/// YAML text of a document, in which every text is read back as one.
pub fn emit(value: &Value) -> Result<String, Failure> {
    serde_yaml::to_string(value)
        .map(|text| config::quoted_texts(&text))
        .map_err(|error| Failure::configuration(format!("the configuration cannot be written: {error}")))
}

/// A file's settings, read with the one reader of configurations.
fn parse(text: &str, file: &Path, remarks: &mut Vec<String>) -> Result<Value, Failure> {
    let read = config::read_yaml(text).map_err(|(line, message)| {
        let line = line.map(|line| format!(" in line {line}")).unwrap_or_default();
        Failure::configuration(format!("`{}` is not valid YAML{line}: {message}", file.display()))
    })?;
    remarks.extend(read.repeated.iter().map(|Repeated { path, first, line }| {
        format!(
            "`{}`: `{path}` stands twice, in line {first} and in line {line}: the last one counts",
            file.display()
        )
    }));
    match read.value {
        Json::Object(_) => Ok(yaml(&read.value)),
        Json::Null => Ok(Value::Mapping(Mapping::new())),
        _ => Err(Failure::configuration(format!(
            "`{}`: expected settings (`model_list:` and so on) at the top level",
            file.display()
        ))),
    }
}

fn yaml(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), ..) => whole.into(),
            (_, Some(whole), _) => whole.into(),
            (.., float) => float.unwrap_or_default().into(),
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Array(list) => Value::Sequence(list.iter().map(yaml).collect()),
        Json::Object(map) => {
            Value::Mapping(map.iter().map(|(name, value)| (name.as_str().into(), yaml(value))).collect())
        }
    }
}

/// Files named by `include`, relative to the main file.
fn included_files(value: &Value, main: &Path) -> Result<Vec<PathBuf>, Failure> {
    let folder = main.parent().map(PathBuf::from).unwrap_or_default();
    let names = match value.get("include") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Sequence(names)) => names.iter().map(Value::as_str).collect::<Option<Vec<_>>>(),
        Some(_) => None,
    };
    let names = names.ok_or_else(|| {
        Failure::configuration(format!("`include` in `{}`: expected a list of file names", main.display()))
    })?;
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// LiteLLM's rule: lists are appended, anything else overwrites.
fn include(into: &mut Value, from: Value) {
    let (Value::Mapping(into), Value::Mapping(from)) = (into, from) else { return };
    for (name, value) in from {
        match (into.get_mut(&name), value) {
            (Some(Value::Sequence(there)), Value::Sequence(more)) => there.extend(more),
            (_, value) => {
                into.insert(name, value);
            }
        }
    }
}

/// `--model X` alone: one group under its own name (or `--alias`), and `*`, so that any name reaches it as in LiteLLM.
fn one_model(model: &str, serve: &Serve) -> Value {
    let mut params = Mapping::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            params.insert(name.into(), value);
        }
    };
    put("model", Some(model.into()));
    put("api_base", serve.api_base.clone().map(Value::from));
    put("api_version", serve.api_version.clone().map(Value::from));
    let group = |name: &str| {
        let mut entry = Mapping::new();
        entry.insert("model_name".into(), name.into());
        entry.insert("litellm_params".into(), Value::Mapping(params.clone()));
        Value::Mapping(entry)
    };
    let mut groups = vec![group(serve.alias.as_deref().unwrap_or(model))];
    if serve.alias.as_deref().unwrap_or(model) != "*" {
        groups.push(group("*"));
    }
    let mut document = Mapping::new();
    document.insert("model_list".into(), Value::Sequence(groups));
    Value::Mapping(document)
}

/// Flags that are settings. A flag wins over the file, except for the defaults of single deployments.
fn merge_flags(document: &mut Value, serve: &Serve) {
    let settings = [
        ("request_timeout", serve.request_timeout.map(number)),
        ("max_budget", serve.max_budget.map(number)),
        ("drop_params", serve.drop_params.filter(|on| *on).map(Value::from)),
        ("add_function_to_prompt", serve.add_function_to_prompt.filter(|on| *on).map(Value::from)),
    ];
    for (name, value) in settings {
        put_setting(document, "litellm_settings", name, value);
    }
    if serve.config.is_some() {
        let forced = serve.alias.as_ref().or(serve.model.as_ref()).filter(|_| serve.model.is_some());
        put_setting(document, "general_settings", "completion_model", forced.cloned().map(Value::from));
    }
    let defaults =
        [("temperature", serve.temperature.map(number)), ("max_tokens", serve.max_tokens.map(Value::from))];
    let Some(Value::Sequence(models)) = document.get_mut("model_list") else { return };
    for params in models.iter_mut().filter_map(|model| model.get_mut("litellm_params")?.as_mapping_mut()) {
        for (name, value) in &defaults {
            if let Some(value) = value {
                params.entry((*name).into()).or_insert_with(|| value.clone());
            }
        }
    }
}

fn put_setting(document: &mut Value, section: &str, name: &str, value: Option<Value>) {
    let (Some(value), Value::Mapping(document)) = (value, document) else { return };
    let section = document.entry(section.into()).or_insert(Value::Null);
    if section.is_null() {
        *section = Value::Mapping(Mapping::new());
    }
    if let Value::Mapping(section) = section {
        section.insert(name.into(), value);
    }
}

/// Whole numbers without a point, as people write them.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { Value::from(value as i64) } else { Value::from(value) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::control::cli::Cli;

    fn document(line: &str) -> Result<Document, Failure> {
        read(&Cli::try_parse_from(line.split_whitespace()).unwrap().serve)
    }

    fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tollgate-document-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn command_lines_become_documents() {
        for (line, expected) in [
            (
                "tollgate --model groq/llama-3",
                "model_list: [{model_name: groq/llama-3, litellm_params: {model: groq/llama-3}},
                  {model_name: '*', litellm_params: {model: groq/llama-3}}]",
            ),
            (
                "tollgate --model azure/x --alias gpt-4 --api_base https://a --api_version v1 --temperature 0.5 --max_tokens 9",
                "model_list: [{model_name: gpt-4, litellm_params: {model: azure/x, api_base: https://a, api_version: v1, temperature: 0.5, max_tokens: 9}},
                  {model_name: '*', litellm_params: {model: azure/x, api_base: https://a, api_version: v1, temperature: 0.5, max_tokens: 9}}]",
            ),
            (
                "tollgate --model x --drop_params --request_timeout 30 --max_budget 0.5 --add_function_to_prompt --debug --telemetry False",
                "model_list: [{model_name: x, litellm_params: {model: x}}, {model_name: '*', litellm_params: {model: x}}]
litellm_settings: {request_timeout: 30, max_budget: 0.5, drop_params: true, add_function_to_prompt: true}",
            ),
        ] {
            let expected: Value = serde_yaml::from_str(expected).unwrap();
            assert_eq!(document(line).unwrap().value, expected, "{line}");
        }
        assert!(document("tollgate").is_err());
    }

    #[test]
    fn flags_win_over_the_file_and_fill_in_defaults() {
        let folder = folder(
            "flags",
            &[(
                "c.yaml",
                "model_list: [{model_name: a, litellm_params: {model: m, temperature: 1}}]\nlitellm_settings: {request_timeout: 600}\ngeneral_settings:\n",
            )],
        );
        let line = format!(
            "tollgate -c {}/c.yaml --request_timeout 5 --temperature 0 --max_tokens 7 --model b",
            folder.display()
        );
        let expected: Value = serde_yaml::from_str(
            "model_list: [{model_name: a, litellm_params: {model: m, temperature: 1, max_tokens: 7}}]
litellm_settings: {request_timeout: 5}
general_settings: {completion_model: b}",
        )
        .unwrap();
        assert_eq!(document(&line).unwrap().value, expected);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn includes_append_lists_and_overwrite_the_rest() {
        let folder = folder(
            "include",
            &[
                (
                    "c.yaml",
                    "include: [m.yaml, n.yaml]\nmodel_list: [{model_name: a}]\nlitellm_settings: {num_retries: 1, drop_params: true}\n",
                ),
                ("m.yaml", "model_list: [{model_name: b}]\nlitellm_settings: {num_retries: 2}\n"),
                ("n.yaml", "model_list: [{model_name: c}]\nrouter_settings: {}\n"),
            ],
        );
        let document = document(&format!("tollgate --config {}/c.yaml", folder.display())).unwrap();
        let expected: Value = serde_yaml::from_str(
            "model_list: [{model_name: a}, {model_name: b}, {model_name: c}]
litellm_settings: {num_retries: 2}
router_settings: {}",
        )
        .unwrap();
        assert_eq!(document.value, expected);
        assert_eq!(document.files.len(), 3);
        fs::write(folder.join("c.yaml"), "include: [gone.yaml]").unwrap();
        let failure = read_file(folder.join("c.yaml")).unwrap_err();
        assert!(failure.to_string().contains("gone.yaml` (named by `include`)"), "{failure}");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn sealing_is_stable_and_hides_the_secret() {
        let folder = folder("seal", &[("c.yaml", "general_settings: {master_key: sk-1234} # mine\n")]);
        let document = read_file(folder.join("c.yaml")).unwrap();
        let sealed = document.sealed(&[3; 32]).unwrap();
        assert!(!sealed.contains("sk-1234"));
        assert_eq!(sealed, document.sealed(&[3; 32]).unwrap());
        assert_ne!(sealed, document.sealed(&[4; 32]).unwrap());
        let back: Value = serde_yaml::from_str(&sealed).unwrap();
        let key = back.get("general_settings").unwrap().get("master_key").unwrap().as_str().unwrap();
        assert_eq!(seal::unseal(key, &[3; 32]).as_deref(), Some("sk-1234"));
        assert_eq!(document.readable().unwrap(), "general_settings: {master_key: sk-1234} # mine\n");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_redis_is_the_ledgers_business() {
        let folder = folder(
            "redis",
            &[(
                "c.yaml",
                "router_settings: {redis_url: 'redis://:pw@h', redis_host: h, redis_password: 12345, cache_kwargs: {password: pw, port: os.environ/P}, num_retries: 1}",
            )],
        );
        let document = read_file(folder.join("c.yaml")).unwrap();
        let sealed: Value = serde_yaml::from_str(&document.sealed(&[3; 32]).unwrap()).unwrap();
        let left: Value = serde_yaml::from_str("router_settings: {num_retries: 1}").unwrap();
        assert_eq!((sealed, document.for_filter()), (left.clone(), left));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn broken_files_are_named() {
        let folder = folder(
            "broken",
            &[("a.yaml", "model_list: [\n"), ("b.yaml", "- x\n"), ("c.yaml", "include: x\n")],
        );
        for (file, says) in [
            ("a.yaml", "not valid YAML"),
            ("b.yaml", "top level"),
            ("c.yaml", "a list"),
            ("d.yaml", "cannot read"),
        ] {
            let failure = read_file(folder.join(file)).unwrap_err().to_string();
            assert!(failure.contains(says) && failure.contains(file), "{failure}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
