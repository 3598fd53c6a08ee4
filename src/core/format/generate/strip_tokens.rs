//! Special tokens and stop texts at the ends of a response: texts like `</s>` that a server sends along with what the model said.

/// Strips tokens off both ends of a text that comes in pieces. Only what may still turn out to be a token is held back, so the
/// result does not depend on where the pieces end.
#[derive(Debug)]
pub(super) struct StripTokens {
    tokens: Vec<String>,
    /// How far back from the end tokens are looked for, in bytes. Bounds what is held, and the work per piece.
    window: usize,
    /// The end of the text so far, as far as it may belong to tokens.
    held: String,
    begun: bool,
}

impl StripTokens {
    pub fn new(tokens: &[String]) -> StripTokens {
        let tokens: Vec<String> = tokens.iter().filter(|token| !token.is_empty()).cloned().collect();
        let longest = tokens.iter().map(String::len).max().unwrap_or(0);
        StripTokens { tokens, window: longest + 256, held: String::new(), begun: false }
    }

    /// Adds a piece and returns what of the text is sure by now.
    pub fn push(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        let far = self.held.len().saturating_sub(self.window);
        let starts = self.held.char_indices().map(|(at, _)| at).filter(|at| *at >= far);
        let at = starts.into_iter().find(|at| self.may_be_tokens(*at)).unwrap_or(self.held.len());
        let rest = self.held.split_off(at);
        let sure = std::mem::replace(&mut self.held, rest);
        self.without_opening(sure)
    }

    /// What remains at the end of the text. Whole tokens are left out, unless the text was cut off by its length limit and so
    /// has no end of its own.
    pub fn finish(&mut self, cut_off: bool) -> String {
        let held = std::mem::take(&mut self.held);
        let sure = if cut_off { held } else { self.without_ending(held) };
        self.without_opening(sure)
    }

    /// Whether the held text from `at` on is tokens up to its end, the last perhaps incomplete.
    fn may_be_tokens(&self, at: usize) -> bool {
        let mut rest = self.held.get(at..).unwrap_or_default();
        while let Some(after) = self.tokens.iter().find_map(|token| rest.strip_prefix(token.as_str())) {
            rest = after;
        }
        self.tokens.iter().any(|token| token.starts_with(rest))
    }

    fn without_opening(&mut self, sure: String) -> String {
        if self.begun {
            return sure;
        }
        let mut text = sure.as_str();
        while let Some(after) = self.tokens.iter().find_map(|token| text.strip_prefix(token.as_str())) {
            text = after;
        }
        self.begun = !text.is_empty();
        text.to_owned()
    }

    fn without_ending(&self, mut held: String) -> String {
        while let Some(token) = self.tokens.iter().find(|token| held.ends_with(token.as_str())) {
            held.truncate(held.len() - token.len());
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(tokens: &[String], pieces: &[&str], cut_off: bool) -> String {
        let mut strip = StripTokens::new(tokens);
        let mut text: String = pieces.iter().map(|piece| strip.push(piece)).collect();
        text.push_str(&strip.finish(cut_off));
        text
    }

    #[test]
    fn tokens_go_from_the_ends_only_however_the_text_is_split() {
        let tokens = ["</s>".to_owned(), "<s>".to_owned(), "END".to_owned(), "ü!".to_owned()];
        for (text, cut_off, wanted) in [
            ("Hello", false, "Hello"),
            ("<s>Hello</s>", false, "Hello"),
            ("<s><s>Hi END</s>", false, "Hi "),
            ("a </s> b", false, "a </s> b"),
            ("a < b </", false, "a < b </"),
            ("done END", true, "done END"),
            ("über ü!", false, "über "),
            ("<s></s>", false, ""),
            ("", false, ""),
        ] {
            assert_eq!(all(&tokens, &[text], cut_off), wanted, "{text}");
            for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
                let (one, two) = text.split_at(at);
                assert_eq!(all(&tokens, &[one, two], cut_off), wanted, "{one}|{two}");
            }
            let letters: Vec<String> = text.chars().map(String::from).collect();
            let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
            assert_eq!(all(&tokens, &letters, cut_off), wanted, "{text} by letters");
        }
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut strip = StripTokens::new(&["a".to_owned()]);
        for _ in 0..1000 {
            strip.push("a");
        }
        assert!(strip.held.len() <= strip.window);
    }

    #[test]
    fn only_what_may_be_a_token_is_held_back() {
        let mut strip = StripTokens::new(&["</s>".to_owned()]);
        assert_eq!(strip.push("x <"), "x ");
        assert_eq!(strip.push(" y"), "< y");
        assert_eq!(strip.push("</s>"), "");
        assert_eq!(strip.push("z"), "</s>z");
        assert_eq!(strip.finish(false), "");
    }
}
