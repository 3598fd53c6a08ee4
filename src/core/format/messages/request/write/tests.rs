//! Whole requests against goldens, then the faults a client can make and the rules about parameters.

use serde_json::{Map, Value, json};

use super::{MessagesRequest, write};
use crate::core::{
    error::Error,
    format::{Context, golden, params},
    model::failure::Class,
    provider,
};

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn options(settings: &Value) -> Context<'_> {
    let on = |name: &str| settings[name] == true;
    Context {
        model: "claude-x",
        brand: "anthropic",
        drop_params: on("drop_params"),
        modify_params: on("modify_params"),
        accepts: provider::accepts(provider::brand("anthropic").unwrap(), "claude-x", None, &|_, _| None),
        ..Context::default()
    }
}

/// A one-message request with `members` on top.
fn run(members: Value, settings: &Value) -> Result<MessagesRequest, Error> {
    let mut chat = object(&json!({"model": "group", "messages": [{"role": "user", "content": "Hi"}]}));
    chat.extend(object(&members));
    fitted(chat, &options(settings))
}

/// A request as it comes here: without what is not taken.
fn fitted(mut chat: Map<String, Value>, context: &Context<'_>) -> Result<MessagesRequest, Error> {
    params::fit_chat(&mut chat, context)?;
    write(chat, context)
}

#[test]
fn whole_requests() {
    golden::walk("messages/request/write", |case| {
        match fitted(object(&case["chat"]), &options(&case["options"])) {
            Ok((body, betas, requested)) => json!({
                "body": body,
                "betas": betas,
                "memo": {
                    "json_tool": requested.json_tool,
                    "prefix": requested.prefix,
                    "include_usage": case["chat"]["stream_options"]["include_usage"] == true,
                },
            }),
            Err(error) => json!({"status": error.status(), "message": error.message}),
        }
    });
}

#[test]
fn faults_name_their_place() {
    let said = |content: Value| json!([{"role": "user", "content": content}]);
    let called =
        |call: Value| json!([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]);
    let rows = [
        (json!(null), "messages"),
        (json!("Hi"), "messages"),
        (json!([]), "messages"),
        (json!(["Hi"]), "messages[0]"),
        (json!([{"content": "Hi"}]), "messages[0].role"),
        (json!([{"role": "robot", "content": "Hi"}]), "messages[0].role"),
        (json!([{"role": "user"}]), "messages[0].content"),
        (json!([{"role": "system", "content": 1}]), "messages[0].content"),
        (said(json!({"text": "Hi"})), "messages[0].content"),
        (said(json!(["Hi"])), "messages[0].content[0]"),
        (said(json!([{"text": "Hi"}])), "messages[0].content[0].type"),
        (said(json!([{"type": "input_audio"}])), "messages[0].content[0].type"),
        (said(json!([{"type": "text", "text": 1}])), "messages[0].content[0].text"),
        (said(json!([{"type": "image_url"}])), "messages[0].content[0].image_url"),
        (
            said(json!([{"type": "image_url", "image_url": {"url": "cat.png"}}])),
            "messages[0].content[0].image_url.url",
        ),
        (
            said(json!([{"type": "image_url", "image_url": "data:image/png,x"}])),
            "messages[0].content[0].image_url",
        ),
        (
            said(json!([{"type": "file", "file": {"file_data": "QUJD"}}])),
            "messages[0].content[0].file.file_data",
        ),
        (said(json!([{"type": "file", "file": {}}])), "messages[0].content[0].file"),
        (json!([{"role": "tool", "content": "3C"}]), "messages[0].tool_call_id"),
        (called(json!("x")), "messages[1].tool_calls[0]"),
        (called(json!({"function": {"name": "f"}})), "messages[1].tool_calls[0].id"),
        (called(json!({"id": "c"})), "messages[1].tool_calls[0].function"),
        (
            called(json!({"id": "c", "function": {"name": "f", "arguments": [1]}})),
            "messages[1].tool_calls[0].function.arguments",
        ),
    ];
    for (messages, path) in rows {
        let error = run(json!({"messages": messages}), &Value::Null).unwrap_err();
        assert_eq!(
            (error.status(), error.param.as_deref()),
            (400, Some(path)),
            "{messages}: {}",
            error.message
        );
        assert!(error.message.starts_with(path), "{}", error.message);
    }
}

