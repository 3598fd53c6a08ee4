//! Settings that hold from one start to the next: they stand in what Envoy starts from, or in what the ledger opens. A reload says
//! so instead of leaving them out in silence.

use crate::core::{config::Config, model::secret::Secret};

/// Name and value of each, as the running processes have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lasting(Vec<(&'static str, Value)>);

/// A value that is only compared: it may be secret.
#[derive(Clone, PartialEq, Eq)]
struct Value(String);

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Lasting {
    /// Those of a configuration.
    pub(super) fn of(config: &Config) -> Lasting {
        let ledger = &config.ledger;
        let shown = |name, value: String| (name, Value(value));
        Lasting(vec![
            shown(
                "general_settings.database_url",
                ledger.database_url.as_ref().map(Secret::reveal).unwrap_or_default().to_owned(),
            ),
            shown("general_settings.database_connection_pool_limit", format!("{:?}", ledger.pool_limit)),
            shown("general_settings.proxy_batch_write_at", format!("{:?}", ledger.batch_write_ms)),
            shown("general_settings.alerting", ledger.alerting.join(",")),
            shown(
                "tollgate_settings.ledger_url",
                config.tollgate.ledger_url.as_ref().map(ToString::to_string).unwrap_or_default(),
            ),
            shown("tollgate_settings.host", format!("{:?}", config.tollgate.host)),
            shown("tollgate_settings.max_memory_bytes", format!("{:?}", config.tollgate.max_memory_bytes)),
        ])
    }

    /// What is to be said of a configuration that is taken over, in one line: what of it waits for the next start.
    pub(super) fn waits(&self, new: &Config) -> Option<String> {
        let new = Lasting::of(new);
        let changed: Vec<String> = self
            .0
            .iter()
            .zip(&new.0)
            .filter(|(old, new)| old != new)
            .map(|((name, _), _)| format!("`{name}`"))
            .collect();
        let (has, is) = if changed.len() == 1 { ("has", "is") } else { ("have", "are") };
        (!changed.is_empty())
            .then(|| format!("{} {has} changed and {is} used from the next start on", changed.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::checked::check_with;

    fn config(rest: &str) -> Config {
        let model = "model_list: [{model_name: a, litellm_params: {model: openai/a, api_key: k}}]\n";
        check_with(&format!("{model}{rest}"), None, &|_| None).unwrap().config
    }

    #[test]
    fn what_waits_for_the_next_start_is_named_in_one_line_without_its_value() {
        let old = "general_settings: {database_url: 'postgresql://u:s3cret@h/x'}";
        let began = Lasting::of(&config(old));
        for (new, told) in [
            (old, None),
            ("general_settings: {database_url: 'postgresql://u:s3cret@h/x', max_parallel_requests: 3}", None),
            (
                "general_settings: {database_url: 'postgresql://u:other@h/x'}",
                Some("`general_settings.database_url` has changed and is"),
            ),
            ("general_settings: {}", Some("`general_settings.database_url` has changed and is")),
            (
                "general_settings: {alerting: [slack], database_connection_pool_limit: 3, proxy_batch_write_at: 1}\n\
                 tollgate_settings: {max_memory_bytes: 1000000000, ledger_url: 'http://ledger:1'}",
                Some(
                    "`general_settings.database_url`, `general_settings.database_connection_pool_limit`, \
                     `general_settings.proxy_batch_write_at`, `general_settings.alerting`, `tollgate_settings.ledger_url`, \
                     `tollgate_settings.max_memory_bytes` have changed and are",
                ),
            ),
        ] {
            assert_eq!(
                began.waits(&config(new)),
                told.map(|told| format!("{told} used from the next start on"))
            );
        }
        assert!(!format!("{began:?}").contains("s3cret"));
    }
}
