//! Requests of a gateway with a ledger: whom it is asked for, what passes by it, and what it is told.

use super::*;
use crate::core::{
    access::{
        self,
        changes::{announce, set_end_users},
        keyring::LookupResult,
    },
    model::{
        key_record::{EndUserRecord, KeyRecord, Principal},
        lookup::Lookup,
    },
};

const FILE: &str = r#"
model_list:
  - {model_name: a, litellm_params: {model: openai/a1, api_base: "http://a.test/v1", api_key: k, input_cost_per_token: 0.000001, output_cost_per_token: 0.000001}}
general_settings: {master_key: sk-master}
"#;

fn rig_of(settings: &str) -> Rig {
    let mut rig =
        Rig::with_environment(&FILE.replace("sk-master", &format!("sk-master{settings}")), |name| {
            (name == crate::core::protocol::KEY_VARIABLE).then(|| "secret".to_owned())
        });
    rig.key = Some("sk-one");
    rig
}

fn grant() -> KeyRecord {
    let scope = |id: &str| Some(Box::new(Principal { id: id.to_owned(), ..Principal::default() }));
    let mut grant = KeyRecord {
        user: scope("u"),
        team: scope("t"),
        organization: scope("o"),
        revision: 5,
        ..KeyRecord::default()
    };
    grant.key.id = access::hash(b"sk-one");
    grant.key.tags = vec!["k".to_owned()];
    grant.key.budget.max = Some(1_000_000_000_000);
    grant
}

fn opened(rig: &mut Rig, method: &str, path: &str) -> Opened {
    let headers = rig.headers(path);
    let mut headers = headers.clone();
    headers.set(":method", method.as_bytes());
    let config = Rc::clone(&rig.config);
    open(&config, &headers, &mut rig.env())
}

fn status(opened: &Opened) -> &'static str {
    match (&opened.exchange, &opened.next) {
        (None, Next::Reply(reply)) => match reply.status {
            200 => "200",
            400 => "400",
            401 => "401",
            403 => "403",
            503 => "503",
            _ => "other",
        },
        (Some(_), Next::Reply(_)) => "refused",
        (Some(_), Next::ReadBody) => "call",
        (None, Next::Pass) => "pass",
        (None, Next::Manage) => "manage",
        (None, Next::Call(callout)) => match &callout.then {
            Then::Record(Lookup::Key(_)) => "key",
            Then::Record(Lookup::EndUser(_)) => "end user",
            Then::Seam => "seam",
        },
        (_, next) => panic!("{next:?}"),
    }
}

/// What is asked for.
fn lookup(next: Next) -> Lookup {
    match next {
        Next::Call(Callout { then: Then::Record(lookup), .. }) => lookup,
        next => panic!("a record is asked for: {next:?}"),
    }
}

#[test]
fn keys_are_asked_for_and_remembered() {
    let mut rig = rig_of("");
    let chat = "/v1/chat/completions";
    let Lookup::Key(hash) = lookup(opened(&mut rig, "POST", chat).next) else { panic!("asks for the key") };
    assert_eq!(hash, access::hash(b"sk-one"));
    rig.keys.learn_key(&hash, LookupResult::Record(grant()), rig.now_ms);
    assert_eq!(status(&opened(&mut rig, "POST", chat)), "call");
    // Somebody changes the key's team.
    announce(&rig.shared, &["team:t"]);
    assert_eq!(status(&opened(&mut rig, "POST", chat)), "key");
    rig.keys.learn_key(&hash, LookupResult::None, rig.now_ms);
    assert_eq!(status(&opened(&mut rig, "POST", chat)), "401");
    rig.key = Some("sk-two");
    let two = access::hash(b"sk-two");
    assert_eq!(status(&opened(&mut rig, "GET", "/v1/models")), "key");
    rig.keys.learn_key(&two, LookupResult::Unreachable, rig.now_ms);
    let Opened { exchange: None, next: Next::Reply(reply) } = opened(&mut rig, "POST", chat) else {
        panic!("refuses")
    };
    assert_eq!(reply.status, 503);
    assert!(String::from_utf8(reply.body).unwrap().contains("service_unavailable"));
    rig.key = Some("sk-master");
    assert_eq!(status(&opened(&mut rig, "POST", chat)), "call");
    rig.key = Some("not-a-key");
    assert_eq!(status(&opened(&mut rig, "POST", chat)), "401", "is not worth asking");
}

