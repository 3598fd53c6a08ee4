//! Limits by model hold wherever a call comes to a model by a fallback, and count there.

use super::*;
use crate::core::{
    access,
    model::{
        limits::Limits,
        meter::{Meter, MeterKind},
        rule::{Base, Rule},
    },
};

const PRICES: &str = "input_cost_per_token: 0.000001, output_cost_per_token: 0.000001";

/// Groups `a`, `b` and `c` of one deployment each, which does not rest, and a key with these limits.
fn rig(key: &str, settings: &str) -> Rig {
    rig_that_rests(key, &format!(", disable_cooldowns: true{settings}"))
}

/// A gateway whose failing deployments cool down.
fn rig_that_rests(key: &str, settings: &str) -> Rig {
    let hash = access::hash(b"sk-one");
    let model = |name: &str| {
        format!(
            "  - {{model_name: {name}, litellm_params: {{model: openai/{name}1, api_base: 'http://{name}.test/v1', api_key: k, {PRICES}}}, model_info: {{id: id-{name}}}}}\n"
        )
    };
    let mut rig = Rig::new(&format!(
        "model_list:\n{}{}{}general_settings: {{master_key: sk-master, keys: [{{token: {hash}, {key}}}]}}\n\
         router_settings: {{num_retries: 0, model_group_alias: {{nick: b}}{settings}}}\n",
        model("a"),
        model("b"),
        model("c"),
    ));
    rig.key = Some("sk-one");
    rig
}

fn with(members: &Value) -> Value {
    let mut body = hello("a");
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    body
}

/// 1,500 tokens for $0.0015 of every model but `a`, which fails so.
fn failing(failure: fn() -> Behaviour) -> impl FnMut(usize, &str) -> Behaviour {
    move |_, model| match model {
        "a1" => failure(),
        model => Answer(200, completion(model)),
    }
}

type Failure = fn() -> Behaviour;
const BROKEN: Failure = || Answer(500, error("no", "x"));
const TOO_LONG: Failure =
    || Answer(400, error("This model's maximum context length is 4097 tokens", "context_length_exceeded"));
const FILTERED: Failure = || Answer(400, error("filtered", "content_filter"));
const CUT: Failure = || {
    let mut answer = completion("a1");
    answer["choices"][0]["finish_reason"] = json!("content_filter");
    Answer(200, answer)
};

/// Every way from `a` to `b`: (settings, members of the request, what becomes of `a`).
fn ways() -> Vec<(&'static str, Value, Failure)> {
    let none = || json!({});
    vec![
        ("", json!({"fallbacks": ["b"]}), BROKEN),
        ("", json!({"fallbacks": ["b"]}), || Refuse),
        ("", json!({"fallbacks": ["b"]}), TOO_LONG),
        ("", json!({"fallbacks": [{"model": "b", "temperature": 1}]}), BROKEN),
        ("", json!({"fallbacks": [{"a": ["b"]}]}), BROKEN),
        ("", json!({"fallbacks": ["nick"]}), BROKEN),
        ("", json!({"fallbacks": ["id-b"]}), BROKEN),
        ("", json!({"fallbacks": ["b"], "mock_testing_fallbacks": true}), BROKEN),
        ("", json!({"context_window_fallbacks": [{"a": ["b"]}]}), TOO_LONG),
        ("", json!({"content_policy_fallbacks": [{"a": ["b"]}]}), FILTERED),
        ("", json!({"content_policy_fallbacks": [{"a": ["b"]}]}), CUT),
        (", fallbacks: [{a: [b]}]", none(), BROKEN),
        (", fallbacks: [{a: [b]}]", none(), || Refuse),
        (", default_fallbacks: [b]", none(), BROKEN),
        (", context_window_fallbacks: [{a: [b]}]", none(), TOO_LONG),
        (", content_policy_fallbacks: [{a: [b]}]", none(), FILTERED),
    ]
}

