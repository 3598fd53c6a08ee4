//! What was decided about a request and why, line by line, for whoever watches (`--debug`). Nobody watching costs nothing: no line
//! is written then. A line has names, numbers and our own words; never a key, a prompt, or what a provider said.

use super::Exchange;
use crate::core::{
    access::Caller,
    model::{call_record::CallRecord, failure::Failure},
    route::{
        plan::{Candidate, Plan},
        trace::{Group, Trace},
    },
};

/// So much of a key's hash tells keys apart.
const HASH_CHARS: usize = 12;

impl Exchange {
    /// Keeps a trail from now on.
    pub fn watch(&mut self) {
        self.trail = Some(Vec::new());
        self.tell(|exchange| format!("{} by {}", exchange.received.path, caller(&exchange.caller)));
    }

    /// What has been decided since this was asked last, each line with the call's id.
    pub fn take_trail(&mut self) -> Vec<String> {
        let Some(lines) = self.trail.as_mut().filter(|lines| !lines.is_empty()) else { return Vec::new() };
        std::mem::take(lines).into_iter().map(|line| format!("{}: {line}", self.received.call_id)).collect()
    }

    /// Tells something, when somebody wants to know.
    pub(super) fn tell(&mut self, what: impl FnOnce(&Exchange) -> String) {
        if self.trail.is_none() {
            return;
        }
        // Names may hold anything.
        let line = what(self).replace(char::is_control, " ");
        if let Some(lines) = &mut self.trail {
            lines.push(line);
        }
    }

    /// What planning is to tell into, when somebody wants to know.
    pub(super) fn trace(&self) -> Option<Trace> {
        self.trail.is_some().then(Trace::default)
    }

    /// The plan is made, or there is none.
    pub(super) fn tell_plan(&mut self, trace: Option<Trace>) {
        let Some(trace) = trace else { return };
        for group in trace.into_groups() {
            self.tell(|exchange| planned(&group, exchange.config.router.strategy.name()));
        }
    }

    /// An attempt begins.
    pub(super) fn tell_attempt(&mut self, candidate: Candidate) {
        self.tell(|exchange| {
            let found = exchange.config.deployments.get(candidate.deployment);
            let (id, base) = found.map_or(("", ""), |found| (found.id.as_str(), found.api_base.as_str()));
            format!("attempt {}: deployment `{id}` at {base}", exchange.attempts())
        });
    }

    /// An attempt has failed; `rest_ms`: its deployment rests so long.
    pub(super) fn tell_failure(&mut self, failure: &Failure, rest_ms: Option<u64>) {
        self.tell(|_| {
            let status = failure.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
            let rests = rest_ms.map(|ms| format!("; the deployment rests for {ms} ms")).unwrap_or_default();
            format!("failed: {} ({status}){rests}", failure.class.name())
        });
    }

    /// Tells that the request goes on elsewhere.
    pub(super) fn tell_move(&mut self, from: Candidate, to: Candidate) {
        self.tell(|exchange| {
            let found = exchange.config.deployments.get(to.deployment).map_or("", |found| found.id.as_str());
            let group = exchange.plan().and_then(Plan::segment).map_or("", |segment| &segment.group);
            match from.is_same_group(to) {
                true => format!("next: retry on deployment `{found}`"),
                false => format!("next: falls back to `{group}`, deployment `{found}`"),
            }
        });
    }

    /// Tells how the request ended.
    pub(super) fn tell_end(&mut self, record: &CallRecord) {
        self.tell(|exchange| {
            let tokens = record
                .usage
                .as_ref()
                .map(|usage| format!(", {} + {} tokens", usage.prompt_tokens, usage.completion_tokens));
            let cost = record.cost.map(|cost| format!(", cost {cost}"));
            let error = exchange
                .delivery
                .told
                .as_ref()
                .or(exchange.delivery.first_error.as_ref())
                .filter(|_| !record.is_good());
            let error = error.map(|error| format!(", {}: {}", error.name(), error.logged()));
            format!(
                "over: status {} after {} ms, {} attempts, {} fallbacks{}{}{}",
                record.status.unwrap_or(0),
                record.end_ms.saturating_sub(record.start_ms),
                record.attempts,
                record.fallbacks,
                tokens.unwrap_or_default(),
                cost.unwrap_or_default(),
                error.unwrap_or_default()
            )
        });
    }
}

/// The caller, and what limits its key.
fn caller(caller: &Caller) -> String {
    let grant = match caller {
        Caller::Open => return "anybody (there is no master key)".to_owned(),
        Caller::Master => return "the master key".to_owned(),
        Caller::Key(grant) => grant,
    };
    let key = &grant.key;
    let hash: String = key.id.chars().take(HASH_CHARS).collect();
    let shown =
        |name: &str, value: Option<u64>| value.map(|value| format!(", {name} {value}")).unwrap_or_default();
    let team = grant.team_id().map(|team| format!(", team `{team}`")).unwrap_or_default();
    let user = grant.user.as_ref().map(|user| format!(", user `{}`", user.id)).unwrap_or_default();
    let limits = &key.limits;
    format!(
        "key `{}` ({hash}…){team}{user}{}{}{}",
        key.alias.as_deref().unwrap_or_default(),
        shown("rpm", limits.rpm),
        shown("tpm", limits.tpm),
        shown("parallel", limits.parallel)
    )
}

/// What is tried of a group, and what is left out.
fn planned(group: &Group, strategy: &str) -> String {
    let reasons =
        |why: &[String]| if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
    let members: Vec<String> = group
        .deployments
        .iter()
        .map(|member| match member.place {
            Some(_) => format!("`{}`{}", member.id, reasons(&member.why)),
            None => format!("not `{}`{}", member.id, reasons(&member.why)),
        })
        .collect();
    let passed_over = group.refusal.as_ref().map(|why| format!("passed over: {why}"));
    let what = if group.depth == 0 { "model" } else { "fallback" };
    format!(
        "{what} `{}` is group `{}` by {strategy}: {}",
        group.name,
        group.group,
        passed_over.unwrap_or_else(|| members.join(", "))
    )
}
