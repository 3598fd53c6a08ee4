//! Bodies that are packed, or in another form than somebody wants, on their way through both roles.

use super::{envoy::*, lookups::environment, *};
use crate::core::{
    codec::packed::pack::{gzip, zlib},
    host::CallResponse,
    protocol::TEXTS_PATH,
};

const FILE: &str = "
model_list:
- {model_name: a, litellm_params: {model: openai/a1, api_base: 'http://a.test/v1', api_key: k}}
- {model_name: azure, litellm_params: {model: azure/dep, api_base: 'http://b.test', api_version: '1', api_key: k}}
- {model_name: mistral, litellm_params: {model: mistral/mistral-embed, api_base: 'http://c.test/v1', api_key: k}}
- {model_name: voyage, litellm_params: {model: voyage/voyage-3, api_base: 'http://d.test/v1', api_key: k}}
- {model_name: vllm, litellm_params: {model: hosted_vllm/bge, api_base: 'http://e.test/v1', api_key: k}}
- {model_name: falls, litellm_params: {model: openai/a1, api_base: 'http://f.test/v1', api_key: k}}
router_settings: {num_retries: 0, fallbacks: [{falls: [mistral]}]}
";

fn embedding(model: &str) -> Value {
    json!({"object": "list", "model": model, "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
           "usage": {"prompt_tokens": 2, "total_tokens": 2}})
}

fn embed(model: &str, input: Value) -> Ask {
    Ask::to("/v1/embeddings", &json!({"model": model, "input": input}))
}

/// The ledger's tokenizer knows two words.
fn texts(input: &[u8]) -> CallResponse {
    let one = |tokens: &Value| {
        let words = tokens.as_array().unwrap().iter().map(|token| match token.as_u64() {
            Some(15339) => Some("hello"),
            Some(1917) => Some(" world"),
            _ => None,
        });
        words.collect::<Option<String>>().map(Value::from)
    };
    let input: Value = serde_json::from_slice(input).unwrap();
    let made = match input[0].is_array() {
        true => input.as_array().unwrap().iter().map(one).collect::<Option<Vec<Value>>>().map(Value::from),
        false => one(&input),
    };
    match made {
        Some(made) => CallResponse { status: 200, body: json!({"input": made}).to_string().into_bytes() },
        None => CallResponse {
            status: 400,
            body: json!({"detail": "cl100k_base has no token 5."}).to_string().into_bytes(),
        },
    }
}

#[test]
fn providers_that_take_no_tokens_are_sent_texts() {
    for (model, input, sent, calls) in [
        ("mistral", json!([[15339, 1917]]), json!(["hello world"]), 1),
        ("voyage", json!([15339, 1917]), json!("hello world"), 1),
        ("mistral", json!([[15339], [1917]]), json!(["hello", " world"]), 1),
        ("mistral", json!(["hello"]), json!(["hello"]), 0),
        ("mistral", json!("[1]"), json!("[1]"), 0),
        ("a", json!([[15339, 1917]]), json!([[15339, 1917]]), 0),
        ("azure", json!([15339, 1917]), json!([15339, 1917]), 0),
        ("vllm", json!([[5]]), json!([[5]]), 0),
        // Its fallback takes none.
        ("falls", json!([[15339, 1917]]), json!(["hello world"]), 1),
    ] {
        for size in [5, 10_000] {
            let play = |_: usize, sent: &Sent| match sent.cluster.contains("f.test") {
                true => Answer(500, json!({})),
                false => Answer(200, embedding(&sent.model)),
            };
            let asked = std::rc::Rc::new(std::cell::Cell::new(0));
            let counted = std::rc::Rc::clone(&asked);
            let mut envoy = Envoy::with_ledger(FILE, environment(), play, move |call| {
                assert_eq!((call.path.as_str(), call.authorization.as_str()), (TEXTS_PATH, "Bearer secret"));
                counted.set(counted.get() + 1);
                Some(Some(texts(&call.body)))
            });
            let id = envoy.begin(0, embed(model, input.clone()).in_parts(size));
            envoy.pass(10);
            let story = envoy.finish(id);
            assert_eq!((story.status, asked.get()), (200, calls), "{model} {input}: {story:?}");
            for call in &envoy.sent {
                assert_eq!(call.body["input"], sent, "{model} {input}");
            }
        }
    }
}

#[test]
fn tokens_that_nobody_makes_texts_of_are_refused_with_the_way_out() {
    let play = |_: usize, _: &Sent| -> Behaviour { panic!("the provider is not asked") };
    // No ledger at all; one that fails; one that is not there.
    let refused = |story: Story| {
        let body: Value = serde_json::from_str(&story.body).unwrap();
        assert_eq!((story.status, &body["error"]["param"]), (400, &json!("input")), "{story:?}");
        body["error"]["message"].as_str().unwrap().to_owned()
    };
    let told = refused(Envoy::new(FILE, play).call(embed("mistral", json!([[15339]]))));
    assert!(
        told.contains("`input` is a list of tokens, which mistral does not take: expected texts."),
        "{told}"
    );
    assert!(told.contains("`check_embedding_ctx_length=False`"), "{told}");
    for answer in [
        None,
        Some(CallResponse { status: 500, body: Vec::new() }),
        Some(CallResponse { status: 200, body: b"{".to_vec() }),
    ] {
        let mut envoy = Envoy::with_ledger(FILE, environment(), play, move |_| Some(answer.clone()));
        let id = envoy.begin(0, embed("voyage", json!([1])));
        envoy.pass(10);
        assert!(refused(envoy.finish(id)).contains("which voyage does not take"));
    }
    let mut envoy = Envoy::with_ledger(FILE, environment(), play, |call| Some(Some(texts(&call.body))));
    let id = envoy.begin(0, embed("voyage", json!([5])));
    envoy.pass(10);
    assert_eq!(refused(envoy.finish(id)), "`input` is no list of tokens: cl100k_base has no token 5.");
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
