//! Tollgate: an LLM gateway made of Envoy and one Wasm filter, drop-in for the LiteLLM proxy.
//!
//! The crate is built twice. For `wasm32-wasip1` it is the filter module that Envoy loads; natively it is what the
//! `tollgate` command (`main.rs`) and the tests link.
//!
//! - [`core`] holds all the logic and knows no host: no host calls, no sockets, no clock, no environment. Facts come in as
//!   arguments, decisions go out as values.
//! - [`gateway`] carries bytes between a host and `core`: the roles of the filter, written over the traits of [`core::host`].
//! - `wasm` (wasm32 only) is the door through which Envoy comes in: the only files that name its SDK.
//! - `control` (native only) is the command: it reads `config.yaml`, writes Envoy's configuration, starts Envoy and watches it.
//!
//! `gateway` and `control` both use `core` and never each other; what crosses between them is a type in `core`. A test (`house`) holds
//! the order of all modules.

pub mod core;
pub mod gateway;

#[cfg(all(not(target_arch = "wasm32"), feature = "command"))]
pub mod control;
#[cfg(test)]
mod house;
#[cfg(all(not(target_arch = "wasm32"), any(feature = "module", test)))]
mod module;
#[cfg(target_arch = "wasm32")]
mod wasm;
