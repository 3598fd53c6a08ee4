//! The settings that are not about one deployment: `router_settings`, `litellm_settings`, `general_settings`,
//! `tollgate_settings`.

use hashbrown::HashMap;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    Alias, FilterHost, TollgateSettings,
    blocks::Blocks,
    limits,
    read::{Block, NAMES_TO_DROP, Reference, Source, flag_of, reference, scalar_text},
    settings::{self, Verdict},
    yaml::{item, member},
};
use crate::core::{
    codec::hex::hex,
    model::{
        endpoint::Endpoint,
        failure::Class,
        fallback::{Fallback, Fallbacks},
        general::{CountedTokens, General},
        limits::Budget,
        router::Router,
        secret::Secret,
    },
    protocol::KEY_VARIABLE,
};

/// `router_settings`, and `litellm_settings` for what it lacks.
pub(super) fn router(src: &mut Source, blocks: &Blocks) -> Router {
    let (own, litellm) = (&blocks.router, &blocks.litellm);
    let mut general = fallbacks(src, [own, litellm], "fallbacks").unwrap_or_default();
    let default = [own, litellm].into_iter().find(|block| block.get("default_fallbacks").is_some());
    if let Some(block) = default {
        let list = block.list(src, "default_fallbacks");
        let entries = targets(src, &member(&block.path, "default_fallbacks"), &Value::Array(list));
        general.entry("*".to_owned()).or_insert(entries);
    }
    let request_timeout = litellm.timeout(src, "request_timeout");
    let from_environment = || {
        src.variable("REQUEST_TIMEOUT").and_then(|text| text.trim().parse::<f64>().ok()).filter(|s| *s > 0.0)
    };
    let fallback_timeout =
        request_timeout.or_else(|| from_environment().map(|seconds| (seconds * 1000.0).round() as u64));
    let timeout_ms = own.timeout(src, "timeout").or(fallback_timeout).unwrap_or(6_000_000);
    let allowed_fails = small(src, [own, litellm], "allowed_fails");
    Router {
        num_retries: small(src, [own, litellm], "num_retries").unwrap_or(2),
        timeout_ms,
        stream_timeout_ms: own.timeout(src, "stream_timeout"),
        fallbacks: general,
        context_window_fallbacks: fallbacks(src, [own, litellm], "context_window_fallbacks"),
        content_policy_fallbacks: fallbacks(src, [own, litellm], "content_policy_fallbacks"),
        max_fallbacks: small(src, [own, litellm], "max_fallbacks").unwrap_or(5),
        retry_after_ms: own.millis(src, "retry_after").unwrap_or(0),
        retry_policy: policy(src, own, "retry_policy", "Retries"),
        model_group_retry_policy: group_policies(src, own),
        allowed_fails_policy: policy(src, own, "allowed_fails_policy", "AllowedFails"),
        allowed_fails: allowed_fails.filter(|fails| *fails != 3),
        cooldown_ms: own
            .millis(src, "cooldown_time")
            .or_else(|| litellm.millis(src, "cooldown_time"))
            .unwrap_or(5_000),
        disable_cooldowns: own.flag(src, "disable_cooldowns").unwrap_or(false),
        strategy: limits::strategy(src, own),
        latency: limits::latency_args(src, own),
        max_parallel: own.count(src, "default_max_parallel_requests"),
        provider_budgets: limits::provider_budgets(src, blocks),
        // The name without an s stands in published examples.
        pre_call_checks: ["enable_pre_call_checks", "enable_pre_call_check"]
            .into_iter()
            .any(|name| own.flag(src, name) == Some(true)),
        prompt_affinity: own
            .texts(src, "optional_pre_call_checks")
            .iter()
            .any(|check| check == "prompt_caching"),
        tag_filtering: own.flag(src, "enable_tag_filtering").unwrap_or(false),
        tags_match_any: own.flag(src, "tag_filtering_match_any").unwrap_or(true),
    }
}

