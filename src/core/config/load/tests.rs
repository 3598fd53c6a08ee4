//! Tests of loading as a whole.

use serde_json::json;

use super::*;
use crate::core::config::{Row, settings::Verdict};

const SEED: &str = include_str!("../../../../tests/fixtures/config/proxy_server_config.yaml");

fn load_with(text: &str, env: &[(&str, &str)]) -> Result<Loaded, Vec<Problem>> {
    let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
    let unseal = |text: &str| text.strip_prefix("ok+").map(str::to_owned);
    load(text, &env, &unseal)
}

fn config(text: &str) -> Config {
    load_with(text, &[]).unwrap_or_else(|problems| panic!("{problems:?}")).config
}

fn problems(text: &str) -> Vec<String> {
    load_with(text, &[]).unwrap_err().iter().map(Problem::to_string).collect()
}

#[test]
fn the_seed_loads_and_nothing_in_it_is_unknown() {
    let loaded = load_with(SEED, &[("OPENAI_API_KEY", "sk-o"), ("AZURE_API_KEY", "az")]).unwrap();
    let unknown: Vec<&Row> =
        loaded.report.rows.iter().filter(|row| row.verdict.name() == "unknown").collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    println!("{}", loaded.report);
}
