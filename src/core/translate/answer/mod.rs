//! Answers: a wire format's body or stream as a client API's.

#[cfg(test)]
mod cases;
mod chat;
pub mod chat_to_completions;
pub mod chat_to_messages;
pub mod completions_to_chat;
pub mod generate_to_chat;
mod marks;
