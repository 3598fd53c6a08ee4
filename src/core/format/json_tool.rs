//! JSON of a schema from a model that has no words for it: a tool that it must call is its content. The request names the tool, and
//! the response's call of it is brought back to where the client looks for what it asked.

use serde_json::{Map, Value};

use super::{
    messages::request::JSON_TOOL,
    response::{Observed, ReadResponse, ReadWith},
};
use crate::core::{codec::json::Object, error::Error};

/// Asks for the schema in `response_format` by the tool. False where there is none in it; what it says then stays.
pub fn ask(body: &mut Object<'_>) -> bool {
    let Some(schema) = schema_of(body) else { return false };
    let tool = format!(r#"{{"type":"function","function":{{"name":"{JSON_TOOL}","parameters":{schema}}}}}"#);
    let own =
        body.raw("tools").and_then(|tools| tools.strip_prefix('[')?.strip_suffix(']')).unwrap_or_default();
    let tools = if own.trim().is_empty() { format!("[{tool}]") } else { format!("[{own},{tool}]") };
    body.remove("response_format");
    body.set("tools", tools);
    body.set("tool_choice", format!(r#"{{"type":"function","function":{{"name":"{JSON_TOOL}"}}}}"#));
    true
}

/// The schema that is asked for, as it stands there.
fn schema_of(body: &Object<'_>) -> Option<String> {
    let format: Object<'_> = body.read("response_format")?;
    let named: Option<Object<'_>> = format.read("json_schema");
    let schema = format.raw("response_schema").or_else(|| named.as_ref()?.raw("schema"))?;
    let is_told = Object::parse(schema.as_bytes()).is_ok_and(|schema| schema.iter().next().is_some());
    is_told.then(|| schema.to_owned())
}

/// Reads a response with the call of the tool as its content.
pub fn bring_back(reader: ReadWith) -> ReadWith {
    Box::new(move |ids| Box::new(Reader { inner: reader(ids), choices: Vec::new() }))
}

struct Reader {
    inner: Box<dyn ReadResponse>,
    /// What has come of each choice, in the order of their indices. OpenAI allows 128.
    choices: Vec<Choice>,
}

/// What a stream has said of one choice.
#[derive(Default)]
struct Choice {
    /// The index of the tool's call among the calls.
    json: Option<u64>,
    /// There are calls of the client's own tools.
    has_calls: bool,
}

impl Reader {
    fn chunk(&mut self, chunk: &mut Value) {
        for choice in choices_of(chunk) {
            let at = choice.get("index").and_then(Value::as_u64).unwrap_or(0).min(127) as usize;
            if self.choices.len() <= at {
                self.choices.resize_with(at + 1, Choice::default);
            }
            let Some(state) = self.choices.get_mut(at) else { continue };
            if let Some(delta) = choice.get_mut("delta").and_then(Value::as_object_mut) {
                state.delta(delta);
            }
            if state.json.is_some() && !state.has_calls {
                stop(choice);
            }
        }
    }
}

impl Choice {
    /// Turns pieces of the tool's arguments into content.
    fn delta(&mut self, delta: &mut Map<String, Value>) {
        let Some(Value::Array(calls)) = delta.get_mut("tool_calls") else { return };
        let mut content = String::new();
        let mut is_json = false;
        calls.retain(|call| {
            let index = call.get("index").and_then(Value::as_u64).unwrap_or(0);
            if self.json.is_none() && name_of(call) == JSON_TOOL {
                self.json = Some(index);
            }
            let is_it = self.json == Some(index);
            if is_it {
                is_json = true;
                content.push_str(arguments_of(call));
            } else {
                // Another call of the tool would make the content two JSON values.
                self.has_calls |= name_of(call) != JSON_TOOL;
            }
            !is_it && name_of(call) != JSON_TOOL
        });
        if calls.is_empty() {
            delta.shift_remove("tool_calls");
        }
        if is_json {
            delta.insert("content".into(), content.into());
        }
    }
}

impl ReadResponse for Reader {
    fn whole(&mut self, body: Value, observed: &mut Observed) -> Result<Value, Error> {
        let mut chat = self.inner.whole(body, observed)?;
        for choice in choices_of(&mut chat) {
            let Some(message) = choice.get_mut("message").and_then(Value::as_object_mut) else { continue };
            let Some(Value::Array(calls)) = message.get_mut("tool_calls") else { continue };
            let Some(content) = calls.iter().find(|call| name_of(call) == JSON_TOOL).map(arguments_of) else {
                continue;
            };
            let content = content.to_owned();
            calls.retain(|call| name_of(call) != JSON_TOOL);
            let is_alone = calls.is_empty();
            if is_alone {
                message.shift_remove("tool_calls");
            }
            message.insert("content".into(), content.into());
            if is_alone {
                stop(choice);
            }
        }
        Ok(chat)
    }

    fn event(
        &mut self,
        event: Value,
        data: &[u8],
        observed: &mut Observed,
        chunks: &mut Vec<Value>,
    ) -> Result<(), Error> {
        let before = chunks.len();
        self.inner.event(event, data, observed, chunks)?;
        let mut made = chunks.split_off(before);
        made.iter_mut().for_each(|chunk| self.chunk(chunk));
        chunks.append(&mut made);
        Ok(())
    }

    fn finish(&mut self, observed: &mut Observed, chunks: &mut Vec<Value>) -> Result<(), Error> {
        self.inner.finish(observed, chunks)
    }

    fn is_finished(&self) -> bool {
        self.inner.is_finished()
    }
}

fn choices_of(chat: &mut Value) -> impl Iterator<Item = &mut Value> {
    chat.get_mut("choices").and_then(Value::as_array_mut).into_iter().flatten()
}

/// A choice whose calls were all the tool's has stopped: there is nothing to call.
fn stop(choice: &mut Value) {
    if let Some(reason) = choice.get_mut("finish_reason").filter(|reason| *reason == "tool_calls") {
        *reason = Value::from("stop");
    }
}

fn name_of(call: &Value) -> &str {
    call.pointer("/function/name").and_then(Value::as_str).unwrap_or_default()
}

fn arguments_of(call: &Value) -> &str {
    call.pointer("/function/arguments").and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::format::{chat, response::ResponseIds};

    #[test]
    fn a_schema_becomes_a_tool_that_must_be_called() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        let own = json!({"type": "function", "function": {"name": "f"}});
        let body = json!({"tools": [own], "tool_choice": "auto", "response_format":
            {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": true}}})
        .to_string();
        let mut body = Object::parse(body.as_bytes()).unwrap();
        assert!(ask(&mut body));
        let sent: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
        let tool = json!({"type": "function", "function": {"name": "json_tool_call", "parameters": schema}});
        let choice = json!({"type": "function", "function": {"name": "json_tool_call"}});
        assert_eq!(sent, json!({"tools": [own, tool], "tool_choice": choice}));
    }

    #[test]
    fn what_names_no_schema_stays() {
        for format in
            [json!(null), json!({"type": "json_object"}), json!({"json_schema": {}}), json!([1]), json!("x")]
        {
            let text = json!({"response_format": format}).to_string();
            let mut body = Object::parse(text.as_bytes()).unwrap();
            assert!(!ask(&mut body), "{format}");
            assert_eq!(String::from_utf8(body.to_bytes()).unwrap(), text);
        }
    }

    fn reader() -> Box<dyn ReadResponse> {
        bring_back(chat::reader())(&ResponseIds::default())
    }

    fn call(name: &str) -> Value {
        json!({"id": "c", "type": "function", "function": {"name": name, "arguments": "{\"a\":1}"}})
    }

    #[test]
    fn the_call_is_the_content_of_a_whole_response() {
        // Calls; content, calls that are left, finish reason.
        let rows = [
            (json!([call("json_tool_call")]), json!("{\"a\":1}"), None, "stop"),
            (json!([call("json_tool_call"), call("json_tool_call")]), json!("{\"a\":1}"), None, "stop"),
            (
                json!([call("f"), call("json_tool_call")]),
                json!("{\"a\":1}"),
                Some(json!([call("f")])),
                "tool_calls",
            ),
            (json!([call("f")]), json!(null), Some(json!([call("f")])), "tool_calls"),
        ];
        for (calls, content, left, reason) in rows {
            let message = json!({"role": "assistant", "content": null, "tool_calls": calls});
            let body = json!({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]});
            let chat = reader().whole(body, &mut Observed::default()).unwrap();
            let choice = &chat["choices"][0];
            let told = (
                &choice["message"]["content"],
                choice["message"].get("tool_calls"),
                &choice["finish_reason"],
            );
            assert_eq!(told, (&content, left.as_ref(), &json!(reason)), "{calls}");
        }
    }

    #[test]
    fn pieces_of_the_call_are_pieces_of_the_content() {
        let piece = |index: u64, name: Option<&str>, arguments: &str| {
            let mut function = json!({"arguments": arguments});
            if let Some(name) = name {
                function["name"] = json!(name);
            }
            json!({"tool_calls": [{"index": index, "function": function}]})
        };
        let chunk = |delta: Value, reason: Value| json!({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]});
        let run = |deltas: Vec<Value>| {
            let (mut reader, mut chunks) = (reader(), Vec::new());
            let ends = [chunk(json!({}), json!("tool_calls"))];
            for event in deltas.into_iter().map(|delta| chunk(delta, json!(null))).chain(ends) {
                reader.event(event, b"", &mut Observed::default(), &mut chunks).unwrap();
            }
            let texts = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
            let text: String = texts.collect();
            let has_calls =
                chunks.iter().any(|chunk| chunk["choices"][0]["delta"].get("tool_calls").is_some());
            let reason = chunks.last().unwrap()["choices"][0]["finish_reason"].clone();
            (text, has_calls, reason)
        };
        let json =
            vec![piece(0, Some("json_tool_call"), ""), piece(0, None, "{\"a\""), piece(0, None, ":1}")];
        assert_eq!(run(json.clone()), ("{\"a\":1}".to_owned(), false, json!("stop")));
        let both = [vec![piece(1, Some("f"), "{}")], json].concat();
        assert_eq!(run(both), ("{\"a\":1}".to_owned(), true, json!("tool_calls")));
        assert_eq!(run(vec![piece(0, Some("f"), "{}")]), (String::new(), true, json!("tool_calls")));
    }
}
