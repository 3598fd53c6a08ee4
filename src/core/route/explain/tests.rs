//! What is told of each step that leaves deployments out or puts them in order.

use super::*;
use crate::core::{
    config,
    model::{failure::Class, status::ErrorStatus},
    quota::{self, Estimate, Worker},
    random::Random,
    route::{checks, cooldown, latency},
    store::Memory,
};

const NOW_MS: u64 = 1_000_000;

fn explained(yaml: &str, question: &Question, prepare: impl Fn(&Config, &Memory)) -> Explanation {
    let config = config::load(yaml, &|_| None, &|_| None).expect("a good file").config;
    let shared = Memory::default();
    prepare(&config, &shared);
    let mut world = World {
        config: &config,
        shared: &shared,
        now_ms: NOW_MS,
        random: &mut Random::new(5),
        worker: Worker(1),
        trace: None,
    };
    explain(question, &mut world)
}

fn asked(model: &str) -> Question {
    Question { model: model.to_owned(), ..Question::default() }
}

/// The deployments of the first group: place, id, why.
fn told(explanation: &Explanation) -> Vec<String> {
    let members = explanation.groups[0].deployments.iter();
    members
        .map(|one| {
            format!(
                "{} {} {}",
                one.place.map_or("-".to_owned(), |p| p.to_string()),
                one.id,
                one.why.join("; ")
            )
        })
        .collect()
}

const THREE: &str = "
model_list:
  - {model_name: g, litellm_params: {model: openai/a, api_key: k, rpm: 10, max_parallel_requests: 4}, model_info: {id: a}}
  - {model_name: g, litellm_params: {model: openai/b, api_key: k, tpm: 500}, model_info: {id: b}}
  - {model_name: g, litellm_params: {model: openai/c, api_key: k}, model_info: {id: c}}
";

#[test]
fn who_rests_fails_or_is_anothers_is_named() {
    let yaml = format!(
        "{THREE}  - {{model_name: g, litellm_params: {{model: openai/t, api_key: k}}, model_info: {{id: t, team_id: red, team_public_model_name: g}}}}
general_settings: {{background_health_checks: true}}"
    );
    let explanation = explained(&yaml, &asked("g"), |config, shared| {
        let failure = cooldown::FailedAttempt {
            class: Class::Authentication,
            status: ErrorStatus::UNAUTHORIZED.into(),
            retry_after_ms: Some(3_500),
            group_size: 3,
        };
        cooldown::failed(shared, &config.router, &config.deployments[0], failure, NOW_MS);
        checks::note(shared, &["c".to_owned()], NOW_MS + 60_000);
    });
    let told = told(&explanation);
    assert_eq!(told[0], "1 b 0 of 1 in flight, 0 requests and 0 tokens in this minute");
    assert!(told.contains(&"- a rests after failures, 4 s more".to_owned()), "{told:?}");
    assert!(told.contains(&"- c fails its health checks".to_owned()), "{told:?}");
    assert_eq!((explanation.attempts, explanation.groups[0].attempts, &explanation.refusal), (3, 3, &None));
    assert!(told.contains(&"- t is another team's".to_owned()), "{told:?}");
    let red = Question { team: Some("red".to_owned()), ..asked("g") };
    let explanation = explained(&yaml, &red, |_, _| ());
    assert!(explanation.groups[0].deployments.iter().all(|one| one.place.is_some()), "{explanation:?}");
}

#[test]
fn strategies_tell_what_they_go_by() {
    let spent = |config: &Config, shared: &Memory| {
        quota::heartbeat(shared, Worker(1), NOW_MS);
        for (at, tokens) in [(0, 30), (1, 20), (2, 10)] {
            let deployment = &config.deployments[at];
            let estimate = Estimate { tokens, ..Estimate::default() };
            if deployment.rules.is_empty() {
                continue;
            }
            let place = quota::reserve(shared, Worker(1), &deployment.rules, estimate, NOW_MS);
            // Its end is not told: the call is still there.
            std::mem::forget(place.expect("room"));
        }
        for (at, whole_ms) in [(0, 20), (1, 10)] {
            let sample = latency::Sample::of(whole_ms, None, 2);
            latency::note(shared, &config.deployments[at], sample, &config.router.latency, NOW_MS);
        }
    };
    let counts = [
        "a 1 of 4 in flight, 1 of 10 requests and 30 tokens in this minute",
        "b 1 of 1 in flight, 1 requests and 20 of 500 tokens in this minute",
        "c 1 in flight, 1 requests and 10 tokens in this minute",
    ];
    let [a, b, c] = counts;
    for (strategy, expected) in [
        ("usage-based-routing-v2", vec![format!("1 {c}"), format!("2 {b}"), format!("3 {a}")]),
        // It goes by no rates, so they are no limits for it.
        (
            "least-busy",
            vec![
                format!("1 {}", a.replace(" of 10 requests", " requests")),
                format!("2 {}", b.replace(" of 500 tokens", " tokens")),
                format!("3 {c}"),
            ],
        ),
    ] {
        let yaml = format!("{THREE}router_settings: {{routing_strategy: {strategy}}}");
        let (mut told, mut expected) = (told(&explained(&yaml, &asked("g"), spent)), expected);
        if strategy == "least-busy" {
            // All are as busy, so chance decides.
            for lines in [&mut told, &mut expected] {
                lines.iter_mut().for_each(|line| line.replace_range(..2, ""));
                lines.sort();
            }
        }
        assert_eq!(told, expected, "{strategy}");
    }
    let yaml = format!("{THREE}router_settings: {{routing_strategy: latency-based-routing}}");
    let explanation = explained(&yaml, &asked("g"), spent);
    let told_by_latency = told(&explanation);
    assert!(told_by_latency[0].starts_with("1 c") && told_by_latency[0].ends_with("was not called lately"));
    assert!(
        told_by_latency[1].starts_with("2 b") && told_by_latency[1].ends_with("; takes 5.000 ms a token")
    );
    assert!(told_by_latency[2].ends_with("; takes 10.000 ms a token"), "{told_by_latency:?}");
    let priced = "
model_list:
  - {model_name: g, litellm_params: {model: openai/a, api_key: k, input_cost_per_token: 0.000002, output_cost_per_token: 0.000003}, model_info: {id: a}}
router_settings: {routing_strategy: cost-based-routing}";
    let told_by_cost = told(&explained(priced, &asked("g"), |_, _| ()));
    assert!(
        told_by_cost[0].ends_with("costs 5.000 dollars for a million tokens each way"),
        "{told_by_cost:?}"
    );
}

