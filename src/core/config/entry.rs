//! One `model_list` entry: the deployments it makes, or why it makes none.
//!
//! Long, because every parameter of an entry is read here once, in the order in which it may name others.

use std::borrow::Cow;

use hashbrown::HashMap;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    limits,
    read::{Block, NAMES_TO_DROP, Reference, Source, decimal, header_value, reference, scalar_text},
    settings::{self, Verdict},
    yaml::member,
};
use crate::core::{
    codec::hex::hex,
    model::{
        accepts::Accepts,
        deployment::{Choice, Deployment},
        endpoint::Endpoint,
        secret::Secret,
        template::PromptTemplate,
    },
};
use crate::core::{
    model::brand::Brand,
    provider::{BRANDS, infer, target::endpoint},
};

/// What all entries share.
#[derive(Default)]
pub(super) struct EntryDefaults {
    /// `credential_list` by name: values as written.
    pub(super) credentials: HashMap<String, Map<String, Value>>,
    /// `router_settings.default_litellm_params`.
    pub(super) default_params: Map<String, Value>,
    /// `router_settings.default_litellm_params` as written.
    pub(super) default_written: Map<String, Value>,
    /// `litellm_settings.ssl_verify` or `SSL_VERIFY`.
    pub(super) verify: bool,
}

/// What became of an entry.
pub(super) struct Entry {
    /// The entry's `model_name`.
    pub(super) group: String,
    /// The deployments that can be called. Ids may still collide.
    pub(super) deployments: Vec<Deployment>,
    /// Why there are none.
    pub(super) unavailable: Option<String>,
    /// The id is the file's own, not a hash.
    pub(super) explicit_id: bool,
}

/// Reads an entry. `None` means it cannot be understood at all; the problems say why.
pub(super) fn read(src: &mut Source, value: &Value, path: &str, defaults: &EntryDefaults) -> Option<Entry> {
    let Value::Object(map) = value else {
        src.problem(path, "expected a map with model_name and litellm_params", "indent them below the dash");
        return None;
    };
    let entry = Block { path: path.to_owned(), map: map.clone() };
    let group = entry.text(src, "model_name");
    let params = entry.member(src, "litellm_params");
    let Some(group) = group else {
        src.problem(
            &member(path, "model_name"),
            "expected a text",
            "every entry needs a model_name and a litellm_params.model",
        );
        return None;
    };
    if params.get("model").is_none() {
        return Some(without_model(src, &entry, &params, group));
    }
    let info = entry.member(src, "model_info");
    let rates = Block { path: entry.path.clone(), map: src.resolve_map(&rates_of(map), path) };
    let rates = limits::rates(src, &rates);
    let mut made =
        Entry { group, deployments: Vec::new(), unavailable: None, explicit_id: info.get("id").is_some() };
    if let Some(reason) = other_environment(src, &info, &params) {
        made.unavailable = Some(reason);
        return Some(made);
    }
    for raw in one_per_organization(&params.map) {
        let raw = Block { path: params.path.clone(), map: raw };
        let mut found = variants(src, &raw, defaults);
        if info.get("db_model") == Some(&Value::Bool(true)) {
            found.iter_mut().flatten().for_each(|variant| variant.keep_keys_home(src, &raw, defaults));
        }
        match found {
            Ok(variants) => {
                for variant in variants {
                    let mut d = deployment(src, &made.group, &variant, &raw, &info);
                    let Variant { brand, model, only_inferred, .. } = variant;
                    d.model = model;
                    d.find_accepts();
                    d.only_inferred = only_inferred;
                    d.rates = limits::merged([rates, d.rates]);
                    if only_inferred {
                        d.id = format!("{}-{}", d.id, brand.name);
                    }
                    made.deployments.push(d);
                }
            }
            Err(reason) => made.unavailable = Some(reason),
        }
    }
    Some(made)
}

