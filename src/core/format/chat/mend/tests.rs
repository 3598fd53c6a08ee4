//! What clients read of responses that pass, buffered and streamed, the stream cut at every byte.

use serde_json::{Value, json};

use crate::core::{
    format::{Ref, chat, golden::responses::ids, messages, pipeline::Pipeline, translate::Back},
    model::terms::Terms,
};

static CHAT: Ref = &chat::Format;

fn whole(body: &str) -> Option<String> {
    let mut pipeline = Pipeline::new(Back::passing(CHAT, true), Terms::default(), &ids());
    pipeline.whole(body.as_bytes()).unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
}

/// What becomes of a stream of these events, however it is cut.
fn streamed(back: impl Fn() -> Back, events: &[&str]) -> String {
    let stream: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    let stream = stream + "data: [DONE]\n\n";
    let run = |at: usize| {
        let mut pipeline = Pipeline::new(back(), Terms::default(), &ids());
        let mut out = Vec::new();
        let (one, two) = stream.as_bytes().split_at(at);
        pipeline.chunk(one, &mut out).unwrap();
        pipeline.chunk(two, &mut out).unwrap();
        pipeline.end(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let expected = run(0);
    for at in 1..=stream.len() {
        assert_eq!(run(at), expected, "cut at {at}");
    }
    expected
}

fn passed(events: &[&str]) -> String {
    streamed(|| Back::passing(CHAT, true), events)
}

fn choices(message: &Value, finish: &str) -> String {
    json!({"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": finish}], "x": 1.5})
        .to_string()
}