#[test]
fn a_limit_of_a_model_holds_for_every_way_to_it() {
    let limits = [
        "model_rpm_limit: {b: 1}",
        "model_rpm_limit: {nick: 1}",
        "model_rpm_limit: {openai/b1: 1}",
        "model_tpm_limit: {b: 1000}",
        "model_max_budget: {b: {budget_limit: 0.001, time_period: 1d}}",
    ];
    for (settings, members, failure) in ways() {
        for limit in limits {
            let mut rig = rig(limit, settings);
            let what = format!("{limit} {settings} {members}");
            let first = rig.chat(with(&members), failing(failure));
            assert_eq!(
                (first.status, first.header("x-litellm-model-group")),
                (200, Some("b")),
                "{what}: {}",
                first.body
            );
            let second = rig.chat(with(&members), failing(failure));
            assert!(second.status >= 400, "{what}: {}", second.body);
            assert!(!second.models.contains(&"b1".to_owned()), "{what}");
            let direct = rig.chat(hello("b"), failing(failure));
            assert_eq!(
                direct.status,
                if limit.contains("budget") { 400 } else { 429 },
                "{what}: {}",
                direct.body
            );
            assert_eq!(rig.chat(hello("c"), failing(failure)).status, 200, "{what}");
            // Nothing stays reserved.
            rig.now_ms += 60_000;
            let later = rig.chat(hello("b"), failing(failure));
            assert_eq!(later.status, if limit.contains("budget") { 400 } else { 200 }, "{what}");
        }
    }
}

#[test]
fn a_call_of_a_model_counts_for_its_fallbacks_limit() {
    let mut rig = rig("model_rpm_limit: {a: 5, b: 1}", ", fallbacks: [{a: [b]}]");
    assert_eq!(rig.chat(hello("b"), failing(BROKEN)).status, 200);
    assert_eq!(rig.chat(hello("a"), failing(BROKEN)).status, 500, "what failed first is told");
    let answered = rig.chat(hello("a"), |_, model| Answer(200, completion(model)));
    assert_eq!(answered.status, 200, "the model asked for has its own limit");
    assert_eq!(answered.header("x-litellm-key-remaining-requests-a"), Some("3"));
}

#[test]
fn a_group_whose_limit_is_used_up_is_passed_over() {
    for members in
        [json!({"fallbacks": ["b", "c"]}), json!({"fallbacks": ["b", "c"], "mock_testing_fallbacks": true})]
    {
        let mut rig =
            rig("model_max_budget: {b: {budget_limit: 0, time_period: 1d}}, max_parallel_requests: 1", "");
        for _ in 0..3 {
            let story = rig.chat(with(&members), failing(BROKEN));
            assert_eq!(
                (story.status, story.header("x-litellm-model-group")),
                (200, Some("c")),
                "{}",
                story.body
            );
        }
    }
}

#[test]
fn a_group_that_stands_in_for_a_resting_one_is_limited() {
    let refused: Failure = || Answer(401, error("no", "x"));
    let mut rig = rig_that_rests("model_rpm_limit: {b: 2}", ", fallbacks: [{a: [b]}]");
    let stories: Vec<Story> = (0..3).map(|_| rig.chat(hello("a"), failing(refused))).collect();
    let statuses: Vec<u16> = stories.iter().map(|story| story.status).collect();
    assert_eq!(statuses, [200, 200, 429], "{}", stories[2].body);
    assert_eq!((stories[1].models.as_slice(), stories[2].models.len()), (&["b1".to_owned()][..], 0));
    assert!(
        stories[2].message().starts_with("Rate limit exceeded for model_per_key: "),
        "{}",
        stories[2].message()
    );
}

#[test]
fn a_group_left_behind_is_charged_for_what_it_used() {
    // `b` works until the client's time is over, then `c` answers.
    let mut rig = rig(
        "model_max_budget: {b: {budget_limit: 1, time_period: 1d}, c: {budget_limit: 1, time_period: 1d}}",
        "",
    );
    let mut body = with(&json!({"fallbacks": ["b", "c"], "timeout": 2}));
    body["max_tokens"] = json!(1);
    let prompt = (body.to_string().len() as i128 + 3) / 4;
    let story = rig.chat(body, |_, model| match model {
        "a1" => Answer(500, error("no", "x")),
        "b1" => Hang,
        model => Answer(200, completion(model)),
    });
    assert_eq!((story.status, story.models.as_slice()), (200, &["a1", "b1", "c1"].map(str::to_owned)[..]));
    let spent = |model: &str| {
        let rule = Rule {
            owner: None,
            kind: MeterKind::KeyModel,
            meter: Meter::new(MeterKind::KeyModel, &format!("{}/{model}", access::hash(b"sk-one"))),
            limits: Limits::default(),
            max_budget: Some(Money::parse("1").unwrap()),
            base: Base::default(),
            resets: None,
        };
        quota::standing(&rig.shared, &rule, rig.now_ms).spend
    };
    assert_eq!(spent("b"), Money::from_pico(1_000_000 * prompt));
    assert_eq!(spent("c"), Money::parse("0.0015").unwrap());
}
