//! Which values of a configuration file are literal secrets, and where they stand.
//!
//! It is better to seal a harmless value than to show a secret one, so the rules go by names and are generous. References
//! (`os.environ/NAME`, `oidc/…`) are not secrets: they are resolved inside the filter.

use serde_yaml::{Mapping, Value};

use crate::core::config::seal;

/// Where a value stands: names of members and, for entries of a list, `model_name` or the index.
pub type Path = [String];

/// Calls `act` with every literal secret of `document`; what `act` returns takes its place.
pub fn replace(document: &mut Value, act: &mut dyn FnMut(&Path, &str) -> String) {
    walk(document, &mut Vec::new(), Kind::Plain, act);
}

/// What a value's surroundings say about it.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Nothing.
    Plain,
    /// All of it is secret: headers, values of `environment_variables`.
    Secret,
    /// Names that the operator chose (aliases): they say nothing about the value.
    Names,
}

fn walk(value: &mut Value, path: &mut Vec<String>, kind: Kind, act: &mut dyn FnMut(&Path, &str) -> String) {
    match value {
        Value::Mapping(members) => walk_members(members, path, kind, act),
        Value::Sequence(entries) => {
            for (at, entry) in entries.iter_mut().enumerate() {
                let named = entry.get("model_name").and_then(Value::as_str).map(str::to_owned);
                path.push(named.unwrap_or_else(|| at.to_string()));
                walk(entry, path, kind, act);
                path.pop();
            }
        }
        Value::String(text) if is_literal(text) && (kind == Kind::Secret || holds_credentials(text)) => {
            *value = Value::String(act(path, text));
        }
        // LiteLLM turns every value of `environment_variables` into text; a password may well be all digits.
        Value::Number(number) if path.first().is_some_and(|section| section == "environment_variables") => {
            let text = number.to_string();
            *value = Value::String(act(path, &text));
        }
        _ => {}
    }
}

fn walk_members(
    members: &mut Mapping,
    path: &mut Vec<String>,
    kind: Kind,
    act: &mut dyn FnMut(&Path, &str) -> String,
) {
    for (name, value) in members.iter_mut() {
        let Some(name) = name.as_str() else { continue };
        let below = match kind {
            Kind::Plain => kind_of_known_key(path, name).unwrap_or_else(|| kind_of(name)),
            inherited => inherited,
        };
        path.push(name.to_owned());
        walk(value, path, below, act);
        path.pop();
    }
}

/// `general_settings.keys` lists keys by their hashes, which give nothing away; what stands beside a hash is judged by its name.
fn kind_of_known_key(path: &Path, name: &str) -> Option<Kind> {
    match (path, name) {
        ([section], "keys") if section == "general_settings" => Some(Kind::Plain),
        ([section, list, _], "token") if section == "general_settings" && list == "keys" => Some(Kind::Names),
        _ => None,
    }
}

/// What the name of a member says about what is in it.
fn kind_of(name: &str) -> Kind {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "model_group_alias" | "model_alias_map" | "fallbacks" | "roles" => return Kind::Names,
        "headers" | "extra_headers" | "extra_body" | "default_headers" | "environment_variables" => {
            return Kind::Secret;
        }
        "aws_access_key_id" | "database_url" | "redis_url" | "alert_to_webhook_url" | "webhook_url" => {
            return Kind::Secret;
        }
        // Prompt templates and prices end in the word without being one.
        "bos_token" | "eos_token" => return Kind::Plain,
        name if name.contains("_per_") => return Kind::Plain,
        _ => {}
    }
    let last = name.rsplit(['_', '-', '.']).next().unwrap_or_default();
    match last {
        "key" | "keys" | "apikey" | "token" | "secret" | "secrets" | "password" | "passwd" | "passphrase"
        | "credential" | "credentials" | "authorization" => Kind::Secret,
        _ => Kind::Plain,
    }
}

fn is_literal(text: &str) -> bool {
    !(text.is_empty()
        || text.contains("os.environ/")
        || text.starts_with("oidc/")
        || text.starts_with(seal::PREFIX))
}

