//! Headers of a response on its way to the client: a provider's under names of its own, and the gateway's.

use crate::core::{
    access::Caller,
    error::ErrorFormat,
    exchange::{Env, Exchange, Released, local},
    format::pipeline::content_type,
    headers::Headers,
    model::status::Status,
    operation::Operation,
    route::{affinity, cooldown, plan::Plan},
};

/// Provider headers never handed on, because they are about the connection or about a body that has changed.
const DROPPED: [&str; 12] = [
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "content-type",
    "set-cookie",
    "server",
    "date",
    "trailer",
    "upgrade",
    "proxy-connection",
];

impl Exchange {
    /// All headers of a good response.
    pub(super) fn release(
        &mut self,
        provider: &Headers,
        length: Option<usize>,
        streaming: bool,
        env: &mut Env,
    ) -> Headers {
        self.delivery.released = Released::Response;
        self.delivery.status = Some(Status::OK);
        self.delivery.first_ms = env.now_ms;
        let deployment = self.plan().and_then(|plan| self.config.deployments.get(plan.current().deployment));
        if let Some(deployment) = deployment.filter(|deployment| !deployment.group.contains('*')) {
            cooldown::succeeded(env.shared, deployment, env.now_ms);
        }
        let cached = self.plan().and_then(Plan::cached);
        if let (Some(deployment), Some(fingerprint)) = (deployment, cached) {
            affinity::note(env.shared, fingerprint, deployment, env.now_ms);
        }
        let kind = match provider.text("content-type") {
            Some(kind)
                if self.received.api.operation == Operation::Embed
                    || (!streaming && kind.starts_with("application/json")) =>
            {
                kind
            }
            _ => content_type(streaming),
        };
        let mut list = self.base_headers(kind, length);
        if length.is_some() {
            self.add_cost_header(&mut list);
            self.add_time_headers(&mut list, env.now_ms);
        }
        if self.retries() > 0 {
            let most =
                self.plan().and_then(Plan::segment).map_or(0, |segment| segment.attempts.saturating_sub(1));
            list.push_number("x-litellm-max-retries", most.into());
        }
        let copied = copied(provider);
        self.add_limit_headers(&mut list, Some(&copied));
        list.append(&copied);
        list
    }

    /// The headers that every response of this request has.
    fn base_headers(&self, kind: &str, length: Option<usize>) -> Headers {
        let mut list = Headers::with_capacity(32);
        list.push_number(":status", Status::OK.get().into());
        list.push("content-type", kind.as_bytes());
        if let Some(length) = length {
            list.push_number("content-length", u64::try_from(length).unwrap_or(u64::MAX));
        }
        self.name_request(&mut list);
        self.add_gateway_headers(&mut list);
        if self.received.cors {
            local::CORS.iter().for_each(|(name, value)| list.push(name, value.as_bytes()));
        }
        list
    }

    /// The id by which clients of Anthropic's API find their request.
    pub(in crate::core::exchange) fn name_request(&self, list: &mut Headers) {
        if self.received.api.error_format == ErrorFormat::Anthropic {
            list.push(local::REQUEST_ID, self.request_id().as_bytes());
        }
    }

    /// Anthropic's own id of the newest attempt, else the gateway's of the call.
    pub(super) fn request_id(&self) -> &str {
        self.delivery.provider_request_id.as_deref().unwrap_or(&self.received.call_id)
    }

    /// `x-litellm-*` headers of this request.
    pub(in crate::core::exchange) fn add_gateway_headers(&self, list: &mut Headers) {
        list.push("x-litellm-call-id", self.received.call_id.as_bytes());
        list.push("x-litellm-version", env!("CARGO_PKG_VERSION").as_bytes());
        self.add_routing_headers(list);
    }

    /// `x-litellm-response-cost`, when usage and price are known.
    pub(in crate::core::exchange) fn add_cost_header(&self, list: &mut Headers) {
        if let Some(cost) = self.cost() {
            list.push_shown("x-litellm-response-cost", cost);
        }
    }

    /// How long the call took, and how much of that was none of a provider's, in milliseconds. As in LiteLLM, a response that goes out
    /// before it is whole has neither.
    pub(in crate::core::exchange) fn add_time_headers(&self, list: &mut Headers, now_ms: u64) {
        let whole = now_ms.saturating_sub(self.received.started_ms);
        let overhead = whole.saturating_sub(self.delivery.earlier_ms).saturating_sub(self.took_ms());
        list.push_number("x-litellm-response-duration-ms", whole);
        list.push_number("x-litellm-overhead-duration-ms", overhead);
    }

    /// Answer headers that say how the request was routed.
    pub(in crate::core::exchange) fn add_routing_headers(&self, list: &mut Headers) {
        let segment = self.plan().and_then(Plan::segment);
        let deployment = self.plan().and_then(|plan| self.config.deployments.get(plan.current().deployment));
        if let Some(deployment) = deployment {
            list.push("x-litellm-model-id", deployment.id.as_bytes());
            list.push("x-litellm-model-api-base", deployment.api_base.as_bytes());
        }
        if let Some(segment) = segment {
            list.push("x-litellm-model-group", segment.group.as_bytes());
        }
        if let Some(region) = self.requested.region.as_deref().filter(|region| !region.is_empty()) {
            list.push("x-litellm-model-region", region.as_bytes());
        }
        if matches!(self.caller, Caller::Master) {
            list.push("x-litellm-key-spend", b"0.0");
        }
        list.push_number("x-litellm-attempted-retries", self.retries().into());
        list.push_number("x-litellm-attempted-fallbacks", self.fallbacks().into());
    }
}

/// A provider's headers for the client: each as `llm_provider-…`, and the rate-limit ones under their own names too.
pub(super) fn copied(provider: &Headers) -> Headers {
    let mut list = Headers::with_capacity(provider.len() + 2);
    for (name, value) in provider.raw() {
        if name.starts_with(b":") || name.starts_with(b"x-envoy-") {
            continue;
        }
        let name = std::str::from_utf8(name).unwrap_or_default();
        if DROPPED.contains(&name) {
            continue;
        }
        list.push_with(&["llm_provider-", name], |bytes| bytes.extend_from_slice(value));
        if name.starts_with("x-ratelimit-") {
            list.push(name, value);
        } else if let Some(same) = from_anthropic(name) {
            list.push(same, value);
        }
    }
    list
}

/// OpenAI's name for one of Anthropic's rate-limit headers.
fn from_anthropic(name: &str) -> Option<&'static str> {
    Some(match name {
        "anthropic-ratelimit-requests-limit" => "x-ratelimit-limit-requests",
        "anthropic-ratelimit-requests-remaining" => "x-ratelimit-remaining-requests",
        "anthropic-ratelimit-tokens-limit" => "x-ratelimit-limit-tokens",
        "anthropic-ratelimit-tokens-remaining" => "x-ratelimit-remaining-tokens",
        _ => return None,
    })
}
