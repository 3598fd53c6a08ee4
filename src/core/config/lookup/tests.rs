//! Tests of names, against configurations as people write them.

use super::*;
use crate::core::config::load;

const TEXT: &str = "
model_list:
- {model_name: gpt-4, litellm_params: {model: azure/prod-gpt4, api_base: 'https://a.openai.azure.com'}, model_info: {id: dep-1}}
- {model_name: gpt-4, litellm_params: {model: openai/gpt-4}, model_info: {id: dep-2}}
- {model_name: claude, litellm_params: {model: bedrock/anthropic.claude}}
- {model_name: mixed, litellm_params: {model: bedrock/anthropic.claude}}
- {model_name: mixed, litellm_params: {model: openai/gpt-4o}}
- {model_name: 'anthropic/*', litellm_params: {model: 'anthropic/*'}}
- {model_name: 'bedrock/*', litellm_params: {model: 'bedrock/*'}}
- {model_name: 'llm/*', litellm_params: {model: 'openai/*'}}
- {model_name: 'two/*/*', litellm_params: {model: 'openai/*'}}
- {model_name: 'openai/*', litellm_params: {model: 'openai/*'}}
- {model_name: fixed-*, litellm_params: {model: groq/llama}}
router_settings:
  model_group_alias: {fast: gpt-4, hop: fast, claude-alias: {model: anthropic/claude-3, hidden: true}, gone: claude}
litellm_settings:
  model_alias_map: {old-gpt: gpt-4, gpt-4-turbo: fast}
";

fn config(text: &str) -> Config {
    load(text, &|_| None, &|_| None).unwrap_or_else(|problems| panic!("{problems:?}")).config
}

/// Group, and what each candidate's provider is asked for.
fn asked(config: &Config, model: &str) -> Option<(String, Vec<String>)> {
    let found = config.resolve(model)?;
    let captures: Vec<&str> = found.captures.iter().map(String::as_str).collect();
    let models = found.deployments.iter().map(|at| {
        let d = &config.deployments[*at];
        format!("{}:{}", d.brand.name, d.model_for(&found.requested, &captures))
    });
    Some((found.group.clone(), models.collect()))
}

#[test]
fn the_order_of_precedence() {
    let config = config(TEXT);
    let rows: &[(&str, &str, &[&str])] = &[
        ("gpt-4", "gpt-4", &["azure:prod-gpt4", "openai:gpt-4"]),
        ("dep-2", "gpt-4", &["openai:gpt-4"]),
        ("fast", "gpt-4", &["azure:prod-gpt4", "openai:gpt-4"]),
        ("old-gpt", "gpt-4", &["azure:prod-gpt4", "openai:gpt-4"]),
        ("gpt-4-turbo", "gpt-4", &["azure:prod-gpt4", "openai:gpt-4"]),
        ("mixed", "mixed", &["openai:gpt-4o"]),
        ("anthropic/claude-3", "anthropic/*", &["anthropic:claude-3"]),
        ("claude-alias", "anthropic/*", &["anthropic:claude-3"]),
        // The provider is inferred when no pattern matches the name itself.
        ("claude-3-opus", "anthropic/*", &["anthropic:claude-3-opus"]),
        ("gpt-4o", "openai/*", &["openai:gpt-4o"]),
        ("llm/foo/bar", "llm/*", &["openai:foo/bar"]),
        // More captures than stars: the whole name.
        ("two/a/b", "two/*/*", &["openai:two/a/b"]),
        ("fixed-7", "fixed-*", &["groq:llama"]),
        // The group whose own model has the name.
        ("azure/prod-gpt4", "gpt-4", &["azure:prod-gpt4"]),
    ];
    for (name, group, models) in rows {
        let (found, asked) = asked(&config, name).unwrap_or_else(|| panic!("{name} not found"));
        assert_eq!(
            (found.as_str(), asked),
            (*group, models.iter().map(|m| (*m).to_owned()).collect()),
            "{name}"
        );
    }
    for name in ["nobody", "hop", "", "bedrock/x", "claude", "gone"] {
        assert_eq!(config.resolve(name), None, "{name}");
    }
}

#[test]
fn what_is_known_but_cannot_be_called_says_why() {
    let config = config(TEXT);
    for name in ["claude", "bedrock/x", "bedrock/*", "gone"] {
        assert!(config.why_unavailable(name).unwrap().contains("bedrock"), "{name}");
    }
    for name in ["nobody", "gpt-4", "mixed", "gpt-4o"] {
        assert_eq!(config.why_unavailable(name), None, "{name}");
    }
}

#[test]
fn an_unavailable_name_never_falls_through_to_a_broader_pattern() {
    let config = config(&TEXT.replace("'llm/*'", "'*'"));
    assert_eq!(asked(&config, "whatever").unwrap().0, "*");
    for name in ["claude", "bedrock/x", "gone"] {
        assert_eq!(config.resolve(name), None, "{name}");
    }
}

#[test]
fn a_bare_star_serves_every_brand_by_its_name() {
    let config = config("model_list:\n- {model_name: '*', litellm_params: {model: '*'}}\n");
    let rows = [
        ("gpt-4o", "openai:gpt-4o"),
        ("groq/llama-3", "groq:llama-3"),
        ("claude-3", "anthropic:claude-3"),
        ("together_ai/org/m", "together_ai:org/m"),
    ];
    for (name, wanted) in rows {
        assert_eq!(asked(&config, name), Some(("*".to_owned(), vec![wanted.to_owned()])), "{name}");
    }
    assert_eq!(asked(&config, "who-knows"), None);
    assert_eq!(asked(&config, "bedrock/x"), None);
}

#[test]
fn listed_models() {
    let config = config(TEXT);
    let names = config.model_names();
    assert_eq!(names.first().map(String::as_str), Some("gpt-4"));
    assert!(names.contains(&"anthropic/*".to_owned()) && names.contains(&"fast".to_owned()));
    assert!(!names.contains(&"claude-alias".to_owned()) && !names.contains(&"claude".to_owned()));
    assert_eq!((config.forced_model.as_deref(), config.default_model.as_deref()), (None, Some("gpt-4")));
}
