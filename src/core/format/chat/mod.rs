//! OpenAI chat completions, the pivot: every other format is translated from it and to it.

pub mod prepare;
pub mod response;
