//! How many tokens a response says it used: one type for every API, buffered and streamed.

use super::{
    money::Money,
    terms::{SearchSize, Terms},
};

/// Token counts of one call.
///
/// Everything is OpenAI's sense of the words: [`prompt_tokens`](Usage::prompt_tokens) is the whole prompt, what was read
/// from and written to the provider's cache included; [`completion_tokens`](Usage::completion_tokens) is the whole answer,
/// reasoning and audio included, also where the provider counts reasoning beside it. The other counts break these two down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The prompt, cached reads and cache writes included.
    pub prompt_tokens: u64,
    /// The answer, reasoning included.
    pub completion_tokens: u64,
    /// The sum of the two.
    pub total_tokens: u64,
    /// Prompt tokens read from the provider's cache.
    pub cached_tokens: u64,
    /// Prompt tokens written to the provider's cache (5 minutes and 1 hour together).
    pub cache_creation_tokens: u64,
    /// The part of [`cache_creation_tokens`](Usage::cache_creation_tokens) that is kept for an hour, which costs more.
    pub cache_creation_1h_tokens: u64,
    /// Audio in the prompt.
    pub audio_input_tokens: u64,
    /// Audio in the prompt that was read from the cache; [`cached_tokens`](Usage::cached_tokens) has them too.
    pub cached_audio_tokens: u64,
    /// Images in the prompt.
    pub image_input_tokens: u64,
    /// Audio in the answer.
    pub audio_output_tokens: u64,
    /// Images in the answer.
    pub image_output_tokens: u64,
    /// Answer tokens spent on reasoning, if told.
    pub reasoning_tokens: Option<u64>,
    /// Plain text in the prompt, if told apart.
    pub text_input_tokens: Option<u64>,
    /// Plain text in the answer, if told apart.
    pub text_output_tokens: Option<u64>,
    /// Predicted output that was used, if told.
    pub accepted_prediction_tokens: Option<u64>,
    /// Predicted output that was not used, if told.
    pub rejected_prediction_tokens: Option<u64>,
    /// What the cited pages had, beside prompt and answer.
    pub citation_tokens: u64,
    /// Web searches the provider made for this answer, if told.
    pub web_search_requests: Option<u64>,
    /// How much each of them fetched, if told.
    pub search_size: Option<SearchSize>,
    /// What the provider says it charges.
    pub cost: Option<Money>,
    /// A count that was not told is a guess from sizes in bytes.
    pub estimated: bool,
    /// The prompt's tokens were not told, or not so that it could be: see [`Usage::filled`].
    pub no_prompt: bool,
    /// The answer's tokens were not told. Of a stream whose end has not come they have not been told yet.
    pub no_completion: bool,
}

impl Usage {
    /// A guess for a response that told no usage: four bytes of its texts a token, no token for none.
    pub fn estimate(prompt_tokens: u64, text_bytes: u64) -> Usage {
        let untold = Usage { no_prompt: true, no_completion: true, ..Usage::default() };
        untold.filled(|| prompt_tokens, || text_bytes)
    }

    /// All counts, guessed where they were not told. Both guesses are asked for only when they are needed.
    pub fn filled(mut self, prompt_tokens: impl FnOnce() -> u64, text_bytes: impl FnOnce() -> u64) -> Usage {
        if !self.no_prompt && !self.no_completion {
            return self;
        }
        if std::mem::take(&mut self.no_prompt) {
            self.prompt_tokens = self.prompt_tokens.max(prompt_tokens());
        }
        if std::mem::take(&mut self.no_completion) {
            self.completion_tokens = self.completion_tokens.max(text_bytes().div_ceil(BYTES_PER_TOKEN));
        }
        self.total_tokens = self.prompt_tokens.saturating_add(self.completion_tokens);
        self.estimated = true;
        self
    }

    /// Without counts of parts that the whole cannot have: a provider's slip must not empty a budget.
    pub(crate) fn bounded(mut self) -> Usage {
        let prompt = [
            &mut self.cached_tokens,
            &mut self.cache_creation_tokens,
            &mut self.audio_input_tokens,
            &mut self.image_input_tokens,
        ];
        prompt.into_iter().for_each(|part| *part = (*part).min(self.prompt_tokens));
        let completion = [&mut self.audio_output_tokens, &mut self.image_output_tokens];
        let completion = completion.into_iter().chain(&mut self.reasoning_tokens);
        completion
            .chain(&mut self.text_output_tokens)
            .for_each(|part| *part = (*part).min(self.completion_tokens));
        self.cache_creation_1h_tokens = self.cache_creation_1h_tokens.min(self.cache_creation_tokens);
        self
    }

