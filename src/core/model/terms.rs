//! What a call is charged by beside its counts: the service tier, how far the provider searched, where and how fast it worked.

use serde_json::Value;

/// How soon a provider does its work, as far as prices know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ServiceTier {
    /// As usual.
    #[default]
    Standard,
    /// When there is time.
    Flex,
    /// Before others.
    Priority,
    /// On the fastest machines.
    Ultrafast,
    /// Between flex and standard.
    Balanced,
}

impl ServiceTier {
    /// Every tier by its number.
    pub const ALL: [ServiceTier; 5] = [
        ServiceTier::Standard,
        ServiceTier::Flex,
        ServiceTier::Priority,
        ServiceTier::Ultrafast,
        ServiceTier::Balanced,
    ];

    /// The tier's name, which is what stands behind its columns of the price data.
    pub fn name(self) -> &'static str {
        match self {
            ServiceTier::Standard => "default",
            ServiceTier::Flex => "flex",
            ServiceTier::Priority => "priority",
            ServiceTier::Ultrafast => "ultrafast",
            ServiceTier::Balanced => "balanced",
        }
    }

    /// Reads `service_tier`, in any case. `auto` leaves it to the provider and says nothing; a tier without prices of its own is
    /// the standard one.
    pub fn read(name: &str) -> Option<ServiceTier> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if name.is_empty() || is("auto") {
            return None;
        }
        Some(ServiceTier::ALL.into_iter().find(|tier| is(tier.name())).unwrap_or_default())
    }
}

/// How much a provider's web search fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchSize {
    /// Little.
    Low,
    /// The usual.
    Medium,
    /// Much.
    High,
}

impl SearchSize {
    /// Reads `search_context_size`.
    pub fn read(name: &str) -> Option<SearchSize> {
        match name {
            "low" => Some(SearchSize::Low),
            "medium" => Some(SearchSize::Medium),
            "high" => Some(SearchSize::High),
            _ => None,
        }
    }
}

/// The terms of a call: as asked for, then as the provider says it served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The tier that was asked for.
    asked: Option<ServiceTier>,
    /// The one that served.
    served: Option<ServiceTier>,
    /// A search was asked for with `web_search_options`; how much it may fetch.
    pub search: Option<SearchSize>,
    /// The provider hurried (Anthropic's `speed`).
    pub fast: bool,
    /// The call stayed inside the United States (Anthropic's `inference_geo`).
    pub in_us: bool,
}

impl Terms {
    /// Out of members of a request, each as JSON text. `searches` says whether the provider takes `web_search_options`.
    pub fn asked(tier: Option<&str>, search: Option<&str>) -> Terms {
        let tier: Option<String> = tier.and_then(|raw| serde_json::from_str(raw).ok());
        let options = search.filter(|raw| raw.starts_with('{'));
        let search = options.map(|raw| {
            let options: Value = serde_json::from_str(raw).unwrap_or_default();
            let size = options.get("search_context_size").and_then(Value::as_str);
            size.and_then(SearchSize::read).unwrap_or(SearchSize::Medium)
        });
        Terms { asked: tier.as_deref().and_then(ServiceTier::read), search, ..Terms::default() }
    }

    /// The tier that is charged: the one that served, else the one that was asked for.
    pub fn tier(&self) -> ServiceTier {
        self.served.or(self.asked).unwrap_or_default()
    }

    /// The provider has named the tier that served. A response that names none, or leaves it open, changes nothing.
    pub fn served(&mut self, tier: &str) {
        self.served = ServiceTier::read(tier).or(self.served);
    }

    /// The terms in Anthropic's `usage`.
    pub fn served_by_anthropic(&mut self, usage: &Value) {
        let text = |name: &str| usage.get(name).and_then(Value::as_str);
        text("service_tier").into_iter().for_each(|tier| self.served(tier));
        self.fast = text("speed").map_or(self.fast, |speed| speed == "fast");
        self.in_us = text("inference_geo").map_or(self.in_us, |geo| geo == "us");
    }

    /// The terms of a buffered response of either API.
    pub fn of_response(response: &Value) -> Terms {
        let mut terms = Terms::default();
        let tier = response.get("service_tier").and_then(Value::as_str);
        tier.into_iter().for_each(|tier| terms.served(tier));
        if let Some(usage) = response.get("usage") {
            terms.served_by_anthropic(usage);
        }
        terms
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_tier_that_served_is_charged() {
        let rows = [
            // asked, named by the response in turn, charged
            (None, &[][..], ServiceTier::Standard),
            (Some(r#""flex""#), &[], ServiceTier::Flex),
            (Some(r#""priority""#), &["default"], ServiceTier::Standard),
            (Some(r#""flex""#), &["auto"], ServiceTier::Flex),
            (Some(r#""auto""#), &["auto", "priority"], ServiceTier::Priority),
            (None, &["flex"], ServiceTier::Flex),
            (None, &["FLEX", ""], ServiceTier::Flex),
            (Some(r#""priority""#), &["on_demand"], ServiceTier::Standard),
            (Some("7"), &[], ServiceTier::Standard),
            (Some("null"), &[], ServiceTier::Standard),
        ];
        for (asked, served, expected) in rows {
            let mut terms = Terms::asked(asked, None);
            served.iter().for_each(|tier| terms.served(tier));
            assert_eq!(terms.tier(), expected, "{asked:?} {served:?}");
        }
    }

    #[test]
    fn searches_are_asked_for_by_their_size() {
        let rows = [
            (None, None),
            (Some("null"), None),
            (Some("7"), None),
            (Some("{}"), Some(SearchSize::Medium)),
            (Some(r#"{"search_context_size": "low"}"#), Some(SearchSize::Low)),
            (Some(r#"{"search_context_size": "high", "user_location": {}}"#), Some(SearchSize::High)),
            (Some(r#"{"search_context_size": "vast"}"#), Some(SearchSize::Medium)),
        ];
        for (options, expected) in rows {
            assert_eq!(Terms::asked(None, options).search, expected, "{options:?}");
        }
    }

    #[test]
    fn terms_in_answers() {
        let of = |answer| Terms::of_response(&answer);
        assert_eq!(of(json!({"service_tier": "flex"})).tier(), ServiceTier::Flex);
        let terms =
            of(json!({"usage": {"service_tier": "priority", "speed": "fast", "inference_geo": "us"}}));
        assert_eq!((terms.tier(), terms.fast, terms.in_us), (ServiceTier::Priority, true, true));
        let terms = of(
            json!({"usage": {"service_tier": "standard", "speed": "standard", "inference_geo": "global"}}),
        );
        assert_eq!((terms.tier(), terms.fast, terms.in_us), (ServiceTier::Standard, false, false));
        assert_eq!(of(json!(null)), Terms::default());
    }
}
