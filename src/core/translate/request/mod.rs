//! Requests: a client API's body as a wire format's.

#[cfg(test)]
mod cases;
pub mod chat_to_completions;
pub mod chat_to_generate;
pub mod chat_to_messages;
pub mod completions_to_chat;
pub mod messages_to_chat;
pub mod params;
mod path;
mod shared;
pub mod template;
