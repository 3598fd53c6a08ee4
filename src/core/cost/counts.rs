//! Reads the `usage` of responses. OpenAI's comes straight from the text where there is text: most responses are looked at for
//! nothing else.

use std::fmt;

use serde::{
    Deserialize,
    de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Number, Value};

use crate::core::{
    codec::value,
    model::{
        money::{Money, scaled},
        terms::SearchSize,
        usage::Usage,
    },
};

/// No call has used more; a larger number is a provider's bug and must not empty a budget.
const MOST_TOKENS: u64 = 1_000_000_000;

/// No call needed more web searches.
const MOST_SEARCHES: u64 = 10_000;

/// No call has cost more (a million dollars), in 10⁻¹² dollars.
const MOST_PICODOLLARS: i128 = 1_000_000_000_000_000_000;

const ANTHROPIC_PROMPT: [&str; 3] =
    ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"];

impl Usage {
    /// Reads the `usage` of a chat completion, a text completion or an embedding. `None` when the value is no object or
    /// names no token count.
    pub fn from_openai(usage: &Value) -> Option<Usage> {
        Lenient::<Counts>::deserialize(usage).ok()?.0.usage()
    }

    /// [`Usage::from_openai`] from JSON text.
    pub fn read_openai(text: &str) -> Option<Usage> {
        match serde_json::from_str::<Lenient<Counts>>(text) {
            Ok(counts) => counts.0.usage(),
            // A name that comes twice, for one; the last counts.
            Err(_) => Usage::from_openai(&serde_json::from_str(text).ok()?),
        }
    }

    /// Reads the `usage` of an Anthropic message (or of a stream's `message_start`). `None` when it is no object or names
    /// no token count.
    pub fn from_anthropic(usage: &Value) -> Option<Usage> {
        let map = usage.as_object()?;
        if ANTHROPIC_PROMPT.iter().chain(&["output_tokens"]).all(|name| count(map, name).is_none()) {
            return None;
        }
        let mut read = Usage { no_prompt: true, no_completion: true, ..Usage::default() };
        read.merge_anthropic_delta(usage);
        Some(read)
    }

    /// [`Usage::from_anthropic`] of a stream's `message_start`. Its count of the answer's tokens is a beginning: the last `message_delta` tells
    /// them.
    pub fn begun_by_anthropic(usage: &Value) -> Option<Usage> {
        Some(Usage { no_completion: true, ..Usage::from_anthropic(usage)? })
    }

    /// Takes over the `usage` of a stream's `message_delta`. Its counts are totals so far, not additions: each that is
    /// there replaces the one before, each that is not stays; a prompt does not shrink to nothing, whatever a server puts
    /// into its last event.
    pub fn merge_anthropic_delta(&mut self, usage: &Value) {
        let Some(usage) = usage.as_object() else {
            return;
        };
        let some = |name: &str| count(usage, name).filter(|&count| count > 0);
        let input = count(usage, "input_tokens");
        self.no_prompt &= ANTHROPIC_PROMPT.iter().all(|name| count(usage, name).is_none());
        let cached = some("cache_read_input_tokens").unwrap_or(self.cached_tokens);
        let breakdown = usage.get("cache_creation").and_then(Value::as_object);
        let hour = breakdown.and_then(|b| count(b, "ephemeral_1h_input_tokens"));
        let five = breakdown.and_then(|b| count(b, "ephemeral_5m_input_tokens"));
        let told =
            (hour.is_some() || five.is_some()).then(|| hour.unwrap_or(0).saturating_add(five.unwrap_or(0)));
        let created = some("cache_creation_input_tokens").or(told).unwrap_or(self.cache_creation_tokens);
        let plain = input.filter(|&input| input > 0).unwrap_or_else(|| {
            self.prompt_tokens.saturating_sub(self.cached_tokens).saturating_sub(self.cache_creation_tokens)
        });
        self.cached_tokens = cached;
        self.cache_creation_tokens = created;
        self.cache_creation_1h_tokens = hour.unwrap_or(self.cache_creation_1h_tokens).min(created);
        self.prompt_tokens = plain.saturating_add(cached).saturating_add(created);
        let output = count(usage, "output_tokens");
        self.no_completion &= output.is_none();
        self.completion_tokens = output.unwrap_or(self.completion_tokens);
        self.total_tokens = self.prompt_tokens.saturating_add(self.completion_tokens);
        if let Some(tools) = usage.get("server_tool_use").and_then(Value::as_object) {
            let searches = count(tools, "web_search_requests").filter(|&count| count <= MOST_SEARCHES);
            self.web_search_requests = searches.or(self.web_search_requests);
        }
    }
}