/// An entry that says of no model how it is called. LiteLLM starts with such entries.
fn without_model(src: &mut Source, entry: &Block, params: &Block, group: String) -> Entry {
    let (name, at) = match entry.get("litellm_params") {
        None => ("litellm_params", entry),
        Some(_) => ("litellm_params.model", params),
    };
    let last = name.rsplit('.').next().unwrap_or(name);
    let section = if name == last { "model_list[]" } else { "model_list[].litellm_params" };
    let meant = at.map.keys().find(|other| settings::suggestion(section, other) == Some(last));
    let reason = match meant {
        Some(other) => format!("it has no {name}, but `{other}`: did you mean {last}?"),
        None => format!("it has no {name}"),
    };
    let at = meant.map_or_else(|| member(&entry.path, "model_name"), |other| member(&at.path, other));
    let reason = left_out(src, params, &at, Verdict::Missing, reason);
    Entry { group, deployments: Vec::new(), unavailable: Some(reason), explicit_id: false }
}

/// Why an entry with `supported_environments` is for another environment than this one.
fn other_environment(src: &mut Source, info: &Block, params: &Block) -> Option<String> {
    let supported = info.texts(src, "supported_environments");
    if supported.is_empty() {
        return None;
    }
    let reason = match src.variable("LITELLM_ENVIRONMENT") {
        Some(environment) if supported.contains(&environment) => return None,
        Some(environment) => {
            format!("it is for {}, and LITELLM_ENVIRONMENT is {environment}", supported.join(", "))
        }
        None => "it has supported_environments, and LITELLM_ENVIRONMENT is not set".to_owned(),
    };
    let at = member(&info.path, "supported_environments");
    Some(left_out(src, params, &at, Verdict::Ignored, reason))
}