#[test]
fn faults_of_other_members_name_their_place() {
    let rows = [
        (json!({"stop": 1}), "stop"),
        (json!({"stop": ["a", 1]}), "stop"),
        (json!({"user": 7}), "user"),
        (json!({"reasoning_effort": "huge"}), "reasoning_effort"),
        (json!({"tools": {}}), "tools"),
        (json!({"tools": [1]}), "tools[0]"),
        (json!({"tools": [{"type": "retrieval"}]}), "tools[0].type"),
        (json!({"tools": [{"type": "function"}]}), "tools[0].function"),
        (json!({"tools": [{"type": "function", "function": {}}]}), "tools[0].function.name"),
        (json!({"functions": [{"name": "f", "parameters": 1}]}), "functions[0].parameters"),
        (json!({"tool_choice": "sometimes"}), "tool_choice"),
        (json!({"tool_choice": {"type": "function"}}), "tool_choice.function.name"),
        (json!({"parallel_tool_calls": "no"}), "parallel_tool_calls"),
        (json!({"response_format": "json"}), "response_format"),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema.schema"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "array"}}}}),
            "response_format.json_schema.schema",
        ),
        (json!({"web_search_options": {"search_context_size": 3}}), "web_search_options.search_context_size"),
    ];
    for (members, path) in rows {
        let error = run(members.clone(), &Value::Null).unwrap_err();
        assert_eq!(
            (error.status(), error.param.as_deref()),
            (400, Some(path)),
            "{members}: {}",
            error.message
        );
    }
}

#[test]
fn unsupported_parameters_are_refused_together() {
    let error = run(json!({"n": 2, "seed": 0, "temperature": 1}), &Value::Null).unwrap_err();
    assert_eq!(error.class(), Some(Class::UnsupportedParams));
    assert!(
        error.message.starts_with(
            "litellm.UnsupportedParamsError: anthropic does not support parameters: ['n', 'seed'], for model=claude-x. \
             To drop these, set `litellm.drop_params=True`"
        ),
        "{}",
        error.message
    );
}

#[test]
fn unsupported_parameters_can_be_dropped_allowed_or_idle() {
    let dropped = run(json!({"n": 2, "logit_bias": {"5": 1}}), &json!({"drop_params": true})).unwrap().0;
    assert!(!dropped.contains_key("n") && !dropped.contains_key("logit_bias"));

    let idle =
        json!({"n": 1, "presence_penalty": 0.0, "logprobs": false, "seed": null, "service_tier": "default"});
    assert_eq!(run(idle, &Value::Null).unwrap().0.len(), 3);

    let allowed = ["seed".to_owned()];
    let with = Context { allowed_params: &allowed, ..options(&Value::Null) };
    let chat = object(&json!({"messages": [{"role": "user", "content": "Hi"}], "seed": 5}));
    assert_eq!(fitted(chat, &with).unwrap().0["seed"], 5);

    assert_eq!(run(json!({"service_tier": "auto"}), &Value::Null).unwrap().0["service_tier"], "auto");
}

