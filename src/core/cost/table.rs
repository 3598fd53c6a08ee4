//! The price table: what is known of a model by its name in LiteLLM's price data.
//!
//! The build script compacts the data (the newest, with what older lists still knew) into five byte strings that are part
//! of the program. Nothing is built at start and nothing allocated until a name is looked up:
//!
//! - `names.bin`: all names, sorted, in blocks of 16. Each name is two varints (bytes shared with the name before it in
//!   its block, further bytes) and the further bytes.
//! - `blocks.bin`: where each block starts, as little-endian `u32`.
//! - `entries.bin`: for each name, where its row starts, as little-endian `u32`.
//! - `rates.bin`: rows, each kept once: two varints for the limits (0 for none, else one more), two varints for the words, one for
//!   the abilities, and the rates as [`Price::encode`] writes them.
//! - `words.txt`: modes and providers, one a line.

use super::price::{Price, read_varint};
use crate::core::model::abilities::Abilities;

/// What is known of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    /// The model's rates.
    pub price: Price,
    /// Longest prompt.
    pub max_input_tokens: Option<u64>,
    /// Longest answer.
    pub max_output_tokens: Option<u64>,
    /// `chat`, `embedding`, …
    pub mode: Option<&'static str>,
    /// The provider in LiteLLM's spelling.
    pub litellm_provider: Option<&'static str>,
    /// What it can do.
    pub abilities: Abilities,
}

/// Finds a model by its exact name in the price data.
pub fn lookup(name: &str) -> Option<ModelFacts> {
    let mut row = RATES.get(row_of(name)?..)?;
    let mut limit = || Some(read_varint(&mut row)?.checked_sub(1));
    let (max_input_tokens, max_output_tokens) = (limit()?, limit()?);
    let mut word = || Some(WORDS.split('\n').nth(read_varint(&mut row)? as usize).filter(|w| !w.is_empty()));
    let (mode, litellm_provider) = (word()?, word()?);
    let abilities = Abilities::from_bits(read_varint(&mut row)?);
    Some(ModelFacts {
        price: Price::decode(row)?,
        max_input_tokens,
        max_output_tokens,
        mode,
        litellm_provider,
        abilities,
    })
}

/// What a model of a brand can do: as it is listed with the brand before it, or by its own name if that is the brand's. `None` says
/// that it is not listed.
pub fn abilities(brand: &str, model: &str) -> Option<Abilities> {
    let own = || lookup(model).filter(|facts| facts.litellm_provider == Some(brand));
    let facts = lookup(&format!("{brand}/{model}")).or_else(own)?;
    facts.abilities.has(Abilities::LISTED).then_some(facts.abilities)
}

/// The price of a call.
///
/// `base_model` is tried first, then the model that the response names, then the configured `litellm_model`; each with
/// the brand's prefix, then without, then (Bedrock) without the region group in front, then (fine-tuned models) as the
/// model it was made from. The first that has a rate counts; `None` means that the cost is not known.
pub fn price_for(
    litellm_model: &str,
    brand: &str,
    base_model: Option<&str>,
    answered_model: Option<&str>,
) -> Option<Price> {
    entry_for(litellm_model, brand, base_model, answered_model).map(|entry| entry.price)
}

/// The entry [`price_for`] takes the price from (limits and mode for `/model/info`).
pub fn entry_for(
    litellm_model: &str,
    brand: &str,
    base_model: Option<&str>,
    answered_model: Option<&str>,
) -> Option<ModelFacts> {
    let models = [base_model, answered_model, Some(litellm_model)];
    models.into_iter().flatten().filter(|model| !model.is_empty()).find_map(|model| {
        let bare = model.strip_prefix(brand).and_then(|m| m.strip_prefix('/')).unwrap_or(model);
        let known = |name: &str| lookup(name).filter(|entry| entry.price.is_known());
        let named = |model: &str| known(&format!("{brand}/{model}")).or_else(|| known(model));
        named(bare)
            .or_else(|| named(without_region(bare).filter(|_| brand.starts_with("bedrock"))?))
            .or_else(|| named(fine_tuned_from(bare)?))
    })
}

