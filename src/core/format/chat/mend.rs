//! A chat provider's response on its way to a chat client, made what LiteLLM's clients read: thoughts are in `reasoning_content`,
//! calls end with `tool_calls`, and a call's id carries the signature of its thought. What needs none of it keeps its bytes.

use std::borrow::Cow;

use serde_json::Value;

use super::thought;
use crate::core::{
    codec::{
        json::{Object, string},
        needle::Needle,
        scan::Words,
    },
    format::{response::Seen, splice},
};

static NAME: Needle = Needle::new("\"name\"");
static SIGNATURE: Needle = Needle::new("\"thought_signature\"");

/// Puts right a buffered response. Whether there was anything.
pub fn whole(body: &mut Object<'_>) -> bool {
    let words = body.words("choices");
    let may_need_it = words.have(Words::REASONING)
        || words.have(Words::TAG)
        || (words.have(Words::TOOL_CALLS) && (words.have(Words::STOP) || words.have(Words::EXTENSIONS)));
    if !may_need_it {
        return false;
    }
    let mended = body.raw("choices").and_then(|raw| {
        splice::map_items(raw, |_, raw| {
            let mut called = 0;
            choice(raw, Part::Message, &mut called)
        })
    });
    let is_mended = mended.is_some();
    mended.into_iter().for_each(|choices| body.set("choices", choices));
    is_mended
}

/// The data of an event put right; `None` when it stays. `called` has a bit for each choice that has called tools.
pub fn event(data: &[u8], seen: Seen, called: &mut u128) -> Option<Vec<u8>> {
    // Arguments that follow have no name: that the choice calls is known then.
    let begins_call =
        seen.calls && NAME.values(data).any(|name| name.starts_with(b"\"") && !name.starts_with(b"\"\""));
    if !(seen.reasoning || begins_call || (seen.stop && *called != 0)) {
        return None;
    }
    let mut event = Object::parse(data).ok()?;
    let choices = splice::map_items(event.raw("choices")?, |_, raw| choice(raw, Part::Delta, called))?;
    event.set("choices", choices);
    Some(event.to_bytes())
}

/// What a choice holds its message in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Message,
    Delta,
}

fn choice(raw: &str, part: Part, called: &mut u128) -> Option<String> {
    let mut choice = Object::parse(raw.as_bytes()).ok()?;
    let name = if part == Part::Message { "message" } else { "delta" };
    let index: u64 = choice.read("index").unwrap_or(0);
    let bit = 1_u128 << index.min(127);
    let mut calls = false;
    let message = choice.raw(name).and_then(|raw| message(raw, part, &mut calls));
    if calls {
        *called |= bit;
    }
    let is_misnamed = *called & bit != 0 && choice.raw("finish_reason") == Some("\"stop\"");
    if message.is_none() && !is_misnamed {
        return None;
    }
    message.into_iter().for_each(|message| choice.set(name, message));
    if is_misnamed {
        choice.set("finish_reason", "\"tool_calls\"");
    }
    String::from_utf8(choice.to_bytes()).ok()
}

fn message(raw: &str, part: Part, calls: &mut bool) -> Option<String> {
    let mut message = Object::parse(raw.as_bytes()).ok()?;
    let mut is_mended = false;
    if !message.has("reasoning_content") {
        if message.raw("reasoning").is_some_and(|raw| raw.starts_with('"')) {
            message.rename("reasoning", "reasoning_content");
            is_mended = true;
        } else if part == Part::Message && !message.has("reasoning") {
            is_mended = split(&mut message);
        }
    }
    let list = message.raw("tool_calls").filter(|list| is_filled(list));
    *calls = list.is_some();
    let signed = list
        .filter(|list| SIGNATURE.is_in(list.as_bytes()))
        .and_then(|list| splice::map_items(list, |_, call| signed(call)));
    if let Some(signed) = signed {
        message.set("tool_calls", signed);
        is_mended = true;
    }
    is_mended.then(|| String::from_utf8(message.to_bytes()).ok()).flatten()
}

/// Moves the thoughts that the text begins with into their member.
fn split(message: &mut Object<'_>) -> bool {
    let Some(text) = message.raw("content").filter(|raw| raw.starts_with("\"<") || raw.starts_with("\"\\"))
    else {
        return false;
    };
    let Ok(text) = serde_json::from_str::<String>(text) else { return false };
    let Some((thoughts, said)) = thought::split(&text) else { return false };
    message.set("content", string(said));
    message.set("reasoning_content", string(thoughts));
    true
}

/// Whether a list has anything in it.
fn is_filled(list: &str) -> bool {
    list.strip_prefix('[').is_some_and(|rest| !rest.trim_ascii_start().starts_with(']'))
}

/// A call with the signature of its thought in its id.
fn signed(raw: &str) -> Option<String> {
    let mut call = Object::parse(raw.as_bytes()).ok()?;
    let extra: Value = call.read("extra_content")?;
    let signature = thought::signature_in(&extra).filter(|it| !it.is_empty())?;
    let id = call.read::<Cow<'_, str>>("id")?;
    let id = string(&thought::with_signature(&id, signature));
    call.set("id", id);
    String::from_utf8(call.to_bytes()).ok()
}

#[cfg(test)]
mod tests;