#[test]
fn readiness_says_what_is_wrong_with_the_database_as_litellm_does() {
    let ready = |rig: &mut Rig| match opened(rig, "GET", "/health/readiness").next {
        Next::Reply(reply) => {
            let body: Value = serde_json::from_slice(&reply.body).unwrap();
            (reply.status, body.get("db").or(body.get("detail")).unwrap().as_str().unwrap().to_owned())
        }
        _ => panic!("is answered here"),
    };
    let mut rig = rig_of("");
    assert_eq!(ready(&mut rig), (200, "connected".to_owned()));
    crate::core::access::trouble::set(&rig.shared, Some("the ledger cannot reach its database"));
    assert_eq!(ready(&mut rig), (503, "Service Unhealthy (the ledger cannot reach its database)".to_owned()));
    crate::core::access::trouble::set(&rig.shared, None);
    assert_eq!(ready(&mut rig), (200, "connected".to_owned()));
    let mut tolerant = rig_of(", allow_requests_on_db_unavailable: true");
    crate::core::access::trouble::set(&tolerant.shared, Some("the ledger does not answer"));
    assert_eq!(ready(&mut tolerant), (200, "Not connected".to_owned()));
    assert_eq!(ready(&mut Rig::new(FILE)), (200, "Not connected".to_owned()), "there is none");
}

#[test]
fn a_key_that_another_worker_knows_goes_on_while_the_ledger_is_away() {
    let mut rig = rig_of("");
    let hash = access::hash(b"sk-one");
    access::changes::prepare(&rig.shared);
    access::keyring::spare::keep(&rig.shared, &grant(), 0);
    rig.keys.learn_key(&hash, LookupResult::Unreachable, rig.now_ms);
    assert_eq!(status(&opened(&mut rig, "POST", "/v1/chat/completions")), "call");
    announce(&rig.shared, &["team:t"]);
    rig.keys.learn_key(&hash, LookupResult::Unreachable, rig.now_ms);
    assert_eq!(status(&opened(&mut rig, "POST", "/v1/chat/completions")), "503", "it has changed since");
}

#[test]
fn a_ledger_that_is_away_may_be_passed_by() {
    let mut rig = rig_of(", allow_requests_on_db_unavailable: true");
    rig.keys.learn_key(&access::hash(b"sk-one"), LookupResult::Unreachable, rig.now_ms);
    let story = rig.chat(hello("a"), |_, model| Answer(200, completion(model)));
    assert_eq!(story.status, 200);
    let record = story.record.unwrap();
    assert_eq!(record.event().unwrap().api_key, "failed-to-connect-to-db");
}

#[test]
fn the_ledgers_paths_pass_by() {
    let rows = [
        ("POST", "/key/generate", "manage", "400"),
        ("GET", "/model/info", "manage", "200"),
        ("GET", "/v1/model/info", "manage", "200"),
        ("GET", "/", "manage", "200"),
        ("GET", "/health", "manage", "400"),
        ("GET", "/models", "200", "200"),
        ("GET", "/health/liveliness", "200", "200"),
        ("OPTIONS", "/key/generate", "200", "200"),
        ("GET", "/metrics", "pass", "pass"),
    ];
    let mut with = rig_of("");
    let mut without = Rig::new(FILE);
    with.key = Some("sk-master");
    without.key = Some("sk-master");
    for (method, path, expected, alone) in rows {
        assert_eq!(status(&opened(&mut with, method, path)), expected, "{path}");
        assert_eq!(status(&opened(&mut without, method, path)), alone, "{path} without a ledger");
    }
    let Opened { exchange: None, next: Next::Reply(reply) } = opened(&mut without, "POST", "/key/generate")
    else {
        panic!("refused")
    };
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(
        body,
        json!({"error": {"message": "No connected db.", "type": "no_db_connection", "param": null, "code": "400"}})
    );
    without.key = None;
    assert_eq!(status(&opened(&mut without, "POST", "/key/generate")), "401");
    with.key = None;
    assert_eq!(status(&opened(&mut with, "POST", "/key/generate")), "manage", "the ledger judges");
    let mut fenced = rig_of(", allowed_ips: [10.0.0.1]");
    assert_eq!(status(&opened(&mut fenced, "POST", "/key/generate")), "403");
    assert_eq!(status(&opened(&mut fenced, "GET", "/health/liveliness")), "200");
    let mut public = rig_of(", public_routes: [/v1/models]");
    public.key = None;
    assert_eq!(status(&opened(&mut public, "GET", "/v1/models")), "200");
}

