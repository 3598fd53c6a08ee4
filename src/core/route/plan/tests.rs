//! Plans against failures of every kind, with no exchange around them.

use super::*;
use crate::core::{
    config::{self, Config},
    model::{fallback::Fallbacks, status::ErrorStatus},
    quota::Worker,
    random::Random,
    route::{checks, cooldown},
    store::Memory,
};

const GROUPS: &str = r#"
model_list:
  - {model_name: a, litellm_params: {model: openai/a1, api_key: k}, model_info: {id: a1}}
  - {model_name: a, litellm_params: {model: openai/a2, api_key: k}, model_info: {id: a2}}
  - {model_name: b, litellm_params: {model: openai/b1, api_key: k}, model_info: {id: b1}}
  - {model_name: c, litellm_params: {model: openai/c1, api_key: k}, model_info: {id: c1}}
  - {model_name: d, litellm_params: {model: openai/d1, api_key: k}, model_info: {id: d1}}
  - {model_name: "x/*", litellm_params: {model: "openai/*", api_key: k}, model_info: {id: x}}
"#;

struct Place {
    config: Config,
    shared: Memory,
    random: Random,
}

impl Place {
    fn new(settings: &str) -> Place {
        let loaded = config::load(&format!("{GROUPS}{settings}"), &|_| None, &|_| None);
        Place {
            config: loaded.expect("a good file").config,
            shared: Memory::default(),
            random: Random::new(3),
        }
    }

    fn world(&mut self) -> World<'_> {
        World {
            config: &self.config,
            shared: &self.shared,
            now_ms: 1_000_000,
            random: &mut self.random,
            worker: Worker(1),
            trace: None,
        }
    }

    fn plan(&mut self, model: &str, controls: Controls) -> Plan {
        Plan::new(model, controls, &mut self.world()).unwrap()
    }

    fn id(&self, candidate: Candidate) -> String {
        self.config.deployments[candidate.deployment].id.clone()
    }

    /// Sends a deployment to rest for a minute.
    fn rest(&mut self, id: &str) {
        let deployment = self.config.deployments.iter().find(|d| d.id == id).unwrap();
        let failure = cooldown::FailedAttempt {
            class: Class::Authentication,
            status: ErrorStatus::UNAUTHORIZED.into(),
            retry_after_ms: Some(60_000),
            group_size: 1,
        };
        cooldown::failed(&self.shared, &self.config.router, deployment, failure, 1_000_000).unwrap();
    }

    /// The names that are called when everything fails with `class`, `a1` and `a2` both as `a`.
    fn walk(&mut self, model: &str, controls: Controls, class: Class) -> String {
        let mut plan = self.plan(model, controls);
        let mut called = vec![self.id(plan.current())];
        while let Some(next) =
            plan.advance(class, Some(class.status().into()), &mut self.world(), &mut |_| true)
        {
            called.push(self.id(next));
        }
        assert!(called.len() <= plan.max_retries() as usize + 1, "{called:?}");
        called.iter().map(|id| id.trim_end_matches(|c: char| c.is_ascii_digit())).collect()
    }
}

fn names(list: &[&str]) -> Vec<Fallback> {
    list.iter().map(|name| Fallback { model: (*name).to_owned(), ..Fallback::default() }).collect()
}