/// Whether a URL carries a password before its host, or a key in its query.
fn holds_credentials(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let query = rest.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let in_query = query.split('&').filter_map(|pair| pair.split_once('=')).any(|(name, value)| {
        !value.is_empty() && (kind_of(name) == Kind::Secret || matches!(name, "sig" | "signature" | "code"))
    });
    authority.contains('@') || in_query
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(yaml: &str) -> Vec<String> {
        let mut document: Value = serde_yaml::from_str(yaml).unwrap();
        let mut found = Vec::new();
        replace(&mut document, &mut |path, text| {
            found.push(format!("{}={text}", path.join(".")));
            "X".to_owned()
        });
        let after = serde_yaml::to_string(&document).unwrap();
        for secret in &found {
            let (_, text) = secret.split_once('=').unwrap();
            assert!(!after.contains(text), "{text} is left in {after}");
        }
        found
    }

    #[test]
    fn literal_secrets_are_found() {
        for (yaml, expected) in [
            (
                "model_list: [{model_name: a, litellm_params: {model: openai/x, api_key: sk-1}}]",
                "model_list.a.litellm_params.api_key=sk-1",
            ),
            ("general_settings: {master_key: sk-9}", "general_settings.master_key=sk-9"),
            (
                "general_settings: {database_url: 'postgres://db/x'}",
                "general_settings.database_url=postgres://db/x",
            ),
            ("p: {azure_ad_token: t0k}", "p.azure_ad_token=t0k"),
            ("p: {aws_access_key_id: AKIA1}", "p.aws_access_key_id=AKIA1"),
            ("p: {aws_secret_access_key: s3}", "p.aws_secret_access_key=s3"),
            ("p: {client_secret: c1}", "p.client_secret=c1"),
            ("p: {extra_headers: {X-Team: blue}}", "p.extra_headers.X-Team=blue"),
            ("p: {headers: {nested: [zap]}}", "p.headers.nested.0=zap"),
            ("environment_variables: {PORT_X: 16337}", "environment_variables.PORT_X=16337"),
            ("environment_variables: {A: bcd}", "environment_variables.A=bcd"),
            ("r: {redis_password: pw1}", "r.redis_password=pw1"),
            ("p: {api_base: 'https://u:p@h/v1'}", "p.api_base=https://u:p@h/v1"),
            ("p: {target: 'https://h/v1?api-key=1'}", "p.target=https://h/v1?api-key=1"),
            ("tollgate_settings: {keys: [sk-a1]}", "tollgate_settings.keys.0=sk-a1"),
            (
                "general_settings: {keys: [{token: ab12, metadata: {pager_token: t1}}]}",
                "general_settings.keys.0.metadata.pager_token=t1",
            ),
            ("p: {vertex_credentials: '{json}'}", "p.vertex_credentials={json}"),
            ("p: {extra_body: {deep: [{user_token: tt}]}}", "p.extra_body.deep.0.user_token=tt"),
        ] {
            assert_eq!(found(yaml), [expected], "{yaml}");
        }
    }

    #[test]
    fn other_values_are_left_alone() {
        for yaml in [
            "p: {api_key: os.environ/KEY, master_key: '', other_key: null}",
            "p: {headers: {authorization: 'bearer os.environ/COHERE_API_KEY'}}",
            "p: {aws_web_identity_token: oidc/github/x}",
            "p: {api_key: sealed/abc}",
            "p: {max_tokens: 5, input_cost_per_token: '0.1', eos_token: '</s>', model: a/key, litellm_key_header_name: X-Key}",
            "general_settings: {keys: [{token: ab12, key_alias: checkout, models: [gpt-4o], aliases: {a: b}}]}",
            "router_settings: {model_group_alias: {my-key: gpt-4o}}",
            "p: {api_base: 'https://h/v1?api-version=2'}",
        ] {
            assert_eq!(found(yaml), Vec::<String>::new(), "{yaml}");
        }
    }
}
