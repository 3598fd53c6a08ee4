//! A Messages request on its way to Anthropic as it came, but for what Anthropic refuses in every conversation that has it: texts
//! that say nothing, thinking that another model did, and ids of calls that it did not give itself.

use std::{borrow::Cow, collections::HashSet};

use serde_json::{Value, value::RawValue};

use super::{super::UNSIGNED, NOTHING_SAID, is_space};
use crate::core::{
    codec::{
        json::{Object, string},
        needle::Needle,
        scan::Words,
    },
    format::{
        messages::ids::{self, CallIds},
        splice,
    },
};

static TEXT: Needle = Needle::new("\"text\"");
static CONTENT: Needle = Needle::new("\"content\"");
static SIGNATURE: Needle = Needle::new("\"signature\"");
static ANSWERED: Needle = Needle::new("\"tool_use_id\"");

/// Takes it out of the body. A conversation that waits for a tool's result behind a call without thinking can only be continued
/// without thinking.
pub fn clean(body: &mut Object<'_>) {
    clean_system(body);
    let Some(raw) = body.raw("messages") else { return };
    let has_thoughts = body.words("messages").have(Words::THOUGHT);
    let ids = (has_thoughts || ids_need_it(raw.as_bytes())).then(CallIds::default);
    let cleaned = if ids.is_some() || may_need_it(raw.as_bytes()) {
        let mut cleaner = Cleaner { ids };
        splice::map_items(raw, |_, message| cleaner.message(Object::parse(message.as_bytes()).ok()?))
    } else {
        None
    };
    if let Some(messages) = cleaned {
        body.set("messages", messages);
    }
    if body.raw("thinking").is_some_and(must_be_kept)
        && body.raw("messages").is_some_and(waits_without_thinking)
    {
        body.remove("thinking");
    }
}

/// Whether a text or a signature may be blank. Names in texts cannot be mistaken: their quotes are escaped.
fn may_need_it(raw: &[u8]) -> bool {
    let texts = TEXT.values(raw).chain(CONTENT.values(raw));
    texts.into_iter().any(is_blank) || SIGNATURE.values(raw).any(is_no_signature)
}

/// Whether JSON begins with what is not the signature of a thought.
fn is_no_signature(json: &[u8]) -> bool {
    let text = json.strip_prefix(b"\"").unwrap_or_default();
    text.starts_with(b"\"")
        || text.strip_prefix(UNSIGNED.as_bytes()).is_some_and(|rest| rest.starts_with(b"\""))
}

/// Whether the id of a call that has a result is given twice, or has letters that Anthropic does not take.
fn ids_need_it(raw: &[u8]) -> bool {
    let mut seen = HashSet::new();
    let id = |value: &'_ [u8]| {
        value.strip_prefix(b"\"").map(|rest| rest.split(|b| *b == b'"').next().map(<[u8]>::to_vec))
    };
    ANSWERED.values(raw).filter_map(id).flatten().any(|id| {
        let fits = std::str::from_utf8(&id).is_ok_and(ids::fits);
        !fits || !seen.insert(id)
    })
}

/// Whether JSON begins with a string that is empty or all space.
fn is_blank(json: &[u8]) -> bool {
    let Some(mut rest) = json.strip_prefix(b"\"") else { return false };
    loop {
        let (space, after) = match rest {
            [b'"', ..] => return true,
            [b' ', after @ ..] | [b'\\', b'n' | b't' | b'r' | b'f', after @ ..] => (Some(' '), after),
            [b'\\', b'u', a, b, c, d, after @ ..] => (unescaped([*a, *b, *c, *d]), after),
            [0xc2, ..] => first_of(rest, 2),
            [0xe1..=0xe3, ..] => first_of(rest, 3),
            _ => return false,
        };
        if !space.is_some_and(is_space) {
            return false;
        }
        rest = after;
    }
}

fn unescaped(digits: [u8; 4]) -> Option<char> {
    let digits = std::str::from_utf8(&digits).ok()?;
    u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)
}

/// The first character, which has so many bytes.
fn first_of(text: &[u8], size: usize) -> (Option<char>, &[u8]) {
    let (first, after) = text.split_at_checked(size).unwrap_or_default();
    (std::str::from_utf8(first).ok().and_then(|first| first.chars().next()), after)
}

/// Texts of the system prompt that say nothing.
fn clean_system(body: &mut Object<'_>) {
    let Some(raw) = body.raw("system").filter(|raw| TEXT.values(raw.as_bytes()).any(is_blank)) else {
        return;
    };
    let Ok(blocks) = serde_json::from_str::<Vec<&RawValue>>(raw) else { return };
    let says = |block: &&RawValue| !TEXT.values(block.get().as_bytes()).any(is_blank);
    let kept: Vec<&str> = blocks.into_iter().filter(says).map(RawValue::get).collect();
    let kept = (!kept.is_empty()).then(|| format!("[{}]", kept.join(",")));
    match kept {
        Some(kept) => body.set("system", kept),
        None => _ = body.remove("system"),
    }
}