/// `us.anthropic.claude…` is `anthropic.claude…` through a group of regions.
fn without_region(model: &str) -> Option<&str> {
    let (region, model) = model.split_once('.')?;
    ["us", "eu", "apac", "au", "jp", "ca", "us-gov", "global"].contains(&region).then_some(model)
}

/// `ft:gpt-4o-mini-2024-07-18:organisation::id` is priced as `ft:gpt-4o-mini-2024-07-18`.
fn fine_tuned_from(model: &str) -> Option<&str> {
    let (base, _) = model.strip_prefix("ft:")?.split_once(':')?;
    model.get(..3 + base.len())
}

/// Every name whose provider (in LiteLLM's spelling) is wanted, in alphabetical order.
pub fn names_of(wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let words: Vec<bool> = WORDS.split('\n').map(wanted).collect();
    let is_wanted = |at: usize| {
        let mut row = u32_at(ENTRIES, at).and_then(|row| RATES.get(row..))?;
        // Two limits and the mode stand before the provider.
        let mut provider = None;
        for _ in 0..4 {
            provider = Some(read_varint(&mut row)?);
        }
        words.get(provider? as usize).copied()
    };
    let mut names = Vec::new();
    for block in 0..BLOCKS.len() / 4 {
        let Some(mut bytes) = u32_at(BLOCKS, block).and_then(|start| NAMES.get(start..)) else { continue };
        let mut name = Vec::with_capacity(64);
        for at in block * NAMES_PER_BLOCK..((block + 1) * NAMES_PER_BLOCK).min(ENTRIES.len() / 4) {
            if read_name(&mut bytes, &mut name).is_none() {
                break;
            }
            if is_wanted(at) == Some(true) {
                names.extend(String::from_utf8(name.clone()));
            }
        }
    }
    names
}