/// `model_group_alias`.
pub(super) fn aliases(src: &mut Source, blocks: &Blocks) -> HashMap<String, Alias> {
    let block = blocks.router.member(src, "model_group_alias");
    let mut aliases = HashMap::new();
    for (name, value) in &block.map {
        let alias = match value {
            Value::String(model) => Some(Alias { model: model.clone(), hidden: false }),
            Value::Object(_) => {
                let entry = block.member(src, name);
                let hidden = entry.flag(src, "hidden").unwrap_or(false);
                entry.text(src, "model").map(|model| Alias { model, hidden })
            }
            _ => None,
        };
        match alias {
            Some(alias) => _ = aliases.insert(name.clone(), alias),
            None => src.problem(
                &member(&block.path, name),
                "expected the name of a group",
                "write `alias: group` or `alias: {model: group, hidden: true}`",
            ),
        }
    }
    aliases
}

/// `model_alias_map`.
pub(super) fn renames(src: &mut Source, blocks: &Blocks) -> HashMap<String, String> {
    let block = blocks.litellm.member(src, "model_alias_map");
    block.map.iter().filter_map(|(name, value)| Some((name.clone(), scalar_text(value)?))).collect()
}

/// `general_settings` and what is global in `litellm_settings`.
pub(super) fn general(src: &mut Source, blocks: &Blocks) -> General {
    let (own, litellm) = (&blocks.general, &blocks.litellm);
    let mega = 1024.0 * 1024.0;
    let master_key = master_key(src, own, &blocks.raw_general);
    let texts = |src: &mut Source, name: &str| own.texts(src, name);
    General {
        master_hash: master_key
            .as_ref()
            .map(|key| hex(&Sha256::digest(key.reveal().as_bytes())))
            .unwrap_or_default(),
        master_key,
        key_header: own.text(src, "litellm_key_header_name").map(|name| name.to_ascii_lowercase()),
        drop_params: litellm.flag_or_off(src, "drop_params", NAMES_TO_DROP).unwrap_or(false),
        modify_params: litellm.flag(src, "modify_params").unwrap_or(false),
        max_request_bytes: own
            .number(src, "max_request_size_mb", "megabytes")
            .map(|size| (size * mega) as u64),
        max_held_answer_bytes: blocks.tollgate.count(src, "max_held_answer_bytes").unwrap_or(262_144),
        forward_client_headers: own.flag(src, "forward_client_headers_to_llm_api").unwrap_or(false),
        allow_client_credentials: own.flag(src, "allow_client_side_credentials").unwrap_or(false),
        auth_metrics: litellm.flag(src, "require_auth_for_metrics_endpoint").unwrap_or(false),
        has_ledger: src.first_variable(&[KEY_VARIABLE]).is_some(),
        keys: HashMap::new(),
        key_ttl_ms: own.millis(src, "user_api_key_cache_ttl").unwrap_or(60_000),
        pass_without_ledger: own.flag(src, "allow_requests_on_db_unavailable").unwrap_or(false),
        enforce_user: own.flag(src, "enforce_user_param").unwrap_or(false),
        enforced_params: texts(src, "enforced_params"),
        user_header: own.text(src, "user_header_name").map(|name| name.to_ascii_lowercase()),
        allowed_routes: texts(src, "allowed_routes"),
        admin_only_routes: texts(src, "admin_only_routes"),
        public_routes: texts(src, "public_routes"),
        allowed_ips: texts(src, "allowed_ips"),
        use_forwarded_for: own.flag(src, "use_x_forwarded_for").unwrap_or(false),
        trusted_hops: blocks
            .tollgate
            .count(src, "xff_num_trusted_hops")
            .and_then(|hops| usize::try_from(hops).ok())
            .unwrap_or(1)
            .max(1),
        refuse_client_mocks: blocks.tollgate.flag(src, "allow_client_mocks") == Some(false),
        max_client_retries: blocks
            .tollgate
            .count(src, "max_client_retries")
            .map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
        max_parallel: own.count(src, "global_max_parallel_requests"),
        key_max_parallel: own.count(src, "max_parallel_requests"),
        budget: Budget {
            // 0 is off, as in LiteLLM; what cannot be spent need not be counted.
            max: litellm.money(src, "max_budget").filter(|max| *max > 0 && *max < i64::MAX),
            duration: litellm.duration(src, "budget_duration"),
            ..Budget::default()
        },
        may_be_open: own.flag(src, "dangerously_permit_weak_or_unset_master_key").unwrap_or(false)
            || src
                .variable("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY")
                .is_some_and(|text| flag_of(&text) == Some(true)),
        end_users_have_budgets: litellm.get("max_end_user_budget").is_some()
            || litellm.get("max_end_user_budget_id").is_some(),
        counted_tokens: match own.text(src, "token_rate_limit_type").as_deref() {
            Some("input") => CountedTokens::Input,
            Some("output") => CountedTokens::Output,
            _ => CountedTokens::Total,
        },
    }
}

