//! Whole exchanges with bitten requests and bitten answers: every API at every wire format, whole and as a stream, cut anywhere.
//! Whatever comes, the client gets one answer that it can read.

use super::*;
use crate::core::fuzz::{below, cases, chance};

const SEED: u64 = 0xb17e_a115;

const FILE: &str = r#"
model_list:
  - {model_name: same, litellm_params: {model: openai/a, api_base: "http://a.test/v1", api_key: k}}
  - {model_name: same, litellm_params: {model: azure/a, api_base: "http://b.test", api_version: "1", api_key: k}}
  - {model_name: flat, litellm_params: {model: mistral/a, api_base: "http://c.test/v1", api_key: k}}
  - {model_name: claude, litellm_params: {model: anthropic/claude-1, api_base: "http://d.test", api_key: k}}
  - {model_name: tgi, litellm_params: {model: huggingface/tgi, api_base: "http://e.test", api_key: k}}
  - {model_name: llama, litellm_params: {model: ollama_chat/llama, api_base: "http://h.test"}}
  - {model_name: text, litellm_params: {model: text-completion-openai/instruct, api_base: "http://f.test/v1", api_key: k}}
  - {model_name: "*", litellm_params: {model: "openai/*", api_base: "http://g.test/v1", api_key: k}}
router_settings:
  num_retries: 1
  disable_cooldowns: true
  retry_after: 0
  enable_pre_call_checks: true
  fallbacks: [{same: [claude]}, {claude: [text]}]
  context_window_fallbacks: [{same: [flat]}]
litellm_settings: {drop_params: true}
"#;
const MODELS: [&str; 8] = ["same", "flat", "claude", "tgi", "llama", "text", "other/model", "same"];
const PATHS: [&str; 4] = ["/v1/chat/completions", "/v1/messages", "/v1/completions", "/v1/embeddings"];

/// What stands where it is not expected.
const ODD: [&str; 22] = [
    "null",
    "true",
    "0",
    "-1",
    "1e300",
    "-1e999",
    "18446744073709551616",
    "\"\"",
    "\"x\"",
    "\"\\u0000\\ud800\"",
    "[]",
    "[null]",
    "[[]]",
    "[\"\"]",
    "{}",
    "{\"\":{}}",
    "{\"type\":\"text\"}",
    "{\"type\":\"image_url\",\"image_url\":5}",
    "{\"role\":\"tool\",\"content\":[{}]}",
    "{\"error\":{}}",
    "{\"message\":7,\"code\":[]}",
    "{\"a\":1,\"a\":2}",
];

/// The places of a JSON text where a value begins.
fn values(text: &[u8]) -> Vec<usize> {
    let begins = |at: &usize| *at > 0 && matches!(text[at - 1], b':' | b'[' | b',');
    (0..text.len()).filter(begins).collect()
}

/// One bite: a value replaced, a piece cut out, doubled or moved, a byte changed, the end left off.
fn bite(random: &mut Random, text: &mut Vec<u8>) {
    if text.is_empty() {
        return;
    }
    let at = below(random, text.len());
    let to = (at + 1 + below(random, 12)).min(text.len());
    match below(random, 12) {
        0 => drop(text.drain(at..to)),
        1 => {
            let piece = text[at..to].to_vec();
            text.splice(at..at, piece);
        }
        2 => text[at] = u8::try_from(random.bits() % 256).unwrap(),
        3 => text.truncate(at),
        4 => {
            let piece: Vec<u8> = text.drain(at..to).collect();
            let place = below(random, text.len() + 1);
            text.splice(place..place, piece);
        }
        _ => {
            let starts = values(text);
            let Some(&start) = starts.get(below(random, starts.len())) else { return };
            let mut stream = serde_json::Deserializer::from_slice(&text[start..]).into_iter::<Value>();
            let end = match stream.next() {
                Some(Ok(_)) => start + stream.byte_offset(),
                _ => start,
            };
            let odd = ODD[below(random, ODD.len())].bytes();
            text.splice(start..end, odd);
        }
    }
}

fn bites(random: &mut Random, text: &mut Vec<u8>) {
    for _ in 0..below(random, 4) {
        bite(random, text);
    }
}

/// A request that says much.
pub(super) fn body_of(path: &str, model: &str, streaming: bool) -> Value {
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}});
    match path {
        "/v1/embeddings" => {
            json!({"model": model, "input": ["hello", "you"], "dimensions": 3, "encoding_format": "float"})
        }
        "/v1/completions" => {
            json!({"model": model, "prompt": ["hello"], "max_tokens": 5, "stream": streaming,
            "stream_options": {"include_usage": true}, "stop": ["x"], "logit_bias": {"1": 1}, "metadata": {"tags": ["a"]}})
        }
        "/v1/messages" => {
            json!({"model": model, "max_tokens": 5, "stream": streaming, "system": [{"type": "text", "text": "s"}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}]},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"},
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "done"}]}],
            "tools": [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": {"type": "auto"},
            "thinking": {"type": "enabled", "budget_tokens": 1024}, "metadata": {"user_id": "u"}})
        }
        _ => {
            json!({"model": model, "max_tokens": 5, "stream": streaming, "stream_options": {"include_usage": true},
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]},
                {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
                {"role": "tool", "tool_call_id": "c1", "content": "done"}],
            "tools": [tool], "tool_choice": "auto", "response_format": {"type": "json_object"}, "user": "u", "temperature": 0.5,
            "fallbacks": ["flat", {"model": "text"}], "num_retries": 1, "metadata": {"tags": ["a"]}, "timeout": 9})
        }
    }
}

