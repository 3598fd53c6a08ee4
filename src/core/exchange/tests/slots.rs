//! Limits and budgets of deployments and providers, over whole requests and between requests that run side by side.

use super::*;
use crate::core::{
    model::{meter::Meter, money::Money},
    quota::Counts,
};

/// A gateway of deployments `(group, name, litellm_params)`; the provider is OpenAI unless the name says otherwise.
fn rig(deployments: &[(&str, &str, &str)], settings: &str) -> Rig {
    let mut yaml = "model_list:\n".to_owned();
    for (group, name, params) in deployments {
        let model = if name.contains('/') { (*name).to_owned() } else { format!("openai/{name}") };
        let host = name.rsplit('/').next().unwrap();
        yaml += &format!(
            "  - {{model_name: {group}, litellm_params: {{model: {model}, api_base: \"http://{host}.test/v1\", api_key: k, \
             input_cost_per_token: 0.000001, output_cost_per_token: 0.000001{params}}}, model_info: {{id: {host}}}}}\n"
        );
    }
    Rig::new(&format!("{yaml}{settings}"))
}

/// A request whose body has been read.
struct Running {
    exchange: Exchange,
    begin: Next,
}

fn start(rig: &mut Rig, model: &str) -> Running {
    let headers = rig.headers("/v1/chat/completions");
    let config = Rc::clone(&rig.config);
    quota::heartbeat(&rig.shared, Worker(1), rig.now_ms);
    let Opened { exchange: Some(exchange), next: Next::ReadBody } = open(&config, &headers, &mut rig.env())
    else {
        panic!("a call is ours")
    };
    let mut running = Running { exchange: *exchange, begin: Next::Wait(0) };
    running.go_on(rig, model);
    running
}

impl Running {
    fn go_on(&mut self, rig: &mut Rig, model: &str) {
        self.begin = self.exchange.on_body(hello(model).to_string().as_bytes(), &mut rig.env());
    }

    /// Waits for a place, at most so long. True when the wait is over.
    fn wait(&mut self, rig: &mut Rig, most_ms: u64) -> bool {
        let until = rig.now_ms + most_ms;
        let Next::Wait(mut ms) = self.begin else { return true };
        while rig.now_ms < until {
            rig.now_ms += ms;
            quota::heartbeat(&rig.shared, Worker(1), rig.now_ms);
            match self.exchange.on_wait(&mut rig.env()) {
                Next::Wait(more) => ms = more,
                _ => return true,
            }
        }
        false
    }

    /// Where it is called, or its status, or that it waits.
    fn is(&self) -> String {
        match &self.begin {
            Next::Forward(Forward { cluster, .. }) => cluster.split('-').next().unwrap().to_owned(),
            Next::Reply(reply) => reply.status.to_string(),
            Next::Wait(_) => "waits".to_owned(),
            next => panic!("it begins or waits: {next:?}"),
        }
    }

    fn deployment(&self) -> String {
        let at = self.exchange.plan().unwrap().current().deployment;
        self.exchange.config.deployments[at].id.clone()
    }

    /// An attempt begins; the name of what comes after it, if anything.
    fn attempt(&mut self, rig: &mut Rig) -> Option<String> {
        let next = self.exchange.on_attempt(&mut rig.env()).next_cluster?;
        let found = self.exchange.config.deployments.iter().find(|d| d.cluster == next);
        found.map(|d| d.id.clone())
    }

    /// The provider answers the attempt with this status.
    fn answer(&mut self, rig: &mut Rig, status: u16) {
        let line = status.to_string();
        let headers =
            Headers::from_pairs(&[(":status", line.as_str()), ("content-type", "application/json")]);
        self.exchange.on_response_headers(headers, false, &mut rig.env());
        let body = if status == 200 { completion("x") } else { error("no", "x") };
        self.exchange.on_response_body(body.to_string().as_bytes(), true, &mut rig.env());
    }

    fn end(mut self, rig: &mut Rig) {
        self.exchange.on_done(&mut rig.env());
        // Being told twice that it is over changes nothing.
        self.exchange.on_done(&mut rig.env());
    }
}

fn counts(rig: &Rig, id: &str) -> Counts {
    let meter = Meter::named(&format!("deployment:{id}"));
    quota::counts(&rig.shared, std::iter::once(&meter), rig.now_ms)[0]
}

/// Requests in flight on each of these.
fn busy<const N: usize>(rig: &Rig, ids: [&str; N]) -> [u64; N] {
    ids.map(|id| counts(rig, id).parallel)
}

const ONE_AT_A_TIME: &str = ", max_parallel_requests: 1";

