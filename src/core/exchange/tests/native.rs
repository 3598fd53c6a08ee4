//! What clients of Anthropic's API get.

use super::*;

#[test]
fn modify_params_of_a_deployment_amends_its_requests_and_is_not_sent() {
    let yaml = |params: &str, global: bool| {
        format!(
            "model_list: [{{model_name: c, litellm_params: {{model: anthropic/claude-3-opus-20240229, api_base: 'http://d.test', \
             api_key: k{params}}}}}]\nlitellm_settings: {{modify_params: {global}}}"
        )
    };
    let rows = [
        ("", false, json!({}), 400),
        ("", true, json!({}), 200),
        (", modify_params: true", false, json!({}), 200),
        (", modify_params: false", true, json!({}), 400),
        ("", false, json!({"modify_params": true}), 200),
    ];
    for (params, global, said, status) in rows {
        let mut body = json!({"model": "c", "messages": [{"role": "assistant", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
        let story = Rig::new(&yaml(params, global)).chat(body, |_, _| Answer(200, message()));
        assert_eq!(story.status, status, "{params} {global}: {}", story.body);
        assert!(story.bodies.iter().all(|body| body.get("modify_params").is_none()), "{:?}", story.bodies);
    }
    // A request that is not translated has it neither.
    for params in ["", ", modify_params: true"] {
        let mut body = hello("c");
        body.as_object_mut()
            .unwrap()
            .extend(json!({"max_tokens": 5, "modify_params": true}).as_object().unwrap().clone());
        let story = Rig::new(&yaml(params, true)).call("/v1/messages", body, |_, _| Answer(200, message()));
        assert_eq!((story.status, story.bodies[0].get("modify_params")), (200, None));
    }
}

const CLAUDE: &str = r#"
model_list:
  - {model_name: c, litellm_params: {model: anthropic/claude-3-opus-20240229, api_base: "http://d.test", api_key: sk-ant-secret-1}}
  - {model_name: o, litellm_params: {model: openai/gpt-4o, api_base: "http://o.test/v1", api_key: k}}
litellm_settings: {num_retries: 0}
"#;

fn ask(model: &str) -> Value {
    json!({"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]})
}

/// A failure of Anthropic's, with the id of its request in a header when there is one.
fn failure(status: u16, body: &Value, id: Option<&'static str>) -> Behaviour {
    let mut headers = vec![("content-type", "application/json".to_owned())];
    headers.extend(id.map(|id| ("request-id", id.to_owned())));
    Raw(super::rig::Raw { status, headers, pieces: vec![body.to_string().into_bytes()], cut: false })
}

/// The error that a client of Anthropic's API got: its status, type, details, and its id, which is the header's too.
fn told(story: &Story) -> (u16, String, Value, String) {
    let body: Value = serde_json::from_str(&story.body).unwrap();
    assert_eq!(body["type"], "error", "{body}");
    assert_eq!(body["request_id"].as_str(), story.header("request-id"), "{:?}", story.headers);
    let error = &body["error"];
    let (kind, id) = (error["type"].as_str().unwrap(), body["request_id"].as_str().unwrap());
    (story.status, kind.to_owned(), error["details"].clone(), id.to_owned())
}

#[test]
fn anthropics_clients_see_anthropics_status_type_details_and_id() {
    let of = |kind: &str| json!({"type": "error", "error": {"type": kind, "message": "m"}, "request_id": "req_body"});
    let details = json!({"error_code": "thread_unsupported_request", "unsupported": ["thinking"]});
    let threads = json!({"type": "error", "error": {"type": "invalid_request_error", "message": "m", "details": details}});
    let leaks = json!({"type": "error", "error": {"type": "invalid_request_error", "message": "m",
                                                   "details": {"error_code": "x", "key": "sk-ant-secret-1"}}});
    let id = Some("req_header");
    let rows = [
        (529, of("overloaded_error"), id, (529, "overloaded_error", json!(null), "req_header")),
        (529, of("overloaded_error"), None, (529, "overloaded_error", json!(null), "req_body")),
        (529, json!("<html>busy</html>"), id, (529, "overloaded_error", json!(null), "req_header")),
        (413, of("request_too_large"), id, (413, "request_too_large", json!(null), "req_header")),
        (500, of("api_error"), id, (500, "api_error", json!(null), "req_header")),
        (504, of("timeout_error"), id, (504, "timeout_error", json!(null), "req_header")),
        (402, of("billing_error"), id, (402, "billing_error", json!(null), "req_header")),
        (429, of("rate_limit_error"), id, (429, "rate_limit_error", json!(null), "req_header")),
        (400, threads, id, (400, "invalid_request_error", details, "req_header")),
        (400, leaks, id, (400, "invalid_request_error", json!(null), "req_header")),
    ];
    for (status, body, id, (told_status, kind, details, told_id)) in rows {
        for stream in [false, true] {
            let mut request = ask("c");
            request["stream"] = json!(stream);
            let story = Rig::new(CLAUDE).call("/v1/messages", request, |_, _| failure(status, &body, id));
            let expected = (told_status, kind.to_owned(), details.clone(), told_id.to_owned());
            assert_eq!(told(&story), expected, "{status} {body}");
            assert_eq!(story.record.unwrap().status, Some(told_status));
        }
    }
}

#[test]
fn clients_of_other_apis_see_litellms_status_of_anthropics_failures() {
    for (status, kind, told) in
        [(529, "overloaded_error", 500), (413, "request_too_large", 400), (504, "timeout_error", 408)]
    {
        let body = json!({"type": "error", "error": {"type": kind, "message": "m", "details": {"a": 1}}});
        let story = Rig::new(CLAUDE).chat(hello("c"), |_, _| failure(status, &body, Some("req_1")));
        assert_eq!((story.status, story.header("request-id")), (told, None), "{status}");
        assert!(!story.body.contains("details"), "{}", story.body);
    }
}

#[test]
fn every_response_to_anthropics_clients_has_an_id() {
    let mut rig = Rig::new(CLAUDE);
    let good = |id: Option<&'static str>| failure(200, &message(), id);
    let story = rig.call("/v1/messages", ask("c"), |_, _| good(Some("req_7")));
    assert_eq!((story.status, story.header("request-id")), (200, Some("req_7")));
    let story = rig.call("/v1/messages", ask("c"), |_, _| good(None));
    assert_eq!(story.header("request-id"), story.header("x-litellm-call-id"));
    let story = rig.call("/v1/messages", ask("o"), |_, _| Answer(200, completion("gpt-4o")));
    assert_eq!(story.header("request-id"), story.header("x-litellm-call-id"));
    assert_eq!(story.status, 200);
    // What the gateway refuses by itself.
    for (path, body) in [
        ("/v1/messages", json!({"model": "nobody", "messages": []})),
        ("/v1/messages", json!([])),
        ("/v1/messages/batches", json!({})),
        ("/v1/messages/nothing", json!({})),
    ] {
        let story = rig.call(path, body, |_, _| Refuse);
        assert_eq!(told(&story).3, story.header("x-litellm-call-id").unwrap(), "{path}");
    }
    let story = rig.chat(hello("o"), |_, _| Answer(200, completion("gpt-4o")));
    assert_eq!(story.header("request-id"), None);
}

#[test]
fn an_error_inside_a_stream_has_the_id_of_its_request() {
    let begun = [
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hi\"}}\n\n",
    ];
    let mut request = ask("c");
    request["stream"] = json!(true);
    let story = Rig::new(CLAUDE).call("/v1/messages", request, |_, _| {
        let headers =
            vec![("content-type", "text/event-stream".to_owned()), ("request-id", "req_8".to_owned())];
        Raw(super::rig::Raw {
            status: 200,
            headers,
            pieces: begun.iter().map(|piece| piece.as_bytes().to_vec()).collect(),
            cut: false,
        })
    });
    let event = story.body.rsplit("event: error\ndata: ").next().unwrap();
    let event: Value = serde_json::from_str(event.trim()).unwrap();
    assert_eq!((&event["type"], &event["request_id"]), (&json!("error"), &json!("req_8")), "{event}");
}

#[test]
fn a_conversation_that_the_provider_is_to_keep_is_refused_by_others_than_anthropic() {
    for thread in [json!({"type": "create"}), json!({"type": "continue", "previous_message_id": "msg_1"})] {
        let mut request = ask("o");
        request["thread"] = thread.clone();
        let story = Rig::new(CLAUDE).call("/v1/messages", request, |_, _| Answer(200, completion("gpt-4o")));
        let (status, kind, details, _) = told(&story);
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
        assert_eq!(details["error_code"], "thread_unsupported_request");
        assert_eq!(story.bodies, Vec::<Value>::new());
        let mut request = ask("c");
        request["thread"] = thread.clone();
        let story = Rig::new(CLAUDE).call("/v1/messages", request, |_, _| Answer(200, message()));
        assert_eq!((story.status, &story.bodies[0]["thread"]), (200, &thread));
    }
    let mut request = ask("o");
    request["thread"] = json!(null);
    let story = Rig::new(CLAUDE).call("/v1/messages", request, |_, _| Answer(200, completion("gpt-4o")));
    assert_eq!(story.status, 200);
}
