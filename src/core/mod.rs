//! The gateway's logic, free of any host: everything here runs the same in the filter, in the command and in a unit test.
//!
//! | module | what it decides |
//! |---|---|
//! | [`model`] | nothing: the nouns that all others read (deployments, keys, limits, money, usage, failures …) |
//! | [`config`] | what a LiteLLM `config.yaml` means, and a verdict for every setting in it |
//! | [`operation`] | what a client may ask for, found by method and path, and what its body carries |
//! | [`codec`] | JSON objects by member, multipart forms, the events of streams: bytes in, what they hold out |
//! | [`provider`] | the table of provider brands: base URL, credentials, quirks |
//! | [`format`] | one API's request and answer as another's |
//! | [`route`] | which deployments a request may try, in which order, and which rest in cooldown |
//! | [`access`] | who may call, and what |
//! | [`quota`] | limits that hold exactly: requests, tokens, money, requests at a time |
//! | [`protocol`] | what the filter and the ledger say to each other |
//! | [`cost`] | usage out of answers, and its price |
//! | [`exchange`] | the life of one request, from its headers to its record |
//! | [`sync`] | what the node tells the ledger, and what it makes of the answer |
//! | [`host`] | what a host gives to all this, as traits |
//! | [`store`] | what is built on the one thing that workers share: a small compare-and-swap store |
//! | [`random`] | chance, from a seed |
//! | [`headers`] | header names and values as bytes |
//! | [`error`] | every refusal, in the client's own format |

pub mod access;
pub mod codec;
pub mod config;
pub mod cost;
pub mod error;
pub mod exchange;
pub mod format;
#[cfg(test)]
pub mod fuzz;
pub mod headers;
pub mod host;
pub mod model;
pub mod operation;
pub mod protocol;
pub mod provider;
pub mod quota;
pub mod random;
pub mod route;
pub mod store;
pub mod sync;
