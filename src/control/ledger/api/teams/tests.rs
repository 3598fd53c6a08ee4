//! Calls and what they answer.
