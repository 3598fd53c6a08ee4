//! What all fuzz tests share: how many cases they try, from which seed, and chance in small numbers.
//!
//! `make test` always tries the same cases. `TOLLGATE_FUZZ_TIMES` makes so many times more of them, `TOLLGATE_FUZZ_SEED` makes
//! others; `make fuzz` sets both.

use super::random::Random;

#[allow(clippy::disallowed_methods, reason = "whoever runs the tests says how many cases there are")]
fn set(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// How many cases to try where `least` are enough for every run of the tests.
pub fn cases(least: usize) -> usize {
    let times = set("TOLLGATE_FUZZ_TIMES").and_then(|times| usize::try_from(times).ok());
    least.saturating_mul(times.unwrap_or(1))
}

/// The chance of one test.
pub fn chance(seed: u64) -> Random {
    Random::new(seed ^ set("TOLLGATE_FUZZ_SEED").unwrap_or(0))
}

/// A number in `0..most`.
pub fn below(random: &mut Random, most: usize) -> usize {
    usize::try_from(random.bits() % u64::try_from(most.max(1)).unwrap()).unwrap()
}