/// `tollgate_settings`.
pub(super) fn tollgate(src: &mut Source, blocks: &Blocks) -> TollgateSettings {
    let own = &blocks.tollgate;
    TollgateSettings {
        request_body_buffer_limit_bytes: own
            .count(src, "request_body_buffer_limit_bytes")
            .unwrap_or(33_554_432),
        key_cache_size: own
            .count(src, "key_cache_size")
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(10_000)
            .max(1),
        access_log: own.text(src, "access_log").unwrap_or_else(|| "stdout".to_owned()),
        drain_timeout_ms: own.millis(src, "drain_timeout").unwrap_or(600_000),
        upload_timeout_ms: own.millis(src, "upload_timeout").unwrap_or(120_000),
        max_memory_bytes: own.count(src, "max_memory_bytes").filter(|bytes| *bytes > 0),
        host: own.text(src, "host").and_then(|name| {
            let host = FilterHost::parse(&name);
            if host.is_none() {
                src.problem(
                    &member(&own.path, "host"),
                    format!("`{name}` hosts no filter"),
                    "write `native` or `wasm`",
                );
            }
            host
        }),
        ledger_url: own.text(src, "ledger_url").and_then(|url| match Endpoint::parse(&url) {
            Ok(endpoint) => Some(endpoint),
            Err(problem) => {
                src.problem(
                    &member(&own.path, "ledger_url"),
                    format!("not a URL: {problem}"),
                    "write where the ledger listens, such as `http://ledger:4001`",
                );
                None
            }
        }),
    }
}

/// The master key. One that is named but empty must not open the gateway to every client: an empty text is a problem, and a
/// variable that is not set becomes a key that no header can carry.
fn master_key(src: &mut Source, own: &Block, raw: &Block) -> Option<Secret> {
    let path = member(&own.path, "master_key");
    let written = raw.map.get("master_key");
    let key = own.secret(src, "master_key");
    let blank = |key: &Secret| key.reveal().is_empty();
    if key.as_ref().is_some_and(blank) {
        // From a variable that holds nothing but spaces.
        empty_key(src, &path);
        return None;
    }
    let key = key.or_else(|| src.variable("LITELLM_MASTER_KEY").map(|key| Secret::new(key.trim())));
    let key = key.filter(|key| !blank(key));
    if key.is_some() {
        return key;
    }
    match written {
        None => {
            if src.is_blank("LITELLM_MASTER_KEY") {
                empty_key(src, "LITELLM_MASTER_KEY");
            }
            misspelt_key(src, own);
            None
        }
        Some(Value::String(text)) => match reference(text) {
            Some(Reference::Environment(name)) => {
                let why = format!(
                    "environment variable {name} is not set: no key is accepted until it is; remove master_key to serve everybody"
                );
                src.note(&path, Verdict::Missing(why.into()));
                Some(Secret::new("\0unset"))
            }
            Some(_) => Some(Secret::new("\0unset")),
            None => {
                empty_key(src, &path);
                None
            }
        },
        Some(Value::Null) => {
            empty_key(src, &path);
            None
        }
        // Of a wrong kind: that is a problem already.
        Some(_) => None,
    }
}

fn empty_key(src: &mut Source, path: &str) {
    src.problem(
        path,
        "expected a key, found nothing (a variable that was filled in beforehand may be unset)",
        "write the key or os.environ/LITELLM_MASTER_KEY; to serve everybody without a key, remove the setting",
    );
}