#[test]
fn retries_by_class_policy_deployment_and_request() {
    use Class::*;
    let asked = |n| Controls { num_retries: Some(n), ..Controls::default() };
    let none = Controls::default;
    let policy = "router_settings: {num_retries: 1, retry_policy: {RateLimitErrorRetries: 3, TimeoutErrorRetries: 0, BadRequestErrorRetries: 2}, \
                  model_group_retry_policy: {b: {InternalServerErrorRetries: 4}}}";
    let rows = [
        ("the default is two", "", "a", none(), InternalServer, "aaa"),
        ("the router's number", "router_settings: {num_retries: 0}", "a", none(), InternalServer, "a"),
        ("the class's number", policy, "a", none(), RateLimit, "aaaa"),
        ("zero for a class", policy, "a", none(), Timeout, "a"),
        ("a class without a number", policy, "a", none(), InternalServer, "aa"),
        ("a bad request that is to be retried", policy, "a", none(), BadRequest, "aaa"),
        ("its subclasses with it", policy, "a", none(), ContextWindowExceeded, "aaa"),
        ("the group's policy", policy, "b", none(), InternalServer, "bbbbb"),
        ("stands in for the whole", policy, "b", none(), RateLimit, "bb"),
        ("the request wins", policy, "b", asked(1), InternalServer, "bb"),
        ("also with none", policy, "a", asked(0), RateLimit, "a"),
        ("a bad request", "", "a", asked(5), BadRequest, "a"),
        ("an unknown model", "", "a", asked(5), NotFound, "a"),
        ("a refused key, elsewhere", "", "a", none(), Authentication, "aaa"),
        ("a refused key, alone", "", "b", none(), Authentication, "b"),
        ("an unprocessable entity", "", "a", none(), UnprocessableEntity, "a"),
        ("no connection", "", "a", none(), ApiConnection, "aaa"),
    ];
    for (name, settings, model, controls, class, expected) in rows {
        assert_eq!(Place::new(settings).walk(model, controls, class), expected, "{name}");
    }
    let endless = Place::new("").walk("b", asked(u32::MAX), InternalServer);
    assert_eq!(endless.len(), 101, "nobody may ask for an endless loop");
}

#[test]
fn a_deployments_own_number_is_before_the_policies() {
    let yaml = "model_list:\n  - {model_name: a, litellm_params: {model: openai/a1, api_key: k, num_retries: 5}, model_info: {id: a1}}\n\
                router_settings: {num_retries: 1, retry_policy: {RateLimitErrorRetries: 3}}";
    let mut place = Place::new("");
    place.config = config::load(yaml, &|_| None, &|_| None).unwrap().config;
    assert_eq!(place.walk("a", Controls::default(), Class::RateLimit), "aaaaaa");
    let one = Controls { num_retries: Some(1), ..Controls::default() };
    assert_eq!(place.walk("a", one, Class::RateLimit), "aa");
}

#[test]
fn unusual_statuses_are_retried_when_litellm_does() {
    for (status, calls) in [(418, 1), (402, 1), (409, 3), (529, 3), (0, 3)] {
        let mut place = Place::new("");
        let mut plan = place.plan("a", Controls::default());
        let mut made = 1;
        while plan.advance(Class::Api, Status::new(status), &mut place.world(), &mut |_| true).is_some() {
            made += 1;
        }
        assert_eq!(made, calls, "{status}");
    }
}

#[test]
fn a_retry_takes_another_deployment_that_is_awake() {
    let mut place = Place::new("");
    let mut plan = place.plan("a", Controls::default());
    let first = plan.current();
    let following = plan.following(&place.config, &mut |_| true).unwrap();
    assert_ne!(first.deployment, following.deployment);
    let other = place.id(following);
    place.rest(&other);
    let next =
        plan.advance(Class::InternalServer, Status::new(500), &mut place.world(), &mut |_| true).unwrap();
    assert_eq!(next.deployment, first.deployment, "the other one rests meanwhile");
    let id = place.id(first);
    place.rest(&id);
    assert_eq!(
        plan.advance(Class::InternalServer, Status::new(500), &mut place.world(), &mut |_| true),
        None,
        "nobody is available"
    );
}

#[test]
fn what_follows_silence_has_the_retries_of_a_time_out() {
    for (settings, calls) in [("{num_retries: 3}", 4), ("{retry_policy: {TimeoutErrorRetries: 0}}", 1)] {
        let mut place = Place::new(&format!("router_settings: {settings}"));
        let mut plan = place.plan("a", Controls::default());
        let mut made = 1;
        while let Some(next) = plan.following(&place.config, &mut |_| true) {
            plan.take(next);
            made += 1;
        }
        assert_eq!(made, calls, "{settings}");
        assert!(made <= plan.max_retries() + 1);
    }
}