#[test]
fn end_users_are_asked_for_when_they_matter() {
    let mut rig = rig_of("");
    rig.keys.learn_key(&access::hash(b"sk-one"), LookupResult::Record(grant()), rig.now_ms);
    let mut body = hello("a");
    body["user"] = json!("e");
    let ok = |rig: &mut Rig, body: &Value| rig.chat(body.clone(), |_, model| Answer(200, completion(model)));
    let story = ok(&mut rig, &body);
    assert_eq!(story.record.unwrap().event().unwrap().end_user.as_deref(), Some("e"));

    set_end_users(&rig.shared, true);
    let Opened { exchange: Some(mut exchange), next: Next::ReadBody } =
        opened(&mut rig, "POST", "/v1/chat/completions")
    else {
        panic!("known")
    };
    let bytes = body.to_string().into_bytes();
    assert_eq!(lookup(exchange.on_body(&bytes, &mut rig.env())), Lookup::EndUser("e".to_owned()));
    let mut record = EndUserRecord { revision: 6, ..EndUserRecord::default() };
    record.scope.id = "e".to_owned();
    record.scope.limits.rpm = Some(1);
    record.region = Some("eu".to_owned());
    rig.keys.learn_end_user("e", LookupResult::Record(record.clone()), rig.now_ms);
    assert!(matches!(exchange.on_body(&bytes, &mut rig.env()), Next::Forward(_)));
    exchange.on_done(&mut rig.env());
    let story = ok(&mut rig, &body);
    assert_eq!((story.status, story.header("x-litellm-model-region")), (429, Some("eu")));
    assert!(story.message().starts_with("Rate limit exceeded for end_user: e. "));

    // Whoever calls for it: the master key has no limits, its end users have theirs.
    rig.key = Some("sk-master");
    let story = ok(&mut rig, &body);
    assert_eq!(story.status, 429);
    assert!(story.message().starts_with("Rate limit exceeded for end_user: e. "));
    assert_eq!(ok(&mut rig, &hello("a")).status, 200);

    record.scope.blocked = true;
    rig.keys.learn_end_user("e", LookupResult::Record(record), rig.now_ms);
    assert_eq!(ok(&mut rig, &body).status, 401);
    rig.key = Some("sk-one");
    assert_eq!(ok(&mut rig, &body).status, 401);
    // Nobody knows them, and nobody can be asked: a known key goes on.
    body["user"] = json!("f");
    rig.keys.learn_end_user("f", LookupResult::Unreachable, rig.now_ms);
    assert_eq!(ok(&mut rig, &body).status, 200);
}

/// What the ledger reads of a call.
fn told(record: &CallRecord) -> CallRecord {
    let mut event = Vec::new();
    record.event().unwrap().write_event(&mut event);
    serde_json::from_slice(&event).unwrap()
}

#[test]
fn the_ledger_is_told_what_was_used() {
    let mut rig = rig_of(", user_header_name: X-User");
    rig.keys.learn_key(&access::hash(b"sk-one"), LookupResult::Record(grant()), rig.now_ms);
    rig.answer_takes_ms = 40;
    let mut body = hello("a");
    body["metadata"] = json!({"tags": ["x", "k"], "user_id": "e", "session_id": "s"});
    let start = rig.now_ms;
    let story = rig.chat(body, |_, model| Answer(200, completion(model)));
    let record = story.record.unwrap();
    let mut event = told(&record);
    assert!(event.id.len() > 9, "{}", event.id);
    assert!(event.id.starts_with(&event.call_id) && event.call_id == record.call_id);
    event.id.clear();
    event.call_id.clear();
    let expected = CallRecord {
        response_id: Some("chatcmpl-1".to_owned()),
        call_type: "acompletion".into(),
        api_key: access::hash(b"sk-one"),
        user: Some("u".to_owned()),
        team: Some("t".to_owned()),
        organization: Some("o".to_owned()),
        end_user: Some("e".to_owned()),
        model: "a1".to_owned(),
        model_group: "a".to_owned(),
        model_id: rig.config.deployments[0].id.clone(),
        provider: "openai".into(),
        api_base: "http://a.test/v1".to_owned(),
        spend: 1_500_000_000,
        prompt_tokens: 1_000,
        completion_tokens: 500,
        total_tokens: 1_500,
        start_ms: start,
        end_ms: start + 40,
        first_ms: Some(start + 40),
        status: Some(200),
        tags: vec!["x".to_owned(), "k".to_owned()],
        ip: Some("192.0.2.1".to_owned()),
        session: Some("s".to_owned()),
        budgeted_meters: vec![format!("key:{}", access::hash(b"sk-one"))],
        ..CallRecord::default()
    };
    assert_eq!(event, expected);

    let failed = rig.chat(hello("a"), |_, _| Answer(500, error("no", "x"))).record.unwrap();
    let event = failed.event().unwrap();
    assert_eq!(
        (event.status, event.error.as_deref(), event.spend),
        (Some(500), Some("InternalServerError"), 0)
    );
    let message = event.message.as_deref().unwrap();
    assert!(message.contains("no") && message.contains("Received Model Group=a"), "{message}");

    rig.key = Some("sk-master");
    let story = rig.chat(hello("a"), |_, model| Answer(200, completion(model)));
    let record = story.record.unwrap();
    let event = record.event().unwrap();
    assert_eq!(
        (event.api_key.as_str(), event.user.as_deref()),
        (access::hash(b"sk-master").as_str(), Some("default_user_id"))
    );
    assert!(event.budgeted_meters.is_empty());
}

