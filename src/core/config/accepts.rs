//! What a deployment takes of OpenAI's parameters, out of its brand's rules, the price data and what `model_info` says.

use serde_json::Value;

use crate::core::{
    cost::table,
    model::{abilities::Abilities, accepts::Accepts, brand::Brand, deployment::Deployment},
    provider,
};

/// What a model of a brand takes.
pub fn of(brand: &Brand, model: &str) -> Accepts {
    provider::accepts(brand, model, None, &table::abilities)
}

impl Deployment {
    /// What it takes where `model` is asked of it.
    pub fn accepts_of(&self, model: &str) -> Accepts {
        if self.has_any_model() { self.found(model) } else { self.accepts }
    }

    /// Finds what its own model takes, for [`Deployment::accepts`].
    pub(super) fn find_accepts(&mut self) {
        self.accepts = self.found(&self.model);
    }

    fn found(&self, model: &str) -> Accepts {
        let told = Abilities::told(|flag| self.model_info.get(flag).and_then(Value::as_bool), false);
        let find = |brand: &str, model: &str| match table::abilities(brand, model) {
            None if told == Abilities::NONE => None,
            listed => Some(listed.unwrap_or_default().and(told)),
        };
        provider::accepts(self.brand, model, self.base_model.as_deref(), &find)
    }
}

#[cfg(test)]
mod tests {
    use crate::core::{config, model::params::Params};

    #[test]
    fn a_deployment_takes_what_its_model_or_the_configuration_says() {
        let yaml = "
model_list:
- {model_name: a, litellm_params: {model: openai/gpt-4o, api_key: k}}
- {model_name: b, litellm_params: {model: groq/new-thinker, api_key: k}, model_info: {supports_reasoning: true}}
- {model_name: 'groq/*', litellm_params: {model: 'groq/*', api_key: k}}
- {model_name: d, litellm_params: {model: azure/dep, api_base: https://a.invalid, api_key: k}, model_info: {base_model: azure/o3-mini}}
- {model_name: e, litellm_params: {model: azure/my-gpt-5, api_base: https://a.invalid, api_key: k, base_model: gpt-4o}}
";
        let config = config::load(yaml, &|_| None, &|_| None).unwrap().config;
        let rows = [
            (0, "gpt-4o", false),
            (1, "new-thinker", true),
            (2, "llama-3.3-70b-versatile", false),
            (2, "openai/gpt-oss-120b", true),
            (3, "dep", true),
            (4, "my-gpt-5", false),
        ];
        for (at, model, reasons) in rows {
            let accepts = config.deployments[at].accepts_of(model);
            assert_eq!(accepts.chat.has(Params::REASONING_EFFORT), reasons, "{model}");
        }
    }
}
