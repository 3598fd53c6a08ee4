//! Routing settings and controls, seen from outside: who is called, what it is sent, what the client reads.

use super::*;

fn rig(settings: &str) -> Rig {
    Rig::new(&format!(
        r#"
model_list:
  - {{model_name: a, litellm_params: {{model: openai/a1, api_base: "http://a.test/v1", api_key: ka}}}}
  - {{model_name: b, litellm_params: {{model: openai/b1, api_base: "http://b.test/v1", api_key: kb}}}}
  - {{model_name: c, litellm_params: {{model: anthropic/c1, api_base: "http://c.test", api_key: kc}}}}
  - {{model_name: w, litellm_params: {{model: azure/w1, api_base: "http://w.test", api_version: "1", api_key: kw}}}}
  - {{model_name: g, litellm_params: {{model: groq/g1, api_base: "http://g.test/v1", api_key: kg}}}}
  - {{model_name: "x/*", litellm_params: {{model: "openai/ft-*", api_base: "http://x.test/v1", api_key: kx}}}}
{settings}"#
    ))
}

fn with(model: &str, members: Value) -> Value {
    let mut body = hello(model);
    for (name, value) in members.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn good(model: &str) -> Behaviour {
    if model == "c1" { Answer(200, message()) } else { Answer(200, completion(model)) }
}

#[test]
fn names_find_their_group() {
    let settings = "router_settings: {model_group_alias: {alias: b, hidden: {model: c, hidden: true}}}\n\
                    litellm_settings: {model_alias_map: {old: a}}";
    let rows = [
        ("a group", Some("a"), "a1", "a"),
        ("an alias", Some("alias"), "b1", "b"),
        ("a hidden alias", Some("hidden"), "c1", "c"),
        ("a rename", Some("old"), "a1", "a"),
        ("a wildcard", Some("x/tuned"), "ft-tuned", "x/*"),
        ("none: the first of the file", None, "a1", "a"),
    ];
    for (name, model, called, group) in rows {
        let mut body = hello("-");
        match model {
            Some(model) => body["model"] = json!(model),
            None => _ = body.as_object_mut().unwrap().shift_remove("model"),
        }
        let story = rig(settings).chat(body, |_, model| good(model));
        assert_eq!((story.status, story.models.as_slice()), (200, &[called.to_owned()][..]), "{name}");
        assert_eq!(story.header("x-litellm-model-group"), Some(group), "{name}");
    }
    let story = rig("general_settings: {completion_model: b}").chat(hello("a"), |_, model| good(model));
    assert_eq!(story.models, ["b1"], "the server's own choice");
    let story =
        rig("").call("/openai/deployments/b/chat/completions?api-version=1", hello("a"), |_, m| good(m));
    assert_eq!(story.models, ["b1"], "the path names the model");
}

#[test]
fn a_name_of_megabytes_is_refused_even_where_a_wildcard_takes_all() {
    let longest = format!("x/{}", "n".repeat(1_022));
    let story = rig("").chat(hello(&longest), |_, model| good(model));
    assert_eq!((story.status, story.models.len()), (200, 1));
    for path in ["/v1/chat/completions".to_owned(), format!("/engines/{longest}n/chat/completions")] {
        let story = rig("").call(&path, hello(&format!("{longest}n")), |_, model| good(model));
        assert_eq!((story.status, story.models.len()), (400, 0), "{path:.20}");
        assert!(story.message().starts_with("`model` has 1025 bytes"), "{}", story.message());
    }
}

#[test]
fn fallbacks_of_the_client_in_every_form() {
    let own = json!([{"model": "b", "temperature": 0.5, "stream": true}, "c"]);
    let rows = [
        ("names", json!(["b", "c"]), vec!["a1", "b1", "c1"]),
        ("maps with a model", own, vec!["a1", "b1", "c1"]),
        ("the router's form", json!([{"a": ["c"]}]), vec!["a1", "c1"]),
        ("the router's form, for others", json!([{"b": ["c"]}]), vec!["a1"]),
        ("unknown names", json!(["nobody", "b"]), vec!["a1", "b1"]),
        ("none", json!([]), vec!["a1"]),
    ];
    for (name, fallbacks, called) in rows {
        let last = called.len() - 1;
        let body = with("a", json!({"fallbacks": fallbacks, "num_retries": 0, "temperature": 1}));
        let story = rig("").chat(body, |attempt, model| {
            if attempt == last && last > 0 { good(model) } else { Answer(500, error("boom", "x")) }
        });
        assert_eq!(story.models, called, "{name}");
        assert_eq!(story.status, if last > 0 { 200 } else { 500 }, "{name}");
        if last > 0 {
            assert_eq!(story.header("x-litellm-attempted-fallbacks"), Some(last.to_string().as_str()));
        }
        if name == "maps with a model" {
            assert_eq!(
                (&story.bodies[0]["temperature"], &story.bodies[1]["temperature"]),
                (&json!(1), &json!(0.5))
            );
            assert_eq!(story.bodies[1].get("stream"), None, "how the answer comes is settled");
        }
    }
    let story = rig("router_settings: {num_retries: 0, fallbacks: [{a: [b]}]}")
        .chat(with("a", json!({"disable_fallbacks": true})), |_, _| Answer(500, error("boom", "x")));
    assert_eq!((story.status, story.models.len()), (500, 1));
}

#[test]
fn headers_of_success_and_failure() {
    let settings = "router_settings: {num_retries: 2, fallbacks: [{a: [b]}]}";
    let story = rig(settings).chat(hello("a"), |attempt, model| match attempt {
        0..=2 => Answer(500, error("boom", "x")),
        3 => Answer(503, error("busy", "x")),
        _ => good(model),
    });
    let wanted = [
        ("x-litellm-model-group", "b"),
        ("x-litellm-attempted-retries", "1"),
        ("x-litellm-max-retries", "2"),
        ("x-litellm-attempted-fallbacks", "1"),
        ("x-litellm-model-api-base", "http://b.test/v1"),
        ("llm_provider-x-request-id", "r1"),
    ];
    for (name, value) in wanted {
        assert_eq!(story.header(name), Some(value), "{name}");
    }
    assert!(story.header("x-litellm-call-id").is_some() && story.header("x-litellm-version").is_some());

    let story = rig("router_settings: {num_retries: 1}").chat(hello("a"), |_, _| {
        Raw(Raw {
            status: 429,
            headers: vec![("content-type", "application/json".to_owned()), ("retry-after", "7".to_owned())],
            pieces: vec![error("slow down", "rate_limit").to_string().into_bytes()],
            cut: false,
        })
    });
    assert_eq!((story.status, story.models.len()), (429, 2));
    let wanted = [
        ("x-litellm-model-group", "a"),
        ("x-litellm-attempted-retries", "1"),
        ("x-litellm-attempted-fallbacks", "0"),
        ("llm_provider-retry-after", "7"),
        ("retry-after", "7"),
        ("content-type", "application/json"),
    ];
    for (name, value) in wanted {
        assert_eq!(story.header(name), Some(value), "{name}");
    }
    assert!(story.header("x-litellm-call-id").is_some());
}

#[test]
fn a_group_that_rests_counts_as_left_behind() {
    let mut rig = rig("router_settings: {num_retries: 0, cooldown_time: 60, fallbacks: [{a: [b]}]}");
    for _ in 0..2 {
        let story = rig.chat(hello("a"), |_, model| match model {
            "a1" => Answer(401, error("bad key", "x")),
            model => good(model),
        });
        assert_eq!((story.status, story.header("x-litellm-attempted-fallbacks")), (200, Some("1")));
    }
    assert_eq!(rig.chat(hello("a"), |_, model| good(model)).models, ["b1"]);
    let story = rig.chat(hello("a"), |_, _| Answer(500, error("boom", "x")));
    let message = story.message();
    assert!(message.ends_with("Received Model Group=a\nAvailable Model Group Fallbacks=['b']"), "{message}");
}

#[test]
fn retry_policies_count_calls() {
    let settings =
        "router_settings: {num_retries: 1, retry_policy: {RateLimitErrorRetries: 3, TimeoutErrorRetries: 0}}";
    for (status, calls) in [(429, 4), (408, 1), (500, 2), (400, 1), (404, 1)] {
        let story = rig(settings).chat(hello("a"), |_, _| Answer(status, error("no", "x")));
        assert_eq!((story.status, story.models.len()), (status, calls), "{status}");
    }
    let story = rig(settings).chat(hello("a"), |_, _| Hang);
    assert_eq!((story.status, story.models.len()), (408, 1), "silence has the retries of a time-out");
    let story = rig(settings).chat(with("a", json!({"num_retries": 2})), |_, _| Hang);
    assert_eq!(story.models.len(), 3, "the request's number is before all");
}

#[test]
fn who_is_alone_in_its_group_is_given_time() {
    let limited = |seconds: &'static str| {
        Raw(super::Raw {
            status: 429,
            headers: vec![
                ("content-type", "application/json".to_owned()),
                ("retry-after", seconds.to_owned()),
            ],
            pieces: vec![error("slow down", "x").to_string().into_bytes()],
            cut: false,
        })
    };
    let settings = "router_settings: {num_retries: 4, disable_cooldowns: true, fallbacks: [{b: [c]}]}";
    let failing = |attempt: usize, _: &str| match attempt {
        0 => limited("3"),
        1 => limited("61"),
        2 => Refuse,
        _ => Answer(500, error("boom", "x")),
    };
    let story = rig(settings).chat(hello("b"), failing);
    // Each retry of an answer; a refused connection asks for none; the fallback is somebody else.
    assert_eq!(story.waits[..3], [Some(3), Some(1), Some(4)], "{story:?}");
    assert_eq!(story.waits[3], None, "{story:?}");
    let slow = "router_settings: {num_retries: 1, disable_cooldowns: true, retry_after: 5}";
    let story = rig(slow).chat(hello("b"), |_, _| Answer(500, error("boom", "x")));
    assert_eq!(story.waits, [Some(5)]);
}

