//! Requests: a client API's body as a wire format's.

#[cfg(test)]
mod cases;
pub mod chat_to_completions;
pub mod chat_to_generate;
pub mod completions_to_chat;
pub mod messages_to_chat;
mod params;
mod path;
pub mod template;