    /// The web searches to pay for. Where the provider does not count them, one that was asked for is one.
    pub fn searches(&self, terms: &Terms) -> u64 {
        self.web_search_requests.unwrap_or_else(|| terms.search.is_some().into())
    }
}

/// Of common text and JSON; only used when a provider does not tell.
const BYTES_PER_TOKEN: u64 = 4;

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;

    impl Usage {
        /// The `usage` of an OpenAI response, with LiteLLM's two cache counts beside the totals when there are any.
        pub fn to_openai(&self) -> Value {
            let mut usage = json!({
                "completion_tokens": self.completion_tokens,
                "prompt_tokens": self.prompt_tokens,
                "total_tokens": self.total_tokens,
            });
            let mut output = Map::new();
            let put = |map: &mut Map<String, Value>, name: &str, count: Option<u64>| {
                if let Some(count) = count {
                    map.insert(name.to_owned(), count.into());
                }
            };
            put(&mut output, "reasoning_tokens", self.reasoning_tokens);
            put(&mut output, "audio_tokens", above_zero(self.audio_output_tokens));
            put(&mut output, "image_tokens", above_zero(self.image_output_tokens));
            put(&mut output, "text_tokens", self.text_output_tokens);
            put(&mut output, "accepted_prediction_tokens", self.accepted_prediction_tokens);
            put(&mut output, "rejected_prediction_tokens", self.rejected_prediction_tokens);
            let mut input = Map::new();
            put(&mut input, "cached_tokens", Some(self.cached_tokens));
            put(&mut input, "cache_creation_tokens", above_zero(self.cache_creation_tokens));
            put(&mut input, "audio_tokens", above_zero(self.audio_input_tokens));
            put(&mut input, "image_tokens", above_zero(self.image_input_tokens));
            put(&mut input, "text_tokens", self.text_input_tokens);
            if self.cache_creation_1h_tokens > 0 {
                let five = self.cache_creation_tokens.saturating_sub(self.cache_creation_1h_tokens);
                input.insert(
                    "cache_creation_token_details".to_owned(),
                    json!({"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": self.cache_creation_1h_tokens}),
                );
            }
            if let Some(map) = usage.as_object_mut() {
                if !output.is_empty() {
                    map.insert("completion_tokens_details".to_owned(), output.into());
                }
                map.insert("prompt_tokens_details".to_owned(), input.into());
                if self.cached_tokens > 0 || self.cache_creation_tokens > 0 {
                    put(map, "cache_creation_input_tokens", Some(self.cache_creation_tokens));
                    put(map, "cache_read_input_tokens", Some(self.cached_tokens));
                }
            }
            usage
        }
    }

    fn above_zero(count: u64) -> Option<u64> {
        (count > 0).then_some(count)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let plain = Usage { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7, ..Usage::default() };
        let full = Usage {
            cached_tokens: 1,
            cache_creation_tokens: 2,
            cache_creation_1h_tokens: 1,
            audio_input_tokens: 1,
            audio_output_tokens: 2,
            reasoning_tokens: Some(1),
            text_input_tokens: Some(1),
            text_output_tokens: Some(1),
            accepted_prediction_tokens: Some(0),
            rejected_prediction_tokens: Some(1),
            ..plain.clone()
        };
        for usage in [plain.clone(), full] {
            assert_eq!(Usage::from_openai(&usage.to_openai()), Some(usage));
        }
        assert_eq!(
            plain.to_openai(),
            json!({"completion_tokens": 4, "prompt_tokens": 3, "total_tokens": 7,
                   "prompt_tokens_details": {"cached_tokens": 0}})
        );
    }

    #[test]
    fn missing_usage_is_estimated_and_marked() {
        let usage = Usage::estimate(3, 5);
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (3, 2, 5));
        assert!(usage.estimated && !usage.no_prompt && !usage.no_completion);
        assert_eq!(Usage::estimate(0, 0).total_tokens, 0);
        let half = Usage { prompt_tokens: 9, completion_tokens: 1, no_completion: true, ..Usage::default() };
        let filled = half.filled(|| unreachable!("it is told"), || 40);
        assert_eq!((filled.prompt_tokens, filled.completion_tokens, filled.total_tokens), (9, 10, 19));
        let told = Usage { prompt_tokens: 1, total_tokens: 1, ..Usage::default() };
        assert_eq!(told.clone().filled(|| 7, || 7), told);
    }
}