#[test]
fn a_buffered_response_is_what_litellms_clients_read() {
    let call = json!([{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]);
    let signed = |id: &str| {
        json!([{"extra_content": {"google": {"thought_signature": "a+b/c="}}, "id": id, "type": "function",
                "function": {"name": "f", "arguments": "{}"}}, call[0]])
    };
    let rows = [
        // Thoughts by another name keep their place, and what stands beside them stays.
        (
            json!({"role": "assistant", "reasoning": "th", "content": "x", "reasoning_details": [{"text": "th"}]}),
            "stop",
            json!({"role": "assistant", "reasoning_content": "th", "content": "x", "reasoning_details": [{"text": "th"}]}),
            "stop",
        ),
        (
            json!({"reasoning_content": null, "reasoning": "th", "content": "x"}),
            "stop",
            json!({"reasoning_content": "th", "content": "x"}),
            "stop",
        ),
        // Thoughts between tags.
        (
            json!({"content": "<think>th\"</think>\n\nx"}),
            "stop",
            json!({"content": "\n\nx", "reasoning_content": "th\""}),
            "stop",
        ),
        (
            json!({"content": "<budget:thinking>th</budget:thinking>x", "reasoning": null}),
            "length",
            json!({"content": "x", "reasoning": null, "reasoning_content": "th"}),
            "length",
        ),
        // Calls.
        (
            json!({"content": null, "tool_calls": call}),
            "stop",
            json!({"content": null, "tool_calls": call}),
            "tool_calls",
        ),
        (
            json!({"content": null, "tool_calls": signed("c0")}),
            "tool_calls",
            json!({"content": null, "tool_calls": signed("c0__thought__a+b/c=")}),
            "tool_calls",
        ),
        (
            json!({"reasoning": "th", "tool_calls": signed("c0")}),
            "stop",
            json!({"reasoning_content": "th", "tool_calls": signed("c0__thought__a+b/c=")}),
            "tool_calls",
        ),
    ];
    for (message, finish, expected, expected_finish) in rows {
        assert_eq!(whole(&choices(&message, finish)), Some(choices(&expected, expected_finish)), "{message}");
    }
}

#[test]
fn a_tag_that_is_escaped_is_one() {
    let body = r#"{"choices":[{"message":{"content":"\u003cthink\u003eth\u003c/think\u003ex"}}]}"#;
    let mended = r#"{"choices":[{"message":{"content":"x","reasoning_content":"th"}}]}"#;
    assert_eq!(whole(body).as_deref(), Some(mended));
}

#[test]
fn each_choice_ends_by_what_it_says_itself() {
    let body = |finish: &str| {
        format!(
            r#"{{"choices":[{{"index":0,"message":{{"content":"a"}},"finish_reason":"stop"}},{{"index":1,"message":{{"tool_calls":[{{"id":"c"}}]}},"finish_reason":"{finish}"}}]}}"#
        )
    };
    assert_eq!(whole(&body("stop")), Some(body("tool_calls")));
}

#[test]
fn a_buffered_response_that_needs_nothing_keeps_its_bytes() {
    for body in [
        r#"{ "choices":[{"message":{"content":"a <think>th</think>"},"finish_reason":"stop"}]}"#,
        r#"{"choices":[{"message":{"content":"<think>th", "tool_calls":[ ]},"finish_reason":"stop"}]}"#,
        r#"{"choices":[{"message":{"content":"reasoning","reasoning":null,"tool_calls":null},"finish_reason":"stop"}]}"#,
        r#"{"choices":[{"message":{"reasoning":"a","reasoning_content":"a"},"finish_reason":"stop"}]}"#,
        r#"{"choices":[{"message":{"reasoning":{"a":1},"tool_calls":[{"id":"stop"}]},"finish_reason":"length"}]}"#,
        r#"{"choices":[{"message":{"content":"<think>\ud83d</think>"}}]}"#,
        r#"{"choices":[7,{"message":"<think>"},[null,"reasoning"]]}"#,
        r#"{"choices":["reasoning","<think>"]}"#,
    ] {
        assert_eq!(whole(body), None, "{body}");
    }
}

/// A stream's events with what becomes of each: `None` when it keeps its bytes.
const STREAMS: [&[(&str, Option<&str>)]; 5] = [
    &[
        (r#"{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#, None),
        (
            r#"{"id":"c","choices":[{"index":0,"delta":{"content":"", "reasoning":"th","reasoning_details":[{"text":"th"}]}}]}"#,
            Some(
                r#"{"id":"c","choices":[{"index":0,"delta":{"content":"","reasoning_content":"th","reasoning_details":[{"text":"th"}]}}]}"#,
            ),
        ),
        (r#"{"id":"c","choices":[{"index":0,"delta":{ "content":"x","reasoning":null}}]}"#, None),
        (r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#, None),
    ],
    // The tags stay.
    &[
        (r#"{"id":"c","choices":[{"index":0,"delta":{"content":"<think>th</think>x"}}]}"#, None),
        (r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#, None),
    ],
    // OpenAI's calls, that end with `stop`.
    &[
        (
            r#"{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":""}}]},"finish_reason":null}]}"#,
            None,
        ),
        (
            r#"{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]},"finish_reason":null}]}"#,
            None,
        ),
        (
            r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1.0}}"#,
            Some(
                r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1.0}}"#,
            ),
        ),
    ],
    // Google's: whole, signed, and with the end in the same event.
    &[(
        r#"{"choices":[{"delta":{"tool_calls":[{"extra_content":{"google":{"thought_signature":"S+="}},"function":{"arguments":"{}","name":"f"},"id":"c1","index":0,"type":"function"}]},"finish_reason":"stop","index":0}],"id":"c"}"#,
        Some(
            r#"{"choices":[{"delta":{"tool_calls":[{"extra_content":{"google":{"thought_signature":"S+="}},"function":{"arguments":"{}","name":"f"},"id":"c1__thought__S+=","index":0,"type":"function"}]},"finish_reason":"tool_calls","index":0}],"id":"c"}"#,
        ),
    )],
    // Of two choices one calls.
    &[
        (
            r#"{"id":"c","choices":[{"index":1,"delta":{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"{}"}}]}}]}"#,
            None,
        ),
        (r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#, None),
        (
            r#"{"id":"c","choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}"#,
            Some(r#"{"id":"c","choices":[{"index":1,"delta":{},"finish_reason":"tool_calls"}]}"#),
        ),
    ],
];

#[test]
fn a_stream_is_what_litellms_clients_read_and_the_rest_keeps_its_bytes() {
    for events in STREAMS {
        let sent: Vec<&str> = events.iter().map(|(event, _)| *event).collect();
        let expected = events.iter().map(|(event, mended)| format!("data: {}\n\n", mended.unwrap_or(event)));
        assert_eq!(passed(&sent), expected.collect::<String>() + "data: [DONE]\n\n");
    }
}

#[test]
fn what_is_put_right_has_no_usage_that_was_not_asked_for() {
    let events: Vec<&str> = STREAMS[2].iter().map(|(event, _)| *event).collect();
    let out = streamed(|| Back::passing(CHAT, false), &events);
    assert!(out.contains(r#""finish_reason":"tool_calls"}]}"#) && !out.contains("usage"), "{out}");
}

/// A client of `/v1/messages` reads the same as thinking, `tool_use` and the reason for it.
#[test]
fn a_client_of_messages_reads_thinking_and_why_it_ended() {
    let back = || Back::of_chat(&messages::Format, true).unwrap();
    let call = json!([{"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}]);
    let rows = [
        (json!({"reasoning": "th", "content": "x"}), vec!["thinking", "text"], "end_turn"),
        (json!({"content": "<think>th</think>x"}), vec!["thinking", "text"], "end_turn"),
        (json!({"content": null, "tool_calls": call}), vec!["tool_use"], "tool_use"),
    ];
    for (message, kinds, reason) in rows {
        let mut pipeline = Pipeline::new(back(), Terms::default(), &ids());
        let body = pipeline.whole(choices(&message, "stop").as_bytes()).unwrap().unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let found: Vec<&str> =
            body["content"].as_array().unwrap().iter().map(|block| block["type"].as_str().unwrap()).collect();
        assert_eq!((found, body["stop_reason"].as_str()), (kinds, Some(reason)), "{body}");
        assert!(!body.to_string().contains("think>"), "{body}");
    }
    for events in STREAMS {
        let sent: Vec<&str> = events.iter().map(|(event, _)| *event).collect();
        let out = streamed(back, &sent);
        // A message is one choice.
        let calls = sent
            .iter()
            .any(|event| event.contains(r#""index":0,"delta":{"tool_calls"#) || event.contains("S+="));
        assert_eq!(out.contains(r#""stop_reason":"tool_use""#), calls, "{out}");
        assert_eq!(
            out.contains("thinking_delta"),
            sent.iter().any(|event| event.contains("th\",\"reas")),
            "{out}"
        );
    }
}
