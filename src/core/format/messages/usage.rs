//! Anthropic's token counts as chat usage.

use serde_json::{Map, Value};

use crate::core::codec::value::{self, object};

/// Tokens of one response. Anthropic counts fresh, cached and newly cached prompt tokens apart; chat's `prompt_tokens` is
/// their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_creation: u64,
    /// Newly cached for five minutes, and for an hour: the two have different prices.
    creation_by_ttl: Option<(u64, u64)>,
    web_searches: Option<u64>,
}

impl Usage {
    /// Takes over the counts that `usage` names. Every count is a total so far, so it replaces the one before; only a
    /// prompt cannot shrink to nothing, whatever a server puts into the last event of a stream.
    pub fn update(&mut self, usage: Option<&Value>) {
        let Some(usage) = usage else { return };
        let count = |counts: &Value, name: &str| counts.get(name).and_then(value::as_count);
        self.output = count(usage, "output_tokens").unwrap_or(self.output);
        let prompt = [
            (&mut self.input, "input_tokens"),
            (&mut self.cache_read, "cache_read_input_tokens"),
            (&mut self.cache_creation, "cache_creation_input_tokens"),
        ];
        for (total, name) in prompt {
            *total = count(usage, name).filter(|&count| count > 0).unwrap_or(*total);
        }
        if let Some(creation) = usage.get("cache_creation").filter(|creation| creation.is_object()) {
            let minutes = count(creation, "ephemeral_5m_input_tokens").unwrap_or(0);
            let hour = count(creation, "ephemeral_1h_input_tokens").unwrap_or(0);
            self.creation_by_ttl = Some((minutes, hour));
        }
        if let Some(tools) = usage.get("server_tool_use") {
            self.web_searches = count(tools, "web_search_requests").or(self.web_searches);
        }
    }

    /// The `usage` object of a chat response.
    pub fn to_chat(&self) -> Value {
        let prompt = self.input.saturating_add(self.cache_read).saturating_add(self.cache_creation);
        let mut details = Map::new();
        details.insert("cached_tokens".into(), self.cache_read.into());
        if let Some((minutes, hour)) = self.creation_by_ttl {
            details.insert("cache_creation_tokens".into(), self.cache_creation.into());
            details.insert(
                "cache_creation_token_details".into(),
                object! {"ephemeral_5m_input_tokens": minutes, "ephemeral_1h_input_tokens": hour},
            );
        }
        let mut usage = object! {
            "completion_tokens": self.output,
            "prompt_tokens": prompt,
            "total_tokens": prompt.saturating_add(self.output),
            "prompt_tokens_details": details,
            "cache_creation_input_tokens": self.cache_creation,
            "cache_read_input_tokens": self.cache_read,
        };
        if let (Some(searches), Value::Object(usage)) = (self.web_searches, &mut usage) {
            usage.insert("server_tool_use".into(), object! {"web_search_requests": searches});
        }
        usage
    }
}
