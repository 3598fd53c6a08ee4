//! Configurations made by hand.

use hashbrown::HashMap;
use serde_json::Map;

use crate::core::{
    config::{Config, Deployment, Endpoint, General, Router},
    provider::{Brand, Family, Quirks},
};

static BRAND: Brand = Brand {
    name: "openai",
    title: "OpenAI",
    family: Family::OpenAi,
    base: None,
    base_env: &["OPENAI_BASE_URL"],
    key_env: &["OPENAI_API_KEY"],
    default_key: None,
    hosts: &[],
    text_completions: true,
    unsupported: &[],
    quirks: Quirks {
        max_tokens: false,
        flatten_content: false,
        tool_choice_any: false,
        random_seed: false,
        no_stream_options: false,
    },
};

/// A configuration with one deployment for each (group, base URL).
pub fn config(deployments: &[(&str, &str)]) -> Config {
    Config {
        deployments: deployments
            .iter()
            .enumerate()
            .map(|(at, (group, base))| deployment(at, group, base))
            .collect(),
        groups: HashMap::new(),
        group_order: Vec::new(),
        wildcards: Vec::new(),
        aliases: HashMap::new(),
        renames: HashMap::new(),
        forced_model: None,
        default_model: None,
        router: Router {
            num_retries: 2,
            timeout_ms: 6_000_000,
            stream_timeout_ms: None,
            fallbacks: HashMap::new(),
            context_window_fallbacks: None,
            content_policy_fallbacks: None,
            max_fallbacks: 5,
            allowed_fails: None,
            cooldown_ms: 5_000,
            disable_cooldowns: false,
        },
        general: General {
            master_key: None,
            key_header: None,
            drop_params: false,
            modify_params: false,
            max_request_bytes: None,
            max_held_answer_bytes: 262_144,
            forward_client_headers: false,
            add_function_to_prompt: false,
            allow_client_credentials: false,
            auth_metrics: false,
        },
        unavailable: HashMap::new(),
    }
}

fn deployment(at: usize, group: &str, base: &str) -> Deployment {
    Deployment {
        id: at.to_string(),
        group: group.to_owned(),
        cluster: format!("d{at}_{group}"),
        brand: &BRAND,
        only_inferred: false,
        model: group.to_owned(),
        litellm_model: format!("openai/{group}"),
        endpoint: endpoint(base),
        api_key: None,
        azure_ad_token: None,
        api_version: None,
        organization: None,
        headers: Vec::new(),
        defaults: Map::new(),
        extra_body: Map::new(),
        drop_params: None,
        additional_drop_params: Vec::new(),
        allowed_openai_params: Vec::new(),
        timeout_ms: None,
        stream_timeout_ms: None,
        num_retries: None,
        weight: None,
        rpm: None,
        tpm: None,
        cooldown_ms: None,
        mock_response: None,
        mock_timeout: false,
        template: None,
        merge_reasoning: false,
        model_info: Map::new(),
        prices: Vec::new(),
        base_model: None,
    }
}

/// `https://host:port/path`; a `!` before it turns verification off.
fn endpoint(base: &str) -> Endpoint {
    let (verify, base) = match base.strip_prefix('!') {
        Some(base) => (false, base),
        None => (true, base),
    };
    let (scheme, rest) = base.split_once("://").unwrap_or(("https", base));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let tls = scheme == "https";
    let default = if tls { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.contains(']') => {
            (host, port.parse().unwrap_or(default))
        }
        _ => (authority, default),
    };
    Endpoint {
        tls,
        host: host.trim_matches(['[', ']']).to_owned(),
        port,
        path: if path.is_empty() { String::new() } else { format!("/{path}") },
        query: None,
        verify,
    }
}
