//! Which deployments may take a call: tables of tags, context windows, regions and owners.

use super::*;
use crate::core::{
    config::{self, Config},
    quota::Worker,
    random::Random,
    route::{plan::Plan, world::Controls},
    store::Memory,
};

fn gateway(models: &str, settings: &str) -> Config {
    let yaml = format!("model_list:\n{models}\n{settings}\n");
    config::load(&yaml, &|_| None, &|_| None).unwrap_or_else(|problems| panic!("{problems:?}")).config
}

/// The ids that a call of `model` may go to, sorted, group by group; or the refusal.
fn planned(config: &Config, model: &str, call: RoutingInput) -> Result<Vec<Vec<String>>, (u16, String)> {
    let shared = Memory::default();
    quota::prepare(&shared, [1, 2]);
    let mut world = World {
        config,
        shared: &shared,
        now_ms: 1_000_000,
        random: &mut Random::new(7),
        worker: Worker(1),
        trace: None,
    };
    let plan = Plan::new(model, Controls { call, ..Controls::default() }, &mut world)
        .map_err(|error| (error.status(), error.message))?;
    let mut groups = Vec::new();
    let mut next = Some(plan.current());
    let mut plan = plan;
    while let Some(candidate) = next {
        plan.take(candidate);
        let segment = plan.segment().unwrap();
        let mut ids: Vec<String> =
            segment.order.iter().map(|at| config.deployments[*at].id.clone()).collect();
        ids.sort();
        groups.push(ids);
        next = plan.abandon_group(Class::InternalServer, &mut world, &mut |_| true);
    }
    Ok(groups)
}