#[test]
fn what_has_no_room_is_told_with_its_numbers() {
    let yaml = format!("{THREE}router_settings: {{routing_strategy: usage-based-routing-v2}}");
    let long = Question { tokens: 501, ..asked("g") };
    let explanation = explained(&yaml, &long, |_, _| ());
    let told = told(&explanation);
    assert_eq!(
        told[2],
        "- b no room for this call: 0 of 1 in flight, 0 requests and 0 of 500 tokens in this minute"
    );
}

#[test]
fn checks_before_a_call_are_told() {
    let yaml = "
model_list:
  - {model_name: g, litellm_params: {model: openai/a, api_key: k, region_name: eu, order: 2}, model_info: {id: small, max_input_tokens: 100}}
  - {model_name: g, litellm_params: {model: openai/b, api_key: k, region_name: eu, order: 1}, model_info: {id: large, max_input_tokens: 1000}}
  - {model_name: g, litellm_params: {model: openai/b, api_key: k, region_name: us}, model_info: {id: us}}
  - {model_name: g, litellm_params: {model: openai/b, api_key: k}, model_info: {id: nowhere}}
router_settings: {enable_pre_call_checks: true, context_window_fallbacks: [{g: [x]}]}";
    let region = Question { region: Some("eu".to_owned()), ..asked("g") };
    let long = Question { tokens: 500, ..region.clone() };
    let explanation = explained(yaml, &long, |_, _| ());
    assert_eq!(
        told(&explanation),
        [
            "1 large order 1",
            "- small takes prompts of 100 tokens, this one has about 500",
            "- us is in us, not in eu",
            "- nowhere is in no region, not in eu",
        ]
    );
    assert_eq!(explanation.context_window_fallbacks, ["x"]);
    let too_long = Question { tokens: 5_000, ..region };
    let explanation = explained(yaml, &too_long, |_, _| ());
    assert!(explanation.groups[0].refusal.as_deref().unwrap().contains("Context Window exceeded"));
    assert_eq!(explanation.refusal.unwrap().status, 400);
}

#[test]
fn budgets_are_told() {
    let yaml = "
model_list:
  - {model_name: g, litellm_params: {model: openai/a, api_key: k, max_budget: 0, budget_duration: 1d}, model_info: {id: a}}";
    let explanation = explained(yaml, &asked("g"), |_, _| ());
    assert!(told(&explanation)[0].starts_with("- a Exceeded budget for deployment"), "{explanation:?}");
    assert_eq!((explanation.attempts, explanation.refusal.unwrap().status), (0, 429));
}

#[test]
fn a_question_survives_the_way_to_the_gateway() {
    let full = Question {
        model: "azure/a b&c=d%+é".to_owned(),
        tags: vec!["paid".to_owned(), "x y".to_owned()],
        tokens: 12,
        stream: true,
        team: Some("t&1".to_owned()),
        region: Some("eu".to_owned()),
        response_format: true,
    };
    for question in [full, asked("m")] {
        assert_eq!(Question::from_query(&question.to_query()).unwrap(), question);
    }
    for (query, named) in [
        ("", "`model`"),
        ("model=", "`model`"),
        ("model=a&tokens=many", "`tokens`"),
        ("model=a&tokens=-1", "`tokens`"),
        ("model=a&stream=perhaps", "`stream`"),
    ] {
        let error = Question::from_query(query).unwrap_err();
        assert!(error.status() == 400 && error.message.contains(named), "{query}: {}", error.message);
    }
}