/// `rpm` and `tpm` beside `model_name`.
fn rates_of(entry: &Map<String, Value>) -> Map<String, Value> {
    let is_rate = |name: &str| name == "rpm" || name == "tpm";
    entry
        .iter()
        .filter(|(name, _)| is_rate(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// A way to call an entry: one, or one per brand for a bare `*`.
struct Variant {
    brand: &'static Brand,
    model: String,
    endpoint: Endpoint,
    only_inferred: bool,
    params: Block,
    /// The gateway's own keys are not for its address.
    is_foreign: bool,
}

/// Parameters that hold keys, or are sent as headers.
const KEYS: [&str; 5] = ["api_key", "azure_ad_token", "organization", "headers", "extra_headers"];

impl Variant {
    /// For an entry that was made through the API: what it does not name itself, a key of the environment or of
    /// `default_litellm_params`, is not sent to an address that it names, unless that is the provider's own or the one that
    /// the environment names.
    fn keep_keys_home(&mut self, src: &Source, raw: &Block, defaults: &EntryDefaults) {
        let names_address = |name| raw.map.get(name).is_some_and(|value| !value.is_null());
        if !["api_base", "base_url"].into_iter().any(names_address) || self.is_home(src) {
            return;
        }
        self.is_foreign = true;
        let credential = raw.map.get("litellm_credential_name").and_then(scalar_text);
        let credential = credential.and_then(|name| defaults.credentials.get(&name));
        for name in KEYS {
            if !raw.map.contains_key(name) && !credential.is_some_and(|values| values.contains_key(name)) {
                self.params.map.remove(name);
            }
        }
    }

    /// Whether its address is the provider's own, or the one that the environment names for it.
    fn is_home(&self, src: &Source) -> bool {
        let Brand { base, hosts, base_env, .. } = self.brand;
        let official = hosts.iter().map(|host| format!("https://{host}")).chain(base.map(str::to_owned));
        official.chain(src.first_variable(base_env)).any(|url| {
            Endpoint::parse(&url).is_ok_and(|home| {
                (home.tls, home.host, home.port)
                    == (self.endpoint.tls, self.endpoint.host.clone(), self.endpoint.port)
            })
        })
    }
}

/// Finds brand and endpoint. The error is why the entry cannot be called, which is no fault of the file: LiteLLM starts
/// with such entries too.
fn variants(src: &mut Source, raw: &Block, defaults: &EntryDefaults) -> Result<Vec<Variant>, String> {
    let params = merged(src, raw, defaults);
    let model_path = member(&raw.path, "model");
    let Some(model) = params.text(src, "model") else {
        let reason = match unset(src, raw, defaults, "model") {
            Some(Unset { name, .. }) => {
                format!("environment variable {name} is not set, which names its model")
            }
            None => "its litellm_params.model is empty".to_owned(),
        };
        return Err(left_out(src, raw, &model_path, Verdict::Missing, reason));
    };
    let forced = params.text(src, "custom_llm_provider");
    let base = params.text(src, "api_base").or_else(|| params.text(src, "base_url"));
    // LiteLLM would send the prompts to the provider's own address: not where the file says that they go.
    if base.is_none()
        && let Some(Unset { name, at }) =
            ["api_base", "base_url"].into_iter().find_map(|name| unset(src, raw, defaults, name))
    {
        let reason = format!("environment variable {name} is not set, which names its api_base");
        return Err(left_out(src, raw, &at, Verdict::Missing, reason));
    }
    let verify = verify(src, &params, defaults);
    if model == "*" && forced.is_none() && base.is_none() {
        let brands = BRANDS.iter().filter(|brand| brand.is_callable());
        let all = brands.filter_map(|brand| {
            let endpoint =
                endpoint(brand, &src.first_variable(brand.base_env).or(brand.base.map(str::to_owned))?);
            let endpoint = Endpoint { verify, ..endpoint.ok()? };
            let params = Block { path: params.path.clone(), map: params.map.clone() };
            let model = model.clone();
            Some(Variant { brand, model, endpoint, only_inferred: true, params, is_foreign: false })
        });
        return Ok(all.collect());
    }
    let (brand, rest) = match infer(&model, forced.as_deref(), base.as_deref()) {
        Ok(found) => found,
        Err(reason) => {
            return Err(left_out(src, raw, &model_path, Verdict::Ignored, reason));
        }
    };
    if !brand.is_callable() {
        let reason = format!("provider `{}` cannot be called yet", brand.name);
        return Err(left_out(src, raw, &model_path, Verdict::NotYet, reason));
    }
    let url = base.or_else(|| src.first_variable(brand.base_env)).or(brand.base.map(str::to_owned));
    let found = match url {
        Some(url) => endpoint(brand, &url).map_err(|why| format!("its api_base is not a URL to call: {why}")),
        None => Err(format!("provider `{}` needs an api_base", brand.name)),
    };
    match found {
        Ok(endpoint) => {
            let endpoint = Endpoint { verify, ..endpoint };
            Ok(vec![Variant {
                brand,
                model: rest,
                endpoint,
                only_inferred: false,
                params,
                is_foreign: false,
            }])
        }
        Err(reason) => {
            let name = if raw.get("base_url").is_some() { "base_url" } else { "api_base" };
            let at = if raw.get(name).is_some() { member(&raw.path, name) } else { model_path };
            Err(left_out(src, raw, &at, Verdict::Ignored, reason))
        }
    }
}

/// A variable that a parameter names and that is not set, and where the parameter stands.
struct Unset {
    name: String,
    at: String,
}

/// What a parameter of an entry, of its credential or of all entries names, when that is not set.
fn unset(src: &Source, raw: &Block, defaults: &EntryDefaults, name: &str) -> Option<Unset> {
    let missing = |value: Option<&Value>| match value.and_then(Value::as_str).and_then(reference) {
        Some(Reference::Environment(variable)) if src.variable(variable).is_none() => {
            Some(variable.to_owned())
        }
        _ => None,
    };
    let credential = raw.map.get("litellm_credential_name").and_then(scalar_text);
    let credential = credential.and_then(|credential| defaults.credentials.get(&credential));
    let places = [
        (raw.map.get(name), member(&raw.path, name)),
        (credential.and_then(|values| values.get(name)), member(&raw.path, "litellm_credential_name")),
        (defaults.default_written.get(name), member("router_settings.default_litellm_params", name)),
    ];
    places.into_iter().find_map(|(value, at)| Some(Unset { name: missing(value)?, at }))
}

/// How the note ends that says why an entry is left out.
pub const LEFT_OUT: &str = "; the entry is left out";

/// Notes why an entry is left out at the setting that is the reason, and that its other settings go with it.
fn left_out(
    src: &mut Source,
    raw: &Block,
    at: &str,
    verdict: fn(Cow<'static, str>) -> Verdict,
    reason: String,
) -> String {
    src.note(at, verdict(format!("{reason}{LEFT_OUT}").into()));
    let entry = raw.path.trim_end_matches(".litellm_params");
    src.note(entry, verdict("its entry is left out".into()));
    reason
}

/// `litellm_params` with references resolved, over the named credential, over `default_litellm_params`.
fn merged(src: &mut Source, raw: &Block, defaults: &EntryDefaults) -> Block {
    let mut map = src.resolve_map(&raw.map, &raw.path);
    if let Some(name) = map.get("litellm_credential_name").and_then(scalar_text) {
        let at = member(&raw.path, "litellm_credential_name");
        match defaults.credentials.get(&name) {
            Some(values) => {
                for (name, value) in src.resolve_map(values, &at) {
                    map.entry(name).or_insert(value);
                }
            }
            None => src.note(&at, Verdict::Ignored("credential_list has no entry of this name".into())),
        }
    }
    for (name, value) in &defaults.default_params {
        map.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Block { path: raw.path.clone(), map }
}

fn deployment(src: &mut Source, group: &str, variant: &Variant, raw: &Block, raw_info: &Block) -> Deployment {
    let Variant { brand, endpoint, params, is_foreign, .. } = variant;
    let endpoint = endpoint.clone();
    let info = Block { path: raw_info.path.clone(), map: src.resolve_map(&raw_info.map, &raw_info.path) };
    let id = info.text(src, "id").unwrap_or_else(|| hashed_id(src, group, &raw.map));
    let mut model_info = shown(&raw_info.map);
    model_info.insert("id".to_owned(), Value::String(id.clone()));
    let azure = brand.is_azure();
    let openai = matches!(brand.name, "openai" | "text-completion-openai");
    let mut secret = |name: &str, variables: &[&str]| {
        let variables = if *is_foreign { &[] } else { variables };
        params.secret(src, name).or_else(|| src.secret_variable(variables, &member(&params.path, name)))
    };
    let api_key = secret("api_key", brand.key_env).or(brand.default_key.map(Secret::new));
    let azure_ad_token = secret("azure_ad_token", if azure { &["AZURE_AD_TOKEN"] } else { &[] });
    let organization = secret("organization", if openai { &["OPENAI_ORGANIZATION"] } else { &[] });
    note_missing_key(src, raw, brand, *is_foreign, api_key.is_some());
    Deployment {
        cooldown_key: String::new(),
        api_base: endpoint.to_string(),
        id,
        group: group.to_owned(),
        cluster: String::new(),
        brand,
        only_inferred: false,
        model: String::new(),
        accepts: Accepts::default(),
        litellm_model: params.text(src, "model").unwrap_or_default(),
        endpoint,
        api_key,
        azure_ad_token,
        api_version: params
            .text(src, "api_version")
            .or_else(|| if azure { src.variable("AZURE_API_VERSION") } else { None }),
        organization: organization.map(|name| name.reveal().to_owned()),
        headers: headers(src, params),
        defaults: defaults(&params.map),
        extra_body: params.member(src, "extra_body").map,
        drop_params: params.flag_or_off(src, "drop_params", NAMES_TO_DROP),
        modify_params: params.flag(src, "modify_params"),
        additional_drop_params: params.texts(src, "additional_drop_params"),
        allowed_openai_params: params.texts(src, "allowed_openai_params"),
        timeout_ms: params.timeout(src, "timeout").or_else(|| params.timeout(src, "request_timeout")),
        stream_timeout_ms: params.timeout(src, "stream_timeout"),
        num_retries: params.small_count(src, "num_retries"),
        weight: params.number(src, "weight", "a number"),
        rpm: params.count(src, "rpm"),
        tpm: params.count(src, "tpm"),
        rates: limits::merged([limits::rates(src, params), limits::rates(src, &info)]),
        max_parallel: params.count(src, "max_parallel_requests"),
        budget: limits::allowance(src, params, "max_budget", "budget_duration"),
        rules: Vec::new(),
        unit_price: 0,
        choice: Choice {
            tags: params.texts(src, "tags"),
            order: params.count(src, "order"),
            region: params.text(src, "region_name"),
            max_input: info.count(src, "max_input_tokens"),
            team: info.text(src, "team_id"),
            team_name: info.text(src, "team_public_model_name"),
        },
        cooldown_ms: params.millis(src, "cooldown_time"),
        mock_response: params.get("mock_response").cloned(),
        mock_timeout: params.flag(src, "mock_timeout").unwrap_or(false),
        template: template(src, params),
        model_info,
        prices: prices(src, params, &info),
        base_model: params.text(src, "base_model").or_else(|| info.text(src, "base_model")),
        health_check_model: info.text(src, "health_check_model").map(|model| {
            let rest = model.strip_prefix(brand.name).and_then(|rest| rest.strip_prefix('/'));
            rest.map(str::to_owned).unwrap_or(model)
        }),
        shown_params: shown(&raw.map),
    }
}

/// Says what a key means that is named and not there.
fn note_missing_key(src: &mut Source, raw: &Block, brand: &Brand, is_foreign: bool, has_other: bool) {
    let Some(Value::String(text)) = raw.map.get("api_key") else { return };
    let Some(Reference::Environment(name)) = reference(text) else { return };
    if src.variable(name).is_some() {
        return;
    }
    let instead = brand.key_env.iter().find(|name| !is_foreign && src.variable(name).is_some());
    let means = match instead {
        Some(other) => format!("{other} is sent instead"),
        None if has_other => "the provider gets a key that means none".to_owned(),
        None => "the provider gets no key".to_owned(),
    };
    let why = format!("environment variable {name} is not set: {means}");
    src.note(&member(&raw.path, "api_key"), Verdict::Missing(why.into()));
}

/// `organization` may be a list: one deployment for each.
fn one_per_organization(params: &Map<String, Value>) -> Vec<Map<String, Value>> {
    match params.get("organization") {
        Some(Value::Array(list)) if !list.is_empty() => list
            .iter()
            .map(|organization| {
                let mut params = params.clone();
                params.insert("organization".to_owned(), organization.clone());
                params
            })
            .collect(),
        _ => vec![params.clone()],
    }
}

/// LiteLLM's stable id: a hash of the name and every parameter in file order. References to the environment count as
/// written, so that the command and the filter agree whatever each of them can see; a sealed value counts as what it is,
/// because sealing it again changes its text.
fn hashed_id(src: &Source, group: &str, params: &Map<String, Value>) -> String {
    let mut hash = Sha256::new();
    hash.update(group);
    for (name, value) in params {
        hash.update(name);
        let opened = value.as_str().and_then(|text| src.opened(text)).map(Value::String);
        let value = opened.as_ref().unwrap_or(value);
        match scalar_text(value) {
            Some(text) => hash.update(text),
            None if value.is_null() => hash.update("None"),
            None => hash.update(value.to_string()),
        }
    }
    hex(&hash.finalize())
}

fn verify(src: &mut Source, params: &Block, defaults: &EntryDefaults) -> bool {
    match params.get("ssl_verify") {
        None => defaults.verify,
        Some(value) => verify_value(src, value, &member(&params.path, "ssl_verify")),
    }
}

/// `ssl_verify` is a flag, or the path of a file with certificates.
pub(super) fn verify_value(src: &mut Source, value: &Value, path: &str) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::String(text) if text.eq_ignore_ascii_case("false") => false,
        Value::String(text) if text.eq_ignore_ascii_case("true") => true,
        _ => {
            let how = "certificates are verified, but against the system's list and not this file";
            src.note(path, Verdict::Approximated(how.into()));
            true
        }
    }
}

/// `headers` and `extra_headers`, the latter winning.
fn headers(src: &mut Source, params: &Block) -> Vec<(String, Secret)> {
    let mut all: Vec<(String, Secret)> = Vec::new();
    for block in [params.member(src, "headers"), params.member(src, "extra_headers")] {
        for (name, value) in &block.map {
            let path = member(&block.path, name);
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if name.is_empty() || !name.bytes().all(token) {
                src.problem(&path, "expected the name of a header", "use letters, digits and dashes");
                continue;
            }
            let Some(text) = scalar_text(value) else {
                src.problem(&path, "expected one text for the header", "write one value");
                continue;
            };
            if let Some(value) = header_value(src, &path, &text) {
                let name = name.to_ascii_lowercase();
                all.retain(|(other, _)| *other != name);
                all.push((name, value));
            }
        }
    }
    all
}

/// Default parameters of a request: whatever is no setting. Numeric text (from the environment) becomes a number where the
/// API wants one.
fn defaults(params: &Map<String, Value>) -> Map<String, Value> {
    const NUMBERS: [&str; 12] = [
        "frequency_penalty",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "min_p",
        "n",
        "presence_penalty",
        "seed",
        "temperature",
        "top_k",
        "top_logprobs",
        "top_p",
    ];
    let own = params.iter().filter(|(name, value)| !value.is_null() && settings::is_default_parameter(name));
    let read = own.map(|(name, value)| {
        let number = match value {
            Value::String(text) if NUMBERS.contains(&name.as_str()) => {
                serde_json::from_str::<serde_json::Number>(text.trim()).ok().map(Value::Number)
            }
            _ => None,
        };
        (name.clone(), number.unwrap_or_else(|| value.clone()))
    });
    read.collect()
}

fn template(src: &mut Source, params: &Block) -> Option<PromptTemplate> {
    const MEMBERS: [&str; 5] =
        ["initial_prompt_value", "roles", "final_prompt_value", "bos_token", "eos_token"];
    MEMBERS.iter().find_map(|name| params.get(name))?;
    let mut text = |name: &str| params.text(src, name).unwrap_or_default();
    let mut template = PromptTemplate {
        initial: text("initial_prompt_value"),
        last: text("final_prompt_value"),
        bos: text("bos_token"),
        eos: text("eos_token"),
        roles: HashMap::new(),
    };
    let roles = params.member(src, "roles");
    for role in roles.map.keys() {
        let around = roles.member(src, role);
        let mut text = |name: &str| around.text(src, name).unwrap_or_default();
        template.roles.insert(role.clone(), (text("pre_message"), text("post_message")));
    }
    Some(template)
}

/// Price fields of `litellm_params` and then `model_info`, as decimal text. Maps of prices come as `name.member`.
fn prices(src: &mut Source, params: &Block, info: &Block) -> Vec<(String, String)> {
    let mut prices: Vec<(String, String)> = Vec::new();
    for block in [params, info] {
        for (name, value) in block.map.iter().filter(|(name, _)| settings::is_price(name)) {
            let nested = value.as_object().into_iter().flatten();
            let single = (!value.is_object()).then_some((name.clone(), value));
            let members = nested.map(|(inner, value)| (format!("{name}.{inner}"), value)).chain(single);
            for (name, value) in members.filter(|(_, value)| !value.is_null() && !value.is_array()) {
                match price(value) {
                    Some(text) if !prices.iter().any(|(other, _)| *other == name) => {
                        prices.push((name, text))
                    }
                    Some(_) => {}
                    None => src.problem(
                        &member(&block.path, &name),
                        "expected a price in USD",
                        "write a decimal number such as 0.0000015",
                    ),
                }
            }
        }
    }
    prices
}

fn price(value: &Value) -> Option<String> {
    let text = match value {
        Value::Number(number) => decimal(number),
        Value::String(text) => {
            let text = text.trim();
            let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && text.parse::<f64>().is_ok();
            if plain { text.to_owned() } else { decimal(&serde_json::Number::from_f64(text.parse().ok()?)?) }
        }
        _ => return None,
    };
    (!text.starts_with('-')).then_some(text)
}

/// A map as it may be shown: without secrets, and without anything that came from outside the file.
pub(super) fn shown(map: &Map<String, Value>) -> Map<String, Value> {
    let public = map.iter().filter(|(name, _)| !is_secret(name));
    public.filter_map(|(name, value)| Some((name.clone(), shown_value(name, value)?))).collect()
}

fn shown_value(name: &str, value: &Value) -> Option<Value> {
    match value {
        // A misspelt `api_key` is still a key.
        Value::String(text) if reference(text).is_some() || text.starts_with("sk-") => None,
        Value::String(text) if matches!(name, "api_base" | "base_url") => {
            // User info and query of a URL may be credentials.
            let text = text.split(['?', '#']).next().unwrap_or_default();
            (!text.contains('@')).then(|| Value::String(text.to_owned()))
        }
        Value::Array(list) => Some(list.iter().filter_map(|value| shown_value("", value)).collect()),
        Value::Object(map) => Some(Value::Object(shown(map))),
        _ => Some(value.clone()),
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let marked = ["api_key", "apikey", "secret", "password", "credentials", "authorization", "private_key"];
    let token =
        name.ends_with("_token") && !name.contains("cost") && name != "bos_token" && name != "eos_token";
    token
        || name == "token"
        || name.starts_with("aws_")
        || matches!(
            name.as_str(),
            "headers" | "extra_headers" | "extra_body" | "client_id" | "tenant_id" | "azure_username"
        )
        || marked.iter().any(|mark| name.contains(mark))
}
