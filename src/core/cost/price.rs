//! Rates of one model, and what a usage costs at them.
//!
//! The build script uses this file too (it turns the price data into rows with [`Price::encode`]), so it needs nothing but
//! its neighbours.

use std::fmt;

use crate::core::model::{
    money::{Money, scaled},
    terms::{SearchSize, ServiceTier, Terms},
    usage::Usage,
};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// A prompt token written to the cache for an hour.
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
    /// One that fetches little.
    WebSearchLow,
    /// One that fetches much.
    WebSearchHigh,
    /// An audio token of the prompt that was read from the cache.
    CachedAudio,
    /// An image token of the prompt.
    ImageInput,
    /// An image token of the answer.
    ImageOutput,
    /// A token of the pages that an answer cites.
    Citation,
    /// The call itself.
    Request,
    /// All tokens cost so many times as much where the provider hurried.
    Fast,
    /// All tokens cost so many times as much where the provider kept the call inside the United States.
    InUs,
}

/// Every rate by its name in LiteLLM's price data, in the order of [`Field`]. Behind it may stand a length of the prompt
/// (`_above_Nk_tokens`), behind that a service tier (`_flex`).
const FIELDS: [(&str, Field); 20] = [
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
    ("search_context_size_low", Field::WebSearchLow),
    ("search_context_size_high", Field::WebSearchHigh),
    ("cache_read_input_audio_token_cost", Field::CachedAudio),
    ("input_cost_per_image_token", Field::ImageInput),
    ("output_cost_per_image_token", Field::ImageOutput),
    ("citation_cost_per_token", Field::Citation),
    ("input_cost_per_request", Field::Request),
    ("provider_specific_entry.fast", Field::Fast),
    ("provider_specific_entry.us", Field::InUs),
];

/// The rates of one model, ascending by slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price(Vec<(Slot, Rate)>);

/// Where a rate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    /// For prompts of more than this many tokens.
    above: u64,
    tier: ServiceTier,
    field: Field,
}

impl Price {
    /// What `usage` costs on `terms`.
    ///
    /// Prompt tokens that were neither read from the cache nor written to it nor audio nor an image pay the input rate. A
    /// prompt above a threshold pays that threshold's rates for all its tokens. A rate that is missing is the input rate
    /// (cache reads, cache writes, input audio and images) or the output rate (output audio, images, reasoning), so nothing
    /// is ever free by omission; so does what of an answer was not counted as anything. The sum is exact and is rounded
    /// to 10⁻¹² dollars once, at the end, half up.
    ///
    /// A model priced by the second (and not by the token) costs its rates times `duration_ms`.
    pub fn cost(&self, usage: &Usage, terms: &Terms, duration_ms: Option<u64>) -> Money {
        let base = |field| self.base(field).unwrap_or_default();
        let atto = if self.is_per_second() {
            let rate = |field| base(field).times(duration_ms.unwrap_or(0));
            rate(Field::InputSecond).saturating_add(rate(Field::OutputSecond)) / 1_000
        } else {
            let tokens =
                self.prompt(usage, terms.tier()).saturating_add(self.completion(usage, terms.tier()));
            let factor = |tokens, told: bool, field| match told.then(|| self.base(field)).flatten() {
                Some(Rate(factor)) => share(tokens, factor),
                None => tokens,
            };
            factor(factor(tokens, terms.fast, Field::Fast), terms.in_us, Field::InUs)
        };
        // Most answers have none of them.
        let times = |count: u64, rate: &dyn Fn() -> Rate| if count == 0 { 0 } else { rate().times(count) };
        let extras = [
            times(usage.searches(terms), &|| self.search(terms.search.or(usage.search_size))),
            times(usage.citation_tokens, &|| base(Field::Citation)),
            base(Field::Request).times(1),
        ];
        let atto = extras.into_iter().fold(atto, u128::saturating_add);
        let pico = atto.saturating_add(ATTO_PER_PICO / 2) / ATTO_PER_PICO;
        Money::from_pico(i128::try_from(pico).unwrap_or(i128::MAX))
    }

