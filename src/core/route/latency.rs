//! How quick deployments responded lately, known to all workers: what latency-based routing goes by.
//!
//! One small record per deployment in shared data, with the newest responses: nanoseconds for each token of the response (LiteLLM
//! divides too, so that long responses do not look slow), for the whole response and, of streams, until its first part.

use crate::core::{
    host::Store,
    model::{deployment::Deployment, router::LatencyArgs},
    store,
};

/// What a timeout counts as: LiteLLM's 1,000 seconds for a token.
const TIMED_OUT_NS: u64 = 1_000_000_000_000;

/// One response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Nanoseconds for each token (in all, when it has no tokens), from the request to the end of the response.
    pub whole_ns: u64,
    /// Nanoseconds until the first part of a stream.
    pub first_ns: Option<u64>,
}

impl Sample {
    /// A response of so many tokens.
    pub fn of(whole_ms: u64, first_ms: Option<u64>, tokens: u64) -> Sample {
        let by_token = |ms: u64| ms.saturating_mul(1_000_000) / tokens.max(1);
        Sample { whole_ns: by_token(whole_ms), first_ns: first_ms.map(by_token) }
    }

    /// None came in time.
    pub fn timed_out() -> Sample {
        Sample { whole_ns: TIMED_OUT_NS, first_ns: None }
    }
}

/// The newest responses of a deployment.
#[derive(Debug, Default, PartialEq)]
struct Record {
    /// When the last one was noted.
    at_ms: u64,
    whole: Vec<u64>,
    first: Vec<u64>,
}

impl Record {
    fn decode(bytes: Option<&[u8]>) -> Record {
        let words = bytes.unwrap_or_default().chunks_exact(8);
        let mut words = words.filter_map(|word| word.try_into().ok()).map(u64::from_le_bytes);
        let at_ms = words.next().unwrap_or(0);
        let count = usize::try_from(words.next().unwrap_or(0)).unwrap_or(0);
        let whole = words.by_ref().take(count).collect();
        Record { at_ms, whole, first: words.collect() }
    }

    fn encode(&self) -> Vec<u8> {
        let count = u64::try_from(self.whole.len()).unwrap_or(0);
        let all = [self.at_ms, count]
            .into_iter()
            .chain(self.whole.iter().copied())
            .chain(self.first.iter().copied());
        all.flat_map(u64::to_le_bytes).collect()
    }

    fn is_over(&self, args: &LatencyArgs, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) >= args.ttl_ms
    }
}

/// The shared-data key of a deployment. Their number is bounded by the configuration.
fn key(deployment: &Deployment) -> String {
    format!("latency/{}", deployment.id)
}

/// Remembers a response.
pub fn note(shared: &dyn Store, deployment: &Deployment, sample: Sample, args: &LatencyArgs, now_ms: u64) {
    store::update(shared, &key(deployment), |bytes| {
        let mut record = Record::decode(bytes);
        if record.is_over(args, now_ms) {
            record = Record::default();
        }
        record.at_ms = now_ms;
        push(&mut record.whole, sample.whole_ns, args.size);
        if let Some(first) = sample.first_ns {
            push(&mut record.first, first, args.size);
        }
        (record.encode(), ())
    });
}

/// Adds the newest, and drops the oldest that are too many.
fn push(list: &mut Vec<u64>, newest: u64, size: usize) {
    list.push(newest);
    list.drain(..list.len().saturating_sub(size));
}

/// The mean of the newest responses, by their first parts for streams when there are any; 0 for a deployment that no request
/// has called lately, so that it is tried.
pub fn mean(
    shared: &dyn Store,
    deployment: &Deployment,
    streaming: bool,
    args: &LatencyArgs,
    now_ms: u64,
) -> f64 {
    let Some((bytes, _)) = shared.get(&key(deployment)) else { return 0.0 };
    let record = Record::decode(Some(&bytes));
    if record.is_over(args, now_ms) {
        return 0.0;
    }
    let list = if streaming && !record.first.is_empty() { &record.first } else { &record.whole };
    let sum: f64 = list.iter().map(|&ns| ns as f64).sum();
    sum / list.len().max(1) as f64
}
