//! The rules against what LiteLLM says of many models, and what it leaves open.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;
use crate::core::{cost::table, provider::brand};

/// By brand and model: names, with spaces between.
type Table = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Deserialize)]
struct Known {
    chat: Table,
    embeddings: Table,
}

fn known() -> Known {
    serde_json::from_str(include_str!("../../../../tests/fixtures/params.json")).unwrap()
}

fn set(names: &str) -> P {
    names.split_whitespace().fold(P::NONE, |set, name| {
        let param = P::named(name);
        assert!(!param.is_empty(), "{name}");
        set | param
    })
}

fn found(name: &str, model: &str, base: Option<&str>) -> Accepts {
    accepts(brand(name).unwrap(), model, base, &table::abilities)
}

/// What goes through here and not there: the server takes tools that LiteLLM puts into the prompt, and the older names of tools
/// become tools on the way.
fn besides(brand: &str) -> P {
    match brand {
        "ollama" => TOOLS | P::FUNCTIONS,
        "anthropic" => FUNCTIONS,
        _ => P::NONE,
    }
}

#[test]
fn models_take_what_litellm_says_they_take() {
    let (mut models, mut wrong) = (0, Vec::new());
    for (name, rows) in known().chat {
        for (model, names) in rows {
            let (ours, theirs) = (found(&name, &model, None).chat, set(&names) | besides(&name));
            models += 1;
            if ours != theirs {
                let list = |set: P| set.names().collect::<Vec<_>>().join(" ");
                let (more, less) = (list(ours.without(theirs)), list(theirs.without(ours)));
                wrong.push(format!("{name}/{model}: more [{more}] less [{less}]"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(models > 120, "{models}");
}

#[test]
fn every_brand_that_is_called_has_a_row_that_is_checked() {
    let known = known().chat;
    let unchecked: Vec<&str> = super::super::BRANDS
        .iter()
        .filter(|brand| brand.is_callable() && !known.contains_key(brand.name))
        .map(|brand| brand.name)
        .collect();
    // Its models only embed.
    assert_eq!(unchecked, ["jina_ai"]);
}

#[test]
fn embeddings_take_what_litellm_says_they_take() {
    for (name, rows) in known().embeddings {
        for (model, names) in rows {
            let ours = found(&name, &model, None).embeddings;
            assert_eq!(
                ours.names().collect::<Vec<_>>(),
                set(&names).names().collect::<Vec<_>>(),
                "{name}/{model}"
            );
        }
    }
}

#[test]
fn a_series_is_told_by_the_name_its_prefix_or_the_base_model() {
    // Brand, model, base model; series, whether `max_tokens` has the newer name.
    let rows = [
        ("openai", "o1", None, Series::O, true),
        ("openai", "o4-mini-2025-04-16", None, Series::O, true),
        ("openai", "openai/o3", None, Series::O, true),
        ("openai", "gpt-5-mini", None, Series::Gpt5, true),
        ("openai", "my-gpt-5-x", None, Series::Gpt5, true),
        ("openai", "gpt-5-chat-latest", None, Series::Plain, false),
        ("openai", "gpt-4o", None, Series::Plain, false),
        ("openai", "o2", None, Series::Plain, false),
        ("openai", "o1x", None, Series::Plain, false),
        ("openai", "omni-moderation-latest", None, Series::Plain, false),
        ("groq", "o1", None, Series::Plain, false),
        ("azure", "o_series/dep1", None, Series::O, true),
        ("azure", "gpt5_series/dep2", None, Series::Gpt5, true),
        ("azure", "my-gpt-5-dep", None, Series::Gpt5, true),
        ("azure", "prod-o3-mini", None, Series::O, true),
        ("azure", "gpt-4o1", None, Series::O, true),
        ("azure", "gpt-5-chat", None, Series::Plain, true),
        ("azure", "dep", None, Series::Plain, false),
        ("azure", "dep", Some("azure/o3-mini"), Series::O, true),
        ("azure", "dep", Some("gpt-5"), Series::Gpt5, true),
        ("azure", "my-gpt-5-dep", Some("azure/gpt-4o"), Series::Plain, false),
        ("azure", "dep", Some(""), Series::Plain, false),
        ("anthropic", "claude-opus-4-7", None, Series::FixedClaude, false),
        ("anthropic", "claude-sonnet-4-5", None, Series::Plain, false),
    ];
    for (name, model, base, series, renames) in rows {
        let found = found(name, model, base);
        assert_eq!((found.series, found.renames_max_tokens), (series, renames), "{name}/{model} {base:?}");
    }
}

#[test]
fn claude_thinks_from_3_7_on_and_so_do_names_that_are_not_listed() {
    let rows = [
        ("claude-2", false),
        ("claude-instant-1.2", false),
        ("claude-3-opus-20240229", false),
        ("claude-3-5-sonnet-20241022", false),
        ("claude-3-7-sonnet-latest", true),
        ("claude-sonnet-4-20250514", true),
        ("claude-opus-4-5", true),
        ("claude-of-tomorrow", true),
        ("somebody-elses", false),
    ];
    for (model, thinks) in rows {
        assert_eq!(found("anthropic", model, None).chat.has(REASONING), thinks, "{model}");
    }
}

#[test]
fn a_base_model_adds_what_it_takes() {
    let reasons = |base| found("groq", "my-tune", base).chat.has(P::REASONING_EFFORT);
    assert!(
        !reasons(None) && reasons(Some("openai/gpt-oss-120b")) && reasons(Some("groq/openai/gpt-oss-20b"))
    );
}

#[test]
fn only_azure_has_series_before_its_names() {
    let (azure, openai) = (brand("azure").unwrap(), brand("openai").unwrap());
    let rows =
        [("o_series/dep1", "dep1"), ("gpt5_series/a/b", "a/b"), ("dep", "dep"), ("o_series", "o_series")];
    for (model, called) in rows {
        assert_eq!((without_series(azure, model), without_series(openai, model)), (called, model));
    }
}
