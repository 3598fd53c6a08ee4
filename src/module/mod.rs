//! The door through which Envoy comes in as the host of a dynamic module: a shared library in Envoy's own process, for the one version
//! of Envoy whose ABI [`abi`] declares.
//!
//! | file | what it holds |
//! |---|---|
//! | [`abi`] | what Envoy has, declared by hand |
//! | [`hooks`] | what Envoy calls |
//! | [`filter`], [`roles`] | a filter of a stream; the role of a configuration in each worker |
//! | [`host`], [`store`] | Envoy as the gateway's host; the memory that workers share |
//! | [`later`] | what must wait until a hook has returned |
//! | [`waking`] | requests that wait for a time |
//! | [`extension`] | the sync role and the counters, on the main thread |
//!
//! Rules that each cost a crash when they are broken:
//! - Replies, resumptions and calls come back through our own hooks at once: they are made when the outermost hook is done.
//! - Nothing is sent once a stream is complete.
//! - A pointer into a header map, a body or filter state is good until something of it is changed: what is kept is copied.
//! - A hook may be entered while another of the same filter runs: it finds the filter borrowed, and does nothing.
//! - A panic ends where it happened: in the request whose hook it was.

#![allow(clippy::disallowed_methods, reason = "a door is where clock and environment come from")]

mod abi;
mod extension;
#[cfg(test)]
mod fake;
mod filter;
mod hooks;
mod host;
mod later;
mod roles;
mod store;
#[cfg(test)]
mod tests;
mod waking;