#[test]
fn nobody_waits_for_who_has_not_failed() {
    let two = "
model_list:
  - {model_name: a, litellm_params: {model: openai/x, api_key: k}}
  - {model_name: a, litellm_params: {model: openai/y, api_key: k}}
router_settings: {num_retries: 2, disable_cooldowns: true, retry_after: 5}";
    let story = Rig::new(two).chat(hello("a"), |_, _| Answer(500, error("boom", "x")));
    assert_eq!(story.waits, [None, None]);
}

#[test]
fn a_filtered_answer_goes_to_the_content_policy_fallback() {
    let filtered = |model: &str| match model {
        "c1" => {
            let mut answer = message();
            answer["stop_reason"] = json!("refusal");
            Answer(200, answer)
        }
        model => {
            let mut answer = completion(model);
            answer["choices"][0]["finish_reason"] = json!("content_filter");
            Answer(200, answer)
        }
    };
    let rows = [
        ("for its group", "content_policy_fallbacks: [{a: [b]}]", "a", vec!["a1", "b1"]),
        ("for another format", "content_policy_fallbacks: [{c: [b]}]", "c", vec!["c1", "b1"]),
        ("for another group", "content_policy_fallbacks: [{c: [b]}]", "a", vec!["a1"]),
        ("general ones", "fallbacks: [{a: [b]}]", "a", vec!["a1"]),
        ("default ones", "default_fallbacks: [b]", "a", vec!["a1", "b1"]),
        ("none", "num_retries: 1", "a", vec!["a1"]),
    ];
    for (name, settings, model, called) in rows {
        let mut rig = rig(&format!("router_settings: {{{settings}}}"));
        let story =
            rig.chat(hello(model), |attempt, model| if attempt == 0 { filtered(model) } else { good(model) });
        assert_eq!(
            (story.status, story.models),
            (200, called.iter().map(|m| (*m).to_owned()).collect()),
            "{name}"
        );
    }
    let mut rig = rig("router_settings: {content_policy_fallbacks: [{a: [b]}]}");
    let story = rig.chat(with("a", json!({"disable_fallbacks": true})), |_, model| filtered(model));
    assert_eq!(story.status, 200, "without a fallback the answer stands");
    let story = rig.chat(hello("a"), |_, model| filtered(model));
    assert_eq!((story.status, story.models.len()), (200, 2), "the fallback's own filter has no fallback");
    let talk = json!({"id": "1", "choices": [{"index": 0, "finish_reason": "stop",
                      "message": {"role": "assistant", "content": "say \"content_filter\""}}]});
    let story = rig.chat(hello("a"), |_, _| Answer(200, talk.clone()));
    assert_eq!((story.status, story.models.len()), (200, 1), "the word alone means nothing");
}