#[test]
fn thinking_makes_room_for_itself() {
    let rows = [
        (json!({}), json!(4096), json!(null)),
        (json!({"max_tokens": 9}), json!(9), json!(null)),
        (json!({"max_tokens": 9, "max_completion_tokens": 7}), json!(7), json!(null)),
        (json!({"reasoning_effort": "none"}), json!(4096), json!(null)),
        (json!({"reasoning_effort": "low"}), json!(5120), json!({"type": "enabled", "budget_tokens": 1024})),
        (json!({"reasoning_effort": "high"}), json!(8192), json!({"type": "enabled", "budget_tokens": 4096})),
        (
            json!({"reasoning_effort": "medium", "max_tokens": 9000}),
            json!(9000),
            json!({"type": "enabled", "budget_tokens": 2048}),
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 2000}, "reasoning_effort": "high"}),
            json!(6096),
            json!({"type": "enabled", "budget_tokens": 2000}),
        ),
    ];
    for (members, max_tokens, thinking) in rows {
        let body = run(members.clone(), &Value::Null).unwrap().0;
        assert_eq!(body["max_tokens"], max_tokens, "{members}");
        assert_eq!(body.get("thinking").unwrap_or(&Value::Null), &thinking, "{members}");
    }
}

/// What Anthropic refuses beside thinking: "`max_tokens` must be greater than `thinking.budget_tokens`", "`temperature` may only
/// be set to 1 when thinking is enabled", "Thinking may not be enabled when tool_choice forces tool use".
#[test]
fn an_effort_gives_way_to_what_anthropic_refuses_beside_thinking() {
    let made = |budget: u64| json!({"type": "enabled", "budget_tokens": budget});
    let rows = [
        (json!({"reasoning_effort": "low", "max_tokens": 500}), json!(1524), made(1024)),
        (json!({"reasoning_effort": "low", "max_completion_tokens": 1024}), json!(2048), made(1024)),
        (json!({"reasoning_effort": "low", "max_tokens": 1025}), json!(1025), made(1024)),
        (json!({"reasoning_effort": "xhigh"}), json!(12_288), made(8192)),
        (json!({"reasoning_effort": "max"}), json!(20_480), made(16_384)),
        (json!({"reasoning_effort": "low", "tool_choice": "required"}), json!(4096), Value::Null),
        (json!({"reasoning_effort": "low", "tool_choice": "any"}), json!(4096), Value::Null),
        (
            json!({"reasoning_effort": "low", "tool_choice": {"type": "function", "function": {"name": "f"}}}),
            json!(4096),
            Value::Null,
        ),
        (json!({"reasoning_effort": "low", "function_call": {"name": "f"}}), json!(4096), Value::Null),
        (json!({"reasoning_effort": "low", "tool_choice": "auto"}), json!(5120), made(1024)),
        (json!({"reasoning_effort": "low", "tool_choice": {"type": "auto"}}), json!(5120), made(1024)),
    ];
    for (members, max_tokens, thinking) in rows {
        let mut with_tool = object(&json!({"tools": [{"type": "function", "function": {"name": "f"}}]}));
        with_tool.extend(object(&members));
        let body = run(Value::Object(with_tool), &Value::Null).unwrap().0;
        assert_eq!(body["max_tokens"], max_tokens, "{members}");
        assert_eq!(body.get("thinking").unwrap_or(&Value::Null), &thinking, "{members}");
    }
    let sampling = json!({"temperature": 0.2, "top_p": 0.9, "top_k": 5});
    let with = |members: Value| {
        let mut all = object(&sampling);
        all.extend(object(&members));
        let body = run(Value::Object(all), &Value::Null).unwrap().0;
        ["temperature", "top_p", "top_k"].map(|name| body.contains_key(name))
    };
    assert_eq!(with(json!({"reasoning_effort": "low"})), [false; 3]);
    assert_eq!(with(json!({"reasoning_effort": "none"})), [true; 3]);
    // Who speaks Anthropic's own words hears Anthropic's own refusal.
    assert_eq!(with(json!({"thinking": {"type": "enabled", "budget_tokens": 1024}})), [true; 3]);
}

