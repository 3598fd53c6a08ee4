//! OpenAI text completions.

pub mod request;
pub mod response;
