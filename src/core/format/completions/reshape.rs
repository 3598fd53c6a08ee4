//! A whole text completion as a stream of it, and the other way round.

use serde_json::{Map, Value};

use crate::core::{
    codec::{sse, value},
    error::Error,
    format::{
        chat::response::{choices_of, index_of, unreadable},
        pipeline::cut_short,
        reshape,
        response::Join,
    },
};

/// Writes a `text_completion` as a stream: what is said in one event, the usage in another.
pub fn write(mut body: Value, out: &mut Vec<u8>) -> Result<(), Error> {
    choices_of(&body)?;
    let usage = body.as_object_mut().and_then(|body| body.shift_remove("usage")).filter(Value::is_object);
    sse::write(out, None, &value::to_bytes(&body));
    if let (Some(usage), Some(last)) = (usage, body.as_object_mut()) {
        last.insert("choices".into(), Vec::<Value>::new().into());
        last.insert("usage".into(), usage);
        sse::write(out, None, &value::to_bytes(&body));
    }
    sse::write(out, None, b"[DONE]");
    Ok(())
}

/// Puts the events of a text completion together.
#[derive(Debug, Default)]
pub struct Joined {
    head: Map<String, Value>,
    choices: Vec<(u64, Map<String, Value>)>,
    ended: bool,
}

impl Join for Joined {
    fn event(&mut self, event: Value) -> Result<(), Error> {
        let Value::Object(mut event) = event else { return Ok(()) };
        let choices = event.shift_remove("choices");
        self.head.extend(event.into_iter().filter(|(_, value)| !value.is_null()));
        let Some(Value::Array(choices)) = choices else { return Ok(()) };
        for choice in choices {
            let index = index_of(&choice);
            let Value::Object(mut choice) = choice else { continue };
            let reason = choice.shift_remove("finish_reason").filter(Value::is_string);
            self.ended |= reason.is_some();
            let at = self.choices.iter().position(|(known, _)| *known == index);
            let at = at.unwrap_or_else(|| {
                self.choices.push((index, Map::new()));
                self.choices.len().saturating_sub(1)
            });
            if let Some((_, known)) = self.choices.get_mut(at) {
                reshape::add(known, choice);
                reason.into_iter().for_each(|reason| _ = known.insert("finish_reason".into(), reason));
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, done: bool) -> Result<Value, Error> {
        if !self.ended && !done {
            return Err(cut_short());
        }
        if self.choices.is_empty() {
            return Err(unreadable("no `choices`"));
        }
        self.choices.sort_by_key(|(index, _)| *index);
        let whole = |(index, mut choice): (u64, Map<String, Value>)| {
            choice.insert("index".into(), index.into());
            choice.entry("finish_reason").or_insert_with(|| "stop".into());
            Value::from(choice)
        };
        let choices: Vec<Value> = self.choices.into_iter().map(whole).collect();
        self.head.insert("choices".into(), choices.into());
        Ok(self.head.into())
    }
}
