//! Bodies that are packed, or in another form than somebody wants, on their way through both roles.

use std::io::Write;

use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};

use super::{envoy::*, *};

const FILE: &str = "
model_list:
- {model_name: a, litellm_params: {model: openai/a1, api_base: 'http://a.test/v1', api_key: k}}
- {model_name: falls, litellm_params: {model: openai/a1, api_base: 'http://f.test/v1', api_key: k}}
router_settings: {num_retries: 0, fallbacks: [{falls: [a]}]}
";

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(plain).unwrap();
    packer.finish().unwrap()
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::default());
    packer.write_all(plain).unwrap();
    packer.finish().unwrap()
}

fn packed(encoding: &str, body: Vec<u8>, path: &str) -> Ask {
    let mut ask = Ask::to(path, &Value::Null).with("content-encoding", encoding);
    ask.parts = vec![body];
    ask
}

#[test]
fn a_request_that_is_packed_is_read() {
    let plain = hello("falls").to_string().into_bytes();
    for (encoding, body) in [
        ("gzip", gzip(&plain)),
        ("deflate", zlib(&plain)),
        ("deflate, gzip", gzip(&zlib(&plain))),
        ("identity", plain.clone()),
    ] {
        for size in [7, 10_000] {
            // The second attempt is sent the same.
            let mut envoy = Envoy::new(FILE, |at, sent| match at {
                0 => Answer(500, json!({})),
                _ => Answer(200, completion(&sent.model)),
            });
            let story = envoy.call(packed(encoding, body.clone(), "/v1/chat/completions").in_parts(size));
            assert_eq!((story.status, envoy.sent.len()), (200, 2), "{encoding}: {story:?}");
            for sent in &envoy.sent {
                assert_eq!(sent.body["messages"], hello("a")["messages"]);
                assert!(sent.headers.iter().all(|(name, _)| name != "content-encoding"));
            }
        }
    }
}

#[test]
fn a_request_that_cannot_be_unpacked_is_refused_in_the_clients_format() {
    let plain = hello("a").to_string().into_bytes();
    let bomb = gzip(&vec![b' '; 80 << 20]);
    for (encoding, body, status, words) in [
        (
            "br",
            plain.clone(),
            415,
            "the request body has the content-encoding `br`: expected `gzip`, `deflate` or none.",
        ),
        ("zstd", plain.clone(), 415, "the request body has the content-encoding `zstd`"),
        (
            "gzip",
            plain.clone(),
            400,
            "the request body is not valid gzip, which its content-encoding says it is.",
        ),
        ("deflate", gzip(&plain), 400, "the request body is not valid deflate"),
        ("gzip", gzip(&plain)[..20].to_vec(), 400, "the request body is not valid gzip"),
        ("gzip", gzip(b"[]"), 400, "the request body is not a JSON object"),
        ("gzip", bomb, 413, "the request body is too large"),
    ] {
        for path in ["/v1/chat/completions", "/v1/messages"] {
            let mut envoy = Envoy::new(FILE, |_, _| panic!("the provider is not asked"));
            let story = envoy.call(packed(encoding, body.clone(), path));
            assert_eq!(story.status, status, "{encoding} {words}: {story:?}");
            assert!(message_of(&story.body).starts_with(words), "{}", story.body);
            let body: Value = serde_json::from_str(&story.body).unwrap();
            assert_eq!(body["type"] == "error", path == "/v1/messages", "{body}");
        }
    }
}

#[test]
fn the_form_of_a_response_is_made_what_was_asked_for() {
    let text = "hi ".repeat(2_000);
    let whole = || {
        let mut whole = completion("a1");
        whole["choices"][0]["message"]["content"] = json!(text);
        whole
    };
    let mut envoy = Envoy::new(FILE, {
        let whole = whole();
        move |_, _| Answer(200, whole.clone())
    });
    let mut ask = hello("a");
    ask["stream"] = json!(true);
    let story = envoy.chat(&ask);
    assert_eq!((story.status, story.header("content-type")), (200, Some("text/event-stream; charset=utf-8")));
    assert!(story.body.contains(&text) && story.body.ends_with("data: [DONE]\n\n"), "{story:?}");
    assert!(!story.body.contains("usage"), "nobody asked for it");

    let end = json!({"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let mut parts: Vec<String> = text.split_inclusive(' ').map(chunk).collect();
    parts.push(format!("data: {end}\n\n"));
    let mut envoy = Envoy::new(FILE, move |_, _| Stream(parts.clone()));
    let story = envoy.chat(&hello("a"));
    assert_eq!((story.status, story.header("content-type")), (200, Some("application/json")));
    let body: Value = serde_json::from_str(&story.body).unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], json!(text));
    assert_eq!(story.header("content-length"), Some(story.body.len().to_string().as_str()));
}