fn first(config: &Config, model: &str, call: RoutingInput) -> Vec<String> {
    planned(config, model, call).unwrap().remove(0)
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

const TAGGED: &str =
    "  - {model_name: g, litellm_params: {model: openai/a, api_key: k, tags: [free]}, model_info: {id: free}}
  - {model_name: g, litellm_params: {model: openai/b, api_key: k, tags: [paid, eu]}, model_info: {id: paid}}
  - {model_name: g, litellm_params: {model: openai/c, api_key: k, tags: [default]}, model_info: {id: default}}
  - {model_name: g, litellm_params: {model: openai/d, api_key: k}, model_info: {id: plain}}
  - {model_name: h, litellm_params: {model: openai/e, api_key: k, tags: [paid]}, model_info: {id: other}}";

#[test]
fn tags_lead_to_deployments() {
    let any = gateway(TAGGED, "router_settings: {enable_tag_filtering: true}");
    let all =
        gateway(TAGGED, "router_settings: {enable_tag_filtering: true, tag_filtering_match_any: false}");
    let off = gateway(TAGGED, "");
    let rows: &[(&Config, &str, &[&str], &[&str])] = &[
        (&any, "g", &["free"], &["free"]),
        (&any, "g", &["paid", "free"], &["free", "paid"]),
        (&any, "g", &["nobody's"], &["default"]),
        (&any, "g", &[], &["default"]),
        // None is a default one there.
        (&any, "h", &[], &["other"]),
        (&all, "g", &["paid", "eu"], &["paid"]),
        (&all, "g", &["paid", "free"], &["default"]),
        (&off, "g", &["free"], &["default", "free", "paid", "plain"]),
    ];
    for (config, model, tags, expected) in rows {
        let call = RoutingInput { tags: texts(tags), ..RoutingInput::default() };
        assert_eq!(first(config, model, call), texts(expected), "{model} {tags:?}");
    }
    let call = RoutingInput { tags: texts(&["free"]), ..RoutingInput::default() };
    let expected = "Not allowed to access model due to tags configuration. Passed model=h and tags=['free']";
    assert_eq!(planned(&any, "h", call), Err((401, expected.to_owned())));
}

const WINDOWS: &str = "  - {model_name: g, litellm_params: {model: openai/a, api_key: k}, model_info: {id: small, max_input_tokens: 100}}
  - {model_name: g, litellm_params: {model: openai/b, api_key: k}, model_info: {id: middle, max_input_tokens: 1000}}
  - {model_name: g, litellm_params: {model: openai/c, api_key: k}, model_info: {id: large, max_input_tokens: 2000}}
  - {model_name: long, litellm_params: {model: openai/d, api_key: k}, model_info: {id: long, max_input_tokens: 9000}}
  - {model_name: known, litellm_params: {model: openai/gpt-4, api_key: k}, model_info: {id: known}}
  - {model_name: unknown, litellm_params: {model: openai/nobody-knows, api_key: k}, model_info: {id: unknown}}";

fn prompt(likely: u64) -> RoutingInput {
    RoutingInput { messages: Some(Tokens { likely, least: likely / 2 }), ..RoutingInput::default() }
}

#[test]
fn prompts_go_where_they_fit() {
    let config = gateway(WINDOWS, "router_settings: {enable_pre_call_checks: true}");
    for (model, tokens, expected) in [
        ("g", 100, &["large", "middle", "small"] as &[&str]),
        ("g", 101, &["large", "middle"]),
        ("g", 2000, &["large"]),
        // Not certainly too long: the longest window is given a chance.
        ("g", 4000, &["large"]),
        ("unknown", 1_000_000, &["unknown"]),
        // The price data knows 8,192.
        ("known", 8_192, &["known"]),
    ] {
        assert_eq!(first(&config, model, prompt(tokens)), texts(expected), "{model} {tokens}");
    }
    for (model, tokens) in [("g", 4_002), ("known", 20_000)] {
        let (status, message) = planned(&config, model, prompt(tokens)).unwrap_err();
        assert_eq!(status, 400, "{message}");
        let says = "litellm._pre_call_checks: Context Window exceeded for given call.";
        assert!(message.contains(says) && message.contains(&format!("Got={tokens}")), "{message}");
    }
    // Without messages there is nothing to compare, and without the setting nothing is.
    assert_eq!(first(&config, "g", RoutingInput::default()).len(), 3);
    assert_eq!(first(&gateway(WINDOWS, ""), "g", prompt(1_000_000)).len(), 3);
}

#[test]
fn a_prompt_too_long_for_a_group_goes_to_its_context_window_fallbacks() {
    let settings = "router_settings: {enable_pre_call_checks: true, context_window_fallbacks: [{g: [long]}], fallbacks: [{g: [unknown]}]}";
    let config = gateway(WINDOWS, settings);
    assert_eq!(planned(&config, "g", prompt(5_000)), Ok(vec![texts(&["long"])]));
    // One that fits has the general ones.
    let groups = planned(&config, "g", prompt(50)).unwrap();
    assert_eq!(groups[1..], [texts(&["unknown"])]);
    assert_eq!(planned(&config, "g", prompt(50_000)).unwrap_err().0, 400);
}

#[test]
fn regions_response_formats_and_order() {
    let models = "  - {model_name: g, litellm_params: {model: openai/a, api_key: k, region_name: eu, order: 2}, model_info: {id: eu}}
  - {model_name: g, litellm_params: {model: openai/b, api_key: k, region_name: us, order: 1}, model_info: {id: us}}
  - {model_name: g, litellm_params: {model: openai/c, api_key: k}, model_info: {id: anywhere}}";
    let config = gateway(models, "router_settings: {enable_pre_call_check: true}");
    let in_region = |region: &str| RoutingInput { region: Some(region.to_owned()), ..prompt(5) };
    assert_eq!(first(&config, "g", in_region("eu")), ["eu"]);
    let (status, message) = planned(&config, "g", in_region("asia")).unwrap_err();
    assert!(status == 429 && message.starts_with("No deployments available for selected model"), "{message}");
    let shared = Memory::default();
    quota::prepare(&shared, [1, 2]);
    let mut world = World {
        config: &config,
        shared: &shared,
        now_ms: 1,
        random: &mut Random::new(7),
        worker: Worker(1),
        trace: None,
    };
    let plan = Plan::new("g", Controls { call: prompt(5), ..Controls::default() }, &mut world).unwrap();
    let order: Vec<&str> =
        plan.segment().unwrap().order.iter().map(|at| config.deployments[*at].id.as_str()).collect();
    assert_eq!(order, ["us", "eu", "anywhere"]);
}

#[test]
fn a_teams_own_deployments_are_nobody_elses() {
    let models = "  - {model_name: g, litellm_params: {model: openai/a, api_key: k}, model_info: {id: shared}}
  - {model_name: inner-red, litellm_params: {model: openai/b, api_key: k}, model_info: {id: red, team_id: red, team_public_model_name: g}}
  - {model_name: only-red, litellm_params: {model: openai/c, api_key: k}, model_info: {id: only, team_id: red}}";
    let config = gateway(models, "");
    let of = |team: Option<&str>| RoutingInput { team: team.map(str::to_owned), ..RoutingInput::default() };
    assert_eq!(first(&config, "g", of(None)), ["shared"]);
    assert_eq!(first(&config, "g", of(Some("blue"))), ["shared"]);
    assert_eq!(first(&config, "g", of(Some("red"))), ["red", "shared"]);
    assert_eq!(first(&config, "only-red", of(Some("red"))), ["only"]);
    // The master key may ask for any of them by its id.
    let admin = RoutingInput { any_team: true, ..RoutingInput::default() };
    assert_eq!(first(&config, "only", admin.clone()), ["only"]);
    assert!(planned(&config, "only-red", admin).is_err());
    for name in ["only-red", "only", "red", "inner-red"] {
        assert!(planned(&config, name, of(Some("blue"))).is_err(), "{name}");
        assert!(planned(&config, name, of(None)).is_err(), "{name}");
    }
}

#[test]
fn a_cached_prompt_stays_with_its_deployment() {
    let models = "  - {model_name: g, litellm_params: {model: openai/a, api_key: k}, model_info: {id: a}}
  - {model_name: g, litellm_params: {model: openai/b, api_key: k}, model_info: {id: b}}
  - {model_name: g, litellm_params: {model: openai/c, api_key: k}, model_info: {id: c}}";
    let config = gateway(models, "router_settings: {optional_pre_call_checks: [prompt_caching]}");
    let shared = Memory::default();
    quota::prepare(&shared, [1, 2]);
    crate::core::route::affinity::note(&shared, [7; 16], &config.deployments[1], 1_000_000);
    for seed in 0..50 {
        let mut world = World {
            config: &config,
            shared: &shared,
            now_ms: 1_000_001,
            random: &mut Random::new(seed),
            worker: Worker(1),
            trace: None,
        };
        let call = RoutingInput { cached: vec![[7; 16]], ..RoutingInput::default() };
        let plan = Plan::new("g", Controls { call, ..Controls::default() }, &mut world).unwrap();
        assert_eq!(plan.current().deployment, 1);
        assert_eq!(plan.segment().unwrap().order.len(), 3, "the others stand behind it");
    }
}
