//! A hundred thousand calls for every strategy, in virtual time: which deployment is chosen, how often, and that no limit is
//! passed.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::*;
use crate::core::{
    config::{self, Config},
    model::money::Money,
    quota::{Counts, Estimate, Reservation, Worker},
    random::Random,
    route::{latency::Sample, plan::Plan, world::Controls},
    store::Memory,
};

const CALLS: u64 = 100_000;
const ME: Worker = Worker(1);

/// A group `g` of deployments 0, 1, 2, …, and the calls that are under way.
struct Town {
    config: Config,
    shared: Memory,
    random: Random,
    now_ms: u64,
    beaten_ms: u64,
    flying: Vec<Option<(usize, Reservation)>>,
    /// When they end, and which they are.
    ends: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Town {
    fn new(params: &[&str], settings: &str) -> Town {
        let mut yaml = "model_list:\n".to_owned();
        for (at, params) in params.iter().enumerate() {
            yaml += &format!(
                "  - {{model_name: g, litellm_params: {{model: openai/m{at}, api_key: k{params}}}, model_info: {{id: d{at}}}}}\n"
            );
        }
        let yaml = format!("{yaml}router_settings: {{{settings}}}\n");
        let loaded = config::load(&yaml, &|_| None, &|_| None).unwrap_or_else(|e| panic!("{e:?}"));
        let shared = Memory::default();
        quota::prepare(&shared, [1, 2]);
        Town {
            config: loaded.config,
            shared,
            random: Random::new(5),
            now_ms: 1_795_264_576_000,
            beaten_ms: 0,
            flying: Vec::new(),
            ends: BinaryHeap::new(),
        }
    }

    /// Time goes on, and calls that are over are settled with so many tokens.
    fn pass(&mut self, ms: u64, tokens: u64) {
        self.now_ms += ms;
        if self.now_ms - self.beaten_ms >= 1_000 {
            quota::heartbeat(&self.shared, ME, self.now_ms);
            self.beaten_ms = self.now_ms;
        }
        while self.ends.peek().is_some_and(|Reverse((end, _))| *end <= self.now_ms) {
            let Reverse((_, call)) = self.ends.pop().unwrap();
            let (_, reservation) = self.flying[call].take().unwrap();
            reservation.settle(&self.shared, tokens, Money::ZERO, self.now_ms);
        }
    }

    /// The order for a call.
    fn order(&mut self, call: RoutingInput) -> Result<Vec<usize>, Error> {
        let mut world = World {
            config: &self.config,
            shared: &self.shared,
            now_ms: self.now_ms,
            random: &mut self.random,
            worker: ME,
            trace: None,
        };
        let plan = Plan::new("g", Controls { call, ..Controls::default() }, &mut world)?;
        Ok(plan.segment().unwrap().order.clone())
    }

    /// Makes a call at the first deployment that lets it in; it ends after as many milliseconds as `takes` says.
    fn call(&mut self, call: RoutingInput, takes: impl Fn(usize) -> u64) -> Option<usize> {
        let estimate = Estimate { tokens: call.prompt_tokens, ..Estimate::default() };
        for at in self.order(call).ok()? {
            let rules = &self.config.deployments[at].rules;
            if let Ok(reservation) = quota::reserve(&self.shared, ME, rules, estimate, self.now_ms) {
                self.ends.push(Reverse((self.now_ms + takes(at), self.flying.len())));
                self.flying.push(Some((at, reservation)));
                return Some(at);
            }
        }
        None
    }

    fn counts(&self) -> Vec<Counts> {
        let rules = self.config.deployments.iter().map(|d| &d.rules[0].meter);
        quota::counts(&self.shared, rules, self.now_ms)
    }
}

/// In percent.
fn shares(counts: &[u64]) -> Vec<f64> {
    let sum: u64 = counts.iter().sum();
    counts.iter().map(|&count| count as f64 * 100.0 / sum as f64).collect()
}

fn near(shares: &[f64], expected: &[f64]) -> bool {
    shares.iter().zip(expected).all(|(share, expected)| (share - expected).abs() < 1.0)
}

#[test]
fn least_busy_takes_any_of_the_least_busy() {
    let mut town = Town::new(&["", "", ""], "routing_strategy: least-busy");
    let takes = |at: usize| [100, 200, 400][at];
    let mut served = [0_u64; 3];
    for _ in 0..CALLS {
        let pause = town.random.bits() % 40;
        town.pass(pause, 10);
        let busy: Vec<u64> = town.counts().iter().map(|counts| counts.parallel).collect();
        let order = town.order(RoutingInput::default()).unwrap();
        assert!(order.is_sorted_by_key(|&at| busy[at]), "{order:?} of {busy:?}");
        let called = town.call(RoutingInput::default(), takes).unwrap();
        assert_eq!(Some(&busy[called]), busy.iter().min(), "{busy:?}");
        served[called] += 1;
    }
    assert!(served.is_sorted_by(|a, b| a > b), "the quicker serve more: {served:?}");
    assert!(shares(&served)[2] > 5.0, "{served:?}");
    town.pass(1_000, 10);
    assert!(town.counts().iter().all(|counts| counts.parallel == 0));
}

#[test]
fn least_busy_spreads_calls_that_come_one_at_a_time() {
    let mut town = Town::new(&["", "", ""], "routing_strategy: least-busy");
    let mut served = [0_u64; 3];
    for _ in 0..300 {
        town.pass(1_000, 10);
        served[town.call(RoutingInput::default(), |_| 10).unwrap()] += 1;
    }
    assert!(served.iter().all(|&count| count > 50), "{served:?}");
}

#[test]
fn least_busy_counts_what_other_gateways_have() {
    let mut town = Town::new(&["", ""], "routing_strategy: least-busy");
    town.pass(1_000, 0);
    let first = town.call(RoutingInput::default(), |_| 100).unwrap();
    town.pass(200, 0);
    let told: Vec<_> = quota::open_rates(&town.shared, town.now_ms)
        .into_iter()
        .map(|rate| crate::core::model::rate::Rate { parallel: 4, ..rate })
        .collect();
    assert_eq!(told.len(), 1, "the ledger is told of meters that only a strategy goes by");
    quota::set_remote(&town.shared, &told, town.now_ms);
    assert_eq!(town.call(RoutingInput::default(), |_| 100), Some(1 - first), "the first is busy elsewhere");
    let mut later = (0..50).map(|_| {
        town.pass(6_000, 0);
        town.call(RoutingInput::default(), |_| 100)
    });
    assert!(later.any(|at| at == Some(first)), "what nobody repeats is forgotten");
}

#[test]
fn usage_that_only_other_gateways_have_counts() {
    let mut town = Town::new(&["", ""], "routing_strategy: usage-based-routing-v2");
    town.pass(1_000, 0);
    let first = &town.config.deployments[0].rules[0].meter;
    let rate = crate::core::model::rate::Rate {
        meter: first.hex(),
        window_ms: town.now_ms,
        tokens: 1_000,
        place: true,
        ..Default::default()
    };
    quota::set_remote(&town.shared, &[rate], town.now_ms);
    for _ in 0..9 {
        assert_eq!(town.call(RoutingInput::default(), |_| 100), Some(1), "the first was used elsewhere");
        town.pass(200, 0);
    }
}

#[test]
fn usage_takes_the_fewest_tokens_within_the_limits() {
    let params = [", rpm: 20, max_parallel_requests: 1000", ", tpm: 20000, max_parallel_requests: 1000", ""];
    for strategy in ["usage-based-routing", "usage-based-routing-v2"] {
        let mut town = Town::new(&params, &format!("routing_strategy: {strategy}"));
        let mut served = [0_u64; 3];
        // When the window of the first began, and how many it has taken in it.
        let (mut window_ms, mut taken) = (0, 0);
        for _ in 0..CALLS {
            let pause = town.random.bits() % 1_000;
            town.pass(pause, 500);
            let prompt_tokens = 50 + town.random.bits() % 400;
            let call = RoutingInput { prompt_tokens, ..RoutingInput::default() };
            let before = town.counts();
            let has_room = |at: usize| match at {
                0 => before[0].requests < 20,
                1 => before[1].tokens + prompt_tokens <= 20_000,
                _ => true,
            };
            let least = (0..3).filter(|&at| has_room(at)).map(|at| before[at].tokens).min().unwrap();
            let at = town.call(call, |_| 700).unwrap();
            assert!(has_room(at) && before[at].tokens == least, "{at} of {before:?}");
            served[at] += 1;
            if at == 0 {
                if town.now_ms - window_ms >= 60_000 {
                    (window_ms, taken) = (town.now_ms, 0);
                }
                taken += 1;
                assert!(taken <= 20, "more than 20 requests in a minute");
            }
            // What is in flight may use more than its prompt; nothing is let in beyond the limit.
            assert!(town.counts()[1].tokens <= 20_000 + 3 * 500);
        }
        assert!(served.iter().all(|&served| served > 10_000), "{served:?}");
    }
}

#[test]
fn usage_draws_among_equals() {
    let mut town = Town::new(&["", "", ""], "routing_strategy: usage-based-routing-v2");
    let mut served = [[0_u64; 3]; 2];
    for _ in 0..CALLS {
        let order = town.order(RoutingInput::default()).unwrap();
        served[0][order[0]] += 1;
        served[1][order[1]] += 1;
    }
    for served in served {
        assert!(near(&shares(&served), &[33.3; 3]), "{served:?}");
    }
}

#[test]
fn latency_takes_the_quickest_and_follows_them() {
    let plain = |streaming| RoutingInput { streaming, ..RoutingInput::default() };
    let mut town = Town::new(&["", "", ""], "routing_strategy: latency-based-routing");
    let mut quick = [50, 100, 200];
    let mut served = [0_u64; 3];
    for call in 0..CALLS {
        let at = town.order(plain(false)).unwrap()[0];
        served[at] += 1;
        town.now_ms += 10;
        let sample = Sample::of(quick[at], None, 1);
        let args = town.config.router.latency;
        latency::note(&town.shared, &town.config.deployments[at], sample, &args, town.now_ms);
        if call == CALLS / 2 {
            assert!(served[1] == 1 && served[2] == 1, "each is tried once: {served:?}");
            quick = [300, 100, 200];
        }
    }
    assert!(served[0] > 50_000 && served[0] < 50_020 && served[1] > 49_900, "{served:?}");
    // The others are in order behind: of the first, few slow answers are known.
    assert_eq!(town.order(plain(false)).unwrap(), [1, 0, 2]);
    // A timeout counts for much.
    let args = town.config.router.latency;
    latency::note(&town.shared, &town.config.deployments[1], Sample::timed_out(), &args, town.now_ms);
    assert_eq!(town.order(plain(false)).unwrap(), [0, 2, 1]);
    // After an hour without calls no latency is known.
    town.now_ms += 3_600_000;
    let mut firsts = [0_u64; 3];
    for _ in 0..CALLS {
        firsts[town.order(plain(false)).unwrap()[0]] += 1;
    }
    assert!(near(&shares(&firsts), &[33.3; 3]), "{firsts:?}");
}

#[test]
fn latency_has_a_buffer_and_its_own_list_for_streams() {
    let settings = "routing_strategy: latency-based-routing, routing_strategy_args: {lowest_latency_buffer: 0.5, max_latency_list_size: 2}";
    let mut town = Town::new(&["", "", ""], settings);
    let args = town.config.router.latency;
    // (whole, first part) of the newest two; what came before is forgotten.
    for (at, (whole, first)) in [(100, 30), (150, 20), (151, 10)].into_iter().enumerate() {
        for whole in [9_999, whole, whole] {
            let sample = Sample::of(whole, Some(first), 1);
            latency::note(&town.shared, &town.config.deployments[at], sample, &args, town.now_ms);
        }
    }
    let mut served = [[0_u64; 3]; 2];
    for _ in 0..CALLS {
        for (streaming, served) in [false, true].into_iter().zip(&mut served) {
            served[town.order(RoutingInput { streaming, ..RoutingInput::default() }).unwrap()[0]] += 1;
        }
    }
    assert!(near(&shares(&served[0]), &[50.0, 50.0, 0.0]) && served[0][2] == 0, "{served:?}");
    assert_eq!(served[1], [0, 0, CALLS], "streams go by their first part");
    // Long answers do not look slow.
    assert_eq!(Sample::of(1_000, Some(100), 500), Sample { whole_ns: 2_000_000, first_ns: Some(200_000) });
    assert_eq!(Sample::of(10, None, 0), Sample { whole_ns: 10_000_000, first_ns: None });
}

#[test]
fn cost_takes_the_cheapest_that_has_room() {
    let params = [
        ", input_cost_per_token: 0.000002, output_cost_per_token: 0.000002",
        ", input_cost_per_token: 0.000001, output_cost_per_token: 0.000001, rpm: 10, max_parallel_requests: 1000",
        ", input_cost_per_token: 0.000003, output_cost_per_token: 0.000001",
        "",
    ];
    let mut town = Town::new(&params, "routing_strategy: cost-based-routing");
    let mut served = [0_u64; 4];
    let (mut window_ms, mut taken) = (0, 0);
    for _ in 0..CALLS {
        let pause = town.random.bits() % 1_000;
        town.pass(pause, 10);
        let full = town.now_ms - window_ms < 60_000 && taken == 10;
        let at = town.call(RoutingInput::default(), |_| 100).unwrap();
        assert_eq!(at, if full { 0 } else { 1 });
        served[at] += 1;
        if at == 1 {
            if town.now_ms - window_ms >= 60_000 {
                (window_ms, taken) = (town.now_ms, 0);
            }
            taken += 1;
        }
    }
    assert!(served[0] > 50_000 && served[1] > 8_000, "{served:?}");
    town.now_ms += 60_000;
    // Equal prices in the order of the file, unknown ones last.
    assert_eq!(town.order(RoutingInput::default()).unwrap(), [1, 0, 2, 3]);
}

#[test]
fn cost_is_the_price_lists_where_nothing_is_set() {
    let yaml = "model_list:\n\
        - {model_name: g, litellm_params: {model: openai/gpt-4, api_key: k}}\n\
        - {model_name: g, litellm_params: {model: azure/mine, api_base: 'http://h', api_key: k}, model_info: {base_model: azure/gpt-4o-mini}}\n\
        - {model_name: g, litellm_params: {model: gpt-4o, api_key: k}}\n\
        router_settings: {routing_strategy: cost-based-routing}\n";
    let mut town = Town::new(&[""], "");
    town.config = config::load(yaml, &|_| None, &|_| None).unwrap().config;
    assert_eq!(town.order(RoutingInput::default()).unwrap(), [1, 2, 0]);
}
