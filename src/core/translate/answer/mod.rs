//! Answers: a wire format's body or stream as a client API's.

pub mod messages_to_chat;