    /// Whether there is any rate for tokens or seconds (free counts as one).
    pub fn is_known(&self) -> bool {
        [Field::Input, Field::Output].into_iter().any(|field| self.base(field).is_some())
            || self.is_per_second()
    }

    /// `base` with the prices of a configuration over it, as (name in LiteLLM's price data, decimal dollars).
    ///
    /// A price set for a field replaces what that field costs for longer prompts and in other service tiers as well, unless
    /// they are set too. Input and output both 0 make the model free altogether. A price by the second alone replaces the
    /// prices by the token. What is no price name or no price is left out; [`Price::is_price`] tells.
    pub fn with_overrides(base: Option<&Price>, overrides: &[(String, String)]) -> Price {
        let mut own = Price::default();
        for (name, text) in overrides {
            own.set(name, text);
        }
        let free = |field| own.base(field) == Some(Rate(0));
        if own.is_per_second() || (free(Field::Input) && free(Field::Output)) {
            return own;
        }
        let mut price = base.cloned().unwrap_or_default();
        price.0.retain(|(slot, _)| own.base(slot.field).is_none());
        for (slot, rate) in own.0 {
            price.put(slot, rate);
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
        let rate = |field| self.base(field).map_or(5 * DOLLAR, |rate| rate.0);
        rate(Field::Input).saturating_add(rate(Field::Output))
    }

    /// Whether every rate is known to be nothing.
    pub fn is_nothing(&self) -> bool {
        let fields = self.fields();
        !fields.is_empty() && fields.iter().all(|(_, rate)| rate == "0")
    }

    /// Every rate with its name in LiteLLM's price data, as decimal dollars.
    pub fn fields(&self) -> Vec<(String, String)> {
        let shown = |(slot, rate): &(Slot, Rate)| {
            let mut name = FIELDS.get(slot.field as usize)?.0.to_owned();
            if slot.above > 0 {
                name.push_str(&format!("_above_{}k_tokens", slot.above / 1_000));
            }
            if slot.tier != ServiceTier::Standard {
                name.push('_');
                name.push_str(slot.tier.name());
            }
            Some((name, rate.to_string()))
        };
        self.0.iter().filter_map(shown).collect()
    }

    /// Sets one rate by its name in LiteLLM's price data. False when the name or the text is none.
    pub fn set(&mut self, name: &str, text: &str) -> bool {
        let tiers = ServiceTier::ALL.into_iter().filter(|tier| *tier != ServiceTier::Standard);
        let (name, tier) = tiers
            .filter_map(|tier| Some((name.strip_suffix(tier.name())?.strip_suffix('_')?, tier)))
            .next()
            .unwrap_or((name, ServiceTier::Standard));
        let (name, above) = match name.strip_suffix("k_tokens").and_then(|n| n.rsplit_once("_above_")) {
            Some((name, thousands)) => match thousands.parse::<u32>() {
                Ok(thousands) => (name, u64::from(thousands) * 1_000),
                Err(_) => return false,
            },
            None => (name, 0),
        };
        self.set_at(name, above, tier, text)
    }

    /// Sets one rate for prompts of more than `above` tokens (0: any). False when the name or the text is none.
    pub fn set_above(&mut self, name: &str, above: u64, text: &str) -> bool {
        self.set_at(name, above, ServiceTier::Standard, text)
    }

    fn set_at(&mut self, name: &str, above: u64, tier: ServiceTier, text: &str) -> bool {
        let name = if name == CACHE_HIT { "cache_read_input_token_cost" } else { name };
        let name = name.strip_prefix(SEARCHES).unwrap_or(name);
        let field = FIELDS.into_iter().find(|(known, _)| *known == name).map(|(_, field)| field);
        let (Some(field), Some(rate)) = (field, Rate::parse(text)) else { return false };
        self.put(Slot { above, tier, field }, rate);
        true
    }

    fn put(&mut self, slot: Slot, rate: Rate) {
        match self.0.binary_search_by_key(&slot, |(slot, _)| *slot) {
            Ok(at) => {
                if let Some((_, known)) = self.0.get_mut(at) {
                    *known = rate;
                }
            }
            Err(at) => self.0.insert(at, (slot, rate)),
        }
    }

    /// The rate of any prompt in the standard tier.
    fn base(&self, field: Field) -> Option<Rate> {
        self.at(0, ServiceTier::Standard, field)
    }

    fn at(&self, above: u64, tier: ServiceTier, field: Field) -> Option<Rate> {
        let at = self.0.binary_search_by_key(&Slot { above, tier, field }, |(slot, _)| *slot).ok()?;
        self.0.get(at).map(|(_, rate)| *rate)
    }

    fn is_per_second(&self) -> bool {
        let has = |field| self.base(field).is_some();
        (has(Field::InputSecond) || has(Field::OutputSecond)) && !has(Field::Input) && !has(Field::Output)
    }

    /// The rate for a prompt of this size in a service tier: of the highest threshold below it that has one, else the base.
    ///
    /// A tier without a rate of its own is charged as the standard one. One with a rate that says nothing of long prompts,
    /// where the standard one does, pays the dearer of the two.
    fn rate(&self, prompt_tokens: u64, tier: ServiceTier, field: Field) -> Option<Rate> {
        let highest = |tier| {
            let holds = |(slot, _): &&(Slot, Rate)| {
                slot.tier == tier && slot.field == field && slot.above < prompt_tokens.max(1)
            };
            self.0.iter().rev().find(holds).map(|(slot, rate)| (slot.above, *rate))
        };
        let standard = highest(ServiceTier::Standard);
        let own = if tier == ServiceTier::Standard { None } else { highest(tier) };
        match (own, standard) {
            (Some((own, rate)), Some((above, other))) if above > own => Some(rate.max(other)),
            (Some((_, rate)), _) | (None, Some((_, rate))) => Some(rate),
            (None, None) => None,
        }
    }

    fn search(&self, size: Option<SearchSize>) -> Rate {
        let sized = match size {
            Some(SearchSize::Low) => self.base(Field::WebSearchLow),
            Some(SearchSize::High) => self.base(Field::WebSearchHigh),
            Some(SearchSize::Medium) | None => None,
        };
        sized.or_else(|| self.base(Field::WebSearch)).unwrap_or_default()
    }

    fn prompt(&self, usage: &Usage, tier: ServiceTier) -> u128 {
        let rate = |field| self.rate(usage.prompt_tokens, tier, field);
        let input = rate(Field::Input).unwrap_or_default();
        let or = |field, other: Rate| rate(field).unwrap_or(other);
        let hour = usage.cache_creation_1h_tokens.min(usage.cache_creation_tokens);
        let cached_audio = usage.cached_audio_tokens.min(usage.cached_tokens).min(usage.audio_input_tokens);
        let parts: [(u64, &dyn Fn() -> Rate); 6] = [
            (usage.cached_tokens.saturating_sub(cached_audio), &|| or(Field::CacheRead, input)),
            (cached_audio, &|| or(Field::CachedAudio, or(Field::CacheRead, input))),
            (usage.cache_creation_tokens.saturating_sub(hour), &|| or(Field::CacheCreation, input)),
            (hour, &|| or(Field::CacheCreation1h, or(Field::CacheCreation, input))),
            (usage.audio_input_tokens.saturating_sub(cached_audio), &|| or(Field::AudioInput, input)),
            (usage.image_input_tokens, &|| or(Field::ImageInput, input)),
        ];
        sum(usage.prompt_tokens, input, &parts)
    }

    fn completion(&self, usage: &Usage, tier: ServiceTier) -> u128 {
        let rate = |field| self.rate(usage.prompt_tokens, tier, field);
        let output = rate(Field::Output).unwrap_or_default();
        // All of it is text: what is counted apart is part of that.
        if usage.text_output_tokens.is_some_and(|text| text > 0 && text == usage.completion_tokens) {
            return output.times(usage.completion_tokens);
        }
        let or_output = |field| rate(field).unwrap_or(output);
        let parts: [(u64, &dyn Fn() -> Rate); 4] = [
            (usage.text_output_tokens.unwrap_or(0), &|| output),
            (usage.audio_output_tokens, &|| or_output(Field::AudioOutput)),
            (usage.image_output_tokens, &|| or_output(Field::ImageOutput)),
            (usage.reasoning_tokens.unwrap_or(0), &|| or_output(Field::Reasoning)),
        ];
        sum(usage.completion_tokens, output, &parts)
    }
}

/// Parts at their rates, and at `rate` what of the whole is in none of them. A rate is looked for where its part has tokens:
/// most parts of most answers have none.
fn sum(whole: u64, rate: Rate, parts: &[(u64, &dyn Fn() -> Rate)]) -> u128 {
    let parts = || parts.iter().filter(|(count, _)| *count > 0);
    let rest = parts().fold(whole, |rest, (count, _)| rest.saturating_sub(*count));
    parts().fold(rate.times(rest), |sum, (count, rate)| sum.saturating_add(rate().times(*count)))
}

/// `factor` is in 10⁻¹⁸.
fn share(atto: u128, factor: u64) -> u128 {
    let thousandths = u128::from(factor / (DOLLAR / 1_000));
    atto.saturating_mul(thousandths) / 1_000
}

/// The row of the compacted price table: `(field, mantissa, exponent)` for each rate, [`ABOVE`] and a threshold before the
/// first of a threshold, [`IN_TIER`] and a service tier before the first of that, [`END`] last.
impl Price {
    /// Appends the price as a row.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (mut above, mut tier) = (0, ServiceTier::Standard);
        for (slot, Rate(mantissa)) in &self.0 {
            if slot.above != above {
                out.push(ABOVE);
                write_varint(out, slot.above);
            }
            if slot.tier != tier {
                out.push(IN_TIER);
                out.push(slot.tier as u8);
            }
            (above, tier) = (slot.above, slot.tier);
            let (mut mantissa, mut exponent) = (*mantissa, 0);
            while mantissa > 0 && mantissa.is_multiple_of(10) {
                mantissa /= 10;
                exponent += 1;
            }
            out.push(slot.field as u8);
            write_varint(out, mantissa);
            out.push(exponent);
        }
        out.push(END);
    }