/// What the provider of a path answers when all is well: a body, or the events of a stream.
pub(super) fn answer_of(path: &str, model: &str, streaming: bool) -> Vec<u8> {
    let events = |list: Vec<Value>| -> Vec<u8> {
        let mut text: String = list
            .iter()
            .map(|event| match event["type"].as_str() {
                Some(name) => format!("event: {name}\ndata: {event}\n\n"),
                None => format!("data: {event}\n\n"),
            })
            .collect();
        if path != "/v1/messages" {
            text.push_str("data: [DONE]\n\n");
        }
        text.into_bytes()
    };
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, "completion_tokens_details": {"reasoning_tokens": 2}});
    let head = |object: &str, choices: Value| json!({"id": "chatcmpl-1", "object": object, "created": 1, "model": model, "choices": choices});
    if path.ends_with("/embeddings") {
        return json!({"object": "list", "model": model, "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "usage": usage}).to_string().into_bytes();
    }
    if path.ends_with("/messages") && !streaming {
        return json!({"id": "msg_1", "type": "message", "role": "assistant", "model": model, "stop_reason": "tool_use", "stop_sequence": null,
            "content": [{"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "text", "text": "hi"}, {"type": "tool_use", "id": "t", "name": "f", "input": {}}],
            "usage": {"input_tokens": 9, "output_tokens": 5, "cache_read_input_tokens": 1, "server_tool_use": {"web_search_requests": 1}}}).to_string().into_bytes();
    }
    if path.ends_with("/messages") {
        return events(vec![
            json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "usage": {"input_tokens": 9, "output_tokens": 1}}}),
            json!({"type": "ping"}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}}),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{\"a\":"}}),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "1}"}}),
            json!({"type": "content_block_stop", "index": 1}),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}}),
            json!({"type": "message_stop"}),
        ]);
    }
    if path.ends_with("/chat/completions") && !streaming {
        let call =
            json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}});
        let mut whole = head(
            "chat.completion",
            json!([{"index": 0, "finish_reason": "tool_calls",
            "message": {"role": "assistant", "content": "hi", "reasoning_content": "t", "tool_calls": [call]}}]),
        );
        whole["usage"] = usage;
        return whole.to_string().into_bytes();
    }
    if path.ends_with("/chat/completions") {
        let chunk = |delta: Value, reason: Value| {
            head("chat.completion.chunk", json!([{"index": 0, "delta": delta, "finish_reason": reason}]))
        };
        let mut last = head("chat.completion.chunk", json!([]));
        last["usage"] = usage;
        return events(vec![
            chunk(json!({"role": "assistant", "content": "", "reasoning_content": "t"}), Value::Null),
            chunk(json!({"content": "hi"}), Value::Null),
            chunk(
                json!({"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]}),
                Value::Null,
            ),
            chunk(json!({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}), Value::Null),
            chunk(json!({}), json!("tool_calls")),
            last,
        ]);
    }
    if path.ends_with("/api/chat") {
        let line = |message: Value| json!({"model": model, "message": message, "done": false});
        let call = json!({"role": "assistant", "content": "hi", "thinking": "t", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]});
        let mut last = line(json!({"role": "assistant", "content": ""}));
        last["done"] = json!(true);
        last["eval_count"] = json!(5);
        return match streaming {
            true => format!("{}\n{last}\n", line(call)).into_bytes(),
            false => {
                last["message"] = call;
                last.to_string().into_bytes()
            }
        };
    }
    // Hugging Face's own format, at the root of its server.
    if !path.ends_with("/completions") {
        let details = json!({"finish_reason": "length", "generated_tokens": 5, "prefill": [], "tokens": []});
        return match streaming {
            false => json!([{"generated_text": "hi", "details": details}]).to_string().into_bytes(),
            true => events(vec![
                json!({"token": {"id": 1, "text": "h", "special": false}, "generated_text": null}),
                json!({"token": {"id": 2, "text": "i", "special": false}, "generated_text": "hi", "details": details}),
            ]),
        };
    }
    let mut whole = head("text_completion", json!([{"index": 0, "text": "hi", "finish_reason": "stop"}]));
    if streaming {
        return events(vec![
            head("text_completion", json!([{"index": 0, "text": "h", "finish_reason": null}])),
            whole,
        ]);
    }
    whole["usage"] = usage;
    whole.to_string().into_bytes()
}

