//! From a configuration to the last answer: what is served, what is refused, and what a new configuration leaves alone.

use std::{cell::Cell, rc::Rc};

use hashbrown::HashMap;

use super::{envoy::*, *};
use crate::core::host::Level;

fn config_of(names: &[&str]) -> String {
    let mut yaml = "model_list:\n".to_owned();
    for name in names {
        yaml += &format!(
            "  - {{model_name: {name}, litellm_params: {{model: openai/{name}-1, api_base: 'http://{name}.test/v1', api_key: k}}}}\n"
        );
    }
    yaml
}

/// A provider that takes its time.
fn late(_: usize, _: &Sent) -> Behaviour {
    Later
}

fn good(_: usize, sent: &Sent) -> Behaviour {
    Answer(200, completion(&sent.model))
}

fn streamed(model: &str) -> Value {
    let mut body = hello(model);
    body["stream"] = json!(true);
    body
}

const DONE: &str = "data: [DONE]\n\n";

#[test]
fn one_request_passes_both_roles() {
    let mut envoy = Envoy::new(&config_of(&["a"]), good);
    let story = envoy.call(Ask::chat(&hello("a")).with("x-envoy-max-retries", "77").in_parts(7));
    assert_eq!((story.status, story.header("x-litellm-model-group")), (200, Some("a")), "{story:?}");
    assert_eq!(serde_json::from_str::<Value>(&story.body).unwrap(), completion("a-1"));
    let sent = &envoy.sent[0];
    let header = |name: &str| sent.headers.iter().find(|(known, _)| known == name).map(|(_, v)| v.as_str());
    assert_eq!((header("authorization"), header(":authority")), (Some("Bearer k"), Some("a.test")));
    assert_eq!(header("x-envoy-max-retries"), None, "what steers Envoy stays here");
    assert_eq!(sent.body["model"], "a-1");
    assert!(story.record.contains(r#""model_group":"a""#), "{}", story.record);
    assert_eq!(envoy.process.metric("tollgate_requests;model=a;status=200"), 1);
    assert_eq!(envoy.process.metric("tollgate_tokens;model=a;kind=input"), 1_000);
    assert_eq!(envoy.held(0), (0, 0, 0), "nothing is left of it");
}

#[test]
fn streams_pass_part_by_part() {
    let parts: Vec<String> = ["a", "b"].map(chunk).into_iter().chain([DONE.to_owned()]).collect();
    let whole = parts.concat();
    let mut envoy = Envoy::new(&config_of(&["a"]), move |_, _| Stream(parts.clone()));
    let story = envoy.chat(&streamed("a"));
    assert_eq!((story.status, story.body), (200, whole));
}

#[test]
fn a_body_may_end_with_trailers_or_come_in_any_parts() {
    for size in [1, 5, 1_000] {
        for trailers in [false, true] {
            let mut envoy = Envoy::new(&config_of(&["a"]), good);
            let mut ask = Ask::chat(&hello("a")).in_parts(size);
            ask.trailers = trailers;
            let story = envoy.call(ask);
            assert_eq!((story.status, envoy.sent.len()), (200, 1), "{size} {trailers}");
        }
    }
}

#[test]
fn a_new_configuration_leaves_the_requests_of_the_old_one_alone() {
    let mut envoy = Envoy::new(&config_of(&["old"]), late);
    let held: Vec<usize> = (0..200).map(|_| envoy.begin(0, Ask::chat(&streamed("old")))).collect();
    assert!(envoy.configure(0, &config_of(&["old", "new"])));
    let others: Vec<usize> =
        ["old", "new"].map(|model| envoy.begin(0, Ask::chat(&streamed(model)))).into_iter().collect();
    for id in held.into_iter().chain(others) {
        assert!(!envoy.is_over(id));
        envoy.respond(id, Stream(vec![chunk("x"), DONE.to_owned()]));
        let story = envoy.finish(id);
        assert_eq!((story.status, story.body), (200, chunk("x") + DONE));
    }
    assert_eq!(envoy.held(0), (0, 0, 0));
}

#[test]
fn a_removed_model_is_gone() {
    let mut envoy = Envoy::new(&config_of(&["old", "other"]), good);
    assert_eq!(envoy.chat(&hello("old")).status, 200);
    assert!(envoy.configure(0, &config_of(&["other"])));
    assert_eq!(envoy.chat(&hello("old")).status, 400);
    assert_eq!(envoy.chat(&hello("other")).status, 200);
}

const GOOD_LIST: &str = "model_list: [{model_name: a, litellm_params: {model: openai/a, api_key: k}}]\n";

#[test]
fn a_broken_configuration_is_refused_by_name_and_changes_nothing() {
    for (broken, word) in [
        ("model_list: [", "YAML"),
        ("model_list: {a: b}\n", "model_list"),
        (&format!("{GOOD_LIST}router_settings:\n  num_retries: many\n"), "num_retries"),
        (&format!("{GOOD_LIST}litellm_settings:\n  fallbacks: 7\n"), "fallbacks"),
    ] {
        let mut envoy = Envoy::new(&config_of(&["old"]), good);
        assert!(!envoy.configure(0, broken), "{broken}");
        let log = envoy.process.log.borrow().clone();
        let told = log.iter().any(|(level, line)| *level == Level::Error && line.contains(word));
        assert!(told, "{broken}: {log:?}");
        assert_eq!(envoy.chat(&hello("old")).status, 200);
    }
}

#[test]
fn the_master_key_is_wanted_and_comes_from_the_environment() {
    let yaml = config_of(&["a"]) + "general_settings: {master_key: os.environ/LITELLM_MASTER_KEY}\n";
    let environment = HashMap::from_iter([("LITELLM_MASTER_KEY", "sk-master".to_owned())]);
    let mut envoy = Envoy::with_ledger(&yaml, environment, good, |_| panic!("there is no ledger"));
    assert_eq!(envoy.chat(&hello("a")).status, 401);
    assert!(envoy.sent.is_empty());
    for stream in [false, true] {
        let mut body = hello("a");
        body["stream"] = json!(stream);
        let story = envoy.call(Ask::chat(&body).with("authorization", "Bearer sk-master"));
        assert_eq!(story.status, 200, "{story:?}");
    }
    assert_eq!(envoy.process.metric("tollgate_requests;model=none;status=401"), 1);
}

#[test]
fn litellms_example_serves() {
    let yaml = include_str!("../../../tests/fixtures/config/proxy_server_config.yaml");
    let environment =
        HashMap::from_iter([("OPENAI_API_KEY", "k1".to_owned()), ("AZURE_API_KEY", "k2".to_owned())]);
    let mut envoy = Envoy::with_ledger(yaml, environment, good, |_| panic!("there is no ledger"));
    assert_eq!(envoy.chat(&hello("fake-openai-endpoint-4")).status, 401);
    let bearer = |ask: Ask| ask.with("authorization", "Bearer sk-1234");
    for model in ["fake-openai-endpoint-4", "gpt-3.5-turbo", "fake-openai-endpoint-5"] {
        let story = envoy.call(bearer(Ask::chat(&hello(model))));
        assert_eq!(story.status, 200, "{}", story.body);
    }
    let list = envoy.call(bearer(Ask::get("/v1/models"))).body;
    assert!(list.contains("fake-openai-endpoint-4"), "{list}");
}

#[test]
fn what_is_not_a_model_call_is_answered_here_or_passes() {
    let mut envoy = Envoy::new(&config_of(&["a", "b"]), |_, _| panic!("no provider is called"));
    let story = envoy.call(Ask::get("/v1/models"));
    let list: Value = serde_json::from_str(&story.body).unwrap();
    let names: Vec<&str> =
        list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!((story.status, names.as_slice()), (200, ["a", "b"].as_slice()));
    assert_eq!(envoy.call(Ask::get("/health/liveliness")).status, 200);
    assert_eq!(envoy.call(Ask::get("/no/such/route")).status, 404);
    assert_eq!(envoy.held(0), (0, 0, 0));
}

#[test]
fn a_refusal_passes_the_response_hook_once() {
    // The body is no JSON: the reply is made in the hook of the body's last part, and comes by the hook of the response.
    let mut envoy = Envoy::new(&config_of(&["a"]), |_, _| panic!("no provider is called"));
    let mut ask = Ask::chat(&json!({}));
    ask.parts = vec![b"not ".to_vec(), b"json".to_vec()];
    let story = envoy.call(ask);
    assert_eq!(story.status, 400);
    assert!(message_of(&story.body).contains("not valid JSON"), "{}", story.body);
    assert!(story.record.contains(r#""error""#), "{}", story.record);
}

#[test]
fn many_requests_at_once_are_all_answered() {
    let models = ["a", "b", "c"];
    let mut envoy = Envoy::new(&config_of(&models), late);
    envoy.add_worker();
    let ids: Vec<usize> = (0..400)
        .map(|number| {
            let mut body = hello(models[number % 3]);
            body["messages"][0]["content"] = json!(number.to_string());
            body["stream"] = json!(number % 2 == 0);
            envoy.begin(number % 2, Ask::chat(&body))
        })
        .collect();
    let mut sent: Vec<usize> = envoy
        .sent
        .iter()
        .map(|sent| sent.body["messages"][0]["content"].as_str().unwrap().parse().unwrap())
        .collect();
    sent.sort_unstable();
    assert_eq!(sent, (0..400).collect::<Vec<_>>(), "every request came to its provider once");
    for (number, id) in ids.into_iter().enumerate().rev() {
        match number % 2 {
            0 => envoy.respond(id, Stream(vec![chunk("x"), DONE.to_owned()])),
            _ => envoy.respond(id, Answer(200, completion("x"))),
        }
        assert_eq!(envoy.finish(id).status, 200);
    }
    assert_eq!((envoy.held(0), envoy.held(1)), ((0, 0, 0), (0, 0, 0)));
}

#[test]
fn attempts_with_a_time_out_of_their_own_go_through_the_listener_inside() {
    let yaml = "
model_list:
- {model_name: a, litellm_params: {model: openai/m1, api_base: 'http://p1/v1', api_key: k, timeout: 60}}
- {model_name: b, litellm_params: {model: openai/m2, api_base: 'http://p2/v1', api_key: k, timeout: 0.5}}
- {model_name: c, litellm_params: {model: openai/m3, api_base: 'http://p3/v1', api_key: k}}
router_settings: {num_retries: 0, fallbacks: [{a: [b, c]}]}
";
    let mut envoy = Envoy::new(yaml, |attempt, sent| match attempt {
        0 => Answer(500, error("broken", "x")),
        1 => Refuse,
        _ => Answer(200, completion(&sent.model)),
    });
    let story = envoy.chat(&hello("a"));
    assert_eq!((story.status, story.header("x-litellm-model-group")), (200, Some("c")));
    let models: Vec<&str> = envoy.sent.iter().map(|sent| sent.model.as_str()).collect();
    assert_eq!(models, ["m1", "m2", "m3"]);
}

#[test]
fn clients_may_go_away_at_any_moment() {
    let yaml = config_of(&["a", "b"]) + "litellm_settings: {num_retries: 0, fallbacks: [{a: [b]}]}\n";
    let mut outcomes = [0, 0];
    for patience in 1..40 {
        let mut envoy = Envoy::new(&yaml, |attempt, _| match attempt {
            0 => Answer(500, error("boom", "x")),
            _ => Stream(vec![chunk("a"), chunk("b"), DONE.to_owned()]),
        });
        envoy.patience = Some(patience);
        let id = envoy.begin(0, Ask::chat(&streamed("a")).in_parts(20));
        assert!(envoy.is_over(id));
        let story = envoy.finish(id);
        outcomes[usize::from(story.is_broken)] += 1;
        assert!(!story.record.is_empty(), "each has its line in the access log: {patience}");
        assert_eq!(envoy.held(0), (0, 0, 0), "nothing is left of it: {patience}");
    }
    assert!(outcomes[0] > 5 && outcomes[1] > 8, "{outcomes:?}");
}

#[test]
fn an_answer_that_breaks_is_told_as_broken() {
    for begun in [false, true] {
        let mut envoy = Envoy::new(&config_of(&["a"]), move |_, _| {
            Broken(if begun { vec![chunk("a"), chunk("b")] } else { vec![chunk("a")[..20].to_owned()] })
        });
        let story = envoy.chat(&streamed("a"));
        assert_eq!((story.is_broken, story.status), (begun, if begun { 200 } else { 500 }), "{story:?}");
        assert_eq!(envoy.held(0), (0, 0, 0));
    }
}

#[test]
fn what_envoy_refuses_is_worded_here() {
    let mut envoy = Envoy::new(&config_of(&["a"]), |_, _| panic!("no provider is called"));
    for (status, details, told) in [
        (413, "request_payload_too_large", 413),
        (408, "request_overall_timeout", 408),
        (400, "http1.codec_error", 400),
    ] {
        let mut ask = Ask::chat(&hello("a"));
        (ask.parts, ask.is_open) = (vec![b"{\"model\"".to_vec()], true);
        let id = envoy.begin(0, ask);
        assert!(!envoy.is_over(id), "the rest of its body is awaited");
        envoy.refuse(id, status, details);
        let story = envoy.finish(id);
        assert_eq!(story.status, told);
        assert!(!message_of(&story.body).is_empty() && story.header("x-litellm-call-id").is_some());
    }
}

#[test]
fn each_worker_and_each_request_has_an_id_of_its_own() {
    let seen = Rc::new(Cell::new(0));
    let counted = Rc::clone(&seen);
    let mut envoy = Envoy::new(&config_of(&["a"]), move |_, sent| {
        counted.set(counted.get() + 1);
        Answer(200, completion(&sent.model))
    });
    envoy.add_worker();
    let mut ids: Vec<String> = (0..10)
        .map(|number| {
            let id = envoy.begin(number % 2, Ask::chat(&hello("a")));
            envoy.finish(id).header("x-litellm-call-id").unwrap().to_owned()
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), seen.get()), (10, 10));
}