#[test]
fn endpoints_and_keys_of_the_client() {
    let open = "general_settings: {allow_client_side_credentials: true}";
    let rows = [
        ("an endpoint", "", json!({"api_base": "http://evil.test"}), 401, "api_base"),
        ("by its other name", "", json!({"base_url": "http://evil.test"}), 401, "base_url"),
        ("with a key", "", json!({"api_base": "http://own.test", "api_key": "own"}), 400, "api_base"),
        ("allowed", open, json!({"api_base": "http://own.test"}), 400, "api_base"),
        ("a key, allowed", open, json!({"api_key": "own"}), 400, "api_key"),
        (
            "in a fallback",
            "",
            json!({"fallbacks": [{"model": "b", "api_base": "http://evil.test"}]}),
            401,
            "api_base",
        ),
        (
            "in a table of fallbacks",
            "",
            json!({"context_window_fallbacks": [{"a": [{"model": "b", "base_url": "http://evil.test"}]}]}),
            401,
            "base_url",
        ),
    ];
    for (name, settings, members, status, member) in rows {
        let story = rig(settings).chat(with("a", members), |_, _| panic!("nobody is called: {name}"));
        assert_eq!(story.status, status, "{name}");
        let body: Value = serde_json::from_str(&story.body).unwrap();
        let text = body["error"]["message"].as_str().unwrap();
        if status == 401 {
            let exact = format!(
                "Authentication Error, Rejected Request: {member} is not allowed in request body. Enable with `general_settings::allow_client_side_credentials` on proxy config.yaml."
            );
            assert_eq!(
                (text, body["error"]["type"].as_str()),
                (exact.as_str(), Some("auth_error")),
                "{name}"
            );
        } else {
            assert!(text.contains(member) && text.contains("cannot be used yet"), "{name}: {text}");
        }
    }
    for members in [json!({"api_key": "own"}), json!({"api_base": null})] {
        let mut rig = rig("");
        let story = rig.chat(with("a", members), |_, model| good(model));
        assert_eq!(story.status, 200);
        assert!(!story.bodies[0].to_string().contains("own") && story.bodies[0].get("api_base").is_none());
    }
}

