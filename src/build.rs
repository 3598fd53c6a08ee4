//! Build script: puts the price table and, for the command, the built filter module where `include_bytes!` finds them.

#![expect(clippy::expect_used, reason = "a build script reports by failing")]
#![expect(clippy::disallowed_methods, reason = "cargo tells a build script everything in its environment")]

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

// The table is made with the code that reads it; most of it is of no use here. The modules have the names that they have in
// the library, so that their own paths fit.
#[allow(dead_code)]
mod core {
    pub mod cost {
        pub mod price;
    }
    pub mod model {
        pub mod abilities;
        pub mod money;
        pub mod terms;
        pub mod usage;
    }
}

use crate::core::{
    cost::price::{Price, write_varint},
    model::abilities::Abilities,
};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));

    // The command carries the filter inside itself. `make build` builds the module first; a plain `cargo build`
    // without it still works, and the command then says what to run instead of starting.
    // The filter itself does not: it would be built again whenever it has been built.
    let is_wasm = env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("wasm32");
    if env::var_os("CARGO_FEATURE_COMMAND").is_some() && !is_wasm {
        for (built, name) in [
            ("target/wasm32-wasip1/wasm/tollgate.wasm", "tollgate.wasm"),
            ("target/module/libtollgate.so", "libtollgate.so"),
        ] {
            let module = root.join(built);
            println!("cargo:rerun-if-changed={}", module.display());
            let bytes = fs::read(&module).unwrap_or_default();
            fs::write(out.join(name), bytes).expect("OUT_DIR is writable");
        }
    }

    for source in ["src/build.rs", "src/core/cost", "src/core/model"] {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
    }
    write_prices(&root.join("src/core/cost/data"), &out);
}

/// Compacts the price data into the five files that `core/cost/table.rs` describes and reads.
fn write_prices(data: &Path, out: &Path) {
    let mut models: BTreeMap<String, (Value, Abilities)> = BTreeMap::new();
    // Newest first: an older file only adds models that are no longer listed.
    for (file, newest) in
        [("model_prices.json", Abilities::LISTED), ("model_prices_2025-08.json", Abilities::NONE)]
    {
        let text = fs::read(data.join(file)).expect("the price data is part of the sources");
        let listed: Map<String, Value> =
            serde_json::from_slice(&text).expect("the price data is a JSON object");
        for (name, model) in listed {
            if model.get("litellm_provider").is_some() && name != "sample_spec" {
                models.entry(name).or_insert((model, newest));
            }
        }
    }

    let (mut names, mut blocks, mut entries, mut rates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut words: Vec<String> = Vec::new();
    let mut rows: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut previous = "";
    for (at, (name, (model, newest))) in models.iter().enumerate() {
        // In blocks of 16 names, each but the first stands as (bytes shared with the name before, the rest).
        let mut shared = 0;
        if at % 16 == 0 {
            push_u32(&mut blocks, names.len());
        } else {
            shared = name.bytes().zip(previous.bytes()).take_while(|(a, b)| a == b).count();
        }
        let rest = name.as_bytes().get(shared..).expect("shared is a prefix");
        write_varint(&mut names, shared as u64);
        write_varint(&mut names, rest.len() as u64);
        names.extend_from_slice(rest);
        previous = name;

        let mut row = Vec::new();
        for limit in [limit(model, "max_input_tokens"), limit(model, "max_output_tokens")] {
            // 0 is "not told".
            write_varint(&mut row, limit.map_or(0, |n| n + 1));
        }
        for word in ["mode", "litellm_provider"] {
            let word = model.get(word).and_then(Value::as_str).unwrap_or("");
            let index = words.iter().position(|w| w == word).unwrap_or_else(|| {
                words.push(word.to_owned());
                words.len() - 1
            });
            write_varint(&mut row, index as u64);
        }
        let rests = model.get("default_reasoning_effort").and_then(Value::as_str) == Some("none");
        let abilities = Abilities::told(|flag| model.get(flag)?.as_bool(), rests);
        write_varint(&mut row, abilities.and(*newest).bits());
        read_price(name, model).encode(&mut row);
        let offset = *rows.entry(row).or_insert_with_key(|row| {
            rates.extend_from_slice(row);
            rates.len() - row.len()
        });
        push_u32(&mut entries, offset);
    }

    let write = |name: &str, bytes: &[u8]| fs::write(out.join(name), bytes).expect("OUT_DIR is writable");
    write("names.bin", &names);
    write("blocks.bin", &blocks);
    write("entries.bin", &entries);
    write("rates.bin", &rates);
    write("words.txt", words.join("\n").as_bytes());
}

fn read_price(name: &str, model: &Value) -> Price {
    let mut price = Price::default();
    let model = model.as_object().expect("a model is an object");
    // The first range is the base; a later one holds above its lower end.
    for range in model.get("tiered_pricing").and_then(Value::as_array).into_iter().flatten() {
        let from = range
            .pointer("/range/0")
            .map_or(0.0, |n| number(n).parse::<f64>().expect("a range is of numbers"));
        for (field, rate) in range.as_object().into_iter().flatten() {
            price.set_above(field, from as u64, &number(rate));
        }
    }
    let searches = model.get("search_context_cost_per_query").and_then(Value::as_object);
    for (field, rate) in searches.into_iter().flatten() {
        // Most providers charge the same for every size; what is missing is the medium one's.
        if field == "search_context_size_medium"
            || searches.and_then(|s| s.get("search_context_size_medium")) != Some(rate)
        {
            price.set(field, &number(rate));
        }
    }
    let factors = model.get("provider_specific_entry").and_then(Value::as_object);
    for (name, factor) in factors.into_iter().flatten() {
        price.set(&format!("provider_specific_entry.{name}"), &number(factor));
    }
    for (field, rate) in model {
        // Where both say the same, the second is priced once.
        let twice = field == "output_cost_per_second" && model.get("input_cost_per_second") == Some(rate);
        let known = twice || price.set(field, &number(rate));
        assert!(known || !is_needed(field), "{name}: {field} is no price: {rate}");
    }
    price
}

/// Rates whose loss would go unnoticed otherwise.
fn is_needed(field: &str) -> bool {
    ["input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost"].contains(&field)
}

/// The digits of a number that may be written as text.
fn number(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn limit(model: &Value, field: &str) -> Option<u64> {
    // `max_tokens` is the old name of the output limit.
    let value =
        model.get(field).or_else(|| model.get("max_tokens").filter(|_| field == "max_output_tokens"))?;
    let digits = number(value);
    digits.parse().ok().or_else(|| digits.parse::<f64>().ok().map(|n| n as u64))
}

fn push_u32(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&u32::try_from(number).expect("the table is small").to_le_bytes());
}
