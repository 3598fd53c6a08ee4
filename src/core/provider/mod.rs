//! Providers: a table of brands over a small set of formats.
//!
//! Adding an OpenAI-compatible brand is one row in [`brands`]. Only a different format gets code, in
//! [`crate::core::format`]. [`mod@infer`] finds the brand of a model name, [`mod@target`] chooses the format of a call,
//! [`url`] makes its path and [`auth`] its credentials. [`params`] knows what a model takes of OpenAI's parameters.

pub mod auth;
pub mod brands;
pub mod infer;
pub mod params;
pub mod target;
pub mod url;

pub use brands::{BRANDS, brand};
pub use infer::infer;
pub use params::accepts;
pub use target::{Target, speaks, target};
