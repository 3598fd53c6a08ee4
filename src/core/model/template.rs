//! How a chat becomes one prompt for a model that takes only text.

use hashbrown::HashMap;

/// `initial_prompt_value`, `roles`, `final_prompt_value`, `bos_token`, `eos_token`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptTemplate {
    /// Text before the first message.
    pub initial: String,
    /// Text after the last message.
    pub last: String,
    /// Put at the start, and again where a user turn follows an assistant turn.
    pub bos: String,
    /// Put after each assistant turn.
    pub eos: String,
    /// Role to (text before, text after).
    pub roles: HashMap<String, (String, String)>,
}
