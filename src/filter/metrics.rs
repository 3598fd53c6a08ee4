//! Counters of the gateway as Envoy statistics.
//!
//! The ABI has no labels, so they stand in the name (`tollgate_requests;model=gpt-4;status=200`) and Envoy's
//! `stats_tags` take them out again. Label values come from the configuration, never from a client: an unknown model counts as
//! `other`, so the number of counters is bounded.

use std::{
    borrow::Cow,
    cell::RefCell,
    fmt::{self, Write as _},
};

use hashbrown::HashMap;

use super::host;
use crate::core::{config::Config, exchange::record::Record};

/// Counter ids by name.
#[derive(Default)]
pub struct Metrics(RefCell<HashMap<String, u32>>);

impl Metrics {
    /// A request that called no model.
    pub fn local(&self, status: u16) {
        self.add(&format!("tollgate_requests;model=none;status={status}"), 1);
    }

    /// A finished model call.
    pub fn record(&self, record: &Record, config: &Config) {
        let group = record.group.as_deref();
        let known = |name: &&str| {
            config.groups.contains_key(*name) || config.wildcards.iter().any(|w| w.pattern == *name)
        };
        let model = group.filter(known).unwrap_or("other");
        let model = match model.contains([';', '=']) {
            true => Cow::Owned(model.replace([';', '='], "_")),
            false => Cow::Borrowed(model),
        };
        let mut name = String::with_capacity(64);
        let mut count = |what: fmt::Arguments<'_>, by: u64| {
            name.clear();
            // Writing to a String cannot fail.
            _ = name.write_fmt(what);
            self.add(&name, by);
        };
        count(format_args!("tollgate_requests;model={model};status={}", record.status), 1);
        count(format_args!("tollgate_attempts;model={model}"), record.attempts.into());
        count(format_args!("tollgate_fallbacks;model={model}"), record.fallbacks.into());
        if let Some(usage) = &record.usage {
            count(format_args!("tollgate_tokens;model={model};kind=input"), usage.prompt_tokens);
            count(format_args!("tollgate_tokens;model={model};kind=output"), usage.completion_tokens);
            count(format_args!("tollgate_tokens;model={model};kind=cached_input"), usage.cached_tokens);
        }
        if record.estimated {
            count(format_args!("tollgate_usage_missing;model={model}"), 1);
        }
        if let Some(cost) = record.cost {
            let nano = u64::try_from(cost.pico() / 1_000).unwrap_or(0);
            count(format_args!("tollgate_cost_nanodollars;model={model}"), nano);
        }
    }

    /// Adds to a counter by its whole name.
    pub fn add(&self, name: &str, by: u64) {
        if by > 0
            && let Some(id) = self.id(name)
        {
            host::count(id, by);
        }
    }

    /// What a counter stands at, by its whole name, in all VMs together.
    pub fn value(&self, name: &str) -> Option<u64> {
        host::counted(self.id(name)?)
    }

    fn id(&self, name: &str) -> Option<u32> {
        let mut ids = self.0.try_borrow_mut().ok()?;
        if let Some(id) = ids.get(name) {
            return Some(*id);
        }
        host::counter(name).inspect(|id| {
            ids.insert(name.to_owned(), *id);
        })
    }
}