#[test]
fn texts_that_say_nothing_are_left_out_and_a_turn_without_words_says_so() {
    let blank = || json!({"type": "text", "text": ""});
    let text = |text: &str| json!({"type": "text", "text": text});
    let said = |text: &str| json!([{"type": "text", "text": text}]);
    let nothing = said("[System: Empty message content sanitised to satisfy protocol]");
    let rows = [
        (json!(""), nothing.clone()),
        (json!(" \n"), nothing.clone()),
        (json!([]), nothing.clone()),
        (json!([blank()]), nothing),
        (json!([blank(), text("a")]), said("a")),
        (json!([text("a"), text("\t")]), said("a")),
    ];
    for (content, expected) in rows {
        let messages = json!([{"role": "user", "content": content}]);
        let body = run(json!({"messages": messages}), &Value::Null).unwrap().0;
        assert_eq!(body["messages"][0]["content"], expected, "{content}");
    }
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let body = run(
        json!({"tools": [{"type": "function", "function": {"name": "f"}}], "messages": [
            {"role": "system", "content": [blank(), text(" ")]},
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": [blank()], "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": [blank()]},
            {"role": "assistant", "content": " "},
            {"role": "user", "content": [blank(), {"type": "image_url", "image_url": "https://x/a.png"}]}]}),
        &Value::Null,
    );
    let body = body.unwrap().0;
    assert!(!body.contains_key("system"), "{body:?}");
    assert_eq!(
        body["messages"],
        json!([
            {"role": "user", "content": [text("x")]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c"},
                {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}}]}
        ])
    );
}

#[test]
fn arguments_that_were_cut_off_go_back_as_the_text_they_are() {
    let rows = [
        (json!("{\"city\":"), json!({"arguments": "{\"city\":"})),
        (json!("[1]"), json!({"arguments": "[1]"})),
        (json!("{\"city\":\"Oslo\"}"), json!({"city": "Oslo"})),
        (json!(""), json!({})),
        (json!(null), json!({})),
    ];
    for (arguments, input) in rows {
        let call = json!({"id": "c", "function": {"name": "f", "arguments": arguments}});
        let messages = json!([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]);
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let body = run(json!({"messages": messages, "tools": tools}), &Value::Null).unwrap().0;
        assert_eq!(body["messages"][1]["content"][0]["input"], input, "{arguments}");
    }
}