    /// Reads the row at the start of `bytes`. `None` when there is none.
    pub fn decode(mut bytes: &[u8]) -> Option<Price> {
        let mut price = Price::default();
        let (mut above, mut tier) = (0, ServiceTier::Standard);
        loop {
            match *bytes.split_off_first()? {
                END => return Some(price),
                ABOVE => above = read_varint(&mut bytes)?,
                IN_TIER => tier = *ServiceTier::ALL.get(usize::from(*bytes.split_off_first()?))?,
                field => {
                    let (_, field) = *FIELDS.get(usize::from(field))?;
                    let mantissa = read_varint(&mut bytes)?;
                    let exponent = *bytes.split_off_first()?;
                    let rate = Rate(mantissa.checked_mul(10_u64.checked_pow(exponent.into())?)?);
                    price.put(Slot { above, tier, field }, rate);
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

/// What a configuration puts before the names of prices of searches.
const SEARCHES: &str = "search_context_cost_per_query.";

const IN_TIER: u8 = 0xfd;
const ABOVE: u8 = 0xfe;
const END: u8 = 0xff;

/// 10⁻¹⁸ dollars in a dollar.
const DOLLAR: u64 = 1_000_000_000_000_000_000;

const ATTO_PER_PICO: u128 = 1_000_000;

#[cfg(test)]
#[path = "price/tests.rs"]
mod tests;