/// Where the row of `name` starts.
fn row_of(name: &str) -> Option<usize> {
    // The last block that starts at or before the name.
    let (mut low, mut high) = (0, BLOCKS.len() / 4);
    while low < high {
        let middle = low.midpoint(high);
        if first_of(middle)? <= name.as_bytes() {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let block = low.checked_sub(1)?;
    let mut names = NAMES.get(u32_at(BLOCKS, block)?..)?;
    let mut read = Vec::with_capacity(64);
    for at in 0..NAMES_PER_BLOCK {
        read_name(&mut names, &mut read)?;
        if read == name.as_bytes() {
            return u32_at(ENTRIES, block * NAMES_PER_BLOCK + at);
        }
    }
    None
}

/// The first name of a block, which stands there whole.
fn first_of(block: usize) -> Option<&'static [u8]> {
    let mut bytes = NAMES.get(u32_at(BLOCKS, block)?..)?;
    let _shared = read_varint(&mut bytes)?;
    let length = read_varint(&mut bytes)? as usize;
    bytes.get(..length)
}

/// Makes the next name out of the one before it.
fn read_name(bytes: &mut &[u8], name: &mut Vec<u8>) -> Option<()> {
    name.truncate(read_varint(bytes)? as usize);
    let length = read_varint(bytes)? as usize;
    let (rest, after) = bytes.split_at_checked(length)?;
    name.extend_from_slice(rest);
    *bytes = after;
    Some(())
}

fn u32_at(table: &[u8], at: usize) -> Option<usize> {
    let bytes = table.get(at * 4..at * 4 + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
}

const NAMES_PER_BLOCK: usize = 16;

static NAMES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/names.bin"));
static BLOCKS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/blocks.bin"));
static ENTRIES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/entries.bin"));
static RATES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rates.bin"));
static WORDS: &str = include_str!(concat!(env!("OUT_DIR"), "/words.txt"));

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::core::model::{money::Money, terms::Terms, usage::Usage};

    fn data(file: &str) -> serde_json::Map<String, Value> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/core/cost/data/");
        serde_json::from_slice(&std::fs::read(format!("{folder}{file}")).unwrap()).unwrap()
    }

    #[test]
    fn every_model_of_the_data_is_found_with_its_rates() {
        let (new, old) = (data("model_prices.json"), data("model_prices_2025-08.json"));
        let mut seen = 0;
        for (name, model) in new.iter().chain(old.iter().filter(|(name, _)| !new.contains_key(*name))) {
            if name == "sample_spec" || model.get("litellm_provider").is_none() {
                continue;
            }
            let entry = lookup(name).unwrap_or_else(|| panic!("{name}"));
            seen += 1;
            assert_eq!(entry.mode, model.get("mode").and_then(Value::as_str), "{name}");
            assert_eq!(entry.litellm_provider, model["litellm_provider"].as_str(), "{name}");
            if model.get("tiered_pricing").is_some() {
                continue;
            }
            let fields: std::collections::HashMap<_, _> = entry.price.fields().into_iter().collect();
            for field in [
                "input_cost_per_token",
                "output_cost_per_token_above_272k_tokens",
                "input_cost_per_token_flex",
                "output_cost_per_token_priority",
                "cache_read_input_token_cost_priority",
                "input_cost_per_token_above_200k_tokens_priority",
                "output_cost_per_token_above_272k_tokens_flex",
                "cache_creation_input_token_cost_above_1hr_above_200k_tokens",
                "cache_read_input_audio_token_cost",
                "citation_cost_per_token",
            ] {
                let told = model.get(field).and_then(Value::as_f64);
                let read = fields.get(field).map(|text| text.parse::<f64>().unwrap());
                assert_eq!(told.is_some(), read.is_some(), "{name} {field}");
                let error = told.unwrap_or(0.0) - read.unwrap_or(0.0);
                assert!(error.abs() < 1e-18, "{name} {field}");
            }
        }
        assert!(seen > 4_900, "{seen}");
    }

    #[test]
    fn known_models_to_the_last_digit() {
        let rows: [(&str, &[(&str, &str)]); 5] = [
            (
                "gpt-4o",
                &[
                    ("input_cost_per_token", "0.0000025"),
                    ("output_cost_per_token", "0.00001"),
                    ("cache_read_input_token_cost", "0.00000125"),
                ],
            ),
            (
                "text-embedding-3-small",
                &[("input_cost_per_token", "0.00000002"), ("output_cost_per_token", "0")],
            ),
            ("whisper-1", &[("input_cost_per_second", "0.0001")]),
            // Only the older list has it.
            (
                "claude-3-5-sonnet-20241022",
                &[
                    ("input_cost_per_token", "0.000003"),
                    ("output_cost_per_token", "0.000015"),
                    ("cache_read_input_token_cost", "0.0000003"),
                    ("cache_creation_input_token_cost", "0.00000375"),
                ],
            ),
            (
                "novita/nvidia/nemotron-3-nano-30b-a3b",
                &[("input_cost_per_token", "0.00000005"), ("output_cost_per_token", "0.0000002")],
            ),
        ];
        for (name, expected) in rows {
            let fields = lookup(name).unwrap().price.fields();
            for (field, rate) in expected {
                let found = fields.iter().find(|(name, _)| name == field).map(|(_, rate)| rate.as_str());
                assert_eq!(found, Some(*rate), "{name} {field}");
            }
        }
        let entry = lookup("gpt-4o").unwrap();
        assert_eq!((entry.max_input_tokens, entry.max_output_tokens), (Some(128_000), Some(16_384)));
        assert_eq!((entry.mode, entry.litellm_provider), (Some("chat"), Some("openai")));
    }

    #[test]
    fn the_names_of_a_provider() {
        let mut told = 0;
        for provider in ["anthropic", "openai", "groq", "bedrock_converse"] {
            let names = names_of(|word| word == provider);
            assert!(names.is_sorted() && names.len() > 10, "{provider} {names:?}");
            let is_its = |name: &String| lookup(name).unwrap().litellm_provider == Some(provider);
            assert!(names.iter().all(is_its));
            told += names.len();
        }
        let all = names_of(|word| ["anthropic", "openai", "groq", "bedrock_converse"].contains(&word));
        assert_eq!(all.len(), told);
        assert_eq!(names_of(|_| false), [""; 0]);
    }

    #[test]
    fn unknown_names_are_not_found() {
        for name in ["", " ", "\u{10ffff}", "gpt-4", "gpt-4o-", "sample_spec", "zzzzzz", "GPT-4O", "\0"] {
            assert_eq!(lookup(name).is_some(), name == "gpt-4", "{name}");
        }
    }

    #[test]
    fn which_entry_prices_a_call() {
        let rows = [
            // (litellm_model, brand, base_model, answered) is priced as
            (("openai/gpt-4o", "openai", None, Some("gpt-4o-2024-08-06")), Some("gpt-4o-2024-08-06")),
            (("openai/gpt-4o", "openai", None, None), Some("gpt-4o")),
            (("openai/gpt-4o", "openai", None, Some("")), Some("gpt-4o")),
            (("gpt-4o", "openai", None, Some("no-such-model")), Some("gpt-4o")),
            (("azure/my-deployment", "azure", Some("azure/gpt-4o"), Some("gpt-4")), Some("azure/gpt-4o")),
            (("azure/my-deployment", "azure", Some("gpt-4o"), None), Some("azure/gpt-4o")),
            (("azure/my-deployment", "azure", None, Some("gpt-4o")), Some("azure/gpt-4o")),
            (("azure/my-deployment", "azure", None, None), None),
            (("anthropic/claude-sonnet-4-5", "anthropic", None, None), Some("claude-sonnet-4-5")),
            (
                ("groq/llama-3.3-70b-versatile", "groq", None, Some("llama-3.3-70b-versatile")),
                Some("groq/llama-3.3-70b-versatile"),
            ),
            (("bedrock/xx.anthropic.claude-3-haiku-20240307-v1:0", "bedrock", None, None), None),
            (
                ("bedrock/jp.anthropic.claude-3-haiku-20240307-v1:0", "bedrock", None, None),
                Some("anthropic.claude-3-haiku-20240307-v1:0"),
            ),
            (("ft:gpt-4o-mini-2024-07-18:org::abc", "openai", None, None), Some("ft:gpt-4o-mini-2024-07-18")),
            (("openai/ft:gpt-4o-2024-08-06:o:n:i", "openai", None, None), Some("ft:gpt-4o-2024-08-06")),
            (("openai/\u{e9}", "openai", None, Some("\u{1f600}")), None),
        ];
        for ((model, brand, base, answered), expected) in rows {
            let expected = expected.map(|name| lookup(name).unwrap_or_else(|| panic!("{name}")).price);
            assert_eq!(price_for(model, brand, base, answered), expected, "{model} {base:?} {answered:?}");
        }
    }

    #[test]
    fn larger_prompts_pay_their_tier_for_every_token() {
        let price = lookup("gpt-5.4").unwrap().price;
        let cost = |prompt, cached, completion| {
            let usage = Usage {
                prompt_tokens: prompt,
                cached_tokens: cached,
                completion_tokens: completion,
                ..Usage::default()
            };
            price.cost(&usage, &Terms::default(), None)
        };
        // 2.5e-06 in, 1.5e-05 out; above 272k 5e-06, 2.25e-05 and 5e-07 for cached ones.
        assert_eq!(cost(272_000, 0, 10), Money::parse("0.68015").unwrap());
        assert_eq!(cost(272_001, 0, 10), Money::parse("1.36023").unwrap());
        assert_eq!(cost(300_000, 100_000, 0), Money::parse("1.05").unwrap());
    }

    #[test]
    fn the_table_is_small() {
        let size = NAMES.len() + BLOCKS.len() + ENTRIES.len() + RATES.len() + WORDS.len();
        assert!(size < 200_000, "{size}");
    }
}
