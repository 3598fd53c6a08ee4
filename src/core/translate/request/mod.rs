//! Requests: a client API's body as a wire format's.

pub mod chat_to_messages;
