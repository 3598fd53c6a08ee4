//! Chat tools, tool choice and output format as Anthropic tools.

use serde_json::{Map, Value};

use super::{
    Betas,
    fault::{Fault, clip},
    take,
};
use crate::core::codec::value::object;

/// The tool whose input is the JSON that the client asked for with `response_format`.
pub(in crate::core::format) const JSON_TOOL: &str = "json_tool_call";

/// Tools that Anthropic runs or defines itself, by the start of their type.
const HOSTED: [&str; 8] = [
    "web_search_",
    "web_fetch_",
    "bash_",
    "text_editor_",
    "code_execution_",
    "computer_",
    "memory_",
    "tool_search_",
];

/// What a tool's input schema may have at its top: Anthropic refuses `anyOf` and its like there.
const SCHEMA_MEMBERS: [&str; 8] = [
    "type",
    "title",
    "description",
    "properties",
    "required",
    "additionalProperties",
    "$defs",
    "definitions",
];

/// Everything in a request that is about tools.
#[derive(Debug, Default)]
pub(super) struct Tools {
    /// The response's call of [`JSON_TOOL`] is its content.
    pub(super) json_tool: bool,
    list: Vec<Value>,
    servers: Vec<Value>,
    choice: Option<Value>,
}

impl Tools {
    /// Takes out all members about tools. With `thinking` on, Anthropic refuses to be forced to a tool.
    pub(super) fn read(
        chat: &mut Map<String, Value>,
        thinking: bool,
        betas: &mut Betas,
    ) -> Result<Tools, Fault> {
        let mut tools = Tools::default();
        for (at, tool) in list(chat, "tools")?.into_iter().enumerate() {
            tools.add(tool, betas).map_err(|fault| fault.inside(format_args!("tools[{at}]")))?;
        }
        for (at, function) in list(chat, "functions")?.into_iter().enumerate() {
            let tool = function_tool(function, None);
            tools.list.push(tool.map_err(|fault| fault.inside(format_args!("functions[{at}]")))?);
        }
        tools.servers.splice(0..0, list(chat, "mcp_servers")?);
        if !tools.servers.is_empty() {
            betas.add("mcp-client-2025-04-04");
        }
        if let Some(search) = take(chat, "web_search_options") {
            tools.list.push(web_search(search)?);
        }
        for name in ["function_call", "tool_choice"] {
            if let Some(value) = take(chat, name) {
                tools.choice = Some(choice(value).map_err(|fault| fault.inside(name))?);
            }
        }
        if let Some(format) = take(chat, "response_format") {
            tools.answer_in(format, thinking).map_err(|fault| fault.inside("response_format"))?;
        }
        if let Some(parallel) = take(chat, "parallel_tool_calls") {
            tools.parallel(parallel)?;
        }
        tools.list.iter().for_each(|tool| betas.note_caching(tool));
        Ok(tools)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Puts the members into the request; `dummy` adds a tool that nothing will call.
    pub(super) fn write(mut self, out: &mut Map<String, Value>, dummy: bool) {
        if dummy {
            self.list.push(object! {
                "name": "dummy_tool",
                "description": "Not to be called. The conversation refers to tools that are no longer there.",
                "input_schema": object! {"type": "object", "properties": object! {}},
            });
        }
        // Anthropic refuses a choice without tools, and "auto" or "none" then say nothing.
        let idle = self.list.is_empty() && matches!(self.choice_type(), Some("auto" | "none"));
        if !self.list.is_empty() {
            out.insert("tools".into(), Value::Array(self.list));
        }
        if let Some(choice) = self.choice.filter(|_| !idle) {
            out.insert("tool_choice".into(), choice);
        }
        if !self.servers.is_empty() {
            out.insert("mcp_servers".into(), Value::Array(self.servers));
        }
    }

    fn choice_type(&self) -> Option<&str> {
        self.choice.as_ref()?.get("type")?.as_str()
    }

    fn add(&mut self, tool: Value, betas: &mut Betas) -> Result<(), Fault> {
        let Value::Object(mut tool) = tool else { return Err(Fault::at("", "expected a tool object")) };
        if tool.contains_key("input_schema") {
            self.list.push(Value::Object(tool));
            return Ok(());
        }
        let kind = match tool.get("type") {
            Some(Value::String(kind)) => kind.clone(),
            None if tool.contains_key("function") => "function".to_owned(),
            _ => return Err(Fault::at("type", "expected the tool's type as a string")),
        };
        match kind.as_str() {
            "function" => {
                let function = take(&mut tool, "function")
                    .ok_or_else(|| Fault::at("function", "missing; expected an object with a `name`"))?;
                let tool = function_tool(function, take(&mut tool, "cache_control"));
                self.list.push(tool.map_err(|fault| fault.inside("function"))?);
            }
            "mcp" => self.servers.push(mcp_server(tool)?),
            hosted if HOSTED.iter().any(|start| hosted.starts_with(start)) => {
                if let Some(beta) = beta_of(hosted) {
                    betas.add(beta);
                }
                self.list.push(hosted_tool(tool));
            }
            other => {
                let expected = format!(
                    "\"{}\" is not supported; expected function, mcp or one of Anthropic's own tools",
                    clip(other)
                );
                return Err(Fault::at("type", expected));
            }
        }
        Ok(())
    }

    /// JSON output: a tool whose input is the content, and a choice that makes the model call it. Where the client has
    /// tools of its own, any of them may be called instead.
    fn answer_in(&mut self, format: Value, thinking: bool) -> Result<(), Fault> {
        let Value::Object(mut format) = format else {
            return Err(Fault::at("", "expected an object with a `type`"));
        };
        let schema = match format.get("type").and_then(Value::as_str) {
            Some("text") => return Ok(()),
            Some("json_object") => take(&mut format, "response_schema"),
            Some("json_schema") => {
                let schema = take(&mut format, "json_schema").and_then(|mut wrapper| {
                    wrapper.get_mut("schema").map(Value::take).filter(|schema| !schema.is_null())
                });
                let expected = "missing; expected the JSON schema of the answer";
                Some(schema.ok_or_else(|| Fault::at("json_schema.schema", expected))?)
            }
            _ => return Err(Fault::at("type", "expected text, json_object or json_schema")),
        };
        let open = || object! {"type": "object", "additionalProperties": true, "properties": object! {}};
        let mut schema = schema.unwrap_or_else(open);
        match &mut schema {
            Value::Object(schema) if schema.get("type").is_none_or(|kind| kind == "object") => {
                as_input(schema)
            }
            _ => return Err(Fault::at("json_schema.schema", "expected a schema of type object")),
        }
        if !thinking {
            let forced = object! {"type": "tool", "name": JSON_TOOL};
            match self.choice_type() {
                _ if self.list.is_empty() => self.choice = Some(forced),
                Some("none") => self.choice = Some(forced),
                None | Some("auto") => self.choice = Some(object! {"type": "any"}),
                Some(_) => {}
            }
        }
        self.list.push(object! {"name": JSON_TOOL, "input_schema": schema});
        self.json_tool = true;
        Ok(())
    }

    fn parallel(&mut self, parallel: Value) -> Result<(), Fault> {
        let Value::Bool(parallel) = parallel else {
            return Err(Fault::at("parallel_tool_calls", "expected true or false"));
        };
        if self.choice_type() == Some("none") {
            return Ok(());
        }
        if let Value::Object(choice) = self.choice.get_or_insert_with(|| object! {"type": "auto"}) {
            choice.insert("disable_parallel_tool_use".into(), Value::Bool(!parallel));
        }
        Ok(())
    }
}

/// A member that must be a list when it is there.
fn list(chat: &mut Map<String, Value>, name: &str) -> Result<Vec<Value>, Fault> {
    match take(chat, name) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(Fault::at(name, "expected a list")),
    }
}

