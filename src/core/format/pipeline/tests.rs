//! What a success is and when a stream has begun, for every pair of formats, buffered and at every split of a stream.

use serde_json::{Map, json};

use super::*;
use crate::core::format::{Context, FORMATS, completions, embeddings, generate, messages};

/// All pairs of formats in which a client can be answered.
fn pairs() -> Vec<(Ref, Ref)> {
    let clients: [Ref; 4] = [&chat::Format, &completions::Format, &messages::Format, &embeddings::Format];
    // Counting is no answer of a model.
    let providers = || FORMATS.iter().copied().filter(|format| format.name() != messages::count::NAME);
    let pairs = clients.into_iter().flat_map(|client| providers().map(move |provider| (client, provider)));
    let is_embedding = |format: Ref| format.name() == embeddings::NAME;
    pairs
        .filter(|(client, provider)| client == provider || !is_embedding(*client) && !is_embedding(*provider))
        .collect()
}

/// The pairs that stream.
fn streams() -> Vec<(Ref, Ref)> {
    pairs().into_iter().filter(|(client, _)| client.name() != embeddings::NAME).collect()
}

fn pipeline(client: Ref, provider: Ref) -> Pipeline {
    let translation = (client != provider).then(|| {
        let Value::Object(chat) =
            json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5})
        else {
            panic!("an object")
        };
        let chat: Map<String, Value> = chat;
        let written = provider.write_request(chat, &Context::default()).unwrap();
        (written.reader, client.writer(true).unwrap())
    });
    let back = Back { client, provider, include_usage: true, translation };
    let ids = ResponseIds { id: "chatcmpl-1".into(), created: 1, model: "m".into() };
    Pipeline::new(back, Terms::default(), &ids)
}

fn format(name: &str) -> Ref {
    super::super::named(name).unwrap()
}

/// What came of a stream: what the client got before the answer began, what after that, and the error.
#[derive(Debug, PartialEq)]
struct Played {
    held: String,
    shown: String,
    error: Option<Error>,
    has_begun: bool,
}

fn play(client: Ref, provider: Ref, parts: &[&[u8]], ends: bool) -> Played {
    let mut pipeline = pipeline(client, provider);
    let (mut held, mut out) = (Vec::new(), Vec::new());
    let mut error = None;
    for part in parts {
        // A byte at a time, what comes with the first of the answer is known to be held.
        let before = pipeline.has_begun();
        let result = pipeline.chunk(part, &mut out);
        if !before && !pipeline.has_begun() {
            held.append(&mut out);
        }
        error = error.or(result.err());
    }
    if ends && error.is_none() {
        error = pipeline.end(&mut out).err();
    }
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Played { held: text(held), shown: text(out), error, has_begun: pipeline.has_begun() }
}

/// Plays a stream whole, at every split and byte by byte: all the same to the client. Returns what came byte by byte.
fn play_all(client: Ref, provider: Ref, stream: &str, ends: bool) -> Played {
    let bytes = stream.as_bytes();
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    let expected = play(client, provider, &single, ends);
    let all = |played: &Played| format!("{}{}", played.held, played.shown);
    // Every place between two bytes has been cut at already; of the places for one cut long streams and translated ones have fewer.
    let step = if client == provider && bytes.len() < 400 { 1 } else { 1 + bytes.len() / 50 };
    for cut in (0..=bytes.len()).step_by(step) {
        let (first, second) = bytes.split_at(cut);
        let played = play(client, provider, &[first, second], ends);
        assert_eq!(all(&played), all(&expected), "{client:?} {provider:?} cut at {cut}: {stream}");
        assert_eq!(
            (&played.error, played.has_begun),
            (&expected.error, expected.has_begun),
            "{client:?} {provider:?} cut at {cut}: {stream}"
        );
    }
    expected
}

fn sse(data: &Value) -> String {
    match data.get("type").and_then(Value::as_str) {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}

fn framed(provider: Ref, data: &Value) -> String {
    if provider.framing() == Framing::JsonLines { format!("{data}\n") } else { sse(data) }
}

fn chunk(choice: Value) -> Value {
    json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})
}

fn delta(delta: Value) -> Value {
    chunk(json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}))
}

fn text(text: &str, reason: Value) -> Value {
    json!({"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": text, "finish_reason": reason}]})
}

