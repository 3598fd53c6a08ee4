//! Providers: a table of brands over a small closed set of wire formats.
//!
//! Adding an OpenAI-compatible brand is one row in [`brands`]. Only a different [`Wire`] gets code. [`mod@infer`] finds the
//! brand of a model name, [`mod@target`] makes the URL, credentials and wire format of a call.

pub mod brands;
pub mod infer;
pub mod target;

pub use brands::{BRANDS, ModelQuirks, brand, model_quirks};
pub use infer::infer;
pub use target::{Target, target, wire};

/// The format of a request and its answer at a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// OpenAI `POST …/chat/completions` (Azure and every compatible brand too).
    Chat,
    /// OpenAI `POST …/completions`.
    Completions,
    /// OpenAI `POST …/embeddings`.
    Embeddings,
    /// Anthropic `POST …/v1/messages`.
    Messages,
    /// Hugging Face text generation inference: `{"inputs", "parameters"}` in, `generated_text` out.
    Generate,
}