/// A count by name.
fn count(map: &Map<String, Value>, name: &str) -> Option<u64> {
    Count::deserialize(map.get(name)?).ok()?.0
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Counts {
    prompt_tokens: Count,
    completion_tokens: Count,
    total_tokens: Count,
    prompt_tokens_details: Lenient<Input>,
    completion_tokens_details: Lenient<Output>,
    // DeepSeek has the hits beside the totals; LiteLLM in front of us has Anthropic's names there too.
    prompt_cache_hit_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    server_tool_use: Lenient<Searches>,
    // Perplexity's.
    reasoning_tokens: Count,
    citation_tokens: Count,
    num_search_queries: Count,
    search_context_size: Value,
    // OpenRouter's, Perplexity's, DeepInfra's.
    cost: Value,
    is_byok: Value,
    cost_details: Lenient<Upstream>,
    estimated_cost: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Input {
    cached_tokens: Count,
    cached_tokens_details: Lenient<CachedInput>,
    cache_creation_tokens: Count,
    cache_write_tokens: Count,
    cache_creation_token_details: Lenient<Written>,
    audio_tokens: Count,
    image_tokens: Count,
    text_tokens: Count,
    web_search_requests: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CachedInput {
    audio_tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    ephemeral_1h_input_tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Output {
    reasoning_tokens: Count,
    audio_tokens: Count,
    image_tokens: Count,
    text_tokens: Count,
    accepted_prediction_tokens: Count,
    rejected_prediction_tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Searches {
    web_search_requests: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Upstream {
    upstream_inference_cost: Value,
}

impl Counts {
    fn usage(self) -> Option<Usage> {
        if self.prompt_tokens.0.is_none()
            && self.completion_tokens.0.is_none()
            && self.total_tokens.0.is_none()
        {
            return None;
        }
        let (prompt_tokens, completion_tokens) = self.tokens();
        let (no_prompt, no_completion) = self.untold();
        let cost = self.cost();
        let (web_search_requests, search_size) = self.searches();
        let (input, output) = (self.prompt_tokens_details.0, self.completion_tokens_details.0);
        let or_none = |count: Count| count.0.unwrap_or(0);
        let usage = Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
            cached_tokens: first_above_zero([
                input.cached_tokens,
                self.prompt_cache_hit_tokens,
                self.cache_read_input_tokens,
            ]),
            cache_creation_tokens: first_above_zero([
                input.cache_creation_tokens,
                input.cache_write_tokens,
                self.cache_creation_input_tokens,
            ]),
            cache_creation_1h_tokens: or_none(input.cache_creation_token_details.0.ephemeral_1h_input_tokens),
            audio_input_tokens: or_none(input.audio_tokens),
            cached_audio_tokens: or_none(input.cached_tokens_details.0.audio_tokens),
            image_input_tokens: or_none(input.image_tokens),
            audio_output_tokens: or_none(output.audio_tokens),
            image_output_tokens: or_none(output.image_tokens),
            reasoning_tokens: output.reasoning_tokens.0.or(self.reasoning_tokens.0),
            text_input_tokens: input.text_tokens.0,
            text_output_tokens: output.text_tokens.0,
            accepted_prediction_tokens: output.accepted_prediction_tokens.0,
            rejected_prediction_tokens: output.rejected_prediction_tokens.0,
            citation_tokens: or_none(self.citation_tokens),
            web_search_requests,
            search_size,
            cost,
            estimated: false,
            no_prompt,
            no_completion,
        };
        Some(usage.bounded())
    }

    /// Whether neither prompt nor answer is told: neither by themselves nor by what the total has beside the other. A total
    /// alone is the prompt's.
    fn untold(&self) -> (bool, bool) {
        let total = self.total_tokens.0;
        match (self.prompt_tokens.0, self.completion_tokens.0) {
            (None, Some(completion)) => (total.is_none_or(|total| total <= completion), false),
            (Some(prompt), None) => (false, total.is_none_or(|total| total < prompt)),
            _ => (false, false),
        }
    }

    /// The whole prompt and the whole answer.
    ///
    /// Some providers (xAI, Google) count the reasoning into the total, but not into `completion_tokens`; what the total has
    /// beside the two is answer. Reasoning that neither of them can hold, and Perplexity's, comes on top.
    fn tokens(&self) -> (u64, u64) {
        let total = self.total_tokens.0.unwrap_or(0);
        let told = self.completion_tokens.0.unwrap_or(0);
        let prompt = self.prompt_tokens.0.unwrap_or_else(|| total.saturating_sub(told));
        let completion = told.max(total.saturating_sub(prompt));
        let reasoning = self.completion_tokens_details.0.reasoning_tokens.0.or(self.reasoning_tokens.0);
        let is_apart = self.citation_tokens.0.is_some() || self.num_search_queries.0.is_some();
        match reasoning {
            Some(reasoning) if completion == told && (is_apart || reasoning > told) => {
                (prompt, completion.saturating_add(reasoning))
            }
            _ => (prompt, completion),
        }
    }

    /// How often the provider searched, and how much. Where Perplexity names only the size, it searched once.
    fn searches(&self) -> (Option<u64>, Option<SearchSize>) {
        let counts = [
            self.server_tool_use.0.web_search_requests,
            self.prompt_tokens_details.0.web_search_requests,
            self.num_search_queries,
        ];
        let size = self.search_context_size.as_str().and_then(SearchSize::read);
        let count = counts.into_iter().find_map(|count| count.0.filter(|&count| count <= MOST_SEARCHES));
        let count = count.or(size.map(|_| 1));
        // Perplexity's own default.
        let usual = self.num_search_queries.0.map(|_| SearchSize::Low);
        (count, size.or(usual))
    }

    /// What the provider says it charges. With a key of the caller's own at OpenRouter, that is its fee; the model behind
    /// it is paid as well.
    fn cost(&self) -> Option<Money> {
        let cost = dollars(&self.cost)
            .or_else(|| dollars(self.cost.get("total_cost")?))
            .or_else(|| dollars(&self.estimated_cost))?;
        let upstream = dollars(&self.cost_details.0.upstream_inference_cost);
        let upstream = upstream.filter(|_| self.is_byok == Value::Bool(true)).unwrap_or_default();
        Some(cost.saturating_add(upstream))
    }
}

/// Dollars as a number or as text; negative and absurd ones do not count.
fn dollars(value: &Value) -> Option<Money> {
    let money = match value {
        Value::Number(number) => Money::parse(&number.to_string()),
        Value::String(text) => Money::parse(value::digits(value).unwrap_or(text)),
        _ => None,
    };
    money.filter(|money| (0..=MOST_PICODOLLARS).contains(&money.pico()))
}

fn first_above_zero<const N: usize>(counts: [Count; N]) -> u64 {
    counts.into_iter().filter_map(|count| count.0).find(|&count| count > 0).unwrap_or(0)
}

/// A count: a whole number, also when it is written as `12.0` or as text. Negative and absurd ones do not count, and neither
/// does anything else.
#[derive(Clone, Copy, Default)]
struct Count(Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

struct CountVisitor;

impl CountVisitor {
    fn of(count: Option<u64>) -> Count {
        Count(count.filter(|&count| count <= MOST_TOKENS))
    }
}

impl<'de> Visitor<'de> for CountVisitor {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a count")
    }

    fn visit_u64<E>(self, count: u64) -> Result<Count, E> {
        Ok(CountVisitor::of(Some(count)))
    }

    fn visit_i64<E>(self, count: i64) -> Result<Count, E> {
        Ok(CountVisitor::of(u64::try_from(count).ok()))
    }

    fn visit_f64<E>(self, count: f64) -> Result<Count, E> {
        let number = Number::from_f64(count).and_then(|number| scaled(&number.to_string(), 0));
        Ok(CountVisitor::of(number.and_then(|number| u64::try_from(number).ok())))
    }

    fn visit_str<E>(self, text: &str) -> Result<Count, E> {
        Ok(CountVisitor::of(text.trim().parse().ok()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Count, E> {
        Ok(Count(None))
    }

    fn visit_unit<E>(self) -> Result<Count, E> {
        Ok(Count(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Count, A::Error> {
        IgnoredAny.visit_seq(seq).map(|_| Count(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Count, A::Error> {
        IgnoredAny.visit_map(map).map(|_| Count(None))
    }
}

/// An object, or nothing when there is something else in its place.
#[derive(Default)]
struct Lenient<T>(T);

impl<'de, T: Default + Deserialize<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LenientVisitor(std::marker::PhantomData))
    }
}

struct LenientVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Default + Deserialize<'de>> Visitor<'de> for LenientVisitor<T> {
    type Value = Lenient<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of counts")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Lenient)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_seq(seq).map(|_| Lenient::default())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Lenient::default())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Lenient::default())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Lenient::default())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Lenient::default())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Lenient::default())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Lenient::default())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn anthropic_prompt_is_the_sum_of_its_parts() {
        let usage = Usage::from_anthropic(&json!({
            "input_tokens": 25, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 100, "output_tokens": 7,
            "cache_creation": {"ephemeral_5m_input_tokens": 6, "ephemeral_1h_input_tokens": 4},
            "server_tool_use": {"web_search_requests": 2}, "service_tier": "standard",
        }));
        let expected = Usage {
            prompt_tokens: 135,
            completion_tokens: 7,
            total_tokens: 142,
            cached_tokens: 100,
            cache_creation_tokens: 10,
            cache_creation_1h_tokens: 4,
            web_search_requests: Some(2),
            ..Usage::default()
        };
        assert_eq!(usage, Some(expected));
        assert_eq!(Usage::from_anthropic(&json!({"service_tier": "standard"})), None);
        assert_eq!(Usage::from_anthropic(&json!("x")), None);
    }

    #[test]
    fn a_streams_counts_end_where_the_buffered_answers_are() {
        let buffered = json!({"input_tokens": 25, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 9,
                              "output_tokens": 15});
        let start = json!({"input_tokens": 25, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 9,
                           "output_tokens": 1});
        // Providers differ in how much of it they repeat.
        let deltas = [
            json!({"output_tokens": 15}),
            json!({"input_tokens": 25, "output_tokens": 15}),
            json!({"input_tokens": 25, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 9,
                   "output_tokens": 15}),
        ];
        for delta in deltas {
            let mut usage = Usage::from_anthropic(&start).unwrap();
            usage.merge_anthropic_delta(&json!({"output_tokens": 4}));
            usage.merge_anthropic_delta(&delta);
            usage.merge_anthropic_delta(&json!(null));
            assert_eq!(Some(usage), Usage::from_anthropic(&buffered), "{delta}");
        }
        let mut late = Usage::from_anthropic(&json!({"input_tokens": 0, "output_tokens": 0})).unwrap();
        late.merge_anthropic_delta(&buffered);
        assert_eq!(Some(late), Usage::from_anthropic(&buffered));
    }

    #[test]
    fn openai_shapes() {
        let base = Usage { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15, ..Usage::default() };
        let rows = [
            (json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}), Some(base.clone())),
            (json!({"prompt_tokens": 10, "completion_tokens": 5}), Some(base.clone())),
            (
                json!({"prompt_tokens": "10", "completion_tokens": 5.0, "cost": 0.3}),
                Some(Usage { cost: Money::parse("0.3"), ..base.clone() }),
            ),
            (json!({"prompt_tokens": 10, "completion_tokens": 5, "cost": "free"}), Some(base.clone())),
            (
                json!({"prompt_tokens": 8, "total_tokens": 8}),
                Some(Usage { prompt_tokens: 8, total_tokens: 8, ..Usage::default() }),
            ),
            (
                json!({"total_tokens": 8}),
                Some(Usage { prompt_tokens: 8, total_tokens: 8, ..Usage::default() }),
            ),
            (
                json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
                       "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 2, "text_tokens": 4},
                       "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 1, "text_tokens": 1,
                            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 2}}),
                Some(Usage {
                    cached_tokens: 4,
                    audio_input_tokens: 2,
                    text_input_tokens: Some(4),
                    reasoning_tokens: Some(3),
                    audio_output_tokens: 1,
                    text_output_tokens: Some(1),
                    accepted_prediction_tokens: Some(0),
                    rejected_prediction_tokens: Some(2),
                    ..base.clone()
                }),
            ),
            (
                json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "prompt_tokens_details": null,
                       "prompt_cache_hit_tokens": 6, "prompt_cache_miss_tokens": 4}),
                Some(Usage { cached_tokens: 6, ..base.clone() }),
            ),
            (
                json!({"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 0},
                       "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2}),
                Some(Usage { cached_tokens: 3, cache_creation_tokens: 2, ..base }),
            ),
            (json!({"prompt_tokens": -1, "completion_tokens": 1e300}), None),
            (json!({}), None),
            (json!(null), None),
            (json!([1]), None),
            (json!({"prompt_tokens": null}), None),
        ];
        for (value, expected) in rows {
            assert_eq!(Usage::from_openai(&value), expected, "{value}");
            assert_eq!(Usage::read_openai(&value.to_string()), expected, "{value}");
        }
    }

    #[test]
    fn whatever_a_provider_puts_there() {
        let base = Some(Usage { prompt_tokens: 2, total_tokens: 2, no_completion: true, ..Usage::default() });
        for text in [
            r#"{"prompt_tokens":1,"prompt_tokens":2}"#,
            r#"{"prompt_tokens":2,"completion_tokens":[1,{"a":2}],"total_tokens":{"a":[]}}"#,
            r#"{"prompt_tokens":2,"completion_tokens":true,"other":{"prompt_tokens":9}}"#,
            r#"{"prompt_tokens":2,"prompt_tokens_details":7,"completion_tokens_details":"none"}"#,
            r#"{"prompt_tokens":2,"prompt_tokens_details":[1],"completion_tokens_details":-1}"#,
            r#"{"prompt_tokens":2,"prompt_tokens_details":{"cache_creation_token_details":1.5,"cached_tokens":null}}"#,
            r#"{"prompt_tokens":2,"prompt_tokens_details":false,"total_tokens":1e30}"#,
        ] {
            assert_eq!(Usage::read_openai(text), base, "{text}");
            assert_eq!(Usage::from_openai(&serde_json::from_str(text).unwrap()), base, "{text}");
        }
        for text in ["", "{", "[]", "7", "null", r#"{"prompt_tokens":2"#] {
            assert_eq!(Usage::read_openai(text), None, "{text}");
        }
    }

    #[test]
    fn half_of_a_usage_may_be_nonsense() {
        let nonsense = ["-5", "\"x\"", "1e300", "18446744073709551615", "1000000000001", "null", "[1]", "{}"];
        // (total, prompt and answer as told while the other is nonsense)
        let rows = [
            ("", None, None),
            (r#","total_tokens":12"#, Some(7), Some(7)),
            (r#","total_tokens":5"#, None, Some(0)),
        ];
        for wrong in nonsense {
            for (total, prompt, completion) in rows {
                let usage = Usage::read_openai(&format!(
                    r#"{{"prompt_tokens":5,"completion_tokens":{wrong}{total}}}"#
                ))
                .unwrap();
                let told = (!usage.no_completion).then_some(usage.completion_tokens);
                assert_eq!((usage.prompt_tokens, told), (5, completion), "{wrong} {total}");
                let usage = Usage::read_openai(&format!(
                    r#"{{"prompt_tokens":{wrong},"completion_tokens":5{total}}}"#
                ))
                .unwrap();
                let told = (!usage.no_prompt).then_some(usage.prompt_tokens);
                assert_eq!((told, usage.completion_tokens), (prompt, 5), "{wrong} {total}");
            }
            let both =
                format!(r#"{{"prompt_tokens":{wrong},"completion_tokens":{wrong},"total_tokens":{wrong}}}"#);
            assert_eq!(Usage::read_openai(&both), None, "{wrong}");
            for (input, output) in [(wrong, "7"), ("7", wrong), (wrong, wrong)] {
                let told = format!(
                    r#"{{"input_tokens":{input},"output_tokens":{output},"service_tier":"standard"}}"#
                );
                let usage = Usage::from_anthropic(&serde_json::from_str(&told).unwrap());
                let untold = usage.map_or((true, true), |usage| (usage.no_prompt, usage.no_completion));
                assert_eq!(untold, (input == wrong, output == wrong), "{told}");
            }
        }
        let slip = r#"{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":900000000,"audio_tokens":7000},
            "completion_tokens_details":{"audio_tokens":90000},"num_search_queries":900000000}"#;
        let usage = Usage::read_openai(slip).unwrap();
        assert_eq!((usage.cached_tokens, usage.audio_input_tokens, usage.audio_output_tokens), (10, 10, 5));
        assert_eq!(usage.web_search_requests, None);
    }
}
