//! What of a conversation goes to a chat provider that another one has begun, or whose client has not kept all of it.

use super::*;

/// The id of a call carries Google's signature for clients that keep nothing else. It goes back to Google; everybody else gets the id
/// alone, in the call and in its result.
#[test]
fn a_signature_in_an_id_goes_back_to_its_maker_alone() {
    let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let said = |call: Value| json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let carrying = said(call("c__thought__a+b/c="));
    let mut signed = call("c");
    signed["extra_content"] = json!({"google": {"thought_signature": "a+b/c="}});
    let mut twice = call("c__thought__a+b/c=");
    twice["extra_content"] = signed["extra_content"].clone();
    for brand in ["openai", "groq", "deepseek", "mistral", "hosted_vllm"] {
        assert_eq!(message_at(brand, "h", &carrying)["tool_calls"], json!([call("c")]), "{brand}");
        assert_eq!(message_at(brand, "h", &said(twice.clone()))["tool_calls"], json!([call("c")]), "{brand}");
    }
    assert_eq!(message_at("gemini", "h", &carrying), said(signed.clone()));
    assert_eq!(message_at("gemini", "h", &said(twice)), said(signed.clone()));
    // What LiteLLM has answered with tells it a second and third time.
    let mut litellms = call("c__thought__a+b/c=");
    litellms["provider_specific_fields"] = json!({"thought_signature": "a+b/c="});
    litellms["function"]["provider_specific_fields"] = json!({"thought_signature": "a+b/c="});
    assert_eq!(message_at("groq", "h", &said(litellms.clone()))["tool_calls"], json!([call("c")]));
    assert_eq!(message_at("gemini", "h", &said(litellms))["tool_calls"], json!([signed]));
    let result = json!({"role": "tool", "tool_call_id": "c__thought__a+b/c=", "content": "r"});
    for brand in ["openai", "gemini"] {
        assert_eq!(message_at(brand, "h", &result)["tool_call_id"], "c", "{brand}");
    }
}

/// Gemini 3: "Function call is missing a thought_signature in functionCall parts". Other models sign nothing.
#[test]
fn calls_of_other_models_are_signed_for_gemini_as_nobodys() {
    let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let sent = |model: &str, calls: Value| {
        let gemini = deployment(crate::core::provider::brand("gemini").unwrap());
        let body =
            json!({"messages": [{"role": "assistant", "content": null, "tool_calls": calls}]}).to_string();
        let (body, _) = run(&body, &chat(&gemini, model)).unwrap();
        serde_json::from_str::<Value>(&body).unwrap()["messages"][0]["tool_calls"].clone()
    };
    let signed = |id: &str, signature: &str| {
        let mut call = call(id);
        call["extra_content"] = json!({"google": {"thought_signature": signature}});
        call
    };
    let skip = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I=";
    let foreign = json!([call("a"), call("b")]);
    assert_eq!(sent("gemini-3-pro-preview", foreign.clone()), json!([signed("a", skip), call("b")]));
    assert_eq!(sent("gemini-2.5-pro", foreign.clone()), foreign);
    let own = json!([signed("a", "Ab="), call("b")]);
    assert_eq!(sent("gemini-3-pro-preview", own.clone()), own);
    assert_eq!(sent("gemini-3-pro-preview", json!([call("a__thought__Ab="), call("b")])), own);
}

/// DeepSeek: "Missing `reasoning_content` field in the assistant message". Few clients send it back; what says nothing stands in.
#[test]
fn something_stands_in_for_reasoning_that_has_not_come_back() {
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let called = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let kept = json!({"role": "assistant", "content": "a", "reasoning_content": "hm"});
    let history = json!([
        {"role": "user", "content": "x"}, called, {"role": "tool", "tool_call_id": "c", "content": "r"},
        {"role": "assistant", "content": "a", "reasoning_content": ""}, kept,
    ]);
    let sent = |brand: &str, model: &str, more: Value| {
        let deployment = deployment(crate::core::provider::brand(brand).unwrap());
        let mut body = json!({"messages": history});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (body, _) = run(&body.to_string(), &chat(&deployment, model)).unwrap();
        serde_json::from_str::<Value>(&body).unwrap()["messages"].clone()
    };
    let mut filled = history.clone();
    filled[1]["reasoning_content"] = json!(" ");
    filled[3]["reasoning_content"] = json!(" ");
    let none = json!({});
    let rows = [
        ("deepseek", "deepseek-reasoner", none.clone(), true),
        ("deepseek", "deepseek-v4-pro", none.clone(), true),
        ("deepseek", "deepseek-v4-pro", json!({"thinking": {"type": "disabled"}}), false),
        ("deepseek", "deepseek-chat", none.clone(), false),
        ("deepseek", "deepseek-chat", json!({"thinking": {"type": "enabled"}}), true),
        ("moonshot", "kimi-k3", none.clone(), true),
        ("moonshot", "moonshot-v1-8k", none.clone(), false),
        ("openrouter", "deepseek/deepseek-v4-pro", none.clone(), false),
        ("hosted_vllm", "deepseek-reasoner", none.clone(), false),
    ];
    for (brand, model, more, is_filled) in rows {
        let expected = if is_filled { &filled } else { &history };
        assert_eq!(sent(brand, model, more.clone()), *expected, "{brand} {model} {more}");
    }
    // Without calls nobody asks for it.
    let said = json!({"role": "assistant", "content": "a"});
    assert_eq!(message_at("deepseek", "h", &said), said);
}