fn token(text: &str, whole: Value) -> Value {
    json!({"index": 1, "token": {"id": 5, "text": text, "special": false}, "generated_text": whole, "details": null})
}

fn line(content: &str, is_done: bool) -> Value {
    json!({"model": "m", "message": {"role": "assistant", "content": content}, "done": is_done})
}

fn block(kind: &str, value: Value) -> Value {
    let member = if kind == "content_block_start" { "content_block" } else { "delta" };
    json!({"type": kind, "index": 0, member: value})
}

fn message_start() -> Value {
    json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
           "content": [], "usage": {"input_tokens": 9, "output_tokens": 1}}})
}

/// What a provider may say before its answer, each in its own format.
fn preludes(provider: Ref) -> Vec<String> {
    let events = match provider.name() {
        chat::NAME => vec![
            delta(json!({"role": "assistant", "content": ""})),
            delta(
                json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [], "reasoning_content": ""}),
            ),
            json!({"id": "", "object": "", "created": 0, "model": "", "choices": [],
                   "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]}),
            json!({"id": "c", "choices": []}),
            chunk(json!({"index": 0, "delta": {}})),
            chunk(json!({"index": 0, "delta": null})),
            json!({"id": "c", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}}),
            json!({"id": "c", "error": null, "choices": [{"index": 0, "delta": {"role": "assistant"}}]}),
        ],
        completions::NAME => vec![text("", Value::Null), json!({"id": "c", "choices": []})],
        messages::NAME => vec![
            message_start(),
            json!({"type": "ping"}),
            block("content_block_start", json!({"type": "text", "text": ""})),
            block("content_block_start", json!({"type": "thinking", "thinking": "", "signature": ""})),
            block("content_block_delta", json!({"type": "text_delta", "text": ""})),
        ],
        generate::NAME => vec![token("", Value::Null)],
        _ => vec![line("", false)],
    };
    let mut all: Vec<String> = events.iter().map(|event| framed(provider, event)).collect();
    if provider.framing() == Framing::Sse {
        let quiet = [
            ": OPENROUTER PROCESSING\n\n",
            "retry: 1000\n\n",
            "id: 7\n\n",
            ":\r\n\r\n",
            "event: ping\n\n",
            "\n",
        ];
        all.extend(quiet.map(str::to_owned));
    }
    all.insert(0, String::new());
    all.push(all.concat());
    all
}

/// What belongs to the answer.
fn contents(provider: Ref) -> Vec<String> {
    let events = match provider.name() {
        chat::NAME => vec![
            delta(json!({"content": "hi"})),
            delta(json!({"role": "assistant", "content": "hi"})),
            delta(json!({"content": " "})),
            delta(json!({"reasoning_content": "hm"})),
            delta(json!({"content": "", "reasoning_details": [{"text": "hm"}]})),
            delta(json!({"refusal": "no"})),
            delta(json!({"audio": {"id": "a"}})),
            delta(
                json!({"tool_calls": [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": ""}}]}),
            ),
            delta(json!({"function_call": {"name": "f"}})),
            chunk(json!({"index": 0, "delta": {}, "finish_reason": "stop"})),
            chunk(json!({"index": 0, "message": {"role": "assistant", "content": "hi"}})),
            json!({"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant"}}, {"index": 1, "delta": {"content": "x"}}]}),
        ],
        completions::NAME => vec![text("hi", Value::Null), text("", json!("stop"))],
        messages::NAME => vec![
            block("content_block_start", json!({"type": "text", "text": "hi"})),
            block("content_block_delta", json!({"type": "text_delta", "text": "hi"})),
            block("content_block_delta", json!({"type": "thinking_delta", "thinking": "hm"})),
            block("content_block_delta", json!({"type": "signature_delta", "signature": "c2ln"})),
            block("content_block_start", json!({"type": "tool_use", "id": "t", "name": "f", "input": {}})),
            block("content_block_start", json!({"type": "redacted_thinking", "data": "x"})),
            json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}),
        ],
        generate::NAME => vec![token("hi", Value::Null), token("", json!("hi"))],
        _ => vec![line("hi", false), line("", true)],
    };
    events.iter().map(|event| framed(provider, event)).collect()
}