#[test]
fn who_finds_all_busy_waits_for_a_place() {
    let mut rig = rig(&[("a", "a1", ONE_AT_A_TIME), ("a", "a2", ONE_AT_A_TIME), ("b", "b1", "")], "");
    let first = start(&mut rig, "a");
    let second = start(&mut rig, "a");
    assert_ne!(first.deployment(), second.deployment(), "the order goes on to who has room");
    assert_eq!(busy(&rig, ["a1", "a2"]), [1, 1]);
    let mut third = start(&mut rig, "a");
    assert_eq!(third.is(), "waits");
    assert_eq!(start(&mut rig, "b").is(), "b", "others are not kept");
    assert!(!third.wait(&mut rig, 1_000), "as long as all are busy");
    let free = second.deployment();
    second.end(&mut rig);
    assert!(third.wait(&mut rig, 1_000));
    // The place is taken before the body is read again: nobody gets in between.
    assert_eq!(start(&mut rig, "a").is(), "waits");
    third.go_on(&mut rig, "a");
    assert_eq!((third.is().as_str(), third.deployment()), ("a", free));
    first.end(&mut rig);
    third.end(&mut rig);
    assert_eq!(busy(&rig, ["a1", "a2"]), [0, 0]);
}

#[test]
fn a_wait_ends_with_the_time_out() {
    let timed = ", max_parallel_requests: 1, timeout: 2";
    let mut alone = rig(&[("a", "a1", timed)], "");
    let mut other = rig(&[("a", "a1", timed), ("b", "b1", "")], "router_settings: {fallbacks: [{a: [b]}]}");
    for (rig, expected) in [(&mut alone, "408"), (&mut other, "b")] {
        let first = start(rig, "a");
        let mut second = start(rig, "a");
        assert!(!second.wait(rig, 1_990));
        assert!(second.wait(rig, 20));
        second.go_on(rig, "a");
        assert_eq!(second.is(), expected);
        if let Next::Reply(reply) = &second.begin {
            let text = String::from_utf8_lossy(&reply.body);
            assert!(text.contains("litellm.Timeout: APITimeoutError - Request timed out."), "{text}");
        }
        second.end(rig);
        first.end(rig);
        assert_eq!(busy(rig, ["a1"]), [0]);
    }
}

#[test]
fn who_leaves_while_waiting_takes_nothing() {
    let mut rig = rig(&[("a", "a1", ONE_AT_A_TIME)], "");
    let first = start(&mut rig, "a");
    let waiting = start(&mut rig, "a");
    let mut called = start(&mut rig, "a");
    waiting.end(&mut rig);
    first.end(&mut rig);
    assert!(called.wait(&mut rig, 1_000));
    // It leaves before its attempt begins: the provider has seen nothing of it.
    called.end(&mut rig);
    let counted = counts(&rig, "a1");
    assert_eq!((counted.parallel, counted.requests), (0, 0));
}

#[test]
fn a_lost_vm_gives_its_places_back() {
    let mut rig = rig(&[("a", "a1", ONE_AT_A_TIME)], "");
    quota::heartbeat(&rig.shared, Worker(2), rig.now_ms);
    let rules = rig.config.deployments[0].rules.clone();
    let lost = quota::reserve(&rig.shared, Worker(2), &rules, quota::Estimate::default(), rig.now_ms);
    std::mem::forget(lost);
    let mut waiting = start(&mut rig, "a");
    assert!(!waiting.wait(&mut rig, 4_900));
    assert!(waiting.wait(&mut rig, 200), "after five seconds of silence");
}

#[test]
fn a_place_goes_along_with_the_attempt() {
    let settings = "router_settings: {num_retries: 3, disable_cooldowns: true, fallbacks: [{a: [b]}]}";
    let mut rig = rig(&[("a", "a1", ONE_AT_A_TIME), ("a", "a2", ONE_AT_A_TIME), ("b", "b1", "")], settings);
    let mut call = start(&mut rig, "a");
    let first = call.deployment();
    let second = if first == "a1" { "a2" } else { "a1" }.to_owned();
    let held = |rig: &Rig| [counts(rig, &first).parallel, counts(rig, &second).parallel];
    assert_eq!(call.attempt(&mut rig).as_deref(), Some(second.as_str()));
    assert_eq!(held(&rig), [1, 0], "what may follow is not held");
    // A failure moves it.
    call.answer(&mut rig, 500);
    assert_eq!((call.deployment(), held(&rig)), (second.clone(), [0, 1]));
    // Meanwhile somebody takes what would follow: Envoy is told to try the same one again.
    let other = start(&mut rig, "a");
    assert_eq!(other.deployment(), first);
    assert_eq!(call.attempt(&mut rig).as_deref(), Some(second.as_str()));
    // Envoy goes on by itself: its attempt takes the place, of the one before or another.
    assert_eq!(call.attempt(&mut rig).as_deref(), Some(second.as_str()));
    assert_eq!(held(&rig), [1, 1]);
    other.end(&mut rig);
    call.attempt(&mut rig);
    assert_eq!(held(&rig), [0, 1]);
    call.answer(&mut rig, 200);
    call.end(&mut rig);
    assert_eq!(held(&rig), [0, 0]);
}