#[test]
fn refusals_of_known_keys_are_told_with_what_the_client_got() {
    let mut rig = rig_of("");
    let mut limited = grant();
    limited.key.limits.rpm = Some(0);
    limited.key.models = vec!["a".to_owned(), "nobody".to_owned()];
    let learn = |rig: &mut Rig| {
        rig.keys.learn_key(&access::hash(b"sk-one"), LookupResult::Record(limited.clone()), rig.now_ms);
    };
    learn(&mut rig);
    for (model, status, class) in
        [("a", 429, "HTTPException"), ("b", 401, "ProxyException"), ("nobody", 400, "ProxyException")]
    {
        let story = rig.chat(hello(model), |_, model| Answer(200, completion(model)));
        assert_eq!(story.status, status, "{model}");
        let record = story.record.as_ref().unwrap();
        let event = record.event().unwrap();
        assert!(event.refused && event.spend == 0 && event.total_tokens == 0, "{model}");
        assert_eq!(
            (event.model.as_str(), event.model_group.as_str(), event.model_id.as_str()),
            (model, model, "")
        );
        assert_eq!((event.status, event.error.as_deref()), (Some(status), Some(class)), "{model}");
        assert_eq!(event.message.as_deref(), Some(story.message().as_str()), "{model}");
        assert_eq!(event.api_key, access::hash(b"sk-one"));
        assert!(event.budgeted_meters.is_empty() && event.meter_charges.is_empty());
    }
    // What its headers say is enough.
    type Row = (fn(&mut KeyRecord), &'static str, u16, &'static str);
    let changes: [Row; 4] = [
        (|grant| grant.key.blocked = true, "/v1/chat/completions", 401, "is blocked"),
        (|grant| grant.expires_ms = Some(1), "/v1/messages", 400, "Expired Key"),
        (|grant| grant.allowed_routes = vec!["/v1/models".to_owned()], "/v1/embeddings", 401, "not allowed"),
        (
            |grant| grant.allowed_routes = vec!["management_routes".to_owned()],
            "/v1/completions",
            401,
            "not allowed",
        ),
    ];
    for (change, path, status, words) in changes {
        let mut refused = grant();
        change(&mut refused);
        let told = |settings: &str| {
            let mut rig = rig_of(settings);
            rig.keys.learn_key(&access::hash(b"sk-one"), LookupResult::Record(refused.clone()), rig.now_ms);
            rig.call(path, hello("a"), |_, _| panic!("no call"))
        };
        let story = told("");
        let record = story.record.as_ref().unwrap();
        let event = record.event().unwrap();
        assert_eq!(
            (story.status, event.status, record.status),
            (status, Some(status), Some(status)),
            "{}",
            story.body
        );
        assert!(event.refused && event.spend == 0 && event.budgeted_meters.is_empty(), "{path}");
        assert_eq!(
            (event.error.as_deref(), event.api_key.as_str()),
            (Some("ProxyException"), access::hash(b"sk-one").as_str())
        );
        assert_eq!((event.team.as_deref(), event.user.as_deref()), (Some("t"), Some("u")));
        assert!(
            story.body.contains(words) && event.message.as_deref().unwrap().contains(words),
            "{}",
            story.body
        );
        assert_eq!(told(", disable_error_logs: true").record.unwrap().event(), None);
    }
    // Of a key that nobody knows there is none: who makes them up would fill the log.
    let mut unknown = rig_of("");
    unknown.keys.learn_key(&access::hash(b"sk-one"), LookupResult::None, unknown.now_ms);
    let story = unknown.chat(hello("a"), |_, _| panic!("no call"));
    assert_eq!((story.status, story.record), (401, None));
    let mut silent = rig_of(", disable_error_logs: true");
    learn(&mut silent);
    let story = silent.chat(hello("b"), |_, model| Answer(200, completion(model)));
    assert_eq!((story.status, story.record.unwrap().event()), (401, None));
    let mut alone = Rig::new(FILE);
    alone.key = Some("sk-master");
    let story = alone.chat(hello("a"), |_, model| Answer(200, completion(model)));
    assert_eq!(story.record.unwrap().event(), None);
}

