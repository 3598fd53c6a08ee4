//! The whole price data: what `/get/litellm_model_cost_map` answers, and what is known of a model besides its prices.
//!
//! The core keeps a compact table of the rates alone, for the filter. Here nothing is hurried, so the data stays JSON text.

use std::{borrow::Cow, collections::HashMap, sync::OnceLock};

use serde_json::{Map, Value, value::RawValue};

/// The newest data, and an older list that has models which the newest dropped.
const NEWEST: &str = include_str!("../../core/cost/data/model_prices.json");
const OLDER: &str = include_str!("../../core/cost/data/model_prices_2025-08.json");

/// Models by name; each is the text of its entry.
fn models() -> &'static HashMap<Cow<'static, str>, &'static RawValue> {
    static MODELS: OnceLock<HashMap<Cow<'static, str>, &'static RawValue>> = OnceLock::new();
    MODELS.get_or_init(|| {
        let read = |text: &'static str| -> HashMap<Cow<'static, str>, &'static RawValue> {
            serde_json::from_str(text).unwrap_or_default()
        };
        let mut models = read(OLDER);
        models.extend(read(NEWEST));
        models.remove("sample_spec");
        models
    })
}

/// The data as one JSON object, sorted by name.
pub fn all() -> Vec<u8> {
    let mut list: Vec<(&Cow<'static, str>, &&'static RawValue)> = models().iter().collect();
    list.sort_by_key(|(name, _)| *name);
    let mut out = String::with_capacity(NEWEST.len() + OLDER.len());
    for (name, entry) in list {
        out.push(if out.is_empty() { '{' } else { ',' });
        out.push_str(&Value::from(name.as_ref()).to_string());
        out.push(':');
        out.push_str(entry.get());
    }
    out.push('}');
    out.into_bytes()
}

/// What is known of a model: by its base model, else by its name, each with the brand in front and without.
pub fn facts(litellm_model: &str, brand: &str, base_model: Option<&str>) -> Map<String, Value> {
    let names = [base_model, Some(litellm_model)];
    let found = names.into_iter().flatten().find_map(|name| {
        let bare = name.strip_prefix(brand).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name);
        let models = models();
        models.get(format!("{brand}/{bare}").as_str()).or_else(|| models.get(bare))
    });
    found.and_then(|entry| serde_json::from_str(entry.get()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_is_whole() {
        let all: Map<String, Value> = serde_json::from_slice(&all()).unwrap();
        assert!(all.len() > 4_900, "{}", all.len());
        assert!(all.contains_key("gpt-4o") && all.contains_key("claude-3-5-sonnet-20241022"));
        assert!(!all.contains_key("sample_spec"));
    }

    #[test]
    fn facts_are_found_by_every_name() {
        for (model, brand, base, vision) in [
            ("openai/gpt-4o", "openai", None, true),
            ("gpt-4o", "openai", None, true),
            ("azure/mine", "azure", Some("azure/gpt-4o"), true),
            ("azure/mine", "azure", None, false),
        ] {
            let facts = facts(model, brand, base);
            assert_eq!(facts.get("supports_vision") == Some(&Value::Bool(true)), vision, "{model} {base:?}");
        }
    }
}
