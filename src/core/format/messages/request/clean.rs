//! A Messages request on its way to Anthropic as it came, but for what Anthropic refuses in every conversation that has it: texts
//! that say nothing, and thinking that another model did.

use std::borrow::Cow;

use serde_json::{Value, value::RawValue};

use super::NOTHING_SAID;
use crate::core::{
    codec::{
        json::{Object, string},
        needle::Needle,
    },
    format::splice,
};

static TEXT: Needle = Needle::new("\"text\"");
static CONTENT: Needle = Needle::new("\"content\"");
static SIGNATURE: Needle = Needle::new("\"signature\"");

/// Takes it out of the body's messages. A conversation that waits for a tool's result behind a call whose thinking is gone can
/// only be continued without thinking.
pub fn clean(body: &mut Object<'_>) {
    let Some(raw) = body.raw("messages").filter(|raw| may_need_it(raw.as_bytes())) else { return };
    let mut has_lost_thinking = false;
    let cleaned = splice::map_items(raw, |_, message| {
        let message = Object::parse(message.as_bytes()).ok()?;
        clean_message(message, &mut has_lost_thinking)
    });
    if let Some(messages) = cleaned {
        body.set("messages", messages);
    }
    if has_lost_thinking {
        body.remove("thinking");
    }
}

/// Whether a text or a signature may be blank. Names in texts cannot be mistaken: their quotes are escaped.
fn may_need_it(raw: &[u8]) -> bool {
    let texts = TEXT.values(raw).chain(CONTENT.values(raw));
    texts.into_iter().any(is_blank) || SIGNATURE.values(raw).any(|value| value.starts_with(b"\"\""))
}

/// Whether JSON begins with a string without a letter.
fn is_blank(json: &[u8]) -> bool {
    let Some(mut rest) = json.strip_prefix(b"\"") else { return false };
    loop {
        rest = match rest {
            [b'"', ..] => return true,
            [b' ', rest @ ..] | [b'\\', b'n' | b't' | b'r' | b'f', rest @ ..] => rest,
            _ => return false,
        };
    }
}

fn clean_message(mut message: Object<'_>, has_lost_thinking: &mut bool) -> Option<String> {
    let is_assistant = message.raw("role") == Some("\"assistant\"");
    // Only the newest turn matters: what came before it is closed.
    *has_lost_thinking &= !is_assistant;
    let content = message.raw("content")?;
    let said = if is_blank(content.as_bytes()) {
        // A blank beginning of the answer is not ours to fill in.
        (!is_assistant).then(|| string(NOTHING_SAID))
    } else {
        let (kept, lost) = clean_blocks(content)?;
        if is_assistant {
            *has_lost_thinking = lost;
        }
        Some(match kept.as_slice() {
            [] => format!("[{{\"type\":\"text\",\"text\":{}}}]", string(NOTHING_SAID)),
            kept => format!("[{}]", kept.join(",")),
        })
    }?;
    message.set("content", said);
    String::from_utf8(message.to_bytes()).ok()
}

/// The blocks that stay, and whether thinking went from beside a call; `None` when all stay as they are.
fn clean_blocks(content: &str) -> Option<(Vec<Cow<'_, str>>, bool)> {
    let blocks: Vec<&RawValue> = serde_json::from_str(content).ok()?;
    let mut kept = Vec::with_capacity(blocks.len());
    let (mut lost, mut calls, mut changed) = (false, false, false);
    for block in blocks {
        let block = block.get();
        let members = Object::parse(block.as_bytes()).unwrap_or_default();
        let kind = members.read::<Value>("type").unwrap_or_default();
        match kind.as_str() {
            Some("text") if members.raw("text").is_some_and(|raw| is_blank(raw.as_bytes())) => {
                changed = true;
                continue;
            }
            Some("thinking") if matches!(members.raw("signature"), None | Some("\"\"" | "null")) => {
                (lost, changed) = (true, true);
                continue;
            }
            Some("tool_use") => calls = true,
            _ => {}
        }
        let result = if kind == "tool_result" { clean_result(block) } else { None };
        changed |= result.is_some();
        kept.push(result.map_or(Cow::Borrowed(block), Cow::Owned));
    }
    changed.then_some((kept, lost && calls))
}

