//! Words that bodies are searched for without being parsed. Making a searcher costs more than searching an event of a stream, so
//! each is made once.

use std::sync::OnceLock;

use memchr::memmem::Finder;

/// A word to search for.
pub struct Needle {
    text: &'static str,
    finder: OnceLock<Finder<'static>>,
}

impl Needle {
    /// A word. Its searcher is made when it is first needed.
    pub const fn new(text: &'static str) -> Needle {
        Needle { text, finder: OnceLock::new() }
    }

    /// The word itself.
    pub fn text(&self) -> &'static str {
        self.text
    }

    /// Whether `text` holds the word.
    pub fn is_in(&self, text: &[u8]) -> bool {
        self.finder().find(text).is_some()
    }

    /// What follows the word wherever `text` holds it.
    pub fn after<'t>(&'t self, text: &'t [u8]) -> impl Iterator<Item = &'t [u8]> {
        let length = self.text.len();
        self.finder().find_iter(text).map(move |at| text.get(at.saturating_add(length)..).unwrap_or_default())
    }

    /// The values of the members with this name, each up to the end of `text`; the word is the name with its quotes. In a
    /// string of JSON quotes are escaped, so what has a colon behind it is a name.
    pub fn values<'t>(&'t self, text: &'t [u8]) -> impl Iterator<Item = &'t [u8]> {
        self.after(text)
            .filter_map(|rest| Some(rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start()))
    }
}

impl Needle {
    fn finder(&self) -> &Finder<'static> {
        self.finder.get_or_init(|| Finder::new(self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static USAGE: Needle = Needle::new("\"usage\"");

    #[test]
    fn where_a_word_stands() {
        let text = br#"{"usage" : null,"text":"usage","t":"\"usage\":1","x":{"usage":{"a":1}}}"#;
        let values: Vec<_> = USAGE.values(text).collect();
        assert_eq!(values.len(), 2);
        assert!(values[0].starts_with(b"null,") && values[1].starts_with(b"{\"a\""));
        assert_eq!(USAGE.after(text).count(), 3);
        assert!(USAGE.is_in(text) && !USAGE.is_in(b"{\"usages\":1}") && !USAGE.is_in(b""));
    }
}
