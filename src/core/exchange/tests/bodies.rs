//! Bodies that are not what their headers say, or not what was asked for: told by their first bytes, and packed ones unpacked.

use super::{
    fuzz::{answer_of, body_of},
    *,
};
use crate::core::codec::packed::pack::{deflate, gzip, zlib};

const FILE: &str = r#"
model_list:
  - {model_name: chat, litellm_params: {model: openai/a, api_base: "http://a.test/v1", api_key: k}}
  - {model_name: claude, litellm_params: {model: anthropic/claude-1, api_base: "http://d.test", api_key: k}}
  - {model_name: tgi, litellm_params: {model: huggingface/tgi, api_base: "http://e.test", api_key: k}}
  - {model_name: llama, litellm_params: {model: ollama_chat/llama, api_base: "http://h.test"}}
  - {model_name: text, litellm_params: {model: text-completion-openai/instruct, api_base: "http://f.test/v1", api_key: k}}
  - {model_name: good, litellm_params: {model: openai/good, api_base: "http://g.test/v1", api_key: k}}
router_settings:
  num_retries: 0
  disable_cooldowns: true
  fallbacks: [{chat: [good]}, {claude: [good]}, {tgi: [good]}, {llama: [good]}, {text: [good]}]
litellm_settings: {drop_params: true}
"#;
const MODELS: [&str; 5] = ["chat", "claude", "tgi", "llama", "text"];
const PATHS: [&str; 3] = ["/v1/chat/completions", "/v1/messages", "/v1/completions"];
const JSON: &str = "application/json";

/// A request that every model takes.
fn ask(path: &str, model: &str, streaming: bool) -> Value {
    let mut body = body_of(path, model, streaming);
    if matches!(model, "tgi" | "text") {
        for name in ["tools", "tool_choice", "thinking"] {
            body.as_object_mut().unwrap().remove(name);
        }
        if path != "/v1/completions" {
            body["messages"] = json!([{"role": "user", "content": "hello"}]);
        }
    }
    body
}

/// What a client reads out of an answer, whichever form it has.
#[derive(Debug, Default, PartialEq)]
struct Said {
    text: String,
    thoughts: String,
    calls: Vec<(String, String)>,
    end: String,
    tokens: u64,
}

impl Said {
    fn piece(&mut self, at: &Value) {
        let text = |name: &str| at[name].as_str().unwrap_or_default();
        self.text.push_str(text("content"));
        self.text.push_str(text("text"));
        self.thoughts.push_str(text("reasoning_content"));
        self.thoughts.push_str(text("thinking"));
        for call in at["tool_calls"].as_array().into_iter().flatten() {
            let function = &call["function"];
            let text = |name: &str| function[name].as_str().unwrap_or_default().to_owned();
            match self.calls.last_mut() {
                Some((_, arguments)) if function["name"].is_null() => arguments.push_str(&text("arguments")),
                _ => self.calls.push((text("name"), text("arguments"))),
            }
        }
    }

    fn end(&mut self, at: &Value) {
        for name in ["finish_reason", "stop_reason"] {
            if let Some(reason) = at[name].as_str() {
                self.end = reason.to_owned();
            }
        }
    }

    fn usage(&mut self, at: &Value) {
        let tokens = ["completion_tokens", "output_tokens"].iter().find_map(|name| at[name].as_u64());
        self.tokens = tokens.unwrap_or(self.tokens);
    }