/// Whether thinking of this kind must stand before the calls of the turn that is on.
fn must_be_kept(thinking: &str) -> bool {
    Object::parse(thinking.as_bytes()).is_ok_and(|thinking| thinking.raw("type") == Some("\"enabled\""))
}

/// What of a turn tells whether Anthropic lets the conversation think: messages of one role in a row are one turn.
#[derive(Default)]
struct Turn {
    is_user: bool,
    answers: bool,
    calls: bool,
    begins_with_thinking: bool,
}

/// Whether the conversation goes on behind calls that no thinking led to: another model has made them, or their thinking has been left
/// out.
fn waits_without_thinking(messages: &str) -> bool {
    let messages: Vec<&RawValue> = serde_json::from_str(messages).unwrap_or_default();
    let mut turns: Vec<Turn> = Vec::new();
    for message in messages {
        let message = Object::parse(message.get().as_bytes()).unwrap_or_default();
        let blocks: Vec<Object<'_>> = message.read("content").unwrap_or_default();
        let kinds = || blocks.iter().filter_map(|block| block.raw("type"));
        let is_user = match message.raw("role") {
            Some("\"user\"") => true,
            Some("\"assistant\"") => false,
            _ => continue,
        };
        if turns.last().is_none_or(|turn| turn.is_user != is_user) {
            let first = kinds().next();
            let begins_with_thinking = matches!(first, Some("\"thinking\"" | "\"redacted_thinking\""));
            turns.push(Turn { is_user, begins_with_thinking, ..Turn::default() });
        }
        if let Some(turn) = turns.last_mut() {
            turn.answers |= kinds().any(|kind| kind == "\"tool_result\"");
            turn.calls |= kinds().any(|kind| kind == "\"tool_use\"");
        }
    }
    let open = turns.iter().rev().take_while(|turn| !turn.is_user || turn.answers);
    open.into_iter().any(|turn| turn.calls && !turn.begins_with_thinking)
}

struct Cleaner {
    /// Where calls need other ids.
    ids: Option<CallIds>,
}

impl Cleaner {
    fn message(&mut self, mut message: Object<'_>) -> Option<String> {
        let is_assistant = message.raw("role") == Some("\"assistant\"");
        let content = message.raw("content")?;
        let said = if is_blank(content.as_bytes()) {
            // A blank beginning of the answer is not ours to fill in.
            (!is_assistant).then(|| string(NOTHING_SAID))
        } else {
            Some(match self.blocks(content)?.as_slice() {
                [] => format!("[{{\"type\":\"text\",\"text\":{}}}]", string(NOTHING_SAID)),
                kept => format!("[{}]", kept.join(",")),
            })
        }?;
        message.set("content", said);
        String::from_utf8(message.to_bytes()).ok()
    }