#[test]
fn a_place_that_went_to_somebody_else_is_not_taken_twice() {
    let mut rig = rig(&[("a", "a1", ONE_AT_A_TIME), ("a", "a2", ONE_AT_A_TIME)], "");
    let mut call = start(&mut rig, "a");
    let next = call.attempt(&mut rig).unwrap();
    let other = start(&mut rig, "a");
    assert_eq!(other.deployment(), next);
    // The first connection is refused, and Envoy opens the one that was named.
    let start = call.exchange.on_attempt(&mut rig.env());
    let Next::Reply(reply) = start.next else { panic!("it may not be called") };
    assert_eq!(reply.status, 500);
    assert_eq!(busy(&rig, [next.as_str()]), [1]);
    call.end(&mut rig);
    other.end(&mut rig);
    assert_eq!(busy(&rig, ["a1", "a2"]), [0, 0]);
}

#[test]
fn requests_a_minute_are_a_limit_where_the_strategy_minds_them() {
    let limited = ", rpm: 3, max_parallel_requests: 100";
    let deployments = [("a", "a1", limited), ("b", "b1", "")];
    for strategy in
        ["usage-based-routing", "usage-based-routing-v2", "latency-based-routing", "cost-based-routing"]
    {
        let settings = format!("router_settings: {{routing_strategy: {strategy}, num_retries: 0");
        let mut alone = rig(&deployments, &format!("{settings}}}"));
        let mut other = rig(&deployments, &format!("{settings}, fallbacks: [{{a: [b]}}]}}"));
        let good = |rig: &mut Rig| rig.chat(hello("a"), |_, model| Answer(200, completion(model)));
        for rig in [&mut alone, &mut other] {
            for _ in 0..3 {
                assert_eq!(good(rig).models, ["a1"], "{strategy}");
                rig.now_ms += 1_000;
            }
        }
        let refused = good(&mut alone);
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("57")), "{strategy}");
        let message = refused.message();
        assert!(message.starts_with("No deployments available for selected model"), "{strategy}: {message}");
        if strategy.starts_with("usage") {
            let map = "Passed model=a. Deployments={'a1': {'current_tpm': 4500, 'tpm_limit': inf, 'current_rpm': 3, 'rpm_limit': 3}}";
            assert!(message.contains(map), "{message}");
        }
        let story = good(&mut other);
        assert_eq!((story.status, story.models.as_slice()), (200, &["b1".to_owned()][..]), "{strategy}");
        alone.now_ms += 57_000;
        assert_eq!(good(&mut alone).status, 200, "{strategy}");
    }
    let mut weights = rig(&[("a", "a1", limited)], "");
    assert!(
        (0..9).all(|_| weights.chat(hello("a"), |_, model| Answer(200, completion(model))).status == 200)
    );
}

#[test]
fn attempts_count_as_requests_and_tokens_are_counted_where_they_were_made() {
    let settings =
        "router_settings: {routing_strategy: usage-based-routing, num_retries: 1, disable_cooldowns: true}";
    let mut rig = rig(&[("a", "a1", ""), ("a", "a2", "")], settings);
    let story = rig.chat(hello("a"), |attempt, model| match attempt {
        0 => Answer(500, error("no", "x")),
        _ => Answer(200, completion(model)),
    });
    let [failed, served] = [0, 1].map(|at| counts(&rig, &story.models[at]));
    assert_eq!((failed.requests, failed.tokens), (1, 0));
    assert_eq!((served.requests, served.tokens), (1, 1_500));
}

