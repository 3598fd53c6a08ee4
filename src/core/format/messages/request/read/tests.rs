//! Whole requests against goldens, what must survive of a history, and the refusals.

use serde_json::json;

use super::*;
use crate::core::format::{
    generate::Asked,
    golden::{self, requests as cases},
};

const TRANSLATE: cases::Translate = |body, context| Ok((read(body, context)?, Asked::default()));

#[test]
fn whole_requests() {
    cases::walk("messages/request/read", TRANSLATE);
}

#[test]
fn odd_values_are_refused_or_taken() {
    cases::mutate("messages/request/read", TRANSLATE);
}

/// What a history holds, in order: who said which text, which calls were made, which results came.
fn anthropic_facts(request: &Value) -> Vec<(String, String, String)> {
    let mut facts = Vec::new();
    for message in request["messages"].as_array().unwrap() {
        let role = message["role"].as_str().unwrap();
        let whole = [json!({"type": "text", "text": message["content"]})];
        let blocks = message["content"].as_array().map_or(&whole[..], Vec::as_slice);
        // Results come first; the texts of one turn are one.
        let text = |kind: &str| blocks.iter().filter(|b| b["type"] == kind).collect::<Vec<_>>();
        for block in text("tool_result") {
            let fact = block["content"].as_str().unwrap_or_default();
            facts.push((
                "result".to_owned(),
                block["tool_use_id"].as_str().unwrap().to_owned(),
                fact.to_owned(),
            ));
        }
        let said: String = text("text").iter().map(|b| b["text"].as_str().unwrap()).collect();
        if !said.is_empty() {
            facts.push((role.to_owned(), String::new(), said));
        }
        for block in text("tool_use") {
            let (id, name) = (block["id"].as_str().unwrap(), block["name"].as_str().unwrap());
            facts.push(("call".to_owned(), id.to_owned(), format!("{name}{}", block["input"])));
        }
    }
    facts
}

fn chat_facts(request: &Value) -> Vec<(String, String, String)> {
    let mut facts = Vec::new();
    for message in request["messages"].as_array().unwrap() {
        let content = match &message["content"] {
            Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
            content => content.as_str().unwrap_or_default().to_owned(),
        };
        match message["role"].as_str().unwrap() {
            "system" => {}
            "tool" => {
                facts.push((
                    "result".to_owned(),
                    message["tool_call_id"].as_str().unwrap().to_owned(),
                    content,
                ));
            }
            role if !content.is_empty() => facts.push((role.to_owned(), String::new(), content)),
            _ => {}
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let function = &call["function"];
            let (name, arguments) =
                (function["name"].as_str().unwrap(), function["arguments"].as_str().unwrap());
            facts.push((
                "call".to_owned(),
                call["id"].as_str().unwrap().to_owned(),
                format!("{name}{arguments}"),
            ));
        }
    }
    facts
}

#[test]
fn a_history_keeps_ids_order_and_texts() {
    let rows = [
        json!([{"role": "user", "content": "Hi"}]),
        json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
               {"role": "assistant", "content": "c"}, {"role": "user", "content": "d"}]),
        json!([{"role": "user", "content": "weather?"},
               {"role": "assistant", "content": [
                   {"type": "text", "text": "Looking."},
                   {"type": "tool_use", "id": "toolu_1", "name": "get", "input": {"city": "Oslo", "days": [1, 2]}},
                   {"type": "tool_use", "id": "toolu_2", "name": "get", "input": {}}]},
               {"role": "user", "content": [
                   {"type": "text", "text": "and?"},
                   {"type": "tool_result", "tool_use_id": "toolu_2", "content": "4C"},
                   {"type": "tool_result", "tool_use_id": "toolu_1", "content": "3C"}]},
               {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_3", "name": "x", "input": {"q": "\"é\""}}]},
               {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_3", "content": "ok"}]}]),
    ];
    for messages in rows {
        let body = json!({"model": "m", "max_tokens": 1, "messages": messages});
        let chat = read(body.as_object().unwrap().clone(), &Context::default()).unwrap();
        assert_eq!(chat_facts(&Value::Object(chat)), anthropic_facts(&body));
    }
}

#[test]
fn refusals_name_the_place() {
    let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    let rows = [
        (json!({}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": ["Hi"]}), "messages[0]"),
        (json!({"messages": [{"role": "robot", "content": "Hi"}]}), "messages[0].role"),
        (user(json!(7)), "messages[0].content"),
        (user(json!([{"type": "text"}])), "messages[0].content[0].text"),
        (user(json!([{"type": "tool_use"}])), "messages[0].content[0].type"),
        (user(json!([{"type": "image", "source": {"type": "file"}}])), "messages[0].content[0].source.type"),
        (user(json!([{"type": "tool_result", "content": "x"}])), "messages[0].content[0].tool_use_id"),
        (
            user(json!([{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_result"}]}])),
            "messages[0].content[0].content[0].type",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": [{"type": "image"}]}]}),
            "messages[0].content[0].type",
        ),
        (json!({"system": [{"type": "image"}], "messages": []}), "system[0].type"),
        (json!({"max_tokens": "many"}), "max_tokens"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stop_sequences": ["a", 1]}), "stop_sequences[1]"),
        (json!({"tools": [{"name": "a"}, {"input_schema": {}}]}), "tools[1].name"),
        (json!({"tools": [{"type": "bash_20250124", "name": "bash"}]}), "tools[0].type"),
        (json!({"tools": [{"name": "a"}], "tool_choice": {"type": "some"}}), "tool_choice.type"),
        (json!({"thinking": {"type": "enabled"}}), "thinking.budget_tokens"),
    ];
    for (mut body, place) in rows {
        if body.get("messages").is_none() && place != "messages" {
            body["messages"] = json!([{"role": "user", "content": "Hi"}]);
        }
        let error = read(body.as_object().unwrap().clone(), &Context::default()).unwrap_err();
        assert_eq!((error.status(), error.param.as_deref()), (400, Some(place)), "{body}: {}", error.message);
        assert!(error.message.starts_with(&format!("`{place}` must be ")), "{}", error.message);
    }
}

/// Anthropic's prompt caching marks must not reach a server that refuses unknown members.
#[test]
fn no_cache_control_is_left() {
    golden::each("messages/request/read", |case| {
        let body = case["request"].as_object().unwrap().clone();
        if let Ok(chat) = read(body, &Context { drop_params: true, ..Context::default() }) {
            assert!(!Value::Object(chat).to_string().contains("cache_control"));
        }
    });
}