/// How each provider says that it has failed, with the class and status of it.
fn failures(provider: Ref) -> Vec<(Value, Class, u16)> {
    use Class::*;
    let words = "This model's maximum context length is 4097 tokens";
    let mut all = match provider.name() {
        messages::NAME => vec![
            (
                json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
                InternalServer,
                500,
            ),
            (
                json!({"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}}),
                RateLimit,
                429,
            ),
            (
                json!({"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}}),
                ContextWindowExceeded,
                400,
            ),
            (json!({"type": "error", "error": "down"}), InternalServer, 500),
        ],
        generate::NAME => vec![
            (json!({"error": "CUDA out of memory", "error_type": "generation"}), InternalServer, 500),
            (json!({"error": "Model is overloaded", "error_type": "overloaded"}), RateLimit, 429),
            (
                json!({"error": "Input validation error: `best_of` must be > 0", "error_type": "validation"}),
                BadRequest,
                400,
            ),
            (
                json!({"error": "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000", "error_type": "validation"}),
                ContextWindowExceeded,
                400,
            ),
        ],
        chat::NAME => vec![
            (
                json!({"error": {"code": 502, "message": "boom"},
                    "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]}),
                Api,
                502,
            ),
            (
                json!({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error",
                    "error": {"code": 429, "message": "boom"}}]}),
                RateLimit,
                429,
            ),
        ],
        _ => Vec::new(),
    };
    all.extend([
        (json!({"error": {"message": "Provider returned error", "code": 429}}), RateLimit, 429),
        (json!({"error": {"message": "boom", "code": "500"}}), InternalServer, 500),
        (json!({"error": "boom"}), InternalServer, 500),
        (json!({"error": "slow down", "status": 429}), RateLimit, 429),
        (json!({"error": {"message": words, "code": 400}}), ContextWindowExceeded, 400),
        (json!({"error": {"message": words, "type": "invalid_request_error", "code": "context_length_exceeded"}}),
         ContextWindowExceeded, 400),
        (json!({"error": {"message": "no", "type": "invalid_request_error", "code": "rate_limit_exceeded"}}), RateLimit, 429),
        (json!({"error": {"message": "no", "code": "content_filter"}}), ContentPolicyViolation, 400),
        (json!({"error": {"message": "bad key", "code": "invalid_api_key"}}), Authentication, 401),
    ]);
    if provider.name() != messages::NAME {
        all.push((json!({"object": "error", "message": words, "type": "BadRequestError", "param": null, "code": 400}),
                  ContextWindowExceeded, 400));
        all.push((
            json!({"object": "error", "message": "down", "type": "InternalServerError", "code": 500}),
            InternalServer,
            500,
        ));
    }
    all
}

/// Every one of `first` with the last of `second`, and the last of `first` with every one of `second`.
fn crossed<A: Clone, B: Clone>(first: &[A], second: &[B]) -> Vec<(A, B)> {
    let (Some(last), Some(end)) = (first.last(), second.last()) else { return Vec::new() };
    let all = first.iter().map(|one| (one.clone(), end.clone()));
    all.chain(second.iter().map(|two| (last.clone(), two.clone()))).collect()
}

/// The words in a failure.
fn words_of(failure: &Value) -> &str {
    let error = failure.get("error").or(failure.pointer("/choices/0/error")).unwrap_or(failure);
    error.get("message").unwrap_or(error).as_str().unwrap()
}

#[test]
fn a_stream_that_fails_before_its_answer_can_be_retried() {
    for (client, provider) in streams() {
        for (prelude, (failure, class, status)) in crossed(&preludes(provider), &failures(provider)) {
            let stream = format!("{prelude}{}", framed(provider, &failure));
            let played = play_all(client, provider, &stream, true);
            let case = format!("{client:?} {provider:?} {stream}");
            let error = played.error.unwrap_or_else(|| panic!("{case}: {}", played.shown));
            assert!(!played.has_begun, "{case}");
            assert_eq!((error.class(), error.status()), (Some(class), status), "{case}");
            assert!(error.message.contains(words_of(&failure)), "{case}: {}", error.message);
        }
    }
}

#[test]
fn a_stream_that_ends_before_its_answer_can_be_retried() {
    for (client, provider) in streams() {
        // A server of this kind ends its stream by stopping.
        if provider.name() == generate::NAME {
            continue;
        }
        for prelude in preludes(provider) {
            for torn in ["", "data: {\"id\":\"c\",\"cho", ": OPENR"] {
                if provider.framing() == Framing::JsonLines && !torn.is_empty() {
                    continue;
                }
                let stream = format!("{prelude}{torn}");
                let played = play_all(client, provider, &stream, true);
                let error = played.error.unwrap_or_else(|| panic!("{client:?} {provider:?} {stream}"));
                assert_eq!(
                    (error.class(), played.has_begun),
                    (Some(Class::InternalServer), false),
                    "{stream}"
                );
            }
        }
    }
}

#[test]
fn what_comes_before_the_answer_goes_out_with_it_as_it_came() {
    for (client, provider) in streams() {
        for (prelude, content) in crossed(&preludes(provider), &contents(provider)) {
            let played = play_all(client, provider, &format!("{prelude}{content}"), false);
            let case = format!("{client:?} {provider:?} {prelude}{content}");
            assert!(played.has_begun && played.error.is_none(), "{case}");
            if client == provider {
                assert_eq!(
                    format!("{}{}", played.held, played.shown),
                    format!("{prelude}{content}"),
                    "{case}"
                );
                assert_eq!(played.held, prelude, "{case}");
            }
        }
    }
}

#[test]
fn nothing_is_held_once_the_answer_has_begun() {
    for format in [format(chat::NAME), format(completions::NAME), format(messages::NAME)] {
        let mut pipeline = pipeline(format, format);
        pipeline.chunk(contents(format)[0].as_bytes(), &mut Vec::new()).unwrap();
        for prelude in preludes(format) {
            let mut out = Vec::new();
            pipeline.chunk(prelude.as_bytes(), &mut out).unwrap();
            assert!(pipeline.has_begun() && out == prelude.as_bytes(), "{format:?} {prelude}");
        }
    }
}

#[test]
fn what_is_held_is_bounded() {
    for (client, provider) in streams() {
        if provider.framing() == Framing::JsonLines {
            continue;
        }
        let mut pipeline = pipeline(client, provider);
        let comment = b": still working on it\n\n";
        let (mut sent, mut out) = (0, Vec::new());
        while !pipeline.has_begun() {
            pipeline.chunk(comment, &mut out).unwrap();
            sent += comment.len();
            assert!(sent < 2 * MOST_HELD_BYTES);
        }
        assert!(sent > MOST_HELD_BYTES && out.len() == if client == provider { sent } else { 0 });
    }
}

#[test]
fn a_stream_that_ends_well_without_an_answer_is_a_success() {
    let done = "data: [DONE]\n\n";
    for (client, provider) in streams() {
        let ends = match provider.name() {
            chat::NAME | completions::NAME => vec![done.to_owned(), format!("{}{done}", preludes(provider)[1])],
            messages::NAME => vec![[
                message_start(),
                json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}),
                json!({"type": "message_stop"}),
            ].iter().map(sse).collect()],
            generate::NAME => vec![sse(&token("", json!("")))],
            _ => vec![framed(provider, &line("", true))],
        };
        for stream in ends {
            let played = play_all(client, provider, &stream, true);
            assert!(played.error.is_none() && played.has_begun, "{client:?} {provider:?} {stream}");
            let all = format!("{}{}", played.held, played.shown);
            let end = if client.name() == messages::NAME { "event: message_stop" } else { done };
            assert_eq!(all.matches(end).count(), 1, "{client:?} {provider:?} {all}");
        }
    }
}

#[test]
fn a_stream_that_ends_well_has_its_last_event() {
    let rows = [
        (
            chat::NAME,
            sse(&chunk(json!({"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}))),
            "data: [DONE]\n\n",
        ),
        (completions::NAME, sse(&text("hi", json!("stop"))), "data: [DONE]\n\n"),
        (
            messages::NAME,
            sse(
                &json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}),
            ),
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        ),
    ];
    for (name, last, end) in rows {
        let format = format(name);
        let usage = sse(
            &json!({"id": "c", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}),
        );
        let streams = [last.clone(), format!("{last}{}", if name == messages::NAME { "" } else { &usage })];
        for stream in streams {
            let all = |played: Played| format!("{}{}", played.held, played.shown);
            let played = play_all(format, format, &stream, true);
            assert!(played.error.is_none());
            assert_eq!(all(played), format!("{stream}{end}"), "{name}");
            // One that the provider has sent is not repeated.
            assert_eq!(
                all(play_all(format, format, &format!("{stream}{end}"), true)),
                format!("{stream}{end}")
            );
            // The blank line behind the last event may be missing: what follows is an event of its own.
            let torn = stream.trim_end();
            let played = all(play_all(format, format, torn, true));
            assert!(played.starts_with(torn) && played.ends_with(&format!("\n\n{end}")), "{name}: {played}");
        }
    }
}

#[test]
fn an_error_after_the_beginning_is_the_end_of_the_stream() {
    for (client, provider) in streams() {
        for (failure, class, _) in failures(provider) {
            let content = &contents(provider)[0];
            let more = framed(provider, &failure);
            // Whatever the provider says after it, the client has been told.
            let stream = format!("{content}{more}{more}{content}");
            let played = play_all(client, provider, &stream, true);
            let case = format!("{client:?} {provider:?} {stream}");
            let all = format!("{}{}", played.held, played.shown);
            assert!(played.has_begun && !all.contains("[DONE]"), "{case}");
            let error = played.error.unwrap_or_else(|| panic!("{case}"));
            assert_eq!(error.class(), Some(class), "{case}");
            assert!(error.message.contains(words_of(&failure)), "{case}: {}", error.message);
            assert!(!all.contains(words_of(&failure)), "{case}: {all}");
        }
    }
}

#[test]
fn a_stream_that_is_cut_after_its_beginning_leaves_no_half_event() {
    for name in [chat::NAME, completions::NAME, messages::NAME] {
        let format = format(name);
        let content = &contents(format)[0];
        for torn in ["data: {\"torn\":\"c\",\"cho", ": OPENR", "event: content_bl"] {
            let played = play_all(format, format, &format!("{content}{torn}"), true);
            assert_eq!(played.error.unwrap().class(), Some(Class::InternalServer), "{name}");
            let all = format!("{}{}", played.held, played.shown);
            assert!(all.starts_with(content.as_str()) && all.ends_with("\n\n"), "{name}: {all:?}");
            assert!(!all.contains("torn"), "{name}: {all:?}");
        }
    }
}

#[test]
fn an_event_that_is_called_an_error_is_one() {
    for (client, provider) in streams() {
        if provider.framing() == Framing::JsonLines {
            continue;
        }
        for (data, class, words) in [
            (r#"{"message":"down","code":503}"#, Class::ServiceUnavailable, "down"),
            (r#"{"detail":"down"}"#, Class::InternalServer, "down"),
            (r#"{}"#, Class::InternalServer, "{}"),
        ] {
            let error =
                play_all(client, provider, &format!("event: error\ndata: {data}\n\n"), true).error.unwrap();
            assert_eq!(error.class(), Some(class), "{client:?} {provider:?} {data}");
            assert!(error.message.contains(words), "{client:?} {provider:?} {data}: {}", error.message);
        }
    }
}

/// A good response of each format.
fn good(provider: Ref) -> Value {
    match provider.name() {
        chat::NAME => json!({"id": "c", "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "an \"error\" of mine"}}], "error": null}),
        completions::NAME => {
            json!({"id": "c", "choices": [{"index": 0, "text": "error", "finish_reason": "stop"}]})
        }
        embeddings::NAME => {
            json!({"object": "list", "data": [{"index": 0, "embedding": [0.1]}], "model": "m"})
        }
        messages::NAME => json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
            "content": [{"type": "text", "text": "error"}], "stop_reason": "end_turn",
            "usage": {"input_tokens": 1, "output_tokens": 1}}),
        generate::NAME => json!([{"generated_text": "hi"}]),
        _ => line("hi", true),
    }
}

fn whole(client: Ref, provider: Ref, body: &Value) -> Result<Option<Vec<u8>>, Error> {
    pipeline(client, provider).whole(body.to_string().as_bytes())
}

#[test]
fn a_body_that_reports_a_failure_is_no_response() {
    for (client, provider) in pairs() {
        let mut all = failures(provider);
        // Beside what a response has, it is one all the same.
        let beside: Vec<_> = all
            .iter()
            .filter(|(failure, ..)| provider.name() != generate::NAME && failure.get("error").is_some())
            .map(|(failure, class, status)| {
                let mut body = good(provider);
                body["error"] = failure["error"].clone();
                let status_too = failure.get("status").cloned();
                status_too.into_iter().for_each(|status| body["status"] = status);
                (body, *class, *status)
            })
            .collect();
        // Anthropic's and TGI's come alone.
        all.extend(beside.into_iter().filter(|_| [chat::NAME, completions::NAME].contains(&provider.name())));
        for (failure, class, status) in all {
            let error =
                whole(client, provider, &failure).expect_err(&format!("{client:?} {provider:?} {failure}"));
            let case = format!("{client:?} {provider:?} {failure}: {}", error.message);
            assert_eq!((error.class(), error.status()), (Some(class), status), "{case}");
            assert!(error.message.contains(words_of(&failure)), "{case}");
        }
    }
}

#[test]
fn a_body_without_an_answer_is_no_response() {
    for (client, provider) in pairs() {
        let (member, _) = provider.answer();
        let lack = format!("`{member}`");
        let rows = [
            (json!({}), Class::InternalServer, lack.as_str()),
            (json!({"id": "c", "usage": {"prompt_tokens": 1}}), Class::InternalServer, &lack),
            (json!({"id": "c", member: null}), Class::InternalServer, &lack),
            (json!({"object": "error", "message": "slow", "code": 429}), Class::RateLimit, "slow"),
            (json!({"detail": "not today"}), Class::InternalServer, "not today"),
            (json!({"message": "no", "code": "401"}), Class::Authentication, "no"),
        ];
        for (body, class, words) in rows {
            let error = whole(client, provider, &body).expect_err(&format!("{client:?} {provider:?} {body}"));
            let case = format!("{client:?} {provider:?} {body}: {}", error.message);
            assert_eq!(error.class(), Some(class), "{case}");
            assert!(error.message.contains(words), "{case}");
        }
    }
}

#[test]
fn a_response_is_one_whatever_it_says() {
    for (client, provider) in pairs() {
        let body = good(provider);
        let made = whole(client, provider, &body)
            .unwrap_or_else(|error| panic!("{client:?} {provider:?}: {}", error.message));
        assert_eq!(made.is_none(), client == provider, "{client:?} {provider:?}");
    }
    let nothing = [json!(""), json!(false), json!({}), json!([]), json!(0), json!(null)];
    for name in [chat::NAME, completions::NAME, embeddings::NAME] {
        let format = format(name);
        // LiteLLM lets it pass.
        assert_eq!(whole(format, format, &json!({format.answer().0: []})), Ok(None), "{name}");
        for error in &nothing {
            let mut body = good(format);
            body["error"] = error.clone();
            assert_eq!(whole(format, format, &body), Ok(None), "{name} {error}");
        }
    }
}

#[test]
fn a_count_is_a_response_and_nothing_else_is_one_there() {
    let count: Ref = &messages::count::Format;
    assert_eq!(whole(count, count, &json!({"input_tokens": 5})), Ok(None));
    for body in [json!({}), json!({"input_tokens": null}), json!({"error": {"message": "no"}})] {
        assert!(whole(count, count, &body).is_err(), "{body}");
    }
}

#[test]
fn the_beginning_of_a_large_failure_tells_it() {
    let long = "x".repeat(100_000);
    for (body, fails) in [
        (json!({"error": {"message": "slow", "code": 429}, "more": long}), true),
        (json!({"error": {"message": long, "code": 429}}), true),
        (json!({"error": long}), true),
        (json!({"error": null, "choices": [{"message": {"content": long}}]}), false),
        (json!({"error": "", "choices": [{"message": {"content": long}}]}), false),
        (json!({"error": {}, "choices": [{"message": {"content": long}}]}), false),
        (json!({"choices": [{"message": {"content": long, "error": "x"}}]}), false),
    ] {
        let bytes = body.to_string().into_bytes();
        for end in [bytes.len() / 2, bytes.len()] {
            let mut tap = Tap::new(Pipeline::NOTED, 1_000);
            tap.push(&bytes[..end]);
            assert_eq!(Pipeline::begins_with_failure(&tap), fails, "{}", &body.to_string()[..60]);
        }
    }
}
