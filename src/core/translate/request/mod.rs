//! Requests: a client API's body as a wire format's.

pub mod params;
