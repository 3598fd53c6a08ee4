//! What a deployment's calls cost, with the prices that were looked up kept: every call asks it twice, and the model that a
//! provider says it used is nearly always the one it said before.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock},
};

use super::Config;
use crate::core::{
    cost::{price::Price, table},
    model::{deployment::Deployment, money::Money, terms::Terms, usage::Usage},
};

/// So many prices are kept; the names of models come from providers, so something must bound them.
const KEPT: usize = 64;

/// Prices that were looked up.
#[derive(Default)]
pub(crate) struct Prices {
    known: Mutex<Vec<Known>>,
    /// See [`Config::may_be_free`].
    any_free: OnceLock<bool>,
}

struct Known {
    deployment: usize,
    answered: Option<String>,
    price: Option<Arc<Price>>,
}

impl fmt::Debug for Prices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prices")
    }
}

impl Deployment {
    /// The price of a call: the configured one over the listed one. `model` is what is asked for, `answered` the model that
    /// the response names.
    pub fn price(&self, model: &str, answered: Option<&str>) -> Option<Price> {
        let brand = self.brand.name;
        let base = self.base_model.as_deref();
        let listed = match self.has_any_model() {
            true => table::price_for(&format!("{brand}/{model}"), brand, base, answered),
            false => table::price_for(&self.litellm_model, brand, base, answered),
        };
        if self.prices.is_empty() {
            return listed;
        }
        Some(Price::with_overrides(listed.as_ref(), &self.prices))
    }
}

impl Deployment {
    /// What a call costs at `price`. Brands that say in their responses what they charge are believed before the price data, and
    /// any provider is where no price is known; a configured price goes before what a provider says. `None` when none is known.
    pub fn cost(
        &self,
        price: Option<&Price>,
        usage: &Usage,
        terms: &Terms,
        duration_ms: Option<u64>,
    ) -> Option<Money> {
        let is_known = price.is_some_and(Price::is_known);
        let is_believed = !is_known || (self.prices.is_empty() && self.brand.tells_cost);
        let told = usage.cost.filter(|_| is_believed);
        told.or_else(|| Some(price?.cost(usage, terms, duration_ms)))
    }
}

impl Config {
    /// Whether there is a model that costs nothing; behind a wildcard, whether the provider has one.
    pub fn may_be_free(&self) -> bool {
        let is_free = |deployment: &Deployment| match deployment.price("", None) {
            Some(price) => price.is_nothing(),
            None => deployment.has_any_model() && has_free(deployment.brand.name),
        };
        *self.prices.any_free.get_or_init(|| self.deployments.iter().any(is_free))
    }

    /// The price of a call of one deployment, see [`Deployment::price`].
    pub fn price(&self, at: usize, model: &str, answered: Option<&str>) -> Option<Arc<Price>> {
        let deployment = self.deployments.get(at)?;
        let look_up = || deployment.price(model, answered).map(Arc::new);
        // The names that a wildcard stands for are the callers' to make up.
        if deployment.has_any_model() {
            return look_up();
        }
        let Ok(mut known) = self.prices.known.lock() else { return look_up() };
        let is_it = |known: &&Known| known.deployment == at && known.answered.as_deref() == answered;
        if let Some(known) = known.iter().find(is_it) {
            return known.price.clone();
        }
        let price = look_up();
        if known.len() >= KEPT {
            known.clear();
        }
        known.push(Known { deployment: at, answered: answered.map(str::to_owned), price: price.clone() });
        price
    }
}

/// Whether the price data has a model of a provider that costs nothing.
fn has_free(brand: &str) -> bool {
    let names = table::names_of(|provider| provider.starts_with(brand));
    let is_called =
        |entry: &table::ModelFacts| matches!(entry.mode, Some("chat" | "completion" | "embedding"));
    let mut entries = names.iter().filter_map(|name| table::lookup(name)).filter(is_called);
    entries.any(|entry| entry.price.is_nothing())
}

#[cfg(test)]
mod tests {
    use crate::core::{
        config::{self, Config},
        cost::table,
    };

    fn config() -> Config {
        let yaml = r"
model_list:
  - {model_name: a, litellm_params: {model: openai/gpt-4o}}
  - {model_name: b, litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0, output_cost_per_token: 0}}
  - {model_name: 'openai/*', litellm_params: {model: 'openai/*'}}
";
        config::load(yaml, &|_| None, &|_| None).unwrap().config
    }

    #[test]
    fn what_is_kept_is_what_would_be_found() {
        let config = config();
        let listed = |name: &str| table::lookup(name).map(|entry| entry.price);
        for _ in 0..3 {
            let price = |at, model, answered| config.price(at, model, answered).map(|price| (*price).clone());
            assert_eq!(price(0, "", None), listed("gpt-4o"));
            assert_eq!(price(0, "", Some("gpt-4o-mini")), listed("gpt-4o-mini"));
            assert_eq!(price(0, "", Some("unheard of")), listed("gpt-4o"));
            assert_eq!(price(1, "", None).map(|price| price.unit()), Some(0));
            assert_eq!(price(2, "gpt-4o", None), listed("gpt-4o"));
            assert_eq!(price(2, "gpt-4o-mini", None), listed("gpt-4o-mini"));
            assert_eq!(price(9, "gpt-4o", None), None);
        }
    }

    #[test]
    fn a_model_behind_a_wildcard_may_cost_nothing() {
        let rows = [
            ("openai/*", "", false),
            ("gemini/*", "", true),
            ("openai/*", ", input_cost_per_token: 0, output_cost_per_token: 0", true),
            ("gemini/*", ", input_cost_per_token: 1, output_cost_per_token: 1", false),
            ("openai/gpt-4o", "", false),
        ];
        for (model, prices, may_be) in rows {
            let yaml = format!(
                "model_list: [{{model_name: '{model}', litellm_params: {{model: '{model}'{prices}}}}}]"
            );
            let config = config::load(&yaml, &|_| None, &|_| None).unwrap().config;
            assert_eq!(config.may_be_free(), may_be, "{model}{prices}");
        }
    }

    #[test]
    fn providers_cannot_fill_it() {
        let config = config();
        for at in 0..1_000 {
            assert!(config.price(0, "", Some(&format!("model-{at}"))).is_some());
        }
        assert!(config.prices.known.lock().unwrap().len() <= super::KEPT);
    }
}