#[test]
fn chains_of_fallbacks() {
    use Class::*;
    let nested = "fallbacks: [{a: [b, d]}, {b: [c]}]";
    let special = "fallbacks: [{a: [b]}, {c: [d]}], context_window_fallbacks: [{a: [c]}, {b: [d]}]";
    let rows = [
        ("none", "", "a", InternalServer, "a"),
        ("nested ones come before the next", nested, "a", InternalServer, "abcd"),
        ("a bad request falls back", nested, "a", BadRequest, "abcd"),
        (
            "default for all, not to itself",
            "default_fallbacks: [d], fallbacks: [{a: [b]}]",
            "a",
            InternalServer,
            "abd",
        ),
        ("default", "default_fallbacks: [d]", "c", InternalServer, "cd"),
        ("to itself", "fallbacks: [{a: [a]}]", "a", InternalServer, "a"),
        ("in a circle", "fallbacks: [{a: [b]}, {b: [c]}, {c: [a, b]}]", "a", InternalServer, "abc"),
        ("unknown names", "fallbacks: [{a: [nobody, b]}]", "a", InternalServer, "ab"),
        ("max_fallbacks", "max_fallbacks: 1, fallbacks: [{a: [b, c]}, {b: [d]}]", "a", InternalServer, "abc"),
        ("none allowed", "max_fallbacks: 0, fallbacks: [{a: [b]}]", "a", InternalServer, "a"),
        ("the provider's prefix", "fallbacks: [{gpt: [b]}]", "x/gpt", InternalServer, "xb"),
        ("a wildcard by its pattern", "fallbacks: [{\"x/*\": [c]}]", "x/gpt", InternalServer, "xc"),
        ("a wildcard by its name", "fallbacks: [{\"x/gpt\": [d]}, {\"x/*\": [c]}]", "x/gpt", RateLimit, "xd"),
        ("a context window jumps, and again", special, "a", ContextWindowExceeded, "ac"),
        ("another failure does not", special, "a", InternalServer, "ab"),
        ("none for this group", special, "c", ContextWindowExceeded, "c"),
        ("content policy without a list", special, "a", ContentPolicyViolation, "ab"),
        (
            "a list without an entry for the group",
            "fallbacks: [{a: [b, c]}], content_policy_fallbacks: [{c: [d]}]",
            "a",
            ContentPolicyViolation,
            "a",
        ),
    ];
    for (name, settings, model, class, expected) in rows {
        let mut place = Place::new(&format!("router_settings: {{num_retries: 0, {settings}}}"));
        assert_eq!(place.walk(model, Controls::default(), class), expected, "{name}");
        let disabled = Controls { disable_fallbacks: true, ..Controls::default() };
        assert_eq!(place.walk(model, disabled, class).len(), 1, "{name}, disabled");
    }
}

#[test]
fn a_jump_keeps_what_follows_for_others() {
    use Class::*;
    let settings =
        "router_settings: {num_retries: 0, fallbacks: [{a: [b, d]}], context_window_fallbacks: [{b: [c]}]}";
    let mut place = Place::new(settings);
    let mut plan = place.plan("a", Controls::default());
    let mut called = Vec::new();
    for class in [InternalServer, ContextWindowExceeded, InternalServer, InternalServer] {
        called
            .extend(plan.advance(class, None, &mut place.world(), &mut |_| true).map(|next| place.id(next)));
    }
    assert_eq!(called, ["b1", "c1", "d1"]);
    assert_eq!(plan.max_retries(), 3, "four groups can be reached, with one attempt each");
}