    fn of(story: &Story) -> Said {
        let mut said = Said::default();
        let kind = story.header("content-type").unwrap();
        if kind == JSON {
            let whole: Value = serde_json::from_str(&story.body).unwrap();
            said.usage(&whole["usage"]);
            said.end(&whole);
            let choice = &whole["choices"][0];
            said.end(choice);
            said.piece(if choice["message"].is_object() { &choice["message"] } else { choice });
            for block in whole["content"].as_array().into_iter().flatten() {
                said.piece(block);
                if block["type"] == "tool_use" {
                    said.calls.push((block["name"].as_str().unwrap().to_owned(), block["input"].to_string()));
                }
            }
            return said;
        }
        assert_eq!(kind, "text/event-stream; charset=utf-8", "{story:?}");
        let mut done = false;
        for data in story.body.lines().filter_map(|line| line.strip_prefix("data: ")) {
            assert!(!done, "nothing follows the end: {}", story.body);
            if data == "[DONE]" {
                done = true;
                continue;
            }
            let event: Value = serde_json::from_str(data).unwrap();
            assert!(event["error"].is_null(), "{event}");
            done = event["type"] == "message_stop";
            said.usage(&event["usage"]);
            let choice = &event["choices"][0];
            said.end(choice);
            said.piece(if choice["delta"].is_object() { &choice["delta"] } else { choice });
            said.end(&event["delta"]);
            said.piece(&event["delta"]);
            let block = &event["content_block"];
            if block["type"] == "tool_use" {
                said.calls.push((block["name"].as_str().unwrap().to_owned(), String::new()));
            }
            if let (Some(json), Some((_, arguments))) =
                (event["delta"]["partial_json"].as_str(), said.calls.last_mut())
            {
                arguments.push_str(json);
            }
        }
        assert!(done, "{}", story.body);
        said
    }
}

fn cut(body: &[u8], size: usize) -> Vec<Vec<u8>> {
    body.chunks(size).map(<[u8]>::to_vec).collect()
}