/// A stream of the model, as its provider writes it. Azure's first event names nothing.
fn stream_of(model: &str) -> Behaviour {
    let data = |event: Value| format!("data: {event}\n\n");
    let chunk = |choice: Value| {
        data(
            json!({"id": "chatcmpl-own", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}),
        )
    };
    let pieces = match model {
        "claude-1" => {
            let mut start = message();
            start["content"] = json!([]);
            let typed = |kind: &str, mut event: Value| {
                event["type"] = json!(kind);
                format!("event: {kind}\n{}", data(event))
            };
            vec![
                typed("message_start", json!({"message": start})),
                typed(
                    "content_block_start",
                    json!({"index": 0, "content_block": {"type": "text", "text": ""}}),
                ),
                typed(
                    "content_block_delta",
                    json!({"index": 0, "delta": {"type": "text_delta", "text": "hi"}}),
                ),
                typed("content_block_stop", json!({"index": 0})),
                typed(
                    "message_delta",
                    json!({"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
                ),
                typed("message_stop", json!({})),
            ]
        }
        "instruct" => vec![
            data(json!({"id": "cmpl-own", "choices": [{"index": 0, "text": "hi", "finish_reason": null}]})),
            data(json!({"id": "cmpl-own", "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})),
            "data: [DONE]\n\n".to_owned(),
        ],
        _ => vec![
            data(
                json!({"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": []}),
            ),
            chunk(json!({"index": 0, "delta": {"role": "assistant", "content": "hi"}})),
            chunk(json!({"index": 0, "delta": {}, "finish_reason": "stop"})),
            "data: [DONE]\n\n".to_owned(),
        ],
    };
    Stream(pieces)
}

fn whole_of(model: &str) -> Behaviour {
    match model {
        "claude-1" => Answer(200, message()),
        "instruct" => Answer(
            200,
            json!({"id": "cmpl-own", "model": model, "choices": [{"index": 0, "text": "hi", "finish_reason": "stop"}]}),
        ),
        _ => Answer(200, completion(model)),
    }
}

/// Every API at every wire format, whole and as a stream.
#[test]
fn the_ledger_knows_an_answer_by_the_id_that_the_client_got() {
    let file = r#"
model_list:
  - {model_name: chat, litellm_params: {model: azure/gpt, api_base: "http://a.test", api_version: "1", api_key: k}}
  - {model_name: messages, litellm_params: {model: anthropic/claude-1, api_base: "http://b.test", api_key: k}}
  - {model_name: text, litellm_params: {model: text-completion-openai/instruct, api_base: "http://c.test/v1", api_key: k}}
general_settings: {master_key: sk-master}
"#;
    let mut rig = Rig::with_environment(file, |name| {
        (name == crate::core::protocol::KEY_VARIABLE).then(|| "secret".to_owned())
    });
    rig.key = Some("sk-master");
    for path in ["/v1/chat/completions", "/v1/messages", "/v1/completions"] {
        for (model, streaming) in
            ["chat", "messages", "text"].into_iter().flat_map(|model| [(model, false), (model, true)])
        {
            let mut body = hello(model);
            body["max_tokens"] = json!(5);
            body["stream"] = json!(streaming);
            if path == "/v1/completions" {
                body["prompt"] = json!("hello");
                body.as_object_mut().unwrap().remove("messages");
            }
            let story = rig.call(path, body, |_, model| match streaming {
                true => stream_of(model),
                false => whole_of(model),
            });
            let what = format!("{model} on {path}, streaming {streaming}: {}", story.body);
            assert_eq!(story.status, 200, "{what}");
            let event = story.record.unwrap().event().unwrap().clone();
            let id = event.response_id.unwrap_or_default();
            let is_told = [format!(r#""id":"{id}""#), format!(r#""id": "{id}""#)]
                .iter()
                .any(|it| story.body.contains(it));
            assert!(!id.is_empty() && is_told, "{id} is not in {what}");
        }
    }
}