#[test]
fn what_the_client_says_about_fallbacks() {
    let settings = "router_settings: {num_retries: 0, fallbacks: [{a: [b]}, {c: [d]}], context_window_fallbacks: [{a: [d]}]}";
    let direct = Controls { fallbacks: Some(names(&["c"])), ..Controls::default() };
    let by_group = Controls {
        group_fallbacks: Some(Fallbacks::from_iter([("a".to_owned(), names(&["d", "c"]))])),
        ..Controls::default()
    };
    let window = Controls {
        context_window_fallbacks: Some(Fallbacks::from_iter([("a".to_owned(), names(&["b"]))])),
        ..Controls::default()
    };
    let rows = [
        ("a list, then its groups' own", &direct, Class::InternalServer, "acd"),
        ("a list for every class", &direct, Class::ContextWindowExceeded, "ac"),
        ("a table in place of the configured one", &by_group, Class::InternalServer, "adc"),
        ("a context-window table", &window, Class::ContextWindowExceeded, "ab"),
    ];
    for (name, controls, class, expected) in rows {
        assert_eq!(Place::new(settings).walk("a", controls.clone(), class), expected, "{name}");
    }
    let mut changed = names(&["a"]);
    changed[0].overrides.insert("temperature".into(), 1.into());
    let itself = Controls { fallbacks: Some(changed), ..Controls::default() };
    assert_eq!(Place::new(settings).walk("a", itself, Class::InternalServer), "aab", "itself, changed");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test of the time that something takes")]
fn any_number_of_names_costs_little() {
    let nobody: Vec<String> = (0..200_000).map(|at| format!("nobody/{at}")).collect();
    let mut list = names(&["b"]);
    list.extend(nobody.iter().map(|name| Fallback { model: name.clone(), ..Fallback::default() }));
    let controls = Controls { fallbacks: Some(list), num_retries: Some(0), ..Controls::default() };
    let settings = "router_settings: {context_window_fallbacks: [{a: [c]}]}";
    let begun = std::time::Instant::now();
    assert_eq!(Place::new(settings).walk("a", controls, Class::InternalServer), "ab");
    assert!(begun.elapsed().as_secs() < 5);
}

#[test]
fn groups_that_rest_are_passed_over() {
    let settings = "router_settings: {num_retries: 0, fallbacks: [{a: [b, c]}]}";
    let mut place = Place::new(settings);
    place.rest("b1");
    assert_eq!(place.walk("a", Controls::default(), Class::InternalServer), "ac");
    place.rest("a1");
    place.rest("a2");
    assert_eq!(place.walk("a", Controls::default(), Class::InternalServer), "c");
    place.rest("c1");
    let error = Plan::new("a", Controls::default(), &mut place.world()).unwrap_err();
    assert_eq!((error.status(), error.class()), (429, Some(Class::RateLimit)));
    assert!(error.message.contains("Try again in 60 seconds. Passed model=a."), "{}", error.message);
}

#[test]
fn names_that_stand_for_nothing() {
    let mut place = Place::new("");
    let error = Plan::new("nobody", Controls::default(), &mut place.world()).unwrap_err();
    assert_eq!(error.status(), 400);
}

#[test]
fn no_sequence_of_failures_breaks_the_bound() {
    use Class::*;
    const CLASSES: [Class; 14] = [
        BadRequest,
        ContextWindowExceeded,
        ContentPolicyViolation,
        UnsupportedParams,
        Authentication,
        PermissionDenied,
        NotFound,
        Timeout,
        UnprocessableEntity,
        RateLimit,
        InternalServer,
        ApiConnection,
        ServiceUnavailable,
        Api,
    ];
    let settings = [
        "",
        "{num_retries: 3, fallbacks: [{a: [b, c]}, {b: [c, a]}, {c: [d, a]}, {d: [a]}]}",
        "{fallbacks: [{a: [b]}], context_window_fallbacks: [{a: [c]}, {b: [c, d]}, {c: [b, a]}], content_policy_fallbacks: [{c: [d, a]}, {a: [d]}, {d: [c, b]}]}",
        "{default_fallbacks: [d, b], context_window_fallbacks: [{d: [c]}], disable_cooldowns: true, retry_policy: {BadRequestErrorRetries: 4, TimeoutErrorRetries: 1, RateLimitErrorRetries: 0}}",
        "{max_fallbacks: 2, fallbacks: [{a: [b, c, d]}, {b: [a, d]}], content_policy_fallbacks: [{b: [c]}], model_group_retry_policy: {b: {RateLimitErrorRetries: 5}}}",
    ];
    let mut chance = Random::new(11);
    let mut below = |n: u64| chance.bits() % n;
    let mut places = settings.map(|text| match text {
        "" => Place::new(""),
        text => Place::new(&format!("router_settings: {text}")),
    });
    for round in 0..20_000_usize {
        let place = &mut places[round % settings.len()];
        place.shared = Memory::default();
        let controls = Controls {
            num_retries: [None, Some(0), Some(2)][below(3) as usize],
            fallbacks: (below(4) == 0).then(|| names(&["c", "nobody", "a"])),
            disable_fallbacks: below(10) == 0,
            ..Controls::default()
        };
        let mut plan = place.plan(["a", "b", "c", "x/gpt"][below(4) as usize], controls);
        let most = plan.max_retries();
        let mut retries = 0;
        loop {
            let class = CLASSES[below(14) as usize];
            let next = if below(4) == 0 {
                plan.following(&place.config, &mut |_| true).inspect(|&next| plan.take(next))
            } else {
                let deployment = plan.current().deployment;
                let failure = cooldown::FailedAttempt {
                    class,
                    status: class.status().into(),
                    retry_after_ms: None,
                    group_size: plan.segment().unwrap().group_size,
                };
                let at = &place.config.deployments[deployment];
                cooldown::failed(&place.shared, &place.config.router, at, failure, 1_000_000);
                plan.advance(class, Some(class.status().into()), &mut place.world(), &mut |_| true)
            };
            if next.is_none() {
                break;
            }
            retries += 1;
            assert!(retries <= most, "round {round}: more than {most}");
        }
    }
}

#[test]
fn a_deployment_asked_for_by_its_id_is_called_however_it_fares() {
    let mut place = Place::new("general_settings: {background_health_checks: true}");
    checks::note(&place.shared, &["a1".to_owned()], 2_000_000);
    place.rest("a1");
    place.rest("b1");
    assert!(Plan::new("b", Controls::default(), &mut place.world()).is_err());
    for id in ["a1", "b1"] {
        let plan = place.plan(id, Controls::default());
        assert_eq!(place.id(plan.current()), id);
        assert_eq!(plan.deployments().count(), 1);
    }
}

#[test]
fn who_fails_its_checks_is_not_in_a_plan_while_others_are() {
    let mut place = Place::new(
        "general_settings: {background_health_checks: true}\nrouter_settings: {fallbacks: [{a: [b]}]}",
    );
    let reached = |place: &mut Place| {
        let plan = place.plan("a", Controls::default());
        let mut ids: Vec<String> =
            plan.deployments().map(|at| place.config.deployments[at].id.clone()).collect();
        ids.sort();
        ids.join(" ")
    };
    assert_eq!(reached(&mut place), "a1 a2 b1");
    let failing = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<String>>();
    checks::note(&place.shared, &failing(&["a1", "b1"]), 2_000_000);
    assert_eq!(reached(&mut place), "a2 b1");
    checks::note(&place.shared, &failing(&["a1", "a2"]), 2_000_000);
    assert_eq!(reached(&mut place), "a1 a2 b1");
    // The one that passes rests: one that fails its checks is better than none.
    checks::note(&place.shared, &failing(&["a1"]), 2_000_000);
    place.rest("a2");
    assert_eq!(reached(&mut place), "a1 b1");
}