fn raw(headers: &[(&'static str, &str)], pieces: Vec<Vec<u8>>) -> Behaviour {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Raw(super::Raw { status: 200, headers, pieces, cut: false })
}

/// The answer of `model` in one form, where the client asks for another or the same, under a media type and in pieces.
fn answered(
    rig: &mut Rig,
    path: &str,
    model: &str,
    asked: bool,
    sent: bool,
    kind: &str,
    size: usize,
) -> Said {
    let body = ask(path, model, asked).to_string();
    let story = rig.run_bytes(path, body.as_bytes(), |attempt, asked_path, named| {
        assert_eq!(attempt, 0, "{path} {model} asked {asked}, sent {sent} as {kind} in {size}");
        let answer = answer_of(asked_path, named, sent);
        let headers: &[(&'static str, &str)] = if kind.is_empty() { &[] } else { &[("content-type", kind)] };
        raw(headers, cut(&answer, size))
    });
    assert_eq!(story.status, 200, "{path} {model} asked {asked}, sent {sent} as {kind}: {story:?}");
    assert_eq!(story.header("content-type").unwrap() == JSON, !asked, "{path} {model}: {story:?}");
    let record = story.record.as_ref().unwrap();
    let said = Said::of(&story);
    assert!(record.usage.is_some(), "{path} {model}: {record:?}");
    said
}

#[test]
fn a_stream_that_was_asked_for_is_read_whatever_it_is_called() {
    let mut rig = Rig::new(FILE);
    for path in PATHS {
        for model in MODELS {
            let right = if model == "llama" { "application/x-ndjson" } else { "text/event-stream" };
            let expected = answered(&mut rig, path, model, true, true, right, usize::MAX);
            assert!(expected.text.ends_with("hi"), "{path} {model}: {expected:?}");
            for kind in [
                "",
                "text/plain",
                "application/octet-stream",
                "application/x-ndjson",
                JSON,
                "TEXT/EVENT-STREAM",
            ] {
                for size in [1, 2, 3, 7, 64, usize::MAX] {
                    assert_eq!(
                        answered(&mut rig, path, model, true, true, kind, size),
                        expected,
                        "{path} {model} {kind} {size}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_whole_answer_in_the_place_of_a_stream_is_told_as_one() {
    let mut rig = Rig::new(FILE);
    for path in PATHS {
        for model in MODELS {
            let expected = answered(&mut rig, path, model, false, false, JSON, usize::MAX);
            for kind in ["", JSON, "application/json; charset=utf-8", "text/event-stream", "text/plain"] {
                for size in [1, 5, 64, usize::MAX] {
                    let said = answered(&mut rig, path, model, true, false, kind, size);
                    // A stream of text completions has no usage in these answers.
                    assert_eq!(said, expected, "{path} {model} {kind} {size}");
                }
            }
        }
    }
}

#[test]
fn a_stream_in_the_place_of_a_whole_answer_is_put_together() {
    let mut rig = Rig::new(FILE);
    for path in PATHS {
        for model in MODELS {
            let right = if model == "llama" { "application/x-ndjson" } else { "text/event-stream" };
            let expected = answered(&mut rig, path, model, true, true, right, usize::MAX);
            for kind in ["", JSON, right, "text/plain"] {
                for size in [1, 64, usize::MAX] {
                    assert_eq!(
                        answered(&mut rig, path, model, false, true, kind, size),
                        expected,
                        "{path} {model} {kind} {size}"
                    );
                }
            }
        }
    }
}

/// A first answer that is no good goes to the fallback, asked for a stream and not; `words` are told when that fails too.
fn fails(path: &str, model: &str, headers: &[(&'static str, &str)], body: &[u8], words: &str) {
    for streaming in [false, true] {
        for size in [1, usize::MAX] {
            let mut rig = Rig::new(FILE);
            let ask = ask(path, model, streaming).to_string();
            let bad = || raw(headers, cut(body, size));
            let story = rig.run_bytes(path, ask.as_bytes(), |attempt, asked, named| match attempt {
                0 => bad(),
                _ => raw(
                    &[("content-type", if streaming { "text/event-stream" } else { JSON })],
                    vec![answer_of(asked, named, streaming)],
                ),
            });
            assert_eq!(
                (story.status, story.models.len()),
                (200, 2),
                "{path} {model} {streaming} {words}: {story:?}"
            );
            Said::of(&story);
            let story = rig.run_bytes(path, ask.as_bytes(), |_, _, _| bad());
            assert_eq!(story.status / 100, 5, "{story:?}");
            assert!(
                story.message().contains(words),
                "{path} {model} {streaming} {words}: {}",
                story.message()
            );
        }
    }
}

#[test]
fn an_answer_that_is_neither_a_stream_nor_json_is_a_failed_attempt() {
    for path in PATHS {
        for model in MODELS {
            for kind in ["text/html", "text/event-stream", "application/x-ndjson", JSON, ""] {
                fails(path, model, &[("content-type", kind)], b"<html>maintenance</html>", "");
            }
            fails(path, model, &[("content-type", JSON)], b"", "");
        }
    }
    fails(PATHS[0], "chat", &[("content-type", "text/html")], b"<html>maintenance</html>", "JSON");
}

#[test]
fn an_answer_that_is_packed_in_a_way_nobody_understands_is_a_failed_attempt() {
    let answer = answer_of(PATHS[0], "a", false);
    let packed = gzip(&answer);
    for kind in [JSON, "text/event-stream"] {
        for (encoding, body, words) in [
            ("br", &packed, "has the content-encoding `br`: expected `gzip`, `deflate` or none"),
            ("gzip, zstd", &packed, "has the content-encoding `zstd`"),
            ("compress", &answer, "has the content-encoding `compress`"),
            ("gzip", &answer, "is not valid gzip"),
            ("gzip", &packed[..9].to_vec(), "is not valid gzip"),
            ("deflate", &answer, ""),
        ] {
            let headers = [("content-type", kind), ("content-encoding", encoding)];
            fails(PATHS[0], "chat", &headers, body, words);
            fails(PATHS[1], "chat", &headers, body, words);
        }
        for body in [&packed[..], b"\x28\xb5\x2f\xfd\x00\x00"] {
            fails(PATHS[0], "chat", &[("content-type", kind)], body, "is packed and has no content-encoding");
        }
    }
}

#[test]
fn packed_answers_are_the_same_in_every_form() {
    type Pack = fn(&[u8]) -> Vec<u8>;
    let packs: [(&[&str], Pack); 8] = [
        (&["gzip"], gzip),
        (&["X-GZip"], gzip),
        (&["identity"], <[u8]>::to_vec),
        (&["deflate"], zlib),
        (&["deflate"], deflate),
        (&["deflate, gzip"], |plain| gzip(&zlib(plain))),
        (&["gzip", "deflate"], |plain| zlib(&gzip(plain))),
        (&["gzip"], |plain| [gzip(&plain[..9]), gzip(&plain[9..])].concat()),
    ];
    let mut rig = Rig::new(FILE);
    for path in PATHS {
        for model in ["chat", "claude", "llama"] {
            for (asked, sent) in [(false, false), (true, true), (true, false), (false, true)] {
                let expected = answered(&mut rig, path, model, asked, sent, "", usize::MAX);
                for (encodings, pack) in packs {
                    for size in [1, 100, usize::MAX] {
                        let body = ask(path, model, asked).to_string();
                        let story = rig.run_bytes(path, body.as_bytes(), |attempt, asked_path, named| {
                            assert_eq!(attempt, 0, "{path} {model} {encodings:?}");
                            let headers: Vec<_> =
                                encodings.iter().map(|name| ("content-encoding", *name)).collect();
                            raw(&headers, cut(&pack(&answer_of(asked_path, named, sent)), size))
                        });
                        assert_eq!(story.status, 200, "{path} {model} {encodings:?}: {story:?}");
                        assert_eq!(story.header("content-encoding"), None);
                        assert_eq!(Said::of(&story), expected, "{path} {model} {encodings:?} {size}");
                    }
                }
            }
        }
    }
}

#[test]
fn packed_errors_are_understood_and_others_told_by_their_status() {
    let told =
        error("This model's maximum context length is 5 tokens", "context_length_exceeded").to_string();
    for (encoding, body, status, words) in [
        ("gzip", gzip(told.as_bytes()), 400, "maximum context length is 5 tokens"),
        ("deflate", zlib(told.as_bytes()), 400, "maximum context length is 5 tokens"),
        ("gzip, gzip", gzip(&gzip(told.as_bytes())), 400, "maximum context length is 5 tokens"),
        ("br", gzip(told.as_bytes()), 429, "the provider's error has the content-encoding `br`"),
        ("gzip", told.clone().into_bytes(), 429, "the provider's error is not valid gzip"),
    ] {
        let mut rig = Rig::new(FILE);
        let story = rig.chat(hello("good"), |_, _| {
            Raw(super::Raw {
                status,
                headers: vec![("content-encoding", encoding.to_owned())],
                pieces: cut(&body, 20),
                cut: false,
            })
        });
        assert_eq!(story.status, status, "{encoding}: {story:?}");
        assert!(story.message().contains(words), "{encoding}: {}", story.message());
    }
}

#[test]
fn a_stream_of_half_a_mebibyte_where_none_was_asked_for_does_not_pass() {
    let chunk = |text: &str, reason: Value| {
        let event = json!({"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]});
        format!("data: {event}\n\n").into_bytes()
    };
    let mut pieces: Vec<Vec<u8>> = (0..1_000).map(|_| chunk(&"x".repeat(500), Value::Null)).collect();
    pieces.push(chunk("", json!("stop")));
    let mut rig = Rig::new(FILE);
    for kind in [JSON, "text/event-stream"] {
        let story = rig.chat(hello("good"), |_, _| raw(&[("content-type", kind)], pieces.clone()));
        assert_eq!(story.header("content-type"), Some(JSON));
        assert_eq!(Said::of(&story).text.len(), 500_000);
    }
}
