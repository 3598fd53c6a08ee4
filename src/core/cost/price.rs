//! Rates of one model, and what a usage costs at them.
//!
//! The build script uses this file too (it turns the price data into rows with [`Price::encode`]), so it needs nothing but
//! its neighbours.

use std::fmt;

use super::{money::Money, money::scaled, usage::Usage};

/// Dollars for one token or second, in 10⁻¹⁸ dollars (attodollars).
///
/// The published rates have at most 13 decimals or so; finer digits in the data (`5.0000000000000004e-08`) are leftovers of
/// binary fractions and vanish at this scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

impl Rate {
    /// Reads decimal dollars. `None` when it is no number, negative, or 18 dollars and more (for a token: a slip).
    pub fn parse(text: &str) -> Option<Rate> {
        u64::try_from(scaled(text, 18)?).ok().map(Rate)
    }

    fn times(self, count: u64) -> u128 {
        u128::from(self.0) * u128::from(count)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / DOLLAR, self.0 % DOLLAR);
        let digits = format!("{whole}.{part:018}");
        f.write_str(digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// What a rate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// A prompt token.
    Input,
    /// An answer token.
    Output,
    /// A prompt token read from the cache.
    CacheRead,
    /// A prompt token written to the cache.
    CacheCreation,
    /// The same, kept for an hour.
    CacheCreation1h,
    /// An audio token of the prompt.
    AudioInput,
    /// An audio token of the answer.
    AudioOutput,
    /// A reasoning token of the answer.
    Reasoning,
    /// A second of the call, input side.
    InputSecond,
    /// A second of the call, output side.
    OutputSecond,
    /// A web search made by the provider.
    WebSearch,
}

/// Every rate by its name in LiteLLM's price data, in the order of [`Field`]; tiers put `_above_Nk_tokens` behind it.
const FIELDS: [(&str, Field); 11] = [
    ("input_cost_per_token", Field::Input),
    ("output_cost_per_token", Field::Output),
    ("cache_read_input_token_cost", Field::CacheRead),
    ("cache_creation_input_token_cost", Field::CacheCreation),
    ("cache_creation_input_token_cost_above_1hr", Field::CacheCreation1h),
    ("input_cost_per_audio_token", Field::AudioInput),
    ("output_cost_per_audio_token", Field::AudioOutput),
    ("output_cost_per_reasoning_token", Field::Reasoning),
    ("input_cost_per_second", Field::InputSecond),
    ("output_cost_per_second", Field::OutputSecond),
    ("search_context_size_medium", Field::WebSearch),
];

/// The rates of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price {
    base: Rates,
    /// Ascending by `above`.
    tiers: Vec<Tier>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tier {
    /// Holds for prompts of more than this many tokens.
    above: u64,
    rates: Rates,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rates([Option<Rate>; FIELDS.len()]);

impl Rates {
    fn get(&self, field: Field) -> Option<Rate> {
        self.0.get(field as usize).copied().flatten()
    }

    fn put(&mut self, field: Field, rate: Option<Rate>) {
        if let Some(slot) = self.0.get_mut(field as usize) {
            *slot = rate;
        }
    }
}

impl Price {
    /// What `usage` costs.
    ///
    /// Prompt tokens that were neither read from the cache nor written to it nor audio pay the input rate. A prompt above
    /// a tier's threshold pays that tier's rates for all its tokens. A rate that is missing is the input rate (cache reads,
    /// cache writes, input audio) or the output rate (output audio, reasoning), so nothing is ever free by omission. Audio
    /// and reasoning in the answer are told apart only when the provider counts its text tokens; otherwise the whole
    /// answer pays the output rate. The sum is exact and is rounded to 10⁻¹² dollars once, at the end, half up.
    ///
    /// A model priced by the second (and not by the token) costs its rates times `duration_ms`.
    pub fn cost(&self, usage: &Usage, duration_ms: Option<u64>) -> Money {
        let searches = self.base.get(Field::WebSearch).unwrap_or_default().times(usage.web_search_requests);
        let atto = if self.is_per_second() {
            let rate = |field| self.base.get(field).unwrap_or_default().times(duration_ms.unwrap_or(0));
            rate(Field::InputSecond).saturating_add(rate(Field::OutputSecond)) / 1_000
        } else {
            self.prompt(usage).saturating_add(self.completion(usage))
        };
        let pico = atto.saturating_add(searches).saturating_add(ATTO_PER_PICO / 2) / ATTO_PER_PICO;
        Money::from_pico(i128::try_from(pico).unwrap_or(i128::MAX))
    }

    /// Whether there is any rate for tokens or seconds (free counts as one).
    pub fn is_known(&self) -> bool {
        [Field::Input, Field::Output].into_iter().any(|field| self.base.get(field).is_some())
            || self.is_per_second()
    }

    /// `base` with the prices of a configuration over it, as (name in LiteLLM's price data, decimal dollars).
    ///
    /// A price set for a field replaces that field's tiers as well, unless they are set too. Input and output both 0 make
    /// the model free altogether. A price by the second alone replaces the prices by the token. What is no price name or
    /// no price is left out; [`Price::is_price`] tells.
    pub fn with_overrides(base: Option<&Price>, overrides: &[(String, String)]) -> Price {
        let mut own = Price::default();
        for (name, text) in overrides {
            own.set(name, text);
        }
        let free = |field| own.base.get(field) == Some(Rate(0));
        if own.is_per_second() || (free(Field::Input) && free(Field::Output)) {
            return own;
        }
        let mut price = base.cloned().unwrap_or_default();
        for (name, field) in FIELDS {
            if own.base.get(field).is_some() {
                price.tiers.iter_mut().for_each(|tier| tier.rates.put(field, None));
            }
            for (above, rates) in own.levels() {
                if let Some(rate) = rates.get(field) {
                    price.put(name, above, rate);
                }
            }
        }
        price
    }

    /// Whether `name` is a price this knows and `text` is one: what [`Price::with_overrides`] would use.
    pub fn is_price(name: &str, text: &str) -> bool {
        Price::default().set(name, text)
    }

    /// What a token of the prompt and one of the answer cost together, in 10⁻¹⁸ dollars: what cost-based routing compares. What
    /// has no rate counts as LiteLLM's five dollars, so that a known price is always before an unknown one.
    pub fn unit(&self) -> u64 {
        let rate = |field| self.base.get(field).map_or(5 * DOLLAR, |rate| rate.0);
        rate(Field::Input).saturating_add(rate(Field::Output))
    }

    /// Every rate with its name in LiteLLM's price data, as decimal dollars.
    pub fn fields(&self) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        for (above, rates) in self.levels() {
            for (name, field) in FIELDS {
                if let Some(rate) = rates.get(field) {
                    let name = match above {
                        0 => name.to_owned(),
                        _ => format!("{name}_above_{}k_tokens", above / 1_000),
                    };
                    fields.push((name, rate.to_string()));
                }
            }
        }
        fields
    }

    /// Sets one rate by its name in LiteLLM's price data. False when the name or the text is none.
    pub fn set(&mut self, name: &str, text: &str) -> bool {
        let (name, above) = match name.strip_suffix("k_tokens").and_then(|n| n.rsplit_once("_above_")) {
            Some((name, thousands)) => match thousands.parse::<u32>() {
                Ok(thousands) => (name, u64::from(thousands) * 1_000),
                Err(_) => return false,
            },
            None => (name, 0),
        };
        self.set_above(name, above, text)
    }

    /// Sets one rate for prompts of more than `above` tokens (0: any). False when the name or the text is none.
    pub fn set_above(&mut self, name: &str, above: u64, text: &str) -> bool {
        Rate::parse(text).is_some_and(|rate| self.put(name, above, rate))
    }

    fn put(&mut self, name: &str, above: u64, rate: Rate) -> bool {
        let name = if name == CACHE_HIT { "cache_read_input_token_cost" } else { name };
        let Some((_, field)) = FIELDS.into_iter().find(|(n, _)| *n == name) else {
            return false;
        };
        if above == 0 {
            self.base.put(field, Some(rate));
            return true;
        }
        let at = self.tiers.partition_point(|tier| tier.above < above);
        if self.tiers.get(at).is_none_or(|tier| tier.above != above) {
            self.tiers.insert(at, Tier { above, rates: Rates::default() });
        }
        if let Some(tier) = self.tiers.get_mut(at) {
            tier.rates.put(field, Some(rate));
        }
        true
    }

    /// The rates of every prompt size, the base as above 0.
    fn levels(&self) -> impl Iterator<Item = (u64, &Rates)> {
        std::iter::once((0, &self.base)).chain(self.tiers.iter().map(|tier| (tier.above, &tier.rates)))
    }

    fn is_per_second(&self) -> bool {
        let has = |field| self.base.get(field).is_some();
        (has(Field::InputSecond) || has(Field::OutputSecond)) && !has(Field::Input) && !has(Field::Output)
    }

    /// The rate for a prompt of this size: the highest tier below it, else the base.
    fn rate(&self, prompt_tokens: u64, field: Field) -> Option<Rate> {
        let tier = self.tiers.iter().rev().find(|tier| prompt_tokens > tier.above);
        tier.and_then(|tier| tier.rates.get(field)).or_else(|| self.base.get(field))
    }

    fn prompt(&self, usage: &Usage) -> u128 {
        let rate = |field| self.rate(usage.prompt_tokens, field);
        let input = rate(Field::Input).unwrap_or_default();
        let creation = rate(Field::CacheCreation).unwrap_or(input);
        let hour = usage.cache_creation_1h_tokens.min(usage.cache_creation_tokens);
        let text = usage
            .prompt_tokens
            .saturating_sub(usage.cached_tokens)
            .saturating_sub(usage.cache_creation_tokens)
            .saturating_sub(usage.audio_input_tokens);
        [
            input.times(text),
            rate(Field::CacheRead).unwrap_or(input).times(usage.cached_tokens),
            creation.times(usage.cache_creation_tokens.saturating_sub(hour)),
            rate(Field::CacheCreation1h).unwrap_or(creation).times(hour),
            rate(Field::AudioInput).unwrap_or(input).times(usage.audio_input_tokens),
        ]
        .into_iter()
        .fold(0, u128::saturating_add)
    }

    fn completion(&self, usage: &Usage) -> u128 {
        let rate = |field| self.rate(usage.prompt_tokens, field);
        let output = rate(Field::Output).unwrap_or_default();
        let Some(text) = usage.text_output_tokens.filter(|&text| text > 0 && text != usage.completion_tokens)
        else {
            return output.times(usage.completion_tokens);
        };
        [
            output.times(text),
            rate(Field::AudioOutput).unwrap_or(output).times(usage.audio_output_tokens),
            rate(Field::Reasoning).unwrap_or(output).times(usage.reasoning_tokens.unwrap_or(0)),
        ]
        .into_iter()
        .fold(0, u128::saturating_add)
    }
}

/// The row of the compacted price table: `(field, mantissa, exponent)` for each rate, [`TIER`] and a threshold before a
/// tier's, [`END`] last.
impl Price {
    /// Appends the price as a row.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for (above, rates) in self.levels() {
            if above > 0 {
                out.push(TIER);
                write_varint(out, above);
            }
            for (_, field) in FIELDS {
                if let Some(Rate(mut mantissa)) = rates.get(field) {
                    let mut exponent = 0;
                    while mantissa > 0 && mantissa.is_multiple_of(10) {
                        mantissa /= 10;
                        exponent += 1;
                    }
                    out.push(field as u8);
                    write_varint(out, mantissa);
                    out.push(exponent);
                }
            }
        }
        out.push(END);
    }

    /// Reads the row at the start of `bytes`. `None` when there is none.
    pub fn decode(mut bytes: &[u8]) -> Option<Price> {
        let mut price = Price::default();
        let mut above = 0;
        loop {
            match *bytes.split_off_first()? {
                END => return Some(price),
                TIER => above = read_varint(&mut bytes)?,
                field => {
                    let (name, _) = FIELDS.get(usize::from(field))?;
                    let mantissa = read_varint(&mut bytes)?;
                    let exponent = *bytes.split_off_first()?;
                    price.put(name, above, Rate(mantissa.checked_mul(10_u64.checked_pow(exponent.into())?)?));
                }
            }
        }
    }
}

/// Appends a number, seven bits a byte, low ones first.
pub fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes what [`write_varint`] wrote off the front of `bytes`.
pub fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// An older name of the cache read rate.
const CACHE_HIT: &str = "input_cost_per_token_cache_hit";

const TIER: u8 = 0xfe;
const END: u8 = 0xff;

/// 10⁻¹⁸ dollars in a dollar.
const DOLLAR: u64 = 1_000_000_000_000_000_000;

const ATTO_PER_PICO: u128 = 1_000_000;

#[cfg(test)]
#[path = "price/tests.rs"]
mod tests;