fn error_of(random: &mut Random) -> (u16, Vec<u8>) {
    const ERRORS: [&str; 5] = [
        r#"{"error":{"message":"too long","type":"invalid_request_error","param":null,"code":"context_length_exceeded"}}"#,
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"r"}"#,
        r#"[{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED","details":[{"retryDelay":"3s"}]}}]"#,
        r#"{"error":"Input validation error","error_type":"validation"}"#,
        r#"{"detail":[{"loc":["body"],"msg":"no","type":"x"}]}"#,
    ];
    let status = [400, 401, 403, 404, 408, 413, 422, 429, 500, 502, 503, 529][below(random, 12)];
    (status, ERRORS[below(random, ERRORS.len())].as_bytes().to_vec())
}

fn pieces(random: &mut Random, text: &[u8]) -> Vec<Vec<u8>> {
    let mut left = text;
    let mut all = Vec::new();
    while !left.is_empty() {
        let most = if random.bits().is_multiple_of(2) { 8 } else { 400 };
        let (piece, rest) = left.split_at((1 + below(random, most)).min(left.len()));
        all.push(piece.to_vec());
        left = rest;
    }
    all
}

/// What a provider does for one attempt. Often it answers well.
fn play(random: &mut Random, path: &str, model: &str, streaming: bool) -> Behaviour {
    let json = "application/json";
    let (mut status, mut text, mut kind) = match below(random, 6) {
        0 => {
            let (status, text) = error_of(random);
            (status, text, json)
        }
        // A stream where a body was asked for, and the other way round, or another provider's format.
        1 => (
            200,
            answer_of(PATHS[below(random, 4)], model, random.bits().is_multiple_of(2)),
            ["text/event-stream", json, ""][below(random, 3)],
        ),
        _ => (
            200,
            answer_of(path, model, streaming),
            match (streaming, path.ends_with("/api/chat")) {
                (true, true) => "application/x-ndjson",
                (true, false) => "text/event-stream",
                (false, _) => json,
            },
        ),
    };
    if below(random, 3) != 0 {
        bites(random, &mut text);
    }
    if below(random, 40) == 0 {
        (status, kind) = ([204, 302, 418, 999][below(random, 4)], "text/html; charset=utf-8");
    }
    match below(random, 30) {
        0 => Refuse,
        1 => Hang,
        _ => {
            let cut = below(random, 12) == 0;
            Raw(super::Raw {
                status,
                headers: vec![("content-type", kind.to_owned())],
                pieces: pieces(random, &text),
                cut,
            })
        }
    }
}

/// The format of a path's answers.
fn format_of(path: &str) -> &'static str {
    let known = ["chat/completions", "messages", "embeddings", "completions"];
    known.into_iter().find(|name| path.contains(name)).unwrap_or("generate")
}

/// What is wrong with an answer that a client got; nothing when it can be read.
fn unreadable(path: &str, story: &Story) -> Option<String> {
    let json = |text: &str| serde_json::from_str::<Value>(text);
    // A number keeps its digits, also one that is too large for whoever reads it.
    let syntax = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text);
    if story.status >= 300 {
        let told = json(&story.body).unwrap_or_default();
        return (!told["error"]["message"].is_string()).then(|| "an error without words".to_owned());
    }
    // What passes untranslated is the provider's to get right.
    if story.paths.last().is_none_or(|asked| format_of(asked) == format_of(path)) {
        return None;
    }
    if !story.header("content-type").unwrap_or_default().starts_with("text/event-stream") {
        return syntax(&story.body).err().map(|why| format!("a body that is not JSON: {why}"));
    }
    let mut events = story.body.lines().filter_map(|line| line.strip_prefix("data: "));
    let broken = events.find(|data| *data != "[DONE]" && syntax(data).is_err());
    broken.map(|data| format!("an event that is not JSON: {data}"))
}

#[test]
fn bitten_requests_and_answers_end_in_one_readable_answer() {
    let mut rig = Rig::new(FILE);
    let mut random = chance(SEED);
    let (mut good, mut refused, mut failed) = (0, 0, 0);
    let all = cases(3_000);
    for round in 0..all {
        let path = PATHS[below(&mut random, 4)];
        let streaming = path != "/v1/embeddings" && random.bits().is_multiple_of(2);
        let mut body =
            body_of(path, MODELS[below(&mut random, MODELS.len())], streaming).to_string().into_bytes();
        if random.bits().is_multiple_of(2) {
            bites(&mut random, &mut body);
        }
        let mut attempts = 0;
        let story = rig.run_bytes(path, &body, |_, asked, model| {
            attempts += 1;
            assert!(attempts < 64, "round {round} does not end");
            play(&mut random, asked, model, streaming)
        });
        let body = String::from_utf8_lossy(&body);
        assert_eq!(story.answers, 1, "round {round}: {path} {body}: {story:?}");
        if let Some(why) = unreadable(path, &story) {
            panic!("round {round}: {why}: {path} {body}: {story:?}");
        }
        match story.status {
            200..300 => good += 1,
            300..500 => refused += 1,
            _ => failed += 1,
        }
        rig.now_ms += 400;
    }
    // All happen, or the bites are too small or too large to find anything.
    assert!(
        good > all / 10 && refused > all / 10 && failed > all / 100,
        "{good} good, {refused} refused, {failed} failed"
    );
}
