//! Whole requests against goldens, what must survive of a history, and the refusals.

use serde_json::json;

use super::*;
use crate::core::{
    format::{
        generate::Requested,
        golden::{self, requests as cases},
    },
    provider,
};

const TRANSLATE: cases::Translate = |body, context| Ok((read(body, context)?.0, Requested::default()));

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
        let (chat, _) = read(body.as_object().unwrap().clone(), &Context::default()).unwrap();
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
        if let Ok((chat, _)) = read(body, &Context { drop_params: true, ..Context::default() }) {
            assert!(!Value::Object(chat).to_string().contains("cache_control"));
        }
    });
}

fn chat_of(body: Value, context: &Context<'_>) -> Value {
    let mut whole = json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]});
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    Value::Object(read(whole.as_object().unwrap().clone(), context).unwrap().0)
}

/// OpenAI and Azure: "string too long. Expected a string with maximum length 64".
#[test]
fn long_names_of_tools_are_short_wherever_they_stand() {
    let long = format!("mcp__plugin_{}__run", "x".repeat(60));
    let chat = chat_of(
        json!({
            "tools": [{"name": long, "input_schema": {"type": "object"}}, {"name": "f"}],
            "tool_choice": {"type": "tool", "name": long},
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": long, "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [
                    {"type": "tool_reference", "tool_name": long}, {"type": "tool_reference", "tool_name": "f"}]}]}],
        }),
        &Context::default(),
    );
    let short = names::shortened(&long).into_owned();
    assert_eq!(chat["tools"][0]["function"]["name"], json!(short));
    assert_eq!(chat["tools"][1]["function"]["name"], "f");
    assert_eq!(chat["tool_choice"]["function"]["name"], json!(short));
    assert_eq!(chat["messages"][1]["tool_calls"][0]["function"]["name"], json!(short));
    let found = json!([
        {"type": "text", "text": format!("Tool {short} is available")},
        {"type": "text", "text": "Tool f is available"}]);
    assert_eq!(chat["messages"][2]["content"], found);
}

#[test]
fn members_that_chat_does_not_have_go_on_only_when_the_configuration_says_so() {
    let body = json!({"diagnostics": {"a": 1}, "betas": ["b"], "seed": 7, "safe_prompt": true, "mine": 1});
    let defaults = json!({"safe_prompt": true}).as_object().unwrap().clone();
    let allowed = ["mine".to_owned()];
    let context = Context { defaults: Some(&defaults), allowed_params: &allowed, ..Context::default() };
    let chat = chat_of(body.clone(), &context);
    let has = |name: &str| chat.get(name).is_some();
    assert_eq!(
        ["diagnostics", "betas", "seed", "safe_prompt", "mine"].map(has),
        [false, false, true, true, true]
    );
    let chat = chat_of(body, &Context::default());
    assert!(chat.get("safe_prompt").is_none() && chat.get("mine").is_none());
}

/// Gemini: "Function call is missing a thought_signature".
#[test]
fn the_signature_of_a_thought_goes_back_to_whoever_made_it() {
    let body = json!({"messages": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "call_1__thought__Ab-c_d", "name": "f", "input": {}},
            {"type": "tool_use", "id": "call_2", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1__thought__Ab-c_d", "content": "3"}]}]});
    for (brand, is_back) in [("gemini", true), ("openai", false), ("anthropic", false)] {
        let chat = chat_of(
            body.clone(),
            &Context { quirks: provider::brand(brand).unwrap().quirks, ..Context::default() },
        );
        let calls = &chat["messages"][1]["tool_calls"];
        assert_eq!((&calls[0]["id"], &calls[1]["id"]), (&json!("call_1"), &json!("call_2")), "{brand}");
        assert_eq!(chat["messages"][2]["tool_call_id"], "call_1", "{brand}");
        let signature = calls[0].pointer("/extra_content/google/thought_signature");
        assert_eq!(signature, is_back.then_some(&json!("Ab+c/d==")), "{brand}");
        assert!(calls[1].get("extra_content").is_none(), "{brand}");
    }
}