/// `{"name", "description", "parameters"}` as a tool.
fn function_tool(function: Value, cache_control: Option<Value>) -> Result<Value, Fault> {
    let Value::Object(mut function) = function else {
        return Err(Fault::at("", "expected an object with a `name`"));
    };
    let mut tool = Map::new();
    match take(&mut function, "name") {
        Some(name @ Value::String(_)) => tool.insert("name".into(), name),
        _ => return Err(Fault::at("name", "expected the function's name")),
    };
    if let Some(description) = take(&mut function, "description") {
        tool.insert("description".into(), description);
    }
    let mut schema = match take(&mut function, "parameters") {
        None => Map::new(),
        Some(Value::Object(schema)) => schema,
        Some(_) => return Err(Fault::at("parameters", "expected a JSON schema object")),
    };
    as_input(&mut schema);
    tool.insert("input_schema".into(), Value::Object(schema));
    if let Some(cache_control) = cache_control.or_else(|| take(&mut function, "cache_control")) {
        tool.insert("cache_control".into(), cache_control);
    }
    Ok(Value::Object(tool))
}

/// Makes a schema one that Anthropic takes for a tool's input.
fn as_input(schema: &mut Map<String, Value>) {
    schema.retain(|name, _| SCHEMA_MEMBERS.contains(&name.as_str()));
    schema.insert("type".into(), "object".into());
    schema.entry("properties").or_insert_with(|| object! {});
}