    /// The blocks that stay; `None` when all stay as they are.
    fn blocks<'c>(&mut self, content: &'c str) -> Option<Vec<Cow<'c, str>>> {
        let blocks: Vec<&RawValue> = serde_json::from_str(content).ok()?;
        let mut kept = Vec::with_capacity(blocks.len());
        let mut has_changed = false;
        for block in blocks {
            let block = block.get();
            let members = Object::parse(block.as_bytes()).unwrap_or_default();
            let kind = members.read::<Value>("type").unwrap_or_default();
            let changed = match kind.as_str() {
                Some("text") if members.raw("text").is_some_and(|raw| is_blank(raw.as_bytes())) => {
                    has_changed = true;
                    continue;
                }
                Some("thinking")
                    if members
                        .raw("signature")
                        .is_none_or(|raw| raw == "null" || is_no_signature(raw.as_bytes())) =>
                {
                    has_changed = true;
                    continue;
                }
                Some("tool_use") => self.with_id(block, "id"),
                Some("tool_result") => {
                    let cleaned = splice::map_member(block, "content", |content| {
                        Some(format!("[{}]", self.blocks(content)?.join(",")))
                    });
                    self.with_id(cleaned.as_deref().unwrap_or(block), "tool_use_id").or(cleaned)
                }
                _ => None,
            };
            has_changed |= changed.is_some();
            kept.push(changed.map_or(Cow::Borrowed(block), Cow::Owned));
        }
        has_changed.then_some(kept)
    }

    /// A call or a result with the id that Anthropic takes.
    fn with_id(&mut self, block: &str, member: &str) -> Option<String> {
        let ids = self.ids.as_mut()?;
        splice::map_member(block, member, |id| {
            let id: String = serde_json::from_str(id).ok()?;
            Some(string(&if member == "id" { ids.call(id) } else { ids.result(&id) }))
        })
    }
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
        let marked = json!({"type": "thinking", "thinking": "hm", "signature": UNSIGNED});
        let signed = json!({"type": "thinking", "thinking": "hm", "signature": "Ab="});
        let call = json!({"type": "tool_use", "id": "t", "name": "f", "input": {}});
        let rows = [
            ("user", json!(""), json!(NOTHING_SAID)),
            ("user", json!(" \n"), json!(NOTHING_SAID)),
            ("user", json!("\u{a0}\u{3000}\r\u{c}\u{1c}"), json!(NOTHING_SAID)),
            ("assistant", json!(""), json!("")),
            ("user", json!([text("")]), json!([text(NOTHING_SAID)])),
            ("user", json!([text(""), text("a")]), json!([text("a")])),
            ("assistant", json!([unsigned, text("a")]), json!([text("a")])),
            ("assistant", json!([marked, text("a")]), json!([text("a")])),
            ("assistant", json!([unsigned]), json!([text(NOTHING_SAID)])),
            ("assistant", json!([signed, text(" "), call]), json!([signed, call])),
            (
                "user",
                json!([{"type": "tool_result", "tool_use_id": "t", "content": [text("")]}, text("a")]),
                json!([{"type": "tool_result", "tool_use_id": "t", "content": []}, text("a")]),
            ),
            (
                "assistant",
                json!([{"type": "tool_use", "id": "t__thought__Ab", "name": "f", "input": {"id": "a__thought__b"}}]),
                json!([{"type": "tool_use", "id": "t", "name": "f", "input": {"id": "a__thought__b"}}]),
            ),
            (
                "user",
                json!([{"type": "tool_result", "tool_use_id": "t__thought__Ab", "content": [text(""), text("a")]}]),
                json!([{"type": "tool_result", "tool_use_id": "t", "content": [text("a")]}]),
            ),
        ];
        for (role, content, expected) in rows {
            let body = run(&json!({"messages": [{"role": role, "content": content, "x": 1}]}));
            assert_eq!(body, json!({"messages": [{"role": role, "content": expected, "x": 1}]}), "{content}");
        }
    }

    #[test]
    fn a_turn_that_has_lost_its_thinking_goes_on_without() {
        let unsigned = json!({"type": "thinking", "thinking": "hm", "signature": UNSIGNED});
        let call = json!({"type": "tool_use", "id": "t", "name": "f", "input": {}});
        let text = json!({"type": "text", "text": "a"});
        let thinking = json!({"type": "enabled", "budget_tokens": 1024});
        let signed = json!({"type": "thinking", "thinking": "hm", "signature": "Ab="});
        let answered = json!([{"type": "tool_result", "tool_use_id": "t", "content": "x"}]);
        let rows = [
            (json!([unsigned, call]), answered.clone(), false),
            (json!([unsigned, text]), json!("b"), true),
            (json!([signed, call]), answered.clone(), true),
            // A model that shows no thinking has answered in between.
            (json!([call]), answered.clone(), false),
            (json!([text, call]), answered.clone(), false),
            (json!([call]), json!("b"), true),
        ];
        for (blocks, next, stays) in rows {
            let messages =
                json!([{"role": "assistant", "content": blocks}, {"role": "user", "content": next}]);
            let body = run(&json!({"thinking": thinking, "messages": messages}));
            assert_eq!(body.get("thinking").is_some(), stays, "{blocks}");
            let adaptive = run(&json!({"thinking": {"type": "adaptive"}, "messages": messages}));
            assert!(adaptive.get("thinking").is_some(), "{blocks}");
        }
    }

    #[test]
    fn a_system_prompt_holds_no_blank_texts() {
        let text = |text: &str| json!({"type": "text", "text": text});
        let messages = json!([{"role": "user", "content": "a"}]);
        for (system, expected) in [
            (json!([text(""), text("a"), text("\r")]), json!([text("a")])),
            (json!([text(" ")]), json!(null)),
            (json!(""), json!("")),
        ] {
            let body = run(&json!({"messages": messages, "system": system}));
            assert_eq!(body.get("system").cloned().unwrap_or_default(), expected, "{system}");
        }
    }

    #[test]
    fn calls_have_ids_that_anthropic_takes_each_once() {
        let turn = |id: &str| {
            vec![
                json!({"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "f", "input": {}}]}),
                json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "x"}]}),
            ]
        };
        for (given, expected) in
            [(["f:0", "f:1"], ["f_0", "f_1"]), (["0", "0"], ["0", "0_2"]), (["a", "b"], ["a", "b"])]
        {
            let conversation = |ids: [&str; 2]| json!({"messages": ids.map(turn).concat()});
            assert_eq!(run(&conversation(given)), conversation(expected), "{given:?}");
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
