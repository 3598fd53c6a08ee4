//! Counters of the gateway as the host's metrics.
//!
//! Labels stand in the name (`tollgate_requests;model=gpt-4;status=200`), because not every host knows them; Envoy's
//! `stats_tags` take them out again. Label values come from the configuration, never from a client: an unknown model counts as
//! `other`, so the number of counters is bounded.

use std::{borrow::Cow, cell::RefCell};

use hashbrown::HashMap;

use crate::core::{
    config::Config,
    exchange::record::counted_model,
    host::{Host, Metric, MetricId},
    model::{call_record::CallRecord, status::Status},
};

/// All families of counters with the names of their labels: hosts that know labels define them before they count.
pub const FAMILIES: &[(&str, &[&str])] = &[
    ("tollgate_requests", &["model", "status"]),
    ("tollgate_attempts", &["model"]),
    ("tollgate_fallbacks", &["model"]),
    ("tollgate_tokens", &["model", "kind"]),
    ("tollgate_usage_missing", &["model"]),
    ("tollgate_cost_nanodollars", &["model"]),
    ("tollgate_successes", &["deployment"]),
    ("tollgate_changes", &["kind"]),
    ("tollgate_lookups", &["kind"]),
    ("tollgate_limits_nearly_full", &[]),
    ("tollgate_limits_pushed_out", &[]),
    ("tollgate_limits_full", &[]),
    ("tollgate_refusals_untold", &[]),
    ("tollgate_events_enqueued", &[]),
    ("tollgate_events_acknowledged", &[]),
    ("tollgate_events_dropped", &[]),
    ("tollgate_events_lost", &[]),
    ("tollgate_syncs", &[]),
    ("tollgate_sync_batches", &[]),
    ("tollgate_sync_failures", &[]),
];

/// The counters of a configuration's models.
#[derive(Default)]
pub struct Metrics {
    models: RefCell<HashMap<String, Model>>,
}

/// The counters of one model, once each is known: to put its name together takes longer than to count.
#[derive(Default)]
struct Model {
    requests: HashMap<Option<u16>, MetricId>,
    others: [Option<MetricId>; NAMES.len()],
}

/// What is counted of a model besides its requests, as the name goes before and after the model.
const NAMES: [(&str, &str); 7] = [
    ("tollgate_attempts", ""),
    ("tollgate_fallbacks", ""),
    ("tollgate_tokens", ";kind=input"),
    ("tollgate_tokens", ";kind=output"),
    ("tollgate_tokens", ";kind=cached_input"),
    ("tollgate_usage_missing", ""),
    ("tollgate_cost_nanodollars", ""),
];

impl Metrics {
    /// A finished model call.
    pub fn record(&self, host: &impl Host, record: &CallRecord, config: &Config) {
        let model = counted_model(record, config);
        let model = model.as_ref();
        let Ok(mut models) = self.models.try_borrow_mut() else { return };
        let counters = models.entry_ref(model).or_default();
        let shown = match model.contains([';', '=']) {
            true => Cow::Owned(model.replace([';', '='], "_")),
            false => Cow::Borrowed(model),
        };
        let usage = record.usage.as_ref();
        let nano = record.cost.and_then(|cost| u64::try_from(cost.pico() / 1_000).ok());
        counters.request(host, &shown, record.status);
        let counts = [
            record.attempts.into(),
            record.fallbacks.into(),
            usage.map_or(0, |usage| usage.prompt_tokens),
            usage.map_or(0, |usage| usage.completion_tokens),
            usage.map_or(0, |usage| usage.cached_tokens),
            record.estimated.into(),
            nano.unwrap_or(0),
        ];
        counters.others(host, &shown, counts);
    }
}

/// The counter of requests that called no model. Its label is 0 where the client got no status.
pub fn local(status: Option<Status>) -> String {
    format!("tollgate_requests;model=none;status={}", status.map_or(0, Status::get))
}

impl Model {
    fn request(&mut self, host: &impl Host, model: &str, status: Option<u16>) {
        let id = self.requests.get(&status).copied();
        let id = id.or_else(|| {
            let label = status.unwrap_or(0);
            let id =
                host.metric(Metric::Counter, &format!("tollgate_requests;model={model};status={label}"))?;
            self.requests.insert(status, id);
            Some(id)
        });
        id.inspect(|id| host.add(*id, 1));
    }

    fn others(&mut self, host: &impl Host, model: &str, counts: [u64; NAMES.len()]) {
        for ((id, (name, kind)), by) in self.others.iter_mut().zip(NAMES).zip(counts) {
            if by > 0 {
                *id = id.or_else(|| host.metric(Metric::Counter, &format!("{name};model={model}{kind}")));
                id.inspect(|id| host.add(*id, by));
            }
        }
    }
}
