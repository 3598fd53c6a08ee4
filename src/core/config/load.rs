//! YAML text to [`Config`]: the order of things, and what must hold across entries.

use hashbrown::{HashMap, HashSet};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    Config, Report, Wildcard,
    blocks::Blocks,
    entry::{self, Entry, EntryDefaults},
    global, keys, ledger_settings, limits,
    lookup::Index,
    prices::Prices,
    problem::Problem,
    read::{Block, Source, scalar_text},
    report::LeftOut,
    wildcard,
    yaml::{self, item},
};
use crate::core::{codec::hex::hex, model::deployment::Deployment};

/// A configuration and what became of its settings.
#[derive(Debug)]
pub struct Loaded {
    /// What the gateway works with.
    pub config: Config,
    /// One verdict per setting of the text.
    pub report: Report,
}

/// Reads a LiteLLM `config.yaml`.
///
/// `env` looks an environment variable up; `unseal` opens what stands behind `sealed/`. Nothing LiteLLM starts with is
/// refused: entries that cannot be called are left out, with a note in the report and a reason in
/// [`Config::unavailable`]. All problems are found in one go, in the order of their lines.
pub fn load(
    yaml: &str,
    env: &dyn Fn(&str) -> Option<String>,
    unseal: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Vec<Problem>> {
    let (document, lines) = yaml::parse(yaml).map_err(|(line, message)| {
        let fix = "correct the YAML; indentation and quotes are the usual causes".to_owned();
        vec![Problem { line, setting: String::new(), expected: format!("not valid YAML: {message}"), fix }]
    })?;
    let mut src = Source::new(lines, env, unseal);
    let top = match &document {
        Value::Null => Map::new(),
        Value::Object(map) => map.clone(),
        _ => {
            let expected = "expected a map with model_list and other settings at the top level".to_owned();
            let fix = "begin the file with `model_list:`".to_owned();
            return Err(vec![Problem { line: Some(1), setting: String::new(), expected, fix }]);
        }
    };
    let top = Block { path: String::new(), map: top };
    if top.get("include").is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty())) {
        src.problem(
            "include",
            "expected the included files' text in place: the filter cannot read files",
            "start with `tollgate --config`, which resolves it, or paste the files in",
        );
    }
    let variables = top.member(&mut src, "environment_variables");
    src.set_variables(&variables);
    let (config, entries, left_out) = assemble(&mut src, &top);
    let mut problems = std::mem::take(&mut src.problems);
    if problems.is_empty() {
        let report = Report::of(&document, &src, entries, left_out);
        return Ok(Loaded { config, report });
    }
    problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
    // A setting may be read more than once (for each organization, each brand).
    let mut seen = HashSet::new();
    problems.retain(|problem| seen.insert(problem.to_string()));
    Err(problems)
}

fn assemble(src: &mut Source, top: &Block) -> (Config, usize, Vec<LeftOut>) {
    let blocks = Blocks {
        litellm: resolved(src, top, "litellm_settings"),
        router: resolved(src, top, "router_settings"),
        general: resolved(src, top, "general_settings"),
        tollgate: resolved(src, top, "tollgate_settings"),
        raw_general: top.member(src, "general_settings"),
    };
    let defaults = defaults(src, top, &blocks);
    let mut models = models(src, top, &defaults);
    let router = global::router(src, &blocks);
    let mut general = global::general(src, &blocks);
    limits::set_rules(&mut models.deployments, &router, general.has_ledger);
    general.keys = keys::read(src, &blocks, &general);
    let mut config = Config {
        router,
        aliases: global::aliases(src, &blocks),
        renames: global::renames(src, &blocks),
        general,
        ledger: ledger_settings::read(src, &blocks),
        tollgate: global::tollgate(src, &blocks),
        forced_model: blocks.general.text(src, "completion_model"),
        default_model: models.order.iter().find(|name| !name.contains('*')).cloned(),
        deployments: models.deployments,
        groups: models.groups,
        group_order: models.order,
        wildcards: models.wildcards,
        unavailable: models.unavailable,
        index: Index::default(),
        prices: Prices::default(),
    };
    config.index = Index::of(&config);
    (config, models.entries, models.left_out)
}

fn resolved(src: &mut Source, top: &Block, name: &str) -> Block {
    let Block { path, map } = top.member(src, name);
    let map = src.resolve_map(&map, &path);
    Block { path, map }
}

fn defaults(src: &mut Source, top: &Block, blocks: &Blocks) -> EntryDefaults {
    let mut defaults = EntryDefaults { verify: true, ..EntryDefaults::default() };
    for entry in top.list(src, "credential_list") {
        let name = entry.get("credential_name").and_then(scalar_text);
        if let (Some(name), Some(Value::Object(values))) = (name, entry.get("credential_values")) {
            defaults.credentials.insert(name, values.clone());
        }
    }
    defaults.default_params = blocks.router.member(src, "default_litellm_params").map;
    let written = top.get("router_settings").and_then(|router| router.get("default_litellm_params"));
    defaults.default_written = written.and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(value) = blocks.litellm.get("ssl_verify") {
        defaults.verify = entry::verify_value(src, value, "litellm_settings.ssl_verify");
    } else if let Some(text) = src.variable("SSL_VERIFY") {
        defaults.verify = !text.eq_ignore_ascii_case("false");
    }
    defaults
}

