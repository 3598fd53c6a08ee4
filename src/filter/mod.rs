//! The filter: carries bytes between Envoy and the core.