/// One of Anthropic's own tools: as it is, or with its settings taken out of an OpenAI-like `function` wrapper.
fn hosted_tool(mut tool: Map<String, Value>) -> Value {
    if let Some(Value::Object(mut function)) = take(&mut tool, "function") {
        if let Some(name) = take(&mut function, "name") {
            tool.insert("name".into(), name);
        }
        if let Some(Value::Object(settings)) = take(&mut function, "parameters") {
            tool.extend(settings);
        }
    }
    Value::Object(tool)
}

/// The beta that a hosted tool's type names by its date: `computer_20250124` is in `computer-use-2025-01-24`.
fn beta_of(kind: &str) -> Option<String> {
    let (tool, date) = kind.rsplit_once('_')?;
    let beta = match tool {
        "computer" => "computer-use",
        "code_execution" => "code-execution",
        "web_fetch" => "web-fetch",
        _ => return None,
    };
    let digits = date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit());
    let (year, month, day) = (date.get(..4)?, date.get(4..6)?, date.get(6..)?);
    digits.then(|| format!("{beta}-{year}-{month}-{day}"))
}

/// OpenAI's `mcp` tool as an entry of `mcp_servers`.
fn mcp_server(mut tool: Map<String, Value>) -> Result<Value, Fault> {
    let mut server = Map::new();
    server.insert("type".into(), "url".into());
    for (theirs, ours) in [("server_url", "url"), ("server_label", "name")] {
        match take(&mut tool, theirs) {
            Some(value @ Value::String(_)) => server.insert(ours.into(), value),
            _ => return Err(Fault::at(theirs, "expected a string")),
        };
    }
    if let Some(allowed) = take(&mut tool, "allowed_tools") {
        server.insert("tool_configuration".into(), object! {"enabled": true, "allowed_tools": allowed});
    }
    let bearer = tool.get("headers").and_then(Value::as_object).and_then(|headers| {
        let (_, value) = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"))?;
        let value = value.as_str()?;
        Some(value.strip_prefix("Bearer ").unwrap_or(value).to_owned())
    });
    if let Some(token) = bearer {
        server.insert("authorization_token".into(), token.into());
    }
    Ok(Value::Object(server))
}

/// `web_search_options` as Anthropic's search tool.
fn web_search(options: Value) -> Result<Value, Fault> {
    let Value::Object(mut options) = options else {
        return Err(Fault::at("web_search_options", "expected an object"));
    };
    let mut tool = Map::new();
    tool.insert("type".into(), "web_search_20250305".into());
    tool.insert("name".into(), "web_search".into());
    let uses = match take(&mut options, "search_context_size").as_ref().map(Value::as_str) {
        None => None,
        Some(Some("low")) => Some(1),
        Some(Some("medium")) => Some(5),
        Some(Some("high")) => Some(10),
        Some(_) => {
            return Err(Fault::at("web_search_options.search_context_size", "expected low, medium or high"));
        }
    };
    if let Some(uses) = uses {
        tool.insert("max_uses".into(), uses.into());
    }
    if let Some(Value::Object(mut location)) = take(&mut options, "user_location") {
        // OpenAI nests the place once more.
        if let Some(Value::Object(place)) = take(&mut location, "approximate") {
            location.extend(place);
        }
        location.entry("type").or_insert("approximate".into());
        tool.insert("user_location".into(), Value::Object(location));
    }
    Ok(Value::Object(tool))
}

/// Whether `tool_choice` or `function_call` leaves the model no choice but to call a tool.
pub(super) fn forces(choice: Option<&Value>) -> bool {
    match choice {
        Some(Value::String(word)) => matches!(word.as_str(), "required" | "any"),
        Some(Value::Object(choice)) => {
            !matches!(choice.get("type").and_then(Value::as_str), Some("auto" | "none"))
        }
        _ => false,
    }
}

/// `tool_choice` or `function_call` in Anthropic's words.
fn choice(value: Value) -> Result<Value, Fault> {
    let expected = "expected auto, none, required or an object that names a function";
    match value {
        Value::String(word) => match word.as_str() {
            "auto" | "none" | "any" => Ok(object! {"type": word}),
            "required" => Ok(object! {"type": "any"}),
            _ => Err(Fault::at("", expected)),
        },
        Value::Object(mut choice) => {
            let kind = choice.get("type").and_then(Value::as_str).unwrap_or("function");
            match kind {
                "auto" | "any" | "none" | "tool" => Ok(Value::Object(choice)),
                "function" => {
                    let name = match take(&mut choice, "function") {
                        Some(Value::Object(mut function)) => take(&mut function, "name"),
                        _ => take(&mut choice, "name"),
                    };
                    match name {
                        Some(Value::String(name)) => Ok(object! {"type": "tool", "name": name}),
                        _ => Err(Fault::at("function.name", "expected the function's name")),
                    }
                }
                _ => Err(Fault::at("type", expected)),
            }
        }
        _ => Err(Fault::at("", expected)),
    }
}