#[test]
fn schemas_of_answers_are_cut_to_what_a_tool_takes() {
    let schema = json!({"anyOf": [{"required": ["a"]}], "properties": {"a": {"anyOf": [{"type": "null"}]}}, "required": ["b"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let body = run(json!({"response_format": format}), &Value::Null).unwrap().0;
    let expected =
        json!({"type": "object", "properties": {"a": {"anyOf": [{"type": "null"}]}}, "required": ["b"]});
    assert_eq!(body["tools"][0]["input_schema"], expected);
}

#[test]
fn what_another_model_thought_does_not_go_back_to_anthropic() {
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let signed = json!({"type": "thinking", "thinking": "hm", "signature": "Ab="});
    let redacted = json!({"type": "redacted_thinking", "data": "Zz"});
    let rows = [
        (json!([{"type": "thinking", "thinking": "hm", "signature": ""}]), vec![], false),
        (json!([{"type": "thinking", "thinking": "hm"}]), vec![], false),
        (json!([signed]), vec![signed.clone()], true),
        (json!([redacted]), vec![redacted.clone()], true),
        (json!([{"type": "thinking", "thinking": "", "signature": ""}, signed]), vec![signed.clone()], true),
    ];
    for (thinking, kept, thinks) in rows {
        let body = run(
            json!({"reasoning_effort": "low", "tools": [{"type": "function", "function": {"name": "f"}}], "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "thinking_blocks": thinking, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c", "content": "3"}]}),
            &Value::Null,
        );
        let body = body.unwrap().0;
        let blocks = body["messages"][1]["content"].as_array().unwrap();
        assert_eq!(blocks[..blocks.len() - 1], kept, "{thinking}");
        // A turn that calls tools and has lost its thinking can only be continued without.
        assert_eq!(body.contains_key("thinking"), thinks, "{thinking}");
    }
}

#[test]
fn tool_choices() {
    let any = json!({"type": "any"});
    let rows = [
        (json!({"tool_choice": "auto"}), json!({"type": "auto"})),
        (json!({"tool_choice": "required"}), any.clone()),
        (json!({"tool_choice": "none"}), json!({"type": "none"})),
        (
            json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}),
            json!({"type": "tool", "name": "f"}),
        ),
        (json!({"tool_choice": {"type": "any"}}), any.clone()),
        (json!({"function_call": {"name": "f"}}), json!({"type": "tool", "name": "f"})),
        (json!({"parallel_tool_calls": false}), json!({"type": "auto", "disable_parallel_tool_use": true})),
        (
            json!({"parallel_tool_calls": true, "tool_choice": "required"}),
            json!({"type": "any", "disable_parallel_tool_use": false}),
        ),
        (json!({"parallel_tool_calls": false, "tool_choice": "none"}), json!({"type": "none"})),
        (json!({"response_format": {"type": "json_object"}}), any),
        (
            json!({"response_format": {"type": "json_object"}, "tool_choice": "none"}),
            json!({"type": "tool", "name": "json_tool_call"}),
        ),
        (json!({"response_format": {"type": "json_object"}, "reasoning_effort": "low"}), Value::Null),
        (
            json!({"response_format": {"type": "json_object"}, "thinking": {"type": "disabled"}}),
            json!({"type": "any"}),
        ),
        (json!({"tools": [], "tool_choice": "auto", "parallel_tool_calls": true}), Value::Null),
    ];
    for (members, choice) in rows {
        let mut with_tool = object(&json!({"tools": [{"type": "function", "function": {"name": "f"}}]}));
        with_tool.extend(object(&members));
        let body = run(Value::Object(with_tool), &Value::Null).unwrap().0;
        assert_eq!(body.get("tool_choice").unwrap_or(&Value::Null), &choice, "{members}");
    }
}

#[test]
fn personal_data_is_no_user_id() {
    let rows = [
        ("user-7", Some("user-7")),
        ("7f0c2d", Some("7f0c2d")),
        ("ann@example.com", None),
        ("+47 (22) 33-44-55", None),
        ("5551234567", None),
        ("", None),
    ];
    for (user, id) in rows {
        let body = run(json!({"user": user}), &Value::Null).unwrap().0;
        assert_eq!(body.get("metadata").and_then(|metadata| metadata["user_id"].as_str()), id, "{user}");
    }
    let body = run(json!({"user": "u", "metadata": {"user_id": "m", "trace": 1}}), &Value::Null).unwrap().0;
    assert_eq!(body["metadata"], json!({"user_id": "m"}));
}

#[test]
fn a_prefill_loses_its_trailing_space_and_comes_back() {
    let messages =
        json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "{ \n", "prefix": true}]);
    let (body, _, requested) = run(json!({"messages": messages}), &Value::Null).unwrap();
    assert_eq!(body["messages"][1]["content"], json!([{"type": "text", "text": "{"}]));
    assert_eq!(requested.prefix.as_deref(), Some("{"));

    let blank =
        json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": " ", "prefix": true}]);
    let (body, _, requested) = run(json!({"messages": blank}), &Value::Null).unwrap();
    assert_eq!((body["messages"].as_array().unwrap().len(), requested.prefix), (1, None));
}

#[test]
fn blank_stop_sequences_go_only_when_parameters_may_be_dropped() {
    let stop = json!({"stop": ["\n", "END"]});
    assert_eq!(run(stop.clone(), &Value::Null).unwrap().0["stop_sequences"], json!(["\n", "END"]));
    let dropping = json!({"drop_params": true});
    assert_eq!(run(stop, &dropping).unwrap().0["stop_sequences"], json!(["END"]));
    assert!(!run(json!({"stop": "\n"}), &dropping).unwrap().0.contains_key("stop_sequences"));
}