/// A tool's result without its blank texts, when it has some.
fn clean_result(block: &str) -> Option<String> {
    splice::map_member(block, "content", |content| {
        let (kept, _) = clean_blocks(content)?;
        Some(format!("[{}]", kept.join(",")))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(body: &Value) -> Value {
        let bytes = body.to_string().into_bytes();
        let mut body = Object::parse(&bytes).unwrap();
        clean(&mut body);
        serde_json::from_slice(&body.to_bytes()).unwrap()
    }

    #[test]
    fn what_anthropic_refuses_is_left_out() {
        let text = |text: &str| json!({"type": "text", "text": text});
        let unsigned = json!({"type": "thinking", "thinking": "hm", "signature": ""});
        let signed = json!({"type": "thinking", "thinking": "hm", "signature": "Ab="});
        let call = json!({"type": "tool_use", "id": "t", "name": "f", "input": {}});
        let rows = [
            ("user", json!(""), json!(NOTHING_SAID)),
            ("user", json!(" \n"), json!(NOTHING_SAID)),
            ("assistant", json!(""), json!("")),
            ("user", json!([text("")]), json!([text(NOTHING_SAID)])),
            ("user", json!([text(""), text("a")]), json!([text("a")])),
            ("assistant", json!([unsigned, text("a")]), json!([text("a")])),
            ("assistant", json!([unsigned]), json!([text(NOTHING_SAID)])),
            ("assistant", json!([signed, text(" "), call]), json!([signed, call])),
            (
                "user",
                json!([{"type": "tool_result", "tool_use_id": "t", "content": [text("")]}, text("a")]),
                json!([{"type": "tool_result", "tool_use_id": "t", "content": []}, text("a")]),
            ),
        ];
        for (role, content, expected) in rows {
            let body = run(&json!({"messages": [{"role": role, "content": content, "x": 1}]}));
            assert_eq!(body, json!({"messages": [{"role": role, "content": expected, "x": 1}]}), "{content}");
        }
    }

    #[test]
    fn a_turn_that_has_lost_its_thinking_goes_on_without() {
        let unsigned = json!({"type": "thinking", "thinking": "hm", "signature": ""});
        let call = json!({"type": "tool_use", "id": "t", "name": "f", "input": {}});
        let text = json!({"type": "text", "text": "a"});
        let thinking = json!({"type": "enabled", "budget_tokens": 1024});
        for (blocks, stays) in [(json!([unsigned, call]), false), (json!([unsigned, text]), true)] {
            let body =
                run(&json!({"thinking": thinking, "messages": [{"role": "assistant", "content": blocks}]}));
            assert_eq!(body.get("thinking").is_some(), stays, "{blocks}");
        }
    }

    #[test]
    fn what_anthropic_takes_keeps_its_bytes() {
        let bodies = [
            r#"{"messages":[{"role":"user","content":[ {"type":"text","text":"a \"text\":\"\" b"} ]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text": " a"},{"type":"tool_result","content":""}]}]}"#,
            r#"{"messages":"text"}"#,
            r#"{"messages":[1,{"content":7},{"content":"\n"},[]],"x":1.0}"#,
        ];
        for text in bodies.iter().take(3) {
            let mut body = Object::parse(text.as_bytes()).unwrap();
            clean(&mut body);
            assert_eq!(String::from_utf8(body.to_bytes()).unwrap(), **text);
        }
        let mut body = Object::parse(bodies[3].as_bytes()).unwrap();
        clean(&mut body);
        assert!(String::from_utf8(body.to_bytes()).unwrap().starts_with(r#"{"messages":[1,{"content":7},"#));
    }
}