/// A key of `general_settings` that looks like `masterkey` is a problem: without the right spelling every client is served.
fn misspelt_key(src: &mut Source, own: &Block) {
    for (name, value) in &own.map {
        let verdict = settings::verdict(&own.path, name, value);
        if verdict == (Verdict::Unknown { did_you_mean: Some("master_key") }) {
            src.problem(
                &member(&own.path, name),
                "expected a known setting, found one that nobody knows; did you mean master_key?",
                "write master_key: without it everybody may do everything",
            );
        }
    }
}

fn small<const N: usize>(src: &mut Source, blocks: [&Block; N], name: &str) -> Option<u32> {
    blocks.into_iter().find_map(|block| block.small_count(src, name))
}

/// A fallback table: a list of maps from group to list, or one such map. The first entry for a group counts.
fn fallbacks(src: &mut Source, blocks: [&Block; 2], name: &str) -> Option<Fallbacks> {
    // LiteLLM takes an empty list for none.
    let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    let block = blocks.into_iter().find(|block| block.get(name).is_some_and(|value| !empty(value)))?;
    let path = member(&block.path, name);
    let entries: Vec<(String, &Value)> = match block.get(name)? {
        Value::Array(list) => list.iter().enumerate().map(|(at, entry)| (item(&path, at), entry)).collect(),
        map @ Value::Object(_) => vec![(path.clone(), map)],
        _ => {
            src.problem(&path, "expected a list of maps", "write `[{\"group\": [\"other-group\"]}]`");
            return None;
        }
    };
    let mut table = Fallbacks::new();
    for (path, entry) in entries {
        let Value::Object(entry) = entry else {
            src.problem(
                &path,
                "expected a map from a group to a list",
                "write `{\"group\": [\"other-group\"]}`",
            );
            continue;
        };
        for (group, value) in entry {
            let targets = targets(src, &member(&path, group), value);
            table.entry(group.clone()).or_insert(targets);
        }
    }
    Some(table)
}

/// What to try: names, or maps with a `model` and members to replace.
fn targets(src: &mut Source, path: &str, value: &Value) -> Vec<Fallback> {
    let single = std::slice::from_ref(value);
    let list = value.as_array().map_or(single, Vec::as_slice);
    let mut targets = Vec::new();
    for (at, entry) in list.iter().enumerate() {
        let target = match entry {
            Value::String(model) => Some(Fallback { model: model.clone(), overrides: Map::new() }),
            Value::Object(map) => map.get("model").and_then(Value::as_str).map(|model| Fallback {
                model: model.to_owned(),
                overrides: map
                    .iter()
                    .filter(|(n, _)| *n != "model")
                    .map(|(n, v)| (n.clone(), v.clone()))
                    .collect(),
            }),
            _ => None,
        };
        match target {
            Some(target) => targets.push(target),
            None => src.problem(
                &item(path, at),
                "expected the name of a group, or a map with a model",
                "write the model_name of the group to fall back to",
            ),
        }
    }
    targets
}

/// `{RateLimitErrorRetries: 3}`: counts by class; `suffix` follows the class's name.
fn policy(src: &mut Source, block: &Block, name: &str, suffix: &str) -> HashMap<Class, u32> {
    const CLASSES: [Class; 6] = [
        Class::BadRequest,
        Class::Authentication,
        Class::Timeout,
        Class::RateLimit,
        Class::ContentPolicyViolation,
        Class::InternalServer,
    ];
    let block = block.member(src, name);
    let mut policy = HashMap::new();
    for class in CLASSES {
        // LiteLLM writes `TimeoutErrorRetries` although the class is `Timeout`.
        let stem = class.name().trim_end_matches("Error");
        if let Some(count) = block.small_count(src, &format!("{stem}Error{suffix}")) {
            policy.insert(class, count);
        }
    }
    policy
}

fn group_policies(src: &mut Source, own: &Block) -> HashMap<String, HashMap<Class, u32>> {
    let block = own.member(src, "model_group_retry_policy");
    let mut policies = HashMap::new();
    for group in block.map.keys() {
        policies.insert(group.clone(), policy(src, &block, group, "Retries"));
    }
    policies
}