#[test]
fn budgets_take_deployments_and_providers_out() {
    let cheap = ", max_budget: 0.002, budget_duration: 1d";
    let rig_of =
        |settings: &str| rig(&[("a", "a1", cheap), ("a", "groq/a2", ""), ("b", "b1", cheap)], settings);
    let call = |rig: &mut Rig, model: &str| rig.chat(hello(model), |_, model| Answer(200, completion(model)));
    let mut rig = rig_of("router_settings: {num_retries: 0}");
    // 1,500 tokens cost 0.0015 dollars.
    assert_eq!((call(&mut rig, "b").status, call(&mut rig, "b").status), (200, 200));
    let refused = call(&mut rig, "b");
    assert_eq!((refused.status, refused.models.len()), (429, 0));
    assert_eq!(
        refused.message(),
        "No deployments available - crossed budget: Exceeded budget for deployment model_name: b, \
         litellm_params.model: openai/b1, model_id: b1: 0.003 >= 0.002"
    );
    let served: Vec<String> = (0..40).map(|_| call(&mut rig, "a").models.remove(0)).collect();
    assert_eq!(served.iter().filter(|model| *model == "a1").count(), 2, "then the other alone");
    rig.now_ms += 86_400_000;
    assert_eq!(call(&mut rig, "b").status, 200, "it starts again by itself");

    let mut rig = rig_of(
        "router_settings: {num_retries: 0, fallbacks: [{b: [a]}], \
         provider_budget_config: {openai: {budget_limit: 0.001, time_period: 1d}}}",
    );
    assert_eq!(call(&mut rig, "b").models, ["b1"]);
    for _ in 0..10 {
        assert_eq!(
            call(&mut rig, "a").models,
            ["a2"],
            "the provider's budget counts for all of its deployments"
        );
        assert_eq!(call(&mut rig, "b").models, ["a2"], "used up, it falls back");
    }
    let provider = &rig.config.deployments[0].rules[1];
    assert_eq!(Some(quota::standing(&rig.shared, provider, rig.now_ms).spend), Money::parse("0.0015"));
}

#[test]
fn a_replaced_answer_is_charged_to_who_made_it() {
    let budget = ", max_budget: 1, budget_duration: 1d";
    let mut rig = rig(
        &[("a", "a1", budget), ("b", "b1", budget)],
        "router_settings: {content_policy_fallbacks: [{a: [b]}]}",
    );
    let story = rig.chat(hello("a"), |attempt, model| {
        let mut answer = completion(model);
        if attempt == 0 {
            answer["choices"][0]["finish_reason"] = json!("content_filter");
        }
        Answer(200, answer)
    });
    assert_eq!(story.models, ["a1", "b1"]);
    for deployment in &rig.config.deployments {
        let spend = quota::standing(&rig.shared, &deployment.rules[0], rig.now_ms).spend;
        assert_eq!(Some(spend), Money::parse("0.0015"), "{}", deployment.id);
    }
}

#[test]
fn the_ledger_is_told_what_attempts_cost_those_with_a_budget() {
    let yaml = "model_list:\n\
        - {model_name: a, litellm_params: {model: openai/a1, api_base: 'http://a1.test', api_key: k, input_cost_per_token: 0.000001, \
           output_cost_per_token: 0.000001, max_budget: 1, budget_duration: 1d}, model_info: {id: a1}}\n\
        - {model_name: b, litellm_params: {model: groq/b1, api_base: 'http://b1.test', api_key: k, input_cost_per_token: 0.000002, \
           output_cost_per_token: 0.000002}, model_info: {id: b1}}\n\
        router_settings: {content_policy_fallbacks: [{a: [b]}], provider_budget_config: {groq: {budget_limit: 9, time_period: 7d}}}\n\
        general_settings: {master_key: sk-master}\n";
    let mut rig = Rig::with_environment(yaml, |name| {
        (name == crate::core::protocol::KEY_VARIABLE).then(|| "secret".to_owned())
    });
    rig.key = Some("sk-master");
    let story = rig.chat(hello("a"), |attempt, model| {
        let mut answer = completion(model);
        if attempt == 0 {
            answer["choices"][0]["finish_reason"] = json!("content_filter");
        }
        Answer(200, answer)
    });
    let event = story.record.as_ref().unwrap().event().unwrap();
    let told: Vec<_> = event
        .meter_charges
        .iter()
        .map(|charged| (charged.meter.as_str(), charged.spend, charged.period.as_deref()))
        .collect();
    let expected =
        [("deployment:a1", 1_500_000_000, Some("1d")), ("provider:groq", 3_000_000_000, Some("7d"))];
    assert_eq!(told, expected);
    assert_eq!(event.spend, 4_500_000_000);
    // The ledger starts them again, and says what other gateways have spent.
    let rule = rig.config.deployments[0].rules[0].clone();
    assert_eq!(rule.resets, None);
    quota::rebase(&rig.shared, &rule.meter, Money::parse("2").unwrap(), 7);
    assert_eq!(rig.chat(hello("a"), |_, model| Answer(200, completion(model))).status, 429);
}

#[test]
fn a_total_that_comes_before_the_first_request_counts() {
    let mut rig = rig(&[("a", "a1", ", max_budget: 1")], "");
    let rule = rig.config.deployments[0].rules[0].clone();
    let dollar = Money::parse("1").unwrap();
    quota::know(&rig.shared, &rule.meter, dollar, 7, rig.now_ms);
    // What is older says nothing.
    quota::know(&rig.shared, &rule.meter, Money::ZERO, 6, rig.now_ms);
    assert_eq!(quota::standing(&rig.shared, &rule, rig.now_ms).spend, dollar);
    assert_eq!(rig.chat(hello("a"), |_, model| Answer(200, completion(model))).status, 429);
}
