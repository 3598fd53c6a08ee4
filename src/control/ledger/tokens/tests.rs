//! Counts against those of LiteLLM's own counter for the same input, and input that is meant to hurt.

use serde_json::json;

use super::*;

fn counter(model: &str) -> Counter {
    Counter::of(tokenizer_of(model)).unwrap()
}

fn chat(messages: Value) -> Prompt {
    Prompt { messages: messages.as_array().unwrap().clone(), ..Prompt::default() }
}

fn hello() -> Value {
    json!([{"role": "user", "content": "Hello, how are you?"}])
}

fn named() -> Value {
    json!([
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "name": "alice", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "4"},
    ])
}

fn weather() -> Vec<Value> {
    vec![json!({"type": "function", "function": {
        "name": "get_weather",
        "description": "Get the weather in a city",
        "parameters": {"type": "object", "required": ["city"], "properties": {
            "city": {"type": "string", "description": "Name of the city"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer"},
            "where": {"type": "object", "required": ["lat"],
                      "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}}},
            "tags": {"type": "array", "items": {"type": "string"}},
        }},
    }})]
}

#[test]
fn every_model_has_its_tokenizer() {
    for (model, tokenizer) in [
        ("gpt-4o", Tokenizer::O200kBase),
        ("gpt-4o-mini-2024-07-18", Tokenizer::O200kBase),
        ("openai/gpt-4o", Tokenizer::O200kBase),
        ("azure/eu/gpt-4o", Tokenizer::O200kBase),
        ("gpt-3.5-turbo", Tokenizer::Cl100kBase),
        ("gpt-4", Tokenizer::Cl100kBase),
        ("text-embedding-3-small", Tokenizer::Cl100kBase),
        ("claude-3-5-sonnet-20241022", Tokenizer::Cl100kBase),
        ("bedrock/us.anthropic.claude-3-haiku", Tokenizer::Cl100kBase),
        ("", Tokenizer::Cl100kBase),
        ("////", Tokenizer::Cl100kBase),
        ("nobody/knows", Tokenizer::Cl100kBase),
    ] {
        assert_eq!(tokenizer_of(model), tokenizer, "{model}");
    }
}

#[test]
fn texts_count_as_in_tiktoken() {
    let (new, old) = (counter("gpt-4o"), counter("gpt-3.5-turbo"));
    for (text, by_new, by_old) in [
        ("", 0, 0),
        ("hello world", 2, 2),
        ("tiktoken is great!", 6, 6),
        ("antidisestablishmentarianism", 6, 6),
        ("お誕生日おめでとう", 8, 9),
        ("2 + 2 = 4", 7, 7),
        // No special token: text of a client.
        ("<|endoftext|>", 7, 7),
    ] {
        assert_eq!((new.text(text), old.text(text)), (by_new, by_old), "{text}");
    }
    assert_eq!((new.text(&" ".repeat(1_000)), old.text(&" ".repeat(1_000))), (9, 9));
    assert_eq!((new.text(&"a".repeat(1_000)), old.text(&"a".repeat(1_000))), (125, 125));
}

#[tokio::test]
async fn texts_are_made_of_tokens_as_in_tiktoken() {
    for (tokens, expected) in [
        ("[15339,1917]", json!("hello world")),
        ("[[15339,1917]]", json!(["hello world"])),
        ("[[15339],[1917],[]]", json!(["hello", " world", ""])),
        ("[100257]", json!("<|endoftext|>")),
        // Three bytes of four.
        ("[9468,236]", json!("\u{fffd}")),
    ] {
        assert_eq!(texts(tokens.as_bytes()).await.unwrap(), expected, "{tokens}");
    }
    for (tokens, why) in [
        ("[100256]", "cl100k_base has no token 100256."),
        ("[[1],[4294967295]]", "cl100k_base has no token 4294967295."),
        ("[-1]", "expected a list of numbers, or a list of such lists."),
        ("[1,\"x\"]", "expected a list of numbers, or a list of such lists."),
        ("{", "expected a list of numbers, or a list of such lists."),
    ] {
        match texts(tokens.as_bytes()).await {
            Err(Problem::Detail(400, told)) => assert_eq!(told, json!(why), "{tokens}"),
            other => panic!("{tokens}: {other:?}"),
        }
    }
}

#[test]
fn messages_count_as_in_litellm() {
    let (new, old) = (counter("gpt-4o"), counter("claude-3-5-sonnet-20241022"));
    let picture =
        json!({"type": "image_url", "image_url": {"url": "https://x.invalid/a.png", "detail": "low"}});
    let question = json!({"type": "text", "text": "What is in this picture?"});
    let call = json!({"name": "get_weather", "arguments": "{\"city\": \"Paris\"}"});
    for (messages, by_new, by_old) in [
        (json!([]), 3, 3),
        (hello(), 13, 13),
        (named(), 32, 32),
        (json!([{"role": "user", "content": [question, picture]}]), 98, 98),
        (json!([{"role": "user", "content": "Grüße, 世界! 🎉"}]), 15, 19),
        (json!([{"role": "user", "content": "<|endoftext|>"}]), 14, 14),
        (
            json!([
                {"role": "user", "content": "What's the weather in Paris?"},
                {"role": "assistant", "content": null,
                 "tool_calls": [{"id": "call_1", "type": "function", "function": call}]},
                {"role": "tool", "tool_call_id": "call_1", "content": "{\"degrees\": 21}"},
            ]),
            36,
            37,
        ),
    ] {
        let got = (new.prompt(&chat(messages.clone())), old.prompt(&chat(messages.clone())));
        assert_eq!(got, (Some(by_new), Some(by_old)), "{messages}");
    }
}

#[test]
fn tools_count_as_in_litellm() {
    let (new, old) = (counter("gpt-4o"), counter("gpt-3.5-turbo"));
    let bare = || vec![json!({"type": "function", "function": {"name": "now"}})];
    let forced = json!({"type": "function", "function": {"name": "get_weather"}});
    for (messages, tools, tool_choice, by_new, by_old) in [
        (hello(), weather(), None, 89, 91),
        (named(), weather(), None, 104, 106),
        (hello(), bare(), None, 36, 36),
        (hello(), weather(), Some(json!("none")), 90, 92),
        (hello(), weather(), Some(json!("auto")), 89, 91),
        (hello(), weather(), Some(forced), 98, 100),
        // Without tools a choice means nothing.
        (hello(), vec![], Some(json!("none")), 13, 13),
    ] {
        let prompt = Prompt { tools, tool_choice, ..chat(messages) };
        assert_eq!((new.prompt(&prompt), old.prompt(&prompt)), (Some(by_new), Some(by_old)), "{prompt:?}");
    }
}

#[test]
fn parts_count_as_what_they_hold() {
    let counter = counter("gpt-4o");
    let base = counter.prompt(&chat(json!([{"role": "user", "content": []}]))).unwrap();
    let hello = counter.text("hello world");
    for (part, tokens) in [
        (json!("hello world"), hello),
        (json!({"type": "text", "text": "hello world"}), hello),
        (json!({"type": "thinking", "thinking": "hello world", "signature": "x"}), hello),
        (json!({"type": "image_url", "image_url": "https://x.invalid/a.png"}), IMAGE),
        (json!({"type": "image_url", "image_url": {"url": "https://x.invalid", "detail": "high"}}), IMAGE),
        (json!({"type": "image", "source": {"type": "base64", "data": "AAAA".repeat(1_000)}}), IMAGE),
        (json!({"type": "tool_use", "id": "x", "name": "hello", "input": {}}), 2),
        (json!({"type": "tool_result", "tool_use_id": "x", "content": "hello world"}), hello),
        (json!({"type": "tool_result", "content": [{"type": "text", "text": "hello world"}]}), hello),
        (json!({"type": "tool_result"}), 0),
        (json!({"type": "image_url"}), IMAGE),
        (json!({"type": 7, "text": 7}), 0),
        (json!(null), 0),
        (json!([["hello world"]]), 0),
    ] {
        let got = counter.prompt(&chat(json!([{"role": "user", "content": [part]}])));
        assert_eq!(got, Some(base + tokens), "{part:.80}");
    }
}

#[test]
fn what_is_no_message_counts_as_an_empty_one() {
    let counter = counter("gpt-4o");
    for message in [json!(null), json!("x"), json!([1]), json!({}), json!({"content": 7, "tool_calls": {}})] {
        assert_eq!(counter.prompt(&chat(json!([message]))), Some(6), "{message}");
    }
    for tools in
        [json!([null]), json!([{}]), json!([{"function": []}]), json!([{"function": {"parameters": 1}}])]
    {
        let tools = tools.as_array().unwrap().clone();
        assert!(counter.prompt(&Prompt { tools, ..chat(hello()) }).is_some());
    }
}

/// Long pieces without a break are where a simple merge takes quadratic time: hours for these.
#[test]
fn repeated_text_takes_no_longer_than_other_text() {
    for model in ["gpt-4o", "gpt-3.5-turbo"] {
        let counter = counter(model);
        assert_eq!(counter.text(&"a".repeat(400_000)), 50_000, "{model}");
        for piece in [" ", "\n", "\t \n", "0", "é", "🎉", "'s", "!?", "\u{301}", "\u{0}", "aB", "世"] {
            let text = piece.repeat(300_000 / piece.len());
            let count = counter.text(&text);
            assert!(count > 0 && count <= 300_000, "{model} {piece:?}: {count}");
        }
    }
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let text = |bytes: usize| Prompt { text: Some("word ".repeat(bytes / 5)), ..Prompt::default() };
    let image = format!("data:image/png;base64,{}", "A".repeat(2 * MAX_BYTES));
    let picture = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": image}}]}]);
    // As deep as JSON may be: each line would get a long indent.
    let mut deep: String = (0..40_000).map(|at| format!("\"p{at}\": {{\"type\": \"null\"}},")).collect();
    deep.push_str("\"end\": {}");
    for _ in 0..55 {
        deep = format!("\"o\": {{\"type\": \"object\", \"properties\": {{{deep}}}}}");
    }
    let deep =
        format!("{{\"function\": {{\"name\": \"f\", \"parameters\": {{\"properties\": {{{deep}}}}}}}}}");
    let deep: Value = serde_json::from_str(&deep).unwrap();
    // Short enough as JSON, too long as a declaration.
    let mut wide: String =
        (100_000..250_000).map(|at| format!("\"p{at}\": {{\"type\": \"null\"}},")).collect();
    wide.push_str("\"end\": {}");
    for _ in 0..10 {
        wide = format!("\"o\": {{\"type\": \"object\", \"properties\": {{{wide}}}}}");
    }
    let wide = format!("{{\"function\": {{\"parameters\": {{\"properties\": {{{wide}}}}}}}}}");
    let wide: Value = serde_json::from_str(&wide).unwrap();
    let tool = |tool: &Value| Prompt { tools: vec![tool.clone()], ..chat(hello()) };
    let choice =
        Prompt { tools: weather(), tool_choice: Some(json!("x".repeat(MAX_BYTES + 1))), ..chat(hello()) };
    for (what, prompt, is_refused) in [
        ("text", text(MAX_BYTES + 100), true),
        ("messages", chat(json!([{"content": "x".repeat(MAX_BYTES + 1)}])), true),
        ("part", chat(json!([{"content": [{"type": "text", "text": "x".repeat(MAX_BYTES + 1)}]}])), true),
        // A message is no part: what it calls its type changes nothing.
        ("message", chat(json!([{"type": "image", "content": "x".repeat(MAX_BYTES + 1)}])), true),
        ("tool choice", choice, true),
        ("wide tool", tool(&wide), true),
        ("text that fits", text(100_000), false),
        ("image", chat(picture), false),
        ("deep tool", tool(&deep), false),
    ] {
        assert!(size(&prompt) <= MAX_BYTES || is_refused, "{what}");
        assert!(what != "wide tool" || size(&prompt) <= MAX_BYTES);
        match count("gpt-4o", prompt).await {
            Ok(_) => assert!(!is_refused, "{what}"),
            Err(Problem::Error(error)) => assert!(is_refused && error.status() == 413, "{what}: {error:?}"),
            Err(other) => panic!("{what}: {other:?}"),
        }
    }
}

/// What the filter compares with context windows (it has no tokenizer) against two real ones. `least` is what it takes as
/// certain: never more than what the tokenizers count.
#[test]
fn the_filters_estimate_is_near_real_tokenizers() {
    use crate::core::{codec::json::Object, exchange::prompt};

    let russian = "Все люди рождаются свободными и равными в своем достоинстве и правах. ".repeat(20);
    let german = "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt. "
        .repeat(20);
    let chinese = "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心。".repeat(20);
    let japanese =
        "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。".repeat(20);
    let numbers: String = (0..500).map(|n| format!("{},{}\n", n * 7_919, n * 104_729)).collect();
    // Text, and by what part the estimate may be above and below.
    let rows = [
        ("prose", include_str!("../../../../README.md"), 0.25, 0.25),
        ("code", include_str!("../../../core/route/plan.rs"), 0.25, 0.25),
        ("JSON", include_str!("../../../../tests/fixtures/openapi.json"), 0.25, 0.25),
        ("shell", include_str!("../../../../Makefile"), 0.25, 0.25),
        ("Russian", russian.as_str(), 0.6, 0.35),
        ("German", german.as_str(), 0.25, 0.25),
        ("Chinese", chinese.as_str(), 0.35, 0.35),
        ("Japanese", japanese.as_str(), 0.35, 0.35),
        ("numbers", numbers.as_str(), 0.25, 0.25),
    ];
    for model in ["gpt-4", "gpt-4o"] {
        let counter = Counter::of(tokenizer_of(model)).unwrap();
        for (what, text, above, below) in rows {
            let body = json!({"messages": [{"role": "user", "content": text}]}).to_string();
            let estimate = prompt::tokens(&Object::parse(body.as_bytes()).unwrap()).unwrap();
            let real = counter.text(text) as f64;
            let ratio = estimate.likely as f64 / real;
            println!("{model} {what}: {real} tokens, estimated at {ratio:.2} of them");
            assert!((1.0 - below..=1.0 + above).contains(&ratio), "{model} {what}: {ratio:.2}");
            assert!(estimate.least as f64 <= real, "{model} {what}: {} is not the least", estimate.least);
        }
    }
}
