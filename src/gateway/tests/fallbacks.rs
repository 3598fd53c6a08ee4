//! Where a failed request goes next, over both roles and Envoy's router: by kind of failure, by configuration, and by what the
//! client asks for.

use super::{envoy::*, *};

/// How each wire says that something went wrong: status and body.
fn failure(wire: &str, kind: &str) -> (u16, Value) {
    if wire == "anthropic" {
        let (status, class, message) = match kind {
            "bad_request" => {
                (400, "invalid_request_error", "temperature: Input should be less than or equal to 1")
            }
            "context_window" => {
                (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum")
            }
            "content_policy" => (400, "invalid_request_error", "Output blocked by content filtering policy"),
            "auth" => (401, "authentication_error", "invalid x-api-key"),
            "not_found" => (404, "not_found_error", "model: gone"),
            "rate_limit" => (429, "rate_limit_error", "This request would exceed your organization's limit."),
            _ => (500, "api_error", "Internal server error"),
        };
        return (status, json!({"type": "error", "error": {"type": class, "message": message}}));
    }
    let (status, code, message) = match kind {
        "bad_request" => (400, "", "Invalid value for 'temperature'."),
        "context_window" => {
            (400, "context_length_exceeded", "This model's maximum context length is 4097 tokens.")
        }
        "content_policy" if wire == "azure" => (
            400,
            "content_filter",
            "The response was filtered due to Azure OpenAI's content management policy.",
        ),
        "content_policy" => {
            (400, "content_policy_violation", "Your request was rejected as a result of our safety system.")
        }
        "auth" => (401, "invalid_api_key", "Incorrect API key provided."),
        "not_found" => (404, "model_not_found", "The model `gone` does not exist."),
        "rate_limit" => (429, "rate_limit_exceeded", "Rate limit reached for requests."),
        _ => (500, "", "The server had an error while processing your request."),
    };
    (status, error(message, code))
}

const WIRES: [&str; 3] = ["openai", "azure", "anthropic"];

/// A failing group of each wire, and three groups to fall back to.
fn world() -> String {
    let mut yaml = "model_list:\n".to_owned();
    let mut add = |name: &str, params: &str| {
        yaml += &format!(
            "- {{model_name: {name}, litellm_params: {{{params}, api_key: k}}, model_info: {{id: {name}}}}}\n"
        );
    };
    for place in ["big", "safe", "spare"] {
        add(place, &format!("model: openai/{place}, api_base: 'http://{place}.test/v1'"));
    }
    for wire in WIRES {
        for kind in ["special", "general", "none"] {
            let more = if wire == "azure" { ", api_version: '2024-10-21'" } else { "" };
            let base = format!("model: {wire}/failing, api_base: 'http://{wire}.test'{more}");
            add(&format!("{wire}-{kind}"), &base);
        }
    }
    for base in ["http://pair-1.test/v1", "http://pair-2.test/v1"] {
        yaml += &format!(
            "- {{model_name: pair, litellm_params: {{model: openai/failing, api_base: '{base}', api_key: k}}}}\n"
        );
    }
    yaml += "- {model_name: slow, litellm_params: {model: openai/failing, api_base: 'http://s.test', api_key: k, timeout: 20}}\n";
    let lists = |place: &str| {
        WIRES
            .map(|wire| {
                format!("{{{wire}-{}: [{place}]}}", if place == "spare" { "general" } else { "special" })
            })
            .join(", ")
    };
    yaml + &format!(
        "litellm_settings: {{num_retries: 0, context_window_fallbacks: [{}], content_policy_fallbacks: [{}], fallbacks: [{}]}}\n\
         router_settings: {{disable_cooldowns: true}}\n",
        lists("big"),
        lists("safe"),
        lists("spare")
    )
}

/// The failing model fails in this way, all others serve.
fn failing(wire: &'static str, kind: &'static str, streaming: bool) -> Envoy {
    Envoy::new(&world(), move |_, sent| match sent.model.as_str() {
        "failing" => {
            let (status, body) = failure(wire, kind);
            Answer(status, body)
        }
        _ if streaming => Stream(vec![chunk("hi"), "data: [DONE]\n\n".to_owned()]),
        model => Answer(200, completion(model)),
    })
}

/// Models asked, in order, but for those that fail.
fn used(envoy: &Envoy) -> Vec<&str> {
    envoy.sent.iter().map(|sent| sent.model.as_str()).filter(|model| *model != "failing").collect()
}

fn tries(envoy: &Envoy) -> usize {
    envoy.sent.iter().filter(|sent| sent.model == "failing").count()
}

#[test]
fn each_failure_goes_to_its_own_fallback() {
    let rows: [(&str, &'static str, Option<&str>, u16); 12] = [
        ("special", "context_window", Some("big"), 200),
        ("special", "content_policy", Some("safe"), 200),
        ("special", "bad_request", None, 400),
        ("special", "server", None, 500),
        ("general", "context_window", None, 400),
        ("general", "content_policy", None, 400),
        ("general", "bad_request", Some("spare"), 200),
        ("general", "server", Some("spare"), 200),
        ("general", "rate_limit", Some("spare"), 200),
        ("general", "auth", Some("spare"), 200),
        ("general", "not_found", Some("spare"), 200),
        ("none", "server", None, 500),
    ];
    for wire in WIRES {
        for (group, kind, place, status) in rows {
            for path in ["/v1/chat/completions", "/v1/messages"] {
                for streaming in [false, true] {
                    let case = format!("{wire} {group} {kind} {path} {streaming}");
                    let mut envoy = failing(wire, kind, streaming);
                    let mut body = hello(&format!("{wire}-{group}"));
                    body["max_tokens"] = json!(5);
                    body["stream"] = json!(streaming);
                    let story = envoy.call(Ask::to(path, &body));
                    assert_eq!(story.status, status, "{case}: {}", story.body);
                    assert_eq!(used(&envoy), place.into_iter().collect::<Vec<_>>(), "{case}");
                    assert_eq!(tries(&envoy), 1, "{case}");
                    if place.is_some() {
                        assert_eq!(story.header("x-litellm-model-group"), place, "{case}");
                        assert_eq!(story.header("x-litellm-model-id"), place, "{case}");
                        assert_eq!(story.header("x-litellm-attempted-fallbacks"), Some("1"), "{case}");
                    } else {
                        let said = failure(wire, kind).1["error"]["message"].as_str().unwrap().to_owned();
                        assert!(message_of(&story.body).contains(&said), "{case}: {}", story.body);
                    }
                    assert_eq!(envoy.held(0), (0, 0, 0), "{case}");
                }
            }
        }
    }
}

/// A gateway of these groups; what each of them does, in order. One that has nothing left to do serves.
fn scripted(yaml: &str, script: &[(&'static str, Behaviour)]) -> Envoy {
    let mut script = script.to_vec();
    Envoy::new(yaml, move |_, sent| {
        let at = script.iter().position(|(model, _)| *model == sent.model);
        at.map_or_else(|| Answer(200, completion(&sent.model)), |at| script.remove(at).1)
    })
}

fn broken() -> Behaviour {
    Answer(500, error("boom", "x"))
}

fn with(model: &str, more: Value) -> Value {
    let mut body = hello(model);
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn a_long_prompt_without_a_list_of_its_own_takes_the_general_one() {
    let yaml = "
model_list:
- {model_name: a, litellm_params: {model: openai/failing, api_base: 'http://a.test', api_key: k}}
- {model_name: b, litellm_params: {model: openai/spare, api_base: 'http://b.test', api_key: k}}
litellm_settings: {num_retries: 0, default_fallbacks: [b]}
";
    let (status, body) = failure("openai", "context_window");
    let mut envoy = scripted(yaml, &[("failing", Answer(status, body))]);
    let story = envoy.chat(&hello("a"));
    assert_eq!((story.status, used(&envoy)), (200, vec!["spare"]));
}

#[test]
fn the_client_names_fallbacks_or_turns_them_off() {
    let mut envoy = scripted(&world(), &[("failing", broken())]);
    assert_eq!(envoy.chat(&with("azure-none", json!({"fallbacks": ["spare"]}))).status, 200);
    assert_eq!(used(&envoy), ["spare"]);
    assert_eq!(envoy.sent[1].body.get("fallbacks"), None);

    let several = json!({"fallbacks": ["spare", {"model": "big"}]});
    let mut envoy = scripted(&world(), &[("failing", broken()), ("spare", Answer(503, error("x", "y")))]);
    assert_eq!(envoy.chat(&with("azure-none", several)).status, 200);
    assert_eq!(used(&envoy), ["spare", "big"]);

    let mut envoy = scripted(&world(), &[("failing", broken())]);
    assert_eq!(envoy.chat(&with("openai-general", json!({"disable_fallbacks": true}))).status, 500);
    assert!(used(&envoy).is_empty());
}

#[test]
fn the_client_asks_for_retries() {
    for by_header in [false, true] {
        let script = [("failing", broken()), ("failing", Answer(503, error("x", "y")))];
        let mut envoy = scripted(&world(), &script);
        let ask = match by_header {
            true => Ask::chat(&hello("pair")).with("x-litellm-num-retries", "2"),
            false => Ask::chat(&with("pair", json!({"num_retries": 2}))),
        };
        let story = envoy.call(ask);
        assert_eq!((story.status, envoy.sent.len()), (200, 3), "{}", story.body);
        assert_eq!(story.header("x-litellm-attempted-retries"), Some("2"));
        assert_eq!(story.header("x-litellm-max-retries"), Some("2"));
        assert!(envoy.sent.iter().all(|sent| sent.body.get("num_retries").is_none()));
        // Attempts share one header map: what one left there the next has put right.
        let hosts: Vec<&str> = envoy
            .sent
            .iter()
            .map(|sent| sent.headers.iter().find(|(name, _)| name == ":authority").unwrap().1.as_str())
            .collect();
        assert!(hosts.contains(&"pair-1.test") && hosts.contains(&"pair-2.test"), "{hosts:?}");
    }
}

#[test]
fn nothing_attempted_is_told_as_zero() {
    let mut envoy = scripted(&world(), &[]);
    let story = envoy.chat(&hello("spare"));
    assert_eq!(story.header("x-litellm-attempted-retries"), Some("0"));
    assert_eq!(story.header("x-litellm-attempted-fallbacks"), Some("0"));
    assert_eq!(story.header("x-litellm-model-group"), Some("spare"));
}

#[test]
fn the_client_sets_a_time_out() {
    for by_header in [false, true] {
        for streaming in [false, true] {
            let mut envoy = scripted(&world(), &[("failing", Hang)]);
            let mut body = with("slow", json!({"stream": streaming}));
            let ask = if by_header {
                Ask::chat(&body).with("x-litellm-timeout", "0.3")
            } else {
                body["timeout"] = json!(0.3);
                Ask::chat(&body)
            };
            let before = envoy.process.now_ms.get();
            let story = envoy.call(ask);
            assert_eq!((story.status, envoy.process.now_ms.get() - before), (408, 300), "{}", story.body);
            assert!(message_of(&story.body).contains("litellm.Timeout"));
            assert!(story.header("x-litellm-timeout").is_some());
        }
    }
}

#[test]
fn a_bad_request_is_not_retried() {
    let (status, body) = failure("openai", "bad_request");
    let mut envoy = scripted(&world(), &[("failing", Answer(status, body))]);
    assert_eq!(envoy.chat(&with("pair", json!({"num_retries": 3}))).status, 400);
    assert_eq!(envoy.sent.len(), 1);
}

#[test]
fn mocks_call_nobody() {
    for (mock, status, name) in [
        ("hello", 200, "hello"),
        ("litellm.RateLimitError", 429, "RateLimitError"),
        ("litellm.ContextWindowExceededError", 400, "ContextWindowExceededError"),
        ("litellm.InternalServerError", 500, "InternalServerError"),
    ] {
        let mut envoy = scripted(&world(), &[]);
        let story = envoy.chat(&with("openai-none", json!({"mock_response": mock})));
        assert_eq!((story.status, envoy.sent.len()), (status, 0), "{}", story.body);
        assert!(story.body.contains(name), "{}", story.body);
    }
    for (flag, group, place) in [
        ("mock_testing_fallbacks", "openai-general", "spare"),
        ("mock_testing_context_fallbacks", "openai-special", "big"),
        ("mock_testing_content_policy_fallbacks", "openai-special", "safe"),
    ] {
        let mut envoy = scripted(&world(), &[]);
        let story = envoy.chat(&with(group, json!({flag: true})));
        assert_eq!((story.status, tries(&envoy)), (200, 0), "{}", story.body);
        assert_eq!(used(&envoy), [place]);
    }
}

const REFUSED: &str = "
model_list:
- {model_name: nowhere, litellm_params: {model: openai/x, api_base: 'http://nowhere.test', api_key: k}}
- {model_name: good, litellm_params: {model: openai/good, api_base: 'http://good.test', api_key: k}}
- {model_name: mock, litellm_params: {model: openai/gpt-4o, api_key: k, mock_response: from the mock}}
litellm_settings: {num_retries: 0, fallbacks: [{nowhere: [good]}]}
";

#[test]
fn a_refused_connection_falls_back() {
    let mut envoy = scripted(REFUSED, &[("x", Refuse)]);
    let story = envoy.chat(&hello("nowhere"));
    assert_eq!((story.status, story.header("x-litellm-model-group")), (200, Some("good")));
    // Where there is nothing else, the client hears that there was no connection, and pays nothing.
    let mut envoy = scripted(REFUSED, &[("x", Refuse)]);
    let story = envoy.chat(&with("nowhere", json!({"disable_fallbacks": true})));
    assert_eq!(story.status, 500, "{}", story.body);
    assert!(message_of(&story.body).contains("Connection error."), "{}", story.body);
    assert_eq!(story.header("x-litellm-response-cost"), Some("0"));
}

#[test]
fn a_mock_can_be_fallen_back_to() {
    let mut envoy = scripted(&REFUSED.replace("[good]", "[mock]"), &[("x", Refuse)]);
    let story = envoy.chat(&hello("nowhere"));
    assert_eq!(story.status, 200, "{}", story.body);
    let answer: Value = serde_json::from_str(&story.body).unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "from the mock");
    assert_eq!(story.header("x-litellm-attempted-fallbacks"), Some("1"));
    assert!(story.header("x-litellm-response-cost").unwrap().parse::<f64>().unwrap() > 0.0);
}

#[test]
fn all_have_failed_and_the_first_error_is_told() {
    let script =
        [("failing", Answer(500, error("first", "x"))), ("spare", Answer(500, error("second", "x")))];
    let mut envoy = scripted(&world(), &script);
    let story = envoy.chat(&hello("openai-general"));
    let message = message_of(&story.body);
    assert_eq!(story.status, 500);
    assert!(message.contains("first") && !message.contains("second"), "{message}");
}

/// What a provider may send before its answer, and how it goes on.
#[test]
fn a_stream_that_says_nothing_before_it_fails_falls_over() {
    let comment = || ": OPENROUTER PROCESSING\n\n".to_owned();
    let role = || chunk("").replace("{\"content\":\"\"}", "{\"role\":\"assistant\",\"content\":\"\"}");
    let failure = || format!("data: {}\n\n", json!({"error": {"message": "boom", "code": 500}}));
    let limit = || {
        format!(
            "data: {}\n\n",
            error("This model's maximum context length is 4097 tokens", "context_length_exceeded")
        )
    };
    let rows = [
        ("general", Broken(vec![comment()]), "spare"),
        ("general", Broken(vec![comment(), comment(), role()]), "spare"),
        ("general", Stream(vec![comment()]), "spare"),
        ("general", Stream(vec![comment(), role(), failure()]), "spare"),
        ("special", Stream(vec![comment(), limit()]), "big"),
        ("general", Answer(200, json!({"error": {"message": "boom", "code": 429}})), "spare"),
        (
            "special",
            Answer(200, error("maximum context length is 1 tokens", "context_length_exceeded")),
            "big",
        ),
        ("general", Answer(200, json!({"choices": null})), "spare"),
    ];
    for path in ["/v1/chat/completions", "/v1/messages"] {
        for (group, play, place) in &rows {
            let streaming = !matches!(play, Answer(..));
            let play = play.clone();
            let mut envoy = Envoy::new(&world(), move |_, sent| match sent.model.as_str() {
                "failing" => play.clone(),
                _ if streaming => Stream(vec![chunk("hi"), "data: [DONE]\n\n".to_owned()]),
                model => Answer(200, completion(model)),
            });
            let mut body = with(&format!("openai-{group}"), json!({"stream": streaming}));
            body["max_tokens"] = json!(5);
            let story = envoy.call(Ask::to(path, &body));
            assert_eq!(
                (story.status, story.is_broken, used(&envoy)),
                (200, false, vec![*place]),
                "{path} {story:?}"
            );
            assert!(!story.body.contains("PROCESSING") && !story.body.contains("boom"), "{}", story.body);
            assert_eq!(envoy.held(0), (0, 0, 0));
        }
    }
}

#[test]
fn what_comes_before_the_answer_goes_out_in_order_with_it() {
    let stream = || {
        let role = chunk("").replace("{\"content\":\"\"}", "{\"role\":\"assistant\",\"content\":\"\"}");
        let comment = ": OPENROUTER PROCESSING\n\n".to_owned();
        vec![comment.clone(), role, comment.clone(), chunk("hi"), comment, "data: [DONE]\n\n".to_owned()]
    };
    let mut envoy = Envoy::new(&world(), move |_, _| Stream(stream()));
    let story = envoy.chat(&with("openai-general", json!({"stream": true})));
    assert_eq!((story.status, story.body), (200, stream().concat()));
}