#[test]
fn prices_in_a_request_change_nothing() {
    let body = with("a", json!({"input_cost_per_token": 0, "output_cost_per_token": 0}));
    let story = rig("").chat(body, |_, _| Answer(200, completion("gpt-4o")));
    assert_eq!(story.header("x-litellm-response-cost"), Some("0.0075"));
    assert_eq!(story.bodies[0].get("input_cost_per_token"), None);
}

#[test]
fn an_anthropic_request_keeps_its_own_members_from_openai() {
    let ask = |model: &str| {
        json!({"model": model, "max_tokens": 5, "top_k": 3, "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "hi"}]},
            {"role": "user", "content": "and?"}]})
    };
    for (model, top_k) in [("a", None), ("w", None), ("g", Some(3))] {
        let story = rig("").call("/v1/messages", ask(model), |_, model| good(model));
        assert_eq!(story.status, 200, "{}", story.body);
        let sent = &story.bodies[0];
        assert_eq!(sent.get("top_k").and_then(Value::as_i64), top_k, "{model}");
        assert_eq!(sent["messages"][1], json!({"role": "assistant", "content": "hi"}), "{model}");
    }
    let story = rig("").call("/v1/messages", ask("c"), |_, model| good(model));
    assert_eq!((&story.bodies[0]["top_k"], &story.bodies[0]["messages"]), (&json!(3), &ask("c")["messages"]));
}

/// The client reads the same status, and as much is called, whether the provider says it with a status or in a stream that has begun.
#[test]
fn a_failure_in_a_streams_first_event_counts_like_one_in_the_head() {
    for (status, error) in [
        (400, json!({"message": "no", "code": 400})),
        (402, json!({"message": "pay", "code": "402"})),
        (409, json!({"message": "busy", "code": 409})),
        (422, json!({"message": "no", "code": 422})),
        (429, json!({"message": "slow", "code": 429})),
        (500, json!({"message": "down", "code": 500})),
        (502, json!({"message": "down", "code": 502})),
        (
            400,
            json!({"message": "prompt", "type": "invalid_request_error", "code": "context_length_exceeded"}),
        ),
        (401, json!({"message": "key", "code": "invalid_api_key"})),
        (404, json!({"message": "model", "code": "model_not_found"})),
    ] {
        let body = json!({"error": error});
        let ask = |play: &dyn Fn() -> Behaviour| {
            let story = rig("").chat(with("a", json!({"stream": true})), |_, _| play());
            (story.status, story.models.len(), story.message(), story.record.unwrap().failure)
        };
        let head = ask(&|| Answer(status, body.clone()));
        assert_eq!(ask(&|| Stream(vec![format!("data: {body}\n\n")])), head, "{body}");
    }
}