/// What `model_list` comes to.
#[derive(Default)]
struct Models {
    deployments: Vec<Deployment>,
    groups: HashMap<String, Vec<usize>>,
    order: Vec<String>,
    wildcards: Vec<Wildcard>,
    unavailable: HashMap<String, String>,
    /// Ids so far, and whether the file gave them.
    ids: HashMap<String, bool>,
    clusters: HashSet<String>,
    entries: usize,
    left_out: Vec<LeftOut>,
}

fn models(src: &mut Source, top: &Block, defaults: &EntryDefaults) -> Models {
    let mut models = Models::default();
    let list = top.list(src, "model_list");
    models.entries = list.len();
    for (at, value) in list.iter().enumerate() {
        let path = item("model_list", at);
        if let Some(entry) = entry::read(src, value, &path, defaults) {
            models.add(src, entry, &path);
        }
    }
    models.finish();
    models
}

impl Models {
    fn add(&mut self, src: &mut Source, entry: Entry, path: &str) {
        let Entry { group, deployments, unavailable, explicit_id } = entry;
        if !self.groups.contains_key(&group) {
            self.order.push(group.clone());
        }
        let members = self.groups.entry(group.clone()).or_default();
        if let Some(reason) = &unavailable
            && deployments.is_empty()
        {
            let line = src.lines.of_path(path);
            self.left_out.push(LeftOut { model_name: group.clone(), line, reason: reason.clone() });
        }
        if let Some(reason) = unavailable {
            self.unavailable.entry(group).or_insert(reason);
        }
        let several = deployments.len() > 1;
        for mut d in deployments {
            if explicit_id && !several && self.ids.get(&d.id) == Some(&true) {
                src.problem(
                    &format!("{path}.model_info.id"),
                    format!("expected an id of its own, found the id `{}` of another entry", d.id),
                    "choose another id, or remove it",
                );
            }
            d.id = unique(&d.id, |id| self.ids.contains_key(id));
            d.cooldown_key = Deployment::cooldown_key_of(&d.id);
            if let Some(id) = d.model_info.get_mut("id") {
                *id = Value::String(d.id.clone());
            }
            self.ids.insert(d.id.clone(), explicit_id);
            d.cluster = unique(&cluster_name(&d), |name| self.clusters.contains(name));
            self.clusters.insert(d.cluster.clone());
            members.push(self.deployments.len());
            self.deployments.push(d);
        }
    }

    /// Wildcards apart from exact groups; groups without a deployment that can be called out.
    fn finish(&mut self) {
        let groups = &self.groups;
        self.unavailable.retain(|group, _| groups.get(group).is_some_and(Vec::is_empty));
        for group in &self.order {
            if group.contains('*')
                && let Some(deployments) = self.groups.remove(group)
            {
                self.wildcards.push(Wildcard { pattern: group.clone(), deployments });
            }
        }
        self.wildcards.sort_by_key(|wildcard| wildcard::order(&wildcard.pattern));
        self.groups.retain(|_, deployments| !deployments.is_empty());
        let unavailable = &self.unavailable;
        self.order.retain(|group| !unavailable.contains_key(group));
    }
}

/// The name, or the name with the first number behind it that is free.
fn unique(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut candidate = name.to_owned();
    let mut number = 2;
    while taken(&candidate) {
        candidate = format!("{name}-{number}");
        number += 1;
    }
    candidate
}

/// `gpt-4o-1a2b3c4d`: readable, stable, and of letters that statistics and files take. A deployment that moves to another
/// address gets another name: while one configuration takes the place of another, no request planned for the old address
/// (with the old key) is sent to the new one.
fn cluster_name(d: &Deployment) -> String {
    let mut slug = String::new();
    for c in d.group.chars().take(48) {
        match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9' | '_') => slug.push(c),
            _ if slug.ends_with('-') || slug.is_empty() => {}
            _ => slug.push('-'),
        }
    }
    let slug = match slug.trim_end_matches('-') {
        "" => "any",
        slug => slug,
    };
    let mut hash = Sha256::new();
    let endpoint = &d.endpoint;
    hash.update(format!("{}\n{} {} {}", d.id, endpoint.tls, endpoint.verify, endpoint.authority()));
    let mut hash = hex(&hash.finalize());
    hash.truncate(8);
    match d.only_inferred {
        true => format!("{slug}-{hash}-{}", d.brand.name),
        false => format!("{slug}-{hash}"),
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod own;
#[cfg(test)]
mod tests;
