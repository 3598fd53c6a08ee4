//! Hugging Face text generation inference.

mod marks;
pub mod request;
pub mod response;
