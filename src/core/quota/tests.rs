//! Limits, from outside.