/// Anthropic: "Expected `thinking` or `redacted_thinking`, but found `tool_use`".
#[test]
fn a_turn_that_has_lost_its_thinking_goes_on_without() {
    let call =
        |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "null"}});
    let said = |id: &str, thinking: &Value| json!({"role": "assistant", "content": null, "tool_calls": [call(id)], "thinking_blocks": thinking});
    let result = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "r"});
    let user = json!({"role": "user", "content": "x"});
    let kept = json!([{"type": "thinking", "thinking": "hm", "signature": "Ab="}]);
    let unsigned = json!([{"type": "thinking", "thinking": "hm", "signature": "unsigned"}]);
    let none = json!(null);
    let answer = json!({"role": "assistant", "content": "a"});
    let rows = [
        (vec![said("c", &none), result("c")], false),
        (vec![said("c", &json!([])), result("c")], false),
        (vec![said("c", &unsigned), result("c")], false),
        (vec![said("c", &kept), result("c")], true),
        // What was said in a turn before does not matter.
        (vec![said("c", &none), result("c"), answer.clone(), user.clone()], true),
        (vec![said("c", &none), result("c"), answer, user.clone(), said("d", &kept), result("d")], true),
        (vec![said("c", &kept), result("c"), said("d", &none), result("d")], false),
        // The user has gone on without an answer.
        (vec![said("c", &none), result("c"), user.clone()], false),
    ];
    let enabled = json!({"type": "enabled", "budget_tokens": 1024});
    for (history, on) in rows {
        let messages: Vec<Value> = std::iter::once(user.clone()).chain(history).collect();
        for thinking in [json!({"reasoning_effort": "low"}), json!({"thinking": enabled})] {
            let mut chat =
                json!({"tools": [{"type": "function", "function": {"name": "f"}}], "messages": messages});
            chat.as_object_mut().unwrap().extend(thinking.as_object().unwrap().clone());
            let body = Value::Object(run(chat, &Value::Null).unwrap().0);
            assert_eq!(body.get("thinking").is_some(), on, "{messages:?} {thinking}");
            assert!(on || !body.to_string().contains("Ab="), "{body}");
        }
    }
    // What the model decides by itself, or does not do at all, is no reason.
    for thinking in [json!({"type": "adaptive"}), json!({"type": "disabled"})] {
        let chat = json!({"thinking": thinking, "tools": [{"type": "function", "function": {"name": "f"}}],
            "messages": [user, said("c", &none), result("c")]});
        assert_eq!(run(chat, &Value::Null).unwrap().0["thinking"], thinking);
    }
}

#[test]
fn ids_have_no_signature_of_another_provider() {
    let call = json!({"id": "c.1__thought__a+b/c=", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let chat = json!({"tools": [{"type": "function", "function": {"name": "f"}}], "messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c.1__thought__a+b/c=", "content": "r"}]});
    let body = run(chat, &Value::Null).unwrap().0;
    assert_eq!(body["messages"][1]["content"][0]["id"], "c_1");
    assert_eq!(body["messages"][2]["content"][0]["tool_use_id"], "c_1");
}

#[test]
fn odd_values_anywhere_are_answered_not_trapped() {
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("é🙂"),
        json!([]),
        json!([[]]),
        json!({}),
        json!([{}]),
        json!([{"type": "text"}]),
        json!({"type": "function"}),
    ];
    let mut runs = 0;
    golden::each("messages/request/write", |case| {
        let settings = options(&case["options"]);
        golden::mutants(&case["chat"], &odd, &mut |chat| {
            runs += 1;
            if let Err(error) = write(object(chat), &settings) {
                assert_eq!(error.status(), 400, "{}", error.message);
            }
        });
    });
    assert!(runs > 1000, "{runs}");
}
