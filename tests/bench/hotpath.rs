//! Runs one scenario a number of times on the core, for tools that count instructions: `hotpath SCENARIO COUNT`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark ends at the first fault"
)]

#[path = "scenario.rs"]
mod scenario;

use scenario::{Gateway, NAMES, Scenario};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let [name, count] = words.as_slice() else {
        eprintln!("expected a scenario ({}) and a number of requests", NAMES.join(", "));
        std::process::exit(2);
    };
    let count: u32 = count.parse().expect("the number of requests is a number");
    let scenario = Scenario::named(name);
    let mut gateway = Gateway::new();
    for _ in 0..count {
        let record = gateway.call(&scenario);
        assert!(record.status == Some(200) && record.cost.is_some());
    }
}
